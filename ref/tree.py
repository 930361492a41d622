"""Trees of parameters: dicts and lists of arrays, as `ref.nets` keeps them."""
import numpy as np


def map(f, *trees):
    """f of the arrays that stand at one place in all trees. trees: of one structure. Returns a tree of that structure."""
    first = trees[0]
    if isinstance(first, dict):
        return {name: map(f, *(tree[name] for tree in trees)) for name in first}
    if isinstance(first, list):
        return [map(f, *parts) for parts in zip(*trees, strict=True)]
    return f(*trees)


def leaves(tree):
    """The arrays of a tree, a list."""
    return list(named(tree).values())


def zeros_like(tree):
    """A tree of zeros."""
    return map(np.zeros_like, tree)


def named(tree):
    """{dotted path: array}; a list's parts are numbered from 0, as in "blocks.0.w1"."""
    if not isinstance(tree, (dict, list)):
        return {"": tree}
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {f"{key}.{path}".rstrip("."): leaf for key, part in parts for path, leaf in named(part).items()}


def from_named(named):
    """The tree of dotted paths; parts whose keys are all numbers become a list. named: {dotted path: array}."""
    parts = {}
    for path, leaf in named.items():
        key, _, rest = path.partition(".")
        parts.setdefault(key, {})[rest] = leaf
    tree = {key: part[""] if "" in part else from_named(part) for key, part in parts.items()}
    return [tree[key] for key in sorted(tree, key=int)] if tree and all(key.isdigit() for key in tree) else tree
