"""Images and weights as the products of a convolution read them: channels last, and zeros where a kernel reaches over.

In (B, C, H, W) a shift by one column moves an address by one element, so that nothing wider can be loaded. With the
channels last a shift is one distance for all pixels, a multiple of 16 elements, and no product has anything to mask at
the edges. It costs a read and a write of the image; its normalisation and activation are free here, and so are the sums
of its channels.
"""
import math
from collections import namedtuple

import triton
import triton.language as tl

from kernels.triton_gpu import device, launch
from kernels.triton_gpu.layers.group import merged, moments_of, scale_of, silu, sizes_of, walk_of
from kernels.triton_gpu.layers.vectors import given
from kernels.triton_gpu.philox import stored

PIXELS, CHANNELS = 1024 if device.INTERPRETED else 64, 64  # of a tile
WEIGHTS = 1024 if device.INTERPRETED else 64  # of a tap at a time
ROWS = 64  # channels at a time of a table
# An image and its plane: channels, height and width of it; the plane's, whose channels are whole chunks; and the zeros
# above and on the left.
Plane = namedtuple("Plane", "c h w channels height width top left")
# Where weights w[row, channel, i, j] are: the first, and from one to the next; how many there are; taps of a row.
Taps = namedtuple("Taps", "first row channel down across rows channels taps wide")


def whole(n, chunk):
    """n rounded up to a multiple of chunk. n, chunk: ints."""
    return launch.programs(n, chunk) * chunk


def chunk_of(channels, most):
    """The terms at a time of so many channels, a power of 2. channels, most: ints."""
    return min(most, max(16, triton.next_power_of_2(channels)))


def packed(arrays, x, images, plane, dtype, table=None, sums=False):
    """A pointer to the planes of images, and to sums of their channels over each tile of pixels, (tiles, C), or None.

    arrays: `Arrays`. x: pointer. images: how many. plane: `Plane`. dtype: of the planes. table: of `standards`, or
    None. sums: whether these are wanted. Returns both pointers, and how many tiles there are.
    """
    size, channels = plane.height * plane.width, math.gcd(CHANNELS, plane.channels)
    tiles = launch.programs(size, PIXELS)
    sizes = [(images * size * plane.channels, dtype), (images * tiles * plane.c if sums else 0, "float32")]
    to, partial = launch.workspace(arrays, empty=sizes)
    grid = images * tiles * (plane.channels // channels)
    args = to, partial if sums else None, x, table, plane, images * plane.c
    launch.run(_pack, grid, arrays, *args, PIXELS=PIXELS, CHANNELS=channels)
    return to, partial, images * tiles


def packed_weights(arrays, w, rows, channels, taps):
    """A pointer to weights (rows, taps, channels), 0 past the end. arrays: `Arrays`. w: pointer. rows, channels: of the
    result. taps: `Taps`."""
    (to,) = launch.workspace(arrays, empty=[(rows * taps.taps * channels, w.dtype)])
    size, across = rows * channels, triton.next_power_of_2(max(taps.taps, 1))
    launch.run(
        _pack_weights, launch.programs(size, WEIGHTS), arrays, to, w, size, channels, taps, BLOCK=WEIGHTS, TAPS=across
    )
    return to


def standards(x, groups, scale, shift, eps):
    """A table (3, B C) of a number near each channel's mean, of scale / sigma and of what is added, for `packed`.
    Arguments as in `ref.layers.fused.norm_conv`."""
    arrays, walk = walk_of("forward", groups, x=x)
    vectors, sizes = given(arrays, arrays.shape[1:2], w=scale, b=shift), sizes_of(arrays, walk)
    moments, block = moments_of(arrays, arrays.pointers[0], sizes)
    (table,) = launch.workspace(arrays, empty=[(3 * arrays.shape[0] * arrays.shape[1], "float32")])
    launch.run(_standards, sizes.count, arrays, table, moments, *vectors, float(eps), sizes, BLOCK=block, ROWS=ROWS)
    return table


@triton.jit(do_not_specialize=["eps"])
def _standards(table, moments, w, b, eps, sizes, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    group, channels, n = tl.program_id(0), sizes.channels, sizes.channels * sizes.pixels
    near, left, sigma = merged(moments, group, sizes.count, sizes.parts, n, eps, BLOCK)
    for first in range(0, channels, ROWS):
        row = first + tl.arange(0, ROWS)
        over, _, shift = scale_of(w, b, group % sizes.groups * channels, row, channels, sigma)
        at, step = table + group * channels + row, tl.num_programs(0) * channels
        tl.store(at, near + tl.zeros_like(over), mask=row < channels)
        tl.store(at + step, over, mask=row < channels)
        tl.store(at + 2 * step, tl.fma(-left, over, shift), mask=row < channels)


@triton.jit(do_not_specialize=["count"])
def _pack(to, sums, x, table, plane, count, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    size, blocks = plane.height * plane.width, plane.channels // CHANNELS
    tile, tiles = tl.program_id(0) // blocks, tl.cdiv(size, PIXELS)
    image, q = tile // tiles, tile % tiles * PIXELS + tl.arange(0, PIXELS)
    c = tl.program_id(0) % blocks * CHANNELS + tl.arange(0, CHANNELS)
    # A pixel of the plane is one of the image or 0; pixels lie along the lanes, and then channels do
    i, j = q // plane.width - plane.top, q % plane.width - plane.left
    there = (q < size) & (i >= 0) & (i < plane.h) & (j >= 0) & (j < plane.w)
    inside = (c < plane.c)[:, None] & there[None, :]
    of_channel = (image * plane.c + c).to(tl.int64) * plane.h * plane.w
    v = tl.load(x + of_channel[:, None] + (i * plane.w + j)[None, :], mask=inside, other=0)
    if table is not None:
        own, step = table + image * plane.c + c, tl.cast(count, tl.int64)
        mean, scale = tl.load(own, mask=c < plane.c, other=0), tl.load(own + step, mask=c < plane.c, other=0)
        shift = tl.load(own + 2 * step, mask=c < plane.c, other=0)
        z = silu(tl.fma(v.to(tl.float32) - mean[:, None], scale[:, None], shift[:, None]))
        v = stored(tl.where(inside, z, 0.0), to)
    at = (image.to(tl.int64) * size + q)[:, None] * plane.channels + c[None, :]
    tl.store(to + at, tl.trans(v), mask=(q < size)[:, None])
    if sums is not None:
        tl.store(sums + tile.to(tl.int64) * plane.c + c, tl.sum(v.to(tl.float32), 1), mask=c < plane.c)


@triton.jit
def _pack_weights(to, w, size, channels, taps, BLOCK: tl.constexpr, TAPS: tl.constexpr):
    e, t = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, TAPS)
    row, c = e // channels, e % channels
    inside = ((row < taps.rows) & (c < taps.channels))[:, None] & (t < taps.taps)[None, :]
    own = taps.first + t // taps.wide * taps.down + t % taps.wide * taps.across
    v = tl.load(w + (row * taps.row + c * taps.channel)[:, None] + own[None, :], mask=inside, other=0)
    at = (row * taps.taps * channels + c)[:, None] + t[None, :] * channels
    tl.store(to + at, v, mask=(e < size)[:, None] & (t < taps.taps)[None, :])
