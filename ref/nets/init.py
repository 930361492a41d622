"""Fresh parameters for the networks with published names, from a tree of shapes.

Papers
    [Init]   LeCun, Bottou, Orr, Mueller, "Efficient BackProp", 1998, section 4.6
    [Fixup]  Zhang, Dauphin, Ma, "Fixup Initialization: Residual Learning Without Normalization", 2019
"""
import math

import numpy as np

from ref import tree
from ref.philox import normal, stream


def shapes(*weight, bias=True):
    """{"weight": shape, "bias": shape} of a layer: shapes(out, in) of a linear one, shapes(out, in, 3, 3) of a
    convolution, shapes(n) of a norm, shapes(rows, n, bias=False) of a table. weight: ints. bias: bool. Returns a
    dict."""
    return {"weight": weight, "bias": weight[:1]} if bias else {"weight": weight}


def drawn(seed, layers, zero=(), dtype=np.float32):
    """Weights normal with variance 1 / inputs ([Init]), those of a norm 1, biases 0. What ends a residual branch may
    start at 0, as [Fixup] section 2 has it: the block is then the identity.

    seed: int. layers: a tree of `shapes`. zero: dotted endings of paths, such as "conv2". dtype: float32 or float64.
    Returns the tree of arrays.
    """
    params = {}
    for i, (path, shape) in enumerate(tree.named(layers).items()):
        owner, _, kind = path.rpartition(".")
        if kind == "bias" or owner.endswith(tuple(zero)):
            params[path] = np.zeros(shape, dtype)
        elif len(shape) == 1:
            params[path] = np.ones(shape, dtype)
        else:
            params[path] = (math.prod(shape[1:]) ** -0.5 * normal(seed, shape, stream("init", i))).astype(dtype)
    return tree.from_named(params)
