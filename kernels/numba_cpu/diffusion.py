"""`ref.diffusion` on the CPU: float32 or float64 in and out, one pass over memory each.

Every conversion is x0-like = c0 a + c1 b with two coefficients a row, so one kernel serves them all; the two steps have
one each. Arguments are those of `ref.diffusion` (equations there), arrays of one dtype; `out`, where given, is an array of
that shape and dtype and may be one of the inputs. Errors as there, before anything is written.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]   Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [PD]     Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022
    [SDE]    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
"""
import numpy as np
from numba import float64, njit

from kernels import coefficients
from kernels.numba_cpu import engine
from kernels.numba_cpu.engine import COMPILE, INLINE, SUM
from kernels.numba_cpu.intrinsics import fma, write


def q_sample(x0, t, eps, abar, out=None):
    """[DDPM] eq. 4:  x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps. x0, eps: (B, ...). t: (B,) ints or one int. abar: (T + 1,).

    Returns xt (B, ...), in out where given. Raises as `ref.diffusion.q_sample`.
    """
    shape, dtype = engine.same(x0=x0, eps=eps)
    return _linear_pass(out, shape, dtype, x0, eps, coefficients.q_sample(t, abar, shape))


def q_sample_backward(dxt, t, abar, out=None):
    """Gradients of `q_sample`:  dx0 = sqrt(abar_t) dxt,  deps = sqrt(1 - abar_t) dxt. dxt: (B, ...). t, abar: as there.

    Returns dx0, deps; out: a pair of arrays for them. Raises as `ref.diffusion.q_sample_backward`.
    """
    shape, dtype = engine.same(dxt=dxt)
    table = coefficients.q_sample(t, abar, shape)
    out = (None, None) if out is None else out
    engine.apart(out)
    dxt = engine.flat(dxt)
    (dx0, _), (deps, _) = engine.output(out[0], shape, dtype, dxt), engine.output(out[1], shape, dtype, dxt)
    engine.run(_scale_two, dxt.size, dx0, deps, dxt, table, engine.row_size(dxt, table))
    return engine.finish(dx0, out[0], shape), engine.finish(deps, out[1], shape)


def posterior(x0, xt, t, s, abar, out=None):
    """[DDPM] eqs. 6, 7 for s < t: mean and variance of q(x_s | x_t, x0). x0, xt: (B, ...). t, s: ints or (B,) ints. abar: (T + 1,).

    Returns mean (B, ...), in out where given, and variance, a float or (B,). Raises as `ref.diffusion.posterior`.
    """
    shape, dtype = engine.same(x0=x0, xt=xt)
    table = coefficients.posterior(t, s, abar, shape)
    variance = table[2].reshape(np.broadcast_shapes(np.shape(t), np.shape(s)))[()]
    return _linear_pass(out, shape, dtype, x0, xt, table), variance


def x0_from_eps(xt, eps, t, abar, out=None):
    """[DDPM] eq. 15:  x0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t). xt, eps: (B, ...). t: int or (B,) ints. abar: (T + 1,).

    Returns x0 (B, ...), in out where given. Raises as `ref.diffusion.x0_from_eps`.
    """
    shape, dtype = engine.same(xt=xt, eps=eps)
    return _linear_pass(out, shape, dtype, xt, eps, coefficients.x0_from_eps(t, abar, shape))


def eps_from_x0(xt, x0, t, abar, out=None):
    """[DDIM] eq. 9 solved for eps:  eps = (x_t - sqrt(abar_t) x0) / sqrt(1 - abar_t). xt, x0: (B, ...). t: int or (B,) ints >= 1. abar: (T + 1,).

    Returns eps (B, ...), in out where given. Raises as `ref.diffusion.eps_from_x0`.
    """
    shape, dtype = engine.same(xt=xt, x0=x0)
    return _linear_pass(out, shape, dtype, xt, x0, coefficients.eps_from_x0(t, abar, shape))


