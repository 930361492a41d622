"""One run of an equation, line by line: each statement, the values that it computed, and the calls inside it.

Checks are left out: an `if` that was not taken, and a private function that returned nothing new.
"""
import ast
import functools
import inspect
import re
import sys
import textwrap
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

import ref
from ref.reading.catalogue import tree

MATH = f"{Path(ref.__file__).parent}/"
READER = f"{MATH}reading/", f"{MATH}__main__.py", f"{MATH}tree.py"
ALL = 1000  # calls within each other that are shown
BLOCKS = ast.If, ast.For, ast.While, ast.With


@dataclass
class Step:
    """One statement as it ran. end: of a loop, the last line of its body, else 0. returns: the names in a return.
    written: names; made: [(name, value)] that changed."""

    line: int
    source: str
    end: int
    returns: list | None
    written: list = field(default_factory=list)
    made: list = field(default_factory=list)
    calls: list = field(default_factory=list)  # of `Run`s


@dataclass
class Run:
    """One call. given: {name: value}. unnamed: arguments without a name there. returned: a value, or the exception."""

    name: str
    place: tuple
    given: dict
    unnamed: list
    steps: list = field(default_factory=list)
    returned: object = None
    tokens: tuple = (), ()  # words of a prompt, and the tokens after them


def record(function, arguments):
    """Call function(**arguments) and follow it. function: of `ref`. arguments: dict. Returns the `Run`."""
    top, active = [], []

    def called(frame, event, _):
        code = frame.f_code
        if not code.co_filename.startswith(MATH) or code.co_filename.startswith(READER) or code.co_name.startswith("<"):
            return None
        given, callers = _arguments(frame), {id(value) for value in frame.f_back.f_locals.values()}
        run = Run(code.co_name, (code.co_filename, code.co_firstlineno), _copied(given),
                  [name for name, value in given.items() if id(value) not in callers])
        (active[-1][0].steps[-1].calls if active else top).append(run)
        active.append((run, _statements(code), [], dict(run.given)))  # [what runs], {name: value as last shown}
        return followed

    def followed(frame, event, value):
        run, known, running, held = active[-1]
        if event == "line" and frame.f_lineno in known:
            statement, source = known[frame.f_lineno]
            if running != [statement]:
                _close(run, running, held, frame.f_locals, frame.f_lineno)
                running.append(statement)
                end = statement.body[-1].end_lineno if isinstance(statement, (ast.For, ast.While)) else 0
                run.steps.append(Step(statement.lineno, source, end, _names_returned(statement)))
        elif event == "return":
            _close(run, running, held, frame.f_locals, None)
            run.returned = _copied(value)
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
    _tidy(top[0])
    return top[0]


def _arguments(frame):
    """{name: value} of what a call was given."""
    code = frame.f_code
    stars = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return {name: frame.f_locals[name] for name in code.co_varnames[:code.co_argcount + code.co_kwonlyargcount + stars]}


def rows(run, deep=ALL, depth=0, seen=None):
    """What there is to show of a run, in order: (depth, line or None, source or the name of what was called, mark,
    [(name, value)] or None for nothing new).

    run: `Run`. deep: int, how many calls within each other are shown in full; of others what was returned. depth: int.
    seen: {function: its lines that were shown}; a call that takes no other line is not shown in full again. What a call
    returned is shown where nothing else has it. Of a loop's rounds through the same lines the first is shown; of the
    others their number, and the numbers and arrays that they leave.
    """
    seen, repeated = {} if seen is None else seen, _repeated(run.steps)
    for i, step in enumerate(run.steps):
        if repeated.get(i):
            rounds, left = repeated[i]
            yield depth, None, f"{rounds} more time{'s' * (rounds > 1)} the same lines", "", left
        if i in repeated:
            continue
        back = step is run.steps[-1] and step.returns
        made = _returned(run) if back else step.made
        yield depth, step.line, step.source, "→ " if back else "", made if made or not step.written else None
        for called in step.calls:
            lines = {step.line for step in called.steps}
            again = lines <= seen.get(called.place, set())
            if again or not deep:
                elsewhere = all(any(same(value, known) for _, known in made) for _, value in _returned(called))
                what = f"{called.name}, {'as above' if again else 'folded'}"
                yield depth + 1, None, what, "→ ", [] if elsewhere else _returned(called)
            else:
                seen[called.place] = lines | seen.get(called.place, set())
                yield depth + 1, None, called.name, "", [(name, called.given[name]) for name in called.unnamed]
                yield from rows(called, deep - 1, depth + 2, seen)


def _repeated(steps, at=0):
    """{place of a step that is not shown: None, or where such rounds of a loop begin (how many rounds, [(name, value)]
    of what they leave)}. steps: of a run, or from place `at` on."""
    found, i = {}, 0
    while i < len(steps):
        if not steps[i].end:
            i += 1
            continue
        head = steps[i]
        stop = next((j for j in range(i, len(steps)) if not head.line <= steps[j].line <= head.end), len(steps))
        heads = [*(j for j in range(i, stop) if steps[j].line == head.line), stop]
        rounds = [steps[a:b] for a, b in zip(heads, heads[1:])]
        for _, group in groupby(range(len(rounds)), key=lambda n: [_path(step) for step in rounds[n]]):
            first, *others = group
            found |= _repeated(rounds[first][1:], at + heads[first] + 1)
            if others:
                found |= dict.fromkeys(range(at + heads[others[0]], at + heads[others[-1] + 1]))
                found[at + heads[others[0]]] = len(others), _left(steps[heads[others[0]]:heads[others[-1] + 1]])
        i = stop
    return found


