"""Samplers: diffusers' trajectories, the papers' equations in another form, calls counted, noise, and what is refused."""
import math
from itertools import pairwise

import numpy as np
import pytest

from ref import diffusion, guidance, samplers, schedules
from tests import assert_close
from tests.ref.test_diffusion import GOLD, TRAJECTORIES, net

ABAR = schedules.alpha_bar(schedules.linear_betas(20, 0.01, 0.3))
TIMES = [20, 15, 11, 6, 2, 0]
SIGMAS = [8.0, 3.0, 1.0, 0.25, 0.0]
FLOW = [1.0, 0.8, 0.5, 0.1, 0.0]
RNG = np.random.default_rng(30)
X, KNOWN = RNG.standard_normal((2, 2, 3))
NOISE = RNG.standard_normal((5, 2, 3))
MASK = np.array([[1, 0, 1], [0, 0, 1]])
for array in (ABAR, X, KNOWN, NOISE, MASK):
    array.flags.writeable = False  # no sampler overwrites its inputs


def model(xt, t):
    """An eps_hat, or whatever is asked for, that no solver follows exactly."""
    return np.tanh(0.7 * xt - 0.1) * (1 + 0.03 * t)


def asked(function):
    """function, and the list of (x, time) it has been asked about."""
    calls = []

    def listening(x, time):
        calls.append((x, time))
        return function(x, time)

    return listening, calls


BY_TIME = {  # every sampler of a model of ints: (model, xT, times, noise, abar)
    "ddpm": lambda model, x, times, noise, abar: samplers.ddpm(model, x, times, noise, abar),
    "ddpm large": lambda model, x, times, noise, abar: samplers.ddpm(model, x, times, noise, abar, "large"),
    "ddim 0": lambda model, x, times, noise, abar: samplers.ddim(model, x, times, noise, 0, abar),
    "ddim 0.7": lambda model, x, times, noise, abar: samplers.ddim(model, x, times, noise, 0.7, abar),
    "dpmpp_2m": lambda model, x, times, noise, abar: samplers.dpmpp_2m(model, x, times, abar),
    "unipc 1": lambda model, x, times, noise, abar: samplers.unipc(model, x, times, abar, 1),
    "unipc 2": lambda model, x, times, noise, abar: samplers.unipc(model, x, times, abar),
    "unipc 3": lambda model, x, times, noise, abar: samplers.unipc(model, x, times, abar, 3),
    "inpaint": lambda model, x, times, noise, abar: samplers.inpaint(model, x, times, noise, KNOWN, MASK, abar),
}
BY_LEVEL = {  # the others: (f, x), and the times they are asked at
    "euler": (lambda f, x: samplers.euler(f, x, SIGMAS), SIGMAS[:-1]),
    "heun": (lambda f, x: samplers.heun(f, x, SIGMAS), [8.0, 3.0, 3.0, 1.0, 1.0, 0.25, 0.25]),
    "flow_euler": (lambda f, x: samplers.flow_euler(f, x, FLOW), FLOW[:-1]),
    "flow_heun": (lambda f, x: samplers.flow_heun(f, x, FLOW), [1.0, 0.8, 0.8, 0.5, 0.5, 0.1, 0.1]),
    "consistency": (lambda f, x: samplers.consistency(f, x, SIGMAS, NOISE, 0.002), SIGMAS[:-1]),
}
NOISY = ["ddpm", "ddpm large", "ddim 0.7", "inpaint"]


# --- diffusers' numbers ---------------------------------------------------------------------------------------------


def of_x0(x0_of, abar):
    """A model of eps that says whatever noise goes with x0_of(xt, t)."""
    return lambda xt, t: diffusion.eps_from_x0(xt, x0_of(xt, t), t, abar)


