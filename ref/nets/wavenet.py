"""WaveNet: the next code of a sound from those before it, by dilated causal convolutions; trained on all places at
once, sampled one place after another with queues. Arrays keep the dtype of the parameters.

The code at t is predicted from codes before t alone: they are shifted by one place, and 0 stands before the first. The
dilation of layer i is 2^(i mod cycle). With `cycle` c, layers a multiple of it, a code is predicted from the last
1 + (layers / c) (2^c - 1) ones. The last layer lacks "residual", since nothing reads it.

Papers
    [WaveNet]  van den Oord et al., "WaveNet: A Generative Model for Raw Audio", 2016
    [Fast]     Le Paine et al., "Fast Wavenet Generation Algorithm", 2016
"""
import numpy as np

from ref.layers import (
    conv1d, conv1d_backward, embedding, embedding_backward, relu, relu_backward, sigmoid, sigmoid_backward, tanh,
    tanh_backward,
)  # fmt: skip
from ref.nets.init import drawn
from ref.shapes import integer, integers, shaped, unit_interval
from ref.tree import apply, gradient


def wavenet_init(seed, classes=256, channels=32, skip=64, layers=30, dtype=np.float32):
    """Fresh parameters, by `drawn`.

    seed: int. classes: int, the codes there are. channels, skip: ints, of the residual stream and of the skip
    connections. layers: int >= 1. dtype: float32 or float64.
    Returns a dict with embed, a table; layers, a list; end, a list of two.
    Raises ValueError for fewer layers.
    """
    classes, channels, skip, layers = integers(classes=classes, channels=channels, skip=skip, layers=layers)
    if layers < 1:
        raise ValueError(f"layers: expected at least 1, got {layers}")

    def conv(outputs, inputs, taps=1):
        return {"weight": (outputs, inputs, taps), "bias": (outputs,)}

    layer = {"dilated": conv(2 * channels, channels, 2), "skip": conv(skip, channels)}
    inner = layer | {"residual": conv(channels, channels)}
    return drawn(seed, {"embed": {"weight": (classes, channels)}, "layers": [inner] * (layers - 1) + [layer],
                        "end": [conv(skip, skip), conv(classes, skip)]}, dtype=dtype)


def wavenet(params, codes, cycle):
    """The logits of p(c_t | c_1, ..., c_{t - 1}) at every t, [WaveNet] eq. 1 and section 2.4: skip connections of all
    layers added up, then relu and a convolution of one tap, twice.

    params: from `wavenet_init`. codes: (B, L) ints. cycle: int >= 1, layers until the dilation is 1 again.
    Returns logits (B, classes, L), cache.
    Raises ValueError for another shape, a code that is none or a cycle below 1, TypeError for what are no ints.
    """
    if np.ndim(codes) != 2:
        raise ValueError(f"codes: expected shape (B, L), got {np.shape(codes)}")
    h = np.zeros((*codes.shape, params["embed"]["weight"].shape[1]), params["embed"]["weight"].dtype)
    h[:, 1:] = embedding(params["embed"]["weight"], codes)[:, :-1]
    h, skips, kept = h.swapaxes(1, 2), 0, []  # (B, C, L)
    for i, layer in enumerate(params["layers"]):
        h, skip, cache = wavenet_layer(layer, h, _dilation(i, cycle))
        skips = skips + skip
        kept.append(cache)
    a = relu(skips)
    b = apply(conv1d, params["end"][0], a)
    logits = apply(conv1d, params["end"][1], relu(b))
    return logits, {"codes": codes, "layers": kept, "skips": skips, "b": b, "cycle": integer(cycle, "cycle")}


def wavenet_backward(dlogits, params, cache):
    """Gradients of `wavenet`. dlogits: as logits there. params: as there. cache: of the forward. Returns dparams."""
    da, last = gradient(conv1d_backward, dlogits, params["end"][1], relu(cache["b"]))
    da, first = gradient(conv1d_backward, relu_backward(da, cache["b"]), params["end"][0], relu(cache["skips"]))
    dskip, dh, layers = relu_backward(da, cache["skips"]), 0, []
    for i in reversed(range(len(params["layers"]))):
        kept = cache["layers"][i]
        dh = np.zeros_like(kept["h"]) if i == len(params["layers"]) - 1 else dh
        dh, dlayer = wavenet_layer_backward(dh, dskip, params["layers"][i], kept, _dilation(i, cache["cycle"]))
        layers.insert(0, dlayer)
    dh = dh.swapaxes(1, 2)  # (B, L, C)
    dembed = embedding_backward(dh[:, 1:], params["embed"]["weight"], cache["codes"][:, :-1])
    return {"embed": {"weight": dembed}, "layers": layers, "end": [first, last]}


