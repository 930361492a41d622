"""Worked examples of `ref.optim`."""
from ref.examples.base import sines

ARGUMENTS = dict(
    step=10, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, decay=0.999, max_norm=1.0, p=sines((6,)),
    g=sines((6,), 1), m=sines((6,), 2), v=sines((6,), 3) ** 2, avg=sines((6,), 4),
    grads=dict(w=sines((2, 3)), b=sines((2,), 1)), momentum=0.95,
)
FUNCTIONS = {
    "muon_step": dict(p=sines((2, 3)), g=sines((2, 3), 1), m=sines((2, 3), 2), lr=0.02),
    "orthogonalize": dict(g=sines((2, 3), 1)),
}
