"""Elements past 2^34: further than 32 bits count, and past block 2^32 of the noise.

The arrays are address space, of which a window has memory; of each call only the programs of that window run.
"""
import dataclasses
import functools
import importlib
import math
import mmap
import sys

import numpy as np
import pytest

from kernels import registry, tolerance
from kernels.numpy_cpu import philox as plain_philox
from kernels.ops.loops import residual
from ref import philox as truth_philox
from ref import tree
from tests.kernels.backends import BLOCK, last, make, named, on_each

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs address space without memory")
SAMPLE, TRAIN = named("fused.mlp_sample"), named("fused.mlp_train")
FIRST, SIZE = 2**34, 3 * BLOCK  # the window
ROW = (FIRST + BLOCK + 76) // 2  # elements of a row, of three: the last begins inside the window
PARTS = (1, slice(0, 2 * ROW - FIRST)), (2, slice(2 * ROW - FIRST, SIZE))  # rows, and what of them is in the window
UNRESERVED = getattr(mmap, "MAP_NORESERVE", 0x4000)


def address_space(shape, dtype):
    """An array of zeros that takes memory only where it is touched."""
    dtype, flags = np.dtype(dtype), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | UNRESERVED
    return np.frombuffer(mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=flags), dtype).reshape(shape)


def far(array):
    """Three rows with the array's first row in the window."""
    whole = address_space((3, ROW), array.dtype)
    whole.reshape(-1)[FIRST : FIRST + SIZE] = array[0]
    return whole


