"""The autoencoder of latent diffusion, image to latent and back; and the tiny decoder that stands in for the large one.

Parameters have the published names (diffusers' `AutoencoderKL` and `AutoencoderTiny`) and hold the structure. config
has the published key norm_num_groups. All norms have eps 1e-6, the encoder pads below and right alone, and the middle's
attention has one head. No scaling factor is known here: the pipeline has it.

Papers
    [LDM]    Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022
    [VAE]    Kingma, Welling, "Auto-Encoding Variational Bayes", 2014
    [TAESD]  Boer Bohan, "Tiny AutoEncoder for Stable Diffusion", 2023
"""
from itertools import zip_longest

from ref.layers import (
    conv2d, conv2d_backward, group_norm_silu, group_norm_silu_backward, pixel_attention, pixel_attention_backward, relu,
    relu_backward, resblock, resblock_backward, tanh, tanh_backward, upsample_nearest, upsample_nearest_backward,
)  # fmt: skip
from ref.nets.init import autoencoder_init, tiny_init
from ref.tree import apply, filled, gradient

EPS, POINT, CORNER = 1e-6, ((0, 0), (0, 0)), ((0, 1), (0, 1))  # of the norms; of 1 x 1; of the encoder's strides


def encode(params, x, config, keep=True):
    """The moments of q(z | x) = N(mean, diag(e^logvar)), [LDM] section 3.1, [VAE] eq. 9: down the levels, each half as
    wide and high as the one before, and through the middle.

    params: of the published file. x: (B, 3, H, W) in [-1, 1]. config: dict. keep: bool.
    Returns y (B, 2 C, h, w), the mean in its first half of the channels and the log-variance in its second; cache, or
    None for it without keep, where each part of it is freed after its use.
    """
    h, cache = _half(params["encoder"], x, config, keep)
    y = apply(conv2d, params["quant_conv"], h, padding=POINT) if "quant_conv" in params else h
    return y, cache | {"between": h} if keep else None


def encode_backward(dy, params, cache, config):
    """Gradients of `encode`; the decoder's are 0. dy: as y there. params, config: as there. cache: of the forward.
    Returns dx, dparams."""
    grads, dh = {}, dy
    if "quant_conv" in params:
        dh, grads["quant_conv"] = gradient(conv2d_backward, dy, params["quant_conv"], cache["between"], padding=POINT)
    dx, grads["encoder"] = _half_gradients(dh, params["encoder"], cache, config)
    return dx, filled(params, grads)


def decode(params, z, config, keep=True):
    """The image of a latent, [LDM] section 3.1: through the middle, and up the levels, each twice as wide and high as
    the one before.

    params: of the published file. z: (B, C, h, w). config: dict. keep: as in `encode`.
    Returns x (B, 3, H, W), cache.
    """
    h = apply(conv2d, params["post_quant_conv"], z, padding=POINT) if "post_quant_conv" in params else z
    x, cache = _half(params["decoder"], h, config, keep)
    return x, cache | {"z": z} if keep else None


def decode_backward(dx, params, cache, config):
    """Gradients of `decode`; the encoder's are 0. dx: as x there. params, config: as there. cache: of the forward.
    Returns dz, dparams."""
    grads = {}
    dz, grads["decoder"] = _half_gradients(dx, params["decoder"], cache, config)
    if "post_quant_conv" in params:
        dz, grads["post_quant_conv"] = gradient(conv2d_backward, dz, params["post_quant_conv"], cache["z"],
                                                padding=POINT)
    return dz, filled(params, grads)


def _levels(half):
    """[(its place, its dict)] of the levels of an encoder or a decoder, in the order in which they run."""
    place = "down_blocks" if "down_blocks" in half else "up_blocks"
    levels, middle = [(place, level) for level in half[place]], [("mid_block", half["mid_block"])]
    return levels + middle if place == "down_blocks" else middle + levels


def _half(params, x, config, keep):
    """An encoder or a decoder. Returns y, cache."""
    groups, kept = config.get("norm_num_groups", 32), []
    h = apply(conv2d, params["conv_in"], x)
    for _, level in _levels(params):
        h, cache = _level(level, h, groups, keep)
        kept.append(cache)
    a = apply(group_norm_silu, params["conv_norm_out"], h, groups=groups, eps=EPS)
    return apply(conv2d, params["conv_out"], a), {"x": x, "levels": kept, "h": h, "a": a} if keep else None


def _half_gradients(dy, params, cache, config):
    """dx and dparams of `_half`."""
    levels, groups = _levels(params), config.get("norm_num_groups", 32)
    grads = {place: [] for place, _ in levels}
    da, grads["conv_out"] = gradient(conv2d_backward, dy, params["conv_out"], cache["a"])
    dh, grads["conv_norm_out"] = gradient(group_norm_silu_backward, da, params["conv_norm_out"], cache["h"],
                                          b=params["conv_norm_out"].get("bias"), groups=groups, eps=EPS)
    for (place, level), kept in zip(reversed(levels), reversed(cache["levels"])):
        dh, made = _level_gradients(dh, level, kept)
        grads[place] = made if place == "mid_block" else [made, *grads[place]]
    dx, grads["conv_in"] = gradient(conv2d_backward, dh, params["conv_in"], cache["x"])
    return dx, grads


