"""A worked example of every equation: small arguments, mostly two digits of 16 x 16 pixels and their noise.

An argument is looked up by its name: first in what was asked for, then in the tables of the function, of its module (or package), in the function's own
defaults, and in the table of all. An entry that is a function makes the argument from others, taken by their names: so x_t follows from t, and s is
always before it. A new function needs an entry only for an argument whose name no table has, or has with another meaning.
"""
import ast
import inspect
import types

import numpy as np

from ref import edm, flow, objectives, schedules, sde
from ref.diffusion import posterior, q_sample, score_from_eps, v_target
from ref.nets import gan as gan_nets
from ref.nets import mlp
from ref.nets import vae as vae_nets
from ref.philox import normal
from ref.reading import trace
from ref.reading.catalogue import equations, full

SPREAD = 0.25  # the deviation of the data about the two digits, for the models that samplers ask
PIXELS = 16
ABAR = schedules.alpha_bar(schedules.linear_betas())


def digits():
    """A nought and an eight, white on black, (2, 16, 16) in [-1, 1]."""
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    rings = [np.exp(-(((np.hypot(x / 0.45, (y - centre) / height) - 1) / 0.3) ** 2)) for centre, height in ((0, 0.75), (-0.36, 0.37), (0.4, 0.41))]
    return 2 * np.stack([rings[0], np.maximum(rings[1], rings[2])]) - 1


def _expected(x, x0, a, b):
    """E[x0 | x] for x = a x0 + b eps and data N(x0, SPREAD^2): what a perfect model would say."""
    return x0 + (x - a * x0) * a * SPREAD**2 / (a**2 * SPREAD**2 + b**2)


def _noise_model(x0, abar):
    """The perfect prediction of the noise."""
    def model(xt, t):
        a, b = np.sqrt(abar[t]), np.sqrt(1 - abar[t])
        return (xt - a * _expected(xt, x0, a, b)) / b

    return model


def _flow_rate(t):
    """Of the probability flow for data N(0, 1/4), which is linear: dx/dt = rate x."""
    mean, std = sde.vp_marginal(t)
    return -0.5 * sde.vp_diffusion(t) ** 2 * (1 - 1 / (mean**2 / 4 + std**2))


def _critic(pixels):
    shapes = dict(w1=(6, pixels), b1=(6,), w2=(5, 6), b2=(5,), w3=(1, 5), b3=(1,))
    return {name: normal(i, shape) / np.sqrt(shape[-1]) for i, (name, shape) in enumerate(shapes.items())}


def _sines(shape, k=0.0):
    """Numbers in (-1, 1) that look unlike each other and need no seed, a new set for each k."""
    return np.sin(1 + k + 2.3 * np.arange(np.prod(shape)) ** 1.1).reshape(shape)


ALL = dict(
    x0=digits(), t=250, s=lambda t: t // 2, u=lambda t, abar: (t + np.size(abar)) // 2, abar=ABAR,
    eps=lambda x0: normal(1, np.shape(x0)), z=lambda x0: normal(2, np.shape(x0)), noise=lambda x0: normal(3, (3, *np.shape(x0))),
    xt=lambda x0, t, eps, abar: q_sample(x0, t, eps, abar), v=lambda x0, eps, t, abar: v_target(x0, eps, t, abar),
    score=lambda eps, t, abar: score_from_eps(eps, t, abar), eps_hat=lambda eps: 0.9 * eps, cond=lambda eps: 0.9 * eps,
    uncond=lambda eps, x0: 0.9 * eps + 0.1 * x0, eta=0.5, w=2.0, w_paper=1.0, seed=0, shape=(2, 4), T=1000, c=0.00054 * PIXELS,
    x0_hat=lambda x0: 0.9 * x0, x0_last=lambda x0: 0.8 * x0, sigma=2.0, sigma_t=2.0, sigma_s=1.0, xT=lambda x0: normal(4, np.shape(x0)),
    times=schedules.spaced_times(1000, 3, "trailing"), model=_noise_model, denoise=lambda x0: lambda x, sigma: _expected(x, x0, 1, sigma),
    f=lambda x0: lambda x, sigma: _expected(x, x0, 1, sigma), x=lambda x0, sigma, eps: x0 + sigma * eps,
)  # fmt: skip

