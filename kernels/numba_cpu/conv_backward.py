"""The gradients of `ref.layers.conv2d` on the CPU. dx is a convolution; dw, one product for each shift of the kernel,
with the pixels as terms and the channels of x as the lanes: images and pixels are added in one order, by one thread for
each shift and OUTPUTS rows of w. `out` takes dx alone.
"""
import numpy as np

from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.conv import Sizes, checked, convolved
from kernels.numba_cpu.engine import COMPILE, OVER, element
from kernels.numba_cpu.group_norm import STANDARD, activate, group_norm_silu_backward, standards
from kernels.numba_cpu.intrinsics import copy_line, wide
from kernels.numba_cpu.matmul import ROWS, VECTORS, Left, Right, lanes, lines, room, tile_onto
from kernels.numba_cpu.moments import added
from kernels.numba_cpu.panels import panelled, transpose

OUTPUTS, PIXELS = 64, 192  # rows of dw in a part; pixels at a time, whose terms stay in the first-level cache
ROOM = 1 << 17  # sums that are kept while images go by


def conv2d_backward(dy, x, w, stride=1, padding=((1, 1), (1, 1)), out=None):
    """Gradients of `conv2d` on the CPU, arguments as in `ref.layers.conv.conv2d_backward`."""
    upstream, sizes = _upstream(dy, x, w, stride, padding)
    flat = engine.flat(x)
    dw, db = _dw(upstream, flat, np.empty(0, x.dtype), len(x), sizes)
    return _dx(upstream, flat, w, x.shape, sizes, out), dw, db


def norm_conv_backward(dy, x, groups, scale, shift, eps, w, stride=1, padding=((1, 1), (1, 1)), out=None):
    """Gradients of `norm_conv` on the CPU, arguments as in `ref.layers.fused.norm_conv_backward` and
    `ref.layers.fused.norm_conv`: what the convolution loaded is made again while it is packed."""
    upstream, sizes = _upstream(dy, x, w, stride, padding)
    flat = engine.flat(x)
    norm = standards(flat, x.shape, groups, scale, shift, eps)
    dw, db = _dw(upstream, flat, norm, len(x), sizes)
    da = _dx(upstream, flat, w, x.shape, sizes, None)
    return *group_norm_silu_backward(da, x, groups, scale, shift, eps, out), dw, db


def _upstream(dy, x, w, stride, padding):
    """dy, flat, and `Sizes` of one band, after the check. dy, x, w, stride, padding: of `conv2d_backward`."""
    dtype, strides, before, size = checked(x, w, stride, padding)
    upstream = engine.like("dy", dy, dtype, (len(x), len(w), *size))
    (kh, kw), (sh, sw) = w.shape[2:], strides
    whole, wq = size[0] + (kh - 1) // sh, size[1] + (kw - 1) // sw
    return upstream, Sizes(*x.shape[1:], len(w), *size, kh, kw, sh, sw, *before, size[0], 1, whole, wq, wq)


