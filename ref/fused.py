"""The truth for each fused kernel: literal compositions of the equations, one pass over memory when fused.

The noise is made from (seed, stream) where it is needed, and never stored. Symbols as in `ref.diffusion`.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [CFG]   Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [AdamW] Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
"""
import numpy as np

from ref.diffusion import ddim_step, ddpm_step, eps_loss, eps_loss_backward, q_sample
from ref.guidance import guide
from ref.optim import adam_step, ema_step
from ref.philox import normal


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


def adam_ema_step(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay):
    """[AdamW] algorithm 2, then the moving average of the new weights:  avg <- decay avg + (1 - decay) p.

    p, g, m, v, avg: one shape and dtype. The rest as in `adam_step` and `ema_step`.
    Returns p, m, v, avg as new arrays of that dtype. Raises as `adam_step` and `ema_step` do.
    """
    p, m, v = adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay)
    return p, m, v, ema_step(avg, p, decay)
