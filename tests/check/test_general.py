"""Any function, any truth: no right version is called wrong, each wrong one is, and a rule says what is left open."""
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from kernels import __main__ as command
from kernels.check import assert_right, check, grade
from kernels.check.adapter import Usage
from kernels.check.general import record
from tests import ROOT
from tests.check.general_cases import CASES

RIGHT = [(row.truth, function) for row in CASES for function in (row.fast, row.order)]
WRONG = [(row.truth, function) for row in CASES for function in row.wrong.values()]
ONE_PASS = "layer_norm_one_pass"  # by the size of its rounding less accurate or wrong
LARGE = ("softmax_tail", "top_k_unsorted", "top_k_in_block", "cumulative_sum_no_carry", "conv_last_column")
ONE_BY_ONE = ("logsumexp_order", "cross_entropy_order")  # a million terms in turn: of the last float32 keeps few digits
SOFTMAX = CASES[0]


@pytest.mark.parametrize("seed, examples", [(0, None), (1, 60)])
@pytest.mark.parametrize("truth, function", RIGHT, ids=lambda f: f.__name__)
def test_a_right_version_is_never_called_wrong(truth, function, seed, examples):
    verdict = check(function, truth=truth, seed=seed, examples=examples)
    assert verdict, str(verdict)
    if function.__name__ in ONE_BY_ONE:  # and nothing else of it is far off
        million = [line for line in verdict.less if "= 1048583" in line]
        assert len(million) == 1 and "float32" in million[0] and verdict.error < 1000, str(verdict)
        return
    assert verdict.error < 100, str(verdict)


@pytest.mark.parametrize("truth, function", WRONG, ids=lambda f: f.__name__)
def test_a_wrong_version_is_called_wrong_and_shown_small(truth, function):
    verdict = check(function, truth=truth)
    if function.__name__ == ONE_PASS:
        assert verdict.grade != grade.RIGHT and verdict.error > 100, str(verdict)
        return
    assert verdict.grade == grade.WRONG and "record(" in verdict.code, str(verdict)
    assert ("arguments |= dict(" in verdict.code) == (function.__name__ not in LARGE), verdict.smallest


# --- the rule --------------------------------------------------------------------------------------------------------


def test_what_errs_a_few_times_as_much_as_is_allowed_is_less_accurate_and_more_is_wrong():
    def off(by, fixed=0):
        return lambda x: SOFTMAX.truth(x) * x.dtype.type(1 + by * np.finfo(x.dtype).eps + fixed)

    grades = [check(off(*by), truth=SOFTMAX.truth, examples=60).grade for by in ((0,), (100,), (0, 1e-6))]
    assert grades == list(grade.GRADES)


def half(x: "(B, N) float"):
    return np.rint(x / 2).astype(np.int32)


def test_a_value_next_to_a_boundary_may_fall_on_either_side_and_a_tie_without_rounding_may_not():
    op = record(lambda x, step: np.rint(x / step).astype(int), {"x": "(N,) float", "step": "float in [0.01, 1]"})
    at, near = np.float32([0.625]), np.float32([0.75])
    allowed = lambda x, step: op.rules({"x": x, "step": step}, "float32")[0].allowed[0]  # noqa: E731
    decided, open_ = allowed(at, 0.25), allowed(near, 0.3)
    assert decided == 0 and open_ == np.inf
    beyond = op.rules({"x": near * np.float32(1.001), "step": 0.3}, "float32")[0]
    assert beyond.allowed[0] == 0 and beyond.truth[0] == 3
    assert check(lambda x: np.floor(x / 2 + 0.5).astype(np.int32), truth=half).kind == "wrong values"


def test_many_values_a_few_ulps_from_a_boundary_do_not_condemn_a_right_function():
    def truth(x: "(N,) float", step: "float in [0.01, 1]"):
        near = np.rint(x / step) * step + step / 2
        return np.rint(near / step).astype(int)

    def by_the_reciprocal(x, step):
        return np.rint((np.rint(x * (1 / step)) * step + step / 2) * (1 / step)).astype(int)

    assert check(by_the_reciprocal, truth=truth)


