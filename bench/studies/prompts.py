"""Prompt to picture: does a picture show what its prompt says?

Combinations never trained on are asked for too, and what guidance does to the pictures is measured. The weights are
those that `python -m bench.studies.prompt` draws with. Real scenes, of handwriting that the judge never saw, stand next
to each set: no model can be expected to be judged better. Shuffled are the model's pictures, judged by other prompts.
"""
import numpy as np

from bench.studies import metrics, pictures
from bench.studies.prompt import adherence, judge, model, scenes, show

SETTINGS = dict(count=500, steps=30, guidance=2.5, each=10, seed=0, backend="numba_cpu")
WEIGHTS = (1.0, 2.0, 3.0, 5.0, 10.0)
DRAWN = show.EIGHT[:4]  # the prompts of the picture
COLUMNS = {"set": "", "pictures": ""} | judge.COLUMNS | {
    "w": "guidance, of two seen objects",
    "spread": "root mean square distance between two pictures of a prompt",
    "saturated": "share of colour values beyond [-1.05, 1.05]",
    "nearest": "distance of a digit, in its box, to the nearest one of its class that scenes are made of",
}  # fmt: skip


def rows(this):
    """The table by sets, the sweep of guidance, the distance to the nearest handwriting; {w: pictures} to draw."""
    params, about = model.load()
    sizes, how = about["sizes"], {"steps": this.steps, "backend": this.backend}
    references = adherence.references()
    batches = -(-this.count // adherence.BATCH)
    this.total = batches * (len(adherence.TESTED) + len(WEIGHTS)) + len(WEIGHTS)
    of_sets = {}
    found = adherence.rows(params, sizes, references, this.count, this.tick, of_sets, w=this.guidance, **how)
    # Guidance: as many pictures, `each` of them for a prompt
    layout = scenes.layouts(adherence.SEED, "two seen", np.repeat(np.arange(this.count // this.each), this.each))
    ids, drawn = scenes.ids(scenes.captions(layout)), {}
    for w in WEIGHTS:
        made = adherence.drawn_for(params, sizes, ids, this.tick, w=w, **how)
        right = {name: float(a.mean()) for name, a in judge.judged(references[0], made, layout).items()}
        found.append({"set": "two seen", "pictures": "model", "w": w, **right,
                      "spread": metrics.spread(made.reshape(len(made), -1), np.arange(len(made)) // this.each),
                      "saturated": float(np.mean(np.abs(made) > 1.05))})  # fmt: skip
        drawn[w] = model.sample(params, scenes.ids(DRAWN), sizes, w, seed=this.seed, **how)
        this.tick()
    return found + nearest(of_sets["one seen"], references), drawn


def nearest(drawn, references):
    """How far digits are from the handwriting of training: the model's, and the judge's, which no scene is made of.
    drawn: the pictures of `adherence.rows` for the set "one seen"."""
    layout = scenes.layouts(adherence.SEED, "one seen", np.arange(len(drawn)))
    mine = np.array([judge.measured(x, False, 0)[0][0].ravel() for x in drawn])
    others, labels = adherence.held_out()
    theirs, begin, number = references[1]
    known = np.array([judge.normalised(x).ravel() for x in theirs[1]])
    found = []
    for what, digits, classes in (("model", mine, layout["digit"][:, 0]), ("held-out digits", others, labels)):
        distances = [np.sqrt(((known[begin[d] : begin[d] + number[d]] - x) ** 2).mean(axis=1).min())
                     for x, d in zip(digits, classes)]  # fmt: skip
        found.append({"set": "one seen", "pictures": what, "nearest": float(np.mean(distances))})
    return found


def draw(rows, drawn):
    """Bars by set, lines by guidance, pictures by guidance."""
    figure, upper, lower = pictures.parts((9.2, 6.0), 2.2, 3.4)
    left, right = upper.subplots(1, 2)
    plain = [row for row in rows if "w" not in row and "all" in row]
    for k, (what, colour) in enumerate({"model": "#0072B2", "real": "black", "shuffled": "#D55E00"}.items()):
        mine = [row for row in plain if row["pictures"] == what]
        left.bar(np.arange(len(mine)) + 0.27 * (k - 1), [row["all"] for row in mine], 0.25, color=colour, label=what)
    left.set_xticks(range(len(adherence.TESTED)), [which.replace(" ", "\n", 1) for which in adherence.TESTED])
    left.set(ylabel="everything right (share)", ylim=(0, 1.15))
    left.legend(loc="upper right", ncols=3)
    sweep = [row for row in rows if "w" in row]
    for name, colour in {"all": "#0072B2", "spread": "#009E73", "saturated": "#D55E00"}.items():
        right.plot([row["w"] for row in sweep], [row[name] for row in sweep], "o-", color=colour, label=name)
    right.set(xlabel="guidance w", ylim=(0, None))
    right.legend()
    for axis, prompt, which in zip(lower.subplots(2, 2).flat, DRAWN, range(len(DRAWN))):
        axis.set_axis_off()
        axis.imshow(show.side_by_side(np.array([made[which] for made in drawn.values()])))
        axis.set_title(f"{prompt}: w = " + ", ".join(f"{w:g}" for w in drawn))
    return figure
