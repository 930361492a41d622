"""What goes wrong in GANs, on a ring of eight Gaussians: lost modes, the saturating loss's vanishing gradient, and what penalties change.

Four ways to train the same two small MLPs, some seeds each. A sample is good within three deviations of its nearest mode; a mode is
covered when at least a quarter of its fair share of the samples is good and there. Then, for a generator that stands still, the
discriminator is trained alone, and the norm of the gradient that the generator would get is watched.

Papers
    [GAN]      Goodfellow et al., "Generative Adversarial Nets", 2014
    [Towards]  Arjovsky, Bottou, "Towards Principled Methods for Training Generative Adversarial Networks", 2017
    [WGAN-GP]  Gulrajani et al., "Improved Training of Wasserstein GANs", 2017
    [R1]       Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018
"""
import numpy as np

from bench.studies import digits, results
from kernels.numba_cpu import philox
from ref import gan
from ref.nets import gan as nets

MODES, RADIUS, STD = 8, 0.75, 0.02
LATENT, WIDTH, ACT = 8, 128, "leaky_relu"
PER_STEP = 5  # streams of a training step
WHICH, SPREAD, FAKE, ALPHA, AGAIN = range(PER_STEP)
SAMPLING = 13 << 60
INPUT_GRADIENT = (lambda params, x: nets.discriminator_input_gradient(params, x, ACT), nets.discriminator_input_gradient_backward)
WAYS = {  # the losses' gradients, the penalty and its weight
    "saturating": (gan.discriminator_loss_backward, gan.generator_loss_saturating_backward, None, 0),
    "non-saturating": (gan.discriminator_loss_backward, gan.generator_loss_backward, None, 0),
    "non-saturating, R1": (gan.discriminator_loss_backward, gan.generator_loss_backward, "r1", 1.0),
    "Wasserstein, gradient penalty": (gan.wasserstein_discriminator_loss_backward, gan.wasserstein_generator_loss_backward, "gp", 10.0),
}


def train(way, steps, batch, seed, tick, watch, lr=1e-3, beta1=0.5):
    """[GAN] algorithm 1, one step of each net in turn.

    way: of WAYS. steps, batch, seed: ints. tick: called after each step. watch: called with (step, generator's parameters) after each.
    lr, beta1: Adam's. Returns the generator's parameters.
    """
    _, generator_backward, _, _ = WAYS[way]
    kernels = digits.backend("numba_cpu")
    generator, critic = (_parts(p) for p in (nets.generator_init(seed, LATENT, WIDTH, 2), nets.discriminator_init(seed, 2, WIDTH)))
    for step in range(1, steps + 1):
        stream = PER_STEP * step
        fake, _ = nets.generator(generator[0], philox.normal(seed, (batch, LATENT), stream + FAKE))
        grads = critic_gradients(critic[0], ring(batch, seed, stream), fake, way, philox.uniform(seed, (batch,), stream + ALPHA))
        digits.descend(kernels, critic, grads, step, lr, 0.0, beta1)
        grads = generator_gradients(generator[0], critic[0], philox.normal(seed, (batch, LATENT), stream + AGAIN), generator_backward)
        digits.descend(kernels, generator, grads, step, lr, 0.0, beta1)
        watch(step, generator[0])
        tick()
    return generator[0]


def critic_gradients(critic, real, fake, way, alpha):
    """Gradients of the discriminator's loss and penalty. critic: its parameters. real, fake: (B, 2). way: of WAYS. alpha: (B,), uniform. Returns a dict."""
    backward, _, penalty, weight = WAYS[way]
    logits, cache = nets.discriminator(critic, np.concatenate([real, fake]), ACT)
    dlogits = np.concatenate(backward(1.0, *np.split(logits, 2))).astype(logits.dtype)
    grads, _ = nets.discriminator_backward(dlogits, critic, cache)
    if penalty == "r1":
        _, cache = gan.r1_penalty(INPUT_GRADIENT, critic, real)
        more = gan.r1_penalty_backward(weight, INPUT_GRADIENT, critic, cache)
    elif penalty == "gp":
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
    kernels, critic, rows = digits.backend("numba_cpu"), _parts(nets.discriminator_init(seed + 1, 2, WIDTH)), []
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


def covered(x):
    """How many modes are covered, and the share of good samples. x: (N, 2). Returns an int and a float."""
    angle = 2 * np.pi / MODES * np.arange(MODES)
    distance = np.linalg.norm(x[:, None] - RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1), axis=2)
    good = distance.min(axis=1) < 3 * STD
    counts = np.bincount(distance.argmin(axis=1)[good], minlength=MODES)
    return int(np.sum(counts >= len(x) / MODES / 4)), float(np.mean(good))


def _norm(grads):
    return float(np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in grads.values())))


def _parts(params):
    """Parameters, Adam's two moments, the average, as `digits.descend` takes them."""
    return params, *({name: np.zeros_like(p) for name, p in params.items()} for _ in range(2)), {name: p.copy() for name, p in params.items()}
