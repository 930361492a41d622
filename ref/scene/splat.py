"""Gaussian splatting: the picture of projected Gaussians, next to its gradient.

Everything here is float64. N Gaussians, C channels. The projections are from `ref.scene.gaussians`.

Papers
    [3DGS]  Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023
"""
import numpy as np

from ref.scene.camera import pixel_centres
from ref.shapes import number, numbers, shaped, unit_interval


def depth_order(depth):
    """Front to back: the order of ascending depth; of equal ones the first comes first, [3DGS] section 6. depth: (N,).
    Returns ints (N,). Raises ValueError for NaN."""
    depth = np.real(shaped(depth, "depth", "N"))
    if np.isnan(depth).any():
        raise ValueError("depth: expected numbers, got NaN")
    return np.argsort(depth, kind="stable")


def splat(uv, cov2, depth, opacity, color, background, size, origin=(0, 0), alpha_min=1 / 255, alpha_max=0.99,
          rest_min=1e-4, sigmas=3.0, depth_min=0.0):
    """The picture of projected Gaussians, front to back, [3DGS] eqs. 2 and 3. At the centre of each pixel, with d the
    way to it from uv_i:

        alpha_i = min(alpha_max, opacity_i exp(-q_i / 2)),   q_i = d^T cov2_i^-1 d,
        y = sum_i alpha_i T_i c_i + rest background,   T_i = prod_{j<i} (1 - alpha_j),   rest = prod_i (1 - alpha_i)

    Left out at a pixel, as in the authors' code: alpha below alpha_min; what would bring T below rest_min and all that
    is behind it; what is farther than `sigmas` deviations, q > sigmas^2, which they decide for whole tiles, so that
    their picture depends on the tiles; a depth of depth_min or less. 0, 0, inf and -inf leave nothing out.

    uv: (N, 2). cov2: (N, 2, 2), positive definite. depth: (N,). opacity: (N,) in [0, 1], no logits. color: (N, C).
    background: (C,). size: (H, W). origin: (u, v), the first pixel, as in `pixel_centres`. alpha_min, rest_min: floats.
    alpha_max: float below 1. sigmas, depth_min: floats.
    Returns y (C, H, W), rest (H, W), float64.
    Raises ValueError where shapes do not fit, an opacity is outside of [0, 1], a cov2 has no inverse, or
    alpha_max >= 1.
    """
    inputs = _gaussians(uv, cov2, depth, opacity, color, background, depth_min)
    return _blended(inputs, size, origin, _thresholds(alpha_min, alpha_max, rest_min, sigmas))[:2]


def splat_backward(dy, drest, uv, cov2, depth, opacity, color, background, size, origin=(0, 0), alpha_min=1 / 255,
                   alpha_max=0.99, rest_min=1e-4, sigmas=3.0, depth_min=0.0):
    """Gradients of `splat`, back to front, [3DGS] section 6. With behind_i what dy and drest make of all that is
    behind i, from background . dy + drest on:

        T_i = T_{i+1} / (1 - alpha_i),   dalpha_i = T_i (c_i . dy - behind_i),   dc_i = sum_pixels alpha_i T_i dy,
        behind_{i-1} = alpha_i c_i . dy + (1 - alpha_i) behind_i

    then dq = -alpha dalpha / 2, which is 0 where alpha_max cuts, and dcov2 = -cov2^-T (sum_pixels dq d d^T) cov2^-T.
    The depth has no gradient: it orders, and no more.

    dy: (C, H, W). drest: (H, W). uv, cov2, depth, opacity, color, background, size, origin, alpha_min, alpha_max,
    rest_min, sigmas, depth_min: as in `splat`.
    Returns duv, dcov2, dopacity, dcolor, dbackground, float64.
    Raises as `splat` does.
    """
    inputs = _gaussians(uv, cov2, depth, opacity, color, background, depth_min)
    thresholds = _thresholds(alpha_min, alpha_max, rest_min, sigmas)
    uv, inverse, opacity, color, background, order = inputs
    y, T, stop, pixels = _blended(inputs, size, origin, thresholds)
    dy, drest = shaped(dy, "dy", *y.shape), shaped(drest, "drest", *T.shape)
    duv, dinverse, dopacity, dcolor = (np.zeros(a.shape) for a in (uv, inverse, opacity, color))
    behind = np.tensordot(background, dy, 1) + drest  # (H, W)
    dbackground = (dy * T).sum(axis=(1, 2))
    for k, i in reversed(list(enumerate(order))):
        d, falloff, alpha, counts = _alpha(pixels, uv[i], inverse[i], opacity[i], *thresholds)
        counts &= k < stop
        T = np.where(counts, T / (1 - alpha), T)
        own = np.tensordot(color[i], dy, 1)
        # The colour and alpha
        dcolor[i] = (np.where(counts, alpha * T, 0) * dy).sum(axis=(1, 2))
        dalpha = np.where(counts & ~(opacity[i] * falloff > thresholds[1]), T * (own - behind), 0)
        behind = np.where(counts, alpha * own + (1 - alpha) * behind, behind)
        # What alpha is made of
        dopacity[i] = (dalpha * falloff).sum()
        dq = -dalpha * opacity[i] * falloff / 2
        duv[i] = -(inverse[i] + inverse[i].T) @ (dq * d).sum(axis=(1, 2))
        dinverse[i] = np.einsum("hw,ahw,bhw->ab", dq, d, d)
    turned = inverse.swapaxes(1, 2)
    return duv, -turned @ dinverse @ turned, dopacity, dcolor, dbackground


