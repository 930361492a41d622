"""The judgement of one case: values by the rule of `kernels.tolerance` and the grades of `kernels.check.grade`, then
the laws."""
import math
from dataclasses import dataclass, field, replace

import numpy as np

from kernels import registry, tolerance
from kernels.check import elsewhere, laws, near, stranger
from kernels.check.adapter import defaults
from kernels.check.case import FAILURES, FORM, Case, Failure, aliased, called
from kernels.check.grade import LESS

NEAR = 4  # units of rounding that still count as equal
UNSTEADY = "; not every time: the same arguments give different results"


@dataclass
class Seen:
    """What was seen in all cases so far. outputs: of the last one. error: the worst in units of the allowed one, by
    dtype. less: {(dtype, reason): `Less`} of cases that are less accurate. broken: what was broken of a law, by law.
    careful: whether what looks wrong is held to more runs of a derived rule."""

    examples: int = 0
    outputs: list = None
    error: dict = field(default_factory=dict)
    less: dict = field(default_factory=dict)
    laws: dict = field(default_factory=dict)
    broken: dict = field(default_factory=dict)
    notes: dict = field(default_factory=dict)
    untested: dict = field(default_factory=dict)
    careful: bool = True


@dataclass(frozen=True)
class Less:
    """The worst case that is less accurate. reason: in words where it is not rounding. units: its error in units of the
    allowed one. plain: the worst of tuned NumPy's in all such cases."""

    case: Case
    reason: str
    message: str
    units: float = math.inf
    plain: float = 0.0


def rules_of(op, arguments, dtype):
    """The rule of each output for a stranger. op: `registry.Op`. arguments: from `made`. dtype: name."""
    return registry.expected(op, defaults(op) | arguments, dtype, textbook=True)


def hold(call, case, seen, strict=False, turn=None):
    """Run the function on one case and check the values, then the laws. call: `adapter.Caller`. case: `Case`. seen: a
    `Seen`, updated. strict: whether laws that are broken by rounding count. turn: a number, for the first law and one
    other in turn; None for all. Raises a Failure."""
    op = call.op
    try:
        rules = rules_of(op, case.arguments, case.dtype)
    except Exception:
        if not op.rules:
            raise
        return  # a stranger's truth refuses this case
    try:
        outputs = seen.outputs = called(call, case, case.arguments)
    except FAILURES["raises"] as refused:
        if _excused(op, case, refused, seen):
            return
        if not case.layouts:
            raise
        # to refuse strides is no mistake, to misread them is one
        outputs = seen.outputs = called(call, case := replace(case, layouts={}), case.arguments)
        seen.notes[f"takes contiguous arrays only: {refused.message}"] = None
    judge(call, case, case.arguments, outputs, rules, seen)
    seen.examples += 1
    kept = [np.array(out) for out in outputs]
    first, *others = laws.LAWS
    for law in laws.LAWS if turn is None else (first, others[turn % len(others)]):
        changed = law.change(op, case.arguments)
        if changed is None:
            continue
        second_rules = rules if changed is case.arguments else _second(op, law, changed, rules, case.dtype)
        if second_rules is None:
            continue
        second = called(call, case, changed)
        judge(call, case, changed, second, second_rules, seen, f"{law.name}, but the second call: ")
        if not all(map(_same_bits, kept, outputs)):
            raise FAILURES["shares memory"](case, "the next call writes over the results of the one before")
        if pairs := laws.broken(law, outputs, second):
            seen.broken.setdefault(law.name, laws.apart(law, pairs, rules))
            if strict:
                raise FAILURES["breaks a law"](case, f"{law.name}; {seen.broken[law.name]}")
        seen.laws[law.name] = None


def _excused(op, case, refused, seen):
    """Whether a function may refuse these arguments: it is noted then."""
    if form := case.options.get(FORM):
        seen.untested[f"{form}, which it refuses: {refused.message}"] = None
        return True
    if sizes := stranger.empty(op, case.shape):
        seen.notes[f"refuses {sizes}: {refused.message}"] = None
        return True
    reason = "" if op.rules else _singular(case.arguments)
    if reason:
        seen.less.setdefault((case.dtype, reason), Less(case, reason, refused.message))
    return bool(reason)


def _second(op, law, changed, rules, dtype):
    """The rules of a law's second call; None where the truth refuses it or does not keep the law."""
    if op.rules:
        second = stranger.second(op, law, changed, rules, dtype)
        return second if second is not None and laws.agree(law, rules, second) else None
    with registry.quiet():
        truths = registry.outputs(op.truth(**registry.exact(defaults(op) | changed)))
    second = [replace(r, truth=tolerance.stored(np.asarray(x, np.float64), dtype)) for r, x in zip(rules, truths)]
    if laws.agree(law, rules, second):
        return laws.shared(law, second) or rules_of(op, changed, dtype)


def failed(call, case, seen=None, strict=False):
    """The `Failure` of a case, or None. call, case, seen, strict: as in `hold`."""
    try:
        hold(call, case, seen or Seen(careful=False), strict)
    except Failure as failure:
        return failure


