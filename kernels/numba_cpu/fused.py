"""`ref.fused` on the CPU: one pass over memory, the noise made a chunk at a time in the first-level cache.

Arguments are those of `ref.fused` (equations there), arrays of one dtype, float32 or float64; `out`, where given, is an
array of that shape and dtype and may be one of the inputs. Errors as there, before anything is written.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [CFG]   Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [AdamW] Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
"""
import numpy as np
from numba import njit

from kernels import coefficients
from kernels.numba_cpu import launch
from kernels.numba_cpu.diffusion import ddim_mean, ddpm_mean, five, partial_sums, seven, square_error
from kernels.numba_cpu.launch import COMPILE, INLINE
from kernels.numba_cpu.optim import adam_element, eight
from kernels.numba_cpu.philox import normal_chunk
from kernels.numba_cpu.stream import deliver


def q_sample_noise(x0, t, seed, abar, stream=0, out=None):
    """[DDPM] eq. 4 with its own noise:  x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) normal(seed, shape, stream).

    x0: (B, ...). t: (B,) ints or one int. seed, stream: ints in [0, 2**64). abar: (T + 1,).
    Returns xt (B, ...), in out where given. Raises as `ref.fused.q_sample_noise`.
    """
    shape, dtype = launch.same(x0=x0)
    table = coefficients.q_sample(t, abar, shape)
    key = coefficients.noise_key(seed, stream)
    x0 = launch.flat(x0)
    memory = launch.output(out, shape, dtype, x0)
    launch.run(_q_sample_noise, x0.size, memory, x0, table, launch.row_size(x0, table), key, launch.around(memory, x0))
    return launch.finish(memory, out, shape)


def eps_loss_grad(eps_hat, eps, out=None):
    """[DDPM] eq. 14 and its gradient in one pass:  L = mean((eps_hat - eps)^2),  deps_hat = 2 (eps_hat - eps) / N.

    eps_hat, eps: one shape, N >= 1 elements. Returns L (a float), deps_hat (in out where given).
    Raises as `ref.fused.eps_loss_grad`.
    """
    shape, dtype = launch.same(eps_hat=eps_hat, eps=eps)
    partial = partial_sums(eps.size)
    eps_hat, eps = launch.flat(eps_hat), launch.flat(eps)
    memory = launch.output(out, shape, dtype, eps_hat, eps)
    launch.run(_eps_loss_grad, eps.size, memory, eps_hat, eps, 2.0 / eps.size, partial, launch.around(memory, eps_hat, eps))
    return float(partial.sum() / eps.size), launch.finish(memory, out, shape)


def eps_loss_noise(eps_hat, seed, stream=0, out=None):
    """`eps_loss_grad` against the noise of (seed, stream), [DDPM] eq. 14: made again, never stored.

    eps_hat: (B, ...). seed, stream: those of `q_sample_noise`. Returns L (a float), deps_hat (in out where given).
    Raises as `ref.fused.eps_loss_noise`.
    """
    shape, dtype = launch.same(eps_hat=eps_hat)
    key = coefficients.noise_key(seed, stream)
    partial = partial_sums(eps_hat.size)
    eps_hat = launch.flat(eps_hat)
    memory = launch.output(out, shape, dtype, eps_hat)
    launch.run(_eps_loss_noise, eps_hat.size, memory, eps_hat, 2.0 / eps_hat.size, partial, key, launch.around(memory, eps_hat))
    return float(partial.sum() / eps_hat.size), launch.finish(memory, out, shape)


def guided_ddpm_step(xt, uncond, cond, w, t, s, seed, abar, variance="small", clip=None, stream=0, out=None):
    """[CFG] eq. 6 as uncond + w (cond - uncond), then [DDPM] algorithm 2 with the noise of (seed, stream).

    xt, uncond, cond: (B, ...). w: float. t, s: ints or (B,) ints, s < t. seed, stream: ints in [0, 2**64). abar: (T + 1,).
    variance: "small" or "large". clip: > 0, or None. Returns x_s (B, ...), in out where given.
    Raises as `ref.fused.guided_ddpm_step`.
    """
    shape, dtype = launch.same(xt=xt, uncond=uncond, cond=cond)
    table = coefficients.ddpm_step(t, s, abar, variance, shape)
    limit, key = coefficients.clip_limit(clip), coefficients.noise_key(seed, stream)
    xt, uncond, cond = launch.flat(xt), launch.flat(uncond), launch.flat(cond)
    memory = launch.output(out, shape, dtype, xt, uncond, cond)
    rows, around = launch.row_size(xt, table), launch.around(memory, xt, uncond, cond)
    launch.run(_guided_ddpm, xt.size, memory, xt, uncond, cond, float(w), table, rows, limit, key, around)
    return launch.finish(memory, out, shape)


