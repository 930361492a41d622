"""Guidance: how a conditional and an unconditional prediction are combined.

Papers
    [CFG]     Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [ZSNR]    Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024
    [Interval]  Kynkaanniemi et al., "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality
              in Diffusion Models", 2024
    [Imagen]  Saharia et al., "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding", 2022
"""
import numpy as np

from ref.numerics import norm
from ref.shapes import float64, number, numbers, per_example, same_shape


def guide(uncond, cond, w):
    """guided = uncond + w (cond - uncond).  w = 0 is unconditional, w = 1 the plain conditional model.

    [CFG] eq. 6 in the other convention, see `w_from_paper`.
    uncond, cond: (B, ...) predictions of one kind (eps, x0, v or velocity). w: a number, or (B,), one an example.
    Returns (B, ...) float64.
    Raises ValueError where the shapes differ.
    """
    uncond, cond = same_shape(uncond=uncond, cond=cond)
    return uncond + per_example(w, uncond, "w") * (cond - uncond)


def interval_weight(w, t, low, high):
    """Guidance in a limited interval of times or noise levels, the weight of `guide` in [Interval]:

        w(t) = w where low < t <= high, else 1, the plain conditional model

    Where it is 1 the unconditional prediction is not needed. The interval is the paper's (sigma_lo, sigma_hi]: with low
    = high it is empty, and all times of a sampler lie in (0, T].
    w: a number, or (B,). t: a time or a noise level, or (B,) of them. low, high: numbers, low <= high.
    Returns a float, or (B,) float64 where w or t is.
    Raises ValueError where not low <= high or the shapes do not fit, TypeError for what is no number.
    """
    if w is None or t is None:
        raise TypeError("w and t: expected numbers or (B,), got None")
    w, t, (low, high) = float64(w), float64(t), numbers(low=low, high=high)
    if not low <= high:
        raise ValueError(f"low, high: expected low <= high, got {low} and {high}")
    if w.ndim > 1 or t.ndim > 1 or (w.ndim and t.ndim and w.shape != t.shape):
        raise ValueError(f"w and t: expected numbers or (B,), got {w.shape} and {t.shape}")
    return np.where((t > low) & (t <= high), w, 1.0)[()]


def guide_rescaled(uncond, cond, w, phi):
    """Guidance with its per-example standard deviation brought back to the conditional one's, [ZSNR] eqs. 14 to 16:

        g = guide(uncond, cond, w),   r = g std(cond) / std(g),   out = phi r + (1 - phi) g

    std is taken over all axes but the first. uncond, cond: (B, ...). w: a number, or (B,). phi: in [0, 1]; 0 is plain
    guidance.
    Returns (B, ...) float64; an example whose g is constant up to rounding has nothing to rescale and is returned as g.
    Raises ValueError where the shapes differ or phi is outside [0, 1].
    """
    phi = number(phi, "phi")
    if not 0 <= phi <= 1:
        raise ValueError(f"phi: expected 0 <= phi <= 1, got {phi}")
    uncond, cond = same_shape(uncond=uncond, cond=cond)
    g = guide(uncond, cond, w)
    if g.size == 0:
        return g
    axes = tuple(range(1, g.ndim))
    # The deviations, each times the root of the number of elements
    std_cond, std_g = (norm(x - np.mean(x, axis=axes, keepdims=True)) for x in (cond, g))
    varies = std_g > 2.0**-48 * norm(g)  # three times 0.1 has a deviation of 1e-17
    ratio = np.divide(std_cond, std_g, out=np.ones_like(std_g), where=varies)
    return phi * (g * per_example(ratio, g, "ratio")) + (1 - phi) * g


def dynamic_threshold(x0, ratio, max_value):
    """Dynamic thresholding, [Imagen] section 2.3, with an upper limit on the threshold. Per example:

        s = quantile(|x0|, ratio) clamped to [1, max_value],   out = clip(x0, -s, s) / s

    x0: (B, ...), data scaled to [-1, 1]. ratio: in [0, 1]; the quantile interpolates linearly. max_value: >= 1, or inf.
    Returns (B, ...) float64 in [-1, 1].
    Raises ValueError for ratio outside [0, 1] or max_value < 1.
    """
    ratio, max_value = numbers(ratio=ratio, max_value=max_value)
    if not 0 <= ratio <= 1 or not max_value >= 1:
        raise ValueError(f"expected 0 <= ratio <= 1 and max_value >= 1, got ratio={ratio}, max_value={max_value}")
    x0 = np.asarray(x0, np.float64)
    if x0.size == 0:
        return x0.copy()
    s = np.quantile(np.abs(x0), ratio, axis=tuple(range(1, x0.ndim)), keepdims=True)
    s = np.clip(s, 1, max_value)
    return np.clip(x0, -s, s) / s


def w_from_paper(w_paper):
    """[CFG] eq. 6 writes (1 + w_paper) cond - w_paper uncond; so w = 1 + w_paper here.

    w_paper: float, or an array of them. Returns the same shape, float64.
    """
    return 1 + np.asarray(w_paper, np.float64)[()]


def w_to_paper(w):
    """The inverse of `w_from_paper`:  w_paper = w - 1. w: float, or an array of them. Returns the same shape,
    float64."""
    return np.asarray(w, np.float64)[()] - 1
