"""Consistency models: a network that goes from any noise level to the data in one call, and the two ways to train it.

Noise levels are deviations, x_sigma = x0 + sigma eps, from sigma_min (data) to sigma_max; a pair of neighbours on a
descending grid is sigma_t > sigma_s, the paper's t_{n+1} and t_n. float64, B examples first. `f(x, sigma) -> x0_hat` is
the student, `denoise(x, sigma) -> x0_hat` a trained diffusion model.

Papers
    [CM]   Song, Dhariwal, Chen, Sutskever, "Consistency Models", 2023
    [iCT]  Song, Dhariwal, "Improved Techniques for Training Consistency Models", 2024
    [EDM]  Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
"""
import math
from decimal import Decimal, localcontext

import numpy as np

from ref.edm import heun_step
from ref.numerics import norm
from ref.shapes import DIGITS, decimals, integer, number, per_example, same_shape


def boundary_scalings(sigma, sigma_min=0.002, sigma_data=0.5):
    """f(x, sigma) = c_skip x + c_out F(x, sigma), with f(x, sigma_min) = x whatever F is, [CM] eq. 5 and appendix C:

        c_skip = sigma_data^2 / ((sigma - sigma_min)^2 + sigma_data^2)
        c_out  = sigma_data (sigma - sigma_min) / sqrt(sigma_data^2 + sigma^2)

    sigma: >= 0, any shape; at inf they are 0 and sigma_data. sigma_min: in [0, inf). sigma_data: in (0, inf), the
    deviation of the data.
    Returns c_skip, c_out, each of the shape of sigma, float64; exactly 1 and 0 at sigma_min.
    Raises ValueError for a negative sigma, or another sigma_min or sigma_data.
    """
    sigma = np.asarray(sigma, np.float64)
    sigma_min, sigma_data = number(sigma_min, "sigma_min"), number(sigma_data, "sigma_data")
    if not np.all(sigma >= 0) or not 0 <= sigma_min < np.inf or not 0 < sigma_data < np.inf:
        raise ValueError(f"expected sigma >= 0, 0 <= sigma_min < inf, 0 < sigma_data < inf, got {sigma}, {sigma_min} "
                         f"and {sigma_data}")
    above, root = sigma - sigma_min, np.hypot(sigma_data, sigma)  # no square overflows
    share = np.divide(above, root, out=np.ones(sigma.shape), where=root < np.inf)
    return (sigma_data / np.hypot(above, sigma_data)) ** 2, (sigma_data * share)[()]


def pseudo_huber_loss(a, b, c):
    """[iCT] section 3.3:  L = mean over the examples of sqrt(|a - b|^2 + c^2) - c, with |.| the norm over all axes but
    the first.

    a, b: (B, ...), B >= 1. c: > 0; 0.00054 sqrt(D) for D elements in the paper. The square of small distances over 2 c,
    the size of large ones.
    Returns L, a float.
    Raises ValueError where shapes differ, there is no example or c <= 0.
    """
    a, b = same_shape(a=a, b=b)
    return np.mean(_pseudo_huber(a, b, c)[0])


def pseudo_huber_loss_backward(dloss, a, b, c):
    """Gradients of `pseudo_huber_loss`:  da = (a - b) / sqrt(|a - b|^2 + c^2) / B dloss,  db = -da.

    dloss: float. a, b, c: as in `pseudo_huber_loss`.
    Returns da, db, each (B, ...) float64.
    Raises as `pseudo_huber_loss` does.
    """
    a, b = same_shape(a=a, b=b)
    root = per_example(_pseudo_huber(a, b, c)[1], a, "root")
    da = number(dloss, "dloss") / len(a) * ((a - b) / root)
    return da, -da


def consistency_loss(student, target, sigma_t, sigma_s, c):
    """[CM] eq. 10 with the metric of [iCT] section 3.3 and the weight of its section 3.1, the nearer the pair the
    heavier:

        L = mean over the examples of (sqrt(|student - target|^2 + c^2) - c) / (sigma_t - sigma_s)

    student: f(x_t, sigma_t), (B, ...). target: the teacher's f at (x_s, sigma_s), (B, ...). sigma_t, sigma_s: one or
    (B,), sigma_t > sigma_s >= 0. c: as in `pseudo_huber_loss`.
    Returns L, a float.
    Raises ValueError where shapes differ, there is no example, not sigma_t > sigma_s >= 0 or c <= 0.
    """
    student, target = same_shape(student=student, target=target)
    sigma_t, sigma_s = _pair(sigma_t, sigma_s, student)
    return np.mean(_pseudo_huber(student, target, c)[0] / np.ravel(sigma_t - sigma_s))


