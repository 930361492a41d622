"""The equations of the timed operations, once for every library, and the coefficients that they multiply by.

f(k, c, a, m, *data) is an equation in a library's primitives k: mul, plus, minus, over, sqrt(x), add(a, c, b) = a + c
b, lerp(a, b, w) = a + w (b - a), clip, normal(like), each with `out`. c are the coefficients of `kernels.coefficients`,
a the arguments, data arrays (B, n), m.out, m.e and m.z memory. A library either writes into `out` or ignores it and
returns new arrays (`functional`), so f uses what its calls return. Equations that use `k.xp` are functional only.
"""
import functools
import math
from collections import namedtuple
from types import SimpleNamespace

import numpy as np

from kernels import coefficients
from kernels.numpy_cpu.gan import LOSSES
from kernels.registry import PER_EXAMPLE

Equation = namedtuple("Equation", "f fold in_place", defaults=(None, True))
NOTHING = SimpleNamespace(out=None, e=None, z=None)


def table(op, arguments, shape):
    """A function of nothing that folds the coefficients, float32 (K, R), or None. op: record."""
    fold = EQUATIONS[op.name].fold
    return fold and (lambda: fold(arguments, shape).astype(np.float32))


def columns(folded):
    """The K coefficients of a table, each a float32 or (R, 1), to multiply (R, n). folded: (K, R) or None."""
    return None if folded is None else list(folded[:, 0] if folded.shape[1] == 1 else folded[..., None])


def data(op, arguments, shape):
    """The peer's own copies of the data, (B, n), by name in the equation's order. op: record."""
    arrays = {k: v for k, v in arguments.items() if getattr(v, "shape", None) == tuple(shape)}
    copies = {k: np.array(v).reshape(shape[0], -1) for k, v in arrays.items() if k not in (*PER_EXAMPLE, "abar")}
    return copies or {"like": np.empty((shape[0], math.prod(shape[1:])), np.float32)}


def functional(xp):
    """Primitives that return new arrays. xp: clip, sqrt, mean and normal of a library, and what `k.xp` is used for."""
    return SimpleNamespace(
        xp=xp, mul=lambda a, b, out: a * b, plus=lambda a, b, out: a + b, minus=lambda a, b, out: a - b,
        over=lambda a, b, out: a / b, sqrt=lambda x, out: xp.sqrt(x), add=lambda a, c, b, out: a + c * b,
        lerp=lambda a, b, w, out: a + w * (b - a), clip=lambda x, by, out: xp.clip(x, -by, by),
        normal=lambda like, out: xp.normal(like), square_mean=lambda x: xp.mean(x * x),
    )  # fmt: skip


# --- each as its paper has it -----------------------------------------------------------------------------------------


def _linear(k, c, a, m, x, y):
    return _combine(k, c, x, y, m.out)


def _combine(k, c, x, y, out):
    return k.add(k.mul(x, c[0], out=out), c[1], y, out=out)


def _guided(k, a, m, uncond, cond):
    return k.lerp(uncond, cond, a["w"], out=m.e)


def _noise(k, m, like):
    return k.normal(like, out=m.z)


def _ddpm(k, c, a, m, xt, e, z):
    x0 = k.clip(_combine(k, c, xt, e, m.out), a["clip"], out=m.out)
    return k.add(_combine(k, c[2:], x0, xt, m.out), c[4], z, out=m.out)


def _ddim(k, c, a, m, xt, e, z=None):
    xs = _combine(k, c[4:], _combine(k, c, xt, e, m.out), e, m.out)
    return xs if z is None else k.add(xs, c[6], z, out=m.out)


def _guided_ddim(k, c, a, m, xt, u, v):
    return _ddim(k, c, a, m, xt, _guided(k, a, m, u, v), _noise(k, m, xt) if a["eta"] else None)


def _dpmpp_2m(k, c, a, m, xt, u, v, last):
    x0 = _combine(k, c, xt, _guided(k, a, m, u, v), m.z)
    return k.add(_combine(k, c[2:], xt, x0, m.out), c[4], last, out=m.out), x0


def _heun(k, c, a, m, x, d, d_next):
    return k.add(_combine(k, c, x, d, m.out), c[2], d_next, out=m.out)


def _loss_grad(k, c, a, m, eps_hat, eps):
    d = k.minus(eps_hat, eps, out=m.out)
    return k.square_mean(d), k.mul(d, 2 / math.prod(d.shape), out=m.out)


def adam(k, c, a, m, p, g, mean, square):
    """[AdamW] of the parameters p and their moments."""
    mean = _combine(k, c, mean, g, mean)
    square = _combine(k, c[2:], square, k.mul(g, g, out=m.e), square)
    root = k.plus(k.mul(k.sqrt(square, out=m.e), c[5], out=m.e), c[6], out=m.e)
    step = k.add(k.mul(k.over(mean, root, out=m.e), c[4], out=m.e), c[7], p, out=m.e)
    return k.minus(p, step, out=p), mean, square


