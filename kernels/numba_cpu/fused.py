"""`ref.fused` on the CPU: one pass over memory, the noise made a chunk at a time in the first-level cache.

Arguments are those of `ref.fused` (equations there), arrays of one dtype, float32 or float64; `out`, where given, is an
array of that shape and dtype and may be one of the inputs. Errors as there, before anything is written.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [CFG]   Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [AdamW] Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    [EDM]   Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
    [RF]    Liu, Gong, Liu, "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2023
    [DPM-Solver++]  Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022
"""
import numpy as np
from numba import njit

from kernels import coefficients
from kernels.numba_cpu import engine, mlp, philox
from kernels.numba_cpu.diffusion import ddim_mean, ddpm_mean, five, partial_sums, seven, square_error
from kernels.numba_cpu.engine import COMPILE, INLINE
from kernels.numba_cpu.optim import adam_ema_rows, eight
from kernels.numba_cpu.philox import normal_chunk
from kernels.numba_cpu.intrinsics import deliver, fma, wide, write, write_noisy

AHEAD = 16  # training steps whose examples and times are drawn, and held, in a row: a step's products leave nothing of Python in the cache


def q_sample_noise(x0, t, seed, abar, stream=0, out=None):
    """[DDPM] eq. 4 with its own noise:  x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) normal(seed, shape, stream).

    x0: (B, ...). t: (B,) ints or one int. seed, stream: ints in [0, 2**64). abar: (T + 1,).
    Returns xt (B, ...), in out where given. Raises as `ref.fused.q_sample_noise`.
    """
    shape, dtype = engine.same(x0=x0)
    table = coefficients.q_sample(t, abar, shape)
    key = coefficients.noise_key(seed, stream)
    x0 = engine.flat(x0)
    memory, how = engine.output(out, shape, dtype, x0)
    engine.run(_q_sample_noise, x0.size, memory, x0, table, engine.row_size(x0, table), key, how)
    return engine.finish(memory, out, shape)


def eps_loss_grad(eps_hat, eps, out=None):
    """[DDPM] eq. 14 and its gradient in one pass:  L = mean((eps_hat - eps)^2),  deps_hat = 2 (eps_hat - eps) / N.

    eps_hat, eps: one shape, N >= 1 elements. Returns L (a float), deps_hat (in out where given).
    Raises as `ref.fused.eps_loss_grad`.
    """
    shape, dtype = engine.same(eps_hat=eps_hat, eps=eps)
    partial = partial_sums(eps.size)
    eps_hat, eps = engine.flat(eps_hat), engine.flat(eps)
    memory, how = engine.output(out, shape, dtype, eps_hat, eps)
    engine.run(_eps_loss_grad, eps.size, memory, eps_hat, eps, 2.0 / eps.size, partial, how)
    return float(partial.sum() / eps.size), engine.finish(memory, out, shape)


def eps_loss_noise(eps_hat, seed, stream=0, out=None):
    """`eps_loss_grad` against the noise of (seed, stream), [DDPM] eq. 14: made again, never stored.

    eps_hat: (B, ...). seed, stream: those of `q_sample_noise`. Returns L (a float), deps_hat (in out where given).
    Raises as `ref.fused.eps_loss_noise`.
    """
    shape, dtype = engine.same(eps_hat=eps_hat)
    key = coefficients.noise_key(seed, stream)
    partial = partial_sums(eps_hat.size)
    eps_hat = engine.flat(eps_hat)
    memory, how = engine.output(out, shape, dtype, eps_hat)
    engine.run(_eps_loss_noise, eps_hat.size, memory, eps_hat, 2.0 / eps_hat.size, partial, key, how)
    return float(partial.sum() / eps_hat.size), engine.finish(memory, out, shape)


