"""Special functions, and what keeps its digits where the plain formula cancels, overflows or makes 0 times inf.

Papers
    [erfc]  Hunter, Regan, "A Note on the Evaluation of the Complementary Error Function", 1972
    [AS]    Abramowitz, Stegun, "Handbook of Mathematical Functions", 1964, chapter 7
    [EFT]   Ogita, Rump, Oishi, "Accurate Sum and Dot Product", 2005
    [ETD]   Hochbruck, Ostermann, "Exponential Integrators", 2010
"""
import math

import numpy as np

from ref.shapes import example_sum, float64, integer, number

SPLIT = 2.0**27 + 1  # cuts a float64 into two halves of 26 bits
BLOCK = 2**14  # elements at a time: what is between stays in the cache
SERIES = [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(19)]


def erfcx(z):
    """The scaled complementary error function e^(z^2) erfc(z), [erfc]: the midpoint sum, with step 1/2, of

        erfcx(z) = z / pi integral from -inf to inf of e^(-t^2) / (z^2 + t^2) dt

    and the residue of the pole at t = i z as long as that counts. All terms are positive.
    z: any shape, real part >= 0, complex for a complex step.
    Returns erfcx of that shape, for real float64 z within a few 1e-16 of the value.
    """
    z, step = np.asarray(z) + 0.0, 0.5
    near = np.where(np.real(z) < np.pi / step, z, 0)
    pole = np.where(np.real(z) < np.pi / step, 2 * np.exp(near**2) / (1 + np.exp(2 * np.pi * near / step)), 0)
    huge, total = np.real(z) > 1e15, 0  # there the square may overflow, and 1 / (sqrt(pi) z) is exact
    inside, outside = np.where(huge, 1, z), np.where(huge, z, 1)
    square = inside * inside
    for n in range(13):
        t = (n + 0.5) * step
        total = total + 2 * step / math.pi * math.exp(-t * t) / (square + t * t)
    return np.where(huge, 1 / (math.sqrt(math.pi) * outside), pole + inside * total)


def erf(x):
    """erf(x) = 2 / sqrt(pi) integral from 0 to x of e^(-t^2) dt: below 1 by its series, [AS] eq. 7.1.5, where erf(x) =
    x + x (2 / sqrt(pi) - 1 - ..) rounds once; from 1 on as 1 - e^(-x^2) erfcx(x).

    x: any shape.
    Returns erf of that shape, within 2 units in the last place.
    """
    return blockwise(_erf, x)


def normal_cdf(x):
    """Phi(x) = (1 + erf(x / sqrt(2))) / 2, the standard normal distribution; with m = |x| it is normal_pdf(m)
    sqrt(pi / 2) erfcx(m / sqrt(2)) below 0, exact in the tail, and 1 less that above.

    x: any shape.
    Returns Phi of that shape.
    """
    return blockwise(_normal_cdf, x)


def normal_pdf(x):
    """phi(x) = e^(-x^2 / 2) / sqrt(2 pi), the standard normal density, from the square of a near multiple of 1/16,
    which is exact: e^-800 keeps its digits.

    x: any shape.
    Returns phi of that shape.
    """
    return blockwise(_normal_pdf, x)


def blockwise(f, x):
    """f(x), BLOCK elements at a time, so that what f makes in between stays in the cache and takes no memory.

    f: of each element alone, keeps the dtype. x: any shape.
    Returns f(x), of that shape.
    """
    x = x if getattr(x, "dtype", np.dtype(int)).kind in "fc" else np.asarray(x) + 0.0  # floats
    if x.size <= BLOCK:
        return f(x)
    flat = x.reshape(-1)
    y = np.zeros_like(flat)
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


def exp_above_tangent(x):
    """e^x - 1 - x, what the exponential has above its tangent at 0: by its series where |x| < 1/2, where the
    difference would cancel.

    x: any shape. Returns that shape, float64, >= 0; inf at both infinities.
    """
    x = float64(x)
    near, series = np.where(np.abs(np.real(x)) < 0.5, x, 0), 1.0
    for k in range(16, 2, -1):
        series = 1 + near / k * series
    far = np.expm1(x) - np.where(np.real(x) < 710, x, 0)  # above it e^x is inf, and inf - inf is no number
    return np.where(np.abs(np.real(x)) < 0.5, near**2 / 2 * series, far)


