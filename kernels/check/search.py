"""Is anybody's kernel right? A function is compared with the truth of an operation, by the rule of `kernels.tolerance`,
the grades of `kernels.check.grade` and the laws of `kernels.check.laws`.

    from kernels.check import check, assert_right
    assert_right(my_step, "ddim_step")          # in a test: passes, or fails with the report
    print(check(my_step, "ddim_step"))          # the report
    print(check(my_softmax, truth=softmax, arguments={"x": "(B, N) float"}))    # any function, see `general`

Shapes, memory layouts, options, times, values and seeds are drawn; a failure is shrunk to a small input.
"""
import math
import time
from dataclasses import replace

import numpy as np

from kernels import registry, timing
from kernels.check import draw, interpreter, large, script, selftest
from kernels.check.adapter import Usage, caller
from kernels.check.case import FAILURES, Case, Failure, called
from kernels.check.cause import guess, mend
from kernels.check.general import record
from kernels.check.judge import Seen, hold
from kernels.check.verdict import Verdict

TIMED = {"cpu": ("numba_cpu", (256, 3, 32, 32)), "cuda": ("triton_gpu", (64, 3, 256, 256))}  # our backend, the shape
PATIENCE = 30.0  # seconds of one dtype after which no more cases are drawn


def assert_right(function, op=None, **options):
    """One line in a test: raises AssertionError with the report unless function is right. function, op, options: as for
    `check`."""
    __tracebackhide__ = True  # pytest shows the line of the test
    verdict = check(function, op, **options)
    if not verdict:
        raise AssertionError(str(verdict))


def check(function, op=None, dtype=None, arrays=None, device="cpu", examples=None, seed=0, mapping=None, conventions=(),
          seconds=0.0, fixed=None, strict=False, inplace=(), huge=False, **truth):  # fmt: skip
    """Compare a function with the truth of an operation.

    function: takes the operation's arguments by name and returns what the truth returns, in the dtype of its data. op:
    name, such as "ddim_step" or "diffusion.ddim_step". dtype: name, or None: on a CPU all of the operation, on a GPU
    float32. arrays, device, mapping, conventions, fixed, inplace: as in `adapter.caller`. examples: for each dtype,
    None for as many as suffice. seed: of the cases. seconds: of timing a right function; 0 for none. strict: a function
    that is less accurate, or keeps a law by rounding only, does not pass. huge: also arrays past 2^31 elements. truth:
    in place of op, `truth=` a NumPy function that says what is right, and `arguments=`, as in `general.record`.
    Returns a `Verdict`. Raises `adapter.Usage` (a ValueError) for an unknown operation or dtype, or a function that
    cannot be called as one.
    """
    if (op is None) == ("truth" not in truth):
        raise Usage("op or truth: expected the name of an operation or a NumPy function, one of the two")
    call = caller(function, record(**truth) if truth else op, mapping, arrays, device, conventions, fixed, inplace)
    dtypes, examples = _dtypes(call, dtype), call.op.cases if examples is None else examples
    for option, value, least in (("--examples", examples, 1), ("--seconds", seconds, 0)):
        if not value >= least:
            raise Usage(f"{option}: expected at least {least}, got {value}")
    own, seen, launched = script.name_of(function), Seen(), []
    with interpreter.pointers(launched):
        # every dtype before a word is said: the one that fails the most is shown
        failures = {
            name: f for name in dtypes if (f := _first(call, name, examples, seed, seen, strict, launched, huge))
        }
        verdict = Verdict(
            call.op.name, own, dtypes, seed, seen.examples, max(seen.error.values(), default=0.0), strict,
            laws=tuple(n for n in seen.laws if n not in seen.broken), untested=(*call.untested, *seen.untested),
        )  # fmt: skip
        timed = seconds and not (failures or launched or call.op.rules)
        speed = _speed(call, dtypes[0], seconds, seen, failures) if timed else {}
        if failures:
            worst = max(failures.values(), key=lambda f: (f.kind in ("wrong values", "NaN"), f.units))
            return _wrong(call, verdict, draw.smallest(call, worst, strict), failures)
        notes = [f"breaks a law, by rounding: {name}; {how}" for name, how in seen.broken.items()]
        finite = [x.units for x in seen.less.values() if math.isfinite(x.units)]
        return replace(
            verdict, notes=(*list(seen.notes)[:1], *notes), speed=speed,
            less=tuple(_line(call.op, x) for x in seen.less.values()),
            error=max([verdict.error, *finite]), mend=mend(call, list(seen.less.values())),
        )  # fmt: skip


def _dtypes(call, dtype):
    op = call.op
    possible = op.dtypes + (registry.HALVES if op.half else ())
    if dtype not in (None, *possible):
        raise Usage(f"--dtype: {op.name} has {', '.join(possible)}, got {dtype}")
    dtypes = (dtype,) if dtype else op.dtypes if call.device == "cpu" else op.dtypes[:1]
    try:
        for name in dtypes:
            registry.like(name)
    except ImportError as reason:
        raise Usage(f"--dtype {dtype}: {reason}") from None
    return dtypes


