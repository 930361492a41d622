"""What is special to the layers in Numba: transposes and tiles of any layout, a layer with each activation;
results over their inputs, the same bits for any threads and for an example alone."""
import numpy as np
import pytest

from kernels import tolerance
from kernels.numba_cpu import matmul, panels
from kernels.numba_cpu.conv import conv2d
from kernels.numba_cpu.conv_backward import conv2d_backward
from kernels.numba_cpu.engine import MATH
from kernels.numba_cpu.linear import ACTS, linear_act
from numba import njit
from ref import layers
from tests.kernels.backends import BACKENDS, same

FLOATS = pytest.mark.parametrize("dtype", ("float32", "float64"))


def drawn(dtype, *shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def holds(results, truths, sizes, dtype, ulps=8):
    for result, truth, size in zip(results, truths, sizes, strict=True):
        tolerance.assert_matches(result, tolerance.rule(truth, size, ulps, dtype))


def exact(*arrays):
    return [a.astype(np.float64) for a in arrays]


@FLOATS
def test_a_transpose_of_any_size(dtype):
    @njit(**MATH)
    def transpose(o, along, x, stride, rows, columns):
        panels.transpose(o, along, x, stride, rows, columns)

    for rows, columns in ((1, 1), (16, 16), (17, 33), (40, 8), (3, 70)):
        (x,) = drawn(dtype, (rows, columns + 3))
        o = np.full((columns, rows + 2), np.nan, dtype)
        transpose(o.reshape(-1), rows + 2, x.reshape(-1), columns + 3, rows, columns)
        assert same(o[:, :rows], x[:, :columns].T) and np.all(np.isnan(o[:, rows:]))


@FLOATS
def test_a_tile_is_added_to_what_stands_there_and_takes_its_terms_from_anywhere(dtype):
    @njit(**MATH)
    def code(out, a, b, table, rows, depth):
        left, right = matmul.Left(a, 0, depth, 1), matmul.Right(b, 2, table)
        matmul.tile_onto(out, 0, matmul.lanes(out), left, rows, right, depth)

    width = matmul.lanes(np.empty(0, dtype))
    out, a, b = drawn(dtype, (matmul.ROWS, width), (5, 7), 400)
    table = np.array([50, 3, 0, 200, 17, 90, 41])
    terms, first = b[2 + table[:, None] + np.arange(width)], out.copy()
    code(out.reshape(-1), a.reshape(-1), b, table, 5, 7)
    assert np.allclose(out[:5], first[:5] + a @ terms, rtol=0, atol=30 * np.finfo(dtype).eps)


@FLOATS
@pytest.mark.parametrize("taps", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("vectors", [(0,), (0, 1)])
def test_a_tile_of_a_convolution_slides_over_its_pixels(vectors, taps, dtype):
    @njit(**MATH)
    def code(out, a, b, table, taps, width, vectors):
        left, right = matmul.Sliding(a, 1, table, taps), matmul.Right(b, 3, width)
        matmul.slide_onto(out, 2, left, right, vectors, table.size)

    width, table = matmul.lanes(np.empty(0, dtype)) // 2 * len(vectors), np.array([50, 3, 0, 200, 17])
    out, a, b = drawn(dtype, 2 + matmul.ROWS * width + 2, 300, 3 + len(table) * len(taps) * width)
    places = 1 + table[:, None] + np.array(taps)
    terms = a[places.reshape(-1) + np.arange(matmul.ROWS)[:, None]] @ b[3:].reshape(-1, width)
    want = np.concatenate([out[:2], out[2:-2] + terms.reshape(-1), out[-2:]])
    code(out, a, b, table, taps, width, vectors)
    assert np.allclose(out, want, rtol=0, atol=60 * np.finfo(dtype).eps)


@FLOATS
@pytest.mark.parametrize("act", ACTS)
def test_a_layer_with_each_activation(act, dtype):
    for shape, m in (((3, 5, 7), 6), ((70, 300), 130), ((1,), 2)):
        half = m // (1 + (act == "geglu"))
        x, w, b, r = drawn(dtype, shape, (m, shape[-1]), m, (*shape[:-1], half))
        h = np.abs(x.astype(float)) @ np.abs(w.T.astype(float)) + np.abs(b)
        size = 2 * h[..., :half] * (1 + h[..., half:] if act == "geglu" else 1) + np.abs(r)
        holds([linear_act(x, w, b, r, act)], [layers.linear_act(*exact(x, w, b, r), act)], [size], dtype)
        assert same(linear_act(x, w, b, over := r.copy(), act, out=over), linear_act(x, w, b, r, act))


def test_the_same_bits_for_any_threads_an_example_alone_and_over_an_input():
    x, kernel, one, b, dy = drawn("float32", (3, 32, 40, 40), (20, 32, 3, 3), (32, 32, 1, 1), 20, (3, 20, 40, 40))
    rows, w, shift, r = drawn("float32", (600, 64), (128, 64), 128, (600, 64))

    def work():
        return conv2d(x, kernel, b), *conv2d_backward(dy, x, kernel), linear_act(rows, w, shift, r, "geglu")

    first, *others = next(b for b in BACKENDS if b.name == "numba_cpu").repeat(work, 2)
    assert all(same(p, q) for other in others for p, q in zip(other, first, strict=True))
    assert same(conv2d(x[:1].copy(), kernel, b), first[0][:1])
    assert same(linear_act(rows[:1], w, shift, r[:1], "geglu"), first[4][:1])
    flat, over = ((0, 0), (0, 0)), x.copy()
    assert conv2d(over, one, None, 1, flat, out=over) is over and same(over, conv2d(x, one, None, 1, flat))
