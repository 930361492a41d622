"""The law of many draws of Philox. Deterministic: the seeds are fixed."""
import math

import numpy as np
import pytest

from ref import philox


N = 1_000_000


def normal_cdf(x):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])


def ks(sample, cdf):
    """Kolmogorov-Smirnov's sup |F_n - F| times sqrt(n): below 1.63 in 99 of 100 samples of the right law."""
    n = sample.size
    f = cdf(np.sort(sample))
    return math.sqrt(n) * max(np.max(np.arange(1, n + 1) / n - f), np.max(f - np.arange(n) / n))


def moments_off(z):
    """The first four moments' distance from a standard normal's, each in its own standard errors."""
    n = z.size
    return np.abs([z.mean() * math.sqrt(n), ((z**2).mean() - 1) * math.sqrt(n / 2), (z**3).mean() * math.sqrt(n / 15),
                   ((z**4).mean() - 3) * math.sqrt(n / 96)])


def tail_off(z):
    """How many draws lie beyond +4 and beyond -4 sigma, in standard errors of the count."""
    expected = z.size * 0.5 * math.erfc(4 / math.sqrt(2))
    return np.abs([(z > 4).sum() - expected, (z < -4).sum() - expected]) / math.sqrt(expected)


@pytest.fixture(scope="module")
def z():
    return philox.normal(2024, N)


def test_moments_of_a_million_normals(z):
    assert np.all(moments_off(z) < 3)
    assert np.all(moments_off(z[0::2]) < 3.5) and np.all(moments_off(z[1::2]) < 3.5)  # the sines and the cosines


def test_kolmogorov_smirnov_of_a_million_normals(z):
    assert ks(z, normal_cdf) < 1.63
    assert ks(philox.uniform(2024, N), lambda u: u) < 1.63


def test_tail_of_a_million_normals(z):
    assert np.all(tail_off(z) < 3)
    assert 4.7 < np.abs(z).max() < 6.764


def test_neighbours_streams_and_seeds_are_uncorrelated(z):
    """Correlations of the values and of their squares (a pair shares its radius), in standard errors."""
    other = {"pair": (z[0::2], z[1::2]), "next": (z[:-1], z[1:]), "block": (z[:-4], z[4:]),
             "stream": (z, philox.normal(2024, N, stream=1)), "seed": (z, philox.normal(2025, N)),
             "high word of the seed": (z, philox.normal(2024 + 2**32, N))}
    for name, (a, b) in other.items():
        assert abs(np.mean(a * b)) * math.sqrt(a.size) < 3.5, name
        assert abs(np.mean((a**2 - 1) * (b**2 - 1))) / 2 * math.sqrt(a.size) < 3.5, name


def test_the_law_tests_can_fail(z):
    """A shifted, a scaled and a cut normal, and a uniform with the right mean and deviation, are each rejected."""
    uniform = (philox.uniform(2024, N) - 0.5) * math.sqrt(12)
    few = 100_000
    assert moments_off(uniform)[:2].max() < 3 < moments_off(uniform)[3]  # mean and deviation alone pass it
    assert ks(uniform[:few], normal_cdf) > 1.63
    assert ks(z[:few] + 0.01, normal_cdf) > 1.63 and moments_off(z + 0.01)[0] > 3
    assert ks(z[:few] * 1.02, normal_cdf) > 1.63 and moments_off(z * 1.01)[1] > 3
    assert tail_off(np.clip(z, -4, 4)).min() > 3 and tail_off(1.05 * z).min() > 3
