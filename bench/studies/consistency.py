"""Consistency models: one and two network calls against 1 to 50 of diffusion.

The student predicts x0_hat and is tied to the boundary by f = c_skip x + (1 - c_skip) F, with c_skip of [CM] and a
sigma_data of WITHIN: from a little above SIGMA_MIN on, F predicts x0 and never the noise of 784 pixels, which 512 units
do not carry. It starts as the shared net, and learns at a fifth of that net's rate. One student is trained alone, which
knows no guidance; the other is distilled from the guided net, w = GUIDANCE. A guided call of the net evaluates it
twice, a student's call once.
"""
import time

import numpy as np

from bench.studies import data, fit, metrics, net, pictures
from ref import consistency, edm, philox, samplers, schedules
from ref.nets import mlp

SETTINGS = dict(train_steps=net.STEPS, steps=1200, batch=128, count=1000, calls=(1, 2, 5, 10, 20, 50), seed=0)
SIGMA_MIN, SIGMA_MAX, SECOND = 0.1, 80.0, 4.0  # the data's end, the noise's, and where the second call starts
WITHIN = 0.15
FEWEST, MOST = 10, 40  # pairs of neighbours at the start and the end of training
LN_MEAN, LN_STD = 0.5, 1.5  # of the levels trained at; [iCT] has -1.1 and 2, for images with finer detail than these
LR = 2e-4
GUIDANCE = 2.0
GUIDED, PLAIN = f"diffusion, w = {GUIDANCE:g}", "diffusion, w = 1"
STYLES = {
    "trained": dict(marker="o", color="#D55E00"), "distilled": dict(marker="^", color="#0072B2"),
    GUIDED: dict(marker="s", color="#555555"), PLAIN: dict(marker="D", color="#AAAAAA"),
}  # fmt: skip
COLUMNS = {"way": "", "calls": "network calls"} | metrics.COLUMNS | {
    "spread": "root mean square distance over pixels between two samples of a digit",
    "from_guided": f"the same distance to the sample of {GUIDED}, with the most calls, from the same noise",
    "cpu_seconds": "processor time of the training",
}  # fmt: skip


def rows(this):
    """Train, distil, sample, measure; {(way, calls): images} and the numbers of calls to draw."""
    judge, real, perfect = metrics.references(this.count, this.seed)
    this.total = this.train_steps + 2 * this.steps + 2 * len(this.calls)
    (images, labels), _ = data.load()
    shared, abar, _ = net.shared(this)
    wanted, made, seconds = net.requested(this.count), {("real", 0): perfect[0]}, {}
    for way in ("trained", "distilled"):
        began = time.process_time()
        params = train(shared, images, labels, abar, way == "distilled", this.steps, this.batch, this.seed, this.tick,
                       this.train_steps)  # fmt: skip
        seconds[way] = time.process_time() - began
        made |= {(way, n): sample(params, wanted, abar, n, this.seed) for n in (1, 2)}
    xT = SIGMA_MAX * philox.normal(this.seed, (this.count, images.shape[1]), philox.stream("sampling"))
    for way, w in ((GUIDED, GUIDANCE), (PLAIN, 1.0)):
        denoise = net.denoise(net.predictor(shared, wanted, w), abar)
        for n in this.calls:
            made[way, n] = samplers.euler(denoise, xT, schedules.karras_sigmas(n, SIGMA_MIN, SIGMA_MAX))
            this.tick()
    found = []
    for (way, n), x in made.items():
        x = net.clip(x)
        row = {"way": way, "calls": n, **metrics.judged(judge, real, x, perfect[1] if way == "real" else wanted)}
        distance = np.nan if way == "real" else apart(x, made[GUIDED, this.calls[-1]])
        more = {"from_guided": distance, "cpu_seconds": seconds.get(way, np.nan)}
        found.append(row | {"spread": metrics.spread(x, wanted)} | more)
    return found, made, this.calls


def student(params, x, sigma, labels, abar):
    """f(x, sigma) = c_skip x + (1 - c_skip) F, [CM] eq. 5 with F in the place of x0; F is the residual net at the time
    that `net.denoise` takes. sigma: (B,). Returns f (B, pixels) float64; 1 - c_skip (B, 1), by which a gradient goes
    back to F; the net's cache."""
    c_skip = consistency.boundary_scalings(sigma, SIGMA_MIN, WITHIN)[0][:, None]
    xt = edm.vp_from_ve(x, sigma).astype(params["in"]["w"].dtype)
    F, cache = mlp.residual(params, xt, edm.time_at(sigma, abar), labels)
    return c_skip * x + (1 - c_skip) * F, 1 - c_skip, cache


