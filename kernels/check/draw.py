"""Which cases are drawn, and how one that fails is made smaller."""
import collections
import itertools
import math
import time
from dataclasses import replace

import numpy as np

from kernels import registry
from kernels.check import forms, memory
from kernels.check.case import FORM, LITERAL, SAME, Case, aliased, made, redrawn
from kernels.check.judge import UNSTEADY, failed
from kernels.check.values import fits

# torch has no negative strides; other libraries have memory of their own
LAYOUTS = {"numpy": memory.LAYOUTS, "torch": ("C", "Fortran", "transposed", "sliced")}
SMALL = sorted((shape for n in range(1, 5) for shape in itertools.product(range(1, 6), repeat=n)),
               key=lambda shape: (math.prod(shape), len(shape), shape))  # fmt: skip
SQUARE = ((2, 2), (3, 3), (7, 7), (5, 5), (3, 3, 3), (4, 4, 4, 4))  # in which one axis passes for another
USUAL = ((2, 784), (1, 3, 32, 32), (1, 4, 64, 64), (4096,), (3, 784), (2, 3, 32, 32), (4, 1024), (1, 784), (2, 3072),
         (1, 4096), (3072,), (1, 4, 32, 32), (784,), (64, 64), (3, 4, 32, 32))  # of digits, pictures and latents
LARGER = ((1023,), (1024,), (1025,), (3, 1025), (7, 293), (2, 3, 31, 31), (2053,))
EMPTY = ((0,), (0, 4), (3, 0), (2, 0, 3))
STEPS = tuple((3 * 2**n + 1,) for n in range(11, 19))  # shapes in which a failure of a large array is looked for
SMALLEST = [shape for shape in SMALL if math.prod(shape) <= LITERAL and len(shape) < 4 and max(shape) < 5]
TRIES = 240  # cases in which a failure is looked for again
SECONDS = 5.0  # after which no more are
SEEDS = 3  # in each shape


def cases(call, dtype, examples, seed):
    """The cases of one dtype: all options and kinds of values in turn, drawn shapes, layouts and numbers. call:
    `adapter.Caller`. dtype: name. examples: how many. seed: of all. Yields `Case`s."""
    rng, op = np.random.default_rng(seed), call.op
    values = op.values if dtype != "uint32" else ["normal"]
    small, larger, square, usual, empty = ([*sizes] for sizes in _sizes(op))
    for sizes in (small, larger):
        rng.shuffle(sizes)
    larger = _in_turn(larger)
    turns = [itertools.cycle(sizes or small) for sizes in (small, larger, square, usual, empty)]
    turns = [turns[i] for i in (0, 1, 0, 1, 2, 3, 4)]  # one kind of shapes after the other
    unusual = itertools.cycle(forms.of(call) or [None])
    every = list(itertools.product(options(call), values))
    orders = [itertools.chain.from_iterable(iter(lambda: rng.permutation(len(every)).tolist(), None)) for _ in range(2)]
    for i in range(examples):
        choice, kind = every[next(orders[i % len(turns) in (1, 3)])]  # small and larger shapes have each of them
        shape, data = next(turns[i % len(turns)]), int(rng.integers(2**32))
        if i % forms.EVERY == 1 and (form := next(unusual)):
            choice = choice | {FORM: form}
        try:
            yield placed(call, dtype, shape, kind, data, choice, rng)
        except ValueError:
            if not op.rules:
                raise  # else there is no such value, as an int below 0


def _in_turn(shapes):
    """The shapes so that each axis in turn is the longest."""
    of_axis = collections.defaultdict(list)
    for shape in shapes:
        of_axis[int(np.argmax(shape))].append(shape)
    return [shape for group in itertools.zip_longest(*of_axis.values()) for shape in group if shape]


def _sizes(op):
    """The small shapes of an operation, the larger ones, the square, the usual and the empty ones."""
    if not op.rules:
        usual = itertools.chain.from_iterable(itertools.zip_longest(USUAL, op.shapes))
        return SMALL, (*op.shapes, *LARGER), SQUARE, filter(None, usual), EMPTY if op.empty else ()
    small = [s for s in op.shapes if max(s, default=1) <= max(SMALL[-1]) and 0 not in s]
    square = [s for s in small if max(s, default=0) == min(s, default=0) > 1]
    larger = [s for s in op.shapes if s not in small and 0 not in s]
    return small, larger, square, larger, [s for s in op.shapes if 0 in s]


def options(call):
    """Every choice of the options that are not held, a list of dicts. call: `adapter.Caller`."""
    names, held = call.op.options, call.held
    choices = ([held[n]] if n in held else choices for n, choices in names.items())
    return [dict(zip(names, chosen)) for chosen in itertools.product(*choices)]


