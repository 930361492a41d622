"""Embeddings of a class, of a time and of a place. Arrays keep their dtype.

Papers
    [Transformer]  Vaswani et al., "Attention Is All You Need", 2017
    [CLIP]         Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021
    [MAE]          He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022
    [RoPE]         Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021
"""
import functools
from decimal import localcontext

import numpy as np

from ref.numerics import two_product
from ref.shapes import DIGITS, classes, decimals, integer, numbers


def embedding(w, index):
    """y = w[index]: one learned row a class. w: (classes, n). index: ints of any shape (...). Returns y (..., n).

    Raises ValueError for an index outside [0, classes), TypeError for what are no ints.
    """
    return w[classes(index, w.shape[0], "index")]


def embedding_backward(dy, w, index):
    """Gradient of `embedding` in w: the upstream rows of each class added up; a class that was not used gets 0.

    dy: (..., n). w: (classes, n). index: ints (...). Returns dw. Raises as `embedding` does.
    """
    index, dw = classes(index, w.shape[0], "index"), np.zeros(w.shape, dy.dtype, like=dy)
    if dy.shape != (*index.shape, w.shape[1]):
        raise ValueError(f"dy: expected shape {(*index.shape, w.shape[1])}, got {dy.shape}")
    np.add.at(dw, index.reshape(-1), dy.reshape(-1, w.shape[1]))
    return dw


def text_end(y, ids, end=2):
    """The state of the token that ends each text, [CLIP] section 2.4: the first that is `end`; or, where end is 2 as
    old configurations have it, the one with the largest id.

    y: (B, L, C). ids: (B, L) ints. end: int, the published eos_token_id.
    Returns (B, C).
    """
    return y[np.arange(len(y)), (ids if end == 2 else ids == end).argmax(axis=1)]


def text_end_backward(dstate, y, ids, end=2):
    """Gradient of `text_end`. dstate: (B, C). y, ids, end: as there. Returns dy."""
    dy = np.zeros_like(y)
    dy[np.arange(len(y)), (ids if end == 2 else ids == end).argmax(axis=1)] = dstate
    return dy


def time_embedding(t, width, max_period=10000.0, freq_shift=0, flip_sin_to_cos=False):
    """[Transformer] section 3.5, but sines first, then cosines, which the paper interleaves:

        y_i = sin(t f_i),  y_{i + width/2} = cos(t f_i),   f_i = max_period^(-i / (width/2 - freq_shift))

    for i = 0 .. width/2 - 1. Published networks differ in freq_shift, 0 or 1, and in whether the cosines come first.

    What rounding loses of an angle is kept and added as sin(a + d) = sin(a) + d cos(a), for at t = 1000 it counts.

    t: (B,), below 1e15. width: even. max_period: > 0. freq_shift: number. flip_sin_to_cos: bool.
    Returns (B, width) float64.
    Raises ValueError for a width that is odd or no larger than 2 freq_shift, or max_period <= 0.
    """
    width, (max_period, freq_shift) = integer(width, "width"), numbers(max_period=max_period, freq_shift=freq_shift)
    if width % 2 or width <= 2 * freq_shift:
        raise ValueError(f"width: expected an even number above {2 * freq_shift:g}, got {width}")
    if not 0 < max_period < np.inf:
        raise ValueError(f"max_period: expected a positive, finite number, got {max_period}")
    t, (f, f_rest) = np.asarray(t, np.float64)[:, None], _frequencies(width // 2, max_period, freq_shift)
    angle, rest = two_product(t, f)
    rest, sin, cos = rest + t * f_rest, np.sin(angle), np.cos(angle)
    halves = [sin + rest * cos, cos - rest * sin]
    return np.concatenate(halves[::-1] if flip_sin_to_cos else halves, axis=1)


def sincos_2d(width, grid, scale=1.0):
    """The place of each cell of a grid, row by row, as [MAE] has it in its code: the first half of the width is
    `time_embedding` of the column, the second half of the row.

    width: int that 4 divides. grid: (rows, columns). scale: float, which the places are multiplied by.
    Returns (rows columns, width) float64.
    Raises ValueError for another width.
    """
    if width % 4:
        raise ValueError(f"width: expected a multiple of 4, got {width}")
    row, column = np.indices(grid).reshape(2, -1) * scale
    return np.concatenate([time_embedding(column, width // 2), time_embedding(row, width // 2)], axis=1)


def rope(x, t, base=10000.0):
    """Each pair of neighbours turned by an angle that grows with its place, [RoPE] eq. 34:

        y_{2i} = x_{2i} cos(t f_i) - x_{2i + 1} sin(t f_i),  y_{2i + 1} = x_{2i} sin(t f_i) + x_{2i + 1} cos(t f_i)

    with f_i = base^(-2 i / d), so that a product of two rows depends on how far apart they are alone.

    x: (..., L, d), d even. t: (L,), the places. base: float.
    Returns y, of the shape of x.
    Raises ValueError for an odd d.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"x: expected an even last axis, got {x.shape}")
    sin, cos = np.split(time_embedding(t, x.shape[-1], base).astype(x.dtype), 2, axis=1)  # (L, d/2)
    even, odd = x[..., ::2], x[..., 1::2]
    y = np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)  # (..., L, d/2, 2)
    return y.reshape(x.shape)


def rope_backward(dy, t, base=10000.0):
    """Gradient of `rope`: the turn the other way. dy: as y there. t, base: as there. Returns dx."""
    return rope(dy, -t, base)


@functools.cache
def _frequencies(n, max_period, freq_shift):
    """max_period^(-i / (n - freq_shift)), i = 0 .. n - 1, and what rounding it lost."""
    with localcontext(DIGITS):
        exact = decimals(max_period) ** (-decimals(np.arange(n)) / (n - decimals(freq_shift)))
        return exact.astype(np.float64), (exact - decimals(exact)).astype(np.float64)