def phi(k, z):
    """[ETD] eq. 2.10, the functions of exponential integrators, for z <= 0:

        phi_0(z) = e^z,   phi_k(z) = (phi_{k-1}(z) - 1 / (k - 1)!) / z

    from  phi_k(z) = e^z / (k - 1)! sum_j (-z)^j / (j! (k + j)),  in which all terms are positive: the recursion cancels
    near z = 0. Beyond z = -4, where the sum is long, it does not.
    k: int >= 0. z: float <= 0.
    Returns a float.
    Raises ValueError for another k or z.
    """
    k, z = integer(k, "k"), number(z, "z")
    if k < 0 or not z <= 0:
        raise ValueError(f"k and z: expected k >= 0 and z <= 0, got {k} and {z}")
    if k == 0 or (k == 1 and z < 0):
        return math.expm1(z) / z if k else math.exp(z)
    if z < -4:
        return (phi(k - 1, z) - 1 / math.factorial(k - 1)) / z
    term = total = 1 / k
    j = 0
    while term > 2.0**-60 * total:
        j += 1
        term *= -z / j * (k + j - 1) / (k + j)
        total += term
    return math.exp(z) / math.factorial(k - 1) * total


def two_sum(a, b):
    """[EFT] algorithm 3.1: a + b as it is rounded, and the rest, exactly what the rounding lost.

    a, b: any shapes that broadcast. Arrays of one dtype keep it.
    Returns the sum and the rest; where the sum is not finite the rest is 0.
    """
    a, b = np.asarray(a), np.asarray(b)
    total = a + b
    with np.errstate(invalid="ignore"):  # inf - inf
        of_b = total - a
        rest = (a - (total - of_b)) + (b - of_b)
    return total, np.where(np.isfinite(total), rest, rest.dtype.type(0))


def two_product(a, b):
    """[EFT] algorithm 3.3: a b as it is rounded, and the rest, exactly what the rounding lost, from products of halves.

    a, b: any shapes that broadcast, real.
    Returns the product and the rest, float64; where the product is not finite, or a or b beyond 1e300, the rest is 0.
    """
    a, b = float64(a), float64(b)
    product, (a1, a2), (b1, b2) = a * b, _halves(a), _halves(b)
    with np.errstate(invalid="ignore"):
        rest = a2 * b2 - (((product - a1 * b1) - a2 * b1) - a1 * b2)
    return product, np.where(np.isfinite(rest), rest, 0.0)


def norm(x):
    """|x_b| = sqrt(sum x_b^2) of each example, its numbers scaled by a power of 2: no square over- or underflows.

    x: (B, ...). Returns (B,) float64.
    """
    x = float64(x)
    largest = np.max(np.abs(np.real(x)), axis=tuple(range(1, x.ndim)), keepdims=True, initial=0.0)
    scale = 2.0 ** np.clip(np.frexp(largest)[1], -1000, 1000)
    return np.sqrt(example_sum((x / scale) ** 2)) * scale.reshape(x.shape[:1])


def weighted(weight, value):
    """weight value, and 0 where the weight is 0, even if the value is infinite there.

    weight, value: any shapes that broadcast. Returns their product, float64.
    """
    weight = float64(weight)
    return weight * np.where(weight == 0, 0.0, value)


def exp_difference(a, b):
    """e^(a - b), with what rounding the difference lost: in the exponential that counts |a - b| times.

    a, b: any shapes that broadcast. Arrays of one dtype keep it. Returns their exponential.
    """
    difference, rest = two_sum(a, -np.asarray(b))
    return np.exp(difference) * (1 + rest)


def exp_weighted(x, exponent):
    """x e^exponent, where the exponential alone may be beyond float64: by its fourth root, four times.

    x, exponent: any shapes that broadcast. Returns their product, float64; 0 where x = 0.
    """
    x, exponent = float64(x), float64(exponent)
    near = np.abs(np.real(exponent)) < 700
    whole = x * np.exp(np.where(near, exponent, 0))
    with np.errstate(over="ignore"):
        root = np.exp(np.where(near, 0, exponent) / 4)
    return np.where(near, whole, weighted(weighted(weighted(weighted(x, root), root), root), root))


def expm1_weighted(x, exponent):
    """x (e^exponent - 1), where the exponential alone may be beyond float64.

    x, exponent: any shapes that broadcast. Returns their product, float64; 0 where x = 0.
    """
    exponent = float64(exponent)
    large = np.real(exponent) > 700
    near = float64(x) * np.expm1(np.where(large, 0, exponent))
    return np.where(large, exp_weighted(x, np.where(large, exponent, 0)), near)


def _halves(a):
    with np.errstate(invalid="ignore"):
        large = SPLIT * a
        upper = large - (large - a)
        return upper, a - upper
