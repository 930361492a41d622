"""The part of `conformance` that calls functions once on the same numbers: the registry has no such operation."""
import numpy as np
import torch
from diffusers import CMStochasticIterativeScheduler, DDIMScheduler, DDPMScheduler, LCMScheduler
from diffusers.guiders.guider_utils import rescale_noise_cfg
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from bench.studies.conformance import ABAR, SHAPE, SPACINGS, T, in_float32, row, ulps
from ref import consistency, guidance, philox, schedules, vae

A, B, LOGVAR = (philox.normal(seed, SHAPE) for seed in range(3))
X = philox.uniform(3, SHAPE).astype(np.float64)
a, b, logvar, x = map(torch.from_numpy, (A, B, LOGVAR, X))


def jobs(examples):
    """A function of nothing for each comparison; it returns rows. examples: for the other parts."""
    return [once, lcm, alphas, times]


def once():
    """What agrees in float64: (theirs, ours, the two results)."""
    cm, sigma = CMStochasticIterativeScheduler(), np.array([0.002, 0.5, 80.0])
    scalings = np.array([cm.get_scalings_for_boundary_condition(s) for s in sigma]).T
    bce = binary_cross_entropy_with_logits(20 * a, x, reduction="none")
    betas = torch.from_numpy(schedules.linear_betas())
    return [row(theirs, ours, "float64", ulps(*results, "float64")) for theirs, ours, *results in (
        ("rescale_noise_cfg", "guide_rescaled", rescale_noise_cfg(torch.from_numpy(guidance.guide(A, B, 7.5)), b, 0.7),
         guidance.guide_rescaled(A, B, 7.5, 0.7)),
        ("torch.distributions.kl_divergence", "gaussian_kl",
         kl_divergence(Normal(a, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(dim=(1, 2, 3)), vae.gaussian_kl(A, LOGVAR)),
        ("torch binary_cross_entropy_with_logits", "bernoulli_nll", bce.sum(dim=(1, 2, 3)),
         vae.bernoulli_nll(20 * A, X)),
        ("CMStochasticIterativeScheduler boundary scalings", "boundary_scalings", scalings,
         consistency.boundary_scalings(sigma)),
        ("rescale_zero_terminal_snr", "zero_terminal_snr", torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0),
         schedules.zero_terminal_snr(ABAR)[1:]),
    )]  # fmt: skip


def lcm():
    """c_out of diffusers lacks a factor."""
    theirs = LCMScheduler().get_scalings_for_boundary_condition_discrete(1)
    c_skip, c_out = consistency.boundary_scalings(10.0, sigma_min=0.0)
    return [row(
        "LCMScheduler boundary scalings", "boundary_scalings", "float64", ulps(theirs, (c_skip, c_out), "float64"),
        example=f"t = 1: c_out {theirs[1]:.6f}, ours {c_out:.6f}",
        why="sigma = 10 t, sigma_min = 0, and c_out without its factor sigma_data",
        explained=ulps(theirs, [c_skip, c_out / 0.5], "float64"),
        documented="yes: its docstring, as in the paper on latent consistency models",
    )]  # fmt: skip


def alphas():
    """Their alpha-bar is a product in float32."""
    found = []
    for name, kind, betas, ends in (
        ("linear", "linear", schedules.linear_betas(), {}),
        ("scaled_linear", "scaled_linear", schedules.scaled_linear_betas(), dict(beta_start=0.00085, beta_end=0.012)),
        ("cosine", "squaredcos_cap_v2", schedules.cosine_betas(), {}),
    ):  # fmt: skip
        theirs, ours = DDPMScheduler(beta_schedule=kind, **ends).alphas_cumprod.numpy(), schedules.alpha_bar(betas)[1:]
        relative, left = (float(np.max(np.abs(theirs / abar - 1))) for abar in (ours, in_float32(betas)))
        how = dict(why="betas and their product in float32", explained=left / 2.0**-23, documented="no")
        example, error = f"relative difference up to {relative:.2g}", relative / 2.0**-23
        found.append(row(f"alphas_cumprod, {name}", "alpha_bar", "float32", error, example=example, **how))
    return found


def times():
    """Every number of steps from 1 to T."""
    found = []
    for spacing in SPACINGS:
        scheduler, wrong = DDIMScheduler(timestep_spacing=spacing), {}
        for steps in range(1, T + 1):
            scheduler.set_timesteps(steps)  # `time_from_index` refuses the -1 that is found here
            theirs, ours = scheduler.timesteps.numpy() + 1, schedules.spaced_times(T, steps, spacing)
            if not np.array_equal(theirs, ours[:-1]):
                wrong[steps] = theirs, 0.0 if np.array_equal(theirs, ours) else np.inf
        names = f"DDIMScheduler.set_timesteps, {spacing}", "spaced_times", "int64"
        if not wrong:
            found.append(row(*names, 0.0, example=f"all {T} numbers of steps"))
            continue
        first, (theirs, left) = next(iter(wrong.items()))
        gives = f"{theirs.size} times, the last of them t = {theirs[-1]}"
        example = f"{len(wrong)} of {T} numbers of steps, the first {first}, where it gives {gives}"
        why = "numpy.arange of fractional steps goes one too far by rounding"
        found.append(row(*names, np.inf, example=example, why=why, explained=left, documented="no"))
    return found
