"""The nets of `ref.nets.mlp` in NumPy, as far as the loops of `kernels.numpy_cpu.fused` need them."""
import numpy as np


def linear(x, w, b):
    """x w^T + b. x: (B, n). w: (m, n). b: (m,)."""
    return x @ w.T + b


def linear_backward(dy, x, w):
    """The gradients of `linear` in x, w and b. dy: (B, m). x, w: as there."""
    return dy @ w, dy.T @ x, dy.sum(axis=0)


def simple_mlp(params, x, t):
    """eps_hat and what the backward pass needs. params: w1, b1, w2, b2. x: (B, pixels). t: (B,) ints."""
    xt = np.concatenate([x, t[:, None].astype(x.dtype)], axis=1)
    h = linear(xt, params["w1"], params["b1"])
    a = np.maximum(h, 0)
    return linear(a, params["w2"], params["b2"]), {"xt": xt, "h": h, "a": a}


def simple_mlp_backward(deps_hat, params, cache):
    """The gradients in the parameters. deps_hat: (B, pixels). params, cache: as in `simple_mlp`."""
    da, dw2, db2 = linear_backward(deps_hat, cache["a"], params["w2"])
    _, dw1, db1 = linear_backward(np.where(cache["h"] > 0, da, 0), cache["xt"], params["w1"])
    return {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2}


def residual(params, x, t, labels):
    """The output. params: in, time, class, blocks, out. x: (B, pixels). t, labels: (B,) ints."""
    time = params["time"]
    half = time["w"].shape[1] // 2
    angle = t.astype(np.float64)[:, None] * 10000.0 ** (-np.arange(half) / half)
    emb = np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(x.dtype)
    c = silu(linear(emb, time["w"], time["b"])) + params["class"]["w"][labels]
    h = linear(x, params["in"]["w"], params["in"]["b"])
    for block in params["blocks"]:
        h = h + linear(silu(linear(h, block["w1"], block["b1"]) + c), block["w2"], block["b2"])
    return linear(silu(h), params["out"]["w"], params["out"]["b"])


def silu(x):
    """x / (1 + e^-x), from e^-|x|. x: array."""
    e = np.exp(np.where(x >= 0, -x, x))
    return x * (np.where(x >= 0, 1, e) / (1 + e))
