"""Norms and gates of rows of `ref.layers` on the CPU, and their gradients: one read and one write of memory, for a row
stays in the first-level cache from its first pass to its last.

Arrays are of one dtype, float32 or float64; `out` takes the result like x, or the gradient in what is no vector, and
may be an input. What is added up over rows is added for BLOCK rows of an example, then in float64 for those blocks: in
one order, for any number of threads.
"""
import math

import numpy as np

from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import CHUNK, COMPILE, DIRECT, element
from kernels.numba_cpu.intrinsics import deliver, fma, wide
from kernels.numba_cpu.moments import moments, products
from kernels.numba_cpu.reduce import squares

BLOCK = 32  # rows whose gradients are added first


def layer_norm_modulate(x, shift, scale, eps, out=None):
    """(1 + scale) x_hat + shift on the CPU, arguments as in `ref.layers.fused.layer_norm_modulate`."""
    shape, dtype = engine.same(x=x)
    shift, scale = _vectors(shape, dtype, shift=shift, scale=scale)
    return _rows(modulated, out, shape, dtype, (x,), (shift, scale), 1, float(eps), shape[1])


def layer_norm_modulate_backward(dy, x, scale, eps, out=None):
    """Gradients of `layer_norm_modulate` on the CPU, arguments as in `ref.layers.fused.layer_norm_modulate_backward`
    and `ref.layers.fused.layer_norm_modulate`. out: of dx alone."""
    shape, dtype = engine.same(dy=dy, x=x)
    (scale,) = _vectors(shape, dtype, scale=scale)
    dx, (dshift, dscale) = _sums(modulated_back, out, shape, dtype, (dy, x), 2, scale, 1, float(eps))
    return dx, dshift, dscale


def layer_norm(x, w, b, eps, out=None):
    """w x_hat + b on the CPU, arguments as in `ref.layers.norm.layer_norm`."""
    shape, dtype = engine.same(x=x)
    scale = _weights(w, shape, dtype)
    shift = np.zeros(shape[-1], dtype) if b is None else engine.like("b", b, dtype, shape[-1:])
    return _rows(modulated, out, shape, dtype, (x,), (shift, scale), 0, float(eps), math.prod(shape[:-1]))


def layer_norm_backward(dy, x, w, eps, out=None):
    """Gradients of `layer_norm` on the CPU, arguments as in `ref.layers.norm.layer_norm_backward` and
    `ref.layers.norm.layer_norm`. out: of dx alone."""
    shape, dtype = engine.same(dy=dy, x=x)
    vector, one = _weights(w, shape, dtype), (1, math.prod(shape[:-1]), shape[-1])  # an example
    dx, (db, dw) = _sums(modulated_back, out, one, dtype, (dy, x), 2, vector, 0, float(eps))
    return (dx, None, None) if w is None else (dx, dw[0], db[0])


def rms_norm(x, w, eps, out=None):
    """w x / sqrt(mean(x^2) + eps) on the CPU, arguments as in `ref.layers.norm.rms_norm`."""
    shape, dtype = engine.same(x=x)
    return _rows(scaled, out, shape, dtype, (x,), (_weights(w, shape, dtype),), float(eps))


def rms_norm_backward(dy, x, w, eps, out=None):
    """Gradients of `rms_norm` on the CPU, arguments as in `ref.layers.norm.rms_norm_backward` and
    `ref.layers.norm.rms_norm`. out: of dx alone."""
    shape, dtype = engine.same(dy=dy, x=x)
    vector, one = _weights(w, shape, dtype), (1, math.prod(shape[:-1]), shape[-1])  # an example
    dx, (dw,) = _sums(scaled_back, out, one, dtype, (dy, x), 1, vector, float(eps))
    return dx, None if w is None else dw[0]


def gate_residual(x, r, gate, out=None):
    """x + gate r on the CPU, arguments as in `ref.layers.fused.gate_residual`."""
    shape, dtype = engine.same(x=x, r=r)
    (gate,) = _vectors(shape, dtype, gate=gate)
    return _rows(gated, out, shape, dtype, (x, r), (gate,), shape[1])


def gate_residual_backward(dy, r, gate, out=None):
    """Gradients of `gate_residual` on the CPU, arguments as in `ref.layers.fused.gate_residual_backward` and
    `ref.layers.fused.gate_residual`; dx is dy. out: of dr alone."""
    shape, dtype = engine.same(dy=dy, r=r)
    (gate,) = _vectors(shape, dtype, gate=gate)
    dr, (dgate,) = _sums(gated_back, out, shape, dtype, (dy, r), 1, gate, 0.0)
    return dy, dr, dgate


