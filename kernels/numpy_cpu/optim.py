"""`ref.optim` in tuned NumPy; `out` takes the results."""
import numpy as np

from kernels import coefficients
from kernels.numpy_cpu.arrays import linear


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, out=None):
    """`ref.optim.adam_step` in p's dtype. p, g, m, v, step, lr, beta1, beta2, eps, weight_decay: as there."""
    table = coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay)
    b1, a1, b2, a2, rate, unbias, small, decay = table.astype(p.dtype)
    p_out, m_out, v_out = (np.empty_like(p) for _ in range(3)) if out is None else out
    term = np.multiply(a1, g)
    np.multiply(b1, m, out=m_out)
    np.add(m_out, term, out=m_out)
    np.multiply(a2, g, out=term)
    np.multiply(g, term, out=term)
    np.multiply(b2, v, out=v_out)
    np.add(v_out, term, out=v_out)
    np.sqrt(v_out, out=term)
    np.multiply(unbias, term, out=term)
    np.add(term, small, out=term)
    np.divide(m_out, term, out=term)
    np.multiply(rate, term, out=term)
    if weight_decay:
        np.add(term, decay * p, out=term)
    return np.subtract(p, term, out=p_out), m_out, v_out


def muon_step(p, g, m, lr, momentum, weight_decay, out=None):
    """`ref.optim.muon_step` in p's dtype. p, g, m, lr, momentum, weight_decay: as there."""
    rate, keep, decay = coefficients.muon_step(lr, momentum, weight_decay, *p.shape[-2:]).astype(p.dtype)
    p_out, m_out = (np.empty_like(p) for _ in range(2)) if out is None else out
    a, b, c = (p.dtype.type(x) for x in coefficients.NEWTON_SCHULZ)
    m_next = keep * m + g
    x = g + keep * m_next
    x /= np.sqrt(np.square(x).sum(axis=(-2, -1), keepdims=True)) + p.dtype.type(1e-7)
    tall = p.shape[-2] > p.shape[-1]
    x = x.swapaxes(-2, -1) if tall else x
    for _ in range(5):
        A = x @ x.swapaxes(-2, -1)
        square = A @ A
        square *= c
        square += b * A
        x = a * x + square @ x
    step = np.multiply(rate, x.swapaxes(-2, -1) if tall else x)
    step += decay * p
    np.subtract(p, step, out=p_out)
    m_out[...] = m_next
    return p_out, m_out


def ema_step(avg, p, decay, out=None):
    """`ref.optim.ema_step` in avg's dtype. avg, p: one shape. decay: in [0, 1]."""
    return linear(coefficients.ema_step(decay), avg, p, out)


def clip_by_global_norm(grads, max_norm, out=None):
    """`ref.optim.clip_by_global_norm` in the arrays' dtype. grads: list or dict of arrays. max_norm: > 0."""
    if isinstance(grads, dict):
        clipped, norm = clip_by_global_norm(list(grads.values()), max_norm, out and [out[name] for name in grads])
        return dict(zip(grads, clipped)), norm
    norm = float(np.sqrt(sum(float(np.dot(g.reshape(-1), g.reshape(-1))) for g in grads)))
    scale = max_norm / norm if norm > max_norm else 1.0
    outs = [None] * len(grads) if out is None else out
    return [np.multiply(g, g.dtype.type(scale), out=o) for g, o in zip(grads, outs)], norm
