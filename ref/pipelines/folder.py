"""Weights, configs and tokenizer of a folder in the layout of diffusers.

A safetensors file is 8 bytes, the length of a JSON header, the header, and raw little-endian numbers: read here in a
few lines, for `ref` imports nothing but NumPy, and NumPy has no bfloat16 for the published library to return. What has
the wanted dtype stays in the file (`np.memmap`) and is read where it is used. Pickle files run code and are refused.
"""
import json
from pathlib import Path

import numpy as np

from ref import tree
from ref.nets import autoencoder, mmdit, t5, text, unet
from ref.pipelines.config import checked
from ref.pipelines.vocabulary import json_of, tokenizer, unigram

KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # bfloat16 is the upper half of a float32
PICKLES = "*.bin", "*.ckpt", "*.pt", "*.pth"
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of the autoencoder's attention
FILE = "diffusion_pytorch_model"
# {name: (folder, kind of network, file)} of Stable Diffusion 1 and 2, and of 3
FIRST = {"text": ("text_encoder", "text", "model"), "unet": ("unet", "unet", FILE), "vae": ("vae", "vae", FILE)}
THIRD = {"text": ("text_encoder", "projected", "model"), "text_2": ("text_encoder_2", "projected", "model"),
         "transformer": ("transformer", "transformer", FILE), "vae": ("vae", "vae", FILE)}
T5 = {"text_3": ("text_encoder_3", "t5", "model")}  # of 3, where the folder has it
INITS = {"unet": unet.unet_init, "transformer": mmdit.mmdit_init, "t5": t5.t5_encoder_init}
T5_TOKENS = 256  # places of the third text, as published
MOST = 5  # names that a message lists


def load(folder, dtype=np.float32, variant=None):
    """A Stable Diffusion model from its folder.

    folder: path with unet/, vae/, text_encoder/, tokenizer/, scheduler/; of Stable Diffusion 3 with transformer/ in
    place of unet/, with text_encoder_2/, tokenizer_2/ and perhaps text_encoder_3/, tokenizer_3/. dtype: of the
    parameters, np.float32, np.float64, or np.float16, which is widened to float32 a layer at a time where it is used:
    a T5 that was saved in it stays in its file. variant: "fp16" for the files *.fp16.safetensors, None for those
    without.
    Returns {"unet", "vae", "text": {"params": tree, "config": dict}, "tokenizer": dict, "scheduler": dict}; of Stable
    Diffusion 3 "transformer" in place of "unet", and "text_2", "tokenizer_2"; "text_3", "tokenizer_3" where it has T5.
    Raises FileNotFoundError for a missing file; ValueError for pickle files, a damaged file, tensors that are missing,
    unknown or of another shape, a config beyond `ref.pipelines.config`; TypeError for another dtype.
    """
    folder, dtype = Path(folder), np.dtype(dtype)
    if dtype not in (np.float16, np.float32, np.float64):
        raise TypeError(f"dtype: expected float16, float32 or float64, got {dtype}")
    third = (folder / "transformer").exists()
    if not third and (folder / "text_encoder_2").exists():
        raise ValueError(f"folder: {folder / 'text_encoder_2'}: a model of another family than Stable Diffusion 1 to 3")
    # Configs first: they are small, and say what is refused
    parts = (THIRD | (T5 if (folder / "text_encoder_3").exists() else {})) if third else FIRST
    kinds, configs = _configs(folder, parts)
    scheduler = json_of(folder / "scheduler/scheduler_config.json")
    model = {"scheduler": checked("flow" if third else "scheduler", scheduler)}
    for end in ("", "_2")[:1 + third]:
        sizes = (configs[f"text{end}"][key] for key in ("max_position_embeddings", "vocab_size"))
        model[f"tokenizer{end}"] = tokenizer(folder / f"tokenizer{end}", *sizes)
    if "text_3" in parts:
        model["tokenizer_3"] = unigram(folder / "tokenizer_3", T5_TOKENS)
    # Weights
    for name, (place, _, file) in parts.items():
        found = _renamed(kinds[name], tensors(folder / place, file, variant))
        _compare(folder / place, found, expected(kinds[name], configs[name]))
        params = tree.from_named({path: converted(*a, dtype) for path, a in found.items()})
        model[name] = {"params": params, "config": configs[name]}
    return model


