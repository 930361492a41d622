"""`ref.layers.conv2d` on the CPU, on the register tile of `matmul`, without a matrix of columns.

A band of rows of the image is copied with its padding, each row and column of a stride in a plane of its own. There a
shift of the kernel is one distance for all pixels, row after row, so a tile's terms are read in place: row k of the right
matrix begins at offsets[k]. The rows' ends, where the kernel reaches into the next row, are computed and dropped. What an
example gets depends on no other example.
"""
import math
from collections import namedtuple

import numpy as np

from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, INLINE, OVER, register_jitable
from kernels.numba_cpu.intrinsics import wide
from kernels.numba_cpu.matmul import ROWS, Left, Right, lanes, lines, tile_onto

CHANNELS, PIXELS = 32, 1024  # whose terms stay in the first-level cache; of a band, at most where rows are short


# Channels and pixels of the image, of the result, and of the kernel; strides; zeros before each axis, negative to cut off;
# rows of a band and bands of an image; rows and columns of a plane
Sizes = namedtuple("Sizes", "c h w o ho wo kh kw sh sw top left rows bands hq wq")


def conv2d(x, w, b=None, stride=1, padding=((1, 1), (1, 1)), out=None):
    """[Arithmetic] section 2 on the CPU, arguments as in `ref.layers.conv.conv2d`."""
    dtype, strides, before, size = checked(x, w, stride, padding)
    bias = engine.like("b", b, dtype, w.shape[:1])
    return convolved(engine.flat(x), x.shape, engine.flat(w), w.shape, bias, strides, before, size, out)


