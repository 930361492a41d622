"""Matrix products of float32 in a program's registers: three tf32 products for one, to 2^-22, or operands rounded to
bfloat16.

Sums are float32. Products read past the first-level cache, since other programs of the same launch wrote their
operands.
"""
import triton
import triton.language as tl

from kernels.triton_gpu import device

INTERPRETED = tl.constexpr(device.INTERPRETED)


@triton.jit
def rounded(x):
    """x as bfloat16 has it, halves to even, in float32. x: block."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(x == x, ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True), x)


@triton.jit
def operand(x, BFLOAT16: tl.constexpr):
    """x as an operand is stored. x: block.
    BFLOAT16: whether it is rounded; the interpreter keeps the rounded numbers in float32."""
    if not BFLOAT16:
        return x
    elif INTERPRETED:
        return rounded(x)
    else:
        return x.to(tl.bfloat16)


@triton.jit
def product(
    a, along_a, rows, b, along_b, columns, K, CHUNK: tl.constexpr, STAGES: tl.constexpr, SPLIT: tl.constexpr
):
    """a b over K terms.

    a, b: pointers to the first element of each row and column. along_a, along_b: steps to the next. rows, columns:
    which there are. CHUNK: terms at a time. STAGES: loads ahead. SPLIT: operands as two bfloat16 each,
    to 2^-16, else to 2^-22.
    """
    k, sums = tl.arange(0, CHUNK), tl.zeros((a.shape[0], b.shape[0]), tl.float32)
    for first in tl.range(0, K, CHUNK, num_stages=STAGES):
        inside = first + k < K
        left, right = rows[:, None] & inside[None, :], inside[:, None] & columns[None, :]
        x = tl.load(a[:, None] + (first + k)[None, :] * along_a, mask=left, other=0, cache_modifier=".cg")
        y = tl.load(b[None, :] + (first + k)[:, None] * along_b, mask=right, other=0, cache_modifier=".cg")
        if SPLIT:
            x_high, y_high = operand(x, True), operand(y, True)
            x_low, y_low = operand(x - x_high.to(tl.float32), True), operand(y - y_high.to(tl.float32), True)
            sums = tl.dot(x_high, y_high, tl.dot(x_high, y_low, tl.dot(x_low, y_high, sums)))
        else:
            sums = tl.dot(x, y, sums, input_precision="tf32x3")
    return sums


@triton.jit
def padded_product(a, along_a, b, along_b, K, CHUNK: tl.constexpr, STAGES: tl.constexpr):
    """a b of stored operands, in memory that ends with two chunks: nothing to mask, so that 16 bytes are read
    at a time. Two sums, since each product waits for the one before it. Arguments as in `product`."""
    k, sums = tl.arange(0, CHUNK), tl.zeros((a.shape[0], b.shape[0]), tl.float32)
    others = sums * 0
    for first in tl.range(0, K, 2 * CHUNK, num_stages=STAGES):
        x = tl.load(a[:, None] + (first + k)[None, :] * along_a, cache_modifier=".cg")
        y = tl.load(b[None, :] + (first + k)[:, None] * along_b, cache_modifier=".cg")
        v = tl.load(a[:, None] + (first + CHUNK + k)[None, :] * along_a, cache_modifier=".cg")
        w = tl.load(b[None, :] + (first + CHUNK + k)[:, None] * along_b, cache_modifier=".cg")
        sums = tl.dot(x, y, sums, input_precision="tf32x3")
        others = tl.dot(v, w, others, input_precision="tf32x3")
    return sums + others


@triton.jit
def tile_of(tile, across, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The rows and the columns of a tile. tile: its number. across: tiles side by side. ROWS, COLUMNS: its shape."""
    return tile // across * ROWS + tl.arange(0, ROWS), tile % across * COLUMNS + tl.arange(0, COLUMNS)


@triton.jit
def pack(to, of, rows, along, columns, height, WIDE: tl.constexpr, BFLOAT16: tl.constexpr):
    """Stores a matrix as an operand with zeros around it; all programs share the work.

    to: (height, WIDE). of: rows that are along apart, columns of each. BFLOAT16: as in `operand`.
    """
    for first in range(tl.program_id(0) * 1024, height * WIDE, tl.num_programs(0) * 1024):
        e = first + tl.arange(0, 1024)
        row, column = e // WIDE, e % WIDE
        x = tl.load(of + row * along + column, mask=(row < rows) & (column < columns), other=0)
        tl.store(to + e, operand(x, BFLOAT16), mask=e < height * WIDE)