def again(call, dtype, arguments, layouts=None, strict=False):
    """The truth, the result and what is wrong, as text; printed scripts call it. call: `adapter.Caller`. dtype: name.
    arguments: from `made`. layouts: {name: of memory.LAYOUTS}. strict: as in `hold`. Raises what the function raises.
    """
    shape = next((x.shape for x in registry.arrays(arguments, call.op.settings).values()), arguments.get("shape"))
    arguments = aliased(arguments, layouts or {})
    failure = failed(call, Case(dtype, shape, "", 0, {}, layouts or {}, arguments), seen := Seen(), strict)
    if failure is None:
        return "right, this time"
    if failure.kind == "raises":
        raise failure.__cause__ from None
    result = "" if seen.outputs is None else f"got      {seen.outputs}\n"
    truth = [rule.truth for rule in rules_of(call.op, arguments, dtype)]
    return f"expected {truth}\n{result}{failure.kind}: {failure.message}"


def judge(call, case, arguments, outputs, rules, seen, where=""):
    """Hold outputs to their rules; note in seen how far off they are. call, case, seen: as in `hold`. arguments: those
    of this call. rules: from `rules_of`. where: which call it was, for the message. Raises a Failure for what is no
    rounding."""
    op = call.op
    _fits(case, op, outputs, rules)
    rules = rules[: len(outputs)]
    own = outputs
    outputs = outputs if op.rules else [_own_nan(op, arguments, out, rule) for out, rule in zip(outputs, rules)]
    units = max(map(tolerance.error, outputs, rules), default=0.0)
    few = op.rules and units > 1 and seen.careful
    known = max((x.units for (dtype, _), x in seen.less.items() if dtype == case.dtype), default=1.0)
    if few and units > known:
        few, rules = False, stranger.careful(op, arguments, case.dtype, rules, units)
        units = max(map(tolerance.error, outputs, rules))
    worse = seen.less.get((case.dtype, ""))
    if worse and 1 < units <= min(worse.units, LESS[case.dtype]):  # it is less accurate elsewhere, and no more so here
        seen.less[case.dtype, ""] = replace(worse, plain=max(worse.plain, _plain(op, arguments, case.dtype, rules)))
        return
    if units > 1 and case.dtype == "float64":  # the truth is rounded on its way, too: coefficients are allowed an ulp
        rules = near.widened(rules, near.change(op, arguments, case.dtype, data=False), NEAR)
        units = max(map(tolerance.error, outputs, rules))
    if not units > 1:
        stranger.noted(outputs, rules, seen)
        seen.error[case.dtype] = max(seen.error.get(case.dtype, 0.0), units)
        return
    reason = _reason(call, case, arguments, outputs, rules, own)
    if reason is None and few:  # nothing is called wrong by few runs
        rules = stranger.careful(op, arguments, case.dtype, rules, units)
        return judge(call, case, arguments, own, rules, replace(seen, careful=False), where)
    worst = max(range(len(rules)), key=lambda i: tolerance.error(outputs[i], rules[i]))
    which = where + (f"result {worst}: " if len(rules) > 1 else "")
    found = outputs[worst], rules[worst]
    message = f"{which}{tolerance.describe(*found)}{_there(op, case, *found)}"
    if reason is None:
        lost = (np.isnan(np.asarray(o, np.float64)) & ~np.isnan(r.truth) for o, r in zip(outputs, rules))
        raise FAILURES["NaN" if any(map(np.any, lost)) else "wrong values"](case, message, units=units)
    key = case.dtype, reason
    before, plain = seen.less.get(key), _plain(op, arguments, case.dtype, rules)
    plain = max(plain, before.plain if before else 0.0)
    worse = before is None or before.units < units
    seen.less[key] = Less(case, reason, message, units, plain) if worse else replace(before, plain=plain)


def _fits(case, op, outputs, rules):
    """Raises a Failure where the outputs are not of the number, shapes, dtypes and memory that they have to be."""
    if not len(rules) - op.spare <= len(outputs) <= len(rules):
        numbers = len(outputs) > 1 and not any(map(np.ndim, outputs))
        message = f"expected {len(rules)}, got {len(outputs) or 'nothing'}"
        message += " numbers, as .tolist() makes them; return an array" * numbers
        raise FAILURES["wrong number of results"](case, message)
    # sums over an example may be float64, data may not
    stored = sum(rule.truth.ndim > 0 and str(out.dtype) == case.dtype for out, rule in zip(outputs, rules))
    for i, (out, rule) in enumerate(zip(outputs, rules)):
        which = f"result {i}: " if len(rules) > 1 else ""
        if out.shape != rule.truth.shape:
            raise FAILURES["wrong shape"](case, f"{which}expected {rule.truth.shape}, got {out.shape}")
        dtype = str(out.dtype)
        floats = (case.dtype, *registry.FLOATS, *registry.HALVES)
        possible = rule.dtypes or ((case.dtype,) if stored < op.writes and rule.truth.ndim else floats)
        if dtype not in possible:
            wanted = possible[0] if len(set(possible)) == 1 else "a float" if case.dtype in possible else "an integer"
            fits = out.dtype.kind in "fiubV" and tolerance.error(out, rule) <= 1
            values = "the values are right" if fits else "the values are wrong too"
            raise FAILURES["wrong dtype"](case, f"{which}expected {wanted}, got {dtype}; {values}")
        for j in range(i):
            if np.shares_memory(outputs[j], out):
                raise FAILURES["shares memory"](case, f"results {j} and {i} lie in the same memory")


