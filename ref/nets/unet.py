"""The U-Net of diffusion: DDPM's with classes, Stable Diffusion's 1 and 2 with text, distilled ones without a middle.

Parameters have the published names (diffusers' `UNet2DModel` and `UNet2DConditionModel`) and hold the structure: a level
has attention, a block has a shortcut, the net has a middle or classes where its dict has them. config has the published
keys, those of SETTINGS; `attention_head_dim`, one for all levels or one for each, is the size of a head in a net without
text, and in one with text the number of heads.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [LDM]    Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022
    [U-Net]  Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015
    [ADM]    Dhariwal, Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021
    [LCM]    Luo et al., "Latent Consistency Models", 2023
"""
from itertools import zip_longest

import numpy as np

from ref.layers import (
    conv2d, conv2d_backward, embedding, embedding_backward, geglu, geglu_backward, group_norm, group_norm_backward,
    layer_norm, layer_norm_backward, linear, linear_backward, multi_head, multi_head_backward, silu, silu_backward,
    time_embedding, upsample_nearest, upsample_nearest_backward,
)  # fmt: skip
from ref.nets.init import drawn, shapes
from ref.tree import apply, filled, gradient

SETTINGS = dict(norm_num_groups=32, attn_norm_num_groups=None, norm_eps=1e-5, attention_head_dim=8, freq_shift=0,
                flip_sin_to_cos=True, downsample_padding=1)
ONLY = dict(act_fn="silu", time_embedding_type="positional", class_embed_type=None, addition_embed_type=None,
            only_cross_attention=False, mid_block_scale_factor=1, center_input_sample=False, downsample_type="conv")


def unet(params, x, t, context, config, labels=None, timestep_cond=None):
    """eps_hat(x, t, c), [DDPM] appendix B, [LDM] section 3.3: down the levels, where each layer's output is put aside,
    through the middle, and up, where each layer takes what was put aside last as more channels, [U-Net] section 2.

    params: of the published file. x: (B, C, H, W). t: (B,) or one number, as the file counts. context: (B, L, D) of a
    text; (B,) ints of classes; or None. config: dict. labels: (B,) ints of classes, next to a text. timestep_cond: (B,
    G), the embedded guidance of [LCM] section 4.3, or None.
    Returns y (B, C', H, W), cache.
    Raises ValueError for labels without classes or the reverse, and for a setting that is not computed here.
    """
    config = _settings(config)
    if context is not None and context.ndim == 1:
        labels, context = context, None
    emb, condition = _condition(params, t, labels, timestep_cond, x, config)  # (B, 4 C0)
    h = apply(conv2d, params["conv_in"], x)  # (B, C0, H, W)
    skips, kept = [h], []
    for route, block, size in _levels(params, config):
        h, cache = _level(block, h, silu(emb), context, size, config, route, skips)
        kept.append(cache)
    n = apply(group_norm, params["conv_norm_out"], h, groups=config["norm_num_groups"], eps=config["norm_eps"])
    y = apply(conv2d, params["conv_out"], silu(n))
    return y, {"x": x, "condition": condition, "emb": emb, "context": context, "levels": kept, "h": h, "n": n}


def unet_backward(dy, params, cache, config):
    """Gradients of `unet`. dy: as y there. params, config: as there. cache: of the forward. Returns dx, dcontext,
    dparams; dcontext is None where no text was given."""
    config, grads = _settings(config), {"down_blocks": [], "up_blocks": []}
    da, grads["conv_out"] = gradient(conv2d_backward, dy, params["conv_out"], silu(cache["n"]))
    dh, grads["conv_norm_out"] = gradient(group_norm_backward, silu_backward(da, cache["n"]), params["conv_norm_out"],
                                          cache["h"], groups=config["norm_num_groups"], eps=config["norm_eps"])
    sums = {"emb": 0, "context": None if cache["context"] is None else 0, "skips": []}
    for (route, block, _), kept in zip(reversed(_levels(params, config)), reversed(cache["levels"])):
        dh, made = _level_gradients(dh, block, kept, config, route, sums)
        grads[route] = made if route == "mid_block" else [made, *grads[route]]
    dx, grads["conv_in"] = gradient(conv2d_backward, dh + sums["skips"].pop(), params["conv_in"], cache["x"])
    grads |= _condition_gradients(silu_backward(sums["emb"], cache["emb"]), params, cache["condition"])
    return dx, sums["context"], filled(params, grads)


