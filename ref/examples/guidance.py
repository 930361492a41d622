"""Worked examples of `ref.guidance`."""
from ref.examples.base import digits

FUNCTIONS = {
    "interval_weight": dict(low=200, high=800),
    "guide_rescaled": dict(phi=0.7),
    "dynamic_threshold": dict(x0=1.5 * digits(), ratio=0.9, max_value=2.0),
}
