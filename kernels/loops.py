"""The whole loops of a net, `fused.mlp_sample` and `fused.mlp_train`: what a backend's are called with, and what is held against what.

Their terms are too many to tell, so the rule is `tolerance.whole`: no worse than twice plain NumPy. Whose error that is depends on the order
of its sums, and hidden units may stand in any order: so plain NumPy runs in several.
"""
import importlib

import numpy as np

from kernels import plain, registry, tolerance
from ref import fused, philox, schedules
from ref.nets import mlp

ABAR = schedules.alpha_bar(schedules.linear_betas())
TRAINED = dict(steps=5, lr=1e-3, seed=3, abar=ABAR, eps=1e-4, weight_decay=0.01, decay=0.9)  # eps: below it Adam makes of rounding a whole step
HIDDEN = {  # the axes of hidden units, where not all are
    "w1": (0,), "b1": (0,), "w2": (1,), "b2": (), "in.w": (0,), "time.w": (0,), "class.w": (1,), "out.w": (1,), "out.b": (),
}  # fmt: skip
LOOPS = {  # name: (cases, of them the examples, the pixels and units of the net, and what else is told)
    "fused.mlp_sample": {
        "eps": (9, (60, 40), {}), "x0": (33, (60, 40), dict(predict="x0")), "v, clipped": (7, (200, 64), dict(predict="v", clip=1.5)),
        "noise": (5, (50, 30), dict(eta=0.7, predict="v", clip=1.0, stream=2**64 - 2)), "no label": (17, (33, 20), dict(classes=4)),
        "guided": (20, (60, 40), dict(classes=4, w=3.0, clip=1.0, predict="x0")), "guided, noise": (6, (60, 40), dict(classes=4, w=0.5, eta=1.0)),
    },
    "fused.mlp_train": {"chapter": (40, (200, 64), {}), "one example": (1, (33, 20), {}), "small": (35, (20, 9), dict(beta1=0.5, decay=0.0))},
}  # fmt: skip


def chapter(pixels=784, width=256, dtype=np.float32):
    """The chapter's net with its times as small as its pixels: beside times up to 1000 it hardly sees them. pixels, width: ints. dtype: of NumPy."""
    params = mlp.simple_mlp_init(0, pixels, width, dtype)
    return params | {"w1": params["w1"] * np.append(np.ones(pixels), 1e-3).astype(dtype)}


def residual(pixels, width, depth=3, classes=4, frequencies=6, dtype=np.float32):
    """The residual net with last layers that are not 0, as trained ones are. pixels, width, depth, classes, frequencies: ints. dtype: of NumPy."""
    params = mlp.residual_init(0, pixels, width, depth, classes, frequencies, np.float64)
    return {name: (p + 0.3 * width**-0.5 * philox.normal(i, p.shape)).astype(dtype) for i, (name, p) in enumerate(params.items())}


def made(name, case, dtype="float32"):
    """The arguments of a case. name: of LOOPS. case: its name. dtype: name. Returns a dict."""
    examples, (pixels, width), told = LOOPS[name][case]
    dtype = np.dtype(dtype)
    if name == "fused.mlp_train":
        data = np.sign(philox.normal(1, (300, pixels))).astype(dtype)
        return dict(params=chapter(pixels, width, dtype), data=data, batch=examples) | TRAINED | told
    classes, w = told.get("classes"), told.get("w")
    guided = {} if w is None else {"guidance": (np.arange(examples) % (classes + 1), w)}
    params = chapter(pixels, width, dtype) if classes is None else residual(pixels, width, classes=classes, dtype=dtype)
    told = {n: v for n, v in told.items() if n not in ("classes", "w")}
    return dict(params=params, xT=philox.normal(7, (examples, pixels)).astype(dtype), times=[1000, 800, 500, 20, 0], abar=ABAR, seed=5) | guided | told


def expected(name, arguments):
    """{part: `tolerance.Rule`} of what comes back. name: of LOOPS. arguments: dict."""
    data = "xT" if "xT" in arguments else "data"
    exactly = {n: p.astype(np.float64) for n, p in arguments["params"].items()}
    truth = parts(getattr(fused, name.split(".")[1])(**(arguments | {"params": exactly, data: arguments[data].astype(np.float64)})))
    rough = rough_of(name, arguments)
    return {part: tolerance.whole(want, [r[part] for r in rough], arguments[data].dtype) for part, want in truth.items()}


def rough_of(name, arguments):
    """What plain NumPy makes of it with the hidden units in several orders, and put back. name: of LOOPS. arguments: dict. Returns a list of {part: array}."""
    width, found = len(arguments["params"]["b1" if "b1" in arguments["params"] else "in.b"]), []
    for order in orders(width):
        back = np.argsort(order)
        result = getattr(plain, name.split(".")[1])(**(arguments | {"params": turned(arguments["params"], order)}))
        if isinstance(result, tuple):
            new, state, losses = result
            result = turned(new, back), {part: turned(p, back) if part != "step" else p for part, p in state.items()}, losses
        found.append(parts(result))
    return found


def parts(result):
    """{name: array} of everything that a loop returned. result: an array, or params, state and losses."""
    if not isinstance(result, tuple):
        return {"x": result}
    params, state, losses = result
    return {f"{part} {name}": p for part, arrays in {"params": params, **state}.items() if part != "step" for name, p in arrays.items()} | {"losses": losses}


def turned(arrays, order):
    """The same net with its hidden units in another order. arrays: dict. order: (width,) ints."""
    axes = {name: HIDDEN.get(name, range(p.ndim)) for name, p in arrays.items()}
    return {name: p[np.ix_(*(order if axis in axes[name] else range(n) for axis, n in enumerate(p.shape)))] for name, p in arrays.items()}


def orders(width):
    """Four orders of the hidden units. width: int."""
    rng = np.random.default_rng(0)
    return [np.arange(width), np.arange(width)[::-1], rng.permutation(width), rng.permutation(width)]


def run(name, backend, arguments):
    """{part: NumPy array} of a backend's loop. name: of LOOPS. backend: name. arguments: dict."""
    send, receive = registry.carriers(backend)
    function = getattr(importlib.import_module(f"kernels.{backend}.fused"), name.split(".")[1])
    data = "xT" if "xT" in arguments else "data"
    sent = {"params": {n: send(np.ascontiguousarray(p)) for n, p in arguments["params"].items()}, data: send(arguments[data])}
    return {part: receive(x) for part, x in parts(function(**(arguments | sent))).items()}
