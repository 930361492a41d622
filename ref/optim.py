"""Adam and AdamW, the exponential moving average of weights, and clipping by the global norm.

Arrays keep their dtype: the truth is float64, training runs the same lines in float32.

Papers
    [Adam]     Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015
    [AdamW]    Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    [Pascanu]  Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013
    [DDPM]     Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
"""
import math

import numpy as np

from ref import tree


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    """[Adam] algorithm 1; with weight_decay > 0, [AdamW] algorithm 2, line 12 (decoupled: not part of the gradient):

        m <- beta1 m + (1 - beta1) g            mhat = m / (1 - beta1^step)
        v <- beta2 v + (1 - beta2) g^2          vhat = v / (1 - beta2^step)
        p <- p - lr (mhat / (sqrt(vhat) + eps) + weight_decay p)

    The paper's step is eta_t (alpha mhat / (sqrt(vhat) + eps) + lambda p): lr is eta_t alpha, weight_decay is lambda /
    alpha.
    p, g, m, v: one shape and dtype. step: int, 1 at the first update. eps stands outside the root.
    Returns p, m, v as new arrays.
    Raises ValueError where shapes differ or step < 1.
    """
    shapes = [np.shape(a) for a in (p, g, m, v)]
    if len(set(shapes)) != 1:
        raise ValueError("p, g, m, v: expected equal shapes, got {}, {}, {}, {}".format(*shapes))
    if step < 1:
        raise ValueError(f"step: expected at least 1, got {step}")
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    mhat = m / (1 - beta1**step)
    vhat = v / (1 - beta2**step)
    return p - lr * (mhat / (np.sqrt(vhat) + eps) + weight_decay * p), m, v


def ema_step(avg, p, decay):
    """avg <- decay avg + (1 - decay) p, the weights that are sampled from ([DDPM] appendix B, decay 0.9999).

    avg, p: one shape and dtype. decay: in [0, 1].
    Returns the new average.
    Raises ValueError where shapes differ or decay is outside [0, 1].
    """
    if np.shape(avg) != np.shape(p):
        raise ValueError(f"avg and p: expected equal shapes, got {np.shape(avg)} and {np.shape(p)}")
    if not 0 <= decay <= 1:
        raise ValueError(f"decay: expected 0 <= decay <= 1, got {decay}")
    return decay * avg + (1 - decay) * p


def clip_by_global_norm(grads, max_norm):
    """[Pascanu] algorithm 1 over all arrays together:  g <- g max_norm / n  where  n = sqrt(sum_i ||g_i||^2) >
    max_norm.

    grads: a tree of arrays (`ref.tree`). max_norm: > 0.
    Returns a tree of that structure with new arrays of the same dtypes; unchanged values where n <= max_norm.
    Raises ValueError for max_norm <= 0.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a positive number, got {max_norm}")
    norm = math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in tree.leaves(grads)))
    scale = max_norm / norm if norm > max_norm else 1.0
    return tree.map(lambda g: g * scale, grads)
