"""One run of an equation, line by line: each statement with what it made, calls into `ref` inside the line that made them.

What only checks is left out: an `if` that was not taken, and a private function that made no number that it was not given.
"""
import ast
import inspect
import re
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import ref
from ref.reading.catalogue import tree

REF = f"{Path(ref.__file__).parent}/"
READER = (f"{REF}reading/", f"{REF}__main__.py")
BARE_CALL = re.compile(r"[\w.]+\(")
SAMPLED = 32  # elements of an argument whose finite difference is taken, spread evenly


@dataclass
class Step:
    """One statement as it ran: its line and source; of a return, the names it returns; the names it wrote, [(name, value)] of those that are new or
    were changed by it, and the `Run`s it called."""

    line: int
    source: str
    returns: list | None
    named: list = field(default_factory=list)
    made: list = field(default_factory=list)
    calls: list = field(default_factory=list)


@dataclass
class Run:
    """One call: the function's name, file and first line, [(name, value)] of its arguments, which of them the caller has no name for,
    its `Step`s, and what it returned, or the exception that ended it."""

    name: str
    file: str
    line: int
    given: list
    unnamed: list
    steps: list = field(default_factory=list)
    returned: object = None


def record(function, arguments):
    """Call function(**arguments) and follow it. function: of `ref`. arguments: dict. Returns the `Run`."""
    top, active, parsed = [], [], {}

    def called(frame, event, _):
        code = frame.f_code
        if not code.co_filename.startswith(REF) or code.co_filename.startswith(READER) or code.co_name.startswith("<"):
            return None
        count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
        given = [(name, copied(frame.f_locals[name])) for name in code.co_varnames[:count]]
        callers = {id(value) for value in frame.f_back.f_locals.values()}
        unnamed = [name for name, _ in given if id(frame.f_locals[name]) not in callers]
        run = Run(code.co_name, code.co_filename, code.co_firstlineno, given, unnamed)
        (active[-1][0].steps[-1].calls if active and active[-1][0].steps else top).append(run)
        if code not in parsed:
            parsed[code] = statements(code)
        active.append((run, parsed[code], [], dict(given)))  # [the statement that is running], {name: its value after the last one that made it}
        return followed

    def followed(frame, event, value):
        run, known, running, held = active[-1]
        if event == "line" and frame.f_lineno in known:
            statement, source = known[frame.f_lineno]
            if running and running[0] is statement:
                return followed
            close(run, running, held, frame.f_locals, frame.f_lineno)
            running.append(statement)
            run.steps.append(Step(statement.lineno, source, returned_names(statement)))
        elif event == "return":
            close(run, running, held, frame.f_locals, None)
            run.returned = copied(value)
            active.pop()
        return followed

    before = sys.gettrace()
    sys.settrace(called)
    try:
        function(**arguments)
    except Exception as error:
        if not top:
            raise
        top[0].returned = error
    finally:
        sys.settrace(before)
    tidy(top[0])
    return top[0]


def close(run, running, held, variables, following):
    """The last step of the run has ended, and line `following` comes next (None: it returns): note what it made, or drop it.

    run: `Run`. running: [its statement], emptied here. held: {name: value} so far, added to. variables: the run's, as they are now.
    """
    if not running:
        return
    statement, step = running.pop(), run.steps[-1]
    header = isinstance(statement, (ast.If, ast.For, ast.While, ast.With))
    entered = header and following is not None and statement.body[0].lineno <= following <= statement.body[-1].end_lineno
    if header and not entered and not step.calls or isinstance(statement, (ast.With, ast.FunctionDef)):
        run.steps.pop()
        return
    stored = statement.target if isinstance(statement, ast.For) else ast.Module([] if header else [statement], [])
    names = [root(node).id for node in ast.walk(stored) if isinstance(node, (ast.Name, ast.Subscript)) and isinstance(node.ctx, ast.Store)]
    if isinstance(statement, ast.Expr):  # a call that may have written to what it was given
        names = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
    step.named = [name for name in dict.fromkeys(names) if name in variables and name != "_"]
    for name in step.named:
        if name not in held or not same(held[name], variables[name]):
            held[name] = copied(variables[name])
            step.made.append((name, held[name]))
    if isinstance(statement, ast.Expr):
        step.named = [name for name, _ in step.made]


def root(node):
    """The name at the bottom of a[i][j]. node: ast.Subscript or ast.Name."""
    return root(node.value) if isinstance(node, ast.Subscript) else node


def same(a, b):
    """Whether two values look the same: the same numbers of the same dtype and shape in the same places. a, b: anything."""
    a, b = leaves("", a), leaves("", b)
    return len(a) == len(b) and all(
        m == n and (u.dtype == v.dtype and u.shape == v.shape and u.tobytes() == v.tobytes() if isinstance(u, np.ndarray) and isinstance(v, np.ndarray)
                    else u is v) for (m, u), (n, v) in zip(a, b))  # fmt: skip


