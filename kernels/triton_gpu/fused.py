"""`ref.fused` on the GPU: one pass over memory, the noise made in registers and never stored.

Arguments are those of `ref.fused` (equations there), arrays of one kind (see `launch`) and dtype, float32; noising and the steps
also float16 and bfloat16 in memory. `out`, where given, is an array of that kind, shape and dtype and may be one of the
inputs. Errors as there, before anything is written.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [CFG]   Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [AdamW] Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    [EDM]   Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
    [RF]    Liu, Gong, Liu, "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2023
    [DPM-Solver++]  Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022
"""
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu import launch
from kernels.triton_gpu.diffusion import SINGLE, STORED, ddim_mean, ddpm_mean, five, mean, pick, row_of, seven, where_noisy
from kernels.triton_gpu.optim import adam_element, tree_sum
from kernels.triton_gpu.philox import normals_of, stored


def q_sample_noise(x0, t, seed, abar, stream=0, out=None):
    """[DDPM] eq. 4 with its own noise:  x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) normal(seed, shape, stream).

    x0: (B, ...). t: (B,) ints or one int. seed, stream: ints in [0, 2**64). abar: (T + 1,).
    Returns xt (B, ...), in out where given. Raises as `ref.fused.q_sample_noise`.
    """
    arrays = launch.read(STORED, x0=x0)
    c = coefficients.q_sample(t, abar, arrays.shape)
    key = launch.words(coefficients.noise_key(seed, stream))
    c = launch.table(c, arrays, launch.NOISE_BLOCK)
    out, pointer = launch.output("out", out, arrays)
    _by_row(_q_sample_noise, arrays, c, pointer, key)
    return out


def eps_loss_grad(eps_hat, eps, out=None):
    """[DDPM] eq. 14 and its gradient in one pass:  L = mean((eps_hat - eps)^2),  deps_hat = 2 (eps_hat - eps) / N.

    eps_hat, eps: one shape, N >= 1 elements. Returns L (float64 without axes, of the kind of the inputs), deps_hat (in out
    where given). Raises as `ref.fused.eps_loss_grad`.
    """
    arrays = launch.read(SINGLE, eps_hat=eps_hat, eps=eps)
    partial = launch.partial_sums(arrays)
    out, pointer = launch.output("out", out, arrays)
    launch.run(
        _eps_loss_grad, partial.count, arrays, pointer, partial.pointer, *arrays.pointers, arrays.size, 2.0 / arrays.size,
        BLOCK=launch.BLOCK, TILES=launch.TILES,
    )  # fmt: skip
    return mean(partial, arrays), out


def eps_loss_noise(eps_hat, seed, stream=0, out=None):
    """`eps_loss_grad` against the noise of (seed, stream), [DDPM] eq. 14: made again, never stored.

    eps_hat: (B, ...). seed, stream: those of `q_sample_noise`. Returns L (float64 without axes, of the kind of the inputs),
    deps_hat (in out where given). Raises as `ref.fused.eps_loss_noise`.
    """
    arrays = launch.read(SINGLE, eps_hat=eps_hat)
    key = launch.words(coefficients.noise_key(seed, stream))
    partial = launch.partial_sums(arrays)
    out, pointer = launch.output("out", out, arrays)
    launch.run(
        _eps_loss_noise, partial.count, arrays, pointer, partial.pointer, *arrays.pointers, arrays.size, 2.0 / arrays.size, *key,
        BLOCK=launch.BLOCK, TILES=launch.TILES, warps=8,
    )  # fmt: skip
    return mean(partial, arrays), out


def guided_ddpm_step(xt, uncond, cond, w, t, s, seed, abar, variance="small", clip=None, stream=0, out=None):
    """[CFG] eq. 6 as uncond + w (cond - uncond), then [DDPM] algorithm 2 with the noise of (seed, stream).

    xt, uncond, cond: (B, ...). w: float. t, s: ints or (B,) ints, s < t. seed, stream: ints in [0, 2**64). abar: (T + 1,).
    variance: "small" or "large". clip: > 0, or None. Returns x_s (B, ...), in out where given.
    Raises as `ref.fused.guided_ddpm_step`.
    """
    arrays = launch.read(STORED, xt=xt, uncond=uncond, cond=cond)
    c = coefficients.ddpm_step(t, s, abar, variance, arrays.shape)
    limit, key = coefficients.clip_limit(clip), launch.words(coefficients.noise_key(seed, stream))
    noisy = bool(c[4].any())
    c = launch.table(c, arrays)
    out, pointer = launch.output("out", out, arrays)
    _by_row(_guided_ddpm, arrays, c, pointer, key, w=float(w), limit=limit, NOISY=noisy)
    return out