def consistency_loss_backward(dloss, student, target, sigma_t, sigma_s, c):
    """Gradient of `consistency_loss` in the student's output alone, since the teacher is fixed ([CM] algorithms 2 and
    3):

        dstudent = (student - target) / sqrt(|student - target|^2 + c^2) / (sigma_t - sigma_s) / B dloss

    dloss: float. student, target, sigma_t, sigma_s, c: as in `consistency_loss`.
    Returns dstudent (B, ...) float64.
    Raises as `consistency_loss` does.
    """
    student, target = same_shape(student=student, target=target)
    sigma_t, sigma_s = _pair(sigma_t, sigma_s, student)
    return pseudo_huber_loss_backward(dloss, student, target, c)[0] / (sigma_t - sigma_s)


def training_pair(x0, eps, sigma_t, sigma_s):
    """[CM] algorithm 3:  x_t = x0 + sigma_t eps,  x_s = x0 + sigma_s eps, one noise for both.

    x0, eps: (B, ...). sigma_t, sigma_s: one or (B,), sigma_t > sigma_s >= 0.
    Returns x_t, the student's input, and x_s, the teacher's, each (B, ...) float64.
    Raises ValueError where shapes differ or not sigma_t > sigma_s >= 0.
    """
    x0, eps = same_shape(x0=x0, eps=eps)
    sigma_t, sigma_s = _pair(sigma_t, sigma_s, x0)
    return x0 + sigma_t * eps, x0 + sigma_s * eps


def distillation_pair(denoise, x0, eps, sigma_t, sigma_s):
    """[CM] algorithm 2:  x_t = x0 + sigma_t eps, and x_s from it by one Heun step of the diffusion model's ODE, [EDM]
    algorithm 1:

        x' = x_t + (sigma_s - sigma_t) (x_t - denoise(x_t, sigma_t)) / sigma_t
        x_s = heun_step(x_t, denoise(x_t, sigma_t), denoise(x', sigma_s), sigma_t, sigma_s)

    denoise: callable (x, sigma) -> x0_hat (B, ...); sigma is sigma_t or sigma_s, in float64. x0, eps: (B, ...).
    sigma_t, sigma_s: one or (B,), sigma_t > sigma_s > 0.
    Returns x_t, x_s, each (B, ...) float64.
    Raises ValueError where shapes differ or not sigma_t > sigma_s > 0.
    """
    x0, eps = same_shape(x0=x0, eps=eps)
    t, s = _pair(sigma_t, sigma_s, x0)
    if not np.all(s > 0):
        raise ValueError(f"sigma_s: expected positive numbers, since a Heun step divides by it, got {sigma_s}")
    sigma_t, sigma_s = _float64s(sigma_t, sigma_s)
    # Euler step
    xt = x0 + t * eps
    xt, denoised = same_shape(xt=xt, denoised=denoise(xt, sigma_t))
    x_euler = xt + (s - t) * (xt - denoised) / t
    # Second-order correction
    return xt, heun_step(xt, denoised, denoise(x_euler, sigma_s), sigma_t, sigma_s)


def training_step(f, teacher, x0, eps, sigma_t, sigma_s, c):
    """Loss and gradient of consistency training, [CM] algorithm 3:  `consistency_loss` of f(x_t, sigma_t) and
    teacher(x_s, sigma_s) on the points of `training_pair`.

    f, teacher: callables (x, sigma) -> x0_hat (B, ...); the teacher has f's own weights ([iCT] section 3.2) or their
    moving average. f keeps what its backward needs in addition to dstudent. x0, eps, sigma_t, sigma_s: as in
    `training_pair`.
    c: as in `pseudo_huber_loss`.
    Returns L (a float) and dstudent (B, ...), its gradient in the output of f; through the teacher none goes.
    Raises as `training_pair` and `consistency_loss` do.
    """
    sigma_t, sigma_s = _float64s(sigma_t, sigma_s)
    xt, xs = training_pair(x0, eps, sigma_t, sigma_s)
    student, target = f(xt, sigma_t), teacher(xs, sigma_s)
    gradient = consistency_loss_backward(1.0, student, target, sigma_t, sigma_s, c)
    return consistency_loss(student, target, sigma_t, sigma_s, c), gradient


def distillation_step(f, teacher, denoise, x0, eps, sigma_t, sigma_s, c):
    """Loss and gradient of consistency distillation, [CM] algorithm 2: as `training_step`, on the points of
    `distillation_pair`.

    f, teacher, c: as in `training_step`. denoise, x0, eps, sigma_t, sigma_s: as in `distillation_pair`.
    Returns L (a float) and dstudent (B, ...), as `training_step` does.
    Raises as `distillation_pair` and `consistency_loss` do.
    """
    sigma_t, sigma_s = _float64s(sigma_t, sigma_s)
    xt, xs = distillation_pair(denoise, x0, eps, sigma_t, sigma_s)
    student, target = f(xt, sigma_t), teacher(xs, sigma_s)
    gradient = consistency_loss_backward(1.0, student, target, sigma_t, sigma_s, c)
    return consistency_loss(student, target, sigma_t, sigma_s, c), gradient


