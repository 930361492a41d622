"""Mean and variance of a row or a group, in two passes over what the first one brought into the cache.

A pass adds up CHUNK elements in the dtype, in as many sums as a loop has lanes, and those in float64. The variance is
that of x less the mean as the dtype holds it, and what rounding left of the mean is taken off: never E[x^2] - E[x]^2.
"""
import math

from numba import float64

from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import CHUNK, SUM, element
from kernels.numba_cpu.intrinsics import wide


@njit(**SUM)
def _sum(x):
    wide()
    s = x.dtype.type(0)
    for j in range(x.size):
        s += x[j]
    return float64(s)


@njit(**SUM)
def _centred(x, m):
    wide()
    s = q = x.dtype.type(0)
    for j in range(x.size):
        c = x[j] - m
        s += c
        q += c * c
    return float64(s), float64(q)


@njit(**SUM)
def products(x, y):
    """sum_j x_j and sum_j x_j y_j of a chunk, in float64. x, y: one length."""
    wide()
    s = q = x.dtype.type(0)
    for j in range(x.size):
        s += x[j]
        q += x[j] * y[j]
    return float64(s), float64(q)


@element
def added(x):
    """sum_j x_j in float64. x: (n,)."""
    total = 0.0
    for first in range(0, x.size, CHUNK):
        total += _sum(x[first : min(first + CHUNK, x.size)])
    return total


@element
def moments(x, eps):
    """m, over and off, numbers of x's dtype: the standardised x is (x - m) over + off, over = 1 / sqrt(var + eps), and
    off is for what rounding left of the mean m. x: (n,), n >= 1. eps: float."""
    m = x.dtype.type(added(x) / x.size)
    total = square = 0.0
    for first in range(0, x.size, CHUNK):
        s, q = _centred(x[first : min(first + CHUNK, x.size)], m)
        total += s
        square += q
    left = total / x.size
    var = square / x.size - left * left
    var = 0.0 if var < 0 else var
    over = 1 / math.sqrt(var + eps)
    return m, x.dtype.type(over), x.dtype.type(-left * over)
