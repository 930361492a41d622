"""Worked examples of `ref.audio`: two short sounds, two frames and more, few bands."""
import numpy as np

from ref.audio.quantise import residual_quantise
from ref.audio.stft import hann
from ref.examples.base import sines

SPECTRUM = sines((2, 5, 5, 2), 3)  # of windows of 8
VECTORS, CODEBOOKS = sines((4, 3)), np.stack([sines((3, 3), 1), sines((3, 3), 2) / 3])
CODES, QUANTISED = residual_quantise(VECTORS, CODEBOOKS)

ARGUMENTS = dict(
    n=8, window=hann(8), hop=3, length=13, S=SPECTRUM, scale="slaney", filters=0.3 + np.abs(sines((2, 5))), floor=1e-5,
    convention="torchaudio", codebooks=CODEBOOKS, codebook=CODEBOOKS[0], codes=CODES, quantised=QUANTISED,
    x=VECTORS,
)

FUNCTIONS = {
    "stft": dict(x=sines((2, 13))),
    "griffin_lim_step": dict(y=np.hypot(SPECTRUM[..., 0], SPECTRUM[..., 1])),
    "griffin_lim": dict(y=np.hypot(SPECTRUM[..., 0], SPECTRUM[..., 1]), phase=3 * sines((2, 5, 5), 4), steps=2,
                        momentum=0.5),
    "hz_to_mel": dict(f=np.array([0.0, 440.0, 3000.0])),
    "mel_to_hz": dict(m=np.array([0.0, 10.0, 30.0])),
    "mel_filters": dict(rate=8000, bands=2),
    "log_mel": dict(y=2 + sines((2, 5, 2), 5)),
    "nonnegative_least_squares": dict(A=sines((2, 4), 6), b=sines((2, 3), 7), steps=3),
    "mel_inverse": dict(m=sines((2, 2, 3), 8), steps=3),
    "mulaw_compress": dict(x=np.array([[-0.5, -0.4], [0.6, 0.9]])),
    "mulaw_expand": dict(y=np.array([[-0.5, -0.4], [0.6, 0.9]])),
    "mulaw_encode": dict(x=np.array([[-0.5, -0.01], [0.02, 1.0]])),
    "mulaw_decode": dict(codes=np.array([[0, 12], [128, 255]])),
    "straight_through": dict(q=QUANTISED.sum(axis=0), stopped=VECTORS),
    "moving_average_codebook": dict(count=np.array([1.0, 2.0, 0.5]), total=sines((3, 3), 9), codes=CODES[0]),
    "replace_dead": dict(count=np.array([1.0, 2.0, 0.5]), index=np.array([2, 0, 3])),
}
