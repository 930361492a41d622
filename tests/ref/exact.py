"""60-digit arithmetic: how an exact value is written, drawn for and compared with.

A case is {argument: strategy}, what is called with these arguments, and the same in mpmath. There an output is a number
or a list of the terms that are added to make it: the error is measured in ulps of the sum of their sizes, so that what
cancels in the arguments themselves is no fault, and what cancels inside the function is.
"""
import math
from dataclasses import dataclass
from types import FunctionType

import mpmath
import numpy as np
from hypothesis import strategies as st

mp = mpmath.MPContext()
mp.dps = 450  # 60 digits of what is left where numbers as small as 1e-200 are taken from 1
ULPS = 8


@dataclass(frozen=True)
class Case:
    """draws: {name: strategy}. exact: (**mp numbers) -> outputs. call: (function, **arguments) -> outputs; without it
    the function alone."""

    draws: dict
    exact: FunctionType
    call: FunctionType = lambda function, **arguments: function(**arguments)


def exactly(value):
    """A number, or a list or a dict of them, in mpmath; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return [exactly(v) for v in value]
    return mp.mpf(value) if isinstance(value, float) else value


def flat(value):
    """The numbers in what a function returned, in order."""
    if isinstance(value, (list, tuple)):
        return [x for part in value for x in flat(part)]
    return np.ravel(np.asarray(value, np.float64)).tolist()


def spacing(size):
    """An ulp of a positive number of mpmath."""
    if size == 0:
        return mp.mpf(0)
    _, exponent = mp.frexp(size)
    return mp.ldexp(mp.mpf(1), max(int(exponent) - 53, -1074))


def ulps(case, function, arguments):
    """The largest error of the outputs, in ulps of their terms."""
    with np.errstate(all="ignore"):
        got = flat(case.call(function, **arguments))
    outputs = case.exact(**{name: exactly(value) for name, value in arguments.items()})
    outputs = outputs if isinstance(outputs, list) else [outputs]
    assert len(got) == len(outputs), f"{len(got)} outputs, {len(outputs)} exact ones"
    return max((error(out, terms) for out, terms in zip(got, outputs)), default=0)


def error(out, terms):
    terms = [mp.mpf(x) for x in (terms if isinstance(terms, list) else [terms])]
    exact = mp.fsum(terms) if all(map(mp.isfinite, terms)) else sum(terms)
    if not mp.isfinite(exact) or abs(exact) >= mp.mpf(2) ** 1024:
        return 0 if out == (exact if mp.isinf(exact) else mp.sign(exact) * mp.inf) else math.inf
    if not math.isfinite(out):
        return math.inf
    off = abs(mp.mpf(out) - exact)
    return float(off / spacing(sum(map(abs, terms)))) if off else 0.0


def placed(data):
    """Numbers as arrays of one example and one element."""
    return {name: [[value]] for name, value in data.items()}


def rounded(x):
    """Terms that add nothing and have the size of x, of what is rounded on the way and unavoidably counts."""
    return [x / 2, -x / 2]


# --- what is drawn ----------------------------------------------------------------------------------------------------


def positive(low, high):
    """Numbers of every size from low to high."""
    return st.floats(math.log(low), math.log(high)).map(lambda u: min(max(math.exp(u), low), high))


def signed(low, high):
    return st.tuples(positive(low, high), st.sampled_from([1.0, -1.0])).map(math.prod)


DATA = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-3, 3).map(lambda x: x if abs(x) > 1e-100 else 0.0),
                 signed(1e-100, 1e100))
HUGE = st.one_of(st.sampled_from([0.0, 1.0]), signed(1e-250, 1e250))
NEAR_0, NEAR_1 = positive(1e-200, 0.5), positive(1e-16, 0.5).map(lambda u: 1 - u)
INSIDE = st.one_of(st.floats(1e-3, 0.999), NEAR_0, NEAR_1)  # (0, 1)
SIGMA = st.one_of(positive(1e-3, 1e3), positive(1e-150, 1e150))
UNIT = st.one_of(INSIDE, st.sampled_from([0.0, 1.0]))


def real_pairs():
    from ref import schedules
    made = [schedules.alpha_bar(betas()) for betas in (schedules.linear_betas, schedules.scaled_linear_betas,
                                                       schedules.cosine_betas)]
    return [(float(abar[t]), float(abar[s])) for abar in made for t, s in
            [(2, 1), (3, 2), (10, 9), (24, 18), (500, 499), (999, 998), (1000, 999), (1000, 1), (1, 0), (500, 0)]]


def ordered(a, b):
    return (a, b) if a <= b else (b, a)


# (abar_t, abar_s), abar_t <= abar_s: any two, near neighbours, and those of the schedules in use
PAIRS = st.one_of(
    st.tuples(INSIDE, INSIDE).map(lambda pair: ordered(*pair)),
    st.tuples(INSIDE, positive(1e-15, 0.5)).map(lambda pair: ordered(pair[0] * (1 - pair[1]), pair[0])),
    st.tuples(INSIDE, st.just(1.0)), st.sampled_from(real_pairs()),
).filter(lambda pair: 0 < pair[0] < pair[1])
TRIPLES = st.tuples(PAIRS, positive(1e-12, 0.9)).map(lambda drawn: (drawn[0][0] * (1 - drawn[1]), *drawn[0]))
