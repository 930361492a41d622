"""Do the schedulers and losses that everybody uses keep the papers' equations? diffusers and torch, held against the truth.

Single steps go through the checker of `kernels.check`, with alpha-bar given in float64, so that it is the equation that is compared. Whole
samplers run their own loop on a model that is known exactly, data of N(0, 1/4), against `ref.samplers`; where the two differ, the convention
that is said to explain it is computed too, by the functions of `ref`, and has to reproduce what came.
"""
import csv
import importlib.metadata
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np

from bench.studies import results
from kernels.check import search
from kernels.check.adapter import find
from ref import consistency, diffusion, edm, guidance, philox, samplers, schedules, vae

T, SHAPE, DATA_STD = 1000, (4, 3, 8, 8), 0.5
ABAR = schedules.alpha_bar(schedules.linear_betas())
SPACINGS = ("leading", "linspace", "trailing")
STEPS = (50, 30)  # one divides T, one does not
AGREES = 4  # ulps a step


def run(out, progress, examples=200):
    """Compare all; conformance.png, conformance.csv and conformance.txt. out: folder. progress: called with (done, total). examples: of the
    checker, for each operation and dtype. Raises ModuleNotFoundError where torch or diffusers is not installed."""
    try:
        import diffusers
        import torch
    except ModuleNotFoundError as reason:
        raise ModuleNotFoundError(f'{reason.name} is not installed: pip install -e ".[peers]"', name=reason.name) from None
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()
    jobs = [*_steps(examples), *_functions(), *_whole_ddim(), *_whole_ddpm(), *_whole_sigmas(), *_whole_flow()]
    tick, rows = results.ticker(progress, len(jobs)), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for job in jobs:
            rows += job()
            tick()
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "diffusers", "numpy"))
    rows = [row | {"versions": found} for row in rows]
    results.write(out, "conformance", draw(rows), rows, sentences(rows))


def row(theirs, ours, dtype, ulps, steps=1, example="", why="", explained=None, documented=""):
    """One line of the table. theirs, ours: names. dtype: they ran in. ulps: worst difference. steps: of a sampler. example: the smallest that shows it.
    why: the convention. explained: ulps that are left when ours does as why says, or None. documented: where theirs says so. Returns a dict."""
    verdict = "agrees" if ulps <= AGREES * steps else "differs"
    return {"theirs": theirs, "ours": ours, "dtype": dtype, "verdict": verdict, "ulps": ulps, "example": example, "convention": why,
            "ulps_explained": "" if explained is None else explained, "documented": documented}  # fmt: skip


def ulps(theirs, ours, dtype):
    """The largest difference in units of the last place of the largest element. theirs, ours: arrays. dtype: name, of theirs."""
    theirs, ours = np.asarray(theirs, np.float64), np.asarray(ours, np.float64)
    return float(np.max(np.abs(theirs - ours)) / (np.finfo(dtype).eps * np.max(np.abs(ours))))


# --- single steps, by the checker ------------------------------------------------------------------------------------