def guided_ddim_step(xt, uncond, cond, w, t, s, seed, eta, abar, clip=None, stream=0, out=None):
    """[CFG] eq. 6 as uncond + w (cond - uncond), then [DDIM] eq. 12 with the noise of (seed, stream); none is made where eta = 0.

    xt, uncond, cond: (B, ...). w: float. t, s: ints or (B,) ints, s < t. seed, stream: ints in [0, 2**64). eta: in [0, 1].
    abar: (T + 1,). clip: > 0, or None. Returns x_s (B, ...), in out where given. Raises as `ref.fused.guided_ddim_step`.
    """
    arrays = launch.read(STORED, xt=xt, uncond=uncond, cond=cond)
    c = coefficients.ddim_step(t, s, eta, abar, arrays.shape)
    limit, key = coefficients.clip_limit(clip), launch.words(coefficients.noise_key(seed, stream))
    noisy = bool(c[6].any())
    c = launch.table(c, arrays)
    out, pointer = launch.output("out", out, arrays)
    _by_row(_guided_ddim, arrays, c, pointer, key, w=float(w), limit=limit, CLIPPED=clip is not None, NOISY=noisy)
    return out


def guided_dpmpp_2m_step(xt, uncond, cond, w, x0_last, u, t, s, abar, out=None):
    """[CFG] eq. 6 as uncond + w (cond - uncond), then [DPM-Solver++] algorithm 2 in x0_hat and the x0_last of the step before.

    xt, uncond, cond, x0_last: (B, ...). w: float. u, t, s: ints or (B,) ints, s < t < u; x0_last and u None where there was no step
    before. abar: (T + 1,). Returns x_s, x0_hat; out: a pair of arrays for them, which may be xt and x0_last.
    Raises as `ref.fused.guided_dpmpp_2m_step`.
    """
    if (x0_last is None) != (u is None):
        raise ValueError("x0_last and u: expected both or neither")
    arrays = launch.read(STORED, xt=xt, uncond=uncond, cond=cond, **({} if x0_last is None else {"x0_last": x0_last}))
    c = launch.table(coefficients.dpmpp_2m_step(u, t, s, abar, arrays.shape), arrays)
    made, pointers = launch.outputs(out, 2, arrays)
    read = arrays.pointers if x0_last is not None else [*arrays.pointers, arrays.pointers[0]]  # not looked at where c4 = 0
    launch.run(
        _guided_dpmpp_2m, launch.programs(arrays.size, c.block), arrays, *pointers, *read, arrays.size, c.pointer, c.rows, c.row_size,
        *c.scalars, w=float(w), HOW=c.how, BLOCK=c.block,
    )  # fmt: skip
    return tuple(made)


def guided_flow_step(xt, uncond, cond, w, t, s, out=None):
    """[CFG] eq. 6 on velocities, then Euler's step, [RF] algorithm 1:  x_s = x_t + (s - t) (uncond + w (cond - uncond)).

    xt, uncond, cond: (B, ...). w: float. t, s: numbers or (B,), 0 <= s < t <= 1. Returns x_s (B, ...), in out where given.
    Raises as `ref.fused.guided_flow_step`.
    """
    arrays = launch.read(STORED, xt=xt, uncond=uncond, cond=cond)
    c = launch.table(coefficients.flow_step(t, s, arrays.shape), arrays)
    out, pointer = launch.output("out", out, arrays)
    _by_row(_guided_flow, arrays, c, pointer, [], w=float(w))
    return out


def heun_step(x, denoised, denoised_next, sigma, sigma_next, out=None):
    """[EDM] algorithm 1, lines 4 to 8, from the two predictions of x0 that it makes, as one sum of three terms. (So an infinite
    element may stay infinite where `ref` makes NaN of the difference of two.)

    x, denoised, denoised_next: (B, ...). sigma, sigma_next: numbers or (B,), 0 < sigma_next < sigma.
    Returns x_next (B, ...), in out where given. Raises as `ref.fused.heun_step`.
    """
    arrays = launch.read(STORED, x=x, denoised=denoised, denoised_next=denoised_next)
    c = launch.table(coefficients.heun_step(sigma, sigma_next, arrays.shape), arrays)
    out, pointer = launch.output("out", out, arrays)
    _by_row(_heun, arrays, c, pointer, [])
    return out


