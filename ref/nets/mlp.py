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


def chapter_init(seed, pixels=784, width=256, dtype=np.float32):
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


def chapter(params, x, t):
    """eps_hat = w2 relu(w1 [x, t] + b1) + b2: t itself, 1 to T, is one more input feature, exactly as the chapter feeds it.

    What that costs, measured (5,000 steps of 128 digits, seed 0): with t up to 1000 beside pixels up to 1, t alone decides
    which units are on, 67 to 85 of 256, and they stay on: the loss ends at 0.914. With t / 1000 all 256 are, and it ends
    at 0.725. Both are near 1 - units / 784, the least that a layer of so many units can leave of noise in 784 dimensions;
    and what is left is amplified by 1 / sqrt(abar_T) = 157 on the way from T to 0, so neither draws digits unclipped.

    params: from `chapter_init`. x: (B, pixels). t: (B,) ints.
    Returns eps_hat (B, pixels), cache.
    """
    xt = np.concatenate([x, t[:, None].astype(x.dtype)], axis=1)
    h = linear(xt, params["w1"], params["b1"])
    a = relu(h)
    return linear(a, params["w2"], params["b2"]), {"xt": xt, "h": h, "a": a}


def chapter_backward(deps_hat, params, cache):
    """Gradients of `chapter` in its parameters. deps_hat: (B, pixels). params, cache: of the forward. Returns a dict."""
    da, dw2, db2 = linear_backward(deps_hat, cache["a"], params["w2"])
    _, dw1, db1 = linear_backward(relu_backward(da, cache["h"]), cache["xt"], params["w1"])
    return {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2}


def residual_init(seed, pixels=784, width=512, depth=4, classes=10, frequencies=128, dtype=np.float32):
    """Parameters of the residual net: normal with variance 1 / inputs ([Init]); each block's last layer starts at 0, so a block starts as the identity.

    seed: int. pixels, width, depth, classes, frequencies: ints. dtype: float32 or float64.
    Returns a dict: in, time, out with .w and .b; class.w (classes + 1, width), whose last row stands for "no label";
    block{i}.w1, .b1, .w2, .b2.
    """
    shapes = {"in.w": (width, pixels), "time.w": (width, frequencies), "class.w": (classes + 1, width), "out.w": (pixels, width)}
    for i in range(depth):
        shapes |= {f"block{i}.w1": (width, width), f"block{i}.w2": (width, width)}
    params = {}
    for i, (name, shape) in enumerate(shapes.items()):
        inputs = 1 if name == "class.w" else shape[1]
        scale = 0.0 if name.endswith("w2") else inputs**-0.5
        params[name] = (scale * normal(seed, shape, INIT_STREAM + i)).astype(dtype)
        if name != "class.w":
            params[name.replace(".w", ".b")] = np.zeros(shape[0], dtype)
    return params


def residual(params, x, t, labels):
    """A residual MLP, [ResNet] eq. 1, with time as sines ([DDPM] appendix B) and the class, or none ([CFG] algorithm 1), added in each block:

        c = silu(W_time time_embedding(t)) + E_class[label]
        h = W_in x;    h <- h + W2_i silu(W1_i h + c)  for each block i;    out = W_out silu(h)

    params: from `residual_init`. x: (B, pixels). t: (B,) ints. labels: (B,) ints in [0, classes]; classes itself is "no label".
    Returns out (B, pixels), cache.
    """
    emb = time_embedding(t, params["time.w"].shape[1]).astype(x.dtype)
    time = linear(emb, params["time.w"], params["time.b"])
    c = silu(time) + embedding(params["class.w"], labels)
    h = linear(x, params["in.w"], params["in.b"])
    cache = {"x": x, "labels": labels, "emb": emb, "time": time}
    for i in range(_depth(params)):
        u = linear(h, params[f"block{i}.w1"], params[f"block{i}.b1"]) + c
        a = silu(u)
        cache |= {f"h{i}": h, f"u{i}": u, f"a{i}": a}
        h = h + linear(a, params[f"block{i}.w2"], params[f"block{i}.b2"])
    a = silu(h)
    cache |= {"h": h, "a": a}
    return linear(a, params["out.w"], params["out.b"]), cache


def residual_backward(dout, params, cache):
    """Gradients of `residual` in its parameters. dout: (B, pixels). params, cache: of the forward. Returns a dict."""
    grads = {}
    da, grads["out.w"], grads["out.b"] = linear_backward(dout, cache["a"], params["out.w"])
    dh = silu_backward(da, cache["h"])
    dc = 0
    for i in reversed(range(_depth(params))):
        da, grads[f"block{i}.w2"], grads[f"block{i}.b2"] = linear_backward(dh, cache[f"a{i}"], params[f"block{i}.w2"])
        du = silu_backward(da, cache[f"u{i}"])
        through, grads[f"block{i}.w1"], grads[f"block{i}.b1"] = linear_backward(du, cache[f"h{i}"], params[f"block{i}.w1"])
        dh = dh + through
        dc = dc + du
    _, grads["in.w"], grads["in.b"] = linear_backward(dh, cache["x"], params["in.w"])
    grads["class.w"] = embedding_backward(dc, params["class.w"], cache["labels"])
    _, grads["time.w"], grads["time.b"] = linear_backward(silu_backward(dc, cache["time"]), cache["emb"], params["time.w"])
    return grads


def _depth(params):
    return sum(name.endswith(".w1") for name in params)
