"""Whole trajectories and training runs, `fused.mlp_sample` and `fused.mlp_train`, on every backend.

They err by no more than twice what NumPy does in the worst of four orders of its sums: `tolerance.whole`.
"""
import numpy as np
import pytest

from kernels import registry, tolerance
from kernels.numpy_cpu import mlp
from kernels.ops.loops import residual
from kernels.ops.record import mapped
from ref import schedules
from ref.nets.mlp import simple_mlp_init as mlp_init
from tests.kernels.backends import make, named, on_each, run, same

SAMPLE, TRAIN = named("fused.mlp_sample"), named("fused.mlp_train")
TIMES = schedules.spaced_times(1000, 50, "trailing")
SHORT = [900, 500, 20, 0]
BITS = {"float32": 0, "tf32 pairs": 2, "bfloat16": 16}  # that an operand of a product loses
CLIPPED, NOISE = {"predict": "v", "clip": 1.5}, {"eta": 0.7, "clip": 1.0}
TOLD = {"eps": {}, "x0": {"predict": "x0"}, "v, clipped": CLIPPED, "noise": NOISE}
WAYS = {"hidden": {}, "noise": {"eta": 0.5}, "clip": {"clip": 1.0}}
TINY = [(1, 16, 8), (5, 7, 5), (17, 33, 65), (31, 130, 1), (49, 1, 3)]  # examples, pixels, units
SIZES = [
    (1, 16, 8), (5, 7, 5), (6, 16, 32), (7, 13, 33), (31, 48, 31), (32, 50, 7), (33, 5, 64), (47, 49, 17), (48, 97, 1),
    (49, 1, 3), (97, 100, 65), (129, 15, 9), (3, 1030, 4),
]  # fmt: skip
WIDE = [(1, 784, 256), (64, 784, 300), (1000, 97, 129), (600, 50, 31), (2, 3000, 40)]  # each compiles for seconds


@pytest.fixture
def rounded(monkeypatch):
    """A function of bits: NumPy then rounds the operands of every product as the kernels do, but not the time of the
    simple net, which stands next to the pixels."""

    def cut(x, bits):  # halves to even
        b, half = np.asarray(x, np.float32).view(np.uint32), np.uint32(1 << (bits - 1))
        return ((b + (half - 1) + ((b >> bits) & 1)) & np.uint32(0xFFFFFFFF << bits & 0xFFFFFFFF)).view(np.float32)

    def use(bits):
        def but_time(a, pixels):
            return np.concatenate([cut(a[:, :pixels], bits), a[:, pixels:]], axis=1)

        def linear(x, w, b):
            return but_time(x, w.shape[1] - w.shape[1] % 2) @ but_time(w, w.shape[1] - w.shape[1] % 2).T + b

        def linear_backward(dout, x, w):
            dout = cut(dout, bits)
            return dout @ cut(w, bits), dout.T @ but_time(x, x.shape[1] - x.shape[1] % 2), dout.sum(0)

        if bits:
            monkeypatch.setattr(mlp, "linear", linear)
            monkeypatch.setattr(mlp, "linear_backward", linear_backward)

    return use


def sampling(size, net="simple", dtype="float32", **told):
    """The arguments of `mlp_sample`. size: examples, pixels, units. net: "simple", or the residual net's guidance,
    None for no label, or "no blocks" for its first and last layer alone."""
    examples, pixels, width = size
    w = {} if net == "simple" else {"w": 2.0 if net == "no blocks" else net}
    arguments = make(SAMPLE, (examples, pixels), dtype, width=width, **w, **told)
    return arguments | ({"params": residual(pixels, width, 0, dtype=np.dtype(dtype))} if net == "no blocks" else {})


def training(size, dtype="float32", **told):
    """The arguments of `mlp_train`. size: of a batch, as in `sampling`."""
    batch, pixels, width = size
    return make(TRAIN, (300 if batch > 50 else 50, pixels), dtype, width=width, batch=batch, **told)


