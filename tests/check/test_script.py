"""The printed code: it runs when pasted, and shows the failure."""
import os
import subprocess
import sys

import numpy as np
import pytest

import ref.diffusion
from kernels.check import case, check
from kernels.check.adapter import caller
from kernels.numba_cpu import diffusion
from ref import schedules
from tests import ROOT
from tests.check.wrong import KINDS, Q, wrong

FEW = dict(examples=100)


def my_step(xt, eps_hat, t, s, z, eta, abar, clip=None):
    """Wrong: the direction keeps sigma^2."""
    step = wrong("diffusion.ddim_step", {"1 - abar_s - sigma**2": "1 - abar_s"})
    return step(xt=xt, eps_hat=eps_hat, t=t, s=s, z=z, eta=eta, abar=abar, clip=clip)


def q_twice(x0, t, eps, abar):
    """Wrong, and with the data in other strides."""
    return 2 * Q(x0, t, np.ascontiguousarray(eps), abar)


@pytest.mark.parametrize("function, op, mapping", [
    (my_step, "ddim_step", None), (q_twice, "q_sample", None), (diffusion.v_target, "x0_from_eps", {"x0": "xt"}),
    (KINDS["breaks a law"], "q_sample", None),
])  # fmt: skip
def test_the_code_runs_in_a_new_process_and_shows_two_results(function, op, mapping):
    verdict = check(function, op, mapping=mapping, **FEW)
    here = "from tests.check.wrong import KINDS; theirs = KINDS['breaks a law']"
    code = verdict.code.replace("# theirs: the function that was checked, <lambda>", here)
    path = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, env=path)
    assert done.returncode == 0, done.stderr + code
    lines = done.stdout.strip().split("\n")
    assert len(lines) >= 2 and lines[0] != lines[-1]


def printed(capsys, verdict, function):
    """What the code of a verdict prints, run here."""
    name = verdict.code.split("# ")[1].split(":")[0]
    exec(verdict.code, {name: function, "__name__": "pasted"})
    return capsys.readouterr().out.strip()


