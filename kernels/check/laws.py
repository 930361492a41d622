"""Laws that an operation keeps to the bit, whoever wrote it: two calls that must agree, beside the truth that both must keep.

A law is (its name, change, same): change(arguments) gives the arguments of the second call, or None where the law says nothing about them;
same(first, second) are the parts of an output of either call that must have the same bits. Whether a law holds for an operation is asked of the
truth, which has to keep it too: a loss over a batch does not keep what is said of one example.
"""
import numpy as np

from kernels import registry


def _example(first):
    def change(a):
        count = _count(a)
        return None if count < 2 else _of_each(a, lambda x: np.array(x[:1] if first else x[-1:]))

    return change


def _poisoned(a):
    if _count(a) < 2 or not registry.arrays(a):
        return None
    return _of_each(a, lambda x: np.concatenate([np.full_like(x[:1], np.nan), x[1:]]), registry.arrays(a))


def _other_noise(a):
    z = a.get("z")
    ignored = z is not None and np.all(a["s"] == 0 if a.get("eta") != 0 else True)
    return a | {"z": np.array(z[..., ::-1] * 3 + 1, z.dtype)} if ignored and z.size and np.all(np.isfinite(z)) else None


def _count(a):
    """How many examples there are: 0 where the data are no arrays of one length."""
    lengths = {x.shape[0] for x in registry.arrays(a).values()}
    return lengths.pop() if len(lengths) == 1 and not any(isinstance(x, list) for x in a.values()) else 0


def _of_each(a, part, names=(*registry.PER_EXAMPLE,)):
    wanted = set(registry.arrays(a)) | (set(names) & {n for n in registry.PER_EXAMPLE if np.ndim(a.get(n))})
    return a | {n: part(a[n]) for n in wanted}


def _all(first, second):
    return first, second


def _rows(first, second):
    return (first[1:], second[1:]) if np.ndim(first) else (None, None)


LAWS = (
    ("the same call twice gives the same bits", lambda a: a, _all),
    ("the last example alone is the last example of the batch", _example(first=False), lambda a, b: (a[-1:], b) if np.ndim(a) else (None, None)),
    ("the first example alone is the first example of the batch", _example(first=True), lambda a, b: (a[:1], b) if np.ndim(a) else (None, None)),
    ("NaN in one example changes only that example", _poisoned, _rows),
    ("noise that is not added (the last step, eta = 0) changes nothing, whatever finite numbers it holds", _other_noise, _all),
)


def broken(law, arguments, outputs, call, truth):
    """The second call's arguments where a law is broken, and for each output what both calls should agree on; None, [] where it holds or says nothing.

    law: of LAWS. arguments: dict. outputs: of call on them, a list. call, truth: functions of arguments that give a list of outputs.
    """
    _, change, same = law
    changed = change(arguments)
    if changed is None:
        return None, []
    with np.errstate(all="ignore"):
        if changed is not arguments and not all(_close(*same(a, b)) for a, b in zip(truth(arguments), truth(changed))):
            return None, []
    pairs = [same(np.asarray(a), np.asarray(b)) for a, b in zip(outputs, call(changed), strict=True)]
    return (None, []) if all(_equal(*pair) for pair in pairs) else (changed, pairs)


def _equal(a, b):
    return a is b is None or (a.shape == b.shape and np.array_equal(np.asarray(a, np.float64), np.asarray(b, np.float64), equal_nan=True))


def _close(a, b):
    return a is b is None or (np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-9, atol=0, equal_nan=True))
