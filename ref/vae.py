"""The variational autoencoder: the reparameterised sample, the KL to the prior, the likelihoods, and the two bounds.

Everything here is float64. B examples first, then any data axes. KL and nll are summed over all axes
but the first, (B,), in nats; the bounds are means over the batch. logvar is a log-variance: std = exp(logvar / 2).

Papers
    [VAE]       Kingma, Welling, "Auto-Encoding Variational Bayes", 2014
    [beta-VAE]  Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework",
                2017
    [IWAE]      Burda, Grosse, Salakhutdinov, "Importance Weighted Autoencoders", 2016
    [LDM]       Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022
"""
import numpy as np

from ref.layers import sigmoid, softplus
from ref.numerics import exp_above_tangent, exp_difference, exp_weighted, expm1_weighted, two_sum, weighted
from ref.shapes import example_sum, float64, number, numbers, per_example, same_shape

LOG_2PI = np.log(2 * np.pi)


def reparameterize(mu, logvar, eps):
    """[VAE] eq. 10, drawn:  z = mu + std eps,   std = exp(logvar / 2).

    mu, logvar, eps: one shape; eps is standard normal.
    Returns z of their shape, float64.
    Raises ValueError where shapes differ.
    """
    mu, logvar, eps = same_shape(mu=mu, logvar=logvar, eps=eps)
    return mu + exp_weighted(eps, logvar / 2)


def reparameterize_backward(dz, logvar, eps):
    """Gradients of `reparameterize`:  dmu = dz,  dlogvar = dz eps std / 2,  deps = std dz.

    dz, logvar, eps: one shape.
    Returns dmu, dlogvar, deps, each of their shape, float64.
    Raises as `reparameterize` does.
    """
    dz, logvar, eps = same_shape(dz=dz, logvar=logvar, eps=eps)
    deps = exp_weighted(dz, logvar / 2)
    return dz.copy(), deps * eps / 2, deps


def gaussian_kl(mu, logvar):
    """KL(N(mu, diag(exp(logvar))) || N(0, I)), [VAE] appendix B:

        KL = 1/2 sum(mu^2 + exp(logvar) - 1 - logvar)

    mu, logvar: (B, ...).
    Returns KL (B,) float64, in nats; never below 0.
    Raises ValueError where shapes differ or have no batch axis.
    """
    mu, logvar = _batch(mu=mu, logvar=logvar)
    return example_sum(mu**2 + exp_above_tangent(logvar)) / 2


def gaussian_kl_backward(dkl, mu, logvar):
    """Gradients of `gaussian_kl`:  dmu = dkl mu,  dlogvar = dkl (exp(logvar) - 1) / 2.

    dkl: (B,), or a float for all. mu, logvar: (B, ...).
    Returns dmu, dlogvar, each (B, ...) float64.
    Raises as `gaussian_kl` does, and where dkl is neither.
    """
    mu, logvar = _batch(mu=mu, logvar=logvar)
    dkl = per_example(dkl, mu, "dkl")
    return dkl * mu, expm1_weighted(dkl, logvar) / 2


def bernoulli_nll(logits, x):
    """-log p(x) of independent Bernoullis, [VAE] eq. 11 with y = sigmoid(logits):

        nll = -sum(x log y + (1 - x) log(1 - y)) = sum(x softplus(-logits) + (1 - x) softplus(logits))

    No term of the second form is below 0, so nothing cancels, and none overflows.
    logits: (B, ...). x: (B, ...) in [0, 1]; in between it is the cross-entropy, which is above 0.
    Returns nll (B,) float64, in nats.
    Raises ValueError where shapes differ or have no batch axis, or x is outside [0, 1].
    """
    logits, x = _batch(logits=logits, x=x)
    _unit_interval(x)
    return example_sum(weighted(x, softplus(-logits)) + weighted(1 - x, softplus(logits)))


def bernoulli_nll_backward(dnll, logits, x):
    """Gradients of `bernoulli_nll`:  dlogits = dnll (sigmoid(logits) - x),  dx = -dnll logits.

    dnll: (B,), or a float for all. logits, x: (B, ...).
    Returns dlogits, dx, each (B, ...) float64.
    Raises as `bernoulli_nll` does, and where dnll is neither.
    """
    logits, x = _batch(logits=logits, x=x)
    _unit_interval(x)
    dnll = per_example(dnll, x, "dnll")
    dlogits = dnll * ((1 - x) * sigmoid(logits) - x * sigmoid(-logits))  # sigmoid(logits) - x would cancel near x = 1
    return dlogits, -dnll * logits


