"""Known mistakes: what a wrong implementation computes. The checker names the one that reproduces a wrong result.

Every entry has one shape, name: wrong(f, **arguments), with f the truth: f() are its outputs for these arguments,
f(z=-z) those with another z. So most mistakes are a change of the arguments or of the outputs; the rest compose `ref`.
An entry applies to operations that have the arguments it names, unless it returns None. Symbols as in `ref`.
"""
import inspect
from functools import partial
from itertools import combinations

import numpy as np

from kernels import registry
from ref import diffusion, gan, guidance, optim, philox
from ref.shapes import at, per_example

TIMES = ("u", "t", "s", "sigma", "sigma_next")


def of(op):
    """The mistakes that can be made in op. op: `registry.Op`.

    Returns {name: function of all arguments by name}, its own mistakes first. Each returns a flat list of outputs, or
    None where the mistake does not apply to these arguments, and raises what the truth raises.
    """
    pairs = [*combinations(op.data, 2), ("beta1", "beta2")]
    swapped = {f"{one} and {other} swapped": _swapped(one, other) for one, other in pairs}
    both = swapped if op.rules else (own := OWN.get(op.name, {})) | ANY | swapped | own
    return {name: lambda wrong=wrong, **a: _outputs(op.truth, wrong, a) for name, wrong in both.items()}


def _outputs(truth, wrong, a):
    _, *takes = inspect.signature(wrong).parameters.values()
    if any(p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty and p.name not in a for p in takes):
        return None
    made = wrong(lambda **changed: registry.outputs(truth(**(a | changed))), **a)
    return None if made is None else registry.outputs(made)


# --- mistakes in any operation that has the arguments ----------------------------------------------------------------


def _swapped(one, other):
    there = lambda a: {one, other} <= a.keys() and np.shape(a[one]) == np.shape(a[other])  # noqa: E731
    return lambda f, **a: f(**{one: a[other], other: a[one]}) if there(a) else None


def _scaled(f, loss=None, gradient=None, square=False, **a):
    """A mistake in a mean and its gradient: the factor of each, a function of the data. square: only in a square."""
    squared = "eps_hat" in a and "xt" not in a
    data = a["eps_hat"] if squared else a.get("fake_logits")
    if square and not squared or not np.ndim(data):
        return None
    made = [(gradient if np.ndim(x) else loss, x) for x in f()]
    return [factor(data) * x if factor else x for factor, x in made] if any(factor for factor, _ in made) else None


def _width(x):  # the number of elements of one example
    return np.size(x) // len(x)


def _sign(f, **a):
    names = {"eps_hat"} & a.keys() or {"eps", "uncond", "cond"} & a.keys()
    negative = {n: -a[n] for n in names if isinstance(a[n], np.ndarray)}
    return f(**negative) if negative else None


def _first_time(f, **a):
    first = {n: a[n][0] for n in TIMES if np.ndim(a.get(n)) and np.size(a[n])}
    return f(**first) if first else None


def _moved(move):
    """Another entry of alpha-bar. move: (t, T) -> the entry that is read."""
    def wrong(f, abar, **a):
        return f(**{n: move(a[n], len(abar) - 1) for n in ("u", "t", "s") if a.get(n) is not None})

    return wrong


def _last_axis(f, **a):
    """Where B is the length of the last axis too, numbers for each example fit along that axis."""
    arrays = [n for n, x in a.items() if isinstance(x, np.ndarray) and x.ndim > 1]
    if not any(np.ndim(a.get(n)) for n in ("t", "sigma")) or not arrays:
        return None
    turned = f(**{n: np.moveaxis(a[n], -1, 0) for n in arrays})
    return [np.moveaxis(x, 0, -1) if np.ndim(x) > 1 else x for x in turned]


def _pairs_swapped(f, shape, **_):
    flat = np.array(f()[0]).reshape(-1)
    even = flat.size // 2 * 2
    return np.append(flat[:even].reshape(-1, 2)[:, ::-1], flat[even:]).reshape(shape)


def _eps_inside_the_root(f, v, step, beta2, eps, **_):
    """p / sqrt(vhat + eps): the truth with eps = 0 and a moment that holds it. The new moment itself is right."""
    made = f(v=v + eps * (1 - beta2**step) / beta2, eps=0.0)
    return [*made[:2], f()[2], *made[3:]]


