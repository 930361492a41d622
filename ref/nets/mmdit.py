"""The two-stream transformer of Stable Diffusion 3: image and text have weights of their own and attend together.

Parameters have the published names (diffusers' `SD3Transformer2DModel`) and hold the structure: a block norms queries
and keys, or attends within the image a second time, where its dict has the weights, and the last one drops the text.
config has the published keys, of which num_attention_heads alone is not in the arrays. Where diffusers' norm has two
parts, in the last block's text and at the end, the scale comes first; the original files have the shift first.

Papers
    [SD3]  Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024
    [DiT]  Peebles, Xie, "Scalable Diffusion Models with Transformers", 2023
"""
import numpy as np

from ref.layers import (
    adaptive_norm, adaptive_norm_backward, conv2d, conv2d_backward, feed_forward, feed_forward_backward,
    joint_attention, joint_attention_backward, linear, linear_backward, multi_head, multi_head_backward, silu,
    silu_backward, time_embedding, unpatchify, unpatchify_backward,
)  # fmt: skip
from ref.nets.init import mmdit_init
from ref.tree import apply, filled, gradient

EPS, NONE = 1e-6, ((0, 0), (0, 0))  # of the norms; the padding of patches


def mmdit(params, x, t, context, pooled, config):
    """v(x, t, text), [SD3] section 4: patches of the image, each with its place, and the text's states through blocks
    that attend over both, where the time and the text as a whole shift, scale and gate; then back to patches.

    params: of the published file. x: (B, C, H, W). t: (B,) or one number, as the file counts. context: (B, Lc, E).
    pooled: (B, P). config: dict.
    Returns y (B, C, H, W), cache.
    Raises ValueError where x is larger than the table of places, or not whole patches.
    """
    patch, heads = params["pos_embed"]["proj"]["weight"].shape[2], config["num_attention_heads"]
    h = apply(conv2d, params["pos_embed"]["proj"], x, stride=patch, padding=NONE)  # (B, D, H / p, W / p)
    places = _places(params["pos_embed"]["pos_embed"], h.shape[2:])
    h = h.reshape(*h.shape[:2], -1).swapaxes(1, 2) + places  # (B, L, D)
    c = apply(linear, params["context_embedder"], context)  # (B, Lc, D)
    # Time and the text as a whole
    embed = params["time_text_embed"]
    width = embed["timestep_embedder"]["linear_1"]["weight"].shape[1]
    s = time_embedding(np.broadcast_to(t, len(x)), width, flip_sin_to_cos=True).astype(x.dtype)
    time, kept_time = feed_forward(embed["timestep_embedder"], s, "silu")
    whole, kept_whole = feed_forward(embed["text_embedder"], pooled, "silu")
    emb, kept = time + whole, []  # (B, D)
    # Blocks
    for block in params["transformer_blocks"]:
        h, c, cache = mmdit_block(block, h, c, silu(emb), heads)
        kept.append(cache)
    # Back to an image
    scale, shift = np.split(apply(linear, params["norm_out"]["linear"], silu(emb)), 2, axis=1)
    n = adaptive_norm(h, shift, scale, EPS)
    y = unpatchify(apply(linear, params["proj_out"], n), patch, x.shape[2:])
    return y, {"x": x, "context": context, "time": kept_time, "whole": kept_whole, "emb": emb, "blocks": kept, "h": h,
               "scale": scale, "n": n}