def _own_nan(op, arguments, out, rule):
    """The output with the truth in place of a NaN where an input of that element is NaN: it may, but need not pass
    on."""
    x = [a for a in registry.arrays(arguments, op.settings).values() if a.shape == out.shape and a.dtype.kind in "fV"]
    lost = np.isnan(np.asarray(out, np.float64)) if x else np.False_
    if not np.any(lost):
        return out
    return np.where(lost & np.any([np.isnan(np.asarray(a, np.float64)) for a in x], axis=0), rule.truth, out)


def _reason(call, case, arguments, outputs, rules, own):
    """Why outputs that err by more than is allowed are right, but less accurate: "" for rounding, or in words; None
    where they are wrong. own: the outputs with each NaN that is their own."""
    op, dtype, less = call.op, case.dtype, LESS.get(case.dtype)
    if less is None or any(r.dtypes == tolerance.WHOLE and tolerance.error(o, r) > 1 for o, r in zip(outputs, rules)):
        return None
    if max(map(tolerance.error, outputs, rules)) < less:  # and so by any wider rule
        return ""
    wide = near.widened(rules, near.change(op, arguments, dtype), near.less(dtype))
    units = [tolerance.in_units(out, rule) for out, rule in zip(outputs, wide)]
    far = [~(u < less) for u in units]
    if not any(map(np.any, far)):
        return ""
    again = lambda a, name: _try(lambda: called(call, replace(case, dtype=name), a))  # noqa: E731
    if reason := elsewhere.followed(op, arguments, own, wide):
        return reason
    if all(map(np.all, (np.isfinite(u) for u in units))):
        second = again(arguments, dtype)  # what is wrong now and then is no rounding
        if second is None or not all(map(_same_bits, outputs, second)):
            return None
        return "" if near.rounds(op, again, arguments, dtype, far) else None
    if not op.rules and (reason := _singular(arguments, far)):
        return reason
    # large numbers may overflow on their way in a short dtype where they do not in a longer one
    longer = {"float32": "float64", "float16": "float32", "bfloat16": "float32"}.get(dtype)
    if case.values != "large" or longer not in op.dtypes:
        return None
    long = registry.mapped(lambda _, x: x.astype(longer) if str(getattr(x, "dtype", "")) == dtype else x, arguments)
    fine = _try(lambda: max(map(
        tolerance.error, called(call, replace(case, dtype=longer), long), rules_of(op, long, longer))))
    return f"overflows in {dtype}, not in {longer}" if fine is not None and fine < LESS[longer] else None


def _singular(arguments, far=()):
    """In words, that a function has no value where abar_t = 0, and only there, or of an infinite norm, else "". far: a
    mask for each output."""
    if arguments.get("max_norm") == np.inf:
        return "has no value at max_norm = inf"
    abar, t = arguments.get("abar"), arguments.get("t")
    if abar is None or not np.any(zero := np.asarray(abar)[t] == 0):
        return ""
    rows = [zero.reshape(zero.shape + (1,) * (mask.ndim - zero.ndim)) | ~mask for mask in far]
    return "has no value at zero terminal SNR, where abar_t = 0" if all(map(np.all, rows)) else ""


def _same_bits(one, other):
    return np.array_equal(one, other, equal_nan=one.dtype.kind in "fV")


def _try(work):
    """What work returns, or None where the function fails in it."""
    try:
        return work()
    except Failure:
        return None


def _plain(op, arguments, dtype, rules):
    """The error of tuned NumPy in units of the allowed one, 0 where there is none."""
    numpy = registry.kernel(op, "numpy_cpu")
    if numpy is None or dtype not in op.dtypes:
        return 0.0
    with registry.quiet():
        return max(map(tolerance.error, registry.call(op, numpy, arguments, dtype), rules))


def _there(op, case, out, rule):
    """How many elements are wrong, and the inputs at the worst one where the arrays are not printed."""
    units = tolerance.in_units(out, rule)
    place = np.unravel_index(np.argmax(units), units.shape)
    a = case.arguments
    of = {n: x[place] for n, x in registry.arrays(a, op.settings).items() if x.shape == units.shape}
    each = (n for n in op.settings if n != "abar" and units.ndim and np.shape(a.get(n)) == units.shape[:1])
    of |= {n: a[n][place[0]] for n in each}
    wrong = f"; {np.sum(units > 1)} of {units.size} elements are off by more" if units.size > 1 else ""
    return wrong + (f"; there {', '.join(f'{n} = {x!s}' for n, x in of.items())}" if of and not case.literal else "")
