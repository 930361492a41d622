"""The studies score, likelihood, flow, consistency and training: closed forms against differences, tiny trainings."""
import numpy as np
import pytest

from bench.studies import consistency, denoiser, flow, likelihood, score, training
from ref import consistency as steps
from ref import edm, fused, philox, samplers, schedules, tree
from ref.nets import mlp
from tests.bench import along

ABAR = denoiser.alpha_bar("cosine")


def test_the_exact_score_is_the_gradient_of_the_log_density():
    x, h = 1.5 * philox.normal(0, (50, 2)), 1e-5
    for t in (20, 400, 980):
        for axis, step in enumerate(h * np.eye(2)):
            slope = (score.log_density(x + step, ABAR[t]) - score.log_density(x - step, ABAR[t])) / (2 * h)
            np.testing.assert_allclose(score.exact_score(x, ABAR[t])[:, axis], slope, rtol=1e-5, atol=1e-6)


def test_the_mixture_has_the_moments_of_its_parts():
    x = score.mixture(100_000, 3, 0, 1)
    mean = score.WEIGHTS @ score.MEANS
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.015)
    squares = score.WEIGHTS @ (np.sum(score.MEANS**2, axis=1) + 2 * score.STDS**2)
    np.testing.assert_allclose((x**2).sum(axis=1).mean(), squares, rtol=0.01)


def test_a_short_training_brings_the_field_nearer_and_the_losses_keep_their_factor():
    start = score.measure(score.train(1, 16, ABAR, 0, lambda: None), 500, ABAR, 2000, 0)
    later = score.measure(score.train(150, 128, ABAR, 0, lambda: None), 500, ABAR, 2000, 0)
    assert later["relative_error"] < 0.6 * start["relative_error"]
    assert later["eps_loss"] > later["least_eps_loss"] and max(start["factor_off"], later["factor_off"]) < 1e-13


def net(pixels=6):
    """A net of random weights, its blocks too, in float64."""
    params = mlp.residual_init(1, pixels=pixels, width=16, depth=2, frequencies=8, dtype=np.float64)
    streams = iter(range(100))
    return tree.map(lambda p: p + 0.2 * philox.normal(2, p.shape, next(streams)), params)


def test_the_drift_against_central_differences():
    params, x, probe, labels = net(), 0.3 * philox.normal(0, (5, 6)), philox.normal(0, (5, 6), 1), np.arange(5)
    drift = lambda x: likelihood.drift_and_vjp(params, x, -0.5, probe, labels, ABAR)
    np.testing.assert_allclose(*along(lambda x: np.sum(probe * drift(x)[0]), x, drift(x)[1]), rtol=1e-7)
    free = likelihood.denoise(params, x, np.exp(-0.5), labels, ABAR)[1]
    assert np.any(free) and not np.all(free)


def test_the_ode_is_exact_where_the_net_is():
    """v = 0 is right for data of unit variance: the density of what is not held to [-1, 1] is the Gaussian's."""
    params = tree.zeros_like(net())
    sigma = float(edm.sigma_at(700, ABAR))
    x = 0.3 * philox.normal(0, (4, 6))
    bits = likelihood.ode_bits(params, x, np.zeros(4), np.zeros(4, int), 700, 200, ABAR, 0, lambda: None)
    variance = 1 + sigma**2
    exact = np.sum(0.5 * x**2 / variance + 0.5 * np.log(2 * np.pi * variance), axis=1) / (6 * np.log(2))
    np.testing.assert_allclose(bits, exact, rtol=1e-6)


def test_levels_are_spread_over_their_bins_with_their_density():
    x = np.array([[-1.0, -1.0, 1 / 255, 1.0]])
    share = np.linspace(0.001, 0.999, 2001)[:, None] * np.ones(4)
    points, log_q = likelihood.spread_evenly(np.repeat(x, 2001, axis=0), share)
    assert np.abs(points - x).max() <= likelihood.HALF_BIN and np.allclose(log_q, -4 * np.log(2 / 255))
    points, log_q = likelihood.spread_truncated(np.repeat(x, 2001, axis=0), share, 0.004)
    assert np.all(points[:, :2] <= -1 + likelihood.HALF_BIN) and points[:, 0].min() < -1.01
    assert np.all(points[:, 3] >= 1 - likelihood.HALF_BIN)
    assert np.abs(points[:, 2] - x[0, 2]).max() <= likelihood.HALF_BIN
    one = [likelihood.spread_truncated(np.repeat(x[:, [k]], 2001, axis=0), share[:, [k]], 0.004) for k in range(4)]
    np.testing.assert_allclose(sum(q for _, q in one), log_q)
    for points, log_q in one:  # a density of mass 0.998 between the shares 0.001 and 0.999
        mass = np.sum(np.diff(points[:, 0]) * (np.exp(log_q[1:]) + np.exp(log_q[:-1])) / 2)
        assert abs(mass - 0.998) < 1e-3