def _levels(params, config):
    """[(down_blocks, mid_block or up_blocks, its dict, number of its heads or size of one)] in their order."""
    size, depth = config["attention_head_dim"], len(params["down_blocks"])
    sizes = list(size) if isinstance(size, (list, tuple)) else [size] * depth
    if not len(sizes) == len(params["up_blocks"]) == depth:
        raise ValueError(f"attention_head_dim: expected one number or {depth}, got {size}")
    middle = [params["mid_block"]] if params.get("mid_block") else []
    return [*zip(["down_blocks"] * depth, params["down_blocks"], sizes), *zip(["mid_block"], middle, sizes[-1:]),
            *zip(["up_blocks"] * depth, params["up_blocks"], sizes[::-1])]


def _level(params, h, emb, context, size, config, route, skips):
    """The layers of a level and the way to the next one. skips: the stack of what was put aside."""
    layers, cache = [], {}
    for resnet, attention in zip_longest(params["resnets"], params.get("attentions", [])):
        channels = h.shape[1]
        if route == "up_blocks":
            h = np.concatenate([h, skips.pop()], axis=1)  # (B, C + channels put aside, H, W)
        h, block = residual_block(resnet, h, emb, config["norm_num_groups"], config["norm_eps"])
        if attention and "transformer_blocks" in attention:
            h, block["seen"] = spatial_transformer(attention, h, context, size, config["norm_num_groups"])
        elif attention:
            groups = route == "mid_block" and config["attn_norm_num_groups"] or config["norm_num_groups"]
            h, block["seen"] = pixel_attention(attention, h, size or h.shape[1], groups, config["norm_eps"])
        if route == "down_blocks":
            skips.append(h)
        layers.append((channels, block))
    if "downsamplers" in params:
        cache["fine"], low = h, config["downsample_padding"]
        h = apply(conv2d, params["downsamplers"][0]["conv"], h, stride=2, padding=((low, 1), (low, 1)))
        skips.append(h)  # (B, C, H / 2, W / 2), rounded up
    if "upsamplers" in params:
        height, width = skips[-1].shape[2:]  # one row less than twice as many, where that was odd
        cache["fine"] = upsample_nearest(h, 2)[:, :, :height, :width]
        h = apply(conv2d, params["upsamplers"][0]["conv"], cache["fine"])
    return h, cache | {"layers": layers}


def _level_gradients(dh, params, cache, config, route, sums):
    """dh and dparams of `_level`. sums: demb and dcontext so far, and the stack of the gradients put aside."""
    made = {"resnets": [], "attentions": []}
    if "upsamplers" in params:
        dfine, dconv = gradient(conv2d_backward, dh, params["upsamplers"][0]["conv"], cache["fine"])
        odd = [(0, 0), (0, 0), *((0, n % 2) for n in dfine.shape[2:])]
        dh, made["upsamplers"] = upsample_nearest_backward(np.pad(dfine, odd), 2), [{"conv": dconv}]
    if "downsamplers" in params:
        low = config["downsample_padding"]
        dh, dconv = gradient(conv2d_backward, dh + sums["skips"].pop(), params["downsamplers"][0]["conv"],
                             cache["fine"], stride=2, padding=((low, 1), (low, 1)))
        made["downsamplers"] = [{"conv": dconv}]
    layers = [*zip_longest(params["resnets"], params.get("attentions", []))]
    for (resnet, attention), (channels, block) in zip(reversed(layers), reversed(cache["layers"])):
        if route == "down_blocks":
            dh = dh + sums["skips"].pop()
        if attention and "transformer_blocks" in attention:
            dh, dcontext, dattention = spatial_transformer_backward(dh, attention, block["seen"])
            sums["context"] = sums["context"] + dcontext if dcontext is not None else None
        elif attention:
            dh, dattention = pixel_attention_backward(dh, attention, block["seen"])
        dh, demb, dresnet = residual_block_backward(dh, resnet, block)
        sums["emb"] = sums["emb"] + demb
        made["resnets"].insert(0, dresnet)
        made["attentions"] = [dattention, *made["attentions"]] if attention else []
        if route == "up_blocks":
            sums["skips"].append(dh[:, channels:])
            dh = dh[:, :channels]
    return dh, made


