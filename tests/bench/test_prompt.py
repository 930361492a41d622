"""The prompt study: scenes and captions, the judge, the model's gradients, training, files and commands."""
import csv
import json
import re

import numpy as np
import pytest

from bench.studies import fit, results
from bench.studies.prompt import __main__ as command
from bench.studies.prompt import adherence, autoencoder, classifier, judge, model, scenes, show, train
from ref import philox, tree

SIZES = dict(text_width=8, text_layers=1, text_heads=2, patch=16, width=8, depth=1, heads=2)
LATENT = SIZES | {"shape": [4, 8, 8], "patch": 4, "widths": [8, 8, 8]}
LAYOUTS = {which: scenes.layouts(3, which, np.arange(400)) for which in scenes.SETS}


@pytest.fixture(scope="module")
def digits():
    """Ten crosses and rings in the place of handwriting, 4 of each class, which a classifier can tell apart."""
    images = np.full((40, 28, 28), -1.0)
    for i in range(40):
        d = i % 10
        images[i, 4:24, 4 + 2 * d // 2 : 7 + 2 * d // 2] = 1
        images[i, 4 + d : 7 + d, 4:24] = 1
        images[i, 4 : 24 : 19, 4:24] = 1 if d % 2 else images[i, 4 : 24 : 19, 4:24]
    return images.reshape(40, 784).astype(np.float32), np.arange(40) % 10


@pytest.fixture(scope="module")
def sprites(digits):
    return scenes.handwriting(*digits)


# Scenes


def test_a_scene_depends_on_its_own_index_alone(sprites):
    some = scenes.layouts(3, "training", np.array([17, 5]))
    for name, a in some.items():
        np.testing.assert_array_equal(a, LAYOUTS["training"][name][[17, 5]])
    few = scenes.pictures(some, sprites)
    np.testing.assert_array_equal(few, scenes.pictures(LAYOUTS["training"], sprites)[[17, 5]])
    assert few.shape == (2, *model.SHAPE) and few.dtype == np.float32 and few.min() == -1 and few.max() <= 1
    assert any(np.any(scenes.layouts(4, "training", np.arange(20))[k] != LAYOUTS["training"][k][:20]) for k in some)


@pytest.mark.parametrize("which", scenes.SETS)
def test_what_is_held_out_is_in_its_own_sets_alone(which):
    layout, (objects, new_colour, new_pair) = LAYOUTS[which], scenes.SETS[which]
    there = layout["two"][:, None] | (np.arange(2) == 0)
    held = (layout["colour"] == scenes.HELD_COLOUR[layout["digit"]]) & there
    pair = layout["two"] & (layout["digit"][:, 1] == scenes.HELD_DIGIT[layout["digit"][:, 0]])
    np.testing.assert_array_equal(held.sum(axis=1), new_colour)  # in one object of each scene, or in none
    np.testing.assert_array_equal(pair, new_pair)
    assert objects == 0 or np.all(layout["two"] == (objects == 2))
    for name, n in (("digit", 10), ("colour", 8), ("size", 2)):
        assert set(layout[name][there]) == set(range(n))  # everything else occurs


def test_captions_fit_and_say_what_is_there():
    for layout in LAYOUTS.values():
        captions = scenes.captions(layout)
        ids = scenes.ids(captions)
        assert ids.shape == (400, scenes.LENGTH) and ids.max() <= len(scenes.WORDS)
        for caption, row, i in zip(captions, ids, range(400)):
            assert [scenes.WORDS[k - 1] for k in row if k] == caption.split()
            assert scenes.DIGITS[layout["digit"][i, 0]] in caption and (" of " in caption) <= layout["two"][i]


def test_unknown_words_and_long_texts_are_refused_by_name():
    with pytest.raises(ValueError, match="prompt.*magenta.*got purple, cow"):
        scenes.ids(["a purple cow"])
    with pytest.raises(ValueError, match="at most 10 words, got 11"):
        scenes.ids(["a " * 11])


def test_two_objects_share_no_pixel(sprites):
    layout = {name: a.copy() for name, a in LAYOUTS["two seen"].items()}
    alone = [layout | {"two": np.zeros(400, bool), "digit": layout["digit"][:, order], "size": layout["size"][:, order],
                       "colour": layout["colour"][:, order], "pick": layout["pick"][:, order],
                       "centre": layout["centre"][:, order]} for order in ([0, 1], [1, 0])]  # fmt: skip
    first, second = ((scenes.pictures(part, sprites) + 1).max(axis=1) for part in alone)
    assert not np.any((first > 0) & (second > 0))


# The judge


def test_the_judge_is_right_about_scenes_and_about_wrong_ones(digits, sprites, monkeypatch):
    ink = np.array([judge.normalised(x) for size in sprites[0] for x in size], np.float32)
    params = classifier.train(ink, np.tile(np.sort(digits[1]), 2), steps=40, batch=32)
    for which in ("training", "two seen"):
        layout = {name: a[:100] for name, a in LAYOUTS[which].items()}
        pictures = scenes.pictures(layout, sprites)
        right = {name: a.mean() for name, a in judge.judged(params, pictures, layout).items()}
        assert right.pop("swapped") == 0 and min(right[name] for name in ("colour", "size", "place")) > 0.98
        assert right["digit"] > 0.7  # of a classifier after 40 steps
        # Each figure falls where what it measures is wrong, and where its object alone is
        for name, n in (("digit", 10), ("colour", 8)):
            for k in (0, 1):
                changed = layout | {name: (layout[name] + (np.arange(2) == k)) % n}
                figures = judge.judged(params, pictures, changed)
                assert figures[name][layout["two"] | (k == 0)].mean() < 0.15 and figures["place"].mean() > 0.98
        exchanged = layout | {"colour": layout["colour"][:, ::-1]}
        differ = layout["two"] & (layout["colour"][:, 0] != layout["colour"][:, 1])
        assert judge.judged(params, pictures, exchanged)["swapped"][differ].mean() > 0.98
        small = layout | {"size": 1 - layout["size"], "said": np.ones_like(layout["said"])}
        assert judge.judged(params, pictures, small)["size"].mean() < 0.05
    one = {name: a[:100] for name, a in LAYOUTS["one seen"].items()}
    elsewhere = one | {"place": (one["place"] + 1) % 5}
    assert judge.judged(params, scenes.pictures(one, sprites), elsewhere)["place"].mean() < 0.5
    assert not judge.judged(params, np.full((100, *model.SHAPE), -1.0), layout)["all"].any()


# The model


@pytest.mark.parametrize("sizes", [SIZES, SIZES | {"shape": (4, 8, 8), "patch": 4, "streams": 2}])
def test_the_gradients_of_the_model_are_those_of_its_loss(sizes):
    params = tree.map(np.float64, model.start(0, sizes))
    params = tree.map(lambda a: a + 0.2 * np.sin(1 + np.arange(a.size)).reshape(a.shape), params)
    x, t, ids = philox.normal(1, (2, *model.shape_of(sizes))), np.array([0.3, 0.9]), scenes.ids(["a red two", ""])
    dy = philox.normal(2, x.shape)
    _, cache = model.predict(params, x, t, ids, sizes, "ref")
    dparams = tree.named(model.predict_backward(dy, params, cache, sizes, "ref"))
    for i, (name, a) in enumerate(tree.named(params).items()):
        if name.endswith("pos_embed.pos_embed"):  # of two streams, fixed
            assert not dparams[name].any()
            continue
        direction = philox.normal(3, a.shape, i)
        along = [tree.from_named(tree.named(params) | {name: a + h * direction}) for h in (1e-5, -1e-5)]
        up, down = (np.sum(dy * model.predict(moved, x, t, ids, sizes, "ref")[0]) for moved in along)
        slope = np.sum(dparams[name] * direction)
        np.testing.assert_allclose((up - down) / 2e-5, slope, rtol=1e-5, atol=1e-6, err_msg=name)


NARROW = SIZES | {"text_width": 4, "text_heads": 1, "width": 4, "heads": 1}  # 2 s a step, interpreted


@pytest.mark.parametrize("backend, steps, sizes", [
    ("ref", 4, SIZES), ("numba_cpu", 4, SIZES), ("triton_gpu", 2, NARROW), ("ref", 6, LATENT),
])  # fmt: skip
def test_a_resumed_training_is_an_uninterrupted_one(backend, steps, sizes, sprites, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "array_module", lambda backend: np)  # the interpreter's arrays are NumPy's
    monkeypatch.setattr(train, "AUTOENCODER", train.AUTOENCODER | {"batch": 2, "measured": 8})
    settings, about = train.SETTINGS | {"batch": 2}, {"sizes": sizes}
    whole = train.begin(sizes, settings)

    def save_half():
        if whole["step"] == steps // 2:
            train.save(tmp_path / "half.npz", train.host(whole), about)

    train.train(whole, sizes, settings, sprites, backend, steps, tick=save_half)
    again = train.load(tmp_path / "half.npz", about)
    train.train(again, sizes, settings, sprites, backend, steps)
    for name in train.KEPT:
        np.testing.assert_array_equal(again[name], whole[name])
    assert len(whole["autoencoder"]) > 0 or sizes is not LATENT
    assert again["losses"] == whole["losses"] and again["step"] == steps
    with pytest.raises(ValueError, match="half.npz: expected a checkpoint of"):
        train.load(tmp_path / "half.npz", {"sizes": sizes | {"width": 12}})


def test_rescaled_latents_are_moved_and_scaled_and_decode_to_the_same(sprites):
    net = tree.map(lambda a: a + np.float32(0.2) * np.sin(1 + np.arange(a.size, dtype=np.float32)).reshape(a.shape),
                   autoencoder.start(0, (8, 8, 8)))  # fmt: skip
    x = scenes.pictures(scenes.layouts(3, "training", np.arange(4)), sprites)
    z = autoencoder.means(net, x, "ref")
    for axis in ((0, 2, 3), None):
        scale, shift = z.std(axis=axis), z.mean(axis=axis)
        other = autoencoder.rescaled(net, scale, shift)
        unit = autoencoder.means(other, x, "ref")
        assert np.allclose(unit.std(axis=axis), 1, atol=1e-4) and np.allclose(unit.mean(axis=axis), 0, atol=1e-4)
        drawn, same = autoencoder.decoded(net, z, "ref"), autoencoder.decoded(other, unit, "ref")
        np.testing.assert_allclose(same, drawn, atol=1e-4 * np.abs(drawn).max())


# Files and commands


@pytest.fixture
def weights(tmp_path):
    model.save(tmp_path / "w.npz", model.start(0, SIZES), {"sizes": SIZES})
    return tmp_path / "w.npz"


def test_weights_with_an_autoencoder_draw_pictures(tmp_path):
    params = model.start(0, LATENT) | {"autoencoder": autoencoder.start(1, LATENT["widths"])}
    model.save(tmp_path / "w.npz", params, {"sizes": LATENT})
    params, about = model.load(tmp_path / "w.npz")
    attention, strip = show.Attention(about["sizes"]), show.Strip()
    watch = {"watch": lambda *step: (attention(*step), strip(*step))}
    seen = model.sample(params, scenes.ids(["a red two"]), about["sizes"], 2.0, 2, **watch)
    assert seen.shape == (1, *model.SHAPE) and attention.of(0).shape == (scenes.LENGTH, 2, 2)
    np.testing.assert_allclose(strip.steps[-1][1], seen, atol=1e-6)  # the last step ends at x0_hat, decoded


def test_weights_come_back_rounded_and_damaged_ones_are_named(weights, tmp_path):
    params, about = model.load(weights)
    assert about == {"sizes": SIZES}
    for name, a in tree.named(model.start(0, SIZES)).items():
        np.testing.assert_array_equal(tree.named(params)[name], a.astype(np.float16).astype(np.float32))
    (tmp_path / "cut.npz").write_bytes(weights.read_bytes()[:-200])
    np.savez(tmp_path / "other.npz", about=json.dumps({"sizes": SIZES}), a=np.ones(3))
    for name, said in (("cut", "another file"), ("other", "got others"), ("none", "got no file")):
        with pytest.raises(ValueError, match=rf"{name}\.npz.*{said}"):
            model.load(tmp_path / f"{name}.npz")


def test_prompts_are_drawn(weights, tmp_path, capsys):
    given = ["a red two", "a small blue zero", f"--weights={weights}", f"--out={tmp_path / 'o'}", "--samples=2",
             "--steps=3", "--negative=a white nine", "--schedule-of-pictures", "--attention"]  # fmt: skip
    assert command.main(given) == 0
    assert "4 pictures in" in capsys.readouterr().out
    for name in ("prompt", "strip", "attention"):
        assert (tmp_path / "o" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    with open(tmp_path / "o" / "attention.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    words = [(row["prompt"], row["word"]) for row in rows if row["row"] == row["column"] == "0"]
    assert words == [(prompt, word) for prompt in given[:2] for word in prompt.split()]
    at = [float(row["weight"]) for row in rows if row["prompt"] == given[0] and row["row"] == row["column"] == "0"]
    assert 0 < sum(at) < 1 and len(rows) % len(words) == 0  # the rest of what a patch reads are patches


@pytest.mark.parametrize("given, said", [
    (["a purple two"], "got purple"), (["a red two", "--weights=none.npz"], "none.npz.*got no file"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_said_in_a_line(given, said, tmp_path, capsys):
    assert command.main([*given, f"--out={tmp_path / 'o'}"]) == 2
    assert re.search(said, capsys.readouterr().err) and not (tmp_path / "o").exists()


@pytest.mark.parametrize("option", ["--samples=0", "--steps=0", "--guidance=nan", "--seed=-1", "--sampler=ddim"])
def test_options_out_of_range_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        command.main(["a red two", option])
    assert option.partition("=")[0] in capsys.readouterr().err


def test_guidance_1_asks_for_the_prompt_alone_and_every_sampler_ends_near_the_prediction(weights):
    params, about = model.load(weights)
    ids, seen = scenes.ids(["a red two", "a blue one"]), []
    for sampler in model.SAMPLERS:
        watch = {"sampler": sampler, "watch": lambda *step: seen.append(step)}
        plain = model.sample(params, ids, about["sizes"], 1.0, 4, **watch)
        same = model.sample(params, ids, about["sizes"], 3.0, 4, sampler=sampler, without=ids)
        np.testing.assert_allclose(plain, same, atol=1e-5)  # guided away from itself
        np.testing.assert_allclose(plain, seen[-1][1], atol=1e-6)  # the last step ends at x0_hat


def test_the_attention_of_words_is_a_share(weights):
    params, about = model.load(weights)
    watch = show.Attention(about["sizes"])
    model.sample(params, scenes.ids(["a red two"] * 2), about["sizes"], 2.0, 2, watch=watch)
    maps = watch.of(1)
    assert maps.shape == (scenes.LENGTH, 2, 2) and np.all(maps > 0) and np.all(maps.sum(axis=0) < 1)


def test_training_and_its_table(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.data, "load", lambda folder=None: (digits, digits))
    monkeypatch.setattr(model, "SIZES", SIZES)
    monkeypatch.setattr(train, "RECIPES", {"numba_cpu": ({}, {"lr": 2e-3, "batch": 2})})
    monkeypatch.setattr(command, "JUDGED", 4)
    fast = classifier.train
    monkeypatch.setattr(classifier, "train", lambda *a, **k: fast(*a, **k | {"steps": 2}))
    assert command.main(["train", "--steps=3", "--batch=4", "--looks=2", f"--out={tmp_path}"]) == 0
    table = capsys.readouterr().out
    assert all(which in table for which in adherence.TESTED) and "shuffled" in table and "3 steps in" in table
    params, about = model.load(tmp_path / "prompt.npz")
    assert about["steps"] == 3 and about["sizes"] == SIZES and about["commit"] and about["machine"]
    assert about["settings"] == train.SETTINGS | {"lr": 2e-3, "batch": 4}  # the recipe's, and what was asked for
    curve = results.parsed((tmp_path / "curve.csv").read_text("utf-8"))
    assert [row["steps"] for row in curve[:: len(curve) // 2]] == [2, 3] and curve[-1]["set"] == adherence.TESTED[-1]
    assert (tmp_path / "loss.csv").read_bytes().count(b"\r\n") == 4
    assert command.main(["train", "--steps=3", "--batch=5", f"--out={tmp_path}",
                         f"--resume={tmp_path / 'checkpoint.npz'}"]) == 2  # fmt: skip
    assert "batch" in capsys.readouterr().err


def test_scenes_are_exported(digits, tmp_path, monkeypatch):
    from matplotlib import image

    monkeypatch.setattr(command.data, "load", lambda folder=None: (digits, digits))
    assert command.main(["export", "--count=3", "--set=two seen", f"--out={tmp_path}"]) == 0
    lines = (tmp_path / "captions.csv").read_text("utf-8").splitlines()
    layout = scenes.layouts(0, "two seen", np.arange(3))
    assert lines == ["file,caption", *(f"{i:06d}.png,{c}" for i, c in enumerate(scenes.captions(layout)))]
    wanted = show.rgb(scenes.pictures(layout, scenes.handwriting(*digits)))
    for i in range(3):
        np.testing.assert_allclose(image.imread(tmp_path / f"{i:06d}.png")[..., :3], wanted[i], atol=1 / 255)
