"""Stable Diffusion 3 against the pipeline of diffusers, replayed from tests/goldens/stable_diffusion_3.npz
(`make_stable_diffusion_3.py` says how it was made)."""
import json

import numpy as np
import pytest

from ref import layers
from ref.pipelines import stable_diffusion as sd
from ref.pipelines import stable_diffusion_3 as sd3
from tests.ref import saved_models
from tests.ref.saved_models import SIDECAR, THIRD, part
from tests.ref.test_stable_diffusion import BOUND, changed, close

PROMPT, NEGATIVE = SIDECAR["prompt"], SIDECAR["negative"]
RUNS = [(name, i) for name in THIRD for i in range(len(THIRD[name]["runs"]))]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """(name, dtype) -> the model of a golden."""
    folders = {name: saved_models.write(name, tmp_path_factory.mktemp(name)) for name in THIRD}
    return lambda name, dtype=np.float64: sd3.load(folders[name], dtype)


def run(model, name, i, **given):
    steps, guidance = THIRD[name]["runs"][i]
    return sd3.text_to_image(model, PROMPT, **dict(
        negative=NEGATIVE, steps=steps, guidance=guidance, latents=part(name, f"run{i}/latents")) | given)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", THIRD)
def test_each_network_is_the_published_one(load, name, dtype):
    model = load(name, dtype)
    context, pooled = sd3.encode_text(model, [PROMPT, NEGATIVE])
    close(context, part(name, "context"), dtype)
    close(pooled, part(name, "pooled"), dtype)
    close(sd3.denoise(model, part(name, "x"), 0.731, context, pooled), part(name, "v"), dtype)
    close(sd.decode_image(model, part(name, "z_given")), part(name, "decoded"), dtype)
    close(sd.encode_image(model, part(name, "image_given"))[0], part(name, "mean"), dtype)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name, i", RUNS)
def test_a_prompt_becomes_the_published_image(load, name, i, dtype):
    model, ticks = load(name, dtype), []
    close(sd3.times(model["scheduler"], THIRD[name]["runs"][i][0]), part(name, f"run{i}/times"))
    close(run(model, name, i, tick=lambda *done: ticks.append(done)), part(name, f"run{i}/image"), dtype)
    assert ticks == [(n + 1, len(ticks)) for n in range(len(ticks))] and len(ticks) == THIRD[name]["runs"][i][0]


def moved(model):
    """The table of places a row further on: the crop off the centre."""
    params = model["transformer"]["params"]
    table = np.roll(params["pos_embed"]["pos_embed"], 8, axis=1)  # 8 places a row
    own = params | {"pos_embed": params["pos_embed"] | {"pos_embed": table}}
    return model | {"transformer": model["transformer"] | {"params": own}}


def swapped(model):
    """Each encoder with the other one's tokenizer, which pads with another token."""
    return model | {"tokenizer": model["tokenizer_2"], "tokenizer_2": model["tokenizer"]}


WRONG = {
    "unshifted": lambda model: changed(model, "scheduler", shift=1.0),
    "1000 for T": lambda model: changed(model, "scheduler", num_train_timesteps=1001),
    "scaling": lambda model: changed(model, "vae", scaling_factor=1.53),
    "no shift of the latents": lambda model: changed(model, "vae", shift_factor=None),
    "heads": lambda model: changed(model, "transformer", num_attention_heads=6),
    "pads swapped": swapped, "crop off the centre": moved,
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_variant_is_caught(load, fault):
    with pytest.raises(AssertionError, match="off by"):
        close(run(WRONG[fault](load("sd3")), "sd3", 0), part("sd3", "run0/image"))


@pytest.mark.parametrize("name, fault", {
    "T5_TOKENS": lambda real: 0,
    "guide": lambda real: lambda uncond, cond, w: real(cond, uncond, w),
    "text_end": lambda real: lambda y, ids, end: y[:, -1],
    "shift_times": lambda real: lambda t, shift: real(t, shift) if np.ndim(t) else t,  # once for the last time
}.items())
def test_a_wrong_step_is_caught(load, monkeypatch, name, fault):
    monkeypatch.setattr(sd3, name, fault(getattr(sd3, name)))
    with pytest.raises(AssertionError, match="off by"):
        close(run(load("sd3"), "sd3", 0), part("sd3", "run0/image"))


def test_the_last_states_in_place_of_those_before_are_caught(load, monkeypatch):
    real = sd3.text_encoder

    def last(params, ids, config):
        y, _ = real(params, ids, config)
        return y, {"layers": [{"x": y}]}

    monkeypatch.setattr(sd3, "text_encoder", last)
    with pytest.raises(AssertionError, match="off by"):
        close(sd3.encode_text(load("sd3"), [PROMPT, NEGATIVE])[0], part("sd3", "context"))


def test_two_ends_of_a_text_are_two_tokens(load):
    """The first end token, or with the old configs' 2 the first of the largest id."""
    ids, y = np.array([[5, 9, 7, 9]]), np.arange(8.0).reshape(1, 4, 2)
    np.testing.assert_array_equal(layers.text_end(y, ids, 7), y[:, 2])
    np.testing.assert_array_equal(layers.text_end(y, ids, 2), y[:, 1])
    assert {load(name)["text"]["config"]["eos_token_id"] == 2 for name in THIRD} == {True, False}


def test_the_seed_decides_the_image_and_a_prompt_alone_is_as_in_its_batch(load):
    model, given = load("sd35"), dict(steps=2, size=(16, 8), guidance=2.0)
    both = sd3.text_to_image(model, ["a cat", "a dog"], seed=3, **given)
    assert both.shape == (2, 3, 16, 8) and 0 <= both.min() < both.max() <= 1
    np.testing.assert_allclose(sd3.text_to_image(model, "a cat", seed=3, **given)[0], both[0], atol=1e-12)
    assert np.abs(both - sd3.text_to_image(model, ["a cat", "a dog"], seed=4, **given)).max() > 1e-3


@pytest.mark.parametrize("given, named", [
    (dict(latents=None, size=(15, 16)), "size"), (dict(latents=None, size=(6, 8)), "patches"), (dict(steps=0), "steps"),
    (dict(latents=np.zeros((1, 4, 4, 4))), "latents"), (dict(latents=None, size=(64, 64)), "patches"),
])
def test_a_bad_argument_is_named(load, given, named):
    with pytest.raises(ValueError, match=named):
        run(load("sd3"), "sd3", 0, **given)


@pytest.mark.parametrize("place, settings, named", [
    ("transformer/config.json", dict(qk_norm="layer_norm"), "qk_norm"),
    ("transformer/config.json", dict(in_channels=4), "in_channels"),
    ("transformer/config.json", dict(guidance_embeds=True), "guidance_embeds"),
    ("scheduler/scheduler_config.json", dict(use_dynamic_shifting=True), "use_dynamic_shifting"),
    ("text_encoder_2/config.json", dict(projection_dim=6), "pooled_projection_dim"),
])
def test_what_does_not_fit_is_named(tmp_path, place, settings, named):
    path = saved_models.write("sd3", tmp_path) / place
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | settings), "utf-8")
    with pytest.raises(ValueError, match=named):
        sd3.load(tmp_path)
