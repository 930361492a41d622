"""Packs images and weights for the matrix products of a convolution: channels last, with zeros for the padding.

In (B, C, H, W) a shift by one column moves an address by one element, which rules out wide loads. With channels last
the shift of a tap is one distance for all pixels, a multiple of 16 elements, and the products need no mask at the edges
of the image. Packing reads and writes the image once; a normalisation and activation before the convolution, and the
sums of the channels, cost no further pass.
"""
import math
from collections import namedtuple

import triton
import triton.language as tl

from kernels.triton_gpu import device, launch
from kernels.triton_gpu.layers.group import merged, moments_of, scale_of, silu, sizes_of, walk_of
from kernels.triton_gpu.layers.vectors import given
from kernels.triton_gpu.philox import stored

PIXELS, CHANNELS = 1024 if device.INTERPRETED else 64, 64  # pixels and channels of a tile
WEIGHTS = {False: (2, 128), True: (8, 32)}  # rows and channels of a tile of weights, by whether it is transposed
TAPS = 16  # taps of a tile of weights at most
if device.INTERPRETED:  # its time grows with the number of programs
    WEIGHTS = dict.fromkeys(WEIGHTS, (64, 64))
ROWS = 64  # channels of a table at a time
# An image, c x h x w, and its plane, height x width x channels: channels rounded up to whole chunks, and zeros around
# the image, top rows of them above it and left columns on its left.
Plane = namedtuple("Plane", "c h w channels height width top left")
# The layout of weights w[row, channel, i, j]: offset of the first; strides (row, channel, down in i, across in j);
# numbers of rows, channels and taps; taps in a row of the kernel.
Taps = namedtuple("Taps", "first row channel down across rows channels taps wide")


def whole(n, chunk):
    """n rounded up to a multiple of chunk. n, chunk: ints."""
    return launch.programs(n, chunk) * chunk


def chunk_of(channels, most):
    """Channels of a step of a product: a power of 2, at least 16 and at most `most`. channels: how many there are."""
    return min(most, max(16, triton.next_power_of_2(channels)))