def guided_ddim_step(xt, uncond, cond, w, t, s, seed, eta, abar, clip=None, stream=0, out=None):
    """[CFG] eq. 6 as uncond + w (cond - uncond), then [DDIM] eq. 12 with the noise of (seed, stream); none is made where eta = 0.

    xt, uncond, cond: (B, ...). w: float. t, s: ints or (B,) ints, s < t. seed, stream: ints in [0, 2**64). eta: in [0, 1].
    abar: (T + 1,). clip: > 0, or None. Returns x_s (B, ...), in out where given. Raises as `ref.fused.guided_ddim_step`.
    """
    shape, dtype = launch.same(xt=xt, uncond=uncond, cond=cond)
    table = coefficients.ddim_step(t, s, eta, abar, shape)
    limit, key = coefficients.clip_limit(clip), coefficients.noise_key(seed, stream)
    xt, uncond, cond = launch.flat(xt), launch.flat(uncond), launch.flat(cond)
    memory = launch.output(out, shape, dtype, xt, uncond, cond)
    rows, around = launch.row_size(xt, table), launch.around(memory, xt, uncond, cond)
    launch.run(_guided_ddim, xt.size, memory, xt, uncond, cond, float(w), table, rows, clip is not None, limit, key, around)
    return launch.finish(memory, out, shape)


def adam_ema_step(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay, out=None):
    """[AdamW] algorithm 2 and  avg <- decay avg + (1 - decay) p  in one pass.

    p, g, m, v, avg: one shape. step: int >= 1. lr, beta1, beta2, eps, weight_decay, decay: floats.
    Returns p, m, v, avg; out: four arrays for them, which may be the inputs. Raises as `ref.fused.adam_ema_step`.
    """
    shape, dtype = launch.same(p=p, g=g, m=m, v=v, avg=avg)
    c = coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay)
    d = coefficients.ema_step(decay)
    out = (None,) * 4 if out is None else out
    p, g, m, v, avg = (launch.flat(a) for a in (p, g, m, v, avg))
    memory = [launch.output(o, shape, dtype, p, g, m, v, avg) for o in out]
    launch.run(_adam_ema, p.size, *memory, p, g, m, v, avg, c, d, launch.around(memory[0], p, g, m, v, avg))
    return tuple(launch.finish(a, o, shape) for a, o in zip(memory, out))


@njit(**COMPILE)
def _q_sample_noise(lo, hi, out, x0, table, n, key, around):
    chunk, z = np.empty(launch.CHUNK, out.dtype), np.empty(launch.CHUNK, out.dtype)
    for first in range(lo, hi, launch.CHUNK):
        last = min(first + launch.CHUNK, hi)
        normal_chunk(z, first, last, key)
        i = first
        while i < last:
            row = i // n
            end = min(last, (row + 1) * n)
            c0, c1 = out.dtype.type(table[0, row]), out.dtype.type(table[1, row])
            o, x, r = chunk[i - first : end - first], x0[i:end], z[i - first :]
            for j in range(o.size):
                o[j] = c0 * x[j] + c1 * r[j]
            i = end
        deliver(out, first, last, chunk, around)


