"""Volume rendering along rays: the weights of the samples, their composite, and where to sample; each next to its
gradient.

Everything here is float64. N rays of S samples, C channels. sigma is a density per unit of length, delta the length of
a sample's interval, t its distance from the ray's origin.

Papers
    [Max]   Max, "Optical Models for Direct Volume Rendering", 1995
    [NeRF]  Mildenhall et al., "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis", 2020
"""
import numpy as np

from ref.shapes import number, shaped


def volume_weights(sigma, delta):
    """The share of each interval in the light of a ray, [NeRF] eq. 3, and the share that passes all of them:

        w_i = T_i (1 - exp(-sigma_i delta_i)),   T_i = exp(-sum_{j<i} sigma_j delta_j),   rest = T_S

    so that sum_i w_i + rest = 1. It is exact where the density is constant in each interval, [Max] section 4.

    sigma, delta: (N, S), both >= 0.
    Returns w (N, S), rest (N,), float64.
    Raises ValueError where shapes differ or an element is below 0.
    """
    tau, T = _transmittance(sigma, delta)
    return -T[:, :-1] * np.expm1(-tau), T[:, -1].copy()


def volume_weights_backward(dw, drest, sigma, delta):
    """Gradients of `volume_weights` by sums from the end of the ray, with tau_i = sigma_i delta_i:

        dtau_i = T_{i+1} dw_i - sum_{j>i} w_j dw_j - rest drest,   dsigma = delta dtau,   ddelta = sigma dtau

    dw: (N, S). drest: (N,). sigma, delta: (N, S).
    Returns dsigma, ddelta, each (N, S) float64.
    Raises as `volume_weights` does.
    """
    tau, T = _transmittance(sigma, delta)
    dw, drest = shaped(dw, "dw", *tau.shape), shaped(drest, "drest", len(tau))
    w = -T[:, :-1] * np.expm1(-tau)
    behind = _later(w * dw) + (T[:, -1] * drest)[:, None]  # (N, S)
    dtau = T[:, 1:] * dw - behind
    return delta * dtau, sigma * dtau


def composite(sigma, color, delta, t, background):
    """The picture of each ray, [NeRF] eq. 3, over a background, with the weights of `volume_weights`:

        y = sum_i w_i c_i + rest background,   depth = sum_i w_i t_i,   opacity = 1 - rest = sum_i w_i

    The background adds nothing to the depth; depth / opacity is the mean distance of what the ray met.

    sigma, delta, t: (N, S), the first two >= 0. color: (N, S, C). background: (C,).
    Returns y (N, C), depth (N,), opacity (N,), float64.
    Raises ValueError where shapes do not fit or a density or a length is below 0.
    """
    w, rest, color, t, background = _rays(sigma, color, delta, t, background)
    y = np.einsum("ns,nsc->nc", w, color) + rest[:, None] * background  # (N, C)
    return y, (w * t).sum(axis=1), w.sum(axis=1)


def composite_backward(dy, ddepth, dopacity, sigma, color, delta, t, background):
    """Gradients of `composite`:

        dw_i = c_i . dy + t_i ddepth + dopacity,   drest = background . dy,
        dcolor_i = w_i dy,   dt_i = w_i ddepth,   dbackground = sum over rays of rest dy

    and dsigma, ddelta from dw and drest by `volume_weights_backward`.

    dy: (N, C). ddepth, dopacity: (N,). sigma, color, delta, t, background: as in `composite`.
    Returns dsigma, dcolor, ddelta, dt, dbackground, float64.
    Raises as `composite` does.
    """
    w, rest, color, t, background = _rays(sigma, color, delta, t, background)
    N, S, C = color.shape
    dy, ddepth, dopacity = shaped(dy, "dy", N, C), shaped(ddepth, "ddepth", N), shaped(dopacity, "dopacity", N)
    # Weights
    dw = np.einsum("nsc,nc->ns", color, dy) + t * ddepth[:, None] + dopacity[:, None]
    dsigma, ddelta = volume_weights_backward(dw, dy @ background, sigma, delta)
    # What is weighted
    return dsigma, w[:, :, None] * dy[:, None], ddelta, w * ddepth[:, None], rest @ dy


