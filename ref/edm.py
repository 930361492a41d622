"""Diffusion by noise level sigma: x = x0 + sigma eps, preconditioning, and conversions to and from alpha-bar.

Everything here is float64. sigma is a deviation; its square is the variance of the noise. A state of the
variance-preserving diffusion is x_t = sqrt(abar_t) (x0 + sigma eps), with the same x0 and eps.

Papers
    [EDM]  Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
"""
import numpy as np

from ref.shapes import per_example, same_shape, unit_interval


def scalings(sigma, sigma_data=0.5):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), [EDM] eq. 7 and table 1:

        c_skip  = sigma_data^2 / (sigma^2 + sigma_data^2)
        c_out   = sigma sigma_data / sqrt(sigma^2 + sigma_data^2)
        c_in    = 1 / sqrt(sigma^2 + sigma_data^2)
        c_noise = ln(sigma) / 4

    so that the input and the target of F have unit variance. sigma: > 0, any shape. sigma_data: > 0, the data's
    deviation.
    Returns c_skip, c_out, c_in, c_noise, each of the shape of sigma, float64.
    Raises ValueError where sigma or sigma_data is not positive.
    """
    sigma = _positive(sigma, sigma_data)
    total = sigma**2 + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data / np.sqrt(total), 1 / np.sqrt(total), np.log(sigma) / 4


def loss_weight(sigma, sigma_data=0.5):
    """The weight of |D - x0|^2, [EDM] table 1:  lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, which is 1 /
    c_out^2.

    sigma: > 0, any shape. sigma_data: > 0.
    Returns weights of the shape of sigma, float64.
    Raises ValueError where sigma or sigma_data is not positive.
    """
    sigma = _positive(sigma, sigma_data)
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def sigma_from_abar(abar):
    """sigma = sqrt((1 - abar) / abar), the noise next to a signal of 1.

    abar: any shape, in [0, 1]. Returns sigma of that shape, float64; inf at abar = 0. Raises ValueError for a value
    outside [0, 1].
    """
    abar = unit_interval(abar, "abar")
    with np.errstate(divide="ignore"):
        return np.sqrt((1 - abar) / abar)


def abar_from_sigma(sigma):
    """The inverse of `sigma_from_abar`:  abar = 1 / (1 + sigma^2).

    sigma: any shape, >= 0. Returns abar of that shape, float64. Raises ValueError for a negative value.
    """
    return 1 / (1 + _level(sigma) ** 2)


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

    sigma: any shape, in [0, sigma_from_abar(abar[T])]. abar: as in `sigma_at`.
    Returns t of the shape of sigma, float64, in [0, T].
    Raises ValueError for a sigma that abar does not reach, or an abar that does not descend or reaches 0.
    """
    sigmas, sigma = _grid(abar), np.asarray(sigma, np.float64)
    if not np.all((sigma >= 0) & (sigma <= sigmas[-1])):
        raise ValueError(f"sigma: expected 0 <= sigma <= {sigmas[-1]} = sigma_T, got {sigma}")
    return np.interp(sigma, sigmas, np.arange(sigmas.size))


def vp_from_ve(x, sigma):
    """x_t = x / sqrt(1 + sigma^2), the variance-preserving state at abar_from_sigma(sigma); what a network for it
    reads.

    x: (B, ...), x0 + sigma eps. sigma: >= 0, a number or (B,).
    Returns (B, ...) float64. Raises ValueError where sigma is negative or does not fit.
    """
    x = np.asarray(x, np.float64)
    return x / np.sqrt(1 + per_example(_level(sigma), x, "sigma") ** 2)


def ve_from_vp(xt, sigma):
    """The inverse of `vp_from_ve`:  x = sqrt(1 + sigma^2) x_t.

    xt: (B, ...). sigma: >= 0, a number or (B,).
    Returns (B, ...) float64. Raises ValueError where sigma is negative or does not fit.
    """
    xt = np.asarray(xt, np.float64)
    return xt * np.sqrt(1 + per_example(_level(sigma), xt, "sigma") ** 2)


def heun_step(x, denoised, denoised_next, sigma, sigma_next):
    """The corrected step of [EDM] algorithm 1, lines 4 to 8, from the two predictions of x0 that it makes:

        d_cur = (x - denoised) / sigma,   x_euler = x + (sigma_next - sigma) d_cur
        d_prime = (x_euler - denoised_next) / sigma_next
        x_next = x + (sigma_next - sigma) (d_cur + d_prime) / 2

    x, denoised: (B, ...), at sigma. denoised_next: (B, ...), the prediction at x_euler and sigma_next. sigma,
    sigma_next:
    numbers or (B,), 0 < sigma_next < sigma; at sigma_next = 0 the step is x_euler, which is denoised.
    Returns x_next (B, ...) float64.
    Raises ValueError where shapes differ or not 0 < sigma_next < sigma.
    """
    x, denoised, denoised_next = same_shape(x=x, denoised=denoised, denoised_next=denoised_next)
    sigma, sigma_next = per_example(sigma, x, "sigma"), per_example(sigma_next, x, "sigma_next")
    if not np.all((sigma_next > 0) & (sigma_next < sigma) & (sigma < np.inf)):
        raise ValueError(f"sigma_next: expected 0 < sigma_next < sigma, got sigma = {sigma.ravel()} and sigma_next = "
                         f"{sigma_next.ravel()}")
    # Euler step
    d_cur = (x - denoised) / sigma
    x_euler = x + (sigma_next - sigma) * d_cur
    # Second-order correction
    d_prime = (x_euler - denoised_next) / sigma_next
    return x + (sigma_next - sigma) * (d_cur + d_prime) / 2


def _positive(sigma, sigma_data):
    sigma = np.asarray(sigma, np.float64)
    if not np.all(sigma > 0) or not sigma_data > 0:
        raise ValueError(f"expected sigma > 0 and sigma_data > 0, got {sigma} and {sigma_data}")
    return sigma


def _level(sigma):
    sigma = np.asarray(sigma, np.float64)
    if not np.all(sigma >= 0):
        raise ValueError(f"sigma: expected values >= 0, got {sigma}")
    return sigma


def _grid(abar):
    abar = np.asarray(abar, np.float64)
    if abar.ndim != 1 or abar.size < 2 or not np.all(np.diff(abar) < 0) or not abar[-1] > 0:
        raise ValueError(f"abar: expected shape (T + 1,), strictly descending to more than 0, got {abar}")
    return sigma_from_abar(abar)
