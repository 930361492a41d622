"""The second half of a training step of simple_mlp: gradients of the weights, and `optim.adam_ema` of each."""
from collections import namedtuple

import triton
import triton.language as tl

from kernels.triton_gpu.matmul import operand, padded_product
from kernels.triton_gpu.mlp import numbers
from kernels.triton_gpu.optim import adam_ema
from kernels.triton_gpu.rowwise import loaded, store

Layers = namedtuple("Layers", "w1 b1 w2 b2")  # of each a tuple: pointers to, or blocks of, p, m, v and average
# A tile of weights: what is kept, offsets in it, which are real; the stored operand and offsets in it; operands of the
# gradient, of outputs and of inputs
Tile = namedtuple("Tile", "kept at real operand operand_at outputs inputs")


@triton.jit
def padded_rows(batch, C):
    """The examples in whole BATCHes. batch, C: as in `training_loop`."""
    return tl.cdiv(batch, C.BATCH) * C.BATCH


@triton.jit
def _descended(state, g, m, step):
    """The state after a step: blocks of p, m, v and average. g: gradient."""
    return adam_ema(state[0], g, state[1], state[2], state[3], *numbers(m.adam + 8 * step, 8), m.keep, m.take)


@triton.jit
def own(tile, m, which, batch, C):
    """A `Tile` of w2, or of w1 without its last column. tile: number. which: of the two x_op.
    m, batch, C: as in `training_loop`."""
    across: tl.constexpr = tl.cdiv(C.H, C.IN)
    along: tl.constexpr = tl.cdiv(C.D, C.IN)
    second: tl.constexpr = tl.cdiv(C.D, C.OUT) * across
    if tile < second:
        kept, to, dout, rows = m.kept.w2, m.w2_op, m.d_op, m.a_op
        row, column = tile // across * C.OUT, tile % across * C.IN
        outputs, inputs, stride, wide = C.D, C.H, C.H, C.HP
    else:
        kept, to, dout, rows = m.kept.w1, m.w1_op, m.dh_op, m.x_op + which * padded_rows(batch, C) * C.WIDE
        row, column = (tile - second) // along * C.OUT, (tile - second) % along * C.IN
        outputs, inputs, stride, wide = C.H, C.D, C.D + 1, C.DP
    o, i = row + tl.arange(0, C.OUT), column + tl.arange(0, C.IN)
    real = (o < outputs)[:, None] & (i < inputs)[None, :]
    at, operand_at = o[:, None] * stride + i[None, :], o[:, None] * wide + i[None, :]
    return Tile(kept, at, real, to, operand_at, dout + o, rows + i)


@triton.jit
def descend(state, m, step, batch, C):
    """Gradients of the two matrices, and their step. state: blocks of this program's tile, where it stays in
    registers, or (). m, batch, C: as in `training_loop`. step: number. Returns the state after the step."""
    for tile in range(tl.program_id(0), C.TILES, tl.num_programs(0)):
        mine, rows = own(tile, m, step % 2, batch, C), padded_rows(batch, C)
        before = state if C.STATIONARY else loaded(mine.kept, mine.at, 0, mine.real, 0)
        g = padded_product(mine.outputs, C.WIDE, mine.inputs, C.WIDE, rows, C.BATCH // 2, C.STAGES)
        after = _descended(before, g, m, step)
        tl.store(mine.operand + mine.operand_at, operand(after[0], C.BFLOAT16), mask=mine.real)
        if C.STATIONARY:
            state = after
        else:
            store(mine.kept, after, mine.at, 0, mine.real)
    return state


@triton.jit
def descend_vectors(m, step, batch, C):
    """Gradients of the biases and of the column of t, and their step, by the programs with fewer matrix tiles.
    m, step, batch, C: as in `descend`."""
    downs: tl.constexpr = tl.cdiv(C.D, C.OUT)
    ups: tl.constexpr = tl.cdiv(C.H, C.OUT)
    rows, k = padded_rows(batch, C), tl.arange(0, C.BATCH)
    for tile in range(tl.num_programs(0) - 1 - tl.program_id(0), downs + ups, tl.num_programs(0)):
        db, dw = tl.zeros((C.OUT, C.BATCH), tl.float32), tl.zeros((C.OUT, C.BATCH), tl.float32)
        if tile < downs:
            column = tile * C.OUT + tl.arange(0, C.OUT)
            here = column < C.D
            b2 = loaded(m.kept.b2, column, 0, here, 0)
            for b in range(0, rows, C.BATCH):
                d = m.d_op + (b + k)[None, :] * C.WIDE + column[:, None]
                db += tl.load(d, cache_modifier=".cg").to(tl.float32)
            store(m.kept.b2, _descended(b2, tl.sum(db, 1), m, step), column, 0, here)
        else:
            unit = (tile - downs) * C.OUT + tl.arange(0, C.OUT)
            last, here = unit * (C.D + 1) + C.D, unit < C.H
            b1, w_t = loaded(m.kept.b1, unit, 0, here, 0), loaded(m.kept.w1, last, 0, here, 0)
            for b in range(0, rows, C.BATCH):
                d = m.dh_op + (b + k)[None, :] * C.WIDE + unit[:, None]
                y, now = tl.load(d, cache_modifier=".cg").to(tl.float32), m.t + step % 2 * batch + b + k
                time = tl.load(now, mask=b + k < batch, other=0, cache_modifier=".cg").to(tl.float32)
                db += y
                dw = tl.fma(y, time[None, :], dw)
            b1, w_t = _descended(b1, tl.sum(db, 1), m, step), _descended(w_t, tl.sum(dw, 1), m, step)
            store(m.kept.b1, b1, unit, 0, here)
            store(m.kept.w1, w_t, last, 0, here)
