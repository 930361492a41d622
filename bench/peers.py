"""The same operations as people write them without this project, in NumPy, torch, torch.compile, JAX and numexpr.

Every peer does the kernel's whole job in a call: it folds the coefficients from t and abar (by `kernels.coefficients`, as
the kernel does), runs the equation as written, and has its inputs in its own arrays and its output memory ready where
the library can use it. Where an operation makes noise, each library uses its own generator, NumPy its fastest.

A maker takes (op, arguments, shape) and returns {how: call}; `how` tells the variants of a library apart and the fastest
counts. An operation that a library has no natural way for gives {}.
"""
import importlib.util
import math
from functools import partial
from types import SimpleNamespace

import numpy as np

from bench.targets import LOGITS
from kernels import coefficients, tolerance
from kernels.numpy_cpu.arrays import columns
from kernels.numpy_cpu.fused import eps_loss_grad
from kernels.numpy_cpu.gan import LOSSES
from kernels.registry import PER_EXAMPLE, outputs
from ref import diffusion, guidance

COLUMNS = {"numpy": "NumPy", "torch": "torch", "compile": "torch.compile", "jax": "JAX", "numexpr": "numexpr"}
NEEDS = {"numpy": "numpy", "torch": "torch", "compile": "torch", "jax": "jax", "numexpr": "numexpr"}
GENERATORS = {"SFC64": np.random.SFC64, "PCG64": np.random.PCG64}
LOOSE = 64  # a peer may err so many times more than a kernel; it is compared in speed, not in accuracy
SEES = 1_000_000  # of a larger output, evenly spaced elements up to this number are looked at


def available(asked):
    """The columns whose library is installed, and a line for each that is not. asked: names of COLUMNS."""
    missing = sorted({NEEDS[c] for c in asked if importlib.util.find_spec(NEEDS[c]) is None})
    lines = [f'{name} is not installed, so it has no column; to have it: pip install {name}' for name in missing]
    return [c for c in asked if NEEDS[c] not in missing], lines


def settle(columns, threads):
    """Import the libraries and give each so many threads. columns: what `available` found. threads: int."""
    if "torch" in columns or "compile" in columns:
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
    if "numexpr" in columns:
        import numexpr

        numexpr.set_num_threads(threads)
    if "jax" in columns:  # its threads are the cores that the process may use
        import jax

        jax.config.update("jax_platforms", "cpu")


# --- the equations, once for every library that writes them alike -----------------------------------------------------
# xp has clip, sqrt, exp, mean, softplus, sigmoid, relu, ones_like and normal(like); c holds the coefficients of `kernels.coefficients`, shaped to multiply (B, n).


def _normal(xp, c, like):
    return xp.normal(like)


def _linear(xp, c, a, b):
    return c[0] * a + c[1] * b


def _ddpm(xp, c, xt, e, z, clip):
    return c[2] * xp.clip(c[0] * xt + c[1] * e, -clip, clip) + c[3] * xt + c[4] * z


def _ddim(xp, c, xt, e, z=None):
    xs = c[4] * (c[0] * xt + c[1] * e) + c[5] * e
    return xs if z is None else xs + c[6] * z


def _dpmpp_2m(xp, c, xt, e, last):
    x0 = c[0] * xt + c[1] * e
    return c[2] * xt + c[3] * x0 + c[4] * last, x0


def _loss_grad(xp, c, eps_hat, eps):
    d = eps_hat - eps
    return xp.mean(d * d), (2 / math.prod(d.shape)) * d


def _guided(uncond, cond, w):
    return uncond + w * (cond - uncond)


def _adam(xp, c, p, g, m, v):
    m, v = c[0] * m + c[1] * g, c[2] * v + c[3] * (g * g)
    return p - (c[4] * m / (c[5] * xp.sqrt(v) + c[6]) + c[7] * p), m, v


def _adam_ema(xp, c, p, g, m, v, avg):
    p, m, v = _adam(xp, c, p, g, m, v)
    return p, m, v, c[8] * avg + c[9] * p


def _reparameterize_kl(xp, c, mu, logvar, eps):
    std = xp.exp(logvar / 2)
    return mu + std * eps, (mu * mu + std * std - 1 - logvar).sum(1) / 2


