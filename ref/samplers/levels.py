"""Samplers by noise level, which descends to 0, and by flow time, which runs from 1 to 0. One flat function each.

Papers
    [EDM]  Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
    [RF]   Liu et al., "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2023
    [CM]   Song, Dhariwal, Chen, Sutskever, "Consistency Models", 2023
    [SDE]  Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
"""
import math
from itertools import pairwise

import numpy as np

from ref.edm import ROUNDING, ancestral_step, heun_step
from ref.shapes import descending, noise_of, number, numbers, output_of


def euler(denoise, x, sigmas):
    """[EDM] algorithm 1 without its correction:  x <- x + (sigma_next - sigma) d_cur,  d_cur = (x - denoise) / sigma.

    denoise: (x, sigma) -> x0_hat. x: (B, ...), x0 + sigmas[0] eps. sigmas: (n + 1,) descending, the last may be 0.
    Returns x at the last level (B, ...) float64, after n calls.
    Raises ValueError for sigmas that do not descend, or an output of another shape than x.
    """
    x, sigmas = np.asarray(x, np.float64), descending("sigmas", sigmas)
    for sigma, sigma_next in pairwise(sigmas):
        d_cur = (x - output_of("denoise", denoise(x, sigma), x)) / sigma
        x = x + (sigma_next - sigma) * d_cur
    return x


def euler_ancestral(denoise, x, sigmas, noise, eta=1.0):
    """Ancestral sampling by noise level, [SDE] eq. 47 from each level to the next: `ancestral_step`.

    denoise, x, sigmas: as in `euler`. noise: n or n - 1 of (B, ...), or None where eta = 0; none is added at the level
    0. eta: in [0, 1]; 0 is `euler`.
    Returns x at the last level (B, ...) float64, after n calls.
    Raises ValueError for sigmas that do not descend, missing noise, another eta or shape of an output.
    """
    x, sigmas, eta = np.asarray(x, np.float64), descending("sigmas", sigmas), number(eta, "eta")
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        z = noise_of(noise, i, x) if sigma_next > 0 and eta != 0 else np.zeros(x.shape)
        x = ancestral_step(x, output_of("denoise", denoise(x, sigma), x), sigma, sigma_next, z, eta)
    return x


def heun(denoise, x, sigmas, noise=None, s_churn=0, s_min=0, s_max=math.inf, s_noise=1):
    """[EDM] algorithm 2; with s_churn = 0 its algorithm 1, Heun's method of order 2 for the probability-flow ODE:

        gamma = min(s_churn / n, sqrt(2) - 1) where s_min <= sigma <= s_max, else 0
        sigma_hat = (1 + gamma) sigma,   x_hat = x + sqrt(sigma_hat^2 - sigma^2) s_noise noise[i]
        d_cur = (x_hat - denoise(x_hat, sigma_hat)) / sigma_hat,   x_next = x_hat + (sigma_next - sigma_hat) d_cur
        x_next <- heun_step(x_hat, denoise(x_hat, sigma_hat), denoise(x_next, sigma_next), sigma_hat, sigma_next)

    The last line is left out where sigma_next = 0.

    denoise: (x, sigma) -> x0_hat. x: (B, ...), x0 + sigmas[0] eps. sigmas: (n + 1,) descending, the last may be 0.
    noise: n of (B, ...), needed where gamma > 0 (also at the last step). s_churn, s_min, s_max, s_noise: >= 0.
    Returns x at the last level (B, ...) float64, after 2 n calls, one less where the last level is 0.
    Raises ValueError for sigmas that do not descend, s_churn or s_noise < 0, missing noise or another output's shape.
    """
    x, sigmas = np.asarray(x, np.float64), descending("sigmas", sigmas)
    s_churn, s_min, s_max, s_noise = numbers(s_churn=s_churn, s_min=s_min, s_max=s_max, s_noise=s_noise)
    if not s_churn >= 0 or not 0 <= s_noise < math.inf:
        raise ValueError(f"s_churn, s_noise: expected numbers >= 0, s_noise finite, got {s_churn} and {s_noise}")
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        # Churn: add noise, from sigma up to sigma_hat
        gamma = min(s_churn / (len(sigmas) - 1), math.sqrt(2) - 1) if s_min <= sigma <= s_max else 0
        sigma_hat, x_hat = (1 + gamma) * sigma, x
        if gamma > 0:
            more = gamma * (2 + gamma)  # sigma_hat^2 - sigma^2, in units of sigma^2
            x_hat = x + math.sqrt(more) * sigma * s_noise * noise_of(noise, i, x)
        # Euler step
        denoised = output_of("denoise", denoise(x_hat, sigma_hat), x)
        d_cur = (x_hat - denoised) / sigma_hat
        x_next = x_hat + (sigma_next - sigma_hat) * d_cur
        # Second-order correction
        if sigma_next > 0:
            denoised_next = output_of("denoise", denoise(x_next, sigma_next), x)
            x_next = heun_step(x_hat, denoised, denoised_next, sigma_hat, sigma_next)
        x = x_next
    return x