def statements(code):
    """{line: (statement, its source)} of a function; of an `if` or a loop the lines of its head alone. code: its code object."""
    function, known = tree(code), {}
    lines = textwrap.dedent("".join(inspect.getsourcelines(code)[0])).split("\n")
    for node in ast.walk(function):
        if isinstance(node, ast.stmt) and node.lineno > code.co_firstlineno:
            last = node.body[0].lineno - 1 if hasattr(node, "body") else node.end_lineno
            head = range(node.lineno, max(last, node.lineno) + 1)
            text = "\n".join(lines[n - code.co_firstlineno][function.body[0].col_offset:] for n in head)
            known |= {n: (node, text) for n in head}
    return known


def tidy(run):
    """Take out of the run, and of what it called, private functions that made no new number, and lines that left nothing to see. run: `Run`."""
    for step in run.steps:
        for called in step.calls:
            tidy(called)
        step.calls = [c for c in step.calls if not c.name.startswith("_") or new_numbers(c)]
    run.steps = [s for s in run.steps if s.made or s.calls or s.named or s.returns or not BARE_CALL.match(s.source.strip())]


def new_numbers(run):
    """Whether it returned a number that it was not given. run: `Run`."""
    def numbers(value):
        return [a.ravel() for _, a in leaves("", value) if isinstance(a, np.ndarray) and a.dtype.kind in "biuf"]

    out, held = numbers(run.returned), numbers([value for _, value in run.given])
    return bool(out) and not np.all(np.isin(np.concatenate(out), np.concatenate(held or [[]])))


def copied(value):
    """The value as it is now. value: anything; arrays and what holds them are copied."""
    if isinstance(value, dict):
        return {key: copied(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [copied(v) for v in value]
    return value.copy() if isinstance(value, np.ndarray) else value


def leaves(name, value):
    """[(name, value)] of what is in it: an array for a number or an array, the thing itself for other things. name: str. value: anything."""
    if isinstance(value, (dict, list, tuple)) and not value:
        return [(name, value)]
    if isinstance(value, dict):
        return [leaf for key, v in value.items() for leaf in leaves(f"{name}[{key!r}]", v)]
    if isinstance(value, (list, tuple)) and not all(isinstance(v, (int, float)) for v in value):
        return [leaf for i, v in enumerate(value) for leaf in leaves(f"{name}[{i}]", v)]
    number = isinstance(value, (int, float, complex, list, tuple, np.ndarray, np.generic))
    return [(name, np.asarray(value) if number else value)]


def returned_names(statement):
    """The names in a return statement, "" for what has none; None for another statement. statement: ast.stmt."""
    if not isinstance(statement, ast.Return):
        return None
    values = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
    return [value.id if isinstance(value, ast.Name) else "" for value in values]


def returned(run):
    """[(name, value)] of what it returned, under the names in its return statement. run: `Run`."""
    names = run.steps[-1].returns if run.steps else None
    several = isinstance(run.returned, list) and names and len(names) == len(run.returned) > 1
    return list(zip(names, run.returned)) if several else [((names or [""])[0], run.returned)]


# --- gradients ----------------------------------------------------------------------------------------------------


def gradient_names(backward):
    """The arguments whose gradients it returns, in order, as its docstring says: "Returns dx0, deps, each ..." or "a dict". backward: of `ref`."""
    said = inspect.getdoc(backward).rsplit("Returns", 1)[1].split("\n")[0]
    names = []
    for word in said.removesuffix(".").replace(" and ", " ").replace(",", " ").split():
        if word.startswith("d") and word[1:].isidentifier() and word != "dict":
            names.append(word[1:])
        elif word == "dict":
            names.append("params")
        elif word != "a":
            break
    return names


def finite_differences(backward, forward, inputs, upstream, gradients):
    """Each gradient beside the central differences of sum(upstream * outputs) of the forward, by five points with steps of 1e-3.

    backward, forward: of `ref`. inputs: the forward's arguments. upstream: one array or number for each of its outputs. gradients: what the backward
    returned. Returns [(name, gradient, difference)], arrays of some 32 elements of each leaf, and how many elements it has, as a fourth.
    """
    def loss(moved):
        outputs = forward(**moved)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return sum(np.sum(d * out) for d, out in zip(upstream, outputs))

    rows = []
    for name, gradient in zip(gradient_names(backward), gradients, strict=True):
        of = inputs[name] if isinstance(inputs[name], dict) else {None: inputs[name]}
        for key, value in of.items():
            value = np.asarray(value, np.float64)
            chosen = np.unique(np.append(np.arange(min(3, value.size)), np.linspace(0, value.size - 1, min(SAMPLED, value.size)).astype(int)))
            slopes = []
            for i in chosen:
                def at(h):
                    moved = value.copy()
                    moved.flat[i] += h
                    return loss(inputs | {name: moved[()] if key is None else of | {key: moved}})

                slopes.append((8 * (at(1e-3) - at(-1e-3)) - (at(2e-3) - at(-2e-3))) / 12e-3)
            g = gradient if key is None else gradient[key]
            rows.append((f"d{name}" + (f"[{key!r}]" if key else ""), np.ravel(g)[chosen], np.array(slopes), value.size))
    return rows
