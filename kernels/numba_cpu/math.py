"""exp, log(1 + exp), sigmoid and silu, in float32 to about one unit of the last digit, by arithmetic that a loop
vectorises; libm's, which float64 uses, it does not.

exp(h) = 2^n exp(f), |f| <= ln 2 / 2, with ln 2 in two parts so that f loses nothing; the polynomials are in
`kernels.coefficients`."""
import math

import numpy as np
from numba import float32, int32
from numba.extending import overload

from kernels import coefficients
from kernels.numba_cpu.engine import INLINE, element
from kernels.numba_cpu.intrinsics import choose, fma

E0, E1, E2, E3, E4 = np.array(coefficients.EXP, np.float32)
P0, P1, P2, P3, P4, P5, P6, P7, P8, P9 = np.array(coefficients.LOG1P, np.float32)
# exp(f ln 2) in f
B0, B1, B2, B3, B4, B5 = np.array([c * math.log(2) ** i for i, c in enumerate((1, *coefficients.EXP), 1)], np.float32)
LN2_HIGH, LN2_LOW, LOG2_E = np.float32(0.693359375), np.float32(-2.12194440e-4), np.float32(1.44269504)
TO_INT = np.float32(12582912)  # 1.5 2^23: adding and subtracting it rounds to the nearest integer
TO_INT_BITS = TO_INT.view(np.int32)
LARGEST = np.float32(3e38)  # inf less it is inf, where inf less inf is NaN
LEAST_EXPONENT, MOST_EXPONENT = np.float32(-126), int32(127)  # of a float32 with all its digits
LEAST, MOST = np.float32(-104), np.float32(104)  # beyond them exp is 0 and inf in float32
MOST_NORMAL = np.float32(87)  # exp(-h) is a normal float32 up to here
ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)


@element
def _reduced(h):
    """n and f of exp(h) = 2^n exp(f). h: float32 in [-104, 104]; NaN makes f NaN, and n any number."""
    n = (h * LOG2_E + TO_INT) - TO_INT
    f = (h - n * LN2_HIGH) - n * LN2_LOW
    return int32(n), f


@element
def _curved(f):
    """exp(f) - 1 - f. f: float32, |f| <= ln 2 / 2."""
    return f * f * (E0 + f * (E1 + f * (E2 + f * (E3 + f * E4))))


@element
def power_of_two(n):
    """2^n. n: int32 from -126 to 127."""
    return np.int32((n + int32(127)) << int32(23)).view(np.float32)


@element
def _scaled(p, n):
    """p 2^n, rounded once where it has fewer digits near 0. n: int in [-151, 151]."""
    half = n >> int32(1)
    return p * power_of_two(half) * power_of_two(int32(n - half))


@element
def _std_of32(logvar):
    h = HALF * logvar
    n, f = _reduced(LEAST if h < LEAST else MOST if h > MOST else h)
    g = _curved(f)
    a = f + g  # exp(f) - 1
    std = _scaled(ONE + a, n)
    if n == 0:
        return std, a * (TWO + a), fma(a, a, TWO * g)
    m = std * std - ONE
    return std, m, m - (LARGEST if logvar > LARGEST else logvar)


@element
def _std_of64(logvar):
    m = math.expm1(logvar)
    return math.exp(0.5 * logvar), m, m - (LARGEST if logvar > LARGEST else logvar)


def std_of(logvar):
    """exp(logvar / 2), exp(logvar) - 1 and exp(logvar) - 1 - logvar, none of which cancels near 0. logvar: a number
    of the kernel's dtype."""
    return _std_of32(logvar) if type(logvar) is np.float32 else _std_of64(logvar)


@overload(std_of, jit_options=INLINE)
def _(logvar):
    return _std_of32 if logvar == float32 else _std_of64


@element
def _logistic32(x):
    h = -abs(x)
    n, f = _reduced(LEAST if h < LEAST else h)
    e = _scaled(ONE + (f + _curved(f)), n)
    t = e - HALF
    log = e * (P0 + t * (P1 + t * (P2 + t * (P3 + t * (P4 + t * (P5 + t * (P6 + t * (P7 + t * (P8 + t * P9)))))))))
    s = ONE / (ONE + e)
    return log, s, e * s


@element
def _logistic64(x):
    e = math.exp(-abs(x))
    s = 1.0 / (1.0 + e)
    return math.log1p(e), s, e * s


def logistic(x):
    """log(1 + e^-|x|), 1 / (1 + e^-|x|) and e^-|x| / (1 + e^-|x|): softplus and sigmoid without the sign.
    x: a number of the kernel's dtype."""
    return _logistic32(x) if type(x) is np.float32 else _logistic64(x)


