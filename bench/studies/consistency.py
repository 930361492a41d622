"""Consistency models from the shared net: digits in one call and in two, trained alone and distilled, beside the net's own sampler at 1 to 50.

The student says x0_hat and is tied to the boundary by f = c_skip x + (1 - c_skip) F, with c_skip of [CM] and a sigma_data of WITHIN: from
a little above SIGMA_MIN on, F is asked for x0 and never for the noise of 784 pixels, which 512 units do not carry. It starts as the
shared net, which is F before it learns to be consistent, and learns slowly: at the shared net's own rate the answers at high noise
drift off the digit that is asked for, the further the longer. Training knows no guidance; distillation follows the guided net, w = GUIDANCE.
A guided call of the net evaluates it twice, a student's call once.

Papers
    [CM]   Song, Dhariwal, Chen, Sutskever, "Consistency Models", 2023
    [iCT]  Song, Dhariwal, "Improved Techniques for Training Consistency Models", 2024
    [EDM]  Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
"""
import time

import numpy as np

from bench.studies import data, fit, metrics, net, results
from ref import consistency, edm, philox, samplers, schedules
from kernels.coefficients import PER_STEP
from ref.nets import mlp

SIGMA_MIN, SIGMA_MAX, SECOND = 0.1, 80.0, 4.0  # the data's end, the noise's, and where the second call starts
WITHIN = 0.15
FEWEST, MOST = 10, 40  # pairs of neighbours at the start and the end of training
LN_MEAN, LN_STD = 0.5, 1.5  # of the levels trained at; [iCT] has -1.1 and 2, for images with finer detail than these
LR = 2e-4
GUIDANCE = 2.0
GUIDED, PLAIN = f"diffusion, w = {GUIDANCE:g}", "diffusion, w = 1"
CALLS = (1, 2, 5, 10, 20, 50)
PICK, LEVEL, NOISE = range(3)
STREAM, SAMPLING = 8 << 60, 9 << 60
WAYS = {"trained": ("o", "#D55E00"), "distilled": ("^", "#0072B2"), GUIDED: ("s", "#555555"), PLAIN: ("D", "#AAAAAA")}


