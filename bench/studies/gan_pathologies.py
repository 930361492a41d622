"""What goes wrong in GANs, on a ring of eight Gaussians: lost modes, the saturating loss's vanishing gradient, and what penalties change.

Four ways to train the same two small MLPs, some seeds each; the discriminator learns at a third of the generator's rate, which is when
modes are lost. A sample is good within three deviations of its nearest mode; a mode is
covered when at least a quarter of its fair share of the samples is good and there. Then, for a generator that stands still, the
discriminator is trained alone, and the norm of the gradient that the generator would get is watched.

Papers
    [GAN]      Goodfellow et al., "Generative Adversarial Nets", 2014
    [Towards]  Arjovsky, Bottou, "Towards Principled Methods for Training Generative Adversarial Networks", 2017
    [WGAN-GP]  Gulrajani et al., "Improved Training of Wasserstein GANs", 2017
    [R1]       Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018
"""
import numpy as np

from bench.studies import digits, fit, results
from kernels.numba_cpu import philox
from ref import gan
from ref.nets import gan as nets

MODES, RADIUS, STD = 8, 0.75, 0.04
LATENT, WIDTH, ACT = 8, 128, "leaky_relu"
PER_STEP = 5  # streams of a training step
WHICH, SPREAD, FAKE, ALPHA, AGAIN = range(PER_STEP)
SAMPLING = 13 << 60
INPUT_GRADIENT = (lambda params, x: nets.discriminator_input_gradient(params, x, ACT), nets.discriminator_input_gradient_backward)
WAYS = {  # the gradient of the generator's loss, the penalty on the discriminator and its weight
    "saturating": (gan.generator_loss_saturating_backward, None, 0),
    "non-saturating": (gan.generator_loss_backward, None, 0),
    "non-saturating, R1": (gan.generator_loss_backward, "R1", 0.1),
    "non-saturating, gradient penalty": (gan.generator_loss_backward, "gradient penalty", 0.1),
}
ALONE = ("non-saturating", "non-saturating, R1")  # what the discriminator learns by beside a generator that stands still
COLOURS = dict(zip(WAYS, ("#D55E00", "#0072B2", "#009E73", "#CC79A7")))
POINTS = 25  # of the curves


