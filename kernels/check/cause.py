"""Why a function is wrong: a guess, from what else it gets right and which known mistake gives the same numbers."""
import itertools
import math
from dataclasses import replace

import numpy as np

from kernels import registry, tolerance
from kernels.check import mistakes, near
from kernels.check.adapter import defaults
from kernels.check.case import SAME, Case, Failure, called, made, redrawn
from kernels.check.grade import LESS
from kernels.check.judge import NEAR, UNSTEADY, Seen, failed, judge, rules_of

ROUNDED = 1e-6  # of a mistake: what another order of the same wrong formula may leave
FRESH = 8  # cases in which an advice is confirmed
MANY = 100  # elements that may have a tail
MUCH = 1 << 17  # elements above which a case is no probe: no mistake is one of large arrays alone
CONSTANT = 16  # in units of the allowed error: one that stays may be the last digit of a constant
STEADILY = ("the error is the same next to these inputs, so it is no rounding: a term is left out where it is small, "
            "or a constant has few digits")  # fmt: skip
FAR = 10  # in units of the allowed error: no order of a sum is that far off


def guess(call, failure):
    """The likely cause of a failure, or "". call: `adapter.Caller`. failure: a `case.Failure`. Returns text."""
    case = failure.case
    unsteady = failure.message.endswith(UNSTEADY)
    if unsteady or failure.kind in ("writes its inputs", "wrong number of results", "wrong dtype", "shares memory"):
        return ""
    if case.layouts and failure.units > FAR and not failed(call, replace(case, layouts={})):
        wrong = ", ".join(f"{n} {layout}" for n, layout in case.layouts.items())
        what = "aliasing: right for arrays of their own" if SAME in wrong else "strides: right for contiguous arrays"
        return f"{what}, wrong for {wrong}"
    used = {getattr(x, "__name__", "").split(".")[0] for x in getattr(call.function, "__globals__", {}).values()}
    if failure.kind == "raises" and call.arrays == "numpy" and (library := used & {"torch", "jax", "cupy"}):
        return f"the function gets NumPy arrays and works with {library.pop()}: see --arrays"
    own = [case.arguments] * (math.prod(case.shape) <= MUCH)
    probes = [(arguments, _answer(call, case, arguments)) for arguments in [*own, *_probes(call, case.dtype)]]
    for name, mistake in mistakes.of(call.op).items():
        if _reproduces(call.op, case.dtype, mistake, probes, "float32 cancellation" in name):
            return name
    if failure.kind == "breaks a law":
        return ""
    return _tail(call, case.dtype) or _ignored(call, case) or _nan(call, failure) or _float32(call, case)


def _ignored(call, case):
    """The arguments that change the truth and not the result."""
    names = [n for n in call.op.takes if n in call.names and all(_without_effect(call, case, n, i) for i in range(2))]
    return f"{' and '.join(names)} ignored: another value gives the same result" if names else ""


def _without_effect(call, case, name, seed):
    op = call.op
    choices = [{n: call.held.get(n, c[i]) for n, c in op.options.items()} for i in (0, -1)]
    try:
        first, other = (made(call, case.dtype, op.fit((4, 3)), "normal", seed + 9 * i, choices[i]) for i in range(2))
        both = [first, first | {name: other[name]}]
        with registry.quiet():
            truths = [registry.outputs(op.truth(**registry.exact(a))) for a in both]
        theirs = [called(call, replace(case, layouts={}), a) for a in both]
    except Exception:  # one of them refuses it
        return False
    return not _equal(*truths) and _equal(*theirs)


def _equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other))


def _nan(call, failure):
    """Whether NaN is lost, or spreads: where it is all that is wrong."""
    fresh = (redrawn(call, failure.case, values="normal", shape=call.op.fit((5, 4)), seed=i) for i in range(2))
    if any(_astray(call, case) for case in fresh):
        return ""
    if "expected nan" in failure.message:
        return "NaN is turned into a number, as a clamp by min and max does"
    if failure.case.values == "not finite" and not _astray(call, redrawn(call, failure.case, values="normal")):
        return "0 times NaN, or NaN of another example"
    return ""


