"""The reading order, an equation with its source, and a trace, as text for a terminal."""
import functools
import html
import inspect
import re
import shutil
import sys

import numpy as np

from ref.reading import attended, catalogue, course, trace

LEAVES = 6  # of a dict or a list, what is shown
ROOM = 160  # lines of a trace; calls within calls are folded where it would be longer
FOLDED = "what is folded: `python -m ref trace` with its name shows it; with `--html FILE` nothing is folded"
ESCAPE = re.compile(r"\x1b\[[\d;]*m")  # what sets a colour, and takes no room


def colouring(page=False):
    """A function that colours Python source, for a page or for a terminal; elsewhere, and without Pygments, the source
    stays as it is.

    page: bool. A line on stderr says where Pygments is missing.
    """
    return _coloured(page) if page or sys.stdout.isatty() else str


@functools.cache
def _coloured(page):
    try:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter, TerminalFormatter
        from pygments.lexers import PythonLexer
    except ModuleNotFoundError:
        print('no colours without Pygments: pip install -e ".[study]"', file=sys.stderr)
        return html.escape if page else str
    formatter = HtmlFormatter(nowrap=True) if page else TerminalFormatter()
    lexer = PythonLexer(stripnl=False)
    return functools.cache(lambda source: highlight(source, lexer, formatter).rstrip("\n"))


