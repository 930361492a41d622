"""Samplers: diffusers' trajectories, the papers' equations in another form, calls counted, noise, and what is
refused."""
from itertools import pairwise

import numpy as np
import pytest

from ref import diffusion, guidance, samplers, schedules
from tests import assert_close, golden
from tests.ref import ABAR, BY_TIME, by_time

GOLD = golden("ddpm")
LONG = schedules.alpha_bar(schedules.linear_betas())

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


def half(x, level):
    return x / 2


def asked(function):
    """function, and the list of (x, time) it has been asked about."""
    calls = []

    def listening(x, time):
        calls.append((x, time))
        return function(x, time)

    return listening, calls


BY_TIME = BY_TIME | {"inpaint": by_time(samplers.inpaint, known=KNOWN, mask=MASK)}
BY_LEVEL = {  # the others: (f, x), and the times they are asked at
    "euler": (lambda f, x: samplers.euler(f, x, SIGMAS), SIGMAS[:-1]),
    "heun": (lambda f, x: samplers.heun(f, x, SIGMAS), [8.0, 3.0, 3.0, 1.0, 1.0, 0.25, 0.25]),
    "flow_euler": (lambda f, x: samplers.flow_euler(f, x, FLOW), FLOW[:-1]),
    "flow_heun": (lambda f, x: samplers.flow_heun(f, x, FLOW), [1.0, 0.8, 0.8, 0.5, 0.5, 0.1, 0.1]),
    "consistency": (lambda f, x: samplers.consistency(f, x, SIGMAS, NOISE, 0.002), SIGMAS[:-1]),
}
NOISY = ["ddpm small", "ddpm large", "ddim 0.5", "ddim 1", "inpaint"]


TRAJECTORIES = {  # abar, spacing, variance, what is done to the predicted x0, what the net predicts
    "full100": (schedules.alpha_bar(schedules.linear_betas(100)), "leading", "small", None, "eps"),
    "full100_clip_large": (schedules.alpha_bar(schedules.linear_betas(100)), "leading", "large", 1.0, "eps"),
    "respaced50_cos": (schedules.alpha_bar(schedules.cosine_betas()), "leading", "small", 1.0, "eps"),
    "respaced10_thr": (LONG, "leading", "small", "threshold", "eps"),
    "respaced50_v_trailing_zsnr": (schedules.zero_terminal_snr(LONG), "trailing", "small", None, "v"),
}


def net(x, t):
    """The goldens' network (its sidecar says so); its t counts from 0."""
    h = np.tanh(np.einsum("oc,bchw->bohw", GOLD["net/A"], x) + (GOLD["net/u"] * (t - 1) / 1000 + GOLD["net/b"])[:, None,
                                                                                                                None])
    return GOLD["net/s"] * x + np.einsum("co,bohw->bchw", GOLD["net/K"], h) + GOLD["net/d"][:, None, None]


def of_x0(x0_of, abar):
    """A model of eps that says whatever noise goes with x0_of(xt, t)."""
    return lambda xt, t: diffusion.eps_from_x0(xt, x0_of(xt, t), t, abar)


@pytest.mark.parametrize("run", TRAJECTORIES)
def test_ddpm_replays_diffusers(run):
    """Every state that the model is asked about and the one at the end. Noise is drawn for all steps but the last, and
    that one's may be left out. With zero terminal SNR no eps holds x0 at T:
    there the first step is the posterior's."""
    abar, spacing, variance, clip, kind = TRAJECTORIES[run]
    theirs = GOLD[f"{run}/xs"]
    times = schedules.spaced_times(abar.size - 1, len(theirs), spacing)
    noise, xT = GOLD["traj/noise"][:len(theirs) - 1], GOLD["traj/xT"]
    predict = net
    if clip == "threshold":
        clip = None
        predict = of_x0(lambda xt, t: guidance.dynamic_threshold(diffusion.x0_from_eps(xt, net(xt, t), t, abar), 0.9,
                                                                 2.0), abar)
    if kind == "v":
        mean, beta_tilde = diffusion.posterior(diffusion.x0_from_v(xT, net(xT, times[0]), times[0], abar), xT, times[0],
                                               times[1], abar)
        assert_close(mean + np.sqrt(beta_tilde) * noise[0], theirs[0], scale=np.abs(theirs[0]).max())
        predict, xT, times, noise = lambda xt, t: diffusion.eps_from_v(xt, net(xt, t), t,
                                                                       abar), theirs[0], times[1:], noise[1:]
    listening, calls = asked(predict)
    end = samplers.ddpm(listening, xT, times, noise, abar, variance, clip)
    if spacing == "trailing":  # ends with a step from t > 1, where diffusers adds noise of its least variance, 1e-20
        end = end + 1e-10 * GOLD["traj/noise"][len(theirs) - 1]
    ours = [x for x, _ in calls[1:]] + [end]
    for x, expected in zip(ours, theirs[-len(ours):], strict=True):
        assert_close(x, expected, scale=np.abs(expected).max())


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


@pytest.mark.parametrize("name", BY_TIME)
def test_everything_is_float64_whatever_comes_in(name):
    """A float32 abar is taken at its word: the algebra of it is float64."""
    abar = ABAR.astype(np.float32)
    exact = BY_TIME[name](model, X.astype(np.float32).astype(float), TIMES, NOISE, abar.astype(float))
    single = BY_TIME[name](model, X.astype(np.float32), TIMES, NOISE, abar)
    assert single.dtype == np.float64
    np.testing.assert_array_equal(single, exact)


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
    np.testing.assert_array_equal(samplers.inpaint(model, X, TIMES, NOISE, KNOWN, MASK, ABAR)[MASK == 0],
                                  ddpm[MASK == 0])
    mixing = samplers.inpaint(lambda x, t: model(x, t) + x.mean(), X, TIMES, NOISE, KNOWN, MASK, ABAR)
    moved = samplers.inpaint(lambda x, t: model(x, t) + x.mean(), X, TIMES, NOISE, KNOWN + 1, MASK, ABAR)
    assert np.all(mixing != moved)


def wide(x, level):
    return np.zeros((1, 3))


@pytest.mark.parametrize("times", [[5], [[5, 0]], [5.0, 0.0], [0, 5], [5, 5, 0], [21, 0], [5, -1]])
@pytest.mark.parametrize("name", BY_TIME)
def test_bad_times_are_refused(name, times):
    with pytest.raises(ValueError, match=r"\btimes\b"):
        BY_TIME[name](model, X, times, NOISE, ABAR)


@pytest.mark.parametrize("name", BY_TIME)
def test_no_terminal_signal_and_other_shapes_are_refused(name):
    with pytest.raises(ValueError, match=r"\babar\b"):
        BY_TIME[name](model, X, [2, 1, 0], NOISE, np.array([1.0, 0.5, 0.0]))
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
