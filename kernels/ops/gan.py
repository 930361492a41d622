"""The losses of `ref.gan` with their gradients, mean F(slope logits + shift) as `kernels.numpy_cpu.gan` has them in a table."""
import functools

import numpy as np

from kernels.numpy_cpu.gan import LOSSES
from kernels.ops.inputs import data
from kernels.ops.record import Op
from kernels.ops.vae import off_the_tail
from ref import gan, layers

SIZES = {  # of F(u) and F'(u), where the terms of u = slope logit + shift have sizes n
    "softplus": lambda u, n: (layers.softplus(u), layers.sigmoid(u)), "hinge": lambda u, n: (np.where(u > 0, n, 0), u > 0),
    "square": lambda u, n: (u**2 / 2 + np.abs(u) * n, n), "line": lambda u, n: (n, np.ones_like(u)),
}  # fmt: skip


def _sizes(name, **logits):
    curve, places, _ = LOSSES[name]
    loss, gradients = 0.0, []
    for x, (slope, shift) in zip(logits.values(), places):
        value, derivative = SIZES[curve.__name__](slope * x + shift, np.abs(x) + abs(shift))
        loss += np.mean(value)
        gradients.append(derivative / x.size)
    return loss, *gradients


def _logits(names, rng, shape, dtype, values):
    return {name: off_the_tail(data(rng, shape, dtype, values)) for name in names}


OPS = [
    Op(
        getattr(gan, f"{name}_grad"), ulps=4, make=functools.partial(_logits, ["real_logits", "fake_logits"][-len(places):]),
        scale=functools.partial(_sizes, name), writes=len(places), empty=False, sums=True, rows="matrix",
        bench={"": {}} if name == "generator_loss" or len(places) == 2 else {},
    )
    for name, (_, places, _) in LOSSES.items()
]  # fmt: skip
