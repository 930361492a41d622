"""Linear against cosine noise schedules: signal over time, and samples.

Two nets of one shape and budget, each trained and sampled (DDIM, guidance w = 2) on its own schedule.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [iDDPM]  Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021
"""
import numpy as np

from bench.studies import data, denoiser, metrics, net, pictures, results
from ref import diffusion, philox, schedules

COLOURS = {"linear": "#D55E00", "cosine": "#0072B2"}
DRAWN = (1, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)
COLUMNS = {"schedule": "", "sampler_steps": "of DDIM"} | metrics.COLUMNS | {f"real_{key}": "" for key in metrics.COLUMNS} | {
    "snr_one_at": "the first time with more noise than signal", "time_under_10": "share of times with less than a tenth of the signal left",
    "time_over_90": "share of times with more than nine tenths left", "last_snr_db": "signal-to-noise ratio at T, in dB",
}  # fmt: skip


def run(out, progress, train_steps=net.STEPS, count=1000, calls=(10, 50), seed=0):
    """Train where needed, sample, measure, draw; schedules.png, schedules.csv and schedules.txt."""
    judge, real, perfect = metrics.references(count, seed)
    this = results.Run("schedules", out, progress, len(COLOURS) * (train_steps + len(calls)), train_steps=train_steps, count=count, seed=seed)
    best = metrics.judged(judge, real, *perfect)
    labels, rows, drawn = net.requested(count), [], {}
    for name in COLOURS:
        params, abar, seconds = net.shared(out, this.tick, name, train_steps, seed)
        for n in calls:
            drawn[name] = net.ddim(net.predictor(params, labels), count, abar, n, seed)
            figures = metrics.judged(judge, real, drawn[name], labels)
            rows.append({"schedule": name, **signal(abar), "sampler_steps": n, **figures, **{f"real_{k}": v for k, v in best.items()}, "train_seconds": seconds})
            this.tick()
    this.finish(rows, draw(rows, drawn, labels, seed))


def signal(abar):
    """How fast the signal goes."""
    left = np.sqrt(abar[1:])
    return {
        "snr_one_at": int(np.argmax(schedules.snr(abar) < 1)), "time_under_10": float(np.mean(left < 0.1)), "time_over_90": float(np.mean(left > 0.9)),
        "last_snr_db": float(10 * np.log10(schedules.snr(abar)[-1])),
    }  # fmt: skip


def draw(rows, drawn, labels, seed):
    """The picture: SNR, the signal left, a digit noised by either schedule, samples of either net, their figures."""
    figure = pictures.pyplot().figure(figsize=(8.6, 7.4), layout="constrained")
    curves, noised, below = figure.subfigures(3, 1, height_ratios=[2.5, 2.0, 2.9])
    left, right = curves.subplots(1, 2)
    t = np.arange(denoiser.T + 1)
    for name, colour in COLOURS.items():
        abar = denoiser.alpha_bar(name)
        left.plot(t[1:], 10 * np.log10(schedules.snr(abar)[1:]), color=colour, label=name)
        right.plot(t, np.sqrt(abar), color=colour, label=name)
    left.axhline(0, color="0.7", lw=0.7, zorder=0)
    left.set(xlabel="time t (0 data, 1000 noise)", ylabel="signal-to-noise ratio (dB)", ylim=(-60, 45))
    right.set(xlabel="time t (0 data, 1000 noise)", ylabel="share of the signal left, $\\sqrt{\\bar\\alpha_t}$", ylim=(0, 1.02))
    left.legend()
    right.legend()
    digit, eps = data.load()[0][0][2500], philox.normal(seed, (1, 784), philox.stream("sampling") - 1)
    for axis, name in zip(noised.subplots(2, 1), COLOURS):
        row = diffusion.q_sample(np.repeat(digit[None], len(DRAWN), axis=0), np.array(DRAWN), np.repeat(eps, len(DRAWN), axis=0), denoiser.alpha_bar(name))
        pictures.gallery(axis, row, len(DRAWN), rows=[name], limit=1.5)
    axis.set_xticks(14 + 28 * np.arange(len(DRAWN)), [f"t = {n}" for n in DRAWN])
    *panels, last = below.subplots(1, 3, width_ratios=[1, 1, 0.8])
    for axis, name in zip(panels, COLOURS):
        pictures.gallery(axis, pictures.of_each_class(drawn[name], labels, 5), 10, f"{name}: samples, {rows[-1]['sampler_steps']} DDIM steps")
    styles = {name: dict(marker="o", color=colour) for name, colour in COLOURS.items()}
    pictures.lines(last, rows, "schedule", "sampler_steps", "frechet", styles, rows[0]["real_frechet"])
    last.set(xlabel="DDIM steps", ylabel="Frechet distance", ylim=(0, None))
    last.legend()
    return figure
