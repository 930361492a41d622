"""Laws of samplers by what the model predicts, of inversion, and of ancestral sampling: exact, without training."""
import numpy as np
import pytest
from hypothesis import given, strategies as st

from ref import diffusion, dpm_solver, edm, guidance, samplers, schedules
from tests import assert_close
from tests.ref import ABAR, BY_TIME, by_time
from tests.laws.test_samplers import best_eps, best_x0, spread, variance

RNG = np.random.default_rng(7)
X, NOISE = RNG.standard_normal((2, 3)), RNG.standard_normal((9, 2, 3))
TIMES = [20, 14, 9, 5, 2, 0]
ZERO = schedules.zero_terminal_snr(ABAR)


def eps_model(x, t):
    return np.tanh(0.8 * x) + 0.02 * t


def as_x0(abar):
    return lambda x, t: diffusion.x0_from_eps(x, eps_model(x, t), t, abar)


def as_v(abar):
    return lambda x, t: diffusion.v_target(as_x0(abar)(x, t), eps_model(x, t), t, abar)


@pytest.mark.parametrize("name", BY_TIME)
def test_what_is_predicted_does_not_matter(name):
    """One model in three parametrisations makes one sample."""
    by_eps = BY_TIME[name](eps_model, X, TIMES, NOISE, ABAR)
    for predict, model in (("x0", as_x0(ABAR)), ("v", as_v(ABAR))):
        other = BY_TIME[name](model, X, TIMES, NOISE, ABAR, predict=predict)
        np.testing.assert_allclose(other, by_eps, rtol=1e-10, atol=1e-11)
        assert np.abs(BY_TIME[name](model, X, TIMES, NOISE, ABAR) - by_eps).max() > 1e-3
    with pytest.raises(ValueError, match=r"\bpredict\b"):
        BY_TIME[name](eps_model, X, TIMES, NOISE, ABAR, predict="score")


def point(x0, abar, predict):
    """The perfect model of data that are one point."""
    return (lambda x, t: 0 * x + x0) if predict == "x0" else lambda x, t: diffusion.v_target(
        0 * x + x0, diffusion.eps_from_x0(x, 0 * x + x0, t, abar), t, abar)


@pytest.mark.parametrize("predict", ["x0", "v"])
@pytest.mark.parametrize("name", BY_TIME)
def test_zero_terminal_snr_is_sampled_from_T(name, predict):
    """From pure noise, where abar[T] = 0: a point is found exactly, and Gaussian data nearly, by every sampler."""
    end = BY_TIME[name](point(0.7, ZERO, predict), X, TIMES, NOISE, ZERO, predict=predict)
    np.testing.assert_allclose(end, 0.7, rtol=1e-12)
    with pytest.raises(ValueError, match=r"\babar\b"):
        BY_TIME[name](eps_model, X, TIMES, NOISE, ZERO)


def test_the_first_step_of_zero_terminal_snr_by_hand():
    """abar = (1, 0.64, 0): x_T is noise, so x_1 = 0.8 x0_hat + 0.6 x_T, and DDPM's mean is 0.8 x0_hat."""
    abar, one = np.array([1, 0.64, 0.0]), np.ones((1, 1))
    assert_close(diffusion.ddim_step_x0(3 * one, 0.5 * one, 2, 1, None, 0.0, abar), 2.2 * one)
    assert_close(diffusion.ddpm_step_x0(3 * one, 0.5 * one, 2, 1, 2 * one, abar), (0.4 + 1.2) * one)
    assert_close(dpm_solver.dpmpp_2m_step(3 * one, 0.5 * one, None, None, 2, 1, abar), 2.2 * one)
    assert_close(dpm_solver.dpmpp_2m_sde_step(3 * one, 0.5 * one, None, None, 2, 1, 2 * one, abar), 1.6 * one)


# --- guidance ---------------------------------------------------------------------------------------------------------


def guided(w, low=-np.inf, high=np.inf, only=slice(None)):
    """A model with guidance of `eps_model`, which sees no label, and one that does."""
    label = np.array([[0.5], [-1.0]])[only]
    return lambda x, t: guidance.guide(eps_model(x, t), eps_model(x, t) + 0.3 * label * np.cos(x),
                                       guidance.interval_weight(w, t, low, high))


