"""Diffusion by noise level sigma: x = x0 + sigma eps, preconditioning, and conversions to and from alpha-bar.

Everything here is float64. sigma is a deviation; its square is the variance of the noise. A state of the
variance-preserving diffusion is x_t = sqrt(abar_t) (x0 + sigma eps), with the same x0 and eps.

Papers
    [EDM]  Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
    [SDE]  Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
"""
import numpy as np

from ref.shapes import number, per_example, same_shape, unit_interval

ROUNDING = 2.0**-48  # how far, relative to it, a level may be past an end of its range and count as the end


def scalings(sigma, sigma_data=0.5):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), [EDM] eq. 7 and table 1:

        c_skip  = sigma_data^2 / (sigma^2 + sigma_data^2)
        c_out   = sigma sigma_data / sqrt(sigma^2 + sigma_data^2)
        c_in    = 1 / sqrt(sigma^2 + sigma_data^2)
        c_noise = ln(sigma) / 4

    so that the input and the target of F have unit variance. sigma: > 0, any shape; inf is taken as its limit.
    sigma_data: > 0, the data's deviation.
    Returns c_skip, c_out, c_in, c_noise, each of the shape of sigma, float64.
    Raises ValueError where sigma or sigma_data is not positive, or sigma_data is infinite.
    """
    sigma, sigma_data = _positive(sigma, sigma_data)
    root = np.hypot(sigma, sigma_data)  # no square overflows
    c_out = 1 / np.hypot(1 / sigma, 1 / sigma_data)  # where sigma is infinite it is sigma_data
    return (sigma_data / root) ** 2, c_out, 1 / root, np.log(sigma) / 4


def loss_weight(sigma, sigma_data=0.5):
    """The weight of |D - x0|^2, [EDM] table 1:  lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, which is 1 /
    c_out^2.

    sigma: > 0, any shape; at inf it is 1 / sigma_data^2. sigma_data: > 0.
    Returns weights of the shape of sigma, float64.
    Raises as `scalings` does.
    """
    sigma, sigma_data = _positive(sigma, sigma_data)
    with np.errstate(over="ignore"):
        return (1 / sigma) ** 2 + np.float64(1 / sigma_data) ** 2


def sigma_from_abar(abar):
    """sigma = sqrt((1 - abar) / abar), the noise next to a signal of 1.

    abar: any shape, in [0, 1]. Returns sigma of that shape, float64; inf at abar = 0. Raises ValueError for a value
    outside [0, 1].
    """
    abar = unit_interval(abar, "abar")
    with np.errstate(divide="ignore"):
        return np.sqrt(1 - abar) / np.sqrt(abar)


def abar_from_sigma(sigma):
    """The inverse of `sigma_from_abar`:  abar = 1 / (1 + sigma^2).

    sigma: any shape, >= 0. Returns abar of that shape, float64. Raises ValueError for a negative value.
    """
    return 1 / np.hypot(1, _level(sigma)) ** 2  # the square of sigma may overflow


def sigma_at(t, abar):
    """The noise level at a time, between two of them on the straight line of sigma.

    t: any shape, real, in [0, T]. abar: (T + 1,), strictly descending, abar[T] > 0.
    Returns sigma of the shape of t, float64; sigma_from_abar(abar[t]) at whole times.
    Raises ValueError for t outside [0, T], or an abar that does not descend or reaches 0.
    """
    sigmas = _grid(abar)
    t = np.asarray(t, np.float64)
    if not np.all((t >= 0) & (t <= sigmas.size - 1)):
        raise ValueError(f"t: expected 0 <= t <= T = {sigmas.size - 1}, got {t}")
    return np.interp(t, np.arange(sigmas.size), sigmas)


def time_at(sigma, abar):
    """The inverse of `sigma_at`: the time, whole or not, at which the noise is sigma. A network trained on whole times
    is called there.

    sigma: any shape, in [0, sigma_from_abar(abar[T])]; above it by rounding alone it counts as the end. abar: as in
    `sigma_at`.
    Returns t of the shape of sigma, float64, in [0, T].
    Raises ValueError for a sigma that abar does not reach, or an abar that does not descend or reaches 0.
    """
    sigmas, sigma = _grid(abar), np.asarray(sigma, np.float64)
    if not np.all((sigma >= 0) & (sigma <= sigmas[-1] * (1 + ROUNDING))):
        raise ValueError(f"sigma: expected 0 <= sigma <= {sigmas[-1]} = sigma_T, got {sigma}")
    return np.interp(sigma, sigmas, np.arange(sigmas.size))


def vp_from_ve(x, sigma):
    """x_t = x / sqrt(1 + sigma^2), the variance-preserving state at abar_from_sigma(sigma); what a network for it
    reads.

    x: (B, ...), x0 + sigma eps. sigma: in [0, inf), a number or (B,).
    Returns (B, ...) float64. Raises ValueError where sigma is negative, infinite or does not fit.
    """
    x = np.asarray(x, np.float64)
    return x / np.hypot(1, _finite(per_example(sigma, x, "sigma")))


def ve_from_vp(xt, sigma):
    """The inverse of `vp_from_ve`:  x = sqrt(1 + sigma^2) x_t.

    xt: (B, ...). sigma: in [0, inf), a number or (B,).
    Returns (B, ...) float64. Raises ValueError where sigma is negative, infinite or does not fit.
    """
    xt = np.asarray(xt, np.float64)
    return xt * np.hypot(1, _finite(per_example(sigma, xt, "sigma")))


def heun_step(x, denoised, denoised_next, sigma, sigma_next):
    """The corrected step of [EDM] algorithm 1, lines 4 to 8, from the two predictions of x0 that it makes:

        d_cur = (x - denoised) / sigma,   x_euler = x + (sigma_next - sigma) d_cur
        d_prime = (x_euler - denoised_next) / sigma_next
        x_next = x + (sigma_next - sigma) (d_cur + d_prime) / 2

    computed as the one sum that this is, so that the parts with x do not cancel:

        x_next = a x + h / sigma (2 - 1 / a) denoised + h / sigma_next denoised_next
        a = sigma_next / sigma,   h = (sigma - sigma_next) / 2

    x, denoised: (B, ...), at sigma. denoised_next: (B, ...), the prediction at x_euler and sigma_next. sigma,
    sigma_next: numbers or (B,), 0 < sigma_next < sigma < inf; at sigma_next = 0 the step is x_euler, which is denoised.
    Returns x_next (B, ...) float64.
    Raises ValueError where shapes differ or not 0 < sigma_next < sigma < inf.
    """
    x, denoised, denoised_next = same_shape(x=x, denoised=denoised, denoised_next=denoised_next)
    sigma, sigma_next = per_example(sigma, x, "sigma"), per_example(sigma_next, x, "sigma_next")
    if not np.all((sigma_next > 0) & (sigma_next < sigma) & (sigma < np.inf)):
        raise ValueError(f"sigma_next: expected 0 < sigma_next < sigma, got sigma = {sigma.ravel()} and sigma_next = "
                         f"{sigma_next.ravel()}")
    half = (sigma - sigma_next) / 2
    first = half / sigma * ((2 * sigma_next - sigma) / sigma_next)
    return sigma_next / sigma * x + first * denoised + half / sigma_next * denoised_next


def ancestral_step(x, denoised, sigma, sigma_next, z, eta=1.0):
    """One ancestral step by noise level, [SDE] eq. 47, in the form that has eta of DDIM:

        sigma_up = eta sigma_next sqrt(sigma^2 - sigma_next^2) / sigma,   sigma_down = sqrt(sigma_next^2 - sigma_up^2)
        x_next = denoised + sigma_down / sigma (x - denoised) + sigma_up z

    It is `ref.diffusion.ddim_step` of `vp_from_ve`: eta = 1 is DDPM's step, eta = 0 Euler's. z is ignored at
    sigma_next = 0.

    x, denoised, z: (B, ...). sigma, sigma_next: numbers or (B,), 0 <= sigma_next < sigma < inf. eta: in [0, 1].
    Returns x_next (B, ...) float64.
    Raises ValueError where shapes differ, not 0 <= sigma_next < sigma < inf, or for another eta.
    """
    (x, denoised, z), eta = same_shape(x=x, denoised=denoised, z=z), number(eta, "eta")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected 0 <= eta <= 1, got {eta}")
    sigma, sigma_next = per_example(sigma, x, "sigma"), per_example(sigma_next, x, "sigma_next")
    if not np.all((sigma_next >= 0) & (sigma_next < sigma) & (sigma < np.inf)):
        raise ValueError(f"sigma_next: expected 0 <= sigma_next < sigma, got sigma = {sigma.ravel()} and sigma_next = "
                         f"{sigma_next.ravel()}")
    ratio = sigma_next / sigma
    lost = (sigma - sigma_next) / sigma * (1 + ratio)  # 1 - ratio^2
    # sigma_down / sigma, whose square is a sum, and 1 less that as (1 - down^2) / (1 + down)
    down = ratio * np.sqrt((1 - eta) * (1 + eta) + (eta * ratio) ** 2)
    up = lost * (1 + (eta * ratio) ** 2) / (1 + down)
    return up * denoised + down * x + eta * sigma_next * np.sqrt(lost) * np.where(sigma_next > 0, z, 0.0)


def _positive(sigma, sigma_data):
    sigma, sigma_data = np.asarray(sigma, np.float64), number(sigma_data, "sigma_data")
    if not np.all(sigma > 0) or not 0 < sigma_data < np.inf:
        raise ValueError(f"expected sigma > 0 and 0 < sigma_data < inf, got {sigma} and {sigma_data}")
    return sigma, sigma_data


def _level(sigma):
    sigma = np.asarray(sigma, np.float64)
    if not np.all(sigma >= 0):
        raise ValueError(f"sigma: expected values >= 0, got {sigma}")
    return sigma


def _finite(sigma):
    if not np.all((sigma >= 0) & (sigma < np.inf)):
        raise ValueError(f"sigma: expected values in [0, inf), got {np.ravel(sigma)}")
    return sigma


def _grid(abar):
    abar = np.asarray(abar, np.float64)
    if abar.ndim != 1 or abar.size < 2 or not np.all(np.diff(abar) < 0) or not abar[-1] > 0:
        raise ValueError(f"abar: expected shape (T + 1,), strictly descending to more than 0, got {abar}")
    return sigma_from_abar(abar)