def v_target(x0, eps, t, abar, out=None):
    """[PD] section 4:  v = sqrt(abar_t) eps - sqrt(1 - abar_t) x0. x0, eps: (B, ...). t: int or (B,) ints. abar: (T + 1,).

    Returns v (B, ...), in out where given. Raises as `ref.diffusion.v_target`.
    """
    shape, dtype = engine.same(x0=x0, eps=eps)
    return _linear_pass(out, shape, dtype, x0, eps, coefficients.v_target(t, abar, shape))


def x0_from_v(xt, v, t, abar, out=None):
    """[PD] appendix D:  x0 = sqrt(abar_t) x_t - sqrt(1 - abar_t) v. xt, v: (B, ...). t: int or (B,) ints. abar: (T + 1,).

    Returns x0 (B, ...), in out where given. Raises as `ref.diffusion.x0_from_v`.
    """
    shape, dtype = engine.same(xt=xt, v=v)
    return _linear_pass(out, shape, dtype, xt, v, coefficients.x0_from_v(t, abar, shape))


def eps_from_v(xt, v, t, abar, out=None):
    """[PD] appendix D:  eps = sqrt(1 - abar_t) x_t + sqrt(abar_t) v. xt, v: (B, ...). t: int or (B,) ints. abar: (T + 1,).

    Returns eps (B, ...), in out where given. Raises as `ref.diffusion.eps_from_v`.
    """
    shape, dtype = engine.same(xt=xt, v=v)
    return _linear_pass(out, shape, dtype, xt, v, coefficients.eps_from_v(t, abar, shape))


def score_from_eps(eps, t, abar, out=None):
    """[SDE] eq. 7 with [DDPM] eq. 4:  score = -eps / sqrt(1 - abar_t). eps: (B, ...). t: int or (B,) ints >= 1. abar: (T + 1,).

    Returns the score (B, ...), in out where given. Raises as `ref.diffusion.score_from_eps`.
    """
    shape, dtype = engine.same(eps=eps)
    table, eps = coefficients.score_from_eps(t, abar, shape), engine.flat(eps)
    memory, how = engine.output(out, shape, dtype, eps)
    engine.run(_scale, eps.size, memory, eps, table, engine.row_size(eps, table), how)
    return engine.finish(memory, out, shape)


def ddpm_step(xt, eps_hat, t, s, z, abar, variance="small", clip=None, out=None):
    """[DDPM] algorithm 2 from t to s < t:  x_s = mean(x0_hat, x_t) + sigma z, no noise where s = 0.

    xt, eps_hat, z: (B, ...). t, s: ints or (B,) ints. abar: (T + 1,). variance: "small" or "large". clip: > 0, or None.
    Returns x_s (B, ...), in out where given. Raises as `ref.diffusion.ddpm_step`.
    """
    shape, dtype = engine.same(xt=xt, eps_hat=eps_hat, z=z)
    table = coefficients.ddpm_step(t, s, abar, variance, shape)
    limit = coefficients.clip_limit(clip)
    xt, eps_hat, z = engine.flat(xt), engine.flat(eps_hat), engine.flat(z)
    memory, how = engine.output(out, shape, dtype, xt, eps_hat, z)
    engine.run(_ddpm, xt.size, memory, xt, eps_hat, z, table, engine.row_size(xt, table), limit, how)
    return engine.finish(memory, out, shape)


def ddim_step(xt, eps_hat, t, s, z, eta, abar, clip=None, out=None):
    """[DDIM] eq. 12 from t to s < t:  x_s = sqrt(abar_s) x0_hat + sqrt(1 - abar_s - sigma^2) eps_hat + sigma z, sigma of eq. 16.

    xt, eps_hat, z: (B, ...); z may be None where eta = 0. t, s: ints or (B,) ints. eta: in [0, 1]. abar: (T + 1,).
    clip: > 0, or None; with it eps_hat is derived again from the clipped x0_hat.
    Returns x_s (B, ...), in out where given. Raises as `ref.diffusion.ddim_step`.
    """
    shape, dtype = engine.same(xt=xt, eps_hat=eps_hat)
    table = coefficients.ddim_step(t, s, eta, abar, shape)
    limit = coefficients.clip_limit(clip)
    if z is not None or eta != 0:
        engine.same(xt=xt, z=z)
    xt, eps_hat, z = engine.flat(xt), engine.flat(eps_hat), engine.flat(xt if z is None else z)
    memory, how = engine.output(out, shape, dtype, xt, eps_hat, z)
    engine.run(_ddim, xt.size, memory, xt, eps_hat, z, table, engine.row_size(xt, table), clip is not None, limit, how)
    return engine.finish(memory, out, shape)


