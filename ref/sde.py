"""Diffusion in continuous time: the VP and VE equations, the two reverse processes, and the exact likelihood of one of
them.

t in [0, 1] is a float, or (B,) floats; t = 0 is data, t = 1 is noise. An SDE is dx = f(x, t) dt + g(t) dw, of drift f
and diffusion g, a deviation per root of time; its marginal q(x_t | x0) = N(mean x0, std^2 I), std a deviation. float64,
B examples first.

Papers
    [SDE]     Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
    [FFJORD]  Grathwohl et al., "FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models", 2019
    [RK]      Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I", 1993
"""
import itertools
from decimal import localcontext

import numpy as np

from ref.shapes import DIGITS, decimals, float64, number, per_example, same_shape, unit_interval


def vp_drift(x, t, beta_min=0.1, beta_max=20.0):
    """[SDE] eq. 11, variance preserving:  f(x, t) = -beta(t) x / 2,   beta(t) = beta_min + t (beta_max - beta_min).

    x: (B, ...). t: in [0, 1], one or (B,). beta_min, beta_max: the rates at t = 0 and 1, 0 < beta_min <= beta_max.
    Returns f (B, ...) float64.
    Raises ValueError where t is outside [0, 1] or of another shape, or not 0 < beta_min <= beta_max.
    """
    x = float64(x)
    return -0.5 * per_example(_beta(t, beta_min, beta_max), x, "t") * x


def vp_diffusion(t, beta_min=0.1, beta_max=20.0):
    """[SDE] eq. 11:  g(t) = sqrt(beta(t)).

    t, beta_min, beta_max: as in `vp_drift`.
    Returns g of the shape of t, float64.
    Raises as `vp_drift` does.
    """
    return np.sqrt(_beta(t, beta_min, beta_max))


def vp_marginal(t, beta_min=0.1, beta_max=20.0):
    """q(x_t | x0) of the VP equation, [SDE] eq. 29 with the linear beta of its appendix C:

        mean = e^(-B / 2),   std = sqrt(1 - e^-B)
        B = integral of beta from 0 to t = t beta_min + t^2 (beta_max - beta_min) / 2

    mean^2 is what DDPM calls abar. t, beta_min, beta_max: as in `vp_drift`.
    Returns mean, which multiplies x0, and std, each of the shape of t, float64.
    Raises as `vp_drift` does.
    """
    t, beta_min, beta_max = unit_interval(t, "t"), number(beta_min, "beta_min"), number(beta_max, "beta_max")
    _beta(t, beta_min, beta_max)
    B = t * beta_min + t**2 * (beta_max - beta_min) / 2
    with localcontext(DIGITS):  # what B lost by rounding, which in e^(-B / 2) would count B / 2 times
        u, low, high = decimals(np.real(t)), decimals(beta_min), decimals(beta_max)
        rest = np.asarray(u * low + u**2 * (high - low) / 2 - decimals(np.real(B)), np.float64)
    return np.exp(-B / 2) * (1 - rest / 2), np.sqrt(-np.expm1(-B))


def ve_drift(x, t):
    """[SDE] eq. 9, variance exploding:  f(x, t) = 0.

    x: (B, ...). t: in [0, 1], one or (B,).
    Returns f (B, ...) float64.
    Raises ValueError where t is outside [0, 1] or of another shape.
    """
    x = float64(x)
    return 0 * per_example(unit_interval(t, "t"), x, "t") * x


def ve_diffusion(t, sigma_min=0.01, sigma_max=50.0):
    """[SDE] eq. 9, g = sqrt(d sigma^2 / dt), with the geometric sigma of its appendix C:

        sigma(t) = sigma_min (sigma_max / sigma_min)^t,   g(t) = sigma(t) sqrt(2 ln(sigma_max / sigma_min))

    t: in [0, 1], one or (B,). sigma_min, sigma_max: the noise at t = 0 and 1, 0 < sigma_min < sigma_max.
    Returns g of the shape of t, float64.
    Raises ValueError where t is outside [0, 1], or not 0 < sigma_min < sigma_max.
    """
    t = unit_interval(t, "t")
    sigma_min, sigma_max, log_ratio = _sigmas(sigma_min, sigma_max)
    return sigma_min * (sigma_max / sigma_min) ** t * np.sqrt(2 * log_ratio)


