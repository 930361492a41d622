"""Box-Muller in the orders of operations in which people write it."""
import numpy as np

from kernels.numpy_cpu.philox import bits
from ref import philox


def words(seed, shape, stream):
    size = int(np.prod(shape))
    pairs = bits(seed, (size + size % 2,), stream)
    u = pairs[1::2].astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)
    return u, pairs[::2].view(np.int32).astype(np.float32) * np.float32(2.0**-31) + np.float32(2.0**-32), size


def normals(seed, shape, stream, dtype, form):
    """Box-Muller in the dtype, or in float64 and cast."""
    u, a, size = words(seed, shape, stream)
    u, a = u.astype(dtype), a.astype(dtype)
    if form == "cast":
        return philox.normal(seed, shape, stream).astype(dtype)
    if form == "turn":
        z = np.sqrt(-2 * np.log(u)) * np.exp(1j * np.pi * a).astype(np.result_type(dtype, np.complex64))
        z = np.stack([z.imag, z.real], axis=-1)
    else:
        r = np.sqrt(dtype.type(2)) * np.sqrt(-np.log(u)) if form == "two roots" else np.sqrt(-2 * np.log(u))
        z = np.stack([r * np.sin(dtype.type(np.pi) * a), r * np.cos(dtype.type(np.pi) * a)], axis=-1)
    return z.reshape(-1)[:size].reshape(shape).astype(dtype)


NORMALS = ("as printed", "two roots", "turn", "cast")


def with_noise(how, form):
    def noisy_step(c, k):
        k.z = normals(k.seed, k.like.shape, k.stream, k.like.dtype, form)
        return how(c, k)

    return noisy_step
