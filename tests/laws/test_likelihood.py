"""Laws of probability, exact: the levels of a discretised Gaussian add up, the variational bound of the exact model is
tight, the SDEs and their two ways back carry the variance, and the ODE finds the density of Gaussian data.

No training, no sampling. A law is a function of what it is asked about and returns by how much that breaks it; every
law is also shown something wrong, which must break it visibly.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [SDE]    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
"""
import math

import numpy as np
import pytest

from ref import diffusion, objectives, schedules, sde

KEPT, BROKEN = 1e-12, 1e-3
LEVELS = 2 * np.arange(256) / 255 - 1

TRUE = objectives.discretized_gaussian_log_likelihood


def erf_between(low, high, mean, log_scale):
    deviation = 2**0.5 * math.exp(log_scale)
    return 0.5 * (math.erf((high - mean) / deviation) - math.erf((low - mean) / deviation))


def logs(p):
    return np.log(np.maximum(p, 1e-300))


WRONG_LIKELIHOODS = {
    "ends of one bin's width": lambda x, m, s: logs(np.vectorize(erf_between)(x - 1 / 255, x + 1 / 255, m, s)),
    "bins of 1/256": lambda x, m, s: logs(
        np.vectorize(erf_between)(np.where(x == -1, -9, x - 1 / 256), np.where(x == 1, 9, x + 1 / 256), m, s)),
    "the density times the width": lambda x, m, s: (
        -0.5 * ((x - m) * np.exp(-s)) ** 2 - s - 0.5 * np.log(2 * np.pi) + np.log(2 / 255)),
    "a density": lambda x, m, s: TRUE(x, m, s) - np.log(2 / 255),
    "one step to the left": lambda x, m, s: np.where(x == 1, TRUE(x, m, s), TRUE(np.maximum(x - 2 / 255, -1), m, s)),
}
GAUSSIANS = [(mean, log_scale) for mean in (-3.0, -1.0, -0.31, 0.0, 0.5, 1.7)
             for log_scale in (-9.0, -5.5, -4.0, -2.0, 0.0, 3.0)]


def law_of_total_probability(likelihood):
    """The 256 probabilities add to 1, wherever the mean is and whatever the deviation."""
    worst = 0.0
    for mean, log_scale in GAUSSIANS:
        p = np.exp(likelihood(LEVELS, np.full(256, mean), np.full(256, log_scale)))
        worst = max(worst, abs(math.fsum(p) - 1))
    return worst


def test_the_levels_add_to_1():
    assert law_of_total_probability(TRUE) < KEPT
    for name, wrong in WRONG_LIKELIHOODS.items():
        assert law_of_total_probability(wrong) > BROKEN, name


def law_of_added_bins(likelihood):
    """The bins of levels 0 to K together are the half line below K's upper end, which is the bin of level 0 for a mean
    moved down by K levels. In logarithms, so it holds 1e4 deviations away, where every probability underflows."""
    worst = 0.0
    for mean, log_scale in GAUSSIANS:
        logp = likelihood(LEVELS, np.full(256, mean), np.full(256, log_scale))
        for K in (1, 2, 60, 254):
            together = np.logaddexp.reduce(logp[:K + 1])
            half_line = likelihood(LEVELS[:1], np.array([mean - 2 * K / 255]), np.array([log_scale]))[0]
            worst = max(worst, abs(together - half_line) / (1 + abs(half_line)))
    return worst


def test_bins_add_up_in_the_far_tails_too():
    assert law_of_added_bins(TRUE) < KEPT
    # any factor, a density's too, adds up
    for name in ("ends of one bin's width", "bins of 1/256", "the density times the width"):
        assert law_of_added_bins(WRONG_LIKELIHOODS[name]) > BROKEN, name


ABAR = schedules.alpha_bar(schedules.linear_betas(20, 0.01, 0.3))
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
INNER = LEVELS[[30, 100, 128, 201, 240]]


def exact_step(xt, t, s, s2):
    """Mean and log-variance of q(x_s | x_t) for x0 ~ N(0, s2): with alpha = abar_t / abar_s and V the variances of x_t
    and x_s, the slope is sqrt(alpha) V_s / V_t, and V_s (1 - alpha V_s / V_t) is left."""
    alpha, Vt, Vs = ABAR[t] / ABAR[s], ABAR[t] * s2 + 1 - ABAR[t], ABAR[s] * s2 + 1 - ABAR[s]
    return np.sqrt(alpha) * Vs / Vt * xt, np.full(xt.shape, np.log(Vs * (1 - alpha * Vs / Vt)))


