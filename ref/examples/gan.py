"""Worked examples of `ref.gan`."""
import numpy as np

from ref.examples.base import critic, sines
from ref.nets import gan as gan_nets

ARGUMENTS = dict(
    real_logits=3 * sines((2, 3)), fake_logits=3 * sines((2, 2), 1), real=lambda x0: x0, fake=lambda eps: eps,
    alpha=np.array([0.25, 0.75]), x=lambda x0: x0.reshape(2, -1), params=lambda x: critic(x.shape[1]),
    network=lambda: (lambda params, x: gan_nets.discriminator_input_gradient(params, x, "softplus"),
                     gan_nets.discriminator_input_gradient_backward),
)
