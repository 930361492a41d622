"""`python -m bench.studies.stable_diffusion`: from a prompt to a picture in a file, and what it refuses in words."""
import math

import matplotlib.image
import numpy as np
import pytest

from bench.studies import stable_diffusion as study
from ref.examples import pipelines
from ref.pipelines import stable_diffusion as sd
from ref.pipelines import stable_diffusion_3 as sd3
from tests.ref import saved_models

SMALL = ["--steps", "2", "--size", "8x12", "--sampler", "euler"]


def ran(capsys, *words, status=0):
    """What the command prints, stdout or, where its exit status is not 0, stderr."""
    assert study.main(words) == status
    said = capsys.readouterr()
    return said.err if status else said.out


def image_of(folder):
    return np.moveaxis(matplotlib.image.imread(folder / study.NAME)[..., :3], 2, 0)  # (3, H, W)


@pytest.mark.parametrize("backend", ["ref", "numba_cpu"])
def test_tiny_runs_end_to_end(tmp_path, capsys, backend):
    said = ran(capsys, "--tiny", "a horse", *SMALL, "--seed", "3", "--out", str(tmp_path), "--backend", backend)
    assert "2 steps of" in said and "peak memory" in said and study.NAME in said
    expected = sd.text_to_image(pipelines.model(), "a horse", steps=2, size=(8, 12), sampler="euler", seed=3)[0]
    assert np.abs(image_of(tmp_path) - expected).max() <= 0.5 / 255 + 1e-6
    assert expected.std() > 0.1


def test_tiny_3_runs_with_its_three_texts(tmp_path, capsys):
    words = ["--steps", "2", "--size", "8x12", "--guidance", "2", "--seed", "3", "--out", str(tmp_path)]
    ran(capsys, "--tiny-3", "a horse in space", *words, "--dtype", "float64")
    model = pipelines.third()
    given = dict(prompts="a horse in space", steps=2, size=(8, 12), seed=3, guidance=2.0)
    expected = sd3.text_to_image(model, **given)[0]
    assert np.abs(image_of(tmp_path) - expected).max() <= 0.5 / 255 + 1e-6
    without = sd3.text_to_image({name: part for name, part in model.items() if name != "text_3"}, **given)[0]
    assert np.abs(expected - without).max() > 0.01


def test_a_folder_an_image_and_a_mask(tmp_path, capsys):
    folder = saved_models.write("sd1", tmp_path / "model")
    start, mask = np.random.default_rng(0).random((3, 8, 12)), np.zeros((3, 8, 12))
    mask[:, :4] = 1
    (tmp_path / "start.png").write_bytes(study.png(start))
    (tmp_path / "mask.png").write_bytes(study.png(mask))
    words = ["--weights", str(folder), "fox", "--dtype", "float64", "--steps", "4", "--negative", "old"]
    ran(capsys, *words, "--image", str(tmp_path / "start.png"), "--strength", "0.5", "--inpaint",
        str(tmp_path / "mask.png"), "--out", str(tmp_path / "out"))
    model, start = sd.load(folder, np.float64), np.round(255 * start) / 255
    expected = sd.image_to_image(model, start[None], "fox", 0.5, "old", 4, mask=mask[0])[0]
    assert np.abs(image_of(tmp_path / "out") - expected).max() <= 0.5 / 255 + 1e-6


def test_a_folder_of_stable_diffusion_3(tmp_path, capsys):
    folder = saved_models.write("sd3", tmp_path / "model")
    words = ["--weights", str(folder), "fox", "--steps", "2", "--size", "16x8", "--out", str(tmp_path / "out")]
    ran(capsys, *words, "--seed", "3", "--backend", "ref", "--guidance", "2", "--dtype", "float64")
    expected = sd3.text_to_image(sd3.load(folder, np.float64), "fox", steps=2, size=(16, 8), seed=3, guidance=2.0)[0]
    assert np.abs(image_of(tmp_path / "out") - expected).max() <= 0.5 / 255 + 1e-6
    assert "--sampler" in ran(capsys, *words, "--sampler", "ddim", status=2)


def test_the_random_model_has_the_published_number_of_parameters():
    sizes = {name: sum(math.prod(shape) for shape in study.expected(name, study.checked(name, config)).values())
             for name, config in study.PUBLISHED.items()}
    assert sizes == {"unet": 859520964, "text": 123060480, "vae": 83653863}


def test_without_weights_it_says_what_fits(capsys):
    said = ran(capsys, "a horse", status=2)
    assert "stable-diffusion-v1-5" in said and "4.3 GB" in said and "--tiny" in said


def test_a_prompt_that_is_cut_is_said(tmp_path, capsys):
    assert study.main(["--tiny", "a photograph of an astronaut", *SMALL, "--out", str(tmp_path)]) == 0
    assert "is cut to 10" in capsys.readouterr().err


@pytest.mark.parametrize("words, named", [
    (["--tiny", "--steps", "0"], "steps"), (["--tiny", "--size", "15"], "size"),
    (["--weights", "/nowhere"], "/nowhere"),
    (["--tiny", "--image", "/nowhere.png"], "/nowhere.png"), (["--tiny", "--out", "/dev/null"], "/dev/null"),
    (["--tiny", "--guidance", "nan"], "guidance"), (["--tiny-3", "--guidance", "inf"], "guidance"),
    (["--tiny", "--guidance", "1e300", "--size", "8"], "finite numbers"),
    (["--tiny-3", "--steps", "99999999999999999999"], "steps"),
])
def test_what_cannot_be_done_is_said_in_words(tmp_path, capsys, words, named):
    out = [] if "--out" in words else ["--out", str(tmp_path)]
    assert named in ran(capsys, "a horse", *words, *out, status=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [
    ["--tiny", "--weights", "x"], ["--tiny-3", "--random"], ["--tiny", "--inpaint", "x"], ["--tiny", "--size", "8y8"],
    ["--tiny", "--sampler", "plms"], ["--tiny", "--strength", "0.5"], ["--tiny", "--image", "x", "--size", "8"],
])
def test_a_wrong_word_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        study.main(["a horse", *words])
    assert "expected" in (said := capsys.readouterr().err) or "choose" in said


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 2), (5, 4, 3), (5, 4, 4)])
def test_a_picture_of_any_kind_is_three_colours(monkeypatch, shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    monkeypatch.setattr(matplotlib.image, "imread", lambda path: picture)
    colours = picture[..., :3] if picture.size > 40 else np.repeat(picture.reshape(5, 4, -1)[..., :1], 3, axis=2)
    np.testing.assert_array_equal(study.pixels("a.png"), np.moveaxis(colours, 2, 0) / 255)


def test_a_picture_of_16_bits_is_in_0_to_1(monkeypatch):
    picture = np.array([[0, 65535], [32768, 1]], np.uint16)
    monkeypatch.setattr(matplotlib.image, "imread", lambda path: picture)
    np.testing.assert_array_equal(study.pixels("a.tiff"), np.repeat(picture[None] / 65535, 3, axis=0))


@pytest.mark.parametrize("content", [b"no picture", study.png(np.random.default_rng(0).random((3, 9, 9)))[:150], b""])
def test_what_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "b.png").write_bytes(content)
    with pytest.raises(ValueError, match="b.png: expected an image"):
        study.pixels(tmp_path / "b.png")
