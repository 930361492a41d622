"""The truth for each fused kernel: literal compositions of the equations, one pass over memory when fused.

The noise is made from (seed, stream) where it is needed, and never stored. Symbols as in `ref.diffusion`.

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

from ref.diffusion import _column, _same_shape, ddim_step, ddpm_step, eps_loss, eps_loss_backward, q_sample, x0_from_eps
from ref.guidance import guide
from ref.optim import adam_step, ema_step
from ref.philox import normal
from ref.samplers import dpmpp_2m_step


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
    """[DDPM] eq. 14 and its gradient against the noise of (seed, stream), which is made again and never stored.

    eps_hat: (B, ...). seed, stream: those that made x_t in `q_sample_noise`.
    Returns L (a float), deps_hat (B, ...) float64. Raises as `eps_loss` and `normal` do.
    """
    return eps_loss_grad(eps_hat, normal(seed, np.shape(eps_hat), stream))


def guided_ddpm_step(xt, uncond, cond, w, t, s, seed, abar, variance="small", clip=None, stream=0):
    """[CFG] eq. 6 (w = 1 + its w), then [DDPM] algorithm 2 with its own noise:

        x_s = ddpm_step(x_t, uncond + w (cond - uncond), t, s, normal(seed, shape, stream), abar, variance, clip)

    xt, uncond, cond: (B, ...). w: float. t, s: ints or (B,) ints, 0 <= s < t <= T. seed, stream: ints in [0, 2**64).
    abar: (T + 1,). variance: "small" or "large". clip: > 0, or None.
    Returns x_s (B, ...) float64. Raises as `guide`, `ddpm_step` and `normal` do.
    """
    z = normal(seed, np.shape(xt), stream)
    return ddpm_step(xt, guide(uncond, cond, w), t, s, z, abar, variance, clip)


def guided_ddim_step(xt, uncond, cond, w, t, s, seed, eta, abar, clip=None, stream=0):
    """[CFG] eq. 6 (w = 1 + its w), then [DDIM] eq. 12 with its own noise:

        x_s = ddim_step(x_t, uncond + w (cond - uncond), t, s, normal(seed, shape, stream), eta, abar, clip)

    xt, uncond, cond: (B, ...). w: float. t, s: ints or (B,) ints, 0 <= s < t <= T. seed, stream: ints in [0, 2**64).
    eta: in [0, 1]. abar: (T + 1,). clip: > 0, or None.
    Returns x_s (B, ...) float64. Raises as `guide`, `ddim_step` and `normal` do.
    """
    z = normal(seed, np.shape(xt), stream)
    return ddim_step(xt, guide(uncond, cond, w), t, s, z, eta, abar, clip)


def guided_dpmpp_2m_step(xt, uncond, cond, w, x0_last, u, t, s, abar):
    """[CFG] eq. 6 (w = 1 + its w), then one step of [DPM-Solver++] algorithm 2, and what the next step needs of this one:

        x0_hat = x0_from_eps(x_t, uncond + w (cond - uncond), t, abar),   x_s = dpmpp_2m_step(x_t, x0_hat, x0_last, u, t, s, abar)

    xt, uncond, cond, x0_last: (B, ...). w: float. u, t, s: ints or (B,) ints, 0 <= s < t < u <= T. x0_last, u: the x0_hat
    that the step before returned and its t; both None at the first and at the last step. abar: (T + 1,).
    Returns x_s, x0_hat, each (B, ...) float64. Raises as `guide`, `x0_from_eps` and `dpmpp_2m_step` do.
    """
    x0_hat = x0_from_eps(xt, guide(uncond, cond, w), t, abar)
    return dpmpp_2m_step(xt, x0_hat, x0_last, u, t, s, abar), x0_hat


def guided_flow_step(xt, uncond, cond, w, t, s):
    """[CFG] eq. 6 on velocities, then Euler's step from t to s, [RF] algorithm 1:  x_s = x_t + (s - t) (uncond + w (cond - uncond)).

    xt, uncond, cond: (B, ...). w: float. t, s: numbers or (B,), 0 <= s < t <= 1.
    Returns x_s (B, ...) float64.
    Raises ValueError where shapes differ or not 0 <= s < t <= 1.
    """
    xt, v = _same_shape(xt=xt, velocity=guide(uncond, cond, w))
    t, s = _column(t, xt, "t"), _column(s, xt, "s")
    if not np.all((s >= 0) & (s < t) & (t <= 1)):
        raise ValueError(f"a step goes from t <= 1 to 0 <= s < t, got t = {t.ravel()} and s = {s.ravel()}")
    return xt + (s - t) * v


def heun_step(x, denoised, denoised_next, sigma, sigma_next):
    """The corrected step of [EDM] algorithm 1, lines 4 to 8, from the two predictions of x0 that it makes:

        d = (x - denoised) / sigma,   x' = x + (sigma_next - sigma) d,   d' = (x' - denoised_next) / sigma_next
        x_next = x + (sigma_next - sigma) (d + d') / 2

    x, denoised: (B, ...), at sigma. denoised_next: (B, ...), the prediction at x' and sigma_next. sigma, sigma_next: numbers or (B,),
    0 < sigma_next < sigma.
    Returns x_next (B, ...) float64.
    Raises ValueError where shapes differ or not 0 < sigma_next < sigma.
    """
    x, denoised, denoised_next = _same_shape(x=x, denoised=denoised, denoised_next=denoised_next)
    sigma, sigma_next = _column(sigma, x, "sigma"), _column(sigma_next, x, "sigma_next")
    if not np.all((sigma_next > 0) & (sigma_next < sigma) & (sigma < np.inf)):
        raise ValueError(f"expected 0 < sigma_next < sigma, got sigma = {sigma.ravel()} and sigma_next = {sigma_next.ravel()}")
    d = (x - denoised) / sigma
    d_next = (x + (sigma_next - sigma) * d - denoised_next) / sigma_next
    return x + (sigma_next - sigma) * (d + d_next) / 2


def adam_ema_step(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay):
    """[AdamW] algorithm 2, then the moving average of the new weights:  avg <- decay avg + (1 - decay) p.

    p, g, m, v, avg: one shape and dtype. The rest as in `adam_step` and `ema_step`.
    Returns p, m, v, avg as new arrays of that dtype. Raises as `adam_step` and `ema_step` do.
    """
    p, m, v = adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay)
    return p, m, v, ema_step(avg, p, decay)
