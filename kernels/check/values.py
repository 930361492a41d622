"""Values of the arguments that a person describes in the words of `kernels.check.language`."""
import math

import numpy as np

from kernels.check import language
from kernels.ops import inputs


def drawn(said, kept, letters, rng, shape, dtype, values, **options):
    """Arguments, {name: value}. said, kept: from `described`. letters: their names. rng: generator. shape: the size of
    each letter. dtype: name, of the data. values: of VALUES. options: of the numbers that have choices."""
    known = dict(zip(letters, shape))
    found = {}
    for name, a in sorted(said.items(), key=lambda pair: pair[1].shape is not None):  # numbers first, shapes use them
        low, high = (None if bound is None else language.value(bound, known) for bound in (a.low, a.high))
        if name in options:
            found[name] = options[name]
        elif a.value is not None:
            found[name] = language.value(a.value, known)
        elif a.shape is None:
            found[name] = _number(rng, a, low, high, values)
        else:
            sizes = tuple(max(int(language.value(n, known)), 0) for n in a.shape)
            x = found[name] = _array(rng, a, low, high, values, sizes, dtype)
            above = low is None or low < 0 or low == 0 and not a.above
            if rng.integers(16) == 0 and above and (high is None or high > 0) and not (a.dtype or a.choices or a.order):
                x[rng.random(x.shape) < 0.3] = 0  # zeros in one array, and in no other
            if values == "few digits" and not a.dtype and not a.choices:
                found[name] = _at_thresholds(rng, x, low, high, [n for n in found.values() if isinstance(n, float)])
        if a.shape is None and isinstance(found[name], (int, float)):
            known[name] = found[name]
    return {n: found[n] for n in said} | kept


def fits(text, sizes, x):
    """Whether numbers lie in the range that is said. text: of the argument. sizes: {letter or number: value}. x:
    array."""
    a = language.read("", text)
    low, high = (None if bound is None else language.value(bound, sizes) for bound in (a.low, a.high))
    inside = np.isnan(x) | np.isin(x, [language.value(other, sizes) for other in a.other])
    above = True if low is None else (x > low) if a.above else (x >= low)
    below = True if high is None else (x < high) if a.below else (x <= high)
    return bool(np.all(inside | above & below)) and (not a.choices or bool(np.isin(x, a.choices).all()))


def _at_thresholds(rng, x, low, high, numbers):
    """x with one in eight elements at one of the numbers, which may be a threshold."""
    fit = [n for n in numbers if (low is None or low <= n) and (high is None or n <= high)]
    return np.where(rng.random(x.shape) < 1 / 8, rng.choice(fit), x).astype(x.dtype) if fit else x


def _number(rng, a, low, high, values):
    """A number in its range; one in four is an end of it."""
    x = _array(rng, a, low, high, "normal" if values in ("zeros", "not finite") else values, (), "float64")
    ends = [bound for bound, open_ in ((low, a.above), (high, a.below)) if bound is not None and not open_]
    if ends and math.isfinite(end := ends[rng.integers(len(ends))]) and rng.integers(4) == 0:
        x = end
    if values == "few digits" and low != high:
        x = _power_of_two(float(x), a, low, high)
    return int(x) if a.dtype.startswith(("int", "uint")) else float(x)


def _power_of_two(x, a, low, high):
    """The power of two next to x, 1 for 0, if there is one in the range."""
    sign, power = math.copysign(1, x), round(math.log2(abs(x))) if x else 0
    near = [sign * 2.0 ** (power + more) for more in (0, 1, -1) if a.dtype != "int64" or power + more >= 0]
    fits = [n for n in near if (low is None or low < n + (not a.above) * abs(n) * 1e-9)
            and (high is None or n - (not a.below) * abs(n) * 1e-9 < high)]  # fmt: skip
    return fits[0] if fits else x


