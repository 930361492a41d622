"""`ref.vae` on the CPU: what a training step takes of an encoder's and a decoder's output, one pass over memory each.

Arguments are those of `ref.vae` (equations there), arrays of one dtype, float32 or float64; `out`, where given, is an array of
that shape and dtype and may be one of the inputs. Sums of an example are float64, added in one order. Errors as there, before
anything is written; but that x lies in [0, 1] is not looked at, which would be another pass.

Papers
    [VAE]  Kingma, Welling, "Auto-Encoding Variational Bayes", 2014
"""
import numpy as np
from numba import njit

from kernels import coefficients
from kernels.numba_cpu import engine
from kernels.numba_cpu.math import logistic, std_of
from kernels.numba_cpu.engine import COMPILE, INLINE, SUM
from kernels.numba_cpu.intrinsics import deliver, fma, wide


def reparameterize_kl(mu, logvar, eps, out=None):
    """[VAE] eq. 10 and appendix B:  z = mu + exp(logvar / 2) eps,  kl = 1/2 sum(mu^2 + exp(logvar) - 1 - logvar). mu, logvar, eps: (B, ...).

    Returns z (B, ...), in out where given, and kl (B,) float64. Raises as `ref.vae.reparameterize_kl`.
    """
    shape, dtype = engine.same(mu=mu, logvar=logvar, eps=eps)
    rows, n = coefficients.examples(shape)
    mu, logvar, eps = engine.flat(mu), engine.flat(logvar), engine.flat(eps)
    memory, how = engine.output(out, shape, dtype, mu, logvar, eps)
    partial = np.empty((rows, engine.segments(n)))
    engine.run_rows(_reparameterize_kl, rows, n, memory, partial, mu, logvar, eps, n, how)
    return engine.finish(memory, out, shape), partial.sum(axis=1) / 2


def reparameterize_kl_backward(dz, dkl, mu, logvar, eps, out=None):
    """Gradients of `reparameterize_kl`:  dmu = dz + dkl mu,  dlogvar = (dz eps std + dkl (exp(logvar) - 1)) / 2,  deps = std dz.

    dz, mu, logvar, eps: (B, ...). dkl: (B,), or a float for all. Returns dmu, dlogvar, deps; out: three arrays for them, which may be
    inputs. Raises as `ref.vae.reparameterize_kl_backward`.
    """
    shape, dtype = engine.same(dz=dz, mu=mu, logvar=logvar, eps=eps)
    coefficients.examples(shape)
    dkl = coefficients.numbers("dkl", dkl, shape).reshape(1, -1)
    out = (None, None, None) if out is None else out
    engine.apart(out)
    dz, mu, logvar, eps = engine.flat(dz), engine.flat(mu), engine.flat(logvar), engine.flat(eps)
    memory, how = zip(*(engine.output(o, shape, dtype, dz, mu, logvar, eps) for o in out))
    engine.run(_reparameterize_kl_backward, dz.size, *memory, dz, dkl, mu, logvar, eps, engine.row_size(dz, dkl), max(how))
    return tuple(engine.finish(a, o, shape) for a, o in zip(memory, out))


def bernoulli_nll_grad(logits, x, dnll=1.0, out=None):
    """[VAE] eq. 11 and its gradient in one pass:  nll = sum(x softplus(-logits) + (1 - x) softplus(logits)),  dlogits = dnll (sigmoid(logits) - x).

    logits, x: (B, ...), x in [0, 1]. dnll: (B,), or a float for all. Returns nll (B,) float64, dlogits (B, ...), in out where given.
    Raises as `ref.vae.bernoulli_nll_grad`.
    """
    shape, dtype = engine.same(logits=logits, x=x)
    rows, n = coefficients.examples(shape)
    dnll = np.broadcast_to(coefficients.numbers("dnll", dnll, shape), rows).astype(dtype)
    logits, x = engine.flat(logits), engine.flat(x)
    memory, how = engine.output(out, shape, dtype, logits, x)
    partial = np.empty((rows, engine.segments(n)))
    engine.run_rows(_bernoulli_nll_grad, rows, n, memory, partial, logits, x, dnll, n, how)
    return partial.sum(axis=1), engine.finish(memory, out, shape)


@njit(**SUM)
def total(terms):
    """The sum of one segment, float64: a loop that stores nothing, so its order is the same wherever it lies. terms: numbers."""
    s = 0.0
    for j in range(terms.size):
        s += terms[j]
    return s


