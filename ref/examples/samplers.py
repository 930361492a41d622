"""Worked examples of `ref.samplers`."""
import numpy as np

from ref import schedules
from ref.examples.base import ALL, expected

ARGUMENTS = dict(
    sigmas=schedules.karras_sigmas(3, 0.1, 10.0), sigma_min=0.1, sigma=10.0, known=lambda x0: x0,
    velocity=lambda x0: lambda x, t: (x - expected(x, x0, 1 - t, t)) / t,
    mask=lambda x0: np.broadcast_to(np.arange(x0.shape[-1]) < x0.shape[-1] // 2, x0.shape).copy(),
)

FUNCTIONS = {
    "ddim_invert": dict(times=np.array([0, 300, 600, 900]), iterations=2),
    "euler_ancestral": dict(eta=1.0),
    "heun": dict(noise=ALL["noise"], s_churn=1.0),
    "flow_euler": dict(x=ALL["xT"], times=schedules.flow_times(3)),
    "flow_heun": dict(x=ALL["xT"], times=schedules.flow_times(3)),
}