def _vectors(shape, dtype, **arrays):
    """The flat (B, n) of each of arrays, after the check. shape: (B, L, n). dtype: of the data."""
    if len(shape) != 3:
        raise ValueError(f"x: expected shape (B, L, n), got {shape}")
    if any(np.shape(a) != (shape[0], shape[2]) for a in arrays.values()):
        got = ", ".join(f"{name} {np.shape(a)}" for name, a in arrays.items())
        raise ValueError(f"expected shape {(shape[0], shape[2])} for x {shape}, got {got}")
    return [engine.like(name, a, dtype, (shape[0], shape[2])) for name, a in arrays.items()]


def _weights(w, shape, dtype):
    """w, or ones. shape: (..., n). dtype: of the data."""
    if not shape:
        raise ValueError("x: expected shape (..., n), got ()")
    return np.ones(shape[-1], dtype) if w is None else engine.like("w", w, dtype, shape[-1:])


def _rows(kernel, out, shape, dtype, arrays, vectors, *args):
    """One call of a kernel of rows. arrays: of that shape. vectors: flat. args: of the kernel."""
    ins = [engine.flat(a) for a in arrays]
    memory, how = engine.output(out, shape, dtype, *ins, *vectors)
    rows = math.prod(shape[:-1])
    engine.run(kernel, memory.size, how, memory, *ins, *vectors, *args, shape[-1], parts=rows)
    return engine.finish(memory, out, shape)


