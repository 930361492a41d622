"""The benchmark's own promises: nothing wrong is timed, a row survives its CSV, targets stay, the README is filled by a command."""
import csv
import re

import numpy as np
import pytest

from bench import __main__ as command
from bench import machine, measure, peers, report, targets, trajectory
from kernels import registry, timing
from kernels.numba_cpu import diffusion, fused

MACHINE = {"machine": "a machine, 2 cores", "caches": "L1 32K L2 1024K", "threads": "1", "date": "2026-01-01", "versions": "python 3"}
Q_SAMPLE = next(op for op in registry.OPS if op.name == "diffusion.q_sample")


def row(**changes):
    return {"kind": "row"} | measure.empty(Q_SAMPLE, "", "numba_cpu", targets.HEADLINE, "float32", 9437184) | dict(
        median_us=300.0, gbs=31.4, copy_gbs=30.0, triad_gbs=32.0, copy=104.0, triad=98.0, numpy=4.5, numpy_how="out=") | changes


def test_a_right_kernel_is_timed_with_its_peers_copy_and_triad():
    found = measure.row(Q_SAMPLE, "", {}, "numba_cpu", (4, 33), 0.0, ["numpy"], pytest.fail)
    assert found["failure"] == "" and found["bytes"] == 3 * 4 * 4 * 33
    assert all(found[name] > 0 for name in ("median_us", "gbs", "copy", "triad", "numpy")) and found["numpy_how"] in ("out=", "temporaries kept")


def test_a_wrong_kernel_is_not_timed(monkeypatch):
    monkeypatch.setattr(registry, "kernel", lambda op, backend: lambda x0, t, eps, abar, out: diffusion.q_sample(x0, t, -eps, abar, out))
    found = measure.row(Q_SAMPLE, "", {}, "numba_cpu", (4, 33), 0.0, ["numpy"], pytest.fail)
    assert "Mismatch" in found["failure"] and found["median_us"] is None and found["numpy"] is None
    rows, status = command.run([("row", (Q_SAMPLE, "", {}, "numba_cpu", (4, 33), "float32"))], 0.0, [], pytest.fail)
    assert status == 1 and rows[0]["failure"]


@pytest.mark.parametrize("op, label", [(op, label) for op in registry.OPS if op.flops is None for label in op.bench], ids=lambda x: getattr(x, "name", x))
def test_every_numpy_peer_does_the_kernels_work(op, label):
    shape, options = (8, 2048), op.bench[label]
    arguments = timing.problem(op, options, shape)
    made = peers.HOST["numpy"](op.name, arguments, shape)
    assert made
    for call in made.values():
        peers.check(op.name, arguments, shape, peers.home(call(), shape), registry.expected(op, arguments, "float32"))


def test_a_peer_with_wrong_noise_is_refused():
    op = next(op for op in registry.OPS if op.name == "fused.q_sample_noise")
    shape = (8, 2048)
    arguments = timing.problem(op, {}, shape)
    for noise in (np.random.default_rng(0).random(shape), np.zeros(shape), arguments["x0"]):
        out = diffusion.q_sample(arguments["x0"], arguments["t"], noise.astype(np.float32), arguments["abar"])
        with pytest.raises(ValueError, match="noise"):
            peers.check(op.name, arguments, shape, [out], registry.expected(op, arguments, "float32"))


