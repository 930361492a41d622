"""What `fused.mlp_sample` and `fused.mlp_train` compile: the nets of `ref.nets.mlp`, a tile of examples from end to end.

A tile's examples are the columns: x is (pixels, examples), and so is every layer, so that weights are read where and as they
stand, a number at a time, and a product's lanes are examples. What an example becomes depends on no other example.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
"""
import numpy as np
from numba import njit

from kernels.numba_cpu import engine
from kernels.numba_cpu.diffusion import ddim_mean, seven, square_error
from kernels.numba_cpu.math import silu
from kernels.numba_cpu.engine import COMPILE, INLINE
from kernels.numba_cpu.optim import adam_ema_rows, eight
from kernels.numba_cpu.philox import normal_chunk
from kernels.numba_cpu.intrinsics import deliver, fma, wide
from kernels.numba_cpu.matmul import ROWS, lanes, lines, product, tile as product_tile
from kernels.numba_cpu.vae import total

BLOCK = 16  # rows of a matrix that is turned, at a time
EXAMPLES = 64  # in a tile, at most: two tiles of a product, so that what was read of the weights is used twice


def tile_of(examples, like, columns=1):
    """How many examples there are in a tile, padding included: whole tiles of a product. examples: int. like: array. columns: of an example. Returns an int."""
    width = lanes(like)
    return min(max(EXAMPLES // columns, width), -(-max(examples, 1) // width) * width)


@njit(**INLINE)
def _relu(sums, i, j, o, stride, shift):
    """o = max(sums + shift_i, 0); NaN stays NaN."""
    wide()
    r, c, zero = o[i * stride + j : i * stride + j + lanes(sums)], shift[i], o.dtype.type(0)
    for k in range(lanes(sums)):
        y = sums[k] + c
        r[k] = zero if y < zero else y


@njit(**INLINE)
def _plus(sums, i, j, o, stride, shift):
    """o = sums + shift_i."""
    wide()
    r, c = o[i * stride + j : i * stride + j + lanes(sums)], shift[i]
    for k in range(lanes(sums)):
        r[k] = sums[k] + c


@njit(**INLINE)
def _more(sums, i, j, o, stride, shift):
    """o <- o + sums + shift_i."""
    wide()
    r, c = o[i * stride + j : i * stride + j + lanes(sums)], shift[i]
    for k in range(lanes(sums)):
        r[k] += sums[k] + c


@njit(**INLINE)
def _silu(sums, i, j, o, stride, shift, label):
    """o = silu(sums + shift_i + label). label: of o's shape."""
    wide()
    at = i * stride + j
    r, y, c = o[at : at + lanes(sums)], label[at : at + lanes(sums)], shift[i]
    for k in range(lanes(sums)):
        r[k] = silu(sums[k] + (c + y[k]))


@njit(**INLINE)
def _guided(o, h, tile, stride, width, w):
    """o = silu(h), and of two branches silu(h) + w (silu(h of the second) - silu(h)): what comes after is linear, so guiding here is guiding there."""
    wide()
    for i in range(width):
        r, u = o[i * stride : i * stride + tile], h[i * stride : i * stride + tile]
        for k in range(tile):
            r[k] = silu(u[k])
        if stride > tile:
            v = h[i * stride + tile : i * stride + 2 * tile]
            for k in range(tile):
                r[k] = fma(w, silu(v[k]) - r[k], r[k])


@njit(**INLINE)
def _step(sums, i, j, x, stride, bias, c, clipped, limit):
    """[DDIM] eq. 12 without its noise, where x stands; the net's output is sums + bias_i."""
    wide()
    r, b = x[i * stride + j : i * stride + j + lanes(sums)], bias[i]
    for k in range(lanes(sums)):
        r[k] = ddim_mean(r[k], sums[k] + b, c, clipped, limit)


@njit(**INLINE)
def _transpose(o, along, x, stride, rows, columns):
    """o[j along + i] = x[i stride + j] for i < rows, j < columns: a line of o at a time, from as many lines of x."""
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        for j in range(columns):
            line, column = o[j * along + first : j * along + first + BLOCK], x[first * stride + j :]
            if count == BLOCK:  # a length that the compiler knows: four times as fast
                for i in range(BLOCK):
                    line[i] = column[i * stride]
            else:
                for i in range(count):
                    line[i] = column[i * stride]


@njit(**INLINE)
def _noise(z, lo, hi, key):
    """The noise of the elements lo .. hi - 1, in z, which has room for 8 more. Noise comes in blocks of four: a tile's first example, a multiple of 4, begins one."""
    normal_chunk(z, lo, hi, key)
    return z[: hi - lo]


@njit(**INLINE)
def _add_noise(x, along, z, pixels, count, sigma):
    """x (pixels, along) += sigma times z (count, pixels), turned as in `_transpose`."""
    for first in range(0, count, BLOCK):
        examples = min(BLOCK, count - first)
        for j in range(pixels):
            line, column = x[j * along + first : j * along + first + examples], z[first * pixels + j :]
            for i in range(examples):
                line[i] = fma(sigma, column[i * pixels], line[i])


@njit(**COMPILE)
def sample_chapter(lo, hi, out, xt, tile, w1, b1, w2, b2, times, table, keys, clipped, limit):
    """The whole trajectory of the chapter's net for the tiles lo .. hi - 1 of `tile` examples each.

    out, xt: flat (B pixels). w1, b1, w2, b2: flat, of the net. times: (n,). table: (7, n), of `coefficients.ddim_step`. keys: (n, 4), of
    the noise. clipped: whether x0_hat is, to limit.
    """
    wide()
    pixels, width = b2.size, b1.size
    x, a = lines(pixels * tile, xt), lines(width * tile, xt)
    sums, shift, z = lines(ROWS * lanes(xt), xt), lines(width, xt), lines(tile * pixels + 8, xt)
    for n in range(lo, hi):
        first, last = n * tile, min((n + 1) * tile, xt.size // pixels)
        _transpose(x, tile, xt[first * pixels :], pixels, last - first, pixels)
        for i in range(times.size):
            c = seven(table, i, xt)
            for k in range(width):  # t is one more input, and all examples' the same
                shift[k] = b1[k] + times[i] * w1[k * (pixels + 1) + pixels]
            product(_relu, sums, width, w1, 0, pixels + 1, 1, x, 0, tile, pixels, tile, (a, tile, shift))
            product(_step, sums, pixels, w2, 0, width, 1, a, 0, tile, width, tile, (x, tile, b2, c, clipped, limit))
            if c[6] != 0:
                _add_noise(x, tile, _noise(z, first * pixels, last * pixels, keys[i]), pixels, last - first, c[6])
        _transpose(out[first * pixels :], pixels, x, tile, pixels, last - first)


@njit(**INLINE)
def _put(sums, i, j, o, stride):
    wide()
    r = o[i * stride + j : i * stride + j + lanes(sums)]
    for k in range(lanes(sums)):
        r[k] = sums[k]


@njit(**COMPILE)
def train_examples(lo, hi, tile, data, index, t, table, key, weights, x, a, d, dh, partial):
    """The first half of a step, the tiles lo .. hi - 1 of `tile` examples each: noising, forward, loss, and back to the hidden layer.

    data: flat (N pixels). index, t: (batch,) ints. table: (2, batch), of `coefficients.q_sample`. key: of the noise. weights: of w1, b1, w2,
    b2 the weight and what else is kept, flat. x, a, d, dh, partial: from `training_memory`, written.
    """
    wide()
    (w1, _, _, _), (b1, _, _, _), (w2, _, _, _), (b2, _, _, _) = weights
    batch, pixels, width = index.size, b2.size, b1.size
    along_x, along_a, along = x.size // batch, a.size // batch, dh.size // width
    xt, at = lines((pixels + 1) * tile, data), lines(width * tile, data)
    sums, noise, c = lines(ROWS * lanes(data), data), lines(tile * pixels + 8, data), data.dtype.type(2.0 / (batch * pixels))
    for n in range(lo, hi):
        first, last = n * tile, min((n + 1) * tile, batch)
        columns = min(tile, along - first)
        z = _noise(noise, first * pixels, last * pixels, key)
        for i in range(first, last):
            row, c0, c1 = x[i * along_x : (i + 1) * along_x], data.dtype.type(table[0, i]), data.dtype.type(table[1, i])
            x0, e = data[index[i] * pixels : (index[i] + 1) * pixels], z[(i - first) * pixels : (i + 1 - first) * pixels]
            for k in range(pixels):
                row[k] = fma(c0, x0[k], c1 * e[k])
            row[pixels] = t[i]
        _transpose(d[first:], along, z, pixels, last - first, pixels)
        _transpose(xt, tile, x[first * along_x :], along_x, last - first, pixels + 1)
        product(_relu, sums, width, w1, 0, pixels + 1, 1, xt, 0, tile, pixels + 1, columns, (at, tile, b1))
        _transpose(a[first * along_a :], along_a, at, tile, width, last - first)
        product(_residue, sums, pixels, w2, 0, width, 1, at, 0, tile, width, columns, (d, along, first, batch, b2, c, partial))
        product(_relu_back, sums, width, w2, 0, 1, width, d, first, along, pixels, columns, (dh, along, first, at, tile))


@njit(**INLINE)
def _ahead(sums, i, j, u, stride, shift, a, b):
    """u <- a u + b (sums + shift_i)."""
    wide()
    r, c = u[i * stride + j : i * stride + j + lanes(sums)], shift[i]
    for k in range(lanes(sums)):
        r[k] = fma(a, r[k], b * (sums[k] + c))


@njit(**INLINE)
def _back(sums, i, j, x, stride, bias, whole, offset):
    """x <- whole x + sums + offset bias_i."""
    wide()
    r, c = x[i * stride + j : i * stride + j + lanes(sums)], offset * bias[i]
    for k in range(lanes(sums)):
        r[k] = fma(whole, r[k], sums[k] + c)


@njit(**COMPILE)
def square(lo, hi, m, shift, w1, w2, b2, width, along):
    """W1 W2 and W1 b2, of W1 the columns of pixels, the groups lo .. hi - 1 of ROWS units. m: (width, along) flat, written. shift: (width,), written. w1, b2: of
    the net, flat. w2: (pixels, along) flat, zeros from width on."""
    wide()
    pixels, sums = b2.size, lines(ROWS * lanes(m), m)
    for group in range(lo, hi):
        first = group * ROWS
        count = min(ROWS, width - first)
        product(_put, sums, count, w1, first * (pixels + 1), pixels + 1, 1, w2, 0, along, pixels, along, (m[first * along :], along))
        for i in range(first, first + count):
            shift[i] = 0
            for k in range(pixels):
                shift[i] = fma(w1[i * (pixels + 1) + k], b2[k], shift[i])


@njit(**COMPILE)
def sample_hidden(lo, hi, out, xt, tile, w1, b1, w2, b2, m, shift, along, times, steps, whole, offset):
    """The chapter's trajectory where nothing is clipped and there is no noise: a step is linear in the pixels, and what the next one wants of them is
    u = W1 x. So with eps_hat = W2 h + b2 and x_s = a x_t + b eps_hat it goes, in the hidden layer alone,

        h = relu(u + w_t t + b1),   u <- a u + b ((W1 W2) h + W1 b2),   and at the end   x_0 = (prod a) x_T + W2 sum d_i h_i + (sum d_i) b2

    where d_i is b_i times all later a. m, shift, along: of `square`. steps: (2, n), a and b. whole, offset: prod a, sum d_i. The rest as in `sample_chapter`.
    """
    wide()
    pixels, width = b2.size, b1.size
    x, u, h, total = lines(pixels * tile, xt), lines(width * tile, xt), lines(width * tile, xt), lines(width * tile, xt)
    sums, zero = lines(ROWS * lanes(xt), xt), xt.dtype.type(0)
    for n in range(lo, hi):
        first, last = n * tile, min((n + 1) * tile, xt.size // pixels)
        _transpose(x, tile, xt[first * pixels :], pixels, last - first, pixels)
        product(_put, sums, width, w1, 0, pixels + 1, 1, x, 0, tile, pixels, tile, (u, tile))
        total[:] = zero
        for i in range(times.size):
            a, b = xt.dtype.type(steps[0, i]), xt.dtype.type(steps[1, i])
            for k in range(width):
                c = b1[k] + xt.dtype.type(times[i]) * w1[k * (pixels + 1) + pixels]
                r, y, z = h[k * tile : (k + 1) * tile], u[k * tile : (k + 1) * tile], total[k * tile : (k + 1) * tile]
                for j in range(tile):
                    g = y[j] + c
                    g = zero if g < zero else g
                    r[j] = g
                    z[j] = fma(a, z[j], b * g)
            product(_ahead, sums, width, m, 0, along, 1, h, 0, tile, width, tile, (u, tile, shift, a, b))
        product(_back, sums, pixels, w2, 0, width, 1, total, 0, tile, width, tile, (x, tile, b2, xt.dtype.type(whole), xt.dtype.type(offset)))
        _transpose(out[first * pixels :], pixels, x, tile, pixels, last - first)


@njit(**COMPILE)
def sample_residual(lo, hi, out, xt, tile, w_in, b_in, classes, w_out, b_out, w1, b1, w2, b2, labels, w, time, table, keys, clipped, limit):
    """The same of the residual net. Where two classes are asked, each example stands in two columns, `tile` apart, and a weight is read for both.

    w_in, b_in, classes, w_out, b_out: flat, of the net. w1, b1, w2, b2: tuples, an array for each block. labels: (asked, B) ints. w: of the
    guidance between the two. time: (n, width), what the net adds for the times. The rest as in `sample_chapter`.
    """
    wide()
    pixels, width, stride = b_out.size, b_in.size, tile * len(labels)
    x, h, a = lines(pixels * tile, xt), lines(width * stride, xt), lines(width * stride, xt)
    label, sums, shift, z = lines(width * stride, xt), lines(ROWS * lanes(xt), xt), lines(width, xt), lines(tile * pixels + 8, xt)
    for n in range(lo, hi):
        first, last = n * tile, min((n + 1) * tile, xt.size // pixels)
        _transpose(x, tile, xt[first * pixels :], pixels, last - first, pixels)
        for asked in range(len(labels)):
            for i in range(first, last):
                row = labels[asked, i] * width
                for k in range(width):
                    label[k * stride + asked * tile + i - first] = classes[row + k]
        for i in range(len(time)):
            c = seven(table, i, xt)
            product(_plus, sums, width, w_in, 0, pixels, 1, x, 0, tile, pixels, tile, (h, stride, b_in))
            if stride > tile:  # both branches begin alike
                for k in range(0, width * stride, stride):
                    h[k + tile : k + stride] = h[k : k + tile]
            for block in range(len(w1)):
                for k in range(width):
                    shift[k] = b1[block][k] + time[i, k]
                product(_silu, sums, width, w1[block], 0, width, 1, h, 0, stride, width, stride, (a, stride, shift, label))
                product(_more, sums, width, w2[block], 0, width, 1, a, 0, stride, width, stride, (h, stride, b2[block]))
            _guided(a, h, tile, stride, width, w)
            product(_step, sums, pixels, w_out, 0, width, 1, a, 0, stride, width, tile, (x, tile, b_out, c, clipped, limit))
            if c[6] != 0:
                _add_noise(x, tile, _noise(z, first * pixels, last * pixels, keys[i]), pixels, last - first, c[6])
        _transpose(out[first * pixels :], pixels, x, tile, pixels, last - first)


def training_memory(batch, pixels, width, like):
    """The examples of a tile, and what lies between the two halves of a training step: [x, t] and the hidden layer a row an example, gradients of
    the output and of the hidden layer a column an example, lines of whole tiles; the sums of the loss. batch, pixels, width: ints. like: array."""
    lane = lanes(like)
    x, a, columns = (-(-n // lane) * lane for n in (pixels + 1, width, batch))
    shapes = (batch * x, batch * a, pixels * columns, width * columns)
    return tile_of(batch, like), *(lines(size, like) for size in shapes), np.empty(pixels * (columns // lane))


def weight_tiles(pixels, width):
    """How many groups of ROWS outputs there are, of the second layer and then of the first. pixels, width: ints."""
    return -(-pixels // ROWS) + -(-width // ROWS)


@njit(**INLINE)
def _residue(sums, i, j, d, stride, first, batch, bias, c, partial):
    """d, which holds the noise, becomes c (eps_hat - noise), and partial the sum of squares of this row and tile. eps_hat = sums + bias_i."""
    wide()
    at, b = i * stride + first + j, bias[i]
    z, inside = d[at : at + lanes(sums)], min(lanes(sums), batch - first - j)
    for k in range(lanes(sums)):
        sums[k] += b
    partial[at // lanes(sums)] = square_error(sums[:inside], z[:inside])
    for k in range(lanes(sums)):
        z[k] = c * (sums[k] - z[k])


@njit(**INLINE)
def _relu_back(sums, i, j, dh, stride, first, a, tile):
    """dh = sums where the hidden layer is above 0."""
    wide()
    at, zero = i * stride + first + j, dh.dtype.type(0)
    r, y = dh[at : at + lanes(sums)], a[i * tile + j : i * tile + j + lanes(sums)]
    for k in range(lanes(sums)):
        s = sums[k]  # read in any case, or each element is a branch that is guessed wrong half the time
        r[k] = s if y[k] > zero else zero


@njit(**INLINE)
def _normal(chunk, size):
    """What is below the least normal number becomes 0. A unit that is never on leaves its moments there for ever, since nine tenths of the smallest number
    are rounded to it again, and a processor calculates with such numbers a hundred times as slowly."""
    wide()
    zero, least = chunk.dtype.type(0), np.finfo(chunk.dtype).tiny
    for k in range(size):
        x = chunk[k]
        chunk[k] = zero if abs(x) < least else x


@njit(**INLINE)
def _descend(lo, weight, g, chunks, c, keep, take):
    """The weights from lo on and all that is kept of them, by their gradient g."""
    p, m, v, average = weight
    for k in range(0, g.size, engine.CHUNK):
        size = min(engine.CHUNK, g.size - k)
        begin, end = lo + k, lo + k + size
        adam_ema_rows(chunks[0], chunks[1], chunks[2], chunks[3], 0, size, p[begin:end], g[k : k + size], m[begin:end], v[begin:end], average[begin:end], c, keep, take)
        _normal(chunks[1], size)
        _normal(chunks[2], size)
        deliver(p, begin, end, chunks[0], engine.OVER)
        deliver(m, begin, end, chunks[1], engine.OVER)
        deliver(v, begin, end, chunks[2], engine.OVER)
        deliver(average, begin, end, chunks[3], engine.OVER)


@njit(**COMPILE)
def train_weights(lo, hi, batch, pixels, width, weights, x, a, d, dh, c, decay):
    """The second half of a step: for the groups lo .. hi - 1 of `weight_tiles`, gradients summed over the batch in its order, and the update.

    batch, pixels, width: ints. weights: as in `train_examples`, changed. x, a, d, dh: what that wrote. c, decay: of `coefficients`.
    """
    wide()
    c, keep, take = eight(c, x), x.dtype.type(decay[0, 0]), x.dtype.type(decay[1, 0])
    chunks, along, seconds = np.empty((4, engine.CHUNK), x.dtype), dh.size // width, -(-pixels // ROWS)
    g, one = lines(ROWS * max(x.size, a.size) // batch, x), np.empty(1, x.dtype)
    for group in range(lo, hi):
        if group < seconds:
            first, outputs, inputs, dout, rows, weight, bias = group * ROWS, pixels, width, d, a, weights[2], weights[3]
        else:
            first, outputs, inputs, dout, rows, weight, bias = (group - seconds) * ROWS, width, pixels + 1, dh, x, weights[0], weights[1]
        count, stride = min(ROWS, outputs - first), rows.size // batch
        for j in range(0, stride, lanes(x)):
            product_tile(g, j, stride, dout, first * along, along, 1, count, rows, j, stride, batch)
        for i in range(count):
            _descend((first + i) * inputs, weight, g[i * stride : i * stride + inputs], chunks, c, keep, take)
            one[0] = total(dout[(first + i) * along : (first + i) * along + batch])
            _descend(first + i, bias, one, chunks, c, keep, take)