def eps_loss(eps_hat, eps):
    """[DDPM] eq. 14:  L = mean((eps_hat - eps)^2) over all elements. eps_hat, eps: one shape, at least one element.

    Returns L, a float, the same bits for any number of threads. Raises as `ref.diffusion.eps_loss`.
    """
    shape, dtype = engine.same(eps_hat=eps_hat, eps=eps)
    partial = partial_sums(eps.size)
    engine.run(_square_error, eps.size, engine.flat(eps_hat), engine.flat(eps), partial)
    return float(partial.sum() / eps.size)


def eps_loss_backward(dloss, eps_hat, eps, out=None):
    """Gradients of `eps_loss`:  deps_hat = 2 (eps_hat - eps) / N dloss,  deps = -deps_hat. dloss: float.

    eps_hat, eps: one shape. Returns deps_hat, deps; out: a pair of arrays for them. Raises as `ref.diffusion.eps_loss_backward`.
    """
    shape, dtype = engine.same(eps_hat=eps_hat, eps=eps)
    partial_sums(eps.size)
    c = 2.0 * dloss / eps.size
    out = (None, None) if out is None else out
    engine.apart(out)
    eps_hat, eps = engine.flat(eps_hat), engine.flat(eps)
    deps_hat, _ = engine.output(out[0], shape, dtype, eps_hat, eps)
    deps, _ = engine.output(out[1], shape, dtype, eps_hat, eps)
    engine.run(_difference_two, eps.size, deps_hat, deps, eps_hat, eps, c)
    return engine.finish(deps_hat, out[0], shape), engine.finish(deps, out[1], shape)


