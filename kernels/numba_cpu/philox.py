"""Philox bits, uniforms and normals on the CPU, the words of `ref.philox` to the bit.

The multiply is uint32 x uint32 -> uint64, which becomes one vector instruction for eight lanes; a block's four words go
to four neighbouring elements. Float32 normals use polynomials of this file (no vector log or sine is at hand): relative
error below 2.1 eps, so within 3 eps of the float64 truth; float64 ones use the C library's functions.

Papers
    [Philox]     Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011
    [BoxMuller]  Box, Muller, "A Note on the Generation of Random Normal Deviates", 1958
"""
import math

import numpy as np
from numba import float32, float64, int32, uint32, uint64
from numba.extending import overload

from kernels import coefficients
from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, INLINE, alone
from kernels.numba_cpu.intrinsics import fma, load, store, wide

# Minimax fits on the reduced ranges, in float64, rounded to float32 by use; relative error of each under 5e-9 of its
# function.
_LOG = -2 * np.float32([
    -0.0790275278, 0.1262233404, -0.1299818683, 0.1421449453, -0.1664128112, 0.2000104513, -0.2500030643, 0.3333333073,
])  # fmt: skip
L7, L6, L5, L4, L3, L2, L1, L0 = _LOG  # (log1p(f) - f + f^2/2) / f^3, here times -2, on [sqrt(1/2) - 1, sqrt(2) - 1]
S0, S1, S2, S3 = np.array([3.141592644, -5.167707821, 2.549766963, -0.589075079], np.float32)  # sin(pi b) / b in b^2
C1, C2, C3, C4 = np.array([-4.934802197, 4.058710566, -1.335137813, 0.2321254071], np.float32)  # (cos(pi b) - 1) / b^2
M0, M1, W0, W1 = uint64(0xD2511F53), uint64(0xCD9E8D57), uint64(0x9E3779B9), uint64(0xBB67AE85)  # of [Philox]
LOW = uint64(0xFFFFFFFF)
LN2_HIGH, LN2_LOW = np.float32(-2 * 0.693359375), np.float32(2 * 2.12194440e-4)  # times -2, too; e * high is exact
ONE, HALF, TWO_AND_HALF, MINUS_TWO = np.float32(1), np.float32(0.5), np.float32(2.5), np.float32(-2)
TO_U, HALF_U, TO_A, HALF_A = np.float32(2.0**-32), np.float32(2.0**-33), np.float32(2.0**-31), np.float32(2.0**-32)


def bits(seed, shape, stream=0, out=None):
    """The first prod(shape) words of (seed, stream): element i is word i % 4 of block i // 4, [Philox] section 4.3.

    seed, stream: ints in [0, 2**64). shape: int or tuple of ints. out: uint32 array of that shape, or None.
    Returns `shape` uint32. Raises as `ref.philox.bits`; TypeError or ValueError where out does not fit.
    """
    return _fill(_bits, seed, shape, stream, np.dtype(np.uint32), out)


def uniform(seed, shape, stream=0, out=None):
    """u = float32(word) 2^-32 + 2^-33, equal to `ref.philox.uniform` to the bit. 0 < u <= 1.

    seed, shape, stream: as in `bits`. out: float32 array of that shape, or None.
    Returns `shape` float32. Raises as `bits` does.
    """
    return _fill(_uniform, seed, shape, stream, np.dtype(np.float32), out)


def below(seed, shape, n, stream=0):
    """Integers in [0, n):  floor(word n / 2^32), equal to `ref.philox.below`.

    seed, shape, stream: as in `bits`. n: int, 1 <= n <= 2**32.
    Returns `shape` int64. Raises as `ref.philox.below`.
    """
    if not 1 <= n <= 2**32:
        raise ValueError(f"n: expected 1 <= n <= 2**32, got {n}")
    return (bits(seed, shape, stream).astype(np.uint64) * np.uint64(n) >> np.uint64(32)).astype(np.int64)


