"""The judge of scenes: does a picture show what its prompt says? Digits by a small classifier, trained on handwriting
that the model never saw; colours by direction in RGB; sizes and places by the box around the ink.

The ink of a pixel is the largest of its three channels; it counts above LEAST. A picture of two objects is cut between
the rows, or columns, of CUTS where the cut crosses least ink, and the part where the prompt wants the first object is
judged as the first. A digit is small up to SMALL pixels. On the left is a box whose middle lies left of SIDE, in the
middle one at most MIDDLE pixels from it. Two objects lie as they should where both parts have ink, and the cut crosses
at most CROSSED of all of it.
"""
import numpy as np

from bench.studies.prompt import classifier, scenes

LEAST, SMALL, SIDE, MIDDLE, CROSSED, CUTS = 0.3, 12.5, 13.5, 4, 0.05, range(11, 22)
COLUMNS = {
    "digit": "share of pictures in which every digit is the requested one", "colour": "the same of colours",
    "size": "the same of sizes, where the prompt gives one", "place": "the same of places and relations",
    "all": "share of pictures in which all of these are right",
    "swapped": "share of pictures that have the colours of their two objects exchanged",
}  # fmt: skip


def train(images, labels, seed=0):
    """The classifier's parameters, from handwriting in both sizes. images: (N, 784) in [-1, 1]. labels: (N,)."""
    ink, _, _ = scenes.handwriting(images, labels)
    seen = np.array([normalised(x) for size in ink for x in size], np.float32)
    return classifier.train(seen, np.tile(np.sort(labels), 2), seed)


def normalised(ink):
    """A digit as the classifier takes it: its box resized to 20 pixels, in the middle. ink: (H, W) in [0, 1]."""
    box, side = scenes.boxed(ink, LEAST), classifier.SIDE
    return scenes.framed(box, side - 4, side) if box.size else np.zeros((side, side))


def judged(params, pictures, layout):
    """What is right in each picture, of the prompts of these scenes: {column of COLUMNS: bools (N,)}.

    params: from `train`. pictures: (N, 3, 32, 32) in [-1, 1]. layout: of `scenes.layouts`."""
    two, there = layout["two"], layout["two"][:, None] | (np.arange(2) == 0)  # there (N, 2): the scene has this object
    seen = [measured(x, second, relation) for x, second, relation in zip(pictures, two, layout["relation"])]
    digits, colour, size, middle, crossed = (np.array(part) for part in zip(*seen))
    digit = classifier.predicted(params, digits.reshape(-1, *digits.shape[2:])).reshape(-1, 2)
    # Each object
    read = [("digit", digit, False), ("colour", colour, False), ("size", size, ~layout["said"])]
    found = {name: np.all((a == layout[name]) | ~there | free, axis=1) for name, a, free in read}
    # Their places
    y, x = middle[:, 0].T
    last = scenes.SIZE - 1
    near = np.all(np.abs(middle[:, 0] - last / 2) <= MIDDLE, axis=1)
    at = np.stack([x < SIDE, x > last - SIDE, y < SIDE, y > last - SIDE, near, np.ones(len(x), bool)], axis=1)
    alone = at[np.arange(len(x)), layout["place"]]  # the place -1 is the last column: any
    found["place"] = np.where(two, (crossed <= CROSSED) & np.all(colour >= 0, axis=1), alone)
    found["all"] = np.logical_and.reduce(list(found.values()))
    differ = layout["colour"][:, 0] != layout["colour"][:, 1]
    return found | {"swapped": two & differ & np.all(colour == layout["colour"][:, ::-1], axis=1)}


def measured(picture, two, relation):
    """Both objects of a picture (one object counts twice): digits (2, SIDE, SIDE), colours and sizes (2,) ints, -1 for
    a part without ink, middles of their boxes (2, 2); and the share of ink that the cut crosses.

    picture: (3, 32, 32). two: whether it shows two. relation: into `scenes.RELATIONS`."""
    rgb = np.clip((np.asarray(picture, np.float64) + 1) / 2, 0, 1)
    ink, axis = rgb.max(axis=0), 1 if relation < 2 else 0
    lines = np.moveaxis(ink, axis, 0)  # rows, or columns
    crossing = np.minimum(lines[:-1], lines[1:]).sum(axis=1)  # ink on both sides of each cut
    at = min(CUTS, key=lambda i: (crossing[i - 1], abs(i - scenes.SIZE // 2)))
    parts = [slice(None)] * 2
    if two:
        parts = [slice(None, at), slice(at, None)][:: -1 if relation % 2 else 1]
    objects = []
    for part in parts:
        mine = np.zeros_like(ink)
        where = (slice(None), part) if axis else part
        mine[where] = ink[where]
        box, mean = scenes.boxed(mine, LEAST), (rgb * (mine > LEAST)).sum(axis=(1, 2))
        where = np.argwhere(mine > LEAST) if box.size else np.full((1, 2), np.nan)
        likeness = scenes.RGB @ mean / np.linalg.norm(scenes.RGB, axis=1)
        objects.append((normalised(mine), likeness.argmax() if box.size else -1,
                        int(max(box.shape) > SMALL) if box.size else -1, (where.min(axis=0) + where.max(axis=0)) / 2))
    crossed = crossing[at - 1] / max(ink.sum(), 1e-9) if two else 0.0
    return *(np.array(column) for column in zip(*objects)), crossed
