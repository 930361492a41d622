"""Which Gaussians reach which tile of SIDE x SIDE pixels, front to back, for `splat` and `splat_backward` on the GPU.

1. `_prepare` checks each Gaussian, and computes its coefficients and the box of tiles that it reaches, in float64.
2. The host reads how many slots, pairs of a Gaussian and a tile of its box, there are. It waits only here.
3. The Gaussians are sorted by depth, stably.
4. `_fill_slots` writes the slots of each Gaussian next to each other, front to back. A slot whose tile the ellipse
   misses gets the number after the last tile.
5. The slots are sorted by tile, stably, so that the list of each tile is front to back.

Bytes, N Gaussians, E slots: 100 N for the numbers, 20 N for each 4 bits in which depths differ (about 7 times for
depths of 2 to 20), 24 E for the slots and 20 E for each 4 bits of the number of tiles (4 times at 1080p). At N = 1 M,
E = 6 M: 0.1 + 0.14 + 0.14 + 0.48 GB, 0.2 ms at 4.3 TB/s.
"""
import math
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels import gaussians
from kernels.prepare import RECORDED
from kernels.triton_gpu import arrays as memory
from kernels.triton_gpu import launch, sort
from kernels.triton_gpu.arrays import SINGLE, read
from kernels.triton_gpu.layers.vectors import given

SIDE = 16  # pixels of a tile's side
PIXELS = tl.constexpr(SIDE * SIDE)
BLOCK = 256  # Gaussians, or slots, of a program
ROW = tl.constexpr(8)  # numbers of a Gaussian: u, v, the coefficients a, b, c of h, the opacity, the largest h, 0
BOX = tl.constexpr(4)  # ints of its box of tiles: first column, first row, number of columns, number of rows
LOG2_E = tl.constexpr(math.log2(math.e))
FAINT = tl.constexpr(-1e300)  # instead of log2(0)
LARGEST = 1 - 2.0**-24  # the largest float32 below 1
BAD, SLOTS, LEAST, MOST = map(tl.constexpr, range(4))  # what the host reads, int64: a flag, a number, two keys

# pointers: to the six arrays. rows: (N, ROW) float32, where alpha = opacity 2^-h, h = (a d_u + b d_v) d_u + c d_v^2.
# order: (N,) Gaussians, front to back. first: (N,), the first slot of each, in that order. owner: (slots,), the
# Gaussian of a slot. slot: (slots,), slots by tile, front to back in each. begin: (tiles + 1,), where the list of each
# tile begins in slot. slots, tiles: numbers of them. picture: (H, W, u, v).
Lists = namedtuple("Lists", "arrays pointers channels rows order first owner slot begin slots tiles picture")


