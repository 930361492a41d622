"""The nets of `ref.nets.mlp` in one launch: a whole trajectory, or a whole training loop.

A launch is a row of phases. In a phase each program takes tiles of a matrix product in turn, with what follows it (bias and ReLU, the
step, AdamW) done while the sums are in registers; between two phases all programs wait for each other. All of them run at the same
time, by a cooperative launch. Without a GPU there is nobody to wait for, and the same source runs one phase a launch.

The chapter's net needs no pixels on the way. Its step is linear where nothing is clipped and eta = 0: x_s = a x_t + b eps_hat. With
u = W1 x (of the pixels' columns) and eps_hat = W2 h + b2 it is, in the hidden layer alone,

    h = relu(u + w_t t + b1),   u <- a u + b ((W1 W2) h + W1 b2),   and at the end   x_0 = (prod a) x_T + W2 (sum d_i h_i) + (sum d_i) b2

where d_i is b_i times all later a. A program takes ROWS examples through it with W1 W2 in its registers and waits for nobody.

Products are float32's to 2^-22 (three tf32 products for one), or have operands that were rounded to bfloat16. Sums are float32.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [AdamW] Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
"""
import triton
import triton.language as tl

from kernels.triton_gpu import launch
from kernels.triton_gpu.diffusion import ddim_mean
from kernels.triton_gpu.exponential import logistic
from kernels.triton_gpu.optim import adam_element, tree_sum
from kernels.triton_gpu.philox import four, joined, words_of

INTERPRETED = tl.constexpr(launch.INTERPRETED)
PATIENCE = 1 << 22  # looks at a meeting before a program gives up, about a second
WIDEST = 512  # hidden layer whose trajectory fits into the registers of a program
ROWS, TILE, CHUNK = 16, 32, 64  # examples of a program, outputs of a tile, products taken at a time
FEW, NARROW, BROAD = 256, 32, 64  # up to FEW rows a tile is NARROW, so that there is one for every program
TRAINING = [  # for small batches and for large: a tile's examples and units or pixels, of the gradients outputs and inputs
    dict(ROWS=16, UNITS=32, PIXELS=64, OUT=64, IN=64, CHUNK=64, SIZE=1024),
    dict(ROWS=32, UNITS=64, PIXELS=64, OUT=64, IN=64, CHUNK=64, SIZE=1024),
]


@triton.jit
def _meet(counter, meeting, patience):
    """Wait until every program came to its meeting of that number, from 1. counter: two ints, arrivals and whether somebody gave up.
    Returns the patience that is left, in looks at the counter; 0 for none."""
    tl.debug_barrier()
    target = meeting * tl.num_programs(0)
    seen = tl.atomic_add(counter, 1, sem="acq_rel") + 1
    while (seen < target) & (patience > 0):
        seen = tl.atomic_add(counter, 0, sem="acquire")
        patience -= 1
    if seen < target:
        tl.atomic_max(counter + 1, 1)
    tl.debug_barrier()
    return patience


