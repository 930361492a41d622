"""What differs between the backends in the tests of the kernels, and the few steps that all of these tests share."""
import importlib
import importlib.util
import itertools
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from numba import config

from kernels import registry
from kernels.check import memory
from kernels.ops.loops import ABAR
from ref import philox

LOOPS = "fused.mlp_sample", "fused.mlp_train"  # which have tests of their own
BLOCK = 1024  # elements of a program of Triton, and of a chunk of noise on the CPU
TRITON = importlib.util.find_spec("triton") is not None
EDGES = np.array([  # words whose uniforms lie next to 0, 1 and the quarter turns
    0, 1, 2, 0x7F, 0x100, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xBFFFFFFF, 0xC0000000, 0x3FFFFFFF, 0x40000000,
    0xFFFFFF7F, 0xFFFFFF80, 0xFFFFFE80, 0xFFFFFFFF,
], np.uint32)  # fmt: skip


@dataclass(frozen=True)
class Backend:
    """name: of the folder. slow: whether plain Python or Triton's interpreter runs the kernels, a thousand times as
    long. examples: how many Hypothesis draws. layouts: where `put` places an array, by name or as a shift in elements.
    shapes: drawn besides the common ones. large: shapes for many threads or programs. lengths: of rows. precisions: of
    the operands of products. mark: of pytest. repeat: (work, times) -> the results of work() in all circumstances that
    must not change a bit.
    """

    name: str
    slow: bool
    examples: int
    layouts: tuple
    shapes: tuple
    large: tuple
    lengths: tuple
    precisions: tuple
    mark: tuple
    repeat: object

    @property
    def modules(self):
        """The kernels, by module."""
        names = "diffusion", "fused", "gan", "optim", "philox", "vae"
        return SimpleNamespace(**{n: importlib.import_module(f"kernels.{self.name}.{n}") for n in names})

    def send(self, array):
        """A NumPy array as one that the kernels take."""
        return registry.carriers(self.name)[0](array)

    def receive(self, array):
        """A result as a NumPy array."""
        return registry.carriers(self.name)[1](array)

    def put(self, array, layout):
        """(memory, view): the array's values in the middle of memory that is 0xFF, in floats NaN."""
        if layout in memory.LAYOUTS:
            return memory.put(array, layout)
        host, inside = blank(array.size + 2 * memory.GUARD, array.dtype), _inside(array, layout)
        host[inside] = array.reshape(-1)
        whole = self.send(host)
        return whole, whole[inside].reshape(array.shape)

    def place(self, shape, dtype, layout):
        """`put` for an array that is to be written."""
        return self.put(blank(shape, registry.like(dtype)), layout)

    def intact(self, whole, view, layout):
        """Whether nothing outside the view was written. whole, view: from `put` with that layout."""
        if layout in memory.LAYOUTS:
            return memory.guards_intact(whole, view)
        outside = np.delete(self.receive(whole), _inside(view, layout))
        return same(outside, blank(outside.shape, outside.dtype))


def _inside(array, shift):
    first = memory.GUARD + shift
    return slice(first, first + int(np.prod(array.shape)))


def blank(shape, dtype):
    """An array of bytes 0xFF."""
    dtype = np.dtype(dtype)
    return np.full(int(np.prod(shape)) * dtype.itemsize, 0xFF, np.uint8).view(dtype).reshape(shape)


def same(a, b):
    """Whether two results are the same numbers, NaN in the same places."""
    return np.array_equal(np.asarray(a, np.float64), np.asarray(b, np.float64), equal_nan=True)


