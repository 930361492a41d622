"""A small convolutional codec of sound: an encoder to few vectors a second, which `ref.audio.residual_quantise` makes
codes of, and a decoder. Arrays keep the dtype of the parameters.

The encoder shortens by a stride after another, with kernels of twice the stride; the decoder lengthens by convolutions
to `stride` times the channels, whose groups become neighbours in time ([ESPCN] in one axis, which has no uneven overlap
as a transposed convolution has). A branch follows each, as in [SoundStream]. The strides are in the shapes.

Papers
    [SoundStream]  Zeghidour et al., "SoundStream: An End-to-End Neural Audio Codec", 2021
    [ESPCN]        Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
                   Convolutional Neural Network", 2016
"""
import math

import numpy as np

from ref.layers import conv1d, conv1d_backward, silu, silu_backward
from ref.nets.init import drawn
from ref.shapes import integer, integers
from ref.tree import apply, gradient


def codec_init(seed, channels=32, latent=16, strides=(2, 4, 5), dtype=np.float32):
    """Fresh parameters, by `drawn`; each branch ends in 0.

    seed: int. channels: int, inside. latent: int, of the vectors. strides: ints >= 1, from the sound on. dtype: float32
    or float64.
    Returns a dict with encoder and decoder: first, last, and levels, a list of {"resize", "conv1", "conv2"}.
    """
    C, D = integers(channels=channels, latent=latent)
    strides = [integer(s, "strides") for s in strides]
    if not strides or min(strides) < 1:
        raise ValueError(f"strides: expected ints of at least 1, got {strides}")

    def conv(outputs, inputs, taps):
        return {"weight": (outputs, inputs, taps), "bias": (outputs,)}

    def level(resize):
        return {"resize": resize, "conv1": conv(C, C, 3), "conv2": conv(C, C, 1)}

    return drawn(seed, {
        "encoder": {"first": conv(C, 1, 7), "levels": [level(conv(C, C, 2 * s)) for s in strides],
                    "last": conv(D, C, 3)},
        "decoder": {"first": conv(C, D, 3), "levels": [level(conv(s * C, C, 3)) for s in reversed(strides)],
                    "last": conv(1, C, 7)}}, ("conv2",), dtype)


def codec_encode(params, x):
    """The vectors of a sound, [SoundStream] section III-A: one for as many samples as the product of the strides.

    params: the encoder's. x: (B, L), L a multiple of that product.
    Returns z (B, D, L / product), cache.
    Raises ValueError for another length.
    """
    total = math.prod(_stride(level) for level in params["levels"])
    if x.ndim != 2 or x.shape[1] % total or not x.size:
        raise ValueError(f"x: expected shape (B, L), L a multiple of {total}, got {x.shape}")
    h, kept = apply(conv1d, params["first"], x[:, None], padding=(3, 3)), []  # (B, C, L)
    for level in params["levels"]:
        s = _stride(level)
        down = apply(conv1d, level["resize"], silu(h), stride=s, padding=_shorter(s))
        y, cache = codec_branch(level, down)
        kept.append({"h": h, "branch": cache})
        h = y
    return apply(conv1d, params["last"], silu(h), padding=(1, 1)), {"x": x, "levels": kept, "h": h}


def codec_encode_backward(dz, params, cache):
    """Gradients of `codec_encode`. dz: as z there. params: as there. cache: of the forward. Returns dx, dparams."""
    dh, last = gradient(conv1d_backward, dz, params["last"], silu(cache["h"]), padding=(1, 1))
    dh, levels = silu_backward(dh, cache["h"]), []
    for level, kept in zip(reversed(params["levels"]), reversed(cache["levels"])):
        s = _stride(level)
        ddown, grads = codec_branch_backward(dh, level, kept["branch"])
        da, grads["resize"] = gradient(conv1d_backward, ddown, level["resize"], silu(kept["h"]), stride=s,
                                       padding=_shorter(s))
        dh = silu_backward(da, kept["h"])
        levels.insert(0, {name: grads[name] for name in level})
    dx, first = gradient(conv1d_backward, dh, params["first"], cache["x"][:, None], padding=(3, 3))
    return dx[:, 0], {"first": first, "levels": levels, "last": last}


def codec_decode(params, z):
    """The sound of vectors, [SoundStream] section III-B, lengthened as [ESPCN] eq. 4 does.

    params: the decoder's. z: (B, D, N).
    Returns x (B, N product of the strides), cache.
    """
    h, kept = apply(conv1d, params["first"], z, padding=(1, 1)), []
    for level in params["levels"]:
        wide = apply(conv1d, level["resize"], silu(h), padding=(1, 1))  # (B, s C, L)
        y, cache = codec_branch(level, _interleaved(wide, h.shape[1]))
        kept.append({"h": h, "branch": cache})
        h = y
    return apply(conv1d, params["last"], silu(h), padding=(3, 3))[:, 0], {"z": z, "levels": kept, "h": h}


def codec_decode_backward(dx, params, cache):
    """Gradients of `codec_decode`. dx: as x there. params: as there. cache: of the forward. Returns dz, dparams."""
    dh, last = gradient(conv1d_backward, dx[:, None], params["last"], silu(cache["h"]), padding=(3, 3))
    dh, levels = silu_backward(dh, cache["h"]), []
    for level, kept in zip(reversed(params["levels"]), reversed(cache["levels"])):
        dy, grads = codec_branch_backward(dh, level, kept["branch"])
        dwide = _apart(dy, kept["h"].shape[2])
        da, grads["resize"] = gradient(conv1d_backward, dwide, level["resize"], silu(kept["h"]), padding=(1, 1))
        dh = silu_backward(da, kept["h"])
        levels.insert(0, {name: grads[name] for name in level})
    dz, first = gradient(conv1d_backward, dh, params["first"], cache["z"], padding=(1, 1))
    return dz, {"first": first, "levels": levels, "last": last}


def codec_branch(params, h):
    """y = h + W_2 * silu(W_1 * silu(h)), the residual unit of [SoundStream] figure 3. params: dict with conv1 and
    conv2. h: (B, C, L). Returns y (B, C, L), cache."""
    a = apply(conv1d, params["conv1"], silu(h), padding=(1, 1))
    return h + apply(conv1d, params["conv2"], silu(a)), {"h": h, "a": a}


def codec_branch_backward(dy, params, cache):
    """Gradients of `codec_branch`. dy: as y there. params: as there, or a level's. cache: of the forward. Returns dh,
    dparams, of conv1 and conv2."""
    da, conv2 = gradient(conv1d_backward, dy, params["conv2"], silu(cache["a"]))
    dh, conv1 = gradient(conv1d_backward, silu_backward(da, cache["a"]), params["conv1"], silu(cache["h"]),
                         padding=(1, 1))
    return dy + silu_backward(dh, cache["h"]), {"conv1": conv1, "conv2": conv2}


def _stride(level):
    return level["resize"]["weight"].shape[2] // 2


def _shorter(s):
    """The padding with which a kernel of 2 s makes L / s of L."""
    return (s + 1) // 2, s // 2


def _interleaved(wide, channels):
    """(B, s C, L) as (B, C, L s): group j of the channels is every s-th place from j on."""
    B, _, L = wide.shape
    return wide.reshape(B, -1, channels, L).transpose(0, 2, 3, 1).reshape(B, channels, -1)


def _apart(y, length):
    """The inverse of `_interleaved`, and its gradient."""
    B, C, _ = y.shape
    return y.reshape(B, C, length, -1).transpose(0, 3, 1, 2).reshape(B, -1, length)
