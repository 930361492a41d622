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
from kernels.numba_cpu.engine import COMPILE, INLINE, OVER
from kernels.numba_cpu.intrinsics import wide
from kernels.numba_cpu.matmul import ROWS, Left, lanes, lines
from kernels.numba_cpu.mlp import transpose


def attention_backward(dy, q, k, v, mask=None, causal=False, out=None):
    """Gradients of `attention` on the CPU, arguments as in `ref.layers.attention.attention_backward` and
    `ref.layers.attention.attention`. out: three arrays, or None."""
    sizes, mask, dtype = checked(q, k, v, mask, causal)
    upstream = engine.like("dy", dy, dtype, (*q.shape[:3], sizes.e))
    out = (None,) * 3 if out is None else out
    engine.apart(out)
    ins = upstream, *(engine.flat(a) for a in (q, k, v))
    memory = []
    for place, a in zip(out, (q, k, v)):
        flat, how = engine.output(place, a.shape, dtype, *ins)
        memory.append(np.zeros(flat.size, dtype) if how == OVER else flat)
        memory[-1][: flat.size if q.size == 0 or k.size == 0 or v.size == 0 else 0] = 0
    dq, dk, dv = memory
    scaled = ins[1] * dtype.type(1 / math.log(2) / math.sqrt(max(1, sizes.d)))  # scores are exponents of 2
    heads, width = math.prod(q.shape[:2]), lanes(upstream)
    stats = np.empty((3, heads * sizes.lq), dtype)
    work = heads * sizes.lq * sizes.lk * (sizes.d + sizes.e)
    for kernel, results, length in ((queries, (dq,), sizes.lq), (keys, (dk, dv), sizes.lk)):
        blocks = -(-length // width)
        engine.run(kernel, work, *results, stats, upstream, scaled, *ins[2:], mask, sizes, blocks, parts=heads * blocks)
    return tuple(engine.finish(m, place, a.shape) for m, place, a in zip(memory, out, (q, k, v)))


@njit(**COMPILE)
def queries(lo, hi, dq, stats, dy, q, k, v, mask, sizes, blocks):
    """dq of the blocks lo .. hi - 1 of queries, `blocks` a head, and stats (3, queries): what is taken off the scores,
    1 over the sum of their powers, and the mean of dp. dq, dy, q, k, v: flat, q times log2(e) / sqrt(d). mask, sizes:
    of `checked`."""
    wide()
    _, lq, lk, d, e = sizes[:5]
    width, least, none = lanes(q), q.dtype.type(-np.inf), q.dtype.type(0)
    room = -(-lk // ROWS) * ROWS * width
    qt, gt, s, g = lines(d * width, q), lines(e * width, q), lines(room, q), lines(room, q)
    o, (top, highest, total, shrink) = lines(-(-d // ROWS) * ROWS * width, q), stats_of(q)
    for block in range(lo, hi):
        head, first = block // blocks, block % blocks * width
        count, at = min(width, lq - first), block // blocks * lq + first
        transpose(qt, width, q[at * d :], d, count, d)
        transpose(gt, width, dy[at * e :], e, count, e)
        top[:], total[:], o[:] = least, none, none
        end = max(0, min(lk, first + count + lk - lq)) if sizes.causal else lk
        place = Place(head, first, count, 0, end, False)
        scores(s, width, Left(k, head * lk * d, d, 1), qt, end, d)
        scores(g, width, Left(v, head * lk * e, e, 1), gt, end, e)
        if sizes.masked or sizes.causal:
            hide(s, width, place, mask, sizes, least)
            hide(g, width, place, mask, sizes, none)
        s[end * width : -(-end // FOUR) * FOUR * width] = least
        softmax(s, width, -(-end // FOUR) * FOUR, top, highest, total, shrink)
        slopes(s, g, width, end, total, shrink)
        for begin in range(0, end, KEYS):
            rows, from_k = min(KEYS, end - begin), (head * lk + begin) * d
            if sizes.masked or sizes.causal:
                place = Place(head, first, count, begin, rows, False)
                part = s[begin * width : (begin + rows) * width]
                mix_seen(o, width, k[from_k : from_k + rows * d], part, d, place, mask, sizes)
            else:
                mix(o, width, Left(k, from_k, 1, d), s[begin * width :], rows, d)
        for j in range(count):
            stats[0, at + j], stats[1, at + j], stats[2, at + j] = highest[j], total[j], shrink[j]
        highest[:] = q.dtype.type(1 / math.sqrt(d))
        multiply(o, width, highest, d)
        transpose(dq[at * d :], d, o, width, d, count)


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
def keys(lo, hi, dk, dv, stats, dy, q, k, v, mask, sizes, blocks):
    """dk and dv of the blocks lo .. hi - 1 of keys, `blocks` a head. dk, dv: flat. The rest as in `queries`."""
    wide()
    _, lq, lk, d, e = sizes[:5]
    width, least, none = lanes(q), q.dtype.type(-np.inf), q.dtype.type(0)
    kt, vt, s, g = lines(d * width, q), lines(e * width, q), lines(KEYS * width, q), lines(KEYS * width, q)
    ok, ov = lines(-(-d // ROWS) * ROWS * width, q), lines(-(-e // ROWS) * ROWS * width, q)
    factor = lines(width, q)
    factor[:] = q.dtype.type(math.log(2))  # of q
    for block in range(lo, hi):
        head, first = block // blocks, block % blocks * width
        count, to = min(width, lk - first), block // blocks * lk + first
        transpose(kt, width, k[to * d :], d, count, d)
        transpose(vt, width, v[to * e :], e, count, e)
        ok[:], ov[:] = none, none
        for begin in range(max(0, first + lq - lk) if sizes.causal else 0, lq, KEYS):
            rows, at = min(KEYS, lq - begin), head * lq + begin
            place = Place(head, first, count, begin, rows, True)
            scores(s, width, Left(q, at * d, d, 1), kt, rows, d)
            scores(g, width, Left(dy, at * e, e, 1), vt, rows, e)
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
            mix(ov, width, Left(dy, at * e, 1, e), s, rows, e)
            if hidden:
                mix_seen(ok, width, q[at * d : (at + rows) * d], g, d, place, mask, sizes)
            else:
                mix(ok, width, Left(q, at * d, 1, d), g, rows, d)
        multiply(ok, width, factor, d)
        transpose(dk[to * d :], d, ok, width, d, count)
        transpose(dv[to * e :], e, ov, width, e, count)
