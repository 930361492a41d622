"""The gradient of `ref.layers.attention` on the GPU, [Flash2] algorithm 2 without its atomic sums: dk and dv are summed
by a program that goes along the queries, dq by one that goes along the keys, so every run has the same bits.

The weights are made again from log2 of each query's sum, which `attention` leaves in its `scratch`, and from
delta = sum(dy y); where they are not given a pass along the keys makes both.

Papers
    [Flash2]  Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", 2023
"""
import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu import arrays as memory
from kernels.triton_gpu import launch
from kernels.triton_gpu.arrays import read
from kernels.triton_gpu.layers.attention import (
    LOG2E, block_of, call_of, given_to, keys_seen, seen_by, start, tiles_of,
)  # fmt: skip
from kernels.triton_gpu.layers.tiles import like, product, put, scaled, scores, tiles, zeros
from kernels.triton_gpu.layers.vectors import given, written

INF = tl.constexpr(float("inf"))
# of a program: its rows, those it takes at a time, warps, stages, as in `attention`
ALONG_QUERIES = {True: [(64, 128, 4, 2), (64, 64, 4, 2), (32, 32, 4, 1)],
                 False: [(32, 32, 4, 1), (32, 16, 4, 1), (32, 16, 4, 1)]}  # fmt: skip
ALONG_KEYS = {True: [(128, 64, 8, 3), (128, 64, 8, 3), (64, 32, 4, 1)],
              False: [(32, 32, 4, 1), (32, 16, 4, 1), (32, 16, 4, 1)]}  # fmt: skip


def attention_backward(dy, q, k, v, mask=None, causal=False, out=None, scratch=None):
    """Gradients of `attention`; arguments as in `ref.layers.attention.attention_backward`. out: three arrays, apart
    from the inputs. scratch: (y, scratch) of `attention`, or None."""
    c = call_of(q, k, v, mask)
    (upstream,) = given(c.q, (c.b, c.heads, c.lq, c.e), dy=dy)
    wanted = [("out[0]", c.q), ("out[1]", c.k), ("out[2]", c.v)]
    outs = [written(name, None if out is None else out[i], a, a.shape) for i, (name, a) in enumerate(wanted)]
    inputs = [(a.pointers[0], a.size) for a in (c.q, c.k, c.v)] + [(upstream, c.b * c.heads * c.lq * c.e)]
    for (_, pointer), (_, a) in zip(outs, wanted):
        for place in (*inputs, *((p, b.size) for (_, p), (_, b) in zip(outs, wanted) if p is not pointer)):
            memory.apart((pointer, a.size), place)
    logs, delta = _sums(c, upstream, causal, scratch)
    constants = dict(D=c.d, E=c.e, CAUSAL=bool(causal))
    ins = given_to(c, upstream, logs, delta), LOG2E * c.d**-0.5, c.d**-0.5
    keys, queries, warps, stages = tiles_of(c, ALONG_QUERIES, c.lk, c.lq)
    start(
        _of_keys, launch.programs(c.lk, keys) * c.b * c.heads, c.q, outs[1][1], outs[2][1], *ins,
        **constants, M=queries, N=keys, STAGES=stages, warps=warps,
    )  # fmt: skip
    queries, keys, warps, stages = tiles_of(c, ALONG_KEYS, c.lq, c.lk)
    start(
        _of_queries, launch.programs(c.lq, queries) * c.b * c.heads, c.q, outs[0][1], None, *ins,
        **constants, TAIL=c.lk % keys != 0, M=queries, N=keys, STAGES=stages, warps=warps,
    )  # fmt: skip
    return tuple(array for array, _ in outs)


