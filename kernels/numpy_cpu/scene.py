"""`ref.scene` in tuned NumPy; `out` takes the first result. A Gaussian is drawn on the window of pixels that it
reaches.
"""
import itertools

import numpy as np

from kernels.gaussians import finished, prepared


def composite(sigma, color, delta, t, background, out=None):
    """`ref.scene.composite` in sigma's dtype. sigma, delta, t: (N, S). color: (N, S, C). background: (C,)."""
    w, T = _weights(sigma, delta)
    y = np.matmul(w[:, None], color)[:, 0]  # (N, C)
    y = np.add(y, T[:, -1:] * background, out=out)
    return y, (w * t).sum(axis=1), w.sum(axis=1)


def composite_backward(dy, ddepth, dopacity, sigma, color, delta, t, background, out=None):
    """`ref.scene.composite_backward` in sigma's dtype. dy: (N, C). ddepth, dopacity: (N,). sigma, color, delta, t,
    background: as in `composite`."""
    w, T = _weights(sigma, delta)
    dw = np.matmul(color, dy[:, :, None])[:, :, 0]
    dw += t * ddepth[:, None] + dopacity[:, None]
    # What is behind each sample, from the end of the ray on
    behind = np.empty_like(T)
    behind[:, -1] = T[:, -1] * (dy @ background)
    behind[:, :-1] = w * dw
    np.cumsum(behind[:, ::-1], axis=1, out=behind[:, ::-1])
    dtau = T[:, 1:] * dw - behind[:, 1:]
    dsigma = np.multiply(delta, dtau, out=out)
    return dsigma, w[:, :, None] * dy[:, None], sigma * dtau, w * ddepth[:, None], T[:, -1] @ dy


def _weights(sigma, delta):
    """w (N, S) and T (N, S + 1)."""
    tau, T = sigma * delta, np.empty((len(sigma), sigma.shape[1] + 1), sigma.dtype)
    T[:, 0] = 0
    np.cumsum(tau, axis=1, out=T[:, 1:])
    np.exp(np.negative(T, out=T), out=T)
    w = np.expm1(np.negative(tau, out=tau), out=tau)
    w *= T[:, :-1]
    return np.negative(w, out=w), T


def trilinear(grid, x, out=None):
    """`ref.scene.trilinear` in grid's dtype. grid: (C, X, Y, Z). x: (N, 3)."""
    flat, y = grid.reshape(len(grid), grid[0].size), np.zeros((len(grid), len(x)), grid.dtype)
    for place, inside, weight, _ in _corners(x, grid.shape[1:]):
        y += np.where(inside, flat[:, place], 0) * weight
    if out is None:
        return np.ascontiguousarray(y.T)
    out[...] = y.T
    return out


def trilinear_backward(dy, grid, x, out=None):
    """`ref.scene.trilinear_backward` in grid's dtype. dy: (N, C). grid, x: as in `trilinear`."""
    flat, dgrid = grid.reshape(len(grid), grid[0].size), np.zeros((len(grid), grid[0].size))
    dx, upstream = np.zeros(x.shape, x.dtype), np.ascontiguousarray(dy.T)
    for place, inside, weight, slope in _corners(x, grid.shape[1:]):
        for sums, row in zip(dgrid, upstream):
            sums += np.bincount(place[inside], (weight * row)[inside], flat.shape[1])
        dx += slope * (np.where(inside, flat[:, place], 0) * upstream).sum(axis=0)[:, None]
    dgrid = dgrid.reshape(grid.shape).astype(grid.dtype)
    if out is None:
        return dgrid, dx
    out[...] = dgrid
    return out, dx


def _corners(x, sizes):
    """For each corner of the points' cells: its place, whether it is inside of the grid, its weight, its slopes."""
    sizes = np.array(sizes)
    p = (x.astype(np.float64) + 1) / 2 * (sizes - 1)
    first = np.floor(p)
    f = p - first
    first = np.clip(np.nan_to_num(first), -2, sizes + 1).astype(np.int64)
    sides = [(first[:, k] + i, f[:, k] if i else 1 - f[:, k]) for k, i in np.ndindex(3, 2)]
    for corner in itertools.product((0, 1), repeat=3):
        (i, a), (j, b), (k, c) = (sides[2 * axis + up] for axis, up in enumerate(corner))
        inside = (i >= 0) & (i < sizes[0]) & (j >= 0) & (j < sizes[1]) & (k >= 0) & (k < sizes[2])
        slope = np.stack([b * c, a * c, a * b], axis=1) * (np.where(corner, 1, -1) * (sizes - 1) / 2)
        place = np.where(inside, (i * sizes[1] + j) * sizes[2] + k, 0)
        yield place, inside, (a * b * c).astype(x.dtype), slope.astype(x.dtype)


