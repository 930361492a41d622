"""Laws of whole samplers, exact: no training, no sampling, no tolerance but rounding.

For x0 ~ N(0, s2) the best model is linear, so what a sampler makes is A x_T + sum of C_i z_i, and its variance is a sum
of squares.
A and the C_i are read off the sampler by one call, in which each example has 1 in x_T or in one of the noises and 0
elsewhere. A law returns by how much it is broken (0 is kept), and is shown wrong models, wrong noise and wrong times,
which must break it visibly.

Papers
    [DDIM]         Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [DPM-Solver++] Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022
    [UniPC]        Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models",
                   2023
    [EDM]          Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
"""
import math
from itertools import pairwise

import numpy as np
import pytest

from ref import edm, flow, samplers, schedules
from tests.ref import ABAR, BY_TIME

KEPT, BROKEN = 1e-12, 1e-3
SPREADS = [0.3, 1.0, 4.0]
RUNS = {"every time": list(range(20, -1, -1)), "some": [20, 15, 11, 6, 2, 0], "not to 0": [20, 13, 6, 2],
        "one step": [20, 0]}
SPACINGS = ["leading", "linspace", "trailing"]


def spread(abar, s2):
    return abar * s2 + 1 - abar


def best_eps(abar, s2):
    return lambda xt, t: np.sqrt(1 - abar[t]) / spread(abar[t], s2) * xt


def best_x0(s2):
    return lambda x, sigma: s2 / (s2 + sigma**2) * x


def best_velocity(s2):
    return lambda x, t: (t - (1 - t) * s2) / ((1 - t) ** 2 * s2 + t**2) * x


def best_consistency(s2, sigma_min):
    return lambda x, sigma: np.sqrt((s2 + sigma_min**2) / (s2 + sigma**2)) * x


def variance(sample, steps, first):
    """The variance of sample(x, noise) for an x of variance `first` and `steps` noises of variance 1."""
    parts = np.eye(1 + steps)
    return np.sum(sample(parts[0], parts[1:]) ** 2 * np.append(first, np.ones(steps)))


def of_ddpm(abar, s2, sizes):
    """E[x_s | x_t] has the slope sqrt(alpha) V_s / V_t, and the step adds beta tilde or beta, but none at the end."""
    made = spread(abar[0], s2)
    for t, s in pairwise(abar):
        alpha = t / s
        added = 1 - alpha if sizes == "large" else (1 - s) / (1 - t) * (1 - alpha)
        made = alpha * (spread(s, s2) / spread(t, s2)) ** 2 * made + (added if s < 1 else 0)
    return made


def of_ddim(abar, s2, eta):
    """[DDIM] eq. 12 with x0_hat and eps_hat both multiples of x_t."""
    made = spread(abar[0], s2)
    for t, s in pairwise(abar):
        added = eta**2 * (1 - s) / (1 - t) * (1 - t / s)
        made *= ((np.sqrt(s * t) * s2 + np.sqrt((1 - s - added) * (1 - t))) / spread(t, s2)) ** 2
        made += added
    return made


def of_dpmpp_2m(abar, s2):
    """In y = x / sqrt(abar), where sigma is the time and e^-h is the ratio of the sigmas."""
    sigmas, y, last = np.sqrt(1 / abar - 1), 1 / np.sqrt(abar[0]), None
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        x0 = D = s2 / (s2 + sigma**2) * y
        if 0 < i < len(sigmas) - 2:
            D = x0 + (x0 - last) * np.log(sigma / following) / np.log(sigmas[i - 1] / sigma) / 2
        y, last = following / sigma * y + (1 - following / sigma) * D, x0
    return spread(abar[0], s2) * abar[-1] * y**2


def of_unipc(abar, s2):
    """Order 2, in y as above. The corrector integrates the parabola through x0_hat at three times exactly; p and q are
    its coefficients in Newton's form about the start of the step, whose integrals against e^-(h - u) are h - I and h^2
    - 2 (h - I) with I = 1 - e^-h. At the first step it is the mean of both ends."""
    sigmas, y, seen = np.sqrt(1 / abar - 1), 1 / np.sqrt(abar[0]), []
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        x0 = s2 / (s2 + sigma**2) * y
        if i > 0:
            h, I, (start, x0_start) = np.log(sigmas[i - 1] / sigma), 1 - sigma / sigmas[i - 1], seen[-1]
            integral = I * (x0_start + x0) / 2
            if i > 1:
                u = np.log(sigmas[i - 1] / sigmas[i - 2])
                p = (x0 - x0_start) / h
                q = (p - (seen[-2][1] - x0_start) / u) / (h - u)
                integral = I * x0_start + (p - q * h) * (h - I) + q * (h**2 - 2 * (h - I))
            y = sigma / sigmas[i - 1] * start + integral
        D = x0
        if 0 < i < len(sigmas) - 2:
            D = x0 + (x0 - seen[-1][1]) * np.log(sigma / following) / np.log(sigmas[i - 1] / sigma) / 2
        seen.append((y, x0))
        y = following / sigma * y + (1 - following / sigma) * D
    return spread(abar[0], s2) * abar[-1] * y**2