def shades():
    """The colours of source on a page, for a light and a dark screen, as CSS; "" without Pygments."""
    try:
        from pygments.formatters import HtmlFormatter
    except ModuleNotFoundError:
        return ""
    light, dark = ("\n".join(rule.partition(" /*")[0] for rule in HtmlFormatter(style=style).get_style_defs(
        ".code").split("\n") if rule.startswith(".code .")) for style in ("friendly", "native"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def folded(lines):
    """The lines, broken where the terminal ends, at two spaces rather than at one; the rest stands four columns further
    to the right than the line does behind its number. lines: list of str."""
    width, out = shutil.get_terminal_size().columns, []
    for line in lines:
        indent = " " * (re.match(r" *\d* *", ESCAPE.sub("", line)).end() + 4)
        out.append("")
        for group in re.findall(r" *[^ ]+(?: [^ ]+)*| +$", line):
            whole = _columns(indent + group.lstrip()) <= width
            for part in [group] if whole else re.findall(r" *[^ ]+", group):
                fits = not out[-1] or _columns(out[-1] + part) <= width
                out[-1:] = [out[-1] + part] if fits else [out[-1], indent + part.lstrip()]
    return out


def _columns(line):
    return len(ESCAPE.sub("", line))


def listing():
    """The reading order, a list of lines."""
    lines, width, number = [], shutil.get_terminal_size().columns, 0
    titles = {page.number: page.title for page in course.pages()}
    for n, (name, f) in enumerate(catalogue.equations().items(), 1):
        before, number = number, course.place(name)[0]
        if number != before:
            lines += [""] * bool(lines) + [f"{number}. {titles.get(number, 'On no page yet')}", ""]
        after = ", ".join(needed.removeprefix("ref.") for needed in catalogue.needs(f))
        paper = "   ".join(filter(None, (catalogue.paper(f), after and f"after {after}")))
        head = f"{n:>3}  {name.removeprefix('ref.'):<40}  {catalogue.where(f):<26}"
        whole = f"{head}  {paper}".rstrip()
        lines += [whole] if len(whole) <= width else [head.rstrip(), f"       {paper}"]
        lines += [f"       {line}" for line in catalogue.formulas(f) or [catalogue.sentence(f)]]
    return [*lines, "", "papers", *(f"    {paper}" for paper in catalogue.papers())]


def source(function):
    """The function's equations, its source in colours, and where else its name lives, a list of lines. function: of
    `ref`."""
    lines, first = inspect.getsourcelines(function)
    numbered = [f"{n:>4}  {line}" for n, line in enumerate(colouring()("".join(lines).rstrip()).split("\n"), first)]
    found = catalogue.elsewhere(function)
    return _head(function) + numbered + (["", f"{function.__name__} elsewhere", *(f"    {place}" for place in found)]
                                         if found else []) + _papers(function)


def traced(function, run, differences):
    """A run as text, a list of lines. function: of `ref`. run: from `trace.record`. differences: from
    `gradients.finite_differences`, or []."""
    lines = [*_head(function), "given", *(f"    {line}" for line in _aligned(visible(run.given.items()))), ""]
    lines += (shown := steps(run))
    lines += ["", FOLDED] * any(line.endswith(", folded") for line in shown) + attended.lines(run)
    if differences:
        lines += ["", "gradients, each next to the central difference of sum(upstream * what the forward returns)"]
    for gradient in differences:
        first, second, apart = compared(*gradient)
        lines += [f"    {gradient[0]:<16}{first}", f"    {'difference':<16}{second}   {apart}"]
    return lines + _papers(function)


def steps(run, deep=None):
    """The lines of a run next to the values that they made. deep: as in `trace.rows`; None for as much as fits
    `ROOM`."""
    if deep is None:
        whole, deep = steps(run, trace.ALL), 0
        if len(whole) <= ROOM:
            return whole
        while len(steps(run, deep + 1)) <= ROOM:
            deep += 1
    columns, colour, lines = shutil.get_terminal_size().columns, colouring(), []
    width = max(120, columns) // 2
    for depth, line, code, mark, values in trace.rows(run, deep):
        right = ["unchanged"] if values is None else [mark.replace("→", "->") + words
                                                      for words in _aligned(visible(values))]
        left, room = code.split("\n"), width - 2 * depth - 8
        # values stand next to the code, or below it where there is no room
        fits = max(map(len, right), default=0) <= columns - width
        right = [""] * len(left) * (max(map(len, left)) > room or not fits) + right
        room = room if fits else 4
        for i in range(max(len(left), len(right))):
            part = left[i] if i < len(left) else ""
            number = line + i if line and i < len(left) else ""
            shown = colour(part) if line else part
            beside = right[i] if i < len(right) else ""
            lines.append(f"{number:>4}  {'  ' * depth}{shown}{' ' * (room - len(part))}  {beside}".rstrip())
    return lines


def compared(name, gradient, difference, size):
    """A gradient's numbers, its finite difference's, and how far they are apart, each a str. name, gradient,
    difference, size: of `gradients.finite_differences`."""
    apart = np.abs(gradient - difference)[np.isfinite(difference)]
    of = f"all {size}" if apart.size == size else f"{apart.size} of {size} elements"
    return _numbers(gradient), _numbers(difference), f"{np.max(apart, initial=0):.1e} apart at most, in {of}"


def visible(named):
    """[(name, its description, value)] of what is in the values; of a dict or a list the first few, and a line that
    counts the others. named: [(name, value)]."""
    lines = []
    for name, value in named:
        leaves = trace.leaves(name, value)
        lines += [(leaf, described(v), v) for leaf, v in leaves[:LEAVES]]
        if len(leaves) > LEAVES:
            lines.append(("", f"and {len(leaves) - LEAVES} more of {name or 'them'}", None))
    return lines


def _head(function):
    """Its name, place and paper, then its equations."""
    first = "   ".join(filter(None, (catalogue.full(function), catalogue.where(function), catalogue.paper(function))))
    return [first, "", *(f"    {line}" for line in catalogue.formulas(function) or [catalogue.sentence(function)]), ""]


def _papers(function):
    """The papers that it cites, in full."""
    cited = catalogue.cited(function)
    return ["", "papers", *(f"    {paper}" for paper in cited)] if cited else []


def _aligned(lines):
    width = max((len(name) for name, _, _ in lines), default=0)
    return [f"{name:<{width}}  {words}".strip() for name, words, _ in lines]


def described(value):
    """An array's shape, dtype, a few numbers, mean and deviation; a number; the name of a function. value: any."""
    if not isinstance(value, np.ndarray):
        return getattr(value, "__name__", repr(value))
    if value.ndim == 0:
        return _numbers(value)
    words = f"{value.shape} {value.dtype}  {_numbers(value)}"
    with np.errstate(invalid="ignore"):  # of an infinity
        return words + (f"  mean {value.mean():.4g}  std {value.std():.4g}"
                        if value.dtype.kind == "f" and value.size else "")


def _numbers(array):
    """The first three and the last, or all four."""
    flat = array.ravel()
    few = flat if flat.size <= 4 else np.concatenate([flat[:3], flat[-1:]])
    words = [f"0x{x:08x}" if array.dtype == np.uint32 else f"{x:.4g}" if array.dtype.kind == "f" else str(x)
             for x in few]
    return " ".join(words if flat.size <= 4 else [*words[:3], "..", words[3]])
