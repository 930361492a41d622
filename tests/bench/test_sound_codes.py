"""The studies of codes of sound: bits of models that are known, gradients, codebooks, and each study at a tiny size."""
import functools
import types

import numpy as np
import pytest

from bench.studies import classifier, results, spoken
from bench.studies import codec as codec_study
from bench.studies import codec_lm as lm_study
from bench.studies import wavenet as study
from ref import audio, philox
from ref.examples.nets import stirred
from ref.nets import codec, codec_lm, wavenet
from tests.bench import along, without_pictures
from tests.bench.sound import captcha, folder, tone  # noqa: F401  fixtures


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
    sizes = dict(steps=2, batch=2, width=8, layers=1, stages=3, count=10)
    codes_of, trained = [], codec_study.trained
    monkeypatch.setattr(codec_study, "trained", lambda *given: codes_of.append(given) or trained(*given))
    for _ in range(2):  # the second reads the codec that the first left
        results.run("codec_lm", tmp_path / "out", lambda done, total: None, **sizes | {"data": spoken.Folder(folder)})
        rows = results.read(tmp_path / "out" / "codec_lm.csv")
    assert len(codes_of) == 1 and len(rows) == 3 and rows[0]["heard"] > 0.5
    assert rows[2]["first_bits"] == pytest.approx(np.log2(6), abs=1)
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
