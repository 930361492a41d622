"""Worked examples of `ref.sde`."""
import numpy as np

from ref import sde
from ref.examples.base import PIXELS
from ref.philox import normal


def flow_rate(t):
    """The rate of the probability flow for data N(0, 1/4), which is linear: dx/dt = rate x. t: float."""
    mean, std = sde.vp_marginal(t)
    return -0.5 * sde.vp_diffusion(t) ** 2 * (1 - 1 / (mean**2 / 4 + std**2))


ARGUMENTS = dict(
    t=0.3, x=lambda x0, eps, t: sde.vp_marginal(t)[0] * x0 + sde.vp_marginal(t)[1] * eps,
    g=lambda t: sde.vp_diffusion(t), f=lambda x, t: sde.vp_drift(x, t),
    score=lambda eps, t: -eps / sde.vp_marginal(t)[1], probe=lambda x0: np.sign(normal(5, x0.shape)),
    times=np.linspace(0.0, 1.0, 4),
)

FUNCTIONS = {
    "drift_and_jvp": dict(drift=lambda: lambda x, t: flow_rate(t) * x),
    "log_likelihood": dict(
        x=lambda x0: x0, drift_jvp=lambda: lambda x, t, probe: (flow_rate(t) * x, flow_rate(t) * probe),
    ),
    "bits_per_dimension": dict(nats=np.array([900.0, 1000.0]), dims=PIXELS**2, bin_width=2 / 255),
}
