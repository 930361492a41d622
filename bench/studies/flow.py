"""Rectified flow: Euler and Heun against DDIM, before and after one reflow.

The net is the shared one's shape, trained as long, and predicts x0_hat; the velocity is (x_t - x0_hat) / t. The loss is
that of the velocity with the weight t^2, so that every time counts alike in x0_hat. (A net that predicts the velocity
itself must carry the noise of 784 pixels through 512 units.) Training stops at t = EARLIEST, the last time at which the
longest sampler here calls the net. DDIM runs as the flow does, with x0_hat as the net predicts it, and, as is the
custom, with x0_hat clipped to [-1, 1] in each step. Reflow trains the net further on pairs (noise, the sample that the
first flow makes of it).
"""
import time

import numpy as np

from bench.studies import data, denoiser, fit, metrics, net, pictures
from ref import flow, philox, samplers, schedules
from ref.nets import mlp

SETTINGS = dict(steps=2400, reflow_steps=800, pairs=3750, batch=128, count=1000, seed=0, train_steps=net.STEPS)
EARLIEST = 0.05
OPEN = dict(ls="", mfc="white")
STYLES = {
    "DDIM": dict(color="black", ls="--", marker="s"), "DDIM, clipped": dict(color="black", ls=":", marker="s"),
    "flow": dict(color="C0", marker="o"), "flow, Heun": dict(color="C0", marker="o", **OPEN),
    "reflow": dict(color="C1", marker="^"), "reflow, Heun": dict(color="C1", marker="^", **OPEN),
}  # fmt: skip
COLUMNS = {"by": "sampler and net, without guidance", "steps": "", "calls": "network calls"} | metrics.COLUMNS | {
    "straightness": "S of the paths of Euler's method in 20 steps; 0 is straight",
}  # fmt: skip


def rows(this):
    """Train, reflow, sample, measure; {(way, steps): images} to draw."""
    judge, real, perfect = metrics.references(this.count, this.seed)
    this.total = this.train_steps + this.steps + this.reflow_steps
    (images, labels), _ = data.load()
    shared, abar, _ = net.shared(this)
    params = train(images, labels, this.steps, this.batch, this.seed, this.tick)
    eps, wanted = philox.normal(this.seed, (this.pairs, 784), philox.stream("pairs")), np.arange(this.pairs) % 10
    pairs = eps, sample(params, eps, wanted, schedules.flow_times(20), samplers.flow_euler), wanted
    again = reflow(params, *pairs, this.reflow_steps, this.batch, this.seed, this.tick, this.steps)

    wanted, eps = net.requested(this.count), philox.normal(this.seed, (this.count, 784), philox.stream("sampling"))
    flows, made = {"flow": params, "reflow": again}, {}
    straight = {name: flow.straightness(path(p, eps[::10], wanted[::10], 20)) for name, p in flows.items()}
    found = [{"by": "real", "steps": 0, "calls": 0, "seconds": 0.0, **metrics.judged(judge, real, *perfect)}]
    for name, n, calls, way in ways(shared, abar, flows, eps, wanted):
        began = time.perf_counter()
        made[name, n] = way()
        row = {"by": name, "steps": n, "calls": calls, "seconds": time.perf_counter() - began}
        found.append(row | metrics.judged(judge, real, made[name, n], wanted))
    return [row | {"straightness": straight.get(row["by"], np.nan)} for row in found], made


def ways(shared, abar, flows, eps, labels):
    """The ways to sample: (name, steps, network calls, a function of nothing that returns images)."""
    for name, limit in (("DDIM", None), ("DDIM, clipped", net.clip)):
        model = net.model(net.predictor(shared, labels, 1.0, limit=limit), abar)
        for n in (10, 20, 50):
            yield name, n, n, lambda: samplers.ddim(model, eps, denoiser.trailing(n), None, 0, abar)
    for name, params in flows.items():
        for n in (1, 2, 5, 10, 15, 20):
            yield name, n, n, lambda: sample(params, eps, labels, schedules.flow_times(n), samplers.flow_euler)
        for n in (5, 10):
            heun = lambda: sample(params, eps, labels, schedules.flow_times(n), samplers.flow_heun)
            yield f"{name}, Heun", n, 2 * n - 1, heun


