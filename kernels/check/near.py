"""The inputs next to an input, an ulp away: what they change in the truth, and whether the error of a function changes
with them, as rounding does and a wrong formula does not."""
import numpy as np

from kernels import registry, tolerance
from kernels.check.grade import LESS

FAR = 64  # ulps of the inputs that pass for rounding, where LESS units of the allowed error do
FEW, SEVERAL = 4, 6  # neighbours
STEADY = 1 / 8  # of an error: what moves less from neighbour to neighbour is no rounding
MOST = 1 / 4  # of the elements that are far off: so many may be steady by luck


def neighbours(arguments, dtype, count, data=True):
    """The arguments with every float moved towards 0 by an ulp or not, at random; 0 stays, and so does 1 of abar.
    arguments: dict. dtype: name; whose ulp. count: how many. data: whether the data arrays are moved too. Yields dicts.
    """
    rng, arrays, eps = np.random.default_rng(0), registry.arrays(arguments), tolerance.EPS[dtype]

    def moved(path, x):
        if path in arrays and not data or isinstance(x, bool) or not (isinstance(x, (float, np.ndarray))):
            return x
        wide = np.asarray(x)
        if wide.dtype.kind not in "fV":  # V: bfloat16
            return x
        stay = path == "abar" and (wide == 1)
        other = wide.astype(np.float64) * np.where(stay, 1, 1 - eps * rng.integers(2, size=wide.shape))
        return other.astype(wide.dtype) if wide.ndim else float(other)

    for _ in range(count):
        yield {name: registry.mapped(moved, x, name) for name, x in arguments.items()}


def change(op, arguments, dtype, data=True):
    """The most that an ulp of the inputs changes in each output of the truth, a list of arrays. op: `registry.Op`.
    arguments, dtype, data: as in `neighbours`."""
    with np.errstate(all="ignore"):
        first = registry.outputs(op.truth(**registry.exact(arguments)))
        most = [np.zeros(np.shape(x)) for x in first]
        for other in neighbours(arguments, dtype, FEW, data):
            off = (np.abs(a - b) for a, b in zip(registry.outputs(op.truth(**registry.exact(other))), first))
            most = [np.fmax(m, np.where(np.isfinite(o), o, 0)) for m, o in zip(most, off)]
    return most


def widened(rules, most, by):
    """Rules that allow by times a change as well. rules: list of `tolerance.Rule`. most: from `change`."""
    return [tolerance.Rule(r.truth, r.allowed + by * m) for r, m in zip(rules, most)]


def rounds(op, call, arguments, dtype, far):
    """Whether the errors where a function is far off are rounding: the same call gives the same bits, and from neighbour
    to neighbour the error moves by a good part of itself.

    op: `registry.Op`. call: arguments -> outputs; may raise. arguments, dtype: as in `neighbours`. far: a mask for each
    output.
    """
    errors, again = [], call(arguments)
    if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(again, call(arguments))):
        return False
    for other in [arguments, *neighbours(arguments, dtype, SEVERAL)]:
        with np.errstate(all="ignore"):
            truth = registry.outputs(op.truth(**registry.exact(other)))
            off = [np.asarray(out, np.float64) - t for out, t in zip(call(other), truth)]
        errors.append(np.concatenate([np.asarray(x)[mask].ravel() for x, mask in zip(off, far)]))
    errors = np.array(errors)  # (SEVERAL + 1, how many are far off)
    if not np.all(np.isfinite(errors)):
        return False
    steady = np.ptp(errors, axis=0) < STEADY * np.max(np.abs(errors), axis=0)
    return bool(np.mean(steady) < MOST)


def less(dtype):
    """By how much a change in the truth widens what is allowed, so that FAR of it are LESS units. dtype: name."""
    return FAR / LESS.get(dtype, 1.0)
