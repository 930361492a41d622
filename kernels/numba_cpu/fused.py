"""`ref.fused` on the CPU: one pass over memory, the noise made a chunk at a time in the first-level cache.

Arguments and errors are those of `ref.fused`, arrays of one dtype, float32 or float64; `out`, where given, is an
array of that shape and dtype, or as many as there are results, and may be inputs. Bad input raises before anything is
written.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [CFG]   Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [AdamW] Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    [EDM]   Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
    [RF]    Liu et al., "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2023
    [DPM-Solver++]  Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022
"""
import numpy as np

from kernels import arguments, coefficients
from kernels.numba_cpu import engine, reduce
from kernels.numba_cpu.diffusion import ddim, ddpm, linear
from kernels.numba_cpu.engine import element
from kernels.numba_cpu.intrinsics import fma
from kernels.numba_cpu.mlp_sample import mlp_sample
from kernels.numba_cpu.mlp_train import mlp_train
from kernels.numba_cpu.optim import adam_ema
from kernels.numba_cpu.rowwise import apply, apply_many, noisy, rowwise, update

# --- equations of one element: c are the coefficients of its row, u the scalars of the call, see `rowwise` ------------


@element
def guided(w, uncond, cond):
    """[CFG] eq. 6 as uncond + w (cond - uncond). w, uncond, cond: numbers."""
    return fma(w, cond - uncond, uncond)


@element
def guided_ddpm(c, u, xt, uncond, cond, z):
    """c: w, and those of `coefficients.ddpm_step`. u: the limit of x0_hat, inf for none. xt, uncond, cond, z:
    numbers."""
    return ddpm(c[1:], u, xt, guided(c[0], uncond, cond), z)


@element
def guided_ddim(c, u, xt, uncond, cond, z):
    """c: w, and those of `coefficients.ddim_step`. u: the limit of x0_hat, 0 for none. xt, uncond, cond, z: numbers."""
    return ddim(c[1:], u, xt, guided(c[0], uncond, cond), z)


@element
def guided_dpmpp_2m(c, u, xt, uncond, cond, x0_last):
    """[DPM-Solver++] algorithm 2. c: w, and those of `coefficients.dpmpp_2m_step`. u: none. xt, uncond, cond, x0_last:
    numbers."""
    w, c0, c1, c2, c3, c4 = c
    x0_hat = fma(c0, xt, c1 * guided(w, uncond, cond))
    first_order = fma(c2, xt, c3 * x0_hat)
    return first_order if c4 == 0 else fma(c4, x0_last, first_order), x0_hat


@element
def guided_flow(c, u, xt, uncond, cond):
    """[RF] algorithm 1. c: w and s - t. u: none. xt, uncond, cond: numbers."""
    return fma(c[1], guided(c[0], uncond, cond), xt)


@element
def heun(c, u, x, denoised, denoised_next):
    """[EDM] algorithm 1, lines 4 to 8. c: of `coefficients.heun_step`. u: none. x, denoised, denoised_next: numbers."""
    return fma(c[2], denoised_next, fma(c[0], x, c[1] * denoised))


@element
def mean_square_back(c, u, eps_hat, eps):
    """2 (eps_hat - eps) / N, and the square of the difference. c: none. u: 2 / N. eps_hat, eps: numbers."""
    d = eps_hat - eps
    return u[0] * d, np.float64(d) * np.float64(d)


Q_SAMPLE_NOISE = noisy(linear, inputs=1, coefficients=2)
GUIDED_DDPM = noisy(guided_ddpm, inputs=3, coefficients=6)
GUIDED_DDIM = noisy(guided_ddim, inputs=3, coefficients=8)
GUIDED_DPMPP_2M = rowwise(guided_dpmpp_2m, inputs=4, coefficients=6, outputs=2)
GUIDED_FLOW = rowwise(guided_flow, inputs=3, coefficients=2)
HEUN = rowwise(heun, inputs=3, coefficients=3)
ADAM_EMA = update(adam_ema, inputs=5, coefficients=10, outputs=4)
EPS_LOSS = reduce.reduction(mean_square_back, inputs=2, coefficients=0)
EPS_LOSS_NOISE = reduce.noisy_reduction(mean_square_back)


# --- the operations ---------------------------------------------------------------------------------------------------


def q_sample_noise(x0, t, seed, abar, stream=0, out=None):
    """[DDPM] eq. 4 with its own noise on the CPU, arguments as in `ref.fused.q_sample_noise`."""
    shape, dtype = engine.same(x0=x0)
    table = coefficients.q_sample(t, abar, shape)
    return apply(Q_SAMPLE_NOISE, out, shape, dtype, table, x0, key=coefficients.noise_key(seed, stream))


def eps_loss_grad(eps_hat, eps, out=None):
    """[DDPM] eq. 14 and its gradient on the CPU, arguments as in `ref.fused.eps_loss_grad`."""
    shape, dtype = engine.same(eps_hat=eps_hat, eps=eps)
    engine.some(eps_hat=eps_hat)
    n = eps_hat.size
    sums, deps_hat = reduce.apply(EPS_LOSS, 1, n, out, shape, dtype, reduce.NO_TABLE, eps_hat, eps, u=(2.0 / n,))
    return float(sums[0] / n), deps_hat