@njit(**INLINE)
def segment(k, n):
    """Row, first and last element (not included) of segment k of rows of n elements, see `engine.segments`. k, n: ints."""
    parts = -(-n // engine.CHUNK)
    row = k // parts
    first = row * n + (k - row * parts) * engine.CHUNK
    return row, first, min(first + engine.CHUNK, (row + 1) * n)


@njit(**INLINE)
def _reparameterize_kl_rows(z, terms, mu, logvar, eps):
    for j in range(mu.size):
        std, _, excess = std_of(logvar[j])
        z[j] = fma(std, eps[j], mu[j])
        terms[j] = fma(mu[j], mu[j], excess)


@njit(**COMPILE)
def _reparameterize_kl(lo, hi, z, partial, mu, logvar, eps, n, how):
    wide()
    chunk, terms, sums = np.empty(engine.CHUNK, z.dtype), np.empty(engine.CHUNK, z.dtype), partial.reshape(-1)
    for k in range(lo, hi):
        _, a, b = segment(k, n)
        if how == engine.DIRECT:
            _reparameterize_kl_rows(z[a:b], terms, mu[a:b], logvar[a:b], eps[a:b])
        else:
            _reparameterize_kl_rows(chunk, terms, mu[a:b], logvar[a:b], eps[a:b])
            deliver(z, a, b, chunk, how)
        sums[k] = total(terms[: b - a])


@njit(**INLINE)
def _reparameterize_kl_backward_rows(dmu, dlogvar, deps, lo, hi, dz, dkl, mu, logvar, eps, n):
    half = dmu.dtype.type(0.5)
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c = dmu.dtype.type(dkl[0, row])
        r, s, t = dmu[i - lo : end - lo], dlogvar[i - lo : end - lo], deps[i - lo : end - lo]
        d, m, v, e = dz[i:end], mu[i:end], logvar[i:end], eps[i:end]
        for j in range(d.size):
            std, grown, _ = std_of(v[j])
            g = std * d[j]
            r[j] = fma(c, m[j], d[j])
            s[j] = half * fma(g, e[j], c * grown)
            t[j] = g
        i = end


@njit(**COMPILE)
def _reparameterize_kl_backward(lo, hi, dmu, dlogvar, deps, dz, dkl, mu, logvar, eps, n, how):
    wide()
    if how == engine.DIRECT:
        _reparameterize_kl_backward_rows(dmu[lo:hi], dlogvar[lo:hi], deps[lo:hi], lo, hi, dz, dkl, mu, logvar, eps, n)
    else:
        chunks = np.empty((3, engine.CHUNK), dmu.dtype)
        for first in range(lo, hi, engine.CHUNK):
            last = min(first + engine.CHUNK, hi)
            _reparameterize_kl_backward_rows(chunks[0], chunks[1], chunks[2], first, last, dz, dkl, mu, logvar, eps, n)
            deliver(dmu, first, last, chunks[0], how)
            deliver(dlogvar, first, last, chunks[1], how)
            deliver(deps, first, last, chunks[2], how)


@njit(**INLINE)
def _bernoulli_nll_grad_rows(o, terms, logits, x, c):
    zero, one = o.dtype.type(0), o.dtype.type(1)
    for j in range(logits.size):
        l, y = logits[j], x[j]
        log, large, small = logistic(l)
        up, down = (large, small) if l >= zero else (small, large)  # sigmoid(l), sigmoid(-l)
        terms[j] = log + ((one - y) * l if l >= zero else -y * l)
        o[j] = c * fma(one - y, up, -(y * down))


@njit(**COMPILE)
def _bernoulli_nll_grad(lo, hi, out, partial, logits, x, dnll, n, how):
    wide()
    chunk, terms, sums = np.empty(engine.CHUNK, out.dtype), np.empty(engine.CHUNK, out.dtype), partial.reshape(-1)
    for k in range(lo, hi):
        row, a, b = segment(k, n)
        if how == engine.DIRECT:
            _bernoulli_nll_grad_rows(out[a:b], terms, logits[a:b], x[a:b], dnll[row])
        else:
            _bernoulli_nll_grad_rows(chunk, terms, logits[a:b], x[a:b], dnll[row])
            deliver(out, a, b, chunk, how)
        sums[k] = total(terms[: b - a])