def _reparameterize_kl_backward(xp, dkl, dz, mu, logvar, eps):
    std = xp.exp(logvar / 2)
    return dz + dkl * mu, (dz * eps * std + dkl * (std * std - 1)) / 2, std * dz


def _bernoulli_nll_grad(xp, dnll, logits, x):
    return (xp.softplus(logits) - x * logits).sum(1), dnll * (xp.sigmoid(logits) - x)


def _gan_loss_grad(xp, name, *logits):
    curve, places, sign = LOSSES[name]
    f = {
        "softplus": lambda u: (xp.softplus(u), xp.sigmoid(u)), "hinge": lambda u: (xp.relu(u), u > 0),
        "square": lambda u: (u * u / 2, u), "line": lambda u: (u, xp.ones_like(u)),
    }[curve.__name__]  # fmt: skip
    found = [(*f(slope * x + shift), slope / math.prod(x.shape)) for x, (slope, shift) in zip(logits, places)]
    return sign * sum(xp.mean(value) for value, _, _ in found), *(sign * c * derivative for _, derivative, c in found)


def equation(op, arguments):
    """f(xp, c, *data) of an operation. op: name. arguments: w, clip, eta, dkl and dnll are taken from them."""
    w, clip, eta = (arguments.get(name) for name in ("w", "clip", "eta"))
    return {
        "philox.normal": _normal,
        "diffusion.q_sample": _linear,
        "diffusion.ddpm_step": lambda xp, c, xt, e, z: _ddpm(xp, c, xt, e, z, clip),
        "diffusion.ddim_step": _ddim,
        "fused.q_sample_noise": lambda xp, c, x0: _linear(xp, c, x0, xp.normal(x0)),
        "fused.eps_loss_grad": _loss_grad,
        "fused.eps_loss_noise": lambda xp, c, eps_hat: _loss_grad(xp, c, eps_hat, xp.normal(eps_hat)),
        "fused.guided_ddpm_step": lambda xp, c, xt, u, v: _ddpm(xp, c, xt, _guided(u, v, w), xp.normal(xt), clip),
        "fused.guided_ddim_step": lambda xp, c, xt, u, v: _ddim(xp, c, xt, _guided(u, v, w), xp.normal(xt) if eta else None),
        "fused.guided_dpmpp_2m_step": lambda xp, c, xt, u, v, last: _dpmpp_2m(xp, c, xt, _guided(u, v, w), last),
        "fused.guided_flow_step": lambda xp, c, xt, u, v: xt + c[0] * _guided(u, v, w),
        "fused.heun_step": lambda xp, c, x, d, d_next: c[0] * x + c[1] * d + c[2] * d_next,
        "optim.adam_step": _adam,
        "fused.adam_ema_step": _adam_ema,
        "optim.ema_step": _linear,
        "vae.reparameterize_kl": _reparameterize_kl,
        "vae.reparameterize_kl_backward": lambda xp, c, *x: _reparameterize_kl_backward(xp, arguments["dkl"], *x),
        "vae.bernoulli_nll_grad": lambda xp, c, *x: _bernoulli_nll_grad(xp, arguments["dnll"], *x),
    }.get(op) or (lambda xp, c, *x: _gan_loss_grad(xp, _gan_name(op), *x))


def _gan_name(op):
    return op.removeprefix("gan.").removesuffix("_grad")


def folder(op, a, shape):
    """A function of nothing that folds the coefficients, float32 (K, R); None where there are none.

    op: name. a: arguments. shape: of the data.
    """
    adam = [a.get(name) for name in ("step", "lr", "beta1", "beta2", "eps", "weight_decay")]
    fold = {
        "diffusion.q_sample": lambda: coefficients.q_sample(a["t"], a["abar"], shape),
        "fused.q_sample_noise": lambda: coefficients.q_sample(a["t"], a["abar"], shape),
        "diffusion.ddpm_step": lambda: coefficients.ddpm_step(a["t"], a["s"], a["abar"], "small", shape),
        "fused.guided_ddpm_step": lambda: coefficients.ddpm_step(a["t"], a["s"], a["abar"], "small", shape),
        "diffusion.ddim_step": lambda: coefficients.ddim_step(a["t"], a["s"], a["eta"], a["abar"], shape),
        "fused.guided_ddim_step": lambda: coefficients.ddim_step(a["t"], a["s"], a["eta"], a["abar"], shape),
        "fused.guided_dpmpp_2m_step": lambda: coefficients.dpmpp_2m_step(a["u"], a["t"], a["s"], a["abar"], shape),
        "fused.guided_flow_step": lambda: coefficients.flow_step(a["t"], a["s"], shape),
        "fused.heun_step": lambda: coefficients.heun_step(a["sigma"], a["sigma_next"], shape),
        "optim.adam_step": lambda: coefficients.adam_step(*adam)[:, None],
        "fused.adam_ema_step": lambda: np.append(coefficients.adam_step(*adam), coefficients.ema_step(a["decay"]))[:, None],
        "optim.ema_step": lambda: coefficients.ema_step(a["decay"]),
    }.get(op)
    return None if fold is None else lambda: fold().astype(np.float32)


