"""`ref.scene.splat` on the CPU. The picture is cut into tiles of SIDE x SIDE pixels, each with a list of the Gaussians
that reach it, front to back; a tile is one thread's. A Gaussian walks over the rows of a tile that it reaches, whose
pixels are the lanes of vectors. `out` takes y.

Papers
    [3DGS]  Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023
"""
import math
from collections import namedtuple

import numpy as np

from kernels.gaussians import prepared
from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, INLINE, OVER, element, inner
from kernels.numba_cpu.intrinsics import choose, fma, wide
from kernels.numba_cpu.math import falloff

SIDE = 16  # pixels of a tile's side; a row of a tile is one vector of float32
LIVE, ROUND = np.int32(2**31 - 1), 8  # of a pixel that nothing has ended; Gaussians between two looks for such pixels
SPLAT = dict(origin=(0, 0), alpha_min=1 / 255, alpha_max=0.99, rest_min=1e-4, sigmas=3.0, depth_min=0.0)

# The lists of all tiles. begin: (tiles + 1,), where each begins. which: (entries,), places in the order. slot:
# (entries,), places among the tiles of all Gaussians in turn. first: (M + 1,), where there each Gaussian's begin.
# spans: (slots, 2), the first pixel of a tile in the rows that the Gaussian reaches, and that after the last
Lists = namedtuple("Lists", "begin which slot first spans")
# Numbers of the picture that a kernel needs. across: tiles of a row
Picture = namedtuple("Picture", "height width across u v channels")


def splat(uv, cov2, depth, opacity, color, background, size, origin=(0, 0), alpha_min=1 / 255, alpha_max=0.99,
          rest_min=1e-4, sigmas=3.0, depth_min=0.0, out=None):
    """[3DGS] eqs. 2 and 3 on the CPU, arguments as in `ref.scene.splat.splat`. out: takes y."""
    checked(uv=uv, cov2=cov2, depth=depth, opacity=opacity, color=color, background=background)
    thresholds = alpha_min, alpha_max, rest_min, sigmas, depth_min
    splats = prepared(uv, cov2, depth, opacity, color, background, size, origin, *thresholds)
    rows, colors, lists, picture = listed(splats, color)
    shape, base = (picture.channels, *splats.size), engine.flat(background)
    y, how = engine.output(out, shape, color.dtype, base, *(engine.flat(a) for a in (uv, cov2, depth, opacity, color)))
    y, rest = np.empty(y.size, y.dtype) if how == OVER else y, np.empty(splats.size, y.dtype)
    limits = np.array([splats.alpha_max, splats.rest_min], y.dtype)
    work = 64 * lists.which.size * SIDE + y.size
    engine.run(draw, work, y, rest.reshape(-1), rows, colors, base, limits, lists, picture, parts=lists.begin.size - 1)
    return engine.finish(y, out, shape), rest


def checked(**arrays):
    """Raises TypeError where the arrays are not all of NumPy and of one dtype. arrays: by name."""
    (name, first), *others = arrays.items()
    _, dtype = engine.same(**{name: first})
    for other, array in others:
        if engine.same(**{other: array})[1] != dtype:
            raise TypeError(f"{other}: expected a NumPy array of {dtype} like {name}, got {array.dtype}")


