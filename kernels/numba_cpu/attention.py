"""`ref.layers.attention` on the CPU, on the register tile of `matmul`, with a softmax between its two products.

The lanes are queries: scores are (keys, queries), so that the largest score and the sum of a query are those of a lane,
and the result (e, queries) needs rows for the head size alone, whatever it is. A block of KEYS keys goes from its
scores to its part of the result while it is in the first-level cache; the largest score so far is taken off, [Flash].
What a query gets depends on no other query.

Papers
    [Transformer]  Vaswani et al., "Attention Is All You Need", 2017
    [Flash]        Dao, Fu, Ermon, Rudra, Re, "FlashAttention: Fast and Memory-Efficient Exact Attention with
                   IO-Awareness", 2022
"""
import math
from collections import namedtuple

import numpy as np
from numba import float32
from numba.extending import overload

from kernels.numba_cpu import engine
from kernels.numba_cpu.arrays import item
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, INLINE, SUM, element
from kernels.numba_cpu.heads import delivered, located, place_of, result
from kernels.numba_cpu.intrinsics import wide
from kernels.numba_cpu.math import LEAST_EXPONENT, ZERO, exp2_parts, power_of_two
from kernels.numba_cpu.matmul import ROWS, Left, Right, lanes, lines, tile, tile_onto
from kernels.numba_cpu.panels import transpose

KEYS, FOUR = 128, 4  # keys at a time; of them in a round of the softmax


# Lengths and head sizes; the mask, flat, and what each axis of (B, heads, Lq, Lk) moves in it; whether there is one
Sizes = namedtuple("Sizes", "heads lq lk d e causal masked steps")
# Of a block: the head, its first and how many lanes, its first and how many rows. Lanes are queries and rows keys, or,
# turned round, the other way
Place = namedtuple("Place", "head first count begin rows turned")


