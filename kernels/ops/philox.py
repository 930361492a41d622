"""The operations of `ref.philox`."""
import numpy as np

from kernels.ops.record import Op
from ref import philox


def terms(seed, shape, stream=0):
    """The sizes of Box-Muller's terms for each normal: pi times its radius, for an angle that is rounded first. seed,
    shape, stream: as in `ref.philox.normal`."""
    size = int(np.prod(shape))
    radius = np.sqrt(-2 * np.log(philox.uniform(seed, (size + 1) // 2 * 2, stream)[1::2]))
    return np.pi * np.repeat(radius, 2)[:size].reshape(shape)


OPS = [
    Op(philox.bits, dtypes=("uint32",)),
    Op(philox.uniform, dtypes=("float32",)),
    Op(philox.normal, ulps=3, textbook=terms, takes_dtype=True, bench={"": {}}),
]