def packed(arrays, x, images, plane, dtype, table=None, sums=False):
    """Planes of images. Returns a pointer to them, (images, height, width, channels); a pointer to the sums of each
    channel over each tile of pixels, (tiles, C) float32, empty without sums; and the number of tiles of all images.

    arrays: `Arrays`. x: pointer to (images, C, H, W). plane: `Plane`. dtype: of the planes. table: from `standards`, to
    normalise and activate x, or None. sums: whether to compute these.
    """
    size, channels = plane.height * plane.width, math.gcd(CHANNELS, plane.channels)
    tiles = launch.programs(plane.h * plane.w, PIXELS)
    height = max(0, min(plane.h, plane.height - plane.top))
    around = size - height * max(0, min(plane.w, plane.width - plane.left))
    sizes = [(images * size * plane.channels, dtype), (images * tiles * plane.c if sums else 0, "float32")]
    to, partial = launch.workspace(arrays, empty=sizes)
    grid = images * (tiles + launch.programs(around, PIXELS)) * (plane.channels // channels)
    args = to, partial if sums else None, x, table, plane, images * plane.c
    launch.run(_pack, grid, arrays, *args, PIXELS=PIXELS, CHANNELS=channels)
    return to, partial, images * tiles


def packed_weights(arrays, w, rows, channels, taps):
    """A pointer to weights (rows, taps, channels), 0 where w has no such row or channel. arrays: `Arrays`. w: pointer.
    rows, channels: of the result. taps: `Taps`, the layout of w."""
    (to,) = launch.workspace(arrays, empty=[(rows * taps.taps * channels, w.dtype)])
    turned, across = taps.row < taps.channel, min(TAPS, triton.next_power_of_2(max(taps.taps, 1)))
    high, wide = WEIGHTS[turned]
    grid = launch.programs(rows, high) * launch.programs(channels, wide)
    args = to, w, rows, channels, taps
    launch.run(_pack_weights, grid, arrays, *args, ROWS=high, CHANNELS=wide, TAPS=across, TURNED=turned)
    return to


def standards(x, groups, scale, shift, eps):
    """A table (3, B C) for `packed`, which computes silu((x - near) factor + shift): a number near the mean of each
    channel, factor = scale / sigma, and shift. Arguments as in `ref.layers.fused.norm_conv`."""
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


@triton.jit
def _there(plane):
    """The numbers of rows and columns of the image that lie in its plane. plane: `Plane`."""
    height, width = tl.minimum(plane.h, plane.height - plane.top), tl.minimum(plane.w, plane.width - plane.left)
    return tl.maximum(height, 0), tl.maximum(width, 0)


@triton.jit
def _blank(at, plane, e, c):
    """Writes the zeros around an image: those of whole rows first, then those left and right of it. at: pointer to the
    plane. plane: `Plane`. e: block of indices among these pixels. c: block of channels."""
    height, width = _there(plane)
    full, across = (plane.height - height) * plane.width, plane.width - width  # pixels; pixels of a row of the image
    rest, each = e - full, tl.maximum(across, 1)
    i = tl.where(rest < 0, e // plane.width, plane.top + rest // each)
    j = tl.where(rest < 0, e % plane.width, rest % each)
    i += tl.where((rest < 0) & (i >= plane.top), height, 0)
    j += tl.where((rest >= 0) & (j >= plane.left), width, 0)
    pixel = (i * plane.width + j).to(tl.int64) * plane.channels
    nothing = tl.zeros((e.shape[0], c.shape[0]), at.dtype.element_ty)
    tl.store(at + pixel[:, None] + c[None, :], nothing, mask=(rest < height * across)[:, None])


@triton.jit(do_not_specialize=["count"])
def _pack(to, sums, x, table, plane, count, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    height, width = _there(plane)
    size, blocks = plane.h * plane.w, plane.channels // CHANNELS
    tiles = tl.cdiv(size, PIXELS)
    parts = tiles + tl.cdiv(plane.height * plane.width - height * width, PIXELS)
    image, part = tl.program_id(0) // blocks // parts, tl.program_id(0) // blocks % parts
    c, to_image = tl.program_id(0) % blocks * CHANNELS + tl.arange(0, CHANNELS), plane.height * plane.width
    at = to + image.to(tl.int64) * to_image * plane.channels
    if part < tiles:  # pixels of the image
        q = part * PIXELS + tl.arange(0, PIXELS)
        inside = (c < plane.c)[:, None] & (q < size)[None, :]
        # Neighbouring lanes load neighbouring pixels, and store neighbouring channels
        own = (image * plane.c + c).to(tl.int64)
        v = tl.load(x + (own * size)[:, None] + q[None, :], mask=inside, other=0)  # (CHANNELS, PIXELS)
        if table is not None:
            place, step = table + own, tl.cast(count, tl.int64)
            mean, scale = tl.load(place, mask=c < plane.c, other=0), tl.load(place + step, mask=c < plane.c, other=0)
            shift = tl.load(place + 2 * step, mask=c < plane.c, other=0)
            v = stored(silu(tl.fma(v.to(tl.float32) - mean[:, None], scale[:, None], shift[:, None])), to)
        i, j = q // plane.w, q % plane.w
        pixel = (i + plane.top) * plane.width + j + plane.left
        seen = (q < size) & (i < height) & (j < width)
        tl.store(at + (pixel.to(tl.int64) * plane.channels)[:, None] + c[None, :], tl.trans(v), mask=seen[:, None])
        if sums is not None:
            to_sums = sums + (image.to(tl.int64) * tiles + part) * plane.c + c
            tl.store(to_sums, tl.sum(v.to(tl.float32), 1), mask=c < plane.c)
    else:  # zeros around it
        _blank(at, plane, (part - tiles) * PIXELS + tl.arange(0, PIXELS), c)


@triton.jit
def _pack_weights(
    to, w, rows, channels, taps, ROWS: tl.constexpr, CHANNELS: tl.constexpr, TAPS: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, CHANNELS)
    row = tl.program_id(0) // blocks * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(0) % blocks * CHANNELS + tl.arange(0, CHANNELS)
    # Neighbours in w lie along the last axes of the block, and so in neighbouring lanes
    row, c = (row[None, :, None], c[:, None, None]) if TURNED else (row[:, None, None], c[None, :, None])
    own = w + taps.first + row.to(tl.int64) * taps.row + c.to(tl.int64) * taps.channel
    at = to + row.to(tl.int64) * taps.taps * channels + c
    for first in range(0, taps.taps, TAPS):
        t = (first + tl.arange(0, TAPS))[None, None, :]
        inside = (row < taps.rows) & (c < taps.channels) & (t < taps.taps)
        v = tl.load(own + t // taps.wide * taps.down + t % taps.wide * taps.across, mask=inside, other=0)
        tl.store(at + t * channels, v, mask=(row < rows) & (c < channels) & (t < taps.taps))
