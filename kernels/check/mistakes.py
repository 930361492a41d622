"""Known mistakes, as wrong variants of the truth: what each makes of the same arguments. The checker names the one that reproduces what came.

A mistake is a change of the arguments before the truth (CHANGES), a change of its results after (RESULTS), or an equation of its own (WRONG).
Each returns None where it does not apply. Symbols and equations as in `ref`.
"""
import inspect

import numpy as np

from ref import diffusion, fused, gan, guidance, optim, philox, vae

CHANGES = {  # what a wrong implementation computes with
    "alpha-bar off by one step: abar[t - 1] read at t": lambda a: _abar(a, lambda x: np.append(x[:1], x[:-1])),
    "alpha-bar off by one step: abar[t - 1] read at t, and so the last entry at t = 0": lambda a: _abar(a, lambda x: np.roll(x, 1)),
    "alpha-bar off by one step: abar[t + 1] read at t": lambda a: _abar(a, lambda x: np.append(x[1:], x[-1:])),
    "alpha of one step in place of alpha-bar": lambda a: _abar(a, lambda x: np.append(x[:1], x[1:] / x[:-1])),
    "float32 cancellation near t = 0: alpha-bar rounded to float32 before 1 - alpha-bar": lambda a: _abar(a, lambda x: x.astype(np.float32).astype(np.float64)),
    "time runs the other way: T - t in place of t": lambda a: {"t": a["abar"].size - 1 - a["t"]} if "abar" in a and "s" not in a else None,
    "the next time taken as t - 1, whatever s is": lambda a: {"s": a["t"] - 1} if {"s", "abar"} <= a.keys() else None,
    "the first example's time used for all": lambda a: {n: a[n][0] for n in ("u", "t", "s", "sigma", "sigma_next") if np.ndim(a.get(n)) and np.size(a[n])},
    "beta in place of beta-tilde": lambda a: {"variance": "large"} if "variance" in a else None,
    "beta-tilde in place of beta": lambda a: {"variance": "small"} if "variance" in a else None,
    "clip left out": lambda a: {"clip": None} if "clip" in a else None,
    "sign of eps": lambda a: {n: -a[n] for n in ({"eps_hat"} & set(a) or {"eps", "uncond", "cond"}) if isinstance(a.get(n), np.ndarray)},
    "sign of v": lambda a: {"v": -a["v"]} if {"v", "xt"} <= a.keys() else None,
    "sign of the noise": lambda a: {"z": -a["z"]} if "z" in a else None,
    "noise left out": lambda a: {"z": 0 * a["z"]} if "z" in a else None,
    "guidance weight in the other convention: (1 + w) cond - w uncond": lambda a: {"w": guidance.w_from_paper(a["w"])} if "w" in a else None,
    "uncond and cond changed over": lambda a: _swapped(a, "uncond", "cond"),
    "guidance left out: cond alone": lambda a: {"uncond": a["cond"]} if "uncond" in a else None,
    "eta left out: always 1": lambda a: {"eta": 1.0} if "eta" in a else None,
    "eta left out: always 0": lambda a: {"eta": 0.0} if "eta" in a else None,
    "history left out: first order": lambda a: {"x0_last": None, "u": None} if "x0_last" in a else None,
    "x0 and eps changed over": lambda a: _swapped(a, "x0", "eps"),
    "x0 and xt changed over": lambda a: _swapped(a, "x0", "xt"),
    "xt and the prediction changed over": lambda a: _swapped(a, "xt", "eps") or _swapped(a, "xt", "eps_hat") or _swapped(a, "xt", "v"),
    "the two predictions changed over": lambda a: _swapped(a, "denoised", "denoised_next"),
    "the average and the weights changed over": lambda a: _swapped(a, "avg", "p"),
    "beta1 and beta2 changed over": lambda a: _swapped(a, "beta1", "beta2"),
    "bias correction left out": lambda a: {"step": 10**9} if "step" in a else None,
    "bias correction one step late": lambda a: {"step": a["step"] - 1} if a.get("step", 0) > 1 else None,
    "bias correction one step early": lambda a: {"step": a["step"] + 1} if "step" in a else None,
    "weight decay left out": lambda a: {"weight_decay": 0.0} if "weight_decay" in a else None,
    "weight decay not multiplied by the learning rate": lambda a: {"weight_decay": a["weight_decay"] / a["lr"]} if "weight_decay" in a else None,
    **{f"{n} left out: always 1": lambda a, n=n: {n: np.ones_like(a[n])[()]} if n in a else None for n in ("dloss", "dnll", "dkl", "dz", "dxt")},
    "the KL's part of the gradient left out": lambda a: {"dkl": 0.0} if "dkl" in a else None,
    "the sample's part of the gradient left out": lambda a: {"dz": 0 * a["dz"]} if "dz" in a else None,
    "the half of the KL left out": lambda a: {"dkl": 2 * a["dkl"]} if "dkl" in a else None,
    "a mean in place of a sum over each example": lambda a: {"dkl": a["dkl"] / _width(a["mu"])} if "dkl" in a and len(a["mu"]) else None,
    "logvar used as the log of a deviation": lambda a: {"logvar": 2 * a["logvar"]} if "logvar" in a else None,
    "stream left out": lambda a: {"stream": 0} if "stream" in a else None,
    "the seed's high word left out": lambda a: {"seed": a["seed"] & 0xFFFFFFFF} if "seed" in a else None,
}