def data(op, arguments, shape):
    """The peer's own copies of the data, as (B, n), by name in the equation's order. op, arguments, shape: as in `folder`."""
    names = [k for k, v in arguments.items() if isinstance(v, np.ndarray) and v.shape == tuple(shape) and k not in (*PER_EXAMPLE, "abar")]
    if op == "philox.normal":
        return {"like": np.empty((shape[0], int(np.prod(shape[1:]))), np.float32)}
    return {name: np.array(arguments[name]).reshape(shape[0], -1) for name in names}


STATE = {"optim.adam_step": (0, 2, 3), "fused.adam_ema_step": (0, 2, 3, 4), "optim.ema_step": (0,)}  # data updated where it stands


RESULTS = {"fused.guided_dpmpp_2m_step": 2, "vae.reparameterize_kl_backward": 3}  # arrays like the data that it returns, where more than one


# --- NumPy ----------------------------------------------------------------------------------------------------------


def numpy_peer(op, arguments, shape):
    """`kernels.numpy_cpu` with `out=`, and the same with its temporaries kept from call to call. See the file's docstring for
    op, arguments, shape and what is returned; so for the makers below."""
    a, (module, name) = data(op, arguments, shape), op.split(".")
    function = None if importlib.util.find_spec(f"kernels.numpy_cpu.{module}") is None else getattr(importlib.import_module(f"kernels.numpy_cpu.{module}"), name, None)
    if function is None:
        return {}
    if op == "philox.normal" or "seed" in arguments and arguments.get("eta") != 0:
        return {f"{name}, out=": _numpy_kept(op, arguments, shape, a, np.random.Generator(g(1))) for name, g in GENERATORS.items()}
    own = {name: np.array(v) if isinstance(v, np.ndarray) and v.shape == tuple(shape) else v for name, v in arguments.items()}
    made = [own[list(a)[i]] for i in STATE[op]] if op in STATE else [np.empty(shape, np.float32) for _ in range(RESULTS.get(op, 1))]
    if op.split(".")[0] == "gan":
        made = [np.empty(shape, np.float32) for _ in own]
    out = tuple(made) if len(made) > 1 else made[0]
    if op.split(".")[0] in LOGITS:
        scratch = [np.empty((3, *shape), np.float32) for _ in range(2)] if "gan" in op else np.empty((2, *shape), np.float32)
        kept = partial(function, **own, out=out, scratch=scratch)
    else:
        kept = _numpy_kept(op, arguments, shape, a, None)
    return {"out=": partial(function, **own, out=out), "temporaries kept": kept}


def _numpy_kept(op, arguments, shape, a, generator):
    x = list(a.values())
    out, term, e, z = (np.empty_like(x[0]) for _ in range(4))
    fold = folder(op, arguments, shape)
    w, clip, eta = (arguments.get(name) for name in ("w", "clip", "eta"))

    def c():
        return columns(fold(), x[0])

    def drawn():
        return generator.standard_normal(dtype=np.float32, out=z)

    def guided():
        np.subtract(x[2], x[1], out=e)
        np.multiply(e, np.float32(w), out=e)
        return np.add(e, x[1], out=e)

    return {
        "philox.normal": drawn,
        "diffusion.q_sample": lambda: _np_linear(c(), x[0], x[1], out, term),
        "diffusion.ddpm_step": lambda: _np_ddpm(c(), *x, clip, out, term),
        "diffusion.ddim_step": lambda: _np_ddim(c(), *x, out, term),
        "fused.q_sample_noise": lambda: _np_linear(c(), x[0], drawn(), out, z),
        "fused.eps_loss_grad": lambda: eps_loss_grad(*x, out=out),
        "fused.eps_loss_noise": lambda: eps_loss_grad(x[0], drawn(), out=out),
        "fused.guided_ddpm_step": lambda: _np_ddpm(c(), x[0], guided(), drawn(), clip, out, term),
        "fused.guided_ddim_step": lambda: _np_ddim(c(), x[0], guided(), drawn() if eta else None, out, term),
        "fused.guided_dpmpp_2m_step": lambda: _np_dpmpp_2m(c(), x[0], guided(), x[3], out, z, term),
        "fused.guided_flow_step": lambda: np.add(x[0], np.multiply(c()[0], guided(), out=e), out=out),
        "fused.heun_step": lambda: _np_three(c(), *x, out, term),
        "optim.adam_step": lambda: _np_adam(c(), *x, term, e),
        "fused.adam_ema_step": lambda: _np_adam_ema(c(), *x, term, e),
        "optim.ema_step": lambda: _np_linear(c(), x[0], x[1], x[0], term),
    }[op]


