"""`ref.scene.fields.trilinear` on the CPU. Places are computed in float64, so that a point lies in the cell of the
truth. Gradients of a cell are added in the order of the points, by the one thread that owns its layer of the grid.
`out` takes the first result.

Papers
    [Plenoxels]  Fridovich-Keil et al., "Plenoxels: Radiance Fields without Neural Networks", 2022
"""
import math

import numpy as np

from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, OVER, element
from kernels.numba_cpu.intrinsics import wide

POINTS = 256  # of a block


def trilinear(grid, x, out=None):
    """[Plenoxels] section 3.3 on the CPU, arguments as in `ref.scene.fields.trilinear`. out: takes y."""
    sizes, flat, points = _checked(grid, x)
    shape = len(x), len(grid)
    y, how = engine.output(out, shape, grid.dtype, flat, points)
    y = np.empty(y.size, y.dtype) if how == OVER else y
    engine.run(gather, len(x) * len(grid) * 8, y, flat, points, sizes, len(grid), parts=-(-len(x) // POINTS))
    return engine.finish(y, out, shape)


def trilinear_backward(dy, grid, x, out=None):
    """Gradients of `trilinear` on the CPU, arguments as in `ref.scene.fields.trilinear_backward`. out: takes dgrid."""
    sizes, flat, points = _checked(grid, x)
    upstream = engine.like("dy", dy, grid.dtype, (len(x), len(grid)))
    dgrid, how = engine.output(out, grid.shape, grid.dtype, upstream, flat, points)
    dgrid, dx = np.empty(dgrid.size, dgrid.dtype) if how == OVER else dgrid, np.empty(x.shape, x.dtype)
    work = len(x) * len(grid) * 8
    dgrid[: 0 if sizes[0] else dgrid.size] = 0
    engine.run(scatter, max(work, dgrid.size), dgrid, upstream, points, sizes, len(grid), parts=sizes[0])
    engine.run(slopes, work, dx.reshape(-1), upstream, flat, points, sizes, len(grid), parts=-(-len(x) // POINTS))
    return engine.finish(dgrid, out, grid.shape), dx


def _checked(grid, x):
    """The three sizes, the grid and the points, flat, after the check."""
    shape, dtype = engine.same(grid=grid)
    if len(shape) != 4:
        raise ValueError(f"grid: expected shape (C, X, Y, Z), got {shape}")
    return shape[1:], engine.flat(grid), engine.like("x", x, dtype, (np.shape(x)[0] if np.ndim(x) else 0, 3))


@element
def cell(x, size):
    """The first of the two values that a coordinate lies between, and how far it is on the way to the second, in
    float64. x: a number. size: of the axis. NaN stays in the way."""
    p = (x + 1.0) / 2 * (size - 1)
    first = math.floor(p) if math.isfinite(p) else p
    way = p - first
    if not math.isfinite(first):
        return (0 if first != first else size + 1 if first > 0 else -2), way
    return int(min(max(first, -2.0), size + 1.0)), way


@element
def corner(k, first, way, size):
    """The place, the weight, and whether it is inside of the grid, of corner k = 0 or 1 on an axis. first, way, size:
    of `cell`."""
    return first + k, way if k else 1 - way, 0 <= first + k < size


@njit(**COMPILE)
def gather(lo, hi, y, grid, x, sizes, C):
    """`trilinear` of the blocks lo .. hi - 1 of points. y, grid, x: flat. sizes: (X, Y, Z). C: channels."""
    wide()
    X, Y, Z = sizes
    cells, sums = X * Y * Z, np.empty(C)
    for n in range(lo * POINTS, min(hi * POINTS, x.size // 3)):
        i, f = cell(x[3 * n], X)
        j, g = cell(x[3 * n + 1], Y)
        k, h = cell(x[3 * n + 2], Z)
        sums[:] = 0 * (f + g + h)  # NaN of a place is NaN everywhere
        for a in range(2):
            at_x, wx, in_x = corner(a, i, f, X)
            for b in range(2):
                at_y, wy, in_y = corner(b, j, g, Y)
                for c in range(2):
                    at_z, wz, in_z = corner(c, k, h, Z)
                    if in_x and in_y and in_z:
                        weight, place = wx * wy * wz, (at_x * Y + at_y) * Z + at_z
                        for channel in range(C):
                            sums[channel] += weight * grid[channel * cells + place]
        for channel in range(C):
            y[n * C + channel] = sums[channel]


@njit(**COMPILE)
def scatter(lo, hi, dgrid, dy, x, sizes, C):
    """dgrid of the layers lo .. hi - 1 along its first axis. dgrid, dy, x: flat. sizes, C: as in `gather`."""
    X, Y, Z = sizes
    cells, layer = X * Y * Z, Y * Z
    sums = np.zeros((hi - lo) * layer * C)  # (layers, Y, Z, C)
    for n in range(x.size // 3):
        i, f = cell(x[3 * n], X)
        if i + 1 >= lo and i < hi:
            j, g = cell(x[3 * n + 1], Y)
            k, h = cell(x[3 * n + 2], Z)
            for a in range(2):
                at_x, wx, _ = corner(a, i, f, X)
                for b in range(2):
                    at_y, wy, in_y = corner(b, j, g, Y)
                    for c in range(2):
                        at_z, wz, in_z = corner(c, k, h, Z)
                        if lo <= at_x < hi and in_y and in_z:
                            weight, place = wx * wy * wz, (((at_x - lo) * Y + at_y) * Z + at_z) * C
                            for channel in range(C):
                                sums[place + channel] += weight * dy[n * C + channel]
    for channel in range(C):
        for place in range((hi - lo) * layer):
            dgrid[channel * cells + lo * layer + place] = sums[place * C + channel]


@njit(**COMPILE)
def slopes(lo, hi, dx, dy, grid, x, sizes, C):
    """dx of the blocks lo .. hi - 1 of points. dx, dy, grid, x: flat. sizes, C: as in `gather`."""
    wide()
    X, Y, Z = sizes
    cells = X * Y * Z
    for n in range(lo * POINTS, min(hi * POINTS, x.size // 3)):
        i, f = cell(x[3 * n], X)
        j, g = cell(x[3 * n + 1], Y)
        k, h = cell(x[3 * n + 2], Z)
        du, dv, dw, nothing = 0 * (g + h), 0 * (f + h), 0 * (f + g), 0.0
        for channel in range(C):
            nothing += dy[n * C + channel] * 0.0  # what is outside of the grid counts as 0, and NaN stays NaN
        for a in range(2):
            at_x, wx, in_x = corner(a, i, f, X)
            for b in range(2):
                at_y, wy, in_y = corner(b, j, g, Y)
                for c in range(2):
                    at_z, wz, in_z = corner(c, k, h, Z)
                    s = nothing
                    if in_x and in_y and in_z:
                        place = (at_x * Y + at_y) * Z + at_z
                        for channel in range(C):
                            s += dy[n * C + channel] * grid[channel * cells + place]
                    du += (2 * a - 1) * wy * wz * s
                    dv += (2 * b - 1) * wx * wz * s
                    dw += (2 * c - 1) * wx * wy * s
        dx[3 * n], dx[3 * n + 1], dx[3 * n + 2] = du * (X - 1) / 2, dv * (Y - 1) / 2, dw * (Z - 1) / 2
