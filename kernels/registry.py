"""Every accelerated operation by its record, and what tests, the checker and the benchmark do with one.

To add a kernel: its record in `kernels/ops/<module>.py`, its function under the name of its truth in a backend.
"""
import contextlib
import importlib
import importlib.util
import pkgutil
import warnings
from dataclasses import replace

import numpy as np

from kernels import ops, tolerance
from kernels.ops.inputs import FLOATS, HALVES, PER_EXAMPLE, VALUES, like
from kernels.ops.record import Op, mapped, outputs

BACKENDS = {"numba_cpu": "numba", "triton_gpu": "triton"}  # folder: the library it needs
HALF_ULPS = 0.51  # of a result that is float32 until it is stored: half a step, and the float32 rounding before it
SUM_ULPS = 0.25  # of a sum, for each doubling of the number of its terms: blocks that are added in pairs, or by a BLAS
__all__ = ["BACKENDS", "FLOATS", "HALVES", "OPS", "PER_EXAMPLE", "VALUES", "Op", "like", "mapped", "outputs"]

OPS = [
    op for module in pkgutil.iter_modules(ops.__path__, "kernels.ops.")
    for op in getattr(importlib.import_module(module.name), "OPS", ())
]  # fmt: skip


def dtypes(op, backend):
    """The dtypes in which a backend has op; bfloat16 only where ml_dtypes is installed. op: `Op`. backend: name."""
    if backend != "triton_gpu":
        return op.dtypes
    halves = [d for d in HALVES if op.half and (d != "bfloat16" or importlib.util.find_spec("ml_dtypes"))]
    return (*(d for d in op.dtypes if d != "float64"), *halves)


def carriers(backend):
    """How arrays get to a backend and back: two functions of one array. backend: name."""
    if backend != "triton_gpu":
        return np.asarray, np.asarray
    arrays = importlib.import_module("kernels.triton_gpu.arrays")
    return arrays.send, arrays.receive


def kernel(op, backend):
    """The backend's function for op, or None. op: `Op`. backend: of BACKENDS, or "numpy_cpu"."""
    if op.rules:
        return None
    module, function = op.name.split(".")
    if importlib.util.find_spec(f"kernels.{backend}.{module}") is None:
        return None
    return getattr(importlib.import_module(f"kernels.{backend}.{module}"), function, None)


def arrays(arguments, settings=(*PER_EXAMPLE, "abar")):
    """The data arrays among the arguments, by name; of a list or a dict, by path. arguments: dict. settings: those that
    are no data."""
    found = {}
    for name, value in arguments.items():
        if name not in settings:
            mapped(lambda path, x: found.update({path: x} if isinstance(x, np.ndarray) else {}), value, name)
    return found


def sent(arguments, send, op=None):
    """The arguments with their data arrays where the backend wants them. arguments: dict. send: from `carriers`.
    op: `Op`, for one whose data has the name of a setting elsewhere, as a density sigma has."""
    data = arrays(arguments, [n for n in (*PER_EXAMPLE, "abar") if op is None or n in op.settings])
    return {n: mapped(lambda path, x: send(x) if path in data else x, value, n) for n, value in arguments.items()}


def call(op, function, arguments, dtype, **extra):
    """function(**arguments, **extra), its outputs as a list. op: `Op`. dtype: name, for an operation that takes it."""
    return outputs(function(**arguments, **extra, **({"dtype": dtype} if op.takes_dtype else {})))


@contextlib.contextmanager
def quiet():
    """Within it no function warns: of empty means, of overflow, of division by 0."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def exact(arguments):
    """The arguments with data in float64, in which the truth is computed. arguments: dict."""

    def widened(_, x):
        real = isinstance(x, np.ndarray) and x.dtype.kind in "fV"  # V: bfloat16
        return x.astype(np.float64, copy=False) if real else x  # ref writes into no argument

    return mapped(widened, arguments)


def expected(op, arguments, dtype, textbook=False):
    """The `tolerance.Rule` of each output. op: `Op`. arguments: from op.make. dtype: name. textbook: by the terms of
    the equation as it is printed, for a stranger, who owes us no bits either and may add many terms in his dtype, and
    no number where a term is infinite and the truth is not."""
    if op.rules:
        return op.rules(arguments, dtype)
    half, numpy = dtype in HALVES, kernel(op, "numpy_cpu")
    with np.errstate(all="ignore"):
        truth = outputs(op.truth(**exact(arguments)))
        if op.orders:
            results = [outputs(result) for result in op.orders(numpy, arguments)]
            return [tolerance.whole(t, rough, dtype) for t, rough in zip(truth, zip(*results))]
        scale, rough = outputs((op.textbook if textbook else op.scale)(**exact(arguments))), [None] * len(truth)
        if half and op.stored:
            share = op.ulps * tolerance.EPS["float32"] / (HALF_ULPS * tolerance.EPS[dtype])
            scale = [np.abs(r) + share * s for r, s in zip(outputs(op.stored(**exact(arguments))), scale)]
        free = [np.isfinite(t) & ~np.isfinite(s) if textbook else np.False_ for t, s in zip(truth, scale)]
        scale = [np.where(f, 0.0, s) for f, s in zip(free, scale)]
        if numpy and op.ulps and dtype == "float32":  # in float64 NumPy is the truth's own arithmetic
            rough = call(op, numpy, arguments, dtype)
    ulps = HALF_ULPS if half else op.ulps or 2 * (textbook and dtype in FLOATS)
    longest = max((x.size for x in arrays(arguments, op.settings).values()), default=0)
    count = longest if textbook and ulps and not half else 0
    more = [SUM_ULPS * np.log2(max(count / max(np.size(t), 1), 1)) for t in truth]
    whole = [np.asarray(t).dtype.kind == "i" for t in truth]  # codes, which are equal or wrong
    rules = [tolerance.rule(t, s, 0 if w else ulps + m, dtype, r)
             for t, s, w, m, r in zip(truth, scale, whole, more, rough)]  # fmt: skip
    return [replace(r, allowed=np.where(f, np.inf, r.allowed), dtypes=tolerance.WHOLE if w else ())
            for r, f, w in zip(rules, free, whole)]  # fmt: skip


def bytes_moved(op, arguments, dtype):
    """The fewest bytes that memory must carry: every input read once, every output written once. op: `Op`. arguments:
    from op.make. dtype: name."""
    read = arrays(arguments, op.settings).values()
    size = max((a.nbytes for a in read), default=0) or int(np.prod(arguments["shape"])) * np.dtype(dtype).itemsize
    return sum(a.nbytes for a in read) + op.writes * size
