"""A variational autoencoder: bounds on held-out digits, rebuilt ones, samples.

Digits are binarised dynamically: a pixel is on with the probability that its grey gives, drawn anew in each training
step, after the digit was shifted by at most a pixel each way; the held-out digits are drawn once. The net sees pixels
of 0 and 1; pictures and sharpness are in [-1, 1], of the decoder's mean unless said otherwise. The shift was chosen on
a fifth of the training digits, kept out for that.
"""
import time

import numpy as np

from bench.studies import classifier, data, fit, metrics, pictures
from kernels.numba_cpu.philox import normal, uniform
from ref import philox, vae
from ref.layers import sigmoid
from ref.nets import vae as nets

SETTINGS = dict(steps=7000, batch=128, count=1000, draws=100, seed=0)  # draws: latents of a digit in the last bounds
LATENT = 32
# of the streams of sampling: the drawn digits and, after them, training digits; drawn pixels; latents of the bounds
HELD_OUT, SPECKS, DRAWS = 1, 3, 10
POINTS = 20  # of the curve
COLUMNS = {
    "of": "", "step": "of training", "negative_elbo": "nats a digit", "error": "its standard error over digits",
    "nll": "its part for the pixels", "kl": "its part for the latent",
    "importance_weighted": "the negative bound of [IWAE] with all draws",
    "active": f"latents of {LATENT} with more than 0.01 nats", "sharpness": "mean gradient energy",
    "undecided": "share of pixels between a tenth and nine tenths", "seconds": "of training",
}  # fmt: skip


