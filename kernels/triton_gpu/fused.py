"""`ref.fused` on the GPU: one pass over memory, the noise made in registers and never stored.

Arguments are those of `ref.fused` (equations there), arrays of one kind (see `arrays`) and dtype, float32; noising
and the steps also float16 and bfloat16 in memory. `out`, where given, is an array of that kind, shape and dtype and
may be one of the inputs. Errors as there, before anything is written.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [CFG]   Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [AdamW] Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    [EDM]   Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
    [RF]    Liu et al., "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2023
    [DPM-Solver++]  Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022
"""
import numpy as np
import triton
import triton.language as tl

from kernels import arguments, coefficients, trajectory
from kernels.triton_gpu import mlp, mlp_hidden, mlp_pixels, reduce
from kernels.triton_gpu import mlp_train as training
from kernels.triton_gpu.arrays import SINGLE, STORED, apart, output, read
from kernels.triton_gpu.diffusion import ddim, ddpm, limit_of, linear
from kernels.triton_gpu.optim import adam, ema
from kernels.triton_gpu.launch import key_words
from kernels.triton_gpu.rowwise import rowwise


def q_sample_noise(x0, t, seed, abar, stream=0, out=None):
    """[DDPM] eq. 4 with its own noise; arguments as in `ref.fused.q_sample_noise`."""
    arrays = read(STORED, x0=x0)
    c = coefficients.q_sample(t, abar, arrays.shape)
    return rowwise(linear, arrays, c, out, noise="drawn", key=key_words(seed, stream))


def eps_loss_grad(eps_hat, eps, out=None):
    """[DDPM] eq. 14 and its gradient in one pass; arguments as in `ref.fused.eps_loss_grad`.
    The loss is float64 without axes, of the kind of the inputs."""
    arrays = read(SINGLE, eps_hat=eps_hat, eps=eps)
    partial = reduce.partial_sums(arrays)
    out, pointer = output("out", out, arrays)
    reduce.add(square_error_grad, partial, arrays, (pointer,), (2.0 / arrays.size,))
    return reduce.mean(partial, arrays), out


def eps_loss_noise(eps_hat, seed, stream=0, out=None):
    """`eps_loss_grad` against the noise of (seed, stream), regenerated; arguments as in `ref.fused.eps_loss_noise`.
    The loss is float64 without axes, of the kind of the inputs."""
    arrays = read(SINGLE, eps_hat=eps_hat)
    key = key_words(seed, stream)
    partial = reduce.partial_sums(arrays)
    out, pointer = output("out", out, arrays)
    reduce.add(square_error_grad, partial, arrays, (pointer,), (2.0 / arrays.size,), key=key, warps=8)
    return reduce.mean(partial, arrays), out


def guided_ddpm_step(xt, uncond, cond, w, t, s, seed, abar, variance="small", clip=None, stream=0, out=None):
    """[CFG] eq. 6, then [DDPM] algorithm 2 with its own noise; arguments as in `ref.fused.guided_ddpm_step`."""
    arrays = read(STORED, xt=xt, uncond=uncond, cond=cond)
    c = coefficients.ddpm_step(t, s, abar, variance, arrays.shape)
    return _guided(guided_ddpm, arrays, coefficients.guided(w, c, arrays.shape), clip, (seed, stream), out)


def guided_ddim_step(xt, uncond, cond, w, t, s, seed, eta, abar, clip=None, stream=0, out=None):
    """[CFG] eq. 6, then [DDIM] eq. 12 with its own noise; arguments as in `ref.fused.guided_ddim_step`."""
    arrays = read(STORED, xt=xt, uncond=uncond, cond=cond)
    c = coefficients.ddim_step(t, s, eta, abar, arrays.shape)
    return _guided(guided_ddim, arrays, coefficients.guided(w, c, arrays.shape), clip, (seed, stream), out)


