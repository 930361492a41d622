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
    block_of, kept_moments, moments_in, moments_of, part_of, place, scale_of, shared_by, sigmoid, sizes_of, tile,
    walk_of,
)  # fmt: skip
from kernels.triton_gpu.layers.vectors import added, given, halves, joined, loaded, pairs
from kernels.triton_gpu.philox import stored


def group_norm_silu_backward(dy, x, groups, w, b, eps, out=None):
    """Gradients of `group_norm_silu`; arguments as in `ref.layers.fused.group_norm_silu_backward`. out: of dx alone,
    which may be x or dy."""
    return _gradients(*walk_of("backward", groups, dy=dy, x=x), w, b, eps, out)


def of_group(dy, x, groups, w, b, eps, out=None):
    """The same for a dy that is a pointer, to float32; arguments as in `ref.layers.fused.group_norm_silu_backward`.
    out: of dx alone."""
    arrays, walk = walk_of("backward", groups, x=x)
    return _gradients(arrays._replace(pointers=[dy, *arrays.pointers]), walk, w, b, eps, out)


def _gradients(arrays, walk, w, b, eps, out):
    """dx, dw and db. arrays: `Arrays` of dy and x. walk: `Walk`. w, b, eps, out: of `group_norm_silu_backward`."""
    vectors, sizes = given(arrays, arrays.shape[1:2], w=w, b=b), sizes_of(arrays, walk)
    dx, pointer = output("out", out, arrays)
    sums = launch.scratch(np.empty(2 * sizes.sums, np.float32), arrays, filled=False)
    blocks, more = tile(walk), (*vectors, float(eps), sizes)
    if walk.kept:
        both = pairs(walk.pixels, pointer, *arrays.pointers)
        dx_dy_x, blocks["COLS"] = both or (pointer, *arrays.pointers), blocks["COLS"] // (1 + (both is not None))
        options = dict(warps=walk.warps, registers=128) if both else dict(warps=min(2 * walk.warps, 16))
        launch.run(_kept, sizes.count, arrays, dx_dy_x[0], sums, *dx_dy_x[1:], *more, **blocks, **options)
    elif walk.parts == 1:
        ins = pointer, sums, *arrays.pointers, *more
        launch.run(_looped, sizes.count, arrays, *ins, **blocks, BLOCK=block_of(sizes), warps=16, registers=64)
    else:
        moments, block = moments_of(arrays, arrays.pointers[1], sizes)
        for kernel in (_sums, _slopes):
            grid = sizes.count * sizes.parts
            ins = pointer, sums, *arrays.pointers, *more
            launch.run(kernel, grid, arrays, *ins, moments, **blocks, BLOCK=block, warps=walk.warps)
    if w is None:
        return dx, None, None
    db, dw = added(arrays, sums, 2, arrays.shape[1:2], arrays.shape[0] * sizes.parts)
    return dx, dw, db


@triton.jit
def silu_slope(dy, z):
    """The gradient of silu: dy s (1 + z (1 - s)). dy, z: blocks."""
    s = sigmoid(z)
    return dy * tl.fma(s, tl.fma(-s, z, z), s)


@triton.jit
def gradient(dz, c, scale, mean_of, slope_of, over):
    """(dz w - mean - x_hat slope) / sigma. dz: block. c: x_hat sigma. scale: w. mean_of, slope_of: numbers, the second
    over sigma. over: 1 / sigma."""
    return tl.fma(-c, slope_of, tl.fma(dz, scale, -mean_of)) * over