def stratified(near, far, u):
    """One sample in each of S equal bins of a ray, [NeRF] eq. 2:  t_i = near + (far - near) (i + u_i) / S,  i = 0 ..
    S - 1.

    near, far: (N,). u: (N, S) uniforms in [0, 1); 1/2 for the middle of each bin.
    Returns t (N, S) float64, ascending.
    Raises ValueError where shapes do not fit.
    """
    near, far, u = _bins(near, far, u)
    place = (np.arange(u.shape[1]) + u) / u.shape[1]
    return near[:, None] + (far - near)[:, None] * place


def stratified_backward(dt, near, far, u):
    """Gradients of `stratified`:  dnear = sum_i (1 - p_i) dt_i,  dfar = sum_i p_i dt_i,  du_i = (far - near) dt_i / S,
    where p_i = (i + u_i) / S.

    dt, u: (N, S). near, far: (N,).
    Returns dnear, dfar, du, float64.
    Raises as `stratified` does.
    """
    near, far, u = _bins(near, far, u)
    dt = shaped(dt, "dt", *u.shape)
    place = (np.arange(u.shape[1]) + u) / u.shape[1]
    return ((1 - place) * dt).sum(axis=1), (place * dt).sum(axis=1), (far - near)[:, None] * dt / u.shape[1]


def intervals(t, far):
    """The length of each sample's interval, [NeRF] eq. 3:  delta_i = t_{i+1} - t_i, and far - t_{S-1} for the last.

    t: (N, S), ascending. far: (N,).
    Returns delta (N, S) float64.
    Raises ValueError where shapes do not fit.
    """
    t = shaped(t, "t", "N", "S")
    return np.diff(t, axis=1, append=shaped(far, "far", len(t))[:, None])


def intervals_backward(ddelta):
    """Gradients of `intervals`:  dt_i = ddelta_{i-1} - ddelta_i,  dfar = ddelta_{S-1}.

    ddelta: (N, S), S >= 1.
    Returns dt, dfar, float64.
    Raises ValueError for another shape.
    """
    ddelta = shaped(ddelta, "ddelta", "N", "S")
    return -np.diff(ddelta, axis=1, prepend=0), ddelta[:, -1].copy()


def inverse_cdf(edges, w, u, floor=1e-5):
    """Samples of the density that is constant in each bin and proportional to its weight there, [NeRF] section 5.2:

        p_k = (w_k + floor) / sum_j (w_j + floor),   c_k = sum_{j<k} p_j,
        t = edges_k + (u - c_k) / p_k (edges_{k+1} - edges_k)   in the bin where c_k <= u < c_{k+1}

    The floor keeps a bin without weight alive; the authors' code has 1e-5. It treats the weights as constants; the
    gradient here has them.

    edges: (N, K + 1), ascending. w: (N, K), >= 0. u: (N, S) uniforms in [0, 1). floor: float >= 0.
    Returns t (N, S) float64, ascending where u is.
    Raises ValueError where shapes do not fit, w or floor is below 0, u is outside of [0, 1), or all of a ray's weights
    are 0.
    """
    edges, p, u, k = _inverse(edges, w, u, floor)[:4]
    low, f, width = _place(edges, p, u, k)
    return low + f * width