@njit(**COMPILE)
def _eps_loss_grad(lo, hi, out, eps_hat, eps, c, partial, around):
    c = out.dtype.type(c)
    chunk = np.empty(launch.CHUNK, out.dtype)
    for first in range(lo, hi, launch.CHUNK):
        last = min(first + launch.CHUNK, hi)
        o, x, y = chunk[: last - first], eps_hat[first:last], eps[first:last]
        partial[first // launch.CHUNK] = square_error(x, y)
        for j in range(o.size):
            o[j] = c * (x[j] - y[j])
        deliver(out, first, last, chunk, around)


@njit(**COMPILE)
def _eps_loss_noise(lo, hi, out, eps_hat, c, partial, key, around):
    c = out.dtype.type(c)
    chunk, z = np.empty(launch.CHUNK, out.dtype), np.empty(launch.CHUNK, out.dtype)
    for first in range(lo, hi, launch.CHUNK):
        last = min(first + launch.CHUNK, hi)
        normal_chunk(z, first, last, key)
        o, x = chunk[: last - first], eps_hat[first:last]
        partial[first // launch.CHUNK] = square_error(x, z[: x.size])
        for j in range(o.size):
            o[j] = c * (x[j] - z[j])
        deliver(out, first, last, chunk, around)


@njit(**COMPILE)
def _guided_ddpm(lo, hi, out, xt, uncond, cond, w, table, n, limit, key, around):
    w, limit = out.dtype.type(w), out.dtype.type(limit)
    noisy = np.any(table[4] != 0)
    chunk, z = np.empty(launch.CHUNK, out.dtype), np.empty(launch.CHUNK, out.dtype)
    for first in range(lo, hi, launch.CHUNK):
        last = min(first + launch.CHUNK, hi)
        if noisy:
            normal_chunk(z, first, last, key)
        i = first
        while i < last:
            row = i // n
            end = min(last, (row + 1) * n)
            c = five(table, row, out)
            o, x, u, v, r = chunk[i - first : end - first], xt[i:end], uncond[i:end], cond[i:end], z[i - first :]
            if c[4] == 0:
                for j in range(o.size):
                    o[j] = ddpm_mean(x[j], u[j] + w * (v[j] - u[j]), c, limit)
            else:
                for j in range(o.size):
                    o[j] = ddpm_mean(x[j], u[j] + w * (v[j] - u[j]), c, limit) + c[4] * r[j]
            i = end
        deliver(out, first, last, chunk, around)


@njit(**COMPILE)
def _guided_ddim(lo, hi, out, xt, uncond, cond, w, table, n, clipped, limit, key, around):
    w, limit = out.dtype.type(w), out.dtype.type(limit)
    noisy = np.any(table[6] != 0)
    chunk, z = np.empty(launch.CHUNK, out.dtype), np.empty(launch.CHUNK, out.dtype)
    for first in range(lo, hi, launch.CHUNK):
        last = min(first + launch.CHUNK, hi)
        if noisy:
            normal_chunk(z, first, last, key)
        i = first
        while i < last:
            row = i // n
            end = min(last, (row + 1) * n)
            c = seven(table, row, out)
            o, x, u, v, r = chunk[i - first : end - first], xt[i:end], uncond[i:end], cond[i:end], z[i - first :]
            if c[6] == 0:
                for j in range(o.size):
                    o[j] = ddim_mean(x[j], u[j] + w * (v[j] - u[j]), c, clipped, limit)
            else:
                for j in range(o.size):
                    o[j] = ddim_mean(x[j], u[j] + w * (v[j] - u[j]), c, clipped, limit) + c[6] * r[j]
            i = end
        deliver(out, first, last, chunk, around)


@njit(**INLINE)
def adam_ema_element(p, g, m, v, avg, c, keep, take):
    """One element of `adam_ema_step`. p, g, m, v, avg: numbers. c: from `eight`. keep, take: decay and 1 - decay. Returns p, m, v, avg."""
    p, m, v = adam_element(p, g, m, v, c)
    return p, m, v, keep * avg + take * p


@njit(**COMPILE)
def _adam_ema(lo, hi, p_out, m_out, v_out, avg_out, p, g, m, v, avg, c, d, around):
    c = eight(c, p)
    keep, take = p.dtype.type(d[0, 0]), p.dtype.type(d[1, 0])
    chunks = np.empty((4, launch.CHUNK), p.dtype)
    for first in range(lo, hi, launch.CHUNK):
        last = min(first + launch.CHUNK, hi)
        po, mo, vo, ao = chunks[0], chunks[1], chunks[2], chunks[3]
        x, y, r, s, a = p[first:last], g[first:last], m[first:last], v[first:last], avg[first:last]
        for j in range(x.size):
            po[j], mo[j], vo[j], ao[j] = adam_ema_element(x[j], y[j], r[j], s[j], a[j], c, keep, take)
        deliver(p_out, first, last, chunks[0], around)
        deliver(m_out, first, last, chunks[1], around)
        deliver(v_out, first, last, chunks[2], around)
        deliver(avg_out, first, last, chunks[3], around)