def listed(uv, cov2, depth, opacity, color, background, size, origin, alpha_min, alpha_max, rest_min, sigmas,
           depth_min):
    """`Lists`, after the checks; arguments as in `ref.scene.splat.splat`."""
    thresholds = alpha_min, alpha_max, rest_min, sigmas, depth_min
    if RECORDED.get() is not None:
        raise TypeError("splat cannot be prepared: how many programs there are depends on the values")
    gaussians.check(size, origin, *thresholds)
    arrays, pointers, (n, channels) = _read(uv, cov2, depth, opacity, color, background)
    picture = *map(int, size), *map(int, origin)
    tiles = launch.programs(picture[0], SIDE) * launch.programs(picture[1], SIDE)
    # 1. The row, the box and the key of each Gaussian
    farthest = sigmas**2 / 2 * LOG2_E.value if alpha_max >= alpha_min else -math.inf
    limits = np.array([farthest, math.log2(alpha_min) if alpha_min > 0 else -math.inf, depth_min], np.float64)
    status = np.array([0, 0, 2**31 - 1, -(2**31)], np.int64)
    limits, status, rows, box, keys = launch.workspace(arrays, [limits, status], [
        (n * ROW.value, "float32"), (n * BOX.value, "int32"), (n, "int32")])  # fmt: skip
    block = sort.block_for(n, BLOCK)
    blocks = launch.programs(n, block)
    launch.run(_prepare, blocks, arrays, rows, box, keys, status, pointers[:4], limits, *picture, n, SIDE=SIDE,
               BLOCK=block)  # fmt: skip
    # 2. Bad input, the number of slots, and the range of keys
    bad, slots, least, most = map(int, launch.read_back(status, arrays, 4))
    if bad:  # raises
        gaussians.prepared(*map(memory.receive, (uv, cov2, depth, opacity, color, background)), size, origin,
                           *thresholds)  # fmt: skip
    if max(slots, tiles) > sort.MOST_PAIRS:
        raise ValueError(f"size: expected at most {sort.MOST_PAIRS} tiles, and as many pairs of a Gaussian and a tile, "
                         f"got {tiles} and {slots}")
    # 3. and 4. Front to back, and the slots of each
    _, order = sort.radix_sort(keys, n, least, max(most - least, 0).bit_length(), arrays)
    first, sums, total, owner, tile = launch.workspace(arrays, empty=[
        (size, "int32") for size in (n, blocks, 1, slots, slots)])  # fmt: skip
    launch.run(_count_slots, blocks, arrays, sums, box, order, n, BLOCK=block)
    sort.exclusive_sums(sums, total, 1, blocks, arrays)
    launch.run(_first_slots, blocks, arrays, first, sums, box, order, n, BLOCK=block)
    block = sort.block_for(slots, BLOCK)
    launch.run(_fill_slots, launch.programs(slots, block), arrays, owner, tile, first, order, rows, box, *picture[1:],
               n, n.bit_length(), slots, tiles, SIDE=SIDE, BLOCK=block)  # fmt: skip
    # 5. By tile
    tile, slot = sort.radix_sort(tile, slots, 0, tiles.bit_length(), arrays)
    begin = sort.segment_begins(tile, slots, tiles, arrays)
    return Lists(arrays, pointers, channels, rows, order, first, owner, slot, begin, slots, tiles, picture)


def _read(uv, cov2, depth, opacity, color, background):
    """`Arrays` of uv, the pointers of all six, and (N, C)."""
    arrays, colors = read(SINGLE, uv=uv), read(SINGLE, color=color)
    if len(arrays.shape) != 2 or arrays.shape[1] != 2:
        raise ValueError(f"uv: expected shape (N, 2), got {arrays.shape}")
    if len(colors.shape) != 2:
        raise ValueError(f"color: expected shape (N, C), got {colors.shape}")
    n, channels = int(arrays.shape[0]), int(colors.shape[1])
    return arrays, (*arrays.pointers, *given(arrays, (n, 2, 2), cov2=cov2),
                    *given(arrays, (n,), depth=depth, opacity=opacity), *given(arrays, (n, channels), color=color),
                    *given(arrays, (channels,), background=background)), (n, channels)  # fmt: skip


# --- 1. rows and boxes ------------------------------------------------------------------------------------------------


@triton.jit
def inverses(cov2, i, there):
    """The first element, the determinant, and the four elements of the inverse of each matrix, float64. cov2: pointer
    to (N, 2, 2). i: block of indices. there: mask; a masked matrix counts as the unit matrix."""
    a = tl.load(cov2 + 4 * i, mask=there, other=1).to(tl.float64)
    b = tl.load(cov2 + 4 * i + 1, mask=there, other=0).to(tl.float64)
    c = tl.load(cov2 + 4 * i + 2, mask=there, other=0).to(tl.float64)
    d = tl.load(cov2 + 4 * i + 3, mask=there, other=1).to(tl.float64)
    det = a * d - b * c
    return a, det, d / det, -b / det, -c / det, a / det


@triton.jit
def clipped(x, most, otherwise):
    """x in [0, most] as int32, and `otherwise` for NaN. x: float64 block. most, otherwise: ints."""
    inside = tl.where(x > 0, tl.where(x < most, x, most), 0.0)
    return tl.where(x == x, inside, otherwise).to(tl.int32)


