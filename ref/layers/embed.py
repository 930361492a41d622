"""Embeddings of a class and of a time. Arrays keep their dtype.

Papers
    [Transformer]  Vaswani et al., "Attention Is All You Need", 2017
"""
import functools
from decimal import localcontext

import numpy as np

from ref.numerics import two_product
from ref.shapes import DIGITS, classes, decimals, integer, number


def embedding(w, index):
    """y = w[index]: one learned row a class. w: (classes, n). index: ints of any shape (...). Returns y (..., n).

    Raises ValueError for an index outside [0, classes), TypeError for what are no ints.
    """
    return w[classes(index, w.shape[0], "index")]


def embedding_backward(dy, w, index):
    """Gradient of `embedding` in w: the upstream rows of each class added up; a class that was not used gets 0.

    dy: (..., n). w: (classes, n). index: ints (...). Returns dw. Raises as `embedding` does.
    """
    dw = np.zeros(w.shape, dy.dtype)
    np.add.at(dw, classes(index, w.shape[0], "index").reshape(-1), dy.reshape(-1, w.shape[1]))
    return dw


def time_embedding(t, width, max_period=10000.0):
    """[Transformer] section 3.5, but sines first, then cosines, which the paper interleaves:

        y_i = sin(t f_i),  y_{i + width/2} = cos(t f_i),   f_i = max_period^(-2 i / width),  i = 0 .. width/2 - 1

    What rounding loses of an angle is kept and added as sin(a + d) = sin(a) + d cos(a), for at t = 1000 it counts.

    t: (B,), below 1e15. width: even, >= 0. max_period: > 0. Returns (B, width) float64.
    Raises ValueError for an odd width or max_period <= 0.
    """
    width, max_period, t = integer(width, "width"), number(max_period, "max_period"), np.asarray(t, np.float64)[:, None]
    if width % 2 or width < 0:
        raise ValueError(f"width: expected an even number, got {width}")
    if not 0 < max_period < np.inf:
        raise ValueError(f"max_period: expected a positive, finite number, got {max_period}")
    f, f_rest = _frequencies(width // 2, max_period)
    angle, rest = two_product(t, f)
    rest, sin, cos = rest + t * f_rest, np.sin(angle), np.cos(angle)
    return np.concatenate([sin + rest * cos, cos - rest * sin], axis=1)


@functools.cache
def _frequencies(n, max_period):
    """max_period^(-i / n), i = 0 .. n - 1, and what rounding it lost."""
    with localcontext(DIGITS):
        exact = decimals(max_period) ** (-decimals(np.arange(n)) / max(n, 1))
        return exact.astype(np.float64), (exact - decimals(exact)).astype(np.float64)
