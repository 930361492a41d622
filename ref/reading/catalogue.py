"""What is in `ref`: every equation, where it stands, which paper it is from, what it needs, and where else its name
lives.

An equation is a public function of a math module; it goes by its full name, `ref.diffusion.q_sample`. Everything shown
about it is read from its source.
"""
import ast
import difflib
import functools
import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

import ref
from ref.reading import course

ROOT = Path(ref.__file__).parent.parent
# how the equations are read, shown and called
NO_MATH = ("ref.__main__", "ref.command", "ref.reading", "ref.examples", "ref.shapes", "ref.tree",
           "ref.pipelines.folder", "ref.pipelines.vocabulary", "ref.pipelines.config")  # fmt: skip
STOP = r"(?:(?<![ .])(?<!\beq)(?<!\beqs)\.(?=\s|$)|$)"  # of a sentence
PLACE = r"(?:below )?(?:eqs?\.|algorithms?|sections?|tables?|appendix|proposition) [\w.]*\w(?:(?: and | to )[\d.]*\d)?"


@functools.cache
def equations():
    """{full name: function} in the order of the course: page by page, and on a page first what a function needs."""
    names = [found.name for found in pkgutil.walk_packages(ref.__path__, "ref.") if not found.name.startswith(NO_MATH)]
    here = {full(f): f for name in sorted(names) for f in vars(importlib.import_module(name)).values()
            if inspect.isfunction(f) and f.__module__ == name and not f.__name__.startswith("_")}  # fmt: skip
    ordered = {}

    def visit(name):
        if name not in ordered:
            for needed in needs(here[name]):
                if course.place(needed)[0] == course.place(name)[0]:
                    visit(needed)
            ordered[name] = here[name]

    for name in sorted(here, key=course.place):
        visit(name)
    return ordered


def full(function):
    """Its name with its module, or with the package that exports it: `ref.layers.relu`. function: of `ref`."""
    package = function.__module__.rpartition(".")[0]
    exported = getattr(importlib.import_module(package), function.__name__, None) is function
    return f"{package if exported else function.__module__}.{function.__name__}"


@functools.cache
def needs(function):
    """Full names of the public functions of `ref` that it calls, by way of private ones too, in the order of the
    source. function: of `ref`."""
    found, seen = [], set()

    def visit(f):
        seen.add(f)
        for node in ast.walk(tree(f)):
            called = f.__globals__.get(node.id) if isinstance(node, ast.Name) else None
            of_ref = inspect.isfunction(called) and called.__module__.startswith("ref.")
            if of_ref and not called.__module__.startswith(NO_MATH) and called not in seen:
                if called.__name__.startswith("_"):
                    visit(called)
                else:
                    seen.add(called)
                    found.append(full(called))

    visit(function)
    return found


@functools.cache
def tree(function):
    """Its syntax tree, at the lines of its file. function: of `ref`."""
    lines, first = inspect.getsourcelines(function)
    return ast.increment_lineno(ast.parse(textwrap.dedent("".join(lines))), first - 1).body[0]


def find(name):
    """The full name meant by a function's name, with or without its module, with or without "ref". name: str.

    Raises LookupError with the candidates where it is none or several.
    """
    fits = [known for known in equations() if f".{known}".endswith(f".{name}")]
    module, _, last = name.removeprefix("ref.").rpartition(".")
    fits = fits or [known for known, modules in exporting(last).items() if module in modules]
    if len(fits) > 1:
        raise LookupError(f"{name} is in {len(fits)} modules: {', '.join(fit.removeprefix('ref.') for fit in fits)}. "
                          f"Say which")
    if not fits:
        alike = {known.removeprefix("ref."): difflib.SequenceMatcher(None, known.split(".")[-1], last).ratio()
                 for known in equations()}
        near = sorted((known for known in alike if alike[known] > 0.6), key=lambda known: -alike[known])[:5]
        hint = f"close to it: {', '.join(near)}" if near else "`python -m ref` lists them"
        raise LookupError(f"no equation of ref is called {name}; {hint}")
    return fits[0]


@functools.cache
def exporting(name):
    """{full name: the modules, without "ref.", from which it can be imported} of the equations called name. name:
    str."""
    modules = sorted({known.rpartition(".")[0].removeprefix("ref.") for known in equations()})
    called = {known: f for known, f in equations().items() if f.__name__ == name}
    return {known: [module for module in modules if getattr(importlib.import_module(f"ref.{module}"), name, None) is f]
            for known, f in called.items()}


def where(function):
    """Its file, from the root, and line. function: of `ref`."""
    return f"{Path(function.__code__.co_filename).relative_to(ROOT).as_posix()}:{function.__code__.co_firstlineno}"


def paper(function):
    """The papers and numbers that its docstring names, or whose gradient it is; "" where there is neither. function: of
    `ref`."""
    text = " ".join(inspect.getdoc(function).split())
    listed = "|".join(map(re.escape, re.findall(r"^ +\[([^\]]+)\] ", inspect.getdoc(inspect.getmodule(function)),
                                                flags=re.M)))
    found = re.findall(rf"\[(?:{listed})\](?: {PLACE})?", text) if listed else []
    numbered = [cited for cited in found if not cited.endswith("]")]
    forward, is_backward, _ = function.__name__.partition("_backward")
    return ", ".join(dict.fromkeys(numbered or found)) or (f"gradient of {forward}" if is_backward else "")


