"""`ref.scene.splat` on the GPU. `splat_tiles` makes a list of Gaussians for each tile of pixels; a program draws a
tile. It takes SHARE Gaussians of its list at a time, front to back, as blocks (SHARE, pixels). A thread holds all SHARE
rows of its pixels, so the transmittance in front of each Gaussian is a scan in registers. A program stops when each of
its pixels has ended. `out` takes y.

About 24 operations and 3 loads for each pixel and Gaussian of a tile: 6 M pairs of a Gaussian and a tile take 37 G
operations, 1.3 ms on an H200 (132 x 128 lanes at 1.7 GHz), less where tiles end early.

Papers
    [3DGS]  Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023
"""
import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu import device, launch
from kernels.triton_gpu.arrays import apart
from kernels.triton_gpu.layers.vectors import fresh, written
from kernels.triton_gpu.splat_tiles import LARGEST, PIXELS, ROW, SIDE, listed

INTERPRETED = tl.constexpr(device.INTERPRETED)
SHARE, WARPS = 16 if device.INTERPRETED else 4, 1  # Gaussians of a step; warps of a program


def splat(uv, cov2, depth, opacity, color, background, size, origin=(0, 0), alpha_min=1 / 255, alpha_max=0.99,
          rest_min=1e-4, sigmas=3.0, depth_min=0.0, out=None):
    """[3DGS] eqs. 2 and 3 on the GPU, arguments as in `ref.scene.splat.splat`. out: takes y."""
    given = uv, cov2, depth, opacity, color, background
    lists = listed(*given, size, origin, alpha_min, alpha_max, rest_min, sigmas, depth_min)
    arrays, channels, n = lists.arrays, lists.channels, int(lists.arrays.shape[0])
    (H, W, _, _), length = lists.picture, channels * lists.picture[0] * lists.picture[1]
    y, to = written("out", out, arrays, (channels, H, W))
    for pointer, count in zip(lists.pointers, (2 * n, 4 * n, n, n, channels * n, channels)):
        apart((to, length), (pointer, count))
    rest, to_rest = fresh(arrays, (H, W))
    launch.run(_draw, lists.tiles, arrays, to, to_rest, tiles_for(lists), *lists.pointers[4:], *lists.picture,
               limits_of(alpha_max, rest_min), warps=WARPS, C=channels, SHARE=SHARE, SIDE=SIDE)  # fmt: skip
    return y, rest


def tiles_for(lists):
    """The pointers that `seen` and the kernels take: rows, owner, slot, begin. lists: `Lists`."""
    return lists.rows, lists.owner, lists.slot, lists.begin


def limits_of(alpha_max, rest_min):
    """(alpha_max, rest_min) rounded to float32, alpha_max to less than 1."""
    return min(float(np.float32(alpha_max)), LARGEST), float(np.float32(rest_min))


@triton.jit
def pixels_of(H, W, u0, v0, SIDE: tl.constexpr):
    """The pixels of the program's tile: u and v of their centres, mask of those inside of the picture, and flat index
    in it, (PIXELS,) each. H, W: size of the picture. u0, v0: its first pixel. SIDE: pixels of a tile's side."""
    p, across = tl.arange(0, PIXELS), (W + SIDE - 1) // SIDE
    column = tl.program_id(0) % across * SIDE + p % SIDE
    line = tl.program_id(0) // across * SIDE + p // SIDE
    inside = (column < W) & (line < H)
    return (column + u0).to(tl.float32) + 0.5, (line + v0).to(tl.float32) + 0.5, inside, line.to(tl.int64) * W + column


@triton.jit
def seen(tiles, at, last, xs, ys, alpha_max, SHARE: tl.constexpr):
    """SHARE Gaussians of a tile's list, from index `at` on, at the pixels of the tile. Returns

        (SHARE,)           slots, Gaussians, mask of those before the end of the list
        (SHARE, PIXELS)    u and v from the centres, exp(-q / 2), opacity exp(-q / 2), alpha, whether q is too large

    alpha is 0 where q is too large. tiles: from `tiles_for`. last: end of the list. xs, ys: from `pixels_of`.
    alpha_max: the largest alpha."""
    rows, owner, slot, _ = tiles
    k = at + tl.arange(0, SHARE)
    there = k < last
    s = tl.load(slot + k, mask=there, other=0)
    g = tl.load(owner + s, mask=there, other=0).to(tl.int64)
    row = rows + g * ROW
    u, v = tl.load(row, mask=there, other=0)[:, None], tl.load(row + 1, mask=there, other=0)[:, None]
    # h = q / 2 log2(e) = (a x + b y) x + c y^2
    a, b = tl.load(row + 2, mask=there, other=0)[:, None], tl.load(row + 3, mask=there, other=0)[:, None]
    c, opacity = tl.load(row + 4, mask=there, other=0)[:, None], tl.load(row + 5, mask=there, other=0)[:, None]
    most = tl.load(row + 6, mask=there, other=0)[:, None]
    x, y = xs[None, :] - u, ys[None, :] - v  # (SHARE, PIXELS)
    h = tl.fma(tl.fma(a, x, b * y), x, c * y * y)
    falloff = tl.exp2(-h)
    raw = opacity * falloff
    alpha = tl.where(h > most, 0.0, tl.where(raw > alpha_max, alpha_max, raw))
    return s, g, there, x, y, falloff, raw, alpha, h > most


