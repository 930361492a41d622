"""The U-Net of diffusion: DDPM's with classes, Stable Diffusion 1's and 2's with text, distilled ones without a middle.

Parameters have the published names (diffusers' `UNet2DModel` and `UNet2DConditionModel`) and hold the structure: a
level has attention, a block has a shortcut, the net has a middle or classes where its dict has them. config has the
published keys, those of SETTINGS. Its `attention_head_dim`, one for all levels or one for each, is the size of a head
in a net without text, and in one with text the number of heads.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [LDM]    Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022
    [U-Net]  Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015
    [LCM]    Luo et al., "Latent Consistency Models", 2023
"""
from itertools import zip_longest

import numpy as np

from ref.layers import (
    conv2d, conv2d_backward, embedding, embedding_backward, feed_forward, feed_forward_backward, group_norm,
    group_norm_backward, layer_norm, layer_norm_backward, linear, linear_backward, multi_head, multi_head_backward,
    silu, silu_backward, time_embedding, upsample_nearest, upsample_nearest_backward,
)  # fmt: skip
from ref.nets.init import unet_init
from ref.tree import apply, filled, gradient

SETTINGS = dict(norm_num_groups=32, norm_eps=1e-5, attention_head_dim=8, flip_sin_to_cos=True, freq_shift=0,
                downsample_padding=1)
ONLY = dict(act_fn="silu", time_embedding_type="positional", resnet_time_scale_shift="default", class_embed_type=None,
            addition_embed_type=None, only_cross_attention=False, mid_block_scale_factor=1, center_input_sample=False,
            downsample_type="conv", upsample_type="conv", attn_norm_num_groups=None, dual_cross_attention=False)
EPS, POINT = 1e-6, ((0, 0), (0, 0))  # of the norm before a transformer; the padding of a convolution of 1 x 1


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
    for route, level, size in _levels(params, config):
        h, cache = _level(level, h, silu(emb), context, size, config, route, skips)
        kept.append(cache)
    n = apply(group_norm, params["conv_norm_out"], h, groups=config["norm_num_groups"], eps=config["norm_eps"])
    y = apply(conv2d, params["conv_out"], silu(n))
    return y, {"x": x, "condition": condition, "emb": emb, "context": context, "levels": kept, "h": h, "n": n}


def unet_backward(dy, params, cache, config):
    """Gradients of `unet`. dy: as y there. params, config: as there. cache: of the forward. Returns dx, dcontext,
    dparams; dcontext is None where there was no text."""
    config, grads = _settings(config), {"down_blocks": [], "up_blocks": []}
    da, grads["conv_out"] = gradient(conv2d_backward, dy, params["conv_out"], silu(cache["n"]))
    dh, grads["conv_norm_out"] = gradient(group_norm_backward, silu_backward(da, cache["n"]), params["conv_norm_out"],
                                          cache["h"], groups=config["norm_num_groups"], eps=config["norm_eps"])
    sums = {"emb": 0, "context": None if cache["context"] is None else 0, "skips": []}
    for (route, level, _), kept in zip(reversed(_levels(params, config)), reversed(cache["levels"])):
        dh, made = _level_gradients(dh, level, kept, config, route, sums)
        grads[route] = made if route == "mid_block" else [made, *grads[route]]
    dx, grads["conv_in"] = gradient(conv2d_backward, dh + sums["skips"].pop(), params["conv_in"], cache["x"])
    grads |= _condition_gradients(silu_backward(sums["emb"], cache["emb"]), params, cache["condition"])
    return dx, sums["context"], filled(params, grads)


def _settings(config):
    """config with its defaults. Raises ValueError for a setting that is not computed here."""
    for key, value in ONLY.items():
        given = config.get(key, value)
        if any(one != value for one in (given if isinstance(given, (list, tuple)) else [given])):
            raise ValueError(f"config: {key} = {given!r} is not computed here, {value!r} is")
    return SETTINGS | config


