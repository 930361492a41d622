"""The gradients of `linear` and `linear_act` of `ref.layers` on the CPU: dx and dw are two products on the register
tile. Before them `linear_act` is computed again, and dy times the slope of its activation follows while the sums are in
the first-level cache. dw and db are added up over rows in one order, by one thread for each OUTPUTS rows of dw. `out`
takes dx alone.
"""
import math

import numpy as np

from kernels.numba_cpu import engine
from kernels.numba_cpu.activations import phi
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import CALLED, COMPILE, INLINE, OVER
from kernels.numba_cpu.gates import CURVE, QUICK, gelu_slope, two_u
from kernels.numba_cpu.intrinsics import wide
from kernels.numba_cpu.linear import ACTS, add_tile, affine, block_of, checked, copy_columns, multiply, weights
from kernels.numba_cpu.math import gate_slope
from kernels.numba_cpu.matmul import ROWS, Left, Right, lanes, lines, room

OUTPUTS, DEPTH = 64, 192  # rows of dw in a part; rows of x at a time, which stay in the first-level cache


def linear_backward(dy, x, w, out=None):
    """Gradients of `linear` on the CPU, arguments as in `ref.layers.linear.linear_backward` and
    `ref.layers.linear.linear`."""
    to = checked(x, w, None, None)[-1]
    upstream = engine.like("dy", dy, x.dtype, to)
    memory, how = engine.output(out, x.shape, x.dtype, upstream, flat := engine.flat(x), w)
    memory = np.empty(memory.size, x.dtype) if how == OVER else memory  # what is written may be read again
    dw, db = _gradients(memory, upstream, flat, w)
    return engine.finish(memory, out, x.shape), dw, db


