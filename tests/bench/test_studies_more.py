"""The helpers of the studies score, likelihood, flow, consistency and training: closed forms against differences, tiny trainings, what is written."""
import csv

import numpy as np
import pytest

from bench.studies import consistency, digits, flow, likelihood, results, score, training
from kernels.numpy_cpu import fused as plain
from kernels.ops import loops
from ref import consistency as steps
from ref import edm, fused, philox, samplers, schedules
from ref.nets import mlp

ABAR = digits.alpha_bar("cosine")


def test_the_exact_score_is_the_gradient_of_the_log_density():
    x, h = 1.5 * philox.normal(0, (50, 2)), 1e-5
    for t in (20, 400, 980):
        for axis, step in enumerate(h * np.eye(2)):
            slope = (score.log_density(x + step, ABAR[t]) - score.log_density(x - step, ABAR[t])) / (2 * h)
            np.testing.assert_allclose(score.exact_score(x, ABAR[t])[:, axis], slope, rtol=1e-5, atol=1e-6)


def test_the_mixture_has_the_moments_of_its_parts():
    x = score.mixture(100_000, 3, 0)
    mean = score.WEIGHTS @ score.MEANS
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.015)
    np.testing.assert_allclose((x**2).sum(axis=1).mean(), score.WEIGHTS @ (np.sum(score.MEANS**2, axis=1) + 2 * score.STDS**2), rtol=0.01)


def test_a_short_training_brings_the_field_nearer_and_the_losses_keep_their_factor():
    start = score.measure(score.train(1, 16, ABAR, 0, lambda: None), 500, ABAR, 2000, 0)
    later = score.measure(score.train(150, 128, ABAR, 0, lambda: None), 500, ABAR, 2000, 0)
    assert later["relative_error"] < 0.6 * start["relative_error"]
    assert later["eps_loss"] > later["least_eps_loss"] and max(start["factor_off"], later["factor_off"]) < 1e-13
    assert len(score.sentences([start, later])) == 3


def net(pixels=6):
    """A net of random weights, its blocks too, in float64."""
    params = mlp.residual_init(1, pixels=pixels, width=16, depth=2, frequencies=8, dtype=np.float64)
    return {name: p + 0.2 * philox.normal(2, p.shape, i) for i, (name, p) in enumerate(params.items())}


def test_the_input_gradient_and_the_drift_against_central_differences():
    params, x, probe = net(), 0.3 * philox.normal(0, (5, 6)), philox.normal(0, (5, 6), 1)
    labels, h = np.arange(5), 1e-5
    t = np.full(5, 300)
    for step in philox.normal(0, (3, 5, 6), 2):
        ends = [mlp.residual(params, x + sign * h * step, t, labels)[0] for sign in (1, -1)]
        dx = likelihood.input_vjp(probe, params, mlp.residual(params, x, t, labels)[1])
        np.testing.assert_allclose(np.sum(dx * step), np.sum(probe * (ends[0] - ends[1])) / (2 * h), rtol=1e-7)
        ends = [likelihood.drift_and_vjp(params, x + sign * h * step, -0.5, probe, labels, ABAR)[0] for sign in (1, -1)]
        _, vjp = likelihood.drift_and_vjp(params, x, -0.5, probe, labels, ABAR)
        np.testing.assert_allclose(np.sum(vjp * step), np.sum(probe * (ends[0] - ends[1])) / (2 * h), rtol=1e-7)
    assert np.any(likelihood.denoise(params, x, np.exp(-0.5), labels, ABAR)[1]) and not np.all(likelihood.denoise(params, x, np.exp(-0.5), labels, ABAR)[1])


