"""Laws of the process, exact: no training, no sampling, no tolerance but rounding.

For x0 ~ N(0, s2) everything is Gaussian with mean 0 and x_t has the variance V_t = abar_t s2 + 1 - abar_t, so the best
eps_hat is linear in x_t, every step is x_s = A x_t + C z, and the variance of what a sampler makes is a product of
known numbers. A and C are read off the step functions themselves, by feeding them (x_t, z) = (1, 0) and (0, 1).

A law is a function of the step it is asked about and returns by how much the step breaks it (0 is kept). Every law is
also shown a wrong step, which must break it visibly.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]   Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
"""
import itertools

import numpy as np
import pytest

from ref import diffusion, schedules

KEPT, BROKEN = 1e-12, 1e-3
BETAS = schedules.linear_betas(20, 0.01, 0.3)
ABAR = schedules.alpha_bar(BETAS)
SCHEDULES = {"linear": schedules.alpha_bar(schedules.linear_betas()),
             "cosine": schedules.alpha_bar(schedules.cosine_betas()), "short": ABAR}
SPREADS = [0.0, 0.3, 1.0, 4.0]  # s2: a point mass, narrow, the noise's own, wide


def small(xt, eps_hat, t, s, z, abar):
    return diffusion.ddpm_step(xt, eps_hat, t, s, z, abar, "small")


def large(xt, eps_hat, t, s, z, abar):
    return diffusion.ddpm_step(xt, eps_hat, t, s, z, abar, "large")


def ddim(eta):
    return lambda xt, eps_hat, t, s, z, abar: diffusion.ddim_step(xt, eps_hat, t, s, z, eta, abar)


# Wrong steps, each a mistake that people make.
WRONG = {
    "eps with the wrong sign": lambda step: lambda xt, e, t, s, z, abar: step(xt, -e, t, s, z, abar),
    "t taken for t - 1": lambda step: lambda xt, e, t, s, z, abar: step(xt, e, np.maximum(t - 1, s + 1), s, z, abar),
    "the whole noise": lambda step: lambda xt, e, t, s, z, abar: step(xt, e, t, s, 0 * z, abar) + z,
    "no noise": lambda step: lambda xt, e, t, s, z, abar: step(xt, e, t, s, 0 * z, abar),
    "a variance for a deviation": lambda step: lambda xt, e, t, s, z, abar: (
        step(xt, e, t, s, 0 * z, abar) + (step(xt, e, t, s, z, abar) - step(xt, e, t, s, 0 * z, abar)) ** 2),
    "away from the data": lambda step: lambda xt, e, t, s, z, abar: 2 * xt - step(xt, e, t, s, -z, abar),
}


def coefficients(step, t, s, abar, s2):
    """A and C of x_s = A x_t + C z with the best eps_hat = E[eps | x_t] = sqrt(1 - abar_t) / V_t x_t, for each of the
    steps from t[i] to s[i]: they are the examples of one batch."""
    one, nought = np.ones(len(t)), np.zeros(len(t))
    best = np.sqrt(1 - abar[t]) / spread(t, abar, s2)
    return step(one, best, t, s, nought, abar), step(nought, nought, t, s, one, abar)


def spread(t, abar, s2):
    """V_t, the variance of x_t."""
    return abar[t] * s2 + 1 - abar[t]


def variances(step, times, abar, s2):
    """The variance of a sampler's x at each of its times, begun at the exact V of the first."""
    made = [spread(times[0], abar, s2)]
    for A, C in zip(*coefficients(step, times[:-1], times[1:], abar, s2)):
        made.append(A**2 * made[-1] + C**2)
    return np.array(made)


def times_of(abar):
    T = abar.size - 1
    return {"every time": np.arange(T, -1, -1), "trailing": schedules.spaced_times(T, 7, "trailing"),
            "leading": schedules.spaced_times(T, 7, "leading"), "one step": np.array([T, 0])}


def worst_over_runs(law, step, **fixed):
    return max(law(step, times, abar, **fixed) for abar in SCHEDULES.values() for times in times_of(abar).values())


def law_of_exact_variances(step, times, abar, s2):
    """The run has V at every one of its times but the last, to which no noise is added."""
    return np.abs(variances(step, times, abar, s2)[:-1] / spread(times[:-1], abar, s2) - 1).max()