def _left(steps):
    """[(name, value)] of the numbers and arrays that steps made, each as it was last; what is in a dict left out."""
    last = dict(made for step in steps for made in step.made)
    return [(name, value) for name, value in last.items()
            if isinstance(value, (int, float, np.ndarray, np.generic)) and "[" not in name]


def _path(step):
    return step.line, tuple((called.place, tuple(map(_path, called.steps))) for called in step.calls)


def leaves(name, value):
    """[(name, value)] of all that is in a value, numbers and arrays as arrays. name: str. value: anything."""
    if isinstance(value, dict) and value:
        return [leaf for key, v in value.items() for leaf in leaves(f"{name}[{key!r}]", v)]
    if isinstance(value, (list, tuple)) and not all(isinstance(v, (int, float)) for v in value):
        return [leaf for i, v in enumerate(value) for leaf in leaves(f"{name}[{i}]", v)]
    number = isinstance(value, (int, float, np.ndarray, np.generic)) or isinstance(value, (list, tuple)) and value
    return [(name, np.asarray(value) if number else value)]


def same(a, b):
    """Whether two values look the same: the same bits in the same shapes at the same places. a, b: anything."""
    a, b = ([(n, (v.dtype, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v) for n, v in leaves("", value)]
            for value in (a, b))
    return a == b


def _close(run, running, held, variables, following):
    """The last step of the run has ended, and line `following` comes next (None: it returns): note what it made, or
    drop it."""
    if not running:
        return
    statement, step = running.pop(), run.steps[-1]
    block = isinstance(statement, BLOCKS)
    entered = block and following is not None and statement.body[0].lineno <= following <= statement.body[-1].end_lineno
    if block and not entered and not step.calls or isinstance(statement, (ast.With, ast.FunctionDef)):
        run.steps.pop()
        return
    inside = list(ast.walk(statement.target if isinstance(statement, ast.For) else ast.Pass() if block else statement))
    if isinstance(statement, ast.Expr):  # a call, which may have written to what it was given
        written = [node.id for node in inside if isinstance(node, ast.Name)]
    else:
        written = [_root(node).id for node in inside
                   if isinstance(node, (ast.Name, ast.Subscript)) and isinstance(node.ctx, ast.Store)]
    for name in dict.fromkeys(n for n in written if n in variables and n != "_"):
        step.written.append(name)
        if name not in held or not same(held[name], variables[name]):
            before, held[name] = held.get(name), _copied(variables[name])
            now = held[name]  # of a dict with the same keys: only what has changed
            one_by_one = isinstance(now, dict) and isinstance(before, dict) and now.keys() == before.keys()
            step.made += [(f"{name}[{key!r}]", now[key]) for key in now
                          if not same(before[key], now[key])] if one_by_one else [(name, now)]


def _root(node):
    """The name at the bottom of a[i][j]."""
    return _root(node.value) if isinstance(node, ast.Subscript) else node


@functools.cache
def _statements(code):
    """{line: (statement, its source)} of a function; of an `if` or a loop the lines of its head alone."""
    function, known = tree(code), {}
    lines = textwrap.dedent("".join(inspect.getsourcelines(code)[0])).split("\n")
    for node in ast.walk(function):
        if isinstance(node, ast.stmt) and node is not function:
            last = node.body[0].lineno - 1 if hasattr(node, "body") else node.end_lineno
            head = range(node.lineno, max(node.lineno, last) + 1)
            source = "\n".join(lines[n - code.co_firstlineno][function.body[0].col_offset:] for n in head)
            known |= {n: (node, source) for n in head}
    return known


def _tidy(run):
    """Take out helpers that made no new number, and calls and conversions that left nothing to see."""
    for step in run.steps:
        for called in step.calls:
            _tidy(called)
        step.calls = [called for called in step.calls
                      if not called.name.startswith("_") and called.place[0] != f"{MATH}shapes.py"
                      or _new_numbers(called)]
    door = r"\s*([\w.]+|[\w, ()]+ = .*\b(integer|number)s?)\("
    kept = [s for s in run.steps if s.made or s.calls or not re.match(door, s.source)]
    # a round of a loop with nothing in it has only checked
    run.steps = [s for s, after in zip(kept, [*kept[1:], None])
                 if not s.end or s.calls or after and s.line < after.line <= s.end]


def _new_numbers(run):
    out, held = ([v.ravel() for _, v in leaves("", x) if isinstance(v, np.ndarray) and v.dtype.kind in "biuf"]
                 for x in (run.returned, run.given))
    return bool(out) and not np.all(np.isin(np.concatenate(out), np.concatenate(held or [[]])))


def _copied(value):
    """The value as it is now; a tuple as a list."""
    if isinstance(value, dict):
        return {key: _copied(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(v) for v in value]
    return value.copy() if isinstance(value, np.ndarray) else value


def _names_returned(statement):
    if isinstance(statement, ast.Return):
        values = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
        return [value.id if isinstance(value, ast.Name) else "" for value in values]


def _returned(run):
    """[(name, value)] of what it returned, under the names in its return statement."""
    names = run.steps[-1].returns if run.steps else None
    if isinstance(run.returned, list) and names and len(names) == len(run.returned) > 1:
        return list(zip(names, run.returned))
    return [] if run.returned is None else [((names or [""])[0], run.returned)]