def attention(q, k, v, mask=None, causal=False, out=None):
    """[Transformer] eq. 1 on the CPU, arguments as in `ref.layers.attention.attention`. out: an array, or None."""
    sizes, mask, dtype = checked(q, k, v, mask, causal)
    shape = (*q.shape[:3], sizes.e)
    arrays, steps = zip(*map(located, (q, k, v)))
    y = result(out, shape, q, arrays)
    memory, to = located(y)
    blocks = -(-sizes.lq // lanes(memory))
    work, parts = q[..., 0].size * sizes.lk * (sizes.d + sizes.e), math.prod(shape[:2]) * blocks
    y[..., : sizes.e if sizes.lk == 0 else 0] = 0
    engine.run(attend, work, memory, *arrays, mask, (to, *steps), sizes, blocks, parts=parts)
    return delivered(y, out)


def checked(q, k, v, mask, causal):
    """`Sizes`, the mask as flat bytes, and the dtype, after the check. q, k, v, mask, causal: as in `attention`."""
    _, dtype = engine.same(q=q)
    for name, a in (("k", k), ("v", v)):
        if engine.same(**{name: a})[1] != dtype:
            raise TypeError(f"{name}: expected a NumPy array of {dtype} like q, got {a.dtype}")
    if q.ndim != 4 or k.shape != (*q.shape[:2], *k.shape[2:3], q.shape[3]) or v.ndim != 4 or v.shape[:3] != k.shape[:3]:
        raise ValueError(f"expected q (B, heads, Lq, d), k (B, heads, Lk, d), v (B, heads, Lk, e), got q {q.shape}, "
                         f"k {k.shape}, v {v.shape}")  # fmt: skip
    weights = (*q.shape[:3], k.shape[2])
    if mask is None:
        flat, steps = np.empty(0, np.uint8), (0, 0, 0, 0)
    else:
        if type(mask) is not np.ndarray or mask.dtype != bool:
            raise TypeError(f"mask: expected a NumPy array of bools, got {getattr(mask, 'dtype', type(mask))}")
        if mask.ndim > 4 or any(m not in (1, n) for m, n in zip(mask.shape[::-1], weights[::-1])):
            raise ValueError(f"mask: expected a shape that broadcasts to {weights}, got {mask.shape}")
        whole = np.array(mask, order="C")
        flat, steps = whole.reshape(-1).view(np.uint8), np.broadcast_to(whole, weights).strides
    sizes = Sizes(q.shape[1], q.shape[2], k.shape[2], q.shape[3], v.shape[3], bool(causal), mask is not None, steps)
    return sizes, flat, dtype


# --- one element: of 2^h for h <= 0, since scores are times log2(e) ---------------------------------------------------


@element
def _weight32(h):
    p, n = exp2_parts(h)
    return ZERO if h < LEAST_EXPONENT else p * power_of_two(n)


@element
def _weight64(h):
    return 2.0**h


def weight(h):
    """2^h for h <= 0; in float32 0 where it has fewer digits. h: a number of the kernel's dtype."""
    return _weight32(h) if type(h) is np.float32 else _weight64(h)


@overload(weight, jit_options=INLINE)
def _(h):
    return _weight32 if h == float32 else _weight64


# --- a block of keys and queries --------------------------------------------------------------------------------------


@element
def sees(mask, sizes, head, query, key):
    """Whether a query sees a key. head: of all examples. mask, sizes: of `checked`."""
    if sizes.causal and key > query + sizes.lk - sizes.lq:
        return False
    b, h, i, j = sizes.steps
    return not sizes.masked or mask[head // sizes.heads * b + head % sizes.heads * h + query * i + key * j] != 0


@njit(**INLINE)
def scores(s, width, k, qt, keys, d):
    """s (keys, width) = k q^T. k: `Left` of keys x d. qt: (d, width), flat."""
    for i in range(0, keys, ROWS):
        for j in range(0, width, lanes(s)):
            left = Left(k.array, k.first + i * k.row, k.row, k.step)
            tile(s, i * width + j, width, left, min(ROWS, keys - i), Right(qt, j, width), d)


@element
def sees_row(mask, sizes, head, row, lane, turned):
    """`sees` of a key, the row, and a query, the lane, or turned round. mask, sizes, head: as there."""
    return sees(mask, sizes, head, row, lane) if turned else sees(mask, sizes, head, lane, row)


@njit(**INLINE)
def hide(s, width, place, mask, sizes, nothing):
    """nothing, a number, in the place of what is not seen in s (rows, width). place: `Place`. mask, sizes: of
    `checked`."""
    head, first, count, begin, rows, turned = place
    b, h, of_query, of_key = sizes.steps
    down, across = (of_query, of_key) if turned else (of_key, of_query)
    corner = head // sizes.heads * b + head % sizes.heads * h + begin * down + first * across
    for i in range(rows):
        row, at = s[i * width : (i + 1) * width], begin + i
        if sizes.causal and turned:
            row[max(0, min(count, at + 1 - first + sizes.lk - sizes.lq)) : count] = nothing
        elif sizes.causal:
            row[: max(0, min(count, at - first - sizes.lk + sizes.lq))] = nothing
        if sizes.masked and across == 0:  # the same for all lanes
            row[: 0 if mask[corner + i * down] else count] = nothing
        elif sizes.masked:
            for j in range(count):
                row[j] = row[j] if item(mask, corner + i * down, j * across) else nothing


@njit(**INLINE)
def softmax(s, width, keys, top, highest, total, shrink):
    """s (keys, width) = 2^(s - top) for the largest score so far, top, whose sum goes on in total; shrink is what the
    sums before this block are to be multiplied by. keys: a multiple of FOUR. top, highest, total, shrink: (width,)."""
    wide()
    zero, least = s.dtype.type(0), s.dtype.type(-np.inf)
    for j in range(width):
        highest[j] = top[j]
    for i in range(0, keys, FOUR):
        a, b, c, d = rows_of(s, width, i)
        for j in range(width):
            m = larger(larger(a[j], b[j]), larger(c[j], d[j]))
            highest[j] = larger(m, highest[j])
    for j in range(width):
        before, top[j] = top[j], highest[j]
        highest[j] = zero if highest[j] == least else highest[j]
        shrink[j] = weight(before - highest[j])
        total[j] *= shrink[j]
    for i in range(0, keys, FOUR):
        a, b, c, d = rows_of(s, width, i)
        for j in range(width):
            m = highest[j]
            x, y, z, w = weight(a[j] - m), weight(b[j] - m), weight(c[j] - m), weight(d[j] - m)
            a[j], b[j], c[j], d[j] = x, y, z, w
            total[j] += (x + y) + (z + w)


@element
def rows_of(s, width, i):
    """FOUR rows from i on of s (keys, width)."""
    at = i * width
    a, b = s[at : at + width], s[at + width : at + 2 * width]
    return a, b, s[at + 2 * width : at + 3 * width], s[at + 3 * width : at + 4 * width]


@element
def larger(x, y):
    """The larger one; y where x is NaN."""
    return x if x > y else y


@njit(**SUM)
def spoiled(x):
    """Whether there is a NaN or an infinity in x. x: numbers."""
    s = x.dtype.type(0)
    for j in range(x.size):
        s += x[j] * x.dtype.type(0)
    return s != s


@njit(**INLINE)
def mix_seen(o, width, v, s, e, place, mask, sizes):
    """`mix`, in which a NaN or an infinity that is not seen plays no part. o, width, v, s, e: as in `mix`. place, mask,
    sizes: as in `hide`."""
    head, first, count, begin, rows, turned = place
    spoilt = False
    for i in range(rows):
        at = v.first + i * v.step
        spoilt |= spoiled(v.array[at : at + e])
    if not spoilt:
        mix(o, width, v, s, rows, e)
        return
    clean = np.empty(rows * e, s.dtype)
    for i in range(clean.size):
        x = v.array[v.first + i // e * v.step + i % e]
        clean[i] = x if math.isfinite(x) else s.dtype.type(0)
    mix(o, width, Left(clean, 0, 1, e), s, rows, e)
    for i in range(clean.size):
        x = v.array[v.first + i // e * v.step + i % e]
        if not math.isfinite(x):
            for j in range(count):
                if sees_row(mask, sizes, head, begin + i // e, first + j, turned):
                    o[i % e * width + j] += s[i // e * width + j] * x


@njit(**INLINE)
def mix(o, width, v, s, keys, e):
    """o (e, width) += v^T s. v: `Left` of e x keys. s: (keys, width), flat. o has room for whole tiles."""
    for i in range(0, e, ROWS):
        for j in range(0, width, lanes(o)):
            left = Left(v.array, v.first + i * v.row, v.row, v.step)
            tile_onto(o, i * width + j, width, left, min(ROWS, e - i), Right(s, j, width), keys)


@element
def multiply(o, width, factor, e):
    """o (e, width) *= factor (width,), where that is not 1 everywhere."""
    wide()
    one, same = o.dtype.type(1), True
    for j in range(width):
        same &= factor[j] == one
    if not same:
        for i in range(e):
            row = o[i * width : (i + 1) * width]
            for j in range(width):
                row[j] *= factor[j]


@njit(**COMPILE)
def attend(lo, hi, out, q, k, v, mask, steps, sizes, blocks):
    """`attention` of the blocks lo .. hi - 1 of queries, `blocks` a head. out, q, k, v: flat. steps: of
    these four, of `located`. mask, sizes: of `checked`."""
    wide()
    _, lq, lk, d, e = sizes[:5]
    of_out, of_q, of_k, of_v = steps
    width, root, least = lanes(q), q.dtype.type(1 / math.log(2) / math.sqrt(d)), q.dtype.type(-np.inf)
    qt, s, o = lines(d * width, q), lines(KEYS * width, q), lines(-(-e // ROWS) * ROWS * width, q)
    top, highest, total, shrink = lines(width, q), lines(width, q), lines(width, q), lines(width, q)
    for block in range(lo, hi):
        head, first = block // blocks, block % blocks * width
        count = min(width, lq - first)
        transpose(qt, width, q[place_of(of_q, sizes.heads, head, first) :], of_q[2], count, d)
        for i in range(qt.size):
            qt[i] *= root
        top[:], total[:], o[:] = least, 0, 0
        end = min(lk, first + count + lk - lq) if sizes.causal else lk
        for begin in range(0, end, KEYS):
            keys, values = min(KEYS, end - begin), Left(v, place_of(of_v, sizes.heads, head, begin), 1, of_v[2])
            scores(s, width, Left(k, place_of(of_k, sizes.heads, head, begin), of_k[2], 1), qt, keys, d)
            place = Place(head, first, count, begin, keys, False)
            hidden = sizes.masked or sizes.causal and begin + keys > first + lk - lq
            if hidden:
                hide(s, width, place, mask, sizes, least)
            s[keys * width : -(-keys // FOUR) * FOUR * width] = least
            softmax(s, width, keys, top, highest, total, shrink)
            multiply(o, width, shrink, e)
            if hidden:
                mix_seen(o, width, values, s, e, place, mask, sizes)
            else:
                mix(o, width, values, s, keys, e)
        for j in range(width):
            total[j] = 1 / (1 if total[j] == 0 else total[j])
        multiply(o, width, total, e)
        transpose(out[place_of(of_out, sizes.heads, head, first) :], of_out[2], o, width, e, count)
