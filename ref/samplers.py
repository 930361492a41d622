"""Samplers: from noise to data by a model, called at each entry of a list of times. One flat function each, in float64.

Discrete times descend to 0 (`ref.schedules.spaced_times`), noise levels too (`karras_sigmas`), flow times from 1 to 0.

    model(xt, t) -> eps_hat       t an int                 ddpm, ddim, dpmpp_2m, unipc, inpaint
    denoise(x, sigma) -> x0_hat   x = x0 + sigma eps       euler, heun
    velocity(x, t) -> v           x = (1 - t) x0 + t eps   flow_euler, flow_heun
    f(x, sigma) -> x0_hat         a consistency model      consistency

noise[i] is the (B, ...) noise of step i. The last may be left out, except by heun, which adds it before a step.

Papers
    [DDPM]         Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]         Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [DPM-Solver++] Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022
    [UniPC]        Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models",
                   2023
    [EDM]          Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
    [RF]           Liu et al., "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow",
                   2023
    [CM]           Song, Dhariwal, Chen, Sutskever, "Consistency Models", 2023
    [SDE]          Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
    [RePaint]      Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022
"""
import math
import sys
from itertools import pairwise

import numpy as np

from ref.diffusion import ddim_step, ddpm_step, q_sample, x0_from_eps
from ref.dpm_solver import dpmpp_2m_step, unipc_step
from ref.edm import heun_step
from ref.edm import ROUNDING
from ref.shapes import integer, number, numbers


def ddpm(model, xT, times, noise, abar, variance="small", clip=None):
    """[DDPM] algorithm 2, ancestral sampling over any descending times: `ddpm_step` from each to the next.

    model: (xt, t) -> eps_hat. xT: (B, ...). times: (n + 1,) ints, descending in [0, T]. noise: n or n - 1 of (B, ...).
    abar: (T + 1,). variance: "small" or "large". clip: of x0_hat, > 0, or None.
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend or missing noise, and as `ddpm_step` does.
    """
    x, times = np.asarray(xT, np.float64), _times(times, abar)
    for i, (t, s) in enumerate(pairwise(times)):
        z = _noise(noise, i, x) if s > 0 else np.zeros(x.shape)
        x = ddpm_step(x, model(x, t), t, s, z, abar, variance, clip)
    return x


def ddim(model, xT, times, noise, eta, abar, clip=None):
    """[DDIM] eq. 12 over any descending times: `ddim_step` from each to the next.

    model, xT, times, abar, clip: as in `ddpm`. noise: n or n - 1 of (B, ...), or None where eta = 0. eta: in [0, 1].
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend or missing noise, and as `ddim_step` does.
    """
    x, times, eta = np.asarray(xT, np.float64), _times(times, abar), number(eta, "eta")
    for i, (t, s) in enumerate(pairwise(times)):
        z = _noise(noise, i, x) if s > 0 and eta != 0 else np.zeros(x.shape)
        x = ddim_step(x, model(x, t), t, s, z, eta, abar, clip)
    return x


def dpmpp_2m(model, xT, times, abar):
    """[DPM-Solver++] algorithm 2, multistep, of order 2: `dpmpp_2m_step`, of order 1 at the first and at the last step.

    model: (xt, t) -> eps_hat. xT: (B, ...). times: (n + 1,) ints, descending in [0, T]. abar: (T + 1,) in (0, 1).
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend, or abar[t] of 0 or 1 at a time of a call.
    """
    x, times = np.asarray(xT, np.float64), _times(times, abar)
    u, x0_last = None, None
    for i, (t, s) in enumerate(pairwise(times)):
        x0_hat = x0_from_eps(x, model(x, t), t, abar)
        first_order = i == len(times) - 2
        x = dpmpp_2m_step(x, x0_hat, None if first_order else x0_last, None if first_order else u, t, s, abar)
        u, x0_last = t, x0_hat
    return x


