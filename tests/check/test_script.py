"""The printed code: it runs when pasted, and shows the failure."""
import os
import subprocess
import sys

import numpy as np
import pytest

import ref.diffusion
from kernels import registry
from kernels.check import check, judge, laws, script
from kernels.check.adapter import caller
from kernels.numba_cpu import diffusion
from tests import ROOT
from tests.check.wrong import KINDS, Q, wrong

FEW = dict(dtype="float32", examples=100)


KEEPS_SIGMA = wrong("diffusion.ddim_step", {"(1 - eta) * (1 + eta) * beta": "beta"})


def my_step(xt, eps_hat, t, s, z, eta, abar, clip=None):
    """Wrong: the direction keeps sigma^2."""
    return KEEPS_SIGMA(xt=xt, eps_hat=eps_hat, t=t, s=s, z=z, eta=eta, abar=abar, clip=clip)


def pasted(code, **names):
    """The names that the code of a verdict leaves, run here."""
    exec(code, names)
    return names


@pytest.mark.parametrize("function, op, mapping", [
    (my_step, "ddim_step", None), (diffusion.v_target, "x0_from_eps", {"x0": "xt"}),
])  # fmt: skip
def test_the_code_runs_in_a_new_process(function, op, mapping):
    verdict, path = check(function, op, mapping=mapping, **FEW), os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", verdict.code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, env=path)
    expected, got, *_, last = done.stdout.strip().split("\n")
    assert done.returncode == 0 and not done.stderr and last == f"{verdict.kind}: {verdict.message}"
    assert expected.startswith("expected [array(") and got.startswith("got      [array(")


def _outside(x0, t, eps, abar):
    if x0.flags.c_contiguous and x0.flags.writeable and x0.size:
        np.lib.stride_tricks.as_strided(x0.reshape(-1), (x0.size + 1,))[-1] = 5
    return Q(x0, t, eps, abar)


def _strides(x0, t, eps, abar):
    return np.array(Q(x0, t, eps, abar)) * (1 if eps.flags.c_contiguous else 2)


def _large_only(x0, t, eps, abar):
    return Q(x0, t, eps, abar) * x0.dtype.type(1 if x0.size > 1000 else 1 - 1e-7)


PARTS = {
    "wrong shape": "expected (1,), got (1, 1)", "wrong dtype": "expected float32, got float64", "raises": "ZeroDiv",
    "wrong number of results": "expected 1, got 2", "breaks a law": laws.LAWS[1].name, "writes its inputs": "x0",
}  # fmt: skip


@pytest.mark.parametrize("kind, function, part", [
    *((kind, function, PARTS.get(kind, "")) for kind, function in KINDS.items()),
    ("writes its inputs", _outside, "outside"), ("wrong values", _strides, ""), ("breaks a law", _large_only, "first"),
])  # fmt: skip
def test_each_kind_of_failure_is_reported_as_itself_and_shown(capsys, kind, function, part):
    verdict = check(function, "q_sample", strict=True, **FEW)
    assert verdict.kind == kind and part in verdict.message and str(verdict).startswith(kind.upper()), str(verdict)
    assert function is _strides or not verdict.cause
    if kind == "raises":
        with pytest.raises(ZeroDivisionError):
            pasted(verdict.code, theirs=function)
    else:
        pasted(verdict.code, theirs=function)
        assert capsys.readouterr().out.strip().endswith(f"{kind}: {verdict.message}"), verdict.code


def test_large_arrays_are_regenerated_and_shown_at_the_worst_element(capsys):
    """7 in place of every element from 768 on; the smallest shape that shows it has 1023 elements."""
    def tail(x0, t, eps, abar):
        out = np.array(Q(x0, t, eps, abar))
        out.reshape(-1)[768:] = 7
        return out

    verdict = check(tail, "q_sample", fixed={"t": "each"}, **FEW)
    arguments = pasted(verdict.code, theirs=tail)["arguments"]
    assert f"wrong values: {verdict.message}" in capsys.readouterr().out and "(1023,)" in verdict.smallest
    at = int(verdict.message.split("(")[1].split(",")[0])
    truth = ref.diffusion.q_sample(**arguments)[at]
    values = ["255 of 1023", str(truth), "7.0", *(f"{n} = {arguments[n][at]!s}" for n in ("x0", "eps", "t"))]
    assert at >= 768 and all(value in verdict.message for value in values)
    assert not judge.again(caller(Q, "q_sample"), "float32", arguments).startswith("expected")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "uint32", "int64"])
def test_every_digit_of_an_array_is_printed(dtype):
    x = np.array([[1 / 3, 1e-5, 2.5e4], [7, 0, 3]]).astype(registry.like(dtype))
    names = {n: getattr(np, n) for n in ("array", *script.NUMPY)} | {"bfloat16": registry.like("bfloat16")}
    again = eval(script.repr_of(x), names)
    assert again.dtype == x.dtype and np.array_equal(again, x)


class Box:
    """An array of a library that NumPy does not know."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype


@pytest.mark.parametrize("kind", ["wrong values", "writes its inputs", "wrong dtype"])
def test_the_code_has_names_conventions_and_kinds_of_arrays(capsys, monkeypatch, kind):
    """Its own names, by position, time counted from 0, sigma in place of an alpha-bar without its 1."""
    def boxed(sample, /, t, eps, abar):
        assert abar.array.size == 1000
        if kind == "writes its inputs":
            sample.array[...] = 5
        result = Q(sample.array, int(t) + 1, eps.array, 1 / (1 + np.append(0, abar.array) ** 2))
        result = -result if kind == "wrong values" else result
        return Box(result.astype(np.float64 if kind == "wrong dtype" else sample.dtype))

    monkeypatch.setattr("kernels.check.adapter._carriers", lambda *_: (Box, lambda x: x.array, lambda r: None, True))
    verdict = check(boxed, "q_sample", arrays="torch", mapping={"sample": "x0"}, conventions=["zero_based", "sigmas"],
                    fixed={"t": "scalar", "schedule": "linear"}, **FEW)  # fmt: skip
    assert "'sample': 'x0'" in verdict.code and "'zero_based', 'sigmas'" in verdict.code
    pasted(verdict.code, theirs=boxed)
    shown = capsys.readouterr().out.strip()
    assert verdict.kind == kind and shown.endswith(f"{kind}: {verdict.message}"), str(verdict)