def lognormal_sigma_weights(sigmas, mean=-1.1, std=2.0):
    """How often to draw each pair of neighbours, [iCT] section 3.5: the probability of the interval under a log-normal
    sigma:

        p_i ~ erf(u_i) - erf(u_{i+1}),   u_i = (ln sigma_i - mean) / (sqrt(2) std),   scaled to add to 1

    sigmas: (n + 1,), positive, descending, n >= 1: `karras_sigmas` without its last 0. mean, std > 0: of ln sigma.
    Returns p (n,) float64, of the pairs (sigma_t, sigma_s) = (sigmas[i], sigmas[i + 1]).
    Raises ValueError for another shape, sigmas that do not descend or reach 0, std <= 0, or where all p are 0.
    """
    sigmas = np.asarray(sigmas, np.float64)
    if sigmas.ndim != 1 or sigmas.size < 2 or not np.all(np.diff(sigmas) < 0) or not sigmas[-1] > 0:
        raise ValueError(f"sigmas: expected shape (n + 1,) with n >= 1, positive and descending, got {sigmas}")
    mean, std = number(mean, "mean"), number(std, "std")
    if not (np.isfinite(mean) and 0 < std < np.inf):
        raise ValueError(f"mean, std: expected finite numbers, std positive, got {mean} and {std}")
    with localcontext(DIGITS):  # near sigmas have near erf, and both are near 1 in the tails
        log_sigma = np.array([sigma.ln() for sigma in decimals(sigmas)])
        p = -np.diff([_erf(u) for u in (log_sigma - decimals(mean)) / (np.sqrt(decimals(2)) * decimals(std))])
        if not p.sum() > 0:
            raise ValueError(f"mean, std: expected some sigma within 15 deviations, got {mean} and {std}")
        return (p / p.sum()).astype(np.float64)


def discretization_steps(k, K, s0=10, s1=1280):
    """How many noise levels the grid has at step k of K of the training, [iCT] section 3.4: doubled at equal intervals.

        N(k) = min(s0 2^floor(k / K'), s1) + 1,   K' = floor(K / (log2 floor(s1 / s0) + 1))

    k, K: ints, 0 <= k < K. s0, s1: ints, 1 <= s0 <= s1; K has a step at least for each doubling.
    Returns N, an int: N - 1 pairs of neighbours.
    Raises ValueError for k outside [0, K), not 1 <= s0 <= s1, or K too short for the doublings.
    """
    k, K, s0, s1 = integer(k, "k"), integer(K, "K"), integer(s0, "s0"), integer(s1, "s1")
    if not 0 <= k < K or not 1 <= s0 <= s1:
        raise ValueError(f"expected 0 <= k < K and 1 <= s0 <= s1, got k={k}, K={K}, s0={s0}, s1={s1}")
    interval = math.floor(K / (math.log2(s1 // s0) + 1))
    if interval < 1:
        raise ValueError(f"K: expected at least {math.log2(s1 // s0) + 1:g} steps for s0={s0}, s1={s1}, got {K}")
    return min(s0 * 2 ** (k // interval), s1) + 1


def _pseudo_huber(a, b, c):
    """sqrt(|a - b|^2 + c^2) - c of each example (B,), without the cancellation of a small distance; and the root."""
    c = number(c, "c")
    if not c > 0:
        raise ValueError(f"c: expected a positive number, got {c}")
    if a.ndim == 0 or len(a) == 0:
        raise ValueError(f"a and b: expected shape (B, ...) with at least one example, got {a.shape}")
    d = (a - b).reshape(len(a), -1)
    distance, root = norm(d), norm(np.concatenate([d, np.full((len(a), 1), c)], axis=1))
    return distance * (distance / (root + c)), root


def _erf(u):
    """A multiple of erf(u), 2 / sqrt(pi) left out:  e^(-u^2) u sum_n (2 u^2)^n / (1 3 .. (2 n + 1)). u: Decimal."""
    u = max(min(u, Decimal(11)), Decimal(-11))  # beyond it the digits of 1 - erf run out
    term = total = u
    n = 0
    while total + term != total:
        n += 1
        term *= 2 * u * u / (2 * n + 1)
        total += term
    return total * (-u * u).exp()


def _float64s(*levels):
    """Levels in which a model can compute: numbers of NumPy's small types would overflow."""
    return [np.asarray(level, np.float64)[()] for level in levels]


def _pair(sigma_t, sigma_s, x):
    """The two noise levels, each shaped to multiply x (B, ...)."""
    sigmas = (("sigma_t", sigma_t), ("sigma_s", sigma_s))
    levels = [per_example(np.asarray(sigma, np.float64), x, name) for name, sigma in sigmas]
    if not np.all((levels[0] > levels[1]) & (levels[1] >= 0)):
        raise ValueError(f"expected sigma_t > sigma_s >= 0, got {sigma_t} and {sigma_s}")
    return levels
