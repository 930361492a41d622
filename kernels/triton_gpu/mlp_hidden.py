"""A whole trajectory of simple_mlp in one launch, without pixels on the way.

Where nothing is clipped and eta = 0 a step is linear: x_s = a x_t + b eps_hat. With u = W1 x (of the pixels' columns)
and eps_hat = W2 h + b2 it is, in the hidden layer alone,

    h = relu(u + w_t t + b1),   u <- a u + b ((W1 W2) h + W1 b2),
    and at the end   x_0 = (prod a) x_T + W2 (sum d_i h_i) + (sum d_i) b2

where d_i is b_i times all later a. A program takes ROWS examples through it with W1 W2 in its registers and waits for
nobody.
"""
import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu import launch, mlp
from kernels.triton_gpu.barrier import ALL, Turn, gave_up, phase
from kernels.triton_gpu.matmul import operand, product, tile_of
from kernels.triton_gpu.mlp import relu

WIDEST = 256  # hidden layer whose trajectory fits into the registers and the shared memory of a program
# ROWS: examples of a program on the way. TALL, TILE, CHUNK, STAGES: of a product before and after it, its tile, how
# many terms at a time and how many loads ahead.
TILES = dict(ROWS=16, TALL=32, TILE=32, CHUNK=64, STAGES=4, WARPS=8)
LIFT, WALK, LOWER = map(tl.constexpr, range(1, 4))  # the phases: to the hidden layer, the trajectory, to the pixels


