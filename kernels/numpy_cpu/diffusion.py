"""`ref.diffusion` in tuned NumPy; `out` takes the results."""
import numpy as np

from kernels import coefficients
from kernels.numpy_cpu.arrays import columns, linear


def q_sample(x0, t, eps, abar, out=None):
    """`ref.diffusion.q_sample` in x0's dtype. x0, eps: (B, ...). t: (B,) ints or one int. abar: (T + 1,)."""
    return linear(coefficients.q_sample(t, abar, x0.shape), x0, eps, out)


def q_sample_backward(dxt, t, abar, out=None):
    """`ref.diffusion.q_sample_backward` in dxt's dtype. dxt: (B, ...). t: (B,) ints or one int. abar: (T + 1,)."""
    c0, c1 = columns(coefficients.q_sample(t, abar, dxt.shape), dxt)
    out = (None, None) if out is None else out
    return np.multiply(c0, dxt, out=out[0]), np.multiply(c1, dxt, out=out[1])


def posterior(x0, xt, t, s, abar, out=None):
    """`ref.diffusion.posterior` in x0's dtype. x0, xt: (B, ...). t, s: ints or (B,) ints. abar: (T + 1,)."""
    table = coefficients.posterior(t, s, abar, x0.shape)
    variance = table[2].reshape(np.broadcast_shapes(np.shape(t), np.shape(s)))[()]
    return linear(table[:2], x0, xt, out), variance


def x0_from_eps(xt, eps, t, abar, out=None):
    """`ref.diffusion.x0_from_eps` in xt's dtype. xt, eps: (B, ...). t: int or (B,) ints. abar: (T + 1,)."""
    return linear(coefficients.x0_from_eps(t, abar, xt.shape), xt, eps, out)


def eps_from_x0(xt, x0, t, abar, out=None):
    """`ref.diffusion.eps_from_x0` in xt's dtype. xt, x0: (B, ...). t: int or (B,) ints. abar: (T + 1,)."""
    return linear(coefficients.eps_from_x0(t, abar, xt.shape), xt, x0, out)


def v_target(x0, eps, t, abar, out=None):
    """`ref.diffusion.v_target` in x0's dtype. x0, eps: (B, ...). t: int or (B,) ints. abar: (T + 1,)."""
    return linear(coefficients.v_target(t, abar, x0.shape), x0, eps, out)


def x0_from_v(xt, v, t, abar, out=None):
    """`ref.diffusion.x0_from_v` in xt's dtype. xt, v: (B, ...). t: int or (B,) ints. abar: (T + 1,)."""
    return linear(coefficients.x0_from_v(t, abar, xt.shape), xt, v, out)


def eps_from_v(xt, v, t, abar, out=None):
    """`ref.diffusion.eps_from_v` in xt's dtype. xt, v: (B, ...). t: int or (B,) ints. abar: (T + 1,)."""
    return linear(coefficients.eps_from_v(t, abar, xt.shape), xt, v, out)


def score_from_eps(eps, t, abar, out=None):
    """`ref.diffusion.score_from_eps` in eps's dtype. eps: (B, ...). t: int or (B,) ints. abar: (T + 1,)."""
    (c0,) = columns(coefficients.score_from_eps(t, abar, eps.shape), eps)
    return np.multiply(c0, eps, out=out)


def ddpm_step(xt, eps_hat, t, s, z, abar, variance="small", clip=None, out=None):
    """`ref.diffusion.ddpm_step` in xt's dtype. xt, eps_hat, z: (B, ...). t, s, abar, variance, clip: as there."""
    c0, c1, c2, c3, c4 = columns(coefficients.ddpm_step(t, s, abar, variance, xt.shape), xt)
    out, term = np.multiply(c0, xt, out=out), np.multiply(c1, eps_hat)
    np.add(out, term, out=out)
    if clip is not None:
        np.clip(out, -clip, clip, out=out)
    np.multiply(c2, out, out=out)
    np.add(out, np.multiply(c3, xt, out=term), out=out)
    if np.any(c4):
        np.add(out, np.multiply(c4, z, out=term), out=out, where=c4 != 0)
    return out


def ddim_step(xt, eps_hat, t, s, z, eta, abar, clip=None, out=None):
    """`ref.diffusion.ddim_step` in xt's dtype. xt, eps_hat, z: (B, ...). t, s, eta, abar, clip: as there."""
    c0, c1, c2, c3, c4, c5, c6 = columns(coefficients.ddim_step(t, s, eta, abar, xt.shape), xt)
    out, term = np.multiply(c0, xt, out=out), np.multiply(c1, eps_hat)
    np.add(out, term, out=out)
    if clip is None:
        np.multiply(c5, eps_hat, out=term)
    else:
        np.clip(out, -clip, clip, out=out)
        np.multiply(c3, out, out=term)
        np.add(term, c2 * xt, out=term)
        np.multiply(c5, term, out=term)
    np.multiply(c4, out, out=out)
    np.add(out, term, out=out)
    if np.any(c6):
        np.add(out, np.multiply(c6, z, out=term), out=out, where=c6 != 0)
    return out


def eps_loss(eps_hat, eps):
    """`ref.diffusion.eps_loss`, the difference in their dtype. eps_hat, eps: one shape. Returns a float."""
    d = np.subtract(eps_hat, eps).reshape(-1)
    return float(np.dot(d, d)) / d.size


def eps_loss_backward(dloss, eps_hat, eps, out=None):
    """`ref.diffusion.eps_loss_backward` in their dtype. dloss: float. eps_hat, eps: one shape."""
    out = (None, None) if out is None else out
    deps_hat = np.subtract(eps_hat, eps, out=out[0])
    np.multiply(deps_hat, eps.dtype.type(2 * dloss / eps.size), out=deps_hat)
    return deps_hat, np.negative(deps_hat, out=out[1])
