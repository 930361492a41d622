"""A variational autoencoder of digits: its bounds on held-out digits, what it rebuilds and draws, and why its samples blur.

Digits are binarised dynamically: a pixel is on with the probability that its grey says, drawn anew in each training step, after
the digit was shifted by at most a pixel each way; the held-out digits are drawn once. The net sees pixels of 0 and 1; pictures and
sharpness are in [-1, 1], of the decoder's mean unless said otherwise. That digits are shifted was decided on a fifth of the training
digits, kept out for that.

Papers
    [VAE]   Kingma, Welling, "Auto-Encoding Variational Bayes", 2014
    [IWAE]  Burda, Grosse, Salakhutdinov, "Importance Weighted Autoencoders", 2016
"""
import time

import numpy as np

from bench.studies import classifier, data, fit, metrics, results
from kernels.numba_cpu import philox
from ref import vae
from ref.layers import sigmoid
from ref.nets import vae as nets

LATENT = 32
PER_STEP = 4  # streams of a training step
PICK, SHIFT, PIXELS, NOISE = range(PER_STEP)
HELD_OUT, DRAWS, SAMPLING, SPECKS = 9 << 60, 10 << 60, 11 << 60, 12 << 60  # far from training's and each other
POINTS = 20  # of the curve


def run(out, progress, steps=7000, batch=128, count=1000, draws=100, seed=0):
    """Train, bound, rebuild, sample, walk, draw; vae.png, vae.csv and vae.txt.

    out: folder. progress: called with (done, total) steps. steps, batch: of training. count: samples. draws: of z for each digit
    in the bounds. seed: of everything random.
    """
    tick = results.ticker(progress, steps)
    (images, _), (held, labels) = data.load()
    x = binarised(held, seed, HELD_OUT)
    curve, began = [], time.perf_counter()

    def watch(step, params):
        if step % max(1, steps // POINTS) == 0:
            for of, some in (("training digits", binarised(images[: len(x)], seed, HELD_OUT + 1)), ("held-out digits", x)):
                curve.append({"of": of, "step": step, **bounds(params, some, 1, seed)})

    params = train(images, steps, batch, seed, tick, watch)
    seconds = time.perf_counter() - began
    final = {"of": "held-out digits, average net", "step": steps, "seconds": seconds, **bounds(params, x, draws, seed)}

    mu = nets.encoder(part(params, "encoder"), x)[0]
    z = philox.normal(seed, (count, LATENT), SAMPLING)
    made = {"real digits": held, "rebuilt": decoded(params, mu), "samples": decoded(params, z), "real digits, pixels drawn": 2 * x - 1}
    made["samples, pixels drawn"] = 2 * binarised(made["samples"], seed, SPECKS) - 1
    rows = [final, *({"of": of, **look(shown)} for of, shown in made.items()), *curve]
    keys = dict.fromkeys(key for row in rows for key in row)
    rows = [{key: row.get(key, "") for key in keys} for row in rows]
    pairs = [np.flatnonzero(labels == k)[0] for k in (0, 6, 1, 7, 3, 8, 2, 5, 4, 9)]
    made["walk"] = np.concatenate([decoded(params, mu[a] + np.linspace(0, 1, 20)[:, None] * (mu[b] - mu[a])) for a, b in zip(pairs[::2], pairs[1::2])])
    results.write(out, "vae", draw(rows, made), rows, sentences(rows, draws))


def train(images, steps, batch, seed, tick, watch=lambda step, params: None, reach=1):
    """[VAE] algorithm 1 with one draw of z a digit.

    images: (N, 784) float32 in [-1, 1]. steps, batch, seed: ints. tick: called after each step. watch: called with (step, parameters).
    reach: how far digits are shifted, in pixels.
    Returns the moving average of the parameters, a dict with those of both nets.
    """
    params = {"encoder." + name: p for name, p in nets.encoder_init(seed, latent=LATENT).items()}
    params |= {"decoder." + name: p for name, p in nets.decoder_init(seed, latent=LATENT).items()}

    def step_gradients(params, step):
        watch(step - 1, params)
        stream = PER_STEP * step
        pick = np.minimum((philox.uniform(seed, (batch,), stream + PICK) * len(images)).astype(int), len(images) - 1)  # a uniform may be 1
        by = np.rint(reach * (2 * philox.uniform(seed, (batch, 2), stream + SHIFT) - 1)).astype(int)
        x = binarised(classifier.shifted(images[pick], by), seed, stream + PIXELS)
        return gradients(params, x, philox.normal(seed, (batch, LATENT), stream + NOISE))

    average = fit.adam(params, step_gradients, steps, tick)
    watch(steps, average)
    return average


def gradients(params, x, eps):
    """Gradients of the negative ELBO. params: of both nets. x: (B, 784) of 0 and 1. eps: (B, latent). Returns a dict."""
    encoder, decoder = part(params, "encoder"), part(params, "decoder")
    mu, logvar, seen = nets.encoder(encoder, x)
    logits, made = nets.decoder(decoder, vae.reparameterize(mu, logvar, eps).astype(x.dtype))
    each = np.full(len(x), 1 / len(x))  # of the negative ELBO, a mean, in each nll and each KL
    down, dz = nets.decoder_backward(vae.bernoulli_nll_backward(each, logits, x)[0].astype(x.dtype), decoder, made)
    dmu, dlogvar, _ = vae.reparameterize_backward(dz, logvar, eps)
    dmu_kl, dlogvar_kl = vae.gaussian_kl_backward(each, mu, logvar)
    up, _ = nets.encoder_backward((dmu + dmu_kl).astype(x.dtype), (dlogvar + dlogvar_kl).astype(x.dtype), encoder, seen)
    return {"encoder." + name: g for name, g in up.items()} | {"decoder." + name: g for name, g in down.items()}


def bounds(params, x, draws, seed):
    """The negative ELBO and its parts, the negative [IWAE] bound, and the latents in use.

    params: of both nets. x: (N, 784) of 0 and 1. draws: of z for each. seed: int.
    Returns a dict: nll, the mean over draws, kl, negative_elbo, importance_weighted with all draws, in nats; standard error of the
    ELBO over digits; active, how many latents say more than 0.01 nats.
    """
    nll, kl, log_w, of_latent = [], [], [], 0
    for i, some in enumerate(np.array_split(x, -(-len(x) * draws // 5000))):
        mu, logvar, _ = nets.encoder(part(params, "encoder"), some)
        kl.append(vae.gaussian_kl(mu, logvar))
        of_latent = of_latent + np.sum(mu**2 + np.expm1(logvar) - logvar, axis=0) / 2
        mu, logvar, many = (np.repeat(a, draws, axis=0) for a in (mu, logvar, some))
        z = vae.reparameterize(mu, logvar, philox.normal(seed, mu.shape, DRAWS + i))
        cost = vae.bernoulli_nll(nets.decoder(part(params, "decoder"), z.astype(x.dtype))[0], many)
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
    return 2 * sigmoid(nets.decoder(part(params, "decoder"), z.astype(np.float32))[0]) - 1


def sample(params, count, seed):
    """Digits from the prior, the decoder's mean. params: of both nets. count, seed: ints. Returns (count, 784) float32."""
    return decoded(params, philox.normal(seed, (count, LATENT), SAMPLING))


def look(images):
    """How images look: the mean gradient energy, and the share of pixels that are neither on nor off, between a tenth and nine. images: (N, 784). Returns a dict."""
    return {"sharpness": metrics.sharpness(images), "undecided": float(np.mean(np.abs(images) < 0.8))}


def binarised(images, seed, stream):
    """Pixels of 0 and 1, each on with the probability of its grey. images: (N, 784) in [-1, 1]. seed, stream: ints. Returns float32 of its shape."""
    return (philox.uniform(seed, images.shape, stream) < (images + 1) / 2).astype(np.float32)


def sentences(rows, draws):
    """Three sentences with the figures measured. rows: of `run`. draws: of z in the bounds. Returns a list of str."""
    final, (real, rebuilt, samples, real_drawn, drawn) = rows[0], rows[1:6]
    train = [row for row in rows if row["of"] == "training digits"][-1]
    return [
        f"Dynamically binarised held-out digits cost {final['negative_elbo']:.2f} +- {final['error']:.2f} nats by the negative ELBO, {final['nll']:.2f} for the pixels and {final['kl']:.2f} for the latent "
        f"({final['active']} of {LATENT} in use), and {final['importance_weighted']:.2f} by the importance-weighted bound with {draws} draws; training digits cost {train['negative_elbo']:.2f}; "
        f"{final['step']} steps took {final['seconds']:.0f} s on one core.",
        f"Mean gradient energy is {real['sharpness']:.3f} for real digits, {rebuilt['sharpness']:.3f} for rebuilt ones and {samples['sharpness']:.3f} for samples, of which {samples['undecided']:.0%} of the pixels are "
        f"neither on nor off ({real['undecided']:.0%} of a real digit's).",
        f"What is shown is the mean of all that a latent leaves open, and a mean of edges a little apart is a slope; to draw each pixel by itself does not make edges but specks, for the decoder's pixels are "
        f"independent given z: the energy is then {drawn['sharpness']:.3f}, that of real digits drawn from their greys {real_drawn['sharpness']:.3f}.",
    ]


def draw(rows, made):
    """The picture: the bound while training, sharpness, real and rebuilt digits, samples, the walk. rows, made: of `run`. Returns the figure."""
    plt = results.pyplot()
    figure = plt.figure(figsize=(8.6, 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.5, 5.4])
    left, right = top.subplots(1, 2)
    train, held = ([row for row in rows if row["of"] == of] for of in ("training digits", "held-out digits"))
    for mine, key, colour, style, text in (
        (held, "negative_elbo", "#0072B2", "-", "negative ELBO, held-out digits"), (train, "negative_elbo", "#E69F00", "-", "negative ELBO, training digits"),
        (held, "nll", "#0072B2", "--", "its pixels, held-out digits"), (held, "kl", "#0072B2", ":", "its KL, held-out digits"),
    ):  # fmt: skip
        left.plot([row["step"] for row in mine], [row[key] for row in mine], style, color=colour, lw=1.3, label=text)
    left.set(xlabel="training step", ylabel="nats a digit", ylim=(0, 1.7 * rows[0]["negative_elbo"]))
    left.legend(loc="upper right")
    bars = rows[1:6]
    right.barh([row["of"] for row in bars], [row["sharpness"] for row in bars], color=["0.4", "#56B4E9", "#0072B2", "0.75", "0.75"], height=0.6)
    for i, row in enumerate(bars):
        right.text(row["sharpness"], i, f" {row['sharpness']:.3f}", va="center")
    right.invert_yaxis()
    right.set(xlabel="mean gradient energy (sharpness)", xlim=(0, 1.15 * max(row["sharpness"] for row in bars)))
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    few = [made[of][:: len(made[of]) // 20][:20] for of in ("real digits", "rebuilt")]
    drawn = [made["samples"][:80], made["samples, pixels drawn"][:20]]
    panels = {"held-out digits, and what the decoder makes of their latent": few, "samples from the prior; last row: those of the first, each pixel drawn": drawn,
              "walks along a straight line between the latents of two held-out digits": [made["walk"]]}  # fmt: skip
    for axis, (title, images) in zip(bottom.subplots(3, 1, height_ratios=[2, 5, 5]), panels.items()):
        images = np.concatenate(images).reshape(-1, 20, 28, 28)
        axis.imshow(images.transpose(0, 2, 1, 3).reshape(-1, 560), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(title, loc="left")
        axis.set_axis_off()
    return figure


def part(params, net):
    """The parameters of one of the nets, "encoder" or "decoder". params: of both. net: its name. Returns a dict."""
    return {name.removeprefix(net + "."): p for name, p in params.items() if name.startswith(net)}
