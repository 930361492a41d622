"""`ref.optim` on the GPU: float32, one pass over memory each.

Arguments are those of `ref.optim` (equations there), arrays of one kind (see `launch`); `out`, where given, may be the inputs
themselves, and only then are inputs overwritten. Errors as there, before anything is written.

Papers
    [Adam]     Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015
    [AdamW]    Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    [Pascanu]  Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013
"""
import numpy as np
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu import launch

SINGLE = ("float32",)


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, out=None):
    """[Adam] algorithm 1; with weight_decay > 0, [AdamW] algorithm 2, decoupled; weight_decay is its lambda / alpha.

    p, g, m, v: one shape. step: int >= 1. lr, beta1, beta2, eps, weight_decay: floats.
    Returns p, m, v; out: three arrays for them, which may be the inputs. Raises as `ref.optim.adam_step`.
    """
    arrays = launch.read(SINGLE, p=p, g=g, m=m, v=v)
    c = coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay).tolist()
    made, pointers = launch.outputs(out, 3, arrays)
    launch.run(_adam, launch.programs(arrays.size, launch.BLOCK), arrays, *pointers, *arrays.pointers, arrays.size, *c, BLOCK=launch.BLOCK)
    return tuple(made)


def ema_step(avg, p, decay, out=None):
    """avg <- decay avg + (1 - decay) p. avg, p: one shape. decay: in [0, 1].

    Returns the new average, in out where given (it may be avg). Raises as `ref.optim.ema_step`.
    """
    arrays = launch.read(SINGLE, avg=avg, p=p)
    keep, take = coefficients.ema_step(decay)[:, 0].tolist()
    out, pointer = launch.output("out", out, arrays)
    launch.run(_ema, launch.programs(arrays.size, launch.BLOCK), arrays, pointer, *arrays.pointers, arrays.size, keep, take, BLOCK=launch.BLOCK)
    return out


def clip_by_global_norm(grads, max_norm, out=None):
    """[Pascanu] algorithm 1 over all arrays together:  g <- g max_norm / n  where  n = sqrt(sum_i ||g_i||^2) > max_norm.

    grads: dict or list of arrays. max_norm: > 0. out: the same kind of collection, which may be grads itself.
    Returns the same kind of collection; nothing waits for the norm. Raises as `ref.optim.clip_by_global_norm`.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a positive number, got {max_norm}")
    names = list(grads) if isinstance(grads, dict) else list(range(len(grads)))
    read = [launch.read(SINGLE, **{f"grads[{name!r}]": grads[name]}) for name in names]
    outs = [launch.output(f"out[{name!r}]", None if out is None else out[name], a) for name, a in zip(names, read)]
    some = [a for a in read if a.size]
    if some:
        counts = [launch.programs(a.size, launch.BLOCK * launch.TILES) for a in some]
        partial = launch.partial_sums(*some)
        scale = launch.scratch(np.empty(1), some[0], filled=False)
        first = 0
        for a, count in zip(some, counts):
            launch.run(_sum_squares, count, a, partial.pointer, *a.pointers, a.size, first, BLOCK=launch.BLOCK, TILES=launch.TILES)
            first += count
        launch.run(_clip_scale, 1, some[0], scale, partial.pointer, first, float(max_norm), BLOCK=launch.REDUCE, warps=8)
        for a, (_, pointer) in zip(read, outs):
            launch.run(_times, launch.programs(a.size, launch.BLOCK), a, pointer, *a.pointers, a.size, scale, BLOCK=launch.BLOCK)
    clipped = [array for array, _ in outs]
    return dict(zip(names, clipped)) if isinstance(grads, dict) else clipped


@triton.jit
def adam_element(p, g, m, v, c0, c1, c2, c3, c4, c5, c6, c7):
    """[AdamW] algorithm 2. p, g, m, v: blocks. c0, c1, c2, c3, c4, c5, c6, c7: of `coefficients.adam_step`. Returns p, m, v."""
    m = tl.fma(c0, m, c1 * g)
    v = tl.fma(c2, v, c3 * (g * g))
    return p - tl.fma(c7, p, c4 * m / tl.fma(c5, tl.sqrt(v), c6)), m, v


@triton.jit
def tree_sum(x, N: tl.constexpr):
    """The sum of a block, neighbours first: one order, whatever layout the compiler chose. x: block. N: its length, a power of 2 up to 2^16."""
    for k in tl.static_range(1, 17):
        if N >> k > 0:
            x = tl.sum(tl.reshape(x, (N >> k, 2)), 1)  # of two: no order to choose
    return tl.sum(x)


@triton.jit
def _adam(p_out, m_out, v_out, p, g, m, v, size, c0, c1, c2, c3, c4, c5, c6, c7, BLOCK: tl.constexpr):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    x, y = tl.load(p + base + i, mask=inside), tl.load(g + base + i, mask=inside)
    r, s = tl.load(m + base + i, mask=inside), tl.load(v + base + i, mask=inside)
    x, r, s = adam_element(x, y, r, s, c0, c1, c2, c3, c4, c5, c6, c7)
    tl.store(p_out + base + i, x, mask=inside)
    tl.store(m_out + base + i, r, mask=inside)
    tl.store(v_out + base + i, s, mask=inside)


@triton.jit
def _ema(out, avg, p, size, keep, take, BLOCK: tl.constexpr):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    tl.store(out + base + i, tl.fma(keep, tl.load(avg + base + i, mask=inside), take * tl.load(p + base + i, mask=inside)), mask=inside)


@triton.jit(do_not_specialize=["first"])
def _sum_squares(partial, a, size, first, BLOCK: tl.constexpr, TILES: tl.constexpr):
    i, total = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float64)
    for tile in range(TILES):
        base = (tl.program_id(0).to(tl.int64) * TILES + tile) * BLOCK
        x = tl.load(a + base + i, mask=base + i < size, other=0).to(tl.float64)
        total = tl.fma(x, x, total)
    tl.store(partial + first + tl.program_id(0), tree_sum(total, BLOCK))


@triton.jit(do_not_specialize=["count"])
def _clip_scale(out, partial, count, max_norm, BLOCK: tl.constexpr):
    i, total = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float64)
    for first in range(0, count, BLOCK):
        total += tl.load(partial + first + i, mask=first + i < count, other=0)
    norm = tl.sqrt(tree_sum(total, BLOCK))
    tl.store(out, tl.where(norm > max_norm, max_norm / norm, 1.0))


@triton.jit
def _times(out, a, size, scale, BLOCK: tl.constexpr):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    tl.store(out + base + i, tl.load(scale).to(tl.float32) * tl.load(a + base + i, mask=inside), mask=inside)
