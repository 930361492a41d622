"""Activations of one number and their gradients on the GPU, one read and one write. `out` takes the result, and may be
an input.

x sigmoid(u) has its sigmoid from e^-|u|, and a slope its 1 - s from sigmoid(-u), so that neither cancels.
"""
import math

import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu.arrays import STORED, read
from kernels.triton_gpu.layers.activations import DENSITY, HALF_LOG2E, cdf
from kernels.triton_gpu.math import logistic
from kernels.triton_gpu.rowwise import rowwise

NONE = np.empty((0, 1))  # no coefficients
SLOPE, CUBE, QUICK = map(tl.constexpr, (2 * math.sqrt(2 / math.pi), 0.044715, 1.702))
FAR = tl.constexpr(20.0)  # beyond it the sigmoid of gelu_tanh is 0 or 1 in float32, and x^2 may overflow


def silu(x, out=None):
    """x sigmoid(x); arguments as in `ref.layers.activations.silu`."""
    return rowwise(silu_of, read(STORED, x=x), NONE, out)


def silu_backward(dy, x, out=None):
    """Gradient of `silu`; arguments as in `ref.layers.activations.silu_backward`."""
    return rowwise(silu_slope, read(STORED, dy=dy, x=x), NONE, out)


def gelu(x, out=None):
    """x Phi(x); arguments as in `ref.layers.activations.gelu`."""
    return rowwise(gelu_of, read(STORED, x=x), NONE, out)


def gelu_backward(dy, x, out=None):
    """Gradient of `gelu`; arguments as in `ref.layers.activations.gelu_backward`."""
    return rowwise(gelu_slope, read(STORED, dy=dy, x=x), NONE, out)


def gelu_tanh(x, out=None):
    """x sigmoid(2 u); arguments as in `ref.layers.activations.gelu_tanh`."""
    return rowwise(gelu_tanh_of, read(STORED, x=x), NONE, out)


def gelu_tanh_backward(dy, x, out=None):
    """Gradient of `gelu_tanh`; arguments as in `ref.layers.activations.gelu_tanh_backward`."""
    return rowwise(gelu_tanh_slope, read(STORED, dy=dy, x=x), NONE, out)


def quick_gelu(x, out=None):
    """x sigmoid(1.702 x); arguments as in `ref.layers.activations.quick_gelu`."""
    return rowwise(quick_gelu_of, read(STORED, x=x), NONE, out)


def quick_gelu_backward(dy, x, out=None):
    """Gradient of `quick_gelu`; arguments as in `ref.layers.activations.quick_gelu_backward`."""
    return rowwise(quick_gelu_slope, read(STORED, dy=dy, x=x), NONE, out)


@triton.jit
def sigmoids(u):
    """sigmoid(u) and sigmoid(-u). u: float32 block."""
    log, large, small = logistic(u)
    return tl.where(u >= 0, large, small), tl.where(u >= 0, small, large)


@triton.jit
def silu_of(x):
    """x sigmoid(x). x: float32 block."""
    s, rest = sigmoids(x)
    return x * s


@triton.jit
def silu_slope(dy, x):
    """dy s (1 + x (1 - s)). dy, x: float32 blocks."""
    s, rest = sigmoids(x)
    return dy * (s * tl.fma(x, rest, 1.0))


@triton.jit
def gelu_of(x):
    """x Phi(x). x: float32 block."""
    return x * cdf(x)


@triton.jit
def gelu_slope(dy, x):
    """dy (Phi(x) + x phi(x)). dy, x: float32 blocks."""
    return dy * tl.fma(x, DENSITY * tl.exp2(-x * x * HALF_LOG2E), cdf(x))


@triton.jit
def gelu_tanh_of(x):
    """x sigmoid(2 u),  2 u = SLOPE x (1 + CUBE x^2). x: float32 block."""
    s, rest, slope = tanh_parts(x)
    return x * s


@triton.jit
def gelu_tanh_slope(dy, x):
    """dy (s + x s (1 - s) 2 u'). dy, x: float32 blocks."""
    s, rest, slope = tanh_parts(x)
    return dy * tl.fma(s * rest, slope, s)


@triton.jit
def tanh_parts(x):
    """sigmoid(2 u), sigmoid(-2 u) and x 2 u'. x: float32 block."""
    near = tl.where(x > FAR, FAR, tl.where(x < -FAR, -FAR, x))  # NaN stays
    square = near * near
    s, rest = sigmoids(near * SLOPE * tl.fma(square, CUBE, 1.0))
    return s, rest, near * SLOPE * tl.fma(square, 3 * CUBE, 1.0)


@triton.jit
def quick_gelu_of(x):
    """x sigmoid(1.702 x). x: float32 block."""
    s, rest = sigmoids(x * QUICK)
    return x * s


@triton.jit
def quick_gelu_slope(dy, x):
    """dy (s + 1.702 x s (1 - s)). dy, x: float32 blocks."""
    s, rest = sigmoids(x * QUICK)
    return dy * (s * tl.fma(x * QUICK, rest, 1.0))
