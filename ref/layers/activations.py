"""Activations, each next to its gradient. Arrays keep their dtype: float64 in the truth, float32 in training.

Papers
    [ReLU]   Nair, Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", 2010
    [Leaky]  Maas, Hannun, Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", 2013
    [SiLU]   Elfwing, Uchibe, Doya, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation in
             Reinforcement Learning", 2018
    [DL]     Goodfellow, Bengio, Courville, "Deep Learning", 2016
"""
import numpy as np

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
    return x * sigmoid(x)


def silu_backward(dy, x):
    """dx = dy s (1 + x (1 - s)) with s = sigmoid(x). dy, x: one shape. Returns dx."""
    s = sigmoid(x)
    return dy * (s * (1 + x * (1 - s)))


def softplus(x):
    """y = ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), [DL] eq. 3.31. x: any shape. Returns y."""
    positive = np.real(x) >= 0
    return np.where(positive, x, 0) + np.log1p(np.exp(np.where(positive, -x, x)))


def softplus_backward(dy, x):
    """dx = dy sigmoid(x), [DL] eq. 3.37. dy, x: one shape. Returns dx."""
    return dy * sigmoid(x)
