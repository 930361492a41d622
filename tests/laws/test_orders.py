"""The order of each solver, exact: how its error falls with the number of steps, on Gaussian data."""
import numpy as np
import pytest

from ref import edm, samplers, schedules
from tests.laws.test_samplers import (
    KEPT, SAMPLERS, SPREADS, WRONG_MODELS, best_eps, best_velocity, best_x0, output_variance, spread,
)  # fmt: skip

# sigma falls from 10 to 0.3 by equal factors, so that h, the step in lambda, is one for all: 0.09 at 40 steps. On a run
# to 0 the last h does not shrink with the number of steps, and the multistep solvers show no order.
GEOMETRIC = np.append(1.0, edm.abar_from_sigma(np.geomspace(0.3, 10, 641)))
ORDERS = {"ddim 0": 1, "euler": 1, "flow_euler": 1, "heun": 2, "flow_heun": 2, "dpmpp_2m": 2, "unipc 2": 2}


def slopes(errors):
    return -np.diff(np.log2(errors))


def error(name, n, s2=0.3, **wrong):
    """Relative, of what is made against the exact solution of the probability-flow ODE, which has the data's
    variance."""
    made, _, last = output_variance(name, np.arange(641, 0, -640 // n), GEOMETRIC, s2, **wrong)
    return abs(made / last - 1)


@pytest.mark.parametrize("name", ORDERS)
def test_the_slope_of_the_error_is_the_order(name):
    measured = slopes([error(name, n) for n in (40, 80, 160)])
    assert np.all(np.abs(measured - ORDERS[name]) < 0.15), measured
    for wrong in WRONG_MODELS.values():
        assert np.all(slopes([error(name, n, wrong_model=wrong) for n in (40, 80, 160)]) < 0.5)


@pytest.mark.parametrize("order, slope", [(1, 2), (2, 3), (3, 3)])
def test_unipc_inside_a_run(order, slope):
    """The last step is of first order, which hides what the corrector does. Seen where the model is asked last, before
    that step, the error of UniPC of order p falls with p + 1; of order 3 only with 3, which is what the first steps, of
    lower order, leave."""
    s2, errors = 0.3, []
    for n in (40, 80, 160):
        seen = []

        def model(x, t):
            seen.append((x.item(), t))
            return best_eps(GEOMETRIC, s2)(x, t)
        samplers.unipc(model, np.ones(1), np.arange(641, 0, -640 // n), GEOMETRIC, order)
        x, t = seen[-1]
        errors.append(abs(x / np.sqrt(spread(GEOMETRIC[t], s2) / spread(GEOMETRIC[641], s2)) - 1))
    assert np.all(np.abs(slopes(errors) - slope) < 0.25), slopes(errors)


def test_heun_and_euler_keep_their_order_down_to_0():
    s2 = 0.3
    for sampler, order in ((samplers.euler, 1), (samplers.heun, 2)):
        ends = [sampler(best_x0(s2), np.ones(1), np.linspace(2, 0, n + 1)).item() for n in (40, 80, 160)]
        assert np.all(np.abs(slopes(np.abs(np.array(ends) / np.sqrt(s2 / (s2 + 4)) - 1)) - order) < 0.15)
    for sampler, order in ((samplers.flow_euler, 1), (samplers.flow_heun, 2)):
        ends = [sampler(best_velocity(s2), np.ones(1), schedules.flow_times(n)).item() for n in (40, 80, 160)]
        assert np.all(np.abs(slopes(np.abs(np.array(ends) / np.sqrt(s2) - 1)) - order) < 0.15)


# which adds more noise than it takes away
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "heun with churn, 1.1"])
def test_all_samplers_agree_in_the_limit_of_many_steps(name):
    """With noise or without, in any of the three parametrisations: the data's variance. A wrong model has another
    limit."""
    few, many = [np.array([error(name, n, s2) for s2 in SPREADS]) for n in (160, 640)]
    assert np.all(many < 0.02) and np.all((many < few / 3.5) | (many < KEPT)), (few, many)
    for wrong in WRONG_MODELS.values():
        assert max(error(name, 640, s2, wrong_model=wrong) for s2 in SPREADS) > 0.05
