"""The studies of sound: WAV files, variations, pictures and back, the split by speaker, bits of models that are known,
and each study at a tiny size."""
import functools
import itertools
import types
import wave

import numpy as np
import pytest

from bench.studies import classifier, results, speak, spoken
from bench.studies import codec as codec_study
from bench.studies import codec_lm as lm_study
from bench.studies import wavenet as study
from ref import audio, philox
from ref.examples.nets import stirred
from ref.nets import codec, codec_lm, wavenet
from tests.bench import along, with_a_narrow_net, without_pictures

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


def test_cells_are_those_of_the_codes():
    edges, codes = study.cells(), np.arange(256)
    inner, little = edges[1:-1], 1e-9 * np.abs(edges[1:-1]) + 1e-15
    np.testing.assert_array_equal(audio.mulaw_encode(inner + little), codes[1:])
    np.testing.assert_array_equal(audio.mulaw_encode(inner - little), codes[:-1])
    level = audio.mulaw_decode(codes)
    assert np.all(edges[:-1] < level) and np.all(level < edges[1:])


def test_bits_of_models_that_are_known():
    """A Gaussian's codes cost the entropy of its cells; the predictor finds a process of order 2 and gains its
    prediction; p is mixed with every code, so that nothing costs more than 21.3 bits."""
    z = philox.normal(3, (60000,))
    codes = audio.mulaw_encode(np.clip(0.1 * z, -1, 1))
    share = np.bincount(codes, minlength=256) / codes.size
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    assert study.gaussian(None, codes)(codes) == pytest.approx(entropy, abs=0.01)
    x = np.zeros(20000)
    for t in range(2, len(x)):
        x[t] = 1.8 * x[t - 1] - 0.9 * x[t - 2] + 0.01 * z[t]
    codes = audio.mulaw_encode(np.clip(x, -1, 1))
    gain = study.gaussian(None, codes)(codes) - study.linear_predictor(None, codes)(codes)
    assert 1.5 < gain < np.log2(x.std() / 0.01) and study.bits_of(np.zeros(3)) == pytest.approx(21.29, abs=0.01)


def test_bits_in_pieces_are_those_of_the_whole(monkeypatch):
    params, codes = wavenet.wavenet_init(0, 256, 4, 5, 6), philox.below(0, (300,), 256)
    logits = wavenet.wavenet(params, codes[None], 3)[0][0].T
    monkeypatch.setattr(study, "PIECE", 70)
    each, lengths = zip(*study.pieces(params, 3, codes, 15))
    assert sum(lengths) == 300
    assert np.average(each, weights=lengths) == pytest.approx(study.cross_entropy(logits, codes) / np.log(2), rel=1e-6)
    short, lengths = zip(*study.pieces(params, 3, codes, 5))
    assert np.average(short, weights=lengths) != pytest.approx(np.average(each, weights=lengths), rel=1e-6)


@pytest.mark.parametrize("given", [True, False])
def test_wavenet_at_a_tiny_size(folder, captcha, tmp_path, monkeypatch, given):
    without_pictures(monkeypatch, study)
    monkeypatch.setattr(study, "LARGE", dict(layers=3, channels=4))
    monkeypatch.setattr(spoken, "RATE", 800 if given else 8000)
    monkeypatch.setattr(study, "recordings", functools.partial(lambda folder, of: of(folder)[:5], of=study.recordings))
    if given:
        monkeypatch.setattr(spoken, "read", lambda path: tone(440))
    sizes = dict(steps=3, batch=2, length=40, layers=4, cycle=2, channels=4, skip=5)
    data = {"data": spoken.Folder(folder)} if given else {}
    results.run("wavenet", tmp_path / "out", lambda done, total: None, **sizes, **data)
    rows = results.read(tmp_path / "out" / "wavenet.csv")
    assert [row["of"] for row in rows[:3]] == ["quantised Gaussian", "linear predictor", "WaveNet"]
    assert all(0 < row["bits"] < 12 for row in rows[:3]) and all(row["real_time"] > 0 for row in rows[2:])
    assert len(rows) == 4 and (tmp_path / "out" / "wavenet.wav").stat().st_size == 44 + 2 * spoken.RATE


def little(**change):
    sizes = dict(batch=2, length=400, channels=4, latent=3, entries=6, stages=3, seed=0, steps=3, tick=lambda: None)
    return types.SimpleNamespace(**codec_study.SETTINGS | sizes | change)


