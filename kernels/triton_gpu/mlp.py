"""What the kernels of whole loops share: the nets of `ref.nets.mlp` as pointers, activations, tiles.

A launch is a row of phases, one function each. In a phase each program takes tiles of a matrix product in turn, with
what follows it (bias and ReLU, the step, AdamW) done while the sums are in registers; between two phases all programs
wait at a barrier.
"""
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels import arguments
from kernels.triton_gpu import arrays, device, launch
from kernels.triton_gpu.math import logistic

# Weights of either net; simple_mlp has the first four, and the rest are None. labels: (branches, B). w: (steps, B).
# features: of the times, how many.
Net = namedtuple("Net", "width w_in b_in w_out b_out w_time b_time classes blocks labels w features")
# Tiles of a net up to 128 wide in the interpreter, where the time goes by the operation, padding included
SMALL = dict(OUT=32, IN=32, CHUNK=16, BATCH=32)


def tiles(sizes, widest):
    """The tiles for a net, a dict. sizes: of a net on the GPU. widest: its most pixels or units."""
    small = SMALL if device.INTERPRETED and widest <= 128 else {}
    return {name: small.get(name, n) for name, n in sizes.items()}


def constants(name, **values):
    """A named tuple of compile-time constants, for a parameter that is a `tl.constexpr`. name: of its type.
    values: ints or bools."""
    if (name, *values) not in _types:
        _types[name, *values] = namedtuple(name, list(values))
    return _types[name, *values](*(n if device.INTERPRETED else tl.constexpr(n) for n in values.values()))


_types = {}


def padded(n, chunk):
    """n in whole double chunks. n, chunk: ints."""
    return launch.programs(n, 2 * chunk) * 2 * chunk


def rounds(precision):
    """Whether operands are rounded to bfloat16, after the check. precision: "float32" or "bfloat16"."""
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f'precision: expected "float32" or "bfloat16", got {precision!r}')
    return precision == "bfloat16"


def operand_dtype(rounded):
    """How operands are stored; the interpreter keeps rounded numbers in float32. rounded: to bfloat16?"""
    return "bfloat16" if rounded and not device.INTERPRETED else "float32"


def named(tree):
    """{dotted path: array} of nested dicts and lists. tree: of parameters."""
    found = {}
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, (dict, list)):
            found |= {f"{name}.{path}": a for path, a in named(value).items()}
        else:
            found[str(name)] = value
    return found


def weight(params, name, like, shape, whose="params"):
    """A pointer to an array and its shape, after the check. params: {dotted path: array}, from `named`. name: the path.
    like: `Arrays` of the data. shape: with None where any length will do. whose: for the message."""
    if name not in params:
        raise ValueError(f"{whose}: expected an array {name!r}, got {sorted(params)}")
    label = f"{whose}[{name!r}]"
    array = arrays.read((like.dtype,), **{label: params[name]})
    if array.kind is not like.kind:
        raise TypeError(f"{label}: expected {like.kind.name} like the data, got {array.kind.name}")
    if len(array.shape) != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape)):
        wanted = tuple("any" if n is None else n for n in shape)
        raise ValueError(f"{label}: expected shape {wanted}, got {array.shape}")
    like.streams.update(array.streams)
    return array.pointers[0], array.shape


def simple(params, like, whose="params", width=None):
    """`Net` of simple_mlp after the check. params: w1, b1, w2, b2. like: `Arrays` of the data. whose: for the
    message. width: of the hidden layer, None for any."""
    params, pixels = named(params), like.shape[1]
    w1, (width, _) = weight(params, "w1", like, (width, pixels + 1), whose)
    shapes = {"b1": (width,), "w2": (pixels, width), "b2": (pixels,)}
    rest = [weight(params, name, like, shape, whose)[0] for name, shape in shapes.items()]
    return Net(width, w1, *rest, None, None, None, [], np.zeros((1, like.shape[0]), np.int32), np.zeros((1, 1)), 0)


def residual(params, like, guidance, times):
    """`Net` of the residual net after the check. params: nested. like: `Arrays` of the data.
    guidance: as in `arguments.branches`. times: (n + 1,) ints."""
    pixels, depth, params = like.shape[1], len(params.get("blocks", ())), named(params)
    w_in, (width, _) = weight(params, "in.w", like, (None, pixels))
    w_time, (_, features) = weight(params, "time.w", like, (width, None))
    classes, (rows, _) = weight(params, "class.w", like, (None, width))
    shapes = {"in.b": (width,), "out.w": (pixels, width), "out.b": (pixels,), "time.b": (width,)}
    b_in, w_out, b_out, b_time = (weight(params, name, like, shape)[0] for name, shape in shapes.items())
    parts = {"w1": (width, width), "b1": (width,), "w2": (width, width), "b2": (width,)}
    parts = {f"blocks.{i}.{part}": shape for i in range(depth) for part, shape in parts.items()}
    blocks = [weight(params, name, like, shape)[0] for name, shape in parts.items()]
    labels, w = arguments.branches(guidance, like.shape[0], rows - 1, times)
    return Net(width, w_in, b_in, w_out, b_out, w_time, b_time, classes, blocks, labels.astype(np.int32), w, features)


@triton.jit
def relu(x):
    """max(0, x); NaN stays NaN. x: block."""
    return tl.where(x > 0, x, tl.where(x == x, 0.0, x))


@triton.jit
def silu(x):
    """x sigmoid(x). x: block."""
    _, large, small = logistic(x)
    return x * tl.where(x < 0, small, large)
