"""Linear against cosine noise schedules: signal-to-noise over time, how fast the signal goes, and the digits that either teaches.

Two nets of one shape and budget, each trained and sampled (DDIM, guidance w = 2) on its own schedule.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [iDDPM]  Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021
"""
import numpy as np

from bench.studies import data, digits, metrics, net, results
from ref import diffusion, philox, samplers, schedules

NAMES = ("linear", "cosine")
COLOURS = dict(zip(NAMES, ("#D55E00", "#0072B2")))
DRAWN = (1, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)
CALLS = (10, 50)


def run(out, progress, train_steps=net.STEPS, count=1000, calls=CALLS, seed=0):
    """Train where needed, sample, measure, draw; schedules.png, schedules.csv and schedules.txt.

    out: folder. progress: called with (done, total). train_steps: of each net. count: samples, a multiple of 10. calls: the
    numbers of steps that are sampled with, the last is drawn. seed: of everything random.
    """
    tick = results.ticker(progress, len(NAMES) * (train_steps + len(calls)))
    judge, real, perfect = metrics.references(count, seed)
    best = metrics.judged(judge, real, *perfect)
    labels = np.repeat(np.arange(10), count // 10)
    rows, drawn = [], {}
    for name in NAMES:
        params, abar, seconds = net.shared(out, tick, name, train_steps, seed)
        for n in calls:
            drawn[name] = sample(params, labels, abar, n, seed)
            figures = metrics.judged(judge, real, drawn[name], labels)
            rows.append({"schedule": name, **signal(abar), "sampler_steps": n, **figures, **{f"real_{k}": v for k, v in best.items()}, "train_seconds": seconds})
            tick()
    results.write(out, "schedules", draw(rows, drawn, labels, seed), rows, sentences(rows))


def sample(params, labels, abar, steps, seed):
    """Digits (B, 784) by DDIM, eta = 0. params: of the net. labels: (B,). abar: (T + 1,). steps, seed: ints."""
    xT = philox.normal(seed, (labels.size, 784), digits.SAMPLING)
    times = schedules.spaced_times(digits.T, steps, "trailing")
    return samplers.ddim(net.model(net.predictor(params, labels), abar), xT, times, None, 0.0, abar)


def signal(abar):
    """How fast the signal goes. abar: (T + 1,).

    Returns a dict: the first time at which SNR < 1; the shares of time at which sqrt(abar), the signal that is left, is under 10 %
    and over 90 %; SNR at T, in dB.
    """
    left = np.sqrt(abar[1:])
    return {
        "snr_one_at": int(np.argmax(schedules.snr(abar) < 1)), "time_under_10": float(np.mean(left < 0.1)), "time_over_90": float(np.mean(left > 0.9)),
        "last_snr_db": float(10 * np.log10(schedules.snr(abar)[-1])),
    }  # fmt: skip


def sentences(rows):
    """Three sentences with the figures measured. rows: of `run`. Returns a list of str."""
    last = {row["schedule"]: row for row in rows}  # of each, with the most steps
    first = {row["schedule"]: row for row in rows[::-1]}
    a, b = last["linear"], last["cosine"]
    return [
        f"The signal is as strong as the noise until t = {a['snr_one_at']} of {digits.T} on the linear schedule and until t = {b['snr_one_at']} on the cosine one, "
        f"and {a['time_under_10']:.0%} of the linear times against {b['time_under_10']:.0%} of the cosine ones have less than a tenth of it left.",
        f"With {b['sampler_steps']} DDIM steps the net of the linear schedule has a Frechet distance of {a['frechet']:.1f} and the cosine one's {b['frechet']:.1f} "
        f"(real digits {b['real_frechet']:.1f}), precision {a['precision']:.1%} and {b['precision']:.1%} ({b['real_precision']:.1%}), "
        f"recall {a['recall']:.1%} and {b['recall']:.1%} ({b['real_recall']:.1%}), adherence {a['adherence']:.1%} and {b['adherence']:.1%} ({b['real_adherence']:.1%}).",
        f"With {first['cosine']['sampler_steps']} steps the distances are {first['linear']['frechet']:.1f} and {first['cosine']['frechet']:.1f}.",
    ]


def draw(rows, drawn, labels, seed):
    """The picture: SNR, the signal left, a digit noised by either schedule, samples of either net, their figures. Returns the figure.

    rows: of `run`. drawn: {schedule: images (B, 784)}. labels: (B,). seed: of the noise.
    """
    plt = results.pyplot()
    figure = plt.figure(figsize=(8.6, 7.4), layout="constrained")
    curves, noised, below = figure.subfigures(3, 1, height_ratios=[2.5, 2.0, 2.9])
    left, right = curves.subplots(1, 2)
    t = np.arange(digits.T + 1)
    for name in NAMES:
        abar = digits.alpha_bar(name)
        left.plot(t[1:], 10 * np.log10(schedules.snr(abar)[1:]), color=COLOURS[name], label=name)
        right.plot(t, np.sqrt(abar), color=COLOURS[name], label=name)
    left.axhline(0, color="0.7", lw=0.7, zorder=0)
    left.set(xlabel="time t (0 data, 1000 noise)", ylabel="signal-to-noise ratio (dB)", ylim=(-60, 45))
    right.set(xlabel="time t (0 data, 1000 noise)", ylabel="share of the signal left, $\\sqrt{\\bar\\alpha_t}$", ylim=(0, 1.02))
    left.legend()
    right.legend()
    digit = data.load()[0][0][2500]
    eps = philox.normal(seed, (1, 784), digits.SAMPLING - 1)
    for axis, name in zip(noised.subplots(2, 1), NAMES):
        many = np.array(DRAWN)
        row = diffusion.q_sample(np.repeat(digit[None], many.size, axis=0), many, np.repeat(eps, many.size, axis=0), digits.alpha_bar(name))
        axis.imshow(_grid(row, many.size), cmap="gray", vmin=-1.5, vmax=1.5)
        axis.set_yticks([14], [name])
        axis.set_xticks(14 + 28 * np.arange(many.size) if name == NAMES[-1] else [], [f"t = {n}" for n in DRAWN] if name == NAMES[-1] else [])
        axis.tick_params(length=0)
    panels = below.subplots(1, 3, width_ratios=[1, 1, 0.8])
    for axis, name in zip(panels, NAMES):
        axis.imshow(_grid(drawn[name][_first(labels, 5)], 10), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(f"{name}: samples, {rows[-1]['sampler_steps']} DDIM steps")
        axis.set_xticks([])
        axis.set_yticks([])
    for name in NAMES:
        mine = [row for row in rows if row["schedule"] == name]
        panels[2].plot([row["sampler_steps"] for row in mine], [row["frechet"] for row in mine], "-o", ms=3, color=COLOURS[name], label=name)
    panels[2].axhline(rows[0]["real_frechet"], color="black", ls="--", lw=1, label="real against real")
    panels[2].set(xlabel="DDIM steps", ylabel="Frechet distance", ylim=(0, None))
    panels[2].legend()
    for axis in (left, right, panels[2]):
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _first(labels, each):
    """Indices of the first few of every class, a column a class."""
    return np.stack([np.flatnonzero(labels == k)[np.arange(each) % np.sum(labels == k)] for k in range(10)], axis=1).reshape(-1)


def _grid(images, columns):
    """Images side by side, `columns` in a row."""
    return images.reshape(-1, columns, 28, 28).transpose(0, 2, 1, 3).reshape(-1, 28 * columns)
