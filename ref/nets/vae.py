"""The encoder and the decoder of a variational autoencoder for flat images: two MLPs of three layers.

Plain functions over dicts, as in `ref.nets.mlp`: init, forward, backward. Arrays keep the dtype of the parameters.

Papers
    [VAE]    Kingma, Welling, "Auto-Encoding Variational Bayes", 2014
    [SiLU]   Elfwing, Uchibe, Doya, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation in
             Reinforcement Learning", 2018
    [LeCun]  LeCun, Bottou, Orr, Mueller, "Efficient BackProp", 1998
"""
import numpy as np

from ref.layers import linear, linear_backward, silu, silu_backward
from ref.philox import normal, stream
from ref.shapes import integers


def encoder_init(seed, pixels=784, width=512, latent=32, dtype=np.float32):
    """Parameters of the encoder: normal with variance 1 / inputs ([LeCun] section 4.6), biases 0.

    seed: int. pixels, width, latent: ints. dtype: float32 or float64.
    Returns a dict with w1 (width, pixels), b1, w2 (width, width), b2, w3 (2 latent, width), b3.
    """
    pixels, width, latent = integers(pixels=pixels, width=width, latent=latent)
    return _init(seed, (pixels, width, width, 2 * latent), 0, dtype)


def encoder(params, x):
    """q(z | x) = N(mu, diag(exp(logvar))), [VAE] appendix C.2, with two hidden layers and silu for its tanh:

        a1 = silu(W1 x + b1);   a2 = silu(W2 a1 + b2);   [mu, logvar] = W3 a2 + b3

    params: from `encoder_init`. x: (B, pixels).
    Returns mu, logvar, each (B, latent), and a cache.
    Raises ValueError where the shapes do not fit.
    """
    out, cache = _forward(params, x)
    return *np.split(out, 2, axis=1), cache


def encoder_backward(dmu, dlogvar, params, cache):
    """Gradients of `encoder` in x and in its parameters.

    dmu, dlogvar: (B, latent). params, cache: of the forward.
    Returns dx, dparams.
    """
    return _down(np.concatenate([dmu, dlogvar], axis=1), params, cache)


def decoder_init(seed, pixels=784, width=512, latent=32, dtype=np.float32):
    """Parameters of the decoder, drawn as those of the encoder, from other streams.

    seed, pixels, width, latent, dtype: as in `encoder_init`.
    Returns a dict with w1 (width, latent), b1, w2 (width, width), b2, w3 (pixels, width), b3.
    """
    pixels, width, latent = integers(pixels=pixels, width=width, latent=latent)
    return _init(seed, (latent, width, width, pixels), 3, dtype)


def decoder(params, z):
    """The logits of p(x | z), independent Bernoullis, [VAE] appendix C.1, with the layers of `encoder`.

    params: from `decoder_init`. z: (B, latent).
    Returns logits (B, pixels), cache.
    Raises ValueError where the shapes do not fit.
    """
    return _forward(params, z)


def decoder_backward(dlogits, params, cache):
    """Gradients of `decoder` in z, by which the encoder learns, and in its parameters.

    dlogits: (B, pixels). params, cache: of the forward.
    Returns dz, dparams.
    """
    return _down(dlogits, params, cache)


def _init(seed, widths, first, dtype):
    params = {}
    for i, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
        params[f"w{i + 1}"] = (inputs**-0.5 * normal(seed, (outputs, inputs), stream("init", first + i))).astype(dtype)
        params[f"b{i + 1}"] = np.zeros(outputs, dtype)
    return params


def _forward(params, x):
    h1 = linear(x, params["w1"], params["b1"])
    a1 = silu(h1)
    h2 = linear(a1, params["w2"], params["b2"])
    a2 = silu(h2)
    return linear(a2, params["w3"], params["b3"]), {"x": x, "h1": h1, "a1": a1, "h2": h2, "a2": a2}


def _down(dout, params, cache):
    da2, dw3, db3 = linear_backward(dout, cache["a2"], params["w3"])
    da1, dw2, db2 = linear_backward(silu_backward(da2, cache["h2"]), cache["a1"], params["w2"])
    dx, dw1, db1 = linear_backward(silu_backward(da1, cache["h1"]), cache["x"], params["w1"])
    return dx, {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2, "w3": dw3, "b3": db3}
