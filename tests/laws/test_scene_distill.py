"""Laws of score distillation where all is known: Gaussian data, a perfect model, expectations as sums over the nodes of
a quadrature that is exact for them. Nothing is drawn.

Papers
    [DreamFusion]  Poole et al., "DreamFusion: Text-to-3D using 2D Diffusion", 2023
"""
import itertools

import numpy as np
import pytest

from ref import scene, schedules
from ref.diffusion import ddim_step
from ref.guidance import guide
from tests import assert_close

KEPT, BROKEN = 1e-12, 1e-3
RNG = np.random.default_rng(9)
D, B = 3, 4
MU, A = RNG.standard_normal(D), RNG.standard_normal((D, D))
COV = A @ A.T / 3 + 0.1 * np.eye(D)
X = RNG.standard_normal((B, D))
ABAR = schedules.alpha_bar(schedules.linear_betas())
TIMES = 1, 20, 300, 700, 1000
NODES = np.array(list(itertools.product((-1.0, 1.0), repeat=D)))  # mean 0, covariance I: exact for what is linear


def average(field, x, t):
    """The mean of field(x_t, t) - eps over eps, for each x."""
    a, eps = ABAR[t], np.repeat(NODES[None], len(x), axis=0).reshape(-1, D)
    xt = np.sqrt(a) * np.repeat(x, len(NODES), axis=0) + np.sqrt(1 - a) * eps
    return scene.score_distillation(field(xt, t), eps, t, ABAR, "uniform").reshape(len(x), len(NODES), D).mean(axis=1)


def perfect(xt, t):
    return scene.gaussian_eps(xt, t, MU, COV, ABAR)


def kl(x, t):
    """KL(q(x_t | x) || p(x_t)) but for what does not depend on x."""
    a = ABAR[t]
    d = np.sqrt(a) * (x - MU)
    return (d * np.linalg.solve(a * COV + (1 - a) * np.eye(D), d[..., None])[..., 0]).sum(axis=-1) / 2


def law_of_the_mean(field):
    """E[eps_hat - eps] = sqrt(abar (1 - abar)) V^-1 (x - mu) = sqrt((1 - abar) / abar) grad KL."""
    off, of_data = 0, (MU, COV, ABAR)
    for t in TIMES:
        found, a = average(field, X, t), ABAR[t]
        slopes = np.stack([kl(X + 1e-30j * e, t).imag / 1e-30 for e in np.eye(D)], axis=1)
        exact = np.sqrt((1 - a) / a) * slopes
        off = max(off, np.abs(found - exact).max(), np.abs(scene.gaussian_distillation(X, t, *of_data) - exact).max())
    return off


def test_the_mean_of_score_distillation_is_the_gradient_of_a_kl():
    assert law_of_the_mean(perfect) <= KEPT
    wrong = {
        "of the data's own covariance": lambda xt, t: scene.gaussian_eps(xt, t, MU, 0 * COV, ABAR),
        "of the time before": lambda xt, t: scene.gaussian_eps(xt, t - 1, MU, COV, ABAR),
        "the score for eps": lambda xt, t: -perfect(xt, t) / np.sqrt(1 - ABAR[t]),
        "x0 for eps": lambda xt, t: (xt - np.sqrt(1 - ABAR[t]) * perfect(xt, t)) / np.sqrt(ABAR[t]),
        "V of deviations": lambda xt, t: scene.gaussian_eps(xt, t, MU, A, ABAR),
    }
    for name, field in wrong.items():
        assert law_of_the_mean(field) > BROKEN, name


def test_the_perfect_prediction_is_the_regression_of_the_noise():
    """Cov(eps, x_t) Cov(x_t)^-1 (x_t - E x_t), from the joint covariance of (x0, eps)."""
    for t in TIMES:
        a, xt = ABAR[t], X
        joint = np.block([[COV, np.zeros((D, D))], [np.zeros((D, D)), np.eye(D)]])
        forward = np.hstack([np.sqrt(a) * np.eye(D), np.sqrt(1 - a) * np.eye(D)])
        gain = (joint @ forward.T)[D:] @ np.linalg.inv(forward @ joint @ forward.T)
        assert_close(perfect(xt, t), (xt - np.sqrt(a) * MU) @ gain.T, scale=10)


def test_the_model_without_noise_is_refused_by_nobody_and_says_nothing():
    assert not scene.gaussian_distillation(X, 0, MU, COV, ABAR).any()
    times = np.array([1, 300, 700, 1000])  # each example has its own
    each = np.concatenate([scene.gaussian_distillation(X[i:i + 1], int(t), MU, COV, ABAR) for i, t in enumerate(times)])
    np.testing.assert_array_equal(scene.gaussian_distillation(X, times, MU, COV, ABAR), each)


def descended(field, steps=4000, rate=0.2):
    """Where gradient descent with the mean field ends, times in turn."""
    x = X
    for i in range(steps):
        x = x - rate * average(field, x, (300, 500, 700)[i % 3])
    return x


def test_the_fixed_point_is_the_mode_and_not_a_sample():
    """From every start and with every covariance score distillation ends at mu, while sampling with the same model
    keeps the data's covariance."""
    assert np.abs(descended(perfect) - MU).max() <= 1e-9
    starts = np.concatenate([NODES, -NODES]) * 1.0
    x = starts
    times = list(range(1000, -1, -1))
    for t, s in itertools.pairwise(times):
        x = ddim_step(x, perfect(x, t), t, s, None, 0.0, ABAR)
    spread = (x - x.mean(axis=0)).T @ (x - x.mean(axis=0)) / len(x)  # of starts with covariance I
    assert np.abs(spread - COV).max() < 0.02 * np.abs(COV).max() and np.abs(x.mean(axis=0) - MU).max() < 0.02


