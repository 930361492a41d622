"""`ref.layers.linear` and `ref.layers.linear_act` and their gradients in tuned NumPy; `out` takes the result, or dx."""
import numpy as np

from kernels.numpy_cpu.layers import activations

NAMES = "silu", "gelu", "gelu_tanh", "quick_gelu", "geglu"
ACTS = {name: (getattr(activations, name), getattr(activations, f"{name}_backward")) for name in NAMES}


def linear(x, w, b=None, out=None):
    """`ref.layers.linear` in x's dtype. x: (..., n). w, b: as there."""
    y = np.matmul(x, w.T, out=out)
    return y if b is None else np.add(y, b, out=y)


def linear_backward(dy, x, w, out=None):
    """`ref.layers.linear_backward` in x's dtype. dy: like y. x, w: as there."""
    rows = dy.reshape(-1, len(w))
    return np.matmul(dy, w, out=out), rows.T @ x.reshape(-1, x.shape[-1]), rows.sum(axis=0)


def linear_act(x, w, b, r, act, out=None):
    """`ref.layers.linear_act` in x's dtype. x: (..., n). w, b, r, act: as there."""
    y = ACTS[act][0](linear(x, w, b))
    return np.add(y, r, out=y if out is None else out)


def linear_act_backward(dy, x, w, b, act, out=None):
    """`ref.layers.linear_act_backward` in x's dtype. dy: like y. x, w, b, act: as there."""
    return *linear_backward(ACTS[act][1](dy, linear(x, w, b)), x, w, out), dy
