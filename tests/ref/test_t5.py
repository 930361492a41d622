"""T5 in Stable Diffusion 3, replayed from tests/goldens/t5.npz (`make_t5.py` says how it was made): its tokens, its
states next to those of the other two, and what of it is refused by name. The encoder alone: test_nets_published.py."""
import json

import numpy as np
import pytest

from ref import tree
from ref.nets import t5
from ref.pipelines import stable_diffusion as sd
from ref.pipelines import stable_diffusion_3 as sd3
from ref.pipelines.unigram import likeliest
from ref.pipelines.vocabulary import unigram
from tests import GOLDENS, assert_close, golden, redrawn
from tests.ref import saved_models
from tests.ref.saved_models import SIDECAR
from tests.ref.test_stable_diffusion import BOUND, changed, close

T5, ARRAYS = json.loads((GOLDENS / "t5.json").read_text("utf-8")), golden("t5")
LINE, PROMPT, NEGATIVE = T5["pipeline"], SIDECAR["prompt"], SIDECAR["negative"]
TEXTS = SIDECAR["prompts"][:100] + T5["odd"]
TOKENIZER = json.loads(LINE["files"]["tokenizer_3/tokenizer.json"])
CONFIG, FILE = "text_encoder_3/config.json", "text_encoder_3/model.safetensors"


def written(folder, dtype=np.float64, shared="shared.weight"):
    """The folder of the "sd3" of saved_models with T5 in it. shared: the name of the table. Returns it."""
    saved_models.write("sd3", folder, dtype)
    for file, text in LINE["files"].items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text, "utf-8")
    tensors = redrawn(LINE["shapes"], LINE["seed"])
    saved_models.safetensors(folder / FILE, {shared if path == "shared.weight" else path: a.astype(dtype)
                                             for path, a in tensors.items()})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("t5"))


def reading(folder, **changes):
    """The tokenizer of a tokenizer.json with some parts changed."""
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER | changes), "utf-8")
    return unigram(folder, 256)


@pytest.mark.filterwarnings("ignore:the prompt has")
@pytest.mark.parametrize("key, style", [("ids", {}), *((f"ids{i}", style) for i, style in enumerate(T5["styles"]))])
def test_113_prompts_have_the_published_tokens(tmp_path, key, style):
    """Cut, ended and filled up to 256, with letters that are no piece in some."""
    ids = sd.tokenize({"tokenizer": reading(tmp_path, **style)}, TEXTS)
    np.testing.assert_array_equal(ids, ARRAYS[f"tokenizer/{key}"])
    assert ids.shape == (113, 256) and (ids == 2).any(axis=1).sum() > 20 and np.all((ids == 1).sum(axis=1) >= 1)


def test_the_most_probable_pieces_are_not_the_longest_and_unknown_letters_are_one():
    scores = {"a": -1.0, "b": -1.0, "ab": -3.0, "abc": -9.0, "c": -6.0}
    own = {"scores": scores, "rare": -19.0, "longest": 3}
    assert likeliest("abc", own) == ["a", "b", "c"] and likeliest("ab", own) == ["a", "b"]
    assert likeliest("abc", own | {"scores": scores | {"abc": -7.0}}) == ["abc"]
    assert likeliest("xyaz", own) == ["xy", "a", "z"] and likeliest("", own) == []


