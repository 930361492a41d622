"""The networks of `ref`, and the pipeline that calls them, on a backend: their own code, which calls the backend's
layers by the same names.

    unet = with_kernels(ref.nets.unet, "numba_cpu")
    y, cache = unet.unet(params, x, t, None, config)

Nothing in `ref` changes: each function is rebuilt from its code, with other functions in place of those it calls. A
layer that the backend lacks stays `ref`'s, with its own calls replaced in the same way.
"""
import functools
import importlib
from types import FunctionType, SimpleNamespace

from ref import layers

REPLACED = "ref.layers", "ref.nets", "ref.pipelines.stable_diffusion"  # whose functions are rebuilt


@functools.cache
def with_kernels(module, backend):
    """The functions of a module of `ref` as they are on a backend. module: such. backend: "ref" for the module itself,
    or a name of `kernels.registry.BACKENDS`. Returns a namespace."""
    if backend == "ref":
        return module
    theirs = importlib.import_module(f"kernels.{backend}.layers")
    both = [(truth, getattr(theirs, name, None)) for name, truth in vars(layers).items()]
    made = {truth: kernel for truth, kernel in both if callable(truth) and callable(kernel)}
    if backend == "triton_gpu":
        made = {truth: _in_one_piece(kernel) for truth, kernel in made.items()}
    return SimpleNamespace(**_replaced(vars(module), made, {}))


def _in_one_piece(kernel):
    """The kernel for arrays with strides too: a copy is made of those that do not lie in one piece."""
    def whole(x):
        return x.copy() if hasattr(x, "flags") and not x.flags.c_contiguous else x

    @functools.wraps(kernel)
    def run(*given, **more):
        return kernel(*map(whole, given), **{name: whole(x) for name, x in more.items()})

    return run


def _replaced(names, made, spaces):
    """The namespace of a module with its functions rebuilt, and those in its tables. names: that of `ref`. made:
    {function: what stands in its place}. spaces: {id of a namespace: the new one}, of the modules so far."""
    if id(names) not in spaces:
        space = spaces[id(names)] = dict(names)  # before it is filled, for functions call each other
        space.update({name: _value(value, made, spaces) for name, value in names.items() if name[:2] != "__"})
    return spaces[id(names)]


def _value(value, made, spaces):
    if isinstance(value, dict):
        return {key: _value(part, made, spaces) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_value(part, made, spaces) for part in value)
    if not isinstance(value, FunctionType) or not value.__module__.startswith(REPLACED):
        return value
    if value not in made:
        space = _replaced(value.__globals__, made, spaces)
        if value not in made:  # not by way of its own module
            again = FunctionType(value.__code__, space, value.__name__, value.__defaults__, value.__closure__)
            again.__kwdefaults__, again.__doc__ = value.__kwdefaults__, value.__doc__
            made[value] = again
    return made[value]
