"""The gradient of `ref.layers.group_norm_silu` on the GPU, walked as in `group`.

dx needs two sums of each group, which follow from those of its channels, and so do dw and db: the sums of a channel are
written for each example and part, then added in one order.
"""
import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu import launch
from kernels.triton_gpu.arrays import output
from kernels.triton_gpu.layers.group import (
    kept_moments, kept_tiles, merged, moments_of, part_of, place, scale_of, sigmoid, sizes_of, tile, walk_of,
)  # fmt: skip
from kernels.triton_gpu.layers.vectors import added, given
from kernels.triton_gpu.philox import stored


def group_norm_silu_backward(dy, x, groups, w, b, eps, out=None):
    """Gradients of `group_norm_silu`; arguments as in `ref.layers.fused.group_norm_silu_backward`. out: of dx alone,
    which may be x or dy."""
    arrays, walk = walk_of("backward", groups, dy=dy, x=x)
    vectors, sizes = given(arrays, arrays.shape[1:2], w=w, b=b), sizes_of(arrays, walk)
    dx, pointer = output("out", out, arrays)
    sums = launch.scratch(np.empty(2 * sizes.sums, np.float32), arrays, filled=False)
    more = pointer, sums, *arrays.pointers, *vectors, float(eps), sizes
    if walk.kept:
        launch.run(_kept, sizes.count, arrays, *more, **tile(walk), warps=walk.warps)
    else:
        moments, block = moments_of(arrays, arrays.pointers[1], sizes)
        for kernel in (_sums, _slopes):
            grid = sizes.count * sizes.parts
            launch.run(kernel, grid, arrays, *more, moments, **tile(walk), BLOCK=block, warps=walk.warps)
    if w is None:
        return dx, None, None
    db, dw = added(arrays, sums, 2, arrays.shape[1:2], arrays.shape[0] * sizes.parts)
    return dx, dw, db


@triton.jit
def silu_slope(dy, z):
    """The gradient of silu: dy s (1 + z (1 - s)). dy, z: blocks."""
    s = sigmoid(z)
    return dy * (s * (1.0 + z * (1.0 - s)))


@triton.jit
def slopes(dy, x, at, inside, mean, left, over, scale, shift):
    """dz and x_hat of a tile. dy, x: pointers or tiles of the data. at, inside: as in `place`. mean, left: numbers.
    over, scale, shift: w / sigma, w and b of its rows."""
    c = tl.where(inside, x.to(tl.float32) - mean - left, 0.0)
    return silu_slope(dy.to(tl.float32), tl.fma(c, over, shift)), c


