"""python -m kernels check: exit statuses, options, JSON."""
import json
import os
import subprocess
import sys

import pytest

from kernels import __main__ as command
from kernels import registry
from kernels.check import search, selftest
from tests import ROOT

MINE = '''
import numpy as np
from kernels.numba_cpu import diffusion
def right(x0, t, eps, abar):
    return diffusion.q_sample(x0, t, eps, abar)
def wrong(x0, t, eps, abar):
    return diffusion.q_sample(x0, t, -np.array(eps), abar)
def one_time(x0, t, eps, abar):
    assert isinstance(t, int) and len(abar) == 5
    return diffusion.q_sample(x0, t, eps, abar)
number = 3
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE, "utf-8")
    (tmp_path / "leaves.py").write_text("raise SystemExit(4)", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def run(*words):
    return command.main(["check", *words, "--examples", "20", "--seconds", "0.01"])


def test_a_right_function_exits_0_and_json_has_its_numbers(mine, capsys):
    assert run("q_sample", "--against", "mine:right", "--json") == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["right"] and verdict["op"] == "diffusion.q_sample" and verdict["error"] <= 1
    assert verdict["speed"]["theirs_us"] > 0


def test_a_fixed_value_is_read_from_the_command_line(mine, capsys):
    assert run("q_sample", "--against", "mine:one_time", "--fix", "t=scalar", "--fix", "schedule=short") == 0
    assert "t = scalar" in (out := capsys.readouterr().out) and "schedule = short" in out


def test_a_wrong_function_exits_1_in_a_process_of_its_own(mine):
    words = ["-m", "kernels", "check", "diffusion.q_sample", "--against", "mine:wrong", "--examples", "20"]
    path = os.environ | {"PYTHONPATH": f"{mine}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, env=path)
    assert done.returncode == 1 and not done.stderr
    assert "sign of eps" in done.stdout and "from mine import wrong" in done.stdout


@pytest.mark.parametrize("words, parts", [
    (["q_sample"], ["--op q_sample", "check q_sample --against"]), (["--op", "sampel"], ["sampel", "--list"]),
])  # fmt: skip
def test_a_request_without_its_command_exits_2_with_a_hint(capsys, words, parts):
    assert command.main(words) == 2
    shown = capsys.readouterr()
    assert all(part in " ".join(shown.err.split()) for part in parts) and not shown.out


@pytest.mark.parametrize("words", [["--list"], ["check", "--list"]])
def test_list_shows_every_operation_with_its_arguments(words, capsys):
    assert command.main(words) == 0
    lines = capsys.readouterr().out.split("\n")
    assert [x.split("(")[0] for x in lines if x[:1].strip()] == [op.name for op in registry.OPS if not op.orders]
    at = lines.index("diffusion.q_sample(x0, t, eps, abar)")
    assert lines[at + 1].strip().startswith("[DDPM] eq. 4") and max(map(len, lines)) < 80


def test_help_does_not_print_defaults_that_are_none(capsys):
    with pytest.raises(SystemExit):
        command.main(["check", "--help"])
    out = capsys.readouterr().out
    assert "None)" not in out and all(x in out for x in ("--list", "--map", "--fix", "--zero-based", "--json"))


@pytest.mark.parametrize("words, parts", [
    ("q_sample", ["--against MODULE:FUNCTION", "--list"]),
    ("q_sampel --against mine:right", ["q_sampel", "q_sample"]),
    ("q_sample --against mine", ["--against", "module:function"]),
    ("q_sample --against own/mine.py", ["--against", "file.py:", "own/mine.py"]),
    (r"q_sample --against C:\x\mine.py", ["--against", "file.py:", r"C:\x\mine.py"]),
    ("q_sample --against own/nosuch.py:f", ["own/nosuch.py", "FileNotFoundError"]),
    ("q_sample --against nosuch:f", ["nosuch", "ModuleNotFoundError"]),
    ("q_sample --against mine:rihgt", ["rihgt", "one_time, right, wrong"]),
    ("q_sample --against mine:number", ["mine:number", "int"]),
    ("q_sample --against leaves:right", ["leaves", "SystemExit: 4"]),
    ("q_sample --against mine:right --map x0=nosuch", ["--map", "nosuch"]),
    ("q_sample --against mine:right --paper-weight", ["paper_weight"]),
    ("q_sample --against mine:right --fix t", ["--fix", "name=value", "'t'"]),
    ("q_sample --against mine:right --seed x", ["--seed", "'x'"]),
    ("q_sample --against mine:right --seconds inf", ["--seconds", "'inf'"]),
    ("q_sample --against mine:right --fix t=scalar --fix t=each", ["--fix t", "twice"]),
    ("q_sample --against mine:right --map x0=x0 --map x0=eps", ["--map x0", "twice"]),
])  # fmt: skip
def test_a_request_that_cannot_be_carried_out_exits_2(mine, capsys, words, parts):
    words = words.split()
    assert command.main(["check", *words]) == 2
    shown = capsys.readouterr()
    assert all(part in " ".join(shown.err.split()) for part in parts) and not shown.out
    assert max(map(len, shown.err.split("\n"))) < 80
    assert command.main(["check", *words, "--json"]) == 2
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["right"] is None and all(part in verdict["reason"] for part in parts)


def test_a_function_may_stand_in_a_file(mine, tmp_path, monkeypatch, capsys):
    """On Windows too; under the name of a package of this project too, which it does not hide."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "mine.py").write_text("from nextdoor import *", "utf-8")
    (tmp_path / "kernels" / "nextdoor.py").write_text(MINE, "utf-8")
    for name in (r"C:\own\mine.py", "ref.py"):
        (tmp_path / name).write_text(MINE, "utf-8")
    for against in ("mine.py", "kernels/mine.py", r"C:\own\mine.py", str(tmp_path / "ref.py")):
        assert run("q_sample", "--against", f"{against}:right") == 0
    assert command.main(["check", "q_sample", "--against", "ref.py:wrong", "--examples", "20", "--json"]) == 1
    code = json.loads(capsys.readouterr().out.partition("{")[2].join("{ "))["code"]
    exec(code, {})
    assert "wrong values" in capsys.readouterr().out and sys.modules["ref"].__file__ != str(tmp_path / "ref.py")
    # where a module of that name is another one, the file is named
    for against in ("kernels.mine:right", "ref:right"):
        assert run("q_sample", "--against", against) == 2
        path = against.replace("kernels.mine", "kernels/mine.py").replace("ref:", "ref.py:")
        assert path in capsys.readouterr().err


@pytest.mark.parametrize("own, words, told", [
    ("ref.py", "kernels --op guide", "ref.py hides the package ref"),
    ("ref.py", "bench --op q_sample", "ref.py hides the package ref"),
    ("ref/__init__.py", "kernels check q_sample --against mine:right", "hides the package ref"),
    ("kernels/__init__.py", "bench --op q_sample", "kernels/__init__.py"),
    ("kernels/__init__.py", "bench.studies.digits", "kernels/__init__.py"),
])
def test_a_file_of_ones_own_that_hides_a_package_is_named(tmp_path, own, words, told):
    (tmp_path / own).parent.mkdir(exist_ok=True)
    (tmp_path / own).write_text("", "utf-8")
    path = os.environ | {"PYTHONPATH": str(ROOT)}
    how = dict(cwd=tmp_path, capture_output=True, text=True, env=path, timeout=60)
    ask = lambda *words: subprocess.run([sys.executable, *words], **how)
    done = ask("-m", *words.split())
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and told in done.stderr and "rename it" in done.stderr
    if own.startswith("ref"):
        done = ask("-c", "from kernels.check import check")
        assert "hides the package ref" in done.stderr.splitlines()[-1] and "ImportError" in done.stderr


TALKS = """
import atexit, ctypes
say = lambda: [print("loud"), ctypes.CDLL(None).puts(b"loud")]
say()
atexit.register(say)
def step(x0, t, eps, abar):
    say()
    return x0
def leaves(x0, t, eps, abar):
    raise SystemExit(0)
"""


@pytest.mark.parametrize("function, status", [("step", 1), ("nosuch", 2)])
def test_json_stays_json_whatever_the_function_prints(tmp_path, function, status):
    """In Python and in C, when it is imported, called and left."""
    (tmp_path / "talks.py").write_text(TALKS, "utf-8")
    words = ["-m", "kernels", "check", "q_sample", "--against", f"{tmp_path / 'talks.py'}:{function}", "--json"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == status and json.loads(done.stdout)["right"] is ({1: False}.get(status))
    assert done.stderr.count("loud") >= 4


def test_json_knows_no_infinity(mine, monkeypatch, capsys):
    speed = {"theirs_us": float("nan")}
    verdict = search.Verdict("op", "f", ("float32",), 0, 1, float("inf"), kind="raises", speed=speed)
    monkeypatch.setattr(search, "check", lambda *_: verdict)
    assert run("q_sample", "--against", "mine:right", "--json") == 1
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["error"] is None and found["speed"] == {"theirs_us": None}


def test_without_words_every_operation_of_ours_is_checked(monkeypatch, capsys):
    monkeypatch.setattr(registry, "OPS", [op for op in registry.OPS if op.name == "diffusion.v_target"])
    monkeypatch.setattr(selftest, "SHAPES", [(1,), (5, 5)])
    monkeypatch.setattr(selftest, "available", lambda: (["numba_cpu"], {"triton_gpu": "because"}))
    assert command.main([]) == 0
    shown = capsys.readouterr()
    assert "because" in shown.out and "diffusion.v_target" in shown.out and not shown.err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # there it says what it does until it is done
    assert command.main([]) == 0
    said = capsys.readouterr().err.split("\r")
    assert "diffusion.v_target numba_cpu float32" in said[0] and said[1] == " " * len(said[0]) and len(said[0]) < 80
