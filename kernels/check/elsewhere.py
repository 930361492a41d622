"""What other libraries document: an operation's truth by their convention."""
import functools

import numpy as np

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
