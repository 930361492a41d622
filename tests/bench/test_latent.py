"""The study of latent diffusion: its counts, its autoencoder's gradients, its seconds, a tiny run."""
import math
from types import SimpleNamespace

import numpy as np
import pytest

from bench.studies import latent, results
from bench.studies.prompt import adherence, autoencoder, classifier, judge, model, scenes, train
from ref import layers, nets, philox, tree
from tests import ROOT

TINY = dict(text_width=8, text_layers=1, text_heads=2, patch=16, width=8, depth=1, heads=2)


@pytest.fixture(scope="module")
def references():
    """A judge that has hardly learned, and 20 bars as handwriting."""
    images, labels = np.full((20, 28, 28), -1.0, np.float32), np.arange(20) % 10
    for i in range(20):
        images[i, 4:24, 4 + i : 8 + i] = 1
    sprites = scenes.handwriting(images.reshape(20, -1), labels)
    seen = np.array([judge.normalised(x) for x in sprites[0][1]], np.float32)
    return classifier.train(seen, np.sort(labels), steps=1), sprites


def test_the_operations_are_those_of_the_products():
    x, w = np.ones((5, 7)), np.ones((3, 7))
    assert latent.counted(layers.linear, x, w)[1] == 2 * 5 * 7 * 3
    (dx, *_), used = latent.counted(layers.linear_backward, np.ones((5, 3)), x, w)
    assert used == 2 * 2 * 5 * 7 * 3 and dx.shape == x.shape
    image, kernel = np.ones((2, 3, 8, 6)), np.ones((5, 3, 3, 3))
    assert latent.counted(layers.conv2d, image, kernel)[1] == 2 * 2 * 8 * 6 * 5 * 3 * 9
    q = np.ones((2, 3, 4, 6))  # attention reads all keys, and gathers all values
    assert latent.counted(layers.attention, q, q, q)[1] == 2 * 2 * (2 * 3 * 4 * 4 * 6)


def test_operations_grow_with_tokens_and_the_two_streams_cost_what_one_costs(monkeypatch):
    monkeypatch.setattr(model, "SIZES", TINY | {"width": 32, "depth": 6})
    this = SimpleNamespace(widths=(8, 8, 8))
    of = {what: latent.operations(model.SIZES | change, this) for what, (change, _) in latent.RUNS.items()}
    fine = latent.operations(model.SIZES | {"patch": 4}, this)
    assert fine["gflop"] > 3 * of["pixels"]["gflop"] and fine["of_encoding"] == 0 < of["latents"]["of_encoding"]
    one, two = (of[what]["gflop"] - of[what]["of_encoding"] for what in ("latents", "latents, two streams"))
    assert 0.8 < two / one < 1.1 and of["latents, two streams"]["parameters"] > 1.5 * of["latents"]["parameters"]


def test_the_gradients_of_the_autoencoder_are_those_of_its_loss(references):
    fresh = tree.map(np.float64, autoencoder.start(0, (8, 8, 8)))
    fresh = tree.map(lambda a: a + 0.1 * np.sin(1 + np.arange(a.size)).reshape(a.shape), fresh)
    shapes, ink, kl = tree.map(np.shape, fresh), references[1][0].astype(np.float64), 0.5
    placed, eps = latent.one(references[1]), philox.normal(1, (1, *latent.LATENT))
    vector = np.concatenate([leaf.ravel() for leaf in tree.leaves(fresh)])

    def loss(vector):  # with the divergence, which `rebuild` does not return
        params = train.split(vector, shapes)
        x = scenes.painted(ink, *placed[:4])
        mean, logvar = np.split(nets.autoencoder.encode(params, x, autoencoder.CONFIG)[0], 2, axis=1)
        x_hat = nets.autoencoder.decode(params, mean + np.exp(logvar / 2) * eps, autoencoder.CONFIG)[0]
        divergence = np.sum(mean**2 + np.exp(logvar) - 1 - logvar) / 2
        return (np.sum((x_hat - x) ** 2) + kl * divergence) / x.size

    _, grads = train.rebuilt(fresh, ink, kl, "ref", eps, *placed)
    for stream in range(3):
        along = philox.normal(2, vector.shape, stream)
        slope = (loss(vector + 1e-6 * along) - loss(vector - 1e-6 * along)) / 2e-6
        assert grads.astype(np.float64) @ along == pytest.approx(slope, rel=1e-3)


