"""Run an equation on its worked example, with some arguments set by hand."""
import ast
import inspect

import numpy as np

from ref.examples import example, tokens
from ref.philox import normal
from ref.reading import gradients, trace
from ref.reading.catalogue import equations, full


def run(function, given=None):
    """Trace it on its worked example. function: of `ref`. given: as in `example`; for a `_backward` its forward's
    arguments too.

    Returns the `trace.Run`; of a `_backward` the rows of `gradients.finite_differences`, else []. Raises LookupError as
    `example` does.
    """
    if not function.__name__.endswith("_backward"):
        ran = trace.record(function, example(function, given))
        ran.tokens = tokens(function, given or ())
        return ran, []
    forward, inputs, upstream, arguments = backward_example(function, given or {})
    ran = trace.record(function, arguments)
    if isinstance(ran.returned, Exception):
        return ran, []
    return ran, gradients.finite_differences(function, forward, inputs, upstream, ran.returned
                                         if isinstance(ran.returned, list) else [ran.returned])


def arguments(function):
    """{name: value} of its worked example; of a `_backward` with those of its forward. function: of `ref`."""
    if not function.__name__.endswith("_backward"):
        return example(function)
    _, inputs, _, own = backward_example(function, {})
    return inputs | own


def settings(function, words):
    """{name: value} of words such as "t=500". function: of `ref`. words: list of str.

    Raises ValueError for a word that is no name=value, a name that is no argument, a value that cannot stand where the
    example's does.
    """
    known, found = arguments(function), {}
    for word in words:
        name, equals, said = word.partition("=")
        if not equals or name not in known:
            raise ValueError(f"--set {word}: expected NAME=VALUE with a name out of {', '.join(known)}")
        of = known[name]
        if callable(of) or isinstance(of, dict) or isinstance(of, tuple) and any(map(callable, of)):
            raise ValueError(f"--set {word}: {name} is a {type(of).__name__}, which no text can stand for; numbers, "
                             f"lists and names can")
        if name in found:
            raise ValueError(f"--set {word}: expected {name} once, got it twice")
        try:
            found[name] = said.strip("'\"") if isinstance(of, str) else _value(said, of)
        except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
            raise ValueError(f"--set {word}: expected a number, a list or None for {name}, got {said!r}") from None
    return found


def _value(said, of):
    """The number, None or array of numbers that a text says. said: str. of: what the example has there."""
    value = ast.literal_eval(said)
    number = isinstance(value, int) or np.array(value).dtype.kind in "iuf"
    if value is not None and not (number and isinstance(value, bool) == isinstance(of, bool)):
        raise ValueError(said)
    if not isinstance(value, list):
        return value
    return np.array(value, of.dtype if isinstance(of, np.ndarray) and of.dtype.kind != "i" else None)


def backward_example(backward, given):
    """The forward, its arguments, the upstream gradients, and the arguments of the backward. backward: of `ref`. given:
    {name: value} in place of the forward's examples."""
    forward = equations()[full(backward).removesuffix("_backward")]
    inputs, names = example(forward, given), list(inspect.signature(backward).parameters)
    returned = forward(**inputs)
    returned = returned if isinstance(returned, tuple) else (returned,)
    outputs = [out for out in returned if not isinstance(out, dict)]
    upstream = {name: given.get(name, 1.0 if np.ndim(out) == 0 else normal(9, np.shape(out)))
                for name, out in zip(names, outputs)}
    # or an output, under its own name
    below = {name: returned[-1] if name == "cache" else inputs.get(name, outputs[0]) for name in names[len(outputs):]}
    return forward, inputs, list(upstream.values()), upstream | below