def test_the_fitted_variance_costs_less_and_both_have_a_term_for_each_step():
    params, abar = net(), denoiser.alpha_bar("cosine")[::100]
    x, labels = np.sign(philox.normal(0, (40, 6))), np.arange(40) % 10
    small, fitted = likelihood.bound_bits(params, x, labels, x, labels, abar, 0, lambda: None)
    assert small.shape == fitted.shape == (len(abar), 40) and fitted.sum() < small.sum()
    np.testing.assert_array_equal(small[-1], fitted[-1])


def test_the_flow_is_trained_down_its_loss():
    """The gradient against a central difference of mean(t^2 (v - (eps - x0))^2)."""
    params, x0, eps = net(), 0.5 * philox.normal(0, (5, 6)), philox.normal(0, (5, 6), 1)
    t, labels = np.array([0.05, 0.3, 0.5, 0.8, 1.0]), np.arange(5)

    def loss(params):
        v = flow.velocity(params, (1 - t[:, None]) * x0 + t[:, None] * eps, t, labels)[0]
        return np.mean(t[:, None] ** 2 * (v - (eps - x0)) ** 2)

    np.testing.assert_allclose(*along(loss, params, flow.gradients(params, x0, eps, t, labels)), rtol=1e-6)


def test_the_path_of_a_flow_ends_where_its_sample_does():
    params, eps, labels = net(), philox.normal(0, (3, 6)), np.arange(3)
    states = flow.path(params, eps, labels, 7)
    assert states.shape == (8, 3, 6) and np.array_equal(states[0], eps)
    end = flow.sample(params, eps, labels, schedules.flow_times(7), samplers.flow_euler)
    np.testing.assert_array_equal(states[-1], end)


def test_reflow_goes_on_from_the_flow():
    params = mlp.residual_init(0, pixels=6, width=16, depth=1, frequencies=8)
    x0 = philox.normal(0, (20, 6), 1).astype(np.float32)
    again = flow.reflow(params, philox.normal(0, (20, 6)), x0, np.arange(20) % 10, 3, 8, 0, lambda: None)
    assert 0 < max(tree.leaves(tree.map(lambda a, p: np.abs(a - p).max(), again, params))) < 0.01


def test_the_student_is_the_identity_at_the_end_and_the_net_far_from_it():
    params, x, labels = net(), philox.normal(0, (5, 6)), np.arange(5)
    f, into_F, _ = consistency.student(params, x, np.full(5, consistency.SIGMA_MIN), labels, ABAR)
    np.testing.assert_array_equal(f, x)
    assert not np.any(into_F)
    sigma = np.full(5, 80.0)
    f, into_F, _ = consistency.student(params, sigma[:, None] * x, sigma, labels, ABAR)
    F, _ = mlp.residual(params, edm.vp_from_ve(sigma[:, None] * x, sigma), edm.time_at(sigma, ABAR), labels)
    np.testing.assert_allclose(f, F, atol=1e-3)
    assert f.shape == (5, 6) and np.all(into_F > 0.9999)


@pytest.mark.parametrize("denoise", [None, lambda x, sigma: np.tanh(x / (1 + sigma[:, None]))])
def test_a_student_is_trained_down_its_loss_and_its_teacher_stands_still(denoise):
    """The gradient against a central difference of the loss, in which the teacher keeps its weights."""
    params, x0, eps, labels = net(), 0.5 * philox.normal(0, (5, 6)), philox.normal(0, (5, 6), 1), np.arange(5)
    sigma_t, sigma_s = np.array([0.15, 0.6, 2.0, 9.0, 80.0]), np.array([0.1, 0.4, 1.5, 7.0, 60.0])
    pair = steps.training_pair if denoise is None else lambda *given: steps.distillation_pair(denoise, *given)
    xt, xs = pair(x0, eps, sigma_t, sigma_s)
    target = consistency.student(params, xs, sigma_s, labels, ABAR)[0]

    def loss(params):
        student = consistency.student(params, xt, sigma_t, labels, ABAR)[0]
        return steps.consistency_loss(student, target, sigma_t, sigma_s, 0.00054 * np.sqrt(6))

    grads = consistency.gradients(params, x0, eps, sigma_t, sigma_s, labels, ABAR, denoise)
    np.testing.assert_allclose(*along(loss, params, grads), rtol=1e-6)


