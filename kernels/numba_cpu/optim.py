"""`ref.optim` on the CPU: float32 or float64, one pass over memory each.

Arguments are those of `ref.optim` (equations there), arrays of one dtype; `out`, where given, may be the inputs
themselves, and only then are inputs overwritten. Errors as there, before anything is written.

Papers
    [Adam]     Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015
    [AdamW]    Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    [Pascanu]  Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013
"""
import math

import numpy as np
from numba import float64, njit

from kernels import coefficients
from kernels.numba_cpu import engine
from kernels.numba_cpu.engine import COMPILE, INLINE, SUM
from kernels.numba_cpu.intrinsics import deliver, fma, write


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, out=None):
    """[Adam] algorithm 1; with weight_decay > 0, [AdamW] algorithm 2, decoupled; weight_decay is its lambda / alpha.

    p, g, m, v: one shape. step: int >= 1. lr, beta1, beta2, eps, weight_decay: floats.
    Returns p, m, v; out: three arrays for them, which may be the inputs. Raises as `ref.optim.adam_step`.
    """
    shape, dtype = engine.same(p=p, g=g, m=m, v=v)
    c = coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay)
    out = (None,) * 3 if out is None else out
    engine.apart(out)
    p, g, m, v = engine.flat(p), engine.flat(g), engine.flat(m), engine.flat(v)
    memory, how = zip(*(engine.output(o, shape, dtype, p, g, m, v) for o in out))
    engine.run(_adam, p.size, *memory, p, g, m, v, c, max(how))
    return tuple(engine.finish(a, o, shape) for a, o in zip(memory, out))


def ema_step(avg, p, decay, out=None):
    """avg <- decay avg + (1 - decay) p. avg, p: one shape. decay: in [0, 1].

    Returns the new average, in out where given (it may be avg). Raises as `ref.optim.ema_step`.
    """
    shape, dtype = engine.same(avg=avg, p=p)
    d = coefficients.ema_step(decay)
    avg, p = engine.flat(avg), engine.flat(p)
    memory, how = engine.output(out, shape, dtype, avg, p)
    engine.run(_ema, p.size, memory, avg, p, d, how)
    return engine.finish(memory, out, shape)


def clip_by_global_norm(grads, max_norm, out=None):
    """[Pascanu] algorithm 1 over all arrays together:  g <- g max_norm / n  where  n = sqrt(sum_i ||g_i||^2) > max_norm.

    grads: dict or list of arrays. max_norm: > 0. out: the same kind of collection, which may be grads itself.
    Returns the same kind of collection. Raises as `ref.optim.clip_by_global_norm`.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a positive number, got {max_norm}")
    names = list(grads) if isinstance(grads, dict) else range(len(grads))
    kinds = [engine.same(**{f"grads[{name!r}]": grads[name]}) for name in names]
    arrays = [engine.flat(grads[name]) for name in names]
    outs = [None if out is None else out[name] for name in names]
    engine.apart(outs)
    memory = [engine.output(o, *kind, a)[0] for o, kind, a in zip(outs, kinds, arrays)]
    total = 0.0
    for a in arrays:
        partial = np.zeros(-(-a.size // engine.CHUNK))
        engine.run(_sum_squares, a.size, a, partial)
        total += float(partial.sum())
    norm = math.sqrt(total)
    for a, o in zip(arrays, memory):
        engine.run(_times, a.size, o, a, max_norm / norm if norm > max_norm else 1.0)
    clipped = [engine.finish(a, o, shape) for a, o, (shape, _) in zip(memory, outs, kinds)]
    return dict(zip(names, clipped)) if isinstance(grads, dict) else clipped


@njit(**INLINE)
def eight(c, p):
    """The coefficients c of Adam, in the dtype of p."""
    real = p.dtype.type
    return real(c[0]), real(c[1]), real(c[2]), real(c[3]), real(c[4]), real(c[5]), real(c[6]), real(c[7])


@njit(**INLINE)
def adam_element(p, g, m, v, c):
    """One element of [AdamW] algorithm 2. p, g, m, v: numbers. c: from `eight`. Returns p, m, v."""
    m = fma(c[0], m, c[1] * g)
    v = fma(c[2], v, c[3] * (g * g))
    return p - fma(c[7], p, c[4] * m / fma(c[5], np.sqrt(v), c[6])), m, v


@njit(**INLINE)
def adam_ema_element(p, g, m, v, avg, c, keep, take):
    """One element of `fused.adam_ema_step`. p, g, m, v, avg: numbers. c: from `eight`. keep, take: decay and 1 - decay. Returns p, m, v, avg."""
    p, m, v = adam_element(p, g, m, v, c)
    return p, m, v, fma(keep, avg, take * p)


@njit(**INLINE)
def adam_ema_rows(po, mo, vo, ao, lo, hi, p, g, m, v, avg, c, keep, take):
    """Elements lo .. hi - 1 of `fused.adam_ema_step`, to the first of po, mo, vo, ao. p, g, m, v, avg: flat. c, keep, take: as in `adam_ema_element`."""
    x, y, r, s, a = p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi], avg[lo:hi]
    for j in range(x.size):
        po[j], mo[j], vo[j], ao[j] = adam_ema_element(x[j], y[j], r[j], s[j], a[j], c, keep, take)


@njit(**INLINE)
def _adam_rows(po, mo, vo, lo, hi, p, g, m, v, c):
    x, y, r, s = p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi]
    for j in range(x.size):
        po[j], mo[j], vo[j] = adam_element(x[j], y[j], r[j], s[j], c)


@njit(**COMPILE)
def _adam(lo, hi, p_out, m_out, v_out, p, g, m, v, c, how):
    c = eight(c, p)
    if how == engine.DIRECT:
        _adam_rows(p_out[lo:hi], m_out[lo:hi], v_out[lo:hi], lo, hi, p, g, m, v, c)
    else:
        chunks = np.empty((3, engine.CHUNK), p.dtype)
        for first in range(lo, hi, engine.CHUNK):
            last = min(first + engine.CHUNK, hi)
            _adam_rows(chunks[0], chunks[1], chunks[2], first, last, p, g, m, v, c)
            deliver(p_out, first, last, chunks[0], how)
            deliver(m_out, first, last, chunks[1], how)
            deliver(v_out, first, last, chunks[2], how)


@njit(**INLINE)
def _ema_rows(o, lo, hi, avg, p, keep, take):
    a, q = avg[lo:hi], p[lo:hi]
    for j in range(a.size):
        o[j] = fma(keep, a[j], take * q[j])


@njit(**COMPILE)
def _ema(lo, hi, out, avg, p, d, how):
    write(_ema_rows, lo, hi, out, how, (avg, p, out.dtype.type(d[0, 0]), out.dtype.type(d[1, 0])))


@njit(**SUM)
def _sum_squares(lo, hi, a, partial):
    for first in range(lo, hi, engine.CHUNK):
        x = a[first : min(first + engine.CHUNK, hi)]
        total = 0.0
        for j in range(x.size):
            total += float64(x[j]) * float64(x[j])
        partial[first // engine.CHUNK] = total


@njit(**COMPILE)
def _times(lo, hi, out, a, c):
    c = out.dtype.type(c)
    o, x = out[lo:hi], a[lo:hi]
    for j in range(o.size):
        o[j] = c * x[j]
