"""Schedules: diffusers' numbers, what each schedule promises, and the times of a sampler."""
import numpy as np
import pytest
from hypothesis import given, strategies as st

from ref import schedules
from tests import assert_close, golden

GOLD = golden("schedules")
DDPM = golden("ddpm")
SCHEDULES = {  # the names of the goldens, and what makes the same betas here
    "linear": lambda: schedules.linear_betas(),
    "scaled_linear": lambda: schedules.scaled_linear_betas(),
    "squaredcos_cap_v2": lambda: schedules.cosine_betas(),
    "linear_T100": lambda: schedules.linear_betas(100),
    "cosine_T50": lambda: schedules.cosine_betas(50),
    "sigmoid": lambda: GOLD["sigmoid/betas"],  # not a schedule of ours; its betas try alpha_bar and zero_terminal_snr
}
SPACINGS = ["leading", "trailing", "linspace"]
MAKERS = [schedules.linear_betas, schedules.scaled_linear_betas, schedules.cosine_betas]


@pytest.mark.parametrize("name", SCHEDULES)
def test_betas_alpha_bar_and_snr_replay_diffusers(name):
    betas = SCHEDULES[name]()
    abar = schedules.alpha_bar(betas)
    assert abar[0] == 1.0
    assert_close(betas, GOLD[f"{name}/betas"], scale=1.0)  # their cosine is 1 less a ratio
    assert_close(abar[1:], GOLD[f"{name}/alphas_cumprod"])
    if f"{name}/snr" in GOLD:
        theirs = np.append(1.0, GOLD[f"{name}/alphas_cumprod"])  # 1 less it shows the last digit
        assert_close(schedules.snr(theirs)[GOLD["t"] + 1], GOLD[f"{name}/snr"])
    abar = schedules.zero_terminal_snr(abar)
    assert abar[0] == 1.0 and abar[-1] == 0.0
    assert_close(abar[1:], GOLD[f"{name}_zsnr/alphas_cumprod"])
    assert_close(1 - abar[1:] / abar[:-1], GOLD[f"{name}_zsnr/betas"], scale=1.0, rel=1e-13)  # from numbers near 1


@pytest.mark.parametrize("run, T, spacing", [("full100", 100, "leading"), ("full100_clip_large", 100, "leading"),
                                             ("respaced50_cos", 1000, "leading"), ("respaced10_thr", 1000, "leading"),
                                             ("respaced50_v_trailing_zsnr", 1000, "trailing")])
def test_spaced_times_replay_diffusers(run, T, spacing):
    theirs = DDPM[f"{run}/timesteps"]
    np.testing.assert_array_equal(schedules.spaced_times(T, len(theirs), spacing), np.append(theirs + 1, 0))


def test_the_defaults_are_the_papers():
    assert schedules.linear_betas().shape == (1000,)
    assert schedules.linear_betas()[[0, -1]].tolist() == [1e-4, 0.02]
    assert_close(schedules.scaled_linear_betas()[[0, -1]], np.array([0.00085, 0.012]))
    assert schedules.cosine_betas()[-1] == 0.999


@pytest.mark.parametrize("betas_of", MAKERS[:2])
def test_betas_meant_for_another_T(betas_of):
    """The ends of guided-diffusion, 1000 / T of those for 1000; meant for T itself they are the same to the bit; and
    20 steps meant for 1000 would end at a beta of 1."""
    np.testing.assert_array_equal(betas_of(1000, meant_for=1000), betas_of())
    np.testing.assert_array_equal(betas_of(30, 0.1, 0.2, 30), betas_of(30, 0.1, 0.2))
    for T in (250, 4000):
        assert_close(betas_of(T, meant_for=1000)[[0, -1]], betas_of()[[0, -1]] * 1000 / T)
        assert_close(betas_of(T, meant_for=1000), betas_of(T) * 1000 / T)
    with pytest.raises(ValueError, match="meant_for / T = 1000 / 12"):
        betas_of(12, meant_for=1000)


@pytest.mark.parametrize("betas_of, rate", [
    (schedules.linear_betas, lambda u: 0.1 * u + 19.9 * u**2 / 2),
    (schedules.scaled_linear_betas, lambda u: 1000 * (
        0.00085 * u + 0.00085**0.5 * (0.012**0.5 - 0.00085**0.5) * u**2 + (0.012**0.5 - 0.00085**0.5) ** 2 * u**3 / 3)),
])
def test_abar_of_betas_meant_for_another_T_depends_on_t_over_T(betas_of, rate):
    """It tends to exp(-integral of 1000 beta) with an error of the first order in 1 / T: twice T, half the error."""
    u = np.array([1, 2, 3, 4]) / 4

    def off(T):
        return -np.log(schedules.alpha_bar(betas_of(T, meant_for=1000))[(u * T).astype(int)]) / rate(u) - 1

    for T in (1000, 2000, 4000):
        assert np.all(np.abs(off(T)) < 25 / T)
        np.testing.assert_allclose(off(T) / off(2 * T), 2, rtol=0.03)
    assert schedules.alpha_bar(betas_of(100))[-1] > 0.3, "unscaled, a tenth of the steps adds a tenth of the noise"


