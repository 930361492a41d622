"""Attention, next to its gradient. Arrays keep their dtype. Heads stand before the length: (B, heads, L, d).

The weights of all queries on all keys never stand together: a slice of at most SLICE of them, or one query's, is made,
used and dropped, and the gradient makes them again.

Papers
    [Transformer]  Vaswani et al., "Attention Is All You Need", 2017
    [Flash]        Dao, Fu, Ermon, Rudra, Re, "FlashAttention: Fast and Memory-Efficient Exact Attention with
                   IO-Awareness", 2022
"""
import itertools

import numpy as np

from ref.layers.linear import linear, linear_backward
from ref.tree import apply, filled, gradient

SLICE = 2**20  # weights that stand together
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out"), ("q_proj", "k_proj", "v_proj", "out_proj")  # published names


def attention(q, k, v, mask=None, causal=False):
    """y = softmax(q k^T / sqrt(d)) v, [Transformer] eq. 1, over the keys that each query sees.

    A query that sees no key gets 0. A key that is not seen plays no part, even where it is NaN.

    q: (B, heads, Lq, d). k: (B, heads, Lk, d). v: (B, heads, Lk, e). mask: bools that broadcast to (B, heads, Lq, Lk),
    True where a query sees a key, or None. causal: bool; then query i sees no key j > i + Lk - Lq.
    Returns y (B, heads, Lq, e).
    Raises ValueError where the shapes do not fit.
    """
    mask = _checked(q, k, v, mask)
    y = np.empty(q.shape[:3] + v.shape[3:], np.result_type(q, k, v))
    for at in _slices(q, k):
        seen = _seen(at, q, k, mask, causal)
        y[at] = _product(_weights(q[at], k[at[:2]], seen), v[at[:2]], seen)
    return y


def attention_backward(dy, q, k, v, mask=None, causal=False):
    """Gradients of `attention`, with weights p and scores s, [Flash] appendix B.2:

        dv = p^T dy,   dp = dy v^T,   ds = p (dp - sum_k p dp),   dq = ds k / sqrt(d),   dk = ds^T q / sqrt(d)

    dy: as y there. q, k, v, mask, causal: as there.
    Returns dq, dk, dv.
    """
    mask = _checked(q, k, v, mask)
    dq, dk, dv = (np.zeros(a.shape, np.result_type(dy, q, k, v)) for a in (q, k, v))
    for at in _slices(q, k):
        heads, seen = at[:2], _seen(at, q, k, mask, causal)
        p = _weights(q[at], k[heads], seen)  # (B, heads, Lq, Lk)
        dv[heads] += p.swapaxes(2, 3) @ dy[at]
        with np.errstate(invalid="ignore"):  # of keys that are not seen
            dp = dy[at] @ v[heads].swapaxes(2, 3)
        ds = dp if seen is None else np.where(seen, dp, 0)
        ds -= (p * ds).sum(axis=-1, keepdims=True)
        ds *= p
        ds *= q.shape[3] ** -0.5
        dq[at] = _product(ds, k[heads], seen)
        dk[heads] += _product(ds.swapaxes(2, 3), q[at], None if seen is None else seen.swapaxes(-1, -2))
    return dq, dk, dv


def split_heads(x, heads):
    """(B, L, heads d) as (B, heads, L, d), [Transformer] section 3.2.2. Its gradient is `merge_heads`.

    x: (B, L, C). heads: int that divides C.
    Returns (B, heads, L, C / heads).
    Raises ValueError where it does not.
    """
    if x.ndim != 3 or heads < 1 or x.shape[2] % heads:
        raise ValueError(f"heads: expected a divisor of the last axis of x (B, L, C), got {heads} for {x.shape}")
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def merge_heads(y):
    """(B, heads, L, d) as (B, L, heads d), the inverse of `split_heads` and its gradient. y: (B, heads, L, d). Returns
    (B, L, C)."""
    return y.swapaxes(1, 2).reshape(len(y), y.shape[2], -1)


def multi_head(params, x, context, heads, causal=False):
    """y = W_o merge(Attention(split(W_q x), split(W_k c), split(W_v c))), [Transformer] section 3.2.2: x asks, and the
    context c answers, which is x itself in self-attention.

    params: dict with to_q, to_k, to_v and to_out, a list whose first entry counts; or q_proj, k_proj, v_proj, out_proj.
    x: (B, Lq, C). context: (B, Lk, D), or None for x. heads: int. causal: as in `attention`.
    Returns y (B, Lq, C), cache.
    Raises ValueError where the shapes do not fit.
    """
    w_q, w_k, w_v, w_out = _projections(params)
    c = x if context is None else context
    q = split_heads(apply(linear, w_q, x), heads)  # (B, heads, Lq, d)
    k = split_heads(apply(linear, w_k, c), heads)  # (B, heads, Lk, d)
    v = split_heads(apply(linear, w_v, c), heads)  # (B, heads, Lk, d)
    a = merge_heads(attention(q, k, v, causal=causal))  # (B, Lq, heads d)
    return apply(linear, w_out, a), {"x": x, "context": context, "qkv": (q, k, v), "a": a}


