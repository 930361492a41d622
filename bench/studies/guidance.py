"""Guidance: adherence and diversity from w = 1 to 10, and two remedies at 7.5.

One net, one noise, DDIM; only the weight and what is done to x0_hat differ. x0_hat is clipped to [-1, 1], except where
a remedy takes the place of the clip (dynamic thresholding, [Imagen], 99.5 %); the other one (rescaling, [ZSNR], phi =
0.7) is applied before it.

Papers
    [CFG]     Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [Imagen]  Saharia et al., "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding", 2022
    [ZSNR]    Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024
"""
import numpy as np

from bench.studies import denoiser, metrics, net, pictures, results
from ref import guidance, schedules

WEIGHTS = (1.0, 2.0, 5.0, 7.5, 10.0)
REMEDIED = 7.5
PHI, RATIO = 0.7, 0.995
COLUMNS = {"way": ""} | metrics.COLUMNS | {
    "spread": "root mean square distance over pixels between two samples of a digit", "relative_spread": "spread over the same distance between any two samples",
    "black": "share of pixels under -0.9", "first_t": "the first time of sampling", "first_outside": "share of x0_hat outside [-1, 1] at first_t, before the clip",
    "first_common": "share of the square of cond - uncond that is common to a class, at first_t", "middle_t": "the middle time of sampling", "middle_outside": "as first_outside",
    "middle_common": "as first_common",
}  # fmt: skip


def run(out, progress, train_steps=net.STEPS, count=500, sampler_steps=50, seed=0):
    """Sample in seven ways, measure, draw; guidance.png, guidance.csv and guidance.txt. sampler_steps: of DDIM."""
    judge, real, perfect = metrics.references(count, seed)
    this = results.Run("guidance", out, progress, train_steps + len(WEIGHTS) + 2, train_steps=train_steps, count=count, sampler_steps=sampler_steps, seed=seed)
    params, abar, _ = net.shared(out, this.tick, steps=train_steps, seed=seed)
    labels, rows, drawn, traces = net.requested(count), [], {}, {}
    ways = {f"w = {w:g}": (w, guidance.guide, net.clip) for w in WEIGHTS}
    ways[f"w = {REMEDIED:g}, thresholded"] = REMEDIED, guidance.guide, lambda x0: guidance.dynamic_threshold(x0, RATIO, np.inf)
    ways[f"w = {REMEDIED:g}, rescaled"] = REMEDIED, lambda uncond, cond, w: guidance.guide_rescaled(uncond, cond, w, PHI), net.clip
    for name, (w, guide, limit) in ways.items():
        drawn[name], traces[name] = sample(params, labels, w, guide, limit, abar, sampler_steps, seed)
        on_the_way = {}
        for when, (t, outside, common) in (("first", traces[name][0]), ("middle", traces[name][sampler_steps // 2])):
            on_the_way |= {f"{when}_t": int(t), f"{when}_outside": outside, f"{when}_common": common}
        rows.append({"way": name, "w": w, **metrics.judged(judge, real, drawn[name], labels), **variety(drawn[name], labels), **on_the_way})
        this.tick()
    rows.append({"way": "real", **metrics.judged(judge, real, *perfect), **variety(*perfect)})
    drawn["real digits"] = perfect[0]
    this.finish(rows, draw(rows, drawn, traces, labels))


def sample(params, labels, w, guide, limit, abar, steps, seed):
    """Digits by DDIM, eta = 0, and what guidance did on the way. labels: (B,), in order, each as often."""
    outside, common = [], []

    def watched(uncond, cond, w):
        common.append(common_share(cond - uncond, len(np.unique(labels))))
        return guide(uncond, cond, w)

    def limited(x0):
        outside.append(np.mean(np.abs(x0) > 1))
        return limit(x0)

    images = net.ddim(net.predictor(params, labels, w, watched, limited), labels.size, abar, steps, seed)
    times = schedules.spaced_times(denoiser.T, steps, "trailing")[:-1]
    return images, np.column_stack([times, outside, common or np.full(steps, np.nan)])


def common_share(push, classes):
    """The share of a push's square that is the same for all samples of a class: |mean of push|^2 / mean of |push|^2,
    classes averaged in both."""
    push = push.reshape(classes, -1, push.shape[1])
    return float(np.sum(push.mean(axis=1) ** 2) / np.sum(np.mean(push**2, axis=1)))


def variety(images, labels):
    """How different samples are. images: (B, 784)."""
    within = metrics.spread(images, labels)
    return {"spread": within, "relative_spread": within / metrics.spread(images, np.zeros_like(labels)), "black": float(np.mean(images < -0.9))}


def draw(rows, drawn, traces, labels):
    """The picture: figures against w, what guidance did on the way, samples. traces: {way: (steps, 3)}."""
    plt = pictures.pyplot()
    figure = plt.figure(figsize=(9.2, 7.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[4.4, 2.9])
    axes = upper.subplots(2, 3)
    plain, real = rows[: len(WEIGHTS)], rows[-1]
    shown = {"adherence": "adherence (share)", "recall": "recall (share)", "frechet": "Frechet distance", "spread": "distance within a class\n(rms over pixels)"}
    for axis, (key, text) in zip(axes.flat, shown.items()):
        axis.plot([row["w"] for row in plain], [row[key] for row in plain], "-o", color="#0072B2", label="clipped")
        for row, marker, colour, way in zip(rows[-3:-1], "s^", ("#D55E00", "#009E73"), ("thresholded", "rescaled")):
            axis.plot(row["w"], row[key], marker, ms=5, color=colour, label=way)
        axis.axhline(real[key], color="black", ls="--", lw=1, label="real digits")
        axis.set(xlabel="guidance weight w", ylabel=text)
    pictures.log_ticks(axes[0, 2], y=(10, 30, 100, 300))
    axes[0, 2].legend(loc="upper left")
    shades = dict(zip([row["way"] for row in plain], plt.get_cmap("viridis")(np.linspace(0, 0.85, len(plain)))))
    for axis, column, text in ((axes[1, 1], 1, "share of $\\hat x_0$ outside [-1, 1]"), (axes[1, 2], 2, "share of cond - uncond\ncommon to a class")):
        for name, colour in shades.items():
            axis.plot(traces[name][:, 0], traces[name][:, column], color=colour, label=name)
        axis.set(xlabel="time t (sampling runs right to left)", ylabel=text, ylim=(0, None))
    axes[1, 1].legend()
    for axis, (name, images) in zip(lower.subplots(2, 4).flat, drawn.items()):
        pictures.gallery(axis, pictures.of_each_class(images, labels, 5), 10, name)
    return figure