def _numba_cpu():
    engine = importlib.import_module("kernels.numba_cpu.engine")
    slow = bool(config.DISABLE_JIT)

    def repeat(work, times):
        before = engine.get_num_threads()
        try:
            for threads in [1, 2, 3, 5] + [2] * times:
                engine.set_num_threads(threads)
                yield work()
        finally:
            engine.set_num_threads(before)

    large = ((3, BLOCK + 5 if slow else engine.PARALLEL // 3 + 1001),)
    return Backend(
        "numba_cpu", slow, 3 if slow else 100, memory.LAYOUTS, (), large,
        (1, 7, 21, 293, BLOCK, BLOCK + 1, 3 * BLOCK + 5), ("float32",), (), repeat,
    )


def _triton_gpu():
    slow = importlib.import_module("kernels.triton_gpu.device").INTERPRETED
    small, large = ((2, 2 * BLOCK), (3, 3 * BLOCK + 5)), ((2, 3, 256, 256), (5, 99_991), (257, 784), (3, 1_000_003))
    return Backend(
        "triton_gpu", slow, 15 if slow else 25, (0, 1, 2, 3), () if slow else ((7, 3, 64, 64), (3, 40_000), (61, 784)),
        small if slow else large, (21, BLOCK, BLOCK + 3), ("float32", "bfloat16"),
        pytest.mark.interpreter if slow else pytest.mark.gpu,
        lambda work, times: (work() for _ in range(2 if slow else times)),  # NumPy runs it alike each time
    )


BACKENDS = [_numba_cpu(), *([_triton_gpu()] if TRITON else [])]


def named(name):
    """The record of an operation."""
    return next(op for op in registry.OPS if op.name == name)


def on_each(rows=lambda b: [()], names=()):
    """Parametrisation by backend and rows(backend), each a tuple of the arguments called names, or such a row by its
    id in a dict."""
    params = []
    for b in BACKENDS:
        given = rows(b)
        given = given if isinstance(given, dict) else {"-".join(map(_short, row)): row for row in given}
        params += [pytest.param(b, *row, id=f"{b.name}-{i}".rstrip("-"), marks=b.mark) for i, row in given.items()]
    return pytest.mark.parametrize(", ".join(("b", *names)), params)


def _short(value):
    return str(getattr(value, "name", value))


def cases(keep=lambda op: op.name not in LOOPS, dtypes=True):
    """Parametrisation by backend, operation and dtype (or no dtype)."""

    def rows(b):
        ops = [op for op in registry.OPS if keep(op) and registry.kernel(op, b.name)]
        return [(op, d) for op in ops for d in registry.dtypes(op, b.name)] if dtypes else [(op,) for op in ops]

    return on_each(rows, ("op", "dtype")[: 1 + dtypes])


def make(op, shape, dtype="float32", seed=0, values="normal", **options):
    """The arguments of op on drawn data."""
    return op.make(np.random.default_rng(seed), shape, dtype, values, **options)


def last(op, *without):
    """The last choice of each option."""
    return {name: choices[-1] for name, choices in op.options.items() if name not in without}


def choices(b, op):
    """The options with which rows are compared: all on the CPU, where no kernel is compiled again for another."""
    if b.name == "triton_gpu":
        return [last(op, "times")]
    some = [c[:1] if name == "schedule" else c for name, c in op.options.items()]
    return [dict(zip(op.options, choice)) for choice in itertools.product(*some)]


def run(b, op, arguments, dtype="float32", **extra):
    """The results of the backend's kernel as NumPy arrays, in a flat list."""
    results = registry.call(op, registry.kernel(op, b.name), registry.sent(arguments, b.send, op), dtype, **extra)
    return [b.receive(r) for r in results]


def normals(words):
    """The float64 normals of pairs of words, as `ref.philox.normal` makes them. words: (..., 2). Returns that shape."""
    u, a = philox._u01(words[..., 1]), philox._uneg11(words[..., 0])
    r, (sin, cos) = np.sqrt(-2 * np.log(u)), philox._sincospi(a)
    return np.stack([r * sin, r * cos], axis=-1)


def normals_of_blocks(blocks, key):
    """The float64 normals of Philox blocks. blocks: (n,) uint64. key: (4,) uint32, seed and stream. Returns (4 n,)."""
    counter = np.empty((blocks.size, 4), np.uint32)
    counter[:, 0], counter[:, 1], counter[:, 2:] = blocks & np.uint64(0xFFFFFFFF), blocks >> np.uint64(32), key[2:]
    return normals(philox.philox4x32(counter, key[:2]).reshape(-1, 2)).reshape(-1)


def near(z, want):
    """Whether float32 normals are within 3 eps of the truth."""
    return np.all(np.abs(z - want) <= 3 * 2.0**-23 * np.abs(want))