def test_pairs_are_neighbours_on_a_grid_that_grows():
    share = np.linspace(0.0005, 0.9995, 2000)
    for step, pairs in ((1, consistency.FEWEST), (60, consistency.MOST)):
        sigmas = schedules.karras_sigmas(pairs + 1, consistency.SIGMA_MIN, consistency.SIGMA_MAX)[:-1]
        sigma_t, sigma_s = consistency.neighbours(share, step, 60)
        where = [np.searchsorted(-sigmas, -s) for s in (sigma_t, sigma_s)]
        np.testing.assert_array_equal(where[1], where[0] + 1)
        np.testing.assert_array_equal(sigmas[where[0]], sigma_t)
        often = np.bincount(where[0], minlength=pairs) / share.size
        weights = steps.lognormal_sigma_weights(sigmas, consistency.LN_MEAN, consistency.LN_STD)
        np.testing.assert_allclose(often, weights, atol=1e-3)


def test_a_second_call_starts_from_the_first_and_its_own_noise():
    params, labels = net(), np.arange(4)
    first, second = (philox.normal(0, (4, 6), philox.stream("sampling", i)) for i in (0, 1))
    once = consistency.student(params, 80.0 * first, np.full(4, 80.0), labels, ABAR)[0]
    np.testing.assert_array_equal(consistency.sample(params, labels, ABAR, 1, 0), once)
    again = once + np.sqrt(consistency.SECOND**2 - consistency.SIGMA_MIN**2) * second
    twice = consistency.student(params, again, np.full(4, consistency.SECOND), labels, ABAR)[0]
    np.testing.assert_allclose(consistency.sample(params, labels, ABAR, 2, 0), twice, rtol=1e-12)


def test_both_students_start_as_the_net_and_leave_it_as_it_was():
    shared = mlp.residual_init(0, pixels=6, width=16, depth=1, frequencies=8)
    kept, digits = tree.map(np.copy, shared), (philox.normal(0, (20, 6), 1).astype(np.float32), np.arange(20) % 10)
    made = [consistency.train(shared, *digits, ABAR, how, 3, 8, 0, lambda: None) for how in (False, True)]
    largest = lambda a, b: max(tree.leaves(tree.map(lambda x, y: np.abs(x - y).max(), a, b)))
    assert all(0 < largest(params, shared) < 4 * consistency.LR for params in made)
    assert largest(*made) > 0 and largest(shared, kept) == 0
    assert consistency.apart(np.zeros((2, 4)), np.array([[1, -1, 1, 1], [0, 0, 4, 0]])) == 1.5


def test_training_is_followed_in_pieces_and_measured_by_the_rule():
    params, images = mlp.simple_mlp_init(0, 6, 5), np.sign(philox.normal(0, (20, 6), 1)).astype(np.float32)
    options, ends, ticks = dict(batch=7, lr=1e-3, seed=0, abar=ABAR, decay=0.9), (1, 2, 5), []
    exactly = tree.map(np.float64, params), images.astype(np.float64)
    exact = training.follow(fused.mlp_train, *exactly, ends, options, lambda: ticks.append(1))
    runners = {name: train for name, train in training.trainers(5).items() if name.startswith(("NumPy", "numba_cpu"))}
    paths = {n: training.follow(train, params, images, ends, options, lambda: None) for n, train in runners.items()}
    whole = runners["numba_cpu"](params, images, 5, **options)
    assert len(ticks) == 3 and len(paths) == 5 and np.array_equal(paths["numba_cpu"][0], whole[2])
    assert all(np.array_equal(paths["numba_cpu"][1][2][n], whole[0][n]) for n in params)
    paths["halved"] = exact[0], [{n: (p / 2).astype(np.float32) for n, p in at.items()} for at in exact[1]]
    rows = {(row["who"], row["steps"]): row for row in training.measured(params, exact, paths, ends)}
    for (who, end), row in rows.items():
        assert row["units"] > 100 if who == "halved" else row["apart"] < 1e-3 and row["units"] <= 1, row
        assert row["reference_loss"] == exact[0][end - 1] and row["loss"] == paths[who][0][end - 1]
        np.testing.assert_allclose(row["loss_off"], np.abs(paths[who][0] / exact[0] - 1)[:end].max(), atol=1e-15)
        if who == "halved":
            want = exact[1][ends.index(end)]
            length, moved = (np.sqrt(sum(np.sum((want[n] - of.get(n, 0)) ** 2) for n in want)) for of in ({}, params))
            np.testing.assert_allclose(row["apart"], length / 2 / moved, rtol=1e-6)