def _dx(dy, x, w, shape, sizes, out):
    """dx: of the pixels of each remainder by the stride, dy convolved with the part of the kernel that meets them,
    turned round. dy, x: flat. shape: of x. sizes: `Sizes`."""
    w = engine.flat(w).reshape(w.shape)
    memory, how = engine.output(out, shape, dy.dtype, dy, x, w)
    memory = np.zeros(memory.size, dy.dtype) if how == OVER else memory
    dx, given = memory.reshape(shape), (shape[0], len(w), sizes.ho, sizes.wo)
    for down in range(sizes.sh):
        for across in range(sizes.sw):
            kernel = w[:, :, down :: sizes.sh, across :: sizes.sw][:, :, ::-1, ::-1].swapaxes(0, 1)
            ends = (sizes.top, down, sizes.sh), (sizes.left, across, sizes.sw)
            first = [-((remainder - before) // step) for before, remainder, step in ends]
            begin = [step * u + remainder - before for u, (before, remainder, step) in zip(first, ends)]
            place = dx[:, :, begin[0] :: sizes.sh, begin[1] :: sizes.sw]
            if kernel.size and place.size:
                margin = [n - 1 - u for n, u in zip(kernel.shape[2:], first)]
                args = dy, given, kernel, np.empty(0, dy.dtype), (1, 1), margin
                whole = place if place.flags.carray else None  # of stride 1
                part = convolved(*args, place.shape[2:], whole)
                if whole is None:
                    place[...] = part
            else:
                place[...] = 0
    return engine.finish(memory, out, shape)


def _dw(dy, x, norm, images, sizes):
    """dw and db. dy, x: flat. norm: of `standards`, or empty. sizes: `Sizes` of one band."""
    width, terms, groups = lanes(x), sizes.kh * sizes.kw, -(-sizes.c // lanes(x))
    planes = np.zeros(images * groups * sizes.sh * sizes.sw * sizes.hq * sizes.wq * width, x.dtype)
    dw, db = np.zeros((sizes.o, sizes.c, terms), x.dtype), np.zeros(sizes.o, x.dtype)
    pixels = np.arange(sizes.ho)[:, None] * sizes.wq + np.arange(sizes.wo)  # where each stands in a plane
    pixels = np.ascontiguousarray(pixels.reshape(-1) * width, np.int64)
    engine.run(pack_lanes, x.size, planes, x, norm, groups, sizes, parts=images)
    lane = width // VECTORS  # of dy, the outputs that stand next to each other
    panels = images * -(-sizes.o // lane)
    turned, parts = room(panels * lane * pixels.size, x), terms * -(-sizes.o // OUTPUTS)
    engine.run(panelled, dy.size, turned, dy, sizes.o, lane, pixels.size, parts=panels)
    args = dw.reshape(-1), db, planes, dy, turned, pixels, images, sizes
    engine.run(weigh, dw.size * images * pixels.size, *args, parts=parts)
    return dw.reshape(sizes.o, sizes.c, sizes.kh, sizes.kw), db


@njit(**COMPILE)
def pack_lanes(lo, hi, planes, x, norm, groups, sizes):
    """The images lo .. hi - 1 with channels as lanes, (groups, sh, sw, hq, wq, lanes), zeros around them. planes, x:
    flat. norm: of `standards`, or empty. groups: int. sizes: `Sizes`."""
    wide()
    width, wq, sh, sw, w, pixels = lanes(x), sizes.wq, sizes.sh, sizes.sw, sizes.w, sizes.h * sizes.w
    v, turned = np.empty(width * pixels, x.dtype), np.zeros(pixels * width, x.dtype)
    for image in range(lo, hi):
        for group in range(groups):
            # channels to lanes
            first, count = image * sizes.c + group * width, min(width, sizes.c - group * width)
            v[: count * pixels] = x[first * pixels : (first + count) * pixels]
            for k in range(count if norm.size else 0):
                activate(v[k * pixels : (k + 1) * pixels], norm[(first + k) * STANDARD : (first + k + 1) * STANDARD])
            turned[: turned.size if count < width else 0] = 0
            transpose(turned, width, v, pixels, count, pixels)
            # pixels to their planes
            for y in range(sizes.h):
                row = y + sizes.top
                down = (image * groups + group) * sh + row % sh
                for across in range(sw if row // sh < sizes.hq else 0):
                    begin = max(0, -((across - sizes.left) // sw))
                    end = min(wq, (w - 1 - across + sizes.left) // sw + 1)
                    to = ((down * sw + across) * sizes.hq + row // sh) * wq * width
                    for j in range(begin, end):
                        at = (y * w + j * sw + across - sizes.left) * width
                        for vector in range(0, width, width // VECTORS):
                            copy_line(planes, to + j * width + vector, turned, at + vector)


@njit(**COMPILE)
def weigh(lo, hi, dw, db, planes, dy, turned, pixels, images, sizes):
    """The parts lo .. hi - 1 of dw, each one shift of the kernel for OUTPUTS rows, the first with their db, (O,). dw,
    dy: flat. planes: of `pack_lanes`. turned: dy, of `panelled`. pixels: where each stands in a plane. images: int.
    sizes: `Sizes`."""
    wide()
    o, terms, width, plane = sizes.o, sizes.kh * sizes.kw, lanes(dw), sizes.hq * sizes.wq
    run, groups, lane, panels = pixels.size, -(-sizes.c // width), width // VECTORS, -(-o // (width // VECTORS))
    across = groups * width
    together = max(1, ROOM // (OUTPUTS * across))  # parts, while an image is in the second-level cache
    sums = lines(min(together, hi - lo) * OUTPUTS * across, dw)
    for begin in range(lo, hi, together):
        end = min(begin + together, hi)
        sums[:] = 0
        for image in range(images):
            for part in range(begin, end):
                shift, first, to = part % terms, part // terms * OUTPUTS, (part - begin) * OUTPUTS * across
                y, x = shift // sizes.kw, shift % sizes.kw
                at = (y % sizes.sh * sizes.sw + x % sizes.sw) * plane + y // sizes.sh * sizes.wq + x // sizes.sw
                for p in range(0, run, PIXELS):
                    depth = min(PIXELS, run - p)
                    for group in range(groups):
                        of_group = (image * groups + group) * sizes.sh * sizes.sw * plane
                        right = Right(planes, (of_group + at) * width, pixels[p : p + depth])
                        for i in range(first, min(first + OUTPUTS, o), ROWS):
                            of_panel = (image * panels + i // lane) * run + p
                            left = Left(turned, of_panel * lane + i % lane, 1, lane)
                            here = to + (i - first) * across + group * width
                            tile_onto(sums, here, across, left, ROWS, right, depth)
        for part in range(begin, end):
            shift, first = part % terms, part // terms * OUTPUTS
            for i in range(first, min(first + OUTPUTS, o)):
                row = ((part - begin) * OUTPUTS + i - first) * across
                for channel in range(sizes.c):
                    dw[(i * sizes.c + channel) * terms + shift] = sums[row + channel]
                if shift == 0:
                    db[i] = total_of(dy, images, o, run, i)


@element
def total_of(dy, images, o, run, i):
    """The sum of channel i of dy (images, o, run), flat, in float64."""
    total = 0.0
    for image in range(images):
        at = (image * o + i) * run
        total += added(dy[at : at + run])
    return total
