"""`linear` and `linear_act` of `ref.layers` on the CPU, on the register tile of `matmul`: the lanes are outputs, whose
weights are copied into panels of a tile's width, and bias, activation and residual follow while the sums are in the
first-level cache. `out` takes the result, and may be the residual.
"""
import math

import numpy as np

from kernels.numba_cpu import engine
from kernels.numba_cpu.activations import phi
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, INLINE, OVER
from kernels.numba_cpu.gates import CURVE, QUICK, gated, two_u
from kernels.numba_cpu.intrinsics import copy_line, fma, wide
from kernels.numba_cpu.math import silu
from kernels.numba_cpu.matmul import ROWS, VECTORS, Left, Right, lanes, lines, room, tile, tile_onto
from kernels.numba_cpu.panels import copy_panel, panelled

ACTS = "silu", "gelu", "gelu_tanh", "quick_gelu", "geglu"
ROOM, DEPTH = 1 << 16, 192  # sums of a part; terms at a time, which stay in the first-level cache
NEAR = 1 << 17  # weights of panels that stay in the second-level cache
BLOCK = 256  # rows at a time


def linear(x, w, b=None, out=None):
    """W x + b on the CPU, arguments as in `ref.layers.linear.linear`."""
    bias, m, _, _, to = checked(x, w, b, None)
    memory, how = engine.output(out, to, x.dtype, flat := engine.flat(x), w, bias)
    memory = np.empty(memory.size, x.dtype) if how == OVER else memory  # what is written may be read again
    products(memory, flat, w, bias, math.prod(to[:-1]))
    return engine.finish(memory, out, to)


