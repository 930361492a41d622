"""The MLP generator; and the MLP discriminator, with its gradient in its input and the gradient of that, which the
penalties of `ref.gan` need.

Plain functions over a dict: the forward returns its output and a dict of what the backward needs. Arrays keep the dtype
of the parameters, which are w1 (n1, n0), b1 (n1,), w2 (n2, n1), b2 (n2,), w3 (n3, n2), b3 (n3,); the discriminator has
n3 = 1.

Papers
    [GAN]      Goodfellow et al., "Generative Adversarial Nets", 2014
    [WGAN-GP]  Gulrajani et al., "Improved Training of Wasserstein GANs", 2017
    [He]       He et al., "Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet Classification",
               2015
"""
import numpy as np

from ref.layers import (
    leaky_relu, leaky_relu_backward, linear, linear_backward, sigmoid, sigmoid_backward, softplus, tanh, tanh_backward,
)  # fmt: skip
from ref.philox import normal, stream
from ref.shapes import integers

ACTIVATIONS = {  # act, act' and act'', each of h
    "leaky_relu": (leaky_relu, lambda h: leaky_relu_backward(np.ones_like(h), h), np.zeros_like),
    "softplus": (softplus, sigmoid, lambda h: sigmoid_backward(1, sigmoid(h))),
    "tanh": (tanh, lambda h: tanh_backward(1, tanh(h)), lambda h: -2 * tanh(h) * tanh_backward(1, tanh(h))),
}


def generator_init(seed, latent=64, width=512, pixels=784, dtype=np.float32):
    """Parameters of the generator: normal with variance 2 / inputs ([He] eq. 10), in the last layer 0.01 / inputs, so
    that a fresh generator says little and has no noise to unlearn; biases 0.

    seed: int. latent, width, pixels: ints. dtype: float32 or float64.
    Returns a dict with w1 (width, latent), b1, w2 (width, width), b2, w3 (pixels, width), b3.
    """
    latent, width, pixels = integers(latent=latent, width=width, pixels=pixels)
    return _init(seed, (latent, width, width, pixels), (2, 2, 0.01), 0, dtype)


def generator(params, z):
    """G(z) = tanh(W3 a2 + b3),  a2 = act(W2 a1 + b2),  a1 = act(W1 z + b1): an MLP as [GAN]'s, act the leaky relu of
    slope 0.2.

    params: from `generator_init`. z: (B, latent).
    Returns x (B, pixels) in [-1, 1], cache.
    Raises ValueError where the shapes do not fit.
    """
    h1 = linear(z, params["w1"], params["b1"])
    a1 = leaky_relu(h1)
    h2 = linear(a1, params["w2"], params["b2"])
    a2 = leaky_relu(h2)
    x = tanh(linear(a2, params["w3"], params["b3"]))
    return x, {"z": z, "h1": h1, "a1": a1, "h2": h2, "a2": a2, "x": x}


def generator_backward(dx, params, cache):
    """Gradients of `generator` in z and in its parameters.

    dx: (B, pixels). params, cache: of the forward.
    Returns dz, dparams.
    """
    da2, dw3, db3 = linear_backward(tanh_backward(dx, cache["x"]), cache["a2"], params["w3"])
    da1, dw2, db2 = linear_backward(leaky_relu_backward(da2, cache["h2"]), cache["a1"], params["w2"])
    dz, dw1, db1 = linear_backward(leaky_relu_backward(da1, cache["h1"]), cache["z"], params["w1"])
    return dz, {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2, "w3": dw3, "b3": db3}


def discriminator_init(seed, pixels=784, width=512, dtype=np.float32):
    """Parameters of the discriminator: normal with variance 2 / inputs ([He] eq. 10), in the last layer 1 / inputs;
    biases 0.

    seed, pixels, width, dtype: as in `generator_init`.
    Returns a dict with w1 (width, pixels), b1, w2 (width, width), b2, w3 (1, width), b3.
    """
    pixels, width = integers(pixels=pixels, width=width)
    return _init(seed, (pixels, width, width, 1), (2, 2, 1), 3, dtype)


