"""Embeddings of a class and of a time. Arrays keep their dtype.

Papers
    [Transformer]  Vaswani et al., "Attention Is All You Need", 2017
"""
import numpy as np


def embedding(w, index):
    """y = w[index]: one learned row a class. w: (classes, n). index: ints of any shape (...). Returns y (..., n).

    Raises ValueError for an index outside [0, classes).
    """
    if index.size and not (0 <= index.min() and index.max() < w.shape[0]):
        raise ValueError(f"index: expected 0 <= index < {w.shape[0]}, got {index.min()} to {index.max()}")
    return w[index]


def embedding_backward(dy, w, index):
    """Gradient of `embedding` in w: the upstream rows of each class added up; a class that was not used gets 0.

    dy: (..., n). w: (classes, n). index: ints (...). Returns dw.
    """
    dw = np.zeros(w.shape, dy.dtype)
    np.add.at(dw, index.reshape(-1), dy.reshape(-1, w.shape[1]))
    return dw


def time_embedding(t, width, max_period=10000.0):
    """[Transformer] section 3.5, but sines first, then cosines, which the paper interleaves:

        y_i = sin(t f_i),  y_{i + width/2} = cos(t f_i),   f_i = max_period^(-2 i / width),  i = 0 .. width/2 - 1

    t: (B,). width: even. Returns (B, width) float64.
    Raises ValueError for an odd width.
    """
    if width % 2:
        raise ValueError(f"width: expected an even number, got {width}")
    f = max_period ** (-np.arange(width // 2) / (width // 2))
    angle = np.asarray(t, np.float64)[:, None] * f
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
