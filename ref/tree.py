"""Trees of parameters: nested dicts, and lists where blocks are numbered, with arrays at the leaves.

A dotted path names a leaf, as in published weight files: {"blocks": [{"w1": a}]} has the leaf "blocks.0.w1".
"""
import numpy as np


def map(f, *trees):
    """f of the leaves that stand at the same place. f: callable. trees: of one structure.

    Returns a tree of that structure. Raises ValueError where the structures differ.
    """
    first = trees[0]
    if isinstance(first, dict):
        if any(not isinstance(tree, dict) or tree.keys() != first.keys() for tree in trees):
            raise ValueError(f"trees: expected one structure, got {', '.join(_shown(tree) for tree in trees)}")
        return {key: map(f, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, list):
        if any(not isinstance(tree, list) or len(tree) != len(first) for tree in trees):
            raise ValueError(f"trees: expected one structure, got {', '.join(_shown(tree) for tree in trees)}")
        return [map(f, *parts) for parts in zip(*trees)]
    return f(*trees)


def leaves(tree):
    """The leaves in order, a list. tree: of arrays."""
    return list(named(tree).values())


def zeros_like(tree):
    """A tree of zeros of the same shapes and dtypes. tree: of arrays."""
    return map(np.zeros_like, tree)


def named(tree):
    """{dotted path: leaf}, in order. tree: of arrays."""
    if not isinstance(tree, (dict, list)):
        return {"": tree}
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {f"{key}.{path}".rstrip("."): leaf for key, part in parts for path, leaf in named(part).items()}


def from_named(named):
    """The inverse of `named`; an empty list or dict leaves no path and does not come back. A number that is missing
    between others stands for a layer without parameters and gives an empty dict. named: {dotted path: leaf}."""
    groups = {}
    for path, leaf in named.items():
        key, _, rest = path.partition(".")
        groups.setdefault(key, {})[rest] = leaf
    tree = {key: group[""] if "" in group else from_named(group) for key, group in groups.items()}
    if not tree or not all(key.isdecimal() for key in tree):
        return tree
    return [tree.get(str(i), {}) for i in range(max(int(key) for key in tree) + 1)]


def filled(tree, gradients):
    """The gradients in the structure and the shapes of the tree, 0 where there is none. tree: of arrays. gradients: a
    part of such a tree, None for nothing."""
    if isinstance(tree, dict):
        return {key: filled(part, (gradients or {}).get(key)) for key, part in tree.items()}
    if isinstance(tree, list):
        return [filled(part, gradients[i] if gradients else None) for i, part in enumerate(tree)]
    return np.zeros_like(tree) if gradients is None else gradients.reshape(tree.shape)


def apply(layer, params, x, **settings):
    """layer(x, w, b, ...) with the weight, and the bias if there is one, under their published names. layer: of
    `ref.layers`. params: dict with weight and perhaps bias; what is stored in float16 is widened here, for this call.
    x: array. settings: the layer's other arguments."""
    w, b = (a if a is None or a.dtype != np.float16 else a.astype(np.result_type(a, x), copy=False)
            for a in (params["weight"], params.get("bias")))
    return layer(x, w=w, b=b, **settings)


def gradient(layer_backward, dy, params, x, **settings):
    """The gradients of `apply`. layer_backward: of the same layer. dy: as the layer's output. params, x, settings: as
    there. Returns dx, dparams."""
    dx, dw, db = layer_backward(dy, x=x, w=params["weight"], **settings)
    return dx, {"weight": dw, "bias": db} if "bias" in params else {"weight": dw}


def _shown(tree):
    return f"keys {list(tree)}" if isinstance(tree, dict) else f"{len(tree)} items" if isinstance(tree,
                                                                                                  list) else "a leaf"
