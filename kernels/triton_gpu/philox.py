"""Philox bits, uniforms and normals on the GPU, the words of `ref.philox` to the bit.

A program makes 256 blocks; a block's four words feed four neighbouring elements and are joined before they are
stored, so that a thread stores 16 bytes. Logarithm, sine and cosine are polynomials on reduced ranges: float32
normals within 3 eps of the truth, relative, at every word. Kernels that also read memory run at the copy limit with
them.

`out`, where given, is an array of that shape and dtype.

Papers
    [Philox]     Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011
    [BoxMuller]  Box, Muller, "A Note on the Generation of Random Normal Deviates", 1958
"""
import numpy as np
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu import arrays, device, launch

INTERPRETED = tl.constexpr(device.INTERPRETED)
BLOCK = 2048  # elements of a program: the round keys are made once for 4 Philox blocks of a thread


def bits(seed, shape, stream=0, out=None):
    """[Philox] section 4.3; arguments as in `ref.philox.bits`."""
    return _fill(bits_of, seed, shape, stream, "uint32", out)


def uniform(seed, shape, stream=0, out=None):
    """Uniforms in (0, 1], equal to the truth's to the bit; arguments as in `ref.philox.uniform`."""
    return _fill(uniforms_of, seed, shape, stream, "float32", out)


def normal(seed, shape, stream=0, dtype=np.float32, out=None):
    """[BoxMuller] eq. 1; arguments as in `ref.philox.normal`. dtype: float32, or float16 or bfloat16, rounded from it.
    """
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in arrays.STORED:
        raise TypeError(f"dtype: expected float32, float16 or bfloat16, got {name}")
    return _fill(normals_of, seed, shape, stream, name, out)


def _fill(values, seed, shape, stream, dtype, out):
    key = launch.key_words(seed, stream)
    shape = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(shape)
    like = arrays.fresh(shape, dtype, out)
    out, pointer = arrays.output("out", out, like)
    grid = launch.programs(like.size, BLOCK)
    launch.run(_filled, grid, like, pointer, like.size, *key, values, BLOCK)
    return out


@triton.jit(do_not_specialize=["k0", "k1", "s0", "s1"])
def _filled(out, size, k0, k1, s0, s1, VALUES: tl.constexpr, BLOCK: tl.constexpr):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    tl.store(out + base + i, stored(VALUES(out, tl.program_id(0), (k0, k1, s0, s1), BLOCK), out), mask=base + i < size)


