"""The two blocks that networks of images are made of, each next to its gradient.

params has the published names (diffusers' `ResnetBlock2D` and `Attention`), and says what a block has: a time
embedding, a shortcut.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [LDM]   Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022
"""
from ref.layers.attention import multi_head, multi_head_backward
from ref.layers.conv import conv2d, conv2d_backward
from ref.layers.fused import group_norm_silu, group_norm_silu_backward
from ref.layers.linear import linear, linear_backward
from ref.layers.norm import group_norm, group_norm_backward
from ref.layers.resample import patchify, unpatchify
from ref.shapes import integer, number
from ref.tree import apply, filled, gradient

POINT = ((0, 0), (0, 0))  # the padding of a convolution of one pixel


def resblock(params, x, c, groups, eps, keep=True):
    """The residual block of [DDPM] appendix B. Time and class shift every channel between its two convolutions:

        h = W_1 * silu(GroupNorm(x)) + V c
        y = shortcut(x) + W_2 * silu(GroupNorm(h))

    params: dict with norm1, conv1, norm2, conv2; perhaps time_emb_proj (V); and conv_shortcut where y has other
    channels than x. x: (B, C, H, W). c: (B, E), or None. groups: int. eps: float, of both norms. keep: bool.
    Returns y (B, O, H, W), cache; without keep cache is None, and each part of it is freed after its use.
    """
    norm = {"groups": integer(groups, "groups"), "eps": number(eps, "eps")}
    # First convolution
    h1, a1 = _activated_conv(params, 1, x, norm, keep)  # (B, O, H, W)
    # Time and class
    h = h1 if c is None else h1 + apply(linear, params["time_emb_proj"], c)[:, :, None, None]
    # Second convolution
    h2, a2 = _activated_conv(params, 2, h, norm, keep)  # (B, O, H, W)
    # Shortcut
    shortcut = apply(conv2d, params["conv_shortcut"], x, padding=POINT) if "conv_shortcut" in params else x
    return shortcut + h2, {"x": x, "c": c, "a1": a1, "h": h, "a2": a2, "norm": norm} if keep else None


def _activated_conv(params, i, x, norm, keep):
    """W_i * a,  a = silu(GroupNorm(x)). Returns it and a, or None for a without keep."""
    a = apply(group_norm_silu, params[f"norm{i}"], x, **norm)
    return apply(conv2d, params[f"conv{i}"], a), a if keep else None


def resblock_backward(dy, params, cache):
    """Gradients of `resblock`. dy: as y there. params: as there. cache: of the forward. Returns dx, dc, dparams; dc is
    None where c was."""
    norm, dshortcut, dc, grads = cache["norm"], dy, None, {}
    # Shortcut
    if "conv_shortcut" in params:
        dshortcut, grads["conv_shortcut"] = gradient(conv2d_backward, dy, params["conv_shortcut"], cache["x"],
                                                     padding=POINT)
    # Second convolution
    da2, grads["conv2"] = gradient(conv2d_backward, dy, params["conv2"], cache["a2"])
    dh, grads["norm2"] = gradient(group_norm_silu_backward, da2, params["norm2"], cache["h"],
                                  b=params["norm2"].get("bias"), **norm)
    # Time and class
    if cache["c"] is not None:
        dshift = dh.sum(axis=(2, 3))  # (B, O)
        dc, grads["time_emb_proj"] = gradient(linear_backward, dshift, params["time_emb_proj"], cache["c"])
    # First convolution
    da1, grads["conv1"] = gradient(conv2d_backward, dh, params["conv1"], cache["a1"])
    dx, grads["norm1"] = gradient(group_norm_silu_backward, da1, params["norm1"], cache["x"],
                                  b=params["norm1"].get("bias"), **norm)
    return dx + dshortcut, dc, filled(params, grads)


def pixel_attention(params, x, heads, groups, eps, keep=True):
    """y = x + MultiHead(GroupNorm(x)), [DDPM] appendix B: every pixel is a token, and sees every other.

    params: dict with group_norm, to_q, to_k, to_v, to_out. x: (B, C, H, W). heads: int. groups: int. eps: float. keep:
    bool.
    Returns y (B, C, H, W), cache, or None for it without keep.
    """
    norm = {"groups": integer(groups, "groups"), "eps": number(eps, "eps")}
    tokens = patchify(apply(group_norm, params["group_norm"], x, **norm), 1)  # (B, H W, C)
    seen, attention = multi_head(params, tokens, None, heads)
    y = x + unpatchify(seen, 1, x.shape)  # (B, C, H, W)
    return y, {"x": x, "norm": norm, "attention": attention} if keep else None


def pixel_attention_backward(dy, params, cache):
    """Gradients of `pixel_attention`. dy: as y there. params: as there. cache: of the forward. Returns dx, dparams."""
    dtokens, _, grads = multi_head_backward(patchify(dy, 1), params, cache["attention"])
    dn = unpatchify(dtokens, 1, dy.shape)
    dx, grads["group_norm"] = gradient(group_norm_backward, dn, params["group_norm"], cache["x"], **cache["norm"])
    return dy + dx, grads