RESULTS = {  # (outputs of the truth, arguments) -> outputs
    "sign of the result": lambda r, a: [-np.asarray(x, np.float64) for x in r],
    "sign of the gradient": lambda r, a: [r[0], *(-x for x in r[1:])] if _with_gradient(r, a) or "dnll" in a else None,
    "sign of the loss, but not of the gradient": lambda r, a: [-r[0], *r[1:]] if _with_gradient(r, a) else None,
    "1/N left out: a sum in place of a mean": lambda r, a: [x * np.size(_data(a)) for x in r] if _averages(a) else None,
    "1/N left out of the gradient": lambda r, a: [r[0], *(x * np.size(_data(a)) for x in r[1:])] if _with_gradient(r, a) else None,
    "1/N left out of the loss, but not of the gradient": lambda r, a: [r[0] * np.size(_data(a)), *r[1:]] if _with_gradient(r, a) else None,
    "1/B in place of 1/N: the mean over the examples of sums": lambda r, a: [x * _width(_data(a)) for x in r] if _averages(a) and np.ndim(_data(a)) else None,
    "the 2 of the square's gradient left out": lambda r, a: [x / 2 if np.ndim(x) else x for x in r] if _squares(a) else None,
    "half the square": lambda r, a: [x / 2 for x in r] if _squares(a) else None,
    "the pair of Box-Muller changed over": lambda r, a: [_pairs_swapped(r[0])] if set(a) <= {"seed", "shape", "stream"} else None,
}


def of(op):
    """{name: function of the arguments, all of them by name} of the mistakes that can be made in op; each returns a flat list of outputs, or
    None where it does not apply to these arguments, and raises what the truth raises. op: `registry.Op`."""
    own = {name: lambda wrong=wrong, **a: _outputs(wrong(**a)) for name, wrong in WRONG.get(op.name, {}).items()}
    made = {}
    for name, change in CHANGES.items():
        made[name] = lambda change=change, **a: _outputs(op.truth(**(a | changed))) if (changed := change(a)) else None
    for name, change in RESULTS.items():
        made[name] = lambda change=change, **a: change(_outputs(op.truth(**a)), a)
    made["t along the last axis"] = lambda **a: _last_axis(op, a)
    return own | {name: variant for name, variant in made.items() if name not in own}


def defaults(op):
    """The arguments of op's truth that need not be given, with their values. op: `registry.Op`."""
    return {n: p.default for n, p in inspect.signature(op.truth).parameters.items() if p.default is not p.empty}


def _outputs(result):
    return [r for part in result for r in _outputs(part)] if isinstance(result, (tuple, list)) else [result]


def _abar(a, change):
    return {"abar": change(a["abar"])} if "abar" in a else None