def test_the_gradient_of_the_codec():
    """Of its decoder alone, and of its encoder by way of the commitment loss and, straight through, of the sum of the
    stages: the loss with what is stopped held at its values."""
    params = stirred(codec.codec_init(0, 3, 2, codec_study.STRIDES))
    x, books = philox.normal(5, (2, 400)), 0.3 * philox.normal(6, (2, 5, 2))
    grads, vectors, codes = codec_study.gradients(params, x, books)
    _, quantised = audio.residual_quantise(vectors, books)
    np.testing.assert_array_equal(audio.residual_decode(codes, books), quantised.sum(axis=0))

    def loss(params):
        z, _ = codec.codec_encode(params["encoder"], x)
        rows = codec_study.as_rows(z)
        q = audio.straight_through(rows, quantised.sum(axis=0), vectors)
        y, _ = codec.codec_decode(params["decoder"], codec_study.from_rows(q, z.shape))
        mel = np.abs(codec_study.log_mel(y) - codec_study.log_mel(x)).mean()
        kept = codec_study.COMMITMENT * audio.commitment_loss(rows, quantised)
        return codec_study.WAVE * ((y - x) ** 2).mean() + mel + kept

    slope, difference = along(loss, params, grads)
    assert slope == pytest.approx(difference, rel=1e-5)


def test_codebooks_keep_the_zero_vector_and_replace_dead_codes():
    this, vectors = little(), philox.normal(7, (200, 3))
    books = codec_study.first_books(this, vectors)
    codes, _ = audio.residual_quantise(vectors, books[0])
    before = [np.square(vectors - audio.residual_decode(codes[:k], books[0])).sum() for k in (1, 2, 3)]
    assert np.all(np.diff(before) < 0) and not books[0][:, 0].any()
    books[1][1, 4] = 0  # dead, for it is too far away to be used
    books[0][1, 4] = books[2][1, 4] = 100
    codes, _ = audio.residual_quantise(vectors, books[0])
    codec_study.update(this, books, vectors, codes, 1)
    assert not books[0][:, 0].any() and np.abs(books[0][1, 4]).max() < 10 and books[1][1, 4] == 1
    np.testing.assert_allclose(books[0][0, 1:] * books[1][0, 1:, None], books[2][0, 1:], rtol=1e-12)


def test_codec_at_a_tiny_size(folder, tmp_path, monkeypatch):
    without_pictures(monkeypatch, codec_study)
    monkeypatch.setattr(classifier, "train", functools.partial(classifier.train, steps=60))
    given = vars(little()) | {"data": spoken.Folder(folder)}
    given.pop("tick")
    results.run("codec", tmp_path / "out", lambda done, total: None, **given)
    rows = results.read(tmp_path / "out" / "codec.csv")
    assert [row["stages"] for row in rows] == [0, 1, 2, 3] and all(row["shrunk"] == 1 for row in rows[1:])
    assert rows[1]["kbit"] == pytest.approx(np.log2(6) * 0.2, rel=1e-5)
    assert all(0 < row["used"] <= 1 for row in rows[1:])
    assert len(spoken.read(tmp_path / "out" / "codec.wav")) == 3 * 10 * (spoken.LENGTH + 1600)


def test_codec_lm_at_a_tiny_size(folder, tmp_path, monkeypatch):
    """Its codes are those of the networks: the first stage where u falls, the others the likeliest."""
    without_pictures(monkeypatch, lm_study)
    monkeypatch.setattr(classifier, "train", functools.partial(classifier.train, steps=60))
    monkeypatch.setattr(lm_study.codec, "SETTINGS", {k: v for k, v in vars(little()).items() if k != "tick"})
    kept, sample = {}, lm_study.sample

    def watched(this, params, text):
        kept.update(params=params, text=text, codes=sample(this, params, text))
        return kept["codes"]

    monkeypatch.setattr(lm_study, "sample", watched)
    sizes = dict(codec_steps=2, steps=2, batch=2, width=8, layers=1, stages=3, count=10)
    results.run("codec_lm", tmp_path / "out", lambda done, total: None, data=spoken.Folder(folder), **sizes)
    rows = results.read(tmp_path / "out" / "codec_lm.csv")
    assert len(rows) == 3 and rows[2]["first_bits"] == pytest.approx(np.log2(6), abs=1) and rows[0]["heard"] > 0.5
    codes, text = kept["codes"], kept["text"]
    assert codes.shape == (10, 3, 108) and set(text[:, 1]) == {10}
    logits, _ = codec_lm.first_codes(kept["params"]["first"], text, codes[:, 0], lm_study.CONFIG)
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    high = np.take_along_axis(np.cumsum(p, axis=2), codes[:, 0, :, None], axis=2)[..., 0]
    u = philox.uniform(0, (108, 10, 1), philox.stream("sampling"))[:, :, 0].T
    assert np.all(u <= high + 1e-5)
    logits, _ = codec_lm.rest_codes(kept["params"]["rest"], text, codes[:, :2], lm_study.CONFIG)
    near = np.take_along_axis(logits, codes[:, 2, :, None], axis=2)[..., 0]
    assert np.all(near >= logits.max(axis=2) - 1e-4)
