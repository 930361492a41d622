"""Laws of runs: flow matching and the diffusion are one, and times compose."""
from itertools import pairwise

import numpy as np
import pytest

from ref import diffusion, edm, flow, samplers, schedules
from tests.ref import BY_TIME
from tests.laws.test_samplers import BROKEN, KEPT, SPACINGS, best_eps, best_velocity, spread


def bent(x, sigma):
    """An x0_hat of x = x0 + sigma eps that is no line."""
    return np.tanh(x) / (1 + sigma)


def law_of_one_first_order_solver(to_vp, to_flow, velocity, steps):
    """DDIM, Euler in sigma and Euler on the flow are the same step: each goes on with the same x0_hat and eps_hat. So
    with one x0_hat and the changes of variables they make the same samples, whatever the model and however few the
    steps."""
    times = flow.shift_times(np.linspace(0.8, 0, steps + 1), 2.0)
    abar = flow.abar_from_flow_time(times[::-1])
    sigmas = edm.sigma_from_abar(abar[::-1])
    start = np.linspace(-3, 3, 7)

    def model(xt, t):
        sigma = edm.sigma_from_abar(abar[t])
        return diffusion.eps_from_x0(xt, bent(edm.ve_from_vp(xt, sigma), sigma), t, abar)

    by_flow = samplers.flow_euler(velocity, to_flow(start, times[0]), times)
    by_sigma = samplers.euler(bent, edm.ve_from_vp(to_vp(to_flow(start, times[0]), times[0]), sigmas[0]), sigmas)
    by_time = samplers.ddim(model, start, np.arange(steps, -1, -1), None, 0, abar)
    return max(np.abs(by_flow - by_time).max(), np.abs(by_sigma - by_time).max())


def bent_velocity(x, t):
    return flow.velocity_from_x0(x, bent(x / (1 - t), t / (1 - t)), t)


@pytest.mark.parametrize("steps", [2, 3, 10, 100])
def test_flow_matching_and_the_diffusion_make_the_same_samples(steps):
    vp, fl = flow.vp_from_flow, flow.flow_from_vp
    assert law_of_one_first_order_solver(vp, fl, bent_velocity, steps) < KEPT
    assert law_of_one_first_order_solver(vp, fl, lambda x, t: -bent_velocity(x, t), steps) > BROKEN
    assert law_of_one_first_order_solver(vp, fl, lambda x, t: bent_velocity(x, flow.reverse_time(t)), steps) > BROKEN
    assert law_of_one_first_order_solver(vp, lambda x, t: x, bent_velocity, steps) > BROKEN
    assert law_of_one_first_order_solver(fl, vp, bent_velocity, steps) > BROKEN


def test_gaussian_samples_of_flow_and_diffusion_agree_through_the_change_of_variables():
    """Solvers of second order on either side, from one x_T: x0 = x_T sqrt(s2 / V_T), and each other's within the square
    of a step."""
    s2, xT = 0.3, np.linspace(-2, 2, 5)
    abar = edm.abar_from_sigma(np.append(0, np.geomspace(0.01, 10, 800)))
    times = flow.flow_time_from_abar(abar[::-1])
    by_flow = samplers.flow_heun(best_velocity(s2), flow.flow_from_vp(xT, times[0]), times)
    by_time = samplers.dpmpp_2m(best_eps(abar, s2), xT, np.arange(800, -1, -1), abar)
    exact = xT * np.sqrt(s2 / spread(abar[-1], s2))
    assert np.abs(by_flow - exact).max() < 1e-3 and np.abs(by_time - exact).max() < 1e-3
    assert np.abs(samplers.flow_heun(best_velocity(s2), xT, times) - exact).max() > 0.01  # without it


def law_of_times(sampler, times, abar):
    """Where a step ends the next begins. A model that knows x0 = 1 and eps = 0 keeps every sampler on x_t =
    sqrt(abar_t), so that each x says at which time the step before it has ended; that is when the model has to be asked
    about it, at the times given."""
    seen = []

    def model(xt, t):
        seen.append((xt.item(), t))
        return np.zeros_like(xt)
    end = sampler(model, np.array([np.sqrt(abar[times[0]])]), times, np.zeros((len(times) - 1, 1)), abar).item()
    if [t for _, t in seen] != list(times[:-1]):
        return np.inf
    return max(abs(x / np.sqrt(abar[t]) - 1) for x, t in [*seen, (end, times[-1])])


T50, T1000 = schedules.alpha_bar(schedules.linear_betas(50, 0.002, 0.2)), schedules.alpha_bar(schedules.linear_betas())


def by_arithmetic(stride):
    """DDIM that goes from each time to the one that `stride` computes from it, and not to the next of the list."""
    def sampler(f, x, times, z, abar):
        for t in times[:-1].tolist():
            x = diffusion.ddim_step(x, f(x, t), t, max(stride(t, len(times) - 1, abar.size - 1), 0), None, 0, abar)
        return x
    return sampler


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", BY_TIME)
def test_times_compose_for_every_number_of_steps(name, spacing):
    for steps in range(1, 51):
        assert law_of_times(BY_TIME[name], schedules.spaced_times(50, steps, spacing), T50) < KEPT, steps
    for steps in (1, 2, 7, 30, 50, 333):
        assert law_of_times(BY_TIME[name], schedules.spaced_times(1000, steps, spacing), T1000) < KEPT, steps


def test_the_previous_time_is_not_to_be_computed():
    """t - T // S is the next time of the leading spacing only. Of the pairs before the last at T = 1000 it misses:"""
    rule = by_arithmetic(lambda t, steps, T: t - T // steps)
    missed = {}
    for spacing in SPACINGS:
        for steps in (30, 50):
            times = schedules.spaced_times(1000, steps, spacing)
            missed[spacing, steps] = sum(t - 1000 // steps != s for t, s in list(pairwise(times.tolist()))[:-1])
            assert (law_of_times(rule, times, T1000) > BROKEN) == (missed[spacing, steps] > 0)
    assert missed == {("leading", 30): 0, ("leading", 50): 0, ("linspace", 30): 29, ("linspace", 50): 19,
                      ("trailing", 30): 10, ("trailing", 50): 0}
    one_less = by_arithmetic(lambda t, steps, T: t - 1)
    assert all(law_of_times(one_less, schedules.spaced_times(50, 7, spacing), T50) > BROKEN for spacing in SPACINGS)


@pytest.mark.parametrize("name", BY_TIME)
def test_a_list_of_times_that_is_not_followed_breaks_it(name):
    """Every second time left out, the last step cut off, or a model that is asked where the step ends."""
    times = schedules.spaced_times(50, 10, "trailing")
    run = BY_TIME[name]
    assert law_of_times(lambda f, x, times, z, abar: run(f, x, times[::2], z, abar), times, T50) > BROKEN
    assert law_of_times(lambda f, x, times, z, abar: run(f, x, times[:-1], z, abar), times, T50) > BROKEN
    assert law_of_times(lambda f, x, times, z, abar: run(lambda x, t: f(x, t - 5), x, times, z, abar), times,
                        T50) > BROKEN
