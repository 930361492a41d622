"""The benchmark's promises: nothing wrong is timed, rows survive their CSV, targets stay, a command fills the pages."""
import csv
import re
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

from bench import __main__ as command
from bench import machine, measure, peers, plot, report, targets
from bench.peers import equations, sound
from kernels import registry, timing
from kernels.numba_cpu import diffusion

MACHINE = dict(machine="a machine", caches="L1 32K L2 1024K", threads="1", date="2026-01-01", versions="python 3")
OPS = {op.name: op for op in registry.OPS}
Q_SAMPLE, HEADLINE, SMALL = OPS["diffusion.q_sample"], (256, 3, 32, 32), (32, 784)


NUMBERS = dict(
    bytes=9437184, median_us=300.0, gbs=31.4, copy_gbs=30.0, triad_gbs=32.0, copy=104.0, triad=98.0, numpy=4.5,
    numpy_how="out=",
)  # fmt: skip


def row(**changes):
    nothing = measure.empty(Q_SAMPLE, "", "numba_cpu", HEADLINE, "float32")
    found = {"kind": "row"} | nothing | NUMBERS | changes
    found["target"], found["met"] = targets.judge(found, "images")
    return found


def timed(op, label="", options=None, shape=(4, 33), say=pytest.fail, libraries=("numpy",)):
    options = op.bench.get(label, {}) if options is None else options
    return measure.row(op, label, options, "numba_cpu", shape, "float32", 0.0, libraries, say)


def test_a_right_kernel_is_timed_with_its_peers_and_limits_and_its_error_is_kept():
    found = timed(Q_SAMPLE)
    assert found["failure"] == "" and found["bytes"] == 3 * 4 * 4 * 33
    assert 0 < found["error"] <= 1 and found["spread"] >= 0
    assert all(found[name] > 0 for name in ("median_us", "gbs", "copy", "triad", "numpy")) and found["numpy_how"]


def test_a_wrong_kernel_is_not_timed(monkeypatch):
    wrong = lambda x0, t, eps, abar, out: diffusion.q_sample(x0, t, -eps, abar, out)
    tuned = registry.kernel(Q_SAMPLE, "numpy_cpu")
    monkeypatch.setattr(registry, "kernel", lambda op, backend: tuned if backend == "numpy_cpu" else wrong)
    found = timed(Q_SAMPLE)
    assert "Mismatch" in found["failure"] and found["median_us"] is None and found["numpy"] is None
    rows, status = command.run([("row", (Q_SAMPLE, "", {}, "numba_cpu", (4, 33), "float32"))], 0.0, [], pytest.fail)
    assert status == 1 and rows[0]["failure"]


BENCHED = [(op, label) for op in registry.OPS for label in op.bench if not op.shapes]


@pytest.mark.parametrize("op, label", BENCHED, ids=lambda x: getattr(x, "name", x))
def test_every_peer_does_the_kernels_work(op, label):
    shape = (8, 2048)
    arguments = timing.problem(op, op.bench[label], shape)
    truth = sound.Truth(op, arguments, shape, registry.expected(op, arguments, "float32"))
    for column in peers.available(["numpy", "torch", "numexpr"])[0]:  # what compiles takes too long here
        made = peers.make(column, op, arguments, shape)
        assert made or column == "numexpr" or registry.kernel(op, "numpy_cpu") is None
        for call in made.values():
            truth.check(call())


def test_an_operation_without_a_peer_entry_is_timed_against_the_numpy_backend(monkeypatch):
    monkeypatch.delitem(equations.EQUATIONS, "fused.heun_step")
    said, libraries = [], ["numpy", *peers.available(["torch", "numexpr"])[0]]
    found = timed(OPS["fused.heun_step"], say=said.append, libraries=libraries)
    assert found["failure"] == "" and found["numpy"] > 0 and found["torch"] is None and found["numexpr"] is None
    assert any("fused.heun_step" in line for line in said)


