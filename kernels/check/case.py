"""One case: how its arguments are made, one call on them, and the judgement of the result."""
import math
import warnings
from dataclasses import dataclass, field, replace

import numpy as np

from kernels import registry, tolerance
from kernels.check import laws, memory

LITERAL = 12  # elements of an array that is printed; a larger one is regenerated from its seed
NEAR = 4  # units of rounding that still count as equal
KINDS = ("raises", "writes its inputs", "wrong number of results", "wrong shape", "wrong dtype", "NaN", "wrong values",
         "breaks a law")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Everything that makes the arguments again."""

    dtype: str
    shape: tuple
    values: str
    seed: int
    options: dict
    layouts: dict
    arguments: dict = field(repr=False)

    @property
    def literal(self):
        """Whether its arrays are small enough to be printed."""
        return all(x.size <= LITERAL for x in registry.arrays(self.arguments).values())


class Failure(Exception):
    """A case in which the function is not right. kind: of KINDS. units: the error in units of the allowed one."""

    def __init__(self, case, message, units=math.inf):
        super().__init__(message)
        self.case, self.message, self.units = case, message, units


# One class for each kind, so that hypothesis does not shrink one mistake into another
FAILURES = {kind: type("Failure", (Failure,), {"kind": kind}) for kind in KINDS}


@dataclass
class Seen:
    """What was seen in all cases so far. outputs: of the last one."""

    examples: int = 0
    outputs: list = None
    error: float = 0.0
    laws: dict = field(default_factory=dict)
    notes: dict = field(default_factory=dict)


def made(call, dtype, shape, values, seed, options):
    """The arguments of a case, a dict. call: `adapter.Caller`. dtype, shape, values, seed, options: as in `Case`.

    Of the values that are not finite only NaN is tried, and not in noise or history that is unused: inf - inf and 0 NaN
    depend on the order of the arithmetic, and all orders are right.
    """
    arguments = call.op.make(np.random.default_rng(seed), shape, dtype, values, **options)
    arguments |= {n: v for n, v in call.held.items() if n in arguments}
    if "zero_based" in call.conventions and "s" not in arguments:  # there the data have no index
        arguments["t"] = np.maximum(arguments["t"], 1) if np.ndim(arguments["t"]) else max(arguments["t"], 1)
    if values == "not finite":
        for x in registry.arrays(arguments).values():
            x[~np.isfinite(x)] = np.nan
        unused = np.isfinite(_truth(call.op, arguments, dtype)[0])
        idle = [n for n in ("z", "x0_last") if arguments.get(n) is not None]
        arguments |= {n: np.where(unused, np.nan_to_num(arguments[n]), arguments[n]) for n in idle}
    return arguments


def _truth(op, arguments, dtype):
    return [rule.truth for rule in registry.expected(op, arguments, dtype)]


def _rules(op, arguments, dtype):
    """The rule of each output. In float64 the truth is rounded too: what one unit in the last place of a number from
    which coefficients are made changes in it is allowed in addition."""
    rules = registry.expected(op, arguments, dtype)
    if dtype != "float64" or not op.ulps:
        return rules
    data = registry.arrays(arguments)
    for name, x in arguments.items():
        if name in data or not isinstance(x, (float, np.ndarray)) or np.asarray(x).dtype.kind != "f":
            continue
        with np.errstate(all="ignore"):
            results = registry.outputs(op.truth(**(arguments | {name: _nudged(x)})))
            off = [np.abs(np.asarray(result) - rule.truth) for result, rule in zip(results, rules)]
        rules = [tolerance.Rule(r.truth, r.allowed + NEAR * np.where(np.isfinite(o), o, 0)) for r, o in zip(rules, off)]
    return rules


def _nudged(x):
    """The next number towards 0, in an array for every second element."""
    return np.where(np.arange(x.size) % 2, np.nextafter(x, 0), x) if np.ndim(x) else float(np.nextafter(x, 0))


def hold(call, case, seen):
    """Run the function on one case and check the values, then the laws. call: `adapter.Caller`. case: `Case`. seen: a
    `Seen`, updated. Raises a Failure."""
    op = call.op
    rules = _rules(op, case.arguments, case.dtype)
    try:
        outputs = seen.outputs = called(call, case, case.arguments)
    except FAILURES["raises"] as refused:
        if not case.layouts:
            raise
        # to refuse strides is no mistake, to misread them is one
        outputs = seen.outputs = called(call, case := replace(case, layouts={}), case.arguments)
        seen.notes[f"contiguous arrays only: {refused.message}"] = None
    _judge(case, op, outputs, rules)
    seen.examples += 1
    seen.error = max([seen.error, *map(tolerance.error, outputs, rules)])
    for law in laws.LAWS:
        tried = []
        again = lambda a: tried.append(a) or called(call, case, a)  # noqa: E731
        if pairs := laws.broken(law, case.arguments, outputs, again, lambda a: _truth(op, a, case.dtype)):
            raise FAILURES["breaks a law"](case, f"{law.name}; {apart(law, pairs, rules)}")
        seen.laws |= dict.fromkeys([law.name] * len(tried))


def failed(call, case, seen=None):
    """The `Failure` of a case, or None. call, case, seen: as in `hold`."""
    try:
        hold(call, case, seen or Seen())
    except Failure as failure:
        return failure


def redrawn(call, case, **changes):
    """The case with other fields and the arguments that belong to them. call, case: as in `hold`. changes: the
    fields."""
    case = replace(case, **changes)
    return replace(case, arguments=made(call, case.dtype, case.shape, case.values, case.seed, case.options))


def again(call, dtype, arguments, layouts=None):
    """The truth, the result and what is wrong, as text; printed scripts call it. call: `adapter.Caller`. dtype: name.
    arguments: from `made`. layouts: {name: of memory.LAYOUTS}. Raises what the function raises."""
    shape = next((x.shape for x in registry.arrays(arguments).values()), arguments.get("shape"))
    failure = failed(call, Case(dtype, shape, "", 0, {}, layouts or {}, arguments), seen := Seen())
    if failure is None:
        return "right, this time"
    if failure.kind == "raises":
        raise failure.__cause__ from None
    result = "" if seen.outputs is None else f"got      {seen.outputs}\n"
    return f"expected {_truth(call.op, arguments, dtype)}\n{result}{failure.kind}: {failure.message}"


def called(call, case, arguments):
    """The outputs for arguments. Every input lies among NaN; neither it nor the memory around it may change. call:
    `adapter.Caller`. case: gives dtype and layouts. arguments: dict. Raises a Failure."""
    data, arenas = registry.arrays(arguments), {}

    def place(path, x):
        if path not in data:
            return x.copy() if isinstance(x, np.ndarray) else x
        arenas[path], view = memory.put(x, case.layouts.get(path, "C"))
        return view

    placed = {name: registry.mapped(place, x, name) for name, x in arguments.items()}
    around = {n: m.copy() for n, m in arenas.items()}
    # freed memory full of NaN: a new array that is not written is seldom right by luck
    value = -1 if case.dtype == "uint32" else np.nan
    scrap = [np.full(case.shape, value).astype(registry.like(case.dtype)) for _ in range(call.op.writes)]
    del scrap
    try:
        theirs = call.theirs(placed | {"dtype": case.dtype})
        before = _bytes(call, theirs)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            result = call.give(theirs)
        changed = [n for n, x in _bytes(call, theirs).items() if x != before[n]]
        outputs = [] if result is None else [call.receive(r) for r in registry.outputs(result)]
    except (Exception, SystemExit) as reason:  # whatever it is, it is the verdict
        raise FAILURES["raises"](case, f"{type(reason).__name__}: {reason}") from reason
    if changed:
        nothing = " and returns nothing" if result is None else ""
        message = f"the call changes {', '.join(changed)}{nothing}; return a new array instead"
        raise FAILURES["writes its inputs"](case, message)
    if outside := [n for n, m in arenas.items() if not np.array_equal(m, around[n])]:
        raise FAILURES["writes its inputs"](case, f"the call writes outside of the memory of {', '.join(outside)}")
    return outputs


def _bytes(call, theirs):
    """The bytes of every array that the function gets, by name."""
    parts = ((n, x if isinstance(x, list) else [x]) for n, x in theirs.items())
    return {n: [np.asarray(call.receive(x)).tobytes() for x in part if hasattr(x, "shape")] for n, part in parts}


def _judge(case, op, outputs, rules):
    """Raises a Failure where an output is not as it has to be."""
    if len(outputs) != len(rules):
        raise FAILURES["wrong number of results"](case, f"expected {len(rules)}, got {len(outputs) or 'nothing'}")
    # sums over an example may be float64, data may not
    stored = sum(rule.truth.ndim > 0 and str(out.dtype) == case.dtype for out, rule in zip(outputs, rules))
    for i, (out, rule) in enumerate(zip(outputs, rules)):
        which = f"result {i}: " if len(rules) > 1 else ""
        if out.shape != rule.truth.shape:
            raise FAILURES["wrong shape"](case, f"{which}expected {rule.truth.shape}, got {out.shape}")
        dtype = str(out.dtype)
        wanted = case.dtype if stored < op.writes and rule.truth.ndim else "a float"
        floats = (case.dtype, *registry.FLOATS, *registry.HALVES)
        if dtype != wanted and (wanted == case.dtype or dtype not in floats):
            fits = out.dtype.kind in "fiuV" and tolerance.error(out, rule) <= 1
            values = "the values are right" if fits else "the values are wrong too"
            raise FAILURES["wrong dtype"](case, f"{which}expected {wanted}, got {dtype}; {values}")
        units = tolerance.error(out, rule)
        if units <= 1:
            continue
        kind = "NaN" if np.any(np.isnan(out.astype(np.float64)) & ~np.isnan(rule.truth)) else "wrong values"
        raise FAILURES[kind](case, f"{which}{tolerance.describe(out, rule)}{_there(case, out, rule)}", units=units)


def _there(case, out, rule):
    """How many elements are wrong, and the inputs at the worst one where the arrays are not printed."""
    units = tolerance.in_units(out, rule)
    place = np.unravel_index(np.argmax(units), units.shape)
    a = case.arguments
    of = {n: x[place] for n, x in registry.arrays(a).items() if x.shape == units.shape}
    of |= {n: a[n][place[0]] for n in registry.PER_EXAMPLE if units.ndim and np.ndim(a.get(n))}
    wrong = f"; {np.sum(units > 1)} of {units.size} elements are wrong" if units.size > 1 else ""
    return wrong + (f"; there {', '.join(f'{n} = {x!s}' for n, x in of.items())}" if of and not case.literal else "")


def apart(law, pairs, rules):
    """How far two calls are apart, as text. law: of `laws.LAWS`. pairs: from `laws.broken`. rules: of the outputs."""
    allowed = [law.same(rule.allowed, rule.allowed)[0] for rule in rules]
    both = [(b, tolerance.Rule(np.asarray(a, np.float64), x)) for (a, b), x in zip(pairs, allowed) if a is not None]
    worst = max(both, key=lambda pair: tolerance.error(*pair))
    return tolerance.describe(*worst).replace("expected", "first", 1).replace("got", "then", 1)
