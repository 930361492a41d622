"""A whole training loop of simple_mlp in one launch: all that is random from (seed, step)."""
import math

import numpy as np
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu import arrays, device, launch, mlp
from kernels.triton_gpu.barrier import ALL, Turn, gave_up, phase, wait
from kernels.triton_gpu.matmul import operand, pack, padded_product, tile_of
from kernels.triton_gpu.mlp_descend import Layers, descend, descend_vectors, own, padded_rows
from kernels.triton_gpu.philox import four, joined, key_words, of_four, words_of
from kernels.triton_gpu.reduce import tree_sum
from kernels.triton_gpu.rowwise import loaded, store

PER_STEP = tl.constexpr(coefficients.PER_STEP)
# ROWS, TILE: a product's tile, CHUNK, STAGES: how many terms at a time and how many loads ahead. OUT, IN: the tile of
# a gradient, BATCH examples at a time.
TILES = dict(ROWS=16, TILE=32, OUT=64, IN=64, CHUNK=64, BATCH=128, STAGES=4, WARPS=8)
# The phases: draws and operands, the first x_t, the hidden layer, output and loss, back to the hidden layer and the
# next x_t, weights
PREPARE, NOISE, HIDDEN, OUTPUT, BACK, DESCEND = map(tl.constexpr, range(1, 7))