def gaussian_nll(x, mean, logvar):
    """-log N(x; mean, diag(exp(logvar))), [VAE] eq. 12:  nll = 1/2 sum(log 2 pi + logvar + (x - mean)^2 exp(-logvar)).

    x, mean, logvar: (B, ...).
    Returns nll (B,) float64, in nats; of a density, so it may be below 0.
    Raises ValueError where shapes differ or have no batch axis.
    """
    x, mean, logvar = _batch(x=x, mean=mean, logvar=logvar)
    deviations = exp_weighted(x - mean, -logvar / 2)
    return example_sum((LOG_2PI + logvar) / 2 + deviations / 2 * deviations)  # halved before it can overflow


def gaussian_nll_backward(dnll, x, mean, logvar):
    """Gradients of `gaussian_nll`:  dx = dnll (x - mean) exp(-logvar),  dmean = -dx,  dlogvar = dnll (1 - (x - mean)^2
    exp(-logvar)) / 2.

    dnll: (B,), or a float for all. x, mean, logvar: (B, ...).
    Returns dx, dmean, dlogvar, each (B, ...) float64.
    Raises as `gaussian_nll` does, and where dnll is neither.
    """
    x, mean, logvar = _batch(x=x, mean=mean, logvar=logvar)
    dnll = per_example(dnll, x, "dnll")
    d, half = x - mean, -logvar / 2
    dx = exp_weighted(dnll * d, -logvar)
    return dx, -dx, dnll / 2 - exp_weighted(dnll * d / 2, half) * exp_weighted(d, half)


def reparameterize_kl(mu, logvar, eps):
    """Both uses of an encoder's output, [VAE] eq. 10:  z = reparameterize(mu, logvar, eps),  kl = gaussian_kl(mu,
    logvar).

    mu, logvar, eps: (B, ...), one shape.
    Returns z (B, ...) and kl (B,), float64. Raises as the two do.
    """
    return reparameterize(mu, logvar, eps), gaussian_kl(mu, logvar)


def reparameterize_kl_backward(dz, dkl, mu, logvar, eps):
    """Gradients of `reparameterize_kl`, of its two parts added:

        dmu = dz + dkl mu,   dlogvar = dz eps std / 2 + dkl (exp(logvar) - 1) / 2,   deps = std dz

    dz, mu, logvar, eps: (B, ...), one shape. dkl: (B,), or a float for all.
    Returns dmu, dlogvar, deps, each (B, ...) float64. Raises as the two backwards do.
    """
    (dmu, dlogvar, deps), (dmu_kl, dlogvar_kl) = reparameterize_backward(dz, logvar, eps), gaussian_kl_backward(dkl, mu,
                                                                                                                logvar)
    return dmu + dmu_kl, dlogvar + dlogvar_kl, deps


def bernoulli_nll_grad(logits, x, dnll=1.0):
    """[VAE] eq. 11 and its gradient in one pass:  nll = bernoulli_nll(logits, x),  dlogits = dnll (sigmoid(logits) -
    x).

    The difference is taken as (1 - x) sigmoid(logits) - x sigmoid(-logits), in which nothing cancels near x = 1, and
    held to that.
    logits, x: (B, ...), x in [0, 1]. dnll: (B,), or a float for all; 1 / B for the mean over the batch.
    Returns nll (B,), dlogits (B, ...), float64. Raises as `bernoulli_nll` does.
    """
    return bernoulli_nll(logits, x), bernoulli_nll_backward(dnll, logits, x)[0]


def elbo(nll, kl, beta=1.0):
    """The evidence lower bound, [VAE] eq. 3, with the beta of [beta-VAE]:  ELBO = mean_b(-nll_b - beta kl_b).

    It bounds mean_b(log p(x_b)) from below where nll is the mean over q(z | x_b) and beta >= 1. The loss is -ELBO.
    nll, kl: (B,), B >= 1. beta: float >= 0; 1 is the bound itself.
    Returns ELBO, a float, in nats.
    Raises ValueError where shapes differ or are not (B,), B >= 1, or for beta < 0.
    """
    nll, kl, beta = _elbo_parts(nll, kl, beta)
    return np.mean(-nll - beta * kl)


def elbo_backward(delbo, nll, kl, beta=1.0):
    """Gradients of `elbo`:  dnll = -delbo / B,  dkl = -beta delbo / B.

    delbo: float. nll, kl, beta: as in `elbo`.
    Returns dnll, dkl, each (B,) float64.
    Raises as `elbo` does.
    """
    (nll, kl, beta), delbo = _elbo_parts(nll, kl, beta), number(delbo, "delbo")
    return np.full(nll.shape, -delbo / nll.size), np.full(kl.shape, -beta * delbo / kl.size)


