"""The search: right functions pass, and each kind of failure is found and reported as itself."""
import itertools
import sys

import numpy as np
import pytest

from kernels import registry
from kernels.check import assert_right, check, laws, search
from kernels.check.grade import RIGHT
from kernels.numba_cpu import diffusion
from ref.diffusion import ddim_step
from tests.check.wrong import KINDS, Q, wrong

FEW = dict(examples=100)
CHECKED = [op for op in registry.OPS if registry.kernel(op, "numpy_cpu") and not op.orders]
OURS = ("philox.bits", "philox.normal", "optim.adam_step", "optim.clip_by_global_norm", "vae.bernoulli_nll_grad",
        "vae.reparameterize_kl", "gan.discriminator_loss_grad")  # fmt: skip


TRIED = [op for op in registry.OPS if op.half and not op.shapes or op.name in OURS]


@pytest.mark.parametrize("op", TRIED, ids=lambda op: op.name)
def test_our_own_kernels_pass(op):
    verdict = check(registry.kernel(op, "numba_cpu"), op.name, examples=30)  # tests/kernels show that they are right
    assert verdict and 0 <= verdict.error <= 1 and verdict.dtypes == op.dtypes, str(verdict)
    assert laws.LAWS[0].name in verdict.laws


@pytest.mark.parametrize("op", CHECKED, ids=lambda op: op.name)
def test_the_yardstick_is_right(op):
    assert (verdict := check(registry.kernel(op, "numpy_cpu"), op.name, examples=20)).grade == RIGHT, str(verdict)


def test_a_slow_function_passes_and_is_timed():
    def slow(xt, eps_hat, t, s, z, eta, abar, clip=None):
        """In three parts, one after the other."""
        parts = [p for p in np.array_split(np.arange(len(xt)), 3) if p.size]
        each = [(p, *(x[p] if np.ndim(x) else x for x in (t, s))) for p in parts]
        rows = [ddim_step(xt[p], eps_hat[p], t, s, z[p], eta, abar, clip) for p, t, s in each]
        return np.concatenate(rows).astype(xt.dtype) if rows else xt.copy()

    verdict = check(slow, "diffusion.ddim_step", seconds=0.01, **FEW)
    assert verdict and verdict.speed["ratio"] > 1 and len(verdict.laws) == len(laws.LAWS), str(verdict)
    report = " ".join(str(verdict).split())
    assert all(part in report for part in (*verdict.laws, "numba_cpu", verdict.op, f"{verdict.error:.2f}"))
    assert_right(slow, "ddim_step", examples=5)


def test_a_function_that_is_too_slow_for_all_cases_is_reported_as_that(monkeypatch):
    """After its first case patience is at an end; a fault in large arrays is not looked for, and that is said."""
    monkeypatch.setattr(search, "PATIENCE", 0.0)
    large_only = lambda x0, t, eps, abar: Q(x0, t, eps, abar) * x0.dtype.type(1 + (x0.size > 10_000))  # noqa: E731
    verdict = check(large_only, "q_sample")
    assert verdict and verdict.examples == 2 and "more than 1 cases of float32" in str(verdict.untested)
    assert "arrays of more than a few thousand elements" in str(verdict.untested)
    monkeypatch.undo()
    assert check(large_only, "q_sample", **FEW).kind == "wrong values"


def test_a_function_that_refuses_strides_passes_with_a_note():
    def refuses(**arguments):
        if not all(x.flags.carray for x in arguments.values() if isinstance(x, np.ndarray)):
            raise ValueError("contiguous arrays, please")
        return diffusion.ddim_step(**arguments)

    verdict = check(refuses, "ddim_step", **FEW)
    assert verdict and "ValueError: contiguous arrays, please" in verdict.notes[0] and "please" in str(verdict)


def test_a_wrong_dtype_is_reported_with_whether_the_values_are_right():
    off = lambda x0, t, eps, abar: np.float64(Q(x0, t, eps, abar)) + 1  # noqa: E731
    right, both = (check(function, "q_sample", dtype="float32", **FEW) for function in (KINDS["wrong dtype"], off))
    assert right.kind == both.kind == "wrong dtype" and right.message != both.message
    with pytest.raises(AssertionError, match="WRONG DTYPE"):
        assert_right(off, "q_sample", dtype="float32", **FEW)


