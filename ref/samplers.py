"""Samplers: from noise to data by a model that is asked at a list of times. One flat function each, in float64.

A step goes from one entry of the list to the next; nothing is computed from a time but what stands in the list. Discrete times
descend to 0 (`ref.schedules.spaced_times`), noise levels too (`karras_sigmas`), flow times from 1 to 0 (`flow_times`).

    model(xt, t) -> eps_hat       t an int                 ddpm, ddim, dpmpp_2m, unipc, inpaint
    denoise(x, sigma) -> x0_hat   x = x0 + sigma eps       euler, heun
    velocity(x, t) -> v           x = (1 - t) x0 + t eps   flow_euler, flow_heun
    f(x, sigma) -> x0_hat         a consistency model      consistency

noise[i] is the (B, ...) noise of step i; the last step's is not looked at and may be left out, but by heun, which adds it before a step.

Papers
    [DDPM]         Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]         Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [DPM-Solver++] Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022
    [UniPC]        Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models", 2023
    [EDM]          Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
    [RF]           Liu, Gong, Liu, "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2023
    [CM]           Song, Dhariwal, Chen, Sutskever, "Consistency Models", 2023
    [SDE]          Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
    [RePaint]      Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022
"""
import math
from itertools import pairwise

import numpy as np

from ref.diffusion import ddim_step, ddpm_step, q_sample, x0_from_eps
from ref.shapes import same_shape, step


def ddpm(model, xT, times, noise, abar, variance="small", clip=None):
    """[DDPM] algorithm 2, ancestral sampling over any descending times: `ddpm_step` from each to the next.

    model: (xt, t) -> eps_hat. xT: (B, ...). times: (n + 1,) ints, descending in [0, T]. noise: n or n - 1 of (B, ...).
    abar: (T + 1,). variance: "small" or "large". clip: of x0_hat, > 0, or None.
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend or missing noise, and as `ddpm_step` does.
    """
    x, times = np.asarray(xT, np.float64), _times(times, abar)
    for i, (t, s) in enumerate(pairwise(times)):
        x = ddpm_step(x, model(x, t), t, s, _noise(noise, i, s, x), abar, variance, clip)
    return x


def ddim(model, xT, times, noise, eta, abar, clip=None):
    """[DDIM] eq. 12 over any descending times: `ddim_step` from each to the next.

    model: (xt, t) -> eps_hat. xT: (B, ...). times: (n + 1,) ints, descending in [0, T]. noise: n or n - 1 of (B, ...), or None
    where eta = 0. eta: in [0, 1]. abar: (T + 1,). clip: of x0_hat, > 0, or None.
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend or missing noise, and as `ddim_step` does.
    """
    x, times = np.asarray(xT, np.float64), _times(times, abar)
    for i, (t, s) in enumerate(pairwise(times)):
        z = None if eta == 0 else _noise(noise, i, s, x)
        x = ddim_step(x, model(x, t), t, s, z, eta, abar, clip)
    return x


def dpmpp_2m_step(xt, x0_hat, x0_last, u, t, s, abar):
    """One step of [DPM-Solver++] algorithm 2 from t to s < t, having come from u > t. With lambda = ln(sqrt(abar) / sqrt(1 - abar)):

        h = lambda_s - lambda_t,    r = (lambda_t - lambda_u) / h
        D = (1 + 1 / (2 r)) x0_hat - 1 / (2 r) x0_last
        x_s = sqrt(1 - abar_s) / sqrt(1 - abar_t) x_t - sqrt(abar_s) (e^-h - 1) D

    Without x0_last, or where abar_s = 1 and lambda_s is infinite, D = x0_hat: the first order, which is DDIM with eta = 0.

    xt, x0_hat, x0_last: (B, ...), the predictions at t and at u; x0_last and u may both be None. u, t, s: ints or (B,) ints,
    0 <= s < t < u <= T. abar: (T + 1,), strictly between 0 and 1 at t and u.
    Returns x_s (B, ...) float64.
    Raises ValueError where shapes differ, not s < t < u, or abar[t] or abar[u] is 0 or 1; TypeError where a time is not an int.
    """
    if (x0_last is None) != (u is None):
        raise ValueError("x0_last and u: expected both or neither")
    xt, x0_hat, x0_last = same_shape(xt=xt, x0_hat=x0_hat, x0_last=x0_hat if x0_last is None else x0_last)
    abar_t, abar_s = step(abar, t, s, xt)
    h, D = _climb(abar_t, abar_s), x0_hat
    if u is not None:
        half = np.where(h < np.inf, h / (2 * _climb(*step(abar, u, t, xt))), 0.0)  # 1 / (2 r)
        D = (1 + half) * x0_hat - half * np.where(half > 0, x0_last, 0.0)
    return np.sqrt((1 - abar_s) / (1 - abar_t)) * xt - np.sqrt(abar_s) * np.expm1(-h) * D


