"""The loop that most introductory texts print: what each of its lines costs.

The tutorial's loop is `ref.fused.mlp_train`: 785 -> 256 -> 784, t as one more pixel, the loss of the noise, a constant
rate, no average, no labels; DDPM draws from it, unclipped. Ours is that of `digits`. Each row between the two is ours
with one line as the tutorial has it, trained and sampled as ours in all else. A net without labels is drawn from
without guidance and has no adherence.
"""
import numpy as np

from bench.studies import data, denoiser, fit, metrics, net, pictures
from ref import philox

SETTINGS = dict(
    train_steps=net.STEPS, tutorial_steps=5000, count=500, sampler_steps=50, longest=denoiser.T, seed=0,
)  # fmt: skip
LINES = {  # what the tutorial has in place of ours
    "network": dict(net="simple_mlp"), "target": dict(predict="eps"), "schedule": dict(schedule="linear"),
    "rate": dict(anneal=False), "average": dict(ema=0.0), "labels": {},
}  # fmt: skip
UNLABELLED = ("network", "labels", "tutorial")
COLUMNS = {"line": "of the tutorial's loop, in ours", "steps": "of training"} | metrics.COLUMNS | {
    "deviation": "of the samples' pixels", "loss": "of the last 100 steps; of the noise where that is predicted",
}  # fmt: skip


def rows(this):
    """Train ours with each line, and the tutorial's; sample, judge; {line: images} to draw."""
    judge, real, perfect = metrics.references(this.count, this.seed)
    this.total = (1 + len(LINES)) * this.train_steps + -(-this.tutorial_steps // denoiser.RUN)
    ours, theirs = ({"net": name} | denoiser.DEFAULTS[name] for name in ("residual", "simple_mlp"))
    ours, theirs = ours | dict(steps=this.train_steps), theirs | dict(steps=this.tutorial_steps)
    runs = {"ours": ours} | {line: ours | change for line, change in LINES.items()} | {"tutorial": theirs}
    (images, labels), _ = data.load()
    unlabelled, wanted = np.full(len(images), denoiser.NO_LABEL), net.requested(this.count)
    found, made = [{"line": "real digits", **judged(judge, real, perfect[0], perfect[1])}], {"real digits": perfect[0]}
    for line, change in runs.items():
        settings = denoiser.settings_of(**change | {"seed": this.seed})
        state, own = denoiser.start(settings), line not in UNLABELLED
        denoiser.train(state, settings, (images, labels if own else unlabelled), this.tick)
        for way in [line, "sampler"][:1 + (line == "ours")]:
            how = (0.0, this.sampler_steps, 2.0, 1.0) if way == line != "tutorial" else (1.0, this.longest, 1.0, None)
            made[way] = sample(state["average"], settings, this.count, wanted if own else None, *how)
            row = {"line": way, "steps": settings["steps"], **judged(judge, real, made[way], wanted if own else None)}
            found.append(row | {"loss": float(np.mean(state["losses"][-100:]))})
    return found, made


def sample(params, settings, count, labels, eta, steps, w, clip):
    """Digits, (count, 784). labels: (count,), or None for no guidance. eta, clip: of `mlp_sample`. w: of guidance."""
    seed, abar = settings["seed"], denoiser.alpha_bar(settings["schedule"])
    xT = philox.normal(seed, (count, 784), philox.stream("sampling")).astype(np.float32)
    guided = None if labels is None else (labels, w)
    how = dict(seed=seed, stream=philox.stream("sampling", 1), guidance=guided, predict=settings["predict"], clip=clip)
    return fit.backend(settings["backend"]).fused.mlp_sample(params, xT, denoiser.trailing(steps), abar, eta, **how)


def judged(judge, real, images, labels):
    """The figures of samples; no adherence without labels."""
    figures = metrics.judged(judge, real, images, np.zeros(len(images), int) if labels is None else labels)
    return figures | {"adherence": np.nan if labels is None else figures["adherence"],
                      "deviation": float(np.std(images))}  # fmt: skip


def draw(rows, made):
    """Samples of each, uncurated, with its Frechet distance."""
    figure, axes = pictures.pyplot().subplots(len(made), 1, figsize=(8.6, 0.62 * len(made)), layout="constrained")
    for axis, row in zip(axes, rows):
        title = f"{row['line']}: Frechet distance {row['frechet']:.3g}"
        pictures.gallery(axis, pictures.spread_out(made[row["line"]], 30), 30, title)
    return figure