def bound(x0, s2, times, model=exact_step, terms=objectives.vlb_terms, prior=objectives.vlb_prior):
    """The variational bound at one x0, in bits, each term's mean over q(x_t | x0) by quadrature in place of a draw."""
    x = np.full((40, 1), x0)
    total = prior(x, ABAR)[0]
    for t, s in zip(times, times[1:]):
        xt = diffusion.q_sample(x, t, NODES[:, None], ABAR)
        total += WEIGHTS @ terms(x, xt, t, s, *model(xt, t, s, s2), ABAR)
    return total


def surprise(x0, variance):
    """-log2 of the probability that N(0, variance) gives to the bin of x0."""
    return -math.log2(erf_between(x0 - 1 / 255 if x0 > -1 else -np.inf, x0 + 1 / 255
                                  if x0 < 1 else np.inf, 0.0, math.log(variance) / 2))


def law_of_the_tight_bound(**wrong):
    """Unit variance: every step of the exact model is Gaussian and x_T is N(0, 1), so the bound misses nothing but that
    q noises x0 and the model anything in its bin, 1e-7 bits here. Any times do, not only neighbours."""
    gaps = [bound(x0, 1.0, times, **wrong) - surprise(x0, 1.0) for x0 in INNER
            for times in (range(20, -1, -1), (20, 13, 4, 1, 0))]
    return max(gaps), min(gaps)


def test_the_bound_of_the_exact_model_is_its_likelihood():
    most, least = law_of_the_tight_bound()
    assert -1e-12 < least and most < 1e-6
    true_terms, true_prior = objectives.vlb_terms, objectives.vlb_prior
    for name, wrong in {
        "no prior": dict(prior=lambda x, abar: 0 * true_prior(x, abar)),
        "half a prior": dict(prior=lambda x, abar: true_prior(x, abar) / 2),
        "nats": dict(terms=lambda *a: true_terms(*a) * np.log(2)),
        "KL without its half": dict(terms=lambda x0, xt, t, s, *a: true_terms(x0, xt, t, s, *a) * (1 if s == 0 else 2)),
        "no decoder": dict(terms=lambda x0, xt, t, s, *a: true_terms(x0, xt, t, s, *a) * (s > 0)),
        "the small variance": dict(model=lambda xt, t, s, s2: (
            exact_step(xt, t, s, s2)[0], objectives.learned_logvar(0 * xt, t, s, ABAR))),
        "a deviation for the variance": dict(model=lambda *a: (exact_step(*a)[0], exact_step(*a)[1] / 2)),
        "a mean not shrunk": dict(model=lambda xt, t, s, s2: (xt, exact_step(xt, t, s, s2)[1])),
    }.items():
        most, least = law_of_the_tight_bound(**wrong)
        assert most > BROKEN or least < -BROKEN, name


def test_the_large_variance_is_exact_for_unit_data_and_learned_as_v_1():
    for t, s in ((20, 13), (7, 6), (4, 0)):
        learned = objectives.learned_logvar(np.ones((1, 1)), t, s, ABAR)
        np.testing.assert_allclose(learned, exact_step(np.zeros((1, 1)), t, s, 1.0)[1], rtol=1e-12)


def model_variance(times, s2):
    """The variance of x0 under the model, from x_T ~ N(0, 1), by the linear recursion of its steps."""
    variance = 1.0
    for t, s in zip(times, times[1:]):
        slope, logvar = exact_step(np.ones((1, 1)), t, s, s2)
        variance = slope.item() ** 2 * variance + np.exp(logvar.item())
    return variance


@pytest.mark.parametrize("s2", [0.1, 0.3, 1.0, 2.0])
def test_the_bound_is_above_the_likelihood_at_every_level(s2):
    """At any x0, the open bins among them, and any s2; where x_T is not N(0, 1) it is strictly above."""
    times = range(20, -1, -1)
    for x0 in [-1.0, *INNER, 1.0]:
        gap = bound(x0, s2, times) - surprise(x0, model_variance(times, s2))
        assert gap > (-1e-12 if s2 == 1 else 0), (x0, gap)


TIMES = [0.003, 0.1, 0.37, 0.5, 0.99]
SDES = {"vp": (sde.vp_drift, sde.vp_diffusion, sde.vp_marginal),
        "ve": (sde.ve_drift, sde.ve_diffusion, sde.ve_marginal)}


