"""Is anybody's kernel right? A function held against the truth of an operation, by the rule of `kernels.compare` and the laws of `kernels.laws`.

    from kernels.check import check, assert_right
    assert_right(my_step, "ddim_step")          # in a test: passes, or fails with the report
    print(check(my_step, "ddim_step"))          # the report

hypothesis draws shapes, memory layouts, options, times, values and seeds, and shrinks what fails to the smallest input that does.
"""
import itertools
import math
import re
import warnings
from dataclasses import dataclass, field, replace

import hypothesis
import numpy as np
from hypothesis import strategies as st

from kernels import registry, timing, tolerance
from kernels.check import laws, memory, mistakes, selftest
from kernels.check.adapter import Usage, caller

LAYOUTS = {"numpy": memory.LAYOUTS, "torch": ("C", "Fortran", "transposed", "sliced")}  # torch has no negative strides; others have memory of their own
SMALL = sorted((s for n in range(1, 5) for s in itertools.product(range(1, 6), repeat=n)), key=lambda s: (math.prod(s), len(s), s))
SHAPES = st.one_of(  # each is one choice of hypothesis, so that it shrinks to the first
    st.sampled_from(SMALL),
    st.sampled_from([(1023,), (1024,), (1025,), (3, 1025), (7, 293), (2, 3, 31, 31), (2053,)]),
    st.sampled_from([(0,), (0, 4), (3, 0), (2, 0, 3)]),
)
LITERAL = 12  # elements of an array that is printed; a larger one is made again from its seed
FAR = 10  # bounds, beyond which no order of a sum can lie, and strides are to blame where contiguous arrays give what is right
NEAR = 4  # bounds of rounding, so near a wrong variant has to be to what came
TIMED = {"cpu": ("numba_cpu", (256, 3, 32, 32)), "cuda": ("triton_gpu", (64, 3, 256, 256))}  # our backend there, and the shape
SCHEDULES = {"linear": "linear_betas()", "cosine": "cosine_betas()", "short": "linear_betas(4, 0.1, 0.5)"}


@dataclass(frozen=True)
class Case:
    """One draw: everything that makes the arguments again."""

    dtype: str
    shape: tuple
    values: str
    seed: int
    options: dict
    layouts: dict
    arguments: dict = field(repr=False)


class Failure(Exception):
    """A case in which the function is not right. kind: one of KINDS. changed: the second call's arguments, where a law is broken; where inputs are
    written, the names of those."""

    def __init__(self, case, message, changed=None, units=math.inf):
        super().__init__(message)
        self.case, self.message, self.changed, self.units = case, message, changed, units


# One class a kind, so that hypothesis does not shrink one mistake into another
KINDS = ("raises", "writes its inputs", "wrong number of results", "wrong shape", "wrong dtype", "NaN", "wrong values", "breaks a law")
FAILURES = {kind: type("Failure", (Failure,), {"kind": kind}) for kind in KINDS}


@dataclass(frozen=True)
class Verdict:
    """What was found. It is true where the function is right, and its text is the report.

    error: worst, in units of the allowed error. untested: what is held at one value. kind: "" or of KINDS. code: can be pasted and run. cause: a guess, or "".
    """

    op: str
    function: str
    dtypes: tuple
    seed: int
    examples: int
    error: float
    laws: tuple = ()
    notes: tuple = ()
    untested: tuple = ()
    kind: str = ""
    message: str = ""
    cause: str = ""
    code: str = ""
    speed: dict = field(default_factory=dict)

    def __bool__(self):
        return not self.kind

    def __str__(self):
        about = f"{self.function} as {self.op}"
        held = [f"  not tested, for held at one value: {', '.join(self.untested)}"] if self.untested else []
        if self:
            lines = [f"{about}: right. {self.examples} examples of {', '.join(self.dtypes)}, worst error {self.error:.2f} of the allowed one (seed {self.seed})"]
            lines += [f"  holds: {law}" for law in self.laws] + [f"  takes {note}" for note in self.notes] + held
            if self.speed:
                lines.append("  {shape} {dtype}: {theirs_us:.1f} us, {theirs_copy:.0f} % of the copy limit".format(**self.speed))
                if "ours_us" in self.speed:
                    lines.append("  {backend} here: {ours_us:.1f} us, {ours_copy:.0f} %; yours takes {ratio:.2f} times as long".format(**self.speed))
            return "\n".join(lines)
        lines = [f"{about}: {self.kind.upper()}", f"  {self.message}"]
        lines += [f"  likely cause: {self.cause}"] if self.cause else []
        return "\n".join([*lines, *held, "  the smallest input that shows it:", "", self.code])

    __repr__ = __str__


