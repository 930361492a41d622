"""Consistency models: one and two network calls against 1 to 50 of diffusion.

The student predicts x0_hat and is tied to the boundary by f = c_skip x + (1 - c_skip) F, with c_skip of [CM] and a
sigma_data of WITHIN: from a little above SIGMA_MIN on, F predicts x0 and never the noise of 784 pixels, which 512 units
do not carry. It starts as the shared net, and learns at a fifth of that net's rate. One student is trained alone, which
knows no guidance; the other is distilled from the guided net, w = GUIDANCE. A guided call of the net evaluates it
twice, a student's call once.

Papers
    [CM]   Song, Dhariwal, Chen, Sutskever, "Consistency Models", 2023
    [iCT]  Song, Dhariwal, "Improved Techniques for Training Consistency Models", 2024
    [EDM]  Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
"""
import time

import numpy as np

from bench.studies import data, fit, metrics, net, pictures, results
from ref import consistency, edm, philox, samplers, schedules
from ref.nets import mlp

SIGMA_MIN, SIGMA_MAX, SECOND = 0.1, 80.0, 4.0  # the data's end, the noise's, and where the second call starts
WITHIN = 0.15
FEWEST, MOST = 10, 40  # pairs of neighbours at the start and the end of training
LN_MEAN, LN_STD = 0.5, 1.5  # of the levels trained at; [iCT] has -1.1 and 2, for images with finer detail than these
LR = 2e-4
GUIDANCE = 2.0
GUIDED, PLAIN = f"diffusion, w = {GUIDANCE:g}", "diffusion, w = 1"
STYLES = {way: dict(marker=marker, color=colour) for way, marker, colour in (("trained", "o", "#D55E00"), ("distilled", "^", "#0072B2"), (GUIDED, "s", "#555555"), (PLAIN, "D", "#AAAAAA"))}
COLUMNS = {"way": "", "calls": "network calls"} | metrics.COLUMNS | {
    "spread": "root mean square distance over pixels between two samples of a digit",
    "from_guided": f"the same distance to the sample of {GUIDED}, with the most calls, from the same noise", "cpu_seconds": "processor time of the training",
}  # fmt: skip


def run(out, progress, train_steps=net.STEPS, steps=1200, batch=128, count=1000, calls=(1, 2, 5, 10, 20, 50), seed=0):
    """Train, distil, sample, measure, draw; consistency.png, consistency.csv and consistency.txt."""
    judge, real, perfect = metrics.references(count, seed)
    settings = dict(train_steps=train_steps, steps=steps, batch=batch, count=count, seed=seed)
    this = results.Run("consistency", out, progress, train_steps + 2 * steps + 2 * len(calls), **settings)
    (images, labels), _ = data.load()
    shared, abar, _ = net.shared(out, this.tick, steps=train_steps, seed=seed)
    wanted = net.requested(count)
    made, seconds = {("real", 0): perfect[0]}, {}
    for way in ("trained", "distilled"):
        began = time.process_time()
        params = train(shared, images, labels, abar, way == "distilled", steps, batch, seed, this.tick, train_steps)
        seconds[way] = time.process_time() - began
        made |= {(way, n): sample(params, wanted, abar, n, seed) for n in (1, 2)}
    for way, w in ((GUIDED, GUIDANCE), (PLAIN, 1.0)):
        denoise = net.denoise(net.predictor(shared, wanted, w), abar)
        for n in calls:
            xT = SIGMA_MAX * philox.normal(seed, (count, images.shape[1]), philox.stream("sampling"))
            made[way, n] = samplers.euler(denoise, xT, schedules.karras_sigmas(n, SIGMA_MIN, SIGMA_MAX))
            this.tick()
    rows = []
    for (way, n), x in made.items():
        figures = metrics.judged(judge, real, net.clip(x), perfect[1] if way == "real" else wanted)
        distance = np.nan if way == "real" else apart(net.clip(x), made[GUIDED, calls[-1]])
        rows.append({"way": way, "calls": n, **figures, "spread": metrics.spread(net.clip(x), wanted), "from_guided": distance, "cpu_seconds": seconds.get(way, np.nan)})
    this.finish(rows, draw(rows, made, calls))


def student(params, x, sigma, labels, abar):
    """f(x, sigma) = c_skip x + (1 - c_skip) F, [CM] eq. 5 with F in the place of x0; F is the residual net at the time
    that `net.denoise` takes."""
    c_skip = consistency.boundary_scalings(sigma, SIGMA_MIN, WITHIN)[0][:, None]
    F, cache = mlp.residual(params, edm.vp_from_ve(x, sigma).astype(params["in"]["w"].dtype), edm.time_at(sigma, abar), labels)
    return c_skip * x + (1 - c_skip) * F, 1 - c_skip, cache


