"""A whole trajectory of either net in one launch by way of the pixels: with noise, clipping, guidance."""
import numpy as np
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu import launch, mlp
from kernels.triton_gpu.barrier import ALL, Turn, gave_up, phase
from kernels.triton_gpu.diffusion import ddim
from kernels.triton_gpu.matmul import operand, pack, padded_product, product, tile_of
from kernels.triton_gpu.mlp import numbers, relu, silu
from kernels.triton_gpu.philox import four, key_words, of_four

# ROWS, TILE, CHUNK, STAGES: a product's tile, how many terms at a time and how many loads ahead.
TILES = dict(ROWS=16, TILE=32, CHUNK=64, STAGES=4, WARPS=4)
# The phases: operands, into the hidden layer, a block's two halves, the pixels and the step
PREPARE, ENTER, FIRST_HALF, SECOND_HALF, STEP = map(tl.constexpr, range(1, 6))
NAMES = "w_in", "b_in", "w_out", "b_out", "w_time", "b_time", "classes"  # of `Net.weights`


def sample(out, x, net, times, table, key, limit, rounded):
    """Runs a trajectory. out: pointer. x: `Arrays`. net: `Net`. times: (n + 1,) ints. table: of
    `coefficients.ddim_trajectory`. key: seed and stream. limit: of x0_hat, or None. rounded: to bfloat16?"""
    (B, D), H, steps, depth = x.shape, net.width, len(times) - 1, len(net.blocks) // 4
    branches, deep, (tile, DP, HP, stored) = len(net.labels), net.features > 0, mlp.layout(TILES, D, H, rounded)
    if 2 * depth * HP * HP >= 2**31 or HP * DP >= 2**31:
        wide = f"{2 * depth * HP * HP} with widths in whole {tile['CHUNK']}s; sample step by step"
        raise ValueError(f"params: expected fewer than 2**31 weights in all blocks, got {wide}")
    bands = triton.cdiv(B, tile["ROWS"])
    rows = bands * tile["ROWS"]
    more = branches * rows * HP if deep else 0  # a branch after the other
    keys = [key_words(key[0], (key[1] + i) % 2**64) for i in range(steps)]
    m = launch.workspace(
        x, out=out, x=x.pointers[0], **dict(zip(NAMES, net.weights)), w=net.w, limit=limit, labels=net.labels,
        table=np.vstack([table, times[:-1]]).T.astype(np.float32), keys=np.array(keys, np.int32),  # of each step
        features=coefficients.time_embedding(times[:-1], net.features).astype(np.float32),
        blocks=np.array([p.address for p in net.blocks], np.int64) if deep else None, counter=np.zeros(2, np.int32),
        time=(steps * HP if deep else 0, "float32"),  # (steps, HP), silu of the times' layer
        h=(more, "float32"),  # what the blocks add to
        # Operands, rows in whole ROWS, columns in whole CHUNKs, DP and HP; g_op is what the last layer takes
        x_op=(rows * DP, stored), h_op=(more, stored), a_op=(more, stored), g_op=(rows * HP, stored),
        in_op=(HP * DP, stored), out_op=(DP * HP, stored), blocks_op=(2 * depth * HP * HP, stored),
    )  # fmt: skip
    most = max(branches * bands * (HP // tile["TILE"]), bands * (DP // tile["TILE"]))
    constants = dict(D=D, H=H, FEATURES=max(net.features, 1), DP=DP, HP=HP, BRANCHES=branches) | tile
    constants |= dict(NOISY=bool(table[6].any()), BFLOAT16=rounded)
    mlp.loop(sample_pixels, most, x, m, B, steps, depth, phases=_phases(steps, depth), **constants)


def _phases(steps, depth):
    """(phase, (first step, end, first block, end)) of each launch."""
    yield PREPARE, (0, 0, 0, 0)
    for i in range(steps):
        yield ENTER, (i, i + 1, 0, 0)
        for block in range(depth):
            yield FIRST_HALF, (i, i + 1, block, block + 1)
            yield SECOND_HALF, (i, i + 1, block, block + 1)
        yield STEP, (i, i + 1, 0, 0)


@triton.jit(do_not_specialize=["B", "steps", "depth", "patience"])
def sample_pixels(m, B, steps, depth, patience, span, C: tl.constexpr):
    """The trajectory by way of the pixels. m, C: groups of `sample`. B, steps, depth: ints. patience: of the barrier.
    span: of the steps and blocks of a phase, None for all."""
    first_step, end_step, first_block, end_block = (0, steps, 0, depth) if span is None else span
    turn = phase(_prepare, PREPARE, Turn(0, patience), m, (B, steps, depth), C)
    for step in range(first_step, end_step):
        turn = phase(_enter, ENTER, turn, m, (B, depth, step), C)
        if m.blocks is not None:
            for block in range(first_block, end_block):
                turn = phase(_first_half, FIRST_HALF, turn, m, (B, step, block), C)
                turn = phase(_second_half, SECOND_HALF, turn, m, (B, block), C)
        turn = phase(_denoise, STEP, turn, m, (B, step), C)
    if C.PHASE == ALL:
        if gave_up(m.counter, turn):
            _spoil(m, B, C)


@triton.jit
def _prepare(m, B, steps, depth, C):
    """Copies x to out, stores operands, and runs the layer of the times, the same for all examples."""
    RESIDUAL: tl.constexpr = m.blocks is not None
    bands = tl.cdiv(B, C.ROWS)
    # x, and x as an operand
    for tile in range(tl.program_id(0), bands * (C.DP // C.TILE), tl.num_programs(0)):
        row, column = tile_of(tile, C.DP // C.TILE, C.ROWS, C.TILE)
        row, column = row.to(tl.int64)[:, None], column[None, :]
        real = (row < B) & (column < C.D)
        xt = tl.load(m.x + row * C.D + column, mask=real, other=0)
        tl.store(m.out + row * C.D + column, xt, mask=real)
        tl.store(m.x_op + row * C.DP + column, operand(xt, C.BFLOAT16))
    # Weights
    pack(m.in_op, m.w_in, C.H, C.D if RESIDUAL else C.D + 1, C.D, C.HP, C.DP, C.BFLOAT16)
    pack(m.out_op, m.w_out, C.D, C.H, C.H, C.DP, C.HP, C.BFLOAT16)
    if RESIDUAL:
        for matrix in range(2 * depth):
            to, of = m.blocks_op + matrix * (C.HP * C.HP), tl.load(m.blocks + 2 * matrix).to(m.w_in.dtype)
            pack(to, of, C.H, C.H, C.H, C.HP, C.HP, C.BFLOAT16)
        # Times
        for tile in range(tl.program_id(0), tl.cdiv(steps, C.ROWS) * (C.HP // C.TILE), tl.num_programs(0)):
            row, unit = tile_of(tile, C.HP // C.TILE, C.ROWS, C.TILE)
            a, b = m.features + row * C.FEATURES, m.w_time + unit * C.FEATURES
            acc = product(a, 1, row < steps, b, 1, unit < C.H, C.FEATURES, 64, 3, False)
            acc = silu(acc + tl.load(m.b_time + unit, mask=unit < C.H, other=0)[None, :])
            tl.store(m.time + row[:, None] * C.HP + unit[None, :], acc, mask=(row < steps)[:, None])


@triton.jit
def _enter(m, B, depth, step, C):
    """W_in x + b_in, and its ReLU with the time for simple_mlp."""
    bands = tl.cdiv(B, C.ROWS)
    apart = (bands * C.ROWS).to(tl.int64) * C.HP  # one branch from the other
    for tile in range(tl.program_id(0), bands * (C.HP // C.TILE), tl.num_programs(0)):
        row, unit = tile_of(tile, C.HP // C.TILE, C.ROWS, C.TILE)
        row = row.to(tl.int64)
        x, w = m.x_op + row * C.DP, m.in_op + unit * C.DP
        acc = padded_product(x, 1, w, 1, C.DP, C.CHUNK, C.STAGES)
        bias, place = tl.load(m.b_in + unit, mask=unit < C.H, other=0), row[:, None] * C.HP + unit[None, :]
        if m.blocks is not None:
            acc += bias[None, :]
            for branch in tl.static_range(C.BRANCHES):  # both begin alike
                tl.store(m.h + branch * apart + place, acc)
                tl.store(m.h_op + branch * apart + place, operand(acc, C.BFLOAT16))
            if depth == 0:
                tl.store(m.g_op + place, operand(silu(acc), C.BFLOAT16))
        else:
            column = tl.load(m.w_in + unit * (C.D + 1) + C.D, mask=unit < C.H, other=0)
            bias = tl.fma(tl.load(m.table + 8 * step + 7), column, bias)
            tl.store(m.g_op + place, operand(relu(acc + bias[None, :]), C.BFLOAT16))


@triton.jit
def _first_half(m, B, step, block, C):
    """a <- silu(W1 h + b1 + time + class) of every branch."""
    bands = tl.cdiv(B, C.ROWS)
    w1, b1 = m.blocks_op + 2 * block * (C.HP * C.HP), tl.load(m.blocks + 4 * block + 1).to(m.w_in.dtype)
    for tile in range(tl.program_id(0), C.BRANCHES * bands * (C.HP // C.TILE), tl.num_programs(0)):
        row, unit = tile_of(tile, C.HP // C.TILE, C.ROWS, C.TILE)
        row, here = row.to(tl.int64), unit < C.H
        acc = padded_product(m.h_op + row * C.HP, 1, w1 + unit * C.HP, 1, C.HP, C.CHUNK, C.STAGES)
        time = tl.load(m.time + step * C.HP + unit, cache_modifier=".cg")
        bias = tl.load(b1 + unit, mask=here, other=0) + time
        example, branch = row % (bands * C.ROWS), row // (bands * C.ROWS)
        label = tl.load(m.labels + branch * B + example, mask=example < B, other=0)
        place = m.classes + label[:, None] * C.H + unit[None, :]
        acc += bias[None, :] + tl.load(place, mask=here[None, :], other=0)
        tl.store(m.a_op + row[:, None] * C.HP + unit[None, :], operand(silu(acc), C.BFLOAT16))


@triton.jit
def _second_half(m, B, block, C):
    """h <- h + W2 a + b2 of every branch; and g, silu of h guided, since the last layer is linear."""
    bands = tl.cdiv(B, C.ROWS)
    apart = (bands * C.ROWS).to(tl.int64) * C.HP
    w2 = m.blocks_op + (2 * block + 1) * (C.HP * C.HP)
    b2 = tl.load(m.blocks + 4 * block + 3).to(m.w_in.dtype)
    for tile in range(tl.program_id(0), bands * (C.HP // C.TILE), tl.num_programs(0)):
        row, unit = tile_of(tile, C.HP // C.TILE, C.ROWS, C.TILE)
        row = row.to(tl.int64)
        bias, g = tl.load(b2 + unit, mask=unit < C.H, other=0), tl.zeros((C.ROWS, C.TILE), tl.float32)
        for branch in tl.static_range(C.BRANCHES):
            a = m.a_op + branch * apart + row * C.HP
            place = branch * apart + row[:, None] * C.HP + unit[None, :]
            acc = padded_product(a, 1, w2 + unit * C.HP, 1, C.HP, C.CHUNK, C.STAGES)
            acc += bias[None, :] + tl.load(m.h + place, cache_modifier=".cg")
            tl.store(m.h + place, acc)
            tl.store(m.h_op + place, operand(acc, C.BFLOAT16))
            g = silu(acc) if branch == 0 else tl.fma(m.w, silu(acc) - g, g)
        tl.store(m.g_op + row[:, None] * C.HP + unit[None, :], operand(g, C.BFLOAT16))


@triton.jit
def _denoise(m, B, step, C):
    """The last layer, and `ddim` with the noise of each element."""
    for tile in range(tl.program_id(0), tl.cdiv(B, C.ROWS) * (C.DP // C.TILE), tl.num_programs(0)):
        # The net's output
        row, column = tile_of(tile, C.DP // C.TILE, C.ROWS, C.TILE)
        row = row.to(tl.int64)
        g, w = m.g_op + row * C.HP, m.out_op + column * C.HP
        acc = padded_product(g, 1, w, 1, C.HP, C.CHUNK, C.STAGES)
        place, real = row[:, None] * C.D + column[None, :], (row < B)[:, None] & (column < C.D)[None, :]
        xt = tl.load(m.out + place, mask=real, other=0, cache_modifier=".cg")
        e = acc + tl.load(m.b_out + column, mask=column < C.D, other=0)[None, :]
        # The step
        c = m.table + 8 * step
        xs = ddim(xt, e, None, *numbers(c, 6), 0.0, m.limit)
        if C.NOISY:
            sigma = tl.load(c + 6)
            if sigma != 0:
                # The normal of each element, whichever tile it is in: each makes its whole Philox block
                z = four(place // 4, numbers(m.keys + 4 * step, 4))
                xs = tl.fma(sigma, of_four(place, *z), xs)
        tl.store(m.out + place, xs, mask=real)
        xs = tl.where((column < C.D)[None, :], xs, 0.0)
        tl.store(m.x_op + row[:, None] * C.DP + column[None, :], operand(xs, C.BFLOAT16))


@triton.jit
def _spoil(m, B, C):
    """Writes NaN everywhere."""
    size = B.to(tl.int64) * C.D
    for first in range(tl.program_id(0) * 1024, size, tl.num_programs(0) * 1024):
        e = first + tl.arange(0, 1024)
        tl.store(m.out + e, tl.full((1024,), float("nan"), tl.float32), mask=e < size)
