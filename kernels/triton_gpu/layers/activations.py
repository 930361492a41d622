"""`ref.layers.geglu` and its gradient on the GPU, one read and one write. `out` takes the result."""
import math

import triton
import triton.language as tl

from kernels.triton_gpu import launch
from kernels.triton_gpu.arrays import STORED, apart, output, read
from kernels.triton_gpu.layers.vectors import given, written
from kernels.triton_gpu.philox import stored

ELEMENTS = 2048  # of a half, in a program
ROOT_HALF, DENSITY, HALF_LOG2E = map(tl.constexpr, (math.sqrt(0.5), 1 / math.sqrt(2 * math.pi), 0.5 / math.log(2)))


def geglu(x, out=None):
    """a gelu(g); arguments as in `ref.layers.activations.geglu`."""
    arrays, shape = _halved(x)
    out, pointer = written("out", out, arrays, shape)
    apart((pointer, arrays.size // 2), (arrays.pointers[0], arrays.size))
    _launch(_geglu, arrays, shape[-1], pointer, *arrays.pointers)
    return out


def geglu_backward(dy, x, out=None):
    """Gradient of `geglu`; arguments as in `ref.layers.activations.geglu_backward`. out: of dx, which may be x."""
    arrays, shape = _halved(x)
    upstream = given(arrays, shape, dy=dy)
    out, pointer = output("out", out, arrays)
    apart((pointer, arrays.size), (upstream[0], arrays.size // 2))
    _launch(_geglu_backward, arrays, shape[-1], pointer, *upstream, *arrays.pointers)
    return out


def _halved(x):
    """`Arrays` of x, and the shape of its halves."""
    arrays = read(STORED, x=x)
    if not arrays.shape or arrays.shape[-1] % 2:
        raise ValueError(f"x: expected an even last axis, got {arrays.shape}")
    return arrays, (*arrays.shape[:-1], arrays.shape[-1] // 2)


def _launch(kernel, arrays, n, *pointers):
    cols = min(triton.next_power_of_2(max(n, 1)), ELEMENTS)
    rows, across = arrays.size // max(2 * n, 1), launch.programs(n, cols)
    deep = min(ELEMENTS // cols, triton.next_power_of_2(max(rows, 1)))
    grid = launch.programs(rows, deep) * across
    launch.run(kernel, grid, arrays, *pointers, rows, n, across, ROWS=deep, COLS=cols, warps=max(deep * cols // 512, 1))


@triton.jit
def place(rows, n, across, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Where the elements of a program are among halves, and among whole rows, and which there are. rows, n: of the
    halves. across: programs side by side. ROWS, COLS: of a program."""
    row = (tl.program_id(0) // across * ROWS + tl.arange(0, ROWS))[:, None]
    col = (tl.program_id(0) % across * COLS + tl.arange(0, COLS))[None, :]
    at = row * tl.cast(n, tl.int64) + col
    return at, at + row * tl.cast(n, tl.int64), (row < rows) & (col < n)


@triton.jit(do_not_specialize=["rows", "across"])
def _geglu(y, x, rows, n, across, ROWS: tl.constexpr, COLS: tl.constexpr):
    at, whole, inside = place(rows, n, across, ROWS, COLS)
    a = tl.load(x + whole, mask=inside).to(tl.float32)
    g = tl.load(x + whole + n, mask=inside).to(tl.float32)
    tl.store(y + at, stored(a * (g * cdf(g)), y), mask=inside)


@triton.jit(do_not_specialize=["rows", "across"])
def _geglu_backward(dx, dy, x, rows, n, across, ROWS: tl.constexpr, COLS: tl.constexpr):
    at, whole, inside = place(rows, n, across, ROWS, COLS)
    d = tl.load(dy + at, mask=inside).to(tl.float32)
    a = tl.load(x + whole, mask=inside).to(tl.float32)
    g = tl.load(x + whole + n, mask=inside).to(tl.float32)
    phi = cdf(g)
    slope = phi + g * (DENSITY * tl.exp2(-g * g * HALF_LOG2E))
    tl.store(dx + whole, stored(d * (g * phi), dx), mask=inside)
    tl.store(dx + whole + n, stored(d * a * slope, dx), mask=inside)


@triton.jit
def cdf(x):
    """(1 + erf(x / sqrt(2))) / 2. x: float32 block."""
    return 0.5 + 0.5 * tl.erf(x * ROOT_HALF)
