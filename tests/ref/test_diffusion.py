"""Forward noising, conversions, posterior and steps: diffusers' numbers, inverses, edges, and what is refused."""
from functools import partial

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ref import diffusion, schedules
from tests import assert_close, golden
from tests.ref import ABAR as T20, SEEDS, SHAPES, arrays

GOLD = golden("ddpm")
SCHEDULES = golden("schedules")
ABAR = {name: np.append(1.0, SCHEDULES[f"{name}/alphas_cumprod"])  # theirs, which are not rounded as ours
        for name in ("linear", "scaled_linear", "squaredcos_cap_v2")}  # in the order of the goldens' first axis


@pytest.mark.parametrize("name", ABAR)
def test_q_sample_and_v_target_replay_diffusers(name):
    """Shapes (5, 3, 2, 5): the batch is as long as the last axis, so t on the wrong axis would not raise."""
    x0, eps, t = SCHEDULES["x0"], SCHEDULES["eps"], SCHEDULES["t"] + 1
    assert_close(diffusion.q_sample(x0, t, eps, ABAR[name]), SCHEDULES[f"{name}/add_noise"])
    assert_close(diffusion.v_target(x0, eps, t, ABAR[name]), SCHEDULES[f"{name}/velocity"])


def eps_of(kind, out, xt, t, abar):
    """The network's output as a prediction of eps, whatever it predicts."""
    if kind == "eps":
        return out
    return diffusion.eps_from_x0(xt, out, t, abar) if kind == "x0" else diffusion.eps_from_v(xt, out, t, abar)


def x0_of(kind, out, xt, t, abar):
    if kind == "x0":
        return out
    return (diffusion.x0_from_eps if kind == "eps" else diffusion.x0_from_v)(xt, out, t, abar)


@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("schedule", ABAR)
def test_ddpm_step_replays_diffusers(schedule, variance, clip, kind):
    axes = list(ABAR).index(schedule), ["small", "large"].index(variance), [None, 1.0].index(clip), ["eps", "x0",
                                                                                                     "v"].index(kind)
    xt, out, z, abar = GOLD["step/x"], GOLD["step/model_out"], GOLD["step/z"], ABAR[schedule]
    for i, t in enumerate(GOLD["step/t"] + 1):
        x0 = x0_of(kind, out, xt, t, abar)
        assert_close(x0 if clip is None else np.clip(x0, -clip, clip),
                     GOLD["step/pred_x0"][axes[0], axes[2], axes[3], i])
        eps_hat = eps_of(kind, out, xt, t, abar)
        theirs = GOLD["step/prev"][(*axes, i)]  # at t = 2 off by 8e-13 of the largest: their beta is 1 less a ratio
        assert_close(diffusion.ddpm_step(xt, eps_hat, t, t - 1, z, abar, variance, clip), theirs,
                     scale=np.abs(theirs).max())


@pytest.mark.parametrize("schedule", ABAR)
def test_posterior_variance_replays_diffusers(schedule):
    t = GOLD["step/t"] + 1
    x = np.zeros((len(t), 2))
    small = diffusion.posterior(x, x, t, t - 1, ABAR[schedule])[1]
    assert small.shape == t.shape and small[0] == 0  # diffusers never goes below 1e-20, and adds no noise there
    theirs = GOLD["step/variance"][list(ABAR).index(schedule), 0]  # of a beta that is 1 less a ratio
    assert_close(np.maximum(small, 1e-20), theirs, rel=2e-12)


def column(values, x):
    return np.reshape(values, (-1,) + (1,) * (x.ndim - 1))


