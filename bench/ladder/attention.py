"""Attention on the GPU: 4 L^2 d operations for 4 L d numbers of a head, so the tensor cores are the limit, if what lies
between the two products never leaves a program. Halves; without a GPU Triton's interpreter checks the rungs.

Papers
    [Flash2]  Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", 2023
"""
import math

from kernels.triton_gpu import device, launch, layers  # which choose the GPU or the interpreter, before Triton does

import triton  # isort: skip
import triton.language as tl

from kernels.triton_gpu.arrays import read
from kernels.triton_gpu.layers.attention import start
from kernels.triton_gpu.layers.vectors import fresh
from kernels.triton_gpu.philox import stored

OP, OPTIONS = "layers.attention", {"keys": 0, "causal": False, "masked": None, "wide": None}
BACKEND, DTYPE = "triton_gpu", "float16"
SHAPE, SMALL = (4, 16, 4096, 64), (1, 2, 40, 16)
LOG2E = math.log2(math.e)


def three_kernels(q, k, v, mask, causal):
    """softmax(q k^T / sqrt(d)) v as it is printed: the scores, a softmax of each row, the product with v, each a kernel
    of its own, and L^2 numbers of a head in memory between them.

    Predicted: the scores are written and read, and so are the weights: 4 passes over 2.1 GB, 2 ms at 4.1 TB/s, where
    the products take 0.2 ms at full rate: a tenth of the limit."""
    arrays, sizes = _read(q, k, v)
    heads, n, d = sizes
    _, s = fresh(arrays, (heads, n, n))
    _, p = fresh(arrays, (heads, n, n))
    y, pointer = fresh(arrays, arrays.shape)
    qs, ks, vs = arrays.pointers
    blocks = launch.programs(n, 64)
    start(_product, heads * blocks * blocks, arrays, s, qs, ks, n, n, d, d, d, 1, d**-0.5, **TILE)
    launch.run(_softmax, heads * n, arrays, p, s, n, BLOCK=triton.next_power_of_2(n), warps=8)
    start(_product, heads * blocks * launch.programs(d, 64), arrays, pointer, p, vs, n, d, n, n, 1, d, 1.0, **TILE)
    return y


def online(q, k, v, mask, causal):
    """One kernel, [Flash2] section 3.1: a program has 64 queries and goes along the keys, 64 at a time. What it has of
    the sum and of the result is scaled down whenever a larger score comes, so the scores stay in registers.

    Predicted: memory carries q, k, v and y alone, 0.13 GB or 33 us, so arithmetic is left; the products wait for the
    exponentials, four warps at a time: 4 times, a third of the limit."""
    return _online(q, k, v, N=64, M=64, STAGES=1, warps=4)


def exponents_of_2(q, k, v, mask, causal):
    """e^x is 2^(x log2 e), and the scale of the scores and log2 e are one number, in the multiply-add that takes the
    maximum off.

    Predicted: of 4 operations for each score 2 are left, next to 2 d multiply-adds of the tensor cores, which are 16
    times as fast: 1.15 times."""
    return _online(q, k, v, N=64, M=64, STAGES=1, warps=4, FOLDED=True)


def whole_tiles(q, k, v, mask, causal):
    """Only the last keys, which do not fill a tile, are compared with the end; the others have a loop without.

    Predicted: a comparison and a choice less for each score, and loads that need no predicate: 1.1 times."""
    return _online(q, k, v, N=64, M=64, STAGES=1, warps=4, FOLDED=True, WHOLE=True)


def loads_ahead(q, k, v, mask, causal):
    """The keys of the next two tiles are on their way to shared memory while this one is multiplied.

    Predicted: a load takes 600 cycles and the work of a tile about as many: 1.5 times."""
    return _online(q, k, v, N=64, M=64, STAGES=3, warps=4, FOLDED=True, WHOLE=True)


def more_queries(q, k, v, mask, causal):
    """128 queries and 8 warps a program: each key that is loaded meets twice as many, and one group of warps multiplies
    while the other takes exponentials.

    Predicted: half the traffic from the second-level cache, and the two units overlap: 1.3 times, half of the limit."""
    return _online(q, k, v, N=64, M=128, STAGES=3, warps=8, FOLDED=True, WHOLE=True)


def kernel(q, k, v, mask, causal):
    """The project's kernel: the same with masks, any length, and heads of any size as one tile or two.

    Predicted: for this shape nothing of that is left in the code: 1 time."""
    return layers.attention(q, k, v, mask, causal)


TILE = dict(M=64, N=64, CHUNK=32)


def _read(q, k, v):
    """`Arrays` of q, k and v, of one shape, and (B heads, L, d)."""
    arrays = read((DTYPE,), q=q, k=k, v=v)
    b, heads, n, d = arrays.shape
    return arrays, (b * heads, n, d)


def _online(q, k, v, M, FOLDED=False, WHOLE=False, **more):
    arrays, (heads, n, d) = _read(q, k, v)
    y, pointer = fresh(arrays, arrays.shape)
    scale = d**-0.5 * (LOG2E if FOLDED else 1.0)
    grid = heads * launch.programs(n, M)
    start(_along, grid, arrays, pointer, *arrays.pointers, n, scale, D=d, M=M, FOLDED=FOLDED, WHOLE=WHOLE, **more)
    return y


