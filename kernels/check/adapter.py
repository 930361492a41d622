"""How anybody's function is called: with its own names, kind of arrays and conventions, by the converters of `ref`."""
import difflib
import importlib
import inspect
import pkgutil
import textwrap
from dataclasses import dataclass, field

import numpy as np

import ref
from kernels import registry
from ref import edm, flow, guidance, schedules

MOST = 1000  # a size of a stranger's arrays, beyond which a larger one is no other case
ARRAYS = ("numpy", "torch", "cupy", "jax")


class Usage(ValueError):
    """The request cannot be carried out: there is no such operation, or the function cannot be called as one."""


def _zero_based(a):
    times = {n: a[n] for n in ("u", "t", "s") if a.get(n) is not None}
    # the data have no index; theirs is -1
    index = {n: np.where(np.equal(t, 0), -1, schedules.index_from_time(np.maximum(t, 1)))[()] for n, t in times.items()}
    return a | {n: i if np.ndim(i) else int(i) for n, i in index.items()} | {"abar": a["abar"][1:]}


def _reversed_flow(a):
    times = {n: flow.reverse_time(a[n]) for n in ("t", "s")}
    return a | {n: t if t.ndim else float(t) for n, t in times.items()} | {n: -a[n] for n in ("uncond", "cond")}


CONVENTIONS = {  # name: (arguments that the operation must have, ours -> theirs, in words)
    "zero_based": (
        {"t", "abar"}, _zero_based, "time counts from 0, as an index into T alpha-bars; the data are -1"),
    "paper_weight": (
        {"w"}, lambda a: a | {"w": guidance.w_to_paper(a["w"])}, "guidance is (1 + w) cond - w uncond"),
    "reversed_flow": (
        {"uncond", "s"}, _reversed_flow, "the time of a flow runs from noise at 0 to data at 1, its velocity likewise"),
    "sigmas": (
        {"abar"}, lambda a: a | {"abar": edm.sigma_from_abar(a["abar"])}, "abar is given as sqrt((1 - abar) / abar)"),
}  # fmt: skip


@dataclass(frozen=True)
class Caller:
    """A function and how it is called: give(theirs(arguments)) is its result.

    names: ours -> theirs, of the arguments that it takes. fixed: {name: value} as requested. held: the same by the
    options of the operation, and the defaults of arguments that the function does not take. send, receive: of one
    array. wait: until a result is there. every: whether times and alpha-bar are sent too; our kernels take NumPy's.
    forms: {form of arguments: why it is refused, "" where it is not, None where there is none}, see `forms.of`.
    """

    function: object
    op: registry.Op
    names: dict
    positional: tuple
    conventions: tuple
    fixed: dict
    held: dict
    arrays: str
    device: str
    send: object = field(repr=False)
    receive: object = field(repr=False)
    wait: object = field(repr=False)
    every: bool
    inplace: tuple = ()
    forms: dict = field(default_factory=dict, repr=False)

    @property
    def untested(self):
        """What is held at one value, in words."""
        left = {n: v for n, v in defaults(self.op).items() if n not in self.names and n not in self.fixed}
        words = [f"{n} = {v} (not an argument of the function)" for n, v in left.items()]
        if self.op.rules:  # of a stranger's truth what is not described keeps its default
            words += [f"{n} = {v} (not described)" for n, v in self.op.fixed.items() if n in self.names]
            most = {n: max(sizes) for n, sizes in zip(self.op.letters, zip(*self.op.shapes, *self.op.large))}
            words += [f"{n} above {size}, for the truth is slow" for n, size in most.items() if size < MOST]
        words += [f"{n} = {v} (fixed)" for n, v in self.fixed.items()]
        words += [f"{form}, which it refuses: {why}" for form, why in self.forms.items() if why]
        return tuple(words + ["infinities in arrays"] * ("not finite" in self.op.values and bool(self.op.data)))

    def theirs(self, arguments):
        """The arguments by the function's own names and conventions, in its kind of arrays. arguments: dict."""
        for name in self.conventions:
            arguments = CONVENTIONS[name][1](arguments)
        stay = () if self.every else self.op.settings
        send = lambda _, x: self.send(x) if isinstance(x, np.ndarray) else x  # noqa: E731
        taken = {n: x for n, x in arguments.items() if n in self.names}
        return {self.names[n]: x if n in stay else registry.mapped(send, x) for n, x in taken.items()}

    def give(self, theirs):
        """The function's own result. theirs: from `theirs`."""
        rest = {n: x for n, x in theirs.items() if n not in self.positional}
        result = self.function(*(theirs[n] for n in self.positional), **rest)
        return [theirs[self.names[n]] for n in self.inplace] if self.inplace else result