def dpmpp_2m(model, xT, times, abar):
    """[DPM-Solver++] algorithm 2, the multistep solver of order 2 in x0: `dpmpp_2m_step`, of order 1 at the first step and,
    as the authors' code does for few steps, at the last.

    model: (xt, t) -> eps_hat. xT: (B, ...). times: (n + 1,) ints, descending in [0, T]. abar: (T + 1,), 0 < abar < 1 from 1 on.
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend, or abar[t] of 0 or 1 at a time where the model is asked.
    """
    x, times = np.asarray(xT, np.float64), _times(times, abar)
    u, x0_last = None, None
    for i, (t, s) in enumerate(pairwise(times)):
        x0_hat = x0_from_eps(x, model(x, t), t, abar)
        if i == len(times) - 2:
            u, x0_last = None, None
        x = dpmpp_2m_step(x, x0_hat, x0_last, u, t, s, abar)
        u, x0_last = t, x0_hat
    return x


def unipc(model, xT, times, abar, order=2):
    """[UniPC], its UniC-p and UniP-p in x0, multistep, with B(h) = e^-h - 1: each prediction of the model corrects the step
    that led to it and then predicts the next, so that a step costs one call.

        h = lambda_s - lambda_t,   r_k = (lambda_k - lambda_t) / h,   D_k = (x0_hat(k) - x0_hat(t)) / r_k   for the times k before t
        x_s = sqrt(1 - abar_s) / sqrt(1 - abar_t) x_t - sqrt(abar_s) ((e^-h - 1) x0_hat(t) + B(h) sum_k a_k D_k)

    The a_k solve sum_k a_k r_k^(j-1) = j! phi_{j+1}(-h) (-h) / B(h) for j = 1, 2, ..., where phi_1(z) = (e^z - 1) / z and
    phi_{j+1}(z) = (phi_j(z) - 1 / j!) / z; the corrector has s itself among the k, with r = 1. Where one a_k is
    all there is (the predictor of order 2, the corrector of the first step), it is 1/2, as in the authors' code.

    model: (xt, t) -> eps_hat. xT: (B, ...). times: (n + 1,) ints, descending in [0, T]. abar: (T + 1,), 0 < abar < 1 from 1 on.
    order: of the predictor, int >= 1, less at the first and last steps; the corrected step has one more.
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend, another order, or abar[t] of 0 or 1 at a time where the model is asked.
    """
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or order < 1:
        raise ValueError(f"order: expected an int, at least 1, got {order!r}")
    x, times = np.asarray(xT, np.float64), _times(times, abar)
    seen = []  # (lambda, x0_hat) of the times behind, the newest last
    for i, (t, s) in enumerate(pairwise(times)):
        x0_hat = x0_from_eps(x, model(x, t), t, abar)
        here = _log_snr(t, abar), x0_hat
        if seen:  # UniC: the step that ended here again, with what the model now says of its end
            x = _unified_step(before, times[i - 1], t, abar, seen[-used:], here)
        before, seen = x, [*seen, here]
        used = min(order, i + 1, len(times) - 1 - i)
        x = _unified_step(before, t, s, abar, seen[-used:], None)
    return x


