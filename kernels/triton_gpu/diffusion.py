"""`ref.diffusion` on the GPU: float32, one pass over memory each; noising and the steps also float16 and bfloat16 in memory,
float32 in between.

Arguments are those of `ref.diffusion` (equations there), arrays of one kind (see `arrays`) and dtype; t and s are ints of the
host. `out`, where given, is an array of that kind, shape and dtype and may be one of the inputs. Errors as there, before
anything is written. A sum of two products names its fused multiply-add, so the bits do not depend on how a compiler
contracts. Coefficients come folded: as numbers where one time holds for the batch, else in a float32 table.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]   Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [PD]     Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022
    [SDE]    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
"""
import numpy as np
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu import reduce
from kernels.triton_gpu.arrays import SINGLE, STORED, read
from kernels.triton_gpu.rowwise import READ, rowwise, with_noise


def q_sample(x0, t, eps, abar, out=None):
    """[DDPM] eq. 4:  x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps. x0, eps: (B, ...). t: (B,) ints or one int. abar: (T + 1,).

    Returns xt (B, ...), in out where given. Raises as `ref.diffusion.q_sample`.
    """
    arrays = read(STORED, x0=x0, eps=eps)
    return rowwise(linear, arrays, coefficients.q_sample(t, abar, arrays.shape), out)


def q_sample_backward(dxt, t, abar, out=None):
    """Gradients of `q_sample`:  dx0 = sqrt(abar_t) dxt,  deps = sqrt(1 - abar_t) dxt. dxt: (B, ...). t, abar: as there.

    Returns dx0, deps; out: a pair of arrays for them. Raises as `ref.diffusion.q_sample_backward`.
    """
    arrays = read(SINGLE, dxt=dxt)
    return rowwise(scale_two, arrays, coefficients.q_sample(t, abar, arrays.shape), out, writes=2)


def posterior(x0, xt, t, s, abar, out=None):
    """[DDPM] eqs. 6, 7 for s < t: mean and variance of q(x_s | x_t, x0). x0, xt: (B, ...). t, s: ints or (B,) ints. abar: (T + 1,).

    Returns mean (B, ...), in out where given, and variance, a float or (B,) on the host. Raises as `ref.diffusion.posterior`.
    """
    arrays = read(SINGLE, x0=x0, xt=xt)
    c = coefficients.posterior(t, s, abar, arrays.shape)
    variance = c[2].reshape(np.broadcast_shapes(np.shape(t), np.shape(s)))[()]
    return rowwise(linear, arrays, c[:2], out), variance


def x0_from_eps(xt, eps, t, abar, out=None):
    """[DDPM] eq. 15:  x0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t). xt, eps: (B, ...). t: int or (B,) ints. abar: (T + 1,).

    Returns x0 (B, ...), in out where given. Raises as `ref.diffusion.x0_from_eps`.
    """
    arrays = read(SINGLE, xt=xt, eps=eps)
    return rowwise(linear, arrays, coefficients.x0_from_eps(t, abar, arrays.shape), out)


def eps_from_x0(xt, x0, t, abar, out=None):
    """[DDIM] eq. 9 solved for eps:  eps = (x_t - sqrt(abar_t) x0) / sqrt(1 - abar_t). xt, x0: (B, ...). t: int or (B,) ints >= 1. abar: (T + 1,).

    Returns eps (B, ...), in out where given. Raises as `ref.diffusion.eps_from_x0`.
    """
    arrays = read(SINGLE, xt=xt, x0=x0)
    return rowwise(linear, arrays, coefficients.eps_from_x0(t, abar, arrays.shape), out)


def v_target(x0, eps, t, abar, out=None):
    """[PD] section 4:  v = sqrt(abar_t) eps - sqrt(1 - abar_t) x0. x0, eps: (B, ...). t: int or (B,) ints. abar: (T + 1,).

    Returns v (B, ...), in out where given. Raises as `ref.diffusion.v_target`.
    """
    arrays = read(SINGLE, x0=x0, eps=eps)
    return rowwise(linear, arrays, coefficients.v_target(t, abar, arrays.shape), out)


def x0_from_v(xt, v, t, abar, out=None):
    """[PD] appendix D:  x0 = sqrt(abar_t) x_t - sqrt(1 - abar_t) v. xt, v: (B, ...). t: int or (B,) ints. abar: (T + 1,).

    Returns x0 (B, ...), in out where given. Raises as `ref.diffusion.x0_from_v`.
    """
    arrays = read(SINGLE, xt=xt, v=v)
    return rowwise(linear, arrays, coefficients.x0_from_v(t, abar, arrays.shape), out)


