"""Sums over all elements or over each example, in one order that the size alone decides: the same bits on every run.

An element function `f(total, x, y, ..., c0, c1, ...)` returns the running total with its elements added, a block, and
after it the blocks that are written. A program adds TILES blocks, in float32 where f does, then its elements in
float64; the programs' partial sums are added by one program. Elements past the end are read as 0 and never counted.
"""
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu import arrays as memory
from kernels.triton_gpu import device, launch
from kernels.triton_gpu.philox import normals_of, stored
from kernels.triton_gpu.rowwise import BLOCK, loaded

TILES = 8  # blocks of a program, so that few partial sums are left
REDUCE = 4096  # partial sums that the last program takes at a time
EXAMPLE_BLOCK = 512  # elements of a program that sums each example

Partial = namedtuple("Partial", "pointer count")
Part = namedtuple("Part", "outs ins size c")  # arrays of a sum: written, read, their elements, and coefficients


def partial_sums(*arrays):
    """Memory for one float64 for each program that sums, over all of arrays: a `Partial`.
    Raises ValueError where an array is empty."""
    for a in arrays:
        some(a)
    count = sum(map(programs, arrays))
    return Partial(launch.scratch(np.empty(count), arrays[0], filled=False), count)


def programs(arrays):
    """How many programs sum arrays. arrays: `Arrays`."""
    return launch.programs(arrays.size, BLOCK * TILES)


def some(arrays):
    """Raises ValueError where there is no element. arrays: `Arrays` of a loss."""
    if arrays.size == 0:
        raise ValueError(f"a loss: expected at least one element, got shape {arrays.shape}")


def add(f, partial, arrays, outs=(), c=(), key=None, first=0, other=None, dtype=tl.float32, warps=4):
    """Fills partial sums, and writes outs.

    f: from `triton.jit`, as above. partial: `Partial`. arrays: `Arrays` that are read. outs: pointers. c: numbers.
    key: `launch.key_words` of a last array of noise, made in registers, or None. first: place of the first partial sum.
    other: arrays, outs and c of a second set that the same launch sums, or None. dtype: of f's total. warps: of a
    program.
    """
    own, words = programs(arrays), key or (0, 0, 0, 0)
    part, grid = Part(tuple(outs), tuple(arrays.pointers), arrays.size, c), own
    if other is not None:
        grid += programs(other[0])
        other = Part(tuple(other[1]), tuple(other[0].pointers), other[0].size, other[2])
    tiles = TILES
    if device.INTERPRETED:  # there a tile past the end, which adds nothing, takes as long as any other
        tiles = min(TILES, launch.programs(max(p.size for p in (part, other) if p), BLOCK))
    launch.run(
        _add, grid, arrays, partial.pointer, part, other, own, first, *words, f, key is not None, dtype,
        BLOCK, tiles, warps=warps,
    )  # fmt: skip


def mean(partial, arrays):
    """The mean over all elements of arrays from their partial sums, float64 without axes. partial: `Partial`.
    arrays: `Arrays`."""
    return scalar(_mean, arrays, partial.pointer, partial.count, arrays.size)


def scalar(kernel, arrays, *args):
    """What a kernel of one program writes: float64 without axes, of the kind of arrays. kernel: from `triton.jit`.
    arrays: `Arrays`. args: after the pointer that it writes to."""
    out = arrays.kind.empty((), "float64")
    launch.run(kernel, 1, arrays, memory.pointer_to(out, arrays.kind), *args, BLOCK=REDUCE, warps=8)
    return out[()] if isinstance(out, np.ndarray) else out  # a NumPy array becomes a number