def flow_euler(velocity, x, times):
    """[RF] algorithm 1, sampled by Euler's method:  x <- x + (s - t) velocity(x, t).

    velocity: (x, t) -> v. x: (B, ...), noise. times: (n + 1,) descending in [0, 1], from 1 to 0 for a sample.
    Returns x at the last time (B, ...) float64, after n calls.
    Raises ValueError for times that do not descend in [0, 1], or an output of another shape than x.
    """
    x, times = np.asarray(x, np.float64), descending("times", times, highest=1)
    for t, s in pairwise(times):
        x = x + (s - t) * output_of("velocity", velocity(x, t), x)
    return x


def flow_heun(velocity, x, times):
    """Heun's method, of order 2:  x_next = x + (s - t) v,  x <- x + (s - t) / 2 (v + velocity(x_next, s)).

    A step to s = 0 is Euler's, which needs no velocity there. velocity, x, times: as in `flow_euler`.
    Returns x at the last time (B, ...), after 2 n calls, one less where that is 0. Raises as `flow_euler` does.
    """
    x, times = np.asarray(x, np.float64), descending("times", times, highest=1)
    for t, s in pairwise(times):
        # Euler step
        v = output_of("velocity", velocity(x, t), x)
        x_next = x + (s - t) * v
        # Second-order correction
        if s > 0:
            v_next = output_of("velocity", velocity(x_next, s), x)
            x_next = x + (s - t) * ((v + v_next) / 2)
        x = x_next
    return x


def consistency(f, x, sigmas, noise, sigma_min):
    """[CM] algorithm 1, multistep consistency sampling: to the data, back to the next lower level, to the data again:

        x0_hat = f(x, sigma),   x <- x0_hat + sqrt(sigma_next^2 - sigma_min^2) noise[i]

    f: (x, sigma) -> x0_hat. x: (B, ...), x0 + sigmas[0] eps. sigmas: (n,) descending, each >= sigma_min but for
    rounding; a last 0 is ignored. noise: n or n - 1 of (B, ...). sigma_min: where f is the identity, >= 0.
    Returns x0_hat (B, ...) float64, after n calls.
    Raises ValueError for sigmas that do not descend or go below sigma_min, missing noise, another shape of an output.
    """
    x, sigmas = np.asarray(x, np.float64), descending("sigmas", sigmas, least=1)
    sigmas, sigma_min = sigmas[:-1] if sigmas[-1] == 0 else sigmas, number(sigma_min, "sigma_min")
    if not sigmas or not sigmas[-1] >= sigma_min * (1 - ROUNDING) >= 0:
        raise ValueError(f"sigmas: expected levels >= sigma_min = {sigma_min} >= 0, got {sigmas}")
    x0_hat = output_of("f", f(x, sigmas[0]), x)
    for i, sigma_next in enumerate(sigmas[1:]):
        above = max(sigma_next - sigma_min, 0)
        x = x0_hat + math.sqrt(above * (sigma_next + sigma_min)) * noise_of(noise, i, x)
        x0_hat = output_of("f", f(x, sigma_next), x)
    return x0_hat
