"""Activations of one number of `ref.layers` on the CPU, and their gradients, one pass over memory each. Arrays are of
one dtype, float32 or float64; `out` takes the result, and may be an input."""
import math

import numpy as np
from numba import float32
from numba.extending import overload

from kernels.numba_cpu import engine
from kernels.numba_cpu.activations import phi
from kernels.numba_cpu.engine import INLINE, element
from kernels.numba_cpu.intrinsics import fma
from kernels.numba_cpu.math import MOST_NORMAL, ONE, ZERO, exp_of, gate_slope
from kernels.numba_cpu.math import silu as silu_of
from kernels.numba_cpu.rowwise import apply, rowwise

CURVE = 1.0, 2 * math.sqrt(2 / math.pi), 0.044715  # of `two_u`
QUICK = (1.702,)
NONE = np.empty((0, 1))  # no coefficients


def silu(x, out=None):
    """x sigmoid(x) on the CPU, arguments as in `ref.layers.activations.silu`."""
    return _each(SILU, (), out, x=x)


def silu_backward(dy, x, out=None):
    """Gradient of `silu` on the CPU, arguments as in `ref.layers.activations.silu_backward`."""
    return _each(SILU_BACK, (), out, dy=dy, x=x)


def gelu(x, out=None):
    """x Phi(x) on the CPU, arguments as in `ref.layers.activations.gelu`."""
    return _each(GELU, (), out, x=x)


def gelu_backward(dy, x, out=None):
    """Gradient of `gelu` on the CPU, arguments as in `ref.layers.activations.gelu_backward`."""
    return _each(GELU_BACK, (), out, dy=dy, x=x)


def gelu_tanh(x, out=None):
    """x sigmoid(2 u) on the CPU, arguments as in `ref.layers.activations.gelu_tanh`."""
    return _each(GELU_TANH, CURVE, out, x=x)


def gelu_tanh_backward(dy, x, out=None):
    """Gradient of `gelu_tanh` on the CPU, arguments as in `ref.layers.activations.gelu_tanh_backward`."""
    return _each(GELU_TANH_BACK, CURVE, out, dy=dy, x=x)


def quick_gelu(x, out=None):
    """x sigmoid(1.702 x) on the CPU, arguments as in `ref.layers.activations.quick_gelu`."""
    return _each(QUICK_GELU, QUICK, out, x=x)


def quick_gelu_backward(dy, x, out=None):
    """Gradient of `quick_gelu` on the CPU, arguments as in `ref.layers.activations.quick_gelu_backward`."""
    return _each(QUICK_GELU_BACK, QUICK, out, dy=dy, x=x)


def _each(kernel, u, out, **arrays):
    shape, dtype = engine.same(**arrays)
    return apply(kernel, out, shape, dtype, NONE, *arrays.values(), u=u)


# --- one element ------------------------------------------------------------------------------------------------------


@element
def _gated32(x, z):
    h = MOST_NORMAL if -z > MOST_NORMAL else -z
    return (x * ZERO if z < -MOST_NORMAL else x) / (ONE + exp_of(-MOST_NORMAL if h < -MOST_NORMAL else h))


@element
def _gated64(x, z):
    e = math.exp(-abs(z))
    return x * ((e if z < 0 else 1.0) / (1.0 + e))


def gated(x, z):
    """x sigmoid(z). x, z: numbers of the kernel's dtype."""
    return _gated32(x, z) if type(x) is np.float32 else _gated64(x, z)


@overload(gated, jit_options=INLINE)
def _(x, z):
    return _gated32 if x == float32 else _gated64


@element
def two_u(x, one, slope, cube):
    """2 sqrt(2 / pi) (x + 0.044715 x^3), and x times its slope. one, slope, cube: CURVE in the kernel's dtype."""
    square = cube * (x * x)
    return slope * x * (one + square), slope * x * (one + (square + square + square))


@element
def gelu_slope(x):
    """Phi(x) + x phi(x). x: a number of the kernel's dtype."""
    below, density = phi(x)
    return fma(x, density, below)


# --- equations, see `rowwise` -----------------------------------------------------------------------------------------


@element
def silu_forth(c, u, x):
    """x sigmoid(x). c: none. u: none. x: number."""
    return silu_of(x)


@element
def silu_back(c, u, dy, x):
    """The gradient of `silu_forth`. dy: number. c, u, x: as there."""
    return dy * gate_slope(x, x)


@element
def gelu_forth(c, u, x):
    """x Phi(x). c: none. u: none. x: number."""
    return x * phi(x)[0]


@element
def gelu_back(c, u, dy, x):
    """The gradient of `gelu_forth`. dy: number. c, u, x: as there."""
    return dy * gelu_slope(x)


@element
def gelu_tanh_forth(c, u, x):
    """x sigmoid(2 u). c: none. u: CURVE. x: number."""
    return gated(x, two_u(x, *u)[0])


@element
def gelu_tanh_back(c, u, dy, x):
    """The gradient of `gelu_tanh_forth`. dy: number. c, u, x: as there."""
    return dy * gate_slope(*two_u(x, *u))


@element
def quick_gelu_forth(c, u, x):
    """x sigmoid(1.702 x). c: none. u: QUICK. x: number."""
    return gated(x, u[0] * x)


@element
def quick_gelu_back(c, u, dy, x):
    """The gradient of `quick_gelu_forth`. dy: number. c, u, x: as there."""
    return dy * gate_slope(u[0] * x, u[0] * x)


SILU, GELU, GELU_TANH, QUICK_GELU = (
    rowwise(f, inputs=1, coefficients=0, vectors=True) for f in (silu_forth, gelu_forth, gelu_tanh_forth,
                                                                 quick_gelu_forth))  # fmt: skip
SILU_BACK, GELU_BACK, GELU_TANH_BACK, QUICK_GELU_BACK = (
    rowwise(f, inputs=2, coefficients=0, vectors=True) for f in (silu_back, gelu_back, gelu_tanh_back,
                                                                 quick_gelu_back))  # fmt: skip