def adam_ema(k, c, a, m, p, g, mean, square, avg):
    """The same with the moving average of p."""
    p, mean, square = adam(k, c, a, m, p, g, mean, square)
    return p, mean, square, _combine(k, c[8:], avg, p, avg)


def _reparameterize_kl(k, c, a, m, mu, logvar, eps):
    std = k.xp.exp(logvar / 2)
    return mu + std * eps, (mu * mu + std * std - 1 - logvar).sum(1) / 2


def _reparameterize_kl_backward(k, c, a, m, dz, mu, logvar, eps):
    std = k.xp.exp(logvar / 2)
    return dz + a["dkl"] * mu, (dz * eps * std + a["dkl"] * (std * std - 1)) / 2, std * dz


def _bernoulli_nll_grad(k, c, a, m, logits, x):
    return (k.xp.softplus(logits) - x * logits).sum(1), a["dnll"] * (k.xp.sigmoid(logits) - x)


def _gan(name, k, c, a, m, *logits):
    curve, places, sign = LOSSES[name]
    f = {
        "softplus": lambda u: (k.xp.softplus(u), k.xp.sigmoid(u)), "hinge": lambda u: (k.xp.relu(u), u > 0),
        "square": lambda u: (u * u / 2, u), "line": lambda u: (u, k.xp.ones_like(u)),
    }[curve.__name__]  # fmt: skip
    found = [(*f(slope * x + shift), slope / math.prod(x.shape)) for x, (slope, shift) in zip(logits, places)]
    return sign * sum(k.xp.mean(value) for value, _, _ in found), *(sign * n * derivative for _, derivative, n in found)


# --- their coefficients, and the table --------------------------------------------------------------------------------


def _fold(name, *taken, fixed=()):
    """A fold of `kernels.coefficients`. name: the function. taken: the arguments that it takes, before shape."""
    return lambda a, shape: getattr(coefficients, name)(*(a[n] for n in taken), *fixed, shape)


def _fold_adam(a, shape):
    settings = (a[name] for name in ("step", "lr", "beta1", "beta2", "eps", "weight_decay"))
    return coefficients.adam_step(*settings)[:, None]


def _fold_adam_ema(a, shape):
    return np.concatenate([_fold_adam(a, shape), coefficients.ema_step(a["decay"])])


Q_SAMPLE, DDIM = _fold("q_sample", "t", "abar"), _fold("ddim_step", "t", "s", "eta", "abar")
DDPM = _fold("ddpm_step", "t", "s", "abar", fixed=("small",))
EQUATIONS = {
    "philox.normal": Equation(lambda k, c, a, m, like: _noise(k, m, like)),
    "diffusion.q_sample": Equation(_linear, Q_SAMPLE),
    "diffusion.ddpm_step": Equation(_ddpm, DDPM),
    "diffusion.ddim_step": Equation(_ddim, DDIM),
    "fused.q_sample_noise": Equation(lambda k, c, a, m, x0: _linear(k, c, a, m, x0, _noise(k, m, x0)), Q_SAMPLE),
    "fused.eps_loss_grad": Equation(_loss_grad),
    "fused.eps_loss_noise": Equation(lambda k, c, a, m, x: _loss_grad(k, c, a, m, x, _noise(k, m, x))),
    "fused.guided_ddpm_step": Equation(
        lambda k, c, a, m, xt, u, v: _ddpm(k, c, a, m, xt, _guided(k, a, m, u, v), _noise(k, m, xt)), DDPM),
    "fused.guided_ddim_step": Equation(_guided_ddim, DDIM),
    "fused.guided_dpmpp_2m_step": Equation(_dpmpp_2m, _fold("dpmpp_2m_step", "u", "t", "s", "abar")),
    "fused.guided_flow_step": Equation(
        lambda k, c, a, m, xt, u, v: k.add(xt, c[0], _guided(k, a, m, u, v), out=m.out), _fold("flow_step", "t", "s")),
    "fused.heun_step": Equation(_heun, _fold("heun_step", "sigma", "sigma_next")),
    "optim.adam_step": Equation(adam, _fold_adam),
    "fused.adam_ema_step": Equation(adam_ema, _fold_adam_ema),
    "optim.ema_step": Equation(lambda k, c, a, m, avg, p: k.lerp(avg, p, 1 - a["decay"], out=avg)),
    "vae.reparameterize_kl": Equation(_reparameterize_kl, in_place=False),
    "vae.reparameterize_kl_backward": Equation(_reparameterize_kl_backward, in_place=False),
    "vae.bernoulli_nll_grad": Equation(_bernoulli_nll_grad, in_place=False),
} | {f"gan.{name}_grad": Equation(functools.partial(_gan, name), in_place=False) for name in LOSSES}  # fmt: skip
