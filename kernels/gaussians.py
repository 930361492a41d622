"""What every backend decides in float64 before it splats Gaussians: which count, in which order, how far each reaches
in the picture; and what follows the sums over the pixels.
"""
from collections import namedtuple

import numpy as np

PIXEL = 8  # numbers of a row of `Splats.rows`: u, v, the three of q / 2, the opacity, the largest q / 2, 0

# count: N. order: of what is in front of the camera, front to back, (M,). inverse: (4, M) float64, the elements of the
# inverses of cov2, in that order, as all that follows. rows: (M, PIXEL) float64: alpha = opacity exp(-h), h = (a d_u +
# b d_v) d_u + c d_v^2, where h <= the largest. low, high: (M, 2) ints, the first column and row of the picture that it
# can reach and those after the last. size: (H, W). origin: (u, v)
Splats = namedtuple("Splats", "count order inverse rows low high size origin alpha_max rest_min")


def prepared(uv, cov2, depth, opacity, color, background, size, origin, alpha_min, alpha_max, rest_min, sigmas,
             depth_min):
    """`Splats`, after the checks. Arguments as in `ref.scene.splat.splat`, NumPy arrays."""
    N = len(uv)
    shapes = {"uv": (uv, (N, 2)), "cov2": (cov2, (N, 2, 2)), "depth": (depth, (N,)), "opacity": (opacity, (N,)),
              "color": (color, (N, *color.shape[1:2])), "background": (background, color.shape[1:2])}
    for name, (array, shape) in shapes.items():
        if array.shape != shape or color.ndim != 2:
            raise ValueError(f"{name}: expected shape {shape} for {N} Gaussians, got {array.shape}")
    check(size, origin, alpha_min, alpha_max, rest_min, sigmas, depth_min)
    if not np.all((opacity >= 0) & (opacity <= 1)):
        raise ValueError(f"opacity: expected values in [0, 1], got {opacity}")
    if np.isnan(depth).any():
        raise ValueError("depth: expected numbers, got NaN")
    order = np.argsort(depth, kind="stable")
    # The inverses
    a, b, c, d = cov2.reshape(N, 4).T.astype(np.float64)
    det = a * d - b * c
    if np.any((det <= 0) | (a <= 0)):
        raise ValueError("cov2: expected positive definite matrices, got one with a determinant of 0 or less")
    order = order[depth[order] > depth_min]
    inverse = (np.stack([d, -b, -c, a]) / det)[:, order]
    # The largest q / 2 that counts
    alpha, most = opacity[order].astype(np.float64), np.full(len(order), sigmas**2 / 2)
    if alpha_min > 0:
        with np.errstate(divide="ignore"):  # an opacity of 0
            most = np.minimum(most, np.log(alpha / alpha_min)) if alpha_max >= alpha_min else most - np.inf
    rows = np.empty((len(order), PIXEL))
    rows[:, :2], rows[:, 5], rows[:, 6], rows[:, 7] = uv[order], alpha, most, 0
    rows[:, 2], rows[:, 3], rows[:, 4] = inverse[0] / 2, (inverse[1] + inverse[2]) / 2, inverse[3] / 2
    low, high = _reach(rows, size, origin)
    return Splats(N, order, inverse, rows, low, high, tuple(size), tuple(origin), alpha_max, rest_min)


def check(size, origin, alpha_min, alpha_max, rest_min, sigmas, depth_min):
    """Raises TypeError or ValueError for a bad window or threshold. Arguments as in `ref.scene.splat.splat`."""
    for name, pair in (("size", size), ("origin", origin)):
        if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) for n in pair):
            raise TypeError(f"{name}: expected two ints, got {pair}")
    if min(size) < 0:
        raise ValueError(f"size: expected (H, W), got {size}")
    named = {"alpha_min": alpha_min, "alpha_max": alpha_max, "rest_min": rest_min, "sigmas": sigmas}
    for name, value in named.items():
        if not value >= 0:
            raise ValueError(f"{name}: expected a number >= 0, got {value}")
    if alpha_max >= 1 or np.isnan(depth_min):
        name, value = ("alpha_max", alpha_max) if alpha_max >= 1 else ("depth_min", depth_min)
        raise ValueError(f"{name}: expected a number{' below 1' * (alpha_max >= 1)}, got {value}")


def _reach(rows, size, origin):
    """low and high of `Splats`: the box around the ellipse h = farthest, with a pixel to spare, and the whole picture
    where there is no such ellipse."""
    u, v, p, q, r, _, farthest, _ = rows.T
    (H, W), (u0, v0) = size, origin
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        spread = 4 * p * r - q * q
        half = np.sqrt(4 * farthest / spread * np.stack([r, p]))  # (2, M): d_u and d_v at the ellipse's ends
    half = np.where((spread > 0) & (farthest >= 0) & np.isfinite(half), half, np.where(farthest < 0, -2.0, np.inf))
    centre = np.stack([u - u0, v - v0])
    most = np.array([[W], [H]])
    low = np.clip(np.nan_to_num(np.floor(centre - half - 1), nan=0, neginf=0, posinf=np.inf), 0, most)
    high = np.clip(np.nan_to_num(np.ceil(centre + half + 1), nan=np.inf, neginf=0, posinf=np.inf), 0, most)
    high = np.where(np.any(high <= low, axis=0) | (farthest < 0), low, high)
    return low.T.astype(np.int32), high.T.astype(np.int32)


def finished(sums, splats, dtype):
    """duv, dcov2, dopacity, dcolor of all Gaussians from the sums over the pixels, in the order of `Splats`: of w dy,
    (M, C), then of f, q d_u, q d_v, q d_u^2, q d_u d_v, q d_v^2, with f = dalpha exp(-q / 2) and q = dalpha alpha.
    sums: (M, C + 6) float64. splats: `Splats`. dtype: of the results."""
    channels, (i, j, k, l) = sums.shape[1] - 6, splats.inverse
    x, y, uu, uv, vv = sums.T[channels + 1 :]
    mixed = (j + k) / 2
    away = i * x + mixed * y, mixed * x + l * y
    a, b, c, d = uu * i + uv * j, uu * k + uv * l, uv * i + vv * j, uv * k + vv * l
    moment = (i * a + k * c) / 2, (i * b + k * d) / 2, (j * a + l * c) / 2, (j * b + l * d) / 2
    found = np.zeros((splats.count, 7 + channels), dtype)
    found[splats.order] = np.concatenate([np.stack([*away, *moment]).T, sums[:, channels : channels + 1],
                                          sums[:, :channels]], axis=1)
    duv, dcov2, dopacity, dcolor = np.split(found, [2, 6, 7], axis=1)
    arrays = duv, dcov2.reshape(-1, 2, 2), dopacity[:, 0], dcolor
    return tuple(np.ascontiguousarray(a) for a in arrays)
