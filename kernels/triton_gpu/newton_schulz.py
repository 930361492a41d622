"""Muon's matrices on the GPU, all of a call side by side: each product of a Newton-Schulz step is one launch.

Papers
    [Muon]     Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
"""
import triton
import triton.language as tl

from kernels.coefficients import NEWTON_SCHULZ
from kernels.triton_gpu import device, launch
from kernels.triton_gpu.layers.tiles import dot
from kernels.triton_gpu.matmul import tile_of

BLOCK = 1024  # elements of a program that multiplies nothing
SIDE, CHUNK = (128, 128) if device.INTERPRETED else (64, 32)  # of a program's square of a product; terms of a step


def muon(p, m, arrays, rate, keep, decay):
    """`muon_step` of all matrices. p, m: pointers of what it returns. arrays: `Arrays` of p, g, m. rate, keep, decay:
    of `coefficients.muon_step`."""
    rows, columns = arrays.shape[-2:]
    size, short, long = rows * columns, *sorted((rows, columns))
    count, parts = arrays.size // max(size, 1), launch.programs(size, BLOCK)
    kinds = (arrays.size, arrays.size, count * short * short, count * short * short)
    partial, x, y, a, b = launch.workspace(arrays, empty=[(count * parts, "float64"), *((n, "float32") for n in kinds)])
    walk, tall = (size, columns, parts), rows > columns
    # Nesterov's momentum, over its norm
    launch.run(_nesterov, count * parts, arrays, p, m, x, partial, *arrays.pointers, keep, decay, *walk, tall, BLOCK)
    launch.run(_normed, count * parts, arrays, x, partial, size, parts, BLOCK)

    def multiply(width, *given):
        grid = count * launch.programs(short, SIDE) * launch.programs(width, SIDE)
        launch.run(_multiply, grid, arrays, *given, short, width, SIDE=SIDE, CHUNK=CHUNK)

    one, two, three = NEWTON_SCHULZ
    for _ in range(5):
        multiply(short, a, x, x, 1, long, None, 0.0, 1.0, long)  # A = X X^T
        multiply(short, b, a, a, 1, short, a, two, three, short)  # b A + c A^2, of a symmetric A
        multiply(long, y, b, x, long, 1, x, one, 1.0, short)  # a X + (b A + c A^2) X
        x, y = y, x
    launch.run(_moved, count * parts, arrays, p, x, rate, *walk, tall, BLOCK)


@triton.jit
def places(size, columns, parts, TALL: tl.constexpr, BLOCK: tl.constexpr):
    """Of a program: where its elements lie in p, where in a matrix whose rows are its longer lines, and which there
    are. size, columns: of a matrix. parts: programs of one. TALL: whether its columns are longer. BLOCK: elements."""
    matrix, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    i, base = part * BLOCK + tl.arange(0, BLOCK), matrix.to(tl.int64) * size
    turned = i % columns * (size // columns) + i // columns if TALL else i
    return base + i, base + turned, i < size


@triton.jit(do_not_specialize=["parts"])
def _nesterov(
    p_out, m_out, x, partial, p, g, m, keep, decay, size, columns, parts, TALL: tl.constexpr, BLOCK: tl.constexpr
):
    """m and u of [Muon], the sum of squares of u, and what weight decay leaves of p."""
    at, turned, inside = places(size, columns, parts, TALL, BLOCK)
    grad = tl.load(g + at, mask=inside, other=0)
    old, m_next = tl.load(p + at, mask=inside, other=0), tl.fma(keep, tl.load(m + at, mask=inside, other=0), grad)
    u = tl.fma(keep, m_next, grad)
    tl.store(m_out + at, m_next, mask=inside)
    tl.store(p_out + at, old - decay * old, mask=inside)
    tl.store(x + turned, u, mask=inside)
    u = u.to(tl.float64)
    tl.store(partial + tl.program_id(0), tl.sum(u * u))


@triton.jit(do_not_specialize=["parts"])
def _normed(x, partial, size, parts, BLOCK: tl.constexpr):
    at, _, inside = places(size, 1, parts, False, BLOCK)
    total = tl.sum(tl.zeros((BLOCK,), tl.float64))
    for first in range(0, parts, BLOCK):
        k = first + tl.arange(0, BLOCK)
        total += tl.sum(tl.load(partial + tl.program_id(0) // parts * parts + k, mask=k < parts, other=0))
    scale = (1 / (tl.sqrt(total) + 1e-7)).to(tl.float32)
    tl.store(x + at, scale * tl.load(x + at, mask=inside), mask=inside)


@triton.jit
def _multiply(
    y, a, b, b_row, b_column, d, one, two, terms, rows, columns, SIDE: tl.constexpr, CHUNK: tl.constexpr
):  # fmt: skip
    """y = one d + two a b, for each matrix. a: (rows, terms). b: its rows and its columns are b_row and b_column apart.
    """
    across = tl.cdiv(columns, SIDE)
    tiles = tl.cdiv(rows, SIDE) * across
    matrix = (tl.program_id(0) // tiles).to(tl.int64)
    row, column = tile_of(tl.program_id(0) % tiles, across, SIDE, SIDE)
    k, sums = tl.arange(0, CHUNK), tl.zeros((SIDE, SIDE), tl.float32)
    a += matrix * rows * terms
    b += matrix * terms * columns
    for first in tl.range(0, terms, CHUNK, num_stages=3):
        at, there = first + k, first + k < terms
        left = tl.load(a + row[:, None] * terms + at[None, :], mask=(row < rows)[:, None] & there[None, :], other=0)
        right = tl.load(b + at[:, None] * b_row + column[None, :] * b_column,
                        mask=there[:, None] & (column < columns)[None, :], other=0)  # fmt: skip
        sums = dot(left, right, sums)
    sums *= two
    at = matrix * rows * columns + row[:, None] * columns + column[None, :]
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    if d is not None:
        sums = tl.fma(one, tl.load(d + at, mask=inside, other=0), sums)
    tl.store(y + at, sums, mask=inside)


@triton.jit(do_not_specialize=["parts"])
def _moved(p, x, rate, size, columns, parts, TALL: tl.constexpr, BLOCK: tl.constexpr):
    at, turned, inside = places(size, columns, parts, TALL, BLOCK)
    tl.store(p + at, tl.fma(-rate, tl.load(x + turned, mask=inside), tl.load(p + at, mask=inside)), mask=inside)
