"""`ref.fused` on the CPU: one pass over memory, the noise made a chunk at a time in the first-level cache.

Arguments are those of `ref.fused` (equations there), arrays of one dtype, float32 or float64; `out`, where given, is an
array of that shape and dtype and may be one of the inputs. Errors as there, before anything is written.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [CFG]   Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [AdamW] Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    [EDM]   Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
    [RF]    Liu, Gong, Liu, "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2023
    [DPM-Solver++]  Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022
"""
import numpy as np
from numba import njit

from kernels import coefficients
from kernels.numba_cpu import launch
from kernels.numba_cpu.diffusion import ddim_mean, ddpm_mean, five, partial_sums, seven, square_error
from kernels.numba_cpu.launch import COMPILE, INLINE
from kernels.numba_cpu.optim import adam_element, eight
from kernels.numba_cpu.philox import normal_chunk
from kernels.numba_cpu.stream import deliver, fma, wide, write, write_noisy


def q_sample_noise(x0, t, seed, abar, stream=0, out=None):
    """[DDPM] eq. 4 with its own noise:  x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) normal(seed, shape, stream).

    x0: (B, ...). t: (B,) ints or one int. seed, stream: ints in [0, 2**64). abar: (T + 1,).
    Returns xt (B, ...), in out where given. Raises as `ref.fused.q_sample_noise`.
    """
    shape, dtype = launch.same(x0=x0)
    table = coefficients.q_sample(t, abar, shape)
    key = coefficients.noise_key(seed, stream)
    x0 = launch.flat(x0)
    memory, how = launch.output(out, shape, dtype, x0)
    launch.run(_q_sample_noise, x0.size, memory, x0, table, launch.row_size(x0, table), key, how)
    return launch.finish(memory, out, shape)


def eps_loss_grad(eps_hat, eps, out=None):
    """[DDPM] eq. 14 and its gradient in one pass:  L = mean((eps_hat - eps)^2),  deps_hat = 2 (eps_hat - eps) / N.

    eps_hat, eps: one shape, N >= 1 elements. Returns L (a float), deps_hat (in out where given).
    Raises as `ref.fused.eps_loss_grad`.
    """
    shape, dtype = launch.same(eps_hat=eps_hat, eps=eps)
    partial = partial_sums(eps.size)
    eps_hat, eps = launch.flat(eps_hat), launch.flat(eps)
    memory, how = launch.output(out, shape, dtype, eps_hat, eps)
    launch.run(_eps_loss_grad, eps.size, memory, eps_hat, eps, 2.0 / eps.size, partial, how)
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
    memory, how = launch.output(out, shape, dtype, eps_hat)
    launch.run(_eps_loss_noise, eps_hat.size, memory, eps_hat, 2.0 / eps_hat.size, partial, key, how)
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
    memory, how = launch.output(out, shape, dtype, xt, uncond, cond)
    rows, key = launch.row_size(xt, table), key if table[4].any() else key[:0]  # no key, no noise
    launch.run(_guided_ddpm, xt.size, memory, xt, uncond, cond, float(w), table, rows, limit, key, how)
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
    memory, how = launch.output(out, shape, dtype, xt, uncond, cond)
    rows, key = launch.row_size(xt, table), key if table[6].any() else key[:0]
    launch.run(_guided_ddim, xt.size, memory, xt, uncond, cond, float(w), table, rows, clip is not None, limit, key, how)
    return launch.finish(memory, out, shape)