def gradients(params, x0, eps, sigma_t, sigma_s, labels, abar, denoise=None):
    """Gradients in the parameters of one step of consistency training, [CM] algorithm 3, or distillation, algorithm 2,
    with the metric and the weight of [iCT]; the teacher has the student's own weights."""
    kept = {}

    def f(x, sigma):
        x0_hat, kept["into_F"], kept["cache"] = student(params, x, sigma, labels, abar)
        return x0_hat

    def teacher(x, sigma):
        return student(params, x, sigma, labels, abar)[0]

    pair = x0, eps, sigma_t, sigma_s, 0.00054 * np.sqrt(x0.shape[1])
    if denoise is None:
        _, dstudent = consistency.training_step(f, teacher, *pair)
    else:
        _, dstudent = consistency.distillation_step(f, teacher, denoise, *pair)
    return mlp.residual_backward((kept["into_F"] * dstudent).astype(params["in"]["w"].dtype), params, kept["cache"])[1]


def train(shared, images, labels, abar, distilled, steps, batch, seed, tick, done=0):
    """A student that starts as the shared net, on the same digits, levels and noise whether it is trained alone or
    distilled from that net."""

    def step_gradients(params, step):
        pick = fit.picked(len(images), seed, batch, done + step)
        sigma_t, sigma_s = neighbours(philox.uniform(seed, (batch,), philox.stream("time", done + step)), step, steps)
        eps, wanted = philox.normal(seed, (batch, images.shape[1]), philox.stream("noise", done + step)), labels[pick]
        denoise = net.denoise(net.predictor(shared, wanted, GUIDANCE), abar) if distilled else None
        return gradients(params, images[pick], eps, sigma_t, sigma_s, wanted, abar, denoise)

    return fit.adam(shared, step_gradients, steps, tick, lr=LR)


def neighbours(share, step, steps):
    """Pairs on the grid of a step, drawn as [iCT] sections 3.4 and 3.5 do. share: (B,) in (0, 1)."""
    sigmas = schedules.karras_sigmas(consistency.discretization_steps(step - 1, steps, FEWEST, MOST), SIGMA_MIN, SIGMA_MAX)[:-1]
    upto = np.cumsum(consistency.lognormal_sigma_weights(sigmas, LN_MEAN, LN_STD))
    i = np.searchsorted(upto[:-1], share, side="right")
    return sigmas[i], sigmas[i + 1]


def sample(params, labels, abar, calls, seed):
    """Digits in one or two calls, [CM] algorithm 1. params: from `train`. Returns x0_hat (B, pixels) float64."""
    shape = labels.size, params["in"]["w"].shape[1]
    first, second = (philox.normal(seed, shape, philox.stream("sampling", i)) for i in (0, 1))

    def f(x, sigma):
        return student(params, x, np.full(len(x), sigma), labels, abar)[0]

    return samplers.consistency(f, SIGMA_MAX * first, [SIGMA_MAX, SECOND][:calls], [second], SIGMA_MIN)


def apart(a, b):
    """Mean over the samples of the root mean square over pixels of a - b, as `metrics.spread` measures."""
    return float(np.mean(np.sqrt(np.mean((a - b) ** 2, axis=1))))


def draw(rows, made, calls):
    """The picture: three figures against calls, and samples. calls: of the net."""
    figure = pictures.pyplot().figure(figsize=(9.2, 6.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.7, 3.3])
    axes = top.subplots(1, 3)
    for axis, (key, text) in zip(axes, {"frechet": "Frechet distance", "adherence": "adherence (share)", "recall": "recall (share)"}.items()):
        pictures.lines(axis, rows, "way", "calls", key, STYLES, rows[0][key])
        axis.set(xlabel="network calls", ylabel=text)
        pictures.log_ticks(axis, calls, (5, 10, 20, 50, 100, 200) if key == "frechet" else ())
    axes[0].legend()
    drawn = [("trained", 1), ("trained", 2), ("distilled", 1), ("distilled", 2), (GUIDED, calls[-1]), (GUIDED, 1)]
    images = np.concatenate([pictures.spread_out(made[which], 20) for which in [("real", 0), *drawn]])
    names = ["real digits", *(f"{way}, {n} call{'s' * (n > 1)}" for way, n in drawn)]
    pictures.gallery(bottom.subplots(), images, 20, "samples from the same noise, two a digit, below real digits", names)
    return figure
