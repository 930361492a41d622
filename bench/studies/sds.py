"""Score distillation where all is known: what it seeks, and what guidance does.

Points of the plane are moved by the gradient of [DreamFusion] eq. 3 with the exact model of a mixture of five
Gaussians: three weightings, and two plans of the time, annealed or drawn anew for each step. DDIM with the same model
and data are shown next to them. Then both with guidance between two Gaussians of one covariance, N(0, s^2 I) without
and N((1, 0), s^2 I) with the condition, where the fixed point of score distillation is w (1, 0). The rate falls to 0
and is divided by the mean weight of all times.

Papers
    [DreamFusion]  Poole et al., "DreamFusion: Text-to-3D using 2D Diffusion", 2023
"""
import numpy as np

from bench.studies import denoiser, pictures, score
from ref import diffusion, guidance, philox, samplers, scene

SETTINGS = dict(steps=2000, count=2000, rate=0.1, sampler_steps=200, seed=0)
WEIGHTINGS, PLANS, FIRST, LAST = ("sds", "fantasia3d", "uniform"), ("annealed", "drawn"), 980, 20
WEIGHTS, STD, MEAN = (1.0, 3.0, 7.5), 0.3, np.array([1.0, 0.0])
COLUMNS = {
    "way": "", "nearest": "root mean square distance to the nearest of the five means, over its deviation",
    "spread": "root mean square distance to the mean of the points of the same component, over that of data",
    "log_density": "mean of log p(x) of the mixture, in nats",
    "shares_off": "total variation between the points' shares of the components and those of data",
    "w": "guidance weight", "mean_1": "mean of the first coordinate", "fixed_point": "w (1, 0): its first coordinate",
    "deviation": "of the points about their mean, over s",
}  # fmt: skip


def rows(this):
    """Move, sample, measure; {way: points (count, 2)} to draw, of the mixture and of the guided pair."""
    abar, count = denoiser.alpha_bar("cosine"), this.count
    this.total = 1 + len(WEIGHTINGS) * len(PLANS) + 2 * len(WEIGHTS)
    data = score.mixture(count, this.seed, philox.stream("label"), philox.stream("batch"))
    found, drawn, guided = [], {"data": data}, {}

    def model(x, t):
        return diffusion.eps_from_score(score.exact_score(x, abar[t]), t, abar)

    drawn["DDIM"] = sampled(model, this, abar)
    this.tick()
    for weighting in WEIGHTINGS:
        for plan in PLANS:
            drawn[f"{weighting}, {plan}"] = distilled(model, this, abar, weighting, plan)
            this.tick()
    reference = spread(data)
    found += [{"way": way} | measured(x, data, reference) for way, x in drawn.items()]
    for w in WEIGHTS:
        def pair(x, t, w=w):
            uncond, cond = (scene.gaussian_eps(x, t, mean, STD**2 * np.eye(2), abar) for mean in (0 * MEAN, MEAN))
            return guidance.guide(uncond, cond, w)

        for way, x in (("guided sds", distilled(pair, this, abar, "sds", "annealed")),
                       ("guided DDIM", sampled(pair, this, abar))):
            guided[f"{way}, w = {w:g}"] = x
            found.append({"way": way, "w": w, "mean_1": float(x[:, 0].mean()), "fixed_point": w * MEAN[0],
                          "deviation": float(np.sqrt(np.mean((x - x.mean(axis=0)) ** 2)) / STD)})
            this.tick()
    return found, drawn, guided


def sampled(model, this, abar):
    """DDIM, eta = 0, from noise (count, 2). model: (x, t) -> eps_hat."""
    xT = philox.normal(this.seed, (this.count, 2), philox.stream("sampling"))
    return samplers.ddim(model, xT, denoiser.trailing(this.sampler_steps), None, 0.0, abar)


def distilled(model, this, abar, weighting, plan):
    """Points (count, 2) moved by score distillation, each on its own, from noise. model: as in `sampled`. weighting: of
    `ref.scene`. plan: "annealed" from FIRST to LAST, or "drawn" between them anew for every step."""
    x = philox.normal(this.seed, (this.count, 2), philox.stream("sampling"))
    mean_weight = scene.distillation_weight(np.arange(LAST, FIRST + 1), abar, weighting).mean()
    for i in range(this.steps):
        if plan == "annealed":
            t = scene.annealed_time(i, this.steps, FIRST, LAST)
        else:
            t = LAST + int(philox.below(this.seed, 1, FIRST - LAST + 1, philox.stream("time", i))[0])
        eps = philox.normal(this.seed, (this.count, 2), philox.stream("noise", i))
        dx = scene.score_distillation(model(diffusion.q_sample(x, t, eps, abar), t), eps, t, abar, weighting)
        x = x - this.rate * (1 - i / this.steps) * dx / mean_weight
    return x


def components(x):
    """Which mean is nearest to each point, in deviations, and how far it is. x: (B, 2)."""
    away = np.linalg.norm(x[:, None] - score.MEANS, axis=2) / score.STDS
    return away.argmin(axis=1), away.min(axis=1)


def spread(x):
    """Root mean square distance of points to the mean of those of the same component. x: (B, 2)."""
    which, _ = components(x)
    means = np.stack([x[which == k].mean(axis=0) if np.any(which == k) else score.MEANS[k] for k in range(5)])
    return float(np.sqrt(np.mean(np.sum((x - means[which]) ** 2, axis=1))))


def measured(x, data, reference):
    """A row of the mixture, as COLUMNS says. reference: the spread of data."""
    (which, away), (real, _) = components(x), components(data)
    shares = [np.bincount(w, minlength=5) / len(w) for w in (which, real)]
    return {"nearest": float(np.sqrt(np.mean(away**2))), "spread": spread(x) / reference,
            "log_density": float(score.log_density(x, 1.0).mean()),
            "shares_off": float(np.abs(shares[0] - shares[1]).sum() / 2)}


def draw(rows, drawn, guided):
    """The points of each way over the mixture's means, and the guided pair."""
    figure, upper, lower = pictures.parts((8.6, 6.0), 4.4, 1.5)
    for axis, (way, x), row in zip(upper.subplots(2, 4, sharex=True, sharey=True).flat, drawn.items(), rows):
        axis.plot(*x.T, ".", ms=1.5, alpha=0.4, color="0.4" if way == "data" else "#0072B2")
        axis.plot(*score.MEANS.T, "+", ms=6, color="#D55E00")
        axis.set(title=f"{way}: spread {row['spread']:.2g}", aspect="equal", xlim=(-2.7, 2.7), ylim=(-2.7, 2.7))
    for axis, w in zip(lower.subplots(1, len(WEIGHTS), sharey=True), WEIGHTS):
        for way, colour in (("guided DDIM", "0.7"), ("guided sds", "#0072B2")):
            axis.plot(*guided[f"{way}, w = {w:g}"].T, ".", ms=2, alpha=0.6, color=colour, label=way)
        axis.plot(w * MEAN[0], 0, "+", ms=14, color="#D55E00", label="$\\mu_u + w\\,(\\mu_c - \\mu_u)$")
        axis.plot([0, MEAN[0]], [0, 0], "x", ms=5, color="black", label="$\\mu_u$ and $\\mu_c$")
        axis.set(title=f"guidance, w = {w:g}", aspect="equal", ylim=(-1.5, 1.5), xlim=(-1, 8.5))
    axis.legend()
    return figure
