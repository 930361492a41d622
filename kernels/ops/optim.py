"""The operations of `ref.optim`, and the sizes of Adam's terms."""
import numpy as np

from kernels.ops.inputs import VALUES, data
from kernels.ops.record import Op, mapped
from ref import optim, tree

ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
MUON = {"lr": 0.02, "momentum": 0.95}
CHOICES = {"step": (1, 2, 1000), "weight_decay": (0.0, 0.01)}


def state(*names):
    """An input maker of Adam's arrays. names: of the data. Returns the function."""

    def make(rng, shape, dtype, values, step=1, weight_decay=0.01, **more):
        arrays = {name: data(rng, shape, dtype, values) for name in names}
        arrays["v"] = np.square(arrays["v"])  # a second moment; -inf would be no input
        return arrays | ADAM | {"step": step, "weight_decay": weight_decay} | more

    return make


def adam_sizes(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    """The sizes of the terms. p, g, m, v, step, lr, beta1, beta2, eps, weight_decay: as in `ref.optim.adam_step`."""
    p, g, m, v = (np.abs(a) for a in (p, g, m, v))
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p + lr * (m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps) + weight_decay * p), m, v


def _gradients(rng, shape, dtype, values, max_norm=1.0):
    shapes = [shape, (3,), (2, 2), (1,), (5,)][: rng.integers(2, 6)]
    return {"grads": [data(rng, s, dtype, values) for s in shapes], "max_norm": max_norm}


def _clipped_sizes(grads, max_norm):
    clipped, norm = optim.clip_by_global_norm(grads, max_norm)
    return mapped(lambda _, g: np.abs(g), clipped), norm


def _clipped_by_a_long_sum(grads, max_norm):
    """The sizes where the norm is a sum in the working dtype: a quarter of an ulp for each doubling of its terms, and
    more of the many that a BLAS adds one after the other."""
    clipped, norm = _clipped_sizes(grads, max_norm)
    count = max(sum(g.size for g in tree.leaves(grads)), 1)
    long = np.sqrt(count) / 200
    return mapped(lambda _, g: max(1 + np.log2(count) / 12, long) * g, clipped), max(1, long) * norm


def _matrices(rng, shape, dtype, values, weight_decay=0.1, **more):
    arrays = {name: data(rng, shape, dtype, values) for name in "pgm"}
    return arrays | MUON | {"weight_decay": weight_decay} | more


def _turned(numpy, arguments):
    """NumPy's results with rows and columns in several orders, and put back. numpy: function. arguments: of it."""
    rng, sizes, found = np.random.default_rng(0), arguments["p"].shape[-2:], []
    for k in range(4):
        orders = [rng.permutation(n) if k else np.arange(n) for n in sizes]
        there, back = np.ix_(*orders), np.ix_(*map(np.argsort, orders))
        result = numpy(**mapped(lambda _, x: x[..., *there] if isinstance(x, np.ndarray) else x, arguments))
        found.append([x[..., *back] for x in result])
    return found


def _steps_flops(p, **rest):
    """Of five Newton-Schulz steps. p: from `_matrices`. rest: unused."""
    short, long = sorted(p.shape[-2:])
    return p.size // max(1, short * long) * 5 * (4 * short**2 * long + 2 * short**3)


OPS = [
    Op(
        optim.adam_step, ulps=4, make=state("p", "g", "m", "v"), scale=adam_sizes, options=CHOICES, writes=3,
        in_place=("p", "m", "v"), bench={"": {"step": 10}},
    ),
    Op(
        optim.muon_step, make=_matrices, orders=_turned, writes=2, in_place=("p", "m"), values=VALUES,
        options={"weight_decay": (0.0, 0.1)}, fixed=MUON, flops=_steps_flops,
        shapes=((3, 5, 9), (40, 33), (2, 2, 7, 3), (1, 64, 96)), bench={"24 x 128 x 128": {"shape": (24, 128, 128)},
                                                                    "6 x 512 x 128": {"shape": (6, 512, 128)}},
    ),
    Op(
        optim.ema_step, ulps=3, options={"decay": (0.0, 0.5, 0.9999)}, in_place=("avg",), bench={"": {"decay": 0.999}},
    ),
    Op(
        optim.clip_by_global_norm, ulps=3, make=_gradients, options={"max_norm": (1e9, 0.1)}, sums=True, spare=1,
        scale=_clipped_sizes, textbook=_clipped_by_a_long_sum,
    ),
]  # fmt: skip
