"""Sums: how segments, chunks, noise and outputs are walked, written once for every kernel that adds up what it reads
or makes.

A row is cut into segments of CHUNK elements from its beginning, each with a sum of its own in float64, and NumPy adds
those. So a row's sum has one order, alone or in a batch, for any number of threads. What is no batch of rows is one
long row. """
import numpy as np
from numba import float64, njit

from kernels.numba_cpu import engine
from kernels.numba_cpu.arrays import cast, chunks, column, deliver_all, part
from kernels.numba_cpu.engine import CHUNK, COMPILE, DIRECT, INLINE, SUM
from kernels.numba_cpu.intrinsics import wide
from kernels.numba_cpu.philox import normal_chunk
from kernels.numba_cpu.rowwise import fill


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
    """partial_k = the `square_error` of segment k of one long row. lo, hi: segments. partial: written. x, y: flat, of
    one length."""
    for k in range(lo, hi):
        a, b = k * CHUNK, min((k + 1) * CHUNK, x.size)
        partial[k] = square_error(x[a:b], y[a:b])


@njit(**COMPILE)
def sum_squares(lo, hi, partial, x):
    """partial_k = the `squares` of segment k. Arguments as in `sum_square_error`."""
    for k in range(lo, hi):
        partial[k] = squares(x[k * CHUNK : min((k + 1) * CHUNK, x.size)])


@njit(**INLINE)
def of_terms(terms, values):
    """The sum of what the element returned last. terms: its chunk, in a tuple. values: the inputs."""
    return total(terms[0])


@njit(**INLINE)
def of_errors(terms, values):
    """The sum of the squared difference of two inputs. Arguments as in `of_terms`."""
    return square_error(values[0], values[1])


@njit(**INLINE)
def segment(k, n):
    """Row, first and last element (not included) of segment k of rows of n elements. k, n: ints."""
    parts = -(-n // CHUNK)
    row = k // parts
    first = row * n + (k - row * parts) * CHUNK
    return row, first, min(first + CHUNK, (row + 1) * n)


@njit(**INLINE)
def one_segment(element, summed, k, out, ins, noise, extra, parts, how, table, n, like, u):
    """The sum of segment k, and its output: straight into place, or by way of parts, before which the inputs are
    summed."""
    row, a, b = segment(k, n)
    c = column(table, min(row, table.shape[1] - 1), like, out)
    values, terms = (*part(ins, a, b), *part(noise, 0, b - a)), part(extra, 0, b - a)
    if how == DIRECT:
        fill(element, c, u, (out[a:b], *terms), values)
        return summed(terms, values)
    fill(element, c, u, (*part(parts, 0, b - a), *terms), values)
    s = summed(terms, values)
    deliver_all((out,), a, b, parts, how)
    return s


@njit(**INLINE)
def walk_sums(element, summed, lo, hi, out, ins, extra, partial, how, table, n, like, u):
    """Segments lo .. hi - 1 of rows of n elements, numbered row by row.

    element: makes the output's number, and the term of the sum where extra, a tuple, has a chunk for it. summed:
    `of_terms` or `of_errors`. ins: tuple of flat arrays. partial: the sums, written. table: (K, R), R = 1 for all
    rows. like: tuple of K. u: scalars. """
    parts, v, sums = chunks((out,)), cast(u, out), partial.reshape(-1)
    for k in range(lo, hi):
        sums[k] = one_segment(element, summed, k, out, ins, (), extra, parts, how, table, n, like, v)


def reduction(element, inputs, coefficients, vectors=False):
    """The kernel of an element function that returns its output and a term of a sum: kernel(lo, hi, how, table, n, u,
    partial, out, *ins).

    element: `element(c, u, *values)` as in `rowwise`. inputs: how many arrays, 1 to 3. coefficients: K of its table.
    vectors: for `wide`. """
    like = (0.0,) * coefficients

    def one(lo, hi, how, table, n, u, partial, out, a):
        if vectors:
            wide()
        walk_sums(element, of_terms, lo, hi, out, (a,), chunks((out,)), partial, how, table, n, like, u)

    def two(lo, hi, how, table, n, u, partial, out, a, b):
        if vectors:
            wide()
        walk_sums(element, of_terms, lo, hi, out, (a, b), chunks((out,)), partial, how, table, n, like, u)

    def three(lo, hi, how, table, n, u, partial, out, a, b, c):
        if vectors:
            wide()
        walk_sums(element, of_terms, lo, hi, out, (a, b, c), chunks((out,)), partial, how, table, n, like, u)

    return engine.compiled({1: one, 2: two, 3: three}[inputs], element)


def error_reduction(element, seeded=False):
    """The kernel of an element function of two values that returns its output only, summed `of_errors`: kernel(lo,
    hi, how, table, n, u, partial, out, a, b), where seeded with a key in place of b, whose noise is the second value.
    element: with one coefficient."""
    like = (0.0,)

    def errors(lo, hi, how, table, n, u, partial, out, a, b):
        walk_sums(element, of_errors, lo, hi, out, (a, b), (), partial, how, table, n, like, u)

    def noisy_errors(lo, hi, how, table, n, u, partial, out, a, key):
        wide()
        parts, noise = chunks((out,)), chunks((out,))
        for k in range(lo, hi):
            normal_chunk(noise[0], k * CHUNK, min((k + 1) * CHUNK, n), key)
            partial[k] = one_segment(element, of_errors, k, out, (a,), noise, (), parts, how, table, n, like, u)

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


def apply(kernel, rows, n, out, shape, dtype, table, *arrays, key=()):
    """One call of a kernel of `reduction` or `error_reduction` over rows of n elements.

    out: as the caller gave it. shape, dtype: of every array. table: (K, R). arrays: the inputs. key: of the noise.
    Returns the sums (rows,) float64 and the output.
    """
    flat = [engine.flat(a) for a in arrays]
    memory, how = engine.output(out, shape, dtype, *flat)
    partial = np.empty((rows, segments(n)))
    more = () if type(key) is tuple else (key,)
    engine.run_parts(kernel, partial.size, rows * n, how, table, n, (), partial.reshape(-1), memory, *flat, *more)
    return partial.sum(axis=1), engine.finish(memory, out, shape)
