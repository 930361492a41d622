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
    kept_moments, kept_tiles, merged, moments_of, moved, part_of, place, scale_of, sigmoid, tile, walk_of,
)  # fmt: skip
from kernels.triton_gpu.layers.vectors import added, given
from kernels.triton_gpu.philox import stored


def group_norm_silu_backward(dy, x, groups, w, b, eps, out=None):
    """Gradients of `group_norm_silu`; arguments as in `ref.layers.fused.group_norm_silu_backward`. out: of dx alone,
    which may be x or dy."""
    arrays, walk = walk_of("backward", groups, dy=dy, x=x)
    examples, channels = arrays.shape[:2]
    vectors = given(arrays, (channels,), w=w, b=b)
    dx, pointer = output("out", out, arrays)
    sums = launch.scratch(np.empty((2, examples, walk.parts, channels), np.float32), arrays, filled=False)
    count, total = examples * walk.groups, examples * walk.parts * channels
    given_to = *arrays.pointers, *vectors, float(eps)
    sizes = total, walk.groups, walk.channels, walk.pixels
    if walk.kept:
        launch.run(_kept, count, arrays, pointer, sums, *given_to, *sizes, **tile(walk), warps=walk.warps)
    else:
        moments, block = moments_of(arrays, arrays.pointers[1], walk, count)
        for kernel in (_sums, _slopes):
            launch.run(
                kernel, count * walk.parts, arrays, pointer, sums, *given_to, moments, count, *sizes, walk.parts,
                **tile(walk), BLOCK=block, warps=walk.warps,
            )  # fmt: skip
    if w is None:
        return dx, None, None
    db, dw = added(arrays, sums, 2, (channels,), examples * walk.parts)
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


@triton.jit(do_not_specialize=["total", "groups", "eps"])
def _kept(
    dx, sums, dy, x, w, b, eps, total, groups, channels, pixels,
    ROWS: tl.constexpr, COLS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    group, n = tl.program_id(0), channels * pixels
    base, first = group.to(tl.int64) * n, group % groups * channels
    w, b, sums = moved(w, first), moved(b, first), sums + group * channels
    xs = kept_tiles(x + base, channels, pixels, ROWS, COLS, ACROSS, DOWN * ACROSS)
    dys = kept_tiles(dy + base, channels, pixels, ROWS, COLS, ACROSS, DOWN * ACROSS)
    mean, left, sigma = kept_moments(xs, n, eps, channels, pixels, ROWS, COLS, ACROSS)
    # The sums of each channel, and of the group
    mean_of, slope_of = 0.0, 0.0
    for down in tl.static_range(DOWN):
        db, dw = tl.zeros((ROWS, COLS), tl.float32), tl.zeros((ROWS, COLS), tl.float32)
        for across in tl.static_range(ACROSS):
            row, at, inside = place(down * ACROSS + across, channels, pixels, ROWS, COLS, ACROSS)
            over, scale, shift = scale_of(w, b, row, channels, sigma)
            dz, c = slopes(dys[down * ACROSS + across], xs[down * ACROSS + across], at, inside, mean, left, over, scale,
                           shift)
            db, dw = db + dz, tl.fma(dz, c, dw)
        mean_of, slope_of = written(
            sums, w, tl.sum(db, 1), tl.sum(dw, 1), down, sigma, total, channels, mean_of, slope_of, ROWS)
    mean_of, slope_of = mean_of / n, slope_of / n
    # The gradient
    for t in tl.static_range(DOWN * ACROSS):
        row, at, inside = place(t, channels, pixels, ROWS, COLS, ACROSS)
        over, scale, shift = scale_of(w, b, row, channels, sigma)
        dz, c = slopes(dys[t], xs[t], at, inside, mean, left, over, scale, shift)
        d = (tl.fma(dz, scale, -mean_of) - c / sigma * slope_of) / sigma
        tl.store(dx + base + at, stored(d, dx), mask=inside)


@triton.jit
def written(sums, w, db, dw, down, sigma, total, channels, mean_of, slope_of, ROWS: tl.constexpr):
    """Stores the sums of a tile's channels, and adds w db and w dw to the numbers mean_of and slope_of. sums: pointer
    to the first of the group. w: pointer or None. db, dw: (ROWS,), dw in units of 1 / sigma. down: of the tile. total:
    sums of a kind. channels: of a group."""
    row = down * ROWS + tl.arange(0, ROWS)
    dw = dw / sigma
    tl.store(sums + row, db, mask=row < channels)
    tl.store(sums + total + row, dw, mask=row < channels)
    if w is not None:
        weight = tl.load(w + row, mask=row < channels, other=0).to(tl.float32)
        db, dw = db * weight, dw * weight
    return mean_of + tl.sum(db), slope_of + tl.sum(dw)


@triton.jit(do_not_specialize=["count", "total", "groups", "parts", "eps"])
def _sums(
    dx, sums, dy, x, w, b, eps, moments, count, total, groups, channels, pixels, parts,
    ROWS: tl.constexpr, COLS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    group, n = tl.program_id(0) // parts, channels * pixels
    base, begin = group.to(tl.int64) * n, group % groups * channels
    w, b = moved(w, begin), moved(b, begin)
    sums += (group // groups * parts + tl.program_id(0) % parts) * (groups * channels) + begin
    mean, left, sigma = merged(moments, group, count, parts, n, eps, BLOCK)
    first, end = part_of(ACROSS, parts)
    for down in range(DOWN):
        db, dw = tl.zeros((ROWS, COLS), tl.float32), tl.zeros((ROWS, COLS), tl.float32)
        for across in range(first, end):
            row, at, inside = place(down * ACROSS + across, channels, pixels, ROWS, COLS, ACROSS)
            over, scale, shift = scale_of(w, b, row, channels, sigma)
            v, d = tl.load(x + base + at, mask=inside, other=0), tl.load(dy + base + at, mask=inside, other=0)
            dz, c = slopes(d, v, at, inside, mean, left, over, scale, shift)
            db, dw = db + dz, tl.fma(dz, c, dw)
        written(sums, None, tl.sum(db, 1), tl.sum(dw, 1), down, sigma, total, channels, 0.0, 0.0, ROWS)


@triton.jit(do_not_specialize=["count", "total", "groups", "parts", "eps"])
def _slopes(
    dx, sums, dy, x, w, b, eps, moments, count, total, groups, channels, pixels, parts,
    ROWS: tl.constexpr, COLS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    group, n = tl.program_id(0) // parts, channels * pixels
    base, begin = group.to(tl.int64) * n, group % groups * channels
    w, b, sums = moved(w, begin), moved(b, begin), sums + group // groups * parts * (groups * channels) + begin
    mean, left, sigma = merged(moments, group, count, parts, n, eps, BLOCK)
    # The sums of the group
    mean_of, slope_of = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    for down in range(DOWN):
        row = down * ROWS + tl.arange(0, ROWS)
        weight = tl.full((ROWS,), 1.0, tl.float32)
        if w is not None:
            weight = tl.load(w + row, mask=row < channels, other=0).to(tl.float32)
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
        over, scale, shift = scale_of(w, b, row, channels, sigma)
        v, d = tl.load(x + base + at, mask=inside, other=0), tl.load(dy + base + at, mask=inside, other=0)
        dz, c = slopes(d, v, at, inside, mean, left, over, scale, shift)
        d = (tl.fma(dz, scale, -mean_of) - c / sigma * slope_of) / sigma
        tl.store(dx + base + at, stored(d, dx), mask=inside)
