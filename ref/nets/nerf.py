"""NeRF's network: density and colour of a point, seen from a direction. Parameters under the names of the widely used
PyTorch port (nerf-pytorch), whose configuration is in the shapes: the octaves are in the widths of the inputs, and a
layer that takes the point again, the skip, is wider by it. Arrays keep the dtype of the parameters.

Papers
    [NeRF]      Mildenhall et al., "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis", 2020
    [Mip-NeRF]  Barron et al., "Mip-NeRF: A Multiscale Representation for Anti-Aliasing Neural Radiance Fields", 2021
"""
import numpy as np

from ref.layers import (
    linear, linear_backward, relu, relu_backward, sigmoid, sigmoid_backward, softplus, softplus_backward,
)  # fmt: skip
from ref.nets.init import drawn
from ref.scene import positional_encoding, positional_encoding_backward
from ref.shapes import integers
from ref.tree import apply, gradient

DENSITY = {"relu": (relu, relu_backward), "softplus": (softplus, softplus_backward)}


def nerf_init(seed, octaves=10, octaves_direction=4, width=256, depth=8, skip=4, dtype=np.float32):
    """Fresh parameters, by `drawn`. The sizes of [NeRF] appendix A unless told otherwise.

    seed: int. octaves, octaves_direction: ints, of the encoding of the point and of the direction. width, depth: ints.
    skip: int, the layer, counted from 0, whose output gets the point again. dtype: float32 or float64.
    Returns a dict with pts_linears, a list of `depth` layers; alpha_linear, feature_linear, views_linears, rgb_linear.
    """
    octaves, octaves_direction, width, depth, skip = integers(octaves=octaves, octaves_direction=octaves_direction,
                                                              width=width, depth=depth, skip=skip)
    point, view = 3 + 6 * octaves, 3 + 6 * octaves_direction

    def layer(outputs, inputs):
        return {"weight": (outputs, inputs), "bias": (outputs,)}

    inputs = [point] + [width + point * (i == skip) for i in range(depth - 1)]
    return drawn(seed, {"pts_linears": [layer(width, n) for n in inputs], "alpha_linear": layer(1, width),
                        "feature_linear": layer(width, width), "views_linears": [layer(width // 2, width + view)],
                        "rgb_linear": layer(3, width // 2)}, dtype=dtype)


def nerf(params, x, direction, density="relu"):
    """[NeRF] appendix A, figure 7, with e = positional_encoding as the authors' code has it, without pi and with x
    itself:

        h = relu(W_i h + b_i), which starts from e(x) and gets it again after the skip,
        sigma = relu(W_alpha h + b_alpha),
        color = sigmoid(W_rgb relu(W_view (W_feature h + b_feature, e(direction)) + b_view) + b_rgb)

    The density does not see the direction. With density "softplus" its gradient never is 0, as in [Mip-NeRF] section 3.

    params: from `nerf_init`. x: (N, 3), about in [-1, 1]. direction: (N, 3), of length 1. density: "relu" or
    "softplus".
    Returns sigma (N,), color (N, 3), cache.
    Raises ValueError for another density, or where a layer's width does not fit.
    """
    act, point, view = _density(density)[0], *_encoded(params, x, direction)
    # The point
    h, layers = point, []
    for layer in params["pts_linears"]:
        again = layer["weight"].shape[1] != h.shape[1]
        h = np.concatenate([point, h], axis=1) if again else h
        u = apply(linear, layer, h)
        layers.append({"again": again, "h": h, "u": u})
        h = relu(u)
    raw = apply(linear, params["alpha_linear"], h)  # (N, 1)
    # The direction
    a = np.concatenate([apply(linear, params["feature_linear"], h), view], axis=1)
    v = apply(linear, params["views_linears"][0], a)
    b = relu(v)
    color = sigmoid(apply(linear, params["rgb_linear"], b))
    return act(raw)[:, 0], color, {"x": x, "direction": direction, "layers": layers, "h": h, "raw": raw, "a": a, "v": v,
                                   "b": b, "color": color}


def nerf_backward(dsigma, dcolor, params, cache, density="relu"):
    """Gradients of `nerf`. dsigma: (N,). dcolor: (N, 3). params, density: as there. cache: of the forward.

    Returns dx, ddirection, dparams.
    """
    # The direction
    dout = sigmoid_backward(dcolor, cache["color"])
    db, drgb = gradient(linear_backward, dout, params["rgb_linear"], cache["b"])
    da, dviews = gradient(linear_backward, relu_backward(db, cache["v"]), params["views_linears"][0], cache["a"])
    width = len(params["feature_linear"]["weight"])
    dh, dfeature = gradient(linear_backward, da[:, :width], params["feature_linear"], cache["h"])
    # The density
    draw = _density(density)[1](dsigma[:, None], cache["raw"])
    dh_alpha, dalpha = gradient(linear_backward, draw, params["alpha_linear"], cache["h"])
    # The point, the last layer first
    dh, dpoint, dlayers = dh + dh_alpha, 0, []
    for layer, kept in zip(reversed(params["pts_linears"]), reversed(cache["layers"])):
        dh, dlayer = gradient(linear_backward, relu_backward(dh, kept["u"]), layer, kept["h"])
        dlayers.insert(0, dlayer)
        if kept["again"]:
            point = cache["layers"][0]["h"].shape[1]
            dpoint, dh = dpoint + dh[:, :point], dh[:, point:]
    dx = _decoded(dpoint + dh, cache["x"])
    return dx, _decoded(da[:, width:], cache["direction"]), {
        "pts_linears": dlayers, "alpha_linear": dalpha, "feature_linear": dfeature, "views_linears": [dviews],
        "rgb_linear": drgb}


def _density(name):
    if name not in DENSITY:
        raise ValueError(f"density: expected {' or '.join(DENSITY)}, got {name!r}")
    return DENSITY[name]


def _encoded(params, x, direction):
    """The encodings of both inputs, with the octaves that the layers' widths have room for."""
    if x.ndim != 2 or x.shape[1] != 3 or direction.shape != x.shape:
        raise ValueError(f"expected x (N, 3) and direction (N, 3), got x {x.shape}, direction {direction.shape}")
    widths = (params["pts_linears"][0]["weight"].shape[1],
              params["views_linears"][0]["weight"].shape[1] - len(params["feature_linear"]["weight"]))
    if any(n < 3 or n % 6 != 3 for n in widths):
        raise ValueError(f"params: expected inputs of 3 + 6 octaves, got widths of {widths[0]} and {widths[1]}")
    return [positional_encoding(a, n // 6, pi=False, identity=True).astype(a.dtype)
            for a, n in zip((x, direction), widths)]


def _decoded(dy, x):
    return positional_encoding_backward(dy, x, dy.shape[1] // 6, pi=False, identity=True).astype(x.dtype)
