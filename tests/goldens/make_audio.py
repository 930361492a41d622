"""Writes audio.npz and audio.json: what librosa, torchaudio, SciPy and Python's own audioop give for sound, in float64.

    pip install librosa==0.11.0 scipy==1.17.1 torch==2.13.0 && pip install --no-deps torchaudio==2.11.1
    PYTHONPATH=. python3.11 tests/goldens/make_audio.py

Python 3.11, for audioop left the standard library in 3.13. Of torchaudio only functions written in Python are called.
Everything is drawn by NumPy here; no recording enters.
"""
import audioop
import hashlib
import json
import pathlib
import platform

import librosa
import numpy as np
import scipy
import torch
import torchaudio

HERE = pathlib.Path(__file__).parent
DRAW = np.random.default_rng(21)
RATE, N, HOP, LENGTH = 8000, 64, 16, 300
X = DRAW.uniform(-1, 1, (2, LENGTH))
WINDOW = scipy.signal.get_window("hann", N)
GIVEN = dict(n_fft=N, hop_length=HOP, window="hann", center=True)


def pair(S):
    return np.stack([S.real, S.imag], axis=-1)


def filters():
    """{name: filters}, of both libraries where both have them."""
    made = {}
    for scale in ("slaney", "htk"):
        for norm in ("slaney", None):
            ours = dict(n_mels=12, fmin=50.0, fmax=3800.0, htk=scale == "htk", norm=norm, dtype=np.float64)
            made[f"librosa/{scale}/{norm}"] = librosa.filters.mel(sr=RATE, n_fft=256, **ours)
            torch.set_default_dtype(torch.float64)
            theirs = torchaudio.functional.melscale_fbanks(129, 50.0, 3800.0, 12, RATE, norm=norm, mel_scale=scale)
            made[f"torchaudio/{scale}/{norm}"] = theirs.numpy().T
    return made


def main():
    S = librosa.stft(X, pad_mode="constant", dtype=np.complex128, **GIVEN)
    other = S * np.exp(1j * DRAW.uniform(0, 3, S.shape)) * DRAW.uniform(0.5, 1.5, S.shape)  # of no sound
    _, _, scipy_S = scipy.signal.stft(X, nperseg=N, noverlap=N - HOP, window="hann", padded=False, boundary="zeros")
    hz = np.array([0.0, 20, 440, 999, 1000, 1001, 2500, 4000, 11025])
    A, b = DRAW.uniform(0, 1, (12, 8)), DRAW.uniform(-1, 2, (12, 5))
    levels = np.sort(np.concatenate([DRAW.uniform(-1, 1, 200), DRAW.laplace(0, 0.02, 200), [-1, 0, 1]]).clip(-1, 1))
    pcm = np.unique(np.concatenate([DRAW.integers(-2**15, 2**15, 400), np.arange(-40, 40), [-2**15, 2**15 - 1]]))
    ulaw = np.frombuffer(audioop.lin2ulaw(pcm.astype("<i2").tobytes(), 2), np.uint8)
    bytes_ = np.arange(256, dtype=np.uint8)
    arrays = dict(
        x=X, hann=WINDOW, stft=pair(S), stft_scipy=pair(scipy_S * WINDOW.sum()), other=pair(other),
        istft=librosa.istft(other, length=LENGTH, dtype=np.float64, **GIVEN), levels=levels, pcm=pcm,
        librosa_codes=librosa.mu_compress(levels, quantize=True),
        librosa_decoded=librosa.mu_expand(np.arange(-128, 128), quantize=True),
        torchaudio_codes=torchaudio.functional.mu_law_encoding(torch.tensor(levels), 256).numpy(),
        torchaudio_decoded=torchaudio.functional.mu_law_decoding(torch.arange(256, dtype=torch.float64), 256).numpy(),
        g711_codes=ulaw.astype(np.int64),
        g711_decoded=np.frombuffer(audioop.ulaw2lin(bytes_.tobytes(), 2), "<i2").astype(np.int64),
        A=A, b=b, nnls=np.stack([scipy.optimize.nnls(A, column)[0] for column in b.T], axis=1), hz=hz,
        mel_slaney=librosa.hz_to_mel(hz), mel_htk=librosa.hz_to_mel(hz, htk=True))
    for momentum in (0.0, 0.99):
        arrays[f"griffin_lim/{momentum:g}"] = librosa.griffinlim(
            np.abs(other), n_iter=6, momentum=momentum, init=None, length=LENGTH, pad_mode="constant", n_fft=N,
            hop_length=HOP, window="hann", dtype=np.float64)
    arrays |= {f"filters/{name}": W for name, W in filters().items()}
    np.savez_compressed(HERE / "audio.npz", **arrays)
    versions = {m.__name__: m.__version__ for m in (librosa, scipy, torch, torchaudio, np)}
    about = {
        "file": "audio.npz", "generator": "make_audio.py", "versions": versions | {
            "python": platform.python_version(), "machine": platform.machine()},
        "authority": "librosa; torchaudio.functional; scipy.signal and scipy.optimize.nnls; CPython's audioop; float64",
        "licence_of_authority": "ISC / BSD-2 / BSD-3 / PSF",
        "sha256": hashlib.sha256((HERE / "audio.npz").read_bytes()).hexdigest()}
    (HERE / "audio.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