def _steps(examples):
    """A job for each step that a scheduler takes and the registry has."""
    import diffusers
    import torch

    def by_row(step):
        """step of one example and int or float times, for a batch and times for each example."""

        def whole(**a):
            times = {n: a[n] for n in ("u", "t", "s", "sigma", "sigma_next") if torch.is_tensor(a.get(n))}
            data = [n for n, x in a.items() if torch.is_tensor(x) and n not in (*times, "abar")]
            if not times:
                return step(**a)
            if a[data[0]].shape[0] == 0:
                return (a["xt"].clone(), a["xt"].clone()) if "x0_last" in a else a[data[0]].clone()
            parts = [step(**(a | {n: a[n][i : i + 1] for n in data} | {n: x[i].item() for n, x in times.items()})) for i in range(a[data[0]].shape[0])]
            return tuple(map(torch.cat, zip(*parts))) if isinstance(parts[0], tuple) else torch.cat(parts)

        return whole

    def given(scheduler, abar):
        scheduler.alphas_cumprod = abar
        return scheduler

    noising, ddims, ddpms = diffusers.DDPMScheduler(), {}, {}

    def add_noise(x0, t, eps, abar):
        return given(noising, abar).add_noise(x0, eps, torch.as_tensor(t).reshape(-1))

    def get_velocity(x0, eps, t, abar):
        return given(noising, abar).get_velocity(x0, eps, torch.as_tensor(t).reshape(-1))

    def ddim(rederive):
        def step(xt, eps_hat, t, s, z, eta, abar, clip=None):
            scheduler = given(ddims.setdefault(clip, diffusers.DDIMScheduler(clip_sample=clip is not None, clip_sample_range=clip or 1.0)), abar)
            scheduler.register_to_config(num_train_timesteps=t - s)  # it steps by num_train_timesteps // num_inference_steps
            scheduler.num_inference_steps = 1
            return scheduler.step(eps_hat, t, xt, eta, use_clipped_model_output=rederive, variance_noise=z).prev_sample

        return step

    def ddpm(last):
        def step(xt, eps_hat, t, s, z, abar, variance="small", clip=None):
            import diffusers.schedulers.scheduling_ddpm as module

            kept, module.randn_tensor = module.randn_tensor, lambda *_, **__: (z if last or s >= 0 else 0 * z)[:, None]
            try:
                scheduler = ddpms.setdefault((variance, clip), diffusers.DDPMScheduler(variance_type=f"fixed_{variance}", clip_sample=clip is not None, clip_sample_range=clip or 1.0))
                scheduler.timesteps, scheduler.num_inference_steps = torch.tensor([t, s][: 1 + (s >= 0)]), 1
                return given(scheduler, abar).step(eps_hat[:, None], t, xt[:, None]).prev_sample[:, 0]  # it looks at a second axis
            finally:
                module.randn_tensor = kept

        return step

    multistep = diffusers.DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, lower_order_final=False)

    def dpmpp_2m(xt, uncond, cond, w, x0_last, u, t, s, abar):
        sigma = torch.cat([((1 - abar) / abar).sqrt(), abar.new_zeros(1)])  # at -1 the data
        multistep.sigmas = torch.stack([sigma[t if u is None else u], sigma[t], sigma[s]])
        multistep.timesteps = torch.arange(2 if s < 0 else 3)
        multistep._step_index, multistep.num_inference_steps, multistep.lower_order_nums = 1, 2, int(u is not None)
        multistep.model_outputs = [None, x0_last]
        eps_hat = uncond + w * (cond - uncond)
        return multistep.step(eps_hat, t, xt).prev_sample, multistep.model_outputs[-1]

    straight = diffusers.FlowMatchEulerDiscreteScheduler()

    def flow(xt, uncond, cond, w, t, s):
        straight.sigmas, straight._step_index = torch.tensor([t, s], dtype=torch.float64), 0
        return straight.step(uncond + w * (cond - uncond), torch.tensor(t), xt).prev_sample

    second = diffusers.HeunDiscreteScheduler(prediction_type="sample")

    def heun(x, denoised, denoised_next, sigma, sigma_next):
        second.sigmas, second._step_index = torch.tensor([sigma, sigma_next, sigma_next], dtype=torch.float64), 0
        second.prev_derivative = second.dt = None
        guess = second.step(denoised, torch.tensor(0.0), x).prev_sample
        return second.step(denoised_next, torch.tensor(0.0), guess).prev_sample

    zero = ("zero_based",)
    table = [  # name, function, operation, dtypes, conventions, where a difference is documented
        ("DDPMScheduler.add_noise", add_noise, "q_sample", ("float32", "float64"), zero, ""),
        ("DDPMScheduler.get_velocity", get_velocity, "v_target", ("float32", "float64"), zero, ""),
        ("DDPMScheduler.step", by_row(ddpm(True)), "ddpm_step", ("float32",), zero, "no: a step is the last where t = 0, also at spacings that end elsewhere"),
        ("DDPMScheduler.step, no noise at the last", by_row(ddpm(False)), "ddpm_step", ("float32", "float64"), zero, ""),
        ("DDIMScheduler.step", by_row(ddim(False)), "ddim_step", ("float32",), zero, "yes: use_clipped_model_output=False is the default"),
        ("DDIMScheduler.step, use_clipped_model_output", by_row(ddim(True)), "ddim_step", ("float32", "float64"), zero, ""),
        ("DPMSolverMultistepScheduler.step, dpmsolver++ 2M", by_row(dpmpp_2m), "guided_dpmpp_2m_step", ("float32",), zero, ""),
        ("HeunDiscreteScheduler.step, twice", by_row(heun), "heun_step", ("float32", "float64"), (), ""),
        ("FlowMatchEulerDiscreteScheduler.step", by_row(flow), "guided_flow_step", ("float32",), (), ""),
    ]
    return [lambda entry=entry: _checked(*entry, examples) for entry in table]


