"""NumPy: the NumPy backend's function with `out=`, and the equation with its temporaries kept from call to call."""
import inspect
from functools import partial
from types import SimpleNamespace

import numpy as np

from bench.peers import loops, sound
from bench.peers.equations import EQUATIONS, columns, data, table
from kernels import registry

# arrays to work in
SCRATCH = {"vae.reparameterize_kl": 2, "vae.reparameterize_kl_backward": 1, "vae.bernoulli_nll_grad": 2}


def make(column, op, arguments, shape):
    """See `bench.peers`. column: "numpy" or "hidden"."""
    if op.name in loops.NUMPY:
        return loops.NUMPY[op.name](column, op, arguments)
    if column != "numpy":
        return {}
    known, draws = EQUATIONS.get(op.name), sound.draws(op, arguments)
    if known and draws:  # its own generator is much faster than Philox in NumPy
        return {"SFC64, out=": _kept(op, arguments, shape, np.random.Generator(np.random.SFC64(1)))}
    function = registry.kernel(op, "numpy_cpu")
    if function is None:
        return {}
    own = _with_out(op, function, arguments, shape)
    found = {"out=": partial(function, **own)}
    if "scratch" in inspect.signature(function).parameters:
        return found | {"temporaries kept": partial(function, **own, scratch=_scratch(op, arguments, shape))}
    return found | ({"temporaries kept": _kept(op, arguments, shape, None)} if known and known.in_place else {})


def _with_out(op, function, arguments, shape):
    """The arguments of the NumPy backend's function: its own copies of the data, and `out` where it takes one."""
    own = {k: np.array(v) if isinstance(v, np.ndarray) and v.shape == tuple(shape) else v for k, v in arguments.items()}
    if "out" not in inspect.signature(function).parameters or not op.writes:
        return own
    like = [np.shape(r) for r in registry.outputs(function(**own))] if op.shapes else [shape] * op.writes
    out = tuple(own[name] for name in op.in_place) or tuple(np.empty(s, np.float32) for s in like[: op.writes])
    return own | {"out": out if len(out) > 1 else out[0]}


def _scratch(op, arguments, shape):
    if op.name in SCRATCH:
        return np.empty((SCRATCH[op.name], *shape), np.float32)
    return [np.empty((3, *shape), np.float32) for _ in data(op, arguments, shape)]  # of a GAN's loss, for each logits


def _kept(op, arguments, shape, generator):
    x = data(op, arguments, shape)
    term, out, e, z = (np.empty_like(next(iter(x.values()))) for _ in range(4))
    memory, fold, f = SimpleNamespace(out=out, e=e, z=z), table(op, arguments, shape), EQUATIONS[op.name].f

    def lerp(a, b, w, out):
        difference = term if out is a else out
        np.multiply(np.subtract(b, a, out=difference), np.float32(w), out=difference)
        return np.add(difference, a, out=out)

    k = SimpleNamespace(
        mul=np.multiply, plus=np.add, minus=np.subtract, over=np.divide, sqrt=np.sqrt, lerp=lerp,
        add=lambda a, c, b, out: np.add(a, np.multiply(b, c, out=term), out=out),
        square_mean=lambda x: np.vdot(x, x) / x.size, clip=lambda x, by, out: np.clip(x, -by, by, out=out),
        normal=lambda like, out: generator.standard_normal(dtype=np.float32, out=out),
    )  # fmt: skip
    return lambda: f(k, columns(fold()) if fold else None, arguments, memory, *x.values())
