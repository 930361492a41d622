"""Normalisations and gates of rows on the GPU: `layer_norm`, `layer_norm_modulate`, `rms_norm`, `gate_residual` of
`ref.layers` and their gradients, one read and one write.

x is (B, L, n): a program takes some rows of one example, in registers as tiles side by side, and what is one vector an
example is read once for all of them. For the gradients of those vectors a program goes down a part of the rows; the
parts are added in one order. `out` takes the result like x, or dx, and may be an input.
"""
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu import launch
from kernels.triton_gpu.arrays import STORED, output, read
from kernels.triton_gpu.layers.vectors import added, given, loaded
from kernels.triton_gpu.philox import stored

ELEMENTS = {"forward": (1024, 8), "backward": (256, 4)}  # of a tile, and of a thread's part of it
PARTS = 8  # programs a multiprocessor for the gradient

# B examples of L rows of n. rows, cols: of a tile, of which there are tiles. parts: of an example's rows.
Walk = namedtuple("Walk", "b length n rows cols tiles parts warps")


def layer_norm_modulate(x, shift, scale, eps, out=None):
    """(1 + scale) x_hat + shift; arguments as in `ref.layers.fused.layer_norm_modulate`. out: an array."""
    arrays, walk = _read("forward", None, x=x)
    vectors = given(arrays, (walk.b, walk.n), shift=shift, scale=scale)
    return _forward(arrays, walk, vectors, eps, out, plus=1.0)


def layer_norm(x, w, b, eps, out=None):
    """w x_hat + b; arguments as in `ref.layers.norm.layer_norm`. out: an array."""
    arrays, walk = _read("forward", 1, x=x)
    return _forward(arrays, walk, given(arrays, (walk.n,), b=b, w=w), eps, out)


def rms_norm(x, w, eps, out=None):
    """w x / sqrt(mean(x^2) + eps); arguments as in `ref.layers.norm.rms_norm`. out: an array."""
    arrays, walk = _read("forward", 1, x=x)
    return _forward(arrays, walk, (None, *given(arrays, (walk.n,), w=w)), eps, out, centred=False)


def layer_norm_modulate_backward(dy, x, scale, eps, out=None):
    """Gradients of `layer_norm_modulate`; arguments as in `ref.layers.fused.layer_norm_modulate_backward`. out: of dx
    alone."""
    arrays, walk = _read("backward", None, dy=dy, x=x)
    vectors = given(arrays, (walk.b, walk.n), scale=scale)
    dx, sums = _backward(arrays, walk, vectors, eps, out, plus=1.0)
    return dx, *added(arrays, sums, 2, (walk.b, walk.n), walk.parts)


def layer_norm_backward(dy, x, w, eps, out=None):
    """Gradients of `layer_norm`; arguments as in `ref.layers.norm.layer_norm_backward`. out: of dx alone."""
    arrays, walk = _read("backward", 1, dy=dy, x=x)
    dx, sums = _backward(arrays, walk, given(arrays, (walk.n,), w=w), eps, out)
    return dx, *((None, None) if w is None else added(arrays, sums, 2, (walk.n,), walk.parts)[::-1])


def rms_norm_backward(dy, x, w, eps, out=None):
    """Gradients of `rms_norm`; arguments as in `ref.layers.norm.rms_norm_backward`. out: of dx alone."""
    arrays, walk = _read("backward", 1, dy=dy, x=x)
    dx, sums = _backward(arrays, walk, given(arrays, (walk.n,), w=w), eps, out, centred=False)
    return dx, None if w is None else added(arrays, sums, 1, (walk.n,), walk.parts)[0]


def gate_residual(x, r, gate, out=None):
    """x + gate r; arguments as in `ref.layers.fused.gate_residual`. out: an array."""
    arrays, walk = _read("forward", None, x=x, r=r)
    vectors = given(arrays, (walk.b, walk.n), gate=gate)
    out, pointer = output("out", out, arrays)
    _launch(_gate, arrays, walk, pointer, *arrays.pointers, *vectors)
    return out


