"""Tokenizers and other JSON files of a folder in the layout of diffusers."""
import base64
import functools
import json
import re

import numpy as np

from ref.pipelines.tokenizer import cleaned
from ref.shapes import number

RARER = 10  # by how much the score of a letter that is no piece is below all scores of T5's pieces, as published


def named(read):
    """A reader whose errors name the folder where a file has another structure. read: function of a folder first."""
    @functools.wraps(read)
    def guarded(folder, *given):
        try:
            return read(folder, *given)
        except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as reason:
            raise ValueError(f"{folder}: expected a tokenizer as transformers writes it, got {type(reason).__name__}: "
                             f"{reason}") from None

    return guarded


@named
def tokenizer(folder, places, size):
    """The tokenizer of a folder, as `ref.pipelines.tokenizer` has it.

    folder: path, with tokenizer.json or with vocab.json and merges.txt. places: the longest sequence that the text
    encoder takes. size: the number of its tokens.
    Returns a dict.
    Raises ValueError for what is no whole tokenizer, and for a token that stands for a single word alone.
    """
    said = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        said |= json_of(folder / file) if (folder / file).exists() else {}
    added, more = [token | {"id": int(i)} for i, token in said.get("added_tokens_decoder", {}).items()], {}
    if (folder / "tokenizer.json").exists():
        whole = json_of(folder / "tokenizer.json")
        _only(folder, whole["model"], type="BPE")
        vocab, added = whole["model"]["vocab"], whole.get("added_tokens", [])
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in whole["model"]["merges"]]
    elif not (folder / "vocab.json").exists():
        raise FileNotFoundError(f"{folder}: expected tokenizer.json, or vocab.json and merges.txt, but none is there")
    else:
        vocab, lines = json_of(folder / "vocab.json"), (folder / "merges.txt").read_text("utf-8").split("\n")
        pairs = [line.split() for line in lines if line.strip() and not line.startswith("#version")]
        if not added and (folder / "added_tokens.json").exists():
            more = json_of(folder / "added_tokens.json")
    for token in added:
        _only(folder, token, single_word=(False, None))
    own = {kind: said.get(f"{kind}_token") or default for kind, default in (
        ("bos", "<|startoftext|>"), ("eos", "<|endoftext|>"), ("unk", "<|endoftext|>"), ("pad", "<|endoftext|>"))}
    own = {kind: token if isinstance(token, dict) else {"content": token} for kind, token in own.items()}
    text = {kind: token["content"] for kind, token in own.items()}
    known = vocab | more | {token["content"]: token["id"] for token in added}
    if lacking := sorted(set(text.values()) - set(known)):
        raise ValueError(f"{folder}: the vocabulary lacks {', '.join(lacking)}")
    length = min(int(number(said.get("model_max_length", places), "model_max_length")), places)
    for wanted, wrong in (
            (f"ids from 0 to {size - 1}", [i for i in known.values() if type(i) is not int or not 0 <= i < size]),
            ("merges of two pieces", [pair for pair in pairs if len(pair) != 2]),
            ("a model_max_length of at least 2", [length] * (length < 2))):
        if wrong:
            raise ValueError(f"{folder}: expected {wanted}, got {wrong[0]!r}")
    # Found in the text as it stands, or in lower case: the last that says it decides, as in transformers
    lower = dict.fromkeys(more, True) | {token["content"]: token.get("normalized") for token in [*own.values(), *added]}
    ids = {kind: known[token] for kind, token in text.items()}
    return {"vocab": vocab, "merges": {tuple(pair): rank for rank, pair in enumerate(pairs)},
            "special": {token: known[token] for token in lower if not lower[token]},
            "added": {cleaned(token): known[token] for token in lower if lower[token]},
            "start": ids["bos"], "end": ids["eos"], "pad": ids["pad"], "unknown": ids["unk"], "length": length}


@named
def unigram(folder, length):
    """The tokenizer of a folder, as `ref.pipelines.unigram` has it. folder: path, with tokenizer.json. length: of a
    sequence. Raises ValueError for steps that are not known there."""
    if not (folder / "tokenizer.json").exists():
        there = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
        raise FileNotFoundError(f"{folder / 'tokenizer.json'}: not there; the folder has {there}; save_pretrained of "
                                "transformers' T5TokenizerFast writes it")
    whole = json_of(folder / "tokenizer.json")
    model, special = whole["model"], {token["content"]: token["id"] for token in whole.get("added_tokens", [])}
    _only(folder, model, type="Unigram", byte_fallback=False)
    kinds, clean = [], [_step(folder, step) for step in _steps(whole.get("normalizer"), "normalizers")]
    for step in _steps(whole.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] != "WhitespaceSplit":
            _only(folder, step, type="Metaspace", replacement="\u2581", prepend_scheme="always", add_prefix_space=True,
                  split=True)
        kinds.append(step["type"])
    if kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        raise ValueError(f"{folder}: pre_tokenizer: expected Metaspace, perhaps after WhitespaceSplit, got {kinds}")
    scores = dict(model["vocab"])
    vocab = {piece: i for i, (piece, _) in enumerate(model["vocab"])}
    if lacking := {"</s>", "<pad>"} - vocab.keys():
        raise ValueError(f"{folder}: the vocabulary lacks {', '.join(sorted(lacking))}")
    return {"vocab": vocab, "scores": scores, "rare": min(scores.values()) - RARER, "longest": max(map(len, scores)),
            "clean": clean, "apart": len(kinds) == 2, "special": special, "end": vocab["</s>"], "pad": vocab["<pad>"],
            "unknown": model["unk_id"], "length": length}


def _steps(given, inner):
    """The steps of a part of tokenizer.json, a list, one after another. inner: the key of those of a Sequence."""
    if given and given["type"] == "Sequence":
        return [step for part in given[inner] for step in _steps(part, inner)]
    return [given] if given else []


def _step(folder, step):
    """A step of `ref.pipelines.unigram.cleaned`."""
    if step["type"] == "Precompiled":
        raw = base64.b64decode(step["precompiled_charsmap"])
        size = 4 + int.from_bytes(raw[:4], "little")
        return "Precompiled", np.frombuffer(raw[4:size], "<u4"), raw[size:] + b"\0"
    if step["type"] == "Strip":
        return "Strip", step["strip_left"], step["strip_right"]
    if step["type"] == "Replace":
        (kind, pattern), = step["pattern"].items()
        return "Replace", pattern if kind == "Regex" else re.escape(pattern), step["content"]
    _only(folder, step, type=("NFC", "NFD", "NFKC", "NFKD"))
    return step["type"],


def _only(folder, given, **allowed):
    """Raises ValueError where a setting is there and not one of those that are allowed."""
    for key, values in allowed.items():
        values = values if isinstance(values, tuple) else (values,)
        if key in given and given[key] not in values:
            raise ValueError(f"{folder / 'tokenizer.json'}: {key}: expected {' or '.join(map(repr, values))}, got "
                             f"{given[key]!r}")


def json_of(path):
    """What a JSON file holds, a dict. path: file. Raises ValueError for anything else."""
    try:
        held = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as reason:
        raise ValueError(f"{path}: expected JSON, got {reason}") from None
    if not isinstance(held, dict):
        raise ValueError(f"{path}: expected an object in braces, got {type(held).__name__}")
    return held