def mmdit_backward(dy, params, cache, config):
    """Gradients of `mmdit`; the table of places is fixed and has 0. dy: as y there. params, config: as there. cache: of
    the forward. Returns dx, dcontext, dpooled, dparams."""
    patch, grads, blocks, embed = params["pos_embed"]["proj"]["weight"].shape[2], {}, [], params["time_text_embed"]
    # Back to an image
    dtokens = unpatchify_backward(dy, patch)
    dn, grads["proj_out"] = gradient(linear_backward, dtokens, params["proj_out"], cache["n"])
    dh, dshift, dscale = adaptive_norm_backward(dn, cache["h"], cache["scale"], EPS)
    dmodulation = np.concatenate([dscale, dshift], axis=1)
    da, dlast = gradient(linear_backward, dmodulation, params["norm_out"]["linear"], silu(cache["emb"]))
    # Blocks
    dc = None
    for block, kept in zip(reversed(params["transformer_blocks"]), reversed(cache["blocks"])):
        dh, dc, da_block, dblock = mmdit_block_backward(dh, dc, block, kept)
        da = da + da_block
        blocks.insert(0, dblock)
    # Time and the text as a whole
    demb = silu_backward(da, cache["emb"])
    _, dtime = feed_forward_backward(demb, embed["timestep_embedder"], cache["time"], "silu")
    dpooled, dwhole = feed_forward_backward(demb, embed["text_embedder"], cache["whole"], "silu")
    # Text and patches
    dcontext, grads["context_embedder"] = gradient(linear_backward, dc, params["context_embedder"], cache["context"])
    rows, columns = (n // patch for n in cache["x"].shape[2:])
    dpatches = dh.swapaxes(1, 2).reshape(*dh.shape[::2], rows, columns)  # (B, D, H / p, W / p)
    dx, dproj = gradient(conv2d_backward, dpatches, params["pos_embed"]["proj"], cache["x"], stride=patch, padding=NONE)
    grads |= {"pos_embed": {"proj": dproj}, "transformer_blocks": blocks, "norm_out": {"linear": dlast},
              "time_text_embed": {"timestep_embedder": dtime, "text_embedder": dwhole}}
    return dx, dcontext, dpooled, filled(params, grads)


def _places(table, size):
    """The middle of the square table of places, (1, L, D), as large as this (rows, columns)."""
    side = round(table.shape[1] ** 0.5)
    if max(size) > side:
        raise ValueError(f"x: expected at most {side} x {side} patches, got {size}")
    top, left = ((side - n) // 2 for n in size)
    square = table.reshape(side, side, -1)[top:top + size[0], left:left + size[1]]
    return square.reshape(1, -1, table.shape[2])


def mmdit_block(params, x, context, a, heads):
    """[SD3] figure 2 (b): both streams through `joint_attention`, each in the manner of a block of [DiT], with shifts,
    scales and gates of its own, linear in a. Where the dict has attn2, the image attends to itself next to that.

    params: dict. x: (B, L, D), the image. context: (B, Lc, D), the text. a: (B, D), silu of time and text. heads: int.
    Returns y (B, L, D), the text (B, Lc, D) or None after the last block, cache.
    """
    shift, scale, gate, *rest = _parts(params["norm1"]["linear"], a)
    last = "ff_context" not in params
    cshift, cscale, *crest = _parts(params["norm1_context"]["linear"], a)[::-1 if last else 1]
    n, cn = adaptive_norm(x, shift, scale, EPS), adaptive_norm(context, cshift, cscale, EPS)
    o, co, joint = joint_attention(params["attn"], n, cn, heads)
    attended, cache = [[gate, o]], {"x": x, "context": context, "a": a, "joint": joint, "scales": [scale, cscale]}
    if "attn2" in params:
        shift2, scale2, gate2 = rest[3:]
        o2, cache["attn2"] = multi_head(params["attn2"], adaptive_norm(x, shift2, scale2, EPS), None, heads)
        attended.append([gate2, o2])
        cache["scales"].append(scale2)
    y, cache["image"] = _ended(params["ff"], x, attended, *rest[:3])
    if last:
        return y, None, cache
    c, cache["text"] = _ended(params["ff_context"], context, [[crest[0], co]], *crest[1:])
    return y, c, cache


def mmdit_block_backward(dy, dc, params, cache):
    """Gradients of `mmdit_block`. dy, dc: as returned there. params: as there. cache: of the forward. Returns dx,
    dcontext, da, dparams."""
    grads, (scale, cscale, *scale2), a = {}, cache["scales"], cache["a"]
    last, dco, dcontext, dcrest = "ff_context" not in params, None, 0, []
    if not last:
        dcontext, ((dcgate, dco),), dcrest, dff = _ended_gradients(dc, params["ff_context"], cache["text"])
        grads["ff_context"], dcrest = {"net": dff}, [dcgate, *dcrest]
    dx, ((dgate, do), *second), drest, dff = _ended_gradients(dy, params["ff"], cache["image"])
    grads["ff"] = {"net": dff}
    if second:
        (dgate2, do2), = second
        dn2, _, grads["attn2"] = multi_head_backward(do2, params["attn2"], cache["attn2"])
        dx2, dshift2, dscale2 = adaptive_norm_backward(dn2, cache["x"], *scale2, EPS)
        dx, drest = dx + dx2, [*drest, dshift2, dscale2, dgate2]
    dn, dcn, grads["attn"] = joint_attention_backward(do, dco, params["attn"], cache["joint"])
    dx1, dshift, dscale = adaptive_norm_backward(dn, cache["x"], scale, EPS)
    dc1, dcshift, dcscale = adaptive_norm_backward(dcn, cache["context"], cscale, EPS)
    # Shifts, scales and gates
    dparts = np.concatenate([dshift, dscale, dgate, *drest], axis=1)
    dcparts = np.concatenate([dcshift, dcscale, *dcrest][::-1 if last else 1], axis=1)
    da, dlinear = gradient(linear_backward, dparts, params["norm1"]["linear"], a)
    dca, dclinear = gradient(linear_backward, dcparts, params["norm1_context"]["linear"], a)
    grads |= {"norm1": {"linear": dlinear}, "norm1_context": {"linear": dclinear}}
    return dx + dx1, dcontext + dc1, da + dca, filled(params, grads)


def _parts(layer, a):
    """Shifts, scales and gates, (B, D) each: linear in a."""
    return np.split(apply(linear, layer, a), len(layer["weight"]) // a.shape[1], axis=1)


def _ended(params, x, attended, shift, scale, gate):
    """u = x + sum_i gate_i o_i,  y = u + gate f(adaptive_norm(u)), for one stream. attended: [[gate_i, o_i]]."""
    u = x + sum(g[:, None] * o for g, o in attended)
    f, cache = feed_forward(params["net"], adaptive_norm(u, shift, scale, EPS), "gelu_tanh")
    return u + gate[:, None] * f, {"attended": attended, "u": u, "scale": scale, "gate": gate, "f": f, "ff": cache}


def _ended_gradients(dy, params, cache):
    """dx, [(dgate_i, do_i)], [dshift, dscale, dgate] and dparams of `_ended`."""
    dn, dff = feed_forward_backward(dy * cache["gate"][:, None], params["net"], cache["ff"], "gelu_tanh")
    du, dshift, dscale = adaptive_norm_backward(dn, cache["u"], cache["scale"], EPS)
    du = dy + du
    attended = [((du * o).sum(axis=1), du * g[:, None]) for g, o in cache["attended"]]
    return du, attended, [dshift, dscale, (dy * cache["f"]).sum(axis=1)], dff