def guided_dpmpp_2m_step(xt, uncond, cond, w, x0_last, u, t, s, abar, out=None):
    """[CFG] eq. 6 as uncond + w (cond - uncond), then [DPM-Solver++] algorithm 2 in x0_hat and the x0_last of the step before.

    xt, uncond, cond, x0_last: (B, ...). w: float. u, t, s: ints or (B,) ints, s < t < u; x0_last and u None where there was no step
    before. abar: (T + 1,). Returns x_s, x0_hat; out: a pair of arrays for them, which may be xt and x0_last.
    Raises as `ref.fused.guided_dpmpp_2m_step`.
    """
    if (x0_last is None) != (u is None):
        raise ValueError("x0_last and u: expected both or neither")
    shape, dtype = launch.same(xt=xt, uncond=uncond, cond=cond, **({} if x0_last is None else {"x0_last": x0_last}))
    table = coefficients.dpmpp_2m_step(u, t, s, abar, shape)
    out = (None, None) if out is None else out
    launch.apart(out)
    xt, uncond, cond = launch.flat(xt), launch.flat(uncond), launch.flat(cond)
    x0_last = xt if x0_last is None else launch.flat(x0_last)
    memory, how = zip(*(launch.output(o, shape, dtype, xt, uncond, cond, x0_last) for o in out))
    launch.run(_guided_dpmpp_2m, xt.size, *memory, xt, uncond, cond, float(w), x0_last, table, launch.row_size(xt, table), max(how))
    return tuple(launch.finish(a, o, shape) for a, o in zip(memory, out))


def guided_flow_step(xt, uncond, cond, w, t, s, out=None):
    """[CFG] eq. 6 on velocities, then Euler's step, [RF] algorithm 1:  x_s = x_t + (s - t) (uncond + w (cond - uncond)).

    xt, uncond, cond: (B, ...). w: float. t, s: numbers or (B,), 0 <= s < t <= 1. Returns x_s (B, ...), in out where given.
    Raises as `ref.fused.guided_flow_step`.
    """
    shape, dtype = launch.same(xt=xt, uncond=uncond, cond=cond)
    table = coefficients.flow_step(t, s, shape)
    xt, uncond, cond = launch.flat(xt), launch.flat(uncond), launch.flat(cond)
    memory, how = launch.output(out, shape, dtype, xt, uncond, cond)
    launch.run(_guided_flow, xt.size, memory, xt, uncond, cond, float(w), table, launch.row_size(xt, table), how)
    return launch.finish(memory, out, shape)


def heun_step(x, denoised, denoised_next, sigma, sigma_next, out=None):
    """[EDM] algorithm 1, lines 4 to 8, from the two predictions of x0 that it makes, as one sum of three terms. (So an infinite
    element may stay infinite where `ref` makes NaN of the difference of two.)

    x, denoised, denoised_next: (B, ...). sigma, sigma_next: numbers or (B,), 0 < sigma_next < sigma.
    Returns x_next (B, ...), in out where given. Raises as `ref.fused.heun_step`.
    """
    shape, dtype = launch.same(x=x, denoised=denoised, denoised_next=denoised_next)
    table = coefficients.heun_step(sigma, sigma_next, shape)
    x, denoised, denoised_next = launch.flat(x), launch.flat(denoised), launch.flat(denoised_next)
    memory, how = launch.output(out, shape, dtype, x, denoised, denoised_next)
    launch.run(_heun, x.size, memory, x, denoised, denoised_next, table, launch.row_size(x, table), how)
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
    launch.apart(out)
    p, g, m, v, avg = (launch.flat(a) for a in (p, g, m, v, avg))
    memory, how = zip(*(launch.output(o, shape, dtype, p, g, m, v, avg) for o in out))
    launch.run(_adam_ema, p.size, *memory, p, g, m, v, avg, c, d, max(how))
    return tuple(launch.finish(a, o, shape) for a, o in zip(memory, out))


@njit(**INLINE)
def _q_sample_noise_rows(o, lo, hi, z, x0, table, n):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c0, c1 = o.dtype.type(table[0, row]), o.dtype.type(table[1, row])
        r, x, w = o[i - lo : end - lo], x0[i:end], z[i - lo :]
        for j in range(r.size):
            r[j] = fma(c0, x[j], c1 * w[j])
        i = end


@njit(**COMPILE)
def _q_sample_noise(lo, hi, out, x0, table, n, key, how):
    wide()
    write_noisy(_q_sample_noise_rows, normal_chunk, lo, hi, out, how, key, (x0, table, n))


@njit(**INLINE)
def _gradient(o, first, last, x, y, c):
    for j in range(last - first):
        o[j] = c * (x[j] - y[j])


