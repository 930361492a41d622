"""The rules of an operation that is known by its truth alone: a NumPy function.

The truth runs in float64, in the working dtype, and a few times with every input and every intermediate result moved by
`rounding.ULPS` units in the last place of the working dtype. An element may err by

    what the moves change in it + ULPS eps |truth|,    at most WIDER times as much where the working dtype needs it,

and by twice what the truth in the working dtype errs there. An integer must be equal where no move changes it. Not
judged is an element for which the truth has no answer: it is NaN though no input is, it overflows in the working dtype,
it is an integer that the moves change. A NaN among the inputs must reach what depends on it, and nothing else; where
the truth loses it without having asked for NaN, either will do.
"""
import warnings
from dataclasses import replace

import numpy as np

from kernels import registry, tolerance
from kernels.check.rounding import ULPS, Moved, Noise, bare, kept

RUNS = 4
MORE = 60  # runs before an element is called wrong, so that no boundary is missed by bad luck, with moves FARTHER
FARTHER = 4
JUMP = 64  # times what is allowed: a change that is no rounding, so a boundary lies near
FEW = 1 << 16  # elements of all arrays, above which fewer runs do
WIDER = 16
MANY = 64  # elements of which none is allowed much less than usual, by luck
LONG = np.finfo(np.longdouble).eps < 1e-18
NORMAL = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}  # the smallest


