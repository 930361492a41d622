"""A whole trajectory and a whole training loop on the CPU against the truth, and the promises that they make."""
import numpy as np
import pytest
from numba import config

from kernels import registry, tolerance
from kernels.check import selftest
from kernels.numba_cpu import fused, engine
from kernels.numba_cpu import philox as kernel_philox
from ref import fused as truth
from ref import philox, schedules, tree
from ref.nets import mlp
from kernels.check import memory
from kernels.numpy_cpu import fused as plain
from kernels.ops import loops
from kernels.ops.loops import orders, residual, turned

ABAR = schedules.alpha_bar(schedules.linear_betas())
COMPILED = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="millions of multiply-adds take minutes in plain Python")
TIMES = schedules.spaced_times(1000, 50, "trailing")
TOLD = {"eps": {}, "x0": {"predict": "x0"}, "v, clipped": {"predict": "v", "clip": 1.5}, "eta = 0.7, clipped": {"eta": 0.7, "clip": 1.0}}


def chapter(pixels=784, width=256, dtype=np.float32):
    return mlp.simple_mlp_init(0, pixels, width, dtype)


def start(examples, pixels, dtype=np.float32):
    return philox.normal(7, (examples, pixels)).astype(dtype)


def exact(params):
    return tree.map(lambda p: p.astype(np.float64), params)


def parts(result):
    """{name: array} of everything that `mlp_train` returned."""
    params, state, losses = result
    return {f"{part} {name}": p for part, tree in {"params": params, **state}.items() if part != "step" for name, p in tree.items()} | {"losses": losses}


def rough_of(arguments):
    """NumPy's training run in several orders of the hidden units, as a list of `parts`."""
    return [parts(result) for result in loops.in_orders(plain.mlp_train, arguments)]


def hold(got, want, rough):
    """`tolerance.whole`, and examples in another order would have been seen too. rough: the results of plain NumPy in several orders."""
    rule = tolerance.whole(want, rough, got.dtype)
    tolerance.assert_matches(got, rule)
    assert np.array_equal(want[::-1], want) or tolerance.error(want[::-1], rule) > 3, "the tolerance is vacuous"


@COMPILED
@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
@pytest.mark.parametrize("end", range(10, 51, 10))
def test_the_chapters_trajectory_is_the_truth_to_within_twice_plain_numpy_at_every_tenth_step(told, end):
    params, x, times = chapter(), start(7, 784), TIMES[: end + 1]
    want = truth.mlp_sample(exact(params), x, times, ABAR, seed=5, stream=2**64 - 3, **told)
    rough = [plain.mlp_sample(turned(params, order), x, times, ABAR, seed=5, stream=2**64 - 3, **told) for order in orders(256)]
    hold(fused.mlp_sample(params, x, times, ABAR, seed=5, stream=2**64 - 3, **told), want, rough)


@COMPILED
@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
@pytest.mark.parametrize("w", [None, 0.0, 1.0, 3.0])
def test_the_residual_trajectory_with_and_without_guidance(w, told):
    params, x, labels = residual(60, 40), start(40, 60), np.arange(40) % 5
    guidance = None if w is None else (labels, w)
    for times in (TIMES, TIMES[:11], [1000, 3], [20, 19, 0]):
        want = truth.mlp_sample(exact(params), x, times, ABAR, seed=5, guidance=guidance, **told)
        rough = [plain.mlp_sample(turned(params, order), x, times, ABAR, seed=5, guidance=guidance, **told) for order in orders(40)]
        hold(fused.mlp_sample(params, x, times, ABAR, seed=5, guidance=guidance, **told), want, rough)


SHAPES = [(1, 16, 8), (5, 7, 5), (6, 16, 32), (7, 13, 33), (31, 48, 31), (32, 50, 7), (33, 5, 64), (47, 49, 17), (48, 97, 1), (49, 1, 3), (97, 100, 65), (129, 15, 9), (3, 1030, 4)]