def unipc(model, xT, times, abar, order=2):
    """[UniPC], multistep: each call of the model corrects the step that led to it, `unipc_step` with the prediction at
    its end (UniC-p), then predicts the next from the last p predictions (UniP-p).

    model, xT, times, abar: as in `dpmpp_2m`. order: p of the predictor, int >= 1, less at the first and last steps.
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend, another order, or abar[t] of 0 or 1 at a time of a call.
    """
    if (order := integer(order, "order")) < 1:
        raise ValueError(f"order: expected at least 1, got {order}")
    x, times = np.asarray(xT, np.float64), _times(times, abar)
    seen, predictions = [], []  # of the calls, the newest first
    for i, (t, s) in enumerate(pairwise(times)):
        x0_hat, x_t = x0_from_eps(x, model(x, t), t, abar), x
        # Corrector: repeat the step that ended at t, with the prediction at its end
        if i > 0:
            x_t = unipc_step(x_last, predictions[:p], seen[:p], t, abar, x0_hat)
        # Predictor: the step to s, from the last p predictions
        seen, predictions, x_last = [t, *seen], [x0_hat, *predictions], x_t
        p = min(order, i + 1, len(times) - 1 - i)
        x = unipc_step(x_t, predictions[:p], seen[:p], s, abar)
    return x


