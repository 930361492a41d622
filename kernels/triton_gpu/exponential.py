"""exp and log(1 + exp) in float32 to about one unit of the last digit, at every argument; the hardware's own loses more the farther
it is from 0.

exp(h) = 2^n exp(f), |f| <= ln 2 / 2, with ln 2 in two parts so that f loses nothing; the polynomials are in `kernels.coefficients`.
"""
import triton
import triton.language as tl

from kernels import coefficients

E0, E1, E2, E3, E4 = map(tl.constexpr, coefficients.EXP)
P0, P1, P2, P3, P4, P5, P6, P7, P8, P9 = map(tl.constexpr, coefficients.LOG1P)
LN2_HIGH, LN2_LOW, LOG2_E = map(tl.constexpr, (0.693359375, -2.12194440e-4, 1.44269504))
TO_INT = tl.constexpr(12582912.0)  # 1.5 2^23: added and taken off again it rounds to the nearest integer
MOST = tl.constexpr(104.0)  # beyond it exp is inf in float32, and below its negative 0


@triton.jit
def _reduced(h):
    """n and f of exp(h) = 2^n exp(f). h: block in [-104, 104]; NaN makes f NaN."""
    n = tl.fma(h, LOG2_E, TO_INT) - TO_INT
    f = tl.fma(n, -LN2_LOW, tl.fma(n, -LN2_HIGH, h))
    return n.to(tl.int32), f


@triton.jit
def _curved(f):
    """exp(f) - 1 - f. f: block, |f| <= ln 2 / 2."""
    return f * f * tl.fma(f, tl.fma(f, tl.fma(f, tl.fma(f, E4, E3), E2), E1), E0)


@triton.jit
def _scaled(p, n):
    """p 2^n, rounded once where it has fewer digits near 0. p: block. n: ints in [-151, 151]."""
    half = n >> 1
    one, two = ((half + 127) << 23).to(tl.float32, bitcast=True), ((n - half + 127) << 23).to(tl.float32, bitcast=True)
    return p * one * two


@triton.jit
def std_of(logvar):
    """exp(logvar / 2), exp(logvar) - 1 and exp(logvar) - 1 - logvar, none of which cancels near 0. logvar: float32 block."""
    h = 0.5 * logvar
    n, f = _reduced(tl.where(h < -MOST, -MOST, tl.where(h > MOST, MOST, h)))
    g = _curved(f)
    a = f + g  # exp(f) - 1
    std = _scaled(1.0 + a, n)
    m = tl.where(n == 0, a * (2.0 + a), tl.fma(std, std, -1.0))
    return std, m, tl.where(n == 0, tl.fma(a, a, 2.0 * g), m - logvar)


@triton.jit
def logistic(x):
    """log(1 + e^-|x|), 1 / (1 + e^-|x|) and e^-|x| / (1 + e^-|x|): of softplus and sigmoid, what is left when the sign is gone. x: float32 block."""
    h = -tl.abs(x)
    n, f = _reduced(tl.where(h < -MOST, -MOST, h))
    e = _scaled(1.0 + (f + _curved(f)), n)
    t = e - 0.5
    p = tl.fma(t, tl.fma(t, tl.fma(t, tl.fma(t, P9, P8), P7), P6), P5)
    log = e * tl.fma(t, tl.fma(t, tl.fma(t, tl.fma(t, tl.fma(t, p, P4), P3), P2), P1), P0)
    s = 1.0 / (1.0 + e)
    return log, s, e * s
