"""Latent diffusion: one transformer on pixels and on latents, by the seconds.

The task is that of `bench.studies.prompt`. The autoencoder, trained first, turns a picture of 3 x 32 x 32 into a latent
of 4 x 8 x 8 ([LDM] section 3.1; squared error and KL, no adversary). The transformer then learns on either, 16 tokens
each: of 8 x 8 pixels, or of 2 x 2 places of the latent. Latents are divided by their deviation ([LDM] appendix G); in
one run they are not, and in one they get the deviation of Stable Diffusion's. One run gives words and patches weights
of their own, `ref.nets.mmdit`.

Each training gets the same seconds, its first step, which compiles, and the drawing of pictures not counted; encoding
is a part of each step on latents. Operations are of a picture in a training step: twice the terms of every matrix
product of the forward and the backward pass, counted while `ref` runs them.

Papers
    [LDM]  Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022
    [SD3]  Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024
"""
import functools
import time
from types import SimpleNamespace

import numpy as np

from bench.studies import fit, nerf, pictures
from bench.studies.prompt import adherence, autoencoder, judge, model, scenes, show, train
from bench.studies.prompt.autoencoder import LATENT
from ref import tree

SETTINGS = dict(seconds=23.0, autoencoder_seconds=20.0, looks=4, count=100, batch=256, autoencoder_batch=128,
                widths=(16, 32, 64), kl=1e-4, steps=30, guidance=2.5, seed=0, backend="numba_cpu")  # fmt: skip
PUBLISHED = 1 / 0.18215  # the deviation of Stable Diffusion's latents, of which 0.18215 is the published scale
COARSE, TWO = {"shape": LATENT, "patch": 2}, {"streams": 2}
# Each run: what differs from `model.SIZES`, and the deviation that latents are scaled to, None for as they are
RUNS = {"pixels": ({}, None), "latents": (COARSE, 1.0), "latents, two streams": (COARSE | TWO, 1.0),
        "latents as they are": (COARSE, None), "latents of deviation 5.5": (COARSE, PUBLISHED)}  # fmt: skip
FINER = {"pixels, 64 tokens": {"patch": 4}, "pixels, 256 tokens": {"patch": 2},
         "latents, 64 tokens": COARSE | {"patch": 1}}  # only counted
COLOURS = dict(zip(RUNS, ("black", "#0072B2", "#009E73", "#56B4E9", "#D55E00")))
FIGURES = "digit", "colour", "size", "place", "all"
COLUMNS = {
    "what": "", "train_seconds": "of its own training", "total_seconds": "with the autoencoder's",
    "train_steps": "that these seconds bought", "gflop": "operations of a picture in a training step, in 1e9",
    "of_encoding": "of them in the encoder", "parameters": "numbers that are trained",
    "seconds_to_same": "of its own training, to as many pictures that are all right as pixels and latents both reach",
    "total_to_same": "the same with the autoencoder's seconds",
} | {name: judge.COLUMNS[name] for name in FIGURES} | {
    "psnr": "of decoded scenes, in dB", "sharpness": "mean gradient energy",
    "deviation": "of latents, before they are rescaled", "mean": "of them",
}  # fmt: skip


class Counted(np.ndarray):
    """An array that counts the operations of its matrix products, and of those of all arrays computed from it."""

    operations = 0

    def __array_ufunc__(self, ufunc, method, *given, out=None, **more):
        given, out = ([np.asarray(x) if isinstance(x, Counted) else x for x in some] for some in (given, out or ()))
        made = getattr(ufunc, method)(*given, **more | ({"out": tuple(out)} if out else {}))
        Counted.operations += 2 * np.size(made) * np.shape(given[0])[-1] if ufunc is np.matmul else 0
        return made.view(Counted) if isinstance(made, np.ndarray) else made


def counted(f, *trees):
    """f(*trees), and the operations of its matrix products. trees: of arrays, converted to float32 `Counted`."""
    before = Counted.operations
    made = f(*(tree.map(lambda a: np.asarray(a, np.float32).view(Counted), some) for some in trees))
    return made, Counted.operations - before


