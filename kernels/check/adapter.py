"""How a stranger's function is called: with its own names, kind of arrays and conventions, by the converters of `ref`."""
import importlib
import inspect
import pkgutil
from dataclasses import dataclass, field

import numpy as np

import ref
from kernels import registry
from kernels.check import mistakes
from ref import edm, flow, guidance, schedules

ARRAYS = ("numpy", "torch", "cupy", "jax")


class Usage(ValueError):
    """What was asked for cannot be done: there is no such operation, or the function cannot be called as one."""


def _zero_based(a):
    """The data are index -1, since no index is theirs."""
    index = {n: np.where(np.equal(a[n], 0), -1, schedules.index_from_time(np.maximum(a[n], 1)))[()] for n in ("u", "t", "s") if a.get(n) is not None}
    return a | {n: i if np.ndim(i) else int(i) for n, i in index.items()} | {"abar": a["abar"][1:]}


def _reversed_flow(a):
    turned = {n: flow.reverse_time(a[n]) for n in ("t", "s")}
    return a | {n: t if t.ndim else float(t) for n, t in turned.items()} | {n: -a[n] for n in ("uncond", "cond")}


CONVENTIONS = {  # name: (arguments that the operation has to have, arguments -> theirs, in words)
    "zero_based": ({"t", "abar"}, _zero_based, "time counts from 0, as an index into T alpha-bars; the data are -1"),
    "paper_weight": ({"w"}, lambda a: a | {"w": guidance.w_to_paper(a["w"])}, "guidance is (1 + w) cond - w uncond"),
    "reversed_flow": ({"uncond", "s"}, _reversed_flow, "a flow's time runs from noise at 0 to data at 1, and its velocity the other way"),
    "sigmas": ({"abar"}, lambda a: a | {"abar": edm.sigma_from_abar(a["abar"])}, "sigma = sqrt((1 - abar) / abar) stands in the place of abar"),
}


@dataclass(frozen=True)
class Caller:
    """A function and all that is known about calling it: call(arguments) gives its outputs as NumPy arrays or numbers.

    names: ours -> theirs, of the arguments that it takes. conventions: of CONVENTIONS. send, receive: of one array. wait: until
    a result is there. fixed: what was asked to be held, {name: value}. held: the same by the options of the operation, and what the function does
    not take at the value the truth gives it. every: whether times and alpha-bar are sent too, or stay NumPy's as the kernels of this project have them.
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

    @property
    def untested(self):
        """What is held, in words."""
        left = {n: v for n, v in mistakes.defaults(self.op).items() if n not in self.names and n not in self.fixed}
        return tuple([f"{n} = {v} (not an argument of the function)" for n, v in left.items()] + [f"{n} = {v} (fixed)" for n, v in self.fixed.items()])

    def named(self, arguments):
        """The arguments by the function's own names and conventions. arguments: dict."""
        for name in self.conventions:
            arguments = CONVENTIONS[name][1](arguments)
        return {self.names[n]: x for n, x in arguments.items() if n in self.names}

    def sent(self, named):
        """Those arguments as the kind of arrays that the function takes. named: from `named`."""
        stay = {self.names.get(n) for n in (() if self.every else (*registry.PER_EXAMPLE, "abar"))}
        moved = {n: self.send(x) for n, x in named.items() if isinstance(x, np.ndarray) and n not in stay}
        return named | moved | {n: [self.send(y) for y in x] for n, x in named.items() if isinstance(x, list)}

    def theirs(self, arguments):
        """The arguments as the function gets them. arguments: dict."""
        return self.sent(self.named(arguments))

    def give(self, theirs):
        """What the function returns, as it comes. theirs: as from `theirs`."""
        return self.function(*(theirs[n] for n in self.positional), **{n: x for n, x in theirs.items() if n not in self.positional})

    def __call__(self, arguments):
        """The outputs, as a list of NumPy arrays and numbers. arguments: ours, dict."""
        return [self.receive(r) for r in registry.outputs(self.give(self.theirs(arguments)))]


