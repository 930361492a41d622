"""`ref.layers.linear`, `linear_act` and the activations of one number, and their gradients: on the CPU alone.

The size of an activation's error is that of its terms, and of what its slope makes of its argument's."""
import functools
import math

import numpy as np

from kernels.ops.layers import FLAT, FLUSHED, cdf_size, drawn
from kernels.ops.record import Op
from ref import layers
from ref.numerics import normal_pdf

ACTS = "silu", "gelu", "gelu_tanh", "quick_gelu", "geglu"
SLOPE, CUBE, QUICK = 2 * math.sqrt(2 / math.pi), 0.044715, 1.702


def _layer(names, rng, shape, dtype, values, outputs=None, act=None, bias=True):
    """An input maker: x (B, ..., n), w (m, n), m even, n and m in bounds; NaN alone is not finite."""
    n = 1 + (shape[-1] - 1) % 1024
    m = outputs or 2 * ((min(n, 200) + 5) // 2)
    rows = (1,) * (2 - len(shape)) + tuple(shape[:-1])
    end = (*rows, m // (1 + (act == "geglu")))
    shapes = {"dy": end, "x": (*rows, n), "w": (m, n), "b": (m,), "r": end}
    return drawn(names, [shapes[name] for name in names], rng, dtype, values) | (
        {} if act is None else {"act": act}) | ({} if bias else {"b": None})


def _number(names, rng, shape, dtype, values):
    """An input maker: arrays of one shape; NaN alone is not finite, for x sigmoid(x) of -inf is what its order says."""
    arrays = drawn(names, [shape] * len(names), rng, dtype, values)
    arrays["x"][np.isinf(arrays["x"])] = np.nan
    return arrays


def _terms(x, act, printed=False):
    """The sizes of the terms of an activation, of its slope and of its curvature. act: of one number. printed: with a
    sigmoid that may be (1 + tanh(u / 2)) / 2, which cancels."""
    size = np.abs(x)
    if act == "gelu":
        density = normal_pdf(x)
        return size * cdf_size(size), cdf_size(size) + size * density, density * (2 + x * x)
    u, slope, bend = {
        "silu": (x, 1.0, 0.0), "quick_gelu": (QUICK * x, QUICK, 0.0),
        "gelu_tanh": (SLOPE * x * (1 + CUBE * x * x), SLOPE * (1 + 3 * CUBE * x * x), 6 * SLOPE * CUBE * size),
    }[act]  # fmt: skip
    s = layers.sigmoid(u)
    tilt = s * layers.sigmoid(-u)
    curve = tilt * (2 * slope + size * (slope * slope + bend))
    s = 1.0 if printed else s
    return size * (s + FLUSHED), s + size * tilt * slope + FLUSHED * (1 + size * slope), curve


def _forth(x, act, printed=False):
    f, slope, _ = _terms(x, act, printed)
    return f + slope * np.abs(x)


def _back(dy, x, act):
    _, slope, curve = _terms(x, act)
    return np.abs(dy) * (slope + curve * np.abs(x))


def _sums(x, w, b):
    """W x + b and the sizes of its terms."""
    return layers.linear(x, w, b), layers.linear(np.abs(x), np.abs(w), np.abs(b))


def _linear_sizes(x, w, b=None):
    return layers.linear(np.abs(x), np.abs(w), None if b is None else np.abs(b))


def _linear_backward_sizes(dy, x, w):
    return layers.linear_backward(np.abs(dy), np.abs(x), np.abs(w))


def _layer_sizes(x, w, b, r, act, printed=False):
    h, size = _sums(x, w, b)
    if act != "geglu":
        f, slope, _ = _terms(h, act, printed)
        return f + slope * size + np.abs(r)
    (a, g), (of_a, of_g) = np.split(h, 2, axis=-1), np.split(size, 2, axis=-1)
    f, slope, _ = _terms(g, "gelu")
    return f * of_a + np.abs(a) * slope * of_g + np.abs(r)


def _layer_backward_sizes(dy, x, w, b, act):
    h, size = _sums(x, w, b)
    if act != "geglu":
        _, slope, curve = _terms(h, act)
        dh = np.abs(dy) * (slope + curve * size)
    else:
        (a, g), (of_a, of_g) = np.split(h, 2, axis=-1), np.split(size, 2, axis=-1)
        f, slope, curve = _terms(g, "gelu")
        parts = f + slope * of_g, of_a * slope + np.abs(a) * curve * of_g
        dh = np.concatenate([np.abs(dy) * part for part in parts], axis=-1)
    return *layers.linear_backward(dh, np.abs(x), np.abs(w)), np.abs(dy)


def _flops(products, x, w, **rest):
    return 2 * products * math.prod(x.shape) * w.shape[0]


def _of_number(act):
    """The records of an activation and its gradient."""
    f, back = getattr(layers, act), getattr(layers, f"{act}_backward")
    both = dict(ulps=6, shapes=FLAT, empty=False, bench={"64x49x512": {"shape": (64, 49, 512)}})
    forth, printed = (functools.partial(_forth, act=act, printed=printed) for printed in (False, True))
    return [
        Op(f, make=functools.partial(_number, ("x",)), scale=forth, textbook=printed, examples=("x",), **both),
        Op(back, make=functools.partial(_number, ("dy", "x")), scale=functools.partial(_back, act=act),
           examples=("dy", "x"), **both),
    ]  # fmt: skip


BENCH = {f"{act} 64x49x128 to {m}": {"shape": (64, 49, 128), "act": act, "outputs": m} for act, m in (
    ("gelu_tanh", 512), ("geglu", 1024))}  # fmt: skip
PLAIN = {f"64x49x{n} to {m}": {"shape": (64, 49, n), "outputs": m} for n, m in ((128, 512), (512, 128))}
PLAIN |= {f"{b}x{rows}x{n} to {m}": {"shape": (b, rows, n), "outputs": m, "on": "triton_gpu"} for b, rows, n, m in (
    (1024, 26, 192, 768), (8, 1024, 1024, 4096))}  # fmt: skip
LINEAR = {"shapes": FLAT, "empty": False, "bench": PLAIN}
LAYER = LINEAR | {"options": {"act": ACTS}, "bench": BENCH}
OPS = [
    Op(
        layers.linear, ulps=4, make=functools.partial(_layer, ("x", "w", "b")), scale=_linear_sizes, examples=("x",),
        options={"bias": (False, True)}, flops=functools.partial(_flops, 1), stored=layers.linear, half=True, **LINEAR,
    ),
    Op(
        layers.linear_backward, ulps=4, make=functools.partial(_layer, ("dy", "x", "w")), scale=_linear_backward_sizes,
        sums=True, flops=functools.partial(_flops, 2), stored=layers.linear_backward, half=True, **LINEAR,
    ),
    Op(
        layers.linear_act, ulps=4, make=functools.partial(_layer, ("x", "w", "b", "r")), scale=_layer_sizes,
        textbook=functools.partial(_layer_sizes, printed=True), examples=("x", "r"),
        flops=functools.partial(_flops, 1), **LAYER,
    ),
    Op(
        layers.linear_act_backward, ulps=6, make=functools.partial(_layer, ("dy", "x", "w", "b")),
        scale=_layer_backward_sizes, sums=True, flops=functools.partial(_flops, 3), **LAYER,
    ),
    *(op for act in ACTS[:-1] for op in _of_number(act)),
]  # fmt: skip
