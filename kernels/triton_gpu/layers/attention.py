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
from kernels.triton_gpu.layers.vectors import written
from kernels.triton_gpu.philox import stored

INTERPRETED = tl.constexpr(device.INTERPRETED)
LOG2E, INF = math.log2(math.e), tl.constexpr(math.inf)
WIDTHS = 64, 128, 256  # head sizes, for each of which tiles of their own are the fastest
# queries, keys, warps, stages of a program, for halves and for float32
TILES = {True: [(128, 64, 8, 3), (128, 64, 8, 3), (64, 32, 4, 2)],
         False: [(64, 32, 4, 2), (32, 32, 4, 2), (32, 32, 4, 2)]}  # fmt: skip
# The least size of a product. With tiles of 16 rows of halves Triton 3.6 makes code for an H200 that reads where nothing
# is; the interpreter takes its time for each row.
LEAST = 16 if device.INTERPRETED else 64

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
    launch.run(
        _forward, blocks * c.b * c.heads, c.q, pointer, sums, given_to(c), LOG2E * c.d**-0.5, D=c.d, E=c.e,
        CAUSAL=bool(causal), TAIL=c.lk % keys != 0, M=queries, N=keys, STAGES=stages, warps=warps,
    )  # fmt: skip
    return out


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


@triton.constexpr_function
def first_of(width):
    """The columns of the first of the tiles that a matrix of so many is cut into. width: int."""
    power = max(1 << (width.bit_length() - 1), 16)
    return power if width <= power or second(width, power) < power else 2 * power


@triton.constexpr_function
def second_of(width):
    """The columns of the second tile, 0 for none. width: int."""
    first = first_of(width)
    return second(width, first) if width > first else 0


@triton.constexpr_function
def second(width, first):
    """The power of two that holds what is left of width after the first columns. width, first: ints."""
    return max(1 << (width - first - 1).bit_length(), 16)


@triton.jit
def one_tile(x, row, inside, WIDTH: tl.constexpr, FIRST: tl.constexpr, COLS: tl.constexpr, WHOLE: tl.constexpr):
    """Columns FIRST to FIRST + COLS of rows, 0 past the end. x: pointer to (rows, WIDTH). row: which. inside: which
    there are. WHOLE: whether all are."""
    col = FIRST + tl.arange(0, COLS)
    at = x + row[:, None] * WIDTH + col[None, :]
    if FIRST + COLS > WIDTH:
        y = tl.load(at, mask=inside[:, None] & (col < WIDTH)[None, :], other=0)
    elif WHOLE:
        y = tl.load(at)
    else:
        y = tl.load(at, mask=inside[:, None], other=0)
    return y.to(tl.float32) if INTERPRETED else y  # the interpreter cannot multiply bfloat16


@triton.jit
def tiles(x, row, inside, WIDTH: tl.constexpr, WHOLE: tl.constexpr):
    """Rows of a matrix as one tile or two side by side. x, row, inside, WIDTH, WHOLE: as in `one_tile`."""
    first = one_tile(x, row, inside, WIDTH, 0, first_of(WIDTH), WHOLE)
    if second_of(WIDTH) == 0:
        return (first,)
    else:
        return first, one_tile(x, row, inside, WIDTH, first_of(WIDTH), second_of(WIDTH), WHOLE)


@triton.jit
def put(y, x, row, inside, WIDTH: tl.constexpr):
    """Writes `tiles`. y: pointer. x: tuple of blocks. row, inside, WIDTH: as in `one_tile`."""
    for i in tl.static_range(len(x)):
        first = first_of(WIDTH) if i else 0
        col = first + tl.arange(0, x[i].shape[1])
        at = y + row[:, None] * WIDTH + col[None, :]
        tl.store(at, stored(x[i], y), mask=inside[:, None] & (col < WIDTH)[None, :])


@triton.jit
def dot(a, b, sums):
    """sums + a b: of halves, of float32 as three products of tf32, or of float32 that has 11 digits and float16. a, b,
    sums: blocks."""
    if a.dtype == b.dtype:
        return tl.dot(a, b, sums, input_precision="tf32x3")
    else:
        return tl.dot(a, b.to(tl.float32), sums, input_precision="tf32")


@triton.jit
def scores(a, b, M: tl.constexpr, N: tl.constexpr):
    """a b^T over all tiles. a, b: of `tiles`. M, N: their rows."""
    s = tl.zeros((M, N), tl.float32)
    for i in tl.static_range(len(a)):
        s = dot(a[i], tl.trans(b[i]), s)
    return s


@triton.jit
def like(p, x):
    """Weights as the other operand of a product is stored. p: float32 block. x: pointer."""
    return stored(p, x).to(tl.float32) if INTERPRETED else stored(p, x)


@triton.jit
def stray(p, w, seen):
    """p w of what is not finite in v, in the weights of what is seen alone. p, seen: (M, N). w: (N, E), 0 for the rest.
    It is rare: a product on the tensor cores would cost every other call registers and shared memory."""
    n = tl.arange(0, p.shape[1])
    total = tl.zeros((p.shape[0], w.shape[1]), tl.float32)
    for j in range(p.shape[1]):
        one = n == j
        weight, row = tl.sum(tl.where(one[None, :], p, 0.0), 1), tl.sum(tl.where(one[:, None], w, 0.0), 0)
        counts = tl.max((seen & one[None, :]).to(tl.int32), 1) > 0
        total += tl.where(counts[:, None], weight[:, None] * row[None, :], 0.0)
    return total


@triton.jit
def product(p, v, sums, scale, seen, GUARDED: tl.constexpr):
    """scale sums + p v for each tile. p: (M, N). v, sums: tuples of blocks. scale: (M, 1) or None. seen: (M, N) bools;
    if GUARDED, what is not finite in v and not seen plays no part."""
    done = ()
    for i in tl.static_range(len(v)):
        old = sums[i] if scale is None else sums[i] * scale
        if GUARDED:
            finite = tl.abs(v[i].to(tl.float32)) < INF
            new = dot(p, tl.where(finite, v[i], 0.0).to(v[i].dtype), old)
            if tl.min(finite.to(tl.int32)) == 0:
                new += stray(p.to(tl.float32), tl.where(finite, 0.0, v[i].to(tl.float32)), seen)
            done = done + (new,)
        else:
            done = done + (dot(p, v[i], old),)
    return done


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
def zeros(M: tl.constexpr, WIDTH: tl.constexpr):
    """`tiles` of zeros. M: rows. WIDTH: columns."""
    first = tl.zeros((M, first_of(WIDTH)), tl.float32)
    if second_of(WIDTH) == 0:
        return (first,)
    else:
        return first, tl.zeros((M, second_of(WIDTH)), tl.float32)


@triton.jit
def scaled(x, scale):
    """scale x, for each tile. x: tuple of blocks. scale: number or (M, 1)."""
    y = ()
    for i in tl.static_range(len(x)):
        y = y + (x[i] * scale,)
    return y


@triton.jit
def block_of(count, M: tl.constexpr, LAST_FIRST: tl.constexpr):
    """Of a program: its head, and which of the blocks of M among count rows. LAST_FIRST: in this order."""
    blocks = (count + M - 1) // M
    head, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    return head, blocks - 1 - block if LAST_FIRST else block


@triton.jit(do_not_specialize=["scale"])
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
