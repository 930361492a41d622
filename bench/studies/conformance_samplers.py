"""The part of `conformance` that runs whole samplers of diffusers in their own loop, on an exact model."""
from functools import partial
from itertools import pairwise, product

import numpy as np
import torch
from diffusers import (
    DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)  # fmt: skip

from bench.studies.conformance import (
    ABAR, SHAPE, SPACINGS, STEPS, T, denoise, eps_model, in_float32, row, ulps, velocity,
)  # fmt: skip
from ref import diffusion, edm, philox, samplers, schedules

X = philox.normal(0, SHAPE)
LEVELS = ((EulerDiscreteScheduler, samplers.euler), (HeunDiscreteScheduler, samplers.heun))
SIGMAS = (
    *({"timestep_spacing": how} for how in ("linspace", "leading", "trailing")), {"use_karras_sigmas": True},
)  # fmt: skip
OWN, GIVEN = "its own times", "sigmas=linspace(1, 1/S, S)"


def jobs(examples):
    """A function of nothing for each sampler and its options; it returns rows. examples: for the other parts."""
    spaced = list(product(SPACINGS, STEPS))
    variances = [(*one, variance) for one in spaced for variance in ("small", "large")]
    return [
        *(partial(ddim, *one) for one in spaced), ddim_ends_at_one, *(partial(ddpm, *one) for one in variances),
        *(partial(multistep, *one) for one in spaced),
        *(partial(levels, *kind, 30, options) for kind, options in product(LEVELS, SIGMAS)),
        *(partial(flow, 30, shift, how) for how, shift in product((OWN, GIVEN), (1.0, 3.0))),
    ]  # fmt: skip


def looped(scheduler, model, x, **more):
    """A scheduler's own loop from x. model: (x, its time) -> prediction. more: for each step. Returns a NumPy array."""
    x = torch.from_numpy(x)
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t), t, x, **more).prev_sample
    return x.numpy()


def at_index(x, t):
    """`eps_model` at diffusers' times, which count from 0."""
    return eps_model(x, int(t) + 1)


def exact(scheduler, steps):
    """The scheduler with alpha-bar in float64 and its times set."""
    scheduler.alphas_cumprod = torch.from_numpy(ABAR[1:])
    scheduler.set_timesteps(steps)
    return scheduler


def off(theirs, ours):
    """How far the sample is off, relative to its largest element, in words."""
    return f"the sample is {np.max(np.abs(theirs - ours)) / np.max(np.abs(ours)):.2g} off"


