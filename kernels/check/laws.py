"""Laws that our kernels keep to the bit: two calls that must agree, in addition to being near the truth. A stranger's
kernel owes correctness and not our bits: where it breaks one by rounding that is a note, and a fault if he asks.

Whether a law holds for an operation is decided by its truth, which must keep it too: a loss over a batch does not keep
a law about one example.
"""
from collections import namedtuple
from dataclasses import replace

import numpy as np

from kernels import registry, tolerance

# change(op, arguments): those of the second call, or None where the law does not apply. same(first, second): the parts
# of an output of both calls that must have the same bits. nan: the examples into which the second call brings NaN, or
# ALL where it brings none
Law = namedtuple("Law", "name change same nan", defaults=[slice(None)])


def _alone(place):
    def change(op, a):
        names = [n for n in op.examples if a.get(n) is not None]
        names = names or [*_data(op, a), *op.each(a)]
        return a | {n: np.array(a[n][place]) for n in names} if _count(op, a) > 1 else None

    return change


def _poisoned(op, a):
    data = {n: x for n, x in _data(op, a).items() if x.dtype.kind in "fV"}
    if _count(op, a) < 2 or not data or "not finite" not in op.values:
        return None
    if op.rules and any(np.isnan(x).any() for x in data.values()):  # a NaN of its own may spread, as in 0 NaN
        return None
    return a | {n: np.concatenate([np.full_like(x[:1], np.nan), x[1:]]) for n, x in data.items()}


def _other_noise(op, a):
    if op.rules:
        return None
    z = a.get("z")
    unused = z is not None and np.all(a["s"] == 0 if a.get("eta") != 0 else True)
    return a | {"z": np.array(z[..., ::-1] * 3 + 1, z.dtype)} if unused and z.size and np.all(np.isfinite(z)) else None


def _data(op, a):
    """The arrays with a row for each example, by name."""
    data, own = registry.arrays(a, op.settings), op.rules or op.shapes and not op.orders
    return {n: data[n] for n in op.examples if n in data} if own else data


def _count(op, a):
    """The number of examples, 0 where the data are not arrays of one length."""
    lengths = {x.shape[0] for x in _data(op, a).values()}
    known = op.examples or not any(isinstance(x, (list, dict)) for x in a.values())
    return lengths.pop() if len(lengths) == 1 and known else 0


def _rows(first, second):
    """What of both calls must agree, by slices of the rows: nothing of a number over the batch."""
    return lambda a, b: (a[first], b[second]) if np.ndim(a) else (None, None)


def _both(first, second):
    return first, second


ALL, FIRST, REST, LAST = slice(None), slice(1), slice(1, None), slice(-1, None)
LAWS = (
    Law("the same call twice gives the same bits", lambda op, a: a, _both),
    Law("the last example alone is the last example of the batch", _alone(LAST), _rows(LAST, ALL)),
    Law("the first example alone is the first example of the batch", _alone(FIRST), _rows(FIRST, ALL)),
    Law("NaN in one example changes only that example", _poisoned, _rows(REST, REST), FIRST),
    Law("noise that is not added (the last step, eta = 0) changes nothing", _other_noise, _both),
)


def agree(law, rules, others):
    """Whether the truth keeps a law in these two calls, else it does not apply. law: of LAWS. rules, others:
    `tolerance.Rule`s of the first and of the second call."""
    return all(_same(*law.same(a.truth, b.truth), rtol=1e-9) for a, b in zip(rules, others))


def shared(law, rules):
    """Rules in which rows that the law says are the same are allowed the same; None where an output has no such rows.
    law: of LAWS. rules: with the truth of the second call, and what was allowed in the first."""
    allowed = [r.allowed if law.nan != ALL else law.same(r.allowed, r.allowed)[0] for r in rules]
    if all(a is not None and a.shape == r.truth.shape for a, r in zip(allowed, rules)):
        return [replace(r, allowed=a) for r, a in zip(rules, allowed)]


def broken(law, first, second):
    """For each output what should agree of both calls where a law is broken; else []. law: of LAWS. first, second:
    lists of outputs."""
    pairs = [law.same(np.asarray(a), np.asarray(b)) for a, b in zip(first, second, strict=True)]
    return [] if all(_same(*pair) for pair in pairs) else pairs


def apart(law, pairs, rules):
    """How far two calls are apart, as text. law: of LAWS. pairs: from `broken`. rules: of the outputs."""
    allowed = [law.same(rule.allowed, rule.allowed)[0] for rule in rules]
    both = [(b, tolerance.Rule(np.asarray(a, np.float64), x)) for (a, b), x in zip(pairs, allowed) if a is not None]
    worst = max(both, key=lambda pair: tolerance.error(*pair))
    return tolerance.describe(*worst).replace("expected", "first", 1).replace("got", "then", 1)


def _same(a, b, rtol=0):
    if a is b is None:
        return True
    wide = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.shape(a) == np.shape(b) and np.allclose(*wide, rtol=rtol, atol=0, equal_nan=True)