def test_the_ode_is_exact_where_the_net_is():
    """v = 0 is right for data of unit variance; small enough that nothing is held to [-1, 1], the density is the Gaussian's."""
    params = {name: 0 * p for name, p in net().items()}
    sigma = float(edm.sigma_at(700, ABAR))
    x = 0.3 * philox.normal(0, (4, 6))
    bits = likelihood.ode_bits(params, x, np.zeros(4), np.zeros(4, int), 700, 200, ABAR, 0, lambda: None)
    variance = 1 + sigma**2
    exact = np.sum(0.5 * x**2 / variance + 0.5 * np.log(2 * np.pi * variance), axis=1) / (6 * np.log(2))
    np.testing.assert_allclose(bits, exact, rtol=1e-6)


def test_levels_are_spread_over_their_bins_with_the_density_told():
    x = np.array([[-1.0, -1.0, 1 / 255, 1.0]])
    share = np.linspace(0.001, 0.999, 2001)[:, None] * np.ones(4)
    points, log_q = likelihood.spread_evenly(np.repeat(x, 2001, axis=0), share)
    assert np.abs(points - x).max() <= likelihood.HALF_BIN and np.allclose(log_q, -4 * np.log(2 / 255))
    points, log_q = likelihood.spread_truncated(np.repeat(x, 2001, axis=0), share, 0.004)
    assert np.all(points[:, :2] <= -1 + likelihood.HALF_BIN) and np.all(points[:, 3] >= 1 - likelihood.HALF_BIN) and points[:, 0].min() < -1.01
    assert np.abs(points[:, 2] - x[0, 2]).max() <= likelihood.HALF_BIN
    one = [likelihood.spread_truncated(np.repeat(x[:, [k]], 2001, axis=0), share[:, [k]], 0.004) for k in range(4)]
    np.testing.assert_allclose(sum(q for _, q in one), log_q)
    for points, log_q in one:  # a density of mass 0.998 between the shares 0.001 and 0.999
        mass = np.sum(np.diff(points[:, 0]) * (np.exp(log_q[1:]) + np.exp(log_q[:-1])) / 2)
        assert abs(mass - 0.998) < 1e-3


def test_the_fitted_variance_costs_less_and_both_have_a_term_for_each_step():
    params, abar = net(), digits.alpha_bar("cosine")[::100]
    x, labels = np.sign(philox.normal(0, (40, 6))), np.arange(40) % 10
    small, fitted = likelihood.bound_bits(params, x, labels, x, labels, abar, 0, lambda: None)
    assert small.shape == fitted.shape == (len(abar), 40) and fitted.sum() < small.sum()
    np.testing.assert_array_equal(small[-1], fitted[-1])


def test_the_flow_is_trained_down_its_loss():
    """The gradient against a central difference of mean(t^2 (v - (eps - x0))^2)."""
    params, x0, eps = net(), 0.5 * philox.normal(0, (5, 6)), philox.normal(0, (5, 6), 1)
    t, labels, h = np.array([0.05, 0.3, 0.5, 0.8, 1.0]), np.arange(5), 1e-5

    def loss(params):
        v = flow.velocity(params, (1 - t[:, None]) * x0 + t[:, None] * eps, t, labels)[0]
        return np.mean(t[:, None] ** 2 * (v - (eps - x0)) ** 2)

    grads = flow.gradients(params, x0, eps, t, labels)
    along = {name: philox.normal(3, p.shape, i) for i, (name, p) in enumerate(params.items())}
    ends = [loss({name: p + sign * h * along[name] for name, p in params.items()}) for sign in (1, -1)]
    np.testing.assert_allclose(sum(np.sum(grads[name] * along[name]) for name in params), (ends[0] - ends[1]) / (2 * h), rtol=1e-6)


def test_the_path_of_a_flow_ends_where_its_sample_does():
    params, eps, labels = net(), philox.normal(0, (3, 6)), np.arange(3)
    states = flow.path(params, eps, labels, 7)
    assert states.shape == (8, 3, 6) and np.array_equal(states[0], eps)
    np.testing.assert_array_equal(states[-1], flow.sample(params, eps, labels, schedules.flow_times(7), samplers.flow_euler))


