"""The part of `conformance` that calls functions once on the same numbers: the registry has no such operation."""
import numpy as np
import torch
from diffusers import CMStochasticIterativeScheduler, DDIMScheduler, DDPMScheduler, LCMScheduler
from diffusers.guiders.guider_utils import rescale_noise_cfg
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from bench.studies.conformance import ABAR, SHAPE, SPACINGS, T, in_float32, row, ulps
from ref import consistency, guidance, philox, schedules, vae

A, B, LOGVAR = (philox.normal(seed, SHAPE) for seed in range(3))
X = philox.uniform(3, SHAPE).astype(np.float64)


def jobs():
    """A function of nothing for each comparison; it returns rows."""
    return [rescale, kl, bce, lcm, cm, alphas, zero_snr, times]


def compared(name, theirs, function, ours):
    """The one row of a comparison in float64. name, function: of theirs and of ours. theirs, ours: the results."""
    return [row(name, function, "float64", ulps(theirs, ours, "float64"))]


def rescale():
    theirs = rescale_noise_cfg(torch.from_numpy(guidance.guide(A, B, 7.5)), torch.from_numpy(B), 0.7)
    return compared("rescale_noise_cfg", theirs, "guide_rescaled", guidance.guide_rescaled(A, B, 7.5, 0.7))


def kl():
    normal, logvar = torch.distributions.Normal, torch.from_numpy(LOGVAR)
    theirs = torch.distributions.kl_divergence(normal(torch.from_numpy(A), (logvar / 2).exp()), normal(0.0, 1.0)).sum(dim=(1, 2, 3))
    return compared("torch.distributions.kl_divergence", theirs, "gaussian_kl", vae.gaussian_kl(A, LOGVAR))


def bce():
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(20 * torch.from_numpy(A), torch.from_numpy(X), reduction="none").sum(dim=(1, 2, 3))
    return compared("torch binary_cross_entropy_with_logits", theirs, "bernoulli_nll", vae.bernoulli_nll(20 * A, X))


def lcm():
    t = 1
    c_skip, c_out = LCMScheduler().get_scalings_for_boundary_condition_discrete(t)
    ours = consistency.boundary_scalings(10.0 * t, sigma_min=0.0)
    why = "sigma = 10 t, sigma_min = 0, and c_out without its factor sigma_data"
    return [row("LCMScheduler boundary scalings", "boundary_scalings", "float64", ulps([c_skip, c_out], ours, "float64"), example=f"t = {t}: c_out {c_out:.6f}, ours {ours[1]:.6f}",
                why=why, explained=ulps([c_skip, c_out], [ours[0], ours[1] / 0.5], "float64"), documented="yes: its docstring, as in the paper on latent consistency models")]  # fmt: skip


def cm():
    scheduler, sigma = CMStochasticIterativeScheduler(), np.array([0.002, 0.5, 80.0])
    theirs = np.array([scheduler.get_scalings_for_boundary_condition(s) for s in sigma]).T
    return compared("CMStochasticIterativeScheduler boundary scalings", theirs, "boundary_scalings", consistency.boundary_scalings(sigma))


def alphas():
    rows = []
    for name, kind, betas in (("linear", "linear", schedules.linear_betas()), ("scaled_linear", "scaled_linear", schedules.scaled_linear_betas()),
                              ("cosine", "squaredcos_cap_v2", schedules.cosine_betas())):  # fmt: skip
        ends = {"beta_start": 0.00085, "beta_end": 0.012} if name == "scaled_linear" else {}
        theirs, ours = DDPMScheduler(beta_schedule=kind, **ends).alphas_cumprod.numpy(), schedules.alpha_bar(betas)[1:]
        relative, left = (float(np.max(np.abs(theirs / abar - 1))) for abar in (ours, in_float32(betas)))
        rows.append(row(f"alphas_cumprod, {name}", "alpha_bar", "float32", relative / 2.0**-23, example=f"relative difference up to {relative:.2g}",
                        why="betas and their product in float32", explained=left / 2.0**-23, documented="no"))  # fmt: skip
    return rows


def zero_snr():
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(torch.from_numpy(schedules.linear_betas())), 0)
    return compared("rescale_zero_terminal_snr", theirs, "zero_terminal_snr", schedules.zero_terminal_snr(ABAR)[1:])


def times():
    rows = []
    for spacing in SPACINGS:
        scheduler, wrong, name = DDIMScheduler(timestep_spacing=spacing), [], f"DDIMScheduler.set_timesteps, {spacing}"
        for steps in range(1, T + 1):
            scheduler.set_timesteps(steps)
            if not np.array_equal(scheduler.timesteps.numpy() + 1, schedules.spaced_times(T, steps, spacing)[:-1]):  # `time_from_index` refuses the -1 that is found here
                wrong.append(steps)
        if not wrong:
            rows.append(row(name, "spaced_times", "int64", 0.0, example=f"all {T} numbers of steps"))
            continue
        scheduler.set_timesteps(wrong[0])
        theirs, ours = scheduler.timesteps.numpy() + 1, schedules.spaced_times(T, wrong[0], spacing)
        example = f"{len(wrong)} of {T} numbers of steps, the first {wrong[0]}, where it gives {theirs.size} times, the last of them t = {theirs[-1]}"
        why, left = "numpy.arange of fractional steps goes one too far by rounding", 0.0 if np.array_equal(theirs, ours) else np.inf
        rows.append(row(name, "spaced_times", "int64", np.inf, example=example, why=why, explained=left, documented="no"))
    return rows
