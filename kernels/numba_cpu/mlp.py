"""What the loops over `ref.nets.mlp` share: weights, and how a tile of examples goes through a net.

A tile's examples are the columns: x is (pixels, examples), and so is every layer, so that weights are read in place,
a number at a time, and a product's lanes are examples. What an example becomes depends on no other example."""
from collections import namedtuple

import numpy as np
from numba import njit

from kernels.numba_cpu import engine
from kernels.numba_cpu.engine import INLINE, element
from kernels.numba_cpu.intrinsics import fma
from kernels.numba_cpu.math import silu
from kernels.numba_cpu.matmul import lanes
from kernels.numba_cpu.philox import normal_chunk, scratch

BLOCK = 16  # rows of a matrix that is transposed, at a time
EXAMPLES = 64  # in a tile, at most: two tiles of a product, so that what was read of the weights is used twice


# Weights, flat: of `simple_mlp` (width, pixels + 1), (width,), (pixels, width), (pixels,); of `residual`, whose classes
# are (classes + 1, width), and whose blocks follow each other in w1 (depth, width, width), b1 (depth, width), w2, b2
Simple = namedtuple("Simple", "w1 b1 w2 b2")
Residual = namedtuple("Residual", "w_in b_in classes w_out b_out w1 b1 w2 b2")


def simple_weights(params, pixels, dtype, whose="params", width=None):
    """The `Simple` of params, after the check. pixels: int. dtype: of the data. whose: for messages. width: None for
    any."""
    width = weight(params, ("w1",), dtype, (width, pixels + 1), whose).shape[0]
    shapes = {"w1": (width, pixels + 1), "b1": (width,), "w2": (pixels, width), "b2": (pixels,)}
    return Simple(*(engine.flat(weight(params, (name,), dtype, shape, whose)) for name, shape in shapes.items()))


def residual_weights(params, pixels, dtype):
    """The `Residual` of params, after the check. pixels: int. dtype: of the data."""
    width = weight(params, ("in", "w"), dtype, (None, pixels)).shape[0]
    parts = {"in.w": (width, pixels), "in.b": (width,), "class.w": (None, width)}
    parts |= {"out.w": (pixels, width), "out.b": (pixels,)}
    sizes = {"w1": (width, width), "b1": (width,), "w2": (width, width), "b2": (width,)}
    outer = [engine.flat(weight(params, path.split("."), dtype, shape)) for path, shape in parts.items()]
    paths = {name: [("blocks", i, name) for i in range(len(params.get("blocks", ())))] for name in sizes}
    inner = [[weight(params, path, dtype, sizes[name]).reshape(-1) for path in paths[name]] for name in sizes]
    # one array for all blocks: a tuple of them would be compiled for each depth
    return Residual(*outer, *(np.concatenate([np.empty(0, dtype), *arrays]) for arrays in inner))


def weight(params, path, dtype, shape, whose="params"):
    """The array at path in params, after the check. path: keys. dtype: of the data. shape: with None where any length
    will do. whose: for messages."""
    array = params
    for key in path:
        if isinstance(array, dict) and key not in array:
            raise ValueError(f"{whose}: expected an array {key!r}, got {sorted(array)}")
        array, whose = array[key], f"{whose}[{key!r}]"
    if engine.same(**{whose: array})[1] != dtype:
        raise TypeError(f"{whose}: expected a NumPy array of {dtype} like the data, got {array.dtype}")
    if len(array.shape) != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape)):
        any_for_none = tuple("any" if n is None else n for n in shape)
        raise ValueError(f"{whose}: expected shape {any_for_none}, got {array.shape}")
    return array


def tile_of(examples, like, columns=1):
    """How many examples there are in a tile, padding included: whole tiles of a product. examples: int. like: array.
    columns: of an example. Returns an int."""
    width = lanes(like)
    return min(max(EXAMPLES // columns, width), -(-max(examples, 1) // width) * width)


# --- what follows a product: c is the bias of its row, s the sum, r what stands at the place, see `matmul.layer` ------


@element
def set_sum(c, u, s, r, y):
    """s. Arguments as in `matmul.layer`: c, u, s, r, y."""
    return s


@element
def add_bias(c, u, s, r, y):
    """s + c. Arguments as in `set_sum`."""
    return s + c


@element
def add_to(c, u, s, r, y):
    """r + s + c. Arguments as in `set_sum`."""
    return r + (s + c)


@element
def relu(c, u, s, r, y):
    """max(s + c, 0); NaN stays NaN. Arguments as in `set_sum`."""
    h = s + c
    return type(h)(0) if h < 0 else h


@element
def relu_back(c, u, s, r, y):
    """s where the hidden layer y is above 0. Arguments as in `set_sum`."""
    return s if y > 0 else type(s)(0)


@element
def silu_conditioned(c, u, s, r, y):
    """silu(s + c + y), y of the label. Arguments as in `set_sum`."""
    return silu(s + (c + y))


# --- a tile's way in and out ------------------------------------------------------------------------------------------


@njit(**INLINE)
def tile_noise(z, lo, hi, key):
    """The noise of the elements lo .. hi - 1, in z. Noise is made in blocks of four: a tile's first example, a multiple
    of 4, begins one. z: array. lo, hi: ints. key: (4,) words."""
    normal_chunk(z, lo, hi, key, scratch())
    return z[: hi - lo]


@njit(**INLINE)
def add_tile_noise(x, along, z, pixels, count, sigma):
    """x (pixels, along) += sigma z^T, z (count, pixels). x, z: flat. along, pixels, count: ints. sigma: number."""
    for first in range(0, count, BLOCK):
        examples = min(BLOCK, count - first)
        for j in range(pixels):
            line, column = x[j * along + first : j * along + first + examples], z[first * pixels + j :]
            for i in range(examples):
                line[i] = fma(sigma, column[i * pixels], line[i])