def test_the_seconds_to_the_same_are_on_the_line_between_two_looks():
    looks = {"pixels": [(1, 0.2), (2, 0.6)], "latents": [(1, 0.1), (2, 0.4)], "latents, two streams": [(2, 0.3)]}
    rows = [{"what": what, "train_seconds": float(at), "total_seconds": at + 5.0 * (what != "pixels"), "all": share}
            for what, some in looks.items() for at, share in some]  # fmt: skip
    last = {row["what"]: row for row in latent.reached(rows)}
    assert last["pixels"]["seconds_to_same"] == last["pixels"]["total_to_same"] == pytest.approx(1.5)
    assert (last["latents"]["seconds_to_same"], last["latents"]["total_to_same"]) == (2, 7)
    assert "seconds_to_same" not in last["latents, two streams"]
    assert [row["look"] for row in rows] == [1, 2, 1, 2, 1]


def test_a_tiny_run_has_a_row_for_each_look_and_a_text_from_its_table(references, tmp_path, monkeypatch):
    monkeypatch.setattr(adherence, "references", lambda: references)
    monkeypatch.setattr(model, "SIZES", TINY)
    monkeypatch.setattr(latent, "draw", lambda rows, drawn: drawn)
    ticks, kept = [], {}
    monkeypatch.setattr(results, "png", lambda drawn: kept.update(drawn) or b"")
    results.run("latent", tmp_path, lambda *at: ticks.append(at), seconds=0.01, autoencoder_seconds=0.01, looks=1,
                count=2, batch=2, autoencoder_batch=2, widths=(8, 8, 8), steps=2, backend="ref")  # fmt: skip
    rows = results.read(tmp_path / "latent.csv")
    assert ticks[-1][0] == ticks[-1][1] == len(ticks) == 11
    assert [row["what"] for row in rows[:3]] == ["autoencoder", "real scenes", "the same, decoded"]
    assert [row["what"] for row in rows[3:]] == [*latent.RUNS, *latent.FINER]
    first = rows[0]["train_seconds"]
    for row in rows[3:8]:
        assert row["train_steps"] >= 2 and math.isclose(
            row["total_seconds"], row["train_seconds"] + first * (row["what"] != "pixels"), rel_tol=1e-4)  # fmt: skip
    assert rows[2]["psnr"] > 0 and rows[0]["deviation"] > 0 and rows[1]["sharpness"] > 0
    assert all(x.shape == (10, *model.SHAPE) for x in kept.values()) and len(kept) == 7
    text = (tmp_path / "latent.txt").read_text("utf-8")
    assert "of_encoding" in text and all(said.split()[0] in text for said in latent.findings(rows))


def test_sentences_are_decided_by_the_figures():
    """Of the recorded rows, and with the seconds and operations of pixels and latents exchanged."""
    rows = results.read(ROOT / "bench/results/studies/latent.csv")
    said, last = " ".join(latent.findings(rows)), {row["what"]: row for row in latent.shown(rows)}
    assert "more than on pixels, but less if 2 trainings" in said and "latents gain by fewer steps." in said
    assert f"{last['latents']['all']:.1%}" in said and f"{last['latents of deviation 5.5']['all']:.1%}" in said
    for key in ("seconds_to_same", "total_to_same", "gflop"):
        last["pixels"][key], last["latents"][key] = last["latents"][key], last["pixels"][key]
    said = " ".join(latent.findings(rows))
    assert "no more than on pixels." in said and "latents gain by cheaper steps." in said
    last["latents"]["seconds_to_same"] = ""
    assert "pixels." not in " ".join(latent.findings(rows))
