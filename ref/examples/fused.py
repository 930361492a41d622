"""Worked examples of `ref.fused`."""
import numpy as np

from ref import flow
from ref.examples import edm, optim
from ref.nets import mlp
from ref.philox import normal

FUNCTIONS = {
    "guided_flow_step": dict(
        t=0.8, s=0.6, xt=lambda x0, eps, t: flow.interpolate(x0, eps, t), cond=lambda x0, eps: eps - x0,
        uncond=lambda x0, eps: 0.9 * (eps - x0),
    ),
    "heun_step": edm.FUNCTIONS["heun_step"],
    "adam_ema_step": optim.ARGUMENTS,
    "mlp_sample": dict(
        params=lambda xT: mlp.simple_mlp_init(0, xT.shape[1], 8, np.float64),
        xT=lambda x0: normal(4, (2, x0[0].size)),
    ),
    "mlp_train": dict(
        params=lambda data: mlp.simple_mlp_init(0, data.shape[1], 8, np.float64), data=lambda x0: x0.reshape(2, -1),
        steps=1, batch=3, lr=1e-3,
    ),
}
