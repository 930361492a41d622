"""The course: sixteen pages in reading order. A page is a text of `ref/reading/pages`, its figures are evaluated.

    # Title                                 the first line
    functions: gan.* divergence.jensen_shannon
    studies: gan                            of `bench/results/studies`; images: files of `bench/results`
    text, with {code} and {code:format}     figures of the block of code, as in an f-string
    ```python ... ```                       one block; `picture`, if it sets one, is an SVG
    | left | right | words                  lines of a table: code, code, and what they differ in
    ## A question?                          and its answer below

A function stands on the page that has the longest pattern for its name, with its package or its module; `f_backward`
where f does. What nothing names comes after all pages.
"""
import csv
import fnmatch
import functools
import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ref.reading import drawing

TEXTS = Path(__file__).parent / "pages"
RESULTS = Path(__file__).parent.parent.parent / "bench" / "results"
MODULES = ("diffusion", "divergence", "flow", "fused", "guidance", "layers", "objectives", "optim", "philox",
           "samplers", "schedules", "sde", "vae")  # what the figures call
FIGURE = re.compile(r"\{([^{}]+?)(?::([^{}:\[\]()\"']*))?\}")


@dataclass(eq=False)
class Page:
    """One text. functions: patterns. studies, images: names. table: lines. questions: [(question, answer)]."""

    number: int
    title: str
    functions: list = field(default_factory=list)
    studies: list = field(default_factory=list)
    images: list = field(default_factory=list)
    text: list = field(default_factory=list)
    table: list = field(default_factory=list)
    code: str = ""
    questions: list = field(default_factory=list)

    @property
    def file(self):
        """Its name in the site."""
        return f"{self.number:02}-{re.sub('[^a-z0-9]+', '-', self.title.lower()).strip('-')}.html"


@functools.cache
def pages():
    """The pages, a list of `Page`, in order."""
    return [_page(path) for path in sorted(TEXTS.glob("*.md"))]


def _page(path):
    """The page of one file. Raises ValueError, which names it, where it does not have the form."""
    written = path.read_text("utf-8")
    code = re.search(r"^```python\n(.*?)^```\n", written, flags=re.M | re.S)
    first, *rest = (written.replace(code[0], "") if code else written).split("\n## ")
    title, _, body = first.partition("\n")
    if not title.startswith("# "):
        raise ValueError(f"{path}: expected `# Title` in the first line, got {title!r}")
    page = Page(int(path.name[:2]), title[2:], code=code[1] if code else "")
    for paragraph in filter(None, map(str.strip, body.split("\n\n"))):
        if listed := re.match(r"(functions|studies|images): ", paragraph):
            for line in paragraph.split("\n"):
                key, _, names = line.partition(": ")
                getattr(page, key).extend(names.split())
        elif paragraph.startswith("| "):
            page.table += [line[2:] for line in paragraph.split("\n")]
        else:
            page.text.append(" ".join(paragraph.split()))
    page.questions = [(question, " ".join(answer.split())) for question, _, answer in (q.partition("\n") for q in rest)]
    return page


@functools.cache
def place(name):
    """(number of its page, place of its pattern there) of a function; after all pages where none has it. name: full.

    Raises ValueError where two pages claim it alike.
    """
    package, _, last = name.rpartition(".")
    module = getattr(importlib.import_module(package), last).__module__
    names = [f"{of.removeprefix('ref.')}.{last.removesuffix('_backward')}" for of in (package, module)]
    fits = [(len(pattern), -page.number, -i) for page in pages() for i, pattern in enumerate(page.functions)
            if any(fnmatch.fnmatchcase(known, pattern) for known in names)]  # fmt: skip
    best = [fit for fit in fits if fit[0] == max(fits)[0]]
    if len({fit[1] for fit in best}) > 1:
        raise ValueError(f"{name} is on the pages {' and '.join(str(-page) for _, page, _ in best)}")
    return (-best[0][1], -best[0][2]) if best else (len(pages()) + 1, 0)


# --- figures ----------------------------------------------------------------------------------------------------------


@dataclass
class Figures:
    """The values that a page's block of code computes, its picture, and the studies that it read."""

    values: dict
    read: list

    def said(self, words):
        """A text with its figures in place. words: str. Raises what its code raises."""
        return FIGURE.sub(lambda found: format(eval(found[1], self.values), found[2] or ""), words)


@functools.cache
def figures(page):
    """Run the block of code of a page. Returns `Figures`. Raises what it raises, OSError where a study is not there."""
    read = []

    def row(study, **where):
        return seeds(study, **where)[0]

    def seeds(study, **where):
        read.append(study)
        return [_row(study, where, path) for path in _paths(study)]

    def rows(study, **where):
        read.append(study)
        return [SimpleNamespace(**row) for row in _fitting(_paths(study)[0], where)]

    names = {name: importlib.import_module(f"ref.{name}") for name in MODULES}
    values = names | {"np": np, "row": row, "rows": rows, "seeds": seeds, "over_seeds": over_seeds,
                      "ranges": ranges, "statement": statement} | {
        "curves": drawing.curves, "arrows": drawing.arrows}
    exec(compile(page.code, f"{page.number:02}", "exec"), values)
    return Figures(values, list(dict.fromkeys(read)))


def over_seeds(values, spec):
    """The first of the values and, where others look different, the least and the largest, as text. values: one for
    each seed. spec: of `format`."""
    first, least, most = (format(value, spec) for value in (values[0], min(values), max(values)))
    return first if least == most else f"{first} ({least} to {most})"


def ranges(found):
    """What the brackets of `over_seeds` are, as a sentence; "" for one seed. found: one row for each."""
    return f" In brackets, the least and the largest of {len(found)} seeds." if len(found) > 1 else ""


def statement(path, begin):
    """The one statement of a file of the project whose first line begins so, on one line. Raises ValueError for none or
    several. path: from the root. begin: str."""
    lines = [known.strip() for known in (RESULTS.parent.parent / path).read_text("utf-8").split("\n")]
    found = [i for i, known in enumerate(lines) if known.startswith(begin)]
    if len(found) != 1:
        raise ValueError(f"{path}: expected one line that begins with {begin!r}, got {len(found)}")
    whole, i = lines[found[0]], found[0]
    while sum(whole.count(bracket) for bracket in "([{") > sum(whole.count(bracket) for bracket in ")]}"):
        whole, i = f"{whole} {lines[i + 1]}", i + 1
    return whole.partition("  #")[0]


def _paths(study):
    """The CSVs of a study, one for each seed: first that of the text."""
    name = f"{study}.csv"
    if study in ("cpu", "h200"):
        return [RESULTS / name]
    return [RESULTS / "studies" / name, *sorted((RESULTS / "studies").glob(f"seed-*/{name}"))]


def _row(study, where, path):
    """The one row of a CSV that has these values, numbers as floats; ... stands for any, None for no value.

    Raises ValueError for none or several.
    """
    found = _fitting(path, where)
    if len(found) != 1:
        raise ValueError(f"{study}: expected one row with {where}, got {len(found)}")
    return SimpleNamespace(**found[0])


def _fitting(path, where):
    return [row for row in _rows(path)
            if all(key in row if value is ... else row.get(key) == value for key, value in where.items())]


@functools.cache
def _rows(path):
    """The rows of a CSV of results, what is empty left out."""
    with open(path, encoding="utf-8", newline="") as file:
        return [{key: _number(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text