def run(out, progress, steps=4000, batch=128, seeds=2, alone=1500, seed=0):
    """Train in each way, watch the vanishing gradient, draw; gan_pathologies.png, gan_pathologies.csv and gan_pathologies.txt.

    out: folder. progress: called with (done, total) steps. steps, batch: of training. seeds: trainings in each way. alone: steps of the
    discriminator beside a generator that stands still. seed: the first one.
    """
    tick = results.ticker(progress, len(WAYS) * seeds * steps + len(ALONE) * alone)
    rows, made, every = [], {}, max(1, steps // POINTS)
    for way in WAYS:
        for own in range(seed, seed + seeds):

            def watch(step, generator):
                if step % every == 0:
                    made[way, own, step] = sample(generator, own)
                    modes, good = covered(made[way, own, step])
                    rows.append({"what": "modes", "way": way, "seed": own, "step": step, "modes": modes, "good": good})

            train(way, steps, batch, own, tick, watch)
    still = nets.generator_init(seed, LATENT, WIDTH, 2)
    for way in ALONE:
        rows += [{"what": "gradient", "way": way, "seed": seed, **row} for row in vanishing(way, still, alone, batch, seed, tick)]
    keys = dict.fromkeys(key for row in rows for key in row)
    rows = [{key: row.get(key, "") for key in keys} for row in rows]
    results.write(out, "gan_pathologies", draw(rows, made), rows, sentences(rows))


def train(way, steps, batch, seed, tick, watch, lr=1e-3, critic_lr=3e-4, beta1=0.5):
    """[GAN] algorithm 1, one step of each net in turn.

    way: of WAYS. steps, batch, seed: ints. tick: called after each step. watch: called with (step, generator's parameters) after each.
    lr, critic_lr, beta1: Adam's, of the generator, of the discriminator, of both. Returns the generator's parameters.
    """
    kernels = digits.backend("numba_cpu")
    generator, critic = (fit.parts(p) for p in (nets.generator_init(seed, LATENT, WIDTH, 2), nets.discriminator_init(seed, 2, WIDTH)))
    for step in range(1, steps + 1):
        stream = PER_STEP * step
        fake, _ = nets.generator(generator[0], philox.normal(seed, (batch, LATENT), stream + FAKE))
        grads = critic_gradients(critic[0], ring(batch, seed, stream), fake, way, philox.uniform(seed, (batch,), stream + ALPHA))
        digits.descend(kernels, critic, grads, step, critic_lr, 0.0, beta1)
        grads = generator_gradients(generator[0], critic[0], philox.normal(seed, (batch, LATENT), stream + AGAIN), WAYS[way][0])
        digits.descend(kernels, generator, grads, step, lr, 0.0, beta1)
        watch(step, generator[0])
        tick()
    return generator[0]


def critic_gradients(critic, real, fake, way, alpha):
    """Gradients of the discriminator's loss and penalty. critic: its parameters. real, fake: (B, 2). way: of WAYS. alpha: (B,), uniform. Returns a dict."""
    _, penalty, weight = WAYS[way]
    logits, cache = nets.discriminator(critic, np.concatenate([real, fake]), ACT)
    dlogits = np.concatenate(gan.discriminator_loss_backward(1.0, *np.split(logits, 2))).astype(logits.dtype)
    grads, _ = nets.discriminator_backward(dlogits, critic, cache)
    if penalty == "R1":
        _, cache = gan.r1_penalty(INPUT_GRADIENT, critic, real)
        more = gan.r1_penalty_backward(weight, INPUT_GRADIENT, critic, cache)
    elif penalty == "gradient penalty":
        _, cache = gan.gradient_penalty(INPUT_GRADIENT, critic, gan.interpolate(real, fake, alpha).astype(real.dtype))
        more = gan.gradient_penalty_backward(weight, INPUT_GRADIENT, critic, cache)
    else:
        return grads
    return {name: g + more[name] for name, g in grads.items()}


def generator_gradients(generator, critic, z, backward):
    """Gradients of a generator's loss in its parameters. generator, critic: parameters. z: (B, latent). backward: the loss's. Returns a dict."""
    fake, made = nets.generator(generator, z)
    logits, cache = nets.discriminator(critic, fake, ACT)
    return nets.generator_backward(nets.discriminator_backward(backward(1.0, logits).astype(logits.dtype), critic, cache)[1], generator, made)


def vanishing(way, generator, steps, batch, seed, tick, lr=1e-3):
    """[Towards] figure 2: the generator stands still, the discriminator learns, and both losses' gradients are measured.

    way: of WAYS, says what the discriminator learns by. generator: parameters. steps, batch, seed: ints. tick: called after each step. lr: Adam's.
    Returns a list of dicts: step, the mean of D over fakes, the norms of the generator's gradient by the saturating and the
    non-saturating loss.
    """
    kernels, critic, rows = digits.backend("numba_cpu"), fit.parts(nets.discriminator_init(seed + 1, 2, WIDTH)), []
    z = philox.normal(seed, (1000, LATENT), SAMPLING + 1)
    marks = set(np.unique(np.rint(np.geomspace(1, steps, 25)).astype(int)))
    for step in range(1, steps + 1):
        stream = PER_STEP * step
        fake, _ = nets.generator(generator, philox.normal(seed, (batch, LATENT), stream + FAKE))
        grads = critic_gradients(critic[0], ring(batch, seed, stream), fake, way, None)
        digits.descend(kernels, critic, grads, step, lr, 0.0)
        if step in marks:
            logits, _ = nets.discriminator(critic[0], nets.generator(generator, z)[0], ACT)
            norms = [_norm(generator_gradients(generator, critic[0], z, b)) for b in (gan.generator_loss_saturating_backward, gan.generator_loss_backward)]
            rows.append({"step": step, "fake_logit": float(np.mean(logits)), "saturating": norms[0], "non_saturating": norms[1]})
        tick()
    return rows


def ring(count, seed, stream):
    """Points of the ring. count, seed, stream: ints. Returns (count, 2) float32."""
    angle = 2 * np.pi / MODES * (philox.uniform(seed, (count,), stream + WHICH) * MODES).astype(int)
    centre = RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (centre + STD * philox.normal(seed, (count, 2), stream + SPREAD)).astype(np.float32)


def sample(generator, seed, count=2000):
    """What a generator makes. generator: its parameters. seed, count: ints. Returns (count, 2) float32."""
    return nets.generator(generator, philox.normal(seed, (count, LATENT), SAMPLING))[0]


def covered(x):
    """How many modes are covered, and the share of good samples. x: (N, 2). Returns an int and a float."""
    angle = 2 * np.pi / MODES * np.arange(MODES)
    distance = np.linalg.norm(x[:, None] - RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1), axis=2)
    good = distance.min(axis=1) < 3 * STD
    counts = np.bincount(distance.argmin(axis=1)[good], minlength=MODES)
    return int(np.sum(counts >= len(x) / MODES / 4)), float(np.mean(good))