def wavenet_layer(params, h, dilation):
    """A gated layer, [WaveNet] eq. 2, of a causal convolution of two taps, `dilation` places apart:

        z = tanh(W_f * h) sigmoid(W_g * h),   h_next = h + W_r z,   skip = W_s z

    W_f and W_g are the halves of "dilated". Without "residual" h_next is h.

    params: one of the layers. h: (B, C, L). dilation: int.
    Returns h_next (B, C, L), skip (B, S, L), cache.
    """
    dilation = integer(dilation, "dilation")
    f, g = np.split(apply(conv1d, params["dilated"], h, padding=(dilation, 0), dilation=dilation), 2, axis=1)
    f, g = tanh(f), sigmoid(g)
    h_next = h + apply(conv1d, params["residual"], f * g) if "residual" in params else h
    return h_next, apply(conv1d, params["skip"], f * g), {"h": h, "f": f, "g": g}


def wavenet_layer_backward(dh_next, dskip, params, cache, dilation):
    """Gradients of `wavenet_layer`. dh_next, dskip: as h_next and skip there. params, dilation: as there. cache: of the
    forward. Returns dh, dparams."""
    h, f, g, dilation = cache["h"], cache["f"], cache["g"], integer(dilation, "dilation")
    dz, grads = 0, {}
    for name, dout in (("skip", dskip), ("residual", dh_next)):
        if name in params:
            d, grads[name] = gradient(conv1d_backward, dout, params[name], f * g)
            dz = dz + d
    dgates = np.concatenate([tanh_backward(dz * g, f), sigmoid_backward(dz * f, g)], axis=1)  # (B, 2 C, L)
    dh, grads["dilated"] = gradient(conv1d_backward, dgates, params["dilated"], h, padding=(dilation, 0),
                                    dilation=dilation)
    return dh_next + dh, {name: grads[name] for name in params}


def wavenet_queues(params, batch, cycle):
    """The queues before the first place, [Fast] section 2.2: of each layer the last `dilation` inputs, all 0. params:
    from `wavenet_init`. batch: int. cycle: as in `wavenet`. Returns a list of (batch, C, dilation)."""
    table = params["embed"]["weight"]
    sizes = [_dilation(i, cycle) for i in range(len(params["layers"]))]
    return [np.zeros((batch, table.shape[1], dilation), table.dtype) for dilation in sizes]


def wavenet_step(params, code, queues):
    """One place of `wavenet`, [Fast] figure 3: each layer reads the input that is `dilation` places old from its queue,
    and puts the new one there.

    params: from `wavenet_init`. code: (B,) ints, the last one; or None at the first place. queues: from
    `wavenet_queues`, or the step before.
    Returns logits (B, classes) of the next code, queues.
    Raises ValueError for another shape of code, or one that is none.
    """
    if code is not None and np.shape(code) != queues[0].shape[:1]:
        raise ValueError(f"code: expected shape {queues[0].shape[:1]}, got {np.shape(code)}")
    h = queues[0][:, :, 0] * 0 if code is None else embedding(params["embed"]["weight"], code)  # (B, C)
    skips, moved = 0, []
    for layer, queue in zip(params["layers"], queues):
        taps = np.stack([queue[:, :, 0], h], axis=2)  # (B, C, 2), the two that meet the kernel
        moved.append(np.concatenate([queue[:, :, 1:], h[:, :, None]], axis=2))
        h_next, skip, _ = wavenet_layer(layer, taps, 1)
        h, skips = h_next[:, :, 1], skips + skip[:, :, 1]
    a = apply(conv1d, params["end"][0], relu(skips)[:, :, None])
    return apply(conv1d, params["end"][1], relu(a))[:, :, 0], moved


def wavenet_generate(params, u, cycle):
    """Codes drawn one after another, [WaveNet] section 2: the first v with  sum_{w <= v} p(w) > u  of each softmax.

    params: from `wavenet_init`. u: (B, N) uniforms in [0, 1], one for each code. cycle: as in `wavenet`.
    Returns codes (B, N) int64.
    Raises ValueError for u outside or of another shape, or logits that are NaN.
    """
    u = unit_interval(shaped(u, "u", "B", "N"), "u")
    queues, code, codes = wavenet_queues(params, len(u), cycle), None, np.zeros(u.shape, np.int64)
    for t in range(u.shape[1]):
        logits, queues = wavenet_step(params, code, queues)
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        total = np.cumsum(e, axis=1)
        if np.isnan(total[:, -1]).any():
            raise ValueError(f"params: expected finite logits, got NaN at place {t}")
        code = np.minimum((total <= u[:, t, None] * total[:, -1:]).sum(axis=1), logits.shape[1] - 1)
        codes[:, t] = code
    return codes


def _dilation(i, cycle):
    cycle = integer(cycle, "cycle")
    if cycle < 1:
        raise ValueError(f"cycle: expected at least 1, got {cycle}")
    return 2 ** (i % cycle)
