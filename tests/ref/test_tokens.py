"""Tokens of their own: those that a model learned, and the start and the end, written by hand in capitals. What is
expected is what transformers 5.23 gives for the same files."""
import json

import numpy as np
import pytest

from ref.pipelines import stable_diffusion as sd
from tests.ref import saved_models
from tests.ref.test_folders import configured, folder, saved  # noqa: F401  (folder and saved are fixtures)

START, END = "<|startoftext|>", "<|endoftext|>"
ADDED = {"<Toy>": 604, "sks": 605, "<Toy>x": 606}
PARTS = {"a <toy> b": ["a</w>", 604, "b</w>"], "<TOY>X<toy>": [606, 604], "a sks": ["a</w>", 605], "<endoftext>": None}


@pytest.mark.parametrize("how", ["added_tokens.json", "tokenizer_config.json"])
def test_tokens_that_were_added_are_found_in_the_text_in_lower_case(folder, how):  # noqa: F811
    """As transformers 5.23 does: a token that a model learned for a new word."""
    before, place = sd.load(folder), folder / "tokenizer" / how
    tokens = {str(i): {"content": token, "normalized": token != "sks"} for token, i in ADDED.items()}
    newer = json.loads((folder / "tokenizer/tokenizer_config.json").read_text("utf-8")) | {
        "added_tokens_decoder": tokens}
    place.write_text(json.dumps(ADDED if how == "added_tokens.json" else newer), "utf-8")
    larger = {path: np.resize(a, (607, 12)) if "token_embedding" in path else a
              for path, a in saved_models.drawn("sd1")["text_encoder/model.safetensors"].items()}
    saved_models.safetensors(folder / "text_encoder/model.safetensors", larger)
    configured("text_encoder/config.json", vocab_size=607)(folder)
    model = sd.load(folder)
    for text, wanted in PARTS.items():
        mine, old = (sd.tokenize(m, text)[0] for m in (model, before))
        ids = [before["tokenizer"]["vocab"].get(token, token) for token in wanted or []]
        np.testing.assert_array_equal(mine[1:1 + len(ids)] if wanted else mine, ids or old)
        assert mine[1 + len(ids)] == before["tokenizer"]["end"] or not wanted


BOTH = {"bos_token": {"content": START, "normalized": True}, "eos_token": {"content": END, "normalized": True}}
DECODER = {"602": {"content": START, "normalized": True}, "603": {"content": END, "normalized": True}}


@pytest.mark.parametrize("said, marks", [
    (BOTH | {"unk_token": END, "pad_token": END}, {START}),  # as of SD 1.5: what is said last of the end counts
    (BOTH | {"unk_token": {"content": END, "normalized": True}, "pad_token": "!"}, {START, END}),
    ({"bos_token": START, "eos_token": END, "added_tokens_decoder": DECODER}, {START, END}),
    ({"bos_token": START, "eos_token": END}, set()),
])
def test_a_mark_in_capitals_is_one_where_the_files_say_so(folder, said, marks):  # noqa: F811
    (folder / "tokenizer/special_tokens_map.json").unlink()
    (folder / "tokenizer/tokenizer_config.json").write_text(json.dumps(said), "utf-8")
    model = sd.load(folder)
    for mark, at in ((START, 602), (END, 603)):
        ids = sd.tokenize(model, f"a {mark.upper()} b")[0]
        assert (ids[2] == at and ids[4] == 603) == (mark in marks)
        assert ids[1] != at == sd.tokenize(model, f"a {mark} b")[0][2]
