"""The row loop: how rows, chunks, noise and outputs are walked, written once for every kernel that makes an element
from its own place.

An equation is an element function `element(c, u, *values)`: c are the coefficients of its row, u the scalars of the
call, values the inputs' numbers at one place. It returns the output's number, or a tuple of them. `rowwise` makes a
kernel of it, `apply` calls one.

A loop that stores over its own inputs is not vectorised (only equal indices meet, but the compiler cannot know) and
takes three times as long, so such a result goes by way of a chunk in the first-level cache. A large result does, too:
from there it is written around the cache, which saves reading it first. Everywhere else the chunk would cost up to
half as much again."""
from numba import njit

from kernels.numba_cpu import engine
from kernels.numba_cpu.arrays import as_tuple, chunk, column, each, item, number, pairs, part, put
from kernels.numba_cpu.engine import CHUNK, DIRECT, INLINE
from kernels.numba_cpu.intrinsics import deliver, wide
from kernels.numba_cpu.philox import normal_chunk


@njit(**INLINE)
def fill(element, c, u, outs, values):
    """outs = element(c, u, *values), element by element. outs, values: tuples of arrays of one length."""
    for j in range(outs[0].size):
        pairs(put, outs, as_tuple(element(c, u, *each(item, values, j))), j)


@njit(**INLINE)
def _rows(element, lo, hi, outs, ins, noise, table, n, ks, u):
    """Elements lo .. hi - 1, a row of n at a time, so that its coefficients are scalars of the inner loop. outs,
    noise: arrays whose first element is lo. ins: whole arrays."""
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        values = (*each(part, ins, i, end), *each(part, noise, i - lo, end - lo))
        fill(element, column(table, row, ks, outs[0]), u, each(part, outs, i - lo, end - lo), values)
        i = end


@njit(**INLINE)
def _walk(element, lo, hi, outs, ins, how, table, n, ks, u):
    """`_rows` into their place, or by way of chunks."""
    v = each(number, u, outs[0])
    if how == DIRECT:
        _rows(element, lo, hi, each(part, outs, lo, hi), ins, (), table, n, ks, v)
    else:
        parts = each(chunk, outs)
        for first in range(lo, hi, CHUNK):
            last = min(first + CHUNK, hi)
            _rows(element, first, last, parts, ins, (), table, n, ks, v)
            pairs(deliver, outs, parts, first, last, how)


@njit(**INLINE)
def _walk_noisy(element, lo, hi, outs, ins, key, how, table, n, ks, u):
    """`_walk` with one more input, the noise of key, a chunk at a time in the first-level cache. An empty key means
    no noise: then every sigma is 0, the noise is never read, and the first input stands for it."""
    if key.size == 0:
        _walk(element, lo, hi, outs, (*ins, ins[0]), how, table, n, ks, u)
        return
    v, parts, noise = each(number, u, outs[0]), each(chunk, outs), each(chunk, outs)
    for first in range(lo, hi, CHUNK):
        last = min(first + CHUNK, hi)
        normal_chunk(noise[0], first, last, key)
        if how == DIRECT:
            _rows(element, first, last, each(part, outs, first, last), ins, noise, table, n, ks, v)
        else:
            _rows(element, first, last, parts, ins, noise, table, n, ks, v)
            pairs(deliver, outs, parts, first, last, how)


def rowwise(element, inputs, coefficients, outputs=1, vectors=False):
    """The kernel of an element function: kernel(lo, hi, how, table, n, u, *outs, *ins). It takes as many arguments as
    there are arrays, since Numba needs 3 us to unpack a tuple of arrays.

    element: see above. inputs, outputs: how many arrays. coefficients: K of its table. vectors: for `wide`, of seven
    arrays."""
    ks = tuple(range(coefficients))

    def two(lo, hi, how, table, n, u, a, b):
        _walk(element, lo, hi, (a,), (b,), how, table, n, ks, u)

    def three(lo, hi, how, table, n, u, a, b, c):
        _walk(element, lo, hi, (a, b, c)[:outputs], (a, b, c)[outputs:], how, table, n, ks, u)

    def four(lo, hi, how, table, n, u, a, b, c, d):
        _walk(element, lo, hi, (a, b, c, d)[:outputs], (a, b, c, d)[outputs:], how, table, n, ks, u)

    def six(lo, hi, how, table, n, u, a, b, c, d, e, f):
        _walk(element, lo, hi, (a, b), (c, d, e, f), how, table, n, ks, u)

    def seven(lo, hi, how, table, n, u, a, b, c, d, e, f, g):
        if vectors:
            wide()
        _walk(element, lo, hi, (a, b, c), (d, e, f, g), how, table, n, ks, u)

    def nine(lo, hi, how, table, n, u, a, b, c, d, e, f, g, h, i):
        _walk(element, lo, hi, (a, b, c, d), (e, f, g, h, i), how, table, n, ks, u)

    return engine.compiled({2: two, 3: three, 4: four, 6: six, 7: seven, 9: nine}[inputs + outputs], element)


def noisy(element, inputs, coefficients):
    """The same for an element whose last value is the noise of a key: kernel(lo, hi, how, table, n, u, key, out, *ins).
    inputs: how many without the noise, 1 or 3. The rest as in `rowwise`."""
    ks = tuple(range(coefficients))

    def noisy_one(lo, hi, how, table, n, u, key, out, a):
        wide()
        _walk_noisy(element, lo, hi, (out,), (a,), key, how, table, n, ks, u)

    def noisy_three(lo, hi, how, table, n, u, key, out, a, b, c):
        wide()
        _walk_noisy(element, lo, hi, (out,), (a, b, c), key, how, table, n, ks, u)

    return engine.compiled({1: noisy_one, 3: noisy_three}[inputs], element)


def apply(kernel, out, shape, dtype, table, *arrays, u=(), key=()):
    """One call of a kernel of `rowwise` or `noisy` with one output, which is returned.

    out: as the caller gave it. shape, dtype: of every array. table: (K, R). arrays: inputs. u: scalars. key: of the
    noise."""
    flat = [engine.flat(a) for a in arrays]
    memory, how = engine.output(out, shape, dtype, *flat)
    more = (u,) if type(key) is tuple else (u, key)
    engine.run(kernel, memory.size, how, table, engine.row_size(memory, table), *more, memory, *flat)
    return engine.finish(memory, out, shape)


def apply_many(kernel, outputs, out, shape, dtype, table, *arrays, u=()):
    """The same with several outputs, a tuple. outputs: how many. out: a tuple, or None. The rest as in `apply`."""
    flat = [engine.flat(a) for a in arrays]
    places, memory, how = engine.outputs(out, outputs, shape, dtype, *flat)
    engine.run(kernel, memory[0].size, how, table, engine.row_size(memory[0], table), u, *memory, *flat)
    return tuple(engine.finish(m, place, shape) for m, place in zip(memory, places))
