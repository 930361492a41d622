"""Right orders of operations in which people write the steps of a schedule; each with coefficients that are made in
float64 and cast, as guided-diffusion and k-diffusion do, and with everything in the data's dtype, as diffusers does.

A formulation takes c, the cast to the data's dtype, and k: the arguments, with abar at t, s and u as k.A, k.S, k.U.
"""
import inspect
from types import SimpleNamespace

import numpy as np

from kernels import registry
from kernels.check.adapter import find
from tests.check.formulations_noise import NORMALS, normals, with_noise

sqrt = np.sqrt


def column(v, x, dtype=np.float64):
    """Numbers for each example as a column that multiplies x, or one number."""
    v = np.asarray(v, dtype)
    return v.reshape(v.shape + (1,) * (x.ndim - v.ndim)) if v.ndim else v


def function(op, how, early):
    """The function with the operation's signature. early: whether the schedule is cast before anything is computed."""
    def wrapped(*args, **given):
        k = SimpleNamespace(**inspect.signature(op.truth).bind(*args, **given).arguments)
        for name, p in op.takes.items():
            if p.default is not p.empty:
                vars(k).setdefault(name, p.default)
        x = next(iter(registry.arrays(vars(k)).values()))
        k.like, cast = x, x.dtype if early else np.float64
        if "abar" in op.takes:
            for name, t in (("A", "t"), ("S", "s"), ("U", "u")):
                if getattr(k, t, None) is not None:
                    setattr(k, name, column(np.asarray(k.abar)[getattr(k, t)], x, cast))
        else:
            for name in registry.PER_EXAMPLE:
                if name in op.takes:
                    setattr(k, name, column(getattr(k, name), x, cast))
        return how(lambda v: np.asarray(v, x.dtype), k)

    wrapped.__signature__ = inspect.signature(op.truth)
    return wrapped


def sg(A):
    return sqrt((1 - A) / A)


def rotated(first, second, sign=1):
    """Four ways to write cos(phi) first + sign sin(phi) second, cos(phi)^2 = abar_t."""
    x, y = (lambda k: getattr(k, first)), (lambda k: sign * getattr(k, second))
    return {
        "roots": lambda c, k: c(sqrt(k.A)) * x(k) + c(sqrt(1 - k.A)) * y(k),
        "roots, other term first": lambda c, k: c(sqrt(1 - k.A)) * y(k) + c(sqrt(k.A)) * x(k),
        "powers": lambda c, k: c(k.A**0.5) * x(k) + c((1 - k.A) ** 0.5) * y(k),
        "an angle": lambda c, k: c(np.cos(np.arccos(sqrt(k.A)))) * x(k) + c(np.sin(np.arccos(sqrt(k.A)))) * y(k),
        "by level, scaled": lambda c, k: c(sqrt(k.A)) * (x(k) + c(sg(k.A)) * y(k)),
        "by level, over a root": lambda c, k: (x(k) + c(sg(k.A)) * y(k)) / c(sqrt(1 + sg(k.A) ** 2)),
        "sigmoids of the log-SNR": lambda c, k: (
            c(sqrt(1 / (1 + (1 - k.A) / k.A))) * x(k) + c(sqrt(1 / (1 + k.A / (1 - k.A)))) * y(k)),
    }  # fmt: skip


X0 = {
    "as printed": lambda c, k, e: (k.xt - c(sqrt(1 - k.A)) * e) / c(sqrt(k.A)),
    "reciprocals": lambda c, k, e: c(sqrt(1 / k.A)) * k.xt - c(sqrt(1 / k.A - 1)) * e,
    "by level": lambda c, k, e: k.xt / c(sqrt(k.A)) - c(sg(k.A)) * e,
    "times a reciprocal": lambda c, k, e: (k.xt - c(sqrt(1 - k.A)) * e) * c(1 / sqrt(k.A)),
    "by a velocity": lambda c, k, e: c(sqrt(k.A)) * k.xt - c(sqrt(1 - k.A)) * (
        (e - c(sqrt(1 - k.A)) * k.xt) / c(sqrt(k.A))),
}  # fmt: skip
EPS = {
    "as printed": lambda c, k: (k.xt - c(sqrt(k.A)) * k.x0) / c(sqrt(1 - k.A)),
    "reciprocals": lambda c, k: (c(sqrt(1 / k.A)) * k.xt - k.x0) / c(sqrt(1 / k.A - 1)),
    "by level": lambda c, k: (k.xt / c(sqrt(k.A)) - k.x0) / c(sg(k.A)),
    "two terms": lambda c, k: c(1 / sqrt(1 - k.A)) * k.xt - c(sqrt(k.A / (1 - k.A))) * k.x0,
    "by the score": lambda c, k: -c(sqrt(1 - k.A)) * ((c(sqrt(k.A)) * k.x0 - k.xt) / c(1 - k.A)),
}
SCORE = {
    "as printed": lambda c, k: -k.eps / c(sqrt(1 - k.A)), "a reciprocal": lambda c, k: -c(1 / sqrt(1 - k.A)) * k.eps,
    "a power": lambda c, k: -k.eps * c((1 - k.A) ** -0.5),
    "over the variance": lambda c, k: -c(sqrt(1 - k.A)) * k.eps / c(1 - k.A),
    "an exponential": lambda c, k: -k.eps * c(np.exp(-0.5 * np.log1p(-k.A))),
}  # fmt: skip


