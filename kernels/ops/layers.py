"""The operations of `ref.layers`: normalisations, gates and activations. Their name is that of the package,
`layers.rms_norm`, and so is a backend's: the files of `kernels/<backend>/layers/` are exported by its `__init__`.

Their terms are float32 whatever the data is, so a half is rounded only where it is stored.
"""
import functools
import math

import numpy as np

from kernels.ops.inputs import PER_EXAMPLE, data
from kernels.ops.record import Op
from ref import layers
from ref.numerics import erf, normal_pdf

FLUSHED = 2.0**-102  # in units of float32: a sigmoid below 2^-126 may be 0
EPS = {"eps": (1e-6, 1e-5)}
OFFSET = {"offset": (0.0, 1e4)}  # the mean in deviations


def _group(names, rng, shape, dtype, values, offset=0.0, eps=1e-5, affine=True, groups=None):
    """An input maker: (B, C, ...), groups a divisor of C."""
    shape = (1,) * (2 - len(shape)) + tuple(shape)
    vectors = ("w", "b") if affine else ()
    arrays = drawn((*names, *vectors), [shape] * len(names) + [shape[1:2]] * 2, rng, dtype, values)
    arrays["x"] = moved(arrays["x"], offset)
    # of groups of two elements there is no gradient
    size = math.prod(shape[1:])
    divisors = [n for n in range(1, shape[1] + 1) if shape[1] % n == 0 and size >= 3 * n] or [1]
    return {"w": None, "b": None} | arrays | {"groups": groups or int(rng.choice(divisors)), "eps": eps}


def _rows(names, vectors, rng, shape, dtype, values, offset=0.0, **options):
    """An input maker: (B, L, n), and vectors (B, n)."""
    shape = (shape[0] if len(shape) > 1 else 1, math.prod(shape[1:-1]), shape[-1])
    shapes = [shape] * len(names) + [shape[::2]] * len(vectors)
    arrays = drawn((*names, *vectors), shapes, rng, dtype, values)
    if "x" in arrays:
        arrays["x"] = moved(arrays["x"], offset)
    return arrays | options


def _last_axis(names, vectors, rng, shape, dtype, values, offset=0.0, affine=True, **options):
    """An input maker: (..., n), and vectors (n,), or None."""
    shape = (1,) * (2 - len(shape)) + tuple(shape)
    shapes = [shape] * len(names) + [shape[-1:]] * len(vectors)
    arrays = drawn((*names, *(vectors if affine else ())), shapes, rng, dtype, values)
    arrays["x"] = moved(arrays["x"], offset)
    return dict.fromkeys(vectors) | arrays | options


def _halves(names, rng, shape, dtype, values):
    wide = (*shape[:-1], 2 * shape[-1])
    return drawn(names, [wide if name == "x" else shape for name in names], rng, dtype, values)


def drawn(names, shapes, rng, dtype, values):
    """Arrays by name. Of a gradient, or where what rounding left of a mean is multiplied by w, NaN alone is not finite:
    of infinity the order of sums makes NaN. names: strs. shapes: of each. rng, dtype, values: as in
    `kernels.ops.inputs.data`."""
    arrays = {name: data(rng, shape, dtype, values) for name, shape in zip(names, shapes)}
    for x in arrays.values() if "dy" in names or "b" in names else ():
        x[np.isinf(x.astype(np.float64))] = np.nan
    return arrays


def moved(x, offset):
    """x + offset, in x's dtype. x: array. offset: float."""
    return (x.astype(np.float64) + offset).astype(x.dtype)


# --- the sizes of the terms ------------------------------------------------------------------------------------------


def _standard(x, eps):
    """x_hat, what it is the difference of, and sigma, over the last axis: what rounding left of the mean is taken off,
    so only centred elements count."""
    c = x - x.mean(axis=-1, keepdims=True)
    sigma = np.sqrt(np.mean(c * c, axis=-1, keepdims=True) + eps)
    return c / sigma, (np.abs(c) + _mean(np.abs(c))) / sigma, sigma


def _mean(x):
    return x.mean(axis=-1, keepdims=True)