def sentences(rows):
    """Three sentences with the figures measured. rows: of `run`. Returns a list of str."""
    modes = [row for row in rows if row["what"] == "modes"]
    (half, end), told = _half_and_end(rows), []
    for way in WAYS:
        covers = [", ".join(str(row["modes"]) for row in modes if row["way"] == way and row["step"] == step) for step in (half, end)]
        good = ", ".join(f"{row['good']:.0%}" for row in modes if row["way"] == way and row["step"] == end)
        told.append(f"{way} {covers[0]} and {covers[1]} ({good} good)")
    plain, damped = ([row for row in rows if row["what"] == "gradient" and row["way"] == way] for way in ALONE)
    began, plain, damped = plain[0], plain[-1], damped[-1]
    return [
        f"Modes covered of {MODES} after {half} and after {end} steps, each seed by itself: {'; '.join(told)}.",
        f"Beside a generator that stands still the discriminator's mean logit on fakes goes from {began['fake_logit']:.2f} to {plain['fake_logit']:.2f} in {plain['step']} steps, and the norm of the generator's gradient "
        f"from {began['saturating']:.2g} to {plain['saturating']:.2g} by the saturating loss, from {began['non_saturating']:.2g} to {plain['non_saturating']:.2g} by the non-saturating one.",
        f"With R1 the logit stops at {damped['fake_logit']:.2f}, and the two norms are {damped['saturating']:.2g} and {damped['non_saturating']:.2g}: the penalty keeps the discriminator from being sure, so either loss still teaches.",
    ]


def draw(rows, made):
    """The picture: samples halfway and at the end, modes and good samples on the way, the generator's gradient. rows, made: of `run`. Returns the figure."""
    plt = results.pyplot()
    figure = plt.figure(figsize=(8.6, 7.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[4.8, 2.6])
    real, first = ring(2000, 0, SAMPLING), min(own for _, own, _ in made)
    for axes, step in zip(top.subplots(2, len(WAYS)), _half_and_end(rows)):
        for axis, (way, colour) in zip(axes, COLOURS.items()):
            modes, good = covered(made[way, first, step])
            axis.scatter(*real.T, s=2, color="0.75", lw=0)
            axis.scatter(*made[way, first, step].T, s=2, color=colour, lw=0)
            axis.set(xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), xticks=[], yticks=[], aspect="equal", xlabel=f"{modes} of {MODES} modes, {good:.0%} good")
            if step != max(_half_and_end(rows)):
                axis.set_title(way.replace(", ", ",\n"), color=colour)
        axes[0].set_ylabel(f"step {step}")
    left, middle, right = bottom.subplots(1, 3)
    for way, colour in COLOURS.items():
        mine = [row for row in rows if row["what"] == "modes" and row["way"] == way]
        steps = sorted({row["step"] for row in mine})
        for axis, key in ((left, "modes"), (middle, "good")):
            axis.plot(steps, [np.mean([row[key] for row in mine if row["step"] == step]) for step in steps], color=colour, lw=1.3)
    left.set(xlabel="training step", ylabel="modes covered (mean over seeds)", ylim=(0, MODES + 0.2))
    middle.set(xlabel="training step", ylabel="share of good samples", ylim=(0, 1))
    for way, style in zip(ALONE, ("-", "--")):
        mine = [row for row in rows if row["what"] == "gradient" and row["way"] == way]
        for key, colour in (("saturating", COLOURS["saturating"]), ("non_saturating", COLOURS["non-saturating"])):
            label = f"{key.replace('_', '-')} loss{', D with R1' if style == '--' else ''}"
            right.plot([row["step"] for row in mine], [row[key] for row in mine], style, color=colour, lw=1.3, label=label)
    right.set(xlabel="steps of the discriminator alone", ylabel="norm of the generator's gradient", xscale="log", yscale="log")
    right.legend(fontsize=6.5)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _half_and_end(rows):
    steps = sorted({row["step"] for row in rows if row["what"] == "modes"})
    return steps[(len(steps) - 1) // 2], steps[-1]


def _norm(grads):
    return float(np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in grads.values())))