def linear_act_backward(dy, x, w, b, act, out=None):
    """Gradients of `linear_act` on the CPU, arguments as in `ref.layers.fused.linear_act_backward`; dr is dy."""
    bias, m, n, halves, to = checked(x, w, b, act)
    dtype, rows = x.dtype, math.prod(to[:-1])
    upstream, flat = engine.like("dy", dy, dtype, to), engine.flat(x)
    memory, how = engine.output(out, x.shape, dtype, upstream, flat, w, bias)
    if how == OVER:  # what is written may be read again
        memory = np.empty(memory.size, dtype)
    dh = np.empty((rows, halves * m), dtype)
    args = upstream, flat, *weights(w, bias, halves), ACTS.index(act), m, n, block_of(halves * m)
    engine.run(slopes, dh.size * max(1, n), dh.reshape(-1), *args, parts=-(-rows // args[-1]))
    dw, db = _gradients(memory, dh.reshape(-1), flat, w)
    return engine.finish(memory, out, x.shape), dw, db, dy


def _gradients(dx, dh, x, w):
    """dx = dh w, in place; dw = dh^T x and db. dx, dh, x: flat. w: (m, n)."""
    (m, n), rows = w.shape, dh.size // max(1, len(w))
    dw, db = np.zeros((m, n), x.dtype), np.zeros(m, x.dtype)
    args = dx, dw.reshape(-1), db, dh, x, engine.flat(w), np.empty(0, x.dtype), rows, n
    engine.run(gradients, 2 * dh.size * max(1, n), *args, parts=-(-m // OUTPUTS) * max(1, -(-n // lanes(x))))
    return dw, db


@njit(**COMPILE)
def gradients(lo, hi, dx, dw, db, dh, x, w, bias, rows, n):
    """The shares lo .. hi - 1 of the parts of dw and db and of the panels of dx, `weigh` and `affine`. dx, dw, db, dh,
    x, w: flat. bias: empty. rows, n: ints."""
    m = db.size
    parts, panels = -(-m // OUTPUTS), -(-n // lanes(x))
    shares = parts * max(1, panels)
    weigh(lo * parts // shares, hi * parts // shares, dw, db, dh, x, rows, n)
    affine(lo * panels // shares, hi * panels // shares, dx, dh, w, bias, rows, n, m, True)


@njit(**COMPILE)
def slopes(lo, hi, dh, dy, x, panels, bias, act, m, n, block):
    """dh = dy act'(W x + b) of the blocks lo .. hi - 1 of rows. dh, dy: flat. The rest as in `linear.layer`."""
    wide()
    rows, along, half, halves = x.size // n if n else 0, bias.size, bias.size // 2, dh.size // max(1, dy.size)
    sums = lines(-(-block // ROWS) * ROWS * along, x)
    for begin in range(lo * block, min(hi * block, rows), block):
        count = min(block, rows - begin)
        multiply(sums, x, panels, bias, begin, count, n)
        for i in range(count):
            at, to, first = i * along, (begin + i) * m, (begin + i) * m * halves
            d, h, g = dy[to : to + m], sums[at : at + m], sums[at + half : at + half + m]
            bend(dh[first : first + m], dh[first + m : first + halves * m], d, h, g, act)


@njit(**INLINE)
def bend(da, dg, dy, h, g, act):
    """da = dy act'(h), of "geglu" dy gelu(g), and dg = dy h gelu'(g). da, dy, h: (m,). dg, g: (m,), of "geglu"."""
    wide()
    t = dy.dtype.type
    if act == 0:
        for k in range(dy.size):
            da[k] = dy[k] * gate_slope(h[k], h[k])
    elif act == 1:
        for k in range(dy.size):
            da[k] = dy[k] * gelu_slope(h[k])
    elif act == 2:
        for k in range(dy.size):
            da[k] = dy[k] * gate_slope(*two_u(h[k], t(CURVE[0]), t(CURVE[1]), t(CURVE[2])))
    elif act == 3:
        for k in range(dy.size):
            da[k] = dy[k] * gate_slope(t(QUICK[0]) * h[k], t(QUICK[0]) * h[k])
    else:
        for k in range(dy.size):
            da[k] = dy[k] * (g[k] * phi(g[k])[0])
            dg[k] = dy[k] * h[k] * gelu_slope(g[k])


@njit(**CALLED)
def weigh(lo, hi, dw, db, dh, x, rows, n):
    """The parts lo .. hi - 1 of dw = dh^T x and of db, each OUTPUTS rows. dw, db: zeros. dw, dh, x: flat. rows, n:
    ints."""
    wide()
    width, m, t = lanes(dw), db.size, dw.dtype.type
    panels, sums = room(DEPTH * (n + width), dw), room(ROWS * width, dw)
    turned, some, total = room(DEPTH * OUTPUTS, dw), np.empty(OUTPUTS, dw.dtype), np.zeros((hi - lo) * OUTPUTS)
    for r in range(0, rows, DEPTH):
        depth = min(DEPTH, rows - r)
        for j in range(0, n, width):
            copy_columns(panels, j * DEPTH, x, r * n + j, n, depth, min(width, n - j))
        for part in range(lo, hi):
            first = part * OUTPUTS
            count = min(OUTPUTS, m - first)
            for i in range(0, count, width):
                copy_columns(turned, i * DEPTH, dh, r * m + first + i, m, depth, min(width, count - i))
            # the sums of dh
            some[:] = 0
            for row in range(r, r + depth):
                d = dh[row * m + first : row * m + first + count]
                for i in range(count):
                    some[i] += d[i]
            for i in range(count):
                total[(part - lo) * OUTPUTS + i] += some[i]
            for j in range(0, n, width):
                right = Right(panels, j * DEPTH, width)
                for i in range(0, count, ROWS):
                    left = Left(turned, i // width * width * DEPTH + i % width, 1, width)
                    to, those = (first + i) * n + j, min(ROWS, count - i)
                    add_tile(dw, to, n, those, min(width, n - j), left, right, depth, sums)
    for i in range(min(hi * OUTPUTS, m) - lo * OUTPUTS):
        db[lo * OUTPUTS + i] = t(total[i])
