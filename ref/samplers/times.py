"""Samplers by discrete time, which descends to 0. One flat function each.

Papers
    [DDPM]         Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]         Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [DPM-Solver++] Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022
    [UniPC]        Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models",
                   2023
    [SDE]          Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
    [RePaint]      Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022
    [NTI]          Mokady et al., "Null-text Inversion for Editing Real Images using Guided Diffusion Models", 2023
    [AIDI]         Pan et al., "Effective Real Image Editing with Accelerated Iterative Diffusion Inversion", 2023
"""
from itertools import pairwise

import numpy as np

from ref.diffusion import (
    ddim_inverse_step, ddim_step, ddim_step_x0, ddpm_step_x0, eps_from_v, eps_from_x0, q_sample, x0_from_eps, x0_from_v,
)  # fmt: skip
from ref.dpm_solver import dpmpp_2m_sde_step, dpmpp_2m_step, unipc_step
from ref.shapes import integer, noise_of, number, output_of, whole_times


def ddpm(model, xT, times, noise, abar, variance="small", clip=None, predict="eps"):
    """[DDPM] algorithm 2, ancestral sampling over any descending times: `ddpm_step_x0` from each to the next.

    model: (xt, t) -> what it predicts, (B, ...). xT: (B, ...). times: (n + 1,) ints, descending in [0, T]. noise: n or
    n - 1 of (B, ...). abar: (T + 1,). variance: "small" or "large". clip: of x0_hat, > 0, or None. predict: "eps", "x0"
    or "v"; where abar[T] = 0 not eps.
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend, missing noise or another predict, and as `ddpm_step_x0` does.
    """
    x, times = np.asarray(xT, np.float64), whole_times(times, abar)
    for i, (t, s) in enumerate(pairwise(times)):
        z = noise_of(noise, i, x) if s > 0 else np.zeros(x.shape)
        x = ddpm_step_x0(x, _x0_hat(predict, model(x, t), x, t, abar), t, s, z, abar, variance, clip)
    return x


def ddim(model, xT, times, noise, eta, abar, clip=None, predict="eps"):
    """[DDIM] eq. 12 over any descending times: `ddim_step`, or `ddim_step_x0`, from each to the next.

    model, xT, times, abar, clip, predict: as in `ddpm`. noise: n or n - 1 of (B, ...), or None where eta = 0. eta: in
    [0, 1].
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend, missing noise or another predict, and as the step does.
    """
    x, times, eta = np.asarray(xT, np.float64), whole_times(times, abar), number(eta, "eta")
    for i, (t, s) in enumerate(pairwise(times)):
        z = noise_of(noise, i, x) if s > 0 and eta != 0 else np.zeros(x.shape)
        out = model(x, t)
        if predict == "eps":
            x = ddim_step(x, out, t, s, z, eta, abar, clip)
        else:
            x = ddim_step_x0(x, _x0_hat(predict, out, x, t, abar), t, s, z, eta, abar, clip)
    return x


def ddim_invert(model, x0, times, abar, iterations=1, predict="eps"):
    """From data to the noise that `ddim` with eta = 0 makes them of, over ascending times:  `ddim_inverse_step` from
    each time t to the next, s, with the prediction at s, where the sampler will make it:

        x <- x_t,   then `iterations` times  x <- ddim_inverse_step(x_t, model(x, s), t, s, abar)

    With one it is [NTI] eq. 3, off by the size of a step, as everybody does; with more, [AIDI]'s fixed point, the exact
    inverse.

    model, abar, predict: as in `ddpm`. x0: (B, ...). times: (n + 1,) ints, ascending in [0, T]. iterations: int >= 1.
    Returns x at the last time (B, ...) float64, after n iterations calls of the model.
    Raises ValueError for times that do not ascend, iterations < 1 or another predict, and as `ddim_inverse_step` does.
    """
    x, iterations = np.asarray(x0, np.float64), integer(iterations, "iterations")
    if iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {iterations}")
    for t, s in pairwise(whole_times(np.asarray(times)[::-1], abar)[::-1]):
        x_t = x
        for _ in range(iterations):
            x = ddim_inverse_step(x_t, _eps_hat(predict, model(x, s), x, s, abar), t, s, abar)
    return x


def dpmpp_2m(model, xT, times, abar, predict="eps"):
    """[DPM-Solver++] algorithm 2, multistep, of order 2: `dpmpp_2m_step`, of order 1 at the first and at the last step.

    model, xT, times, predict: as in `ddpm`. abar: (T + 1,), below 1 at the times of the calls.
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend or another predict, and as `dpmpp_2m_step` does.
    """
    x, times = np.asarray(xT, np.float64), whole_times(times, abar)
    u, x0_last = None, None
    for i, (t, s) in enumerate(pairwise(times)):
        x0_hat = _x0_hat(predict, model(x, t), x, t, abar)
        first_order = i == len(times) - 2
        x = dpmpp_2m_step(x, x0_hat, None if first_order else x0_last, None if first_order else u, t, s, abar)
        u, x0_last = t, x0_hat
    return x


