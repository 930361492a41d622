"""`ref.scene.volume` on the GPU: volume rendering. A program takes ROWS rays, tile after tile of COLS samples; what
lies before a sample is a scan of the exponents, so that no weight cancels. The gradient is two launches: front to back,
which leaves each sample's light and slope, then back to front. `out` takes the first result. Densities and lengths
below 0 are not refused.

Papers
    [NeRF]  Mildenhall et al., "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis", 2020
"""
import numpy as np
import triton
import triton.language as tl

from kernels.triton_gpu import launch
from kernels.triton_gpu.arrays import SINGLE, apart, kind_of, output, read
from kernels.triton_gpu.layers.vectors import added, fresh, given, written
from kernels.triton_gpu.math import faded

ROWS, COLS = 8, 64


def composite(sigma, color, delta, t, background, out=None):
    """[NeRF] eq. 3 on the GPU, arguments as in `ref.scene.volume.composite`. out: takes y."""
    arrays, pointers, (n, samples, channels) = _read(sigma, color, delta, t, background)
    y, to = written("out", out, arrays, (n, channels))
    for pointer, size in zip(pointers, (n * samples, n * samples * channels, n * samples, n * samples, channels)):
        apart((to, n * channels), (pointer, size))
    (depth, to_depth), (opacity, to_opacity) = fresh(arrays, (n,)), fresh(arrays, (n,))
    launch.run(_render, launch.programs(n, ROWS), arrays, to, to_depth, to_opacity, *pointers, n, samples, C=channels,
               ROWS=ROWS, COLS=COLS)
    return y, depth, opacity


def composite_backward(dy, ddepth, dopacity, sigma, color, delta, t, background, out=None):
    """Gradients of `composite` on the GPU, arguments as in `ref.scene.volume.composite_backward`. out: takes dsigma."""
    arrays, pointers, (n, samples, channels) = _read(sigma, color, delta, t, background)
    upstream = *given(arrays, (n, channels), dy=dy), *given(arrays, (n,), ddepth=ddepth, dopacity=dopacity)
    dsigma, to_sigma = output("out", out, arrays)
    made = [fresh(arrays, shape) for shape in ((n, samples, channels), (n, samples), (n, samples))]
    (dcolor, to_color), (ddelta, to_delta), (dt, to_t) = made
    programs = launch.programs(n, ROWS)
    light, slope, behind, sums = launch.workspace(arrays, empty=[
        (size, "float32") for size in (n * samples, n * samples, n, programs * channels)])
    tiles = dict(ROWS=ROWS, COLS=COLS)
    launch.run(_forth, programs, arrays, (to_color, to_t), (light, slope, behind, sums), upstream, tuple(pointers), n,
               samples, C=channels, **tiles)
    launch.run(_back, programs, arrays, to_sigma, to_delta, light, slope, behind, pointers[0], pointers[2], n, samples,
               **tiles)
    (dbackground,) = added(arrays, sums, 1, (channels,), programs)
    return dsigma, dcolor, ddelta, dt, dbackground


def _read(sigma, color, delta, t, background):
    """`Arrays` of sigma, delta and t, the pointers of all five in the order of the arguments, and (N, S, C)."""
    arrays = read(SINGLE, sigma=sigma, delta=delta, t=t)
    if len(arrays.shape) != 2:
        raise ValueError(f"sigma: expected shape (N, S), got {arrays.shape}")
    shape = kind_of("color", color).describe(color)[0]
    channels = shape[2] if len(shape) == 3 else 1
    (of_color,) = given(arrays, (*arrays.shape, channels), color=color)
    (of_background,) = given(arrays, (channels,), background=background)
    of_sigma, of_delta, of_t = arrays.pointers
    return arrays, (of_sigma, of_color, of_delta, of_t, of_background), (*arrays.shape, channels)


@triton.jit
def place_of(first, n, samples, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Of a tile of samples from `first` on: where they are, which there are, and their number on the ray. n, samples:
    of the arrays. ROWS, COLS: of the tile."""
    ray = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    sample = first + tl.arange(0, COLS)[None, :]
    return ray * samples + sample, (ray < n) & (sample < samples), sample


@triton.jit
def weigh(sigma, delta, before, first, n, samples, ROWS: tl.constexpr, COLS: tl.constexpr):
    """The weights of a tile, T behind each sample, and the exponent before the next tile's first sample. before: (ROWS,
    1), before this tile's. sigma, delta: pointers. first, n, samples, ROWS, COLS: as in `place_of`."""
    at, inside, sample = place_of(first, n, samples, ROWS, COLS)
    tau = tl.load(sigma + at, mask=inside, other=0) * tl.load(delta + at, mask=inside, other=0)
    earlier = inside & (sample > first)
    last = tl.load(sigma + at - 1, mask=earlier, other=0) * tl.load(delta + at - 1, mask=earlier, other=0)
    depth = before + tl.cumsum(last, 1)
    T, _ = faded(depth)
    behind, alpha = faded(tau)
    return T * alpha, T * behind, before + tl.sum(tau, 1)[:, None]


