"""A small judge of digits: an MLP of this project's layers, trained on digits that the denoiser never sees."""
import numpy as np

from ref import philox
from ref.layers import cross_entropy_backward, linear, linear_backward, relu, relu_backward
from kernels.numba_cpu.optim import adam_step

STREAM = 1 << 61  # away from the training loop's streams


def train(images, labels, seed=0, steps=1500, batch=128, width=256):
    """Adam on the cross entropy of randomly shifted digits (two pixels each way).

    images: (N, 784) in [-1, 1]. labels: (N,) in 0 .. 9.
    Returns the parameters, a dict for `logits`.
    """
    params, stream = {}, STREAM
    for name, shape in {"w1": (width, 784), "b1": (width,), "w2": (10, width), "b2": (10,)}.items():
        stream += 1
        spread = shape[-1] ** -0.5 if name[0] == "w" else 0.0
        params[name] = (spread * philox.normal(seed, shape, stream)).astype(np.float32)
    moments = {name: (np.zeros_like(p), np.zeros_like(p)) for name, p in params.items()}
    for step in range(1, steps + 1):
        stream += 1
        draw = philox.uniform(seed, (batch, 3), stream)
        pick = np.minimum((draw[:, 0] * len(labels)).astype(int), len(labels) - 1)
        x = shifted(images[pick], np.rint(draw[:, 1:] * 4 - 2).astype(int))
        h = linear(x, params["w1"], params["b1"])
        a = relu(h)
        z = linear(a, params["w2"], params["b2"])
        grads = {}
        da, grads["w2"], grads["b2"] = linear_backward(cross_entropy_backward(1.0, z, labels[pick]), a, params["w2"])
        _, grads["w1"], grads["b1"] = linear_backward(relu_backward(da, h), x, params["w1"])
        lr = 2e-3 * 0.5 * (1 + np.cos(np.pi * step / steps))
        for name, p in params.items():
            m, v = moments[name]
            adam_step(p, grads[name], m, v, step, lr, 0.9, 0.999, 1e-8, 0.0, out=(p, m, v))
    return params


def logits(params, images):
    """(N, 10). images: (N, 784) float32."""
    return linear(relu(linear(images, params["w1"], params["b1"])), params["w2"], params["b2"])


def accuracy(params, images, labels):
    """The share of images that are taken for what their label says. Returns a float in [0, 1]."""
    return float(np.mean(logits(params, images).argmax(axis=1) == labels))


def shifted(images, by):
    """Images moved by whole pixels, black coming in. images: (N, 784) in [-1, 1]. by: (N, 2) ints from -2 to 2, down and right of the window. Returns (N, 784)."""
    padded = np.pad(images.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)), constant_values=-1)
    rows = np.arange(28) + 2 + by[:, :1]
    columns = np.arange(28) + 2 + by[:, 1:]
    return padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]].reshape(len(images), -1)
