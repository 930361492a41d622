"""`guided_ddim_step` with eta = 0 on the CPU: three arrays are read and one is written, so memory is the limit.

Papers
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [CFG]   Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
"""
import math

import numba
import numpy as np

from kernels import coefficients
from kernels.numba_cpu import fused
from kernels.numba_cpu.engine import COMPILE

OP, OPTIONS = "fused.guided_ddim_step", {"w": 2.0, "eta": 0.0}
SHAPE, SMALL = (1024, 3, 64, 64), (3, 2, 20, 30)
CHUNK = 8192  # elements whose five arrays stay in the second-level cache


def as_printed(xt, uncond, cond, w, t, s, abar, **rest):
    """[CFG] eq. 6 and [DDIM] eq. 12, an array for each sign on paper.

    Predicted: ten passes over memory, each with two reads and a write into new pages: 8 % of a copy."""
    f = np.float32
    e = uncond + f(w) * (cond - uncond)
    x0 = (xt - f(math.sqrt(1 - abar[t])) * e) / f(math.sqrt(abar[t]))
    return f(math.sqrt(abar[s])) * x0 + f(math.sqrt(1 - abar[s])) * e


def folded(xt, uncond, cond, w, t, s, abar, **rest):
    """The schedule is folded in float64: x_s = a x_t + b (uncond + w (cond - uncond)) with two numbers a and b.

    Predicted: six passes in place of ten, 1.7 times."""
    a, b, w = _ab(t, s, abar, w)
    return a * xt + b * (uncond + w * (cond - uncond))


def in_place(xt, uncond, cond, w, t, s, abar, **rest):
    """Two arrays that are kept from call to call take all results.

    Predicted: no new page is cleared and mapped, which costs more than a pass: 2 times."""
    a, b, w = _ab(t, s, abar, w)
    out, e = _memory(xt.shape)
    np.subtract(cond, uncond, out=e)
    np.multiply(e, w, out=e)
    np.add(e, uncond, out=e)
    np.multiply(e, b, out=e)
    np.multiply(xt, a, out=out)
    return np.add(out, e, out=out)


def in_chunks(xt, uncond, cond, w, t, s, abar, **rest):
    """The six passes go over 8192 elements at a time, which stay in the cache.

    Predicted: memory is read three times and written once, and a write reads its line first: five in place of
    fourteen, but the passes over the cache stay: 2 times."""
    out, e = _memory(xt.shape)
    flat = [x.reshape(-1) for x in (xt, uncond, cond, out)]
    a, b, w = _ab(t, s, abar, w)
    scratch = e.reshape(-1)[:CHUNK]
    for first in range(0, out.size, CHUNK):
        x, u, c, o = (part[first : first + CHUNK] for part in flat)
        v = scratch[: o.size]
        np.subtract(c, u, out=v)
        np.multiply(v, w, out=v)
        np.add(v, u, out=v)
        np.multiply(v, b, out=v)
        np.multiply(x, a, out=o)
        np.add(o, v, out=o)
    return out


@numba.njit(**COMPILE | {"cache": False})
def _loop(out, xt, uncond, cond, a, b, w):
    for i in range(out.size):
        out[i] = a * xt[i] + b * (uncond[i] + w * (cond[i] - uncond[i]))


def compiled(xt, uncond, cond, w, t, s, abar, **rest):
    """One compiled loop: what is between a read and a write stays in registers.

    Predicted: memory alone is left, five transfers where a copy of as many bytes has its four: 1.5 times, 80 %."""
    out, _ = _memory(xt.shape)
    _loop(*(x.reshape(-1) for x in (out, xt, uncond, cond)), *_ab(t, s, abar, w))
    return out


def kernel(xt, uncond, cond, w, t, s, abar, **rest):
    """The project's kernel: rows may have times of their own, and a result that no cache holds is written around it.

    Predicted: no line is read before it is written, four transfers in place of five: 1.2 times, the limit."""
    return fused.guided_ddim_step(xt, uncond, cond, w, t, s, **rest, abar=abar, out=_memory(xt.shape)[0])


def _ab(t, s, abar, w):
    """a, b and w in float32."""
    c = coefficients.ddim_step(t, s, 0.0, abar, (1, 1))[:, 0]
    a, b = c[4] * c[0], c[4] * c[1] + c[5]
    return np.float32(a), np.float32(b), np.float32(w)


_kept = {}


def _memory(shape):
    """Two arrays that are kept, (2, ...)."""
    if shape not in _kept:
        _kept.clear()
        _kept[shape] = np.zeros((2, *shape), np.float32)
    return _kept[shape]


RUNGS = as_printed, folded, in_place, in_chunks, compiled, kernel
