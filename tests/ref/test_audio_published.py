"""`ref.audio` against programs that nobody here wrote: librosa, torchaudio, SciPy and CPython's audioop, in float64.
tests/goldens/make_audio.py wrote the numbers."""
import numpy as np
import pytest

from ref import audio
from tests import assert_close, golden

ARRAYS = golden("audio")
X, WINDOW, OTHER = (ARRAYS[name] for name in ("x", "hann", "other"))
HOP, LENGTH = 16, X.shape[1]
FILTERS = [name.split("/")[1:] for name in ARRAYS if name.startswith("filters/")]


def test_hann_and_stft():
    assert_close(audio.hann(64), WINDOW, scale=1)
    S = audio.stft(X, WINDOW, HOP)
    for name in ("stft", "stft_scipy"):
        assert_close(S, ARRAYS[name], scale=8)


def test_istft_of_what_is_no_spectrum():
    assert_close(audio.istft(OTHER, WINDOW, HOP, LENGTH), ARRAYS["istft"], scale=1)


@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_griffin_lim(momentum):
    y = audio.magnitude(OTHER)
    found = audio.griffin_lim(y, np.zeros(y.shape), WINDOW, HOP, LENGTH, 6, momentum)
    assert_close(found, ARRAYS[f"griffin_lim/{momentum:g}"], 1e-11, scale=1)


@pytest.mark.parametrize("library, scale, norm", FILTERS)
def test_mel_filters(library, scale, norm):
    """Of both libraries where the names of scale and norm say the same; with the other scale they are far off."""
    norm = None if norm == "None" else norm
    expected = ARRAYS[f"filters/{library}/{scale}/{norm}"]
    W = audio.mel_filters(8000, 256, 12, 50.0, 3800.0, scale, norm)
    assert_close(W, expected, scale=expected.max())
    other = audio.mel_filters(8000, 256, 12, 50.0, 3800.0, "htk" if scale == "slaney" else "slaney", norm)
    assert np.abs(other - expected).max() > 0.1 * expected.max()


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_mel_scales(scale):
    assert_close(audio.hz_to_mel(ARRAYS["hz"], scale), ARRAYS[f"mel_{scale}"])
    assert_close(audio.mel_to_hz(ARRAYS[f"mel_{scale}"], scale), ARRAYS["hz"])


def test_nonnegative_least_squares():
    found = audio.nonnegative_least_squares(ARRAYS["A"], ARRAYS["b"], 3000)
    assert (ARRAYS["nnls"] == 0).any() and np.abs(found - ARRAYS["nnls"]).max() <= 1e-9


@pytest.mark.parametrize("convention, first", [("torchaudio", 0), ("librosa", -128)])
def test_mulaw_of_the_libraries(convention, first):
    np.testing.assert_array_equal(audio.mulaw_encode(ARRAYS["levels"], convention), ARRAYS[f"{convention}_codes"])
    assert_close(audio.mulaw_decode(np.arange(first, first + 256), convention), ARRAYS[f"{convention}_decoded"])


def test_mulaw_of_telephones():
    np.testing.assert_array_equal(audio.mulaw_encode(ARRAYS["pcm"] / 2**15, "g711"), ARRAYS["g711_codes"])
    np.testing.assert_array_equal(audio.mulaw_decode(np.arange(256), "g711") * 2**15, ARRAYS["g711_decoded"])
