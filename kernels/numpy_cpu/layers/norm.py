"""Normalisations and gates of `ref.layers` in tuned NumPy; `out` takes the result like x, or dx."""
import math

import numpy as np

from kernels.numpy_cpu.layers.activations import sigmoid


def group_norm_silu(x, groups, w, b, eps, out=None):
    """`ref.layers.group_norm_silu` in x's dtype. x: (B, C, ...). groups, w, b, eps: as there."""
    x_hat, _ = _standardised(x.reshape(len(x), groups, _rest(x.shape[1:]) // groups), eps, out)
    z = _affine(x_hat.reshape(x.shape), w, b)
    return np.multiply(z, sigmoid(z), out=z)


def group_norm_silu_backward(dy, x, groups, w, b, eps, out=None):
    """`ref.layers.group_norm_silu_backward` in x's dtype. dy, x: (B, C, ...). groups, w, b, eps: as there."""
    shape, axes = (len(x), groups, _rest(x.shape[1:]) // groups), (0, *range(2, x.ndim))
    x_hat, sigma = _standardised(x.reshape(shape), eps, None)
    z = _affine(x_hat.reshape(x.shape).copy(), w, b)
    # dz = dy s (1 + z (1 - s))
    s = sigmoid(z)
    z *= 1 - s
    z += 1
    z *= s
    dz = np.multiply(z, dy, out=z)
    dw, db = (dz * x_hat.reshape(x.shape)).sum(axis=axes), dz.sum(axis=axes)
    dx_hat = _affine(dz, w, None).reshape(shape)
    return _gradient(dx_hat, x_hat, sigma, out, x.shape), dw, db


def layer_norm_modulate(x, shift, scale, eps, out=None):
    """`ref.layers.layer_norm_modulate` in x's dtype. x: (B, L, n). shift, scale: (B, n). eps: as there."""
    y, _ = _standardised(x, eps, out)
    y *= 1 + scale[:, None]
    y += shift[:, None]
    return y


def layer_norm_modulate_backward(dy, x, scale, eps, out=None):
    """`ref.layers.layer_norm_modulate_backward` in x's dtype. dy, x: (B, L, n). scale, eps: as there."""
    x_hat, sigma = _standardised(x, eps, None)
    dscale, dshift = np.einsum("bln,bln->bn", dy, x_hat), dy.sum(axis=1)
    return _gradient(dy * (1 + scale[:, None]), x_hat, sigma, out, x.shape), dshift, dscale


def layer_norm(x, w, b, eps, out=None):
    """`ref.layers.layer_norm` in x's dtype. x: (..., n). w, b, eps: as there."""
    y, _ = _standardised(x, eps, out)
    if w is not None:
        y *= w
    if b is not None:
        y += b
    return y


def layer_norm_backward(dy, x, w, eps, out=None):
    """`ref.layers.layer_norm_backward` in x's dtype. dy, x: (..., n). w, eps: as there."""
    x_hat, sigma = _standardised(x, eps, None)
    sums = [None if w is None else a.reshape(-1, x.shape[-1]).sum(axis=0) for a in (dy * x_hat, dy)]
    return _gradient(dy if w is None else dy * w, x_hat, sigma, out, x.shape), *sums


def gate_residual(x, r, gate, out=None):
    """`ref.layers.gate_residual` in x's dtype. x, r: (B, L, n). gate: (B, n)."""
    y = np.multiply(gate[:, None], r, out=None)
    return np.add(x, y, out=out)


def gate_residual_backward(dy, r, gate, out=None):
    """`ref.layers.gate_residual_backward` in dy's dtype. dy, r: (B, L, n). gate: (B, n). out: of dr."""
    dgate = np.einsum("bln,bln->bn", dy, r)
    return dy, np.multiply(gate[:, None], dy, out=out), dgate


def rms_norm(x, w, eps, out=None):
    """`ref.layers.rms_norm` in x's dtype. x: (..., n). w, eps: as there."""
    y = np.divide(x, _root(x, eps), out=out)
    return y if w is None else np.multiply(y, w, out=y)


def rms_norm_backward(dy, x, w, eps, out=None):
    """`ref.layers.rms_norm_backward` in x's dtype. dy, x: (..., n). w, eps: as there."""
    root = _root(x, eps)
    x_hat, dx_hat = x / root, dy if w is None else dy * w
    dw = None if w is None else (dy * x_hat).reshape(-1, x.shape[-1]).sum(axis=0)
    slope = _mean(dx_hat * x_hat)
    x_hat *= slope
    dx = np.subtract(dx_hat, x_hat, out=out)
    return np.divide(dx, root, out=dx), dw


def _rest(shape):
    return math.prod(shape)


def _mean(x):
    return x.mean(axis=-1, keepdims=True)


def _root(x, eps):
    return np.sqrt(_mean(np.square(x)) + x.dtype.type(eps))


def _standardised(x, eps, out):
    """(x - mean) / sigma over the last axis, and sigma; what rounding left of the mean is taken off, too."""
    c = np.subtract(x, _mean(x), out=None if out is None else out.reshape(x.shape))
    c -= _mean(c)
    sigma = _root(c, eps)
    return np.divide(c, sigma, out=c), sigma


def _affine(y, w, b):
    """w y + b in y, for channels along axis 1."""
    shape = (1, -1) + (1,) * (y.ndim - 2)
    if w is not None:
        y *= w.reshape(shape)
    if b is not None:
        y += b.reshape(shape)
    return y


def _gradient(dx_hat, x_hat, sigma, out, shape):
    """(dx_hat - mean(dx_hat) - x_hat mean(dx_hat x_hat)) / sigma, in that shape."""
    slope = _mean(dx_hat * x_hat)
    dx = np.subtract(dx_hat, _mean(dx_hat), out=None if out is None else out.reshape(x_hat.shape))
    x_hat *= slope
    dx -= x_hat
    dx /= sigma
    return dx.reshape(shape) if out is None else out
