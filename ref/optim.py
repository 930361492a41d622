"""Adam and AdamW, Muon, the exponential moving average of weights, and clipping by the global norm.

Arrays keep their dtype: the truth is float64, training runs the same lines in float32.

Papers
    [Adam]       Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015
    [AdamW]      Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    [Muon]       Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
    [Moonlight]  Liu et al., "Muon is Scalable for LLM Training", 2025
    [Pascanu]    Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013
    [DDPM]       Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
"""
import math

import numpy as np

from ref import tree
from ref.numerics import norm
from ref.shapes import integer, number

NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315  # a, b, c: a large slope at 0, and singular values near 1 stay there


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    """[Adam] algorithm 1; with weight_decay > 0, [AdamW] algorithm 2, line 12 (decoupled: not part of the gradient):

        m <- beta1 m + (1 - beta1) g            mhat = m / (1 - beta1^step)
        v <- beta2 v + (1 - beta2) g^2          vhat = v / (1 - beta2^step)
        p <- p - lr (mhat / (sqrt(vhat) + eps) + weight_decay p)

    The paper's step is eta_t (alpha mhat / (sqrt(vhat) + eps) + lambda p): lr is eta_t alpha, weight_decay is lambda /
    alpha.
    p, g, m, v: one shape and dtype, float32 or float64: in float16 eps is 0 and v is soon, too. step: int, 1 at the
    first update. lr, eps, weight_decay: finite, >= 0. beta1, beta2: in [0, 1). eps stands outside the root.
    Returns p, m, v as new arrays.
    Raises ValueError where shapes differ, step < 1 or a number is out of its range; TypeError for arrays of another
    dtype or a step that is no int.
    """
    (p, g, m, v), step = _state(p=p, g=g, m=m, v=v), integer(step, "step")
    if step < 1:
        raise ValueError(f"step: expected at least 1, got {step}")
    beta1, beta2 = _from_0(1, beta1=beta1, beta2=beta2)
    lr, eps, weight_decay = _from_0(math.inf, lr=lr, eps=eps, weight_decay=weight_decay)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    mhat = m / _one_less_power(beta1, step)
    vhat = v / _one_less_power(beta2, step)
    return p - lr * (mhat / (np.sqrt(vhat) + eps) + weight_decay * p), m, v


def muon_step(p, g, m, lr, momentum, weight_decay):
    """[Muon]: the momentum of a matrix, made orthogonal, so that every direction moves by as much; its size is that of
    Adam's usual step, [Moonlight] eq. 4:

        m <- momentum m + g                     u = g + momentum m   (Nesterov's)
        p <- p - lr (0.2 sqrt(max(r, c)) orthogonalize(u) + weight_decay p)

    For the matrices of hidden layers; others, vectors, embeddings and the last layer keep Adam.
    p, g, m: (..., r, c), any number of matrices, one shape and dtype, float32 or float64. lr, weight_decay: finite, >=
    0. momentum: in [0, 1), 0.95 in the paper.
    Returns p, m as new arrays.
    Raises ValueError where shapes differ, are no matrices or a number is out of its range; TypeError for arrays of
    another dtype.
    """
    p, g, m = _state(p=p, g=g, m=m)
    (momentum,), (lr, weight_decay) = _from_0(1, momentum=momentum), _from_0(math.inf, lr=lr, weight_decay=weight_decay)
    m = momentum * m + g
    u = orthogonalize(g + momentum * m)
    return p - lr * (0.2 * math.sqrt(max(p.shape[-2:])) * u + weight_decay * p), m


def orthogonalize(g):
    """Nearly U V^T of the matrix g = U S V^T, by five Newton-Schulz steps, [Muon]:

        X <- g / (||g||_F + 1e-7)               A = X X^T,  X <- a X + (b A + c A^2) X

    A step takes a singular value s to a s + b s^3 + c s^5: after five, those above 0.002 of ||g||_F lie between 0.68
    and 1.21. No decomposition: products of matrices alone. g: (..., r, c); the result has its dtype.
    Returns X (..., r, c).
    Raises ValueError for an array without two axes.
    """
    if np.ndim(g) < 2:
        raise ValueError(f"expected matrices (..., r, c), got shape {np.shape(g)}")
    x = g / (np.sqrt((g * g).sum(axis=(-2, -1), keepdims=True)) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    if tall:  # the smaller of X X^T and X^T X
        x = x.swapaxes(-2, -1)
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        A = x @ x.swapaxes(-2, -1)
        x = a * x + (b * A + c * (A @ A)) @ x
    return x.swapaxes(-2, -1) if tall else x


def ema_step(avg, p, decay):
    """avg <- decay avg + (1 - decay) p, the weights that are sampled from ([DDPM] appendix B, decay 0.9999).

    avg, p: one shape and dtype, float32 or float64. decay: in [0, 1].
    Returns the new average.
    Raises ValueError where shapes differ or decay is outside [0, 1], TypeError for arrays of another dtype.
    """
    (avg, p), decay = _state(avg=avg, p=p), number(decay, "decay")
    if not 0 <= decay <= 1:
        raise ValueError(f"decay: expected 0 <= decay <= 1, got {decay}")
    return decay * avg + (1 - decay) * p


def clip_by_global_norm(grads, max_norm):
    """Gradient clipping, [Pascanu] algorithm 1 over all arrays together:  g <- g max_norm / n  where
    n = sqrt(sum_i ||g_i||^2) > max_norm.

    A NaN anywhere makes n NaN, which is no norm to clip by: all values stay what they are, and n says so. An infinite n
    makes 0 of every finite one. grads: a tree of arrays (`ref.tree`). max_norm: > 0; with inf it measures alone.
    Returns a tree of that structure with new arrays of the same dtypes, unchanged values where n <= max_norm; and n, of
    the gradients as they were, a float.
    Raises ValueError for max_norm <= 0.
    """
    max_norm = number(max_norm, "max_norm")
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a positive number, got {max_norm}")
    norms = [float(norm(np.reshape(g, (1, -1)))[0]) for g in tree.leaves(grads)]
    n = math.nan if any(map(math.isnan, norms)) else math.hypot(*norms)  # hypot(inf, nan) is inf
    scale = max_norm / n if n > max_norm else 1.0
    return tree.map(lambda g: g * scale, grads), n


def _state(**arrays):
    """The arrays, after the check that they have one shape and one dtype, float32 or float64. arrays: by name."""
    arrays = {name: np.asarray(a) for name, a in arrays.items()}
    for name, a in arrays.items():
        if a.dtype not in (np.float32, np.float64):
            raise TypeError(f"{name}: expected float32 or float64, got {a.dtype}")
    if len({a.shape for a in arrays.values()}) != 1:
        raise ValueError("expected equal shapes, got " + ", ".join(f"{n} {a.shape}" for n, a in arrays.items()))
    return arrays.values()


def _from_0(end, **values):
    """The numbers, after the check that they lie in [0, end). values: by name."""
    for name, value in values.items():
        values[name] = number(value, name)
        if not 0 <= values[name] < end:
            raise ValueError(f"{name}: expected 0 <= {name} < {end}, got {value}")
    return values.values()


def _one_less_power(beta, step):
    """1 - beta^step, which would cancel for a beta near 1."""
    return -math.expm1(step * math.log(beta)) if beta > 0 else 1.0
