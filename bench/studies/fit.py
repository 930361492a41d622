"""The loop that the studies train with: Adam, annealed to 0 along half a cosine, and a moving average of the
parameters.
"""
import importlib
from types import SimpleNamespace

import numpy as np

from kernels import registry
from kernels.check import selftest
from ref import philox, tree

PARTS = ("params", "m", "v", "average")  # of a state, a tree of arrays each


def adam(params, gradients, steps, tick, lr=1e-3, ema=0.998):
    """Train. params: tree of arrays, not changed. Returns the moving average of the parameters, a tree."""
    kernels = backend("numba_cpu")
    state = begin(params)
    for step in range(1, steps + 1):
        descend(kernels, state, gradients(state["params"], step), step, annealed(lr, step, steps), ema)
        tick()
    return state["average"]


def begin(params):
    """The state before the first step: parameters, Adam's two moments, the moving average. Returns a dict of trees."""
    return {part: (tree.zeros_like if part in "mv" else lambda p: tree.map(np.copy, p))(params) for part in PARTS}


def descend(kernels, state, grads, step, lr, ema, beta1=0.9):
    """One step of Adam and of the moving average, in place. kernels: from `backend`. state: from `begin`."""
    decay = min(ema, step / (step + 9))  # an average over the past so far, at first

    def update(p, g, m, v, average):
        kernels.adam_ema(p, g, m, v, average, step, lr, beta1, 0.999, 1e-8, 0.0, decay)

    tree.map(update, state["params"], grads, *(state[part] for part in PARTS[1:]))


def annealed(lr, step, steps):
    """The learning rate at a step from 1 to steps: from lr to 0 along half a cosine, since the last steps polish."""
    return lr * 0.5 * (1 + np.cos(np.pi * step / steps))


def picked(count, seed, batch, step):
    """The indices of a step's batch. count: of the examples. seed, batch, step: ints. Returns (batch,) ints."""
    return philox.below(seed, batch, count, philox.stream("batch", step))


def backend(name):
    """The modules of `ref` or of a kernel backend in one place, how arrays get there and back (send, receive), and
    whether it is interpreted."""
    package = "ref" if name == "ref" else f"kernels.{name}"
    modules = SimpleNamespace(**{m: importlib.import_module(f"{package}.{m}") for m in ("philox", "diffusion", "fused")})
    if name == "ref":
        modules.send, modules.receive, modules.interpreted = np.asarray, np.asarray, False

        def adam_ema(p, g, m, v, average, *hyper):
            p[...], m[...], v[...], average[...] = modules.fused.adam_ema_step(p, g, m, v, average, *hyper)
    else:
        modules.send, modules.receive = registry.carriers(name)
        modules.interpreted = selftest.interpreted(name)

        def adam_ema(p, g, m, v, average, *hyper):
            modules.fused.adam_ema_step(p, g, m, v, average, *hyper, out=(p, m, v, average))

    modules.adam_ema = adam_ema
    return modules
