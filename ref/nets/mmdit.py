"""The two-stream transformer of Stable Diffusion 3: tokens of the image and of the text, each stream with its own
weights, meet in one attention.

params has the published names (diffusers' `SD3Transformer2DModel`) and holds the structure: the attention normalises
its queries and keys, a block has a second attention, the last block gives no text, where its dict says so. config has
the published keys, of which arrays cannot say num_attention_heads alone.

Papers
    [SD3]  Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024
    [DiT]  Peebles, Xie, "Scalable Diffusion Models with Transformers", 2023
"""
import math

import numpy as np

from ref.layers import (
    conv2d, conv2d_backward, feed_forward, feed_forward_backward, gate_residual, gate_residual_backward,
    joint_attention, joint_attention_backward, layer_norm_modulate, layer_norm_modulate_backward, linear,
    linear_backward, multi_head, multi_head_backward, patchify, silu, silu_backward, sincos_2d, time_embedding,
    unpatchify,
)  # fmt: skip
from ref.nets.init import mmdit_init
from ref.shapes import per_example
from ref.tree import apply, filled, gradient

EPS, NONE = 1e-6, ((0, 0), (0, 0))  # of all norms; the padding of patches


def mmdit(params, x, t, context, pooled, config, keep=True):
    """v_hat(x, t, text), [SD3] section 4 and figure 2: a linear layer of each patch, plus its place; blocks of two
    streams; and a linear layer back to patches. Time and the pooled text shift, scale and gate all of it.

    params: of a published file, or from `mmdit_init`. x: (B, C, H, W). t: (B,) or one number, 1000 times the time of
    `ref.flow`. context: (B, L, E), the text. pooled: (B, P), the text as a whole. config: dict. keep: bool.
    Returns y (B, O, H, W), without the last rows and columns where the patch does not divide H and W; cache, or None
    for it without keep, where each part of it is freed after its use.
    Raises ValueError where x has more patches than the table of places, and for a norm of queries that is not rms_norm.
    """
    if config.get("qk_norm") not in (None, "rms_norm"):
        raise ValueError(f"qk_norm: expected None or 'rms_norm' in config, got {config['qk_norm']!r}")
    embedder, heads = params["pos_embed"]["proj"], config["num_attention_heads"]
    # Time and pooled text
    a, condition = _condition(params["time_text_embed"], x, t, pooled)  # (B, D)
    # Tokens of the image, with their places, and of the text
    patch = embedder["weight"].shape[2]
    patches = apply(conv2d, embedder, x, stride=patch, padding=NONE)  # (B, D, H / patch, W / patch)
    grid = patches.shape[2:]
    h = patchify(patches, 1) + _places(params["pos_embed"], grid, config).astype(x.dtype)  # (B, N, D)
    e = apply(linear, params["context_embedder"], context)  # (B, L, D)
    # Blocks
    blocks = []
    for block in params["transformer_blocks"]:
        h, e, cache = mmdit_block(block, h, e, a, heads)
        blocks.append(cache if keep else None)
    # Tokens to patches, patches to the image
    scale, shift = _modulation(params["norm_out"], a)  # (B, D) each: here the scale comes first
    n = layer_norm_modulate(h, shift, scale, EPS)
    tokens = apply(linear, params["proj_out"], n)  # (B, N, patch patch O)
    y = unpatchify(tokens, patch, (grid[0] * patch, grid[1] * patch))  # (B, O, H, W)
    cache = {"x": x, "context": context, "condition": condition, "a": a, "grid": grid, "blocks": blocks, "h": h,
             "scale": scale, "n": n}
    return y, cache if keep else None


