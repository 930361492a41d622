"""Mel spectra: the two scales in use, told apart by name, their filters, the logarithm, and the way back.

Everything here is float64. "slaney" is the scale of Slaney's Auditory Toolbox: linear below 1000 Hz, logarithmic above,
the default of librosa. "htk" is that of the HTK book: logarithmic everywhere, the default of torchaudio.

Papers
    [Slaney]  Slaney, "Auditory Toolbox", technical report 1998-010, 1998
    [HTK]     Young et al., "The HTK Book", version 3.4, 2006
    [FISTA]   Beck, Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems", 2009
"""
import math

import numpy as np

from ref.shapes import float64, integers, number, numbers, shaped

SCALES = ("slaney", "htk")
BREAK, SLOPE, STEP = 1000.0, 3 / 200, math.log(6.4) / 27  # of the scale of [Slaney]
WIDTH = 2595 / math.log(10)  # of that of [HTK], for natural logarithms


def hz_to_mel(f, scale="slaney"):
    """The mel scale. [HTK] eq. 5.13, and [Slaney]'s, which is linear up to 1000 Hz:

        m = 2595 log10(1 + f / 700)                                                       htk
        m = 3 f / 200  for f < 1000,   15 + 27 ln(f / 1000) / ln 6.4  from there on       slaney

    f: Hz >= 0, any shape. scale: "slaney" or "htk".
    Returns m float64.
    Raises ValueError for f below 0 or another scale.
    """
    f = _not_below_0(f, "f")
    if _named(scale) == "htk":
        return WIDTH * np.log1p(f / 700)
    return np.where(np.real(f) < BREAK, SLOPE * f, SLOPE * BREAK + np.log(np.maximum(f, BREAK) / BREAK) / STEP)[()]


def mel_to_hz(m, scale="slaney"):
    """The inverse of `hz_to_mel`. m: mels >= 0, any shape. scale: "slaney" or "htk". Returns f float64, in Hz. Raises
    ValueError for m below 0 or another scale."""
    m = _not_below_0(m, "m")
    if _named(scale) == "htk":
        return 700 * np.expm1(m / WIDTH)
    bend = SLOPE * BREAK
    return np.where(np.real(m) < bend, m / SLOPE, BREAK * np.exp(STEP * (np.maximum(m, bend) - bend)))[()]


