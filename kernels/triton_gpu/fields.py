"""`ref.scene.fields.trilinear` on the GPU. Positions in the grid are computed in float64, so that a point lies in the
same cell as in the truth. Each point adds to the gradients of the 8 corners of its cell. These 8 N contributions are
sorted by voxel, stably, and summed in that order, so every run gives the same bits. `out` takes the first result.

Bytes of the gradient, for each of the 8 N contributions to C channels: 20 for each pass of `sort.radix_sort`, one for
every 4 bits of the number of voxels, then C floats written and read.

Papers
    [Plenoxels]  Fridovich-Keil et al., "Plenoxels: Radiance Fields without Neural Networks", 2022
"""
import triton
import triton.language as tl

from kernels.triton_gpu import launch, sort
from kernels.triton_gpu.arrays import SINGLE, apart, output, read
from kernels.triton_gpu.layers.vectors import fresh, given, written

POINTS = 256  # points, or contributions of points, of a program


def trilinear(grid, x, out=None):
    """[Plenoxels] section 3.3 on the GPU, arguments as in `ref.scene.fields.trilinear`. out: takes y."""
    arrays, points, sizes, n = _read(grid, x)
    y, to = written("out", out, arrays, (n, arrays.shape[0]))
    apart((to, n * arrays.shape[0]), (arrays.pointers[0], arrays.size))
    apart((to, n * arrays.shape[0]), (points, 3 * n))
    block = sort.block_for(n, POINTS)
    launch.run(_gather, launch.programs(n, block), arrays, to, arrays.pointers[0], points, *sizes, n,
               C=arrays.shape[0], POINTS=block)  # fmt: skip
    return y


def trilinear_backward(dy, grid, x, out=None):
    """Gradients of `trilinear` on the GPU, arguments as in `ref.scene.fields.trilinear_backward`. out: takes dgrid."""
    arrays, points, sizes, n = _read(grid, x)
    channels, cells, size = arrays.shape[0], sizes[0] * sizes[1] * sizes[2], 8 * n
    if size > sort.MOST_PAIRS or cells >= 2**31:
        most = sort.MOST_PAIRS // 8
        raise ValueError(f"x and grid: expected at most {most} points and fewer than 2^31 voxels, got {n} and {cells}")
    (upstream,) = given(arrays, (n, channels), dy=dy)
    dgrid, to_grid = output("out", out, arrays)
    for pointer, length in ((upstream, n * channels), (points, 3 * n)):
        apart((to_grid, arrays.size), (pointer, length))
    dx, to_x = fresh(arrays, (n, 3))
    keys, values = launch.workspace(arrays, empty=[(size, "int32"), (sort.rows_for(size) * channels, "float32")])
    block = sort.block_for(n, POINTS)
    launch.run(_slopes, launch.programs(n, block), arrays, to_x, keys, upstream, arrays.pointers[0], points, *sizes, n,
               C=channels, POINTS=block)  # fmt: skip
    # Sort the contributions by voxel; corners outside of the grid have the key `cells`, and come last
    keys, order = sort.radix_sort(keys, size, 0, cells.bit_length(), arrays)
    begin = sort.segment_begins(keys, size, cells, arrays)
    block = sort.block_for(size, POINTS)
    launch.run(_contributions, launch.programs(size, block), arrays, values, order, upstream, points, *sizes, size,
               C=channels, POINTS=block)  # fmt: skip
    # The sum of each voxel's segment
    sort.add_chunks(values, size, channels, arrays)
    block = sort.block_for(cells, sort.SEGMENTS)
    launch.run(_voxels, launch.programs(cells, block), arrays, to_grid, values, begin, size, cells, warps=1,
               C=channels, SEGMENTS=block, CHUNK=sort.CHUNK)  # fmt: skip
    return dgrid, dx


def _read(grid, x):
    """`Arrays` of the grid, a pointer to the points, (X, Y, Z), and the number of points."""
    arrays, points = read(SINGLE, grid=grid), read(SINGLE, x=x)
    if len(arrays.shape) != 4:
        raise ValueError(f"grid: expected shape (C, X, Y, Z), got {arrays.shape}")
    n = int(points.shape[0]) if points.shape else 0
    (pointer,) = given(arrays, (n, 3), x=x)
    return arrays, pointer, tuple(map(int, arrays.shape[1:])), n


@triton.jit
def along(x, size):
    """On one axis, the index of the first of the two voxels that a coordinate lies between, int32, and the weights of
    both, float64. x: float32 block, in [-1, 1] inside of the grid. size: voxels of the axis."""
    p = (x.to(tl.float64) + 1.0) / 2 * (size - 1)
    first = tl.floor(p)
    fraction = p - first  # NaN stays in it
    first = tl.where(first > -2.0, tl.where(first < size + 1.0, first, size + 1.0), -2.0)  # fits in int32
    return tl.where(fraction == fraction, first, 0.0).to(tl.int32), 1 - fraction, fraction