def _checked(name, function, op, dtypes, conventions, documented, examples):
    rows = []
    for dtype in dtypes:
        verdict = search.check(function, op, dtype, "torch", examples=examples, conventions=conventions)
        worst = verdict.error * find(op).ulps  # an upper bound, for less may be allowed
        found = row(name, op, dtype, worst if worst < 1 / np.finfo(dtype).eps else np.inf, example=verdict.message, why=verdict.cause, documented=documented)
        rows.append(found | {"verdict": "agrees" if verdict else "differs"})
    return rows


# --- functions, called once on the same numbers ----------------------------------------------------------------------


def _functions():
    """A job for each function that is compared without the checker: the registry has no such operation."""
    import torch
    from diffusers import CMStochasticIterativeScheduler, DDIMScheduler, DDPMScheduler, LCMScheduler
    from diffusers.guiders.guider_utils import rescale_noise_cfg
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    a, b = philox.normal(0, SHAPE), philox.normal(1, SHAPE)
    logvar, x = philox.normal(2, SHAPE), philox.uniform(3, SHAPE).astype(np.float64)
    ta, tb, tlogvar, tx = map(torch.from_numpy, (a, b, logvar, x))

    def rescale():
        theirs = rescale_noise_cfg(torch.from_numpy(guidance.guide(a, b, 7.5)), tb, 0.7)
        return [row("rescale_noise_cfg", "guide_rescaled", "float64", ulps(theirs, guidance.guide_rescaled(a, b, 7.5, 0.7), "float64"))]

    def kl():
        normal = torch.distributions.Normal
        theirs = torch.distributions.kl_divergence(normal(ta, (tlogvar / 2).exp()), normal(0.0, 1.0)).sum(dim=(1, 2, 3))
        return [row("torch.distributions.kl_divergence", "gaussian_kl", "float64", ulps(theirs, vae.gaussian_kl(a, logvar), "float64"))]

    def bce():
        theirs = torch.nn.functional.binary_cross_entropy_with_logits(20 * ta, tx, reduction="none").sum(dim=(1, 2, 3))
        return [row("torch binary_cross_entropy_with_logits", "bernoulli_nll", "float64", ulps(theirs, vae.bernoulli_nll(20 * a, x), "float64"))]

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
        ours = consistency.boundary_scalings(sigma)
        return [row("CMStochasticIterativeScheduler boundary scalings", "boundary_scalings", "float64", ulps(theirs, ours, "float64"))]

    def alphas():
        rows = []
        for name, kind, betas in (("linear", "linear", schedules.linear_betas()), ("scaled_linear", "scaled_linear", schedules.scaled_linear_betas()),
                                  ("cosine", "squaredcos_cap_v2", schedules.cosine_betas())):  # fmt: skip
            ends = {"beta_start": 0.00085, "beta_end": 0.012} if name == "scaled_linear" else {}
            theirs, ours = DDPMScheduler(beta_schedule=kind, **ends).alphas_cumprod.numpy(), schedules.alpha_bar(betas)[1:]
            relative = float(np.max(np.abs(theirs / ours - 1)))
            exact = in_float32(betas)
            rows.append(row(f"alphas_cumprod, {name}", "alpha_bar", "float32", relative / 2.0**-23, example=f"relative difference up to {relative:.2g}",
                            why="betas and their product in float32", explained=float(np.max(np.abs(theirs / exact - 1))) / 2.0**-23, documented="no"))  # fmt: skip
        return rows

    def zero_snr():
        betas = torch.from_numpy(schedules.linear_betas())
        theirs = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0)
        return [row("rescale_zero_terminal_snr", "zero_terminal_snr", "float64", ulps(theirs, schedules.zero_terminal_snr(ABAR)[1:], "float64"))]

    def times():
        rows = []
        for spacing in SPACINGS:
            scheduler, wrong = DDIMScheduler(timestep_spacing=spacing), []
            for steps in range(1, T + 1):
                scheduler.set_timesteps(steps)
                if not np.array_equal(scheduler.timesteps.numpy() + 1, schedules.spaced_times(T, steps, spacing)[:-1]):  # `time_from_index` refuses the -1 that is found here
                    wrong.append(steps)
            example = f"{len(wrong)} of {T} numbers of steps, the first {wrong[0]}" if wrong else f"all {T} numbers of steps"
            if not wrong:
                rows.append(row(f"DDIMScheduler.set_timesteps, {spacing}", "spaced_times", "int64", 0.0, example=example))
                continue
            scheduler.set_timesteps(wrong[0])
            theirs, ours = scheduler.timesteps.numpy() + 1, schedules.spaced_times(T, wrong[0], spacing)
            rows.append(row(f"DDIMScheduler.set_timesteps, {spacing}", "spaced_times", "int64", np.inf, 1, f"{example}, where it gives {theirs.size} times, the last of them t = {theirs[-1]}",
                            "numpy.arange of fractional steps goes one too far by rounding", 0.0 if np.array_equal(theirs, ours) else np.inf, "no"))  # fmt: skip
        return rows

    return [rescale, kl, bce, lcm, cm, alphas, zero_snr, times]


