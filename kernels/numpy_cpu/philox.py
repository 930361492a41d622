"""`ref.philox` in tuned NumPy: Philox4x32-10, and the transform in any dtype. `out` takes normals."""
import numpy as np

from kernels.numpy_cpu.arrays import copy

LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = 0x9E3779B9, 0xBB67AE85


def bits(seed, shape, stream=0):
    """`ref.philox.bits`. seed, shape, stream: as there."""
    size = int(np.prod(shape, dtype=np.int64))
    block, stream = np.arange((size + 3) // 4, dtype=np.uint64), np.uint64(stream)
    c0, c1, c2, c3 = block & LOW, block >> HALF, stream & LOW, stream >> HALF
    for r in range(10):
        k0, k1 = (np.uint64(k + r * w & 0xFFFFFFFF) for k, w in ((seed & 0xFFFFFFFF, W0), (seed >> 32, W1)))
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = p1 >> HALF ^ c1 ^ k0, p1 & LOW, p0 >> HALF ^ c3 ^ k1, p0 & LOW
    words = np.empty((block.size, 4), np.uint32)
    for i, c in enumerate((c0, c1, c2, c3)):
        words[:, i] = c
    return words.reshape(-1)[:size].reshape(shape)


def uniform(seed, shape, stream=0):
    """`ref.philox.uniform` as float32. seed, shape, stream: as there."""
    return _u01(bits(seed, shape, stream))


def below(seed, shape, n, stream=0):
    """`ref.philox.below`. seed, shape, n, stream: as there."""
    return (bits(seed, shape, stream).astype(np.uint64) * np.uint64(n) >> HALF).astype(np.int64)


def normal(seed, shape, stream=0, dtype=np.float32, out=None):
    """`ref.philox.normal` with its transform in dtype. seed, shape, stream: as there. dtype: of NumPy."""
    size = int(np.prod(shape, dtype=np.int64))
    words = bits(seed, (size + 1) // 2 * 2, stream)
    u = _u01(words[1::2]).astype(dtype)
    a = (words[0::2].view(np.int32).astype(np.float32) * np.float32(2.0**-31) + np.float32(2.0**-32)).astype(dtype)
    r, angle = np.sqrt(-2 * np.log(u)), np.pi * a
    z = np.stack([r * np.sin(angle), r * np.cos(angle)], axis=-1).reshape(-1)[:size].reshape(shape)
    return z if out is None else copy(out, z)


def _u01(words):
    return words.astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)