@pytest.mark.parametrize("run", TRAJECTORIES)
def test_ddpm_replays_diffusers(run):
    """Every state that the model is asked about and the one at the end. Noise is drawn for all steps but the last, and that one's
    may be left out. With zero terminal SNR no eps holds x0 at T, so that run is taken up after its first step."""
    abar, spacing, variance, clip, kind = TRAJECTORIES[run]
    theirs = GOLD[f"{run}/xs"]
    times = schedules.spaced_times(abar.size - 1, len(theirs), spacing)
    noise, xT = GOLD["traj/noise"][:len(theirs) - 1], GOLD["traj/xT"]
    predict = net
    if clip == "threshold":
        clip = None
        predict = of_x0(lambda xt, t: guidance.dynamic_threshold(diffusion.x0_from_eps(xt, net(xt, t), t, abar), 0.9, 2.0), abar)
    if kind == "v":
        predict, xT, times, noise = lambda xt, t: diffusion.eps_from_v(xt, net(xt, t), t, abar), theirs[0], times[1:], noise[1:]
    listening, calls = asked(predict)
    end = samplers.ddpm(listening, xT, times, noise, abar, variance, clip)
    if spacing == "trailing":  # ends with a step from t > 1, where diffusers adds noise of its least variance, 1e-20
        end = end + 1e-10 * GOLD["traj/noise"][len(theirs) - 1]
    ours = [x for x, _ in calls[1:]] + [end]
    for x, expected in zip(ours, theirs[-len(ours):], strict=True):
        assert_close(x, expected, scale=np.abs(expected).max())


# --- how often a model is asked, and about what ---------------------------------------------------------------------


@pytest.mark.parametrize("times", [TIMES, TIMES[:-1], [7, 0]], ids=["to 0", "to 2", "one step"])
@pytest.mark.parametrize("name", BY_TIME)
def test_one_call_a_step_at_its_time_as_an_int(name, times):
    listening, calls = asked(model)
    out = BY_TIME[name](listening, X, np.array(times), NOISE, ABAR)
    assert [t for _, t in calls] == times[:-1] and all(type(t) is int for _, t in calls)
    np.testing.assert_array_equal(calls[0][0], X)
    assert out.shape == X.shape and out.dtype == np.float64


@pytest.mark.parametrize("name", BY_LEVEL)
def test_calls_by_level(name):
    """One a step; two for Heun but at the last, where the end is 0."""
    sampler, levels = BY_LEVEL[name]
    listening, calls = asked(model)
    out = sampler(listening, X)
    assert [level for _, level in calls] == levels and all(type(level) is float for _, level in calls)
    np.testing.assert_array_equal(calls[0][0], X)
    assert out.shape == X.shape and out.dtype == np.float64


def test_heun_that_ends_above_0_asks_twice_there_too():
    for sampler, levels in (samplers.heun, SIGMAS[:-1]), (samplers.flow_heun, FLOW[:-1]):
        listening, calls = asked(model)
        sampler(listening, X, levels)
        assert len(calls) == 6 and calls[-1][1] == levels[-1]


# --- noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOISY)
def test_the_last_noise_is_ignored_and_may_be_missing(name):
    out = BY_TIME[name](model, X, TIMES, NOISE, ABAR)
    np.testing.assert_array_equal(out, BY_TIME[name](model, X, TIMES, NOISE[:-1], ABAR))
    np.testing.assert_array_equal(out, BY_TIME[name](model, X, TIMES, [*NOISE[:-1], np.full_like(X, np.nan)], ABAR))
    for i in range(4):
        other = NOISE.copy()
        other[i] += 1
        assert np.all(BY_TIME[name](model, X, TIMES, other, ABAR) != out) or name == "inpaint", f"noise {i} is not used"
    with pytest.raises(ValueError, match=r"\bnoise\b"):
        BY_TIME[name](model, X, TIMES, NOISE[:3], ABAR)


@pytest.mark.parametrize("name", NOISY)
def test_a_run_that_ends_above_0_needs_all_its_noise(name):
    whole = BY_TIME[name](model, X, TIMES[:3], NOISE[:2], ABAR)
    assert np.all(whole != BY_TIME[name](model, X, TIMES[:3], 2 * NOISE[:2], ABAR))
    with pytest.raises(ValueError, match=r"\bnoise\b"):
        BY_TIME[name](model, X, TIMES[:3], NOISE[:1], ABAR)