def _levels(params, config):
    """[(down_blocks, mid_block or up_blocks, its dict, number of its heads or size of one)] in their order."""
    size, depth = config["attention_head_dim"], len(params["down_blocks"])
    sizes = list(size) if isinstance(size, (list, tuple)) else [size] * depth
    if len(sizes) != depth:
        raise ValueError(f"attention_head_dim: expected one number or {depth}, got {size}")
    middle = [params["mid_block"]] if params.get("mid_block") else []
    return [*zip(["down_blocks"] * depth, params["down_blocks"], sizes), *zip(["mid_block"], middle, sizes[-1:]),
            *zip(["up_blocks"] * depth, params["up_blocks"], reversed(sizes))]


def _level(params, h, emb, context, size, config, route, skips):
    """The layers of a level and the way to the next. skips: what was put aside, a stack. Returns h, cache."""
    layers, cache, low = [], {}, config["downsample_padding"]
    for resnet, attention in zip_longest(params["resnets"], params.get("attentions", [])):
        channels, kept = h.shape[1], [None, None]
        if route == "up_blocks":
            h = np.concatenate([h, skips.pop()], axis=1)  # (B, C + the skip's, H, W)
        h, kept[0] = residual_block(resnet, h, emb, config["norm_num_groups"], config["norm_eps"])
        if attention:
            with_text = "transformer_blocks" in attention
            heads = size if with_text else h.shape[1] // (size or h.shape[1])
            h, kept[1] = pixel_attention(attention, h, context if with_text else None, heads,
                                         config["norm_num_groups"], EPS if with_text else config["norm_eps"])
        if route == "down_blocks":
            skips.append(h)
        layers.append([channels, *kept])
    if "downsamplers" in params:
        cache["fine"] = h
        h = apply(conv2d, params["downsamplers"][0]["conv"], h, stride=2, padding=((low, 1), (low, 1)))
        skips.append(h)  # (B, C, H / 2, W / 2), rounded up
    if "upsamplers" in params:
        height, width = skips[-1].shape[2:]  # an odd one is a row less than the double
        cache["fine"] = upsample_nearest(h, 2)[:, :, :height, :width]
        h = apply(conv2d, params["upsamplers"][0]["conv"], cache["fine"])
    return h, cache | {"layers": layers}


def _level_gradients(dh, params, cache, config, route, sums):
    """dh and dparams of `_level`. sums: demb and dcontext so far, and the gradients of what was put aside, a stack."""
    grads, low = {"resnets": [], "attentions": []}, config["downsample_padding"]
    if "upsamplers" in params:
        dh, dconv = gradient(conv2d_backward, dh, params["upsamplers"][0]["conv"], cache["fine"])
        odd = [(0, 0), (0, 0), *((0, n % 2) for n in dh.shape[2:])]
        dh, grads["upsamplers"] = upsample_nearest_backward(np.pad(dh, odd), 2), [{"conv": dconv}]
    if "downsamplers" in params:
        dh, dconv = gradient(conv2d_backward, dh + sums["skips"].pop(), params["downsamplers"][0]["conv"],
                             cache["fine"], stride=2, padding=((low, 1), (low, 1)))
        grads["downsamplers"] = [{"conv": dconv}]
    layers = zip_longest(params["resnets"], params.get("attentions", []), cache["layers"])
    for resnet, attention, (channels, *kept) in reversed([*layers]):
        if route == "down_blocks":
            dh = dh + sums["skips"].pop()
        if attention:
            dh, dcontext, dattention = pixel_attention_backward(dh, attention, kept[1])
            sums["context"] = sums["context"] if dcontext is None else sums["context"] + dcontext
            grads["attentions"].insert(0, dattention)
        dh, demb, dresnet = residual_block_backward(dh, resnet, kept[0])
        sums["emb"] = sums["emb"] + demb
        grads["resnets"].insert(0, dresnet)
        if route == "up_blocks":
            sums["skips"].append(dh[:, channels:])
            dh = dh[:, :channels]
    return dh, grads


