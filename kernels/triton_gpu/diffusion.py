"""`ref.diffusion` on the GPU: float32, one pass over memory each; noising and the steps also float16 and bfloat16 in memory,
float32 in between.

Arguments are those of `ref.diffusion` (equations there), arrays of one kind (see `launch`) and dtype; t and s are ints of the
host. `out`, where given, is an array of that kind, shape and dtype and may be one of the inputs. Errors as there, before
anything is written. A sum of two products names its fused multiply-add, so the bits do not depend on how a compiler
contracts. Coefficients come folded: as numbers where one time holds for the batch, else in a float32 table.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]   Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [PD]     Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022
    [SDE]    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
"""
import numpy as np
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu import launch
from kernels.triton_gpu.optim import tree_sum
from kernels.triton_gpu.philox import stored

SINGLE = ("float32",)
STORED = ("float32", *launch.HALVES)


def q_sample(x0, t, eps, abar, out=None):
    """[DDPM] eq. 4:  x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps. x0, eps: (B, ...). t: (B,) ints or one int. abar: (T + 1,).

    Returns xt (B, ...), in out where given. Raises as `ref.diffusion.q_sample`.
    """
    arrays = launch.read(STORED, x0=x0, eps=eps)
    return _linear_pass(out, arrays, coefficients.q_sample(t, abar, arrays.shape))


def q_sample_backward(dxt, t, abar, out=None):
    """Gradients of `q_sample`:  dx0 = sqrt(abar_t) dxt,  deps = sqrt(1 - abar_t) dxt. dxt: (B, ...). t, abar: as there.

    Returns dx0, deps; out: a pair of arrays for them. Raises as `ref.diffusion.q_sample_backward`.
    """
    arrays = launch.read(SINGLE, dxt=dxt)
    c = launch.table(coefficients.q_sample(t, abar, arrays.shape), arrays)
    made, pointers = launch.outputs(out, 2, arrays)
    _by_row(_scale_two, arrays, c, *pointers)
    return tuple(made)


def posterior(x0, xt, t, s, abar, out=None):
    """[DDPM] eqs. 6, 7 for s < t: mean and variance of q(x_s | x_t, x0). x0, xt: (B, ...). t, s: ints or (B,) ints. abar: (T + 1,).

    Returns mean (B, ...), in out where given, and variance, a float or (B,) on the host. Raises as `ref.diffusion.posterior`.
    """
    arrays = launch.read(SINGLE, x0=x0, xt=xt)
    c = coefficients.posterior(t, s, abar, arrays.shape)
    variance = c[2].reshape(np.broadcast_shapes(np.shape(t), np.shape(s)))[()]
    return _linear_pass(out, arrays, c[:2]), variance


def x0_from_eps(xt, eps, t, abar, out=None):
    """[DDPM] eq. 15:  x0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t). xt, eps: (B, ...). t: int or (B,) ints. abar: (T + 1,).

    Returns x0 (B, ...), in out where given. Raises as `ref.diffusion.x0_from_eps`.
    """
    arrays = launch.read(SINGLE, xt=xt, eps=eps)
    return _linear_pass(out, arrays, coefficients.x0_from_eps(t, abar, arrays.shape))


def eps_from_x0(xt, x0, t, abar, out=None):
    """[DDIM] eq. 9 solved for eps:  eps = (x_t - sqrt(abar_t) x0) / sqrt(1 - abar_t). xt, x0: (B, ...). t: int or (B,) ints >= 1. abar: (T + 1,).

    Returns eps (B, ...), in out where given. Raises as `ref.diffusion.eps_from_x0`.
    """
    arrays = launch.read(SINGLE, xt=xt, x0=x0)
    return _linear_pass(out, arrays, coefficients.eps_from_x0(t, abar, arrays.shape))


def v_target(x0, eps, t, abar, out=None):
    """[PD] section 4:  v = sqrt(abar_t) eps - sqrt(1 - abar_t) x0. x0, eps: (B, ...). t: int or (B,) ints. abar: (T + 1,).

    Returns v (B, ...), in out where given. Raises as `ref.diffusion.v_target`.
    """
    arrays = launch.read(SINGLE, x0=x0, eps=eps)
    return _linear_pass(out, arrays, coefficients.v_target(t, abar, arrays.shape))


def x0_from_v(xt, v, t, abar, out=None):
    """[PD] appendix D:  x0 = sqrt(abar_t) x_t - sqrt(1 - abar_t) v. xt, v: (B, ...). t: int or (B,) ints. abar: (T + 1,).

    Returns x0 (B, ...), in out where given. Raises as `ref.diffusion.x0_from_v`.
    """
    arrays = launch.read(SINGLE, xt=xt, v=v)
    return _linear_pass(out, arrays, coefficients.x0_from_v(t, abar, arrays.shape))