def test_ddim_without_eta_needs_no_noise():
    out = samplers.ddim(model, X, TIMES, None, 0, ABAR)
    np.testing.assert_array_equal(out, samplers.ddim(model, X, TIMES, np.full_like(NOISE, np.nan), 0.0, ABAR))


def test_ddpm_and_ddim_are_their_steps_in_a_row():
    ddpm = ddim = X
    for i, (t, s) in enumerate(pairwise(TIMES)):
        ddpm = diffusion.ddpm_step(ddpm, model(ddpm, t), t, s, NOISE[i], ABAR, "large", 0.8)
        ddim = diffusion.ddim_step(ddim, model(ddim, t), t, s, NOISE[i], 0.7, ABAR, 0.8)
    np.testing.assert_array_equal(samplers.ddpm(model, X, TIMES, NOISE, ABAR, "large", 0.8), ddpm)
    np.testing.assert_array_equal(samplers.ddim(model, X, TIMES, NOISE, 0.7, ABAR, 0.8), ddim)


@pytest.mark.parametrize("name", [*BY_TIME, *BY_LEVEL])
def test_an_example_alone_equals_the_same_in_its_batch(name):
    def sample(x):
        return BY_TIME[name](model, x, TIMES, NOISE, ABAR) if name in BY_TIME else BY_LEVEL[name][0](model, x)
    other = X.copy()
    other[1] = np.nan
    np.testing.assert_array_equal(sample(other)[0], sample(X)[0])


@pytest.mark.parametrize("name", BY_TIME)
def test_everything_is_float64_whatever_comes_in(name):
    """A float32 abar is taken at its word: the algebra of it is float64."""
    abar = ABAR.astype(np.float32)
    exact = BY_TIME[name](model, X.astype(np.float32).astype(float), TIMES, NOISE, abar.astype(float))
    single = BY_TIME[name](model, X.astype(np.float32), TIMES, NOISE, abar)
    assert single.dtype == np.float64
    np.testing.assert_array_equal(single, exact)


# --- DPM-Solver++ and UniPC, by the papers' equations in another form ------------------------------------------------


def alpha_sigma_lambda(t):
    alpha, sigma = math.sqrt(ABAR[t]), math.sqrt(1 - ABAR[t])
    return alpha, sigma, math.log(alpha / sigma) if sigma else math.inf


def x0_by_hand(x, t):
    alpha, sigma, _ = alpha_sigma_lambda(t)
    return (x - sigma * math.tanh(0.7 * x - 0.1) * (1 + 0.03 * t)) / alpha


def towards(x, t, s, x0, slope=0.0):
    """Both ends of a step as [DPM-Solver++] section 4.1 has them: with x0 + slope (lambda - lambda_t) / 2 a constant of the step."""
    (_, sigma_t, lambda_t), (alpha_s, sigma_s, lambda_s) = alpha_sigma_lambda(t), alpha_sigma_lambda(s)
    h = lambda_s - lambda_t
    return sigma_s / sigma_t * x + alpha_s * (1 - math.exp(-h)) * (x0 + (h / 2 * slope if slope else 0.0))


def dpmpp_2m_by_hand(x, times):
    past = None
    for i, (t, s) in enumerate(pairwise(times)):
        x0, lambda_t = x0_by_hand(x, t), alpha_sigma_lambda(t)[2]
        inner = 0 < i < len(times) - 2
        x = towards(x, t, s, x0, (x0 - past[0]) / (lambda_t - past[1]) if inner else 0.0)
        past = x0, lambda_t
    return x


