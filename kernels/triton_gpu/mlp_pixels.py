"""A whole trajectory of either net in one launch, a step after the other by way of the pixels: with noise, clipping,
guidance.

Papers
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [CFG]   Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
"""
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels import trajectory
from kernels.triton_gpu import barrier, device, launch
from kernels.triton_gpu.barrier import ALL, Turn, gave_up, wait
from kernels.triton_gpu.diffusion import ddim
from kernels.triton_gpu.matmul import operand, pack, padded_product, product, tile_of
from kernels.triton_gpu.mlp import constants, operand_dtype, padded, relu, silu, tiles
from kernels.triton_gpu.philox import four, of_four

# ROWS, TILE, CHUNK, STAGES: a product's tile, how many terms at a time and how many loads ahead.
TILES = dict(ROWS=16, TILE=32, CHUNK=64, STAGES=4)
WARPS = 4
# The phases: operands, into the hidden layer, a block's two halves, the pixels and the step
PREPARE, ENTER, FIRST_HALF, SECOND_HALF, STEP = map(tl.constexpr, range(1, 6))

# blocks: addresses of w1, b1, w2, b2 of each. w_time to blocks are None without a residual net.
Weights = namedtuple("Weights", "w_in b_in w_out b_out w_time b_time classes blocks")
# table: (steps, 8), of `trajectory.ddim_trajectory`, and t. keys: (steps, 4) of the noise. labels: (BRANCHES, B).
# features: (steps, FEATURES), of the times. w: (steps, B), of the guidance. limit: of x0_hat, or None.
Given = namedtuple("Given", "table keys labels features w limit")
# counter: of the barrier. time: (steps, HP), silu of the times' layer. h: what the blocks add to. Operands, rows in
# whole ROWS and columns in whole CHUNKs, DP and HP: x_op; h_op and a_op, a branch after the other; g_op, what the
# last layer takes; the weights.
Work = namedtuple("Work", "counter time h x_op h_op a_op g_op in_op out_op blocks_op")
# Which steps and which blocks a launch does, where it is one phase
Span = namedtuple("Span", "step end_step block end_block")


