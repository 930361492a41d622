"""Weights, divergences, the discretised likelihood, learned variances and the bound: 50-digit and diffusers' numbers,
by hand, edges."""
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ref import diffusion, objectives, schedules
from tests import assert_close, golden

GOLD = golden("ddpm")
ABAR = schedules.alpha_bar(schedules.linear_betas())
T20 = schedules.alpha_bar(schedules.linear_betas(20, 0.01, 0.3))


def level(k):
    return 2 * np.asarray(k) / 255 - 1


def test_min_snr_weight_by_hand():
    snr = np.array([0.0, 0.5, 5.0, 20.0, np.inf])
    assert_close(objectives.min_snr_weight(snr, 5, "x0"), np.array([0, 0.5, 5, 5, 5]))
    assert_close(objectives.min_snr_weight(snr, 5, "eps"), np.array([1, 1, 1, 0.25, 0]))
    assert_close(objectives.min_snr_weight(snr, 5, "v"), np.array([0, 1 / 3, 5 / 6, 5 / 21, 0]))
    assert objectives.min_snr_weight(np.float32(3), 5, "x0").dtype == np.float64


@given(t=st.integers(1, 1000), gamma=st.floats(0.1, 20))
def test_min_snr_weight_is_one_loss_in_three_predictions(t, gamma):
    """A network that is wrong about x0 by d is wrong about eps and v by known amounts; the weighted squares are
    equal."""
    x0, eps, wrong = np.random.default_rng(t).standard_normal((3, 2, 3))
    xt, snr = diffusion.q_sample(x0, t, eps, ABAR), schedules.snr(ABAR[t])
    eps_hat = diffusion.eps_from_x0(xt, wrong, t, ABAR)
    v, v_hat = (diffusion.v_target(x, e, t, ABAR) for x, e in ((x0, eps), (wrong, eps_hat)))
    expected = min(snr, gamma) * np.sum((wrong - x0) ** 2)
    for prediction, off in (("x0", wrong - x0), ("eps", eps_hat - eps), ("v", v_hat - v)):
        assert abs(objectives.min_snr_weight(snr, gamma, prediction) * np.sum(off**2) / expected - 1) < 1e-9, prediction


def test_normal_kl_by_hand():
    zero, one = np.zeros(3), np.ones(3)
    assert_close(objectives.normal_kl(zero, zero, np.array([1.0, 2.0, 3.0]), zero), np.array([0.5, 2, 4.5]))
    assert_close(objectives.normal_kl(zero, one * np.log(4), zero, zero), one * (4 - 1 - np.log(4)) / 2)
    assert_close(objectives.normal_kl(one, zero, zero, one * np.log(4)), one * (np.log(4) + 0.25 - 1 + 0.25) / 2)
    # a number for all
    assert_close(objectives.normal_kl(zero, zero, np.array([1.0, 2.0, 3.0]), 0), np.array([0.5, 2, 4.5]))
    assert objectives.normal_kl(1, 0, 0.0, 0.0) == 0.5


@given(st.tuples(*[st.floats(-3, 3)] * 4))
def test_normal_kl_is_the_mean_of_the_log_ratio(case):
    """By Gauss and Hermite, exact for the square that the log ratio is; and never below 0, nor above 0 for the same
    Gaussian."""
    m1, l1, m2, l2 = case
    u, w = np.polynomial.hermite_e.hermegauss(4)
    x = m1 + np.exp(l1 / 2) * u
    ratio = 0.5 * (l2 - l1 + (x - m2) ** 2 * np.exp(-l2) - u**2)
    kl = objectives.normal_kl(*case)
    assert abs(kl - w @ ratio / w.sum()) <= 1e-13 * (w @ np.abs(ratio) / w.sum() + abs(l2 - l1) + 1)
    assert kl >= -1e-15 and objectives.normal_kl(m1, l1, m1, l1) == 0


FIFTY_DIGITS = [  # level, mean, log_scale, log P by 50-digit arithmetic, from these float64 arguments
    (0, 0.0, -3.0, -204.05291730018140666),
    (128, 0.25, 0.0, -5.7973346029024907945),
    (255, 0.0, -1.0, -5.6874095647205304934),
    (255, 1.5, -2.0, -0.000098242910916227050426),
    (0, 0.5, -3.0, -455.81027447459361392),
    (40, 0.75, -6.0, -166963.98728275723675),
    (200, -1.0, -9.0, -80377809.264230831864),
    (200, -1.0, -13.0, -239602841618.98454677),
    (100, -0.2, -5.0, -3.2546205923556227375),
    (100, -0.21, 3.0, -8.7670549442301209656),
    (17, -0.5, -1.5, -5.6171617941381945073),
    (128, 1 / 256, -7.0, -0.000017086435973141331796),
]


