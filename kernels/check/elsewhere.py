"""What other libraries document: an operation's truth by their convention."""
import numpy as np


def _norm(grads):
    return np.sqrt(sum(np.sum(g * g) for g in grads))


def _clip_grad_norm(grads, max_norm):
    scale = np.minimum(max_norm / (_norm(grads) + 1e-6), 1.0)
    return [scale * g for g in grads]


ELSEWHERE = {  # an operation's truth by the convention of another library
    "optim.clip_by_global_norm": {
        "PyTorch's clip_grad_norm_: max_norm / (norm + 1e-6)": _clip_grad_norm,
        "Optax's clip_by_global_norm: a norm that is NaN makes every gradient NaN":
            lambda grads, max_norm: [np.minimum(max_norm / _norm(grads), 1.0) * g for g in grads],
    },
}  # fmt: skip