def assert_right(function, op, **options):
    """One line in a test: returns nothing where function is right, else raises AssertionError with the report. function, op, options: as for `check`."""
    verdict = check(function, op, **options)
    if not verdict:
        raise AssertionError(str(verdict))


def check(function, op, dtype=None, arrays=None, device="cpu", examples=200, seed=0, mapping=None, conventions=(), seconds=0.0, fixed=None):
    """Hold a function against the truth of an operation.

    function: callable with the operation's arguments by name; it returns what the truth returns, in the dtype of its data. op: name, such as
    "ddim_step" or "diffusion.ddim_step". dtype: name, or None for all that the operation has on a CPU (float32 alone on a GPU). arrays, device, mapping,
    conventions, fixed: as in `kernels.check.adapter.caller`. examples: for each dtype. seed: of what is drawn. seconds: of timing, if it is right; 0 for none.
    Returns a `Verdict`. Raises `kernels.check.adapter.Usage` (a ValueError) for an unknown operation or dtype, or a function that cannot be called as one.
    """
    call = caller(function, op, mapping, arrays, device, conventions, fixed)
    op = call.op
    possible = op.dtypes + (registry.HALVES if op.half else ())
    if dtype not in (None, *possible):
        raise Usage(f"--dtype: {op.name} has {', '.join(possible)}, got {dtype}")
    if examples < 1:
        raise Usage(f"--examples: expected at least 1, got {examples}")
    if not seconds >= 0:
        raise Usage(f"--seconds: expected at least 0, got {seconds}")
    wanted = (dtype,) if dtype else op.dtypes if device == "cpu" else op.dtypes[:1]
    try:
        for name in wanted:
            registry.like(name)
    except ImportError as reason:
        raise Usage(f"--dtype {dtype}: {reason}") from None
    verdict = Verdict(op.name, getattr(function, "__qualname__", repr(function)), wanted, seed, 0, 0.0, untested=call.untested)
    for name in wanted:
        seen = _nothing_seen()
        failure = _smallest(lambda draw: _hold(call, _draw(draw, call, name), seen), examples, seed)
        verdict = replace(verdict, examples=verdict.examples + seen["examples"], error=max(verdict.error, seen["error"]))
        if failure and failure.message.endswith("got nothing"):  # most likely it writes over an input, which shows where that changes it
            failure = _smallest(lambda draw: _written(call, _draw(draw, call, name)), examples, seed) or failure
        if failure:
            failure = _simpler(call, failure)
            error = failure.units if failure.kind == "wrong values" else math.inf
            return replace(verdict, error=error, kind=failure.kind, message=failure.message, cause=_cause(call, failure), code=_code(call, failure))
    verdict = replace(verdict, laws=tuple(seen["laws"]), notes=tuple(seen["notes"])[:1])
    return replace(verdict, speed=_speed(call, wanted[0], seconds)) if seconds else verdict


# --- one example -----------------------------------------------------------------------------------------------------


def _draw(draw, call, dtype):
    op, fixed = call.op, call.held
    shape = draw(SHAPES.filter(lambda s: op.empty or 0 not in s))
    options = draw(st.sampled_from([dict(zip(op.options, c)) for c in itertools.product(*([fixed[n]] if n in fixed else choices for n, choices in op.options.items()))]))
    values, seed = draw(st.sampled_from(registry.VALUES)), draw(st.integers(0, 2**32 - 1))
    arguments = made(call, dtype, shape, values, seed, options)
    kinds = LAYOUTS.get(call.arrays, ("C",)) if call.device == "cpu" else ("C",)
    layouts = {n: draw(st.sampled_from(kinds)) for n in registry.arrays(arguments) if n in arguments}
    return Case(dtype, shape, values, seed, options, {n: layout for n, layout in layouts.items() if layout != "C"}, arguments)


