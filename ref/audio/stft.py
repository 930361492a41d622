"""The short-time Fourier transform, its inverse, and sound from magnitudes alone; each next to its gradient.

Everything here is float64. x (B, L) is sound, n the length of the window, F = n // 2 + 1 frequencies, N frames. A frame
is centred: n // 2 zeros stand before and after the sound, so that N = 1 + (L + 2 (n // 2) - n) // hop. A spectrum S (B,
F, N, 2) has the real and the imaginary part on its last axis; gradients are those of real numbers.

Papers
    [GL]   Griffin, Lim, "Signal Estimation from Modified Short-Time Fourier Transform", 1984
    [FGL]  Perraudin, Balazs, Sondergaard, "A Fast Griffin-Lim Algorithm", 2013
    [DSP]  Oppenheim, Schafer, "Discrete-Time Signal Processing", 3rd edition, 2010
"""
import numpy as np

from ref.shapes import integer, number, shaped


def hann(n):
    """The periodic Hann window, [DSP] eq. 7.60 with n for M:  w_i = (1 - cos(2 pi i / n)) / 2 = sin^2(pi i / n). The
    symmetric one has n - 1 for n, and its shifts do not add to a constant.

    n: int >= 1.
    Returns w (n,) float64.
    Raises ValueError for n < 1, TypeError for what is no int.
    """
    n = integer(n, "n")
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
    return np.sin(np.pi * np.arange(n) / n) ** 2


def stft(x, window, hop):
    """The spectrum of each frame, [GL] eq. 1 with time counted from the frame's start, on the sound between n // 2
    zeros on either side:

        S[k, m] = sum_i w_i x[m hop + i - n // 2] e^(-2 pi sqrt(-1) k i / n)

    x: (B, L). window: (n,). hop: int >= 1.
    Returns S (B, F, N, 2) float64.
    Raises ValueError where shapes do not fit, hop < 1, or the sound is empty.
    """
    x, window, hop = _sound(x, window, hop)
    frames = _frames(x, len(window), hop) * window  # (B, N, n)
    return _parts(lambda a: _pair(np.fft.rfft(a)), frames).swapaxes(1, 2)


