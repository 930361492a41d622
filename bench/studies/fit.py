"""The loop that the studies train with: Adam, annealed to 0 along half a cosine, and a moving average of the parameters."""
import numpy as np

from bench.studies import digits


def adam(params, gradients, steps, tick, lr=1e-3, ema=0.998):
    """Train. What is random is the business of `gradients`, a function of the step.

    params: dict of arrays, not changed. gradients: callable (params, step) -> dict of gradients, step from 1 to steps.
    steps: int. tick: called after each step. lr, ema: the first learning rate; the decay of the average, shorter at first.
    Returns the moving average of the parameters, a dict.
    """
    kernels = digits.backend("numba_cpu")
    state = parts(params)
    for step in range(1, steps + 1):
        digits.descend(kernels, state, gradients(state[0], step), step, digits.annealed(lr, step, steps), ema)
        tick()
    return state[3]


def parts(params):
    """What `digits.descend` changes: parameters, Adam's two moments, the moving average. params: dict of arrays, copied. Returns four dicts."""
    copies = [{name: p.copy() for name, p in params.items()} for _ in range(2)]
    zeros = [{name: np.zeros_like(p) for name, p in params.items()} for _ in range(2)]
    return copies[0], *zeros, copies[1]
