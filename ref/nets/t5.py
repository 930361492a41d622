"""The encoder of T5, the third that reads the prompts of Stable Diffusion 3: a transformer in which every token sees
all others, and how far away they are.

params has the published names (transformers' `T5EncoderModel`). config has the published keys, of which arrays cannot
say relative_attention_max_distance, layer_norm_epsilon and feed_forward_proj, which is "gated-gelu" here.

Papers
    [T5]   Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020
    [GLU]  Shazeer, "GLU Variants Improve Transformer", 2020
"""
import numpy as np

from ref.layers import (
    embedding, embedding_backward, gelu_tanh, gelu_tanh_backward, linear, linear_backward, merge_heads, rms_norm,
    rms_norm_backward, split_heads,
)  # fmt: skip
from ref.nets.init import drawn
from ref.shapes import integers
from ref.tree import apply, filled, gradient


def t5_encoder_init(seed, config, dtype=np.float32):
    """Fresh parameters, by `drawn`. seed: int. config: the published keys vocab_size, d_model, d_kv, d_ff, num_layers,
    num_heads, relative_attention_num_buckets. dtype: float32 or float64. Returns a dict."""
    d, inner, hidden = config["d_model"], config["num_heads"] * config["d_kv"], config["d_ff"]
    buckets = config["relative_attention_num_buckets"]

    def block(i):
        heads = {"q": (inner, d), "k": (inner, d), "v": (inner, d), "o": (d, inner)}
        heads |= {"relative_attention_bias": (buckets, config["num_heads"])} if i == 0 else {}
        dense = {"wi_0": (hidden, d), "wi_1": (hidden, d), "wo": (d, hidden)}
        return {"layer": [{kind: {name: {"weight": shape} for name, shape in layers.items()},
                           "layer_norm": {"weight": (d,)}} for kind, layers in (("SelfAttention", heads),
                                                                                ("DenseReluDense", dense))]}

    return drawn(seed, {
        "shared": {"weight": (config["vocab_size"], d)},
        "encoder": {"block": [block(i) for i in range(config["num_layers"])], "final_layer_norm": {"weight": (d,)}},
    }, dtype=dtype)


def t5_encoder(params, ids, config, mask=None, keep=True):
    """y = RMSNorm(h_N),  h_n = t5_block(h_{n - 1}),  h_0 = E[ids], [T5] section 2.1: no token has a place of its own,
    and all blocks share one bias for how far apart two tokens are.

    params: of the published file, or from `t5_encoder_init`. ids: (B, L) ints. config: dict. mask: (B, L) bools, True
    for the tokens that are seen, or None for all. keep: bool.
    Returns y (B, L, C), cache, or None for it without keep, where each part of it is freed after its use.
    Raises ValueError for an id that is no token, and for another feed_forward_proj.
    """
    if config.get("feed_forward_proj", "gated-gelu") != "gated-gelu":
        raise ValueError(f"feed_forward_proj: expected 'gated-gelu' in config, got {config['feed_forward_proj']!r}")
    rows, kept = embedding(params["shared"]["weight"], ids), []  # (B, L, C)
    h = rows.astype(np.result_type(rows, np.float32), copy=False)
    table, buckets = _distances(params, ids, config)
    bias = np.moveaxis(embedding(table, buckets), 2, 0).astype(h.dtype)  # (heads, L, L)
    for block in params["encoder"]["block"]:
        h, cache = t5_block(block, h, bias, config, mask)
        kept.append(cache if keep else None)
    y = _norm(params["encoder"]["final_layer_norm"], h, config)
    return y, {"ids": ids, "bias": bias, "blocks": kept, "h": h} if keep else None


def t5_encoder_backward(dy, params, cache, config, mask=None):
    """Gradients of `t5_encoder`. dy: as y there. params, config, mask: as there. cache: of the forward.
    Returns dparams."""
    encoder, dbias, blocks = params["encoder"], 0, []
    dh, norm = _norm_gradient(dy, encoder["final_layer_norm"], cache["h"], config)
    for block, kept in zip(reversed(encoder["block"]), reversed(cache["blocks"])):
        dh, db, dblock = t5_block_backward(dh, block, cache["bias"], kept, config, mask)
        dbias = dbias + db
        blocks.insert(0, dblock)
    table, buckets = _distances(params, cache["ids"], config)
    blocks[0]["layer"][0]["SelfAttention"]["relative_attention_bias"] = {
        "weight": embedding_backward(np.moveaxis(dbias, 0, 2), table, buckets)}
    shared = {"weight": embedding_backward(dh, params["shared"]["weight"], cache["ids"])}
    return filled(params, {"shared": shared, "encoder": {"block": blocks, "final_layer_norm": norm}})


def t5_block(params, x, bias, config, mask=None):
    """u = x + W_o merge(Attention(q, k, v)),  y = u + W_o (gelu(W_0 n) * W_1 n),  with q, k and v of RMSNorm(x) and
    n = RMSNorm(u), [T5] section 2.1 and [GLU] eq. 6; the attention is `biased_attention`, gelu is `gelu_tanh`.

    params: one of the encoder's blocks. x: (B, L, C). bias: as there. config, mask: as in `t5_encoder`.
    Returns y (B, L, C), cache.
    """
    first, second = params["layer"]
    # Attention
    n1 = _norm(first["layer_norm"], x, config)
    q, k, v = (split_heads(apply(linear, first["SelfAttention"][name], n1), len(bias)) for name in "qkv")
    a = merge_heads(biased_attention(q, k, v, bias, mask))  # (B, L, heads d)
    u = x + apply(linear, first["SelfAttention"]["o"], a)
    # The gated layers
    n2 = _norm(second["layer_norm"], u, config)
    h, g = (apply(linear, second["DenseReluDense"][name], n2) for name in ("wi_0", "wi_1"))
    y = u + apply(linear, second["DenseReluDense"]["wo"], gelu_tanh(h) * g)
    return y, {"x": x, "n1": n1, "qkv": (q, k, v), "a": a, "u": u, "n2": n2, "h": h, "g": g}