def guided_ddpm_step(xt, uncond, cond, w, t, s, seed, abar, variance="small", clip=None, stream=0, out=None):
    """[CFG] eq. 6 as uncond + w (cond - uncond), then [DDPM] algorithm 2 with the noise of (seed, stream).

    xt, uncond, cond: (B, ...). w: float. t, s: ints or (B,) ints, s < t. seed, stream: ints in [0, 2**64). abar: (T + 1,).
    variance: "small" or "large". clip: > 0, or None. Returns x_s (B, ...), in out where given.
    Raises as `ref.fused.guided_ddpm_step`.
    """
    shape, dtype = engine.same(xt=xt, uncond=uncond, cond=cond)
    table = coefficients.ddpm_step(t, s, abar, variance, shape)
    limit, key = coefficients.clip_limit(clip), coefficients.noise_key(seed, stream)
    xt, uncond, cond = engine.flat(xt), engine.flat(uncond), engine.flat(cond)
    memory, how = engine.output(out, shape, dtype, xt, uncond, cond)
    rows, key = engine.row_size(xt, table), key if table[4].any() else key[:0]  # no key, no noise
    engine.run(_guided_ddpm, xt.size, memory, xt, uncond, cond, float(w), table, rows, limit, key, how)
    return engine.finish(memory, out, shape)


def guided_ddim_step(xt, uncond, cond, w, t, s, seed, eta, abar, clip=None, stream=0, out=None):
    """[CFG] eq. 6 as uncond + w (cond - uncond), then [DDIM] eq. 12 with the noise of (seed, stream); none is made where eta = 0.

    xt, uncond, cond: (B, ...). w: float. t, s: ints or (B,) ints, s < t. seed, stream: ints in [0, 2**64). eta: in [0, 1].
    abar: (T + 1,). clip: > 0, or None. Returns x_s (B, ...), in out where given. Raises as `ref.fused.guided_ddim_step`.
    """
    shape, dtype = engine.same(xt=xt, uncond=uncond, cond=cond)
    table = coefficients.ddim_step(t, s, eta, abar, shape)
    limit, key = coefficients.clip_limit(clip), coefficients.noise_key(seed, stream)
    xt, uncond, cond = engine.flat(xt), engine.flat(uncond), engine.flat(cond)
    memory, how = engine.output(out, shape, dtype, xt, uncond, cond)
    rows, key = engine.row_size(xt, table), key if table[6].any() else key[:0]
    engine.run(_guided_ddim, xt.size, memory, xt, uncond, cond, float(w), table, rows, clip is not None, limit, key, how)
    return engine.finish(memory, out, shape)


def guided_dpmpp_2m_step(xt, uncond, cond, w, x0_last, u, t, s, abar, out=None):
    """[CFG] eq. 6 as uncond + w (cond - uncond), then [DPM-Solver++] algorithm 2 in x0_hat and the x0_last of the step before.

    xt, uncond, cond, x0_last: (B, ...). w: float. u, t, s: ints or (B,) ints, s < t < u; x0_last and u None where there was no step
    before. abar: (T + 1,). Returns x_s, x0_hat; out: a pair of arrays for them, which may be xt and x0_last.
    Raises as `ref.fused.guided_dpmpp_2m_step`.
    """
    if (x0_last is None) != (u is None):
        raise ValueError("x0_last and u: expected both or neither")
    shape, dtype = engine.same(xt=xt, uncond=uncond, cond=cond, **({} if x0_last is None else {"x0_last": x0_last}))
    table = coefficients.dpmpp_2m_step(u, t, s, abar, shape)
    out = (None, None) if out is None else out
    engine.apart(out)
    xt, uncond, cond = engine.flat(xt), engine.flat(uncond), engine.flat(cond)
    x0_last = xt if x0_last is None else engine.flat(x0_last)
    memory, how = zip(*(engine.output(o, shape, dtype, xt, uncond, cond, x0_last) for o in out))
    engine.run(_guided_dpmpp_2m, xt.size, *memory, xt, uncond, cond, float(w), x0_last, table, engine.row_size(xt, table), max(how))
    return tuple(engine.finish(a, o, shape) for a, o in zip(memory, out))


def guided_flow_step(xt, uncond, cond, w, t, s, out=None):
    """[CFG] eq. 6 on velocities, then Euler's step, [RF] algorithm 1:  x_s = x_t + (s - t) (uncond + w (cond - uncond)).

    xt, uncond, cond: (B, ...). w: float. t, s: numbers or (B,), 0 <= s < t <= 1. Returns x_s (B, ...), in out where given.
    Raises as `ref.fused.guided_flow_step`.
    """
    shape, dtype = engine.same(xt=xt, uncond=uncond, cond=cond)
    table = coefficients.flow_step(t, s, shape)
    xt, uncond, cond = engine.flat(xt), engine.flat(uncond), engine.flat(cond)
    memory, how = engine.output(out, shape, dtype, xt, uncond, cond)
    engine.run(_guided_flow, xt.size, memory, xt, uncond, cond, float(w), table, engine.row_size(xt, table), how)
    return engine.finish(memory, out, shape)


