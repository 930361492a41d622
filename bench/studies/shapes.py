"""Objects that are one digit from the front and another from the side.

An object of voxels is moved by score distillation of the digit model, [DreamFusion] eq. 3, as two cameras see it at a
right angle, in perspective. A classifier of held-out digits reads both views, in perspective and without. Next to it,
read in the same way: the visual hull of two real digits, which needs no model, and those digits themselves.

    python -m bench.studies.shapes 3 7        this pair alone: 3-7.png, a turning strip, and 3-7.gif

Papers
    [DreamFusion]  Poole et al., "DreamFusion: Text-to-3D using 2D Diffusion", 2023
"""
from ref import command

if __name__ == "__main__":
    command.begin("bench.studies.shapes")  # before the imports that take a second
import argparse
import io
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bench import files
from bench.studies import classifier, data, net, pictures, results
from bench.studies import voxel_object as objects
from kernels.nets import with_kernels
from ref import philox
from ref.nets import mlp

SETTINGS = dict(train_steps=net.STEPS, pairs=90, steps=300, rate=0.1, guidance=5.0, first=980, last=300, seed=0)
DRAWN = (3, 7), (8, 1), (4, 2), (0, 5)  # the pairs of the picture
WHATS = {"distilled": "object by score distillation", "hull": "visual hull of two real digits",
         "real": "the two real digits"}  # fmt: skip
CAMERAS = {"perspective": True, "parallel": False}
COLUMNS = {
    "what": "", "camera": "", "pairs": "", "views_right": "share of views that are read as the requested digit",
    "both_right": "share of pairs of which both are", "cpu_seconds_each": "processor time of a pair, one core",
}  # fmt: skip
TURN = np.linspace(0, 90, 9)  # degrees of a strip
LARGE, FRAMES = 4, 36  # pixels for one of a digit's; frames of an animation


def rows(this):
    """A row for each way and camera, then one for each object and camera; the strips to draw."""
    this.total = this.train_steps + this.pairs
    params, abar, _ = net.shared(this)
    digits, held_out = data.load()
    judge, found, drawn = classifier.train(*held_out, seed=this.seed), [], {}
    for front, side in ordered(this.pairs, this.seed):
        began = time.process_time()
        grid = made(params, abar, this, front, side)
        seconds = time.process_time() - began
        pair = np.stack([real(digits, digit, 10 * front + side, this.seed) for digit in (front, side)])
        seen = {"distilled": grid, "hull": objects.hull(*pair)}
        for what in WHATS:
            for camera, perspective in CAMERAS.items() if what in seen else [("", None)]:
                views = pair if what == "real" else both_views(seen[what], perspective)
                read = classifier.predicted(judge, views).tolist()
                found.append({"what": what, "camera": camera, "front": front, "side": side, "front_read": read[0],
                              "side_read": read[1], "cpu_seconds": seconds if what == "distilled" else ""})
        if (front, side) in DRAWN or len(drawn) == 0:
            drawn |= {(what, front, side): strip(seen[what]) for what in seen}
        this.tick()
    return summary(found) + found, drawn


def ordered(count, seed):
    """The first count of all ordered pairs of different digits: those that are drawn, then the others in an order of
    the seed."""
    others = [(a, b) for a in range(10) for b in range(10) if a != b and (a, b) not in DRAWN]
    place = philox.uniform(seed, (len(others),), philox.stream("batch")).argsort()
    return [*DRAWN, *(others[i] for i in place)][:count]


def made(params, abar, this, front, side):
    """The grid of one pair. params, abar: of the model. this: a run's settings."""
    forward = with_kernels(mlp, "numba_cpu").residual
    x0_hat = net.predictor(params, np.array([front, side]), this.guidance, forward=forward)
    return objects.distilled(x0_hat, abar, this.seed, this.steps, this.rate, this.first, this.last)


def real(digits, digit, which, seed):
    """A real digit (784,) that the model was trained on. which: of the draws."""
    mine = np.flatnonzero(digits[1] == digit)
    return digits[0][mine[int(philox.below(seed, 1, len(mine), philox.stream("label", 10 * which + digit))[0])]]