def test_discretized_likelihood_to_the_last_digits():
    k, means, log_scales, expected = np.array(FIFTY_DIGITS).T
    got = objectives.discretized_gaussian_log_likelihood(level(k), means, log_scales)
    assert_close(got, expected, rel=1e-15, scale=np.abs(expected) + 1)


@given(k=st.integers(0, 255), mean=st.floats(-1.2, 1.2), log_scale=st.floats(-3, 1))
def test_discretized_likelihood_is_a_difference_of_erf(k, mean, log_scale):
    """The standard library's erfc, on the side where it is small. Looser by what the difference of two near numbers
    loses."""
    def upper(u):
        return math.erfc((u - mean) / (math.exp(log_scale) * 2**0.5)) / 2

    low, high = level(k) - 1 / 255, level(k) + 1 / 255
    if level(k) < mean:
        low, high, mean, k = -high, -low, -mean, 255 - k
    p = (1 if k == 0 else upper(low)) - (0 if k == 255 else upper(high))
    got = objectives.discretized_gaussian_log_likelihood(level(k), mean, log_scale)
    if p > 1e-250:
        assert abs(np.exp(got) - p) <= 2e-14 * ((1 if k == 0 else upper(low)) + p * (1 - min(math.log(p), 0)))


def test_discretized_likelihood_is_near_the_tanh_of_public_code():
    """Which stands in for the distribution function, within 2e-4 of it; so P agrees where P is much larger than
    that."""
    def cdf(u):
        return 0.5 * (1 + np.tanh((2 / np.pi) ** 0.5 * (u + 0.044715 * u**3)))

    x, means = np.meshgrid(level(np.arange(1, 255)), np.linspace(-1, 1, 9))
    for log_scale in (-4.0, -2.0, 0.0):
        theirs = cdf((x - means + 1 / 255) * np.exp(-log_scale)) - cdf((x - means - 1 / 255) * np.exp(-log_scale))
        ours = np.exp(objectives.discretized_gaussian_log_likelihood(x, means, np.full(x.shape, log_scale)))
        assert np.abs(ours - theirs).max() < 4e-4 and np.abs(ours - theirs).max() > 1e-7


def test_discretized_likelihood_is_symmetric_and_takes_rounded_ends():
    rng = np.random.default_rng(2)
    x, means, log_scales = level(rng.integers(0, 256, 500)), rng.uniform(-2, 2, 500), rng.uniform(-8, 2, 500)
    np.testing.assert_array_equal(*(objectives.discretized_gaussian_log_likelihood(sign * x, sign * means, log_scales)
                                    for sign in (1, -1)))
    ends = np.array([1.0, 0.9995, 0.99902, -0.9995, -1.0])
    got = objectives.discretized_gaussian_log_likelihood(ends, np.full(5, 3.0), np.zeros(5))
    assert np.all(got[:3] > -0.03) and np.all(got[3:] < -9)  # the mean lies far beyond 1, in its open bin


# Every way the probability is had: bins inside, on one side, over the mean, open; each from both sides
WAYS = dict(x=level([100, 103, 110, 90, 127, 128, 0, 0, 0, 255, 255, 255]),
            log_scales=np.array([-4.0, -4.5, -6.5, -6.0, -6.0, -6.5, -4, -5, -4, -4, -5, -4]),
            means=np.array([-0.22, -0.22, -0.22, -0.22, 0.0, 0.0, -0.95, -0.995, -1.03, 0.95, 0.995, 1.03]))


@pytest.mark.parametrize("wrt", ["means", "log_scales"])
def test_discretized_likelihood_backward_in_bins_wider_than_a_deviation(wrt):
    moved = objectives.discretized_gaussian_log_likelihood(**{**WAYS, wrt: WAYS[wrt] + 1e-30j}).imag / 1e-30
    gradients = objectives.discretized_gaussian_log_likelihood_backward(np.ones(12), **WAYS)
    assert_close(gradients[["means", "log_scales"].index(wrt)], moved, rel=1e-14, scale=np.abs(moved) + 1)


