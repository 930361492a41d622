"""Samplers by noise level and by flow time, worked by hand."""
import math

import numpy as np
import pytest

from ref import samplers
from tests import assert_close
from tests.ref.test_samplers import NOISE, SIGMAS, X, asked, half, model


def test_euler_and_heun_by_hand():
    """From 4 at sigma = 2, d = 1; Euler's 3 at sigma = 1 has the slope 1.5, so Heun's is 4 - 1.25; and from there on, d
    = 1.375."""
    x = np.full((1, 2), 4.0)
    assert_close(samplers.euler(half, x, [2, 1]), np.full((1, 2), 3.0))
    assert_close(samplers.euler(half, x, [2, 1, 0]), np.full((1, 2), 1.5))
    assert_close(samplers.heun(half, x, [2, 1]), np.full((1, 2), 2.75))
    assert_close(samplers.heun(half, x, [2, 1, 0]), np.full((1, 2), 1.375))


def test_heun_with_churn_by_hand():
    """gamma = 0.5 / 2: 2 is raised to 2.5 by noise of the deviation 1.5, here times s_noise = 2 times 0.5. x_hat = 5.5,
    d = 1.1; Euler's 3.85 has the slope 1.925; so 5.5 - 1.5 * 1.5125 = 3.23125 at 1. That is raised to 1.25 by 0.75 * 2
    * (-1)."""
    noise = np.array([0.5, -1.0]).reshape(2, 1, 1)
    x = np.array([[4.0]])
    one, both = np.array([[3.23125]]), np.array([[(3.23125 - 1.5) / 2]])
    assert_close(samplers.heun(half, x, [2, 1, 0], noise, s_churn=0.5, s_min=2, s_noise=2), one / 2)
    assert_close(samplers.heun(half, x, [2, 1, 0], noise, s_churn=0.5, s_noise=2), both)
    # 2.75, as without churn, minus 1.5, halved
    quiet = samplers.heun(half, x, [2, 1, 0], noise, s_churn=0.5, s_max=1, s_noise=2)
    assert_close(quiet, np.array([[0.625]]))


@pytest.mark.parametrize("s_churn, gamma", [(0.4, 0.1), (1.0, 0.25), (40, math.sqrt(2) - 1)])
def test_churn_raises_the_variance_to_that_of_its_level(s_churn, gamma):
    """x = x0 + sigma eps gets what sigma_hat^2 has more than sigma^2, and at most doubles it, since gamma <= sqrt(2) -
    1."""
    listening, calls = asked(lambda x, sigma: 0 * x)
    samplers.heun(listening, np.array([[1.0], [0.0]]) * SIGMAS[0], SIGMAS,
                  np.array([[0.0], [1.0]]) * np.ones((4, 2, 1)), s_churn)
    x, level = calls[0]
    assert_close(np.array(level), np.array((1 + gamma) * SIGMAS[0]))
    assert_close((x**2).sum(), np.float64(level**2))
    with pytest.raises(ValueError, match=r"\bnoise\b"):
        samplers.heun(half, X, SIGMAS, NOISE[:3], s_churn)
    with pytest.raises(ValueError, match=r"\bnoise\b"):
        samplers.heun(half, X, SIGMAS, s_churn=s_churn)


def test_without_churn_noise_is_ignored():
    np.testing.assert_array_equal(samplers.heun(model, X, SIGMAS, np.full_like(NOISE, np.nan)),
                                  samplers.heun(model, X, SIGMAS))
    np.testing.assert_array_equal(samplers.heun(model, X, SIGMAS, NOISE, 5, s_min=9), samplers.heun(model, X, SIGMAS))


def test_flow_euler_and_flow_heun_by_hand():
    """From 4 at t = 1, v = 2: 3 at t = 0.5, where v = 1.5. Heun's is 4 - 0.5 * 1.75 = 3.125; the step to 0 is
    Euler's."""
    x = np.full((1, 2), 4.0)
    assert_close(samplers.flow_euler(half, x, [1, 0.5]), np.full((1, 2), 3.0))
    assert_close(samplers.flow_euler(half, x, [1, 0.5, 0]), np.full((1, 2), 2.25))
    assert_close(samplers.flow_heun(half, x, [1, 0.5]), np.full((1, 2), 3.125))
    assert_close(samplers.flow_heun(half, x, [1, 0.5, 0]), np.full((1, 2), 3.125 * 0.75))


def test_consistency_by_hand():
    """f halves. From 8 at sigma = 5 to 4; noise of sqrt(2^2 - 1.2^2) = 1.6 times 0.5 makes 4.8, and that 2.4."""
    x, noise = np.array([[8.0]]), np.array([[[0.5]], [[np.nan]]])
    assert_close(samplers.consistency(half, x, [5], None, 1.2), np.array([[4.0]]))
    for sigmas in ([5, 2], [5, 2, 0]):  # a last 0 is the end and no call
        assert_close(samplers.consistency(half, x, sigmas, noise, 1.2), np.array([[2.4]]))
        assert_close(samplers.consistency(half, x, sigmas, noise[:1], 1.2), np.array([[2.4]]))
    with pytest.raises(ValueError, match=r"\bnoise\b"):
        samplers.consistency(half, x, [5, 2], noise[:0], 1.2)


def test_consistency_down_to_sigma_min_ends_where_it_is():
    """f(x, sigma_min) = x, and no noise is added on the way to sigma_min: the second call changes nothing."""
    def f(x, sigma):
        return x if sigma == 0.002 else x / 7
    np.testing.assert_array_equal(samplers.consistency(f, X, [3, 0.002], NOISE, 0.002), X / 7)
