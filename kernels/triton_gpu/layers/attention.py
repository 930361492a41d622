"""`ref.layers.attention` on the GPU: the softmax is taken while the keys go by, so no weight is ever stored.

A program has a tile of queries and goes along the keys; products of halves run on the tensor cores with float32 sums,
those of float32 as three of tf32. A head size that is no power of two is one tile or two side by side: 40 is 32 + 16.
Keys that a query does not see, and those past the end, have no weight in the maximum, in the sum or in the product.

Papers
    [Flash2]  Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", 2023
"""
import math
from collections import namedtuple

import triton
import triton.language as tl

from kernels.triton_gpu import arrays as memory
from kernels.triton_gpu import device, launch
from kernels.triton_gpu.arrays import STORED, read
from kernels.triton_gpu.layers.tiles import like, product, put, scaled, scores, tiles, zeros
from kernels.triton_gpu.layers.vectors import written

LOG2E, INF = math.log2(math.e), tl.constexpr(math.inf)
WIDTHS = 64, 128, 256  # head sizes, for each of which tiles of their own are the fastest
# queries, keys, warps, stages of a program, for halves and for float32
TILES = {True: [(128, 64, 8, 3), (128, 64, 8, 3), (64, 32, 4, 2)],
         False: [(64, 32, 4, 2), (32, 32, 4, 2), (32, 32, 4, 2)]}  # fmt: skip
LEAST = 16 if device.INTERPRETED else 64  # rows of a tile: fewer kernels to compile, or less for the interpreter

# What a call is: Arrays of q, k and v, sizes, the mask's pointer and strides.
Call = namedtuple("Call", "q k v b heads lq lk d e mask strides")
# And what a kernel gets of it: pointers, heads of an example, queries and keys, and from one of each to the next in the
# mask: of examples, heads, queries and keys.
Given = namedtuple("Given", "q k v dy logs delta mask heads lq lk by_b by_head by_q by_k")


def attention(q, k, v, mask=None, causal=False, out=None, scratch=None):
    """softmax(q k^T / sqrt(d)) v; arguments as in `ref.layers.attention.attention`. out: an array. scratch: a float32
    array (B, heads, Lq) that gets log2 of each query's sum, for the gradient, or None."""
    c = call_of(q, k, v, mask)
    out, pointer = written("out", out, c.q, (c.b, c.heads, c.lq, c.e))
    for a in (c.q, c.k, c.v):  # which may be one array
        memory.apart((pointer, c.b * c.heads * c.lq * c.e), (a.pointers[0], a.size))
    sums = None if scratch is None else read(("float32",), scratch=scratch).pointers[0]
    queries, keys, warps, stages = tiles_of(c, TILES, c.lq, c.lk)
    blocks = launch.programs(c.lq, queries)
    start(
        _forward, blocks * c.b * c.heads, c.q, pointer, sums, given_to(c), LOG2E * c.d**-0.5, D=c.d, E=c.e,
        CAUSAL=bool(causal), TAIL=c.lk % keys != 0, M=queries, N=keys, STAGES=stages, warps=warps,
    )  # fmt: skip
    return out


def start(kernel, grid, arrays, *args, **constants):
    """`launch.run` of a kernel with many products. kernel, grid, arrays, args, constants: as there."""
    with device.products():
        launch.run(kernel, grid, arrays, *args, **constants)


def given_to(c, dy=None, logs=None, delta=None):
    """What a kernel gets. c: `Call`. dy, logs, delta: pointers of the gradient, or None."""
    pointers = (a.pointers[0] for a in (c.q, c.k, c.v))
    return Given(*pointers, dy, logs, delta, c.mask, c.heads, c.lq, c.lk, *c.strides)


def call_of(q, k, v, mask):
    """The `Call` of these arguments, after the checks. q, k, v, mask: as in `ref.layers.attention.attention`. Raises
    ValueError where the shapes do not fit, TypeError as `arrays.read` does."""
    arrays = [read(STORED, **{name: x}) for name, x in (("q", q), ("k", k), ("v", v))]
    shapes = [a.shape for a in arrays]
    fit = all(len(s) == 4 for s in shapes) and shapes[0][:2] == shapes[1][:2] and shapes[1][:3] == shapes[2][:3]
    if not fit or shapes[0][3] != shapes[1][3]:
        raise ValueError("expected q (B, heads, Lq, d), k (B, heads, Lk, d), v (B, heads, Lk, e), got "
                         f"q {shapes[0]}, k {shapes[1]}, v {shapes[2]}")  # fmt: skip
    for name, a in zip("kv", arrays[1:]):
        if (a.kind, a.dtype) != (arrays[0].kind, arrays[0].dtype):
            like_q = f"{arrays[0].kind.name} {arrays[0].dtype} like q"
            raise TypeError(f"{name}: expected {like_q}, got {a.kind.name} {a.dtype}")
        arrays[0].streams.update(a.streams)
    (b, heads, lq, d), (lk, e) = shapes[0], shapes[2][2:]
    pointer, strides = None, (0, 0, 0, 0)
    if mask is not None:
        seen, weights = read(("bool",), mask=mask), (b, heads, lq, lk)
        shape = (1,) * (4 - len(seen.shape)) + seen.shape
        if len(shape) > 4 or any(m not in (1, n) for m, n in zip(shape, weights)):
            raise ValueError(f"mask: expected bools that broadcast to {weights}, got {seen.shape}")
        pointer = seen.pointers[0]
        strides = tuple(math.prod(shape[i + 1 :]) if shape[i] > 1 else 0 for i in range(4))
    return Call(*arrays, b, heads, lq, lk, d, e, pointer, strides)