def in_float32(betas):
    """Alpha-bar from 1 - beta in float32, multiplied up in float64 and stored in float32, as torch.cumprod does. betas: (T,). Returns (T,) float32."""
    return np.cumprod((1 - betas.astype(np.float32)).astype(np.float64)).astype(np.float32)


# --- whole samplers --------------------------------------------------------------------------------------------------


def eps_model(x, t):
    """What the noise is, on average, in x at time t, where the data are N(0, DATA_STD^2). x: (B, ...), NumPy or torch. t: int. Returns the same kind."""
    return x * float(np.sqrt(1 - ABAR[t]) / (ABAR[t] * DATA_STD**2 + 1 - ABAR[t]))


def denoise(x, sigma):
    """What the data are, on average, in x = x0 + sigma eps. x: (B, ...), NumPy or torch. sigma: number. Returns the same kind."""
    return x * (DATA_STD**2 / (DATA_STD**2 + float(sigma) ** 2))


def velocity(x, t):
    """The velocity of the flow, on average. x: (B, ...), NumPy or torch. t: number. Returns the same kind."""
    t = float(t)
    return x * ((t - (1 - t) * DATA_STD**2) / ((1 - t) ** 2 * DATA_STD**2 + t**2))


def looped(scheduler, model, x, **given):
    """A scheduler's own loop. model: (x, its time) -> prediction, scheduler: with its times set. x: NumPy array. given: to each step. Returns a NumPy array."""
    import torch

    x = torch.from_numpy(x)
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t), t, x, **given).prev_sample
    return x.numpy()


def _exact(scheduler):
    """The scheduler with alpha-bar in float64."""
    import torch

    scheduler.alphas_cumprod = torch.from_numpy(ABAR[1:])
    return scheduler


