"""The two layers with an activation between them that every transformer has, next to their gradient.

Papers
    [Transformer]  Vaswani et al., "Attention Is All You Need", 2017
"""
from ref.layers.activations import (
    geglu, geglu_backward, gelu, gelu_backward, gelu_tanh, gelu_tanh_backward, quick_gelu, quick_gelu_backward, silu,
    silu_backward,
)  # fmt: skip
from ref.layers.linear import linear, linear_backward
from ref.tree import apply, filled, gradient

ACTIVATIONS = {
    "silu": (silu, silu_backward), "gelu": (gelu, gelu_backward), "gelu_tanh": (gelu_tanh, gelu_tanh_backward),
    "quick_gelu": (quick_gelu, quick_gelu_backward), "geglu": (geglu, geglu_backward),
}  # fmt: skip


NAMES = ("fc1", "fc2"), ("linear_1", "linear_2")  # published ones


def feed_forward(params, x, act):
    """y = W_2 act(W_1 x + b_1) + b_2, [Transformer] eq. 2, for each row alone.

    params: dict with fc1 and fc2, or linear_1 and linear_2; or a list whose entries 0, perhaps inside a proj, and 2
    they are. x: (..., n). act: "silu", "gelu", "gelu_tanh", "quick_gelu" or "geglu".
    Returns y (..., m), cache.
    Raises ValueError for another act.
    """
    first, second = _layers(params)
    h = apply(linear, first, x)
    a = _activation(act)[0](h)
    return apply(linear, second, a), {"x": x, "h": h, "a": a}


def feed_forward_backward(dy, params, cache, act):
    """Gradients of `feed_forward`. dy: as y there. params, act: as there. cache: of the forward. Returns dx,
    dparams."""
    first, second = _layers(params)
    da, dsecond = gradient(linear_backward, dy, second, cache["a"])
    dx, dfirst = gradient(linear_backward, _activation(act)[1](da, cache["h"]), first, cache["x"])
    if isinstance(params, list):
        return dx, filled(params, [{"proj": dfirst} if "proj" in params[0] else dfirst, None, dsecond])
    return dx, filled(params, dict(zip(_names(params), (dfirst, dsecond))))


def _names(params):
    return next(names for names in NAMES if names[0] in params)


def _layers(params):
    if isinstance(params, list):
        return params[0].get("proj", params[0]), params[2]
    return (params[name] for name in _names(params))


def _activation(act):
    if act not in ACTIVATIONS:
        raise ValueError(f"act: expected one of {', '.join(ACTIVATIONS)}, got {act!r}")
    return ACTIVATIONS[act]
