"""`geglu` of `ref.layers` on the CPU, and its gradient, one pass over memory each. Arrays are of one dtype, float32 or
float64; `out` takes the result, and may be an input of its shape."""
import math

import numpy as np
from numba import float32
from numba.extending import overload

from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import CHUNK, COMPILE, DIRECT, INLINE, alone, element
from kernels.numba_cpu.intrinsics import deliver, wide
from kernels.numba_cpu.math import HALF, MOST_NORMAL, ONE, ZERO, exp_of

# Minimax fit, to 4e-9 of itself: Phi(-t) e^(t^2 / 2) = v P(v - 1/2), v = 1 / (1 + 3 t / 10), 0 <= t <= 15
K0, K1, K2, K3, K4, K5, K6, K7, K8, K9 = np.array([
    0.2219706130781968, 0.32915897092447893, 0.3461988403832006, 0.22208268413383497, 0.029056525214128534,
    -0.07755158276073157, -0.03646086717295889, 0.035916439236122484, 0.01963585822322922, -0.020628712218799406,
], np.float32)  # fmt: skip
CURVE, DENSITY = np.float32(0.3), np.float32(1 / math.sqrt(2 * math.pi))


@element
def _phi32(g):
    t = abs(g)
    h = -HALF * (t * t)
    e = ZERO if h < -MOST_NORMAL else exp_of(-MOST_NORMAL if h < -MOST_NORMAL else h)
    v = ONE / (ONE + CURVE * t)
    u = v - HALF
    tail = e * v * (K0 + u * (K1 + u * (K2 + u * (K3 + u * (K4 + u * (K5 + u * (K6 + u * (K7 + u * (K8 + u * K9)))))))))
    return (tail if g < ZERO else ONE - tail), e * DENSITY


@element
def _phi64(g):
    return 0.5 * math.erfc(-g * math.sqrt(0.5)), math.exp(-0.5 * g * g) / math.sqrt(2 * math.pi)


def phi(g):
    """The distribution and the density of a standard normal number. g: a number of the kernel's dtype."""
    return _phi32(g) if type(g) is np.float32 else _phi64(g)


@overload(phi, jit_options=INLINE)
def _(g):
    return _phi32 if g == float32 else _phi64


def geglu(x, out=None):
    """a gelu(g) on the CPU, arguments as in `ref.layers.activations.geglu`."""
    shape, dtype = engine.same(x=x)
    n = _half(shape)
    to = (*shape[:-1], n)
    memory, how = engine.output(out, to, dtype, flat := engine.flat(x))
    engine.run(gated, memory.size, how, memory, flat, n)
    return engine.finish(memory, out, to)


def geglu_backward(dy, x, out=None):
    """Gradient of `geglu` on the CPU, arguments as in `ref.layers.activations.geglu_backward` and
    `ref.layers.activations.geglu`."""
    shape, dtype = engine.same(x=x)
    n = _half(shape)
    upstream = engine.like("dy", dy, dtype, (*shape[:-1], n))
    memory, how = engine.output(out, shape, dtype, flat := engine.flat(x), upstream)
    engine.run(gated_back, upstream.size, how, memory, upstream, flat, n)
    return engine.finish(memory, out, shape)


def _half(shape):
    if not shape or shape[-1] % 2:
        raise ValueError(f"x: expected an even last axis, got {shape}")
    return shape[-1] // 2


@alone
def _gated_part(o, a, g):
    wide()
    for j in range(g.size):
        o[j] = a[j] * (g[j] * phi(g[j])[0])


@njit(**COMPILE)
def gated(lo, hi, how, out, x, n):
    """`geglu` of the elements lo .. hi - 1 of the result. how: of `engine.output`. out, x: flat. n: of its row."""
    part, first = np.empty(CHUNK, x.dtype), lo
    while first < hi:
        row = first // n
        last = min(first + CHUNK, (row + 1) * n, hi)
        a, g = x[first + row * n : last + row * n], x[first + (row + 1) * n : last + (row + 1) * n]
        _gated_part(out[first:last] if how == DIRECT else part[: last - first], a, g)
        if how != DIRECT:
            deliver(out, part, first, last, how)
        first = last


@alone
def _gated_part_back(da, dg, d, a, g):
    wide()
    for j in range(g.size):
        below, density = phi(g[j])
        da[j] = d[j] * (g[j] * below)
        dg[j] = d[j] * a[j] * (below + g[j] * density)


@njit(**COMPILE)
def gated_back(lo, hi, how, dx, dy, x, n):
    """`geglu_backward` of the elements lo .. hi - 1 of dy. how: of `engine.output`. dx, dy, x: flat. n: of a row of
    dy."""
    da, dg, first = np.empty(CHUNK, x.dtype), np.empty(CHUNK, x.dtype), lo
    while first < hi:
        row = first // n
        last = min(first + CHUNK, (row + 1) * n, hi)
        at, to, d = first + row * n, first + (row + 1) * n, dy[first:last]
        a, g = x[at : at + last - first], x[to : to + last - first]
        _gated_part_back(da, dg, d, a, g)
        deliver(dx, da, at, at + last - first, how)
        deliver(dx, dg, to, to + last - first, how)
        first = last
