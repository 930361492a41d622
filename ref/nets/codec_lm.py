"""Sound from text by way of the codes of a codec: the first stage's codes one after another, the other stages' each at
once. Arrays keep the dtype of the parameters.

The text stands before the sound and is seen as a whole; sound is seen up to its own place by the first stage, as a
whole by the others, and of the stages before alone. So p(codes | text) is a product of softmaxes, and adds to 1.

Papers
    [VALL-E]    Wang et al., "Neural Codec Language Models are Zero-Shot Text to Speech Synthesizers", 2023
    [MusicGen]  Copet et al., "Simple and Controllable Music Generation", 2023
"""
import numpy as np

from ref.layers import embedding, embedding_backward, layer_norm, layer_norm_backward, linear, linear_backward
from ref.nets.init import drawn
from ref.nets.text import text_block, text_block_backward
from ref.shapes import classes, integers
from ref.tree import apply, gradient, zeros_like


def codec_lm_init(seed, texts=10, classes=64, stages=4, places=(1, 32), width=64, layers=4, dtype=np.float32):
    """Fresh parameters, by `drawn`, of both networks.

    seed: int. texts: int, the tokens of text there are. classes, stages: ints, of the codec. places: (tokens of text,
    codes of sound) at most. width, layers: ints. dtype: float32 or float64.
    Returns a dict with first and rest.
    """
    texts, classes, stages, width, layers = integers(texts=texts, classes=classes, stages=stages, width=width,
                                                     layers=layers)

    def table(rows, columns=width):
        return {"weight": (rows, columns)}

    def layer(outputs, inputs):
        return {"weight": (outputs, inputs), "bias": (outputs,)}

    norm = {"weight": (width,), "bias": (width,)}
    block = {"self_attn": {name: layer(width, width) for name in ("k_proj", "v_proj", "q_proj", "out_proj")},
             "layer_norm1": norm, "layer_norm2": norm,
             "mlp": {"fc1": layer(4 * width, width), "fc2": layer(width, 4 * width)}}
    both = {"text": table(texts), "text_place": table(places[0]), "place": table(places[1]), "layers": [block] * layers,
            "norm": norm}
    return drawn(seed, {
        "first": both | {"codes": [table(classes + 1)], "heads": [layer(classes, width)]},
        "rest": both | {"codes": [table(classes)] * (stages - 1), "stage": table(stages - 1),
                        "heads": [layer(classes, width)] * (stages - 1)}}, dtype=dtype)


def first_codes(params, text, codes, config):
    """The logits of p(c_{1,t} | c_{1,<t}, text) at every t, [VALL-E] eq. 1. Row `classes` of the table of codes stands
    before the first one.

    params: "first" of `codec_lm_init`. text: (B, T) ints. codes: (B, N) ints. config: dict with num_attention_heads.
    Returns logits (B, N, classes), cache.
    Raises ValueError for a token or a code that is none, or more of them than places.
    """
    start = len(params["codes"][0]["weight"]) - 1
    text, codes = _ints("text", text, None, 2), _ints("codes", codes, start, 2)
    before = np.concatenate([np.full((len(codes), 1), start), codes[:, :-1]], axis=1)
    n, m = text.shape[1], codes.shape[1]
    sound = np.arange(n + m) >= n
    seen = ~sound | (sound[:, None] & (np.arange(n + m) <= np.arange(n + m)[:, None]))  # (T + N, T + N)
    y, cache = _transformed(params, text, [before], 0, config, seen)
    return apply(linear, params["heads"][0], y), cache | {"y": y, "stage": 0}


def first_codes_backward(dlogits, params, cache, config):
    """Gradients of `first_codes`. dlogits: as logits there. params, config: as there. cache: of the forward.
    Returns dparams."""
    return _gradients(dlogits, params, cache, config)


def rest_codes(params, text, codes, config):
    """The logits of p(c_{k,t} | c_{1..k-1}, text) at every t at once, [VALL-E] eq. 2, from the sum of the embeddings of
    the stages before; which stage it is is added, too.

    params: "rest" of `codec_lm_init`. text: (B, T) ints. codes: (B, k - 1, N) ints, of the first stages. config: as in
    `first_codes`.
    Returns logits (B, N, classes) of stage k, cache.
    Raises as `first_codes` does, and ValueError for another number of stages.
    """
    text, codes = _ints("text", text, None, 2), _ints("codes", codes, len(params["codes"][0]["weight"]), 3)
    if not 1 <= codes.shape[1] <= len(params["heads"]):
        raise ValueError(f"codes: expected 1 to {len(params['heads'])} stages, got shape {codes.shape}")
    stage = codes.shape[1] - 1
    n = text.shape[1] + codes.shape[2]
    y, cache = _transformed(params, text, list(codes.swapaxes(0, 1)), params["stage"]["weight"][stage], config,
                            np.ones((n, n), bool))
    return apply(linear, params["heads"][stage], y), cache | {"y": y, "stage": stage}