@given(shape=SHAPES, seed=SEEDS, one_t=st.booleans(), schedule=st.sampled_from(sorted(ABAR)))
def test_conversions_are_inverses(shape, seed, one_t, schedule):
    """Every way from (x0, eps) to x_t and back gives x0, eps and v again, at every t in [1, T], one t or a t per
    example.
    Errors are measured against the terms that were added, 1e-13 relative."""
    (x0, eps), rng = arrays(shape, seed, 2), np.random.default_rng(seed + 1)
    abar = ABAR[schedule]
    t = int(rng.integers(1, 1001)) if one_t else rng.integers(1, 1001, len(x0))
    xt, v = diffusion.q_sample(x0, t, eps, abar), diffusion.v_target(x0, eps, t, abar)
    signal, noise = column(np.sqrt(abar[t]), x0), column(np.sqrt(1 - abar[t]), x0)
    terms = 1e-13 * (np.abs(signal * x0) + np.abs(noise * eps))
    np.testing.assert_allclose(xt, signal * x0 + noise * eps, rtol=0, atol=0.01 * terms.max())
    assert np.all(np.abs(diffusion.x0_from_eps(xt, eps, t, abar) - x0) <= terms / signal)
    assert np.all(np.abs(diffusion.eps_from_x0(xt, x0, t, abar) - eps) <= terms / noise)
    both = 1e-13 * (np.abs(x0) + np.abs(eps))
    assert np.all(np.abs(diffusion.x0_from_v(xt, v, t, abar) - x0) <= both)
    assert np.all(np.abs(diffusion.eps_from_v(xt, v, t, abar) - eps) <= both)
    score = diffusion.score_from_eps(eps, t, abar)
    assert np.all(np.abs(score + eps / noise) <= 1e-15 * np.abs(eps / noise))
    assert np.all(np.abs(diffusion.eps_from_score(score, t, abar) - eps) <= 1e-15 * np.abs(eps))
    assert np.all(np.abs(diffusion.score_from_eps(diffusion.eps_from_score(x0, t, abar), t,
                                                  abar) - x0) <= 1e-15 * np.abs(x0))


def test_by_hand():
    """abar = (1, 0.64, 0.36): signal 0.8, noise 0.6 at t = 1, and the other way round at t = 2."""
    abar, x0, eps = np.array([1, 0.64, 0.36]), np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([[0.5, -1.0], [2.0, 1.0]])
    t = np.array([1, 2])
    xt = np.array([[1.1, 1.0], [3.4, 0.2]])
    v = np.array([[-0.2, -2.0], [-1.2, 1.4]])
    assert_close(diffusion.q_sample(x0, t, eps, abar), xt)
    assert_close(diffusion.v_target(x0, eps, t, abar), v)
    assert_close(diffusion.x0_from_eps(xt, eps, t, abar), x0)
    assert_close(diffusion.eps_from_x0(xt, x0, t, abar), eps)
    assert_close(diffusion.x0_from_v(xt, v, t, abar), x0)
    assert_close(diffusion.eps_from_v(xt, v, t, abar), eps)
    assert_close(diffusion.score_from_eps(eps, t, abar), np.array([[-0.5 / 0.6, 1.0 / 0.6], [-2.0 / 0.8, -1.0 / 0.8]]))
    assert_close(diffusion.eps_from_score(np.array([[-0.5 / 0.6, 1.0 / 0.6], [-2.0 / 0.8, -1.0 / 0.8]]), t, abar), eps)
    # t = 0: whatever the score, there is no noise
    np.testing.assert_array_equal(diffusion.eps_from_score(x0, 0, abar), 0 * x0)
    assert_close(diffusion.eps_loss(x0, eps), np.array((0.25 + 9 + 1 + 4) / 4))


def test_one_step_by_hand():
    """From t = 2 to s = 1 with abar as above: alpha = 0.5625, beta = 0.4375, 1 - abar_t = 0.64, 1 - abar_s = 0.36."""
    abar, xt, eps_hat, z = np.array([1, 0.64, 0.36]), np.array([[2.0]]), np.array([[1.0]]), np.array([[3.0]])
    x0 = (2 - 0.8) / 0.6
    mean = 0.8 * 0.4375 / 0.64 * x0 + 0.75 * 0.36 / 0.64 * 2
    beta_tilde = 0.36 / 0.64 * 0.4375
    got_mean, got_variance = diffusion.posterior(np.array([[x0]]), xt, 2, 1, abar)
    assert_close(got_mean, np.array([[mean]]))
    assert_close(got_variance, np.float64(beta_tilde))
    assert_close(diffusion.ddpm_step(xt, eps_hat, 2, 1, z, abar), np.array([[mean + 3 * beta_tilde**0.5]]))
    assert_close(diffusion.ddpm_step(xt, eps_hat, 2, 1, z, abar, "large"), np.array([[mean + 3 * 0.4375**0.5]]))
    assert_close(diffusion.ddim_step(xt, eps_hat, 2, 1, z, 0.0, abar), np.array([[0.8 * x0 + 0.6]]))
    assert_close(diffusion.ddim_step(xt, eps_hat, 2, 1, z, 0.5, abar),
                 np.array([[0.8 * x0 + (0.36 - beta_tilde / 4) ** 0.5 + 3 * beta_tilde**0.5 / 2]]))
    # clip to 1: DDPM keeps x_t, DDIM finds eps again from the clipped x0
    clipped_mean = 0.8 * 0.4375 / 0.64 + 0.75 * 0.36 / 0.64 * 2
    assert_close(diffusion.ddpm_step(xt, eps_hat, 2, 1, z, abar, clip=1),
                 np.array([[clipped_mean + 3 * beta_tilde**0.5]]))
    assert_close(diffusion.ddim_step(xt, eps_hat, 2, 1, z, 0.0, abar, clip=1),
                 np.array([[0.8 + 0.6 * (2 - 0.6) / 0.8]]))