@pytest.mark.parametrize("buckets, distance", [(8, 20), (8, 128), (32, 20), (32, 128)])
def test_every_distance_has_the_published_bucket(buckets, distance):
    mine, theirs = t5.relative_buckets(301, buckets, distance), ARRAYS[f"buckets/{buckets} {distance}"]  # -300 to 300
    assert np.array_equal(mine[0], theirs[300:]) and np.array_equal(mine[300], theirs[:301])
    assert np.array_equal(mine[7, 4:], mine[3, :-4]) and set(mine.ravel()) == set(range(buckets)) - {buckets // 2}


@pytest.mark.parametrize("dtype", BOUND)
def test_a_folder_with_t5_gives_the_published_text_and_image(folder, dtype):
    model = sd3.load(folder, dtype)
    context, _ = sd3.encode_text(model, [PROMPT, NEGATIVE])
    assert context.shape == (2, 77 + 256, 24)
    close(context[:, 77::10], ARRAYS["sd3/states"], dtype)
    close(context.mean(axis=1), ARRAYS["sd3/mean"], dtype)
    close(image_of(model), ARRAYS["sd3/image"], dtype)


def image_of(model):
    return sd3.text_to_image(model, PROMPT, NEGATIVE, 3, 4.0, latents=ARRAYS["sd3/latents"])


def masked(params, ids, config, keep):
    return t5.t5_encoder(params, ids, config, ids != 0, keep)


@pytest.mark.parametrize("fault, change, patch", [
    ("without T5", lambda model: {name: part for name, part in model.items() if name != "text_3"}, {}),
    ("no end", lambda model: changed(model, "tokenizer_3", end=0), {}),
    ("an end in place of each filler", lambda model: changed(model, "tokenizer_3", pad=1), {}),
    ("fillers that are not seen", lambda model: model, {"t5_encoder": masked}),
])
def test_a_wrong_variant_is_caught(folder, monkeypatch, fault, change, patch):
    for name, wrong in patch.items():
        monkeypatch.setattr(sd3, name, wrong)
    with pytest.raises(AssertionError, match="off by"):
        close(image_of(change(sd3.load(folder, np.float64))), ARRAYS["sd3/image"])


def test_t5_in_float16_stays_in_its_file_and_is_computed_with_in_float32(tmp_path):
    model = sd3.load(written(tmp_path, np.float16, "encoder.embed_tokens.weight"), np.float16)
    part = model["text_3"]
    assert all(a.dtype == np.float16 and not a.flags.owndata for a in tree.leaves(part["params"]))
    wide = model | {"text_3": part | {"params": tree.map(lambda a: a.astype(np.float32), part["params"])}}
    half, full = (sd3.encode_text(m, PROMPT)[0] for m in (model, wide))
    assert half.dtype == np.float32 and np.array_equal(half, full) and half[:, 77:].std() > 0.1


def test_the_encoder_keeps_float32_and_drops_its_cache():
    case = T5["cases"]["t5"]
    params, ids = tree.from_named(redrawn(case["shapes"], case["seed"])), ARRAYS["t5/in/ids"]
    y, _ = t5.t5_encoder(tree.map(np.float32, params), ids, case["config"], keep=False)
    assert y.dtype == np.float32
    assert_close(y.astype(np.float64), ARRAYS["t5/out/0"], 1e-5, np.abs(y).max())
    assert t5.t5_encoder(params, ids, case["config"], keep=False)[1] is None


@pytest.mark.parametrize("changes, named", [
    (dict(feed_forward_proj="relu"), "feed_forward_proj"), (dict(dense_act_fn="silu"), "dense_act_fn"),
    (dict(d_model=20), "attention_dim: .* 20, got 24"), (dict(d_ff=21), r"wi_0\.weight: expected shape \(21, 24\)"),
    (dict(router="on"), "router"),
])
def test_what_does_not_fit_in_the_config_is_named(folder, tmp_path, changes, named):
    path = written(tmp_path) / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
    with pytest.raises(ValueError, match=named):
        sd3.load(tmp_path)


@pytest.mark.parametrize("changes, named", [
    (dict(model=TOKENIZER["model"] | {"type": "BPE"}), "type: expected 'Unigram', got 'BPE'"),
    (dict(model=TOKENIZER["model"] | {"byte_fallback": True}), "byte_fallback"),
    (dict(model=TOKENIZER["model"] | {"vocab": TOKENIZER["model"]["vocab"][1:]}), "lacks <pad>"),
    (dict(normalizer={"type": "Lowercase"}), "Lowercase"),
    (dict(pre_tokenizer={"type": "Metaspace", "prepend_scheme": "first"}), "prepend_scheme"),
    (dict(pre_tokenizer=None), "pre_tokenizer"), (dict(pre_tokenizer={"type": "Whitespace"}), "Whitespace"),
])
def test_a_tokenizer_of_another_kind_is_named(tmp_path, changes, named):
    with pytest.raises(ValueError, match=named):
        reading(tmp_path, **changes)


def test_a_folder_with_a_model_of_sentencepiece_alone_says_what_is_needed(tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json.*spiece\.model.*T5TokenizerFast"):
        unigram(tmp_path, 256)
