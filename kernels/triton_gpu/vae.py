"""`ref.vae` on the GPU: float32, what a training step takes of an encoder's and a decoder's output, one pass over
memory each.

Arguments are those of `ref.vae` (equations there), arrays of one kind (see `arrays`); dkl and dnll are of the host.
`out`, where given, is an array of that kind and shape and may be one of the inputs. Sums of an example are float64,
added in one order that the example's size alone decides. Errors as there, before anything is written; but that x lies
in [0, 1] is not checked.

Papers
    [VAE]  Kingma, Welling, "Auto-Encoding Variational Bayes", 2014
"""
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu.arrays import SINGLE, output, read
from kernels.triton_gpu.math import logistic, std_of
from kernels.triton_gpu.reduce import by_example
from kernels.triton_gpu.rowwise import rowwise


def reparameterize_kl(mu, logvar, eps, out=None):
    """[VAE] eq. 10 and appendix B; arguments as in `ref.vae.reparameterize_kl`.
    kl is (B,) float64, of the kind of the inputs."""
    arrays = read(SINGLE, mu=mu, logvar=logvar, eps=eps)
    coefficients.examples(arrays.shape)
    out, pointer = output("out", out, arrays)
    return out, by_example(kl, arrays, (pointer,))


def reparameterize_kl_backward(dz, dkl, mu, logvar, eps, out=None):
    """Gradients of `reparameterize_kl`; arguments as in `ref.vae.reparameterize_kl_backward`. out: three arrays.
    dkl is of the host."""
    arrays = read(SINGLE, dz=dz, mu=mu, logvar=logvar, eps=eps)
    coefficients.examples(arrays.shape)
    c = coefficients.numbers("dkl", dkl, arrays.shape).reshape(1, -1)
    return rowwise(kl_backward, arrays, c, out, writes=3)


def bernoulli_nll_grad(logits, x, dnll=1.0, out=None):
    """[VAE] eq. 11 and its gradient in one pass; arguments as in `ref.vae.bernoulli_nll_grad`.
    nll is (B,) float64, of the kind of the inputs; dnll is of the host."""
    arrays = read(SINGLE, logits=logits, x=x)
    coefficients.examples(arrays.shape)
    c = coefficients.numbers("dnll", dnll, arrays.shape).reshape(1, -1)
    out, pointer = output("out", out, arrays)
    return by_example(nll, arrays, (pointer,), c), out


@triton.jit
def kl(total, mu, logvar, eps):
    """mu^2 + exp(logvar) - 1 - logvar, halved and added to total; and z. total, mu, logvar, eps: blocks."""
    std, grown, excess = std_of(logvar)
    return total + 0.5 * tl.fma(mu, mu, excess), tl.fma(std, eps, mu)


@triton.jit
def kl_backward(dz, mu, logvar, eps, dkl):
    """dmu, dlogvar, deps. dz, mu, logvar, eps: blocks. dkl: number or block."""
    std, grown, excess = std_of(logvar)
    deps = std * dz
    return tl.fma(dkl, mu, dz), 0.5 * tl.fma(deps, eps, dkl * grown), deps


@triton.jit
def nll(total, logit, x, dnll):
    """x softplus(-logit) + (1 - x) softplus(logit), added to total; and dlogit. total, logit, x: blocks.
    dnll: number or block."""
    log, large, small = logistic(logit)
    up, down = tl.where(logit >= 0, large, small), tl.where(logit >= 0, small, large)  # sigmoid(logit), sigmoid(-logit)
    weight = tl.where(logit >= 0, 1.0 - x, x)
    loss = log + tl.where(weight == 0, 0.0, weight * tl.abs(logit))  # a weight of 0 counts even where logit is infinite
    return total + loss, dnll * tl.fma(1.0 - x, up, -(x * down))
