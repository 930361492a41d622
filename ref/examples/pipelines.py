"""Worked examples of `ref.pipelines`: a Stable Diffusion, and a third one, of a few thousand random parameters each,
which draw a blur."""
import functools
import string

import numpy as np

from ref.examples.base import digits, sines
from ref.examples.nets import stirred
from ref.nets import autoencoder, mmdit, t5, text, unet
from ref.pipelines.config import checked

MERGES = [("h", "o"), ("r", "s"), ("ho", "rs"), ("hors", "e</w>"), ("i", "n</w>"), ("s", "p")]
SIGNS = string.ascii_lowercase + string.digits + "!',.-"
PIECES = [*SIGNS, *(f"{sign}</w>" for sign in SIGNS), *map("".join, MERGES), "<start>", "<end>"]
VOCAB = {piece: i for i, piece in enumerate(PIECES)}
START, END = VOCAB["<start>"], VOCAB["<end>"]
TOKENIZER = {"vocab": VOCAB, "merges": {pair: rank for rank, pair in enumerate(MERGES)}, "special": {"<end>": END},
             "added": {}, "start": START, "end": END, "pad": END, "unknown": END, "length": 12}
SCORES = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0} | {piece: -k / 2 for k, piece in enumerate(
    ["\u2581a", "e", "\u2581", "s", "p", "\u2581horse", "\u2581in", "ace", "o", "ho", "rs", "se", "horse"], 3)}
UNIGRAM = {"vocab": {piece: i for i, piece in enumerate(SCORES)}, "scores": SCORES, "rare": min(SCORES.values()) - 10,
           "longest": 6, "clean": [("NFKC",), ("Strip", False, True)], "apart": True, "special": {"</s>": 1}, "end": 1,
           "pad": 0, "unknown": 2, "length": 9}
SCHEDULER = checked("scheduler", {
    "_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "steps_offset": 1, "set_alpha_to_one": False})
UNET = checked("unet", {
    "block_out_channels": [4, 4], "layers_per_block": 1, "norm_num_groups": 2, "attention_head_dim": 2,
    "cross_attention_dim": 4, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "mid_block_type": None})
VAE = checked("vae", {
    "block_out_channels": [4, 4], "norm_num_groups": 2, "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2})
TEXT = checked("text", {"num_attention_heads": 2})
T5 = checked("t5", {"vocab_size": len(SCORES), "d_model": 8, "d_kv": 3, "d_ff": 6, "num_layers": 2, "num_heads": 2,
                    "relative_attention_num_buckets": 8, "feed_forward_proj": "gated-gelu"})
NET = checked("transformer", {
    "sample_size": 32, "in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 4,
    "num_attention_heads": 1, "joint_attention_dim": 8, "pooled_projection_dim": 6, "pos_embed_max_size": 16})


@functools.cache
def model():
    """The parts, as `ref.pipelines.stable_diffusion.load` returns them, made when they are needed."""
    made = {"unet": (unet.unet_init(0, UNET), UNET), "vae": (autoencoder.autoencoder_init(0, 3, 4, (4, 4), 1), VAE),
            "text": (text.text_encoder_init(0, len(VOCAB), 12, 4, 1), TEXT)}
    return {name: {"params": stirred(params), "config": config} for name, (params, config) in made.items()} | {
        "tokenizer": TOKENIZER, "scheduler": SCHEDULER}


@functools.cache
def third():
    """The parts of Stable Diffusion 3, with two encoders of the same size, whose projections give 3 numbers each, and
    T5."""
    first, end = model(), {"text_projection": {"weight": sines((3, 4))}}
    encoders = {name: {"params": first["text"]["params"] | end, "config": TEXT | {"eos_token_id": END}}
                for name in ("text", "text_2")}
    encoders["text_3"] = {"params": stirred(t5.t5_encoder_init(0, T5)), "config": T5}
    return encoders | {"vae": first["vae"], "tokenizer_3": UNIGRAM, "tokenizer": TOKENIZER, "tokenizer_2": TOKENIZER,
                       "transformer": {"params": stirred(mmdit.mmdit_init(0, NET)), "config": NET},
                       "scheduler": checked("flow", {"shift": 3.0})}


IMAGE = np.broadcast_to(digits()[:, None, ::2, ::2], (2, 3, 8, 8))
LATENTS, STATES = sines((2, 4, 4, 4)), sines((2, 12, 4), 3)
IDS = np.array([[START, 7, 14, *[END] * 9], [START, 8, 9, 10, *[END] * 8]])

ARGUMENTS = dict(
    model=lambda: model(), x=LATENTS, cond=STATES, uncond=sines((2, 12, 4), 5), context=STATES, image=IMAGE,
    prompts=["a horse", "in space!"], ids=IDS, t=np.array([3, 981]), z=LATENTS, text="a horse in space",
    word="horses", merges=TOKENIZER["merges"], tokenizer=TOKENIZER, config=SCHEDULER, steps=2, sampler="ddim",
    visited=np.array([501, 1]), guidance=2.0, size=(8, 8), count=2, latents=None,
)
FUNCTIONS = {
    "stable_diffusion.image_to_image": dict(image=(IMAGE + 1) / 2, strength=0.5, steps=4),
    "stable_diffusion.text_to_image": dict(steps=2, size=(8, 8), sampler="ddim", guidance=2.0),
    "stable_diffusion.denoise": dict(guidance=None),
    "schedule.times": dict(steps=4),
    "stable_diffusion_3.text_to_image": dict(model=lambda: third(), steps=2, size=(8, 8), guidance=2.0),
    "stable_diffusion_3.encode_text": dict(model=lambda: third()),
    "stable_diffusion_3.denoise": dict(model=lambda: third(), t=0.5, context=sines((2, 9, 8)), pooled=sines((2, 6))),
    "stable_diffusion_3.times": dict(config=checked("flow", {"shift": 3.0}), steps=4),
    "unigram.cleaned": dict(text="a\u00a0\uff48orse\ufb01 ", steps=UNIGRAM["clean"]),
    "unigram.parts": dict(text="a horse in  space", apart=True),
    "unigram.likeliest": dict(word="\u2581horses", tokenizer=UNIGRAM),
    "unigram.piece_ids": dict(tokenizer=UNIGRAM),
}
