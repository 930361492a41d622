"""Argument checks that every module shares. Each returns float64 arrays, ready to compute with, or raises and names the
argument.

A complex argument stays complex: the gradient tests differentiate by a complex step.
"""
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

import numpy as np

DIGITS = Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN)  # of what is computed with Decimals and rounded once


def float64(x):
    """x as a float64 array (complex128 if complex). x: array or number."""
    return np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64)


def decimals(x):
    """x as Decimals, exactly. NumPy computes with arrays of them, in as many digits as the `decimal` context has.

    x: number or array, real. Returns an array of objects of its shape.
    """
    x = np.asarray(x, np.float64)
    return np.array([Decimal(value) for value in x.ravel().tolist()], object).reshape(x.shape)


def number(value, name):
    """value as Python's own int or float: a number of NumPy would round, wrap round or promote what it meets. name: of
    the argument. Raises TypeError for what is no real number, ValueError for an array of them."""
    if np.ndim(value):
        raise ValueError(f"{name}: expected one number, got shape {np.shape(value)}")
    plain = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
    if isinstance(plain, np.floating):  # longdouble stays NumPy's
        plain = float(plain)
    if not isinstance(plain, (int, float)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    return plain


def integer(value, name):
    """value as Python's own int. name: of the argument. Raises TypeError for what is no int, a bool too, ValueError for
    an array of them."""
    plain = number(value, name)
    if isinstance(plain, bool) or not isinstance(plain, int):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    return plain


def numbers(**values):
    """`number` of each, in order. values: by name."""
    return [number(value, name) for name, value in values.items()]


def integers(**values):
    """`integer` of each, in order. values: by name."""
    return [integer(value, name) for name, value in values.items()]


def classes(labels, n, name):
    """labels as int64. labels: ints, any shape. n: how many classes there are. name: of the argument. Raises TypeError
    for what are no ints, bools too, ValueError for a label outside [0, n)."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected ints, got {labels.dtype}")
    if labels.size and not (0 <= labels.min() and labels.max() < n):
        raise ValueError(f"{name}: expected 0 <= {name} < {n}, got {labels.min()} to {labels.max()}")
    return labels.astype(np.int64)


def same_shape(**arrays):
    """The arrays as float64, in order. arrays: by name. Raises ValueError where their shapes differ."""
    shapes = {name: np.shape(a) for name, a in arrays.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError("expected equal shapes, got " + ", ".join(f"{n} {s}" for n, s in shapes.items()))
    return [float64(a) for a in arrays.values()]


def shaped(value, name, *axes):
    """value as float64. name: of the argument. axes: its shape, an int for a length, a str for any. Raises ValueError
    for another shape."""
    value = float64(value)
    fits = value.ndim == len(axes) and all(isinstance(n, str) or m == n for m, n in zip(value.shape, axes))
    if not fits:
        expected = ", ".join(map(str, axes)) + "," * (len(axes) == 1)
        raise ValueError(f"{name}: expected shape ({expected}), got {value.shape}")
    return value


def not_empty(**arrays):
    """The arrays as float64, in order. arrays: by name. Raises ValueError where one has no element: there is nothing to
    average."""
    if any(np.size(a) == 0 for a in arrays.values()):
        shapes = ", ".join(str(np.shape(a)) for a in arrays.values())
        raise ValueError(f"{', '.join(arrays)}: expected at least one element, got {shapes}")
    return [float64(a) for a in arrays.values()]


def unit_interval(value, name):
    """value as float64. value: any shape. name: of the argument. Raises ValueError for an element outside [0, 1] or
    NaN."""
    value = float64(value)
    if not np.all((np.real(value) >= 0) & (np.real(value) <= 1)):
        raise ValueError(f"{name}: expected values in [0, 1], got {value}")
    return value


def per_example(value, x, name):
    """value shaped to multiply x. value: a number or (B,). x: (B, ...). name: of the argument. Raises ValueError for
    another shape, TypeError for None, of which NumPy makes NaN."""
    if value is None:
        raise TypeError(f"{name}: expected one number or shape {x.shape[:1]}, got None")
    value = np.asarray(value, np.complex128 if np.iscomplexobj(value) else np.float64, like=x)
    if value.ndim != 0 and value.shape != x.shape[:1]:
        raise ValueError(f"{name}: expected one number or shape {x.shape[:1]} for data of shape {x.shape}, got "
                         f"{value.shape}")
    return value.reshape(value.shape + (1,) * (x.ndim - 1 if value.ndim else 0))


def example_sum(terms):
    """The sum over all axes but the first. terms: (B, ...). Returns (B,)."""
    return terms.sum(axis=tuple(range(1, terms.ndim)))


def at(abar, t, x, name):
    """abar[t], shaped to multiply x (B, ...): a scalar for one int t, (B, 1, ..., 1) for (B,) ints.

    abar: (T + 1,), abar[0] = 1. name: of the argument t. Raises ValueError for another abar, another shape of t or a t
    out of range; TypeError where t is not an int.
    """
    abar, t = np.asarray(abar), np.asarray(t)
    if abar.ndim != 1 or abar.size == 0 or abar.dtype.kind not in "fiu" or not np.all((abar >= 0) & (abar <= 1)):
        raise ValueError(f"abar: expected shape (T + 1,) with real values in [0, 1], got shape {abar.shape} of "
                         f"{abar.dtype}")
    if abar[0] != 1:
        raise ValueError(f"abar: expected abar[0] = 1, the data, got {abar[0]}; an array that begins with the first "
                         f"step, as diffusers' does, lacks that entry")
    if not np.issubdtype(t.dtype, np.integer):
        raise TypeError(f"{name}: expected ints, got {t.dtype}")
    if t.ndim != 0 and t.shape != x.shape[:1]:
        raise ValueError(f"{name}: expected one int or shape {x.shape[:1]} for data of shape {x.shape}, got {t.shape}")
    if t.size and not (0 <= t.min() and t.max() < abar.size):
        raise ValueError(f"{name}: expected 0 <= {name} <= T = {abar.size - 1}, got {t.min()} to {t.max()}")
    return abar[t].astype(np.float64).reshape(t.shape + (1,) * (x.ndim - 1 if t.ndim else 0))


def step(abar, t, s, x):
    """abar[t] and abar[s] of a step from t to s < t, each as `at` returns it, for x: (B, ...). Raises ValueError where
    not s < t, abar[t] = 1, abar[s] = 0 or abar[t] > abar[s]."""
    abar_t, abar_s = at(abar, t, x, "t"), at(abar, s, x, "s")
    if not np.all(np.asarray(s) < np.asarray(t)):
        raise ValueError(f"a step goes from t to s < t, got t = {t} and s = {s}")
    nonzero(1 - abar_t, "1 - abar[t]", "there is no noise to find")
    nonzero(abar_s, "abar[s]", "there is no signal to go to")
    if not np.all(abar_t <= abar_s):
        raise ValueError(f"abar: expected to descend, got abar[t] > abar[s] for t = {t} and s = {s}")
    return abar_t, abar_s


def nonzero(value, name, why):
    """Raises ValueError where value has a 0. value: array. name: what it is, why: what a 0 means, both for the
    message."""
    if np.any(value == 0):
        raise ValueError(f"{name} = 0: {why}")


def whole_times(times, abar):
    """The times as Python ints. Raises ValueError where they are no ints or do not descend within abar."""
    if np.asarray(times).dtype.kind not in "iu":
        raise ValueError(f"times: expected ints, got {np.asarray(times).dtype}")
    return [int(t) for t in descending("times", times, highest=np.size(abar) - 1)]


def descending(name, values, highest=np.finfo(np.float64).max, least=2):
    """The values as floats, a list. name: of the argument. Raises ValueError where they do not descend within [0,
    highest] or are fewer than `least`."""
    values = np.asarray(values, np.float64)
    descends = values.ndim == 1 and values.size >= least and np.all(values[1:] < values[:-1])
    if not descends or not 0 <= values[-1] <= values[0] <= highest:
        raise ValueError(f"{name}: expected at least {least}, descending within {highest:g} to 0, got {values}")
    return values.tolist()


def output_of(name, out, x):
    """out, the output of the callable `name`, as float64. Raises ValueError where it has another shape than x."""
    if np.shape(out) != x.shape:
        raise ValueError(f"{name}: expected an output of the shape of x, {x.shape}, got {np.shape(out)}")
    return np.asarray(out, np.float64)


def noise_of(noise, i, x):
    """noise[i]. Raises ValueError where it is missing or has another shape than x."""
    got = "None" if noise is None else np.shape(noise[i]) if i < len(noise) else f"{len(noise)} of them"
    if got != x.shape:
        raise ValueError(f"noise: expected one of shape {x.shape} for step {i}, got {got}")
    return noise[i]