def listed(splats, color):
    """The Gaussians' rows (M, PIXEL) and colours (M, C) in color's dtype, `Lists`, and `Picture`. splats: of
    `prepared`. color: (N, C)."""
    (H, W), M, (u, v) = splats.size, len(splats.order), splats.origin
    down, across = -(-H // SIDE), -(-W // SIDE)
    begin, last = splats.low // SIDE, -(-splats.high // SIDE)
    reached = np.where(splats.high > splats.low, last - begin, 0)
    first = np.concatenate([[0], np.cumsum(reached[:, 0] * reached[:, 1], dtype=np.int64)])
    starts, spans = np.zeros(down * across + 1, np.int64), np.empty((first[-1], 2), np.int32)
    picture = Picture(H, W, across, u, v, color.shape[1])
    which, slot = np.empty(first[-1], np.int32), np.empty(first[-1], np.int64)
    fill_lists(Lists(starts, which, slot, first, spans), splats.rows, begin, reached, picture)
    rows = np.ascontiguousarray(splats.rows, color.dtype)
    lists = Lists(starts, which, slot, first, spans)
    return rows, color[splats.order].reshape(M, picture.channels), lists, picture


@element
def span(row, left, top):
    """The first pixel and that after the last in the rows of a tile that a Gaussian reaches, equal for none. row:
    (PIXEL,) float64. left, top: the centre of the tile's first pixel."""
    u, v, p, q, r, _, most, _ = row
    spread = 4 * p * r - q * q
    if not (spread > 0 and most < np.inf and most >= 0):
        return 0, 0 if most < 0 else SIDE * SIDE
    end = math.sqrt(4 * p * most / spread)
    shift, slack = q * end / (2 * p), 0.01 + 1e-5 * end
    # The ellipse is highest at -shift and lowest at shift: or, between two columns, next to there
    x, y = min(max(-shift, left - u), left - u + SIDE - 1), min(max(shift, left - u), left - u + SIDE - 1)
    high, low = 4 * r * most - spread * x * x, 4 * r * most - spread * y * y
    if max(high, low) < -1e-3 * r * most:
        return 0, 0
    last = (math.sqrt(max(high, 0.0)) - q * x) / (2 * r) + v - top + slack
    begin = (-math.sqrt(max(low, 0.0)) - q * y) / (2 * r) + v - top - slack
    begin, last = min(max(math.ceil(begin), 0), SIDE), max(min(math.floor(last) + 1, SIDE), 0)
    return begin * SIDE, max(begin, last) * SIDE


@njit(**COMPILE)
def fill_lists(lists, rows, begin, reached, picture):
    """Writes lists, `Lists`, but for `first`. rows: (M, PIXEL) float64. begin, reached: (M, 2) ints, the first tile of
    each Gaussian, column and row, and how many. picture: `Picture`."""
    starts, spans, across = lists.begin, lists.spans, picture.across
    for g in range(begin.shape[0]):
        k = lists.first[g]
        row = (rows[g, 0], rows[g, 1], rows[g, 2], rows[g, 3], rows[g, 4], rows[g, 5], rows[g, 6], rows[g, 7])
        for i in range(begin[g, 1], begin[g, 1] + reached[g, 1]):
            for j in range(begin[g, 0], begin[g, 0] + reached[g, 0]):
                spans[k] = span(row, picture.u + j * SIDE + 0.5, picture.v + i * SIDE + 0.5)
                starts[i * across + j + 1] += spans[k, 1] > spans[k, 0]
                k += 1
    for tile in range(starts.size - 1):
        starts[tile + 1] += starts[tile]
    free = starts.copy()
    for g in range(begin.shape[0]):
        k = lists.first[g]
        for i in range(begin[g, 1], begin[g, 1] + reached[g, 1]):
            for j in range(begin[g, 0], begin[g, 0] + reached[g, 0]):
                if spans[k, 1] > spans[k, 0]:
                    at = free[i * across + j]
                    lists.which[at], lists.slot[at] = g, k
                    free[i * across + j] += 1
                k += 1


# --- one tile ---------------------------------------------------------------------------------------------------------


@element
def numbers_of(rows, g):
    """The seven numbers of Gaussian g, a tuple. rows: (M, PIXEL)."""
    return rows[g, 0], rows[g, 1], rows[g, 2], rows[g, 3], rows[g, 4], rows[g, 5], rows[g, 6]


@element
def weighed(x, y, row, most):
    """exp(-h), opacity exp(-h), alpha, and whether h is small enough to count. x, y: the way from u and v. row: of
    `numbers_of`. most: alpha_max."""
    h = fma(fma(row[2], x, row[3] * y), x, row[4] * y * y)
    e = falloff(h)
    raw = row[5] * e
    return e, raw, choose(raw > most, most, raw), not h > row[6]


@inner
def pass_through(w, T, stop, xs, ys, rows, g, k, a, b, limits):
    """Gaussian g, the k-th of a tile's list, in front of what is behind it, at the pixels a .. b - 1: w = alpha T where
    it counts, else 0, T after it, and stop, which is k where it ended a pixel. w, T, stop, xs, ys: (pixels,). rows: (M,
    PIXEL). limits: alpha_max, rest_min."""
    w, T, stop, xs, ys, row, least = w[a:b], T[a:b], stop[a:b], xs[a:b], ys[a:b], numbers_of(rows, g), limits[1]
    one, nothing = limits.dtype.type(1), limits.dtype.type(0)
    for p in range(w.size):
        _, _, alpha, near = weighed(xs[p] - row[0], ys[p] - row[1], row, limits[0])
        before = T[p]
        after = before * (one - alpha)
        last = stop[p]
        counts = near & (last > k)
        ends = counts & (after < least)
        goes_on = counts & (not after < least)
        stop[p] = choose(ends, k, last)
        w[p] = choose(goes_on, alpha * before, nothing)
        T[p] = choose(goes_on, after, before)


@inner
def add(sums, c, w, factor, a, b):
    """sums[c] += factor w at the pixels a .. b - 1. sums: (C, pixels). w: (pixels,). factor: number."""
    s, w = sums[c, a:b], w[a:b]
    for p in range(w.size):
        s[p] = fma(factor, w[p], s[p])


@inner
def any_live(stop):
    """Whether a pixel is left that nothing has ended. stop: (pixels,)."""
    left = False
    for p in range(stop.size):
        left |= stop[p] == LIVE
    return left


@njit(**INLINE)
def begin_tile(tile, xs, ys, T, stop, picture):
    """The first row and column of a tile, its centres xs, ys, T = 1 and stop, LIVE inside of the picture."""
    top, left = tile // picture.across * SIDE, tile % picture.across * SIDE
    for i in range(SIDE):
        for j in range(SIDE):
            p = i * SIDE + j
            xs[p], ys[p], T[p] = picture.u + left + j + 0.5, picture.v + top + i + 0.5, 1
            stop[p] = LIVE if top + i < picture.height and left + j < picture.width else -1
    return top, left


@njit(**COMPILE)
def draw(lo, hi, y, rest, rows, colors, background, limits, lists, picture):
    """`splat` of the tiles lo .. hi - 1. y: (C, H, W), rest: (H, W), flat. rows: (M, PIXEL). colors: (M, C).
    background: (C,). limits: alpha_max, rest_min. lists: `Lists`. picture: `Picture`."""
    wide()
    H, W, C = picture.height, picture.width, picture.channels
    size, dtype = SIDE * SIDE, rows.dtype
    xs, ys, T, w = np.empty(size, dtype), np.empty(size, dtype), np.empty(size, dtype), np.empty(size, dtype)
    stop, sums = np.empty(size, np.int32), np.empty((C, size), dtype)
    for tile in range(lo, hi):
        top, left = begin_tile(tile, xs, ys, T, stop, picture)
        sums[:] = 0
        # Front to back
        for k in range(lists.begin[tile + 1] - lists.begin[tile]):
            if k % ROUND == 0 and not any_live(stop):
                break
            g, at = lists.which[lists.begin[tile] + k], lists.slot[lists.begin[tile] + k]
            a, b = lists.spans[at, 0], lists.spans[at, 1]
            pass_through(w, T, stop, xs, ys, rows, g, np.int32(k), a, b, limits)
            for c in range(C):
                add(sums, c, w, colors[g, c], a, b)
        # What is behind all of them
        for i in range(min(SIDE, H - top)):
            for j in range(min(SIDE, W - left)):
                at, p = (top + i) * W + left + j, i * SIDE + j
                rest[at] = T[p]
                for c in range(C):
                    y[c * H * W + at] = fma(T[p], background[c], sums[c, p])
