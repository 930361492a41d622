"""Laws of volume rendering and of the samples along a ray, exact: closed forms, nothing trained, nothing drawn but
uniforms. A law returns by how much a function breaks it; every law is also shown wrong functions, which must break it.

Papers
    [Max]   Max, "Optical Models for Direct Volume Rendering", 1995
    [NeRF]  Mildenhall et al., "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis", 2020
"""
import numpy as np
import pytest

from ref import scene
from tests import assert_close

KEPT, BROKEN = 1e-12, 1e-3
RNG = np.random.default_rng(3)
N, S, C = 5, 9, 3
SIGMA, DELTA = RNG.exponential(1.0, (N, S)), RNG.uniform(0.05, 0.6, (N, S))
COLOR, BACKGROUND = RNG.uniform(0, 1, (N, S, C)), np.ones(C)  # white
T = np.cumsum(DELTA, axis=1) - DELTA / 2


def with_weights(weights):
    """`composite` of other weights."""
    def composite(sigma, color, delta, t, background):
        w, rest = weights(sigma, delta)
        return np.einsum("ns,nsc->nc", w, color) + rest[:, None] * background, (w * t).sum(axis=1), w.sum(axis=1)

    return composite


def weights_of(tau, before):
    return np.exp(-before) * -np.expm1(-tau), np.exp(-tau.sum(axis=1))


def through_itself(sigma, delta):
    tau = sigma * delta
    return weights_of(tau, np.cumsum(tau, axis=1))


def from_the_back(sigma, delta):
    w, rest = scene.volume_weights(sigma[:, ::-1], delta[:, ::-1])
    return w[:, ::-1], rest


def density_as_opacity(sigma, delta):
    alpha = np.minimum(sigma * delta, 1)
    T = np.cumprod(1 - alpha, axis=1)
    return alpha * np.concatenate([np.ones((len(T), 1)), T[:, :-1]], axis=1), T[:, -1]


def background_without_T(sigma, color, delta, t, background):
    y, depth, opacity = scene.composite(sigma, color, delta, t, 0 * background)
    return y + background, depth, opacity


WRONG = {
    "T_i with its own interval": with_weights(through_itself),
    "back to front": with_weights(from_the_back),
    "the density for an opacity": with_weights(density_as_opacity),
    "no lengths": with_weights(lambda sigma, delta: scene.volume_weights(sigma, np.ones_like(delta))),
    "white background without T": background_without_T,
}


def law_of_one(composite):
    """sum w = 1 - exp(-sum sigma d), and a white ray over white is white."""
    y, _, opacity = composite(SIGMA, np.ones_like(COLOR), DELTA, T, BACKGROUND)
    return max(np.abs(opacity + np.expm1(-(SIGMA * DELTA).sum(axis=1))).max(), np.abs(y - 1).max())


def law_of_splitting(composite):
    """An interval of one density and colour cut in two is the same interval."""
    cut = RNG.uniform(0.1, 0.9, (N, S))
    parts = np.stack([cut * DELTA, (1 - cut) * DELTA], axis=2).reshape(N, 2 * S)
    whole = composite(SIGMA, COLOR, DELTA, T, BACKGROUND)
    split = composite(*(np.repeat(a, 2, axis=1) for a in (SIGMA, COLOR)), parts, np.repeat(T, 2, axis=1), BACKGROUND)
    return max(np.abs(a - b).max() for a, b in zip(whole, split))


def law_of_association(composite):
    """What is in front over what is behind, wherever the ray is cut: what tiles and scans rest on."""
    whole, off = composite(SIGMA, COLOR, DELTA, T, BACKGROUND), 0
    for k in range(1, S):
        front, back = ([a[:, part] for a in (SIGMA, COLOR, DELTA, T)] for part in (slice(k), slice(k, None)))
        y, depth, opacity = composite(*front, np.zeros(C))
        behind = composite(*back, BACKGROUND)
        joined = (y + (1 - opacity)[:, None] * behind[0], depth + (1 - opacity) * behind[1],
                  1 - (1 - opacity) * (1 - behind[2]))
        off = max(off, *(np.abs(a - b).max() for a, b in zip(whole, joined)))
    return off


def law_of_occlusion(composite):
    """Something opaque hides what is behind it, and not what is in front."""
    sigma = SIGMA.copy()
    sigma[:, 4] = 1e9
    y, _, _ = composite(sigma, COLOR, DELTA, T, BACKGROUND)
    changed = COLOR.copy()
    changed[:, 5:] = 0
    hidden = composite(sigma, changed, DELTA, T, 0 * BACKGROUND)[0]
    changed[:, :4] = 0
    seen = composite(sigma, changed, DELTA, T, BACKGROUND)[0]
    return max(np.abs(y - hidden).max(), float(np.abs(y - seen).max() < BROKEN))


LAWS = {
    law_of_one: ["white background without T", "T_i with its own interval", "no lengths", "the density for an opacity"],
    law_of_splitting: ["T_i with its own interval", "no lengths", "the density for an opacity"],
    law_of_association: ["T_i with its own interval", "back to front", "white background without T"],
    law_of_occlusion: ["back to front", "white background without T"],
}


