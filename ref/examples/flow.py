"""Worked examples of `ref.flow`."""
import numpy as np

from ref import flow
from ref.philox import normal

ARGUMENTS = dict(
    t=0.3, xt=lambda x0, eps, t: flow.interpolate(x0, eps, t), v=lambda x0, eps: 0.9 * (eps - x0), shift=3.0,
    z=normal(2, (6,)),
)

FUNCTIONS = {
    "straightness": dict(
        xs=lambda x0, eps: np.stack([(1 - r) * x0 + r * eps + r * (1 - r) for r in (0.0, 0.25, 0.5, 0.75, 1.0)]),
    ),
    "shift_times": dict(t=np.linspace(0, 1, 5)),
    "abar_from_flow_time": dict(t=np.linspace(0, 1, 5)),
    "flow_time_from_abar": dict(abar=np.linspace(1, 0, 5)),
    "reverse_time": dict(t=np.linspace(0, 1, 5)),
}