def test_beta_tilde_is_exact_for_a_point_mass_and_beta_for_unit_variance():
    assert worst_over_runs(law_of_exact_variances, small, s2=0.0) < KEPT
    assert worst_over_runs(law_of_exact_variances, large, s2=1.0) < KEPT


def test_beta_tilde_is_not_exact_for_unit_variance_nor_beta_for_a_point_mass():
    """[DDPM] section 3.2: between the two lies the truth; the small one makes too little, the large one too much."""
    assert worst_over_runs(law_of_exact_variances, small, s2=1.0) > BROKEN
    assert worst_over_runs(law_of_exact_variances, large, s2=0.0) > BROKEN
    for abar, s2 in itertools.product(SCHEDULES.values(), [0.3, 0.9]):
        times = times_of(abar)["every time"]
        truth = spread(times, abar, s2)
        assert np.all(variances(small, times, abar, s2)[1:-1] < truth[1:-1])
        assert np.all(variances(large, times, abar, s2)[1:-1] > truth[1:-1])


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_step_breaks_the_exact_variances(name):
    assert worst_over_runs(law_of_exact_variances, WRONG[name](small), s2=0.0) > BROKEN
    assert worst_over_runs(law_of_exact_variances, WRONG[name](large), s2=1.0) > BROKEN


def law_of_ddpm_variance(step, times, abar, s2, variance):
    """In closed form for any s2 and any times, with alpha = abar_t / abar_s. The mean is E[x_s | x_t], whose slope is
    sqrt(alpha) V_s / V_t; what is left of V_s beside it is V_s (1 - alpha V_s / V_t), and the step adds sigma^2
    instead. That excess reaches t = 0 times the squared product of the later slopes, which telescopes to abar_s (s2 /
    V_s)^2:

        Var(x_0) = s2 + sum over steps  abar_s (s2 / V_s)^2 (sigma^2 - V_s (1 - alpha V_s / V_t))
    """
    t, s = times[:-1], times[1:]
    alpha, Vt, Vs = abar[t] / abar[s], spread(t, abar, s2), spread(s, abar, s2)
    sigma2 = (1 - abar[s]) / (1 - abar[t]) * (1 - alpha) if variance == "small" else np.where(s > 0, 1 - alpha, 0)
    weight = abar[s] * s2**2 / np.where(s > 0, Vs, s2) ** 2
    expected = s2 + np.sum(weight * (sigma2 - Vs * (1 - alpha * Vs / Vt)))
    return abs(variances(step, times, abar, s2)[-1] - expected) / s2  # one step from abar_T = 2e-9 leaves 2e-9 of s2


@pytest.mark.parametrize("s2", SPREADS[1:])
def test_ddpm_output_variance_in_closed_form(s2):
    assert worst_over_runs(law_of_ddpm_variance, small, s2=s2, variance="small") < KEPT
    assert worst_over_runs(law_of_ddpm_variance, large, s2=s2, variance="large") < KEPT
    assert worst_over_runs(law_of_ddpm_variance, large, s2=s2, variance="small") > BROKEN  # swapped
    assert worst_over_runs(law_of_ddpm_variance, small, s2=s2, variance="large") > BROKEN
    for name, wrong in WRONG.items():
        assert worst_over_runs(law_of_ddpm_variance, wrong(small), s2=s2, variance="small") > BROKEN, name
        assert worst_over_runs(law_of_ddpm_variance, wrong(large), s2=s2, variance="large") > BROKEN, name


@pytest.mark.parametrize("step", [small, large, ddim(0.0), ddim(0.5), ddim(1.0)],
                         ids=["small", "large", "ddim 0", "ddim 0.5", "ddim 1"])
def test_a_point_mass_is_found_exactly(step):
    """s2 = 0: whatever the steps before, the last one lands on the point."""
    for abar in SCHEDULES.values():
        for times in times_of(abar).values():
            assert variances(step, times, abar, 0.0)[-1] < 1e-24


