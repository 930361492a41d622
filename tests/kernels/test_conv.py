"""Convolutions of every geometry on every backend, and what NaN of a pixel reaches."""
import importlib

import numpy as np
import pytest

from kernels import tolerance
from ref import layers
from tests.kernels.backends import on_each

GEOMETRY = [  # images, channels, height, width, outputs, kernel, stride, padding
    (2, 3, 7, 9, 5, 3, 1, ((1, 1), (1, 1))), (1, 5, 16, 16, 9, 3, 2, ((0, 1), (0, 1))),
    (2, 40, 33, 20, 17, 1, 1, ((0, 0), (0, 0))), (1, 33, 40, 64, 8, 3, 1, ((1, 1), (1, 1))),
    (1, 4, 9, 11, 3, 3, (1, 2), ((2, 0), (1, 3))), (1, 2, 12, 12, 3, 1, 2, ((0, 0), (0, 0))),
    (1, 2, 12, 13, 3, 4, 3, ((3, 3), (1, 2))), (1, 2, 6, 7, 3, 2, 1, ((3, 3), (4, 2))),
    (3, 1, 1, 1, 1, 1, 1, ((0, 0), (0, 0))),
]  # fmt: skip
FORTH, BACK = layers.conv2d, layers.conv2d_backward


def drawn(*shapes, dtype="float32"):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def called(b, truth, *given):
    """The results of a backend's function of that name, a list. given: NumPy arrays and settings."""
    kernel = getattr(importlib.import_module(f"kernels.{b.name}.layers"), truth.__name__)
    results = kernel(*(b.send(a) if isinstance(a, np.ndarray) else a for a in given))
    return [b.receive(r) for r in (results if isinstance(results, tuple) else (results,))]


def holds(b, truth, *given):
    """Whether the results are the truth's within 8 units of the sizes of their terms."""
    sizes, truths = (truth(*(f(a.astype(np.float64)) if isinstance(a, np.ndarray) else a for a in given))
                     for f in (np.abs, np.asarray))  # fmt: skip
    sizes, truths = (list(found) if truth is BACK else [found] for found in (sizes, truths))
    for result, want, size in zip(called(b, truth, *given), truths, sizes, strict=True):
        tolerance.assert_matches(result, tolerance.rule(want, size, 8, given[0].dtype.name))


def geometries(b):
    dtypes = ("float32", "float64")[: 1 + (b.name == "numba_cpu")]
    return {f"{g} {dtype}": (g, dtype) for g in GEOMETRY for dtype in dtypes}


@on_each(geometries, ["geometry", "dtype"])
def test_convolutions_of_every_geometry(b, geometry, dtype):
    images, channels, h, w, outputs, k, stride, padding = geometry
    x, kernel, bias = drawn((images, channels, h, w), (outputs, channels, k, k), outputs, dtype=dtype)
    for shift in (bias, None):
        holds(b, FORTH, x, kernel, shift, stride, padding)
    (dy,) = drawn(FORTH(x, kernel, None, stride, padding).shape, dtype=dtype)
    holds(b, BACK, dy, x, kernel, stride, padding)


@on_each()
def test_nan_of_a_pixel_reaches_what_the_kernel_takes_it_to_and_no_other(b, monkeypatch):
    if b.name == "numba_cpu":
        monkeypatch.setattr(importlib.import_module("kernels.numba_cpu.conv"), "PIXELS", 16)  # several bands
    x, kernel, dy = drawn((2, 3, 9, 8), (4, 3, 3, 3), (2, 4, 9, 8))
    for place in ((0, 0), (8, 7), (4, 0), (3, 7)):
        spoiled = x.copy()
        spoiled[1, 1][place] = np.nan
        assert np.array_equal(np.isnan(called(b, FORTH, spoiled, kernel)[0]), np.isnan(FORTH(spoiled, kernel)))
        for y, want in zip(called(b, BACK, dy, spoiled, kernel), BACK(dy, spoiled, kernel), strict=True):
            assert np.array_equal(np.isnan(y), np.isnan(want))


@on_each(lambda b: [(1,), (3,)] if b.name == "triton_gpu" else [], ["k"])
def test_weights_whose_sum_has_several_parts_and_an_image_that_is_read_as_it_lies(b, k, monkeypatch):
    backward = importlib.import_module("kernels.triton_gpu.layers.conv_backward")
    monkeypatch.setattr(backward, "tile_of", lambda *_: ((64, 48, 4, 2), 3))
    monkeypatch.setattr(backward, "PIXELS", {True: 64, False: 32})
    x, kernel, dy = drawn((2, 64, 9, 12), (70, 64, k, k), (2, 70, 9, 12))
    padding = ((k // 2, k // 2),) * 2
    holds(b, FORTH, x, kernel, None, 1, padding)
    holds(b, BACK, dy, x, kernel, 1, padding)