def exactly(x, t, s, knots):
    """x_s by the exact integral of the polynomial through the knots (lambda - lambda_t, x0_hat):  with I_k the integral of
    e^-(h - u) u^k from 0 to h, I_0 = 1 - e^-h and I_k = h^k - k I_{k-1}."""
    (_, sigma_t, lambda_t), (alpha_s, sigma_s, lambda_s) = alpha_sigma_lambda(t), alpha_sigma_lambda(s)
    h = lambda_s - lambda_t
    polynomial = np.linalg.solve([[u**k for k in range(len(knots))] for u, _ in knots], [x0 for _, x0 in knots])
    I, total = 1 - math.exp(-h), 0.0
    for k, c in enumerate(polynomial):
        I = h**k - k * I if k else I
        total += c * I
    return sigma_s / sigma_t * x + alpha_s * total


def unipc_by_hand(x, times, order):
    """UniP of order 2 takes 1/2 for its one coefficient, as UniC of order 1 does; all others integrate a polynomial exactly."""
    seen, before = [], None
    for i, (t, s) in enumerate(pairwise(times)):
        here, now = alpha_sigma_lambda(t)[2], x0_by_hand(x, t)
        if seen:
            start, (last, x0) = times[i - 1], seen[-1]
            if used == 1:
                x = towards(before, start, t, (x0 + now) / 2)
            else:
                x = exactly(before, start, t, [(l - last, p) for l, p in [*seen[-used:], (here, now)]])
        before, seen = x, [*seen, (here, now)]
        used = min(order, i + 1, len(times) - 1 - i)
        if used == 1:
            x = towards(x, t, s, now)
        elif used == 2:
            x = towards(x, t, s, now, (now - seen[-2][1]) / (here - seen[-2][0]))
        else:
            x = exactly(x, t, s, [(l - here, p) for l, p in seen[-used:]])
    return x


@pytest.mark.parametrize("n", range(1, 6))
def test_dpmpp_2m_by_hand(n):
    for times in (TIMES[-n - 1:], TIMES[:n + 1]):  # ends at 0, and at 15, 11, 6, 2
        expected = np.array([[dpmpp_2m_by_hand(x, times) for x in row] for row in X.tolist()])
        assert_close(samplers.dpmpp_2m(model, X, times, ABAR), expected, scale=1.0)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("n", range(1, 6))
def test_unipc_by_hand(n, order):
    for times in (TIMES[-n - 1:], TIMES[:n + 1]):
        expected = np.array([[unipc_by_hand(x, times, order) for x in row] for row in X.tolist()])
        assert_close(samplers.unipc(model, X, times, ABAR, order), expected, scale=1.0)


def test_one_step_of_dpmpp_2m_by_hand():
    """alpha and sigma are 3/5, 4/5 at u, 4/5, 3/5 at t and 12/13, 5/13 at s; so e^lambda is 3/4, 4/3, 12/5, and the step's e^-h 5/9."""
    abar = np.array([1, 144 / 169, 16 / 25, 9 / 25])
    r = math.log(16 / 9) / math.log(9 / 5)
    D = (1 + 1 / (2 * r)) * 2.0 - 1 / (2 * r) * 0.5
    one = np.ones((1, 1))
    assert_close(samplers.dpmpp_2m_step(3 * one, 2 * one, 0.5 * one, 3, 2, 1, abar), (25 / 39 * 3 + 12 / 13 * 4 / 9 * D) * one)
    assert_close(samplers.dpmpp_2m_step(3 * one, 2 * one, None, None, 2, 1, abar), (25 / 39 * 3 + 12 / 13 * 4 / 9 * 2) * one)
    assert_close(samplers.dpmpp_2m_step(3 * one, 2 * one, 0.5 * one, 3, 2, 0, abar), 2 * one)  # to the data, of order 1


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc 1", "unipc 2", "unipc 3"])
def test_first_order_is_ddim(name):
    """So one step is one of DDIM; and of two, each of the first order, DPM-Solver++ has made DDIM's."""
    assert_close(BY_TIME[name](model, X, [9, 4], None, ABAR), samplers.ddim(model, X, [9, 4], None, 0, ABAR), scale=1.0)
    if name == "dpmpp_2m":
        assert_close(BY_TIME[name](model, X, [9, 4, 0], None, ABAR), samplers.ddim(model, X, [9, 4, 0], None, 0, ABAR), scale=1.0)
    three = BY_TIME[name](model, X, [9, 4, 2, 1], None, ABAR)
    assert np.abs(three - samplers.ddim(model, X, [9, 4, 2, 1], None, 0, ABAR)).max() > 1e-3