def eps_loss_noise(eps_hat, seed, stream=0, out=None):
    """`eps_loss_grad` against the noise of (seed, stream) on the CPU, arguments as in `ref.fused.eps_loss_noise`."""
    shape, dtype = engine.same(eps_hat=eps_hat)
    key = coefficients.noise_key(seed, stream)
    engine.some(eps_hat=eps_hat)
    n = eps_hat.size
    scalars = dict(u=(2.0 / n,), key=key)
    sums, deps_hat = reduce.apply(EPS_LOSS_NOISE, 1, n, out, shape, dtype, reduce.NO_TABLE, eps_hat, **scalars)
    return float(sums[0] / n), deps_hat


def guided_ddpm_step(xt, uncond, cond, w, t, s, seed, abar, variance="small", clip=None, stream=0, out=None):
    """[CFG] eq. 6, then [DDPM] algorithm 2 on the CPU, arguments as in `ref.fused.guided_ddpm_step`."""
    shape, dtype = engine.same(xt=xt, uncond=uncond, cond=cond)
    table = coefficients.guided(w, coefficients.ddpm_step(t, s, abar, variance, shape), shape)
    u, key = (arguments.clip_limit(clip),), _noise_key(table, seed, stream)
    return apply(GUIDED_DDPM, out, shape, dtype, table, xt, uncond, cond, u=u, key=key)


def guided_ddim_step(xt, uncond, cond, w, t, s, seed, eta, abar, clip=None, stream=0, out=None):
    """[CFG] eq. 6, then [DDIM] eq. 12 on the CPU, arguments as in `ref.fused.guided_ddim_step`; no noise where eta =
    0."""
    shape, dtype = engine.same(xt=xt, uncond=uncond, cond=cond)
    table = coefficients.guided(w, coefficients.ddim_step(t, s, eta, abar, shape), shape)
    limit = 0.0 if clip is None else arguments.clip_limit(clip)
    key = _noise_key(table, seed, stream)
    return apply(GUIDED_DDIM, out, shape, dtype, table, xt, uncond, cond, u=(limit,), key=key)


def _noise_key(table, seed, stream):
    """The key of the noise; an empty one where every sigma, the last row of table, is 0."""
    key = coefficients.noise_key(seed, stream)
    return key if table[-1].any() else key[:0]


def guided_dpmpp_2m_step(xt, uncond, cond, w, x0_last, u, t, s, abar, out=None):
    """[CFG] eq. 6, then [DPM-Solver++] algorithm 2 on the CPU, arguments as in `ref.fused.guided_dpmpp_2m_step`.

    out: a pair for x_s and x0_hat, which may be xt and x0_last.
    """
    if (x0_last is None) != (u is None):
        raise ValueError("x0_last and u: expected both or neither")
    shape, dtype = engine.same(xt=xt, uncond=uncond, cond=cond, **({} if x0_last is None else {"x0_last": x0_last}))
    table = coefficients.guided(w, coefficients.dpmpp_2m_step(u, t, s, abar, shape), shape)
    x0_last = xt if x0_last is None else x0_last
    return apply_many(GUIDED_DPMPP_2M, 2, out, shape, dtype, table, xt, uncond, cond, x0_last)


def guided_flow_step(xt, uncond, cond, w, t, s, out=None):
    """[CFG] eq. 6 on velocities, then [RF] algorithm 1 on the CPU, arguments as in `ref.fused.guided_flow_step`."""
    shape, dtype = engine.same(xt=xt, uncond=uncond, cond=cond)
    table = coefficients.guided(w, coefficients.flow_step(t, s, shape), shape)
    return apply(GUIDED_FLOW, out, shape, dtype, table, xt, uncond, cond)


def heun_step(x, denoised, denoised_next, sigma, sigma_next, out=None):
    """[EDM] algorithm 1, lines 4 to 8, on the CPU, arguments as in `ref.fused.heun_step`; one sum of three terms, so an
    infinite element may stay infinite where `ref` makes NaN of the difference of two."""
    shape, dtype = engine.same(x=x, denoised=denoised, denoised_next=denoised_next)
    table = coefficients.heun_step(sigma, sigma_next, shape)
    return apply(HEUN, out, shape, dtype, table, x, denoised, denoised_next)


def adam_ema_step(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay, out=None):
    """[AdamW] algorithm 2 and the average on the CPU, into the four arrays of out, which may be inputs.

    The arguments are as in `ref.fused.adam_ema_step` and `ref.optim.adam_step`.
    """
    shape, dtype = engine.same(p=p, g=g, m=m, v=v, avg=avg)
    c = coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay)
    table = np.concatenate([c.reshape(-1, 1), coefficients.ema_step(decay)])
    return apply_many(ADAM_EMA, 4, out, shape, dtype, table, p, g, m, v, avg, state=True)