def test_ddim_is_a_product_of_cosines_and_of_first_order():
    """Unit variance: u_t is a unit vector at the angle arccos(sqrt(abar_t)), so the output variance is the product of
    cos^2 of the angles between the times. Twice the steps halve what is missing: the order of Euler's method, 1."""
    abar = SCHEDULES["cosine"]
    missing = []
    for steps in (25, 50, 100, 200, 400):
        times = schedules.spaced_times(1000, steps, "trailing")
        made = variances(ddim(0.0), times, abar, 1.0)[-1]
        assert abs(made / np.prod(np.cos(np.diff(np.arccos(np.sqrt(abar[times])))) ** 2) - 1) < KEPT
        missing.append(1 - made)
    slopes = np.diff(np.log2(missing))
    assert np.all(np.abs(slopes + 1) < 0.1), slopes


def law_of_inversion(step):
    """With the exact eps and eta = 0, a step from any t lands on `q_sample` of the same x0 and eps at any s < t."""
    x0, eps = np.array([[1.0, 0.0, 0.7]]), np.array([[0.0, 1.0, -1.3]])
    worst = 0.0
    for t, s in ((t, s) for t in range(1, 21) for s in range(t)):
        landed = step(diffusion.q_sample(x0, t, eps, ABAR), eps, t, s, np.zeros_like(x0), ABAR)
        worst = max(worst, np.abs(landed - diffusion.q_sample(x0, s, eps, ABAR)).max())
    return worst


def test_ddim_with_the_exact_eps_inverts_q_sample_at_any_s():
    assert law_of_inversion(ddim(0.0)) < KEPT
    assert law_of_inversion(ddim(0.5)) > BROKEN and law_of_inversion(small) > BROKEN  # they keep room for noise
    for name in ("eps with the wrong sign", "t taken for t - 1", "away from the data"):
        assert law_of_inversion(WRONG[name](ddim(0.0))) > BROKEN, name


def law_of_eta_1(step):
    """[DDIM] section 4.1: eta = 1 is the DDPM posterior step, for s = t - 1 and for any other s < t."""
    worst = 0.0
    for t, s in ((t, s) for t in range(1, 21) for s in range(t)):
        for xt, eps_hat, z in np.eye(3)[:, :, None, None]:  # 1 in one of them, 0 in the others
            x0_hat = diffusion.x0_from_eps(xt, eps_hat, t, ABAR)
            mean, variance = diffusion.posterior(x0_hat, xt, t, s, ABAR)
            worst = max(worst, np.abs(step(xt, eps_hat, t, s, z, ABAR) - (mean + np.sqrt(variance) * z)).max())
    return worst


def test_ddim_with_eta_1_is_the_ddpm_posterior_step():
    assert law_of_eta_1(ddim(1.0)) < KEPT and law_of_eta_1(small) < KEPT
    assert law_of_eta_1(large) > BROKEN and law_of_eta_1(ddim(0.9)) > BROKEN
    for name, wrong in WRONG.items():
        assert law_of_eta_1(wrong(ddim(1.0))) > BROKEN, name


def law_of_the_quiet_end(step):
    """No noise on a step to t = 0: C is 0 there, from every t; and A is the best guess of x0, sqrt(abar_t) s2 / V_t."""
    t, worst = np.arange(1, 21), 0.0
    for s2 in SPREADS:
        A, C = coefficients(step, t, 0 * t, ABAR, s2)
        worst = max(worst, np.abs(C).max(), np.abs(A - np.sqrt(ABAR[t]) * s2 / spread(t, ABAR, s2)).max())
    return worst


def noised_last(step):
    """The noise of the large variance on every step, the last too."""
    def noisy(xt, eps_hat, t, s, z, abar):
        return step(xt, eps_hat, t, s, 0 * z, abar) + np.sqrt(1 - abar[t] / abar[s]) * z
    return noisy


def test_the_last_step_ends_on_the_best_guess_of_x0():
    for step in (small, large, ddim(0.0), ddim(0.5), ddim(1.0)):
        assert law_of_the_quiet_end(step) < KEPT
        assert law_of_the_quiet_end(noised_last(step)) > BROKEN
        assert law_of_the_quiet_end(WRONG["eps with the wrong sign"](step)) > BROKEN
    # What the quiet end costs: unit-variance data come out with 1 - beta_1, not with 1
    abar = SCHEDULES["linear"]
    every = times_of(abar)["every time"]
    assert abs(variances(large, every, abar, 1.0)[-1] - (1 - 1e-4)) < KEPT
    assert abs(variances(noised_last(large), every, abar, 1.0)[-1] - 1) < KEPT


