"""What other libraries document: an operation's truth by their convention."""
import numpy as np


def _norm(grads):
    return np.sqrt(sum(np.sum(g * g) for g in grads))


def _clip_grad_norm(grads, max_norm):
    scale = np.minimum(max_norm / (_norm(grads) + 1e-6), 1.0)
    return [scale * g for g in grads], _norm(grads)


def _optax_clip(grads, max_norm):
    return [np.minimum(max_norm / _norm(grads), 1.0) * g for g in grads], _norm(grads)


ELSEWHERE = {  # an operation's truth by the convention of another library
    "optim.clip_by_global_norm": {
        "Optax's clip_by_global_norm, and PyTorch's: a norm that is NaN makes every gradient NaN": _optax_clip,
        "PyTorch's clip_grad_norm_: max_norm / (norm + 1e-6)": _clip_grad_norm,
    },
}  # fmt: skip
