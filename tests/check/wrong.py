"""Wrong functions. Many are `ref` with an expression of it replaced, so that they share only the mistake with the
catalogue of the checker; the others change the arguments or the results of the truth."""
import ast
import functools
import importlib
import inspect
import re
import types

import numpy as np

from kernels import registry
from kernels.check.adapter import find
from ref import diffusion, philox
from ref.shapes import at


def in_data_dtype(function, like=None, usual=np.float32):
    """function with results in the dtype of its data, or in `dtype`; the truth is float64. like: a function with the
    signature. usual: the dtype where there is neither."""

    @functools.wraps(like or function)
    def wrapped(**arguments):
        dtype = arguments.pop("dtype", next((x.dtype for x in registry.arrays(arguments).values()), usual))
        cast = [x.astype(dtype) if np.ndim(x) else float(x) for x in registry.outputs(function(**arguments))]
        return cast if len(cast) > 1 else cast[0]

    return wrapped


def changed(name, changes):
    """The function of `ref` with expressions of its module replaced. name: module.function. changes: {old: new}."""
    module, function = name.split(".")
    source = ast.unparse(ast.parse(inspect.getsource(importlib.import_module(f"ref.{module}"))))
    for old, new in changes.items():
        source, found = re.subn(rf"(?<!\w){re.escape(ast.unparse(ast.parse(old)))}(?!\w)", f"({new})", source)
        assert found, f"not in ref.{module}: {old}"
    copy = types.ModuleType("changed")
    exec(source, copy.__dict__)
    return getattr(copy, function)


def wrong(name, how):
    """A wrong function of an operation. how: {old: new} expressions, or a function of the truth and its arguments."""
    op = find(name)
    if isinstance(how, dict):
        return in_data_dtype(changed(op.name, how))

    def function(**arguments):
        data = registry.exact(arguments)
        return how(lambda **a: op.truth(**(data | a)), **data)

    return in_data_dtype(function, None if op.takes_dtype else op.truth, op.dtypes[0])


def _along_the_last_axis(f, x0, t, eps, abar):
    if np.ndim(t) and len(t) != x0.shape[-1]:
        raise ValueError("shapes differ")
    return np.sqrt(abar[t]) * x0 + np.sqrt(1 - abar[t]) * eps


def _no_root(f, x0, t, seed, abar, stream=0):
    a = abar[t].reshape(np.shape(t) + (1,) * (x0.ndim - np.ndim(t)))
    return a * x0 + (1 - a) * philox.normal(seed, x0.shape, stream)


def _deviation(f, dz, dkl, mu, logvar, eps):
    std, dkl = np.exp(logvar), np.reshape(dkl, np.shape(dkl) + (1,) * (mu.ndim - np.ndim(dkl)))
    return dz + dkl * mu, dz * eps * std + dkl * (std**2 - 1), std * dz


def _eps_kept(f, xt, eps_hat, t, s, abar, clip, **_):
    x0 = diffusion.x0_from_eps(xt, eps_hat, t, abar)
    return f(clip=None) + (0 if clip is None else np.sqrt(at(abar, s, xt, "s")) * (np.clip(x0, -clip, clip) - x0))


def _direction(new):
    """`ddim_step` with another factor of eps_hat, with and without clip. new: in terms of direction."""
    return {f"direction * {eps}": f"{new} * {eps}" for eps in ("eps_hat", "eps_from_x0(xt, x0_hat, t, abar)")}


