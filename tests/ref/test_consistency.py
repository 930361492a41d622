"""Consistency models: the boundary, the metric, and pairs of points on Gaussian data, whose exact consistency function
is known."""
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ref import consistency
from tests import assert_close

SIGMA_MIN, S2 = 0.002, 0.7


def exact(x, sigma):
    """For x0 ~ N(0, S2) the ODE keeps x / sqrt(S2 + sigma^2): it goes to sigma_min along that."""
    scale = np.sqrt((S2 + SIGMA_MIN**2) / (S2 + np.asarray(sigma) ** 2))
    return x * scale.reshape(scale.shape + (1,) * (x.ndim - scale.ndim))


def denoise(x, sigma):
    """E[x0 | x] of the same data."""
    shrink = S2 / (S2 + np.asarray(sigma) ** 2)
    return x * shrink.reshape(shrink.shape + (1,) * (x.ndim - shrink.ndim))


@given(sigma_min=st.floats(0, 1), sigma_data=st.floats(0.01, 10), x=st.floats(-1e3, 1e3), F=st.floats(-1e3, 1e3))
def test_at_sigma_min_the_data_are_left_alone(sigma_min, sigma_data, x, F):
    """f(x, sigma_min) = x, to the bit, whatever the network says."""
    c_skip, c_out = consistency.boundary_scalings(sigma_min, sigma_min, sigma_data)
    assert c_skip == 1 and c_out == 0 and c_skip * x + c_out * F == x


def test_boundary_scalings_by_hand():
    """sigma_data = 3, sigma_min = 1: at sigma = 4, 9 / (9 + 9) and 3 * 3 / 5; far away 0 and sigma_data."""
    c_skip, c_out = consistency.boundary_scalings(np.array([1.0, 4.0, 1e14]), 1.0, 3.0)
    assert_close(c_skip, np.array([1, 0.5, 9e-28]))
    assert_close(c_out, np.array([0, 1.8, 3.0]))
    c_skip, c_out = consistency.boundary_scalings(np.float32(0.502))  # the paper's numbers are the defaults
    assert c_skip.dtype == np.float64 and abs(c_skip - 0.5) < 1e-7 and abs(c_out - 0.25 / np.hypot(0.5, 0.502)) < 1e-7