def _group_terms(x, groups, w, b, eps):
    """z = w x_hat + b and the sizes of its terms; of x_hat; sigma, and |w|, all of the shape of x."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    w, b = (np.full(x.shape[1], float(n)) if v is None else v for n, v in ((1, w), (0, b)))
    parts = _standard(x.reshape(len(x), groups, math.prod(x.shape[1:]) // groups), eps)
    x_hat, h, sigma = (np.broadcast_to(a, parts[0].shape).reshape(x.shape) for a in parts)
    w, b = w.reshape(shape), b.reshape(shape)
    return w * x_hat + b, np.abs(w) * h + np.abs(b), h, sigma, np.abs(w)


def silu_sizes(x, groups, w, b, eps):
    """Of the terms of that function, arguments as in `ref.layers.fused.group_norm_silu`."""
    z, size, *_ = _group_terms(x, groups, w, b, eps)
    return np.abs(layers.silu_backward(1, z)) * size + np.abs(layers.silu(z)) + FLUSHED * np.abs(z)


def silu_backward_sizes(dy, x, groups, w, b, eps):
    """The same of its gradients. dy: as the result. x, groups, w, b, eps: as there."""
    z, size, h, sigma, w = _group_terms(x, groups, w, b, eps)
    s = layers.sigmoid(z)
    bend = np.abs(s * (1 - s) * (2 + z * (1 - 2 * s)))
    dz = np.abs(dy) * (s + np.abs(z) * s * (1 - s) + bend * size + FLUSHED * (1 + np.abs(z)))
    axes, shape = (0, *range(2, x.ndim)), (len(x), groups, -1)
    a, tall = (w * dz).reshape(len(x), groups, math.prod(x.shape[1:]) // groups), h
    tall = h.reshape(a.shape)
    dx = a + _mean(a) + tall * _mean(a * tall)
    return dx.reshape(x.shape) / sigma, (dz * h).sum(axis=axes), dz.sum(axis=axes)


def _silu_backward_terms(**arguments):
    """Half as much more, for the truth rounds its exponentials and sums in float64 as a stranger does."""
    return [1.5 * x for x in silu_backward_sizes(**arguments)]


def _modulate_sizes(x, shift, scale, eps):
    return (1 + np.abs(scale[:, None])) * _standard(x, eps)[1] + np.abs(shift[:, None])


def _modulate_backward_sizes(dy, x, scale, eps):
    _, h, sigma = _standard(x, eps)
    a, dy = (1 + np.abs(scale[:, None])) * np.abs(dy), np.abs(dy)
    return (a + _mean(a) + h * _mean(a * h)) / sigma, dy.sum(axis=1), (dy * h).sum(axis=1)


def _layer_norm_sizes(x, w, b, eps):
    return np.abs(1 if w is None else w) * _standard(x, eps)[1] + np.abs(0 if b is None else b)


def _layer_norm_backward_sizes(dy, x, w, eps):
    _, h, sigma = _standard(x, eps)
    a, dy = np.abs(dy * w), np.abs(dy)
    rows = (part.reshape(-1, x.shape[-1]).sum(axis=0) for part in (dy * h, dy))
    return (a + _mean(a) + h * _mean(a * h)) / sigma, *rows


def _gate_sizes(x, r, gate):
    return np.abs(x) + np.abs(gate[:, None] * r)


def _gate_backward_sizes(dy, r, gate):
    return np.abs(dy), np.abs(gate[:, None] * dy), np.abs(dy * r).sum(axis=1)


def _rms_backward_sizes(dy, x, w, eps):
    root = np.sqrt(_mean(x * x) + eps)
    h, a = np.abs(x) / root, np.abs(dy if w is None else dy * w)
    return (a + h * _mean(a * h)) / root, (np.abs(dy) * h).reshape(-1, x.shape[-1]).sum(axis=0)


def _geglu_sizes(x):
    a, g = (np.abs(part) for part in np.split(x, 2, axis=-1))
    return a * g * cdf_size(g)


def _geglu_backward_sizes(dy, x):
    a, g = (np.abs(part) for part in np.split(x, 2, axis=-1))
    dg = np.abs(dy) * a * (cdf_size(g) + g * normal_pdf(g) * (1 + g * g))
    return np.concatenate([np.abs(dy) * g * cdf_size(g), dg], axis=-1)


def cdf_size(g):
    """Of (1 + erf(g / sqrt(2))) / 2, whose argument is rounded. g: >= 0."""
    return (1 + erf(g * math.sqrt(0.5))) / 2 + g * normal_pdf(g)


GROUPS = ((2, 4), (3, 6, 5), (4, 4, 4, 4), (2, 6, 3, 5, 2), (1, 8, 33), (2, 4, 31, 9))
ROWS = ((2, 3, 5), (4, 4, 4), (1, 7, 40), (3, 9, 72), (2, 1, 130))
FLAT = ((5,), (3, 40), (4, 4, 4, 4), (2, 3, 3, 2, 5), (9, 130))
LAYER = {"half": True, "empty": False, "settings": (*PER_EXAMPLE, "abar", "groups")}
UNET, DIT = ((64, 320, 64, 64), (8, 320, 64, 64), (256, 64, 32, 32), (4, 128, 512, 512)), (32, 1024, 1152)
UNETS = {"x".join(map(str, shape)): {"shape": shape, "groups": 32, "on": "triton_gpu"} for shape in UNET}
UNETS |= {"8x320x32x32": {"shape": (8, 320, 32, 32), "groups": 32, "on": "numba_cpu"}}
DITS = {"32x1024": {"shape": DIT, "on": "triton_gpu"}, "8x256": {"shape": (8, 256, 1152), "on": "numba_cpu"}}
NORMS = {row: options | {"eps": 1e-6} for row, options in DITS.items()}
GRADIENT = {"sums": True, **LAYER}


def _op(truth, ulps, make, scale, shapes, options=None, **more):
    return Op(truth, ulps=ulps, make=make, scale=scale, shapes=shapes, options=options or {}, stored=truth, **more)


OPS = [
    _op(
        layers.group_norm_silu, 6, functools.partial(_group, ("x",)), silu_sizes, GROUPS,
        OFFSET | EPS | {"affine": (False, True)}, examples=("x",), bench=UNETS, **LAYER,
    ),
    _op(
        layers.group_norm_silu_backward, 8, functools.partial(_group, ("dy", "x")), silu_backward_sizes, GROUPS,
        OFFSET | EPS, bench=UNETS, textbook=_silu_backward_terms, **GRADIENT,
    ),
    _op(
        layers.layer_norm_modulate, 6, functools.partial(_rows, ("x",), ("shift", "scale")), _modulate_sizes, ROWS,
        OFFSET | EPS, examples=("x", "shift", "scale"), bench=NORMS, **LAYER,
    ),
    _op(
        layers.layer_norm_modulate_backward, 8, functools.partial(_rows, ("dy", "x"), ("scale",)),
        _modulate_backward_sizes, ROWS, OFFSET | EPS, examples=("dy", "x", "scale"), bench=NORMS, **LAYER,
    ),
    _op(
        layers.layer_norm, 6, functools.partial(_last_axis, ("x",), ("w", "b")), _layer_norm_sizes, FLAT,
        OFFSET | EPS | {"affine": (False, True)}, examples=("x",), **LAYER,
    ),
    _op(
        layers.layer_norm_backward, 8, functools.partial(_last_axis, ("dy", "x"), ("w",)),
        _layer_norm_backward_sizes, FLAT, OFFSET | EPS, **GRADIENT,
    ),
    _op(
        layers.gate_residual, 3, functools.partial(_rows, ("x", "r"), ("gate",)), _gate_sizes, ROWS,
        examples=("x", "r", "gate"), bench=DITS, **LAYER,
    ),
    _op(
        layers.gate_residual_backward, 4, functools.partial(_rows, ("dy", "r"), ("gate",)), _gate_backward_sizes, ROWS,
        examples=("dy", "r", "gate"), writes=0, **LAYER,
    ),
    _op(
        layers.rms_norm, 6, functools.partial(_last_axis, ("x",), ("w",)), lambda **a: np.abs(layers.rms_norm(**a)),
        FLAT, EPS | {"affine": (False, True)}, examples=("x",), bench=NORMS, **LAYER,
    ),
    _op(
        layers.rms_norm_backward, 8, functools.partial(_last_axis, ("dy", "x"), ("w",)), _rms_backward_sizes, FLAT, EPS,
        **GRADIENT,
    ),
    _op(
        layers.geglu, 4, functools.partial(_halves, ("x",)), _geglu_sizes, FLAT, bench=DITS, **LAYER,
    ),
    _op(
        layers.geglu_backward, 6, functools.partial(_halves, ("dy", "x")), _geglu_backward_sizes, FLAT,
        bench=DITS, **LAYER,
    ),
]  # fmt: skip