def gate_residual_backward(dy, r, gate, out=None):
    """Gradients of `gate_residual`; arguments as in `ref.layers.fused.gate_residual_backward`. out: of dr alone; dx is
    dy itself."""
    arrays, walk = _read("backward", None, dy=dy, r=r)
    vectors = given(arrays, (walk.b, walk.n), gate=gate)
    dr, pointer = output("out", out, arrays)
    sums = _partial(arrays, walk, 1)
    _launch(_gate_backward, arrays, walk, pointer, sums, *arrays.pointers, *vectors)
    return dy, dr, *added(arrays, sums, 1, (walk.b, walk.n), walk.parts)


def _read(way, examples, **given_arrays):
    """`Arrays` and the `Walk` over their rows. examples: 1 for rows that share their vectors, None for (B, L, n)."""
    arrays = read(STORED, **given_arrays)
    if not arrays.shape or examples is None and len(arrays.shape) != 3:
        raise ValueError(f"x: expected (B, L, n), got {arrays.shape}")
    n = arrays.shape[-1]
    b = examples or arrays.shape[0]
    length = arrays.size // max(b * n, 1)
    most, each = ELEMENTS[way]
    # Tiles as wide as the row, or a few narrower ones where less of them lies past its end
    wide = max(triton.next_power_of_2(max(n, 1)), 1)
    cols = min((c for c in (wide, wide // 2, wide // 4, wide // 8, wide // 16) if c >= 64 or c == wide),
               key=lambda c: (-(-n // c) * c, -c))  # fmt: skip
    tiles = max(launch.programs(n, cols), 1)
    rows = max(min(most // cols, triton.next_power_of_2(max(length, 1))), 1)
    parts = launch.programs(length, rows)
    if way == "backward":
        parts = max(min(parts, launch.programs(PARTS * launch.processors(arrays), max(b, 1))), 1)
    return arrays, Walk(b, length, n, rows, cols, tiles, parts, min(max(rows * cols // (32 * each), 1), 16))


def _launch(kernel, arrays, walk, *args, **constants):
    constants |= dict(ROWS=walk.rows, COLS=walk.cols, TILES=walk.tiles)
    args = *args, walk.length, walk.n, walk.parts
    launch.run(kernel, walk.b * walk.parts, arrays, *args, **constants, warps=walk.warps)


def _forward(arrays, walk, vectors, eps, out, centred=True, plus=0.0):
    out, pointer = output("out", out, arrays)
    _launch(_norm, arrays, walk, pointer, *arrays.pointers, *vectors, float(eps), CENTRED=centred, PLUS=plus,
            registers=128)  # fmt: skip
    return out


def _partial(arrays, walk, kinds):
    return launch.scratch(np.empty((kinds, walk.b, walk.parts, walk.n), np.float32), arrays, filled=False)


def _backward(arrays, walk, vectors, eps, out, centred=True, plus=0.0):
    """dx, and the partial sums of dshift and dscale, or of dw alone."""
    dx, pointer = output("out", out, arrays)
    sums = _partial(arrays, walk, 1 + centred)
    _launch(_norm_backward, arrays, walk, pointer, sums, *arrays.pointers, *vectors, float(eps), CENTRED=centred,
            PLUS=plus)  # fmt: skip
    return dx, sums


@triton.jit
def tile_of(t, first, end, n, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Columns (1, COLS) of tile t, where the elements of rows from `first` are, and which are before row `end`. n:
    elements of a row. ROWS, COLS: of a tile."""
    row = (first + tl.arange(0, ROWS))[:, None]
    col = t * COLS + tl.arange(0, COLS)[None, :]
    return col, row * tl.cast(n, tl.int64) + col, (row < end) & (col < n)


@triton.jit
def vector(pointer, first, col, n, plus, ROWS: tl.constexpr):
    """plus + a vector of an example, 1 where there is none, in each of the rows: it is read as x is, since a layout of
    its own would go through shared memory. pointer: or None. first: of the example. col: columns. n: in all. plus:
    number. ROWS: of a tile."""
    col = col + tl.zeros((ROWS, 1), tl.int32)
    if pointer is None:
        return tl.full(col.shape, 1.0, tl.float32)
    else:
        return plus + tl.load(pointer + first + col, mask=col < n, other=0).to(tl.float32)


@triton.jit
def root_of(kept, mean, n, eps, first, end, ROWS: tl.constexpr, COLS: tl.constexpr, CENTRED: tl.constexpr):
    """What rounding left of the means (ROWS, 1), and 1 / sqrt(var + eps), of rows in registers. kept: tiles. mean: of
    the rows. n, first, end, ROWS, COLS: as in `tile_of`. eps: number. CENTRED: or the mean of x^2."""
    total, square = tl.zeros((ROWS, COLS), tl.float32), tl.zeros((ROWS, COLS), tl.float32)
    for t in tl.static_range(len(kept)):
        _, _, inside = tile_of(t, first, end, n, ROWS, COLS)
        c = tl.where(inside, kept[t].to(tl.float32) - mean, 0.0)
        total += c
        square = tl.fma(c, c, square)
    square = tl.sum(square, 1)[:, None] / n
    if CENTRED:
        left = tl.sum(total, 1)[:, None] / n
        square = tl.maximum(square - left * left, 0.0) + 0.0 * left  # a NaN stays
    else:
        left = tl.zeros((ROWS, 1), tl.float32)
    return left, tl.div_rn(tl.full((ROWS, 1), 1.0, tl.float32), tl.sqrt_rn(square + eps))


@triton.jit
def mean_of(kept, n, ROWS: tl.constexpr, COLS: tl.constexpr, CENTRED: tl.constexpr):
    """The means of rows (ROWS, 1), 0 unless CENTRED. kept: of `loaded`. n, ROWS, COLS: as in `tile_of`."""
    total = tl.zeros((ROWS, COLS), tl.float32)
    if CENTRED:
        for t in tl.static_range(len(kept)):
            total += kept[t].to(tl.float32)
    return tl.sum(total, 1)[:, None] / n


@triton.jit
def rows_of(length, n, parts, ROWS: tl.constexpr):
    """Of a program: its example, where that begins, and its part of the rows, the first and the one past the last.
    length: rows of an example. n: elements of a row. parts: of an example. ROWS: of a tile."""
    example, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    each = ((length + ROWS - 1) // ROWS + parts - 1) // parts * ROWS
    first = part * each
    return example, example.to(tl.int64) * length * n, first, tl.minimum(first + each, length)


@triton.jit(do_not_specialize=["length", "parts", "eps"])
def _norm(
    y, x, shift, scale, eps, length, n, parts,
    CENTRED: tl.constexpr, PLUS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    example, base, first, end = rows_of(length, n, parts, ROWS)
    kept = loaded(x + base, tile_of, (first, end, n, ROWS, COLS), TILES)
    mean = mean_of(kept, n, ROWS, COLS, CENTRED)
    left, over = root_of(kept, mean, n, eps, first, end, ROWS, COLS, CENTRED)
    for t in tl.static_range(TILES):
        col, at, inside = tile_of(t, first, end, n, ROWS, COLS)
        z = (kept[t].to(tl.float32) - mean - left) * over
        z *= vector(scale, example * n, col, n, PLUS, ROWS)
        if shift is not None:
            z += vector(shift, example * n, col, n, 0.0, ROWS)
        tl.store(y + base + at, stored(z, y), mask=inside)


@triton.jit
def summed(sums, total, t, n, COLS: tl.constexpr):
    """Stores the sums over rows of a tile's columns, for this program. sums: pointer. total: block (ROWS, COLS). t: of
    the tile. n: elements of a row. COLS: of a tile."""
    col = t * COLS + tl.arange(0, COLS)
    tl.store(sums + tl.program_id(0).to(tl.int64) * n + col, tl.sum(total, 0), mask=col < n)


@triton.jit(do_not_specialize=["length", "parts", "eps"])
def _norm_backward(
    dx, sums, dy, x, scale, eps, length, n, parts,
    CENTRED: tl.constexpr, PLUS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    example, base, begin, end = rows_of(length, n, parts, ROWS)
    x, dy, dx = x + base, dy + base, dx + base
    dshift, dscale = (), ()
    for made in tl.static_range(TILES):
        dshift = dshift + (tl.zeros((ROWS, COLS), tl.float32),)
        dscale = dscale + (tl.zeros((ROWS, COLS), tl.float32),)
    for first in range(begin, end, ROWS):
        xs = loaded(x, tile_of, (first, end, n, ROWS, COLS), TILES)
        dys = loaded(dy, tile_of, (first, end, n, ROWS, COLS), TILES)
        mean = mean_of(xs, n, ROWS, COLS, CENTRED)
        left, over = root_of(xs, mean, n, eps, first, end, ROWS, COLS, CENTRED)
        # The sums of each row, and those of each column
        total, slope = tl.zeros((ROWS, COLS), tl.float32), tl.zeros((ROWS, COLS), tl.float32)
        new_dshift, new_dscale = (), ()
        for t in tl.static_range(TILES):
            col, _, inside = tile_of(t, first, end, n, ROWS, COLS)
            d = dys[t].to(tl.float32)
            x_hat = tl.where(inside, (xs[t].to(tl.float32) - mean - left) * over, 0.0)
            new_dshift = new_dshift + (dshift[t] + d,)
            new_dscale = new_dscale + (tl.fma(d, x_hat, dscale[t]),)
            d = d * vector(scale, example * n, col, n, PLUS, ROWS)
            total += d
            slope = tl.fma(d, x_hat, slope)
        dshift, dscale = new_dshift, new_dscale
        slope = tl.sum(slope, 1)[:, None] / n
        middle = tl.sum(total, 1)[:, None] / n if CENTRED else slope * 0.0
        for t in tl.static_range(TILES):
            col, at, inside = tile_of(t, first, end, n, ROWS, COLS)
            d = dys[t].to(tl.float32) * vector(scale, example * n, col, n, PLUS, ROWS)
            x_hat = (xs[t].to(tl.float32) - mean - left) * over
            tl.store(dx + at, stored((d - middle - x_hat * slope) * over, dx), mask=inside)
    step = tl.num_programs(0).to(tl.int64) * n
    for t in tl.static_range(TILES):
        if CENTRED:
            summed(sums, dshift[t], t, n, COLS)
            summed(sums + step, dscale[t], t, n, COLS)
        else:
            summed(sums, dscale[t], t, n, COLS)


@triton.jit(do_not_specialize=["length", "parts"])
def _gate(y, x, r, gate, length, n, parts, ROWS: tl.constexpr, COLS: tl.constexpr, TILES: tl.constexpr):
    example, base, first, end = rows_of(length, n, parts, ROWS)
    for t in tl.static_range(TILES):
        col, at, inside = tile_of(t, first, end, n, ROWS, COLS)
        g = vector(gate, example * n, col, n, 0.0, ROWS)
        a = tl.load(x + base + at, mask=inside).to(tl.float32)
        z = tl.fma(g, tl.load(r + base + at, mask=inside).to(tl.float32), a)
        tl.store(y + base + at, stored(z, y), mask=inside)


@triton.jit(do_not_specialize=["length", "parts"])
def _gate_backward(
    dr, sums, dy, r, gate, length, n, parts, ROWS: tl.constexpr, COLS: tl.constexpr, TILES: tl.constexpr
):
    example, base, begin, end = rows_of(length, n, parts, ROWS)
    r, dy, dr = r + base, dy + base, dr + base
    for t in tl.static_range(TILES):
        total = tl.zeros((ROWS, COLS), tl.float32)
        for first in range(begin, end, ROWS):
            col, at, inside = tile_of(t, first, end, n, ROWS, COLS)
            d = tl.load(dy + at, mask=inside, other=0).to(tl.float32)
            total = tl.fma(d, tl.load(r + at, mask=inside, other=0).to(tl.float32), total)
            tl.store(dr + at, stored(d * vector(gate, example * n, col, n, 0.0, ROWS), dr), mask=inside)
        summed(sums, total, t, n, COLS)
