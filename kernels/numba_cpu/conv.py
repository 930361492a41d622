"""`ref.layers.conv2d` on the CPU, on the register tile of `matmul`, without a matrix of columns.

A tile is ROWS pixels of a row by one or two vectors of outputs, whose weights are copied into panels. A band of rows of
the image is copied with its padding, each row and column of a stride in a plane of its own. There a shift of the kernel
is one distance for all pixels, so a tile's numbers are read in place, from offsets[k] on, and those of three taps in a
row once for all three. The rows of a band are cut into tiles one by one, or, where that makes fewer tiles, as if they
were one, with the ends that the kernel reaches over, which are dropped. What an example gets depends on no other one.
`norm_conv` normalises and activates a channel of a band where it was copied. `out` takes the result.

Papers
    [Arithmetic]  Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", 2016
"""
import math
from collections import namedtuple

import numpy as np

from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, INLINE, OVER
from kernels.numba_cpu.group_norm import STANDARD, activate, standards
from kernels.numba_cpu.intrinsics import copy_half, copy_line, turn, wide
from kernels.numba_cpu.matmul import ROWS, VECTORS, Right, Sliding, lanes, lines, room, slide_onto
from kernels.numba_cpu.panels import panelled, transpose

TAPS = 3  # that are taken together
DEPTH, PIXELS = 48 * TAPS, 512  # terms at a time, which stay in the first-level cache; of a band, where rows are short


# Channels and pixels of the image, of the result, and of the kernel; strides; zeros before each axis, negative to cut
# off; rows of a band and bands of an image; rows and columns of a plane; pixels from one row of tiles to the next
Sizes = namedtuple("Sizes", "c h w o ho wo kh kw sh sw top left rows bands hq wq line")


def conv2d(x, w, b=None, stride=1, padding=((1, 1), (1, 1)), out=None):
    """[Arithmetic] section 2 on the CPU, arguments as in `ref.layers.conv.conv2d`."""
    dtype, strides, before, size = checked(x, w, stride, padding)
    bias = engine.like("b", b, dtype, w.shape[:1])
    return convolved(engine.flat(x), x.shape, engine.flat(w).reshape(w.shape), bias, strides, before, size, out)


def norm_conv(x, groups, scale, shift, eps, w, b, stride=1, padding=((1, 1), (1, 1)), out=None):
    """The convolution of silu(group_norm(x)) on the CPU, arguments as in `ref.layers.fused.norm_conv`."""
    dtype, strides, before, size = checked(x, w, stride, padding)
    bias, flat = engine.like("b", b, dtype, w.shape[:1]), engine.flat(x)
    norm = standards(flat, x.shape, groups, scale, shift, eps)
    w = engine.flat(w).reshape(w.shape)
    return convolved(flat, x.shape, w, bias, strides, before, size, out, norm)


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


