"""A whole training loop of simple_mlp in one launch: all that is random from (seed, step).

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
"""
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu import arrays, barrier, device, launch
from kernels.triton_gpu.barrier import ALL, Turn, gave_up, wait
from kernels.triton_gpu.matmul import operand, pack, padded_product, tile_of
from kernels.triton_gpu.mlp import constants, operand_dtype, padded, relu, simple, tiles
from kernels.triton_gpu.mlp_descend import Kept, Layers, descend, descend_vectors, loaded, own, padded_rows, store
from kernels.triton_gpu.philox import four, joined, of_four, words_of
from kernels.triton_gpu.reduce import tree_sum

PER_STEP = tl.constexpr(coefficients.PER_STEP)
# ROWS, UNITS, PIXELS: a product's tile, CHUNK, STAGES: how many terms at a time and how many loads ahead. OUT, IN:
# the tile of a gradient, BATCH examples at a time.
TILES = dict(ROWS=16, UNITS=32, PIXELS=32, OUT=64, IN=64, CHUNK=64, BATCH=128, STAGES=4)
# The phases: draws and operands, the first x_t, the hidden layer, output and loss, back to the hidden layer and the
# next x_t, weights
PREPARE, NOISE, HIDDEN, OUTPUT, BACK, DESCEND = map(tl.constexpr, range(1, 7))

# data: (N, D). seed: its two words. adam: (steps, 8), alphas: (T + 1, 2), of `coefficients`. keep, take: of the
# average. scale: of the loss's gradient.
Given = namedtuple("Given", "data seed adam alphas keep take scale")
# counter: of the barrier. index: (batch,). t: (2, batch). z: (batch, D). partial: one for each tile of the output.
# Operands, rows in whole BATCHes, columns in whole CHUNKs, DP and HP, zeros around what is there: of the examples,
# and the weights. t and x_op are of this step and of the next.
Work = namedtuple("Work", "counter index t z partial x_op a_op d_op dh_op w1_op w2_op")
Span = namedtuple("Span", "first end")  # which steps a launch does, where it is one phase


