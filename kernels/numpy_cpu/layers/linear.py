"""`ref.layers.linear_act` and its gradient in tuned NumPy; `out` takes the result, or dx."""
import numpy as np

from kernels.numpy_cpu.layers import activations

NAMES = "silu", "gelu", "gelu_tanh", "quick_gelu", "geglu"
ACTS = {name: (getattr(activations, name), getattr(activations, f"{name}_backward")) for name in NAMES}


def linear_act(x, w, b, r, act, out=None):
    """`ref.layers.linear_act` in x's dtype. x: (..., n). w, b, r, act: as there."""
    y = ACTS[act][0](_linear(x, w, b))
    return np.add(y, r, out=y if out is None else out)


def linear_act_backward(dy, x, w, b, act, out=None):
    """`ref.layers.linear_act_backward` in x's dtype. dy: like y. x, w, b, act: as there."""
    dh = ACTS[act][1](dy, _linear(x, w, b))
    rows = dh.reshape(-1, len(w))
    dx = np.matmul(dh, w, out=out)
    return dx, rows.T @ x.reshape(-1, x.shape[-1]), rows.sum(axis=0), dy


def _linear(x, w, b):
    h = x @ w.T
    h += b
    return h