@triton.jit(do_not_specialize=["scale"])
def _product(y, a, b, rows, columns, terms, a_row, b_column, b_term, scale, M: tl.constexpr, N: tl.constexpr,
             CHUNK: tl.constexpr):  # fmt: skip
    """y = scale a b for each head. a: rows that are a_row apart. b: columns that are b_column apart, terms b_term."""
    across = tl.cdiv(columns, N)
    tiles = tl.cdiv(rows, M) * across
    head, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    i, j, k = tile // across * M + tl.arange(0, M), tile % across * N + tl.arange(0, N), tl.arange(0, CHUNK)
    a, b, s = a + head * rows * terms, b + head * columns * terms, tl.zeros((M, N), tl.float32)
    for first in range(0, terms, CHUNK):
        t = first + k
        left = tl.load(a + i[:, None] * a_row + t[None, :], mask=(i < rows)[:, None] & (t < terms)[None, :], other=0)
        at = b + t[:, None] * b_term + j[None, :] * b_column
        s = tl.dot(left, tl.load(at, mask=(t < terms)[:, None] & (j < columns)[None, :], other=0), s)
    inside = (i < rows)[:, None] & (j < columns)[None, :]
    tl.store(y + head * rows * columns + i[:, None] * columns + j[None, :], stored(s * scale, y), mask=inside)


@triton.jit
def _softmax(p, s, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    at = tl.program_id(0).to(tl.int64) * n + i
    x = tl.load(s + at, mask=i < n, other=-float("inf")).to(tl.float32)
    e = tl.exp(x - tl.max(x, 0))
    tl.store(p + at, stored(e / tl.sum(e, 0), p), mask=i < n)


@triton.jit
def _step(state, q, k, v, first, n, scale, D: tl.constexpr, N: tl.constexpr, FOLDED: tl.constexpr, TAIL: tl.constexpr):
    """The maximum, the sum and the result of each query after N keys more. TAIL: whether some are past the end n."""
    top, total, y = state
    key, d = first + tl.arange(0, N), tl.arange(0, D)
    at, inside = key[:, None] * D + d[None, :], (key < n)[:, None]
    s = tl.dot(q, tl.trans(tl.load(k + at, mask=inside, other=0) if TAIL else tl.load(k + at)))
    if TAIL:
        s = tl.where((key < n)[None, :], s, -float("inf"))
    if FOLDED:
        new = tl.maximum(top, tl.max(s, 1) * scale)
        p, shrink = tl.exp2(tl.fma(s, scale, -new[:, None])), tl.exp2(top - new)
    else:
        s = s * scale
        new = tl.maximum(top, tl.max(s, 1))
        p, shrink = tl.exp(s - new[:, None]), tl.exp(top - new)
    values = tl.load(v + at, mask=inside, other=0) if TAIL else tl.load(v + at)
    return new, total * shrink + tl.sum(p, 1), tl.dot(stored(p, v), values, y * shrink[:, None])


@triton.jit(do_not_specialize=["scale"])
def _along(y, q, k, v, n, scale, D: tl.constexpr, M: tl.constexpr, FOLDED: tl.constexpr, WHOLE: tl.constexpr,
           N: tl.constexpr, STAGES: tl.constexpr):  # fmt: skip
    blocks = tl.cdiv(n, M)
    head, row = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks * M + tl.arange(0, M)
    y, q, k, v = y + head * n * D, q + head * n * D, k + head * n * D, v + head * n * D
    at, inside = row[:, None] * D + tl.arange(0, D)[None, :], (row < n)[:, None]
    queries, whole = tl.load(q + at, mask=inside, other=0), 0
    state = tl.full((M,), -float("inf"), tl.float32), tl.zeros((M,), tl.float32), tl.zeros((M, D), tl.float32)
    if WHOLE:
        whole = n // N * N
        for first in tl.range(0, whole, N, num_stages=STAGES):
            state = _step(state, queries, k, v, first, n, scale, D, N, FOLDED, False)
    for first in tl.range(whole, n, N, num_stages=1 if WHOLE else STAGES):
        state = _step(state, queries, k, v, first, n, scale, D, N, FOLDED, True)
    top, total, result = state
    tl.store(y + at, stored(result / total[:, None], y), mask=inside)


@triton.jit
def _rate(y, times, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    i, j, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    a, b = tl.load(y + i[:, None] * K + k[None, :]), tl.load(y + k[:, None] * N + j[None, :])
    s = tl.zeros((M, N), tl.float32)
    for _ in range(times):
        s = tl.dot(a, b, s)
    tl.store(y + i[:, None] * N + j[None, :], stored(s, y))


def limit(q):
    """A call of products that load nothing, and its operations. q: array, which says where."""
    arrays, (times, grid) = read((DTYPE,), q=q), (1, 1) if device.INTERPRETED else (4096, 264)
    y, pointer = fresh(arrays, (128, 128))
    return lambda: start(_rate, grid, arrays, pointer, times, M=128, N=128, K=64, warps=8), 2 * grid * times * 2**20


RUNGS = three_kernels, online, exponents_of_2, whole_tiles, loads_ahead, more_queries, kernel
