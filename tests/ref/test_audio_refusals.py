"""What the functions of `ref.audio` and the networks of sound refuse, as in test_refusals.py."""
import numpy as np
import pytest

from tests.ref.test_refusals import B, NAN, SIX, THREE, Type, row
from tests.ref.test_refusals import test_a_wrong_argument_is_refused_by_name as refuses

WINDOWS = {"hop": [0, Type(2.5)], "window": [SIX, np.ones(0)]}
LEFT = dict(window=np.r_[0.0, np.hanning(6), 0.0], hop=8, S=np.ones((2, 5, 2, 2)))  # zeros meet zeros
CODES = {"codes": [Type(B), lambda c: c + 3, lambda c: -1 - c]}

REFUSED = {
    "audio.hann": {"n": [0, Type(8.0)]},
    "audio.stft": WINDOWS | {"x": [B, np.ones((2, 0))]},
    "audio.stft_backward": {"dS": [row, SIX]},
    "audio.istft": WINDOWS | {"S": [SIX, lambda S: S[..., :1]], "length": [0, Type(13.0)], "window as window": [
        dict(LEFT)]},
    "audio.istft_backward": {"dx": [row, SIX]},
    "audio.magnitude": {"S": [SIX], "power": [3, 0.5, NAN]},
    "audio.magnitude_backward": {"dy": [row], "power": [0]},
    "audio.griffin_lim_step": {"y": [row], "S": [SIX]},
    "audio.griffin_lim": {"y": [SIX], "phase": [row], "steps": [-1, Type(2.0)], "momentum": [-0.5, NAN]},
    "audio.hz_to_mel": {"f": [-1.0, NAN], "scale": ["mel", "HTK"]},
    "audio.mel_to_hz": {"m": [-1.0, NAN], "scale": ["mel"]},
    "audio.mel_filters": {"rate": [0, Type(8000.0)], "n": [0], "bands": [0, 40], "low": [-1.0, 4000.0, NAN], "high": [
        4001.0, 0.0, NAN], "scale": ["mel"], "norm": ["area"]},
    "audio.log_mel": {"y": [SIX], "filters": [B], "filters as y": [SIX], "floor": [0.0, -1.0, NAN]},
    "audio.log_mel_backward": {"dm": [SIX]},
    "audio.nonnegative_least_squares": {"A": [B], "b": [B, SIX.T], "steps": [-1, Type(1.5)]},
    "audio.mel_inverse": {"m": [SIX, row(np.ones((2, 3, 3)))], "filters": [B]},
    "audio.mulaw_compress": {"x": [1.5, NAN]},
    "audio.mulaw_compress_backward": {"dy": [THREE]},
    "audio.mulaw_expand": {"y": [-1.5, NAN]},
    "audio.mulaw_expand_backward": {"dx": [THREE]},
    "audio.mulaw_encode": {"x": [1.5, NAN, dict(x=1.01, convention="g711")], "convention": ["mu-law", "wavenet"]},
    "audio.mulaw_decode": {"codes": [256, -1, Type(0.5), dict(codes=128, convention="librosa")],
                           "convention": ["mu-law"]},
    "audio.nearest_code": {"x": [B, lambda x: x * NAN], "codebook": [B, SIX.T, np.ones((0, 3))]},
    "audio.residual_quantise": {"x": [B], "codebooks": [SIX, lambda c: c[..., :2]]},
    "audio.residual_decode": CODES | {"codebooks": [SIX]},
    "audio.residual_decode_backward": {"dq": [row]},
    "audio.straight_through": {"q": [row], "stopped": [row]},
    "audio.commitment_loss": {"x": [B], "quantised": [SIX, lambda q: q[:0]]},
    "audio.commitment_loss_backward": {"quantised": [SIX], "dL": [B]},
    "audio.codebook_loss": CODES | {"codebooks": [SIX, lambda c: c[..., :2]], "quantised": [SIX],
                            "quantised as codes": [row]},
    "audio.codebook_loss_backward": {"dL": [B]},
    "audio.kmeans_step": {"x": [B], "codebook": [B], "fixed": [Type(0.5)]},
    "audio.moving_average_codebook": {"count": [SIX], "total": [row], "codes": [np.zeros(3, int), np.full(4, 3)],
                                      "decay": [1.5, NAN]},
    "audio.replace_dead": {"count": [B, THREE * NAN], "x": [SIX.T], "index": [np.zeros(2, int), np.full(3, 4)],
                           "least": [NAN], "fixed": [Type(1.5)]},
    "nets.wavenet.wavenet_init": {"layers": [0]},
    "nets.wavenet.wavenet": {"cycle": [0, Type(2.0)], "codes": [B], "codes as index": [lambda c: c + 9, Type(SIX)]},
    "nets.wavenet.wavenet_queues": {"cycle": [0]},
    "nets.wavenet.wavenet_step": {"code": [np.zeros(3, int)], "code as index": [np.array([4, 0])]},
    "nets.wavenet.wavenet_generate": {"u": [1.5 * SIX + 1, SIX * NAN, SIX[0] / 9]},
    "nets.codec.codec_init": {"strides": [(), (0, 2), Type((2.0,))]},
    "nets.codec.codec_encode": {"x": [np.ones((2, 13)), np.ones(12), np.ones((2, 0))]},
    "nets.codec_lm.first_codes": {"text": [np.zeros((2, 3), int)], "text as index": [np.full((2, 2), 3)],
                                  "codes": [np.zeros((2, 4), int), np.full((2, 3), 4), Type(SIX)]},
    "nets.codec_lm.rest_codes": {"codes": [np.zeros((2, 2, 4), int), np.full((2, 2, 3), 4), lambda c: c[:, :0]],
                                 "text": [B]},
    "nets.codec_lm.delay": {"codes": [SIX.astype(int)]},
    "nets.codec_lm.undelay": {"steps": [np.zeros((1, 3, 2), int), B]},
}
CASES = [(name, key, wrong) for name, keys in REFUSED.items() for key, values in keys.items() for wrong in values]


@pytest.mark.parametrize("name, key, wrong", CASES, ids=[f"{name}-{key}".replace(" ", ",") for name, key, _ in CASES])
def test_a_wrong_argument_of_sound_is_refused_by_name(name, key, wrong):
    refuses(name, key, wrong)