def of_slopes(slope, times, first, second_order, raised=lambda made, t: (made, t)):
    """x' = slope(t) x by Euler or by Heun, whose step to 0 is Euler's; raised: what happens before each step."""
    made = first
    for t, s in pairwise(times):
        made, t = raised(made, t)
        a = slope(t)
        if second_order and s > 0:
            a = (a + slope(s) * (1 + (s - t) * a)) / 2
        made *= (1 + (s - t) * a) ** 2
    return made


def churned(s_churn, steps, s_noise):
    gamma = min(s_churn / steps, math.sqrt(2) - 1)
    return lambda made, sigma: (made + ((1 + gamma) ** 2 - 1) * sigma**2 * s_noise**2, (1 + gamma) * sigma)


def of_sigmas(second_order, s_churn=0.0, s_noise=1.0):
    def of(sigmas, s2):
        raised = churned(s_churn, len(sigmas) - 1, s_noise)
        return of_slopes(lambda t: t / (s2 + t**2), sigmas, s2 + sigmas[0] ** 2, second_order, raised)

    return of


def of_flow(second_order):
    def of(times, s2):
        first = (1 - times[0]) ** 2 * s2 + times[0] ** 2
        return of_slopes(lambda t: (t - (1 - t) * s2) / ((1 - t) ** 2 * s2 + t**2), times, first, second_order)

    return of


def heun_with_churn(s_noise):
    return lambda f, x, z, sigmas: samplers.heun(f, x, sigmas, z, s_churn=1.5, s_noise=s_noise)


# name: (kind of model, sampler, output variance of (times, s2)). The times are abar's, sigmas or flow times
SAMPLERS = {
    **{name: ("eps", BY_TIME[name], of) for name, of in {
        **{f"ddpm {sizes}": lambda times, s2, sizes=sizes: of_ddpm(times, s2, sizes) for sizes in ("small", "large")},
        **{f"ddim {eta}": lambda times, s2, eta=eta: of_ddim(times, s2, eta) for eta in (0, 0.5, 1)},
        "dpmpp_2m": of_dpmpp_2m, "unipc 2": of_unipc,
        "inpaint": lambda times, s2: of_ddpm(times, s2, "small")}.items()},
    "euler": ("x0", lambda f, x, z, sigmas: samplers.euler(f, x, sigmas), of_sigmas(False)),
    "heun": ("x0", lambda f, x, z, sigmas: samplers.heun(f, x, sigmas), of_sigmas(True)),
    **{f"heun with churn, {w}": ("x0", heun_with_churn(w), of_sigmas(True, 1.5, w)) for w in (1, 1.1)},
    "flow_euler": ("v", lambda f, x, z, times: samplers.flow_euler(f, x, times), of_flow(False)),
    "flow_heun": ("v", lambda f, x, z, times: samplers.flow_heun(f, x, times), of_flow(True)),
}
NOISY = ["ddpm small", "ddpm large", "ddim 0.5", "ddim 1", "inpaint", "heun with churn, 1", "heun with churn, 1.1"]


def output_variance(name, times, abar, s2, wrong_model=lambda f, turned: f, wrong_noise=lambda z: z):
    """What the sampler makes of x with the exact variance of the first time, and what it ought to make, and what the
    data's own variance at the last time is. times are indices into abar; samplers of the other kinds get its sigmas and
    its flow times."""
    kind, sampler, ought = SAMPLERS[name]
    if kind == "eps":
        levels, last, first = abar[times], spread(abar[times[-1]], s2), spread(abar[times[0]], s2)
        model = wrong_model(best_eps(abar, s2), lambda t: abar.size - t)

        def sample(x, z):
            return sampler(model, x, times, wrong_noise(z), abar)
    else:
        levels = edm.sigma_from_abar(abar[times]) if kind == "x0" else flow.flow_time_from_abar(abar[times])
        last, first = [s2 + sigma**2 if kind == "x0" else (1 - sigma) ** 2 * s2 + sigma**2
                       for sigma in (levels[-1], levels[0])]
        best = (best_x0 if kind == "x0" else best_velocity)(s2)
        model = wrong_model(best, lambda t: 1 / t if kind == "x0" else 1 - t)

        def sample(x, z):
            return sampler(model, x, wrong_noise(z), levels)
    return variance(sample, len(times) - 1, first), ought(levels, s2), last


