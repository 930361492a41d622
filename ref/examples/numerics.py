"""Worked examples of `ref.numerics`."""
import numpy as np

ARGUMENTS = dict(x=np.array([-6.0, -0.5, 0.0, 0.7, 3.0]))
FUNCTIONS = {
    "blockwise": dict(f=np.tanh),
    "erfcx": dict(z=np.array([0.0, 0.5, 3.0, 40.0])),
    "exp_above_tangent": dict(x=np.array([-800.0, -1.0, 1e-9, 0.3, 2.0])),
    "phi": dict(k=2, z=-0.01),
    "two_sum": dict(a=np.array([1.0, 0.1]), b=np.array([1e-20, 0.2])),
    "two_product": dict(a=np.array([0.1, 3.0]), b=np.array([0.1, 0.25])),
    "exp_difference": dict(a=np.array([30.1, -1.0]), b=np.array([0.3, 2.0])),
    "norm": dict(x=np.array([[3e30, 4e30], [0.6, 0.8]])),
    "weighted": dict(weight=np.array([0.0, 0.5]), value=np.array([np.inf, 3.0])),
    "expm1_weighted": dict(x=np.array([0.0, 2.0]), exponent=np.array([1e4, 0.125])),
    "exp_weighted": dict(x=np.array([0.0, 2.0]), exponent=np.array([1e4, 1.0])),
}
