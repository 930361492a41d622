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
    """The inverse of `named`; an empty list or dict leaves no path and does not come back. named: {dotted path:
    leaf}."""
    groups = {}
    for path, leaf in named.items():
        key, _, rest = path.partition(".")
        groups.setdefault(key, {})[rest] = leaf
    tree = {key: group[""] if "" in group else from_named(group) for key, group in groups.items()}
    return [tree[str(i)] for i in range(len(tree))] if tree and all(key.isdecimal() for key in tree) else tree


def _shown(tree):
    return f"keys {list(tree)}" if isinstance(tree, dict) else f"{len(tree)} items" if isinstance(tree,
                                                                                                  list) else "a leaf"
