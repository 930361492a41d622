"""The nets and inputs of the whole loops, `fused.mlp_sample` and `fused.mlp_train`.

The error of a loop depends on the order of its sums, and hidden units may stand in any order: so NumPy runs in four.
"""
import numpy as np

from kernels.ops.record import mapped
from ref import philox, schedules
from ref.nets import mlp

ABAR = schedules.alpha_bar(schedules.linear_betas())
HIDDEN = {  # the axes of hidden units, where not all are
    ".w1": (0,), ".b1": (0,), ".w2": (1,), ".b2": (),
    ".in.w": (0,), ".time.w": (0,), ".class.w": (1,), ".out.w": (1,), ".out.b": (),
}  # fmt: skip
CASES = {  # of a trajectory: what is not the default; "w" of the residual net, None for no label
    "eps": {}, "x0": {"predict": "x0"}, "v, clipped": {"predict": "v", "clip": 1.5},
    "noise": {"predict": "v", "clip": 1.0, "eta": 0.7}, "no label": {"w": None},
    "guided": {"predict": "x0", "clip": 1.0, "w": 3.0}, "guided, noise": {"eta": 1.0, "w": 0.5},
}  # fmt: skip


def simple_mlp(pixels=784, width=256, dtype=np.float32):
    """The simple net, its times scaled to the size of its pixels: next to times up to 1000 it hardly sees them. pixels,
    width: ints. dtype: of NumPy. Returns its parameters."""
    params = mlp.simple_mlp_init(0, pixels, width, dtype)
    return params | {"w1": params["w1"] * np.append(np.ones(pixels), 1e-3).astype(dtype)}


def residual(pixels, width, depth=3, classes=4, frequencies=6, dtype=np.float32):
    """The residual net with last layers that are not 0, as after training. pixels, width, depth, classes, frequencies:
    ints. dtype: of NumPy. Returns its parameters."""
    params, streams = mlp.residual_init(0, pixels, width, depth, classes, frequencies, np.float64), iter(range(10**6))
    return mapped(lambda _, p: (p + 0.3 * width**-0.5 * philox.normal(next(streams), p.shape)).astype(dtype), params)


def sample(rng, shape, dtype, values, case="eps", steps=None, width=40, **options):
    """An input maker. case: of CASES. steps: of the sampler. width: of the net. shape, dtype, options: as in
    `kernels.ops.inputs.usual`. values: "not finite" for an example of NaN. rng: unused, for a drawn input may leave a
    unit at 0 up to rounding, and relu makes a difference of that."""
    examples, pixels = shape
    xT = philox.normal(7, shape).astype(dtype)
    xT[: values == "not finite"] = np.nan
    options = CASES[case] | options
    params = (residual if "w" in options else simple_mlp)(pixels, width, dtype=np.dtype(dtype))
    w = options.pop("w", None)
    guidance = None if w is None else (np.arange(examples) % 5, w)
    times = schedules.spaced_times(1000, steps, "trailing").tolist() if steps else [1000, 800, 500, 20, 0]
    noise = {"seed": 5, "stream": 2**64 - 2}
    return {"params": params, "xT": xT, "times": times, "abar": ABAR, "guidance": guidance} | noise | options


def train(rng, shape, dtype, values, batch=40, steps=5, width=40, **options):
    """An input maker. batch, steps: of the loop. width: of the net. rng, shape, dtype, options: as in `sample`. values:
    unused, the data is of -1 and 1."""
    images = np.sign(philox.normal(1, shape)).astype(dtype)
    settings = {"steps": steps, "batch": batch, "lr": 1e-3, "seed": 3, "abar": ABAR, "weight_decay": 0.01, "decay": 0.9}
    settings["eps"] = 1e-4  # below it Adam turns a gradient that is only rounding into a whole step
    return {"params": simple_mlp(shape[1], width, np.dtype(dtype)), "data": images} | settings | options


def in_orders(numpy, arguments):
    """NumPy's results with the hidden units in several orders, and put back. numpy: function. arguments: of it."""
    params, found = arguments["params"], []
    for order in orders(hidden(params)):
        result, back = numpy(**(arguments | {"params": turned(params, order)})), np.argsort(order)
        if isinstance(result, tuple):
            new, state, losses = result
            state = {part: p if part == "step" else turned(p, back) for part, p in state.items()}
            result = turned(new, back), state, losses
        found.append(result)
    return found


def hidden(params):
    """The number of hidden units. params: of either net."""
    return (params["w2"] if "w2" in params else params["out"]["w"]).shape[1]


def orders(width):
    """Four orders of the hidden units. width: int."""
    rng = np.random.default_rng(0)
    return [np.arange(width), np.arange(width)[::-1], rng.permutation(width), rng.permutation(width)]


def turned(params, order):
    """The same net with its hidden units in another order. params: tree. order: (width,) ints."""

    def turn(path, p):
        axes = HIDDEN.get(path, range(p.ndim))
        return p[np.ix_(*(order if axis in axes else range(n) for axis, n in enumerate(p.shape)))]

    return mapped(turn, params)


def sample_flops(params, xT, times, **rest):
    """Of a trajectory in the hidden layer: W1 W2, a product a step, in, out. params, xT, times, rest: from `sample`."""
    width, (examples, pixels) = hidden(params), xT.shape
    return 2 * width * (width * pixels + examples * ((len(times) - 1) * width + 2 * pixels))


def train_flops(params, steps, batch, **rest):
    """Of a training run. params, steps, batch, rest: from `train`."""
    return steps * 2 * batch * (2 * params["w1"].size + 3 * params["w2"].size)


SAMPLE = {
    "orders": in_orders, "options": {"case": tuple(CASES)}, "shapes": ((9, 60), (33, 40)), "precisions": ("bfloat16",),
    "bench": {f"batch {n}": {"shape": (n, 784), "steps": 50, "width": 256} for n in (64, 256, 1024)}
    | {"batch 8192": {"shape": (8192, 784), "steps": 50, "width": 256, "on": "triton_gpu"}},
}  # fmt: skip
TRAIN = {
    "orders": in_orders, "options": {"batch": (40, 1, 35), "beta1": (0.9, 0.5)}, "shapes": ((300, 60), (300, 20)),
    "bench": {"batch 128": {"shape": (5000, 784), "steps": 100, "width": 256, "batch": 128}},
    "precisions": ("bfloat16",),
}  # fmt: skip
