"""A scene from 40 pictures: voxels, tri-plane, NeRF, Gaussians, in equal time.

The pictures are of this project's own ray tracer, so that every pose is exact and what is held out is known. Each way
gets the same seconds of processor time, whatever else the machine does; drawing the held-out views does not count. With
--obj the scene is a mesh: `python -m bench.studies.nerf --obj FILE.obj`.
"""
import time

import numpy as np

from bench.studies import fit, pictures, radiance, results, tracer
from ref import tree

SETTINGS = dict(seconds=60, views=40, held_out=10, size=64, looks=6, seed=0)
COLUMNS = {
    "way": "", "cpu_seconds": "processor time of the fit, one core", "psnr": "of held-out views, in dB",
    "psnr_fitted": "of the first ten fitted views, in dB", "fit_steps": "", "parameters": "numbers that keep the scene",
}  # fmt: skip
COLOURS = {"voxels": "#0072B2", "tri-plane": "#009E73", "NeRF": "#D55E00", "Gaussians": "black"}


def rows(this, solids=tracer.SOLIDS):
    """A row for each way and each look at the held-out views, the last one at the end; the pictures to draw."""
    this.total = len(radiance.WAYS) * this.looks
    cameras, others = tracer.cameras(this.views, this.size), tracer.cameras(this.held_out, this.size, 0.2)
    shown, hidden = (np.array([tracer.picture(solids, camera, this.size) for camera in some], np.float32)
                     for some in (cameras, others))  # fmt: skip
    found, drawn = [], {"truth": hidden}
    for name, way in radiance.WAYS.items():
        state, spent, step = fit.begin(way.init(this.seed)), 0.0, 0
        way.step(state["params"], shown, cameras, this.seed, 0)  # what is compiled at the first call does not count
        for look in range(1, this.looks + 1):
            began = time.process_time()
            while spent + time.process_time() - began < this.seconds * look / this.looks:
                step += 1
                left = 1 - (spent + time.process_time() - began) / this.seconds
                descend(way, state, way.step(state["params"], shown, cameras, this.seed, step), step, left)
            spent += time.process_time() - began
            views = [np.array([way.picture(state["params"], camera, this.size) for camera in some])
                     for some in (others, cameras[:10])]  # fmt: skip
            found.append({"way": name, "cpu_seconds": spent, "psnr": psnr(views[0], hidden),
                          "psnr_fitted": psnr(views[1], shown[:10]), "fit_steps": step,
                          "parameters": radiance.numbers(state["params"])})  # fmt: skip
            this.tick()
        drawn[name] = views[0]
    return found, drawn


def descend(way, state, grads, step, left):
    """A step of Adam at each parameter's own rate, which falls to a tenth. Changes state. left: of the time, 1 to 0."""
    adam = fit.backend("numba_cpu").adam_ema
    arrays = {part: tree.named(state[part]) for part in fit.PARTS}
    for name, g in tree.named(grads).items():
        rate = next(r for first, r in way.rates.items() if name.startswith(first)) * (0.1 + 0.9 * max(left, 0))
        adam(arrays["params"][name], g, *(arrays[part][name] for part in fit.PARTS[1:]), step, rate, 0.9, 0.99, 1e-10,
             0.0, 0.0)


def psnr(a, b):
    """Of pictures in [0, 1], in dB: -10 log10 of the mean of their squared differences."""
    return float(-10 * np.log10(np.mean((np.clip(a, 0, 1) - b) ** 2)))


def shown(rows):
    """The last look at each way."""
    return [row for i, row in enumerate(rows) if row["way"] not in [r["way"] for r in rows[i + 1 :]]]


def draw(rows, drawn):
    """PSNR by time, and held-out views of each way under the truth."""
    figure, upper, lower = pictures.parts((8.6, 6.6), 2.2, 5.0)
    axis = upper.subplots()
    for name, colour in COLOURS.items():
        mine = [row for row in rows if row["way"] == name]
        axis.plot([r["cpu_seconds"] for r in mine], [r["psnr"] for r in mine], "o-", color=colour, label=name)
    axis.set(xlabel="processor seconds", ylabel="PSNR of held-out views, dB")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    final = {row["way"]: f": {row['psnr']:.1f} dB" for row in shown(rows)}
    for axis, (name, views) in zip(lower.subplots(5, 1), drawn.items()):
        axis.imshow(np.concatenate(list(np.clip(views[::2], 0, 1)), axis=1))
        axis.set(title=name + final.get(name, ": the ray tracer"))
        axis.set_axis_off()
    return figure