def rows(this):
    """Rows: the autoencoder, scenes before and after it, looks at each run, operations. {what: pictures} to draw."""
    judging, sprites = adherence.references()
    this.total = 1 + len(RUNS) * (1 + this.looks)
    net, found = trained_autoencoder(this, sprites)
    layouts = [scenes.layouts(adherence.SEED, which, np.arange(this.count)) for which in adherence.TESTED]
    real = np.concatenate([scenes.pictures(layout, sprites) for layout in layouts])
    latents = encoded(net, this, real)
    deviation = float(np.std(latents))
    found |= {"deviation": deviation, "mean": float(np.mean(latents))}
    drawn = {"real scenes": real, "the same, decoded": decoded(net, this, latents)}
    found = [found] + [{"what": what, "sharpness": sharpness(x)} | agreed(judging, x, layouts)
                       for what, x in drawn.items()]  # fmt: skip
    found[2]["psnr"] = nerf.psnr((drawn["the same, decoded"] + 1) / 2, (real + 1) / 2)
    first, ids = found[0]["train_seconds"], np.concatenate([scenes.ids(scenes.captions(some)) for some in layouts])
    for what, (change, wanted) in RUNS.items():
        sizes, on_latents = model.SIZES | change, "shape" in change
        how = {"what": what} | operations(sizes, this)
        scaled = autoencoder.rescaled(net, deviation / wanted if wanted else 1.0) if on_latents else None
        for seconds, step, average in diffused(this, sizes, sprites, scaled):
            params = train.views(average, sizes) | ({"autoencoder": scaled} if on_latents else {})
            drawn[what] = adherence.drawn_for(params, sizes, ids, w=this.guidance, steps=this.steps,
                                              backend=this.backend)  # fmt: skip
            found.append(how | {"train_seconds": seconds, "total_seconds": seconds + first * on_latents,
                                "train_steps": step} | agreed(judging, drawn[what], layouts))  # fmt: skip
            this.tick()
    found += [{"what": what} | operations(model.SIZES | change, this) for what, change in FINER.items()]
    return reached(found), {what: pictures.spread_out(x, 10) for what, x in drawn.items()}


def trained_autoencoder(this, sprites):
    """The moving average of its parameters, on the device, and its row."""
    arrays = fit.array_module(this.backend)
    settings = train.SETTINGS | {"lr": 1e-3, "batch": this.autoencoder_batch, "seed": this.seed, "ema": 0.998}
    fresh = autoencoder.start(this.seed, this.widths)
    state, shapes = train.state_of(fresh, arrays), tree.map(np.shape, fresh)
    ink, net = arrays.asarray(sprites[0]), train.split(state["params"], shapes)
    step = fit.recorded(functools.partial(train.rebuilt, net, ink, this.kl, this.backend), this.backend)
    kept = trained(state, step, settings, sprites, this, LATENT, this.autoencoder_seconds, 1)
    _, used = counted(lambda net, eps: train.rebuilt(net, sprites[0], this.kl, "ref", eps, *one(sprites)), fresh,
                      np.zeros((1, *LATENT)))  # fmt: skip
    return train.split(state["average"], shapes), {
        "what": "autoencoder", "train_seconds": kept[-1][0], "train_steps": kept[-1][1], "gflop": used / 1e9,
        "parameters": state["params"].size}  # fmt: skip


def one(sprites):
    """A batch of one scene, as `train.batch_of`."""
    return train.batch_of(1, train.SETTINGS | {"batch": 1}, sprites)


def diffused(this, sizes, sprites, net):
    """Trains the transformer, on the latents of net, or on pixels for None. Returns as `trained`."""
    arrays = fit.array_module(this.backend)
    settings = train.SETTINGS | {"lr": 1e-3, "batch": this.batch, "seed": this.seed, "ema": 0.998, "weight_decay": 0.0}
    state = train.begin(sizes, settings, arrays)
    params, ink = train.views(state["params"], sizes), arrays.asarray(sprites[0])
    encode = net and functools.partial(autoencoder.means, net, backend=this.backend)
    step = functools.partial(train.gradients, params, ink, sizes, this.backend, encode=encode)
    step = fit.recorded(step, this.backend)
    return trained(state, step, settings, sprites, this, model.shape_of(sizes), this.seconds, this.looks)


