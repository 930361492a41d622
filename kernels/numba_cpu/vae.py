"""`ref.vae` on the CPU: what a training step takes of an encoder's and a decoder's output, one pass over memory each.

Arguments and errors are those of `ref.vae`, arrays of one dtype, float32 or float64; `out`, where given, is an array
of that shape and dtype, or three for three results, and may be one of the inputs. Sums of an example are float64,
added in one order. Bad input raises before anything is written; whether x lies in [0, 1] is not checked, which would
be another pass.

Papers
    [VAE]  Kingma, Welling, "Auto-Encoding Variational Bayes", 2014
"""
from kernels import coefficients
from kernels.numba_cpu import engine, reduce
from kernels.numba_cpu.engine import element
from kernels.numba_cpu.intrinsics import fma
from kernels.numba_cpu.math import logistic, std_of
from kernels.numba_cpu.reduce import reduction
from kernels.numba_cpu.rowwise import apply_many, rowwise

# --- equations of one element: c are the coefficients of its row, u the scalars of the call, see `rowwise` ------------


@element
def reparameterized(c, u, mu, logvar, eps):
    """z = mu + std eps, and the term mu^2 + exp(logvar) - 1 - logvar of twice the KL. c, u: none. mu, logvar, eps:
    numbers."""
    std, _, excess = std_of(logvar)
    return fma(std, eps, mu), fma(mu, mu, excess)


@element
def reparameterized_back(c, u, dz, mu, logvar, eps):
    """dmu, dlogvar, deps. c: dkl of the example. u: none. dz, mu, logvar, eps: numbers."""
    dkl = c[0]
    std, grown, _ = std_of(logvar)
    deps = std * dz
    half = type(dz)(0.5)
    return fma(dkl, mu, dz), half * fma(deps, eps, dkl * grown), deps


@element
def bernoulli(c, u, logit, x):
    """dlogit = dnll (sigmoid(logit) - x), and the term of the nll. c: dnll of the example. u: none. logit, x:
    numbers."""
    zero, one = type(x)(0), type(x)(1)
    log, large, small = logistic(logit)
    up, down = (large, small) if logit >= zero else (small, large)  # sigmoid(logit), sigmoid(-logit)
    weight = one - x if logit >= zero else x
    term = log + (zero if weight == zero else weight * abs(logit))  # a weight of 0 counts even where logit is infinite
    return c[0] * fma(one - x, up, -(x * down)), term


REPARAMETERIZE = reduction(reparameterized, inputs=3, coefficients=0, vectors=True)
REPARAMETERIZE_BACK = rowwise(reparameterized_back, inputs=4, coefficients=1, outputs=3, vectors=True)
BERNOULLI = reduction(bernoulli, inputs=2, coefficients=1, vectors=True)


def reparameterize_kl(mu, logvar, eps, out=None):
    """[VAE] eq. 10 and appendix B on the CPU, arguments as in `ref.vae.reparameterize_kl`; out takes z, kl is
    float64."""
    shape, dtype = engine.same(mu=mu, logvar=logvar, eps=eps)
    rows, n = coefficients.examples(shape)
    sums, z = reduce.apply(REPARAMETERIZE, rows, n, out, shape, dtype, reduce.NO_TABLE, mu, logvar, eps)
    return z, sums / 2


def reparameterize_kl_backward(dz, dkl, mu, logvar, eps, out=None):
    """Gradients of `reparameterize_kl` on the CPU, arguments as in `ref.vae.reparameterize_kl_backward`."""
    shape, dtype = engine.same(dz=dz, mu=mu, logvar=logvar, eps=eps)
    coefficients.examples(shape)
    table = coefficients.numbers("dkl", dkl, shape).reshape(1, -1)
    return apply_many(REPARAMETERIZE_BACK, 3, out, shape, dtype, table, dz, mu, logvar, eps)


def bernoulli_nll_grad(logits, x, dnll=1.0, out=None):
    """[VAE] eq. 11 and its gradient on the CPU, arguments as in `ref.vae.bernoulli_nll_grad`; nll is float64."""
    shape, dtype = engine.same(logits=logits, x=x)
    rows, n = coefficients.examples(shape)
    table = coefficients.numbers("dnll", dnll, shape).reshape(1, -1)
    return reduce.apply(BERNOULLI, rows, n, out, shape, dtype, table, logits, x)
