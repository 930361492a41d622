"""Linear against cosine noise schedules: signal over time, and samples.

Two nets of one shape and budget, each trained and sampled (DDIM, guidance w = 2) on its own schedule.
"""
import numpy as np

from bench.studies import data, denoiser, metrics, net, pictures
from ref import diffusion, philox, schedules

SETTINGS = dict(train_steps=net.STEPS, count=1000, calls=(10, 50), seed=0)  # the last of the calls is drawn
COLOURS = {"linear": "#D55E00", "cosine": "#0072B2"}
DRAWN = (1, *range(100, 1001, 100))
REAL = {f"real_{key}": "" for key in metrics.COLUMNS}
COLUMNS = {"schedule": "", "sampler_steps": "of DDIM"} | metrics.COLUMNS | REAL | {
    "snr_one_at": "the first time with more noise than signal",
    "time_under_10": "share of times with less than a tenth of the signal left",
    "time_over_90": "share of times with more than nine tenths left",
    "last_snr_db": "signal-to-noise ratio at T, in dB",
}  # fmt: skip


def rows(this):
    """Train where needed, sample, measure; {schedule: images (B, 784)}, labels and the seed to draw."""
    judge, real, perfect = metrics.references(this.count, this.seed)
    this.total = len(COLOURS) * (this.train_steps + len(this.calls))
    best = {f"real_{k}": v for k, v in metrics.judged(judge, real, *perfect).items()}
    labels, found, drawn = net.requested(this.count), [], {}
    for name in COLOURS:
        params, abar, seconds = net.shared(this, name)
        for n in this.calls:
            drawn[name] = net.ddim(net.predictor(params, labels), this.count, abar, n, this.seed)
            row = {"schedule": name, **signal(abar), "sampler_steps": n}
            found.append(row | metrics.judged(judge, real, drawn[name], labels) | best | {"train_seconds": seconds})
            this.tick()
    return found, drawn, labels, this.seed


def signal(abar):
    """How fast the signal goes, as COLUMNS says."""
    left, snr = np.sqrt(abar[1:]), schedules.snr(abar)
    return {"snr_one_at": int(np.argmax(snr < 1)), "time_under_10": float(np.mean(left < 0.1)),
            "time_over_90": float(np.mean(left > 0.9)), "last_snr_db": float(10 * np.log10(snr[-1]))}  # fmt: skip


def draw(rows, drawn, labels, seed):
    """SNR, the signal left, a digit noised by either schedule, samples of either net, their figures."""
    figure, curves, noised, below = pictures.parts((8.6, 7.4), 2.5, 2.0, 2.9)
    left, right = curves.subplots(1, 2)
    rows_of = dict(zip(COLOURS, noised.subplots(2, 1)))
    *panels, last = below.subplots(1, 3, width_ratios=[1, 1, 0.8])
    digit, eps = data.load()[0][0][2500], philox.normal(seed, (1, 784), philox.stream("sampling") - 1)
    digits, noise = (np.repeat(a.reshape(1, -1), len(DRAWN), axis=0) for a in (digit, eps))
    t = np.arange(denoiser.T + 1)
    for (name, colour), panel in zip(COLOURS.items(), panels):
        abar = denoiser.alpha_bar(name)
        left.plot(t[1:], 10 * np.log10(schedules.snr(abar)[1:]), color=colour, label=name)
        right.plot(t, np.sqrt(abar), color=colour, label=name)
        noisy = diffusion.q_sample(digits, np.array(DRAWN), noise, abar)
        pictures.gallery(rows_of[name], noisy, len(DRAWN), rows=[name], limit=1.5)
        title = f"{name}: samples, {rows[-1]['sampler_steps']} DDIM steps"
        pictures.gallery(panel, pictures.of_each_class(drawn[name], labels, 5), 10, title)
    left.axhline(0, color="0.7", lw=0.7, zorder=0)
    left.set(xlabel=pictures.TIME, ylabel="signal-to-noise ratio (dB)", ylim=(-60, 45))
    right.set(xlabel=pictures.TIME, ylabel="share of the signal left, $\\sqrt{\\bar\\alpha_t}$", ylim=(0, 1.02))
    rows_of["cosine"].set_xticks(14 + 28 * np.arange(len(DRAWN)), [f"t = {n}" for n in DRAWN])
    styles = {name: dict(marker="o", color=colour) for name, colour in COLOURS.items()}
    pictures.lines(last, rows, "schedule", "sampler_steps", "frechet", styles, rows[0]["real_frechet"])
    last.set(xlabel="DDIM steps", ylabel="Frechet distance", ylim=(0, None))
    for axis in (left, right, last):
        axis.legend()
    return figure
