"""A gradient next to the finite differences of its forward."""
import inspect
import re

import numpy as np

from ref.tree import from_named, named

SAMPLED = 32  # elements of an array whose finite difference is taken, spread evenly, in addition to its first three
ARRAYS, IN_ALL, FIXED = 24, 250, "pos_embed"  # of a large tree: arrays, elements of all; a table without a gradient


def gradient_names(backward):
    """The arguments whose gradients it returns, in order, as its docstring says: "Returns dx0, deps, each ...".
    backward: of `ref`."""
    said = re.search(r".*Returns ((?:d\w+(?:,\s+|\s+and\s+|\b))+)", inspect.getdoc(backward), flags=re.S)[1]
    return [name[1:] for name in re.findall(r"d\w+", said)]


def finite_differences(backward, forward, inputs, upstream, gradients):
    """[(name, gradient, difference, size)]: some elements of each gradient, the central differences of sum(upstream *
    outputs of the forward) by five points, and how many elements there are.

    backward, forward: of `ref`. inputs: the forward's arguments. upstream: one array or number for each output.
    gradients: what the backward returned.
    """
    def loss(moved):
        outputs = forward(**moved)
        return sum(np.sum(d * out) for d, out in zip(upstream, outputs if isinstance(outputs, tuple) else (outputs,)))

    table = []
    for name, gradient in zip(gradient_names(backward), gradients, strict=True):
        whole, grads = named(inputs[name]), named(gradient)
        sampled, learned = min(SAMPLED, max(1, IN_ALL // len(whole))), [key for key in whole if not key.endswith(FIXED)]
        for key in learned[::max(1, len(learned) // ARRAYS)]:
            value = np.asarray(whole[key], np.float64)
            few, h = min(sampled, value.size), 1e-4
            chosen = np.unique(np.append(np.arange(min(3, few)), np.linspace(0, value.size - 1, few).astype(int)))

            def at(i, h):
                moved = value.copy()
                moved.flat[i] += h
                try:
                    return loss(inputs | {name: from_named(whole | {key: moved}) if key else moved[()]})
                except ValueError:  # outside of what the forward takes, a step from its edge
                    return np.nan

            slopes = [(8 * (at(i, h) - at(i, -h)) - (at(i, 2 * h) - at(i, -2 * h))) / (12 * h) for i in chosen]
            table.append((f"d{name}.{key}".rstrip("."), np.ravel(grads[key])[chosen], np.array(slopes), value.size))
    return table
