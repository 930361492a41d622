"""One run of an equation, line by line: each statement with what it made, calls into `ref` inside the line that made them.

What only checks is left out: an `if` that was not taken, and a private function that made no number that it was not given.
"""
import ast
import inspect
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import ref
from ref.reading.catalogue import tree

REF = f"{Path(ref.__file__).parent}/"
READER = (f"{REF}reading/", f"{REF}__main__.py")
SAMPLED = 64  # elements of an argument whose finite difference is taken, spread evenly


@dataclass
class Step:
    """One statement as it ran: its line, its source, [(name, value)] of what it made, the `Run`s of the functions it called."""

    line: int
    source: str
    made: list = field(default_factory=list)
    calls: list = field(default_factory=list)


@dataclass
class Run:
    """One call: the function's name, file and first line, [(name, value)] of its arguments, its `Step`s, what it returned."""

    name: str
    file: str
    line: int
    given: list
    steps: list = field(default_factory=list)
    returned: object = None


def record(function, arguments):
    """Call function(**arguments) and follow it. function: of `ref`. arguments: dict. Returns the `Run`; where it raised, with the exception on it as `returned`."""
    top, active, parsed = [], [], {}

    def called(frame, event, _):
        code = frame.f_code
        if not code.co_filename.startswith(REF) or code.co_filename.startswith(READER) or code.co_name.startswith("<"):
            return None
        given = [(name, copied(frame.f_locals[name])) for name in code.co_varnames[:code.co_argcount + code.co_kwonlyargcount]]
        run = Run(code.co_name, code.co_filename, code.co_firstlineno, given)
        (active[-1][0].steps[-1].calls if active and active[-1][0].steps else top).append(run)
        if code not in parsed:
            parsed[code] = statements(code)
        active.append((run, parsed[code], []))  # the statement that is running, and what arrays held before it
        return followed

    def followed(frame, event, value):
        run, known, running = active[-1]
        if event == "line" and frame.f_lineno in known:
            statement, source = known[frame.f_lineno]
            if running and running[0] is statement:
                return followed
            close(run, running, frame, frame.f_lineno)
            running[:] = statement, contents(frame.f_locals) if isinstance(statement, ast.Expr) else None
            run.steps.append(Step(statement.lineno, source))
        elif event == "return":
            close(run, running, frame, None)
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


def close(run, running, frame, following):
    """The last step of the run has ended, and line `following` comes next (None: it returns): note what it made, or drop it.

    run: `Run`. running: the statement and what arrays held before it, emptied here. frame: of the run.
    """
    if not running:
        return
    (statement, before), step = running, run.steps[-1]
    running.clear()
    header = isinstance(statement, (ast.If, ast.For, ast.While, ast.With))
    entered = header and following is not None and statement.body[0].lineno <= following <= statement.body[-1].end_lineno
    guard = isinstance(statement, ast.If) and isinstance(statement.body[-1], ast.Raise)
    if header and (not entered or guard) and not step.calls or isinstance(statement, (ast.With, ast.FunctionDef)):
        run.steps.pop()
        return
    if isinstance(statement, ast.Expr):
        names = [name for name, content in contents(frame.f_locals).items() if before.get(name) != content]
    else:
        stored = statement.target if isinstance(statement, ast.For) else ast.Module([] if header else [statement], [])
        names = [node.id for node in ast.walk(stored) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
        names += [root(node).id for node in ast.walk(stored) if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)]
    step.made = [(name, copied(frame.f_locals[name])) for name in dict.fromkeys(names) if name in frame.f_locals and name != "_"]


def root(node):
    """The name at the bottom of a[i][j]. node: ast.Subscript."""
    return root(node.value) if isinstance(node, ast.Subscript) else node


def contents(variables):
    """{name: what it holds} of the variables that can be written to. variables: dict."""
    return {name: [a.tobytes() for _, a in leaves("", value) if isinstance(a, np.ndarray)]
            for name, value in variables.items() if isinstance(value, (np.ndarray, dict, list))}  # fmt: skip


def statements(code):
    """{line: (statement, its source)} of a function; of an `if` or a loop the lines of its head alone. code: its code object."""
    lines, _ = inspect.getsourcelines(code)
    known = {}
    for node in ast.walk(tree(code)):
        if isinstance(node, ast.stmt) and node.lineno > code.co_firstlineno:
            last = node.body[0].lineno - 1 if hasattr(node, "body") else node.end_lineno
            head = range(node.lineno, max(last, node.lineno) + 1)
            text = [lines[n - code.co_firstlineno].rstrip() for n in head]
            known |= {n: (node, textwrap.dedent("\n".join(text))) for n in head}
    return known


def tidy(run):
    """Take out of the run, and of what it called, private functions that made no new number, and lines that left nothing to see. run: `Run`."""
    for step in run.steps:
        for called in step.calls:
            tidy(called)
        step.calls = [c for c in step.calls if not c.name.startswith("_") or new_numbers(c)]
    run.steps = [s for s in run.steps if s.made or s.calls or not s.source.startswith("_") or s is run.steps[-1]]


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
    if isinstance(value, dict):
        return [leaf for key, v in value.items() for leaf in leaves(f"{name}[{key!r}]", v)]
    if isinstance(value, (list, tuple)) and not all(isinstance(v, (int, float)) for v in value):
        return [leaf for i, v in enumerate(value) for leaf in leaves(f"{name}[{i}]", v)]
    number = isinstance(value, (int, float, complex, list, tuple, np.ndarray, np.generic))
    return [(name, np.asarray(value) if number else value)]


def parts(names, value):
    """[(name, value)] of what a function returned, the names being those of its return statement where it has them. names: list. value: anything."""
    if isinstance(value, list) and len(names) == len(value):
        return list(zip(names, value))
    return [("", value)]


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
    returned. Returns [(name, gradient, difference)], arrays of at most 64 elements of each leaf, and how many elements it has, as a fourth.
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
            chosen = np.unique(np.linspace(0, value.size - 1, min(SAMPLED, value.size)).astype(int))
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