def eps_from_v(xt, v, t, abar, out=None):
    """[PD] appendix D:  eps = sqrt(1 - abar_t) x_t + sqrt(abar_t) v. xt, v: (B, ...). t: int or (B,) ints. abar: (T + 1,).

    Returns eps (B, ...), in out where given. Raises as `ref.diffusion.eps_from_v`.
    """
    arrays = launch.read(SINGLE, xt=xt, v=v)
    return _linear_pass(out, arrays, coefficients.eps_from_v(t, abar, arrays.shape))


def score_from_eps(eps, t, abar, out=None):
    """[SDE] eq. 7 with [DDPM] eq. 4:  score = -eps / sqrt(1 - abar_t). eps: (B, ...). t: int or (B,) ints >= 1. abar: (T + 1,).

    Returns the score (B, ...), in out where given. Raises as `ref.diffusion.score_from_eps`.
    """
    arrays = launch.read(SINGLE, eps=eps)
    c = launch.table(coefficients.score_from_eps(t, abar, arrays.shape), arrays)
    out, pointer = launch.output("out", out, arrays)
    _by_row(_scale, arrays, c, pointer)
    return out


def ddpm_step(xt, eps_hat, t, s, z, abar, variance="small", clip=None, out=None):
    """[DDPM] algorithm 2 from t to s < t:  x_s = mean(x0_hat, x_t) + sigma z, no noise where s = 0.

    xt, eps_hat, z: (B, ...). t, s: ints or (B,) ints. abar: (T + 1,). variance: "small" or "large". clip: > 0, or None.
    Returns x_s (B, ...), in out where given. Raises as `ref.diffusion.ddpm_step`.
    """
    arrays = launch.read(STORED, xt=xt, eps_hat=eps_hat, z=z)
    c = coefficients.ddpm_step(t, s, abar, variance, arrays.shape)
    limit = coefficients.clip_limit(clip)
    c = launch.table(c, arrays)
    out, pointer = launch.output("out", out, arrays)
    _by_row(_ddpm, arrays, c, pointer, limit=limit)
    return out


def ddim_step(xt, eps_hat, t, s, z, eta, abar, clip=None, out=None):
    """[DDIM] eq. 12 from t to s < t:  x_s = sqrt(abar_s) x0_hat + sqrt(1 - abar_s - sigma^2) eps_hat + sigma z, sigma of eq. 16.

    xt, eps_hat, z: (B, ...); z may be None where eta = 0. t, s: ints or (B,) ints. eta: in [0, 1]. abar: (T + 1,).
    clip: > 0, or None; with it eps_hat is derived again from the clipped x0_hat.
    Returns x_s (B, ...), in out where given. Raises as `ref.diffusion.ddim_step`.
    """
    z = xt if z is None and eta == 0 else z
    arrays = launch.read(STORED, xt=xt, eps_hat=eps_hat, z=z)
    c = coefficients.ddim_step(t, s, eta, abar, arrays.shape)
    limit = coefficients.clip_limit(clip)
    c = launch.table(c, arrays)
    out, pointer = launch.output("out", out, arrays)
    _by_row(_ddim, arrays, c, pointer, limit=limit, CLIPPED=clip is not None)
    return out


def eps_loss(eps_hat, eps):
    """[DDPM] eq. 14:  L = mean((eps_hat - eps)^2) over all elements. eps_hat, eps: one shape, at least one element.

    Returns L, float64 without axes, of the kind of the inputs; the same bits on every run. Raises as `ref.diffusion.eps_loss`.
    """
    arrays = launch.read(SINGLE, eps_hat=eps_hat, eps=eps)
    partial = launch.partial_sums(arrays)
    launch.run(_square_error, partial.count, arrays, partial.pointer, *arrays.pointers, arrays.size, BLOCK=launch.BLOCK, TILES=launch.TILES)
    return mean(partial, arrays)


def eps_loss_backward(dloss, eps_hat, eps, out=None):
    """Gradients of `eps_loss`:  deps_hat = 2 (eps_hat - eps) / N dloss,  deps = -deps_hat. dloss: float.

    eps_hat, eps: one shape. Returns deps_hat, deps; out: a pair of arrays for them. Raises as `ref.diffusion.eps_loss_backward`.
    """
    arrays = launch.read(SINGLE, eps_hat=eps_hat, eps=eps)
    launch.some(arrays)
    made, pointers = launch.outputs(out, 2, arrays)
    c = 2.0 * dloss / arrays.size
    launch.run(_difference_two, launch.programs(arrays.size, launch.BLOCK), arrays, *pointers, *arrays.pointers, arrays.size, c, BLOCK=launch.BLOCK)
    return tuple(made)


