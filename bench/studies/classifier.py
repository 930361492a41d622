"""A small judge of digits: an MLP of this project's layers, trained on digits that the denoiser never sees."""
import numpy as np

from bench.studies import fit
from ref import philox
from ref.layers import cross_entropy_backward, linear, linear_backward, relu, relu_backward


def train(images, labels, seed=0, steps=1500, batch=128, width=256):
    """Adam on the cross entropy of randomly shifted digits (two pixels each way). Returns the parameters, a dict."""
    params = {}
    for i, (name, shape) in enumerate({"w1": (width, 784), "b1": (width,), "w2": (10, width), "b2": (10,)}.items(), 1):
        spread = shape[-1] ** -0.5 if name[0] == "w" else 0.0
        params[name] = (spread * philox.normal(seed, shape, philox.stream("classifier", i))).astype(np.float32)

    def gradients(params, step):
        draw = philox.uniform(seed, (batch, 3), philox.stream("classifier", len(params) + step))
        pick = np.minimum((draw[:, 0] * len(labels)).astype(int), len(labels) - 1)  # a uniform may be 1
        x = shifted(images[pick], np.rint(draw[:, 1:] * 4 - 2).astype(int))
        h = linear(x, params["w1"], params["b1"])
        a = relu(h)
        z = linear(a, params["w2"], params["b2"])
        da, dw2, db2 = linear_backward(cross_entropy_backward(1.0, z, labels[pick]), a, params["w2"])
        _, dw1, db1 = linear_backward(relu_backward(da, h), x, params["w1"])
        return {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2}

    return fit.adam(params, gradients, steps, lambda: None, lr=2e-3, ema=0.0)


def hidden(params, images):
    """The last hidden layer, (N, width), whose units are the features that samples are compared by."""
    return relu(linear(images, params["w1"], params["b1"]))


def predicted(params, images):
    """The digit that each image is taken for, (N,) ints."""
    return linear(hidden(params, np.asarray(images, np.float32)), params["w2"], params["b2"]).argmax(axis=1)


def accuracy(params, images, labels):
    """The share of images that are taken for what their label says."""
    return float(np.mean(predicted(params, images) == labels))


def shifted(images, by):
    """Images moved by whole pixels, filled with black. by: (N, 2) ints from -2 to 2, down and right of the window."""
    padded = np.pad(images.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)), constant_values=-1)
    rows, columns = (np.arange(28) + 2 + by[:, [axis]] for axis in (0, 1))
    return padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]].reshape(len(images), -1)
