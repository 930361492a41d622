"""The code that shows a failure: printed by the checker, it can be pasted and run."""
import re
import textwrap

import numpy as np

from kernels.check.adapter import defaults
from kernels.check.case import LITERAL

SCHEDULES = {"linear": "linear_betas()", "cosine": "cosine_betas()", "short": "linear_betas(4, 0.1, 0.5)"}
IMPORTS = (
    "import numpy as np", "from kernels import registry", "from kernels.check import case",
    "from kernels.check import memory", "from kernels.check.adapter import caller", "from ref import edm",
    "from ref import schedules",
)  # fmt: skip
FILL = dict(width=79, break_long_words=False, break_on_hyphens=False)


def code(call, failure):
    """A script that shows a failure. call: `adapter.Caller`. failure: a `case.Failure`. Returns text."""
    name, source = _source(call)
    case, truth = failure.case, call.op.name.split(".")[1]
    lines = [_caller(call, name)]
    if case.literal:
        optional = defaults(call.op)
        given = {n: x for n, x in case.arguments.items() if n in call.names or n not in optional or x != optional[n]}
        lines += _dict("arguments", {n: _text(x, case) for n, x in given.items()})
    else:
        drawn = f"{case.dtype!r}, {case.shape}, {case.values!r}, {case.seed}, {case.options}"
        lines.append(_wrapped(f"arguments = case.made(call, {drawn})"))
    if not case.literal or failure.kind == "writes its inputs" and not failure.changed:
        layouts = f", {case.layouts}" if case.layouts else ""
        lines.append(_wrapped(f"print(case.again(call, {case.dtype!r}, arguments{layouts}))"))
    else:
        lines += _literally(call, failure, name, lines[1:])
    if not any(re.search(r"\bcall\b", line) for line in lines[1:] if line[0] != "#"):
        lines = lines[1:]
    body = "\n".join(lines)
    imports = [*IMPORTS, f"from ref.{call.op.name.split('.')[0]} import {truth}"]
    used = [line for line in imports if re.search(rf"(?<!\w){line.split()[-1]}[.(]", body)]
    return "\n".join([*used, source, "", body])


def _source(call):
    """The name that the script calls the function by, and the line from which it has it."""
    function, truth = call.function, call.op.name.split(".")[1]
    module, own = getattr(function, "__module__", None), getattr(function, "__qualname__", repr(function))
    importable = module and module != "__main__" and "<" not in own and "." not in own
    if not importable:
        return "theirs", _comment(f"theirs: the function that was checked, {own}")
    if own in (truth, "call", "arguments", "given", "case", "memory", "registry"):
        return "theirs", f"from {module} import {own} as theirs"
    return own, f"from {module} import {own}"


def _caller(call, name):
    """The line that makes a `Caller`."""
    known = {"mapping": {theirs: ours for ours, theirs in call.names.items() if ours != theirs}, "arrays": call.arrays,
             "device": call.device, "conventions": call.conventions, "fixed": call.fixed}  # fmt: skip
    options = "".join(f", {n}={x!r}" for n, x in known.items() if x and x not in ("numpy", "cpu"))
    return _wrapped(f"call = caller({name}, {call.op.name!r}{options})")


def _literally(call, failure, name, ours):
    """The calls and what is printed, where all arguments are literal. name: of the function. ours: their lines."""
    case, numpy = failure.case, call.arrays == "numpy" and call.device == "cpu"
    texts = _their_texts(call, case, {})
    changed = _their_texts(call, case, failure.changed if failure.kind == "breaks a law" else {})
    second = ", ".join(f"{n}={text}" for n, text in changed.items() if text != texts[n])
    # by its own names and conventions, in the layouts and the kind of arrays that fail
    given = "arguments" if _dict("arguments", texts) == ours else "given"
    lines = _dict("given", texts) if given == "given" else []
    for n, layout in case.layouts.items():
        own = call.names[n]
        lines.append(f'{given}["{own}"] = memory.put({given}["{own}"], "{layout}")[1]')
    if not numpy:
        lines.append(f"given = call.sent({given})")
        given = "given"
    second = second and (f"{given} | dict({second})" if numpy else f"{given} | call.sent(dict({second}))")

    def result(arguments):
        return f"{name}(**{arguments})" if numpy and not call.positional else f"call.give({arguments})"

    return lines + [_wrapped(line) for line in _shown(call, failure, result, given, second or given)]


def _shown(call, failure, result, given, second):
    """The lines that print the truth and the result. result: function of the text of the arguments."""
    truth = f"{call.op.name.split('.')[1]}(**arguments)"
    outputs, message = f"registry.outputs({result(given)})", _comment(failure.message)
    if failure.kind == "breaks a law":
        return [f"print({result(given)})", message, f"print({result(second)})"]
    if failure.kind == "writes its inputs":
        shown = [f"print({given}[{n!r}])" for n in failure.changed]
        return ["# before", *shown, result(given), message, *shown]
    if failure.kind == "wrong shape":
        shapes = [f"print([np.shape(r) for r in {r}])" for r in (f"registry.outputs({truth})", outputs)]
        return ["# the truth", shapes[0], message, shapes[1]]
    if failure.kind == "wrong dtype":
        return [message, f"print([str(getattr(r, 'dtype', type(r))) for r in {outputs}])"]
    return ["# the truth", f"print({truth})", message, f"print({result(given)})"]


def _wrapped(line):
    """A line of code, broken at spaces within its brackets."""
    return line if line[0] == "#" else textwrap.fill(line, subsequent_indent="    ", **FILL)


def _comment(text):
    return textwrap.fill(text, initial_indent="# ", subsequent_indent="# ", **FILL)


def _dict(name, texts):
    entry = textwrap.TextWrapper(initial_indent="    ", subsequent_indent="        ", **FILL)
    return [f"{name} = dict(", *(entry.fill(f"{n}={x},") for n, x in texts.items()), ")"]


def _their_texts(call, case, changed):
    """The arguments as the function gets them: of a long array, which is alpha-bar, what its conventions make of it."""
    texts = {}
    dtype = {"dtype": case.dtype} if "dtype" in call.names else {}
    for name, x in call.named(case.arguments | changed | dtype).items():
        texts[name] = _text(x, case)
        if isinstance(x, np.ndarray) and x.size > LITERAL:
            texts[name] += "[1:]" * ("zero_based" in call.conventions)
            texts[name] = f"edm.sigma_from_abar({texts[name]})" if "sigmas" in call.conventions else texts[name]
    return texts


def _text(x, case):
    """A value as Python."""
    if isinstance(x, list):
        return f"[{', '.join(_text(y, case) for y in x)}]"
    if not isinstance(x, np.ndarray):
        return repr(x)
    if x.size > LITERAL:
        return f"schedules.alpha_bar(schedules.{SCHEDULES[case.options.get('schedule', 'linear')]})"
    half = x.dtype.kind == "V"  # bfloat16, which NumPy has no name for
    dtype = "float32" if half else x.dtype.name
    if not x.size:
        text = f"np.zeros({x.shape}, {dtype!r})"
    elif x.dtype.kind not in "fV":
        text = f"np.array({x.tolist()}, {dtype!r})"
    else:
        numbers = np.array2string(x.astype(dtype), separator=", ", floatmode="unique", max_line_width=10**6)
        numbers = re.sub(r"\s+", " ", numbers).replace("nan", "np.nan").replace("inf", "np.inf")
        text = f"np.array({numbers}, {dtype!r})"
    return text + (".astype(registry.like('bfloat16'))" if half else "")