def euler(denoise, x, sigmas):
    """[EDM] algorithm 1 without its correction:  x <- x + (sigma' - sigma) d,  d = (x - denoise(x, sigma)) / sigma.

    denoise: (x, sigma) -> x0_hat. x: (B, ...), x0 + sigmas[0] eps. sigmas: (n + 1,) descending, the last may be 0.
    Returns x at the last level (B, ...) float64, after n calls.
    Raises ValueError for sigmas that do not descend, or an answer of another shape than x.
    """
    x, sigmas = np.asarray(x, np.float64), _sigmas(sigmas)
    for sigma, following in pairwise(sigmas):
        d = (x - _said(denoise(x, sigma), x)) / sigma
        x = x + (following - sigma) * d
    return x


def heun(denoise, x, sigmas, noise=None, s_churn=0, s_min=0, s_max=math.inf, s_noise=1):
    """[EDM] algorithm 2; with s_churn = 0 its algorithm 1, Heun's method of order 2 for the probability-flow ODE:

        gamma = min(s_churn / n, sqrt(2) - 1) where s_min <= sigma <= s_max, else 0
        sigma_hat = (1 + gamma) sigma,   x_hat = x + sqrt(sigma_hat^2 - sigma^2) s_noise noise[i]
        d = (x_hat - denoise(x_hat, sigma_hat)) / sigma_hat,   x = x_hat + (sigma' - sigma_hat) d
        d' = (x - denoise(x, sigma')) / sigma',   x = x_hat + (sigma' - sigma_hat) (d + d') / 2    unless sigma' = 0

    denoise: (x, sigma) -> x0_hat. x: (B, ...), x0 + sigmas[0] eps. sigmas: (n + 1,) descending, the last may be 0.
    noise: n of (B, ...), needed where gamma > 0 (also at the last step). s_churn, s_min, s_max, s_noise: >= 0.
    Returns x at the last level (B, ...) float64, after 2 n calls, one less where the last level is 0.
    Raises ValueError for sigmas that do not descend, a negative s_churn, noise that is needed and not there,
    or an answer of another shape than x.
    """
    x, sigmas = np.asarray(x, np.float64), _sigmas(sigmas)
    if not s_churn >= 0:
        raise ValueError(f"s_churn: expected a number >= 0, got {s_churn}")
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        gamma = min(s_churn / (len(sigmas) - 1), math.sqrt(2) - 1) if s_min <= sigma <= s_max else 0
        if gamma > 0:
            raised = (1 + gamma) * sigma
            x = x + math.sqrt(raised**2 - sigma**2) * s_noise * _noise(noise, i, 1, x)
            sigma = raised
        d = (x - _said(denoise(x, sigma), x)) / sigma
        guess = x + (following - sigma) * d
        if following > 0:
            d = (d + (guess - _said(denoise(guess, following), x)) / following) / 2
        x = x + (following - sigma) * d
    return x


def flow_euler(velocity, x, times):
    """[RF] algorithm 1, sampled by Euler's method:  x <- x + (t' - t) velocity(x, t).

    velocity: (x, t) -> v. x: (B, ...), noise. times: (n + 1,) descending in [0, 1], from 1 to 0 for a sample.
    Returns x at the last time (B, ...) float64, after n calls.
    Raises ValueError for times that do not descend in [0, 1], or an answer of another shape than x.
    """
    x, times = np.asarray(x, np.float64), _flow_times(times)
    for t, s in pairwise(times):
        x = x + (s - t) * _said(velocity(x, t), x)
    return x