def find(name):
    """The `registry.Op` of a name. name: such as "ddim_step", "diffusion.ddim_step". Raises Usage with close names."""
    found = [op for op in registry.OPS if name in (op.name, op.name.split(".")[1])]
    if len(found) == 1:
        return found[0]
    if found:
        raise Usage(f"{name}: there are {', '.join(op.name for op in found)}; say which")
    hint = "`python -m kernels check --list` shows them all"
    if place := _in_ref(name):
        raise Usage(f"{name} is {place}, which has no kernel; {hint}")
    known = [n for op in registry.OPS for n in (op.name, op.name.split(".")[1])]
    close = ", ".join(difflib.get_close_matches(name, known, 4, 0.5))
    raise Usage(f"no operation is called {name}; {f'close to it: {close}' if close else hint}")


def _in_ref(name):
    """The full name of the public function of `ref` that is called so, or None."""
    modules = [m.name for m in pkgutil.walk_packages(ref.__path__, "ref.") if "reading" not in m.name]
    functions = [getattr(importlib.import_module(m), name.split(".")[-1], None) for m in modules if "__main__" not in m]
    full = [f"{f.__module__}.{f.__name__}" for f in functions if inspect.isfunction(f) and f.__name__[0] != "_"]
    return next((n for n in full if n.startswith("ref.") and f".{n}".endswith(f".{name}")), None)


def listing():
    """All that can be checked, as text: each operation with its arguments, and the first line of its docstring."""
    wrap = textwrap.TextWrapper(79, break_long_words=False, break_on_hyphens=False, subsequent_indent=" " * 4)
    truths = {op.name: (op.truth, op.takes_dtype) for op in registry.OPS if not op.orders}
    heads = {f"{name}{inspect.signature(f)}"[:-1] + ", dtype" * takes_dtype + ")": inspect.getdoc(f).splitlines()[0]
             for name, (f, takes_dtype) in truths.items()}  # fmt: skip
    return "\n".join(f"{wrap.fill(head)}\n{wrap.fill('    ' + line)}" for head, line in heads.items())


def defaults(op):
    """{name: value} of the arguments of the truth that may be left out. op: `registry.Op`."""
    return {n: p.default for n, p in op.takes.items() if p.default is not p.empty}