@triton.jit
def _rounded(x):
    """x as bfloat16 has it, halves to even, in float32."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(x == x, ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True), x)


@triton.jit
def _multiplied(a, b, sums, BFLOAT16: tl.constexpr):
    """sums + a b. a, b, sums: float32 blocks."""
    if BFLOAT16:
        if INTERPRETED:  # which would multiply the bits
            return tl.dot(_rounded(a), _rounded(b), sums)
        else:
            return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), sums)
    else:
        return tl.dot(a, b, sums, input_precision="tf32x3")


@triton.jit
def _silu(x):
    _, large, small = logistic(x)
    return x * tl.where(x < 0, small, large)


@triton.jit
def _product(a, along_a, rows, b, along_b, columns, K, sums, CHUNK: tl.constexpr, BFLOAT16: tl.constexpr, apart=0, w=0.0, GUIDED: tl.constexpr = False):
    """sums + a b over K. a, b: pointers to the first element of each row and column. along_a, along_b: steps to the next. rows, columns: which
    there are. GUIDED: a is a + w (a' - a), a' so many elements apart. What other programs wrote is read past the first-level cache."""
    k = tl.arange(0, CHUNK)
    for first in range(0, K, CHUNK):
        inside = first + k < K
        place = a[:, None] + (first + k)[None, :] * along_a
        x = tl.load(place, mask=rows[:, None] & inside[None, :], other=0, cache_modifier=".cg")
        if GUIDED:
            x = tl.fma(w, tl.load(place + apart, mask=rows[:, None] & inside[None, :], other=0, cache_modifier=".cg") - x, x)
        y = tl.load(b[None, :] + (first + k)[:, None] * along_b, mask=inside[:, None] & columns[None, :], other=0, cache_modifier=".cg")
        sums = _multiplied(x, y, sums, BFLOAT16)
    return sums


@triton.jit
def _relu(x):
    return tl.where(x > 0, x, tl.where(x == x, 0.0, x))


@triton.jit(do_not_specialize=["B", "steps", "patience"])
def sample_hidden(
    out, x, w1, b1, w2, b2, lifted, shift, hidden, sums, table, counter, B, steps, whole, offset, patience,
    D: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
    RESIDENT: tl.constexpr, BFLOAT16: tl.constexpr, PHASE: tl.constexpr,
):  # fmt: skip
    """The chapter's trajectory through the hidden layer. out, x: (B, D). lifted: (WIDE + B, WIDE), for W1 W2 transposed, then u. shift: (WIDE,), for
    W1 b2. hidden: (B, WIDE), for h where W1 W2 does not fit into registers. sums: (B, WIDE), for sum d_i h_i. table: (steps, 3) of t, a, b.
    whole, offset: prod a, sum d_i. PHASE: 0 all, 1 into the hidden layer, 2 the trajectory, 3 back to the pixels."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    i = tl.arange(0, TILE)
    across: tl.constexpr = WIDE // TILE
    if PHASE < 2:
        for tile in range(program, (across + (B + TILE - 1) // TILE) * across, programs):
            block, unit = tile // across, tile % across * TILE + i
            to, acc = w1 + unit * (D + 1), tl.zeros((TILE, TILE), tl.float32)
            if block < across:
                j = block * TILE + i
                acc = _product(w2 + j, H, j < H, to, 1, unit < H, D, acc, CHUNK, False)
                at = j
            else:
                j = (block - across) * TILE + i
                acc = _product(x + j.to(tl.int64) * D, 1, j < B, to, 1, unit < H, D, acc, CHUNK, False)
                at = tl.where(j < B, WIDE + j, -1)
            tl.store(lifted + at.to(tl.int64)[:, None] * WIDE + unit[None, :], acc, mask=(at >= 0)[:, None])
        for tile in range(program, across, programs):
            unit, products = tile * TILE + i, tl.zeros((TILE, CHUNK), tl.float32)
            for first in range(0, D, CHUNK):
                k = first + tl.arange(0, CHUNK)
                y = tl.load(w1 + unit[:, None] * (D + 1) + k[None, :], mask=(unit < H)[:, None] & (k < D)[None, :], other=0)
                products = tl.fma(y, tl.load(b2 + k, mask=k < D, other=0)[None, :], products)
            tl.store(shift + unit, tl.sum(products, 1))
    if PHASE == 0:
        patience = _meet(counter, 1, patience)
    if PHASE == 0 or PHASE == 2:
        unit = tl.arange(0, WIDE)
        here = unit < H
        bias, time = tl.load(b1 + unit, mask=here, other=0), tl.load(w1 + unit * (D + 1) + D, mask=here, other=0)
        d = tl.load(shift + unit, cache_modifier=".cg")
        if RESIDENT:
            m = tl.load(lifted + unit[:, None] * WIDE + unit[None, :], cache_modifier=".cg")
            if BFLOAT16 and not INTERPRETED:
                m = m.to(tl.bfloat16)
        for tile in range(program, (B + ROWS - 1) // ROWS, programs):
            row = tile * ROWS + tl.arange(0, ROWS)
            place = row.to(tl.int64)[:, None] * WIDE + unit[None, :]
            u = tl.load(lifted + WIDE * WIDE + place, mask=(row < B)[:, None], other=0, cache_modifier=".cg")
            total = tl.zeros((ROWS, WIDE), tl.float32)
            for step in range(steps):
                t, a, b = tl.load(table + 3 * step), tl.load(table + 3 * step + 1), tl.load(table + 3 * step + 2)
                h = _relu(u + tl.fma(t, time, bias)[None, :])
                total = tl.fma(a, total, b * h)
                acc = tl.zeros((ROWS, WIDE), tl.float32)
                if RESIDENT:
                    if BFLOAT16 and not INTERPRETED:
                        acc = tl.dot(h.to(tl.bfloat16), m, acc)
                    else:
                        acc = _multiplied(h, m, acc, BFLOAT16)
                else:
                    tl.debug_barrier()
                    tl.store(hidden + place, h, mask=(row < B)[:, None])
                    tl.debug_barrier()
                    for first in range(0, WIDE, CHUNK):
                        k = first + tl.arange(0, CHUNK)
                        y = tl.load(hidden + row.to(tl.int64)[:, None] * WIDE + k[None, :], mask=(row < B)[:, None], other=0)
                        acc = _multiplied(y, tl.load(lifted + k[:, None] * WIDE + unit[None, :]), acc, BFLOAT16)
                u = tl.fma(a, u, b * (acc + d[None, :]))
            tl.store(sums + place, total, mask=(row < B)[:, None])
    if PHASE == 0:
        patience = _meet(counter, 2, patience)
    if PHASE == 0 or PHASE == 3:
        down: tl.constexpr = (D + TILE - 1) // TILE
        for tile in range(program, (B + ROWS - 1) // ROWS * down, programs):
            row, column = tile // down * ROWS + tl.arange(0, ROWS), tile % down * TILE + i
            acc = tl.zeros((ROWS, TILE), tl.float32)
            acc = _product(sums + row.to(tl.int64) * WIDE, 1, row < B, w2 + column * H, 1, column < D, H, acc, CHUNK, False)
            pixel, real = row.to(tl.int64)[:, None] * D + column[None, :], (row < B)[:, None] & (column < D)[None, :]
            acc = tl.fma(whole, tl.load(x + pixel, mask=real, other=0), acc + offset * tl.load(b2 + column, mask=column < D, other=0)[None, :])
            if PHASE == 0:
                acc = tl.where((patience > 0) & (tl.load(counter + 1, volatile=True) == 0), acc, float("nan"))
            tl.store(out + pixel, acc, mask=real)


@triton.jit
def _normals(element, k0, k1, s0, s1):
    """The normal of each element, whichever tile it is in: each makes its whole block. element: int64."""
    z0, z1, z2, z3 = four(element // 4, k0, k1, s0, s1)
    place = element % 4
    return tl.where(place == 0, z0, tl.where(place == 1, z1, tl.where(place == 2, z2, z3)))


@triton.jit(do_not_specialize=["B", "branches", "steps", "depth", "k0", "k1", "first_step", "end_step", "first_block", "end_block", "patience"])
def sample_pixels(
    out, x, w_in, b_in, w_out, b_out, w_time, b_time, classes, blocks, table, keys, counter, labels, features, time, h, a, g,
    B, branches, steps, depth, w, limit, k0, k1, first_step, end_step, first_block, end_block, patience,
    D: tl.constexpr, H: tl.constexpr, FEATURES: tl.constexpr, ALONG_IN: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
    RESIDUAL: tl.constexpr, GUIDED: tl.constexpr, NOISY: tl.constexpr, CLIPPED: tl.constexpr, BFLOAT16: tl.constexpr, PHASE: tl.constexpr,
):  # fmt: skip
    """The trajectory of either net by way of the pixels. out, x: (B, D). blocks: addresses of w1, b1, w2, b2 of each. table: (steps, 8), of
    `coefficients.ddim_trajectory`, and t. keys: (steps, 2), streams. labels: (branches B,). features: (steps, FEATURES), of the times. time: (steps, H).
    h, a, g: (branches B, H). PHASE: 0 all, 1 the beginning, 2 into the hidden layer, 3 and 4 a block's halves, 5 back to the pixels and the step."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    i, k = tl.arange(0, ROWS), tl.arange(0, TILE)
    units: tl.constexpr = (H + TILE - 1) // TILE
    pixels: tl.constexpr = (D + TILE - 1) // TILE
    all = B * branches
    meeting = 0
    if PHASE < 2:
        for tile in range(program, (B + ROWS - 1) // ROWS * pixels, programs):
            row, column = tile // pixels * ROWS + i, tile % pixels * TILE + k
            place, real = row.to(tl.int64)[:, None] * D + column[None, :], (row < B)[:, None] & (column < D)[None, :]
            tl.store(out + place, tl.load(x + place, mask=real), mask=real)
        if RESIDUAL:
            for tile in range(program, (steps + ROWS - 1) // ROWS * units, programs):
                row, unit = tile // units * ROWS + i, tile % units * TILE + k
                acc = tl.zeros((ROWS, TILE), tl.float32)
                acc = _product(features + row * FEATURES, 1, row < steps, w_time + unit * FEATURES, 1, unit < H, FEATURES, acc, CHUNK, BFLOAT16)
                acc = _silu(acc + tl.load(b_time + unit, mask=unit < H, other=0)[None, :])
                tl.store(time + row.to(tl.int64)[:, None] * H + unit[None, :], acc, mask=(row < steps)[:, None] & (unit < H)[None, :])
    if PHASE == 0:
        meeting += 1
        patience = _meet(counter, meeting, patience)
    for step in range(first_step, end_step):
        c = table + 8 * step
        if PHASE == 0 or PHASE == 2:
            for tile in range(program, (B + ROWS - 1) // ROWS * units, programs):
                row, unit = tile // units * ROWS + i, tile % units * TILE + k
                acc = tl.zeros((ROWS, TILE), tl.float32)
                acc = _product(out + row.to(tl.int64) * D, 1, row < B, w_in + unit * ALONG_IN, 1, unit < H, D, acc, CHUNK, BFLOAT16)
                shift = tl.load(b_in + unit, mask=unit < H, other=0)
                place, real = row.to(tl.int64)[:, None] * H + unit[None, :], (row < B)[:, None] & (unit < H)[None, :]
                if RESIDUAL:
                    acc += shift[None, :]
                    tl.store(h + place, acc, mask=real)
                    if GUIDED:  # both branches begin alike
                        tl.store(h + B.to(tl.int64) * H + place, acc, mask=real)
                    if depth == 0:
                        tl.store(g + place, _silu(acc), mask=real)
                        if GUIDED:
                            tl.store(g + B.to(tl.int64) * H + place, _silu(acc), mask=real)
                else:
                    shift = tl.fma(tl.load(c + 7), tl.load(w_in + unit * ALONG_IN + D, mask=unit < H, other=0), shift)
                    tl.store(g + place, _relu(acc + shift[None, :]), mask=real)
        if PHASE == 0:
            meeting += 1
            patience = _meet(counter, meeting, patience)
        if RESIDUAL:
            for block in range(first_block, end_block):
                w1, b1 = tl.load(blocks + 4 * block).to(w_in.dtype), tl.load(blocks + 4 * block + 1).to(w_in.dtype)
                w2, b2 = tl.load(blocks + 4 * block + 2).to(w_in.dtype), tl.load(blocks + 4 * block + 3).to(w_in.dtype)
                if PHASE == 0 or PHASE == 3:
                    for tile in range(program, (all + ROWS - 1) // ROWS * units, programs):
                        row, unit = tile // units * ROWS + i, tile % units * TILE + k
                        acc = tl.zeros((ROWS, TILE), tl.float32)
                        acc = _product(h + row.to(tl.int64) * H, 1, row < all, w1 + unit * H, 1, unit < H, H, acc, CHUNK, BFLOAT16)
                        shift = tl.load(b1 + unit, mask=unit < H, other=0) + tl.load(time + step * H + unit, mask=unit < H, other=0, cache_modifier=".cg")
                        real = (row < all)[:, None] & (unit < H)[None, :]
                        label = tl.load(labels + row, mask=row < all, other=0)
                        acc += shift[None, :] + tl.load(classes + label[:, None] * H + unit[None, :], mask=real, other=0)
                        tl.store(a + row.to(tl.int64)[:, None] * H + unit[None, :], _silu(acc), mask=real)
                if PHASE == 0:
                    meeting += 1
                    patience = _meet(counter, meeting, patience)
                if PHASE == 0 or PHASE == 4:
                    for tile in range(program, (all + ROWS - 1) // ROWS * units, programs):
                        row, unit = tile // units * ROWS + i, tile % units * TILE + k
                        acc = tl.zeros((ROWS, TILE), tl.float32)
                        acc = _product(a + row.to(tl.int64) * H, 1, row < all, w2 + unit * H, 1, unit < H, H, acc, CHUNK, BFLOAT16)
                        place, real = row.to(tl.int64)[:, None] * H + unit[None, :], (row < all)[:, None] & (unit < H)[None, :]
                        acc += tl.load(b2 + unit, mask=unit < H, other=0)[None, :] + tl.load(h + place, mask=real, other=0, cache_modifier=".cg")
                        tl.store(h + place, acc, mask=real)
                        if block == depth - 1:
                            tl.store(g + place, _silu(acc), mask=real)
                if PHASE == 0:
                    meeting += 1
                    patience = _meet(counter, meeting, patience)
        if PHASE == 0 or PHASE == 5:
            for tile in range(program, (B + ROWS - 1) // ROWS * pixels, programs):
                row, column = tile // pixels * ROWS + i, tile % pixels * TILE + k
                acc = tl.zeros((ROWS, TILE), tl.float32)
                acc = _product(g + row.to(tl.int64) * H, 1, row < B, w_out + column * H, 1, column < D, H, acc, CHUNK, BFLOAT16, B.to(tl.int64) * H, w, GUIDED)
                place, real = row.to(tl.int64)[:, None] * D + column[None, :], (row < B)[:, None] & (column < D)[None, :]
                xt, e = tl.load(out + place, mask=real, other=0, cache_modifier=".cg"), acc + tl.load(b_out + column, mask=column < D, other=0)[None, :]
                xs = ddim_mean(xt, e, tl.load(c), tl.load(c + 1), tl.load(c + 2), tl.load(c + 3), tl.load(c + 4), tl.load(c + 5), limit, CLIPPED)
                if NOISY:
                    sigma = tl.load(c + 6)
                    if sigma != 0:
                        xs = tl.fma(sigma, _normals(place, k0, k1, tl.load(keys + 2 * step), tl.load(keys + 2 * step + 1)), xs)
                tl.store(out + place, xs, mask=real)
        if PHASE == 0:
            meeting += 1
            patience = _meet(counter, meeting, patience)
    if PHASE == 0:
        if (patience == 0) | (tl.load(counter + 1, volatile=True) != 0):
            for tile in range(program, (B + ROWS - 1) // ROWS * pixels, programs):
                row, column = tile // pixels * ROWS + i, tile % pixels * TILE + k
                real = (row < B)[:, None] & (column < D)[None, :]
                tl.store(out + row.to(tl.int64)[:, None] * D + column[None, :], tl.full((ROWS, TILE), float("nan"), tl.float32), mask=real)


@triton.jit
def _stream(step, which):
    """The two words of stream 4 step + which. step: int64."""
    stream = 4 * step + which
    return (stream & 0xFFFFFFFF).to(tl.uint32).to(tl.int32, bitcast=True), (stream >> 32).to(tl.uint32).to(tl.int32, bitcast=True)


@triton.jit
def _below(element, n, k0, k1, s0, s1):
    """floor(word n / 2^32) of each element. element: int64. n: int up to 2^32."""
    w0, w1, w2, w3 = words_of(element // 4, k0, k1, s0, s1)
    place = element % 4
    word = tl.where(place == 0, w0, tl.where(place == 1, w1, tl.where(place == 2, w2, w3)))
    return (word.to(tl.uint64) * n.to(tl.uint64) >> 32).to(tl.int64)


@triton.jit
def _drawn(index, t, step, batch, N, T, k0, k1, program, programs, SIZE: tl.constexpr):
    """Which examples, and their times, of a step: `below` of its streams 0 and 1."""
    for first in range(program * SIZE, batch, programs * SIZE):
        e = first + tl.arange(0, SIZE)
        s0, s1 = _stream(step, 0)
        tl.store(index + e, _below(e.to(tl.int64), N, k0, k1, s0, s1).to(tl.int32), mask=e < batch)
        s0, s1 = _stream(step, 1)
        tl.store(t + e, (1 + _below(e.to(tl.int64), T, k0, k1, s0, s1)).to(tl.int32), mask=e < batch)


@triton.jit
def _noised(x, z, data, index, t, alphas, step, batch, k0, k1, program, programs, D: tl.constexpr, SIZE: tl.constexpr):
    """x_t of a step and its noise, of stream 3. alphas: (T + 1, 2), of `coefficients.q_sample`."""
    s0, s1 = _stream(step, 3)
    for first in range(program * SIZE, batch * D, programs * SIZE):
        z0, z1, z2, z3 = four((first // 4 + tl.arange(0, SIZE // 4)).to(tl.int64), k0, k1, s0, s1)
        e, eps = first + tl.arange(0, SIZE), joined(z0, z1, z2, z3, SIZE)
        row, real = e // D, e < batch * D
        which, time = tl.load(index + row, mask=real, other=0, cache_modifier=".cg"), tl.load(t + row, mask=real, other=0, cache_modifier=".cg")
        c0, c1 = tl.load(alphas + 2 * time, mask=real, other=0), tl.load(alphas + 2 * time + 1, mask=real, other=0)
        x0 = tl.load(data + which.to(tl.int64) * D + (e - row * D), mask=real, other=0)
        tl.store(z + e, eps, mask=real)
        tl.store(x + e, tl.fma(c0, x0, c1 * eps), mask=real)


@triton.jit
def _descend(p, m, v, average, place, g, real, c, keep, take):
    """The weights at place and all that is kept of them, by their gradient g. c: of `coefficients.adam_step`."""
    old, first = tl.load(p + place, mask=real, other=0, cache_modifier=".cg"), tl.load(m + place, mask=real, other=0)
    new, first, second = adam_element(
        old, g, first, tl.load(v + place, mask=real, other=0), tl.load(c), tl.load(c + 1), tl.load(c + 2), tl.load(c + 3),
        tl.load(c + 4), tl.load(c + 5), tl.load(c + 6), tl.load(c + 7),
    )  # fmt: skip
    tl.store(p + place, new, mask=real)
    tl.store(m + place, first, mask=real)
    tl.store(v + place, second, mask=real)
    tl.store(average + place, tl.fma(keep, tl.load(average + place, mask=real, other=0), take * new), mask=real)


@triton.jit(do_not_specialize=["batch", "N", "T", "begun", "steps", "first_step", "end_step", "k0", "k1", "patience"])
def train(
    w1, b1, w2, b2, m_w1, m_b1, m_w2, m_b2, v_w1, v_b1, v_w2, v_b2, avg_w1, avg_b1, avg_w2, avg_b2, losses, data,
    adam, alphas, counter, index, t, x, z, a, d, dh, partial, batch, N, T, begun, steps, first_step, end_step, k0, k1, keep, take, scale, patience,
    D: tl.constexpr, H: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr, PIXELS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr,
    CHUNK: tl.constexpr, SIZE: tl.constexpr, BFLOAT16: tl.constexpr, PHASE: tl.constexpr,
):  # fmt: skip
    """Steps of the chapter's loop. w1 ... avg_b2: the weights and what is kept of them, changed. losses: (steps,). data: (N, D). adam: (steps, 8). t, x: of
    this step and of the next, (2, batch) and (2, batch, D). z, d: (batch, D). a, dh: (batch, H). partial: one for each tile of the output. begun: the number
    of the first step. PHASE: 0 all, 1 and 2 the beginning, 3 hidden, 4 output and loss, 5 back to the hidden layer, 6 gradients and the next x_t."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    i, iu, ip, io, ii = tl.arange(0, ROWS), tl.arange(0, UNITS), tl.arange(0, PIXELS), tl.arange(0, OUT), tl.arange(0, IN)
    units: tl.constexpr = (H + UNITS - 1) // UNITS
    pixels: tl.constexpr = (D + PIXELS - 1) // PIXELS
    bands, meeting = (batch + ROWS - 1) // ROWS, 0
    begun = begun.to(tl.int64)
    if PHASE == 0 or PHASE == 1:
        _drawn(index, t, begun, batch, N, T, k0, k1, program, programs, SIZE)
    if PHASE == 0:
        meeting += 1
        patience = _meet(counter, meeting, patience)
    if PHASE == 0 or PHASE == 2:
        _noised(x, z, data, index, t, alphas, begun, batch, k0, k1, program, programs, D, SIZE)
    if PHASE == 0:
        meeting += 1
        patience = _meet(counter, meeting, patience)
    for step in range(first_step, end_step):
        now, later = step % 2 * batch, (step + 1) % 2 * batch
        if PHASE == 0 or PHASE == 3:
            for tile in range(program, bands * units, programs):
                row, unit = tile // units * ROWS + i, tile % units * UNITS + iu
                acc = tl.zeros((ROWS, UNITS), tl.float32)
                acc = _product(x + (now + row) * D, 1, row < batch, w1 + unit * (D + 1), 1, unit < H, D, acc, CHUNK, BFLOAT16)
                time = tl.load(t + now + row, mask=row < batch, other=0, cache_modifier=".cg").to(tl.float32)
                column = tl.load(w1 + unit * (D + 1) + D, mask=unit < H, other=0, cache_modifier=".cg")
                acc = tl.fma(time[:, None], column[None, :], acc) + tl.load(b1 + unit, mask=unit < H, other=0, cache_modifier=".cg")[None, :]
                tl.store(a + row[:, None] * H + unit[None, :], _relu(acc), mask=(row < batch)[:, None] & (unit < H)[None, :])
            if step + 1 < steps:
                _drawn(index, t + later, begun + step + 1, batch, N, T, k0, k1, program, programs, SIZE)
        if PHASE == 0:
            meeting += 1
            patience = _meet(counter, meeting, patience)
        if PHASE == 0 or PHASE == 4:
            for tile in range(program, bands * pixels, programs):
                row, column = tile // pixels * ROWS + i, tile % pixels * PIXELS + ip
                acc = tl.zeros((ROWS, PIXELS), tl.float32)
                acc = _product(a + row * H, 1, row < batch, w2 + column * H, 1, column < D, H, acc, CHUNK, BFLOAT16)
                place, real = row[:, None] * D + column[None, :], (row < batch)[:, None] & (column < D)[None, :]
                bias = tl.load(b2 + column, mask=column < D, other=0, cache_modifier=".cg")
                r = tl.where(real, acc + bias[None, :] - tl.load(z + place, mask=real, other=0, cache_modifier=".cg"), 0.0)
                tl.store(d + place, scale * r, mask=real)
                tl.store(partial + tile, tl.sum(tl.sum(r * r, 1), 0))
        if PHASE == 0:
            meeting += 1
            patience = _meet(counter, meeting, patience)
        if PHASE == 0 or PHASE == 5:
            for tile in range(program, bands * units, programs):
                row, unit = tile // units * ROWS + i, tile % units * UNITS + iu
                acc = tl.zeros((ROWS, UNITS), tl.float32)
                acc = _product(d + row * D, 1, row < batch, w2 + unit, H, unit < H, D, acc, CHUNK, BFLOAT16)
                place, real = row[:, None] * H + unit[None, :], (row < batch)[:, None] & (unit < H)[None, :]
                tl.store(dh + place, tl.where(tl.load(a + place, mask=real, other=0, cache_modifier=".cg") > 0, acc, 0.0), mask=real)
            if program == programs - 1:
                loss = tl.zeros((128,), tl.float64)
                for first in range(0, bands * pixels, 128):
                    e = first + tl.arange(0, 128)
                    loss += tl.load(partial + e, mask=e < bands * pixels, other=0, cache_modifier=".cg").to(tl.float64)
                tl.store(losses + step, tree_sum(loss, 128) / (batch.to(tl.float64) * D))
        if PHASE == 0:
            meeting += 1
            patience = _meet(counter, meeting, patience)
        if PHASE == 0 or PHASE == 6:
            c = adam + 8 * step
            second: tl.constexpr = (D + OUT - 1) // OUT * ((H + IN - 1) // IN)
            first: tl.constexpr = (H + OUT - 1) // OUT * ((D + IN - 1) // IN)
            for tile in range(program, first + second, programs):
                acc, k = tl.zeros((OUT, IN), tl.float32), tl.arange(0, CHUNK)
                if tile < second:
                    across: tl.constexpr = (H + IN - 1) // IN
                    column, unit = tile // across * OUT + io, tile % across * IN + ii
                    acc = _product(d + column, D, column < D, a + unit, H, unit < H, batch, acc, CHUNK, BFLOAT16)
                    _descend(w2, m_w2, v_w2, avg_w2, column[:, None] * H + unit[None, :], acc, (column < D)[:, None] & (unit < H)[None, :], c, keep, take)
                    if tile % across == 0:
                        bias = tl.zeros((OUT, CHUNK), tl.float32)
                        for b in range(0, batch, CHUNK):
                            at = (b + k)[None, :] * D + column[:, None]
                            bias += tl.load(d + at, mask=(column < D)[:, None] & (b + k < batch)[None, :], other=0, cache_modifier=".cg")
                        _descend(b2, m_b2, v_b2, avg_b2, column, tl.sum(bias, 1), column < D, c, keep, take)
                else:
                    along: tl.constexpr = (D + IN - 1) // IN
                    unit, column = (tile - second) // along * OUT + io, (tile - second) % along * IN + ii
                    acc = _product(dh + unit, H, unit < H, x + now * D + column, D, column < D, batch, acc, CHUNK, BFLOAT16)
                    _descend(w1, m_w1, v_w1, avg_w1, unit[:, None] * (D + 1) + column[None, :], acc, (unit < H)[:, None] & (column < D)[None, :], c, keep, take)
                    if (tile - second) % along == 0:
                        bias, times = tl.zeros((OUT, CHUNK), tl.float32), tl.zeros((OUT, CHUNK), tl.float32)
                        for b in range(0, batch, CHUNK):
                            inside = b + k < batch
                            y = tl.load(dh + (b + k)[None, :] * H + unit[:, None], mask=(unit < H)[:, None] & inside[None, :], other=0, cache_modifier=".cg")
                            bias += y
                            times = tl.fma(y, tl.load(t + now + b + k, mask=inside, other=0, cache_modifier=".cg").to(tl.float32)[None, :], times)
                        _descend(b1, m_b1, v_b1, avg_b1, unit, tl.sum(bias, 1), unit < H, c, keep, take)
                        _descend(w1, m_w1, v_w1, avg_w1, unit * (D + 1) + D, tl.sum(times, 1), unit < H, c, keep, take)
            if step + 1 < steps:
                _noised(x + later * D, z, data, index, t + later, alphas, begun + step + 1, batch, k0, k1, program, programs, D, SIZE)
        if PHASE == 0:
            meeting += 1
            patience = _meet(counter, meeting, patience)
            if (patience == 0) | (tl.load(counter + 1, volatile=True) != 0):
                tl.store(losses + step, float("nan"))