@pytest.mark.parametrize("name", BY_TIME)
def test_guidance_in_an_interval_and_for_each_example(name):
    """w = 1 is the conditional model, and so is an empty interval; one that covers all is plain guidance; each example
    is what it is alone with its weight."""
    sample = lambda model, x=X, noise=NOISE: BY_TIME[name](model, x, TIMES, noise, ABAR)
    conditional, plain = sample(guided(1.0)), sample(guided(4.0))
    for empty in ((9, 9), (5, 8), (20, 99)):
        np.testing.assert_array_equal(sample(guided(4.0, *empty)), conditional)
    np.testing.assert_array_equal(sample(guided(4.0, 0, 20)), plain)
    some = sample(guided(4.0, 4, 9))  # of the times 9 and 5
    assert np.abs(some - plain).max() > 1e-2 and np.abs(some - conditional).max() > 1e-2
    w = np.array([4.0, -1.0])
    for low, high in ((0, 20), (4, 9)):
        together = sample(guided(w, low, high))
        for i in range(2):
            one = slice(i, i + 1)
            np.testing.assert_array_equal(together[one], sample(guided(w[one], low, high, one), X[one], NOISE[:, one]))


# --- inversion --------------------------------------------------------------------------------------------------------


def round_trip(model, n, iterations, predict="eps", abar=ABAR):
    up = np.unique(np.linspace(0, abar.size - 1, n + 1).astype(int))
    noise = samplers.ddim_invert(model, X, up, abar, iterations, predict)
    return np.abs(samplers.ddim(model, noise, up[::-1], None, 0, abar, predict=predict) - X).max()


@given(seed=st.integers(0, 2**32 - 1), t=st.integers(0, 18), ahead=st.integers(1, 2))
def test_an_inverse_step_undoes_the_step(seed, t, ahead):
    x, eps_hat = np.random.default_rng(seed).standard_normal((2, 2, 3))
    there = diffusion.ddim_inverse_step(x, eps_hat, t, t + ahead, ABAR)
    back = diffusion.ddim_step(there, eps_hat, t + ahead, t, None, 0.0, ABAR)
    assert np.all(np.abs(back - x) <= 1e-14 * (np.abs(x) + np.abs(eps_hat)))


@pytest.mark.parametrize("predict, model", [("eps", eps_model), ("x0", as_x0(ABAR)), ("v", as_v(ABAR))])
def test_inversion_to_its_fixed_point_is_exact(predict, model):
    assert round_trip(model, 20, 60, predict) < 1e-12
    assert round_trip(model, 20, 1, predict) > 1e-3


def test_inversion_with_one_call_is_of_the_first_order():
    """Twice the steps, half the error."""
    abar = schedules.alpha_bar(schedules.linear_betas(640, 1e-4, 0.02 * 1000 / 640))
    errors = [round_trip(lambda x, t: np.tanh(0.8 * x), n, 1, abar=abar) for n in (80, 160, 320)]
    assert all(1.7 < one / two < 2.3 for one, two in zip(errors, errors[1:]))


def test_inversion_refuses():
    for wrong in ([5, 2, 0], [0, 0, 3], [0, 21], [0.0, 3.0]):
        with pytest.raises(ValueError, match=r"\btimes\b"):
            samplers.ddim_invert(eps_model, X, wrong, ABAR)
    with pytest.raises(ValueError, match=r"\biterations\b"):
        samplers.ddim_invert(eps_model, X, [0, 3], ABAR, 0)
    with pytest.raises(ValueError, match=r"\bpredict\b"):
        samplers.ddim_invert(eps_model, X, [0, 3], ABAR, predict="mu")
    with pytest.raises(ValueError, match=r"\bs\b"):
        diffusion.ddim_inverse_step(X, X, 3, 3, ABAR)
    with pytest.raises(ValueError, match=r"abar\[t\]"):
        diffusion.ddim_inverse_step(X, X, 1, 2, [1, 0, 0])


# --- ancestral sampling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_an_ancestral_step_by_level_is_ddims(eta):
    """Of the same data, noise and times."""
    for t, s in ((20, 13), (5, 4), (2, 0)):
        level = lambda time: edm.sigma_from_abar(ABAR[time])
        x0_hat, xt = as_x0(ABAR)(X, t), X
        ours = edm.ancestral_step(edm.ve_from_vp(xt, level(t)), x0_hat, level(t), level(s), NOISE[0], eta)
        by_time_ = edm.ve_from_vp(diffusion.ddim_step_x0(xt, x0_hat, t, s, NOISE[0], eta, ABAR), level(s))
        np.testing.assert_allclose(ours, by_time_, rtol=1e-12)


