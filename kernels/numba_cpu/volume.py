"""`ref.scene.volume` on the CPU: volume rendering, ray by ray. The exponent of a transmittance is added up in float64;
so are a ray's colours and what lies behind a sample. Gradients in the background are added in blocks of rays. `out`
takes the first result.

Papers
    [NeRF]  Mildenhall et al., "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis", 2020
"""
import numpy as np
from numba import float64

from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, INLINE, OVER, SUM
from kernels.numba_cpu.intrinsics import wide
from kernels.numba_cpu.math import faded

RAYS = 64  # of a block


def composite(sigma, color, delta, t, background, out=None):
    """[NeRF] eq. 3 on the CPU, arguments as in `ref.scene.volume.composite`. out: takes y."""
    (N, S), C, arrays = _checked(sigma, color, delta, t, background)
    y, how = engine.output(out, (N, C), sigma.dtype, *arrays)
    y = np.empty(y.size, y.dtype) if how == OVER else y
    depth, opacity = np.empty(N, y.dtype), np.empty(N, y.dtype)
    engine.run(render, N * max(S, 1) * 32, y, depth, opacity, *arrays, S, parts=-(-N // RAYS))
    return engine.finish(y, out, (N, C)), depth, opacity


def composite_backward(dy, ddepth, dopacity, sigma, color, delta, t, background, out=None):
    """Gradients of `composite` on the CPU, arguments as in `ref.scene.volume.composite_backward`. out: takes dsigma."""
    (N, S), C, arrays = _checked(sigma, color, delta, t, background)
    dtype, blocks = sigma.dtype, -(-N // RAYS)
    given = [engine.like(*named, dtype, shape) for named, shape in (
        (("dy", dy), (N, C)), (("ddepth", ddepth), (N,)), (("dopacity", dopacity), (N,)))]
    dsigma, how = engine.output(out, (N, S), dtype, *given, *arrays)
    dsigma = np.empty(dsigma.size, dtype) if how == OVER else dsigma
    dcolor, ddelta, dt = (np.empty(shape, dtype) for shape in ((N, S, C), (N, S), (N, S)))
    partial = np.zeros((blocks, C))
    results = dsigma, dcolor.reshape(-1), ddelta.reshape(-1), dt.reshape(-1)
    engine.run(render_backward, N * max(S, 1) * 64, results, partial, tuple(given), tuple(arrays), S, parts=blocks)
    return engine.finish(dsigma, out, (N, S)), dcolor, ddelta, dt, partial.sum(axis=0).astype(dtype)


def _checked(sigma, color, delta, t, background):
    """(N, S), C, and the arrays, flat, after the check."""
    shape, dtype = engine.same(sigma=sigma, delta=delta, t=t)
    if len(shape) != 2:
        raise ValueError(f"sigma: expected shape (N, S), got {shape}")
    C = color.shape[2] if getattr(color, "ndim", 0) == 3 else 0
    flat = [engine.flat(sigma), engine.like("color", color, dtype, (*shape, C)), engine.flat(delta), engine.flat(t),
            engine.like("background", background, dtype, (C,))]
    for name, array in (("sigma", flat[0]), ("delta", flat[2])):
        if np.any(array < 0):
            raise ValueError(f"{name}: expected values >= 0, got {np.nanmin(array)}")
    return shape, C, flat


@njit(**INLINE)
def weigh(w, T, sigma, delta):
    """w (S,) and T (S + 1,), from 1 at the ray's origin. sigma, delta: (S,)."""
    wide()
    total = 0.0
    T[0] = 1
    for i in range(w.size):
        total += float64(sigma[i]) * float64(delta[i])
        T[i + 1] = total
    for i in range(w.size):
        T[i + 1] = faded(T[i + 1])[0]
    for i in range(w.size):
        w[i] = T[i] * faded(sigma[i] * delta[i])[1]


@njit(**SUM)
def weighted(w, x, first, step):
    """sum_i w_i x[first + i step] and sum_i w_i in float64. w: (S,). x: flat. first, step: ints."""
    wide()
    s = total = 0.0
    for i in range(w.size):
        s += float64(w[i]) * float64(x[first + i * step])
        total += float64(w[i])
    return s, total


@njit(**COMPILE)
def render(lo, hi, y, depth, opacity, sigma, color, delta, t, background, S):
    """`composite` of the blocks lo .. hi - 1 of rays. y, depth, opacity, sigma, color, delta, t, background: flat. S:
    samples of a ray."""
    wide()
    C = background.size
    w, T = np.empty(S, y.dtype), np.empty(S + 1, y.dtype)
    for ray in range(lo * RAYS, min(hi * RAYS, depth.size)):
        first = ray * S
        weigh(w, T, sigma[first : first + S], delta[first : first + S])
        for c in range(C):
            seen, _ = weighted(w, color, first * C + c, C)
            y[ray * C + c] = seen + float64(T[S]) * float64(background[c])
        depth[ray], opacity[ray] = weighted(w, t, first, 1)


@njit(**COMPILE)
def render_backward(lo, hi, results, partial, upstream, rays, S):
    """`composite_backward` of the blocks lo .. hi - 1 of rays. results: dsigma, dcolor, ddelta, dt. partial: (blocks,
    C), of the background. upstream: dy, ddepth, dopacity. rays: of `_checked`. S: samples of a ray."""
    wide()
    (dsigma, dcolor, ddelta, dt), (dy, ddepth, dopacity) = results, upstream
    sigma, color, delta, t, background = rays
    C = background.size
    w, T = np.empty(S, dy.dtype), np.empty(S + 1, dy.dtype)
    for ray in range(lo * RAYS, min(hi * RAYS, ddepth.size)):
        first, up = ray * S, ray * C
        weigh(w, T, sigma[first : first + S], delta[first : first + S])
        # The background
        behind = 0.0
        for c in range(C):
            behind += float64(background[c]) * float64(dy[up + c])
            partial[ray // RAYS, c] += float64(T[S]) * float64(dy[up + c])
        behind *= T[S]
        # The samples, the last one first
        for i in range(S - 1, -1, -1):
            at, here = (first + i) * C, first + i
            dw = float64(t[here]) * float64(ddepth[ray]) + float64(dopacity[ray])
            for c in range(C):
                dw += float64(color[at + c]) * float64(dy[up + c])
                dcolor[at + c] = w[i] * dy[up + c]
            dtau = T[i + 1] * dw - behind
            behind += w[i] * dw
            dsigma[here], ddelta[here], dt[here] = delta[here] * dtau, sigma[here] * dtau, w[i] * ddepth[ray]