def both_views(grid, perspective):
    """(2, 784) in [-1, 1], from the front and from the side."""
    return objects.rendered(grid, objects.rays(objects.VIEWS.values(), perspective))[0].reshape(2, -1)


def summary(found):
    """The shares of each way and camera. found: rows of objects."""
    lines = []
    for what in WHATS:
        for camera in dict.fromkeys(row["camera"] for row in found if row["what"] == what):
            mine = [row for row in found if (row["what"], row["camera"]) == (what, camera)]
            right = np.array([[row["front_read"] == row["front"], row["side_read"] == row["side"]] for row in mine])
            lines.append({"what": what, "camera": camera, "pairs": len(mine), "views_right": float(right.mean()),
                          "both_right": float(right.all(axis=1).mean())})  # fmt: skip
            if what == "distilled":
                lines[-1]["cpu_seconds_each"] = float(np.mean([row["cpu_seconds"] for row in mine]))
    return lines


def shown(rows):
    """The summary."""
    return [row for row in rows if row["pairs"] != ""]


def strip(grid, angles=TURN):
    """Views (angles, pixels, pixels) in [-1, 1], in perspective. angles: degrees around z."""
    side = 28 * LARGE
    views = [objects.rendered(grid, objects.rays([angle], True, side, objects.PIXELS * LARGE))[0] for angle in angles]
    return np.reshape(views, (-1, side, side))


def draw(rows, drawn):
    """The strips of the pairs of DRAWN, the hulls of the same pairs below."""
    lines = [(key, views) for what in ("distilled", "hull") for key, views in drawn.items() if key[0] == what]
    figure, axes = pictures.pyplot().subplots(len(lines), 1, figsize=(8.6, 1.06 * len(lines)), layout="constrained")
    for axis, ((what, front, side), views) in zip(np.atleast_1d(axes), lines):
        axis.imshow(np.concatenate(list(views), axis=1), cmap="gray", vmin=-1, vmax=1)
        axis.set(title=f"{WHATS[what]}: {front} from the front, {side} from the side", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure


def animated(grid):
    """The bytes of a GIF of the object: from the front to the side and back, resting at both."""
    from PIL import Image

    way = (1 - np.cos(np.linspace(0, 2 * np.pi, FRAMES, endpoint=False))) / 2 * 90
    views = strip(grid, way)
    frames = [Image.fromarray(np.uint8(np.rint((np.clip(view, -1, 1) + 1) * 127.5))) for view in views]
    out = io.BytesIO()
    pauses = [600 if angle in (way[0], way.max()) else 60 for angle in way]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0)
    return out.getvalue()


def main(argv=None):
    """Make one pair. argv: list of words, or None for the command line's. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.shapes", description=__doc__.split("\n\n")[0])
    for name in ("front", "side"):
        parser.add_argument(name, type=int, choices=range(10), help=f"the digit to be seen from the {name}")
    for name in ("steps", "guidance", "seed"):
        kind = type(SETTINGS[name])
        parser.add_argument(f"--{name}", type=kind, default=SETTINGS[name], help="(default: %(default)s)")
    parser.add_argument("--out", type=command.named, default="out/shapes", metavar="DIR", help="(default: %(default)s)")
    args = parser.parse_args(argv)
    if args.steps < 1 or not abs(args.guidance) <= 1000 or not 0 <= args.seed < 2**64:
        parser.error("expected --steps of at least 1, --guidance within +-1000, --seed from 0 to 2^64 - 1")
    this = SimpleNamespace(**SETTINGS | vars(args) | {"out": Path(args.out), "tick": lambda: None})
    names = [f"{args.front}-{args.side}.{ending}" for ending in ("png", "gif")]
    try:
        results.writable(args.out, names)
        pictures.pyplot()
        params, abar, _ = net.shared(this)
        grid = made(params, abar, this, args.front, args.side)
        picture = results.png(draw([], {("distilled", args.front, args.side): strip(grid)}))
        files.deliver(this.out, dict(zip(names, (picture, animated(grid)))))
    except (ValueError, OSError, ModuleNotFoundError) as reason:
        print(f"shapes: {command.in_words(reason)}{results.hint(reason)}", file=sys.stderr)
        return 2
    print("wrote " + ", ".join(str(this.out / name) for name in names))
    return 0


if __name__ == "__main__":
    command.end(main())