def partial_sums(size):
    """One float64 for each CHUNK of the elements, so that a sum has one order. size: the elements. Raises ValueError for none."""
    if size == 0:
        raise ValueError("eps_hat and eps: expected at least one element, got none")
    return np.empty(-(-size // engine.CHUNK))


def _linear_pass(out, shape, dtype, a, b, table):
    a, b = engine.flat(a), engine.flat(b)
    memory, how = engine.output(out, shape, dtype, a, b)
    engine.run(_linear, a.size, memory, a, b, table, engine.row_size(a, table), how)
    return engine.finish(memory, out, shape)


@njit(**INLINE)
def _linear_rows(o, lo, hi, a, b, table, n):
    i = lo
    while i < hi:  # a row at a time: its coefficients are scalars of the inner loop
        row = i // n
        end = min(hi, (row + 1) * n)
        c0, c1 = o.dtype.type(table[0, row]), o.dtype.type(table[1, row])
        r, x, y = o[i - lo : end - lo], a[i:end], b[i:end]
        for j in range(r.size):
            r[j] = fma(c0, x[j], c1 * y[j])
        i = end


@njit(**COMPILE)
def _linear(lo, hi, out, a, b, table, n, how):
    write(_linear_rows, lo, hi, out, how, (a, b, table, n))


@njit(**INLINE)
def _scale_rows(o, lo, hi, a, table, n):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c0 = o.dtype.type(table[0, row])
        r, x = o[i - lo : end - lo], a[i:end]
        for j in range(r.size):
            r[j] = c0 * x[j]
        i = end


@njit(**COMPILE)
def _scale(lo, hi, out, a, table, n, how):
    write(_scale_rows, lo, hi, out, how, (a, table, n))


@njit(**COMPILE)
def _scale_two(lo, hi, out0, out1, a, table, n):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c0, c1 = a.dtype.type(table[0, row]), a.dtype.type(table[1, row])
        o0, o1, x = out0[i:end], out1[i:end], a[i:end]
        for j in range(x.size):
            o0[j], o1[j] = c0 * x[j], c1 * x[j]
        i = end


@njit(**INLINE)
def clamp(x, limit):
    """x in [-limit, limit]; NaN stays NaN."""
    x = limit if x > limit else x
    return -limit if x < -limit else x


@njit(**INLINE)
def five(table, row, out):
    """Column `row` of a `coefficients.ddpm_step` table, in the dtype of out."""
    real = out.dtype.type
    return real(table[0, row]), real(table[1, row]), real(table[2, row]), real(table[3, row]), real(table[4, row])


@njit(**INLINE)
def seven(table, row, out):
    """Column `row` of a `coefficients.ddim_step` table, in the dtype of out."""
    real = out.dtype.type
    return (
        real(table[0, row]), real(table[1, row]), real(table[2, row]), real(table[3, row]),
        real(table[4, row]), real(table[5, row]), real(table[6, row]),
    )  # fmt: skip


@njit(**INLINE)
def ddpm_mean(xt, eps, c, limit):
    """x_s without its noise, one element. xt, eps: numbers. c: from `five`. limit: of x0_hat, inf for none."""
    return fma(c[2], clamp(fma(c[0], xt, c[1] * eps), limit), c[3] * xt)


@njit(**INLINE)
def ddim_mean(xt, eps, c, clipped, limit):
    """x_s without its noise, one element. xt, eps: numbers. c: from `seven`. clipped: whether x0_hat is, to limit."""
    x0 = fma(c[0], xt, c[1] * eps)
    if clipped:
        x0 = clamp(x0, limit)
        eps = fma(c[2], xt, c[3] * x0)
    return fma(c[4], x0, c[5] * eps)


@njit(**INLINE)
def _ddpm_rows(o, lo, hi, xt, eps_hat, z, table, n, limit):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c = five(table, row, o)
        r, x, e, w = o[i - lo : end - lo], xt[i:end], eps_hat[i:end], z[i:end]
        if c[4] == 0:  # z is not looked at, as in the truth
            for j in range(r.size):
                r[j] = ddpm_mean(x[j], e[j], c, limit)
        else:
            for j in range(r.size):
                r[j] = ddpm_mean(x[j], e[j], c, limit) + c[4] * w[j]
        i = end


@njit(**COMPILE)
def _ddpm(lo, hi, out, xt, eps_hat, z, table, n, limit, how):
    write(_ddpm_rows, lo, hi, out, how, (xt, eps_hat, z, table, n, out.dtype.type(limit)))


@njit(**INLINE)
def _ddim_rows(o, lo, hi, xt, eps_hat, z, table, n, clipped, limit):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c = seven(table, row, o)
        r, x, e, w = o[i - lo : end - lo], xt[i:end], eps_hat[i:end], z[i:end]
        if c[6] == 0:
            for j in range(r.size):
                r[j] = ddim_mean(x[j], e[j], c, clipped, limit)
        else:
            for j in range(r.size):
                r[j] = ddim_mean(x[j], e[j], c, clipped, limit) + c[6] * w[j]
        i = end


@njit(**COMPILE)
def _ddim(lo, hi, out, xt, eps_hat, z, table, n, clipped, limit, how):
    write(_ddim_rows, lo, hi, out, how, (xt, eps_hat, z, table, n, clipped, out.dtype.type(limit)))


@njit(**SUM)
def square_error(x, y):
    """sum_j (x_j - y_j)^2 of one chunk, in float64. x, y: one length.

    A loop that stores nothing: one that does is taken in lanes only where its arrays are far apart, and sums in another
    order where they are not, so the loss would depend on addresses.
    """
    total = 0.0
    for j in range(x.size):
        d = float64(x[j] - y[j])
        total += d * d
    return total


@njit(**COMPILE)
def _square_error(lo, hi, a, b, partial):
    for first in range(lo, hi, engine.CHUNK):
        last = min(first + engine.CHUNK, hi)
        partial[first // engine.CHUNK] = square_error(a[first:last], b[first:last])


@njit(**COMPILE)
def _difference_two(lo, hi, out0, out1, a, b, c):
    c = a.dtype.type(c)
    o0, o1, x, y = out0[lo:hi], out1[lo:hi], a[lo:hi], b[lo:hi]
    for j in range(x.size):
        d = c * (x[j] - y[j])
        o0[j], o1[j] = d, -d