def placed(call, dtype, shape, values, seed, choice, rng=None):
    """One case. call, dtype: as in `cases`. shape, values, seed: of the data. choice: the options. rng: of the layouts,
    or None for contiguous arrays."""
    arguments = made(call, dtype, shape, values, seed, choice)
    kinds = LAYOUTS.get(call.arrays, ("C",)) if call.device == "cpu" else ("C",)
    names = [n for n in registry.arrays(arguments, call.op.settings) if n in arguments and rng]
    drawn = {n: kinds[rng.integers(len(kinds))] for n in names}
    layouts = {n: kind for n, kind in drawn.items() if kind != "C"}
    if call.op.rules and rng and len(names) > 1 and rng.integers(8) == 0:  # one array for two arguments
        one, other = (names[i] for i in sorted(rng.choice(len(names), 2, replace=False)))
        if call.op.arrays[one] == call.op.arrays[other]:
            layouts[other] = SAME + one
    return Case(dtype, shape, values, seed, choice, layouts, aliased(arguments, layouts))


def smallest(call, failure, strict=False):
    """The same kind of failure in the smallest and plainest case that is found. call: `adapter.Caller`. failure: a
    `case.Failure`. strict: as in `judge.hold`. Returns a Failure; its message says where it does not come every time.
    """
    again = range(2 if math.prod(failure.case.shape) <= STEPS[-1][0] else 0)  # for more elements it takes too long
    if again and not any(failed(call, failure.case, strict=strict) for _ in again):
        failure.message += UNSTEADY
        return failure
    tries, cause, end = itertools.count(), type(failure.__cause__), time.monotonic() + SECONDS
    for simpler in (_layouts, _shapes, _options, _shapes, _layouts, _numbers):
        again = True
        while again and next(tries) < TRIES and time.monotonic() < end:
            again = False
            for case in simpler(call, failure.case):
                found = failed(call, case, strict=strict)
                if found and found.kind == failure.kind and type(found.__cause__) is cause:
                    failure, again = found, simpler is not _shapes
                    break
                if next(tries) >= TRIES or time.monotonic() > end:
                    break
    return failure


def _layouts(call, case):
    """Fewer arrays that are not contiguous."""
    for names in ((), *((n,) for n in case.layouts)):
        if len(names) < len(case.layouts):
            yield replace(case, layouts={n: case.layouts[n] for n in names})


def _shapes(call, case):
    """Smaller shapes, with fresh numbers."""
    size = math.prod(case.shape)
    small, larger, *_ = _sizes(call.op)
    for shape in (*small, *larger) if call.op.rules else (*SMALLEST, *larger, *STEPS):
        if math.prod(shape) < size:
            for seed in (case.seed, *range(SEEDS - 1))[: 1 if shape in STEPS else SEEDS]:
                yield redrawn(call, case, shape=shape, seed=seed)


def _options(call, case):
    """Earlier choices of the options, and plainer values."""
    if FORM in case.options:
        yield redrawn(call, case, options={n: x for n, x in case.options.items() if n != FORM})
    for name, choices in call.op.options.items():
        if name in call.held:
            continue
        for value in choices[: choices.index(case.options[name])] if case.options[name] in choices else ():
            yield redrawn(call, case, options=case.options | {name: value})
    kinds = call.op.values
    for values in kinds[: kinds.index(case.values)] if case.values in kinds else ():
        yield redrawn(call, case, values=values)


def _numbers(call, case):
    """Plainer numbers, one argument at a time; of arrays that are printed."""
    a = case.arguments
    plain = {n: x for n, x in case.options.items() if isinstance(a.get(n), float)} | call.op.fixed
    for name, x in a.items():
        changes = [0] if name in ("seed", "stream") else [plain[name]] if name in plain else []
        if call.op.rules and isinstance(x, float):  # two digits, towards 0
            changes = [y for y in (float(f"{x:.1e}"), float(f"{x * 0.95:.1e}")) if abs(y) <= abs(x)][:1]
        if name in registry.arrays(a, call.op.settings) and case.literal:
            changes = [np.zeros_like(x), np.ones_like(x), *(np.round(np.float64(x), n).astype(x.dtype) for n in (0, 1))]
            changes = [y for y in changes if _plainness(y) < _plainness(x)]
            if call.op.rules:
                known = dict(zip(call.op.letters, case.shape)) | {n: y for n, y in a.items() if not np.ndim(y)}
                changes = [y for y in changes if fits(call.op.arrays[name], known, y)]
        for other in changes:
            if np.ndim(x) or x != other:
                yield replace(case, arguments=a | {name: other})


def _plainness(x):
    """How many digits and different numbers an array needs."""
    return len(np.unique(x)), sum(len(repr(y)) for y in np.ravel(x).tolist())