def test_a_peer_that_is_wrong_or_raises_is_left_out_and_reported(monkeypatch):
    makers = {"wrong": lambda: {"zeros": lambda: np.zeros((4, 33))}, "raises": lambda: 1 / 0}
    monkeypatch.setattr(peers, "make", lambda column, op, arguments, shape: makers[column]())
    said = []
    found = timed(Q_SAMPLE, say=said.append, libraries=["wrong", "raises"])
    assert found["failure"] == "" and len(said) == 2 and "zeros" in said[0] and "ZeroDivisionError" in said[1]


@pytest.mark.parametrize("order", [1, -1])
def test_every_variant_of_a_peer_is_checked(monkeypatch, order):
    """The wrong one is left out wherever it stands, though it would be the fastest, and the right ones are timed."""
    arguments = timing.problem(Q_SAMPLE, {}, (4, 33))
    right = Q_SAMPLE.truth(**arguments).astype(np.float32)
    made = {"right": lambda: right, "also right": lambda: 1 * right, "wrong": lambda: -right, "raises": lambda: 1 / 0}
    monkeypatch.setattr(peers, "make", lambda *_: dict([*made.items()][::order]))
    truth, said = sound.Truth(Q_SAMPLE, arguments, (4, 33), registry.expected(Q_SAMPLE, arguments, "float32")), []
    found = measure.sound_peers(Q_SAMPLE, truth, arguments, arguments, (4, 33), ["numpy"], False, said.append)
    assert set(found) == {("numpy", "right"), ("numpy", "also right")}
    assert len(said) == 2 and all(sum(f"({how})" in line for line in said) == 1 for how in ("wrong", "raises"))


@pytest.mark.parametrize("name", ["fused.q_sample_noise", "fused.eps_loss_noise", "philox.normal"])
def test_noise_of_a_peer_is_refused_unless_it_is_normal(name):
    op, shape, rng = OPS[name], (8, 2048), np.random.default_rng(1)
    arguments = timing.problem(op, {}, shape)
    truth = sound.Truth(op, arguments, shape, registry.expected(op, arguments, "float32"))
    like = {"like": np.empty(shape, np.float32)} if name == "philox.normal" else equations.data(op, arguments, shape)
    c = equations.columns(equations.table(op, arguments, shape)()) if equations.EQUATIONS[op.name].fold else None

    def result(noise):
        xp = SimpleNamespace(normal=lambda x: noise.astype(np.float32), mean=np.mean)
        return equations.EQUATIONS[op.name].f(equations.functional(xp), c, arguments, equations.NOTHING, *like.values())

    truth.check(result(rng.standard_normal(shape)))
    data = next((v for v in arguments.values() if np.shape(v) == shape), np.ones(shape))
    for noise in (rng.random(shape), np.zeros(shape), data, 1.05 * rng.standard_normal(shape)):
        with pytest.raises(ValueError, match="noise"):
            truth.check(result(noise))
    if name == "fused.eps_loss_noise":
        loss, gradient = result(rng.standard_normal(shape))
        with pytest.raises(ValueError, match="loss"):
            truth.check((1.01 * loss, gradient))


def test_rounds_begin_with_another_contestant_each_time_and_the_ratio_is_of_the_rounds():
    called = []
    runs = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    times = timing.interleave(runs, 0.0, least=4, clock=lambda run: run() or 10_000_000)
    assert called[2:] == ["a", "b", "a", "b", "b", "a", "a", "b", "b", "a"]
    assert {name: list(t) for name, t in times.items()} == {"a": [1e7] * 4, "b": [1e7] * 4}
    assert timing.times_faster([1.0, 2.0, 4.0], [3.0, 6.0, 4.0]) == 3.0


