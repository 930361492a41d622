"""A diffusion transformer that reads a text: the words and the patches of the image are tokens of one stream.

Time and the text as a whole shift, scale and gate every block, as time and class do in `ref.nets.dit`, whose blocks
these are; single words are read by attention. This is the joint attention of [SD3] with one set of weights for both
kinds of tokens; `ref.nets.mmdit` has two.

Papers
    [DiT]  Peebles, Xie, "Scalable Diffusion Models with Transformers", 2023
    [SD3]  Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024
"""
import math

import numpy as np

from ref.layers import (
    feed_forward, feed_forward_backward, linear, linear_backward, patchify, patchify_backward, silu, silu_backward,
    time_embedding, unpatchify, unpatchify_backward,
)  # fmt: skip
from ref.nets.dit import dit_block, dit_block_backward, final_layer, final_layer_backward
from ref.nets.init import joint_dit_init
from ref.tree import apply, filled, gradient


def joint_dit(params, x, t, context, config):
    """y(x, t, text): a linear layer of each word and of each patch, plus its place; blocks with adaLN-Zero over all of
    them, [DiT] section 3.2 (its in-context conditioning too); and a linear layer from the tokens of patches back to
    the image.

    params: from `joint_dit_init`. x: (B, C, H, W). t: (B,) or one number, 1000 times the time of `ref.flow`. context:
    (B, L, E), the text. config: dict with num_heads.
    Returns y (B, C, H, W), cache.
    Raises ValueError where x does not fit the table of places, or the text has another length than L.
    """
    B, C = x.shape[:2]
    patch, words = _patch(params, C), context.shape[1]
    # Tokens of the text and of the image
    patches = patchify(x, patch)  # (B, N, patch patch C)
    if params["pos_embed"].shape[0] != patches.shape[1]:
        raise ValueError(f"x: expected {len(params['pos_embed'])} patches, got {patches.shape[1]} in x {x.shape}")
    image = apply(linear, params["x_embedder"], patches) + params["pos_embed"]
    h = np.concatenate([apply(linear, params["context_embedder"], context), image], axis=1)  # (B, L + N, D)
    # Time, and the text as a whole
    width = params["t_embedder"]["mlp"][0]["weight"].shape[1]
    sines = np.asarray(time_embedding(np.broadcast_to(t, B), width, flip_sin_to_cos=True), x.dtype, like=x)
    c, time = feed_forward(params["t_embedder"]["mlp"], sines, "silu")
    c = c + apply(linear, params["pooled_embedder"], context.reshape(B, -1))  # (B, D)
    # Blocks
    a, kept = silu(c), []
    for block in params["blocks"]:
        h, cache = dit_block(block, h, a, config["num_heads"])
        kept.append(cache)
    # Back to an image
    tokens, last = final_layer(params["final_layer"], h[:, words:], a)
    y = unpatchify(tokens, patch, x.shape[2:])
    return y, {"x": x, "patches": patches, "context": context, "c": c, "time": time, "blocks": kept, "last": last}


def joint_dit_backward(dy, params, cache):
    """Gradients of `joint_dit`. dy: as y there. params: as there. cache: of the forward. Returns dx, dcontext,
    dparams."""
    x, context, grads = cache["x"], cache["context"], {}
    patch, words = _patch(params, x.shape[1]), context.shape[1]
    # Back to an image
    dpatches, da, grads["final_layer"] = final_layer_backward(
        unpatchify_backward(dy, patch), params["final_layer"], cache["last"])
    dwords = np.zeros((len(x), words, dpatches.shape[2]), dpatches.dtype, like=dpatches)
    dh = np.concatenate([dwords, dpatches], axis=1)
    # Blocks
    blocks = []
    for block, kept in zip(reversed(params["blocks"]), reversed(cache["blocks"])):
        dh, da_block, dblock = dit_block_backward(dh, block, kept)
        da = da + da_block
        blocks.insert(0, dblock)
    grads["blocks"] = blocks
    # Time, and the text as a whole
    dc = silu_backward(da, cache["c"])
    _, dtime = feed_forward_backward(dc, params["t_embedder"]["mlp"], cache["time"], "silu")
    grads["t_embedder"] = {"mlp": dtime}
    dpooled, grads["pooled_embedder"] = gradient(
        linear_backward, dc, params["pooled_embedder"], context.reshape(len(x), -1))
    # Tokens of the text and of the image
    dcontext, grads["context_embedder"] = gradient(
        linear_backward, dh[:, :words], params["context_embedder"], context)
    dimage, grads["x_embedder"] = gradient(linear_backward, dh[:, words:], params["x_embedder"], cache["patches"])
    grads["pos_embed"] = dh[:, words:].sum(axis=0)
    return patchify_backward(dimage, x, patch), dcontext + dpooled.reshape(context.shape), filled(params, grads)


def _patch(params, channels):
    return math.isqrt(params["x_embedder"]["weight"].shape[1] // channels)