def first(x: "(N,) float"):
    return np.argmax(x)


def test_which_of_equal_elements_is_named_is_open_and_which_of_different_ones_is_not():
    assert check(lambda x: len(x) - 1 - np.argmax(x[::-1]), truth=first)
    assert not check(lambda x: np.argmin(x), truth=first)


def relu(x: "(B, N) float"):
    return np.maximum(x, 0)


def masked(x: "(B, N) float", keep: "(B, N) bool"):
    return np.where(keep, x, 0).sum(axis=1)


def means(x: "(B, N) float"):
    return np.nanmean(x, axis=1)


def test_nan_reaches_what_depends_on_it_and_0_times_nan_is_open():
    assert check(lambda x: np.fmax(x, 0), truth=relu).kind == "wrong values"  # it loses NaN
    assert check(lambda x: np.where(x > 0, x, x * 0), truth=relu)
    spread = check(lambda x, keep: (x * keep).sum(axis=1), truth=masked)
    assert spread and "0 times NaN" in str(spread)
    batch = lambda x: np.maximum(x, 0) + 0 * x.sum()  # noqa: E731
    assert not check(batch, truth=relu)  # into other examples
    assert not check(lambda x: np.mean(x, axis=1), truth=means)  # the truth asks for NaN
    assert check(lambda x: np.maximum(x, 0), truth=lambda x: np.where(x > 0, x, 0), arguments={"x": "(B, N) float"})


def shifted(x: "(B, N) float"):
    return x - x.max(axis=1, keepdims=True)


def test_an_empty_array_may_be_refused_where_the_truth_takes_it_and_is_not_tried_where_it_does_not():
    def refuses(x):
        if not x.size:
            raise ValueError("nothing to do")
        return np.maximum(x, 0)

    verdict = check(refuses, truth=relu)
    assert verdict and "= 0" in str(verdict) and "nothing to do" in str(verdict)
    assert (3, 0) not in record(shifted).shapes and any(0 in sizes for sizes in record(relu).shapes)


def far(x: "(N,) float"):
    return x + 1


@pytest.mark.parametrize("name, function", [
    ("aliasing", lambda x, y: x + y + np.shares_memory(x, y)),
    ("large", lambda x, y: x + y * (1 if x.size < 20_000 else 2)),
    ("strides", lambda x, y: x + (y if y.flags.c_contiguous else y[::-1])),
    ("memory", lambda x, y, kept={}: np.add(x, y, out=kept.setdefault((x.shape, x.dtype), np.empty_like(x)))),
    ("writes", lambda x, y: np.add(x, y, out=x) if x.flags.writeable else x + y),
    ("other dtype", lambda x, y: (x + y).astype(np.float64)),
    ("now and then", lambda x, y, calls=[]: x + y + (calls.append(1) or len(calls) % 50 == 0)),
    ("y ignored", lambda x, y: x + 0 * x),
])  # fmt: skip
def test_memory_sizes_and_repeats_are_tried(name, function):
    verdict = check(function, truth=lambda x, y: x + y, arguments={"x": "(B, N) float", "y": "(B, N) float"})
    assert verdict.grade == grade.WRONG, f"{name}: {verdict}"
    assert verdict.cause.startswith(name) or name not in ("aliasing", "strides", "y ignored"), verdict.cause


# --- what a person sees -----------------------------------------------------------------------------------------------