@pytest.mark.parametrize("w", [0.0, 1.0, 3.0, 7.5])
def test_guidance_moves_the_fixed_point(w):
    """To mu_u + w (mu_c - mu_u), for two Gaussians of one covariance: away from the data for w > 1."""
    mu_c = MU + np.array([0.3, -0.2, 0.5])

    def guided(xt, t):
        return guide(perfect(xt, t), scene.gaussian_eps(xt, t, mu_c, COV, ABAR), w)

    target = MU + w * (mu_c - MU)
    for t in TIMES:
        assert np.abs(average(guided, target[None], t)).max() <= KEPT * max(1, w) * 10
    assert np.abs(descended(guided) - target).max() <= 1e-8
    # the paper's w, which is one less, is another point
    assert w == 0 or np.abs(average(guided, (MU + (w - 1) * (mu_c - MU))[None], 300)).max() > BROKEN


# --- weightings and times ---------------------------------------------------------------------------------------------

BY_HAND = {"sds": 0.64, "fantasia3d": 0.384, "uniform": 1.0}  # at abar = 0.36: 1 - 0.36, 0.6 times 0.64


def law_of_weights(weight):
    """At abar = 0.36 by hand; and of the time that the noise has."""
    abar = np.array([1.0, 0.64, 0.36, 0.0])
    off = max(abs(weight(2, abar, name) - value) for name, value in BY_HAND.items())
    ends = [weight(np.array([0, 3]), abar, name) - np.array(ends)
            for name, ends in (("sds", [0, 1]), ("fantasia3d", [0, 0]), ("uniform", [1, 1]))]
    return max(off, np.abs(ends).max())


def test_weights():
    assert law_of_weights(scene.distillation_weight) <= KEPT
    right = scene.distillation_weight
    wrong = {
        "a deviation": lambda t, abar, name: np.sqrt(right(t, abar, name)),
        "of the signal": lambda t, abar, name: {"sds": abar[t], "fantasia3d": np.sqrt(1 - abar[t]) * abar[t],
                                                "uniform": 1 + 0 * abar[t]}[name],
        "of the time before": lambda t, abar, name: right(np.maximum(np.subtract(t, 1), 0), abar, name),
        "abar for its root": lambda t, abar, name: right(t, abar, name) * abar[t] ** (0.5 * (name == "fantasia3d")),
        "1 / sigma^2": lambda t, abar, name: 1 / np.maximum(right(t, abar, name), 0.1),
    }
    for name, weight in wrong.items():
        assert law_of_weights(weight) > BROKEN, name


def test_the_weight_multiplies_the_difference_of_its_own_example():
    eps_hat, eps, times = X, 0.5 * X[::-1], np.array([10, 300, 700, 1000])
    for name in BY_HAND:
        w = scene.distillation_weight(times, ABAR, name)
        assert_close(scene.score_distillation(eps_hat, eps, times, ABAR, name), w[:, None] * (eps_hat - eps))
        assert not scene.score_distillation(eps, eps, times, ABAR, name).any()  # a right prediction changes nothing


def law_of_annealing(time):
    """From 980 to 300, downwards, evenly."""
    t = np.array([time(i, 100) for i in range(100)])
    off = np.abs(t - np.linspace(980, 300, 100)).max()
    return abs(t[0] - 980) + abs(t[-1] - 300) + (np.diff(t) > 0).sum() + off // 0.51


def test_annealing():
    assert law_of_annealing(scene.annealed_time) == 0
    for wrong in (lambda i, n: scene.annealed_time(n - 1 - i, n), lambda i, n: 980, lambda i, n: 980 - 680 * i // n,
                  lambda i, n: round(980 * (300 / 980) ** (i / (n - 1)))):
        assert law_of_annealing(wrong) > 0
    assert scene.annealed_time(0, 1) == 980 and scene.annealed_time(2, 5, 10, 2) == 6


# --- through a renderer -----------------------------------------------------------------------------------------------


def test_distillation_through_a_renderer_is_the_gradient_of_the_kl_of_its_picture():
    """dtheta = dx dx/dtheta: of densities and colours along a ray, by the backward of `composite`."""
    sigma, delta, t = RNG.uniform(0, 2, (1, 5)), np.full((1, 5), 0.4), np.arange(5)[None] * 0.4
    color, background = RNG.uniform(0, 1, (1, 5, D)), np.ones(D)

    def value(sigma, color, time):
        return kl(scene.composite(sigma, color, delta, t, background)[0], time)[0]

    for time in (300, 700):
        x, depth, opacity = scene.composite(sigma, color, delta, t, background)
        dx = scene.gaussian_distillation(x, time, MU, COV, ABAR)
        dsigma, dcolor, *_ = scene.composite_backward(dx, 0 * depth, 0 * opacity, sigma, color, delta, t, background)
        factor = np.sqrt((1 - ABAR[time]) / ABAR[time])
        for i in range(5):
            e = 1e-30j * (np.arange(5) == i)[None]
            assert_close(dsigma[0, i], factor * value(sigma + e, color, time).imag / 1e-30, scale=1)
            assert_close(dcolor[0, i, 0], factor * value(sigma, color + e[:, :, None] * [1, 0, 0], time).imag / 1e-30,
                         scale=1)
