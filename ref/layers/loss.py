"""The loss of a classifier, next to its gradient.

Papers
    [DL]  Goodfellow, Bengio, Courville, "Deep Learning", 2016
"""
import numpy as np


def cross_entropy(logits, labels):
    """L = mean_b(logsumexp(logits_b) - logits_{b, label_b}), [DL] eqs. 6.29 and 6.30, the largest logit taken off
    first.

    logits: (B, classes), B >= 1. labels: (B,) ints.
    Returns L, a float.
    Raises ValueError where the shapes do not fit or a label is outside [0, classes).
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.size == 0:
        raise ValueError(f"expected logits (B, classes), labels (B,), B >= 1, got {logits.shape} and {labels.shape}")
    if not (0 <= labels.min() and labels.max() < logits.shape[1]):
        raise ValueError(f"labels: expected 0 <= label < {logits.shape[1]}, got {labels.min()} to {labels.max()}")
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(labels.size), labels])


def cross_entropy_backward(dloss, logits, labels):
    """dlogits = dloss (softmax(logits) - onehot(labels)) / B. dloss: float. logits, labels: as in `cross_entropy`.
    Returns dlogits."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    dlogits = e / e.sum(axis=1, keepdims=True)
    dlogits[np.arange(labels.size), labels] -= 1
    return dlogits * (dloss / labels.size)
