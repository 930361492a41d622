"""mu-law companding, and the three conventions of its 8-bit codes, by name.

Everything here is float64. One number of a sound has another code in each convention:

    "torchaudio"  0 .. 255: the 256 levels lie evenly on [-1, 1], both ends included; what WaveNet's public ports use
    "librosa"     -128 .. 127: the code c stands for the companded value c / 128, so that 0 is a level and 1 is not
    "g711"        0 .. 255: the bytes of telephones, sign, segment and interval inverted, on 14-bit integers

Papers
    [WaveNet]  van den Oord et al., "WaveNet: A Generative Model for Raw Audio", 2016
    [G.711]    ITU-T Recommendation G.711, "Pulse code modulation (PCM) of voice frequencies", 1988
"""
import math

import numpy as np

from ref.shapes import float64, same_shape

MU, BIAS, CLIP = 255, 33, 8158  # the last two for 14-bit integers; 8159 and more have the last code, [G.711]
CONVENTIONS = {"torchaudio": (0, 255), "librosa": (-128, 127), "g711": (0, 255)}  # the first and the last code
NATS = math.log1p(MU)


def mulaw_compress(x):
    """f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu), mu = 255, the mu-law of [WaveNet] section 2.2. x: [-1, 1], any
    shape. Returns y float64. Raises ValueError for x outside."""
    x, sign = _within(x, "x")
    return sign * np.log1p(MU * (sign * x)) / NATS


def mulaw_compress_backward(dy, x):
    """dx = dy mu / ((1 + mu |x|) ln(1 + mu)). dy, x: one shape. Returns dx. Raises as `mulaw_compress` does."""
    x, sign = _within(x, "x")
    dy, x = same_shape(dy=dy, x=x)
    return dy * MU / ((1 + MU * (sign * x)) * NATS)


def mulaw_expand(y):
    """The inverse of `mulaw_compress`:  x = sign(y) ((1 + mu)^|y| - 1) / mu. y: [-1, 1], any shape. Returns x float64.
    Raises ValueError for y outside."""
    y, sign = _within(y, "y")
    return sign * np.expm1(NATS * (sign * y)) / MU


def mulaw_expand_backward(dx, y):
    """dy = dx (1 + mu)^|y| ln(1 + mu) / mu. dx, y: one shape. Returns dy. Raises as `mulaw_expand` does."""
    y, sign = _within(y, "y")
    dx, y = same_shape(dx=dx, y=y)
    return dx * np.exp(NATS * (sign * y)) * NATS / MU


def mulaw_encode(x, convention="torchaudio"):
    """The code of each number, with f from `mulaw_compress`:

        floor((f(x) + 1) mu / 2 + 1/2)      torchaudio
        ceil((f(x) + 1) mu / 2) - 128       librosa
        255 - (sign, s, i)                  g711, [G.711] table 2a: a bit, three bits, four bits

    where v = 33 + min(|floor(round(2^15 x) / 4)|, 8158),  s = floor(log2 v) - 5,  i = floor(v / 2^(s + 1)) mod 16.

    x: [-1, 1], any shape. convention: one of these.
    Returns codes int64.
    Raises ValueError for x outside or another convention.
    """
    _known(convention)
    if convention == "torchaudio":
        return np.floor((mulaw_compress(x) + 1) / 2 * MU + 0.5).astype(np.int64)
    if convention == "librosa":
        return np.ceil((mulaw_compress(x) + 1) / 2 * MU).astype(np.int64) - 128
    v = np.clip(np.rint(_within(x, "x")[0] * 2**15), -(2**15), 2**15 - 1).astype(np.int64) >> 2
    size = np.minimum(np.abs(v), CLIP) + BIAS  # 33 .. 8191
    segment = np.floor(np.log2(size)).astype(np.int64) - 5
    return (segment << 4 | size >> segment + 1 & 15) ^ np.where(v >= 0, 0xFF, 0x7F)


def mulaw_decode(codes, convention="torchaudio"):
    """The number that a code stands for, with f^-1 from `mulaw_expand`:

        f^-1(2 c / mu - 1)                     torchaudio
        f^-1(c / 128)                          librosa
        +- ((2 i + 33) 2^s - 33) / 2^13        g711, of the bits inverted, [G.711] table 2a

    codes: ints, any shape. convention: as in `mulaw_encode`.
    Returns x float64, in [-1, 1].
    Raises ValueError for a code that the convention does not have, TypeError for what are no ints.
    """
    first, last = _known(convention)
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu":
        raise TypeError(f"codes: expected ints, got {codes.dtype}")
    if codes.size and not (first <= codes.min() and codes.max() <= last):
        raise ValueError(f"codes: expected {first} to {last} for {convention}, got {codes.min()} to {codes.max()}")
    codes = codes.astype(np.int64)
    if convention == "torchaudio":
        return mulaw_expand(2 * codes / MU - 1)
    if convention == "librosa":
        return mulaw_expand(codes / 128)
    bits = ~codes
    size = ((2 * (bits & 15) + BIAS) << (bits >> 4 & 7)) - BIAS
    return np.where(bits & 0x80, -size, size) / 2**13


def _within(value, name):
    """value as float64, and its sign, 1 for 0."""
    value = float64(value)
    if not np.all(np.abs(np.real(value)) <= 1):
        raise ValueError(f"{name}: expected values in [-1, 1], got {value}")
    return value, np.where(np.real(value) < 0, -1.0, 1.0)


def _known(convention):
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: expected one of {', '.join(CONVENTIONS)}, got {convention!r}")
    return CONVENTIONS[convention]