def test_a_function_that_exits_raises_and_one_that_is_interrupted_stops():
    def leaves(x0, t, eps, abar):
        sys.exit(3)

    def interrupted(x0, t, eps, abar):
        raise KeyboardInterrupt

    verdict = check(leaves, "q_sample", **FEW)
    assert verdict.kind == "raises" and verdict.message == "SystemExit: 3" and not verdict.cause
    with pytest.raises(KeyboardInterrupt):
        check(interrupted, "q_sample", **FEW)


def test_a_result_in_place_of_an_input_is_reported_as_that():
    verdict = check(lambda x0, t, eps, abar: np.copyto(x0, Q(x0.copy(), t, eps, abar)), "q_sample", **FEW)
    assert verdict.kind == "writes its inputs" and "x0" in verdict.message


def test_a_function_that_is_wrong_now_and_then_is_caught():
    calls = itertools.count()
    flaky = lambda x0, t, eps, abar: Q(x0, t, eps, abar) + (next(calls) % 7 == 6)  # noqa: E731
    assert not check(flaky, "q_sample", dtype="float64", **FEW)


def test_half_precision_is_float32_until_it_is_stored():
    def halves(x0, t, eps, abar):
        return Q(x0.astype(np.float32), t, eps.astype(np.float32), abar).astype(x0.dtype)

    def rounded(x0, t, eps, abar):
        return x0 * np.sqrt(abar[np.ravel(t)[0]]).astype(x0.dtype)

    for dtype in registry.HALVES:
        assert check(halves, "q_sample", dtype=dtype, **FEW), dtype
        assert not check(rounded, "q_sample", dtype=dtype, **FEW)


@pytest.mark.parametrize("columns", [60, 80])
def test_the_report_fits_the_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    exponential = {"exp_weighted(eps, logvar / 2)": "exp_weighted(eps, logvar)"}
    for op, how in (("ddim_step", {"(1 - eta) * (1 + eta) * beta": "beta"}), ("reparameterize_kl", exponential)):
        verdict = check(wrong(op, how), op, dtype="float32", **FEW)
        report, code = str(verdict).removesuffix(verdict.code), verdict.code
        assert str(verdict) == report + code and all(x.split()[0] in report for x in (verdict.cause, verdict.smallest))
        assert max(map(len, report.split("\n"))) <= columns and max(map(len, code.split("\n"))) <= 80, str(verdict)


def test_a_strangers_clip_may_leave_the_norm_out_but_not_get_it_wrong():
    """The gradients alone are Optax's result, and right; a norm that is returned is held to its truth."""
    def norm(grads):
        return np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in grads))

    def optax(grads, max_norm):
        with np.errstate(all="ignore"):
            return [g * g.dtype.type(np.minimum(max_norm / norm(grads), 1.0)) for g in grads]

    def torch(grads, max_norm):
        return [g * g.dtype.type(np.minimum(max_norm / (norm(grads) + 1e-6), 1.0)) for g in grads], norm(grads)

    def afterwards(grads, max_norm):
        clipped = [g * g.dtype.type(max_norm / norm(grads) if norm(grads) > max_norm else 1.0) for g in grads]
        return clipped, norm(clipped)

    def one_less(grads, max_norm):
        return optax(grads, max_norm)[:-1], norm(grads)

    for theirs, library in ((optax, "Optax"), (torch, "PyTorch")):
        verdict = check(theirs, "clip_by_global_norm", examples=40)
        assert verdict and library in str(verdict)
    verdict = check(afterwards, "clip_by_global_norm", examples=40)
    assert not verdict and "the norm of the clipped gradients" in str(verdict)
    assert not check(one_less, "clip_by_global_norm", examples=40)


def test_lists_of_numbers_and_objects_are_named():
    class Mine:
        def __call__(self, x0, t, eps, abar):
            return Q(x0, t, eps, abar).tolist()

    verdict = check(Mine(), "q_sample", **FEW)
    assert verdict.kind == "wrong number of results" and ".tolist()" in verdict.message and "Mine" in verdict.function
    assert " at 0x" not in str(verdict)
