"""Sharpness against diversity: VAE, GAN and diffusion, trained for equal times.

All three are unconditional MLPs, as in the studies `vae`, `gan` and `digits`, and see the same digits, none shifted.
The steps are fixed, so that a run can be repeated, and were chosen to take the same time; the table has the seconds
they took. The diffusion model is sampled twice: as it is, and with x0_hat clipped to [-1, 1] in each step, as is the
custom; final pixels are clipped either way. The GAN's penalty, rates and init were chosen by this Frechet distance, the
other two models' settings were not, which favours the GAN.

Papers
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [PR]    Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019
"""
import time

import numpy as np

from bench.studies import classifier, data, denoiser, gan, metrics, net, pictures, results, vae

CALLS = 50  # DDIM's, of the diffusion model
FIGURES = {"sharpness": "mean gradient energy", "precision": "precision", "recall": "recall", "frechet": "Frechet distance"}
COLOURS = {"real digits": "0.4", "VAE": "#0072B2", "GAN": "#D55E00", "diffusion": "#009E73", "diffusion, clipped": "#56B4E9"}
COLUMNS = {
    "model": "", "steps": "of training", "train_seconds": "", "sample_seconds": f"for all samples; diffusion calls its net {CALLS} times, the others once",
    "sharpness": "mean gradient energy", "digits_found": "different digits that the classifier finds in the samples",
} | {key: metrics.COLUMNS[key] for key in ("precision", "recall", "frechet")}  # fmt: skip


def run(out, progress, vae_steps=3400, gan_steps=2900, diffusion_steps=1900, count=1000, seed=0):
    """Train the three, sample, judge, draw; vae_vs_gan_vs_diffusion.png, .csv and .txt."""
    judge, real, perfect = metrics.references(count, seed)
    total = vae_steps + gan_steps + diffusion_steps
    this = results.Run("vae_vs_gan_vs_diffusion", out, progress, total, vae_steps=vae_steps, gan_steps=gan_steps, diffusion_steps=diffusion_steps, count=count, seed=seed)
    (images, _), _ = data.load()
    unlabelled = images, np.full(len(images), denoiser.NO_LABEL)
    ways = (  # steps, how to train, the ways to sample
        (vae_steps, lambda: vae.train(images, vae_steps, 128, seed, this.tick, reach=0), {"VAE": vae.sample}),
        (gan_steps, lambda: gan.train(images, gan_steps, 64, seed, this.tick)[0], {"GAN": gan.sample}),
        (diffusion_steps, lambda: denoiser.trained(denoiser.settings_of(steps=diffusion_steps, seed=seed), unlabelled, this.tick),
         {"diffusion": sample_diffusion, "diffusion, clipped": lambda *given: sample_diffusion(*given, net.clip)}),
    )  # fmt: skip
    rows, made = [{"model": "real digits", "steps": 0, "train_seconds": 0.0, "sample_seconds": 0.0}], {"real digits": perfect[0]}
    for steps, train, samples in ways:
        began = time.perf_counter()
        params = train()
        trained = time.perf_counter() - began
        for name, sample in samples.items():
            began = time.perf_counter()
            made[name] = sample(params, count, seed)
            rows.append({"model": name, "steps": steps, "train_seconds": trained, "sample_seconds": time.perf_counter() - began})
    for row, images in zip(rows, made.values()):
        taken = classifier.predicted(judge, images)
        found = metrics.judged(judge, real, images, taken)
        row |= {"sharpness": metrics.sharpness(images), **{key: found[key] for key in ("precision", "recall", "frechet")}, "digits_found": len(set(taken.tolist())), "count": count}
    this.finish(rows, draw(rows, made))


def sample_diffusion(params, count, seed, limit=None):
    """[DDIM] with eta = 0. params: of the denoiser. count, seed: ints. Returns (count, 784) in [-1, 1]."""
    x0_hat = net.predictor(params, np.full(count, denoiser.NO_LABEL), w=1, limit=limit)
    return net.clip(net.ddim(x0_hat, count, denoiser.alpha_bar("cosine"), CALLS, seed))


def draw(rows, made):
    """The picture: the four figures of each, and uncurated samples."""
    figure = pictures.pyplot().figure(figsize=(8.6, 6.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.7, 4.6])
    for axis, (key, text) in zip(top.subplots(1, 4), FIGURES.items()):
        axis.bar(range(5), [row[key] for row in rows], color=[COLOURS[row["model"]] for row in rows], width=0.7)
        for i, row in enumerate(rows):
            axis.text(i, row[key], f"{row[key]:.1f}" if key == "frechet" else f"{row[key]:.2f}", ha="center", va="bottom")
        axis.set(xticks=range(5), xticklabels=["real", "VAE", "GAN", "diff.", "diff.,\nclip"], yticks=[], title=text)
        axis.spines["left"].set_visible(False)
    for axis, (name, images) in zip(bottom.subplots(5, 1), made.items()):
        pictures.gallery(axis, pictures.spread_out(images, 48), 24, name)
    return figure
