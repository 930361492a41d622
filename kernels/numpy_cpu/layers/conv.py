"""`ref.layers.conv2d` and `ref.layers.norm_conv` in tuned NumPy, and their gradients: one product with the columns of a
slice of examples; `out` takes the result, or dx."""
import numpy as np

from kernels.numpy_cpu.layers.norm import group_norm_silu, group_norm_silu_backward

SLICE, SAME = 2**20, ((1, 1), (1, 1))  # elements of columns at a time


def conv2d(x, w, b=None, stride=1, padding=SAME, out=None):
    """`ref.layers.conv2d` in x's dtype. x: (B, C, H, W). w, b, stride, padding: as there."""
    matrix, y = w.reshape(len(w), -1), out
    for part, columns, size in _columns(x, w.shape, stride, padding):
        y = np.empty((len(x), len(w), *size), x.dtype) if y is None else y
        sums = matrix @ columns  # (examples, O, H' W')
        if b is not None:
            sums += b[:, None]
        y[part] = sums.reshape(len(sums), len(w), *size)
    return y


def conv2d_backward(dy, x, w, stride=1, padding=SAME, out=None):
    """`ref.layers.conv2d_backward` in x's dtype. dy: like y. x, w, stride, padding: as there."""
    matrix, dw = w.reshape(len(w), -1), np.zeros((len(w), w[0].size), x.dtype)
    dx, (sh, sw) = np.empty(x.shape, x.dtype) if out is None else out, (stride,) * 2 if np.ndim(stride) == 0 else stride
    for part, columns, (h, v) in _columns(x, w.shape, stride, padding):
        rows = dy[part].reshape(-1, len(w), h * v)
        dw += np.matmul(rows, columns.swapaxes(1, 2)).sum(axis=0)
        spread = (matrix.T @ rows).reshape(-1, *w.shape[1:], h, v)
        padded = np.zeros((len(spread), *_padded(x.shape[1:], padding)), x.dtype)
        for i, j in np.ndindex(*w.shape[2:]):
            padded[:, :, i : i + sh * (h - 1) + 1 : sh, j : j + sw * (v - 1) + 1 : sw] += spread[:, :, i, j]
        (top, _), (left, _) = padding
        dx[part] = padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    return dx, dw.reshape(w.shape), dy.sum(axis=(0, 2, 3))


def norm_conv(x, groups, scale, shift, eps, w, b, stride=1, padding=SAME, out=None):
    """`silu(group_norm(x))`, convolved, in x's dtype; arguments as in `ref.layers.fused.norm_conv`."""
    return conv2d(group_norm_silu(x, groups, scale, shift, eps), w, b, stride, padding, out)


def norm_conv_backward(dy, x, groups, scale, shift, eps, w, stride=1, padding=SAME, out=None):
    """Gradients of `norm_conv` in x's dtype; arguments as in `ref.layers.fused.norm_conv_backward`,
    `ref.layers.fused.norm_conv`."""
    da, dw, db = conv2d_backward(dy, group_norm_silu(x, groups, scale, shift, eps), w, stride, padding)
    return *group_norm_silu_backward(da, x, groups, scale, shift, eps, out), dw, db


def _padded(shape, padding):
    """(C, H, W) with its padding. shape: without."""
    return shape[0], *(n + sum(ends) for n, ends in zip(shape[1:], padding))


def _columns(x, kernel, stride, padding):
    """(slice of examples, their columns (examples, C KH KW, H' W'), (H', W')) of each slice."""
    (sh, sw), window = (stride,) * 2 if np.ndim(stride) == 0 else stride, kernel[2:]
    (_, *whole), ((top, _), (left, _)) = _padded(x.shape[1:], padding), padding
    size = tuple((n - k) // s + 1 for n, k, s in zip(whole, window, (sh, sw)))
    step = max(1, SLICE // max(1, int(np.prod(kernel[1:])) * size[0] * size[1]))
    for first in range(0, len(x), step):
        part = slice(first, min(first + step, len(x)))
        padded = np.zeros((part.stop - first, x.shape[1], *whole), x.dtype)
        padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x[part]
        views = np.lib.stride_tricks.sliding_window_view(padded, window, axis=(2, 3))[:, :, ::sh, ::sw]
        yield part, views.transpose(0, 1, 4, 5, 2, 3).reshape(len(padded), -1, size[0] * size[1]), size