def made(call, dtype, shape, values, seed, options):
    """The arguments of a case, again. Of what is not finite only NaN is asked about, and not in noise or history that is not used: inf - inf and
    0 NaN come of orders of arithmetic that are all right. call: `Caller`. dtype, shape, values, seed, options: as in `Case`. Returns a dict."""
    arguments = call.op.make(np.random.default_rng(seed), shape, dtype, values, **options)
    arguments |= {n: v for n, v in call.held.items() if n in arguments}
    if "zero_based" in call.conventions and "s" not in arguments:  # the data have no index there
        arguments["t"] = np.maximum(arguments["t"], 1) if np.ndim(arguments["t"]) else max(arguments["t"], 1)
    if values == "not finite":
        for x in registry.arrays(arguments).values():
            x[~np.isfinite(x)] = np.nan
        unused = np.isfinite(_truth(call.op, arguments, dtype)[0])
        arguments |= {n: np.where(unused, np.nan_to_num(arguments[n]), arguments[n]) for n in ("z", "x0_last") if arguments.get(n) is not None}
    return arguments


def _truth(op, arguments, dtype):
    return [rule.truth for rule in registry.expected(op, arguments, dtype)]


def _nothing_seen():
    return {"examples": 0, "error": 0.0, "laws": {}, "notes": {}}


def _rules(op, arguments, dtype):
    """The rule of each output. In float64 the truth itself is rounded: what one unit in the last place of a number that coefficients are made of
    changes in it is allowed beside the rule, for nobody's order of arithmetic is the right one there."""
    rules = registry.expected(op, arguments, dtype)
    if dtype != "float64" or not op.ulps:
        return rules
    numbers = {n: x for n, x in arguments.items() if n not in registry.arrays(arguments) and (isinstance(x, float) or isinstance(x, np.ndarray) and x.dtype.kind == "f")}
    with np.errstate(all="ignore"):
        for name, x in numbers.items():
            odd = np.nextafter(x, 0) if np.ndim(x) == 0 else np.where(np.arange(x.size) % 2, np.nextafter(x, 0), x)
            moved = registry.outputs(op.truth(**(arguments | {name: float(odd) if np.ndim(x) == 0 else odd})))
            off = [np.abs(np.asarray(m) - rule.truth) for m, rule in zip(moved, rules)]
            rules = [tolerance.Rule(r.truth, r.allowed + NEAR * np.where(np.isfinite(o), o, 0)) for r, o in zip(rules, off)]
    return rules


def _hold(call, case, seen):
    """The function on one case: the values, then the laws. seen: what there is to tell. Raises a Failure."""
    op = call.op
    rules = _rules(op, case.arguments, case.dtype)
    try:
        outputs = _called(call, case, case.arguments)
    except FAILURES["raises"] as refused:
        if not case.layouts:
            raise
        outputs = _called(call, case := replace(case, layouts={}), case.arguments)  # to refuse strides is no mistake, to misread them is
        seen["notes"][f"contiguous arrays only: {refused.message}"] = None
    _judge(case, op, outputs, rules)
    seen["examples"] += 1
    seen["error"] = max([seen["error"], *map(tolerance.error, outputs, rules)])
    for law in laws.LAWS:
        tried = []
        changed, pairs = laws.broken(law, case.arguments, outputs, lambda a: tried.append(a) or _called(call, case, a), lambda a: _truth(op, a, case.dtype))
        if changed is not None:
            raise FAILURES["breaks a law"](case, f"broken: {law[0]}; {_apart(law, pairs, rules)}", changed)
        seen["laws"] |= dict.fromkeys([law[0]] * len(tried))