def slope_in_t(f, t):
    return np.imag(f(t + 1e-30j)) / 1e-30


def spread(kind, t, s2):
    mean, std = SDES[kind][2](t)
    return mean**2 * s2 + std**2


def rate(kind, t):
    """The drift is linear, f = rate x; and g."""
    drift, diffusion_of, _ = SDES[kind]
    return drift(np.ones((1, 1)), t).item(), diffusion_of(t)


def law_of_moments(kind, marginal=None, g_of=lambda g: g):
    """d mean / dt = rate mean,  d std^2 / dt = 2 rate std^2 + g^2, from mean 1 and std 0 at t = 0."""
    marginal = marginal or SDES[kind][2]
    worst = max(abs(marginal(0.0)[0] - 1), abs(marginal(0.0)[1]))
    for t in TIMES:
        (mean, std), (k, g) = marginal(t), rate(kind, t)
        worst = max(worst, abs(slope_in_t(lambda t: marginal(t)[0], t) - k * mean) / (1 + abs(k)),
                    abs(slope_in_t(lambda t: marginal(t)[1] ** 2, t) - 2 * k * std**2 - g_of(g) ** 2) / g**2)
    return worst


@pytest.mark.parametrize("kind", SDES)
def test_the_marginals_solve_the_sde(kind):
    true = SDES[kind][2]
    assert law_of_moments(kind) < KEPT
    assert law_of_moments(kind, lambda t: (true(t)[0], true(t)[1] ** 2)) > BROKEN  # a variance for a deviation
    assert law_of_moments(kind, g_of=lambda g: g**0.5) > BROKEN
    if kind == "vp":
        assert law_of_moments(kind, lambda t: (true(t)[0] ** 2, true(t)[1])) > BROKEN
    else:
        # the kernel of the paper's code: noise in the data
        assert law_of_moments(kind, lambda t: (true(t)[0], 0.01 * 5000**t)) > BROKEN


def law_of_the_way_back(kind, back, noise):
    """Along dx = k x dt (+ g dw backwards in time) the variance has dV/dt = 2 k V - noise g^2, with noise 1 for the
    reverse SDE and 0 for the ODE. It has to be the V of the way there, at every t, for the exact score -x / V."""
    worst = 0.0
    for s2 in (0.1, 1.0, 4.0):
        for t in TIMES:
            (k, g), V = rate(kind, t), spread(kind, t, s2)
            k_back = back(np.full((1, 1), k), g, np.full((1, 1), -1 / V)).item()
            worst = max(worst, abs(slope_in_t(lambda t: spread(kind, t, s2),
                                              t) - (2 * k_back * V - noise * g**2)) / g**2)
    return worst


@pytest.mark.parametrize("kind", SDES)
def test_the_reverse_sde_and_the_ode_carry_the_variance_back(kind):
    assert law_of_the_way_back(kind, sde.reverse_drift, 1) < KEPT
    assert law_of_the_way_back(kind, sde.probability_flow_drift, 0) < KEPT
    assert law_of_the_way_back(kind, sde.reverse_drift, 0) > BROKEN  # one's drift with the other's noise
    assert law_of_the_way_back(kind, sde.probability_flow_drift, 1) > BROKEN
    for true, noise in ((sde.reverse_drift, 1), (sde.probability_flow_drift, 0)):
        assert law_of_the_way_back(kind, lambda f, g, score: true(f, g, -score), noise) > BROKEN
        assert law_of_the_way_back(kind, lambda f, g, score: true(f, g**0.5, score), noise) > BROKEN
        if kind == "vp":
            assert law_of_the_way_back(kind, lambda f, g, score: true(-f, g, score), noise) > BROKEN


S2 = np.array([0.3, 1.0, 4.0])
X = np.array([[0.2, -1.1, 3.0], [-0.7, 0.4, 0.0], [2.0, 0.1, -5.0]])
SIGNS = np.array([[1.0, -1, 1], [-1, -1, 1], [1, 1, 1]])
EXACT = np.sum(-0.5 * X**2 / S2 - 0.5 * np.log(2 * np.pi * S2), axis=1)


def gaussian_flow(kind, flow=sde.probability_flow_drift):
    """The ODE's drift for data N(0, diag(S2)), and its Jacobian, which is diagonal, times a probe."""
    def drift_jvp(x, t, probe):
        (k, g), V = rate(kind, t), spread(kind, t, S2)
        return flow(k * x, g, -x / V), flow(k * probe, g, -probe / V)
    return drift_jvp


