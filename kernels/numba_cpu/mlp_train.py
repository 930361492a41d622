"""`ref.fused.mlp_train` on the CPU: steps of the training loop of `simple_mlp`. A tile of examples goes forward and
back while it is in cache, and a weight is updated with its average where its gradient has been summed.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [AdamW] Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
"""
from collections import namedtuple

import numpy as np

from kernels import arguments, coefficients
from kernels.numba_cpu import engine, philox
from kernels.numba_cpu.arrays import column
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.diffusion import linear
from kernels.numba_cpu.engine import CHUNK, COMPILE, INLINE, OVER
from kernels.numba_cpu.intrinsics import deliver, wide
from kernels.numba_cpu.matmul import ROWS, Left, Right, lanes, layer, lines, product, tile as product_tile
from kernels.numba_cpu.mlp import Simple, relu, relu_back, simple_weights, tile_noise, tile_of
from kernels.numba_cpu.optim import adam_ema
from kernels.numba_cpu.panels import transpose
from kernels.numba_cpu.reduce import square_error, total
from kernels.numba_cpu.rowwise import fill

AHEAD = 16  # steps whose draws are made together: a step's products leave nothing of Python in the cache
TWO, TEN = tuple(range(2)), tuple(range(10))  # the coefficients that noising and an update have


# A weight with all that Adam and the average keep of it, flat
Weight = namedtuple("Weight", "p m v average")
# What a step draws: examples and times (batch,), coefficients of `q_sample` (2, batch), the key of the noise (4,)
Batch = namedtuple("Batch", "index t table key")
# What lies between the two halves of a step: [x, t] and the hidden layer, a row an example; gradients of the output
# and of the hidden layer, a column an example; lines of whole tiles. And the sums of the loss
Between = namedtuple("Between", "x a dout dh partial")


