"""numexpr: one expression, evaluated in blocks that stay in cache; for operations that are one expression, or three."""
import numexpr
import numpy as np

from bench.peers.equations import EQUATIONS, columns, data, table

X0, GUIDED = "(c0 * x0 + c1 * x1)", "(x1 + w * (x2 - x1))"
EXPRESSIONS = {
    "diffusion.q_sample": "c0 * x0 + c1 * x1",
    "optim.ema_step": "x0 + (one - decay) * (x1 - x0)",
    "diffusion.ddim_step": f"c4 * {X0} + c5 * x1 + c6 * x2",
    "fused.guided_ddim_step": f"c4 * (c0 * x0 + c1 * {GUIDED}) + c5 * {GUIDED}",
    "fused.guided_flow_step": f"x0 + c0 * {GUIDED}",
    "fused.heun_step": "c0 * x0 + c1 * x1 + c2 * x2",
    "diffusion.ddpm_step": f"c2 * where({X0} < -clip, -clip, where({X0} > clip, clip, {X0})) + c3 * x0 + c4 * x2",
}
ADAM = {2: "c0 * x2 + c1 * x1", 3: "c2 * x3 + c3 * (x1 * x1)", 0: "x0 - (c4 * x2 / (c5 * sqrt(x3) + c6) + c7 * x0)"}


def make(column, op, arguments, shape):
    """See `bench.peers`. column: "numexpr"."""
    known = op.name in EQUATIONS and op.name in (*EXPRESSIONS, "optim.adam_step")
    if not known or "seed" in arguments and arguments["eta"]:
        return {}
    x, fold = list(data(op, arguments, shape).values()), table(op, arguments, shape)
    settings = {n: np.float32(arguments[n]) for n in ("w", "clip", "decay") if arguments.get(n) is not None}
    named = {f"x{i}": v for i, v in enumerate(x)} | settings | {"one": np.float32(1)}
    target = x[0] if op.in_place else np.empty_like(x[0])

    def names():
        return named | {f"c{i}": v for i, v in enumerate(columns(fold()) if fold else ())}

    def adam():
        n = names()
        for i, expression in ADAM.items():
            numexpr.evaluate(expression, n, out=x[i])
        return x[0], x[2], x[3]

    if op.name == "optim.adam_step":
        return {"three expressions": adam}
    return {"evaluate, out=": lambda: numexpr.evaluate(EXPRESSIONS[op.name], names(), out=target)}
