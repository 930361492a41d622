"""The one tolerance rule. Tests, the checker and the benchmark all judge by it, and it judges itself.

    |out - truth|  <=  min( bound,  2 worst |plain - truth| + bound / 2 ),   bound = ulps eps(dtype) scale    elementwise

(and half the smallest number above 0, for a result that has no more digits than that; and twice the ulps in float64, where the truth is
rounded as often as the kernel).

`scale` is the sum of the sizes of the terms that were added to make the element, so cancellation is neither punished nor
a hiding place. `plain` is the same operation in plain NumPy in the same dtype: a kernel may not be much worse than what
it replaces (half the bound is the floor: on a few elements the plain version can be right by luck). NaN and inf must stand where the truth has them.
"""
from dataclasses import dataclass

import numpy as np

SMALLEST = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 2.0**-1074}  # above 0
LARGEST = {"float16": 65504.0, "bfloat16": (2 - 2.0**-7) * 2.0**127, "float32": (2 - 2.0**-23) * 2.0**127, "float64": np.finfo(np.float64).max}
FEW = 8  # elements
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}


class Mismatch(AssertionError):
    """An output outside the tolerance, or a comparison that could not have failed."""


@dataclass(frozen=True)
class Rule:
    """truth: float64. allowed: the largest error, elementwise, >= 0; 0 demands equality."""

    truth: np.ndarray
    allowed: np.ndarray


def rule(truth, scale, ulps, dtype, plain=None):
    """The rule for one output.

    truth: float64 array or float. scale: as truth, >= 0, see above. ulps: 0 for equality. dtype: name of the kernel's dtype.
    plain: the plain NumPy result in that dtype, or None where there is none.
    Returns a `Rule`. Raises ValueError where shapes differ or an element of finite truth has no finite scale.
    """
    truth, scale = np.asarray(truth, np.float64), np.asarray(scale, np.float64)
    if truth.shape != scale.shape:
        raise ValueError(f"truth and scale: expected equal shapes, got {truth.shape} and {scale.shape}")
    scale = np.where(np.isfinite(truth), scale, 0.0)
    if dtype in LARGEST:  # beyond it, half a step allowed for rounding, the dtype holds inf
        truth = np.where(np.abs(truth) > LARGEST[dtype] * (1 + EPS[dtype] / 4), np.copysign(np.inf, truth), truth)
        scale = np.where(np.isinf(truth), 0.0, scale)
    ulps *= 2 if dtype == "float64" else 1
    allowed = ulps * EPS[dtype] * scale + SMALLEST[dtype] / 2 if ulps else np.zeros_like(scale)
    if plain is not None and truth.size:
        with np.errstate(invalid="ignore"):
            off = np.abs(np.asarray(plain, np.float64) - truth)
        worst = np.max(off, where=np.isfinite(off), initial=0.0)
        allowed = np.minimum(allowed, 2 * worst + allowed / 2)
    if not np.all(np.isfinite(allowed)):
        raise ValueError("scale: expected a finite size wherever the truth is finite")
    return Rule(truth, allowed)


def whole(truth, plains, dtype, ulps=4):
    """The rule for the end of a loop, whose terms are too many to tell: no element may err more than twice as much as the worst of plain NumPy, or
    than so many steps of the largest element where plain is right by luck.

    truth: float64 array. plains: results of plain NumPy in dtype, in several orders of its sums. dtype: of NumPy. ulps: float, twice in float64.
    Returns a `Rule`.
    """
    truth = np.asarray(truth, np.float64)
    largest = np.max(np.abs(truth), initial=0.0)
    worst = max(np.max(np.abs(np.asarray(p, np.float64) - truth), initial=0.0) for p in plains)
    return Rule(truth, np.full(truth.shape, 2 * worst + ulps * (2 if dtype == np.float64 else 1) * float(np.spacing(np.dtype(dtype).type(largest)))))


def error(out, expected):
    """The worst error in units of the allowed error; inf where out breaks the rule outright (shape, NaN, inf, an exact value).

    out: array or float. expected: a `Rule`.
    Returns a float: up to 1 is right.
    """
    out = np.asarray(out)
    if out.shape != expected.truth.shape:
        return np.inf
    return float(np.max(in_units(out, expected), initial=0.0))


def assert_matches(out, expected, pick=0):
    """out keeps the rule; and the rule would have rejected zeros, the negated, doubled and rolled output and one moved element.

    out: array or float. expected: a `Rule`. pick: which finite element is moved by ten tolerances, any int >= 0.
    A wrong output that is equal to the truth (a truth of zeros, a single element rolled) is not asked for, and of an array of a
    few elements, any of which may be next to another or to 0 by chance, only the moved element.
    Raises Mismatch with the place of the worst element, or naming the wrong output that would have passed.
    """
    if not error(out, expected) <= 1:
        raise Mismatch(describe(np.asarray(out), expected))
    for name, wrong in _wrong(expected, pick):
        same = np.array_equal(wrong, expected.truth, equal_nan=True)
        if not same and error(wrong, expected) <= 1:
            raise Mismatch(f"the tolerance is vacuous: {name} would have passed (largest allowed error {expected.allowed.max():.3g})")


def _wrong(expected, pick):
    truth = expected.truth
    if truth.ndim == 0 or truth.size >= FEW:
        yield "zeros", np.where(np.isfinite(truth), 0.0, truth)
        yield "the negated output", -truth
        yield "twice the output", 2 * truth
        yield "the output rolled by one", np.roll(truth, 1)
    finite = np.flatnonzero(np.isfinite(truth))
    if finite.size:
        moved = np.array(truth)
        place = finite[pick % finite.size]
        step = max(10 * expected.allowed.flat[place], np.spacing(np.abs(truth.flat[place])))
        moved.flat[place] += step
        yield "one element moved by ten tolerances", moved


def in_units(out, expected):
    """The error of each element in units of the allowed one, 0 where nothing is allowed and nothing is wrong. out, expected: as in `error`, one shape.
    Returns an array of that shape."""
    out = np.asarray(out, np.float64)
    exact = (out == expected.truth) | (np.isnan(out) & np.isnan(expected.truth))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        units = np.where(exact, 0.0, np.abs(out - expected.truth) / expected.allowed)
    return np.where(np.isnan(units), np.inf, units)


def describe(out, expected):
    """The worst element in words. out, expected: as in `error`. Returns text."""
    truth = expected.truth
    if out.shape != truth.shape:
        return f"expected shape {truth.shape}, got {out.shape}"
    units = in_units(out, expected)
    place = np.unravel_index(np.argmax(units), truth.shape)
    return (
        f"worst at {tuple(map(int, place))}: expected {truth[place]!s}, got {out[place]!s}, "
        f"allowed error {expected.allowed[place]:.3g}, {units[place]:.3g} times that"
    )
