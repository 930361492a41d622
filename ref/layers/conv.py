"""Convolutions, each next to its gradient. Arrays keep their dtype. Weights stand as published: (out, in, kernel axes).

All three are one sum over frames, rows and columns, computed as matrix products w @ columns: the columns hold each
input once for every kernel column, and a kernel row picks rows of them. The output is made in bands of rows, so that
the columns never hold more than SLICE elements, or what one row needs.

Papers
    [Arithmetic]  Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", 2016
    [Dilated]     Yu, Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", 2016
"""
import itertools

import numpy as np

from ref.shapes import integer

SLICE = 2**19  # elements of the columns: they stay in a core's cache


def conv1d(x, w, b=None, stride=1, padding=(0, 0), dilation=1):
    """y[n, o, i] = b_o + sum_{c, k} w[o, c, k] x[n, c, stride i + dilation k - before], [Dilated] eq. 2, where x is 0
    outside of its array. padding = (dilation (K - 1), 0) makes it causal.

    x: (B, C, L). w: (O, C, K). b: (O,) or None. stride, dilation: ints. padding: (before, after).
    Returns y (B, O, 1 + (L + before + after - dilation (K - 1) - 1) // stride).
    Raises ValueError where the shapes do not fit.
    """
    return _convolve(x, w, b, stride, [padding], dilation)


def conv1d_backward(dy, x, w, stride=1, padding=(0, 0), dilation=1):
    """Gradients of `conv1d`. dy: as y there. x, w, stride, padding, dilation: as there. Returns dx, dw, db."""
    return _gradients(dy, x, w, stride, [padding], dilation)


def conv2d(x, w, b=None, stride=1, padding=((1, 1), (1, 1))):
    """y[n, o, i, j] = b_o + sum_{c, k, l} w[o, c, k, l] x[n, c, stride i + k - top, stride j + l - left], [Arithmetic]
    section 2, where x is 0 outside of its array.

    x: (B, C, H, W). w: (O, C, KH, KW). b: (O,) or None. stride: int, or one for each axis. padding: ((top, bottom),
    (left, right)).
    Returns y (B, O, 1 + (H + top + bottom - KH) // stride, 1 + (W + left + right - KW) // stride).
    Raises ValueError where the shapes do not fit.
    """
    return _convolve(x, w, b, stride, padding, 1)


def conv2d_backward(dy, x, w, stride=1, padding=((1, 1), (1, 1))):
    """Gradients of `conv2d`. dy: as y there. x, w, stride, padding: as there. Returns dx, dw, db."""
    return _gradients(dy, x, w, stride, padding, 1)


def conv3d(x, w, b=None, stride=1, padding=((1, 1),) * 3):
    """`conv2d` with the frames of a video as a third axis, before the other two.

    x: (B, C, T, H, W). w: (O, C, KT, KH, KW). b: (O,) or None. stride: int, or one for each axis. padding: a pair for
    each axis.
    Returns y (B, O, T', H', W'), with lengths as there.
    Raises ValueError where the shapes do not fit.
    """
    return _convolve(x, w, b, stride, padding, 1)


def conv3d_backward(dy, x, w, stride=1, padding=((1, 1),) * 3):
    """Gradients of `conv3d`. dy: as y there. x, w, stride, padding: as there. Returns dx, dw, db."""
    return _gradients(dy, x, w, stride, padding, 1)


def _convolve(x, w, b, stride, padding, dilation):
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"b: expected shape {w.shape[:1]} for w {w.shape}, got {b.shape}")
    volume, kernel, before, stride, dilation, out = _settings(x, w, stride, padding, dilation)
    y = _products(volume, kernel, out, before, stride, dilation)  # (B, O, T', H', W')
    if b is not None:
        y += b.reshape(-1, 1, 1, 1)
    return y.reshape(y.shape[:2] + out[5 - x.ndim:])