def ddim(spacing, steps):
    """It steps to t - T // S."""
    theirs = looped(exact(DDIMScheduler(timestep_spacing=spacing, clip_sample=False), steps), at_index, X)
    times = schedules.spaced_times(T, steps, spacing)
    ours = samplers.ddim(eps_model, X, times, None, 0.0, ABAR)
    names = f"DDIMScheduler, {spacing}, {steps} steps", "ddim", "float64", ulps(theirs, ours, "float64"), steps
    stride = [(t, max(t - T // steps, 0), s) for t, s in pairwise(times.tolist())]
    apart = next((step for step in stride if step[1] != step[2]), None)
    if apart is None:
        return [row(*names)]
    y = X
    for t, s, _ in stride:  # what theirs does, whatever time the model is called at next
        y = diffusion.ddim_step(y, eps_model(y, t), t, s, None, 0.0, ABAR)
    t, _, s = apart
    example = f"from t = {t} it steps to {t - T // steps} and calls the model next at {s}; {off(theirs, ours)}"
    why = "the previous time is t - T // S, not the next in the list, so steps do not meet"
    return [row(*names, example, why, ulps(theirs, y, "float64"), "no")]


def ddim_ends_at_one():
    """An option ends before the data."""
    scheduler = exact(DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1), 50)
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    theirs = looped(scheduler, at_index, X)
    times = schedules.time_from_index(scheduler.timesteps.numpy())
    ours, until_one = (samplers.ddim(eps_model, X, [*times, end], None, 0.0, ABAR) for end in (0, 1))
    return [row(
        "DDIMScheduler, leading, 50 steps, set_alpha_to_one=False, steps_offset=1", "ddim", "float64",
        ulps(theirs, ours, "float64"), 50, f"the last step goes from t = {times[-1]} to 1; {off(theirs, ours)}",
        "it ends at t = 1 and not at the data, t = 0", ulps(theirs, until_one, "float64"), "yes: set_alpha_to_one",
    )]  # fmt: skip


def ddpm(spacing, steps, variance):
    """It adds noise in the last step unless that is from index 0."""
    options = dict(timestep_spacing=spacing, clip_sample=False, variance_type=f"fixed_{variance}")
    scheduler = exact(DDPMScheduler(**options), steps)
    theirs = looped(scheduler, at_index, X, generator=torch.Generator().manual_seed(0))
    times = [*schedules.time_from_index(scheduler.timesteps.numpy()).tolist(), 0]
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(SHAPE, generator=generator, dtype=torch.float64).numpy() for _ in range(steps)]
    ours = samplers.ddpm(eps_model, X, times, noise, ABAR, variance)
    name, error = f"DDPMScheduler, {spacing}, {steps} steps, fixed_{variance}", ulps(theirs, ours, "float64")
    if times[-2] == 1:
        return [row(name, "ddpm", "float64", error, steps)]
    added = np.sqrt(1 - ABAR[times[-2]]) if variance == "large" else 1e-10
    example = f"the last step, from t = {times[-2]} to the data, adds {added:.2g} z"
    why = "noise is left out at index 0 only, and the last index here is another"
    documented = "yes: a comment says that a variance is at least 1e-20" if variance == "small" else "no"
    left = ulps(theirs, ours + added * noise[-1], "float64")
    return [row(name, "ddpm", "float64", error, steps, example, why, left, documented)]


def multistep(spacing, steps):
    """Its times are those of one step more."""
    scheduler, name = DPMSolverMultistepScheduler(timestep_spacing=spacing), f"{spacing}, {steps} steps"
    scheduler.set_timesteps(steps)
    x = X.astype(np.float32)
    theirs = looped(scheduler, at_index, x)
    times = [*schedules.time_from_index(scheduler.timesteps.numpy()).tolist(), 0]
    error = ulps(theirs, samplers.dpmpp_2m(eps_model, x, times, ABAR), "float32")
    rows = [row(f"DPMSolverMultistepScheduler 2M, {name}", "dpmpp_2m at its times", "float32", error, steps)]
    expected, longer = (schedules.spaced_times(T, n, spacing).tolist() for n in (steps, steps + 1))
    if times != expected:
        names = f"DPMSolverMultistepScheduler.set_timesteps, {name}", "spaced_times", "int64", np.inf, steps
        left = 0.0 if times == [*longer[:-2], 0] else np.inf
        rows.append(row(*names, f"starts at {times[:2]}, ours at {expected[:2]}",
                        "the times of one step more, the last left out for the data", left, "no"))  # fmt: skip
    return rows


def levels(kind, sampler, steps, options):
    """The smallest of its noise levels are those of an alpha-bar in float32."""
    scheduler = kind(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, prediction_type="sample", **options)
    scheduler.set_timesteps(steps)
    grid = np.array(list(dict.fromkeys(scheduler.sigmas.tolist())))  # Heun's list has each twice
    x = (X * grid[0]).astype(np.float32)
    scheduler.is_scale_input_called = True
    theirs = looped(scheduler, lambda x, t: denoise(x, scheduler.sigmas[scheduler.step_index or 0]), x)
    how = f"{', '.join(f'{k}={v}' for k, v in options.items())}, {steps} steps"
    error = ulps(theirs, sampler(denoise, x.astype(np.float64), grid), "float32")
    rows = [row(f"{kind.__name__}, {how}", f"{sampler.__name__} at its sigmas", "float32", error, steps)]
    karras = "use_karras_sigmas" in options
    times = schedules.time_from_index(np.array(list(dict.fromkeys(scheduler.timesteps.tolist()))))
    wanted = [
        schedules.karras_sigmas(steps, *edm.sigma_from_abar(abar[[1, T]]))[:-1] if karras else edm.sigma_at(times, abar)
        for abar in (ABAR, np.append(1.0, in_float32(schedules.linear_betas())))
    ]  # fmt: skip
    found, left = (float(np.max(np.abs(grid[:-1] / sigmas - 1))) / 2.0**-23 for sigmas in wanted)
    example = f"the smallest sigma is {grid[-2]:.8g}, ours {wanted[0][-1]:.8g}"
    names = f"{kind.__name__} sigmas, {how}", "karras_sigmas" if karras else "sigma_at", "float32"
    return [*rows, row(*names, found, 1, example, "1 - alpha-bar of an alpha-bar in float32", left, "no")]


def flow(steps, shift, how):
    """Its own times end at 1/T, shifted twice."""
    scheduler, z, own = FlowMatchEulerDiscreteScheduler(shift=shift), X.astype(np.float32), how == OWN
    scheduler.set_timesteps(**({"num_inference_steps": steps} if own else {"sigmas": np.linspace(1, 1 / steps, steps)}))
    grid = scheduler.sigmas.numpy().astype(np.float64)
    theirs = looped(scheduler, lambda x, t: velocity(x, grid[scheduler.step_index or 0]), z)
    name, error = f"shift {shift:g}, {how}", ulps(theirs, samplers.flow_euler(velocity, z, grid), "float32")
    rows = [row(f"FlowMatchEulerDiscreteScheduler, {name}", "flow_euler at its times", "float32", error, steps)]
    wanted, least = schedules.flow_times(steps, shift), schedules.shift_times(1 / T, shift)
    names = f"FlowMatchEulerDiscreteScheduler times, {name}", "flow_times", "float32", ulps(grid, wanted, "float32"), 1
    if not own:
        return [*rows, row(*names)]
    explained = np.append(schedules.shift_times(np.linspace(1, least, steps), shift), 0)
    why = f"equally spaced from 1 to {'1/T' if shift == 1 else '1/T, which is shifted twice,'} and then to 0"
    example = f"the last time before 0 is {grid[-2]:.6f}, ours {wanted[-2]:.6f}"
    return [*rows, row(*names, example, why, ulps(grid, explained, "float32"), "no")]
