"""A number of NumPy gives what Python's own gives, in value and in dtype: every function, every argument that is one
number, every type of NumPy's."""
import numpy as np
import pytest

from ref import tree
from tests.ref import EQUATIONS, worked

TYPES = [*map(np.dtype, "bhilBHILefdg"), np.dtype(bool)]
STATE = "layers", "nets", "optim", "fused.adam", "fused.mlp_train"  # whose arrays may be float32, and stay so
NAMES = [name.removeprefix("ref.") for name in EQUATIONS]


def numbers_of(arguments):
    """The arguments that are one number, and a few numbers to try in place of each."""
    for name, value in arguments.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, dict.fromkeys([value, 1, 0, 3, 100, 0.5])


def single(value):
    if isinstance(value, (dict, list)):
        return tree.map(single, value)
    return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def outcome(function, arguments):
    """What it returns, or the kind of its error; a warning is an error here."""
    try:
        return function(**arguments)
    except (ValueError, TypeError, ArithmeticError, LookupError, RuntimeWarning) as error:
        return type(error)


def same(a, b):
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (type, str)) or callable(a):
        return a is b or callable(a)
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def carried(value):
    """The value as each number of NumPy that can hold it, at least nearly, and as an array without axes."""
    for kind in TYPES:
        with np.errstate(all="ignore"):
            made = np.asarray(value).astype(kind)[()]
        if kind.kind == "f" and np.isfinite(made) or made == value:
            yield made
    yield np.array(value)


@pytest.mark.parametrize("name", NAMES)
def test_a_number_of_numpy_counts_as_pythons_own(name):
    function, arguments = worked(name)
    if name.startswith(STATE):
        arguments = {n: single(value) for n, value in arguments.items()}
    for argument, values in numbers_of(arguments):
        for value in values:
            for made in carried(value):
                plain = float(made) if isinstance(made, np.longdouble) else made.item()
                expected, got = (outcome(function, arguments | {argument: v}) for v in (plain, made))
                assert same(expected, got), f"{argument} = {made!r} ({made.dtype}): {got}, expected {expected}"