def _swapped(a, one, other):
    return {one: a[other], other: a[one]} if a.get(one) is not None and a.get(other) is not None else None


def _squares(a):
    return "eps_hat" in a and "xt" not in a


def _averages(a):
    return _squares(a) or "fake_logits" in a


def _with_gradient(r, a):
    return _averages(a) and len(r) > 1 and np.ndim(r[0]) == 0


def _data(a):
    return a["eps_hat"] if "eps_hat" in a else a["fake_logits"]


def _width(x):
    """The number of elements of one example."""
    return np.size(x) // len(x)


def _pairs_swapped(z):
    flat = np.array(z).reshape(-1)
    even = flat.size // 2 * 2
    return np.append(flat[:even].reshape(-1, 2)[:, ::-1], flat[even:]).reshape(np.shape(z))


def _last_axis(op, a):
    """Where B is the length of the last axis too, numbers for each example put along that axis pass for right."""
    arrays = [n for n, x in a.items() if isinstance(x, np.ndarray) and x.ndim > 1]
    if not any(np.ndim(a.get(n)) for n in ("t", "sigma")) or not arrays:
        return None
    turned = op.truth(**(a | {n: np.moveaxis(a[n], -1, 0) for n in arrays}))
    return [np.moveaxis(x, 0, -1) if np.ndim(x) > 1 else x for x in _outputs(turned)]


# --- equations of their own: the steps, with one thing wrong ---------------------------------------------------------


def _at(abar, t, x):
    """abar[t], shaped to multiply x."""
    return _column(abar[t], x)


def _column(value, x):
    return np.reshape(value, np.shape(value) + (1,) * (x.ndim - 1 if np.ndim(value) else 0))


def _ddpm(wrong):
    def step(xt, eps_hat, t, s, z, abar, variance="small", clip=None):
        mean = diffusion.ddpm_step(xt, eps_hat, t, s, 0 * z, abar, variance, clip)
        abar_t, abar_s = _at(abar, t, xt), _at(abar, s, xt)
        beta = 1 - abar_t / abar_s
        sigma2 = beta * (1 - abar_s) / (1 - abar_t) if variance == "small" else beta
        if wrong == "last":
            return mean + np.sqrt(sigma2) * z
        if wrong == "not at 1":
            return mean + np.where((_column(t, xt) > 1) | (abar_s < 1), np.sqrt(sigma2), 0) * z
        if wrong == "variance":
            return mean + np.where(abar_s < 1, sigma2, 0) * z
        free = diffusion.ddpm_step(xt, eps_hat, t, s, 0 * z, abar, variance)  # "result": clipped where it should be x0_hat that is
        return (free if clip is None else np.clip(free, -clip, clip)) + np.where(abar_s < 1, np.sqrt(sigma2), 0) * z

    return step


def _ddim(wrong):
    def step(xt, eps_hat, t, s, z, eta, abar, clip=None):
        abar_t, abar_s = _at(abar, t, xt), _at(abar, s, xt)
        x0_hat = (xt - np.sqrt(1 - abar_t) * eps_hat) / np.sqrt(abar_t)
        if clip is not None:
            x0_hat = np.clip(x0_hat, -clip, clip)
            eps_hat = eps_hat if wrong == "stale eps" else (xt - np.sqrt(abar_t) * x0_hat) / np.sqrt(1 - abar_t)
        sigma = eta * np.sqrt((1 - abar_s) / (1 - abar_t)) * np.sqrt(1 - abar_t / abar_s)
        if wrong == "beta":
            sigma = eta * np.sqrt(1 - abar_t / abar_s) * (abar_s < 1)
        direction = np.maximum(1 - abar_s - (0 if wrong == "direction" else sigma**2), 0) ** (1 if wrong == "direction's root" else 0.5)
        return (abar_s if wrong == "signal's root" else np.sqrt(abar_s)) * x0_hat + direction * eps_hat + (sigma**2 if wrong == "variance" else sigma) * (0 if z is None else z)

    return step


