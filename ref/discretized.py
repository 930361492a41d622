"""The likelihood of a discretised Gaussian: the probability of one of 256 levels.

float64. B examples first, then any data axes. A log_scale is the logarithm of a deviation.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
"""
from fractions import Fraction

import numpy as np

from ref.numerics import erfcx, two_sum
from ref.shapes import float64, same_shape

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
HALF = 1 / 255  # of a bin's width, and what rounding it to float64 lost
HALF_REST = float(Fraction(1, 255) - Fraction(HALF))


def discretized_gaussian_log_likelihood(x, means, log_scales):
    """The logarithm of the probability that a Gaussian gives to the bin of x, [DDPM] eq. 13, for 256 levels in [-1, 1]:

        log P(x) = log integral from x - 1/255 to x + 1/255 of N(u; mean, e^(2 log_scale)) du

    where the bins of -1 and 1 reach to -inf and inf, so that the 256 probabilities add to 1. Nothing is approximated:
    the error is what rounding e^-log_scale does, for any deviation, in the bins at the centre and 1e6 deviations away.
    x within 0.001 of an end counts as the end, for levels in half precision.

    x: (B, ...) in [-1, 1]; the levels are 2 k / 255 - 1. means: (B, ...). log_scales: (B, ...), of deviations.
    Returns log P (B, ...) float64, in nats.
    Raises ValueError where shapes differ or an x is outside [-1, 1].
    """
    bin_, log_scales = _bin(x, means, log_scales), float64(log_scales)
    peak, mass, _, narrow, lost = _mass(**bin_)
    sure = np.real(lost) < 0.5  # near a probability of 1 its logarithm is what it lacks
    wide = np.where(sure, np.log1p(-np.where(sure, lost, 0)), np.log(np.where(sure, 1, mass)))
    # A narrow bin's mass is nearly its width times a density, whose logarithm is had without e^-log_scale
    flat = -log_scales + np.log(np.where(narrow, mass, 1) / bin_["h"] * HALF)
    return peak + np.where(narrow & (np.real(log_scales) > 1), flat, wide)


def discretized_gaussian_log_likelihood_backward(dout, x, means, log_scales):
    """Gradients of `discretized_gaussian_log_likelihood` in the mean and the log_scale, from the density phi at the
    ends a < b of the bin, in deviations from the mean:

        dmean = (phi(a) - phi(b)) / (P e^log_scale) dout,    dlog_scale = (a phi(a) - b phi(b)) / P dout

    dout: (B, ...). x, means, log_scales: as in `discretized_gaussian_log_likelihood`.
    Returns dmeans, dlog_scales, each (B, ...) float64.
    Raises as `discretized_gaussian_log_likelihood` does.
    """
    dout, x, means, log_scales = same_shape(dout=dout, x=x, means=means, log_scales=log_scales)
    bin_ = _bin(x, means, log_scales)
    _, mass, at_a, narrow, _ = _mass(**bin_)
    m, h, a, b, end = (bin_[name] for name in ("m", "h", "a", "b", "end"))
    at_a = dout * (at_a / mass)
    step = np.where(end, 0.0, -2 * m * h)  # phi(b) = e^step phi(a), but for the open bins, whose b is infinite
    dm = at_a * np.where(end, -1.0, np.expm1(step))
    at_b = at_a * np.where(end, 0.0, np.exp(step))
    # a phi(a) - b phi(b): from the centre where a and b are near each other
    dlog_scales = np.where(narrow, -m * dm - h * (at_a + at_b), a * at_a - np.where(end, 0.0, b) * at_b)
    return -bin_["side"] * dm * bin_["precision"], dlog_scales


def _bin(x, means, log_scales):
    """The bin of x in deviations from the mean: its centre m, half width h, and ends a and b, mirrored where side = -1,
    so that m >= 0 for a bin with two ends; where `end`, the bin has one end, a, and reaches from it to infinity."""
    x, means, log_scales = same_shape(x=x, means=means, log_scales=log_scales)
    if np.any(np.abs(x) > 1):
        raise ValueError(f"x: expected values in [-1, 1], got {x.min()} to {x.max()}")
    end = np.abs(x) > 0.999
    centre, rest = two_sum(x, -means)
    side = np.where(np.where(end, x, np.real(centre)) < 0, -1.0, 1.0)
    precision = np.exp(-np.where(np.abs(np.real(log_scales)) < 700, log_scales, 700 * np.sign(np.real(log_scales))))
    # An end may be much nearer to the mean than the centre is: what rounding the centre lost counts there
    (a, a_rest), (b, b_rest) = two_sum(side * centre, -HALF), two_sum(side * centre, HALF)
    a, b = a + (a_rest + (side * rest - HALF_REST)), b + (b_rest + (side * rest + HALF_REST))
    return {"m": side * centre * precision, "h": HALF * precision, "a": a * precision, "b": b * precision, "end": end,
            "side": side, "precision": precision}


def _mass(m, h, a, b, end, side, precision):
    """Phi(b) - Phi(a), with b = infinity where `end`, as e^peak mass; phi(a) / e^peak; where the bin is narrow; and 1
    less the probability where it has the mean inside, else 1.

    A narrow bin is a sum of positive terms, Gauss and Legendre's, about phi(m). One that lies wholly on the right is
    the difference of two tails, of which the further is at most a tenth. What is left is 1 less both tails.
    """
    narrow = ~end & (np.real(h) <= 1) & (np.real(m * h) <= 4)
    right = ~narrow & (np.real(a) >= 0)
    mn, hn = np.where(narrow, m, 0), np.where(narrow, h, 0)
    inside = hn * sum(w * np.exp(-hn * u * (mn + hn * u / 2)) for u, w in zip(NODES, WEIGHTS)) / np.sqrt(2 * np.pi)
    tail_a, tail_b = (erfcx(np.where(np.real(e) < 0, -e, e) / np.sqrt(2)) / 2 for e in (a, b))  # over e^(-e^2 / 2)
    tail_b = np.where(end, 0, tail_b)
    outside = tail_a - np.exp(np.where(right & ~end, -2 * m * h, 0)) * tail_b
    both = np.exp(-(a**2) / 2) * tail_a + np.exp(-(b**2) / 2) * tail_b
    peak = np.where(narrow, -(m**2) / 2, np.where(right, -(a**2) / 2, 0))
    mass = np.where(narrow, inside, np.where(right, outside, 1 - both))
    at_a = np.exp(np.where(narrow, hn * (mn - hn / 2), np.where(right, 0, -(a**2) / 2))) / np.sqrt(2 * np.pi)
    return peak, mass, at_a, narrow, np.where(narrow | right, 1, both)