def rest_codes_backward(dlogits, params, cache, config):
    """Gradients of `rest_codes`. dlogits: as logits there. params, config: as there. cache: of the forward.
    Returns dparams."""
    return _gradients(dlogits, params, cache, config)


def codec_lm_log_likelihood(params, text, codes, config):
    """ln p(codes | text), [VALL-E] eqs. 1 and 2: the sum over the stages and places.

    params: from `codec_lm_init`. text: (B, T) ints. codes: (B, K, N) ints. config: as in `first_codes`.
    Returns (B,).
    """
    total = 0
    for k in range(codes.shape[1]):
        logits = (rest_codes(params["rest"], text, codes[:, :k], config) if k else
                  first_codes(params["first"], text, codes[:, 0], config))[0]
        shifted = logits - logits.max(axis=2, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
        total = total + np.take_along_axis(log_p, codes[:, k, :, None], axis=2)[:, :, 0].sum(axis=1)
    return total


def delay(codes, empty):
    """The delay pattern, [MusicGen] section 2.2: stage k starts k places later, so that one step predicts a code of
    each stage, from those of the stages before at the same place and all that is earlier.

    codes: (B, K, N) ints. empty: int, what stands where a stage has no code.
    Returns steps (B, K, N + K - 1) ints,  steps[k, t + k] = codes[k, t].
    Raises ValueError for another shape.
    """
    B, K, N = _ints("codes", codes, None, 3).shape
    steps = np.full((B, K, N + K - 1), empty, codes.dtype)
    for k in range(K):
        steps[:, k, k:k + N] = codes[:, k]
    return steps


def undelay(steps):
    """The inverse of `delay`. steps: (B, K, N + K - 1) ints. Returns codes (B, K, N). Raises ValueError for fewer than
    K steps."""
    B, K, L = _ints("steps", steps, None, 3).shape
    if L < K:
        raise ValueError(f"steps: expected at least {K} for {K} stages, got {steps.shape}")
    return np.stack([steps[:, k, k:L - K + 1 + k] for k in range(K)], axis=1)


def _ints(name, value, n, axes):
    """value as an array of ints, of so many axes, in [0, n) where n is given."""
    value = np.asarray(value) if n is None else classes(value, n, name)
    if value.ndim != axes:
        raise ValueError(f"{name}: expected {axes} axes, got shape {value.shape}")
    return value


def _transformed(params, text, sound, extra, config, seen):
    """The normed states of the sound's places, (B, N, C), and the cache. sound: codes (B, N) of each stage. seen: which
    place sees which, (T + N, T + N)."""
    for name, given, places in (("text", text, params["text_place"]), ("codes", sound[0], params["place"])):
        if given.shape[1] > len(places["weight"]) or len(given) != len(text):
            most = len(places["weight"])
            raise ValueError(f"{name}: expected shape ({len(text)}, at most {most}), got {given.shape}")
    words = embedding(params["text"]["weight"], text) + params["text_place"]["weight"][:text.shape[1]]
    codes = sum(embedding(table["weight"], stage) for table, stage in zip(params["codes"], sound))
    h = np.concatenate([words, codes + params["place"]["weight"][:sound[0].shape[1]]], axis=1) + extra  # (B, T + N, C)
    kept = []
    for layer in params["layers"]:
        h, cache = text_block(layer, h, config, seen)
        kept.append(cache)
    h = h[:, text.shape[1]:]
    return apply(layer_norm, params["norm"], h, eps=1e-5), {
        "text": text, "sound": sound, "layers": kept, "h": h, "seen": seen}


def _gradients(dlogits, params, cache, config):
    text, sound, stage, grads = cache["text"], cache["sound"], cache["stage"], zeros_like(params)
    dy, grads["heads"][stage] = gradient(linear_backward, dlogits, params["heads"][stage], cache["y"])
    dh, grads["norm"] = gradient(layer_norm_backward, dy, params["norm"], cache["h"], eps=1e-5)
    dh = np.concatenate([np.zeros((*text.shape, dh.shape[2]), dh.dtype), dh], axis=1)
    for i in reversed(range(len(params["layers"]))):
        dh, grads["layers"][i] = text_block_backward(dh, params["layers"][i], cache["layers"][i], config, cache["seen"])
    # Places, tokens and stages
    dwords, dsound = dh[:, :text.shape[1]], dh[:, text.shape[1]:]
    grads["text"]["weight"] = embedding_backward(dwords, params["text"]["weight"], text)
    grads["text_place"]["weight"][:text.shape[1]] = dwords.sum(axis=0)
    grads["place"]["weight"][:sound[0].shape[1]] = dsound.sum(axis=0)
    for i, codes in enumerate(sound):
        grads["codes"][i]["weight"] = embedding_backward(dsound, params["codes"][i]["weight"], codes)
    if "stage" in params:
        grads["stage"]["weight"][stage] = dh.sum(axis=(0, 1))
    return grads
