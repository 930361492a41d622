"""The diffusion transformer: patches of the image as tokens, and time and class by way of the norms.

Parameters have the names of the authors' files, and config the keys of their constructor, of which `num_heads` alone is
not in the arrays. The sinusoids have freq_shift 0 and the cosines first, and the norms have eps 1e-6. diffusers' class
of this name is another network: it has freq_shift 1, and eps 1e-5 before the feed-forward layers.

Papers
    [DiT]  Peebles, Xie, "Scalable Diffusion Models with Transformers", 2023
"""
import numpy as np

from ref.layers import (
    attention, attention_backward, conv2d, conv2d_backward, embedding, embedding_backward, feed_forward,
    feed_forward_backward, gate_residual, gate_residual_backward, layer_norm_modulate, layer_norm_modulate_backward,
    linear, linear_backward, merge_heads, silu, silu_backward, split_heads, time_embedding, unpatchify,
    unpatchify_backward,
)  # fmt: skip
from ref.nets.init import dit_init
from ref.tree import apply, filled, gradient

EPS, NONE = 1e-6, ((0, 0), (0, 0))  # of the norms; the padding of patches


def dit(params, x, t, labels, config):
    """eps_hat(x, t, label), and the variances where the file has them, [DiT] section 3.2: a linear layer of each patch,
    plus its place; blocks with adaLN-Zero; and a linear layer back to patches.

    params: of the authors' file. x: (B, C, H, W). t: (B,) or one number, as the file counts. labels: (B,) ints; the
    number of classes is "no label". config: dict.
    Returns y (B, C or 2 C, H, W), cache.
    Raises ValueError where x does not fit the table of places, or a label is none.
    """
    patch = params["x_embedder"]["proj"]["weight"].shape[2]
    h = apply(conv2d, params["x_embedder"]["proj"], x, stride=patch, padding=NONE)  # (B, D, H / p, W / p)
    h = h.reshape(*h.shape[:2], -1).swapaxes(1, 2)  # (B, L, D)
    if params["pos_embed"].shape[1:] != h.shape[1:]:
        raise ValueError(f"x: expected {params['pos_embed'].shape[1]} patches, got {h.shape[1]} in x {x.shape}")
    h = h + params["pos_embed"]
    # Time and class
    width = params["t_embedder"]["mlp"][0]["weight"].shape[1]
    s = np.asarray(time_embedding(np.broadcast_to(t, len(x)), width, flip_sin_to_cos=True), x.dtype, like=x)
    c, time = feed_forward(params["t_embedder"]["mlp"], s, "silu")
    c = c + embedding(params["y_embedder"]["embedding_table"]["weight"], labels)  # (B, D)
    # Blocks
    kept = []
    for block in params["blocks"]:
        h, cache = dit_block(block, h, silu(c), config["num_heads"])
        kept.append(cache)
    # Back to an image
    tokens, last = final_layer(params["final_layer"], h, silu(c))
    y = unpatchify(tokens, patch, x.shape[2:])
    return y, {"x": x, "labels": labels, "c": c, "time": time, "blocks": kept, "last": last}


