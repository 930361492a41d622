"""How well pictures follow their prompts, set by set of `scenes.SETS`, next to what the judge says of real scenes."""
import numpy as np

from bench.studies import data
from bench.studies.prompt import judge, model, scenes

TESTED = [which for which in scenes.SETS if which != "training"]
BATCH = 250  # pictures that are drawn at once
SEED = 1  # of the prompts: 0 is that of the training


def references(folder=None):
    """The judge's parameters, and the handwriting of training. folder: as in `data.load`."""
    training, held_out = data.load(folder)
    return judge.train(*held_out), scenes.handwriting(*training)


def held_out(folder=None):
    """The judge's handwriting in the boxes of its classifier, (N, pixels), and labels, in the order of classes."""
    images, labels = data.load(folder)[1]
    ink, _, _ = scenes.handwriting(images, labels)
    return np.array([judge.normalised(x).ravel() for x in ink[1]]), np.sort(labels)


def rows(params, sizes, references, count, tick=lambda: None, kept=None, **how):
    """A row for each tested set: the judge's figures of the model's pictures, of real scenes and of pictures that
    belong to other prompts. count: pictures of each. kept: a dict that takes the model's pictures of each set, or None.
    how: of `model.sample`."""
    judging, sprites = references
    found = []
    for which in TESTED:
        layout = scenes.layouts(SEED, which, np.arange(count))
        drawn = drawn_for(params, sizes, scenes.ids(scenes.captions(layout)), tick, **how)
        if kept is not None:
            kept[which] = drawn
        real = scenes.pictures(layout, sprites)
        for what, pictures in (("model", drawn), ("real", real), ("shuffled", np.roll(drawn, 1, axis=0))):
            figures = judge.judged(judging, pictures, layout)
            found.append({"set": which, "pictures": what} | {name: float(a.mean()) for name, a in figures.items()})
    return found


def drawn_for(params, sizes, ids, tick=lambda: None, **how):
    """Pictures for many prompts, BATCH at once, (N, 3, 32, 32). tick: called after each batch. how: of
    `model.sample`."""
    parts = []
    for first in range(0, len(ids), BATCH):
        parts.append(model.sample(params, ids[first : first + BATCH], sizes, **{"seed": first} | how))
        tick()
    return np.concatenate(parts)