def _first(call, dtype, examples, seed, seen, strict, launched, huge):
    """The first Failure in one dtype, or None: drawn cases, then large ones. call, dtype, examples, seed, seen, strict,
    huge: as in `check`. launched: kernels that were launched in Triton's interpreter."""
    end = time.monotonic() + PATIENCE
    try:
        for i, case in enumerate(draw.cases(call, dtype, examples, seed)):
            if i and time.monotonic() > end or launched and i >= interpreter.EXAMPLES:
                seen.untested[f"more than {i} cases of {dtype}, for it is slow"] = None
                break
            if launched and math.prod(case.shape) > interpreter.ELEMENTS:
                continue
            hold(call, case, seen, strict, turn=i)
        if launched or time.monotonic() > end:
            seen.untested["arrays of more than a few thousand elements, and its speed, for it is slow"] = None
        elif dtype != "uint32" or not call.op.data:
            large.hold(call, dtype, seen, huge)
    except Failure as failure:
        if failure.kind == "wrong number of results":  # perhaps it writes its result over an input
            return _writes(call, dtype, examples, seed) or failure
        return failure


def _writes(call, dtype, examples, seed):
    """The Failure of the first case in which an input is written, or None."""
    for case in draw.cases(call, dtype, examples, seed):
        try:
            called(call, case, case.arguments)
        except FAILURES["writes its inputs"] as failure:
            return failure
        except Failure:
            continue


def _wrong(call, verdict, failure, failures):
    case, error = failure.case, failure.units if failure.kind == "wrong values" else math.inf
    others = [f"{dtype}: {f.kind}" + f", {f.units:.3g} times the allowed error" * math.isfinite(f.units)
              for dtype, f in failures.items()
              if dtype != case.dtype and f.kind in ("wrong values", "NaN")]  # fmt: skip
    message = "; ".join([failure.message, *(f"also in {other}" for other in others)])
    return replace(verdict, error=error, kind=failure.kind, message=message, smallest=_settings(call.op, case),
                   cause=guess(call, failure), code=script.code(call, failure))  # fmt: skip


def _settings(op, case):
    """What a case was drawn with, as text."""
    now = {n: case.arguments[n] for n in case.options if type(case.arguments.get(n)) in (int, float)}  # drawn anew
    drawn = case.options | {n: f"{x:.4g}" if type(x) is float else x for n, x in now.items()} | case.layouts
    drawn |= {} if case.literal else {"values": case.values}
    shape = ", ".join(f"{n} = {size}" for n, size in zip(op.letters, case.shape)) if op.rules else f"shape {case.shape}"
    return ", ".join([case.dtype, *[shape] * bool(shape), *(f"{n}={x}" for n, x in drawn.items())])


def _line(op, less):
    """A way in which a function is less accurate, as text. less: a `judge.Less`."""
    a = less.case.arguments
    times = () if op.rules else ("u", "t", "s")
    where = [_settings(op, less.case), *(f"{n}={a[n]}" for n in times if isinstance(a.get(n), (int, float)))]
    numpy = f", {less.units / less.plain:.3g} times that of tuned NumPy" if less.plain > 0 else ""
    what = less.reason or f"{less.units:.3g} times the allowed error{numpy}"
    return f"{what}: {', '.join(where)}; {less.message}"


# --- how fast --------------------------------------------------------------------------------------------------------


def _speed(call, dtype, seconds, seen, failures):
    """Medians of theirs, ours and a copy of as many bytes, called in turn; of arrays that are held to the truth first.
    failures: {dtype: Failure}, which gets theirs. Returns the numbers by name."""
    op, fixed, (backend, shape) = call.op, call.held, TIMED[call.device]
    row = next(iter(op.bench.values()), {})
    options = {n: fixed.get(n, row.get(n, choices[0])) for n, choices in op.options.items()}
    arguments = timing.problem(op, options, shape, dtype=dtype)
    arguments |= {n: v for n, v in fixed.items() if n in arguments}
    try:
        large.whole(call, Case(dtype, shape, "normal", 0, options, {}, arguments), seen)
    except Failure as failure:
        failures[dtype] = failure
        return {}
    theirs = call.theirs(arguments | {"dtype": dtype})
    copied = (timing.gpu_copy if call.device == "cuda" else timing.copy)(registry.bytes_moved(op, arguments, dtype))
    runs = {"theirs": lambda: call.wait(call.give(theirs)), "copy": lambda: call.wait(copied())}
    here = backend in selftest.available()[0] and dtype in registry.dtypes(op, backend)
    if here and (function := registry.kernel(op, backend)):
        sent = registry.sent(arguments, registry.carriers(backend)[0], op)
        runs["ours"] = lambda: call.wait(registry.call(op, function, sent, dtype))
    took = timing.interleave(runs, seconds)
    found = {f"{name}_us": float(np.median(t)) / 1e3 for name, t in took.items()}
    found |= {f"{name}_copy": 100 * timing.times_faster(t, took["copy"]) for name, t in took.items() if name != "copy"}
    found |= {"ratio": timing.times_faster(took["ours"], took["theirs"])} if "ours" in took else {}
    return found | {"shape": shape, "dtype": dtype, "backend": backend}