def off_by(kind, steps, flow=sde.probability_flow_drift, prior=lambda V: V):
    """|log_likelihood - the density of N(0, diag(S2))|. Each element its own scale at t = 1, so x is brought to the
    scale of one:
    y = x sqrt(V_1 of the first / V_1), whose density is that of x over the product of the scales."""
    times = np.linspace(0, 1, steps + 1)
    scale = np.sqrt(spread(kind, 1.0, S2)[0] / spread(kind, 1.0, S2))
    inner = gaussian_flow(kind, flow)

    def drift_jvp(y, t, probe):
        f, jp = inner(y / scale, t, probe / scale)
        return scale * f, scale * jp

    got = sde.log_likelihood(drift_jvp, X * scale, times, SIGNS,
                             np.sqrt(prior(spread(kind, 1.0, S2)[0]))) + np.sum(np.log(scale))
    return np.abs(got - EXACT).max()


def test_the_density_of_gaussian_data_is_exact_and_of_fourth_order():
    for kind, enough in (("vp", 1200), ("ve", 2400)):
        slopes = np.diff(np.log2([off_by(kind, steps) for steps in (40, 80, 160)]))
        assert np.all(np.abs(slopes + 4) < 0.25), slopes
        assert off_by(kind, enough) < 1e-10


@pytest.mark.parametrize("kind", SDES)
def test_a_wrong_flow_or_prior_finds_another_density(kind):
    assert off_by(kind, 40, sde.reverse_drift) > BROKEN
    assert off_by(kind, 40, lambda f, g, score: sde.probability_flow_drift(f, g, -score)) > BROKEN
    assert off_by(kind, 40, lambda f, g, score: sde.probability_flow_drift(f, g**0.5, score)) > BROKEN
    assert off_by(kind, 40, prior=lambda V: V**2 if kind == "ve" else 2 * V) > BROKEN


def test_data_of_unit_variance_stand_still_under_vp():
    """f = -beta x / 2 and the score -x cancel: nothing moves, and one step is as exact as any."""
    def drift_jvp(x, t, probe):
        k, g = rate("vp", t)
        return sde.probability_flow_drift(k * x, g, -x), sde.probability_flow_drift(k * probe, g, -probe)
    got = sde.log_likelihood(drift_jvp, X, [0.0, 1.0], SIGNS)
    np.testing.assert_allclose(got, np.sum(-0.5 * X**2 - 0.5 * np.log(2 * np.pi), axis=1), rtol=1e-14)


def test_correlated_data_need_every_probe_and_are_exact_with_them():
    """Covariance C, no axis its own: probes of +-1 give the trace and twice a sum of off-diagonals; sqrt(D) e_i, one
    run each, give the trace."""
    C = np.array([[1.0, 0.6, 0.2], [0.6, 0.8, -0.1], [0.2, -0.1, 0.5]])
    mean1, std1 = sde.vp_marginal(1.0)
    V1 = mean1**2 * C + std1**2 * np.eye(3)
    back = np.linalg.inv(np.linalg.cholesky(V1))  # y = back x has covariance I at t = 1

    def drift_jvp(y, t, probe):
        (k, g), (mean, std) = rate("vp", t), sde.vp_marginal(t)
        J = back @ (k * np.eye(3) + g**2 / 2 * np.linalg.inv(mean**2 * C + std**2 * np.eye(3))) @ np.linalg.inv(back)
        return y @ J.T, probe @ J.T

    times, y, bases = np.linspace(0, 1, 401), X @ back.T, np.sqrt(3) * np.eye(3)
    exact = -0.5 * np.sum(X @ np.linalg.inv(C) * X, axis=1) - 0.5 * np.linalg.slogdet(2 * np.pi * C)[1]
    runs = sde.log_likelihood(drift_jvp, np.repeat(y, 3, axis=0), times, np.tile(bases, (3, 1))).reshape(3, 3)
    jacobian = np.linalg.slogdet(back)[1]
    np.testing.assert_allclose(runs.mean(axis=1) + jacobian, exact, rtol=1e-8)
    assert np.abs(runs - runs.mean(axis=1, keepdims=True)).max() > BROKEN  # one basis vector is not enough
    assert np.abs(sde.log_likelihood(drift_jvp, y, times, SIGNS) + jacobian - exact).max() > BROKEN