def flow_heun(velocity, x, times):
    """`flow_euler` by Heun's method, of order 2:  x' = x + (t' - t) v,  x <- x + (t' - t) (v + velocity(x', t')) / 2.

    A step to t' = 0 is Euler's: it costs one call, and a velocity that divides by t is not asked there.
    velocity: (x, t) -> v. x: (B, ...), noise. times: (n + 1,) descending in [0, 1], from 1 to 0 for a sample.
    Returns x at the last time (B, ...) float64, after 2 n calls, one less where the last time is 0.
    Raises ValueError for times that do not descend in [0, 1], or an answer of another shape than x.
    """
    x, times = np.asarray(x, np.float64), _flow_times(times)
    for t, s in pairwise(times):
        v = _said(velocity(x, t), x)
        if s > 0:
            v = (v + _said(velocity(x + (s - t) * v, s), x)) / 2
        x = x + (s - t) * v
    return x


def consistency(f, x, sigmas, noise, sigma_min):
    """[CM] algorithm 1, multistep consistency sampling: to the data, back to the next lower level, to the data again:

        x0_hat = f(x, sigma),   x = x0_hat + sqrt(sigma'^2 - sigma_min^2) noise[i]

    f: (x, sigma) -> x0_hat. x: (B, ...), x0 + sigmas[0] eps. sigmas: (n,) descending, each >= sigma_min, one for each call of f; a last
    0, as `karras_sigmas` has it, is the end and no call. noise: n or n - 1 of (B, ...). sigma_min: where f is the identity, >= 0.
    Returns x0_hat (B, ...) float64, after n calls.
    Raises ValueError for sigmas that do not descend, a level below sigma_min, missing noise, or an answer of another shape than x.
    """
    x, sigmas = np.asarray(x, np.float64), _sigmas(sigmas, least=1)
    sigmas = sigmas[:-1] if sigmas[-1] == 0 else sigmas
    if not sigmas or not sigmas[-1] >= sigma_min >= 0:
        raise ValueError(f"sigmas: expected levels >= sigma_min = {sigma_min} >= 0, got {sigmas}")
    for i, sigma in enumerate(sigmas):
        x0_hat = _said(f(x, sigma), x)
        if i + 1 < len(sigmas):
            x = x0_hat + math.sqrt(sigmas[i + 1] ** 2 - sigma_min**2) * _noise(noise, i, 1, x)
    return x0_hat


def inpaint(model, xT, times, noise, known, mask, abar):
    """Sampling what is not known, [SDE] appendix I.2 and [RePaint] eq. 8 without its resampling, its known part at abar_s, where it prints abar_t:

        x_s = mask q_sample(known, s, noise[i]) + (1 - mask) ddpm_step(x_t, model(x_t, t), t, s, noise[i])

    An element is in one part or in the other, so one noise serves both. At s = 0 the known elements are known exactly.

    model: (xt, t) -> eps_hat. xT: (B, ...). times: (n + 1,) ints, descending in [0, T]. noise: n or n - 1 of (B, ...).
    known: (B, ...) data. mask: (B, ...), 1 or True where it is known, 0 elsewhere; what known holds there is not looked at.
    abar: (T + 1,).
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend, missing noise, shapes that differ or a mask of other values.
    """
    x, times, mask = np.asarray(xT, np.float64), _times(times, abar), np.asarray(mask)
    if np.shape(known) != x.shape or mask.shape != x.shape:
        raise ValueError(f"expected equal shapes, got xT {x.shape}, known {np.shape(known)}, mask {mask.shape}")
    if not np.all((mask == 0) | (mask == 1)):
        raise ValueError("mask: expected 0 or 1 everywhere")
    mask = mask == 1
    known = np.where(mask, known, 0.0)
    for i, (t, s) in enumerate(pairwise(times)):
        z = _noise(noise, i, s, x)
        x = np.where(mask, q_sample(known, s, z, abar), ddpm_step(x, model(x, t), t, s, z, abar))
    return x


def _log_snr(t, abar):
    """lambda_t = ln(sqrt(abar_t) / sqrt(1 - abar_t)), half the logarithm of the SNR, at a time where the model is asked."""
    abar_t = np.float64(abar[t])
    if not 0 < abar_t < 1:
        raise ValueError(f"abar: expected 0 < abar[t] < 1 where the model is asked, got abar[{t}] = {abar_t}")
    return 0.5 * (np.log(abar_t) - np.log1p(-abar_t))