def hold(b, op, arguments, use, dtype="float32", precision="float32", slack=0.0):
    """The kernel keeps the rule, and the rule would have seen examples in another order. slack: of the largest element,
    where the sums are too short for NumPy to err as much."""
    results = run(b, op, arguments, **({"precision": precision} if precision == "bfloat16" else {}))
    plain = registry.expected(op, arguments, dtype)
    if BITS[precision]:
        use(BITS[precision])
    rules = registry.expected(op, arguments, dtype)
    for result, first, rule in zip(map(np.asarray, results), plain, rules, strict=True):
        assert result.dtype == dtype or (result.dtype == np.float64 and result.ndim < 2)  # losses, the step
        least = first.allowed if precision == "tf32 pairs" else 0.0  # rounded operands err less only by luck
        rule = tolerance.Rule(rule.truth, np.maximum(rule.allowed, least) + slack * np.max(np.abs(rule.truth)))
        tolerance.assert_matches(result, rule)
        turned = rule.truth[::-1] if rule.truth.ndim else rule.truth
        assert np.array_equal(turned, rule.truth) or tolerance.error(turned, rule) > 3, "the tolerance is vacuous"


def operands(b, nets=("simple",)):
    """(net, precision, way of sampling). Of eps at T, rounded to bfloat16, x0 is unknown to within 1."""
    other = {("bfloat16", "noise"): {"predict": "v"}}
    rows = [(net, p, n) for net in nets for p in b.precisions for n in TOLD]
    return {f"{net}-{p}-{n}": (net, p, TOLD[n] | other.get((p, n), {})) for net, p, n in rows}


def guidances(b):
    return operands(b, (None, 3.0) if b.slow else (None, 0.0, 1.0, 3.0))


@on_each(operands, ["net", "precision", "told"])
def test_mlp_sample_of_the_simple_net_equals_truth(b, net, precision, told, rounded):
    """On the way and at the end, for errors grow."""
    many = [TIMES[:11], TIMES, [1000, 3], [20, 19, 0]]
    for times in [TIMES[:3], [1000, 3], [20, 19, 0]] if b.slow else many:
        arguments = sampling((18, 60, 40) if b.slow else (33, 784, 256), net, **told) | {"times": times}
        hold(b, SAMPLE, arguments, rounded, precision=precision)


@on_each(guidances, ["net", "precision", "told"])
def test_mlp_sample_of_the_residual_net_equals_truth(b, net, precision, told, rounded):
    """Sums of 40 terms are short enough to show a GPU's float32 operands, two of tf32: 22 bits of 24."""
    operands = "tf32 pairs" if b.name == "triton_gpu" and not b.slow and precision == "float32" else precision
    for times in [[900, 20, 0]] if b.slow else [TIMES, TIMES[:11], [1000, 3], [20, 19, 0]]:
        arguments = sampling((18 if b.slow else 40, 60, 40), net, **told) | {"times": times}
        hold(b, SAMPLE, arguments, rounded, precision=operands)


def sizes(b):
    """(net, dtype, size)."""
    some = TINY if b.slow else SIZES + WIDE if b.name == "triton_gpu" else SIZES
    nets = {"simple": some, 2.0: some[:3] if b.slow else SIZES}
    nets |= {"no blocks": some[:3]}
    return [(net, d, size) for net, some in nets.items() for d in registry.dtypes(SAMPLE, b.name) for size in some]


@on_each(sizes, ["net", "dtype", "size"])
def test_mlp_sample_of_any_size_equals_truth(b, net, dtype, size, rounded):
    """On a GPU a float32 operand is two of tf32, 22 bits of 24: the shortest sums err by that."""
    numba = b.name == "numba_cpu"
    for told in ({"eta": 0.5},) if numba else ({}, {"eta": 0.5}, {"clip": 30.0}):  # x0_hat of t = 900 is that large
        arguments = sampling(size, net, dtype, seed=3, stream=9, **told) | {"times": SHORT}
        precision, slack = "float32" if b.slow or numba else "tf32 pairs", 1e-12 if dtype == "float64" else 0.0
        hold(b, SAMPLE, arguments, rounded, dtype, precision, slack)