@triton.jit
def blocks_of(program, BLOCK: tl.constexpr):
    """The numbers of the Philox blocks of the program's BLOCK elements. program: its number. BLOCK: elements."""
    return program.to(tl.int64) * (BLOCK // 4) + tl.arange(0, BLOCK // 4)


@triton.jit
def words_of(block, key):
    """The four words of each Philox block. block: numbers, int64. key: the words of seed and stream, four int32."""
    zero = (block * 0).to(tl.uint32)
    k0, k1, s0, s1 = key
    c0, c1 = block.to(tl.uint32), (block >> 32).to(tl.uint32)
    c2, c3 = zero + s0.to(tl.uint32, bitcast=True), zero + s1.to(tl.uint32, bitcast=True)
    k0, k1 = zero + k0.to(tl.uint32, bitcast=True), zero + k1.to(tl.uint32, bitcast=True)
    for _ in tl.static_range(10):
        p0, p1 = c0.to(tl.uint64) * 0xD2511F53, c2.to(tl.uint64) * 0xCD9E8D57
        c0, c1 = (p1 >> 32).to(tl.uint32) ^ c1 ^ k0, p1.to(tl.uint32)
        c2, c3 = (p0 >> 32).to(tl.uint32) ^ c3 ^ k1, p0.to(tl.uint32)
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def joined(a, b, c, d, BLOCK: tl.constexpr):
    """a[0], b[0], c[0], d[0], a[1], ... as one block of BLOCK. a, b, c, d: blocks of BLOCK / 4."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BLOCK,))


@triton.jit
def of_four(element, a, b, c, d):
    """What belongs to each element of the four that its Philox block has. element: number. a, b, c, d: of its block."""
    place = element % 4
    return tl.where(place == 0, a, tl.where(place == 1, b, tl.where(place == 2, c, d)))


@triton.jit
def u01(word):
    """word 2^-32 + 2^-33, rounded once in float32. word: uint32."""
    return tl.fma(word.to(tl.float32), 2.3283064365386963e-10, 1.1641532182693481e-10)


@triton.jit
def uneg11(word):
    """int32(word) 2^-31 + 2^-32, rounded once in float32. word: uint32."""
    return tl.fma(word.to(tl.int32, bitcast=True).to(tl.float32), 4.656612873077393e-10, 2.3283064365386963e-10)


@triton.jit
def minus_two_log32(u):
    """-2 ln u for 0 < u <= 1: u = 2^e m with m in [sqrt(1/2), sqrt(2)), then f = m - 1 is exact. u: float32."""
    bits = u.to(tl.int32, bitcast=True)
    e = (bits - 0x3F3504F3) >> 23
    f = (bits - (e << 23)).to(tl.float32, bitcast=True) - 1.0
    z, k = f * f, e.to(tl.float32)
    tail = tl.fma(f, 0.1580550556, -0.2524466808)  # -2 times a minimax fit of (log1p(f) - f + f^2/2) / f^3
    tail = tl.fma(f, tail, 0.2599637366)
    tail = tl.fma(f, tail, -0.2842898906)
    tail = tl.fma(f, tail, 0.3328256224)
    tail = tl.fma(f, tail, -0.4000209026)
    tail = tl.fma(f, tail, 0.5000061286)
    tail = tl.fma(f, tail, -0.6666666146)
    small = tl.fma(k, 4.2438888e-4, tl.fma(tail * f, z, z))
    return tl.fma(k, -1.38671875, tl.fma(f, -2.0, small))  # -2 ln 2 in two parts; e times the first is exact


@triton.jit
def sincospi32(a):
    """(sin(pi a), cos(pi a)) for |a| <= 1: quarter turns off first, exactly; |b| <= 1/4 remains. a: float32."""
    rounded = tl.fma(a, 2.0, 12582912.0)  # 1.5 2^23: an integer is left in the low bits
    quarter = rounded.to(tl.int32, bitcast=True)
    b = tl.fma(rounded - 12582912.0, -0.5, a)
    z = b * b
    s = b * tl.fma(z, tl.fma(z, tl.fma(z, -0.589075079, 2.549766963), -5.167707821), 3.141592644)
    c = tl.fma(z, tl.fma(z, tl.fma(z, tl.fma(z, 0.2321254071, -1.335137813), 4.058710566), -4.934802197), 1.0)
    odd = (quarter & 1) != 0
    sin, cos = tl.where(odd, c, s), tl.where(odd, s, c)
    return tl.where((quarter & 2) != 0, -sin, sin), tl.where(((quarter + 1) & 2) != 0, -cos, cos)


@triton.jit
def pair32(w0, w1):
    """Two normals of two words, [BoxMuller] eq. 1. w0, w1: uint32."""
    r = tl.sqrt(minus_two_log32(u01(w1)))
    sin, cos = sincospi32(uneg11(w0))
    return r * sin, r * cos


@triton.jit
def four(block, key):
    """The four normals of each Philox block. block, key: as in `words_of`."""
    w0, w1, w2, w3 = words_of(block, key)
    z0, z1 = pair32(w0, w1)
    z2, z3 = pair32(w2, w3)
    return z0, z1, z2, z3


@triton.jit
def bits_of(out, program, key, BLOCK: tl.constexpr):
    """The words of the program's BLOCK elements. Arguments as in `normals_of`."""
    w0, w1, w2, w3 = words_of(blocks_of(program, BLOCK), key)
    return joined(w0, w1, w2, w3, BLOCK)


@triton.jit
def uniforms_of(out, program, key, BLOCK: tl.constexpr):
    """The uniforms of the program's BLOCK elements. Arguments as in `normals_of`."""
    w0, w1, w2, w3 = words_of(blocks_of(program, BLOCK), key)
    return joined(u01(w0), u01(w1), u01(w2), u01(w3), BLOCK)


@triton.jit
def normals_of(out, program, key, BLOCK: tl.constexpr):
    """The normals of the program's BLOCK elements, as many neighbours to a thread as fill 16 bytes of out. out:
    pointer to what is stored. program: its number. key: as in `words_of`. BLOCK: elements."""
    if out.dtype.element_ty == tl.float32:
        z0, z1, z2, z3 = four(blocks_of(program, BLOCK), key)
        return joined(z0, z1, z2, z3, BLOCK)
    else:
        even = program.to(tl.int64) * (BLOCK // 4) + 2 * tl.arange(0, BLOCK // 8)
        z0, z1, z2, z3 = four(even, key)
        z4, z5, z6, z7 = four(even + 1, key)
        low = tl.join(tl.join(tl.join(z0, z4), tl.join(z2, z6)), tl.join(tl.join(z1, z5), tl.join(z3, z7)))
        return tl.reshape(low, (BLOCK,))


@triton.jit
def stored(x, out):
    """x as out holds it: float32 rounded to nearest, halves to even, anything else as it is. out: pointer."""
    if out.dtype.element_ty == x.dtype:
        return x
    elif INTERPRETED and out.dtype.element_ty == tl.bfloat16:  # the interpreter cuts: so it gets nothing to cut
        bits = x.to(tl.int32, bitcast=True)
        even = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True)
        return tl.where(x == x, even, x).to(tl.bfloat16)
    else:
        return x.to(out.dtype.element_ty, fp_downcast_rounding="rtne")