@triton.jit(do_not_specialize=["eps"])
def _kept(
    dx, sums, dy, x, w, b, eps, sizes,
    ROWS: tl.constexpr, COLS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    channels, pixels, total = sizes.channels, sizes.pixels, sizes.sums
    group, n = tl.program_id(0), channels * pixels
    base, first = group.to(tl.int64) * n, group % sizes.groups * channels
    sums += group * channels
    xs = kept_tiles(x + base, channels, pixels, ROWS, COLS, ACROSS, DOWN * ACROSS)
    dys = kept_tiles(dy + base, channels, pixels, ROWS, COLS, ACROSS, DOWN * ACROSS)
    mean, left, sigma = kept_moments(xs, n, eps, channels, pixels, ROWS, COLS, ACROSS, EVEN)
    # The sums of each channel, and of the group
    mean_of, slope_of = 0.0, 0.0
    for down in tl.static_range(DOWN):
        db, dw = tl.zeros((ROWS, COLS), tl.float32), tl.zeros((ROWS, COLS), tl.float32)
        for across in tl.static_range(ACROSS):
            row, at, inside = place(down * ACROSS + across, channels, pixels, ROWS, COLS, ACROSS)
            over, scale, shift = scale_of(w, b, first, row, channels, sigma)
            dz, c = slopes(dys[down * ACROSS + across], xs[down * ACROSS + across], at, inside, mean, left, over, scale,
                           shift)
            db, dw = db + dz, tl.fma(dz, c, dw)
        mean_of, slope_of = written(
            sums, w, first, tl.sum(db, 1), tl.sum(dw, 1), down, sigma, total, channels, mean_of, slope_of, ROWS)
    mean_of, slope_of = mean_of / n, slope_of / n
    # The gradient
    for t in tl.static_range(DOWN * ACROSS):
        row, at, inside = place(t, channels, pixels, ROWS, COLS, ACROSS)
        over, scale, shift = scale_of(w, b, first, row, channels, sigma)
        dz, c = slopes(dys[t], xs[t], at, inside, mean, left, over, scale, shift)
        d = (tl.fma(dz, scale, -mean_of) - c / sigma * slope_of) / sigma
        tl.store(dx + base + at, stored(d, dx), mask=inside)


@triton.jit
def written(sums, w, first, db, dw, down, sigma, total, channels, mean_of, slope_of, ROWS: tl.constexpr):
    """Stores the sums of a tile's channels, and adds w db and w dw to the numbers mean_of and slope_of. sums: pointer
    to the first of the group. w: pointer or None, read from `first` on. db, dw: (ROWS,), dw in units of 1 / sigma.
    down: of the tile. total: sums of a kind. channels: of a group."""
    row = down * ROWS + tl.arange(0, ROWS)
    dw = dw / sigma
    tl.store(sums + row, db, mask=row < channels)
    tl.store(sums + total + row, dw, mask=row < channels)
    if w is not None:
        weight = tl.load(w + first + row, mask=row < channels, other=0).to(tl.float32)
        db, dw = db * weight, dw * weight
    return mean_of + tl.sum(db), slope_of + tl.sum(dw)


@triton.jit(do_not_specialize=["eps"])
def _sums(
    dx, sums, dy, x, w, b, eps, sizes, moments,
    ROWS: tl.constexpr, COLS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    channels, pixels, parts, total = sizes.channels, sizes.pixels, sizes.parts, sizes.sums
    groups = sizes.groups
    group, n = tl.program_id(0) // parts, channels * pixels
    base, begin = group.to(tl.int64) * n, group % groups * channels
    sums += (group // groups * parts + tl.program_id(0) % parts) * (groups * channels) + begin
    mean, left, sigma = merged(moments, group, sizes.count, parts, n, eps, BLOCK)
    first, end = part_of(ACROSS, parts)
    for down in range(DOWN):
        db, dw = tl.zeros((ROWS, COLS), tl.float32), tl.zeros((ROWS, COLS), tl.float32)
        for across in range(first, end):
            row, at, inside = place(down * ACROSS + across, channels, pixels, ROWS, COLS, ACROSS)
            over, scale, shift = scale_of(w, b, begin, row, channels, sigma)
            v, d = tl.load(x + base + at, mask=inside, other=0), tl.load(dy + base + at, mask=inside, other=0)
            dz, c = slopes(d, v, at, inside, mean, left, over, scale, shift)
            db, dw = db + dz, tl.fma(dz, c, dw)
        written(sums, None, begin, tl.sum(db, 1), tl.sum(dw, 1), down, sigma, total, channels, 0.0, 0.0, ROWS)


@triton.jit(do_not_specialize=["eps"])
def _slopes(
    dx, sums, dy, x, w, b, eps, sizes, moments,
    ROWS: tl.constexpr, COLS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    channels, pixels, parts, total = sizes.channels, sizes.pixels, sizes.parts, sizes.sums
    groups = sizes.groups
    group, n = tl.program_id(0) // parts, channels * pixels
    base, begin = group.to(tl.int64) * n, group % groups * channels
    sums += group // groups * parts * (groups * channels) + begin
    mean, left, sigma = merged(moments, group, sizes.count, parts, n, eps, BLOCK)
    # The sums of the group
    mean_of, slope_of = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    for down in range(DOWN):
        row = down * ROWS + tl.arange(0, ROWS)
        weight = tl.full((ROWS,), 1.0, tl.float32)
        if w is not None:
            weight = tl.load(w + begin + row, mask=row < channels, other=0).to(tl.float32)
        for part in range(parts):
            at = part * (groups * channels) + row
            mean_of += weight * tl.load(sums + at, mask=row < channels, other=0)
            slope_of += weight * tl.load(sums + total + at, mask=row < channels, other=0)
    mean_of, slope_of = tl.sum(mean_of) / n, tl.sum(slope_of) / n
    # The gradient
    first, end = part_of(ACROSS, parts)
    for t in range(DOWN * (end - first)):
        down = t // (end - first)
        row, at, inside = place(down * ACROSS + first + t - down * (end - first), channels, pixels, ROWS, COLS, ACROSS)
        over, scale, shift = scale_of(w, b, begin, row, channels, sigma)
        v, d = tl.load(x + base + at, mask=inside, other=0), tl.load(dy + base + at, mask=inside, other=0)
        dz, c = slopes(d, v, at, inside, mean, left, over, scale, shift)
        d = (tl.fma(dz, scale, -mean_of) - c / sigma * slope_of) / sigma
        tl.store(dx + base + at, stored(d, dx), mask=inside)
