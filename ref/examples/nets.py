"""Worked examples of `ref.nets`."""
import numpy as np

from ref import tree
from ref.diffusion import q_sample
from ref.examples.base import PIXELS, critic, sines
from ref.nets import gan as gan_nets
from ref.nets import mlp
from ref.nets import vae as vae_nets

ARGUMENTS = dict(
    pixels=PIXELS**2, width=8, depth=2, classes=2, frequencies=8, latent=4, act="softplus", t=np.array([100, 500]),
    labels=np.array([0, 1]), z=lambda latent: sines((2, latent)),
    flat=lambda x0, eps, t, abar: q_sample(x0, t, eps, abar).reshape(2, -1), x=lambda flat: flat,
    params=lambda pixels: critic(pixels),
)

FUNCTIONS = {
    "gan.generator": dict(
        params=lambda latent, width, pixels: gan_nets.generator_init(0, latent, width, pixels, np.float64),
    ),
    "vae.encoder": dict(
        params=lambda pixels, width, latent: vae_nets.encoder_init(0, pixels, width, latent, np.float64),
    ),
    "vae.decoder": dict(
        params=lambda pixels, width, latent: vae_nets.decoder_init(0, pixels, width, latent, np.float64),
    ),
    "mlp.simple_mlp": dict(params=lambda pixels, width: mlp.simple_mlp_init(0, pixels, width, np.float64)),
    "mlp.residual": dict(
        params=lambda pixels, width, depth, classes, frequencies: tree.map(  # with the last layers of its blocks off 0
            lambda a: a + sines(a.shape) / 3,
            mlp.residual_init(0, pixels, width, depth, classes, frequencies, np.float64)),
    ),
    "mlp.residual_block": dict(
        params=lambda width: {n: sines((width,) * d, k) / 3
                              for k, (n, d) in enumerate(dict(w1=2, b1=1, w2=2, b2=1).items())},
        h=lambda width: sines((2, width), 5), c=lambda width: sines((2, width), 6),
    ),
}