def clamp_logvar(logvar, low=-30.0, high=20.0):
    """min(max(logvar, low), high), before anything takes its exponential; the limits are those of the autoencoder in
    [LDM]'s released code.

    logvar: any shape. low, high: floats, low <= high.
    Returns it clamped, float64; NaN stays NaN.
    Raises ValueError where not low <= high.
    """
    low, high = _limits(low, high)
    return np.clip(float64(logvar), low, high)


def clamp_logvar_backward(dclamped, logvar, low=-30.0, high=20.0):
    """Gradient of `clamp_logvar`:  dlogvar = dclamped where low <= logvar <= high, else 0.

    dclamped, logvar: one shape. low, high: as in `clamp_logvar`.
    Returns dlogvar of their shape, float64; where logvar is NaN, dclamped.
    Raises ValueError where shapes differ or not low <= high.
    """
    low, high = _limits(low, high)
    dclamped, logvar = same_shape(dclamped=dclamped, logvar=logvar)
    return np.where((logvar < low) | (logvar > high), 0.0, dclamped)


def importance_weighted_bound(log_w):
    """[IWAE] eq. 8, estimated, for log w_bk = log p(x_b, z_bk) - log q(z_bk | x_b) with z_bk ~ q(z | x_b):

        L_K = mean_b(log(1/K sum_k w_bk)) = mean_b(logsumexp_k(log_w_bk) - log K)

    Its expectation rises with K from the ELBO at K = 1 to the mean of log p(x_b). The largest log w is taken off first.
    log_w: (B, K), B >= 1, K >= 1; -inf is a weight of 0.
    Returns L_K, a float, in nats.
    Raises ValueError for another shape, or where all the weights of an example are 0 or one is infinite.
    """
    log_w, largest = _weights(log_w)
    # The mean of the w, each over the largest; near 1 by what it lacks
    d, rest = two_sum(log_w, -largest)
    w = np.mean(exp_difference(log_w, largest), axis=1, keepdims=True)
    lack = np.mean(-np.expm1(d) - rest * np.exp(d), axis=1, keepdims=True)
    small = np.real(lack) < 0.5
    return np.mean(largest + np.where(small, np.log1p(-np.where(small, lack, 0)), np.log(w)))


def importance_weighted_bound_backward(dbound, log_w):
    """Gradient of `importance_weighted_bound`:  dlog_w_bk = dbound w_bk / sum_j w_bj / B.

    dbound: float. log_w: (B, K).
    Returns dlog_w (B, K) float64.
    Raises as `importance_weighted_bound` does.
    """
    log_w, largest = _weights(log_w)
    w = exp_difference(log_w, largest)
    return w / w.sum(axis=1, keepdims=True) * (number(dbound, "dbound") / len(w))


def _batch(**arrays):
    """The arguments as float64, after a check that they have one shape (B, ...)."""
    arrays = dict(zip(arrays, same_shape(**arrays)))
    if any(a.ndim == 0 for a in arrays.values()):
        raise ValueError(f"{' and '.join(arrays)}: expected shape (B, ...), got ()")
    return arrays.values()


def _unit_interval(x):
    if np.any((np.real(x) < 0) | (np.real(x) > 1)):
        raise ValueError(f"x: expected values in [0, 1], got {np.nanmin(np.real(x))} to {np.nanmax(np.real(x))}")


def _elbo_parts(nll, kl, beta):
    nll, kl = same_shape(nll=nll, kl=kl)
    if nll.ndim != 1 or nll.size == 0:
        raise ValueError(f"nll and kl: expected shape (B,) with B >= 1, got {nll.shape}")
    beta = number(beta, "beta")
    if not beta >= 0:
        raise ValueError(f"beta: expected beta >= 0, got {beta}")
    return nll, kl, beta


def _limits(low, high):
    low, high = numbers(low=low, high=high)
    if not low <= high:
        raise ValueError(f"expected low <= high, got low={low}, high={high}")
    return low, high


def _weights(log_w):
    """log_w as float64, and its largest of each example, (B, 1)."""
    log_w = float64(log_w)
    if log_w.ndim != 2 or log_w.size == 0:
        raise ValueError(f"log_w: expected shape (B, K) with B >= 1 and K >= 1, got {log_w.shape}")
    largest = np.max(np.real(log_w), axis=1, keepdims=True)
    if np.any(np.isinf(largest)):
        raise ValueError(f"log_w: expected a finite largest weight in every example, got "
                         f"{largest[np.isinf(largest)][0]}")
    return log_w, largest
