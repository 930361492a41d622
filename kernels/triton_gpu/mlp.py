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

from kernels import coefficients
from kernels.triton_gpu import launch
from kernels.triton_gpu.diffusion import ddim_mean
from kernels.triton_gpu.math import logistic
from kernels.triton_gpu.optim import adam_element, tree_sum
from kernels.triton_gpu.philox import four, joined, words_of

INTERPRETED = tl.constexpr(launch.INTERPRETED)
PER_STEP = tl.constexpr(coefficients.PER_STEP)
PATIENCE = 1 << 22  # looks at a meeting before a program gives up, about a second
WIDEST = 256  # hidden layer whose trajectory fits into the registers and the shared memory of a program
HIDDEN = dict(ROWS=16, TALL=32, TILE=32, CHUNK=64, STAGES=4)  # the tiles that each kernel's docstring tells of
PIXELS = dict(ROWS=16, TILE=32, CHUNK=64, STAGES=4)
TRAINING = dict(ROWS=16, UNITS=32, PIXELS=32, OUT=64, IN=64, CHUNK=64, BATCH=128, STAGES=4)
SMALL = dict(OUT=32, IN=32, CHUNK=16, BATCH=32)  # of a net up to 128 wide in the interpreter, which pays by the operation, padding included
WARPS = 4  # of the way by the pixels; the other two have 8


def tiles(names, widest):
    """The tiles for a net. names: HIDDEN, PIXELS or TRAINING. widest: its most pixels or units. Returns a dict."""
    return {name: SMALL.get(name, n) if launch.INTERPRETED and widest <= 128 else n for name, n in names.items()}


@triton.jit
def _meet(counter, meeting, patience, PHASE: tl.constexpr):
    """Wait until every program came to the next meeting; where a launch is one PHASE, nobody waits. counter: two ints, arrivals and whether somebody
    gave up. meeting: how many there were. Returns how many there are now, and the patience that is left, in looks at the counter; 0 for none."""
    if PHASE == 0:
        meeting += 1
        tl.debug_barrier()
        target = meeting * tl.num_programs(0)
        seen = tl.atomic_add(counter, 1, sem="acq_rel") + 1
        while (seen < target) & (patience > 0):
            seen = tl.atomic_add(counter, 0, sem="acquire")
            patience -= 1
        if seen < target:
            tl.atomic_max(counter + 1, 1)
        tl.debug_barrier()
    return meeting, patience


@triton.jit
def _in_vain(counter, patience):
    """Whether this program or another gave up waiting."""
    return (patience == 0) | (tl.load(counter + 1, volatile=True) != 0)


