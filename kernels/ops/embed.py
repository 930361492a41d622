"""`ref.layers.embedding` and its gradient: on the GPU alone, for NumPy's own is a copy of rows."""
import numpy as np

from kernels.ops.inputs import PER_EXAMPLE, data
from kernels.ops.record import Op
from ref import layers

SHAPES = ((5,), (3, 40), (4, 4, 4), (2, 3, 5), (9, 130))
MEMORY = {"half": True, "empty": False, "shapes": SHAPES, "settings": (*PER_EXAMPLE, "abar", "index")}


def _make(names, rng, shape, dtype, values):
    """An input maker: classes of n columns, and an index of all axes but the last."""
    rows, n = shape[:-1] or (1,), shape[-1]
    index, classes = rng.integers(3, size=rows), 4  # of the last class nothing is used
    shapes = {"w": (classes, n), "dy": (*rows, n)}
    arrays = {name: data(rng, shapes[name], dtype, values) for name in names}
    for x in arrays.values() if "dy" in names else ():
        x[np.isinf(x.astype(np.float64))] = np.nan
    return arrays | {"index": index}


def _sums(dy, w, index):
    return layers.embedding_backward(np.abs(dy), w, index)


OPS = [
    Op(layers.embedding, make=lambda *a: _make(("w",), *a), **MEMORY),
    Op(layers.embedding_backward, ulps=4, make=lambda *a: _make(("dy", "w"), *a), scale=_sums, sums=True, **MEMORY),
]
