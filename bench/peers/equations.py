"""The equations of the timed operations, once for every library, and the coefficients that they multiply by.

f(xp, c, a, *data) returns new arrays; xp has clip, sqrt, exp, mean, softplus, sigmoid, relu, ones_like and normal(like).
kept(k, c, a, m, *data) writes into memory that is kept from call to call, m.out, m.e and m.z; k has mul, sub, add, lerp,
clip, dot and normal(out). c are the coefficients of `kernels.coefficients`, a the arguments, data arrays (B, n).
"""
import functools
import math
from collections import namedtuple

import numpy as np

from bench.records import gan_losses
from kernels import coefficients
from kernels.registry import PER_EXAMPLE

Equation = namedtuple("Equation", "f fold kept", defaults=(None, None))


def table(op, arguments, shape):
    """A function of nothing that folds the coefficients, float32 (K, R), or None where there are none. op: record. arguments, shape: of the call."""
    fold = EQUATIONS[op.name].fold
    return fold and (lambda: fold(arguments, shape).astype(np.float32))


def columns(folded):
    """The K coefficients of a table, each a float32 or (R, 1), to multiply (R, n). folded: (K, R) or None."""
    return None if folded is None else list(folded[:, 0] if folded.shape[1] == 1 else folded[..., None])


def data(op, arguments, shape):
    """The peer's own copies of the data, as (B, n), by name in the equation's order. op: record. arguments, shape: of the call."""
    found = {k: v for k, v in arguments.items() if isinstance(v, np.ndarray) and v.shape == tuple(shape) and k not in (*PER_EXAMPLE, "abar")}
    return {k: np.array(v).reshape(shape[0], -1) for k, v in found.items()} or {"like": np.empty((shape[0], math.prod(shape[1:])), np.float32)}


# --- one after another, each as its paper has it ---------------------------------------------------------------------


def _linear(xp, c, a, x, y):
    return c[0] * x + c[1] * y


def _linear_kept(k, c, a, m, x, y):
    return _combine(k, c, x, y, m.out)


def _combine(k, c, x, y, out):
    k.mul(x, c[0], out=out)
    return k.add(out, c[1], y, out)


def _guided(a, uncond, cond):
    return uncond + a["w"] * (cond - uncond)


def _ddpm(xp, c, a, xt, e, z):
    return c[2] * xp.clip(c[0] * xt + c[1] * e, -a["clip"], a["clip"]) + c[3] * xt + c[4] * z


def _ddpm_kept(k, c, a, m, xt, e, z):
    k.clip(_combine(k, c, xt, e, m.out), a["clip"])
    k.mul(m.out, c[2], out=m.out)
    return k.add(k.add(m.out, c[3], xt, m.out), c[4], z, m.out)


def _ddim(xp, c, a, xt, e, z=None):
    xs = c[4] * (c[0] * xt + c[1] * e) + c[5] * e
    return xs if z is None else xs + c[6] * z


def _ddim_kept(k, c, a, m, xt, e, z=None):
    k.mul(_combine(k, c, xt, e, m.out), c[4], out=m.out)
    xs = k.add(m.out, c[5], e, m.out)
    return xs if z is None else k.add(xs, c[6], z, m.out)


def _guided_ddim(xp, c, a, xt, u, v):
    return _ddim(xp, c, a, xt, _guided(a, u, v), xp.normal(xt) if a["eta"] else None)


def _guided_ddim_kept(k, c, a, m, xt, u, v):
    return _ddim_kept(k, c, a, m, xt, k.lerp(u, v, a["w"], m.e), k.normal(m.z) if a["eta"] else None)


def _dpmpp_2m(xp, c, a, xt, u, v, last):
    x0 = c[0] * xt + c[1] * _guided(a, u, v)
    return c[2] * xt + c[3] * x0 + c[4] * last, x0


def _dpmpp_2m_kept(k, c, a, m, xt, u, v, last):
    x0 = _combine(k, c, xt, k.lerp(u, v, a["w"], m.e), m.z)
    return k.add(_combine(k, c[2:], xt, x0, m.out), c[4], last, m.out), x0


def _heun_kept(k, c, a, m, x, d, d_next):
    return k.add(_combine(k, c, x, d, m.out), c[2], d_next, m.out)


def _loss_grad(xp, c, a, eps_hat, eps):
    d = eps_hat - eps
    return xp.mean(d * d), (2 / math.prod(d.shape)) * d


def _loss_grad_kept(k, c, a, m, eps_hat, eps):
    d = k.sub(eps_hat, eps, out=m.out)
    flat, n = d.reshape(-1), math.prod(d.shape)
    loss = k.dot(flat, flat) / n
    return loss, k.mul(d, np.float32(2 / n), out=m.out)


def adam(xp, c, a, p, g, m, v):
    m, v = c[0] * m + c[1] * g, c[2] * v + c[3] * (g * g)
    return p - (c[4] * m / (c[5] * xp.sqrt(v) + c[6]) + c[7] * p), m, v


def adam_ema(xp, c, a, p, g, m, v, avg):
    p, m, v = adam(xp, c, a, p, g, m, v)
    return p, m, v, c[8] * avg + c[9] * p


