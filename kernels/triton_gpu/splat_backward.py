"""The gradient of `ref.scene.splat` on the GPU. A program walks its tile front to back once more, then back to front.
It writes a Gaussian's sums over the pixels of the tile to a slot of their own; then the slots of each Gaussian are
added in order, in float64. So the bits do not depend on the order of programs. A pixel also ends where T falls below
2^-100, whatever rest_min is. There is no `out`.

For each pixel and Gaussian of a tile about 17 operations front to back and 60 back to front, and 5 shuffles for each of
the C + 6 sums in each warp: 6 M pairs of a Gaussian and a tile take about 0.13 T operations, 5 ms on an H200, less
where tiles end early. The sums of a slot, 4 (C + 6) bytes, are cleared, written and read: 0.65 GB, 0.15 ms.
"""
import triton
import triton.language as tl

from kernels.triton_gpu import device, launch, sort
from kernels.triton_gpu.layers.vectors import added, fresh, given
from kernels.triton_gpu.splat import (
    INTERPRETED, any_left, limits_of, passed, pixels_of, rest_of, row_of, seen, tiles_for,
)  # fmt: skip
from kernels.triton_gpu.splat_tiles import PIXELS, SIDE, inverses, listed

SHARE, WARPS = 16 if device.INTERPRETED else 4, 1  # Gaussians of a step; warps of a program
MOMENTS = tl.constexpr(6)  # sums of a Gaussian besides those of its colours
DARK = 2.0**-100  # T is recovered by division, and must not underflow
NEVER = tl.constexpr(2**31 - 1)


def splat_backward(dy, drest, uv, cov2, depth, opacity, color, background, size, origin=(0, 0), alpha_min=1 / 255,
                   alpha_max=0.99, rest_min=1e-4, sigmas=3.0, depth_min=0.0):
    """Gradients of `splat` on the GPU, arguments as in `ref.scene.splat.splat_backward`."""
    lists = listed(uv, cov2, depth, opacity, color, background, size, origin, alpha_min, alpha_max, rest_min, sigmas,
                   depth_min)  # fmt: skip
    arrays, channels, n = lists.arrays, lists.channels, int(lists.arrays.shape[0])
    H, W, _, _ = lists.picture
    upstream = *given(arrays, (channels, H, W), dy=dy), *given(arrays, (H, W), drest=drest)
    columns, rows = channels + MOMENTS.value, sort.rows_for(lists.slots)
    parts, totals = launch.workspace(arrays, empty=[(rows * columns, "float32"), (lists.tiles * channels, "float32")])
    launch.run(_clear, launch.programs(rows * columns, 4096), arrays, parts, rows * columns, BLOCK=4096)
    launch.run(_descend, lists.tiles, arrays, parts, totals, upstream, tiles_for(lists), *lists.pointers[4:],
               *lists.picture, limits_of(alpha_max, max(rest_min, DARK)), warps=WARPS, C=channels, SHARE=SHARE,
               SIDE=SIDE)  # fmt: skip
    # The sums of each Gaussian
    sort.add_chunks(parts, lists.slots, columns, arrays)
    made = [fresh(arrays, shape) for shape in ((n, 2), (n, 2, 2), (n,), (n, channels))]
    results, pointers = zip(*made)
    block = sort.block_for(n, sort.SEGMENTS)
    launch.run(_finish, launch.programs(n, block), arrays, pointers, parts, lists.order, lists.first, lists.pointers[1],
               n, lists.slots, warps=1, C=channels, SEGMENTS=block, CHUNK=sort.CHUNK)  # fmt: skip
    (dbackground,) = added(arrays, totals, 1, (channels,), lists.tiles)
    return *results, dbackground


@triton.jit(do_not_specialize=["size"])
def _clear(x, size, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.zeros((BLOCK,), tl.float32), mask=i < size)


@triton.jit
def _plus_and_before(a, before_a, b, before_b):
    return a + b, a + before_b


@triton.jit
def sums_behind(x):
    """The sum of the rows after each row: an exclusive reverse cumulative sum. x: (rows, columns)."""
    if INTERPRETED:
        k, rows = tl.arange(0, x.shape[0])[:, None], x.shape[0]
        upto = tl.cumsum(x, 0, reverse=True)
        return tl.where(k < rows - 1, tl.gather(upto, tl.minimum(k + 1, rows - 1).broadcast_to(x.shape), 0), 0.0)
    else:
        none = tl.full(x.shape, -0.0, tl.float32)  # x + -0 is x, also to the compiler
        return tl.associative_scan((x, none), 0, _plus_and_before, reverse=True)[1]


@triton.jit
def front_to_back(tiles, first, last, xs, ys, inside, limits, SHARE: tl.constexpr):
    """The index in the list where each pixel ends, (PIXELS,); T behind the last Gaussian before that, (PIXELS,); and
    the index where the program stopped. first: beginning of the list. limits: (alpha_max, rest_min). inside: from
    `pixels_of`. tiles, last, xs, ys, SHARE: as in `splat.seen`."""
    alpha_max, rest_min = limits
    T = tl.where(inside, 1.0, -1.0)
    left, live, at = T, any_left(T, rest_min), first
    stop = tl.where(inside, NEVER, -1)
    while (at < last) & (live > 0):
        _, _, _, _, _, _, _, alpha, _ = seen(tiles, at, last, xs, ys, alpha_max, SHARE)
        _, after, ends = passed(T, alpha, rest_min)
        k = at + tl.arange(0, SHARE)[:, None]
        stop = tl.minimum(stop, tl.min(tl.where(ends, k, NEVER), 0))
        T, left = rest_of(left, after, ends, rest_min, SHARE)
        live, at = any_left(T, rest_min), at + SHARE
    return stop, tl.where(inside, left, 0.0), at


