"""torch, eager and with `out=`, under torch.compile, and on a GPU replayed as a CUDA graph."""
from types import SimpleNamespace

import torch

from bench.peers import loops
from bench.peers.equations import EQUATIONS, NOTHING, adam, adam_ema, data, functional, table

EAGER = functional(SimpleNamespace(
    clip=torch.clamp, sqrt=torch.sqrt, exp=torch.exp, mean=torch.mean, softplus=torch.nn.functional.softplus,
    sigmoid=torch.sigmoid, relu=torch.relu, ones_like=torch.ones_like, normal=torch.randn_like,
))  # fmt: skip


def _add(a, c, b, out):
    if torch.is_tensor(c):
        return torch.addcmul(a, b, c, out=out)
    return a.add_(b, alpha=c) if out is a else torch.add(a, b, alpha=c, out=out)


IN_PLACE = SimpleNamespace(
    # a method costs less than `out`
    mul=lambda a, b, out: a.mul_(b) if out is a else torch.mul(a, b, out=out), minus=torch.sub, add=_add,
    lerp=lambda a, b, w, out: a.lerp_(b, w) if out is a else torch.lerp(a, b, w, out=out),
    square_mean=lambda x: torch.dot(x.view(-1), x.view(-1)) / x.numel(),
    normal=lambda like, out: out.normal_(), clip=lambda x, by, out: x.clamp_(-by, by),
)  # fmt: skip


def make(column, op, arguments, shape):
    """See `bench.peers`. column: "torch", "compile" or "graph"."""
    if op.name in loops.TORCH:
        from bench.peers import torch_loops

        return torch_loops.make(column, op, arguments)
    if op.name.startswith("layers."):
        from bench.peers import torch_layers

        return torch_layers.make(column, op, arguments)
    if op.name not in EQUATIONS or column == "graph":
        return {}
    if column == "compile":
        return {"compiled": _compiled(op, arguments, shape)}
    if EQUATIONS[op.name].f in (adam, adam_ema):
        return {"fused AdamW": _adam(op, arguments, shape)}
    x, fold = list(_tensors(op, arguments, shape).values()), table(op, arguments, shape)
    f, _, writes_over = EQUATIONS[op.name]

    def c():
        folded = fold() if fold else None
        if folded is None or folded.shape[1] == 1:
            return folded if folded is None else folded[:, 0].tolist()
        return torch.from_numpy(folded[..., None]).to(x[0].device).unbind()

    memory = SimpleNamespace(**{name: torch.empty_like(x[0]) for name in ("out", "e", "z")})
    found = {"eager": lambda: f(EAGER, c(), arguments, NOTHING, *x)}
    return found | ({"out=": lambda: f(IN_PLACE, c(), arguments, memory, *x)} if writes_over else {})


def _tensors(op, arguments, shape):
    """The peer's own copies of the data as tensors (B, n), by name, where the arguments are: on the host or on the
    GPU."""
    there = {k: v for k, v in arguments.items() if hasattr(v, "__cuda_array_interface__")}
    if there:
        return {k: torch.as_tensor(v, device="cuda").reshape(shape[0], -1).clone() for k, v in there.items()}
    found = {k: torch.from_numpy(v) for k, v in data(op, arguments, shape).items()}
    return {k: v.cuda() for k, v in found.items()} if arguments.get("on_gpu") else found


def _compiled(op, arguments, shape):
    """The equation under `torch.compile`. Coefficients are a tensor, so that no step compiles again."""
    x, fold, f = _tensors(op, arguments, shape), table(op, arguments, shape), EQUATIONS[op.name].f
    torch.compiler.reset()
    compiled = torch.compile(lambda c, *x: f(EAGER, c, arguments, NOTHING, *x), dynamic=False)
    device = next(iter(x.values())).device

    def run():
        result = compiled(torch.from_numpy(fold()[..., None]).to(device) if fold else None, *x.values())
        x.update(zip(op.in_place, result if isinstance(result, tuple) else (result,)))
        return result

    return run


def _adam(op, a, shape):
    x = _tensors(op, a, shape)
    p = x["p"].requires_grad_()
    p.grad = x["g"]
    settings = dict(lr=a["lr"], betas=(a["beta1"], a["beta2"]), eps=a["eps"], weight_decay=a["weight_decay"])
    optimizer, before = torch.optim.AdamW([p], **settings, fused=True), torch.tensor(a["step"] - 1.0, device=p.device)
    optimizer.state[p] = {"step": before, "exp_avg": x["m"], "exp_avg_sq": x["v"]}

    def run():
        optimizer.step()
        state = p.detach(), x["m"], x["v"]
        return (*state, x["avg"].lerp_(p.detach(), 1 - a["decay"])) if "avg" in x else state

    return run
