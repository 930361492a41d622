"""The classifier of handwriting that judges scenes: two convolutions and two linear layers, trained on digits that are
turned, stretched, slanted and moved a little at every step.
"""
import math

import numpy as np

from bench.studies import fit
from ref import philox, tree
from ref.layers import conv2d, conv2d_backward, cross_entropy_backward, linear, linear_backward, relu, relu_backward

SIDE = 24  # pixels of what it sees
STRIDE = dict(stride=2, padding=((1, 1), (1, 1)))
LAYERS = {
    "conv1": (16, 1, 4, 4), "conv2": (32, 16, 4, 4), "linear1": (128, 32 * (SIDE // 4) ** 2), "linear2": (10, 128),
}  # fmt: skip


def train(images, labels, seed=0, steps=2000, batch=128):
    """Adam on the cross entropy. images: (N, SIDE, SIDE) in [0, 1]. labels: (N,). Returns the parameters, a dict."""
    params = {}
    for i, (name, shape) in enumerate(LAYERS.items()):
        w = philox.normal(seed, shape, philox.stream("classifier", i)) * math.sqrt(2 / math.prod(shape[1:]))
        params[name] = {"weight": w.astype(np.float32), "bias": np.zeros(shape[0], np.float32)}

    def gradients(params, step):
        draw = philox.uniform(seed, (batch, 7), philox.stream("classifier", len(LAYERS) + step))
        pick = np.minimum((draw[:, 0] * len(labels)).astype(int), len(labels) - 1)  # a uniform may be 1
        z, cache = logits(params, moved(images[pick], 2 * draw[:, 1:] - 1))
        return _backward(cross_entropy_backward(1.0, z, labels[pick]), params, cache)

    return fit.adam(params, gradients, steps, lambda: None, lr=2e-3, ema=0.99)


def predicted(params, images):
    """The digit that each image is taken for, (N,) ints. images: (N, SIDE, SIDE) in [0, 1]."""
    return logits(params, np.asarray(images, np.float32))[0].argmax(axis=1)


def logits(params, images):
    """z of each image, (N, 10), and the cache. images: (N, SIDE, SIDE)."""
    x = images[:, None]  # (N, 1, SIDE, SIDE)
    h1 = tree.apply(conv2d, params["conv1"], x, **STRIDE)  # (N, 16, SIDE / 2, SIDE / 2)
    a1 = relu(h1)
    h2 = tree.apply(conv2d, params["conv2"], a1, **STRIDE)  # (N, 32, SIDE / 4, SIDE / 4)
    a2 = relu(h2).reshape(len(x), -1)
    h3 = tree.apply(linear, params["linear1"], a2)
    a3 = relu(h3)
    return tree.apply(linear, params["linear2"], a3), (x, h1, a1, h2, a2, h3, a3)


def _backward(dz, params, cache):
    """Gradients of `logits` in the parameters."""
    x, h1, a1, h2, a2, h3, a3 = cache
    grads = {}
    da3, grads["linear2"] = tree.gradient(linear_backward, dz, params["linear2"], a3)
    da2, grads["linear1"] = tree.gradient(linear_backward, relu_backward(da3, h3), params["linear1"], a2)
    dh2 = relu_backward(da2.reshape(h2.shape), h2)
    da1, grads["conv2"] = tree.gradient(conv2d_backward, dh2, params["conv2"], a1, **STRIDE)
    _, grads["conv1"] = tree.gradient(conv2d_backward, relu_backward(da1, h1), params["conv1"], x, **STRIDE)
    return {name: grads[name] for name in params}


def moved(images, by):
    """Images turned by up to 15 degrees, stretched by 15 % each way, slanted by 0.25 and moved by 1.5 pixels, linear
    between pixels. images: (N, S, S). by: (N, 6) in [-1, 1]."""
    n, side, _ = images.shape
    turn, tall, wide, slant, down, right = (by * [math.radians(15), 0.15, 0.15, 0.25, 1.5, 1.5]).T
    cos, sin = np.cos(turn), np.sin(turn)
    down_of, right_of = [cos * (1 + tall), -sin * (1 + wide)], [sin * (1 + tall) + slant, cos * (1 + wide)]
    grid = np.stack(np.indices((side, side))).reshape(2, -1) - (side - 1) / 2
    at = np.einsum("ijn,jp->nip", [down_of, right_of], grid) + np.stack([down, right], axis=1)[..., None]
    at = np.clip(at + (side - 1) / 2, -1, side)
    low = np.floor(at).astype(int)
    (y, x), (fy, fx) = (low + 1).transpose(1, 0, 2), (at - low).transpose(1, 0, 2)
    padded, rows = np.pad(images, ((0, 0), (1, 2), (1, 2))), np.arange(n)[:, None]
    upper, lower = (padded[rows, y + i, x] * (1 - fx) + padded[rows, y + i, x + 1] * fx for i in (0, 1))
    return (upper * (1 - fy) + lower * fy).reshape(images.shape).astype(np.float32)
