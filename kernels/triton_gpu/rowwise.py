"""Row-wise kernels: an element function, and the one loop that applies it to whole arrays.

An element function is an equation on blocks, `f(x, y, ..., c0, c1, ...)`: the arrays' elements, then the coefficients
of their row, then what is the same for all elements. It returns one block, or one for each array that is written.
Arrays are float32, or float16 or bfloat16 in memory and float32 in between.

A row is an example of the batch, whose coefficients are a column of a table. How the rows lie in the programs' blocks
is a compile-time constant, HOW: "one row" for the whole batch, or a block "in a row", "in two" at most, "in several".

The noise z of f(x, ..., z, c0, ..., sigma) has five cases. "": there is no z. "read": it is the last array, which is
not read where sigma = 0, the last coefficient. "drawn": made in registers. "added": the same, but f gets None, and
sigma z is added to what it returns, since few registers are left while noise is made. "absent": f gets None, and that
is all.
"""
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu import arrays as memory
from kernels.triton_gpu import launch
from kernels.triton_gpu.philox import BLOCK as NOISE_BLOCK
from kernels.triton_gpu.philox import normals_of, stored

BLOCK = 1024  # elements of a program, 256 Philox blocks; with 4 warps a thread's stores are 16 bytes wide
# Cases are literals in the kernels: Triton compares every global constant of a kernel at every launch, 1 us each.

Table = namedtuple("Table", "scalars pointer rows row_size how block")


def table(coefficients, like, block=BLOCK):
    """How a kernel finds its coefficients: scalars, a pointer, rows, elements a row, rows in a block, elements a block.

    coefficients: (K, R) float64. like: `Arrays` of the data. block: elements a program. With R = 1 the scalars are
    the coefficients and nothing is sent; else a float32 table goes to the device.
    """
    k, rows = coefficients.shape
    if rows == 1:
        return Table(tuple(coefficients[:, 0].tolist()), None, 1, 1, "one row", block)
    if not like.size:
        return Table((0.0,) * k, None, 1, 1, "one row", block)
    n = like.size // rows
    how = "in a row" if n % block == 0 else "in two" if n >= block else "in several"
    return Table((0.0,) * k, launch.scratch(coefficients.astype(np.float32), like), rows, n, how, block)


def rowwise(f, arrays, coefficients, out=None, writes=1, more=(), noise="", key=(0, 0, 0, 0)):
    """Applies an element function.

    f: from `triton.jit`, as above. arrays: `Arrays` that it reads. coefficients: (K, R) float64, for R = 1 or B rows.
    out: None, an array, or one for each of the writes > 1 results. more: numbers or pointers after the coefficients.
    noise: of the five cases. key: `launch.key_words` of noise that is made.
    Returns the array written, or a tuple of them.
    """
    rows = table(coefficients, arrays, NOISE_BLOCK if noise == "drawn" else BLOCK)
    if writes == 1:
        made, pointer = memory.output("out", out, arrays)
        pointers = (pointer,)
    else:
        made, pointers = memory.outputs(out, writes, arrays)
    grid, ins = launch.programs(arrays.size, rows.block), tuple(arrays.pointers)
    launch.run(
        _apply, grid, arrays, pointers, ins, arrays.size, rows.pointer, rows.rows, rows.row_size, rows.scalars,
        *key, more, f, noise, rows.how, rows.block,
    )  # fmt: skip
    return made


@triton.jit(do_not_specialize=["rows", "n", "k0", "k1", "s0", "s1"])
def _apply(
    outs, ins, size, table, rows, n, c, k0, k1, s0, s1, more,
    F: tl.constexpr, NOISE: tl.constexpr, HOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    # Coefficients of each element's row
    if HOW != "one row":
        c = coefficients_of(table, c, base, i, rows, n, HOW, BLOCK)
    # The equation, with its noise
    if NOISE == "":
        y = F(*loaded(ins, base, i, inside), *c, *more)
    elif NOISE == "read":
        x = loaded(ins[: len(ins) - 1], base, i, inside)
        sigma = c[len(c) - 1] * tl.full((BLOCK,), 1.0, tl.float32)  # the interpreter cannot broadcast a comparison
        noisy = inside & (sigma != 0)
        y = F(*x, tl.load(ins[len(ins) - 1] + base + i, mask=noisy, other=0).to(tl.float32), *c, *more)
    elif NOISE == "drawn":
        x = loaded(ins, base, i, inside)
        y = F(*x, normals_of(outs[0], tl.program_id(0), (k0, k1, s0, s1), BLOCK), *c, *more)
    else:
        y = F(*loaded(ins, base, i, inside), None, *c, *more)
        if NOISE == "added":
            y = with_noise(y, c[len(c) - 1], normals_of(outs[0], tl.program_id(0), (k0, k1, s0, s1), BLOCK))
    store(outs, y, base, i, inside)


@triton.jit
def with_noise(mean, sigma, z):
    """mean + sigma z. mean, z: blocks; z is None where there is no noise. sigma: number or block."""
    return mean if z is None else tl.fma(sigma, z, mean)


@triton.jit
def loaded(ins, base, i, inside, other=None):
    """Elements base + i of each array as float32. ins: tuple of pointers. base, i: offsets. inside: which there are.
    other: what the rest are."""
    x = ()
    for k in tl.static_range(len(ins)):
        x = x + (tl.load(ins[k] + base + i, mask=inside, other=other).to(tl.float32),)
    return x


@triton.jit
def store(outs, y, base, i, inside):
    """Writes one block, or each of a tuple. outs: tuple of pointers. y: block or tuple.
    base, i, inside: as in `loaded`."""
    if len(outs) == 1:
        tl.store(outs[0] + base + i, stored(y, outs[0]), mask=inside)
    else:
        for k in tl.static_range(len(outs)):
            tl.store(outs[k] + base + i, stored(y[k], outs[k]), mask=inside)


@triton.jit
def coefficients_of(table, c, base, i, rows, n, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """The coefficients of elements base + i, each a number or a block.

    table: (K, rows). c: K numbers. base: first element. i: offsets. rows: in all. n: elements a row. HOW: rows in a
    block. BLOCK: elements.
    """
    row, after, past = row_of(base, i, rows, n, HOW, BLOCK)
    found = ()
    for k in tl.static_range(len(c)):
        column = table + k * rows
        if HOW == "in two":
            found = found + (tl.where(past, tl.load(column + after), tl.load(column + row)),)
        else:
            found = found + (tl.load(column + row),)
    return found


@triton.jit
def row_of(base, i, rows, n, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """A row, the row after it, and which elements lie in that. Arguments as in `coefficients_of`."""
    if HOW == "in a row":  # by the program's number, since a division of 64 bits takes longer than all the rest
        row = (tl.program_id(0) // (n // BLOCK).to(tl.int32)).to(tl.int64)
        return row, row, row
    else:
        first = base // n
        left = base - first * n
        if HOW == "in two":
            return first, tl.minimum(first + 1, rows - 1), left + i >= n
        else:
            # past the end nothing is stored, but a coefficient is loaded
            row = tl.minimum(first + (left.to(tl.int32) + i) // n, rows - 1)
            return row, row, row