def mmdit_backward(dy, params, cache, config):
    """Gradients of `mmdit`; the table of places is fixed and has 0. dy: as y there. params, config: as there. cache: of
    the forward. Returns dx, dcontext, dpooled, dparams."""
    embedder, a, grads = params["pos_embed"]["proj"], cache["a"], {}
    patch = embedder["weight"].shape[2]
    # The image to patches, patches to tokens
    dn, grads["proj_out"] = gradient(linear_backward, patchify(dy, patch), params["proj_out"], cache["n"])
    dh, dshift, dscale = layer_norm_modulate_backward(dn, cache["h"], cache["scale"], EPS)
    da, grads["norm_out"] = _modulation_gradients([dscale, dshift], params["norm_out"], a)
    # Blocks
    de, blocks = None, []
    for block, kept in zip(reversed(params["transformer_blocks"]), reversed(cache["blocks"])):
        dh, de, da_block, dblock = mmdit_block_backward(dh, de, block, kept)
        da = da + da_block
        blocks.insert(0, dblock)
    grads["transformer_blocks"] = blocks
    # Tokens of the text and of the image
    dcontext, grads["context_embedder"] = gradient(linear_backward, de, params["context_embedder"], cache["context"])
    dpatches = unpatchify(dh, 1, cache["grid"])
    dx, dproj = gradient(conv2d_backward, dpatches, embedder, cache["x"], stride=patch, padding=NONE)
    grads["pos_embed"] = {"proj": dproj}
    # Time and pooled text
    dpooled, grads["time_text_embed"] = _condition_gradients(da, params["time_text_embed"], cache["condition"])
    return dx, dcontext, dpooled, filled(params, grads)


def mmdit_block(params, x, context, a, heads):
    """A block of two streams, [SD3] figure 2b, each with shifts, scales and gates from a, as in [DiT]. With z of either
    stream and z_hat its normalised tokens:

        u = z + gate_1 Attention(image and text)
        z_next = u + gate_2 W_2 gelu(W_1 ((1 + scale_2) u_hat + shift_2))

    where each token goes into the attention as (1 + scale_1) z_hat + shift_1. With `attn2` the image has a second
    attention, to itself alone, next to the first. The last block has no more text to give.

    params: dict. x: (B, N, D), the image. context: (B, L, D), the text. a: (B, D), silu of time and pooled text. heads:
    int.
    Returns x_next (B, N, D), context_next (B, L, D), or None without ff_context; cache.
    """
    # Shifts, scales and gates
    image = _modulation(params["norm1"], a)  # 6 of (B, D), or 9 with a second attention
    text = _modulation(params["norm1_context"], a)  # 6, or in the last block 2, of which the scale comes first
    text = text if "ff_context" in params else text[::-1]
    # One attention for both streams
    n, m = layer_norm_modulate(x, *image[:2], EPS), layer_norm_modulate(context, *text[:2], EPS)
    seen, read, joint = joint_attention(params["attn"], n, m, heads)
    # The second attention of the image
    z, second, cache = x, None, {}
    if "attn2" in params:
        shift, scale, gate = image[6:]
        second, cache["attn2"] = multi_head(params["attn2"], layer_norm_modulate(x, shift, scale, EPS), None, heads)
        z = gate_residual(x, second, gate)
    # The layers of each stream
    x_next, cache["ff"] = _residuals(params["ff"], z, seen, image)
    context_next = None
    if "ff_context" in params:
        context_next, cache["ff_context"] = _residuals(params["ff_context"], context, read, text)
    return x_next, context_next, cache | {"x": x, "context": context, "a": a, "image": image, "text": text,
                                          "attn": joint, "second": second}


def mmdit_block_backward(dx_next, dcontext_next, params, cache):
    """Gradients of `mmdit_block`. dx_next, dcontext_next: as x_next and context_next there. params: as there. cache: of
    the forward. Returns dx, dcontext, da, dparams."""
    image, text, a, grads = cache["image"], cache["text"], cache["a"], {}
    # The layers of each stream
    dx, dseen, dimage, grads["ff"] = _residuals_gradients(dx_next, params["ff"], cache["ff"])
    dcontext, dread, dtext = 0, None, []
    if "ff_context" in params:
        dcontext, dread, dtext, grads["ff_context"] = _residuals_gradients(dcontext_next, params["ff_context"],
                                                                          cache["ff_context"])
    # The second attention of the image
    dsecond = []
    if "attn2" in params:
        shift, scale, gate = image[6:]
        dx, dread_second, dgate = gate_residual_backward(dx, cache["second"], gate)
        dn, _, grads["attn2"] = multi_head_backward(dread_second, params["attn2"], cache["attn2"])
        dx_second, dshift, dscale = layer_norm_modulate_backward(dn, cache["x"], scale, EPS)
        dx, dsecond = dx + dx_second, [dshift, dscale, dgate]
    # One attention for both streams
    dn, dm, grads["attn"] = joint_attention_backward(dseen, dread, params["attn"], cache["attn"])
    dx_first, *dimage_first = layer_norm_modulate_backward(dn, cache["x"], image[1], EPS)
    dcontext_first, *dtext_first = layer_norm_modulate_backward(dm, cache["context"], text[1], EPS)
    # Shifts, scales and gates
    da_image, grads["norm1"] = _modulation_gradients([*dimage_first, *dimage, *dsecond], params["norm1"], a)
    dtext = [*dtext_first, *dtext] if "ff_context" in params else dtext_first[::-1]
    da_text, grads["norm1_context"] = _modulation_gradients(dtext, params["norm1_context"], a)
    return dx + dx_first, dcontext + dcontext_first, da_image + da_text, filled(params, grads)


