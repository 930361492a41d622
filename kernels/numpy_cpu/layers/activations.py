"""Activations of `ref.layers` and their gradients in tuned NumPy, in x's dtype; `out` takes the result."""
import functools
import math

import numpy as np

NODES = {"float32": 14, "float64": 32}  # of the polynomial in `_scaled_tail`

SLOPE, CUBE, QUICK = 2 * math.sqrt(2 / math.pi), 0.044715, 1.702


def silu(x, out=None):
    """`ref.layers.silu`. x: any shape."""
    return np.multiply(x, sigmoid(x), out=out)


def silu_backward(dy, x, out=None):
    """`ref.layers.silu_backward`. dy, x: one shape."""
    return _gate_backward(dy, x, x, out)


def gelu(x, out=None):
    """`ref.layers.gelu`. x: any shape."""
    return np.multiply(x, normal_cdf(x), out=out)


def gelu_backward(dy, x, out=None):
    """`ref.layers.gelu_backward`. dy, x: one shape."""
    density = np.exp(np.square(x) * x.dtype.type(-0.5))
    density *= x.dtype.type(1 / math.sqrt(2 * math.pi))
    density *= x
    density += normal_cdf(x)
    return np.multiply(density, dy, out=out)


def gelu_tanh(x, out=None):
    """`ref.layers.gelu_tanh`. x: any shape."""
    return np.multiply(x, sigmoid(_two_u(x)), out=out)


def gelu_tanh_backward(dy, x, out=None):
    """`ref.layers.gelu_tanh_backward`. dy, x: one shape."""
    slope = np.square(x) * x.dtype.type(3 * CUBE)
    slope += 1
    slope *= x
    slope *= x.dtype.type(SLOPE)
    return _gate_backward(dy, _two_u(x), slope, out)


def quick_gelu(x, out=None):
    """`ref.layers.quick_gelu`. x: any shape."""
    return np.multiply(x, sigmoid(x * x.dtype.type(QUICK)), out=out)


def quick_gelu_backward(dy, x, out=None):
    """`ref.layers.quick_gelu_backward`. dy, x: one shape."""
    u = x * x.dtype.type(QUICK)
    return _gate_backward(dy, u, u, out)


def _two_u(x):
    u = np.square(x) * x.dtype.type(CUBE)
    u += 1
    u *= x
    u *= x.dtype.type(SLOPE)
    return u


def _gate_backward(dy, z, t, out):
    """dy s (1 + t (1 - s)) with s = sigmoid(z)."""
    e = np.exp(-np.abs(z))
    slope = np.where(z >= 0, e, 1)
    slope /= 1 + e
    slope *= t
    slope += 1
    slope *= np.where(z >= 0, 1, e) / (1 + e)
    return np.multiply(slope, dy, out=out)


def sigmoid(z):
    """1 / (1 + e^-z) without overflow. z: array."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def geglu(x, out=None):
    """`ref.layers.geglu` in x's dtype. x: (..., 2 n)."""
    a, g = np.split(x, 2, axis=-1)
    y = np.multiply(normal_cdf(g), g, out=out)
    return np.multiply(y, a, out=y)


def geglu_backward(dy, x, out=None):
    """`ref.layers.geglu_backward` in x's dtype. dy: (..., n). x: (..., 2 n)."""
    a, g = np.split(x, 2, axis=-1)
    phi, density = normal_cdf(g), np.exp(np.square(g) * g.dtype.type(-0.5))
    density *= g.dtype.type(1 / math.sqrt(2 * math.pi))
    density *= g
    density += phi
    density *= a
    out = np.empty_like(x) if out is None else out
    da, dg = np.split(out, 2, axis=-1)
    np.multiply(density, dy, out=density)
    np.multiply(np.multiply(phi, g, out=phi), dy, out=da)
    dg[...] = density
    return out


def normal_cdf(x):
    """(1 + erf(x / sqrt(2))) / 2, from erfc(z) = t e^(-z^2 + p(t)), t = 2 / (2 + z), z = |x| / sqrt(2). x: array."""
    z = np.abs(x)
    z *= x.dtype.type(math.sqrt(0.5))
    t = 2 / (2 + z)
    # Clenshaw's sum
    s, (*higher, first) = 4 * t - 2, _chebyshev(x.dtype.name)
    p, before = np.zeros_like(t), np.zeros_like(t)
    for c in higher:
        np.subtract(x.dtype.type(c), before, out=before)
        before += s * p
        p, before = before, p
    p *= s
    p *= x.dtype.type(0.5)
    p -= before
    p += x.dtype.type(first)
    p -= np.square(z, out=z)
    tail = np.exp(p, out=p)
    tail *= t
    tail *= x.dtype.type(0.5)
    return np.where(x < 0, tail, 1 - tail)


@functools.cache
def _chebyshev(dtype):
    """Chebyshev's coefficients of log(e^(z^2) erfc(z) / t) on [0, 1], the highest first. dtype: name."""
    made = np.polynomial.Chebyshev.interpolate(np.vectorize(_scaled_tail), NODES[dtype] - 1, domain=[0, 1])
    return made.coef[::-1].tolist()


def _scaled_tail(t):
    """log(e^(z^2) erfc(z) / t) at z = 2 / t - 2, from 8 on by its asymptotic series."""
    z = 2 / t - 2
    if z < 8:
        return z * z + math.log(math.erfc(z) / t)
    term, total = 1.0, 1.0
    for k in range(1, 14):
        term *= -(2 * k - 1) / (2 * z * z)
        total += term
    return math.log(total / (math.sqrt(math.pi) * z * t))
