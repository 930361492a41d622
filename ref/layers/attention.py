"""Attention, next to its gradient. Arrays keep their dtype. Heads stand before the length: (B, heads, L, d).

The weights of all queries on all keys never stand together: a slice of at most SLICE of them, or one query's, is made,
used and dropped, and the gradient makes them again.

Papers
    [Transformer]  Vaswani et al., "Attention Is All You Need", 2017
    [Flash]        Dao, Fu, Ermon, Rudra, Re, "FlashAttention: Fast and Memory-Efficient Exact Attention with
                   IO-Awareness", 2022
    [QK]           Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters", 2023
    [SD3]          Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024
"""
import itertools

import numpy as np

from ref.layers.linear import linear, linear_backward
from ref.layers.norm import rms_norm, rms_norm_backward
from ref.shapes import integer
from ref.tree import apply, filled, gradient

SLICE = 2**20  # weights that stand together
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out"), ("q_proj", "k_proj", "v_proj", "out_proj")  # published names
STREAMS = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")
NORMS = {"to_q": "norm_q", "to_k": "norm_k", "add_q_proj": "norm_added_q", "add_k_proj": "norm_added_k"}
EPS = 1e-6  # of these norms


def attention(q, k, v, mask=None, causal=False):
    """y = softmax(q k^T / sqrt(d)) v, [Transformer] eq. 1, over the keys that each query sees.

    A query that sees no key gets 0. A key that is not seen plays no part, even where it is NaN.

    q: (B, heads, Lq, d). k: (B, heads, Lk, d). v: (B, heads, Lk, e). mask: bools that broadcast to (B, heads, Lq, Lk),
    True where a query sees a key, or None. causal: bool; then query i sees no key j > i + Lk - Lq.
    Returns y (B, heads, Lq, e).
    Raises ValueError where the shapes do not fit.
    """
    mask = _checked(q, k, v, mask)
    y = np.zeros(q.shape[:3] + v.shape[3:], np.result_type(q, k, v), like=q)
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
    dq, dk, dv = (np.zeros(a.shape, np.result_type(dy, q, k, v), like=a) for a in (q, k, v))
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
    heads = integer(heads, "heads")
    if x.ndim != 3 or heads < 1 or x.shape[2] % heads:
        raise ValueError(f"heads: expected a divisor of the last axis of x (B, L, C), got {heads} for {x.shape}")
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def merge_heads(y):
    """(B, heads, L, d) as (B, L, heads d), the inverse of `split_heads` and its gradient. y: (B, heads, L, d). Returns
    (B, L, C)."""
    return y.swapaxes(1, 2).reshape(len(y), y.shape[2], -1)


def multi_head(params, x, context, heads, causal=False, mask=None):
    """y = W_o merge(Attention(split(W_q x), split(W_k c), split(W_v c))), [Transformer] section 3.2.2: x asks, and the
    context c answers, which is x itself in self-attention. Where the dict has norm_q and norm_k, queries and keys go
    through an `rms_norm`, [QK] section 2.1.

    params: dict with to_q, to_k, to_v and to_out, a list whose first entry counts; or q_proj, k_proj, v_proj, out_proj.
    x: (B, Lq, C). context: (B, Lk, D), or None for x. heads: int. causal, mask: as in
    `attention`.
    Returns y (B, Lq, C), cache.
    Raises ValueError where the shapes do not fit.
    """
    *names, out = _names(params)
    c = x if context is None else context
    qkv, raw = _to_heads(params, names, (x, c, c), heads)
    a = merge_heads(attention(*qkv, mask=mask, causal=causal))  # (B, Lq, heads d)
    return apply(linear, _first(params[out]), a), {"x": x, "context": context, "qkv": qkv, "raw": raw, "a": a}


def multi_head_backward(dy, params, cache, causal=False, mask=None):
    """Gradients of `multi_head`. dy: as y there. params, causal, mask: as there. cache: of the forward. Returns dx,
    dcontext, dparams; dcontext is None where the context was, and its part is in dx."""
    *names, out = _names(params)
    x, context, grads = cache["x"], cache["context"], {}
    c = x if context is None else context
    da, grads[out] = gradient(linear_backward, dy, _first(params[out]), cache["a"])
    dqkv = attention_backward(split_heads(da, cache["qkv"][0].shape[1]), *cache["qkv"], mask=mask, causal=causal)
    dx, dk, dv = _to_heads_gradients(dqkv, params, names, (x, c, c), cache["raw"], grads)
    grads = filled(params, _outputs(params, grads))
    return (dx + dk + dv, None, grads) if context is None else (dx, dk + dv, grads)