@triton.jit
def _times_and_before(a, before_a, b, before_b):
    return a * b, a * before_b


@triton.jit
def products(x):
    """Inclusive and exclusive cumulative products along the first axis. x: (rows, columns)."""
    if INTERPRETED:
        upto, k = tl.cumprod(x, 0), tl.arange(0, x.shape[0])[:, None]
        return upto, tl.where(k > 0, tl.gather(upto, tl.maximum(k - 1, 0).broadcast_to(x.shape), 0), 1.0)
    else:
        return tl.associative_scan((x, tl.full(x.shape, 1.0, tl.float32)), 0, _times_and_before)


@triton.jit
def row_of(x, ROW: tl.constexpr):
    """Row ROW of x, (columns,). x: (rows, columns)."""
    none = -0.0  # the compiler knows that x + -0 is x, and removes the sum
    return tl.sum(tl.where(tl.arange(0, x.shape[0])[:, None] == ROW, x, none), 0)


@triton.jit
def one_by_one(total, x):
    """total + x[0] + x[1] + ..., added in this order, so that the bits do not depend on where a list is cut. total:
    (columns,). x: (rows, columns)."""
    first = tl.arange(0, x.shape[0])[:, None] == 0
    return row_of(tl.cumsum(tl.where(first, total[None, :] + x, x), 0), x.shape[0] - 1)


@triton.jit
def passed(T, alpha, rest_min):
    """[3DGS] eq. 3 for a few Gaussians, (Gaussians, pixels) each: the weight alpha T, 0 from where the pixel ends on;
    the transmittance T behind each Gaussian; and whether the pixel has ended there, T < rest_min. T: (pixels,), in
    front of the first Gaussian. alpha: (Gaussians, pixels)."""
    first, keep = tl.arange(0, alpha.shape[0])[:, None] == 0, 1.0 - alpha
    after, before = products(tl.where(first, T[None, :] * keep, keep))
    ends = after < rest_min
    return tl.where(ends, 0.0, alpha * tl.where(first, T[None, :], before)), after, ends


@triton.jit
def rest_of(rest, after, ends, rest_min, SHARE: tl.constexpr):
    """T behind these Gaussians, and behind the last one before the pixel ended, (pixels,) each. rest: the latter,
    before them. after, ends: from `passed`. rest_min: as there. SHARE: number of Gaussians."""
    T = row_of(after, SHARE - 1)
    return T, tl.where(T < rest_min, tl.minimum(rest, tl.min(tl.where(ends, 1.0, after), 0)), T)


@triton.jit
def any_left(T, rest_min):
    """1 if any pixel has not ended, else 0. T, rest_min: as in `passed`."""
    return tl.max((T < rest_min).to(tl.int32) ^ 1, 0)


@triton.jit(do_not_specialize=["H", "W", "u0", "v0"])
def _draw(
    y, rest, tiles, color, background, H, W, u0, v0, limits,
    C: tl.constexpr, SHARE: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    alpha_max, rest_min = limits
    xs, ys, inside, place = pixels_of(H, W, u0, v0, SIDE)
    at, last = tl.load(tiles[3] + tl.program_id(0)), tl.load(tiles[3] + tl.program_id(0) + 1)
    T = tl.where(inside, 1.0, -1.0)  # a pixel outside of the picture has ended
    left, live, sums = T, any_left(T, rest_min), ()
    for c in tl.static_range(C):
        sums = sums + (tl.zeros((PIXELS,), tl.float32),)
    # Front to back
    while (at < last) & (live > 0):
        _, g, there, _, _, _, _, alpha, _ = seen(tiles, at, last, xs, ys, alpha_max, SHARE)
        w, after, ends = passed(T, alpha, rest_min)
        new = ()
        for c in tl.static_range(C):
            colour = tl.load(color + g * C + c, mask=there, other=0)  # (SHARE,)
            new = new + (one_by_one(sums[c], w * colour[:, None]),)
        sums = new
        T, left = rest_of(left, after, ends, rest_min, SHARE)
        live, at = any_left(T, rest_min), at + SHARE
    # The background, behind all Gaussians
    area = tl.cast(H, tl.int64) * W
    tl.store(rest + place, left, mask=inside)
    for c in tl.static_range(C):
        tl.store(y + c * area + place, tl.fma(left, tl.load(background + c), sums[c]), mask=inside)
