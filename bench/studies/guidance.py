"""Guidance: adherence and diversity from w = 1 to 10, and two remedies at 7.5.

One net, one noise, DDIM; only the weight and what is done to x0_hat differ. x0_hat is clipped to [-1, 1], except where
a remedy takes the place of the clip (dynamic thresholding, [Imagen], 99.5 %); the other one (rescaling, [ZSNR], phi =
0.7) is applied before it.
"""
import numpy as np

from bench.studies import denoiser, metrics, net, pictures
from ref import guidance

SETTINGS = dict(train_steps=net.STEPS, count=500, sampler_steps=50, seed=0)
WEIGHTS, REMEDIED = (1.0, 2.0, 5.0, 7.5, 10.0), 7.5
PHI, RATIO = 0.7, 0.995
COLUMNS = {"way": ""} | metrics.COLUMNS | {
    "spread": "root mean square distance over pixels between two samples of a digit",
    "relative_spread": "spread over the same distance between any two samples",
    "black": "share of pixels under -0.9", "first_t": "the first time of sampling",
    "first_outside": "share of x0_hat outside [-1, 1] at first_t, before the clip",
    "first_common": "share of the square of cond - uncond that is common to a class, at first_t",
    "middle_t": "the middle time of sampling", "middle_outside": "as first_outside", "middle_common": "as first_common",
}  # fmt: skip


def rows(this):
    """Sample in seven ways and measure; {way: images (B, 784)}, {way: (steps, 3)} and labels to draw."""
    judge, real, perfect = metrics.references(this.count, this.seed)
    this.total = this.train_steps + len(WEIGHTS) + 2
    params, abar, _ = net.shared(this)
    labels, found, drawn, traces = net.requested(this.count), [], {}, {}
    ways = {f"w = {w:g}": (w, guidance.guide, net.clip) for w in WEIGHTS} | {
        f"w = {REMEDIED:g}, thresholded": (
            REMEDIED, guidance.guide, lambda x0: guidance.dynamic_threshold(x0, RATIO, np.inf)),
        f"w = {REMEDIED:g}, rescaled": (
            REMEDIED, lambda uncond, cond, w: guidance.guide_rescaled(uncond, cond, w, PHI), net.clip),
    }  # fmt: skip
    for way, (w, guide, limit) in ways.items():
        drawn[way], traces[way] = sample(params, labels, w, guide, limit, abar, this.sampler_steps, this.seed)
        row = {"way": way, "w": w, **metrics.judged(judge, real, drawn[way], labels), **variety(drawn[way], labels)}
        for when, (t, outside, common) in (("first", traces[way][0]), ("middle", traces[way][this.sampler_steps // 2])):
            row |= {f"{when}_t": int(t), f"{when}_outside": outside, f"{when}_common": common}
        found.append(row)
        this.tick()
    found.append({"way": "real", **metrics.judged(judge, real, *perfect), **variety(*perfect)})
    return found, drawn | {"real digits": perfect[0]}, traces, labels


def sample(params, labels, w, guide, limit, abar, steps, seed):
    """Digits by DDIM, eta = 0, and what guidance did on the way. labels: (B,), in order, each as often. Returns images
    (B, 784); (steps, 3): t, the share of the guided x0_hat outside [-1, 1] before the limit, and `common_share` of
    cond - uncond, nan at w = 1 where there is none."""
    outside, common = [], []

    def watched(uncond, cond, w):
        common.append(common_share(cond - uncond, len(np.unique(labels))))
        return guide(uncond, cond, w)

    def limited(x0):
        outside.append(np.mean(np.abs(x0) > 1))
        return limit(x0)

    images = net.ddim(net.predictor(params, labels, w, watched, limited), labels.size, abar, steps, seed)
    times = denoiser.trailing(steps)[:-1]
    return images, np.column_stack([times, outside, common or np.full(steps, np.nan)])


def common_share(push, classes):
    """The share of a push's square that is the same for all samples of a class: |mean of push|^2 / mean of |push|^2."""
    push = push.reshape(classes, -1, push.shape[1])
    return float(np.sum(push.mean(axis=1) ** 2) / np.sum(np.mean(push**2, axis=1)))


def variety(images, labels):
    """How different samples are: within a class, that over the distance between any two, and the share of black."""
    within, any_two = metrics.spread(images, labels), metrics.spread(images, np.zeros_like(labels))
    return {"spread": within, "relative_spread": within / any_two, "black": float(np.mean(images < -0.9))}


def draw(rows, drawn, traces, labels):
    """Figures against w, what guidance did on the way, samples."""
    figure, upper, lower = pictures.parts((9.2, 7.4), 4.4, 2.9)
    axes = upper.subplots(2, 3)
    plain, real = rows[: len(WEIGHTS)], rows[-1]
    keys = ("adherence", "recall", "frechet", "spread")
    for axis, key in zip(axes.flat, keys):
        axis.plot([row["w"] for row in plain], [row[key] for row in plain], "-o", color="#0072B2", label="clipped")
        for row, marker, colour, way in zip(rows[-3:-1], "s^", ("#D55E00", "#009E73"), ("thresholded", "rescaled")):
            axis.plot(row["w"], row[key], marker, ms=5, color=colour, label=way)
        axis.axhline(real[key], color="black", ls="--", lw=1, label="real digits")
        label = pictures.LABELS.get(key, "distance within a class\n(rms over pixels)")
        axis.set(xlabel="guidance weight w", ylabel=label)
    pictures.log_ticks(axes[0, 2], y=(10, 30, 100, 300))
    axes[0, 2].legend(loc="upper left")
    shades = pictures.pyplot().get_cmap("viridis")(np.linspace(0, 0.85, len(plain)))
    shares = "share of $\\hat x_0$ outside [-1, 1]", "share of cond - uncond\ncommon to a class"
    for axis, column, text in zip(axes[1, 1:], (1, 2), shares):
        for row, colour in zip(plain, shades):
            axis.plot(traces[row["way"]][:, 0], traces[row["way"]][:, column], color=colour, label=row["way"])
        axis.set(xlabel="time t (sampling runs right to left)", ylabel=text, ylim=(0, None))
    axes[1, 1].legend()
    for axis, (way, images) in zip(lower.subplots(2, 4).flat, drawn.items()):
        pictures.gallery(axis, pictures.of_each_class(images, labels, 5), 10, way)
    return figure