def mel_filters(rate, n, bands, low=0.0, high=None, scale="slaney", norm="slaney"):
    """Triangles over the frequencies k rate / n of a spectrum, whose corners are evenly spaced on the mel scale, [HTK]
    section 5.6. With corners f_0 < ... < f_{bands + 1}, in Hz,

        W[b, k] = max(0, min((f - f_b) / (f_{b+1} - f_b), (f_{b+2} - f) / (f_{b+2} - f_{b+1}))),   f = k rate / n

    times 2 / (f_{b+2} - f_b) for the norm of [Slaney], with which each triangle has the area 1.

    rate: int, samples a second. n: int, the length of the window. bands: int. low, high: Hz; None is rate / 2. scale:
    "slaney" or "htk", where the corners are. norm: "slaney", or None for triangles of height 1, as [HTK] has them.
    Returns W (bands, n // 2 + 1) float64.
    Raises ValueError for sizes below 1, not 0 <= low < high <= rate / 2, another name, or a band without a frequency.
    """
    (rate, n, bands), low = integers(rate=rate, n=n, bands=bands), number(low, "low")
    top = rate / 2 if high is None else number(high, "high")
    if min(rate, n, bands) < 1:
        raise ValueError(f"rate, n, bands: expected at least 1, got {rate}, {n} and {bands}")
    if not 0 <= low < top <= rate / 2:
        raise ValueError(f"low, high: expected 0 <= low < high <= {rate / 2}, got {low} and {top}")
    if norm not in ("slaney", None):
        raise ValueError(f"norm: expected 'slaney' or None, got {norm!r}")
    corners = mel_to_hz(np.linspace(*(hz_to_mel(f, scale) for f in (low, top)), bands + 2), scale)
    left, peak, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]  # (bands, 1)
    f = rate * np.arange(n // 2 + 1) / n
    W = np.maximum(0, np.minimum((f - left) / (peak - left), (right - f) / (right - peak)))
    if empty := np.flatnonzero(W.max(axis=1) == 0).tolist():
        raise ValueError(f"bands: expected so few that each has a frequency out of {len(f)}, got none in {empty}")
    return W * (2 / (right - left)) if norm else W


def log_mel(y, filters, floor=1e-5):
    """ln(max(W y, floor)) of each frame; the floor, stated here, is another one in each public program.

    y: (B, F, N), magnitudes or powers, >= 0. filters: (bands, F), from `mel_filters`. floor: float > 0.
    Returns m (B, bands, N) float64.
    Raises ValueError where shapes do not fit or floor is not above 0.
    """
    return np.log(_floored(y, filters, floor)[0])


def log_mel_backward(dm, y, filters, floor=1e-5):
    """dy = W^T (dm / (W y)) where W y is above the floor, else 0. dm: as m there. y, filters, floor: as there; the
    filters are fixed. Returns dy (B, F, N) float64. Raises as `log_mel` does."""
    mel, above, filters = _floored(y, filters, floor)
    dm = shaped(dm, "dm", *mel.shape)
    return np.swapaxes(filters, 0, 1) @ np.where(above, dm / mel, 0)


def nonnegative_least_squares(A, b, steps=200):
    """min over s >= 0 of |A s - b|^2, for each column: accelerated projected gradient, [FISTA] eqs. 4.1 to 4.3 with the
    projection for its threshold, from s_0 = max(0, A^+ b):

        s_{k+1} = max(0, z_k - A^T (A z_k - b) / |A|^2),   z_{k+1} = s_{k+1} + (t_k - 1) / t_{k+1} (s_{k+1} - s_k)

    with t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2, t_0 = 1.

    A: (M, F). b: (..., M, N). steps: int >= 0.
    Returns s (..., F, N) float64.
    Raises ValueError where shapes do not fit or steps < 0.
    """
    A, b, steps = shaped(A, "A", "M", "F"), float64(b), *integers(steps=steps)
    if b.ndim < 2 or b.shape[-2] != len(A) or steps < 0:
        raise ValueError(f"b, steps: expected b (..., {len(A)}, N) and steps >= 0, got {b.shape} and {steps}")
    pace, t = 1 / max(np.linalg.norm(A, 2) ** 2, np.finfo(np.float64).tiny), 1.0  # of A = 0 the gradient is 0
    s = z = np.maximum(0, np.linalg.pinv(A) @ b)
    for _ in range(steps):
        s_next = np.maximum(0, z - pace * (A.T @ (A @ z - b)))
        t_next = (1 + math.sqrt(1 + 4 * t * t)) / 2
        z = s_next + (t - 1) / t_next * (s_next - s)
        s, t = s_next, t_next
    return s


def mel_inverse(m, filters, steps=200):
    """A spectrum with this log-mel spectrum, as near as can be: `nonnegative_least_squares` of W and e^m.

    m: (B, bands, N), from `log_mel`. filters: (bands, F). steps: int.
    Returns y (B, F, N) float64, >= 0.
    Raises as it does.
    """
    filters = shaped(filters, "filters", "bands", "F")
    return nonnegative_least_squares(filters, np.exp(shaped(m, "m", "B", len(filters), "N")), steps)


def _named(scale):
    if scale not in SCALES:
        raise ValueError(f"scale: expected one of {', '.join(SCALES)}, got {scale!r}")
    return scale


def _not_below_0(value, name):
    value = float64(value)
    if not np.all(np.real(value) >= 0):
        raise ValueError(f"{name}: expected values >= 0, got {value}")
    return value


def _floored(y, filters, floor):
    """max(W y, floor), where that is W y, and W."""
    filters, (floor,) = shaped(filters, "filters", "bands", "F"), numbers(floor=floor)
    y = shaped(y, "y", "B", filters.shape[1], "N")
    if not floor > 0:
        raise ValueError(f"floor: expected a number > 0, got {floor}")
    mel = filters @ y  # (B, bands, N)
    above = ~(np.real(mel) <= floor)  # NaN stays
    return np.where(above, mel, floor), above, filters
