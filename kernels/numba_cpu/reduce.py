"""Sums: how segments, chunks, noise and outputs are walked, written once for every kernel that adds up what it reads
or makes.

A row is cut into segments of CHUNK elements from its beginning, each with a sum of its own in float64, and NumPy adds
those. So a row's sum has one order, alone or in a batch, for any number of threads. What is no batch of rows is one
long row."""
import numpy as np
from numba import float64, njit

from kernels.numba_cpu import engine
from kernels.numba_cpu.arrays import chunk, column, each, number, part
from kernels.numba_cpu.engine import CHUNK, COMPILE, DIRECT, INLINE, SUM
from kernels.numba_cpu.intrinsics import deliver, wide
from kernels.numba_cpu.philox import normal_chunk
from kernels.numba_cpu.rowwise import fill

NO_TABLE = np.empty((0, 1))  # of an equation without coefficients

# A loop that sums stores nothing: one that does is vectorised only where its arrays are far apart, and sums in
# another order where they are not, so the result would depend on addresses.


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


@njit(**INLINE)
def _of_terms(terms, values):
    return total(terms[0])


@njit(**INLINE)
def _of_errors(terms, values):
    return square_error(values[0], values[1])


@njit(**INLINE)
def _one_segment(element, summed, first, last, out, ins, noise, terms, parts, how, c, u):
    """The elements first .. last - 1 of a row: their output straight into place, or by way of parts, and its sum,
    before an input may be written over. ins: whole arrays. noise: the segment's. terms: a chunk for them, where the
    element returns a term."""
    values = (*each(part, ins, first, last), *each(part, noise, 0, last - first))
    here = each(part, terms, 0, last - first)
    if how == DIRECT:
        fill(element, c, u, (out[first:last], *here), values)
        return summed(here, values)
    fill(element, c, u, (*each(part, parts, 0, last - first), *here), values)
    s = summed(here, values)
    deliver(out, parts[0], first, last, how)
    return s


@njit(**INLINE)
def _walk(element, summed, lo, hi, out, ins, terms, partial, how, table, n, ks, u):
    """Segments lo .. hi - 1, numbered row by row; their sums to partial. table: one column for all rows, or for
    each."""
    parts, v, in_row = (chunk(out),), each(number, u, out), -(-n // CHUNK)
    row, s = lo // in_row, lo % in_row
    for k in range(lo, hi):
        first = row * n + s * CHUNK
        last = min(first + CHUNK, (row + 1) * n)
        c = column(table, min(row, table.shape[1] - 1), ks, out)
        partial[k] = _one_segment(element, summed, first, last, out, ins, (), terms, parts, how, c, v)
        s += 1
        if s == in_row:
            row, s = row + 1, 0


def reduction(element, inputs, coefficients, vectors=False):
    """The kernel of an element function that returns its output and a term of a sum:
    kernel(lo, hi, how, table, n, u, partial, out, *ins).

    element: `element(c, u, *values)` as in `rowwise`. inputs: how many arrays, 1 to 3. coefficients: K of its table.
    vectors: for `wide`."""
    ks = tuple(range(coefficients))

    def one(lo, hi, how, table, n, u, partial, out, a):
        if vectors:
            wide()
        _walk(element, _of_terms, lo, hi, out, (a,), (chunk(out),), partial, how, table, n, ks, u)

    def two(lo, hi, how, table, n, u, partial, out, a, b):
        if vectors:
            wide()
        _walk(element, _of_terms, lo, hi, out, (a, b), (chunk(out),), partial, how, table, n, ks, u)

    def three(lo, hi, how, table, n, u, partial, out, a, b, c):
        if vectors:
            wide()
        _walk(element, _of_terms, lo, hi, out, (a, b, c), (chunk(out),), partial, how, table, n, ks, u)

    return engine.compiled({1: one, 2: two, 3: three}[inputs], element)


def error_reduction(element, seeded=False):
    """The kernel of an element function of two values that returns its output only, while the square of their
    difference is added up: kernel(lo, hi, how, table, n, u, partial, out, a, b). Where seeded, b is a key, whose
    noise is the second value. element: without coefficients."""

    def errors(lo, hi, how, table, n, u, partial, out, a, b):
        _walk(element, _of_errors, lo, hi, out, (a, b), (), partial, how, table, n, (), u)

    def noisy_errors(lo, hi, how, table, n, u, partial, out, a, key):
        wide()
        parts, z, v = (chunk(out),), chunk(out), each(number, u, out)
        for k in range(lo, hi):
            first, last = k * CHUNK, min((k + 1) * CHUNK, n)
            normal_chunk(z, first, last, key)
            partial[k] = _one_segment(element, _of_errors, first, last, out, (a,), (z,), (), parts, how, (), v)

    return engine.compiled(noisy_errors if seeded else errors, element)


def segments(n):
    """How many segments a row of n elements has. n: int."""
    return -(-n // CHUNK)


def sums(kernel, *arrays):
    """The float64 sum of a kernel like `sum_squares` over flat arrays of one size. kernel: compiled. arrays: flat."""
    size = arrays[0].size
    partial = np.empty(segments(size))
    engine.run_parts(kernel, partial.size, size, partial, *arrays)
    return partial.sum()


def apply(kernel, rows, n, out, shape, dtype, table, *arrays, u=(), key=()):
    """One call of a kernel of `reduction` or `error_reduction` over rows of n elements.

    out: as the caller gave it. shape, dtype: of every array. table: (K, R). arrays: inputs. u: scalars. key: of the
    noise.
    Returns the sums (rows,) float64 and the output.
    """
    flat = [engine.flat(a) for a in arrays]
    memory, how = engine.output(out, shape, dtype, *flat)
    partial = np.empty((rows, segments(n)))
    more = () if type(key) is tuple else (key,)
    engine.run_parts(kernel, partial.size, rows * n, how, table, n, u, partial.reshape(-1), memory, *flat, *more)
    return partial.sum(axis=1), engine.finish(memory, out, shape)