def _residuals(params, x, seen, modulation):
    """u = x + gate_1 seen,  y = u + gate_2 FeedForward(layer_norm_modulate(u)). Returns y, cache."""
    gate1, shift, scale, gate2 = modulation[2:6]
    u = gate_residual(x, seen, gate1)
    f, layers = feed_forward(params["net"], layer_norm_modulate(u, shift, scale, EPS), "gelu_tanh")
    return gate_residual(u, f, gate2), {"seen": seen, "u": u, "f": f, "layers": layers, "modulation": modulation}


def _residuals_gradients(dy, params, cache):
    """Gradients of `_residuals`. Returns dx, dseen, [dgate_1, dshift, dscale, dgate_2], dparams."""
    gate1, _, scale, gate2 = cache["modulation"][2:6]
    du, df, dgate2 = gate_residual_backward(dy, cache["f"], gate2)
    dn, dnet = feed_forward_backward(df, params["net"], cache["layers"], "gelu_tanh")
    du_norm, dshift, dscale = layer_norm_modulate_backward(dn, cache["u"], scale, EPS)
    dx, dseen, dgate1 = gate_residual_backward(du + du_norm, cache["seen"], gate1)
    return dx, dseen, [dgate1, dshift, dscale, dgate2], {"net": dnet}


def _modulation(params, a):
    """The shifts, scales and gates of a norm, each (B, D): a linear layer of a, in as many parts as it has times D."""
    rows, width = params["linear"]["weight"].shape
    return np.split(apply(linear, params["linear"], a), rows // width, axis=1)


def _modulation_gradients(dparts, params, a):
    """Gradients of `_modulation`. Returns da, dparams."""
    da, dlinear = gradient(linear_backward, np.concatenate(dparts, axis=1), params["linear"], a)
    return da, {"linear": dlinear}


def _condition(params, x, t, pooled):
    """a = silu(W_2 silu(W_1 sines(t)) + V_2 silu(V_1 pooled)). Returns a (B, D), cache."""
    width = params["timestep_embedder"]["linear_1"]["weight"].shape[1]
    times = np.broadcast_to(np.ravel(per_example(t, x, "t")), len(x))
    sines = np.asarray(time_embedding(times, width, flip_sin_to_cos=True), x.dtype, like=x)
    time, kept_time = feed_forward(params["timestep_embedder"], sines, "silu")
    text, kept_text = feed_forward(params["text_embedder"], pooled, "silu")
    return silu(time + text), {"c": time + text, "time": kept_time, "text": kept_text}


def _condition_gradients(da, params, cache):
    """Gradients of `_condition`. Returns dpooled, dparams."""
    dc = silu_backward(da, cache["c"])
    _, dtime = feed_forward_backward(dc, params["timestep_embedder"], cache["time"], "silu")
    dpooled, dtext = feed_forward_backward(dc, params["text_embedder"], cache["text"], "silu")
    return dpooled, {"timestep_embedder": dtime, "text_embedder": dtext}


def _places(params, grid, config):
    """The middle of the table of places, as large as the grid: (1, rows columns, D). A file has the table; else it is
    `sincos_2d` of as many places as a picture of sample_size has, spread over pos_embed_max_size."""
    width, _, patch, _ = params["proj"]["weight"].shape
    table = params.get("pos_embed")  # (1, size size, D)
    size = config["pos_embed_max_size"] if table is None else math.isqrt(table.shape[1])
    if max(grid) > size:
        raise ValueError(f"x: expected at most {size} x {size} patches, got {grid[0]} x {grid[1]}")
    if table is None:
        table = sincos_2d(width, (size, size), config["sample_size"] // patch / size)
    top, left = ((size - n) // 2 for n in grid)
    middle = table.reshape(size, size, width)[top:top + grid[0], left:left + grid[1]]
    return middle.reshape(1, grid[0] * grid[1], width)