def ve_marginal(t, sigma_min=0.01, sigma_max=50.0):
    """q(x_t | x0) of the VE equation, [SDE] eq. 29:  mean = 1,   std = sqrt(sigma(t)^2 - sigma(0)^2),  sigma as in
    `ve_diffusion`.

    So std(0) = 0, data at t = 0. The paper's appendix C takes sigma(0) = 0 in it: std(t) = sigma(t) there for t > 0,
    which jumps to sigma_min right after 0.

    t, sigma_min, sigma_max: as in `ve_diffusion`.
    Returns mean, which multiplies x0, and std, each of the shape of t, float64.
    Raises as `ve_diffusion` does.
    """
    t = unit_interval(t, "t")
    sigma_min, sigma_max, log_ratio = _sigmas(sigma_min, sigma_max)
    # (sigma(t) / sigma_min)^2 - 1: near 0 from its logarithm, far from it by the power
    u = 2 * t * log_ratio
    growth = np.where(u < 1, np.expm1(np.minimum(u, 1)), (sigma_max / sigma_min) ** (2 * t) - 1)
    return np.ones(t.shape)[()], sigma_min * np.sqrt(growth)


def reverse_drift(f, g, score):
    """The drift of the SDE that runs from noise to data, [SDE] eq. 6:  f - g^2 score.

    With it, dx = (f - g^2 score) dt + g dw, for dt < 0 and w a Wiener process backwards in time.
    f: (B, ...), the drift at (x, t). g: the diffusion at t, one or (B,). score: (B, ...), grad log p_t(x).
    Returns (B, ...) float64.
    Raises ValueError where shapes differ.
    """
    f, score = same_shape(f=f, score=score)
    return f - per_example(g, f, "g") ** 2 * score


def probability_flow_drift(f, g, score):
    """The drift of the ODE with the same marginals, [SDE] eq. 13:  f - g^2 score / 2.

    f, g, score: as in `reverse_drift`.
    Returns dx/dt (B, ...) float64.
    Raises as `reverse_drift` does.
    """
    f, score = same_shape(f=f, score=score)
    return f - per_example(g, f, "g") ** 2 * score / 2


def drift_and_jvp(drift, x, t, probe, h=1e-4):
    """A drift, and its Jacobian times a probe by the central difference (drift(x + h probe) - drift(x - h probe)) / (2
    h), for the `log_likelihood` of a drift without a hand-written derivative. Off by O(h^2), and by rounding of the
    drift over h.

    drift: callable (x, t) -> dx/dt (B, ...). x, probe: (B, ...). t: float. h: > 0.
    Returns drift, J probe, each (B, ...) float64.
    Raises ValueError where shapes differ or h <= 0.
    """
    (x, probe), h = same_shape(x=x, probe=probe), number(h, "h")
    if not h > 0:
        raise ValueError(f"h: expected a positive number, got {h}")
    return drift(x, t), (drift(x + h * probe, t) - drift(x - h * probe, t)) / (2 * h)


