"""The text encoder of CLIP, which reads the prompts of Stable Diffusion: a causal transformer over tokens.

Parameters have the published names (transformers' `CLIPTextModel`), with "text_model" before them or without. config
has the published keys: num_attention_heads, hidden_act ("quick_gelu" or "gelu"), layer_norm_eps.

Papers
    [CLIP]   Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021
    [GPT-2]  Radford et al., "Language Models are Unsupervised Multitask Learners", 2019
"""
import numpy as np

from ref.layers import (
    embedding, embedding_backward, feed_forward, feed_forward_backward, layer_norm, layer_norm_backward, multi_head,
    multi_head_backward,
)  # fmt: skip
from ref.nets.init import text_encoder_init
from ref.tree import apply, filled, gradient


def text_encoder(params, ids, config):
    """y = LayerNorm(h_N),  h_n = text_block(h_{n - 1}),  h_0 = E[ids] + P, [CLIP] section 2.4: each token sees itself
    and those before it. Without the last layers and without `final_layer_norm` in the dict, y is what these layers
    would get.

    params: of the published file. ids: (B, L) ints. config: dict.
    Returns y (B, L, C), cache.
    Raises ValueError for an id that is no token, for more tokens than places, for an unknown `hidden_act`.
    """
    model = params.get("text_model", params)
    places = model["embeddings"]["position_embedding"]["weight"]
    if ids.shape[1] > len(places):
        raise ValueError(f"ids: expected at most {len(places)} tokens, got {ids.shape[1]}")
    tokens, kept = embedding(model["embeddings"]["token_embedding"]["weight"], ids), []  # (B, L, C)
    h = tokens.astype(np.result_type(tokens, np.float32), copy=False) + places[:ids.shape[1]]
    for layer in model["encoder"]["layers"]:
        h, cache = text_block(layer, h, config)
        kept.append(cache)
    last = model.get("final_layer_norm")
    y = apply(layer_norm, last, h, eps=_eps(config)) if last else h
    return y, {"ids": ids, "layers": kept, "h": h}


def text_encoder_backward(dy, params, cache, config):
    """Gradients of `text_encoder`. dy: (B, L, C). params, config: as there. cache: of the forward. Returns dparams."""
    model, grads, layers, dh = params.get("text_model", params), {}, [], dy
    if "final_layer_norm" in model:
        norm = model["final_layer_norm"]
        dh, grads["final_layer_norm"] = gradient(layer_norm_backward, dy, norm, cache["h"], eps=_eps(config))
    for layer, kept in zip(reversed(model["encoder"]["layers"]), reversed(cache["layers"])):
        dh, dlayer = text_block_backward(dh, layer, kept, config)
        layers.insert(0, dlayer)
    tokens, places = (model["embeddings"][name]["weight"] for name in ("token_embedding", "position_embedding"))
    dplaces = np.zeros(places.shape, dh.dtype, like=dh)
    dplaces[:dh.shape[1]] = dh.sum(axis=0)
    grads["encoder"] = {"layers": layers}
    grads["embeddings"] = {"token_embedding": {"weight": embedding_backward(dh, tokens, cache["ids"])},
                           "position_embedding": {"weight": dplaces}}
    return filled(params, {"text_model": grads} if "text_model" in params else grads)


def text_block(params, x, config, mask=None):
    """u = x + Attention(LayerNorm(x)),  y = u + W_2 act(W_1 LayerNorm(u)), [GPT-2] section 2.3, the attention causal,
    or as a mask says.

    params: one of the encoder's layers. x: (B, L, C). config: as in `text_encoder`. mask: (L, L) bools, True where a
    place (row) sees another (column), or None.
    Returns y (B, L, C), cache.
    """
    n1 = apply(layer_norm, params["layer_norm1"], x, eps=_eps(config))
    a, attention = multi_head(params["self_attn"], n1, None, _heads(config), mask is None, mask)
    u = x + a
    n2 = apply(layer_norm, params["layer_norm2"], u, eps=_eps(config))
    m, mlp = feed_forward(params["mlp"], n2, _act(config))
    return u + m, {"x": x, "attention": attention, "u": u, "mlp": mlp}


def text_block_backward(dy, params, cache, config, mask=None):
    """Gradients of `text_block`. dy: (B, L, C). params, config, mask: as there. cache: of the forward. Returns dx,
    dparams."""
    dn2, mlp = feed_forward_backward(dy, params["mlp"], cache["mlp"], _act(config))
    du, norm2 = gradient(layer_norm_backward, dn2, params["layer_norm2"], cache["u"], eps=_eps(config))
    du = dy + du
    dn1, _, attention = multi_head_backward(du, params["self_attn"], cache["attention"], mask is None, mask)
    dx, norm1 = gradient(layer_norm_backward, dn1, params["layer_norm1"], cache["x"], eps=_eps(config))
    grads = {"self_attn": attention, "layer_norm1": norm1, "mlp": mlp, "layer_norm2": norm2}
    return du + dx, filled(params, grads)


def _heads(config):
    return config.get("num_attention_heads", 8)


def _eps(config):
    return config.get("layer_norm_eps", 1e-5)


def _act(config):
    return config.get("hidden_act", "quick_gelu")
