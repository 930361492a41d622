"""What several tests of the studies share: a slope, a narrow net, digits of noise, and no pictures."""
import functools

import numpy as np

from bench.studies import classifier, data, pictures
from ref import philox, tree
from ref.nets import mlp


def along(loss, params, gradient, h=1e-6):
    """The gradient's component along a random direction, and the central difference of the loss there."""
    streams = iter(range(10**6))
    step = tree.map(lambda p: philox.normal(3, p.shape, next(streams)), params)
    ends = [loss(tree.map(lambda p, d, sign=sign: p + sign * h * d, params, step)) for sign in (1, -1)]
    return sum(tree.leaves(tree.map(lambda g, d: np.sum(g * d), gradient, step))), (ends[0] - ends[1]) / (2 * h)


class Picture:
    """Stands in for matplotlib, which the tests do not need: the figure, and pyplot as far as `results` needs it."""

    close = staticmethod(lambda figure: None)

    def savefig(self, file, **_):
        file.write(b"picture")


def without_pictures(monkeypatch, *studies):
    monkeypatch.setattr(pictures, "pyplot", lambda: Picture)
    for study in studies:
        monkeypatch.setattr(study, "draw", lambda *_: Picture())


def with_a_narrow_net(monkeypatch):
    """Both nets with 32 units, the residual one of two blocks, where they are trained or sampled for a few steps."""
    sizes = {"residual_init": dict(width=32, depth=2, frequencies=8), "simple_mlp_init": dict(width=32)}
    for name, size in sizes.items():
        monkeypatch.setattr(mlp, name, functools.partial(getattr(mlp, name), **size))


def with_noise_for_digits(monkeypatch):
    """80 images, eight of each digit, and a judge of three steps."""
    images = (2 * philox.uniform(0, (80, 784)) - 1).astype(np.float32)
    labels, judge = np.repeat(np.arange(10), 8), classifier.train
    monkeypatch.setattr(data, "load", lambda: ((images, labels), (images, labels)))
    monkeypatch.setattr(classifier, "train", lambda *held_out, seed: judge(*held_out, seed=seed, steps=3))