def _condition(params, t, labels, timestep_cond, x, config):
    """emb = W_2 silu(W_1 sinusoids(t)), [DDPM] appendix B, plus a row for the class. Returns emb (B, 4 C0), cache."""
    if (labels is None) != ("class_embedding" not in params):
        raise ValueError(f"labels: expected {'ints' if labels is None else 'None'} for these params, got {labels}")
    time, width, kept = params["time_embedding"], len(params["conv_in"]["weight"]), {}
    s = time_embedding(np.broadcast_to(t, len(x)), width, freq_shift=config["freq_shift"],
                       flip_sin_to_cos=config["flip_sin_to_cos"]).astype(x.dtype)
    if timestep_cond is not None:
        s = s + apply(linear, time["cond_proj"], timestep_cond)
    emb, cache = feed_forward(time, s, "silu")
    if labels is not None:
        emb = emb + embedding(params["class_embedding"]["weight"], labels)
    return emb, {"time": cache, "labels": labels, "cond": timestep_cond}


def _condition_gradients(demb, params, cache):
    """dparams of `_condition`."""
    ds, time = feed_forward_backward(demb, params["time_embedding"], cache["time"], "silu")
    if cache["cond"] is not None:
        _, time["cond_proj"] = gradient(linear_backward, ds, params["time_embedding"]["cond_proj"], cache["cond"])
    if cache["labels"] is None:
        return {"time_embedding": time}
    dtable = embedding_backward(demb, params["class_embedding"]["weight"], cache["labels"])
    return {"time_embedding": time, "class_embedding": {"weight": dtable}}


def residual_block(params, x, emb, groups, eps):
    """y = shortcut(x) + conv_2(silu(norm_2(h))),  h = conv_1(silu(norm_1(x))) + W emb, [DDPM] appendix B.

    params: dict. x: (B, C, H, W). emb: (B, E), or None. groups, eps: of both norms.
    Returns y (B, C', H, W), cache.
    """
    n1 = apply(group_norm, params["norm1"], x, groups=groups, eps=eps)
    h = apply(conv2d, params["conv1"], silu(n1))
    if emb is not None:
        h += apply(linear, params["time_emb_proj"], emb)[:, :, None, None]
    n2 = apply(group_norm, params["norm2"], h, groups=groups, eps=eps)
    y = apply(conv2d, params["conv2"], silu(n2))
    y += apply(conv2d, params["conv_shortcut"], x, padding=POINT) if "conv_shortcut" in params else x
    return y, {"x": x, "emb": emb, "n1": n1, "h": h, "n2": n2, "norm": {"groups": groups, "eps": eps}}


def residual_block_backward(dy, params, cache):
    """Gradients of `residual_block`. dy: as y there. params: as there. cache: of the forward. Returns dx, demb,
    dparams; demb is None where emb was."""
    grads, demb, x, norm = {}, None, cache["x"], cache["norm"]
    da, grads["conv2"] = gradient(conv2d_backward, dy, params["conv2"], silu(cache["n2"]))
    dh, grads["norm2"] = gradient(group_norm_backward, silu_backward(da, cache["n2"]), params["norm2"], cache["h"],
                                  **norm)
    if cache["emb"] is not None:
        demb, grads["time_emb_proj"] = gradient(linear_backward, dh.sum(axis=(2, 3)), params["time_emb_proj"],
                                                cache["emb"])
    da, grads["conv1"] = gradient(conv2d_backward, dh, params["conv1"], silu(cache["n1"]))
    dx, grads["norm1"] = gradient(group_norm_backward, silu_backward(da, cache["n1"]), params["norm1"], x, **norm)
    if "conv_shortcut" in params:
        dy, grads["conv_shortcut"] = gradient(conv2d_backward, dy, params["conv_shortcut"], x, padding=POINT)
    return dx + dy, demb, filled(params, grads)


def pixel_attention(params, x, context, heads, groups, eps):
    """y = x + f(norm(x)), where f takes the pixels as tokens: attention among them, [DDPM] appendix B; or, with a text,
    transformer blocks between two linear layers, [LDM] section 3.3.

    params: dict. x: (B, C, H, W). context: (B, L, D) or None. heads: int. groups, eps: of the norm.
    Returns y (B, C, H, W), cache.
    """
    kept, norm = [], {"groups": groups, "eps": eps}
    if "transformer_blocks" not in params:
        h, cache = multi_head(params, _tokens(apply(group_norm, params["group_norm"], x, **norm)), None, heads)
        return x + _pixels(h, x.shape), {"x": x, "norm": norm, "attention": cache}
    tokens = _tokens(apply(group_norm, params["norm"], x, **norm))  # (B, H W, C)
    h = apply(linear, _linear(params["proj_in"]), tokens)
    for block in params["transformer_blocks"]:
        h, cache = transformer_block(block, h, context, heads)
        kept.append(cache)
    f = apply(linear, _linear(params["proj_out"]), h)
    return x + _pixels(f, x.shape), {"x": x, "norm": norm, "tokens": tokens, "blocks": kept, "h": h}


