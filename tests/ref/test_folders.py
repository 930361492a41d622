"""Folders of weights: what `ref.pipelines.folder` reads, and what it refuses by name."""
import json
import re
import shutil

import numpy as np
import pytest

from kernels.nets import with_kernels
from ref import tree
from ref.pipelines import stable_diffusion as sd
from ref.pipelines.config import checked
from ref.pipelines.folder import converted
from tests.ref import saved_models

UNET, FILE = "unet/diffusion_pytorch_model", "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return saved_models.write("sd1", tmp_path_factory.mktemp("sd1"), np.float32)


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def unet_of(folder):
    """The tensors of the U-Net's file, float32."""
    return {path: a.astype(np.float32) for path, a in saved_models.drawn("sd1")[FILE].items()}


def equal(mine, theirs):
    mine, theirs = tree.named(mine), tree.named(theirs)
    assert mine.keys() == theirs.keys()
    for path, a in mine.items():
        np.testing.assert_array_equal(a, theirs[path])


@pytest.mark.parametrize("variant", ["fp16", None])
def test_float16_is_widened_exactly(folder, variant):
    half = {path: a.astype(np.float16) for path, a in unet_of(folder).items()}
    for place, name in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"),
                        ("text_encoder", "model")):
        own = folder / place / f"{name}.safetensors"
        if variant:
            own.rename(folder / place / f"{name}.fp16.safetensors")
    saved_models.safetensors(folder / f"{UNET}{'.fp16' * bool(variant)}.safetensors", half)
    for dtype in (np.float32, np.float64):
        model = sd.load(folder, dtype, variant)
        equal(model["unet"]["params"], tree.from_named({path: a.astype(dtype) for path, a in half.items()}))


def test_every_half_is_widened_exactly():
    bits = np.arange(2**16, dtype=np.uint16)
    np.testing.assert_array_equal(converted(bits.view(np.float16), "F16", np.float32), bits.view(np.float16))
    wide = converted(bits, "BF16", np.float32).view(np.uint32)
    np.testing.assert_array_equal(wide, bits.astype(np.uint32) << 16)


@pytest.mark.parametrize("backend", ["ref", "numba_cpu"])
def test_float16_weights_stay_so_and_are_computed_with_in_float32(folder, backend):
    half, pipeline = sd.load(folder, np.float16), with_kernels(sd, backend)
    wide = {name: part | {"params": tree.map(lambda a: a.astype(np.float32), part["params"])} if "params" in part
            else part for name, part in half.items()}
    assert {a.dtype for name in ("unet", "vae", "text") for a in tree.leaves(half[name]["params"])} == {
        np.dtype(np.float16)}
    given = dict(steps=2, size=(8, 12), sampler="euler", guidance=2.0)
    image = pipeline.text_to_image(half, "a cat", **given)
    assert image.dtype == np.float32 and image.std() > 0.1
    np.testing.assert_array_equal(image, pipeline.text_to_image(wide, "a cat", **given))


def test_what_float16_cannot_hold_is_refused(folder):
    saved_models.safetensors(folder / FILE, unet_of(folder) | {"conv_in.bias": np.full(8, 7e4, np.float32)})
    with pytest.raises(ValueError, match="float32.*70000"):
        sd.load(folder, np.float16)


def test_bfloat16_and_shards(folder):
    tensors = unet_of(folder)
    upper = {path: (a.view(np.uint32) >> 16).astype(np.uint16) for path, a in tensors.items()}
    saved_models.safetensors(folder / FILE, upper, dict.fromkeys(upper, "BF16"))
    equal(sd.load(folder)["unet"]["params"], tree.from_named({
        path: (a.view(np.uint32) & 0xFFFF0000).view(np.float32) for path, a in tensors.items()}))
    (folder / FILE).unlink()
    parts = [dict(list(tensors.items())[i::2]) for i in range(2)]
    names = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name, shard in zip(names, parts):
        saved_models.safetensors(folder / "unet" / name, shard)
    weight_map = {path: name for name, shard in zip(names, parts) for path in shard}
    (folder / f"{FILE}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), "utf-8")
    equal(sd.load(folder)["unet"]["params"], tree.from_named(tensors))
    saved_models.safetensors(folder / "unet" / names[1], dict(list(parts[1].items())[1:]))
    with pytest.raises(ValueError, match=next(iter(parts[1]))):
        sd.load(folder)


def test_what_has_the_dtype_stays_in_the_file_and_the_file_as_it_is(saved):
    before, weight = (saved / FILE).read_bytes(), sd.load(saved)["unet"]["params"]["conv_in"]["weight"]
    assert not weight.flags.owndata
    weight[...] = 0
    assert (saved / FILE).read_bytes() == before


def lacking(folder):
    tensors = unet_of(folder)
    del tensors["mid_block.resnets.0.conv1.weight"]
    saved_models.safetensors(folder / FILE, tensors)


def unknown(folder):
    saved_models.safetensors(folder / FILE, unet_of(folder) | {"add_embedding.weight": np.zeros(3, np.float32)})


def shaped(folder):
    saved_models.safetensors(folder / FILE, unet_of(folder) | {"conv_in.weight": np.zeros((8, 4, 1, 1), np.float32)})


def pickled(folder):
    (folder / FILE).rename(folder / f"{UNET}.bin")


def cut(folder):
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-4])