def _configs(folder, parts):
    """The kinds of the networks and their configs, both {name: it}. parts: FIRST or THIRD, perhaps with T5."""
    read = {name: json_of(folder / place / "config.json") for name, (place, _, _) in parts.items()}
    kinds = {name: kind for name, (_, kind, _) in parts.items()}
    if read["vae"].get("_class_name") == "AutoencoderTiny" or "decoder_block_out_channels" in read["vae"]:
        kinds["vae"] = "tiny"
    configs = {name: checked(kinds[name].replace("projected", "text"), config) for name, config in read.items()}
    net, latent = "unet" if "unet" in parts else "transformer", configs["vae"]["latent_channels"]
    channels = configs[net]["in_channels"]
    if not channels == (out := configs[net]["out_channels"] or channels) == latent:
        raise ValueError(f"{net}: in_channels, out_channels: expected the latent_channels of the vae, {latent}, got "
                         f"{channels} and {out}: a model for inpainting or upscaling")
    _texts_fit(configs, net)
    return kinds, configs


def _texts_fit(configs, net):
    """Raises ValueError where the network reads texts of another width than the encoders make. net: its name."""
    texts, reads = [configs[name] for name in ("text", "text_2") if name in configs], configs[net]
    width, pooled = (sum(text[key] or 0 for text in texts) for key in ("hidden_size", "projection_dim"))
    if net == "unet":
        read = {shape[1] for path, shape in expected(net, reads).items() if path.endswith("attn2.to_k.weight")}
        rules = [("cross_attention_dim", f"the text encoder's hidden_size, {width}", read <= {width})]
    else:
        other, own = (reads[key] for key in ("pooled_projection_dim", "joint_attention_dim"))
        t5_width = configs.get("text_3", {}).get("d_model", own)
        rules = [("pooled_projection_dim", f"the sum of the texts' projection_dim, {pooled}", other == pooled),
                 ("joint_attention_dim", f"the d_model of text_encoder_3, {t5_width}", own == t5_width),
                 ("joint_attention_dim", f"at least the sum of the texts' hidden_size, {width}", own >= width)]
    for key, said, holds in rules:
        if not holds:
            raise ValueError(f"{net}: {key}: expected {said}, got {reads[key]}")


def tensors(folder, name, variant=None):
    """{path: (raw numbers, kind)} of a folder's safetensors, of all files of a sharded index. folder: path. name: of
    the file without its ending. variant: as in `load`."""
    end = f".{variant}" if variant else ""
    single = folder / f"{name}{end}.safetensors"
    indices = [folder / f"{name}.safetensors.index{end}.json", folder / f"{name}{end}.safetensors.index.json"]
    if single.exists():
        return _file(single)
    for index in indices:
        if index.exists():
            weights = json_of(index).get("weight_map")
            if not isinstance(weights, dict) or not all(isinstance(file, str) for file in weights.values()):
                raise ValueError(f"{index}: weight_map: expected an object of tensors and their files, got {weights!r}")
            found = {path: a for file in sorted(set(weights.values())) for path, a in _file(folder / file).items()}
            if lacking := sorted(set(weights) - set(found)):
                raise ValueError(f"{index}: no file has {', '.join(lacking[:MOST])}")
            return found
    if pickles := [path.name for pattern in PICKLES for path in folder.glob(pattern)]:
        raise ValueError(f"{folder}: only pickle files ({', '.join(sorted(pickles)[:MOST])}), which can run any code "
                         f"when they are read; expected {single.name}")
    there = ", ".join(sorted(path.name for path in folder.glob("*.safetensors"))) or "no safetensors"
    raise FileNotFoundError(f"{single}: not there; the folder has {there}")


