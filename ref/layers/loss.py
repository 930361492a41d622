"""The loss of a classifier, next to its gradient.

Papers
    [DL]  Goodfellow, Bengio, Courville, "Deep Learning", 2016
"""
import numpy as np

from ref.numerics import exp_difference
from ref.shapes import classes, number


def cross_entropy(logits, labels):
    """L = mean_b(logsumexp(logits_b) - logits_{b, label_b}), [DL] eqs. 6.29 and 6.30, the largest logit taken off
    first, and the 1 that it leaves in the sum: a small loss keeps its digits. e^L is the perplexity.

    logits: (B, classes), B >= 1. labels: (B,) ints.
    Returns L, a float.
    Raises ValueError where the shapes do not fit or a label is outside [0, classes), TypeError for labels that are no
    ints.
    """
    labels, rows = _labels(logits, labels)
    largest = logits.max(axis=1)
    others = exp_difference(logits, largest[:, None])
    others[rows, logits.argmax(axis=1)] = 0
    return np.mean(np.log1p(others.sum(axis=1)) + (largest - logits[rows, labels]))


def cross_entropy_backward(dloss, logits, labels):
    """dlogits = dloss (softmax(logits) - onehot(labels)) / B, the label's own from the others, with which it adds to 0.

    dloss: float. logits, labels: as in `cross_entropy`.
    Returns dlogits.
    Raises as `cross_entropy` does.
    """
    labels, rows = _labels(logits, labels)
    e = exp_difference(logits, logits.max(axis=1, keepdims=True))
    total = e.sum(axis=1, keepdims=True)
    e[rows, labels] = 0
    e[rows, labels] = -e.sum(axis=1)
    return e / total * (number(dloss, "dloss") / labels.size)


def _labels(logits, labels):
    """The labels as ints, and the numbers of their rows."""
    if logits.ndim != 2 or np.shape(labels) != logits.shape[:1] or np.size(labels) == 0:
        raise ValueError(f"expected logits (B, classes), labels (B,), B >= 1, got {logits.shape}, {np.shape(labels)}")
    return classes(labels, logits.shape[1], "labels"), np.arange(len(logits))
