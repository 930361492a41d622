"""Why a function is wrong: a guess, from what else it gets right and which known mistake gives the same numbers."""
import math
from dataclasses import replace

import numpy as np

from kernels import registry, tolerance
from kernels.check import mistakes
from kernels.check.adapter import defaults
from kernels.check.case import Case, Failure, called, made, redrawn
from kernels.check.judge import NEAR, failed

FAR = 10  # in units of the allowed error: no order of a sum is that far off


def guess(call, failure):
    """The likely cause of a failure, or "". call: `adapter.Caller`. failure: a `case.Failure`. Returns text."""
    case = failure.case
    if failure.kind in ("writes its inputs", "wrong number of results", "wrong dtype", "breaks a law"):
        return ""
    if case.layouts and failure.units > FAR and not failed(call, replace(case, layouts={})):
        wrong = ", ".join(f"{n} {layout}" for n, layout in case.layouts.items())
        return f"strides: right for contiguous arrays, wrong for {wrong}"
    used = {getattr(x, "__name__", "").split(".")[0] for x in getattr(call.function, "__globals__", {}).values()}
    if failure.kind == "raises" and call.arrays == "numpy" and (library := used & {"torch", "jax", "cupy"}):
        return f"the function gets NumPy arrays and works with {library.pop()}: see --arrays"
    probes = [(arguments, _answer(call, case, arguments)) for arguments in [case.arguments, *_probes(call, case.dtype)]]
    for name, mistake in mistakes.of(call.op).items():
        if _reproduces(call.op, case.dtype, mistake, probes, "float32 cancellation" in name):
            return name
    return _tail(call, case.dtype) or _nan(call, failure) or _float32(call, case)


def _nan(call, failure):
    """Whether NaN is lost, or spreads."""
    if "expected nan" in failure.message:
        return "NaN is turned into a number, as a clamp by min and max does"
    if failure.case.values == "not finite" and not failed(call, redrawn(call, failure.case, values="normal")):
        return "0 times NaN, or NaN of another example"
    return ""


def _float32(call, case):
    """Whether the same case is right in float64."""
    both = case.dtype == "float32" and "float64" in call.op.dtypes
    if not both or failed(call, redrawn(call, case, dtype="float64")):
        return ""
    near = " near t = 0" if np.all(np.less(case.arguments.get("t", math.inf), 100)) else ""
    return f"float32 cancellation{near}: right in float64, so fold what depends on time alone in float64"


def _probes(call, dtype):
    """Arguments that distinguish mistakes: every option, square and not, times for each example, some of them early."""
    rng, fixed = np.random.default_rng(0), call.held
    for i in range(24):
        options = {n: fixed.get(n, choices[rng.integers(len(choices))]) for n, choices in call.op.options.items()}
        arguments = made(call, dtype, [(5, 5), (4, 3, 7), (6,)][i % 3], "normal", i, options)
        if "abar" in arguments and i % 4 == 3:
            early = np.minimum(arguments["t"], 2)
            early = early if early.ndim else int(early)
            arguments |= {"t": early} | ({"s": early - 1} if "s" in arguments else {})
        yield arguments


def _answer(call, case, arguments):
    """The outputs, or the exception."""
    try:
        return called(call, replace(case, layouts={}), arguments)
    except Failure as failure:
        return failure.__cause__ if isinstance(failure.__cause__, Exception) else failure


def _reproduces(op, dtype, mistake, probes, in_float32):
    """Whether a mistake gives the same results wherever both give one, and wrong ones among them. probes: pairs of
    arguments and outputs (or an exception)."""
    to_mistake = to_truth = 0.0
    applied = False  # a mistake that applies to no probe stands for the truth and explains nothing
    eps = tolerance.EPS.get(dtype, tolerance.EPS["float64"])
    eps = max(op.ulps, 1) * max(eps, tolerance.EPS["float32"] if in_float32 else 0.0)
    for arguments, answer in probes:
        exact = registry.exact(defaults(op) | arguments)
        with np.errstate(all="ignore"):
            truth = registry.outputs(op.truth(**exact))
            try:
                wrong = mistake(**exact)
            except (ValueError, IndexError, ZeroDivisionError, TypeError):
                continue
            applied |= wrong is not None
            if isinstance(answer, IndexError):  # past an end, where the mistake takes the last
                continue
            if isinstance(answer, Exception) or [np.shape(x) for x in answer] != [np.shape(x) for x in truth]:
                return False
            sizes = registry.outputs(op.scale(**exact))
            for t, w, out, size in zip(truth, truth if wrong is None else wrong, answer, sizes):
                to_mistake = max(to_mistake, _off(out, w, eps * (np.abs(w) + size)))
                to_truth = max(to_truth, _off(out, t, eps * size))
        if to_mistake > NEAR:
            return False
    return applied and to_truth > 1 and to_mistake <= to_truth / 2


def _off(out, wanted, bound):
    """The worst distance in bounds. What is not finite in both counts as equal: that depends on the order of sums."""
    out, wanted = np.asarray(out, np.float64), np.asarray(wanted, np.float64)
    neither = ~(np.isfinite(out) | np.isfinite(wanted))
    return tolerance.error(np.where(neither, wanted, out), tolerance.Rule(wanted, np.maximum(bound, 1e-300)))


def _tail(call, dtype):
    """Whether large arrays are right up to an element and wrong after it, flat or in each example."""
    options = {n: call.held.get(n, choices[0]) for n, choices in call.op.options.items()}
    for shape in ((4099,), (3, 1025), (2, 2053)):
        case = Case(dtype, shape, "normal", 0, options, {}, made(call, dtype, shape, "normal", 0, options))
        answer = _answer(call, case, case.arguments)
        if isinstance(answer, Exception):
            continue
        for out, rule in zip(answer, registry.expected(call.op, case.arguments, dtype)):
            if not np.shape(out) == rule.truth.shape == shape:
                continue
            wrong = tolerance.in_units(out, rule) > 1
            each = wrong.reshape(shape[0], -1).any(axis=0)
            for name, mask in (("elements", wrong.reshape(-1)), ("elements of each example", each)):
                first = int(np.argmax(mask))
                if mask.any() and first >= mask.size / 2 and mask[first:].mean() > 0.5:
                    where = f"of {mask.size} {name} at shape {shape} those from {first} on are wrong"
                    return f"tail elements not written: {where}, the rest are right"
    return ""


def mend(call, less):
    """The order of operations that would mend what is less accurate, or "". call: `adapter.Caller`. less: {dtype:
    `judge.Less`}."""
    return ""