def _file(path):
    """{name: (raw numbers, kind)} of one safetensors file, all of them views of the mapped file, which no writing
    changes: kernels copy what is read-only."""
    raw = np.memmap(path, np.uint8, "c").view(np.ndarray) if path.stat().st_size else np.zeros(0, np.uint8)
    length = int.from_bytes(raw[:8].tobytes(), "little")
    try:
        header = json.loads(raw[8:8 + length].tobytes())
        header.pop("__metadata__", None)
        found, spans = {}, sorted(tuple(about["data_offsets"]) for about in header.values())
        if [0, *(last for _, last in spans)] != [*(first for first, _ in spans), raw.size - 8 - length]:
            raise ValueError("its tensors do not fill it one after another")
        for name, about in header.items():
            first, last = (8 + length + offset for offset in about["data_offsets"])
            if name.endswith("position_ids"):  # whole numbers from 0, which old files have
                continue
            if about["dtype"] not in KINDS:
                raise ValueError(f"{name}: expected {', '.join(KINDS)}, got {about['dtype']}")
            numbers = np.ndarray(about["shape"], KINDS[about["dtype"]], raw, first)
            if numbers.nbytes != last - first:
                raise ValueError(f"{name}: {last - first} bytes do not hold {about['shape']}")
            found[name] = numbers, about["dtype"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as reason:
        raise ValueError(f"{path}: no whole safetensors file: {reason}") from None
    return found


def converted(numbers, kind, dtype):
    """Raw numbers as floats, in the file where they have the dtype already. numbers: array. kind: of safetensors.
    dtype: float16, float32 or float64. Returns an array of its shape. Raises ValueError for numbers beyond it."""
    if kind == "BF16":
        wide = numbers.astype(np.uint32)
        wide <<= 16
        numbers = wide.view(np.float32)
    try:
        with np.errstate(over="raise"):
            return numbers.astype(dtype, copy=not numbers.flags.aligned)
    except FloatingPointError:
        raise ValueError(f"dtype: expected float32 for weights up to {np.abs(numbers).max():g}, got {dtype}") from None


def expected(name, config):
    """{path: shape} of the tensors that a config asks for. name: "unet", "transformer", "vae", "tiny", "t5", "text", or
    "projected" for a text encoder with a projection. config: with its defaults."""
    if name in INITS:
        return tree.named(INITS[name](None, config))
    if name in ("text", "projected"):
        shapes = tree.named(text.text_encoder_init(None, *(config[key] for key in (
            "vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "intermediate_size"))))
        last = {"text_projection.weight": (config["projection_dim"], config["hidden_size"])}
        return shapes | (last if name == "projected" else {})
    if "decoder_block_out_channels" in config:
        return tree.named(autoencoder.tiny_init(None, config["out_channels"], config["latent_channels"],
                                                config["decoder_block_out_channels"][0], config["num_decoder_blocks"]))
    params = autoencoder.autoencoder_init(None, config["in_channels"], config["latent_channels"],
                                          config["block_out_channels"], config["layers_per_block"])
    for half in ("encoder", "decoder") * (not config["mid_block_add_attention"]):
        del params[half]["mid_block"]["attentions"]
    for conv in ("quant_conv", "post_quant_conv"):
        if not config[f"use_{conv}"]:
            del params[conv]
    return tree.named(params)


def _renamed(name, found):
    """The tensors under the names of `ref.nets`, in the order of the file, without what these do not use."""
    if name in ("text", "projected"):
        named = {path.removeprefix("text_model."): a for path, a in found.items()}
        return {path: a for path, a in named.items() if path != "text_projection.weight" or name == "projected"}
    if name == "t5":  # one table, under the name of either of its uses
        table = found.pop("encoder.embed_tokens.weight", None)
        return found if table is None else {"shared.weight": table} | found
    if name == "tiny":  # its encoder is not used
        return {path: a for path, a in found.items() if path.startswith("decoder.")}
    if name == "vae":
        found = {".".join(OLD_NAMES.get(part, part) for part in path.split(".")): a for path, a in found.items()}
        return {path: (a.reshape(a.shape[:2]) if ".attentions." in path and a.ndim == 4 else a, kind)
                for path, (a, kind) in found.items()}  # of convolutions of one pixel
    return found


def _compare(place, found, wanted):
    """Raises ValueError, with names, where tensors are missing, unknown or of another shape."""
    for said, names in (("lacks", wanted.keys() - found.keys()), ("has unknown", found.keys() - wanted.keys())):
        if names:
            more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
            raise ValueError(f"{place}: the file {said} {', '.join(sorted(names)[:MOST])}{more}")
    for path, (numbers, _) in found.items():
        if numbers.shape != tuple(wanted[path]):
            raise ValueError(f"{place}: {path}: expected shape {tuple(wanted[path])}, got {numbers.shape}")