def normal(seed, shape, stream=0, dtype=np.float32, out=None):
    """Standard normals, [BoxMuller] eq. 1:  (z0, z1) = sqrt(-2 ln u) (sin(pi a), cos(pi a)), as `ref.philox.normal`
    makes them.

    seed, shape, stream: as in `bits`. dtype: float32 (within 3 eps of the truth, relative) or float64.
    out: array of that shape and dtype, or None.
    Returns `shape` of dtype. Raises as `bits` does; TypeError for another dtype.
    """
    dtype = np.dtype(dtype)
    if dtype.char not in "fd":
        raise TypeError(f"dtype: expected float32 or float64, got {dtype}")
    return _fill(_normal, seed, shape, stream, dtype, out)


def _fill(kernel, seed, shape, stream, dtype, out):
    key = coefficients.noise_key(seed, stream)
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    memory, _ = engine.output(out, shape, dtype)
    engine.run(kernel, memory.size, memory, key)
    return engine.finish(memory, out, shape)


@njit(**INLINE)
def _round(c0, c1, c2, c3, k0, k1):
    """One round. The words are the low halves of uint64, so that a 32 x 32 -> 64 bit product is one instruction; the
    high halves may hold anything, and are masked here."""
    p0, p1 = M0 * (c0 & LOW), M1 * (c2 & LOW)
    return (p1 >> uint64(32)) ^ c1 ^ k0, p1, (p0 >> uint64(32)) ^ c3 ^ k1, p0


@njit(**INLINE)
def _last_round(c0, c1, c2, c3, k0, k1):
    """One round, the first two words in one number and the last two: the halves of each product change places."""
    p0, p1 = M0 * (c0 & LOW), M1 * (c2 & LOW)
    first, last = p1 << uint64(32) | p1 >> uint64(32), p0 << uint64(32) | p0 >> uint64(32)
    return first ^ (c1 ^ k0) & LOW, last ^ (c3 ^ k1) & LOW