def test_reflow_goes_on_from_the_flow():
    params = mlp.residual_init(0, pixels=6, width=16, depth=1, frequencies=8)
    x0 = philox.normal(0, (20, 6), 1).astype(np.float32)
    again = flow.reflow(params, philox.normal(0, (20, 6)), x0, np.arange(20) % 10, 3, 8, 0, lambda: None)
    assert {name: p.shape for name, p in again.items()} == {name: p.shape for name, p in params.items()}
    assert 0 < max(np.abs(again[name] - params[name]).max() for name in params) < 0.01


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


@pytest.mark.parametrize("denoise", [None, lambda x, sigma: np.tanh(x / (1 + sigma[:, None]))], ids=["trained", "distilled"])
def test_a_student_is_trained_down_its_loss_and_its_teacher_stands_still(denoise):
    """The gradient against a central difference of the loss, in which the teacher keeps its weights."""
    params, x0, eps, labels, h = net(), 0.5 * philox.normal(0, (5, 6)), philox.normal(0, (5, 6), 1), np.arange(5), 1e-5
    sigma_t, sigma_s = np.array([0.15, 0.6, 2.0, 9.0, 80.0]), np.array([0.1, 0.4, 1.5, 7.0, 60.0])
    pair = steps.training_pair if denoise is None else lambda *given: steps.distillation_pair(denoise, *given)
    xt, xs = pair(x0, eps, sigma_t, sigma_s)
    target = consistency.student(params, xs, sigma_s, labels, ABAR)[0]

    def loss(params):
        return steps.consistency_loss(consistency.student(params, xt, sigma_t, labels, ABAR)[0], target, sigma_t, sigma_s, 0.00054 * np.sqrt(6))

    grads = consistency.gradients(params, x0, eps, sigma_t, sigma_s, labels, ABAR, denoise)
    along = {name: philox.normal(3, p.shape, i) for i, (name, p) in enumerate(params.items())}
    ends = [loss({name: p + sign * h * along[name] for name, p in params.items()}) for sign in (1, -1)]
    np.testing.assert_allclose(sum(np.sum(grads[name] * along[name]) for name in params), (ends[0] - ends[1]) / (2 * h), rtol=1e-6)


def test_pairs_are_neighbours_on_a_grid_that_grows():
    share = np.linspace(0.0005, 0.9995, 2000)
    for step, pairs in ((1, consistency.FEWEST), (60, consistency.MOST)):
        sigmas = schedules.karras_sigmas(pairs + 1, consistency.SIGMA_MIN, consistency.SIGMA_MAX)[:-1]
        sigma_t, sigma_s = consistency.neighbours(share, step, 60)
        where = [np.searchsorted(-sigmas, -s) for s in (sigma_t, sigma_s)]
        np.testing.assert_array_equal(where[1], where[0] + 1)
        np.testing.assert_array_equal(sigmas[where[0]], sigma_t)
        often = np.bincount(where[0], minlength=pairs) / share.size
        np.testing.assert_allclose(often, steps.lognormal_sigma_weights(sigmas, consistency.LN_MEAN, consistency.LN_STD), atol=1e-3)


def test_a_second_call_starts_from_the_first_and_its_own_noise():
    params, labels = net(), np.arange(4)
    first, second = (philox.normal(0, (4, 6), consistency.SAMPLING + i) for i in (0, 1))
    once = consistency.student(params, 80.0 * first, np.full(4, 80.0), labels, ABAR)[0]
    np.testing.assert_array_equal(consistency.sample(params, labels, ABAR, 1, 0), once)
    again = once + np.sqrt(consistency.SECOND**2 - consistency.SIGMA_MIN**2) * second
    twice = consistency.student(params, again, np.full(4, consistency.SECOND), labels, ABAR)[0]
    np.testing.assert_allclose(consistency.sample(params, labels, ABAR, 2, 0), twice, rtol=1e-12)