def _np_linear(c, a, b, out, term):
    np.multiply(c[1], b, out=term)
    np.multiply(c[0], a, out=out)
    return np.add(out, term, out=out)


def _np_ddpm(c, xt, e, z, clip, out, term):
    np.clip(_np_linear(c, xt, e, out, term), -clip, clip, out=out)
    np.multiply(c[2], out, out=out)
    np.add(out, np.multiply(c[3], xt, out=term), out=out)
    return np.add(out, np.multiply(c[4], z, out=term), out=out)


def _np_ddim(c, xt, e, z, out, term):
    np.multiply(c[4], _np_linear(c, xt, e, out, term), out=out)
    np.add(out, np.multiply(c[5], e, out=term), out=out)
    return out if z is None else np.add(out, np.multiply(c[6], z, out=term), out=out)


def _np_three(c, x, y, z, out, term):
    return np.add(_np_linear(c, x, y, out, term), np.multiply(c[2], z, out=term), out=out)


def _np_dpmpp_2m(c, xt, e, last, out, x0, term):
    _np_linear(c, xt, e, x0, term)
    return np.add(_np_linear(c[2:], xt, x0, out, term), np.multiply(c[4], last, out=term), out=out), x0


def _np_adam(c, p, g, m, v, term, other):
    _np_linear(c, m, g, m, term)
    np.multiply(g, g, out=other)
    _np_linear(c[2:], v, other, v, term)
    np.multiply(c[5], np.sqrt(v, out=term), out=term)
    np.divide(m, np.add(term, c[6], out=term), out=term)
    np.multiply(c[4], term, out=term)
    np.add(term, np.multiply(c[7], p, out=other), out=term)
    return np.subtract(p, term, out=p), m, v


def _np_adam_ema(c, p, g, m, v, avg, term, other):
    return (*_np_adam(c, p, g, m, v, term, other), _np_linear(c[8:], avg, p, avg, term))


# --- torch ----------------------------------------------------------------------------------------------------------


def _torch_xp(torch):
    of = torch.nn.functional
    return SimpleNamespace(clip=torch.clamp, sqrt=torch.sqrt, exp=torch.exp, mean=torch.mean, softplus=of.softplus, sigmoid=torch.sigmoid,
                           relu=torch.relu, ones_like=torch.ones_like, normal=torch.randn_like)  # fmt: skip


def _tensors(torch, op, arguments, shape):
    """The peer's own copies of the data as tensors (B, n), by name, where the arguments are: on the host or on the GPU."""
    places = {k: v for k, v in arguments.items() if hasattr(v, "__cuda_array_interface__")}
    if places:
        return {k: torch.as_tensor(v, device="cuda").reshape(shape[0], -1).clone() for k, v in places.items()}
    if op == "philox.normal" and arguments.get("on_gpu"):
        return {"like": torch.empty((shape[0], int(np.prod(shape[1:]))), device="cuda")}
    return {k: torch.from_numpy(v) for k, v in data(op, arguments, shape).items()}