SHOWN = {
    "NaN": "[1.]\n[nan]", "wrong shape": "[(1,)]\n[(1, 1)]", "wrong dtype": "['float64']",
    "writes its inputs": "[0.]\n[0.9999798]", "wrong number of results": "[0.]\n(array([0.], dtype=float32), 1.0)",
    "breaks a law": "[[[[0. 0.]]]\n\n\n [[[0. 0.]]]]\n[[[[1.e-45 1.e-45]]]]",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_each_kind_shows_its_own_failure(capsys, kind):
    verdict = check(KINDS[kind], "q_sample", dtype="float32", **FEW)
    if kind == "raises":
        with pytest.raises(ZeroDivisionError):
            printed(capsys, verdict, KINDS[kind])
    else:
        assert printed(capsys, verdict, KINDS[kind]) == SHOWN[kind], verdict.code


def test_the_code_of_a_write_outside_of_an_array_shows_it(capsys):
    def outside(x0, t, eps, abar):
        if x0.flags.c_contiguous and x0.flags.writeable and x0.size:
            np.lib.stride_tricks.as_strided(x0.reshape(-1), (x0.size + 1,))[-1] = 5
        return Q(x0, t, eps, abar)

    verdict = check(outside, "q_sample", dtype="float32", **FEW)
    shown = printed(capsys, verdict, outside)
    assert shown == f"writes its inputs: {verdict.message}" and "x0" in verdict.message


def test_large_arrays_are_regenerated_and_shown_at_the_worst_element(capsys):
    """7 in place of every element from 768 on; the smallest shape that shows it has 1023 elements."""
    def tail(x0, t, eps, abar):
        out = np.array(Q(x0, t, eps, abar))
        out.reshape(-1)[768:] = 7
        return out

    verdict = check(tail, "q_sample", dtype="float32", fixed={"t": "each"}, **FEW)
    scope = {"theirs": tail}
    exec(verdict.code, scope)
    assert capsys.readouterr().out.strip() == f"wrong values: {verdict.message}" and "(1023,)" in verdict.smallest
    arguments, at = scope["arguments"], int(verdict.message.split("(")[1].split(",")[0])
    truth = ref.diffusion.q_sample(**arguments)[at]
    values = ["255 of 1023", str(truth), "7.0", *(f"{n} = {arguments[n][at]!s}" for n in ("x0", "eps", "t"))]
    assert at >= 768 and all(value in verdict.message for value in values)
    right = case.again(caller(Q, "q_sample"), "float32", arguments)
    assert not right.startswith(case.KINDS)


def test_a_law_broken_by_large_arrays_is_shown(capsys):
    def law(x0, t, eps, abar):
        return Q(x0, t, eps, abar) * x0.dtype.type(1 if x0.size > 1000 else 1 - 1e-7)

    verdict = check(law, "q_sample", dtype="float32", **FEW)
    assert verdict.kind == "breaks a law" and printed(capsys, verdict, law) == f"breaks a law: {verdict.message}"


LINEAR = schedules.alpha_bar(schedules.linear_betas())
RENAMED = {"sample": "x0", "timestep": "t", "noise": "eps", "alphas": "abar"}


@pytest.mark.parametrize("positional", [False, True])
def test_the_code_shows_what_the_function_gets(capsys, positional):
    """Its own names, time counted from 0, alpha-bar without its 1, and sigma in place of it."""
    got = []

    def by_name(sample, timestep, noise, alphas):
        got.append((sample, timestep, noise, alphas))
        return Q(sample, timestep + 1, -noise, 1 / (1 + np.append(0, alphas) ** 2))

    def by_position(sample, /, timestep, noise, alphas):
        return by_name(sample, timestep, noise, alphas)

    function = by_position if positional else by_name
    verdict = check(function, "q_sample", dtype="float32", mapping=RENAMED, conventions=["zero_based", "sigmas"],
                    fixed={"schedule": "linear"}, **FEW)  # fmt: skip
    ours, given = verdict.code.split("given = dict(")
    assert "    timestep=0,\n" in given and "    t=1,\n" in ours
    assert "edm.sigma_from_abar(schedules.alpha_bar(schedules.linear_betas())[1:])" in given
    got.clear()
    truth, result = printed(capsys, verdict, function).split("\n")
    sample, timestep, noise, alphas = got[0]
    assert (timestep, alphas.size) == (0, 1000) and result != truth
    assert truth == str(ref.diffusion.q_sample(sample, 1, noise, LINEAR))


class Box:
    """An array of a library that NumPy does not know."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __repr__(self):
        return f"Box({self.array})"


@pytest.mark.parametrize("kind, shown", [
    ("wrong values", "[0.01]\nBox([-0.01])"), ("writes its inputs", "Box([0.])\nBox([5.])"),
    ("wrong dtype", "['float64']"),
])  # fmt: skip
def test_the_code_gives_other_kinds_of_arrays(capsys, monkeypatch, kind, shown):
    def boxed(sample, t, eps, abar):
        if kind == "writes its inputs":
            sample.array[...] = 5
        result = Q(sample.array, int(t) + 1, eps.array, np.append(1, abar.array))
        result = -result if kind == "wrong values" else result
        return Box(result.astype(np.float64 if kind == "wrong dtype" else sample.dtype))

    monkeypatch.setattr("kernels.check.adapter._carriers", lambda *_: (Box, lambda x: x.array, lambda r: None, True))
    verdict = check(boxed, "q_sample", dtype="float32", arrays="torch", mapping={"sample": "x0"},
                    conventions=["zero_based"], fixed={"t": "scalar"}, **FEW)  # fmt: skip
    assert verdict.kind == kind and printed(capsys, verdict, boxed) == shown, str(verdict)
