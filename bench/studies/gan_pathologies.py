"""GANs on a ring of eight Gaussians: lost modes, vanishing gradients, penalties.

Four ways to train the same two small MLPs, some seeds each; the discriminator learns at 0.3 of the generator's rate. A
sample is good within three deviations of its nearest mode; a mode is covered when at least a quarter of its fair share
of the samples is good and there. Then the discriminator is trained alone, with a fixed generator, and the norm of the
gradient that the generator would get is measured.

Papers
    [GAN]      Goodfellow et al., "Generative Adversarial Nets", 2014
    [Towards]  Arjovsky, Bottou, "Towards Principled Methods for Training Generative Adversarial Networks", 2017
    [WGAN-GP]  Gulrajani et al., "Improved Training of Wasserstein GANs", 2017
    [R1]       Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018
"""
import numpy as np

from bench.studies import data, fit, pictures, results
from bench.studies.gan import ACT, Way, alternate, critic_gradients, generator_gradients
from bench.studies.gan import sample as generated
from kernels.numba_cpu.philox import normal
from ref import gan, philox, tree
from ref.nets import gan as nets

MODES, RADIUS, STD = 8, 0.75, 0.04
ANGLES = 2 * np.pi / MODES * np.arange(MODES)
CENTRES = RADIUS * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
LATENT, WIDTH = 8, 128
SATURATING = gan.generator_loss_saturating, gan.generator_loss_saturating_backward
NON_SATURATING = gan.generator_loss, gan.generator_loss_backward
WAYS = {
    name: Way(loss, penalty, weight, critic_lr=3e-4, beta1=0.5)
    for name, loss, penalty, weight in (
        ("saturating", SATURATING, "", 0.0), ("non-saturating", NON_SATURATING, "", 0.0), ("non-saturating, R1", NON_SATURATING, "R1", 0.1),
        ("non-saturating, gradient penalty", NON_SATURATING, "gradient penalty", 0.1),
    )
}  # fmt: skip
ALONE = ("non-saturating", "non-saturating, R1")  # how the discriminator learns with a fixed generator
COLOURS = dict(zip(WAYS, ("#D55E00", "#0072B2", "#009E73", "#CC79A7")))
POINTS = 25  # of the curves
COLUMNS = {
    "way": "", "what": "a training of both nets, or the gradient of a fixed generator", "seed": "", "step": "", "modes": f"of {MODES} that are covered", "good": "share of good samples",
    "fake_logit": "mean of the discriminator over samples", "saturating": "norm of the generator's gradient by this loss", "non_saturating": "likewise",
}  # fmt: skip