def _reparameterize_kl(xp, c, a, mu, logvar, eps):
    std = xp.exp(logvar / 2)
    return mu + std * eps, (mu * mu + std * std - 1 - logvar).sum(1) / 2


def _reparameterize_kl_backward(xp, c, a, dz, mu, logvar, eps):
    std = xp.exp(logvar / 2)
    return dz + a["dkl"] * mu, (dz * eps * std + a["dkl"] * (std * std - 1)) / 2, std * dz


def _bernoulli_nll_grad(xp, c, a, logits, x):
    return (xp.softplus(logits) - x * logits).sum(1), a["dnll"] * (xp.sigmoid(logits) - x)


def _gan(name, xp, c, a, *logits):
    curve, places, sign = gan_losses()[name]
    f = {
        "softplus": lambda u: (xp.softplus(u), xp.sigmoid(u)), "hinge": lambda u: (xp.relu(u), u > 0),
        "square": lambda u: (u * u / 2, u), "line": lambda u: (u, xp.ones_like(u)),
    }[curve]  # fmt: skip
    found = [(*f(slope * x + shift), slope / math.prod(x.shape)) for x, (slope, shift) in zip(logits, places)]
    return sign * sum(xp.mean(value) for value, _, _ in found), *(sign * n * derivative for _, derivative, n in found)


# --- their coefficients, and the table --------------------------------------------------------------------------------


def _fold_q_sample(a, shape):
    return coefficients.q_sample(a["t"], a["abar"], shape)


def _fold_ddpm(a, shape):
    return coefficients.ddpm_step(a["t"], a["s"], a["abar"], "small", shape)


def _fold_ddim(a, shape):
    return coefficients.ddim_step(a["t"], a["s"], a["eta"], a["abar"], shape)


def _fold_adam(a, shape):
    return coefficients.adam_step(*(a[name] for name in ("step", "lr", "beta1", "beta2", "eps", "weight_decay")))[:, None]


def _fold_ema(a, shape):
    return coefficients.ema_step(a["decay"])


EQUATIONS = {
    "philox.normal": Equation(lambda xp, c, a, like: xp.normal(like), None, lambda k, c, a, m, like: k.normal(m.z)),
    "diffusion.q_sample": Equation(_linear, _fold_q_sample, _linear_kept),
    "diffusion.ddpm_step": Equation(_ddpm, _fold_ddpm, _ddpm_kept),
    "diffusion.ddim_step": Equation(_ddim, _fold_ddim, _ddim_kept),
    "fused.q_sample_noise": Equation(
        lambda xp, c, a, x0: _linear(xp, c, a, x0, xp.normal(x0)), _fold_q_sample,
        lambda k, c, a, m, x0: _linear_kept(k, c, a, m, x0, k.normal(m.z)),
    ),
    "fused.eps_loss_grad": Equation(_loss_grad, None, _loss_grad_kept),
    "fused.eps_loss_noise": Equation(
        lambda xp, c, a, eps_hat: _loss_grad(xp, c, a, eps_hat, xp.normal(eps_hat)), None,
        lambda k, c, a, m, eps_hat: _loss_grad_kept(k, c, a, m, eps_hat, k.normal(m.z)),
    ),
    "fused.guided_ddpm_step": Equation(
        lambda xp, c, a, xt, u, v: _ddpm(xp, c, a, xt, _guided(a, u, v), xp.normal(xt)), _fold_ddpm,
        lambda k, c, a, m, xt, u, v: _ddpm_kept(k, c, a, m, xt, k.lerp(u, v, a["w"], m.e), k.normal(m.z)),
    ),
    "fused.guided_ddim_step": Equation(_guided_ddim, _fold_ddim, _guided_ddim_kept),
    "fused.guided_dpmpp_2m_step": Equation(
        _dpmpp_2m, lambda a, shape: coefficients.dpmpp_2m_step(a["u"], a["t"], a["s"], a["abar"], shape), _dpmpp_2m_kept
    ),
    "fused.guided_flow_step": Equation(
        lambda xp, c, a, xt, u, v: xt + c[0] * _guided(a, u, v), lambda a, shape: coefficients.flow_step(a["t"], a["s"], shape),
        lambda k, c, a, m, xt, u, v: k.add(xt, c[0], k.lerp(u, v, a["w"], m.e), m.out),
    ),
    "fused.heun_step": Equation(
        lambda xp, c, a, x, d, d_next: c[0] * x + c[1] * d + c[2] * d_next,
        lambda a, shape: coefficients.heun_step(a["sigma"], a["sigma_next"], shape), _heun_kept,
    ),
    "optim.adam_step": Equation(adam, _fold_adam),
    "fused.adam_ema_step": Equation(adam_ema, lambda a, shape: np.concatenate([_fold_adam(a, shape), _fold_ema(a, shape)])),
    "optim.ema_step": Equation(_linear, _fold_ema, lambda k, c, a, m, avg, p: k.lerp(avg, p, 1 - a["decay"], avg)),
    "vae.reparameterize_kl": Equation(_reparameterize_kl),
    "vae.reparameterize_kl_backward": Equation(_reparameterize_kl_backward),
    "vae.bernoulli_nll_grad": Equation(_bernoulli_nll_grad),
} | {f"gan.{name}_grad": Equation(functools.partial(_gan, name)) for name in gan_losses()}  # fmt: skip
