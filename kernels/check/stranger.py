"""What is left open where a stranger's NumPy function is the truth, see `kernels.check.general`: it says what is right,
but not what every order of the arithmetic makes of NaN, of an empty array, of a value next to a boundary."""
from dataclasses import replace

import numpy as np

from kernels import registry, tolerance
from kernels.check import derived
from kernels.check.grade import LESS

ALL = slice(None)


def second(op, law, changed, rules, dtype):
    """The rules of a law's second call, None where the truth refuses it. Rows that the law says are the same are
    allowed the same, for derived rules take their time.

    op: `registry.Op`. law: of `laws.LAWS`. changed: its arguments. rules: of the first call. dtype: name.
    """
    try:
        if law.nan != ALL:
            return [_in(law.nan, r) for r in op.rules(changed, dtype)]
        truths = [tolerance.stored(np.asarray(x, np.float64), dtype)
                  for x in derived.called(op.truth, registry.exact(changed))]  # fmt: skip
    except Exception:  # whatever the truth raises
        return None
    allowed = [law.same(r.allowed, r.allowed)[0] for r in rules]
    known = [a if a is not None and a.shape == t.shape else np.full(t.shape, np.inf) for a, t in zip(allowed, truths)]
    nan = [None if r.nan is None else law.same(r.nan, r.nan)[0] for r in rules]
    return [replace(r, truth=t, allowed=a, nan=n) for r, t, a, n in zip(rules, truths, known, nan)]


def _in(rows, rule):
    """The rule with NaN in place of numbers in these rows only."""
    if rule.nan is None or not rule.nan.ndim:
        return rule
    kept = np.zeros_like(rule.nan)
    kept[rows] = rule.nan[rows]
    return replace(rule, nan=kept)


def noted(outputs, rules, seen):
    """Note where NaN stands for a number. outputs: of the function. rules: of the truth. seen: a `judge.Seen`."""
    floats = [(o, r) for o, r in zip(outputs, rules) if o.dtype.kind == "f" and r.nan is not None]
    if any(np.any(np.isnan(o) & ~np.isnan(r.truth)) for o, r in floats):
        seen.notes["gives NaN where the truth is a number that depends on no NaN, as 0 times NaN does"] = None


def careful(op, arguments, dtype, rules, units):
    """Rules from more runs: few may have missed a boundary, or found the size of an element too small.

    op: `registry.Op`. arguments: dict. dtype: name. rules: of few runs. units: the error by these.
    """
    more = op.rules(arguments, dtype, "sizes" if units < LESS.get(dtype, 1.0) else "boundaries")
    return [replace(r, nan=few.nan) for r, few in zip(more, rules)]


def empty(op, shape):
    """What is empty, in words: letters whose size is 0, or of a registered operation the arrays; "" for nothing. op:
    `registry.Op`. shape: of a case."""
    if not op.rules:
        return "empty arrays" * (0 in shape)
    return ", ".join(f"{n} = 0" for n, size in zip(op.letters, shape) if size == 0)