def test_the_fastest_variant_counts_and_arithmetic_is_counted_by_the_step(monkeypatch):
    monkeypatch.setattr(machine, "peak", lambda: (None, 1000))
    times = {"kernel": [10.0, 10.0, 12.0], "peak": [5.0] * 3, "slow": [40.0] * 3, "fast": [20.0] * 3}
    times = {("numpy", k) if k in ("slow", "fast") else (k, ""): np.array(t) for k, t in times.items()}
    found = measure.compared(times, None, flops=1000, steps=10)
    assert found["median_us"] == 1e-3 and found["gflops"] == 100 and found["peak_gflops"] == 200 and found["peak"] == 50
    assert found["numpy"] == 2 and found["numpy_how"] == "fast" and found["spread"] == pytest.approx(10)


def test_a_target_stays_in_the_table_when_it_is_missed():
    assert row()["met"] == "yes" and targets.wanted(row(), "images") == {"numpy": 4, "triad": 90}
    assert row(numpy=3.9, triad=50.0, copy=50.0)["met"] == "no: numpy, triad"
    assert row(failure="Mismatch")["met"].startswith("no") and row(numpy=None)["met"] == "not measured: numpy"
    # 3 times NumPy at 80 % of copy is less than 4 times at the speed of copy; a peer that is faster is no bound
    for numpy, copy, met in ((3, 80, "no: copy"), (3, 85, "yes"), (3, 75, "no: numpy"), (0.8, 85, "no: numpy")):
        assert row(numpy=numpy, copy=copy)["met"] == met
    # nothing is rounded, up or down
    assert row(numpy=3.9999, copy=50.0)["met"] == "no: numpy" and row(numpy=4.0, copy=50.0)["met"] == "yes"
    assert row(triad=89.999)["met"] == "no: triad" and row(triad=90.0)["met"] == "yes"
    gpu = dict(backend="triton_gpu", shape=(64, 3, 1024, 1024), dtype="float16", float32_copy=100.0)
    assert row(**gpu, copy=91.0)["met"] == "yes" and row(**gpu, copy=89.0)["met"] == "no: copy"
    for launch, met in ((1.4, "no: launch"), (1.2, "yes")):
        assert row(backend="triton_gpu", shape=SMALL, launch=launch)["met"] == met
    loop = dict(op="fused.mlp_sample", row="batch 64, bfloat16", backend="triton_gpu", shape=(64, 784))
    assert row(**loop, median_us=160.0)["met"] == "no: median" and row(**loop, median_us=140.0)["met"] == "yes"
    names = {f"{op.name} {label}" for op in registry.OPS for label in (*op.bench, "*")} | {"images *", "matrix *"}
    for line in targets.lines():
        label = re.sub(", bfloat16$", "", line["row"])
        assert f"{line['op']} {label}" in names or "mlp" in line["op"] and "fused.mlp_sample" not in OPS
        assert line["value"] is None or line["column"] == targets.HALF or line["column"] in measure.NUMBERS


def test_rows_are_timed_in_the_shapes_of_the_targets_or_of_the_words():
    small = [op for op in registry.OPS if op.name in ("diffusion.q_sample", "vae.reparameterize_kl")]
    found = [(op.name, shape) for op, *_, shape, _ in measure.rows(small, ["numba_cpu"])]
    assert {("vae.reparameterize_kl", (4096, 784)), ("diffusion.q_sample", HEADLINE)} <= set(found)
    assert ("diffusion.q_sample", (4096, 784)) not in found
    assert [shape for *_, shape, _ in measure.rows(small, ["numba_cpu"], [(2, 5)])] == [(2, 5)] * 2