@triton.jit
def tiles_of(centre, half, first, most, counts, SIDE: tl.constexpr):
    """On one axis the first tile within `half` of a centre, with a margin of one pixel, and the number of tiles.
    centre, half: float64 blocks. first, most: the picture's first pixel and number of pixels. counts: mask of
    Gaussians. SIDE: pixels of a tile's side."""
    low = clipped(tl.floor(centre - first - half - 1), most, 0)
    high = clipped(tl.ceil(centre - first + half + 1), most, most)
    return low // SIDE, tl.where(counts & (high > low), (high + SIDE - 1) // SIDE - low // SIDE, 0)


@triton.jit(do_not_specialize=["H", "W", "u0", "v0", "n"])
def _prepare(
    rows, box, keys, status, given, limits, H, W, u0, v0, n, SIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    uv, cov2, depths, opacities = given
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < n
    farthest, faintest, depth_min = tl.load(limits), tl.load(limits + 1), tl.load(limits + 2)
    u, v = tl.load(uv + 2 * i, mask=there, other=0), tl.load(uv + 2 * i + 1, mask=there, other=0)
    opacity, depth = tl.load(opacities + i, mask=there, other=0), tl.load(depths + i, mask=there, other=0)
    a, det, e, f, g, h = inverses(cov2, i, there)
    wrong = (det <= 0) | (a <= 0) | (depth != depth) | ((opacity >= 0) & (opacity <= 1) == 0)
    # The coefficients of h, and the largest h that counts
    p, q, r = e * LOG2_E / 2, (f + g) * LOG2_E / 2, h * LOG2_E / 2
    alpha = opacity.to(tl.float64)
    bound = tl.where(alpha > 0, tl.log2(tl.where(alpha > 0, alpha, 1.0)), FAINT) - faintest
    most = tl.minimum(bound, farthest)
    # The box around the ellipse h = most, or the whole picture where h = most is no ellipse
    spread = 4 * p * r - q * q
    ends = (spread > 0) & (most >= 0) & (most < float("inf"))
    scale = tl.where(ends, 4 * most / tl.where(ends, spread, 1.0), 0.0)
    half_u = tl.where(ends, tl.sqrt(tl.where(ends, scale * r, 0.0)), float("inf"))
    half_v = tl.where(ends, tl.sqrt(tl.where(ends, scale * p, 0.0)), float("inf"))
    counts = there & (depth.to(tl.float64) > depth_min) & ((most < 0) == 0)
    left, across = tiles_of(u.to(tl.float64), half_u, u0, W, counts, SIDE)
    top, down = tiles_of(v.to(tl.float64), half_v, v0, H, counts, SIDE)
    counts = (across > 0) & (down > 0)
    # Ints in the order of the depths; -0 + 0 is 0
    bits = (depth + 0.0).to(tl.int32, bitcast=True)
    key = tl.where(counts, bits ^ ((bits >> 31) & 0x7FFFFFFF), 0x7FFFFFFF)
    tl.store(keys + i, key, mask=there)
    numbers = u, v, p.to(tl.float32), q.to(tl.float32), r.to(tl.float32), opacity, most.to(tl.float32)
    for k in tl.static_range(len(numbers)):
        tl.store(rows + ROW * i + k, numbers[k], mask=there)
    tiles = left, top, across, down
    for k in tl.static_range(len(tiles)):
        tl.store(box + BOX * i + k, tl.where(counts, tiles[k], 0), mask=there)
    found = tl.max((wrong & there).to(tl.int32), 0)
    tl.atomic_max(status + BAD, found.to(tl.int64), mask=found > 0)
    tl.atomic_add(status + SLOTS, tl.sum(tl.where(counts, across.to(tl.int64) * down, 0), 0))
    tl.atomic_min(status + LEAST, tl.min(key, 0).to(tl.int64))
    tl.atomic_max(status + MOST, tl.max(tl.where(counts, key, -0x80000000), 0).to(tl.int64))


# --- 4. slots ---------------------------------------------------------------------------------------------------------


@triton.jit
def reached(box, order, n, BLOCK: tl.constexpr):
    """A block of ranks, and the number of tiles in the box of the Gaussian of each rank. box, order: as in `listed`. n:
    number of Gaussians. BLOCK: ranks of a program."""
    rank = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = box + tl.load(order + rank, mask=rank < n, other=0).to(tl.int64) * BOX
    return rank, tl.load(at + 2, mask=rank < n, other=0) * tl.load(at + 3, mask=rank < n, other=0)


@triton.jit(do_not_specialize=["n"])
def _count_slots(sums, box, order, n, BLOCK: tl.constexpr):
    _, count = reached(box, order, n, BLOCK)
    tl.store(sums + tl.program_id(0), tl.sum(count, 0))


@triton.jit(do_not_specialize=["n"])
def _first_slots(first, sums, box, order, n, BLOCK: tl.constexpr):
    rank, count = reached(box, order, n, BLOCK)
    before = tl.load(sums + tl.program_id(0))
    tl.store(first + rank, before + tl.cumsum(count, 0) - count, mask=rank < n)


@triton.jit
def least(p, q, r, left, top, right, bottom):
    """The least h in a rectangle, and a bound on the error of h in float32 there. p, q, r: coefficients of h. left,
    top, right, bottom: from the centre, float64. The minimum lies on one of the two sides that face the centre: on each
    of them the minimum of the parabola is clipped to the side."""
    x = tl.maximum(tl.minimum(0.0, right), left)
    y = tl.maximum(tl.minimum(0.0, bottom), top)
    at_y = tl.maximum(tl.minimum(-q * x / (2 * r), bottom), top)
    at_x = tl.maximum(tl.minimum(-q * y / (2 * p), right), left)
    far_x, far_y = tl.maximum(tl.abs(left), tl.abs(right)), tl.maximum(tl.abs(top), tl.abs(bottom))
    terms = p * far_x * far_x + tl.abs(q) * far_x * far_y + r * far_y * far_y
    return tl.minimum((p * x + q * at_y) * x + r * at_y * at_y, (p * at_x + q * y) * at_x + r * y * y), 2e-6 * terms


@triton.jit(do_not_specialize=["W", "u0", "v0", "n", "steps", "slots", "tiles"])
def _fill_slots(
    owner, tile, first, order, rows, box, W, u0, v0, n, steps, slots, tiles, SIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = slot < slots
    rank = sort.count_below(first, n, steps, slot + 1) - 1
    i = tl.load(order + rank, mask=there, other=0)
    at = box + i.to(tl.int64) * BOX
    k, across = slot - tl.load(first + rank, mask=there, other=0), tl.load(at + 2, mask=there, other=1)
    column = tl.load(at, mask=there, other=0) + k % across
    line = tl.load(at + 1, mask=there, other=0) + k // across
    at = rows + i.to(tl.int64) * ROW
    u, v = tl.load(at, mask=there, other=0).to(tl.float64), tl.load(at + 1, mask=there, other=0).to(tl.float64)
    p, q = tl.load(at + 2, mask=there, other=1).to(tl.float64), tl.load(at + 3, mask=there, other=0).to(tl.float64)
    r, most = tl.load(at + 4, mask=there, other=1).to(tl.float64), tl.load(at + 6, mask=there, other=0).to(tl.float64)
    left, top = column * SIDE + 0.5 + u0 - u, line * SIDE + 0.5 + v0 - v
    h, slack = least(p, q, r, left, top, left + (SIDE - 1), top + (SIDE - 1))
    missed = (h > most + slack + 1e-5 * tl.abs(most)) & (4 * p * r - q * q > 0)
    tl.store(owner + slot, i, mask=there)
    tl.store(tile + slot, tl.where(missed, tiles, line * ((W + SIDE - 1) // SIDE) + column), mask=there)