@on_each()
def test_mlp_sample_of_no_examples_is_empty(b):
    if b.name == "numba_cpu":
        for net in ("simple", 2.0):
            assert run(b, SAMPLE, sampling((0, 6, 5), net))[0].shape == (0, 6)


def ways(b):
    return [(net, way, p) for net in ("simple", 2.0) for way in WAYS for p in b.precisions[-b.slow :]]


def products_keep_their_rows():
    """Whether a row has the same bits in another place of a matrix product of NumPy."""
    x, w = (f(np.arange(32 * 32, dtype=np.float32)).reshape(32, 32) for f in (np.sin, np.cos))
    return np.array_equal(np.roll(x, 5, axis=0) @ w, np.roll(x @ w, 5, axis=0))


@on_each(ways, ["net", "way", "precision"])
def test_mlp_sample_bits(b, net, way, precision):
    """On every run, on any number of threads, and for a row alone; the noise of a row is that of its place."""
    if b.slow and not products_keep_their_rows():
        pytest.skip("NumPy's products, which the interpreter multiplies by, depend on a row's place in this BLAS")
    size = (35, 20, 9) if b.slow else (203, 90, 70) if b.name == "numba_cpu" else (1203, 90, 70)
    arguments, examples = sampling(size, net, **WAYS[way]) | {"times": [900, 20, 0] if b.slow else SHORT}, size[0]
    extra = {"precision": precision} if precision == "bfloat16" else {}

    def of(lo, hi, **change):
        guidance = arguments["guidance"] and (arguments["guidance"][0][lo:hi], 2.0)
        some = arguments | change | {"guidance": guidance}
        return run(b, SAMPLE, some | {"xT": some["xT"][lo:hi]}, **extra)[0]

    first, *others = b.repeat(lambda: of(0, examples), 5)
    assert all(np.array_equal(other, first) for other in others)
    elsewhere = [(16, 17), (5, 30), (63, 64), (30, 100), (examples - 1, examples)]
    for lo, hi in [(0, 17), (0, 1)] + elsewhere * (way != "noise"):
        assert hi > examples or np.array_equal(of(lo, hi), first[lo:hi])
    xT = arguments["xT"].copy()
    xT[20] = np.nan
    poisoned = of(0, examples, xT=xT)
    assert np.isnan(poisoned[20]).all() and np.array_equal(np.delete(poisoned, 20, 0), np.delete(first, 20, 0))


def layouts(b):
    """(layout, net or state): every layout on the CPU, aligned memory on a GPU."""
    return [(layout,) for layout in (b.layouts if "C" in b.layouts else (0,))]


class Placed:
    """Puts arrays in memory of one layout and knows whether they were written."""

    def __init__(self, b, layout):
        self.b, self.layout, self.places = b, layout, []

    def __call__(self, array):
        whole, view = self.b.put(np.ascontiguousarray(array), self.layout)
        self.places.append((whole, np.array(self.b.receive(whole))))
        return view

    def unwritten(self):
        return all(same(self.b.receive(whole), before) for whole, before in self.places)


