"""What a person says about an argument, in words: `(B, N) float`, `float in [1e-6, 1e-3]`, `(B,) ints below N or -100`.

The words are a shape, a kind and a range, each of which may be left out.
shape: sizes are letters, numbers and sums and products of them: `(B, heads, N, 2 * D)`; none for a single number.
kind: `float` (if nothing is said), in the dtype that is checked; `int`; `bool`; or one that stays: `uint8`, `float64`.
range: `in [a, b]`; `in {0, 0.5, None}`, one of these; `below n`, from 0 to n - 1; `> a`, `>= a`, `< a`, `<= a`; `or v`,
which some elements are; `sorted` or `distinct` along the last axis. Bounds may hold letters and earlier numbers.
A letter is the same size wherever it stands. A sum or product without shape and kind is a number itself: `N - 1`.
"""
import ast
import operator
import re
from dataclasses import dataclass

import numpy as np

from kernels.check.adapter import Usage

KIND = re.compile(r"(floats?|ints?|bools?|u?int(?:8|16|32|64)|float(?:16|32|64))(?!\w)")
PHRASE = re.compile(r"\s*(in\b|below\b|or\b|sorted\b|distinct\b|>=|<=|>|<)\s*")
PAGE = """\
any function, any truth:
  --truth names a NumPy function, written as simply as you like: it says what is
  right. --against names yours, with the same arguments. What an argument is
  stands in the annotations of the truth, or in --argument:

    def softmax(x: "(B, N) float"):                            # in mine.py
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    python -m kernels check --truth mine:softmax --against mine:fast_softmax
    python -m kernels check --truth mine:norm --against mine:fast_norm \\
        --argument 'x: (B, N) float' --argument 'gamma: (N,)' \\
        --argument 'eps: float in [1e-6, 1e-3]'

  An argument is [(shape)] [kind] [range], or a size itself, as 'n: 2 * N':
    shape   letters, numbers, sums and products: (B, heads, L, 2 * D). A letter
            is one size everywhere; the first of the first array counts
            examples. Without a shape it is a number.
    kind    float, in the dtype that is checked (if nothing is said); int; bool;
            or a dtype that stays, such as uint8 or float64
    range   in [a, b]; in {0, 0.5, None}; below N; > 0; >= 0; < 1; <= 1;
            or -100, which some elements are; sorted; distinct. Bounds may hold
            letters and other numbers: 'k: int in [1, N]',
            'labels: (B,) ints below C or -100'
  An argument of which nothing is said keeps its default.

  The truth runs in float64, in the dtype that is checked, and again with each
  input and each intermediate result moved by a few units in the last place:
  what that changes is allowed. A tie, or a value next to a rounding boundary,
  may fall on either side. NaN must reach what depends on it. Sizes, strides,
  special values, large arrays, repeats and single examples are tried; what
  fails is shrunk and printed as code. It is not timed. In a test:

    from kernels.check import assert_right
    assert_right(fast_softmax, truth=softmax)
    assert_right(fast_norm, truth=norm, arguments={"x": "(B, N) float", ...})
"""
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
              ast.Div: operator.truediv, ast.Pow: operator.pow, ast.Mod: operator.mod}  # fmt: skip
PARTS = ast.Constant, ast.Name, ast.BinOp, ast.UnaryOp, ast.USub, ast.Tuple, ast.Load
NAMES = {"inf": np.inf, "nan": np.nan, "pi": np.pi}
EXAMPLES = "'(B, N) float', 'float in [1e-6, 1e-3]', '(B,) ints below N' or 'in {0, 1}'"


@dataclass(frozen=True)
class Argument:
    """What is said of one argument. Sizes and bounds are expressions, as `ast` has them.

    shape: of an array, None for a number. dtype: of NumPy, "" for the one that is checked. low, high: bounds or None.
    below: whether high is none of the values. above: whether low is none. choices: values or (). other: values that
    some elements are. order: "", "sorted" or "distinct". value: of a number that follows from the sizes.
    """

    name: str
    text: str
    shape: tuple = None
    dtype: str = ""
    low: ast.AST = None
    high: ast.AST = None
    below: bool = False
    above: bool = False
    choices: tuple = ()
    other: tuple = ()
    order: str = ""
    value: ast.AST = None

    @property
    def names(self):
        """The letters and arguments in its shape and range, in order."""
        return names((*(self.shape or ()), self.value, self.low, self.high, *self.other))


