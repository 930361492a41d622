"""The one net that the studies share, trained by the step of `digits` and saved, and what a sampler may ask of it.

The net is class-conditional with a tenth of its labels dropped, and predicts x0. A study asks for the prediction that it wants,
guided and limited in its own way, and turns it into what its sampler takes:

    x0_hat = predictor(params, labels, w)     (xt, t) -> x0_hat
    model(x0_hat, abar)                       (xt, t) -> eps_hat
    denoise(x0_hat, abar)                     (x, sigma) -> x0_hat
"""
from pathlib import Path

import numpy as np

from bench.studies import data, digits
from ref import diffusion, edm, guidance
from ref.nets import mlp

STEPS = 2400


def shared(out, tick, schedule="cosine", steps=STEPS, seed=0):
    """The net: read from out/net-SCHEDULE.npz where it is there, trained and written there, atomically, where it is not.

    out: folder, made where it is not there. tick: called once a step, also for the steps that were done before.
    schedule: "cosine" or "linear". steps, seed: ints.
    Returns the moving average of its parameters, abar (T + 1,), the seconds that the training took.
    Raises ValueError where the file holds another net; ModuleNotFoundError where mlxtend is not installed.
    """
    settings = {"net": "residual", "batch": 128, "backend": "numba_cpu", "guidance": 2.0, "seed": seed, **digits.DEFAULTS["residual"]}
    settings |= {"schedule": schedule, "steps": steps}
    path = Path(out) / f"net-{schedule}.npz"
    state = digits.load(path, settings) if path.exists() else digits.start(settings)
    for _ in range(state["step"]):
        tick()
    if state["step"] < steps:
        path.parent.mkdir(parents=True, exist_ok=True)
        images, _ = data.load()
        digits.train(state, settings, images, tick)
        digits.save(path, state, settings)
    return state["average"], digits.alpha_bar(schedule), state["seconds"]


def clip(x0):
    """x0 clipped to the range of the data, [-1, 1]. x0: (B, ...)."""
    return np.clip(x0, -1, 1)


def predictor(params, labels, w=2.0, guide=guidance.guide, limit=clip):
    """x0_hat(xt, t) of the net for a class vector and a guidance weight, in one call of the net: for w = 1 of B rows, else of 2 B.

    params: of the residual net. labels: (B,) ints. w: float. guide: (uncond, cond, w) -> x0_hat. limit: x0_hat -> x0_hat,
    or None. The function takes xt (B, pixels) and t, one number or (B,), whole or not; it returns (B, pixels) float64.
    """
    asked = labels if w == 1 else np.concatenate([np.full_like(labels, digits.NO_LABEL), labels])

    def x0_hat(xt, t):
        times = np.broadcast_to(t, labels.shape)
        x = np.asarray(xt, np.float32)
        if w == 1:
            guided = mlp.residual(params, x, times, asked)[0].astype(np.float64)
        else:
            guided = guide(*np.split(mlp.residual(params, np.concatenate([x, x]), np.concatenate([times, times]), asked)[0], 2), w)
        return guided if limit is None else limit(guided)

    return x0_hat


def model(x0_hat, abar):
    """model(xt, t) -> eps_hat, for `ref.samplers`. x0_hat: (xt, t) -> x0_hat. abar: (T + 1,)."""
    return lambda xt, t: diffusion.eps_from_x0(xt, x0_hat(xt, t), t, abar)


def denoise(x0_hat, abar):
    """denoise(x, sigma) -> x0_hat, sigma one number or (B,): the net is asked at the time that has this noise. x0_hat, abar: as in `model`."""
    return lambda x, sigma: x0_hat(edm.vp_from_ve(x, sigma), edm.time_at(sigma, abar))
