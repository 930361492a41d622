"""Special functions that NumPy lacks. They keep the dtype of their argument.

Papers
    [erfc]  Hunter, Regan, "A Note on the Evaluation of the Complementary Error Function", 1972
    [AS]    Abramowitz, Stegun, "Handbook of Mathematical Functions", 1964, chapter 7
"""
import math

import numpy as np

BLOCK = 2**14  # elements at a time: what is between stays in the cache
SERIES = [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(19)]


def erfcx(z):
    """The scaled complementary error function e^(z^2) erfc(z), [erfc]: the midpoint sum, with step 1/2, of

        erfcx(z) = z / pi integral from -inf to inf of e^(-t^2) / (z^2 + t^2) dt

    and the residue of the pole at t = i z as long as that counts. All terms are positive.
    z: any shape, real part >= 0, complex for a complex step.
    Returns erfcx of that shape, for real float64 z within a few 1e-16 of the value.
    """
    step = 0.5
    near = np.where(np.real(z) < np.pi / step, z, 0)
    pole = np.where(np.real(z) < np.pi / step, 2 * np.exp(near**2) / (1 + np.exp(2 * np.pi * near / step)), 0)
    square, total = z * z, 0
    for n in range(13):
        t = (n + 0.5) * step
        total = total + 2 * step / math.pi * math.exp(-t * t) / (square + t * t)
    return pole + z * total


def erf(x):
    """erf(x) = 2 / sqrt(pi) integral from 0 to x of e^(-t^2) dt: below 1 by its series, [AS] eq. 7.1.5, where erf(x) =
    x + x (2 / sqrt(pi) - 1 - ..) rounds once; from 1 on as 1 - e^(-x^2) erfcx(x).

    x: any shape.
    Returns erf of that shape, within 2 units in the last place.
    """
    return _blockwise(_erf, x)


def normal_cdf(x):
    """Phi(x) = (1 + erf(x / sqrt(2))) / 2, the standard normal distribution; with m = |x| it is normal_pdf(m)
    sqrt(pi / 2) erfcx(m / sqrt(2)) below 0, exact in the tail, and 1 less that above.

    x: any shape.
    Returns Phi of that shape.
    """
    return _blockwise(_normal_cdf, x)


def normal_pdf(x):
    """phi(x) = e^(-x^2 / 2) / sqrt(2 pi), the standard normal density, from the square of a near multiple of 1/16,
    which is exact: e^-800 keeps its digits.

    x: any shape.
    Returns phi of that shape.
    """
    return _blockwise(_normal_pdf, x)


def _blockwise(f, x):
    """f(x), for an f of each element, BLOCK of them at a time."""
    x = np.asarray(x) + 0.0  # floats
    if x.size <= BLOCK:
        return f(x)
    y, flat = np.zeros(x.size, x.dtype), x.reshape(-1)
    for start in range(0, x.size, BLOCK):
        y[start:start + BLOCK] = f(flat[start:start + BLOCK])
    return y.reshape(x.shape)


def _size(x, most):
    """|x|, at most this."""
    size = np.where(np.real(x) < 0, -x, x)
    return np.where(np.real(size) > most, most, size)


def _erf(x):
    size = _size(x, 6)  # erf(6) = 1 - 2e-17
    near = np.where(np.real(size) < 1, size, 0)
    square, series = near * near, 0
    for coefficient in SERIES[:0:-1]:
        series = square * (coefficient + series)
    far = np.where(np.real(size) < 1, 1, size)
    y = np.where(np.real(size) < 1, near + near * (SERIES[0] - 1 + series), 1 - np.exp(-far * far) * erfcx(far))
    return np.where(np.real(x) < 0, -y, y)


def _normal_pdf(x):
    size = _size(x, 40)  # phi(40) = 1e-348
    head = np.rint(16 * np.real(size)) / 16
    return np.exp(-head * head / 2) * np.exp(-(size - head) * (size + head) / 2) / math.sqrt(2 * math.pi)


def _normal_cdf(x):
    size = _size(x, 40)
    tail = _normal_pdf(size) * math.sqrt(math.pi / 2) * erfcx(size / math.sqrt(2))
    return np.where(np.real(x) < 0, tail, 1 - tail)