# --- by noise level -------------------------------------------------------------------------------------------------


def half(x, level):
    return x / 2


def test_euler_and_heun_by_hand():
    """From 4 at sigma = 2, d = 1; Euler's 3 at sigma = 1 has the slope 1.5, so Heun's is 4 - 1.25; and from there on, d = 1.375."""
    x = np.full((1, 2), 4.0)
    assert_close(samplers.euler(half, x, [2, 1]), np.full((1, 2), 3.0))
    assert_close(samplers.euler(half, x, [2, 1, 0]), np.full((1, 2), 1.5))
    assert_close(samplers.heun(half, x, [2, 1]), np.full((1, 2), 2.75))
    assert_close(samplers.heun(half, x, [2, 1, 0]), np.full((1, 2), 1.375))


def test_heun_with_churn_by_hand():
    """gamma = 0.5 / 2: 2 is raised to 2.5 by noise of the deviation 1.5, here times s_noise = 2 times 0.5. x_hat = 5.5, d = 1.1; Euler's
    3.85 has the slope 1.925; so 5.5 - 1.5 * 1.5125 = 3.23125 at 1. That is raised to 1.25 by 0.75 * 2 * (-1)."""
    noise = np.array([0.5, -1.0]).reshape(2, 1, 1)
    x = np.array([[4.0]])
    one, both = np.array([[3.23125]]), np.array([[(3.23125 - 1.5) / 2]])
    assert_close(samplers.heun(half, x, [2, 1, 0], noise, s_churn=0.5, s_min=2, s_noise=2), one / 2)
    assert_close(samplers.heun(half, x, [2, 1, 0], noise, s_churn=0.5, s_noise=2), both)
    quiet = samplers.heun(half, x, [2, 1, 0], noise, s_churn=0.5, s_max=1, s_noise=2)  # 2.75, as without churn, minus 1.5, halved
    assert_close(quiet, np.array([[0.625]]))


@pytest.mark.parametrize("s_churn, gamma", [(0.4, 0.1), (1.0, 0.25), (40, math.sqrt(2) - 1)])
def test_churn_raises_the_variance_to_that_of_its_level(s_churn, gamma):
    """x = x0 + sigma eps gets what sigma_hat^2 has more than sigma^2, and at most doubles it, since gamma <= sqrt(2) - 1."""
    listening, calls = asked(lambda x, sigma: 0 * x)
    samplers.heun(listening, np.array([[1.0], [0.0]]) * SIGMAS[0], SIGMAS, np.array([[0.0], [1.0]]) * np.ones((4, 2, 1)), s_churn)
    x, level = calls[0]
    assert_close(np.array(level), np.array((1 + gamma) * SIGMAS[0]))
    assert_close((x**2).sum(), np.float64(level**2))
    with pytest.raises(ValueError, match=r"\bnoise\b"):
        samplers.heun(half, X, SIGMAS, NOISE[:3], s_churn)
    with pytest.raises(ValueError, match=r"\bnoise\b"):
        samplers.heun(half, X, SIGMAS, s_churn=s_churn)


def test_without_churn_noise_is_ignored():
    np.testing.assert_array_equal(samplers.heun(model, X, SIGMAS, np.full_like(NOISE, np.nan)), samplers.heun(model, X, SIGMAS))
    np.testing.assert_array_equal(samplers.heun(model, X, SIGMAS, NOISE, 5, s_min=9), samplers.heun(model, X, SIGMAS))


