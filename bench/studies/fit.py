"""The loop that the studies train with: Adam, annealed to 0 along half a cosine, and a moving average of the
parameters.
"""
import functools
import importlib
from types import SimpleNamespace

import numpy as np

from kernels import registry
from kernels.check import selftest
from kernels.nets import with_kernels
from ref import philox, tree

PARTS = ("params", "m", "v", "average")  # of a state, a tree of arrays each


def adam(params, gradients, steps, tick, lr=1e-3, ema=0.998):
    """Train. gradients: (params, step) -> tree, step from 1 to steps. Returns the moving average of params, a tree."""
    kernels, state = backend("numba_cpu"), begin(params)
    for step in range(1, steps + 1):
        descend(kernels, state, gradients(state["params"], step), step, annealed(lr, step, steps), ema)
        tick()
    return state["average"]


def begin(params):
    """The state before the first step: copies of the parameters, Adam's two moments, the moving average."""
    return {part: tree.zeros_like(params) if part in "mv" else tree.map(np.copy, params) for part in PARTS}


def descend(kernels, state, grads, step, lr, ema, beta1=0.9):
    """One step of Adam and of the moving average, in place. kernels: from `backend`. state: from `begin`."""
    hyper = step, lr, beta1, 0.999, 1e-8, 0.0, min(ema, step / (step + 9))  # an average over the past so far, at first
    params, *rest = (state[part] for part in PARTS)
    tree.map(lambda *arrays: kernels.adam_ema(*arrays, *hyper), params, grads, *rest)


def annealed(lr, step, steps):
    """The learning rate at a step from 1 to steps: from lr to 0 along half a cosine, since the last steps polish."""
    return lr * 0.5 * (1 + np.cos(np.pi * step / steps))


def picked(count, seed, batch, step):
    """The indices of a step's batch, (batch,) ints below count."""
    return philox.below(seed, batch, count, philox.stream("batch", step))


@functools.cache
def backend(name):
    """The modules of `ref` or of a kernel backend in one place, a module of networks on it (net), how arrays get there
    and back (send, receive), and whether it is interpreted. name: "ref", "numba_cpu" or "triton_gpu"."""
    package, names = "ref" if name == "ref" else f"kernels.{name}", ("philox", "diffusion", "fused", "optim", "vae")
    found = SimpleNamespace(**{module: importlib.import_module(f"{package}.{module}") for module in names})
    found.send, found.receive = (np.asarray, np.asarray) if name == "ref" else registry.carriers(name)
    found.net = lambda module: with_kernels(module, name)
    found.interpreted = name != "ref" and selftest.interpreted(name)

    def adam_ema(p, g, m, v, average, *hyper):
        if name == "ref":
            p[...], m[...], v[...], average[...] = found.fused.adam_ema_step(p, g, m, v, average, *hyper)
        else:
            found.fused.adam_ema_step(p, g, m, v, average, *hyper, out=(p, m, v, average))

    def muon_ema(p, g, m, average, lr, momentum, weight_decay, decay):
        if name == "ref":
            p[...], m[...] = found.optim.muon_step(p, g, m, lr, momentum, weight_decay)
            average[...] = found.optim.ema_step(average, p, decay)
            return
        found.optim.muon_step(p, g, m, lr, momentum, weight_decay, out=(p, m))
        found.optim.ema_step(average, p, decay, out=average)

    found.adam_ema, found.muon_ema = adam_ema, muon_ema
    return found


@functools.cache
def array_module(backend):
    """numpy, or cupy for "triton_gpu". backend: name."""
    if backend != "triton_gpu":
        return np
    try:
        import cupy
    except ModuleNotFoundError:
        raise ModuleNotFoundError("cupy is needed for --backend triton_gpu: pip install cupy-cuda12x") from None
    return cupy


def host(x):
    """An array of NumPy or CuPy as one of NumPy."""
    return np.asarray(x.get() if hasattr(x, "get") else x)


def recorded(f, backend):
    """A function of arrays, on "triton_gpu" as one launch: see `kernels.triton_gpu.graph`. backend: name."""
    if array_module(backend) is np:
        return f
    return importlib.import_module("kernels.triton_gpu.graph").recorded(f)
