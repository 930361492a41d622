"""The operations of `ref.vae`."""
import numpy as np

from kernels.ops.inputs import data
from kernels.ops.record import Op
from ref import layers, vae

EACH = {"each": (False, True)}  # the upstream gradient of a sum over an example: one number, or one an example


def _upstream(rng, shape, each):
    return rng.standard_normal(shape[0]) if each else 1.5


def _latent(*names, upstream=None):
    """An input maker. A finite log-variance stays where its exponential is a float32."""

    def make(rng, shape, dtype, values, each=False):
        arrays = {name: data(rng, shape, dtype, values) for name in names}
        if values in (
            "tiny",
            "minute",
        ):  # else the KL of an example, all cancellation, could not be told from another's
            arrays["mu"] = data(rng, shape, dtype, "normal")
        np.clip(arrays["logvar"], -80, 80, out=arrays["logvar"], where=np.isfinite(arrays["logvar"]))
        return arrays | ({upstream: _upstream(rng, shape, each)} if upstream else {})

    return make


def off_the_tail(logits):
    """Logits whose e^-|logit| is 0 or has all its digits in float32, so that multiples round once. logits: array."""
    return np.where((np.abs(logits) > 85) & (np.abs(logits) < 750), logits.dtype.type(85), logits)


def _pixels(rng, shape, dtype, values, each=False):
    x = rng.uniform(size=shape)
    x = np.where(rng.integers(2, size=shape), x, np.round(x))  # half of them are 0 or 1
    logits = data(rng, shape, dtype, "normal" if values == "zeros" else values)
    if values == "zeros":  # of half the examples: were they all, one example could not be told from another
        logits[: len(logits) // 2] = 0
    return {"logits": off_the_tail(logits), "x": x.astype(dtype), "dnll": _upstream(rng, shape, each)}


def _sum(terms):
    return terms.sum(axis=tuple(range(1, terms.ndim)))


def _of_each(value, x):
    return np.abs(value).reshape((-1,) + (1,) * (x.ndim - 1)) if np.ndim(value) else abs(value)


def _latent_sizes(mu, logvar, eps):
    kl = _sum(mu**2 + np.abs(np.expm1(logvar)) + np.abs(logvar)) / 2
    return np.abs(mu) + np.abs(np.exp(logvar / 2) * eps), kl


def _latent_terms(mu, logvar, eps):
    """With e^logvar and 1 apart."""
    return _latent_sizes(mu, logvar, eps)[0], _sum(mu**2 + np.exp(logvar) + 1 + np.abs(logvar)) / 2


def _latent_backward_sizes(dz, dkl, mu, logvar, eps):
    dkl, dz, std = _of_each(dkl, mu), np.abs(dz), np.exp(logvar / 2)
    return dz + dkl * np.abs(mu), (dz * std * np.abs(eps) + dkl * (np.exp(logvar) + 1)) / 2, std * dz


def _pixel_sizes(logits, x, dnll):
    gradient = (1 - x) * layers.sigmoid(logits) + x * layers.sigmoid(-logits)
    return vae.bernoulli_nll(logits, x), _of_each(dnll, x) * gradient  # all its terms are positive


def _pixel_terms(logits, x, dnll):
    """Of max(l, 0) - l x + log(1 + e^-|l|) and of sigmoid(l) - x."""
    nll = np.maximum(logits, 0) + np.abs(logits * x) + 1 + np.exp(-np.abs(logits))
    return _sum(nll), _of_each(dnll, x) * (1 + x)


OPS = [
    Op(
        vae.reparameterize_kl, ulps=4, make=_latent("mu", "logvar", "eps"), scale=_latent_sizes,
        textbook=_latent_terms, rows="matrix", bench={"": {}},
    ),
    Op(
        vae.reparameterize_kl_backward, ulps=4, make=_latent("dz", "mu", "logvar", "eps", upstream="dkl"),
        scale=_latent_backward_sizes, options=EACH, writes=3, rows="matrix", bench={"": {}},
    ),
    Op(
        vae.bernoulli_nll_grad, ulps=4, make=_pixels, scale=_pixel_sizes, textbook=_pixel_terms, options=EACH,
        rows="matrix", bench={"": {}},
    ),
]  # fmt: skip
