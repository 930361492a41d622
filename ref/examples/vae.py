"""Worked examples of `ref.vae`."""
import numpy as np

from ref.examples.base import sines
from ref.philox import normal

ARGUMENTS = dict(
    mu=sines((2, 4)), logvar=sines((2, 4), 1), eps=normal(1, (2, 4)), x=lambda x0: (x0 + 1) / 2,
    logits=lambda x0: 3 * x0, mean=lambda x: 0.8 * x, nll=np.array([90.0, 110.0]), kl=np.array([12.0, 9.0]),
    log_w=5 * sines((2, 5)),
)

FUNCTIONS = {
    "bernoulli_nll": dict(x=lambda x0: 0.5 + 0.45 * x0),
    "gaussian_nll": dict(logvar=lambda x: np.full(x.shape, -1.0)),
}