def _sums(kernel, out, shape, dtype, arrays, count, vector, *args):
    """One call of a kernel of gradients: the one like the data, and count of (B, n). shape: (B, L, n). arrays: of as
    many elements. vector: flat, of the kernel. args: of the kernel."""
    examples, length, n = shape
    blocks = -(-length // BLOCK)
    ins, sums = [engine.flat(a) for a in arrays], np.zeros((count, examples * blocks, n), dtype)
    memory, how = engine.output(out, arrays[0].shape, dtype, *ins, vector)
    engine.run(kernel, memory.size, how, memory, sums, *ins, vector, *args, length, blocks, parts=examples * blocks)
    if blocks != 1:
        sums = np.add.reduce(sums.reshape(count, examples, blocks, n), axis=2, dtype=np.float64).astype(dtype)
    return engine.finish(memory, out, arrays[0].shape), sums


# --- the kernels of rows ----------------------------------------------------------------------------------------------


@njit(**COMPILE)
def modulated(lo, hi, how, out, x, shift, scale, more, eps, length, n):
    """`layer_norm_modulate` of the rows lo .. hi - 1.

    how: of `engine.output`. out, x: (B, L, n), flat. shift, scale: (B, n), flat. more: than scale is what x_hat is
    multiplied by, 1; or 0 for a plain `layer_norm`. eps: float. length: L. n: int.
    """
    wide()
    part = np.empty(n, x.dtype)
    for row in range(lo, hi):
        first, v = row // length * n, x[row * n : (row + 1) * n]
        m, over, off = moments(v, eps)
        o = out[row * n : (row + 1) * n] if how == DIRECT else part
        affine(o, v, m, over, off, x.dtype.type(more), scale[first : first + n], shift[first : first + n])
        if how != DIRECT:
            deliver(out, part, row * n, (row + 1) * n, how)


@element
def affine(o, v, m, over, off, more, scale, shift):
    """o = (more + scale) x_hat + shift. o, v, scale, shift: (n,). m, over, off: of `moments`. more: 1 or 0."""
    wide()
    for j in range(v.size):
        o[j] = fma(fma(v[j] - m, over, off), more + scale[j], shift[j])


@njit(**COMPILE)
def scaled(lo, hi, how, out, x, w, eps, n):
    """`rms_norm` of the rows lo .. hi - 1. w: (n,). The rest as in `modulated`."""
    wide()
    part = np.empty(n, x.dtype)
    for row in range(lo, hi):
        v = x[row * n : (row + 1) * n]
        over = x.dtype.type(1 / math.sqrt(squares(v) / n + eps))
        o = out[row * n : (row + 1) * n] if how == DIRECT else part
        for j in range(n):
            o[j] = v[j] * over * w[j]
        if how != DIRECT:
            deliver(out, part, row * n, (row + 1) * n, how)


@njit(**COMPILE)
def gated(lo, hi, how, out, x, r, gate, length, n):
    """`gate_residual` of the rows lo .. hi - 1. r: like x. gate: (B, n), flat. The rest as in `modulated`."""
    wide()
    part = np.empty(n, x.dtype)
    for row in range(lo, hi):
        g, v, u = gate[row // length * n :], x[row * n : (row + 1) * n], r[row * n : (row + 1) * n]
        o = out[row * n : (row + 1) * n] if how == DIRECT else part
        for j in range(n):
            o[j] = fma(g[j], u[j], v[j])
        if how != DIRECT:
            deliver(out, part, row * n, (row + 1) * n, how)


# --- the kernels of BLOCK rows of an example, numbered block by block -------------------------------------------------


@element
def rows_of(block, length, blocks):
    """The example of a block, and its rows, from the first to before the last. length: rows of an example. blocks: of
    an example."""
    example, i = block // blocks, block % blocks
    return example, example * length + i * BLOCK, example * length + min((i + 1) * BLOCK, length)


@element
def slopes(dx, x_hat, d, over, mean, tilt):
    """dx = (d - mean - x_hat tilt) / sigma, of a row. dx, x_hat, d: (n,). over, mean, tilt: numbers."""
    wide()
    for j in range(d.size):
        dx[j] = (d[j] - fma(x_hat[j], tilt, mean)) * over


@element
def summed(x, y):
    """sum_j x_j and sum_j x_j y_j, in float64. x, y: one length."""
    total = inner = 0.0
    for first in range(0, x.size, CHUNK):
        last = min(first + CHUNK, x.size)
        s, q = products(x[first:last], y[first:last])
        total += s
        inner += q
    return total, inner


@njit(**COMPILE)
def modulated_back(lo, hi, how, dx, sums, dy, x, scale, more, eps, length, blocks):
    """`layer_norm_modulate_backward` of the blocks lo .. hi - 1.

    how: of `engine.output`. dx, dy, x: (B, L, n), flat. sums: (2, all blocks, n), where those of dshift and dscale go.
    scale: (B, n), flat. more: as in `modulated`. eps: float. length: L. blocks: of an example.
    """
    wide()
    n = sums.shape[2]
    x_hat, d, part, one = np.empty(n, x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype), x.dtype.type(more)
    for block in range(lo, hi):
        example, begin, end = rows_of(block, length, blocks)
        a, dshift, dscale = scale[example * n : (example + 1) * n], sums[0, block], sums[1, block]
        for row in range(begin, end):
            u, v = dy[row * n : (row + 1) * n], x[row * n : (row + 1) * n]
            m, over, off = moments(v, eps)
            for j in range(n):
                x_hat[j] = fma(v[j] - m, over, off)
                d[j] = u[j] * (one + a[j])
            for j in range(n):
                dshift[j] += u[j]
            for j in range(n):
                dscale[j] = fma(u[j], x_hat[j], dscale[j])
            total, inner = summed(d, x_hat)
            slopes(part, x_hat, d, over, x.dtype.type(total / n), x.dtype.type(inner / n))
            deliver(dx, part, row * n, (row + 1) * n, how)


@njit(**COMPILE)
def scaled_back(lo, hi, how, dx, sums, dy, x, w, eps, length, blocks):
    """`rms_norm_backward` of the blocks lo .. hi - 1. w: (n,). sums: of one kind. The rest as in `modulated_back`."""
    wide()
    n = sums.shape[2]
    x_hat, d, part, none = np.empty(n, x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype), x.dtype.type(0)
    for block in range(lo, hi):
        example, begin, end = rows_of(block, length, blocks)
        dw = sums[0, block]
        for row in range(begin, end):
            u, v = dy[row * n : (row + 1) * n], x[row * n : (row + 1) * n]
            over = x.dtype.type(1 / math.sqrt(squares(v) / n + eps))
            for j in range(n):
                x_hat[j] = v[j] * over
                d[j] = u[j] * w[j]
            for j in range(n):
                dw[j] = fma(u[j], x_hat[j], dw[j])
            total, inner = summed(d, x_hat)
            slopes(part, x_hat, d, over, none, x.dtype.type(inner / n))
            deliver(dx, part, row * n, (row + 1) * n, how)


@njit(**COMPILE)
def gated_back(lo, hi, how, dr, sums, dy, r, gate, eps, length, blocks):
    """`gate_residual_backward` of the blocks lo .. hi - 1. dr, r: like dy. gate: (B, n), flat. sums: of one kind. eps:
    unused. The rest as in `modulated_back`."""
    wide()
    n = sums.shape[2]
    part = np.empty(n, r.dtype)
    for block in range(lo, hi):
        example, begin, end = rows_of(block, length, blocks)
        g, dgate = gate[example * n : (example + 1) * n], sums[0, block]
        for row in range(begin, end):
            u, v = dy[row * n : (row + 1) * n], r[row * n : (row + 1) * n]
            for j in range(n):
                part[j] = g[j] * u[j]
            for j in range(n):
                dgate[j] = fma(u[j], v[j], dgate[j])
            deliver(dr, part, row * n, (row + 1) * n, how)
