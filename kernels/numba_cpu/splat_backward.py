"""The gradient of `ref.scene.splat` on the CPU: each tile once more front to back, then back to front. A Gaussian's sum
over the pixels of a tile has a place of its own, and those of its tiles are added in the order of the tiles, in
float64: no order of threads can change a bit. There is no `out`."""
import numpy as np

from kernels.gaussians import finished, prepared
from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, INLINE, SUM, inner
from kernels.numba_cpu.intrinsics import choose, fma, wide
from kernels.numba_cpu.splat import (
    ROUND, SIDE, any_live, begin_tile, checked, listed, numbers_of, pass_through, weighed,
)  # fmt: skip

MOMENTS = 6  # sums of a Gaussian besides those of its colours


def splat_backward(dy, drest, uv, cov2, depth, opacity, color, background, size, origin=(0, 0), alpha_min=1 / 255,
                   alpha_max=0.99, rest_min=1e-4, sigmas=3.0, depth_min=0.0):
    """Gradients of `splat` on the CPU, arguments as in `ref.scene.splat.splat_backward`."""
    checked(uv=uv, cov2=cov2, depth=depth, opacity=opacity, color=color, background=background)
    thresholds = alpha_min, alpha_max, rest_min, sigmas, depth_min
    splats = prepared(uv, cov2, depth, opacity, color, background, size, origin, *thresholds)
    dtype = color.dtype
    rows, colors, lists, picture = listed(splats, color)
    upstream = engine.like("dy", dy, dtype, (picture.channels, *splats.size)), engine.like("drest", drest, dtype,
                                                                                           splats.size)
    limits, tiles = np.array([splats.alpha_max, splats.rest_min], dtype), lists.begin.size - 1
    parts, behind = np.empty((lists.which.size, picture.channels + MOMENTS), dtype), np.zeros((tiles, picture.channels))
    engine.run(descend, 128 * lists.which.size * SIDE + dy.size, parts, behind, *upstream, rows, colors,
               engine.flat(background), limits, lists, picture, parts=tiles)
    sums = np.zeros((len(rows), picture.channels + MOMENTS))
    engine.run(gather, sums.size, sums, parts, lists.first, lists.spans, parts=len(rows))
    return *finished(sums, splats, dtype), behind.sum(axis=0).astype(dtype)


@njit(**COMPILE)
def gather(lo, hi, sums, parts, first, spans):
    """sums (M, n), the rows lo .. hi - 1: of parts (slots, n) those from first[g] to first[g + 1] that hold something.
    first, spans: of `Lists`."""
    for g in range(lo, hi):
        for k in range(first[g], first[g + 1]):
            for i in range(sums.shape[1] if spans[k, 1] > spans[k, 0] else 0):
                sums[g, i] += parts[k, i]


# --- one Gaussian in a tile -------------------------------------------------------------------------------------------


@inner
def pass_back(w, f, q, T, behind, stop, own, xs, ys, rows, g, k, a, b, most):
    """Gaussian g, the k-th of a tile's list, from what is behind it: w = alpha T, f = dalpha exp(-h), q = dalpha alpha,
    0 where it does not count; T before it, and behind what it leaves there. own: its colour times dy. The other
    arguments as in `pass_through`; most: (1,), alpha_max."""
    w, f, q, T, behind = w[a:b], f[a:b], q[a:b], T[a:b], behind[a:b]
    stop, own, xs, ys, row = stop[a:b], own[a:b], xs[a:b], ys[a:b], numbers_of(rows, g)
    one, nothing = most.dtype.type(1), most.dtype.type(0)
    for p in range(w.size):
        e, raw, alpha, near = weighed(xs[p] - row[0], ys[p] - row[1], row, most[0])
        counts = near & (stop[p] > k)
        here, left = T[p], behind[p]
        before = choose(counts, here / (one - alpha), here)
        dalpha = choose(counts & (not raw > most[0]), before * (own[p] - left), nothing)
        w[p] = choose(counts, alpha * before, nothing)
        T[p] = before
        behind[p] = choose(counts, fma(alpha, own[p], (one - alpha) * left), left)
        f[p], q[p] = dalpha * e, dalpha * raw


@inner
def along(own, dys, c, factor, a, b):
    """own += factor dys[c] at the pixels a .. b - 1, or = where c is 0. own: (pixels,). dys: (C, pixels)."""
    o, dy = own[a:b], dys[c, a:b]
    if c == 0:
        for p in range(o.size):
            o[p] = factor * dy[p]
    else:
        for p in range(o.size):
            o[p] = fma(factor, dy[p], o[p])


