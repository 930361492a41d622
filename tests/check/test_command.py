"""python -m kernels check: exit statuses, options, JSON."""
import json
import os
import subprocess
import sys

import pytest

from kernels import __main__ as command
from kernels import registry
from kernels.check import selftest
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
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "leaves.py").write_text("raise SystemExit(4)")
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


def test_list_shows_every_operation_with_its_arguments(capsys):
    assert command.main(["check", "--list"]) == 0
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
    ("q_sample --against nosuch:f", ["nosuch", "ModuleNotFoundError"]),
    ("q_sample --against mine:rihgt", ["rihgt", "one_time, right, wrong"]),
    ("q_sample --against mine:number", ["mine:number", "int"]),
    ("q_sample --against leaves:right", ["leaves", "SystemExit: 4"]),
    ("q_sample --against mine:right --map x0=nosuch", ["--map", "nosuch"]),
    ("q_sample --against mine:right --paper-weight", ["paper_weight"]),
    ("q_sample --against mine:right --fix t", ["--fix", "name=value", "'t'"]),
    ("q_sample --against mine:right --seed x", ["--seed", "'x'"]),
])  # fmt: skip
def test_a_request_that_cannot_be_carried_out_exits_2(mine, capsys, words, parts):
    words = words.split()
    assert command.main(["check", *words]) == 2
    shown = capsys.readouterr()
    assert all(part in shown.err for part in parts) and not shown.out
    assert command.main(["check", *words, "--json"]) == 2
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["right"] is None and all(part in verdict["reason"] for part in parts)


def test_without_words_every_operation_of_ours_is_checked(monkeypatch, capsys):
    monkeypatch.setattr(registry, "OPS", [op for op in registry.OPS if op.name == "diffusion.v_target"])
    monkeypatch.setattr(selftest, "SHAPES", [(1,), (5, 5)])
    monkeypatch.setattr(selftest, "available", lambda: (["numba_cpu"], {"triton_gpu": "because"}))
    assert command.main([]) == 0
    out = capsys.readouterr().out
    assert "because" in out and "diffusion.v_target" in out