def eps_from_v(xt, v, t, abar, out=None):
    """[PD] appendix D:  eps = sqrt(1 - abar_t) x_t + sqrt(abar_t) v. xt, v: (B, ...). t: int or (B,) ints. abar: (T + 1,).

    Returns eps (B, ...), in out where given. Raises as `ref.diffusion.eps_from_v`.
    """
    arrays = read(SINGLE, xt=xt, v=v)
    return rowwise(linear, arrays, coefficients.eps_from_v(t, abar, arrays.shape), out)


def score_from_eps(eps, t, abar, out=None):
    """[SDE] eq. 7 with [DDPM] eq. 4:  score = -eps / sqrt(1 - abar_t). eps: (B, ...). t: int or (B,) ints >= 1. abar: (T + 1,).

    Returns the score (B, ...), in out where given. Raises as `ref.diffusion.score_from_eps`.
    """
    arrays = read(SINGLE, eps=eps)
    return rowwise(scale, arrays, coefficients.score_from_eps(t, abar, arrays.shape), out)


def ddpm_step(xt, eps_hat, t, s, z, abar, variance="small", clip=None, out=None):
    """[DDPM] algorithm 2 from t to s < t:  x_s = mean(x0_hat, x_t) + sigma z, no noise where s = 0.

    xt, eps_hat, z: (B, ...). t, s: ints or (B,) ints. abar: (T + 1,). variance: "small" or "large". clip: > 0, or None.
    Returns x_s (B, ...), in out where given. Raises as `ref.diffusion.ddpm_step`.
    """
    arrays = read(STORED, xt=xt, eps_hat=eps_hat, z=z)
    c = coefficients.ddpm_step(t, s, abar, variance, arrays.shape)
    return rowwise(ddpm, arrays, c, out, more=(limit_of(clip),), noise=READ)


def ddim_step(xt, eps_hat, t, s, z, eta, abar, clip=None, out=None):
    """[DDIM] eq. 12 from t to s < t:  x_s = sqrt(abar_s) x0_hat + sqrt(1 - abar_s - sigma^2) eps_hat + sigma z, sigma of eq. 16.

    xt, eps_hat, z: (B, ...); z may be None where eta = 0. t, s: ints or (B,) ints. eta: in [0, 1]. abar: (T + 1,).
    clip: > 0, or None; with it eps_hat is derived again from the clipped x0_hat.
    Returns x_s (B, ...), in out where given. Raises as `ref.diffusion.ddim_step`.
    """
    z = xt if z is None and eta == 0 else z
    arrays = read(STORED, xt=xt, eps_hat=eps_hat, z=z)
    c = coefficients.ddim_step(t, s, eta, abar, arrays.shape)
    return rowwise(ddim, arrays, c, out, more=(limit_of(clip),), noise=READ)


def eps_loss(eps_hat, eps):
    """[DDPM] eq. 14:  L = mean((eps_hat - eps)^2) over all elements. eps_hat, eps: one shape, at least one element.

    Returns L, float64 without axes, of the kind of the inputs; the same bits on every run. Raises as `ref.diffusion.eps_loss`.
    """
    arrays = read(SINGLE, eps_hat=eps_hat, eps=eps)
    partial = reduce.partial_sums(arrays)
    reduce.add(square_error, partial, arrays)
    return reduce.mean(partial, arrays)


def eps_loss_backward(dloss, eps_hat, eps, out=None):
    """Gradients of `eps_loss`:  deps_hat = 2 (eps_hat - eps) / N dloss,  deps = -deps_hat. dloss: float.

    eps_hat, eps: one shape. Returns deps_hat, deps; out: a pair of arrays for them. Raises as `ref.diffusion.eps_loss_backward`.
    """
    arrays = read(SINGLE, eps_hat=eps_hat, eps=eps)
    reduce.some(arrays)
    return rowwise(difference_two, arrays, np.array([[2.0 * dloss / arrays.size]]), out, writes=2)


def limit_of(clip):
    """clip as the element functions take it, after the check: None, or a float. clip: > 0, or None."""
    return None if clip is None else coefficients.clip_limit(clip)


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
    """[DDPM] algorithm 2. xt, eps, z: blocks, z or None. c0, c1, c2, c3, sigma: of `coefficients.ddpm_step`. limit: of x0_hat, or None."""
    x0_hat = clamp(tl.fma(c0, xt, c1 * eps), limit)
    return with_noise(tl.fma(c2, x0_hat, c3 * xt), sigma, z)


@triton.jit
def ddim(xt, eps, z, c0, c1, c2, c3, c4, c5, sigma, limit):
    """[DDIM] eq. 12. xt, eps, z: blocks, z or None. c0, c1, c2, c3, c4, c5, sigma: of `coefficients.ddim_step`. limit: of x0_hat, or None."""
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