def _climb(abar_t, abar_s):
    """h = lambda_s - lambda_t, from the difference of the two abar, so that near neighbours lose no digits; inf where abar_s = 1."""
    if not np.all((abar_t > 0) & (abar_t < 1)):
        raise ValueError(f"abar: expected 0 < abar[t] < 1 where the model is asked, got {np.ravel(abar_t)}")
    with np.errstate(divide="ignore"):
        return 0.5 * (np.log1p((abar_s - abar_t) / abar_t) + np.log1p((abar_s - abar_t) / (1 - abar_s)))


def _unified_step(x, t, s, abar, seen, end):
    """x at s from x at t: UniP with the predictions seen, the last of them at t; UniC where the one at s, `end`, is there too."""
    abar_t, abar_s = np.float64(abar[t]), np.float64(abar[s])
    h = _climb(abar_t, abar_s)
    first = np.sqrt((1 - abar_s) / (1 - abar_t)) * x - np.sqrt(abar_s) * np.expm1(-h) * seen[-1][1]
    others = [*seen[:-1][::-1], end] if end else seen[:-1][::-1]
    if not others:
        return first
    r = np.array([(l - seen[-1][0]) / h for l, _ in others])
    B = np.expm1(-h)
    phi, b = B / -h, []
    for j in range(1, len(others) + 1):
        phi = (phi - 1 / math.factorial(j)) / -h  # phi_{j+1}(-h)
        b.append(math.factorial(j) * phi * -h / B)
    a = np.array([0.5]) if len(others) == 1 else np.linalg.solve(np.vander(r, increasing=True).T, b)
    D = sum(a_k / r_k * (x0_hat - seen[-1][1]) for a_k, r_k, (_, x0_hat) in zip(a, r, others))
    return first - np.sqrt(abar_s) * B * D


def _times(times, abar):
    """The times as Python ints, after a check that they descend within abar."""
    times, T = np.asarray(times), np.size(abar) - 1
    if times.ndim != 1 or times.size < 2 or not np.issubdtype(times.dtype, np.integer):
        raise ValueError(f"times: expected shape (n + 1,) of ints, n >= 1, got shape {times.shape} of {times.dtype}")
    if not (np.all(np.diff(times) < 0) and 0 <= times[-1] and times[0] <= T):
        raise ValueError(f"times: expected to descend within 0 to T = {T}, got {times}")
    return times.tolist()


def _sigmas(sigmas, least=2):
    sigmas = np.asarray(sigmas, np.float64)
    if sigmas.ndim != 1 or sigmas.size < least or not np.all(np.diff(sigmas) < 0) or not sigmas[-1] >= 0:
        raise ValueError(f"sigmas: expected at least {least} levels that descend to 0 or more, got {sigmas}")
    return sigmas.tolist()


def _flow_times(times):
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or times.size < 2 or not np.all(np.diff(times) < 0) or not (times[0] <= 1 and times[-1] >= 0):
        raise ValueError(f"times: expected shape (n + 1,) with n >= 1, descending within 1 to 0, got {times}")
    return times.tolist()


def _said(out, x):
    """What a callable said of x, as float64, after a check that it has the shape of x."""
    if np.shape(out) != x.shape:
        raise ValueError(f"expected an answer of the shape it was asked about, {x.shape}, got {np.shape(out)}")
    return np.asarray(out, np.float64)


def _noise(noise, i, s, x):
    """The noise of step i, of the shape of x; where s = 0 nothing is added, and zeros stand for what may not be there."""
    if s == 0:
        return np.zeros(x.shape)
    if noise is None or i >= len(noise):
        raise ValueError(f"noise: expected one of shape {x.shape} for step {i}, got {'None' if noise is None else len(noise)}")
    if np.shape(noise[i]) != x.shape:
        raise ValueError(f"noise: expected shape {x.shape} for step {i}, got {np.shape(noise[i])}")
    return noise[i]