def _called(call, case, arguments):
    """The outputs, after a look at the inputs: each lies among NaN, and neither it nor what is around it may change."""
    placed, arenas = {n: x.copy() if isinstance(x, np.ndarray) else [y.copy() for y in x] if isinstance(x, list) else x for n, x in arguments.items()}, {}
    for name, x in registry.arrays(arguments).items():
        if name in arguments:
            arenas[name], placed[name] = memory.put(x, case.layouts.get(name, "C"))
    around = {n: m.copy() for n, m in arenas.items()}
    scrap = [np.full(case.shape, -1 if case.dtype == "uint32" else np.nan).astype(registry.like(case.dtype)) for _ in range(call.op.writes)]
    del scrap  # so that what is not written of an array made now is seldom right by luck
    try:
        theirs = call.theirs(placed | {"dtype": case.dtype})
        before = _snapshot(call, theirs)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            result = call.give(theirs)
        changed = [n for n, x in _snapshot(call, theirs).items() if x != before[n]]
        outputs = [] if result is None else [call.receive(r) for r in registry.outputs(result)]
    except (Exception, SystemExit) as reason:  # whatever it is, it is the verdict
        raise FAILURES["raises"](case, f"{type(reason).__name__}: {reason}") from reason
    if changed:
        told = "return the result as a new array instead" if result is None else "make a new array for the result"
        raise FAILURES["writes its inputs"](case, f"the call changed {', '.join(changed)}{' and returns nothing' if result is None else ''}: {told}", changed)
    if outside := [n for n, m in arenas.items() if not np.array_equal(m, around[n])]:
        raise FAILURES["writes its inputs"](case, f"the call wrote outside of {', '.join(outside)}, into memory that is not its own")
    return outputs


def _written(call, case):
    """Raises a Failure where the call writes its inputs, and no other."""
    try:
        _called(call, case, case.arguments)
    except Failure as failure:
        if failure.kind == "writes its inputs":
            raise


def _snapshot(call, theirs):
    """The bytes of every array that the function gets."""
    parts = {n: x if isinstance(x, list) else [x] for n, x in theirs.items()}
    return {n: [np.asarray(call.receive(x)).tobytes() for x in part] for n, part in parts.items() if part and hasattr(part[0], "shape")}


def _judge(case, op, outputs, rules):
    """Raises a Failure where an output is not what it has to be."""
    if len(outputs) != len(rules):
        raise FAILURES["wrong number of results"](case, f"expected {len(rules)}, got {len(outputs) or 'nothing'}")
    stored = sum(rule.truth.ndim > 0 and str(out.dtype) == case.dtype for out, rule in zip(outputs, rules))  # sums of an example may be float64, data not
    for i, (out, rule) in enumerate(zip(outputs, rules)):
        which = f"result {i}: " if len(rules) > 1 else ""
        if out.shape != rule.truth.shape:
            raise FAILURES["wrong shape"](case, f"{which}expected {rule.truth.shape}, got {out.shape}")
        dtype = str(out.dtype)
        wanted = case.dtype if stored < op.writes and rule.truth.ndim else "a float"
        if dtype != wanted and (wanted == case.dtype or dtype not in (case.dtype, *registry.FLOATS, *registry.HALVES)):
            right = "the values are right" if out.dtype.kind in "fiuV" and tolerance.error(out, rule) <= 1 else "and the values are wrong too"
            raise FAILURES["wrong dtype"](case, f"{which}expected {wanted}, got {dtype}; {right}")
        units = tolerance.error(out, rule)
        if units <= 1:
            continue
        kind = "NaN" if np.any(np.isnan(out.astype(np.float64)) & ~np.isnan(rule.truth)) else "wrong values"
        raise FAILURES[kind](case, f"{which}{tolerance.describe(out, rule)}{_there(case, out, rule)}", units=units)


def _there(case, out, rule):
    """How many elements are wrong, and the inputs at the worst one where they are too many to be seen."""
    units = tolerance.in_units(out, rule)
    place = np.unravel_index(np.argmax(units), units.shape)
    of = {n: x[place] for n, x in registry.arrays(case.arguments).items() if x.shape == units.shape}
    of |= {n: case.arguments[n][place[0]] for n in registry.PER_EXAMPLE if units.ndim and np.ndim(case.arguments.get(n))}
    told = f"; {np.sum(units > 1)} of {units.size} elements are wrong" if units.size > 1 else ""
    return told + (f"; there {', '.join(f'{n} = {x!s}' for n, x in of.items())}" if of and not _literal(case) else "")


def _apart(law, pairs, rules):
    """How far the two calls of a broken law are apart, in words."""
    apart = [(b, tolerance.Rule(np.asarray(a, np.float64), law[2](rule.allowed, rule.allowed)[0])) for (a, b), rule in zip(pairs, rules) if a is not None]
    return tolerance.describe(*max(apart, key=lambda pair: tolerance.error(*pair))).replace("expected", "first", 1).replace("got", "then", 1)