def inverse_cdf_backward(dt, edges, w, u, floor=1e-5):
    """Gradients of `inverse_cdf`, with f = (u - c_k) / p_k and the width of bin k:

        du = dt width / p_k,   dedges_k += (1 - f) dt,   dedges_{k+1} += f dt,
        dp_j = -sum_{samples in j} f du - sum_{samples after j} du,
        dw_j = (dp_j - sum_k p_k dp_k) / sum_k (w_k + floor)

    dt: (N, S). edges, w, u, floor: as in `inverse_cdf`.
    Returns dedges, dw, du, float64.
    Raises as `inverse_cdf` does.
    """
    edges, p, u, k, total = _inverse(edges, w, u, floor)
    dt = shaped(dt, "dt", *u.shape)
    _, f, width = _place(edges, p, u, k)
    ray = np.arange(len(u))[:, None]
    # The bin's ends
    dedges = np.zeros(edges.shape, np.result_type(dt, f))
    np.add.at(dedges, (ray, k), (1 - f) * dt)
    np.add.at(dedges, (ray, k + 1), f * dt)
    # Its probability, and those of the bins before it
    du = dt * width / np.take_along_axis(p, k, axis=1)
    inside, start = np.zeros(p.shape, du.dtype), np.zeros(p.shape, du.dtype)
    np.add.at(inside, (ray, k), -f * du)
    np.add.at(start, (ray, k), -du)  # of c_k
    dp = inside + _later(start)
    return dedges, (dp - (p * dp).sum(axis=1, keepdims=True)) / total, du


def _transmittance(sigma, delta):
    """tau (N, S) and T (N, S + 1), from 1 at the ray's origin."""
    sigma = shaped(sigma, "sigma", "N", "S")
    delta = shaped(delta, "delta", *sigma.shape)
    _not_negative(sigma=sigma, delta=delta)
    tau = sigma * delta
    before = np.concatenate([np.zeros((len(tau), 1)), np.cumsum(tau, axis=1)], axis=1)
    return tau, np.exp(-before)


def _not_negative(**arrays):
    for name, value in arrays.items():
        if np.any(np.real(value) < 0):
            raise ValueError(f"{name}: expected values >= 0, got {np.nanmin(np.real(value))}")


def _later(terms):
    """Of each element the sum of those after it in its row."""
    return np.cumsum(terms[:, ::-1], axis=1)[:, ::-1] - terms


def _rays(sigma, color, delta, t, background):
    w, rest = volume_weights(sigma, delta)
    color = shaped(color, "color", *w.shape, "C")
    return w, rest, color, shaped(t, "t", *w.shape), shaped(background, "background", color.shape[2])


def _bins(near, far, u):
    u = shaped(u, "u", "N", "S")
    return shaped(near, "near", len(u)), shaped(far, "far", len(u)), u


def _inverse(edges, w, u, floor):
    """edges, p, u, the bin k of each u, and the sum of the weights, (N, 1)."""
    w, floor = shaped(w, "w", "N", "K"), number(floor, "floor")
    edges, u = shaped(edges, "edges", len(w), w.shape[1] + 1), shaped(u, "u", len(w), "S")
    if not floor >= 0:
        raise ValueError(f"floor: expected a number >= 0, got {floor}")
    _not_negative(w=w)
    if not np.all((np.real(u) >= 0) & (np.real(u) < 1)):
        raise ValueError(f"u: expected values in [0, 1), got {u}")
    total = (w + floor).sum(axis=1, keepdims=True)
    if np.any(total == 0):
        raise ValueError("w: expected a weight above 0 in each ray, got only zeros and floor = 0")
    p = (w + floor) / total
    ends = np.cumsum(p, axis=1)[:, :-1, None]  # (N, K - 1, 1)
    return edges, p, u, (np.real(ends) <= np.real(u)[:, None]).sum(axis=1), total


def _place(edges, p, u, k):
    """The start of bin k, the place of u in it, and its width, each (N, S)."""
    start = np.take_along_axis(np.cumsum(p, axis=1) - p, k, axis=1)
    low, high = (np.take_along_axis(edges, k + i, axis=1) for i in (0, 1))
    return low, (u - start) / np.take_along_axis(p, k, axis=1), high - low