def trained(state, step, settings, sprites, this, shape, seconds, looks):
    """Train for some seconds, the first step not counted. Changes state. step: loss and gradients. shape: of the noise.
    Returns (second, step, moving average on the host) of some looks, evenly spread."""
    kept, done = [], 0.0
    train.advance(state, step, settings, sprites, this.backend, 0.0, shape)
    state["losses"] = [float(loss) for loss in state["losses"]]  # waits for the device
    began = time.perf_counter()
    while len(kept) < looks:
        train.advance(state, step, settings, sprites, this.backend, min(done, 1.0), shape)
        if state["step"] % 20 == 0:
            state["losses"] = [float(loss) for loss in state["losses"]]
        done = (time.perf_counter() - began) / seconds
        if done >= (len(kept) + 1) / looks:
            average = fit.host(state["average"].copy())  # waits too
            kept.append((time.perf_counter() - began, state["step"], average))
    this.tick()
    return kept


def encoded(net, this, x):
    """The latents of pictures, on the host."""
    return _in_batches(lambda some: autoencoder.means(net, some, this.backend), this, x)


def decoded(net, this, z):
    """The pictures of latents, on the host."""
    return _in_batches(lambda some: autoencoder.decoded(net, some, this.backend), this, z)


def _in_batches(f, this, x):
    arrays, size = fit.array_module(this.backend), adherence.BATCH
    parts = [x[i : i + size] for i in range(0, len(x), size)]
    return np.concatenate([fit.host(f(arrays.asarray(np.float32(part)))) for part in parts])


def agreed(judging, x, layouts):
    """The judge's figures of pictures, a mean over the sets. x: as many of each layout."""
    judged = [judge.judged(judging, part, some) for part, some in zip(np.split(x, len(layouts)), layouts)]
    return {name: float(np.mean([found[name] for found in judged])) for name in FIGURES}


def sharpness(x):
    """The mean square of the differences to the right and down, added. x: (N, 3, H, W)."""
    return float(sum(np.mean(np.diff(x, axis=axis) ** 2) for axis in (2, 3)))


def operations(sizes, this):
    """The operations of a picture in a training step, those of encoding among them, and the parameters."""
    params, x = model.start(0, sizes), np.zeros((1, *model.shape_of(sizes)))
    t, ids, encoding = np.array([0.5]), scenes.ids(show.EIGHT[:1]), 0

    def step(params, x):
        x0_hat, cache = model.predict(params, x, t, ids, sizes, "ref")
        model.predict_backward(x0_hat, params, cache, sizes, "ref")

    _, used = counted(step, params, x)
    if "shape" in sizes:
        net = autoencoder.start(0, this.widths)
        _, encoding = counted(lambda net, x: autoencoder.means(net, x, "ref"), net, np.zeros((1, *model.SHAPE)))
    return {"gflop": (used + encoding) / 1e9, "of_encoding": encoding / 1e9,
            "parameters": sum(leaf.size for leaf in tree.leaves(params))}  # fmt: skip


def reached(found):
    """Adds to the rows the number of each look, and to the last row of each run the seconds after which its share of
    pictures right in all reached the lower of the final shares of pixels and latents. Returns the rows."""
    ends = {row["what"]: row for row in found}
    same, begins = min(ends[what]["all"] for what in ("pixels", "latents")), {}
    for row in found:
        if "total_seconds" in row:
            before = begins.get(row["what"], {"look": 0, "train_seconds": 0.0, "all": 0.0})
            row["look"] = before["look"] + 1
            if before["all"] < same <= row["all"]:  # on the line between two looks
                share = (same - before["all"]) / (row["all"] - before["all"])
                at = before["train_seconds"] + share * (row["train_seconds"] - before["train_seconds"])
                more = row["total_seconds"] - row["train_seconds"]
                ends[row["what"]].setdefault("seconds_to_same", at)
                ends[row["what"]].setdefault("total_to_same", at + more)
            begins[row["what"]] = row
    return found


def shown(rows):
    """The last look at each."""
    return list({row["what"]: row for row in rows}.values())