# --- the posterior and ancestral steps -------------------------------------------------------------------------------


def beta(k, form=0):
    return [1 - k.A / k.S, (k.S - k.A) / k.S, 1 - np.exp(np.log(k.A) - np.log(k.S))][form]


def tilde(k, form=0):
    return beta(k, form) * (1 - k.S) / (1 - k.A)


def mean(c, k, x0, form):
    A, S = k.A, k.S
    if form < 3:
        return c(beta(k, form) * sqrt(S) / (1 - A)) * x0 + c((1 - S) * sqrt(A / S) / (1 - A)) * k.xt
    if form == 3:  # divided last
        return (c(sqrt(S) * beta(k)) * x0 + c(sqrt(A / S) * (1 - S)) * k.xt) / c(1 - A)
    # weights of precisions
    one, two = np.where(S < 1, tilde(k) * sqrt(S) / np.where(S < 1, 1 - S, 1), 1.0), tilde(k) * sqrt(A / S) / beta(k)
    return c(one) * x0 + c(two) * k.xt


def variance(k, value):
    return np.float64(value).reshape(np.broadcast_shapes(np.shape(k.t), np.shape(k.s)))[()]


def clipped(k, x0):
    return x0 if k.clip is None else np.clip(x0, -k.clip, k.clip)


def sigma(k, form=0):
    return np.where(k.S < 1, sqrt(tilde(k, form) if k.variance == "small" else beta(k, form)), 0)


def ancestral(k):
    up = np.minimum(sg(k.S), sqrt(sg(k.S) ** 2 * (sg(k.A) ** 2 - sg(k.S) ** 2) / sg(k.A) ** 2))
    return up, sqrt(np.maximum(sg(k.S) ** 2 - up**2, 0))


def by_level(c, k, e, down, up):
    """A step of k-diffusion, in x / sqrt(abar)."""
    x = k.xt / c(sqrt(k.A))
    d = (x - clipped(k, x - c(sg(k.A)) * e)) / c(sg(k.A))
    return c(sqrt(k.S)) * (x + d * c(down - sg(k.A)) + c(up) * k.z)


POSTERIOR = {f"form {n}": lambda c, k, n=n: (mean(c, k, k.x0, n), variance(k, tilde(k, n % 3))) for n in range(5)}
DDPM = {
    **{f"{x0}, mean {n}": lambda c, k, x0=x0, n=n: (
        mean(c, k, clipped(k, X0[x0](c, k, k.eps_hat)), n) + c(sigma(k, n % 3)) * k.z)
       for n, x0 in enumerate(X0)},
    "half the logarithm of the variance":
        lambda c, k: mean(c, k, clipped(k, X0["reciprocals"](c, k, k.eps_hat)), 0) + c(
        k.S < 1) * np.exp(k.like.dtype.type(0.5) * c(np.log(np.where(k.S < 1, sigma(k) ** 2, 1)))) * k.z,
}  # fmt: skip
ALGORITHM_2 = {
    "algorithm 2 as printed": lambda c, k: (
        c(1 / sqrt(k.A / k.S)) * (k.xt - c(beta(k) / sqrt(1 - k.A)) * k.eps_hat) + c(sigma(k)) * k.z),
    "algorithm 2, divided last": lambda c, k: (
        (k.xt - c(beta(k, 1) / sqrt(1 - k.A)) * k.eps_hat) / c(sqrt(k.A / k.S)) + c(sigma(k, 1)) * k.z),
}  # fmt: skip
ANCESTRAL = {"by level": lambda c, k: by_level(c, k, k.eps_hat, *ancestral(k)[::-1])}


