"""`group_norm_silu` of `ref.layers` on the CPU, and its gradient: one read and one write of memory, for a group stays
in the second-level cache from its first pass to its last.

Arrays are of one dtype, float32 or float64; `out` takes the result like x, or dx, and may be an input. A group's sums
have one order, in any batch and for any number of threads.
"""
import numpy as np

from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import CHUNK, COMPILE, DIRECT, alone, element
from kernels.numba_cpu.intrinsics import deliver, fma, wide
from kernels.numba_cpu.math import LOG2_E, gate_slope, silu_from
from kernels.numba_cpu.moments import moments, products

STANDARD = 5  # numbers of a channel: mean, 1 / sigma, what rounding left of the mean, scale, shift


def group_norm_silu(x, groups, w, b, eps, out=None):
    """`silu(group_norm(x))` on the CPU, arguments as in `ref.layers.fused.group_norm_silu`."""
    shape, dtype = engine.same(x=x)
    sizes = sizes_of(shape, groups)
    w, b = (engine.like(name, a, dtype, shape[1:2]) for name, a in (("w", w), ("b", b)))
    memory, how = engine.output(out, shape, dtype, flat := engine.flat(x), w, b)
    engine.run(normed, x.size, how, memory, flat, w, b, float(eps), *sizes, parts=shape[0] * sizes[0])
    return engine.finish(memory, out, shape)


def group_norm_silu_backward(dy, x, groups, w, b, eps, out=None):
    """Gradients of `group_norm_silu` on the CPU, arguments as in `ref.layers.fused.group_norm_silu_backward` and
    `ref.layers.fused.group_norm_silu`. out: of dx alone."""
    shape, dtype = engine.same(dy=dy, x=x)
    sizes = sizes_of(shape, groups)
    scale, shift = (engine.like(name, a, dtype, shape[1:2]) for name, a in (("w", w), ("b", b)))
    sums = np.zeros((2, shape[0], shape[1]))
    memory, how = engine.output(out, shape, dtype, upstream := engine.flat(dy), flat := engine.flat(x), scale, shift)
    given = upstream, flat, scale, shift, float(eps)
    engine.run(normed_back, x.size, how, memory, sums, *given, *sizes, parts=shape[0] * sizes[0])
    dx = engine.finish(memory, out, shape)
    return (dx, None, None) if w is None else (dx, *np.add.reduce(sums, axis=1).astype(dtype))


def sizes_of(shape, groups):
    """groups, channels of a group, pixels, after the check. shape: of x."""
    groups = int(groups)
    if len(shape) < 2 or groups < 1 or shape[1] % groups:
        raise ValueError(f"groups: expected a divisor of the channels of x {shape}, got {groups}")
    return groups, shape[1] // groups, int(np.prod(shape[2:]))


def standards(x, shape, groups, w, b, eps):
    """What `activate` needs of each channel, (B C STANDARD,), after the check. x: flat, of that shape. groups, w, b,
    eps: as in `group_norm_silu`."""
    sizes = sizes_of(shape, groups)
    w, b = (engine.like(name, a, x.dtype, shape[1:2]) for name, a in (("scale", w), ("shift", b)))
    norm = np.empty(shape[0] * shape[1] * STANDARD, x.dtype)
    engine.run(standardise, x.size, norm, x, w, b, float(eps), *sizes, parts=shape[0] * sizes[0])
    return norm


@element
def line_of(w, b, channel):
    """w and b of a channel. w, b: arrays, empty for 1 and 0."""
    scale = w[channel] if w.size else w.dtype.type(1)
    return scale, b[channel] if b.size else b.dtype.type(0)


@alone
def _normed_part(o, v, m, over, off, scale, shift):
    wide()
    steep, start = -scale * LOG2_E, -shift * LOG2_E
    for j in range(v.size):
        standard = fma(v[j] - m, over, off)
        o[j] = silu_from(fma(scale, standard, shift), fma(steep, standard, start))


