"""The row loop: the loops over rows, chunks, noise and outputs, written once for every elementwise kernel.

An equation is an element function `equation(c, u, *values)`: c are the coefficients of its row, u the scalars of the
call, values the elements of the inputs at one index. It returns the element of the output, or a tuple of them.
`rowwise` makes a kernel of it, `apply` calls it.

A loop that stores to its own inputs is not vectorised, since the compiler cannot know that only equal indices overlap,
and takes three times as long. So such a result is computed in a chunk, in the first-level cache, and copied. A large
result is too: it is copied by stores that bypass the cache, which saves reading the output first. Everywhere else the
chunk would cost up to half as much again. An update in place, as of Adam, needs no chunk: its loop reads and writes the
same array variables, so the compiler does know."""
import inspect

import numpy as np

from kernels.numba_cpu import engine
from kernels.numba_cpu.arrays import as_tuple, chunks, column, each, item, number, pairs, put, read
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import CHUNK, DIRECT, ONTO, OVER, element, inner
from kernels.numba_cpu.intrinsics import deliver, wide
from kernels.numba_cpu.philox import normal_chunk, scratch


@inner
def fill(equation, c, u, count, outs, to, ins, at, noise, z):
    """outs[to + j] = equation(c, u, ins[at + j], noise[z + j]) for j < count. outs, ins, noise: tuples of arrays; outs
    overlap none of the others."""
    for j in range(count):
        values = equation(c, u, *each(read, ins, at, j), *each(read, noise, z, j))
        pairs(put, outs, as_tuple(values), to, j)


@inner
def fill_wide(equation, c, u, count, outs, to, ins, at, noise, z):
    """`fill` in 512-bit vectors: a third faster for a long equation, a tenth slower for one that waits for memory.
    equation, c, u, count, outs, to, ins, at, noise, z: as there."""
    wide()
    for j in range(count):
        values = equation(c, u, *each(read, ins, at, j), *each(read, noise, z, j))
        pairs(put, outs, as_tuple(values), to, j)


@inner
def _rows(loop, equation, lo, hi, outs, to, ins, noise, table, n, ks, u):
    """Elements lo .. hi - 1, a row of n at a time, so that its coefficients are scalars of the inner loop. loop: `fill`
    or `fill_wide`. outs: written from index `to` on. ins: whole arrays. noise: begins with that of element lo."""
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        loop(equation, column(table, row, ks, outs[0]), u, end - i, outs, to + i - lo, ins, i, noise, i - lo)
        i = end


@element
def _walk(equation, lo, hi, how, table, n, ks, u, outs, ins):
    _walk_by(fill, equation, lo, hi, how, table, n, ks, u, outs, ins)


@element
def _walk_wide(equation, lo, hi, how, table, n, ks, u, outs, ins):
    _walk_by(fill_wide, equation, lo, hi, how, table, n, ks, u, outs, ins)


@element
def _walk_by(loop, equation, lo, hi, how, table, n, ks, u, outs, ins):
    """`_rows`, directly into outs or by way of chunks."""
    v = each(number, u, outs[0])
    if how == DIRECT:
        _rows(loop, equation, lo, hi, outs, lo, ins, (), table, n, ks, v)
    else:
        parts = chunks(outs)
        for first in range(lo, hi, CHUNK):
            last = min(first + CHUNK, hi)
            _rows(loop, equation, first, last, parts, 0, ins, (), table, n, ks, v)
            pairs(deliver, outs, parts, first, last, how)


@inner
def _fill_onto(equation, c, u, lo, hi, outs, other):
    """outs[j] = equation(c, u, outs[0][j], other[j], outs[1][j], ...) for lo <= j < hi. outs: tuple of arrays. other:
    array, none of outs."""
    wide()
    for j in range(hi - lo):
        values = equation(c, u, item(outs[0], lo, j), read(other, lo, j), *each(item, outs[1:], lo, j))
        pairs(put, outs, as_tuple(values), lo, j)


@element
def _walk_state(equation, lo, hi, how, table, n, ks, u, outs, ins):
    """`_walk` of an update with one row of coefficients; with ONTO the outputs are its inputs but for the second."""
    if how == ONTO:
        _fill_onto(equation, column(table, 0, ks, outs[0]), each(number, u, outs[0]), lo, hi, outs, ins[1])
    else:
        _walk(equation, lo, hi, how, table, n, ks, u, outs, ins)


@element
def _walk_noisy(equation, lo, hi, how, table, n, ks, u, outs, ins):
    """`_walk` with the noise of a key, the last of ins, a chunk at a time in the first-level cache. An empty key means
    no noise: then every sigma is 0, the noise is never read, and the first input stands for it."""
    key, arrays = ins[-1], ins[:-1]
    if key.size == 0:
        _walk(equation, lo, hi, how, table, n, ks, u, outs, (*arrays, arrays[0]))
        return
    v, parts, noise, words = each(number, u, outs[0]), chunks(outs), chunks(outs), scratch()
    for first in range(lo, hi, CHUNK):
        last = min(first + CHUNK, hi)
        normal_chunk(noise[0], first, last, key, words)
        if how == DIRECT:
            _rows(fill, equation, first, last, outs, first, arrays, noise, table, n, ks, v)
        else:
            _rows(fill, equation, first, last, parts, 0, arrays, noise, table, n, ks, v)
            pairs(deliver, outs, parts, first, last, how)


