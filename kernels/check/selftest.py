"""Does a backend agree with the truth on this machine? A row for each operation and dtype, by `kernels.tolerance`."""
import importlib
import importlib.util
import itertools
from dataclasses import dataclass

import numpy as np

from kernels import registry, tolerance

SHAPES = [(0, 4), (1,), (2,), (3,), (5, 5, 5), (1023,), (1024,), (1025,), (3, 1, 1, 7)]
SHAPES += [(2, 2048), (32, 784), (257, 3, 32, 32)]


@dataclass(frozen=True)
class Row:
    """What was found for one operation on one backend in one dtype. error: the worst, in units of the allowed error."""

    op: str
    backend: str
    dtype: str
    cases: int
    error: float
    failure: str = ""

    @property
    def ok(self):
        """Whether every case kept the rule."""
        return not self.failure


def available():
    """The backends whose library is installed, and {backend: why not} for the rest."""
    absent = lambda name: importlib.util.find_spec(name) is None  # noqa: E731
    missing = {b: f"{lib} is not installed" for b, lib in registry.BACKENDS.items() if absent(lib)}
    missing |= {b: "not part of this tree" for b in registry.BACKENDS if absent(f"kernels.{b}")}
    return [b for b in registry.BACKENDS if b not in missing], missing


def interpreted(backend):
    """Whether the backend's kernels run in an interpreter here, a thousand times slower. backend: name."""
    return backend == "triton_gpu" and importlib.import_module("kernels.triton_gpu.device").INTERPRETED


def cases(op, backend, dtype, seed=0):
    """(shape, options, arguments) of every shape, each with fresh data and with the options in turn. op: `registry.Op`.
    backend, dtype: names. seed: of the data. Yields them."""
    rng, few = np.random.default_rng(seed), interpreted(backend)
    choices = itertools.cycle(dict(zip(op.options, c)) for c in itertools.product(*op.options.values()))
    values = itertools.cycle(registry.VALUES if dtype != "uint32" else registry.VALUES[:1])
    for shape in op.shapes or SHAPES:
        size = np.prod(shape)
        if (size == 0 and not op.empty) or (few and size > 1 << 13):
            continue
        for _ in range(1 if size > 1 << 17 else 4 if few else 10):
            options = next(choices)
            yield shape, options, op.make(rng, shape, dtype, next(values), **options)


def check(op, backend, dtype, seed=0):
    """Hold a backend's function to the truth in all `cases`. op, backend, dtype, seed: as there.

    Returns a `Row`; it never raises for a wrong kernel, one that raises is a failure.
    """
    function, (send, receive) = registry.kernel(op, backend), registry.carriers(backend)
    done, worst = 0, 0.0
    for shape, options, arguments in cases(op, backend, dtype, seed):
        try:
            out = map(receive, registry.call(op, function, registry.sent(arguments, send, op), dtype))
            for result, rule in zip(out, registry.expected(op, arguments, dtype), strict=True):
                tolerance.assert_matches(result, rule, pick=done)
                worst = max(worst, tolerance.error(result, rule))
        except Exception as reason:  # whatever it is, it is a failure of the kernel
            where = ", ".join(f"{k}={v}" for k, v in ({"shape": shape} | options).items())
            return Row(op.name, backend, dtype, done + 1, np.inf, f"{type(reason).__name__} at {where}: {reason}")
        done += 1
    return Row(op.name, backend, dtype, done, worst)
