"""A thousand steps of the chapter's loop in one call: the loss over the reference's, and how far the weights are from the reference's.

Everyone has the same examples, times and noise, real digits, and Adam's own eps, below which a gradient's rounding becomes a whole step. So
nobody stays at the reference: the question is whether the kernels are farther from it than plain NumPy in the same precision.
"""
import importlib

import numpy as np

from bench.studies import data, digits, results
from kernels import registry, tolerance
from kernels.check import selftest
from kernels.numpy_cpu import fused as plain
from kernels.ops import loops
from ref import fused as truth
from ref.nets import mlp

ENDS = (1, 10, 100, 1000)  # the steps after which the weights are compared
COLOURS = {"NumPy": "0.6", "numba_cpu": "#009E73", "triton_gpu": "#0072B2", "triton_gpu, bfloat16": "#D55E00"}


def run(out, progress, ends=ENDS, seed=0):
    """Train, compare, draw; training.png, training.csv and training.txt.

    out: folder. progress: called with (done, total). ends: steps, ascending. seed: of everything random.
    """
    images = data.load()[0][0]
    told = dict(batch=128, lr=1e-3, seed=seed, abar=digits.alpha_bar("linear"), decay=0.99)
    params = mlp.simple_mlp_init(seed)
    who = contestants()
    tick = results.ticker(progress, (1 + len(who)) * len(ends))
    exactly = follow(truth.mlp_train, {n: p.astype(np.float64) for n, p in params.items()}, images.astype(np.float64), ends, told, tick)
    paths = {name: follow(train, params, images, ends, told, tick, order) for name, (train, order) in who.items()}
    rows = measured(params, exactly, paths, ends)
    results.write(out, "training", draw(rows, exactly, paths, ends), rows, sentences(rows, exactly, paths))


def contestants():
    """{name: (a `mlp_train` of NumPy arrays, the order of the hidden units)}: NumPy in four orders, and every backend that is no interpreter."""
    who = {f"NumPy, order {i}": (plain.mlp_train, order) for i, order in enumerate(loops.orders(256))}
    for backend in selftest.available()[0]:
        if not selftest.interpreted(backend):
            who |= {backend: (on(backend), None)}
            who |= {f"{backend}, bfloat16": (on(backend, precision="bfloat16"), None)} if backend == "triton_gpu" else {}
    return who


def on(backend, **more):
    """The backend's `mlp_train`, which takes and returns NumPy arrays. backend: name. more: arguments."""
    kernel, (send, receive) = importlib.import_module(f"kernels.{backend}.fused").mlp_train, registry.carriers(backend)
    there, back = (lambda arrays: {n: send(a) for n, a in arrays.items()}), (lambda arrays: {n: receive(a) for n, a in arrays.items()})

    def train(params, images, steps, state=None, **told):
        state = state and {part: there(p) if part != "step" else p for part, p in state.items()}
        params, state, losses = kernel(there(params), send(images), steps, state=state, **told, **more)
        return back(params), {part: back(p) if part != "step" else p for part, p in state.items()}, receive(losses)

    return train


def follow(train, params, images, ends, told, tick, order=None):
    """The loss of each step, and the weights at the ends. train: as `ref.fused.mlp_train`. params: dict. images: (N, 784). ends: steps. told: arguments.
    tick: called at each end. order: of the hidden units, or None. Returns losses (steps,), a list of dicts."""
    params, state, losses, at = params if order is None else loops.turned(params, order), None, [], []
    for begin, end in zip((0, *ends), ends):
        params, state, some = train(params, images, end - begin, state=state, **told)
        losses.append(some)
        at.append(params if order is None else loops.turned(params, np.argsort(order)))
        tick()
    return np.concatenate(losses), at


def measured(params, exactly, paths, ends):
    """A row for each contestant and end: how far its weights are from the reference's, as a share of how far those have come, and in units of what
    `tolerance.whole` allows (not of bfloat16, whose operands plain NumPy would have to round). params: the first. exactly: of `follow`. paths: {name:
    of `follow`}. ends: steps."""
    rows, plainly = [], [path for name, path in paths.items() if name.startswith("NumPy")]
    for i, end in enumerate(ends):
        want = exactly[1][i]
        come = np.sqrt(sum(np.sum((want[n] - params[n]) ** 2) for n in want))
        rules = {n: tolerance.whole(want[n], [path[1][i][n] for path in plainly], np.float32) for n in want}
        for name, (losses, at) in paths.items():
            off = np.sqrt(sum(np.sum((at[i][n] - want[n]) ** 2) for n in want))
            units = "" if "bfloat16" in name else max(tolerance.error(at[i][n], rules[n]) for n in want)
            rows.append({"who": name, "steps": end, "apart": float(off / come), "units": units, "loss": float(losses[end - 1]), "reference_loss": float(exactly[0][end - 1])})
    return rows


def sentences(rows, exactly, paths):
    """What was measured, in words. rows: of `measured`. exactly, paths: as there. Returns a list of str."""
    last, said = max(row["steps"] for row in rows), []
    for name in paths:
        mine = {row["steps"]: row for row in rows if row["who"] == name}
        off = ", ".join(f"{row['apart']:.1e}" for row in mine.values())
        units = "" if "bfloat16" in name else f"; the worst weight errs {', '.join(format(row['units'], '.2f') for row in mine.values())} times what is allowed"
        loss = np.max(np.abs(paths[name][0] - exactly[0]) / exactly[0])
        said.append(
            f"{name}: after {', '.join(map(str, mine))} steps its weights are {off} apart from the reference's, of the way that those have come{units}; "
            f"no loss of {last} steps is off by more than {loss:.1e}."
        )
    return said


def draw(rows, exactly, paths, ends):
    """The picture: the losses over the reference's, and the distance of the weights. rows: of `measured`. exactly, paths, ends: as there. Returns the figure."""
    plt = results.pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.2), layout="constrained")
    steps = np.arange(1, ends[-1] + 1)
    left.plot(steps, exactly[0], color="0.82", lw=4, label="ref, float64")
    named = set()
    for name, (losses, _) in paths.items():
        kind = "NumPy" if name.startswith("NumPy") else name
        label = None if kind in named else {"NumPy": "NumPy, float32, four orders"}.get(kind, kind if "," in kind else f"{kind}, float32")
        named.add(kind)
        if kind != "NumPy":
            left.plot(steps, losses, color=COLOURS[kind], lw=0.8, label=label)
        right.plot(ends, [row["apart"] for row in rows if row["who"] == name], "-o", ms=3, lw=1, color=COLOURS[kind], label=label)
    left.set(xscale="log", yscale="log", xlabel="step", ylabel="loss of the step")
    right.set(xscale="log", yscale="log", xlabel="step", ylabel="distance from ref's weights,\nof the way they have come")
    for axis in (left, right):
        axis.legend()
        axis.spines[["top", "right"]].set_visible(False)
    return figure
