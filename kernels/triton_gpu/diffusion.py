"""`ref.diffusion` on the GPU: float32; noising and the steps also float16 and bfloat16 in memory, float32 in between.

Arrays are of one kind (see `arrays`) and dtype; t and s are ints of the host. `out`, where given, is an array like
the inputs, and may be one of them. Errors as there, before anything is written. A sum of two products names its fused
multiply-add, so the bits do not depend on how a compiler contracts.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]   Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [PD]     Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022
    [SDE]    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
"""
import numpy as np
import triton
import triton.language as tl

from kernels import arguments, coefficients
from kernels.triton_gpu import reduce
from kernels.triton_gpu.arrays import SINGLE, STORED, read
from kernels.triton_gpu.rowwise import rowwise, with_noise


def q_sample(x0, t, eps, abar, out=None):
    """[DDPM] eq. 4; arguments as in `ref.diffusion.q_sample`."""
    arrays = read(STORED, x0=x0, eps=eps)
    return rowwise(linear, arrays, coefficients.q_sample(t, abar, arrays.shape), out)


def q_sample_backward(dxt, t, abar, out=None):
    """Gradients of `q_sample`; arguments as in `ref.diffusion.q_sample_backward`. out: a pair of arrays."""
    arrays = read(SINGLE, dxt=dxt)
    return rowwise(scale_two, arrays, coefficients.q_sample(t, abar, arrays.shape), out, writes=2)


def posterior(x0, xt, t, s, abar, out=None):
    """[DDPM] eqs. 6, 7; arguments as in `ref.diffusion.posterior`. The variance is of the host."""
    arrays = read(SINGLE, x0=x0, xt=xt)
    c = coefficients.posterior(t, s, abar, arrays.shape)
    variance = c[2].reshape(np.broadcast_shapes(np.shape(t), np.shape(s)))[()]
    return rowwise(linear, arrays, c[:2], out), variance


def x0_from_eps(xt, eps, t, abar, out=None):
    """[DDPM] eq. 15; arguments as in `ref.diffusion.x0_from_eps`."""
    arrays = read(SINGLE, xt=xt, eps=eps)
    return rowwise(linear, arrays, coefficients.x0_from_eps(t, abar, arrays.shape), out)


def eps_from_x0(xt, x0, t, abar, out=None):
    """[DDIM] eq. 9 solved for eps; arguments as in `ref.diffusion.eps_from_x0`."""
    arrays = read(SINGLE, xt=xt, x0=x0)
    return rowwise(linear, arrays, coefficients.eps_from_x0(t, abar, arrays.shape), out)


def v_target(x0, eps, t, abar, out=None):
    """[PD] section 4; arguments as in `ref.diffusion.v_target`."""
    arrays = read(SINGLE, x0=x0, eps=eps)
    return rowwise(linear, arrays, coefficients.v_target(t, abar, arrays.shape), out)


def x0_from_v(xt, v, t, abar, out=None):
    """[PD] appendix D; arguments as in `ref.diffusion.x0_from_v`."""
    arrays = read(SINGLE, xt=xt, v=v)
    return rowwise(linear, arrays, coefficients.x0_from_v(t, abar, arrays.shape), out)


def eps_from_v(xt, v, t, abar, out=None):
    """[PD] appendix D; arguments as in `ref.diffusion.eps_from_v`."""
    arrays = read(SINGLE, xt=xt, v=v)
    return rowwise(linear, arrays, coefficients.eps_from_v(t, abar, arrays.shape), out)


def score_from_eps(eps, t, abar, out=None):
    """[SDE] eq. 7 with [DDPM] eq. 4; arguments as in `ref.diffusion.score_from_eps`."""
    arrays = read(SINGLE, eps=eps)
    return rowwise(scale, arrays, coefficients.score_from_eps(t, abar, arrays.shape), out)


def ddpm_step(xt, eps_hat, t, s, z, abar, variance="small", clip=None, out=None):
    """[DDPM] algorithm 2; arguments as in `ref.diffusion.ddpm_step`."""
    arrays = read(STORED, xt=xt, eps_hat=eps_hat, z=z)
    c = coefficients.ddpm_step(t, s, abar, variance, arrays.shape)
    return rowwise(ddpm, arrays, c, out, more=(limit_of(clip),), noise="read")