def _sums(c, dy, causal, scratch):
    """Pointers to log2 of each query's sum of weights, and to delta."""
    size = c.b * c.heads * c.lq
    delta = launch.scratch(np.empty(size, np.float32), c.q, filled=False)
    if scratch is not None:
        y, logs = scratch
        (y,), logs = given(c.q, (c.b, c.heads, c.lq, c.e), y=y), read(("float32",), scratch=logs).pointers[0]
        wide = triton.next_power_of_2(max(c.e, 1))
        rows = max(4096 // wide, 1)
        launch.run(_delta, launch.programs(size, rows), c.q, delta, dy, y, size, E=c.e, WIDE=wide, ROWS=rows)
        return logs, delta
    logs = launch.scratch(np.empty(size, np.float32), c.q, filled=False)
    queries, keys, warps, stages = tiles_of(c, ALONG_KEYS, c.lq, c.lk)
    start(
        _of_queries, launch.programs(c.lq, queries) * c.b * c.heads, c.q, None, (logs, delta), given_to(c, dy),
        LOG2E * c.d**-0.5, c.d**-0.5, D=c.d, E=c.e, CAUSAL=bool(causal), TAIL=c.lk % keys != 0, M=queries, N=keys,
        STAGES=stages, warps=warps,
    )  # fmt: skip
    return logs, delta


@triton.jit(do_not_specialize=["size"])
def _delta(delta, dy, y, size, E: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr):
    row, col = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDE)
    at, inside = row[:, None].to(tl.int64) * E + col[None, :], (row < size)[:, None] & (col < E)[None, :]
    d = tl.load(dy + at, mask=inside, other=0).to(tl.float32)
    tl.store(delta + row, tl.sum(d * tl.load(y + at, mask=inside, other=0).to(tl.float32), 1), mask=row < size)


@triton.jit
def weight(p, x):
    """Weights as the other operand of a product that float16 would not hold: then 11 digits of float32. p: float32
    block. x: pointer to the other operand."""
    if x.dtype.element_ty == tl.float16:
        bits = p.to(tl.int32, bitcast=True)
        return tl.where(p == p, ((bits + 0xFFF + ((bits >> 13) & 1)) & -0x2000).to(tl.float32, bitcast=True), p)
    else:
        return like(p, x)