def test_rows_survive_their_csv_and_fill_the_pages(tmp_path):
    wrong = row(failure="Mismatch: worst at (0, 0)", median_us=None, gbs=None, copy=None, triad=None, numpy=None)
    loop = dict(op="fused.mlp_sample", row="batch 64", shape=(64, 784), bytes=None, copy_gbs=None)
    rows = [row(error=0.25), wrong, row(kind=plot.SWEEP), row(**loop, gflops=110.0, hidden=1.5)]
    report.write_csv(tmp_path / "r.csv", rows, MACHINE)
    back, there = report.read_csv(tmp_path / "r.csv")
    assert there == MACHINE and [p.name for p in tmp_path.iterdir()] == ["r.csv"]
    for one, other in zip(rows, back, strict=True):
        assert one == {name: other[name] for name in one}
    # a file of an earlier version lacks columns
    lines = (tmp_path / "r.csv").read_text("utf-8").splitlines()
    missing = ("error", "spread", "hidden", "hidden_how")
    with open(tmp_path / "old.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [name for name in report.FIELDS if name not in missing], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(csv.DictReader(lines[:2]))
    (old,), _ = report.read_csv(tmp_path / "old.csv")
    assert old == back[0] | {name: "" if name == "hidden_how" else None for name in missing}
    # what is no such file is refused by its name
    middle = len(lines[1]) // 2
    for damaged in ("", "a,b\n1,2\n", lines[0], "\n".join((lines[0], lines[1][:middle])), "\x00",
                    "\n".join((lines[0], lines[1].replace("256x3x32x32", "large"))), lines[0] + ",more\n"):
        (tmp_path / "other.csv").write_text(damaged, "utf-8")
        with pytest.raises(ValueError, match="other.csv"):
            report.read_csv(tmp_path / "other.csv")
    (tmp_path / "other.csv").write_bytes("\n".join(lines[:2]).encode("utf-16"))
    with pytest.raises(ValueError, match="other.csv"):
        report.read_csv(tmp_path / "other.csv")
    # the pages
    page, readme = tmp_path / "page.md", tmp_path / "readme.md"
    old = lambda name: f"<!-- {name}:begin -->\nOLD\n<!-- {name}:end -->\n"
    page.write_text("".join(map(old, ("tables", "training", "conformance"))), "utf-8")
    readme.write_text(f"before\n{old('bench')}after", "utf-8")
    assert report.main([str(tmp_path / "r.csv"), "--page", str(page), "--readme", str(readme)]) == 0
    text = readme.read_text("utf-8")
    assert "OLD" not in text + page.read_text("utf-8") and text.startswith("before") and text.endswith("after")
    assert len([line for line in text.splitlines() if line.startswith("| `")]) == 8
    assert re.search(r"\| `q_sample` \| 4.5 \| 104 \|  \| 0.25 \|", text) and "no: FAIL" in page.read_text("utf-8")
    readme.write_text("no markers", "utf-8")
    assert report.main([str(tmp_path / "r.csv"), "--page", str(page), "--readme", str(readme)]) == 2


def test_the_committed_results_can_be_read_and_fill_their_page():
    page = (report.RESULTS / "README.md").read_text("utf-8")
    for path in report.RESULTS.glob("*.csv"):
        rows, there = report.read_csv(path)
        tables = [line for line in report.markdown(rows, there).splitlines() if line.startswith("|")]
        assert len(tables) > 20 and all(line in page for line in tables)
        assert all(row["target"] for row in rows if row["met"])


@pytest.mark.parametrize("width", [40, 80, 120, 10**4])
def test_a_table_is_folded_and_no_number_is_cut(width, capsys):
    rows = [row(spread=3.0, error=0.123, torch=2.0, median_us=123456.7), row(row="another", numexpr=1234.5)]
    report.print_tables(rows, MACHINE, width)
    out = capsys.readouterr().out
    assert "…" not in out and "..." not in out
    for number in ("123.46 ms", "4.5", "1,234", "0.12", "104", "numpy 4x, triad 90%"):
        assert number in re.sub(r"\s+", " ", out)
    assert "JAX" not in out and "x launch" not in out  # blank everywhere
    key = max(len(cell) for header, lines in [report.table(rows)] for cell in [line[0] for line in lines])
    tables = out.split("\n(256, 3, 32, 32)")[0].splitlines()
    assert width < 80 or all(len(line.rstrip()) <= width for line in tables) and key < width


def test_the_tables_are_printed_whatever_happens_to_the_files(tmp_path, monkeypatch, capsys):
    """And the rows are not lost: they go to another folder, which is named."""
    write = report.files.write_atomic

    def full(path, content):
        if path == tmp_path / "rows.csv":
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    job = Q_SAMPLE, "", {}, "numba_cpu", HEADLINE, "float32"
    monkeypatch.setattr(report.files, "write_atomic", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(machine, "pin", lambda threads: None)
    monkeypatch.setattr(command, "_settle", lambda *_: None)
    monkeypatch.setattr(measure, "rows", lambda *_: [job])
    monkeypatch.setattr(command, "run", lambda *_: ([row()], 0))
    assert command.main(["--op", "q_sample", "--csv", str(tmp_path / "rows.csv")]) == 2
    said, (other,) = capsys.readouterr(), tmp_path.rglob("rows.csv")
    assert "q_sample" in said.out and "300.0 us" in said.out and str(other.parent) in said.err.splitlines()[-1]
    assert report.read_csv(other)[0][0]["numpy"] == 4.5


@pytest.mark.parametrize("words", [
    "--csv", "--plot", "--csv /dev/null", "--csv /tmp/one.png --plot /tmp/one.png",
    "--op unet", "--shape 3,x", "--shape 7", "--peers caffe", "--csv /nowhere/at/all.csv", "--csv /proc/rows.csv",
    "--csv /tmp", "--seconds -1", "--seconds nan", "--threads 0", "--backend cuda", "--plot /nowhere/x.png",
    "--plot /tmp/hinge.png --op hinge", "--plot /tmp/picture.docx",
])  # fmt: skip
def test_bad_words_are_refused_before_the_work(words, capsys):
    with pytest.raises(SystemExit) as stop:
        command.arguments([*words.split(), *[""] * (" " not in words)])
    named = words.split()[-2 if "one.png" in words else 0]
    assert stop.value.code == 2 and re.search(rf"error: (argument )?{named}: ", capsys.readouterr().err)


def test_help_has_no_default_of_none(capsys):
    for of in (command.arguments, report.main):
        with pytest.raises(SystemExit):
            of(["--help"])
        assert "None" not in capsys.readouterr().out


def test_the_limits_move_the_bytes_and_do_the_operations_they_state():
    assert timing.copy(800)() is None and machine.triad(1200)() is None
    run, flops = machine.peak()
    run()
    assert flops > 1e6
    with pytest.raises(ValueError, match="--threads"):
        machine.pin(0)


@pytest.mark.parametrize("name", ["fused.mlp_sample", "fused.mlp_train"])
def test_a_loop_is_timed_where_it_is_right_and_not_where_it_is_wrong(name, monkeypatch):
    op, label = OPS[name], next(iter(OPS[name].bench))
    options = op.bench[label] | {"width": 32, "steps": 10} | ({"batch": 16} if "train" in name else {})
    columns = peers.available(["numpy", "hidden", "torch"])[0]
    found = timed(op, label, options, (40, 64), libraries=columns)
    assert found["failure"] == "" and found["gflops"] > 0 and 0 < found["peak"] < 200 and found["gbs"] is None
    assert all(found[c] > 0 for c in columns if (name, c) != ("fused.mlp_train", "hidden"))
    right, tuned = registry.kernel(op, "numba_cpu"), registry.kernel(op, "numpy_cpu")
    wrong = lambda **a: right(**a | {"seed": 1, "abar": a["abar"] ** 1.01})
    monkeypatch.setattr(registry, "kernel", lambda op, backend: tuned if backend == "numpy_cpu" else wrong)
    assert timed(op, label, options, (40, 64), libraries=[])["failure"]
