"""One case: how its arguments are made, and one call on them."""
import math
from dataclasses import dataclass, field, replace

import numpy as np

from kernels import registry
from kernels.check import forms, memory
from kernels.ops.inputs import varied

FORM = "form"  # an option: of `forms`
SAME = "same as "  # a layout: the memory of another argument
LITERAL = 12  # elements of an array that is printed; a larger one is regenerated from its seed
KINDS = ("raises", "writes its inputs", "shares memory", "wrong number of results", "wrong shape", "wrong dtype", "NaN",
         "wrong values", "breaks a law")  # fmt: skip


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
        return all(x.size <= LITERAL for x in registry.arrays(self.arguments, ("abar",)).values())


class Failure(Exception):
    """A case in which the function is not right. kind: of KINDS. units: the error in units of the allowed one."""

    def __init__(self, case, message, units=math.inf):
        super().__init__(message)
        self.case, self.message, self.units = case, message, units


# A class for each kind, so that one of them can be caught
FAILURES = {kind: type("Failure", (Failure,), {"kind": kind}) for kind in KINDS}


def made(call, dtype, shape, values, seed, options):
    """The arguments of a case, a dict. call: `adapter.Caller`. dtype, shape, values, seed, options: as in `Case`.

    Of the values that are not finite only NaN is tried, and not in noise or history that is unused: inf - inf and 0 NaN
    depend on the order of the arithmetic, and all orders are right.
    """
    form, options = options.get(FORM), {n: x for n, x in options.items() if n != FORM}
    arguments = call.op.make(np.random.default_rng(seed), shape, dtype, values, **options)
    if call.op.rules:
        arguments |= {n: v for n, v in call.held.items() if n in arguments}
    else:
        arguments = _varied(call, np.random.default_rng([seed, 1]), arguments, values)
    return arguments if form is None else forms.changed(call, form, np.random.default_rng(seed), arguments) or arguments


def _varied(call, rng, arguments, values):
    """The arguments of a registered operation with other settings, and what is not finite as `made` says."""
    arguments = varied(rng, arguments)
    arguments |= {n: v for n, v in call.held.items() if n in arguments}
    free = (*call.op.settings, *call.op.exact)
    data = [x for x in registry.arrays(arguments, free).values() if x.dtype.kind in "fV"]
    if data and rng.integers(8) == 0:  # zeros in one array, and in no other
        x = data[rng.integers(len(data))]
        x[rng.random(x.shape) < 0.3] = 0
    if "zero_based" in call.conventions and "s" not in arguments:  # there the data have no index
        arguments["t"] = np.maximum(arguments["t"], 1) if np.ndim(arguments["t"]) else max(arguments["t"], 1)
    if values == "not finite":
        for x in registry.arrays(arguments, call.op.settings).values():
            x[~np.isfinite(x)] = np.nan
        with registry.quiet():
            unused = np.isfinite(registry.outputs(call.op.truth(**registry.exact(arguments)))[0])
        idle = [n for n in ("z", "x0_last") if arguments.get(n) is not None]
        arguments |= {n: np.where(unused, np.nan_to_num(arguments[n]), arguments[n]) for n in idle}
    return arguments


def aliased(arguments, layouts):
    """The arguments, in which one with the layout "same as x" is x. arguments: dict. layouts: {name: layout}."""
    same = {n: layout.removeprefix(SAME) for n, layout in layouts.items() if layout.startswith(SAME)}
    return arguments | {n: arguments[other] for n, other in same.items()}


def redrawn(call, case, **changes):
    """The case with other fields and the arguments that belong to them. call, case: as in `hold`. changes: the
    fields."""
    case = replace(case, **changes)
    arguments = made(call, case.dtype, case.shape, case.values, case.seed, case.options)
    return replace(case, arguments=aliased(arguments, case.layouts))


