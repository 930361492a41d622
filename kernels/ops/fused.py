"""The operations of `ref.fused`."""
import functools

import numpy as np

from kernels import coefficients
from kernels.numpy_cpu.arrays import columns
from kernels.ops import inputs, loops
from kernels.ops.diffusion import DDIM, DDPM, LOSS, STEP, ddim_sizes, ddpm_sizes, loss_sizes
from kernels.ops.inputs import TIMES, TO_ZERO
from kernels.ops.optim import CHOICES, adam_sizes, state
from kernels.ops.philox import terms
from kernels.ops.record import Op
from ref import diffusion, fused, guidance, philox
from ref.shapes import per_example

W = {"w": (0.0, 1.0, 2.0, 7.5)}
GUIDED = {"half": True, "settings": (*inputs.PER_EXAMPLE, "abar", "w")}  # where w may be one for each example
ROWS = {"times": TIMES["times"]}


def _multistep(rng, shape, dtype, values, history=True, **options):
    """Without history as at the first step."""
    arguments = inputs.usual(DPMPP_2M, rng, shape, dtype, values, **options)
    return arguments | ({} if history else {"x0_last": None, "u": None})


def _flow(rng, shape, dtype, values, times="int", **options):
    s, t = np.sort(rng.integers(0, 1001, (2, shape[0])) + np.array([[0], [1]]), axis=0) / 1001
    t = np.where(s == t, 1.0, t)
    arrays = {name: inputs.data(rng, shape, dtype, values) for name in ("xt", "uncond", "cond")}
    return arrays | _of_each(times, t=(t, 1.0), s=(s, 0.5)) | options


def _heun(rng, shape, dtype, values, times="int"):
    sigma = np.exp(rng.uniform(-6, 4.4, shape[0]))
    sigma_next = sigma * rng.uniform(0.3, 0.999, shape[0])
    arrays = {name: inputs.data(rng, shape, dtype, values) for name in ("x", "denoised", "denoised_next")}
    for x in arrays.values():  # the truth's two slopes make inf - inf of inf, the kernels' one sum need not
        x[np.isinf(x)] = np.nan
    return arrays | _of_each(times, sigma=(sigma, 1.0), sigma_next=(sigma_next, 0.5))


def _of_each(times, **numbers):
    """{name: a number an example, or the first of them, or another where there are no examples}."""
    return {n: x if times == "rows" else float(x[0]) if x.size else other for n, (x, other) in numbers.items()}


def _guided(sizes, noise, uncond, cond, w, xt, seed, stream=0, **arguments):
    """Of a step of `kernels.ops.diffusion` with guidance and noise. noise: (seed, shape, stream) -> the size of z."""
    e, e_size = guidance.guide(uncond, cond, w), _guide_sizes(uncond, cond, w)
    return sizes(xt=xt, e=e, e_size=e_size, z=noise(seed, xt.shape, stream), **arguments)


def _loss_terms(eps_hat, seed, stream=0):
    return loss_sizes(eps_hat, philox.normal(seed, eps_hat.shape, stream), terms(seed, eps_hat.shape, stream))


def _guide_sizes(uncond, cond, w):
    return np.abs(uncond) + np.abs(per_example(w, uncond, "w")) * (np.abs(cond) + np.abs(uncond))


def _multistep_sizes(xt, uncond, cond, w, x0_last, u, t, s, abar):
    c = columns(coefficients.dpmpp_2m_step(u, t, s, abar, xt.shape), xt)
    size = np.abs(c[0] * xt) + np.abs(c[1]) * _guide_sizes(uncond, cond, w)
    last = 0 if x0_last is None else np.where(c[4] == 0, 0, np.abs(c[4] * x0_last))
    return np.abs(c[2] * xt) + np.abs(c[3]) * size + last, size


def _flow_sizes(xt, uncond, cond, w, t, s):
    (c,) = columns(coefficients.flow_step(t, s, xt.shape), xt)
    return np.abs(xt) + np.abs(c) * _guide_sizes(uncond, cond, w)


def _heun_sizes(x, denoised, denoised_next, sigma, sigma_next):
    """Of the two slopes as the equation adds them: the kernels add less, but the truth is rounded on the way too."""
    x, denoised, denoised_next = (np.abs(a) for a in (x, denoised, denoised_next))
    sigma, sigma_next = (columns(np.reshape(a, (1, -1)), x)[0] for a in (sigma, sigma_next))
    d = (x + denoised) / sigma
    d_next = (x + (sigma - sigma_next) * d + denoised_next) / sigma_next
    return x + (sigma - sigma_next) * (d + d_next) / 2


def _adam_ema_sizes(p, g, m, v, avg, decay, **settings):
    p, m, v = adam_sizes(p, g, m, v, **settings)
    return p, m, v, decay * np.abs(avg) + (1 - decay) * p


DPMPP_2M = Op(
    fused.guided_dpmpp_2m_step, ulps=5, make=_multistep, scale=_multistep_sizes,
    options=TIMES | W | {"history": (False, True)}, writes=2, bench={"": {"w": 2.0}}, **GUIDED,
)  # fmt: skip
OPS = [
    Op(
        fused.q_sample_noise, ulps=4, options=TO_ZERO, half=True, bench={"": {}},
        textbook=lambda x0, t, seed, abar, stream=0: diffusion.q_sample(
            np.abs(x0), t, terms(seed, x0.shape, stream), abar),
    ),
    Op(fused.eps_loss_grad, ulps=2, scale=lambda eps_hat, eps: loss_sizes(eps_hat, eps), bench={"": {}}, **LOSS),
    Op(
        fused.eps_loss_noise, ulps=3, bench={"": {}}, textbook=_loss_terms, **LOSS,
        scale=lambda eps_hat, seed, stream: loss_sizes(eps_hat, philox.normal(seed, eps_hat.shape, stream)),
    ),
    Op(
        fused.guided_ddpm_step, ulps=5, scale=functools.partial(_guided, ddpm_sizes, philox.normal),
        textbook=functools.partial(_guided, ddpm_sizes, terms), options=STEP | W | DDPM,
        bench={"clip": {"w": 2.0, "clip": 1.0}}, **GUIDED,
    ),
    Op(
        fused.guided_ddim_step, ulps=5, scale=functools.partial(_guided, ddim_sizes, philox.normal),
        textbook=functools.partial(_guided, ddim_sizes, terms), options=STEP | W | DDIM,
        bench={"eta = 0": {"w": 2.0, "eta": 0.0}, "eta = 1": {"w": 2.0, "eta": 1.0}}, **GUIDED,
    ),
    DPMPP_2M,
    Op(
        fused.guided_flow_step, ulps=4, make=_flow, scale=_flow_sizes, options=ROWS | W,
        bench={"": {"w": 2.0}}, **GUIDED,
    ),
    Op(fused.heun_step, ulps=4, make=_heun, scale=_heun_sizes, options=ROWS, half=True, bench={"": {}}),
    Op(
        fused.adam_ema_step, ulps=4, make=functools.partial(state("p", "g", "m", "v", "avg"), decay=0.999),
        scale=_adam_ema_sizes, options=CHOICES, writes=4, in_place=("p", "m", "v", "avg"), bench={"": {"step": 10}},
    ),
    Op(fused.mlp_sample, make=loops.sample, flops=loops.sample_flops, **loops.SAMPLE),
    Op(fused.mlp_train, make=loops.train, flops=loops.train_flops, writes=0, **loops.TRAIN, **LOSS),
]  # fmt: skip