def _whole_ddim():
    from diffusers import DDIMScheduler

    x = philox.normal(0, SHAPE)

    def one(spacing, steps):
        scheduler = _exact(DDIMScheduler(timestep_spacing=spacing, clip_sample=False))
        scheduler.set_timesteps(steps)
        theirs = looped(scheduler, lambda x, t: eps_model(x, int(t) + 1), x)
        times = schedules.spaced_times(T, steps, spacing)
        ours = samplers.ddim(eps_model, x, times, None, 0.0, ABAR)
        apart = next(((t, t - T // steps, s) for t, s in pairwise(times.tolist()) if max(t - T // steps, 0) != s), None)
        y = x
        for t in times[:-1].tolist():  # what theirs does: from t to t - T // S, whatever time is asked next
            y = diffusion.ddim_step(y, eps_model(y, t), t, max(t - T // steps, 0), None, 0.0, ABAR)
        name = f"DDIMScheduler, {spacing}, {steps} steps"
        if apart is None:
            return [row(name, "ddim", "float64", ulps(theirs, ours, "float64"), steps)]
        relative = np.max(np.abs(theirs - ours)) / np.max(np.abs(ours))
        return [row(name, "ddim", "float64", ulps(theirs, ours, "float64"), steps, f"from t = {apart[0]} it steps to {apart[1]} and asks the model next at {apart[2]}; the sample is {relative:.2g} off",
                    "the previous time is t - T // S, not the next in the list, so steps do not meet", ulps(theirs, y, "float64"), "no")]  # fmt: skip

    def stable_diffusion():
        scheduler = _exact(DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1))
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
        scheduler.set_timesteps(50)
        theirs = looped(scheduler, lambda x, t: eps_model(x, int(t) + 1), x)
        times = schedules.time_from_index(scheduler.timesteps.numpy())
        ours = samplers.ddim(eps_model, x, [*times, 0], None, 0.0, ABAR)
        relative = np.max(np.abs(theirs - ours)) / np.max(np.abs(ours))
        return [row("DDIMScheduler, leading, 50 steps, set_alpha_to_one=False, steps_offset=1", "ddim", "float64", ulps(theirs, ours, "float64"), 50,
                    f"the last step goes from t = {times[-1]} to 1; the sample is {relative:.2g} off", "it ends at t = 1 and not at the data, t = 0",
                    ulps(theirs, samplers.ddim(eps_model, x, [*times, 1], None, 0.0, ABAR), "float64"), "yes: set_alpha_to_one")]  # fmt: skip

    return [lambda a=a, b=b: one(a, b) for a in SPACINGS for b in STEPS] + [stable_diffusion]


def _whole_ddpm():
    import torch
    from diffusers import DDPMScheduler

    x = philox.normal(0, SHAPE)

    def one(spacing, steps, variance):
        scheduler = _exact(DDPMScheduler(timestep_spacing=spacing, clip_sample=False, variance_type=f"fixed_{variance}"))
        scheduler.set_timesteps(steps)
        theirs = looped(scheduler, lambda x, t: eps_model(x, int(t) + 1), x, generator=torch.Generator().manual_seed(0))
        times = [*schedules.time_from_index(scheduler.timesteps.numpy()).tolist(), 0]
        generator = torch.Generator().manual_seed(0)
        noise = [torch.randn(SHAPE, generator=generator, dtype=torch.float64).numpy() for _ in range(steps)]
        ours = samplers.ddpm(eps_model, x, times, noise, ABAR, variance)
        added = np.sqrt(1 - ABAR[times[-2]]) if variance == "large" and times[-2] > 1 else 1e-10 if times[-2] > 1 else 0.0
        name, found = f"DDPMScheduler, {spacing}, {steps} steps, fixed_{variance}", ulps(theirs, ours, "float64")
        if not added:
            return [row(name, "ddpm", "float64", found, steps)]
        return [row(name, "ddpm", "float64", found, steps, f"the last step, from t = {times[-2]} to the data, adds {added:.2g} z", "noise is left out at index 0 only, and the last index here is another",
                    ulps(theirs, ours + added * noise[-1], "float64"), "yes: a comment says that a variance is at least 1e-20" if variance == "small" else "no")]  # fmt: skip

    return [lambda a=a, b=b, c=c: one(a, b, c) for a in SPACINGS for b in STEPS for c in ("small", "large")]


def _whole_sigmas():
    from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler

    z = philox.normal(0, SHAPE)

    def multistep(spacing, steps):
        scheduler = DPMSolverMultistepScheduler(timestep_spacing=spacing)
        scheduler.set_timesteps(steps)
        theirs = looped(scheduler, lambda x, t: eps_model(x, int(t) + 1), z.astype(np.float32))
        times = [*schedules.time_from_index(scheduler.timesteps.numpy()).tolist(), 0]
        ours = samplers.dpmpp_2m(eps_model, z.astype(np.float32), times, ABAR)
        rows = [row(f"DPMSolverMultistepScheduler 2M, {spacing}, {steps} steps", "dpmpp_2m at its times", "float32", ulps(theirs, ours, "float32"), steps)]
        expected = schedules.spaced_times(T, steps, spacing).tolist()
        if times != expected:
            longer = schedules.spaced_times(T, steps + 1, spacing).tolist()
            rows.append(row(f"DPMSolverMultistepScheduler.set_timesteps, {spacing}, {steps} steps", "spaced_times", "int64", np.inf, steps, f"starts at {times[:2]}, ours at {expected[:2]}",
                            "the times of one step more, the last left out for the data", 0.0 if times == [*longer[:-2], 0] else np.inf, "no"))  # fmt: skip
        return rows

    def levels(scheduler, name, sampler, steps, **options):
        scheduler = scheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, prediction_type="sample", **options)
        scheduler.set_timesteps(steps)
        grid = np.array(list(dict.fromkeys(scheduler.sigmas.tolist())))  # Heun's list has each twice
        x = (z * grid[0]).astype(np.float32)
        scheduler.is_scale_input_called = True

        def model(x, t):
            index = 0 if scheduler.step_index is None else scheduler.step_index
            return denoise(x, scheduler.sigmas[index])

        theirs, said = looped(scheduler, model, x), ", ".join(f"{k}={v}" for k, v in options.items())
        rows = [row(f"{name}, {said}, {steps} steps", f"{sampler.__name__} at its sigmas", "float32", ulps(theirs, sampler(denoise, x.astype(np.float64), grid), "float32"), steps)]
        rounded = in_float32(schedules.linear_betas())

        def wanted(abar):
            if "use_karras_sigmas" in options:
                return schedules.karras_sigmas(steps, *edm.sigma_from_abar(abar[[1, T]]))
            return np.append(edm.sigma_at(schedules.time_from_index(np.array(list(dict.fromkeys(scheduler.timesteps.tolist())))), abar), 0)

        found, left = (float(np.max(np.abs(grid[:-1] / wanted(abar)[:-1] - 1))) / 2.0**-23 for abar in (ABAR, np.append(1.0, rounded)))
        rows.append(row(f"{name} sigmas, {said}, {steps} steps", "karras_sigmas" if "use_karras_sigmas" in options else "sigma_at", "float32", found, 1,
                        f"the smallest sigma is {grid[-2]:.8g}, ours {wanted(ABAR)[-2]:.8g}", "1 - alpha-bar of an alpha-bar in float32", left, "no"))  # fmt: skip
        return rows

    jobs = [lambda a=a, b=b: multistep(a, b) for a in SPACINGS for b in STEPS]
    for scheduler, name, sampler in ((EulerDiscreteScheduler, "EulerDiscreteScheduler", samplers.euler), (HeunDiscreteScheduler, "HeunDiscreteScheduler", samplers.heun)):
        for options in ({"timestep_spacing": "linspace"}, {"timestep_spacing": "leading"}, {"timestep_spacing": "trailing"}, {"use_karras_sigmas": True}):
            jobs.append(lambda s=scheduler, n=name, f=sampler, o=options: levels(s, n, f, 30, **o))
    return jobs


def _whole_flow():
    from diffusers import FlowMatchEulerDiscreteScheduler

    z = philox.normal(0, SHAPE).astype(np.float32)

    def one(shift, how, sigmas):
        steps = 30
        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(steps) if sigmas is None else scheduler.set_timesteps(sigmas=sigmas)
        grid = scheduler.sigmas.numpy().astype(np.float64)
        theirs = looped(scheduler, lambda x, t: velocity(x, grid[scheduler.step_index or 0]), z)
        rows = [row(f"FlowMatchEulerDiscreteScheduler, shift {shift:g}, {how}", "flow_euler at its times", "float32", ulps(theirs, samplers.flow_euler(velocity, z, grid), "float32"), steps)]
        wanted, least = schedules.flow_times(steps, shift), schedules.shift_times(1 / T, shift)
        explained = np.append(schedules.shift_times(np.linspace(1, least, steps), shift), 0)
        rows.append(row(f"FlowMatchEulerDiscreteScheduler times, shift {shift:g}, {how}", "flow_times", "float32", ulps(grid, wanted, "float32"), 1,
                        *(() if sigmas is not None else (f"the last time before 0 is {grid[-2]:.6f}, ours {wanted[-2]:.6f}",
                          f"equally spaced from 1 to {'1/T' if shift == 1 else '1/T, which is shifted twice,'} and then to 0", ulps(grid, explained, "float32"), "no"))))  # fmt: skip
        return rows

    return [lambda a=a: one(a, "its own times", None) for a in (1.0, 3.0)] + [lambda a=a: one(a, "sigmas=linspace(1, 1/S, S)", np.linspace(1, 1 / 30, 30)) for a in (1.0, 3.0)]


# --- what is said of it ----------------------------------------------------------------------------------------------


def sentences(rows):
    """Three sentences. rows: of `run`. Returns a list of str."""
    apart = [r for r in rows if r["verdict"] == "differs"]
    worst = max((r for r in rows if r["verdict"] == "agrees"), key=lambda r: r["ulps"])
    told = [r for r in apart if r["ulps_explained"] != "" and r["ulps_explained"] <= 64 * AGREES]
    named = [r for r in apart if r["ulps_explained"] == "" and r["convention"]]
    meet = [r["theirs"] for r in apart if "do not meet" in r["convention"]]
    return [
        f"Of {len(rows)} comparisons with {rows[0]['versions']}, {len(rows) - len(apart)} agree, the farthest of them ({worst['theirs']}, {worst['dtype']}) to {worst['ulps']:.3g} ulps.",
        f"{len(apart)} differ; in {len(told)} of these the truth with that one convention changed reproduces what came, in {len(named)} more the checker names the cause, "
        f"and {sum(r['documented'][:3] == 'yes' for r in apart)} are documented by theirs.",
        f"DDIM's steps do not meet in {len(meet)} of {len(SPACINGS) * len(STEPS)} combinations of spacing and number of steps: {'; '.join(meet)}.",
    ]


def markdown(rows):
    """The README's table: what differs, and then what agrees. rows: as read from the CSV. Returns text."""
    lines = ["| theirs | ours | smallest example | convention that explains it | documented |", "| :-- | :-- | :-- | :-- | :-- |"]
    for r in rows:
        if r["verdict"] == "differs":
            left = f" ({float(r['ulps_explained']):.2g} ulps left)" if r["ulps_explained"] else ""
            lines.append(f"| {r['theirs']} ({r['dtype']}) | {r['ours']} | {r['example']} | {r['convention']}{left} | {r['documented'].partition(':')[0] or 'no'} |")
    agree = [f"{r['theirs']} ({r['dtype']}, {float(r['ulps']):.2g})" for r in rows if r["verdict"] == "agrees"]
    return "\n".join(lines) + f"\n\nAgree, with the worst difference in ulps: {'; '.join(agree)}.\n"


def draw(rows):
    """A mark for each comparison, how far apart the two are. rows: of `run`. Returns the figure."""
    plt = results.pyplot()
    figure, axis = plt.subplots(figsize=(8.6, 0.14 * len(rows) + 1), layout="constrained")
    place = np.arange(len(rows))
    value = np.array([np.clip(r["ulps"], 1e-2, 1e16) for r in rows])
    apart = np.array([r["verdict"] == "differs" for r in rows])
    for mask, colour, label in ((~apart, "#0072B2", "agrees"), (apart, "#D55E00", "differs")):
        axis.plot(value[mask], place[mask], "o", ms=3, color=colour, label=label)
    axis.set_yticks(place, [f"{r['theirs']} ({r['dtype']})" for r in rows], fontsize=5)
    axis.set(xscale="log", xlabel="worst difference from the truth (ulps of the dtype)", ylim=(len(rows) - 0.4, -0.6))
    axis.grid(axis="x", color="0.92", lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="lower right")
    return figure


if __name__ == "__main__":  # the README's table, from the results that are there
    with open(Path(__file__).parents[1] / "results" / "studies" / "conformance.csv", newline="") as file:
        print(markdown(list(csv.DictReader(file))), end="")