@njit(_nrt=False, **SUM)
def dot(x, y, c, a, b):
    """sum_p x_p y_cp of the pixels a .. b - 1 of channel c. x: (pixels,). y: (C, pixels)."""
    x, y, s = x[a:b], y[c, a:b], x.dtype.type(0)
    for p in range(x.size):
        s += x[p] * y[p]
    return s


@njit(_nrt=False, **SUM)
def moments(f, q, xs, ys, rows, g, a, b):
    """The sums of f, q d_u, q d_v, q d_u^2, q d_u d_v, q d_v^2 of Gaussian g at the pixels a .. b - 1. rows: (M,
    PIXEL). f, q, xs, ys: (pixels,)."""
    f, q, xs, ys, row = f[a:b], q[a:b], xs[a:b], ys[a:b], numbers_of(rows, g)
    s = mu = mv = muu = muv = mvv = f.dtype.type(0)
    for p in range(f.size):
        x, y = xs[p] - row[0], ys[p] - row[1]
        qx, qy = q[p] * x, q[p] * y
        s += f[p]
        mu += qx
        mv += qy
        muu += qx * x
        muv += qx * y
        mvv += qy * y
    return s, mu, mv, muu, muv, mvv


@njit(**INLINE)
def open_tile(behind, own, total, dys, dy, drest, T, background, top, left, picture):
    """What lies behind the last Gaussian of a tile, background . dy + drest, and its dys, (C, pixels), 0 outside of the
    picture; total: (C,), the sums of dy T. own: (pixels,), zeros after. top, left: of the tile. dy, drest, T,
    background, picture: as in `descend` and `splat.draw`."""
    H, W, C = picture.height, picture.width, picture.channels
    dys[:], behind[:], own[:] = 0, 0, 0
    for i in range(min(SIDE, H - top)):
        for j in range(min(SIDE, W - left)):
            at, p = (top + i) * W + left + j, i * SIDE + j
            behind[p] = drest[at]
            for c in range(C):
                dys[c, p] = dy[c * H * W + at]
                behind[p] = fma(background[c], dys[c, p], behind[p])
                total[c] += dys[c, p] * T[p]


@njit(**COMPILE)
def descend(lo, hi, parts, total, dy, drest, rows, colors, background, limits, lists, picture):
    """The sums of the tiles lo .. hi - 1, to parts (entries, C + MOMENTS), and of dy rest, to total (tiles, C). dy,
    drest: flat. rows, colors, background, limits, lists, picture: as in `splat.draw`."""
    wide()
    C, size, dtype = picture.channels, SIDE * SIDE, rows.dtype
    room, dys, stop, most = np.empty((8, size), dtype), np.empty((C, size), dtype), np.empty(size, np.int32), limits[:1]
    xs, ys, T, w, f, q, own, behind = room[0], room[1], room[2], room[3], room[4], room[5], room[6], room[7]
    for tile in range(lo, hi):
        top, left = begin_tile(tile, xs, ys, T, stop, picture)
        first, seen = lists.begin[tile], 0
        # Front to back, for T and where each pixel ends
        for k in range(lists.begin[tile + 1] - first):
            if k % ROUND == 0 and not any_live(stop):
                break
            g, at, seen = lists.which[first + k], lists.slot[first + k], k + 1
            a, b = lists.spans[at, 0], lists.spans[at, 1]
            pass_through(w, T, stop, xs, ys, rows, g, np.int32(k), a, b, limits)
        open_tile(behind, own, total[tile], dys, dy, drest, T, background, top, left, picture)
        for k in range(seen, lists.begin[tile + 1] - first):
            parts[lists.slot[first + k]] = 0
        # Back to front
        for k in range(seen - 1, -1, -1):
            g, at = lists.which[first + k], lists.slot[first + k]
            a, b = lists.spans[at, 0], lists.spans[at, 1]
            for c in range(C):
                along(own, dys, c, colors[g, c], a, b)
            pass_back(w, f, q, T, behind, stop, own, xs, ys, rows, g, np.int32(k), a, b, most)
            for c in range(C):
                parts[at, c] = dot(w, dys, c, a, b)
            parts[at, C], parts[at, C + 1], parts[at, C + 2], parts[at, C + 3], parts[at, C + 4], parts[at, C + 5] = (
                moments(f, q, xs, ys, rows, g, a, b))
