"""`ref.layers.attention` and its gradient in tuned NumPy, a head at a time, in slices of its queries that stay in the
cache; `out` takes the results."""
import numpy as np

SLICE = 2**18  # weights at a time


def attention(q, k, v, mask=None, causal=False, out=None):
    """`ref.layers.attention` in q's dtype. q, k, v: (B, heads, L, d). mask, causal: as there."""
    y = np.empty(q.shape[:3] + v.shape[3:], q.dtype) if out is None else out
    for head, rows, seen in _walk(q, k, mask, causal):
        p, vs = _weights(q[head][rows], k[head], seen), v[head]
        y[head][rows] = _product(p, vs, seen)
    return y


def attention_backward(dy, q, k, v, mask=None, causal=False, out=None):
    """`ref.layers.attention_backward` in q's dtype. dy, q, k, v, mask, causal: as there."""
    dq, dk, dv = (np.empty_like(a) for a in (q, k, v)) if out is None else out
    dk[...], dv[...] = 0, 0
    scale = q.dtype.type(q.shape[3] ** -0.5)
    for head, rows, seen in _walk(q, k, mask, causal):
        qs, dys = q[head][rows], dy[head][rows]
        p = _weights(qs, k[head], seen)
        dv[head] += p.T @ dys
        ds = dys @ v[head].T
        if seen is not None:
            np.copyto(ds, 0, where=~seen)
        ds -= np.einsum("ij,ij->i", p, ds)[:, None]
        ds *= p
        ds *= scale
        dq[head][rows] = _product(ds, k[head], seen)
        dk[head] += _product(ds.T, qs, None if seen is None else seen.T)
    return dq, dk, dv


def _walk(q, k, mask, causal):
    """(head, rows, seen) of each slice."""
    lq, lk = q.shape[2], k.shape[2]
    mask = None if mask is None else np.broadcast_to(mask, (*q.shape[:2], lq, lk))
    step = max(1, SLICE // max(lk, 1))
    for head in np.ndindex(*q.shape[:2]):
        for first in range(0, lq, step):
            rows = slice(first, first + step)
            seen = None if mask is None else mask[head][rows]
            if causal:
                earlier = np.arange(lk) <= np.arange(lq)[rows, None] + (lk - lq)
                seen = earlier if seen is None else seen & earlier
            yield head, rows, seen


def _weights(q, k, seen):
    s = (q * q.dtype.type(q.shape[1] ** -0.5)) @ k.T
    if seen is not None:
        np.copyto(s, -np.inf, where=~seen)
    top = s.max(axis=1, keepdims=True, initial=-np.inf)
    s -= np.where(top == -np.inf, 0, top)
    p = np.exp(s, out=s)
    total = p.sum(axis=1, keepdims=True)
    p /= np.where(total == 0, 1, total)
    return p


def _product(p, v, seen):
    """p v, in which what is not finite and not seen plays no part."""
    finite = True if seen is None else np.isfinite(v)
    if np.all(finite):
        return p @ v
    return np.where(seen @ ~finite, p @ v, p @ np.where(finite, v, 0))