def findings(rows):
    """Sentences, each decided by figures of the rows. rows: of the CSV."""
    last = [SimpleNamespace(**row) for row in shown(rows)]
    net, real, decoded, pixels, latents, two, plain, wide, _, fine = last[:10]
    said = []
    if getattr(latents, "seconds_to_same", "") != "":  # else nothing is right
        same, saved = min(pixels.all, latents.all), pixels.seconds_to_same - latents.seconds_to_same
        steps = [run.seconds_to_same * run.train_steps / run.train_seconds for run in (latents, pixels)]
        gains = ["fewer steps"] * (steps[0] < steps[1]) + ["cheaper steps"] * (latents.gflop < pixels.gflop)
        more = latents.total_to_same > pixels.total_to_same
        pays = f", but less if {net.train_seconds // saved + 1:.0f} trainings share it" if more and saved > 0 else ""
        said = [f"{same:.1%} of pictures are right after {latents.seconds_to_same:.1f} s of training on latents and "
                f"{pixels.seconds_to_same:.1f} s on pixels. With the autoencoder's {net.train_seconds:.1f} s it is "
                f"{latents.total_to_same:.1f} s, {'' if more else 'no '}more than on pixels{pays}.",
                f"This takes {steps[0]:.0f} steps on latents and {steps[1]:.0f} on pixels, of {latents.gflop:.2f}e9 "
                f"and {pixels.gflop:.2f}e9 operations a picture: latents gain by {' and '.join(gains) or 'nothing'}."]
    return [*said, f"A step on {fine.what}, takes {fine.gflop / latents.gflop:.1f} times the operations of latents.",
            f"Scaled to deviation 1, latents end with {latents.all:.1%}; as they are, with deviation "
            f"{net.deviation:.1f}, {plain.all:.1%}; with the {PUBLISHED:.1f} of Stable Diffusion's, {wide.all:.1%}.",
            f"Two streams end with {two.all:.1%}, one with {latents.all:.1%}; {two.gflop / latents.gflop:.2f} times "
            f"the operations a step, and {two.train_steps} steps in the same seconds, not {latents.train_steps}.",
            f"Real scenes, decoded, have {decoded.psnr:.1f} dB. Their sharpness goes from {real.sharpness:.3f} to "
            f"{decoded.sharpness:.3f}, those right in all from {real.all:.1%} to {decoded.all:.1%}.",
            f"The best run ends with {max(row.all for row in last[3:8]):.1%}, real scenes have {real.all:.1%}. "
            "All is from one seed; how far seeds differ is not measured."]  # fmt: skip


def draw(rows, drawn):
    """Above, adherence against seconds, and operations of a step; below, real scenes and samples of each run."""
    figure, upper, lower = pictures.parts((9.8, 6.2), 2.8, 3.4)
    left, right = upper.subplots(1, 2)
    styles = {name: {"color": colour, "marker": "o"} for name, colour in COLOURS.items()}
    pictures.lines(left, rows, "what", "total_seconds", "all", styles)
    left.axhline(rows[1]["all"], color="black", ls=(0, (5, 5)), lw=1, label="real scenes")
    left.axhline(rows[2]["all"], color="#0072B2", ls=(5, (5, 5)), lw=1, label="real scenes, decoded")
    left.set(xlabel="seconds of training, with the autoencoder's", ylabel="everything right (share)", ylim=(0, 1.05))
    left.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    bars = [row for row in shown(rows) if row.get("of_encoding", "") != ""]
    names = [row["what"] for row in bars]
    right.barh(names, [row["gflop"] for row in bars], color="0.6")
    right.barh(names, [row["of_encoding"] for row in bars], color="#D55E00", label="of them in the encoder")
    right.invert_yaxis()
    right.set(xlabel="operations of a picture in a training step, 1e9")
    right.legend()
    axes = lower.subplots(-(-len(drawn) // 2), 2).ravel()
    for axis, what in zip(axes, drawn):
        axis.imshow(show.side_by_side(drawn[what]))
        axis.set_title(what)
    for axis in axes:
        axis.set_axis_off()
    return figure