STEPS = {**{f"ddpm {variance}": partial(diffusion.ddpm_step, abar=T20, variance=variance)
            for variance in ("small", "large")},
         **{f"ddim {eta}": partial(diffusion.ddim_step, abar=T20, eta=eta) for eta in (0.0, 0.5, 1.0)}}


@pytest.mark.parametrize("mixed", ["one t, many s", "many t, one s"])
@pytest.mark.parametrize("step", STEPS)
def test_one_time_may_meet_many(step, mixed):
    xt, eps_hat, z = np.random.default_rng(3).standard_normal((3, 4, 4))
    many = np.full(4, 9 if mixed == "one t, many s" else 12)
    t, s = (12, many) if mixed == "one t, many s" else (many, 9)
    np.testing.assert_array_equal(STEPS[step](xt, eps_hat, t, s, z), STEPS[step](xt, eps_hat, 12, 9, z))


@pytest.mark.parametrize("step", STEPS)
def test_the_last_step_adds_no_noise_and_does_not_look_at_it(step):
    xt, eps_hat, z = np.random.default_rng(4).standard_normal((3, 2, 3))
    quiet = STEPS[step](xt, eps_hat, 5, 0, z)
    np.testing.assert_array_equal(quiet, STEPS[step](xt, eps_hat, 5, 0, np.full_like(z, np.nan)))
    assert_close(quiet, diffusion.x0_from_eps(xt, eps_hat, 5, T20), rel=1e-14, scale=np.abs(quiet) + np.abs(xt))
    noisy = STEPS[step](xt, eps_hat, 5, 1, z)
    without = STEPS[step](xt, eps_hat, 5, 1, 0 * z)
    assert np.array_equal(noisy, without) == (step == "ddim 0.0")


def test_ddim_without_noise_needs_none():
    xt, eps_hat = np.random.default_rng(5).standard_normal((2, 2, 3))
    np.testing.assert_array_equal(diffusion.ddim_step(xt, eps_hat, 9, 4, None, 0, T20),
                                  diffusion.ddim_step(xt, eps_hat, 9, 4, np.full_like(xt, np.inf), 0.0, T20))
    with pytest.raises(ValueError, match=r"\bz\b"):
        diffusion.ddim_step(xt, eps_hat, 9, 4, None, 0.5, T20)


@pytest.mark.parametrize("step", STEPS)
def test_a_clip_that_clips_nothing_changes_nothing(step):
    xt, eps_hat, z = np.random.default_rng(6).standard_normal((3, 2, 3))
    assert_close(STEPS[step](xt, eps_hat, 9, 4, z, clip=1e3), STEPS[step](xt, eps_hat, 9, 4, z), rel=1e-14, scale=10.0)
    np.testing.assert_array_equal(STEPS[step](50 * xt, eps_hat, 9, 0, z, clip=0.5), 0.5 * np.sign(xt))


def test_empty_batches_pass_through():
    none = np.zeros((0, 3))
    no_t = np.zeros(0, int)
    assert diffusion.q_sample(none, no_t, none, T20).shape == (0, 3)
    for step in STEPS.values():
        assert step(none, none, no_t, no_t, none).shape == (0, 3)
