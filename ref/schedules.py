"""Noise schedules: betas, alpha-bar, signal-to-noise ratio, and the times a sampler visits.

Time is the papers': t = 0 is data, t = T is noise. `betas` has T entries, betas[t - 1] = beta_t; `abar` has T + 1,
abar[0] = 1. So a step that ends at t = 0 needs no special case.

A schedule is computed once and everything follows from it, so most are computed in 50 digits, NumPy's arrays holding
Decimals, and rounded to float64 once.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [LDM]    Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022
    [iDDPM]  Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021
    [ADM]    Dhariwal, Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021
    [VDM]    Kingma et al., "Variational Diffusion Models", 2021
    [ZSNR]   Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024
    [EDM]    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
    [SD3]    Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024
"""
from decimal import localcontext

import numpy as np

from ref.shapes import DIGITS, decimals, float64, integer, number, step, unit_interval


def linear_betas(T=1000, start=1e-4, end=0.02, meant_for=None):
    """beta_1 .. beta_T equally spaced from start to end, [DDPM] section 4:

        beta_t = scale (start + (t - 1) / (T - 1) (end - start)),   scale = meant_for / T, else 1

    With `meant_for`, [ADM]'s code, abar_t depends on t / T alone, but for a part of order 1 / T. Without it fewer steps
    add less noise: with these ends abar_T is 4e-5 for T = 1000 and 0.36 for T = 100.
    T: int >= 1. start, end: variances in (0, 1). meant_for: the T that start and end are meant for, as 1000 is here, or
    None for T itself.
    Returns (T,) float64.
    Raises ValueError for T or meant_for < 1 or a beta outside (0, 1), as the last is for T <= 20 meant for 1000.
    """
    T, start, end = _ends(T, start, end, meant_for)
    with localcontext(DIGITS):
        return _spaced(start, end, T).astype(np.float64)


def scaled_linear_betas(T=1000, start=0.00085, end=0.012, meant_for=None):
    """sqrt(beta_t) equally spaced, so beta_t is a square: the schedule of [LDM]'s released code.

    T, start, end, meant_for: as in `linear_betas`.
    Returns (T,) float64.
    Raises ValueError for T or meant_for < 1 or a beta outside (0, 1).
    """
    T, start, end = _ends(T, start, end, meant_for)
    with localcontext(DIGITS):
        return (_spaced(np.sqrt(start), np.sqrt(end), T) ** 2).astype(np.float64)


def cosine_betas(T=1000, offset=0.008, max_beta=0.999):
    """[iDDPM] eq. 17:  f(u) = cos((u + offset) / (1 + offset) * pi / 2)^2,  beta_t = min(1 - f(t/T) / f((t-1)/T),
    max_beta).

    A difference of squared cosines is a product, cos(a)^2 - cos(b)^2 = sin(b - a) sin(a + b), and the sine of what an
    angle lacks to pi / 2 is its cosine: so nothing cancels at either end, and f(1) is 0.

    T: int >= 1. offset: in [0, 1e100], keeps beta_1 from vanishing. max_beta: in (0, 1]; the cap that [iDDPM] puts at
    the end.
    Returns (T,) float64.
    Raises ValueError for T < 1, another offset or max_beta outside (0, 1].
    """
    T, offset, max_beta = integer(T, "T"), number(offset, "offset"), number(max_beta, "max_beta")
    if T < 1:
        raise ValueError(f"T: expected at least 1, got {T}")
    if not 0 <= offset <= 1e100 or not 0 < max_beta <= 1:
        raise ValueError(f"expected 0 <= offset <= 1e100, 0 < max_beta <= 1, got offset={offset}, max_beta={max_beta}")
    s = np.arange(T)
    middle, quarter = s + 0.5, np.pi / 2 / (1 + offset)
    sine = 2 * np.sin(quarter * (middle / T + offset)) * np.sin(quarter * ((T - middle) / T))  # sin(a + b)
    return np.minimum(np.sin(quarter / T) * sine / np.sin(quarter * ((T - s) / T)) ** 2, max_beta)