def checked(x, w, stride, padding):
    """The dtype, both strides, the zeros before each axis and the lengths of the result, after the check. x, w, stride,
    padding: of `conv2d`."""
    shape, dtype = engine.same(x=x)
    if engine.same(w=w)[1] != dtype:
        raise TypeError(f"w: expected a NumPy array of {dtype} like x, got {w.dtype}")
    strides = tuple(int(s) for s in ((stride,) * 2 if np.ndim(stride) == 0 else stride))
    if len(shape) != 4 or w.ndim != 4 or w.shape[1] != shape[1]:
        raise ValueError(f"w: expected (O, C, KH, KW) for x (B, C, H, W), got {w.shape} for x {shape}")
    if len(strides) != 2 or min(strides) < 1:
        raise ValueError(f"stride: expected one or two numbers of at least 1, got {stride}")
    if np.shape(padding) != (2, 2) or np.min(padding) < 0:
        raise ValueError(f"padding: expected a pair of at least 0 for each axis, got {padding}")
    size = tuple((n + sum(p) - k) // s + 1 for n, p, k, s in zip(shape[2:], padding, w.shape[2:], strides))
    if min(size) < 1:
        raise ValueError(f"x: expected {w.shape[2:]} or more with its padding {padding}, got {shape[2:]}")
    return dtype, strides, tuple(int(p[0]) for p in padding), size


def convolved(x, shape, w, kernel, bias, strides, before, size, out):
    """The convolution. x, w: flat, of the shapes `shape` and `kernel`. bias: (O,), or empty. strides, before, size: of
    each axis, as from `checked`. out: as in `conv2d`."""
    to = (shape[0], kernel[0], *size)
    memory, how = engine.output(out, to, x.dtype, x, w, bias)
    if how == OVER:  # what is written may be read again
        memory = np.empty(memory.size, x.dtype)
    sizes = _sizes(shape, kernel, strides, before, size, lanes(x))
    c, kh, kw = np.ogrid[: sizes.c, : sizes.kh, : sizes.kw]
    plane = (c * sizes.sh + kh % sizes.sh) * sizes.sw + kw % sizes.sw
    offsets = (plane * sizes.hq + kh // sizes.sh) * sizes.wq + kw // sizes.sw
    args = memory, x, w, bias, np.ascontiguousarray(offsets.reshape(-1), np.int64), sizes
    engine.run(convolve, memory.size * max(1, math.prod(kernel[1:])), *args, parts=shape[0] * sizes.bands)
    return engine.finish(memory, out, to)


def _sizes(shape, kernel, strides, before, size, width):
    """`Sizes`, with the rows of a band that make the fewest tiles. width: lanes of a tile."""
    (ho, wo), (kh, kw), (sh, sw) = size, kernel[2:], strides
    wq = wo + (kw - 1) // sw

    def tiles(rows):
        whole, rest = divmod(ho, rows)
        return whole * -(-((rows - 1) * wq + wo) // width) + (-(-((rest - 1) * wq + wo) // width) if rest else 0)

    rows = min(range(1, max(2, min(ho, PIXELS // wq) + 1)), key=lambda n: (tiles(n), n))
    hq = rows + (kh - 1) // sh
    return Sizes(*shape[1:], kernel[0], ho, wo, kh, kw, sh, sw, *before, rows, -(-ho // rows), hq, wq)


@njit(**INLINE)
def pack(to, x, image, first, rows, sizes):
    """The rows from `first` on of an image's planes, (C, sh, sw, hq, wq). to, x: flat. rows: how many. sizes: `Sizes`.
    Columns outside of the image are left as they are."""
    c, h, w, sh, sw, top, left = sizes.c, sizes.h, sizes.w, sizes.sh, sizes.sw, sizes.top, sizes.left
    for channel in range(c):
        for down in range(sh):
            for across in range(sw):
                at = ((channel * sh + down) * sw + across) * sizes.hq * sizes.wq
                begin = max(0, -((across - left) // sw))
                end = min(sizes.wq, (w - 1 - across + left) // sw + 1)
                for i in range(rows):
                    row = (first + i) * sh + down - top
                    line = to[at + i * sizes.wq : at + (i + 1) * sizes.wq]
                    if row < 0 or row >= h:
                        line[:] = 0
                    else:
                        source = x[((image * c + channel) * h + row) * w : ((image * c + channel) * h + row + 1) * w]
                        copy(line, source, begin, end, sw, across - left)


@register_jitable(**INLINE)
def copy(line, source, begin, end, step, shift):
    """line[j] = source[j step + shift] for j from begin to end - 1."""
    if step == 1:
        for j in range(begin, end):
            line[j] = source[j + shift]
    else:
        for j in range(begin, end):
            line[j] = source[j * step + shift]


@njit(**COMPILE)
def convolve(lo, hi, y, x, w, bias, offsets, sizes):
    """The bands lo .. hi - 1 of all images. y, x, w: flat. bias: (O,), or empty. offsets: (C KH KW,). sizes: `Sizes`."""
    wide()
    o, wq, terms, width = sizes.o, sizes.wq, sizes.kh * sizes.kw, lanes(x)
    planes = lines(sizes.c * sizes.sh * sizes.sw * sizes.hq * wq + width, x)
    across = -(-((sizes.rows - 1) * wq + sizes.wo) // width) * width
    sums = lines(-(-o // ROWS) * ROWS * across, x)
    for band in range(lo, hi):
        image, first = band // sizes.bands, band % sizes.bands * sizes.rows
        rows = min(sizes.rows, sizes.ho - first)
        pack(planes, x, image, first, rows + (sizes.kh - 1) // sizes.sh, sizes)
        for i in range(o):
            sums[i * across : (i + 1) * across] = bias[i] if bias.size else x.dtype.type(0)
        for k in range(0, sizes.c * terms, CHANNELS * terms):
            depth = min(CHANNELS * terms, sizes.c * terms - k)
            for j in range(0, (rows - 1) * wq + sizes.wo, width):
                right = Right(planes, j, offsets[k : k + depth])
                for i in range(0, o, ROWS):
                    left = Left(w, i * sizes.c * terms + k, sizes.c * terms, 1)
                    tile_onto(sums, i * across + j, across, left, min(ROWS, o - i), right, depth)
        for i in range(o):
            to = ((image * o + i) * sizes.ho + first) * sizes.wo
            for r in range(rows):
                line = sums[i * across + r * wq : i * across + r * wq + sizes.wo]
                place = y[to + r * sizes.wo : to + (r + 1) * sizes.wo]
                for j in range(sizes.wo):
                    place[j] = line[j]
