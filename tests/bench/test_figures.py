"""The figures of the benchmark and the loop of the studies, by hand."""
from types import SimpleNamespace

import numpy as np
import pytest

from bench import __main__ as command
from bench import measure, peers, report
from bench.peers import sound
from bench.studies import fit
from kernels import registry, timing, tolerance
from kernels.numba_cpu import engine
from tests.bench.test_bench import HEADLINE, Q_SAMPLE, row, timed


def test_bandwidth_is_of_the_median_and_percentages_of_the_rounds():
    """12 ns for 48 bytes are 4 GB/s; a copy takes 0.5, 0.5 and 2 times as long in the three rounds."""
    times = {"kernel": [10.0, 12.0, 20.0], "copy": [5.0, 6.0, 40.0], "triad": [10.0, 24.0, 40.0], "launch": [5, 6, 10]}
    found = measure.compared({(name, ""): np.array(t) for name, t in times.items()}, 48)
    assert (found["median_us"], found["gbs"], found["copy_gbs"], found["triad_gbs"]) == (0.012, 4, 8, 2)
    assert (found["copy"], found["triad"], found["launch"]) == (50, 200, 2)
    assert found["spread"] == pytest.approx(100 * (16 - 11) / 12)


@pytest.mark.parametrize("units, failure", [(0.5, ""), (1.5, "Mismatch")])
def test_a_kernel_is_timed_up_to_the_allowed_error_and_not_beyond(monkeypatch, units, failure):
    def off(x0, t, eps, abar, out):
        (rule,) = registry.expected(Q_SAMPLE, dict(x0=x0, t=t, eps=eps, abar=abar), "float32")
        return (rule.truth + units * rule.allowed).astype(np.float32)

    tuned = registry.kernel(Q_SAMPLE, "numpy_cpu")
    monkeypatch.setattr(registry, "kernel", lambda op, backend: tuned if backend == "numpy_cpu" else off)
    found = timed(Q_SAMPLE, libraries=())
    assert found["failure"].partition(":")[0] == failure and (found["median_us"] is None) == bool(failure)


def test_the_last_loss_of_a_peers_training_is_near_that_of_the_truth():
    rules = [tolerance.Rule(np.ones(2), np.ones(2)), tolerance.Rule(np.array([2.0, 0.4]), np.ones(2))]
    truth = sound.Truth(Q_SAMPLE, {"steps": 2}, (2,), rules)
    for loss in (0.4, 0.31, 0.49):
        truth.check(np.array([9.0, loss]))
    for loss in (0.29, 0.51, -0.4, np.nan, 2.0):
        with pytest.raises(ValueError, match="loss"):
            truth.check(np.array([2.0, loss]))


def test_the_eight_rows_are_of_the_large_shapes_with_the_worst_error_of_all():
    mine = [row(error=0.25), row(shape=(32, 784), numpy=9.0, copy=9.0, error=0.75), row(dtype="float64", error=5.0),
            row(backend="triton_gpu", shape=(64, 3, 1024, 1024), copy=97.0, error=0.5),
            row(backend="triton_gpu", shape=HEADLINE, copy=3.0, error=0.1)]  # fmt: skip
    for order in (mine, mine[::-1]):
        assert "| `q_sample` | 4.5 | 104 | 97 | 0.75 |" in report.eight_rows([(order, {})])


def test_every_library_has_the_threads_of_the_command_line(monkeypatch):
    told = []
    monkeypatch.setattr("threadpoolctl.threadpool_limits", lambda n, api: told.append((api, n)))
    monkeypatch.setattr(peers, "settle", lambda libraries, n: told.append((*libraries, n)))
    monkeypatch.setattr(engine, "set_num_threads", lambda n: told.append(("numba_cpu", n)))
    command._settle(SimpleNamespace(threads=3), ["numba_cpu"], ["torch"])
    assert told == [("blas", 3), ("torch", 3), ("numba_cpu", 3)]


def test_the_rate_falls_along_half_a_cosine():
    rates = [fit.annealed(0.2, step, 4) for step in range(5)]
    np.testing.assert_allclose(rates, 0.1 * (1 + np.cos(np.pi * np.arange(5) / 4)), rtol=1e-14)
    assert rates[0] == 0.2 and rates[4] == 0


@pytest.mark.parametrize("step, kept", [(1, 0.1), (9, 0.5), (10**6, 0.998)])
def test_the_average_is_at_first_over_the_past_so_far(step, kept):
    """a <- k a + (1 - k) p with k = min(0.998, step / (step + 9)); p moves by lr in Adam's first step."""
    state = fit.begin({"w": np.ones(3)})
    state["average"]["w"][:] = 3
    fit.descend(fit.backend("ref"), state, {"w": np.array([2.0, -5.0, 0.0])}, step, 0.5, 0.998)
    moments = {n: state[n]["w"] for n in "mv"}
    assert np.allclose(moments["m"], [0.2, -0.5, 0]) and np.allclose(moments["v"], [0.004, 0.025, 0])
    np.testing.assert_allclose(state["average"]["w"], kept * 3 + (1 - kept) * state["params"]["w"], rtol=1e-12)
    if step == 1:
        np.testing.assert_allclose(state["params"]["w"], [0.5, 1.5, 1], rtol=1e-7)


def test_a_round_is_the_median_of_its_calls():
    clock = iter([1.0, *[1.0, 5.0, 6.0] * 100])
    assert timing.interleave({"a": lambda: None}, 0, least=1, clock=lambda _: next(clock))["a"][0] == 5