ANY = {
    # alpha-bar and times
    "alpha-bar off by one step: abar[t - 1] read at t": _moved(lambda t, T: np.maximum(t - 1, 0)),
    "alpha-bar off by one step: abar[t - 1] read at t, abar[-1] at 0": _moved(lambda t, T: (t - 1) % (T + 1)),
    "alpha-bar off by one step: abar[t + 1] read at t": _moved(lambda t, T: np.minimum(t + 1, T)),
    "alpha of one step in place of alpha-bar": lambda f, abar, **_: f(abar=np.append(abar[:1], abar[1:] / abar[:-1])),
    "float32 cancellation near t = 0: alpha-bar rounded to float32 before 1 - alpha-bar":
        lambda f, abar, **_: f(abar=abar.astype(np.float32).astype(np.float64)),
    "time runs the other way: T - t in place of t": lambda f, t, abar, **_: f(t=len(abar) - 1 - t),
    "the next time taken as t - 1, whatever s is": lambda f, t, s, abar, **_: f(s=t - 1),
    "the first example's time used for all": _first_time,
    "t along the last axis": _last_axis,
    # steps
    "beta in place of beta-tilde": lambda f, variance, **_: f(variance="large"),
    "beta-tilde in place of beta": lambda f, variance, **_: f(variance="small"),
    "clip left out": lambda f, clip, **_: f(clip=None),
    "sign of eps": _sign,
    "sign of v": lambda f, xt, v, **_: f(v=-v),
    "sign of the noise": lambda f, z, **_: f(z=-z),
    "noise left out": lambda f, z, **_: f(z=0 * z),
    "guidance weight in the other convention: (1 + w) cond - w uncond": lambda f, w, **_: f(w=guidance.w_from_paper(w)),
    "guidance left out: cond alone": lambda f, uncond, cond, **_: f(uncond=cond),
    "eta left out: always 1": lambda f, eta, **_: f(eta=1.0),
    "eta left out: always 0": lambda f, eta, **_: f(eta=0.0),
    "history left out: first order": lambda f, x0_last, **_: f(x0_last=None, u=None),
    # optimisers
    "eps inside the root": _eps_inside_the_root,
    "weight decay added to the gradient":
        lambda f, p, g, weight_decay, **_: f(g=g + weight_decay * p, weight_decay=0.0),
    "bias correction left out": lambda f, step, **_: f(step=10**9),
    "bias correction one step late": lambda f, step, **_: f(step=step - 1) if step > 1 else None,
    "bias correction one step early": lambda f, step, **_: f(step=step + 1),
    "weight decay left out": lambda f, weight_decay, **_: f(weight_decay=0.0),
    "weight decay not multiplied by lr": lambda f, weight_decay, lr, **_: f(weight_decay=weight_decay / lr),
    # gradients and losses
    **{f"{name} left out: always 1": lambda f, n=name, **a: f(**{n: np.ones_like(a[n])[()]}) if n in a else None
       for name in ("dloss", "dnll", "dkl", "dz", "dxt")},
    "the KL's part of the gradient left out": lambda f, dkl, **_: f(dkl=0.0),
    "the sample's part of the gradient left out": lambda f, dz, **_: f(dz=0 * dz),
    "the half of the KL left out": lambda f, dkl, **_: f(dkl=2 * dkl),
    "a mean in place of a sum over each example": lambda f, dkl, mu, **_: f(dkl=dkl / _width(mu)) if len(mu) else None,
    "logvar used as the log of a deviation": lambda f, logvar, **_: f(logvar=2 * logvar),
    "the sign of the result": lambda f, **_: [-np.asarray(x, np.float64) for x in f()],
    "the sign of the gradient": partial(_scaled, gradient=lambda x: -1),
    "the sign of the loss, but not of the gradient": partial(_scaled, loss=lambda x: -1),
    "1/N left out: a sum in place of a mean": partial(_scaled, loss=np.size, gradient=np.size),
    "1/N left out of the gradient": partial(_scaled, gradient=np.size),
    "1/N left out of the loss, but not of the gradient": partial(_scaled, loss=np.size),
    "1/B in place of 1/N: the mean over the examples of sums": partial(_scaled, loss=_width, gradient=_width),
    "the 2 of the square's gradient left out": partial(_scaled, gradient=lambda x: 0.5, square=True),
    "half the square": partial(_scaled, loss=lambda x: 0.5, gradient=lambda x: 0.5, square=True),
    # random numbers
    "stream left out": lambda f, stream, **_: f(stream=0),
    "the seed's high word left out": lambda f, seed, **_: f(seed=seed & 0xFFFFFFFF),
    "the pair of Box-Muller swapped": _pairs_swapped,
}  # fmt: skip


# --- mistakes in one operation ---------------------------------------------------------------------------------------


