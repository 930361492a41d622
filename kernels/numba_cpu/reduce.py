"""Reductions: the loops over segments, chunks, noise and outputs, written once for every kernel that sums terms of its
inputs or outputs.

A row is cut into segments of CHUNK elements. Each has a sum in float64, and NumPy adds these. So the sum of a row has
one order of additions, alone or in a batch, for any number of threads. Data without rows are one long row."""
import numpy as np
from numba import float64

from kernels.numba_cpu import engine
from kernels.numba_cpu.arrays import chunks, column, each, number, put, read
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import CHUNK, COMPILE, DIRECT, INLINE_SUM, SUM, alone, element, inner
from kernels.numba_cpu.intrinsics import deliver
from kernels.numba_cpu.philox import normal_chunk, scratch
from kernels.numba_cpu.rowwise import compiled, fill_wide

NO_TABLE = np.empty((0, 1))  # of an equation without coefficients


@njit(**SUM)
def total(terms):
    """sum_j terms_j of one segment, in float64. terms: numbers."""
    s = 0.0
    for j in range(terms.size):
        s += terms[j]
    return s


@njit(**SUM)
def square_error(x, y):
    """sum_j (x_j - y_j)^2 of one segment, in float64. x, y: one length."""
    s = 0.0
    for j in range(x.size):
        d = float64(x[j] - y[j])
        s += d * d
    return s


@njit(**SUM)
def squares(x):
    """sum_j x_j^2 of one segment, in float64. x: numbers."""
    s = 0.0
    for j in range(x.size):
        s += float64(x[j]) * float64(x[j])
    return s


@njit(**COMPILE)
def sum_square_error(lo, hi, partial, x, y):
    """The `square_error` of segments lo .. hi - 1 of one long row, to partial. x, y: flat, of one length."""
    for k in range(lo, hi):
        a, b = k * CHUNK, min((k + 1) * CHUNK, x.size)
        partial[k] = square_error(x[a:b], y[a:b])


@njit(**COMPILE)
def sum_squares(lo, hi, partial, x):
    """The `squares` of segments lo .. hi - 1 of one long row, to partial. x: flat."""
    for k in range(lo, hi):
        partial[k] = squares(x[k * CHUNK : min((k + 1) * CHUNK, x.size)])


@njit(**INLINE_SUM)
def _filled(equation, c, u, count, out, to, ins, at):
    """out[to + j] of an equation for j < count; the sum of its terms, in float64. Arguments as in `rowwise.fill`."""
    s = 0.0
    for j in range(count):
        value, term = equation(c, u, *each(read, ins, at, j))
        put(out, value, to, j)
        s += term
    return s


@inner
def _segment(equation, k, first, last, how, c, u, outs, parts, ins, at):
    """Writes segment k of the output, directly or by way of a chunk, and its sum. outs: (sums, output). parts: the
    chunk alone. ins: arrays, in which the segment begins at `at`."""
    if how == DIRECT:
        outs[0][k] = _filled(equation, c, u, last - first, outs[1], first, ins, at)
    else:
        outs[0][k] = _filled(equation, c, u, last - first, parts[0], 0, ins, at)
        deliver(outs[1], parts[0], first, last, how)


@alone
def _fill_vectors(equation, c, u, count, outs, to, ins, at):
    """`rowwise.fill_wide`, without noise."""
    fill_wide(equation, c, u, count, outs, to, ins, at, (), 0)


@inner
def _segment_of_vectors(equation, k, first, last, how, c, u, outs, parts, ins, at):
    """`_segment` of a long equation. In a loop with float64 it would be half as fast, so its terms are stored first and
    added afterwards. parts: two chunks, of outputs and of terms."""
    if how == DIRECT:
        _fill_vectors(equation, c, u, last - first, (outs[1][first:last], parts[1]), 0, ins, at)
    else:
        _fill_vectors(equation, c, u, last - first, parts, 0, ins, at)
        deliver(outs[1], parts[0], first, last, how)
    outs[0][k] = total(parts[1][: last - first])


