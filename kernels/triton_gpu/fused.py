"""`ref.fused` on the GPU: one pass over memory, the noise made in registers and never stored.

Arguments are those of `ref.fused` (equations there), arrays of one kind (see `arrays`) and dtype, float32; noising and the steps
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
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu import reduce
from kernels.triton_gpu.arrays import SINGLE, STORED, output, read
from kernels.triton_gpu.diffusion import ddim, ddpm, limit_of, linear
from kernels.triton_gpu.optim import adam, ema
from kernels.triton_gpu.rowwise import ABSENT, ADDED, DRAWN, READ, rowwise


def q_sample_noise(x0, t, seed, abar, stream=0, out=None):
    """[DDPM] eq. 4 with its own noise:  x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) normal(seed, shape, stream).

    x0: (B, ...). t: (B,) ints or one int. seed, stream: ints in [0, 2**64). abar: (T + 1,).
    Returns xt (B, ...), in out where given. Raises as `ref.fused.q_sample_noise`.
    """
    arrays = read(STORED, x0=x0)
    c = coefficients.q_sample(t, abar, arrays.shape)
    coefficients.noise_key(seed, stream)
    return rowwise(linear, arrays, c, out, noise=DRAWN, key=(seed, stream))


def eps_loss_grad(eps_hat, eps, out=None):
    """[DDPM] eq. 14 and its gradient in one pass:  L = mean((eps_hat - eps)^2),  deps_hat = 2 (eps_hat - eps) / N.

    eps_hat, eps: one shape, N >= 1 elements. Returns L (float64 without axes, of the kind of the inputs), deps_hat (in out
    where given). Raises as `ref.fused.eps_loss_grad`.
    """
    arrays = read(SINGLE, eps_hat=eps_hat, eps=eps)
    partial = reduce.partial_sums(arrays)
    out, pointer = output("out", out, arrays)
    reduce.add(square_error_grad, partial, arrays, (pointer,), (2.0 / arrays.size,))
    return reduce.mean(partial, arrays), out


def eps_loss_noise(eps_hat, seed, stream=0, out=None):
    """`eps_loss_grad` against the noise of (seed, stream), [DDPM] eq. 14: made again, never stored.

    eps_hat: (B, ...). seed, stream: those of `q_sample_noise`. Returns L (float64 without axes, of the kind of the inputs),
    deps_hat (in out where given). Raises as `ref.fused.eps_loss_noise`.
    """
    arrays = read(SINGLE, eps_hat=eps_hat)
    coefficients.noise_key(seed, stream)
    partial = reduce.partial_sums(arrays)
    out, pointer = output("out", out, arrays)
    reduce.add(square_error_grad, partial, arrays, (pointer,), (2.0 / arrays.size,), key=(seed, stream), warps=8)
    return reduce.mean(partial, arrays), out


def guided_ddpm_step(xt, uncond, cond, w, t, s, seed, abar, variance="small", clip=None, stream=0, out=None):
    """[CFG] eq. 6 as uncond + w (cond - uncond), then [DDPM] algorithm 2 with the noise of (seed, stream).

    xt, uncond, cond: (B, ...). w: float. t, s: ints or (B,) ints, s < t. seed, stream: ints in [0, 2**64). abar: (T + 1,).
    variance: "small" or "large". clip: > 0, or None. Returns x_s (B, ...), in out where given.
    Raises as `ref.fused.guided_ddpm_step`.
    """
    arrays = read(STORED, xt=xt, uncond=uncond, cond=cond)
    c = coefficients.ddpm_step(t, s, abar, variance, arrays.shape)
    return _guided(guided_ddpm, arrays, c, w, clip, (seed, stream), out)


def guided_ddim_step(xt, uncond, cond, w, t, s, seed, eta, abar, clip=None, stream=0, out=None):
    """[CFG] eq. 6 as uncond + w (cond - uncond), then [DDIM] eq. 12 with the noise of (seed, stream); none is made where eta = 0.

    xt, uncond, cond: (B, ...). w: float. t, s: ints or (B,) ints, s < t. seed, stream: ints in [0, 2**64). eta: in [0, 1].
    abar: (T + 1,). clip: > 0, or None. Returns x_s (B, ...), in out where given. Raises as `ref.fused.guided_ddim_step`.
    """
    arrays = read(STORED, xt=xt, uncond=uncond, cond=cond)
    c = coefficients.ddim_step(t, s, eta, abar, arrays.shape)
    return _guided(guided_ddim, arrays, c, w, clip, (seed, stream), out)


def guided_dpmpp_2m_step(xt, uncond, cond, w, x0_last, u, t, s, abar, out=None):
    """[CFG] eq. 6 as uncond + w (cond - uncond), then [DPM-Solver++] algorithm 2 in x0_hat and the x0_last of the step before.

    xt, uncond, cond, x0_last: (B, ...). w: float. u, t, s: ints or (B,) ints, s < t < u; x0_last and u None where there was no step
    before. abar: (T + 1,). Returns x_s, x0_hat; out: a pair of arrays for them, which may be xt and x0_last.
    Raises as `ref.fused.guided_dpmpp_2m_step`.
    """
    if (x0_last is None) != (u is None):
        raise ValueError("x0_last and u: expected both or neither")
    arrays = read(STORED, xt=xt, uncond=uncond, cond=cond, **({} if x0_last is None else {"x0_last": x0_last}))
    c = coefficients.dpmpp_2m_step(u, t, s, abar, arrays.shape)
    if x0_last is None:  # any array will do, since c4 = 0
        arrays = arrays._replace(pointers=[*arrays.pointers, arrays.pointers[0]])
    return rowwise(guided_dpmpp_2m, arrays, c, out, writes=2, more=(float(w),), noise=READ)


def guided_flow_step(xt, uncond, cond, w, t, s, out=None):
    """[CFG] eq. 6 on velocities, then Euler's step, [RF] algorithm 1:  x_s = x_t + (s - t) (uncond + w (cond - uncond)).

    xt, uncond, cond: (B, ...). w: float. t, s: numbers or (B,), 0 <= s < t <= 1. Returns x_s (B, ...), in out where given.
    Raises as `ref.fused.guided_flow_step`.
    """
    arrays = read(STORED, xt=xt, uncond=uncond, cond=cond)
    return rowwise(guided_flow, arrays, coefficients.flow_step(t, s, arrays.shape), out, more=(float(w),))


def heun_step(x, denoised, denoised_next, sigma, sigma_next, out=None):
    """[EDM] algorithm 1, lines 4 to 8, from the two predictions of x0 that it makes, as one sum of three terms. (So an infinite
    element may stay infinite where `ref` makes NaN of the difference of two.)

    x, denoised, denoised_next: (B, ...). sigma, sigma_next: numbers or (B,), 0 < sigma_next < sigma.
    Returns x_next (B, ...), in out where given. Raises as `ref.fused.heun_step`.
    """
    arrays = read(STORED, x=x, denoised=denoised, denoised_next=denoised_next)
    return rowwise(heun, arrays, coefficients.heun_step(sigma, sigma_next, arrays.shape), out)


def adam_ema_step(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay, out=None):
    """[AdamW] algorithm 2 and  avg <- decay avg + (1 - decay) p  in one pass.

    p, g, m, v, avg: one shape. step: int >= 1. lr, beta1, beta2, eps, weight_decay, decay: floats.
    Returns p, m, v, avg; out: four arrays for them, which may be the inputs. Raises as `ref.fused.adam_ema_step`.
    """
    arrays = read(SINGLE, p=p, g=g, m=m, v=v, avg=avg)
    c = coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay).reshape(-1, 1)
    return rowwise(adam_ema, arrays, np.concatenate([c, coefficients.ema_step(decay)]), out, writes=4)


def _guided(f, arrays, c, w, clip, key, out):
    """A guided step whose last coefficient is that of the noise; none is made where it is 0 in every row."""
    limit = limit_of(clip)
    coefficients.noise_key(*key)
    return rowwise(f, arrays, c, out, more=(float(w), limit), noise=ADDED if c[-1].any() else ABSENT, key=key)


def mlp_sample(params, xT, times, abar, eta=0.0, seed=0, stream=0, guidance=None, predict="eps", clip=None, precision="float32", out=None):
    """A whole trajectory, [DDIM] eq. 12 from each time to the next, of a net of `ref.nets.mlp` with its own noise, in one launch. Without noise and
    clip the chapter's net goes all the way in its hidden layer (see `kernels.triton_gpu.mlp`).

    params: of `chapter` or of `residual`, told by their names. xT: (B, pixels). times: (n + 1,) ints, descending in [0, T]. abar: (T + 1,).
    eta: in [0, 1]. seed, stream: ints in [0, 2**64); streams go on from 0 past the last. guidance: for `residual`, None for no label, or
    labels (B,) of the host and w. predict: what the net's output is, "eps", "x0" or "v". clip: of x0_hat, > 0, or None. precision: "float32", or
    "bfloat16" for operands of the products rounded to it. Returns x at the last time (B, pixels), in out where given, which may be xT; NaN
    everywhere if a program waited a second for another in vain. Raises as `ref.fused.mlp_sample`.
    """
    arrays = read(SINGLE, xT=xT)
    if len(arrays.shape) != 2:
        raise ValueError(f"xT: expected shape (B, pixels), got {arrays.shape}")
    rounded = _rounds(precision)
    times = coefficients.descending(times, abar)
    table, limit = coefficients.ddim_trajectory(times, eta, abar, predict), coefficients.clip_limit(clip)
    coefficients.noise_key(seed, stream)
    if guidance is not None and "class.w" not in params:
        raise ValueError("guidance: expected None for a net without classes")
    net = _residual(params, arrays, guidance) if "class.w" in params else _chapter(params, arrays)
    out, pointer = launch.output("out", out, arrays)
    if not arrays.size:
        return out
    if "class.w" not in params and not table[6].any() and clip is None and net.width <= mlp.WIDEST:
        _sample_hidden(pointer, arrays, net, np.array(times[:-1]), coefficients.ddim_chain(table, predict), rounded)
    else:
        _sample_pixels(pointer, arrays, net, times, table, seed, stream, limit, clip is not None or predict != "eps", rounded)
    return out


def _rounds(precision):
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f'precision: expected "float32" or "bfloat16", got {precision!r}')
    return precision == "bfloat16"


Net = namedtuple("Net", "width pointers blocks labels w features")  # labels: (branches, B). features: of the times, how many


def _named(params, name, like, shape, whose="params"):
    """A pointer to params[name], and its shape, after the check. like: `Arrays` of the data. shape: with None where any length will do."""
    if name not in params:
        raise ValueError(f"{whose}: expected an array {name!r}, got {sorted(params)}")
    said = f"{whose}[{name!r}]"
    array = read((like.dtype,), **{said: params[name]})
    if array.kind is not like.kind:
        raise TypeError(f"{said}: expected {like.kind.name} like the data, got {array.kind.name}")
    if len(array.shape) != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape)):
        raise ValueError(f"{said}: expected shape {tuple('any' if n is None else n for n in shape)}, got {array.shape}")
    like.streams.update(array.streams)
    return array.pointers[0], array.shape


def _chapter(params, like, whose="params", width=None):
    """`Net` of w1, b1, w2, b2 after the check. whose: for the message. width: of the hidden layer, None for any."""
    pixels = like.shape[1]
    w1, (width, _) = _named(params, "w1", like, (width, pixels + 1), whose)
    shapes = {"b1": (width,), "w2": (pixels, width), "b2": (pixels,)}
    return Net(width, [w1, *(_named(params, name, like, shape, whose)[0] for name, shape in shapes.items())], [], np.zeros((1, like.shape[0]), np.int32), 0.0, 0)


def _residual(params, like, guidance):
    """`Net` of the residual net after the check."""
    pixels, depth = like.shape[1], sum(name.endswith(".w1") for name in params)
    w_in, (width, _) = _named(params, "in.w", like, (None, pixels))
    w_time, (_, features) = _named(params, "time.w", like, (width, None))
    classes, (rows, _) = _named(params, "class.w", like, (None, width))
    shapes = {"in.b": (width,), "out.w": (pixels, width), "out.b": (pixels,), "time.b": (width,)}
    b_in, w_out, b_out, b_time = (_named(params, name, like, shape)[0] for name, shape in shapes.items())
    parts = {"w1": (width, width), "b1": (width,), "w2": (width, width), "b2": (width,)}
    blocks = [_named(params, f"block{i}.{part}", like, shape)[0] for i in range(depth) for part, shape in parts.items()]
    labels, w = coefficients.branches(guidance, like.shape[0], rows - 1)
    return Net(width, [w_in, b_in, w_out, b_out, w_time, b_time, classes], blocks, labels.astype(np.int32), w, features)


def _sample_hidden(out, x, net, times, chain, rounded):
    """Run `mlp.sample_hidden`. out: pointer. x: `Arrays`. net: `Net`. times: (n,) ints. chain: of `coefficients.ddim_chain`. rounded: to bfloat16?"""
    (B, D), (lines, whole, offset) = x.shape, chain
    wide = max(16, 1 << (net.width - 1).bit_length())
    resident = rounded or wide <= 64
    single = lambda n: (n, "float32")
    table, counter, lifted, shift, sums, hidden = launch.workspace(
        x, np.column_stack([times, *lines]).astype(np.float32), np.zeros(2, np.int32),
        single((wide + B) * wide), single(wide), single(B * wide), single(0 if resident else B * wide),
    )  # fmt: skip
    tiles = mlp.tiles(mlp.HIDDEN, max(D, wide)) | dict(TILE=64 if B > 512 else 32)  # many tiles, or as many as there are programs
    tiles = {name: min(n, wide) if name in ("TALL", "TILE", "CHUNK") else n for name, n in tiles.items()}
    before = (wide // tiles["TALL"] + launch.programs(B, tiles["TALL"])) * (wide // tiles["TILE"])
    programs = min(max(before, launch.programs(B, tiles["TALL"]) * launch.programs(D, tiles["TILE"])), launch.processors(x))
    for phase in (1, 2, 3) if launch.INTERPRETED else (0,):
        launch.run(
            mlp.sample_hidden, programs, x, out, *x.pointers, *net.pointers, lifted, shift, hidden, sums, table, counter, B, len(times), whole, offset, mlp.PATIENCE,
            D=D, H=net.width, WIDE=wide, **tiles, RESIDENT=resident, BFLOAT16=rounded, PHASE=phase, warps=8, together=True,
        )  # fmt: skip


def _sample_pixels(out, x, net, times, table, seed, stream, limit, clipped, rounded):
    """Run `mlp.sample_pixels`. out: pointer. x: `Arrays`. net: `Net`. times: (n + 1,) ints. table: of `coefficients.ddim_trajectory`. limit, clipped: of
    x0_hat. rounded: to bfloat16?"""
    (B, D), steps, noisy, depth = x.shape, len(times) - 1, bool(table[6].any()), len(net.blocks) // 4
    branches, residual, tiles = len(net.labels), net.features > 0, mlp.tiles(mlp.PIXELS, max(D, net.width))
    DP, HP = (launch.programs(n, 2 * tiles["CHUNK"]) * 2 * tiles["CHUNK"] for n in (D, net.width))
    if 2 * depth * HP * HP >= 2**31 or HP * DP >= 2**31:
        raise ValueError(f"params: expected fewer than 2**31 weights in all blocks, got {2 * depth * HP * HP} with each width in whole {tiles['CHUNK']}s; sample step by step")
    keys = [coefficients.noise_key(seed, (stream + i) % 2**64) for i in range(steps if noisy else 1)]
    features = coefficients.time_embedding(times[:-1], net.features).astype(np.float32)
    bands = launch.programs(B, tiles["ROWS"])
    rows, more = bands * tiles["ROWS"], branches * bands * tiles["ROWS"] * HP if residual else 0
    operand = _operand(rounded)
    table, keys_at, blocks, counter, labels, features, *memory = launch.workspace(
        x, np.vstack([table, times[:-1]]).T.astype(np.float32), np.array(keys)[:, 2:].view(np.int32), np.array([p.address for p in net.blocks], np.int64),
        np.zeros(2, np.int32), net.labels, features, (steps * HP if residual else 0, "float32"), (more, "float32"),
        (rows * DP, operand), (more, operand), (more, operand), (rows * HP, operand), (HP * DP, operand), (DP * HP, operand), (2 * depth * HP * HP, operand),
    )  # fmt: skip
    most = max(branches * bands * (HP // tiles["TILE"]), bands * (DP // tiles["TILE"]))
    weights = net.pointers if residual else [*net.pointers, *net.pointers[:3]]  # those after the fourth are not looked at

    def run(phase, step=(0, steps), block=(0, depth)):
        launch.run(
            mlp.sample_pixels, min(most, launch.processors(x)), x, out, *x.pointers, *weights, blocks, table, keys_at, counter, labels, features, *memory, B, steps,
            depth, net.w, limit, *launch.words(keys[0])[:2], *step, *block, mlp.PATIENCE, D=D, H=net.width, FEATURES=max(net.features, 1), DP=DP, HP=HP, **tiles,
            BRANCHES=branches, RESIDUAL=residual, NOISY=noisy, CLIPPED=clipped, BFLOAT16=rounded, PHASE=phase, warps=mlp.WARPS, together=True,
        )  # fmt: skip

    if not launch.INTERPRETED:
        return run(0)
    run(1)
    for i in range(steps):
        run(2, (i, i + 1))
        for block in range(depth if residual else 0):
            run(3, (i, i + 1), (block, block + 1))
            run(4, (i, i + 1), (block, block + 1))
        run(5, (i, i + 1))


def _operand(rounded):
    """The dtype in which operands are stored: the interpreter has bfloat16's numbers in float32."""
    return "bfloat16" if rounded and not launch.INTERPRETED else "float32"