@overload(logistic, jit_options=INLINE)
def _(x):
    return _logistic32 if x == float32 else _logistic64


@element
def exp_of(h):
    """exp(h), to about one unit of the last digit. h: float32, at least -87; from 88 on the result is some number from
    1e38 on, or NaN of inf. NaN stays."""
    shifted = h * LOG2_E + TO_INT
    n = shifted - TO_INT
    f = (h - n * LN2_HIGH) - n * LN2_LOW
    p = ONE + f * (ONE + f * (E0 + f * (E1 + f * (E2 + f * (E3 + f * E4)))))
    whole = np.int32(min(np.int32(np.float32(shifted).view(np.int32) - TO_INT_BITS), int32(127)))
    return p * power_of_two(whole)


@element
def exp2_parts(t):
    """p and n of 2^t = 2^n p, 0.7 < p < 1.5. t: float32; NaN and infinities make p NaN."""
    shifted = t + TO_INT
    f = t - (shifted - TO_INT)
    p = ONE + f * (B0 + f * (B1 + f * (B2 + f * (B3 + f * (B4 + f * B5)))))
    return p, np.int32(np.float32(shifted).view(np.int32) - TO_INT_BITS)


@element
def _silu_from32(z, t):
    p, n = exp2_parts(LEAST_EXPONENT if t < LEAST_EXPONENT else t)
    return z / (ONE + p * power_of_two(np.int32(min(n, MOST_EXPONENT))))


@element
def _silu_from64(z, t):
    return _silu64(z)


@element
def _silu32(x):
    return x / (ONE + exp_of(-MOST_NORMAL if -x < -MOST_NORMAL else -x))


@element
def _silu64(x):
    e = math.exp(-abs(x))
    return x * ((e if x < 0 else 1.0) / (1.0 + e))


@element
def _gate_slope32(z, t):
    h = -abs(z)
    e = ZERO if h < -MOST_NORMAL else exp_of(-MOST_NORMAL if h < -MOST_NORMAL else h)
    s = ONE / (ONE + e)
    large, small = (e * s, s) if z < ZERO else (s, e * s)
    return large if e == ZERO else large * (ONE + t * small)


@element
def _gate_slope64(z, t):
    e = math.exp(-abs(z))
    s = 1.0 / (1.0 + e)
    large, small = (e * s, s) if z < 0 else (s, e * s)
    return large if e == 0 else large * (1.0 + t * small)


def silu(x):
    """x sigmoid(x). x: a number of the kernel's dtype."""
    return _silu32(x) if type(x) is np.float32 else _silu64(x)


@overload(silu, jit_options=INLINE)
def _(x):
    return _silu32 if x == float32 else _silu64


def silu_from(z, t):
    """z sigmoid(z), where t is -z log2(e), from a sum of its own: as exact as z is. z, t: numbers of the kernel's
    dtype."""
    return _silu_from32(z, t) if type(z) is np.float32 else _silu_from64(z, t)


@overload(silu_from, jit_options=INLINE)
def _(z, t):
    return _silu_from32 if z == float32 else _silu_from64


def gate_slope(z, t):
    """s (1 + t (1 - s)) with s = sigmoid(z): the slope of x sigmoid(z(x)) where t = x z'(x). z, t: numbers of the
    kernel's dtype."""
    return _gate_slope32(z, t) if type(z) is np.float32 else _gate_slope64(z, t)


@overload(gate_slope, jit_options=INLINE)
def _(z, t):
    return _gate_slope32 if z == float32 else _gate_slope64


@element
def _faded32(h):
    n, f = _reduced(choose(-h < LEAST, LEAST, -h))
    a = f + _curved(f)
    e = _scaled(ONE + a, n)
    return e, choose(n == 0, -a, ONE - e)


@element
def _faded64(h):
    return math.exp(-h), -math.expm1(-h)


def faded(h):
    """exp(-h) and 1 - exp(-h), which cancels nothing. h: a number of the kernel's dtype, >= 0 or NaN."""
    return _faded32(h) if type(h) is np.float32 else _faded64(h)


@overload(faded, jit_options=INLINE)
def _(h):
    return _faded32 if h == float32 else _faded64


@element
def _falloff32(h):
    return exp_of(-MOST_NORMAL if -h < -MOST_NORMAL else -h)


@element
def _falloff64(h):
    return math.exp(-h)


def falloff(h):
    """exp(-h), in float32 at least 1e-38. h: a number of the kernel's dtype, -87 or more, or NaN."""
    return _falloff32(h) if type(h) is np.float32 else _falloff64(h)


@overload(falloff, jit_options=INLINE)
def _(h):
    return _falloff32 if h == float32 else _falloff64
