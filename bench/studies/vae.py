"""A variational autoencoder: bounds on held-out digits, rebuilt ones, samples.

Digits are binarised dynamically: a pixel is on with the probability that its grey gives, drawn anew in each training
step, after the digit was shifted by at most a pixel each way; the held-out digits are drawn once. The net sees pixels
of 0 and 1; pictures and sharpness are in [-1, 1], of the decoder's mean unless said otherwise. The shift was chosen on
a fifth of the training digits, kept out for that.

Papers
    [VAE]   Kingma, Welling, "Auto-Encoding Variational Bayes", 2014
    [IWAE]  Burda, Grosse, Salakhutdinov, "Importance Weighted Autoencoders", 2016
"""
import time

import numpy as np

from bench.studies import classifier, data, fit, metrics, pictures, results
from kernels.numba_cpu.philox import normal, uniform
from ref import philox, vae
from ref.layers import sigmoid
from ref.nets import vae as nets

LATENT = 32
HELD_OUT, SPECKS, DRAWS = 1, 3, 10  # of the streams of sampling: the drawn digits and, after them, training digits; drawn pixels of samples; latents of the bounds
POINTS = 20  # of the curve
COLUMNS = {
    "of": "", "step": "of training", "negative_elbo": "nats a digit", "error": "its standard error over digits", "nll": "its part for the pixels", "kl": "its part for the latent",
    "importance_weighted": "the negative bound of [IWAE] with all draws", "active": f"latents of {LATENT} with more than 0.01 nats",
    "sharpness": "mean gradient energy", "undecided": "share of pixels between a tenth and nine tenths", "seconds": "of training",
}  # fmt: skip


