"""`ref.layers.conv2d` and `ref.layers.norm_conv`, and their gradients. A half is rounded where it is stored: the
result, and what `norm_conv` convolves."""
import functools
import math

import numpy as np

from kernels.ops.inputs import PER_EXAMPLE
from kernels.ops.layers import EPS, drawn, moved, silu_backward_sizes, silu_sizes
from kernels.ops.record import Op
from ref import layers

SAME, BELOW, NONE = ((1, 1), (1, 1)), ((0, 1), (0, 1)), ((0, 0), (0, 0))
OPTIONS = {"kernel": (3, 1), "stride": (1, 2), "padding": (BELOW, SAME)}
SHAPES = (2, 3, 7, 9), (4, 4, 4, 4), (2, 8, 5, 70), (1, 40, 9, 8), (1, 33, 16, 20)


def _conv(names, rng, shape, dtype, values, kernel=3, bias=True, outputs=None, **options):
    """An input maker. names: of the arrays, out of dy, x, w, b. shape: (B, C, H, W); of another rank, what is made of
    it. outputs: channels of the result, or None. Of what is not finite w has none: NaN times a zero between the pixels
    of a stride is the truth's alone."""
    b, c, h, w = (max(1, n) for n in ((1,) * 4 + tuple(shape))[-4:])
    h, w, o = max(h, 3), max(w, 3), outputs or c + 3
    stride, ((top, bottom), (left, right)) = options.get("stride", 1), options.get("padding", SAME)
    size = ((n - kernel) // stride + 1 for n in (h + top + bottom, w + left + right))
    shapes = {"dy": (b, o, *size), "x": (b, c, h, w), "w": (o, c, kernel, kernel), "b": (o,)}
    plain, data = _others(values, dtype), [n for n in names if n in ("dy", "x")]
    arrays = drawn(data, [shapes[n] for n in data], rng, dtype, values)
    if plain != values and values == "large":
        arrays |= {n: drawn([n], [shapes[n]], rng, dtype, plain)[n] for n in data[1:]}
    arrays |= {n: drawn([n], [shapes[n]], rng, dtype, plain)[n] for n in names if n in ("w", "b")}
    return arrays | ({"b": None} if "b" in names and not bias else {}) | options


def _others(values, dtype):
    """The values of what the first array is multiplied by: of float16 products of large numbers are next to infinity,
    where rounding decides what is finite."""
    return "normal" if values == "not finite" or (values, dtype) == ("large", "float16") else values


def _norm_conv(names, rng, shape, dtype, values, offset=0.0, eps=1e-5, groups=None, **options):
    """The same with the norm's arguments; infinities are NaN, as in `drawn` of a norm."""
    arrays = _conv(names, rng, shape, dtype, values, **options)
    c = arrays["x"].shape[1]
    arrays["x"] = moved(arrays["x"], offset)
    arrays["x"][np.isinf(arrays["x"])] = np.nan
    vectors = drawn(["scale", "shift"], [(c,)] * 2, rng, dtype, _others(values, dtype))
    divisors = [n for n in range(1, c + 1) if c % n == 0]
    return arrays | vectors | {"groups": groups or int(rng.choice(divisors)), "eps": eps}


def _sizes(x, w, b=None, stride=1, padding=SAME):
    return layers.conv2d(np.abs(x), np.abs(w), None if b is None else np.abs(b), stride, padding)


def _backward_sizes(dy, x, w, stride=1, padding=SAME):
    return layers.conv2d_backward(np.abs(dy), np.abs(x), np.abs(w), stride, padding)


def _norm_sizes(x, groups, scale, shift, eps, w, b, stride=1, padding=SAME):
    return _sizes(silu_sizes(x, groups, scale, shift, eps), w, b, stride, padding)


def _norm_backward_sizes(dy, x, groups, scale, shift, eps, w, stride=1, padding=SAME):
    da, dw, db = _backward_sizes(dy, silu_sizes(x, groups, scale, shift, eps), w, stride, padding)
    return *silu_backward_sizes(da, x, groups, scale, shift, eps), dw, db


def _norm_stored(x, groups, scale, shift, eps, w, b, **more):
    """Of the result, and of what is convolved, which is an operand of the tensor cores."""
    a = layers.group_norm_silu(x, groups, scale, shift, eps)
    return np.abs(layers.conv2d(a, w, b, **more)) + _sizes(a, w, **more)


def _norm_backward_stored(dy, x, groups, scale, shift, eps, w, **more):
    results = layers.norm_conv_backward(dy, x, groups, scale, shift, eps, w, **more)
    dx, dscale, dshift, dw, db = [np.abs(g) for g in results]
    a = layers.group_norm_silu(x, groups, scale, shift, eps)
    return dx, dscale, dshift, dw + _backward_sizes(dy, a, w, **more)[1], db


def _flops(products, w, x=None, dy=None, stride=1, padding=SAME, **rest):
    """2 a multiply-add, of so many convolutions."""
    size = [(n + sum(p) - k) // stride + 1 for n, p, k in zip(x.shape[2:], padding, w.shape[2:])]
    return 2 * products * x.shape[0] * math.prod(size) * math.prod(w.shape)


ON_CPU, ON_GPU = ((1, 320, 64, 64), (1, 640, 32, 32), (32, 64, 16, 16)), (
    (8, 320, 64, 64), (8, 640, 32, 32), (8, 1280, 16, 16))  # fmt: skip
BENCH = {
    "x".join(map(str, s)): {"shape": s, "outputs": s[1], "padding": SAME, "on": backend}
    for backend, shapes in (("numba_cpu", ON_CPU), ("triton_gpu", ON_GPU)) for s in shapes
}  # fmt: skip
NORMS = {row: options | {"groups": 32} for row, options in BENCH.items()}
CONV = {"options": OPTIONS, "half": True, "empty": False, "shapes": SHAPES, "flops": functools.partial(_flops, 1),
        "bench": BENCH}  # fmt: skip
NORM = CONV | {"options": OPTIONS | EPS | {"offset": (0.0, 1e4)}, "bench": NORMS,
               "settings": (*PER_EXAMPLE, "abar", "groups")}  # fmt: skip
GRADIENT = {"sums": True, "flops": functools.partial(_flops, 2)}
OPS = [
    Op(
        layers.conv2d, ulps=4, make=functools.partial(_conv, ("x", "w", "b")), scale=_sizes, stored=layers.conv2d,
        examples=("x",),
        **CONV | {"options": OPTIONS | {"bias": (False, True)}},
    ),
    Op(
        layers.conv2d_backward, ulps=4, make=functools.partial(_conv, ("dy", "x", "w")), scale=_backward_sizes,
        stored=layers.conv2d_backward, **CONV | GRADIENT,
    ),
    Op(
        layers.norm_conv, ulps=6, make=functools.partial(_norm_conv, ("x", "w", "b")), scale=_norm_sizes,
        stored=_norm_stored, examples=("x",), **NORM,
    ),
    Op(
        layers.norm_conv_backward, ulps=8, make=functools.partial(_norm_conv, ("dy", "x", "w")),
        scale=_norm_backward_sizes, stored=_norm_backward_stored, **NORM | GRADIENT,
    ),
]  # fmt: skip
