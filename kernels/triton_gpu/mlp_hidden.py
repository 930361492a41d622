"""A whole trajectory of simple_mlp in one launch, without pixels on the way.

Where nothing is clipped and eta = 0 a step is linear: x_s = a x_t + b eps_hat. With u = W1 x (of the pixels' columns)
and eps_hat = W2 h + b2 it is, in the hidden layer alone,

h = relu(u + w_t t + b1),   u <- a u + b ((W1 W2) h + W1 b2),   and at the end   x_0 = (prod a) x_T + W2 (sum d_i h_i)
+ (sum d_i) b2

where d_i is b_i times all later a. A program takes ROWS examples through it with W1 W2 in its registers and waits for
nobody.

Papers
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
"""
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu import barrier, device, launch
from kernels.triton_gpu.barrier import ALL, Turn, gave_up, wait
from kernels.triton_gpu.matmul import operand, product, tile_of
from kernels.triton_gpu.mlp import constants, relu, tiles

WIDEST = 256  # hidden layer whose trajectory fits into the registers and the shared memory of a program
# ROWS: examples of a program on the way. TALL, TILE, CHUNK, STAGES: of a product before and after it, its tile, how
# many terms at a time and how many loads ahead.
TILES = dict(ROWS=16, TALL=32, TILE=32, CHUNK=64, STAGES=4)
LIFT, WALK, LOWER = map(tl.constexpr, range(1, 4))  # the phases: to the hidden layer, the trajectory, to the pixels

Weights = namedtuple("Weights", "w1 b1 w2 b2")
# table: (steps, 3) of t, a, b. counter: of the barrier. lifted: (WIDE + B, WIDE), W1 W2 transposed, then u. shift:
# (WIDE,), W1 b2. sums: (B, WIDE), sum d_i h_i. hidden: (B, WIDE), h where W1 W2 is not resident.
Work = namedtuple("Work", "table counter lifted shift sums hidden")