def test_pseudo_huber_by_hand():
    """Distances 5 and 0 in two examples, c = 12: (13 - 12 + 0) / 2; the norm is over both axes of an example."""
    a = np.array([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    b = np.array([[[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert_close(consistency.pseudo_huber_loss(a, b, 12), np.array(0.5))
    # weights 1 / (sigma_t - sigma_s) = 2 and 4, and one pair of levels for all
    assert_close(consistency.consistency_loss(a, b, np.array([1.0, 9.0]), np.array([0.5, 8.75]), 12), np.array(1.0))
    assert_close(consistency.consistency_loss(a, b, 1.0, 0.5, 12), np.array(1.0))
    b = b + np.array([0.0, 5 / 2])[:, None, None]  # now both are 5 apart
    assert_close(consistency.consistency_loss(a, b, np.array([1.0, 9.0]), np.array([0.5, 8.75]), 12), np.array(3.0))


@pytest.mark.parametrize("distance", [1e-12, 1e-3, 1.0, 1e6])
def test_pseudo_huber_is_a_square_near_by_and_a_distance_far_off(distance):
    """d^2 / (2 c) and d - c, each to the order that it leaves out: no cancellation, even where d^2 is far below an ulp
    of c."""
    loss = consistency.pseudo_huber_loss(np.array([[distance]]), np.zeros((1, 1)), 1.0)
    if distance < 1:
        assert abs(loss / (distance**2 / 2) - 1) <= distance**2 / 4 + 1e-15
    else:
        assert abs(loss - (distance - 1)) <= 0.51 / distance


def draws(B=3):
    return np.random.default_rng(5).standard_normal((2, B, 2, 2))


def test_training_pair_is_one_noise_at_two_levels():
    x0, eps = draws()
    high, low = np.array([2.0, 5.0, 0.01]), np.array([1.0, 4.0, 0.002])
    xt, xs = consistency.training_pair(x0, eps, high, low)
    assert_close(xt, x0 + high[:, None, None] * eps)
    assert_close(xs, x0 + low[:, None, None] * eps)
    np.testing.assert_array_equal(consistency.training_pair(x0, eps, 2.0, 1.0)[0], x0 + 2 * eps)


def test_a_heun_step_keeps_to_the_exact_path_to_third_order():
    """The error of one step falls by 8 where the step is halved; Euler's, or a step with the second slope alone, by
    4."""
    x0, eps = draws()

    def off_by(pair):
        def miss(width):
            xt, xs = pair(x0, eps, 2.0, 2.0 - width)
            return np.abs(exact(xs, 2.0 - width) - exact(xt, 2.0)).max()
        return np.diff(np.log2([miss(0.1), miss(0.05), miss(0.025), miss(0.0125)]))

    def euler(x0, eps, t, s):
        xt = x0 + t * eps
        return xt, xt + (s - t) * (xt - denoise(xt, t)) / t

    assert np.all(np.abs(off_by(lambda *a: consistency.distillation_pair(denoise, *a)) + 3) < 0.15)
    assert np.all(np.abs(off_by(euler) + 2) < 0.15)
    assert np.all(np.abs(off_by(lambda *a: consistency.distillation_pair(lambda x, s: denoise(x, 1.01 * s),
                                                                         *a)) + 1) < 0.15)


def test_the_exact_function_has_no_distillation_loss_in_the_limit_and_a_wrong_one_has():
    x0, eps = draws()
    sigma = np.array([0.01, 0.5, 20.0])
    losses = [consistency.distillation_step(exact, exact, denoise, x0, eps, sigma, sigma * (1 - width), 1e-9)[0]
              for width in (0.1, 0.03, 0.01)]
    assert losses[2] < 1e-5 and losses[0] > 5 * losses[1] > 25 * losses[2]
    wrong = [consistency.distillation_step(denoise, denoise, denoise, x0, eps, sigma, sigma * (1 - width), 1e-9)[0]
             for width in (0.1, 0.03, 0.01)]
    assert min(wrong) > 0.1  # the denoiser is not the consistency function


def test_steps_are_their_parts_and_no_gradient_goes_through_the_teacher():
    """The student is looked at once, at sigma_t; the teacher once, at sigma_s; dstudent is the derivative of L with the
    teacher held."""
    x0, eps = draws()
    high, low, c = np.array([2.0, 5.0, 0.01]), np.array([1.0, 4.0, 0.002]), 0.03
    seen = []

    def student(x, sigma):
        seen.append(("student", sigma))
        return 0.3 * exact(x, sigma)

    def teacher(x, sigma):
        seen.append(("teacher", sigma))
        return 0.6 * exact(x, sigma)

    steps = {"training": (consistency.training_step, consistency.training_pair(x0, eps, high, low)),
             "distillation": (lambda f, g, *a: consistency.distillation_step(f, g, denoise, *a),
                              consistency.distillation_pair(denoise, x0, eps, high, low))}
    for name, (step, (xt, xs)) in steps.items():
        seen.clear()
        loss, dstudent = step(student, teacher, x0, eps, high, low, c)
        assert [who for who, _ in seen] == ["student", "teacher"], name
        assert np.array_equal(seen[0][1], high) and np.array_equal(seen[1][1], low), name
        outputs = 0.3 * exact(xt, high), 0.6 * exact(xs, low)
        assert loss == consistency.consistency_loss(*outputs, high, low, c)
        np.testing.assert_array_equal(dstudent, consistency.consistency_loss_backward(1.0, *outputs, high, low, c))
        bump = 1e-30j * (xt == xt[1, 0, 0])
        moved = consistency.consistency_loss(outputs[0] + bump, outputs[1], high, low, c).imag / 1e-30
        assert abs(moved / dstudent[1, 0, 0] - 1) < 1e-12


def test_lognormal_weights_are_the_mass_of_each_interval():
    sigmas = np.exp(-1.1 + 2 * np.array([3.0, 1.0, 0.0, -1.0]))  # one and three deviations about the mean
    inside = [math.erf(k / 2**0.5) for k in (1, 3)]
    mass = np.array([inside[1] - inside[0], inside[0], inside[0]]) / 2
    assert_close(consistency.lognormal_sigma_weights(sigmas), mass / mass.sum())
    assert_close(consistency.lognormal_sigma_weights(sigmas**2, mean=-2.2, std=4.0), mass / mass.sum())
    assert abs(consistency.lognormal_sigma_weights(np.geomspace(80, 0.002, 1281)).sum() - 1) < 1e-14


def test_discretization_steps_double_at_equal_intervals():
    """K = 80 steps, 10 to 1280 levels: 7 doublings, 8 intervals of 10."""
    assert [consistency.discretization_steps(k, 80)
            for k in (0, 9, 10, 19, 20, 69, 70, 79)] == [11, 11, 21, 21, 41, 641, 1281, 1281]
    assert consistency.discretization_steps(99, 100, 2, 2) == 3
    assert consistency.discretization_steps(82, 83) == 1281  # what does not divide stays at the top
