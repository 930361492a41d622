"""Stable Diffusion 3 from a folder of published weights: a prompt becomes an image in five steps, as in
`ref.pipelines.stable_diffusion`, whose tokens, noise and autoencoder it shares.

    tokenize         words to numbers, for each encoder   ref/pipelines/tokenizer.py, unigram.py
    encode_text      numbers to the states of the texts   ref/nets/text.py, t5.py
    noise            what to start from                   ref/philox.py
    denoise          the velocity, for Euler's method     ref/nets/mmdit.py, ref/samplers/
    decode_image     latents to pixels                    ref/nets/autoencoder.py

The third of the text encoders, T5, is run where the folder has it, and sees the tokens that fill its text up, too, as
published; else its part of the text is 0. Its weights stay in their file if they and the model are in float16.

Papers
    [SD3]  Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024
    [CFG]  Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
"""
import math

import numpy as np

from ref import samplers
from ref.flow import shift_times
from ref.guidance import guide
from ref.layers import linear, text_end
from ref.nets.mmdit import mmdit
from ref.nets.t5 import t5_encoder
from ref.nets.text import text_encoder
from ref.pipelines.folder import T5_TOKENS, load  # noqa: F401
from ref.pipelines.stable_diffusion import decode_image, noise, shown, tokenize
from ref.shapes import integer, number
from ref.tree import apply

MOST = 10**6  # steps


def encode_text(model, prompts):
    """The text that the transformer reads, [SD3] section 4 and appendix B.2: the states before the last layer of the
    first two encoders side by side, filled up with 0 to the width of T5's, which follow, or 0 without T5; and the
    projected last states of the first two texts' ends as one vector.

    model: from `load`. prompts: str, or a list of B.
    Returns context (B, L + 256, E), pooled (B, P).
    """
    states, pooled = zip(*(_one_text(model, prompts, end) for end in ("", "_2")))
    known = np.concatenate(states, axis=2)  # (B, L, C)
    (B, _, C), width = known.shape, model["transformer"]["config"]["joint_attention_dim"]
    last = np.zeros((B, T5_TOKENS, width), known.dtype)
    if "text_3" in model:
        part = model["text_3"]
        last, _ = t5_encoder(part["params"], _tokens(model, prompts, "_3"), part["config"], keep=False)
    context = np.concatenate([np.pad(known, ((0, 0), (0, 0), (0, width - C))), last], axis=1)
    return context, np.concatenate(pooled, axis=1)


def _tokens(model, prompts, end):
    """The tokens of the prompts for one encoder, (B, L) ints."""
    return tokenize({"tokenizer": model[f"tokenizer{end}"]}, prompts)


def _one_text(model, prompts, end):
    """The states before the last layer (B, L, C) and the projected end of the text (B, P), by one encoder."""
    part, ids = model[f"text{end}"], _tokens(model, prompts, end)
    y, cache = text_encoder(part["params"], ids, part["config"])
    last = text_end(y, ids, part["config"]["eos_token_id"])  # (B, C)
    return cache["layers"][-1]["x"], apply(linear, part["params"]["text_projection"], last)


def denoise(model, x, t, context, pooled):
    """The velocity eps - x0 that the transformer predicts, [SD3] section 2.

    model: from `load`. x: (B, C, h, w) latents. t: float in [0, 1], the time of `ref.flow`. context, pooled: of
    `encode_text`.
    Returns (B, C, h, w), float32 where the parameters are float16, else in their dtype.
    """
    params, config = model["transformer"]["params"], model["transformer"]["config"]
    dtype = np.result_type(params["proj_out"]["weight"], np.float32)
    x, context, pooled = (np.asarray(a, dtype) for a in (x, context, pooled))
    t = model["scheduler"]["num_train_timesteps"] * number(t, "t")
    y, _ = mmdit(params, x, t, context, pooled, config, keep=False)
    return y


def times(config, steps):
    """The times of the sampler, equally spaced from 1 to the last that the model was trained for, shifted by [SD3]
    eq. 23, and 0. As published, that last one 1 / T is shifted before, too.

    config: of the scheduler. steps: int in [1, 1e6]. Returns (steps + 1,) float64, descending.
    Raises ValueError for steps out of range.
    """
    shift, steps = config["shift"], integer(steps, "steps")
    if not 1 <= steps <= MOST:
        raise ValueError(f"steps: expected 1 <= steps <= {MOST}, got {steps}")
    last = shift_times(1 / config["num_train_timesteps"], shift)
    return np.append(shift_times(np.linspace(1, last, steps), shift), 0)


def text_to_image(model, prompts, negative="", steps=28, guidance=7.0, seed=0, size=(1024, 1024), latents=None,
                  tick=None):
    """Images of prompts: noise, which Euler's method follows along the guided velocity to time 0, decoded.

    model: from `load`. prompts: str or list of B. negative: str, what guidance leads away from. steps: int. guidance:
    w of [CFG]; 1 is the plain conditional model. seed: int. size: (H, W). latents: (B, C, h, w) standard normal numbers
    in place of the seed's, which also decide the size; or None. tick: called with (step, steps) after each call of the
    transformer, or None.
    Returns (B, 3, H, W) in [0, 1].
    Raises ValueError for no prompt, a size that autoencoder and patches cannot make, a guidance that is not finite, and
    as `times` does.
    """
    if not math.isfinite(number(guidance, "guidance")) or not isinstance(negative, str):
        raise ValueError(f"guidance, negative: expected a finite number and a str, got {guidance} and {negative!r}")
    texts, plain = [prompts] if isinstance(prompts, str) else [*prompts], guidance == 1
    if not texts:
        raise ValueError("prompts: expected at least one, got none")
    x, visited = noise(model, len(texts), size, seed, latents), times(model["scheduler"], steps)
    patch = model["transformer"]["config"]["patch_size"]
    if x.shape[2] % patch or x.shape[3] % patch:
        raise ValueError(f"size: expected latents in patches of {patch} x {patch}, got {x.shape[2:]}")
    # All texts at once, for T5 is large
    both = encode_text(model, texts if plain else [*texts, negative])
    text, without = [a[:len(x)] for a in both], [np.repeat(a[len(x):], len(x), axis=0) for a in both]
    calls = []

    def velocity(x, t):
        v = denoise(model, x, t, *text).astype(np.float64)
        if not plain:
            v = guide(denoise(model, x, t, *without).astype(np.float64), v, guidance)
        calls.append(t)
        if tick:
            tick(len(calls), steps)
        return v

    return shown(decode_image(model, samplers.flow_euler(velocity, x, visited)))
