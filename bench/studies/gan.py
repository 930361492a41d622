"""A generative adversarial network: losses, samples, distance over training.

Two MLPs ([GAN] used such), unconditional. Each step moves the discriminator once, on digits, on fakes and on R1's
penalty at the digits, then the generator once; samples come from the moving average of the generator.
"""
import time
from dataclasses import dataclass
from typing import Callable

import numpy as np

from bench.studies import classifier, data, fit, metrics, pictures
from kernels.numba_cpu.philox import normal
from ref import gan, philox, tree
from ref.nets import gan as nets

SETTINGS = dict(steps=7000, batch=64, count=1000, seed=0)
ACT = "leaky_relu"
LATENT = 64
WINDOWS, POINTS = 100, 20  # of the losses, of the Frechet distance
LOSSES = ("discriminator_loss", "r1_penalty", "generator_loss")
INPUT_GRADIENT = (
    lambda params, x: nets.discriminator_input_gradient(params, x, ACT), nets.discriminator_input_gradient_backward,
)  # fmt: skip
FIGURES = ("frechet", "precision", "recall")
COLUMNS = {"of": "", "step": ""} | {key: metrics.COLUMNS[key] for key in FIGURES} | {
    "sharpness": "mean gradient energy",
    "discriminator_loss": "mean over the steps since the row before; 2 log 2 = 1.386 where it outputs 0 for all",
    "generator_loss": "likewise; log 2 = 0.693 there", "r1_penalty": "with its weight", "seconds": "of training",
} | {f"digit_{k}": "" for k in range(9)} | {
    "digit_9": "digit_k: images that the classifier takes for k; of real digits, their labels",
}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How a GAN is trained: the generator's loss, a penalty on the discriminator and its weight, and Adam's options."""

    loss: tuple[Callable, Callable] = (gan.generator_loss, gan.generator_loss_backward)
    penalty: str = ""  # or "R1" or "gradient penalty"
    weight: float = 0.0
    lr: float = 1e-3
    critic_lr: float = 1e-3
    beta1: float = 0.0
    ema: float = 0.0
    anneal: bool = False


DIGITS = Way(penalty="R1", weight=2.0, ema=0.998, anneal=True)


def rows(this):
    """Train, sample, judge; the samples to draw."""
    judge, real, perfect = metrics.references(this.count, this.seed)
    this.total = this.steps
    (images, _), _ = data.load()
    distances, began = {}, time.perf_counter()

    def watch(step, generator):
        if step % max(1, this.steps // POINTS) == 0:
            both = real[0], sample(generator, this.count, this.seed)
            distances[step] = metrics.frechet(*(metrics.features(judge, x) for x in both))

    generator, losses = train(images, this.steps, this.batch, this.seed, this.tick, watch)
    seconds, samples, found = time.perf_counter() - began, sample(generator, this.count, this.seed), []
    drawn = samples, classifier.predicted(judge, samples)
    for of, (shown, labels), cost in (("samples", drawn, seconds), ("real digits", perfect, "")):
        figures = metrics.judged(judge, real, shown, labels)
        row = {"of": of, "step": this.steps, "seconds": cost, **{key: figures[key] for key in FIGURES}}
        row |= {"sharpness": metrics.sharpness(shown)}
        found.append(row | {f"digit_{k}": int(np.sum(labels == k)) for k in range(10)})
    each = max(1, this.steps // WINDOWS)
    for end in range(each, this.steps + 1, each):
        row = {"of": "training", "step": end, "frechet": distances.get(end, "")}
        found.append(row | dict(zip(LOSSES, losses[end - each : end].mean(axis=0).tolist())))
    return found, samples


def train(images, steps, batch, seed, tick, watch=lambda step, generator: None):
    """A GAN of digits. images: (N, pixels) float32 in [-1, 1]. The rest and what is returned: as in `alternate`."""
    pair = nets.generator_init(seed, LATENT, pixels=images.shape[1]), nets.discriminator_init(seed, images.shape[1])
    real = lambda step: images[fit.picked(len(images), seed, batch, step)]
    return alternate(*pair, real, DIGITS, steps, batch, seed, tick, watch)


def alternate(generator, critic, real, way, steps, batch, seed, tick, watch):
    """[GAN] algorithm 1 with one step of each net in turn. generator, critic: first parameters. real: step -> (batch,
    pixels). watch: called with (step, the generator's average). Returns that average, and (steps, 3): the
    discriminator's loss, the penalty with its weight, the generator's loss."""
    kernels, latent = fit.backend("numba_cpu"), generator["w1"].shape[1]
    generator, critic, losses = fit.begin(generator), fit.begin(critic), np.zeros((steps, 3))
    for step in range(1, steps + 1):
        rates = [fit.annealed(lr, step, steps) if way.anneal else lr for lr in (way.critic_lr, way.lr)]
        # the discriminator
        fake, _ = nets.generator(generator["params"], normal(seed, (batch, latent), philox.stream("noise", step)))
        alpha = None
        if way.penalty == "gradient penalty":
            alpha = philox.uniform(seed, (batch,), philox.stream("augment", step))
        loss, penalty, grads = critic_gradients(critic["params"], real(step), fake, way, alpha)
        fit.descend(kernels, critic, grads, step, rates[0], way.ema, way.beta1)
        # the generator
        z = normal(seed, (batch, latent), philox.stream("latent", step))
        own, grads = generator_gradients(generator["params"], critic["params"], z, *way.loss)
        fit.descend(kernels, generator, grads, step, rates[1], way.ema, way.beta1)
        losses[step - 1] = loss, penalty, own
        watch(step, generator["average"])
        tick()
    return generator["average"], losses


def critic_gradients(critic, real, fake, way, alpha=None):
    """The discriminator's loss, its penalty times its weight, and the gradients of their sum in its parameters. real,
    fake: (B, pixels). alpha: (B,), uniform, for the gradient penalty."""
    logits, cache = nets.discriminator(critic, np.concatenate([real, fake]), ACT)
    halves = np.split(logits, 2)
    dlogits = np.concatenate(gan.discriminator_loss_backward(1.0, *halves)).astype(logits.dtype)
    grads, loss = nets.discriminator_backward(dlogits, critic, cache)[1], gan.discriminator_loss(*halves)
    if not way.penalty:
        return loss, 0.0, grads
    if way.penalty == "R1":
        at, penalty, backward = real, gan.r1_penalty, gan.r1_penalty_backward
    else:
        at, penalty, backward = gan.interpolate(real, fake, alpha), gan.gradient_penalty, gan.gradient_penalty_backward
    value, cache = penalty(INPUT_GRADIENT, critic, at.astype(real.dtype))
    more = backward(way.weight, INPUT_GRADIENT, critic, cache)
    return loss, way.weight * value, tree.map(np.add, grads, more)


def generator_gradients(generator, critic, z, loss=gan.generator_loss, loss_backward=gan.generator_loss_backward):
    """The generator's loss and its gradients in the generator's parameters. Returns a float and a tree."""
    fake, made = nets.generator(generator, z)
    logits, cache = nets.discriminator(critic, fake, ACT)
    dfake, _ = nets.discriminator_backward(loss_backward(1.0, logits).astype(logits.dtype), critic, cache)
    return loss(logits), nets.generator_backward(dfake, generator, made)[1]


def sample(generator, count, seed):
    """Samples, (count, pixels) float32."""
    return nets.generator(generator, normal(seed, (count, generator["w1"].shape[1]), philox.stream("sampling")))[0]


def watched(rows):
    """The rows of training with a distance."""
    return [row for row in rows[2:] if row["frechet"] != ""]


def shown(rows):
    """Samples, real digits, and the first and last of training with a distance."""
    return [*rows[:2], watched(rows)[0], watched(rows)[-1]]


def draw(rows, samples):
    """The losses, the distance, the digits found, the samples."""
    figure, top, bottom = pictures.parts((8.6, 6.6), 2.5, 4.3)
    left, middle, right = top.subplots(1, 3, width_ratios=[1.5, 1, 1])
    colours, labels = ("#0072B2", "#009E73", "#D55E00"), ("discriminator", "R1's penalty", "generator")
    for key, colour, label, level in zip(LOSSES, colours, labels, (2 * np.log(2), None, np.log(2))):
        pictures.lines(left, rows, "of", "step", key, {"training": dict(color=colour, label=label)})
        if level:
            left.axhline(level, color=colour, lw=0.8, ls=":")
    title = "dotted: a discriminator that outputs 0 for all"
    left.set(xlabel="training step", ylabel="loss (nats)", ylim=(0, None), title=title)
    left.legend(loc=(0.58, 0.13))
    styles = {"training": dict(color="#0072B2")}
    pictures.lines(middle, watched(rows), "of", "step", "frechet", styles, rows[1]["frechet"])
    middle.set(xlabel="training step", ylabel="Frechet distance", title="dashed: real against real")
    pictures.log_ticks(middle, y=(5, 10, 20, 50, 100, 200))
    counts = [rows[0][f"digit_{k}"] for k in range(10)]
    right.bar(range(10), counts, color="#56B4E9")
    right.axhline(sum(counts) / 10, color="black", ls="--", lw=1)
    right.set(xlabel="digit, by the classifier", ylabel="samples", xticks=range(10), title="dashed: even")
    pictures.gallery(bottom.subplots(), samples[:200], 20, "uncurated samples")
    return figure
