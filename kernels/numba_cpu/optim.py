"""`ref.optim` on the CPU: float32 or float64, one pass over memory each but for `muon_step`, whose matrices are shared
out between threads.

Arguments and errors are those of `ref.optim`, arrays of one dtype; `out`, where given, may be the inputs themselves,
and only then are inputs overwritten. Bad input raises before anything is written.

Papers
    [Adam]     Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015
    [AdamW]    Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    [Muon]     Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
    [Pascanu]  Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013
"""
import math

import numpy as np

from kernels import coefficients
from kernels.numba_cpu import engine, reduce
from kernels.numba_cpu.diffusion import SCALE, linear
from kernels.numba_cpu.engine import element
from kernels.numba_cpu.intrinsics import fma
from kernels.numba_cpu.newton_schulz import muon
from kernels.numba_cpu.rowwise import apply, apply_many, update

ROOT_LEAST = 1e-140  # below it squares have lost digits

# --- equations of one element: c are the coefficients of its row, u the scalars of the call, see `rowwise` ------------


@element
def adam(c, u, p, g, m, v):
    """[AdamW] algorithm 2. c: of `coefficients.adam_step`. u: none. p, g, m, v: numbers. Returns p, m, v."""
    beta1, rest1, beta2, rest2, rate, unbias, eps, decay = c
    m_next = fma(beta1, m, rest1 * g)
    v_next = fma(beta2, v, rest2 * g * g)
    return p - fma(decay, p, rate * m_next / fma(unbias, np.sqrt(v_next), eps)), m_next, v_next


@element
def adam_ema(c, u, p, g, m, v, avg):
    """[AdamW] algorithm 2 and the average. c: of `coefficients.adam_step` and `ema_step`. The rest as in `adam`, and
    avg."""
    p_next, m_next, v_next = adam(c[:8], u, p, g, m, v)
    return p_next, m_next, v_next, fma(c[8], avg, c[9] * p_next)


ADAM = update(adam, inputs=4, coefficients=8, outputs=3)
EMA = update(linear, inputs=2, coefficients=2, outputs=1)


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, out=None):
    """[Adam] algorithm 1, [AdamW] algorithm 2 on the CPU, arguments as in `ref.optim.adam_step`; out takes three
    arrays."""
    shape, dtype = engine.same(p=p, g=g, m=m, v=v)
    c = coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay)
    return apply_many(ADAM, 3, out, shape, dtype, c.reshape(-1, 1), p, g, m, v, state=True)


def ema_step(avg, p, decay, out=None):
    """avg <- decay avg + (1 - decay) p on the CPU, arguments as in `ref.optim.ema_step`."""
    shape, dtype = engine.same(avg=avg, p=p)
    return apply(EMA, out, shape, dtype, coefficients.ema_step(decay), avg, p, state=True)


def muon_step(p, g, m, lr, momentum, weight_decay, out=None):
    """[Muon] on the CPU, arguments as in `ref.optim.muon_step`; out takes two arrays."""
    shape, dtype = engine.same(p=p, g=g, m=m)
    if len(shape) < 2:
        raise ValueError(f"expected matrices (..., r, c), got shape {shape}")
    rate, keep, decay = coefficients.muon_step(lr, momentum, weight_decay, *shape[-2:]).tolist()
    outs, arrays = (None, None) if out is None else out, [engine.flat(a) for a in (p, g, m)]
    engine.apart(outs)
    memory = [engine.output(o, shape, dtype, *arrays)[0] for o in outs]
    if np.may_share_memory(memory[1], arrays[0]):  # m is written before p is read
        memory[1] = np.empty(arrays[0].size, dtype)
    work = arrays[0].size * min(shape[-2:])
    engine.run(muon, work, *memory, *arrays, rate, keep, decay, *shape[-2:], parts=math.prod(shape[:-2]))
    return tuple(engine.finish(to, o, shape) for to, o in zip(memory, outs))


def clip_by_global_norm(grads, max_norm, out=None):
    """[Pascanu] algorithm 1 on the CPU, arguments and results as in `ref.optim.clip_by_global_norm`; out: a collection
    like grads."""
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a positive number, got {max_norm}")
    names = list(grads) if isinstance(grads, dict) else range(len(grads))
    kinds = [engine.same(**{f"grads[{name!r}]": grads[name]}) for name in names]
    arrays = [engine.flat(grads[name]) for name in names]
    outs = [None if out is None else out[name] for name in names]
    engine.apart(outs)
    places = [engine.output(o, *kind, a) for o, kind, a in zip(outs, kinds, arrays)]
    for i, (memory, _) in enumerate(places if out is not None else ()):  # written before the later arrays are read
        arrays[i + 1:] = [a.copy() if np.may_share_memory(memory, a) else a for a in arrays[i + 1:]]
    norm = _norm(arrays)
    table = np.array([[max_norm / norm if norm > max_norm else 1.0]])
    for a, (memory, how) in zip(arrays, places):
        engine.run(SCALE, a.size, how, table, a.size or 1, (), memory, a)
    clipped = [engine.finish(memory, o, shape) for (memory, _), o, (shape, _) in zip(places, outs, kinds)]
    return dict(zip(names, clipped)) if isinstance(grads, dict) else clipped, norm


def _norm(arrays):
    """The root of the sum of squares; where those are no float64, of the elements over the largest one."""
    norm = math.sqrt(sum(float(reduce.sums(reduce.sum_squares, a)) for a in arrays))
    if ROOT_LEAST < norm < math.inf or math.isnan(norm):
        return norm
    largest = max((float(np.max(np.abs(a), initial=0.0)) for a in arrays), default=0.0)
    if not 0 < largest < math.inf:
        return largest
    return largest * math.sqrt(sum(float(np.sum(np.square(a / largest))) for a in arrays))