def sample(out, x, net, times, table, key, limit, rounded):
    """Runs a trajectory. out: pointer. x: `Arrays`. net: `Net`. times: (n + 1,) ints. table: of
    `trajectory.ddim_trajectory`. key: seed and stream. limit: of x0_hat, or None. rounded: to bfloat16?"""
    (B, D), steps, noisy, depth = x.shape, len(times) - 1, bool(table[6].any()), len(net.blocks) // 4
    branches, deep, tile = len(net.labels), net.features > 0, tiles(TILES, max(D, net.width))
    DP, HP = padded(D, tile["CHUNK"]), padded(net.width, tile["CHUNK"])
    if 2 * depth * HP * HP >= 2**31 or HP * DP >= 2**31:
        raise ValueError(
            f"params: expected fewer than 2**31 weights in all blocks, got {2 * depth * HP * HP} with widths in whole "
            f"{tile['CHUNK']}s; sample step by step"
        )
    # Scratch memory
    bands = launch.programs(B, tile["ROWS"])
    rows, more, kind = bands * tile["ROWS"], branches * bands * tile["ROWS"] * HP if deep else 0, operand_dtype(rounded)
    keys = np.array([launch.key_words(key[0], (key[1] + i) % 2**64) for i in range(steps)], np.int32)
    features = trajectory.time_embedding(times[:-1], net.features).astype(np.float32)
    filled = [np.vstack([table, times[:-1]]).T.astype(np.float32), keys, net.labels, features, net.w.astype(np.float32)]
    filled += [np.array([p.address for p in net.blocks], np.int64), np.zeros(2, np.int32)]
    empty = [(steps * HP if deep else 0, "float32"), (more, "float32")]
    empty += [(n, kind) for n in (rows * DP, more, more, rows * HP, HP * DP, DP * HP, 2 * depth * HP * HP)]
    table, keys, labels, features, w, blocks, counter, *memory = launch.workspace(x, filled, empty)
    # Launches: one, or in the interpreter one for each phase
    weights = Weights(*net[1:8], blocks if deep else None)
    most = max(branches * bands * (HP // tile["TILE"]), bands * (DP // tile["TILE"]))
    size = constants("Size", D=D, H=net.width, FEATURES=max(net.features, 1), DP=DP, HP=HP)
    tile, flags = constants("Tiles", **tile), constants("Flags", BRANCHES=branches, NOISY=noisy, BFLOAT16=rounded)
    given, work = Given(table, keys, labels, features, w, limit), Work(counter, *memory)
    for phase, span in _phases(steps, depth) if device.INTERPRETED else [(ALL, None)]:
        launch.run(
            sample_pixels, min(most, launch.processors(x)), x, out, x.pointers[0], weights, given, work, B, steps,
            depth, barrier.PATIENCE, span, size, tile, flags, PHASE=phase.value, warps=WARPS,
            together=True,
        )  # fmt: skip


def _phases(steps, depth):
    """(phase, its span) of each launch."""
    yield PREPARE, Span(0, 0, 0, 0)
    for i in range(steps):
        yield ENTER, Span(i, i + 1, 0, 0)
        for block in range(depth):
            yield FIRST_HALF, Span(i, i + 1, block, block + 1)
            yield SECOND_HALF, Span(i, i + 1, block, block + 1)
        yield STEP, Span(i, i + 1, 0, 0)


@triton.jit(do_not_specialize=["B", "steps", "depth", "patience"])
def sample_pixels(
    out, x, net, given, work, B, steps, depth, patience, span,
    size: tl.constexpr, tiles: tl.constexpr, flags: tl.constexpr, PHASE: tl.constexpr,
):  # fmt: skip
    """The trajectory by way of the pixels.

    out, x: (B, D). net: `Weights`. given: `Given`. work: `Work`. B, steps, depth: ints. patience:
    of the barrier. span: `Span`, None for all. size: D, H, FEATURES, DP, HP. tiles: TILES. flags: BRANCHES, whether
    there is noise, whether operands are rounded to bfloat16. PHASE: or ALL.
    """
    first_step, end_step, first_block, end_block = (0, steps, 0, depth) if span is None else span
    if PHASE == ALL or PHASE == PREPARE:
        prepare(out, x, net, given, work, B, steps, depth, size, tiles, flags)
    turn = wait(work.counter, Turn(0, patience), PHASE)
    for step in range(first_step, end_step):
        if PHASE == ALL or PHASE == ENTER:
            enter(net, given, work, B, depth, step, size, tiles, flags)
        turn = wait(work.counter, turn, PHASE)
        if net.blocks is not None:
            for block in range(first_block, end_block):
                if PHASE == ALL or PHASE == FIRST_HALF:
                    first_half(net, given, work, B, step, block, size, tiles, flags)
                turn = wait(work.counter, turn, PHASE)
                if PHASE == ALL or PHASE == SECOND_HALF:
                    second_half(net, given, work, B, step, block, size, tiles, flags)
                turn = wait(work.counter, turn, PHASE)
        if PHASE == ALL or PHASE == STEP:
            denoise(out, net, given, work, B, step, size, tiles, flags)
        turn = wait(work.counter, turn, PHASE)
    if PHASE == ALL:
        if gave_up(work.counter, turn):
            spoil(out, B, size, tiles)


@triton.jit
def prepare(out, x, net, given, work, B, steps, depth, size, tiles, flags):
    """Copies x to out, stores operands, and runs the layer of the times, the same for all examples.
    Arguments as in `sample_pixels`."""
    pixels: tl.constexpr = size.DP // tiles.TILE
    units: tl.constexpr = size.HP // tiles.TILE
    RESIDUAL: tl.constexpr = net.blocks is not None
    bands = (B + tiles.ROWS - 1) // tiles.ROWS
    # x, and x as an operand
    for tile in range(tl.program_id(0), bands * pixels, tl.num_programs(0)):
        row, column = tile_of(tile, pixels, tiles.ROWS, tiles.TILE)
        row, column = row.to(tl.int64)[:, None], column[None, :]
        real = (row < B) & (column < size.D)
        xt = tl.load(x + row * size.D + column, mask=real, other=0)
        tl.store(out + row * size.D + column, xt, mask=real)
        tl.store(work.x_op + row * size.DP + column, operand(xt, flags.BFLOAT16))
    # Weights
    pack(work.in_op, net.w_in, size.H, size.D if RESIDUAL else size.D + 1, size.D, size.HP, size.DP, flags.BFLOAT16)
    pack(work.out_op, net.w_out, size.D, size.H, size.H, size.DP, size.HP, flags.BFLOAT16)
    if RESIDUAL:
        for matrix in range(2 * depth):
            to, of = work.blocks_op + matrix * (size.HP * size.HP), tl.load(net.blocks + 2 * matrix).to(net.w_in.dtype)
            pack(to, of, size.H, size.H, size.H, size.HP, size.HP, flags.BFLOAT16)
        # Times
        for tile in range(tl.program_id(0), (steps + tiles.ROWS - 1) // tiles.ROWS * units, tl.num_programs(0)):
            row, unit = tile_of(tile, units, tiles.ROWS, tiles.TILE)
            a, b = given.features + row * size.FEATURES, net.w_time + unit * size.FEATURES
            acc = product(a, 1, row < steps, b, 1, unit < size.H, size.FEATURES, 64, 3, False)
            acc = silu(acc + tl.load(net.b_time + unit, mask=unit < size.H, other=0)[None, :])
            tl.store(work.time + row[:, None] * size.HP + unit[None, :], acc, mask=(row < steps)[:, None])


@triton.jit
def enter(net, given, work, B, depth, step, size, tiles, flags):
    """W_in x + b_in, and its ReLU with the time for simple_mlp. step: number. The rest as in `sample_pixels`."""
    units: tl.constexpr = size.HP // tiles.TILE
    bands = (B + tiles.ROWS - 1) // tiles.ROWS
    apart = (bands * tiles.ROWS).to(tl.int64) * size.HP  # one branch from the other
    for tile in range(tl.program_id(0), bands * units, tl.num_programs(0)):
        row, unit = tile_of(tile, units, tiles.ROWS, tiles.TILE)
        row = row.to(tl.int64)
        x, w = work.x_op + row * size.DP, work.in_op + unit * size.DP
        acc = padded_product(x, 1, w, 1, size.DP, tiles.CHUNK, tiles.STAGES)
        bias, place = tl.load(net.b_in + unit, mask=unit < size.H, other=0), row[:, None] * size.HP + unit[None, :]
        if net.blocks is not None:
            acc += bias[None, :]
            for branch in tl.static_range(flags.BRANCHES):  # both begin alike
                tl.store(work.h + branch * apart + place, acc)
                tl.store(work.h_op + branch * apart + place, operand(acc, flags.BFLOAT16))
            if depth == 0:
                tl.store(work.g_op + place, operand(silu(acc), flags.BFLOAT16))
        else:
            column = tl.load(net.w_in + unit * (size.D + 1) + size.D, mask=unit < size.H, other=0)
            bias = tl.fma(tl.load(given.table + 8 * step + 7), column, bias)
            tl.store(work.g_op + place, operand(relu(acc + bias[None, :]), flags.BFLOAT16))


@triton.jit
def first_half(net, given, work, B, step, block, size, tiles, flags):
    """a <- silu(W1 h + b1 + time + class) of every branch. step, block: numbers. The rest as in `sample_pixels`."""
    units: tl.constexpr = size.HP // tiles.TILE
    bands = (B + tiles.ROWS - 1) // tiles.ROWS
    w1, b1 = work.blocks_op + 2 * block * (size.HP * size.HP), tl.load(net.blocks + 4 * block + 1).to(net.w_in.dtype)
    for tile in range(tl.program_id(0), flags.BRANCHES * bands * units, tl.num_programs(0)):
        row, unit = tile_of(tile, units, tiles.ROWS, tiles.TILE)
        row, here = row.to(tl.int64), unit < size.H
        acc = padded_product(work.h_op + row * size.HP, 1, w1 + unit * size.HP, 1, size.HP, tiles.CHUNK, tiles.STAGES)
        time = tl.load(work.time + step * size.HP + unit, cache_modifier=".cg")
        bias = tl.load(b1 + unit, mask=here, other=0) + time
        example, branch = row % (bands * tiles.ROWS), row // (bands * tiles.ROWS)
        label = tl.load(given.labels + branch * B + example, mask=example < B, other=0)
        place = net.classes + label[:, None] * size.H + unit[None, :]
        acc += bias[None, :] + tl.load(place, mask=here[None, :], other=0)
        tl.store(work.a_op + row[:, None] * size.HP + unit[None, :], operand(silu(acc), flags.BFLOAT16))


@triton.jit
def second_half(net, given, work, B, step, block, size, tiles, flags):
    """h <- h + W2 a + b2 of every branch; and g, silu of h guided, since the last layer is linear.
    Arguments as in `sample_pixels` and `first_half`."""
    units: tl.constexpr = size.HP // tiles.TILE
    bands = (B + tiles.ROWS - 1) // tiles.ROWS
    apart = (bands * tiles.ROWS).to(tl.int64) * size.HP
    w2 = work.blocks_op + (2 * block + 1) * (size.HP * size.HP)
    b2 = tl.load(net.blocks + 4 * block + 3).to(net.w_in.dtype)
    for tile in range(tl.program_id(0), bands * units, tl.num_programs(0)):
        row, unit = tile_of(tile, units, tiles.ROWS, tiles.TILE)
        row = row.to(tl.int64)
        bias, g = tl.load(b2 + unit, mask=unit < size.H, other=0), tl.zeros((tiles.ROWS, tiles.TILE), tl.float32)
        place_of_w = step * (row * 0 + B) + row  # in 64 bits, as row is
        weight = tl.load(given.w + place_of_w, mask=row < B, other=0)[:, None]
        for branch in tl.static_range(flags.BRANCHES):
            a = work.a_op + branch * apart + row * size.HP
            place = branch * apart + row[:, None] * size.HP + unit[None, :]
            acc = padded_product(a, 1, w2 + unit * size.HP, 1, size.HP, tiles.CHUNK, tiles.STAGES)
            acc += bias[None, :] + tl.load(work.h + place, cache_modifier=".cg")
            tl.store(work.h + place, acc)
            tl.store(work.h_op + place, operand(acc, flags.BFLOAT16))
            g = silu(acc) if branch == 0 else tl.fma(weight, silu(acc) - g, g)
        tl.store(work.g_op + row[:, None] * size.HP + unit[None, :], operand(g, flags.BFLOAT16))


@triton.jit
def denoise(out, net, given, work, B, step, size, tiles, flags):
    """The last layer, and [DDIM] eq. 12 with the noise of each element. step: number.
    The rest as in `sample_pixels`."""
    pixels: tl.constexpr = size.DP // tiles.TILE
    c = given.table + 8 * step
    for tile in range(tl.program_id(0), (B + tiles.ROWS - 1) // tiles.ROWS * pixels, tl.num_programs(0)):
        # The net's output
        row, column = tile_of(tile, pixels, tiles.ROWS, tiles.TILE)
        row = row.to(tl.int64)
        g, w = work.g_op + row * size.HP, work.out_op + column * size.HP
        acc = padded_product(g, 1, w, 1, size.HP, tiles.CHUNK, tiles.STAGES)
        place, real = row[:, None] * size.D + column[None, :], (row < B)[:, None] & (column < size.D)[None, :]
        xt = tl.load(out + place, mask=real, other=0, cache_modifier=".cg")
        e = acc + tl.load(net.b_out + column, mask=column < size.D, other=0)[None, :]
        # The step
        c0, c1, c2 = tl.load(c), tl.load(c + 1), tl.load(c + 2)
        c3, c4, c5 = tl.load(c + 3), tl.load(c + 4), tl.load(c + 5)
        xs = ddim(xt, e, None, c0, c1, c2, c3, c4, c5, 0.0, given.limit)
        if flags.NOISY:
            sigma = tl.load(c + 6)
            if sigma != 0:
                key = given.keys + 4 * step
                words = (tl.load(key), tl.load(key + 1), tl.load(key + 2), tl.load(key + 3))
                xs = tl.fma(sigma, normals_at(place, words), xs)
        tl.store(out + place, xs, mask=real)
        xs = tl.where((column < size.D)[None, :], xs, 0.0)
        tl.store(work.x_op + row[:, None] * size.DP + column[None, :], operand(xs, flags.BFLOAT16))


@triton.jit
def normals_at(element, key):
    """The normal of each element, whichever tile it is in: each makes its whole block. element: int64.
    key: as in `words_of`."""
    z0, z1, z2, z3 = four(element // 4, key)
    return of_four(element, z0, z1, z2, z3)


@triton.jit
def spoil(out, B, size, tiles):
    """Writes NaN everywhere. Arguments as in `sample_pixels`."""
    pixels: tl.constexpr = size.DP // tiles.TILE
    for tile in range(tl.program_id(0), (B + tiles.ROWS - 1) // tiles.ROWS * pixels, tl.num_programs(0)):
        row, column = tile_of(tile, pixels, tiles.ROWS, tiles.TILE)
        row, column = row.to(tl.int64)[:, None], column[None, :]
        nan = tl.full((tiles.ROWS, tiles.TILE), float("nan"), tl.float32)
        tl.store(out + row * size.D + column, nan, mask=(row < B) & (column < size.D))
