"""Worked examples of `ref.divergence`."""
import numpy as np

ARGUMENTS = dict(
    p_data=np.array([0.0, 0.1, 0.4, 0.5]), p_g=np.array([0.1, 0.4, 0.4, 0.1]), p=np.array([0.0, 0.5, 0.5]),
    q=np.array([0.25, 0.25, 0.5]),
)
