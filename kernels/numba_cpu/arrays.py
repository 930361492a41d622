"""Tuples of arrays inside kernels. Each function has a plain body and one that the compiler unrolls, so that a loop
is written once for any number of inputs and outputs."""
import numpy as np
from numba import types
from numba.extending import overload

from kernels.numba_cpu.engine import CHUNK, INLINE
from kernels.numba_cpu.intrinsics import deliver


def at(arrays, j):
    """The number of each array at j, a tuple. arrays: tuple. j: int."""
    return tuple(a[j] for a in arrays)


@overload(at, jit_options=INLINE)
def _(arrays, j):
    if len(arrays) == 0:
        return lambda arrays, j: ()
    return lambda arrays, j: (arrays[0][j], *at(arrays[1:], j))


def part(arrays, lo, hi):
    """The elements lo .. hi - 1 of each array, a tuple. arrays: tuple. lo, hi: ints."""
    return tuple(a[lo:hi] for a in arrays)


@overload(part, jit_options=INLINE)
def _(arrays, lo, hi):
    if len(arrays) == 0:
        return lambda arrays, lo, hi: ()
    return lambda arrays, lo, hi: (arrays[0][lo:hi], *part(arrays[1:], lo, hi))


def put(arrays, j, values):
    """arrays[k][j] = values[k]. arrays: tuple. j: int. values: a tuple, or one number for one array."""
    for a, value in zip(arrays, values if type(values) is tuple else (values,), strict=True):
        a[j] = value


@overload(put, jit_options=INLINE)
def _(arrays, j, values):
    def one(arrays, j, values):
        arrays[0][j] = values

    def several(arrays, j, values):
        arrays[0][j] = values[0]
        put(arrays[1:], j, values[1:])

    if not isinstance(values, types.BaseTuple):
        return one
    return several if len(arrays) else lambda arrays, j, values: None


def chunks(arrays):
    """An array of CHUNK elements for each array, a tuple. arrays: tuple."""
    return tuple(np.empty(CHUNK, a.dtype) for a in arrays)


@overload(chunks, jit_options=INLINE)
def _(arrays):
    if len(arrays) == 0:
        return lambda arrays: ()
    return lambda arrays: (np.empty(CHUNK, arrays[0].dtype), *chunks(arrays[1:]))


def deliver_all(outs, first, last, parts, how):
    """`deliver` each part. outs, parts: tuples. first, last, how: as in `deliver`."""
    for out, chunk in zip(outs, parts):
        deliver(out, first, last, chunk, how)


@overload(deliver_all, jit_options=INLINE)
def _(outs, first, last, parts, how):
    def several(outs, first, last, parts, how):
        deliver(outs[0], first, last, parts[0], how)
        deliver_all(outs[1:], first, last, parts[1:], how)

    return several if len(outs) else lambda outs, first, last, parts, how: None


def column(table, row, like, out):
    """Column `row` of a coefficient table as a tuple of numbers of out's dtype. table: (K, R). row: int. like: a
    tuple of K. out: array."""
    return tuple(out.dtype.type(table[k, row]) for k in range(len(like)))


@overload(column, jit_options=INLINE)
def _(table, row, like, out):
    k = len(like) - 1
    if k < 0:
        return lambda table, row, like, out: ()
    return lambda table, row, like, out: (*column(table, row, like[1:], out), out.dtype.type(table[k, row]))


def cast(u, out):
    """The numbers of u in out's dtype, a tuple. u: tuple. out: array."""
    return tuple(out.dtype.type(x) for x in u)


@overload(cast, jit_options=INLINE)
def _(u, out):
    if len(u) == 0:
        return lambda u, out: ()
    return lambda u, out: (out.dtype.type(u[0]), *cast(u[1:], out))