def velocity(params, xt, t, labels):
    """The net's velocity v (B, pixels) float64, and the net's cache. xt: (B, pixels). t: (B,) in (0, 1]."""
    x0_hat, cache = mlp.residual(params, xt.astype(params["in"]["w"].dtype), 1000 * t, labels)
    return flow.velocity_from_x0(xt, x0_hat, t), cache


def gradients(params, x0, eps, t, labels):
    """Gradients of `ref.flow.flow_loss`, each example weighted by t^2, in the parameters, a tree."""
    v, cache = velocity(params, flow.interpolate(x0, eps, t), t, labels)
    dv = flow.flow_loss_backward(1.0, v, x0, eps)[0]
    dx0_hat = -t[:, None] * dv  # the weight t^2 times -dv / t
    return mlp.residual_backward(dx0_hat.astype(params["in"]["w"].dtype), params, cache)[1]


def train(images, labels, steps, batch, seed, tick):
    """[RF] algorithm 1 on digits and fresh noise, with times even from EARLIEST to 1 and dropped labels."""

    def step_gradients(params, step):
        pick, t, wanted = _draw(images, labels, batch, seed, step)
        eps = philox.normal(seed, (batch, images.shape[1]), philox.stream("noise", step))
        return gradients(params, images[pick], eps, t, wanted)

    return fit.adam(mlp.residual_init(seed, pixels=images.shape[1]), step_gradients, steps, tick)


def reflow(params, eps, images, labels, steps, batch, seed, tick, done=0):
    """One round of [RF] section 2.2: training continues, at half the rate, with noise and what the flow made of it.
    done: steps before these, whose streams are spent."""

    def step_gradients(params, step):
        pick, t, wanted = _draw(images, labels, batch, seed, done + step)
        return gradients(params, images[pick], eps[pick], t, wanted)

    return fit.adam(params, step_gradients, steps, tick, lr=5e-4)


def sample(params, eps, labels, times, solver):
    """The flow from noise to data, x (B, pixels) float64. times: from 1 to 0. solver: of `ref.samplers`."""
    return solver(lambda x, t: velocity(params, x, np.full(len(x), t), labels)[0], eps, times)


def path(params, eps, labels, steps):
    """The states of Euler's method at equal steps of time, (steps + 1, B, pixels), for `ref.flow.straightness`."""
    states, times = [eps], schedules.flow_times(steps)
    for ends in zip(times[:-1], times[1:]):
        states.append(sample(params, states[-1], labels, np.array(ends), samplers.flow_euler))
    return np.array(states)


def draw(rows, made):
    """Frechet distance and adherence against calls, and samples."""
    figure, top, bottom = pictures.parts((8.6, 5.6), 3, 2.6)
    axes = top.subplots(1, 2)
    pictures.against_calls(axes, rows, ("frechet", "adherence"), "by", STYLES, rows[0], (1, 2, 5, 10, 20, 50))
    axes[0].set_yscale("log")
    top.legend(*axes[1].get_legend_handles_labels(), loc="outside right center")
    drawn = [("DDIM", 50), ("flow", 20), ("flow", 2), ("reflow", 20), ("reflow", 2)]
    images = np.concatenate([pictures.spread_out(made[which], 20) for which in drawn])
    names = [f"{name}, {n} steps" for name, n in drawn]
    pictures.gallery(bottom.subplots(), images, 20, "from the same noise, two samples a digit", names)
    return figure


def _draw(images, labels, batch, seed, step):
    """Which digits, their times and their labels, a tenth of them dropped."""
    pick = fit.picked(len(images), seed, batch, step)
    t = EARLIEST + (1 - EARLIEST) * philox.uniform(seed, (batch,), philox.stream("time", step))
    return pick, t, denoiser.dropped(labels[pick], seed, step)
