"""A generative adversarial network of digits: the non-saturating loss with R1, both losses over time, and what it draws.

Two MLPs ([GAN] used such), unconditional. Each step moves the discriminator once, on digits, on fakes and on R1's penalty at the
digits, then the generator once; samples come from the moving average of the generator.

Papers
    [GAN]  Goodfellow et al., "Generative Adversarial Nets", 2014
    [R1]   Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018
"""
import time

import numpy as np

from bench.studies import classifier, data, digits, fit, metrics, results
from kernels.numba_cpu import philox
from ref import gan
from ref.nets import gan as nets

ACT = "leaky_relu"
LATENT = 64
GAMMA = 2.0  # R1's weight
BETA1 = 0.0  # Adam's: a net that moves against another has no use for a memory of where it went
PER_STEP = 3  # streams of a training step
PICK, FAKE, AGAIN = range(PER_STEP)
SAMPLING = 8 << 60
WINDOWS, POINTS = 100, 20  # of the losses, of the Frechet distance
LOSSES = ("discriminator_loss", "r1_penalty", "generator_loss")
R1 = (lambda params, x: nets.discriminator_input_gradient(params, x, ACT), nets.discriminator_input_gradient_backward)


def run(out, progress, steps=7000, batch=64, count=1000, seed=0):
    """Train, sample, judge, draw; gan.png, gan.csv and gan.txt.

    out: folder. progress: called with (done, total) steps. steps, batch: of training. count: samples, a multiple of 10. seed: of everything random.
    """
    judge, real, perfect = metrics.references(count, seed)
    (images, _), _ = data.load()
    distances, began = {}, time.perf_counter()

    def watch(step, generator):
        if step % max(1, steps // POINTS) == 0:
            distances[step] = metrics.frechet(*(metrics.features(judge, x) for x in (real[0], sample(generator, count, seed))))

    generator, losses = train(images, steps, batch, seed, results.ticker(progress, steps), watch=watch)
    seconds = time.perf_counter() - began
    samples = sample(generator, count, seed)
    taken = classifier.logits(judge, samples).argmax(axis=1)
    rows = []
    for of, shown, labels, cost in (("samples", samples, taken, seconds), ("real digits", *perfect, "")):
        found = metrics.judged(judge, real, shown, labels)
        rows.append({"of": of, "step": steps, "seconds": cost, "frechet": found["frechet"], "precision": found["precision"], "recall": found["recall"],
                     "sharpness": metrics.sharpness(shown), **{f"digit_{k}": int(np.sum(labels == k)) for k in range(10)}})  # fmt: skip
    each = max(1, steps // WINDOWS)
    for end in range(each, steps + 1, each):
        rows.append({"of": "training", "step": end, "frechet": distances.get(end, ""), **dict(zip(LOSSES, losses[end - each : end].mean(axis=0).tolist()))})
    keys = dict.fromkeys(key for row in rows for key in row)
    rows = [{key: row.get(key, "") for key in keys} for row in rows]
    results.write(out, "gan", draw(rows, samples), rows, sentences(rows))


def train(images, steps, batch, seed, tick, lr=1e-3, ema=0.998, watch=lambda step, generator: None):
    """[GAN] algorithm 1 with one step of each net in turn, the non-saturating loss and [R1] eq. 9.

    images: (N, pixels) float32 in [-1, 1]. steps, batch, seed: ints. tick: called after each step. lr, ema: the first learning
    rate, annealed to 0; the decay of the average. watch: called with (step, the generator's average) after each step.
    Returns the moving average of the generator's parameters, and (steps, 3): the discriminator's loss, R1's penalty with its
    weight, the generator's loss.
    """
    kernels, pixels = digits.backend("numba_cpu"), images.shape[1]
    generator, critic = (fit.parts(p) for p in (nets.generator_init(seed, LATENT, pixels=pixels), nets.discriminator_init(seed, pixels)))
    losses = np.zeros((steps, 3))
    for step in range(1, steps + 1):
        stream, rate = PER_STEP * step, digits.annealed(lr, step, steps)
        pick = np.minimum((philox.uniform(seed, (batch,), stream + PICK) * len(images)).astype(int), len(images) - 1)  # a uniform may be 1
        real = images[pick]
        fake, _ = nets.generator(generator[0], philox.normal(seed, (batch, LATENT), stream + FAKE))
        loss, penalty, grads = critic_gradients(critic[0], real, fake)
        digits.descend(kernels, critic, grads, step, rate, ema, BETA1)
        own, grads = generator_gradients(generator[0], critic[0], philox.normal(seed, (batch, LATENT), stream + AGAIN))
        digits.descend(kernels, generator, grads, step, rate, ema, BETA1)
        losses[step - 1] = loss, penalty, own
        watch(step, generator[3])
        tick()
    return generator[3], losses


def critic_gradients(critic, real, fake, gamma=GAMMA):
    """The discriminator's loss, its R1 penalty times gamma, and the gradients of their sum in its parameters.

    critic: its parameters. real, fake: (B, pixels). gamma: float. Returns two floats and a dict.
    """
    logits, cache = nets.discriminator(critic, np.concatenate([real, fake]), ACT)
    halves = np.split(logits, 2)
    dlogits = np.concatenate(gan.discriminator_loss_backward(1.0, *halves)).astype(logits.dtype)
    grads, _ = nets.discriminator_backward(dlogits, critic, cache)
    penalty, cache = gan.r1_penalty(R1, critic, real)
    for name, g in gan.r1_penalty_backward(gamma, R1, critic, cache).items():
        grads[name] = grads[name] + g
    return gan.discriminator_loss(*halves), gamma * penalty, grads


def generator_gradients(generator, critic, z):
    """The generator's non-saturating loss and its gradients in the generator's parameters.

    generator, critic: their parameters. z: (B, latent). Returns a float and a dict.
    """
    fake, made = nets.generator(generator, z)
    logits, cache = nets.discriminator(critic, fake, ACT)
    dlogits = gan.generator_loss_backward(1.0, logits).astype(logits.dtype)
    return gan.generator_loss(logits), nets.generator_backward(nets.discriminator_backward(dlogits, critic, cache)[1], generator, made)


def sample(generator, count, seed):
    """Digits. generator: its parameters. count, seed: ints. Returns (count, pixels) float32."""
    return nets.generator(generator, philox.normal(seed, (count, LATENT), SAMPLING))[0]


def sentences(rows):
    """Three sentences with the figures measured. rows: of `run`. Returns a list of str."""
    made, real = rows[:2]
    counts = [made[f"digit_{k}"] for k in range(10)]
    early = [row for row in rows[2:] if row["frechet"] != ""][0]
    late = rows[-1]
    return [
        f"Of {sum(counts)} samples the classifier takes {', '.join(map(str, counts))} for 0 to 9: {sum(n > 0 for n in counts)} of ten digits; {made['step']} steps took {made['seconds']:.0f} s on one core.",
        f"Precision is {made['precision']:.1%} (real digits {real['precision']:.1%}), recall {made['recall']:.1%} ({real['recall']:.1%}), the Frechet distance {made['frechet']:.1f} ({real['frechet']:.1f}), "
        f"the mean gradient energy {made['sharpness']:.3f} ({real['sharpness']:.3f}).",
        f"From step {early['step']} to {late['step']} the generator's loss goes from {early['generator_loss']:.3f} to {late['generator_loss']:.3f} and the discriminator's from {early['discriminator_loss']:.3f} to "
        f"{late['discriminator_loss']:.3f} (one that cannot tell has log 2 = {np.log(2):.3f} and 2 log 2 = {2 * np.log(2):.3f}), while the Frechet distance goes from {early['frechet']:.1f} to {made['frechet']:.1f}: "
        "the losses say who is ahead, not how good the samples are.",
    ]


def draw(rows, samples):
    """The picture: the losses, the digits found, the samples as they came. rows, samples: of `run`. Returns the figure."""
    plt = results.pyplot()
    figure = plt.figure(figsize=(8.6, 6.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.5, 4.3])
    left, middle, right = top.subplots(1, 3, width_ratios=[1.5, 1, 1])
    mine = [row for row in rows if row["of"] == "training"]
    for name, colour, text in zip(LOSSES, ("#0072B2", "#009E73", "#D55E00"), ("discriminator", "R1's penalty", "generator")):
        left.plot([row["step"] for row in mine], [row[name] for row in mine], color=colour, lw=1.3, label=text)
    for level, colour in ((2 * np.log(2), "#0072B2"), (np.log(2), "#D55E00")):
        left.axhline(level, color=colour, lw=0.8, ls=":")
    left.set(xlabel="training step", ylabel="loss (nats)", ylim=(0, None))
    left.set_title("dotted: a discriminator that cannot tell", loc="left")
    left.legend(loc=(0.58, 0.13))
    watched = [row for row in mine if row["frechet"] != ""]
    middle.plot([row["step"] for row in watched], [row["frechet"] for row in watched], color="#0072B2", lw=1.3)
    middle.axhline(rows[1]["frechet"], color="black", ls="--", lw=1)
    middle.set(xlabel="training step", ylabel="Frechet distance", yscale="log", yticks=[5, 10, 20, 50, 100, 200], yticklabels=[5, 10, 20, 50, 100, 200])
    middle.minorticks_off()
    middle.set_title("dashed: real against real", loc="left")
    right.bar(range(10), [rows[0][f"digit_{k}"] for k in range(10)], color="#56B4E9")
    right.axhline(sum(rows[0][f"digit_{k}"] for k in range(10)) / 10, color="black", ls="--", lw=1)
    right.set(xlabel="digit, as the classifier takes it", ylabel="samples", xticks=range(10))
    right.set_title("dashed: even", loc="left")
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    axis = bottom.subplots()
    axis.imshow(samples[:200].reshape(10, 20, 28, 28).transpose(0, 2, 1, 3).reshape(280, 560), cmap="gray", vmin=-1, vmax=1)
    axis.set_title("samples as they came", loc="left")
    axis.set_axis_off()
    return figure