def torch_peer(op, arguments, shape):
    """The equation in eager mode, and with `out=` and in-place operations; for Adam, torch's own fused AdamW."""
    import torch

    if op in ("optim.adam_step", "fused.adam_ema_step"):
        return {"fused AdamW": _torch_adam(torch, op, arguments, shape)}
    x = list(_tensors(torch, op, arguments, shape).values())
    fold, f = folder(op, arguments, shape), equation(op, arguments)
    xp = _torch_xp(torch)

    def c():
        table = fold() if fold else None
        if table is None or table.shape[1] == 1:
            return None if table is None else table[:, 0].tolist()
        return torch.from_numpy(table[..., None]).to(x[0].device).unbind()

    eager = {"eager": lambda: f(xp, c(), *x)}
    return eager if op.split(".")[0] in LOGITS else eager | {"out=": _torch_out(torch, op, arguments, c, x)}


def _torch_out(torch, op, arguments, c, x):
    out, e, z = (torch.empty_like(x[0]) for _ in range(3))
    w, clip, eta = (arguments.get(name) for name in ("w", "clip", "eta"))

    def scaled(a, b, alpha):  # a += alpha b
        return torch.addcmul(a, b, alpha, out=a) if torch.is_tensor(alpha) else a.add_(b, alpha=alpha)

    def linear(c, a, b, out):
        return scaled(torch.mul(a, c[0], out=out), b, c[1])

    def ddpm(c, xt, e, z):
        x0 = linear(c, xt, e, out).clamp_(-clip, clip)
        return x0.mul_(c[2]).add_(xt, alpha=c[3]).add_(z, alpha=c[4])

    def ddim(c, xt, e, z):
        xs = linear(c, xt, e, out).mul_(c[4]).add_(e, alpha=c[5])
        return xs if z is None else xs.add_(z, alpha=c[6])

    def dpmpp_2m(c, xt, e, last):
        x0 = linear(c, xt, e, z)
        return scaled(linear(c[2:], xt, x0, out), last, c[4]), x0

    def heun(c, x, d, d_next):
        return scaled(linear(c, x, d, out), d_next, c[2])

    def loss(a, b):
        d = torch.sub(a, b, out=out)
        flat = d.view(-1)
        return torch.dot(flat, flat) / flat.numel(), d.mul_(2 / flat.numel())

    return {
        "philox.normal": lambda: x[0].normal_(),
        "diffusion.q_sample": lambda: linear(c(), *x, out),
        "diffusion.ddpm_step": lambda: ddpm(c(), *x),
        "diffusion.ddim_step": lambda: ddim(c(), *x),
        "fused.q_sample_noise": lambda: linear(c(), x[0], z.normal_(), out),
        "fused.eps_loss_grad": lambda: loss(*x),
        "fused.eps_loss_noise": lambda: loss(x[0], z.normal_()),
        "fused.guided_ddpm_step": lambda: ddpm(c(), x[0], torch.lerp(x[1], x[2], w, out=e), z.normal_()),
        "fused.guided_ddim_step": lambda: ddim(c(), x[0], torch.lerp(x[1], x[2], w, out=e), z.normal_() if eta else None),
        "fused.guided_dpmpp_2m_step": lambda: dpmpp_2m(c(), x[0], torch.lerp(x[1], x[2], w, out=e), x[3]),
        "fused.guided_flow_step": lambda: scaled(out.copy_(x[0]), torch.lerp(x[1], x[2], w, out=e), c()[0]),
        "fused.heun_step": lambda: heun(c(), *x),
        "optim.ema_step": lambda: x[0].lerp_(x[1], 1 - arguments["decay"]),
    }[op]


def _torch_adam(torch, op, a, shape):
    x = _tensors(torch, op, a, shape)
    p = x["p"].requires_grad_()
    p.grad = x["g"]
    optimizer = torch.optim.AdamW([p], lr=a["lr"], betas=(a["beta1"], a["beta2"]), eps=a["eps"], weight_decay=a["weight_decay"], fused=True)
    optimizer.state[p] = {"step": torch.tensor(a["step"] - 1.0, device=p.device), "exp_avg": x["m"], "exp_avg_sq": x["v"]}

    def run():
        optimizer.step()
        if "avg" in x:
            return p.detach(), x["m"], x["v"], x["avg"].lerp_(p.detach(), 1 - a["decay"])
        return p.detach(), x["m"], x["v"]

    return run


