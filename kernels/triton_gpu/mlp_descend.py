"""The second half of a training step of simple_mlp: gradients of the weights, [AdamW] algorithm 2 and a moving average.

Papers
    [AdamW] Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
"""
from collections import namedtuple

import triton
import triton.language as tl

from kernels.triton_gpu.matmul import operand, padded_product
from kernels.triton_gpu.optim import adam, ema

Layers = namedtuple("Layers", "w1 b1 w2 b2")
Kept = namedtuple("Kept", "p m v average")  # weights, moments and moving average: `Layers`, pointers, or blocks
# A tile of weights: pointers to them and what is kept, offsets in them, which are real; the stored operand and
# offsets in it; operands of the gradient, of outputs and of inputs
Tile = namedtuple("Tile", "kept at real operand operand_at outputs inputs")


@triton.jit
def padded_rows(batch, tiles):
    """The examples in whole BATCHes. batch, tiles: as in `training_loop`."""
    return (batch + tiles.BATCH - 1) // tiles.BATCH * tiles.BATCH


@triton.jit
def loaded(kept, at, real):
    """Weights and what is kept of them, `Kept` of blocks. kept: `Kept` of pointers. at: offsets.
    real: which there are."""
    return Kept(
        tl.load(kept.p + at, mask=real, other=0), tl.load(kept.m + at, mask=real, other=0),
        tl.load(kept.v + at, mask=real, other=0), tl.load(kept.average + at, mask=real, other=0),
    )  # fmt: skip


@triton.jit
def store(kept, at, real, state):
    """Writes what `loaded` reads. kept, at, real: as there. state: `Kept` of blocks."""
    tl.store(kept.p + at, state.p, mask=real)
    tl.store(kept.m + at, state.m, mask=real)
    tl.store(kept.v + at, state.v, mask=real)
    tl.store(kept.average + at, state.average, mask=real)


@triton.jit
def descended(state, g, c, given):
    """[AdamW] algorithm 2 and the average. state: `Kept` of blocks. g: gradient. c: pointer to the 8 of
    `coefficients.adam_step`. given: `Given`."""
    c0, c1, c2, c3 = tl.load(c), tl.load(c + 1), tl.load(c + 2), tl.load(c + 3)
    c4, c5, c6, c7 = tl.load(c + 4), tl.load(c + 5), tl.load(c + 6), tl.load(c + 7)
    p, m, v = adam(state.p, g, state.m, state.v, c0, c1, c2, c3, c4, c5, c6, c7)
    return Kept(p, m, v, ema(state.average, p, given.keep, given.take))


@triton.jit
def own(tile, kept, work, which, batch, size, tiles):
    """A `Tile` of w2, or of w1 without its last column. tile: number. which: of the two x_op.
    The rest as in `training_loop`."""
    across: tl.constexpr = (size.H + tiles.IN - 1) // tiles.IN
    along: tl.constexpr = (size.D + tiles.IN - 1) // tiles.IN
    second: tl.constexpr = (size.D + tiles.OUT - 1) // tiles.OUT * across
    if tile < second:
        p, m, v, average = kept.p.w2, kept.m.w2, kept.v.w2, kept.average.w2
        to, dout, rows = work.w2_op, work.d_op, work.a_op
        row, column = tile // across * tiles.OUT, tile % across * tiles.IN
        outputs, inputs, stride, wide = size.D, size.H, size.H, size.HP
    else:
        p, m, v, average = kept.p.w1, kept.m.w1, kept.v.w1, kept.average.w1
        to, dout, rows = work.w1_op, work.dh_op, work.x_op + which * padded_rows(batch, tiles) * size.WIDE
        row, column = (tile - second) // along * tiles.OUT, (tile - second) % along * tiles.IN
        outputs, inputs, stride, wide = size.H, size.D, size.D + 1, size.DP
    o, i = row + tl.arange(0, tiles.OUT), column + tl.arange(0, tiles.IN)
    real = (o < outputs)[:, None] & (i < inputs)[None, :]
    at, operand_at = o[:, None] * stride + i[None, :], o[:, None] * wide + i[None, :]
    return Tile(Kept(p, m, v, average), at, real, to, operand_at, dout + o, rows + i)