@element
def _walk(equation, lo, hi, how, table, n, ks, u, outs, ins):
    _by(_segment, chunks(outs[1:]), equation, lo, hi, how, table, n, ks, u, outs, ins)


@element
def _walk_vectors(equation, lo, hi, how, table, n, ks, u, outs, ins):
    _by(_segment_of_vectors, chunks((outs[1], outs[1])), equation, lo, hi, how, table, n, ks, u, outs, ins)


@element
def _by(segment, parts, equation, lo, hi, how, table, n, ks, u, outs, ins):
    """Segments lo .. hi - 1, numbered row by row; their sums to outs[0]. table: a column for all rows, or for each."""
    v, in_row = each(number, u, outs[1]), -(-n // CHUNK)
    row, s = lo // in_row, lo % in_row
    for k in range(lo, hi):
        first = row * n + s * CHUNK
        last = min(first + CHUNK, (row + 1) * n)
        c = column(table, min(row, table.shape[1] - 1), ks, parts[0])
        segment(equation, k, first, last, how, c, v, outs, parts, ins, first)
        s += 1
        if s == in_row:
            row, s = row + 1, 0


@element
def _walk_noisy(equation, lo, hi, how, table, n, ks, u, outs, ins):
    """Segments of one long row. The second input of the equation is the noise of a key, ins[1]."""
    (part, z), words, v = chunks((outs[1], outs[1])), scratch(), each(number, u, outs[1])
    for k in range(lo, hi):
        first, last = k * CHUNK, min((k + 1) * CHUNK, n)
        normal_chunk(z, first, last, ins[1], words)
        _noisy_segment(equation, k, first, last, how, v, outs, part, ins[0], z)


@inner
def _noisy_segment(equation, k, first, last, how, u, outs, part, x, z):
    _segment(equation, k, first, last, how, (), u, outs, (part,), (x[first:last], z), 0)


def reduction(equation, inputs, coefficients, vectors=False):
    """The kernel of an equation that returns its output and a term of a sum: kernel(lo, hi, how, table, n, u, partial,
    out, *ins). equation, inputs, coefficients: as in `rowwise`. vectors: whether it is long, as in `compiled`."""
    return compiled(_walk_vectors if vectors else _walk, equation, 2, inputs, coefficients, vectors)


def noisy_reduction(equation):
    """As `reduction`, for an equation without coefficients whose inputs are a value and the noise of a key. equation:
    an element function."""
    return compiled(_walk_noisy, equation, 2, 2, 0, True)


def segments(n):
    """How many segments a row of n elements has. n: int."""
    return -(-n // CHUNK)


def sums(kernel, *arrays):
    """The float64 sum of a kernel like `sum_squares` over flat arrays of one size. kernel: compiled. arrays: flat."""
    size = arrays[0].size
    partial = np.empty(segments(size))
    engine.run(kernel, size, partial, *arrays, parts=partial.size)
    return np.add.reduce(partial)


def apply(kernel, rows, n, out, shape, dtype, table, *arrays, u=(), key=None):
    """One call of a kernel of `reduction` or `noisy_reduction` over rows of n elements, arguments as in
    `rowwise.apply`.

    Returns the sums (rows,) float64 and the output. kernel, rows, n, out, shape, dtype, table, arrays, u, key: as
    there.
    """
    ins = [engine.flat(a) for a in arrays]
    memory, how = engine.output(out, shape, dtype, *ins)
    if key is not None:
        ins.append(key)
    in_row = segments(n)
    partial = np.empty(rows * in_row)
    engine.run(kernel, rows * n, how, table, n, u, partial, memory, *ins, parts=partial.size)
    return np.add.reduce(partial.reshape(rows, in_row), axis=1), engine.finish(memory, out, shape)