def bits_from(first):
    """`ref.philox.bits` of the elements from `first` on, a multiple of 4."""

    @functools.wraps(truth_philox.bits)
    def bits(seed, shape, stream=0):
        size = math.prod(np.atleast_1d(shape).tolist())
        block = np.arange(first // 4, -(-(first + size) // 4), dtype=np.uint64)
        words = [(n & 0xFFFFFFFF, n >> 32) for n in (seed, stream)]
        counter = np.empty((block.size, 4), np.uint32)
        counter[:, 0], counter[:, 1], counter[:, 2:] = block & np.uint64(0xFFFFFFFF), block >> np.uint64(32), words[1]
        return truth_philox.philox4x32(counter, np.array(words[0], np.uint32)).reshape(-1)[:size].reshape(shape)

    return bits


def numba_window(monkeypatch):
    """From here on a call runs the window alone."""
    engine = importlib.import_module("kernels.numba_cpu.engine")

    def run(kernel, size, *args, parts=None):
        if parts is None:
            return kernel(FIRST, FIRST + SIZE, *args)
        n = args[2] if type(args[0]) is int else args[1].size  # of a row, which is cut into segments
        first, end = (e // n * -(-n // engine.CHUNK) + e % n // engine.CHUNK for e in (FIRST, FIRST + SIZE - 1))
        return kernel(first, end + 1, *args)

    monkeypatch.setattr(engine, "run", run)


def triton_window(monkeypatch):
    """The same in the interpreter: only the programs of the window run, under their own numbers."""
    launch = importlib.import_module("kernels.triton_gpu.launch")
    builder = importlib.import_module("triton.runtime.interpreter").interpreter_builder
    set_dim, set_idx, run = builder.set_grid_dim, builder.set_grid_idx, launch.run

    def window(kernel, grid, arrays, *args, **constants):
        if kernel.__name__ not in ("_apply", "_filled", "_add", "_add_examples"):
            return  # sums of the sums of programs
        n, count = (ROW, grid // 3) if kernel.__name__ == "_add_examples" else (3 * ROW, grid)
        second = kernel.__name__ == "_add" and args[2] is not None  # arrays of the same launch
        count //= 1 + second
        block = 1 << (n // count).bit_length() - (n // count & n // count - 1 == 0)
        places = {e // n * count + e % n // block for e in range(FIRST, FIRST + SIZE, BLOCK // 4)}
        places |= {count + place for place in places if second}
        monkeypatch.setattr(builder, "set_grid_dim", lambda *_: set_dim(grid, 1, 1))
        for place in sorted(places):
            monkeypatch.setattr(builder, "set_grid_idx", lambda *_, place=place: set_idx(place, 0, 0))
            run(kernel, 1, arrays, *args, **constants)

    monkeypatch.setattr(launch, "run", window)


def windowed(b):
    """Each operation in one dtype, for an offset knows none, but noise in all, whose blocks lie in each as fits it."""
    some = [op for op in registry.OPS if op.writes and not op.shapes and op.name != "optim.clip_by_global_norm"]
    some = [(op, d) for op in some if registry.kernel(op, b.name) for d in registry.dtypes(op, b.name)]
    return [(op, d) for op, d in some if d in ("float32", "uint32") or op.name == "fused.q_sample_noise"]


@on_each(windowed, ["op", "dtype"])
def test_elements_past_what_32_bits_count(b, op, dtype, monkeypatch):
    if b.name == "triton_gpu" and not b.slow:
        pytest.skip("a GPU has no such memory: test_more_elements_than_32_bits_count")
    small = make(op, (3, SIZE), dtype, **last(op))
    if "shape" in small:
        small["shape"], extra = (3, ROW), {"out": address_space((3, ROW), dtype)}
    else:
        extra = {"out": tuple(address_space((3, ROW), dtype) for _ in range(op.writes))}
        extra = extra if op.writes > 1 else {"out": extra["out"][0]}
    with monkeypatch.context() as patched:
        {"numba_cpu": numba_window, "triton_gpu": triton_window}[b.name](patched)
        results = registry.call(op, registry.kernel(op, b.name), registry.sent(small, far), dtype, **extra)
    of_rows = [name for name in registry.PER_EXAMPLE if np.ndim(small.get(name))]
    for row, here in PARTS:
        part = {name: x[:1, here] for name, x in registry.arrays(small).items()}
        part |= {name: small[name][row : row + 1] for name in of_rows}
        part |= {"shape": (1, here.stop - here.start)} if "shape" in small else {}
        with monkeypatch.context() as patched:
            patched.setattr(truth_philox, "bits", bits_from(FIRST + here.start))
            truth = truth_philox.bits if op.name == "philox.bits" else op.truth
            rules = registry.expected(dataclasses.replace(op, truth=truth), small | part, dtype)
        share = (here.stop - here.start) / (3 * ROW) if op.sums else 1.0  # of a mean
        for result, rule in zip(results, rules, strict=True):
            if np.ndim(result) == 2:
                rule = tolerance.Rule(rule.truth * share, rule.allowed * share + tolerance.SMALLEST["float32"])
                tolerance.assert_matches(result.reshape(-1)[FIRST:][here][None], rule)


@on_each(lambda b: [()] if b.name == "numba_cpu" else [])
def test_sums_of_elements_past_what_32_bits_count(b, monkeypatch):
    numba_window(monkeypatch)
    x, y = (far(np.full((1, SIZE), value, np.float32)).reshape(-1) for value in (5.0, 2.0))
    assert b.modules.diffusion.eps_loss(x, y) * x.size == pytest.approx(9 * SIZE, rel=1e-12)
    (clipped,) = b.modules.optim.clip_by_global_norm([x], 1.0, out=[address_space(x.shape, x.dtype)])
    assert np.allclose(clipped[FIRST : FIRST + SIZE], SIZE**-0.5, rtol=1e-6)


EXAMPLES, PIXELS, TAIL = 2**23 + 40, 512, 8  # of a loop; how many of its last examples there are
WAYS = {"simple": {}, "guided": {"w": 2.0, "eta": 0.5}}


def numba_tail(monkeypatch):
    """From here on a trajectory of many tiles is that of the last one."""
    engine = importlib.import_module("kernels.numba_cpu.engine")
    monkeypatch.setattr(engine, "run", lambda kernel, size, *args, parts: kernel(max(parts - 2, 0), parts, *args))


def triton_tail(monkeypatch):
    """From here on a phase of a trajectory is that of the weights and of the last examples, a tile a program."""
    launch, pixels = (importlib.import_module(f"kernels.triton_gpu.{name}") for name in ("launch", "mlp_pixels"))
    builder = importlib.import_module("triton.runtime.interpreter").interpreter_builder
    set_dim, set_idx, run, full = builder.set_grid_dim, builder.set_grid_idx, launch.run, np.full
    bands, wide = -(-EXAMPLES // 16), -(-EXAMPLES // 32)
    tiles = {  # of each phase: the last of so many bands, and tiles side by side
        "sample_pixels": [[(bands, 16)], [(bands, 4)], [(bands, 4), (2 * bands, 4)], [(bands, 4)], [(bands, 16)]],
        "sample_hidden": [[(wide + 2, 1)], [(bands, 1)], [(wide, 8)]],
    }
    prepared = {"sample_pixels": range(64), "sample_hidden": (0, 1, 2**26 + 999)}  # programs that prepare weights

    def window(kernel, grid, arrays, *args, **constants):
        name, phase = kernel.__name__, constants["PHASE"]
        last = [band * across - 1 - i for band, across in tiles[name][phase - 1] for i in range(across)]
        for places, pack in ((prepared[name] if phase == 1 else (), pixels.pack), (last, lambda *_: None)):
            monkeypatch.setattr(pixels, "pack", pack)  # which shares weights out by the number of programs
            for place in places:
                monkeypatch.setattr(builder, "set_grid_idx", lambda *_, place=place: set_idx(place, 0, 0))
                run(kernel, 1, arrays, *args, **constants)

    monkeypatch.setattr(builder, "set_grid_dim", lambda *_: set_dim(2**26 + 1000, 1, 1))
    space = lambda n, *rest, **more: (address_space((n,), float) if type(n) is int and n > 2**28  # noqa: E731
                                      else full(n, *rest, **more))
    monkeypatch.setattr(np, "full", space)  # of a workspace
    monkeypatch.setattr(launch, "run", window)


@on_each(lambda b: [(way,) for way in WAYS] if b.name == "numba_cpu" or b.slow else [], ["way"])
def test_mlp_sample_of_examples_past_what_32_bits_count(b, way, monkeypatch):
    small = make(SAMPLE, (TAIL, PIXELS), width=40, **WAYS[way]) | {"times": [500, 20]}
    many = small | {"xT": address_space((EXAMPLES, PIXELS), np.float32)}
    many["xT"][-TAIL:] = small["xT"]
    if way == "guided":
        small["params"] = many["params"] = residual(PIXELS, 40, 1)
        labels = np.zeros(EXAMPLES, np.int8)
        labels[-TAIL:] = small["guidance"][0]
        many["guidance"] = labels, small["guidance"][1]
    with monkeypatch.context() as patched:
        {"numba_cpu": numba_tail, "triton_gpu": triton_tail}[b.name](patched)
        out = registry.kernel(SAMPLE, b.name)(**many, out=address_space((EXAMPLES, PIXELS), np.float32))
    for module in (truth_philox, plain_philox):
        monkeypatch.setattr(module, "bits", bits_from((EXAMPLES - TAIL) * PIXELS))
    (rule,) = registry.expected(SAMPLE, small, "float32")
    tolerance.assert_matches(out[-TAIL:], rule)


@on_each(lambda b: [()] if b.name == "numba_cpu" or b.slow else [])
def test_mlp_train_on_examples_past_what_32_bits_count(b):
    arguments, examples = make(TRAIN, (1, 32), width=9, batch=4, steps=2), 2**28 + 7
    data = arguments["data"] = address_space((examples, 32), np.float32)
    for step in (1, 2):
        drawn = truth_philox.below(arguments["seed"], 4, examples, truth_philox.stream("batch", step))
        data[drawn] = np.sign(truth_philox.normal(step, (4, 32)))
    losses = registry.kernel(TRAIN, b.name)(**arguments)[2]
    params = tree.map(np.float64, arguments["params"])
    assert np.allclose(losses, TRAIN.truth(**arguments | {"params": params})[2], rtol=1e-4)


@on_each(lambda b: [()] if b.name == "triton_gpu" and b.slow else [])
def test_weights_that_32_bits_do_not_count_are_refused(b):
    pixels, one = 2**23 + 1, np.zeros(256, np.float32)
    params = {"w1": address_space((256, pixels + 1), "float32"), "b1": one, "b2": address_space((pixels,), "float32")}
    arguments = make(SAMPLE, (1, 8)) | {"xT": address_space((1, pixels), "float32"), "times": [500, 20]}
    arguments["params"] = params | {"w2": address_space((pixels, 256), "float32")}
    with pytest.raises(ValueError, match=r"\bparams\b"):
        registry.kernel(SAMPLE, b.name)(**arguments)
