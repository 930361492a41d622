"""The U-Net of diffusion: DDPM's with classes, Stable Diffusion 1's and 2's with text, distilled ones without a middle.

params has the published names (diffusers' `UNet2DModel` and `UNet2DConditionModel`) and holds the structure: a stage
has attention or a change of size, a block has a shortcut, the net has a middle or classes, where its dict has them.
config has the published keys, and may be the whole published dict: SETTINGS are those that arrays cannot say.

Papers
    [UNet]  Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [ADM]   Dhariwal, Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021
    [LDM]   Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022
    [LCM]   Luo et al., "Latent Consistency Models", 2023
"""
from itertools import zip_longest

import numpy as np

from ref.layers import (
    conv2d, conv2d_backward, embedding, embedding_backward, feed_forward, feed_forward_backward, group_norm,
    group_norm_backward, group_norm_silu, group_norm_silu_backward, layer_norm, layer_norm_backward, linear,
    linear_backward, multi_head, multi_head_backward, patchify, pixel_attention, pixel_attention_backward, resblock,
    resblock_backward, silu, silu_backward, time_embedding, unpatchify, upsample_nearest, upsample_nearest_backward,
)  # fmt: skip
from ref.nets.init import unet_init
from ref.shapes import integer, per_example
from ref.tree import apply, filled, gradient

SETTINGS = {"norm_num_groups": 32, "norm_eps": 1e-5, "attention_head_dim": 8, "downsample_padding": 1, "freq_shift": 0,
            "flip_sin_to_cos": True}
ONLY = {  # what else a published config may ask for, and the one answer here
    "act_fn": "silu", "time_embedding_type": "positional", "class_embed_type": None, "addition_embed_type": None,
    "encoder_hid_dim_type": None, "resnet_time_scale_shift": "default", "mid_block_scale_factor": 1,
    "center_input_sample": False, "attn_norm_num_groups": None, "only_cross_attention": False,
    "dual_cross_attention": False, "downsample_type": "conv", "upsample_type": "conv", "conv_in_kernel": 3,
    "conv_out_kernel": 3,
}  # fmt: skip
EPS, TOKEN_EPS = 1e-6, 1e-5  # of the norm before a transformer, and of those inside


def unet(params, x, t, context, config, labels=None, timestep_cond=None, keep=True):
    """eps_hat(x, t, context), [DDPM] appendix B and [LDM] section 3.3. Every state of the way down is kept; on the way
    up each block gets the last one kept as more channels, [UNet] section 2.

    params: of a published file, or from `unet_init`. x: (B, C, H, W). t: (B,) or one number, as the file counts.
    context: (B, L, D), the text, for a net with cross-attention, else None. config: dict. labels: (B,) ints, the
    classes, for a net with class_embedding, else None; without a text they may also stand in the context's place.
    timestep_cond: (B, G), the embedded strength of guidance, [LCM] section 4.3, for a net with cond_proj, or None.
    keep: bool.
    Returns y (B, O, H, W), cache; without keep cache is None, and each part of it is freed after its use.
    Raises ValueError for a condition that is missing or that the net has no place for, and for a config beyond this.
    """
    if context is not None and labels is None and context.ndim == 1:
        labels, context = context, None
    settings = _settings(config) | {"keep": keep}
    # Time and class
    c, condition = _condition(params, x, t, labels, timestep_cond, settings)  # (B, E)
    # Pixels to channels
    h = apply(conv2d, params["conv_in"], x)  # (B, width, H, W)
    # Down, through the middle, and up
    skips, stages = [h], []
    for way, i, stage in _stages(params):
        h, skips, cache = _stage(stage, h, skips, c, context, way, i, settings)
        stages.append(cache)
    # Channels to pixels
    a = apply(group_norm_silu, params["conv_norm_out"], h, **settings["norm"])
    y = apply(conv2d, params["conv_out"], a)  # (B, O, H, W)
    cache = {"x": x, "context": context, "condition": condition, "stages": stages, "h": h, "a": a}
    return y, cache if keep else None