@COMPILED
@pytest.mark.parametrize("examples, pixels, width", SHAPES)
@pytest.mark.parametrize("net", ["chapter", "residual"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_batch_any_width_any_number_of_pixels(net, examples, pixels, width, dtype):
    params = chapter(pixels, width, dtype) if net == "chapter" else residual(pixels, width, dtype=dtype)
    x, times, told = start(examples, pixels, dtype), [900, 500, 20, 0], dict(eta=0.5, seed=3, stream=9)
    told |= dict(guidance=(np.arange(examples) % 5, 2.0)) if net == "residual" else {}
    want, got = truth.mlp_sample(exact(params), x, times, ABAR, **told), fused.mlp_sample(params, x, times, ABAR, **told)
    assert got.dtype == dtype
    if dtype == np.float64:
        assert np.all(np.abs(got - want) <= 1e-12 * np.abs(want).max())
    else:
        assert np.all(np.abs(got - want) <= 2 * np.abs(plain.mlp_sample(params, x, times, ABAR, **told) - want).max() + 4 * np.spacing(np.float32(np.abs(want).max())))


def runs_of(call):
    """The result on 1, 2 and 3 threads, and five times on 2. call: of nothing, returns arrays."""
    before = engine._threads
    try:
        for threads in [1, 2, 3] + [2] * 5:
            engine.set_num_threads(threads)
            yield call()
    finally:
        engine.set_num_threads(before)


@pytest.mark.parametrize("net", ["chapter", "residual"])
def test_the_same_bits_on_any_number_of_threads_on_every_run_and_for_a_row_alone(net):
    examples, pixels = 203, 90
    params, labels = (chapter(pixels, 70), None) if net == "chapter" else (residual(pixels, 70), np.arange(examples) % 5)
    x = start(examples, pixels)

    def sample(rows, x, **told):
        return fused.mlp_sample(params, x, TIMES, ABAR, guidance=None if labels is None else (labels[rows], 2.0), **told)

    first, *others = runs_of(lambda: sample(slice(None), x, eta=0.5, seed=3))
    assert all(np.array_equal(other, first) for other in others)
    whole = sample(slice(None), x)  # the noise of an example is that of its place, so without
    for rows in (slice(0, 1), slice(63, 64), slice(64, 65), slice(202, 203), slice(30, 100)):
        assert np.array_equal(sample(rows, x[rows]), whole[rows])
    assert np.array_equal(sample(slice(0, 70), x[:70], eta=0.5, seed=3), first[:70])
    x[64] = np.nan
    with_nan = sample(slice(None), x)
    assert np.isnan(with_nan[64]).all() and np.array_equal(np.delete(with_nan, 64, 0), np.delete(whole, 64, 0))


@pytest.mark.parametrize("layout", memory.LAYOUTS)
@pytest.mark.parametrize("net", ["chapter", "residual"])
def test_inputs_of_any_layout_are_read_and_never_written_and_nothing_around_out_is(net, layout):
    params, x = chapter(21, 9) if net == "chapter" else residual(21, 9), start(6, 21)
    told = {} if net == "chapter" else dict(guidance=(np.arange(6) % 5, 2.0))
    want = fused.mlp_sample(params, x, [900, 20, 0], ABAR, 1.0, **told)
    arenas = {name: memory.put(p, layout) for name, p in (tree.named(params) | {"x": x}).items()}
    before = {name: arena.copy() for name, (arena, _) in arenas.items()}
    placed = {name: view for name, (_, view) in arenas.items()}
    x, placed = placed.pop("x"), tree.from_named({name: p for name, p in placed.items() if name != "x"})
    assert np.array_equal(fused.mlp_sample(placed, x, [900, 20, 0], ABAR, 1.0, **told), want)
    assert all(np.array_equal(arena, before[name], equal_nan=True) for name, (arena, _) in arenas.items())
    if layout != "read-only":
        arena, out = memory.place((6, 21), "float32", layout)
        assert fused.mlp_sample(placed, x, [900, 20, 0], ABAR, 1.0, **told, out=out) is out
        assert np.array_equal(out, want) and memory.guards_intact(arena, out)
        assert fused.mlp_sample(placed, x, [900, 20, 0], ABAR, 1.0, **told, out=x) is x
        assert np.array_equal(x, want)


def changed(name, shape):
    return tree.from_named(tree.named(RESIDUAL) | {name: np.ones(shape, np.float32)})


CHAPTER, RESIDUAL, X = chapter(6, 5), residual(6, 5), start(3, 6)
SAMPLE = {
    "another prediction": (dict(predict="mu"), ValueError, "predict"),
    "classes asked of a net without": (dict(guidance=([0, 1, 2], 2.0)), ValueError, "guidance"),
    "labels out of range": (dict(params=RESIDUAL, guidance=([0, 1, 5], 2.0)), ValueError, "guidance"),
    "too few labels": (dict(params=RESIDUAL, guidance=([0, 1], 2.0)), ValueError, "guidance"),
    "labels that are no ints": (dict(params=RESIDUAL, guidance=([0.0, 1, 2], 2.0)), ValueError, "guidance"),
    "times that ascend": (dict(times=[0, 500]), ValueError, "times"),
    "a time twice": (dict(times=[500, 500, 0]), ValueError, "times"),
    "one time": (dict(times=[500]), ValueError, "times"),
    "times that are no ints": (dict(times=[500.0, 0.0]), ValueError, "times"),
    "a time beyond T": (dict(times=[1001, 0]), ValueError, "times"),
    "eta": (dict(eta=1.5), ValueError, "eta"),
    "clip": (dict(clip=0.0), ValueError, "clip"),
    "seed": (dict(seed=-1), ValueError, "seed"),
    "stream": (dict(stream=2**64), ValueError, "stream"),
    "no signal at T": (dict(times=[1000, 0], abar=np.append(ABAR[:-1], 0.0)), ValueError, "abar"),
    "a list": (dict(xT=X.tolist()), TypeError, "xT"),
    "one axis": (dict(xT=X[0]), ValueError, "xT"),
    "other pixels": (dict(xT=X[:, :5].copy()), ValueError, "params"),
    "another dtype": (dict(xT=X.astype(np.float64)), TypeError, "params"),
    "a weight too few": (dict(params={n: p for n, p in CHAPTER.items() if n != "b2"}), ValueError, "params"),
    "a bias of another length": (dict(params=CHAPTER | {"b1": CHAPTER["b1"][:4]}), ValueError, "params"),
    "a block of another width": (dict(params=changed("blocks.1.w2", (5, 4))), ValueError, "params"),
    "an odd width of the times' features": (dict(params=changed("time.w", (5, 3))), ValueError, "width"),
    "out of another shape": (dict(out=np.zeros((2, 6), np.float32)), ValueError, "out"),
    "out of another dtype": (dict(out=np.zeros((3, 6))), TypeError, "out"),
}


@pytest.mark.parametrize("change, error, argument", SAMPLE.values(), ids=SAMPLE)
def test_mlp_sample_refuses_bad_input_before_it_writes(change, error, argument):
    out = np.full((3, 6), 7, np.float32)
    with pytest.raises(error, match=rf"\b{argument}\b"):
        fused.mlp_sample(**(dict(params=CHAPTER, xT=X, times=[900, 20, 0], abar=ABAR, out=out) | change))
    assert np.all(out == 7)


def test_no_examples_are_no_result():
    assert fused.mlp_sample(CHAPTER, X[:0], [900, 0], ABAR).shape == (0, 6)
    assert fused.mlp_sample(RESIDUAL, X[:0], [900, 0], ABAR, guidance=(np.zeros(0, int), 2.0)).shape == (0, 6)


def digits(examples, pixels, dtype=np.float32):
    """Images of -1 and 1."""
    return np.sign(philox.normal(1, (examples, pixels))).astype(dtype)


@COMPILED
@pytest.mark.parametrize("steps", [1, 10, 100])
def test_a_training_run_is_the_truth_to_within_twice_plain_numpy(steps):
    """With an eps of the gradients' size: below it Adam makes a gradient that is only its rounding into a whole step (see the next test)."""
    params, data = chapter(784, 64), digits(300, 784)
    told = dict(batch=64, lr=1e-3, seed=3, abar=ABAR, eps=1e-4, weight_decay=0.01, decay=0.9)
    want, rough = parts(truth.mlp_train(exact(params), data.astype(np.float64), steps, **told)), rough_of(dict(params=params, data=data, steps=steps, **told))
    got = fused.mlp_train(params, data, steps, **told)
    assert got[1]["step"] == steps and parts(got).keys() == want.keys()
    for name, value in parts(got).items():
        hold(value, want[name], [r[name] for r in rough])


@COMPILED
def test_the_first_step_of_the_chapters_own_loop_errs_where_adam_says():
    """Its weights are p - lr g / (|g| + eps): a gradient within twice plain NumPy's error of the truth, and a weight within what that makes of it."""
    params, data, told = chapter(), digits(300, 784), dict(batch=128, lr=1e-3, seed=4, abar=ABAR, decay=0.9)
    want, rough = parts(truth.mlp_train(exact(params), data.astype(np.float64), 1, **told)), rough_of(dict(params=params, data=data, steps=1, **told))
    got = parts(fused.mlp_train(params, data, 1, **told))
    for name, value in got.items():
        if name.split()[0] in ("m", "v", "losses"):
            hold(value, want[name], [r[name] for r in rough])
    for name in params:
        g = want[f"m {name}"] / 0.1
        worst = np.max([np.abs(r[f"m {name}"] / 0.1 - g) for r in rough], axis=0)
        off = np.full(g.shape, 2 * worst[..., :-1].max())
        off[..., -1] = 2 * worst[..., -1].max()  # of w1 it belongs to t, a thousand times a pixel
        allowed = 1e-3 * 1e-8 * off / (np.maximum(np.abs(g) - off, 0) + 1e-8) ** 2 + 2.0**-22 * (np.abs(params[name]) + 1e-3)
        for part, share in (("params", 1), ("average", 0.1)):
            assert np.all(np.abs(got[f"{part} {name}"] - want[f"{part} {name}"]) <= np.minimum(share * allowed + 2.0**-22 * np.abs(params[name]), 2e-3))
        assert np.median(allowed) < 1e-7 and np.mean(np.abs(want[f"params {name}"] - params[name]) > 1e-4) > 0.5


@COMPILED
@pytest.mark.parametrize("examples, pixels, width", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_on_any_batch_any_width_any_number_of_pixels(examples, pixels, width, dtype):
    params, data = chapter(pixels, width, dtype), digits(11, pixels, dtype)
    told = dict(batch=examples, lr=1e-2, seed=3, abar=ABAR, eps=1e-3, weight_decay=0.1, decay=0.5)
    want = parts(truth.mlp_train(exact(params), data.astype(np.float64), 3, **told))
    rough = parts(plain.mlp_train(params, data, 3, **told))
    for name, value in parts(fused.mlp_train(params, data, 3, **told)).items():
        assert value.dtype == (np.float64 if name == "losses" else dtype)
        close = 1e-12 * np.abs(want[name]).max() if dtype == np.float64 else 2 * np.abs(rough[name] - want[name]).max() + 8 * np.spacing(np.float32(np.abs(want[name]).max()))
        assert np.all(np.abs(value - want[name]) <= close), name


def test_a_training_run_has_the_same_bits_on_any_number_of_threads_on_every_run_and_in_two_parts():
    params, data, told = chapter(90, 70), digits(50, 90), dict(batch=203, lr=1e-3, seed=2**64 - 1, abar=ABAR, weight_decay=0.01, decay=0.9)
    first, *others = runs_of(lambda: fused.mlp_train(params, data, 20, **told))
    half, state, losses = fused.mlp_train(params, data, 7, **told)
    new, state, more = fused.mlp_train(half, data, 13, state=state, **told)
    for other in [*others, (new, state, np.append(losses, more))]:
        assert other[1]["step"] == first[1]["step"] == 20
        for name, value in parts(other).items():
            assert np.array_equal(value, parts(first)[name]), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_moments_of_a_unit_that_is_never_on_end_at_0_and_not_among_the_smallest_numbers(dtype):
    params, data, least = chapter(21, 9, dtype), digits(8, 21, dtype), np.finfo(dtype).smallest_normal
    params["b1"][:] = -(10.0**6)
    small = {name: np.full_like(p, least / 100) for name, p in params.items()}
    _, state, _ = fused.mlp_train(params, data, 3, 5, 1e-2, 0, ABAR, state={"step": 9, "m": small, "v": small, "average": params})
    assert all(np.all(state[part][name] == 0) for part in ("m", "v") for name in ("w1", "b1", "w2"))
    assert np.all(np.abs(state["m"]["b2"]) > least) and np.all(small["w1"] == least / 100)


@pytest.mark.parametrize("layout", memory.LAYOUTS)
def test_training_writes_nothing_that_was_given(layout):
    params, data, told = chapter(21, 9), digits(8, 21), dict(batch=5, lr=1e-2, seed=0, abar=ABAR, decay=0.5)
    _, state, _ = fused.mlp_train(params, data, 1, **told)
    want = parts(fused.mlp_train(params, data, 2, state=state, **told))
    arenas = {("data",): memory.put(data, layout)} | {("params", name): memory.put(p, layout) for name, p in params.items()}
    arenas |= {(part, name): memory.put(p, layout) for part in ("m", "v", "average") for name, p in state[part].items()}
    before = {key: arena.copy() for key, (arena, _) in arenas.items()}
    placed = {part: {name: arenas[part, name][1] for name in params} for part in ("params", "m", "v", "average")}
    got = parts(fused.mlp_train(placed.pop("params"), arenas["data",][1], 2, state={"step": 1} | placed, **told))
    assert all(np.array_equal(got[name], want[name]) for name in want)
    assert all(np.array_equal(arena, before[key]) for key, (arena, _) in arenas.items())


STATE = fused.mlp_train(CHAPTER, digits(4, 6), 1, 2, 0.1, 0, ABAR)[1]
TRAIN = {
    "no steps": (dict(steps=0), ValueError, "steps.*batch"),
    "no batch": (dict(batch=0), ValueError, "steps.*batch"),
    "half a step": (dict(steps=1.5), TypeError, "steps"),
    "half an example": (dict(batch=1.5), TypeError, "batch"),
    "no data": (dict(data=digits(0, 6)), ValueError, "n"),
    "a list": (dict(data=[[1.0] * 6]), TypeError, "data"),
    "one axis": (dict(data=X[0]), ValueError, "data"),
    "other pixels": (dict(data=X[:, :5].copy()), ValueError, "params"),
    "another dtype": (dict(data=X.astype(np.float64)), TypeError, "params"),
    "another net": (dict(params=RESIDUAL), ValueError, "params"),
    "seed": (dict(seed=2**64), ValueError, "seed"),
    "abar": (dict(abar=np.full(5, np.nan)), ValueError, "abar"),
    "one time": (dict(abar=np.ones(1)), ValueError, "n"),
    "decay": (dict(decay=1.5), ValueError, "decay"),
    "a moment of another shape": (dict(state=STATE | {"m": STATE["m"] | {"b1": np.zeros(4, np.float32)}}), ValueError, "state"),
    "the state of another net": (dict(state=fused.mlp_train(chapter(6, 4), digits(4, 6), 1, 2, 0.1, 0, ABAR)[1]), ValueError, "state"),
    "a state without steps": (dict(state={n: STATE[n] for n in ("m", "v", "average")}), ValueError, "state"),
}


@pytest.mark.parametrize("change, error, argument", TRAIN.values(), ids=TRAIN)
def test_mlp_train_refuses_bad_input(change, error, argument):
    with pytest.raises(error, match=rf"\b{argument}\b"):
        fused.mlp_train(**(dict(params=CHAPTER, data=X, steps=1, batch=2, lr=0.1, seed=0, abar=ABAR) | change))


def test_integers_below_are_the_references():
    for n in (1, 7, 1000, 2**32):
        assert np.array_equal(kernel_philox.below(5, (3, 70), n, 2**64 - 1), philox.below(5, (3, 70), n, 2**64 - 1))
    for n in (0, 2**32 + 1):
        with pytest.raises(ValueError, match=r"\bn\b"):
            kernel_philox.below(5, 3, n)


@pytest.mark.parametrize("name", ["fused.mlp_sample", "fused.mlp_train"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_selftest_passes_the_loops_and_nothing_else(name, dtype, monkeypatch):
    op = next(op for op in registry.OPS if op.name == name)
    assert selftest.check(op, "numba_cpu", dtype).ok
    short, right = name.split(".")[1], getattr(fused, name.split(".")[1])

    def wrong(**arguments):
        """The data, or the rate, slightly off."""
        changed = dict(xT=arguments["xT"] * (1 + 1e-3)) if "xT" in arguments else dict(lr=arguments["lr"] * (1 + 1e-2))
        return right(**(arguments | changed))

    monkeypatch.setattr(fused, short, wrong)
    row = selftest.check(op, "numba_cpu", dtype)
    assert not row.ok and "allowed error" in row.failure
