"""Rows of a matrix as one tile or two side by side, where their length is no power of two (40 is 32 + 16), and products
of these on the tensor cores, with float32 sums."""
import math

import triton
import triton.language as tl

from kernels.triton_gpu import device
from kernels.triton_gpu.philox import stored

INTERPRETED, INF = tl.constexpr(device.INTERPRETED), tl.constexpr(math.inf)


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
def operand(x):
    """x as a product takes it: the interpreter cannot multiply bfloat16. x: block."""
    return x.to(tl.float32) if INTERPRETED else x


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