@triton.jit
def upstreams(dy, drest, background, place, inside, area, left, total, C: tl.constexpr):
    """dy at the pixels, a tuple of C blocks, and left (background . dy + drest). Writes the sums of dy left, the tile's
    part of dbackground, to total. dy, drest, background, total: pointers. left: T behind all Gaussians. place, inside:
    from `pixels_of`. area: H W."""
    behind, ups = tl.load(drest + place, mask=inside, other=0), ()
    for c in tl.static_range(C):
        up = tl.load(dy + c * area + place, mask=inside, other=0)
        behind = tl.fma(tl.load(background + c), up, behind)
        tl.store(total + c, tl.sum(up * left, 0))
        ups = ups + (up,)
    return ups, left * behind


@triton.jit(do_not_specialize=["H", "W", "u0", "v0"])
def _descend(
    parts, totals, upstream, tiles, color, background, H, W, u0, v0, limits,
    C: tl.constexpr, SHARE: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    xs, ys, inside, place = pixels_of(H, W, u0, v0, SIDE)
    first, last = tl.load(tiles[3] + tl.program_id(0)), tl.load(tiles[3] + tl.program_id(0) + 1)
    stop, T, at = front_to_back(tiles, first, last, xs, ys, inside, limits, SHARE)
    area = tl.cast(H, tl.int64) * W
    total = totals + tl.program_id(0).to(tl.int64) * C
    ups, behind = upstreams(upstream[0], upstream[1], background, place, inside, area, T, total, C)
    # Back to front
    while at > first:
        at -= SHARE
        s, g, there, x, y, falloff, raw, alpha, far = seen(tiles, at, last, xs, ys, limits[0], SHARE)
        own = tl.zeros((SHARE, PIXELS), tl.float32)
        for c in tl.static_range(C):
            colour = tl.load(color + g * C + c, mask=there, other=0)[:, None]
            own = colour * ups[c][None, :] if c == 0 else tl.fma(colour, ups[c][None, :], own)  # (SHARE, PIXELS)
        k = at + tl.arange(0, SHARE)[:, None]
        counts = (far == 0) & (k < stop[None, :])
        # T in front of each Gaussian, and T times what lies behind it, times dy
        share = 1.0 / (1.0 - tl.where(counts, alpha, 0.0))
        before = tl.cumprod(tl.where(k == at + SHARE - 1, T[None, :] * share, share), 0, reverse=True)
        w = tl.where(counts, alpha * before, 0.0)
        light = w * own
        rest = behind[None, :] + sums_behind(light)
        behind += tl.sum(light, 0)
        T = row_of(before, 0)
        # Gradients of the colours and of alpha; sums for those of opacity, uv and cov2
        dalpha = tl.where(counts & ((raw > limits[0]) == 0), before * own - rest * share, 0.0)
        q = dalpha * raw
        qx, qy = q * x, q * y
        part = parts + s.to(tl.int64) * (C + MOMENTS)
        for c in tl.static_range(C):
            tl.store(part + c, tl.sum(w * ups[c][None, :], 1), mask=there)
        moments = dalpha * falloff, qx, qy, qx * x, qx * y, qy * y
        for m in tl.static_range(len(moments)):
            tl.store(part + C + m, tl.sum(moments[m], 1), mask=there)


@triton.jit(do_not_specialize=["n", "slots"])
def _finish(
    results, parts, order, first, cov2, n, slots, C: tl.constexpr, SEGMENTS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    duv, dcov2, dopacity, dcolor = results
    rank = tl.program_id(0) * SEGMENTS + tl.arange(0, SEGMENTS)
    there = rank < n
    i = tl.load(order + rank, mask=there, other=0).to(tl.int64)
    begin = tl.load(first + rank, mask=there, other=0)
    end = tl.load(first + rank + 1, mask=rank + 1 < n, other=slots)
    sums = sort.segment_sums(parts, begin, tl.where(there, end, begin), slots, C + MOMENTS, CHUNK)
    # f = dalpha exp(-q / 2) and the moments of q = dalpha alpha, as in `kernels.gaussians.finished`
    f, x, y, uu, uv, vv = sums[C], sums[C + 1], sums[C + 2], sums[C + 3], sums[C + 4], sums[C + 5]
    _, _, p, q, r, s = inverses(cov2, i, there)
    mixed = (q + r) / 2
    tl.store(duv + 2 * i, (p * x + mixed * y).to(tl.float32), mask=there)
    tl.store(duv + 2 * i + 1, (mixed * x + s * y).to(tl.float32), mask=there)
    a, b, c, d = uu * p + uv * q, uu * r + uv * s, uv * p + vv * q, uv * r + vv * s
    moment = (p * a + r * c) / 2, (p * b + r * d) / 2, (q * a + s * c) / 2, (q * b + s * d) / 2
    for k in tl.static_range(len(moment)):
        tl.store(dcov2 + 4 * i + k, moment[k].to(tl.float32), mask=there)
    tl.store(dopacity + i, f.to(tl.float32), mask=there)
    for k in tl.static_range(C):
        tl.store(dcolor + i * C + k, sums[k].to(tl.float32), mask=there)