# --- DDIM and DPM-Solver++ -------------------------------------------------------------------------------------------


def deviation(k):
    return k.eta * sqrt((1 - k.S) / (1 - k.A) * (1 - k.A / k.S))


def direction(k):
    return sqrt(np.maximum(1 - k.S - deviation(k) ** 2, 0))


def noisy(c, k, out):
    return out + c(deviation(k)) * k.z if k.eta else out


def derived(c, k, x0):
    return (k.xt - c(sqrt(k.A)) * x0) / c(sqrt(1 - k.A))


def ddim(c, k, e, form):
    x0 = clipped(k, X0[form](c, k, e))
    e = e if k.clip is None else derived(c, k, x0)
    return noisy(c, k, c(sqrt(k.S)) * x0 + c(direction(k)) * e)


def ddim_again(c, k, e, twice):
    """eps always derived from x0, in reciprocals; or x0 derived again from that eps."""
    x0 = clipped(k, X0["reciprocals"](c, k, e))
    e = (c(sqrt(1 / k.A)) * k.xt - x0) / c(sqrt(1 / k.A - 1))
    x0 = X0["as printed"](c, k, e) if twice else x0
    return noisy(c, k, c(sqrt(k.S)) * x0 + c(direction(k)) * e)


def ddim_folded(c, k, e):
    x0, a = clipped(k, X0["as printed"](c, k, e)), direction(k) / sqrt(1 - k.A)
    return noisy(c, k, c(a) * k.xt + c(sqrt(k.S) - a * sqrt(k.A)) * x0)


def ddim_by_level(c, k, e):
    up = k.eta * sqrt(sg(k.S) ** 2 * (sg(k.A) ** 2 - sg(k.S) ** 2) / sg(k.A) ** 2)
    k.z = k.z if k.eta else np.zeros_like(k.xt)
    return by_level(c, k, e, sqrt(np.maximum(sg(k.S) ** 2 - up**2, 0)), up)


DDIM = {
    **{name: lambda c, k, name=name: ddim(c, k, k.eps_hat, name) for name in X0},
    "eps derived always": lambda c, k: ddim_again(c, k, k.eps_hat, False),
    "x0 derived again": lambda c, k: ddim_again(c, k, k.eps_hat, True),
    "two terms": lambda c, k: ddim_folded(c, k, k.eps_hat),
    "by level": lambda c, k: ddim_by_level(c, k, k.eps_hat),
}
UNCLIPPED = {"two terms of xt and eps": lambda c, k: noisy(c, k, c(sqrt(k.S / k.A)) * k.xt + c(
    direction(k) - sqrt(k.S / k.A) * sqrt(1 - k.A)) * k.eps_hat)}  # fmt: skip


def half_log_snr(A):
    return np.log(sqrt(A)) - np.log(sqrt(1 - A))


def solver(c, k, e, gain, form):
    """[DPM-Solver++] 2M. gain: e^-h - 1 in one of two ways. form: with D, with differences, or by level."""
    x0 = X0["as printed"](c, k, e)
    h = half_log_snr(k.S) - half_log_snr(k.A)
    g = gain(h)
    half = 0 * k.A if k.u is None else np.where(k.S < 1, h / (2 * (half_log_snr(k.A) - half_log_snr(k.U))), 0)
    last = x0 if k.x0_last is None else np.where(half > 0, k.x0_last, 0)
    if form == "differences":
        first = c(sqrt((1 - k.S) / (1 - k.A))) * k.xt - c(sqrt(k.S) * g) * x0
        return first - c(sqrt(k.S) * g * half) * (x0 - last), x0
    D = c(1 + half) * x0 - c(half) * last
    if form == "level":
        return c(sqrt(k.S)) * (c(sg(k.S) / sg(k.A)) * (k.xt / c(sqrt(k.A))) - c(g) * D), x0
    return c(sqrt(1 - k.S) / sqrt(1 - k.A)) * k.xt - c(sqrt(k.S) * g) * D, x0


# --- guidance, flow, Heun, noise -------------------------------------------------------------------------------------

GUIDE = {
    "as printed": lambda c, k: k.uncond + c(k.w) * (k.cond - k.uncond),
    "two weights": lambda c, k: c(1 - k.w) * k.uncond + c(k.w) * k.cond,
    "from cond": lambda c, k: k.cond + c(k.w - 1) * (k.cond - k.uncond),
}
FLOW = {
    "as printed": lambda c, k, v: k.xt + c(k.s - k.t) * v,
    "subtracted": lambda c, k, v: k.xt - c(k.t - k.s) * v,
    "by both ends": lambda c, k, v: c(1 - k.s) * (k.xt - c(k.t) * v) + c(k.s) * (k.xt + c(1 - k.t) * v),
}


