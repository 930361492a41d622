"""The record of an operation: what tests, the checker and the benchmark know about it."""
import functools
import inspect
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from kernels.ops import inputs

# Of ref, and what backends call them: packages, which export the functions of their modules, and a network of sound
PACKAGES = {"layers": "layers", "scene": "scene", "nets.wavenet": "audio"}


@dataclass(frozen=True)
class Op:
    """One operation. Truth and ulps suffice for one that is linear in its data; the rest says where it differs.

    truth: the function of `ref`; each backend has it under the same module and name. ulps: the bound, 0 for equality.
    options: {name: the choices that tests draw from}. fixed: {argument: its value}. least_t: the least time.
    make: (rng, shape, dtype, values, **options) -> {argument: value}; without it `inputs.usual`.
    scale: (**arguments) -> as truth returns, the sizes of the terms that are added; without it `linear`. textbook: the
    same for the equation as it is printed, where ours cancels less; by these a stranger is judged.
    stored: (**arguments) -> as truth returns, the sizes of what is rounded to the dtype of the data, where the terms of
    scale are float32 even of halves.
    orders: (NumPy's function, arguments) -> its results in several orders of its sums, for a loop, whose terms are too
    many to say: then the rule is `tolerance.whole`.
    dtypes: in which a CPU computes. half: whether a GPU stores float16 and bfloat16 too. precisions: of the operands of
    a GPU's products, besides float32. takes_dtype: whether the dtype is an argument, for want of data.
    empty: whether zero elements are allowed. shapes: of the data that are checked, where not any will do; then arrays
    and results have shapes of their own. sums: whether an output depends on the whole batch. writes: arrays like the
    data that are returned. spare: how many of the last results a stranger may leave out. in_place: the arguments that a
    training loop lets the results overwrite.
    Of a stranger's truth, see `kernels.check.general`, there are rules: (arguments, dtype) -> the `tolerance.Rule` of
    each result, in place of scale and ulps; letters: what the sizes of shapes stand for; arrays: {argument with
    a shape: what it is, in words}, and examples: those with a row for each example; said: {argument: words}, as given.
    settings: the arguments that hold no data. exact: the data that only `make` may draw. values: the kinds of data.
    large: shapes past 2^16. cases: how many the checker draws in each dtype.
    bench: {row: options}; the option "shape" is the row's own, and "on" its only backend. rows: the shapes of the rows,
    "images" or "matrix". flops: (**arguments) -> floating-point operations, where they and not bytes bind.
    """

    truth: Callable
    ulps: float = 0
    options: dict = field(default_factory=dict)
    fixed: dict = field(default_factory=dict)
    least_t: int = 0
    make: Callable = None
    scale: Callable = None
    textbook: Callable = None
    stored: Callable = None
    orders: Callable = None
    dtypes: tuple = inputs.FLOATS
    half: bool = False
    precisions: tuple = ()
    takes_dtype: bool = False
    empty: bool = True
    shapes: tuple = ()
    sums: bool = False
    writes: int = 1
    spare: int = 0
    in_place: tuple = ()
    rules: Callable = None
    exact: tuple = ()
    large: tuple = ()
    values: tuple = (*inputs.VALUES, *inputs.HARD)
    settings: tuple = (*inputs.PER_EXAMPLE, "abar")
    examples: tuple = ()
    letters: tuple = ()
    arrays: dict = field(default_factory=dict)
    said: dict = field(default_factory=dict)
    cases: int = 200
    bench: dict = field(default_factory=dict)
    rows: str = "images"
    flops: Callable = None

    def __post_init__(self):
        for name, derived in (("make", inputs.usual), ("scale", linear)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, functools.partial(derived, self))
        object.__setattr__(self, "textbook", self.textbook or self.scale)

    @property
    def name(self):
        """module.function, in `ref` and in each backend, but for PACKAGES."""
        name, module = getattr(self.truth, "__name__", type(self.truth).__name__), str(self.truth.__module__)
        module = pathlib.PurePath(module).stem if module.endswith(".py") else module.removeprefix("ref.")
        module = next((ours for theirs, ours in PACKAGES.items() if f"{module}.".startswith(f"{theirs}.")), module)
        return f"{module}.{name}"

    def each(self, arguments):
        """The names of the settings that are one for each example. arguments: dict."""
        return [n for n in self.settings if n != "abar" and np.ndim(arguments.get(n))]

    def fit(self, shape):
        """A shape for the data: where sizes are letters, one for each, in turn from shape. shape: tuple."""
        return (shape * len(self.letters))[: len(self.letters)] if self.rules else shape

    @functools.cached_property
    def takes(self):
        """The arguments of the truth, {name: parameter}."""
        return inspect.signature(self.truth).parameters

    @property
    def data(self):
        """The names of the arguments that hold data: all that have no default, are no settings and no options."""
        if self.rules:
            return tuple(self.arrays)
        settings = {*self.settings, *([] if self.rules else ["seed", "shape"]), *self.options, *self.fixed}
        return tuple(n for n, p in self.takes.items() if p.default is p.empty and n not in settings)

    @property
    def rowwise(self):
        """Whether each argument and result has the shape of the data, and its examples can be computed alone."""
        return bool(self.data) and not self.sums and self.orders is None and not self.shapes


def outputs(result):
    """What a function returned, as a flat list of arrays and floats; of a dict, by name. result: of any such."""
    if isinstance(result, dict):
        result = [result[name] for name in sorted(result)]
    if isinstance(result, (tuple, list)):
        return [r for part in result for r in outputs(part)]
    return [float(result) if isinstance(result, int) else result]


def mapped(f, tree, path=""):
    """A tree of dicts and lists with f(path, leaf) in place of each leaf. f: function. tree: any. path: of its root."""
    if isinstance(tree, dict):
        return {name: mapped(f, part, f"{path}.{name}") for name, part in tree.items()}
    if isinstance(tree, list):
        return [mapped(f, part, f"{path}[{i}]") for i, part in enumerate(tree)]
    return f(path, tree)


def linear(op, **arguments):
    """The sizes of the terms of an operation that is linear in its data: |truth| with all of them zero, and what each
    alone adds to that. op: `Op`. arguments: of its truth. Returns a list."""
    nothing = arguments | {name: np.zeros_like(arguments[name]) for name in op.data}
    still = outputs(op.truth(**nothing))
    sizes = [np.abs(r) for r in still]
    for name in op.data:
        alone = outputs(op.truth(**nothing | {name: arguments[name]}))
        sizes = [size + np.abs(a - r) for size, a, r in zip(sizes, alone, still)]
    return sizes
