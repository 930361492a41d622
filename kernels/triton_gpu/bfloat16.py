"""bfloat16 without a library that has it: integers of 2 bytes that hold the bits, with the dtype told next to them."""
import functools

import numpy as np

WHOLE = "int16", "uint16"


class Bfloat16:
    """bfloat16 numbers in an array of a library that has no such dtype, such as numba-cuda. The kernels take and return
    it where they do an array. bits: of int16 or uint16."""

    __slots__ = ("bits",)
    dtype = "bfloat16"

    def __init__(self, bits):
        if str(bits.dtype) not in WHOLE:
            raise TypeError(f"bits: expected an array of {' or '.join(WHOLE)}, got {bits.dtype}")
        self.bits = bits

    shape = property(lambda self: self.bits.shape)
    size = property(lambda self: self.bits.size)
    flags = property(lambda self: self.bits.flags)

    def __getitem__(self, place):
        return Bfloat16(self.bits[place])

    def reshape(self, *shape):
        """The same numbers in another shape. shape: as NumPy takes it."""
        return Bfloat16(self.bits.reshape(*shape))


@functools.cache
def kind_of_bits(kind):
    """The `Kind` of `Bfloat16` whose bits are arrays of a kind. kind: `arrays.Kind`."""
    def describe(x):
        shape, _, *rest = kind.describe(x.bits)
        return shape, "bfloat16", *rest

    def empty(shape, dtype):
        return Bfloat16(kind.empty(shape, "int16")) if dtype == "bfloat16" else kind.empty(shape, dtype)

    return kind._replace(describe=describe, empty=empty, send=lambda a: Bfloat16(kind.send(a.view(np.int16))),
                         receive=lambda x: widened(kind.receive(x.bits)))  # fmt: skip


def widened(bits):
    """The numbers as float32. bits: NumPy, integers of 2 bytes."""
    return (bits.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
