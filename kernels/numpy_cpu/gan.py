"""The losses of `ref.gan` with their gradients, means of F(slope logits + shift). `out` takes gradients."""
import functools

import numpy as np

from kernels.numpy_cpu.arrays import copy, softplus


def hinge(u, out, scratch):
    """max(u, 0) and its derivative. u: array. out: of the derivative. scratch: arrays to work in."""
    return np.maximum(u, 0, out=scratch[0]), copy(out, np.greater(u, 0))


def square(u, out, scratch):
    """u^2 / 2 and its derivative. u, out, scratch: as in `hinge`."""
    return np.multiply(np.multiply(u, u, out=scratch[0]), u.dtype.type(0.5), out=scratch[0]), copy(out, u)


def line(u, out, scratch):
    """u and its derivative. u, out, scratch: as in `hinge`."""
    return u, copy(out, 1)


LOSSES = {  # F; slope and shift for real and fake, or for fake; the sign before the mean
    "discriminator_loss": (softplus, [(-1, 0), (1, 0)], 1),
    "generator_loss": (softplus, [(-1, 0)], 1),
    "generator_loss_saturating": (softplus, [(1, 0)], -1),
    "hinge_discriminator_loss": (hinge, [(-1, 1), (1, 1)], 1),
    "hinge_generator_loss": (line, [(-1, 0)], 1),
    "least_squares_discriminator_loss": (square, [(1, -1), (1, 0)], 1),
    "least_squares_generator_loss": (square, [(1, -1)], 1),
    "wasserstein_discriminator_loss": (line, [(-1, 0), (1, 0)], 1),
    "wasserstein_generator_loss": (line, [(-1, 0)], 1),
}


def loss_grad(name, real_logits=None, fake_logits=None, out=None, scratch=None):
    """A loss of `ref.gan` and its gradient in the logits' dtype. name: of LOSSES. real_logits, fake_logits: as there;
    where there is one, either. scratch: for each three arrays like it to work in, or None."""
    curve, places, sign = LOSSES[name]
    logits = [x for x in (real_logits, fake_logits) if x is not None]
    outs = [np.empty_like(x) for x in logits] if out is None else out if len(logits) > 1 else [out]
    loss = 0.0
    for i, (x, (slope, shift), derivative) in enumerate(zip(logits, places, outs, strict=True)):
        u, *more = [np.empty_like(x) for _ in range(3)] if scratch is None else scratch[i]
        if (slope, shift) == (1, 0):
            u = x
        else:
            np.add(np.multiply(x, x.dtype.type(slope), out=u), x.dtype.type(shift), out=u)
        value, derivative = curve(u, derivative, more)
        loss += sign * float(np.mean(value))
        np.multiply(derivative, x.dtype.type(sign * slope / x.size), out=derivative)
    return loss, *outs


globals().update({f"{name}_grad": functools.partial(loss_grad, name) for name in LOSSES})
