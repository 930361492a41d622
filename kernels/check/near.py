"""The inputs next to an input, an ulp away: what they change in the truth, and whether the error of a function changes
with them, as rounding does and a wrong formula does not."""
import functools
import itertools
from dataclasses import replace

import numpy as np

from kernels import registry, tolerance
from kernels.check.grade import LESS, in_proportion, shrinks

FAR = 64  # ulps of the inputs that pass for rounding, where LESS units of the allowed error do
FEW, SEVERAL, MANY = 4, 6, 24  # neighbours
MUCH = 1 << 20  # elements, above which FEW / 2 do
ULPS = 16  # by less than so many they are moved
STEADY = 1 / 8  # of an error: what moves less from neighbour to neighbour is no rounding
LOST = 2.0**-10  # of a result: a larger error in float32 is one of lost digits
MOST = 1 / 4  # of the elements that are far off: so many may be steady by luck
OTHER = {"float64": "float32", "float32": "float64"}  # the precision in which rounding is compared
REFUSALS = ValueError, IndexError, TypeError, ArithmeticError
SETTINGS = (*registry.PER_EXAMPLE, "abar")
GONE = 100  # times less than it was: an error that another input does not show
SMALLER, BY = 10, 64  # halvings of the inputs, at which an error may be less by luck and with the result
LARGER = range(-8, -120, -16)  # and doublings, for inputs of which nothing is left
STRETCH = 0.1  # by so much are arrays stretched, so that other digits are rounded


def neighbours(arguments, dtype, count, data=True, settings=SETTINGS):
    """The arguments with every float moved towards 0 by a few ulps, at random; 0 stays, and so does 1 of abar, whose 0
    is moved so that its root has a few ulps of 1.
    arguments: dict. dtype: name; whose ulp. count: how many. data: whether the data arrays are moved too. settings: the
    arguments that are no data. Yields dicts.
    """
    rng, arrays, eps = np.random.default_rng(0), registry.arrays(arguments, settings), tolerance.EPS[dtype]

    def moved(path, x):
        if path in arrays and not data or _end(x) or not (isinstance(x, (float, np.ndarray))):
            return x
        wide = np.asarray(x)
        if wide.dtype.kind not in "fV":  # V: bfloat16
            return x
        stay = path == "abar" and (wide == 1)
        other = wide.astype(np.float64) * np.where(stay, 1, 1 - eps * rng.integers(ULPS, size=wide.shape))
        if path == "abar":
            other = np.where(wide == 0, (eps * rng.integers(ULPS, size=wide.shape)) ** 2, other)
            # a long schedule has entries that are few ulps apart: it still descends
            other = np.sort(other)[::-1]
        return other.astype(wide.dtype) if wide.ndim else float(other)

    for _ in range(count):
        yield {name: registry.mapped(moved, x, name) for name, x in arguments.items()}


def change(op, arguments, dtype, data=True):
    """The most that an ulp of the inputs changes in each output of the truth, a list of arrays; inf where it then has
    no value. op: `registry.Op`. arguments, dtype, data: as in `neighbours`."""
    with registry.quiet():
        first = _wide(registry.outputs(op.truth(**registry.exact(arguments))))
        most = [np.zeros(np.shape(x)) for x in first]
        for other in neighbours(arguments, dtype, FEW, data, op.settings):
            try:
                second = _wide(registry.outputs(op.truth(**registry.exact(other))))
            except REFUSALS:  # moved out of range
                continue
            off = [np.where(np.isfinite(a), np.abs(b - a), 0) * (2 / ULPS) for a, b in zip(first, second)]
            most = [np.fmax(m, np.where(np.isnan(o), np.inf, o)) for m, o in zip(most, off)]
    return most


def _wide(results):
    return [np.asarray(x, np.float64) for x in results]


def widened(rules, most, by):
    """Rules that allow by times a change as well. rules: list of `tolerance.Rule`. most: from `change`."""
    return [replace(r, allowed=r.allowed + by * m) for r, m in zip(rules, most)]


def _errors(op, call, far, arguments, dtype):
    """The errors of a function and the truth where far is true, or None. op, call, far, arguments, dtype: as in
    `rounds`."""
    outputs = call(arguments, dtype)
    if outputs is None or [np.shape(x) for x in outputs] != [mask.shape for mask in far]:
        return None
    with registry.quiet():
        try:
            truth = _wide(registry.outputs(op.truth(**registry.exact(arguments))))
        except REFUSALS:
            return None
        off = [np.asarray(out, np.float64) - t for out, t in zip(outputs, truth)]
    pairs = ([np.asarray(x)[mask].ravel() for x in both] for *both, mask in zip(off, truth, far))
    return np.concatenate(list(pairs), axis=1)


def steady(op, call, arguments, far):
    """Whether most errors of float64 where far is true stay what they are when the inputs are moved by a few ulps of
    float32, which draws rounding anew: they come of a term that is left out, or of a constant with few digits. op,
    call, arguments, far: as in `rounds`."""
    moved = neighbours(arguments, "float32", SEVERAL, settings=op.settings)
    found = [_errors(op, call, far, a, "float64") for a in (arguments, *moved)]
    if any(x is None for x in found) or not np.all(np.isfinite(found)):
        return False
    return bool(np.mean(_stays([x[0] for x in found])) > 1 / 2)


def _stays(found):
    """Which errors stay within a small part of themselves. found: those of a few runs."""
    return np.ptp(found, axis=0) < STEADY * np.max(np.abs(found), axis=0)


