"""GANs on a ring of eight Gaussians: lost modes, vanishing gradients, penalties.

Four ways to train the same two small MLPs, some seeds each; the discriminator learns at 0.3 of the generator's rate. A
sample is good within three deviations of its nearest mode; a mode is covered when at least a quarter of its fair share
of the samples is good and there. Then the discriminator is trained alone, with a fixed generator, and the norm of the
gradient that the generator would get is measured.
"""
import numpy as np

from bench.studies import data, fit, gan, pictures
from kernels.numba_cpu.philox import normal
from ref import gan as losses
from ref import philox, tree
from ref.nets import gan as nets

SETTINGS = dict(steps=4000, batch=128, seeds=2, alone=1500, seed=0)  # alone: steps with a fixed generator
MODES, RADIUS, STD = 8, 0.75, 0.04
ANGLES = 2 * np.pi / MODES * np.arange(MODES)
CENTRES = RADIUS * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
LATENT, WIDTH = 8, 128
SATURATING = losses.generator_loss_saturating, losses.generator_loss_saturating_backward
NON_SATURATING = losses.generator_loss, losses.generator_loss_backward
HOW = dict(critic_lr=3e-4, beta1=0.5)
WAYS = {
    "saturating": gan.Way(SATURATING, **HOW), "non-saturating": gan.Way(NON_SATURATING, **HOW),
    "non-saturating, R1": gan.Way(NON_SATURATING, "R1", 0.1, **HOW),
    "non-saturating, gradient penalty": gan.Way(NON_SATURATING, "gradient penalty", 0.1, **HOW),
}  # fmt: skip
ALONE = ("non-saturating", "non-saturating, R1")  # how the discriminator learns with a fixed generator
COLOURS = dict(zip(WAYS, ("#D55E00", "#0072B2", "#009E73", "#CC79A7")))
POINTS = 25  # of the curves
COLUMNS = {
    "way": "", "what": "a training of both nets, or the gradient of a fixed generator", "seed": "", "step": "",
    "modes": f"of {MODES} that are covered", "good": "share of good samples",
    "fake_logit": "mean of the discriminator over samples",
    "saturating": "norm of the generator's gradient by this loss", "non_saturating": "likewise",
}  # fmt: skip


def rows(this):
    """Train in each way, from some seeds, and measure the vanishing gradient; {(way, seed, step): samples} to draw."""
    this.total = len(WAYS) * this.seeds * this.steps + len(ALONE) * this.alone
    found, made, every = [], {}, max(1, this.steps // POINTS)
    for way in WAYS:
        for own in range(this.seed, this.seed + this.seeds):

            def watch(step, generator):
                if step % every == 0:
                    made[way, own, step] = gan.sample(generator, 2000, own)
                    modes, good = covered(made[way, own, step])
                    found.append({"what": "modes", "way": way, "seed": own, "step": step, "modes": modes, "good": good})

            pair = nets.generator_init(own, LATENT, WIDTH, 2), nets.discriminator_init(own, 2, WIDTH)
            real = lambda step: ring(this.batch, own, step)
            gan.alternate(*pair, real, WAYS[way], this.steps, this.batch, own, this.tick, watch)
    fixed = nets.generator_init(this.seed, LATENT, WIDTH, 2)
    for way in ALONE:
        gradients = vanishing(way, fixed, this.alone, this.batch, this.seed, this.tick)
        found += [{"what": "gradient", "way": way, "seed": this.seed, **row} for row in gradients]
    return found, made


def vanishing(way, generator, steps, batch, seed, tick, lr=1e-3):
    """[Towards] figure 2: the generator is fixed, the discriminator learns, and both losses' gradients are measured."""
    kernels, critic, found = fit.backend("numba_cpu"), fit.begin(nets.discriminator_init(seed + 1, 2, WIDTH)), []
    z, marks = normal(seed, (1000, LATENT), philox.stream("sampling", 1)), np.rint(np.geomspace(1, steps, 25))
    for step in range(1, steps + 1):
        fake, _ = nets.generator(generator, normal(seed, (batch, LATENT), philox.stream("noise", step)))
        _, _, grads = gan.critic_gradients(critic["params"], ring(batch, seed, step), fake, WAYS[way])
        fit.descend(kernels, critic, grads, step, lr, 0.0)
        if step in marks:
            logits, _ = nets.discriminator(critic["params"], nets.generator(generator, z)[0], gan.ACT)
            found.append({"step": step, "fake_logit": float(np.mean(logits))})
            for key, loss in (("saturating", SATURATING), ("non_saturating", NON_SATURATING)):
                grads = tree.leaves(gan.generator_gradients(generator, critic["params"], z, *loss)[1])
                found[-1][key] = float(np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in grads)))
        tick()
    return found


