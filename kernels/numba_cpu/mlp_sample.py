"""`ref.fused.mlp_sample` on the CPU: a whole trajectory, a tile of examples from end to end. The weights are read in
place, and the step is taken while the net's output is in the first-level cache.

Papers
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
"""
from collections import namedtuple

import numpy as np

from kernels import arguments, coefficients, trajectory
from kernels.numba_cpu import engine, mlp
from kernels.numba_cpu.arrays import column
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.diffusion import ddim_mean
from kernels.numba_cpu.engine import COMPILE, INLINE, element
from kernels.numba_cpu.intrinsics import fma, wide
from kernels.numba_cpu.math import silu
from kernels.numba_cpu.matmul import ROWS, Left, Right, lanes, layer, lines, product
from kernels.numba_cpu.mlp import add_bias, add_to, relu, set_sum, silu_conditioned
from kernels.numba_cpu.mlp import add_tile_noise, tile_noise
from kernels.numba_cpu.panels import transpose

SEVEN = tuple(range(7))  # the coefficients that a DDIM step has


# All steps of a trajectory: coefficients (7, n), keys of the noise (n, 4), and the limit of x0_hat, 0 for none
Steps = namedtuple("Steps", "table keys limit")
# Labels of each branch (1 or 2, B), w of the guidance between two (n, B), what the net adds for each time (n, width)
Conditions = namedtuple("Conditions", "labels w time")
# Hidden-space sampling: W1 W2, W1 b2, where the next row of W1 W2 begins; each step's a and b (2, n); prod a, sum d
Hidden = namedtuple("Hidden", "m shift along steps whole offset")


