"""Norms and gates of rows of `ref.layers` on the CPU, and their gradients: one read and one write of memory, for a row
stays in the first-level cache from its first pass to its last.

Arrays are of one dtype, float32 or float64; `out` takes the result like x, or the gradient in what is no vector, and may
be an input. What is added up over rows is added in float64, BLOCK rows of an example, then those blocks: in one order,
for any number of threads.
"""
import math

import numpy as np
from numba import float64

from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import CHUNK, COMPILE, DIRECT, INLINE, register_jitable
from kernels.numba_cpu.intrinsics import deliver, fma, wide
from kernels.numba_cpu.moments import moments, products, squares

BLOCK = 32  # rows whose gradients are added first


def layer_norm_modulate(x, shift, scale, eps, out=None):
    """(1 + scale) x_hat + shift on the CPU, arguments as in `ref.layers.layer_norm_modulate`."""
    shape, dtype = engine.same(x=x)
    shift, scale = _vectors(shape, dtype, shift=shift, scale=scale)
    return _rows(modulated, out, shape, dtype, (x,), shift, scale, float(eps), shape[1])


def layer_norm_modulate_backward(dy, x, scale, eps, out=None):
    """Gradients of `layer_norm_modulate` on the CPU, arguments as in `ref.layers.layer_norm_modulate_backward`. out: of
    dx alone."""
    shape, dtype = engine.same(dy=dy, x=x)
    (scale,) = _vectors(shape, dtype, scale=scale)
    dx, (dshift, dscale) = _sums(modulated_back, out, shape, dtype, (dy, x), 2, scale, float(eps))
    return dx, dshift, dscale


def rms_norm(x, w, eps, out=None):
    """w x / sqrt(mean(x^2) + eps) on the CPU, arguments as in `ref.layers.rms_norm`."""
    shape, dtype = engine.same(x=x)
    return _rows(scaled, out, shape, dtype, (x,), _weights(w, shape, dtype), float(eps))


def rms_norm_backward(dy, x, w, eps, out=None):
    """Gradients of `rms_norm` on the CPU, arguments as in `ref.layers.rms_norm_backward`. out: of dx alone."""
    shape, dtype = engine.same(dy=dy, x=x)
    flat = (1, math.prod(shape[:-1]), shape[-1])  # one example
    dx, (dw,) = _sums(scaled_back, out, flat, dtype, (dy, x), 1, _weights(w, shape, dtype), float(eps))
    return (dx if out is not None else dx.reshape(shape)), None if w is None else dw[0]


def gate_residual(x, r, gate, out=None):
    """x + gate r on the CPU, arguments as in `ref.layers.gate_residual`."""
    shape, dtype = engine.same(x=x, r=r)
    (gate,) = _vectors(shape, dtype, gate=gate)
    return _rows(gated, out, shape, dtype, (x, r), gate, shape[1])


def gate_residual_backward(dy, r, gate, out=None):
    """Gradients of `gate_residual` on the CPU, arguments as in `ref.layers.gate_residual_backward`; dx is dy. out: of
    dr alone."""
    shape, dtype = engine.same(dy=dy, r=r)
    (gate,) = _vectors(shape, dtype, gate=gate)
    dr, (dgate,) = _sums(gated_back, out, shape, dtype, (dy, r), 1, gate, 0.0)
    return dy, dr, dgate


def _vectors(shape, dtype, **arrays):
    """The flat (B, n) of each of arrays, after the check. shape: (B, L, n). dtype: of the data."""
    if len(shape) != 3:
        raise ValueError(f"x: expected shape (B, L, n), got {shape}")
    return [engine.flat(engine.like(name, a, dtype, (shape[0], shape[2]))) for name, a in arrays.items()]


def _weights(w, shape, dtype):
    if not shape:
        raise ValueError("x: expected shape (..., n), got ()")
    return np.ones(shape[-1], dtype) if w is None else engine.flat(engine.like("w", w, dtype, shape[-1:]))


def _rows(kernel, out, shape, dtype, arrays, *args):
    """One call of a kernel of rows. arrays: of that shape. args: of the kernel; the arrays among them are inputs."""
    ins = [engine.flat(a) for a in arrays]
    memory, how = engine.output(out, shape, dtype, *ins, *(a for a in args if isinstance(a, np.ndarray)))
    engine.run(kernel, memory.size, how, memory, *ins, *args, parts=math.prod(shape[:-1]))
    return engine.finish(memory, out, shape)


def _sums(kernel, out, shape, dtype, arrays, count, vector, eps):
    """One call of a kernel of gradients: the one like the data, and count of (B, n). shape: (B, L, n). arrays: of as
    many elements. vector: flat, of the kernel."""
    examples, length, n = shape
    blocks = -(-length // BLOCK)
    ins, sums = [engine.flat(a) for a in arrays], np.zeros((count, examples * blocks, n))
    memory, how = engine.output(out, arrays[0].shape, dtype, *ins, vector)
    engine.run(kernel, memory.size, how, memory, sums, *ins, vector, eps, length, blocks, parts=examples * blocks)
    added = np.add.reduce(sums.reshape(count, examples, blocks, n), axis=2).astype(dtype)
    return engine.finish(memory, out, arrays[0].shape), added


# --- the kernels ------------------------------------------------------------------------------------------------------
# of the rows lo .. hi - 1: arrays are flat, vectors (B, n) flat, length is L


@njit(**COMPILE)
def modulated(lo, hi, how, out, x, shift, scale, eps, length):
    """`layer_norm_modulate`."""
    wide()
    n = scale.size // max(1, scale.size * length // max(1, x.size))
    part = np.empty(n, x.dtype)
    for row in range(lo, hi):
        v, first = x[row * n : (row + 1) * n], row // length * n
        a, b = scale[first : first + n], shift[first : first + n]
        m, left, over = moments(v, eps)
        o = out[row * n : (row + 1) * n] if how == DIRECT else part
        for j in range(n):
            o[j] = fma(((v[j] - m) - left) * over, 1 + a[j], b[j])
        if how != DIRECT:
            deliver(out, part, row * n, (row + 1) * n, how)
