"""The part of `conformance` that holds single steps of diffusers' schedulers against the operations, by the checker of
`kernels.check`. Each function here takes the arguments of its operation.
"""
from functools import cache, partial

import diffusers
import numpy as np
import torch
from diffusers.schedulers import scheduling_ddpm

from bench.studies.conformance import row
from kernels.check import search
from kernels.check.adapter import find

TIMES = ("u", "t", "s", "sigma", "sigma_next")
BOTH, ONE, ZERO = ("float32", "float64"), ("float32",), ("zero_based",)


def jobs(examples):
    """A function of nothing for each step that a scheduler takes and the registry has; it returns rows."""
    table = [  # name, function, operation, dtypes, conventions, where a difference is documented
        ("DDPMScheduler.add_noise", add_noise, "q_sample", BOTH, ZERO, ""),
        ("DDPMScheduler.get_velocity", get_velocity, "v_target", BOTH, ZERO, ""),
        ("DDPMScheduler.step", by_row(partial(ddpm, True)), "ddpm_step", ONE, ZERO,
         "no: a step is the last where t = 0, also at spacings that end elsewhere"),
        ("DDPMScheduler.step, no noise at the last", by_row(partial(ddpm, False)), "ddpm_step", BOTH, ZERO, ""),
        ("DDIMScheduler.step", by_row(partial(ddim, False)), "ddim_step", ONE, ZERO,
         "yes: use_clipped_model_output=False is the default"),
        ("DDIMScheduler.step, use_clipped_model_output", by_row(partial(ddim, True)), "ddim_step", BOTH, ZERO, ""),
        ("DPMSolverMultistepScheduler.step, dpmsolver++ 2M", by_row(dpmpp_2m), "guided_dpmpp_2m_step", ONE, ZERO, ""),
        ("HeunDiscreteScheduler.step, twice", by_row(heun), "heun_step", BOTH, (), ""),
        ("FlowMatchEulerDiscreteScheduler.step", by_row(flow), "guided_flow_step", ONE, (), ""),
    ]  # fmt: skip
    return [partial(checked, *entry, examples) for entry in table]


def checked(name, function, op, dtypes, conventions, documented, examples):
    """A row for each dtype: theirs, by the checker, under the operation's arguments."""
    found = []
    for dtype in dtypes:
        verdict = search.check(function, op, dtype, "torch", examples=examples, conventions=conventions)
        worst = verdict.error * find(op).ulps  # an upper bound, for less may be allowed
        worst = worst if worst < 1 / np.finfo(dtype).eps else np.inf
        line = row(name, op, dtype, worst, example=verdict.message, why=verdict.cause, documented=documented)
        found.append(line | {"verdict": "agrees" if verdict else "differs"})
    return found


def by_row(step):
    """A step of one example and int or float times, made one for a batch and times for each example."""

    def whole(**a):
        tensors = {n: x for n, x in a.items() if torch.is_tensor(x) and n != "abar"}
        times = {n: x for n, x in tensors.items() if n in TIMES}
        data = {n: x for n, x in tensors.items() if n not in TIMES}
        if not times:
            return step(**a)
        first = next(iter(data.values()))
        if first.shape[0] == 0:
            return (a["xt"].clone(), a["xt"].clone()) if "x0_last" in a else first.clone()
        parts = []
        for i in range(first.shape[0]):
            own = {n: x[i : i + 1] for n, x in data.items()} | {n: x[i].item() for n, x in times.items()}
            parts.append(step(**(a | own)))
        return tuple(map(torch.cat, zip(*parts))) if isinstance(parts[0], tuple) else torch.cat(parts)

    return whole


@cache
def scheduler_of(kind, **options):
    """The scheduler of diffusers' name with these options, made once."""
    return getattr(diffusers, kind)(**options)


def given(abar, kind, **options):
    """`scheduler_of` with this alpha-bar."""
    scheduler = scheduler_of(kind, **options)
    scheduler.alphas_cumprod = abar
    return scheduler


def clipped(clip):
    """The options of a scheduler that clips x0_hat to [-clip, clip], or not at all."""
    return {"clip_sample": clip is not None, "clip_sample_range": clip or 1.0}


def add_noise(x0, t, eps, abar):
    """q_sample."""
    return given(abar, "DDPMScheduler").add_noise(x0, eps, torch.as_tensor(t).reshape(-1))


def get_velocity(x0, eps, t, abar):
    """v_target."""
    return given(abar, "DDPMScheduler").get_velocity(x0, eps, torch.as_tensor(t).reshape(-1))


def ddim(rederive, xt, eps_hat, t, s, z, eta, abar, clip=None):
    """ddim_step. rederive: whether eps_hat is computed again from the clipped x0_hat."""
    scheduler = given(abar, "DDIMScheduler", **clipped(clip))
    scheduler.register_to_config(num_train_timesteps=t - s)  # it steps by num_train_timesteps // num_inference_steps
    scheduler.num_inference_steps = 1
    return scheduler.step(eps_hat, t, xt, eta, use_clipped_model_output=rederive, variance_noise=z).prev_sample


def ddpm(last, xt, eps_hat, t, s, z, abar, variance="small", clip=None):
    """ddpm_step with its own noise replaced by z. last: whether also the step to the data gets z, or 0."""
    kept = scheduling_ddpm.randn_tensor
    scheduling_ddpm.randn_tensor = lambda *_, **__: (z if last or s >= 0 else 0 * z)[:, None]
    try:
        scheduler = given(abar, "DDPMScheduler", variance_type=f"fixed_{variance}", **clipped(clip))
        scheduler.timesteps, scheduler.num_inference_steps = torch.tensor([t, s][: 1 + (s >= 0)]), 1
        return scheduler.step(eps_hat[:, None], t, xt[:, None]).prev_sample[:, 0]  # it needs a second axis
    finally:
        scheduling_ddpm.randn_tensor = kept


def dpmpp_2m(xt, uncond, cond, w, x0_last, u, t, s, abar):
    """guided_dpmpp_2m_step."""
    options = dict(algorithm_type="dpmsolver++", solver_order=2, lower_order_final=False)
    multistep, sigma = scheduler_of("DPMSolverMultistepScheduler", **options), ((1 - abar) / abar).sqrt()
    sigma = torch.cat([sigma, abar.new_zeros(1)])  # at -1 the data
    multistep.sigmas = torch.stack([sigma[t if u is None else u], sigma[t], sigma[s]])
    multistep.timesteps = torch.arange(2 if s < 0 else 3)
    multistep._step_index, multistep.num_inference_steps, multistep.lower_order_nums = 1, 2, int(u is not None)
    multistep.model_outputs = [None, x0_last]
    return multistep.step(uncond + w * (cond - uncond), t, xt).prev_sample, multistep.model_outputs[-1]


def flow(xt, uncond, cond, w, t, s):
    """guided_flow_step."""
    straight = scheduler_of("FlowMatchEulerDiscreteScheduler")
    straight.sigmas, straight._step_index = torch.tensor([t, s], dtype=torch.float64), 0
    return straight.step(uncond + w * (cond - uncond), torch.tensor(t), xt).prev_sample


def heun(x, denoised, denoised_next, sigma, sigma_next):
    """heun_step, by two calls."""
    second = scheduler_of("HeunDiscreteScheduler", prediction_type="sample")
    second.sigmas, second._step_index = torch.tensor([sigma, sigma_next, sigma_next], dtype=torch.float64), 0
    second.prev_derivative = second.dt = None
    guess = second.step(denoised, torch.tensor(0.0), x).prev_sample
    return second.step(denoised_next, torch.tensor(0.0), guess).prev_sample