def _astray(call, case):
    """Whether the values of one call are wrong. Laws are not tried: some bring NaN."""
    try:
        judge(call, case, case.arguments, called(call, case, case.arguments), rules_of(call.op, case.arguments,
              case.dtype), Seen(careful=False))  # fmt: skip
    except Failure:
        return True
    return False


def _float32(call, case):
    """Whether the same case is right in float64."""
    both = case.dtype == "float32" and "float64" in call.op.dtypes and not call.op.rules
    if not both or math.prod(case.shape) > MUCH:
        return ""
    if failed(call, replace(case, dtype="float64", layouts={}, arguments=registry.exact(case.arguments))):
        return ""
    near = " near t = 0" if np.all(np.less(case.arguments.get("t", math.inf), 100)) else ""
    fold = ", so fold what depends on time alone in float64" if "abar" in call.op.takes else ""
    return f"float32 cancellation{near}: right in float64{fold}"


def _probes(call, dtype):
    """Arguments that distinguish mistakes: every option, square and not, times for each example, some of them early."""
    rng, fixed = np.random.default_rng(0), call.held
    for i in range(24):
        options = {n: fixed.get(n, choices[rng.integers(len(choices))]) for n, choices in call.op.options.items()}
        arguments = made(call, dtype, call.op.fit([(5, 5), (4, 3, 7), (6,)][i % 3]), "normal", i, options)
        if not call.op.rules and "abar" in arguments and i % 4 == 3:
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
        with registry.quiet():
            truth = registry.outputs(op.truth(**exact))
            try:
                wrong = mistake(**exact)
            except (ValueError, IndexError, ZeroDivisionError, TypeError):
                continue
            applied |= wrong is not None
            if isinstance(answer, IndexError):  # past an end, where the mistake takes the last
                continue
            if isinstance(answer, Exception) or len(truth) - op.spare > len(answer):
                return False
            if any(np.shape(x) != np.shape(t) for x, t in itertools.zip_longest(answer, truth[: len(answer)])):
                return False
            if wrong is not None and [np.shape(x) for x in wrong] != [np.shape(x) for x in truth]:
                return False
            sizes = registry.outputs(op.scale(**exact))
            for t, w, out, size in zip(truth, truth if wrong is None else wrong, answer, sizes):
                to_mistake = max(to_mistake, _off(out, w, eps * (np.abs(w) + size)))
                to_truth = max(to_truth, _off(out, t, eps * size))
        if to_mistake > (1 / ROUNDED if dtype == "float64" else NEAR):
            return False
    near = max(NEAR, ROUNDED * to_truth) if dtype == "float64" and math.isfinite(to_truth) else NEAR
    return applied and to_truth > 1 and to_mistake <= min(to_truth / 2, near)


def _off(out, wanted, bound):
    """The worst distance in bounds. What is not finite in both counts as equal: that depends on the order of sums."""
    out, wanted = np.asarray(out, np.float64), np.asarray(wanted, np.float64)
    neither = ~(np.isfinite(out) | np.isfinite(wanted))
    return tolerance.error(np.where(neither, wanted, out), tolerance.Rule(wanted, np.maximum(bound, 1e-300)))


def _tail(call, dtype):
    """Whether large arrays are right up to an element and wrong after it, flat or in each example."""
    options = {n: call.held.get(n, choices[0]) for n, choices in call.op.options.items()}
    shapes = [s for s in call.op.shapes if max(s) > 1000][:4] if call.op.rules else [(4099,), (3, 1025), (2, 2053)]
    for shape in shapes:
        case = Case(dtype, shape, "normal", 0, options, {}, made(call, dtype, shape, "normal", 0, options))
        answer = _answer(call, case, case.arguments)
        if isinstance(answer, Exception):
            continue
        for out, rule in zip(answer, registry.expected(call.op, case.arguments, dtype)):
            if np.shape(out) != rule.truth.shape or out.ndim == 0 or (out.shape != shape and not call.op.rules):
                continue
            wrong = tolerance.in_units(out, rule) > 1
            each = wrong.reshape(len(wrong), -1).any(axis=0)
            for name, mask in (("elements", wrong.reshape(-1)), ("elements of each example", each)):
                if mask.size <= MANY:
                    continue
                first = int(np.argmax(mask))
                if mask.any() and first >= mask.size / 2 and mask[first:].mean() > 0.5:
                    where = f"of {mask.size} {name} at shape {shape} those from {first} on are wrong"
                    return f"tail elements not written: {where}, the rest are right"
    return ""