def ring(count, seed, step):
    """Points of the ring for a training step, (count, 2) float32."""
    where = CENTRES, np.full(MODES, STD), np.full(MODES, 1 / MODES)
    streams = philox.stream("label", step), philox.stream("batch", step)
    return data.mixture(*where, count, seed, *streams).astype(np.float32)


def covered(x):
    """How many modes are covered, and the share of good samples. x: (N, 2). Returns an int and a float."""
    distance = np.linalg.norm(x[:, None] - CENTRES, axis=2)
    good = distance.min(axis=1) < 3 * STD
    counts = np.bincount(distance.argmin(axis=1)[good], minlength=MODES)
    return int(np.sum(counts >= len(x) / MODES / 4)), float(np.mean(good))


def shown(rows):
    """Of each training halfway and the end, of each gradient the first and the last."""
    ends, found = _half_and_end(rows), [row for row in rows if row["what"] == "modes"]
    found = [row for row in found if row["step"] in ends]
    for way in ALONE:
        mine = [row for row in rows if (row["what"], row["way"]) == ("gradient", way)]
        found += [mine[0], mine[-1]]
    return found


def draw(rows, made):
    """Samples halfway and at the end, modes and good samples over training, the generator's gradient."""
    figure, top, bottom = pictures.parts((8.6, 7.4), 4.8, 2.6)
    real, first = ring(2000, 0, 0), min(own for _, own, _ in made)
    axes = top.subplots(2, len(WAYS))
    for row, step in zip(axes, _half_and_end(rows)):
        for axis, (way, colour) in zip(row, COLOURS.items()):
            modes, good = covered(made[way, first, step])
            axis.scatter(*real.T, s=2, color="0.75", lw=0)
            axis.scatter(*made[way, first, step].T, s=2, color=colour, lw=0)
            axis.set(xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), xticks=[], yticks=[], aspect="equal")
            axis.set_xlabel(f"{modes} of {MODES} modes, {good:.0%} good")
        row[0].set_ylabel(f"step {step}")
    for axis, (way, colour) in zip(axes[0], COLOURS.items()):
        axis.set_title(way.replace(", ", ",\n"), color=colour, loc="center")
    left, middle, right = bottom.subplots(1, 3)
    modes, gradients = ([row for row in rows if row["what"] == what] for what in ("modes", "gradient"))
    texts = {"modes": ("modes covered (mean over seeds)", MODES + 0.2), "good": ("share of good samples", 1)}
    for axis, (key, (text, most)) in zip((left, middle), texts.items()):
        for way, colour in COLOURS.items():
            mine = [row for row in modes if row["way"] == way]
            steps = sorted({row["step"] for row in mine})
            means = [np.mean([row[key] for row in mine if row["step"] == step]) for step in steps]
            axis.plot(steps, means, color=colour)
        axis.set(xlabel="training step", ylabel=text, ylim=(0, most))
    for key in ("saturating", "non_saturating"):
        loss = key.replace("_", "-")
        for way, ls, more in zip(ALONE, ("-", "--"), ("", ", D with R1")):
            style = dict(color=COLOURS[loss], ls=ls, label=f"{loss} loss{more}")
            pictures.lines(right, gradients, "way", "step", key, {way: style})
    right.set(xlabel="steps of the discriminator alone", ylabel="norm of the generator's gradient")
    right.set(xscale="log", yscale="log")
    right.legend(fontsize=6.5)
    return figure


def _half_and_end(rows):
    steps = sorted({row["step"] for row in rows if row["what"] == "modes"})
    return steps[(len(steps) - 1) // 2], steps[-1]