def test_both_students_start_as_the_net_and_leave_it_as_it_was():
    shared = mlp.residual_init(0, pixels=6, width=16, depth=1, frequencies=8)
    kept, images = {name: p.copy() for name, p in shared.items()}, philox.normal(0, (20, 6), 1).astype(np.float32)
    made = [consistency.train(shared, images, np.arange(20) % 10, ABAR, distilled, 3, 8, 0, lambda: None) for distilled in (False, True)]
    for params in made:
        assert 0 < max(np.abs(params[name] - shared[name]).max() for name in shared) < 4 * consistency.LR
    assert any(np.any(made[0][name] != made[1][name]) for name in shared)
    assert all(np.array_equal(shared[name], kept[name]) for name in shared)
    assert consistency.apart(np.zeros((2, 4)), np.array([[1, -1, 1, 1], [0, 0, 4, 0]])) == 1.5


def test_training_is_followed_in_pieces_and_measured_by_the_rule():
    params, images = mlp.simple_mlp_init(0, 6, 5), np.sign(philox.normal(0, (20, 6), 1)).astype(np.float32)
    told, ends, ticks = dict(batch=7, lr=1e-3, seed=0, abar=ABAR, decay=0.9), (1, 2, 5), []
    exact = training.follow(fused.mlp_train, {n: p.astype(np.float64) for n, p in params.items()}, images.astype(np.float64), ends, told, lambda: ticks.append(1))
    paths = {f"NumPy, order {i}": training.follow(plain.mlp_train, params, images, ends, told, lambda: None, order) for i, order in enumerate(loops.orders(5))}
    paths["numba_cpu"] = training.follow(training.on("numba_cpu"), params, images, ends, told, lambda: None)
    whole = training.on("numba_cpu")(params, images, 5, **told)
    assert len(ticks) == 3 and np.array_equal(paths["numba_cpu"][0], whole[2])
    assert all(np.array_equal(paths["numba_cpu"][1][2][n], whole[0][n]) for n in params)
    paths["halved"] = exact[0], [{n: (p / 2).astype(np.float32) for n, p in at.items()} for at in exact[1]]
    rows = {(row["who"], row["steps"]): row for row in training.measured(params, exact, paths, ends)}
    for (who, end), row in rows.items():
        assert row["units"] > 100 if who == "halved" else row["apart"] < 1e-3 and row["units"] <= 1, row
        assert row["reference_loss"] == exact[0][end - 1]
        if who == "halved":
            want = exact[1][ends.index(end)]
            length, come = (np.sqrt(sum(np.sum((want[n] - of.get(n, 0)) ** 2) for n in want)) for of in ({}, params))
            np.testing.assert_allclose(row["apart"], length / 2 / come, rtol=1e-6)
    assert rows["numba_cpu", 5]["loss"] == whole[2][4]
    said = training.sentences(list(rows.values()), exact, paths)
    assert len(said) == 6 and said[4].startswith("numba_cpu: after 1, 2, 5 steps its weights are ")


class Figure:
    """Stands in for matplotlib's, which the tests do not need."""

    def savefig(self, file, **_):
        file.write(b"picture")


def test_a_study_is_written_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "pyplot", lambda: Plot)
    results.write(tmp_path / "new", "study", Figure(), [{"a": 1, "b": 0.123456789}], ["One.", "Two."])
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["study.csv", "study.png", "study.txt"]
    assert (tmp_path / "new" / "study.txt").read_text() == "One.\nTwo.\n"
    with open(tmp_path / "new" / "study.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": "0.123457"}]


def test_a_study_that_cannot_be_drawn_leaves_the_old_one(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "pyplot", lambda: Plot)
    results.write(tmp_path, "study", Figure(), [{"a": 1}], ["Old."])
    with pytest.raises(AttributeError):
        results.write(tmp_path, "study", None, [{"a": 2}], ["New."])
    assert (tmp_path / "study.txt").read_text() == "Old.\n" and len(list(tmp_path.iterdir())) == 3


class Plot:
    """matplotlib.pyplot as far as `results.write` needs it."""

    close = staticmethod(lambda figure: None)