def ddim_step(xt, eps_hat, t, s, z, eta, abar, clip=None, out=None):
    """[DDIM] eq. 12; arguments as in `ref.diffusion.ddim_step`. z may be None where eta = 0."""
    z = xt if z is None and eta == 0 else z
    arrays = read(STORED, xt=xt, eps_hat=eps_hat, z=z)
    c = coefficients.ddim_step(t, s, eta, abar, arrays.shape)
    return rowwise(ddim, arrays, c, out, more=(limit_of(clip),), noise="read")


def eps_loss(eps_hat, eps):
    """[DDPM] eq. 14; arguments as in `ref.diffusion.eps_loss`.
    Returns float64 without axes, of the kind of the inputs."""
    arrays = read(SINGLE, eps_hat=eps_hat, eps=eps)
    partial = reduce.partial_sums(arrays)
    reduce.add(square_error, partial, arrays)
    return reduce.mean(partial, arrays)


def eps_loss_backward(dloss, eps_hat, eps, out=None):
    """Gradients of `eps_loss`; arguments as in `ref.diffusion.eps_loss_backward`. out: a pair of arrays."""
    arrays = read(SINGLE, eps_hat=eps_hat, eps=eps)
    reduce.some(arrays)
    return rowwise(difference_two, arrays, np.array([[2.0 * dloss / arrays.size]]), out, writes=2)


def limit_of(clip):
    """clip as the element functions take it, after the check: None, or a float. clip: > 0, or None."""
    return None if clip is None else arguments.clip_limit(clip)


@triton.jit
def linear(x, y, a, b):
    """a x + b y. x, y: blocks. a, b: numbers or blocks."""
    return tl.fma(a, x, b * y)


@triton.jit
def scale(x, c):
    """c x. x: block. c: number or block."""
    return c * x


@triton.jit
def scale_two(x, a, b):
    """a x and b x. x: block. a, b: numbers or blocks."""
    return a * x, b * x


@triton.jit
def clamp(x, limit):
    """x in [-limit, limit]; NaN stays NaN. x: block. limit: number, or None for no limit."""
    if limit is not None:
        x = tl.where(x > limit, limit, x)
        x = tl.where(x < -limit, -limit, x)
    return x


@triton.jit
def ddpm(xt, eps, z, c0, c1, c2, c3, sigma, limit):
    """[DDPM] algorithm 2. xt, eps, z: blocks, z or None. c0, c1, c2, c3, sigma: of `coefficients.ddpm_step`.
    limit: of x0_hat, or None."""
    x0_hat = clamp(tl.fma(c0, xt, c1 * eps), limit)
    return with_noise(tl.fma(c2, x0_hat, c3 * xt), sigma, z)


@triton.jit
def ddim(xt, eps, z, c0, c1, c2, c3, c4, c5, sigma, limit):
    """[DDIM] eq. 12. xt, eps, z: blocks, z or None. c0, c1, c2, c3, c4, c5, sigma: of `coefficients.ddim_step`.
    limit: of x0_hat, or None."""
    x0_hat, eps_hat = tl.fma(c0, xt, c1 * eps), eps
    if limit is not None:  # eps_hat again, from the clipped x0_hat
        x0_hat = clamp(x0_hat, limit)
        eps_hat = tl.fma(c2, xt, c3 * x0_hat)
    return with_noise(tl.fma(c4, x0_hat, c5 * eps_hat), sigma, z)


@triton.jit
def square_error(total, eps_hat, eps):
    """(eps_hat - eps)^2, added to total. total, eps_hat, eps: blocks."""
    d = eps_hat - eps
    return (tl.fma(d, d, total),)


@triton.jit
def difference_two(eps_hat, eps, c):
    """c (eps_hat - eps) and its negative. eps_hat, eps: blocks. c: number."""
    d = c * (eps_hat - eps)
    return d, -d