def stft_backward(dS, x, window, hop):
    """Gradient of `stft` in the sound, its adjoint: with c_k = 1 at 0 and at n / 2, else 2,

        dx = overlap-add of w irfft(n dS / c)

    dS: as S there. x, window, hop: as there; the window is fixed.
    Returns dx (B, L) float64.
    Raises as `stft` does.
    """
    x, window, hop = _sound(x, window, hop)
    n, (B, L) = len(window), x.shape
    dS = shaped(dS, "dS", B, n // 2 + 1, _count(L, n, hop), 2).swapaxes(1, 2)
    frames = _irfft(n * dS / _sides(n)[:, None], n)
    return _overlap_add(frames * window, hop, L)


def istft(S, window, hop, length):
    """The sound whose spectrum is nearest to S in the least squares of [GL] eq. 6: weighted overlap-add,

        x = overlap-add of w irfft(S)  /  overlap-add of w^2

    It is the inverse of `stft`, and of what is no spectrum of a sound the nearest one's.

    S: (B, F, N, 2). window: (n,) with n // 2 + 1 = F. hop, length: ints, of the sound.
    Returns x (B, length) float64.
    Raises ValueError where shapes do not fit, or where the squares of the shifted windows add up to 0 at some sample,
    or nearly: no inverse exists.
    """
    S, window, hop, weight = _spectrum(S, window, hop, length)
    frames = _irfft(S.swapaxes(1, 2), len(window))  # (B, N, n)
    return _overlap_add(frames * window, hop, length) / weight


def istft_backward(dx, S, window, hop, length):
    """Gradient of `istft` in the spectrum, its adjoint:  dS = c / n rfft(w frames of (dx / overlap-add of w^2)), with c
    as in `stft_backward`.

    dx: (B, length). S, window, hop, length: as there; the window is fixed.
    Returns dS (B, F, N, 2) float64.
    Raises as `istft` does.
    """
    S, window, hop, weight = _spectrum(S, window, hop, length)
    n = len(window)
    frames = _frames(shaped(dx, "dx", len(S), length) / weight, n, hop) * window
    return (_pair(np.fft.rfft(frames)) * _sides(n)[:, None] / n).swapaxes(1, 2)


def magnitude(S, power=1):
    """|S|^power, [GL] section II: power 1 is the magnitude, 2 the power spectrum.

    S: (..., 2). power: 1 or 2.
    Returns y (...) float64.
    Raises ValueError for another power or last axis.
    """
    S, power = _complex(S), _power(power)
    square = (S * S).sum(axis=-1)
    return square if power == 2 else np.sqrt(square)


def magnitude_backward(dy, S, power=1):
    """dS = dy S / |S|, and 0 where S is 0; with power 2,  dS = 2 dy S.

    dy: as y there. S, power: as there.
    Returns dS (..., 2) float64.
    Raises as `magnitude` does.
    """
    S, power = _complex(S), _power(power)
    dy = shaped(dy, "dy", *S.shape[:-1])[..., None]
    return 2 * dy * S if power == 2 else dy * _unit(S, 0.0)


def griffin_lim_step(S, y, window, hop, length):
    """One iteration, [GL] section III: the magnitudes replaced, then the nearest spectrum of a sound,

        S_next = STFT(ISTFT(y S / |S|))

    The distance of |S| from y, over all n frequencies, never grows; S / |S| is 1 where S is 0.

    S: (B, F, N, 2). y: (B, F, N), the magnitudes. window, hop, length: as in `istft`.
    Returns S_next (B, F, N, 2) float64.
    Raises as `istft` does.
    """
    S = _complex(S)
    y = shaped(y, "y", *S.shape[:-1])
    return stft(istft(y[..., None] * _unit(S, 1.0), window, hop, length), window, hop)


def griffin_lim(y, phase, window, hop, length, steps=32, momentum=0.0):
    """Sound from magnitudes: `steps` iterations of `griffin_lim_step`, [FGL] algorithm 2, then the inverse:

        C_n = step(T_{n - 1}),   T_n = C_n + momentum (C_n - C_{n - 1})

    momentum 0 is [GL]; 0.99 is [FGL]'s and is faster, and then the distance may grow between two steps.

    y: (B, F, N), the magnitudes. phase: (B, F, N), the first angles. window, hop, length: as in `istft`. steps: int >=
    0. momentum: float >= 0.
    Returns x (B, length) float64.
    Raises as `istft` does, and ValueError for steps or momentum below 0.
    """
    y, steps, momentum = shaped(y, "y", "B", "F", "N"), integer(steps, "steps"), number(momentum, "momentum")
    phase = shaped(phase, "phase", *y.shape)
    if steps < 0 or not momentum >= 0:
        raise ValueError(f"steps, momentum: expected at least 0, got {steps} and {momentum}")
    T = np.stack([np.cos(phase), np.sin(phase)], axis=-1)  # (B, F, N, 2)
    before = np.zeros(T.shape)  # as the widely used programs have C_0
    for _ in range(steps):
        C = griffin_lim_step(T, y, window, hop, length)
        T = C + momentum * (C - before)
        before = C
    return istft(y[..., None] * _unit(T, 1.0), window, hop, length)


def _sound(x, window, hop):
    x, window, hop = shaped(x, "x", "B", "L"), shaped(window, "window", "n"), integer(hop, "hop")
    if hop < 1 or len(window) < 1:
        raise ValueError(f"hop, window: expected at least 1, got {hop} and a window of {len(window)}")
    if x.shape[1] < 1:
        raise ValueError(f"x: expected at least one sample, got shape {x.shape}")
    return x, window, hop


def _spectrum(S, window, hop, length):
    """S, window and hop, and the overlap-added squares of the window, (length,)."""
    window, hop, length = shaped(window, "window", "n"), integer(hop, "hop"), integer(length, "length")
    n = len(window)
    if hop < 1 or length < 1 or n < 1:
        raise ValueError(f"hop, length, window: expected at least 1, got {hop}, {length} and {n}")
    S = shaped(S, "S", "B", n // 2 + 1, _count(length, n, hop), 2)
    weight = _overlap_add(np.broadcast_to(window**2, (1, S.shape[2], n)), hop, length)[0]
    if not weight.min() > 1e-8 * np.max(window**2):
        raise ValueError(f"window: expected one whose squares, {hop} apart, add up to more than 0 at every sample, got "
                         f"{weight.min():g} at sample {weight.argmin()} of {length}: it cannot be inverted")
    return S, window, hop, weight


def _complex(S):
    S = np.asarray(S)
    if S.ndim < 1 or S.shape[-1] != 2:
        raise ValueError(f"S: expected a last axis of 2, the real and the imaginary part, got shape {S.shape}")
    return shaped(S, "S", *S.shape)


def _power(power):
    if power not in (1, 2):
        raise ValueError(f"power: expected 1 or 2, got {power}")
    return power


def _unit(S, at_zero):
    """S / |S|; where S is 0, at_zero for the real part."""
    size = np.sqrt((S * S).sum(axis=-1, keepdims=True))
    unit = S / np.where(size == 0, 1, size)
    unit[..., 0] += np.where(size[..., 0] == 0, at_zero, 0)
    return unit


def _count(length, n, hop):
    return 1 + (length + 2 * (n // 2) - n) // hop


def _sides(n):
    """How often each frequency stands in the n of a whole transform: once or twice, (F,)."""
    k = np.arange(n // 2 + 1)
    return np.where((k == 0) | (2 * k == n), 1.0, 2.0)


def _places(count, n, hop):
    """The index of each frame's samples, counted from n // 2 before the sound, (N, n)."""
    return hop * np.arange(count)[:, None] + np.arange(n)


def _frames(x, n, hop):
    """(B, L) as (B, N, n)."""
    padded = np.pad(x, ((0, 0), (n // 2, n // 2)))
    return padded[:, _places(_count(x.shape[1], n, hop), n, hop)]


def _overlap_add(frames, hop, length):
    """The adjoint of `_frames`: (B, N, n) as (B, length)."""
    B, N, n = frames.shape
    padded = np.zeros((B, length + 2 * (n // 2)), frames.dtype)
    np.add.at(padded, (slice(None), _places(N, n, hop)), frames)
    return padded[:, n // 2:n // 2 + length].copy()


def _pair(z):
    return np.stack([z.real, z.imag], axis=-1)


def _parts(f, a):
    """f, which is linear and takes real numbers, of numbers that may be complex."""
    return f(a.real) + 1j * f(a.imag) if np.iscomplexobj(a) else f(a)


def _irfft(S, n):
    """(B, N, F, 2) as (B, N, n)."""
    return _parts(lambda a: np.fft.irfft(a[..., 0] + 1j * a[..., 1], n), S)
