"""Worked examples of `ref.schedules`."""
import numpy as np

from ref import schedules
from ref.diffusion import q_sample

FUNCTIONS = {
    "alpha_bar": dict(betas=schedules.linear_betas()),
    "transition": dict(xs=lambda x0, s, eps, abar: q_sample(x0, s, eps, abar)),
    "spaced_times": dict(steps=5, spacing="trailing"),
    "karras_sigmas": dict(steps=5),
    "flow_times": dict(steps=5, shift=3.0),
    "time_from_index": dict(index=np.array([0, 499, 999])),
    "index_from_time": dict(t=np.array([1, 500, 1000])),
}
