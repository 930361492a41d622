"""The part of `conformance` that runs whole samplers of diffusers in their own loop, on a model that is known exactly."""
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from diffusers import (
    DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, HeunDiscreteScheduler,
)  # fmt: skip

from bench.studies.conformance import ABAR, SHAPE, SPACINGS, STEPS, T, denoise, eps_model, in_float32, row, ulps, velocity
from ref import diffusion, edm, philox, samplers, schedules

X = philox.normal(0, SHAPE)
LEVELS = ((EulerDiscreteScheduler, samplers.euler), (HeunDiscreteScheduler, samplers.heun))
SIGMAS = ({"timestep_spacing": "linspace"}, {"timestep_spacing": "leading"}, {"timestep_spacing": "trailing"}, {"use_karras_sigmas": True})


def jobs():
    """A function of nothing for each sampler and its options; it returns rows."""
    spaced = [(spacing, steps) for spacing in SPACINGS for steps in STEPS]
    return [
        *(partial(ddim, *one) for one in spaced), ddim_ends_at_one, *(partial(ddpm, *one, variance) for one in spaced for variance in ("small", "large")),
        *(partial(multistep, *one) for one in spaced), *(partial(levels, kind, sampler, 30, **options) for kind, sampler in LEVELS for options in SIGMAS),
        *(partial(flow, 30, shift, how) for how in ("its own times", "sigmas=linspace(1, 1/S, S)") for shift in (1.0, 3.0)),
    ]  # fmt: skip