def alpha_bar(betas):
    """[DDPM] below eq. 3:  abar_t = prod_{i=1..t} (1 - beta_i),  abar_0 = 1.

    betas: (T,) variances in [0, 1].
    Returns (T + 1,) float64, descending from 1.
    Raises ValueError for another shape or a beta outside [0, 1].
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or betas.size == 0:
        raise ValueError(f"betas: expected shape (T,) with T >= 1, got {betas.shape}")
    if not np.all((betas >= 0) & (betas <= 1)):
        raise ValueError(f"betas: expected values in [0, 1], got {betas.min()} to {betas.max()}")
    with localcontext(DIGITS):
        return np.append(1.0, np.cumprod(1 - decimals(betas)).astype(np.float64))


def transition(xs, t, s, abar):
    """q(x_t | x_s), one step of the fixed process, [DDPM] eq. 2 with s for t - 1. With alpha = abar_t / abar_s:

        mean     = sqrt(alpha) x_s
        variance = 1 - alpha                                                             "beta"

    Nothing in it is learned, and no data is needed; from s = 0 it is the distribution that `ref.diffusion.q_sample`
    draws from. The way back, `ref.diffusion.posterior`, needs x0.

    xs: (B, ...). t, s: ints or (B,) ints, 0 <= s < t <= T. abar: (T + 1,).
    Returns mean (B, ...) and variance (not a deviation), a float or (B,) as t and s are.
    Raises ValueError where not 0 <= s < t <= T.
    """
    xs = float64(xs)
    abar_t, abar_s = step(abar, t, s, xs)
    mean = np.sqrt(abar_t / abar_s) * xs
    variance = (abar_s - abar_t) / abar_s  # 1 - alpha would cancel between near times
    return mean, variance.reshape(np.broadcast_shapes(np.shape(t), np.shape(s)))[()]


def snr(abar):
    """Signal-to-noise ratio, [VDM] eq. 2 for the variance-preserving case:  SNR(t) = abar_t / (1 - abar_t).

    abar: any shape, values in [0, 1].
    Returns the same shape, float64; inf where abar = 1 (t = 0).
    Raises ValueError for a value outside [0, 1].
    """
    abar = unit_interval(abar, "abar")
    with np.errstate(divide="ignore"):
        return abar / (1 - abar)


def zero_terminal_snr(abar):
    """[ZSNR] algorithm 1: shift and scale sqrt(abar_1 .. abar_T) so that the last is exactly 0 and the first stays.

        sqrt(abar_t) <- (sqrt(abar_t) - sqrt(abar_T)) sqrt(abar_1) / (sqrt(abar_1) - sqrt(abar_T))

    abar: (T + 1,), abar[0] = 1, T >= 2, abar[1] > abar[T].
    Returns (T + 1,) float64; entry 0 stays 1. Where abar[T] = 0, x0 cannot be recovered from eps: predict v or x0.
    Raises ValueError for another shape, or where abar[1] = abar[T].
    """
    abar = np.asarray(abar, np.float64)
    if abar.ndim != 1 or abar.size < 3:
        raise ValueError(f"abar: expected shape (T + 1,) with T >= 2, got {abar.shape}")
    if not 1 >= abar[1] > abar[-1] >= 0:
        raise ValueError(f"abar: expected 1 >= abar[1] > abar[T] >= 0, got {abar[1]} and {abar[-1]}")
    with localcontext(DIGITS):
        root = np.sqrt(decimals(abar[1:]))
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        return np.append(1.0, (root**2).astype(np.float64))


def spaced_times(T, steps, spacing):
    """The times of a sampler with fewer steps than T, [ZSNR] table 2. The last entry is always 0.

        "leading"   arange(1, T + 1, floor(T / steps))         never reaches T unless steps = T
        "linspace"  round(linspace(1, T, steps))               both ends
        "trailing"  round(arange(T, 0, -T / steps))            always starts at T

    T, steps: ints, 1 <= steps <= T. spacing: one of the three names.
    Returns (steps + 1,) int64, strictly descending; a sampler goes from times[i] to times[i + 1].
    Raises ValueError for steps out of range or an unknown spacing.
    """
    T, steps = integer(T, "T"), integer(steps, "steps")
    if not 1 <= steps <= T:
        raise ValueError(f"steps: expected 1 <= steps <= T = {T}, got {steps}")
    if spacing == "leading":
        times = np.arange(1, T + 1, T // steps)[:steps][::-1]
    elif spacing == "linspace":
        times = np.round(np.linspace(0, T - 1, steps))[::-1] + 1  # halves go to even as counted from 0
    elif spacing == "trailing":
        times = np.round(np.arange(T, 0, -T / steps)[:steps])
    else:
        raise ValueError(f'spacing: expected "leading", "linspace" or "trailing", got {spacing!r}')
    return np.append(times, 0).astype(np.int64)


def karras_sigmas(steps, sigma_min=0.002, sigma_max=80.0, rho=7.0):
    """[EDM] eq. 5:  sigma_i = (sigma_max^(1/rho) + i / (steps - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,
    sigma_steps = 0.

    steps: int >= 1; with 1, sigma_max and 0. sigma_min, sigma_max: deviations, 0 < sigma_min < sigma_max < inf. rho: in
    [1e-6, 1e6].
    Returns (steps + 1,) float64, strictly descending, exactly from sigma_max and by sigma_min to 0; a sampler goes from
    sigmas[i] to sigmas[i + 1].
    Raises ValueError for steps < 1, another rho or not 0 < sigma_min < sigma_max < inf.
    """
    steps, rho = integer(steps, "steps"), number(rho, "rho")
    sigma_min, sigma_max = number(sigma_min, "sigma_min"), number(sigma_max, "sigma_max")
    if steps < 1 or not 1e-6 <= rho <= 1e6 or not 0 < sigma_min < sigma_max < np.inf:
        raise ValueError(f"expected steps >= 1, 0 < sigma_min < sigma_max < inf and 1e-6 <= rho <= 1e6, got {steps}, "
                         f"{sigma_min}, {sigma_max}, {rho}")
    with localcontext(DIGITS):
        low, high, rho = decimals(sigma_min), decimals(sigma_max), decimals(rho)
        return np.append((_spaced(high ** (1 / rho), low ** (1 / rho), steps) ** rho).astype(np.float64), 0.0)


def flow_times(steps, shift=1.0):
    """The times of a flow's sampler: equally spaced from 1 to 0, then shifted once, [SD3] eq. 23,
    `ref.flow.shift_times` of t = i / steps before that is rounded:  t' = shift i / ((steps - i) + shift i).

    steps: int >= 1. shift: in (0, 1e300]; 1 leaves them equally spaced.
    Returns (steps + 1,) float64, strictly descending from 1 to 0.
    Raises ValueError for steps < 1 or another shift.
    """
    steps, shift = integer(steps, "steps"), number(shift, "shift")
    if steps < 1 or not 0 < shift <= 1e300:
        raise ValueError(f"steps, shift: expected steps >= 1 and 0 < shift <= 1e300, got {steps} and {shift}")
    i = np.arange(steps, -1, -1)
    return shift * i / ((steps - i) + shift * i)


def time_from_index(index):
    """The time of an entry of `betas`, or of an array that counts from 0 as most code does:  t = index + 1.

    index: int or ints >= 0. Returns an int, or int64 of the same shape. `index_from_time` is the inverse. Raises
    ValueError for index < 0, TypeError for what is no int.
    """
    index = _ints(index, "index")
    if np.any(np.less(index, 0)):
        raise ValueError(f"index: expected index >= 0, since the first entry is 0, got {index}")
    return index + 1


def index_from_time(t):
    """The inverse of `time_from_index`:  index = t - 1. t: int or ints >= 1. Returns an int, or int64 of that shape.
    Raises ValueError for t < 1, TypeError for what is no int."""
    t = _ints(t, "t")
    if np.any(np.less(t, 1)):
        raise ValueError(f"t: expected t >= 1, since t = 0 is the data and has no index, got {t}")
    return t - 1


def _spaced(start, end, n):
    """n equally spaced numbers from start to end, or start alone. start, end: Decimals. n: int."""
    steps = max(n - 1, 1)
    return (start * (steps - np.arange(n)) + end * np.arange(n)) / steps


def _ints(value, name):
    """value as an int, or as int64, in which adding 1 does not wrap round."""
    if np.ndim(value) == 0:
        return integer(value, name)
    value = np.asarray(value)
    if value.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected ints, got {value.dtype}")
    return value.astype(np.int64)


def _ends(T, start, end, meant_for):
    """T, and the first and the last beta of T steps as Decimals, after the checks."""
    T, start, end = integer(T, "T"), number(start, "start"), number(end, "end")
    meant_for = T if meant_for is None else integer(meant_for, "meant_for")
    if T < 1 or meant_for < 1:
        raise ValueError(f"T, meant_for: expected at least 1, got {T} and {meant_for}")
    with localcontext(DIGITS):
        ends = (decimals([start, end]) * meant_for / T).tolist() if 0 < start < 1 and 0 < end < 1 else [start, end]
    if not (0 < ends[0] < 1 and 0 < ends[1] < 1):
        raise ValueError(f"start, end: expected variances in (0, 1), got {float(ends[0])} and {float(ends[1])}" + (
                         f", that is {start} and {end} times meant_for / T = {meant_for} / {T}" * (meant_for != T)))
    return T, *ends