def _literal(case):
    """Whether its arrays are small enough to be printed."""
    return all(x.size <= LITERAL for x in registry.arrays(case.arguments).values())


def _smallest(hold, examples, seed):
    """The Failure of the smallest case that hypothesis finds, or None. hold: function of draw that raises it."""
    met = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples, database=None, deadline=None, derandomize=False, suppress_health_check=list(hypothesis.HealthCheck), print_blob=False,
        report_multiple_bugs=False, phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink), verbosity=hypothesis.Verbosity.quiet,
    )  # fmt: skip
    @hypothesis.given(st.data())
    def run(data):
        try:
            hold(data.draw)
        except Failure as failure:
            met.append(failure)
            raise

    try:
        run()
    except Failure as failure:
        return failure
    except hypothesis.errors.Flaky:
        met[-1].message += "; not every time: the same arguments give now this and now that"
        return met[-1]


def _simpler(call, failure):
    """The same kind of failure in a small shape and with plainer numbers, where there is one."""
    for shape in [] if _literal(failure.case) else [s for s in SMALL if math.prod(s) <= LITERAL]:  # where hypothesis, one choice at a time, found none
        arguments = made(call, failure.case.dtype, shape, failure.case.values, failure.case.seed, failure.case.options)
        if found := _same_kind(call, failure, replace(failure.case, shape=shape, arguments=arguments)):
            failure = found
            break
    case = failure.case
    if not _literal(case):  # which is made again from its seed
        return failure
    plainer = (np.zeros_like, np.ones_like, lambda x: np.round(x.astype(np.float64)).astype(x.dtype), lambda x: np.round(x.astype(np.float64), 1).astype(x.dtype))
    for name, x in case.arguments.items():
        data = isinstance(x, np.ndarray) and name in registry.arrays(case.arguments) and x.size <= LITERAL
        for change in plainer if data else (lambda _: 0,) if name in ("seed", "stream") else ():
            case = replace(failure.case, arguments=failure.case.arguments | {name: change(x)})
            if found := _same_kind(call, failure, case):
                failure = found
                break
    return failure


def _same_kind(call, failure, case):
    """The Failure of another case, if it is of the same kind, else None."""
    try:
        _hold(call, case, _nothing_seen())
    except Failure as found:
        if found.kind == failure.kind and (found.kind != "raises" or type(found.__cause__) is type(failure.__cause__)):
            return found


# --- why -------------------------------------------------------------------------------------------------------------


def _cause(call, failure):
    """A guess, or ""."""
    case = failure.case
    if failure.kind in ("writes its inputs", "wrong number of results", "wrong dtype"):
        return ""
    if case.layouts and failure.kind != "breaks a law" and failure.units > FAR and _right(call, replace(case, layouts={})):
        return "strides: right for contiguous arrays, wrong for " + ", ".join(f"{n} {layout}" for n, layout in case.layouts.items())
    if failure.kind == "breaks a law":
        return ""
    used = {getattr(x, "__name__", "").split(".")[0] for x in getattr(call.function, "__globals__", {}).values()} & {"torch", "jax", "cupy"}
    if failure.kind == "raises" and used and call.arrays == "numpy":
        return f"NumPy arrays given to a function that works with {used.pop()}: see --arrays"
    probes = [(arguments, _answer(call, case, arguments)) for arguments in [case.arguments, *_probes(call, case.dtype)]]
    for name, variant in mistakes.of(call.op).items():
        if _reproduces(call.op, case.dtype, variant, probes, "float32 cancellation" in name):
            return name
    if tail := _tail(call, case.dtype):
        return tail
    if "the truth is NaN" in failure.message or case.values == "not finite" and _right(call, _again(call, case, case.dtype, "normal")):
        return "NaN is turned into a number, as a clamp by min and max does" if "the truth is NaN" in failure.message else "0 times NaN, or NaN of another example"
    if case.dtype == "float32" and "float64" in call.op.dtypes and _right(call, _again(call, case, "float64", case.values)):
        small = " near t = 0" if np.all(np.less(case.arguments.get("t", math.inf), 100)) else ""
        return f"float32 cancellation{small}: in float64 the same case is right, so fold what depends on time alone in float64"
    return ""