def run(out, progress, train_steps=net.STEPS, steps=1200, batch=128, count=1000, calls=CALLS, seed=0):
    """Train, distil, sample, measure, draw; consistency.png, consistency.csv and consistency.txt.

    out: folder. progress: called with (done, total). train_steps: of the shared net. steps: of either student. batch: of their
    training. count: samples a row, a multiple of 10. calls: of the net's own sampler, with 1 among them; the last is what its rows
    are told of and compared with. seed: of everything random.
    """
    tick = results.ticker(progress, train_steps + 2 * steps + 2 * len(calls))
    judge, real, perfect = metrics.references(count, seed)
    (images, labels), _ = data.load()
    shared, abar, _ = net.shared(out, tick, steps=train_steps, seed=seed)
    asked = np.repeat(np.arange(10), count // 10)
    made, seconds = {("real", 0): perfect[0]}, {}
    for way in ("trained", "distilled"):
        began = time.process_time()
        params = train(shared, images, labels, abar, way == "distilled", steps, batch, seed, tick)
        seconds[way] = time.process_time() - began
        made |= {(way, n): sample(params, asked, abar, n, seed) for n in (1, 2)}
    for way, w in ((GUIDED, GUIDANCE), (PLAIN, 1.0)):
        denoise = net.denoise(net.predictor(shared, asked, w), abar)
        for n in calls:
            sigmas = schedules.karras_sigmas(n, SIGMA_MIN, SIGMA_MAX)
            made[way, n] = samplers.euler(denoise, SIGMA_MAX * philox.normal(seed, (count, images.shape[1]), SAMPLING), sigmas)
            tick()
    goal, rows = made[GUIDED, calls[-1]], []
    for (way, n), x in made.items():
        x = net.clip(x)
        rows.append({"way": way, "calls": n, **metrics.judged(judge, real, x, perfect[1] if way == "real" else asked), "spread": metrics.spread(x, asked),
                     "from_guided": np.nan if way == "real" else apart(x, goal), "cpu_seconds": seconds.get(way, np.nan)})  # fmt: skip
    results.write(out, "consistency", draw(rows, made, count, calls), rows, sentences(rows, steps, calls[-1]))


def student(params, x, sigma, labels, abar):
    """f(x, sigma) = c_skip x + (1 - c_skip) F, [CM] eq. 5 with F in the place of x0; F is the residual net, asked as `net.denoise` asks it.

    params: of the residual net. x: (B, pixels). sigma: (B,), from SIGMA_MIN to that of abar[T]. labels: (B,) ints. abar: (T + 1,).
    Returns f (B, pixels) float64; 1 - c_skip (B, 1), by which a gradient goes back to F; the net's cache.
    """
    c_skip = consistency.boundary_scalings(sigma, SIGMA_MIN, WITHIN)[0][:, None]
    F, cache = mlp.residual(params, edm.vp_from_ve(x, sigma).astype(params["in.w"].dtype), edm.time_at(sigma, abar), labels)
    return c_skip * x + (1 - c_skip) * F, 1 - c_skip, cache


def gradients(params, x0, eps, sigma_t, sigma_s, labels, abar, denoise=None):
    """Gradients in the parameters of one step of consistency training, [CM] algorithm 3, or distillation, algorithm 2, with the metric
    and the weight of [iCT]; the teacher has the student's own weights.

    params, labels, abar: as in `student`. x0, eps: (B, pixels). sigma_t, sigma_s: (B,), neighbours. denoise: None, or the diffusion
    model to distil, (x, sigma (B,)) -> x0_hat. Returns a dict.
    """
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
    return mlp.residual_backward((kept["into_F"] * dstudent).astype(params["in.w"].dtype), params, kept["cache"])


def train(shared, images, labels, abar, distilled, steps, batch, seed, tick):
    """A student that starts as the shared net, on the same digits, levels and noise whether it is trained alone or distilled from that net.

    shared: parameters. images: (N, pixels). labels: (N,). abar: (T + 1,). distilled: bool. steps, batch, seed: ints. tick: called
    after each step. Returns the average parameters.
    """

    def step_gradients(params, step):
        stream = STREAM + PER_STEP * step
        pick = np.minimum((philox.uniform(seed, (batch,), stream + PICK) * len(images)).astype(int), len(images) - 1)  # a uniform may be 1
        sigma_t, sigma_s = neighbours(philox.uniform(seed, (batch,), stream + LEVEL), step, steps)
        eps, asked = philox.normal(seed, (batch, images.shape[1]), stream + NOISE), labels[pick]
        denoise = net.denoise(net.predictor(shared, asked, GUIDANCE), abar) if distilled else None
        return gradients(params, images[pick], eps, sigma_t, sigma_s, asked, abar, denoise)

    return fit.adam(shared, step_gradients, steps, tick, lr=LR)


def neighbours(share, step, steps):
    """Pairs on the grid of a step, drawn as [iCT] sections 3.4 and 3.5 do. share: (B,) in (0, 1). step: from 1 to steps.

    Returns sigma_t, sigma_s, each (B,), the upper and the lower one.
    """
    sigmas = schedules.karras_sigmas(consistency.discretization_steps(step - 1, steps, FEWEST, MOST), SIGMA_MIN, SIGMA_MAX)[:-1]
    upto = np.cumsum(consistency.lognormal_sigma_weights(sigmas, LN_MEAN, LN_STD))
    i = np.searchsorted(upto[:-1], share, side="right")
    return sigmas[i], sigmas[i + 1]


def sample(params, labels, abar, calls, seed):
    """Digits in one or two calls, [CM] algorithm 1.

    params: from `train`. labels: (B,) ints. abar: (T + 1,). calls: 1 or 2. seed: of the noise. Returns x0_hat (B, pixels) float64.
    """
    shape = labels.size, params["in.w"].shape[1]
    first, second = (philox.normal(seed, shape, SAMPLING + i) for i in (0, 1))

    def f(x, sigma):
        return student(params, x, np.full(len(x), sigma), labels, abar)[0]

    return samplers.consistency(f, SIGMA_MAX * first, [SIGMA_MAX, SECOND][:calls], [second], SIGMA_MIN)


def apart(a, b):
    """Mean over the samples of the root mean square over pixels of a - b, as `metrics.spread` measures. a, b: (N, D). Returns a float."""
    return float(np.mean(np.sqrt(np.mean((a - b) ** 2, axis=1))))


def sentences(rows, steps, last):
    """Three sentences with the figures measured. rows: of `run`. steps: of either student. last: the most calls of the net. Returns a list of str."""
    by = {(row["way"], row["calls"]): row for row in rows}

    def told(way, calls):
        row = by[way, calls]
        name = "real digits" if way == "real" else f"{way}, {calls} call{'s' * (calls > 1)}"
        return f"{name}: {row['adherence']:.1%}, {row['frechet']:.1f}, {row['precision']:.2f}, {row['recall']:.2f}"

    def change(way, key, form):
        return f"{by[way, 1][key]:{form}} to {by[way, 2][key]:{form}}"

    trained, distilled, goal = by["trained", 1], by["distilled", 1], by[GUIDED, last]
    which = (("trained", 1), ("trained", 2), ("distilled", 1), ("distilled", 2), (GUIDED, last), (PLAIN, last), (GUIDED, 1), ("real", 0))
    return [
        "Adherence, Frechet distance, precision and recall of " + "; ".join(told(*one) for one in which) + ".",
        f"From the same noise one call of the distilled student ends {distilled['from_guided']:.3f} from where the guided diffusion ends in {last} and the trained one's {trained['from_guided']:.3f} "
        f"(root mean square over pixels; two samples of a digit by that diffusion are {goal['spread']:.3f} apart, by the distilled student {distilled['spread']:.3f}, by the trained one "
        f"{trained['spread']:.3f}, two real ones {by['real', 0]['spread']:.3f}); {steps} steps of distillation took {distilled['cpu_seconds']:.0f} s of a processor, of training {trained['cpu_seconds']:.0f} s.",
        f"The second call takes the trained student's Frechet distance from {change('trained', 'frechet', '.1f')}, recall from {change('trained', 'recall', '.2f')} and adherence from "
        f"{change('trained', 'adherence', '.1%')}, the distilled one's from {change('distilled', 'frechet', '.1f')}, {change('distilled', 'recall', '.2f')} and {change('distilled', 'adherence', '.1%')}.",
    ]


def draw(rows, made, count, calls):
    """The picture: three figures against calls, and samples. rows, made: of `run`. count: samples a row. calls: of the net. Returns the figure."""
    plt = results.pyplot()
    figure = plt.figure(figsize=(9.2, 6.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.7, 3.3])
    axes = top.subplots(1, 3)
    for axis, (key, text) in zip(axes, {"frechet": "Frechet distance", "adherence": "adherence (share)", "recall": "recall (share)"}.items()):
        for way, (marker, colour) in WAYS.items():
            mine = [row for row in rows if row["way"] == way]
            axis.plot([row["calls"] for row in mine], [row[key] for row in mine], f"-{marker}", ms=4, lw=1.2, color=colour, label=way)
        axis.axhline(rows[0][key], color="black", ls="--", lw=1, label="real against real")
        axis.set(xlabel="network calls", ylabel=text, xscale="log")
        axis.set_xticks(calls, [str(n) for n in calls])
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yscale("log")
    axes[0].set_yticks([5, 10, 20, 50, 100, 200], ["5", "10", "20", "50", "100", "200"])
    for axis in axes:
        axis.minorticks_off()
    axes[0].legend()
    shown = [("real", 0), ("trained", 1), ("trained", 2), ("distilled", 1), ("distilled", 2), (GUIDED, calls[-1]), (GUIDED, 1)]
    grid = np.concatenate([made[which][:: count // 20].reshape(20, 28, 28).transpose(1, 0, 2).reshape(28, 560) for which in shown])
    axis = bottom.subplots()
    axis.imshow(grid, cmap="gray", vmin=-1, vmax=1)
    axis.set_yticks(14 + 28 * np.arange(len(shown)), ["real digits", *(f"{way}, {n} call{'s' * (n > 1)}" for way, n in shown[1:])])
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.set_title("the same noise by each (but the real ones), two samples a digit", loc="left")
    return figure