def _gaussians(uv, cov2, depth, opacity, color, background, depth_min):
    """uv, the inverses of cov2, opacity, color, background, and the order of what is in front of the camera."""
    uv = shaped(uv, "uv", "N", 2)
    N, depth_min = len(uv), number(depth_min, "depth_min")
    cov2, depth, color = shaped(cov2, "cov2", N, 2, 2), shaped(depth, "depth", N), shaped(color, "color", N, "C")
    opacity = unit_interval(shaped(opacity, "opacity", N), "opacity")
    background = shaped(background, "background", color.shape[1])
    if np.isnan(depth_min):
        raise ValueError("depth_min: expected a number, got nan")
    (a, b), (c, d) = cov2.transpose(1, 2, 0)
    det = a * d - b * c
    if np.any((np.real(det) <= 0) | (np.real(a) <= 0)):
        raise ValueError("cov2: expected positive definite matrices, got one with a determinant of 0 or less")
    inverse = np.array([[d, -b], [-c, a]]).transpose(2, 0, 1) / det[:, None, None]
    order = [i for i in depth_order(depth) if np.real(depth[i]) > depth_min]
    return uv, inverse, opacity, color, background, order


def _alpha(pixels, uv, inverse, opacity, alpha_min, alpha_max, _, sigmas):
    """Of one Gaussian at all pixels: d (2, H, W), exp(-q / 2), alpha, and where it counts."""
    d = pixels - uv[:, None, None]
    q = np.einsum("ahw,ab,bhw->hw", d, inverse, d)
    falloff = np.exp(-q / 2)
    raw = opacity * falloff
    alpha = np.where(np.real(raw) > alpha_max, alpha_max, raw)
    return d, falloff, alpha, ~((np.real(q) > sigmas**2) | (np.real(alpha) < alpha_min))


def _blended(inputs, size, origin, thresholds):
    """y, rest, the place in the order at which each pixel stopped, and the pixels (2, H, W)."""
    uv, inverse, opacity, color, background, order = inputs
    rest_min = thresholds[2]
    pixels = pixel_centres(size, origin).T.reshape(2, *size)
    y, T, stop = np.zeros((color.shape[1], *size)), np.ones(size), np.full(size, len(order))
    for k, i in enumerate(order):
        _, _, alpha, counts = _alpha(pixels, uv[i], inverse[i], opacity[i], *thresholds)
        after = T * (1 - alpha)
        stop = np.where(counts & (np.real(after) < rest_min), np.minimum(stop, k), stop)
        counts &= k < stop
        y = y + np.where(counts, alpha * T, 0) * color[i][:, None, None]
        T = np.where(counts, after, T)
    return y + T * background[:, None, None], T, stop, pixels


def _thresholds(alpha_min, alpha_max, rest_min, sigmas):
    found = numbers(alpha_min=alpha_min, alpha_max=alpha_max, rest_min=rest_min, sigmas=sigmas)
    for name, value in zip(("alpha_min", "alpha_max", "rest_min", "sigmas"), found):
        if np.isnan(value) or value < 0:
            raise ValueError(f"{name}: expected a number >= 0, got {value}")
    if found[1] >= 1:
        raise ValueError(f"alpha_max: expected a number below 1, got {found[1]}")
    return found