def sample(out, x, net, times, chain, rounded):
    """Runs a trajectory. out: pointer. x: `Arrays`. net: `Net`. times: (n,) ints. chain: of `trajectory.ddim_chain`.
    rounded: to bfloat16?"""
    (B, D), (lines, whole, offset) = x.shape, chain
    wide = max(16, 1 << (net.width - 1).bit_length())
    resident = rounded or wide <= 64  # W1 W2 in registers or shared memory
    sizes = [(wide + B) * wide, wide, B * wide, 0 if resident else B * wide]
    filled = [np.column_stack([times, *lines]).astype(np.float32), np.zeros(2, np.int32)]
    work = Work(*launch.workspace(x, filled, [(n, "float32") for n in sizes]))
    tile = tiles(TILES, max(D, wide)) | dict(TILE=64 if B > 512 else 32)  # many tiles, or as many as there are programs
    tile = {name: min(n, wide) if name in ("TALL", "TILE", "CHUNK") else n for name, n in tile.items()}
    bands = launch.programs(B, tile["TALL"])
    most = max((wide // tile["TALL"] + bands) * (wide // tile["TILE"]), bands * launch.programs(D, tile["TILE"]))
    weights, grid = Weights(net.w_in, net.b_in, net.w_out, net.b_out), min(most, launch.processors(x))
    groups = constants("Size", D=D, H=net.width, WIDE=wide), constants("Tiles", **tile)
    for phase in (LIFT, WALK, LOWER) if device.INTERPRETED else (ALL,):
        launch.run(
            sample_hidden, grid, x, out, *x.pointers, weights, work, B, len(times), whole, offset, barrier.PATIENCE,
            *groups, RESIDENT=resident, BFLOAT16=rounded, PHASE=phase.value, warps=8, together=True,
        )  # fmt: skip


@triton.jit(do_not_specialize=["B", "steps", "patience"])
def sample_hidden(
    out, x, net, work, B, steps, whole, offset, patience, size: tl.constexpr, tiles: tl.constexpr,
    RESIDENT: tl.constexpr, BFLOAT16: tl.constexpr, PHASE: tl.constexpr,
):  # fmt: skip
    """The trajectory through the hidden layer.

    out, x: (B, D). net: `Weights`. work: `Work`. B, steps: ints. whole, offset: prod a, sum d_i. patience: of the
    barrier. size: D, H, WIDE: pixels, units, units up to a power of 2. tiles: TILES. RESIDENT: whether W1 W2 is.
    BFLOAT16: whether operands are rounded. PHASE: or ALL.
    """
    if PHASE == ALL or PHASE == LIFT:
        lift(x, net, work, B, size, tiles, BFLOAT16)
        shift(net, work, size, tiles)
    turn = wait(work.counter, Turn(0, patience), PHASE)
    if PHASE == ALL or PHASE == WALK:
        walk(net, work, B, steps, size, tiles, RESIDENT, BFLOAT16)
    turn = wait(work.counter, turn, PHASE)
    if PHASE == ALL or PHASE == LOWER:
        lower(out, x, net, work, B, whole, offset, turn, size, tiles, BFLOAT16, PHASE)


@triton.jit
def lift(x, net, work, B, size, tiles, BFLOAT16: tl.constexpr):
    """lifted <- (W1 W2)^T, then u = W1 x of each example. Arguments as in `sample_hidden`."""
    i, k = tl.arange(0, tiles.TALL), tl.arange(0, tiles.TILE)
    across: tl.constexpr = size.WIDE // tiles.TILE
    square: tl.constexpr = size.WIDE // tiles.TALL
    for tile in range(tl.program_id(0), (square + (B + tiles.TALL - 1) // tiles.TALL) * across, tl.num_programs(0)):
        block, unit = tile // across, tile % across * tiles.TILE + k
        to, here = net.w1 + unit * (size.D + 1), unit < size.H
        if block < square:
            j = block * tiles.TALL + i
            acc = product(net.w2 + j, size.H, j < size.H, to, 1, here, size.D, tiles.CHUNK, tiles.STAGES, BFLOAT16)
            at = j
        else:
            j = (block - square) * tiles.TALL + i
            row = x + j.to(tl.int64) * size.D
            acc = product(row, 1, j < B, to, 1, here, size.D, tiles.CHUNK, tiles.STAGES, BFLOAT16)
            at = tl.where(j < B, size.WIDE + j, -1)
        tl.store(work.lifted + at.to(tl.int64)[:, None] * size.WIDE + unit[None, :], acc, mask=(at >= 0)[:, None])


@triton.jit
def shift(net, work, size, tiles):
    """shift <- W1 b2, by the programs that had less to do in `lift`. Arguments as in `sample_hidden`."""
    # 16 units, not TILE: the order of a sum is that of its block's layout, and TILE depends on the batch
    k, part = tl.arange(0, 16), tl.arange(0, tiles.CHUNK)
    for tile in range(tl.num_programs(0) - 1 - tl.program_id(0), size.WIDE // 16, tl.num_programs(0)):
        unit, products = tile * 16 + k, tl.zeros((16, tiles.CHUNK), tl.float32)
        for first in range(0, size.D, tiles.CHUNK):
            inside = first + part < size.D
            w = net.w1 + unit[:, None] * (size.D + 1) + (first + part)[None, :]
            y = tl.load(w, mask=(unit < size.H)[:, None] & inside[None, :], other=0)
            products = tl.fma(y, tl.load(net.b2 + first + part, mask=inside, other=0)[None, :], products)
        tl.store(work.shift + unit, tl.sum(products, 1))


@triton.jit
def walk(net, work, B, steps, size, tiles, RESIDENT: tl.constexpr, BFLOAT16: tl.constexpr):
    """All steps of ROWS examples at a time. Arguments as in `sample_hidden`."""
    # What every step uses, in the layout of a product, so that no vector changes its layout in every step
    unit = tl.arange(0, size.WIDE)
    here = unit < size.H
    zero = tl.zeros((tiles.ROWS, size.WIDE), tl.float32)
    bias = zero + tl.load(net.b1 + unit, mask=here, other=0)[None, :]
    time = zero + tl.load(net.w1 + unit * (size.D + 1) + size.D, mask=here, other=0)[None, :]
    d = zero + tl.load(work.shift + unit, cache_modifier=".cg")[None, :]
    if RESIDENT:
        m = operand(tl.load(work.lifted + unit[:, None] * size.WIDE + unit[None, :], cache_modifier=".cg"), BFLOAT16)
    for tile in range(tl.program_id(0), (B + tiles.ROWS - 1) // tiles.ROWS, tl.num_programs(0)):
        row = tile * tiles.ROWS + tl.arange(0, tiles.ROWS)
        place = row.to(tl.int64)[:, None] * size.WIDE + unit[None, :]
        u = tl.load(work.lifted + size.WIDE * size.WIDE + place, mask=(row < B)[:, None], other=0, cache_modifier=".cg")
        total = tl.zeros((tiles.ROWS, size.WIDE), tl.float32)
        for step in range(steps):
            line = work.table + 3 * step
            t, a, b = tl.load(line), tl.load(line + 1), tl.load(line + 2)
            h = relu(u + tl.fma(t, time, bias))
            total = tl.fma(a, total, b * h)
            acc = tl.zeros((tiles.ROWS, size.WIDE), tl.float32)
            if RESIDENT:
                acc = tl.dot(operand(h, BFLOAT16), m, acc, input_precision="tf32x3")
            else:
                acc = product_in_memory(work, h, acc, row, place, B, size, tiles, BFLOAT16)
            u = tl.fma(a, u, b * (acc + d))
        tl.store(work.sums + place, total, mask=(row < B)[:, None])


@triton.jit
def product_in_memory(work, h, acc, row, place, B, size, tiles, BFLOAT16: tl.constexpr):
    """acc + (W1 W2) h, a chunk of both at a time from memory. h, acc: blocks. row, place: of h.
    The rest as in `sample_hidden`."""
    tl.debug_barrier()
    tl.store(work.hidden + place, h, mask=(row < B)[:, None])
    tl.debug_barrier()
    for first in range(0, size.WIDE, tiles.CHUNK):
        j = first + tl.arange(0, tiles.CHUNK)
        y = tl.load(work.hidden + row.to(tl.int64)[:, None] * size.WIDE + j[None, :], mask=(row < B)[:, None], other=0)
        w = tl.load(work.lifted + j[:, None] * size.WIDE + tl.arange(0, size.WIDE)[None, :])
        acc = tl.dot(operand(y, BFLOAT16), operand(w, BFLOAT16), acc, input_precision="tf32x3")
    return acc


@triton.jit
def lower(out, x, net, work, B, whole, offset, turn, size, tiles, BFLOAT16: tl.constexpr, PHASE: tl.constexpr):
    """out <- whole x_T + W2 sums + offset b2; NaN if a program gave up waiting. turn: of the barrier.
    The rest as in `sample_hidden`."""
    down: tl.constexpr = (size.D + tiles.TILE - 1) // tiles.TILE
    for tile in range(tl.program_id(0), (B + tiles.TALL - 1) // tiles.TALL * down, tl.num_programs(0)):
        example, column = tile_of(tile, down, tiles.TALL, tiles.TILE)
        row, w = work.sums + example.to(tl.int64) * size.WIDE, net.w2 + column * size.H
        acc = product(row, 1, example < B, w, 1, column < size.D, size.H, tiles.CHUNK, tiles.STAGES, BFLOAT16)
        pixel = example.to(tl.int64)[:, None] * size.D + column[None, :]
        real = (example < B)[:, None] & (column < size.D)[None, :]
        acc += offset * tl.load(net.b2 + column, mask=column < size.D, other=0)[None, :]
        acc = tl.fma(whole, tl.load(x + pixel, mask=real, other=0), acc)
        if PHASE == ALL:
            acc = tl.where(gave_up(work.counter, turn), float("nan"), acc)
        tl.store(out + pixel, acc, mask=real)