def test_discretized_likelihood_backward_far_out_is_that_of_the_nearest_end():
    """[DDPM] eq. 13 a thousand deviations away: log P is -a^2 / 2 but for its logarithm, a the end of the bin that is
    near."""
    x, mean, sigma = level(np.array([200])), np.array([-1.0]), 0.001
    a = (x - 1 / 255 - mean) / sigma
    dmean, dlog_scale = objectives.discretized_gaussian_log_likelihood_backward(np.ones(1), x, mean,
                                                                                np.log(sigma) * np.ones(1))
    np.testing.assert_allclose(dmean, a / sigma, rtol=1e-5)
    np.testing.assert_allclose(dlog_scale, a**2, rtol=1e-5)


def test_learned_logvar_replays_diffusers():
    """diffusers' frac is (v + 1) / 2 for an output v in [-1, 1], as in the goldens; its t is t - 1 here, and its last
    step adds no noise."""
    xt, eps, z, v = GOLD["step/x"], GOLD["step/model_out"], GOLD["step/z"], (GOLD["learned_range/v"] + 1) / 2
    for i, t in enumerate(GOLD["step/t"] + 1):
        mean, _ = diffusion.posterior(diffusion.x0_from_eps(xt, eps, t, ABAR), xt, t, t - 1, ABAR)
        deviation = np.exp(objectives.learned_logvar(v, t, t - 1, ABAR) / 2)
        assert_close(mean + deviation * z * (t > 1), GOLD["learned_range/prev"][i])


def test_learned_logvar_ends_at_the_two_fixed_variances():
    zero, t, s = np.zeros((3, 2)), np.array([20, 9, 2]), np.array([0, 4, 1])
    small, large = (objectives.learned_logvar(zero + v, t, s, T20) for v in (0, 1))
    assert_close(np.exp(large[:, 0]), 1 - T20[t] / T20[s])
    assert_close(np.exp(small[1:, 0]), diffusion.posterior(zero[1:], zero[1:], t[1:], s[1:], T20)[1])
    assert_close(objectives.learned_logvar(zero + 0.25, t, s, T20), 0.25 * large + 0.75 * small)
    assert_close(objectives.learned_logvar(zero + 1.5, t, s, T20), 1.5 * large - 0.5 * small)  # nothing holds v
    # s = 0: the beta tilde of the smallest step, from max(t, 2) to 1
    for t, stand_in in ((1, 2), (2, 2), (7, 7)):
        expected = diffusion.posterior(zero, zero, stand_in, 1, T20)[1]
        assert_close(np.exp(objectives.learned_logvar(zero, t, 0, T20)), np.full((3, 2), expected))


def test_vlb_terms_by_hand():
    """abar = (1, 0.64, 0.36), t = 2 to 1: beta = 0.4375, beta tilde = 0.36 / 0.64 * 0.4375; t = 1 to 0: a bin."""
    abar, x0, xt = np.array([1, 0.64, 0.36]), np.array([[0.5, -0.5]]), np.array([[1.0, 0.2]])
    mean = 0.8 * 0.4375 / 0.64 * x0 + 0.75 * 0.36 / 0.64 * xt
    variance = 0.36 / 0.64 * 0.4375
    mean_hat, logvar_hat = np.array([[0.3, 0.4]]), np.log(np.array([[0.5, 0.2]]))
    kl = 0.5 * (logvar_hat - np.log(variance) + (variance + (mean - mean_hat) ** 2) / np.exp(logvar_hat) - 1)
    assert_close(objectives.vlb_terms(x0, xt, 2, 1, mean_hat, logvar_hat, abar), np.array([kl.sum() / (2 * np.log(2))]))
    x0 = level(np.array([[191, 255]]))
    decoder = objectives.discretized_gaussian_log_likelihood(x0, mean_hat, np.log(np.array([[0.5**0.5, 0.2**0.5]])))
    assert_close(objectives.vlb_terms(x0, xt, 1, 0, mean_hat, logvar_hat, abar),
                 np.array([-decoder.sum() / (2 * np.log(2))]))
    prior = 0.5 * (0.36 * x0**2 + 0.64 - 1 - np.log(0.64))
    assert_close(objectives.vlb_prior(x0, abar), np.array([prior.sum() / (2 * np.log(2))]))
    assert objectives.vlb_prior(x0, np.array([1.0, 0.5, 0.0])) == 0


def test_vlb_terms_of_the_true_step_are_0_where_s_is_not():
    x0, xt, _ = level(np.random.default_rng(3).integers(0, 256, (3, 2, 4)))
    mean, variance = diffusion.posterior(x0, xt, 9, 4, T20)
    np.testing.assert_allclose(objectives.vlb_terms(x0, xt, 9, 4, mean, np.full(mean.shape, np.log(variance)), T20), 0,
                               atol=1e-15)