def no_header(folder):
    (folder / FILE).write_bytes(b"PK\x03\x04 no safetensors")


def empty(folder):
    (folder / FILE).write_bytes(b"")


def other_kind(folder):
    saved_models.safetensors(folder / FILE, unet_of(folder), {"conv_in.bias": "I32"})


def another_family(folder):
    (folder / "text_encoder_2").mkdir()


def configured(place, **settings):
    def change(folder):
        path = folder / place
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | settings), "utf-8")

    return change


def listed(folder):
    (folder / "unet/config.json").write_text("[1]", "utf-8")


def longer(folder):
    (folder / FILE).write_bytes((folder / FILE).read_bytes() + b"xx")


def indexed(folder):
    (folder / FILE).rename(folder / f"{UNET}-1.safetensors")
    (folder / f"{FILE}.index.json").write_text('{"weight_map": []}', "utf-8")


def nested(folder):
    (folder / "vae/config.json").write_text("[" * 5000, "utf-8")


def merging(folder):
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\na b\na b c\n", "utf-8")


def tokenizing(text):
    return lambda folder: (folder / "tokenizer/tokenizer.json").write_text(text, "utf-8")


def no_vocabulary(folder):
    (folder / "tokenizer" / "vocab.json").unlink()


@pytest.mark.parametrize("damage, named", [
    (lacking, r"lacks mid_block\.resnets\.0\.conv1\.weight"), (unknown, r"unknown add_embedding\.weight"),
    (shaped, r"conv_in\.weight: expected shape \(8, 4, 3, 3\), got \(8, 4, 1, 1\)"), (pickled, "pickle"),
    (cut, "do not fill it"), (no_header, "safetensors"), (empty, "safetensors"), (other_kind, "I32"),
    (another_family, "text_encoder_2"), (no_vocabulary, r"tokenizer\.json"),
    (configured("unet/config.json", resnet_skip_time_act=True), "resnet_skip_time_act"),
    (configured("unet/config.json", quantum_attention="on"), "quantum_attention"),
    (configured("unet/config.json", addition_embed_type="text_time"), "addition_embed_type"),
    (configured("unet/config.json", in_channels=9), "in_channels, out_channels: expected .* 4, got 9 and 4"),
    (configured("unet/config.json", out_channels=8), "in_channels, out_channels: expected .* 4, got 4 and 8"),
    (configured("unet/config.json", _class_name="UNet2DModel"), "_class_name.*UNet2DConditionModel"),
    (configured("unet/config.json", mid_block_type="UNetMidBlock2D"), "mid_block_type"),
    (configured("unet/config.json", downsample_padding=2), "downsample_padding"),
    (configured("unet/config.json", block_out_channels=[8, 16, 16]), "unet: .*3 values, as many as block_out_channels"),
    (configured("unet/config.json", attention_head_dim=[2]), "attention_head_dim: expected 2 values"),
    (configured("unet/config.json", attention_head_dim=3), "attention_head_dim: expected divisors"),
    (configured("unet/config.json", norm_num_groups=3), "norm_num_groups: expected a divisor"),
    (configured("vae/config.json", norm_num_groups=5), "norm_num_groups: expected a divisor"),
    (configured("vae/config.json", out_channels=4), "vae: out_channels"),
    (configured("vae/config.json", _class_name="VQModel"), "_class_name.*AutoencoderKL"),
    (configured("text_encoder/config.json", num_attention_heads=5), "num_attention_heads: expected a divisor"),
    (configured("text_encoder/config.json", model_type="bert"), "model_type"),
    (configured("scheduler/scheduler_config.json", _class_name="IPNDMScheduler"), "_class_name.*got 'IPNDMScheduler'"),
    (configured("scheduler/scheduler_config.json", _class_name=[]), "_class_name"), (listed, "braces.* list"),
    (configured("text_encoder/config.json", vocab_size=603), r"ids from 0 to 602, got 603"),
    (configured("unet/config.json", cross_attention_dim=9), "cross_attention_dim: .* hidden_size, 12, got 9"),
    (configured("tokenizer/tokenizer_config.json", model_max_length=1), "model_max_length of at least 2, got 1"),
    (configured("tokenizer/tokenizer_config.json", model_max_length="77"), "model_max_length: .* number, got str"),
    (configured("tokenizer/tokenizer_config.json", bos_token=3), "tokenizer.* transformers"),
    (tokenizing('{"model": {}}'), "tokenizer.* transformers .* 'vocab'"), (merging, "merges of two pieces, got .*'c'"),
    (tokenizing('{"model": {"type": "Unigram"}}'), "type: expected 'BPE', got 'Unigram'"),
    (longer, "fill"), (indexed, "weight_map"), (nested, "expected JSON"),
    (configured("unet/config.json", down_block_types=["KDownBlock2D"]), "KDownBlock2D"),
    (configured("vae/config.json", latents_mean=[0.0]), "latents_mean"),
    (configured("text_encoder/config.json", hidden_act="relu"), "hidden_act"),
    (configured("scheduler/scheduler_config.json", use_karras_sigmas=True), "use_karras_sigmas"),
    (configured("scheduler/scheduler_config.json", prediction_type="flow"), "prediction_type"),
])
def test_what_does_not_fit_is_named(folder, damage, named):
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        sd.load(folder)