def caller(function, op, mapping=None, arrays=None, device="cpu", conventions=(), fixed=None, inplace=()):
    """A `Caller` of function as op.

    function: callable. op: `registry.Op` or its name. mapping: {theirs: ours} for arguments of other names. arrays: of
    ARRAYS, or None: NumPy's on the CPU, on a GPU what `kernels.triton_gpu` takes. device: "cpu" or "cuda". conventions:
    names of CONVENTIONS. fixed: {name: value} of options and arguments that are held, so that the function need not
    take them; "scalar" or "each" for an argument that may be one number for all examples or one for each. inplace:
    the arguments that take the results.
    Raises Usage where the signature does not fit or the arrays are not available.
    """
    op = find(op) if isinstance(op, str) else op
    if op.orders:
        raise Usage(f"{op.name} is a loop; its rule needs NumPy in several orders, which the checker does not draw. "
                    "Give it as --truth, with shapes that it can draw, or compare results with "
                    "`kernels.registry.expected` by `kernels.tolerance.assert_matches`")  # fmt: skip
    takes = op.takes
    for name in conventions:
        if name not in CONVENTIONS:
            raise Usage(f"conventions: expected names of {', '.join(CONVENTIONS)}, got {name}")
        if missing := CONVENTIONS[name][0] - takes.keys():
            raise Usage(f"{op.name} has no {' and '.join(sorted(missing))}, so {name} means nothing here")
    mapping, fixed = mapping or {}, fixed or {}
    if unknown := set(mapping.values()) - takes.keys():
        raise Usage(f"--map: {op.name} has no argument {', '.join(sorted(unknown))}; it has {', '.join(takes)}")
    options = _options(op, fixed)
    names, positional = _matched(function, op, mapping, options)
    held = {n: v for n, v in defaults(op).items() if n not in names} | options
    how = arrays or "numpy", device, *_carriers(arrays, device)
    return Caller(function, op, names, positional, tuple(conventions), fixed, held, *how, _written(op, inplace))


def _written(op, inplace):
    """The arguments that take the results. Raises Usage for others."""
    names = op.in_place if inplace is True else tuple(inplace)
    data = registry.arrays(_example(op, {}), op.settings)
    if inplace and not names or not set(names) <= {n.split("[")[0] for n in data}:
        offered = f"it has {', '.join(op.data)}" if op.data else "it has no arrays"
        raise Usage(f"--inplace: name the arrays of {op.name} that take the results, in their order; {offered}")
    return names


def _options(op, fixed):
    """What is held, by the names and values of the operation's input maker. Raises Usage for others."""
    example, found = _example(op, {}), {}
    each = next((o for o in ("times", "each") if o in op.options), None)  # the option: one for all, or one for each
    rows = [n for n in op.takes if each and n in registry.PER_EXAMPLE]
    # the times of a step depend on each other, so none is held alone
    numbers = [n for n in op.takes if _number(example.get(n)) and (n not in rows or each == "each")]
    known = [n for n in op.takes if n in op.options or n in rows + numbers]
    known += [o for o in op.options if o not in op.takes and o != each]
    for name, value in fixed.items():
        if name not in known:
            raise Usage(f"--fix: {op.name} has nothing called {name} to fix; it has {', '.join(known) or 'no option'}")
        choices = op.options.get(name, ())
        numeric = name in numbers or any(map(_number, choices))
        if name in rows and value in ("scalar", "each"):
            choice = op.options[each][value == "each"]
            if found.setdefault(each, choice) != choice:
                raise Usage(f"--fix {name}={value}: {', '.join(rows)} are scalar or each all together")
        elif value in choices or numeric and _number(value):
            found[name] = value
        else:
            offered = ["scalar (one for all examples)", "each (one for each)"] * (name in rows)
            offered += [str(c) for c in choices if not _number(c)] + ["a number"] * numeric
            raise Usage(f"--fix {name}={value}: expected {' or '.join(offered)}")
    try:
        with np.errstate(all="ignore"):
            op.truth(**_example(op, found))
    except (ValueError, TypeError, ArithmeticError) as reason:
        raise Usage(f"--fix: {op.name} refuses {', '.join(f'{n}={v}' for n, v in fixed.items())}: {reason}") from None
    return found


def _number(x):
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def _example(op, held):
    options = {n: held.get(n, choices[0]) for n, choices in op.options.items()}
    made = op.make(np.random.default_rng(0), op.fit((2, 3)), op.dtypes[0], "normal", **options)
    return made | {n: v for n, v in held.items() if n in made}