def _array(rng, a, low, high, values, shape, dtype):
    """Values in a range, of a kind. low, high: numbers or None."""
    dtype = inputs.like(a.dtype or dtype)
    if a.choices:
        return rng.choice(np.asarray(a.choices), shape).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < {"zeros": 0, "large": 1}.get(values, 0.5)
    if dtype.kind in "iu":
        x = _ints(rng, a, low, high, values, shape, dtype)
    else:
        most, least = 1e2 if dtype.itemsize == 2 else 1e4, 9 if dtype == np.float64 else 4.5
        x = _floats(rng, low, high, values, shape, most, least).astype(dtype)
        for bound, open_, towards in ((low, a.above, np.inf), (high, a.below, -np.inf)):
            if bound is not None:
                x = np.where(x == bound, np.nextafter(x, x.dtype.type(towards)), x) if open_ else x
    for other in a.other:
        x = np.where(rng.random(shape) < rng.choice([0, 0.25, 0.25, 1]), language.value(other, {}), x)
    return (np.sort(x, axis=-1) if a.order == "sorted" and x.ndim else x).astype(dtype)


def _ints(rng, a, low, high, values, shape, dtype):
    ends = (-8, 8) if dtype == np.int64 else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    low = ends[0] if low is None else math.floor(low) + 1 if a.above else math.ceil(low)
    high = max(ends[1], low) if high is None else math.ceil(high) - 1 if a.below else math.floor(high)
    if high < low or (a.order == "distinct" and shape and high - low + 1 < shape[-1]):
        raise ValueError(f"argument {a.name}: too few ints are {a.text!r}")
    if a.order == "distinct" and shape:
        rows = [rng.permutation(high - low + 1)[: shape[-1]] for _ in range(math.prod(shape[:-1]))]
        return low + np.array(rows, np.int64).reshape(shape)
    if values == "zeros":
        return np.full(shape, min(max(0, low), high))
    return rng.choice([low, high], shape) if values == "large" else rng.integers(low, high, shape, endpoint=True)


def _floats(rng, low, high, values, shape, most, least):
    """Floats of a kind. low, high: bounds or None. most: the size of large ones. least: its power whose reciprocal is
    the size of the smallest, of which squares are normal numbers, but for a few."""
    normal = rng.standard_normal(shape)
    few = rng.integers(-16, 17, shape) * 2.0 ** -rng.integers(0, 9, shape)
    if low is not None and high is not None and math.isfinite(high - low):
        part, near = rng.random(shape), np.clip(0.5 + normal / 1e3, 0, 1)
        kinds = {"large": np.round(part), "tiny": part / most, "minute": part / most**3, "far from 0": near}
        part = kinds.get(values, part)
        wide = low > 0 and high >= 100 * low
        x = low * (high / low) ** part if wide else low + (high - low) * part
        few = np.where((low <= few) & (few <= high), few, _rounded(x, (high - low) / 16))
        x = {"zeros": np.zeros(shape), "few digits": few}.get(values, x)
    else:
        far = 10 ** rng.uniform(0, 3) * rng.choice([-1, 1])
        minute = most ** -rng.uniform(3, least)
        x = {"large": most * normal, "tiny": normal / most, "minute": normal * minute, "wide": 15 * normal,
             "near": np.random.default_rng(0).standard_normal(shape) * (1 + normal / 1e3),
             "zeros": np.zeros(shape), "few digits": few, "far from 0": far * (1 + normal / 1e3),
             }.get(values, normal)  # fmt: skip
        x = x if low is None else low + np.abs(x)
        x = x if high is None else high - np.abs(x)
    if values == "repeated" and x.size:
        x = rng.choice(x.reshape(-1)[:3], shape)
    x = np.asarray(np.clip(x, low, high) if (low, high) != (None, None) else x, np.float64)
    if values == "not finite" and x.size and x.ndim:
        x.flat[rng.integers(x.size, size=3)] = np.nan
    return x


def _rounded(x, step):
    """x to a multiple of a power of two near step."""
    unit = 2.0 ** math.floor(math.log2(step)) if step > 0 else 1.0
    return np.round(x / unit) * unit