def test_flow_euler_and_flow_heun_by_hand():
    """From 4 at t = 1, v = 2: 3 at t = 0.5, where v = 1.5. Heun's is 4 - 0.5 * 1.75 = 3.125; the step to 0 is Euler's."""
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


# --- inpainting -----------------------------------------------------------------------------------------------------


def test_what_is_known_is_known_exactly_at_the_end_and_noised_on_the_way():
    listening, calls = asked(model)
    out = samplers.inpaint(listening, X, TIMES, NOISE, KNOWN, MASK, ABAR)
    known = MASK == 1
    np.testing.assert_array_equal(out[known], KNOWN[known])
    for i, (x, t) in enumerate(calls[1:]):
        np.testing.assert_array_equal(x[known], diffusion.q_sample(KNOWN, t, NOISE[i], ABAR)[known])
    elsewhere = np.where(known, KNOWN, np.nan)
    np.testing.assert_array_equal(samplers.inpaint(model, X, TIMES, NOISE, elsewhere, MASK, ABAR), out)
    np.testing.assert_array_equal(samplers.inpaint(model, X, TIMES, NOISE, KNOWN, known, ABAR), out)


def test_what_is_not_known_takes_the_steps_of_ddpm():
    """All unknown is ddpm; all known is known. What is known speaks to the rest through the model alone."""
    ddpm = samplers.ddpm(model, X, TIMES, NOISE, ABAR)
    np.testing.assert_array_equal(samplers.inpaint(model, X, TIMES, NOISE, KNOWN, 0 * MASK, ABAR), ddpm)
    np.testing.assert_array_equal(samplers.inpaint(model, X, TIMES, NOISE, KNOWN, 0 * MASK + 1, ABAR), KNOWN)
    np.testing.assert_array_equal(samplers.inpaint(model, X, TIMES, NOISE, KNOWN, MASK, ABAR)[MASK == 0], ddpm[MASK == 0])
    mixing = samplers.inpaint(lambda x, t: model(x, t) + x.mean(), X, TIMES, NOISE, KNOWN, MASK, ABAR)
    moved = samplers.inpaint(lambda x, t: model(x, t) + x.mean(), X, TIMES, NOISE, KNOWN + 1, MASK, ABAR)
    assert np.all(mixing != moved)


# --- rejected inputs ------------------------------------------------------------------------------------------------

ZERO_SNR = np.array([1.0, 0.5, 0.0])


def wide(x, level):
    return np.zeros((1, 3))


@pytest.mark.parametrize("times, argument", [
    ([5], "times"),
    ([[5, 0]], "times"),
    ([5.0, 0.0], "times"),
    ([0, 5], "times"),
    ([5, 5, 0], "times"),
    ([21, 0], "times"),
    ([5, -1], "times"),
])
@pytest.mark.parametrize("name", BY_TIME)
def test_bad_times_are_refused(name, times, argument):
    with pytest.raises(ValueError, match=rf"\b{argument}\b"):
        BY_TIME[name](model, X, times, NOISE, ABAR)


@pytest.mark.parametrize("name", BY_TIME)
def test_no_terminal_signal_and_other_shapes_are_refused(name):
    with pytest.raises(ValueError, match=r"\babar\b"):
        BY_TIME[name](model, X, [2, 1, 0], NOISE, ZERO_SNR)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(1, 3\)"):
        BY_TIME[name](wide, X, [2, 1, 0], NOISE, ABAR)
    if name in NOISY:
        with pytest.raises(ValueError, match=r"\bnoise\b"):
            BY_TIME[name](model, X, [2, 1, 0], NOISE[:, 0], ABAR)
        with pytest.raises(ValueError, match=r"\bnoise\b"):
            BY_TIME[name](model, X, [2, 1, 0], None, ABAR)


@pytest.mark.parametrize("name", BY_LEVEL)
def test_an_answer_of_another_shape_is_refused(name):
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        BY_LEVEL[name][0](wide, X)


