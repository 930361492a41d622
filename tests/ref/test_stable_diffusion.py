"""Stable Diffusion against the pipelines of diffusers, replayed from tests/goldens/stable_diffusion.npz
(`make_stable_diffusion.py` says how it was made), and what its parts promise."""
import tracemalloc

import numpy as np
import pytest

from ref import samplers
from ref.diffusion import q_sample
from ref.nets.autoencoder import decode, encode, tiny_decode
from ref.nets.unet import unet
from ref.pipelines import schedule, tokenizer
from ref.pipelines import stable_diffusion as sd
from tests import assert_close
from tests.ref import saved_models
from tests.ref.saved_models import CASES, SIDECAR, part

PROMPT, NEGATIVE = SIDECAR["prompt"], SIDECAR["negative"]
RUNS = [(name, i) for name in CASES for i in range(len(CASES[name]["runs"]))]
BOUND = {np.float64: 1e-9, np.float32: 2e-5}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """(name, dtype) -> the model of a golden, each read once."""
    made = {}

    def loaded(name, dtype=np.float64):
        if (name, dtype) not in made:
            made[name, dtype] = sd.load(saved_models.write(name, tmp_path_factory.mktemp(name), dtype), dtype)
        return made[name, dtype]

    return loaded


def close(mine, theirs, dtype=np.float64):
    assert mine.dtype == dtype
    assert_close(mine.astype(np.float64), theirs, BOUND[dtype], np.abs(theirs).max())


def run(model, name, i, **changed):
    """The image of one run of the goldens."""
    sampler, steps, guidance, spacing = CASES[name]["runs"][i]
    given = dict(negative=NEGATIVE, steps=steps, guidance=guidance, sampler=sampler, spacing=spacing)
    return sd.text_to_image(model, PROMPT, **given | {"latents": part(name, f"run{i}/latents")} | changed)


@pytest.mark.filterwarnings("ignore:the prompt has")
@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_300_prompts_have_the_published_tokens(load, name):
    """From vocab.json and merges.txt, and from tokenizer.json; filled up with the end token, and with "!"."""
    mine = sd.tokenize(load(name), SIDECAR["prompts"])
    np.testing.assert_array_equal(mine, part(name, "ids"))
    assert len(mine) == 300 and len(set(map(tuple, mine))) > 280


def test_a_prompt_that_is_too_long_is_cut_and_said(load):
    with pytest.warns(UserWarning, match="90 tokens and is cut to 75"):
        ids = sd.tokenize(load("sd1"), "a " * 90)
    assert ids.shape == (1, 77) and ids[0, 0] == load("sd1")["tokenizer"]["start"]
    assert ids[0, -1] == load("sd1")["tokenizer"]["end"] != ids[0, -2]


def test_pairs_are_merged_by_rank():
    ranks = {pair: rank for rank, pair in enumerate([("a", "a"), ("aa", "a</w>"), ("b", "a")])}
    assert tokenizer.merged("aaaa", ranks) == ["aa", "a", "a</w>"]
    assert tokenizer.merged("baaa", ranks) == ["b", "aaa</w>"]
    assert tokenizer.merged("é", {("Ã", "©</w>"): 0}) == ["Ã©</w>"]  # two bytes of UTF-8


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", CASES)
def test_each_network_is_the_published_one(load, name, dtype):
    model = load(name, dtype)
    states = sd.encode_text(model, sd.tokenize(model, [PROMPT, NEGATIVE]))
    close(states, part(name, "states"), dtype)
    close(sd.denoise(model, part(name, "x"), part(name, "t"), part(name, "states")), part(name, "eps"), dtype)
    close(sd.decode_image(model, part(name, "z_given")), part(name, "decoded"), dtype)
    if "encoder" in model["vae"]["params"]:
        mean, logvar = sd.encode_image(model, part(name, "image_given"))
        close(mean, part(name, "mean"), dtype)
        close(np.exp(logvar / 2), part(name, "std"), dtype)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name, i", RUNS)
def test_a_prompt_becomes_the_published_image(load, name, i, dtype):
    close(run(load(name, dtype), name, i), part(name, f"run{i}/image"), dtype)


def changed(model, network, **settings):
    """The model with some of a config in other words."""
    old = model[network]
    return model | {network: old | {"config": old["config"] | settings} if "params" in old else old | settings}


