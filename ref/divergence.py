"""The theory of adversarial training: the best discriminator and the divergence that it measures. float64.

Papers
    [GAN]  Goodfellow et al., "Generative Adversarial Nets", 2014
    [JSD]  Lin, "Divergence Measures Based on the Shannon Entropy", 1991
"""
import numpy as np

from ref.numerics import weighted
from ref.shapes import same_shape


def optimal_discriminator(p_data, p_g):
    """[GAN] eq. 2:  D*(x) = p_data(x) / (p_data(x) + p_g(x)).

    p_data, p_g: one shape, densities or probabilities at the same points, >= 0.
    Returns D* of their shape, float64; 1/2 where both are 0, where any D is as good ([GAN] proposition 1).
    Raises ValueError where shapes differ or a value is below 0.
    """
    p_data, p_g = same_shape(p_data=p_data, p_g=p_g)
    _not_negative(p_data=p_data, p_g=p_g)
    larger = np.maximum(p_data, p_g)
    ratio = np.divide(np.minimum(p_data, p_g), larger, out=np.ones(larger.shape), where=larger != 0)  # a sum overflows
    return np.where(p_data < p_g, ratio, 1) / (1 + ratio)


def jensen_shannon(p, q):
    """The Jensen-Shannon divergence, [JSD] with equal weights, in nats; the one of [GAN] eq. 6. With m = (p + q) / 2,

        JSD = 1/2 sum(p log(p / m)) + 1/2 sum(q log(q / m)),   0 log 0 = 0

    p, q: (..., n), one shape, probabilities that sum to 1 over the last axis.
    Returns JSD (...), a float for one pair; 0 for p = q, at most log 2, which it is for p and q with nothing in common.
    Raises ValueError where shapes differ, a value is below 0, or a sum is not 1 to within 1e-6.
    """
    p, q = same_shape(p=p, q=q)
    _not_negative(p=p, q=q)
    for name, values in {"p": p, "q": q}.items():
        if values.ndim == 0 or not np.all(np.abs(values.sum(axis=-1) - 1) <= 1e-6):
            raise ValueError(f"{name}: expected shape (..., n) with sums over n of 1, got shape {values.shape} with "
                             f"{values.sum(axis=-1)}")
    # With d = (p - q) / (p + q) a term is m ((1 + d) log(1 + d) + (1 - d) log(1 - d)) = m (d^2 + d^4 / 6 + ..)
    m = (p + q) / 2
    a, b = (np.divide(x, m, out=np.ones_like(m), where=m > 0) for x in (p, q))  # 1 + d and 1 - d
    d = np.divide(p - q, p + q, out=np.zeros_like(m), where=m > 0)
    near = np.abs(d) < 0.5
    series = sum(np.where(near, d, 0) ** (2 * k) / (k * (2 * k - 1)) for k in range(25, 0, -1))
    logs = weighted(a, np.log(np.where(a > 0, a, 1))) + weighted(b, np.log(np.where(b > 0, b, 1)))
    return np.sum(m * np.where(near, series, logs), axis=-1) / 2


def _not_negative(**arrays):
    for name, a in arrays.items():
        if not np.all(a >= 0):
            raise ValueError(f"{name}: expected values >= 0, got {a.min()}")
