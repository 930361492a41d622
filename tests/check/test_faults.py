"""What the checker must see: an error just above the allowed one, a fault that comes now and then, a loss that is NaN,
results that share memory, a law that is broken where the noise is not added."""
import functools
import itertools

import numpy as np
import pytest

from kernels import registry
from kernels.check import check, grade, judge, laws
from kernels.check.adapter import caller, find
from kernels.check.case import Case, Failure
from kernels.check.grade import LESS_ACCURATE, RIGHT
from kernels.numba_cpu import diffusion
from tests.check.formulations import grades
from tests.check.wrong import Q, in_data_dtype

FEW = dict(examples=100)
ROUNDED = [op for op in registry.OPS if op.ulps and op.data and not op.orders]


def off(op, by):
    """The truth, each element off by so many times the allowed error."""
    def function(**arguments):
        dtype = str(next(iter(registry.arrays(arguments).values())).dtype)
        rules = judge.rules_of(op, arguments, dtype)
        return [r.truth + by * np.where(np.isfinite(r.allowed), r.allowed, 0) for r in rules]

    return in_data_dtype(function, op.truth)


@pytest.mark.parametrize("op", ROUNDED, ids=lambda op: op.name)
def test_half_of_the_allowed_error_is_right_and_one_and_a_half_times_it_is_less_accurate(op):
    wanted = {0.5: RIGHT, 1.5: LESS_ACCURATE, -1.5: LESS_ACCURATE}
    entries = [(op.name, by, off(op, by), {}) for by in wanted]
    found = {by: (grade, error) for by, grade, error in grades(op, entries, op.dtypes[0], 20, seed=0)}
    assert {by: grade for by, (grade, _) in found.items()} == wanted and max(e for _, e in found.values()) < 3, found


@pytest.mark.parametrize("name, dtype, arguments, ulps", [
    ("ema_step", "float32", {"avg": [1, 1], "p": [1, 1], "decay": 0.5}, 3 / 2),  # NumPy errs by nothing here
    ("ema_step", "float64", {"avg": [1, 1], "p": [1, 1], "decay": 0.5}, 2 * 3),  # where the truth is rounded, too
    ("x0_from_v", "float64", {"xt": [0, 0], "v": [2, 2], "t": 1, "abar": np.array([1, 0])}, 2 * 3 * 2),
    ("eps_loss", "float64", {"eps_hat": [1] * 1024, "eps": [0] * 1024}, 2 * (2 + 10 / 4) * 3),  # a sum of 2^10 terms
    ("clip_by_global_norm", "float64", {"grads": [1] * 4096, "max_norm": 64.0}, 2 * 3 * (1 + 12 / 12)),
])  # fmt: skip
def test_the_allowed_error_is_that_of_the_equation(name, dtype, arguments, ulps):
    op = find(name)
    arrays = {n: np.array(x, dtype) if isinstance(x, list) else x for n, x in arguments.items()}
    arrays |= {"grads": [arrays["grads"]]} if "grads" in arrays else {}
    first = judge.rules_of(op, arrays, dtype)[0]
    assert np.max(first.allowed) == pytest.approx(ulps * np.finfo(dtype).eps, rel=1e-6)


def test_a_grade_ends_where_it_says():
    above = {d: np.nextafter(x, np.inf) for d, x in grade.LESS.items()}
    for dtype, least in grade.LESS.items():
        assert [grade.grade({dtype: x}) for x in (1, 1.0001, least * 0.999)] == [RIGHT, LESS_ACCURATE, LESS_ACCURATE]
        assert all(grade.grade({dtype: x}) == grade.WRONG for x in (least, above[dtype], np.inf, np.nan))
    assert grade.grade({"uint32": 1.0001}) == grade.WRONG and grade.LESS["float64"] == grade.LESS["float32"] == 1e4


@pytest.mark.parametrize("alone", [*registry.FLOATS, ""])
@pytest.mark.parametrize("name", ["q_sample", "ddim_step", "eps_loss_grad"])
def test_a_steady_error_is_no_rounding_in_one_dtype_or_in_both(name, alone):
    """An error of 0.3 % in every element is far from what rounding leaves, and does not shrink with the precision."""
    kernel = registry.kernel(find(name), "numba_cpu")

    @functools.wraps(kernel)
    def function(**arguments):
        dtype = next(iter(registry.arrays(arguments).values())).dtype
        return [x * (1 if alone not in ("", dtype) else 1.003) for x in registry.outputs(kernel(**arguments))]

    verdict = check(in_data_dtype(function, find(name).truth), name, **FEW)
    assert verdict.grade == grade.WRONG and f"{alone or 'float'}" in verdict.smallest, str(verdict)


@pytest.mark.parametrize("dtype", registry.FLOATS)
@pytest.mark.parametrize("wrong", [lambda x: x + 1, lambda x: x * x.dtype.type(0.98), lambda x: np.nan * x])
def test_a_function_that_is_wrong_once_in_fifty_calls_is_wrong(dtype, wrong):
    for first in (0, 17, 49):
        calls = itertools.count(first)
        flaky = lambda x0, t, eps, abar: (wrong if next(calls) % 50 == 49 else np.positive)(Q(x0, t, eps, abar))  # noqa
        verdict = check(flaky, "q_sample", dtype=dtype, **FEW)
        assert verdict.grade == grade.WRONG, str(verdict)