def _matched(function, op, mapping, held):
    """{ours: theirs}, and theirs that go by position."""
    wanted = f"{op.name.rpartition('.')[2]}{inspect.signature(op.truth)}"
    try:
        has = inspect.signature(function).parameters
    except (TypeError, ValueError) as reason:
        raise Usage(f"the arguments of the function are unknown ({reason}): wrap it in a def like {wanted}") from None
    if absent := mapping.keys() - has.keys():
        raise Usage(f"--map: the function has no argument {', '.join(sorted(absent))}; it has {', '.join(has)}")
    takes = [*op.takes, *["dtype"] * op.takes_dtype]
    names = {mapping.get(n, n): n for n in has}
    if any(p.kind is p.VAR_KEYWORD for p in has.values()):
        names = dict(zip(takes, takes)) | names
    names = {ours: theirs for ours, theirs in names.items() if ours in takes}
    # some arguments have no effect where others are held
    idle = ["abar"] * ("schedule" in held) + ["z", "seed"] * (held.get("eta") == 0)
    idle += ["x0_last", "u"] * (held.get("history") is False)
    missing = [n for n, p in op.takes.items() if p.default is p.empty and n not in (*held, *idle, *names)]
    needed = [n for n, p in has.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    extra = [n for n in needed if n not in names.values()]
    if missing or extra:
        faults = [f"it does not take {', '.join(missing)}"] * bool(missing)
        faults += [f"it needs {', '.join(extra)}, which the operation does not have"] * bool(extra)
        raise Usage(f"the function does not fit: {'; '.join(faults)}. Expected {wanted}. --map theirs=ours gives other "
                    "names, --fix name=value holds an argument at one value")  # fmt: skip
    return names, tuple(n for n, p in has.items() if p.kind is p.POSITIONAL_ONLY and n in names.values())


def _carriers(arrays, device):
    """send, receive, wait, and whether times and alpha-bar are sent too."""
    gpu, library = device == "cuda", importlib.import_module
    if device not in ("cpu", "cuda"):
        raise Usage(f"--device: expected cpu or cuda, got {device}")
    if arrays not in (None, *ARRAYS) or (arrays, device) in (("numpy", "cuda"), ("cupy", "cpu")):
        places = "numpy on the CPU only, cupy on the GPU only"
        raise Usage(f"--arrays: expected {', '.join(ARRAYS)} ({places}), got {arrays} on {device}")
    try:
        if arrays == "torch":
            return _torch(library("torch"), device)
        if arrays == "jax":
            jax = library("jax")
            jax.config.update("jax_enable_x64", True)  # else float64 would silently be float32
            place = jax.devices("gpu" if gpu else "cpu")[0]
            return lambda a: jax.device_put(a, place), np.asarray, jax.block_until_ready, True
        if arrays == "cupy":
            cupy = library("cupy")
            receive = lambda x: cupy.asnumpy(x) if isinstance(x, cupy.ndarray) else np.asarray(x)  # noqa: E731
            return cupy.asarray, receive, lambda _: cupy.cuda.get_current_stream().synchronize(), True
        if gpu and library("kernels.triton_gpu.device").INTERPRETED:
            raise RuntimeError("there is no GPU here")
        if gpu:
            return *registry.carriers("triton_gpu"), lambda _: library("numba.cuda").synchronize(), False
    except (ImportError, RuntimeError) as reason:
        raise Usage(f"--arrays {arrays or 'numpy'} --device {device}: {reason}") from None
    return lambda a: a, np.asarray, lambda _: None, True


def _torch(torch, device):
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU here")

    def send(a):
        half = a.dtype.name == "bfloat16"  # torch does not know NumPy's
        return (torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) if half else torch.from_numpy(a)).to(device)

    def receive(x):
        if getattr(x, "dtype", None) is torch.bfloat16:
            return x.detach().cpu().contiguous().view(torch.int16).numpy().view(registry.like("bfloat16"))
        return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)

    return send, receive, lambda _: torch.cuda.synchronize() if device == "cuda" else None, True