@pytest.mark.parametrize("call, argument", [
    (lambda: samplers.ddpm(model, X, TIMES, NOISE, ABAR, "middle"), "variance"),
    (lambda: samplers.ddpm(model, X, TIMES, NOISE, ABAR, clip=0), "clip"),
    (lambda: samplers.ddim(model, X, TIMES, NOISE, 1.5, ABAR), "eta"),
    (lambda: samplers.unipc(model, X, TIMES, ABAR, 0), "order"),
    (lambda: samplers.unipc(model, X, TIMES, ABAR, 1.5), "order"),
    (lambda: samplers.unipc(model, X, TIMES, ABAR, "2"), "order"),
    (lambda: samplers.dpmpp_2m_step(X, X, X, None, 2, 1, ABAR), "x0_last.*u"),
    (lambda: samplers.dpmpp_2m_step(X, X, None, 3, 2, 1, ABAR), "x0_last.*u"),
    (lambda: samplers.dpmpp_2m_step(X, X, X, 2, 2, 1, ABAR), "s"),
    (lambda: samplers.dpmpp_2m_step(X, X[:1], X, 3, 2, 1, ABAR), "xt.*x0_hat.*x0_last"),
    (lambda: samplers.dpmpp_2m_step(X, X, X[0], 3, 2, 1, ABAR), "xt.*x0_hat.*x0_last"),
    (lambda: samplers.dpmpp_2m_step(X, X, None, None, 2, 1, ZERO_SNR), "abar"),
    (lambda: samplers.dpmpp_2m_step(X, X, X, 3, 2, 1, [1, 0.8, 0.5, 0]), "abar"),
    (lambda: samplers.dpmpp_2m_step(X, X, None, None, 2, 1, [1, 1, 1]), "abar"),
    (lambda: samplers.euler(half, X, [1.0]), "sigmas"),
    (lambda: samplers.euler(half, X, [0, 1]), "sigmas"),
    (lambda: samplers.heun(half, X, [1, -1]), "sigmas"),
    (lambda: samplers.heun(half, X, [2, np.nan, 0]), "sigmas"),
    (lambda: samplers.heun(half, X, [[2, 1]]), "sigmas"),
    (lambda: samplers.heun(half, X, SIGMAS, NOISE, -1), "s_churn"),
    (lambda: samplers.heun(half, X, SIGMAS, NOISE, np.nan), "s_churn"),
    (lambda: samplers.heun(half, X, SIGMAS, NOISE[:, 0], 1), "noise"),
    (lambda: samplers.flow_euler(half, X, [1.0]), "times"),
    (lambda: samplers.flow_euler(half, X, [0, 1]), "times"),
    (lambda: samplers.flow_heun(half, X, [1.5, 0]), "times"),
    (lambda: samplers.flow_heun(half, X, [1, -0.5]), "times"),
    (lambda: samplers.consistency(half, X, [], NOISE, 0.002), "sigmas"),
    (lambda: samplers.consistency(half, X, [0], NOISE, 0.002), "sigmas"),
    (lambda: samplers.consistency(half, X, [3, 1], NOISE, 2), "sigmas"),
    (lambda: samplers.consistency(half, X, [3, 1], NOISE, -1), "sigmas"),
    (lambda: samplers.consistency(half, X, [3, 1], NOISE[:, 0], 0.1), "noise"),
    (lambda: samplers.inpaint(model, X, TIMES, NOISE, KNOWN[0], MASK, ABAR), "xT.*known.*mask"),
    (lambda: samplers.inpaint(model, X, TIMES, NOISE, KNOWN, MASK[0], ABAR), "xT.*known.*mask"),
    (lambda: samplers.inpaint(model, X, TIMES, NOISE, KNOWN, MASK / 2, ABAR), "mask"),
    (lambda: samplers.inpaint(model, X, TIMES, NOISE, KNOWN, np.full(X.shape, np.nan), ABAR), "mask"),
])
def test_bad_input_is_refused_by_name(call, argument):
    with pytest.raises(ValueError, match=rf"\b{argument}\b"):
        call()