def _level(params, h, groups, keep):
    """The residual blocks of a level, attention in the middle, and the way to the next level. Returns h, cache."""
    kept, cache = [], {}
    for resnet, attention in zip_longest(params["resnets"], params.get("attentions", [])):
        h, block = resblock(resnet, h, None, groups, EPS, keep)
        h, seen = pixel_attention(attention, h, 1, groups, EPS, keep) if attention else (h, None)
        kept.append([block, seen])
    if "downsamplers" in params:
        cache["fine"] = h
        h = apply(conv2d, params["downsamplers"][0]["conv"], h, stride=2, padding=CORNER)  # (B, C, H / 2, W / 2)
    if "upsamplers" in params:
        cache["fine"] = upsample_nearest(h, 2)  # (B, C, 2 H, 2 W)
        h = apply(conv2d, params["upsamplers"][0]["conv"], cache["fine"])
    return h, cache | {"layers": kept} if keep else None


def _level_gradients(dh, params, cache):
    """dh and dparams of `_level`."""
    grads = {"resnets": [], "attentions": []}
    if "upsamplers" in params:
        dfine, dconv = gradient(conv2d_backward, dh, params["upsamplers"][0]["conv"], cache["fine"])
        dh, grads["upsamplers"] = upsample_nearest_backward(dfine, 2), [{"conv": dconv}]
    if "downsamplers" in params:
        dh, dconv = gradient(conv2d_backward, dh, params["downsamplers"][0]["conv"], cache["fine"], stride=2,
                             padding=CORNER)
        grads["downsamplers"] = [{"conv": dconv}]
    layers = zip_longest(params["resnets"], params.get("attentions", []), cache["layers"])
    for resnet, attention, (block, seen) in reversed([*layers]):
        if attention:
            dh, dattention = pixel_attention_backward(dh, attention, seen)
            grads["attentions"].insert(0, dattention)
        dh, _, dresnet = resblock_backward(dh, resnet, block)
        grads["resnets"].insert(0, dresnet)
    return dh, grads


def tiny_decode(params, z, config, keep=True):
    """The image of a latent by 3 x 3 convolutions and relu alone, [TAESD]: h = 3 tanh(z / 3), through a list of layers,
    x = 2 h - 1. In the list a dict with weight is a convolution, one with conv a `tiny_block`, and an empty one relu as
    the second entry and `upsample_nearest` later on.

    params: of the published file. z: (B, C, h, w), scaled to a deviation of 1. config: dict; upsampling_scaling_factor.
    keep: as in `encode`.
    Returns x (B, 3, H, W), cache.
    """
    h, kept = 3 * tanh(z / 3), []
    for i, layer in enumerate(params["decoder"]["layers"]):
        cache = h
        if "conv" in layer:
            h, cache = tiny_block(layer, h)
        elif layer:
            h = apply(conv2d, layer, h)
        else:
            h = relu(h) if i == 1 else upsample_nearest(h, config.get("upsampling_scaling_factor", 2))
        kept.append(cache if keep else None)
    return 2 * h - 1, {"z": z, "layers": kept} if keep else None


def tiny_decode_backward(dx, params, cache, config):
    """Gradients of `tiny_decode`; the encoder's are 0. dx: as x there. params, config: as there. cache: of the forward.
    Returns dz, dparams."""
    layers, grads, dh = params["decoder"]["layers"], [], 2 * dx
    for i, layer, kept in reversed([*zip(range(len(layers)), layers, cache["layers"])]):
        dlayer = {}
        if "conv" in layer:
            dh, dlayer = tiny_block_backward(dh, layer, kept)
        elif layer:
            dh, dlayer = gradient(conv2d_backward, dh, layer, kept)
        elif i == 1:
            dh = relu_backward(dh, kept)
        else:
            dh = upsample_nearest_backward(dh, config.get("upsampling_scaling_factor", 2))
        grads.insert(0, dlayer)
    return tanh_backward(dh, tanh(cache["z"] / 3)), filled(params, {"decoder": {"layers": grads}})


def tiny_block(params, x):
    """y = relu(shortcut(x) + conv_3(relu(conv_2(relu(conv_1(x)))))), [TAESD].

    params: dict with a list conv, whose entries 0, 2 and 4 are layers, and perhaps skip. x: (B, C, H, W).
    Returns y (B, C', H, W), cache.
    """
    first, second, third = params["conv"][::2]
    h1 = apply(conv2d, first, x)
    h2 = apply(conv2d, second, relu(h1))
    h3 = apply(conv2d, third, relu(h2))
    u = h3 + (apply(conv2d, params["skip"], x, padding=POINT) if "skip" in params else x)
    return relu(u), {"x": x, "h1": h1, "h2": h2, "u": u}


def tiny_block_backward(dy, params, cache):
    """Gradients of `tiny_block`. dy: as y there. params: as there. cache: of the forward. Returns dx, dparams."""
    first, second, third = params["conv"][::2]
    grads, du = {}, relu_backward(dy, cache["u"])
    da2, dthird = gradient(conv2d_backward, du, third, relu(cache["h2"]))
    da1, dsecond = gradient(conv2d_backward, relu_backward(da2, cache["h2"]), second, relu(cache["h1"]))
    dx, dfirst = gradient(conv2d_backward, relu_backward(da1, cache["h1"]), first, cache["x"])
    if "skip" in params:
        du, grads["skip"] = gradient(conv2d_backward, du, params["skip"], cache["x"], padding=POINT)
    return dx + du, filled(params, grads | {"conv": [dfirst, None, dsecond, None, dthird]})