@on_each(layouts, ["layout"])
@pytest.mark.parametrize("net, told", [("simple", {}), ("simple", {"clip": 2.0**20}), (2.0, {})], ids=str)
def test_mlp_sample_writes_out_alone(b, layout, net, told):
    """And `out` may be the input."""
    arguments, put, kernel = sampling((6, 21, 9), net, **told), Placed(b, layout), registry.kernel(SAMPLE, b.name)
    (want,) = run(b, SAMPLE, arguments)
    placed = registry.sent(arguments, put)
    assert np.array_equal(b.receive(kernel(**placed)), want) and put.unwritten()
    if layout != "read-only":
        whole, out = b.place((6, 21), "float32", layout)
        assert kernel(**placed, out=out) is out and put.unwritten()
        assert np.array_equal(b.receive(out), want) and b.intact(whole, out, layout)
        assert kernel(**placed, out=placed["xT"]) is placed["xT"]
        assert np.array_equal(b.receive(placed["xT"]), want)


@on_each(layouts, ["layout"])
def test_mlp_train_writes_nothing_given(b, layout):
    arguments, put, kernel = training((5, 21, 9), steps=2), Placed(b, layout), registry.kernel(TRAIN, b.name)
    _, state, _ = kernel(**registry.sent(arguments, b.send))
    state = mapped(lambda _, a: a if isinstance(a, int) else b.receive(a), state)
    want = run(b, TRAIN, arguments | {"state": state})
    placed = registry.sent(arguments | {"state": state}, put)
    results = map(b.receive, registry.call(TRAIN, kernel, placed, "float32"))
    assert all(same(result, w) for result, w in zip(results, want, strict=True)) and put.unwritten()


@on_each(lambda b: [(p, n) for p in b.precisions for n in ((1, 3) if b.slow else (1, 10, 100))], ["precision", "steps"])
def test_mlp_train_equals_truth(b, precision, steps, rounded):
    """With an eps of the gradients' size: below it Adam turns a gradient that is only rounding into a whole step."""
    hold(b, TRAIN, training((11, 20, 9) if b.slow else (64, 784, 64), steps=steps), rounded, precision=precision)


def batches(b):
    some = [(1, 16, 8), (7, 33, 20), (35, 5, 3)]
    wide = [(129, 784, 256), (300, 97, 300), (33, 1030, 4), (64, 784, 1024)] if b.name == "triton_gpu" else SIZES
    return [(d, size) for d in registry.dtypes(TRAIN, b.name) for size in (some if b.slow else some + wide)]


@on_each(batches, ["dtype", "size"])
def test_mlp_train_of_any_size_equals_truth(b, dtype, size, rounded):
    numba, (batch, pixels, width) = b.name == "numba_cpu", size
    settings = dict(steps=3 if numba else 2, lr=1e-2, eps=1e-3 if numba else 1.0, weight_decay=0.1, decay=0.5)
    arguments = make(TRAIN, (11, pixels), dtype, batch=batch, **settings)
    arguments["params"] = mlp_init(0, pixels, width, np.dtype(dtype))
    slack = 1e-12 if dtype == "float64" else 2.0**-21 if numba else 0.0
    hold(b, TRAIN, arguments, rounded, dtype, slack=slack)


@on_each(lambda b: [(p,) for p in b.precisions], ["precision"])
def test_mlp_train_bits(b, precision):
    """On every run, on any number of threads, and in two parts."""
    steps, size = (20, (203, 90, 70)) if b.name == "numba_cpu" else (60, (128, 784, 256))
    steps, size = (4, (11, 20, 9)) if b.slow else (steps, size)
    arguments, kernel = training(size, steps=steps) | {"seed": 2**64 - 1}, registry.kernel(TRAIN, b.name)
    extra = {"precision": precision} if precision == "bfloat16" else {}
    first, *others = b.repeat(lambda: run(b, TRAIN, arguments, **extra), 5)
    sent = registry.sent(arguments, b.send) | extra
    params, state, losses = kernel(**sent | {"steps": 1})
    params, state, more = kernel(**sent | {"params": params, "state": state, "steps": steps - 1})
    parts = registry.outputs((params, state))
    parts = [*map(b.receive, parts), np.concatenate([b.receive(losses), b.receive(more)])]
    assert all(same(a, f) for other in [*others, parts] for a, f in zip(other, first, strict=True))