SIGNAL, NOISE = {"np.sqrt(abar_t)": "abar_t"}, {"np.sqrt(1 - abar_t)": "(1 - abar_t)"}
OFF, ROOT = "alpha-bar off by one step", "alpha-bar without its root"
STEP = "np.where(abar_s < 1, np.sqrt(sigma2), 0.0)"
KL = "the half of the KL left out"
WRONG = [  # operation, what is wrong, the cause
    ("q_sample", lambda f, t, **_: f(t=np.maximum(t - 1, 0)), f"{OFF}: abar[t - 1] read at t"),
    ("q_sample", lambda f, t, abar, **_: f(t=(t - 1) % abar.size), f"{OFF}: abar[t - 1] read at t, abar[-1] at 0"),
    ("q_sample", lambda f, t, abar, **_: f(t=np.minimum(t + 1, abar.size - 1)), f"{OFF}: abar[t + 1] read at t"),
    ("q_sample", SIGNAL | NOISE, ROOT),
    ("q_sample", SIGNAL, f"{ROOT}, 1 - alpha-bar with it"),
    ("q_sample", NOISE, "1 - alpha-bar without its root"),
    ("q_sample", lambda f, abar, **_: f(abar=abar.astype(np.float32)), "float32 cancellation near t = 0"),
    ("q_sample", _along_the_last_axis, "t along the last axis"),
    ("q_sample", lambda f, t, **_: f(t=int(np.ravel(t)[0]) if np.size(t) else 0), "the first example's time used"),
    ("q_sample", lambda f, **_: np.nan_to_num(f(), posinf=np.inf, neginf=-np.inf), "NaN is turned into a number"),
    ("q_sample_backward", SIGNAL | NOISE, ROOT),
    ("x0_from_eps", {"xt - np.sqrt(1 - abar_t) * eps": "xt + np.sqrt(1 - abar_t) * eps"}, "sign of eps"),
    ("x0_from_eps", SIGNAL, f"{ROOT}, 1 - alpha-bar with it"),
    ("eps_from_x0", NOISE, "1 - alpha-bar without its root"),
    ("x0_from_v", {"np.sqrt(1 - abar_t) * v": "-np.sqrt(1 - abar_t) * v"}, "sign of v"),
    ("x0_from_v", SIGNAL | NOISE, ROOT),
    ("eps_from_v", SIGNAL | NOISE, ROOT),
    ("score_from_eps", NOISE, "a variance used as a deviation"),
    ("posterior", {"(1 - abar_s) / (1 - abar_t) * beta": "beta"}, "beta in place of beta-tilde"),
    ("ddpm_step", {STEP: "np.sqrt(sigma2)"}, "noise added on the last step"),
    ("ddpm_step", {STEP: "np.where(abar_s < 1, sigma2, 0.0)"}, "a variance used as a deviation"),
    ("ddpm_step", {"variance == 'small'": "False", "variance == 'large'": "True"}, "beta in place of beta-tilde"),
    ("ddpm_step", lambda f, s, **_: f(s=np.maximum(s - 1, 0)), ""),  # it has no name
    ("ddim_step", _eps_kept, "x0 clipped but eps not re-derived"),
    ("ddim_step", {"(1 - eta) * (1 + eta) * beta": "beta"}, "sigma^2 not taken out of the direction's variance"),
    ("ddim_step", _direction("-direction"), ""),
    ("ddim_step", {"np.where(sigma > 0, z, 0.0)": "sigma * np.where(sigma > 0, z, 0.0)"}, "a variance used as"),
    ("ddim_step", _direction("direction**2"), "the direction's variance used as its deviation"),
    ("ddim_step", {"np.sqrt(abar_s) * x0_hat": "abar_s * x0_hat"}, "alpha-bar of the next time without its root"),
    ("eps_loss", {"np.mean((eps_hat - eps) ** 2)": "np.sum((eps_hat - eps) ** 2)"}, "1/N left out"),
    ("eps_loss", {"np.mean((eps_hat - eps) ** 2)": "np.mean((eps_hat - eps) ** 2) / 2"}, "half the square"),
    ("eps_loss_backward", {"2 * (eps_hat - eps)": "(eps_hat - eps)"}, "the 2 of the square's gradient left out"),
    ("q_sample_noise", _no_root, ROOT),
    ("guided_ddim_step", {"guide(uncond, cond, w)": "(1 + w) * cond - w * uncond"}, "guidance weight in the other"),
    ("guided_ddpm_step", {"guide(uncond, cond, w)": "guide(cond, uncond, w)"}, "uncond and cond swapped"),
    ("guided_flow_step", {"xt + (s - t) * v": "xt + (t - s) * v"}, "sign of the step: t - s"),
    ("adam_step", {"np.sqrt(vhat) + eps": "np.sqrt(vhat + eps)"}, "eps inside the root"),
    ("adam_step", {"m / _one_less_power(beta1, step)": "m", "v / _one_less_power(beta2, step)": "v"},
     "bias correction left out"),
    ("ema_step", {"decay * avg + (1 - decay) * p": "(1 - decay) * avg + decay * p"}, "decay and 1 - decay swapped"),
    ("clip_by_global_norm", {"max_norm / n if n > max_norm else 1.0": "np.float64(max_norm) / n"}, "scaled also where"),
    ("reparameterize_kl", {"exp_weighted(eps, logvar / 2)": "exp_weighted(eps, logvar)"},
     "a variance used as a deviation"),
    ("reparameterize_kl_backward",
     {"dkl * mu": "2 * dkl * mu", "expm1_weighted(dkl, logvar) / 2": "expm1_weighted(dkl, logvar)"}, KL),
    ("reparameterize_kl_backward", {"exp_weighted(dz, logvar / 2)": "exp_weighted(dz, logvar)"},
     "a variance used as a deviation"),
    ("reparameterize_kl_backward", lambda f, logvar, **_: f(logvar=2 * logvar), ""),
    ("reparameterize_kl_backward", _deviation, "logvar used as the log of a deviation"),
]  # fmt: skip


def _next(x):
    return np.nextafter(x, np.inf, dtype=x.dtype)


Q = registry.kernel(find("q_sample"), "numba_cpu")
KINDS = {  # what else can be wrong of q_sample, by the kind of failure
    "NaN": lambda x0, t, eps, abar: np.where(np.equal(Q(x0, t, eps, abar), 0), 0, np.nan).astype(x0.dtype),
    "wrong shape": lambda x0, t, eps, abar: Q(x0, t, eps, abar).reshape(-1)[:, None],
    "wrong dtype": lambda x0, t, eps, abar: Q(x0, t, eps, abar).astype(np.float64),
    "writes its inputs": lambda x0, t, eps, abar: Q(x0, t, eps, abar, out=x0 if x0.flags.writeable else None),
    "raises": lambda x0, t, eps, abar: 1 // 0,
    "wrong number of results": lambda x0, t, eps, abar: (Q(x0, t, eps, abar), 1.0),
    "breaks a law": lambda x0, t, eps, abar: Q(x0, t, eps, abar) if len(x0) > 1 else _next(Q(x0, t, eps, abar)),
}  # fmt: skip
