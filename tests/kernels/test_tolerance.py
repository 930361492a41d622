"""The tolerance rule rejects what it must, and refuses to be vacuous."""
import numpy as np
import pytest

from kernels import tolerance

TRUTH = np.linspace(-2, 3, 11)


def test_exact_and_within_the_bound():
    rule = tolerance.rule(TRUTH, np.abs(TRUTH), 2, "float32")
    tolerance.assert_matches(TRUTH, rule)
    tolerance.assert_matches(TRUTH * (1 + 2**-22), rule)
    assert tolerance.error(TRUTH * (1 + 2**-22), rule) == pytest.approx(1)


@pytest.mark.parametrize(
    "wrong",
    [
        TRUTH * 0, -TRUTH, 2 * TRUTH, np.roll(TRUTH, 1), TRUTH * (1 + 3 * 2**-23), TRUTH[:-1], TRUTH[:, None],
        np.where(TRUTH > 2.9, np.nan, TRUTH), np.where(TRUTH > 2.9, np.inf, TRUTH),
    ],
)  # fmt: skip
def test_wrong_outputs_are_rejected(wrong):
    with pytest.raises(tolerance.Mismatch):
        tolerance.assert_matches(wrong, tolerance.rule(TRUTH, np.abs(TRUTH), 2, "float32"))


def test_one_wrong_element_in_a_million_is_rejected():
    truth = np.ones(10**6)
    out = truth.copy()
    out[777_777] += 1e-6
    with pytest.raises(tolerance.Mismatch, match=r"\b777777\b"):
        tolerance.assert_matches(out, tolerance.rule(truth, truth, 2, "float32"))


@pytest.mark.parametrize("ulps", [1e7, 3e8])
def test_a_vacuous_tolerance_is_refused(ulps):
    with pytest.raises(tolerance.Mismatch, match=r"\bzeros\b"):
        tolerance.assert_matches(TRUTH, tolerance.rule(TRUTH, np.abs(TRUTH) + 1, ulps, "float32"))
    small = TRUTH / 1e6  # zeros are within its bound, ones are not
    with pytest.raises(tolerance.Mismatch, match=r"\bzeros\b"):
        tolerance.assert_matches(small, tolerance.rule(small, np.abs(small), 1e7, "float32"))


def test_a_moved_element_is_found_wherever_it_is():
    rule = tolerance.rule(TRUTH, np.abs(TRUTH), 2, "float32")
    for pick in range(TRUTH.size):
        tolerance.assert_matches(TRUTH, rule, pick)


def test_nan_and_inf_must_stand_where_the_truth_has_them():
    truth = np.array([1.0, np.nan, np.inf, -np.inf])
    rule = tolerance.rule(truth, np.abs(truth), 2, "float32")
    tolerance.assert_matches(truth, rule)
    inf, nan = np.inf, np.nan
    for wrong in ([1, 0, inf, -inf], [1, nan, -inf, -inf], [nan, nan, inf, -inf], [1, inf, nan, 0]):
        with pytest.raises(tolerance.Mismatch):
            tolerance.assert_matches(np.array(wrong, float), rule)


def test_no_worse_than_twice_plain_numpy():
    truth, plain = np.ones(4), np.ones(4) * (1 + 2**-23)
    rule = tolerance.rule(truth, truth, 100, "float32", plain)
    assert rule.allowed[0] == pytest.approx(2 * 2**-23 + 50 * 2**-23)
    loose = tolerance.rule(truth, truth, 100, "float32")
    assert loose.allowed[0] == pytest.approx(100 * 2**-23)


def test_a_bound_of_zero_demands_equality():
    rule = tolerance.rule(TRUTH, np.abs(TRUTH), 0, "uint32")
    tolerance.assert_matches(TRUTH, rule)
    with pytest.raises(tolerance.Mismatch):
        tolerance.assert_matches(np.nextafter(TRUTH, 9), rule)


def test_a_scale_must_be_finite_and_fit():
    with pytest.raises(ValueError, match=r"\bscale\b"):
        tolerance.rule(TRUTH, np.full(11, np.inf), 2, "float32")
    with pytest.raises(ValueError, match=r"\btruth.*scale\b"):
        tolerance.rule(TRUTH, np.ones(3), 2, "float32")


@pytest.mark.parametrize("dtype, ulps", [("float32", 4), ("float64", 8)])
def test_a_loop_may_err_by_twice_numpys_worst_and_some_ulps_of_the_largest_element(dtype, ulps):
    step = float(np.spacing(np.dtype(dtype).type(3)))
    rule = tolerance.whole(TRUTH, [TRUTH, TRUTH + np.eye(11)[3] * 10 * step], dtype)
    assert np.all(rule.allowed == pytest.approx((20 + ulps) * step, rel=1e-3))
    tolerance.assert_matches(TRUTH + 20 * step, rule)
    with pytest.raises(tolerance.Mismatch):
        tolerance.assert_matches(TRUTH + 30 * step, rule)


def test_nan_in_a_loop_stands_where_the_truth_has_it_and_widens_nothing():
    truth = np.append(TRUTH, np.nan)
    rule = tolerance.whole(truth, [truth], "float32")
    assert np.array_equal(rule.allowed[:-1], tolerance.whole(TRUTH, [TRUTH], "float32").allowed)
    tolerance.assert_matches(truth, rule)
    with pytest.raises(tolerance.Mismatch):
        tolerance.assert_matches(np.append(TRUTH, 0.0), rule)


def test_whole_allows_ulps_of_the_largest_element_beyond_twice_numpys_worst():
    truth = np.array([1.0, -3.0])
    rule = tolerance.whole(truth, [truth + 2.0**-20, truth], "float32", ulps=4)
    np.testing.assert_array_equal(rule.allowed, 2 * 2.0**-20 + 4 * np.spacing(np.float32(3)))


@pytest.mark.parametrize("dtype", tolerance.LARGEST)
def test_a_truth_beyond_the_dtype_is_inf_and_none_within_is(dtype):
    """With its sign, and with a scale that is ignored there; all other elements keep their value and their bound."""
    largest = tolerance.LARGEST[dtype]
    truth = np.array([1.0, -2.0, largest, *((4 * largest, -4 * largest) if dtype != "float64" else (np.inf, -np.inf))])
    rule = tolerance.rule(truth, np.array([1.0, 2.0, 0.0, np.inf, np.nan]), 2, dtype)
    np.testing.assert_array_equal(rule.truth, [1.0, -2.0, largest, np.inf, -np.inf])
    ulps = 2 * (2 if dtype == "float64" else 1) * tolerance.EPS[dtype]
    np.testing.assert_array_equal(rule.allowed, ulps * np.array([1, 2, 0, 0, 0]) + tolerance.SMALLEST[dtype] / 2)