def find(name):
    """The `registry.Op` of a short or a full name. name: such as "ddim_step" or "diffusion.ddim_step". Raises Usage, with what is close."""
    import difflib

    found = [op for op in registry.OPS if name in (op.name, op.name.split(".")[1])]
    if len(found) == 1 and found[0].orders:
        raise Usage(f"{found[0].name} is a whole loop: `python -m kernels` holds ours to the truth; yours can be held to it by `kernels.tolerance.whole`")
    if len(found) == 1:
        return found[0]
    if found:
        raise Usage(f"{name}: there are {', '.join(op.name for op in found)}; say which")
    if place := _only_in_ref(name):
        raise Usage(f"{name} is in {place}, but has no kernel and no record by which one could be checked; `python -m kernels check --list` says what has")
    known = [op.name for op in registry.OPS]
    short = [op.name.split(".")[1] for op in registry.OPS]
    close = difflib.get_close_matches(name, known + short, 4, 0.5)
    raise Usage(f"no operation is called {name}; " + (f"close to it: {', '.join(close)}" if close else "`python -m kernels check --list` says what there is"))


def _only_in_ref(name):
    """The module of `ref` that has a public function of that name, short or full, or None."""
    for found in pkgutil.walk_packages(ref.__path__, "ref."):
        if not found.name.endswith("__main__") and ".reading" not in found.name:
            function = getattr(importlib.import_module(found.name), name.split(".")[-1], None)
            if inspect.isfunction(function) and function.__module__ == found.name and f".{found.name}.{function.__name__}".endswith(f".{name}") and name[0] != "_":
                return found.name


def listing():
    """What can be checked, as text: each operation with the arguments of its truth, and the first line of what that says of itself."""
    return "\n".join(f"{op.name}{inspect.signature(op.truth)}\n    {inspect.getdoc(op.truth).splitlines()[0]}" for op in registry.OPS if not op.orders)


def caller(function, op, mapping=None, arrays=None, device="cpu", conventions=(), fixed=None):
    """A `Caller` for function, held against op.

    function: callable. op: `registry.Op` or its name. mapping: {theirs: ours} for arguments of other names. arrays: of ARRAYS, or None for
    NumPy on the CPU, and on a GPU for what `kernels.triton_gpu` takes. device: "cpu" or "cuda". conventions: names of CONVENTIONS.
    fixed: {name: value} of options and arguments of the operation that are held, so that the function need not take them; "scalar" or "each" for an
    argument that may be one number for all examples or one for each.
    Raises Usage where the signature cannot be matched or the arrays cannot be had.
    """
    op = find(op) if isinstance(op, str) else op
    takes = inspect.signature(op.truth).parameters
    for name in conventions:
        if name not in CONVENTIONS:
            raise Usage(f"conventions: expected names of {', '.join(CONVENTIONS)}, got {name}")
        if not CONVENTIONS[name][0] <= takes.keys():
            raise Usage(f"{op.name} has no {' and '.join(sorted(CONVENTIONS[name][0] - takes.keys()))}, so {name} means nothing here")
    ours = dict(mapping or {})
    if unknown := set(ours.values()) - takes.keys():
        raise Usage(f"--map: {op.name} has no argument {', '.join(sorted(unknown))}; it has {', '.join(takes)}")
    options = _options(op, fixed or {})
    names, positional = _matched(function, op, ours, options)
    held = {n: v for n, v in mistakes.defaults(op).items() if n not in names} | options
    return Caller(function, op, names, positional, tuple(conventions), fixed or {}, held, arrays or "numpy", device, *_carriers(arrays, device))


def _options(op, fixed):
    """What is held by the names and values that the operation's input maker has. Raises Usage for a name or a value that it has not."""
    takes, example, found = inspect.signature(op.truth).parameters, _example(op, {}), {}
    each = next((o for o in ("times", "each") if o in op.options), None)  # the option of one for all, or one for each
    rows = [n for n in takes if each and n in registry.PER_EXAMPLE]
    numbers = [n for n in takes if _number(example.get(n)) and (n not in rows or each == "each")]  # a step's times hang together, so none is held alone
    known = [n for n in takes if n in op.options or n in rows or n in numbers] + [o for o in op.options if o not in takes and o != each]
    for name, value in fixed.items():
        choices = op.options.get(name, ())
        numeric = name in numbers or any(map(_number, choices))
        if name not in known:
            raise Usage(f"--fix: {op.name} has no {name} that could be held; it has {', '.join(known) or 'none'}")
        if name in rows and value in ("scalar", "each"):
            choice = op.options[each][value == "each"]
            if found.setdefault(each, choice) != choice:
                raise Usage(f"--fix {name}={value}: {', '.join(rows)} are scalar or each all together")
        elif value in choices or numeric and _number(value):
            found[name] = value
        else:
            offered = ["scalar (one for all examples)", "each (one for each)"] * (name in rows) + [str(c) for c in choices if not _number(c)] + ["a number"] * numeric
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
    made = op.make(np.random.default_rng(0), (2, 3), op.dtypes[0], "normal", **{n: held.get(n, choices[0]) for n, choices in op.options.items()})
    return made | {n: v for n, v in held.items() if n in made}