def by_example(f, arrays, outs, c=()):
    """Sums each example, (B,) float64 of the kind of arrays, and writes outs.

    f: from `triton.jit`, as above. arrays: `Arrays`, (B, ...). outs: pointers. c: () or a (1, R) table, R = 1 or B
    rows.
    """
    # A program takes several short rows, one row, or a part of a long one, whose parts a second kernel adds.
    rows, n = coefficients.examples(arrays.shape)
    sums = arrays.kind.empty((rows,), "float64")
    to = memory.pointer_to(sums, arrays.kind)
    cols = min(max(triton.next_power_of_2(launch.programs(n, TILES)), 32), EXAMPLE_BLOCK)  # few past the row's end
    tiles = min(launch.programs(max(n, 1), cols), TILES)
    parts = launch.programs(max(n, 1), cols * tiles)
    partial = to if parts == 1 else launch.scratch(np.empty(rows * parts), arrays, filled=False)
    table = launch.scratch(c.astype(np.float32), arrays) if len(c) and c.size > 1 and arrays.size else None
    scalars = tuple(c[:, 0].tolist()) if len(c) and c.size == 1 else (0.0,) * len(c)
    grid, ins = launch.programs(rows, EXAMPLE_BLOCK // cols) * parts, tuple(arrays.pointers)
    launch.run(
        _add_examples, grid, arrays, tuple(outs), partial, ins, rows, n, parts, table, scalars,
        f, cols, tiles, EXAMPLE_BLOCK,
    )  # fmt: skip
    if parts > 1:
        launch.run(_add_parts, rows, arrays, to, partial, parts, BLOCK=REDUCE, warps=8)
    return sums


@triton.jit
def neighbours_sum(x, N: tl.constexpr, TO: tl.constexpr):
    """The sums of runs of N / TO elements, neighbours first: one order, whatever layout the compiler chose. x: block
    of N. N, TO: powers of 2."""
    for k in tl.static_range(1, 17):
        if N >> k >= TO:
            x = tl.sum(tl.reshape(x, (N >> k, 2)), 1)  # of two: no order to choose
    return x


@triton.jit
def tree_sum(x, N: tl.constexpr):
    """The sum of a block, neighbours first. x: block. N: its length, a power of 2 up to 2^16."""
    return tl.sum(neighbours_sum(x, N, 1))


@triton.jit
def total_of(partial, count, BLOCK: tl.constexpr):
    """The sum of float64 partial sums. partial: pointer. count: of them. BLOCK: taken at a time."""
    i, total = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float64)
    for first in range(0, count, BLOCK):
        total += tl.load(partial + first + i, mask=first + i < count, other=0)
    return tree_sum(total, BLOCK)


@triton.jit(do_not_specialize=["count", "size"])
def _mean(out, partial, count, size, BLOCK: tl.constexpr):
    tl.store(out, total_of(partial, count, BLOCK) / size.to(tl.float64))


@triton.jit(do_not_specialize=["parts"])
def _add_parts(sums, partial, parts, BLOCK: tl.constexpr):
    tl.store(sums + tl.program_id(0), total_of(partial + tl.program_id(0).to(tl.int64) * parts, parts, BLOCK))


@triton.jit
def store_after(outs, y, base, i, inside):
    """Writes what an element function returned after its total. outs: tuple of pointers. y: blocks.
    base, i, inside: as in `loaded`."""
    for k in tl.static_range(len(outs)):
        tl.store(outs[k] + base + i, stored(y[k + 1], outs[k]), mask=inside)


@triton.jit(do_not_specialize=["programs", "first", "k0", "k1", "s0", "s1"])
def _add(
    partial, part, other, programs, first, k0, k1, s0, s1,
    F: tl.constexpr, NOISE: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    i, program = tl.arange(0, BLOCK), tl.program_id(0)
    outs, ins, size, c = part.outs, part.ins, part.size, part.c
    # Programs past those of the first arrays take the other ones
    if other is not None:
        size, other_size = tl.cast(size, tl.int64), tl.cast(other.size, tl.int64)
        if program >= programs:
            outs, ins, size, c, program = other.outs, other.ins, other_size, other.c, program - programs
    total = tl.full((BLOCK,), 0.0, DTYPE)
    for tile in range(TILES):
        block = program.to(tl.int64) * TILES + tile
        base = block * BLOCK
        inside = base + i < size
        if NOISE:
            y = F(total, *loaded(ins, base, i, inside, 0), normals_of(outs[0], block, (k0, k1, s0, s1), BLOCK), *c)
        else:
            y = F(total, *loaded(ins, base, i, inside, 0), *c)
        store_after(outs, y, base, i, inside)
        total = tl.where(inside, y[0], total)
    tl.store(partial + first + tl.program_id(0), tree_sum(total.to(tl.float64), BLOCK))


@triton.jit(do_not_specialize=["rows"])
def _add_examples(
    outs, partial, ins, rows, n, parts, table, c,
    F: tl.constexpr, COLS: tl.constexpr, TILES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # Each element's row, and its column from where the part begins, of which there are `left`
    i, group = tl.arange(0, BLOCK), tl.program_id(0) // parts
    part, first = tl.program_id(0) - group * parts, group * (BLOCK // COLS)
    row, col, begin = first + i // COLS, i % COLS, part.to(tl.int64) * (COLS * TILES)
    left = tl.minimum(n - begin, COLS * TILES).to(tl.int32)
    if table is not None:
        c = (tl.load(table + row, mask=row < rows),)
    # The elements' totals, a tile after the other
    total = tl.full((BLOCK,), 0.0, tl.float32)
    for tile in range(TILES):
        at = row.to(tl.int64) * n + begin + (col + tile * COLS)
        inside = (row < rows) & (col + tile * COLS < left)
        y = F(total, *loaded(ins, 0, at, inside, 0), *c)
        store_after(outs, y, 0, at, inside)
        total = tl.where(inside, y[0], total)
    # The sum of each row's COLS elements, neighbours first
    row = first + tl.arange(0, BLOCK // COLS)
    sums = neighbours_sum(total.to(tl.float64), BLOCK, BLOCK // COLS)
    tl.store(partial + row.to(tl.int64) * parts + part, sums, mask=row < rows)