def law_of_output_variance(name, **wrong):
    """Relative to the data's variance, for the exact one may be near 0; the worst over runs and spreads."""
    worst = 0.0
    for times in RUNS.values():
        for s2 in SPREADS:
            made, ought, last = output_variance(name, times, ABAR, s2, **wrong)
            worst = max(worst, abs(made - ought) / last)
    return worst


WRONG_MODELS = {
    "the wrong sign": lambda f, turned: lambda x, t: -f(x, t),
    "the wrong direction": lambda f, turned: lambda x, t: f(x, turned(t)),
    "twice as much": lambda f, turned: lambda x, t: 2 * f(x, t),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_output_variance_is_exact(name):
    assert law_of_output_variance(name) < KEPT
    for wrong in WRONG_MODELS.values():
        assert law_of_output_variance(name, wrong_model=wrong) > BROKEN
    # none, too much, each used twice
    for wrong in (lambda z: 0 * z, lambda z: 1.01 * z, lambda z: z + np.roll(z, 1, axis=0)):
        assert (law_of_output_variance(name, wrong_noise=wrong) > BROKEN) == (name in NOISY)


def test_the_variance_of_another_sampler_breaks_it(monkeypatch):
    for one, other in (("ddpm small", "ddpm large"), ("ddim 0.5", "ddim 1"), ("heun", "euler"),
                       ("flow_heun", "flow_euler"),
                       ("dpmpp_2m", "ddim 0"), ("unipc 2", "dpmpp_2m"), ("heun with churn, 1", "heun"),
                       ("heun with churn, 1", "heun with churn, 1.1")):
        monkeypatch.setitem(SAMPLERS, one, (*SAMPLERS[one][:2], SAMPLERS[other][2]))
        assert law_of_output_variance(one) > BROKEN, one


def law_of_consistency(sigma_min, f_min, sigmas, s2):
    """With the exact f every call ends on the variance s2 + sigma_min^2, after one step or many; so does what is
    made."""
    f = best_consistency(s2, f_min)
    made = variance(lambda x, z: samplers.consistency(f, x, sigmas, z, sigma_min), len(sigmas), s2 + sigmas[0] ** 2)
    return abs(made / (s2 + f_min**2) - 1)


@pytest.mark.parametrize("s2", SPREADS)
def test_consistency_makes_the_exact_variance_in_any_number_of_steps(s2):
    for sigmas in ([80.0], [80.0, 2.0], [9.0, 1.0, 0.5], schedules.karras_sigmas(18)):
        assert law_of_consistency(0.002, 0.002, sigmas, s2) < KEPT
    assert law_of_consistency(0.5, 0.5, [9.0, 1.0], s2) < KEPT
    assert law_of_consistency(0.0, 0.5, [9.0, 1.0], s2) > BROKEN  # the noise that is already there added again


def law_of_the_known_part(known_at):
    """What is known has the variance of x_t at every time the model is asked, after the first; `known_at` stands
    between."""
    worst = 0.0
    for times in RUNS.values():
        for s2 in SPREADS:
            steps, seen = len(times) - 1, []
            parts = np.eye(1 + steps)  # known data of variance s2, and the noises

            def model(x, t):
                seen.append((known_at(x), t))
                return 0 * x
            out = samplers.inpaint(model, 0 * parts[0], times, parts[1:], parts[0], np.ones(1 + steps), ABAR)
            for x, t in [*seen[1:], (out, times[-1])]:
                made = np.sum(x**2 * np.append(s2, np.ones(steps)))
                worst = max(worst, abs(made / spread(ABAR[t], s2) - 1), abs(x[0] / np.sqrt(ABAR[t]) - 1))
    return worst


def test_the_known_part_is_noised_as_the_data_are():
    assert law_of_the_known_part(lambda x: x) < KEPT
    assert law_of_the_known_part(lambda x: 1.01 * x) > BROKEN
