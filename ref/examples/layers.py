"""Worked examples of `ref.layers`."""
import numpy as np

from ref.examples.base import sines

ARGUMENTS = dict(
    x=sines((2, 3)), w=sines((4, 3), 1), b=sines((4,), 2), index=np.array([2, 0, 2]),
    t=np.array([1.0, 500.0, 1000.0]), width=8, logits=3 * sines((2, 4)), labels=np.array([3, 0]),
)