def adam_ema_step(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay, out=None):
    """[AdamW] algorithm 2 and  avg <- decay avg + (1 - decay) p  in one pass.

    p, g, m, v, avg: one shape. step: int >= 1. lr, beta1, beta2, eps, weight_decay, decay: floats.
    Returns p, m, v, avg; out: four arrays for them, which may be the inputs. Raises as `ref.fused.adam_ema_step`.
    """
    arrays = launch.read(SINGLE, p=p, g=g, m=m, v=v, avg=avg)
    c = coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay).tolist()
    d = coefficients.ema_step(decay)[:, 0].tolist()
    made, pointers = launch.outputs(out, 4, arrays)
    launch.run(_adam_ema, launch.programs(arrays.size, launch.BLOCK), arrays, *pointers, *arrays.pointers, arrays.size, *c, *d, BLOCK=launch.BLOCK)
    return tuple(made)


def _by_row(kernel, arrays, c, pointer, key, **more):
    """Run a kernel whose coefficients go by the row, and whose noise, where it makes any, by the key."""
    launch.run(
        kernel, launch.programs(arrays.size, c.block), arrays, pointer, *arrays.pointers, arrays.size, c.pointer, c.rows, c.row_size,
        *c.scalars, *key, HOW=c.how, BLOCK=c.block, **more,
    )  # fmt: skip


@triton.jit(do_not_specialize=["rows", "n", "k0", "k1", "s0", "s1"])
def _q_sample_noise(out, x0, size, table, rows, n, c0, c1, k0, k1, s0, s1, HOW: tl.constexpr, BLOCK: tl.constexpr):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    if HOW:
        row, after, past = row_of(base, i, rows, n, HOW, BLOCK)
        c0, c1 = pick(table, row, after, past, HOW), pick(table + rows, row, after, past, HOW)
    x = tl.load(x0 + base + i, mask=inside).to(tl.float32)
    z = normals_of(out, tl.program_id(0), k0, k1, s0, s1, BLOCK)
    tl.store(out + base + i, stored(tl.fma(c0, x, c1 * z), out), mask=inside)


@triton.jit
def _eps_loss_grad(out, partial, eps_hat, eps, size, c, BLOCK: tl.constexpr, TILES: tl.constexpr):
    i, total = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float32)
    for tile in range(TILES):
        base = (tl.program_id(0).to(tl.int64) * TILES + tile) * BLOCK
        inside = base + i < size
        d = tl.load(eps_hat + base + i, mask=inside, other=0) - tl.load(eps + base + i, mask=inside, other=0)
        tl.store(out + base + i, c * d, mask=inside)
        total = tl.fma(d, d, total)
    tl.store(partial + tl.program_id(0), tree_sum(total.to(tl.float64), BLOCK))


@triton.jit(do_not_specialize=["k0", "k1", "s0", "s1"])
def _eps_loss_noise(out, partial, eps_hat, size, c, k0, k1, s0, s1, BLOCK: tl.constexpr, TILES: tl.constexpr):
    i, total = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float32)
    for tile in range(TILES):
        block = tl.program_id(0).to(tl.int64) * TILES + tile
        base = block * BLOCK
        inside = base + i < size
        d = tl.load(eps_hat + base + i, mask=inside, other=0) - normals_of(out, block, k0, k1, s0, s1, BLOCK)
        d = tl.where(inside, d, 0.0)
        tl.store(out + base + i, c * d, mask=inside)
        total = tl.fma(d, d, total)
    tl.store(partial + tl.program_id(0), tree_sum(total.to(tl.float64), BLOCK))