def _again(call, case, dtype, values):
    return replace(case, dtype=dtype, arguments=made(call, dtype, case.shape, values, case.seed, case.options))


def _right(call, case):
    try:
        _hold(call, case, _nothing_seen())
    except Failure:
        return False
    return True


def _probes(call, dtype):
    """Arguments that tell mistakes apart: every option, square and not, times for each example, some of them the first ones."""
    rng, fixed = np.random.default_rng(0), call.held
    for i in range(24):
        options = {n: fixed[n] if n in fixed else choices[rng.integers(len(choices))] for n, choices in call.op.options.items()}
        arguments = made(call, dtype, [(5, 5), (4, 3, 7), (6,)][i % 3], "normal", i, options)
        if "abar" in arguments and i % 4 == 3:
            early = np.minimum(arguments["t"], 2)
            arguments |= {"t": early if early.ndim else int(early)} | ({"s": early - 1 if early.ndim else int(early) - 1} if "s" in arguments else {})
        yield arguments


def _answer(call, case, arguments):
    """The outputs, or the exception that came."""
    try:
        return _called(call, replace(case, layouts={}), arguments)
    except Failure as failure:
        return failure.__cause__ if isinstance(failure.__cause__, Exception) else failure


def _reproduces(op, dtype, variant, probes, in_float32):
    """Whether a wrong variant gives what came wherever both give something, and something wrong among it."""
    to_variant = to_truth = 0.0
    applied = False  # a variant that says nothing stands for the truth, so there is one to say it of
    eps = max(op.ulps, 1) * max(tolerance.EPS.get(dtype, tolerance.EPS["float64"]), tolerance.EPS["float32"] if in_float32 else 0.0)
    for arguments, came in probes:
        exact = registry.exact(mistakes.defaults(op) | arguments)
        with np.errstate(all="ignore"):
            truth = registry.outputs(op.truth(**exact))
            try:
                said = variant(**exact)
            except (ValueError, IndexError, ZeroDivisionError, TypeError):
                continue
            applied |= said is not None
            if isinstance(came, Exception):
                if isinstance(came, IndexError):  # past an end, where the variant takes the last
                    continue
                return False
            if len(came) != len(truth):
                return False
            for t, v, out, size in zip(truth, truth if said is None else said, came, registry.outputs(op.scale(**exact))):
                if np.shape(out) != np.shape(t):
                    return False
                to_variant, to_truth = max(to_variant, _off(out, v, eps * (np.abs(v) + size))), max(to_truth, _off(out, t, eps * size))
    return applied and to_variant <= NEAR and to_truth > 1 and to_variant <= to_truth / 2


def _off(out, wanted, bound):
    """The worst distance in bounds; what is not finite in both counts as equal, for an order of arithmetic decides what it is."""
    out, wanted = np.asarray(out, np.float64), np.asarray(wanted, np.float64)
    same = (out == wanted) | (~np.isfinite(out) & ~np.isfinite(wanted))
    units = np.where(same, 0.0, np.abs(out - wanted) / np.maximum(bound, 1e-300))
    return float(np.max(np.where(np.isnan(units), np.inf, units), initial=0.0))


def _tail(call, dtype):
    """Whether large arrays are right up to an element and wrong after it, flat or in each example."""
    options = {n: call.held.get(n, choices[0]) for n, choices in call.op.options.items()}
    for shape in ((4099,), (3, 1025), (2, 2053)):
        case = Case(dtype, shape, "normal", 0, options, {}, made(call, dtype, shape, "normal", 0, options))
        came = _answer(call, case, case.arguments)
        if isinstance(came, Exception):
            continue
        for out, rule in zip(came, registry.expected(call.op, case.arguments, dtype)):
            if np.shape(out) != rule.truth.shape or out.shape != shape:
                continue
            wrong = tolerance.in_units(out, rule) > 1
            for what, mask in (("elements", wrong.reshape(-1)), ("elements of each example", wrong.reshape(shape[0], -1).any(axis=0))):
                first = int(np.argmax(mask))
                if mask.any() and first >= mask.size / 2 and mask[first:].mean() > 0.5:
                    return f"tail elements not written: of {mask.size} {what} at shape {shape} those from {first} on are wrong, the rest are right"
    return ""