def gradients(params, x0, eps, sigma_t, sigma_s, labels, abar, denoise=None):
    """Gradients in the parameters of one step of consistency training, [CM] algorithm 3, or distillation, algorithm 2,
    of denoise, (x, sigma) -> x0_hat; the metric and the weight of [iCT]; the teacher has the student's own weights."""
    kept = {}

    def f(x, sigma):
        x0_hat, kept["into_F"], kept["cache"] = student(params, x, sigma, labels, abar)
        return x0_hat

    def teacher(x, sigma):
        return student(params, x, sigma, labels, abar)[0]

    step, models = (consistency.training_step, ()) if denoise is None else (consistency.distillation_step, (denoise,))
    _, dstudent = step(f, teacher, *models, x0, eps, sigma_t, sigma_s, 0.00054 * np.sqrt(x0.shape[1]))
    return mlp.residual_backward((kept["into_F"] * dstudent).astype(params["in"]["w"].dtype), params, kept["cache"])[1]


def train(shared, images, labels, abar, distilled, steps, batch, seed, tick, done=0):
    """A student that starts as the shared net, on the same digits, levels and noise whether it is trained alone or
    distilled from that net. done: steps of the shared net, whose streams are spent. Returns the average parameters."""

    def step_gradients(params, step):
        pick, now = fit.picked(len(images), seed, batch, done + step), done + step
        sigma_t, sigma_s = neighbours(philox.uniform(seed, (batch,), philox.stream("time", now)), step, steps)
        eps, wanted = philox.normal(seed, (batch, images.shape[1]), philox.stream("noise", now)), labels[pick]
        denoise = net.denoise(net.predictor(shared, wanted, GUIDANCE), abar) if distilled else None
        return gradients(params, images[pick], eps, sigma_t, sigma_s, wanted, abar, denoise)

    return fit.adam(shared, step_gradients, steps, tick, lr=LR)


def neighbours(share, step, steps):
    """Pairs sigma_t > sigma_s on the grid of a step, drawn by share (B,) as [iCT] sections 3.4 and 3.5 do."""
    count = consistency.discretization_steps(step - 1, steps, FEWEST, MOST)
    sigmas = schedules.karras_sigmas(count, SIGMA_MIN, SIGMA_MAX)[:-1]
    upto = np.cumsum(consistency.lognormal_sigma_weights(sigmas, LN_MEAN, LN_STD))
    i = np.searchsorted(upto[:-1], share, side="right")
    return sigmas[i], sigmas[i + 1]


def sample(params, labels, abar, calls, seed):
    """Digits in one or two calls, [CM] algorithm 1, x0_hat (B, pixels) float64."""
    shape = labels.size, params["in"]["w"].shape[1]
    first, second = (philox.normal(seed, shape, philox.stream("sampling", i)) for i in (0, 1))
    f = lambda x, sigma: student(params, x, np.full(len(x), sigma), labels, abar)[0]
    return samplers.consistency(f, SIGMA_MAX * first, [SIGMA_MAX, SECOND][:calls], [second], SIGMA_MIN)


def apart(a, b):
    """Mean over the samples of the root mean square over pixels of a - b, as `metrics.spread` measures."""
    return float(np.mean(np.sqrt(np.mean((a - b) ** 2, axis=1))))


def draw(rows, made, calls):
    """Three figures against calls, and samples."""
    figure, top, bottom = pictures.parts((9.2, 6.2), 2.7, 3.3)
    axes, ticks = top.subplots(1, 3), {"frechet": (5, 10, 20, 50, 100, 200)}
    pictures.against_calls(axes, rows, ("frechet", "adherence", "recall"), "way", STYLES, rows[0], calls, ticks)
    axes[0].legend()
    drawn = [("trained", 1), ("trained", 2), ("distilled", 1), ("distilled", 2), (GUIDED, calls[-1]), (GUIDED, 1)]
    images = np.concatenate([pictures.spread_out(made[which], 20) for which in [("real", 0), *drawn]])
    names = ["real digits", *(f"{way}, {n} call{'s' * (n > 1)}" for way, n in drawn)]
    title = "samples from the same noise, two a digit, below real digits"
    pictures.gallery(bottom.subplots(), images, 20, title, names)
    return figure
