"""Is anybody's kernel right? A function is compared with the truth of an operation, by the rule of `kernels.tolerance`
and the laws of `kernels.check.laws`.

    from kernels.check import check, assert_right
    assert_right(my_step, "ddim_step")          # in a test: passes, or fails with the report
    print(check(my_step, "ddim_step"))          # the report

hypothesis draws shapes, memory layouts, options, times, values and seeds, and shrinks a failure to the smallest input.
"""
import itertools
import math
import shutil
import textwrap
from dataclasses import dataclass, field, replace

import hypothesis
import numpy as np
from hypothesis import strategies as st

from kernels import registry, timing
from kernels.check import memory, script, selftest
from kernels.check.adapter import Usage, caller
from kernels.check.case import LITERAL, Case, Failure, Seen, called, failed, hold, made, redrawn
from kernels.check.cause import guess

# torch has no negative strides; other libraries have memory of their own
LAYOUTS = {"numpy": memory.LAYOUTS, "torch": ("C", "Fortran", "transposed", "sliced")}
SMALL = sorted((shape for n in range(1, 5) for shape in itertools.product(range(1, 6), repeat=n)),
               key=lambda shape: (math.prod(shape), len(shape), shape))  # fmt: skip
SHAPES = st.one_of(  # each is one choice of hypothesis, so that it shrinks to the first
    st.sampled_from(SMALL),
    st.sampled_from([(1023,), (1024,), (1025,), (3, 1025), (7, 293), (2, 3, 31, 31), (2053,)]),
    st.sampled_from([(0,), (0, 4), (3, 0), (2, 0, 3)]),
)
TIMED = {"cpu": ("numba_cpu", (256, 3, 32, 32)), "cuda": ("triton_gpu", (64, 3, 256, 256))}  # our backend, the shape
TIMES = {  # of a report, by the number that it needs
    "theirs_us": ("yours", "{shape} {dtype}: {theirs_us:.1f} us, {theirs_copy:.0f} % of the copy limit"),
    "ours_us": ("{backend}", "{ours_us:.1f} us, {ours_copy:.0f} % of it; yours takes {ratio:.2f} times as long"),
}


