"""`ref.layers.embed` on the GPU. An index or a time may lie on the host, where it is checked, or on the GPU, where
nothing waits for it: there a row of an index that is no class is NaN, and its gradient goes nowhere.

The gradient of a class is a sum over its places in one order: a program goes through all of them, 64 at a time.
"""
import math

import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu import arrays as memory
from kernels.triton_gpu import device, launch
from kernels.triton_gpu.arrays import STORED, apart, read
from kernels.triton_gpu.layers.vectors import given, written
from kernels.triton_gpu.philox import stored

ROWS, COLUMNS, ANGLES = 64, 64, 256  # of a program; its angles, float64, which take long
INTS = "int64", "int32"
FLOATS = "float64", "float32"


def embedding(w, index, out=None):
    """w[index]; arguments as in `ref.layers.embed.embedding`. out: the result, or None."""
    table, classes, n, index = _checked(w, index)
    out, pointer = written("out", out, table, (*index.shape, n))
    apart((pointer, index.size * n), (table.pointers[0], table.size))
    grid = launch.programs(index.size, ROWS) * launch.programs(n, COLUMNS)
    launch.run(_embedding, grid, table, pointer, table.pointers[0], index.pointers[0], index.size, classes, n,
               ROWS=ROWS, COLUMNS=COLUMNS)  # fmt: skip
    return out


def embedding_backward(dy, w, index, out=None):
    """Gradient of `embedding` in w; arguments as in `ref.layers.embed.embedding_backward`. out: the
    result, or None."""
    table, classes, n, index = _checked(w, index)
    upstream = given(table, (*index.shape, n), dy=dy)
    out, pointer = memory.output("out", out, table)
    apart((pointer, table.size), (upstream[0], index.size * n))
    grid = classes * launch.programs(n, COLUMNS)
    launch.run(_embedding_backward, grid, table, pointer, *upstream, index.pointers[0], index.size, n,
               ROWS=ROWS, COLUMNS=COLUMNS)  # fmt: skip
    return out


def time_embedding(t, width, max_period=10000.0, freq_shift=0, flip_sin_to_cos=False):
    """Sines and cosines of t, as float32, from float64 arithmetic; arguments as in `ref.layers.embed.time_embedding`.
    """
    if width % 2 or width <= 2 * freq_shift:
        raise ValueError(f"width: expected an even number above {2 * freq_shift:g}, got {width}")
    if not 0 < max_period < math.inf:
        raise ValueError(f"max_period: expected a positive, finite number, got {max_period}")
    times = read(FLOATS + INTS, t=memory.send(np.array(t, np.float64)) if isinstance(t, (np.ndarray, list)) else t)
    out, pointer = written("out", None, times._replace(dtype="float32"), (*times.shape, width))
    rate = int(np.float64(-math.log2(max_period) / (width // 2 - freq_shift)).view(np.int64))  # floats become float32
    block = ROWS * COLUMNS if device.INTERPRETED else ANGLES
    grid = launch.programs(times.size * width // 2, block)
    launch.run(_time_embedding, grid, times, pointer, times.pointers[0], times.size, width // 2, rate,
               FLIP=bool(flip_sin_to_cos), BLOCK=block)  # fmt: skip
    return out


def _checked(w, index):
    """`Arrays` of w, its classes and columns, and `Arrays` of index."""
    table = read(STORED, w=w)
    if len(table.shape) != 2:
        raise ValueError(f"w: expected (classes, n), got {table.shape}")
    if isinstance(index, np.ndarray):
        if index.dtype.kind not in "iu":
            raise TypeError(f"index: expected ints, got {index.dtype}")
        if index.size and not 0 <= index.min() <= index.max() < table.shape[0]:
            raise ValueError(f"index: expected ints below {table.shape[0]}, got {index.min()} to {index.max()}")
        index = np.ascontiguousarray(index, np.int64)
        index = index if device.INTERPRETED else table.kind.send(index)
    found = read(INTS, index=index)
    table.streams.update(found.streams)
    return table, *map(int, table.shape), found


@triton.jit(do_not_specialize=["rows"])
def _embedding(y, w, index, rows, classes, n, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    across = tl.cdiv(n, COLUMNS)
    row = (tl.program_id(0) // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    k = tl.load(index + row, mask=row < rows, other=0).to(tl.int64)
    known, there = (k >= 0) & (k < classes), (row < rows)[:, None] & (column < n)[None, :]
    x = tl.load(w + k[:, None] * n + column[None, :], mask=there & known[:, None], other=float("nan"))
    tl.store(y + row[:, None] * n + column[None, :], x, mask=there)


@triton.jit(do_not_specialize=["rows"])
def _embedding_backward(dw, dy, index, rows, n, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    across = tl.cdiv(n, COLUMNS)
    k = (tl.program_id(0) // across).to(tl.int64)
    column, i = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, ROWS).to(tl.int64)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, rows, ROWS):
        row = first + i
        here = (tl.load(index + row, mask=row < rows, other=-1) == k)[:, None] & (column < n)[None, :]
        total += tl.load(dy + row[:, None] * n + column[None, :], mask=here, other=0).to(tl.float32)
    tl.store(dw + k * n + column, stored(tl.sum(total, 0), dw), mask=column < n)


@triton.jit(do_not_specialize=["rows", "rate"])
def _time_embedding(y, t, rows, half, rate, FLIP: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, i, inside = at // half, at % half, at < rows * half
    rate = tl.cast(rate, tl.int64).to(tl.float64, bitcast=True)
    angle = tl.load(t + row, mask=inside).to(tl.float64) * tl.exp2(i.to(tl.float64) * rate)
    first, second = (tl.cos(angle), tl.sin(angle)) if FLIP else (tl.sin(angle), tl.cos(angle))
    tl.store(y + row * 2 * half + i, first.to(tl.float32), mask=inside)
    tl.store(y + row * 2 * half + half + i, second.to(tl.float32), mask=inside)
