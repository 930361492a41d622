"""The studies of sound: WAV files, variations, pictures and back, the split by speaker, and speak at a tiny size."""
import functools

import numpy as np
import pytest

from bench.studies import classifier, results, speak, spoken
from ref import audio, philox
from tests.bench import along, with_a_narrow_net, without_pictures
from tests.bench.sound import captcha, folder, save, tone  # noqa: F401  fixtures


def test_wav_files_of_8_and_16_bits_and_back(tmp_path):
    for width, off in ((1, 1 / 120), (2, 1e-4)):
        save(tmp_path / "a.wav", tone(440), width=width)
        assert np.abs(spoken.read(tmp_path / "a.wav") - tone(440)).max() <= off
    (tmp_path / "b.wav").write_bytes(spoken.written(tone(440, size=0.01)))
    assert np.abs(spoken.read(tmp_path / "b.wav") / 0.9 - tone(440, size=1)).max() <= 1e-3


def test_what_is_no_such_sound_is_refused_by_its_name(tmp_path):
    save(tmp_path / "rate.wav", tone(440), rate=16000)
    save(tmp_path / "two.wav", tone(440), channels=2)
    (tmp_path / "text.wav").write_text("RIFF of pages", "utf-8")
    (tmp_path / "empty.wav").write_bytes(b"")
    for name in ("rate", "two", "text", "empty"):
        with pytest.raises(ValueError, match=rf"{name}\.wav"):
            spoken.read(tmp_path / f"{name}.wav")
    with pytest.raises(ValueError, match="digit"):
        spoken.load(tmp_path)
    save(tmp_path / "3_ann_0.wav", np.zeros(4000))
    with pytest.raises(ValueError, match=r"3_ann_0\.wav.*silence"):
        spoken.load(tmp_path)


def test_a_folder_is_shown_by_its_name(tmp_path):
    shown = spoken.Folder(tmp_path / "voices")
    assert f"{shown}" == "voices" and str(shown) == str(tmp_path / "voices")


def test_names_say_who_said_what(folder):
    some = spoken.load(folder)
    assert some.sound.shape == (60, spoken.LENGTH) and sorted(set(some.speaker)) == ["ann", "bob"]
    np.testing.assert_array_equal(np.bincount(some.digit), np.full(10, 6))
    for i in (0, 31, 59):
        assert f"{some.digit[i]}_{some.speaker[i]}_{some.take[i]}" == spoken.named(folder)[i][0].stem


def test_a_recording_is_placed():
    """Without its silence, in the middle, at root mean square 1; of a long one the loudest part."""
    x = spoken.placed(tone(440, 0.2, late=0.4))
    on = np.flatnonzero(np.abs(x) > 1e-6)
    assert x.shape == (spoken.LENGTH,) and abs(np.mean(x**2) - 1) <= 1e-12
    assert abs((on[0] + on[-1]) / 2 - spoken.LENGTH / 2) < 210 and on[-1] - on[0] < 2100
    long = np.concatenate([tone(440, 0.6, size=0.1), tone(880, 0.6)])
    size = audio.magnitude(audio.stft(spoken.placed(long)[None], spoken.WINDOW, spoken.HOP))[0].sum(axis=1)
    assert size.argmax() == 56  # 880 / (8000 / 512)


