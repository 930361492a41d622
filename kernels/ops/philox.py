"""The operations of `ref.philox`."""
from kernels.ops.record import Op
from ref import philox

OPS = [
    Op(philox.bits, dtypes=("uint32",)),
    Op(philox.uniform, dtypes=("float32",)),
    Op(philox.normal, ulps=3, takes_dtype=True, bench={"": {}}),
]
