"""The studies' command, the metrics on clouds whose figures are known, the shared net, and each of four studies at a tiny size."""
import csv
import importlib
import subprocess
import sys
import types

import numpy as np
import pytest

from bench.studies import __main__ as command
from bench.studies import digits, metrics, net, results
from ref import philox, samplers, schedules
from tests import ROOT


def run(*words):
    done = subprocess.run([sys.executable, "-m", "bench.studies", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_the_command_lists_and_refuses(tmp_path):
    status, said, _ = run()
    assert status == 0 and [line.split()[0] for line in said.splitlines()] == list(command.studies())
    assert {"schedules", "guidance", "steps", "score"} <= set(command.studies()) <= set(command.NAMES)
    status, said, error = run("steps", "nosuch", "--out", str(tmp_path / "new"))
    assert status == 2 and "no study is called nosuch; there are schedules, guidance, steps" in error and not said
    assert not (tmp_path / "new").exists()


def test_every_study_can_be_imported_and_run_without_matplotlib():
    """In another process, since this one may have imported it."""
    code = f"""
import importlib, inspect, sys
for name in {command.NAMES}:
    study = importlib.import_module("bench.studies." + name)
    parameters = list(inspect.signature(study.run).parameters.values())
    assert [p.name for p in parameters[:2]] == ["out", "progress"], name
    assert all(p.default is not p.empty for p in parameters[2:]), name
    print(study.__doc__.splitlines()[0])
assert "matplotlib" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines == list(command.studies().values()) and all(len(line) > 20 and line.endswith(".") for line in lines)


def test_a_finished_study_is_kept_and_again_runs_it_again(tmp_path, monkeypatch, capsys):
    runs = []

    class Study:
        @staticmethod
        def run(out, progress):
            progress(1, 1)
            runs.append(out)
            (tmp_path / "score.txt").write_text("Measured.\n")
            (tmp_path / "score.csv").write_text("a\n1\n")

    class Bar:  # stands in for tqdm's, which the tests do not need
        total, n = None, 0
        __init__ = lambda self, **_: None
        __enter__ = lambda self: self
        __exit__ = lambda *_: None
        update = lambda self, by: None

    for module, member in (("tqdm", {"tqdm": Bar}), ("threadpoolctl", {"threadpool_limits": lambda *_: None})):
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**member))
    monkeypatch.setattr(command.importlib, "import_module", lambda name: Study)
    for words, count in ((["score"], 1), (["score"], 1), (["score", "--again"], 2)):
        assert command.main([*words, "--out", str(tmp_path)]) == 0 and len(runs) == count
    assert "finished" in capsys.readouterr().out



def test_frechet_is_that_of_the_moments():
    """Clouds whose means and covariances are made exact, so that the closed form for covariances that commute, and one for those that do not, hold exactly."""
    z = philox.normal(0, (50, 2))
    z = z - z.mean(axis=0)
    white = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False))).T
    a, b = white * [1.0, 2.0], white[::-1] * [3.0, 0.5] + [1.0, -2.0]
    assert metrics.frechet(a, b) == pytest.approx(5 + (3 - 1) ** 2 + (2 - 0.5) ** 2, rel=1e-9)
    assert metrics.frechet(a, a) == pytest.approx(0, abs=1e-9)
    A, B = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.7], [-0.7, 3.0]])
    a, b = (white @ np.linalg.cholesky(C).T for C in (A, B))
    # for 2 x 2: tr sqrt(AB) = sqrt(tr AB + 2 sqrt(det AB))
    root = np.sqrt(np.trace(A @ B) + 2 * np.sqrt(np.linalg.det(A) * np.linalg.det(B)))
    assert metrics.frechet(a, b) == pytest.approx(np.trace(A) + np.trace(B) - 2 * root, rel=1e-9)
    assert metrics.frechet(a, b) == pytest.approx(metrics.frechet(b, a), rel=1e-9)


def test_precision_and_recall_of_known_clouds():
    a, far = philox.normal(0, (60, 3)), philox.normal(0, (60, 3), 1) + 100
    assert metrics.precision_recall(a, a) == (1.0, 1.0)
    assert metrics.precision_recall(a, far) == (0.0, 0.0)
    assert metrics.precision_recall(np.concatenate([a, far]), a) == (1.0, 0.5)  # all true, half of it missing
    assert metrics.precision_recall(a, np.concatenate([a, far])) == (0.5, 1.0)
    line = np.array([[0.0], [1.0], [2.0], [3.0]])
    assert metrics.precision_recall(line, np.array([[4.0], [5.5], [9.0], [9.5]]), k=1) == (0.25, 0.25)  # 3 reaches to 4, and 4 to 2.5


def test_spread_and_shapes():
    x = np.array([[0.0, 0.0], [3.0, 4.0], [7.0, 7.0], [7.0, 7.0]])
    assert metrics.spread(x, np.array([0, 0, 1, 1])) == pytest.approx(5 / np.sqrt(2) / 2)
    with pytest.raises(ValueError, match="labels"):
        metrics.spread(x, np.array([0, 0, 0, 1]))
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        metrics.frechet(x, np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        metrics.precision_recall(x[:3], x)


def test_the_net_is_guided_and_asked_in_three_ways():
    params, labels = digits.start({"net": "residual", "seed": 0})["params"], np.array([3, 5])
    abar, x = digits.alpha_bar("cosine"), philox.normal(0, (2, 784))
    params = params | {"out.w": 30 * params["out.w"]}
    low, high, free = (net.predictor(params, labels, w, limit=None) for w in (1, 2, 0))
    np.testing.assert_allclose(high(x, 500), 2 * low(x, 500) - free(x, 500), atol=1e-3)
    assert not np.allclose(low(x, 500), free(x, 500)) and np.abs(net.predictor(params, labels)(x, 500)).max() <= 1
    sigma = np.sqrt((1 - abar[500]) / abar[500])
    np.testing.assert_allclose(net.denoise(low, abar)(x / np.sqrt(abar[500]), sigma), low(x, 500), atol=1e-4)
    assert samplers.ddim(net.model(low, abar), x, schedules.spaced_times(1000, 2, "trailing"), None, 0.0, abar).shape == (2, 784)


@pytest.mark.parametrize("name, sizes, rows", [
    ("schedules", {"count": 20, "calls": (1, 2)}, 4), ("guidance", {"count": 20, "sampler_steps": 2}, 8), ("steps", {"count": 20, "steps": (1, 2), "longest": 3}, 14),
    ("consistency", {"count": 20, "steps": 3, "batch": 4, "calls": (1, 2)}, 9),
])  # fmt: skip
def test_a_tiny_study_writes_its_three_files(name, sizes, rows, tmp_path, monkeypatch):
    study = importlib.import_module(f"bench.studies.{name}")
    images, labels = philox.uniform(0, (80, 784)).astype(np.float32), np.repeat(np.arange(10), 8)
    monkeypatch.setattr(metrics.data, "load", lambda: ((images, labels), (images, labels)))
    judge = metrics.classifier.train
    monkeypatch.setattr(metrics.classifier, "train", lambda *held_out, seed: judge(*held_out, seed=seed, steps=3))
    monkeypatch.setattr(study, "draw", lambda *_: Picture())
    monkeypatch.setattr(results, "pyplot", lambda: Picture)
    with pytest.raises(ValueError, match="count"):
        study.run(tmp_path, None, **sizes | {"count": 50})
    assert not list(tmp_path.iterdir())
    told = []
    study.run(tmp_path, lambda done, total: told.append((done, total)), train_steps=2, **sizes)
    assert told == [(i + 1, told[0][1]) for i in range(told[0][1])]
    nets = {"net-linear.npz", "net-cosine.npz"} if name == "schedules" else {"net-cosine.npz"}
    assert {p.name for p in tmp_path.iterdir()} == {f"{name}.{ending}" for ending in ("png", "csv", "txt")} | nets
    with open(tmp_path / f"{name}.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == rows
    assert len((tmp_path / f"{name}.txt").read_text().splitlines()) == 3


class Picture:
    """Stands in for matplotlib's, which the tests do not need."""

    close = staticmethod(lambda figure: None)

    def savefig(self, file, **_):
        file.write(b"picture")
