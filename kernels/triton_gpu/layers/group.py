"""`ref.layers.group_norm_silu` on the GPU: one read and one write where a group fits in the registers
of a program.

A group is the pixels of a few channels, contiguous in memory: KEPT in registers up to a size, else read again, which
the second-level cache serves; few and long groups are shared by several programs, each a part of their pixels. The
variance is that of centred elements, or Welford's and merged as [Chan] has it.

Papers
    [Chan]  Chan, Golub, LeVeque, "Algorithms for Computing the Sample Variance: Analysis and Recommendations", 1983
"""
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu import device, launch
from kernels.triton_gpu.arrays import STORED, itemsize, output, read
from kernels.triton_gpu.layers.vectors import given, halves, joined, loaded, pairs

INTERPRETED = tl.constexpr(device.INTERPRETED)
KEPT = {"forward": 40960 * 2, "backward": 20480 * 2}  # bytes of an array's group in registers, twice that in float32
SHARED = 1 << 16  # elements from which on a group is shared where groups are few
WIDEST = 8192  # columns of a tile

# channels, pixels: of a group. rows, cols: of a tile, of which there are down x across. span: pixels of a part.
Walk = namedtuple("Walk", "groups channels pixels rows cols down across parts kept warps")
# What a kernel has to know: groups of an example, what is in one, parts of one, groups in all, sums of channels in all.
Sizes = namedtuple("Sizes", "groups channels pixels parts count sums")


