"""How many network calls a digit needs: DDPM 1000 against DDIM 50, then six samplers at 1 to 100 steps, and what their own steps cost.

One net, one noise, guidance w = 2, x0_hat clipped to [-1, 1] inside the model. DDPM, DDIM, DPM-Solver++(2M) and UniPC visit trailing
times; Euler and Heun the noise levels of [EDM] eq. 5 from 80 to 0.02. Heun calls the net twice a step, but once in its last.

Papers
    [EDM]  Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
"""
import time
from functools import partial

import numpy as np

from bench.studies import digits, metrics, net, results
from kernels.numba_cpu import diffusion, fused
from kernels.numba_cpu import philox as fast
from ref import philox, samplers, schedules
from ref.nets import mlp

SAMPLERS = ("ddim", "dpmpp_2m", "unipc", "heun", "euler", "ddpm")
STEPS = (1, 2, 5, 10, 20, 50, 100)
SIGMA_MIN, SIGMA_MAX = 0.02, 80.0
COLOURS = dict(zip(SAMPLERS, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#555555")))


def run(out, progress, train_steps=net.STEPS, count=500, steps=STEPS, longest=digits.T, seed=0):
    """Sample, count, time, measure, draw; steps.png, steps.csv and steps.txt.

    out: folder. progress: called with (done, total). train_steps: of the shared net. count: samples, a multiple of 10. steps: of
    every sampler; a tuple. longest: steps of the long DDPM. seed: of everything random.
    """
    jobs = [("ddpm", longest), *((name, n) for name in SAMPLERS for n in steps)]
    tick = results.ticker(progress, train_steps + len(jobs) + 1)
    judge, real, perfect = metrics.references(count, seed)
    params, abar, _ = net.shared(out, tick, steps=train_steps, seed=seed)
    labels = np.repeat(np.arange(10), count // 10)
    sample("ddim", 2, params, labels, abar, seed)  # so that no run is the first
    rows = []
    for name, n in jobs:
        images, calls, seconds, inside = sample(name, n, params, labels, abar, seed)
        figures = metrics.judged(judge, real, images, labels)
        rows.append({"sampler": name, "steps": n, "calls": calls, "seconds": seconds, "net_seconds": inside, **figures})
        tick()
    added = overhead(params, labels, abar, seed)
    tick()
    rows.append({"sampler": "real", "steps": "", "calls": "", "seconds": "", "net_seconds": "", **metrics.judged(judge, real, *perfect)})
    results.write(out, "steps", draw(rows, longest, count), rows, sentences(rows, added, longest, count))


def sample(name, n, params, labels, abar, seed):
    """Digits by a sampler of `ref.samplers` in n steps.

    name: of SAMPLERS. n: int. params: of the net. labels: (B,). abar: (T + 1,). seed: int.
    Returns images (B, 784), calls of the net, seconds in all, seconds in these calls.
    """
    spent = []
    x0_hat = net.predictor(params, labels)

    def timed(xt, t):
        began = time.perf_counter()
        guided = x0_hat(xt, t)
        spent.append(time.perf_counter() - began)
        return guided

    shape = labels.size, 784
    xT = philox.normal(seed, shape, digits.SAMPLING)
    times = schedules.spaced_times(digits.T, n, "trailing")
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
    """The noise of every step of a long run, each made when it is asked for."""

    def __init__(self, seed, shape, steps):
        self.seed, self.shape, self.steps = seed, shape, steps

    def __len__(self):
        return self.steps

    def __getitem__(self, i):
        return fast.normal(self.seed, self.shape, digits.SAMPLING + 1 + i)


def overhead(params, labels, abar, seed, rounds=20):
    """What a step of `digits` adds to its network calls: two conversions of x0_hat to eps_hat and the fused guided DDIM step, timed in turns with them.

    params: of the net. labels: (B,). abar: (T + 1,). seed: int. rounds: int.
    Returns median seconds of a step over median seconds of its calls, a float.
    """
    times = schedules.spaced_times(digits.T, rounds, "trailing").tolist()
    x = philox.normal(seed, (labels.size, 784), digits.SAMPLING).astype(np.float32)
    asked, nothing = labels, np.full_like(labels, digits.NO_LABEL)
    calls, steps = [], []
    for t, s in zip(times, times[1:]):
        began = time.perf_counter()
        predictions = [mlp.residual(params, x, np.full(labels.size, t), who)[0] for who in (nothing, asked)]
        calls.append(time.perf_counter() - began)
        began = time.perf_counter()
        uncond, cond = (diffusion.eps_from_x0(x, x0_hat, t, abar) for x0_hat in predictions)
        x = fused.guided_ddim_step(x, uncond, cond, 2.0, t, s, seed, 0.0, abar, clip=1.0)
        steps.append(time.perf_counter() - began)
    return float(np.median(steps) / np.median(calls))


def sentences(rows, added, longest, count):
    """Three sentences with the figures measured. rows: of `run`. added: of `overhead`. longest, count: as in `run`. Returns a list of str."""
    by = {(row["sampler"], row["steps"]): row for row in rows}
    real, long = by["real", ""], by["ddpm", longest]
    usual = min((row for row in rows if row["sampler"] == "ddim"), key=lambda row: abs(row["steps"] - 50))
    few = min((row for row in rows if row["sampler"] == "dpmpp_2m"), key=lambda row: abs(row["steps"] - 10))
    peers = [(row["frechet"], row["sampler"]) for row in rows if row["sampler"] != "real" and row["steps"] == few["steps"] and row["sampler"] != "heun"]
    own = [row["seconds"] / row["net_seconds"] - 1 for row in rows[1:-1] if row["calls"] >= 10 and row["sampler"] != "ddpm"] or [np.nan]
    return [
        f"DDPM with {longest} steps takes {long['seconds']:.1f} s for {count} digits and has a Frechet distance of {long['frechet']:.1f}, precision {long['precision']:.1%}, recall {long['recall']:.1%}, adherence "
        f"{long['adherence']:.1%}; DDIM with {usual['steps']} takes {usual['seconds']:.1f} s and has {usual['frechet']:.1f}, {usual['precision']:.1%}, {usual['recall']:.1%}, {usual['adherence']:.1%} "
        f"(real digits {real['frechet']:.1f}, {real['precision']:.1%}, {real['recall']:.1%}, {real['adherence']:.1%}).",
        f"With {few['steps']} calls the Frechet distances are " + ", ".join(f"{name} {value:.1f}" for value, name in sorted(peers)) + ".",
        f"The fused guided DDIM step and the conversions before it add {added:.2%} to the time of its network calls ({count} digits, one thread of NumPy's BLAS); the reference samplers in float64 add {np.median(own):.1%} in the median.",
    ]


def draw(rows, longest, count):
    """The picture: the four figures and the seconds against the number of network calls. Returns the figure. rows: of `run`. longest, count: as in `run`."""
    plt = results.pyplot()
    figure, axes = plt.subplots(2, 3, figsize=(9.2, 5.4), layout="constrained")
    real, long = rows[-1], rows[0]
    shown = {"frechet": "Frechet distance", "precision": "precision (share)", "recall": "recall (share)", "adherence": "adherence (share)", "seconds": f"seconds for {count} digits"}
    for axis, (key, text) in zip(axes.flat, shown.items()):
        for name in SAMPLERS:
            mine = [row for row in rows[1:-1] if row["sampler"] == name]
            axis.plot([row["calls"] for row in mine], [row[key] for row in mine], "-o", ms=3, lw=1.2, color=COLOURS[name], label=name)
        axis.plot(long["calls"], long[key], "*", ms=9, color=COLOURS["ddpm"], label=f"ddpm, {longest} steps")
        if key != "seconds":
            axis.axhline(real[key], color="black", ls="--", lw=1, label="real against real")
        axis.set(xscale="log", xlabel="network calls", ylabel=text)
        axis.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
        if key in ("frechet", "seconds"):
            axis.set_yscale("log")
            ticks = {"frechet": (10, 20, 50, 100, 200), "seconds": (0.1, 1, 10, 100)}[key]
            axis.set_yticks(ticks, [f"{n:g}" for n in ticks])
        if key == "frechet":
            axis.set_ylim(10, 250)
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    axes[1, 2].set_axis_off()
    handles, names = axes[0, 0].get_legend_handles_labels()
    axes[1, 2].legend(handles, names, loc="center")
    return figure