@triton.jit
def _rounded(x):
    """x as bfloat16 has it, halves to even, in float32."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(x == x, ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).to(tl.float32, bitcast=True), x)


@triton.jit
def _silu(x):
    _, large, small = logistic(x)
    return x * tl.where(x < 0, small, large)


@triton.jit
def _product(a, along_a, rows, b, along_b, columns, K, sums, CHUNK: tl.constexpr, STAGES: tl.constexpr, SPLIT: tl.constexpr):
    """sums + a b over K. a, b: pointers to the first element of each row and column. along_a, along_b: steps to the next. rows, columns: which
    there are. SPLIT: operands as two bfloat16 each, to 2^-16, else to 2^-22. What other programs wrote is read past the first-level cache."""
    k = tl.arange(0, CHUNK)
    for first in tl.range(0, K, CHUNK, num_stages=STAGES):
        inside = first + k < K
        x = tl.load(a[:, None] + (first + k)[None, :] * along_a, mask=rows[:, None] & inside[None, :], other=0, cache_modifier=".cg")
        y = tl.load(b[None, :] + (first + k)[:, None] * along_b, mask=inside[:, None] & columns[None, :], other=0, cache_modifier=".cg")
        if SPLIT:
            x_high, y_high = _operand(x, True), _operand(y, True)
            x_low, y_low = _operand(x - x_high.to(tl.float32), True), _operand(y - y_high.to(tl.float32), True)
            sums = tl.dot(x_high, y_high, tl.dot(x_high, y_low, tl.dot(x_low, y_high, sums)))
        else:
            sums = tl.dot(x, y, sums, input_precision="tf32x3")
    return sums


@triton.jit
def _padded_product(a, along_a, b, along_b, K, sums, CHUNK: tl.constexpr, STAGES: tl.constexpr):
    """The same of operands as `_operand` left them, in memory that ends with two chunks: nothing to mask, so that 16 bytes are read at a time.
    Two sums, since each product waits for the one before it."""
    k, others = tl.arange(0, CHUNK), sums * 0
    for first in tl.range(0, K, 2 * CHUNK, num_stages=STAGES):
        x = tl.load(a[:, None] + (first + k)[None, :] * along_a, cache_modifier=".cg")
        y = tl.load(b[None, :] + (first + k)[:, None] * along_b, cache_modifier=".cg")
        v = tl.load(a[:, None] + (first + CHUNK + k)[None, :] * along_a, cache_modifier=".cg")
        w = tl.load(b[None, :] + (first + CHUNK + k)[:, None] * along_b, cache_modifier=".cg")
        sums = tl.dot(x, y, sums, input_precision="tf32x3")
        others = tl.dot(v, w, others, input_precision="tf32x3")
    return sums + others


@triton.jit
def _operand(x, BFLOAT16: tl.constexpr):
    """x as an operand is stored: bfloat16 or float32; in the interpreter always float32, whose numbers are those of the other."""
    if not BFLOAT16:
        return x
    elif INTERPRETED:
        return _rounded(x)
    else:
        return x.to(tl.bfloat16)


@triton.jit
def _packed(to, of, rows, along, columns, program, programs, height, WIDE: tl.constexpr, BFLOAT16: tl.constexpr):
    """A matrix as an operand, zeros around it. to: (height, WIDE). of: rows that are along apart, columns of each."""
    for first in range(program * 1024, height * WIDE, programs * 1024):
        e = first + tl.arange(0, 1024)
        row, column = e // WIDE, e % WIDE
        x = tl.load(of + row * along + column, mask=(row < rows) & (column < columns), other=0)
        tl.store(to + e, _operand(x, BFLOAT16), mask=e < height * WIDE)


@triton.jit
def _relu(x):
    return tl.where(x > 0, x, tl.where(x == x, 0.0, x))


@triton.jit(do_not_specialize=["B", "steps", "patience"])
def sample_hidden(
    out, x, w1, b1, w2, b2, lifted, shift, hidden, sums, table, counter, B, steps, whole, offset, patience,
    D: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, TALL: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr,
    RESIDENT: tl.constexpr, BFLOAT16: tl.constexpr, PHASE: tl.constexpr,
):  # fmt: skip
    """The chapter's trajectory through the hidden layer.

    out, x: (B, D). w1, b1, w2, b2: of the net. lifted: (WIDE + B, WIDE), for W1 W2 transposed, then u. shift: (WIDE,), for W1 b2. hidden: (B, WIDE), for h
    where W1 W2 is not RESIDENT, in registers or shared memory. sums: (B, WIDE), for sum d_i h_i. table: (steps, 3) of t, a, b. counter, patience: of
    `_meet`. B, D, H: examples, pixels, units. whole, offset: prod a, sum d_i. WIDE: H, up to a power of 2. ROWS: examples of a program. TALL, TILE, CHUNK,
    STAGES: of a product before and after, its tile, how many terms at a time and how many loads ahead. BFLOAT16: whether operands are rounded. PHASE: 0
    all, 1 into the hidden layer, 2 the trajectory, 3 back to the pixels.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    i, k = tl.arange(0, TALL), tl.arange(0, TILE)
    across: tl.constexpr = WIDE // TILE
    square: tl.constexpr = WIDE // TALL
    if PHASE < 2:
        for tile in range(program, (square + (B + TALL - 1) // TALL) * across, programs):
            block, unit = tile // across, tile % across * TILE + k
            to, acc = w1 + unit * (D + 1), tl.zeros((TALL, TILE), tl.float32)
            if block < square:
                j = block * TALL + i
                acc = _product(w2 + j, H, j < H, to, 1, unit < H, D, acc, CHUNK, STAGES, BFLOAT16)
                at = j
            else:
                j = (block - square) * TALL + i
                acc = _product(x + j.to(tl.int64) * D, 1, j < B, to, 1, unit < H, D, acc, CHUNK, STAGES, BFLOAT16)
                at = tl.where(j < B, WIDE + j, -1)
            tl.store(lifted + at.to(tl.int64)[:, None] * WIDE + unit[None, :], acc, mask=(at >= 0)[:, None])
        for tile in range(programs - 1 - program, across, programs):  # those that had less to do
            unit, products, part = tile * TILE + k, tl.zeros((TILE, CHUNK), tl.float32), tl.arange(0, CHUNK)
            for first in range(0, D, CHUNK):
                inside = first + part < D
                y = tl.load(w1 + unit[:, None] * (D + 1) + (first + part)[None, :], mask=(unit < H)[:, None] & inside[None, :], other=0)
                products = tl.fma(y, tl.load(b2 + first + part, mask=inside, other=0)[None, :], products)
            tl.store(shift + unit, tl.sum(products, 1))
    meeting, patience = _meet(counter, 0, patience, PHASE)
    if PHASE == 0 or PHASE == 2:
        unit = tl.arange(0, WIDE)
        here = unit < H
        zero = tl.zeros((ROWS, WIDE), tl.float32)  # so that no vector changes its layout in every step
        bias, time = zero + tl.load(b1 + unit, mask=here, other=0)[None, :], zero + tl.load(w1 + unit * (D + 1) + D, mask=here, other=0)[None, :]
        d = zero + tl.load(shift + unit, cache_modifier=".cg")[None, :]
        if RESIDENT:
            m = _operand(tl.load(lifted + unit[:, None] * WIDE + unit[None, :], cache_modifier=".cg"), BFLOAT16)
        for tile in range(program, (B + ROWS - 1) // ROWS, programs):
            row = tile * ROWS + tl.arange(0, ROWS)
            place = row.to(tl.int64)[:, None] * WIDE + unit[None, :]
            u = tl.load(lifted + WIDE * WIDE + place, mask=(row < B)[:, None], other=0, cache_modifier=".cg")
            total = tl.zeros((ROWS, WIDE), tl.float32)
            for step in range(steps):
                t, a, b = tl.load(table + 3 * step), tl.load(table + 3 * step + 1), tl.load(table + 3 * step + 2)
                h = _relu(u + tl.fma(t, time, bias))
                total = tl.fma(a, total, b * h)
                acc = tl.zeros((ROWS, WIDE), tl.float32)
                if RESIDENT:
                    acc = tl.dot(_operand(h, BFLOAT16), m, acc, input_precision="tf32x3")
                else:
                    tl.debug_barrier()
                    tl.store(hidden + place, h, mask=(row < B)[:, None])
                    tl.debug_barrier()
                    for first in range(0, WIDE, CHUNK):
                        j = first + tl.arange(0, CHUNK)
                        y = tl.load(hidden + row.to(tl.int64)[:, None] * WIDE + j[None, :], mask=(row < B)[:, None], other=0)
                        w = tl.load(lifted + j[:, None] * WIDE + unit[None, :])
                        acc = tl.dot(_operand(y, BFLOAT16), _operand(w, BFLOAT16), acc, input_precision="tf32x3")
                u = tl.fma(a, u, b * (acc + d))
            tl.store(sums + place, total, mask=(row < B)[:, None])
    meeting, patience = _meet(counter, meeting, patience, PHASE)
    if PHASE == 0 or PHASE == 3:
        down: tl.constexpr = (D + TILE - 1) // TILE
        for tile in range(program, (B + TALL - 1) // TALL * down, programs):
            example, column = tile // down * TALL + i, tile % down * TILE + k
            acc = tl.zeros((TALL, TILE), tl.float32)
            acc = _product(sums + example.to(tl.int64) * WIDE, 1, example < B, w2 + column * H, 1, column < D, H, acc, CHUNK, STAGES, BFLOAT16)
            pixel, real = example.to(tl.int64)[:, None] * D + column[None, :], (example < B)[:, None] & (column < D)[None, :]
            acc = tl.fma(whole, tl.load(x + pixel, mask=real, other=0), acc + offset * tl.load(b2 + column, mask=column < D, other=0)[None, :])
            if PHASE == 0:
                acc = tl.where(_in_vain(counter, patience), float("nan"), acc)
            tl.store(out + pixel, acc, mask=real)


@triton.jit
def _of_four(element, a, b, c, d):
    """What belongs to each element of the four that its Philox block has."""
    place = element % 4
    return tl.where(place == 0, a, tl.where(place == 1, b, tl.where(place == 2, c, d)))


@triton.jit
def _normals(element, k0, k1, s0, s1):
    """The normal of each element, whichever tile it is in: each makes its whole block. element: int64."""
    z0, z1, z2, z3 = four(element // 4, k0, k1, s0, s1)
    return _of_four(element, z0, z1, z2, z3)


@triton.jit(do_not_specialize=["B", "steps", "depth", "k0", "k1", "first_step", "end_step", "first_block", "end_block", "patience"])
def sample_pixels(
    out, x, w_in, b_in, w_out, b_out, w_time, b_time, classes, blocks, table, keys, counter, labels, features, time, h, x_op, h_op, a_op, g_op, in_op, out_op, blocks_op,
    B, steps, depth, w, limit, k0, k1, first_step, end_step, first_block, end_block, patience,
    D: tl.constexpr, H: tl.constexpr, FEATURES: tl.constexpr, DP: tl.constexpr, HP: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr,
    BRANCHES: tl.constexpr, RESIDUAL: tl.constexpr, NOISY: tl.constexpr, CLIPPED: tl.constexpr, BFLOAT16: tl.constexpr, PHASE: tl.constexpr,
):  # fmt: skip
    """The trajectory of either net by way of the pixels.

    out, x: (B, D). w_in, b_in, w_out, b_out, w_time, b_time, classes: of the net; the chapter's has the first four. blocks: addresses of w1, b1, w2, b2
    of each of depth blocks. table: (steps, 8), of `coefficients.ddim_trajectory`, and t. keys: (steps, 2), streams; k0, k1: of the seed. counter, patience:
    of `_meet`. labels: (BRANCHES, B). features: (steps, FEATURES), of the times. time: (steps, HP), for what they become. h: for what the blocks add to.
    Operands, rows in whole ROWS and columns in whole CHUNKs, DP and HP: x_op; h_op and a_op, a branch after the other; g_op, what the last layer takes; in_op,
    out_op, blocks_op, the weights. B, D, H: examples, pixels, units. w: of the guidance of two BRANCHES. limit: of x0_hat, where CLIPPED. first_step, end_step,
    first_block, end_block: which are done. ROWS, TILE, CHUNK, STAGES: a product's tile, how many terms at a time and how many loads ahead. RESIDUAL: which net.
    NOISY: whether there is any. BFLOAT16: whether operands are rounded. PHASE: 0 all, 1 the beginning, 2 into the hidden layer, 3 and 4 a block's halves, 5 the
    pixels and the step.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    i, k = tl.arange(0, ROWS), tl.arange(0, TILE)
    units: tl.constexpr = HP // TILE
    pixels: tl.constexpr = DP // TILE
    bands, meeting = (B + ROWS - 1) // ROWS, 0
    apart = (bands * ROWS).to(tl.int64) * HP  # one branch from the other
    if PHASE < 2:
        for tile in range(program, bands * pixels, programs):
            row, column = (tile // pixels * ROWS + i).to(tl.int64)[:, None], (tile % pixels * TILE + k)[None, :]
            real = (row < B) & (column < D)
            xt = tl.load(x + row * D + column, mask=real, other=0)
            tl.store(out + row * D + column, xt, mask=real)
            tl.store(x_op + row * DP + column, _operand(xt, BFLOAT16))
        _packed(in_op, w_in, H, D if RESIDUAL else D + 1, D, program, programs, HP, DP, BFLOAT16)
        _packed(out_op, w_out, D, H, H, program, programs, DP, HP, BFLOAT16)
        if RESIDUAL:
            for matrix in range(2 * depth):
                _packed(blocks_op + matrix * (HP * HP), tl.load(blocks + 2 * matrix).to(w_in.dtype), H, H, H, program, programs, HP, HP, BFLOAT16)
            for tile in range(program, (steps + ROWS - 1) // ROWS * units, programs):
                row, unit = tile // units * ROWS + i, tile % units * TILE + k
                acc = tl.zeros((ROWS, TILE), tl.float32)
                acc = _product(features + row * FEATURES, 1, row < steps, w_time + unit * FEATURES, 1, unit < H, FEATURES, acc, 64, 3, False)
                acc = _silu(acc + tl.load(b_time + unit, mask=unit < H, other=0)[None, :])
                tl.store(time + row[:, None] * HP + unit[None, :], acc, mask=(row < steps)[:, None])
    meeting, patience = _meet(counter, meeting, patience, PHASE)
    for step in range(first_step, end_step):
        c = table + 8 * step
        if PHASE == 0 or PHASE == 2:
            for tile in range(program, bands * units, programs):
                row, unit = (tile // units * ROWS + i).to(tl.int64), tile % units * TILE + k
                acc = tl.zeros((ROWS, TILE), tl.float32)
                acc = _padded_product(x_op + row * DP, 1, in_op + unit * DP, 1, DP, acc, CHUNK, STAGES)
                shift, place = tl.load(b_in + unit, mask=unit < H, other=0), row[:, None] * HP + unit[None, :]
                if RESIDUAL:
                    acc += shift[None, :]
                    for branch in tl.static_range(BRANCHES):  # both begin alike
                        tl.store(h + branch * apart + place, acc)
                        tl.store(h_op + branch * apart + place, _operand(acc, BFLOAT16))
                    if depth == 0:
                        tl.store(g_op + place, _operand(_silu(acc), BFLOAT16))
                else:
                    shift = tl.fma(tl.load(c + 7), tl.load(w_in + unit * (D + 1) + D, mask=unit < H, other=0), shift)
                    tl.store(g_op + place, _operand(_relu(acc + shift[None, :]), BFLOAT16))
        meeting, patience = _meet(counter, meeting, patience, PHASE)
        if RESIDUAL:
            for block in range(first_block, end_block):
                w1, w2 = blocks_op + 2 * block * (HP * HP), blocks_op + (2 * block + 1) * (HP * HP)
                b1, b2 = tl.load(blocks + 4 * block + 1).to(w_in.dtype), tl.load(blocks + 4 * block + 3).to(w_in.dtype)
                if PHASE == 0 or PHASE == 3:
                    for tile in range(program, BRANCHES * bands * units, programs):
                        row, unit = (tile // units * ROWS + i).to(tl.int64), tile % units * TILE + k
                        acc = tl.zeros((ROWS, TILE), tl.float32)
                        acc = _padded_product(h_op + row * HP, 1, w1 + unit * HP, 1, HP, acc, CHUNK, STAGES)
                        shift = tl.load(b1 + unit, mask=unit < H, other=0) + tl.load(time + step * HP + unit, cache_modifier=".cg")
                        example, branch = row % (bands * ROWS), row // (bands * ROWS)
                        label = tl.load(labels + branch * B + example, mask=example < B, other=0)
                        acc += shift[None, :] + tl.load(classes + label[:, None] * H + unit[None, :], mask=(unit < H)[None, :], other=0)
                        tl.store(a_op + row[:, None] * HP + unit[None, :], _operand(_silu(acc), BFLOAT16))
                meeting, patience = _meet(counter, meeting, patience, PHASE)
                if PHASE == 0 or PHASE == 4:
                    for tile in range(program, bands * units, programs):
                        row, unit = (tile // units * ROWS + i).to(tl.int64), tile % units * TILE + k
                        shift, g = tl.load(b2 + unit, mask=unit < H, other=0), tl.zeros((ROWS, TILE), tl.float32)
                        for branch in tl.static_range(BRANCHES):
                            acc, place = tl.zeros((ROWS, TILE), tl.float32), branch * apart + row[:, None] * HP + unit[None, :]
                            acc = _padded_product(a_op + branch * apart + row * HP, 1, w2 + unit * HP, 1, HP, acc, CHUNK, STAGES)
                            acc += shift[None, :] + tl.load(h + place, cache_modifier=".cg")
                            tl.store(h + place, acc)
                            tl.store(h_op + place, _operand(acc, BFLOAT16))
                            g = _silu(acc) if branch == 0 else tl.fma(w, _silu(acc) - g, g)  # the last layer is linear
                        tl.store(g_op + row[:, None] * HP + unit[None, :], _operand(g, BFLOAT16))
                meeting, patience = _meet(counter, meeting, patience, PHASE)
        if PHASE == 0 or PHASE == 5:
            for tile in range(program, bands * pixels, programs):
                row, column = (tile // pixels * ROWS + i).to(tl.int64), tile % pixels * TILE + k
                acc = tl.zeros((ROWS, TILE), tl.float32)
                acc = _padded_product(g_op + row * HP, 1, out_op + column * HP, 1, HP, acc, CHUNK, STAGES)
                place, real = row[:, None] * D + column[None, :], (row < B)[:, None] & (column < D)[None, :]
                xt, e = tl.load(out + place, mask=real, other=0, cache_modifier=".cg"), acc + tl.load(b_out + column, mask=column < D, other=0)[None, :]
                xt = ddim_mean(xt, e, tl.load(c), tl.load(c + 1), tl.load(c + 2), tl.load(c + 3), tl.load(c + 4), tl.load(c + 5), limit, CLIPPED)
                if NOISY:
                    sigma = tl.load(c + 6)
                    if sigma != 0:
                        xt = tl.fma(sigma, _normals(place, k0, k1, tl.load(keys + 2 * step), tl.load(keys + 2 * step + 1)), xt)
                tl.store(out + place, xt, mask=real)
                tl.store(x_op + row[:, None] * DP + column[None, :], _operand(tl.where((column < D)[None, :], xt, 0.0), BFLOAT16))
        meeting, patience = _meet(counter, meeting, patience, PHASE)
    if PHASE == 0:
        if _in_vain(counter, patience):
            for tile in range(program, bands * pixels, programs):
                row, column = (tile // pixels * ROWS + i).to(tl.int64)[:, None], (tile % pixels * TILE + k)[None, :]
                tl.store(out + row * D + column, tl.full((ROWS, TILE), float("nan"), tl.float32), mask=(row < B) & (column < D))


@triton.jit
def _stream(step, which):
    """The two words of stream PER_STEP step + which. step: int64."""
    stream = PER_STEP * step + which
    return (stream & 0xFFFFFFFF).to(tl.uint32).to(tl.int32, bitcast=True), (stream >> 32).to(tl.uint32).to(tl.int32, bitcast=True)


@triton.jit
def _below(element, n, k0, k1, s0, s1):
    """floor(word n / 2^32) of each element. element: int64. n: int up to 2^32."""
    w0, w1, w2, w3 = words_of(element // 4, k0, k1, s0, s1)
    word = _of_four(element, w0, w1, w2, w3)
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
def _noised(x, z, data, index, t, alphas, step, batch, k0, k1, program, programs, D: tl.constexpr, DP: tl.constexpr, SIZE: tl.constexpr, BFLOAT16: tl.constexpr):
    """x_t of a step, as an operand, and its noise, of stream 3. alphas: (T + 1, 2), of `coefficients.q_sample`."""
    s0, s1 = _stream(step, 3)
    for first in range(program * SIZE, batch * D, programs * SIZE):
        z0, z1, z2, z3 = four((first // 4 + tl.arange(0, SIZE // 4)).to(tl.int64), k0, k1, s0, s1)
        e, eps = first + tl.arange(0, SIZE), joined(z0, z1, z2, z3, SIZE)
        row, real = e // D, e < batch * D
        column = e - row * D
        which, time = tl.load(index + row, mask=real, other=0, cache_modifier=".cg"), tl.load(t + row, mask=real, other=0, cache_modifier=".cg")
        c0, c1 = tl.load(alphas + 2 * time, mask=real, other=0), tl.load(alphas + 2 * time + 1, mask=real, other=0)
        x0 = tl.load(data + which.to(tl.int64) * D + column, mask=real, other=0)
        tl.store(z + e, eps, mask=real)
        tl.store(x + row * DP + column, _operand(tl.fma(c0, x0, c1 * eps), BFLOAT16), mask=real)


@triton.jit
def _kept(p, m, v, average, place, real):
    """The weights at place and what is kept of them."""
    return (
        tl.load(p + place, mask=real, other=0), tl.load(m + place, mask=real, other=0),
        tl.load(v + place, mask=real, other=0), tl.load(average + place, mask=real, other=0),
    )  # fmt: skip


@triton.jit
def _keep(p, m, v, average, place, real, new, first, second, mean):
    tl.store(p + place, new, mask=real)
    tl.store(m + place, first, mask=real)
    tl.store(v + place, second, mask=real)
    tl.store(average + place, mean, mask=real)


@triton.jit
def _descended(p, m, v, average, g, c, keep, take):
    """The weights and what is kept of them after a step by their gradient g. c: of `coefficients.adam_step`."""
    p, m, v = adam_element(p, g, m, v, tl.load(c), tl.load(c + 1), tl.load(c + 2), tl.load(c + 3), tl.load(c + 4), tl.load(c + 5), tl.load(c + 6), tl.load(c + 7))
    return p, m, v, tl.fma(keep, average, take * p)


@triton.jit
def _owned(
    tile, w1, w2, m_w1, m_w2, v_w1, v_w2, avg_w1, avg_w2, w1_op, w2_op, d_op, dh_op, x_op, a_op,
    D: tl.constexpr, H: tl.constexpr, DP: tl.constexpr, HP: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr,
):  # fmt: skip
    """A tile of w2, or of w1 without its last column: the weights and what is kept of them, where, which are real; the operand and where in it; and
    the operands of the gradient, of outputs and of inputs."""
    across: tl.constexpr = (H + IN - 1) // IN
    along: tl.constexpr = (D + IN - 1) // IN
    second: tl.constexpr = (D + OUT - 1) // OUT * across
    if tile < second:
        p, m, v, average, to, dout, rows = w2, m_w2, v_w2, avg_w2, w2_op, d_op, a_op
        row, column, outputs, inputs, stride, wide = tile // across * OUT, tile % across * IN, D, H, H, HP
    else:
        p, m, v, average, to, dout, rows = w1, m_w1, v_w1, avg_w1, w1_op, dh_op, x_op
        row, column, outputs, inputs, stride, wide = (tile - second) // along * OUT, (tile - second) % along * IN, H, D, D + 1, DP
    o, i = row + tl.arange(0, OUT), column + tl.arange(0, IN)
    real = (o < outputs)[:, None] & (i < inputs)[None, :]
    return p, m, v, average, o[:, None] * stride + i[None, :], real, to, o[:, None] * wide + i[None, :], dout + o, rows + i


@triton.jit(do_not_specialize=["batch", "N", "T", "begun", "steps", "first_step", "end_step", "k0", "k1", "patience"])
def train(
    w1, b1, w2, b2, m_w1, m_b1, m_w2, m_b2, v_w1, v_b1, v_w2, v_b2, avg_w1, avg_b1, avg_w2, avg_b2, losses, data,
    adam, alphas, counter, index, t, z, partial, x_op, a_op, d_op, dh_op, w1_op, w2_op,
    batch, N, T, begun, steps, first_step, end_step, k0, k1, keep, take, scale, patience,
    D: tl.constexpr, H: tl.constexpr, DP: tl.constexpr, HP: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr, PIXELS: tl.constexpr,
    OUT: tl.constexpr, IN: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr, BATCH: tl.constexpr, STATIONARY: tl.constexpr,
    BFLOAT16: tl.constexpr, PHASE: tl.constexpr,
):  # fmt: skip
    """Steps of the chapter's loop.

    w1, b1, w2, b2, m_w1, m_b1, m_w2, m_b2, v_w1, v_b1, v_w2, v_b2, avg_w1, avg_b1, avg_w2, avg_b2: the weights and what is kept of them, changed. losses:
    (steps,). data: (N, D). adam: (steps, 8). alphas: (T + 1, 2), of `coefficients.q_sample`. counter, patience: of `_meet`. index, t: (batch,), (2, batch); t and
    x_op are of this step and of the next. z: (batch, D). partial: one for each tile of the output. Operands, rows in whole BATCHes, columns in whole CHUNKs, DP
    and HP, zeros around what is there: x_op, a_op, d_op, dh_op of the examples; w1_op, w2_op. batch, D, H: examples, pixels, units. begun: the number of the
    first of all steps; first_step, end_step: which are done. k0, k1: of the seed. keep, take: of the average. scale: of the loss's gradient. ROWS, UNITS, PIXELS:
    a product's tile, CHUNK, STAGES: how many terms at a time and how many loads ahead. OUT, IN: of gradients, BATCH at a time. STATIONARY: whether a program
    has the same tile of weights in every step, in its registers. BFLOAT16: whether operands are rounded. PHASE: 0 all, 1 and 2 the beginning, 3 the hidden
    layer, 4 output and loss, 5 back to the hidden layer and the next x_t, 6 gradients and weights.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    i, iu, ip, io, ii = tl.arange(0, ROWS), tl.arange(0, UNITS), tl.arange(0, PIXELS), tl.arange(0, OUT), tl.arange(0, IN)
    units: tl.constexpr = HP // UNITS
    pixels: tl.constexpr = DP // PIXELS
    bands, meeting = (batch + ROWS - 1) // ROWS, 0
    padded = (batch + BATCH - 1) // BATCH * BATCH
    WIDE: tl.constexpr = max(DP, HP)  # of an example's operands
    begun = begun.to(tl.int64)
    if PHASE == 0 or PHASE == 1:
        _drawn(index, t, begun, batch, N, T, k0, k1, program, programs, 128)
        _packed(w1_op, w1, H, D + 1, D, program, programs, HP, DP, BFLOAT16)
        _packed(w2_op, w2, D, H, H, program, programs, DP, HP, BFLOAT16)
        _packed(x_op, w1, 0, 0, 0, program, programs, 2 * padded, WIDE, BFLOAT16)
        _packed(a_op, w1, 0, 0, 0, program, programs, padded, WIDE, BFLOAT16)
        _packed(d_op, w1, 0, 0, 0, program, programs, padded, WIDE, BFLOAT16)
        _packed(dh_op, w1, 0, 0, 0, program, programs, padded, WIDE, BFLOAT16)
    meeting, patience = _meet(counter, meeting, patience, PHASE)
    if PHASE == 0 or PHASE == 2:
        _noised(x_op, z, data, index, t, alphas, begun, batch, k0, k1, program, programs, D, WIDE, 2048, BFLOAT16)
    meeting, patience = _meet(counter, meeting, patience, PHASE)
    weights: tl.constexpr = 2 * ((D + OUT - 1) // OUT) * ((H + IN - 1) // IN)
    if STATIONARY:  # a program has the same weights in every step, and all that is kept of them, in its registers
        p_mine, m_mine, v_mine, average_mine, where_mine, real_mine, _, _, _, _ = _owned(
            program, w1, w2, m_w1, m_w2, v_w1, v_w2, avg_w1, avg_w2, w1_op, w2_op, d_op, dh_op, x_op, a_op, D, H, DP, HP, OUT, IN
        )
        p, m, v, average = _kept(p_mine, m_mine, v_mine, average_mine, where_mine, real_mine & (program < weights))
    for step in range(first_step, end_step):
        now, later = t + step % 2 * batch, t + (step + 1) % 2 * batch
        x_now, x_later = x_op + step % 2 * padded * WIDE, x_op + (step + 1) % 2 * padded * WIDE
        if PHASE == 0 or PHASE == 3:
            for tile in range(program, bands * units, programs):
                row, unit = tile // units * ROWS + i, tile % units * UNITS + iu
                time = tl.load(now + row, mask=row < batch, other=0, cache_modifier=".cg").to(tl.float32)
                column = tl.load(w1 + unit * (D + 1) + D, mask=unit < H, other=0, cache_modifier=".cg")
                bias, acc = tl.load(b1 + unit, mask=unit < H, other=0, cache_modifier=".cg"), tl.zeros((ROWS, UNITS), tl.float32)
                acc = _padded_product(x_now + row * WIDE, 1, w1_op + unit * DP, 1, DP, acc, CHUNK, STAGES)
                acc = tl.fma(time[:, None], column[None, :], acc) + bias[None, :]
                tl.store(a_op + row[:, None] * WIDE + unit[None, :], _operand(_relu(acc), BFLOAT16), mask=(row < batch)[:, None])
            if step + 1 < steps:
                _drawn(index, later, begun + step + 1, batch, N, T, k0, k1, programs - 1 - program, programs, 128)
        meeting, patience = _meet(counter, meeting, patience, PHASE)
        if PHASE == 0 or PHASE == 4:
            for tile in range(program, bands * pixels, programs):
                row, column = tile // pixels * ROWS + i, tile % pixels * PIXELS + ip
                real = (row < batch)[:, None] & (column < D)[None, :]
                bias, acc = tl.load(b2 + column, mask=column < D, other=0, cache_modifier=".cg"), tl.zeros((ROWS, PIXELS), tl.float32)
                eps = tl.load(z + row[:, None] * D + column[None, :], mask=real, other=0, cache_modifier=".cg")
                acc = _padded_product(a_op + row * WIDE, 1, w2_op + column * HP, 1, HP, acc, CHUNK, STAGES)
                r = tl.where(real, acc + bias[None, :] - eps, 0.0)
                tl.store(d_op + row[:, None] * WIDE + column[None, :], _operand(scale * r, BFLOAT16))
                tl.store(partial + tile, tl.sum(tl.sum(r * r, 1), 0))
        meeting, patience = _meet(counter, meeting, patience, PHASE)
        if PHASE == 0 or PHASE == 5:
            for tile in range(program, bands * units, programs):
                row, unit = tile // units * ROWS + i, tile % units * UNITS + iu
                place = row[:, None] * WIDE + unit[None, :]
                h, acc = tl.load(a_op + place, cache_modifier=".cg"), tl.zeros((ROWS, UNITS), tl.float32)
                acc = _padded_product(d_op + row * WIDE, 1, w2_op + unit, HP, DP, acc, CHUNK, STAGES)
                tl.store(dh_op + place, _operand(tl.where(h > 0, acc, 0.0), BFLOAT16))
            busy = bands * units
            busy = tl.where(busy < programs, busy, 0)  # the others, if there are any, do the rest
            if program == busy:
                loss = tl.zeros((128,), tl.float64)
                for first in range(0, bands * pixels, 128):
                    e = first + tl.arange(0, 128)
                    loss += tl.load(partial + e, mask=e < bands * pixels, other=0, cache_modifier=".cg").to(tl.float64)
                tl.store(losses + step, tree_sum(loss, 128) / (batch.to(tl.float64) * D))
            if (step + 1 < steps) & (program >= busy):
                _noised(x_later, z, data, index, later, alphas, begun + step + 1, batch, k0, k1, programs - 1 - program, programs - busy, D, WIDE, 2048, BFLOAT16)
        meeting, patience = _meet(counter, meeting, patience, PHASE)
        if PHASE == 0 or PHASE == 6:
            c = adam + 8 * step
            for tile in range(program, weights, programs):
                p_at, m_at, v_at, average_at, where, there, to, at, dout, rows = _owned(
                    tile, w1, w2, m_w1, m_w2, v_w1, v_w2, avg_w1, avg_w2, w1_op, w2_op, d_op, dh_op, x_now, a_op, D, H, DP, HP, OUT, IN
                )
                if not STATIONARY:
                    p, m, v, average = _kept(p_at, m_at, v_at, average_at, where, there)
                g = tl.zeros((OUT, IN), tl.float32)
                g = _padded_product(dout, WIDE, rows, WIDE, padded, g, BATCH // 2, STAGES)
                p, m, v, average = _descended(p, m, v, average, g, c, keep, take)
                tl.store(to + at, _operand(p, BFLOAT16), mask=there)
                if not STATIONARY:
                    _keep(p_at, m_at, v_at, average_at, where, there, p, m, v, average)
            downs: tl.constexpr = (D + OUT - 1) // OUT
            for tile in range(programs - 1 - program, downs + (H + OUT - 1) // OUT, programs):  # biases and the column of t, by the others
                k = tl.arange(0, BATCH)
                if tile < downs:
                    column, bias = tile * OUT + io, tl.zeros((OUT, BATCH), tl.float32)
                    p1, m1, v1, average1 = _kept(b2, m_b2, v_b2, avg_b2, column, column < D)
                    for b in range(0, padded, BATCH):
                        bias += tl.load(d_op + (b + k)[None, :] * WIDE + column[:, None], cache_modifier=".cg").to(tl.float32)
                    p1, m1, v1, average1 = _descended(p1, m1, v1, average1, tl.sum(bias, 1), c, keep, take)
                    _keep(b2, m_b2, v_b2, avg_b2, column, column < D, p1, m1, v1, average1)
                else:
                    unit = (tile - downs) * OUT + io
                    place1 = unit * (D + 1) + D
                    p1, m1, v1, average1 = _kept(b1, m_b1, v_b1, avg_b1, unit, unit < H)
                    p2, m2, v2, average2 = _kept(w1, m_w1, v_w1, avg_w1, place1, unit < H)
                    bias, times = tl.zeros((OUT, BATCH), tl.float32), tl.zeros((OUT, BATCH), tl.float32)
                    for b in range(0, padded, BATCH):
                        y = tl.load(dh_op + (b + k)[None, :] * WIDE + unit[:, None], cache_modifier=".cg").to(tl.float32)
                        time = tl.load(now + b + k, mask=b + k < batch, other=0, cache_modifier=".cg").to(tl.float32)
                        bias += y
                        times = tl.fma(y, time[None, :], times)
                    p1, m1, v1, average1 = _descended(p1, m1, v1, average1, tl.sum(bias, 1), c, keep, take)
                    p2, m2, v2, average2 = _descended(p2, m2, v2, average2, tl.sum(times, 1), c, keep, take)
                    _keep(b1, m_b1, v_b1, avg_b1, unit, unit < H, p1, m1, v1, average1)
                    _keep(w1, m_w1, v_w1, avg_w1, place1, unit < H, p2, m2, v2, average2)
        meeting, patience = _meet(counter, meeting, patience, PHASE)
        if PHASE == 0:
            if _in_vain(counter, patience):
                tl.store(losses + step, float("nan"))
    if STATIONARY and PHASE == 0:
        if program < weights:
            _keep(p_mine, m_mine, v_mine, average_mine, where_mine, real_mine, p, m, v, average)
