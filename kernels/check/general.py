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
from kernels.check.values import drawn
from kernels.ops import inputs
from kernels.ops.record import Op

VALUES = (*inputs.VALUES, *inputs.HARD, "few digits", "repeated", "far from 0")
LARGER = (7, 8, 16, 17, 31, 33, 64, 100, 127, 129, 257, 784, 1023, 1024, 1025, 2053, 3072, 4096)  # sizes of one letter
PAST = 65_539, 16_411, 4_099, 1_031, 257  # large sizes of one letter, the first that is not too slow
WORK = 2e5  # elements that the truth computes in a case, about
MUCH = 2e6  # in a large case
EFFORT = 1.5e6  # in all cases of a dtype
ENOUGH = {1: 64, 2: 12, 3: 6}  # sizes, by the number of letters, at which a tenth of the elements drawn anew shows
CALL = 500  # elements that take as long as a call
ENDS = 4  # draws of numbers at an end of their range, by which the work is measured


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
    cost = _cost(truth, make, len(letters), chosen, ENDS if any(a.shape is None for a in said.values()) else 1)
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


def _cost(truth, make, count, chosen, draws):
    """A function of sizes: about how many elements the truth computes there, from a call and two with more of each
    letter. draws: of the numbers, which stand at an end of their range."""
    base = 8 if count < 5 else 4

    def at(sizes):
        try:
            each = [make(np.random.default_rng(seed), sizes, "float64", "large", **chosen) for seed in range(draws)]
            return np.maximum(np.max([derived.work(truth, arguments) for arguments in each], axis=0), 1) * (CALL, 1)
        except Exception:  # it refuses these sizes
            return np.array([CALL, math.prod(sizes)])

    first = at((base,) * count)
    more = [[at((base,) * i + (times * base,) + (base,) * (count - i - 1)) / first for times in (4, 16)]
            for i in range(count)]  # fmt: skip

    def cost(sizes):
        grown = [_grown(*m, size / base) for m, size in zip(more, sizes)]
        return float(np.sum(first * np.prod(grown, axis=0)))

    return cost


def _grown(four, sixteen, times):
    """How many times as much work it is for a letter that is so many times as large, by that of 4 and of 16 times."""
    return _risen(four, times) if times <= 4 else four * _risen(sixteen / four, times / 4)


def _risen(four, times):
    """On a line through 1 and 4, or a power where that grows faster."""
    line = np.maximum(1 + (four - 1) * (times - 1) / 3, 0)
    return np.maximum(line, times ** (np.log(four) / np.log(4)) if times else 0)


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

    each = ([sizes(i, size, rest) for size in PAST for rest in (2, 1)] for i in range(count))
    found = [next((s for s in tried if cost(s) <= MUCH), None) for tried in each]
    longest = min((sizes(i, 1_048_583, 1) for i in range(count)), key=cost, default=())
    return (*filter(None, found), *[longest] * bool(longest and cost(longest) <= 12 * MUCH))
