"""Two denoisers for flat images: a simple MLP, and a residual one that represents time and class better.

A network is three functions: `net_init(seed, ...) -> params`, `net(params, x, ...) -> y, cache`, and
`net_backward(dy, params, cache) -> dx, dparams`. dparams has the structure of params (`ref.tree`). Arrays keep the
dtype of the parameters.

`simple_mlp` is the network of the introductory text that this project started from: a first diffusion model in a few
dozen lines, 785 -> 256 -> 784, trained on digits by [DDPM] algorithm 1.

Papers
    [DDPM]    Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [ResNet]  He et al., "Deep Residual Learning for Image Recognition", 2016
    [CFG]     Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [LeCun]   LeCun, Bottou, Orr, Mueller, "Efficient BackProp", 1998
"""
import numpy as np

from ref.layers import (
    embedding, embedding_backward, linear, linear_backward, relu, relu_backward, silu, silu_backward, time_embedding,
)  # fmt: skip
from ref.philox import normal, stream, uniform
from ref.shapes import integers


def simple_mlp_init(seed, pixels=784, width=256, dtype=np.float32):
    """Parameters of `simple_mlp`, uniform in +-1/sqrt(inputs), as most frameworks draw those of a linear layer.

    seed: int. pixels, width: ints. dtype: float32 or float64.
    Returns a dict with w1 (width, pixels + 1), b1, w2 (pixels, width), b2.
    """
    pixels, width = integers(pixels=pixels, width=width)
    inputs = {"w1": pixels + 1, "b1": pixels + 1, "w2": width, "b2": width}
    shapes = {"w1": (width, pixels + 1), "b1": (width,), "w2": (pixels, width), "b2": (pixels,)}
    return {
        name: ((2 * uniform(seed, shape, stream("init", i)) - 1) / np.sqrt(inputs[name])).astype(dtype)
        for i, (name, shape) in enumerate(shapes.items())
    }


def simple_mlp(params, x, t):
    """eps_hat = w2 relu(w1 [x, t] + b1) + b2: t itself, 1 to T, is one more input feature.

    What that costs, measured (5,000 steps of 128 digits, seed 0): t up to 1000, next to pixels up to 1, alone decides
    which units are on. 67 to 85 of 256 are, they stay on, and the loss ends at 0.914. With t / 1000 all 256 are on, and
    it ends at 0.725. Both are near 1 - units / 784, the least that a layer of so many units can leave of noise in 784
    dimensions. The rest is amplified by 1 / sqrt(abar_T) = 157 from T to 0, so neither draws digits unclipped.

    params: from `simple_mlp_init`. x: (B, pixels). t: (B,) ints.
    Returns eps_hat (B, pixels), cache.
    """
    xt = np.concatenate([x, t[:, None].astype(x.dtype)], axis=1)  # (B, pixels + 1)
    h = linear(xt, params["w1"], params["b1"])
    a = relu(h)
    return linear(a, params["w2"], params["b2"]), {"xt": xt, "h": h, "a": a}


def simple_mlp_backward(deps_hat, params, cache):
    """Gradients of `simple_mlp` in x and in its parameters.

    deps_hat: (B, pixels). params, cache: of the forward.
    Returns dx, dparams.
    """
    da, dw2, db2 = linear_backward(deps_hat, cache["a"], params["w2"])
    dxt, dw1, db1 = linear_backward(relu_backward(da, cache["h"]), cache["xt"], params["w1"])
    return dxt[:, :-1], {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2}