@pytest.mark.parametrize("name", ["eps_loss", "eps_loss_grad", "discriminator_loss_grad", "bernoulli_nll_grad"])
def test_a_loss_that_is_nan_is_wrong(name):
    """Always, and for arrays of more than a thousand elements."""
    kernel = registry.kernel(find(name), "numba_cpu")
    for least in (0, 1000):
        def nan(**arguments):
            out = registry.outputs(kernel(**arguments))
            large = next(iter(registry.arrays(arguments).values())).size > least
            return [out[0] * np.nan if large else out[0], *out[1:]] if out[1:] else out[0] * (np.nan if large else 1)

        verdict = check(in_data_dtype(nan, find(name).truth), name, **FEW)
        assert verdict.kind == "NaN", str(verdict)


def test_no_value_is_owed_where_there_is_no_signal_and_everywhere_else():
    def none_at_all(xt, v, t, abar):
        out = diffusion.x0_from_v(xt, v, t, abar)
        return out * out.dtype.type(np.nan if np.any(abar[t] == 0) else 1)

    def none_there(xt, v, t, abar):
        out = diffusion.x0_from_v(xt, v, t, abar)
        lost = np.reshape(abar[t] == 0, np.shape(t) + (1,) * (out.ndim - np.ndim(t)))
        return np.where(lost, np.nan, out).astype(out.dtype)

    assert check(none_at_all, "x0_from_v", **FEW).kind == "NaN"
    verdict = check(none_there, "x0_from_v", **FEW)
    assert verdict.grade == LESS_ACCURATE and "abar_t = 0" in verdict.less[0], str(verdict)


@pytest.mark.parametrize("floor, wanted", [(1e-6, LESS_ACCURATE), (1e-2, grade.WRONG)])
def test_a_convention_is_that_of_another_library_and_no_other(floor, wanted):
    def clip(grads, max_norm):
        norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in grads))
        return [g * g.dtype.type(min(max_norm / (norm + floor), 1)) for g in grads]

    verdict = check(clip, "clip_by_global_norm", **FEW)
    assert verdict.grade == wanted and ("PyTorch" in str(verdict.less)) == (wanted == LESS_ACCURATE), str(verdict)


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first, second", [(slice(3), slice(1, 4)), (slice(3), slice(3)), (slice(1, 4), slice(3))])
def test_results_that_overlap_are_seen_though_their_values_are_right(first, second):
    call, memory = caller(diffusion.eps_loss_backward, "eps_loss_backward"), np.zeros(4)
    arguments = {"dloss": 0.0, "eps_hat": np.ones(3), "eps": np.zeros(3)}
    case = Case("float64", (3,), "normal", 0, {}, {}, arguments)
    rules = judge.rules_of(call.op, arguments, "float64")
    judge.judge(call, case, arguments, [np.zeros(3), np.zeros(3)], rules, judge.Seen())
    with pytest.raises(Failure, match="same memory"):
        judge.judge(call, case, arguments, [memory[first], memory[second]], rules, judge.Seen())


@pytest.mark.parametrize("shift", [0, 1])
def test_a_result_in_the_memory_of_the_one_before_is_seen(shift):
    kept, calls = np.empty(1 << 22), itertools.count()

    def reused(x0, t, eps, abar):
        first = shift * (next(calls) % 2)
        out = kept.view(x0.dtype)[first : first + x0.size].reshape(x0.shape)
        out[...] = Q(x0, t, eps, abar)
        return out

    assert check(reused, "q_sample", **FEW).kind == "shares memory"


# --- laws ------------------------------------------------------------------------------------------------------------


def _larger(x):
    return x * x.dtype.type(1 + np.finfo(x.dtype).eps)


def _reads_unused_noise(xt, eps_hat, t, s, z, eta, abar, clip=None):
    """The next number where eta = 0 and the sum of the noise is above 0."""
    out = diffusion.ddim_step(xt, eps_hat, t, s, z, eta, abar, clip)
    return _larger(out) if eta == 0 and np.sum(z) > 0 else out


def _reads_noise_of_the_last_step(xt, eps_hat, t, s, z, eta, abar, clip=None):
    out = diffusion.ddim_step(xt, eps_hat, t, s, z, eta, abar, clip)
    return _larger(out) if np.all(np.equal(s, 0)) and np.sum(z) > 0 else out


@pytest.mark.parametrize("function", [_reads_unused_noise, _reads_noise_of_the_last_step])
def test_a_law_that_is_broken_where_no_noise_is_added_is_a_note_and_strictly_a_fault(function):
    law = laws.LAWS[-1].name
    verdict = check(function, "ddim_step", dtype="float64")
    assert verdict.grade != grade.WRONG and any(law in note for note in verdict.notes), str(verdict)
    verdict = check(function, "ddim_step", dtype="float64", strict=True)
    assert verdict.kind == "breaks a law" and verdict.message.startswith(law), str(verdict)


def _next_in(calls, which):
    """The next number in the calls that which names."""
    def function(x0, t, eps, abar):
        out = Q(x0, t, eps, abar)
        return _larger(out) if which(next(calls), x0) else out

    return function


@pytest.mark.parametrize("place, which", [
    (0, lambda call, x: call % 2), (1, lambda call, x: len(x) == 1), (2, lambda call, x: len(x) == 1),
    (3, lambda call, x: len(x) > 1 and np.isnan(x[0]).all() and not np.isnan(x[1:]).any())])  # fmt: skip
def test_each_law_is_asked(place, which):
    verdict = check(_next_in(itertools.count(), which), "q_sample", dtype="float32")
    assert any(laws.LAWS[place].name in note for note in verdict.notes), str(verdict)