def heun(c, k, form):
    """[EDM] algorithm 1, as printed or with the slopes' mean; or folded to three weights."""
    one, two = k.sigma, k.sigma_next
    if form == "folded":
        half = (one - two) / 2
        return (
            c(two / one) * k.x + c(half / one * (1 + (two - one) / two)) * k.denoised + c(half / two) * k.denoised_next
        )
    d = (k.x - k.denoised) / c(one)
    d_next = (k.x + c(two - one) * d - k.denoised_next) / c(two)
    if form == "mean":
        return k.x + (d + d_next) / 2 * c(two - one)
    return k.x + c(two - one) * (k.like.dtype.type(0.5) * d + k.like.dtype.type(0.5) * d_next)


def zipped(one, two):
    """Pairs of two tables, so that each entry of both is used."""
    n = max(len(one), len(two))
    pairs = [(list(one.items())[i % len(one)], list(two.items())[i % len(two)]) for i in range(n)]
    return {f"{a}; {b}": (f, g) for (a, f), (b, g) in pairs}


GAINS = {"expm1": lambda h: np.expm1(-h), "exp - 1": lambda h: np.exp(-h) - 1}
FORMS = dict.fromkeys(("D", "differences", "level"))
STEPS = {
    "q_sample": rotated("x0", "eps"), "v_target": rotated("eps", "x0", -1), "x0_from_v": rotated("xt", "v", -1),
    "eps_from_v": {name: lambda c, k, f=f: f(c, k) for name, f in rotated("v", "xt").items()},
    "q_sample_backward": {
        "roots": lambda c, k: (c(sqrt(k.A)) * k.dxt, c(sqrt(1 - k.A)) * k.dxt),
        "over reciprocals": lambda c, k: (k.dxt / c(1 / sqrt(k.A)), k.dxt * c((1 - k.A) ** 0.5)),
        "by level": lambda c, k: (c(sqrt(k.A)) * k.dxt, c(sg(k.A)) * (c(sqrt(k.A)) * k.dxt))},
    "x0_from_eps": {name: lambda c, k, f=f: f(c, k, k.eps) for name, f in X0.items()}, "eps_from_x0": EPS,
    "score_from_eps": SCORE, "posterior": POSTERIOR, "ddpm_step": DDPM, "ddim_step": DDIM,
    "guided_ddim_step": {name: lambda c, k, g=g, x=x: ddim(c, with_z(k), g(c, k), x) for name, (g, x) in zipped(
        GUIDE, {x: x for x in X0}).items()},
    "guided_ddpm_step": {name: lambda c, k, g=g, x=x: mean(c, with_z(k), clipped(k, X0[x](c, k, g(c, k))), 0) + c(
        sigma(k)) * k.z for name, (g, x) in zipped(GUIDE, {x: x for x in X0}).items()},
    "guided_dpmpp_2m_step": {f"{name}, {form}": lambda c, k, p=p, form=form: solver(c, k, p[0](c, k), p[1], form)
                             for (name, p), form in zip(zipped(GUIDE, GAINS).items(), FORMS)},
    "guided_flow_step": {name: lambda c, k, g=g, f=f: f(c, k, g(c, k)) for name, (g, f) in zipped(GUIDE, FLOW).items()},
    "heun_step": {form: lambda c, k, form=form: heun(c, k, form) for form in ("as printed", "mean", "folded")},
    "q_sample_noise": {form: with_noise(lambda c, k: c(sqrt(k.A)) * k.x0 + c(sqrt(1 - k.A)) * k.z, form)
                       for form in NORMALS},
}  # fmt: skip


def with_z(k):
    k.z = normals(k.seed, k.like.shape, k.stream, k.like.dtype, "as printed")
    return k


PARTS = [  # operation, table, what it needs
    *((op, table, {}) for op, table in STEPS.items()), ("ddpm_step", ALGORITHM_2, {"clip": None}),
    ("ddpm_step", ANCESTRAL, {"variance": "small"}), ("ddim_step", UNCLIPPED, {"clip": None}),
]
FORMULATIONS = [
    (op, f"{name}, {'in the dtype' if early else 'float64 coefficients'}", function(find(op), how, early), fixed)
    for op, table, fixed in PARTS for name, how in table.items() for early in (False, True)
]
