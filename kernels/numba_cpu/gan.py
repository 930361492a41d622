"""`ref.gan` on the CPU: each loss and its gradient in one pass over the logits.

Every loss is  sign mean(F(slope logit + shift))  for one of four F, or two such means added; one compiled function for each F
serves them all. Arguments are those of `ref.gan` (equations there), float32 or float64; real and fake of one dtype, of any two
shapes. `out`, where given, is an array like the logits, which it may be, or for two gradients a pair. Sums are float64, added in
one order. Errors as there, before anything is written.

Papers
    [GAN]      Goodfellow et al., "Generative Adversarial Nets", 2014
    [LSGAN]    Mao et al., "Least Squares Generative Adversarial Networks", 2017
    [WGAN]     Arjovsky, Chintala, Bottou, "Wasserstein Generative Adversarial Networks", 2017
    [SN]       Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018
"""
import numpy as np
from numba import njit

from kernels.numba_cpu import engine
from kernels.numba_cpu.math import HALF, ONE, ZERO, logistic
from kernels.numba_cpu.engine import COMPILE, INLINE
from kernels.numba_cpu.intrinsics import deliver, wide
from kernels.numba_cpu.vae import total


def discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[GAN] eq. 1, which D maximises, with its sign changed, and its gradients:  L = mean(softplus(-real_logits)) + mean(softplus(fake_logits)).

    real_logits, fake_logits: any shapes, at least one element each. Returns L (a float), dreal_logits, dfake_logits (in out where given).
    Raises as `ref.gan.discriminator_loss_grad`.
    """
    return _two(_softplus, real_logits, fake_logits, out, (-1, 0), (1, 0))


def generator_loss_grad(fake_logits, out=None):
    """[GAN] section 3, non-saturating, and its gradient:  L = mean(softplus(-fake_logits)).

    fake_logits: any shape, at least one element. Returns L (a float), dfake_logits (in out where given). Raises as `ref.gan.generator_loss_grad`.
    """
    return _one(_softplus, fake_logits, out, (-1, 0))


def generator_loss_saturating_grad(fake_logits, out=None):
    """[GAN] eq. 1 as G sees it, and its gradient:  L = -mean(softplus(fake_logits)).

    fake_logits: any shape, at least one element. Returns L (a float), dfake_logits (in out where given).
    Raises as `ref.gan.generator_loss_saturating_grad`.
    """
    return _one(_softplus, fake_logits, out, (1, 0), -1)


def hinge_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[SN] eq. 16, which D maximises, with its sign changed, and its gradients:  L = mean(max(0, 1 - real_logits)) + mean(max(0, 1 + fake_logits)).

    real_logits, fake_logits: any shapes, at least one element each. Returns L (a float), dreal_logits, dfake_logits (in out where given).
    Raises as `ref.gan.hinge_discriminator_loss_grad`.
    """
    return _two(_hinge, real_logits, fake_logits, out, (-1, 1), (1, 1))


def hinge_generator_loss_grad(fake_logits, out=None):
    """[SN] eq. 17, which G minimises, and its gradient:  L = -mean(fake_logits).

    fake_logits: any shape, at least one element. Returns L (a float), dfake_logits (in out where given). Raises as `ref.gan.hinge_generator_loss_grad`.
    """
    return _one(_line, fake_logits, out, (-1, 0))


def least_squares_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[LSGAN] eq. 2 with a = 0 for fake and b = 1 for real, and its gradients:  L = 1/2 mean((real_logits - 1)^2) + 1/2 mean(fake_logits^2).

    real_logits, fake_logits: any shapes, at least one element each. Returns L (a float), dreal_logits, dfake_logits (in out where given).
    Raises as `ref.gan.least_squares_discriminator_loss_grad`.
    """
    return _two(_square, real_logits, fake_logits, out, (1, -1), (1, 0))


def least_squares_generator_loss_grad(fake_logits, out=None):
    """[LSGAN] eq. 2 with c = 1, to be taken for real, and its gradient:  L = 1/2 mean((fake_logits - 1)^2).

    fake_logits: any shape, at least one element. Returns L (a float), dfake_logits (in out where given).
    Raises as `ref.gan.least_squares_generator_loss_grad`.
    """
    return _one(_square, fake_logits, out, (1, -1))


def wasserstein_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[WGAN] eq. 3, which the critic maximises, with its sign changed, and its gradients:  L = mean(fake_logits) - mean(real_logits).

    real_logits, fake_logits: any shapes, at least one element each. Returns L (a float), dreal_logits, dfake_logits (in out where given).
    Raises as `ref.gan.wasserstein_discriminator_loss_grad`.
    """
    return _two(_line, real_logits, fake_logits, out, (-1, 0), (1, 0))


