"""Large arrays: a path that a kernel takes for many rows, many elements or memory beyond the cache.

A few rows are repeated, so that the truth of the few is that of all; where an element depends on its place or on the
whole batch the truth of all is computed.
"""
import numpy as np

from kernels import registry, tolerance
from kernels.check.case import FAILURES, Case, made
from kernels.check.judge import failed, judge, rules_of

ROWS, COLUMNS = 29, 1021  # that are repeated; 29 divides no 2^n, and no 2^n - 1 below n = 28
CACHE, HUGE = 1 << 25, 1 << 31  # bytes, elements
WHOLE = ((65_539, 2), (3, 349_531))  # past 2^16 rows; past 2^20 elements in float32, and as many bytes in float64


def hold(call, dtype, seen, huge=False):
    """Hold large arrays to the truth. call: `adapter.Caller`. dtype: name. seen: a `judge.Seen`. huge: also past 2^31
    elements. Raises a Failure."""
    choice = {n: call.held.get(n, choices[-1]) for n, choices in call.op.options.items()}
    if call.op.rules:
        turn = call.op.dtypes.index(dtype) if dtype in call.op.dtypes else 0  # each shape in one dtype
        for shape in call.op.large[turn :: len(call.op.dtypes)]:
            arguments = made(call, dtype, shape, "normal", 0, choice)
            whole(call, Case(dtype, shape, "normal", 0, choice, {}, arguments), seen)
    elif call.op.rowwise and "seed" not in call.op.takes:
        # past 2^16 rows; past what a cache holds
        sizes = [(3, 3 << 16), (COLUMNS, CACHE // registry.like(dtype).itemsize), *[(COLUMNS, HUGE)] * huge]
        for columns, elements in sizes:
            times = elements // (ROWS * columns) + 1
            _repeated(call, Case(dtype, (ROWS, columns), "normal", 0, choice, {}, {}), times, seen)
    else:
        for *rows, columns in call.op.large or WHOLE:
            shape = (*rows, columns if columns < COLUMNS else columns * 4 // registry.like(dtype).itemsize)
            arguments = made(call, dtype, shape, "normal", 0, choice)
            whole(call, Case(dtype, shape, "normal", 0, choice, {}, arguments), seen)


def whole(call, case, seen):
    """Hold one case to its whole truth, without laws. call, seen: as in `hold`. case: `case.Case`. Raises a Failure."""
    judge(call, case, case.arguments, _outputs(call, case), rules_of(call.op, case.arguments, case.dtype), seen)


def _repeated(call, few, times, seen):
    """The rows of a case, each many times."""
    arguments = made(call, few.dtype, few.shape, few.values, few.seed, few.options)
    names = {*registry.arrays(arguments, call.op.settings), *call.op.each(arguments)}
    many = {n: np.tile(arguments[n], (times, *[1] * (arguments[n].ndim - 1))) for n in names}
    case = Case(
        few.dtype, (few.shape[0] * times, *few.shape[1:]), few.values, few.seed, few.options, {}, arguments | many
    )
    outputs, rules = _outputs(call, case), rules_of(call.op, arguments, few.dtype)
    for out, rule in zip(outputs, rules):
        if rule.truth.ndim and out.shape != (len(rule.truth) * times, *rule.truth.shape[1:]):
            raise FAILURES["wrong shape"](case, f"expected {len(rule.truth) * times} rows, got shape {out.shape}")
    judge(call, case, arguments, [out[: len(r.truth)] if r.truth.ndim else out for out, r in zip(outputs, rules)],
          rules, seen)  # fmt: skip
    for out, rule in zip(outputs, rules):
        blocks = out.reshape(times, *rule.truth.shape) if rule.truth.ndim else out[None]
        most = max(1, 2 * tolerance.error(blocks[0], rule))  # the first was judged: others may be as far off
        for i, block in enumerate(blocks):
            if not np.array_equal(block, blocks[0]) and not tolerance.error(block, rule) <= most:
                rows = f"from {i * few.shape[0]} to {(i + 1) * few.shape[0] - 1}"
                message = f"of {case.shape[0]} rows those {rows} are not what they are first"
                raise _drawn(call, case) or FAILURES["wrong values"](case, message)


def _drawn(call, case):
    """The Failure of fresh rows of that shape, which a seed makes again, or None."""
    arguments = made(call, case.dtype, case.shape, case.values, case.seed, case.options)
    return failed(call, Case(case.dtype, case.shape, case.values, case.seed, case.options, {}, arguments))


def _outputs(call, case):
    """The results, without guards around the arrays."""
    try:
        with registry.quiet():
            copies = {n: registry.mapped(lambda _, x: np.array(x) if isinstance(x, np.ndarray) else x, x, n)
                      for n, x in case.arguments.items()} if call.inplace else case.arguments  # fmt: skip
            result = call.give(call.theirs(copies | {"dtype": case.dtype}))
        return [call.receive(r) for r in registry.outputs(result)]
    except (Exception, SystemExit) as reason:  # whatever it is, it is the verdict
        raise FAILURES["raises"](case, f"{type(reason).__name__}: {reason}") from reason