def unet_backward(dy, params, cache, config):
    """Gradients of `unet`. dy: as y there. params, config: as there. cache: of the forward. Returns dx, dcontext,
    dparams; dcontext is None where there was no text."""
    settings, grads = _settings(config), {"down_blocks": [], "up_blocks": []}
    # Channels to pixels
    da, grads["conv_out"] = gradient(conv2d_backward, dy, params["conv_out"], cache["a"])
    dh, grads["conv_norm_out"] = gradient(group_norm_silu_backward, da, params["conv_norm_out"], cache["h"],
                                          b=params["conv_norm_out"].get("bias"), **settings["norm"])
    # Back from the way up, through the middle, to the way down
    dskips, dc, dcontext = [], 0, 0
    for (way, _, stage), kept in zip(reversed(_stages(params)), reversed(cache["stages"])):
        dh, dskips, dc_stage, dcontext_stage, dstage = _stage_gradients(dh, dskips, stage, kept, way, settings)
        dc, dcontext = dc + dc_stage, dcontext + dcontext_stage
        grads[way] = dstage if way == "mid_block" else [dstage, *grads[way]]
    # Pixels to channels
    dx, grads["conv_in"] = gradient(conv2d_backward, dh + dskips[0], params["conv_in"], cache["x"])
    # Time and class
    grads |= _condition_gradients(dc, params, cache["condition"])
    context = cache["context"]
    return dx, None if context is None else dcontext + np.zeros_like(context), filled(params, grads)


def _stages(params):
    """[(its list in params, its number, its dict)] in the order of the net. Numbers count the sizes of the image, from
    0, the largest, or from -1, the smallest."""
    middle = [("mid_block", -1, params["mid_block"])] if params.get("mid_block") else []
    return [*(("down_blocks", i, stage) for i, stage in enumerate(params["down_blocks"])), *middle,
            *(("up_blocks", -1 - i, stage) for i, stage in enumerate(params["up_blocks"]))]


def _stage(params, h, skips, c, context, way, i, settings):
    """The blocks of one size of the image, each with its attention; then the next size. Returns h, skips, cache."""
    layers, cache = [], {}
    for resnet, attention in zip_longest(params["resnets"], params.get("attentions", [])):
        width = h.shape[1]
        # On the way up: next to the last state kept
        if way == "up_blocks":
            *skips, skip = skips
            h = np.concatenate([h, skip], axis=1)  # (B, width + kept, H, W)
        h, block = resblock(resnet, h, c, **settings["norm"], keep=settings["keep"])
        h, seen = _attend(attention, h, context, way, i, settings) if attention else (h, None)
        # On the way down: keep the state
        if way == "down_blocks":
            skips = [*skips, h]
        layers.append((width, block, seen))
    # Half the size, rounded up
    if "downsamplers" in params:
        if settings["halving"]["padding"][0][0] == 0 and (h.shape[2] % 2 or h.shape[3] % 2):
            raise ValueError(f"x: expected sizes that halve evenly without downsample_padding, got {h.shape[2:]}")
        cache["wide"] = h
        h = apply(conv2d, params["downsamplers"][0]["conv"], h, **settings["halving"])  # (B, width, H / 2, W / 2)
        skips = [*skips, h]
    # Twice the size, or one less, as it was on the way down
    if "upsamplers" in params:
        rows, columns = skips[-1].shape[2:]
        cache["wide"] = upsample_nearest(h, 2)[:, :, :rows, :columns]  # (B, width, 2 H, 2 W)
        h = apply(conv2d, params["upsamplers"][0]["conv"], cache["wide"])
    return h, skips, cache | {"layers": layers} if settings["keep"] else None


def _stage_gradients(dh, dskips, params, cache, way, settings):
    """Gradients of `_stage`: now the way up keeps, and the way down gets. Returns dh, dskips, dc, dcontext, dparams."""
    grads, dc, dcontext = {"resnets": [], "attentions": []}, 0, 0
    if "upsamplers" in params:
        dwide, dconv = gradient(conv2d_backward, dh, params["upsamplers"][0]["conv"], cache["wide"])
        cut = [(0, 0), (0, 0), *((0, n % 2) for n in dwide.shape[2:])]
        dh, grads["upsamplers"] = upsample_nearest_backward(np.pad(dwide, cut), 2), [{"conv": dconv}]
    if "downsamplers" in params:
        *dskips, dskip = dskips
        dh, dconv = gradient(conv2d_backward, dh + dskip, params["downsamplers"][0]["conv"], cache["wide"],
                             **settings["halving"])
        grads["downsamplers"] = [{"conv": dconv}]
    layers = [*zip_longest(params["resnets"], params.get("attentions", []))]
    for (resnet, attention), (width, block, seen) in zip(reversed(layers), reversed(cache["layers"])):
        if way == "down_blocks":
            *dskips, dskip = dskips
            dh = dh + dskip
        if attention:
            backward = transformer_backward if "transformer_blocks" in attention else pixel_attention_backward
            dh, *read, dattention = backward(dh, attention, seen)
            dcontext = sum((d for d in read if d is not None), dcontext)
            grads["attentions"].insert(0, dattention)
        dh, dc_layer, dresnet = resblock_backward(dh, resnet, block)
        dc = dc + dc_layer
        grads["resnets"].insert(0, dresnet)
        if way == "up_blocks":
            dh, dskip = np.split(dh, [width], axis=1)
            dskips = [*dskips, dskip]
    return dh, dskips, dc, dcontext, grads


