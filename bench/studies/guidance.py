"""What guidance buys and what it costs: adherence against diversity from w = 1 to 10, and two remedies at 7.5.

One net, one noise, DDIM; only the weight and what is done to x0_hat differ. Everything is clipped to [-1, 1] but the remedies:
dynamic thresholding ([Imagen], 99.5 %) in place of the clip, and rescaling ([ZSNR], phi = 0.7) before it.

Papers
    [CFG]     Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [Imagen]  Saharia et al., "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding", 2022
    [ZSNR]    Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024
"""
import numpy as np

from bench.studies import digits, metrics, net, results
from ref import guidance, philox, samplers, schedules

WEIGHTS = (1.0, 2.0, 5.0, 7.5, 10.0)
REMEDIED = 7.5
PHI, RATIO = 0.7, 0.995


def run(out, progress, train_steps=net.STEPS, count=500, sampler_steps=50, seed=0):
    """Sample in seven ways, measure, draw; guidance.png, guidance.csv and guidance.txt.

    out: folder. progress: called with (done, total). train_steps: of the shared net. count: samples, a multiple of 10.
    sampler_steps: of DDIM. seed: of everything random.
    """
    tick = results.ticker(progress, train_steps + len(WEIGHTS) + 2)
    judge, real, perfect = metrics.references(count, seed)
    params, abar, _ = net.shared(out, tick, steps=train_steps, seed=seed)
    labels = np.repeat(np.arange(10), count // 10)
    rows, drawn, traces = [], {}, {}
    ways = {f"w = {w:g}": (w, guidance.guide, net.clip) for w in WEIGHTS}
    ways[f"w = {REMEDIED:g}, thresholded"] = REMEDIED, guidance.guide, lambda x0: guidance.dynamic_threshold(x0, RATIO, np.inf)
    ways[f"w = {REMEDIED:g}, rescaled"] = REMEDIED, lambda uncond, cond, w: guidance.guide_rescaled(uncond, cond, w, PHI), net.clip
    for name, (w, guide, limit) in ways.items():
        images, trace = sample(params, labels, w, guide, limit, abar, sampler_steps, seed)
        at = trace[:, 1].argmax()
        rows.append({
            "way": name, "w": w, **metrics.judged(judge, real, images, labels), "spread": metrics.spread(images, labels),
            "outside": float(trace[:, 1].mean()), "most_outside": float(trace[at, 1]), "most_outside_at": int(trace[at, 0]), "early_spread": float(trace[len(trace) // 2, 2]),
            "early_at": int(trace[len(trace) // 2, 0]),
        })  # fmt: skip
        drawn[name], traces[name] = images, trace
        tick()
    rows.append({"way": "real", "w": "", **metrics.judged(judge, real, *perfect), "spread": metrics.spread(*perfect), **dict.fromkeys(list(rows[0])[7:], "")})
    results.write(out, "guidance", draw(rows, drawn, traces, labels), rows, sentences(rows))


def sample(params, labels, w, guide, limit, abar, steps, seed):
    """Digits by DDIM, eta = 0, and what the guided prediction did on the way.

    params: of the net. labels: (B,). w, guide, limit: as in `predictor`. abar: (T + 1,). steps, seed: ints.
    Returns images (B, 784); (steps, 3): t, the share of the guided x0_hat outside [-1, 1] before the limit, and the spread of x0_hat
    within a class after it (`bench.studies.metrics.spread`).
    """
    trace = []
    guided = net.predictor(params, labels, w, guide, None)

    def x0_hat(xt, t):
        before = guided(xt, t)
        after = limit(before)
        trace.append((t, np.mean(np.abs(before) > 1.01), metrics.spread(after, labels)))
        return after

    xT = philox.normal(seed, (labels.size, 784), digits.SAMPLING)
    times = schedules.spaced_times(digits.T, steps, "trailing")
    return samplers.ddim(net.model(x0_hat, abar), xT, times, None, 0.0, abar), np.array(trace)


def sentences(rows):
    """Three sentences with the figures measured. rows: of `run`. Returns a list of str."""
    by = {row["way"]: row for row in rows}
    low, high, real = by[f"w = {WEIGHTS[0]:g}"], by[f"w = {WEIGHTS[-1]:g}"], by["real"]
    plain, thresholded, rescaled = (by[f"w = {REMEDIED:g}{way}"] for way in ("", ", thresholded", ", rescaled"))
    return [
        f"From w = {low['w']:g} to w = {high['w']:g} adherence goes from {low['adherence']:.1%} to {high['adherence']:.1%} (real digits {real['adherence']:.1%}), recall from "
        f"{low['recall']:.1%} to {high['recall']:.1%} ({real['recall']:.1%}), the distance between two samples of a digit from {low['spread']:.3f} to {high['spread']:.3f} "
        f"({real['spread']:.3f}) and the Frechet distance from {low['frechet']:.1f} to {high['frechet']:.1f} ({real['frechet']:.1f}).",
        f"Diversity falls on the way and not at its end: at t = {low['early_at']} the predictions of a digit are {low['early_spread']:.3f} apart at w = {low['w']:g} and "
        f"{high['early_spread']:.3f} at w = {high['w']:g}, while at t = {high['most_outside_at']} {high['most_outside']:.1%} of what w = {high['w']:g} predicts is outside [-1, 1] "
        f"(w = {low['w']:g}: {low['most_outside']:.1%} at t = {low['most_outside_at']}), where the clip makes it all the same.",
        f"At w = {REMEDIED:g} dynamic thresholding takes recall from {plain['recall']:.1%} to {thresholded['recall']:.1%} and the Frechet distance from {plain['frechet']:.1f} to "
        f"{thresholded['frechet']:.1f}; rescaling takes them to {rescaled['recall']:.1%} and {rescaled['frechet']:.1f}.",
    ]


def draw(rows, drawn, traces, labels):
    """The picture: figures against w, the predictions' spread and excess on the way, samples. Returns the figure.

    rows: of `run`. drawn: {way: images (B, 784)}. traces: {way: (steps, 3)}. labels: (B,).
    """
    plt = results.pyplot()
    from matplotlib.colors import to_hex

    figure = plt.figure(figsize=(9.2, 8.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[4.4, 3.4])
    axes = upper.subplots(2, 3)
    plain, real = rows[: len(WEIGHTS)], rows[-1]
    shown = {"adherence": "adherence (share)", "recall": "recall (share)", "frechet": "Frechet distance", "spread": "distance within a class\n(rms over pixels)"}
    for axis, (figure_name, text) in zip(axes.flat, shown.items()):
        axis.plot([row["w"] for row in plain], [row[figure_name] for row in plain], "-o", ms=3, color="#0072B2", label="clipped")
        for row, marker, colour, way in zip(rows[-3:-1], "s^", ("#D55E00", "#009E73"), ("thresholded", "rescaled")):
            axis.plot(row["w"], row[figure_name], marker, ms=5, color=colour, label=way)
        axis.axhline(real[figure_name], color="black", ls="--", lw=1, label="real against real")
        axis.set(xlabel="guidance weight w", ylabel=text)
    axes[0, 0].legend()
    axes[0, 2].set_ylim(0, None)
    shades = {row["way"]: to_hex(c) for row, c in zip(plain, plt.get_cmap("viridis")(np.linspace(0, 0.85, len(plain))))}
    for axis, column, text in ((axes[1, 1], 1, "share of $\\hat x_0$ outside [-1, 1]"), (axes[1, 2], 2, "distance of $\\hat x_0$ within a class")):
        for name, colour in shades.items():
            axis.plot(traces[name][:, 0], traces[name][:, column], color=colour, label=name)
        axis.set(xlabel="time t (sampling runs right to left)", ylabel=text, ylim=(0, None))
    axes[1, 1].legend()
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    for axis, (name, images) in zip(lower.subplots(2, 4).flat, drawn.items()):
        pick = np.stack([np.flatnonzero(labels == k)[np.arange(5) % np.sum(labels == k)] for k in range(10)], axis=1).reshape(-1)
        axis.imshow(images[pick].reshape(5, 10, 28, 28).transpose(0, 2, 1, 3).reshape(140, 280), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(name)
    for axis in lower.axes:
        axis.set_axis_off()
    return figure