def compiled(walk, equation, outs, ins, coefficients, vectors):
    """The kernel(lo, hi, how, table, n, u, *arrays) that walks over its arrays, outs of which are written. It takes as
    many arguments as there are arrays, since Numba needs 3 us to unpack a tuple of arrays.

    walk: like `_walk`. equation: an element function. outs, ins: how many arrays. coefficients: K of its table.
    vectors: for `wide`. It is named after its equation: Numba keeps what it compiled by name and line, and two
    processes that write to one name at once may exchange their code. Raises TypeError for an equation of other
    arguments."""
    takes = list(inspect.signature(equation).parameters)
    if takes[:2] != ["c", "u"] or len(takes) != 2 + ins:
        expected = f"(c, u, and a value of each of {ins} inputs)"
        raise TypeError(f"{equation.__name__}: expected the arguments {expected}, got ({', '.join(takes)})")
    ks = tuple(range(coefficients))

    def two(lo, hi, how, table, n, u, a, b):
        if vectors:
            wide()
        walk(equation, lo, hi, how, table, n, ks, u, (a,), (b,))

    def three(lo, hi, how, table, n, u, a, b, c):
        if vectors:
            wide()
        walk(equation, lo, hi, how, table, n, ks, u, (a, b, c)[:outs], (a, b, c)[outs:])

    def four(lo, hi, how, table, n, u, a, b, c, d):
        if vectors:
            wide()
        walk(equation, lo, hi, how, table, n, ks, u, (a, b, c, d)[:outs], (a, b, c, d)[outs:])

    def five(lo, hi, how, table, n, u, a, b, c, d, e):
        if vectors:
            wide()
        walk(equation, lo, hi, how, table, n, ks, u, (a, b, c, d, e)[:outs], (a, b, c, d, e)[outs:])

    def six(lo, hi, how, table, n, u, a, b, c, d, e, f):
        walk(equation, lo, hi, how, table, n, ks, u, (a, b), (c, d, e, f))

    def seven(lo, hi, how, table, n, u, a, b, c, d, e, f, g):
        if vectors:
            wide()
        walk(equation, lo, hi, how, table, n, ks, u, (a, b, c), (d, e, f, g))

    def nine(lo, hi, how, table, n, u, a, b, c, d, e, f, g, h, i):
        walk(equation, lo, hi, how, table, n, ks, u, (a, b, c, d), (e, f, g, h, i))

    kernel = {2: two, 3: three, 4: four, 5: five, 6: six, 7: seven, 9: nine}[outs + ins]
    kernel.__qualname__ = f"{equation.__module__.rpartition('.')[2]}_{equation.__name__}{walk.__name__}_{outs + ins}"
    return njit(**engine.COMPILE)(kernel)


def rowwise(equation, inputs, coefficients, outputs=1, vectors=False):
    """The kernel of an equation. inputs, outputs: how many arrays. coefficients, vectors: as in `compiled`."""
    return compiled(_walk_wide if vectors else _walk, equation, outputs, inputs, coefficients, vectors)


def update(equation, inputs, coefficients, outputs):
    """The kernel of an equation of one row of coefficients, whose outputs are new values of its inputs, in their order,
    but for the second input. Arguments as in `rowwise`."""
    return compiled(_walk_state, equation, outputs, inputs, coefficients, False)


def noisy(equation, inputs, coefficients):
    """The kernel of an equation whose last value is the noise of a key, which is the last input. inputs: how many
    without the noise. coefficients: as in `compiled`."""
    return compiled(_walk_noisy, equation, 1, inputs + 1, coefficients, True)


def apply(kernel, out, shape, dtype, table, *arrays, u=(), key=None, state=False):
    """One call of a kernel of `rowwise`, `update` or `noisy` with one output, which is returned.

    out: as the caller gave it. shape, dtype: of every array. table: (K, R). arrays: inputs. u: scalars. key: of the
    noise. state: whether kernel is of `update`."""
    ins = [engine.flat(a) for a in arrays]
    memory, how = engine.output(out, shape, dtype, *ins)
    if state and how == OVER and out is arrays[0] and not np.may_share_memory(memory, ins[1]):
        how = ONTO
    if key is not None:
        ins.append(key)
    size = memory.size
    engine.run(kernel, size, how, table, size // table.shape[1] if size else 1, u, memory, *ins)
    return engine.finish(memory, out, shape)


def apply_many(kernel, outputs, out, shape, dtype, table, *arrays, u=(), state=False):
    """`apply` with several outputs; returns a tuple. outputs: how many. out: a tuple, or None. state: whether kernel is
    of `update`. The rest as in `apply`."""
    ins, memory, ways = [engine.flat(a) for a in arrays], [], []
    if out is None:
        out = (None,) * outputs
    else:
        engine.apart(out)
    for place in out:
        flat, way = engine.output(place, shape, dtype, *ins)
        memory.append(flat)
        ways.append(way)
    how, size = max(ways), flat.size
    if state and min(ways) == OVER and all(o is a for o, a in zip(out, (arrays[0], *arrays[2:]))):
        how = OVER if any(np.may_share_memory(m, ins[1]) for m in memory) else ONTO
    engine.run(kernel, size, how, table, size // table.shape[1] if size else 1, u, *memory, *ins)
    return tuple([engine.finish(m, place, shape) for m, place in zip(memory, out)])
