"""`ref.optim` on the GPU: float32, one pass over memory each but for `muon_step`.

Arguments are those of `ref.optim` (equations there), arrays of one kind (see `arrays`); `out`, where given, may be
the inputs themselves, and only then are inputs overwritten. Errors as there, before anything is written.

Papers
    [Adam]     Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015
    [AdamW]    Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    [Muon]     Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
    [Pascanu]  Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013
"""
import bisect

import numpy as np
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu import launch, reduce
from kernels.triton_gpu.arrays import SINGLE, apart, itemsize, output, outputs, read
from kernels.triton_gpu.newton_schulz import muon
from kernels.triton_gpu.rowwise import rowwise


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, out=None):
    """[Adam] algorithm 1, or [AdamW] algorithm 2; arguments as in `ref.optim.adam_step`. out: three arrays."""
    arrays = read(SINGLE, p=p, g=g, m=m, v=v)
    c = coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay).reshape(-1, 1)
    return rowwise(adam, arrays, c, out, writes=3)


def ema_step(avg, p, decay, out=None):
    """Moving average; arguments as in `ref.optim.ema_step`."""
    arrays = read(SINGLE, avg=avg, p=p)
    return rowwise(ema, arrays, coefficients.ema_step(decay), out)


def muon_step(p, g, m, lr, momentum, weight_decay, out=None):
    """[Muon]; arguments as in `ref.optim.muon_step`. out: two arrays."""
    arrays = read(SINGLE, p=p, g=g, m=m)
    if len(arrays.shape) < 2:
        raise ValueError(f"expected matrices (..., r, c), got shape {arrays.shape}")
    c = coefficients.muon_step(lr, momentum, weight_decay, *arrays.shape[-2:]).tolist()
    made, pointers = outputs(out, 2, arrays)
    muon(*pointers, arrays, *c)
    return made


def clip_by_global_norm(grads, max_norm, out=None):
    """[Pascanu] algorithm 1 over all arrays together; arguments as in `ref.optim.clip_by_global_norm`. out: a
    collection like grads. Nothing waits for the norm, float64 without axes, of the kind of grads; 0.0 of nothing."""
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a positive number, got {max_norm}")
    names = list(grads) if isinstance(grads, dict) else list(range(len(grads)))
    inputs = [read(SINGLE, **{f"grads[{name!r}]": grads[name]}) for name in names]
    made = [output(f"out[{name!r}]", None if out is None else out[name], a) for name, a in zip(names, inputs)]
    clipped = [array for array, _ in made]
    if out is not None:
        _check_apart([pointer for _, pointer in made], inputs)
    some, norm = [a for a in inputs if a.size], 0.0
    if some:
        # The sum of squares of all arrays
        partial, first = reduce.partial_sums(*some), 0
        for a in some:
            reduce.add(squares, partial, a, first=first, dtype=tl.float64)
            first += reduce.programs(a)
        # The norm, and what each element is multiplied by
        scale = launch.scratch(np.empty(1), some[0], filled=False)
        norm = reduce.scalar(_norm_and_scale, some[0], scale, partial.pointer, partial.count, float(max_norm))
        for a, to in zip(inputs, clipped):
            rowwise(scaled, a, np.empty((0, 1)), to, more=(scale,))
    return dict(zip(names, clipped)) if isinstance(grads, dict) else clipped, norm


def _check_apart(outs, inputs):
    """Raises ValueError where two results share memory, or one shares it with another's gradient, which is read after
    it is written. outs: pointers. inputs: `Arrays`, one for each."""
    some = [(pointer, a.size) for pointer, a in zip(outs, inputs) if a.size]
    apart(*some)
    order = sorted((i for i, a in enumerate(inputs) if a.size), key=lambda i: outs[i].address)
    begins = [outs[i].address for i in order]
    for j, a in enumerate(inputs):
        begin, end = a.pointers[0].address, a.pointers[0].address + a.size * itemsize(a.dtype)
        # the last result that begins before the end of the gradient is the only one but its own that can reach into it
        k = bisect.bisect_left(begins, end) - 1
        if a.size and k >= 0 and order[k] != j:
            apart((outs[order[k]], inputs[order[k]].size), (a.pointers[0], a.size))


@triton.jit
def adam(p, g, m, v, beta1, rest1, beta2, rest2, rate, root, eps, decay):
    """[AdamW] algorithm 2: p, m, v. p, g, m, v: blocks.
    beta1, rest1, beta2, rest2, rate, root, eps, decay: of `coefficients.adam_step`."""
    m_next = tl.fma(beta1, m, rest1 * g)
    v_next = tl.fma(beta2, v, rest2 * g * g)
    return p - tl.fma(decay, p, rate * m_next / tl.fma(root, tl.sqrt(v_next), eps)), m_next, v_next


@triton.jit
def ema(avg, p, keep, take):
    """keep avg + take p. avg, p: blocks. keep, take: numbers."""
    return tl.fma(keep, avg, take * p)


@triton.jit
def squares(total, x):
    """x^2 in float64, added to total. total, x: blocks."""
    x = x.to(tl.float64)
    return (tl.fma(x, x, total),)


@triton.jit
def scaled(x, scale):
    """x times a number that an earlier kernel left. x: block. scale: pointer to a float64."""
    return tl.load(scale).to(tl.float32) * x


@triton.jit(do_not_specialize=["count"])
def _norm_and_scale(out, scale, partial, count, max_norm, BLOCK: tl.constexpr):
    norm = tl.sqrt(reduce.total_of(partial, count, BLOCK))
    tl.store(out, norm)
    tl.store(scale, tl.where(norm > max_norm, max_norm / norm, 1.0))