@triton.jit
def slope(
    dy, x, w, b, first, t, mean, left, sigma, size, ROWS: tl.constexpr, COLS: tl.constexpr, ACROSS: tl.constexpr
):
    """dz, x_hat sigma and w of tile t, where it is, and which elements there are. dy, x: of the group. w, b, first: as
    in `scale_of`. mean, left, sigma: of the group. size: its channels and pixels. ROWS, COLS, ACROSS: as in `place`."""
    row, at, inside = place(t, size[0], size[1], ROWS, COLS, ACROSS)
    over, scale, shift = scale_of(w, b, first, row, size[0], sigma)
    c = tl.load(x + at, mask=inside, other=0).to(tl.float32) - mean - left
    d = tl.load(dy + at, mask=inside, other=0).to(tl.float32)
    return silu_slope(d, tl.fma(c, over, shift)), c, scale, at, inside


@triton.jit(do_not_specialize=["eps"])
def _kept(
    dx, sums, dy, x, w, b, eps, sizes,
    ROWS: tl.constexpr, COLS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    channels, pixels, group, n = sizes.channels, sizes.pixels, tl.program_id(0), sizes.channels * sizes.pixels
    if x.dtype.element_ty == tl.int32:
        pixels = pixels // 2
    base, first = group.to(tl.int64) * (channels * pixels), group % sizes.groups * channels
    xs = loaded(x + base, place, (channels, pixels, ROWS, COLS, ACROSS), DOWN * ACROSS)
    mean, left, sigma = kept_moments(xs, n, eps, channels, pixels, ROWS, COLS, ACROSS, EVEN)
    # The sums of each channel, and of the group
    mean_of, slope_of = 0.0, 0.0
    for down in tl.static_range(DOWN):
        db, dw = tl.zeros((ROWS, COLS), tl.float32), tl.zeros((ROWS, COLS), tl.float32)
        for across in tl.static_range(ACROSS):
            row, at, inside = place(down * ACROSS + across, channels, pixels, ROWS, COLS, ACROSS)
            over, _, shift = scale_of(w, b, first, row, channels, sigma)
            v, d = halves(xs[down * ACROSS + across]), halves(tl.load(dy + base + at, mask=inside, other=0))
            for i in tl.static_range(len(v)):
                c = v[i] - mean - left
                dz = silu_slope(d[i], tl.fma(c, over, shift))
                db, dw = db + dz, tl.fma(dz, c, dw)
        mean_of, slope_of = written(
            sums + group * channels, w, first, tl.sum(db, 1), tl.sum(dw, 1), down, sigma, sizes.sums, channels, mean_of,
            slope_of, ROWS)
    # The gradient, for which dy is read again
    one_over = tl.div_rn(1.0 + 0.0 * sigma, sigma)
    mean_of, slope_of = mean_of / n, slope_of / n * one_over
    for t in tl.static_range(DOWN * ACROSS):
        row, at, inside = place(t, channels, pixels, ROWS, COLS, ACROSS)
        over, scale, shift = scale_of(w, b, first, row, channels, sigma)
        v, d, out = halves(xs[t]), halves(tl.load(dy + base + at, mask=inside, other=0)), ()
        for i in tl.static_range(len(v)):
            c = v[i] - mean - left
            dz = silu_slope(d[i], tl.fma(c, over, shift))
            out = out + (gradient(dz, c, scale, mean_of, slope_of, one_over),)
        tl.store(dx + base + at, joined(out, dx), mask=inside)


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
def _looped(
    dx, sums, dy, x, w, b, eps, sizes,
    ROWS: tl.constexpr, COLS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    channels, pixels, group, n = sizes.channels, sizes.pixels, tl.program_id(0), sizes.channels * sizes.pixels
    base, first = group.to(tl.int64) * n, group % sizes.groups * channels
    mean, left, square = moments_in(x + base, n, 0, (n + BLOCK - 1) // BLOCK, BLOCK)
    sigma = tl.sqrt_rn(square / n + eps)
    # The sums of each channel, and of the group; what is read again is still in the second-level cache
    mean_of, slope_of = 0.0, 0.0
    for down in range(DOWN):
        db, dw = channel_sums(
            dy + base, x + base, w, b, first, down, 0, ACROSS, mean, left, sigma, (channels, pixels), ROWS, COLS,
            ACROSS)
        mean_of, slope_of = written(
            sums + group * channels, w, first, db, dw, down, sigma, sizes.sums, channels, mean_of, slope_of, ROWS)
    # The gradient
    one_over = tl.div_rn(1.0 + 0.0 * sigma, sigma)
    mean_of, slope_of = mean_of / n, slope_of / n * one_over
    for t in range(DOWN * ACROSS):
        dz, c, scale, at, inside = slope(
            dy + base, x + base, w, b, first, t, mean, left, sigma, (channels, pixels), ROWS, COLS, ACROSS)
        tl.store(dx + base + at, stored(gradient(dz, c, scale, mean_of, slope_of, one_over), dx), mask=inside)


@triton.jit
def channel_sums(
    dy, x, w, b, first, down, begin, end, mean, left, sigma, size,
    ROWS: tl.constexpr, COLS: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """The sums of dz and of dz x_hat sigma over the pixels of the channels of a row of tiles, (ROWS,) each. down: which
    row. begin, end: of its tiles. The rest as in `slope`."""
    db, dw = tl.zeros((ROWS, COLS), tl.float32), tl.zeros((ROWS, COLS), tl.float32)
    for across in range(begin, end):
        t = down * ACROSS + across
        dz, c, _, _, _ = slope(dy, x, w, b, first, t, mean, left, sigma, size, ROWS, COLS, ACROSS)
        db, dw = db + dz, tl.fma(dz, c, dw)
    return tl.sum(db, 1), tl.sum(dw, 1)


@triton.jit(do_not_specialize=["eps"])
def _sums(
    dx, sums, dy, x, w, b, eps, sizes, moments,
    ROWS: tl.constexpr, COLS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    base, begin, own, mean, left, sigma = shared_by(sizes, moments, eps, BLOCK)
    sums += own + tl.program_id(0) % sizes.parts * (sizes.groups * sizes.channels)
    first, end = part_of(ACROSS, sizes.parts)
    for down in range(DOWN):
        db, dw = channel_sums(
            dy + base, x + base, w, b, begin, down, first, end, mean, left, sigma, (sizes.channels, sizes.pixels), ROWS,
            COLS, ACROSS)
        written(sums, None, begin, db, dw, down, sigma, sizes.sums, sizes.channels, 0.0, 0.0, ROWS)


@triton.jit(do_not_specialize=["eps"])
def _slopes(
    dx, sums, dy, x, w, b, eps, sizes, moments,
    ROWS: tl.constexpr, COLS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    channels, parts, n = sizes.channels, sizes.parts, sizes.channels * sizes.pixels
    base, begin, own, mean, left, sigma = shared_by(sizes, moments, eps, BLOCK)
    sums += own
    # The sums of the group
    mean_of, slope_of = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    for down in range(DOWN):
        row = down * ROWS + tl.arange(0, ROWS)
        weight = tl.full((ROWS,), 1.0, tl.float32)
        if w is not None:
            weight = tl.load(w + begin + row, mask=row < channels, other=0).to(tl.float32)
        for part in range(parts):
            of_part = sums + part * (sizes.groups * channels) + row
            mean_of += weight * tl.load(of_part, mask=row < channels, other=0)
            slope_of += weight * tl.load(of_part + sizes.sums, mask=row < channels, other=0)
    one_over = tl.div_rn(1.0 + 0.0 * sigma, sigma)
    mean_of, slope_of = tl.sum(mean_of) / n, tl.sum(slope_of) / n * one_over
    # The gradient
    first, end = part_of(ACROSS, parts)
    for t in range(DOWN * (end - first)):
        down = t // (end - first)
        dz, c, scale, at, inside = slope(
            dy + base, x + base, w, b, begin, down * ACROSS + first + t - down * (end - first), mean, left, sigma,
            (channels, sizes.pixels), ROWS, COLS, ACROSS)
        tl.store(dx + base + at, stored(gradient(dz, c, scale, mean_of, slope_of, one_over), dx), mask=inside)