def test_a_variant_that_is_not_there_and_another_dtype(saved):
    with pytest.raises(FileNotFoundError, match=r"fp16\.safetensors.*the folder has model\.safetensors"):
        sd.load(saved, variant="fp16")
    with pytest.raises(TypeError, match="dtype"):
        sd.load(saved, np.int8)


@pytest.mark.parametrize("place, key, values", [
    ("unet", "layers_per_block", (0, 1.5, True, "1", None, [], [1, 0], {})),
    ("unet", "block_out_channels", (None, 8, [], ["8"], "", {})), ("unet", "norm_eps", (0, -1e-5, True, "1e-5", [0.1])),
    ("unet", "flip_sin_to_cos", (None, 1, "true")), ("unet", "freq_shift", (-1, 0.5, None)),
    ("unet", "down_block_types", (None, 2, [], "DownBlock2D")), ("unet", "time_cond_proj_dim", ("6", [6])),
    ("vae", "scaling_factor", (0, -1, None, float("nan"), float("inf"), 10**400, [1])),
    ("vae", "shift_factor", ("0", [0.1])), ("vae", "layers_per_block", ([1, 1],)),
    ("text_encoder", "num_hidden_layers", (0, None, 2.0)),
    ("scheduler", "steps_offset", (-1, None, 1.0, [1])), ("scheduler", "set_alpha_to_one", (None, 0)),
    ("scheduler", "num_train_timesteps", (0, 1e3, "1000")), ("scheduler", "beta_end", (None, "x", 0)),
])
def test_a_value_of_another_kind_is_named(folder, place, key, values):
    for value in values:
        configured(f"{place}/{'scheduler_' * (place == 'scheduler')}config.json", **{key: value})(folder)
        with pytest.raises(ValueError, match=rf"{key}: expected .*, got {re.escape(repr(value))[:50]}"):
            sd.load(folder)


@pytest.mark.parametrize("solver, wanted", {  # as their constructors in diffusers 0.42.1 have it
    "DDIM": ("linear", 0.0001, 0.02, "leading", True), "DDPMParallel": ("linear", 0.0001, 0.02, "leading", True),
    "PNDM": ("linear", 0.0001, 0.02, "leading", False), "LCM": ("scaled_linear", 0.00085, 0.012, "leading", True),
    "TCD": ("scaled_linear", 0.00085, 0.012, "leading", True), "KDPM2Discrete": ("linear", 0.00085, 0.012, "linspace",
    True), "HeunDiscrete": ("linear", 0.00085, 0.012, "linspace", True), "UniPCMultistep": ("linear", 0.0001, 0.02,
    "linspace", True), "EulerAncestralDiscrete": ("linear", 0.0001, 0.02, "linspace", True)}.items())
def test_a_short_config_of_a_scheduler_has_the_defaults_of_its_class(solver, wanted):
    short = checked("scheduler", {"_class_name": f"{solver}Scheduler"})
    keys = "beta_schedule", "beta_start", "beta_end", "timestep_spacing", "set_alpha_to_one"
    assert tuple(short[key] for key in keys) == wanted


def test_old_files_number_the_places_of_the_text(folder):
    """As an int64 table, which nothing here reads."""
    file = "text_encoder/model.safetensors"
    tensors = saved_models.drawn("sd1")[file] | {"text_model.embeddings.position_ids": np.arange(77)[None]}
    saved_models.safetensors(folder / file, tensors, {"text_model.embeddings.position_ids": "I64"})
    assert "position_ids" not in sd.load(folder)["text"]["params"]["embeddings"]


def test_short_configs_have_the_published_defaults(folder):
    model = sd.load(folder)
    assert "norm_eps" not in json.loads((folder / "unet/config.json").read_text("utf-8"))
    assert model["unet"]["config"]["norm_eps"] == 1e-5 and model["vae"]["config"]["scaling_factor"] == 0.18215
    assert model["scheduler"]["timestep_spacing"] == "leading" and model["scheduler"]["set_alpha_to_one"] is False