def _rootless(equation):
    """{name: wrong function} of an equation in signal = sqrt(abar_t) and noise = sqrt(1 - abar_t), without one root or both. equation: (signal, noise, **arguments)."""
    def without(signal, noise):
        def wrong(t, abar, **a):
            at = _at(abar, t, next(x for x in a.values() if isinstance(x, np.ndarray)))
            return equation(signal(at), noise(1 - at), **a)

        return wrong

    return {
        "alpha-bar without its root": without(np.positive, np.positive), "alpha-bar without its root, 1 - alpha-bar with it": without(np.positive, np.sqrt),
        "1 - alpha-bar without its root": without(np.sqrt, np.positive),
    }  # fmt: skip


def _guided(step):
    """A wrong step, with guidance before it and its own noise."""
    def guided(xt, uncond, cond, w, t, s, seed, abar, stream=0, **options):
        return step(xt, guidance.guide(uncond, cond, w), t, s, philox.normal(seed, xt.shape, stream), abar=abar, **options)

    return guided


def _posterior(variance):
    return lambda x0, xt, t, s, abar: (diffusion.posterior(x0, xt, t, s, abar)[0], variance(diffusion.posterior(x0, xt, t, s, abar)[1], abar[t], abar[s]))


def _dpmpp_sign(**a):
    right, x0_hat = fused.guided_dpmpp_2m_step(**a)
    return 2 * fused.guided_dpmpp_2m_step(**(a | dict(x0_last=None, u=None)))[0] - right, x0_hat


def _euler(x, denoised, denoised_next, sigma, sigma_next):
    ratio = _column(np.divide(sigma_next, sigma), x)
    return ratio * x + (1 - ratio) * denoised


def _adam(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, inside=False):
    g = g if inside else g + weight_decay * p
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    mhat, vhat = m / (1 - beta1**step), v / (1 - beta2**step)
    return p - lr * (mhat / np.sqrt(vhat + eps) + weight_decay * p if inside else mhat / (np.sqrt(vhat) + eps)), m, v


def _kl(z_std=lambda logvar: np.exp(logvar / 2), part=lambda kl, mu: kl):
    def both(mu, logvar, eps):
        return mu + z_std(logvar) * eps, part(vae.gaussian_kl(mu, logvar), mu)

    return both


def _log_deviation(logvar, **a):
    dmu, dlogvar, deps = vae.reparameterize_kl_backward(logvar=2 * logvar, **a)
    return dmu, 2 * dlogvar, deps


def _variance_as_deviation(dz, dkl, mu, logvar, eps):
    dmu, dlogvar = vae.gaussian_kl_backward(dkl, mu, logvar)
    return dmu + dz, dlogvar + dz * eps * np.exp(logvar) / 2, np.exp(logvar) * dz


def _nll_mean(gradient):
    def both(logits, x, dnll=1.0):
        nll, dlogits = vae.bernoulli_nll_grad(logits, x, dnll)
        return (nll / _width(x), dlogits / _width(x) if gradient else dlogits) if len(x) else (nll, dlogits)

    return both


def _twice(truth):
    return lambda **a: [2 * x for x in _outputs(truth(**a))]


def _with_ema(adam):
    def step(avg, decay, **a):
        p, m, v = adam(**a)
        return p, m, v, optim.ema_step(avg, p, decay)

    return step


def _old_average(p, avg, decay, **a):
    return *optim.adam_step(p, **a), optim.ema_step(avg, p, decay)