def group_norm_silu(x, groups, w, b, eps, out=None):
    """`silu(group_norm(x))`; arguments as in `ref.layers.fused.group_norm_silu`. out: an array, which may be x."""
    arrays, walk = walk_of("forward", groups, x=x)
    vectors = given(arrays, (arrays.shape[1],), w=w, b=b)
    out, pointer = output("out", out, arrays)
    sizes, blocks = sizes_of(arrays, walk), tile(walk)
    more = pointer, arrays.pointers[0], *vectors, float(eps), sizes
    if walk.kept:
        # Of pairs a thread takes 32 bytes at a time, in registers that leave room for another program
        both = pairs(walk.pixels, *more[:2])
        packed = both is not None and walk.warps > 1
        options = dict(warps=walk.warps // 2, registers=128) if packed else dict(warps=walk.warps)
        blocks["COLS"] //= 1 + packed
        launch.run(_kept, sizes.count, arrays, *(both if packed else more[:2]), *more[2:], **blocks, **options)
    else:
        moments, block = moments_of(arrays, arrays.pointers[0], sizes)
        grid = sizes.count * sizes.parts
        launch.run(_shared, grid, arrays, *more, moments, **blocks, BLOCK=block, warps=walk.warps)
    return out


def walk_of(way, groups, **given_arrays):
    """`Arrays` and the `Walk` over their groups. way: of KEPT. groups: int. given_arrays: by name."""
    arrays = read(STORED, **given_arrays)
    groups = int(groups)
    if len(arrays.shape) < 2 or groups < 1 or arrays.shape[1] % groups:
        raise ValueError(f"groups: expected a divisor of the channels of x {arrays.shape}, got {groups}")
    channels, pixels = arrays.shape[1] // groups, int(np.prod(arrays.shape[2:]))
    size, width = channels * pixels, itemsize(arrays.dtype)
    kept = size * width <= KEPT[way] * (width // 2)
    most = 2048 if kept and way == "backward" else 4096 if kept or width == 4 else 8192
    cols = max(min(triton.next_power_of_2(max(pixels, 1)), most, WIDEST), 16)
    rows = max(min(triton.next_power_of_2(max(channels, 1)), most // cols), 1)
    while rows > 1 and -(-channels // rows) * rows * 10 > 11 * channels:
        rows //= 2
    down, across = launch.programs(channels, rows), launch.programs(pixels, cols)
    parts = 1
    if not kept and size > SHARED:
        wanted = launch.programs(4 * launch.processors(arrays), max(arrays.shape[0] * groups, 1))
        parts = max(min(wanted, across), 1)
    warps = min(max(rows * cols // 256, 1), 16)
    return arrays, Walk(groups, channels, pixels, rows, cols, down, across, parts, kept, warps)


def tile(walk):
    """The constants of a kernel. walk: `Walk`."""
    even = walk.down * walk.rows == walk.channels and walk.across * walk.cols == walk.pixels
    return dict(ROWS=walk.rows, COLS=walk.cols, DOWN=walk.down, ACROSS=walk.across, EVEN=even)


def sizes_of(arrays, walk):
    """The `Sizes` of a walk. arrays: `Arrays`. walk: `Walk`."""
    count, sums = arrays.shape[0] * walk.groups, arrays.shape[0] * walk.parts * arrays.shape[1]
    return Sizes(walk.groups, walk.channels, walk.pixels, walk.parts, count, sums)


def block_of(sizes):
    """How many elements of a group are read at a time for its moments. sizes: `Sizes`."""
    return min(max(triton.next_power_of_2(max(sizes.channels * sizes.pixels, 1)), 16), 4096)


def moments_of(arrays, x, sizes):
    """Mean and squares about it of each part of each group, a run of elements, and its BLOCK. arrays: `Arrays`. x:
    pointer. sizes: `Sizes`."""
    count, parts, size = sizes.count, sizes.parts, sizes.channels * sizes.pixels
    moments = launch.scratch(np.empty((3, count, parts), np.float32), arrays, filled=False)
    block = block_of(sizes)
    launch.run(_moments, count * parts, arrays, moments, x, count, parts, size, BLOCK=block, warps=8)
    return moments, block


@triton.jit
def place(t, channels, pixels, ROWS: tl.constexpr, COLS: tl.constexpr, ACROSS: tl.constexpr):
    """The channels (ROWS, 1) of a tile of a group, and where its elements are. t: its number. channels, pixels: of a
    group. ROWS, COLS: of a tile. ACROSS: tiles side by side."""
    row = (t // ACROSS * ROWS + tl.arange(0, ROWS))[:, None]
    col = (t % ACROSS * COLS + tl.arange(0, COLS))[None, :]
    return row, row * pixels + col, (row < channels) & (col < pixels)


@triton.jit
def scale_of(w, b, first, row, channels, sigma):
    """w / sigma and b of channels, 1 and 0 where there are none. w, b: pointers or None. first: channel of
    the group. row: those of a tile. channels: of a group. sigma: number."""
    if w is None:
        scale = tl.full(row.shape, 1.0, tl.float32)
    else:
        scale = tl.load(w + first + row, mask=row < channels, other=0).to(tl.float32)
    if b is None:
        shift = tl.full(row.shape, 0.0, tl.float32)
    else:
        shift = tl.load(b + first + row, mask=row < channels, other=0).to(tl.float32)
    return tl.div_rn(scale, sigma + tl.zeros_like(scale)), scale, shift


@triton.jit
def reciprocal(x):
    """1 / x to a unit of the last digit, 0 from 2^126 on; a division takes four times as long. x: float32 block."""
    if INTERPRETED:
        return 1.0 / x
    else:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def sigmoid(z):
    """1 / (1 + e^-z), 0 below 2^-126. z: float32 block."""
    return reciprocal(1.0 + tl.exp2(z * -1.4426950408889634))


@triton.jit
def silu(z):
    """z sigmoid(z). z: float32 block."""
    return z * sigmoid(z)


@triton.jit
def deviation(total, square, n, eps):
    """What rounding left of the mean, and sqrt(var + eps), of centred elements. total, square: blocks of their sums and
    of their squares'. n: how many. eps: number."""
    left = tl.sum(total) / n
    var = tl.maximum(tl.sum(square) / n - left * left, 0.0) + 0.0 * left  # a NaN stays
    return left, tl.sqrt_rn(var + eps)


@triton.jit
def kept_moments(
    kept, n, eps, channels, pixels, ROWS: tl.constexpr, COLS: tl.constexpr, ACROSS: tl.constexpr, EVEN: tl.constexpr
):
    """Mean, what rounding left of it, and sqrt(var + eps) of a group in registers. kept: its tiles. n: elements. eps:
    number. channels, pixels: of a group. ROWS, COLS, ACROSS: as in `place`. EVEN: whether the tiles have no more than
    that."""
    total = tl.zeros((ROWS, COLS), tl.float32)
    for t in tl.static_range(len(kept)):
        v = halves(kept[t])
        for i in tl.static_range(len(v)):
            total += v[i]
    mean, total, square = tl.sum(total) / n, total * 0, total * 0
    for t in tl.static_range(len(kept)):
        _, _, inside = place(t, channels, pixels, ROWS, COLS, ACROSS)
        v = halves(kept[t])
        for i in tl.static_range(len(v)):
            c = v[i] - mean if EVEN else tl.where(inside, v[i] - mean, 0.0)
            total += c
            square = tl.fma(c, c, square)
    left, sigma = deviation(total, square, n, eps)
    return mean, left, sigma


@triton.jit(do_not_specialize=["eps"])
def _kept(
    y, x, w, b, eps, sizes,
    ROWS: tl.constexpr, COLS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    channels, pixels, group, n = sizes.channels, sizes.pixels, tl.program_id(0), sizes.channels * sizes.pixels
    if x.dtype.element_ty == tl.int32:
        pixels = pixels // 2
    base, first = group.to(tl.int64) * (channels * pixels), group % sizes.groups * channels
    kept = loaded(x + base, place, (channels, pixels, ROWS, COLS, ACROSS), DOWN * ACROSS)
    mean, left, sigma = kept_moments(kept, n, eps, channels, pixels, ROWS, COLS, ACROSS, EVEN)
    for t in tl.static_range(DOWN * ACROSS):
        row, at, inside = place(t, channels, pixels, ROWS, COLS, ACROSS)
        scale, _, shift = scale_of(w, b, first, row, channels, sigma)
        shift, v, z = tl.fma(-left, scale, shift), halves(kept[t]), ()
        for i in tl.static_range(len(v)):
            z = z + (silu(tl.fma(v[i] - mean, scale, shift)),)
        tl.store(y + base + at, joined(z, y), mask=inside)


@triton.jit
def moments_in(x, size, begin, end, BLOCK: tl.constexpr):
    """A number near the mean, the mean less that, and the squares about the mean, of elements in blocks begin to end.
    x: pointer. size: elements in all. BLOCK: of a block."""
    i = tl.arange(0, BLOCK)
    n = tl.maximum(tl.minimum(BLOCK, size - begin * BLOCK), 1)
    v = tl.load(x + begin * BLOCK + i, mask=begin * BLOCK + i < size, other=0).to(tl.float32)
    near = tl.sum(v) / n
    # Each lane has Welford's mean and squares of every BLOCK-th element
    mean, square = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    counts = tl.zeros((BLOCK,), tl.float32)
    for t in range(begin, end):
        inside = t * BLOCK + i < size
        v = tl.load(x + t * BLOCK + i, mask=inside, other=0).to(tl.float32) - near
        off = v - mean
        mean = tl.where(inside, tl.fma(off, 1.0 / (1.0 * (t - begin + 1)), mean), mean)
        square = tl.where(inside, tl.fma(off, v - mean, square), square)
        counts += tl.where(inside, 1.0, 0.0)
    # The lanes are merged
    left = tl.sum(mean * counts) / tl.maximum(tl.sum(counts), 1.0)
    off = mean - left
    return near, left, tl.sum(square) + tl.sum(off * off * counts)


@triton.jit(do_not_specialize=["count", "parts"])
def _moments(moments, x, count, parts, size, BLOCK: tl.constexpr):
    group, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    tiles = (size + BLOCK - 1) // BLOCK
    each = (tiles + parts - 1) // parts
    end = tl.minimum((part + 1) * each, tiles)
    near, left, square = moments_in(x + group.to(tl.int64) * size, size, part * each, end, BLOCK)
    at, step = moments + tl.program_id(0), count * parts
    tl.store(at, near)
    tl.store(at + step, left)
    tl.store(at + 2 * step, square)


@triton.jit
def merged(moments, group, count, parts, size, eps, BLOCK: tl.constexpr):
    """Mean, what rounding left of it, and sqrt(var + eps) of a group from the moments of its parts, [Chan] eq. 3.1.
    moments: of `_moments`. group: its number. count: of groups. parts: of each. size: elements. eps: number. BLOCK: as
    there."""
    each = ((size + BLOCK - 1) // BLOCK + parts - 1) // parts * BLOCK
    at, step = moments + group * parts, count * parts
    near, left, square = tl.load(at), 0.0, 0.0
    for part in range(parts):
        n = tl.maximum(tl.minimum(each, size - part * each), 0).to(tl.float32)
        left += n * (tl.load(at + part) - near + tl.load(at + step + part)) / size
    for part in range(parts):
        n = tl.maximum(tl.minimum(each, size - part * each), 0).to(tl.float32)
        off = tl.load(at + part) - near + tl.load(at + step + part) - left
        square += tl.load(at + 2 * step + part) + n * off * off
    return near, left, tl.sqrt_rn(square / size + eps)


@triton.jit
def part_of(across, parts):
    """The tiles side by side of a program's part of a group: the first, and the one past the last. across: tiles.
    parts: of a group."""
    each = (across + parts - 1) // parts
    first = tl.program_id(0) % parts * each
    return first, tl.minimum(first + each, across)


@triton.jit
def shared_by(sizes, moments, eps, BLOCK: tl.constexpr):
    """Of a program with a part of a group: where the group begins, its first channel, the place of that channel's sums
    of part 0, and mean, what rounding left of it, and sigma. sizes: `Sizes`. moments, eps, BLOCK: as in `merged`."""
    group, n, channels = tl.program_id(0) // sizes.parts, sizes.channels * sizes.pixels, sizes.groups * sizes.channels
    first = group % sizes.groups * sizes.channels
    mean, left, sigma = merged(moments, group, sizes.count, sizes.parts, n, eps, BLOCK)
    sums = group // sizes.groups * sizes.parts * channels + first
    return group.to(tl.int64) * n, first, sums, mean, left, sigma


@triton.jit(do_not_specialize=["eps"])
def _shared(
    y, x, w, b, eps, sizes, moments,
    ROWS: tl.constexpr, COLS: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr, EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    channels, pixels = sizes.channels, sizes.pixels
    base, begin, own, mean, left, sigma = shared_by(sizes, moments, eps, BLOCK)
    first, end = part_of(ACROSS, sizes.parts)
    for t in range(DOWN * (end - first)):
        down = t // (end - first)
        row, at, inside = place(down * ACROSS + first + t - down * (end - first), channels, pixels, ROWS, COLS, ACROSS)
        scale, _, shift = scale_of(w, b, begin, row, channels, sigma)
        v = tl.load(x + base + at, mask=inside, other=0).to(tl.float32)
        z = silu(tl.fma(v - mean, scale, tl.fma(-left, scale, shift)))
        tl.store(y + base + at, joined((z,), y), mask=inside)