# --- what can be pasted ----------------------------------------------------------------------------------------------


def again(call, dtype, arguments, layouts=None):
    """What is wrong with one case, in words. call: `Caller`. dtype: name. arguments: from `made`. layouts: {name: of memory.LAYOUTS}. Returns text."""
    shape = next((x.shape for x in registry.arrays(arguments).values()), arguments.get("shape"))
    try:
        _hold(call, Case(dtype, shape, "", 0, {}, layouts or {}, arguments), _nothing_seen())
    except Failure as failure:
        return f"{failure.kind}: {failure.message}"
    return "right, this time"


def _code(call, failure):
    """A script that shows the failure."""
    case, op, function = failure.case, call.op, call.function
    module, own = getattr(function, "__module__", None), getattr(function, "__qualname__", repr(function))
    importable = module and module != "__main__" and "<" not in own and "." not in own
    truth = op.name.split(".")[1]
    name = "theirs" if not importable or own in (truth, "call", "arguments", "given") else own
    known = {"mapping": {v: k for k, v in call.names.items() if k != v}, "arrays": None if call.arrays == "numpy" else call.arrays,
             "device": call.device if call.device != "cpu" else None, "conventions": call.conventions, "fixed": call.fixed}  # fmt: skip
    lines = [f"call = caller({name}, {op.name!r}{''.join(f', {k}={v!r}' for k, v in known.items() if v)})"]
    if not _literal(case):
        lines.append(f"arguments = search.made(call, {case.dtype!r}, {case.shape}, {case.values!r}, {case.seed}, {case.options})")
    else:
        defaults = mistakes.defaults(op)
        lines += _dict("arguments", {n: _text(x, case) for n, x in case.arguments.items() if n in call.names or n not in defaults or x != defaults[n]})
    if not _literal(case) or failure.kind == "writes its inputs" and not failure.changed:
        lines.append(f"print(search.again(call, {case.dtype!r}, arguments{f', {case.layouts}' if case.layouts else ''}))")
    else:
        lines += _literally(call, failure, name, lines[1:])
    lines = lines if any("call" in re.split(r"\W", line.split("#")[0]) for line in lines[1:]) else lines[1:]
    body = "\n".join(lines)
    needs = ["import numpy as np", "from kernels.check import memory", "from kernels.check import search", "from kernels import registry", "from kernels.check.adapter import caller",
             "from ref import edm", "from ref import schedules", f"from ref.{op.name.split('.')[0]} import {truth}"]  # fmt: skip
    used = [line for line in needs if re.search(rf"(?<!\w){line.split()[-1]}[.(]", body)]
    theirs = f"from {module} import {own}{f' as {name}' if name != own else ''}" if importable else f"# {name}: the function that was checked, {own}"
    return "\n".join([*used, theirs, "", body])


def _literally(call, failure, name, ours):
    """What is called and printed, where all arguments are literal. name: of the function. ours: the lines of the dict of arguments."""
    case, numpy = failure.case, call.arrays == "numpy" and call.device == "cpu"
    extra, changed = {"dtype": case.dtype} if "dtype" in call.names else {}, failure.changed if failure.kind == "breaks a law" else {}
    texts, second = ({n: _their_text(call, x, case) for n, x in call.named(case.arguments | a | extra).items()} for a in ({}, changed))
    second = ", ".join(f"{n}={text}" for n, text in second.items() if text != texts[n])
    given = "arguments" if _dict("arguments", texts) == ours else "given"  # by its own names and conventions
    lines = _dict("given", texts) * (given == "given")
    lines += [f'{given}["{call.names[n]}"] = memory.put({given}["{call.names[n]}"], "{layout}")[1]' for n, layout in case.layouts.items()]
    if not numpy:
        lines.append(f"given = call.sent({given})")
        given, second = "given", f"call.sent(dict({second}))" * bool(second)
    elif second:
        second = f"dict({second})"

    def come(given):
        return f"{name}(**{given})" if numpy and not call.positional else f"call.give({given})"

    truth, flat, said = f"{call.op.name.split('.')[1]}(**arguments)", f"registry.outputs({come(given)})", "  # " + " ".join(failure.message.split())
    if failure.kind == "breaks a law":
        return [*lines, f"print({come(given)})", f"print({come(f'{given} | {second}' if second else given)}){said}"]
    if failure.kind == "writes its inputs":
        shown = [f"print({given}[{n!r}])" for n in failure.changed]
        return [*lines, *(f"{line}  # before" for line in shown), come(given), *(line + said for line in shown)]
    if failure.kind == "wrong shape":
        return [*lines, f"print([np.shape(r) for r in registry.outputs({truth})])  # the truth", f"print([np.shape(r) for r in {flat}]){said}"]
    if failure.kind == "wrong dtype":
        return [*lines, f"print([str(getattr(r, 'dtype', type(r))) for r in {flat}]){said}"]
    return [*lines, f"print({truth})  # the truth", f"print({come(given)}){said}"]


