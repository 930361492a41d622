"""Muon's matrices on the CPU, one after another, each in one thread's second-level cache, on the register tile of
`matmul`. Padding holds zeros, or what no product reads.

Papers
    [Muon]     Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
"""
import math

import numpy as np

from kernels.coefficients import NEWTON_SCHULZ
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, INLINE
from kernels.numba_cpu.intrinsics import fma, wide
from kernels.numba_cpu.matmul import ROWS, Left, Right, lanes, lines, tile
from kernels.numba_cpu.panels import transpose


@njit(**COMPILE)
def muon(lo, hi, p_out, m_out, p, g, m, rate, keep, decay, rows, columns):
    """`muon_step` of the matrices lo .. hi - 1. p_out, m_out: what it returns, and p, g, m, as there: flat.
    rate, keep, decay: of `coefficients.muon_step`. rows, columns: of a matrix."""
    wide()
    t, size = p.dtype.type, rows * columns
    short, long, tall = min(rows, columns), max(rows, columns), rows > columns
    width = lanes(p)
    along, square = -(-long // width) * width + width // 2, -(-short // width) * width + width // 2
    high = -(-short // ROWS) * ROWS
    x, y = lines(high * along, p), lines(high * along, p)
    turned, a, b = lines(long * square, p), lines(high * square, p), lines(high * square, p)
    for k in range(lo, hi):
        here = slice(k * size, (k + 1) * size)
        p_new, m_new, p_old, g_now, m_old = p_out[here], m_out[here], p[here], g[here], m[here]
        # Nesterov's momentum, as a wide matrix
        total = 0.0
        for i in range(rows):
            for j in range(columns):
                m_next = fma(t(keep), m_old[i * columns + j], g_now[i * columns + j])
                u = fma(t(keep), m_next, g_now[i * columns + j])
                m_new[i * columns + j] = m_next
                x[j * along + i if tall else i * along + j] = u
                total += np.float64(u) * np.float64(u)
        newton_schulz(x, y, turned, a, b, t(1 / (math.sqrt(total) + 1e-7)), short, long, along, square)
        for i in range(rows):
            for j in range(columns):
                at = i * columns + j
                step = fma(t(decay), p_old[at], t(rate) * x[j * along + i if tall else i * along + j])
                p_new[at] = p_old[at] - step


@njit(**INLINE)
def newton_schulz(x, y, turned, a, b, scale, short, long, along, square):
    """x <- the fifth Newton-Schulz step of scale x. x, y: (short, along), of which `long` columns count. turned: (long,
    square), a, b: (short, square), of which `short` count; all flat, with 0 in the other columns at first. scale:
    number of their dtype."""
    t = x.dtype.type
    one, two, three = t(NEWTON_SCHULZ[0]), t(NEWTON_SCHULZ[1]), t(NEWTON_SCHULZ[2])
    for i in range(short * along):
        x[i] *= scale
    for _ in range(5):
        # A = X X^T
        transpose(turned, square, x, along, short, long)
        multiply(a, square, x, along, turned, square, short, short, long)
        # b A + c A^2
        multiply(b, square, a, square, a, square, short, short, short)
        for i in range(short * square):
            b[i] = fma(three, b[i], two * a[i])
        # X <- a X + (b A + c A^2) X
        multiply(y, along, b, square, x, along, short, long, short)
        for i in range(short * along):
            x[i] = fma(one, x[i], y[i])


@njit(**INLINE)
def multiply(out, to, left, row, right, stride, rows, columns, depth):
    """out = left right, matrices of `rows` rows, `columns` columns and `depth` terms, in flat arrays whose rows begin
    every `to`, `row` and `stride` elements; whole tiles of out are written."""
    for j in range(0, columns, lanes(out)):
        for i in range(0, rows, ROWS):
            from_i = Left(left, i * row, row, 1)
            tile(out, i * to + j, to, from_i, min(ROWS, rows - i), Right(right, j, stride), depth)
