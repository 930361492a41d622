"""Normalisations, each next to its gradient. Arrays keep their dtype.

The variance is the mean of the centred squares, never E[x^2] - E[x]^2, and what rounding left of the mean is taken off
once more: a mean of 1e4 deviations costs no digits, in float32 neither.

Papers
    [GroupNorm]  Wu, He, "Group Normalization", 2018
    [LayerNorm]  Ba, Kiros, Hinton, "Layer Normalization", 2016
    [DiT]        Peebles, Xie, "Scalable Diffusion Models with Transformers", 2023
    [RMSNorm]    Zhang, Sennrich, "Root Mean Square Layer Normalization", 2019
"""
import numpy as np

from ref.shapes import integer, number


def group_norm(x, groups, w, b, eps):
    """y = w (x - mean) / sqrt(var + eps) + b, [GroupNorm] eqs. 1, 2 and 6, where mean and var are of one example's
    group of channels, all pixels in it.

    x: (B, C, ...). groups: int that divides C. w, b: (C,), or None for 1 and 0. eps: float.
    Returns y, of the shape of x.
    Raises ValueError where the shapes do not fit.
    """
    x_hat, _ = _standardised(_grouped(x, groups), eps)
    return _scaled(x_hat.reshape(x.shape), w, b, 1)


def group_norm_backward(dy, x, groups, w, eps):
    """Gradients of `group_norm`. dy: as y there. x, groups, w, eps: as there. Returns dx, dw, db, the last two None
    where w is."""
    x_hat, sigma = _standardised(_grouped(x, groups), eps)
    dx_hat = _scaled(dy, w, None, 1)
    dx = _centred_gradient(dx_hat.reshape(x_hat.shape), x_hat, sigma).reshape(x.shape)
    return dx, *_sums(dy, x_hat.reshape(x.shape), w, 1)


def layer_norm(x, w, b, eps):
    """y = w (x - mean) / sqrt(var + eps) + b, [LayerNorm] eqs. 3 and 4, where mean and var are of the last axis.

    x: (..., n). w, b: (n,), or None for 1 and 0. eps: float.
    Returns y, of the shape of x.
    Raises ValueError where the shapes do not fit.
    """
    x_hat, _ = _standardised(x, eps)
    return _scaled(x_hat, w, b, -1)


def layer_norm_backward(dy, x, w, eps):
    """Gradients of `layer_norm`. dy: as y there. x, w, eps: as there. Returns dx, dw, db, the last two None where w
    is."""
    x_hat, sigma = _standardised(x, eps)
    dx = _centred_gradient(_scaled(dy, w, None, -1), x_hat, sigma)
    return dx, *_sums(dy, x_hat, w, -1)


def adaptive_norm(x, shift, scale, eps):
    """y = (1 + scale) x_hat + shift, [DiT] section 3.2: a `layer_norm` whose shift and scale come from the time and the
    class of each example.

    x: (B, L, n). shift, scale: (B, n). eps: float.
    Returns y, of the shape of x.
    """
    x_hat, _ = _standardised(x, eps)
    return x_hat * (1 + scale[:, None]) + shift[:, None]


def adaptive_norm_backward(dy, x, scale, eps):
    """Gradients of `adaptive_norm`. dy: as y there. x, scale, eps: as there. Returns dx, dshift, dscale."""
    x_hat, sigma = _standardised(x, eps)
    dx = _centred_gradient(dy * (1 + scale[:, None]), x_hat, sigma)
    return dx, dy.sum(axis=1), (dy * x_hat).sum(axis=1)


def rms_norm(x, w, eps):
    """y = w x / sqrt(mean(x^2) + eps), [RMSNorm] eq. 4, where the mean is of the last axis.

    x: (..., n). w: (n,), or None for 1. eps: float.
    Returns y, of the shape of x.
    Raises ValueError where the shapes do not fit.
    """
    return _scaled(x / _root_mean_square(x, eps), w, None, -1)


def rms_norm_backward(dy, x, w, eps):
    """Gradients of `rms_norm`. dy: as y there. x, w, eps: as there. Returns dx, dw, the last None where w is."""
    rms = _root_mean_square(x, eps)
    x_hat, dx_hat = x / rms, _scaled(dy, w, None, -1)
    dx = (dx_hat - x_hat * (dx_hat * x_hat).mean(axis=-1, keepdims=True)) / rms
    return dx, _sums(dy, x_hat, w, -1)[0]


def _grouped(x, groups):
    """x as (B, groups, channels and pixels of a group)."""
    groups = integer(groups, "groups")
    if x.ndim < 2 or groups < 1 or x.shape[1] % groups:
        raise ValueError(f"groups: expected a divisor of the channels of x {x.shape}, got {groups}")
    return x.reshape(len(x), groups, -1)


def _standardised(x, eps):
    """(x - mean) / sigma and sigma = sqrt(var + eps), over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    centred -= centred.mean(axis=-1, keepdims=True)
    sigma = _root_mean_square(centred, eps)
    centred /= sigma
    return centred, sigma


def _centred_gradient(dx_hat, x_hat, sigma):
    """dx = (dx_hat - mean(dx_hat) - x_hat mean(dx_hat x_hat)) / sigma."""
    mean, slope = dx_hat.mean(axis=-1, keepdims=True), (dx_hat * x_hat).mean(axis=-1, keepdims=True)
    return (dx_hat - mean - x_hat * slope) / sigma


def _root_mean_square(x, eps):
    return np.sqrt((x * x).mean(axis=-1, keepdims=True) + number(eps, "eps"))


def _scaled(x, w, b, axis):
    """w x + b, where they are given, each one number for each place along the axis."""
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    for name, a in (("w", w), ("b", b)):
        if a is not None and a.shape != (shape[axis],):
            raise ValueError(f"{name}: expected shape {(shape[axis],)} for x {x.shape}, got {a.shape}")
    y = x if w is None else x * w.reshape(shape)
    return y if b is None else y + b.reshape(shape)


def _sums(dy, x_hat, w, axis):
    """dw and db: dy x_hat and dy, each summed over all axes but this."""
    axes = tuple(np.delete(np.arange(dy.ndim), axis))
    return (None, None) if w is None else ((dy * x_hat).sum(axis=axes), dy.sum(axis=axes))