def tiles_of(call, table, rows, others):
    """A program's own rows and those that it takes at a time, its warps and stages. call: `Call`. table: as TILES.
    rows, others: how many there are. Raises ValueError for a head that is too wide."""
    wide = max(call.d, call.e)
    if wide > WIDTHS[-1]:
        raise ValueError(f"q, k and v: expected heads of at most {WIDTHS[-1]}, got {wide}")
    own, other, warps, stages = table[call.q.dtype != "float32"][sum(wide > w for w in WIDTHS)]
    fit = lambda most, n: max(min(most, triton.next_power_of_2(max(n, 1))), min(most, LEAST))  # noqa: E731
    return fit(own, rows), fit(other, others), warps if rows >= own else 4, stages


@triton.jit
def seen_by(row, key, given, head, CAUSAL: tl.constexpr, BY_MASK: tl.constexpr):
    """Which keys queries see. row, key: numbers, (M, 1) and (1, N) or turned. given: `Given`. head: number. CAUSAL:
    whether no query sees what comes after it. BY_MASK: whether there is a mask."""
    seen = (row < given.lq) & (key < given.lk)
    if CAUSAL:
        seen = seen & (key <= row + (given.lk - given.lq))
    if BY_MASK:
        at = given.mask + (head // given.heads).to(tl.int64) * given.by_b + head % given.heads * given.by_head
        at = at + row.to(tl.int64) * given.by_q + key * given.by_k
        seen = seen & (tl.load(at, mask=seen, other=0) != 0)
    return seen


@triton.jit
def keys_seen(first, lq, lk, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """Of queries first to first + M: keys before which all are seen by all, in whole tiles of N, and the one past the
    last that is seen. lq, lk, CAUSAL: as in `seen_by`."""
    whole, last = lk, lk
    if CAUSAL:
        whole = tl.maximum(tl.minimum(first + 1 + lk - lq, lk), 0)
        last = tl.maximum(tl.minimum(first + M + lk - lq, lk), 0)
    return whole // N * N, last


@triton.jit
def _along(
    state, qs, row, given, head, first, end, scale,
    D: tl.constexpr, E: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """The online softmax over keys first to end. state: the largest score of each query, the sum, and the tiles of the
    result. MASKED: whether some of the keys may not be seen."""
    top, total, sums = state
    at, lk = head.to(tl.int64), given.lk
    k, v = given.k + at * lk * D, given.v + at * lk * E
    for start in tl.range(first, end, N, num_stages=STAGES):
        key = start + tl.arange(0, N)
        s = scores(qs, tiles(k, key, key < lk, D, not MASKED), M, N)
        seen = None
        if MASKED:
            seen = seen_by(row[:, None], key[None, :], given, head, CAUSAL, given.mask is not None)
            s = tl.where(seen, s, -INF)
        new = tl.maximum(top, tl.max(s, 1) * scale)
        safe = tl.where(new == -INF, 0.0, new) if MASKED else new
        p = tl.exp2(tl.fma(s, scale, -safe[:, None]))
        shrink = tl.exp2(top - safe)
        total = tl.fma(total, shrink, tl.sum(p, 1))
        guarded: tl.constexpr = MASKED and (CAUSAL or given.mask is not None)
        sums = product(like(p, v), tiles(v, key, key < lk, E, not MASKED), sums, shrink[:, None], seen, guarded)
        top = new
    return top, total, sums


@triton.jit
def block_of(count, M: tl.constexpr, LAST_FIRST: tl.constexpr):
    """Of a program: its head, and which of the blocks of M among count rows. LAST_FIRST: in this order."""
    blocks = (count + M - 1) // M
    head, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    return head, blocks - 1 - block if LAST_FIRST else block


# An output that lies otherwise is no other kernel, whose sums might be laid out in another order
@triton.jit(do_not_specialize=["scale"], do_not_specialize_on_alignment=["y"])
def _forward(
    y, logs, given, scale,
    D: tl.constexpr, E: tl.constexpr, CAUSAL: tl.constexpr, TAIL: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    lq, lk = given.lq, given.lk
    head, block = block_of(lq, M, CAUSAL)  # the longest first
    at, row = head.to(tl.int64) * lq, block * M + tl.arange(0, M)
    there = row < lq
    qs = tiles(given.q + at * D, row, there, D, False)
    state = tl.full((M,), -INF, tl.float32), tl.zeros((M,), tl.float32), zeros(M, E)
    whole, last = keys_seen(block * M, lq, lk, CAUSAL, M, N)
    if given.mask is None:
        state = _along(state, qs, row, given, head, 0, whole, scale, D, E, CAUSAL, False, M, N, STAGES)
        if TAIL or CAUSAL:
            state = _along(state, qs, row, given, head, whole, last, scale, D, E, CAUSAL, True, M, N, 1)
    else:
        state = _along(state, qs, row, given, head, 0, last, scale, D, E, CAUSAL, True, M, N, 1)
    top, total, sums = state
    put(y + at * E, scaled(sums, tl.where(total == 0, 0.0, 1.0 / total)[:, None]), row, there, E)
    if logs is not None:
        tl.store(logs + at + row, tl.where(total == 0, INF, top + tl.log2(total)), mask=there)
