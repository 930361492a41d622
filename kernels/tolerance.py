"""The one tolerance rule. Tests, the checker and the benchmark judge by it, and it judges itself.

    |out - truth|  <=  min( bound,  2 worst |NumPy - truth| + bound / 2 ),   bound = ulps eps(dtype) scale  elementwise

`scale` is the sum of the sizes of the terms that are added to make the element, so cancellation is neither punished nor
a hiding place. NumPy is the same operation in tuned NumPy in the same dtype: a kernel may not be much less exact than
what it replaces; half the bound is the floor, since on a few elements NumPy can be right by luck. NaN and inf stand
where the truth has them. In float64, where the truth itself is rounded, ulps count twice. Half the smallest number
above 0 is always allowed. The terms of a whole loop are too many to say: there NumPy alone is the measure, see `whole`.
"""
from dataclasses import dataclass

import numpy as np

EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
SMALLEST = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 2.0**-1074}  # above 0
LARGEST = {d: (2 - eps) * 2.0**n for (d, eps), n in zip(EPS.items(), (15, 127, 127, 1023))}
WHOLE = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))  # dtypes of what is exact
FEW = 8  # elements, of which any may equal another by chance


class Mismatch(AssertionError):
    """An output outside the tolerance, or a comparison that could not have failed."""


@dataclass(frozen=True)
class Rule:
    """truth: float64. allowed: the largest error, elementwise, >= 0; 0 demands equality, inf takes anything. dtypes: of
    which the result may be, where the case does not say. nan: None, or where NaN will do as well."""

    truth: np.ndarray
    allowed: np.ndarray
    dtypes: tuple = ()
    nan: np.ndarray = None


def rule(truth, scale, ulps, dtype, plain=None):
    """The rule for one output.

    truth: float64 array or float. scale: as truth, >= 0. ulps: 0 for equality. dtype: name. plain: NumPy's result in
    that dtype, or None.
    Returns a `Rule`. Raises ValueError where shapes differ or an element of finite truth has no finite scale.
    """
    truth, scale = np.asarray(truth, np.float64), np.asarray(scale, np.float64)
    if truth.shape != scale.shape:
        raise ValueError(f"truth and scale: expected equal shapes, got {truth.shape} and {scale.shape}")
    truth = stored(truth, dtype)
    scale = np.where(np.isfinite(truth), scale, 0.0)
    allowed = ulps * _rounded_truth(dtype) * EPS[dtype] * scale + SMALLEST[dtype] / 2 if ulps else np.zeros_like(scale)
    if plain is not None and truth.size:
        allowed = np.minimum(allowed, 2 * _worst(plain, truth) + allowed / 2)
    if not np.all(np.isfinite(allowed)):
        raise ValueError("scale: expected a finite size wherever the truth is finite")
    return Rule(truth, allowed)


def stored(truth, dtype):
    """truth, with inf where the dtype holds inf: beyond its largest number, half a step allowed for rounding. truth:
    float64 array. dtype: name."""
    if dtype not in LARGEST:
        return truth
    return np.where(np.abs(truth) > LARGEST[dtype] * (1 + EPS[dtype] / 4), np.copysign(np.inf, truth), truth)


def whole(truth, plains, dtype, ulps=4):
    """The rule for what a loop returns: no element errs by more than twice NumPy's worst, plus ulps of the largest one.

    truth: float64 array or float. plains: NumPy's results in several orders of its sums. dtype: name, or of NumPy.
    ulps: float. Returns a `Rule`.
    """
    truth, dtype = np.asarray(truth, np.float64), np.dtype(dtype)
    largest = np.max(np.abs(truth), where=np.isfinite(truth), initial=0.0)
    floor = ulps * _rounded_truth(dtype.name) * float(np.spacing(dtype.type(largest)))
    return Rule(truth, np.full(truth.shape, 2 * max(_worst(p, truth) for p in plains) + floor))


def _worst(plain, truth):
    """The largest error of finite elements."""
    with np.errstate(invalid="ignore"):
        off = np.abs(np.asarray(plain, np.float64) - truth)
    return np.max(off, where=np.isfinite(off), initial=0.0)


def _rounded_truth(dtype):
    """How many results are rounded: in float64 the truth is, too."""
    return 2 if dtype == "float64" else 1


def error(out, expected):
    """The worst error in units of the allowed one: up to 1 is right, inf where none is allowed or the shape differs.
    out: array or float. expected: a `Rule`."""
    out = np.asarray(out)
    if out.shape != expected.truth.shape:
        return np.inf
    return float(np.max(in_units(out, expected), initial=0.0))


def in_units(out, expected):
    """`error` of each element. out, expected: as there, of one shape. Returns an array of that shape."""
    out = np.asarray(out, np.float64)
    missing = np.isnan(expected.truth) if expected.nan is None else np.isnan(expected.truth) | expected.nan
    same = (out == expected.truth) | (np.isnan(out) & missing) | np.isposinf(expected.allowed)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        units = np.where(same, 0.0, np.abs(out - expected.truth) / expected.allowed)
    return np.where(np.isnan(units), np.inf, units)


def assert_matches(out, expected, pick=0):
    """out keeps the rule, and the rule would have rejected zeros, the negated, doubled and rolled output and one moved
    element.

    out, expected: as in `error`. pick: which finite element is moved by ten tolerances, any int >= 0.
    A wrong output that equals the truth does not count; of fewer than FEW elements, one is only moved.
    Raises Mismatch with the place of the worst element, or with the wrong output that would have passed.
    """
    if not error(out, expected) <= 1:
        raise Mismatch(describe(np.asarray(out), expected))
    for name, wrong in _wrong(expected, pick):
        same = np.array_equal(wrong, expected.truth, equal_nan=True)
        if not same and error(wrong, expected) <= 1:
            raise Mismatch(f"vacuous: {name} would have passed (largest allowed error {expected.allowed.max():.3g})")


def _wrong(expected, pick):
    truth = expected.truth
    if truth.ndim == 0 or truth.size >= FEW:
        yield "zeros", np.where(np.isfinite(truth), 0.0, truth)
        yield "the negated output", -truth
        yield "twice the output", 2 * truth
        yield "the output rolled by one", np.roll(truth, 1)
    finite = np.flatnonzero(np.isfinite(truth))
    if finite.size:
        moved, place = np.array(truth), finite[pick % finite.size]
        moved.flat[place] += max(10 * expected.allowed.flat[place], np.spacing(np.abs(truth.flat[place])))
        yield "one element moved by ten tolerances", moved


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
