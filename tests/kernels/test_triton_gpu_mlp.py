"""A whole trajectory and a whole training loop in one launch against the truth: on the GPU where there is one, else a phase at a time in
Triton's interpreter on small nets, where no program waits for another.
"""
import importlib.util

import numpy as np
import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed, so its kernels are not tested", allow_module_level=True)

from kernels import registry, tolerance
from kernels.check import selftest
from kernels.numpy_cpu import fused as plain
from kernels.numpy_cpu import mlp
from kernels.ops import loops
from kernels.ops.loops import ABAR, orders, residual, turned
from kernels.triton_gpu import barrier, device, fused, launch
from kernels.triton_gpu import mlp as kernel
from ref import fused as truth
from ref import philox, tree
from tests.kernels.test_numba_cpu_mlp import SAMPLE, TIMES, TOLD, TRAIN, chapter, digits, exact, hold, parts, rough_of, start

pytestmark = pytest.mark.interpreter if device.INTERPRETED else pytest.mark.gpu

SEND, RECEIVE = registry.carriers("triton_gpu")
CHAPTER = (60, 40) if device.INTERPRETED else (784, 256)  # pixels and units
PLACES = [TIMES[:3], [1000, 3], [20, 19, 0]] if device.INTERPRETED else [TIMES[: end + 1] for end in range(10, 51, 10)] + [[1000, 3]]
PRECISIONS = ["float32", "bfloat16"]
BITS = {"float32": 0, "bfloat16": 16}  # that an operand loses
ROUGHLY = TOLD | {"eta = 0.7, clipped": {"eta": 0.7, "clip": 1.0, "predict": "v"}}  # eps at T, rounded to bfloat16, says nothing of x0 to within 1
CASES = [pytest.param(precision, told, id=f"{precision}-{name}") for precision in PRECISIONS for name, told in (TOLD if precision == "float32" else ROUGHLY).items()]


def sent(arrays):
    return tree.map(lambda a: SEND(np.ascontiguousarray(a)), arrays)


def sample(params, x, times=TIMES, **told):
    return RECEIVE(fused.mlp_sample(sent(params), SEND(x), times, ABAR, **told))


def train(params, data, steps, state=None, **told):
    if state is not None:
        state = {part: sent(p) if part != "step" else p for part, p in state.items()}
    params, state, losses = fused.mlp_train(sent(params), SEND(data), steps, state=state, **told)
    back = {part: {name: RECEIVE(a) for name, a in p.items()} if part != "step" else p for part, p in state.items()}
    return {name: RECEIVE(a) for name, a in params.items()}, back, RECEIVE(losses)


def cut(x, bits):
    """x rounded to so many bits fewer, halves to even."""
    b, half = np.asarray(x, np.float32).view(np.uint32), np.uint32(1 << (bits - 1))
    return ((b + (half - 1) + ((b >> bits) & 1)) & np.uint32(0xFFFFFFFF << bits & 0xFFFFFFFF)).view(np.float32)


@pytest.fixture
def rounded(monkeypatch):
    """Plain NumPy with the operands of every product rounded as the kernels round them; the time beside the pixels is none of them."""

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


def rough(use, precision, params, x, times, width, **told):
    use(BITS[precision])
    return [plain.mlp_sample(turned(params, order), x, times, ABAR, **told) for order in orders(width)]


@pytest.mark.parametrize("precision, told", CASES)
@pytest.mark.parametrize("times", PLACES, ids=lambda t: f"{len(t) - 1} steps to {t[-1]}")
def test_the_chapters_trajectory_is_the_truth_to_within_twice_plain_numpy(told, precision, times, rounded):
    params, x, noise = loops.simple_mlp(*CHAPTER), start(33, CHAPTER[0]), dict(seed=5, stream=2**64 - 3)
    want = truth.mlp_sample(exact(params), x, times, ABAR, **noise, **told)
    got = sample(params, x, times, precision=precision, **noise, **told)
    hold(got, want, rough(rounded, precision, params, x, times, CHAPTER[1], **noise, **told))


