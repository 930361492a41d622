"""Guidance and thresholding: by hand, diffusers' thresholds, the two conventions of w, and what is refused."""
import numpy as np
import pytest
from hypothesis import given, strategies as st

from ref import guidance
from tests import assert_close, golden

GOLD = golden("ddpm")
REAL = st.floats(-10, 10)
SHAPES = st.tuples(st.integers(1, 4), st.lists(st.integers(1, 4), max_size=3), st.integers(0, 2**32 - 1))


def two(case):
    B, axes, seed = case
    return np.random.default_rng(seed).standard_normal((2, B, *axes))


def test_guide_by_hand():
    uncond, cond = np.array([[1.0, -2.0]]), np.array([[2.0, 0.5]])
    assert_close(guidance.guide(uncond, cond, 3), np.array([[4.0, 5.5]]))
    assert_close(guidance.guide(uncond, cond, -1.0), np.array([[0.0, -4.5]]))


@given(case=SHAPES)
def test_w_is_0_for_unconditional_and_1_for_conditional(case):
    uncond, cond = two(case)
    np.testing.assert_array_equal(guidance.guide(uncond, cond, 0), uncond)
    np.testing.assert_allclose(guidance.guide(uncond, cond, 1), cond, rtol=0,
                               atol=1e-15 * (np.abs(cond) + np.abs(uncond)).max())


@given(case=SHAPES)
def test_a_weight_for_each_example_is_its_own(case):
    uncond, cond = two(case)
    w = np.linspace(-1, 7.5, len(cond))
    for guide in (guidance.guide, lambda *two: guidance.guide_rescaled(*two, 0.7)):
        together = guide(uncond, cond, w)
        for i in range(len(w)):
            np.testing.assert_array_equal(together[i:i + 1], guide(uncond[i:i + 1], cond[i:i + 1], w[i]))
    for wrong in (np.ones(len(w) + 1), np.ones((len(w), 1))):
        with pytest.raises(ValueError, match=r"\bw\b"):
            guidance.guide(uncond, cond, wrong)


def test_interval_weight_by_hand():
    """Open below and closed above, as [Interval] has it."""
    w = np.array([0.0, 3.0])
    assert [guidance.interval_weight(3.0, t, 200, 800) for t in (0, 200, 201, 800, 801)] == [1, 1, 3, 3, 1]
    assert isinstance(guidance.interval_weight(3, 5, 0, 9), float)
    np.testing.assert_array_equal(guidance.interval_weight(w, 0.3, 0.28, 5.42), w)
    np.testing.assert_array_equal(guidance.interval_weight(w, 0.2, 0.28, 5.42), [1, 1])
    np.testing.assert_array_equal(guidance.interval_weight(w, np.array([9.0, 1.0]), 0.28, 5.42), [1, 3])
    np.testing.assert_array_equal(guidance.interval_weight(2.0, np.array([9.0, 1.0]), -np.inf, np.inf), [2, 2])
    for wrong in ((5, 3), (np.nan, 3), (3, np.nan)):
        with pytest.raises(ValueError, match=r"\blow\b"):
            guidance.interval_weight(2.0, 4, *wrong)
    for call in (lambda: guidance.guide(w, w, None), lambda: guidance.interval_weight(None, 1, 0, 2),
                 lambda: guidance.interval_weight(2.0, None, 0, 2)):  # fmt: skip
        with pytest.raises(TypeError, match=r"\bw\b.+None"):
            call()
    for t in (np.ones(3), np.ones((2, 1))):
        with pytest.raises(ValueError, match=r"\bw and t\b"):
            guidance.interval_weight(w, t, 0, 1)


@given(case=SHAPES, w=REAL)
def test_the_papers_convention(case, w):
    """[CFG] eq. 6: (1 + w) cond - w uncond is `guide` with w_from_paper(w)."""
    uncond, cond = two(case)
    paper = (1 + w) * cond - w * uncond
    ours = guidance.guide(uncond, cond, guidance.w_from_paper(w))
    assert np.all(np.abs(ours - paper) <= 1e-14 * (1 + abs(w)) * (np.abs(cond) + np.abs(uncond)))


@given(w=REAL)
def test_w_to_paper_is_the_inverse(w):
    assert guidance.w_to_paper(7.5) == 6.5 and guidance.w_to_paper(1) == 0 and guidance.w_to_paper(0) == -1
    assert abs(guidance.w_to_paper(guidance.w_from_paper(w)) - w) < 1e-14
    assert abs(guidance.w_from_paper(guidance.w_to_paper(w)) - w) < 1e-14
    assert_close(guidance.w_to_paper(np.array([1.5, 7.5])), np.array([0.5, 6.5]))
    assert_close(guidance.w_from_paper(np.array([0.5, 6.5])), np.array([1.5, 7.5]))