def looped(scheduler, model, x, **more):
    """A scheduler's own loop. model: (x, its time) -> prediction. x: NumPy array. Returns a NumPy array."""
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
    theirs = looped(exact(DDIMScheduler(timestep_spacing=spacing, clip_sample=False), steps), at_index, X)
    times = schedules.spaced_times(T, steps, spacing)
    ours = samplers.ddim(eps_model, X, times, None, 0.0, ABAR)
    found = partial(row, f"DDIMScheduler, {spacing}, {steps} steps", "ddim", "float64", ulps(theirs, ours, "float64"), steps)
    apart = next(((t, t - T // steps, s) for t, s in pairwise(times.tolist()) if max(t - T // steps, 0) != s), None)
    if apart is None:
        return [found()]
    y = X
    for t in times[:-1].tolist():  # what theirs does: from t to t - T // S, whatever time the model is called at next
        y = diffusion.ddim_step(y, eps_model(y, t), t, max(t - T // steps, 0), None, 0.0, ABAR)
    return [found(f"from t = {apart[0]} it steps to {apart[1]} and calls the model next at {apart[2]}; {off(theirs, ours)}",
                  "the previous time is t - T // S, not the next in the list, so steps do not meet", ulps(theirs, y, "float64"), "no")]  # fmt: skip


def ddim_ends_at_one():
    scheduler = exact(DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1), 50)
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    theirs = looped(scheduler, at_index, X)
    times = schedules.time_from_index(scheduler.timesteps.numpy())
    ours, until_one = (samplers.ddim(eps_model, X, [*times, end], None, 0.0, ABAR) for end in (0, 1))
    return [row("DDIMScheduler, leading, 50 steps, set_alpha_to_one=False, steps_offset=1", "ddim", "float64", ulps(theirs, ours, "float64"), 50,
                f"the last step goes from t = {times[-1]} to 1; {off(theirs, ours)}", "it ends at t = 1 and not at the data, t = 0",
                ulps(theirs, until_one, "float64"), "yes: set_alpha_to_one")]  # fmt: skip


def ddpm(spacing, steps, variance):
    scheduler = exact(DDPMScheduler(timestep_spacing=spacing, clip_sample=False, variance_type=f"fixed_{variance}"), steps)
    theirs = looped(scheduler, at_index, X, generator=torch.Generator().manual_seed(0))
    times = [*schedules.time_from_index(scheduler.timesteps.numpy()).tolist(), 0]
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(SHAPE, generator=generator, dtype=torch.float64).numpy() for _ in range(steps)]
    ours = samplers.ddpm(eps_model, X, times, noise, ABAR, variance)
    found = partial(row, f"DDPMScheduler, {spacing}, {steps} steps, fixed_{variance}", "ddpm", "float64", ulps(theirs, ours, "float64"), steps)
    added = np.sqrt(1 - ABAR[times[-2]]) if variance == "large" and times[-2] > 1 else 1e-10 if times[-2] > 1 else 0.0
    if not added:
        return [found()]
    return [found(f"the last step, from t = {times[-2]} to the data, adds {added:.2g} z", "noise is left out at index 0 only, and the last index here is another",
                  ulps(theirs, ours + added * noise[-1], "float64"), "yes: a comment says that a variance is at least 1e-20" if variance == "small" else "no")]  # fmt: skip


def multistep(spacing, steps):
    scheduler, name, x = DPMSolverMultistepScheduler(timestep_spacing=spacing), f"{spacing}, {steps} steps", X.astype(np.float32)
    scheduler.set_timesteps(steps)
    theirs = looped(scheduler, at_index, x)
    times = [*schedules.time_from_index(scheduler.timesteps.numpy()).tolist(), 0]
    ours = samplers.dpmpp_2m(eps_model, x, times, ABAR)
    rows = [row(f"DPMSolverMultistepScheduler 2M, {name}", "dpmpp_2m at its times", "float32", ulps(theirs, ours, "float32"), steps)]
    expected, longer = (schedules.spaced_times(T, n, spacing).tolist() for n in (steps, steps + 1))
    if times != expected:
        rows.append(row(f"DPMSolverMultistepScheduler.set_timesteps, {name}", "spaced_times", "int64", np.inf, steps, f"starts at {times[:2]}, ours at {expected[:2]}",
                        "the times of one step more, the last left out for the data", 0.0 if times == [*longer[:-2], 0] else np.inf, "no"))  # fmt: skip
    return rows


def levels(kind, sampler, steps, **options):
    scheduler = kind(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, prediction_type="sample", **options)
    scheduler.set_timesteps(steps)
    grid = np.array(list(dict.fromkeys(scheduler.sigmas.tolist())))  # Heun's list has each twice
    x = (X * grid[0]).astype(np.float32)
    scheduler.is_scale_input_called = True
    theirs = looped(scheduler, lambda x, t: denoise(x, scheduler.sigmas[scheduler.step_index or 0]), x)
    name, how = kind.__name__, f"{', '.join(f'{k}={v}' for k, v in options.items())}, {steps} steps"
    rows = [row(f"{name}, {how}", f"{sampler.__name__} at its sigmas", "float32", ulps(theirs, sampler(denoise, x.astype(np.float64), grid), "float32"), steps)]

    def wanted(abar):
        if "use_karras_sigmas" in options:
            return schedules.karras_sigmas(steps, *edm.sigma_from_abar(abar[[1, T]]))
        return np.append(edm.sigma_at(schedules.time_from_index(np.array(list(dict.fromkeys(scheduler.timesteps.tolist())))), abar), 0)

    rounded = np.append(1.0, in_float32(schedules.linear_betas()))
    found, left = (float(np.max(np.abs(grid[:-1] / wanted(abar)[:-1] - 1))) / 2.0**-23 for abar in (ABAR, rounded))
    rows.append(row(f"{name} sigmas, {how}", "karras_sigmas" if "use_karras_sigmas" in options else "sigma_at", "float32", found, 1,
                    f"the smallest sigma is {grid[-2]:.8g}, ours {wanted(ABAR)[-2]:.8g}", "1 - alpha-bar of an alpha-bar in float32", left, "no"))  # fmt: skip
    return rows


def flow(steps, shift, how):
    scheduler, z = FlowMatchEulerDiscreteScheduler(shift=shift), X.astype(np.float32)
    scheduler.set_timesteps(**({"num_inference_steps": steps} if how == "its own times" else {"sigmas": np.linspace(1, 1 / steps, steps)}))
    grid = scheduler.sigmas.numpy().astype(np.float64)
    theirs = looped(scheduler, lambda x, t: velocity(x, grid[scheduler.step_index or 0]), z)
    name = f"shift {shift:g}, {how}"
    rows = [row(f"FlowMatchEulerDiscreteScheduler, {name}", "flow_euler at its times", "float32", ulps(theirs, samplers.flow_euler(velocity, z, grid), "float32"), steps)]
    wanted, least = schedules.flow_times(steps, shift), schedules.shift_times(1 / T, shift)
    found = partial(row, f"FlowMatchEulerDiscreteScheduler times, {name}", "flow_times", "float32", ulps(grid, wanted, "float32"), 1)
    if how != "its own times":
        return [*rows, found()]
    explained = np.append(schedules.shift_times(np.linspace(1, least, steps), shift), 0)
    why = f"equally spaced from 1 to {'1/T' if shift == 1 else '1/T, which is shifted twice,'} and then to 0"
    return [*rows, found(f"the last time before 0 is {grid[-2]:.6f}, ours {wanted[-2]:.6f}", why, ulps(grid, explained, "float32"), "no")]