def heun_step(x, denoised, denoised_next, sigma, sigma_next, out=None):
    """[EDM] algorithm 1, lines 4 to 8, from the two predictions of x0 that it makes, as one sum of three terms. (So an infinite
    element may stay infinite where `ref` makes NaN of the difference of two.)

    x, denoised, denoised_next: (B, ...). sigma, sigma_next: numbers or (B,), 0 < sigma_next < sigma.
    Returns x_next (B, ...), in out where given. Raises as `ref.fused.heun_step`.
    """
    shape, dtype = engine.same(x=x, denoised=denoised, denoised_next=denoised_next)
    table = coefficients.heun_step(sigma, sigma_next, shape)
    x, denoised, denoised_next = engine.flat(x), engine.flat(denoised), engine.flat(denoised_next)
    memory, how = engine.output(out, shape, dtype, x, denoised, denoised_next)
    engine.run(_heun, x.size, memory, x, denoised, denoised_next, table, engine.row_size(x, table), how)
    return engine.finish(memory, out, shape)


def adam_ema_step(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay, out=None):
    """[AdamW] algorithm 2 and  avg <- decay avg + (1 - decay) p  in one pass.

    p, g, m, v, avg: one shape. step: int >= 1. lr, beta1, beta2, eps, weight_decay, decay: floats.
    Returns p, m, v, avg; out: four arrays for them, which may be the inputs. Raises as `ref.fused.adam_ema_step`.
    """
    shape, dtype = engine.same(p=p, g=g, m=m, v=v, avg=avg)
    c = coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay)
    d = coefficients.ema_step(decay)
    out = (None,) * 4 if out is None else out
    engine.apart(out)
    p, g, m, v, avg = (engine.flat(a) for a in (p, g, m, v, avg))
    memory, how = zip(*(engine.output(o, shape, dtype, p, g, m, v, avg) for o in out))
    engine.run(_adam_ema, p.size, *memory, p, g, m, v, avg, c, d, max(how))
    return tuple(engine.finish(a, o, shape) for a, o in zip(memory, out))