def run(out, progress, steps=7000, batch=128, count=1000, draws=100, seed=0):
    """Train, bound, rebuild, sample, walk, draw; vae.png, vae.csv and vae.txt. steps, batch: of training."""
    this = results.Run("vae", out, progress, steps, steps=steps, batch=batch, count=count, draws=draws, seed=seed)
    (images, _), (held, labels) = data.load()
    x, train_x = (binarised(some, seed, philox.stream("sampling", HELD_OUT + i)) for i, some in enumerate((held, images[: len(held)])))
    curve, began = [], time.perf_counter()

    def watch(step, params):
        if step % max(1, steps // POINTS) == 0:
            for of, some in (("training digits", train_x), ("held-out digits", x)):
                curve.append({"of": of, "step": step, **bounds(params, some, 1, seed)})

    params = train(images, steps, batch, seed, this.tick, watch)
    seconds = time.perf_counter() - began
    final = {"of": "held-out digits, average net", "step": steps, "seconds": seconds, **bounds(params, x, draws, seed)}

    mu = nets.encoder(params["encoder"], x)[0]
    made = {"real digits": held, "rebuilt": decoded(params, mu), "samples": sample(params, count, seed), "real digits, pixels drawn": 2 * x - 1}
    made["samples, pixels drawn"] = 2 * binarised(made["samples"], seed, philox.stream("sampling", SPECKS)) - 1
    rows = [final, *({"of": of, **look(shown)} for of, shown in made.items()), *curve]
    pairs = [np.flatnonzero(labels == k)[0] for k in (0, 6, 1, 7, 3, 8, 2, 5, 4, 9)]
    made["walk"] = np.concatenate([decoded(params, mu[a] + np.linspace(0, 1, 20)[:, None] * (mu[b] - mu[a])) for a, b in zip(pairs[::2], pairs[1::2])])
    this.finish(rows, draw(rows, made))


def train(images, steps, batch, seed, tick, watch=lambda step, params: None, reach=1):
    """[VAE] algorithm 1 with one draw of z a digit. images: (N, 784) float32 in [-1, 1]."""
    params = {"encoder": nets.encoder_init(seed, latent=LATENT), "decoder": nets.decoder_init(seed, latent=LATENT)}

    def step_gradients(params, step):
        watch(step - 1, params)
        shift, pixels, noise = (philox.stream(what, step) for what in ("augment", "pixels", "noise"))
        by = np.rint(reach * (2 * uniform(seed, (batch, 2), shift) - 1)).astype(int)
        x = binarised(classifier.shifted(images[fit.picked(len(images), seed, batch, step)], by), seed, pixels)
        return gradients(params, x, normal(seed, (batch, LATENT), noise))

    average = fit.adam(params, step_gradients, steps, tick)
    watch(steps, average)
    return average


def gradients(params, x, eps):
    """Gradients of the negative ELBO. params: of both nets. x: (B, 784) of 0 and 1. Returns a tree."""
    mu, logvar, encoded = nets.encoder(params["encoder"], x)
    logits, decoded = nets.decoder(params["decoder"], vae.reparameterize(mu, logvar, eps).astype(x.dtype))
    each = np.full(len(x), 1 / len(x))  # of the negative ELBO, a mean, in each nll and each KL
    dz, down = nets.decoder_backward(vae.bernoulli_nll_backward(each, logits, x)[0].astype(x.dtype), params["decoder"], decoded)
    dmu, dlogvar, _ = vae.reparameterize_backward(dz, logvar, eps)
    dmu_kl, dlogvar_kl = vae.gaussian_kl_backward(each, mu, logvar)
    _, up = nets.encoder_backward((dmu + dmu_kl).astype(x.dtype), (dlogvar + dlogvar_kl).astype(x.dtype), params["encoder"], encoded)
    return {"encoder": up, "decoder": down}


def bounds(params, x, draws, seed):
    """The negative ELBO and its parts, the negative [IWAE] bound, and the latents in use. params: of both nets."""
    nll, kl, log_w, of_latent = [], [], [], 0
    for i, some in enumerate(np.array_split(x, -(-len(x) * draws // 5000))):
        mu, logvar, _ = nets.encoder(params["encoder"], some)
        kl.append(vae.gaussian_kl(mu, logvar))
        of_latent = of_latent + np.sum(mu**2 + np.expm1(logvar) - logvar, axis=0) / 2
        mu, logvar, many = (np.repeat(a, draws, axis=0) for a in (mu, logvar, some))
        z = vae.reparameterize(mu, logvar, normal(seed, mu.shape, philox.stream("sampling", DRAWS + i)))
        cost = vae.bernoulli_nll(nets.decoder(params["decoder"], z.astype(x.dtype))[0], many)
        ratio = vae.gaussian_nll(z, mu, logvar) - vae.gaussian_nll(z, np.zeros_like(z), np.zeros_like(z))  # log p(z) - log q(z | x)
        nll.append(cost.reshape(-1, draws).mean(axis=1))
        log_w.append((ratio - cost).reshape(-1, draws))
    nll, kl = np.concatenate(nll), np.concatenate(kl)
    return {
        "nll": nll.mean(), "kl": kl.mean(), "negative_elbo": -vae.elbo(nll, kl), "error": np.std(nll + kl) / len(x) ** 0.5,
        "importance_weighted": -vae.importance_weighted_bound(np.concatenate(log_w)), "active": int(np.sum(of_latent / len(x) > 0.01)),
    }  # fmt: skip


def decoded(params, z):
    """The decoder's mean in [-1, 1]. params: of both nets. z: (N, latent). Returns (N, 784) float32."""
    return 2 * sigmoid(nets.decoder(params["decoder"], z.astype(np.float32))[0]) - 1


def sample(params, count, seed):
    """Digits from the prior, the decoder's mean. params: of both nets. Returns (count, 784) float32."""
    return decoded(params, normal(seed, (count, LATENT), philox.stream("sampling")))


def look(images):
    """How images look: the mean gradient energy, and the share of pixels that are neither on nor off, between a tenth
    and nine."""
    return {"sharpness": metrics.sharpness(images), "undecided": float(np.mean(np.abs(images) < 0.8))}


def binarised(images, seed, stream):
    """Pixels of 0 and 1, each on with the probability of its grey. seed, stream: ints. Returns float32 of its shape."""
    return (uniform(seed, images.shape, stream) < (images + 1) / 2).astype(np.float32)


def draw(rows, made):
    """The picture: the bound while training, sharpness, real and rebuilt digits, samples, the walk."""
    figure = pictures.pyplot().figure(figsize=(8.6, 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.5, 5.4])
    left, right = top.subplots(1, 2)
    for of, key, style, label in (
        ("held-out digits", "negative_elbo", dict(color="#0072B2"), "negative ELBO, held-out digits"), ("training digits", "negative_elbo", dict(color="#E69F00"), "negative ELBO, training digits"),
        ("held-out digits", "nll", dict(color="#0072B2", ls="--"), "its pixels, held-out digits"), ("held-out digits", "kl", dict(color="#0072B2", ls=":"), "its KL, held-out digits"),
    ):  # fmt: skip
        pictures.lines(left, rows, "of", "step", key, {of: style | {"label": label}})
    left.set(xlabel="training step", ylabel="nats a digit", ylim=(0, 1.7 * rows[0]["negative_elbo"]))
    left.legend(loc="upper right")
    bars = rows[1:6]
    right.barh([row["of"] for row in bars], [row["sharpness"] for row in bars], color=["0.4", "#56B4E9", "#0072B2", "0.75", "0.75"], height=0.6)
    for i, row in enumerate(bars):
        right.text(row["sharpness"], i, f" {row['sharpness']:.3f}", va="center")
    right.invert_yaxis()
    right.set(xlabel="mean gradient energy (sharpness)", xlim=(0, 1.15 * max(row["sharpness"] for row in bars)))
    few = [pictures.spread_out(made[of], 20) for of in ("real digits", "rebuilt")]
    drawn = [made["samples"][:80], made["samples, pixels drawn"][:20]]
    panels = {"held-out digits and their reconstructions": few, "samples from the prior; last row: those of the first, each pixel drawn": drawn,
              "walks along a straight line between the latents of two held-out digits": [made["walk"]]}  # fmt: skip
    for axis, (title, images) in zip(bottom.subplots(3, 1, height_ratios=[2, 5, 5]), panels.items()):
        pictures.gallery(axis, np.concatenate(images), 20, title)
    return figure


def shown(rows):
    """The rows that the text shows: the final figures, the images', and the last of either curve."""
    return rows[:6] + rows[-2:]