def _gradients(dy, x, w, stride, padding, dilation):
    volume, kernel, before, stride, dilation, out = _settings(x, w, stride, padding, dilation)
    if dy.shape != (len(x), len(w), *out[5 - x.ndim:]):
        raise ValueError(f"dy: expected shape {(len(x), len(w), *out[5 - x.ndim:])} for x {x.shape}, got {dy.shape}")
    dy = dy.reshape(len(x), len(w), *out)
    # dw: the products of the forward, with dy for w
    shifts, rows = _shifts(kernel, out, len(x)), dy.reshape(*dy.shape[:3], -1)  # (B, O, T', H' W')
    dmatrices = np.zeros((shifts, len(w), w[0].size // shifts), np.result_type(dy, x))
    for place, columns in _bands(volume, kernel.shape, out, before, stride, dilation, shifts):
        for shift in range(shifts):
            dmatrices[shift] += rows[place] @ columns[shift].T
    dw = np.moveaxis(dmatrices.reshape(shifts, len(w), x.shape[1], -1), 0, 2).reshape(w.shape)
    # dx: dy, spread by the stride, convolved with the kernel turned round, [Arithmetic] section 4
    spread = np.zeros((*dy.shape[:2], *((n - 1) * s + 1 for n, s in zip(out, stride))), dy.dtype)
    spread[:, :, ::stride[0], ::stride[1], ::stride[2]] = dy
    turned = kernel[:, :, ::-1, ::-1, ::-1].swapaxes(0, 1)
    margin = [(k - 1) * d - m for k, d, m in zip(kernel.shape[2:], dilation, before)]
    dx = _products(spread, turned, volume.shape[2:], margin, (1, 1, 1), dilation)
    return dx.reshape(x.shape), dw, dy.sum(axis=(0, 2, 3, 4))


def _products(x, w, out, before, stride, dilation):
    """The convolution itself. x: (B, C, T, H, W). w: (O, C, KT, KH, KW). out: (T', H', W'). before: zeros before each
    axis; a negative one cuts off."""
    shifts = _shifts(w, out, len(x))
    matrices = w.reshape(*w.shape[:2], shifts, -1)  # (O, C, shifts, K)
    matrices = np.moveaxis(matrices, 2, 0).reshape(shifts, len(w), -1)  # (shifts, O, C K)
    y = np.zeros((len(x), len(w), out[0], out[1] * out[2]), np.result_type(x, w))
    for place, columns in _bands(x, w.shape, out, before, stride, dilation, shifts):
        band = y[place]  # (O, pixels)
        np.matmul(matrices[0], columns[0], out=band)
        for shift in range(1, shifts):
            band += matrices[shift] @ columns[shift]
    return y.reshape(*y.shape[:2], *out)


def _shifts(w, out, examples):
    """How many products make a band: one for each kernel row; or one for all of them, where there are more weights to
    put in order than columns."""
    return 1 if len(w) > examples * np.prod(out) else w.shape[2] * w.shape[3]


def _bands(x, shape, out, before, stride, dilation, shifts):
    """Band by band, its place in the output (B, O, T', H' W'), and for each shift the columns (C K, pixels) that meet
    its weights, to be used at once. shape: of the weights. The rest as in `_products`."""
    _, channels, frames, height, width = shape
    across = [_overlap(x.shape[4], out[2], stride[2], i * dilation[2] - before[2]) for i in range(width)]
    band = out[1] if shifts == 1 else max(1, SLICE // (channels * width * stride[1] * out[2]))
    blocks = {}  # of zeros, by the number of rows: what lies outside of x is written once
    for example, t, top in itertools.product(range(len(x)), range(out[0]), range(0, out[1], band)):
        n = min(band, out[1] - top)
        span = (n - 1) * stride[1] + 1
        rows, inside = _overlap(x.shape[3], span + (height - 1) * dilation[1], 1, top * stride[1] - before[1])
        if span not in blocks:
            size = frames, channels, width, span + (height - 1) * dilation[1], out[2]
            blocks[span] = np.zeros(size, x.dtype)  # (KT, C, KW, rows, W')
        columns = []
        for k, block in enumerate(blocks[span]):
            frame = t * stride[0] + k * dilation[0] - before[0]
            block[:, :, :rows.start] = block[:, :, rows.stop:] = 0
            for i, (here, there) in enumerate(across):
                block[:, i, rows, here] = x[example, :, frame, inside, there] if 0 <= frame < x.shape[2] else 0
            columns += [block[:, :, i * dilation[1]:i * dilation[1] + span:stride[1]] for i in range(height)]
        columns = [np.stack(columns, axis=1)] if shifts == 1 < len(columns) else columns
        place = example, slice(None), t, slice(top * out[2], (top + n) * out[2])
        yield place, [c.reshape(-1, n * out[2]) for c in columns]


def _overlap(size, outputs, stride, offset):
    """Where output i reads input stride i + offset: the slice of outputs whose input is there, and of these inputs."""
    low = max(0, -(offset // stride))
    high = max(low, min(outputs, (size - 1 - offset) // stride + 1))
    return slice(low, high), slice(low * stride + offset, high * stride + offset, stride)


def _settings(x, w, stride, padding, dilation):
    """x and w with three axes after the channels, of length 1 where there were none; for each of them the zeros before
    it, stride and dilation; and the lengths of the output."""
    axes = x.ndim - 2
    stride = tuple(integer(s, "stride") for s in ((stride,) * axes if np.ndim(stride) == 0 else stride))
    dilation = integer(dilation, "dilation")
    if w.ndim != x.ndim or x.shape[1:2] != w.shape[1:2]:
        raise ValueError(f"w: expected (out, {x.shape[1]}) and {axes} kernel axes for x {x.shape}, got {w.shape}")
    if len(stride) != axes or min(stride) < 1 or dilation < 1:
        raise ValueError(f"stride, dilation: expected at least 1, for {axes} axes, got {stride} and {dilation}")
    if np.shape(padding) != (axes, 2) or np.min(padding) < 0:
        raise ValueError(f"padding: expected a pair of at least 0 for each of {axes} axes, got {padding}")
    ones = (1,) * (3 - axes)
    x, w = (a.reshape(*a.shape[:2], *ones, *a.shape[2:]) for a in (x, w))
    stride, dilation = ones + stride, ones + (dilation,) * axes
    before, after = np.array([(0, 0) for _ in ones] + list(padding)).T.tolist()
    out = tuple((n + a + b - (k - 1) * d - 1) // s + 1
                for n, a, b, k, d, s in zip(x.shape[2:], before, after, w.shape[2:], dilation, stride))
    if min(out) < 1:
        raise ValueError(f"x: expected {w.shape[2:]} or more with its padding {padding}, got {x.shape[2:]}")
    return x, w, before, stride, dilation, out