def mlp_sample(params, xT, times, abar, eta=0.0, seed=0, stream=0, guidance=None, predict="eps", clip=None, out=None):
    """A whole trajectory, [DDIM] eq. 12 from each time to the next, of a net of `ref.nets.mlp` with its own noise, a tile of examples
    from end to end: the weights are read where they stand, and the step is taken while the net's output is in the first-level cache.

    params: of `chapter` or of `residual`, told by their names. xT: (B, pixels). times: (n + 1,) ints, descending in [0, T]. abar: (T + 1,).
    eta: in [0, 1]. seed, stream: ints in [0, 2**64); streams go on from 0 past the last. guidance: for `residual`, None for no label, or
    labels (B,) and w, both branches in the same pass. predict: what the net's output is, "eps", "x0" or "v". clip: of x0_hat, > 0, or None.
    Returns x at the last time (B, pixels), in out where given; an example's does not depend on its batch. Raises as `ref.fused.mlp_sample`.
    """
    params = _flat(params)
    shape, dtype = engine.same(xT=xT)
    if len(shape) != 2:
        raise ValueError(f"xT: expected shape (B, pixels), got {shape}")
    times = coefficients.descending(times, abar)
    table = coefficients.ddim_trajectory(times, eta, abar, predict)
    limit, clipped = dtype.type(coefficients.clip_limit(clip)), clip is not None or predict != "eps"
    coefficients.noise_key(seed, stream)
    keys = np.array([coefficients.noise_key(seed, (stream + i) % 2**64) for i in range(len(times) - 1)])
    xT = engine.flat(xT)
    steps, more = len(times) - 1, [table, keys, clipped, limit]
    if "class.w" in params:
        kernel, tile, weights = mlp.sample_residual, *_residual(params, shape, xT, times, guidance)
    elif guidance is None:
        kernel, tile, weights = mlp.sample_chapter, mlp.tile_of(shape[0], xT), [*_chapter(params, shape[1], dtype), np.array(times[:-1], np.float64)]
    else:
        raise ValueError("guidance: expected None for a net without classes")
    memory, _ = engine.output(out, shape, dtype, xT, *(engine.flat(p) for p in params.values()))
    if kernel is mlp.sample_chapter and clip is None and not table[6].any() and _hidden_is_shorter(shape[1], weights[1].size, steps, xT):
        kernel, weights, more = mlp.sample_hidden, [*weights[:4], *_square(*weights[:4]), weights[4]], coefficients.ddim_chain(table, predict)
    work = steps * shape[0] * sum(p.size for p in params.values())
    engine.run_tiles(kernel, -(-shape[0] // tile), work, memory, xT, tile, *weights, *more)
    return engine.finish(memory, out, shape)


def _flat(params):
    """The residual net's arrays under dotted names."""
    if "class" not in params:
        return params
    flat = {f"{part}.{name}": p for part, arrays in params.items() if part != "blocks" for name, p in arrays.items()}
    return flat | {f"block{i}.{name}": p for i, block in enumerate(params["blocks"]) for name, p in block.items()}


def _hidden_is_shorter(pixels, width, steps, like):
    """Whether the hidden way has fewer multiply-adds for the fewest examples that a product takes: never by the batch, whose size no example is to feel."""
    examples = mlp.lanes(like)
    return width * width * (pixels + examples * steps) + 2 * examples * width * pixels < 2 * examples * width * pixels * steps


def _square(w1, b1, w2, b2):
    """What `mlp.sample_hidden` takes of W1 W2: its elements, W1 b2, and where the next row begins."""
    width, pixels, lanes = b1.size, b2.size, mlp.lanes(w1)
    along = -(-width // lanes) * lanes
    padded, m, shift = np.zeros((pixels, along), w1.dtype), mlp.lines(width * along, w1), np.empty(width, w1.dtype)
    padded[:, :width] = w2.reshape(pixels, width)
    engine.run_tiles(mlp.square, -(-width // mlp.ROWS), width * w1.size, m, shift, w1, padded.reshape(-1), b2, width, along)
    return m, shift, along


def mlp_train(params, data, steps, batch, lr, seed, abar, state=None, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decay=0.0):
    """Steps of the chapter's loop, [DDPM] algorithm 1 with [AdamW] and a moving average, everything random from (seed, step). A tile of examples goes
    forward and back while it is in cache, and a weight is updated with its average where its gradient has been summed.

    params: of `chapter`. data: (N, pixels), of their dtype. steps, batch: ints >= 1. lr: float. seed: int in [0, 2**64). abar: (T + 1,).
    state: None to begin, or what an earlier call returned. beta1, beta2, eps, weight_decay: as in `adam_ema_step`. decay: of the average.
    Returns params, state (a dict: step, m, v, average) and the losses (steps,), all new: nothing given is changed. The same bits for any
    number of threads. Raises as `ref.fused.mlp_train`.
    """
    shape, dtype = engine.same(data=data)
    if len(shape) != 2:
        raise ValueError(f"data: expected shape (N, pixels), got {shape}")
    done = coefficients.steps_done(steps, batch, state)
    pixels, data = shape[1], engine.flat(data)
    kept = dict(params=_chapter(params, pixels, dtype))
    width = kept["params"][1].size
    if state is None:
        zeros = [np.zeros_like(p) for p in kept["params"]]
        kept |= dict(m=zeros, v=zeros, average=kept["params"])
    else:
        kept |= {part: _chapter(state[part], pixels, dtype, f"state[{part!r}]", width) for part in ("m", "v", "average")}
    d = coefficients.ema_step(decay)
    first, x, a, dout, dh, partial = mlp.training_memory(batch, pixels, width, data)
    kept = {part: [p.copy() for p in arrays] for part, arrays in kept.items()}
    weights, losses = tuple(zip(*kept.values())), np.empty(steps)
    work = batch * (weights[0][0].size + weights[2][0].size)

    def drawn(step):
        stream = coefficients.PER_STEP * step
        index, t = philox.below(seed, batch, shape[0], stream), 1 + philox.below(seed, batch, len(abar) - 1, stream + 1)
        key, c = coefficients.noise_key(seed, stream + 3), coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay)
        return index, t, coefficients.q_sample(t, abar, t.shape), key, c

    for i in range(steps):
        if i % AHEAD == 0:
            ahead = [drawn(done + 1 + k) for k in range(i, min(i + AHEAD, steps))]
        index, t, table, key, c = ahead[i % AHEAD]
        engine.run_tiles(mlp.train_examples, -(-batch // first), 2 * work, first, data, index, t, table, key, weights, x, a, dout, dh, partial)
        losses[i] = partial.sum() / (batch * pixels)
        engine.run_tiles(mlp.train_weights, mlp.weight_tiles(pixels, width), work, batch, pixels, width, weights, x, a, dout, dh, c, d)
    shapes = {"w1": (width, pixels + 1), "b1": (width,), "w2": (pixels, width), "b2": (pixels,)}
    kept = {part: {name: array.reshape(size) for (name, size), array in zip(shapes.items(), arrays)} for part, arrays in kept.items()}
    return kept.pop("params"), {"step": done + steps} | kept, losses


def _chapter(params, pixels, dtype, whose="params", width=None):
    """w1, b1, w2, b2 of the chapter's net, flat, after the check. whose: for the message. width: of the hidden layer, None for any."""
    width = _named(params, "w1", dtype, (width, pixels + 1), whose).shape[0]
    shapes = {"w1": (width, pixels + 1), "b1": (width,), "w2": (pixels, width), "b2": (pixels,)}
    return [engine.flat(_named(params, name, dtype, shape, whose)) for name, shape in shapes.items()]


def _residual(params, shape, xT, times, guidance):
    """The tile and what `mlp.sample_residual` takes of the residual net, after the check: weights, labels, w, what the net adds for the times."""
    pixels, dtype, depth = shape[1], xT.dtype, sum(name.endswith(".w1") for name in params)
    width = _named(params, "in.w", dtype, (None, pixels)).shape[0]
    shapes = {"in.w": (width, pixels), "in.b": (width,), "class.w": (None, width), "out.w": (pixels, width), "out.b": (pixels,)}
    weights = [engine.flat(_named(params, name, dtype, shape)) for name, shape in shapes.items()]
    for part, size in (("w1", (width, width)), ("b1", (width,)), ("w2", (width, width)), ("b2", (width,))):
        weights.append(tuple(engine.flat(_named(params, f"block{i}.{part}", dtype, size)) for i in range(depth)))
    w_time, b_time = _named(params, "time.w", dtype, (width, None)), _named(params, "time.b", dtype, (width,))
    h = coefficients.time_embedding(times[:-1], w_time.shape[1]) @ w_time.T.astype(np.float64) + b_time
    labels, w = coefficients.branches(guidance, shape[0], len(params["class.w"]) - 1)
    time = (h / (1 + np.exp(-h))).astype(dtype)
    return mlp.tile_of(shape[0], xT, len(labels)), [*weights, labels, dtype.type(w), time]


def _named(params, name, dtype, shape, whose="params"):
    """params[name] after the check. shape: with None where any length will do. whose: for the message."""
    if name not in params:
        raise ValueError(f"{whose}: expected an array {name!r}, got {sorted(params)}")
    array, said = params[name], f"{whose}[{name!r}]"
    if engine.same(**{said: array})[1] != dtype:
        raise TypeError(f"{said}: expected a NumPy array of {dtype} like the data, got {array.dtype}")
    if len(array.shape) != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape)):
        raise ValueError(f"{said}: expected shape {tuple('any' if n is None else n for n in shape)}, got {array.shape}")
    return array


@njit(**INLINE)
def _q_sample_noise_rows(o, lo, hi, z, x0, table, n):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c0, c1 = o.dtype.type(table[0, row]), o.dtype.type(table[1, row])
        r, x, w = o[i - lo : end - lo], x0[i:end], z[i - lo :]
        for j in range(r.size):
            r[j] = fma(c0, x[j], c1 * w[j])
        i = end


@njit(**COMPILE)
def _q_sample_noise(lo, hi, out, x0, table, n, key, how):
    wide()
    write_noisy(_q_sample_noise_rows, normal_chunk, lo, hi, out, how, key, (x0, table, n))


@njit(**INLINE)
def _gradient(o, first, last, x, y, c):
    for j in range(last - first):
        o[j] = c * (x[j] - y[j])


@njit(**COMPILE)
def _eps_loss_grad(lo, hi, out, eps_hat, eps, c, partial, how):
    c = out.dtype.type(c)
    chunk = np.empty(engine.CHUNK, out.dtype)
    for first in range(lo, hi, engine.CHUNK):
        last = min(first + engine.CHUNK, hi)
        x, y = eps_hat[first:last], eps[first:last]
        if how == engine.DIRECT:
            _gradient(out[first:last], first, last, x, y, c)
        else:
            _gradient(chunk, first, last, x, y, c)
        partial[first // engine.CHUNK] = square_error(x, y)  # of what is in cache now, and before it may be written over
        if how != engine.DIRECT:
            deliver(out, first, last, chunk, how)


@njit(**INLINE)
def _eps_loss_noise_rows(o, lo, hi, z, eps_hat, c, partial):
    x, y = eps_hat[lo:hi], z[: hi - lo]
    _gradient(o, lo, hi, x, y, c)
    partial[lo // engine.CHUNK] = square_error(x, y)


@njit(**COMPILE)
def _eps_loss_noise(lo, hi, out, eps_hat, c, partial, key, how):
    wide()
    write_noisy(_eps_loss_noise_rows, normal_chunk, lo, hi, out, how, key, (eps_hat, out.dtype.type(c), partial))


@njit(**INLINE)
def _guided_ddpm_rows(o, lo, hi, z, xt, uncond, cond, w, table, n, limit):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c = five(table, row, o)
        r, x, u, v, e = o[i - lo : end - lo], xt[i:end], uncond[i:end], cond[i:end], z[i - lo :]
        if c[4] == 0:
            for j in range(r.size):
                r[j] = ddpm_mean(x[j], fma(w, v[j] - u[j], u[j]), c, limit)
        else:
            for j in range(r.size):
                r[j] = fma(c[4], e[j], ddpm_mean(x[j], fma(w, v[j] - u[j], u[j]), c, limit))
        i = end


@njit(**COMPILE)
def _guided_ddpm(lo, hi, out, xt, uncond, cond, w, table, n, limit, key, how):
    wide()
    w, limit = out.dtype.type(w), out.dtype.type(limit)
    if key.size:
        write_noisy(_guided_ddpm_rows, normal_chunk, lo, hi, out, how, key, (xt, uncond, cond, w, table, n, limit))
    else:
        write(_guided_ddpm_rows, lo, hi, out, how, (xt[:0], xt, uncond, cond, w, table, n, limit))


@njit(**INLINE)
def _guided_ddim_rows(o, lo, hi, z, xt, uncond, cond, w, table, n, clipped, limit):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c = seven(table, row, o)
        r, x, u, v, e = o[i - lo : end - lo], xt[i:end], uncond[i:end], cond[i:end], z[i - lo :]
        if c[6] == 0:
            for j in range(r.size):
                r[j] = ddim_mean(x[j], fma(w, v[j] - u[j], u[j]), c, clipped, limit)
        else:
            for j in range(r.size):
                r[j] = fma(c[6], e[j], ddim_mean(x[j], fma(w, v[j] - u[j], u[j]), c, clipped, limit))
        i = end


@njit(**COMPILE)
def _guided_ddim(lo, hi, out, xt, uncond, cond, w, table, n, clipped, limit, key, how):
    wide()
    w, limit = out.dtype.type(w), out.dtype.type(limit)
    if key.size:
        write_noisy(_guided_ddim_rows, normal_chunk, lo, hi, out, how, key, (xt, uncond, cond, w, table, n, clipped, limit))
    else:
        write(_guided_ddim_rows, lo, hi, out, how, (xt[:0], xt, uncond, cond, w, table, n, clipped, limit))


@njit(**INLINE)
def _guided_dpmpp_2m_rows(o, x0, lo, hi, xt, uncond, cond, w, x0_last, table, n):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c0, c1, c2, c3, c4 = five(table, row, o)
        r, d, x, u, v, last = o[i - lo : end - lo], x0[i - lo : end - lo], xt[i:end], uncond[i:end], cond[i:end], x0_last[i:end]
        if c4 == 0:
            for j in range(r.size):
                a = x[j]
                b = fma(c0, a, c1 * fma(w, v[j] - u[j], u[j]))
                r[j] = fma(c2, a, c3 * b)
                d[j] = b
        else:
            for j in range(r.size):
                a = x[j]
                b = fma(c0, a, c1 * fma(w, v[j] - u[j], u[j]))
                r[j] = fma(c4, last[j], fma(c2, a, c3 * b))
                d[j] = b
        i = end


@njit(**COMPILE)
def _guided_dpmpp_2m(lo, hi, out, x0_out, xt, uncond, cond, w, x0_last, table, n, how):
    w = out.dtype.type(w)
    if how == engine.DIRECT:
        _guided_dpmpp_2m_rows(out[lo:hi], x0_out[lo:hi], lo, hi, xt, uncond, cond, w, x0_last, table, n)
    else:
        chunks = np.empty((2, engine.CHUNK), out.dtype)
        for first in range(lo, hi, engine.CHUNK):
            last = min(first + engine.CHUNK, hi)
            _guided_dpmpp_2m_rows(chunks[0], chunks[1], first, last, xt, uncond, cond, w, x0_last, table, n)
            deliver(out, first, last, chunks[0], how)
            deliver(x0_out, first, last, chunks[1], how)


@njit(**INLINE)
def _guided_flow_rows(o, lo, hi, xt, uncond, cond, w, table, n):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c = o.dtype.type(table[0, row])
        r, x, u, v = o[i - lo : end - lo], xt[i:end], uncond[i:end], cond[i:end]
        for j in range(r.size):
            r[j] = fma(c, fma(w, v[j] - u[j], u[j]), x[j])
        i = end


@njit(**COMPILE)
def _guided_flow(lo, hi, out, xt, uncond, cond, w, table, n, how):
    write(_guided_flow_rows, lo, hi, out, how, (xt, uncond, cond, out.dtype.type(w), table, n))


@njit(**INLINE)
def _heun_rows(o, lo, hi, a, b, c, table, n):
    i = lo
    while i < hi:
        row = i // n
        end = min(hi, (row + 1) * n)
        c0, c1, c2 = o.dtype.type(table[0, row]), o.dtype.type(table[1, row]), o.dtype.type(table[2, row])
        r, x, y, z = o[i - lo : end - lo], a[i:end], b[i:end], c[i:end]
        for j in range(r.size):
            r[j] = fma(c2, z[j], fma(c0, x[j], c1 * y[j]))
        i = end


@njit(**COMPILE)
def _heun(lo, hi, out, x, denoised, denoised_next, table, n, how):
    write(_heun_rows, lo, hi, out, how, (x, denoised, denoised_next, table, n))


@njit(**COMPILE)
def _adam_ema(lo, hi, p_out, m_out, v_out, avg_out, p, g, m, v, avg, c, d, how):
    c = eight(c, p)
    keep, take = p.dtype.type(d[0, 0]), p.dtype.type(d[1, 0])
    if how == engine.DIRECT:
        adam_ema_rows(p_out[lo:hi], m_out[lo:hi], v_out[lo:hi], avg_out[lo:hi], lo, hi, p, g, m, v, avg, c, keep, take)
    else:
        chunks = np.empty((4, engine.CHUNK), p.dtype)
        for first in range(lo, hi, engine.CHUNK):
            last = min(first + engine.CHUNK, hi)
            adam_ema_rows(chunks[0], chunks[1], chunks[2], chunks[3], first, last, p, g, m, v, avg, c, keep, take)
            deliver(p_out, first, last, chunks[0], how)
            deliver(m_out, first, last, chunks[1], how)
            deliver(v_out, first, last, chunks[2], how)
            deliver(avg_out, first, last, chunks[3], how)
