"""`ref.layers.linear` and its gradient on the GPU: tiled matrix products on the tensor cores, of float16, of bfloat16,
or of float32 as three of tf32 each, with float32 sums. `out` takes the first result.

The gradients of w and b are sums over all rows: in fixed chunks of rows, which are added in order.
"""
import math
from collections import namedtuple

import triton
import triton.language as tl

from kernels.triton_gpu import device, launch
from kernels.triton_gpu.arrays import STORED, apart, read
from kernels.triton_gpu.layers.planes import Taps, packed_weights
from kernels.triton_gpu.layers.tiles import dot, operand
from kernels.triton_gpu.layers.vectors import added, given, written
from kernels.triton_gpu.matmul import tile_of
from kernels.triton_gpu.philox import stored

# Rows and columns of a program's result, terms of a step, stages and warps. TILES, by whether of halves: for a product
# with w, and for the gradient of w.
Tile = namedtuple("Tile", "ROWS COLUMNS CHUNK STAGES warps")
TILES = {True: (Tile(128, 128, 64, 3, 8), Tile(128, 128, 64, 3, 4)), False: (Tile(128, 64, 32, 3, 4),) * 2}
PARTS, LEAST, PROGRAMS = 64, 256, 512  # chunks of rows at most, rows of a chunk at least, about the number of programs
if device.INTERPRETED:  # its time grows with the number of programs
    TILES, PARTS = dict.fromkeys(TILES, (Tile(128, 128, 128, 1, 4),) * 2), 4


def linear(x, w, b=None, out=None):
    """W x + b; arguments as in `ref.layers.linear.linear`."""
    arrays, m, n, rows = _checked(x, w)
    weights, bias = given(arrays, (m, n), w=w)[0], given(arrays, (m,), b=b)[0]
    out, pointer = written("out", out, arrays, (*arrays.shape[:-1], m))
    for other, size in ((arrays.pointers[0], arrays.size), (weights, m * n), *([(bias, m)] if b is not None else [])):
        apart((pointer, rows * m), (other, size))
    _product(arrays, pointer, (arrays.pointers[0], n, 1), (weights, 1, n), bias, rows, m, n)
    return out


def linear_backward(dy, x, w, out=None):
    """Gradients of `linear`; arguments as in `ref.layers.linear.linear_backward`. out: of dx alone."""
    arrays, m, n, rows = _checked(x, w)
    weights, upstream = given(arrays, (m, n), w=w)[0], given(arrays, (*arrays.shape[:-1], m), dy=dy)[0]
    dx, pointer = written("out", out, arrays, arrays.shape)
    apart((pointer, rows * n), (upstream, rows * m))
    apart((pointer, rows * n), (arrays.pointers[0], rows * n))
    apart((pointer, rows * n), (weights, m * n))
    # dx = dy w; for tf32 the tensor cores need the terms of a sum next to each other in memory, so w is transposed
    right = weights, n, 1
    if arrays.dtype == "float32":
        right = packed_weights(arrays, weights, n, m, Taps(0, 1, n, 0, 0, n, m, 1, 1)), 1, m
    _product(arrays, pointer, (upstream, m, 1), right, None, rows, n, m)
    # dw = dy^T x and db, a chunk of rows in each program, then the chunks in order
    tile = TILES[arrays.dtype != "float32"][1]
    grid = launch.programs(m, tile.ROWS) * launch.programs(n, tile.COLUMNS)
    parts = max(1, min(PARTS, rows // LEAST, PROGRAMS // max(grid, 1)))
    sums, column_sums = launch.workspace(arrays, empty=[(parts * m * n, "float32"), (parts * m, "float32")])
    launch.run(_outer, grid * parts, arrays, sums, column_sums, upstream, arrays.pointers[0], rows, m, n, parts,
               launch.programs(rows, parts), **tile._asdict())  # fmt: skip
    dw, db = added(arrays, sums, 1, (m * n,), parts)[0], added(arrays, column_sums, 1, (m,), parts)[0]
    return dx, dw.reshape(m, n), db


def _checked(x, w):
    """`Arrays` of x, m, n, and the number of rows."""
    arrays = read(STORED, x=x)
    if len(w.shape) != 2 or not arrays.shape or arrays.shape[-1] != w.shape[1]:
        raise ValueError(f"expected x (..., n), w (m, n), got x {arrays.shape}, w {tuple(w.shape)}")
    return arrays, *map(int, w.shape), math.prod(arrays.shape[:-1])


def _product(arrays, to, left, right, bias, rows, columns, terms):
    """to = left right + bias. left, right: (pointer, step to the next row, to the next column)."""
    tile = TILES[arrays.dtype != "float32"][0]
    grid = launch.programs(rows, tile.ROWS) * launch.programs(columns, tile.COLUMNS)
    launch.run(_affine, grid, arrays, to, *left, *right, bias, rows, columns, terms, **tile._asdict())


@triton.jit(do_not_specialize=["rows"])
def _affine(
    y, a, a_row, a_column, b, b_row, b_column, bias, rows, columns, terms,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    row, column = tile_of(tl.program_id(0), tl.cdiv(columns, COLUMNS), ROWS, COLUMNS)
    k = tl.arange(0, CHUNK)
    left = a + row.to(tl.int64)[:, None] * a_row + k[None, :] * a_column
    right = b + k.to(tl.int64)[:, None] * b_row + column.to(tl.int64)[None, :] * b_column
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, terms, CHUNK, num_stages=STAGES):
        there = k < terms - first
        x = tl.load(left, mask=(row < rows)[:, None] & there[None, :], other=0)
        w = tl.load(right, mask=there[:, None] & (column < columns)[None, :], other=0)
        sums = dot(operand(x), operand(w), sums)
        left += CHUNK * a_column
        right += CHUNK * tl.cast(b_row, tl.int64)
    if bias is not None:
        sums += tl.load(bias + column, mask=column < columns, other=0).to(tl.float32)[None, :]
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(y + row.to(tl.int64)[:, None] * columns + column[None, :], stored(sums, y), mask=inside)


@triton.jit(do_not_specialize=["rows", "parts", "length"])
def _outer(
    sums, column_sums, dy, x, rows, m, n, parts, length,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    part, tile = tl.program_id(0) % parts, tl.program_id(0) // parts
    row, column = tile_of(tile, tl.cdiv(n, COLUMNS), ROWS, COLUMNS)  # of dw (m, n)
    begin = part.to(tl.int64) * length
    end = tl.minimum(begin + length, rows)
    k, total, total_dy = tl.arange(0, CHUNK), tl.zeros((ROWS, COLUMNS), tl.float32), tl.zeros((ROWS,), tl.float32)
    for first in tl.range(begin, end, CHUNK, num_stages=STAGES):
        at = first + k
        d = tl.load(dy + at[None, :] * m + row[:, None], mask=(row < m)[:, None] & (at < end)[None, :], other=0)
        v = tl.load(x + at[:, None] * n + column[None, :], mask=(at < end)[:, None] & (column < n)[None, :], other=0)
        total = dot(operand(d), operand(v), total)
        total_dy += tl.sum(d.to(tl.float32), 1)
    inside = (row < m)[:, None] & (column < n)[None, :]
    tl.store(sums + (part.to(tl.int64) * m + row)[:, None] * n + column[None, :], total, mask=inside)
    if tile % tl.cdiv(n, COLUMNS) == 0:
        tl.store(column_sums + part * m + row, total_dy, mask=row < m)
