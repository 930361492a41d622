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
        middle = trace[len(trace) // 2]
        rows.append({
            "way": name, "w": w, **metrics.judged(judge, real, images, labels), **variety(images, labels), "first_t": int(trace[0, 0]), "first_outside": trace[0, 1],
            "first_common": trace[0, 2], "middle_t": int(middle[0]), "middle_outside": middle[1], "middle_common": middle[2],
        })  # fmt: skip
        drawn[name], traces[name] = images, trace
        tick()
    found = {"way": "real", **metrics.judged(judge, real, *perfect), **variety(*perfect)}
    rows.append({key: found.get(key, "") for key in rows[0]})
    drawn["real digits"] = perfect[0]
    results.write(out, "guidance", draw(rows, drawn, traces, labels), rows, sentences(rows))


def sample(params, labels, w, guide, limit, abar, steps, seed):
    """Digits by DDIM, eta = 0, and what guidance did on the way.

    params: of the net. labels: (B,), in order, each as often. w, guide, limit: as in `predictor`. abar: (T + 1,). steps, seed: ints.
    Returns images (B, 784); (steps, 3): t, the share of the guided x0_hat outside [-1, 1] before the limit, and `common_share` of
    cond - uncond, nan at w = 1 where there is none.
    """
    outside, common = [], []

    def watched(uncond, cond, w):
        common.append(common_share(cond - uncond, len(np.unique(labels))))
        return guide(uncond, cond, w)

    def limited(x0):
        outside.append(np.mean(np.abs(x0) > 1))
        return limit(x0)

    xT = philox.normal(seed, (labels.size, 784), digits.SAMPLING)
    times = schedules.spaced_times(digits.T, steps, "trailing")
    images = samplers.ddim(net.model(net.predictor(params, labels, w, watched, limited), abar), xT, times, None, 0.0, abar)
    return images, np.column_stack([times[:-1], outside, common or np.full(steps, np.nan)])


def common_share(push, classes):
    """The share of a push's square that is the same for all samples of a class: |mean of push|^2 / mean of |push|^2, classes averaged in both.

    push: (B, D), not all 0, ordered by class, B / classes of each. classes: int. Returns a float in [0, 1].
    """
    push = push.reshape(classes, -1, push.shape[1])
    return float(np.sum(push.mean(axis=1) ** 2) / np.sum(np.mean(push**2, axis=1)))


def variety(images, labels):
    """How different samples are. images: (B, 784). labels: (B,).

    Returns a dict: spread, the distance within a class; relative_spread, it over the distance between any two; black, the share of
    pixels under -0.9.
    """
    within = metrics.spread(images, labels)
    return {"spread": within, "relative_spread": within / metrics.spread(images, np.zeros_like(labels)), "black": float(np.mean(images < -0.9))}


def sentences(rows):
    """Three sentences with the figures measured. rows: of `run`. Returns a list of str."""
    by = {row["way"]: row for row in rows}
    low, high, real = by[f"w = {WEIGHTS[0]:g}"], by[f"w = {WEIGHTS[-1]:g}"], by["real"]
    some = by[f"w = {WEIGHTS[1]:g}"]
    plain, thresholded, rescaled = (by[f"w = {REMEDIED:g}{way}"] for way in ("", ", thresholded", ", rescaled"))
    steps = f"w = {low['w']:g}, {some['w']:g} and {high['w']:g}"
    three = [tuple(row[key] for row in (low, some, high, real)) for key in ("adherence", "recall", "frechet", "spread", "relative_spread")]
    return [
        f"At {steps} adherence is {three[0][0]:.1%}, {three[0][1]:.1%} and {three[0][2]:.1%} (real digits {three[0][3]:.1%}), recall {three[1][0]:.1%}, {three[1][1]:.1%} and {three[1][2]:.1%} "
        f"({three[1][3]:.1%}), the Frechet distance {three[2][0]:.1f}, {three[2][1]:.1f} and {three[2][2]:.1f} ({three[2][3]:.1f}), the distance within a class "
        f"{three[3][0]:.3f}, {three[3][1]:.3f} and {three[3][2]:.3f} ({three[3][3]:.3f}), and that over the distance between any two samples {three[4][0]:.3f}, {three[4][1]:.3f} and {three[4][2]:.3f} ({three[4][3]:.3f}).",
        f"Guidance pushes all samples of a digit alike where they could still differ: at t = {high['first_t']} {high['first_common']:.0%} of the square of cond - uncond is common to a class, at "
        f"t = {high['middle_t']} {high['middle_common']:.0%}; the push is magnified w times, and of what w = {low['w']:g} and w = {high['w']:g} predict at t = {high['first_t']} "
        f"{low['first_outside']:.0%} and {high['first_outside']:.0%} is outside [-1, 1] and clipped.",
        f"At w = {REMEDIED:g} dynamic thresholding takes recall from {plain['recall']:.1%} to {thresholded['recall']:.1%} and the Frechet distance from {plain['frechet']:.1f} to {thresholded['frechet']:.1f}, "
        f"leaving {thresholded['black']:.0%} of the pixels black (clipped {plain['black']:.0%}, real {real['black']:.0%}); rescaling takes them to {rescaled['recall']:.1%} and {rescaled['frechet']:.1f}.",
    ]


def draw(rows, drawn, traces, labels):
    """The picture: figures against w, the predictions' spread and excess on the way, samples. Returns the figure.

    rows: of `run`. drawn: {way or real digits: images (B, 784)}. traces: {way: (steps, 3)}. labels: (B,).
    """
    plt = results.pyplot()
    from matplotlib.colors import to_hex

    figure = plt.figure(figsize=(9.2, 7.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[4.4, 2.9])
    axes = upper.subplots(2, 3)
    plain, real = rows[: len(WEIGHTS)], rows[-1]
    shown = {"adherence": "adherence (share)", "recall": "recall (share)", "frechet": "Frechet distance", "spread": "distance within a class\n(rms over pixels)"}
    for axis, (figure_name, text) in zip(axes.flat, shown.items()):
        axis.plot([row["w"] for row in plain], [row[figure_name] for row in plain], "-o", ms=3, color="#0072B2", label="clipped")
        for row, marker, colour, way in zip(rows[-3:-1], "s^", ("#D55E00", "#009E73"), ("thresholded", "rescaled")):
            axis.plot(row["w"], row[figure_name], marker, ms=5, color=colour, label=way)
        axis.axhline(real[figure_name], color="black", ls="--", lw=1, label="real against real")
        axis.set(xlabel="guidance weight w", ylabel=text)
    axes[0, 2].set_yscale("log")
    axes[0, 2].set_yticks([10, 30, 100, 300], ["10", "30", "100", "300"])
    axes[0, 2].minorticks_off()
    axes[0, 2].legend(loc="upper left")
    shades = {row["way"]: to_hex(c) for row, c in zip(plain, plt.get_cmap("viridis")(np.linspace(0, 0.85, len(plain))))}
    for axis, column, text in ((axes[1, 1], 1, "share of $\\hat x_0$ outside [-1, 1]"), (axes[1, 2], 2, "share of cond - uncond\ncommon to a class")):
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