def euler(denoise, x, sigmas):
    """[EDM] algorithm 1 without its correction:  x <- x + (sigma_next - sigma) d_cur,  d_cur = (x - denoise) / sigma.

    denoise: (x, sigma) -> x0_hat. x: (B, ...), x0 + sigmas[0] eps. sigmas: (n + 1,) descending, the last may be 0.
    Returns x at the last level (B, ...) float64, after n calls.
    Raises ValueError for sigmas that do not descend, or an output of another shape than x.
    """
    x, sigmas = np.asarray(x, np.float64), _descending("sigmas", sigmas)
    for sigma, sigma_next in pairwise(sigmas):
        d_cur = (x - _output("denoise", denoise(x, sigma), x)) / sigma
        x = x + (sigma_next - sigma) * d_cur
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
    Raises ValueError for sigmas that do not descend, s_churn < 0, missing noise, or an output of another shape.
    """
    x, sigmas = np.asarray(x, np.float64), _descending("sigmas", sigmas)
    s_churn, s_min, s_max, s_noise = numbers(s_churn=s_churn, s_min=s_min, s_max=s_max, s_noise=s_noise)
    if not s_churn >= 0:
        raise ValueError(f"s_churn: expected a number >= 0, got {s_churn}")
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        # Churn: add noise, from sigma up to sigma_hat
        gamma = min(s_churn / (len(sigmas) - 1), math.sqrt(2) - 1) if s_min <= sigma <= s_max else 0
        sigma_hat, x_hat = (1 + gamma) * sigma, x
        if gamma > 0:
            more = gamma * (2 + gamma)  # sigma_hat^2 - sigma^2, in units of sigma^2
            x_hat = x + math.sqrt(more) * sigma * s_noise * _noise(noise, i, x)
        # Euler step
        denoised = _output("denoise", denoise(x_hat, sigma_hat), x)
        d_cur = (x_hat - denoised) / sigma_hat
        x_next = x_hat + (sigma_next - sigma_hat) * d_cur
        # Second-order correction
        if sigma_next > 0:
            denoised_next = _output("denoise", denoise(x_next, sigma_next), x)
            x_next = heun_step(x_hat, denoised, denoised_next, sigma_hat, sigma_next)
        x = x_next
    return x


def flow_euler(velocity, x, times):
    """[RF] algorithm 1, sampled by Euler's method:  x <- x + (s - t) velocity(x, t).

    velocity: (x, t) -> v. x: (B, ...), noise. times: (n + 1,) descending in [0, 1], from 1 to 0 for a sample.
    Returns x at the last time (B, ...) float64, after n calls.
    Raises ValueError for times that do not descend in [0, 1], or an output of another shape than x.
    """
    x, times = np.asarray(x, np.float64), _descending("times", times, highest=1)
    for t, s in pairwise(times):
        x = x + (s - t) * _output("velocity", velocity(x, t), x)
    return x


def flow_heun(velocity, x, times):
    """Heun's method, of order 2:  x_next = x + (s - t) v,  x <- x + (s - t) / 2 (v + velocity(x_next, s)).

    A step to s = 0 is Euler's, which needs no velocity there. velocity, x, times: as in `flow_euler`.
    Returns x at the last time (B, ...), after 2 n calls, one less where that is 0. Raises as `flow_euler` does.
    """
    x, times = np.asarray(x, np.float64), _descending("times", times, highest=1)
    for t, s in pairwise(times):
        # Euler step
        v = _output("velocity", velocity(x, t), x)
        x_next = x + (s - t) * v
        # Second-order correction
        if s > 0:
            v_next = _output("velocity", velocity(x_next, s), x)
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
    x, sigmas = np.asarray(x, np.float64), _descending("sigmas", sigmas, least=1)
    sigmas, sigma_min = sigmas[:-1] if sigmas[-1] == 0 else sigmas, number(sigma_min, "sigma_min")
    if not sigmas or not sigmas[-1] >= sigma_min * (1 - ROUNDING) >= 0:
        raise ValueError(f"sigmas: expected levels >= sigma_min = {sigma_min} >= 0, got {sigmas}")
    x0_hat = _output("f", f(x, sigmas[0]), x)
    for i, sigma_next in enumerate(sigmas[1:]):
        above = max(sigma_next - sigma_min, 0)
        x = x0_hat + math.sqrt(above * (sigma_next + sigma_min)) * _noise(noise, i, x)
        x0_hat = _output("f", f(x, sigma_next), x)
    return x0_hat


def inpaint(model, xT, times, noise, known, mask, abar):
    """Sampling of the unknown part, [SDE] appendix I.2, [RePaint] eq. 8 without resampling, abar_s for its abar_t:

        x_s = mask q_sample(known, s, noise[i]) + (1 - mask) ddpm_step(x_t, model(x_t, t), t, s, noise[i])

    An element is in one part or in the other, so one noise serves both. At s = 0 the known elements are known exactly.

    model, xT, times, noise: as in `ddpm`. known: (B, ...) data. mask: (B, ...), 1 or True where it is
    known, 0 elsewhere; known is ignored there. abar: (T + 1,).
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend, missing noise, shapes that differ or a mask of other values.
    """
    x, times, mask = np.asarray(xT, np.float64), _times(times, abar), np.asarray(mask)
    if np.shape(known) != x.shape or mask.shape != x.shape:
        raise ValueError(f"xT, known and mask: expected equal shapes, got {x.shape}, {np.shape(known)}, {mask.shape}")
    if not np.all((mask == 0) | (mask == 1)):
        raise ValueError("mask: expected 0 or 1 everywhere")
    known = np.where(mask == 1, known, 0.0)
    for i, (t, s) in enumerate(pairwise(times)):
        z = _noise(noise, i, x) if s > 0 else np.zeros(x.shape)
        x = np.where(mask, q_sample(known, s, z, abar), ddpm_step(x, model(x, t), t, s, z, abar))
    return x


def _times(times, abar):
    """The times as Python ints. Raises ValueError where they are no ints or do not descend within abar."""
    if np.asarray(times).dtype.kind not in "iu":
        raise ValueError(f"times: expected ints, got {np.asarray(times).dtype}")
    return [int(t) for t in _descending("times", times, highest=np.size(abar) - 1)]


def _descending(name, values, highest=sys.float_info.max, least=2):
    """The values as floats, a list. Raises ValueError where they do not descend within [0, highest] or are too few."""
    values = np.asarray(values, np.float64)
    descends = values.ndim == 1 and values.size >= least and np.all(values[1:] < values[:-1])
    if not descends or not 0 <= values[-1] <= values[0] <= highest:
        raise ValueError(f"{name}: expected at least {least}, descending within {highest:g} to 0, got {values}")
    return values.tolist()


def _output(name, out, x):
    """The output of the callable `name` as float64. Raises ValueError where it has another shape than x."""
    if np.shape(out) != x.shape:
        raise ValueError(f"{name}: expected an output of the shape of x, {x.shape}, got {np.shape(out)}")
    return np.asarray(out, np.float64)


def _noise(noise, i, x):
    """noise[i]. Raises ValueError where it is missing or has another shape than x."""
    got = "None" if noise is None else np.shape(noise[i]) if i < len(noise) else f"{len(noise)} of them"
    if got != x.shape:
        raise ValueError(f"noise: expected one of shape {x.shape} for step {i}, got {got}")
    return noise[i]
