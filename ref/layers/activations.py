"""Activations, each next to its gradient. Arrays keep their dtype: float64 in the truth, float32 in training.

Papers
    [ReLU]   Nair, Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", 2010
    [Leaky]  Maas, Hannun, Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", 2013
    [SiLU]   Elfwing, Uchibe, Doya, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation in
             Reinforcement Learning", 2018
    [GELU]   Hendrycks, Gimpel, "Gaussian Error Linear Units (GELUs)", 2016
    [GLU]    Shazeer, "GLU Variants Improve Transformer", 2020
    [DL]     Goodfellow, Bengio, Courville, "Deep Learning", 2016
"""
import math

import numpy as np

from ref.numerics import blockwise, normal_cdf, normal_pdf
from ref.shapes import number


def relu(x):
    """y = max(x, 0), [ReLU]. x: any shape. Returns y."""
    return np.maximum(x, 0)


def relu_backward(dy, x):
    """dx = dy where x > 0, else 0; at the kink x = 0 the gradient taken is 0. dy, x: one shape. Returns dx."""
    return np.where(x > 0, dy, 0)


def leaky_relu(x, slope=0.2):
    """y = x where x > 0, else slope x, [Leaky] section 2. x: any shape. slope: float, 0.01 in the paper. Returns y."""
    return np.where(np.real(x) > 0, x, number(slope, "slope") * x)


def leaky_relu_backward(dy, x, slope=0.2):
    """dx = dy where x > 0, else slope dy, also at x = 0. dy, x: one shape. slope: as there. Returns dx."""
    return np.where(x > 0, dy, number(slope, "slope") * dy)


def tanh(x):
    """y = tanh(x) = 2 sigmoid(2 x) - 1, [DL] section 6.3.2. x: any shape. Returns y."""
    return np.tanh(x)


def tanh_backward(dy, y):
    """dx = dy (1 - y^2). dy: upstream. y: the output of `tanh`. Returns dx."""
    return dy * (1 - y) * (1 + y)


def sigmoid(x):
    """y = 1 / (1 + e^-x), [DL] eq. 3.30, from e^-|x|, which never overflows. x: any shape. Returns y."""
    e = np.exp(np.where(np.real(x) >= 0, -x, x))
    return np.where(np.real(x) >= 0, 1, e) / (1 + e)


def sigmoid_backward(dy, y):
    """dx = dy y (1 - y), [DL] eq. 3.34. dy: upstream. y: the output of `sigmoid`. Returns dx."""
    return dy * y * (1 - y)


def silu(x):
    """y = x sigmoid(x), [SiLU] section 2. x: any shape. Returns y."""
    return blockwise(lambda part: _far(part, part * sigmoid(part), part), x)


def silu_backward(dy, x):
    """dx = dy s (1 + x (1 - s)) with s = sigmoid(x), 1 - s = sigmoid(-x). dy, x: one shape. Returns dx."""
    return _far(x, dy * (sigmoid(x) * (1 + x * sigmoid(-x))), dy * (1 + x))


def softplus(x):
    """y = ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), [DL] eq. 3.31. x: any shape. Returns y."""
    positive = np.real(x) >= 0
    return np.where(positive, x, 0) + np.log1p(np.exp(np.where(positive, -x, x)))


def softplus_backward(dy, x):
    """dx = dy sigmoid(x), [DL] eq. 3.37. dy, x: one shape. Returns dx."""
    return dy * sigmoid(x)


def gelu(x):
    """y = x Phi(x),  Phi(x) = (1 + erf(x / sqrt(2))) / 2, [GELU] section 2. x: any shape. Returns y."""
    return x * normal_cdf(x)


def gelu_backward(dy, x):
    """dx = dy (Phi(x) + x phi(x)), phi the standard normal density. dy, x: one shape. Returns dx."""
    return dy * (normal_cdf(x) + x * normal_pdf(x))


def gelu_tanh(x):
    """y = x / 2 (1 + tanh(u)) = x sigmoid(2 u),  u = sqrt(2 / pi) (x + 0.044715 x^3), [GELU] section 2: close to
    `gelu`, 5e-4 apart at most. x: any shape. Returns y."""
    two_u = _two_u(x)
    return _far(two_u, x * sigmoid(two_u), x)


def gelu_tanh_backward(dy, x):
    """dx = dy s (1 + x (1 - s) 2 u'),  s = sigmoid(2 u), 1 - s = sigmoid(-2 u). dy, x: one shape. Returns dx."""
    two_u, slope = _two_u(x), 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return _far(two_u, dy * (sigmoid(two_u) * (1 + x * slope * sigmoid(-two_u))), dy * (1 + x * slope))


def _two_u(x):
    return 2 * math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x)


def quick_gelu(x):
    """y = x sigmoid(1.702 x), [GELU] section 2: 2e-2 apart from `gelu` at most. x: any shape. Returns y."""
    return _far(1.702 * x, x * sigmoid(1.702 * x), x)


def quick_gelu_backward(dy, x):
    """dx = dy s (1 + u (1 - s)),  u = 1.702 x, s = sigmoid(u), 1 - s = sigmoid(-u). dy, x: one shape. Returns dx."""
    u = 1.702 * x
    return _far(u, dy * (sigmoid(u) * (1 + u * sigmoid(-u))), dy * (1 + u))


def _far(u, near, weight):
    """near, and weight e^u where that is sigmoid(u) and loses its digits as a subnormal number: by its root, twice."""
    dtype = np.result_type(u)
    far = np.real(u) < np.log(np.finfo(dtype).tiny) if dtype.kind in "fc" else False
    if not np.any(far):
        return near
    root = np.exp(np.where(far, u, 0) / 2)
    return np.where(far, weight * root * root, near)[()]


def geglu(x):
    """y = a gelu(g), where a and g are the halves of the last axis, [GLU] eq. 5.

    x: (..., 2 n).
    Returns y (..., n).
    Raises ValueError for an odd last axis.
    """
    a, g = _halves(x)
    return a * gelu(g)


def geglu_backward(dy, x):
    """da = dy gelu(g),  dg = dy a gelu'(g). dy: (..., n). x: as in `geglu`. Returns dx."""
    a, g = _halves(x)
    return np.concatenate([dy * gelu(g), gelu_backward(dy * a, g)], axis=-1)


def _halves(x):
    if x.shape[-1] % 2:
        raise ValueError(f"x: expected an even last axis, got {x.shape}")
    return x[..., :x.shape[-1] // 2], x[..., x.shape[-1] // 2:]
