"""A record for any NumPy function, so that the checker takes it as one of the registered operations.

    def softmax(x: "(B, N) float", temperature: "float in [0.1, 10]" = 1.0): ...

    check(fast_softmax, truth=softmax)                                     # its annotations say what the arguments are
    check(fast_softmax, truth=softmax, arguments={"x": "(B, N) float"})    # temperature keeps its default

`kernels.check.language` says how an argument is described, `kernels.check.derived` how much a result may err.
"""
import ast
import functools
import inspect
import itertools
import math

import numpy as np

from kernels.check import derived, language
from kernels.check.adapter import Usage
from kernels.ops import inputs
from kernels.ops.record import Op

VALUES = (*inputs.VALUES, *inputs.HARD, "few digits", "repeated", "far from 0")
LARGER = (7, 8, 16, 17, 31, 33, 64, 100, 127, 129, 257, 1023, 1024, 1025, 2053)  # sizes of one letter
WORK = 2e5  # elements that the truth computes in a case, about
MUCH = 2e6  # in a large case
EFFORT = 1.5e6  # in all cases of a dtype
ENOUGH = {1: 64, 2: 12, 3: 6}  # sizes, by the number of letters, at which a tenth of the elements drawn anew shows
CALL = 500  # elements that take as long as a call


def record(truth, arguments=None):
    """The `registry.Op` of a NumPy function.

    truth: function; it returns an array, a number, or a tuple of them. arguments: {name: what it is}, in the words of
    `language`; for a name that it lacks the annotation counts. What nothing is said of keeps its default.
    Raises Usage for an argument without description and default, for words that are not understood, for a truth that
    refuses what they describe.
    """
    said, kept = described(truth, arguments or {})
    letters = tuple(dict.fromkeys(n for a in said.values() for n in a.names if n not in said))
    make = functools.partial(drawn, said, kept, letters)
    numbers = {n: a.choices or (False, True) for n, a in said.items() if a.shape is None}
    options = {n: choices for n, choices in numbers.items() if said[n].choices or said[n].dtype == "bool"}
    chosen = {name: choices[0] for name, choices in options.items()}
    least, values = _accepted(truth, make, letters, chosen)
    cost = _cost(truth, make, len(letters), chosen)
    dtypes = inputs.FLOATS
    if all(a.dtype or a.shape is None for a in said.values()):  # no data of any dtype: in that of the truth
        sample = make(np.random.default_rng(0), (3,) * len(letters), "float64", "normal", **chosen)
        short = any(x.dtype == np.float32 for x in derived.called(truth, sample))
        dtypes = ("float32" if short else "float64",)
    batch = next((ast.unparse(a.shape[0]) for a in said.values() if a.shape), "")
    each = tuple(n for n, a in said.items() if a.shape and ast.unparse(a.shape[0]) == batch and batch in letters)
    return Op(
        truth, ulps=1, options=options, fixed=kept, dtypes=dtypes, half=True, make=make,
        scale=functools.partial(derived.sizes, truth),
        shapes=_shapes(cost, least), large=_large(cost, len(letters)), values=values, settings=(), letters=letters,
        examples=each,
        rules=functools.partial(derived.rules, truth),
        cases=int(np.clip(EFFORT / cost((3,) * len(letters)), 60, 200)), said=arguments or {},
        arrays={n: a.text for n, a in said.items() if a.shape is not None},
    )  # fmt: skip


def described(truth, arguments):
    """{name: `language.Argument`} of the arguments of truth that vary, and {name: default} of the others. truth,
    arguments: as in `record`."""
    try:
        takes = inspect.signature(truth).parameters
    except (TypeError, ValueError) as reason:
        raise Usage(f"truth: its arguments are unknown ({reason}): wrap it in a def") from None
    if unknown := arguments.keys() - takes.keys():
        raise Usage(f"arguments: the truth has no {', '.join(sorted(unknown))}; it has {', '.join(takes)}")
    said, kept = {}, {}
    for name, parameter in takes.items():
        text = arguments.get(name, _annotated(parameter.annotation))
        if text is not None:
            said[name] = language.read(name, text)
        elif parameter.default is not parameter.empty:
            kept[name] = parameter.default
        elif parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise Usage(f"argument {name}: nothing says what it is. Expected an annotation of the truth, an entry of "
                        f"arguments, or --argument '{name}: ...', such as {language.EXAMPLES}")  # fmt: skip
    sizes = {n for a in said.values() for n in language.names(a.shape)}
    for name, argument in said.items():
        if lost := [n for n in argument.names if n not in sizes and n not in said]:
            raise Usage(f"argument {name}: {lost[0]} of {argument.text!r} is no letter of a shape and no argument")
    return said, kept


def _annotated(words):
    """The words of an annotation, or None where it is a type. `from __future__ import annotations` quotes them."""
    if words in (int, float, bool):
        return words.__name__
    if not isinstance(words, str):
        return None
    words = words.strip("'\" ")
    return words if words.startswith("(") or language.KIND.match(words) or language.PHRASE.match(words) else None


