"""The truth for each fused kernel: literal compositions of the equations, one pass over memory when fused.

The noise is generated from (seed, stream) where it is needed, and never stored. Symbols as in `ref.diffusion`.

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

from ref import edm, tree
from ref.diffusion import (
    ddim_step, ddpm_step, dpmpp_2m_step, eps_loss, eps_loss_backward, q_sample, x0_from_eps,
)  # fmt: skip
from ref.guidance import guide, interval_weight
from ref.nets.mlp import residual, simple_mlp, simple_mlp_backward
from ref.optim import adam_step, ema_step
from ref.philox import below, normal, stream as stream_of
from ref.samplers import ddim
from ref.shapes import integer, integers, number, per_example, same_shape


def q_sample_noise(x0, t, seed, abar, stream=0):
    """[DDPM] eq. 4 with its own noise:  q_sample(x0, t, normal(seed, shape, stream), abar).

    x0: (B, ...). t: (B,) ints in [0, T], or one int. seed, stream: ints in [0, 2**64). abar: (T + 1,).
    Returns xt (B, ...) float64. Raises as `q_sample` and `normal` do.
    """
    return q_sample(x0, t, normal(seed, np.shape(x0), stream), abar)


def eps_loss_grad(eps_hat, eps):
    """[DDPM] eq. 14 and its gradient in one pass:  L = mean((eps_hat - eps)^2),  deps_hat = 2 (eps_hat - eps) / N.

    eps_hat, eps: one shape, N >= 1 elements.
    Returns L (a float), deps_hat. Raises as `eps_loss` does.
    """
    return eps_loss(eps_hat, eps), eps_loss_backward(1.0, eps_hat, eps)[0]


def eps_loss_noise(eps_hat, seed, stream=0):
    """[DDPM] eq. 14 and its gradient against the noise of (seed, stream), which is regenerated and never stored.

    eps_hat: (B, ...). seed, stream: those that made x_t in `q_sample_noise`.
    Returns L (a float), deps_hat (B, ...) float64. Raises as `eps_loss` and `normal` do.
    """
    return eps_loss_grad(eps_hat, normal(seed, np.shape(eps_hat), stream))


def guided_ddpm_step(xt, uncond, cond, w, t, s, seed, abar, variance="small", clip=None, stream=0):
    """[CFG] eq. 6 (w = 1 + its w), then [DDPM] algorithm 2 with its own noise:

        x_s = ddpm_step(x_t, uncond + w (cond - uncond), t, s, normal(seed, shape, stream), abar, variance, clip)

    xt, uncond, cond: (B, ...). w: a number or (B,). t, s: ints or (B,), 0 <= s < t <= T. seed, stream: ints in
    [0, 2**64).
    abar: (T + 1,). variance: "small" or "large". clip: > 0, or None.
    Returns x_s (B, ...) float64. Raises as `guide`, `ddpm_step` and `normal` do.
    """
    z = normal(seed, np.shape(xt), stream)
    return ddpm_step(xt, guide(uncond, cond, w), t, s, z, abar, variance, clip)


def guided_ddim_step(xt, uncond, cond, w, t, s, seed, eta, abar, clip=None, stream=0):
    """[CFG] eq. 6 (w = 1 + its w), then [DDIM] eq. 12 with its own noise:

        x_s = ddim_step(x_t, uncond + w (cond - uncond), t, s, normal(seed, shape, stream), eta, abar, clip)

    xt, uncond, cond: (B, ...). w: a number or (B,). t, s: ints or (B,), 0 <= s < t <= T. seed, stream: ints in
    [0, 2**64).
    eta: in [0, 1]. abar: (T + 1,). clip: > 0, or None.
    Returns x_s (B, ...) float64. Raises as `guide`, `ddim_step` and `normal` do.
    """
    z = normal(seed, np.shape(xt), stream)
    return ddim_step(xt, guide(uncond, cond, w), t, s, z, eta, abar, clip)


def guided_dpmpp_2m_step(xt, uncond, cond, w, x0_last, u, t, s, abar):
    """[CFG] eq. 6 (w = 1 + its w), then one step of [DPM-Solver++] algorithm 2, and the x0_hat that the next step
    needs:

        x0_hat = x0_from_eps(x_t, uncond + w (cond - uncond), t, abar)
        x_s = dpmpp_2m_step(x_t, x0_hat, x0_last, u, t, s, abar)

    xt, uncond, cond, x0_last: (B, ...). w: a number or (B,). u, t, s: ints or (B,), 0 <= s < t < u <= T. x0_last, u:
    the x0_hat that the step before returned and its t; both None at the first and at the last step. abar: (T + 1,).
    Returns x_s, x0_hat, each (B, ...) float64. Raises as `guide`, `x0_from_eps` and `dpmpp_2m_step` do.
    """
    x0_hat = x0_from_eps(xt, guide(uncond, cond, w), t, abar)
    return dpmpp_2m_step(xt, x0_hat, x0_last, u, t, s, abar), x0_hat


def guided_flow_step(xt, uncond, cond, w, t, s):
    """[CFG] eq. 6 on velocities, then Euler's step from t to s, [RF] algorithm 1:  x_s = x_t + (s - t) (uncond + w
    (cond - uncond)).

    xt, uncond, cond: (B, ...). w: a number or (B,). t, s: numbers or (B,), 0 <= s < t <= 1.
    Returns x_s (B, ...) float64.
    Raises ValueError where shapes differ or not 0 <= s < t <= 1.
    """
    xt, v = same_shape(xt=xt, velocity=guide(uncond, cond, w))
    t, s = per_example(t, xt, "t"), per_example(s, xt, "s")
    if not np.all((s >= 0) & (s < t) & (t <= 1)):
        raise ValueError(f"a step goes from t <= 1 to 0 <= s < t, got t = {t.ravel()} and s = {s.ravel()}")
    return xt + (s - t) * v


def heun_step(x, denoised, denoised_next, sigma, sigma_next):
    """[EDM] algorithm 1, lines 4 to 8, `ref.edm.heun_step`: both slopes in one pass.

    x, denoised, denoised_next: (B, ...). sigma, sigma_next: numbers or (B,), 0 < sigma_next < sigma.
    Returns x_next (B, ...) float64. Raises as `ref.edm.heun_step` does.
    """
    return edm.heun_step(x, denoised, denoised_next, sigma, sigma_next)


def adam_ema_step(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay):
    """[AdamW] algorithm 2, then the moving average of the new weights:  avg <- decay avg + (1 - decay) p.

    p, g, m, v, avg: one shape and dtype. The rest as in `adam_step` and `ema_step`.
    Returns p, m, v, avg as new arrays of that dtype. Raises as `adam_step` and `ema_step` do.
    """
    p, m, v = adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay)
    return p, m, v, ema_step(avg, p, decay)


def mlp_sample(params, xT, times, abar, eta=0.0, seed=0, stream=0, guidance=None, predict="eps", clip=None):
    """A whole trajectory, [DDIM] eq. 12 from each time to the next, of a net of `ref.nets.mlp` with its own noise:

        ddim(model, xT, times, noise, eta, abar, clip, predict),   noise_i = normal(seed, shape, stream + i)

    params: of `simple_mlp`, or of `residual`, which has classes. xT: (B, pixels). times: (n + 1,) ints, descending in
    [0, T]. abar: (T + 1,). eta: in [0, 1]. seed, stream: ints in [0, 2**64); streams go on from 0 past the last.
    guidance: for `residual`, None for no label, or (labels, w), or (labels, w, (low, high)): labels (B,), w of [CFG]
    eq. 6 in `guide`'s convention, a number or (B,), in the interval of `interval_weight`. predict: what the net
    predicts, "eps", "x0" or "v"; not eps where abar[T] = 0. clip: of x0_hat, > 0, or None.
    Returns x at the last time (B, pixels) float64.
    Raises ValueError for guidance of the net without classes, for another shape of it or another `predict`, and as
    `ddim` does.
    """
    if guidance is not None and ("class" not in params or len(guidance) not in (2, 3)):
        raise ValueError("guidance: expected None for a net without classes, else labels, w and perhaps an interval")
    labels, w, interval = (None, 1.0, None) if guidance is None else (*guidance, None)[:3]

    def net(x, t, label):
        rows = np.full(len(x), t)
        return simple_mlp(params, x, rows)[0] if label is None else residual(params, x, rows, label)[0]

    def model(x, t):
        uncond = net(x, t, np.full(len(x), len(params["class"]["w"]) - 1) if "class" in params else None)
        if guidance is None:
            return uncond
        return guide(uncond, net(x, t, labels), w if interval is None else interval_weight(w, t, *interval))

    eta, stream = number(eta, "eta"), integer(stream, "stream")
    noise = [normal(seed, np.shape(xT), (stream + i) % 2**64) for i in range(len(times) - 1)] if eta else None
    return ddim(model, xT, times, noise, eta, abar, clip, predict)


def mlp_train(params, data, steps, batch, lr, seed, abar, state=None, beta1=0.9, beta2=0.999, eps=1e-8,
              weight_decay=0.0, decay=0.0):
    """Training steps of `simple_mlp`, [DDPM] algorithm 1 with [AdamW] and a moving average, everything random from
    (seed, step):

        x0 = data[below(N)],  t = 1 + below(T),  x_t = q_sample_noise(x0, t)
        L = mean((simple_mlp(x_t, t) - eps)^2),  then adam_ema_step

    Step i draws from the streams "batch", "time" and "noise" of step i, so that it does not matter where a run begins.
    params: of `simple_mlp`. data: (N, pixels). steps, batch: ints >= 1. lr: float. seed: int in [0, 2**64). abar: (T +
    1,).
    state: None to begin, or what an earlier call returned. beta1, beta2, eps, weight_decay: as in `adam_step`. decay:
    of the average.
    Returns params, state (a dict: step, and m, v, average, each with the structure of params) and the losses (steps,)
    float64. No argument is changed; arrays keep the dtype of params.
    Raises ValueError for steps or batch < 1, and as the functions above do.
    """
    steps, batch = integers(steps=steps, batch=batch)
    if steps < 1 or batch < 1:
        raise ValueError(f"steps and batch: expected at least 1, got {steps} and {batch}")
    zeros = tree.zeros_like(params)
    state = {"step": 0, "m": zeros, "v": zeros, "average": params} if state is None else state
    m, v, average = state["m"], state["v"], state["average"]
    losses, dtype = np.zeros(steps), params["w1"].dtype
    for step in range(state["step"] + 1, state["step"] + steps + 1):
        # Draw a batch and its times, add the noise
        batch_stream, time_stream, noise_stream = (stream_of(what, step) for what in ("batch", "time", "noise"))
        x0 = data[below(seed, batch, len(data), batch_stream)]
        t = 1 + below(seed, batch, len(abar) - 1, time_stream)
        xt = q_sample_noise(x0, t, seed, abar, noise_stream).astype(dtype)
        # Loss and gradients
        eps_hat, cache = simple_mlp(params, xt, t)
        losses[step - state["step"] - 1], deps_hat = eps_loss_noise(eps_hat, seed, noise_stream)
        _, grads = simple_mlp_backward(deps_hat.astype(dtype), params, cache)
        # Adam and the moving average
        new = tree.map(lambda p, g, m, v, avg: adam_ema_step(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay,
                                                             decay),
                       params, grads, m, v, average)  # fmt: skip
        params, m, v, average = (tree.map(lambda parts: parts[i], new) for i in range(4))
    return params, {"step": state["step"] + steps, "m": m, "v": v, "average": average}, losses