@njit(**COMPILE)
def _eps_loss_grad(lo, hi, out, eps_hat, eps, c, partial, how):
    c = out.dtype.type(c)
    chunk = np.empty(launch.CHUNK, out.dtype)
    for first in range(lo, hi, launch.CHUNK):
        last = min(first + launch.CHUNK, hi)
        x, y = eps_hat[first:last], eps[first:last]
        if how == launch.DIRECT:
            _gradient(out[first:last], first, last, x, y, c)
        else:
            _gradient(chunk, first, last, x, y, c)
        partial[first // launch.CHUNK] = square_error(x, y)  # of what is in cache now, and before it may be written over
        if how != launch.DIRECT:
            deliver(out, first, last, chunk, how)


@njit(**INLINE)
def _eps_loss_noise_rows(o, lo, hi, z, eps_hat, c, partial):
    x, y = eps_hat[lo:hi], z[: hi - lo]
    _gradient(o, lo, hi, x, y, c)
    partial[lo // launch.CHUNK] = square_error(x, y)


@njit(**COMPILE)
def _eps_loss_noise(lo, hi, out, eps_hat, c, partial, key, how):
    wide()
    write_noisy(_eps_loss_noise_rows, normal_chunk, lo, hi, out, how, key, (eps_hat, out.dtype.type(c), partial))


@njit(**INLINE)
def _guided_ddpm_rows(o, lo, hi, z, xt, uncond, cond, w, table, n, limit):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c = five(table, row, o)
        r, x, u, v, e = o[i - lo : end - lo], xt[i:end], uncond[i:end], cond[i:end], z[i - lo :]
        if c[4] == 0:
            for j in range(r.size):
                r[j] = ddpm_mean(x[j], fma(w, v[j] - u[j], u[j]), c, limit)
        else:
            for j in range(r.size):
                r[j] = fma(c[4], e[j], ddpm_mean(x[j], fma(w, v[j] - u[j], u[j]), c, limit))
        i = end


@njit(**COMPILE)
def _guided_ddpm(lo, hi, out, xt, uncond, cond, w, table, n, limit, key, how):
    wide()
    w, limit = out.dtype.type(w), out.dtype.type(limit)
    if key.size:
        write_noisy(_guided_ddpm_rows, normal_chunk, lo, hi, out, how, key, (xt, uncond, cond, w, table, n, limit))
    else:
        write(_guided_ddpm_rows, lo, hi, out, how, (xt[:0], xt, uncond, cond, w, table, n, limit))


@njit(**INLINE)
def _guided_ddim_rows(o, lo, hi, z, xt, uncond, cond, w, table, n, clipped, limit):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c = seven(table, row, o)
        r, x, u, v, e = o[i - lo : end - lo], xt[i:end], uncond[i:end], cond[i:end], z[i - lo :]
        if c[6] == 0:
            for j in range(r.size):
                r[j] = ddim_mean(x[j], fma(w, v[j] - u[j], u[j]), c, clipped, limit)
        else:
            for j in range(r.size):
                r[j] = fma(c[6], e[j], ddim_mean(x[j], fma(w, v[j] - u[j], u[j]), c, clipped, limit))
        i = end


@njit(**COMPILE)
def _guided_ddim(lo, hi, out, xt, uncond, cond, w, table, n, clipped, limit, key, how):
    wide()
    w, limit = out.dtype.type(w), out.dtype.type(limit)
    if key.size:
        write_noisy(_guided_ddim_rows, normal_chunk, lo, hi, out, how, key, (xt, uncond, cond, w, table, n, clipped, limit))
    else:
        write(_guided_ddim_rows, lo, hi, out, how, (xt[:0], xt, uncond, cond, w, table, n, clipped, limit))


@njit(**INLINE)
def _guided_dpmpp_2m_rows(o, x0, lo, hi, xt, uncond, cond, w, x0_last, table, n):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c0, c1, c2, c3, c4 = five(table, row, o)
        r, d, x, u, v, last = o[i - lo : end - lo], x0[i - lo : end - lo], xt[i:end], uncond[i:end], cond[i:end], x0_last[i:end]
        if c4 == 0:
            for j in range(r.size):
                a = x[j]
                b = fma(c0, a, c1 * fma(w, v[j] - u[j], u[j]))
                r[j] = fma(c2, a, c3 * b)
                d[j] = b
        else:
            for j in range(r.size):
                a = x[j]
                b = fma(c0, a, c1 * fma(w, v[j] - u[j], u[j]))
                r[j] = fma(c4, last[j], fma(c2, a, c3 * b))
                d[j] = b
        i = end


@njit(**COMPILE)
def _guided_dpmpp_2m(lo, hi, out, x0_out, xt, uncond, cond, w, x0_last, table, n, how):
    w = out.dtype.type(w)
    if how == launch.DIRECT:
        _guided_dpmpp_2m_rows(out[lo:hi], x0_out[lo:hi], lo, hi, xt, uncond, cond, w, x0_last, table, n)
    else:
        chunks = np.empty((2, launch.CHUNK), out.dtype)
        for first in range(lo, hi, launch.CHUNK):
            last = min(first + launch.CHUNK, hi)
            _guided_dpmpp_2m_rows(chunks[0], chunks[1], first, last, xt, uncond, cond, w, x0_last, table, n)
            deliver(out, first, last, chunks[0], how)
            deliver(x0_out, first, last, chunks[1], how)


@njit(**INLINE)
def _guided_flow_rows(o, lo, hi, xt, uncond, cond, w, table, n):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c = o.dtype.type(table[0, row])
        r, x, u, v = o[i - lo : end - lo], xt[i:end], uncond[i:end], cond[i:end]
        for j in range(r.size):
            r[j] = fma(c, fma(w, v[j] - u[j], u[j]), x[j])
        i = end


@njit(**COMPILE)
def _guided_flow(lo, hi, out, xt, uncond, cond, w, table, n, how):
    write(_guided_flow_rows, lo, hi, out, how, (xt, uncond, cond, out.dtype.type(w), table, n))


@njit(**INLINE)
def _heun_rows(o, lo, hi, a, b, c, table, n):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c0, c1, c2 = o.dtype.type(table[0, row]), o.dtype.type(table[1, row]), o.dtype.type(table[2, row])
        r, x, y, z = o[i - lo : end - lo], a[i:end], b[i:end], c[i:end]
        for j in range(r.size):
            r[j] = fma(c2, z[j], fma(c0, x[j], c1 * y[j]))
        i = end


@njit(**COMPILE)
def _heun(lo, hi, out, x, denoised, denoised_next, table, n, how):
    write(_heun_rows, lo, hi, out, how, (x, denoised, denoised_next, table, n))


@njit(**INLINE)
def adam_ema_element(p, g, m, v, avg, c, keep, take):
    """One element of `adam_ema_step`. p, g, m, v, avg: numbers. c: from `eight`. keep, take: decay and 1 - decay. Returns p, m, v, avg."""
    p, m, v = adam_element(p, g, m, v, c)
    return p, m, v, fma(keep, avg, take * p)


@njit(**INLINE)
def _adam_ema_rows(po, mo, vo, ao, lo, hi, p, g, m, v, avg, c, keep, take):
    x, y, r, s, a = p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi], avg[lo:hi]
    for j in range(x.size):
        po[j], mo[j], vo[j], ao[j] = adam_ema_element(x[j], y[j], r[j], s[j], a[j], c, keep, take)


@njit(**COMPILE)
def _adam_ema(lo, hi, p_out, m_out, v_out, avg_out, p, g, m, v, avg, c, d, how):
    c = eight(c, p)
    keep, take = p.dtype.type(d[0, 0]), p.dtype.type(d[1, 0])
    if how == launch.DIRECT:
        _adam_ema_rows(p_out[lo:hi], m_out[lo:hi], v_out[lo:hi], avg_out[lo:hi], lo, hi, p, g, m, v, avg, c, keep, take)
    else:
        chunks = np.empty((4, launch.CHUNK), p.dtype)
        for first in range(lo, hi, launch.CHUNK):
            last = min(first + launch.CHUNK, hi)
            _adam_ema_rows(chunks[0], chunks[1], chunks[2], chunks[3], first, last, p, g, m, v, avg, c, keep, take)
            deliver(p_out, first, last, chunks[0], how)
            deliver(m_out, first, last, chunks[1], how)
            deliver(v_out, first, last, chunks[2], how)
            deliver(avg_out, first, last, chunks[3], how)