def rows(this):
    """Train, bound, rebuild, sample, walk; {of: images} to draw."""
    this.total, seed = this.steps, this.seed
    (images, _), (held, labels) = data.load()
    x, train_x = (binarised(some, seed, philox.stream("sampling", HELD_OUT + i))
                  for i, some in enumerate((held, images[: len(held)])))  # fmt: skip
    curve, began = [], time.perf_counter()

    def watch(step, params):
        if step % max(1, this.steps // POINTS) == 0:
            for of, some in (("training digits", train_x), ("held-out digits", x)):
                curve.append({"of": of, "step": step, **bounds(params, some, 1, seed)})

    params = train(images, this.steps, this.batch, seed, this.tick, watch)
    row = {"of": "held-out digits, average net", "step": this.steps, "seconds": time.perf_counter() - began}
    mu, samples = nets.encoder(params["encoder"], x)[0], sample(params, this.count, seed)
    specks = 2 * binarised(samples, seed, philox.stream("sampling", SPECKS)) - 1
    made = {"real digits": held, "rebuilt": decoded(params, mu), "samples": samples,
            "real digits, pixels drawn": 2 * x - 1, "samples, pixels drawn": specks}  # fmt: skip
    looks = [{"of": of, **look(shown)} for of, shown in made.items()]
    ends, share = [mu[np.flatnonzero(labels == k)[0]] for k in (0, 6, 1, 7, 3, 8, 2, 5, 4, 9)], np.linspace(0, 1, 20)
    walks = [decoded(params, a + share[:, None] * (b - a)) for a, b in zip(ends[::2], ends[1::2])]
    final = row | bounds(params, x, this.draws, seed)
    return [final, *looks, *curve], made | {"walk": np.concatenate(walks)}


def train(images, steps, batch, seed, tick, watch=lambda step, params: None, reach=1):
    """[VAE] algorithm 1 with one draw of z a digit. images: (N, 784) float32 in [-1, 1]. watch: called with (step,
    parameters). reach: pixels that digits are shifted by at most. Returns the average of both nets' parameters."""
    params = {"encoder": nets.encoder_init(seed, latent=LATENT), "decoder": nets.decoder_init(seed, latent=LATENT)}

    def step_gradients(params, step):
        watch(step - 1, params)
        shift, pixels, noise = (philox.stream(what, step) for what in ("augment", "pixels", "noise"))
        by = np.rint(reach * (2 * uniform(seed, (batch, 2), shift) - 1)).astype(int)
        some = classifier.shifted(images[fit.picked(len(images), seed, batch, step)], by)
        return gradients(params, binarised(some, seed, pixels), normal(seed, (batch, LATENT), noise))

    average = fit.adam(params, step_gradients, steps, tick)
    watch(steps, average)
    return average


def gradients(params, x, eps):
    """Gradients of the negative ELBO, a tree. x: (B, 784) of 0 and 1. eps: (B, latent)."""
    mu, logvar, encoded = nets.encoder(params["encoder"], x)
    logits, decoded = nets.decoder(params["decoder"], vae.reparameterize(mu, logvar, eps).astype(x.dtype))
    each = np.full(len(x), 1 / len(x))  # of the negative ELBO, a mean, in each nll and each KL
    dlogits = vae.bernoulli_nll_backward(each, logits, x)[0].astype(x.dtype)
    dz, down = nets.decoder_backward(dlogits, params["decoder"], decoded)
    through_z, of_kl = vae.reparameterize_backward(dz, logvar, eps)[:2], vae.gaussian_kl_backward(each, mu, logvar)
    dmu, dlogvar = ((a + b).astype(x.dtype) for a, b in zip(through_z, of_kl))
    _, up = nets.encoder_backward(dmu, dlogvar, params["encoder"], encoded)
    return {"encoder": up, "decoder": down}


def bounds(params, x, draws, seed):
    """The negative ELBO, its parts, the negative [IWAE] bound with all draws, in nats, and the latents in use, as
    COLUMNS says. x: (N, 784) of 0 and 1. draws: of z for each."""
    nll, kl, log_w, of_latent = [], [], [], 0
    for i, some in enumerate(np.array_split(x, -(-len(x) * draws // 5000))):
        mu, logvar, _ = nets.encoder(params["encoder"], some)
        kl.append(vae.gaussian_kl(mu, logvar))
        of_latent = of_latent + np.sum(mu**2 + np.expm1(logvar) - logvar, axis=0) / 2
        mu, logvar, many = (np.repeat(a, draws, axis=0) for a in (mu, logvar, some))
        z = vae.reparameterize(mu, logvar, normal(seed, mu.shape, philox.stream("sampling", DRAWS + i)))
        cost, zero = vae.bernoulli_nll(nets.decoder(params["decoder"], z.astype(x.dtype))[0], many), np.zeros_like(z)
        ratio = vae.gaussian_nll(z, mu, logvar) - vae.gaussian_nll(z, zero, zero)  # log p(z) - log q(z | x)
        nll.append(cost.reshape(-1, draws).mean(axis=1))
        log_w.append((ratio - cost).reshape(-1, draws))
    nll, kl, active = np.concatenate(nll), np.concatenate(kl), int(np.sum(of_latent / len(x) > 0.01))
    return {
        "nll": nll.mean(), "kl": kl.mean(), "negative_elbo": -vae.elbo(nll, kl), "active": active,
        "error": np.std(nll + kl) / len(x) ** 0.5,
        "importance_weighted": -vae.importance_weighted_bound(np.concatenate(log_w)),
    }  # fmt: skip


def decoded(params, z):
    """The decoder's mean in [-1, 1], (N, 784) float32. z: (N, latent)."""
    return 2 * sigmoid(nets.decoder(params["decoder"], z.astype(np.float32))[0]) - 1


def sample(params, count, seed):
    """Digits from the prior, the decoder's mean, (count, 784) float32."""
    return decoded(params, normal(seed, (count, LATENT), philox.stream("sampling")))


def look(images):
    """How images look: the mean gradient energy, and the share of pixels that are neither on nor off."""
    return {"sharpness": metrics.sharpness(images), "undecided": float(np.mean(np.abs(images) < 0.8))}


def binarised(images, seed, stream):
    """Pixels of 0 and 1, each on with the probability of its grey, float32."""
    return (uniform(seed, images.shape, stream) < (images + 1) / 2).astype(np.float32)


def draw(rows, made):
    """The bound while training, sharpness, real and rebuilt digits, samples, the walk."""
    figure, top, bottom = pictures.parts((8.6, 8), 2.5, 5.4)
    left, right = top.subplots(1, 2)
    for of, key, colour, ls, label in (
        ("held-out digits", "negative_elbo", "#0072B2", "-", "negative ELBO"),
        ("training digits", "negative_elbo", "#E69F00", "-", "negative ELBO"),
        ("held-out digits", "nll", "#0072B2", "--", "its pixels"), ("held-out digits", "kl", "#0072B2", ":", "its KL"),
    ):  # fmt: skip
        pictures.lines(left, rows, "of", "step", key, {of: dict(color=colour, ls=ls, label=f"{label}, {of}")})
    left.set(xlabel="training step", ylabel="nats a digit", ylim=(0, 1.7 * rows[0]["negative_elbo"]))
    left.legend(loc="upper right")
    bars, colours = {row["of"]: row["sharpness"] for row in rows[1:6]}, ["0.4", "#56B4E9", "#0072B2", "0.75", "0.75"]
    right.bar_label(right.barh(list(bars), list(bars.values()), color=colours, height=0.6), fmt=" %.3f")
    right.invert_yaxis()
    right.set(xlabel="mean gradient energy (sharpness)", xlim=(0, 1.15 * max(bars.values())))
    panels = {
        "held-out digits and their reconstructions": [pictures.spread_out(made[of], 20) for of in list(made)[:2]],
        "samples from the prior; last row: those of the first, each pixel drawn": [
            made["samples"][:80], made["samples, pixels drawn"][:20]],
        "walks along a straight line between the latents of two held-out digits": [made["walk"]],
    }  # fmt: skip
    for axis, (title, images) in zip(bottom.subplots(3, 1, height_ratios=[2, 5, 5]), panels.items()):
        pictures.gallery(axis, np.concatenate(images), 20, title)
    return figure


def shown(rows):
    """The final figures, the images', and the last of either curve."""
    return rows[:6] + rows[-2:]
