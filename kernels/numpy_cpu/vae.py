"""`ref.vae` in tuned NumPy. `out` takes the results like the data; `scratch`: arrays like them to work in, or None."""
import numpy as np

from kernels.numpy_cpu.arrays import columns, per_example, softplus


def reparameterize_kl(mu, logvar, eps, out=None, scratch=None):
    """`ref.vae.reparameterize_kl` in mu's dtype. mu, logvar, eps: (B, ...). scratch: two arrays."""
    one, two = (None, None) if scratch is None else scratch
    std = np.multiply(logvar, logvar.dtype.type(0.5), out=one)
    np.exp(std, out=std)
    z = np.multiply(std, eps, out=out)
    np.add(z, mu, out=z)
    term = np.multiply(std, std, out=std)
    np.subtract(term, logvar, out=term)
    np.subtract(term, 1, out=term)
    np.add(term, np.multiply(mu, mu, out=two), out=term)
    return z, per_example(term) / 2


def reparameterize_kl_backward(dz, dkl, mu, logvar, eps, out=None, scratch=None):
    """`ref.vae.reparameterize_kl_backward` in dz's dtype. dz, mu, logvar, eps: (B, ...). dkl: (B,) or a float.
    scratch: a tuple of one array."""
    dmu, dlogvar, deps = (None,) * 3 if out is None else out
    (dkl,) = columns(np.asarray(dkl, np.float64).reshape(1, -1), dz)
    std = np.multiply(logvar, logvar.dtype.type(0.5), out=None if scratch is None else scratch[0])
    np.exp(std, out=std)
    dmu = np.add(np.multiply(dkl, mu, out=dmu), dz, out=dmu)
    deps = np.multiply(std, dz, out=deps)
    term = np.subtract(np.multiply(std, std, out=std), 1, out=std)
    np.multiply(dkl, term, out=term)
    dlogvar = np.add(np.multiply(deps, eps, out=dlogvar), term, out=dlogvar)
    return dmu, np.multiply(dlogvar, dz.dtype.type(0.5), out=dlogvar), deps


def bernoulli_nll_grad(logits, x, dnll=1.0, out=None, scratch=None):
    """`ref.vae.bernoulli_nll_grad` in logits' dtype. logits, x: (B, ...). dnll: (B,) or a float. scratch: two."""
    value, derivative = softplus(logits, out, scratch)
    np.subtract(value, np.multiply(x, logits, out=None if scratch is None else scratch[0]), out=value)
    np.subtract(derivative, x, out=derivative)
    (dnll,) = columns(np.asarray(dnll, np.float64).reshape(1, -1), logits)
    return per_example(value), np.multiply(derivative, dnll, out=derivative)
