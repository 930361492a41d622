"""A whole trajectory and a whole training loop on the CPU against the truth, and the promises that they make."""
import numpy as np
import pytest

from kernels import plain
from kernels.numba_cpu import fused, launch
from ref import fused as truth
from ref import philox, schedules
from ref.nets import mlp
from tests import arena

ABAR = schedules.alpha_bar(schedules.linear_betas())
TIMES = schedules.spaced_times(1000, 50, "trailing")
TOLD = {"eps": {}, "x0": {"predict": "x0"}, "v, clipped": {"predict": "v", "clip": 1.5}, "eta = 0.7, clipped": {"eta": 0.7, "clip": 1.0}}


def chapter(pixels=784, width=256, dtype=np.float32):
    return mlp.chapter_init(0, pixels, width, dtype)


def residual(pixels, width, depth=3, classes=4, frequencies=6, dtype=np.float32):
    """With last layers that are not 0, as trained ones are."""
    params = mlp.residual_init(0, pixels, width, depth, classes, frequencies, np.float64)
    return {name: (p + 0.3 * width**-0.5 * philox.normal(i, p.shape)).astype(dtype) for i, (name, p) in enumerate(params.items())}


def start(examples, pixels, dtype=np.float32):
    return philox.normal(7, (examples, pixels)).astype(dtype)


def exact(params):
    return {name: p.astype(np.float64) for name, p in params.items()}


def hold(got, want, rough, ulps=4):
    """No element errs more than twice as much as the worst of plain NumPy, or than so many steps of the largest where plain is right by luck."""
    allowed = 2 * np.abs(rough - want).max() + ulps * np.spacing(np.abs(want).max().astype(got.dtype))
    assert got.shape == want.shape and np.all(np.abs(got - want) <= allowed), f"{np.abs(got - want).max():.3g} of {allowed:.3g} allowed"
    for wrong in (0 * want, -want, 2 * want, np.roll(want, 1), np.roll(want, 1, axis=0), want[::-1]):
        assert np.array_equal(wrong, want) or np.abs(wrong - want).max() > 3 * allowed, "the tolerance is vacuous"


@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
@pytest.mark.parametrize("end", range(10, 51, 10))
def test_the_chapters_trajectory_is_the_truth_to_within_twice_plain_numpy_at_every_tenth_step(told, end):
    params, x, times = chapter(), start(25, 784), TIMES[: end + 1]
    want = truth.mlp_sample(exact(params), x, times, ABAR, seed=5, stream=2**64 - 3, **told)
    rough = plain.mlp_sample(params, x, times, ABAR, seed=5, stream=2**64 - 3, **told)
    hold(fused.mlp_sample(params, x, times, ABAR, seed=5, stream=2**64 - 3, **told), want, rough)


@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
@pytest.mark.parametrize("w", [None, 0.0, 1.0, 3.0])
def test_the_residual_trajectory_with_and_without_guidance(w, told):
    params, x, labels = residual(60, 40), start(40, 60), np.arange(40) % 5
    guidance = None if w is None else (labels, w)
    for times in (TIMES, TIMES[:11], [1000, 3], [20, 19, 0]):
        want = truth.mlp_sample(exact(params), x, times, ABAR, seed=5, guidance=guidance, **told)
        rough = plain.mlp_sample(params, x, times, ABAR, seed=5, guidance=guidance, **told)
        hold(fused.mlp_sample(params, x, times, ABAR, seed=5, guidance=guidance, **told), want, rough)


SHAPES = [(1, 16, 8), (5, 7, 5), (6, 16, 32), (7, 13, 33), (31, 48, 31), (32, 50, 7), (33, 5, 64), (47, 49, 17), (48, 97, 1), (49, 1, 3), (97, 100, 65), (129, 15, 9), (3, 1030, 4)]


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
    before = launch._threads
    try:
        for threads in [1, 2, 3] + [2] * 5:
            launch.set_num_threads(threads)
            yield call()
    finally:
        launch.set_num_threads(before)


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


@pytest.mark.parametrize("layout", arena.LAYOUTS)
@pytest.mark.parametrize("net", ["chapter", "residual"])
def test_inputs_of_any_layout_are_read_and_never_written_and_nothing_around_out_is(net, layout):
    params, x = chapter(21, 9) if net == "chapter" else residual(21, 9), start(6, 21)
    told = {} if net == "chapter" else dict(guidance=(np.arange(6) % 5, 2.0))
    want = fused.mlp_sample(params, x, [900, 20, 0], ABAR, 1.0, **told)
    arenas = {name: arena.put(p, layout) for name, p in (params | {"x": x}).items()}
    before = {name: memory.copy() for name, (memory, _) in arenas.items()}
    placed = {name: view for name, (_, view) in arenas.items()}
    x = placed.pop("x")
    assert np.array_equal(fused.mlp_sample(placed, x, [900, 20, 0], ABAR, 1.0, **told), want)
    assert all(np.array_equal(memory, before[name], equal_nan=True) for name, (memory, _) in arenas.items())
    if layout != "read-only":
        memory, out = arena.place((6, 21), "float32", layout)
        assert fused.mlp_sample(placed, x, [900, 20, 0], ABAR, 1.0, **told, out=out) is out
        assert np.array_equal(out, want) and arena.guards_intact(memory, out)
        assert fused.mlp_sample(placed, x, [900, 20, 0], ABAR, 1.0, **told, out=x) is x
        assert np.array_equal(x, want)