@triton.jit
def descend(state, kept, given, work, step, batch, size, tiles, flags):
    """Gradients of the two matrices, and their step. state: `Kept` of this program's tile, where it stays in
    registers, or None. step: number. The rest as in `training_loop`. Returns the state after the step."""
    for tile in range(tl.program_id(0), size.TILES, tl.num_programs(0)):
        mine, rows = own(tile, kept, work, step % 2, batch, size, tiles), padded_rows(batch, tiles)
        before = state if flags.STATIONARY else loaded(mine.kept, mine.at, mine.real)
        g = padded_product(mine.outputs, size.WIDE, mine.inputs, size.WIDE, rows, tiles.BATCH // 2, tiles.STAGES)
        after = descended(before, g, given.adam + 8 * step, given)
        tl.store(mine.operand + mine.operand_at, operand(after.p, flags.BFLOAT16), mask=mine.real)
        if flags.STATIONARY:
            state = after
        else:
            store(mine.kept, mine.at, mine.real, after)
    if flags.STATIONARY:
        return state


@triton.jit
def layer(kept, NAME: tl.constexpr):
    """`Kept` of pointers to one array of a layer. kept: `Kept` of `Layers`. NAME: its place in them."""
    return Kept(kept.p[NAME], kept.m[NAME], kept.v[NAME], kept.average[NAME])


@triton.jit
def descend_vectors(kept, given, work, step, batch, size, tiles):
    """Gradients of the biases and of the column of t, and their step, by the programs with fewer matrix tiles.
    Arguments as in `training_loop` and `descend`."""
    downs: tl.constexpr = (size.D + tiles.OUT - 1) // tiles.OUT
    ups: tl.constexpr = (size.H + tiles.OUT - 1) // tiles.OUT
    c, now = given.adam + 8 * step, work.t + step % 2 * batch
    rows, k = padded_rows(batch, tiles), tl.arange(0, tiles.BATCH)
    for tile in range(tl.num_programs(0) - 1 - tl.program_id(0), downs + ups, tl.num_programs(0)):
        if tile < downs:
            column, db = tile * tiles.OUT + tl.arange(0, tiles.OUT), tl.zeros((tiles.OUT, tiles.BATCH), tl.float32)
            b2 = loaded(layer(kept, 3), column, column < size.D)
            for b in range(0, rows, tiles.BATCH):
                d = work.d_op + (b + k)[None, :] * size.WIDE + column[:, None]
                db += tl.load(d, cache_modifier=".cg").to(tl.float32)
            store(layer(kept, 3), column, column < size.D, descended(b2, tl.sum(db, 1), c, given))
        else:
            unit = (tile - downs) * tiles.OUT + tl.arange(0, tiles.OUT)
            last, here = unit * (size.D + 1) + size.D, unit < size.H
            b1, w_t = loaded(layer(kept, 1), unit, here), loaded(layer(kept, 0), last, here)
            db, dw = tl.zeros((tiles.OUT, tiles.BATCH), tl.float32), tl.zeros((tiles.OUT, tiles.BATCH), tl.float32)
            for b in range(0, rows, tiles.BATCH):
                d = work.dh_op + (b + k)[None, :] * size.WIDE + unit[:, None]
                y = tl.load(d, cache_modifier=".cg").to(tl.float32)
                time = tl.load(now + b + k, mask=b + k < batch, other=0, cache_modifier=".cg").to(tl.float32)
                db += y
                dw = tl.fma(y, time[None, :], dw)
            b1, w_t = descended(b1, tl.sum(db, 1), c, given), descended(w_t, tl.sum(dw, 1), c, given)
            store(layer(kept, 1), unit, here, b1)
            store(layer(kept, 0), last, here, w_t)