def mlp_sample(params, xT, times, abar, eta=0.0, seed=0, stream=0, guidance=None, predict="eps", clip=None, out=None):
    """[DDIM] eq. 12 from each time to the next on the CPU, arguments as in `ref.fused.mlp_sample`.

    out: an array like xT, which it may be, or None. An example's result does not depend on its batch.
    """
    shape, dtype = engine.same(xT=xT)
    if len(shape) != 2:
        raise ValueError(f"xT: expected shape (B, pixels), got {shape}")
    times = arguments.descending(times, abar)
    table = trajectory.ddim_trajectory(times, eta, abar, predict)
    steps = Steps(table, _keys(seed, stream, len(times) - 1), _limit(clip, predict, dtype))
    x = engine.flat(xT)
    if "class" in params:
        kernel, net = sample_residual, mlp.residual_weights(params, shape[1], dtype)
        conditions = _conditions(params, net, shape[0], times, guidance)
        tile, more = mlp.tile_of(shape[0], x, len(conditions.labels)), (conditions, steps)
    elif guidance is None:
        kernel, net = sample_simple, mlp.simple_weights(params, shape[1], dtype)
        tile, more = mlp.tile_of(shape[0], x), (np.array(times[:-1], np.float64), steps)
        if clip is None and not table[6].any() and _hidden_is_shorter(net, len(times) - 1):
            kernel, more = sample_hidden, (more[0], _hidden(net, trajectory.ddim_chain(times, abar, predict)))
    else:
        raise ValueError("guidance: expected None for a net without classes")
    memory, _ = engine.output(out, shape, dtype, x, *net)
    work = (len(times) - 1) * shape[0] * sum(w.size for w in net)
    engine.run(kernel, work, memory, x, tile, net, *more, parts=-(-shape[0] // tile))
    return engine.finish(memory, out, shape)


def _keys(seed, stream, steps):
    """The key of the noise of each step, (steps, 4): streams go on from 0 past the last."""
    coefficients.noise_key(seed, stream)
    return np.array([coefficients.noise_key(seed, (stream + i) % 2**64) for i in range(steps)])


def _limit(clip, predict, dtype):
    """The limit of x0_hat, of dtype. Where the net predicts x0 or v, x0_hat is always "clipped", to infinity at
    least."""
    return dtype.type(arguments.clip_limit(clip) if clip is not None or predict != "eps" else 0)


def _conditions(params, net, examples, times, guidance):
    """The `Conditions` of the residual net. net: its `Residual`. The rest as in `mlp_sample`."""
    dtype, width = net.b_in.dtype, net.b_in.size
    w_time = mlp.weight(params, ("time", "w"), dtype, (width, None))
    b_time = mlp.weight(params, ("time", "b"), dtype, (width,))
    h = trajectory.time_embedding(times[:-1], w_time.shape[1]) @ w_time.T.astype(np.float64) + b_time
    labels, w = arguments.branches(guidance, examples, net.classes.size // width - 1, times)
    return Conditions(labels, w.astype(dtype), (h / (1 + np.exp(-h))).astype(dtype))


def _hidden_is_shorter(net, steps):
    """Whether hidden-space sampling has fewer multiply-adds for the fewest examples that a product takes. Never by
    the size of the batch, on which no example may depend. net: `Simple`."""
    width, pixels, examples = net.b1.size, net.b2.size, lanes(net.b1)
    hidden = width * width * (pixels + examples * steps) + 2 * examples * width * pixels
    return hidden < 2 * examples * width * pixels * steps


def _hidden(net, chain):
    """The `Hidden` of a net. net: `Simple`. chain: of `trajectory.ddim_chain`."""
    steps, whole, offset = chain
    width, pixels, across, dtype = net.b1.size, net.b2.size, lanes(net.w1), net.w1.dtype
    along = -(-width // across) * across
    padded, m, shift = np.zeros((pixels, along), dtype), lines(width * along, net.w1), np.empty(width, dtype)
    padded[:, :width] = net.w2.reshape(pixels, width)
    args = m, shift, net.w1, padded.reshape(-1), net.b2, width, along
    engine.run(square, width * net.w1.size, *args, parts=-(-width // ROWS))
    return Hidden(m, shift, along, steps, dtype.type(whole), dtype.type(offset))


# --- what follows a product -------------------------------------------------------------------------------------------


@element
def step(c, u, s, r, y):
    """[DDIM] eq. 12 without its noise, where the net gives s + c. u: coefficients and limit. r: x_t. y: unused."""
    return ddim_mean(u[0], u[1], r, s + c)


@element
def step_hidden(c, u, s, r, y):
    """r <- a r + b (s + c). u: a, b. The rest as in `matmul.layer`: c, s, r, y."""
    return fma(u[0], r, u[1] * (s + c))


@element
def step_whole(c, u, s, r, y):
    """x <- whole x + s + offset bias. c: offset bias. u: whole. The rest as in `matmul.layer`: c, s, r, y."""
    return fma(u[0], r, s + c)


# --- the kernels ------------------------------------------------------------------------------------------------------


@njit(**INLINE)
def finish_step(x, tile, z, steps, i, first, last, pixels):
    """The noise of step i onto a tile x (pixels, tile) of the examples first .. last - 1.
    z: room for it. steps: `Steps`. tile, i, first, last, pixels: ints."""
    sigma = column(steps.table, i, SEVEN, x)[6]
    if sigma != 0:
        noise = tile_noise(z, first * pixels, last * pixels, steps.keys[i])
        add_tile_noise(x, tile, noise, pixels, last - first, sigma)


@njit(**COMPILE)
def sample_simple(lo, hi, out, xt, tile, net, times, steps):
    """The trajectory of `simple_mlp` for the tiles lo .. hi - 1 of `tile` examples each.

    out, xt: flat (B pixels). net: `Simple`. times: (n,). steps: `Steps`.
    """
    wide()
    w1, b1, w2, b2 = net
    pixels, width = b2.size, b1.size
    x, a = Right(lines(pixels * tile, xt), 0, tile), Right(lines(width * tile, xt), 0, tile)
    sums, shift, z = lines(ROWS * lanes(xt), xt), lines(width, xt), lines(tile * pixels, xt)
    for n in range(lo, hi):
        first, last = n * tile, min((n + 1) * tile, xt.size // pixels)
        transpose(x.array, tile, xt[first * pixels :], pixels, last - first, pixels)
        for i in range(times.size):
            # t is one more input, the same for all examples
            for k in range(width):
                shift[k] = b1[k] + times[i] * w1[k * (pixels + 1) + pixels]
            # a = relu(W1 x + shift)
            product(layer, relu, sums, width, Left(w1, 0, pixels + 1, 1), x, pixels, tile, (a, shift, a, ()))
            # x_s from W2 a + b2
            u = (column(steps.table, i, SEVEN, xt), steps.limit)
            product(layer, step, sums, pixels, Left(w2, 0, width, 1), a, width, tile, (x, b2, x, u))
            finish_step(x.array, tile, z, steps, i, first, last, pixels)
        transpose(out[first * pixels :], pixels, x.array, tile, pixels, last - first)


@njit(**COMPILE)
def square(lo, hi, m, shift, w1, w2, b2, width, along):
    """W1 W2 and W1 b2, of W1 the columns of pixels, the groups lo .. hi - 1 of ROWS units. m: (width, along) flat,
    written. shift: (width,), written. w1, b2: of the net, flat. w2: (pixels, along) flat, zeros from width on."""
    wide()
    pixels, sums = b2.size, lines(ROWS * lanes(m), m)
    for group in range(lo, hi):
        first = group * ROWS
        count = min(ROWS, width - first)
        into, left = Right(m, first * along, along), Left(w1, first * (pixels + 1), pixels + 1, 1)
        product(layer, set_sum, sums, count, left, Right(w2, 0, along), pixels, along, (into, shift, into, ()))
        for i in range(first, first + count):
            shift[i] = 0
            for k in range(pixels):
                shift[i] = fma(w1[i * (pixels + 1) + k], b2[k], shift[i])


@njit(**COMPILE)
def sample_hidden(lo, hi, out, xt, tile, net, times, hidden):
    """The trajectory of `simple_mlp` where nothing is clipped and there is no noise: a step is linear in the pixels,
    and what the next one needs of them is u = W1 x. So with eps_hat = W2 h + b2 and x_s = a x_t + b eps_hat it goes
    in the hidden layer:

        h = relu(u + w_t t + b1),   u <- a u + b ((W1 W2) h + W1 b2),   x_0 = (prod a) x_T + W2 sum d_i h_i + (sum
        d_i) b2

    where d_i is b_i times all later a. hidden: `Hidden`. The rest as in `sample_simple`.
    """
    wide()
    w1, b1, w2, b2 = net
    pixels, width = b2.size, b1.size
    x, u = Right(lines(pixels * tile, xt), 0, tile), Right(lines(width * tile, xt), 0, tile)
    h, total = Right(lines(width * tile, xt), 0, tile), Right(lines(width * tile, xt), 0, tile)
    sums, offset = lines(ROWS * lanes(xt), xt), lines(pixels, xt)
    for k in range(pixels):
        offset[k] = hidden.offset * b2[k]
    for n in range(lo, hi):
        first, last = n * tile, min((n + 1) * tile, xt.size // pixels)
        transpose(x.array, tile, xt[first * pixels :], pixels, last - first, pixels)
        # u = W1 x
        product(layer, set_sum, sums, width, Left(w1, 0, pixels + 1, 1), x, pixels, tile, (u, b1, u, ()))
        total.array[:] = xt.dtype.type(0)
        for i in range(times.size):
            a, b = xt.dtype.type(hidden.steps[0, i]), xt.dtype.type(hidden.steps[1, i])
            for k in range(width):
                c = b1[k] + xt.dtype.type(times[i]) * w1[k * (pixels + 1) + pixels]
                one = slice(k * tile, (k + 1) * tile)
                activate(h.array[one], total.array[one], u.array[one], c, a, b)
            # u <- a u + b ((W1 W2) h + W1 b2)
            left = Left(hidden.m, 0, hidden.along, 1)
            product(layer, step_hidden, sums, width, left, h, width, tile, (u, hidden.shift, u, (a, b)))
        # x_0
        args = (x, offset, x, (hidden.whole,))
        product(layer, step_whole, sums, pixels, Left(w2, 0, width, 1), total, width, tile, args)
        transpose(out[first * pixels :], pixels, x.array, tile, pixels, last - first)


@njit(**INLINE)
def activate(h, total, u, c, a, b):
    """h = relu(u + c), total <- a total + b h, of one unit. h, total, u: (tile,). c, a, b: numbers."""
    zero = h.dtype.type(0)
    for j in range(u.size):
        g = u[j] + c
        g = zero if g < zero else g
        h[j] = g
        total[j] = fma(a, total[j], b * g)


@njit(**COMPILE)
def sample_residual(lo, hi, out, xt, tile, net, conditions, steps):
    """The trajectory of `residual`. With two branches each example stands in two columns, `tile` apart, and a weight
    is read for both. net: `Residual`. conditions: `Conditions`. The rest as in `sample_simple`."""
    wide()
    pixels, width, stride = net.b_out.size, net.b_in.size, tile * len(conditions.labels)
    x, h = Right(lines(pixels * tile, xt), 0, tile), Right(lines(width * stride, xt), 0, stride)
    a, label = Right(lines(width * stride, xt), 0, stride), Right(lines(width * stride, xt), 0, stride)
    sums, shift, z = lines(ROWS * lanes(xt), xt), lines(width, xt), lines(tile * pixels, xt)
    weights = lines(tile, xt)
    weights[:] = xt.dtype.type(0)
    for n in range(lo, hi):
        first, last = n * tile, min((n + 1) * tile, xt.size // pixels)
        transpose(x.array, tile, xt[first * pixels :], pixels, last - first, pixels)
        label_columns(label.array, stride, tile, net.classes, conditions.labels, first, last, width)
        for i in range(len(conditions.time)):
            # h = W_in x, the same for both branches
            product(layer, add_bias, sums, width, Left(net.w_in, 0, pixels, 1), x, pixels, tile, (h, net.b_in, h, ()))
            if stride > tile:
                for k in range(0, width * stride, stride):
                    h.array[k + tile : k + stride] = h.array[k : k + tile]
            for begin in range(0, net.b1.size, width):  # of a block
                # a = silu(W1 h + b1 + time + label),  h <- h + W2 a + b2
                for k in range(width):
                    shift[k] = net.b1[begin + k] + conditions.time[i, k]
                left = Left(net.w1, begin * width, width, 1)
                product(layer, silu_conditioned, sums, width, left, h, width, stride, (a, shift, label, ()))
                left, b2 = Left(net.w2, begin * width, width, 1), net.b2[begin : begin + width]
                product(layer, add_to, sums, width, left, a, width, stride, (h, b2, h, ()))
            # x_s from W_out silu(h), guided
            for k in range(last - first):
                weights[k] = conditions.w[i, first + k]
            guided(a.array, h.array, tile, stride, width, weights)
            u = (column(steps.table, i, SEVEN, xt), steps.limit)
            product(layer, step, sums, pixels, Left(net.w_out, 0, width, 1), a, width, tile, (x, net.b_out, x, u))
            finish_step(x.array, tile, z, steps, i, first, last, pixels)
        transpose(out[first * pixels :], pixels, x.array, tile, pixels, last - first)


@njit(**INLINE)
def label_columns(label, stride, tile, classes, labels, first, last, width):
    """The embedding of each example's label, of each branch. label: (width, stride) flat, written. classes: flat.
    labels: (1 or 2, B). stride, tile, first, last, width: ints."""
    for branch in range(len(labels)):
        for i in range(first, last):
            row = labels[branch, i] * width
            for k in range(width):
                label[k * stride + branch * tile + i - first] = classes[row + k]


@njit(**INLINE)
def guided(o, h, tile, stride, width, w):
    """o = silu(h), and of two branches silu(h) + w (silu(h of the second) - silu(h)): the output is linear in it, so
    this is guidance. o, h: (width, stride) flat. tile, stride, width: ints. w: (tile,)."""
    wide()
    for i in range(width):
        r, u = o[i * stride : i * stride + tile], h[i * stride : i * stride + tile]
        for k in range(tile):
            r[k] = silu(u[k])
        if stride > tile:
            v = h[i * stride + tile : i * stride + 2 * tile]
            for k in range(tile):
                r[k] = fma(w[k], silu(v[k]) - r[k], r[k])
