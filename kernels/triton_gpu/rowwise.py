"""Row-wise kernels: an element function, and the one loop that applies it to whole arrays.

An element function is an equation on blocks, `f(x, y, ..., c0, c1, ...)`: the arrays' elements, then the coefficients
of their row, then what is the same for all elements. It returns one block, or one for each array that is written.
Arrays are float32, or float16 or bfloat16 in memory and float32 in between.

A row is an example of the batch, whose coefficients are a column of a table. How the rows lie in the programs' blocks
is a compile-time constant, HOW: "one row" for the whole batch, or a block "in a row", "in two" at most, or "in several".

The noise z of f(x, ..., z, c0, ..., sigma) has five cases. "": there is no z. "read": it is the last array, which is
not read where sigma = 0, the last coefficient. "drawn": made in registers. "added": the same, but f gets None, and
sigma z is added to what it returns, since few registers are left while noise is made. "absent": f gets None, and that
is all.
"""
import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu import arrays as memory
from kernels.triton_gpu import launch
from kernels.triton_gpu.philox import BLOCK as NOISE_BLOCK
from kernels.triton_gpu.philox import normals_of, stored

BLOCK = 1024  # elements of a program, 256 Philox blocks; with 4 warps a thread's stores are 16 bytes wide
# The kernels name their cases by literals: Triton compares each global constant of a kernel at every launch, 1 us each.


def rowwise(f, arrays, coefficients, out=None, writes=1, more=(), noise="", key=(0, 0, 0, 0)):
    """Applies an element function. Returns the array written, or a tuple of them.

    f: from `triton.jit`, as above. arrays: `Arrays` that it reads. coefficients: (K, R) float64, for R = 1 or B rows.
    out: None, an array, or one for each of the writes > 1 results. more: numbers or pointers after the coefficients.
    noise: of the five cases. key: `philox.key_words` of noise that is made.
    """
    block = NOISE_BLOCK if noise == "drawn" else BLOCK
    # Of one row the coefficients are numbers, and nothing is sent; of several a float32 table goes to the device
    scalars, table, (k, rows), n, how = (), None, coefficients.shape, 1, "one row"
    if rows == 1 or not arrays.size:
        scalars, rows = tuple(coefficients[:, 0].tolist()) if rows == 1 else (0.0,) * k, 1
    else:
        scalars, table, n = (0.0,) * k, launch.scratch(coefficients.astype(np.float32), arrays), arrays.size // rows
        how = "in a row" if n % block == 0 else "in two" if n >= block else "in several"
    made, pointers = memory.outputs(out, writes, arrays)
    launch.run(
        _apply, triton.cdiv(arrays.size, block), arrays, pointers, tuple(arrays.pointers), arrays.size, table, rows, n,
        scalars, *key, more, f, noise, how, block,
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
        c = _coefficients_of(table, c, base, i, rows, n, HOW, BLOCK)
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
    store(outs, (y,) if len(outs) == 1 else y, base, i, inside)


@triton.jit
def with_noise(mean, sigma, z):
    """mean + sigma z; z is None where there is no noise."""
    return mean if z is None else tl.fma(sigma, z, mean)


@triton.jit
def loaded(ins, base, i, inside, other=None):
    """Elements base + i of each array of ins as float32; other, where they are not inside."""
    x = ()
    for k in tl.static_range(len(ins)):
        x = x + (tl.load(ins[k] + base + i, mask=inside, other=other).to(tl.float32),)
    return x


@triton.jit
def store(outs, y, base, i, inside):
    """Writes a tuple of blocks, y, to outs. base, i, inside: as in `loaded`."""
    for k in tl.static_range(len(outs)):
        tl.store(outs[k] + base + i, stored(y[k], outs[k]), mask=inside)


@triton.jit
def _coefficients_of(table, c, base, i, rows, n, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """The coefficients of elements base + i, each a number or a block. table: (K, rows). n: elements of a row."""
    row, after, past = _row_of(base, i, rows, n, HOW, BLOCK)
    found = ()
    for k in tl.static_range(len(c)):
        column = table + k * rows
        if HOW == "in two":
            found = found + (tl.where(past, tl.load(column + after), tl.load(column + row)),)
        else:
            found = found + (tl.load(column + row),)
    return found


@triton.jit
def _row_of(base, i, rows, n, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """A row, the row after it, and which elements lie in that."""
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
