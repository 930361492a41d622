"""The losses of `ref.gan` with their gradients, each a mean of F(slope logits + shift)."""
import functools

import numpy as np

from kernels.numpy_cpu.gan import LOSSES
from kernels.ops.diffusion import LOSS
from kernels.ops.inputs import data
from kernels.ops.record import Op
from kernels.ops.vae import off_the_tail
from ref import gan, layers

SIZES = {  # of F(u) and F'(u), where the terms of u = slope logit + shift have sizes n
    "softplus": lambda u, n: (layers.softplus(u), layers.sigmoid(u)), "line": lambda u, n: (n, np.ones_like(u)),
    "square": lambda u, n: (u**2 / 2 + np.abs(u) * n, n), "hinge": lambda u, n: (np.where(u > 0, n, 0), u > 0),
}  # fmt: skip


TEXTBOOK = SIZES | {  # of log(1 + e^u) and of 1 - 1 / (1 + e^u)
    "softplus": lambda u, n: (layers.softplus(u) + 1, np.ones_like(u))}


def _sizes(name, sizes=SIZES, **logits):
    curve, places, _ = LOSSES[name]
    loss, gradients = 0.0, []
    for x, (slope, shift) in zip(logits.values(), places):
        value, derivative = sizes[curve.__name__](slope * x + shift, np.abs(x) + abs(shift))
        loss += np.mean(value)
        gradients.append(derivative / x.size)
    return loss, *gradients


def _logits(names, rng, shape, dtype, values):
    return {name: off_the_tail(data(rng, shape, dtype, values)) for name in names}


OPS = [
    Op(
        getattr(gan, f"{name}_grad"), ulps=4, scale=functools.partial(_sizes, name), rows="matrix", **LOSS,
        textbook=functools.partial(_sizes, name, TEXTBOOK),
        make=functools.partial(_logits, ["real_logits", "fake_logits"][-len(places):]), writes=len(places),
        bench={"": {}} if name == "generator_loss" or len(places) == 2 else {},
    )
    for name, (_, places, _) in LOSSES.items()
]  # fmt: skip