@pytest.mark.parametrize("precision, told", CASES)
@pytest.mark.parametrize("w", [None, 3.0] if device.INTERPRETED else [None, 0.0, 3.0])
def test_the_residual_trajectory_with_and_without_guidance(w, precision, told, rounded):
    examples, times, blocks = (18, [900, 20, 0], 1) if device.INTERPRETED else (40, TIMES[:11], 3)
    params, x = residual(60, 40, blocks), start(examples, 60)
    told = dict(seed=5, guidance=None if w is None else (np.arange(examples) % 5, w)) | told
    want = truth.mlp_sample(exact(params), x, times, ABAR, **told)
    got = sample(params, x, times, precision=precision, **told)
    hold(got, want, rough(rounded, precision, params, x, times, 40, **told))


SHAPES = [(1, 16, 8), (5, 7, 5), (17, 33, 65), (31, 130, 1), (49, 1, 3)]
WIDE = {"clip": 30.0}  # x0_hat of t = 900 is that large: a clip at 1 leaves few elements, and by what they err is luck
LARGE = [] if device.INTERPRETED else [(1, 784, 256), (64, 784, 300), (1000, 97, 129), (600, 50, 31), (2, 3000, 40)]  # each compiles for seconds


@pytest.mark.parametrize(
    "which, told, examples, pixels, width",
    [(which, told, *shape) for which in ("chapter", "residual", "residual without blocks") for told in ({}, {"eta": 0.5}, WIDE) for shape in SHAPES[: 5 if which == "chapter" else 3]]
    + [("chapter", told, *shape) for told in ({}, WIDE) for shape in LARGE],
    ids=str,
)
def test_any_batch_any_width_any_number_of_pixels(which, told, examples, pixels, width, rounded):
    """On a GPU a float32 operand is two of tf32, 22 bits of 24: of the shortest sums that is what errs. Everything else holds with all 24."""
    params = loops.simple_mlp(pixels, width) if which == "chapter" else residual(pixels, width, 0 if "without" in which else 2)
    x, told = start(examples, pixels), dict(seed=3, stream=9) | told
    told |= dict(guidance=(np.arange(examples) % 5, 2.0)) if which != "chapter" else {}
    want, got = truth.mlp_sample(exact(params), x, [900, 20, 0], ABAR, **told), sample(params, x, [900, 20, 0], **told)
    rounded(0 if device.INTERPRETED else 2)
    rule = tolerance.whole(want, [plain.mlp_sample(turned(params, order), x, [900, 20, 0], ABAR, **told) for order in orders(width)], np.float32)
    assert got.dtype == np.float32
    tolerance.assert_matches(got, rule)


WAYS = {"hidden": {}, "noise": {"eta": 0.5, "seed": 3}, "clip": {"clip": 1.0}}