def _matched(function, op, mapping, held):
    """{ours: theirs}, and theirs that go by position."""
    wanted = f"{op.name.split('.')[1]}{inspect.signature(op.truth)}"
    try:
        has = inspect.signature(function).parameters
    except (TypeError, ValueError) as reason:
        raise Usage(f"the function's arguments cannot be read ({reason}): wrap it in a def like {wanted}") from None
    takes = inspect.signature(op.truth).parameters
    idle = ["abar"] * ("schedule" in held) + ["z", "seed"] * (held.get("eta") == 0) + ["x0_last", "u"] * (held.get("history") is False)  # by what is held
    needs = [n for n, p in takes.items() if p.default is p.empty and n not in held and n not in idle]
    names, kinds = {mapping.get(n, n): n for n in has}, {p.kind: n for n, p in has.items()}
    if absent := mapping.keys() - has.keys():
        raise Usage(f"--map: the function has no argument {', '.join(sorted(absent))}; it has {', '.join(has)}")
    anything = kinds.get(inspect.Parameter.VAR_KEYWORD)
    if anything:
        names |= {n: n for n in takes if n not in names}
    names = {ours: theirs for ours, theirs in names.items() if ours in takes or ours == "dtype"}
    missing = [n for n in needs if n not in names]
    extra = [n for n, p in has.items() if p.default is p.empty and n not in names.values() and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if missing or extra:
        said = [f"it does not take {', '.join(missing)}"] * bool(missing) + [f"it needs {', '.join(extra)}, which the operation does not have"] * bool(extra)
        raise Usage(f"{'; '.join(said)}. Expected {wanted}; other names by --map theirs=ours, what it holds at one value by --fix name=value")
    return names, tuple(n for n, p in has.items() if p.kind is p.POSITIONAL_ONLY and n in names.values())


def _carriers(arrays, device):
    """send, receive, wait, and whether times and alpha-bar are sent too."""
    if device not in ("cpu", "cuda"):
        raise Usage(f"--device: expected cpu or cuda, got {device}")
    if arrays not in (None, *ARRAYS) or (arrays == "numpy" and device == "cuda") or (arrays == "cupy" and device == "cpu"):
        raise Usage(f"--arrays: expected {', '.join(ARRAYS)} (numpy on the CPU only, cupy on the GPU only), got {arrays} on {device}")
    try:
        if arrays == "torch":
            torch = importlib.import_module("torch")
            if device == "cuda" and not torch.cuda.is_available():
                raise Usage("--device cuda: torch sees no GPU here")
            return lambda a: _torch_tensor(torch, a, device), _from_torch, (lambda r: torch.cuda.synchronize()) if device == "cuda" else _at_once, True
        if arrays == "jax":
            jax = importlib.import_module("jax")
            jax.config.update("jax_enable_x64", True)  # else float64 would silently be float32
            place = jax.devices("gpu" if device == "cuda" else "cpu")[0]
            return lambda a: jax.device_put(a, place), np.asarray, jax.block_until_ready, True
        if arrays == "cupy":
            cupy = importlib.import_module("cupy")
            return cupy.asarray, lambda x: cupy.asnumpy(x) if isinstance(x, cupy.ndarray) else np.asarray(x), lambda r: cupy.cuda.get_current_stream().synchronize(), True
        if device == "cuda":
            if importlib.import_module("kernels.triton_gpu.device").INTERPRETED:
                raise Usage("--device cuda: there is no GPU here")
            send, receive = registry.carriers("triton_gpu")
            return send, receive, lambda r: importlib.import_module("numba.cuda").synchronize(), False
    except (ImportError, RuntimeError) as reason:
        raise Usage(f"--arrays {arrays or 'numpy'} --device {device}: {reason}") from None
    return lambda a: a, np.asarray, _at_once, True


def _at_once(result):
    return None


def _torch_tensor(torch, a, device):
    if a.dtype.name == "bfloat16":  # torch does not know NumPy's
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16).to(device)
    return torch.from_numpy(a).to(device)


def _from_torch(x):
    if not hasattr(x, "detach"):
        return np.asarray(x)
    x = x.detach().cpu()
    if str(x.dtype) == "torch.bfloat16":
        torch = importlib.import_module("torch")
        return x.contiguous().view(torch.int16).numpy().view(registry.like("bfloat16"))
    return x.numpy()
