"""What other libraries document: an operation's truth by their convention."""
import functools

import numpy as np

from kernels import registry, tolerance
from ref import tree


def _clip(grads, max_norm, floor=0.0):
    """The gradients times max_norm / (norm + floor) where that is less than 1, and their norm."""
    norm = np.sqrt(sum(np.sum(g * g) for g in tree.leaves(grads)))
    return tree.map(lambda g: np.minimum(max_norm / (norm + floor), 1.0) * g, grads), norm


ELSEWHERE = {  # an operation's truth by the convention of another library
    "optim.clip_by_global_norm": {
        "Optax's clip_by_global_norm, and PyTorch's: a norm that is NaN makes every gradient NaN": _clip,
        "PyTorch's clip_grad_norm_: max_norm / (norm + 1e-6)": functools.partial(_clip, floor=1e-6),
    },
}  # fmt: skip


def followed(op, arguments, outputs, rules):
    """The documented convention of another library that the outputs follow, in words, or None. op: `registry.Op`.
    arguments: dict. outputs: of a function. rules: how much they may err."""
    for name, truth in ELSEWHERE.get(op.name, {}).items():
        with registry.quiet():
            theirs = registry.outputs(truth(**registry.exact(arguments)))
        if all(tolerance.error(o, tolerance.Rule(t, r.allowed)) <= 1 for o, t, r in zip(outputs, theirs, rules)):
            return f"follows {name}"
