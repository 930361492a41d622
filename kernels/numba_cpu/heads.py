"""Where the heads of attention lie in memory: the rows (B, L, heads d) of a linear layer are read and written in place,
as (B, heads, L, d), and nothing is copied between the two."""
import numpy as np

from kernels.numba_cpu import engine
from kernels.numba_cpu.engine import OVER, element


def located(a):
    """The memory of a, flat, and what each axis but the last moves in it; of a copy, where its rows lie in pieces.

    a: (B, heads, L, d)."""
    size, whole = a.itemsize, a.size and a.flags.aligned and a.strides[3] == a.itemsize
    if not whole or any(step <= 0 or step % size for step in a.strides):
        a = np.array(a, order="C")
    steps = [step // size for step in a.strides]
    span = 1 + sum((n - 1) * step for n, step in zip(a.shape, steps)) if a.size else 0
    return np.lib.stride_tricks.as_strided(a, (span,), (size,)), tuple(steps[:3])


def result(out, shape, like, arrays):
    """Where a result is written: memory that overlaps no input, whose heads lie as those of `like` do. out: None, or an
    array. shape: of the result. like: (B, heads, L, d). arrays: the memory of the inputs."""
    if out is None and not like.flags.c_contiguous:  # all heads of a row one after another
        return np.empty((shape[0], shape[2], shape[1], shape[3]), like.dtype).swapaxes(1, 2)
    memory, how = engine.output(out, shape, like.dtype, *arrays)
    return (np.empty(memory.size, like.dtype) if how == OVER else memory).reshape(shape)


def delivered(y, out):
    """The result as the caller wants it: `out`, filled, or y. y: from `result`. out: as given there."""
    if out is None:
        return y
    if not np.may_share_memory(y, out):
        out[...] = y
    return out


@element
def place_of(steps, heads, head, i):
    """Where row i of a head begins. steps: of `located`. heads: of an example. head: of all examples. i: int."""
    return head // heads * steps[0] + head % heads * steps[1] + i * steps[2]