def law_of_composition(noising):
    """x_t from x_0 is x_t from x_s from x_0, in signal and in variance, for every s < t. From s on the process begins
    again with the betas after s."""
    one, nought = np.ones((1, 1)), np.zeros((1, 1))
    worst = 0.0
    for t, s in ((t, s) for t in range(1, 21) for s in range(1, t)):
        later = schedules.alpha_bar(BETAS[s:])
        signal = noising(noising(one, s, nought, ABAR), t - s, nought, later).item()
        variance = noising(noising(nought, s, one, ABAR), t - s, nought, later).item() ** 2 + noising(nought, t - s,
                                                                                                      one,
                                                                                                      later).item() ** 2
        worst = max(worst, abs(signal - noising(one, t, nought, ABAR).item()),
                    abs(variance - noising(nought, t, one, ABAR).item() ** 2))
    return worst


def test_q_sample_composes():
    assert law_of_composition(diffusion.q_sample) < KEPT
    assert law_of_composition(lambda x0, t, eps, abar: diffusion.q_sample(x0, t - 1, eps, abar)) > BROKEN  # off by one
    # variance for deviation
    assert law_of_composition(lambda x0, t, eps, abar: abar[t] ** 0.5 * x0 + (1 - abar[t]) * eps) > BROKEN
    assert law_of_composition(lambda x0, t, eps, abar: abar[t] * x0 + (1 - abar[t]) ** 0.5 * eps) > BROKEN  # no root
    # swapped
    assert law_of_composition(lambda x0, t, eps, abar: (1 - abar[t]) ** 0.5 * x0 + abar[t] ** 0.5 * eps) > BROKEN


def law_of_the_posterior(posterior):
    """q(x_s | x_t, x0) averaged over q(x_t | x0) is q(x_s | x0): mean sqrt(abar_s) x0, variance 1 - abar_s, every s <
    t."""
    one, nought = np.ones((1, 1)), np.zeros((1, 1))
    worst = 0.0
    for t, s in ((t, s) for t in range(1, 21) for s in range(t)):
        from_x0, variance = posterior(one, nought, t, s, ABAR)
        from_xt, _ = posterior(nought, one, t, s, ABAR)
        mean = from_x0.item() + from_xt.item() * np.sqrt(ABAR[t])
        worst = max(worst, abs(mean - np.sqrt(ABAR[s])),
                    abs(from_xt.item() ** 2 * (1 - ABAR[t]) + variance - (1 - ABAR[s])))
    return worst


def test_the_posterior_marginalises_to_the_forward_process():
    true = diffusion.posterior
    assert law_of_the_posterior(true) < KEPT
    assert law_of_the_posterior(lambda x0, xt, t, s, abar: true(xt, x0, t, s, abar)) > BROKEN  # swapped
    assert law_of_the_posterior(lambda x0, xt, t, s, abar: true(-x0, xt, t, s, abar)) > BROKEN
    # beta
    assert law_of_the_posterior(lambda x0, xt, t, s, abar: (true(x0, xt, t, s, abar)[0],
                                                            1 - abar[t] / abar[s])) > BROKEN
    assert law_of_the_posterior(lambda x0, xt, t, s, abar: (true(x0, xt, t, s, abar)[0],
                                                            true(x0, xt, t, s, abar)[1] ** 0.5)) > BROKEN
    assert law_of_the_posterior(lambda x0, xt, t, s, abar: true(x0, xt, t, max(s - 1, 0), abar)) > BROKEN  # off by one


def law_of_steps_in_a_row(step):
    """Where a step ends the next begins: deterministic DDIM with the exact eps reaches s by way of any u between."""
    x0, eps = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    nought, worst = np.zeros_like(x0), 0.0
    for t, u, s in itertools.combinations(range(20, -1, -1), 3):
        xt = diffusion.q_sample(x0, t, eps, ABAR)
        by_way_of_u = step(step(xt, eps, t, u, nought, ABAR), eps, u, s, nought, ABAR)
        worst = max(worst, np.abs(by_way_of_u - step(xt, eps, t, s, nought, ABAR)).max())
    return worst


def test_ddim_steps_compose():
    assert law_of_steps_in_a_row(ddim(0.0)) < KEPT
    for name in ("t taken for t - 1", "away from the data"):  # the wrong sign of eps composes just as well
        assert law_of_steps_in_a_row(WRONG[name](ddim(0.0))) > BROKEN, name