@triton.jit
def cell(x, n, sizes, there):
    """`along` each of the three axes. x: pointer to (N, 3). n: block of indices of points. sizes: (X, Y, Z). there:
    mask of the points."""
    u, v, w = (tl.load(x + 3 * n, mask=there, other=0), tl.load(x + 3 * n + 1, mask=there, other=0),
               tl.load(x + 3 * n + 2, mask=there, other=0))  # fmt: skip
    return along(u, sizes[0]), along(v, sizes[1]), along(w, sizes[2])


@triton.jit
def corner(places, sizes, a, b, c):
    """The flat index of corner (a, b, c) of each cell, int64, and whether it is inside of the grid. places: from
    `cell`. sizes: (X, Y, Z). a, b, c: 0 or 1."""
    i, j, k = places[0][0] + a, places[1][0] + b, places[2][0] + c
    inside = (i >= 0) & (i < sizes[0]) & (j >= 0) & (j < sizes[1]) & (k >= 0) & (k < sizes[2])
    return (i.to(tl.int64) * sizes[1] + j) * sizes[2] + k, inside


@triton.jit(do_not_specialize=["X", "Y", "Z", "n"])
def _gather(y, grid, x, X, Y, Z, n, C: tl.constexpr, POINTS: tl.constexpr):
    point = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    there, sizes, cells = point < n, (X, Y, Z), tl.cast(X, tl.int64) * Y * Z
    places = cell(x, point, sizes, there)
    for channel in range(C):
        total = tl.zeros((POINTS,), tl.float32)
        for k in tl.static_range(8):
            at, inside = corner(places, sizes, k // 4, k // 2 % 2, k % 2)
            weight = places[0][1 + k // 4] * places[1][1 + k // 2 % 2] * places[2][1 + k % 2]
            value = tl.load(grid + channel * cells + at, mask=there & inside, other=0)
            total = tl.fma(weight.to(tl.float32), value, total)
        tl.store(y + point * C + channel, total, mask=there)


# dx, and the key of each contribution: its voxel
@triton.jit(do_not_specialize=["X", "Y", "Z", "n"])
def _slopes(dx, keys, dy, grid, x, X, Y, Z, n, C: tl.constexpr, POINTS: tl.constexpr):
    point = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    there, sizes, cells = point < n, (X, Y, Z), tl.cast(X, tl.int64) * Y * Z
    places = cell(x, point, sizes, there)
    zero = tl.zeros((POINTS,), tl.float64)
    du, dv, dw = zero, zero, zero
    for k in tl.static_range(8):
        at, inside = corner(places, sizes, k // 4, k // 2 % 2, k % 2)
        tl.store(keys + 8 * point + k, tl.where(inside, at, cells).to(tl.int32), mask=there)
        s = tl.zeros((POINTS,), tl.float32)
        for channel in range(C):  # the grid is 0 outside; dy = NaN still gives NaN
            value = tl.load(grid + channel * cells + at, mask=there & inside, other=0)
            s = tl.fma(tl.load(dy + point * C + channel, mask=there, other=0), value, s)
        f, g, h = places[0][1 + k // 4], places[1][1 + k // 2 % 2], places[2][1 + k % 2]
        du += (g * h * s) * (2 * (k // 4) - 1)
        dv += (f * h * s) * (2 * (k // 2 % 2) - 1)
        dw += (f * g * s) * (2 * (k % 2) - 1)
    tl.store(dx + 3 * point, (du * (X - 1) / 2).to(tl.float32), mask=there)
    tl.store(dx + 3 * point + 1, (dv * (Y - 1) / 2).to(tl.float32), mask=there)
    tl.store(dx + 3 * point + 2, (dw * (Z - 1) / 2).to(tl.float32), mask=there)


@triton.jit(do_not_specialize=["X", "Y", "Z", "size"])
def _contributions(values, order, dy, x, X, Y, Z, size, C: tl.constexpr, POINTS: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    there = i < size
    e = tl.load(order + i, mask=there, other=0)
    point, k = (e // 8).to(tl.int64), e % 8  # corner k of the point's cell
    u, v, w = cell(x, point, (X, Y, Z), there)
    weight = tl.where(k // 4 > 0, u[2], u[1]) * tl.where(k // 2 % 2 > 0, v[2], v[1]) * tl.where(k % 2 > 0, w[2], w[1])
    for channel in range(C):
        up = tl.load(dy + point * C + channel, mask=there, other=0)
        tl.store(values + i * C + channel, weight.to(tl.float32) * up, mask=there)


@triton.jit(do_not_specialize=["size", "cells"])
def _voxels(dgrid, values, begin, size, cells, C: tl.constexpr, SEGMENTS: tl.constexpr, CHUNK: tl.constexpr):
    voxel = tl.program_id(0) * SEGMENTS + tl.arange(0, SEGMENTS)
    there = voxel < cells
    first, last = tl.load(begin + voxel, mask=there, other=0), tl.load(begin + voxel + 1, mask=there, other=0)
    sums = sort.segment_sums(values, first, last, size, C, CHUNK)
    for c in tl.static_range(C):
        tl.store(dgrid + tl.cast(c, tl.int64) * cells + voxel, sums[c].to(tl.float32), mask=there)