def wasserstein_generator_loss_grad(fake_logits, out=None):
    """[WGAN] eq. 3 as G sees it, and its gradient:  L = -mean(fake_logits).

    fake_logits: any shape, at least one element. Returns L (a float), dfake_logits (in out where given).
    Raises as `ref.gan.wasserstein_generator_loss_grad`.
    """
    return _one(_line, fake_logits, out, (-1, 0))


def _one(kernel, fake_logits, out, place, sign=1):
    shape, dtype = engine.same(fake_logits=fake_logits)
    engine.some(fake_logits=fake_logits)
    logits = engine.flat(fake_logits)
    memory, how = engine.output(out, shape, dtype, logits)
    return sign * _mean(kernel, memory, logits, place, sign, how), engine.finish(memory, out, shape)


def _two(kernel, real_logits, fake_logits, out, real_place, fake_place):
    (real_shape, dtype), (fake_shape, other) = engine.same(real_logits=real_logits), engine.same(fake_logits=fake_logits)
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
    loss = _mean(kernel, real_memory, real, real_place, 1, real_how) + _mean(kernel, fake_memory, fake, fake_place, 1, fake_how)
    return loss, engine.finish(real_memory, out[0], real_shape), engine.finish(fake_memory, out[1], fake_shape)


def _mean(kernel, memory, logits, place, sign, how):
    """mean(F(slope logit + shift)) and, into memory, sign times its gradient. place: slope and shift."""
    slope, shift = place
    partial = np.empty(engine.segments(logits.size))
    engine.run(kernel, logits.size, memory, partial, logits, slope, shift, sign * slope / logits.size, how)
    with np.errstate(invalid="ignore"):  # inf - inf
        return float(partial.sum() / logits.size)


@njit(**INLINE)
def softplus(u):
    """log(1 + e^u), and sigmoid(u). u: a number of the kernel's dtype."""
    log, large, small = logistic(u)
    return (u + log, large) if u >= ZERO else (log, small)


@njit(**INLINE)
def hinge(u):
    """max(0, u), and 1 where u > 0, else 0. u: a number of the kernel's dtype; NaN stays in the first."""
    return ZERO if u <= ZERO else u, ONE if u > ZERO else ZERO


@njit(**INLINE)
def square(u):
    """u^2 / 2, and u. u: a number of the kernel's dtype."""
    return HALF * (u * u), u


@njit(**INLINE)
def line(u):
    """u, and 1. u: a number of the kernel's dtype."""
    return u, ONE


@njit(**INLINE)
def _rows(o, terms, logits, curve, slope, shift, c):
    for j in range(logits.size):
        value, derivative = curve(slope * logits[j] + shift)
        terms[j], o[j] = value, c * derivative


@njit(**INLINE)
def _pass(lo, hi, curve, out, partial, logits, slope, shift, c, how):
    """out = c F'(slope logits + shift), partial = the sums of F. curve: F and F'."""
    real = out.dtype.type
    slope, shift, c = real(slope), real(shift), real(c)
    chunk, terms = np.empty(engine.CHUNK, out.dtype), np.empty(engine.CHUNK, out.dtype)
    for first in range(lo, hi, engine.CHUNK):
        last = min(first + engine.CHUNK, hi)
        if how == engine.DIRECT:
            _rows(out[first:last], terms, logits[first:last], curve, slope, shift, c)
        else:
            _rows(chunk, terms, logits[first:last], curve, slope, shift, c)
            deliver(out, first, last, chunk, how)
        partial[first // engine.CHUNK] = total(terms[: last - first])


@njit(**COMPILE)
def _softplus(lo, hi, out, partial, logits, slope, shift, c, how):
    wide()
    _pass(lo, hi, softplus, out, partial, logits, slope, shift, c, how)


@njit(**COMPILE)
def _hinge(lo, hi, out, partial, logits, slope, shift, c, how):
    _pass(lo, hi, hinge, out, partial, logits, slope, shift, c, how)


@njit(**COMPILE)
def _square(lo, hi, out, partial, logits, slope, shift, c, how):
    _pass(lo, hi, square, out, partial, logits, slope, shift, c, how)


@njit(**COMPILE)
def _line(lo, hi, out, partial, logits, slope, shift, c, how):
    _pass(lo, hi, line, out, partial, logits, slope, shift, c, how)