def _dict(name, texts):
    return [f"{name} = dict(", *(f"    {n}={text}," for n, text in texts.items()), ")"]


def _their_text(call, x, case):
    """A value that the function gets, as Python: of a long array, alpha-bar, what its conventions make of it."""
    text = _text(x, case)
    if isinstance(x, np.ndarray) and x.size > LITERAL:
        text += "[1:]" * ("zero_based" in call.conventions)
        return f"edm.sigma_from_abar({text})" if "sigmas" in call.conventions else text
    return text


def _text(x, case):
    """A value as Python."""
    if isinstance(x, list):
        return f"[{', '.join(_text(y, case) for y in x)}]"
    if not isinstance(x, np.ndarray):
        return repr(x)
    if x.size > LITERAL:
        return f"schedules.alpha_bar(schedules.{SCHEDULES[case.options.get('schedule', 'linear')]})"
    if x.dtype.kind not in "fV":
        return f"np.array({x.tolist()}, {x.dtype.name!r})"
    numbers = np.array2string(x.astype(np.float32) if x.dtype.kind == "V" else x, separator=", ", floatmode="unique", max_line_width=10**6)
    numbers = re.sub(r"\s+", " ", numbers)
    values = f"np.array({numbers.replace('nan', 'np.nan').replace('inf', 'np.inf')}, {'float32' if x.dtype.kind == 'V' else x.dtype.name!r})"
    values = values.replace(", float32)", ', "float32")')
    return (values if x.size else f"np.zeros({x.shape}, {x.dtype.name!r})") + (".astype(registry.like('bfloat16'))" if x.dtype.kind == "V" else "")


# --- how fast --------------------------------------------------------------------------------------------------------


def _speed(call, dtype, seconds):
    """Medians of theirs, ours and a copy of as many bytes, called in turn. Returns what the report says of them."""
    op, (backend, shape) = call.op, TIMED[call.device]
    rows, fixed = list(op.bench.values()) or [{}], call.held
    options = {n: fixed.get(n, rows[0].get(n, choices[0])) for n, choices in op.options.items()}
    arguments = timing.problem(op, options, shape, dtype=dtype)
    arguments |= {n: v for n, v in fixed.items() if n in arguments}
    moved = registry.bytes_moved(op, arguments, dtype)
    theirs = call.theirs(arguments | {"dtype": dtype})
    copied = timing.gpu_copy(moved) if call.device == "cuda" else timing.copy(moved)
    runs = {"theirs": lambda: call.wait(call.give(theirs)), "copy": lambda: call.wait(copied())}
    if backend in selftest.available()[0] and dtype in registry.dtypes(op, backend) and (function := registry.kernel(op, backend)):
        sent = registry.sent(arguments, registry.carriers(backend)[0])
        runs["ours"] = lambda: call.wait(registry.call(op, function, sent, dtype))
    took = timing.interleave(runs, seconds)
    found = {f"{name}_us": float(np.median(took[name])) / 1e3 for name in runs}
    found |= {f"{name}_copy": 100 * timing.times_faster(took[name], took["copy"]) for name in runs if name != "copy"}
    return found | {"shape": shape, "dtype": dtype, "backend": backend} | ({"ratio": timing.times_faster(took["ours"], took["theirs"])} if "ours" in runs else {})