def residual_init(seed, pixels=784, width=512, depth=4, classes=10, frequencies=128, dtype=np.float32):
    """Parameters of `residual`: normal with variance 1 / inputs ([LeCun] section 4.6). Each block's last layer is 0:
    it starts as the identity.

    seed: int. pixels, width, depth, classes, frequencies: ints. dtype: float32 or float64.
    Returns a dict of dicts: in, time, out with w and b; class with w (classes + 1, width), whose last row means "no
    label"; and blocks, a list of `depth` dicts with w1, b1, w2, b2.
    """
    pixels, width, depth, classes, frequencies = integers(pixels=pixels, width=width, depth=depth, classes=classes,
                                                          frequencies=frequencies)
    order = iter(range(4 + 2 * depth))

    def weight(outputs, inputs, scale):
        return (scale * normal(seed, (outputs, inputs), stream("init", next(order)))).astype(dtype)

    def layer(outputs, inputs):
        return {"w": weight(outputs, inputs, inputs**-0.5), "b": np.zeros(outputs, dtype)}

    def block():
        return {"w1": weight(width, width, width**-0.5), "b1": np.zeros(width, dtype),
                "w2": weight(width, width, 0.0), "b2": np.zeros(width, dtype)}  # fmt: skip

    entry, time = layer(width, pixels), layer(width, frequencies)
    label, out = {"w": weight(classes + 1, width, 1.0)}, layer(pixels, width)
    return {"in": entry, "time": time, "class": label, "blocks": [block() for _ in range(depth)], "out": out}


def residual(params, x, t, labels):
    """A residual MLP, [ResNet] eq. 1, with time as sines ([DDPM] appendix B) and the class, or none ([CFG] algorithm
    1):

        c = silu(W_time time_embedding(t)) + E_class[label]
        h = W_in x;    h <- residual_block(h, c) for each block;    out = W_out silu(h)

    params: from `residual_init`. x: (B, pixels). t: (B,) numbers. labels: (B,) ints in [0, classes]; classes itself is
    "no label".
    Returns out (B, pixels), cache.
    """
    # Time and class
    emb = np.asarray(time_embedding(t, params["time"]["w"].shape[1]), x.dtype, like=x)  # (B, frequencies)
    time = linear(emb, **params["time"])
    c = silu(time) + embedding(params["class"]["w"], labels)  # (B, width)
    # Blocks
    h, kept = linear(x, **params["in"]), []
    for block in params["blocks"]:
        h, cache = residual_block(block, h, c)
        kept.append(cache)
    # Output
    a = silu(h)
    return linear(a, **params["out"]), {"x": x, "labels": labels, "emb": emb, "time": time, "blocks": kept, "h": h,
                                        "a": a}


def residual_backward(dout, params, cache):
    """Gradients of `residual` in x and in its parameters.

    dout: (B, pixels). params, cache: of the forward.
    Returns dx, dparams.
    """
    # Output
    da, dw, db = linear_backward(dout, cache["a"], params["out"]["w"])
    out = {"w": dw, "b": db}
    # Blocks, the last first
    dh, dc, blocks = silu_backward(da, cache["h"]), 0, []
    for block, kept in zip(reversed(params["blocks"]), reversed(cache["blocks"])):
        dh, dc_block, dblock = residual_block_backward(dh, block, kept)
        dc = dc + dc_block
        blocks.insert(0, dblock)
    dx, dw, db = linear_backward(dh, cache["x"], params["in"]["w"])
    entry = {"w": dw, "b": db}
    # Time and class
    dc = dc + np.zeros_like(dh)
    label = {"w": embedding_backward(dc, params["class"]["w"], cache["labels"])}
    _, dw, db = linear_backward(silu_backward(dc, cache["time"]), cache["emb"], params["time"]["w"])
    return dx, {"in": entry, "time": {"w": dw, "b": db}, "class": label, "blocks": blocks, "out": out}


def residual_block(params, h, c):
    """[ResNet] eq. 1:  y = h + W2 silu(W1 h + b1 + c) + b2.

    params: a dict with w1, b1, w2, b2. h: (B, width). c: (B, width), of time and class.
    Returns y (B, width), cache.
    """
    u = linear(h, params["w1"], params["b1"]) + c
    a = silu(u)
    return h + linear(a, params["w2"], params["b2"]), {"h": h, "u": u, "a": a}


def residual_block_backward(dy, params, cache):
    """Gradients of `residual_block` in h, in c and in its parameters.

    dy: (B, width). params, cache: of the forward.
    Returns dh, dc, dparams.
    """
    da, dw2, db2 = linear_backward(dy, cache["a"], params["w2"])
    dc = silu_backward(da, cache["u"])
    dh, dw1, db1 = linear_backward(dc, cache["h"], params["w1"])
    return dy + dh, dc, {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2}
