"""A thousand training steps: the weights of every backend against the reference.

`fused.mlp_train` of each backend and of NumPy in float32, on the same digits, times and noise, with Adam's own eps,
below which a gradient's rounding becomes a whole step. So none stays at the float64 reference, and the measure is the
distance of plain NumPy, in four orders of the hidden units: `kernels.tolerance.whole`.
"""
import importlib

import numpy as np

from bench.studies import data, denoiser, pictures, results
from kernels import registry, tolerance
from kernels.check import selftest
from kernels.numpy_cpu import fused as plain
from ref import fused, tree
from ref.nets import mlp

ENDS = (1, 10, 100, 1000)  # the steps after which the weights are compared
COLOURS = {"NumPy": "0.6", "numba_cpu": "#009E73", "triton_gpu": "#0072B2", "triton_gpu, bfloat16": "#D55E00"}
COLUMNS = {
    "who": "", "steps": "", "apart": "distance of the weights from the reference's, over the distance that the reference's have moved",
    "units": "the largest error of a weight, in units of what the tolerance allows", "loss": "of the last step", "reference_loss": "likewise", "loss_off": "the largest relative error of a loss so far",
}  # fmt: skip


def run(out, progress, ends=ENDS, seed=0):
    """Train, compare, draw; training.png, training.csv and training.txt. ends: steps, ascending."""
    runners = trainers()
    this = results.Run("training", out, progress, (1 + len(runners)) * len(ends), batch=128, seed=seed)
    params, images = mlp.simple_mlp_init(seed), data.load()[0][0]
    options = dict(batch=128, lr=1e-3, seed=seed, abar=denoiser.alpha_bar("linear"), decay=0.99)
    exact = follow(fused.mlp_train, tree.map(np.float64, params), images.astype(np.float64), ends, options, this.tick)
    paths = {name: follow(train, params, images, ends, options, this.tick) for name, train in runners.items()}
    rows = measured(params, exact, paths, ends)
    this.finish(rows, draw(rows, exact, paths))


def trainers(width=256):
    """{name: a `mlp_train` of NumPy arrays}: NumPy in four orders of the hidden units, and every backend that is not
    interpreted."""
    rng = np.random.default_rng(0)
    orders = [np.arange(width), np.arange(width)[::-1], rng.permutation(width), rng.permutation(width)]
    found = {f"NumPy, order {i}": in_order(order) for i, order in enumerate(orders)}
    for backend in selftest.available()[0]:
        if not selftest.interpreted(backend):
            found[backend] = on(backend)
            if backend == "triton_gpu":
                found[f"{backend}, bfloat16"] = on(backend, precision="bfloat16")
    return found


def in_order(order):
    """NumPy's `mlp_train` with the hidden units in another order, and put back. order: (width,) ints."""

    def permuted(arrays, order):
        return {"w1": arrays["w1"][order], "b1": arrays["b1"][order], "w2": arrays["w2"][:, order], "b2": arrays["b2"]}

    return _wrapped(plain.mlp_train, lambda arrays: permuted(arrays, order), lambda arrays: permuted(arrays, np.argsort(order)))


def on(backend, **options):
    """The backend's `mlp_train`, which takes and returns NumPy arrays. Returns a function as `ref.fused.mlp_train`."""
    kernel, (send, receive) = importlib.import_module(f"kernels.{backend}.fused").mlp_train, registry.carriers(backend)
    return _wrapped(kernel, lambda arrays: tree.map(send, arrays), lambda arrays: tree.map(receive, arrays), send, receive, options)


def _wrapped(kernel, there, back, send=np.asarray, receive=np.asarray, more={}):
    """kernel with its parameters and state taken there and back. there, back: of dicts of arrays. more: arguments."""

    def train(params, images, steps, state=None, **options):
        state = state and {part: p if part == "step" else there(p) for part, p in state.items()}
        params, state, losses = kernel(there(params), send(images), steps, state=state, **options, **more)
        return back(params), {part: p if part == "step" else back(p) for part, p in state.items()}, receive(losses)

    return train


def follow(train, params, images, ends, options, tick):
    """The loss of each step, and the weights at the ends. params: dict. Returns losses (steps,), a list of dicts."""
    state, losses, at = None, [], []
    for begin, end in zip((0, *ends), ends):
        params, state, some = train(params, images, end - begin, state=state, **options)
        losses.append(some)
        at.append(params)
        tick()
    return np.concatenate(losses), at


def measured(params, exact, paths, ends):
    """A row for each path and end, as COLUMNS says; no units for bfloat16, whose operands plain NumPy would have to
    round."""
    rows, numpys = [], [at for name, (_, at) in paths.items() if name.startswith("NumPy")]
    for i, end in enumerate(ends):
        want, truth = exact[1][i], exact[0][:end]
        rules = tree.map(lambda w, *theirs: tolerance.whole(w, theirs, np.float32), want, *(at[i] for at in numpys))
        for name, (losses, at) in paths.items():
            units = "" if "bfloat16" in name else max(tree.leaves(tree.map(tolerance.error, at[i], rules)))
            rows.append({
                "who": name, "steps": end, "apart": _distance(at[i], want) / _distance(want, params), "units": units, "loss": float(losses[end - 1]),
                "reference_loss": float(truth[-1]), "loss_off": float(np.max(np.abs(losses[:end] - truth) / truth)),
            })  # fmt: skip
    return rows


def _distance(a, b):
    return float(np.sqrt(sum(tree.leaves(tree.map(lambda x, y: np.sum((x - y) ** 2), a, b)))))


def draw(rows, exact, paths):
    """The picture: the losses over the reference's, and the distance of the weights. rows: of `measured`."""
    figure, (left, right) = pictures.pyplot().subplots(1, 2, figsize=(8.6, 3.2), layout="constrained")
    steps = np.arange(1, exact[0].size + 1)
    left.plot(steps, exact[0], color="0.82", lw=4, label="ref, float64")
    for name, (losses, _) in paths.items():
        kind = "NumPy" if name.startswith("NumPy") else name
        label = {"NumPy, order 0": "NumPy, float32, four orders"}.get(name, None if kind == "NumPy" else name if "," in name else f"{name}, float32")
        if kind != "NumPy":
            left.plot(steps, losses, color=COLOURS[kind], lw=0.8, label=label)
        pictures.lines(right, rows, "who", "steps", "apart", {name: dict(marker="o", color=COLOURS[kind], lw=1, label=label)})
    left.set(xscale="log", yscale="log", xlabel="step", ylabel="loss of the step")
    right.set(xscale="log", yscale="log", xlabel="step", ylabel="distance from ref's weights\nover the distance that those have moved")
    for axis in (left, right):
        axis.legend()
    return figure