MODULES = {
    "ref.samplers": dict(sigmas=schedules.karras_sigmas(3, 0.1, 10.0), sigma_min=0.1, sigma=10.0, known=lambda x0: x0,
                         velocity=lambda x0: lambda x, t: (x - _expected(x, x0, 1 - t, t)) / t,
                         mask=lambda x0: np.broadcast_to(np.arange(PIXELS) < PIXELS // 2, x0.shape).copy()),
    "ref.objectives": dict(gamma=5.0, prediction="eps", snr=np.array([0.0, 0.5, 5.0, 50.0]), mean1=_sines((2, 3)), logvar1=_sines((2, 3), 1),
                           mean2=_sines((2, 3), 2), logvar2=_sines((2, 3), 3), x=lambda x0: np.round((x0 + 1) * 127.5) / 127.5 - 1,
                           means=lambda x: 0.8 * x, log_scales=lambda x: np.full(x.shape, -1.5), v=lambda x0: (x0 + 1) / 2,
                           mean_hat=lambda x0, xt, t, s, abar: posterior(0.9 * x0, xt, t, s, abar)[0],
                           logvar_hat=lambda v, t, s, abar: objectives.learned_logvar(v, t, s, abar)),
    "ref.edm": dict(sigma=np.array([0.1, 1.0, 10.0])),
    "ref.flow": dict(t=0.3, xt=lambda x0, eps, t: flow.interpolate(x0, eps, t), v=lambda x0, eps: 0.9 * (eps - x0), shift=3.0, z=normal(2, (6,))),
    "ref.sde": dict(t=0.3, x=lambda x0, eps, t: sde.vp_marginal(t)[0] * x0 + sde.vp_marginal(t)[1] * eps, g=lambda t: sde.vp_diffusion(t),
                    f=lambda x, t: sde.vp_drift(x, t), score=lambda eps, t: -eps / sde.vp_marginal(t)[1], probe=lambda x0: np.sign(normal(5, x0.shape)),
                    times=np.linspace(0.0, 1.0, 4)),
    "ref.consistency": dict(sigmas=schedules.karras_sigmas(5)[:-1], student=lambda x0, eps: x0 + 0.2 * eps, target=lambda x0: x0, a=lambda student: student,
                            b=lambda x0: x0, teacher=lambda denoise: denoise, k=300, K=1000),
    "ref.fused": dict(denoised=lambda x, x0, sigma: _expected(x, x0, 1, sigma), sigma_next=1.0,
                      denoised_next=lambda x, x0, denoised, sigma, sigma_next: _expected(x + (sigma_next - sigma) / sigma * (x - denoised), x0, 1, sigma_next)),
    "ref.layers": dict(x=_sines((2, 3)), w=_sines((4, 3), 1), b=_sines((4,), 2), index=np.array([2, 0, 2]), t=np.array([1.0, 500.0, 1000.0]), width=8,
                       logits=3 * _sines((2, 4)), labels=np.array([3, 0])),
    "ref.nets": dict(pixels=PIXELS**2, width=8, depth=2, classes=2, frequencies=8, latent=4, act="softplus",
                     t=np.array([100, 500]), labels=np.array([0, 1]), z=lambda latent: _sines((2, latent)),
                     flat=lambda x0, eps, t, abar: q_sample(x0, t, eps, abar).reshape(2, -1), x=lambda flat: flat,
                     params=lambda pixels: _critic(pixels)),
    "ref.optim": dict(step=10, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, decay=0.999, max_norm=1.0, p=_sines((6,)), g=_sines((6,), 1),
                      m=_sines((6,), 2), v=_sines((6,), 3) ** 2, avg=_sines((6,), 4), grads=dict(w=_sines((2, 3)), b=_sines((2,), 1))),
    "ref.vae": dict(mu=_sines((2, 4)), logvar=_sines((2, 4), 1), eps=normal(1, (2, 4)), x=lambda x0: (x0 + 1) / 2, logits=lambda x0: 3 * x0,
                    mean=lambda x: 0.8 * x, nll=np.array([90.0, 110.0]), kl=np.array([12.0, 9.0]), log_w=5 * _sines((2, 5))),
    "ref.gan": dict(real_logits=3 * _sines((2, 3)), fake_logits=3 * _sines((2, 2), 1), real=lambda x0: x0, fake=lambda eps: eps, alpha=np.array([0.25, 0.75]),
                    x=lambda x0: x0.reshape(2, -1), params=lambda x: _critic(x.shape[1]), p_data=np.array([0.0, 0.1, 0.4, 0.5]),
                    p_g=np.array([0.1, 0.4, 0.4, 0.1]), p=np.array([0.0, 0.5, 0.5]), q=np.array([0.25, 0.25, 0.5]),
                    network=lambda: (lambda params, x: gan_nets.discriminator_input_gradient(params, x, "softplus"),
                                     gan_nets.discriminator_input_gradient_backward)),
}  # fmt: skip

FUNCTIONS = {
    "ref.schedules.alpha_bar": dict(betas=schedules.linear_betas()),
    "ref.schedules.spaced_times": dict(steps=5, spacing="trailing"),
    "ref.schedules.karras_sigmas": dict(steps=5),
    "ref.schedules.flow_times": dict(steps=5, shift=3.0),
    "ref.schedules.time_from_index": dict(index=np.array([0, 499, 999])),
    "ref.schedules.index_from_time": dict(t=np.array([1, 500, 1000])),
    "ref.guidance.guide_rescaled": dict(phi=0.7),
    "ref.guidance.dynamic_threshold": dict(x0=1.5 * digits(), ratio=0.9, max_value=2.0),
    "ref.samplers.heun": dict(noise=ALL["noise"], s_churn=1.0),
    "ref.samplers.flow_euler": dict(x=ALL["xT"], times=schedules.flow_times(3)),
    "ref.samplers.flow_heun": dict(x=ALL["xT"], times=schedules.flow_times(3)),
    "ref.edm.sigma_at": dict(t=np.array([0.0, 250.5, 1000.0])),
    "ref.edm.vp_from_ve": dict(sigma=2.0),
    "ref.edm.ve_from_vp": dict(sigma=edm.sigma_from_abar(ABAR[500])),
    "ref.flow.straightness": dict(xs=lambda x0, eps: np.stack([(1 - r) * x0 + r * eps + r * (1 - r) for r in (0.0, 0.25, 0.5, 0.75, 1.0)])),
    "ref.flow.shift_times": dict(t=np.linspace(0, 1, 5)),
    "ref.flow.abar_from_flow_time": dict(t=np.linspace(0, 1, 5)),
    "ref.flow.flow_time_from_abar": dict(abar=np.linspace(1, 0, 5)),
    "ref.flow.reverse_time": dict(t=np.linspace(0, 1, 5)),
    "ref.sde.drift_and_jvp": dict(drift=lambda: lambda x, t: _flow_rate(t) * x),
    "ref.sde.log_likelihood": dict(x=ALL["x0"], drift_jvp=lambda: lambda x, t, probe: (_flow_rate(t) * x, _flow_rate(t) * probe)),
    "ref.sde.bits_per_dimension": dict(nats=np.array([900.0, 1000.0]), dims=PIXELS**2, bin_width=2 / 255),
    "ref.philox.philox4x32": dict(counter=np.zeros((1, 4), np.uint32), key=np.zeros((1, 2), np.uint32)),
    "ref.fused.guided_flow_step": dict(t=0.8, s=0.6, xt=lambda x0, eps, t: flow.interpolate(x0, eps, t), cond=lambda x0, eps: eps - x0,
                                       uncond=lambda x0, eps: 0.9 * (eps - x0)),
    "ref.philox.below": dict(n=10),
    "ref.fused.adam_ema_step": MODULES["ref.optim"],
    "ref.fused.mlp_sample": dict(params=lambda xT: mlp.simple_mlp_init(0, xT.shape[1], 8, np.float64), xT=lambda x0: normal(4, (2, x0[0].size))),
    "ref.fused.mlp_train": dict(params=lambda data: mlp.simple_mlp_init(0, data.shape[1], 8, np.float64), data=lambda x0: x0.reshape(2, -1), steps=1,
                                batch=3, lr=1e-3),
    "ref.vae.bernoulli_nll": dict(x=lambda x0: 0.5 + 0.45 * x0),
    "ref.vae.gaussian_nll": dict(logvar=lambda x: np.full(x.shape, -1.0)),
    "ref.nets.gan.generator": dict(params=lambda latent, width, pixels: gan_nets.generator_init(0, latent, width, pixels, np.float64)),
    "ref.nets.vae.encoder": dict(params=lambda pixels, width, latent: vae_nets.encoder_init(0, pixels, width, latent, np.float64)),
    "ref.nets.vae.decoder": dict(params=lambda pixels, width, latent: vae_nets.decoder_init(0, pixels, width, latent, np.float64)),
    "ref.nets.mlp.simple_mlp": dict(params=lambda pixels, width: mlp.simple_mlp_init(0, pixels, width, np.float64)),
    "ref.nets.mlp.residual": dict(params=lambda pixels, width, depth, classes, frequencies: {  # with the last layers of its blocks off 0
        n: a + _sines(a.shape) / 3 for n, a in mlp.residual_init(0, pixels, width, depth, classes, frequencies, np.float64).items()}),
}  # fmt: skip


def example(function, asked=None):
    """Its arguments by name, in order. function: of `ref`. asked: {name: value} that stand in place of the tables'.

    Raises LookupError for an argument without an example.
    """
    name, module, made = full(function), function.__module__, {}
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.default is not p.empty}
    tables = [FUNCTIONS.get(name, {}), MODULES.get(module, {}), MODULES.get(module.rsplit(".", 1)[0], {}), defaults, ALL]

    def value(argument):
        if argument not in made:
            entry = next((table[argument] for table in tables if argument in table), made)
            if entry is made:
                raise LookupError(f"{name}: no worked example for its argument {argument}; ref/reading/examples.py has them")
            recipe = inspect.signature(entry).parameters if isinstance(entry, types.FunctionType) else None
            made[argument] = entry if recipe is None else entry(**{other: value(other) for other in recipe})
        return made[argument]

    made.update(asked or {})
    return {argument: value(argument) for argument in inspect.signature(function).parameters}


def run(function, asked=None):
    """Trace it on its worked example. function: of `ref`. asked: as in `example`; for a `_backward` its forward's arguments too.

    Returns the `trace.Run`; of a `_backward` the rows of `trace.finite_differences`, else []. Raises LookupError as `example` does.
    """
    if not function.__name__.endswith("_backward"):
        return trace.record(function, example(function, asked)), []
    forward, inputs, upstream, arguments = _backward_example(function, asked or {})
    ran = trace.record(function, arguments)
    if isinstance(ran.returned, Exception):
        return ran, []
    return ran, trace.finite_differences(function, forward, inputs, upstream, ran.returned if isinstance(ran.returned, list) else [ran.returned])


def settings(function, words):
    """{name: value} of words such as "t=500". function: of `ref`. words: list of str.

    Raises ValueError for a word that is no name=value, a name that is no argument, a value that cannot stand where the example's does.
    """
    backward = function.__name__.endswith("_backward")
    _, inputs, _, own = _backward_example(function, {}) if backward else (None, {}, None, example(function))
    known, found = inputs | own, {}
    for word in words:
        name, equals, said = word.partition("=")
        if not equals or name not in known:
            raise ValueError(f"--set {word}: expected NAME=VALUE with a name out of {', '.join(known)}")
        of = known[name]
        if callable(of) or isinstance(of, dict) or isinstance(of, tuple) and any(map(callable, of)):
            raise ValueError(f"--set {word}: {name} is a {type(of).__name__}, which no text can stand for; numbers, lists and names can")
        try:
            found[name] = value = ast.literal_eval(said)
            if isinstance(value, list):
                found[name] = np.array(value, of.dtype if isinstance(of, np.ndarray) and of.dtype.kind != "i" else None)
        except (ValueError, SyntaxError):
            if not isinstance(of, str):
                raise ValueError(f"--set {word}: expected a number, a list or None for {name}, got {said!r}") from None
            found[name] = said
    return found


def _backward_example(backward, asked):
    """The forward, its arguments, the gradients that come from above, and the arguments of the backward."""
    forward = equations()[full(backward).removesuffix("_backward")]
    inputs, names = example(forward, asked), list(inspect.signature(backward).parameters)
    returned = forward(**inputs)
    returned = returned if isinstance(returned, tuple) else (returned,)
    outputs = [out for out in returned if not isinstance(out, dict)]
    upstream = {name: asked.get(name, 1.0 if np.ndim(out) == 0 else normal(9, np.shape(out))) for name, out in zip(names, outputs)}
    below = {name: returned[-1] if name == "cache" else inputs.get(name, outputs[0]) for name in names[len(outputs):]}  # or an output, under its own name
    return forward, inputs, list(upstream.values()), upstream | below