def guided_dpmpp_2m_step(xt, uncond, cond, w, x0_last, u, t, s, abar, out=None):
    """[CFG] eq. 6, then [DPM-Solver++] algorithm 2; arguments as in `ref.fused.guided_dpmpp_2m_step`.
    out: a pair of arrays, which may be xt and x0_last."""
    if (x0_last is None) != (u is None):
        raise ValueError("x0_last and u: expected both or neither")
    arrays = read(STORED, xt=xt, uncond=uncond, cond=cond, **({} if x0_last is None else {"x0_last": x0_last}))
    c = coefficients.guided(w, coefficients.dpmpp_2m_step(u, t, s, abar, arrays.shape), arrays.shape)
    if x0_last is None:  # any array will do, since c4 = 0
        arrays = arrays._replace(pointers=[*arrays.pointers, arrays.pointers[0]])
    return rowwise(guided_dpmpp_2m, arrays, c, out, writes=2, noise="read")


def guided_flow_step(xt, uncond, cond, w, t, s, out=None):
    """[CFG] eq. 6 on velocities, then [RF] algorithm 1; arguments as in `ref.fused.guided_flow_step`."""
    arrays = read(STORED, xt=xt, uncond=uncond, cond=cond)
    c = coefficients.guided(w, coefficients.flow_step(t, s, arrays.shape), arrays.shape)
    return rowwise(guided_flow, arrays, c, out)


def heun_step(x, denoised, denoised_next, sigma, sigma_next, out=None):
    """[EDM] algorithm 1, lines 4 to 8, as one sum of three terms; arguments as in `ref.fused.heun_step`.
    An infinite element may stay infinite where `ref` makes NaN of a difference."""
    arrays = read(STORED, x=x, denoised=denoised, denoised_next=denoised_next)
    return rowwise(heun, arrays, coefficients.heun_step(sigma, sigma_next, arrays.shape), out)


def adam_ema_step(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay, out=None):
    """[AdamW] algorithm 2 and the moving average in one pass. out: four arrays.

    Arguments as in `ref.fused.adam_ema_step` and `ref.optim.adam_step`: step, lr, beta1, beta2, eps, weight_decay.
    """
    arrays = read(SINGLE, p=p, g=g, m=m, v=v, avg=avg)
    c = coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay).reshape(-1, 1)
    return rowwise(adam_ema, arrays, np.concatenate([c, coefficients.ema_step(decay)]), out, writes=4)


def _guided(f, arrays, c, clip, key, out):
    """A guided step whose last coefficient is that of the noise; none is made where it is 0 in every row."""
    limit = limit_of(clip)
    key = key_words(*key)
    return rowwise(f, arrays, c, out, more=(limit,), noise="added" if c[-1].any() else "absent", key=key)


def mlp_sample(
    params, xT, times, abar, eta=0.0, seed=0, stream=0, guidance=None, predict="eps", clip=None, precision="float32",
    out=None,
):  # fmt: skip
    """A whole trajectory of a net of `ref.nets.mlp` in one launch; arguments as in `ref.fused.mlp_sample`.

    Without noise and clip simple_mlp stays in its hidden layer, see `mlp_hidden`. precision: "float32", or "bfloat16"
    for operands of the products rounded to it. labels of the guidance are of the host. The result is NaN everywhere
    if a program waited a second for another in vain.
    """
    arrays = read(SINGLE, xT=xT)
    if len(arrays.shape) != 2:
        raise ValueError(f"xT: expected shape (B, pixels), got {arrays.shape}")
    rounded = mlp.rounds(precision)
    times = arguments.descending(times, abar)
    table, limit = trajectory.ddim_trajectory(times, eta, abar, predict), limit_of(clip)
    coefficients.noise_key(seed, stream)
    if guidance is not None and "class" not in params:
        raise ValueError("guidance: expected None for a net without classes")
    net = mlp.residual(params, arrays, guidance, times) if "class" in params else mlp.simple(params, arrays)
    made, pointer = output("out", out, arrays)
    for name, array in mlp.named(params).items() if out is not None else ():
        weight = read(SINGLE, **{f"params[{name!r}]": array})
        apart((pointer, arrays.size), (weight.pointers[0], weight.size))
    out = made
    if not arrays.size:
        return out
    linear_steps = not table[6].any() and clip is None
    counted = net.width * (arrays.shape[1] + 1) < 2**31  # by the offsets in a matrix; the other way refuses more
    if "class" not in params and linear_steps and net.width <= mlp_hidden.WIDEST and counted:
        chain = trajectory.ddim_chain(times, abar, predict)
        mlp_hidden.sample(pointer, arrays, net, np.array(times[:-1]), chain, rounded)
    else:
        if clip is None and predict != "eps":
            limit = np.inf  # eps_hat from x0_hat, which the net predicts
        mlp_pixels.sample(pointer, arrays, net, times, table, (seed, stream), limit, rounded)
    return out