def train(params, data, state, steps, done, batch, adam_table, average, seed, abar, rounded):
    """Runs steps. params, state: of `fused.mlp_train`. data: `Arrays`, (N, D). steps, done, batch: ints. adam_table:
    (steps, 8). average: keep, take. seed: int. abar: (T + 1,). rounded: to bfloat16? Returns {part: new arrays} and
    the losses."""
    N, D = data.shape
    nets = {"p": mlp.simple(params, data)}
    H, T = nets["p"].width, np.size(abar) - 1
    if state is not None:
        nets |= {part: mlp.simple(state[part], data, f"state[{part!r}]", H=H) for part in ("m", "v", "average")}
    alphas = coefficients.q_sample(np.arange(T + 1), abar, (T + 1,))
    for n in (N, T):
        if not 1 <= n < 2**31:
            expected = "n: expected 1 <= n <= 2**32" if n < 1 else "data: expected fewer than 2**31 examples"
            raise ValueError(f"{expected}, got {n}")
    made, kept = _copies(nets, data, D, H)
    losses = data.kind.empty((steps,), "float64")
    tile, DP, HP, stored = mlp.layout(TILES, D, H, rounded)
    bands, wide = triton.cdiv(batch, tile["ROWS"]), max(DP, HP)
    each = triton.cdiv(batch, tile["BATCH"]) * tile["BATCH"] * wide
    m = launch.workspace(
        data, kept=kept, losses=arrays.pointer_to(losses, data.kind), data=data.pointers[0],
        counter=np.zeros(2, np.int32), seed=np.array(key_words(seed, 0)[:2], np.int32),
        adam=adam_table.astype(np.float32), alphas=alphas.T.astype(np.float32),  # (steps, 8), (T + 1, 2)
        keep=average[0], take=average[1], scale=2.0 / (batch * D),  # of the average, of the loss's gradient
        index=(batch, "int32"), t=(2 * batch, "int32"), z=(batch * D, "float32"),  # t, x_op: of this step, of the next
        partial=(bands * (DP // tile["TILE"]), "float32"),  # one for each tile of the output
        # Operands, rows in whole BATCHes, columns in whole CHUNKs, DP and HP, zeros around what is there
        x_op=(2 * each, stored), a_op=(each, stored), d_op=(each, stored), dh_op=(each, stored),
        w1_op=(HP * DP, stored), w2_op=(DP * HP, stored),
    )  # fmt: skip
    owned = 2 * triton.cdiv(D, tile["OUT"]) * triton.cdiv(H, tile["IN"])
    most = max(bands * (wide // tile["TILE"]), owned)
    stationary = owned <= launch.processors(data) and not device.INTERPRETED  # the same tile in every step
    constants = dict(D=D, H=H, DP=DP, HP=HP, WIDE=wide, TILES=owned, STATIONARY=stationary, BFLOAT16=rounded) | tile
    mlp.loop(training_loop, most, data, m, batch, N, T, done + 1, steps, phases=_phases(steps), **constants)
    if not device.INTERPRETED and device.read_int(m.counter.address + 4):
        raise RuntimeError("mlp_train: a program waited a second for another in vain; the device was busy, try again")
    return made, losses


def _copies(nets, data, D, H):
    """{part: {name: new array}} and `Layers` of pointers to them. Without a state moments are 0, the average params."""
    shapes, made, kept = Layers((H, D + 1), (H,), (D, H), (D,)), {}, []
    for part in ("p", "m", "v", "average"):
        made[part] = {name: data.kind.empty(shape, "float32") for name, shape in shapes._asdict().items()}
        kept.append([arrays.pointer_to(a, data.kind) for a in made[part].values()])
        source = nets.get(part, nets["p"] if part == "average" else None)
        for i, to in enumerate(kept[-1]):
            launch.fill(to, source and source.weights[i], math.prod(shapes[i]), data)
    return made, Layers(*zip(*kept))


def _phases(steps):
    """(phase, (first step, end)) of each launch."""
    yield PREPARE, (0, 0)
    yield NOISE, (0, 0)
    for i in range(steps):
        for phase in (HIDDEN, OUTPUT, BACK, DESCEND):
            yield phase, (i, i + 1)


@triton.jit(do_not_specialize=["batch", "N", "T", "begun", "steps", "patience"])
def training_loop(m, batch, N, T, begun, steps, patience, span, C: tl.constexpr):
    """Steps of the tutorial loop. m, C: groups of `train`. batch, N, T, steps: ints. begun: the number of the first of
    all steps. patience: of the barrier. span: of the steps of a phase, None for all."""
    begun, seed, state = begun.to(tl.int64), (tl.load(m.seed), tl.load(m.seed + 1)), ()
    first_step, end_step = (0, steps) if span is None else span
    # The first step's examples, times and noise
    turn = phase(_prepare, PREPARE, Turn(0, patience), m, (begun, batch, N, T, seed), C)
    turn = phase(_add_noise, NOISE, turn, m, (0, begun, batch, seed, tl.program_id(0), tl.num_programs(0)), C)
    if C.STATIONARY:
        mine = own(tl.program_id(0), m, 0, batch, C)
        state = loaded(mine.kept, mine.at, 0, mine.real & (tl.program_id(0) < C.TILES), 0)
    for step in range(first_step, end_step):
        # Forward; meanwhile the next step's examples and times
        turn = phase(_hidden, HIDDEN, turn, m, (step, begun, batch, N, T, steps, seed), C)
        turn = phase(_output, OUTPUT, turn, m, (batch,), C)
        # Backward; meanwhile the loss and the next step's x_t
        turn = phase(_back, BACK, turn, m, (step, begun, batch, steps, seed), C)
        # Gradients, AdamW and the average
        if C.PHASE == ALL or C.PHASE == DESCEND:
            state = descend(state, m, step, batch, C)
            descend_vectors(m, step, batch, C)
        turn = wait(m.counter, turn, C.PHASE)
        if C.PHASE == ALL:
            if gave_up(m.counter, turn):
                tl.store(m.losses + step, float("nan"))
    if C.STATIONARY:
        if tl.program_id(0) < C.TILES:
            store(mine.kept, state, mine.at, 0, mine.real)


@triton.jit
def _meanwhile(m, step, begun, batch, steps, seed, C):
    """The loss and the next step's x_t, by the programs without a tile of the hidden layer, or by all."""
    busy, program = tl.cdiv(batch, C.ROWS) * (C.HP // C.TILE), tl.program_id(0)
    busy = tl.where(busy < tl.num_programs(0), busy, 0)
    if program == busy:
        total, count = tl.zeros((128,), tl.float64), tl.cdiv(batch, C.ROWS) * (C.DP // C.TILE)
        for first in range(0, count, 128):
            e = first + tl.arange(0, 128)
            total += tl.load(m.partial + e, mask=e < count, other=0, cache_modifier=".cg").to(tl.float64)
        tl.store(m.losses + step, tree_sum(total, 128) / (batch.to(tl.float64) * C.D))
    if (step + 1 < steps) & (program >= busy):
        last, rest = tl.num_programs(0) - 1 - program, tl.num_programs(0) - busy
        _add_noise(m, (step + 1) % 2, begun + step + 1, batch, seed, last, rest, C)


@triton.jit
def _key_of(seed, stream):
    """The four words of a key. seed: its two words. stream: int64."""
    low, high = (stream & 0xFFFFFFFF).to(tl.uint32), (stream >> 32).to(tl.uint32)
    return seed[0], seed[1], low.to(tl.int32, bitcast=True), high.to(tl.int32, bitcast=True)


@triton.jit
def _below(element, n, seed, stream):
    """floor(word n / 2^32) of each element. element: int64. n: int up to 2^32. seed, stream: of the words."""
    words = words_of(element // 4, _key_of(seed, stream))
    return (of_four(element, *words).to(tl.uint64) * n.to(tl.uint64) >> 32).to(tl.int64)


@triton.jit
def _draw(m, which, step, batch, N, T, seed, program):
    """Examples and times of a step, of its streams 0 and 1. which: of the two places for times. program: in turn."""
    t = m.t + which * batch
    for first in range(program * 128, batch, tl.num_programs(0) * 128):
        e = first + tl.arange(0, 128)
        tl.store(m.index + e, _below(e.to(tl.int64), N, seed, step * PER_STEP).to(tl.int32), mask=e < batch)
        tl.store(t + e, (1 + _below(e.to(tl.int64), T, seed, step * PER_STEP + 1)).to(tl.int32), mask=e < batch)


@triton.jit
def _add_noise(m, which, step, batch, seed, program, programs, C):
    """x_t of a step, as an operand, and its noise, of stream 3. program, programs: who does it."""
    x, t = m.x_op + which * padded_rows(batch, C) * C.WIDE, m.t + which * batch
    for first in range(program * 2048, batch * C.D, programs * 2048):
        z = four((first // 4 + tl.arange(0, 512)).to(tl.int64), _key_of(seed, step * PER_STEP + 3))
        e, eps = first + tl.arange(0, 2048), joined(*z, 2048)
        row, real = e // C.D, e < batch * C.D
        column = e - row * C.D
        which_row = tl.load(m.index + row, mask=real, other=0, cache_modifier=".cg")
        time = tl.load(t + row, mask=real, other=0, cache_modifier=".cg")
        c0 = tl.load(m.alphas + 2 * time, mask=real, other=0)
        c1 = tl.load(m.alphas + 2 * time + 1, mask=real, other=0)
        x0 = tl.load(m.data + which_row.to(tl.int64) * C.D + column, mask=real, other=0)
        tl.store(m.z + e, eps, mask=real)
        tl.store(x + row * C.WIDE + column, operand(tl.fma(c0, x0, c1 * eps), C.BFLOAT16), mask=real)


@triton.jit
def _prepare(m, begun, batch, N, T, seed, C):
    """Draws of the first step, the weights as operands, and zeros for the rest."""
    _draw(m, 0, begun, batch, N, T, seed, tl.program_id(0))
    rows = padded_rows(batch, C)
    pack(m.w1_op, m.kept.w1[0], C.H, C.D + 1, C.D, C.HP, C.DP, C.BFLOAT16)
    pack(m.w2_op, m.kept.w2[0], C.D, C.H, C.H, C.DP, C.HP, C.BFLOAT16)
    pack(m.x_op, m.kept.w1[0], 0, 0, 0, 2 * rows, C.WIDE, C.BFLOAT16)
    pack(m.a_op, m.kept.w1[0], 0, 0, 0, rows, C.WIDE, C.BFLOAT16)
    pack(m.d_op, m.kept.w1[0], 0, 0, 0, rows, C.WIDE, C.BFLOAT16)
    pack(m.dh_op, m.kept.w1[0], 0, 0, 0, rows, C.WIDE, C.BFLOAT16)


@triton.jit
def _hidden(m, step, begun, batch, N, T, steps, seed, C):
    """a <- relu(W1 (x_t, t) + b1)."""
    now, x_now = m.t + step % 2 * batch, m.x_op + step % 2 * padded_rows(batch, C) * C.WIDE
    for tile in range(tl.program_id(0), tl.cdiv(batch, C.ROWS) * (C.HP // C.TILE), tl.num_programs(0)):
        row, unit = tile_of(tile, C.HP // C.TILE, C.ROWS, C.TILE)
        time = tl.load(now + row, mask=row < batch, other=0, cache_modifier=".cg").to(tl.float32)
        column = tl.load(m.kept.w1[0] + unit * (C.D + 1) + C.D, mask=unit < C.H, other=0, cache_modifier=".cg")
        bias = tl.load(m.kept.b1[0] + unit, mask=unit < C.H, other=0, cache_modifier=".cg")
        x, w = x_now + row * C.WIDE, m.w1_op + unit * C.DP
        acc = padded_product(x, 1, w, 1, C.DP, C.CHUNK, C.STAGES)
        acc = tl.fma(time[:, None], column[None, :], acc) + bias[None, :]
        place = m.a_op + row[:, None] * C.WIDE + unit[None, :]
        tl.store(place, operand(mlp.relu(acc), C.BFLOAT16), mask=(row < batch)[:, None])
    if step + 1 < steps:  # the last programs have less to do, and do the rest
        last = tl.num_programs(0) - 1 - tl.program_id(0)
        _draw(m, (step + 1) % 2, begun + step + 1, batch, N, T, seed, last)


@triton.jit
def _output(m, batch, C):
    """d <- the loss's gradient by eps_hat = W2 a + b2, and the partial sums of its squares."""
    for tile in range(tl.program_id(0), tl.cdiv(batch, C.ROWS) * (C.DP // C.TILE), tl.num_programs(0)):
        row, column = tile_of(tile, C.DP // C.TILE, C.ROWS, C.TILE)
        real = (row < batch)[:, None] & (column < C.D)[None, :]
        bias = tl.load(m.kept.b2[0] + column, mask=column < C.D, other=0, cache_modifier=".cg")
        eps = tl.load(m.z + row[:, None] * C.D + column[None, :], mask=real, other=0, cache_modifier=".cg")
        a, w = m.a_op + row * C.WIDE, m.w2_op + column * C.HP
        acc = padded_product(a, 1, w, 1, C.HP, C.CHUNK, C.STAGES)
        r = tl.where(real, acc + bias[None, :] - eps, 0.0)
        tl.store(m.d_op + row[:, None] * C.WIDE + column[None, :], operand(m.scale * r, C.BFLOAT16))
        tl.store(m.partial + tile, tl.sum(tl.sum(r * r, 1), 0))


@triton.jit
def _back(m, step, begun, batch, steps, seed, C):
    """dh <- W2^T d where a > 0."""
    for tile in range(tl.program_id(0), tl.cdiv(batch, C.ROWS) * (C.HP // C.TILE), tl.num_programs(0)):
        row, unit = tile_of(tile, C.HP // C.TILE, C.ROWS, C.TILE)
        place = row[:, None] * C.WIDE + unit[None, :]
        a, d = tl.load(m.a_op + place, cache_modifier=".cg"), m.d_op + row * C.WIDE
        acc = padded_product(d, 1, m.w2_op + unit, C.HP, C.DP, C.CHUNK, C.STAGES)
        tl.store(m.dh_op + place, operand(tl.where(a > 0, acc, 0.0), C.BFLOAT16))
    _meanwhile(m, step, begun, batch, steps, seed, C)
