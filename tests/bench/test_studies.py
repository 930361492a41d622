"""The studies' command, their texts, the metrics on known clouds, the shared net, every study at a tiny size."""
import csv
import functools
import importlib
import subprocess
import sys
import tempfile
import types

import numpy as np
import pytest

from bench import files
from bench.studies import __main__ as command
from bench.studies import conformance, denoiser, metrics, net, results
from ref import philox, samplers, schedules, tree
from tests import ROOT
from tests.bench import Picture, with_a_narrow_net, with_noise_for_digits, without_pictures

RESULTS = ROOT / "bench" / "results" / "studies"


def test_the_command_lists_and_refuses(tmp_path, capsys):
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1:3]] == list(command.NAMES)
    assert max(map(len, lines[:-1])) <= 80 and all(".csv" in line for line in lines[2:-1:3])
    assert command.main(["steps", "nosuch", "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr()
    assert "nosuch" in said.err and not said.out and not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    assert command.main(["score", "--out", str(tmp_path / "file" / "new")]) == 2
    (tmp_path / "folder" / "score.txt").mkdir(parents=True)
    assert command.main(["score", "--out", str(tmp_path / "folder")]) == 2
    assert "score.txt" in capsys.readouterr().err and not (tmp_path / "folder" / "score.csv").exists()


def test_every_study_can_be_imported_and_run_without_matplotlib():
    """In another process, since this one may have imported it."""
    code = f"""
import importlib, sys
for name in {list(command.NAMES)}:
    study = importlib.import_module("bench.studies." + name)
    assert study.SETTINGS and study.COLUMNS and study.rows and study.draw, name
assert "matplotlib" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", command.NAMES)
def test_a_recorded_text_is_that_of_its_table(name, tmp_path):
    for ending in ("csv", "txt"):
        (tmp_path / f"{name}.{ending}").write_text((RESULTS / f"{name}.{ending}").read_text("utf-8"), "utf-8")
    assert command.main([name, "--text", "--out", str(tmp_path)]) == 0
    text = (tmp_path / f"{name}.txt").read_text("utf-8")
    assert text == (RESULTS / f"{name}.txt").read_text("utf-8") and max(map(len, text.splitlines())) <= 80


def test_columns_fold_and_cut_no_number():
    rows = [{"a": f"row {i}", "calls": i, **{f"figure_{k}": 10.0**k + i / 7 for k in range(9)}} for i in range(3)]
    lines = results.columns(rows, list(rows[0]))
    assert max(map(len, lines)) <= 80
    blocks = "\n".join(lines).split("\n\n")
    assert len(blocks) > 1 and all(block.startswith("a ") and "calls" in block for block in blocks)
    shown = " ".join(lines).split()
    assert all(f"{row[f'figure_{k}']:.4g}" in shown for row in rows for k in range(9))


def test_a_finished_study_is_kept_and_again_runs_it_again(tmp_path, monkeypatch, capsys):
    runs = []

    def run(name, out, progress):
        progress(1, 1)
        runs.append(out)
        for ending in ("txt", "csv"):
            (tmp_path / f"score.{ending}").write_text("a\n1\n", "utf-8")

    class Bar:  # stands in for tqdm's, which the tests do not need
        total, n = None, 0
        __init__ = lambda self, **_: None
        __enter__ = lambda self: self
        __exit__ = lambda *_: None
        update = lambda self, by: None

    for module, member in (("tqdm", {"tqdm": Bar}), ("threadpoolctl", {"threadpool_limits": lambda *_: None})):
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**member))
    monkeypatch.setattr(results, "run", run)
    for words, count in ((["score"], 1), (["score"], 1), (["score", "--again"], 2)):
        assert command.main([*words, "--out", str(tmp_path)]) == 0 and len(runs) == count
    assert "--again" in capsys.readouterr().out


def test_a_study_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    without_pictures(monkeypatch)
    write = functools.partial(results.write, "score", tmp_path, settings=dict(steps=3, calls=(1, 2)), taken=4.0)
    write([{"t": 1, "eps_loss": 0.123456789}, {"t": 2, "other": "x"}], Picture())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["score.csv", "score.png", "score.txt"]
    first, second = results.parsed((tmp_path / "score.csv").read_text("utf-8"))
    settings = {"settings": "steps 3, calls 1 2", "run_seconds": 4}
    assert first == {"t": 1, "eps_loss": 0.123457, "other": ""} | settings
    assert second["other"] == "x" and second["eps_loss"] == ""
    assert "0.1235" in (tmp_path / "score.txt").read_text("utf-8")
    with pytest.raises(AttributeError):
        write([{"t": 3}], None)  # cannot be drawn: the old files stay
    assert results.read(tmp_path / "score.csv")[0]["t"] == 1 and len(list(tmp_path.iterdir())) == 3


def test_frechet_is_that_of_the_moments():
    """Clouds with exact means and covariances: for covariances that commute, and for others."""
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
    line, other = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([[4.0], [5.5], [9.0], [9.5]])
    assert metrics.precision_recall(line, other, k=1) == (0.25, 0.25)  # 3 reaches to 4, and 4 to 2.5


def test_each_figure_of_a_judgement_stands_under_its_name(monkeypatch):
    """All samples are true and half of the real digits are missing; a fifth of the requested digits is found."""
    a, far = philox.normal(0, (60, 3)), philox.normal(0, (60, 3), 1) + 100
    monkeypatch.setattr(metrics, "features", lambda judge, images: images)
    monkeypatch.setattr(metrics.classifier, "accuracy", lambda judge, images, labels: 0.2)
    found = metrics.judged({}, (np.concatenate([a, far]), None), a, np.zeros(60))
    distance = metrics.frechet(a, np.concatenate([a, far]))
    assert found == pytest.approx({"adherence": 0.2, "frechet": distance, "precision": 1.0, "recall": 0.5})


def test_the_judge_has_seen_neither_half_of_the_digits_that_samples_are_compared_with(monkeypatch):
    """And the halves share none: the second stands for perfect samples."""
    pixels, labels, trained = np.arange(400)[:, None] + np.zeros(784), np.arange(400) % 10, []
    held_out = pixels[:100] + 1000, labels[:100]
    monkeypatch.setattr(metrics.data, "load", lambda: ((pixels, labels), held_out))
    monkeypatch.setattr(metrics.classifier, "train", lambda *given, seed: trained.append(given))
    _, *halves = metrics.references(200)
    assert trained[0][0] is held_out[0] and len({x for images, _ in halves for x in images[:, 0]}) == 400
    for images, whose in halves:
        assert np.array_equal(whose, images[:, 0] % 10) and np.array_equal(np.bincount(whose), np.full(10, 20))


def test_results_that_cannot_be_written_after_the_work_are_kept_elsewhere(tmp_path, monkeypatch):
    without_pictures(monkeypatch)
    write, (out, other) = files.write_atomic, (tmp_path / "out", tmp_path / "other")

    def full(path, content):
        if path == out / "score.csv":  # the picture is written already
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    for folder in (out, other):
        folder.mkdir()
    monkeypatch.setattr(files, "write_atomic", full)
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    with pytest.raises(OSError, match=str(other)):
        results.write("score", out, [{"t": 1, "eps_loss": 0.1}], Picture(), {"steps": 3}, 4.0)
    assert {path.name for path in other.glob("*/*")} == {"score.png", "score.csv", "score.txt"}


def test_a_table_that_is_none_is_refused_by_its_name(tmp_path, capsys):
    for text in ("", "t,settings\n", "t,eps_loss\n1,2\n", "t,settings\n1\n", 't,settings\n1,"a\n', "\xff\xfe"):
        (tmp_path / "score.csv").write_bytes(text.encode("latin-1"))
        for words in (["score", "--text"], []):
            assert command.main([*words, "--out", str(tmp_path)]) == 2
            assert "score.csv" in capsys.readouterr().err


def test_spread_and_shapes():
    x = np.array([[0.0, 0.0], [3.0, 4.0], [7.0, 7.0], [7.0, 7.0]])
    assert metrics.spread(x, np.array([0, 0, 1, 1])) == pytest.approx(5 / np.sqrt(2) / 2)
    with pytest.raises(ValueError, match="labels"):
        metrics.spread(x, np.array([0, 0, 0, 1]))
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        metrics.frechet(x, np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        metrics.precision_recall(x[:3], x)


def test_the_shared_net_is_guided_and_called_in_three_ways(monkeypatch):
    with_a_narrow_net(monkeypatch)
    params, streams = denoiser.start(denoiser.settings_of())["params"], iter(range(100))
    noise = lambda p: (0.2 * philox.normal(2, p.shape, next(streams))).astype(np.float32)
    params = tree.map(lambda p: p + noise(p), params)  # a fresh block adds 0, whatever the label
    labels, abar, x = np.array([3, 5]), denoiser.alpha_bar("cosine"), philox.normal(0, (2, 784))
    low, high, free = (net.predictor(params, labels, w, limit=None) for w in (1, 2, 0))
    np.testing.assert_allclose(high(x, 500), 2 * low(x, 500) - free(x, 500), atol=1e-3)
    assert not np.allclose(low(x, 500), free(x, 500), atol=0.1)
    assert np.abs(net.predictor(params, labels)(x, 500)).max() <= 1
    sigma = np.sqrt((1 - abar[500]) / abar[500])
    np.testing.assert_allclose(net.denoise(low, abar)(x / np.sqrt(abar[500]), sigma), low(x, 500), atol=1e-4)
    times = schedules.spaced_times(1000, 2, "trailing")
    xT = philox.normal(0, (2, 784), philox.stream("sampling"))
    want = samplers.ddim(net.model(low, abar), xT, times, None, 0.0, abar)
    np.testing.assert_array_equal(net.ddim(low, 2, abar, 2, 0), want)


NET = {"net-cosine.npz"}
SIZES = {  # sizes, rows, and what is written next to the three files
    "schedules": (dict(train_steps=2, count=20, calls=(1, 2)), 4, NET | {"net-linear.npz"}),
    "guidance": (dict(train_steps=2, count=20, sampler_steps=2), 8, NET),
    "steps": (dict(train_steps=2, count=20, steps=(1, 2), longest=3), 15, NET),
    "flow": (dict(train_steps=2, steps=2, reflow_steps=2, pairs=10, batch=4, count=20), 23, NET),
    "consistency": (dict(train_steps=2, count=20, steps=3, batch=4, calls=(1, 2)), 9, NET),
    "score": (dict(steps=3, batch=8, count=50), 12, set()),
    "likelihood": (dict(count=2, steps=1, solver_steps=1), 22, set()),
    "vae": (dict(steps=3, batch=8, count=20, draws=2), 6 + 2 * 4, set()),
    "gan": (dict(steps=3, batch=8, count=20), 2 + 3, set()),
    "gan_pathologies": (dict(steps=4, batch=8, seeds=2, alone=3), 4 * 2 * 4 + 2 * 3, set()),
    "sds": (dict(steps=3, count=20, sampler_steps=2), 8 + 6, set()),
    "tutorial": (dict(train_steps=2, tutorial_steps=3, count=20, sampler_steps=2, longest=3), 10, set()),
    "shapes": (dict(train_steps=2, pairs=2, steps=3), 5 + 2 * 5, NET),
    "nerf": (dict(seconds=1e6, most=2, views=3, held_out=2, size=8, looks=1), 4, set()),
    "vae_vs_gan_vs_diffusion": (dict(vae_steps=2, gan_steps=2, diffusion_steps=2, count=20), 5, set()),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_tiny_study_writes_its_three_files_the_same_each_time(name, tmp_path, monkeypatch):
    study, (sizes, count, more) = importlib.import_module(f"bench.studies.{name}"), SIZES[name]
    with_noise_for_digits(monkeypatch)
    with_a_narrow_net(monkeypatch)
    without_pictures(monkeypatch, study)
    if "count" in sizes and name not in ("score", "likelihood", "vae", "sds"):
        with pytest.raises(ValueError, match="count"):
            results.run(name, tmp_path, None, **sizes | {"count": 50})
        assert not list(tmp_path.iterdir())
    tables = []
    for _ in range(1 if name in ("likelihood", "tutorial") else 2):
        told = []
        results.run(name, tmp_path, lambda done, total: told.append((done, total)), **sizes)
        assert told == [(i + 1, told[0][1]) for i in range(told[0][1])]
        assert {p.name for p in tmp_path.iterdir()} == {f"{name}.{ending}" for ending in results.ENDINGS} | more
        with open(tmp_path / f"{name}.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        tables.append([{k: v for k, v in row.items() if "seconds" not in k and k != "added"} for row in rows])
    assert tables[0] == tables[-1] and len(rows) == count and "seed 0" in rows[0]["settings"]


def test_another_seed_goes_to_a_folder_of_its_own(tmp_path, monkeypatch, capsys):
    def run(name, out, progress, **change):
        (out / f"{name}.txt").write_text(f"{name} {out.name} {change}", "utf-8")

    monkeypatch.setattr(results, "run", run)
    assert command.main(["guidance", "--seed", "2", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "guidance seed-2 {'seed': 2}" and not (tmp_path / "guidance.txt").exists()


def test_a_setting_that_a_study_does_not_have_is_told(tmp_path):
    with pytest.raises(ValueError, match="guidance: expected changes of its settings .*, got reach"):
        results.run("guidance", tmp_path, None, reach=2)


def test_every_difference_of_conformance_is_explained():
    """By the checker's cause, or by the truth with one convention changed, which then has to reproduce it."""
    with open(RESULTS / "conformance.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    apart = [r for r in rows if r["verdict"] == "differs"]
    assert len(rows) > 60 and {"agrees", "differs"} == {r["verdict"] for r in rows}
    for r in apart:
        assert r["example"] and r["convention"] and float(r["ulps_explained"] or 0) <= conformance.AGREES, r
    table = conformance.markdown(rows)
    assert table.count("\n| ") == 1 + len(apart) and "diffusers" in rows[0]["versions"]


def test_the_models_of_conformance_are_exact():
    """For data of N(0, DATA_STD^2) each prediction is the regression of what it predicts on the state: cov / var."""
    var, x = conformance.DATA_STD**2, np.ones((1, 1))
    for t in (1, 500, 1000):
        a = conformance.ABAR[t]
        assert conformance.eps_model(x, t)[0, 0] == pytest.approx(np.sqrt(1 - a) / (a * var + 1 - a), rel=1e-12)
    assert conformance.denoise(x, 2.0)[0, 0] == pytest.approx(var / (var + 4), rel=1e-12)
    want = (0.25 - 0.75 * var) / (0.75**2 * var + 0.25**2)
    assert conformance.velocity(x, 0.25)[0, 0] == pytest.approx(want, rel=1e-12)
    assert np.max(np.abs(conformance.in_float32(schedules.linear_betas()) / conformance.ABAR[1:] - 1)) < 1e-6