def mlp_train(
    params, data, steps, batch, lr, seed, abar, state=None, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0,
    decay=0.0, precision="float32",
):  # fmt: skip
    """Steps of the tutorial loop in one launch; arguments as in `ref.fused.mlp_train`. All results are new arrays.

    precision: "float32", or "bfloat16" for operands of the products rounded to it; weights, sums and what is kept are
    float32. Raises RuntimeError too, if a program waited a second for another in vain.
    """
    arrays = read(SINGLE, data=data)
    if len(arrays.shape) != 2:
        raise ValueError(f"data: expected shape (N, pixels), got {arrays.shape}")
    rounded, done = mlp.rounds(precision), arguments.steps_done(steps, batch, state)
    numbers = range(done + 1, done + 1 + steps)
    adam_table = np.array([coefficients.adam_step(n, lr, beta1, beta2, eps, weight_decay) for n in numbers])
    average = coefficients.ema_step(decay)[:, 0].tolist()
    coefficients.noise_key(seed, coefficients.PER_STEP * (done + steps) + 3)
    made, losses = training.train(params, arrays, state, steps, done, batch, adam_table, average, seed, abar, rounded)
    return made.pop("p"), {"step": done + steps} | made, losses


@triton.jit
def guide(uncond, cond, w):
    """[CFG] eq. 6. uncond, cond: blocks. w: number."""
    return tl.fma(w, cond - uncond, uncond)


@triton.jit
def guided_ddpm(xt, uncond, cond, z, w, c0, c1, c2, c3, sigma, limit):
    """`ddpm` of a guided prediction. Arguments as in `ddpm` and `guide`."""
    return ddpm(xt, guide(uncond, cond, w), z, c0, c1, c2, c3, sigma, limit)


@triton.jit
def guided_ddim(xt, uncond, cond, z, w, c0, c1, c2, c3, c4, c5, sigma, limit):
    """`ddim` of a guided prediction. Arguments as in `ddim` and `guide`."""
    return ddim(xt, guide(uncond, cond, w), z, c0, c1, c2, c3, c4, c5, sigma, limit)


@triton.jit
def guided_dpmpp_2m(xt, uncond, cond, x0_last, w, c0, c1, c2, c3, c4):
    """[DPM-Solver++] algorithm 2: x_s and x0_hat. xt, x0_last: blocks.
    c0, c1, c2, c3, c4: of `coefficients.dpmpp_2m_step`; the rest as in `guide`."""
    x0_hat = tl.fma(c0, xt, c1 * guide(uncond, cond, w))
    return tl.fma(c4, x0_last, tl.fma(c2, xt, c3 * x0_hat)), x0_hat


@triton.jit
def guided_flow(xt, uncond, cond, w, dt):
    """[RF] algorithm 1. xt: block. dt: s - t; the rest as in `guide`."""
    return tl.fma(dt, guide(uncond, cond, w), xt)


@triton.jit
def heun(x, denoised, denoised_next, c0, c1, c2):
    """[EDM] algorithm 1, lines 4 to 8, folded. x, denoised, denoised_next: blocks.
    c0, c1, c2: of `coefficients.heun_step`."""
    return tl.fma(c2, denoised_next, tl.fma(c0, x, c1 * denoised))


@triton.jit
def square_error_grad(total, eps_hat, eps, c):
    """(eps_hat - eps)^2, added to total; and c (eps_hat - eps). total, eps_hat, eps: blocks. c: number."""
    d = eps_hat - eps
    return tl.fma(d, d, total), c * d


@triton.jit
def adam_ema(p, g, m, v, avg, beta1, rest1, beta2, rest2, rate, root, eps, decay, keep, take):
    """`adam`, then `ema` of the new p: p, m, v, avg. Arguments as in `adam` and `ema`."""
    p_next, m_next, v_next = adam(p, g, m, v, beta1, rest1, beta2, rest2, rate, root, eps, decay)
    return p_next, m_next, v_next, ema(avg, p_next, keep, take)