def mlp_train(params, data, steps, batch, lr, seed, abar, state=None, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decay=0.0, precision="float32"):
    """Steps of the chapter's loop in one launch, [DDPM] algorithm 1 with [AdamW] and a moving average, everything random from (seed, step).

    params: of `chapter`. data: (N, pixels), N < 2**31. steps, batch: ints >= 1. lr: float. seed: int in [0, 2**64). abar: (T + 1,).
    state: None to begin, or what an earlier call returned. beta1, beta2, eps, weight_decay: as in `adam_ema_step`. decay: of the average.
    precision: "float32", or "bfloat16" for operands of the products rounded to it; weights, sums and all that is kept are float32.
    Returns params, state (a dict: step, m, v, average) and the losses (steps,) float64, all new: nothing given is changed. The same bits on
    every run. Raises as `ref.fused.mlp_train`; RuntimeError if a program waited a second for another in vain.
    """
    arrays = read(SINGLE, data=data)
    if len(arrays.shape) != 2:
        raise ValueError(f"data: expected shape (N, pixels), got {arrays.shape}")
    done = coefficients.steps_done(steps, batch, state)
    (N, D), rounded = arrays.shape, _rounds(precision)
    nets = {"params": _chapter(params, arrays)}
    H = nets["params"].width
    if state is not None:
        nets |= {part: _chapter(state[part], arrays, f"state[{part!r}]", H) for part in ("m", "v", "average")}
    alphas, T = coefficients.q_sample(np.arange(np.size(abar)), abar, (np.size(abar),)), np.size(abar) - 1
    for n in (N, T):
        if not 1 <= n < 2**31:
            raise ValueError(f"n: expected 1 <= n <= 2**32, got {n}" if n < 1 else f"data: expected fewer than 2**31 examples, got {n}")
    adam = np.array([coefficients.adam_step(done + 1 + i, lr, beta1, beta2, eps, weight_decay) for i in range(steps)])
    keep, take = coefficients.ema_step(decay)[:, 0].tolist()
    key = launch.words(coefficients.noise_key(seed, coefficients.PER_STEP * (done + steps) + 3))[:2]

    shapes = {"w1": (H, D + 1), "b1": (H,), "w2": (D, H), "b2": (D,)}
    kept, pointers = {}, []
    for part in ("params", "m", "v", "average"):
        kept[part] = {name: arrays.kind.empty(shape, "float32") for name, shape in shapes.items()}
        made = [launch.pointer_to(array, arrays.kind) for array in kept[part].values()]
        pointers += made
        source = nets.get(part, nets["params"] if part == "average" else None)
        for i, (to, shape) in enumerate(zip(made, shapes.values())):
            launch.fill(to, source.pointers[i] if source else None, shape, arrays)
    losses = arrays.kind.empty((steps,), "float64")
    tiles = mlp.tiles(mlp.TRAINING, max(D, H))
    DP, HP = (launch.programs(n, 2 * tiles["CHUNK"]) * 2 * tiles["CHUNK"] for n in (D, H))
    bands, padded = launch.programs(batch, tiles["ROWS"]), launch.programs(batch, tiles["BATCH"]) * tiles["BATCH"]
    owned = 2 * launch.programs(D, tiles["OUT"]) * launch.programs(H, tiles["IN"])
    programs = min(max(bands * (HP // tiles["UNITS"]), bands * (DP // tiles["PIXELS"]), owned), launch.processors(arrays))
    wide = max(DP, HP)
    operand = _operand(rounded)
    memory = launch.workspace(
        arrays, adam.astype(np.float32), alphas.T.astype(np.float32), np.zeros(2, np.int32), (batch, "int32"), (2 * batch, "int32"), (batch * D, "float32"),
        (bands * (DP // tiles["PIXELS"]), "float32"), (2 * padded * wide, operand), *[(padded * wide, operand)] * 3,
        (HP * DP, operand), (DP * HP, operand),
    )  # fmt: skip

    def run(phase, first=0, end=steps):
        launch.run(
            mlp.train, programs, arrays, *pointers, launch.pointer_to(losses, arrays.kind), *arrays.pointers, *memory, batch, N, T, done + 1,
            steps, first, end, *key, keep, take, 2.0 / (batch * D), mlp.PATIENCE, D=D, H=H, DP=DP, HP=HP, **tiles, STATIONARY=owned <= programs and not launch.INTERPRETED,
            BFLOAT16=rounded, PHASE=phase, warps=8, together=True,
        )  # fmt: skip

    if launch.INTERPRETED:
        for phase, first, end in [(1, 0, 0), (2, 0, 0), *((phase, i, i + 1) for i in range(steps) for phase in (3, 4, 5, 6))]:
            run(phase, first, end)
    else:
        run(0)
        if launch.word(memory[2], 1):
            raise RuntimeError("mlp_train: a program waited a second for another in vain; the device was taken by somebody else, try again")
    return kept.pop("params"), {"step": done + steps} | kept, losses


@triton.jit
def guide(uncond, cond, w):
    """[CFG] eq. 6. uncond, cond: blocks. w: number."""
    return tl.fma(w, cond - uncond, uncond)


@triton.jit
def guided_ddpm(xt, uncond, cond, z, c0, c1, c2, c3, sigma, w, limit):
    """`ddpm` of a guided prediction. Arguments as in `ddpm` and `guide`."""
    return ddpm(xt, guide(uncond, cond, w), z, c0, c1, c2, c3, sigma, limit)


@triton.jit
def guided_ddim(xt, uncond, cond, z, c0, c1, c2, c3, c4, c5, sigma, w, limit):
    """`ddim` of a guided prediction. Arguments as in `ddim` and `guide`."""
    return ddim(xt, guide(uncond, cond, w), z, c0, c1, c2, c3, c4, c5, sigma, limit)


@triton.jit
def guided_dpmpp_2m(xt, uncond, cond, x0_last, c0, c1, c2, c3, c4, w):
    """[DPM-Solver++] algorithm 2: x_s and x0_hat. xt, x0_last: blocks. c0, c1, c2, c3, c4: of `coefficients.dpmpp_2m_step`; the rest as in `guide`."""
    x0_hat = tl.fma(c0, xt, c1 * guide(uncond, cond, w))
    return tl.fma(c4, x0_last, tl.fma(c2, xt, c3 * x0_hat)), x0_hat


@triton.jit
def guided_flow(xt, uncond, cond, dt, w):
    """[RF] algorithm 1. xt: block. dt: s - t; the rest as in `guide`."""
    return tl.fma(dt, guide(uncond, cond, w), xt)


@triton.jit
def heun(x, denoised, denoised_next, c0, c1, c2):
    """[EDM] algorithm 1, lines 4 to 8, folded. x, denoised, denoised_next: blocks. c0, c1, c2: of `coefficients.heun_step`."""
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