def test_a_variation_depends_on_seed_and_index_alone():
    x = tone(440)
    one, other = spoken.varied(x, 3, 17), spoken.varied(x, 3, 18)
    np.testing.assert_array_equal(one, spoken.varied(x, 3, 17))
    assert len(one) != len(other) and len(spoken.varied(x, 4, 17)) != len(one)


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_a_stretched_tone_keeps_its_pitch(speed):
    x = 0.5 * np.sin(2 * np.pi * 500 * np.arange(8000) / 8000)
    y = spoken.stretched(x, speed)
    assert abs(len(y) / (8000 / speed) - 1) < 0.02
    inside = y[len(y) // 4:][:2048] * np.hanning(2048)
    peak = np.abs(np.fft.rfft(inside)).argmax() * 8000 / 2048
    assert abs(peak - 500) < 5 and abs(np.abs(y[len(y) // 4:-len(y) // 4]).max() - 0.5) < 0.1


def test_a_picture_becomes_sound_and_a_picture_again(folder):
    some = spoken.load(folder)
    images = spoken.pictures(some.sound[::6])
    assert images.shape == (10, 784) and images.dtype == np.float32 and images.min() == -1 and images.max() <= 1
    rows = images.reshape(10, 28, 28).max(axis=2).argmax(axis=1)
    assert np.all(np.diff(rows) < 0)  # a higher tone stands higher
    again = spoken.pictures(spoken.sounds(images, 0, 30))
    assert np.abs(again - images).mean() < 0.1 < np.abs(again - images[::-1]).mean()


def test_the_judge_has_other_speakers_and_held_out_recordings_are_in_neither(folder, captcha):
    trained_on, ears, held = speak.split(folder, 0)
    assert set(ears.speaker) == {"ann"} and set(trained_on.speaker) == set(held.speaker) == {"bob"}
    assert set(held.take) == {0} and set(trained_on.take) == {1, 2}
    for path in folder.glob("*_bob_*.wav"):
        path.unlink()
    with pytest.raises(ValueError, match="two speakers, got ann"):
        speak.split(folder, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spoken, "load", lambda folder=None, count=10, seed=0, load=spoken.load: load(None, 10, seed))
        parts = list(speak.split(None, 0))
    assert all(np.any(a.sound != b.sound) for a in parts for b in parts if a is not b)


def test_without_captcha_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(spoken.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"captcha.*\[study\].*--data"):
        spoken.embedded("1")


def test_speak_at_a_tiny_size(folder, captcha, tmp_path, monkeypatch):
    with_a_narrow_net(monkeypatch)
    without_pictures(monkeypatch, speak)
    monkeypatch.setattr(classifier, "train", functools.partial(classifier.train, steps=60))
    monkeypatch.setattr(spoken, "sounds", functools.partial(spoken.sounds, steps=2))
    load = spoken.load
    monkeypatch.setattr(spoken, "load", lambda folder=None, count=20, seed=0: load(folder, 20, seed))
    ticks = []
    sizes = dict(steps=2, vae_steps=2, batch=8, count=20)
    results.run("speak", tmp_path / "out", lambda done, total: ticks.append((done, total)), data=spoken.Folder(folder),
                **sizes)
    assert ticks[-1] == (8, 8)
    rows = results.read(tmp_path / "out" / "speak.csv")
    assert [row["of"] for row in rows] == [
        speak.REAL, "diffusion", "latent diffusion", "diffusion, trained on captcha"]
    assert rows[0]["of_real"] == 1 and rows[0]["heard"] > 0.5  # a tone of another speaker
    assert all(row["nearest"] > 0 for row in rows)
    assert str(folder) not in (tmp_path / "out" / "speak.csv").read_text("utf-8")
    said = spoken.read(tmp_path / "out" / "speak.wav")
    assert len(said) == 10 * (spoken.LENGTH + 1600) and np.abs(said).max() == pytest.approx(0.9, abs=1e-3)


def test_the_gradient_of_the_vae():
    params = {"encoder": speak.nets.encoder_init(0, 784, 6, speak.LATENT, np.float64),
              "decoder": speak.nets.decoder_init(0, 784, 6, speak.LATENT, np.float64)}
    x, eps = philox.normal(1, (3, 784)), philox.normal(2, (3, speak.LATENT))

    def loss(params):
        mu, logvar, _ = speak.nets.encoder(params["encoder"], x)
        y, _ = speak.nets.decoder(params["decoder"], speak.vae.reparameterize(mu, logvar, eps))
        return (((y - x) ** 2).sum(axis=1) / 0.04 + speak.vae.gaussian_kl(mu, logvar)).mean()

    slope, difference = along(loss, params, speak.vae_gradients(params, x, eps))
    assert slope == pytest.approx(difference, rel=1e-6)