def dpmpp_2m_sde(model, xT, times, noise, abar, predict="eps"):
    """[DPM-Solver++] appendix on SDE solvers, SDE-DPM-Solver++(2M): `dpmpp_2m_sde_step`, of order 1 at the first and at
    the last step.

    model, xT, times, noise, predict: as in `ddpm`. abar: as in `dpmpp_2m`.
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend, missing noise or another predict, and as the step does.
    """
    x, times = np.asarray(xT, np.float64), whole_times(times, abar)
    u, x0_last = None, None
    for i, (t, s) in enumerate(pairwise(times)):
        z = noise_of(noise, i, x) if s > 0 else np.zeros(x.shape)
        x0_hat = _x0_hat(predict, model(x, t), x, t, abar)
        history = (None, None) if i == len(times) - 2 else (x0_last, u)
        x = dpmpp_2m_sde_step(x, x0_hat, *history, t, s, z, abar)
        u, x0_last = t, x0_hat
    return x


def unipc(model, xT, times, abar, order=2, predict="eps"):
    """[UniPC], multistep: each call of the model corrects the step that led to it, `unipc_step` with the prediction at
    its end (UniC-p), then predicts the next from the last p predictions (UniP-p).

    model, xT, times, abar, predict: as in `dpmpp_2m`. order: p of the predictor, int >= 1, less at the first and last
    steps.
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend, another order or predict, and as `unipc_step` does.
    """
    if (order := integer(order, "order")) < 1:
        raise ValueError(f"order: expected at least 1, got {order}")
    x, times = np.asarray(xT, np.float64), whole_times(times, abar)
    seen, predictions = [], []  # of the calls, the newest first
    for i, (t, s) in enumerate(pairwise(times)):
        x0_hat, x_t = _x0_hat(predict, model(x, t), x, t, abar), x
        # Corrector: repeat the step that ended at t, with the prediction at its end
        if i > 0:
            x_t = unipc_step(x_last, predictions[:p], seen[:p], t, abar, x0_hat)
        # Predictor: the step to s, from the last p predictions
        seen, predictions, x_last = [t, *seen], [x0_hat, *predictions], x_t
        p = min(order, i + 1, len(times) - 1 - i)
        x = unipc_step(x_t, predictions[:p], seen[:p], s, abar)
    return x


def inpaint(model, xT, times, noise, known, mask, abar, predict="eps"):
    """Sampling of the unknown part, [SDE] appendix I.2, [RePaint] eq. 8 without resampling, abar_s for its abar_t:

        x_s = mask q_sample(known, s, noise[i]) + (1 - mask) ddpm_step_x0(x_t, x0_hat, t, s, noise[i])

    An element is in one part or in the other, so one noise serves both. At s = 0 the known elements are known exactly.

    model, xT, times, noise, predict: as in `ddpm`. known: (B, ...) data. mask: (B, ...), 1 or True where it is
    known, 0 elsewhere; known is ignored there. abar: (T + 1,).
    Returns x at the last time (B, ...) float64, after n calls of the model.
    Raises ValueError for times that do not descend, missing noise, shapes that differ or a mask of other values.
    """
    x, times, mask = np.asarray(xT, np.float64), whole_times(times, abar), np.asarray(mask)
    if np.shape(known) != x.shape or mask.shape != x.shape:
        raise ValueError(f"xT, known and mask: expected equal shapes, got {x.shape}, {np.shape(known)}, {mask.shape}")
    if not np.all((mask == 0) | (mask == 1)):
        raise ValueError("mask: expected 0 or 1 everywhere")
    known = np.where(mask == 1, known, 0.0)
    for i, (t, s) in enumerate(pairwise(times)):
        z = noise_of(noise, i, x) if s > 0 else np.zeros(x.shape)
        x0_hat = _x0_hat(predict, model(x, t), x, t, abar)
        x = np.where(mask, q_sample(known, s, z, abar), ddpm_step_x0(x, x0_hat, t, s, z, abar))
    return x


def _x0_hat(predict, out, x, t, abar):
    """The x0 that the model's output says."""
    if predict == "eps":
        return x0_from_eps(x, out, t, abar)
    return x0_from_v(x, out, t, abar) if _x0_or_v(predict) == "v" else output_of("model", out, x)


def _eps_hat(predict, out, x, t, abar):
    """The noise that the model's output says."""
    if predict == "eps":
        return output_of("model", out, x)
    return (eps_from_v if _x0_or_v(predict) == "v" else eps_from_x0)(x, out, t, abar)


def _x0_or_v(predict):
    if predict not in ("x0", "v"):
        raise ValueError(f'predict: expected "eps", "x0" or "v", got {predict!r}')
    return predict