def rounds(op, call, arguments, dtype, far):
    """Whether the errors where a function is far off are rounding.

    Where it runs in float32 and in float64 they are if they shrink with the ulp. They are, too, if the same call gives
    the same bits and the error moves by a good part of itself from neighbour to neighbour.
    op: `registry.Op`. call: (arguments, dtype) -> outputs, or None where the function fails. arguments, dtype: as in
    `neighbours`. far: a mask for each output.
    """
    errors = functools.partial(_errors, op, call, far)
    if OTHER.get(dtype) in op.dtypes and _drowned(op, errors, arguments, dtype):
        return True
    count = SEVERAL if max(map(np.size, far), default=0) <= MUCH else FEW // 2
    if OTHER.get(dtype) in op.dtypes:
        names, stretched = ("float32", "float64"), itertools.islice(_stretched(op, arguments), count)
        both = [[errors(_cast(op, a, name), name) for name in names] for a in stretched]
        if all(x is not None for pair in both for x in pair):
            narrow, wide, shrink = _compared(both, dtype)
            here = errors(arguments, dtype)  # which must not vanish next to one value
            vanishes = here is None or GONE * max(narrow, wide) < _kept(here)
            if vanishes and op.rules:
                return False
            if not vanishes and shrink:
                return True
            if not vanishes and dtype == "float64" and shrinks(narrow, wide, True):  # coefficients are made in float64
                more = [errors(_cast(op, a, dtype), dtype) for a in itertools.islice(_stretched(op, arguments), MANY)]
                return all(x is not None for x in more) and _either_sign(more)
    moved = neighbours(arguments, dtype, count, settings=op.settings)
    found = [errors(a, dtype) for a in (arguments, arguments, *moved)]
    if any(x is None for x in found) or not np.array_equal(*found[:2]) or not np.all(np.isfinite(found)):
        return False
    # an error that is not there next to one value; an ulp of float32 is another schedule
    if dtype == "float64" and GONE * max(map(_kept, found[2:])) < _kept(found[0]):
        return False
    return bool(np.mean(_stays([x[0] for x in found])) < MOST)


def _compared(both, dtype):
    """The worst errors in float32 and in float64, and whether they are of rounding. both: pairs of `errors`."""
    narrow, wide = (max(float(np.max(np.abs(x[0]))) for x in found) for found in zip(*both))
    lost = any(np.any(np.abs(x[0]) > LOST * np.abs(x[1])) for x, _ in both)
    kept = max(_kept(x) for x, _ in both)
    return narrow, wide, shrinks(narrow, wide, lost) and (dtype == "float64" or in_proportion(kept, wide))


def _kept(found):
    """The worst of `errors`; one that is past the truth says no more than that no digit is left."""
    return float(np.max(np.minimum(*np.abs(found))))


def _either_sign(found):
    """Whether the errors of most elements are now above and now below 0, as those of a wrong formula are not. found:
    `errors` of a few runs."""
    off = np.array([x[0] for x in found])
    return bool(np.mean((off.min(axis=0) < 0) & (off.max(axis=0) > 0)) > 1 / 2)


def _drowned(op, errors, arguments, dtype):
    """Whether what is lost is no more than the same elements lose for smaller inputs, or for larger ones, by rounding:
    as 1 - 1 / (1 + e^x) does of e^x and e^x - 1 of x, of which nothing is left in the end. errors: of arguments in a
    dtype."""
    here, data = errors(arguments, dtype), _floats(arguments, op.settings)
    for power in (*range(1, SMALLER), *(LARGER if op.rules else ())):
        with registry.quiet():
            nearer = {n: x * 0.5**power if n in data else x for n, x in arguments.items()}
            both = [errors(_cast(op, nearer, name), name) for name in ("float32", "float64")]
        if here is None or not data or any(x is None for x in both):
            return False
        if not np.all(np.isfinite(both)):
            continue
        narrow, wide, shrink = _compared([both], "float32")
        digits = np.any(np.abs(both[1][0]) > FAR * tolerance.EPS["float64"] * np.abs(both[1][1]))
        if shrink and digits and np.max(np.abs(here[0])) <= BY * (narrow if dtype == "float32" else wide):
            return True
    return False


def _stretched(op, arguments):
    """The arguments in float64 with all numbers stretched a little, data element by element, so that other digits are
    rounded, and all: numbers of float32 may be added in float64 without rounding. Next to 1 what is missing is
    stretched. Yields dicts."""
    rng, data = np.random.default_rng(0), _floats(arguments, op.settings)

    def stretched(path, x):
        if path in data:
            return x.astype(np.float64) * (1 - STRETCH * rng.uniform(size=x.shape))
        if path == "abar":
            return x ** (1 + by)
        real = isinstance(x, float) or isinstance(x, np.ndarray) and x.dtype.kind == "f"
        if not real or _end(x):
            return x
        other = np.where((0.5 < np.asarray(x)) & (np.asarray(x) < 1), 1 - (1 - x) * (1 - by), x * (1 - by))
        return float(other) if isinstance(x, float) else other.astype(x.dtype)

    while True:
        by = STRETCH * rng.uniform()
        yield {name: registry.mapped(stretched, x, name) for name, x in arguments.items()}


def _end(x):
    """Whether x is a number at an end of its range, where a function may be wrong that is right next to it."""
    return isinstance(x, (bool, float)) and x in (0, 1)


def _floats(arguments, settings):
    return {n: x for n, x in registry.arrays(arguments, settings).items() if x.dtype.kind in "fV"}


def _cast(op, arguments, dtype):
    """The data arrays in another dtype. arguments: dict. dtype: name."""
    data = _floats(arguments, op.settings)
    return {n: registry.mapped(lambda path, x: x.astype(dtype) if path in data else x, a, n)
            for n, a in arguments.items()}  # fmt: skip


def less(dtype):
    """By how much a change in the truth widens what is allowed, so that FAR of it are LESS units. dtype: name."""
    return FAR / LESS.get(dtype, 1.0)
