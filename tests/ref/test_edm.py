"""EDM: preconditioning by hand and by its promise, conversions as inverses, and what is refused."""
import numpy as np
from hypothesis import given, strategies as st

from ref import diffusion, edm, schedules
from tests import assert_close

ABAR = schedules.alpha_bar(schedules.linear_betas(20, 0.01, 0.3))
LEVELS = st.floats(1e-3, 1e3)


def test_scalings_and_weight_by_hand():
    """sigma = 3, sigma_data = 4: the deviation of x is 5."""
    for ours, hand in zip(edm.scalings(3.0, 4.0), [16 / 25, 12 / 5, 1 / 5, np.log(3) / 4], strict=True):
        assert_close(ours, np.array(hand))
    assert_close(edm.loss_weight(3.0, 4.0), np.array(25 / 144))
    c_skip, c_out, c_in, c_noise = edm.scalings(np.array([[0.5], [1.0]]))  # the data's deviation is 0.5, table 1
    assert_close(c_skip, np.array([[0.5], [0.2]]))
    assert_close(c_out, np.array([[0.25 / 0.5**0.5], [0.5 / 1.25**0.5]]))
    assert_close(c_in, np.array([[0.5**-0.5], [1.25**-0.5]]))
    assert_close(c_noise, np.array([[np.log(0.5) / 4], [0.0]]))


@given(sigma=LEVELS, sigma_data=st.floats(0.1, 10))
def test_scalings_give_unit_variance(sigma, sigma_data):
    """x = x0 + sigma eps with independent parts, so its coefficients' squares add: what F reads is c_in x; what it must
    say, (x0 - c_skip x) / c_out. c_skip is the one that makes the second least amplified, [EDM] eq. 131."""
    c_skip, c_out, c_in, _ = edm.scalings(sigma, sigma_data)
    assert_close(c_in**2 * (sigma_data**2 + sigma**2), np.float64(1))
    x0_part, eps_part = (1 - c_skip) * sigma_data / c_out, c_skip * sigma / c_out
    assert abs(x0_part**2 + eps_part**2 - 1) < 1e-9  # 1 - c_skip cancels where sigma is small
    assert_close(edm.loss_weight(sigma, sigma_data) * c_out**2, np.float64(1))
    for other in (c_skip * 0.99, c_skip * 1.01):
        assert ((1 - other) * sigma_data) ** 2 + (other * sigma) ** 2 > c_out**2 * (1 - 1e-9)


def test_scalings_make_the_best_denoiser_out_of_nothing():
    """F = 0 leaves c_skip x, the best guess for Gaussian data of that deviation."""
    sigma = np.array([0.1, 1.0, 10.0])
    assert_close(edm.scalings(sigma, 2.0)[0], 4 / (4 + sigma**2))


def test_sigma_and_abar_by_hand():
    assert_close(edm.sigma_from_abar([0.64, 0.5, 0.36]), np.array([3 / 4, 1, 4 / 3]))
    assert_close(edm.abar_from_sigma([3 / 4, 1, 4 / 3]), np.array([0.64, 0.5, 0.36]))
    assert edm.sigma_from_abar([1.0, 0.0]).tolist() == [0.0, np.inf]
    assert edm.abar_from_sigma([0.0, np.inf]).tolist() == [1.0, 0.0]


@given(sigma=LEVELS)
def test_sigma_and_abar_are_inverses(sigma):
    abar = edm.abar_from_sigma(sigma)
    assert abs(edm.sigma_from_abar(abar) / sigma - 1) < 1e-9  # 1 - abar has lost what sigma^2 has below rounding
    assert_close(edm.abar_from_sigma(edm.sigma_from_abar(abar)), abar)
    assert_close(schedules.snr(abar), np.array(sigma**-2.0), rel=1e-9)


def test_sigma_at_and_time_at_by_hand():
    """sigma = 0, 3/4, 4/3 at t = 0, 1, 2; straight lines between."""
    abar = [1, 0.64, 0.36]
    assert_close(edm.sigma_at([0, 0.5, 1, 1.5, 2], abar), np.array([0, 3 / 8, 3 / 4, 25 / 24, 4 / 3]))
    assert_close(edm.time_at([0, 3 / 8, 3 / 4, 25 / 24, 4 / 3], abar), np.array([0, 0.5, 1, 1.5, 2]), scale=1.0)


@given(t=st.floats(0, 20))
def test_sigma_at_and_time_at_are_inverses(t):
    sigma = edm.sigma_at(t, ABAR)
    assert sigma.shape == () and abs(edm.time_at(sigma, ABAR) - t) < 1e-13 * 20
    whole = round(t)
    assert edm.sigma_at(whole, ABAR) == edm.sigma_from_abar(ABAR[whole])
    assert edm.time_at(edm.sigma_from_abar(ABAR[whole]), ABAR) == whole


@given(sigma=st.floats(0, 1))
def test_time_at_and_sigma_at_are_inverses(sigma):
    sigma = sigma * edm.sigma_from_abar(ABAR[-1])
    assert abs(edm.sigma_at(edm.time_at(sigma, ABAR), ABAR) - sigma) < 1e-13 * edm.sigma_from_abar(ABAR[-1])


def test_vp_and_ve_by_hand():
    """sqrt(1 + sigma^2) is 5/4 and 5/3."""
    x, sigma = np.array([[5.0, 10.0], [-5.0, 2.5]]), np.array([3 / 4, 4 / 3])
    assert_close(edm.vp_from_ve(x, sigma), np.array([[4.0, 8.0], [-3.0, 1.5]]))
    assert_close(edm.ve_from_vp(np.array([[4.0, 8.0], [-3.0, 1.5]]), sigma), x)
    assert_close(edm.vp_from_ve(x, 0.75), np.array([[4.0, 8.0], [-4.0, 2.0]]))


@given(seed=st.integers(0, 2**32 - 1))
def test_vp_and_ve_are_inverses_and_hold_the_same_data_and_noise(seed):
    """B equals the last axis, so that a sigma along the wrong one would not raise."""
    rng = np.random.default_rng(seed)
    x0, eps = rng.standard_normal((2, 4, 3, 4))
    t = rng.integers(0, 21, 4)
    sigma = edm.sigma_from_abar(ABAR[t])
    x = x0 + sigma[:, None, None] * eps
    xt = edm.vp_from_ve(x, sigma)
    assert np.abs(xt - diffusion.q_sample(x0, t, eps, ABAR)).max() < 1e-13
    assert np.abs(edm.ve_from_vp(xt, sigma) - x).max() < 1e-13