def discriminator(params, x, act):
    """D(x) = w3 a2 + b3,  a2 = act(h2),  h2 = W2 a1 + b2,  a1 = act(h1),  h1 = W1 x + b1: the logit of [GAN]'s D.

    params: the dict. x: (B, n0). act: "leaky_relu" (slope 0.2), "softplus" or "tanh".
    Returns logits (B,), cache.
    Raises ValueError for another act or where the shapes do not fit.
    """
    f, slope, _ = _activation(act)
    h1 = linear(x, params["w1"], params["b1"])
    a1 = f(h1)
    h2 = linear(a1, params["w2"], params["b2"])
    a2 = f(h2)
    logits = linear(a2, params["w3"], params["b3"])[:, 0]
    return logits, {"x": x, "a1": a1, "s1": slope(h1), "a2": a2, "s2": slope(h2)}


def discriminator_backward(dlogits, params, cache):
    """Gradients of `discriminator` in x, by which the generator learns, and in its parameters.

    dlogits: (B,). params, cache: of the forward.
    Returns dx, dparams.
    """
    da2, dw3, db3 = linear_backward(dlogits[:, None], cache["a2"], params["w3"])
    da1, dw2, db2 = linear_backward(da2 * cache["s2"], cache["a1"], params["w2"])
    dx, dw1, db1 = linear_backward(da1 * cache["s1"], cache["x"], params["w1"])
    return dx, {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2, "w3": dw3, "b3": db3}


def discriminator_input_gradient(params, x, act):
    """dx_b = grad D(x_b), the gradient in [WGAN-GP] eq. 3: `discriminator_backward` for dlogits = 1, written out, so
    that it can be differentiated again. With s = act'(h), * elementwise, and rows for examples:

        u2 = w3 * s2,   v1 = u2 W2,   u1 = v1 * s1,   dx = u1 W1

    params, x, act: as in `discriminator`.
    Returns dx (B, n0), cache.
    Raises as `discriminator` does.
    """
    f, slope, curvature = _activation(act)
    h1 = linear(x, params["w1"], params["b1"])
    a1 = f(h1)
    h2 = linear(a1, params["w2"], params["b2"])
    s1, s2 = slope(h1), slope(h2)
    u2 = params["w3"] * s2
    v1 = u2 @ params["w2"]
    u1 = v1 * s1
    return u1 @ params["w1"], {"x": x, "a1": a1, "s1": s1, "c1": curvature(h1), "s2": s2, "c2": curvature(h2), "u2": u2,
                               "v1": v1, "u1": u1}


def discriminator_input_gradient_backward(ddx, params, cache):
    """Gradients of sum(ddx dx) in x and in the parameters, the second-order part of training with a penalty. b3 moves
    no gradient.

    ddx: (B, n0). params, cache: of the forward.
    Returns dx, dparams.
    """
    x, a1, s1, s2, u2, v1, u1 = (cache[name] for name in ("x", "a1", "s1", "s2", "u2", "v1", "u1"))
    # Back along u1, v1 and u2
    dw1 = u1.T @ ddx
    du1 = ddx @ params["w1"].T
    dv1, ds1 = du1 * s1, du1 * v1
    dw2 = u2.T @ dv1
    du2 = dv1 @ params["w2"].T
    dw3, ds2 = np.sum(du2 * s2, axis=0, keepdims=True), du2 * params["w3"]
    # By way of s1 and s2, whose derivative is c = act''(h), back along h2, a1 and h1
    da1, dw2_h2, db2 = linear_backward(ds2 * cache["c2"], a1, params["w2"])
    dx, dw1_h1, db1 = linear_backward(ds1 * cache["c1"] + da1 * s1, x, params["w1"])
    return dx, {"w1": dw1 + dw1_h1, "b1": db1, "w2": dw2 + dw2_h2, "b2": db2, "w3": dw3,
                "b3": np.zeros_like(params["b3"])}


def _init(seed, widths, gains, first, dtype):
    params = {}
    for i, (inputs, outputs, gain) in enumerate(zip(widths, widths[1:], gains)):
        params[f"w{i + 1}"] = ((gain / inputs) ** 0.5 * normal(seed, (outputs, inputs),
                                                               stream("init", first + i))).astype(dtype)
        params[f"b{i + 1}"] = np.zeros(outputs, dtype)
    return params


def _activation(act):
    if act not in ACTIVATIONS:
        raise ValueError(f"act: expected one of {', '.join(sorted(ACTIVATIONS))}, got {act!r}")
    return ACTIVATIONS[act]