@triton.jit(do_not_specialize=["rows", "n", "k0", "k1", "s0", "s1"])
def _guided_ddpm(
    out, xt, uncond, cond, size, table, rows, n, c0, c1, c2, c3, c4, k0, k1, s0, s1, w, limit,
    NOISY: tl.constexpr, HOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    if HOW:
        c0, c1, c2, c3, c4 = five(table, base, i, rows, n, HOW, BLOCK)
    x, u = tl.load(xt + base + i, mask=inside).to(tl.float32), tl.load(uncond + base + i, mask=inside).to(tl.float32)
    v = tl.load(cond + base + i, mask=inside).to(tl.float32)
    xs = ddpm_mean(x, tl.fma(w, v - u, u), c0, c1, c2, c3, limit)
    if NOISY:
        xs = tl.fma(c4, normals_of(out, tl.program_id(0), k0, k1, s0, s1, BLOCK), xs)
    tl.store(out + base + i, stored(xs, out), mask=inside)


@triton.jit(do_not_specialize=["rows", "n", "k0", "k1", "s0", "s1"])
def _guided_ddim(
    out, xt, uncond, cond, size, table, rows, n, c0, c1, c2, c3, c4, c5, c6, k0, k1, s0, s1, w, limit,
    CLIPPED: tl.constexpr, NOISY: tl.constexpr, HOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    if HOW:
        c0, c1, c2, c3, c4, c5, c6 = seven(table, base, i, rows, n, HOW, BLOCK)
    x, u = tl.load(xt + base + i, mask=inside).to(tl.float32), tl.load(uncond + base + i, mask=inside).to(tl.float32)
    v = tl.load(cond + base + i, mask=inside).to(tl.float32)
    xs = ddim_mean(x, tl.fma(w, v - u, u), c0, c1, c2, c3, c4, c5, limit, CLIPPED)
    if NOISY:
        xs = tl.fma(c6, normals_of(out, tl.program_id(0), k0, k1, s0, s1, BLOCK), xs)
    tl.store(out + base + i, stored(xs, out), mask=inside)


@triton.jit(do_not_specialize=["rows", "n"])
def _guided_dpmpp_2m(
    out, x0_out, xt, uncond, cond, x0_last, size, table, rows, n, c0, c1, c2, c3, c4, w, HOW: tl.constexpr, BLOCK: tl.constexpr
):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    if HOW:
        c0, c1, c2, c3, c4 = five(table, base, i, rows, n, HOW, BLOCK)
    x, u = tl.load(xt + base + i, mask=inside).to(tl.float32), tl.load(uncond + base + i, mask=inside).to(tl.float32)
    v = tl.load(cond + base + i, mask=inside).to(tl.float32)
    last = tl.load(x0_last + base + i, mask=where_noisy(inside, c4, BLOCK), other=0).to(tl.float32)
    x0 = tl.fma(c0, x, c1 * tl.fma(w, v - u, u))
    tl.store(out + base + i, stored(tl.fma(c4, last, tl.fma(c2, x, c3 * x0)), out), mask=inside)
    tl.store(x0_out + base + i, stored(x0, x0_out), mask=inside)


@triton.jit(do_not_specialize=["rows", "n"])
def _guided_flow(out, xt, uncond, cond, size, table, rows, n, c0, w, HOW: tl.constexpr, BLOCK: tl.constexpr):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    if HOW:
        row, after, past = row_of(base, i, rows, n, HOW, BLOCK)
        c0 = pick(table, row, after, past, HOW)
    x, u = tl.load(xt + base + i, mask=inside).to(tl.float32), tl.load(uncond + base + i, mask=inside).to(tl.float32)
    v = tl.load(cond + base + i, mask=inside).to(tl.float32)
    tl.store(out + base + i, stored(tl.fma(c0, tl.fma(w, v - u, u), x), out), mask=inside)


@triton.jit(do_not_specialize=["rows", "n"])
def _heun(out, a, b, c, size, table, rows, n, c0, c1, c2, HOW: tl.constexpr, BLOCK: tl.constexpr):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    if HOW:
        row, after, past = row_of(base, i, rows, n, HOW, BLOCK)
        c0, c1 = pick(table, row, after, past, HOW), pick(table + rows, row, after, past, HOW)
        c2 = pick(table + 2 * rows, row, after, past, HOW)
    x, y = tl.load(a + base + i, mask=inside).to(tl.float32), tl.load(b + base + i, mask=inside).to(tl.float32)
    z = tl.load(c + base + i, mask=inside).to(tl.float32)
    tl.store(out + base + i, stored(tl.fma(c2, z, tl.fma(c0, x, c1 * y)), out), mask=inside)


@triton.jit
def _adam_ema(
    p_out, m_out, v_out, avg_out, p, g, m, v, avg, size, c0, c1, c2, c3, c4, c5, c6, c7, keep, take, BLOCK: tl.constexpr
):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    x, y = tl.load(p + base + i, mask=inside), tl.load(g + base + i, mask=inside)
    r, s, a = tl.load(m + base + i, mask=inside), tl.load(v + base + i, mask=inside), tl.load(avg + base + i, mask=inside)
    x, r, s = adam_element(x, y, r, s, c0, c1, c2, c3, c4, c5, c6, c7)
    tl.store(p_out + base + i, x, mask=inside)
    tl.store(m_out + base + i, r, mask=inside)
    tl.store(v_out + base + i, s, mask=inside)
    tl.store(avg_out + base + i, tl.fma(keep, a, take * x), mask=inside)