def called(call, case, arguments):
    """The outputs for arguments. Every input lies among NaN; neither it nor the memory around it may change. call:
    `adapter.Caller`. case: gives dtype and layouts. arguments: dict. Raises a Failure."""
    data, arenas, views = registry.arrays(arguments, call.op.settings), {}, {}

    def place(path, x):
        if path not in data:
            return x.copy() if isinstance(x, np.ndarray) else x
        layout = case.layouts.get(path, "C")
        if (other := layout.removeprefix(SAME)) in views and x is arguments[other]:
            return views[other]
        written = path.split("[")[0] in call.inplace
        arenas[path], views[path] = memory.put(x, "C" if written and layout == "read-only" else layout)
        return views[path]

    placed = {name: registry.mapped(place, x, name) for name, x in arguments.items()}
    around = {n: m.copy() for n, m in arenas.items()}
    _scrap(case, call.op.writes)
    try:
        theirs = call.theirs(placed | {"dtype": case.dtype})
        before = _before(call, arguments, placed, theirs)
        with registry.quiet():
            result = call.give(theirs)
        may = [call.names[n] for n in call.inplace]
        changed = [n for n, x in theirs.items() if n not in may and not _kept(call, before[n], x)]
        outputs = [] if result is None else [call.receive(r) for r in registry.outputs(result)]
        if may:  # the inputs are put back
            outputs = [np.array(out) for out in outputs]
            for path in views:
                if path.split("[")[0] in call.inplace:
                    views[path][...] = data[path]
    except (Exception, SystemExit) as reason:  # whatever it is, it is the verdict
        raise FAILURES["raises"](case, f"{type(reason).__name__}: {reason}") from reason
    if changed:
        nothing = " and returns nothing" if result is None else ""
        message = f"the call changes {', '.join(changed)}{nothing}; return a new array instead"
        raise FAILURES["writes its inputs"](case, message)
    if outside := [n for n, m in arenas.items() if not np.array_equal(m, around[n])]:
        raise FAILURES["writes its inputs"](case, f"the call writes outside of the memory of {', '.join(outside)}")
    if shared := _shared(call, placed, outputs, arenas):
        raise FAILURES["shares memory"](case, f"a result is {shared} itself; return a new array instead")
    return outputs


def _scrap(case, count):
    """Free memory full of NaN: a new array that is not written is seldom right by luck."""
    value = -1 if case.dtype == "uint32" else np.nan
    return [np.full(case.shape, value).astype(registry.like(case.dtype)) for _ in range(count)] and None


def _before(call, arguments, placed, theirs):
    """What the function gets, by name: the array that was copied where it gets the copy as it is, else the bytes."""
    own = {call.names[n]: arguments[n] for n, x in placed.items()
           if isinstance(x, np.ndarray) and theirs.get(call.names.get(n)) is x}  # fmt: skip
    return {n: own[n] if n in own else _bytes(call, x) for n, x in theirs.items()}


def _bytes(call, tree):
    """The bytes of every array of a tree."""
    return registry.mapped(lambda _, x: np.asarray(call.receive(x)).tobytes() if hasattr(x, "shape") else None, tree)


def _kept(call, before, x):
    """Whether x is what it was. before: from `_before`."""
    if not isinstance(before, np.ndarray):
        return _bytes(call, x) == before
    return np.array_equal(before, x) or before.dtype.kind in "fV" and np.array_equal(before, x, equal_nan=True)


def _shared(call, arguments, outputs, arenas):
    """The argument whose memory a result shares though it is not its place; "" for none, or if the truth does the
    same."""
    for name, arena in arenas.items():
        if name.split("[")[0] not in call.inplace and any(np.may_share_memory(arena, out) for out in outputs):
            wide = registry.exact(arguments)
            theirs = registry.outputs(call.op.truth(**wide))
            own = registry.arrays(wide, call.op.settings)[name]
            return "" if any(np.may_share_memory(own, x) for x in theirs) else name
    return ""
