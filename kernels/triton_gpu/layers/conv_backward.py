"""The gradients of `ref.layers.conv2d` and `norm_conv` on the GPU. dx is a convolution of dy with the flipped weights;
for a stride s > 1 the pixels of x with one remainder by s meet the same taps, and each remainder is a convolution. dw
is, for each tap, a product summed over pixels: in fixed parts, which are added in order. Operands as in `conv`. `out`
takes dx alone.
"""
import functools
import math
from collections import namedtuple

import triton
import triton.language as tl

from kernels.triton_gpu import device, launch
from kernels.triton_gpu.arrays import apart
from kernels.triton_gpu.layers.conv import (
    CHUNK, LARGE, SAME, To, call_of, cycles_of, multiplied, plane_of, seen,
)  # fmt: skip
from kernels.triton_gpu.layers.group_backward import of_group
from kernels.triton_gpu.layers.planes import Plane, Taps, chunk_of, packed, standards, whole
from kernels.triton_gpu.layers.tiles import dot, first_of, operand, second_of, zeros
from kernels.triton_gpu.layers.vectors import added, fresh, given, written
from kernels.triton_gpu.philox import stored

# output channels, input channels, warps and stages of a program, by whether of halves
TILES = {True: [*LARGE, (64, 64, 4, 4)], False: [(64, 64, 4, 3)]}
SLOTS, MOST, LEAST = 132, 16, 4  # programs at a time; parts of a sum at most, and chunks of pixels of one at least
MEMORY = 2400  # bytes in a cycle, of partial sums
PIXELS = {True: 64, False: 32}  # pixels of a step
GATHERED = 1024 if device.INTERPRETED else 64  # weights of a program that adds the parts
if device.INTERPRETED:  # its time grows with the number of programs
    TILES, PIXELS = dict.fromkeys(TILES, [(64, 48, 4, 2)]), {True: 256, False: 256}

# The sizes of `_weigh`: images, rows and columns of dy, output and input channels; parts of the sum; taps, and taps in
# a row of the kernel.
Sizes = namedtuple("Sizes", "images height width outputs channels parts taps wide")


def conv2d_backward(dy, x, w, stride=1, padding=SAME, out=None):
    """Gradients of `conv2d`; arguments as in `ref.layers.conv.conv2d_backward`. out: of dx alone."""
    c = call_of(x, w, stride, padding)
    (upstream,) = given(c.arrays, (c.b, c.o, c.ho, c.wo), dy=dy)
    dx, pointer = written("out", out, c.arrays, c.arrays.shape)
    inputs = (upstream, c.b * c.o * c.ho * c.wo), (c.arrays.pointers[0], c.arrays.size), (c.w, c.o * c.c * c.kh * c.kw)
    for place in inputs:
        apart((pointer, c.arrays.size), place)
    return dx, *gradients(c, upstream, pointer)


def norm_conv_backward(dy, x, groups, scale, shift, eps, w, stride=1, padding=SAME, out=None):
    """Gradients of `norm_conv`; arguments as in `ref.layers.fused.norm_conv_backward`, `ref.layers.fused.norm_conv`:
    the input of the convolution is regenerated while x is packed. Its gradient is float32, since float16 may
    overflow."""
    c = call_of(x, w, stride, padding)
    (upstream,) = given(c.arrays, (c.b, c.o, c.ho, c.wo), dy=dy)
    (da,) = launch.workspace(c.arrays, empty=[(c.arrays.size, "float32")])
    dw, db = gradients(c, upstream, da, standards(x, groups, scale, shift, eps))
    return *of_group(da, x, groups, scale, shift, eps, out), dw, db


def gradients(c, upstream, dx, table=None):
    """dw and db; dx is written. c: `Call`. upstream, dx: pointers. table: of `planes.standards`, or None."""
    half = c.arrays.dtype != "float32"
    # dy with enough zeros around it for all remainders; db
    ends = (c.kh, c.sh, c.top, c.h, c.ho), (c.kw, c.sw, c.left, c.v, c.wo)
    (above, below), (before, behind) = (reach(*end) for end in ends)
    chunk = chunk_of(c.o, CHUNK[half])
    plane = Plane(c.o, c.ho, c.wo, whole(c.o, chunk), above + below, before + behind, above, before)
    dys, sums, tiles = packed(c.arrays, upstream, c.b, plane, c.arrays.dtype, sums=True)
    db = added(c.arrays, sums, 1, (c.o,), tiles)[0]
    # dx
    for down in range(c.sh):
        for across in range(c.sw):
            remainder(c, dx, dys, plane, (down, across), chunk)
    # dw
    own = plane_of(c, chunk_of(c.c, CHUNK[half]))
    xs = packed(c.arrays, c.arrays.pointers[0], c.b, own, c.arrays.dtype, table)[0]
    return weights(c, dys, seen(plane, 1, 1, (above, before)), plane, xs, seen(own, c.sh, c.sw), own), db