@njit(**COMPILE)
def normed(lo, hi, how, out, x, w, b, eps, groups, channels, pixels):
    """`group_norm_silu` of the groups lo .. hi - 1 of all examples.

    how: of `engine.output`. out, x: flat. w, b: (C,), or empty. eps: float. groups: of an example. channels, pixels: of
    a group.
    """
    part, n = np.empty(CHUNK, x.dtype), channels * pixels
    for group in range(lo, hi):
        m, over, off = moments(x[group * n : (group + 1) * n], eps)
        for k in range(channels):
            scale, shift = line_of(w, b, group % groups * channels + k)
            begin = group * n + k * pixels
            for first in range(begin, begin + pixels, CHUNK):
                last = min(first + CHUNK, begin + pixels)
                o = out[first:last] if how == DIRECT else part[: last - first]
                _normed_part(o, x[first:last], m, over, off, scale, shift)
                if how != DIRECT:
                    deliver(out, part, first, last, how)


@njit(**COMPILE)
def standardise(lo, hi, norm, x, w, b, eps, groups, channels, pixels):
    """`standards`, in norm, of the groups lo .. hi - 1 of all examples. The rest as in `normed`."""
    wide()
    n = channels * pixels
    for group in range(lo, hi):
        m, over, off = moments(x[group * n : (group + 1) * n], eps)
        for k in range(channels):
            scale, shift = line_of(w, b, group % groups * channels + k)
            to = norm[(group * channels + k) * STANDARD : (group * channels + k + 1) * STANDARD]
            to[0], to[1], to[2], to[3], to[4] = m, over, off, scale, shift


@element
def activate(v, standard):
    """v = silu(scale x_hat + shift) in place of x. v: numbers of one channel. standard: the channel's of `standards`.
    """
    wide()
    m, over, off, scale, shift = standard[0], standard[1], standard[2], standard[3], standard[4]
    steep, start = -scale * LOG2_E, -shift * LOG2_E
    for j in range(v.size):
        x_hat = fma(v[j] - m, over, off)
        v[j] = silu_from(fma(scale, x_hat, shift), fma(steep, x_hat, start))


@njit(**COMPILE)
def normed_back(lo, hi, how, dx, sums, dy, x, w, b, eps, groups, channels, pixels):
    """`group_norm_silu_backward` of the groups lo .. hi - 1. sums: (2, B, C), where those of dz x_hat and dz of each
    channel go. dx, dy, x: flat. The rest as in `normed`."""
    wide()
    part, n = np.empty(CHUNK, x.dtype), channels * pixels
    dz, x_hat = np.empty(n, x.dtype), np.empty(n, x.dtype)
    for group in range(lo, hi):
        base, example, channel = group * n, group // groups, group % groups * channels
        m, over, off = moments(x[base : base + n], eps)
        mean = slope = 0.0
        for k in range(channels):
            scale, shift = line_of(w, b, channel + k)
            total = inner = 0.0
            for first in range(k * pixels, (k + 1) * pixels, CHUNK):
                last = min(first + CHUNK, (k + 1) * pixels)
                z, h = dz[first:last], x_hat[first:last]
                v, d = x[base + first : base + last], dy[base + first : base + last]
                for j in range(v.size):
                    standard = fma(v[j] - m, over, off)
                    y = fma(scale, standard, shift)
                    z[j] = d[j] * gate_slope(y, y)
                    h[j] = standard
                s, q = products(z, h)
                total += s
                inner += q
            sums[0, example, channel + k], sums[1, example, channel + k] = inner, total
            mean += scale * total
            slope += scale * inner
        # dx = (w dz - mean(w dz) - x_hat mean(w dz x_hat)) / sigma
        mid, tilt = x.dtype.type(mean / n), x.dtype.type(slope / n)
        for k in range(channels):
            scale = line_of(w, b, channel + k)[0]
            for first in range(k * pixels, (k + 1) * pixels, CHUNK):
                last = min(first + CHUNK, (k + 1) * pixels)
                z, h = dz[first:last], x_hat[first:last]
                for j in range(z.size):
                    part[j] = fma(scale, z[j], -fma(h[j], tilt, mid)) * over
                deliver(dx, part, base + first, base + last, how)
