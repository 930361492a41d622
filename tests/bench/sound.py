"""Sounds that the tests of the studies of sound share: tones for digits, as files and as the package captcha."""
import itertools
import types
import wave

import numpy as np
import pytest

from bench.studies import spoken

TONES = 300 * 1.22 ** np.arange(10)


def tone(f, seconds=0.3, late=0.0, size=0.5):
    """A tone with silence around it."""
    t = np.arange(int(seconds * 8000)) / 8000
    return np.concatenate([np.zeros(int(late * 8000)), size * np.sin(2 * np.pi * f * t), np.zeros(800)])


def save(path, sound, rate=8000, width=2, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setframerate(rate)
        file.setsampwidth(width)
        file.setnchannels(channels)
        made = np.rint(sound * 127 + 128).astype("u1") if width == 1 else np.rint(sound * 32767).astype("<i2")
        file.writeframes(np.repeat(made, channels).tobytes())


@pytest.fixture
def folder(tmp_path):
    """Two speakers, three takes: a digit is a tone, a speaker a little higher than the other."""
    for digit, (s, speaker), n in itertools.product(range(10), enumerate(("ann", "bob")), range(3)):
        save(tmp_path / f"{digit}_{speaker}_{n}.wav", tone(TONES[digit] * (1 + 0.02 * s + 0.01 * n)))
    save(tmp_path / "not_one.wav", tone(440))
    return tmp_path


@pytest.fixture
def captcha(tmp_path, monkeypatch):
    """Stands in for the package: a tone for each digit and letter, at another place in memory than the files above."""
    for k, name in enumerate("0123456789" + spoken.LETTERS):
        (tmp_path / "captcha" / "data" / name).mkdir(parents=True)
        save(tmp_path / "captcha" / "data" / name / "default.wav", tone(TONES[k % 10], 0.2 + k / 200), width=1)
    found = types.SimpleNamespace(submodule_search_locations=[str(tmp_path / "captcha")])
    monkeypatch.setattr(spoken.importlib.util, "find_spec", lambda name: found)
