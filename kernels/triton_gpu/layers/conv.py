"""`ref.layers.conv2d` and `norm_conv` on the GPU: an implicit matrix product of weights (O, taps C) and, for each tap,
the image shifted by it, which in the layout of `planes` is one distance for all pixels; no im2col matrix is stored. The
products run on the tensor cores, of float16, of bfloat16, or of float32 as three of tf32 each, with float32 sums. `out`
takes the result.

What binds, (8, 320, 64, 64) to 320 channels in bfloat16: 60 GFLOP, 82 us at 740 TFLOP/s; x, y and w are 44 MB, 11 us at
4.1 TB/s, and the planes as much again. A tile of 128 pixels and 128 channels loads 64 bytes a cycle at full rate, more
than the second-level cache has; 128 and 320 (as 256 + 64) load 45, and 256 such tiles fill two rounds of 132
multiprocessors. Of several tiles `tile_of` takes the one that this model says is the fastest. Measured on an H200: the
product 109 us, packing x 13 and w 4; a program alone on its multiprocessor is idle while it waits (`ALONE`).

Papers
    [Arithmetic]  Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", 2016
"""
import functools
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu import device, launch
from kernels.triton_gpu.arrays import STORED, apart, read
from kernels.triton_gpu.layers.planes import Plane, Taps, chunk_of, packed, packed_weights, standards, whole
from kernels.triton_gpu.layers.tiles import dot, first_of, operand, second_of, zeros
from kernels.triton_gpu.layers.vectors import given, written
from kernels.triton_gpu.philox import stored

SAME, INTERPRETED = ((1, 1), (1, 1)), tl.constexpr(device.INTERPRETED)
# pixels, output channels, warps and stages of a program; CHUNK: terms of a step; by whether of halves
LARGE = (128, 320, 8, 3), (128, 256, 8, 3), (128, 160, 4, 4), (128, 160, 4, 3), (128, 128, 4, 3)
TILES = {True: [*LARGE, (128, 64, 4, 4), (64, 64, 4, 4)], False: [(64, 64, 4, 3)]}
CHUNK = {True: 64, False: 32}
if device.INTERPRETED:  # its time grows with the number of programs
    TILES = dict.fromkeys(TILES, [(256, 48, 4, 2)])
MULTIPLY, LOAD = 2048, 40  # multiply-adds, and bytes from the second-level cache, of a multiprocessor in a cycle
ALONE, SHARED = 1.35, 227 << 10  # factor of time of a program alone on its multiprocessor; bytes of shared memory there

# A call: `Arrays` of x, pointer to w, x (b, c, h, v), w (o, c, kh, kw), strides, padding on top and left, y (b, o, ho,
# wo).
Call = namedtuple("Call", "arrays w b c h v o kh kw sh sw top left ho wo")
# The layout of what is read: offset of the first element, and strides; down and across from one output pixel to the
# next, row and column from one tap to the next.
Of = namedtuple("Of", "first image down across channel row column")
# The layout of what is written, and its lengths.
To = namedtuple("To", "first image down across channel images height width outputs")


def conv2d(x, w, b=None, stride=1, padding=SAME, out=None):
    """[Arithmetic] section 2; arguments as in `ref.layers.conv.conv2d`."""
    return convolved(call_of(x, w, stride, padding), b, out)


def norm_conv(x, groups, scale, shift, eps, w, b, stride=1, padding=SAME, out=None):
    """The convolution of silu(group_norm(x)), made while x is packed; arguments as in `ref.layers.fused.norm_conv`."""
    c = call_of(x, w, stride, padding)
    return convolved(c, b, out, standards(x, groups, scale, shift, eps))


