"""Worked examples of `ref.philox`."""
import numpy as np

FUNCTIONS = {
    "philox4x32": dict(counter=np.zeros((1, 4), np.uint32), key=np.zeros((1, 2), np.uint32)),
    "below": dict(n=10),
    "stream": dict(what="noise", step=3),
}
