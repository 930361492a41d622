"""Quality against network calls: six samplers at 1 to 100 steps, DDPM at 1000.

One net, one noise, guidance w = 2, x0_hat clipped to [-1, 1] inside the model. DDPM, DDIM, DPM-Solver++(2M) and UniPC
visit trailing times; Euler and Heun the noise levels of [EDM] eq. 5 from 80 to 0.02. Heun calls the net twice a step,
but once in its last. The last row is what a step of `digits` adds to its network calls: two conversions of x0_hat to
eps_hat and the fused guided DDIM step.
"""
import time

import numpy as np

from bench.studies import denoiser, metrics, net, pictures
from kernels.numba_cpu import diffusion, fused
from kernels.numba_cpu import philox as fast
from ref import philox, samplers, schedules
from ref.nets import mlp

SETTINGS = dict(train_steps=net.STEPS, count=500, steps=(1, 2, 5, 10, 20, 50, 100), longest=denoiser.T, seed=0)
SIGMA_MIN, SIGMA_MAX = 0.02, 80.0
COLOURS = {
    "ddim": "#0072B2", "dpmpp_2m": "#D55E00", "unipc": "#009E73", "heun": "#CC79A7", "euler": "#E69F00",
    "ddpm": "#555555",
}  # fmt: skip
COLUMNS = {"sampler": "", "steps": "", "calls": "network calls"} | metrics.COLUMNS | {
    "seconds": "for all samples",
    "added": "time outside the network calls over the time in them, of a step of the fused kernels (median)",
}  # fmt: skip


def rows(this):
    """Sample, count, time, measure; the number of samples to draw."""
    jobs = [("ddpm", this.longest), *((name, n) for name in COLOURS for n in this.steps)]
    judge, real, perfect = metrics.references(this.count, this.seed)
    this.total = this.train_steps + len(jobs) + 1
    params, abar, _ = net.shared(this)
    labels, found = net.requested(this.count), []
    sample("ddim", 2, params, labels, abar, this.seed)  # so that no timed run is the first
    for name, n in jobs:
        images, *spent = sample(name, n, params, labels, abar, this.seed)
        spent = dict(zip(("calls", "seconds", "net_seconds"), spent))
        found.append({"sampler": name, "steps": n, **spent, **metrics.judged(judge, real, images, labels)})
        this.tick()
    found.append({"sampler": "real", **metrics.judged(judge, real, *perfect)})
    found.append({"sampler": "fused ddim", "added": overhead(params, labels, abar, this.seed)})
    this.tick()
    return found, this.count


def sample(name, n, params, labels, abar, seed):
    """Digits by a sampler of COLOURS in n steps: images, calls of the net, seconds in all and in these calls."""
    spent, x0_hat, shape = [], net.predictor(params, labels), (labels.size, 784)

    def timed(xt, t):
        began = time.perf_counter()
        guided = x0_hat(xt, t)
        spent.append(time.perf_counter() - began)
        return guided

    xT = philox.normal(seed, shape, philox.stream("sampling"))
    times, sampler = denoiser.trailing(n), getattr(samplers, name)
    more = {"ddpm": (Noise(seed, shape, n),), "ddim": (None, 0.0)}.get(name, ())
    began = time.perf_counter()
    if name in ("heun", "euler"):
        sigmas = schedules.karras_sigmas(n, SIGMA_MIN, SIGMA_MAX)
        images = sampler(net.denoise(timed, abar), SIGMA_MAX * xT, sigmas)
    else:
        images = sampler(net.model(timed, abar), xT, times, *more, abar)
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
    """What a step of `digits` adds to its network calls, each timed in turn: median seconds over those of its calls."""
    times = denoiser.trailing(rounds).tolist()
    x = philox.normal(seed, (labels.size, 784), philox.stream("sampling")).astype(np.float32)
    nobody, calls, steps = np.full_like(labels, denoiser.NO_LABEL), [], []
    for t, s in zip(times, times[1:]):
        began = time.perf_counter()
        predictions = [mlp.residual(params, x, np.full(labels.size, t), who)[0] for who in (nobody, labels)]
        calls.append(time.perf_counter() - began)
        began = time.perf_counter()
        uncond, cond = (diffusion.eps_from_x0(x, x0_hat, t, abar) for x0_hat in predictions)
        x = fused.guided_ddim_step(x, uncond, cond, 2.0, t, s, seed, 0.0, abar, clip=1.0)
        steps.append(time.perf_counter() - began)
    return float(np.median(steps) / np.median(calls))


def shown(rows):
    """The longest run, those of 10 and 50 steps, and what is not a sampler."""
    return [row for i, row in enumerate(rows) if i == 0 or row["steps"] in (10, 50, "")]


def draw(rows, count):
    """The four figures and the seconds against the number of network calls."""
    figure, axes = pictures.pyplot().subplots(2, 3, figsize=(9.2, 5.4), layout="constrained")
    long, keys = rows[0], ("frechet", "precision", "recall", "adherence", "seconds")
    ticks = {"frechet": (10, 20, 50, 100, 200), "seconds": (0.1, 1, 10, 100)}
    styles = {name: dict(marker="o", color=colour) for name, colour in COLOURS.items()}
    pictures.against_calls(axes.flat, rows[1:-2], keys, "sampler", styles, rows[-2], (1, 10, 100, 1000), ticks)
    for axis, key in zip(axes.flat, keys):
        axis.plot(long["calls"], long[key], "*", ms=9, color=COLOURS["ddpm"], label=f"ddpm, {long['steps']} steps")
    axes[0, 0].set_ylim(10, 250)
    axes[1, 1].set_ylabel(f"seconds for {count} digits")
    axes[1, 2].set_axis_off()
    axes[1, 2].legend(*axes[0, 0].get_legend_handles_labels(), loc="center")
    return figure