@functools.cache
def papers():
    """["[DDPM] authors, title, year"] of all modules of the math, each once, in the reading order."""
    return list(dict.fromkeys(f"{name} {citation}" for f in equations().values()
                              for name, citation in _listed(inspect.getmodule(f)).items()))


def _listed(module):
    """{"[DDPM]": authors, title, year} of the papers in a module's docstring."""
    found = re.findall(r"^ +(\[[^\]]+\]) +(.+(?:\n {8,}\S.*)*)", inspect.getdoc(module) or "", flags=re.M)
    return {name: " ".join(citation.split()) for name, citation in found}


def cited(function):
    """["[DDPM] authors, title, year"] of the papers that its docstring names. function: of `ref`."""
    own = _listed(inspect.getmodule(function))
    elsewhere = {paper.split(" ")[0]: paper.partition(" ")[2] for paper in reversed(papers())}
    known = elsewhere | own  # one name may stand for two papers in two modules
    return [f"{name} {known[name]}" for name in dict.fromkeys(re.findall(r"\[[^\]\s]+\]", inspect.getdoc(function)))
            if name in known]


def formulas(function):
    """The equations of its docstring, a list of lines as they are printed there. function: of `ref`.

    They are what follows a colon and two spaces or opens the docstring with a name and an equals sign; and what is
    indented after an empty line.
    """
    doc = inspect.getdoc(function)
    opening = " ".join(line.strip() for line in doc.split("\n\n")[0].split("\n"))
    end = rf"(?:,? \[[A-Z]|{STOP})"
    first = rf"((?:\w+\([^)]*\)|\S+) (?:=|<-) .+?)(?:: |; (?![^()]*\))|, (?:from|the|rounded) |{end})"
    inline = re.search(rf":(?: \w+)?  (.+?){end}", opening) or re.match(first, opening)
    blocks = re.findall(r"(?<=\n\n)(?:    .*\n?)+", doc)
    return ([inline[1]] if inline else []) + [line.strip() for block in blocks for line in block.splitlines()]


def sentence(function):
    """The first sentence of its docstring, or what stands before its equations. function: of `ref`."""
    return re.match(rf"(?s).+?(?:{STOP}|(?=\n\n))", inspect.getdoc(function))[0].replace("\n", " ")


def elsewhere(function):
    """["file:line  what"] where its name lives next to `ref`: in each backend, in the tests, in the records of
    operations. function: of `ref`."""
    name, modules = function.__name__, exporting(function.__name__)[full(function)]
    files = [module.replace(".", "/") for module in modules]
    found = [(path, node.lineno, name) for backend in ("numpy_cpu", "numba_cpu", "triton_gpu") for file in files
             for path, body in [_parsed(f"kernels/{backend}/{file}.py")] for node in body
             if isinstance(node, ast.FunctionDef) and node.name == name]  # fmt: skip
    found += [(path, line, test) for path, line, test, meant in _meant() if any(
        _means(known, name, modules) for known in meant.get(name, ()))]
    for path in (f"kernels/ops/{file}.py" for file in files):
        lines = (ROOT / path).read_text("utf-8").split("\n") if (ROOT / path).exists() else []
        found += [(path, n, m[1]) for n, line in enumerate(lines, 1)
                  if (m := re.match(rf" +(?:Op\()?(\w+\.{name}),", line))]
    return [f"{path}:{line}  {what}" for path, line, what in found]


@functools.cache
def _parsed(path):
    """The path, and the statements of that file; none where it is not there."""
    return path, ast.parse((ROOT / path).read_text("utf-8")).body if (ROOT / path).exists() else []


@functools.cache
def _meant():
    """[(file, line, test, {last name: what it stands for, with its module, and whether an import says so})] of the
    tests."""
    tests = []
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        path, body = _parsed(file.relative_to(ROOT).as_posix())
        imported = _imported(body)
        for node in body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                meant = {}
                for inner in ast.walk(node):
                    for stands, known in _stands(inner, imported):
                        meant.setdefault(stands.rpartition(".")[2], {})[stands, known] = None
                tests.append((path, node.lineno, node.name, meant))
    return tests


def _imported(body):
    """{name: what it stands for, with its module} of the imports among statements."""
    return {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in body
            if isinstance(node, ast.ImportFrom) for alias in node.names} | {
            alias.asname or alias.name: alias.name for node in body if isinstance(node, ast.Import)
            for alias in node.names}  # fmt: skip


def _stands(node, imported):
    """[(what a node of a syntax tree stands for, whether imports decide it)], one or none."""
    if isinstance(node, ast.Name):
        meant = imported.get(node.id, node.id)
    elif isinstance(node, ast.Attribute):
        of = ast.unparse(node.value)
        meant = f"{imported.get(of, of)}.{node.attr}"
    else:
        return []
    return [(meant, meant.startswith(("ref.", "kernels.")) or meant.split(".")[0] in imported)]


def _means(stands, name, modules):
    """Whether it is the equation `name` of one of the modules; where imports do not decide it, whether no other
    equation has that name. stands: of `_stands`."""
    meant, known = stands
    return any(meant.endswith(f".{module}.{name}") for module in modules) or not known and len(exporting(name)) == 1