@njit(**INLINE)
def _words_chunk(words, lo, hi, key):
    """words = the words of elements lo .. hi - 1, two in each, the first one low. lo: multiple of 4. words: uint64,
    room up to the next multiple of 8 elements. key: (4,)."""
    wide()
    first, k0, k1, s0, s1 = uint64(lo // 4), uint64(key[0]), uint64(key[1]), uint64(key[2]), uint64(key[3])
    for j in range((hi - lo + 7) // 8):
        # two independent blocks, to hide the latency of the multiplications
        b, d = first + uint64(2 * j), first + uint64(2 * j + 1)
        b0, b1, b2, b3, d0, d1, d2, d3 = b, b >> uint64(32), s0, s1, d, d >> uint64(32), s0, s1
        r0, r1 = k0, k1
        for _ in range(9):
            b0, b1, b2, b3 = _round(b0, b1, b2, b3, r0, r1)
            d0, d1, d2, d3 = _round(d0, d1, d2, d3, r0, r1)
            r0, r1 = r0 + W0, r1 + W1
        i = uint64(4 * j)
        words[i], words[i + uint64(1)] = _last_round(b0, b1, b2, b3, r0, r1)
        words[i + uint64(2)], words[i + uint64(3)] = _last_round(d0, d1, d2, d3, r0, r1)


@njit(**INLINE)
def _u01(word):
    return float32(float32(word) * TO_U + HALF_U)


@njit(**INLINE)
def _uneg11(word):
    return float32(float32(int32(word)) * TO_A + HALF_A)


@njit(**INLINE)
def _radius32(u):
    """sqrt(-2 ln u) for 0 < u <= 1: u = 2^e m with m in [sqrt(1/2), sqrt(2)), then f = m - 1 is exact. The polynomial
    is evaluated by Estrin's scheme, whose chain of dependent operations is shorter than Horner's."""
    bits = np.float32(u).view(np.int32)
    e = np.int32(np.int32(bits - np.int32(0x3F3504F3)) >> np.int32(23))
    f = np.int32(bits - np.int32(e << np.int32(23))).view(np.float32) - ONE
    z, k = f * f, float32(e)
    high, low = fma(fma(L7, f, L6), z, fma(L5, f, L4)), fma(fma(L3, f, L2), z, fma(L1, f, L0))
    rest = fma(fma(high, z * z, low), f * z, fma(k, LN2_LOW, z))
    return np.sqrt(fma(k, LN2_HIGH, fma(MINUS_TWO, f, rest)))


@njit(**INLINE)
def _signed(x, quarter):
    """x, negated where bit 1 of quarter is set."""
    return np.int32(np.float32(x).view(np.int32) ^ np.int32(np.int32(quarter & int32(2)) << int32(30))).view(np.float32)


@njit(**INLINE)
def _sincospi32(a):
    """(sin(pi a), cos(pi a)) for |a| <= 1: quarter turns off first, exactly; |b| <= 1/4 remains."""
    quarter = int32(int32(a + a + TWO_AND_HALF) - int32(2))  # round to nearest as truncation of a positive number
    b = a - HALF * float32(quarter)
    z = b * b
    s = b * (S0 + z * (S1 + z * (S2 + z * S3)))
    c = ONE + z * (C1 + z * (C2 + z * (C3 + z * C4)))
    sin, cos = (c, s) if quarter & 1 else (s, c)
    return _signed(sin, quarter), _signed(cos, int32(quarter + int32(1)))


@njit(**INLINE)
def _pair32(w0, w1):
    r = _radius32(_u01(w1))
    sin, cos = _sincospi32(_uneg11(w0))
    return r * sin, r * cos


@njit(**INLINE)
def _pair64(w0, w1):
    a = float64(_uneg11(w0))
    quarter = math.floor(a + a + 0.5)
    s, c = math.sin(math.pi * (a - 0.5 * quarter)), math.cos(math.pi * (a - 0.5 * quarter))
    turn = int(quarter)
    sin, cos = (c, s) if turn & 1 else (s, c)
    r = math.sqrt(-2.0 * math.log(float64(_u01(w1))))
    return r * (-sin if turn & 2 else sin), r * (-cos if (turn + 1) & 2 else cos)


def _pair(w0, w1, like):
    """Two normals of like's dtype from two words."""
    return _pair32(w0, w1) if like.dtype == np.float32 else _pair64(w0, w1)


@overload(_pair, jit_options=INLINE)
def _(w0, w1, like):
    if like.dtype == float32:
        return lambda w0, w1, like: _pair32(w0, w1)
    return lambda w0, w1, like: _pair64(w0, w1)


@alone
def _normals(z, words):
    """z = the normals of the first z.size words, rounded up to pairs. z, words: arrays."""
    wide()
    for j in range(z.size // 2):
        i = uint64(j) * uint64(2)
        z0, z1 = _pair(load(words, i), load(words, i + uint64(1)), z)
        store(z, i, z0)
        store(z, i + uint64(1), z1)
    if z.size % 2:
        z[z.size - 1], _ = _pair(words[z.size - 1], words[z.size], z)


@njit(**INLINE)
def scratch():
    """Memory for the words of a chunk, two in each element."""
    return np.empty(engine.CHUNK // 2, np.uint64)


@njit(**INLINE)
def normal_chunk(z, lo, hi, key, words):
    """z[0 .. hi - lo) = the normals of elements lo .. hi - 1. lo: multiple of 4. key: (4,). words: of `scratch`."""
    for first in range(lo, hi, engine.CHUNK):
        last = min(first + engine.CHUNK, hi)
        _words_chunk(words, first, last, key)
        _normals(z[first - lo : last - lo], words.view(np.uint32))


@njit(**COMPILE)
def _normal(lo, hi, out, key):
    wide()
    normal_chunk(out[lo:hi], lo, hi, key, scratch())


@njit(**COMPILE)
def _bits(lo, hi, out, key):
    words = scratch()
    for first in range(lo, hi, engine.CHUNK):
        last = min(first + engine.CHUNK, hi)
        _words_chunk(words, first, last, key)
        out[first:last] = words.view(np.uint32)[: last - first]


@njit(**COMPILE)
def _uniform(lo, hi, out, key):
    words = scratch()
    for first in range(lo, hi, engine.CHUNK):
        o = out[first : min(first + engine.CHUNK, hi)]
        _words_chunk(words, first, first + o.size, key)
        w = words.view(np.uint32)
        for j in range(o.size):
            o[j] = _u01(w[j])
