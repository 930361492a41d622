"""A thousand training steps: the weights of every backend against the reference.

`fused.mlp_train` of each backend and of NumPy in float32, on the same digits, times and noise, with Adam's own eps,
below which a gradient's rounding becomes a whole step. So none stays at the float64 reference, and the measure is the
distance of plain NumPy, in four orders of the hidden units: `kernels.tolerance.whole`.
"""
import importlib

import numpy as np

from bench.studies import data, denoiser, pictures
from kernels import registry, tolerance
from kernels.check import selftest
from kernels.numpy_cpu import fused as plain
from ref import fused, tree
from ref.nets import mlp

SETTINGS = dict(ends=(1, 10, 100, 1000), batch=128, seed=0)  # ends: the steps after which weights are compared
COLOURS = {"NumPy": "0.6", "numba_cpu": "#009E73", "triton_gpu": "#0072B2", "triton_gpu, bfloat16": "#D55E00"}
COLUMNS = {
    "who": "", "steps": "",
    "apart": "distance of the weights from the reference's, over the distance that the reference's have moved",
    "units": "the largest error of a weight, in units of what the tolerance allows", "loss": "of the last step",
    "reference_loss": "likewise", "loss_off": "the largest relative error of a loss so far",
}  # fmt: skip


def rows(this):
    """Train, compare; the reference's and all paths to draw."""
    runners, ends = trainers(), this.ends
    this.total = (1 + len(runners)) * len(ends)
    params, images = mlp.simple_mlp_init(this.seed), data.load()[0][0]
    options = dict(batch=this.batch, lr=1e-3, seed=this.seed, abar=denoiser.alpha_bar("linear"), decay=0.99)
    exactly = tree.map(np.float64, params), images.astype(np.float64)
    exact = follow(fused.mlp_train, *exactly, ends, options, this.tick)
    paths = {name: follow(train, params, images, ends, options, this.tick) for name, train in runners.items()}
    return measured(params, exact, paths, ends), exact, paths


def trainers(width=256):
    """{name: a `mlp_train` of NumPy arrays}: NumPy in four orders of the hidden units, and every backend that is not
    interpreted. width: of the net."""
    rng, found = np.random.default_rng(0), {}
    orders = [np.arange(width), np.arange(width)[::-1], rng.permutation(width), rng.permutation(width)]
    for i, order in enumerate(orders):
        there, back = (lambda arrays, by=by: _permuted(arrays, by) for by in (order, np.argsort(order)))
        found[f"NumPy, order {i}"] = _wrapped(plain.mlp_train, there, back)
    for backend in selftest.available()[0]:
        kernel = importlib.import_module(f"kernels.{backend}.fused").mlp_train
        there, back = (lambda arrays, carry=carry: tree.map(carry, arrays) for carry in registry.carriers(backend))
        more = [{}, {"precision": "bfloat16"}] if backend == "triton_gpu" else [{}]
        for options in more if not selftest.interpreted(backend) else ():
            name = ", ".join([backend, *options.values()])
            found[name] = _wrapped(kernel, there, back, options)
    return found


def _permuted(arrays, order):
    return {"w1": arrays["w1"][order], "b1": arrays["b1"][order], "w2": arrays["w2"][:, order], "b2": arrays["b2"]}


def _wrapped(kernel, there, back, more={}):
    """kernel as `ref.fused.mlp_train`, with its parameters and state taken there and back. more: arguments."""
    send, receive = (there, back) if kernel is not plain.mlp_train else (np.asarray, np.asarray)

    def train(params, images, steps, state=None, **options):
        state = state and {part: p if part == "step" else there(p) for part, p in state.items()}
        params, state, losses = kernel(there(params), send(images), steps, state=state, **options, **more)
        return back(params), {part: p if part == "step" else back(p) for part, p in state.items()}, receive(losses)

    return train


def follow(train, params, images, ends, options, tick):
    """Train and stop at the ends: the loss of each step, (steps,), and a list of the weights there."""
    state, losses, at = None, [], []
    for begin, end in zip((0, *ends), ends):
        params, state, some = train(params, images, end - begin, state=state, **options)
        losses.append(some)
        at.append(params)
        tick()
    return np.concatenate(losses), at


def measured(params, exact, paths, ends):
    """A row for each path and end, as COLUMNS says; no units for bfloat16, whose operands plain NumPy would have to
    round. params: the first. exact: of `follow`. paths: {name: of `follow`}."""
    found, numpys = [], [at for name, (_, at) in paths.items() if name.startswith("NumPy")]
    for i, end in enumerate(ends):
        want, truth = exact[1][i], exact[0][:end]
        rules = tree.map(lambda w, *theirs: tolerance.whole(w, theirs, np.float32), want, *(at[i] for at in numpys))
        for name, (losses, at) in paths.items():
            units = "" if "bfloat16" in name else max(tree.leaves(tree.map(tolerance.error, at[i], rules)))
            apart, off = _distance(at[i], want) / _distance(want, params), np.abs(losses[:end] - truth) / truth
            row = {"who": name, "steps": end, "apart": apart, "units": units, "loss": float(losses[end - 1])}
            found.append(row | {"reference_loss": float(truth[-1]), "loss_off": float(np.max(off))})
    return found


def _distance(a, b):
    return float(np.sqrt(sum(tree.leaves(tree.map(lambda x, y: np.sum((x - y) ** 2), a, b)))))


def draw(rows, exact, paths):
    """The losses over the reference's, and the distance of the weights."""
    figure, (left, right) = pictures.pyplot().subplots(1, 2, figsize=(8.6, 3.2), layout="constrained")
    left.plot(np.arange(1, exact[0].size + 1), exact[0], color="0.82", lw=4, label="ref, float64")
    for name, (losses, _) in paths.items():
        kind, _, order = name.partition(", order ")
        label = f"{name}{', float32' * (',' not in name)}"
        if order:
            label = None if int(order) else "NumPy, float32, four orders"
        else:
            left.plot(np.arange(1, losses.size + 1), losses, color=COLOURS[kind], lw=0.8, label=label)
        style = dict(marker="o", color=COLOURS[kind], lw=1, label=label)
        pictures.lines(right, rows, "who", "steps", "apart", {name: style})
    left.set_ylabel("loss of the step")
    right.set_ylabel("distance from ref's weights\nover the distance that those have moved")
    for axis in (left, right):
        axis.set(xscale="log", yscale="log", xlabel="step")
        axis.legend()
    return figure
