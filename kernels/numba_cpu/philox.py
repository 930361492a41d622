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
from kernels.numba_cpu.engine import COMPILE, INLINE
from kernels.numba_cpu.intrinsics import wide

# Minimax fits on the reduced ranges, in float64, rounded to float32 by use; relative error of each under 5e-9 of its
# function.
_LOG = np.float32([
    -0.0790275278, 0.1262233404, -0.1299818683, 0.1421449453, -0.1664128112, 0.2000104513, -0.2500030643, 0.3333333073,
])  # fmt: skip
L7, L6, L5, L4, L3, L2, L1, L0 = _LOG  # (log1p(f) - f + f^2/2) / f^3 on [sqrt(1/2) - 1, sqrt(2) - 1]
S0, S1, S2, S3 = np.array([3.141592644, -5.167707821, 2.549766963, -0.589075079], np.float32)  # sin(pi b) / b in b^2
C1, C2, C3, C4 = np.array([-4.934802197, 4.058710566, -1.335137813, 0.2321254071], np.float32)  # (cos(pi b) - 1) / b^2
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # the high part has few bits: e * high is exact
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
    p0, p1 = uint64(uint32(0xD2511F53)) * uint64(c0), uint64(uint32(0xCD9E8D57)) * uint64(c2)
    high0, high1 = uint32(p0 >> uint64(32)), uint32(p1 >> uint64(32))
    return uint32(high1 ^ c1 ^ k0), uint32(p1), uint32(high0 ^ c3 ^ k1), uint32(p0)


@njit(**INLINE)
def _block(block, k0, k1, s0, s1):
    """Ten rounds written out: a loop here would keep the loop over blocks from being vectorised."""
    c0, c1, c2, c3 = uint32(block), uint32(block >> uint64(32)), s0, s1
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, uint32(k0 + uint32(0x9E3779B9)), uint32(k1 + uint32(0xBB67AE85)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, uint32(k0 + uint32(0x3C6EF372)), uint32(k1 + uint32(0x76CF5D0A)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, uint32(k0 + uint32(0xDAA66D2B)), uint32(k1 + uint32(0x32370B8F)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, uint32(k0 + uint32(0x78DDE6E4)), uint32(k1 + uint32(0xED9EBA14)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, uint32(k0 + uint32(0x1715609D)), uint32(k1 + uint32(0xA9066899)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, uint32(k0 + uint32(0xB54CDA56)), uint32(k1 + uint32(0x646E171E)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, uint32(k0 + uint32(0x5384540F)), uint32(k1 + uint32(0x1FD5C5A3)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, uint32(k0 + uint32(0xF1BBCDC8)), uint32(k1 + uint32(0xDB3D7428)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, uint32(k0 + uint32(0x8FF34781)), uint32(k1 + uint32(0x96A522AD)))
    return c0, c1, c2, c3


@njit(**INLINE)
def _u01(word):
    return float32(float32(word) * TO_U + HALF_U)


@njit(**INLINE)
def _uneg11(word):
    return float32(float32(int32(word)) * TO_A + HALF_A)


@njit(**INLINE)
def _log32(u):
    """ln u for 0 < u <= 1: u = 2^e m with m in [sqrt(1/2), sqrt(2)), then f = m - 1 is exact."""
    bits = np.float32(u).view(np.int32)
    e = np.int32(np.int32(bits - np.int32(0x3F3504F3)) >> np.int32(23))
    f = np.int32(bits - np.int32(e << np.int32(23))).view(np.float32) - ONE
    z, k = f * f, float32(e)
    tail = ((((((L7 * f + L6) * f + L5) * f + L4) * f + L3) * f + L2) * f + L1) * f + L0
    return f + (tail * f * z + k * LN2_LOW - HALF * z) + k * LN2_HIGH


@njit(**INLINE)
def _sincospi32(a):
    """(sin(pi a), cos(pi a)) for |a| <= 1: quarter turns off first, exactly; |b| <= 1/4 remains."""
    quarter = int32(int32(a + a + TWO_AND_HALF) - int32(2))  # round to nearest as truncation of a positive number
    b = a - HALF * float32(quarter)
    z = b * b
    s = b * (S0 + z * (S1 + z * (S2 + z * S3)))
    c = ONE + z * (C1 + z * (C2 + z * (C3 + z * C4)))
    sin, cos = (c, s) if quarter & 1 else (s, c)
    return -sin if quarter & 2 else sin, -cos if (quarter + 1) & 2 else cos


@njit(**INLINE)
def _pair32(w0, w1):
    r = np.sqrt(MINUS_TWO * _log32(_u01(w1)))
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


@njit(**INLINE)
def normal_chunk(z, lo, hi, key):
    """z[0 .. hi - lo) = the normals of elements lo .. hi - 1. lo: multiple of 4. z: room up to the next multiple of
    4. key: (4,)."""
    wide()
    first, k0, k1, s0, s1 = uint64(lo // 4), key[0], key[1], key[2], key[3]
    for j in range((hi - lo + 3) // 4):
        w0, w1, w2, w3 = _block(first + uint64(j), k0, k1, s0, s1)
        z0, z1 = _pair(w0, w1, z)
        z2, z3 = _pair(w2, w3, z)
        i = uint64(j) * uint64(4)
        z[i], z[i + uint64(1)], z[i + uint64(2)], z[i + uint64(3)] = z0, z1, z2, z3


@njit(**COMPILE)
def _normal(lo, hi, out, key):
    wide()
    whole = hi - hi % 4
    normal_chunk(out[lo:whole], lo, whole, key)
    if whole < hi:
        z = np.empty(4, out.dtype)
        normal_chunk(z, whole, hi, key)
        out[whole:hi] = z[: hi - whole]


@njit(**COMPILE)
def _bits(lo, hi, out, key):
    whole = hi - hi % 4
    _bits_chunk(out[lo:whole], lo, whole, key)
    if whole < hi:
        words = np.empty(4, np.uint32)
        _bits_chunk(words, whole, hi, key)
        out[whole:hi] = words[: hi - whole]


@njit(**COMPILE)
def _uniform(lo, hi, out, key):
    words = np.empty(engine.CHUNK, np.uint32)
    for i in range(lo, hi, engine.CHUNK):
        end = min(i + engine.CHUNK, hi)
        _bits_chunk(words, i, end, key)
        o = out[i:end]
        for j in range(o.size):
            o[j] = _u01(words[j])


@njit(**INLINE)
def _bits_chunk(words, lo, hi, key):
    first = uint64(lo // 4)
    for j in range((hi - lo + 3) // 4):
        i = uint64(j) * uint64(4)
        w0, w1, w2, w3 = _block(first + uint64(j), key[0], key[1], key[2], key[3])
        words[i], words[i + uint64(1)], words[i + uint64(2)], words[i + uint64(3)] = w0, w1, w2, w3
