"""The reading order, an equation with its source, and a trace, as text for a terminal."""
import inspect
import shutil
import sys

import numpy as np

from ref.reading import catalogue, trace

LEAVES = 6  # of a dict or a list, what is shown


def colouring(page=False):
    """A function that colours Python source: for a page, or for a terminal that shows colours; elsewhere, and without Pygments, the source as it is.

    page: bool. Without Pygments a line on stderr says what to install.
    """
    if not page and not sys.stdout.isatty():
        return str
    try:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter, TerminalFormatter
        from pygments.lexers import PythonLexer
    except ModuleNotFoundError:
        print('no colours without Pygments: pip install -e ".[study]"', file=sys.stderr)
        return str
    formatter = HtmlFormatter(nowrap=True, noclasses=True, style="friendly") if page else TerminalFormatter()
    return lambda source: highlight(source, PythonLexer(stripnl=False), formatter).rstrip("\n")


def listing():
    """The reading order, a list of lines."""
    lines = []
    for n, (name, f) in enumerate(catalogue.equations().items(), 1):
        after = ", ".join(short(needed) for needed in catalogue.needs(f))
        lines.append(f"{n:>3}  {short(name):<40}  {catalogue.where(f):<26}  {catalogue.paper(f)}" + (f"   after {after}" if after else ""))
        lines += [f"       {line}" for line in catalogue.formulas(f) or [catalogue.sentence(f)]]
    return lines


def short(name):
    """The full name without "ref". name: str."""
    return name.removeprefix("ref.")


def head(function):
    """Its name, place and paper, then its equations, a list of lines. function: of `ref`."""
    first = "   ".join(filter(None, (catalogue.full(function), catalogue.where(function), catalogue.paper(function))))
    return [first, "", *(f"    {line}" for line in catalogue.formulas(function) or [catalogue.sentence(function)]), ""]


def source(function):
    """The function's equations, its source in colours, and where else its name lives, a list of lines. function: of `ref`."""
    lines, first = inspect.getsourcelines(function)
    text = colouring()("".join(lines)).split("\n")[:len(lines)]
    found = catalogue.elsewhere(function)
    return (head(function) + [f"{n:>4}  {line}" for n, line in enumerate(text, first)]
            + (["", f"{function.__name__} elsewhere", *(f"    {place}" for place in found)] if found else []))


def traced(function, run, differences):
    """A run as text, a list of lines. function: of `ref`. run: from `trace.record`. differences: from `trace.finite_differences`, or []."""
    width = max(120, shutil.get_terminal_size().columns)
    lines = head(function) + ["given"] + [f"    {line}" for line in shown(run.given)] + ["", *body(run, 0, set(), width // 2, colouring())]
    if differences:
        lines += ["", "gradients, each beside the central difference of sum(what came from above * what the forward returns)"]
    for gradient in differences:
        first, second, apart = beside(*gradient)
        lines += [f"    {gradient[0]:<16}{first}", f"    {'difference':<16}{second}   {apart}"]
    return lines


def beside(name, gradient, difference, size):
    """A gradient's numbers, its finite difference's, and how far they are apart, each a str. name: of the gradient. gradient, difference: (n,) arrays.
    size: int, how many elements the whole has."""
    of = f"all {size}" if gradient.size == size else f"{gradient.size} of {size} elements"
    return values(gradient), values(difference), f"{np.max(np.abs(gradient - difference), initial=0):.1e} apart at most, in {of}"


def result(run, step):
    """[(name, value)] to show beside a step: what it made, or what the run returned by it. run: `trace.Run`. step: its `trace.Step`."""
    return trace.returned(run) if step is run.steps[-1] and step.returns else step.made


def hidden(called, run, step):
    """Whether what it returned is seen nowhere else, for it was used within the step. called: `trace.Run` by the step. run, step: as in `result`."""
    return not any(trace.same(called.returned, value) for _, value in result(run, step))


def body(run, depth, seen, width, colour):
    """The lines of a run and of what it called; what was shown before is not shown again, but what it returned is.

    run: `trace.Run`. depth: int. seen: functions shown so far, added to. width: of the source's column. colour: a function.
    """
    indent = "  " * depth
    for step in run.steps:
        code, room = step.source.split("\n"), width - 2 * depth - 8
        right = ["as it came"] if step.named and not step.made else shown(result(run, step))
        if step.returns:
            right = [f"-> {line}" for line in right]
        if max(map(len, code)) > room:
            right = [""] * len(code) + right
        for i in range(max(len(code), len(right))):
            text = code[i] if i < len(code) else ""
            number = step.line + i if i < len(code) else ""
            yield f"{number:>4}  {indent}{colour(text)}{' ' * (room - len(text))}  {right[i] if i < len(right) else ''}".rstrip()
        for called in step.calls:
            again = (called.file, called.line) in seen
            yield f"      {indent}  {called.name}" + (", as above" if again else "")
            if again and hidden(called, run, step):
                yield from (f"      {indent}    -> {line}" for line in shown(trace.returned(called)))
            if not again:
                seen.add((called.file, called.line))
                yield from (f"      {indent}    {line}" for line in shown([(n, v) for n, v in called.given if n in called.unnamed]))
                yield from body(called, depth + 2, seen, width, colour)


def visible(named):
    """[(name, its description, value)] of what is in the values; of a dict or a list the first few, and a line that counts the others. named: [(name, value)]."""
    lines = []
    for name, value in named:
        leaves = trace.leaves(name, value)
        lines += [(leaf, described(v), v) for leaf, v in leaves[:LEAVES]]
        if len(leaves) > LEAVES:
            lines.append(("", f"and {len(leaves) - LEAVES} more of {name}".removesuffix(" of "), None))
    return lines


def shown(named):
    """["name  description"] of what is `visible`. named: [(name, value)]."""
    lines = visible(named)
    width = max((len(name) for name, _, _ in lines), default=0)
    return [f"{name:<{width}}  {words}".strip() for name, words, _ in lines]


def described(value):
    """One value in words. value: array or anything else."""
    if not isinstance(value, np.ndarray):
        return getattr(value, "__name__", repr(value)) if callable(value) else repr(value)
    if value.ndim == 0:
        return values(value)
    if value.dtype.kind != "f" or value.size == 0:
        return f"{value.shape} {value.dtype}  {values(value)}"
    with np.errstate(invalid="ignore"):  # of an infinity
        return f"{value.shape} {value.dtype}  {values(value)}  mean {value.mean():.4g}  std {value.std():.4g}"


def values(array):
    """The first three and the last of its numbers. array: array."""
    def one(x):
        return f"0x{x:08x}" if array.dtype == np.uint32 else f"{x:.4g}" if array.dtype.kind == "f" else str(x)

    flat = array.ravel()
    few = [one(x) for x in flat] if flat.size <= 4 else [*(one(x) for x in flat[:3]), "..", one(flat[-1])]
    return " ".join(few)