def compile_peer(op, arguments, shape):
    """The equation under `torch.compile`. Coefficients come as a tensor, so that no step compiles anew."""
    import torch

    x = list(_tensors(torch, op, arguments, shape).values())
    fold, f = folder(op, arguments, shape), equation(op, arguments)
    xp = _torch_xp(torch)
    torch.compiler.reset()
    compiled = torch.compile(lambda c, *x: f(xp, c, *x), dynamic=False)
    places = STATE.get(op, ())

    def run():
        result = compiled(torch.from_numpy(fold()[..., None]).to(x[0].device) if fold else None, *x)
        for i, new in zip(places, result if isinstance(result, tuple) else (result,)):
            x[i] = new
        return result

    return {"compiled": run}


# --- JAX and numexpr --------------------------------------------------------------------------------------------------


def jax_peer(op, arguments, shape):
    """The equation under `jax.jit`; state is donated. Noise by its default generator, and by the one of the hardware."""
    import jax
    import jax.numpy as jnp

    fold, f = folder(op, arguments, shape), equation(op, arguments)
    places = STATE.get(op, ())
    draws = op == "philox.normal" or "seed" in arguments and arguments.get("eta") != 0

    def made(kind):
        def compute(c, key, *x):
            draw = lambda like: jax.random.normal(key, like.shape, jnp.float32)  # noqa: E731
            xp = SimpleNamespace(clip=jnp.clip, sqrt=jnp.sqrt, exp=jnp.exp, mean=jnp.mean, softplus=jax.nn.softplus, sigmoid=jax.nn.sigmoid,
                                 relu=jax.nn.relu, ones_like=jnp.ones_like, normal=draw)  # fmt: skip
            return f(xp, c, *x)

        compiled = jax.jit(compute, donate_argnums=tuple(2 + i for i in places))
        x = [jnp.array(v) for v in data(op, arguments, shape).values()]
        key = jax.random.key(1, impl=kind) if draws else None

        def run():
            result = jax.block_until_ready(compiled(fold()[..., None] if fold else None, key, *x))
            for i, new in zip(places, result if isinstance(result, tuple) else (result,)):
                x[i] = new
            return result

        return run

    return {kind: made(kind) for kind in ("threefry2x32", "rbg")} if draws else {"jit": made("threefry2x32")}


def numexpr_peer(op, arguments, shape):
    """One expression, evaluated in blocks that stay in cache; for operations that are one expression, or three."""
    import numexpr

    a = data(op, arguments, shape)
    x, fold, one = list(a.values()), folder(op, arguments, shape), np.float32(1)
    out = np.empty_like(x[0])
    x0 = "(c0 * x0 + c1 * x1)"
    expression = {
        "diffusion.q_sample": "c0 * x0 + c1 * x1",
        "optim.ema_step": "c0 * x0 + c1 * x1",
        "diffusion.ddim_step": "c4 * (c0 * x0 + c1 * x1) + c5 * x1 + c6 * x2",
        "fused.guided_ddim_step": "c4 * (c0 * x0 + c1 * (x1 + w * (x2 - x1))) + c5 * (x1 + w * (x2 - x1))",
        "fused.guided_flow_step": "x0 + c0 * (x1 + w * (x2 - x1))",
        "fused.heun_step": "c0 * x0 + c1 * x1 + c2 * x2",
        "diffusion.ddpm_step": f"c2 * where({x0} < -clip, -clip, where({x0} > clip, clip, {x0})) + c3 * x0 + c4 * x2",
    }.get(op)  # fmt: skip
    named = {f"x{i}": v for i, v in enumerate(x)} | {n: one * arguments[n] for n in ("w", "clip") if arguments.get(n) is not None}

    def names():
        return named | {f"c{i}": v for i, v in enumerate(columns(fold(), x[0]))}

    def adam():
        n = names()
        numexpr.evaluate("c0 * x2 + c1 * x1", n, out=x[2])
        numexpr.evaluate("c2 * x3 + c3 * (x1 * x1)", n, out=x[3])
        numexpr.evaluate("x0 - (c4 * x2 / (c5 * sqrt(x3) + c6) + c7 * x0)", n, out=x[0])
        return x[0], x[2], x[3]

    if op == "optim.adam_step":
        return {"three expressions": adam}
    if expression is None or op == "fused.guided_ddim_step" and arguments["eta"]:
        return {}
    target = x[0] if op in STATE else out
    return {"evaluate, out=": lambda: numexpr.evaluate(expression, names(), out=target)}