@triton.jit
def _along_queries(
    state, ks, vs, key, given, head, first, end, scale,
    D: tl.constexpr, E: tl.constexpr, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dk and dv of keys with the queries first to end added; all of them see these keys where STAGES > 0."""
    dk, dv = state
    at, lq = head.to(tl.int64) * given.lq, given.lq
    q, dy, logs, delta = given.q + at * D, given.dy + at * E, given.logs + at, given.delta + at
    for start in tl.range(first, end, M, num_stages=STAGES if STAGES else 1):
        row = start + tl.arange(0, M)
        there = row < lq
        qs, dys = tiles(q, row, there, D, False), tiles(dy, row, there, E, False)
        log = tl.load(logs + row, mask=there, other=INF)
        p = tl.exp2(tl.fma(scores(ks, qs, N, M), scale, -log[None, :]))  # (N, M)
        dp = scores(vs, dys, N, M)
        ds = p * (dp - tl.load(delta + row, mask=there, other=0)[None, :])
        seen = None
        if STAGES == 0:
            seen = seen_by(row[None, :], key[:, None], given, head, CAUSAL, given.mask is not None)
            p, ds = tl.where(seen, p, 0.0), tl.where(seen, ds, 0.0)
        dv = product(weight(p, dy), dys, dv, None, None, False)
        dk = product(weight(ds, q), qs, dk, None, seen, STAGES == 0)
    return dk, dv


@triton.jit(do_not_specialize=["scale", "root"], do_not_specialize_on_alignment=["dk", "dv"])
def _of_keys(
    dk, dv, given, scale, root,
    D: tl.constexpr, E: tl.constexpr, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    lq, lk = given.lq, given.lk
    head, block = block_of(lk, N, False)
    at, key = head.to(tl.int64) * lk, block * N + tl.arange(0, N)
    there = key < lk
    ks, vs = tiles(given.k + at * D, key, there, D, False), tiles(given.v + at * E, key, there, E, False)
    state = zeros(N, D), zeros(N, E)
    # Queries from which on some see some of these keys, and from which on all see all, in whole tiles
    first, whole = 0, 0
    if CAUSAL:
        first = tl.minimum(tl.maximum(block * N - (lk - lq), 0), lq) // M * M
        whole = tl.minimum(tl.maximum(block * N + N - 1 - (lk - lq) + M - 1, 0) // M * M, (lq + M - 1) // M * M)
    if given.mask is not None:
        state = _along_queries(state, ks, vs, key, given, head, first, lq, scale, D, E, CAUSAL, M, N, 0)
    else:
        if CAUSAL:
            state = _along_queries(state, ks, vs, key, given, head, first, whole, scale, D, E, CAUSAL, M, N, 0)
        state = _along_queries(state, ks, vs, key, given, head, whole, lq, scale, D, E, CAUSAL, M, N, STAGES)
    put(dk + at * D, scaled(state[0], root), key, there, D)
    put(dv + at * E, state[1], key, there, E)


@triton.jit
def _along_keys(
    state, own, row, given, head, first, end, scale,
    D: tl.constexpr, E: tl.constexpr, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dq of queries with the keys first to end added; where there is no log, their largest score, their sum of weights
    and that of p dp instead. own: q, dy, log and delta of the queries. All keys are seen where STAGES > 0."""
    qs, dys, log, delta = own
    at, lk = head.to(tl.int64), given.lk
    k, v = given.k + at * lk * D, given.v + at * lk * E
    for start in tl.range(first, end, N, num_stages=STAGES if STAGES else 1):
        key = start + tl.arange(0, N)
        ks = tiles(k, key, key < lk, D, STAGES > 0)
        s, dp = scores(qs, ks, M, N), scores(dys, tiles(v, key, key < lk, E, STAGES > 0), M, N)
        seen = None
        if STAGES == 0:
            seen = seen_by(row[:, None], key[None, :], given, head, CAUSAL, given.mask is not None)
            s, dp = tl.where(seen, s, -INF), tl.where(seen, dp, 0.0)
        if log is None:
            top, total, of_dp = state
            new = tl.maximum(top, tl.max(s, 1) * scale)
            safe = tl.where(new == -INF, 0.0, new)
            p, shrink = tl.exp2(tl.fma(s, scale, -safe[:, None])), tl.exp2(top - safe)
            state = new, tl.fma(total, shrink, tl.sum(p, 1)), tl.fma(of_dp, shrink, tl.sum(p * dp, 1))
        else:
            p = tl.exp2(tl.fma(s, scale, -log[:, None]))
            if STAGES == 0:
                p = tl.where(seen, p, 0.0)
            guarded: tl.constexpr = STAGES == 0 and (CAUSAL or given.mask is not None)
            state = product(weight(p * (dp - delta[:, None]), k), ks, state, None, seen, guarded)
    return state


@triton.jit(do_not_specialize=["scale", "root"], do_not_specialize_on_alignment=["dq"])
def _of_queries(
    dq, made, given, scale, root,
    D: tl.constexpr, E: tl.constexpr, CAUSAL: tl.constexpr, TAIL: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    lq, lk = given.lq, given.lk
    head, block = block_of(lq, M, CAUSAL)  # the longest first
    at, row = head.to(tl.int64) * lq, block * M + tl.arange(0, M)
    there = row < lq
    qs, dys = tiles(given.q + at * D, row, there, D, False), tiles(given.dy + at * E, row, there, E, False)
    if given.logs is None:
        own = qs, dys, None, None
        state = tl.full((M,), -INF, tl.float32), tl.zeros((M,), tl.float32), tl.zeros((M,), tl.float32)
    else:
        log = tl.load(given.logs + at + row, mask=there, other=INF)
        own, state = (qs, dys, log, tl.load(given.delta + at + row, mask=there, other=0)), zeros(M, D)
    whole, last = keys_seen(block * M, lq, lk, CAUSAL, M, N)
    if given.mask is None:
        state = _along_keys(state, own, row, given, head, 0, whole, scale, D, E, CAUSAL, M, N, STAGES)
        if TAIL or CAUSAL:
            state = _along_keys(state, own, row, given, head, whole, last, scale, D, E, CAUSAL, M, N, 0)
    else:
        state = _along_keys(state, own, row, given, head, 0, last, scale, D, E, CAUSAL, M, N, 0)
    if given.logs is None:
        top, total, of_dp = state
        tl.store(made[0] + at + row, tl.where(total == 0, INF, top + tl.log2(total)), mask=there)
        tl.store(made[1] + at + row, tl.where(total == 0, 0.0, of_dp / total), mask=there)
    else:
        put(dq + at * D, scaled(state, root), row, there, D)