def convolved(x, shape, w, bias, strides, before, size, out, norm=None):
    """The convolution. x: flat, of that shape. w: (O, C, KH, KW), of any strides. bias: (O,), or empty. strides,
    before, size: of each axis, as from `checked`. out: as in `conv2d`. norm: of `standards`, or None."""
    norm = np.empty(0, x.dtype) if norm is None else norm
    to = (shape[0], len(w), *size)
    memory, how = engine.output(out, to, x.dtype, x, w, bias)
    if how == OVER:  # what is written may be read again
        memory = np.empty(memory.size, x.dtype)
    sizes = _sizes(shape, w.shape, strides, before, size)
    c, kh, kw = np.ogrid[: sizes.c, : sizes.kh, : sizes.kw]
    plane = (c * sizes.sh + kh % sizes.sh) * sizes.sw + kw % sizes.sw
    offsets = (plane * sizes.hq + kh // sizes.sh) * sizes.wq + kw // sizes.sw
    taps = tuple(range(TAPS if sizes.kw % TAPS == 0 and sizes.sw == 1 else 1))
    offsets = np.ascontiguousarray(offsets.reshape(-1)[:: len(taps)], np.int64)
    lane, terms = lanes(x) // VECTORS, math.prod(w.shape[1:])
    vectors = tuple(range(min(VECTORS, -(-sizes.o // lane))))
    groups, width = -(-sizes.o // (lane * len(vectors))), lane * len(vectors)
    panels, shift = room(groups * width * terms, x), lines(groups * width, x)
    shift[: bias.size] = bias
    if w.flags.carray:
        engine.run(panelled, w.size, panels, w.reshape(-1), sizes.o, width, terms, parts=groups)
    else:
        engine.run(gathered, w.size, panels, w, width, parts=groups)
    args = memory, x, panels, shift, norm, offsets, taps, vectors, sizes
    engine.run(convolve, memory.size * max(1, terms), *args, parts=shape[0] * sizes.bands)
    return engine.finish(memory, out, to)


def _sizes(shape, kernel, strides, before, size):
    """`Sizes`, with the rows of a band, and of its tiles, that make the fewest tiles."""
    (ho, wo), (kh, kw), (sh, sw) = size, kernel[2:], strides
    wq = wo + (kw - 1) // sw
    whole = -(-wo // ROWS) * ROWS  # a row in tiles of its own

    def tiles(rows, line):
        return sum(-(-((n - 1) * line + wo) // ROWS) for n in [rows] * (ho // rows) + [ho % rows] * (ho % rows > 0))

    choices = [(rows, line) for line in (whole, wq) for rows in range(1, max(2, min(ho, PIXELS // wq) + 1))]
    rows, line = min(choices, key=lambda choice: (tiles(*choice), -choice[0]))
    hq = rows + (kh - 1) // sh
    return Sizes(*shape[1:], kernel[0], ho, wo, kh, kw, sh, sw, *before, rows, -(-ho // rows), hq, wq, line)


@njit(**COMPILE)
def gathered(lo, hi, panels, w, width):
    """`panelled` of w (rows, C, KH, KW), of any strides. lo, hi, panels, width: as there."""
    rows, c, kh, kw = w.shape
    for panel in range(lo, hi):
        first, to = panel * width, panel * width * c * kh * kw
        count = min(width, rows - first)
        for channel in range(c):
            for y in range(kh):
                for x in range(kw):
                    line = panels[to : to + width]
                    line[count:] = 0
                    for i in range(count):
                        line[i] = w[first + i, channel, y, x]
                    to += width


@njit(**INLINE)
def pack(to, x, norm, image, first, rows, sizes):
    """The rows from `first` on of an image's planes, (C, sh, sw, hq, wq). to, x: flat. norm: of `standards`, or empty.
    rows: how many. sizes: `Sizes`. Without norm, columns outside of the image are left as they are."""
    c, h, w, sh, sw, top, left = sizes.c, sizes.h, sizes.w, sizes.sh, sizes.sw, sizes.top, sizes.left
    for channel in range(c):
        for down in range(sh):
            for across in range(sw):
                at = ((channel * sh + down) * sw + across) * sizes.hq * sizes.wq
                begin = max(0, -((across - left) // sw))
                end = min(sizes.wq, (w - 1 - across + left) // sw + 1)
                for i in range(rows):
                    row, line = (first + i) * sh + down - top, at + i * sizes.wq
                    if row < 0 or row >= h:
                        to[line : line + sizes.wq] = 0
                    else:
                        start = ((image * c + channel) * h + row) * w + begin * sw + across - left
                        copy(to, line + begin, x, start, max(0, end - begin), sw)
                if norm.size:
                    place = (image * c + channel) * STANDARD
                    activate(to[at : at + rows * sizes.wq], norm[place : place + STANDARD])
                    begin = min(begin, sizes.wq)
                    for i in range(rows):
                        row, line = (first + i) * sh + down - top, at + i * sizes.wq
                        inside = max(begin, end) if 0 <= row < h else begin
                        to[line : line + begin] = 0
                        to[line + inside : line + sizes.wq] = 0


@njit(**INLINE)
def copy(to, at, x, start, count, step):
    """to[at + j] = x[start + j step] for j < count. to, x: flat. The last vector may overlap the one before."""
    lane = lanes(x) // VECTORS
    half = lane // 2
    if step == 1 and count >= lane:
        for j in range(0, count - lane, lane):
            copy_line(to, at + j, x, start + j)
        copy_line(to, at + count - lane, x, start + count - lane)
    elif step == 1 and count >= half:
        copy_half(to, at, x, start)
        copy_half(to, at + count - half, x, start + count - half)
    else:
        for j in range(count):
            to[at + j] = x[start + j * step]


@njit(**COMPILE)
def convolve(lo, hi, y, x, panels, bias, norm, offsets, taps, vectors, sizes):
    """The bands lo .. hi - 1 of all images. y, x: flat. panels: of `panelled`. bias: (panels width,). norm: of
    `standards`, or empty. offsets: (C KH KW / taps,). taps, vectors: of `slide_onto`. sizes: `Sizes`."""
    wide()
    lane, terms, step = lanes(x) // VECTORS, offsets.size * len(taps), DEPTH // len(taps)
    width = lane * len(vectors)
    planes = lines(sizes.c * sizes.sh * sizes.sw * sizes.hq * sizes.wq + ROWS + len(taps), x)
    pixels = -(-((sizes.rows - 1) * sizes.line + sizes.wo) // ROWS) * ROWS
    sums = room(bias.size * pixels, x)  # (panels, pixels, width)
    for band in range(lo, hi):
        image, first = band // sizes.bands, band % sizes.bands * sizes.rows
        rows = min(sizes.rows, sizes.ho - first)
        pack(planes, x, norm, image, first, rows + (sizes.kh - 1) // sizes.sh, sizes)
        for row in range(bias.size // width * pixels):
            for vector in range(0, width, lane):
                copy_line(sums, row * width + vector, bias, row // pixels * width + vector)
        for k in range(0, offsets.size, step):
            table = offsets[k : k + step]
            for panel in range(bias.size // width):
                right = Right(panels, (panel * terms + k * len(taps)) * width, width)
                for j in range(0, (rows - 1) * sizes.line + sizes.wo, ROWS):
                    at = j if sizes.line == sizes.wq else j // sizes.line * sizes.wq + j % sizes.line
                    left, to = Sliding(planes, at, table, taps), (panel * pixels + j) * width
                    slide_onto(sums, to, left, right, vectors, table.size)
        unpack(y, sums, image, first, rows, pixels, width, sizes)


@njit(**INLINE)
def unpack(y, sums, image, first, rows, pixels, width, sizes):
    """The rows from `first` on of an image's result y, flat, from sums (panels, pixels, width). rows: how many.
    sizes: `Sizes`. The rest as in `pack`."""
    lane, along, wo = lanes(y) // VECTORS, sizes.ho * sizes.wo, sizes.wo
    if sizes.line == wo:  # rows that follow each other, in y as in sums
        rows, wo = 1, rows * wo
    for i in range(0, sizes.o, lane):
        count, of_panel = min(lane, sizes.o - i), i // width * pixels * width + i % width
        for r in range(rows):
            to, at = (image * sizes.o + i) * along + first * sizes.wo + r * wo, of_panel + r * sizes.line * width
            if count < lane or wo < lane:
                transpose(y[to:], along, sums[at:], width, wo, count)
            else:
                for j in range(0, wo, lane):  # the last block may overlap the one before
                    turn(y, to + min(j, wo - lane), along, sums, at + min(j, wo - lane) * width, width)
