"""Laws of the short-time Fourier transform, exact, and of Griffin-Lim: each is also broken on purpose.

Papers
    [GL]   Griffin, Lim, "Signal Estimation from Modified Short-Time Fourier Transform", 1984
"""
import numpy as np
import pytest

from ref import audio

KEPT, BROKEN = 1e-14, 1e-3
RNG = np.random.default_rng(21)
X = RNG.uniform(-1, 1, (2, 203))
ALONE = [(16, 4), (16, 8), (15, 5), (16, 3), (15, 7), (2, 1)]


def sides(n):
    """How often each of the F frequencies stands in all n."""
    k = np.arange(n // 2 + 1)
    return np.where((k == 0) | (2 * k == n), 1, 2)[:, None]


def distance(S, y):
    """Of |S| from y, over all frequencies, those that are not kept too."""
    return np.sqrt((sides(30) * (audio.magnitude(S) - y) ** 2).sum())


def symmetric(n):
    return np.hanning(n)


@pytest.mark.parametrize("n, hop", ALONE)
def test_round_trip(n, hop):
    """Any window whose squares add up to more than 0, with any hop: also where the sound ends inside of a frame. A sum
    of windows for the sum of their squares breaks it."""
    for window in (audio.hann(n), audio.hann(n) + 0.1, RNG.uniform(0.5, 1, n)):
        S = audio.stft(X, window, hop)
        assert S.shape == (2, n // 2 + 1, 1 + (203 + 2 * (n // 2) - n) // hop, 2)
        x = audio.istft(S, window, hop, 203)
        assert np.abs(x - X).max() <= 20 * KEPT
        assert np.abs(audio.istft(S, window * 1.01, hop, 203) - X).max() > BROKEN


def test_round_trip_at_usual_sizes():
    window = audio.hann(256)
    S = audio.stft(X, window, 64)
    assert np.abs(audio.istft(S, window, 64, 203) - X).max() <= KEPT


@pytest.mark.parametrize("window, hop", [(audio.hann(16), 16), (audio.hann(16), 17), (np.zeros(16), 4)])
def test_a_window_that_cannot_be_inverted_is_refused(window, hop):
    S = audio.stft(X, window, hop)
    with pytest.raises(ValueError, match=r"\bwindow\b.*cannot be inverted"):
        audio.istft(S, window, hop, 203)


def law_of_parseval(window, hop):
    """sum over all n frequencies of |S|^2 / n is the energy of the windowed frames: 3 n / (8 hop) times that of the
    sound where the squares of the shifted windows add up to it, as Hann's do with n / hop >= 3. The sound is 0 where
    frames are missing."""
    n, x = len(window), np.pad(X, ((0, 0), (len(window), len(window))))
    energy = (sides(n)[..., None] * audio.stft(x, window, hop) ** 2).sum() / n
    return abs(energy / (3 * n / (8 * hop) * (X**2).sum()) - 1)


def test_parseval():
    for n, hop in ((16, 4), (32, 4), (24, 8)):
        assert law_of_parseval(audio.hann(n), hop) <= 1e-13
        assert law_of_parseval(symmetric(n), hop) > BROKEN
    assert law_of_parseval(audio.hann(16), 8) > BROKEN  # squares need a third of a window, sums half of one


def test_a_tone_on_a_bin():
    """a cos(2 pi k i / n + p) has a n / 4 e^(j p) at k and half of the negative at its neighbours, 0 elsewhere, for
    Hann's window; each frame turned by 2 pi k hop / n, since time is counted from its start."""
    n, hop, k, a, p = 32, 8, 5, 0.7, 0.4
    x = a * np.cos(2 * np.pi * k * np.arange(320) / n + p)[None]
    S = audio.stft(x, audio.hann(n), hop)[0, :, 4:-4]  # (F, N, 2)
    inside = hop * (4 + np.arange(S.shape[1])) - n // 2
    turned = a * n / 4 * np.exp(1j * (p + 2 * np.pi * k * inside / n))
    expected = np.zeros(S.shape[:2], complex)
    expected[k], expected[k - 1], expected[k + 1] = turned, -turned / 2, -turned / 2
    assert np.abs(S[..., 0] + 1j * S[..., 1] - expected).max() <= 1e-12
    symmetric_S = audio.stft(x, symmetric(n), hop)[0, :, 4:-4]
    assert np.abs(symmetric_S[..., 0] + 1j * symmetric_S[..., 1] - expected).max() > BROKEN


@pytest.mark.parametrize("n, hop", ALONE)
def test_the_gradients_are_the_adjoints(n, hop):
    """<A x, S> = <x, A^T S> of both linear maps, at sizes that the gradient tests do not try."""
    window = audio.hann(n)
    S = RNG.standard_normal(audio.stft(X, window, hop).shape)
    a, b = (audio.stft(X, window, hop) * S).sum(), (X * audio.stft_backward(S, X, window, hop)).sum()
    assert abs(a - b) <= 1e-12 * np.abs(S).sum()
    a, b = (audio.istft(S, window, hop, 203) * X).sum(), (S * audio.istft_backward(X, S, window, hop, 203)).sum()
    assert abs(a - b) <= 1e-12 * np.abs(S).sum()


def test_the_inverse_is_the_nearest_sound():
    """[GL] section II: no other sound has a spectrum nearer to S, over all n frequencies: the gradient there is 0."""
    window, hop = audio.hann(30), 7
    S = RNG.standard_normal(audio.stft(X, window, hop).shape)
    off = sides(30)[..., None] * (audio.stft(audio.istft(S, window, hop, 203), window, hop) - S)
    assert np.abs(audio.stft_backward(off, X, window, hop)).max() <= 1e-12
    plain = audio.stft(audio.istft(S, window, hop, 203) * 1.01, window, hop) - S
    assert np.abs(audio.stft_backward(sides(30)[..., None] * plain, X, window, hop)).max() > BROKEN


def test_griffin_lim_never_moves_away_and_a_consistent_one_stays():
    window, hop = audio.hann(30), 7
    S = audio.stft(X, window, hop)
    y = audio.magnitude(RNG.standard_normal(S.shape))
    T, before = RNG.standard_normal(S.shape), np.inf
    for _ in range(40):
        T = audio.griffin_lim_step(T, y, window, hop, 203)
        assert distance(T, y) <= before * (1 + 1e-13)
        before = distance(T, y)
    stays = audio.griffin_lim_step(S, audio.magnitude(S), window, hop, 203)
    assert np.abs(stays - S).max() <= 1e-12
    assert np.abs(audio.griffin_lim_step(T, audio.magnitude(S), window, hop, 203) - S).max() > BROKEN


def test_momentum_gets_nearer_in_as_many_steps():
    """And its distance grows at times, which [GL]'s never does."""
    window, hop = audio.hann(30), 7
    y = audio.magnitude(audio.stft(X, window, hop))
    phase = RNG.uniform(0, 6.28, y.shape)
    ends = {m: [distance(audio.stft(audio.griffin_lim(y, phase, window, hop, 203, steps, m), window, hop), y)
                for steps in range(0, 61, 3)] for m in (0.0, 0.99)}
    assert ends[0.99][-1] < 0.8 * ends[0.0][-1] and np.diff(ends[0.0]).max() <= 1e-12
