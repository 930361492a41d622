"""`ref.gan` on the CPU: each loss and its gradient in one pass over the logits.

Every loss is  sign mean(F(slope logit + shift))  for one of four F, or two such means added; one kernel for each F
serves them all. Arguments and errors are those of `ref.gan`, float32 or float64; real and fake of one dtype, of any
two shapes. `out`, where given, is an array like the logits, which it may be, or for two gradients a pair. Sums are
float64, added in one order. Bad input raises before anything is written.

Papers
    [GAN]      Goodfellow et al., "Generative Adversarial Nets", 2014
    [LSGAN]    Mao et al., "Least Squares Generative Adversarial Networks", 2017
    [WGAN]     Arjovsky, Chintala, Bottou, "Wasserstein Generative Adversarial Networks", 2017
    [SN]       Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018
"""
import numpy as np

from kernels.numba_cpu import engine, reduce
from kernels.numba_cpu.engine import element
from kernels.numba_cpu.math import HALF, ONE, ZERO, logistic
from kernels.numba_cpu.reduce import reduction

# --- equations of one logit: c is empty, u are the scalars of the call (slope, shift, factor of the gradient) ---------
# Each returns the gradient and F


@element
def softplus(c, u, logit):
    """F = log(1 + e^y), F' = sigmoid(y), at y = slope logit + shift. c: none. u: 3 numbers. logit: number."""
    y = u[0] * logit + u[1]
    log, large, small = logistic(y)
    return (u[2] * large, y + log) if y >= ZERO else (u[2] * small, log)


@element
def hinge(c, u, logit):
    """F = max(0, y), NaN where y is, F' = 1 where y > 0, else 0. Arguments as in `softplus`."""
    y = u[0] * logit + u[1]
    return u[2] if y > ZERO else ZERO, ZERO if ZERO > y else y


@element
def square(c, u, logit):
    """F = y^2 / 2, F' = y. Arguments as in `softplus`."""
    y = u[0] * logit + u[1]
    return u[2] * y, HALF * (y * y)


@element
def line(c, u, logit):
    """F = y, F' = 1. Arguments as in `softplus`."""
    return u[2] * ONE, u[0] * logit + u[1]


SOFTPLUS = reduction(softplus, inputs=1, coefficients=0, vectors=True)
HINGE = reduction(hinge, inputs=1, coefficients=0)
SQUARE = reduction(square, inputs=1, coefficients=0)
LINE = reduction(line, inputs=1, coefficients=0)


# --- the operations ---------------------------------------------------------------------------------------------------


def discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[GAN] eq. 1, negated, on the CPU, arguments as in `ref.gan.discriminator_loss_grad`."""
    return _two(SOFTPLUS, real_logits, fake_logits, out, (-1, 0), (1, 0))


def generator_loss_grad(fake_logits, out=None):
    """[GAN] section 3, non-saturating, on the CPU, arguments as in `ref.gan.generator_loss_grad`."""
    return _one(SOFTPLUS, fake_logits, out, (-1, 0))


def generator_loss_saturating_grad(fake_logits, out=None):
    """[GAN] eq. 1 as G sees it on the CPU, arguments as in `ref.gan.generator_loss_saturating_grad`."""
    return _one(SOFTPLUS, fake_logits, out, (1, 0), -1)


def hinge_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[SN] eq. 16, negated, on the CPU, arguments as in `ref.gan.hinge_discriminator_loss_grad`."""
    return _two(HINGE, real_logits, fake_logits, out, (-1, 1), (1, 1))


def hinge_generator_loss_grad(fake_logits, out=None):
    """[SN] eq. 17 on the CPU, arguments as in `ref.gan.hinge_generator_loss_grad`."""
    return _one(LINE, fake_logits, out, (-1, 0))


def least_squares_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[LSGAN] eq. 2 with a = 0, b = 1 on the CPU, arguments as in `ref.gan.least_squares_discriminator_loss_grad`."""
    return _two(SQUARE, real_logits, fake_logits, out, (1, -1), (1, 0))


def least_squares_generator_loss_grad(fake_logits, out=None):
    """[LSGAN] eq. 2 with c = 1 on the CPU, arguments as in `ref.gan.least_squares_generator_loss_grad`."""
    return _one(SQUARE, fake_logits, out, (1, -1))


def wasserstein_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[WGAN] eq. 3, negated, on the CPU, arguments as in `ref.gan.wasserstein_discriminator_loss_grad`."""
    return _two(LINE, real_logits, fake_logits, out, (-1, 0), (1, 0))


def wasserstein_generator_loss_grad(fake_logits, out=None):
    """[WGAN] eq. 3 as G sees it on the CPU, arguments as in `ref.gan.wasserstein_generator_loss_grad`."""
    return _one(LINE, fake_logits, out, (-1, 0))


def _one(kernel, fake_logits, out, place, sign=1):
    """sign mean(F(slope logit + shift)), a float, and its gradient. place: slope and shift."""
    shape, dtype = engine.same(fake_logits=fake_logits)
    engine.some(fake_logits=fake_logits)
    memory, how = engine.output(out, shape, dtype, logits := engine.flat(fake_logits))
    return sign * _mean(kernel, memory, logits, place, sign, how), engine.finish(memory, out, shape)


def _two(kernel, real_logits, fake_logits, out, real_place, fake_place):
    """The sum of two means, and the gradients in real and in fake logits. real_place, fake_place: slope and shift."""
    real_shape, dtype = engine.same(real_logits=real_logits)
    fake_shape, other = engine.same(fake_logits=fake_logits)
    if other != dtype:
        raise TypeError(f"fake_logits: expected a NumPy array of {dtype} like real_logits, got ndarray of {other}")
    engine.some(real_logits=real_logits, fake_logits=fake_logits)
    out = (None, None) if out is None else out
    engine.apart(out)
    real, fake = engine.flat(real_logits), engine.flat(fake_logits)
    real_memory, real_how = engine.output(out[0], real_shape, dtype, real)
    fake_memory, fake_how = engine.output(out[1], fake_shape, dtype, fake)
    if np.may_share_memory(real_memory, fake):  # which is read after that is written
        fake = fake.copy()
    loss = _mean(kernel, real_memory, real, real_place, 1, real_how)
    loss += _mean(kernel, fake_memory, fake, fake_place, 1, fake_how)
    return loss, engine.finish(real_memory, out[0], real_shape), engine.finish(fake_memory, out[1], fake_shape)


def _mean(kernel, memory, logits, place, sign, how):
    """mean(F(slope logit + shift)) and, into memory, sign times its gradient. place: slope and shift."""
    slope, shift = place
    n = logits.size
    u, partial = (float(slope), float(shift), sign * slope / n), np.empty(reduce.segments(n))
    engine.run(kernel, n, how, reduce.NO_TABLE, n, u, partial, memory, logits, parts=partial.size)
    with np.errstate(invalid="ignore"):  # inf - inf
        return float(np.add.reduce(partial) / n)