def mean(partial, arrays):
    """The mean of the partial sums over all elements, added in one order. partial: from `launch.partial_sums`. arrays: the data."""
    out = arrays.kind.empty((), "float64")
    pointer = launch.pointer_to(out, arrays.kind)
    launch.run(_mean, 1, arrays, pointer, partial.pointer, partial.count, arrays.size, BLOCK=launch.REDUCE, warps=8)
    return launch.scalar(out)


def _linear_pass(out, arrays, c):
    c = launch.table(c, arrays)
    out, pointer = launch.output("out", out, arrays)
    _by_row(_linear, arrays, c, pointer)
    return out


def _by_row(kernel, arrays, c, *outputs, **more):
    """Run a kernel whose coefficients go by the row."""
    launch.run(
        kernel, launch.programs(arrays.size, c.block), arrays, *outputs, *arrays.pointers, arrays.size, c.pointer, c.rows, c.row_size,
        *c.scalars, HOW=c.how, BLOCK=c.block, **more,
    )  # fmt: skip


@triton.jit
def row_of(base, i, rows, n, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """Where `pick` finds the coefficients of elements base + i: a row, the row after it, and which elements lie in that.

    base: first element. i: offsets. rows: in all. n: elements a row. HOW: see `launch.table`. BLOCK: elements. With HOW = 3, every
    element's own row, three times.
    """
    if HOW == 1:  # by the program's number, since a division of 64 bits takes longer than all the rest
        row = (tl.program_id(0) // (n // BLOCK).to(tl.int32)).to(tl.int64)
        return row, row, row
    else:
        first = base // n
        left = base - first * n
        if HOW == 2:
            return first, tl.minimum(first + 1, rows - 1), left + i >= n
        else:
            row = tl.minimum(first + (left.to(tl.int32) + i) // n, rows - 1)  # past the end nothing is stored, but a coefficient is loaded
            return row, row, row


@triton.jit
def pick(column, row, after, past, HOW: tl.constexpr):
    """One coefficient: a number, or one for each element. column: of the table, one entry a row. row, after, past, HOW: from `row_of`."""
    if HOW == 2:
        return tl.where(past, tl.load(column + after), tl.load(column + row))
    else:
        return tl.load(column + row)


@triton.jit(do_not_specialize=["rows", "n"])
def _linear(out, a, b, size, table, rows, n, c0, c1, HOW: tl.constexpr, BLOCK: tl.constexpr):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    if HOW:
        row, after, past = row_of(base, i, rows, n, HOW, BLOCK)
        c0, c1 = pick(table, row, after, past, HOW), pick(table + rows, row, after, past, HOW)
    x, y = tl.load(a + base + i, mask=inside).to(tl.float32), tl.load(b + base + i, mask=inside).to(tl.float32)
    tl.store(out + base + i, stored(tl.fma(c0, x, c1 * y), out), mask=inside)


@triton.jit(do_not_specialize=["rows", "n"])
def _scale(out, a, size, table, rows, n, c0, HOW: tl.constexpr, BLOCK: tl.constexpr):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    if HOW:
        row, after, past = row_of(base, i, rows, n, HOW, BLOCK)
        c0 = pick(table, row, after, past, HOW)
    tl.store(out + base + i, c0 * tl.load(a + base + i, mask=inside), mask=inside)


@triton.jit(do_not_specialize=["rows", "n"])
def _scale_two(out0, out1, a, size, table, rows, n, c0, c1, HOW: tl.constexpr, BLOCK: tl.constexpr):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    if HOW:
        row, after, past = row_of(base, i, rows, n, HOW, BLOCK)
        c0, c1 = pick(table, row, after, past, HOW), pick(table + rows, row, after, past, HOW)
    x = tl.load(a + base + i, mask=inside)
    tl.store(out0 + base + i, c0 * x, mask=inside)
    tl.store(out1 + base + i, c1 * x, mask=inside)


@triton.jit
def clamp(x, limit):
    """x in [-limit, limit]; NaN stays NaN. x: block. limit: number, inf for none."""
    x = tl.where(x > limit, limit, x)
    return tl.where(x < -limit, -limit, x)


@triton.jit
def five(table, base, i, rows, n, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """The coefficients of `coefficients.ddpm_step` by the row. table: float32. base, i, rows, n, HOW, BLOCK: as in `row_of`."""
    row, after, past = row_of(base, i, rows, n, HOW, BLOCK)
    c0, c1 = pick(table, row, after, past, HOW), pick(table + rows, row, after, past, HOW)
    c2, c3 = pick(table + 2 * rows, row, after, past, HOW), pick(table + 3 * rows, row, after, past, HOW)
    return c0, c1, c2, c3, pick(table + 4 * rows, row, after, past, HOW)


@triton.jit
def seven(table, base, i, rows, n, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """The coefficients of `coefficients.ddim_step` by the row. table: float32. base, i, rows, n, HOW, BLOCK: as in `row_of`."""
    c0, c1, c2, c3, c4 = five(table, base, i, rows, n, HOW, BLOCK)
    row, after, past = row_of(base, i, rows, n, HOW, BLOCK)
    return c0, c1, c2, c3, c4, pick(table + 5 * rows, row, after, past, HOW), pick(table + 6 * rows, row, after, past, HOW)


@triton.jit
def where_noisy(inside, sigma, BLOCK: tl.constexpr):
    """Where z is looked at: not where none of it is added. inside: mask. sigma: number or block. BLOCK: elements."""
    return inside & (sigma * tl.full((BLOCK,), 1.0, tl.float32) != 0)  # the interpreter cannot broadcast a scalar's comparison


@triton.jit
def ddpm_mean(xt, eps, c0, c1, c2, c3, limit):
    """x_s without its noise. xt, eps: blocks. c0, c1, c2, c3: of `five`. limit: of x0_hat, inf for none."""
    return tl.fma(c2, clamp(tl.fma(c0, xt, c1 * eps), limit), c3 * xt)


@triton.jit
def ddim_mean(xt, eps, c0, c1, c2, c3, c4, c5, limit, CLIPPED: tl.constexpr):
    """x_s without its noise. xt, eps: blocks. c0, c1, c2, c3, c4, c5: of `seven`. CLIPPED: whether x0_hat is, to limit."""
    x0 = tl.fma(c0, xt, c1 * eps)
    if CLIPPED:
        x0 = clamp(x0, limit)
        eps = tl.fma(c2, xt, c3 * x0)
    return tl.fma(c4, x0, c5 * eps)


@triton.jit(do_not_specialize=["rows", "n"])
def _ddpm(out, xt, eps_hat, z, size, table, rows, n, c0, c1, c2, c3, c4, limit, HOW: tl.constexpr, BLOCK: tl.constexpr):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    if HOW:
        c0, c1, c2, c3, c4 = five(table, base, i, rows, n, HOW, BLOCK)
    x, e = tl.load(xt + base + i, mask=inside).to(tl.float32), tl.load(eps_hat + base + i, mask=inside).to(tl.float32)
    noise = tl.load(z + base + i, mask=where_noisy(inside, c4, BLOCK), other=0).to(tl.float32)
    tl.store(out + base + i, stored(tl.fma(c4, noise, ddpm_mean(x, e, c0, c1, c2, c3, limit)), out), mask=inside)


@triton.jit(do_not_specialize=["rows", "n"])
def _ddim(
    out, xt, eps_hat, z, size, table, rows, n, c0, c1, c2, c3, c4, c5, c6, limit, CLIPPED: tl.constexpr, HOW: tl.constexpr, BLOCK: tl.constexpr
):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    if HOW:
        c0, c1, c2, c3, c4, c5, c6 = seven(table, base, i, rows, n, HOW, BLOCK)
    x, e = tl.load(xt + base + i, mask=inside).to(tl.float32), tl.load(eps_hat + base + i, mask=inside).to(tl.float32)
    noise = tl.load(z + base + i, mask=where_noisy(inside, c6, BLOCK), other=0).to(tl.float32)
    tl.store(out + base + i, stored(tl.fma(c6, noise, ddim_mean(x, e, c0, c1, c2, c3, c4, c5, limit, CLIPPED)), out), mask=inside)


@triton.jit
def _square_error(partial, a, b, size, BLOCK: tl.constexpr, TILES: tl.constexpr):
    i, total = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float32)  # of TILES terms each; from there on float64
    for tile in range(TILES):
        base = (tl.program_id(0).to(tl.int64) * TILES + tile) * BLOCK
        inside = base + i < size
        d = tl.load(a + base + i, mask=inside, other=0) - tl.load(b + base + i, mask=inside, other=0)
        total = tl.fma(d, d, total)
    tl.store(partial + tl.program_id(0), tree_sum(total.to(tl.float64), BLOCK))


@triton.jit(do_not_specialize=["count", "size"])
def _mean(out, partial, count, size, BLOCK: tl.constexpr):
    i, total = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float64)
    for first in range(0, count, BLOCK):
        total += tl.load(partial + first + i, mask=first + i < count, other=0)
    tl.store(out, tree_sum(total, BLOCK) / size.to(tl.float64))


@triton.jit
def _difference_two(out0, out1, a, b, size, c, BLOCK: tl.constexpr):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    d = c * (tl.load(a + base + i, mask=inside) - tl.load(b + base + i, mask=inside))
    tl.store(out0 + base + i, d, mask=inside)
    tl.store(out1 + base + i, -d, mask=inside)