CHAPTER, RESIDUAL, X = chapter(6, 5), residual(6, 5), start(3, 6)
SAMPLE = {
    "another prediction": (dict(predict="mu"), ValueError, 'predict: expected "eps", "x0" or "v", got \'mu\''),
    "classes asked of a net without": (dict(guidance=([0, 1, 2], 2.0)), ValueError, "guidance: expected None for a net without classes"),
    "labels out of range": (dict(params=RESIDUAL, guidance=([0, 1, 5], 2.0)), ValueError, "guidance: expected 3 labels from 0 to 4"),
    "too few labels": (dict(params=RESIDUAL, guidance=([0, 1], 2.0)), ValueError, "guidance: expected 3 labels"),
    "labels that are no ints": (dict(params=RESIDUAL, guidance=([0.0, 1, 2], 2.0)), ValueError, "guidance: expected 3 labels"),
    "times that ascend": (dict(times=[0, 500]), ValueError, "times: expected to descend within 0 to T = 1000"),
    "a time twice": (dict(times=[500, 500, 0]), ValueError, "times: expected to descend"),
    "one time": (dict(times=[500]), ValueError, r"times: expected shape \(n \+ 1,\) of ints"),
    "times that are no ints": (dict(times=[500.0, 0.0]), ValueError, "times: expected shape"),
    "a time beyond T": (dict(times=[1001, 0]), ValueError, "times: expected to descend"),
    "eta": (dict(eta=1.5), ValueError, "eta: expected 0 <= eta <= 1, got 1.5"),
    "clip": (dict(clip=0.0), ValueError, "clip: expected a positive number or None, got 0.0"),
    "seed": (dict(seed=-1), ValueError, r"seed: expected 0 <= seed < 2\*\*64, got -1"),
    "stream": (dict(stream=2**64), ValueError, r"stream: expected 0 <= stream < 2\*\*64"),
    "no signal at T": (dict(times=[1000, 0], abar=np.append(ABAR[:-1], 0.0)), ValueError, r"abar\[t\] = 0"),
    "a list": (dict(xT=X.tolist()), TypeError, "xT: expected a NumPy array of float32 or float64, got list"),
    "one axis": (dict(xT=X[0]), ValueError, r"xT: expected shape \(B, pixels\), got \(6,\)"),
    "other pixels": (dict(xT=X[:, :5].copy()), ValueError, r"params\['w1'\]: expected shape \('any', 6\), got \(5, 7\)"),
    "another dtype": (dict(xT=X.astype(np.float64)), TypeError, r"params\['w1'\]: expected a NumPy array of float64 like the data, got float32"),
    "a weight too few": (dict(params={n: p for n, p in CHAPTER.items() if n != "b2"}), ValueError, r"params: expected an array 'b2', got \['b1', 'w1', 'w2'\]"),
    "a bias of another length": (dict(params=CHAPTER | {"b1": CHAPTER["b1"][:4]}), ValueError, r"params\['b1'\]: expected shape \(5,\), got \(4,\)"),
    "a block of another width": (dict(params=RESIDUAL | {"block1.w2": np.ones((5, 4), np.float32)}), ValueError, r"params\['block1.w2'\]: expected shape \(5, 5\)"),
    "an odd width of the times' features": (dict(params=RESIDUAL | {"time.w": np.ones((5, 3), np.float32)}), ValueError, "width: expected an even number, got 3"),
    "out of another shape": (dict(out=np.zeros((2, 6), np.float32)), ValueError, r"out: expected shape \(3, 6\), got \(2, 6\)"),
    "out of another dtype": (dict(out=np.zeros((3, 6))), TypeError, "out: expected a NumPy array of float32"),
}


@pytest.mark.parametrize("change, error, says", SAMPLE.values(), ids=SAMPLE)
def test_mlp_sample_refuses_bad_input_before_it_writes(change, error, says):
    out = np.full((3, 6), 7, np.float32)
    with pytest.raises(error, match=says):
        fused.mlp_sample(**(dict(params=CHAPTER, xT=X, times=[900, 20, 0], abar=ABAR, out=out) | change))
    assert np.all(out == 7)


def test_no_examples_are_no_result():
    assert fused.mlp_sample(CHAPTER, X[:0], [900, 0], ABAR).shape == (0, 6)
    assert fused.mlp_sample(RESIDUAL, X[:0], [900, 0], ABAR, guidance=(np.zeros(0, int), 2.0)).shape == (0, 6)
