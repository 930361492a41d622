"""Steps of the multistep solvers DPM-Solver++ and UniPC, by half the logarithm of the signal-to-noise ratio.

Everything here is float64. B examples first, then any data axes; `abar`, t, s and u as in `ref.diffusion`, where u is
the time of the step before. lambda = ln(sqrt(abar) / sqrt(1 - abar)).

Papers
    [DPM-Solver++]  Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022
    [UniPC]         Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models",
                    2023
"""
import math

import numpy as np

from ref.numerics import phi
from ref.shapes import at, float64, same_shape, step


def log_snr_step(abar_t, abar_s):
    """h = lambda_s - lambda_t, [DPM-Solver++] below eq. 8, where lambda = ln(sqrt(abar) / sqrt(1 - abar)), half the log
    of the SNR:

        h = ln(1 + (abar_s - abar_t) / abar_t) / 2 + ln(1 + (abar_s - abar_t) / (1 - abar_s)) / 2

    from the difference of the two abar, so that near neighbours lose no digits.
    abar_t: in [0, 1), any shape. abar_s: in (0, 1], at least abar_t, one that broadcasts with it.
    Returns h, float64; inf where abar_s = 1 or abar_t = 0.
    Raises ValueError where abar_t = 1, abar_s = 0 or not abar_t <= abar_s.
    """
    abar_t, abar_s = float64(abar_t), float64(abar_s)
    if not np.all((abar_t >= 0) & (abar_t < 1) & (abar_t <= abar_s) & (abar_s > 0) & (abar_s <= 1)):
        raise ValueError(f"abar: expected 0 <= abar[t] < 1 and 0 < abar[s] <= 1, at least abar[t], got "
                         f"{np.ravel(abar_t)} and {np.ravel(abar_s)}")
    with np.errstate(divide="ignore"):
        return 0.5 * (np.log1p((abar_s - abar_t) / abar_t) + np.log1p((abar_s - abar_t) / (1 - abar_s)))


def dpmpp_2m_step(xt, x0_hat, x0_last, u, t, s, abar):
    """One step of [DPM-Solver++] algorithm 2 from t to s < t, after a step from u > t, with `log_snr_step`:

        h = lambda_s - lambda_t,    r = (lambda_t - lambda_u) / h
        D = (1 + 1 / (2 r)) x0_hat - 1 / (2 r) x0_last
        x_s = sqrt(1 - abar_s) / sqrt(1 - abar_t) x_t - sqrt(abar_s) (e^-h - 1) D

    Without x0_last, or where a lambda is infinite (abar_s = 1, abar_t = 0, abar_u = 0), D = x0_hat: the first order,
    DDIM with eta = 0.

    xt, x0_hat, x0_last: (B, ...), the predictions at t and at u; x0_last and u may both be None. u, t, s: ints or (B,)
    ints, 0 <= s < t < u <= T. abar: (T + 1,), below 1 at t and u.
    Returns x_s (B, ...) float64.
    Raises ValueError where shapes differ, not s < t < u, abar[t] = 1 or abar[s] = 0; TypeError where a time is not an
    int.
    """
    xt, abar_t, abar_s, D = _extrapolated(xt, x0_hat, x0_last, u, t, s, abar)
    h = log_snr_step(abar_t, abar_s)
    return np.sqrt((1 - abar_s) / (1 - abar_t)) * xt - np.sqrt(abar_s) * np.expm1(-h) * D


def dpmpp_2m_sde_step(xt, x0_hat, x0_last, u, t, s, z, abar):
    """One step of SDE-DPM-Solver++(2M), [DPM-Solver++] appendix, with h, r and D of `dpmpp_2m_step`:

        x_s = sqrt(1 - abar_s) / sqrt(1 - abar_t) e^-h x_t + sqrt(abar_s) g D + sqrt(1 - abar_s) sqrt(g) z
        g   = 1 - e^-2h = (abar_s - abar_t) / (abar_s (1 - abar_t))

    Of the first order it is the ancestral step,
    `ref.diffusion.ddpm_step_x0` with the small variance. z is ignored where abar_s = 1.

    xt, x0_hat, x0_last, z: (B, ...). u, t, s, abar: as in `dpmpp_2m_step`.
    Returns x_s (B, ...) float64.
    Raises as `dpmpp_2m_step` does.
    """
    xt, z = same_shape(xt=xt, z=z)
    xt, abar_t, abar_s, D = _extrapolated(xt, x0_hat, x0_last, u, t, s, abar)
    growth = (abar_s - abar_t) / (abar_s * (1 - abar_t))
    mean = np.sqrt(abar_t / abar_s) * ((1 - abar_s) / (1 - abar_t)) * xt + np.sqrt(abar_s) * growth * D
    return mean + np.sqrt((1 - abar_s) * growth) * np.where(abar_s < 1, z, 0.0)