def _accepted(truth, make, letters, chosen):
    """The least size of each letter, and the kinds of values, that the truth does not refuse. Raises Usage where it
    refuses ordinary ones."""
    def refused(sizes, values):
        try:
            arguments = make(np.random.default_rng(0), sizes, "float64", values, **chosen)
            results = derived.called(truth, arguments, casts=False)
        except Exception as reason:
            return f"raises {type(reason).__name__}: {reason}"
        if strange := [str(x.dtype) for x in results if x.dtype.kind not in "fiub"] or (not results and ["nothing"]):
            return f"returns {strange[0]}, in place of real numbers"

    ordinary = tuple(range(2, 2 + len(letters)))
    if reason := refused(ordinary, "normal"):
        sizes = ", ".join(f"{n} = {size}" for n, size in zip(letters, ordinary))
        same = "" if refused((3,) * len(letters), "normal") else "; sizes that must be equal have one letter"
        raise Usage(f"truth: with {sizes or 'its arguments'} as they are described it {reason}{same}")
    larger = tuple(range(many := ENOUGH.get(len(letters), 4), many + len(letters)))
    sizes = ordinary if refused(larger, "normal") else larger
    _repeats(truth, make(np.random.default_rng(0), sizes, "float64", "normal", **chosen))
    least = [int(bool(refused(ordinary[:i] + (0,) + ordinary[i + 1 :], "normal"))) for i in range(len(letters))]
    return tuple(least), tuple(v for v in VALUES if not refused(ordinary, v))


def _repeats(truth, arguments):
    """Raises Usage where the results differ for the same arguments: what the truth draws would pass for rounding."""
    first, *others = (derived.called(truth, arguments) for _ in range(3))
    if not all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for x in others for a, b in zip(first, x)):
        raise Usage("truth: expected equal results for equal arguments, got others: it draws numbers or keeps a state")


def _cost(truth, make, count, chosen):
    """A function of sizes: about how many elements the truth computes there, from a call and one with more of each
    letter."""
    base = 8 if count < 5 else 4

    def at(sizes):
        try:
            arguments = make(np.random.default_rng(0), sizes, "float64", "normal", **chosen)
            return np.maximum(derived.work(truth, arguments), 1) * (CALL, 1)
        except Exception:  # it refuses these sizes
            return np.array([CALL, math.prod(sizes)])

    first = at((base,) * count)
    more = [at((base,) * i + (4 * base,) + (base,) * (count - i - 1)) / first for i in range(count)]

    def cost(sizes):
        # with each letter as a line through both points, or as a power where that grows faster
        lines = [np.maximum(1 + (m - 1) * (size / base - 1) / 3, 0) for m, size in zip(more, sizes)]
        powers = [(size / base) ** (np.log(m) / np.log(4)) if size else 0 for m, size in zip(more, sizes)]
        return float(np.sum(first * np.prod([np.maximum(*both) for both in zip(lines, powers)], axis=0)))

    return cost


def _shapes(cost, least):
    """Sizes of the letters, the small ones first. cost: from `_cost`. least: of each letter."""
    count = len(least)
    most = 5 if count < 5 else 3 if count < 7 else 2
    small = itertools.product(range(1, most + 1), repeat=count)
    small = sorted(small, key=lambda sizes: (math.prod(sizes), sizes))
    small = small[:20] + [sizes for sizes in small[20:] if cost(sizes) <= WORK / 4]
    rng, larger = np.random.default_rng(0), []
    for i, size in itertools.product(range(count), LARGER * 2):
        sizes = rng.integers(1, 5, size=count).tolist()
        larger.append((*sizes[:i], size, *sizes[i + 1 :]))
    empty = [tuple(np.where(np.arange(count) == i, 0, 3).tolist()) for i in range(count) if not least[i]]
    return (*small, *(sizes for sizes in dict.fromkeys(larger) if cost(sizes) <= WORK), *empty)


def _large(cost, count):
    """A size past 2^16 for each letter, and one past 2^20 for the letter with which the truth grows least; smaller
    where it would compute too much."""
    def sizes(i, size, rest):
        return (*[rest] * i, size, *[rest] * (count - i - 1))

    each = ([sizes(i, size, rest) for size in (65_539, 16_411, 4_099) for rest in (2, 1)] for i in range(count))
    found = [next((s for s in tried if cost(s) <= MUCH), None) for tried in each]
    longest = min((sizes(i, 1_048_583, 1) for i in range(count)), key=cost, default=())
    return (*filter(None, found), *[longest] * bool(longest and cost(longest) <= 4 * MUCH))


# --- drawing ---------------------------------------------------------------------------------------------------------


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
            if values == "few digits" and not a.dtype and not a.choices:
                found[name] = _at_thresholds(rng, x, low, high, [n for n in found.values() if isinstance(n, float)])
        if a.shape is None and isinstance(found[name], (int, float)):
            known[name] = found[name]
    return {n: found[n] for n in said} | kept


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
        x = _floats(rng, low, high, values, shape, 1e2 if dtype.itemsize == 2 else 1e4).astype(dtype)
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


def _floats(rng, low, high, values, shape, most):
    """Floats of a kind. low, high: bounds or None. most: the size of large ones."""
    normal = rng.standard_normal(shape)
    few = rng.integers(-16, 17, shape) * 2.0 ** -rng.integers(0, 9, shape)
    if low is not None and high is not None and math.isfinite(high - low):
        part, near = rng.random(shape), np.clip(0.5 + normal / 1e3, 0, 1)
        part = {"large": np.round(part), "tiny": part / most, "far from 0": near}.get(values, part)
        wide = low > 0 and high >= 100 * low
        x = low * (high / low) ** part if wide else low + (high - low) * part
        few = np.where((low <= few) & (few <= high), few, _rounded(x, (high - low) / 16))
        x = {"zeros": np.zeros(shape), "few digits": few}.get(values, x)
    else:
        far = 10 ** rng.uniform(0, 3) * rng.choice([-1, 1])
        x = {"large": most * normal, "tiny": normal / most, "minute": normal / most**3,
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