def sample(out, x, net, times, chain, rounded):
    """Runs a trajectory. out: pointer. x: `Arrays`. net: `Net`. times: (n,) ints. chain: of `coefficients.ddim_chain`.
    rounded: to bfloat16?"""
    (B, D), (lines, whole, offset) = x.shape, chain
    wide = max(16, 1 << (net.width - 1).bit_length())  # units up to a power of 2
    resident = rounded or wide <= 64  # W1 W2 in registers or shared memory
    tile = mlp.tiles(TILES, max(D, wide)) | dict(TILE=64 if B > 512 else 32)  # many tiles, or one for each program
    tile = {name: min(n, wide) if name in ("TALL", "TILE", "CHUNK") else n for name, n in tile.items()}
    m = launch.workspace(
        x, out=out, x=x.pointers[0], **dict(zip(("w1", "b1", "w2", "b2"), net.weights)), counter=np.zeros(2, np.int32),
        table=np.column_stack([times, *lines]).astype(np.float32), whole=whole, offset=offset,  # t, a, b of each step
        lifted=((wide + B) * wide, "float32"),  # (WIDE + B, WIDE), W1 W2 transposed, then u
        shift=(wide, "float32"),  # W1 b2
        sums=(B * wide, "float32"),  # (B, WIDE), sum d_i h_i
        hidden=(0 if resident else B * wide, "float32"),  # (B, WIDE), h
    )  # fmt: skip
    bands = triton.cdiv(B, tile["TALL"])
    most = max((wide // tile["TALL"] + bands) * (wide // tile["TILE"]), bands * triton.cdiv(D, tile["TILE"]))
    constants = dict(D=D, H=net.width, WIDE=wide, RESIDENT=resident, BFLOAT16=rounded) | tile
    phases = [(phase, None) for phase in (LIFT, WALK, LOWER)]
    mlp.loop(sample_hidden, most, x, m, B, len(times), phases=phases, **constants)


@triton.jit(do_not_specialize=["B", "steps", "patience"])
def sample_hidden(m, B, steps, patience, span, C: tl.constexpr):
    """The trajectory through the hidden layer. m, C: groups of `sample`. B, steps: ints. patience: of the barrier.
    span: None."""
    turn = phase(_lift, LIFT, Turn(0, patience), m, (B,), C)
    turn = phase(_walk, WALK, turn, m, (B, steps), C)
    if C.PHASE == ALL or C.PHASE == LOWER:
        _lower(m, B, turn, C)


@triton.jit
def _lift(m, B, C):
    """lifted <- (W1 W2)^T, then u = W1 x of each example."""
    i, k, part = tl.arange(0, C.TALL), tl.arange(0, C.TILE), tl.arange(0, C.CHUNK)
    across: tl.constexpr = C.WIDE // C.TILE
    square: tl.constexpr = C.WIDE // C.TALL
    for tile in range(tl.program_id(0), (square + tl.cdiv(B, C.TALL)) * across, tl.num_programs(0)):
        block, unit = tile // across, tile % across * C.TILE + k
        to, here = m.w1 + unit * (C.D + 1), unit < C.H
        if block < square:
            j = block * C.TALL + i
            acc = product(m.w2 + j, C.H, j < C.H, to, 1, here, C.D, C.CHUNK, C.STAGES, C.BFLOAT16)
            at = j
        else:
            j = (block - square) * C.TALL + i
            acc = product(m.x + j.to(tl.int64) * C.D, 1, j < B, to, 1, here, C.D, C.CHUNK, C.STAGES, C.BFLOAT16)
            at = tl.where(j < B, C.WIDE + j, -1)
        tl.store(m.lifted + at.to(tl.int64)[:, None] * C.WIDE + unit[None, :], acc, mask=(at >= 0)[:, None])
    # shift <- W1 b2, by the programs that had less to do
    for tile in range(tl.num_programs(0) - 1 - tl.program_id(0), C.WIDE // C.TILE, tl.num_programs(0)):
        unit, products = tile * C.TILE + k, tl.zeros((C.TILE, C.CHUNK), tl.float32)
        for first in range(0, C.D, C.CHUNK):
            inside = first + part < C.D
            w = m.w1 + unit[:, None] * (C.D + 1) + (first + part)[None, :]
            y = tl.load(w, mask=(unit < C.H)[:, None] & inside[None, :], other=0)
            products = tl.fma(y, tl.load(m.b2 + first + part, mask=inside, other=0)[None, :], products)
        tl.store(m.shift + unit, tl.sum(products, 1))


@triton.jit
def _walk(m, B, steps, C):
    """All steps of ROWS examples at a time."""
    # What every step uses, in the layout of a product, so that no vector changes its layout in every step
    unit = tl.arange(0, C.WIDE)
    here = unit < C.H
    zero = tl.zeros((C.ROWS, C.WIDE), tl.float32)
    bias = zero + tl.load(m.b1 + unit, mask=here, other=0)[None, :]
    time = zero + tl.load(m.w1 + unit * (C.D + 1) + C.D, mask=here, other=0)[None, :]
    d = zero + tl.load(m.shift + unit, cache_modifier=".cg")[None, :]
    if C.RESIDENT:
        w = operand(tl.load(m.lifted + unit[:, None] * C.WIDE + unit[None, :], cache_modifier=".cg"), C.BFLOAT16)
    for tile in range(tl.program_id(0), tl.cdiv(B, C.ROWS), tl.num_programs(0)):
        row = tile * C.ROWS + tl.arange(0, C.ROWS)
        place = row.to(tl.int64)[:, None] * C.WIDE + unit[None, :]
        u = tl.load(m.lifted + C.WIDE * C.WIDE + place, mask=(row < B)[:, None], other=0, cache_modifier=".cg")
        total = tl.zeros((C.ROWS, C.WIDE), tl.float32)
        for step in range(steps):
            t, a, b = mlp.numbers(m.table + 3 * step, 3)
            h = relu(u + tl.fma(t, time, bias))
            total = tl.fma(a, total, b * h)
            acc = tl.zeros((C.ROWS, C.WIDE), tl.float32)
            if C.RESIDENT:
                acc = tl.dot(operand(h, C.BFLOAT16), w, acc, input_precision="tf32x3")
            else:
                acc = _product_in_memory(m, h, acc, row, place, B, C)
            u = tl.fma(a, u, b * (acc + d))
        tl.store(m.sums + place, total, mask=(row < B)[:, None])


@triton.jit
def _product_in_memory(m, h, acc, row, place, B, C):
    """acc + (W1 W2) h, a chunk of both at a time from memory."""
    tl.debug_barrier()
    tl.store(m.hidden + place, h, mask=(row < B)[:, None])
    tl.debug_barrier()
    for first in range(0, C.WIDE, C.CHUNK):
        j = first + tl.arange(0, C.CHUNK)
        y = tl.load(m.hidden + row.to(tl.int64)[:, None] * C.WIDE + j[None, :], mask=(row < B)[:, None], other=0)
        w = tl.load(m.lifted + j[:, None] * C.WIDE + tl.arange(0, C.WIDE)[None, :])
        acc = tl.dot(operand(y, C.BFLOAT16), operand(w, C.BFLOAT16), acc, input_precision="tf32x3")
    return acc


@triton.jit
def _lower(m, B, turn, C):
    """out <- whole x_T + W2 sums + offset b2; NaN if a program gave up waiting."""
    down: tl.constexpr = tl.cdiv(C.D, C.TILE)
    for tile in range(tl.program_id(0), tl.cdiv(B, C.TALL) * down, tl.num_programs(0)):
        example, column = tile_of(tile, down, C.TALL, C.TILE)
        row, w = m.sums + example.to(tl.int64) * C.WIDE, m.w2 + column * C.H
        acc = product(row, 1, example < B, w, 1, column < C.D, C.H, C.CHUNK, C.STAGES, C.BFLOAT16)
        pixel = example.to(tl.int64)[:, None] * C.D + column[None, :]
        real = (example < B)[:, None] & (column < C.D)[None, :]
        acc += m.offset * tl.load(m.b2 + column, mask=column < C.D, other=0)[None, :]
        acc = tl.fma(m.whole, tl.load(m.x + pixel, mask=real, other=0), acc)
        if C.PHASE == ALL:
            acc = tl.where(gave_up(m.counter, turn), float("nan"), acc)
        tl.store(m.out + pixel, acc, mask=real)
