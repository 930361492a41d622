"""What the kernels of whole loops share: the nets of `ref.nets.mlp` as pointers, activations, tiles, launches.

A launch is a row of phases, one function each. In a phase each program takes tiles of a matrix product in turn, with
what follows it (bias and ReLU, the step, AdamW) done while the sums are in registers; between two phases all programs
wait at a barrier. A kernel takes `m`, pointers and numbers, and `C`, constants: groups whose names stand in its launch.
"""
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels import arguments
from kernels.triton_gpu import arrays, barrier, device, launch
from kernels.triton_gpu.math import logistic

# weights: pointers to w, b of the first and of the last layer, then w, b of the times' and the classes, None for
# simple_mlp. blocks: to w1, b1, w2, b2 of each. labels: (branches, B). w: of the guidance. features: of the times.
Net = namedtuple("Net", "width weights blocks labels w features")
# Tiles of a net up to 128 wide in the interpreter, where the time goes by the operation, padding included
SMALL = dict(OUT=32, IN=32, CHUNK=16, BATCH=32)


def tiles(sizes, widest):
    """The tiles for a net, a dict. sizes: of a net on the GPU. widest: its most pixels or units."""
    small = SMALL if device.INTERPRETED and widest <= 128 else {}
    return {name: small.get(name, n) for name, n in sizes.items()}


def layout(sizes, D, H, rounded):
    """The tiles, D and H in whole double CHUNKs, and how operands are stored: float32 in the interpreter, though
    rounded. sizes: as in `tiles`. D, H: pixels, units."""
    tile = tiles(sizes, max(D, H))
    padded = (triton.cdiv(n, 2 * tile["CHUNK"]) * 2 * tile["CHUNK"] for n in (D, H))
    return tile, *padded, "bfloat16" if rounded and not device.INTERPRETED else "float32"


def loop(kernel, most, near, *args, phases, **constants):
    """Launches kernel(*args, patience, span, C) once or, in the interpreter, once for each of phases, (number, span).
    most: programs that have work. near: `Arrays`. args: `m` and ints. constants: `C`, ints and bools."""
    for phase, span in phases if device.INTERPRETED else [(barrier.ALL, None)]:
        values = constants | {"PHASE": phase.value}
        C = launch.group(**{n: v if device.INTERPRETED else tl.constexpr(v) for n, v in values.items()})
        programs = min(most, launch.processors(near))
        launch.run(kernel, programs, near, *args, barrier.PATIENCE, span, C, warps=constants["WARPS"], together=True)


def _named(tree):
    """{dotted path: array} of nested dicts and lists."""
    found = {}
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        nested = isinstance(value, (dict, list))
        found |= {f"{name}.{path}": a for path, a in _named(value).items()} if nested else {str(name): value}
    return found


def _weights(params, like, shapes, whose="params", **sizes):
    """Pointers to the arrays of params, and sizes, after the check. A letter in shapes, {path: shape}, is one of
    sizes, or any size that all have in common."""
    params, pointers = _named(params), []
    for name, shape in shapes.items():
        if name not in params:
            raise ValueError(f"{whose}: expected an array {name!r}, got {sorted(params)}")
        label = f"{whose}[{name!r}]"
        array = arrays.read((like.dtype,), **{label: params[name]})
        if array.kind is not like.kind:
            raise TypeError(f"{label}: expected {like.kind.name} like the data, got {array.kind.name}")
        wanted = tuple(sizes.get(n, n) for n in shape)
        if len(array.shape) != len(wanted) or any(n not in (str(n), got) for n, got in zip(wanted, array.shape)):
            raise ValueError(f"{label}: expected shape ({', '.join(map(str, wanted))}), got {array.shape}")
        sizes |= dict(zip(shape, array.shape))
        like.streams.update(array.streams)
        pointers.append(array.pointers[0])
    return pointers, sizes


def simple(params, like, whose="params", **sizes):
    """`Net` of simple_mlp after the check. params: w1, b1, w2, b2. like: `Arrays` of the data. whose: for the
    message. sizes: H, units, where there is a choice of one."""
    D = like.shape[1]
    shapes = {"w1": ("H", D + 1), "b1": ("H",), "w2": (D, "H"), "b2": (D,)}
    pointers, sizes = _weights(params, like, shapes, whose, **sizes)
    return Net(sizes["H"], [*pointers, None, None, None], [], np.zeros((1, like.shape[0]), np.int32), 0.0, 0)


def residual(params, like, guidance):
    """`Net` of the residual net after the check. params: nested. like: `Arrays` of the data.
    guidance: None, or labels and w."""
    D = like.shape[1]
    shapes = {"in.w": ("H", D), "in.b": ("H",), "out.w": (D, "H"), "out.b": (D,), "time.w": ("H", "features")}
    shapes |= {"time.b": ("H",), "class.w": ("classes", "H")}
    parts = {"w1": ("H", "H"), "b1": ("H",), "w2": ("H", "H"), "b2": ("H",)}
    shapes |= {f"blocks.{i}.{part}": s for i in range(len(params.get("blocks", ()))) for part, s in parts.items()}
    pointers, sizes = _weights(params, like, shapes)
    labels, w = arguments.branches(guidance, like.shape[0], sizes["classes"] - 1)
    return Net(sizes["H"], pointers[:7], pointers[7:], labels.astype(np.int32), w, sizes["features"])


@triton.jit
def numbers(at, N: tl.constexpr):
    """The N numbers at a pointer, a tuple. at: pointer."""
    found = ()
    for k in tl.static_range(N):
        found = found + (tl.load(at + k),)
    return found


@triton.jit
def relu(x):
    """max(0, x); NaN stays NaN. x: block."""
    return tl.where(x > 0, x, tl.where(x == x, 0.0, x))


@triton.jit
def silu(x):
    """x sigmoid(x). x: block."""
    _, large, small = logistic(x)
    return x * tl.where(x < 0, small, large)
