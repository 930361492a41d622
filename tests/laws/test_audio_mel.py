"""Laws of mel filters and of mu-law: closed forms and bounds, each also broken on purpose.

Papers
    [G.711]  ITU-T Recommendation G.711, "Pulse code modulation (PCM) of voice frequencies", 1988
"""
import numpy as np
import pytest

from ref import audio

RNG = np.random.default_rng(22)
SCALES, CONVENTIONS = ("slaney", "htk"), {"torchaudio": (0, 255), "librosa": (-128, 127), "g711": (0, 255)}


@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_inverse_and_1000_hz_is_where_they_say(scale):
    f = np.linspace(0, 8000, 400)
    assert np.abs(audio.mel_to_hz(audio.hz_to_mel(f, scale), scale) - f).max() <= 1e-11
    assert abs(audio.hz_to_mel(1000.0, scale) - {"slaney": 15, "htk": 999.9855371}[scale]) <= 1e-7
    assert np.diff(audio.hz_to_mel(f, scale)).min() > 0


@pytest.mark.parametrize("scale", SCALES)
def test_triangles(scale):
    """Of height 1 they add up to 1 between the first and the last peak; with the norm each has the area 1."""
    rate, n, bands = 8000, 4000, 20
    W, area = (audio.mel_filters(rate, n, bands, 0.0, None, scale, norm) for norm in (None, "slaney"))
    corners = audio.mel_to_hz(np.linspace(0, audio.hz_to_mel(4000.0, scale), bands + 2), scale)
    f = rate * np.arange(n // 2 + 1) / n
    inside = (f >= corners[1]) & (f <= corners[-2])
    assert np.abs(W.sum(axis=0)[inside] - 1).max() <= 1e-12 and W.max() <= 1
    assert np.abs(area.sum(axis=1) * rate / n - 1).max() <= 1e-3 < np.abs(W.sum(axis=1) * rate / n - 1).max()
    seen = (W > 0).any(axis=1)
    assert seen.all() and np.all(np.diff(W.argmax(axis=1)) > 0)


def test_the_floor_is_where_it_is_said():
    """Silence gives ln(floor) and no gradient; above it a gain g adds ln g."""
    W, y = audio.mel_filters(8000, 64, 6), RNG.uniform(1, 2, (2, 33, 4))
    silent = audio.log_mel(0 * y, W, 1e-4)
    np.testing.assert_array_equal(silent, np.log(1e-4))
    assert not audio.log_mel_backward(np.ones(silent.shape), 0 * y, W, 1e-4).any()
    assert np.abs(audio.log_mel(5 * y, W) - audio.log_mel(y, W) - np.log(5)).max() <= 1e-13


def test_the_inverse_has_the_mel_spectrum_and_is_optimal():
    """Where a spectrum with it exists the residual goes to 0; where none does, the conditions of Karush, Kuhn and
    Tucker hold: the gradient is 0 where s > 0, and not negative where s = 0. A clipped pseudoinverse breaks both."""
    W = audio.mel_filters(8000, 64, 9)
    y = RNG.uniform(0, 1, (2, 33, 4)) ** 4
    m = audio.log_mel(y, W, 1e-9)
    s, clipped = audio.mel_inverse(m, W, 3000), audio.mel_inverse(m, W, 0)
    assert s.min() >= 0 and np.abs(audio.log_mel(s, W, 1e-9) - m).max() <= 1e-6
    assert np.abs(audio.log_mel(clipped, W, 1e-9) - m).max() > 1e-3
    A, b = RNG.standard_normal((8, 5)), RNG.standard_normal((8, 6))
    for steps, holds in ((4000, True), (0, False)):
        s = audio.nonnegative_least_squares(A, b, steps)
        gradient = A.T @ (A @ s - b)
        assert s.min() >= 0 and (s == 0).any()
        assert (np.abs(gradient[s > 0]).max() <= 1e-8 and gradient.min() >= -1e-8) == holds
    assert not audio.nonnegative_least_squares(0 * A, b).any()  # the smallest of all s, which are as good


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_codes_are_idempotent(convention):
    """What a code stands for has that code, but for the telephones' second zero; numbers in order have codes in order;
    a code is off by at most one step at its place."""
    first, last = CONVENTIONS[convention]
    codes = np.arange(first, last + 1)
    back = audio.mulaw_encode(audio.mulaw_decode(codes, convention), convention)
    np.testing.assert_array_equal(back, np.where((convention == "g711") & (codes == 0x7F), 0xFF, codes))
    x = np.sort(np.concatenate([RNG.uniform(-1, 1, 3000), RNG.laplace(0, 0.01, 3000).clip(-1, 1)]))
    decoded = audio.mulaw_decode(audio.mulaw_encode(x, convention), convention)
    assert np.diff(decoded).min() >= 0 and len(np.unique(decoded)) > 240
    off = np.abs(audio.mulaw_compress(decoded) - audio.mulaw_compress(x))
    assert off.max() <= {"torchaudio": 1 / 255 + 1e-12, "librosa": 2 / 255, "g711": 0.02}[convention]


def test_one_code_is_another_number_elsewhere():
    """Why the name stands in the call: codes of one convention, read by another, are another sound."""
    x = RNG.laplace(0, 0.05, 1000).clip(-1, 1)
    codes = audio.mulaw_encode(x, "torchaudio")
    assert np.abs(audio.mulaw_decode(codes, "g711") - x).max() > 0.1
    near = audio.mulaw_decode(codes - 128, "librosa") - x
    assert 0.003 < np.abs(near).max() < 0.05  # half a level off: heard as noise, seen by no test of shapes


def snr(x, decoded):
    return 10 * np.log10((x**2).mean() / ((x - decoded) ** 2).mean())


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_companding_gains_8_db_over_linear_8_bits(convention):
    """On Laplacian samples at -26 dB of full scale, as speech is measured and distributed in tests of telephones. The
    numbers that librosa's codes stand for are not in the middle of what has them, which costs almost 3 dB. A signal
    that fills the range loses."""
    u = (np.arange(20000) + 0.5) / 20000
    shape = np.sign(u - 0.5) * -np.log1p(-2 * np.abs(u - 0.5)) / np.sqrt(2)  # variance 1
    for level, gains in ((10 ** (-26 / 20), True), (None, False)):
        x = np.clip(level * shape, -1, 1) if level else 2 * u - 1
        linear = (np.floor(x * 128).clip(-128, 127) + 0.5) / 128
        gain = snr(x, audio.mulaw_decode(audio.mulaw_encode(x, convention), convention)) - snr(x, linear)
        assert (gain >= (7.5 if convention == "librosa" else 8)) == gains, gain
        assert gain < 8 or convention != "librosa"
