"""What `fused.mlp_sample` and `fused.mlp_train` compile: the nets of `ref.nets.mlp`, a tile of examples from end to end.

A tile's examples are the columns: x is (pixels, examples), and so is every layer, so that weights are read where and as they
stand, a number at a time, and a product's lanes are examples. What an example becomes depends on no other example.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
"""
from numba import njit

from kernels.numba_cpu import launch
from kernels.numba_cpu.diffusion import ddim_mean, seven
from kernels.numba_cpu.exponential import silu
from kernels.numba_cpu.launch import COMPILE, INLINE
from kernels.numba_cpu.philox import normal_chunk
from kernels.numba_cpu.stream import wide
from kernels.numba_cpu.tile import ROWS, lanes, lines, product

EXAMPLES = 64  # in a tile, at most: two tiles of a product, so that what was read of the weights is used twice


def tile_of(examples, like, columns=1):
    """How many examples there are in a tile, padding included: whole tiles of a product. examples: int. like: array. columns: of an example. Returns an int."""
    width = lanes(like)
    return min(max(EXAMPLES // columns, width), -(-max(examples, 1) // width) * width)


@njit(**INLINE)
def _relu(sums, i, j, o, stride, shift):
    """o = max(sums + shift_i, 0); NaN stays NaN."""
    wide()
    r, c, zero = o[i * stride + j : i * stride + j + sums.size], shift[i], o.dtype.type(0)
    for k in range(sums.size):
        y = sums[k] + c
        r[k] = zero if y < zero else y


@njit(**INLINE)
def _plus(sums, i, j, o, stride, shift):
    """o = sums + shift_i."""
    wide()
    r, c = o[i * stride + j : i * stride + j + sums.size], shift[i]
    for k in range(sums.size):
        r[k] = sums[k] + c


@njit(**INLINE)
def _more(sums, i, j, o, stride, shift):
    """o <- o + sums + shift_i."""
    wide()
    r, c = o[i * stride + j : i * stride + j + sums.size], shift[i]
    for k in range(sums.size):
        r[k] += sums[k] + c


@njit(**INLINE)
def _silu(sums, i, j, o, stride, shift, label):
    """o = silu(sums + shift_i + label). label: of o's shape."""
    wide()
    at = i * stride + j
    r, y, c = o[at : at + sums.size], label[at : at + sums.size], shift[i]
    for k in range(sums.size):
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
                r[k] += w * (silu(v[k]) - r[k])


@njit(**INLINE)
def _step(sums, i, j, x, stride, bias, c, clipped, limit):
    """[DDIM] eq. 12 without its noise, where x stands; the net's output is sums + bias_i."""
    wide()
    r, b = x[i * stride + j : i * stride + j + sums.size], bias[i]
    for k in range(sums.size):
        r[k] = ddim_mean(r[k], sums[k] + b, c, clipped, limit)


@njit(**INLINE)
def _turn_in(x, stride, xt, pixels, first, last):
    """x (pixels, stride) = the examples first .. last - 1 of xt as columns."""
    for i in range(first, last):
        row, column = xt[i * pixels : (i + 1) * pixels], x[i - first :]
        for k in range(pixels):
            column[k * stride] = row[k]


@njit(**INLINE)
def _turn_out(xt, pixels, first, last, x, stride):
    """The reverse of `_turn_in`."""
    for i in range(first, last):
        row, column = xt[i * pixels : (i + 1) * pixels], x[i - first :]
        for k in range(pixels):
            row[k] = column[k * stride]


@njit(**INLINE)
def _add_noise(x, stride, chunk, pixels, first, last, key, sigma):
    """x (pixels, stride) += sigma times the noise of the examples first .. last - 1, each a column. chunk: CHUNK + 4 numbers to work in."""
    for i in range(first, last):
        column = x[i - first :]
        for k in range(0, pixels, launch.CHUNK):
            lo, hi = i * pixels + k, i * pixels + min(k + launch.CHUNK, pixels)
            begin = lo - lo % 4  # noise comes in blocks of four
            normal_chunk(chunk, begin, hi, key)
            z = chunk[lo - begin : hi - begin]
            for n in range(z.size):
                column[(k + n) * stride] += sigma * z[n]


@njit(**COMPILE)
def sample_chapter(lo, hi, out, xt, tile, w1, b1, w2, b2, times, table, keys, clipped, limit):
    """The whole trajectory of the chapter's net for the tiles lo .. hi - 1 of `tile` examples each.

    out, xt: flat (B pixels). w1, b1, w2, b2: flat, of the net. times: (n,). table: (7, n), of `coefficients.ddim_step`. keys: (n, 4), of
    the noise. clipped: whether x0_hat is, to limit.
    """
    wide()
    pixels, width = b2.size, b1.size
    x, a = lines(pixels * tile, xt), lines(width * tile, xt)
    sums, chunk, shift = lines(ROWS * lanes(xt), xt), lines(launch.CHUNK + 8, xt), lines(width, xt)
    for n in range(lo, hi):
        first, last = n * tile, min((n + 1) * tile, xt.size // pixels)
        _turn_in(x, tile, xt, pixels, first, last)
        for i in range(times.size):
            c = seven(table, i, xt)
            for k in range(width):  # t is one more input, and all examples' the same
                shift[k] = b1[k] + times[i] * w1[k * (pixels + 1) + pixels]
            product(_relu, sums, width, w1, 0, pixels + 1, 1, x, 0, tile, pixels, tile, (a, tile, shift))
            product(_step, sums, pixels, w2, 0, width, 1, a, 0, tile, width, tile, (x, tile, b2, c, clipped, limit))
            if c[6] != 0:
                _add_noise(x, tile, chunk, pixels, first, last, keys[i], c[6])
        _turn_out(out, pixels, first, last, x, tile)


@njit(**COMPILE)
def sample_residual(lo, hi, out, xt, tile, w_in, b_in, classes, w_out, b_out, w1, b1, w2, b2, labels, w, time, table, keys, clipped, limit):
    """The same of the residual net. Where two classes are asked, each example stands in two columns, `tile` apart, and a weight is read for both.

    w_in, b_in, classes, w_out, b_out: flat, of the net. w1, b1, w2, b2: tuples, an array for each block. labels: (asked, B) ints. w: of the
    guidance between the two. time: (n, width), what the net adds for the times. The rest as in `sample_chapter`.
    """
    wide()
    pixels, width, stride = b_out.size, b_in.size, tile * len(labels)
    x, h, a = lines(pixels * tile, xt), lines(width * stride, xt), lines(width * stride, xt)
    label, sums, chunk, shift = lines(width * stride, xt), lines(ROWS * lanes(xt), xt), lines(launch.CHUNK + 8, xt), lines(width, xt)
    for n in range(lo, hi):
        first, last = n * tile, min((n + 1) * tile, xt.size // pixels)
        _turn_in(x, tile, xt, pixels, first, last)
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
                _add_noise(x, tile, chunk, pixels, first, last, keys[i], c[6])
        _turn_out(out, pixels, first, last, x, tile)