@pytest.mark.parametrize("law", LAWS)
def test_compositing(law):
    assert law(scene.composite) <= KEPT
    for name in LAWS[law]:
        assert law(WRONG[name]) > BROKEN, name


def test_constant_density_has_closed_forms():
    """Over a length L: opacity 1 - e^(-sigma L), and the mean distance of the light, exact for t at the mean of each
    interval; the middles converge to it with the square of their distance."""
    sigma, L = 1.7, 2.5
    depth = (1 - (1 + sigma * L) * np.exp(-sigma * L)) / sigma  # the integral of t sigma e^(-sigma t)
    off = []
    for n in (40, 80, 160):
        t = scene.stratified(np.zeros(1), np.full(1, L), np.full((1, n), 0.5))
        delta, ones = np.full((1, n), L / n), np.ones((1, n, 1))
        y, found, opacity = scene.composite(np.full((1, n), sigma), ones, delta, t, np.zeros(1))
        assert_close(opacity, np.array([-np.expm1(-sigma * L)]))
        assert_close(y[:, 0], opacity)
        off.append(abs(found[0] - depth))
    assert np.allclose(np.log2(np.divide(off[:-1], off[1:])), 2, atol=0.01)


def test_a_sphere_of_constant_density_has_a_closed_form():
    """opacity = 1 - exp(-2 sigma sqrt(r^2 - b^2)) of a ray that passes the centre at the distance b."""
    sigma, r, b = 0.9, 1.3, np.array([0.0, 0.5, 1.0, 1.29, 1.4])
    half = np.sqrt(np.maximum(r**2 - b**2, 0))
    exact = -np.expm1(-2 * sigma * half)
    # bins that end where the ray enters and leaves
    edges = np.stack([np.zeros(5), 3 - half, np.full(5, 3.0), 3 + half, np.full(5, 6.0)], axis=1)
    delta, inside = np.diff(edges, axis=1), np.array([0, sigma, sigma, 0]) * np.ones((5, 1))
    _, rest = scene.volume_weights(inside, delta)
    assert np.abs(1 - rest - exact).max() <= KEPT
    # samples that know nothing of it: at most two bins are half right
    n = 2000
    t = scene.stratified(np.zeros(5), np.full(5, 6.0), np.full((5, n), 0.5))
    delta = scene.intervals(t, np.full(5, 6.0))
    found = 1 - scene.volume_weights(sigma * (np.hypot(b[:, None], t - 3) < r), delta)[1]
    assert np.abs(found - exact).max() <= 2 * sigma * 6 / n


def test_intervals_add_up_to_the_length():
    t = np.sort(RNG.uniform(1, 3, (N, S)), axis=1)
    delta = scene.intervals(t, np.full(N, 4.0))
    assert_close(delta.sum(axis=1), 4 - t[:, 0])
    assert np.all(delta >= 0)


def law_of_strata(stratified):
    """Every bin has its sample, and u = 1/2 is its middle."""
    u = RNG.uniform(size=(N, 8))
    near, far = np.arange(N) + 1.0, np.arange(N) * 2 + 5.0
    place = (stratified(near, far, u) - near[:, None]) / (far - near)[:, None] * 8
    return np.abs(place - np.floor(place) - u).max() + np.abs(np.floor(place) - np.arange(8)).max()


def test_strata():
    assert law_of_strata(scene.stratified) <= KEPT
    assert law_of_strata(lambda near, far, u: near[:, None] + (far - near)[:, None] * u) > BROKEN


def law_of_inversion(inverse_cdf):
    """The cumulative distribution of the samples is u again, and its bins have their weights' shares."""
    edges, w = np.cumsum(RNG.uniform(0.1, 1, (N, S + 1)), axis=1), RNG.uniform(0, 1, (N, S))
    w[:, 3] = 0
    u = np.sort(RNG.uniform(size=(N, 50)), axis=1)
    t, p = inverse_cdf(edges, w, u, floor=0.0), w / w.sum(axis=1, keepdims=True)
    c = np.concatenate([np.zeros((N, 1)), np.cumsum(p, axis=1)], axis=1)
    back = np.stack([np.interp(t[i], edges[i], c[i]) for i in range(N)])
    return np.abs(back - u).max()


def test_inverse_cdf():
    def of_edges(edges, w, u, floor):  # weights of the edges, as a bug had it
        return scene.inverse_cdf(edges, np.roll(w, 1, axis=1), u, floor)

    def bin_starts(edges, w, u, floor):  # no place in the bin
        return np.take_along_axis(edges, np.floor(u * w.shape[1]).astype(int), axis=1)

    assert law_of_inversion(scene.inverse_cdf) <= KEPT
    assert law_of_inversion(of_edges) > BROKEN and law_of_inversion(bin_starts) > BROKEN
    # without weights it is stratified sampling
    u = RNG.uniform(size=(1, 6))
    t = scene.inverse_cdf(np.linspace(2, 6, 7)[None], np.zeros((1, 6)), (np.arange(6) + u) / 6, floor=1e-5)
    assert_close(t, scene.stratified(np.full(1, 2.0), np.full(1, 6.0), u))
