"""A worked example of every equation: small arguments, mostly two digits of 16 x 16 pixels and their noise.

`example(function)` looks an argument up by its name: in FUNCTIONS of `ref.examples.<module>`, in its ARGUMENTS, in the
function's own defaults, then in `base.ALL`. A new function needs an entry only for an argument whose name no table has,
or has with another meaning. `python -m ref` and the tests of the gradients read them.
"""
import importlib
import importlib.util
import inspect
import types

from ref.examples.base import ALL


def tables(function):
    """The tables of a function's arguments, the first that has a name holds. function: of `ref`. Returns a list of
    dicts."""
    found, name = _of(function)
    own = getattr(found, "FUNCTIONS", {})
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.default is not p.empty}
    return [own.get(name, {}), getattr(found, "ARGUMENTS", {}), defaults, ALL]


def tokens(function, given=()):
    """(words of its example's first prompt, names of the tokens after them), none where it reads no prompt, or another
    one. function: of `ref`. given: names of arguments that are not the example's."""
    found, name = _of(function)
    argument, words, others = getattr(found, "TOKENS", {}).get(name, (None, [], []))
    return ([], []) if argument in given else (words, others)


def _of(function):
    """The module of its examples, and its name there."""
    module, _, inner = function.__module__.removeprefix("ref.").partition(".")
    path = f"ref.examples.{module}"
    found = importlib.import_module(path) if importlib.util.find_spec(path) else types.SimpleNamespace()
    return found, f"{inner}.{function.__name__}" if module in ("nets", "pipelines") else function.__name__


def example(function, given=None):
    """Its arguments by name, in order. function: of `ref`. given: {name: value} in place of the tables' entries.

    Raises LookupError for an argument without an example.
    """
    known, made = tables(function), dict(given or {})

    def value(argument):
        if argument not in made:
            table = next((table for table in known if argument in table), None)
            if table is None:
                raise LookupError(f"{function.__module__}.{function.__name__}: no worked example for its argument "
                                  f"{argument}; ref/examples/ has them")
            entry = table[argument]
            recipe = inspect.signature(entry).parameters if isinstance(entry, types.FunctionType) else None
            made[argument] = entry if recipe is None else entry(**{other: value(other) for other in recipe})
        return made[argument]

    return {argument: value(argument) for argument in inspect.signature(function).parameters}