@dataclass(frozen=True)
class Verdict:
    """The result of a check. It is true where the function is right, and its text is the report.

    error: the worst, in units of the allowed error. untested: what is held at one value. kind: "" or of `case.KINDS`.
    smallest: the smallest failing input. cause: a guess, or "". code: can be pasted and run.
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
    smallest: str = ""
    cause: str = ""
    code: str = ""
    speed: dict = field(default_factory=dict)

    def __bool__(self):
        return not self.kind

    def __str__(self):
        if self:
            headline = f"RIGHT: {self.function} computes {self.op}."
            parts = [("tested", f"{self.examples} examples of {', '.join(self.dtypes)} (seed {self.seed})"),
                     ("error", f"{self.error:.2f} of the allowed error at worst")]  # fmt: skip
            parts += [("law holds", law) for law in self.laws] + [("note", f"takes {note}") for note in self.notes]
        else:
            headline = f"{self.kind.upper()}: {self.function} does not compute {self.op}."
            parts = [("failure", part) for part in self.message.split("; ")] + [("smallest input", self.smallest)]
            parts += [("likely cause", self.cause)] * bool(self.cause)
        parts += [("not tested", ", ".join(self.untested))] * bool(self.untested)
        parts += [[x.format(**self.speed) for x in part] for name, part in TIMES.items() if name in self.speed]
        return _report(headline, parts) + (f"\n\nThis code shows it:\n\n{self.code}" if self.code else "")

    __repr__ = __str__


def _report(headline, parts):
    """A headline and lines of a name and a text, wrapped to the terminal. A name that repeats is printed once."""
    wrap = textwrap.TextWrapper(shutil.get_terminal_size().columns - 1, break_long_words=False, break_on_hyphens=False)
    lines, last = [wrap.fill(headline)], ""
    wrap.subsequent_indent = " " * 18
    for name, text in parts:
        wrap.initial_indent = f"  {'' if name == last else name:<16}"
        lines.append(wrap.fill(text))
        last = name
    return "\n".join(lines)


def assert_right(function, op, **options):
    """One line in a test: raises AssertionError with the report unless function is right. function, op, options: as for
    `check`."""
    verdict = check(function, op, **options)
    if not verdict:
        raise AssertionError(str(verdict))


def check(function, op, dtype=None, arrays=None, device="cpu", examples=200, seed=0, mapping=None, conventions=(),
          seconds=0.0, fixed=None):  # fmt: skip
    """Compare a function with the truth of an operation.

    function: takes the operation's arguments by name and returns what the truth returns, in the dtype of its data. op:
    name, such as "ddim_step" or "diffusion.ddim_step". dtype: name, or None: on a CPU all of the operation, on a GPU
    float32. arrays, device, mapping, conventions, fixed: as in `adapter.caller`. examples: for each dtype. seed: of the
    cases. seconds: of timing a right function; 0 for none.
    Returns a `Verdict`. Raises `adapter.Usage` (a ValueError) for an unknown operation or dtype, or a function that
    cannot be called as one.
    """
    call = caller(function, op, mapping, arrays, device, conventions, fixed)
    dtypes = _dtypes(call, dtype)
    for option, value, least in (("--examples", examples, 1), ("--seconds", seconds, 0)):
        if not value >= least:
            raise Usage(f"{option}: expected at least {least}, got {value}")
    own = getattr(function, "__qualname__", repr(function))
    verdict = Verdict(call.op.name, own, dtypes, seed, 0, 0.0, untested=call.untested)
    seen = Seen()
    for name in dtypes:
        failure = _smallest(lambda draw: hold(call, _draw(draw, call, name), seen), examples, seed)
        verdict = replace(verdict, examples=seen.examples, error=seen.error)
        if failure and failure.kind == "wrong number of results":  # perhaps it writes its result over an input
            alone = lambda draw: called(call, case := _draw(draw, call, name), case.arguments)  # noqa: E731
            found = _smallest(alone, examples, seed)
            failure = found if found and found.kind == "writes its inputs" else failure
        if failure:
            return _wrong(call, verdict, _simpler(call, failure))
    verdict = replace(verdict, laws=tuple(seen.laws), notes=tuple(seen.notes)[:1])
    return replace(verdict, speed=_speed(call, dtypes[0], seconds)) if seconds else verdict


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


def _wrong(call, verdict, failure):
    case, error = failure.case, failure.units if failure.kind == "wrong values" else math.inf
    drawn = case.options | case.layouts | ({} if case.literal else {"values": case.values})
    smallest = ", ".join([f"{case.dtype}, shape {case.shape}", *(f"{n}={x}" for n, x in drawn.items())])
    return replace(verdict, error=error, kind=failure.kind, message=failure.message, smallest=smallest,
                   cause=guess(call, failure), code=script.code(call, failure))  # fmt: skip


# --- drawing and shrinking -------------------------------------------------------------------------------------------


def _draw(draw, call, dtype):
    op, fixed = call.op, call.held
    shape = draw(SHAPES.filter(lambda s: op.empty or 0 not in s))
    choices = ([fixed[n]] if n in fixed else choices for n, choices in op.options.items())
    options = draw(st.sampled_from([dict(zip(op.options, chosen)) for chosen in itertools.product(*choices)]))
    values, seed = draw(st.sampled_from(registry.VALUES)), draw(st.integers(0, 2**32 - 1))
    arguments = made(call, dtype, shape, values, seed, options)
    kinds = LAYOUTS.get(call.arrays, ("C",)) if call.device == "cpu" else ("C",)
    layouts = {n: draw(st.sampled_from(kinds)) for n in registry.arrays(arguments) if n in arguments}
    return Case(dtype, shape, values, seed, options, {n: kind for n, kind in layouts.items() if kind != "C"}, arguments)


def _smallest(attempt, examples, seed):
    """The Failure of the smallest case that hypothesis finds, or None. attempt: function of draw that raises it."""
    found = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples, database=None, deadline=None, derandomize=False, print_blob=False,
        report_multiple_bugs=False, suppress_health_check=list(hypothesis.HealthCheck),
        verbosity=hypothesis.Verbosity.quiet, phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )  # fmt: skip
    @hypothesis.given(st.data())
    def run(data):
        try:
            attempt(data.draw)
        except Failure as failure:
            found.append(failure)
            raise

    try:
        run()
    except Failure as failure:
        return failure
    except hypothesis.errors.Flaky:
        found[-1].message += "; not every time: the same arguments give different results"
        return found[-1]


def _simpler(call, failure):
    """The same kind of failure in a small shape and with plainer numbers, where there is one."""
    def simpler(cases):
        found = (failed(call, case) for case in cases)
        return next((f for f in found if f and f.kind == failure.kind and type(f.__cause__) is cause), failure)

    cause, case = type(failure.__cause__), failure.case
    # a small shape, where hypothesis, one choice at a time, found none
    if not case.literal:
        small = (shape for shape in SMALL if math.prod(shape) <= LITERAL)
        failure = simpler(redrawn(call, case, shape=shape) for shape in small)
    if not failure.case.literal:  # it is regenerated from its seed
        return failure
    # plainer numbers, one argument at a time
    rounded = [lambda x, n=n: np.round(np.float64(x), n).astype(x.dtype) for n in (0, 1)]
    for name in failure.case.arguments:
        case, a = failure.case, failure.case.arguments
        data = [np.zeros_like, np.ones_like, *rounded] if name in registry.arrays(a) else []
        changes = [0] if name in ("seed", "stream") else [change(a[name]) for change in data]
        failure = simpler(replace(case, arguments=a | {name: x}) for x in changes)
    return failure


# --- how fast --------------------------------------------------------------------------------------------------------


def _speed(call, dtype, seconds):
    """Medians of theirs, ours and a copy of as many bytes, called in turn. Returns the numbers by name."""
    op, fixed, (backend, shape) = call.op, call.held, TIMED[call.device]
    row = next(iter(op.bench.values()), {})
    options = {n: fixed.get(n, row.get(n, choices[0])) for n, choices in op.options.items()}
    arguments = timing.problem(op, options, shape, dtype=dtype)
    arguments |= {n: v for n, v in fixed.items() if n in arguments}
    theirs = call.theirs(arguments | {"dtype": dtype})
    copied = (timing.gpu_copy if call.device == "cuda" else timing.copy)(registry.bytes_moved(op, arguments, dtype))
    runs = {"theirs": lambda: call.wait(call.give(theirs)), "copy": lambda: call.wait(copied())}
    here = backend in selftest.available()[0] and dtype in registry.dtypes(op, backend)
    if here and (function := registry.kernel(op, backend)):
        sent = registry.sent(arguments, registry.carriers(backend)[0])
        runs["ours"] = lambda: call.wait(registry.call(op, function, sent, dtype))
    took = timing.interleave(runs, seconds)
    found = {f"{name}_us": float(np.median(t)) / 1e3 for name, t in took.items()}
    found |= {f"{name}_copy": 100 * timing.times_faster(t, took["copy"]) for name, t in took.items() if name != "copy"}
    found |= {"ratio": timing.times_faster(took["ours"], took["theirs"])} if "ours" in took else {}
    return found | {"shape": shape, "dtype": dtype, "backend": backend}
