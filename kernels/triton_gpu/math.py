"""exp and log(1 + exp) in float32 to one to three units of the last digit, at every argument; exp as a GPU has it
loses more the farther it is from 0.

exp(h) = 2^n exp(f), |f| <= ln 2 / 2, with ln 2 in two parts so that f loses nothing; the polynomials are in
`kernels.coefficients`.
"""
import triton
import triton.language as tl

from kernels import coefficients

E0, E1, E2, E3, E4 = map(tl.constexpr, coefficients.EXP)
P0, P1, P2, P3, P4, P5, P6, P7, P8, P9 = map(tl.constexpr, coefficients.LOG1P)
LN2, LN2_HIGH, LN2_LOW = map(tl.constexpr, (0.6931471805599453, 0.693359375, -2.12194440e-4))
LOG2_E, LOG2_E_LOW = map(tl.constexpr, (1.4426950216293335, 1.925963033500757e-8))  # the first is a float32
TO_INT = tl.constexpr(12582912.0)  # 1.5 2^23: added and taken off again it rounds to the nearest integer
TO_INT_BITS = tl.constexpr(0x4B400000)
LARGEST = tl.constexpr(3e38)  # inf less it is inf, where inf less inf is NaN
MOST = tl.constexpr(104.0)  # beyond it exp is inf in float32, and below its negative 0


@triton.jit
def _reduced(h):
    """n and f of exp(h) = 2^n exp(f). h: block in [-104, 104]; NaN makes f NaN."""
    y = tl.fma(h, LOG2_E, TO_INT)
    n = y - TO_INT
    f = tl.fma(n, -LN2_LOW, tl.fma(n, -LN2_HIGH, h))
    return y.to(tl.int32, bitcast=True) - TO_INT_BITS, f  # a conversion takes eight times as long


@triton.jit
def _curved(f):
    """exp(f) - 1 - f. f: block, |f| <= ln 2 / 2."""
    return f * f * tl.fma(f, tl.fma(f, tl.fma(f, tl.fma(f, E4, E3), E2), E1), E0)


@triton.jit
def _power_of_two(n):
    return ((n + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def std_of(logvar):
    """exp(logvar / 2), exp(logvar) - 1 and exp(logvar) - 1 - logvar, none of which cancels near 0.
    logvar: float32 block."""
    h = 0.5 * logvar
    n, f = _reduced(tl.where(h < -MOST, -MOST, tl.where(h > MOST, MOST, h)))
    g = _curved(f)
    a = f + g  # exp(f) - 1
    std = (1.0 + a) * _power_of_two(n >> 1) * _power_of_two(n - (n >> 1))  # 2^n alone may not be a float32
    m = tl.where(n == 0, a * (2.0 + a), tl.fma(std, std, -1.0))
    return std, m, tl.where(n == 0, tl.fma(a, a, 2.0 * g), m - tl.minimum(logvar, LARGEST))


@triton.jit
def logistic(x):
    """log(1 + e^-|x|), 1 / (1 + e^-|x|) and e^-|x| / (1 + e^-|x|): of softplus and sigmoid, what is left when the
    sign is gone. x: float32 block.

    e^-|x| is the hardware's 2^y times 1 + ln 2 times what rounding took off y, to 2.5 units; below 2^-126 it is 0.
    """
    h = -tl.abs(x)
    y = h * LOG2_E
    e = tl.exp2(y)
    e = tl.fma(e * tl.fma(h, LOG2_E_LOW, tl.fma(h, LOG2_E, -y)), LN2, e)
    e = tl.where(h < -MOST, 0.0, e)
    t = e - 0.5
    p = tl.fma(t, tl.fma(t, tl.fma(t, tl.fma(t, P9, P8), P7), P6), P5)
    log = e * tl.fma(t, tl.fma(t, tl.fma(t, tl.fma(t, tl.fma(t, p, P4), P3), P2), P1), P0)
    s = 1.0 / (1.0 + e)
    return log, s, e * s


@triton.jit
def faded(h):
    """exp(-h) and 1 - exp(-h), which cancels nothing. h: float32 block, >= 0 or NaN."""
    n, f = _reduced(tl.where(h > MOST, -MOST, -h))
    a = f + _curved(f)  # exp(f) - 1
    e = (1.0 + a) * _power_of_two(n >> 1) * _power_of_two(n - (n >> 1))
    return e, tl.where(n == 0, -a, 1.0 - e)
