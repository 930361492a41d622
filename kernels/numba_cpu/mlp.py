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
from kernels.numba_cpu.launch import COMPILE, INLINE
from kernels.numba_cpu.philox import normal_chunk
from kernels.numba_cpu.stream import wide
from kernels.numba_cpu.tile import ROWS, lanes, lines, product

EXAMPLES = 64  # in a tile, at most: two tiles of a product, so that what was read of the weights is used twice


def tile_of(examples, like):
    """How many examples there are in a tile, padding included: whole tiles of a product. examples: int. like: array. Returns an int."""
    width = lanes(like)
    return min(EXAMPLES, -(-max(examples, 1) // width) * width)


@njit(**INLINE)
def _relu(sums, i, j, o, stride, shift):
    """o = max(sums + shift_i, 0); NaN stays NaN."""
    wide()
    r, c, zero = o[i * stride + j : i * stride + j + sums.size], shift[i], o.dtype.type(0)
    for k in range(sums.size):
        y = sums[k] + c
        r[k] = zero if y < zero else y


@njit(**INLINE)
def _step(sums, i, j, x, stride, bias, z, c, clipped, limit):
    """[DDIM] eq. 12 where x stands, the net's output being sums + bias_i."""
    wide()
    at = i * stride + j
    r, b = x[at : at + sums.size], bias[i]
    if c[6] == 0:
        for k in range(sums.size):
            r[k] = ddim_mean(r[k], sums[k] + b, c, clipped, limit)
    else:
        e = z[at : at + sums.size]
        for k in range(sums.size):
            r[k] = ddim_mean(r[k], sums[k] + b, c, clipped, limit) + c[6] * e[k]


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
def _noise(z, stride, chunk, pixels, first, last, key):
    """z (pixels, stride) = the noise of the examples first .. last - 1 as columns. chunk: CHUNK + 4 numbers to work in."""
    for i in range(first, last):
        column = z[i - first :]
        for k in range(0, pixels, launch.CHUNK):
            lo, hi = i * pixels + k, i * pixels + min(k + launch.CHUNK, pixels)
            begin = lo - lo % 4  # noise comes in blocks of four
            normal_chunk(chunk, begin, hi, key)
            row = chunk[lo - begin : hi - begin]
            for n in range(row.size):
                column[(k + n) * stride] = row[n]


@njit(**COMPILE)
def sample_chapter(lo, hi, out, xt, tile, w1, b1, w2, b2, times, table, keys, clipped, limit):
    """The whole trajectory of the chapter's net for the tiles lo .. hi - 1 of `tile` examples each.

    out, xt: flat (B pixels). w1, b1, w2, b2: flat, of the net. times: (n,). table: (7, n), of `coefficients.ddim_step`. keys: (n, 4), of
    the noise. clipped: whether x0_hat is, to limit.
    """
    wide()
    pixels, width = b2.size, b1.size
    x, a, z = lines(pixels * tile, xt), lines(width * tile, xt), lines(pixels * tile, xt)
    sums, chunk, shift = lines(ROWS * lanes(xt), xt), lines(launch.CHUNK + 8, xt), lines(width, xt)
    for n in range(lo, hi):
        first, last = n * tile, min((n + 1) * tile, xt.size // pixels)
        _turn_in(x, tile, xt, pixels, first, last)
        for i in range(times.size):
            c = seven(table, i, xt)
            if c[6] != 0:
                _noise(z, tile, chunk, pixels, first, last, keys[i])
            for k in range(width):  # t is one more input, and all examples' the same
                shift[k] = b1[k] + times[i] * w1[k * (pixels + 1) + pixels]
            product(_relu, sums, width, w1, 0, pixels + 1, 1, x, 0, tile, pixels, tile, (a, tile, shift))
            product(_step, sums, pixels, w2, 0, width, 1, a, 0, tile, width, tile, (x, tile, b2, z, c, clipped, limit))
        _turn_out(out, pixels, first, last, x, tile)
