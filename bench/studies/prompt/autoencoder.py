"""The autoencoder of scenes, for diffusion on latents ([LDM] section 3.1): 3 x 32 x 32 to 4 x 8 x 8 and back, trained
with the squared error and KL, without an adversary.

Papers
    [LDM]  Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022
"""
import numpy as np

from bench.studies import fit
from bench.studies.prompt import scenes
from kernels.nets import with_kernels
from ref import tree
from ref.nets import autoencoder
from ref.nets.init import autoencoder_init

LATENT, CONFIG = (4, 8, 8), {"norm_num_groups": 8}


def start(seed, widths):
    """Fresh parameters. seed: int, or None for their shapes. widths: the channels of each level, multiples of 8."""
    return autoencoder_init(seed, latent=LATENT[0], widths=tuple(widths), layers=1)


def rebuild(params, ink, kl, backend, eps, *placed):
    """The squared error of rebuilt pictures and the gradients of

        L = mean over pictures of (sum (x_hat - x)^2 + kl KL(q(z | x), N(0, 1))) / pixels,   z = mean + std eps

    as a tree. eps: (B, *LATENT). placed: of `scenes.placed`, and more. The rest: as in `train.gradients`."""
    net, vae = with_kernels(autoencoder, backend), fit.backend(backend).vae
    x = scenes.painted(ink, *placed[:4])
    # Encode, draw z, decode
    moments, up = net.encode(params, x, CONFIG)
    mean, logvar = (part.copy() for part in np.split(moments, 2, axis=1))
    z, _ = vae.reparameterize_kl(mean, logvar, eps)
    x_hat, down = net.decode(params, z.astype(x.dtype), CONFIG)
    # Backward
    error = x_hat - x
    dz, dparams = net.decode_backward(error * (2 / x.size), params, down, CONFIG)
    dmean, dlogvar, _ = vae.reparameterize_kl_backward(dz, kl / x.size, mean, logvar, eps)
    dmoments = np.concatenate([dmean, dlogvar], axis=1).astype(x.dtype)
    _, more = net.encode_backward(dmoments, params, up, CONFIG)
    return (error**2).mean(), tree.map(np.add, dparams, more)


def means(params, x, backend):
    """The latents of pictures, the means of q(z | x), (B, *LATENT)."""
    return np.split(with_kernels(autoencoder, backend).encode(params, x, CONFIG, keep=False)[0], 2, axis=1)[0]


def decoded(params, z, backend):
    """The pictures of latents, (B, 3, 32, 32)."""
    return with_kernels(autoencoder, backend).decode(params, z, CONFIG, keep=False)[0]


def rescaled(params, scale, shift=0.0):
    """The parameters whose latents are (z - shift) / scale, and decode to the same pictures, [LDM] appendix G.

    scale, shift: numbers, or (4,), one for each channel."""
    encoder, decoder = params["quant_conv"], params["post_quant_conv"]
    scale, shift = (np.broadcast_to(np.asarray(x, np.float32), LATENT[0]) for x in (scale, shift))
    # The mean's channels come before the log-variance's, which stay
    factor, less = np.concatenate([1 / scale, np.ones_like(scale)]), np.concatenate([shift, np.zeros_like(shift)])
    factor, less, scale, shift = (np.asarray(x, like=encoder["bias"]) for x in (factor, less, scale, shift))
    moved = decoder["bias"] + (decoder["weight"] * shift[:, None, None]).sum(axis=(1, 2, 3))
    return params | {
        "quant_conv": {"weight": encoder["weight"] * factor[:, None, None, None],
                       "bias": (encoder["bias"] - less) * factor},
        "post_quant_conv": {"weight": decoder["weight"] * scale[:, None, None], "bias": moved},
    }  # fmt: skip
