"""Two denoisers for flat images: the chapter's MLP, and a residual one that knows time and class better.

A network is three functions: `*_init(seed, ...)` makes the dict of parameters, the forward returns its output and a dict
of what the backward needs, the backward returns the gradients as a dict with the parameters' names. Arrays keep the
dtype of the parameters.

Papers
    [DDPM]    Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [ResNet]  He et al., "Deep Residual Learning for Image Recognition", 2016
    [CFG]     Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [Init]    LeCun, Bottou, Orr, Mueller, "Efficient BackProp", 1998, section 4.6
"""
import numpy as np

from ref.layers import embedding, embedding_backward, linear, linear_backward, relu, relu_backward, silu, silu_backward, time_embedding
from ref.philox import normal, uniform

INIT_STREAM = 1 << 62  # far from any stream a training loop would use


def simple_mlp_init(seed, pixels=784, width=256, dtype=np.float32):
    """Parameters of the chapter's net: (pixels + 1) -> width -> pixels. Uniform in +-1/sqrt(inputs), as the chapter's framework draws them.

    seed: int. pixels, width: ints. dtype: float32 or float64.
    Returns a dict with w1 (width, pixels + 1), b1, w2 (pixels, width), b2.
    """
    shapes = {"w1": (width, pixels + 1), "b1": (width,), "w2": (pixels, width), "b2": (pixels,)}
    inputs = {"w1": pixels + 1, "b1": pixels + 1, "w2": width, "b2": width}
    return {
        name: ((2 * uniform(seed, shape, INIT_STREAM + i) - 1) / np.sqrt(inputs[name])).astype(dtype)
        for i, (name, shape) in enumerate(shapes.items())
    }


def simple_mlp(params, x, t):
    """eps_hat = w2 relu(w1 [x, t] + b1) + b2: t itself, 1 to T, is one more input feature, exactly as the chapter feeds it.

    What that costs, measured (5,000 steps of 128 digits, seed 0): with t up to 1000 beside pixels up to 1, t alone decides
    which units are on, 67 to 85 of 256, and they stay on: the loss ends at 0.914. With t / 1000 all 256 are, and it ends
    at 0.725. Both are near 1 - units / 784, the least that a layer of so many units can leave of noise in 784 dimensions;
    and what is left is amplified by 1 / sqrt(abar_T) = 157 on the way from T to 0, so neither draws digits unclipped.

    params: from `simple_mlp_init`. x: (B, pixels). t: (B,) ints.
    Returns eps_hat (B, pixels), cache.
    """
    xt = np.concatenate([x, t[:, None].astype(x.dtype)], axis=1)
    h = linear(xt, params["w1"], params["b1"])
    a = relu(h)
    return linear(a, params["w2"], params["b2"]), {"xt": xt, "h": h, "a": a}


def simple_mlp_backward(deps_hat, params, cache):
    """Gradients of `simple_mlp` in x and in its parameters. deps_hat: (B, pixels). params, cache: of the forward. Returns dx (B, pixels), dparams."""
    da, dw2, db2 = linear_backward(deps_hat, cache["a"], params["w2"])
    dxt, dw1, db1 = linear_backward(relu_backward(da, cache["h"]), cache["xt"], params["w1"])
    return dxt[:, :-1], {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2}


def residual_init(seed, pixels=784, width=512, depth=4, classes=10, frequencies=128, dtype=np.float32):
    """Parameters of the residual net: normal with variance 1 / inputs ([Init]); each block's last layer starts at 0, so a block starts as the identity.

    seed: int. pixels, width, depth, classes, frequencies: ints. dtype: float32 or float64.
    Returns a dict: in, time, out with w and b; class with w (classes + 1, width), whose last row stands for "no label"; blocks, a list of dicts
    with w1, b1, w2, b2.
    """
    streams = iter(range(INIT_STREAM, INIT_STREAM + 4 + 2 * depth))

    def weight(shape, scale):
        return (scale * normal(seed, shape, next(streams))).astype(dtype)

    params = {name: {"w": weight((width, n), n**-0.5), "b": np.zeros(width, dtype)} for name, n in (("in", pixels), ("time", frequencies))}
    params["class"] = {"w": weight((classes + 1, width), 1.0)}
    params["out"] = {"w": weight((pixels, width), width**-0.5), "b": np.zeros(pixels, dtype)}
    params["blocks"] = [
        {"w1": weight((width, width), width**-0.5), "b1": np.zeros(width, dtype), "w2": weight((width, width), 0.0), "b2": np.zeros(width, dtype)}
        for _ in range(depth)
    ]
    return params


def residual(params, x, t, labels):
    """A residual MLP, [ResNet] eq. 1, with time as sines ([DDPM] appendix B) and the class, or none ([CFG] algorithm 1), added in each block:

        c = silu(W_time time_embedding(t)) + E_class[label]
        h = W_in x;    h <- h + W2_i silu(W1_i h + c)  for each block i;    out = W_out silu(h)

    params: from `residual_init`. x: (B, pixels). t: (B,) ints. labels: (B,) ints in [0, classes]; classes itself is "no label".
    Returns out (B, pixels), cache.
    """
    emb = time_embedding(t, params["time"]["w"].shape[1]).astype(x.dtype)
    time = linear(emb, params["time"]["w"], params["time"]["b"])
    c = silu(time) + embedding(params["class"]["w"], labels)
    h = linear(x, params["in"]["w"], params["in"]["b"])
    blocks = []
    for block in params["blocks"]:
        u = linear(h, block["w1"], block["b1"]) + c
        a = silu(u)
        blocks.append({"h": h, "u": u, "a": a})
        h = h + linear(a, block["w2"], block["b2"])
    a = silu(h)
    return linear(a, params["out"]["w"], params["out"]["b"]), {"x": x, "labels": labels, "emb": emb, "time": time, "blocks": blocks, "h": h, "a": a}


def residual_backward(dout, params, cache):
    """Gradients of `residual` in x and in its parameters. dout: (B, pixels). params, cache: of the forward. Returns dx (B, pixels), dparams."""
    grads = {"in": {}, "time": {}, "class": {}, "blocks": [], "out": {}}
    da, grads["out"]["w"], grads["out"]["b"] = linear_backward(dout, cache["a"], params["out"]["w"])
    dh = silu_backward(da, cache["h"])
    dc = 0
    for block, kept in zip(reversed(params["blocks"]), reversed(cache["blocks"])):
        da, dw2, db2 = linear_backward(dh, kept["a"], block["w2"])
        du = silu_backward(da, kept["u"])
        through, dw1, db1 = linear_backward(du, kept["h"], block["w1"])
        dh = dh + through
        dc = dc + du
        grads["blocks"].insert(0, {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2})
    dx, grads["in"]["w"], grads["in"]["b"] = linear_backward(dh, cache["x"], params["in"]["w"])
    grads["class"]["w"] = embedding_backward(dc, params["class"]["w"], cache["labels"])
    _, grads["time"]["w"], grads["time"]["b"] = linear_backward(silu_backward(dc, cache["time"]), cache["emb"], params["time"]["w"])
    return dx, grads
