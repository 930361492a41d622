"""Worked examples of `ref.objectives`."""
import numpy as np

from ref import objectives
from ref.diffusion import posterior
from ref.examples.base import sines

ARGUMENTS = dict(
    gamma=5.0, prediction="eps", snr=np.array([0.0, 0.5, 5.0, 50.0]), mean1=sines((2, 3)), logvar1=sines((2, 3), 1),
    mean2=sines((2, 3), 2), logvar2=sines((2, 3), 3), v=lambda x0: (x0 + 1) / 2,
    mean_hat=lambda x0, xt, t, s, abar: posterior(0.9 * x0, xt, t, s, abar)[0],
    logvar_hat=lambda v, t, s, abar: objectives.learned_logvar(v, t, s, abar),
)
