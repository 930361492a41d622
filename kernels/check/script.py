"""The code that shows a failure: printed by the checker, it can be pasted and run."""
import re
import textwrap

import numpy as np

from kernels.check.case import LITERAL

RUN = "from runpy import run_path\n\n"
FILL = dict(width=79, break_long_words=False, break_on_hyphens=False)
NUMPY = ("array", "bool", "float16", "float32", "float64", "inf", "nan", *(f"{sign}int{bits}" for sign in ("", "u")
         for bits in (8, 16, 32, 64)))  # what a repr may name


def code(call, failure):
    """A script that shows a failure. call: `adapter.Caller`. failure: a `case.Failure`. Returns text."""
    case, op, (source, name) = failure.case, call.op, _source(call.function, "theirs", "the function that was checked")
    # the truth: an operation of ours by its name, any other by its function
    record, sources = repr(op.name), [source]
    if op.rules:
        line, truth = _source(op.truth, "truth", "the NumPy function that is right", name)
        said = f", {op.said!r}" if op.said else ""
        line = line.removeprefix(RUN) if source.startswith(RUN) else line
        record, sources = f"record({truth}{said})", ["from kernels.check.general import record", source, line]
    # how the function is called
    known = {"mapping": {theirs: ours for ours, theirs in call.names.items() if ours != theirs}, "arrays": call.arrays,
             "device": call.device, "conventions": call.conventions, "fixed": call.fixed}  # fmt: skip
    options = "".join(f", {n}={x!r}" for n, x in known.items() if x and x not in ("numpy", "cpu"))
    lines = [_wrapped(f"call = caller({name}, {record}{options})")]
    # the arguments: drawn from the seed, small ones in full
    drawn = f"{case.dtype!r}, {case.shape}, {case.values!r}, {case.seed}, {case.options}"
    lines.append(_wrapped(f"arguments = case.made(call, {drawn})"))
    if case.literal:
        texts = {n: repr_of(x) for n, x in case.arguments.items() if _short(x)}
        lines += ["arguments |= dict(", *(_wrapped(f"    {n}={x},") for n, x in texts.items()), ")"]
    layouts = f", {case.layouts}" if case.layouts else ""
    layouts += ", strict=True" if failure.kind == "breaks a law" else ""
    lines += [_wrapped(f"print(judge.again(call, {case.dtype!r}, arguments{layouts}))"), _comment(failure.message)]
    used = [n for n in (*NUMPY, "bfloat16") if re.search(rf"\b{n}\b(?!['=])", "\n".join(lines[2:-2]))]
    imports = [f"from numpy import {', '.join(n for n in used if n in NUMPY)}"] * any(n in NUMPY for n in used)
    imports += ["from ml_dtypes import bfloat16"] * ("bfloat16" in used)
    imports += ["from kernels.check import case, judge", "from kernels.check.adapter import caller", *sources, ""]
    return "\n".join(imports + lines)


def repr_of(x):
    """Every digit of a value, as Python. x: number, array or list of arrays. Returns text."""
    with np.printoptions(floatmode="unique", threshold=10**6, linewidth=10**6):
        return repr(x)


def name_of(function):
    """The name of a function; of a callable object that of its class, of a partial one that of the whole. function:
    callable. Returns text."""
    function = getattr(function, "func", function)
    return getattr(function, "__qualname__", type(function).__qualname__)


def _short(x):
    """Whether it is printed: neither alpha-bar, which its schedule gives, nor empty."""
    return all(0 < y.size <= LITERAL for y in (x if isinstance(x, list) else [x]) if isinstance(y, np.ndarray))


def _source(function, other, words, used=""):
    """The line that imports a function, and the name that it has then: its own if it can be imported and is not used,
    else other. words: what it is."""
    module, own = getattr(function, "__module__", None), name_of(function)
    if not hasattr(function, "__qualname__") or not module or module == "__main__" or "<" in own or "." in own:
        return _comment(f"{other}: {words}, {own}"), other
    if module.endswith(".py"):  # of a file, not of a module
        return f"{RUN}{other} = run_path({module!r})[{own!r}]", other
    taken = own in (used, "arguments", "call", "caller", "case", "judge", "record", "print", "bfloat16", *NUMPY)
    return f"from {module} import {own}{f' as {other}' * taken}", other if taken else own


def _wrapped(line):
    """A line of code, broken at spaces within its brackets, but not between a key and its value."""
    wrapped = textwrap.fill(line.replace("': ", "':\0"), subsequent_indent=" " * (8 if line[0] == " " else 4), **FILL)
    return wrapped.replace("\0", " ")


def _comment(text):
    return textwrap.fill(text, initial_indent="# ", subsequent_indent="# ", **FILL)