def mend(call, less):
    """The order of operations that would mend what is less accurate: the one whose numbers are the function's, in the
    worst case and in a fresh one; or that none would; or "". call: `adapter.Caller`. less: `judge.Less`, a list."""
    for found in less:
        case = found.case
        if found.reason or case.dtype not in tolerance.EPS:
            continue
        for text, order in _orders(call.op, case).items():
            fresh = (redrawn(call, case, seed=case.seed + n, shape=(64, 3)) for n in range(1, FRESH + 1))
            told = (_explains(call, other, order) for other in fresh)
            if _explains(call, case, order) and next((answer for answer in told if answer is not None), False):
                return text
    return STEADILY if any(_steady(call, found) for found in less) else ""


def _steady(call, less):
    """Whether a case of float64 that is less accurate errs by the same next to its inputs. less: a `judge.Less`."""
    case = less.case
    if less.reason or case.dtype != "float64" or not CONSTANT < less.units < LESS["float64"]:
        return False

    def outputs(arguments, _):
        try:
            return called(call, case, arguments)
        except Failure:
            return None

    rules, results = rules_of(call.op, case.arguments, case.dtype), outputs(case.arguments, None) or []
    far = [tolerance.in_units(out, rule) > less.units / 4 for out, rule in zip(results, rules)]
    return bool(far) and near.steady(call.op, outputs, case.arguments, far)


def _orders(op, case):
    """{how to mend it: arguments -> the outputs of an order that loses digits} of an operation."""
    short = lambda x: np.asarray(x).astype(registry.like(case.dtype)).astype(np.float64)  # noqa: E731
    found = {}
    if case.dtype != "float64":
        for name, x in case.arguments.items():
            if name == "abar" or isinstance(x, float):
                what = "fold what depends on time alone" if name == "abar" else f"compute with {name}"
                found[f"{what} in float64: {name} is rounded to {case.dtype} first"] = lambda a, name=name: op.truth(
                    **a | {name: short(a[name])[()]})
    if op.name == "optim.ema_step":
        for turn in ("avg + (1 - decay) (p - avg)", "p + decay (avg - p)"):
            found[f"decay avg + (1 - decay) p in place of {turn}"] = lambda a, turn=turn: _lerp(turn, case.dtype, **a)
    return found


def _lerp(turn, dtype, avg, p, decay):
    avg, p = (x.astype(dtype) for x in (avg, p))
    first, second, weight = (avg, p, 1 - decay) if turn[0] == "a" else (p, avg, decay)
    return first + first.dtype.type(weight) * (second - first)


def _explains(call, case, order):
    """Whether an order's numbers are nearer to the function's by far than the truth is; None where that is not off."""
    outputs = _answer(call, case, case.arguments)
    if isinstance(outputs, Exception):
        return False
    exact = registry.exact(defaults(call.op) | case.arguments)
    with np.errstate(all="ignore"):
        theirs = registry.outputs(order(exact))
    rules, far = rules_of(call.op, case.arguments, case.dtype), None
    for out, other, rule in zip(outputs, theirs, rules):
        off = tolerance.in_units(out, rule)
        away = tolerance.in_units(out, tolerance.Rule(np.asarray(other, np.float64), rule.allowed))
        if off.shape != away.shape or np.max(away, initial=0) > max(np.max(off, initial=0) / 4, 2):
            return False
        far = far or np.max(off, initial=0) > NEAR or None
    return far