@pytest.mark.parametrize("precision", PRECISIONS[1:] if device.INTERPRETED else PRECISIONS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("which", ["chapter", "residual"])
def test_the_same_bits_on_every_run_and_for_a_row_alone(which, way, precision):
    examples, (pixels, width), times = (35, (20, 9), [900, 20]) if device.INTERPRETED else (1203, (90, 70), [900, 500, 20, 0])
    params, x = chapter(pixels, width) if which == "chapter" else residual(pixels, width, 1), start(examples, pixels)
    labels = None if which == "chapter" else np.arange(examples) % 5

    def some(rows, x, **told):
        return sample(params, x, times, precision=precision, guidance=None if labels is None else (labels[rows], 2.0), **told)

    first = some(slice(None), x, **WAYS[way])
    for _ in range(1 if device.INTERPRETED else 20):
        assert np.array_equal(some(slice(None), x, **WAYS[way]), first)
    assert np.array_equal(some(slice(0, 17), x[:17], **WAYS[way]), first[:17])
    if way != "noise":  # the noise of an example is that of its place
        for rows in (slice(0, 1), slice(16, 17), slice(examples - 1, examples), slice(5, 30)):
            assert np.array_equal(some(rows, x[rows], **WAYS[way]), first[rows])
    x[20] = np.nan
    with_nan = some(slice(None), x, **WAYS[way])
    assert np.isnan(with_nan[20]).all() and np.array_equal(np.delete(with_nan, 20, 0), np.delete(first, 20, 0))


def test_out_may_be_the_input_and_nothing_else_is_written():
    params, x = chapter(21, 9), start(6, 21)
    want = sample(params, x, [900, 20, 0])
    for told in ({}, {"clip": 2.0**20}):
        weights, memory = sent(params), SEND(np.full(6 * 21 + 32, np.nan, np.float32))
        out, given = memory[16 : 16 + 6 * 21].reshape(6, 21), SEND(x.copy())
        assert fused.mlp_sample(weights, given, [900, 20, 0], ABAR, **told, out=out) is out
        assert np.isnan(RECEIVE(memory)[:16]).all() and np.isnan(RECEIVE(memory)[-16:]).all() and np.array_equal(RECEIVE(given), x)
        assert np.abs(RECEIVE(out) - want).max() < 1e-5 * np.abs(want).max()
        assert fused.mlp_sample(weights, given, [900, 20, 0], ABAR, **told, out=given) is given
        assert np.array_equal(RECEIVE(given), RECEIVE(out))
        assert all(np.array_equal(RECEIVE(weights[name]), p) for name, p in params.items())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("steps", [1, 3] if device.INTERPRETED else [1, 10, 100])
def test_a_training_run_is_the_truth_to_within_twice_plain_numpy(steps, precision, rounded):
    """With an eps of the gradients' size, as in `tests.kernels.test_numba_cpu_mlp`."""
    pixels, width, batch = (20, 9, 11) if device.INTERPRETED else (784, 64, 64)
    params, data = loops.simple_mlp(pixels, width), digits(300, pixels)
    told = dict(batch=batch, lr=1e-3, seed=3, abar=ABAR, eps=1e-4, weight_decay=0.01, decay=0.9)
    want = parts(truth.mlp_train(exact(params), data.astype(np.float64), steps, **told))
    got = train(params, data, steps, precision=precision, **told)
    rounded(BITS[precision])
    plainly = rough_of(dict(params=params, data=data, steps=steps, **told))
    assert got[1]["step"] == steps and parts(got).keys() == want.keys()
    for name, value in parts(got).items():
        hold(value, want[name], [r[name] for r in plainly])


@pytest.mark.parametrize("examples, pixels, width", [(1, 16, 8), (7, 33, 20), (35, 5, 3)] + ([] if device.INTERPRETED else [(129, 784, 256), (300, 97, 300), (33, 1030, 4), (64, 784, 1024)]))
def test_training_on_any_batch_any_width_any_number_of_pixels(examples, pixels, width):
    params, data = chapter(pixels, width), digits(11, pixels)
    told = dict(batch=examples, lr=1e-2, seed=3, abar=ABAR, eps=1.0, weight_decay=0.1, decay=0.5)  # eps: of the gradients' size, as above
    want = parts(truth.mlp_train(exact(params), data.astype(np.float64), 2, **told))
    rough = rough_of(dict(params=params, data=data, steps=2, **told))
    for name, value in parts(train(params, data, 2, **told)).items():
        tolerance.assert_matches(value, tolerance.whole(want[name], [r[name] for r in rough], np.float32))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_goes_on_where_it_stopped_with_the_same_bits_and_changes_nothing_given(precision):
    steps, (pixels, width, batch) = (4, (20, 9, 11)) if device.INTERPRETED else (60, (784, 256, 128))
    params, data, told = chapter(pixels, width), digits(50, pixels), dict(lr=1e-3, seed=2, abar=ABAR, decay=0.9, precision=precision)
    told |= dict(batch=batch)
    whole, weights, given = train(params, data, steps, **told), sent(params), SEND(data)
    for _ in range(1 if device.INTERPRETED else 5):
        new, state, losses = fused.mlp_train(weights, given, 1, **told)
        kept = {part: {name: RECEIVE(a) for name, a in p.items()} for part, p in state.items() if part != "step"}
        new, after, more = fused.mlp_train(new, given, steps - 1, state=state, **told)
        again = {name: RECEIVE(a) for name, a in new.items()}, {part: {n: RECEIVE(a) for n, a in p.items()} if part != "step" else p for part, p in after.items()}
        assert all(np.array_equal(value, parts(whole)[name]) for name, value in parts((*again, np.concatenate([RECEIVE(losses), RECEIVE(more)]))).items())
        assert all(np.array_equal(RECEIVE(a), kept[part][name]) for part, p in state.items() if part != "step" for name, a in p.items())
    assert all(np.array_equal(RECEIVE(weights[name]), p) for name, p in params.items()) and np.array_equal(RECEIVE(given), data)


FLOATS = {"a list", "another dtype", "out of another dtype"}  # of NumPy's own arrays


@pytest.mark.parametrize("change, error, argument", [v for n, v in SAMPLE.items() if n not in FLOATS], ids=[n for n in SAMPLE if n not in FLOATS])
def test_mlp_sample_refuses_bad_input_before_it_writes(change, error, argument):
    out = SEND(np.full((3, 6), 7, np.float32))
    told = dict(params=chapter(6, 5), xT=start(3, 6), times=[900, 20, 0], abar=ABAR) | change
    told |= dict(params=sent(told["params"]), xT=SEND(np.ascontiguousarray(told["xT"])), out=SEND(told["out"]) if "out" in told else out)
    with pytest.raises(error, match=rf"\b{argument}\b"):
        fused.mlp_sample(**told)
    assert np.all(RECEIVE(out) == 7)


def test_precisions_and_dtypes_that_there_are_not_are_refused():
    params, x = chapter(6, 5), start(3, 6)
    with pytest.raises(ValueError, match=r"\bprecision\b"):
        sample(params, x, precision="float16")
    with pytest.raises(TypeError, match=r"\bxT\b"):
        sample(params, x.astype(np.float16))
    with pytest.raises(TypeError, match=r"\bparams\b"):
        sample(params | {"w1": params["w1"].astype(np.float16)}, x)
    with pytest.raises(ValueError, match=r"\bprecision\b"):
        train(params, digits(9, 6), 1, batch=2, lr=1e-3, seed=0, abar=ABAR, precision="tf32")


@pytest.mark.parametrize("change, error, argument", [v for n, v in TRAIN.items() if n not in FLOATS], ids=[n for n in TRAIN if n not in FLOATS])
def test_mlp_train_refuses_bad_input(change, error, argument):
    told = dict(params=chapter(6, 5), data=start(3, 6), steps=1, batch=2, lr=0.1, seed=0, abar=ABAR) | change
    with pytest.raises(error, match=rf"\b{argument}\b"):
        train(**told)


if not device.INTERPRETED:

    @pytest.mark.parametrize("told", [{}, {"clip": 1.0}], ids=str)
    def test_a_launch_that_waits_in_vain_says_so(told, monkeypatch):
        monkeypatch.setattr(barrier, "PATIENCE", 0)
        assert np.isnan(sample(chapter(), start(64, 784), **told)).all()
        with pytest.raises(RuntimeError, match=r"\bmlp_train\b"):
            train(chapter(), digits(50, 784), 3, batch=128, lr=1e-3, seed=0, abar=ABAR)
        monkeypatch.undo()
        assert np.isfinite(sample(chapter(), start(64, 784), **told)).all()

    def test_more_programs_than_fit_are_refused_with_their_number(monkeypatch):
        monkeypatch.setattr(launch, "processors", lambda near: 10**5)
        with pytest.raises(RuntimeError, match=r"\d+ programs.* \d+ "):
            sample(chapter(), start(40_000, 784), clip=1.0)
        monkeypatch.undo()
        assert np.isfinite(sample(chapter(), start(64, 784), clip=1.0)).all()


@pytest.mark.parametrize("name", ["fused.mlp_sample", "fused.mlp_train"])
def test_the_selftest_passes_the_loops(name):
    assert selftest.check(next(op for op in registry.OPS if op.name == name), "triton_gpu", "float32").ok
