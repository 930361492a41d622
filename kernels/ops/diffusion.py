"""The operations of `ref.diffusion`, and the sizes of the terms of a step and of a loss."""
import numpy as np

from kernels import coefficients
from kernels.numpy_cpu.arrays import columns
from kernels.ops.inputs import TIMES, TO_ZERO
from kernels.ops.record import Op
from ref import diffusion

STEP = TIMES | {"clip": (None, 0.7)}
LOSS = {"empty": False, "sums": True}
DDPM, DDIM = {"variance": ("small", "large")}, {"eta": (0.0, 0.3, 1.0)}


def ddpm_sizes(xt, e, e_size, t, s, z, abar, variance="small", clip=None):
    """The sizes of the terms. e: the noise prediction. e_size: of its own terms. xt, t, s, z, abar, variance, clip: as
    in `ref.diffusion.ddpm_step`."""
    c = columns(coefficients.ddpm_step(t, s, abar, variance, xt.shape), xt)
    x0_size = _x0_size(c, xt, e, e_size, clip)
    return c[2] * x0_size + np.abs(c[3] * xt) + np.where(c[4] > 0, c[4] * np.abs(z), 0)


def ddim_sizes(xt, e, e_size, t, s, z, eta, abar, clip=None):
    """The sizes of the terms. e, e_size: as in `ddpm_sizes`. xt, t, s, z, eta, abar, clip: as in `ddim_step`."""
    c = columns(coefficients.ddim_step(t, s, eta, abar, xt.shape), xt)
    x0_size = _x0_size(c, xt, e, e_size, clip)
    if clip is not None:
        e_size = np.abs(c[2] * xt) + np.abs(c[3]) * x0_size
    return c[4] * x0_size + c[5] * e_size + (0 if z is None else np.where(c[6] > 0, c[6] * np.abs(z), 0))


def _x0_size(c, xt, e, e_size, clip):
    """A clipped x0 has size clip."""
    x0, size = c[0] * xt + c[1] * e, np.abs(c[0] * xt) + np.abs(c[1]) * e_size
    return size if clip is None else np.where((np.abs(x0) - 1e-5 * size > clip) | np.isinf(x0), clip, size)


def loss_sizes(a, b, b_size=None):
    """Of the mean square of a - b and of its gradient. a, b: arrays. b_size: of the terms of b, or None for b."""
    terms, d = np.abs(a) + (np.abs(b) if b_size is None else b_size), np.abs(a - b)
    return np.mean(d * d + 2 * d * terms), 2 * terms / a.size


OPS = [
    Op(diffusion.q_sample, ulps=3, options=TO_ZERO, half=True, bench={"": {}}),
    Op(diffusion.q_sample_backward, ulps=2, options=TO_ZERO, writes=2),
    Op(diffusion.posterior, ulps=3, options=TO_ZERO),
    Op(diffusion.x0_from_eps, ulps=3, options=TIMES),
    Op(diffusion.eps_from_x0, ulps=3, options=TO_ZERO, least_t=1),
    Op(diffusion.v_target, ulps=3, options=TO_ZERO),
    Op(diffusion.x0_from_v, ulps=3, options=TO_ZERO),
    Op(diffusion.eps_from_v, ulps=3, options=TO_ZERO),
    Op(diffusion.score_from_eps, ulps=2, options=TO_ZERO, least_t=1),
    Op(
        diffusion.ddpm_step, ulps=4, options=STEP | DDPM, half=True, bench={"": {"clip": 1.0}},
        scale=lambda eps_hat, **a: ddpm_sizes(e=eps_hat, e_size=np.abs(eps_hat), **a),
    ),
    Op(
        diffusion.ddim_step, ulps=4, options=STEP | DDIM, half=True, bench={"eta = 1": {"eta": 1.0}},
        scale=lambda eps_hat, **a: ddim_sizes(e=eps_hat, e_size=np.abs(eps_hat), **a),
    ),
    Op(diffusion.eps_loss, ulps=2, scale=lambda eps_hat, eps: loss_sizes(eps_hat, eps)[0], writes=0, **LOSS),
    Op(diffusion.eps_loss_backward, ulps=2, fixed={"dloss": 1.5}, writes=2, **LOSS),
]  # fmt: skip