def test_short_schedules_by_hand():
    assert_close(schedules.linear_betas(3, 0.1, 0.3), np.array([0.1, 0.2, 0.3]))
    assert_close(schedules.scaled_linear_betas(3, 0.01, 0.09), np.array([0.01, 0.04, 0.09]))
    # offset 0, T = 3: f = cos^2 of 0, 30, 60, 90 degrees = 1, 3/4, 1/4, 0
    assert_close(schedules.cosine_betas(3, 0.0, 0.9), np.array([1 / 4, 2 / 3, 0.9]))
    assert_close(schedules.alpha_bar([0.5, 0.2, 0.25]), np.array([1, 0.5, 0.4, 0.3]))
    assert_close(schedules.snr(np.array([0.5, 0.2, 0.9])), np.array([1, 0.25, 9]))
    # roots of 0.81, 0.25, 0.01 are 0.9, 0.5, 0.1; minus 0.1, times 0.9 / 0.8: 0.9, 0.45, 0
    assert_close(schedules.zero_terminal_snr([1, 0.81, 0.25, 0.01]), np.array([1, 0.81, 0.2025, 0]))


def test_snr_at_both_ends():
    assert schedules.snr(np.array([1.0, 0.0])).tolist() == [np.inf, 0.0]
    assert schedules.snr(0.5).shape == ()


@given(T=st.integers(1, 1200))
@pytest.mark.parametrize("betas_of", MAKERS)
def test_every_schedule_gives_variances_and_a_falling_alpha_bar(betas_of, T):
    betas = betas_of(T)
    abar = schedules.alpha_bar(betas)
    assert betas.shape == (T,) and betas.dtype == np.float64 and np.all((0 < betas) & (betas < 1))
    assert np.all(np.diff(betas) >= 0), "noise is added ever faster"
    assert abar.shape == (T + 1,) and abar[0] == 1 and np.all(np.diff(abar) < 0) and abar[-1] > 0
    assert np.all(np.diff(schedules.snr(abar)) < 0)