def reach(kernel, stride, before, size, length):
    """The zeros needed before dy along an axis, and the length of dy with the zeros needed after it. kernel, stride,
    before: of the axis. size, length: of x and dy."""
    begins = [places(remainder, kernel, stride, before, size) for remainder in range(stride)]
    return max(0, *(-first for first, _, _, _ in begins)), max(length, *(end for _, end, _, _ in begins))


def places(remainder, kernel, stride, before, size):
    """Along an axis, of the pixels of x whose index in the padded x has this remainder by the stride: the first element
    of dy that any of them needs, the end of those elements, the first pixel, and the number of pixels.

    Arguments as in `reach`."""
    taps, u = len(range(remainder, kernel, stride)), -((remainder - before) // stride)
    first = stride * u + remainder - before
    count = max(0, -((first - size) // stride))
    return u - max(taps - 1, 0), u + count, first, count


def remainder(c, dx, dys, plane, which, chunk):
    """Writes the pixels of dx of one remainder: dy convolved with the flipped taps that these pixels meet. c: `Call`.
    dx, dys: pointers. plane: `Plane` of dys. which: remainders of row and column. chunk: terms of a step."""
    (down, across), size = which, c.kh * c.kw
    top, _, i, height = places(down, c.kh, c.sh, c.top, c.h)
    left, _, j, width = places(across, c.kw, c.sw, c.left, c.v)
    taps = len(range(down, c.kh, c.sh)), len(range(across, c.kw, c.sw))
    if not height * width:
        return
    last = (down + (taps[0] - 1) * c.sh) * c.kw + across + (taps[1] - 1) * c.sw
    turned = Taps(last, size, c.c * size, -c.sh * c.kw, -c.sw, c.c, c.o, math.prod(taps), max(taps[1], 1))
    to = To(i * c.v + j, c.c * c.h * c.v, c.sh * c.v, c.sw, c.h * c.v, c.b, height, width, c.c)
    of = seen(plane, 1, 1, (plane.top + top, plane.left + left))
    multiplied(c.arrays, dx, dys, c.w, None, to, of, turned, chunk)  # zeros where there are no taps


@functools.cache
def tile_of(half, pixels, outputs, channels, taps):
    """The tile of a program, and the number of parts of the sum. Neither depends on the device, since the parts change
    the bits. half: whether of halves. pixels: number of chunks of pixels. outputs, channels, taps: numbers of them."""
    def cycles(choice):
        tile, parts = choice
        tiles = taps * launch.programs(outputs, tile[0]) * launch.programs(channels, tile[1])
        rounds = launch.programs(tiles * parts, SLOTS) * launch.programs(pixels, parts)
        return rounds * cycles_of(tile) * PIXELS[half] + parts * 8 * taps * outputs * channels / MEMORY

    most = max(1, min(MOST, pixels // LEAST))
    return min(((tile, parts) for tile in TILES[half] for parts in range(1, most + 1)), key=cycles)


def weights(c, dys, of_dy, plane, xs, of_x, own):
    """dw. c: `Call`. dys, xs: pointers to planes. of_dy, of_x: how they are read, `Of`. plane, own: the `Plane` of
    each."""
    half, taps = c.arrays.dtype != "float32", c.kh * c.kw
    chunk = PIXELS[half]
    wide = min(chunk, triton.next_power_of_2(c.wo))
    high = chunk // wide
    down, across = launch.programs(c.ho, high), launch.programs(c.wo, wide)
    (rows, columns, warps, stages), parts = tile_of(half, c.b * down * across, c.o, c.c, taps)
    (sums,) = launch.workspace(c.arrays, empty=[(parts * taps * c.o * c.c, "float32")])
    sizes = Sizes(c.b, c.ho, c.wo, c.o, c.c, parts, taps, c.kw)
    grid = launch.programs(c.o, rows) * launch.programs(c.c, columns) * taps * parts
    args = sums, dys, xs, of_dy, of_x, plane.channels, own.channels, sizes
    even = c.ho % high == 0 and c.wo % wide == 0
    launch.run(
        _weigh, grid, c.arrays, *args, OUTPUTS=rows, CHANNELS=columns, CHUNK=chunk, WIDE=wide, EVEN=even, STAGES=stages,
        warps=warps,
    )  # fmt: skip
    dw, pointer = fresh(c.arrays, (c.o, c.c, c.kh, c.kw))
    size, more = c.o * c.c, dict(BLOCK=GATHERED, TAPS=triton.next_power_of_2(taps))
    launch.run(_gather, launch.programs(size, GATHERED), c.arrays, pointer, sums, size, parts, taps, **more)
    return dw


@triton.jit
def columns_of(x, at, first, channels, CHANNELS: tl.constexpr):
    """Pointers to CHANNELS channels of pixels, a tuple of (pixels, channels), split as by `zeros`, and their masks. x:
    pointer. at: offset of each pixel. first: the first channel. channels: how many there are."""
    c = first + tl.arange(0, first_of(CHANNELS))
    if second_of(CHANNELS) == 0:
        return (x + at[:, None] + c[None, :],), ((c < channels)[None, :],)
    else:
        d = first + first_of(CHANNELS) + tl.arange(0, second_of(CHANNELS))
        pointers = x + at[:, None] + c[None, :], x + at[:, None] + d[None, :]
        return pointers, ((c < channels)[None, :], (d < channels)[None, :])


@triton.jit
def _weigh(
    sums, dy, x, of_dy, of_x, dy_channels, x_channels, sizes,
    OUTPUTS: tl.constexpr, CHANNELS: tl.constexpr, CHUNK: tl.constexpr, WIDE: tl.constexpr, EVEN: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    high: tl.constexpr = CHUNK // WIDE
    part, tile = tl.program_id(0) % sizes.parts, tl.program_id(0) // sizes.parts
    tap, tile = tile % sizes.taps, tile // sizes.taps
    across = tl.cdiv(sizes.channels, CHANNELS)
    o, first = tile // across * OUTPUTS + tl.arange(0, OUTPUTS), tile % across * CHANNELS
    # A chunk of pixels is a rectangle, high x WIDE
    i, j = (tl.arange(0, CHUNK) // WIDE).to(tl.int64), (tl.arange(0, CHUNK) % WIDE).to(tl.int64)
    left = dy + of_dy.first + (i * of_dy.down + j * of_dy.across)[:, None] + o[None, :]
    shift = (tap // sizes.wide).to(tl.int64) * of_x.row + tap % sizes.wide * of_x.column
    right, there = columns_of(x + shift, i * of_x.down + j * of_x.across, first, x_channels, CHANNELS)
    down, over = tl.cdiv(sizes.height, high), tl.cdiv(sizes.width, WIDE)
    each = tl.cdiv(sizes.images * down * over, sizes.parts)
    total = zeros(OUTPUTS, CHANNELS)
    for step in tl.range(part * each, tl.minimum((part + 1) * each, sizes.images * down * over), num_stages=STAGES):
        image, row, column = (step // (down * over)).to(tl.int64), step // over % down * high, step % over * WIDE
        inside = (o < dy_channels)[None, :]
        if not EVEN:
            pixels = ((i < sizes.height - row) & (j < sizes.width - column))[:, None]
            inside = inside & pixels
        at = image * of_dy.image + row.to(tl.int64) * of_dy.down + column * of_dy.across
        a, done = operand(tl.load(left + at, mask=inside, other=0)), ()
        at = image * of_x.image + row.to(tl.int64) * of_x.down + column * of_x.across
        for n in tl.static_range(len(total)):
            b = operand(tl.load(right[n] + at, mask=there[n] if EVEN else there[n] & pixels, other=0))
            done = done + (dot(tl.trans(a), b, total[n]),)
        total = done
    # Store the sums of this part and tap
    at = ((part * sizes.taps + tap).to(tl.int64) * sizes.outputs + o) * sizes.channels
    for n in tl.static_range(len(total)):
        c = first + (first_of(CHANNELS) if n else 0) + tl.arange(0, total[n].shape[1])
        inside = (o < sizes.outputs)[:, None] & (c < sizes.channels)[None, :]
        tl.store(sums + at[:, None] + c[None, :], total[n], mask=inside)


@triton.jit(do_not_specialize=["parts"])
def _gather(dw, sums, size, parts, taps, BLOCK: tl.constexpr, TAPS: tl.constexpr):
    """Adds the parts, and writes the taps along the last axis: sums (parts, taps, O C), dw (O C, taps)."""
    e, t = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, TAPS)
    inside, total = (e < size)[:, None] & (t < taps)[None, :], tl.zeros((BLOCK, TAPS), tl.float32)
    for part in range(parts):
        total += tl.load(sums + e[:, None] + ((part * taps + t).to(tl.int64) * size)[None, :], mask=inside, other=0)
    tl.store(dw + e[:, None] * taps + t[None, :], stored(total, dw), mask=inside)