def _attend(params, h, context, way, i, settings):
    """A transformer with its number of heads, or attention of pixels with the size of its heads: published configs have
    one name for both. Returns h, cache."""
    size, norm, text = settings["size"], settings["norm"], "transformer_blocks" in params
    if isinstance(size, (list, tuple)):  # as published, that of pixels is not turned round on the way up
        size = size[i if text or way != "up_blocks" else -1 - i]
    if text:
        return transformer(params, h, context, size, norm["groups"], settings["keep"])
    return pixel_attention(params, h, h.shape[1] // (size or h.shape[1]), **norm, keep=settings["keep"])


def transformer(params, x, context, heads, groups, keep=True):
    """y = x + W_out h_N,  h_n = transformer_block(h_{n - 1}),  h_0 = W_in GroupNorm(x), [LDM] section 3.3: every pixel
    is a token. W_in and W_out are published as matrices, or as convolutions of one pixel, which are the same.

    params: dict with norm, proj_in, transformer_blocks, proj_out. x: (B, C, H, W). context: (B, L, D) or None. heads,
    groups: ints. keep: bool.
    Returns y (B, C, H, W), cache, or None for it without keep.
    """
    norm, blocks = {"groups": integer(groups, "groups"), "eps": EPS}, []
    tokens = patchify(apply(group_norm, params["norm"], x, **norm), 1)  # (B, H W, C)
    h = apply(linear, _matrix(params["proj_in"]), tokens)
    for block in params["transformer_blocks"]:
        h, cache = transformer_block(block, h, context, heads, keep)
        blocks.append(cache)
    out = unpatchify(apply(linear, _matrix(params["proj_out"]), h), 1, x.shape)  # (B, C, H, W)
    return x + out, {"x": x, "norm": norm, "tokens": tokens, "blocks": blocks, "h": h} if keep else None


def transformer_backward(dy, params, cache):
    """Gradients of `transformer`. dy: as y there. params: as there. cache: of the forward. Returns dx, dcontext,
    dparams; dcontext is None where no block reads the context."""
    dh, dout = gradient(linear_backward, patchify(dy, 1), _matrix(params["proj_out"]), cache["h"])
    dcontexts, blocks = [], []
    for block, kept in zip(reversed(params["transformer_blocks"]), reversed(cache["blocks"])):
        dh, dcontext, dblock = transformer_block_backward(dh, block, kept)
        dcontexts += [] if dcontext is None else [dcontext]
        blocks.insert(0, dblock)
    dtokens, din = gradient(linear_backward, dh, _matrix(params["proj_in"]), cache["tokens"])
    dn = unpatchify(dtokens, 1, dy.shape)
    dx, dnorm = gradient(group_norm_backward, dn, params["norm"], cache["x"], **cache["norm"])
    grads = {"norm": dnorm, "proj_in": din, "transformer_blocks": blocks, "proj_out": dout}
    return dy + dx, sum(dcontexts) if dcontexts else None, filled(params, grads)


def transformer_block(params, x, context, heads, keep=True):
    """Each token sees the others, then the text, then goes through two layers on its own, [LDM] section 3.3:

        u = x + MultiHead(LayerNorm(x))
        v = u + MultiHead(LayerNorm(u), context)
        y = v + W_2 geglu(W_1 LayerNorm(v))

    params: dict with norm1, attn1, norm3, ff, and where the block reads a text norm2, attn2. x: (B, N, C). context:
    (B, L, D) or None. heads: int. keep: bool.
    Returns y (B, N, C), cache, or None for it without keep.
    Raises ValueError where there is attn2 and no context.
    """
    if "attn2" in params and context is None:
        raise ValueError("context: expected (B, L, D) for a net with cross-attention, got None")
    # The others
    n1 = apply(layer_norm, params["norm1"], x, eps=TOKEN_EPS)
    seen, attn1 = multi_head(params["attn1"], n1, None, heads)
    u = x + seen
    # The text
    read, attn2 = 0, None
    if "attn2" in params:
        n2 = apply(layer_norm, params["norm2"], u, eps=TOKEN_EPS)
        read, attn2 = multi_head(params["attn2"], n2, context, heads)
    v = u + read
    # On its own
    n3 = apply(layer_norm, params["norm3"], v, eps=TOKEN_EPS)
    out, ff = feed_forward(params["ff"]["net"], n3, "geglu")
    return v + out, {"x": x, "attn1": attn1, "u": u, "attn2": attn2, "v": v, "ff": ff} if keep else None


def transformer_block_backward(dy, params, cache):
    """Gradients of `transformer_block`. dy: as y there. params: as there. cache: of the forward. Returns dx, dcontext,
    dparams; dcontext is None where the block reads no text."""
    grads, dcontext = {"ff": {}}, None
    # On its own
    dn3, grads["ff"]["net"] = feed_forward_backward(dy, params["ff"]["net"], cache["ff"], "geglu")
    dv, grads["norm3"] = gradient(layer_norm_backward, dn3, params["norm3"], cache["v"], eps=TOKEN_EPS)
    du = dv = dy + dv
    # The text
    if "attn2" in params:
        dn2, dcontext, grads["attn2"] = multi_head_backward(dv, params["attn2"], cache["attn2"])
        du, grads["norm2"] = gradient(layer_norm_backward, dn2, params["norm2"], cache["u"], eps=TOKEN_EPS)
        du = dv + du
    # The others
    dn1, _, grads["attn1"] = multi_head_backward(du, params["attn1"], cache["attn1"])
    dx, grads["norm1"] = gradient(layer_norm_backward, dn1, params["norm1"], cache["x"], eps=TOKEN_EPS)
    return du + dx, dcontext, filled(params, grads)


def _condition(params, x, t, labels, timestep_cond, settings):
    """c = silu(W_2 silu(W_1 sines(t)) + class), [DDPM] appendix B, the class as in [ADM] section 2.2. Returns c (B, E),
    cache."""
    if (labels is None) == ("class_embedding" in params):
        raise ValueError(f"labels: expected {'(B,) ints' if labels is None else 'None'} for this net, got {labels}")
    width = params["time_embedding"]["linear_1"]["weight"].shape[1]
    times = np.broadcast_to(np.ravel(per_example(t, x, "t")), len(x))
    sines = np.asarray(time_embedding(times, width, **settings["sines"]), x.dtype, like=x)
    if timestep_cond is not None:
        sines = sines + apply(linear, params["time_embedding"]["cond_proj"], timestep_cond)
    emb, time = feed_forward(params["time_embedding"], sines, "silu")
    if labels is not None:
        emb = emb + embedding(params["class_embedding"]["weight"], labels)
    return silu(emb), {"time": time, "labels": labels, "guidance": timestep_cond, "emb": emb}


def _condition_gradients(dc, params, cache):
    """dparams of `_condition`."""
    demb, grads = silu_backward(dc, cache["emb"]), {}
    if cache["labels"] is not None:
        dw = embedding_backward(demb, params["class_embedding"]["weight"], cache["labels"])
        grads["class_embedding"] = {"weight": dw}
    dsines, dtime = feed_forward_backward(demb, params["time_embedding"], cache["time"], "silu")
    if cache["guidance"] is not None:
        _, dtime["cond_proj"] = gradient(linear_backward, dsines, params["time_embedding"]["cond_proj"],
                                         cache["guidance"])
    return grads | {"time_embedding": dtime}


def _settings(config):
    """config as the arguments of the layers. Raises ValueError for what is not as in ONLY."""
    for key, value in ONLY.items():
        if config.get(key, value) != value:
            raise ValueError(f"{key}: expected {value!r} in config, got {config[key]!r}")
    given = SETTINGS | config
    return {
        "norm": {"groups": given["norm_num_groups"], "eps": given["norm_eps"]}, "size": given["attention_head_dim"],
        "halving": {"stride": 2, "padding": ((given["downsample_padding"], 1),) * 2},
        "sines": {"freq_shift": given["freq_shift"], "flip_sin_to_cos": given["flip_sin_to_cos"]},
    }  # fmt: skip


def _matrix(layer):
    return layer | {"weight": layer["weight"].reshape(layer["weight"].shape[:2])}