def _condition(params, t, labels, timestep_cond, x, config):
    """emb = W_2 silu(W_1 sinusoids(t)) of each example, [DDPM] appendix B, plus its class, [ADM] section 2.2."""
    time, width = params["time_embedding"], len(params["conv_in"]["weight"])
    if (labels is None) != ("class_embedding" not in params):
        raise ValueError(f"labels: expected {'ints' if labels is None else 'None'} for these params, got {labels}")
    s = time_embedding(np.broadcast_to(t, len(x)), width, freq_shift=config["freq_shift"],
                       flip_sin_to_cos=config["flip_sin_to_cos"]).astype(x.dtype)
    if timestep_cond is not None:
        s = s + apply(linear, time["cond_proj"], timestep_cond)
    h = apply(linear, time["linear_1"], s)
    emb = apply(linear, time["linear_2"], silu(h))
    if labels is not None:
        emb = emb + embedding(params["class_embedding"]["weight"], labels)
    return emb, {"s": s, "h": h, "labels": labels, "cond": timestep_cond}


def _condition_gradients(demb, params, cache):
    """dparams of `_condition`."""
    time, made, grads = params["time_embedding"], {}, {}
    if cache["labels"] is not None:
        table = params["class_embedding"]["weight"]
        grads["class_embedding"] = {"weight": embedding_backward(demb, table, cache["labels"])}
    da, made["linear_2"] = gradient(linear_backward, demb, time["linear_2"], silu(cache["h"]))
    ds, made["linear_1"] = gradient(linear_backward, silu_backward(da, cache["h"]), time["linear_1"], cache["s"])
    if cache["cond"] is not None:
        _, made["cond_proj"] = gradient(linear_backward, ds, time["cond_proj"], cache["cond"])
    return grads | {"time_embedding": made}


def residual_block(params, x, emb, groups, eps):
    """y = shortcut(x) + conv_2(silu(norm_2(h))),  h = conv_1(silu(norm_1(x))) + W emb, [DDPM] appendix B. Where W emb
    has twice the channels it scales and shifts norm_2(h) instead, [ADM] eq. 3.

    params: dict. x: (B, C, H, W). emb: (B, E), or None. groups, eps: of both norms.
    Returns y (B, C', H, W), cache.
    """
    n1 = apply(group_norm, params["norm1"], x, groups=groups, eps=eps)
    h, scale = apply(conv2d, params["conv1"], silu(n1)), None
    if emb is not None:
        shift = apply(linear, params["time_emb_proj"], emb)[:, :, None, None]  # (B, C' or 2 C', 1, 1)
        if shift.shape[1] == h.shape[1]:
            h = h + shift
        else:
            scale, shift = np.split(shift, 2, axis=1)
    n2 = m = apply(group_norm, params["norm2"], h, groups=groups, eps=eps)
    if scale is not None:
        m = n2 * (1 + scale) + shift
    y = apply(conv2d, params["conv2"], silu(m))
    y += apply(conv2d, params["conv_shortcut"], x, padding=POINT) if "conv_shortcut" in params else x
    return y, {"x": x, "emb": emb, "n1": n1, "h": h, "n2": n2, "m": m, "scale": scale, "norm": (groups, eps)}


def residual_block_backward(dy, params, cache):
    """Gradients of `residual_block`. dy: as y there. params: as there. cache: of the forward. Returns dx, demb,
    dparams; demb is None where emb was."""
    grads, demb, norm = {}, None, dict(zip(("groups", "eps"), cache["norm"]))
    da, grads["conv2"] = gradient(conv2d_backward, dy, params["conv2"], silu(cache["m"]))
    dm = dn2 = silu_backward(da, cache["m"])
    if cache["scale"] is not None:
        dn2 = dm * (1 + cache["scale"])
    dh, grads["norm2"] = gradient(group_norm_backward, dn2, params["norm2"], cache["h"], **norm)
    if cache["emb"] is not None:
        parts = [dh] if cache["scale"] is None else [dm * cache["n2"], dm]
        dshift = np.concatenate([part.sum(axis=(2, 3)) for part in parts], axis=1)  # (B, C' or 2 C')
        demb, grads["time_emb_proj"] = gradient(linear_backward, dshift, params["time_emb_proj"], cache["emb"])
    da, grads["conv1"] = gradient(conv2d_backward, dh, params["conv1"], silu(cache["n1"]))
    dx, grads["norm1"] = gradient(group_norm_backward, silu_backward(da, cache["n1"]), params["norm1"], cache["x"],
                                  **norm)
    dshort = dy
    if "conv_shortcut" in params:
        dshort, grads["conv_shortcut"] = gradient(conv2d_backward, dy, params["conv_shortcut"], cache["x"],
                                                  padding=POINT)
    return dx + dshort, demb, filled(params, grads)