@given(betas=st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_alpha_bar_composes(betas):
    """The first half, then the second half begun again from 1, multiply to the whole."""
    half = len(betas) // 2
    whole = schedules.alpha_bar(betas)
    first, second = schedules.alpha_bar(betas[:half] or [0.0])[-1], schedules.alpha_bar(betas[half:])[-1]
    assert abs(whole[-1] - first * second) <= 1e-14 * whole[-1]


@given(betas=st.lists(st.floats(1e-4, 0.9), min_size=2, max_size=50))
def test_zero_terminal_snr_keeps_the_first_and_zeroes_the_last(betas):
    abar = schedules.alpha_bar(betas)
    changed = schedules.zero_terminal_snr(abar)
    assert changed[0] == 1 and changed[-1] == 0 and np.all(np.diff(changed) <= 0)
    assert abs(changed[1] - abar[1]) <= 1e-14
    again = schedules.zero_terminal_snr(changed)
    assert np.all(np.abs(again - changed) <= 1e-14)


@pytest.mark.parametrize("T, spacing, times", [
    (10, "leading", [9, 7, 5, 3, 1, 0]),
    (10, "trailing", [10, 8, 6, 4, 2, 0]),
    (10, "linspace", [10, 8, 5, 3, 1, 0]),  # 1, 3.25, 5.5, 7.75, 10: the half goes to 4 counted from 0
    (1000, "leading", [801, 601, 401, 201, 1, 0]),
    (1000, "trailing", [1000, 800, 600, 400, 200, 0]),
    (1000, "linspace", [1000, 750, 501, 251, 1, 0]),  # 1, 250.75, 500.5, 750.25, 1000
    (1000, "trailing", [1000, 857, 714, 571, 429, 286, 143, 0]),  # 1000 / 7 = 142.86
    (1000, "leading", [853, 711, 569, 427, 285, 143, 1, 0]),  # 142
])
def test_times_by_hand(T, spacing, times):
    """The formulas of [ZSNR] table 2, and a 0 at the end, which is where a sampler stops."""
    ours = schedules.spaced_times(T, len(times) - 1, spacing)
    assert ours.dtype == np.int64 and ours.tolist() == times


@given(data=st.data(), T=st.integers(1, 1500))
@pytest.mark.parametrize("spacing", SPACINGS)
def test_times_descend_strictly_from_at_most_T_to_0(spacing, data, T):
    _check_times(T, data.draw(st.integers(1, T)), spacing)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_times_of_every_small_T_and_steps(spacing):
    for T in range(1, 41):
        for steps in range(1, T + 1):
            _check_times(T, steps, spacing)
    for steps in range(1, 1001):
        _check_times(1000, steps, spacing)


def _check_times(T, steps, spacing):
    times = schedules.spaced_times(T, steps, spacing)
    assert times.shape == (steps + 1,) and times[-1] == 0 and times[0] <= T
    assert np.all(np.diff(times) < 0), f"a sampler would stand still: T={T}, steps={steps}: {times}"
    strides = -np.diff(times if spacing == "trailing" else times[:-1])  # the other two spacings end at 1
    if spacing == "leading":
        assert np.all(strides == T // steps)
    elif strides.size:
        assert np.ptp(strides) <= 1, "as even as whole numbers can be"
    if spacing == "trailing" or (spacing == "linspace" and steps > 1) or steps == T:
        assert times[0] == T
    if spacing == "leading" or spacing == "linspace":
        assert times[-2] == 1
    if steps == T:
        assert times.tolist() == list(range(T, -1, -1))


def test_karras_sigmas_by_hand():
    """rho = 2: the roots 3, 2, 1 are equally spaced. rho = 1: the levels themselves are."""
    assert_close(schedules.karras_sigmas(3, 1.0, 9.0, 2), np.array([9, 4, 1, 0.0]), scale=1.0)
    assert_close(schedules.karras_sigmas(3, 1.0, 9.0, 1), np.array([9, 5, 1, 0.0]), scale=1.0)
    assert_close(schedules.karras_sigmas(1), np.array([80, 0.0]), scale=80)
    middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7  # the defaults are table 1's
    assert_close(schedules.karras_sigmas(3), np.array([80, middle, 0.002, 0]), scale=1.0)


@given(steps=st.integers(1, 300), low=st.floats(1e-3, 1), ratio=st.floats(1.5, 1e4), rho=st.floats(0.5, 10))
def test_karras_sigmas_descend_from_sigma_max_by_sigma_min_to_0(steps, low, ratio, rho):
    sigmas = schedules.karras_sigmas(steps, low, low * ratio, rho)
    assert sigmas.shape == (steps + 1,) and sigmas.dtype == np.float64 and sigmas[-1] == 0
    assert np.all(np.diff(sigmas) < 0)
    assert abs(sigmas[0] / (low * ratio) - 1) < 1e-12 and (steps == 1 or abs(sigmas[-2] / low - 1) < 1e-12)


def test_flow_times_by_hand():
    """Shifted by 3, t goes to 3 t / (1 + 2 t)."""
    assert_close(schedules.flow_times(4), np.array([1, 0.75, 0.5, 0.25, 0]))
    assert_close(schedules.flow_times(4, 3.0), np.array([1, 0.9, 0.75, 0.5, 0]))
    assert schedules.flow_times(1, 3.0).tolist() == [1, 0]


@given(steps=st.integers(1, 300), shift=st.floats(0.05, 20))
def test_flow_times_descend_from_exactly_1_to_0_and_are_shifted_once(steps, shift):
    times = schedules.flow_times(steps, shift)
    assert times.shape == (steps + 1,) and times[0] == 1 and times[-1] == 0 and np.all(np.diff(times) < 0)
    inner = times[1:-1]
    odds = inner / (1 - inner) / shift  # what is left of the odds is equally spaced time's
    assert np.all(np.abs(odds / (1 + odds) - np.linspace(1, 0, steps + 1)[1:-1]) < 1e-11)


@given(index=st.integers(0, 1000))
def test_times_and_indices_are_inverses(index):
    """betas[0] is beta_1."""
    assert schedules.time_from_index(0) == 1 and schedules.index_from_time(1000) == 999
    assert schedules.index_from_time(schedules.time_from_index(index)) == index
    assert schedules.time_from_index(np.arange(3)).tolist() == [1, 2, 3]
    assert schedules.index_from_time(np.array([1, 2])).tolist() == [0, 1]
    np.testing.assert_array_equal(schedules.time_from_index(schedules.index_from_time(np.array([1, index + 1]))),
                                  [1, index + 1])
