"""Quality against network calls: six samplers at 1 to 100 steps, DDPM at 1000.

One net, one noise, guidance w = 2, x0_hat clipped to [-1, 1] inside the model. DDPM, DDIM, DPM-Solver++(2M) and UniPC
visit trailing times; Euler and Heun the noise levels of [EDM] eq. 5 from 80 to 0.02. Heun calls the net twice a step,
but once in its last. The last row is what a step of `digits` adds to its network calls: two conversions of x0_hat to
eps_hat and the fused guided DDIM step.

Papers
    [EDM]  Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
"""
import time
from functools import partial

import numpy as np

from bench.studies import denoiser, metrics, net, pictures, results
from kernels.numba_cpu import diffusion, fused
from kernels.numba_cpu import philox as fast
from ref import philox, samplers, schedules
from ref.nets import mlp

STEPS = (1, 2, 5, 10, 20, 50, 100)
SIGMA_MIN, SIGMA_MAX = 0.02, 80.0
COLOURS = {"ddim": "#0072B2", "dpmpp_2m": "#D55E00", "unipc": "#009E73", "heun": "#CC79A7", "euler": "#E69F00", "ddpm": "#555555"}
COLUMNS = {"sampler": "", "steps": "", "calls": "network calls"} | metrics.COLUMNS | {
    "seconds": "for all samples", "added": "time outside the network calls over the time in them, of a step of the fused kernels (median)",
}  # fmt: skip


def run(out, progress, train_steps=net.STEPS, count=500, steps=STEPS, longest=denoiser.T, seed=0):
    """Sample, count, time, measure, draw; steps.png, steps.csv and steps.txt. train_steps: of the shared net."""
    jobs = [("ddpm", longest), *((name, n) for name in COLOURS for n in steps)]
    judge, real, perfect = metrics.references(count, seed)
    this = results.Run("steps", out, progress, train_steps + len(jobs) + 1, train_steps=train_steps, count=count, seed=seed)
    params, abar, _ = net.shared(out, this.tick, steps=train_steps, seed=seed)
    labels, rows = net.requested(count), []
    sample("ddim", 2, params, labels, abar, seed)  # so that no timed run is the first
    for name, n in jobs:
        images, calls, seconds, inside = sample(name, n, params, labels, abar, seed)
        rows.append({"sampler": name, "steps": n, "calls": calls, "seconds": seconds, "net_seconds": inside, **metrics.judged(judge, real, images, labels)})
        this.tick()
    rows.append({"sampler": "real", **metrics.judged(judge, real, *perfect)})
    rows.append({"sampler": "fused ddim", "added": overhead(params, labels, abar, seed)})
    this.tick()
    this.finish(rows, draw(rows, count))


def sample(name, n, params, labels, abar, seed):
    """Digits by a sampler of `ref.samplers` in n steps. name: of COLOURS. n: int."""
    spent = []
    x0_hat = net.predictor(params, labels)

    def timed(xt, t):
        began = time.perf_counter()
        guided = x0_hat(xt, t)
        spent.append(time.perf_counter() - began)
        return guided

    shape = labels.size, 784
    xT = philox.normal(seed, shape, philox.stream("sampling"))
    times = schedules.spaced_times(denoiser.T, n, "trailing")
    sigmas = schedules.karras_sigmas(n, SIGMA_MIN, SIGMA_MAX)
    model, denoise = net.model(timed, abar), net.denoise(timed, abar)
    work = {
        "ddpm": partial(samplers.ddpm, model, xT, times, Noise(seed, shape, n), abar),
        "ddim": partial(samplers.ddim, model, xT, times, None, 0.0, abar),
        "dpmpp_2m": partial(samplers.dpmpp_2m, model, xT, times, abar),
        "unipc": partial(samplers.unipc, model, xT, times, abar),
        "heun": partial(samplers.heun, denoise, SIGMA_MAX * xT, sigmas),
        "euler": partial(samplers.euler, denoise, SIGMA_MAX * xT, sigmas),
    }[name]
    began = time.perf_counter()
    images = work()
    return images, len(spent), time.perf_counter() - began, sum(spent)


class Noise:
    """The noise of every step of a long run, each generated when it is needed."""

    def __init__(self, seed, shape, steps):
        self.seed, self.shape, self.steps = seed, shape, steps

    def __len__(self):
        return self.steps

    def __getitem__(self, i):
        return fast.normal(self.seed, self.shape, philox.stream("sampling", 1 + i))


def overhead(params, labels, abar, seed, rounds=20):
    """What a step of `digits` adds to its network calls, each timed in turn. rounds: int."""
    times = schedules.spaced_times(denoiser.T, rounds, "trailing").tolist()
    x = philox.normal(seed, (labels.size, 784), philox.stream("sampling")).astype(np.float32)
    calls, steps = [], []
    for t, s in zip(times, times[1:]):
        began = time.perf_counter()
        predictions = [mlp.residual(params, x, np.full(labels.size, t), who)[0] for who in (np.full_like(labels, denoiser.NO_LABEL), labels)]
        calls.append(time.perf_counter() - began)
        began = time.perf_counter()
        uncond, cond = (diffusion.eps_from_x0(x, x0_hat, t, abar) for x0_hat in predictions)
        x = fused.guided_ddim_step(x, uncond, cond, 2.0, t, s, seed, 0.0, abar, clip=1.0)
        steps.append(time.perf_counter() - began)
    return float(np.median(steps) / np.median(calls))


def shown(rows):
    """The rows that the text shows: the longest run, those of 10 and 50 steps, and what is not a sampler."""
    return [row for i, row in enumerate(rows) if i == 0 or row["steps"] in (10, 50, "")]


def draw(rows, count):
    """The picture: the four figures and the seconds against the number of network calls. count: of the samples."""
    figure, axes = pictures.pyplot().subplots(2, 3, figsize=(9.2, 5.4), layout="constrained")
    long, real = rows[0], rows[-2]
    axis_labels = {"frechet": "Frechet distance", "precision": "precision (share)", "recall": "recall (share)", "adherence": "adherence (share)", "seconds": f"seconds for {count} digits"}
    ticks = {"frechet": (10, 20, 50, 100, 200), "seconds": (0.1, 1, 10, 100)}
    for axis, (key, text) in zip(axes.flat, axis_labels.items()):
        pictures.lines(axis, rows[1:-2], "sampler", "calls", key, {name: dict(marker="o", color=colour) for name, colour in COLOURS.items()}, real.get(key))
        axis.plot(long["calls"], long[key], "*", ms=9, color=COLOURS["ddpm"], label=f"ddpm, {long['steps']} steps")
        axis.set(xlabel="network calls", ylabel=text)
        pictures.log_ticks(axis, (1, 10, 100, 1000), ticks.get(key, ()))
    axes[0, 0].set_ylim(10, 250)
    axes[1, 2].set_axis_off()
    axes[1, 2].legend(*axes[0, 0].get_legend_handles_labels(), loc="center")
    return figure