ON_GPU = {"torch": torch_peer, "compile": compile_peer}
HOST = {"numpy": numpy_peer, "torch": torch_peer, "compile": compile_peer, "jax": jax_peer, "numexpr": numexpr_peer}


# --- is a peer right? -------------------------------------------------------------------------------------------------


def home(result, shape):
    """What a peer returned, as a list of NumPy arrays of the data's shape and floats. result: its own. shape: of the data."""
    found = [r.cpu().numpy() if hasattr(r, "cpu") else np.asarray(r) for r in outputs(result)]
    return [r.reshape(shape) if r.size == int(np.prod(shape)) and r.ndim else r if r.ndim else float(r) for r in found]


def check(op, arguments, shape, found, expected):
    """A peer's result against the truth: loosely where it is determined; where the peer draws its own noise, that noise is
    solved for, and has to have the moments of a standard normal and nothing to do with the data.

    op: name. arguments, shape: of the call. found: from `home`. expected: the rule of each output.
    Raises ValueError saying what is off.
    """
    if op != "philox.normal" and ("seed" not in arguments or arguments.get("eta") == 0):
        for out, rule in zip(found, expected, strict=True):
            units = tolerance.error(*_thinned(out, rule))
            if not units <= LOOSE:
                raise ValueError(f"its error is {units:.3g} times what a kernel is allowed")
        return
    z, inputs = _noise(op, arguments, shape, found)
    n = z.size
    bounds = {"mean": (np.mean(z), 0, 1), "variance": (np.mean(z**2), 1, 2), "skewness": (np.mean(z**3), 0, 15), "kurtosis": (np.mean(z**4), 3, 96)}
    for name, a in inputs.items():
        bounds[f"correlation with {name}"] = np.mean(z * a) / np.sqrt(np.mean(np.square(a, dtype=np.float64))), 0, 1
    for name, (value, wanted, variance) in bounds.items():
        if not abs(value - wanted) <= 6 * np.sqrt(variance / n) + 1e-4:
            raise ValueError(f"the {name} of its noise is {value:.4g}, expected {wanted} within {6 * np.sqrt(variance / n):.2g}")


def _thinned(out, rule):
    out = np.asarray(out)
    step = max(out.size // SEES, 1)
    if step == 1 or out.shape != rule.truth.shape:
        return out, rule
    return out.reshape(-1)[::step], tolerance.Rule(rule.truth.reshape(-1)[::step], rule.allowed.reshape(-1)[::step])


def _noise(op, a, shape, found):
    """The noise that a peer must have drawn, float64, and the data beside it. Of a large array, some columns."""
    step = max(int(np.prod(shape)) // SEES, 1)

    def thin(x):
        return np.asarray(x).reshape(shape[0], -1)[:, ::step].astype(np.float64)

    x = {name: thin(v) for name, v in a.items() if isinstance(v, np.ndarray) and v.shape == tuple(shape)}
    out = thin(found[-1])
    if op == "philox.normal":
        return out, {}
    if op == "fused.eps_loss_noise":
        d = out * int(np.prod(shape)) / 2
        mean = float(np.mean(np.square(np.asarray(found[-1], np.float64)))) * (int(np.prod(shape)) / 2) ** 2
        if not abs(found[0] - mean) <= 1e-3 * mean:
            raise ValueError(f"its loss {found[0]:.6g} is not the mean of the squares in its gradient, {mean:.6g}")
        return x["eps_hat"] - d, x
    if op == "fused.q_sample_noise":
        c0, c1 = coefficients.q_sample(a["t"], a["abar"], shape)[..., None]
        rows = c1[:, 0] > 0.005
        return ((out - c0 * x["x0"]) / np.where(c1 > 0, c1, 1))[rows], {"x0": x["x0"][rows]}
    e, z = guidance.guide(x["uncond"], x["cond"], a["w"]), np.zeros_like(out)
    if op == "fused.guided_ddpm_step":
        mean = diffusion.ddpm_step(x["xt"], e, a["t"], a["s"], z, a["abar"], clip=a["clip"])
        sigma = coefficients.ddpm_step(a["t"], a["s"], a["abar"], "small", shape)[4]
    else:
        mean = diffusion.ddim_step(x["xt"], e, a["t"], a["s"], z, a["eta"], a["abar"])
        sigma = coefficients.ddim_step(a["t"], a["s"], a["eta"], a["abar"], shape)[6]
    return (out - mean) / sigma, x