def run(out, progress, steps=4000, batch=128, seeds=2, alone=1500, seed=0):
    """Train in each way, measure the vanishing gradient, draw; gan_pathologies.png, gan_pathologies.csv and
    gan_pathologies.txt."""
    total = len(WAYS) * seeds * steps + len(ALONE) * alone
    this = results.Run("gan_pathologies", out, progress, total, steps=steps, batch=batch, seeds=seeds, alone=alone, seed=seed)
    rows, made, every = [], {}, max(1, steps // POINTS)
    for way in WAYS:
        for own in range(seed, seed + seeds):

            def watch(step, generator):
                if step % every == 0:
                    made[way, own, step] = generated(generator, 2000, own)
                    modes, good = covered(made[way, own, step])
                    rows.append({"what": "modes", "way": way, "seed": own, "step": step, "modes": modes, "good": good})

            pair = nets.generator_init(own, LATENT, WIDTH, 2), nets.discriminator_init(own, 2, WIDTH)
            alternate(*pair, lambda step: ring(batch, own, step), WAYS[way], steps, batch, own, this.tick, watch)
    fixed = nets.generator_init(seed, LATENT, WIDTH, 2)
    for way in ALONE:
        rows += [{"what": "gradient", "way": way, "seed": seed, **row} for row in vanishing(way, fixed, alone, batch, seed, this.tick)]
    this.finish(rows, draw(rows, made))


def vanishing(way, generator, steps, batch, seed, tick, lr=1e-3):
    """[Towards] figure 2: the generator is fixed, the discriminator learns, and both losses' gradients are measured."""
    kernels, critic, rows = fit.backend("numba_cpu"), fit.begin(nets.discriminator_init(seed + 1, 2, WIDTH)), []
    z = normal(seed, (1000, LATENT), philox.stream("sampling", 1))
    marks = set(np.unique(np.rint(np.geomspace(1, steps, 25)).astype(int)))
    for step in range(1, steps + 1):
        fake, _ = nets.generator(generator, normal(seed, (batch, LATENT), philox.stream("noise", step)))
        _, _, grads = critic_gradients(critic["params"], ring(batch, seed, step), fake, WAYS[way])
        fit.descend(kernels, critic, grads, step, lr, 0.0)
        if step in marks:
            logits, _ = nets.discriminator(critic["params"], nets.generator(generator, z)[0], ACT)
            norms = [_norm(generator_gradients(generator, critic["params"], z, *loss)[1]) for loss in (SATURATING, NON_SATURATING)]
            rows.append({"step": step, "fake_logit": float(np.mean(logits)), "saturating": norms[0], "non_saturating": norms[1]})
        tick()
    return rows


def ring(count, seed, step):
    """Points of the ring for a training step. count, seed, step: ints. Returns (count, 2) float32."""
    which, where = philox.stream("label", step), philox.stream("batch", step)
    return data.mixture(CENTRES, np.full(MODES, STD), np.full(MODES, 1 / MODES), count, seed, which, where).astype(np.float32)


def covered(x):
    """How many modes are covered, and the share of good samples. x: (N, 2). Returns an int and a float."""
    distance = np.linalg.norm(x[:, None] - CENTRES, axis=2)
    good = distance.min(axis=1) < 3 * STD
    counts = np.bincount(distance.argmin(axis=1)[good], minlength=MODES)
    return int(np.sum(counts >= len(x) / MODES / 4)), float(np.mean(good))


def shown(rows):
    """The rows that the text shows: of each training halfway and the end, of each gradient the first and the last."""
    ends = _half_and_end(rows)
    alone = [[row for row in rows if row["what"] == "gradient" and row["way"] == way] for way in ALONE]
    return [row for row in rows if row["what"] == "modes" and row["step"] in ends] + [mine[i] for mine in alone for i in (0, -1)]


def draw(rows, made):
    """The picture: samples halfway and at the end, modes and good samples over training, the generator's gradient."""
    figure = pictures.pyplot().figure(figsize=(8.6, 7.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[4.8, 2.6])
    real, first = ring(2000, 0, 0), min(own for _, own, _ in made)
    axes = top.subplots(2, len(WAYS))
    for row, step in zip(axes, _half_and_end(rows)):
        for axis, (way, colour) in zip(row, COLOURS.items()):
            modes, good = covered(made[way, first, step])
            axis.scatter(*real.T, s=2, color="0.75", lw=0)
            axis.scatter(*made[way, first, step].T, s=2, color=colour, lw=0)
            axis.set(xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), xticks=[], yticks=[], aspect="equal", xlabel=f"{modes} of {MODES} modes, {good:.0%} good")
        row[0].set_ylabel(f"step {step}")
    for axis, (way, colour) in zip(axes[0], COLOURS.items()):
        axis.set_title(way.replace(", ", ",\n"), color=colour, loc="center")
    left, middle, right = bottom.subplots(1, 3)
    modes, gradients = ([row for row in rows if row["what"] == what] for what in ("modes", "gradient"))
    steps = sorted({row["step"] for row in modes})
    means = [{"way": way, "step": step, **{key: np.mean([row[key] for row in modes if (row["way"], row["step"]) == (way, step)]) for key in ("modes", "good")}} for way in WAYS for step in steps]
    for axis, key, text, most in ((left, "modes", "modes covered (mean over seeds)", MODES + 0.2), (middle, "good", "share of good samples", 1)):
        pictures.lines(axis, means, "way", "step", key, {way: dict(color=colour) for way, colour in COLOURS.items()})
        axis.set(xlabel="training step", ylabel=text, ylim=(0, most))
    for key in ("saturating", "non_saturating"):
        loss = key.replace("_", "-")
        styles = {way: dict(color=COLOURS[loss], ls=ls, label=f"{loss} loss{more}") for way, ls, more in zip(ALONE, ("-", "--"), ("", ", D with R1"))}
        pictures.lines(right, gradients, "way", "step", key, styles)
    right.set(xlabel="steps of the discriminator alone", ylabel="norm of the generator's gradient", xscale="log", yscale="log")
    right.legend(fontsize=6.5)
    return figure


def _half_and_end(rows):
    steps = sorted({row["step"] for row in rows if row["what"] == "modes"})
    return steps[(len(steps) - 1) // 2], steps[-1]


def _norm(grads):
    return float(np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in tree.leaves(grads))))
