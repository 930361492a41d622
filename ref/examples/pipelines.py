"""Worked examples of `ref.pipelines`: a Stable Diffusion of a few thousand random parameters, which draws a blur."""
import functools
import string

import numpy as np

from ref.examples.base import digits, sines
from ref.examples.nets import stirred
from ref.nets import autoencoder, text, unet
from ref.pipelines.config import checked

MERGES = [("h", "o"), ("r", "s"), ("ho", "rs"), ("hors", "e</w>"), ("i", "n</w>"), ("s", "p")]
SIGNS = string.ascii_lowercase + string.digits + "!',.-"
PIECES = [*SIGNS, *(f"{sign}</w>" for sign in SIGNS), *map("".join, MERGES), "<start>", "<end>"]
VOCAB = {piece: i for i, piece in enumerate(PIECES)}
START, END = VOCAB["<start>"], VOCAB["<end>"]
TOKENIZER = {"vocab": VOCAB, "merges": {pair: rank for rank, pair in enumerate(MERGES)}, "special": {"<end>": END},
             "start": START, "end": END, "pad": END, "unknown": END, "length": 12}
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


@functools.cache
def model():
    """The parts, as `ref.pipelines.stable_diffusion.load` returns them, made when they are needed."""
    made = {"unet": (unet.unet_init(0, UNET), UNET), "vae": (autoencoder.autoencoder_init(0, 3, 4, (4, 4), 1), VAE),
            "text": (text.text_encoder_init(0, len(VOCAB), 12, 4, 1), TEXT)}
    return {name: {"params": stirred(params), "config": config} for name, (params, config) in made.items()} | {
        "tokenizer": TOKENIZER, "scheduler": SCHEDULER}


IMAGE = np.broadcast_to(digits()[:, None, ::2, ::2], (2, 3, 8, 8))
LATENTS, STATES = sines((2, 4, 4, 4)), sines((2, 12, 4), 3)
IDS = np.array([[START, 7, 14, *[END] * 9], [START, 8, 9, 10, *[END] * 8]])

ARGUMENTS = dict(
    model=lambda: model(), x=LATENTS, cond=STATES, uncond=sines((2, 12, 4), 5), context=STATES, image=IMAGE,
    prompts=["a horse", "in space!"], ids=IDS, t=np.array([3, 981]), z=LATENTS, text="a horse in space",
    word="horses", merges=TOKENIZER["merges"], tokenizer=TOKENIZER, config=SCHEDULER, steps=2, sampler="ddim",
    visited=np.array([501, 1]), guidance=2.0, size=(8, 8),
)
FUNCTIONS = {
    "stable_diffusion.image_to_image": dict(image=(IMAGE + 1) / 2, strength=0.5, steps=4),
    "stable_diffusion.text_to_image": dict(steps=2, size=(8, 8), sampler="ddim", guidance=2.0),
    "stable_diffusion.denoise": dict(guidance=None),
    "schedule.times": dict(steps=4),
}
