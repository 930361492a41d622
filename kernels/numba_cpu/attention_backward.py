"""The gradient of `ref.layers.attention` on the CPU. Weights are made twice: once with queries as the lanes, for dq,
and once with keys as the lanes, for dk and dv, from the largest score, the sum and the mean of dp that the first time
left for each query. So each gradient is summed by one thread, in one order.
"""
import math

import numpy as np

from kernels.numba_cpu import engine
from kernels.numba_cpu.attention import (
    FOUR, KEYS, Place, checked, hide, mix, mix_seen, multiply, scores, softmax, weight,
)  # fmt: skip
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, INLINE, element
from kernels.numba_cpu.heads import delivered, located, place_of, result
from kernels.numba_cpu.intrinsics import wide
from kernels.numba_cpu.matmul import ROWS, Left, lanes, lines
from kernels.numba_cpu.panels import transpose


def attention_backward(dy, q, k, v, mask=None, causal=False, out=None):
    """Gradients of `attention` on the CPU, arguments as in `ref.layers.attention.attention_backward` and
    `ref.layers.attention.attention`. out: three arrays, or None."""
    sizes, mask, dtype = checked(q, k, v, mask, causal)
    engine.like("dy", dy, dtype, (*q.shape[:3], sizes.e))
    out = (None,) * 3 if out is None else out
    engine.apart(out)
    ins, steps = zip(*map(located, (dy, q, k, v)))
    given = [result(place, a.shape, a, ins) for place, a in zip(out, (q, k, v))]
    for d in given:
        d[..., : d.shape[3] if q.size == 0 or k.size == 0 or v.size == 0 else 0] = 0
    (dq, *to), (dk, *to_k), (dv, *to_v) = map(located, given)
    heads, width = math.prod(q.shape[:2]), lanes(dq)
    stats = np.empty((3, heads * sizes.lq), dtype)
    work = heads * sizes.lq * sizes.lk * (sizes.d + sizes.e)
    for kernel, results, where, length in (
        (queries, (dq,), (*to, *steps), sizes.lq), (keys, (dk, dv), (*to_k, *to_v, *steps), sizes.lk),
    ):  # fmt: skip
        blocks = -(-length // width)
        engine.run(kernel, work, *results, stats, *ins, mask, where, sizes, blocks, parts=heads * blocks)
    return tuple(delivered(d, place) for d, place in zip(given, out))


@njit(**COMPILE)
def queries(lo, hi, dq, stats, dy, q, k, v, mask, steps, sizes, blocks):
    """dq of the blocks lo .. hi - 1 of queries, `blocks` a head, and stats (3, queries): what is taken off the scores,
    1 over the sum of their powers, and the mean of dp. dq, dy, q, k, v: flat. steps: of these five,
    of `located`. mask, sizes: of `checked`."""
    wide()
    _, lq, lk, d, e = sizes[:5]
    of_dq, of_dy, of_q, of_k, of_v = steps
    width, least, none, root = lanes(q), q.dtype.type(-np.inf), q.dtype.type(0), exponents(q, d)
    room = -(-lk // ROWS) * ROWS * width
    qt, gt, s, g = lines(d * width, q), lines(e * width, q), lines(room, q), lines(room, q)
    o, (top, highest, total, shrink) = lines(-(-d // ROWS) * ROWS * width, q), stats_of(q)
    for block in range(lo, hi):
        head, first = block // blocks, block % blocks * width
        count, at = min(width, lq - first), block // blocks * lq + first
        transpose(qt, width, q[place_of(of_q, sizes.heads, head, first) :], of_q[2], count, d)
        transpose(gt, width, dy[place_of(of_dy, sizes.heads, head, first) :], of_dy[2], count, e)
        for i in range(qt.size):
            qt[i] *= root
        top[:], total[:], o[:] = least, none, none
        end = max(0, min(lk, first + count + lk - lq)) if sizes.causal else lk
        place = Place(head, first, count, 0, end, False)
        scores(s, width, Left(k, place_of(of_k, sizes.heads, head, 0), of_k[2], 1), qt, end, d)
        scores(g, width, Left(v, place_of(of_v, sizes.heads, head, 0), of_v[2], 1), gt, end, e)
        if sizes.masked or sizes.causal:
            hide(s, width, place, mask, sizes, least)
            hide(g, width, place, mask, sizes, none)
        s[end * width : -(-end // FOUR) * FOUR * width] = least
        softmax(s, width, -(-end // FOUR) * FOUR, top, highest, total, shrink)
        slopes(s, g, width, end, total, shrink)
        for begin in range(0, end, KEYS):
            rows, terms = min(KEYS, end - begin), Left(k, place_of(of_k, sizes.heads, head, begin), 1, of_k[2])
            if sizes.masked or sizes.causal:
                place = Place(head, first, count, begin, rows, False)
                mix_seen(o, width, terms, s[begin * width : (begin + rows) * width], d, place, mask, sizes)
            else:
                mix(o, width, terms, s[begin * width :], rows, d)
        for j in range(count):
            stats[0, at + j], stats[1, at + j], stats[2, at + j] = highest[j], total[j], shrink[j]
        highest[:] = q.dtype.type(1 / math.sqrt(d))
        multiply(o, width, highest, d)
        transpose(dq[place_of(of_dq, sizes.heads, head, first) :], of_dq[2], o, width, d, count)


@element
def exponents(like, d):
    """What makes exponents of 2 of q k^T: log2(e) / sqrt(d), of like's dtype. like: array. d: int."""
    return like.dtype.type(1 / math.log(2) / math.sqrt(max(1, d)))


@njit(**INLINE)
def stats_of(like):
    """Four numbers for each lane. like: array."""
    width = lanes(like)
    return lines(width, like), lines(width, like), lines(width, like), lines(width, like)


@njit(**INLINE)
def slopes(s, g, width, rows, total, mean):
    """s = p (dp - mean), where s holds powers, g dp, (rows, width), and the mean is that of dp by the weights p, s over
    its sum, total, which becomes 1 over it. total, mean: (width,)."""
    wide()
    one = s.dtype.type(1)
    for j in range(width):
        total[j] = one / (one if total[j] == 0 else total[j])
        mean[j] = 0
    for i in range(rows):
        p, dp = s[i * width : (i + 1) * width], g[i * width : (i + 1) * width]
        for j in range(width):
            p[j] *= total[j]
            mean[j] += p[j] * dp[j]
    for i in range(rows):
        p, dp = s[i * width : (i + 1) * width], g[i * width : (i + 1) * width]
        for j in range(width):
            p[j] *= dp[j] - mean[j]


@njit(**COMPILE)
def keys(lo, hi, dk, dv, stats, dy, q, k, v, mask, steps, sizes, blocks):
    """dk and dv of the blocks lo .. hi - 1 of keys, `blocks` a head. dk, dv: flat. steps: of these two and
    of dy, q, k, v. The rest as in `queries`."""
    wide()
    _, lq, lk, d, e = sizes[:5]
    of_dk, of_dv, of_dy, of_q, of_k, of_v = steps
    width, least, none, root = lanes(q), q.dtype.type(-np.inf), q.dtype.type(0), exponents(q, d)
    kt, vt, s, g = lines(d * width, q), lines(e * width, q), lines(KEYS * width, q), lines(KEYS * width, q)
    ok, ov = lines(-(-d // ROWS) * ROWS * width, q), lines(-(-e // ROWS) * ROWS * width, q)
    factor = lines(width, q)
    factor[:] = q.dtype.type(1 / math.sqrt(max(1, d)))
    for block in range(lo, hi):
        head, first = block // blocks, block % blocks * width
        count = min(width, lk - first)
        transpose(kt, width, k[place_of(of_k, sizes.heads, head, first) :], of_k[2], count, d)
        transpose(vt, width, v[place_of(of_v, sizes.heads, head, first) :], of_v[2], count, e)
        for i in range(kt.size):
            kt[i] *= root
        ok[:], ov[:] = none, none
        for begin in range(max(0, first + lq - lk) if sizes.causal else 0, lq, KEYS):
            rows, at = min(KEYS, lq - begin), head * lq + begin
            from_q, from_dy = place_of(of_q, sizes.heads, head, begin), place_of(of_dy, sizes.heads, head, begin)
            place = Place(head, first, count, begin, rows, True)
            scores(s, width, Left(q, from_q, of_q[2], 1), kt, rows, d)
            scores(g, width, Left(dy, from_dy, of_dy[2], 1), vt, rows, e)
            hidden = sizes.masked or sizes.causal and begin + lk - lq < first + count
            if hidden:
                hide(s, width, place, mask, sizes, least)
                hide(g, width, place, mask, sizes, none)
            for i in range(rows):
                p, ds, here = s[i * width : (i + 1) * width], g[i * width : (i + 1) * width], at + i
                top, over, mean = stats[0, here], stats[1, here], stats[2, here]
                for j in range(width):
                    p[j] = weight(p[j] - top) * over
                    ds[j] = p[j] * (ds[j] - mean)
            mix(ov, width, Left(dy, from_dy, 1, of_dy[2]), s, rows, e)
            if hidden:
                mix_seen(ok, width, Left(q, from_q, 1, of_q[2]), g, d, place, mask, sizes)
            else:
                mix(ok, width, Left(q, from_q, 1, of_q[2]), g, rows, d)
        multiply(ok, width, factor, d)
        transpose(dk[place_of(of_dk, sizes.heads, head, first) :], of_dk[2], ok, width, d, count)
        transpose(dv[place_of(of_dv, sizes.heads, head, first) :], of_dv[2], ov, width, e, count)