def dit_backward(dy, params, cache, config):
    """Gradients of `dit`; the table of places is fixed and has 0. dy: as y there. params, config: as there. cache: of
    the forward. Returns dx, dparams."""
    patch = params["x_embedder"]["proj"]["weight"].shape[2]
    # Back to an image
    dh, da, dlast = final_layer_backward(unpatchify_backward(dy, patch), params["final_layer"], cache["last"])
    # Blocks
    blocks = []
    for block, kept in zip(reversed(params["blocks"]), reversed(cache["blocks"])):
        dh, da_block, dblock = dit_block_backward(dh, block, kept)
        da = da + da_block
        blocks.insert(0, dblock)
    # Time and class
    dc = silu_backward(da, cache["c"])
    dtable = embedding_backward(dc, params["y_embedder"]["embedding_table"]["weight"], cache["labels"])
    _, dtime = feed_forward_backward(dc, params["t_embedder"]["mlp"], cache["time"], "silu")
    # Patches
    rows, columns = (n // patch for n in cache["x"].shape[2:])
    dpatches = dh.swapaxes(1, 2).reshape(*dh.shape[::2], rows, columns)  # (B, D, H / p, W / p)
    embedder = params["x_embedder"]["proj"]
    dx, dproj = gradient(conv2d_backward, dpatches, embedder, cache["x"], stride=patch, padding=NONE)
    return dx, filled(params, {
        "x_embedder": {"proj": dproj}, "t_embedder": {"mlp": dtime}, "y_embedder": {"embedding_table":
        {"weight": dtable}}, "blocks": blocks, "final_layer": dlast})


def dit_block(params, x, a, heads):
    """u = x + gate_1 Attention(norm_1(x)),  y = u + gate_2 W_2 gelu(W_1 norm_2(u)), [DiT] section 3.2, where the shift
    and the scale of each `layer_norm_modulate` and each gate are a linear layer of a. With gates 0 it is the identity.

    params: dict. x: (B, L, D). a: (B, D), silu of time and class. heads: int.
    Returns y (B, L, D), cache.
    """
    parts = np.split(apply(linear, params["adaLN_modulation"][1], a), 6, axis=1)
    shift1, scale1, gate1, shift2, scale2, gate2 = parts  # (B, D) each
    n1 = layer_norm_modulate(x, shift1, scale1, EPS)
    qkv = np.split(apply(linear, params["attn"]["qkv"], n1), 3, axis=2)  # (B, L, D) each
    q, k, v = (split_heads(part, heads) for part in qkv)  # (B, heads, L, D / heads)
    m = merge_heads(attention(q, k, v))  # (B, L, D)
    o = apply(linear, params["attn"]["proj"], m)
    u = gate_residual(x, o, gate1)
    f, mlp = feed_forward(params["mlp"], layer_norm_modulate(u, shift2, scale2, EPS), "gelu_tanh")
    return gate_residual(u, f, gate2), {"x": x, "a": a, "modulation": parts, "n1": n1, "qkv": [q, k, v], "m": m, "o": o,
                                    "u": u, "f": f, "mlp": mlp}


def dit_block_backward(dy, params, cache):
    """Gradients of `dit_block`. dy: as y there. params: as there. cache: of the forward. Returns dx, da, dparams."""
    _, scale1, gate1, _, scale2, gate2 = cache["modulation"]
    q, k, v = cache["qkv"]
    # Feed-forward
    du, df, dgate2 = gate_residual_backward(dy, cache["f"], gate2)
    dn2, dmlp = feed_forward_backward(df, params["mlp"], cache["mlp"], "gelu_tanh")
    du_norm, dshift2, dscale2 = layer_norm_modulate_backward(dn2, cache["u"], scale2, EPS)
    du = np.add(du, du_norm, out=du_norm)
    # Attention
    dx, do, dgate1 = gate_residual_backward(du, cache["o"], gate1)
    dm, dproj = gradient(linear_backward, do, params["attn"]["proj"], cache["m"])
    dqkv = attention_backward(split_heads(dm, q.shape[1]), q, k, v)
    dqkv = np.concatenate([merge_heads(part) for part in dqkv], axis=2)  # (B, L, 3 D)
    dn1, dlinear = gradient(linear_backward, dqkv, params["attn"]["qkv"], cache["n1"])
    dx_norm, dshift1, dscale1 = layer_norm_modulate_backward(dn1, cache["x"], scale1, EPS)
    # Shifts, scales and gates
    dparts = np.concatenate([dshift1, dscale1, dgate1, dshift2, dscale2, dgate2], axis=1)  # (B, 6 D)
    da, dmodulation = gradient(linear_backward, dparts, params["adaLN_modulation"][1], cache["a"])
    return np.add(dx, dx_norm, out=dx_norm), da, filled(params, {"attn": {"qkv": dlinear, "proj": dproj}, "mlp": dmlp,
                                        "adaLN_modulation": [None, dmodulation]})


def final_layer(params, x, a):
    """y = W layer_norm_modulate(x) + b, [DiT] section 3.2, where the shift and the scale are a linear layer of a.

    params: dict. x: (B, L, D). a: (B, D), silu of time and class.
    Returns y (B, L, O), the patches; cache.
    """
    shift, scale = np.split(apply(linear, params["adaLN_modulation"][1], a), 2, axis=1)  # (B, D) each
    n = layer_norm_modulate(x, shift, scale, EPS)
    return apply(linear, params["linear"], n), {"x": x, "a": a, "scale": scale, "n": n}


def final_layer_backward(dy, params, cache):
    """Gradients of `final_layer`. dy: as y there. params: as there. cache: of the forward. Returns dx, da, dparams."""
    dn, dlinear = gradient(linear_backward, dy, params["linear"], cache["n"])
    dx, dshift, dscale = layer_norm_modulate_backward(dn, cache["x"], cache["scale"], EPS)
    dparts = np.concatenate([dshift, dscale], axis=1)
    da, dmodulation = gradient(linear_backward, dparts, params["adaLN_modulation"][1], cache["a"])
    return dx, da, filled(params, {"linear": dlinear, "adaLN_modulation": [None, dmodulation]})