def multi_head_backward(dy, params, cache, causal=False):
    """Gradients of `multi_head`. dy: as y there. params, causal: as there. cache: of the forward. Returns dx, dcontext,
    dparams; dcontext is None where the context was, and its part is in dx."""
    w_q, w_k, w_v, w_out = _projections(params)
    x, context, (q, k, v) = cache["x"], cache["context"], cache["qkv"]
    c = x if context is None else context
    da, dw_out = gradient(linear_backward, dy, w_out, cache["a"])
    dq, dk, dv = attention_backward(split_heads(da, q.shape[1]), q, k, v, causal=causal)
    dx, dw_q = gradient(linear_backward, merge_heads(dq), w_q, x)
    dc_k, dw_k = gradient(linear_backward, merge_heads(dk), w_k, c)
    dc_v, dw_v = gradient(linear_backward, merge_heads(dv), w_v, c)
    names = next(names for names in PROJECTIONS if names[0] in params)
    out = [dw_out, *params[names[3]][1:]] if isinstance(params[names[3]], list) else dw_out
    grads = filled(params, dict(zip(names, (dw_q, dw_k, dw_v, out))))
    return (dx + dc_k + dc_v, None, grads) if context is None else (dx, dc_k + dc_v, grads)


def _projections(params):
    """The four layers of `multi_head`."""
    names = next(names for names in PROJECTIONS if names[0] in params)
    *w_qkv, w_out = (params[name] for name in names)
    return *w_qkv, w_out[0] if isinstance(w_out, list) else w_out


def _checked(q, k, v, mask):
    """mask, of the shape of the weights. Raises ValueError where the shapes do not fit."""
    weights = q.shape[:3] + k.shape[2:3]
    if q.ndim != 4 or k.shape != q.shape[:2] + k.shape[2:3] + q.shape[3:] or v.shape[:3] != k.shape[:3] or v.ndim != 4:
        raise ValueError(f"expected q (B, heads, Lq, d), k (B, heads, Lk, d), v (B, heads, Lk, e), got q {q.shape}, "
                         f"k {k.shape}, v {v.shape}")
    if mask is None:
        return None
    if mask.dtype != bool or np.broadcast_shapes(mask.shape, weights) != weights:
        raise ValueError(f"mask: expected bools that broadcast to {weights}, got {mask.dtype} {mask.shape}")
    return np.broadcast_to(mask, weights)


def _slices(q, k):
    """Places in (B, heads, Lq) of at most SLICE weights: whole examples, else whole heads, else some queries of one."""
    sizes, room = [], max(1, SLICE // max(1, k.shape[2]))
    for n in q.shape[2::-1]:
        sizes.insert(0, min(max(1, n), room))
        room = max(1, room // sizes[0])
    starts = itertools.product(*(range(0, n, size) for n, size in zip(q.shape, sizes)))
    return [tuple(slice(start, start + size) for start, size in zip(place, sizes)) for place in starts]


def _seen(at, q, k, mask, causal):
    """Which keys the queries of a slice see, (B, heads, Lq, Lk) or fewer axes; None for all."""
    seen = None if mask is None else mask[at]
    if causal:
        last = np.arange(q.shape[2])[at[2], None] + k.shape[2] - q.shape[2]
        earlier = np.arange(k.shape[2]) <= last  # (Lq, Lk)
        seen = earlier if seen is None else seen & earlier
    return seen


def _weights(q, k, seen):
    """softmax(q k^T / sqrt(d)) over the keys that are seen, 0 for the others."""
    with np.errstate(invalid="ignore"):  # of keys that are not seen
        scores = (q * q.shape[3] ** -0.5) @ k.swapaxes(2, 3)
    if seen is not None:
        scores = np.where(seen, scores, -np.inf)
    # the largest score taken off; -inf, where nothing is seen, stays
    top = np.real(scores).max(axis=-1, keepdims=True, initial=-np.inf)
    scores -= np.where(top == -np.inf, 0, top)
    p = np.exp(scores, out=scores)
    total = p.sum(axis=-1, keepdims=True)
    p /= np.where(total == 0, 1, total)
    return p


def _product(p, v, seen):
    """p v, in which a NaN or an infinity that is not seen plays no part. p: (..., m, n). v: (..., n, e)."""
    finite = True if seen is None else np.isfinite(v)
    if np.all(finite):
        return p @ v
    with np.errstate(invalid="ignore"):
        return np.where(seen @ ~finite, p @ v, p @ np.where(finite, v, 0))