def read(name, text):
    """The `Argument` that text says. name: of the argument. text: as above. Raises Usage."""
    found = {"name": name, "text": text}
    rest = text.strip()
    if rest.startswith("("):
        shape, rest = _shape(name, text, rest)
        found["shape"] = shape
    elif not KIND.match(rest) and not PHRASE.match(rest):
        return Argument(**found, value=_expression(name, text, rest))
    if kind := KIND.match(rest):
        word, rest = kind[1], rest[kind.end() :].strip()
        found["dtype"] = {"float": "", "int": "int64", "bool": "bool"}.get(word.rstrip("s"), word)
    parts = PHRASE.split(rest)
    if parts[0].strip():
        raise _unread(name, text, parts[0])
    for word, rest in zip(parts[1::2], parts[2::2]):
        found |= _range(name, text, word, rest.strip(), found)
    return Argument(**found)


def names(parts):
    """The letters and arguments in expressions, in order. parts: as `ast` has them, some of them None."""
    found = [node.id for part in parts or () if part for node in ast.walk(part) if isinstance(node, ast.Name)]
    return [n for n in dict.fromkeys(found) if n not in NAMES]


def value(expression, sizes):
    """The number of an expression. expression: as `ast` has it, or None. sizes: {name: number}. Raises Usage."""
    match expression:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name) if name in sizes or name in NAMES:
            return sizes[name] if name in sizes else NAMES[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            return OPERATIONS[type(op)](value(left, sizes), value(right, sizes))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -value(operand, sizes)
    raise Usage(f"arguments: {ast.unparse(expression)} is no number; names are letters of shapes and earlier numbers")


def _range(name, text, word, rest, found):
    """What one phrase says, by the names of `Argument`. found: what was said before it."""
    if word in ("sorted", "distinct") and not rest:
        return {"order": word}
    if word == "in" and rest[:1] + rest[-1:] == "{}":
        return {"choices": _choices(name, text, rest[1:-1])}
    if word == "in" and rest[:1] == "[" and rest[-1:] in "])":
        low, high = _split(name, text, rest[1:-1], 2)
        return {"low": low, "high": high, "below": rest[-1] == ")"}
    if word in ("in", "sorted", "distinct"):
        raise _unread(name, text, f"{word} {rest}".strip())
    bound = _expression(name, text, rest)
    if word == "below":
        return {"low": found.get("low") or ast.Constant(0), "high": bound, "below": True}
    if word == "or":
        return {"other": (*found.get("other", ()), bound)}
    return {"low": bound, "above": word == ">"} if word[0] == ">" else {"high": bound, "below": word == "<"}


def _shape(name, text, rest):
    """The sizes of the leading bracket, and what follows it."""
    depth = 0
    for i, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return _split(name, text, rest[1:i]), rest[i + 1 :].strip()
    raise _unread(name, text, rest)


def _split(name, text, inner, count=None):
    """The expressions between commas."""
    comma = "," * (inner.strip() != "" and not inner.rstrip().endswith(","))
    both = _expression(name, text, f"({inner}{comma})")
    if not isinstance(both, ast.Tuple) or count not in (None, len(both.elts)):
        raise _unread(name, text, inner)
    return tuple(both.elts)


def _choices(name, text, inner):
    found = []
    for part in _split(name, text, inner):
        try:
            found.append(ast.literal_eval(part))
        except ValueError:
            found.append(value(part, {}))
    return tuple(found)


def _expression(name, text, part):
    try:
        found = ast.parse(part.strip(), mode="eval").body
    except SyntaxError:
        raise _unread(name, text, part) from None
    if any(not isinstance(node, PARTS) and type(node) not in OPERATIONS for node in ast.walk(found)):
        raise _unread(name, text, part)
    return found


def _unread(name, text, part):
    return Usage(f"argument {name}: {part.strip()!r} of {text!r} is not understood; expected such as {EXAMPLES}")