def splat(uv, cov2, depth, opacity, color, background, size, origin=(0, 0), alpha_min=1 / 255, alpha_max=0.99,
          rest_min=1e-4, sigmas=3.0, depth_min=0.0, out=None):
    """`ref.scene.splat` in color's dtype; arguments as in `ref.scene.splat.splat`."""
    thresholds = alpha_min, alpha_max, rest_min, sigmas, depth_min
    splats = prepared(uv, cov2, depth, opacity, color, background, size, origin, *thresholds)
    y, T, _ = _blended(splats, color)
    return np.add(y, T * background[:, None, None], out=out), T


def splat_backward(dy, drest, uv, cov2, depth, opacity, color, background, size, origin=(0, 0), alpha_min=1 / 255,
                   alpha_max=0.99, rest_min=1e-4, sigmas=3.0, depth_min=0.0):
    """`ref.scene.splat_backward` in color's dtype; arguments as in `ref.scene.splat.splat_backward` and
    `ref.scene.splat.splat`."""
    thresholds = alpha_min, alpha_max, rest_min, sigmas, depth_min
    splats = prepared(uv, cov2, depth, opacity, color, background, size, origin, *thresholds)
    _, T, stop = _blended(splats, color)
    dbackground = np.tensordot(dy, T, 2)
    behind = np.tensordot(background, dy, 1) + drest
    C, sums = color.shape[1], np.zeros((len(splats.order), color.shape[1] + 6))
    for k, i in reversed(list(enumerate(splats.order))):
        window, (du, dv), falloff, raw, alpha, near = _alpha(splats, k, color.dtype)
        counts, up = near & (k < stop[window]), dy[(slice(None), *window)]
        before = T[window] / np.where(counts, 1 - alpha, 1)
        own = np.tensordot(color[i], up, 1)
        dalpha = np.where(counts & ~(raw > splats.alpha_max), before * (own - behind[window]), 0)
        behind[window] += np.where(counts, alpha * (own - behind[window]), 0)
        T[window] = before
        # The sums of `finished`
        q = dalpha * raw
        qu, qv = q * du, q * dv
        sums[k, :C] = np.tensordot(up, np.where(counts, alpha * before, 0), 2)
        sums[k, C:] = (dalpha * falloff).sum(), qu.sum(), qv.sum(), (qu * du).sum(), (qu * dv).sum(), (qv * dv).sum()
    return *finished(sums, splats, color.dtype), dbackground


def _alpha(splats, k, dtype):
    """Of the k-th Gaussian on its window: the window, both ways from its centre, exp(-h), opacity exp(-h), alpha, and
    where h is small enough."""
    (left, top), (right, bottom), (u0, v0) = splats.low[k], splats.high[k], splats.origin
    u, v, p, q, r, opacity, most, _ = splats.rows[k].astype(dtype)
    du = np.arange(left + u0, right + u0, dtype=dtype) + dtype.type(0.5) - u
    dv = np.arange(top + v0, bottom + v0, dtype=dtype)[:, None] + dtype.type(0.5) - v
    h = (p * du + q * dv) * du + r * dv * dv
    falloff = np.exp(-h)
    raw = opacity * falloff
    alpha = np.minimum(raw, dtype.type(splats.alpha_max))
    return np.s_[top:bottom, left:right], (du, dv), falloff, raw, alpha, ~(h > most)


def _blended(splats, color):
    """y without the background, T, and the place in the order at which each pixel stopped."""
    (H, W), C, dtype = splats.size, color.shape[1], color.dtype
    y, T, stop = np.zeros((C, H, W), dtype), np.ones((H, W), dtype), np.full((H, W), len(splats.order))
    for k, i in enumerate(splats.order):
        window, _, _, _, alpha, near = _alpha(splats, k, dtype)
        before = T[window]
        after, counts = before * (1 - alpha), near & (k < stop[window])
        ends = counts & (after < dtype.type(splats.rest_min))
        if ends.any():
            stop[window][ends] = k
            counts &= ~ends
        w = np.where(counts, alpha * before, 0)
        for channel, c in zip(y, color[i]):
            channel[window] += c * w
        T[window] = np.where(counts, after, before)
    return y, T, stop