@pytest.mark.parametrize("s2", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_variance_of_ancestral_sampling_is_exact(eta, s2):
    """Of Gaussian data: from each level to the next  V <- (up s2 / (s2 + sigma^2) + down)^2 V + sigma_up^2."""
    sigmas = [9.0, 4.0, 1.5, 0.4, 0.0]
    ought = s2 + sigmas[0] ** 2
    for sigma, following in zip(sigmas, sigmas[1:]):
        added = eta**2 * following**2 * (sigma**2 - following**2) / sigma**2
        down = np.sqrt(following**2 - added) / sigma
        ought = ((1 - down) * s2 / (s2 + sigma**2) + down) ** 2 * ought + added
    model = best_x0(s2)
    made = variance(lambda x, z: samplers.euler_ancestral(model, x, sigmas, z, eta), 4, s2 + sigmas[0] ** 2)
    assert abs(made / ought - 1) < 1e-12
    if eta == 1:  # the exact posterior of a point: V is sigma_next^2 at every level
        held = variance(lambda x, z: samplers.euler_ancestral(lambda x, sigma: 0 * x, x, sigmas[:4], z), 3, 81.0)
        assert abs(held / sigmas[3] ** 2 - 1) < 1e-12


def test_ancestral_sampling_without_noise_is_euler_and_the_last_noise_is_ignored():
    model, sigmas = best_x0(0.5), [8.0, 2.0, 0.5, 0.0]
    np.testing.assert_allclose(samplers.euler_ancestral(model, X, sigmas, None, 0), samplers.euler(model, X, sigmas),
                               rtol=1e-13)
    whole = samplers.euler_ancestral(model, X, sigmas, [*NOISE[:2], np.full_like(X, np.nan)])
    np.testing.assert_array_equal(whole, samplers.euler_ancestral(model, X, sigmas, NOISE[:2]))
    with pytest.raises(ValueError, match=r"\bnoise\b"):
        samplers.euler_ancestral(model, X, sigmas, NOISE[:1])
    for eta in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"\beta\b"):
            samplers.euler_ancestral(model, X, sigmas, NOISE, eta)
    for levels in ((1.0, 1.0), (1.0, 2.0), (np.inf, 1.0), (1.0, -0.1)):
        with pytest.raises(ValueError, match=r"\bsigma_next\b"):
            edm.ancestral_step(X, X, *levels, X)


def test_the_sde_solver_of_the_first_order_is_ddpm():
    one_step = by_time(samplers.dpmpp_2m_sde)
    for times in ([20, 9], [9, 0], [20, 9, 0]):
        ours, ddpm = (sampler(eps_model, X, times, NOISE, ABAR) for sampler in (one_step, BY_TIME["ddpm small"]))
        np.testing.assert_allclose(ours, ddpm, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("s2", [0.3, 1.0, 4.0])
def test_the_variance_of_the_sde_solver_is_exact(s2):
    """Of Gaussian data, step by step with x_t and the last x0_hat as the state; the noise added is beta tilde, exactly
    what a point needs."""
    times = [20, 15, 11, 6, 2, 0]
    a, state = ABAR[times], np.diag([spread(ABAR[20], s2), 0.0])  # the covariance of x_t and x0_last
    for i, (t, s) in enumerate(zip(a, a[1:])):
        slope = np.sqrt(t) * s2 / spread(t, s2)
        half = 0.0
        if 0 < i < len(times) - 2:
            h, h_last = (np.log(q / (1 - q)) - np.log(p / (1 - p)) for p, q in ((t, s), (a[i - 1], t)))
            half = h / h_last / 2
        beta = (s - t) / s
        of_x, of_x0 = np.sqrt(t / s) * (1 - s) / (1 - t), np.sqrt(s) * beta / (1 - t)
        step = np.array([[of_x + of_x0 * (1 + half) * slope, -of_x0 * half], [slope, 0.0]])
        state = step @ state @ step.T + np.diag([(1 - s) / (1 - t) * beta, 0.0])
    made = variance(lambda x, z: samplers.dpmpp_2m_sde(best_eps(ABAR, s2), x, times, z, ABAR), 5, spread(ABAR[20], s2))
    assert abs(made / state[0, 0] - 1) < 1e-11


@pytest.mark.parametrize("s2", [0.3, 1.0, 4.0])
def test_the_sde_solver_is_of_the_second_order_in_the_variance(s2):
    """Four times the steps, an eighth of the error at most, where DDPM's falls by four."""
    abar = schedules.alpha_bar(schedules.linear_betas(640, 1e-4, 0.03))

    def off(sampler, n):
        times = np.arange(n, -1, -1) * (640 // n)
        made = variance(lambda x, z: sampler(best_eps(abar, s2), x, times, z, abar), n, spread(abar[-1], s2))
        return abs(made / s2 - 1)

    few, many = (off(samplers.dpmpp_2m_sde, n) for n in (160, 640))
    assert many < few / 8 and many < off(samplers.ddpm, 640) / 8 and off(samplers.ddpm, 160) / 8 < off(
        samplers.ddpm, 640)
