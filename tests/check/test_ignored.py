"""A function that does not look at an argument, or at a part of it, is wrong. Generated from the registry: for every
argument of every operation."""
import numpy as np
import pytest

from kernels import registry
from kernels.check import draw
from kernels.check.adapter import caller
from kernels.check.case import Failure
from kernels.check.judge import Seen, hold
from kernels.ops import inputs
from tests.check.wrong import wrong

CHECKED = [op for op in registry.OPS if not op.shapes]
WORDS = {"seed": (16, 32, 63), "stream": (16, 32, 63), "step": (16, 32), "t": (16,), "s": (16,), "u": (16,)}
SIGNED = ("w", "dloss", "dkl", "dnll")
ROUNDED = {"eta": lambda x: 0.0 if x < 0.01 else x, "clip": lambda x: None if x and x > 3 else x}


def example(op):
    return op.make(
        np.random.default_rng(0), (3, 4), op.dtypes[0], "normal", **{n: c[-1] for n, c in op.options.items()}
    )


def holding(name, value):
    """One value in place of the argument; where there is none, its first that is not None."""
    first = [] if value is None else [value]

    def how(f, **a):
        if a[name] is not None:
            first.extend([a[name]] * (not first))
        return f(**{name: first[0] if a[name] is not None and first else a[name]})

    return how


def variants(op):
    """(id, function of the truth and its arguments) of each wrong variant."""
    made = example(op)
    for name, parameter in op.takes.items():
        value, data = made.get(name, parameter.default), registry.arrays(made)
        if name in data:
            yield f"{name} ignored", lambda f, name=name, **a: f(**{name: np.zeros_like(a[name])})
        elif isinstance(value, list):
            yield f"{name}: the first two only", lambda f, name=name, **a: (
                f(**{name: a[name][:2]}) + a[name][2:] if len(a[name]) > 2 else f())
        else:
            default = None if parameter.default is parameter.empty else parameter.default
            yield f"{name} ignored", holding(name, default)
            if default is None:
                yield f"{name} of the first call", holding(name, None)
        if name in registry.PER_EXAMPLE:
            yield f"{name} of the first example", lambda f, name=name, **a: f(**{name: np.ravel(a[name])[:1].repeat(
                np.size(a[name])).reshape(np.shape(a[name]))})
        for bits in WORDS.get(name, ()) if op.name != "fused.guided_flow_step" else ():
            yield f"{name}: its low {bits} bits", lambda f, name=name, bits=bits, **a: (
                f() if a[name] is None else f(**{name: a[name] % 2**bits}))
        if name in inputs.ENDS or name in ROUNDED:
            end = inputs.ENDS.get(name, 0.5)
            moved = ROUNDED.get(name, lambda x, end=end: 0.5 if x == end else x)
            yield f"{name} at an end", lambda f, name=name, moved=moved, **a: f(**{name: moved(a[name])})
        if name in SIGNED:
            yield f"{name} without its sign", lambda f, name=name, **a: f(**{name: np.abs(a[name])})


def caught(function, op, examples=200):
    """The first Failure as the checker finds it, or None."""
    call = caller(function, op)
    try:
        for dtype in op.dtypes:
            for i, case in enumerate(draw.cases(call, dtype, examples, 0)):
                hold(call, case, Seen(), turn=i)
    except Failure as failure:
        return failure


VARIANTS = {f"{op.name}-{name}": (op, how) for op in CHECKED for name, how in variants(op)}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_function_that_ignores_an_argument_is_wrong(name):
    op, how = VARIANTS[name]
    assert caught(wrong(op.name, how), op), "it passed"


@pytest.mark.parametrize("op", CHECKED, ids=lambda op: op.name)
def test_a_function_that_ignores_nothing_passes(op):
    assert caught(wrong(op.name, lambda f, **_: f()), op, 60) is None