@triton.jit(do_not_specialize=["n"])
def _render(
    y, depth, opacity, sigma, color, delta, t, background, n, samples,
    C: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    before = tl.zeros((ROWS, 1), tl.float32)
    far, total = tl.zeros((ROWS, COLS), tl.float32), tl.zeros((ROWS, COLS), tl.float32)
    sums = ()
    for c in tl.static_range(C):
        sums = sums + (tl.zeros((ROWS, COLS), tl.float32),)
    for first in range(0, samples, COLS):
        at, inside, sample = place_of(first, n, samples, ROWS, COLS)
        w, _, before = weigh(sigma, delta, before, first, n, samples, ROWS, COLS)
        total += w
        far = tl.fma(w, tl.load(t + at, mask=inside, other=0), far)
        new = ()
        for c in tl.static_range(C):
            new = new + (tl.fma(w, tl.load(color + at * C + c, mask=inside, other=0), sums[c]),)
        sums = new
    ray = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    rest = tl.sum(faded(before)[0], 1)  # of one column
    for c in tl.static_range(C):
        tl.store(y + ray * C + c, tl.fma(rest, tl.load(background + c), tl.sum(sums[c], 1)), mask=ray < n)
    tl.store(depth + ray, tl.sum(far, 1), mask=ray < n)
    tl.store(opacity + ray, tl.sum(total, 1), mask=ray < n)


@triton.jit(do_not_specialize=["n"])
def _forth(results, work, upstream, rays, n, samples, C: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    dcolor, dt = results
    light, slope, behind, sums = work
    dy, ddepth, dopacity = upstream
    sigma, color, delta, t, background = rays
    ray = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    there, before = ray < n, tl.zeros((ROWS, 1), tl.float32)
    of_depth, of_opacity = tl.load(ddepth + ray, mask=there, other=0), tl.load(dopacity + ray, mask=there, other=0)
    for first in range(0, samples, COLS):
        at, inside, sample = place_of(first, n, samples, ROWS, COLS)
        w, T, before = weigh(sigma, delta, before, first, n, samples, ROWS, COLS)
        dw = tl.fma(tl.load(t + at, mask=inside, other=0), of_depth, of_opacity)
        tl.store(dt + at, w * of_depth, mask=inside)
        for c in tl.static_range(C):
            up = tl.load(dy + ray * C + c, mask=there, other=0)
            dw = tl.fma(tl.load(color + at * C + c, mask=inside, other=0), up, dw)
            tl.store(dcolor + at * C + c, w * up, mask=inside)
        tl.store(light + at, w * dw, mask=inside)
        tl.store(slope + at, T * dw, mask=inside)
    # The background
    rest, _ = faded(before)
    drest = tl.zeros((ROWS, 1), tl.float32)
    for c in tl.static_range(C):
        up = tl.load(dy + ray * C + c, mask=there, other=0)
        drest = tl.fma(tl.load(background + c), up, drest)
        tl.store(sums + tl.program_id(0) * C + c, tl.sum(tl.sum(rest * up, 1), 0))
    tl.store(behind + ray, rest * drest, mask=there)


@triton.jit(do_not_specialize=["n"])
def _back(
    dsigma, ddelta, light, slope, behind, sigma, delta, n, samples, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    ray = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    left = tl.load(behind + ray, mask=ray < n, other=0)
    tiles = (samples + COLS - 1) // COLS
    for k in range(0, tiles):
        first = (tiles - 1 - k) * COLS
        at, inside, sample = place_of(first, n, samples, ROWS, COLS)
        own = tl.load(light + at, mask=inside, other=0)
        later = tl.load(light + at + 1, mask=inside & (sample + 1 < samples) & (sample + 1 < first + COLS), other=0)
        dtau = tl.load(slope + at, mask=inside, other=0) - (left + tl.cumsum(later, 1, reverse=True))
        of_sigma, of_delta = tl.load(sigma + at, mask=inside, other=0), tl.load(delta + at, mask=inside, other=0)
        tl.store(dsigma + at, of_delta * dtau, mask=inside)
        tl.store(ddelta + at, of_sigma * dtau, mask=inside)
        left += tl.sum(own, 1)[:, None]