def mlp_train(
    params, data, steps, batch, lr, seed, abar,
    state=None, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decay=0.0,
):
    """[DDPM] algorithm 1 with [AdamW] and a moving average on the CPU, arguments as in `ref.fused.mlp_train`.

    Everything returned is new: nothing given is changed. The same bits for any number of threads.
    """
    shape, dtype = engine.same(data=data)
    if len(shape) != 2:
        raise ValueError(f"data: expected shape (N, pixels), got {shape}")
    done = arguments.steps_done(steps, batch, state)
    pixels, data = shape[1], engine.flat(data)
    net = _kept(params, state, pixels, dtype)
    width, losses, keep = net.b1.p.size, np.empty(steps), coefficients.ema_step(decay)
    tile, between = tile_of(batch, data), _between(batch, pixels, width, data)
    work, groups = batch * (net.w1.p.size + net.w2.p.size), -(-pixels // ROWS) + -(-width // ROWS)
    for i in range(steps):
        if i % AHEAD == 0:
            numbers = range(done + 1 + i, done + 1 + min(i + AHEAD, steps))
            ahead = [_drawn(seed, number, batch, shape[0], abar) for number in numbers]
        # forward, loss, and back to the hidden layer
        drawn = ahead[i % AHEAD]
        engine.run(train_examples, 2 * work, tile, data, net, drawn, between, parts=-(-batch // tile))
        losses[i] = between.partial.sum() / (batch * pixels)
        # gradients of the weights, and the update
        adam = coefficients.adam_step(done + 1 + i, lr, beta1, beta2, eps, weight_decay).reshape(-1, 1)
        table = np.concatenate([adam, keep])
        engine.run(train_weights, work, batch, net, between, table, parts=groups)
    new, m, v, average = (_shaped(arrays, pixels, width) for arrays in zip(*net))
    return new, {"step": done + steps, "m": m, "v": v, "average": average}, losses


def _kept(params, state, pixels, dtype):
    """A `Simple` of `Weight`s, copies of what params and state hold, after the check."""
    p = simple_weights(params, pixels, dtype)
    if state is None:
        m = v = [np.zeros_like(array) for array in p]
        average = p
    else:
        names = ("m", "v", "average")
        m, v, average = (simple_weights(state[k], pixels, dtype, f"state[{k!r}]", p.b1.size) for k in names)
    return Simple(*(Weight(*(array.copy() for array in arrays)) for arrays in zip(p, m, v, average)))


def _shaped(arrays, pixels, width):
    """A dict of the net's parameters. arrays: as in `Simple`, flat."""
    shapes = {"w1": (width, pixels + 1), "b1": (width,), "w2": (pixels, width), "b2": (pixels,)}
    return {name: array.reshape(shape) for (name, shape), array in zip(shapes.items(), arrays)}


def _drawn(seed, step, batch, examples, abar):
    """The `Batch` of a step, from (seed, step) alone."""
    stream = coefficients.PER_STEP * step
    index = philox.below(seed, batch, examples, stream)
    t = 1 + philox.below(seed, batch, len(abar) - 1, stream + 1)
    return Batch(index, t, coefficients.q_sample(t, abar, t.shape), coefficients.noise_key(seed, stream + 3))


def _between(batch, pixels, width, like):
    """The `Between` of a training run. batch, pixels, width: ints. like: array."""
    lane = lanes(like)
    x, a, columns = (-(-n // lane) * lane for n in (pixels + 1, width, batch))
    shapes = (batch * x, batch * a, pixels * columns, width * columns)
    return Between(*(lines(size, like) for size in shapes), np.empty(pixels * (columns // lane)))


# --- the first half of a step: tiles of examples ----------------------------------------------------------------------


@njit(**INLINE)
def noised(row, data, noise, batch, i, pixels):
    """[DDPM] eq. 4 and t, of example i of the batch. row: (pixels + 1, ...), written. data: flat. noise: (pixels,).
    batch: `Batch`. i, pixels: ints."""
    c = column(batch.table, i, TWO, row)
    x0 = data[batch.index[i] * pixels : (batch.index[i] + 1) * pixels]
    for k in range(pixels):
        row[k] = linear(c, (), x0[k], noise[k])
    row[pixels] = batch.t[i]


@njit(**INLINE)
def residue(element, row, i, j, d, first, batch, bias, c, partial):
    """d, which holds the noise, becomes c (eps_hat - noise), and partial the sum of squares of this row and tile,
    where eps_hat = row + bias_i. element: none. row, i, j: as `product` gives them. d: `Right`. bias: array. first,
    batch: ints. c: number."""
    wide()
    at, b = d.first + i * d.stride + j, bias[i]
    z, inside = d.array[at : at + lanes(row)], min(lanes(row), batch - first - j)
    for k in range(lanes(row)):
        row[k] += b
    partial[at // lanes(row)] = square_error(row[:inside], z[:inside])
    for k in range(lanes(row)):
        z[k] = c * (row[k] - z[k])


@njit(**COMPILE)
def train_examples(lo, hi, tile, data, net, batch, between):
    """The tiles lo .. hi - 1 of `tile` examples each: noising, forward, loss, and back to the hidden layer.

    data: flat (N pixels). net: `Simple` of `Weight`s. batch: `Batch`. between: `Between`, written.
    """
    wide()
    w1, b1, w2, b2 = net.w1.p, net.b1.p, net.w2.p, net.b2.p
    size, pixels, width = batch.index.size, b2.size, b1.size
    along_x, along_a, along = between.x.size // size, between.a.size // size, between.dh.size // width
    xt, a = Right(lines((pixels + 1) * tile, data), 0, tile), Right(lines(width * tile, data), 0, tile)
    sums, room = lines(ROWS * lanes(data), data), lines(tile * pixels, data)
    c = data.dtype.type(2.0 / (size * pixels))
    for n in range(lo, hi):
        first, last = n * tile, min((n + 1) * tile, size)
        columns = min(tile, along - first)
        dout, dh = Right(between.dout, first, along), Right(between.dh, first, along)
        # x_t, and the noise where the gradient of the output will stand
        z = tile_noise(room, first * pixels, last * pixels, batch.key)
        for i in range(first, last):
            row = between.x[i * along_x : (i + 1) * along_x]
            noised(row, data, z[(i - first) * pixels : (i + 1 - first) * pixels], batch, i, pixels)
        transpose(between.dout[first:], along, z, pixels, last - first, pixels)
        transpose(xt.array, tile, between.x[first * along_x :], along_x, last - first, pixels + 1)
        # a = relu(W1 [x, t] + b1)
        product(layer, relu, sums, width, Left(w1, 0, pixels + 1, 1), xt, pixels + 1, columns, (a, b1, a, ()))
        transpose(between.a[first * along_a :], along_a, a.array, tile, width, last - first)
        # the loss of W2 a + b2, and its gradient
        args = (dout, first, size, b2, c, between.partial)
        product(residue, relu, sums, pixels, Left(w2, 0, width, 1), a, width, columns, args)
        # dh = W2^T dout where a > 0
        product(layer, relu_back, sums, width, Left(w2, 0, 1, width), dout, pixels, columns, (dh, b1, a, ()))


# --- the second half of a step: groups of weights ---------------------------------------------------------------------


@njit(**INLINE)
def flush(chunk, size):
    """What is below the least normal number becomes 0. The moments of a unit that is never on would stay there, since
    nine tenths of the smallest number round to it again, and a processor takes a hundred times as long for such
    numbers. chunk: array, changed. size: int."""
    wide()
    zero, least = chunk.dtype.type(0), np.finfo(chunk.dtype).tiny
    for k in range(size):
        x = chunk[k]
        chunk[k] = zero if abs(x) < least else x


@njit(**INLINE)
def descend(lo, weight, g, chunks, c):
    """A weight from lo on and all that is kept of it, by its gradient g. lo: int. weight: `Weight`. g: array. chunks:
    (4, CHUNK). c: coefficients of `adam_ema`."""
    for k in range(0, g.size, CHUNK):
        size = min(CHUNK, g.size - k)
        begin, end = lo + k, lo + k + size
        p, m, v, average = weight.p[begin:end], weight.m[begin:end], weight.v[begin:end], weight.average[begin:end]
        values, outs = (p, g[k : k + size], m, v, average), (chunks[0], chunks[1], chunks[2], chunks[3])
        fill(adam_ema, c, (), size, outs, 0, values, 0, (), 0)
        flush(chunks[1], size)
        flush(chunks[2], size)
        deliver(weight.p, chunks[0], begin, end, OVER)
        deliver(weight.m, chunks[1], begin, end, OVER)
        deliver(weight.v, chunks[2], begin, end, OVER)
        deliver(weight.average, chunks[3], begin, end, OVER)


@njit(**INLINE)
def descend_layer(first, count, inputs, weight, bias, dout, rows, batch, g, chunks, c):
    """The outputs first .. first + count - 1 of a layer: their gradients, summed over the batch in its order, and the
    update.

    inputs, batch: ints. weight, bias: `Weight`. dout: (outputs, columns) flat, of the layer. rows: (batch, inputs
    padded) flat. g: room for the gradients. chunks: (4, CHUNK). c: coefficients of `adam_ema`."""
    along, stride, one = dout.size // bias.p.size, rows.size // batch, np.empty(1, g.dtype)
    # dW = dout rows
    for j in range(0, stride, lanes(g)):
        left = Left(dout, first * along, along, 1)
        product_tile(g, j, stride, left, count, Right(rows, j, stride), batch)
    for i in range(count):
        descend((first + i) * inputs, weight, g[i * stride : i * stride + inputs], chunks, c)
        one[0] = total(dout[(first + i) * along : (first + i) * along + batch])
        descend(first + i, bias, one, chunks, c)


@njit(**COMPILE)
def train_weights(lo, hi, batch, net, between, table):
    """The groups lo .. hi - 1 of ROWS outputs, of the second layer and then of the first: gradients and update.

    batch: int. net: `Simple` of `Weight`s, changed. between: `Between`, of `train_examples`. table: (10, 1), of
    `adam_ema`."""
    wide()
    x, a, c = between.x, between.a, column(table, 0, TEN, between.x)
    pixels, width = net.b2.p.size, net.b1.p.size
    chunks, g = np.empty((4, CHUNK), x.dtype), lines(ROWS * max(x.size, a.size) // batch, x)
    seconds = -(-pixels // ROWS)
    for group in range(lo, hi):
        if group < seconds:
            first, outputs, inputs = group * ROWS, pixels, width
            dout, rows, weight, bias = between.dout, a, net.w2, net.b2
        else:
            first, outputs, inputs = (group - seconds) * ROWS, width, pixels + 1
            dout, rows, weight, bias = between.dh, x, net.w1, net.b1
        count = min(ROWS, outputs - first)
        descend_layer(first, count, inputs, weight, bias, dout, rows, batch, g, chunks, c)