def joint_attention(params, x, context, heads):
    """Attention of two streams, each with weights of its own, over the tokens of both, [SD3] section 4:

        y, c = split(Attention([W_q x, V_q context], [W_k x, V_k context], [W_v x, V_v context]))

    then W_o y, and V_o c where the dict has to_add_out. Norms as in `multi_head`.

    params: dict with to_q, to_k, to_v, to_out for W, and add_q_proj, add_k_proj, add_v_proj, to_add_out for V. x: (B,
    L, C). context: (B, Lc, C). heads: int.
    Returns y (B, L, C), c (B, Lc, C) or None, cache.
    """
    (q, k, v), raw = _to_heads(params, STREAMS[0], (x,) * 3, heads)
    added, raw_added = _to_heads(params, STREAMS[1], (context,) * 3, heads)
    qkv = [np.concatenate(pair, axis=2) for pair in zip((q, k, v), added)]  # (B, heads, L + Lc, d)
    a = merge_heads(attention(*qkv))  # (B, L + Lc, C)
    y, c = apply(linear, _first(params["to_out"]), a[:, :x.shape[1]]), None
    if "to_add_out" in params:
        c = apply(linear, params["to_add_out"], a[:, x.shape[1]:])
    return y, c, {"x": x, "context": context, "qkv": qkv, "raw": [raw, raw_added], "a": a}


def joint_attention_backward(dy, dc, params, cache):
    """Gradients of `joint_attention`. dy, dc: as y and c there. params: as there. cache: of the forward. Returns dx,
    dcontext, dparams."""
    x, context, grads, length = cache["x"], cache["context"], {}, cache["x"].shape[1]
    da, grads["to_out"] = gradient(linear_backward, dy, _first(params["to_out"]), cache["a"][:, :length])
    dadded = np.zeros(context.shape[:2] + da.shape[2:], da.dtype, like=da)
    if "to_add_out" in params:
        dadded, grads["to_add_out"] = gradient(linear_backward, dc, params["to_add_out"], cache["a"][:, length:])
    da = split_heads(np.concatenate([da, dadded], axis=1), cache["qkv"][0].shape[1])
    dqkv = attention_backward(da, *cache["qkv"])
    own, others = ([d[:, :, part] for d in dqkv] for part in (slice(length), slice(length, None)))
    dx = sum(_to_heads_gradients(own, params, STREAMS[0], (x,) * 3, cache["raw"][0], grads))
    dcontext = sum(_to_heads_gradients(others, params, STREAMS[1], (context,) * 3, cache["raw"][1], grads))
    return dx, dcontext, filled(params, _outputs(params, grads))


def _names(params):
    """The published names of the four layers of `multi_head`."""
    return next(names for names in PROJECTIONS if names[0] in params)


def _first(layer):
    """A layer that may be the first of a list."""
    return layer[0] if isinstance(layer, list) else layer


def _outputs(params, grads):
    """grads with a list where params has one."""
    return {name: [grad] + params[name][1:] if isinstance(params[name], list) else grad for name, grad in grads.items()}


def _to_heads(params, names, given, heads):
    """(q, k, v) of three arrays by the layers of these names, normed where there are norms; and the three before it."""
    raw = [split_heads(apply(linear, params[name], x), heads) for name, x in zip(names, given)]  # (B, heads, L, d)
    return [rms_norm(a, params[NORMS[name]]["weight"], EPS) if NORMS.get(name) in params else a
            for name, a in zip(names, raw)], raw


def _to_heads_gradients(dqkv, params, names, given, raw, grads):
    """The gradients in the three arrays; those in the parameters go to grads."""
    found = []
    for name, d, x, a in zip(names, dqkv, given, raw):
        if NORMS.get(name) in params:
            d, dw = rms_norm_backward(d, a, params[NORMS[name]]["weight"], EPS)
            grads[NORMS[name]] = {"weight": dw}
        dx, grads[name] = gradient(linear_backward, merge_heads(d), params[name], x)
        found.append(dx)
    return found


def _checked(q, k, v, mask):
    """mask, of the shape of the weights. Raises ValueError where the shapes do not fit."""
    weights = q.shape[:3] + k.shape[2:3]
    if q.ndim != 4 or k.shape != q.shape[:2] + k.shape[2:3] + q.shape[3:] or v.shape[:3] != k.shape[:3] or v.ndim != 4:
        raise ValueError(f"expected q (B, heads, Lq, d), k (B, heads, Lk, d), v (B, heads, Lk, e), got q {q.shape}, "
                         f"k {k.shape}, v {v.shape}")
    if mask is None:
        return None
    fits = mask.ndim <= 4 and all(m in (1, n) for m, n in zip(mask.shape[::-1], weights[::-1]))
    if mask.dtype != bool or not fits:
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
        last = np.arange(q.shape[2], like=q)[at[2], None] + k.shape[2] - q.shape[2]
        earlier = np.arange(k.shape[2], like=k) <= last  # (Lq, Lk)
        seen = earlier if seen is None else seen & earlier
    return seen


def _weights(q, k, seen):
    """softmax(q k^T / sqrt(d)) over the keys that are seen, 0 for the others."""
    with np.errstate(invalid="ignore"):  # of keys that are not seen
        scores = (q * q.shape[3] ** -0.5) @ k.swapaxes(2, 3)
    if seen is not None:
        scores = np.where(seen, scores, -np.inf)
    # the largest score taken off; -inf, where nothing is seen, stays
    top = np.real(scores).max(axis=-1, keepdims=True) if scores.size else 0
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