def train(params, data, state, steps, done, batch, adam_table, average, seed, abar, rounded):
    """Runs steps. params, state: of `fused.mlp_train`. data: `Arrays`, (N, D). steps, done, batch: ints. adam_table:
    (steps, 8). average: keep, take. seed: int. abar: (T + 1,). rounded: to bfloat16? Returns {part: new arrays} and
    the losses."""
    N, D = data.shape
    nets = {"p": simple(params, data)}
    H = nets["p"].width
    if state is not None:
        nets |= {part: simple(state[part], data, f"state[{part!r}]", H) for part in ("m", "v", "average")}
    alphas, T = coefficients.q_sample(np.arange(np.size(abar)), abar, (np.size(abar),)), np.size(abar) - 1
    for n in (N, T):
        if not 1 <= n < 2**31:
            expected = "n: expected 1 <= n <= 2**32" if n < 1 else "data: expected fewer than 2**31 examples"
            raise ValueError(f"{expected}, got {n}")
    tile, DP, HP, bands, rows = _sizes(D, H, batch)
    made, kept = _copies(nets, data, D, H)
    losses = data.kind.empty((steps,), "float64")
    # Scratch memory
    wide, kind = max(DP, HP), operand_dtype(rounded)
    filled = [adam_table.astype(np.float32), alphas.T.astype(np.float32)]
    filled += [np.array(launch.key_words(seed, 0)[:2], np.int32), np.zeros(2, np.int32)]
    empty = [(batch, "int32"), (2 * batch, "int32"), (batch * D, "float32")]
    empty += [(bands * (DP // tile["PIXELS"]), "float32")]
    empty += [(n, kind) for n in (2 * rows * wide, *[rows * wide] * 3, HP * DP, DP * HP)]
    adam_at, alphas_at, seed_at, *memory = launch.workspace(data, filled, empty)
    # Launches: one, or in the interpreter one for each phase
    owned = 2 * launch.programs(D, tile["OUT"]) * launch.programs(H, tile["IN"])
    most = max(bands * (HP // tile["UNITS"]), bands * (DP // tile["PIXELS"]), owned)
    programs = min(most, launch.processors(data))
    stationary = owned <= programs and not device.INTERPRETED
    losses_at = arrays.pointer_to(losses, data.kind)
    given = Given(data.pointers[0], seed_at, adam_at, alphas_at, *average, 2.0 / (batch * D))
    groups = constants("Size", D=D, H=H, DP=DP, HP=HP, WIDE=wide, TILES=owned), constants("Tiles", **tile)
    flags = dict(STATIONARY=stationary, BFLOAT16=rounded)
    for phase, span in _phases(steps) if device.INTERPRETED else [(ALL, None)]:
        launch.run(
            training_loop, programs, data, kept, losses_at, given, Work(*memory), batch, N, T, done + 1, steps,
            barrier.PATIENCE, span, *groups, constants("Flags", PHASE=phase.value, **flags), warps=8,
            together=True,
        )  # fmt: skip
    if not device.INTERPRETED and device.read_back(memory[0].address + 4, "int32", 1)[0]:
        raise RuntimeError("mlp_train: a program waited a second for another in vain; the device was busy, try again")
    return made, losses


def _sizes(D, H, batch):
    """The tiles, DP, HP, bands, and examples in whole BATCHes. Raises ValueError where 32 bits count no operand."""
    tile = tiles(TILES, max(D, H))
    DP, HP = padded(D, tile["CHUNK"]), padded(H, tile["CHUNK"])
    bands, rows = launch.programs(batch, tile["ROWS"]), launch.programs(batch, tile["BATCH"]) * tile["BATCH"]
    if (elements := max(2 * rows * max(DP, HP), DP * HP)) >= 2**31:
        raise ValueError(f"batch, params: expected operands of fewer than 2**31 elements, got {elements}")
    return tile, DP, HP, bands, rows


def _copies(nets, data, D, H):
    """New arrays of what is kept: {part: {name: array}}, and `Kept`, pointers to them.
    Without a state moments are 0, the average params."""
    shapes, made = Layers((H, D + 1), (H,), (D, H), (D,)), {}
    for part in Kept._fields:
        made[part] = {name: data.kind.empty(shape, "float32") for name, shape in shapes._asdict().items()}
    kept = Kept(*(Layers(*(arrays.pointer_to(a, data.kind) for a in made[part].values())) for part in Kept._fields))
    for part, to in kept._asdict().items():
        source = nets.get(part, nets["p"] if part == "average" else None)
        for i, shape in enumerate(shapes):
            launch.fill(to[i], source and source[1 + i], shape, data)
    return made, kept


def _phases(steps):
    """(phase, its span) of each launch."""
    yield PREPARE, Span(0, 0)
    yield NOISE, Span(0, 0)
    for i in range(steps):
        for phase in (HIDDEN, OUTPUT, BACK, DESCEND):
            yield phase, Span(i, i + 1)


@triton.jit(do_not_specialize=["batch", "N", "T", "begun", "steps", "patience"])
def training_loop(
    kept, losses, given, work, batch, N, T, begun, steps, patience, span,
    size: tl.constexpr, tiles: tl.constexpr, flags: tl.constexpr,
):  # fmt: skip
    """Steps of the tutorial loop.

    kept: `Kept` of `Layers`, changed. losses: (steps,). given: `Given`. work: `Work`. batch, N, T, steps: ints.
    begun: the number of the first of all steps. patience: of the barrier. span: `Span`, None
    for all. size: D, H, DP, HP, the larger of those, tiles of weights. tiles: TILES. flags: whether a program has the
    same tile of weights in every step, in its registers, and whether operands are rounded, and the phase or ALL.
    """
    PHASE: tl.constexpr = flags.PHASE
    last = tl.num_programs(0) - 1 - tl.program_id(0)  # the last programs have less to do, and do the rest
    begun, seed = begun.to(tl.int64), (tl.load(given.seed), tl.load(given.seed + 1))
    first_step, end_step = (0, steps) if span is None else span
    # The first step's examples, times and noise
    if PHASE == ALL or PHASE == PREPARE:
        draw(work, 0, begun, batch, N, T, seed, tl.program_id(0))
        prepare(kept.p, work, batch, size, tiles, flags)
    turn = wait(work.counter, Turn(0, patience), PHASE)
    if PHASE == ALL or PHASE == NOISE:
        add_noise(given, work, 0, begun, batch, seed, tl.program_id(0), tl.num_programs(0), size, tiles, flags)
    turn = wait(work.counter, turn, PHASE)
    if flags.STATIONARY:
        mine = own(tl.program_id(0), kept, work, 0, batch, size, tiles)
        state = loaded(mine.kept, mine.at, mine.real & (tl.program_id(0) < size.TILES))
    for step in range(first_step, end_step):
        # Forward; meanwhile the next step's examples and times
        if PHASE == ALL or PHASE == HIDDEN:
            hidden(kept.p, work, step, batch, size, tiles, flags)
            if step + 1 < steps:
                draw(work, (step + 1) % 2, begun + step + 1, batch, N, T, seed, last)
        turn = wait(work.counter, turn, PHASE)
        if PHASE == ALL or PHASE == OUTPUT:
            output(kept.p, given, work, batch, size, tiles, flags)
        turn = wait(work.counter, turn, PHASE)
        # Backward; meanwhile the loss and the next step's x_t
        if PHASE == ALL or PHASE == BACK:
            back(work, batch, size, tiles, flags)
            meanwhile(losses, given, work, step, begun, batch, steps, seed, size, tiles, flags)
        turn = wait(work.counter, turn, PHASE)
        # Gradients, AdamW and the average
        if PHASE == ALL or PHASE == DESCEND:
            if flags.STATIONARY:
                state = descend(state, kept, given, work, step, batch, size, tiles, flags)
            else:
                descend(None, kept, given, work, step, batch, size, tiles, flags)
            descend_vectors(kept, given, work, step, batch, size, tiles)
        turn = wait(work.counter, turn, PHASE)
        if PHASE == ALL:
            if gave_up(work.counter, turn):
                tl.store(losses + step, float("nan"))
    if flags.STATIONARY:
        if tl.program_id(0) < size.TILES:
            store(mine.kept, mine.at, mine.real, state)


@triton.jit
def meanwhile(losses, given, work, step, begun, batch, steps, seed, size, tiles, flags):
    """The loss and the next step's x_t, by the programs without a tile of the hidden layer, or by all. Arguments
    as in `training_loop`.
    seed: as in `key_of`."""
    busy, program = (batch + tiles.ROWS - 1) // tiles.ROWS * (size.HP // tiles.UNITS), tl.program_id(0)
    busy = tl.where(busy < tl.num_programs(0), busy, 0)
    if program == busy:
        add_losses(losses + step, work, batch, size, tiles)
    if (step + 1 < steps) & (program >= busy):
        last, rest = tl.num_programs(0) - 1 - program, tl.num_programs(0) - busy
        add_noise(given, work, (step + 1) % 2, begun + step + 1, batch, seed, last, rest, size, tiles, flags)


@triton.jit
def key_of(seed, stream):
    """The four words of a key. seed: its two words. stream: int64."""
    low, high = (stream & 0xFFFFFFFF).to(tl.uint32), (stream >> 32).to(tl.uint32)
    return seed[0], seed[1], low.to(tl.int32, bitcast=True), high.to(tl.int32, bitcast=True)


@triton.jit
def below(element, n, seed, stream):
    """floor(word n / 2^32) of each element. element: int64. n: int up to 2^32. seed, stream: of the words."""
    w0, w1, w2, w3 = words_of(element // 4, key_of(seed, stream))
    return (of_four(element, w0, w1, w2, w3).to(tl.uint64) * n.to(tl.uint64) >> 32).to(tl.int64)


@triton.jit
def draw(work, which, step, batch, N, T, seed, program):
    """Examples and times of a step, of its streams 0 and 1. which: of the two places for times. step: number of all.
    program: this one's turn. The rest as in `training_loop`.
    seed: as in `key_of`."""
    t = work.t + which * batch
    for first in range(program * 128, batch, tl.num_programs(0) * 128):
        e = first + tl.arange(0, 128)
        tl.store(work.index + e, below(e.to(tl.int64), N, seed, step * PER_STEP).to(tl.int32), mask=e < batch)
        tl.store(t + e, (1 + below(e.to(tl.int64), T, seed, step * PER_STEP + 1)).to(tl.int32), mask=e < batch)


@triton.jit
def add_noise(given, work, which, step, batch, seed, program, programs, size, tiles, flags):
    """x_t of a step, as an operand, and its noise, of stream 3. which, step: as in `draw`. program, programs: who
    does it. The rest as in `training_loop`.
    seed: as in `key_of`."""
    x, t = work.x_op + which * padded_rows(batch, tiles) * size.WIDE, work.t + which * batch
    for first in range(program * 2048, batch * size.D, programs * 2048):
        z0, z1, z2, z3 = four((first // 4 + tl.arange(0, 512)).to(tl.int64), key_of(seed, step * PER_STEP + 3))
        e, eps = first + tl.arange(0, 2048), joined(z0, z1, z2, z3, 2048)
        row, real = e // size.D, e < batch * size.D
        column = e - row * size.D
        which_row = tl.load(work.index + row, mask=real, other=0, cache_modifier=".cg")
        time = tl.load(t + row, mask=real, other=0, cache_modifier=".cg")
        c0 = tl.load(given.alphas + 2 * time, mask=real, other=0)
        c1 = tl.load(given.alphas + 2 * time + 1, mask=real, other=0)
        x0 = tl.load(given.data + which_row.to(tl.int64) * size.D + column, mask=real, other=0)
        tl.store(work.z + e, eps, mask=real)
        tl.store(x + row * size.WIDE + column, operand(tl.fma(c0, x0, c1 * eps), flags.BFLOAT16), mask=real)


@triton.jit
def prepare(p, work, batch, size, tiles, flags):
    """Stores the weights as operands, and zeros for the rest. p: `Layers`. The rest as in `training_loop`."""
    rows = padded_rows(batch, tiles)
    pack(work.w1_op, p.w1, size.H, size.D + 1, size.D, size.HP, size.DP, flags.BFLOAT16)
    pack(work.w2_op, p.w2, size.D, size.H, size.H, size.DP, size.HP, flags.BFLOAT16)
    pack(work.x_op, p.w1, 0, 0, 0, 2 * rows, size.WIDE, flags.BFLOAT16)
    pack(work.a_op, p.w1, 0, 0, 0, rows, size.WIDE, flags.BFLOAT16)
    pack(work.d_op, p.w1, 0, 0, 0, rows, size.WIDE, flags.BFLOAT16)
    pack(work.dh_op, p.w1, 0, 0, 0, rows, size.WIDE, flags.BFLOAT16)


@triton.jit
def hidden(p, work, step, batch, size, tiles, flags):
    """a <- relu(W1 (x_t, t) + b1). p: `Layers`. step: number. The rest as in `training_loop`."""
    units: tl.constexpr = size.HP // tiles.UNITS
    now, x_now = work.t + step % 2 * batch, work.x_op + step % 2 * padded_rows(batch, tiles) * size.WIDE
    for tile in range(tl.program_id(0), (batch + tiles.ROWS - 1) // tiles.ROWS * units, tl.num_programs(0)):
        row, unit = tile_of(tile, units, tiles.ROWS, tiles.UNITS)
        time = tl.load(now + row, mask=row < batch, other=0, cache_modifier=".cg").to(tl.float32)
        column = tl.load(p.w1 + unit * (size.D + 1) + size.D, mask=unit < size.H, other=0, cache_modifier=".cg")
        bias = tl.load(p.b1 + unit, mask=unit < size.H, other=0, cache_modifier=".cg")
        x, w = x_now + row * size.WIDE, work.w1_op + unit * size.DP
        acc = padded_product(x, 1, w, 1, size.DP, tiles.CHUNK, tiles.STAGES)
        acc = tl.fma(time[:, None], column[None, :], acc) + bias[None, :]
        place = work.a_op + row[:, None] * size.WIDE + unit[None, :]
        tl.store(place, operand(relu(acc), flags.BFLOAT16), mask=(row < batch)[:, None])


@triton.jit
def output(p, given, work, batch, size, tiles, flags):
    """d <- the loss's gradient by eps_hat = W2 a + b2, and the partial sums of its squares. p: `Layers`.
    The rest as in `training_loop`."""
    pixels: tl.constexpr = size.DP // tiles.PIXELS
    for tile in range(tl.program_id(0), (batch + tiles.ROWS - 1) // tiles.ROWS * pixels, tl.num_programs(0)):
        row, column = tile_of(tile, pixels, tiles.ROWS, tiles.PIXELS)
        real = (row < batch)[:, None] & (column < size.D)[None, :]
        bias = tl.load(p.b2 + column, mask=column < size.D, other=0, cache_modifier=".cg")
        eps = tl.load(work.z + row[:, None] * size.D + column[None, :], mask=real, other=0, cache_modifier=".cg")
        a, w = work.a_op + row * size.WIDE, work.w2_op + column * size.HP
        acc = padded_product(a, 1, w, 1, size.HP, tiles.CHUNK, tiles.STAGES)
        r = tl.where(real, acc + bias[None, :] - eps, 0.0)
        tl.store(work.d_op + row[:, None] * size.WIDE + column[None, :], operand(given.scale * r, flags.BFLOAT16))
        tl.store(work.partial + tile, tl.sum(tl.sum(r * r, 1), 0))


@triton.jit
def back(work, batch, size, tiles, flags):
    """dh <- W2^T d where a > 0. Arguments as in `training_loop`."""
    units: tl.constexpr = size.HP // tiles.UNITS
    for tile in range(tl.program_id(0), (batch + tiles.ROWS - 1) // tiles.ROWS * units, tl.num_programs(0)):
        row, unit = tile_of(tile, units, tiles.ROWS, tiles.UNITS)
        place = row[:, None] * size.WIDE + unit[None, :]
        a, d = tl.load(work.a_op + place, cache_modifier=".cg"), work.d_op + row * size.WIDE
        acc = padded_product(d, 1, work.w2_op + unit, size.HP, size.DP, tiles.CHUNK, tiles.STAGES)
        tl.store(work.dh_op + place, operand(tl.where(a > 0, acc, 0.0), flags.BFLOAT16))


@triton.jit
def add_losses(loss, work, batch, size, tiles):
    """A step's loss from its partial sums. loss: pointer. The rest as in `training_loop`."""
    total, count = tl.zeros((128,), tl.float64), (batch + tiles.ROWS - 1) // tiles.ROWS * (size.DP // tiles.PIXELS)
    for first in range(0, count, 128):
        e = first + tl.arange(0, 128)
        total += tl.load(work.partial + e, mask=e < count, other=0, cache_modifier=".cg").to(tl.float64)
    tl.store(loss, tree_sum(total, 128) / (batch.to(tl.float64) * size.D))