def products(y, x, w, bias, rows):
    """y = x w^T + bias, a number of rows. y, x: flat. w: (m, n), of any strides. bias: (m,), or empty."""
    turned = w.flags.f_contiguous and not w.flags.c_contiguous
    args = y, x, engine.flat(w.T if turned else w), bias, rows, *w.shape, turned
    engine.run(affine, rows * max(1, w.size), *args, parts=-(-len(w) // lanes(w)))


def linear_act(x, w, b, r, act, out=None):
    """act(W x + b) + r on the CPU, arguments as in `ref.layers.fused.linear_act`."""
    bias, m, n, halves, to = checked(x, w, b, act)
    residual, flat, dtype = engine.like("r", r, x.dtype, to), engine.flat(x), x.dtype
    memory, how = engine.output(out, to, dtype, flat, w, bias, residual)
    if how == OVER and any(np.may_share_memory(memory, a) for a in (flat, w, bias)):  # read again
        memory = np.empty(memory.size, dtype)
    panels, shift = weights(w, bias, halves)
    args = memory, flat, panels, shift, residual, ACTS.index(act), m, n, block_of(halves * m)
    engine.run(layer, memory.size * max(1, n) * halves, *args, parts=-(-math.prod(to[:-1]) // args[-1]))
    return engine.finish(memory, out, to)


def checked(x, w, b, act):
    """b, flat, m, n, how many outputs each number of the result needs, and its shape, after the check. x, w, b, act: of
    `linear_act`; act is None for none."""
    shape, dtype = engine.same(x=x)
    if act not in (*ACTS, None):
        raise ValueError(f"act: expected one of {', '.join(ACTS)}, got {act!r}")
    if engine.same(w=w)[1] != dtype:
        raise TypeError(f"w: expected a NumPy array of {dtype} like x, got {w.dtype}")
    if w.ndim != 2 or shape[-1:] != w.shape[1:]:
        raise ValueError(f"expected x (..., n), w (m, n), got x {shape}, w {w.shape}")
    bias, halves = engine.like("b", b, dtype, w.shape[:1]), 1 + (act == "geglu")
    if len(w) % halves:
        raise ValueError(f"w: expected an even number of rows for geglu, got {w.shape}")
    return bias, len(w) // halves, w.shape[1], halves, (*shape[:-1], len(w) // halves)


def weights(w, bias, halves):
    """w (outputs, n) in panels of a tile's width, of `panelled`, and bias with zeros to the same width, flat; each of
    the halves of the outputs begins a panel. bias: flat, empty for 0."""
    width, m, n = lanes(w), len(w) // halves, w.shape[1]
    shift = np.zeros((halves, -(-m // width) * width), w.dtype)
    shift[:, :m] = bias.reshape(halves, -1) if bias.size else 0
    panels = room(shift.size * n, w)
    engine.run(panelled, w.size, panels, engine.flat(w), m, width, n, parts=shift.size // width)
    return panels, shift.reshape(-1)


def block_of(outputs):
    """How many rows are computed at a time, so that their sums stay in the second-level cache. outputs: int."""
    return max(ROWS, min(64, ROOM // max(1, outputs) // ROWS * ROWS))


# --- the kernel -------------------------------------------------------------------------------------------------------


@njit(**COMPILE)
def layer(lo, hi, y, x, panels, bias, residual, act, m, n, block):
    """`linear_act` of the blocks lo .. hi - 1 of `block` rows. y, x, panels, residual: flat. bias: of the panels. act:
    number in ACTS. m, n: outputs and inputs."""
    wide()
    rows, along, half = x.size // n, bias.size, bias.size // 2
    sums = lines(-(-block // ROWS) * ROWS * along, x)
    for begin in range(lo * block, min(hi * block, rows), block):
        count = min(block, rows - begin)
        multiply(sums, x, panels, bias, begin, count, n)
        for i in range(count):
            to, at = (begin + i) * m, i * along
            finish(y[to : to + m], residual[to : to + m], sums[at : at + m], sums[at + half : at + half + m], act)


@njit(**COMPILE)
def affine(lo, hi, y, x, w, bias, rows, m, n, turned):
    """`products` for the panels lo .. hi - 1 of a tile's width of outputs, as many at a time as stay in the
    second-level cache for all rows, so that each weight is copied once. y, x, bias, rows: as there. w: flat, of
    (m, n), or turned of (n, m). m, n: outputs and inputs."""
    wide()
    width = lanes(x)
    most = max(1, min(hi - lo, NEAR // (max(1, n) * width)))
    panels, sums, shift = room(most * n * width, x), lines(ROWS * width, x), lines(m, x)
    shift[: bias.size] = bias
    for part in range(lo, hi, most):
        some = min(most, hi - part)
        for p in range(some):
            first = (part + p) * width
            count = min(width, m - first)
            if turned:
                copy_columns(panels, p * n * width, w, first, m, n, count)
            else:
                copy_panel(panels[p * n * width :], width, w[first * n :], count, n)
        for begin in range(0, rows, BLOCK):
            block = min(BLOCK, rows - begin)
            for p in range(some):
                j = (part + p) * width
                count = min(width, m - j)
                for i in range(begin, begin + block):
                    copy_row(y, i * m + j, shift, j, count)
                for k in range(0, n, DEPTH):
                    right, depth = Right(panels, (p * n + k) * width, width), min(DEPTH, n - k)
                    for i in range(begin, begin + block, ROWS):
                        left = Left(x, i * n + k, n, 1)
                        add_tile(y, i * m + j, m, min(ROWS, begin + block - i), count, left, right, depth, sums)


@njit(**INLINE)
def add_tile(y, to, apart, rows, count, left, right, depth, sums):
    """`tile_onto` y, of which only these rows and the first count columns are there. y, to, apart, left, right, depth:
    as there. rows, count: ints. sums: memory for a tile."""
    width = lanes(y)
    if rows == ROWS and count == width:
        tile_onto(y, to, apart, left, ROWS, right, depth)
        return
    tile(sums, 0, width, left, rows, right, depth)
    for i in range(rows):
        row, more = y[to + i * apart : to + i * apart + count], sums[i * width : i * width + count]
        for j in range(count):
            row[j] += more[j]


@njit(**INLINE)
def copy_columns(to, at, x, first, apart, rows, count):
    """The rows of to, of a tile's width, from `at` on = as many of count columns of x, and 0. to, x: flat. first,
    apart: where a row of x begins. rows, count: ints."""
    width = lanes(to)
    to[at : at + (rows * width if count < width else 0)] = 0
    for k in range(rows):
        copy_row(to, at + k * width, x, first + k * apart, count)


@njit(**INLINE)
def copy_row(to, i, x, at, count):
    """to[i + j] = x[at + j] for j < count, at most a tile's width. to, x: flat. i, at, count: ints."""
    lane = lanes(to) // VECTORS
    if count == lanes(to):
        for v in range(VECTORS):
            copy_line(to, i + v * lane, x, at + v * lane)
    else:
        to[i : i + count] = x[at : at + count]


@njit(**INLINE)
def multiply(sums, x, panels, bias, begin, count, n):
    """sums (count, bias.size) = x W + bias of the rows from `begin` on, a panel at a time. The rest as in `layer`."""
    width, along = lanes(x), bias.size
    for i in range(count):
        sums[i * along : (i + 1) * along] = bias
    for j in range(0, along, width):
        for k in range(0, n, DEPTH):
            for i in range(0, count, ROWS):
                left, right = Left(x, (begin + i) * n + k, n, 1), Right(panels, j * n + k * width, width)
                tile_onto(sums, i * along + j, along, left, min(ROWS, count - i), right, min(DEPTH, n - k))


@njit(**INLINE)
def finish(y, r, h, g, act):
    """y = act(h) + r, of "geglu" h gelu(g) + r. y, r, h, g: (m,). act: as in `layer`."""
    wide()
    t = y.dtype.type
    if act == 0:
        for k in range(y.size):
            y[k] = silu(h[k]) + r[k]
    elif act == 1:
        for k in range(y.size):
            y[k] = fma(h[k], phi(h[k])[0], r[k])
    elif act == 2:
        for k in range(y.size):
            y[k] = gated(h[k], two_u(h[k], t(CURVE[0]), t(CURVE[1]), t(CURVE[2]))[0]) + r[k]
    elif act == 3:
        for k in range(y.size):
            y[k] = gated(h[k], t(QUICK[0]) * h[k]) + r[k]
    else:
        for k in range(y.size):
            y[k] = fma(h[k], g[k] * phi(g[k])[0], r[k])