def rules(truth, arguments, dtype, careful=""):
    """The `tolerance.Rule` of each result of truth. truth: function. arguments: dict. dtype: name, in which the data
    are. careful: "" for a few runs, "sizes" for more, so that no size is small by luck, "boundaries" for many more with
    moves FARTHER. Raises what truth raises."""
    exact, data = registry.exact(arguments), _floats(arguments)
    few = sum(x.size for x in data.values()) <= FEW
    results = called(truth, exact)
    if dtype == "float64":  # more digits, where the machine has them, for the rounding of float64 itself
        rough, results = results, few and LONG and _or_none(truth, _long(exact)) or results
    else:
        rough = _or_none(truth, arguments) or results
    narrow = dtype in registry.HALVES or any(x.dtype == np.float32 for x in results)  # as the truth itself computes
    short = "float32" if narrow else dtype
    moved, seen = _runs(truth, exact, short, (RUNS if few else RUNS // 2) * (4 if careful else 1))
    far, _ = _runs(truth, exact, short, (MORE if few else MORE // 2) * (careful == "boundaries"), FARTHER)
    free = [np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool) for x in results]
    nan = [None] * len(results)
    if lost := {n: np.isnan(x) for n, x in data.items() if np.isnan(x).any()}:
        free, nan = _free_of_nan(truth, exact, lost, results, seen)
    noise = Noise(short, 0)
    few_digits = any(x.size and noise.short(x.astype(np.float64)).all() for x in data.values())
    loose, _ = _runs(truth, exact, short, len(moved) * few_digits, exact=False)
    all_runs = [[[run[i] for run in runs if len(run) == len(results) and run[i].shape == results[i].shape]
                 for runs in (moved, far, loose)] for i in range(len(results))]  # fmt: skip
    return [replace(_rule(*parts, dtype), nan=n) for *parts, n in zip(results, rough, all_runs, free, nan)]


def called(truth, arguments, casts=True):
    """The results of truth as a list of arrays. truth: function. arguments: dict, of which it gets copies. casts:
    whether it may make an int of NaN, which each machine does in its own way. Raises what truth raises."""
    copies = registry.mapped(lambda _, x: x.copy() if isinstance(x, np.ndarray) else x, arguments)
    noise = next((x.noise for x in copies.values() if isinstance(x, Moved)), None)
    with registry.quiet(), kept(noise):
        if not casts:
            np.seterr(invalid="warn")
            warnings.filterwarnings("error", "invalid value encountered in cast")
        return [np.asarray(bare(x)) for x in registry.outputs(truth(**copies))]


def sizes(truth, **arguments):
    """The sizes of what is rounded in each result of truth, as `scale` of a registered operation. truth: function.
    arguments: of it."""
    allowed = [rule.allowed / tolerance.EPS["float32"] for rule in rules(truth, arguments, "float32")]
    return [np.where(np.isfinite(x), x, 0.0) for x in allowed]


def work(truth, arguments):
    """How many operations of NumPy truth calls, and of how many elements in all. truth: function. arguments: dict.
    Raises what truth raises."""
    noise = Noise("float64", 0)
    given = lambda _, x: noise.array(x) if isinstance(x, np.ndarray) else x  # noqa: E731
    called(truth, registry.mapped(given, arguments))
    return noise.calls, noise.elements + 5 * sum(x.size for x in _floats(arguments).values())


def _or_none(truth, arguments):
    try:
        return called(truth, arguments)
    except Exception:  # a truth need not run in every dtype, nor a moved index be one
        return None


def _floats(arguments):
    return {n: x for n, x in arguments.items() if isinstance(x, np.ndarray) and x.dtype.kind in "fV"}


def _long(arguments):
    return arguments | {n: x.astype(np.longdouble) for n, x in _floats(arguments).items()}


def _runs(truth, arguments, dtype, runs, times=1, exact=True):
    """The results of each run with moved values, and the last run's `Noise`."""
    numbers = [x for x in arguments.values() if isinstance(x, (int, float))]
    plain = all(np.frexp(x)[0] in (0, 0.5, -0.5) for x in numbers)
    results, noise = [], None
    for seed in range(runs):
        noise = Noise(dtype, seed, plain, times, exact)

        def given(_, x):
            if isinstance(x, float):
                return float(bare(noise.given(np.asarray(x))))
            return noise.given(x) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x

        results.append(_or_none(truth, registry.mapped(given, arguments)) or [])
    return results, noise


def _free_of_nan(truth, arguments, lost, results, seen):
    """For each result the elements that a NaN among the inputs leaves open, and those that may be NaN: 0 NaN is NaN, or
    it is never computed, and either order is right. The place of NaN in an order is open, unless the code asked for
    NaN. lost: {name: where it holds NaN}. seen: a `Noise`."""
    either = []
    for seed in range(24 if seen.ordered else 3):  # numbers in place of NaN: what differs depends on them
        drawn = {n: (1, 1e4)[seed % 2] * np.random.default_rng(seed).standard_normal(x.shape) for n, x in lost.items()}
        either.append(_or_none(truth, arguments | {n: np.where(lost[n], drawn[n], arguments[n]) for n in lost}))
    if any(e is None for e in either) or any([x.shape for x in e] != [x.shape for x in results] for e in either):
        return [np.ones(x.shape, bool) for x in results], [None] * len(results)
    ordered = seen.ordered and not seen.asked
    same = [np.all([(x == y[0]) | ((x != x) & (y[0] != y[0])) for x in y], axis=0) for y in zip(*either)]
    free = [np.where(x != x, s | ordered, ~s & (ordered or not seen.asked)) for x, s in zip(results, same)]
    return free, [s & (x.dtype.kind == "f" and not seen.asked) for x, s in zip(results, same)]


def _rule(result, rough, moved, free, dtype):
    """The rule of one result. moved: the results of the runs: near, far, and those in which all rounds. free: mask of
    what is not judged."""
    near, far, loose = ([np.asarray(x, np.float64) for x in runs] for runs in moved)
    kind, truth, rough = rough.dtype.name, np.asarray(result, np.float64), np.asarray(rough, np.float64)
    rough = rough if rough.shape == truth.shape else truth
    if result.dtype.kind != "f":
        changed = np.any([x != truth for x in [*near, *far, rough]], axis=0)
        return tolerance.Rule(truth, np.where(free | changed, np.inf, 0.0), tolerance.WHOLE)
    fine = np.isfinite(truth)
    with np.errstate(all="ignore"):
        # what the moves change, and the rounding of the result
        eps = tolerance.EPS["float32" if dtype in registry.HALVES or result.dtype == np.float32 else dtype]
        size, jumps, more = (np.max([np.where(np.isfinite(x - truth), np.abs(x - truth), 0) for x in runs], axis=0,
                                    initial=0.0) for runs in (near, far, loose))  # fmt: skip
        # where all rounds, and it is no jump at a tie
        largest = np.max(np.abs(truth), where=fine, initial=0.0)
        size = np.maximum(size, np.where(more <= np.sqrt(eps) * largest, more, 0))
        some = fine & (truth != 0)
        usual = np.median((size / np.abs(truth))[some]) if np.sum(some) >= MANY else 0.0
        size = np.maximum(size, usual / 2 * np.abs(truth))
        size = np.where(fine, size + ULPS * eps * np.abs(truth), 0) * (2 if dtype == "float64" else 1)
        # the truth in the working dtype
        off = np.abs(rough - truth)
        worst = np.max(off / size, where=np.isfinite(off) & (off < WIDER * size) & fine, initial=0.5)
        allowed = 2 * worst * size + np.where(np.isfinite(off), 2 * off, 0)
        allowed = np.where(jumps > JUMP * allowed, jumps, allowed)
    allowed += 4 * NORMAL[dtype]
    if dtype in registry.HALVES:
        allowed += registry.HALF_ULPS * tolerance.EPS[dtype] * np.where(fine, np.abs(truth), 0)
    overflows = np.any([np.isinf(x) != np.isinf(truth) for x in [*near, rough]], axis=0)
    free = free | (fine & np.isnan(rough)) | overflows
    dtypes = (dtype, kind) if truth.ndim else (dtype, kind, *registry.FLOATS)
    return tolerance.Rule(tolerance.stored(truth, dtype), np.where(free, np.inf, allowed), dtypes)
