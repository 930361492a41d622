"""The special functions against Python's `math`, and in float32."""
import math

import mpmath
import numpy as np
import pytest

from ref import numerics

X = np.concatenate([np.linspace(-6.5, 6.5, 20001), np.logspace(-300, 0, 2000), -np.logspace(-5, 0, 200)])


def units(got, expected):
    """How far apart, in units in the last place of what is expected."""
    return np.abs(got.astype(np.float64) - expected) / np.spacing(np.abs(expected).astype(got.dtype)).astype(np.float64)


def test_erf_is_within_2_units_in_the_last_place():
    assert units(numerics.erf(X), np.array([math.erf(x) for x in X])).max() <= 2
    single = X.astype(np.float32)
    inside = np.abs(single) > 1e-30
    got, expected = numerics.erf(single), np.array([math.erf(x) for x in single.astype(np.float64)])
    assert got.dtype == np.float32 and units(got[inside], expected[inside]).max() <= 2


def test_erf_at_its_ends():
    assert np.array_equal(numerics.erf(np.array([0.0, np.inf, -np.inf, 1e300, -40.0])), [0, 1, -1, 1, -1])
    assert np.isnan(numerics.erf(np.array([np.nan]))[0]) and numerics.erf(1) == pytest.approx(0.8427007929497149, 1e-15)


def test_the_normal_distribution_keeps_its_digits_in_the_tail():
    """Against mpmath: `math.erfc` of the rounded x / sqrt(2) is itself 2 units off near 0, and 1,590 far out."""
    x = np.linspace(-37, 8, 5001)
    expected = np.array([float(mpmath.ncdf(v)) for v in x])
    assert units(numerics.normal_cdf(x), expected).max() <= 10  # 8 seen; two exponentials differ between processors
    # exact squares: x = n / 16
    grid = np.arange(-600, 600) / 16
    density = np.array([math.exp(-(v * v) / 2) / math.sqrt(2 * math.pi) for v in grid])
    assert units(numerics.normal_pdf(grid), density).max() <= 3


def test_large_arrays_go_by_the_block_to_the_same_numbers():
    x = np.random.default_rng(0).standard_normal((3, 2**13 + 5)).astype(np.float32)
    assert np.array_equal(numerics.erf(x)[2], numerics.erf(x[2])) and numerics.erf(x).shape == x.shape


def test_blockwise_is_f_in_blocks_of_any_last_one():
    """With memory for the result and a few blocks."""
    for dtype in (np.float32, np.float64, np.complex64):
        x = np.random.default_rng(0).standard_normal((3, numerics.BLOCK + 7)).astype(dtype)
        sizes = []
        y = numerics.blockwise(lambda part: sizes.append(part.size) or part * part, x.T)
        assert y.dtype == dtype and max(sizes) == numerics.BLOCK and sum(sizes) == x.size
        np.testing.assert_array_equal(y, (x * x).T)
    assert numerics.blockwise(np.sqrt, 4) == 2.0
