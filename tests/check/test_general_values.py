"""Any function, any truth: the values that are drawn for it, and rounding that is no fault."""
import numpy as np
import pytest

from kernels.check import check, grade
from kernels.check.general import record


def logistic(x: "(B, N) float"):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def softplus(x: "(N,) float"):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@pytest.mark.parametrize("truth, function", [
    (logistic, lambda x: x.dtype.type(0.5) * np.tanh(x / 2) + x.dtype.type(0.5)),
    (logistic, lambda x: 1 - 1 / (1 + np.exp(x))), (logistic, lambda x: np.exp(-np.logaddexp(0, -x))),
    (lambda x: np.log1p(np.exp(-np.abs(x))), lambda x: np.log(1 + np.exp(-np.abs(x)))),
    (softplus, lambda x: np.maximum(x, 0) + np.log(1 + np.exp(-np.abs(x)))),
])  # fmt: skip
def test_what_is_lost_next_to_a_larger_number_is_less_accurate(truth, function):
    for seed, examples in ((0, None), (1, 60), (2, 60)):
        assert check(function, truth=truth, arguments={"x": "(B, N) float"}, seed=seed, examples=examples)


@pytest.mark.parametrize("truth, function", [
    (logistic, lambda x: np.where(x < -30, 0, logistic(x)).astype(x.dtype)),
    (softplus, lambda x: np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20)))).astype(x.dtype)),
])  # fmt: skip
def test_what_is_cut_off_is_wrong(truth, function):
    assert check(function, truth=truth).kind == "wrong values"


@pytest.mark.parametrize("range_, function, steady", [
    ("", lambda x: np.where(x > 25, x, softplus(x)).astype(x.dtype), True),
    ("> -8 < 0", lambda x: np.log(1 + np.exp(x)), False),
    ("> -8 < 0", lambda x: softplus(x) * x.dtype.type(1 + 1e-13), True),
])  # fmt: skip
def test_a_term_left_out_below_what_is_wrong_is_said_to_be_no_rounding(range_, function, steady):
    verdict = check(function, truth=softplus, arguments={"x": f"(N,) float {range_}"}, examples=60)
    assert verdict.grade == grade.LESS_ACCURATE and 16 < verdict.error < 1e4, str(verdict)
    assert ("no rounding" in verdict.mend) == steady, str(verdict)


def elu(x: "(N,) float"):
    return np.where(x > 0, x, np.expm1(x))


def added(a: "(N,) float", b: "(N,)"):
    return a + b


def test_tiny_values_are_lost_next_to_1_by_rounding_and_not_by_a_flush():
    for seed in range(3):
        verdict = check(lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1), truth=elu, seed=seed, examples=60)
        assert verdict.grade == grade.LESS_ACCURATE, str(verdict)
        assert not check(lambda a, b: np.where(np.abs(a + b) < 1e-20, 0, a + b).astype(a.dtype), truth=added, seed=seed)


def turned(x: "(B, L, 2 * D) float", kind=np.float64):
    L, d = x.shape[1:]
    angle = np.arange(L).astype(kind)[:, None] * kind(1e4) ** (-np.arange(0, d, 2).astype(kind) / kind(d))
    a, b = x[..., ::2], x[..., 1::2]
    parts = a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)
    return np.stack(parts, axis=-1).reshape(x.shape)


def test_angles_that_a_truth_makes_of_places_may_be_rounded():
    assert check(lambda x: turned(x, x.dtype.type), truth=turned).grade == grade.RIGHT


def waits(u: "(N,) float > 0 < 1", rate: "float in [0.1, 10]" = 2.0):
    return -np.log(u) / rate


def test_tails_are_drawn_within_the_range_and_defaults_are_left_out():
    floor = check(lambda u, rate=2.0: waits(np.maximum(u, 1e-9), rate).astype(u.dtype), truth=waits)
    assert floor.kind == "wrong values" and "array([0.])" not in floor.code, str(floor)
    other = check(lambda u, rate=1.0: waits(u, rate).astype(u.dtype), truth=waits)
    assert "defaults left out" in other.smallest, str(other)


def test_a_loop_is_tried_past_64_steps_and_what_is_not_is_reported():
    def scan(x: "(B, L) float"):
        out = np.array(x)
        for i in range(1, x.shape[1]):
            out[:, i] += 0.9 * out[:, i - 1]
        return out

    verdict = check(lambda x: scan(np.where(np.arange(x.shape[1]) < 100, x, 0)).astype(x.dtype), truth=scan)
    assert verdict.kind == "wrong values" and any(words.startswith("L above") for words in verdict.untested)


def test_an_end_past_2_to_the_20_is_tried_of_two_arrays():
    def past(x, y):
        out = x + y
        out[1 << 20 :] = 0
        return out

    assert check(past, truth=lambda x, y: x + y, arguments=dict.fromkeys("xy", "(N,) float")).kind == "wrong values"


def test_no_size_is_tried_whose_result_fills_the_memory():
    outer = record(lambda x, y: x[:, None] * y, {"x": "(N,) float", "y": "(N,) float"})
    one_hot = record(lambda index, C: (index[:, None] == np.arange(C)).astype(np.float32),
                     {"index": "(B,) ints below C", "C": "int in [2, 1000]"})  # fmt: skip
    assert max(outer.large)[0] <= 4_099 and max(one_hot.large)[0] <= 4_099


def test_a_truth_that_asks_for_nan_is_taken_at_its_word():
    verdict = check(lambda x: np.nanmedian(x, axis=1), truth=lambda x: np.median(x, axis=1), arguments={"x": "(B, N)"})
    assert verdict.kind == "wrong values" and "expected nan" in verdict.message, str(verdict)
