"""The one net that the studies share, trained by `denoiser` and saved, and the forms in which samplers take its
prediction.

The net is class-conditional with a tenth of its labels dropped, and predicts x0. A study takes the prediction, guided
and limited in its own way, and turns it into what its sampler needs:

    x0_hat = predictor(params, labels, w)     (xt, t) -> x0_hat
    model(x0_hat, abar)                       (xt, t) -> eps_hat
    denoise(x0_hat, abar)                     (x, sigma) -> x0_hat
"""
import numpy as np

from bench.studies import data, denoiser
from ref import diffusion, edm, guidance, philox, samplers
from ref.nets import mlp

STEPS = 2400


def shared(this, schedule="cosine"):
    """The net: read from out/net-SCHEDULE.npz if it is there, else trained and written there, atomically. this: a run
    with train_steps. Returns the moving average of its parameters, abar (T + 1,), the seconds of the training."""
    settings = denoiser.settings_of(schedule=schedule, steps=this.train_steps, seed=this.seed)
    path = this.out / f"net-{schedule}.npz"
    state = denoiser.load(path, settings) if path.exists() else denoiser.start(settings)
    for _ in range(state["step"]):
        this.tick()
    if state["step"] < this.train_steps:
        denoiser.train(state, settings, data.load()[0], this.tick)
        denoiser.save(path, state, settings)
    return state["average"], denoiser.alpha_bar(schedule), state["seconds"]


def requested(count):
    """The labels of count samples, classes even and in order, (count,). count: a multiple of 10."""
    return np.repeat(np.arange(10), count // 10)


def clip(x0):
    """x0 clipped to the range of the data, [-1, 1]. x0: (B, ...)."""
    return np.clip(x0, -1, 1)


def predictor(params, labels, w=2.0, guide=guidance.guide, limit=clip, forward=mlp.residual):
    """x0_hat(xt, t) of the net for a class vector and a guidance weight, in one call of the net: for w = 1 of B rows,
    else of 2 B. guide: (uncond, cond, w) -> x0_hat. limit: x0_hat -> x0_hat, or None. forward: of the net. t is one
    number or (B,)."""
    rows = labels if w == 1 else np.concatenate([np.full_like(labels, denoiser.NO_LABEL), labels])
    copies = rows.size // labels.size

    def x0_hat(xt, t):
        x, times = np.asarray(xt, np.float32), np.broadcast_to(t, labels.shape)
        x, times = (np.concatenate([a] * copies) for a in (x, times))
        out, _ = forward(params, x, times, rows)
        guided = out.astype(np.float64) if w == 1 else guide(*np.split(out, 2), w)
        return guided if limit is None else limit(guided)

    return x0_hat


def ddim(x0_hat, rows, abar, steps, seed):
    """Samples by DDIM, eta = 0, at trailing times, (rows, 784) float64."""
    xT, times = philox.normal(seed, (rows, 784), philox.stream("sampling")), denoiser.trailing(steps)
    return samplers.ddim(model(x0_hat, abar), xT, times, None, 0.0, abar)


def model(x0_hat, abar):
    """model(xt, t) -> eps_hat, for `ref.samplers`. x0_hat: (xt, t) -> x0_hat."""
    return lambda xt, t: diffusion.eps_from_x0(xt, x0_hat(xt, t), t, abar)


def denoise(x0_hat, abar):
    """denoise(x, sigma) -> x0_hat, sigma one number or (B,), at the time that has this noise."""
    return lambda x, sigma: x0_hat(edm.vp_from_ve(x, sigma), edm.time_at(sigma, abar))
