"""Worked examples of `ref.numerics`."""
import numpy as np

ARGUMENTS = dict(
    z=np.array([0.0, 0.5, 3.0, 40.0]), x=np.array([-6.0, -0.5, 0.0, 0.7, 3.0]),
)