def call_of(x, w, stride, padding):
    """The `Call` of these arguments, after the checks. x, w, stride, padding: as in `ref.layers.conv.conv2d`. Raises
    ValueError where the shapes do not fit, TypeError as `arrays.read` does."""
    arrays, shape = read(STORED, x=x), tuple(map(int, w.shape))
    if len(arrays.shape) != 4 or len(shape) != 4 or shape[1] != arrays.shape[1]:
        raise ValueError(f"w: expected (O, C, KH, KW) for x (B, C, H, W), got {shape} for x {arrays.shape}")
    strides = (1, 1) if stride == 1 else tuple(int(s) for s in ((stride,) * 2 if np.ndim(stride) == 0 else stride))
    if len(strides) != 2 or min(strides) < 1:
        raise ValueError(f"stride: expected one or two numbers of at least 1, got {stride}")
    if padding != SAME and (np.shape(padding) != (2, 2) or np.min(padding) < 0):
        raise ValueError(f"padding: expected a pair of at least 0 for each axis, got {padding}")
    size = [(n + sum(p) - k) // s + 1 for n, p, k, s in zip(arrays.shape[2:], padding, shape[2:], strides)]
    if min(size) < 1:
        raise ValueError(f"x: expected {shape[2:]} or more with its padding {padding}, got {arrays.shape[2:]}")
    (weights,) = given(arrays, shape, w=w)
    before = (int(p[0]) for p in padding)
    return Call(arrays, weights, *arrays.shape, shape[0], *shape[2:], *strides, *before, *map(int, size))


def convolved(c, b, out, table=None):
    """The convolution. c: `Call`. b: (O,) or None. out: as in `conv2d`. table: of `planes.standards`, or None."""
    (bias,) = given(c.arrays, (c.o,), b=b)
    out, pointer = written("out", out, c.arrays, (c.b, c.o, c.ho, c.wo))
    sizes = (c.arrays.pointers[0], c.arrays.size), (c.w, c.o * c.c * c.kh * c.kw), *([(bias, c.o)] if bias else [])
    for place in sizes:
        apart((pointer, c.b * c.o * c.ho * c.wo), place)
    chunk = chunk_of(c.c, CHUNK[c.arrays.dtype != "float32"])
    if table is None and direct(c, chunk):  # each pixel is its own column, and its channels need no more room
        x, of = c.arrays.pointers[0], Of(0, c.c * c.h * c.v, c.v, 1, c.h * c.v, 0, 0)
    else:
        plane = plane_of(c, chunk)
        x, of = packed(c.arrays, c.arrays.pointers[0], c.b, plane, c.arrays.dtype, table)[0], seen(plane, c.sh, c.sw)
    taps = Taps(0, c.c * c.kh * c.kw, c.kh * c.kw, c.kw, 1, c.o, c.c, c.kh * c.kw, c.kw)
    to = To(0, c.o * c.ho * c.wo, c.wo, 1, c.ho * c.wo, c.b, c.ho, c.wo, c.o)
    multiplied(c.arrays, pointer, x, c.w, bias, to, of, taps, chunk)
    return out


def direct(c, chunk):
    """Whether the product can read x without packing. c: `Call`. chunk: terms of a step."""
    return c.kh == c.kw == c.sh == c.sw == 1 and (c.ho, c.wo) == (c.h, c.v) and c.c % chunk == 0


def plane_of(c, chunk):
    """The `Plane` of x. c: `Call`. chunk: terms at a time."""
    height, width = (c.ho - 1) * c.sh + c.kh, (c.wo - 1) * c.sw + c.kw
    return Plane(c.c, c.h, c.v, whole(c.c, chunk), height, width, c.top, c.left)


def seen(plane, down=1, across=1, first=(0, 0)):
    """How a plane is read, an `Of`. plane: `Plane`. down, across: strides. first: row and column."""
    row = plane.width * plane.channels
    at = first[0] * row + first[1] * plane.channels
    return Of(at, plane.height * row, down * row, across * plane.channels, 1, row, plane.channels)


@functools.cache
def tile_of(half, pixels, outputs, slots):
    """Pixels, channels, warps and stages of a program. half: whether of halves. pixels, outputs: how many there are.
    slots: programs at a time."""
    def cycles(tile):
        programs = launch.programs(pixels, tile[0]) * launch.programs(outputs, tile[1])
        return launch.programs(programs, slots) * cycles_of(tile)

    return min(TILES[half], key=cycles)


def cycles_of(tile):
    """The cycles of a term of a product of halves, of one program. tile: rows, columns, warps, stages."""
    rows, columns, _, stages = tile
    alone = 2 * (2 * stages * CHUNK[True] * (rows + columns)) > SHARED
    return max(rows * columns / MULTIPLY, 2 * (rows + columns) / LOAD) * (ALONE if alone else 1)


def multiplied(arrays, y, x, w, bias, to, of, taps, chunk):
    """Launches `_multiply`. arrays: `Arrays`. y, x, w: pointers. bias: pointer or None. to: `To`. of: `Of`. taps:
    `Taps`. chunk: terms at a time."""
    pixels = to.images * to.height * to.width
    rows, columns, warps, stages = tile_of(arrays.dtype != "float32", pixels, to.outputs, launch.processors(arrays))
    across = launch.programs(to.outputs, columns)
    channels = whole(taps.channels, chunk)
    weights = packed_weights(arrays, w, across * columns, channels, taps)
    launch.run(
        _multiply, launch.programs(pixels, rows) * across, arrays, y, x, weights, bias, to, of, taps.taps, taps.wide,
        channels // chunk, PIXELS=rows, OUTPUTS=columns, CHUNK=chunk, STAGES=stages, warps=warps,
    )  # fmt: skip


@triton.jit
def rows_of(w, first, along, OUTPUTS: tl.constexpr, CHUNK: tl.constexpr):
    """Pointers to the first CHUNK terms of OUTPUTS rows, a tuple of (rows, CHUNK), split as by `zeros`. w: pointer.
    first: the first row. along: distance of rows."""
    one, k = first_of(OUTPUTS), tl.arange(0, CHUNK)
    at = w + (first + tl.arange(0, first_of(OUTPUTS))).to(tl.int64)[:, None] * along + k[None, :]
    if second_of(OUTPUTS) == 0:
        return (at,)
    else:
        row = first + one + tl.arange(0, second_of(OUTPUTS))
        return at, w + row.to(tl.int64)[:, None] * along + k[None, :]


@triton.jit
def _multiply(
    y, x, w, bias, to, of, taps, wide, chunks,
    PIXELS: tl.constexpr, OUTPUTS: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(to.outputs, OUTPUTS)
    tile, first = tl.program_id(0) // across, tl.program_id(0) % across * OUTPUTS
    # The pixels of this tile, counted through all images
    q, size = tile.to(tl.int64) * PIXELS + tl.arange(0, PIXELS), tl.cast(to.height, tl.int64) * to.width
    image, i, j = q // size, q % size // to.width, q % size % to.width
    there, k = image < to.images, tl.arange(0, CHUNK).to(tl.int64)
    left = x + of.first + (image * of.image + i * of.down + j * of.across)[:, None] + (k * of.channel)[None, :]
    right = rows_of(w, first, taps * chunks * CHUNK, OUTPUTS, CHUNK)
    # The sum over taps and channels
    sums = zeros(PIXELS, OUTPUTS)
    for step in tl.range(0, taps * chunks, num_stages=STAGES):
        tap, chunk = step // chunks, (step % chunks).to(tl.int64)
        shift = tap // wide * of.row + tap % wide * of.column + chunk * CHUNK * of.channel
        a, done = operand(tl.load(left + shift, mask=there[:, None], other=0)), ()
        for part in tl.static_range(len(sums)):
            b = operand(tl.load(right[part] + step * CHUNK))
            done = done + (dot(a, tl.trans(b), sums[part]),)
        sums = done
    # Add the bias, store the result
    at = y + to.first + image * to.image + i * to.down + j * to.across
    for part in tl.static_range(len(sums)):
        o = first + (first_of(OUTPUTS) if part else 0) + tl.arange(0, sums[part].shape[1])
        total = sums[part]
        if bias is not None:
            total += tl.load(bias + o, mask=o < to.outputs, other=0).to(tl.float32)[None, :]
        inside = there[:, None] & (o < to.outputs)[None, :]
        tl.store(at[:, None] + o.to(tl.int64)[None, :] * to.channel, stored(total, y), mask=inside)