def test_guide_rescaled_by_hand():
    """Deviations over all axes but the first, one example at a time: cond's are 1 and 2, the guided ones' 3 and 2."""
    uncond, cond = np.array([[[0.0, 0.0]], [[1.0, 5.0]]]), np.array([[[-1.0, 1.0]], [[2.0, 6.0]]])
    guided = np.array([[[-3.0, 3.0]], [[4.0, 8.0]]])
    assert_close(guidance.guide(uncond, cond, 3), guided)
    assert_close(guidance.guide_rescaled(uncond, cond, 3, 1), np.array([[[-1.0, 1.0]], [[4.0, 8.0]]]))
    assert_close(guidance.guide_rescaled(uncond, cond, 3, 0.25), np.array([[[-2.5, 2.5]], [[4.0, 8.0]]]))


@given(case=SHAPES.filter(lambda c: np.prod(c[1]) > 1), w=st.floats(0.5, 8), phi=st.floats(0, 1))
def test_guide_rescaled_moves_the_deviation_towards_the_conditional_one(case, w, phi):
    uncond, cond = two(case)
    per_example = tuple(range(1, cond.ndim))
    plain, out = guidance.guide(uncond, cond, w), guidance.guide_rescaled(uncond, cond, w, phi)
    expected = phi * cond.std(axis=per_example) + (1 - phi) * plain.std(axis=per_example)
    np.testing.assert_allclose(out.std(axis=per_example), expected, rtol=1e-11)
    np.testing.assert_array_equal(guidance.guide_rescaled(uncond, cond, w, 0), plain)


def test_an_example_that_is_constant_up_to_rounding_is_not_rescaled():
    """np.std of three times 0.1 is 1.4e-17, not 0: a deviation made of rounding is nothing to divide by."""
    uncond, cond = np.full((1, 3), 0.1), np.array([[0.1, 0.4, 0.9]])
    np.testing.assert_array_equal(guidance.guide_rescaled(uncond, cond, 0, 1), uncond)
    uncond, cond = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[2.0, 2.0], [0.0, 2.0]])  # nor one that is constant
    np.testing.assert_array_equal(guidance.guide_rescaled(uncond, cond, 3, 1), [[4.0, 4.0], [0.0, 2.0]])


@pytest.mark.parametrize("max_value", [1.0, 1.5, 100.0])
@pytest.mark.parametrize("ratio", [0.9, 0.995])
def test_dynamic_threshold_replays_diffusers(ratio, max_value):
    assert_close(guidance.dynamic_threshold(GOLD["threshold/in"], ratio, max_value),
                 GOLD[f"threshold/ratio{ratio}_max{max_value}"])


def test_dynamic_threshold_by_hand():
    """|x| of the second example sorted: 0, 2, 4, 6; its quantile 0.5 is 3; the first example's is below 1, so 1."""
    x0 = np.array([[0.25, -0.5, 0.75, -1.5], [0.0, -2.0, 4.0, -6.0]])
    assert_close(guidance.dynamic_threshold(x0, 0.5, np.inf),
                 np.array([[0.25, -0.5, 0.75, -1.0], [0.0, -2 / 3, 1.0, -1.0]]))
    assert_close(guidance.dynamic_threshold(x0, 0.5, 2), np.array([[0.25, -0.5, 0.75, -1.0], [0.0, -1.0, 1.0, -1.0]]))
    assert_close(guidance.dynamic_threshold(x0, 1.0, np.inf),
                 np.array([[1 / 6, -1 / 3, 0.5, -1.0], [0.0, -1 / 3, 2 / 3, -1.0]]))


@given(case=SHAPES, ratio=st.floats(0, 1), size=st.floats(0.01, 100))
def test_dynamic_threshold_stays_in_range_and_its_limit_1_is_clipping(case, ratio, size):
    x0 = size * two(case)[0]
    assert np.abs(guidance.dynamic_threshold(x0, ratio, np.inf)).max() <= 1
    np.testing.assert_array_equal(guidance.dynamic_threshold(x0, ratio, 1), np.clip(x0, -1, 1))
    for i in range(len(x0)):
        np.testing.assert_array_equal(guidance.dynamic_threshold(x0, ratio, 9)[i:i + 1],
                                      guidance.dynamic_threshold(x0[i:i + 1], ratio, 9))


def test_dynamic_threshold_of_nothing_is_nothing():
    assert guidance.dynamic_threshold(np.zeros((0, 3)), 0.9, 2).shape == (0, 3)