DDPM = {
    "noise added on the last step": _ddpm("last"), "noise added on the last step, unless that starts at t = 1": _ddpm("not at 1"),
    "a variance used as a deviation": _ddpm("variance"), "the mean clipped in place of x0": _ddpm("result"),
}  # fmt: skip
DDIM = {
    "x0 clipped but eps not re-derived": _ddim("stale eps"), "sigma^2 not taken out of the direction's variance": _ddim("direction"),
    "a variance used as a deviation": _ddim("variance"), "beta in place of beta-tilde": _ddim("beta"),
    "alpha-bar of the next time without its root": _ddim("signal's root"), "the direction's variance used as its deviation": _ddim("direction's root"),
}  # fmt: skip
ADAM = {"eps inside the root": lambda **a: _adam(**a, inside=True), "weight decay added to the gradient": _adam}
WRONG = {
    "diffusion.ddpm_step": DDPM,
    "diffusion.ddim_step": DDIM,
    "fused.guided_ddpm_step": {name: _guided(step) for name, step in DDPM.items()},
    "fused.guided_ddim_step": {name: _guided(step) for name, step in DDIM.items()},
    "diffusion.q_sample": _rootless(lambda signal, noise, x0, eps: signal * x0 + noise * eps),
    "diffusion.q_sample_backward": _rootless(lambda signal, noise, dxt: (signal * dxt, noise * dxt)),
    "diffusion.x0_from_eps": _rootless(lambda signal, noise, xt, eps: (xt - noise * eps) / signal),
    "diffusion.eps_from_x0": _rootless(lambda signal, noise, xt, x0: (xt - signal * x0) / noise),
    "diffusion.v_target": _rootless(lambda signal, noise, x0, eps: signal * eps - noise * x0),
    "diffusion.x0_from_v": _rootless(lambda signal, noise, xt, v: signal * xt - noise * v),
    "diffusion.eps_from_v": _rootless(lambda signal, noise, xt, v: noise * xt + signal * v),
    "fused.q_sample_noise": _rootless(lambda signal, noise, x0, seed, stream: signal * x0 + noise * philox.normal(seed, x0.shape, stream)),
    "diffusion.score_from_eps": {"a variance used as a deviation": lambda eps, t, abar: -eps / (1 - _at(abar, t, eps))},
    "diffusion.posterior": {
        "beta in place of beta-tilde": _posterior(lambda v, t, s: 1 - t / s),
        "a deviation in place of the variance": _posterior(lambda v, t, s: np.sqrt(v)),
    },
    "fused.guided_dpmpp_2m_step": {"sign of the history's term": _dpmpp_sign},
    "fused.guided_flow_step": {"sign of the step: t - s": lambda **a: 2 * a["xt"] - fused.guided_flow_step(**a)},
    "fused.heun_step": {"the correction left out: Euler's step": _euler},
    "optim.adam_step": ADAM,
    "fused.adam_ema_step": {name: _with_ema(step) for name, step in ADAM.items()} | {"the average of the old weights": _old_average},
    "optim.ema_step": {"the decay and its complement changed over": lambda avg, p, decay: optim.ema_step(avg, p, 1 - decay)},
    "optim.clip_by_global_norm": {
        "each array by its own norm": lambda grads, max_norm: [optim.clip_by_global_norm([g], max_norm)[0] for g in grads],
        "scaled also where the norm is small": lambda grads, max_norm: [g * (max_norm / np.sqrt(sum(np.sum(x * x) for x in grads))) for g in grads],
        "the square of the norm in place of the norm": lambda grads, max_norm: [g * min(1, max_norm / sum(np.sum(x * x) for x in grads)) for g in grads],
    },
    "vae.reparameterize_kl": {
        "the half of the KL left out": _kl(part=lambda kl, mu: 2 * kl),
        "a mean in place of a sum over each example": _kl(part=lambda kl, mu: kl / _width(mu) if len(mu) else kl),
        "a variance used as a deviation": _kl(z_std=np.exp),
    },
    "vae.reparameterize_kl_backward": {"logvar used as the log of a deviation": _log_deviation, "a variance used as a deviation": _variance_as_deviation},
    "vae.bernoulli_nll_grad": {
        "a mean in place of a sum over each example": _nll_mean(gradient=True), "a mean in place of a sum over each example, but not in the gradient": _nll_mean(gradient=False),
    },
    "gan.generator_loss_grad": {"the saturating loss in place of the non-saturating one": gan.generator_loss_saturating_grad},
    "gan.generator_loss_saturating_grad": {"the non-saturating loss in place of the saturating one": gan.generator_loss_grad},
    **{f"gan.{name}_grad": {"the half of the square left out": _twice(getattr(gan, f"{name}_grad"))} for name in ("least_squares_discriminator_loss", "least_squares_generator_loss")},
}  # fmt: skip
