"""Tuples of arrays inside kernels, so that a loop is written once for any number of inputs and outputs: `each` and
`pairs` have a plain body, and one that the compiler unrolls."""
import numpy as np
from numba.extending import overload
from numba import types, uint64

from kernels.numba_cpu.engine import CHUNK, INLINE, element
from kernels.numba_cpu.intrinsics import load, store


def each(f, xs, *args):
    """(f(x, *args) for each x), a tuple. f: an element function. xs: tuple. args: of every call."""
    return tuple(f(x, *args) for x in xs)


@overload(each, jit_options=INLINE)
def _(f, xs, *args):
    # written out at once: each round of a recursion would be compiled by itself
    calls = "".join(f"f(xs[{i}], *args), " for i in range(len(xs)))
    return eval(f"lambda f, xs, *args: ({calls})")


def pairs(f, xs, ys, *args):
    """f(x, y, *args) for the pairs of two tuples. f: an element function. xs, ys: tuples of one length. args: of
    every call."""
    for x, y in zip(xs, ys, strict=True):
        f(x, y, *args)


@overload(pairs, jit_options=INLINE)
def _(f, xs, ys, *args):
    calls = "".join(f"f(xs[{i}], ys[{i}], *args), " for i in range(len(xs)))
    return eval(f"lambda f, xs, ys, *args: ({calls})")


def as_tuple(values):
    """values, or a tuple of it where it is one number. values: tuple or number."""
    return values if type(values) is tuple else (values,)


@overload(as_tuple, jit_options=INLINE)
def _(values):
    return (lambda values: values) if isinstance(values, types.BaseTuple) else lambda values: (values,)


@element
def item(a, first, j):
    """a[first + j]. a: array. first, j: ints >= 0: unsigned, no index counts from the end."""
    return a[uint64(first) + uint64(j)]


@element
def read(a, first, j):
    """a[first + j], where no `put` writes. a, first, j: as in `item`."""
    return load(a, uint64(first) + uint64(j))


@element
def put(a, value, first, j):
    """a[first + j] = value, where no `read` reads. a: array. value: number. first, j: as in `item`."""
    store(a, uint64(first) + uint64(j), value)


def chunks(outs):
    """CHUNK elements for each of outs: rows of one array, so that the compiler has fewer arrays to tell apart."""
    return tuple(np.empty((len(outs), CHUNK), outs[0].dtype))


@overload(chunks, jit_options=INLINE)
def _(outs):
    count, rows = len(outs), tuple(range(len(outs)))
    return lambda outs: each(row_of, rows, np.empty((count, CHUNK), outs[0].dtype))


@element
def row_of(k, a):
    """a[k]. k: int. a: array."""
    return a[k]


@element
def number(x, out):
    """x in out's dtype. x: number. out: array."""
    return out.dtype.type(x)


@element
def entry(k, table, row, out):
    """table[k, row] in out's dtype. k, row: ints. table: (K, R). out: array."""
    return out.dtype.type(table[k, row])


@element
def column(table, row, ks, out):
    """Column `row` of a coefficient table as numbers of out's dtype. table: (K, R). row: int. ks: (0, ..., K - 1).
    out: array."""
    return each(entry, ks, table, row, out)
