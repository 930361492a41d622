"""Rectified flow on the same net and budget: 10 to 20 Euler steps against DDIM 50, and what one round of reflow straightens.

The net is the shared one's shape, trained as long, and what it says is x0_hat; the velocity is (x_t - x0_hat) / t. The loss is that of
the velocity with the weight t^2, so that every time counts alike in x0_hat. (Told to say the velocity itself, it must carry the noise
of 784 pixels through 512 units, and the samples keep specks.) Training stops at t = EARLIEST, where the longest sampler here asks last.
DDIM runs as the flow does, with x0_hat as the net says it, and, as is the custom, with x0_hat clipped to [-1, 1] in each step.
Reflow trains the net further on pairs (noise, the sample that the first flow makes of it).

Papers
    [RF]   Liu, Gong, Liu, "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2023
"""
import time

import numpy as np

from bench.studies import data, digits, fit, metrics, net, results
from ref import flow, philox, samplers, schedules
from kernels.coefficients import PER_STEP
from ref.nets import mlp

EARLIEST = 0.05
PICK, TIME, DROP, NOISE = range(PER_STEP)
PAIRS, SAMPLING, REFLOW = 5 << 60, 6 << 60, 7 << 60  # far from training's and each other


def run(out, progress, steps=2400, reflow_steps=800, pairs=3750, batch=128, count=1000, seed=0):
    """Train, reflow, sample, measure, draw; flow.png, flow.csv and flow.txt.

    out: folder. progress: called with (done, total) steps. steps, reflow_steps: of training. pairs: that reflow learns from.
    batch: of training. count: samples a row. seed: of everything random.
    """
    tick = results.ticker(progress, net.STEPS + steps + reflow_steps)
    (images, labels), _ = data.load()
    shared, abar, _ = net.shared(out, tick, seed=seed)
    params = train(images, labels, steps, batch, seed, tick)
    eps, asked = philox.normal(seed, (pairs, images.shape[1]), PAIRS), np.arange(pairs) % 10
    again = reflow(params, eps, sample(params, eps, asked, schedules.flow_times(20), samplers.flow_euler), asked, reflow_steps, batch, seed, tick)

    judge, real, perfect = metrics.references(count)
    asked, eps = np.repeat(np.arange(10), count // 10), philox.normal(seed, (count, images.shape[1]), SAMPLING)
    free, held = (net.model(net.predictor(shared, asked, 1.0, limit=limit), abar) for limit in (None, net.clip))
    straight = {name: flow.straightness(path(p, eps[::10], asked[::10], 20)) for name, p in (("flow", params), ("reflow", again))}
    rows, made = [{"by": "real", "steps": 0, "calls": 0, "seconds": 0.0, **metrics.judged(judge, real, *perfect), "straightness": np.nan}], {}
    ways = [
        (name, n, n, lambda model=model, n=n: samplers.ddim(model, eps, schedules.spaced_times(1000, n, "trailing"), None, 0, abar))
        for name, model in (("DDIM", free), ("DDIM, clipped", held)) for n in (10, 20, 50)
    ]  # fmt: skip
    for name, p in (("flow", params), ("reflow", again)):
        for n in (1, 2, 5, 10, 15, 20):
            ways.append((name, n, n, lambda p=p, n=n: sample(p, eps, asked, schedules.flow_times(n), samplers.flow_euler)))
        for n in (5, 10):
            ways.append((f"{name}, Heun", n, 2 * n - 1, lambda p=p, n=n: sample(p, eps, asked, schedules.flow_times(n), samplers.flow_heun)))
    for name, n, calls, way in ways:
        began = time.perf_counter()
        made[name, n] = way()
        seconds = time.perf_counter() - began
        rows.append({"by": name, "steps": n, "calls": calls, "seconds": seconds, **metrics.judged(judge, real, made[name, n], asked),
                     "straightness": straight.get(name, np.nan)})  # fmt: skip
    results.write(out, "flow", draw(rows, made, count), rows, sentences(rows))


def velocity(params, xt, t, labels):
    """The net's velocity. params: of the residual net. xt: (B, pixels). t: (B,) in (0, 1]. labels: (B,) ints.

    Returns v (B, pixels) float64, and the net's cache.
    """
    x0_hat, cache = mlp.residual(params, xt.astype(params["in.w"].dtype), 1000 * t, labels)
    return flow.velocity_from_x0(xt, x0_hat, t), cache


def gradients(params, x0, eps, t, labels):
    """Gradients of `ref.flow.flow_loss`, each example weighted by t^2, in the parameters. params, labels: as in `velocity`. x0, eps: (B, pixels). t: (B,). Returns a dict."""
    v, cache = velocity(params, flow.interpolate(x0, eps, t), t, labels)
    dv = flow.flow_loss_backward(1.0, v, x0, eps)[0]
    dx0_hat = -t[:, None] * dv  # the weight t^2 times -dv / t
    return mlp.residual_backward(dx0_hat.astype(params["in.w"].dtype), params, cache)


def train(images, labels, steps, batch, seed, tick):
    """[RF] algorithm 1 on digits and fresh noise, with times even from EARLIEST to 1 and dropped labels.

    images: (N, 784). labels: (N,). steps, batch, seed: ints. tick: called after each step. Returns the average parameters.
    """

    def step_gradients(params, step):
        pick, t, asked = _draw(images, labels, batch, seed, PER_STEP * step)
        eps = philox.normal(seed, (batch, images.shape[1]), PER_STEP * step + NOISE)
        return gradients(params, images[pick], eps, t, asked)

    return fit.adam(mlp.residual_init(seed, pixels=images.shape[1]), step_gradients, steps, tick)


def reflow(params, eps, images, labels, steps, batch, seed, tick):
    """One round of [RF] section 2.2: training goes on with the pairs of a flow. Half the learning rate.

    params: of the flow. eps, images: (N, 784), noise and what the flow made of it. labels: (N,), which it was asked for.
    steps, batch, seed, tick: as in `train`. Returns the average parameters.
    """

    def step_gradients(params, step):
        pick, t, asked = _draw(images, labels, batch, seed, REFLOW + PER_STEP * step)
        return gradients(params, images[pick], eps[pick], t, asked)

    return fit.adam(params, step_gradients, steps, tick, lr=5e-4)


def sample(params, eps, labels, times, solver):
    """The flow from noise to data. params, labels: as in `velocity`. eps: (B, pixels). times: descending from 1 to 0.

    solver: `ref.samplers.flow_euler` or `flow_heun`. Returns x (B, pixels) float64.
    """
    return solver(lambda x, t: velocity(params, x, np.full(len(x), t), labels)[0], eps, times)


def path(params, eps, labels, steps):
    """The states of Euler's method at equal steps of time, (steps + 1, B, pixels), for `ref.flow.straightness`. As in `sample`."""
    states, times = [eps], schedules.flow_times(steps)
    for ends in zip(times[:-1], times[1:]):
        states.append(sample(params, states[-1], labels, np.array(ends), samplers.flow_euler))
    return np.array(states)


def sentences(rows):
    """Three sentences with the figures measured. rows: of `run`. Returns a list of str."""
    by = {(row["by"], row["steps"]): row for row in rows}

    def told(name, n):
        row = by[name, n]
        return f"{name}{f' {n}' if n else ''}: adherence {row['adherence']:.1%}, Frechet {row['frechet']:.1f}, precision {row['precision']:.2f}, recall {row['recall']:.2f}"

    return [
        "Without guidance, " + "; ".join(told(*which) for which in (("flow", 10), ("flow", 20), ("flow, Heun", 10), ("DDIM", 50), ("DDIM, clipped", 50), ("real", 0))) + ".",
        f"One round of reflow takes the straightness S from {by['flow', 20]['straightness']:.1f} to {by['reflow', 20]['straightness']:.1f} (0 is straight).",
        "In few steps, " + "; ".join(told(*which) for which in (("flow", 1), ("reflow", 1), ("flow", 2), ("reflow", 2), ("reflow", 20))) + ".",
    ]


def draw(rows, made, count):
    """The picture: Frechet distance and adherence against calls, and samples. rows, made: of `run`. count: samples a row. Returns the figure."""
    plt = results.pyplot()
    figure = plt.figure(figsize=(8.6, 5.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[3, 2.6])
    axes, real = top.subplots(1, 2), rows[0]
    for name, style in {"DDIM": "k--s", "DDIM, clipped": "k:s", "flow": "-o", "flow, Heun": "o", "reflow": "-^", "reflow, Heun": "^"}.items():
        mine = [row for row in rows if row["by"] == name]
        for axis, figure_of in zip(axes, ("frechet", "adherence")):
            axis.plot([row["calls"] for row in mine], [row[figure_of] for row in mine], style, ms=4, lw=1.3, label=name, mfc="white" if "Heun" in name else None)
    for axis, figure_of, text in zip(axes, ("frechet", "adherence"), ("Frechet distance (judge's features)", "adherence (share judged as asked)")):
        axis.axhline(real[figure_of], color="0.6", lw=0.9, label="real digits")
        axis.set(xlabel="network calls", ylabel=text, xscale="log", xticks=[1, 2, 5, 10, 20, 50], xticklabels=[1, 2, 5, 10, 20, 50])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yscale("log")
    top.legend(*axes[1].get_legend_handles_labels(), loc="outside right center")
    shown = [("DDIM", 50), ("flow", 20), ("flow", 2), ("reflow", 20), ("reflow", 2)]
    grid = np.concatenate([made[which][:: count // 20].reshape(20, 28, 28).transpose(1, 0, 2).reshape(28, 560) for which in shown])
    axis = bottom.subplots()
    axis.imshow(grid, cmap="gray", vmin=-1, vmax=1)
    axis.set_yticks(14 + 28 * np.arange(len(shown)), [f"{name}, {n} steps" for name, n in shown])
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.set_title("the same noise by each, two samples a digit", loc="left")
    return figure


def _draw(images, labels, batch, seed, stream):
    """Which digits, their times and their labels, a tenth of them dropped."""
    pick = np.minimum((philox.uniform(seed, (batch,), stream + PICK) * len(images)).astype(int), len(images) - 1)  # a uniform may be 1
    t = EARLIEST + (1 - EARLIEST) * philox.uniform(seed, (batch,), stream + TIME)
    asked = np.where(philox.uniform(seed, (batch,), stream + DROP) < digits.DROPPED, digits.NO_LABEL, labels[pick])
    return pick, t, asked
