"""Does a backend agree with the truth, here and now? One verdict an operation and dtype, by the rule of `kernels.compare`."""
import importlib
import importlib.util
import itertools
from dataclasses import dataclass

import numpy as np

from kernels import loops, registry, tolerance

SHAPES = [(0, 4), (1,), (2,), (3,), (5, 5, 5), (1023,), (1024,), (1025,), (3, 1, 1, 7), (2, 2048), (32, 784), (257, 3, 32, 32)]


@dataclass(frozen=True)
class Verdict:
    """What was found for one operation on one backend in one dtype. error: worst, in units of the allowed error."""

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
    missing = {b: f"{lib} is not installed" for b, lib in registry.BACKENDS.items() if importlib.util.find_spec(lib) is None}
    missing |= {b: "not part of this tree" for b in registry.BACKENDS if importlib.util.find_spec(f"kernels.{b}") is None}
    return [b for b in registry.BACKENDS if b not in missing], missing


def interpreted(backend):
    """Whether the backend's kernels run in an interpreter here, a thousand times slower. backend: name."""
    return backend == "triton_gpu" and importlib.import_module("kernels.triton_gpu.device").INTERPRETED


def check(op, backend, dtype, seed=0):
    """Every shape of SHAPES with the options in turn, fresh random data for each, ends of the times included.

    op: `registry.Op`. backend, dtype: names. seed: of the data.
    Returns a `Verdict`; it never raises for a wrong kernel, one that raises is a failure.
    """
    function = registry.kernel(op, backend)
    send, receive = registry.carriers(backend)
    rng = np.random.default_rng(seed)
    small = interpreted(backend)
    choices = itertools.cycle(dict(zip(op.options, c)) for c in itertools.product(*op.options.values()))
    values = itertools.cycle(registry.VALUES if dtype != "uint32" else registry.VALUES[:1])
    cases, worst = 0, 0.0
    for shape in SHAPES:
        if 0 in shape and not op.empty:
            continue
        if small and np.prod(shape) > 1 << 13:
            continue
        for _ in range(1 if np.prod(shape) > 1 << 17 else 4 if small else 10):
            options = next(choices)
            arguments = op.make(rng, shape, dtype, next(values), **options)
            try:
                out = map(receive, registry.call(op, function, registry.sent(arguments, send), dtype))
                for result, rule in zip(out, registry.expected(op, arguments, dtype), strict=True):
                    tolerance.assert_matches(result, rule, pick=cases)
                    worst = max(worst, tolerance.error(result, rule))
            except Exception as reason:  # whatever it is, it is the verdict
                where = ", ".join(f"{k}={v}" for k, v in ({"shape": shape} | options).items())
                return Verdict(op.name, backend, dtype, cases + 1, np.inf, f"{type(reason).__name__} at {where}: {reason}")
            cases += 1
    return Verdict(op.name, backend, dtype, cases, worst)


def check_loop(name, backend, dtype):
    """Every case of a whole loop. name: of `loops.LOOPS`. backend, dtype: names. Returns a `Verdict`; it never raises for a wrong loop."""
    worst = 0.0
    for cases, case in enumerate(loops.LOOPS[name], 1):
        arguments = loops.made(name, case, dtype)
        try:
            found, rules = loops.run(name, backend, arguments), loops.expected(name, arguments)
            for part, rule in rules.items():
                tolerance.assert_matches(found[part], rule, pick=cases)
                worst = max(worst, tolerance.error(found[part], rule))
        except Exception as reason:  # whatever it is, it is the verdict
            return Verdict(name, backend, dtype, cases, np.inf, f"{type(reason).__name__} at {case}: {reason}")
    return Verdict(name, backend, dtype, len(loops.LOOPS[name]), worst)
