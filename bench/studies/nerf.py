"""A scene from 40 pictures: voxels, tri-plane, NeRF, Gaussians, in equal time.

The pictures are of this project's own ray tracer, so that every pose is exact and what is held out is known. Each way
gets the same seconds of processor time, on one core, whatever else the machine does; compiling and drawing the held-out
views do not count.

    python -m bench.studies.nerf --obj FILE.obj        the same of a mesh, into out/nerf
"""
from ref import command

if __name__ == "__main__":
    command.begin("bench.studies.nerf")  # before the imports that take a second
import argparse
import itertools
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bench.studies import fit, pictures, radiance, results, tracer
from ref import tree

SETTINGS = dict(seconds=60.0, most=10**6, views=40, held_out=10, size=64, looks=6, seed=0)
COLUMNS = {
    "way": "", "cpu_seconds": "processor time of the fit, one core", "psnr": "of held-out views, in dB",
    "psnr_fitted": "of the first ten fitted views, in dB", "fit_steps": "", "parameters": "numbers that keep the scene",
}  # fmt: skip
COLOURS = {"voxels": "#0072B2", "tri-plane": "#009E73", "NeRF": "#D55E00", "Gaussians": "black"}


def rows(this, solids=tracer.SOLIDS):
    """A row for each way and each look at the held-out views, the last one at the end; the pictures to draw."""
    this.total = len(radiance.WAYS) * this.looks
    cameras, others = tracer.cameras(this.views, this.size), tracer.cameras(this.held_out, this.size, 0.2)
    known, hidden = (np.array([tracer.picture(solids, camera, this.size) for camera in some], np.float32)
                     for some in (cameras, others))  # fmt: skip
    found, drawn, views = [], {"truth": hidden}, radiance.views(known, cameras)
    for name, way in radiance.WAYS.items():
        state, spent, step = fit.begin(way.init(this.seed)), 0.0, 0
        way.step(state["params"], views, this.seed, 0)  # what is compiled at the first call does not count
        for look in range(1, this.looks + 1):
            share, began = look / this.looks, time.process_time()
            while spent + time.process_time() - began < this.seconds * share and step < this.most * share:
                step += 1
                left = 1 - (spent + time.process_time() - began) / this.seconds
                descend(way, state, way.step(state["params"], views, this.seed, step), step, left)
            spent += time.process_time() - began
            seen = [np.array([way.picture(state["params"], camera, this.size) for camera in some])
                     for some in (others, cameras[:10])]  # fmt: skip
            found.append({"way": name, "cpu_seconds": spent, "psnr": psnr(seen[0], hidden),
                          "psnr_fitted": psnr(seen[1], known[:10]), "fit_steps": step,
                          "parameters": radiance.numbers(state["params"])})  # fmt: skip
            this.tick()
        drawn[name] = seen[0]
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
    figure, upper, lower = pictures.parts((8.6, 7.4), 2.2, 5.6)
    axis = upper.subplots()
    for name, colour in COLOURS.items():
        mine = [row for row in rows if row["way"] == name]
        axis.plot([r["cpu_seconds"] for r in mine], [r["psnr"] for r in mine], "o-", color=colour, label=name)
    axis.set(xlabel="processor seconds", ylabel="PSNR of held-out views, dB")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    final = {row["way"]: f": {row['psnr']:.1f} dB" for row in shown(rows)}
    for axis, (name, views) in zip(lower.subplots(len(drawn), 1), drawn.items()):
        axis.imshow(np.concatenate(list(np.clip(views, 0, 1)), axis=1))
        axis.set_title(name + final.get(name, ": held-out views, by the ray tracer"))
        axis.set_axis_off()
    return figure


def main(argv=None):
    """The study of a mesh. argv: list of words, or None for the command line's. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.nerf", description=__doc__.split("\n\n")[0])
    parser.add_argument("--obj", type=command.named, required=True, metavar="FILE", help="Wavefront OBJ: v and f lines")
    own = "processor seconds of each way (default: %(default)s)"
    parser.add_argument("--seconds", type=float, default=SETTINGS["seconds"], help=own)
    parser.add_argument("--out", type=command.named, default="out/nerf", metavar="DIR", help="(default: %(default)s)")
    args = parser.parse_args(argv)
    if not 0 < args.seconds < np.inf:
        parser.error(f"--seconds: expected a number above 0, got {args.seconds}")
    settings = SETTINGS | {"seconds": args.seconds, "obj": Path(args.obj).name}
    ticks, began = itertools.count(1), time.perf_counter()
    this = SimpleNamespace(**settings, tick=lambda: print(f"{next(ticks)} of {this.total}", flush=True))
    try:
        results.writable(args.out, [f"nerf.{ending}" for ending in results.ENDINGS])
        pictures.pyplot()
        found, drawn = rows(this, (tracer.read_obj(args.obj),))
        results.write("nerf", args.out, found, draw(found, drawn), settings, time.perf_counter() - began)
    except (ValueError, OSError, ModuleNotFoundError) as reason:
        print(f"nerf: {command.in_words(reason)}{results.hint(reason)}", file=sys.stderr)
        return 2
    print(f"wrote nerf.png, nerf.csv, nerf.txt into {args.out}")
    return 0


if __name__ == "__main__":
    command.end(main())