def test_rounds_begin_with_another_contestant_each_time_and_the_ratio_is_of_the_rounds():
    called = []
    times = timing.interleave({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 0.0, least=4, clock=lambda run: run() or 10_000_000)
    assert called[2:] == ["a", "b", "a", "b", "b", "a", "a", "b", "b", "a"]
    assert {name: list(t) for name, t in times.items()} == {"a": [1e7] * 4, "b": [1e7] * 4}
    assert timing.times_faster([1.0, 2.0, 4.0], [3.0, 6.0, 4.0]) == 3.0


def test_a_target_stays_in_the_table_when_it_is_missed():
    assert targets.judge(row()) == ("numpy 4x, triad 90%", "yes")
    assert targets.judge(row(numpy=3.9, triad=50.0)) == ("numpy 4x, triad 90%", "no: numpy, triad")
    assert targets.judge(row(numpy=None)) == ("numpy 4x, triad 90%", "not measured: numpy")
    assert targets.judge(row(failure="Mismatch")) == ("numpy 4x, triad 90%", "no: FAIL")
    gpu = dict(backend="triton_gpu", shape=targets.GPU_BIG, dtype="float16", float32_copy=100.0)
    assert targets.judge(row(**gpu, copy=91.0))[1] == "yes" and targets.judge(row(**gpu, copy=89.0))[1] == "no: copy"
    assert targets.judge(row(backend="triton_gpu", shape=targets.SMALL, launch=1.4)) == ("launch <= 1.3x", "no: launch")


def test_rows_survive_their_csv_and_fill_the_readme(tmp_path):
    rows = [row(), row(failure="Mismatch: worst at (0, 0)", median_us=None, gbs=None, copy=None, triad=None, numpy=None), row(kind=report.SWEEP)]
    report.write_csv(tmp_path / "r.csv", rows, MACHINE)
    back, machine = report.read_csv(tmp_path / "r.csv")
    assert machine == MACHINE and [p.name for p in tmp_path.iterdir()] == ["r.csv"]
    for one, other in zip(rows, back, strict=True):
        assert {name: one[name] for name in report.NUMBERS} == {name: other[name] for name in report.NUMBERS}
        assert one["shape"] == other["shape"] and one["failure"] == other["failure"]
    text = report.markdown(back, machine)
    assert "| q_sample | (256, 3, 32, 32) | float32 | 300.0 us | 4.5 |" in text and "| FAIL |" in text and text.count("| q_sample |") == 2
    filled = report.filled(f"before\n{report.BEGIN}\nold\n{report.END}\nafter", text)
    assert "old" not in filled and filled.startswith("before") and filled.endswith("after")
    with pytest.raises(ValueError, match=re.escape(report.BEGIN)):
        report.filled("no markers", text)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv"):
        report.read_csv(tmp_path / "other.csv")


@pytest.mark.parametrize("words, message", [
    (["--op", "unet"], "error: --op"), (["--shape", "3,x"], "argument --shape"), (["--peers", "caffe"], "argument --peers"),
    (["--csv", "/nowhere/at/all.csv"], "argument --csv"), (["--seconds", "-1"], "error: --seconds"), (["--backend", "cuda"], "argument --backend"),
])  # fmt: skip
def test_bad_words_are_told(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.arguments(words)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_the_copy_and_the_triad_move_the_bytes_they_say():
    assert timing.copy(800)() is None and machine.triad(1200)() is None
    with pytest.raises(ValueError, match="--threads"):
        machine.pin(0)


def test_a_trajectory_is_timed_where_it_is_right_and_not_where_it_is_wrong(monkeypatch):
    found = next(trajectory.rows("numba_cpu", 0.0, []))
    assert found["what"] == "mlp_sample" and found["us"] > 0 and found["numpy"] > 0 and 0 < found["peak_share"] < 2
    right = fused.mlp_sample
    monkeypatch.setattr(fused, "mlp_sample", lambda *a, out, **k: right(*a, **k) * np.float32(1.001))
    with pytest.raises(AssertionError, match="mlp_sample"):
        next(trajectory.rows("numba_cpu", 0.0, []))


def test_a_loops_target_stays_and_its_table_is_filled(tmp_path):
    found = {"what": "mlp_sample", "precision": "float32", "batch": 64, "us": 5e3, "gflops": 100.0, "numpy": 1.5, "compile": 1.1}
    assert targets.judge_loop("numba_cpu", found)["met"] == "no: compile" and targets.judge_loop("numba_cpu", found | {"compile": 1.3})["met"] == "yes"
    assert targets.judge_loop("triton_gpu", found | {"precision": "bfloat16", "us": 200.0})["met"] == "no: us"
    assert targets.judge_loop("numba_cpu", {k: v for k, v in found.items() if k != "compile"})["met"] == ""  # without torch it is not known
    row = {"machine": "here", "date": "today", "versions": "all"} | targets.judge_loop("numba_cpu", found)
    with open(tmp_path / "t.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ("machine", "caches", "threads", "date", "versions", *trajectory.FIELDS))
        writer.writeheader()
        writer.writerow(row)
    assert "| mlp_sample | 64 | float32 | 5,000 | 100 | 1.50 | 1.10 | numpy 1.4x, compile 1.2x | no: compile |" in report.loops_markdown(tmp_path / "t.csv")