def log_likelihood(drift_jvp, x, times, probe, prior_std=1.0):
    """log p(x) of the data that a probability-flow ODE makes of N(0, prior_std^2 I), by the instantaneous change of
    variables, [SDE] eq. 39:

        log p(x(t_0)) = log N(x(t_n); 0, prior_std^2 I) + integral from t_0 to t_n of div f(x(t), t) dt

    The divergence is probe . J probe ([SDE] eq. 40, Hutchinson's), with one probe for the whole solve as in [FFJORD].
    It is unbiased for probes of mean 0 and covariance I, and exact for entries of +-1 where J is diagonal. For the
    exact divergence of any J, give every example D times, with the D probes sqrt(D) e_i: the mean of the D results is
    exact.
    Solved by the classical Runge-Kutta method, [RK] chapter II, table 1.2, of order 4 in the steps between the times.

    drift_jvp: callable (x, t, probe) -> dx/dt, J probe; or probe^T J, which serves as well; each (B, ...), t a float.
    x, probe: (B, ...). times: (n + 1,) ascending, n >= 1, from data to noise. prior_std: > 0; 1 for VP, about sigma_max
    for VE.
    Returns log p (B,) float64, in nats; see `bits_per_dimension`.
    Raises ValueError where shapes differ, times do not ascend or prior_std <= 0.
    """
    (x, probe), prior_std = same_shape(x=x, probe=probe), number(prior_std, "prior_std")
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or times.size < 2 or not np.all(np.diff(times) > 0):
        raise ValueError(f"times: expected shape (n + 1,) with n >= 1, ascending from data to noise, got {times}")
    if not prior_std > 0:
        raise ValueError(f"prior_std: expected a positive number, got {prior_std}")
    axes = tuple(range(1, x.ndim))

    def slopes(x, t):
        f, jp = drift_jvp(x, t, probe)
        f, jp, _ = same_shape(drift=f, jvp=jp, x=x)
        return f, np.sum(probe * jp, axis=axes)

    divergence = np.zeros(x.shape[:1])
    for t, u in itertools.pairwise(times.tolist()):
        h, middle = u - t, (t + u) / 2
        f1, d1 = slopes(x, t)
        f2, d2 = slopes(x + h / 2 * f1, middle)
        f3, d3 = slopes(x + h / 2 * f2, middle)
        f4, d4 = slopes(x + h * f3, u)
        x = x + h / 6 * (f1 + 2 * f2 + 2 * f3 + f4)
        divergence = divergence + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    prior = -0.5 * (x / prior_std) ** 2 - np.log(prior_std) - 0.5 * np.log(2 * np.pi)
    return np.sum(prior, axis=axes) + divergence


def bits_per_dimension(nats, dims, bin_width=1.0):
    """-log2 of the probability of a bin of the data, for each dimension (BPD), from the log-density at it:

        bits = -nats / (dims ln 2) - log2(bin_width)

    Spread the data evenly over their bins before `log_likelihood`, and the mean of this bounds the bits of the levels
    themselves ([SDE] section 4.3). Levels in [-1, 1] as `discretized_gaussian_log_likelihood` has them are 2 / 255
    apart.

    nats: log-densities, any shape. dims: elements of an example, >= 1. bin_width: > 0; 1 leaves the bits of the
    density.
    Returns bits per dimension, of the shape of nats, float64.
    Raises ValueError where dims < 1 or bin_width <= 0.
    """
    dims, bin_width = number(dims, "dims"), number(bin_width, "bin_width")
    if not dims >= 1 or not bin_width > 0:
        raise ValueError(f"expected dims >= 1 and bin_width > 0, got dims={dims}, bin_width={bin_width}")
    return -np.asarray(nats, np.float64) / (dims * np.log(2.0)) - np.log2(bin_width)


def _beta(t, beta_min, beta_max):
    beta_min, beta_max = number(beta_min, "beta_min"), number(beta_max, "beta_max")
    if not 0 < beta_min <= beta_max < np.inf:
        raise ValueError(f"expected 0 < beta_min <= beta_max < inf, got {beta_min} and {beta_max}")
    return beta_min + unit_interval(t, "t") * (beta_max - beta_min)


def _sigmas(sigma_min, sigma_max):
    """Both, and ln(sigma_max / sigma_min), which keeps its digits where they are near each other."""
    sigma_min, sigma_max = number(sigma_min, "sigma_min"), number(sigma_max, "sigma_max")
    if not 0 < sigma_min < sigma_max < np.inf:
        raise ValueError(f"expected 0 < sigma_min < sigma_max < inf, got {sigma_min} and {sigma_max}")
    return sigma_min, sigma_max, np.log1p((sigma_max - sigma_min) / sigma_min)
