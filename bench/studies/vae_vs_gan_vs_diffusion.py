"""Sharpness against diversity: a VAE, a GAN and a diffusion model of the same digits, each trained for about as long, in one metric.

All three are unconditional MLPs, as in the studies `vae`, `gan` and `digits`, and see the same digits, none shifted. The steps are fixed,
so that a run can be repeated, and were chosen to take the same time; the seconds they took stand in the table. The diffusion model is
sampled twice: as it is, and with x0_hat held to [-1, 1] in each step, as is the custom; final pixels are held to it either way.
The GAN's penalty, rates and init were chosen with this Frechet distance in sight, the other two models' settings were not: it flatters the GAN.

Papers
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [PR]    Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019
"""
import time

import numpy as np

from bench.studies import classifier, data, digits, gan, metrics, net, results, vae
from ref import philox, samplers, schedules

CALLS = 50  # DDIM's, of the diffusion model
FIGURES = {"sharpness": "mean gradient energy", "precision": "precision", "recall": "recall", "frechet": "Frechet distance"}
COLOURS = {"real digits": "0.4", "VAE": "#0072B2", "GAN": "#D55E00", "diffusion": "#009E73", "diffusion, clipped": "#56B4E9"}


def run(out, progress, vae_steps=3400, gan_steps=2900, diffusion_steps=1900, count=1000, seed=0):
    """Train the three, sample, judge, draw; vae_vs_gan_vs_diffusion.png, .csv and .txt.

    out: folder. progress: called with (done, total) steps. vae_steps, gan_steps, diffusion_steps: of training. count: samples of each,
    a multiple of 10. seed: of everything random.
    """
    judge, real, perfect = metrics.references(count, seed)
    (images, _), _ = data.load()
    tick = results.ticker(progress, vae_steps + gan_steps + diffusion_steps)
    clipped = lambda params, count, seed: sample_diffusion(params, count, seed, net.clip)
    ways = (  # steps, how to train, the ways to sample
        (vae_steps, lambda: vae.train(images, vae_steps, 128, seed, tick, reach=0), {"VAE": vae.sample}),
        (gan_steps, lambda: gan.train(images, gan_steps, 64, seed, tick)[0], {"GAN": gan.sample}),
        (diffusion_steps, lambda: train_diffusion(images, diffusion_steps, 128, seed, tick), {"diffusion": sample_diffusion, "diffusion, clipped": clipped}),
    )
    rows, made = [], {"real digits": perfect[0]}
    for steps, train, samples in ways:
        began = time.perf_counter()
        params = train()
        trained = time.perf_counter() - began
        for name, sample in samples.items():
            began = time.perf_counter()
            made[name] = sample(params, count, seed)
            rows.append({"model": name, "steps": steps, "train_seconds": trained, "sample_seconds": time.perf_counter() - began})
    rows.insert(0, {"model": "real digits", "steps": 0, "train_seconds": 0.0, "sample_seconds": 0.0})
    for row, shown in zip(rows, (made[row["model"]] for row in rows)):
        taken = classifier.logits(judge, np.asarray(shown, np.float32)).argmax(axis=1)
        found = metrics.judged(judge, real, shown, taken)
        row |= {"sharpness": metrics.sharpness(shown), **{name: found[name] for name in ("precision", "recall", "frechet")}, "digits_found": len(set(taken.tolist())), "count": count}
    results.write(out, "vae_vs_gan_vs_diffusion", draw(rows, made), rows, sentences(rows))


def train_diffusion(images, steps, batch, seed, tick):
    """The denoiser of `digits`, never told a label. images: (N, 784) in [-1, 1]. steps, batch, seed: ints. tick: called after each step.

    Returns the moving average of its parameters.
    """
    settings = {"net": "residual", "batch": batch, "backend": "numba_cpu", "seed": seed, **digits.DEFAULTS["residual"], "steps": steps}
    state = digits.start(settings)
    digits.train(state, settings, (images, np.full(len(images), digits.NO_LABEL)), tick)
    return state["average"]


def sample_diffusion(params, count, seed, limit=None):
    """[DDIM] with eta = 0. params: of the denoiser. count, seed: ints. limit: of x0_hat, as in `net.predictor`. Returns (count, 784) in [-1, 1]."""
    abar = digits.alpha_bar(digits.DEFAULTS["residual"]["schedule"])
    model = net.model(net.predictor(params, np.full(count, digits.NO_LABEL), w=1, limit=limit), abar)
    xT = philox.normal(seed, (count, 784), digits.SAMPLING)
    return net.clip(samplers.ddim(model, xT, schedules.spaced_times(digits.T, CALLS, "trailing"), None, 0.0, abar))


def sentences(rows):
    """Three sentences with the figures measured. rows: of `run`. Returns a list of str."""
    real, *three, clipped = rows
    told = lambda key, form: ", ".join(f"{row['model']} {row[key]:{form}}" for row in three) + f" (real digits {real[key]:{form}})"
    order = lambda key: " > ".join(row["model"] for row in sorted(three, key=lambda row: -row[key]))
    nearest = min(three, key=lambda row: row["frechet"])
    return [
        "After training of " + ", ".join(f"{row['train_seconds']:.0f} s ({row['model']})" for row in three) + f" on one core: mean gradient energy {told('sharpness', '.3f')}; precision {told('precision', '.1%')}; "
        f"recall {told('recall', '.1%')}; Frechet distance {told('frechet', '.1f')}.",
        f"By sharpness the order is {order('sharpness')}, by precision {order('precision')}, by recall {order('recall')}; nearest to the digits by the Frechet distance is {nearest['model']}.",
        f"With x0_hat held to [-1, 1] in each step the diffusion model's energy is {clipped['sharpness']:.3f}, its precision {clipped['precision']:.1%}, its recall {clipped['recall']:.1%} and its Frechet distance "
        f"{clipped['frechet']:.1f}; drawing {rows[0]['count']} samples took " + ", ".join(f"{row['sample_seconds']:.3g} s ({row['model']})" for row in three) + f", for it asks its net {CALLS} times, the others once.",
    ]


def draw(rows, made):
    """The picture: the four figures of each, and samples as they came. rows, made: of `run`. Returns the figure."""
    plt = results.pyplot()
    figure = plt.figure(figsize=(8.6, 6.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.7, 4.6])
    for axis, (key, text) in zip(top.subplots(1, 4), FIGURES.items()):
        axis.bar(range(5), [row[key] for row in rows], color=[COLOURS[row["model"]] for row in rows], width=0.7)
        for i, row in enumerate(rows):
            axis.text(i, row[key], f"{row[key]:.1f}" if key == "frechet" else f"{row[key]:.2f}", ha="center", va="bottom")
        axis.set_title(text)
        axis.set(xticks=range(5), xticklabels=["real", "VAE", "GAN", "diff.", "diff.,\nclip"], yticks=[])
        axis.spines[["top", "right", "left"]].set_visible(False)
    for axis, (name, images) in zip(bottom.subplots(5, 1), made.items()):
        few = np.asarray(images)[:: len(images) // 48][:48]
        axis.imshow(few.reshape(2, 24, 28, 28).transpose(0, 2, 1, 3).reshape(56, 672), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(name, loc="left")
        axis.set_axis_off()
    return figure