def _rootless(equation):
    """The roots left out of signal = sqrt(abar_t) and noise = sqrt(1 - abar_t). equation: of both and the data."""
    def wrong(signal, noise, f, t, abar, **data):
        abar_t = at(abar, t, next(x for x in data.values() if isinstance(x, np.ndarray)), "t")
        return equation(signal(abar_t), noise(1 - abar_t), **data)

    return {
        "alpha-bar without its root": partial(wrong, np.positive, np.positive),
        "alpha-bar without its root, 1 - alpha-bar with it": partial(wrong, np.positive, np.sqrt),
        "1 - alpha-bar without its root": partial(wrong, np.sqrt, np.positive),
    }


def _noise(f, xt, z):
    """The noise of a step alone, sigma z."""
    return f(xt=np.zeros_like(xt), eps_hat=np.zeros_like(xt), z=z)[0]


def _variance_as_deviation(f, xt, z, **_):
    return f(z=np.zeros_like(xt))[0] + _noise(f, xt, np.ones_like(xt)) ** 2 * z


def _noise_at_the_end(f, xt, t, s, z, abar, variance, except_from_1=False, **_):
    abar_t, abar_s = at(abar, t, xt, "t"), at(abar, s, xt, "s")
    sigma2 = (abar_s - abar_t) / abar_s
    if variance == "small":
        sigma2 = per_example(diffusion.posterior(xt, xt, t, s, abar)[1], xt, "variance")
    where = (per_example(t, xt, "t") > 1) | (abar_s < 1) if except_from_1 else True
    return f(z=np.zeros_like(xt))[0] + np.where(where, np.sqrt(sigma2), 0) * z


def _mean_clipped(f, xt, z, clip, **_):
    mean = f(z=np.zeros_like(z), clip=None)[0]
    return (mean if clip is None else np.clip(mean, -clip, clip)) + _noise(f, xt, z)


def _ddim(f, xt, eps_hat, t, s, z, eta, abar, clip, signal=np.sqrt, direction=np.sqrt, small=True, again=True):
    """`diffusion.ddim_step` with a part of it replaced. small: beta-tilde. again: derive eps from the clipped x0."""
    abar_t, abar_s = at(abar, t, xt, "t"), at(abar, s, xt, "s")
    x0_hat = diffusion.x0_from_eps(xt, eps_hat, t, abar)
    if clip is not None:
        x0_hat = np.clip(x0_hat, -clip, clip)
        eps_hat = diffusion.eps_from_x0(xt, x0_hat, t, abar) if again else eps_hat
    beta = (abar_s - abar_t) / abar_s
    sigma = eta * np.sqrt((1 - abar_s) / (1 - abar_t) * beta if small else beta * (abar_s < 1))
    return signal(abar_s) * x0_hat + direction(np.maximum(1 - abar_s - sigma**2, 0)) * eps_hat + sigma * z


def _guided(step, mistakes):
    """The mistakes of a step, with guidance before it and noise of its own."""
    def guided(wrong, f, xt, uncond, cond, w, seed, stream, **a):
        a |= dict(xt=xt, eps_hat=guidance.guide(uncond, cond, w), z=philox.normal(seed, xt.shape, stream))
        return wrong(lambda **changed: [step(**(a | changed))], **a)

    return {name: partial(guided, wrong) for name, wrong in mistakes.items()}


def _latent_gradient(f, dz, logvar, **_):
    """exp(logvar) in place of exp(logvar / 2) in the sample's part; the KL's part is right."""
    return [sample + kl for sample, kl in zip(f(logvar=2 * logvar, dkl=0.0), f(dz=np.zeros_like(dz)))]


def _norm(grads):
    return np.sqrt(sum(np.sum(g * g) for g in grads))