def unipc_step(xt, predictions, times, s, abar, end=None):
    """One step of [UniPC] from t = times[0] to s < t, in x0: UniP, or UniC with the prediction at s itself.

        h = lambda_s - lambda_t,   B(h) = e^-h - 1,   r_m = (lambda_m - lambda_t) / h,   D_m = x0_hat(m) - x0_hat(t)
        x_s = sqrt(1 - abar_s) / sqrt(1 - abar_t) x_t - sqrt(abar_s) ((e^-h - 1) x0_hat(t) + B(h) sum_m a_m / r_m D_m)

    The m are the other times, and s, where r = 1. B(h) is the paper's B_2, and the a_m solve R a = b, with `phi`:

        R_jm = r_m^(j-1),   b_j = j! phi_{j+1}(-h) / phi_1(-h),   j = 1, 2, ..

    A single a is 1/2, as in the authors' code. A time where lambda is infinite is left out. xt: (B, ...). predictions:
    [x0_hat (B, ...)] at the times. times: ints, ascending from t, those of the calls before. abar: (T + 1,), below 1 at
    these times. end: x0_hat at s, or None.
    Returns x_s (B, ...) float64.
    Raises ValueError where shapes differ, times do not ascend from t > s, abar[t] = 1 or abar[s] = 0.
    """
    if len(predictions) != len(times) or len(times) == 0:
        raise ValueError(f"predictions and times: expected as many, at least 1, got {len(predictions)}, {len(times)}")
    xt, x0_hat, *others = same_shape(xt=xt, **{f"predictions[{i}]": p for i, p in enumerate(predictions)},
                                     **({} if end is None else {"end": end}))
    abar_t, abar_s = step(abar, times[0], s, xt)
    h = log_snr_step(abar_t, abar_s)
    # First order
    gain = -np.sqrt(abar_s) * np.expm1(-h)
    x_s = np.sqrt((1 - abar_s) / (1 - abar_t)) * xt + gain * x0_hat
    if not others or h == np.inf:
        return x_s
    # The other predictions, as differences from the one at t
    r = [-log_snr_step(at(abar, m, xt, "times"), abar_t) / h for m in times[1:]] + ([] if end is None else [1.0])
    r, others = [r_m for r_m in r if r_m > -np.inf], [x0_m for r_m, x0_m in zip(r, others) if r_m > -np.inf]
    if not r:
        return x_s
    # Higher orders
    a = [0.5] if len(r) == 1 else np.linalg.solve(np.vander(r, increasing=True).T, [
        math.factorial(j) * phi(j + 1, -h) / phi(1, -h) for j in range(1, len(r) + 1)])
    return x_s + gain * sum(a_m / r_m * (x0_m - x0_hat) for a_m, r_m, x0_m in zip(a, r, others))


def _extrapolated(xt, x0_hat, x0_last, u, t, s, abar):
    """x_t, abar_t, abar_s, and D of `dpmpp_2m_step`, after the checks."""
    if (x0_last is None) != (u is None):
        raise ValueError("x0_last and u: expected both or neither")
    xt, x0_hat, x0_last = same_shape(xt=xt, x0_hat=x0_hat, x0_last=x0_hat if x0_last is None else x0_last)
    abar_t, abar_s = step(abar, t, s, xt)
    if u is None:
        return xt, abar_t, abar_s, x0_hat
    h, h_last = log_snr_step(abar_t, abar_s), log_snr_step(*step(abar, u, t, xt))
    half = np.where(h < np.inf, h / (2 * h_last), 0.0)  # 1 / (2 r)
    return xt, abar_t, abar_s, (1 + half) * x0_hat - half * np.where(half > 0, x0_last, 0.0)