WRONG = {  # faults that pictures hardly show: the model with the fault, or what is put in place of a name
    "norm_eps": lambda model: changed(model, "unet", norm_eps=1e-6),
    "text_eps": lambda model: changed(model, "text", layer_norm_eps=1e-6),
    "gelu": lambda model: changed(model, "text", hidden_act="gelu"),
    "heads": lambda model: changed(model, "unet", attention_head_dim=4),
    "cosines_last": lambda model: changed(model, "unet", flip_sin_to_cos=False),
    "scaling": lambda model: changed(model, "vae", scaling_factor=0.18),
    "scaling_inverse": lambda model: changed(model, "vae", scaling_factor=1 / 0.18215),
    "last_step_to_1": lambda model: changed(model, "scheduler", set_alpha_to_one=True),
    "no_offset": lambda model: changed(model, "scheduler", steps_offset=0),
    "linear_betas": lambda model: changed(model, "scheduler", beta_schedule="linear"),
    "v_for_eps": lambda model: changed(model, "scheduler", prediction_type="v_prediction"),
    "pad": lambda model: changed(model, "tokenizer", pad=0),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_variant_is_caught(load, fault):
    with pytest.raises(AssertionError, match="off by"):
        close(run(WRONG[fault](load("sd1")), "sd1", 0), part("sd1", "run0/image"))


@pytest.mark.parametrize("name, fault", {
    "denoise": lambda real: lambda model, x, t, *more: real(model, x, t + 1, *more),
    "guide": lambda real: lambda uncond, cond, w: real(cond, uncond, w),
    "times": lambda real: lambda config, steps, spacing, sampler: real(config, steps, "linspace", sampler),
}.items())
def test_a_wrong_step_is_caught(load, monkeypatch, name, fault):
    monkeypatch.setattr(sd, name, fault(getattr(sd, name)))
    with pytest.raises(AssertionError, match="off by"):
        close(run(load("sd1"), "sd1", 0), part("sd1", "run0/image"))


@pytest.mark.parametrize("name, i, fault", [
    ("sd1", 0, ("ref.nets.unet.EPS", 1e-5)), ("sd1", 0, ("ref.nets.unet.TOKEN_EPS", 1e-6)),
    ("sd1", 0, ("ref.nets.autoencoder.EPS", 1e-5)), ("turbo", 1, ("ref.pipelines.stable_diffusion.sigma_from_abar",
                                                                 lambda abar: np.sqrt(1 / abar))),
    ("turbo", 1, ("ref.pipelines.stable_diffusion.vp_from_ve", lambda x, sigma: x)),
    ("turbo", 1, ("ref.samplers.euler", lambda denoise, x, sigmas, real=samplers.euler: real(
        denoise, x / sigmas[0] * np.sqrt(1 + sigmas[0]**2), sigmas))),
    ("turbo", 1, ("ref.samplers.euler", lambda denoise, x, sigmas, real=samplers.euler: real(
        denoise, x / sigmas[0], sigmas))),
])
def test_a_wrong_constant_or_scale_is_caught(load, monkeypatch, name, i, fault):
    monkeypatch.setattr(*fault)
    with pytest.raises(AssertionError, match="off by"):
        close(run(load(name), name, i), part(name, f"run{i}/image"))


@pytest.mark.parametrize("settings", [
    dict(rescale_betas_zero_snr=False), dict(timestep_spacing="leading"), dict(prediction_type="sample")])
def test_a_wrong_schedule_of_v_is_caught(load, settings):
    with pytest.raises(AssertionError, match="off by"):
        close(run(changed(load("sd2"), "scheduler", **settings), "sd2", 0), part("sd2", "run0/image"))


# --- memory ---------------------------------------------------------------------------------------------------------


def peak(run):
    """The most bytes that a call has allocated at a time, and what it returns."""
    tracemalloc.start()
    made = run()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most, made


def deeper(params, blocks):
    """The parameters with that many blocks more of those in the middle, or in the tiny decoder of the first ones."""
    if isinstance(params.get("layers"), list):
        return params | {"layers": params["layers"][:2] + params["layers"][2:3] * blocks + params["layers"][2:]}
    middle = {name: part + part[-1:] * blocks for name, part in params["mid_block"].items()}
    return params | {"mid_block": middle}


@pytest.mark.parametrize("network", ["unet", "encoder", "decoder", "tiny"])
def test_without_keep_memory_does_not_grow_with_the_depth(load, network):
    rng = np.random.default_rng(0)
    x, states = rng.standard_normal((1, 4, 32, 32)), rng.standard_normal((1, 77, 12))
    part = load("turbo" if network == "tiny" else "sd1")["unet" if network == "unet" else "vae"]

    def run(blocks, keep):
        if network == "unet":
            return unet(deeper(part["params"], blocks), x, 7, states, part["config"], keep=keep)
        half = "decoder" if network == "tiny" else network
        forward, given = {"encoder": (encode, x[:, :3]), "decoder": (decode, x), "tiny": (tiny_decode, x)}[network]
        return forward(part["params"] | {half: deeper(part["params"][half], blocks)}, given, part["config"], keep=keep)

    run(0, False)
    (shallow, _), (deep, (y, none)), (kept, (again, cache)) = (
        peak(lambda: run(*how)) for how in ((0, False), (12, False), (12, True)))
    assert cache and none is None
    np.testing.assert_array_equal(y, again)
    assert deep < 1.02 * shallow < 0.9 * kept, (deep, shallow, kept)


# --- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler, last", [("ddim", 0), ("lcm", 0), ("dpmpp_2m", 2.0**-24), ("euler", 2.0**-24)])
def test_only_what_divides_by_the_last_signal_has_some(load, sampler, last):
    """As in diffusers, whose DDIM and LCM have none."""
    assert schedule.alphas(load("sd2")["scheduler"], sampler)[-1] == last


def test_the_times_of_a_folder(load):
    sd1, turbo = load("sd1")["scheduler"], load("turbo")["scheduler"]
    assert schedule.times(sd1, 4).tolist() == [752, 502, 252, 2, 1]  # 751, 501, 251, 1 in the folder, then its first
    assert schedule.times(sd1, 4, sampler="dpmpp_2m").tolist() == [752, 502, 252, 2, 0]
    assert schedule.times(sd1, 4, "leading", "ddim").tolist() == [751, 501, 251, 1]  # from 1 to 1 is no step
    assert schedule.times(turbo, 1, None, "euler").tolist() == [1000, 0]
    assert schedule.times(sd1, 4, None, "lcm").tolist() == [1000, 760, 500, 260, 0]  # 999, 759, .. of 50 learned ones
    for steps, sampler in ((1001, "ddim"), (51, "lcm")):
        with pytest.raises(ValueError, match="steps"):
            schedule.times(sd1, steps, None, sampler)
    with pytest.raises(ValueError, match="steps"):
        schedule.times(sd1 | {"steps_offset": 300}, 4)


# --- arguments -------------------------------------------------------------------------------------------------------


def test_the_seed_decides_the_image_and_a_prompt_alone_is_as_in_its_batch(load):
    model = load("turbo")
    given = dict(steps=2, size=(8, 12), sampler="euler", guidance=2.0)
    both = sd.text_to_image(model, ["a cat", "a dog"], seed=3, **given)
    assert both.shape == (2, 3, 8, 12) and 0 <= both.min() < both.max() <= 1
    np.testing.assert_array_equal(both, sd.text_to_image(model, ["a cat", "a dog"], seed=3, **given))
    np.testing.assert_allclose(sd.text_to_image(model, "a cat", seed=3, **given)[0], both[0], atol=1e-12)
    assert np.abs(both - sd.text_to_image(model, ["a cat", "a dog"], seed=4, **given)).max() > 1e-3


@pytest.mark.parametrize("guidance, calls", [(1, 3), (2.0, 6)])
def test_guidance_1_is_the_condition_alone_in_one_call_a_step(load, monkeypatch, guidance, calls):
    seen, real, ticks = [], sd.denoise, []
    monkeypatch.setattr(sd, "denoise", lambda *given: seen.append(given) or real(*given))
    run(load("sd1"), "sd1", 0, steps=3, guidance=guidance, tick=lambda *done: ticks.append(done))
    assert len(seen) == calls and ticks == [(1, 3), (2, 3), (3, 3)]


# --- image to image --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", sd.SAMPLERS)
def test_strength_0_returns_the_decoded_image(load, sampler):
    model, image = load("sd2"), (part("sd2", "image_given") + 1) / 2
    mean, _ = sd.encode_image(model, 2 * image - 1)
    expected = np.clip(sd.decode_image(model, mean) / 2 + 0.5, 0, 1)
    prompts = ["a cat", "a dog"]
    np.testing.assert_array_equal(sd.image_to_image(model, image, prompts, 0, sampler=sampler), expected)
    some = sd.image_to_image(model, image, prompts, 0.5, steps=4, sampler=sampler)
    assert np.abs(some - expected).max() > 1e-2


@pytest.mark.parametrize("sampler", sd.SAMPLERS)
@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_what_is_not_masked_stays_on_its_noised_path(load, monkeypatch, name, sampler):
    """Exactly as the U-Net sees it, and to rounding as the sampler does."""
    model, image = load(name), (part(name, "image_given") + 1) / 2
    mask, seen, real = np.zeros((8, 6)), [], sd.denoise
    mask[:3, 2:] = 1
    monkeypatch.setattr(sd, "denoise", lambda m, x, t, *more: seen.append((x, t)) or real(m, x, t, *more))
    decoded, latents = sd.decode_image, []
    monkeypatch.setattr(sd, "decode_image", lambda m, z: latents.append(z) or decoded(m, z))
    sd.image_to_image(model, image, ["a cat", "a dog"], 0.75, steps=4, seed=5, guidance=3.0, sampler=sampler, mask=mask)
    monkeypatch.undo()
    known, _ = sd.encode_image(model, 2 * image - 1)
    kept = np.ones(known.shape, bool)
    kept[:, :, :2, 1:] = False  # a latent is made anew where one of its pixels is
    eps = sd.normal(5, known.shape, sd.stream("sampling"))
    abar = schedule.alphas(model["scheduler"], sampler)
    assert len(seen) == 6
    for x, t in seen:
        np.testing.assert_array_equal(x[kept], q_sample(known, t + 1, eps, abar)[kept])
    np.testing.assert_array_equal(latents[0][kept], known[kept])
    assert np.abs(latents[0] - known)[~kept].max() > 1e-3


def test_what_an_image_to_image_refuses(load):
    image = np.zeros((1, 3, 8, 8))
    with pytest.raises(ValueError, match="strength"):
        sd.image_to_image(load("sd1"), image, "a cat", 1.5)
    with pytest.raises(ValueError, match="image"):
        sd.image_to_image(load("sd1"), image, ["a cat", "a dog"])
    with pytest.raises(ValueError, match="tiny"):
        sd.image_to_image(load("turbo"), image, "a cat")