DDPM = {
    "noise added on the last step": _noise_at_the_end,
    "noise added on the last step, unless that starts at t = 1": partial(_noise_at_the_end, except_from_1=True),
    "a variance used as a deviation": _variance_as_deviation,
    "the mean clipped in place of x0": _mean_clipped,
}
DDIM = {
    "x0 clipped but eps not re-derived": partial(_ddim, again=False),
    "sigma^2 not taken out of the direction's variance": lambda f, xt, z, **_: f(eta=0.0)[0] + _noise(f, xt, z),
    "a variance used as a deviation": _variance_as_deviation,
    "beta in place of beta-tilde": partial(_ddim, small=False),
    "alpha-bar of the next time without its root": partial(_ddim, signal=np.positive),
    "the direction's variance used as its deviation": partial(_ddim, direction=np.positive),
}
HALF_SQUARE = {"the half of the square left out": lambda f, **_: [2 * x for x in f()]}
OWN = {
    "diffusion.ddpm_step": DDPM,
    "diffusion.ddim_step": DDIM,
    "fused.guided_ddpm_step": _guided(diffusion.ddpm_step, DDPM),
    "fused.guided_ddim_step": _guided(diffusion.ddim_step, DDIM),
    "diffusion.q_sample": _rootless(lambda signal, noise, x0, eps: signal * x0 + noise * eps),
    "diffusion.q_sample_backward": _rootless(lambda signal, noise, dxt: (signal * dxt, noise * dxt)),
    "diffusion.x0_from_eps": _rootless(lambda signal, noise, xt, eps: (xt - noise * eps) / signal),
    "diffusion.eps_from_x0": _rootless(lambda signal, noise, xt, x0: (xt - signal * x0) / noise),
    "diffusion.v_target": _rootless(lambda signal, noise, x0, eps: signal * eps - noise * x0),
    "diffusion.x0_from_v": _rootless(lambda signal, noise, xt, v: signal * xt - noise * v),
    "diffusion.eps_from_v": _rootless(lambda signal, noise, xt, v: noise * xt + signal * v),
    "fused.q_sample_noise": _rootless(
        lambda signal, noise, x0, seed, stream: signal * x0 + noise * philox.normal(seed, x0.shape, stream)),
    "diffusion.score_from_eps": {"a variance used as a deviation": lambda f, eps, **_: f(eps=-f()[0])},  # divided twice
    "diffusion.posterior": {
        "beta in place of beta-tilde": lambda f, t, s, abar, **_: [f()[0], (abar[s] - abar[t]) / abar[s]],
        "a deviation in place of the variance": lambda f, **_: [f()[0], np.sqrt(f()[1])],
    },
    "fused.guided_dpmpp_2m_step": {
        "sign of the history's term":
            lambda f, x0_last, **_: None if x0_last is None else f(x0_last=2 * f()[1] - x0_last)},
    "fused.guided_flow_step": {"sign of the step: t - s": lambda f, uncond, cond, **_: f(uncond=-uncond, cond=-cond)},
    "fused.heun_step": {  # with the same prediction the slope is the same
        "the correction left out: Euler's step": lambda f, denoised, **_: f(denoised_next=denoised)},
    "fused.adam_ema_step": {
        "the average of the old weights": lambda f, p, avg, decay, **_: [*f()[:3], optim.ema_step(avg, p, decay)]},
    "optim.ema_step": {"decay and 1 - decay swapped": lambda f, decay, **_: f(decay=1 - decay)},
    "optim.clip_by_global_norm": {
        "each array by its own norm": lambda f, grads, **_: [*(f(grads=[g])[0] for g in grads), f()[-1]],
        "scaled also where n is small": lambda f, grads, max_norm: [g * max_norm / f()[-1] for g in grads] + f()[-1:],
        "the square of the norm in place of the norm": lambda f, grads, max_norm: f(max_norm=max_norm / _norm(grads)),
        "the norm of the clipped gradients": lambda f, max_norm, **_: [*f()[:-1], np.minimum(f()[-1], max_norm)],
    },
    "vae.reparameterize_kl": {
        "the half of the KL left out": lambda f, **_: [f()[0], 2 * f()[1]],
        "a mean in place of a sum over each example": lambda f, mu, **_: [f()[0], f()[1] / _width(mu)],
        "a variance used as a deviation": lambda f, logvar, **_: [f(logvar=2 * logvar)[0], f()[1]],
    },
    "vae.reparameterize_kl_backward": {
        "logvar used as the log of a deviation":
            lambda f, logvar, **_: [c * x for c, x in zip((1, 2, 1), f(logvar=2 * logvar))],
        "a variance used as a deviation": _latent_gradient,
    },
    "vae.bernoulli_nll_grad": {
        "the sign of the gradient": lambda f, **_: [f()[0], -f()[1]],
        "a mean in place of a sum over each example": lambda f, x, **_: [y / _width(x) for y in f()],
        "a mean in place of a sum over each example, but not in the gradient":
            lambda f, x, **_: [f()[0] / _width(x), f()[1]],
    },
    "gan.generator_loss_grad": {
        "the saturating loss in place of this": lambda f, fake_logits: gan.generator_loss_saturating_grad(fake_logits)},
    "gan.generator_loss_saturating_grad": {
        "the non-saturating loss in place of this": lambda f, fake_logits: gan.generator_loss_grad(fake_logits)},
    "gan.least_squares_discriminator_loss_grad": HALF_SQUARE,
    "gan.least_squares_generator_loss_grad": HALF_SQUARE,
}  # fmt: skip