MINE = '''
import numpy as np
from kernels.check import assert_right
def norm(x: "(B, N) float", weight: "(N,)", eps: "float in [1e-6, 1e-3]" = 1e-5):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight
def fast(x, weight, eps=1e-5):
    return weight * x / np.sqrt(np.mean(np.square(x), axis=1, keepdims=True) + x.dtype.type(eps))
def wrong(x, weight, eps=1e-5):
    return fast(x, weight)
def bare(x, weight, eps=1e-5):
    return norm(x, weight, eps)
def test_right():
    assert_right(fast, truth=norm)
def test_wrong():
    assert_right(wrong, truth=norm)
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "test_mine.py").write_text(MINE, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "test_mine", raising=False)
    return tmp_path


def python(folder, *words):
    path = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300, env=path)


def test_assert_right_works_in_plain_pytest_and_names_the_argument(mine):
    done = python(mine, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py")
    assert "1 failed, 1 passed" in done.stdout and "eps ignored" in done.stdout, done.stdout
    assert "kernels/check/search.py" not in done.stdout.replace("\\", "/")


def test_the_command_says_right_and_wrong_and_its_code_can_be_pasted(mine, capsys):
    words = ["check", "--truth", "test_mine:norm", "--against"]
    assert command.main([*words, "test_mine:fast"]) == 0
    assert "RIGHT: fast computes test_mine.norm" in capsys.readouterr().out
    assert command.main([*words, "test_mine:wrong"]) == 1
    out = capsys.readouterr().out
    assert "N = 1" in out and "eps ignored" in out
    done = python(mine, "-c", out.split("This code shows it:")[1])
    assert done.returncode == 0 and not done.stderr and "wrong values: worst at" in done.stdout


def test_arguments_are_described_on_the_command_line(mine, capsys):
    described = ["--argument", "x: (B, N) float", "--argument", "weight: (N,)"]
    words = ["check", "--truth", "test_mine:bare", "--against", "test_mine:norm"]
    assert command.main([*words, *described, "--examples", "20"]) == 0
    assert "eps = 1e-05" in " ".join(capsys.readouterr().out.split("not tested")[1].split())
    for more, part in (([], "argument x"), (["--argument", "x"], "name: words"), (["--argument", "z: int"], "no z")):
        assert command.main([*words, *more]) == 2
        assert part in capsys.readouterr().err


def test_help_has_a_page_about_it(capsys):
    with pytest.raises(SystemExit):
        command.main(["check", "--help"])
    out = capsys.readouterr().out
    assert all(part in out for part in ("any function, any truth", "--truth", "--argument", "ints below C or -100"))
    assert max(map(len, out.split("any function, any truth")[1].split("\n"))) <= 80


@pytest.mark.parametrize("truth, arguments, part", [
    (lambda x: x, {}, "argument x"), (lambda x: x, {"x": "(B, N) flot"}, "argument x"),
    (lambda x: x, {"y": "(B,)"}, "no y"), (lambda x, n: x, {"x": "(B,)", "n": "int in [1, M]"}, "argument n"),
    (lambda x, y: x + y, {"x": "(B, N)", "y": "(B, M)"}, "one letter"), (max, {}, "wrap it in a def"),
    (lambda x: x + 1j, {"x": "(B,)"}, "complex128"), (lambda x: None, {"x": "(B,)"}, "object"),
])  # fmt: skip
def test_a_truth_that_is_not_described_is_refused_in_words(truth, arguments, part):
    with pytest.raises(Usage, match=part):
        check(truth, truth=truth, arguments=arguments)


def test_an_operation_or_a_truth_is_needed_and_not_both():
    for options in ({}, {"op": "guide", "truth": relu}, {"arguments": {"x": "(B,)"}}):
        with pytest.raises(Usage, match="truth"):
            check(relu, **options)


def test_a_truth_that_draws_noise_or_keeps_a_state_is_refused():
    def dropped(x: "(N,) float"):
        return np.where(np.random.random(x.shape) < 0.9, x, 0)

    calls = itertools.count()

    def counted(x: "(B, N) float"):
        return x + next(calls) % 2

    for truth in (dropped, counted):
        with pytest.raises(Usage, match="state"):
            record(truth)