def pixel_attention_backward(dy, params, cache):
    """Gradients of `pixel_attention`. dy: as y there. params: as there. cache: of the forward. Returns dx, dcontext,
    dparams; dcontext is None where the context was."""
    grads, x, dcontext, name = {}, cache["x"], None, "norm"
    if "transformer_blocks" in params:
        dh, grads["proj_out"] = gradient(linear_backward, _tokens(dy), _linear(params["proj_out"]), cache["h"])
        blocks = []
        for block, kept in zip(reversed(params["transformer_blocks"]), reversed(cache["blocks"])):
            dh, dc, dblock = transformer_block_backward(dh, block, kept)
            dcontext = dc if dcontext is None else dcontext + dc
            blocks.insert(0, dblock)
        dtokens, grads["proj_in"] = gradient(linear_backward, dh, _linear(params["proj_in"]), cache["tokens"])
        grads["transformer_blocks"] = blocks
    else:
        name = "group_norm"
        dtokens, _, grads = multi_head_backward(_tokens(dy), params, cache["attention"])
    dx, grads[name] = gradient(group_norm_backward, _pixels(dtokens, x.shape), params[name], x, **cache["norm"])
    return dy + dx, dcontext, filled(params, grads)


def _tokens(x):
    return x.reshape(*x.shape[:2], -1).swapaxes(1, 2)  # (B, H W, C)


def _pixels(tokens, shape):
    return tokens.swapaxes(1, 2).reshape(shape)  # (B, C, H, W)


def _linear(layer):
    """A convolution of 1 x 1 as a linear layer, which it already is in Stable Diffusion 2."""
    return layer | {"weight": layer["weight"].reshape(len(layer["weight"]), -1)}


def transformer_block(params, x, context, heads):
    """u = x + Attention(norm_1(x)),  v = u + Attention(norm_2(u), context),  y = v + W_2 geglu(W_1 norm_3(v)), [LDM]
    section 3.3.

    params: dict. x: (B, L, C). context: (B, Lc, D), or None for u itself. heads: int.
    Returns y (B, L, C), cache.
    """
    h, cache = x, {}
    for norm, attn, c in (("norm1", "attn1", None), ("norm2", "attn2", context)):
        cache[norm] = h
        a, cache[attn] = multi_head(params[attn], apply(layer_norm, params[norm], h, eps=1e-5), c, heads)
        h = h + a
    f, cache["ff"] = feed_forward(params["ff"]["net"], apply(layer_norm, params["norm3"], h, eps=1e-5), "geglu")
    return h + f, cache | {"norm3": h}


def transformer_block_backward(dy, params, cache):
    """Gradients of `transformer_block`. dy: as y there. params: as there. cache: of the forward. Returns dx, dcontext,
    dparams; dcontext is None where the context was."""
    grads = {"ff": {}}
    dn, grads["ff"]["net"] = feed_forward_backward(dy, params["ff"]["net"], cache["ff"], "geglu")
    dv, grads["norm3"] = gradient(layer_norm_backward, dn, params["norm3"], cache["norm3"], eps=1e-5)
    dn, dcontext, grads["attn2"] = multi_head_backward(dy + dv, params["attn2"], cache["attn2"])
    du, grads["norm2"] = gradient(layer_norm_backward, dn, params["norm2"], cache["norm2"], eps=1e-5)
    du = dy + dv + du
    dn, _, grads["attn1"] = multi_head_backward(du, params["attn1"], cache["attn1"])
    dx, grads["norm1"] = gradient(layer_norm_backward, dn, params["norm1"], cache["norm1"], eps=1e-5)
    return du + dx, dcontext, filled(params, grads)
