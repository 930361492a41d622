"""Sharpness against diversity: VAE, GAN and diffusion, trained for equal times.

All three are unconditional MLPs, as in the studies `vae`, `gan` and `digits`, and see the same digits, none shifted.
The steps are fixed, so that a run can be repeated, and were chosen to take the same time; the table has the seconds
they took. The diffusion model is sampled twice: as it is, and with x0_hat clipped to [-1, 1] in each step, as is the
custom; final pixels are clipped either way. The GAN's penalty, rates and init were chosen by this Frechet distance, the
other two models' settings were not, which favours the GAN.
"""
import time

import numpy as np

from bench.studies import classifier, data, denoiser, gan, metrics, net, pictures, vae

SETTINGS = dict(vae_steps=3400, gan_steps=2900, diffusion_steps=1900, count=1000, seed=0)
CALLS = 50  # DDIM's, of the diffusion model
COLOURS = "0.4", "#0072B2", "#D55E00", "#009E73", "#56B4E9"
FIGURES = ("precision", "recall", "frechet")
COLUMNS = {
    "model": "", "steps": "of training", "train_seconds": "",
    "sample_seconds": f"for all samples; diffusion calls its net {CALLS} times, the others once",
    "sharpness": "mean gradient energy", "digits_found": "different digits that the classifier finds in the samples",
} | {key: metrics.COLUMNS[key] for key in FIGURES}  # fmt: skip


def rows(this):
    """Train the three, sample, judge; {model: images} to draw."""
    judge, real, perfect = metrics.references(this.count, this.seed)
    this.total = this.vae_steps + this.gan_steps + this.diffusion_steps
    (images, _), _ = data.load()
    unlabelled, settings = np.full(len(images), denoiser.NO_LABEL), dict(steps=this.diffusion_steps, seed=this.seed)
    diffusion = {"diffusion": sample_diffusion, "diffusion, clipped": lambda *how: sample_diffusion(*how, net.clip)}
    ways = (  # steps, how to train, the ways to sample
        (this.vae_steps, lambda n: vae.train(images, n, 128, this.seed, this.tick, reach=0), {"VAE": vae.sample}),
        (this.gan_steps, lambda n: gan.train(images, n, 64, this.seed, this.tick)[0], {"GAN": gan.sample}),
        (this.diffusion_steps,
         lambda n: denoiser.trained(denoiser.settings_of(**settings), (images, unlabelled), this.tick), diffusion),
    )  # fmt: skip
    found = [{"model": "real digits", "steps": 0, "train_seconds": 0.0, "sample_seconds": 0.0}]
    made = {"real digits": perfect[0]}
    for steps, train, samples in ways:
        began = time.perf_counter()
        params = train(steps)
        trained = time.perf_counter() - began
        for name, sample in samples.items():
            began = time.perf_counter()
            made[name] = sample(params, this.count, this.seed)
            sampled = time.perf_counter() - began
            found.append({"model": name, "steps": steps, "train_seconds": trained, "sample_seconds": sampled})
    for row, shown in zip(found, made.values()):
        taken = classifier.predicted(judge, shown)
        figures = metrics.judged(judge, real, shown, taken)
        row |= {"sharpness": metrics.sharpness(shown), **{key: figures[key] for key in FIGURES}}
        row |= {"digits_found": len(set(taken.tolist())), "count": this.count}
    return found, made


def sample_diffusion(params, count, seed, limit=None):
    """[DDIM] with eta = 0, (count, 784) in [-1, 1]. limit: of x0_hat, as in `net.predictor`."""
    x0_hat = net.predictor(params, np.full(count, denoiser.NO_LABEL), w=1, limit=limit)
    return net.clip(net.ddim(x0_hat, count, denoiser.alpha_bar("cosine"), CALLS, seed))


def draw(rows, made):
    """The four figures of each, and uncurated samples."""
    figure, top, bottom = pictures.parts((8.6, 6.6), 1.7, 4.6)
    for axis, key in zip(top.subplots(1, 4), ("sharpness", *FIGURES)):
        axis.bar(range(5), [row[key] for row in rows], color=COLOURS, width=0.7)
        for i, row in enumerate(rows):
            axis.text(i, row[key], f"{row[key]:.{1 if key == 'frechet' else 2}f}", ha="center", va="bottom")
        title = {"sharpness": "mean gradient energy", "frechet": "Frechet distance"}.get(key, key)
        names = ["real", "VAE", "GAN", "diff.", "diff.,\nclip"]
        axis.set(xticks=range(5), xticklabels=names, yticks=[], title=title)
        axis.spines["left"].set_visible(False)
    for axis, (name, images) in zip(bottom.subplots(5, 1), made.items()):
        pictures.gallery(axis, pictures.spread_out(images, 48), 24, name)
    return figure