def t5_block_backward(dy, params, bias, cache, config, mask=None):
    """Gradients of `t5_block`. dy: (B, L, C). params, bias, config, mask: as there. cache: of the forward.
    Returns dx, dbias, dparams."""
    first, second = params["layer"]
    # The gated layers
    layers, h, g = second["DenseReluDense"], cache["h"], cache["g"]
    dm, dwo = gradient(linear_backward, dy, layers["wo"], gelu_tanh(h) * g)
    dn_h, dwi_0 = gradient(linear_backward, gelu_tanh_backward(dm * g, h), layers["wi_0"], cache["n2"])
    dn_g, dwi_1 = gradient(linear_backward, dm * gelu_tanh(h), layers["wi_1"], cache["n2"])
    du, norm2 = _norm_gradient(dn_h + dn_g, second["layer_norm"], cache["u"], config)
    du = dy + du
    # Attention
    layers = first["SelfAttention"]
    da, do = gradient(linear_backward, du, layers["o"], cache["a"])
    *dqkv, dbias = biased_attention_backward(split_heads(da, len(bias)), *cache["qkv"], bias, mask)
    dn, grads = 0, {"o": do}
    for name, dhead in zip("qkv", dqkv):
        dn_head, grads[name] = gradient(linear_backward, merge_heads(dhead), layers[name], cache["n1"])
        dn = dn + dn_head
    dx, norm1 = _norm_gradient(dn, first["layer_norm"], cache["x"], config)
    dparams = {"layer": [{"SelfAttention": grads, "layer_norm": norm1}, {
        "DenseReluDense": {"wi_0": dwi_0, "wi_1": dwi_1, "wo": dwo}, "layer_norm": norm2}]}
    return du + dx, dbias, filled(params, dparams)


def biased_attention(q, k, v, bias, mask=None):
    """y = softmax(q k^T + b) v, [T5] section 2.1: the logits are not divided by sqrt(d).

    q, k, v: (B, heads, L, d). bias: (heads, L, L), queries in rows. mask: (B, L) bools, True for the keys that are
    seen, one or more in each row, or None for all.
    Returns y (B, heads, L, d).
    """
    return _weights(q, k, bias, mask) @ v


def biased_attention_backward(dy, q, k, v, bias, mask=None):
    """Gradients of `biased_attention`, with weights p and scores s:

        dv = p^T dy,   dp = dy v^T,   ds = p (dp - sum_k p dp),   dq = ds k,   dk = ds^T q,   db = sum_B ds

    dy: as y there. q, k, v, bias, mask: as there.
    Returns dq, dk, dv, dbias.
    """
    p = _weights(q, k, bias, mask)  # (B, heads, L, L)
    dp = dy @ v.swapaxes(2, 3)
    ds = p * (dp - (p * dp).sum(axis=3, keepdims=True))
    return ds @ k, ds.swapaxes(2, 3) @ q, p.swapaxes(2, 3) @ dy, ds.sum(axis=0)


def relative_buckets(length, buckets=32, max_distance=128):
    """Which bias a pair of tokens has, by how far the key is from the query, [T5] section 2.1. The second half of the
    biases is for keys after the query. Of the s biases of a half, e = s / 2 are for one distance n < e each, the others
    for ranges that grow with the distance:

        e + floor((s - e) log(n / e) / log(max_distance / e)),   s - 1 at most

    length: L. buckets: int. max_distance: int.
    Returns (L, L) ints, queries in rows.
    Raises ValueError for fewer than 4 buckets, and where max_distance is not above e.
    """
    length, buckets, max_distance = integers(length=length, buckets=buckets, max_distance=max_distance)
    s, e = buckets // 2, buckets // 4
    if e < 1 or max_distance <= e:
        raise ValueError(f"buckets, max_distance: expected at least 4, and more than a quarter of them, got {buckets} "
                         f"and {max_distance}")
    offset = np.arange(length) - np.arange(length)[:, None]  # (L, L), keys minus queries
    n = np.abs(offset)
    # log2, for a floor needs the logarithms of powers of 2 without an error
    far = e + (s - e) * np.log2(np.maximum(n, e) / e) / np.log2(max_distance / e)
    return np.where(n < e, n, np.minimum(far.astype(np.int64), s - 1)) + s * (offset > 0)


def _distances(params, ids, config):
    """The table of biases (buckets, heads), which the first block has for all, and the row of each pair of tokens."""
    table = params["encoder"]["block"][0]["layer"][0]["SelfAttention"]["relative_attention_bias"]["weight"]
    return table, relative_buckets(ids.shape[1], table.shape[0], config.get("relative_attention_max_distance", 128))


def _weights(q, k, bias, mask):
    s = q @ k.swapaxes(2, 3) + bias  # (B, heads, L, L)
    if mask is not None:
        s = np.where(mask[:, None, None], s, -np.inf)
    e = np.exp(s - np.real(s).max(axis=3, keepdims=True))
    return e / e.sum(axis=3, keepdims=True)


def _norm(params, x, config):
    return rms_norm(x, params["weight"].astype(x.dtype, copy=False), config.get("layer_norm_epsilon", 1e-6))


def _norm_gradient(dy, params, x, config):
    dx, dw = rms_norm_backward(dy, x, params["weight"], config.get("layer_norm_epsilon", 1e-6))
    return dx, {"weight": dw}
