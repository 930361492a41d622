"""Noise prediction is score matching: a learned field against the exact score.

A small net learns to predict the noise in points of a 2-D mixture of Gaussians, whose score at every noise level is
known in closed form; the score it has learned is -eps_hat / sqrt(1 - abar_t). Both losses are computed, each from its
own definition, and each next to the least that any predictor could reach, which is that of the exact score.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DSM]   Vincent, "A Connection Between Score Matching and Denoising Autoencoders", 2011
"""
import numpy as np

from bench.studies import data, denoiser, fit, pictures, results
from ref import diffusion, philox
from ref.nets import mlp

MEANS = 1.5 * np.array([[0.0, 1.0], [0.95, 0.31], [0.59, -0.81], [-0.59, -0.81], [-0.95, 0.31]])
STDS = np.array([0.12, 0.25, 0.12, 0.35, 0.2])
WEIGHTS = np.array([0.15, 0.25, 0.2, 0.25, 0.15])
LEVELS = (20, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 980)
DRAWN = (50, 200, 400, 700)  # the levels whose fields are drawn
COLUMNS = {
    "t": "", "relative_error": "sqrt(E|s_hat - s|^2 / E|s|^2) over points of the noised mixture", "eps_loss": "of noise prediction, [DDPM] eq. 14",
    "least_eps_loss": "the same loss of the exact score", "denoising_loss": "of denoising score matching, [DSM]",
    "factor_off": "relative difference of eps_loss and (1 - abar_t) denoising_loss", "field_error": "(1 - abar_t) E|s_hat - s|^2",
}  # fmt: skip


def run(out, progress, steps=6000, batch=512, count=40000, seed=0):
    """Train, measure, draw; score.png, score.csv and score.txt. steps, batch: of the training."""
    this = results.Run("score", out, progress, steps, steps=steps, batch=batch, count=count, seed=seed)
    abar = denoiser.alpha_bar("cosine")
    params = train(steps, batch, abar, seed, this.tick)
    rows = [measure(params, t, abar, count, seed) for t in LEVELS]
    this.finish(rows, draw(params, rows, abar))


def mixture(count, seed, which, where):
    """Points of the mixture, (count, 2) float64. count, seed, which, where: as in `data.mixture`."""
    return data.mixture(MEANS, STDS, WEIGHTS, count, seed, which, where)


def log_density(x, abar_t):
    """log q(x_t) of the noised mixture: component k is N(sqrt(abar_t) mean_k, (abar_t std_k^2 + 1 - abar_t) I)."""
    logs = _log_parts(x, abar_t)[0]
    top = logs.max(axis=1)
    return top + np.log(np.exp(logs - top[:, None]).sum(axis=1))


def exact_score(x, abar_t):
    """grad log q(x_t): sum_k r_k (sqrt(abar_t) mean_k - x) / var_k, with r_k the chance that x came from component
    k."""
    logs, towards, variance = _log_parts(x, abar_t)
    r = np.exp(logs - logs.max(axis=1, keepdims=True))
    r = r / r.sum(axis=1, keepdims=True) / variance
    return np.einsum("bk,bkd->bd", r, towards)


def train(steps, batch, abar, seed, tick):
    """A residual MLP (2 -> 2, width 128, one class) trained by [DDPM] algorithm 1 to predict the noise; Adam,
    annealed."""
    kernels = fit.backend("numba_cpu")

    def gradients(params, step):
        x0 = _single(mixture(batch, seed, philox.stream("label", step), philox.stream("batch", step)))
        t = 1 + philox.below(seed, batch, denoiser.T, philox.stream("time", step))
        xt = _single(kernels.fused.q_sample_noise(x0, t, seed, abar, philox.stream("noise", step)))
        eps_hat, cache = mlp.residual(params, xt, t, np.zeros(batch, int))
        _, deps_hat = kernels.fused.eps_loss_noise(eps_hat, seed, philox.stream("noise", step))
        return mlp.residual_backward(_single(deps_hat), params, cache)[1]

    return fit.adam(mlp.residual_init(seed, pixels=2, width=128, depth=3, classes=1), gradients, steps, tick, lr=2e-3)


def predict(params, x, t):
    """eps_hat (B, 2) float64 of the trained net. params: from `train`. x: (B, 2). t: int."""
    rows = len(x)
    return mlp.residual(params, _single(x), np.full(rows, t), np.zeros(rows, int))[0].astype(np.float64)


def losses(eps_hat, x0, xt, eps, t, abar):
    """Both losses of one prediction, each from its own definition, as a mean over examples of squared norms:

        [DDPM] eq. 14, simple      |eps_hat - eps|^2
        [DSM], denoising           |s_hat - grad log q(x_t | x0)|^2,   grad log q(x_t | x0) = (sqrt(abar_t) x0 - x_t) / (1 - abar_t)

    eps_hat, x0, xt, eps: (B, D). t: int. Returns the two, floats; the first is (1 - abar_t) times the second.
    """
    toward = (np.sqrt(abar[t]) * x0 - xt) / (1 - abar[t])
    s_hat = diffusion.score_from_eps(eps_hat, t, abar)
    return _mean_square(eps_hat - eps), _mean_square(s_hat - toward)


def measure(params, t, abar, count, seed):
    """The learned field against the exact score at a level, over points drawn from the noised mixture, so weighted by
    its density."""
    which, where, noise = (philox.stream("sampling", 4 * t + i) for i in range(3))
    x0, eps = mixture(count, seed, which, where), philox.normal(seed, (count, 2), noise)
    xt = diffusion.q_sample(x0, np.full(count, t), eps, abar)
    eps_hat, score = predict(params, xt, t), exact_score(xt, abar[t])
    simple, denoising = losses(eps_hat, x0, xt, eps, t, abar)
    least, _ = losses(diffusion.eps_from_score(score, t, abar), x0, xt, eps, t, abar)
    error = _mean_square(diffusion.score_from_eps(eps_hat, t, abar) - score)
    return {
        "t": t, "abar": float(abar[t]), "sigma": float(np.sqrt(1 - abar[t])),
        "relative_error": float(np.sqrt(error / _mean_square(score))),
        "eps_loss": simple, "denoising_loss": denoising, "least_eps_loss": least,
        "factor_off": abs(simple / ((1 - abar[t]) * denoising) - 1), "field_error": (1 - abar[t]) * error,
    }  # fmt: skip


def draw(params, rows, abar):
    """The picture: exact and learned fields at four levels over the density, and the errors and losses at all."""
    figure = pictures.pyplot().figure(figsize=(8.6, 7.6), layout="constrained")
    fields, curves = figure.subfigures(2, 1, height_ratios=[4.4, 2.6])
    axes = fields.subplots(2, len(DRAWN), sharex=True, sharey=True)
    errors = {row["t"]: row["relative_error"] for row in rows}
    for t, (exact, learned) in zip(DRAWN, axes.T):
        _field(exact, t, abar, lambda x, t=t: exact_score(x, abar[t]))
        _field(learned, t, abar, lambda x, t=t: diffusion.score_from_eps(predict(params, x, t), t, abar))
        exact.set_title(f"t = {t}, noise deviation {np.sqrt(1 - abar[t]):.2f}")
        learned.set_title(f"relative error {errors[t]:.1%}")
        learned.set_xlabel("$x_1$")
    for axis, name in zip(axes[:, 0], ("exact score", "learned: $-\\hat\\epsilon/\\sqrt{1-\\bar\\alpha_t}$")):
        axis.set_ylabel(f"{name}\n$x_2$")
    times = [row["t"] for row in rows]
    left, right = curves.subplots(1, 2)
    left.plot(times, [100 * row["relative_error"] for row in rows], "-o", color="#0072B2")
    left.set(xlabel="time t (0 data, 1000 noise)", ylabel="relative error of the field (%)", ylim=(0, None), title="error under the density of $x_t$")
    right.plot(times, [row["eps_loss"] for row in rows], "-", lw=4, color="#9ecae1", label="noise prediction  $|\\hat\\epsilon-\\epsilon|^2$")
    scaled = [(1 - row["abar"]) * row["denoising_loss"] for row in rows]
    right.plot(times, scaled, "o", color="#D55E00", label="denoising score matching, times $1-\\bar\\alpha_t$")
    right.plot(times, [row["least_eps_loss"] for row in rows], "--", lw=1, color="black", label="the exact score's")
    right.set(xlabel="time t (0 data, 1000 noise)", ylabel="loss, mean squared norm", ylim=(0, None), title="both losses, and the least loss")
    right.legend()
    return figure


def _field(axis, t, abar, field):
    """Arrows of a field on a grid, where there is density; their lengths are compressed, |s| -> |s| / (|s| + 3), so
    that all are seen."""
    line = np.linspace(-2.6, 2.6, 121)
    fine = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    density = log_density(fine, abar[t])
    axis.contourf(line, line, np.exp(density - density.max()).reshape(121, 121), levels=[0.01, 0.05, 0.2, 0.5, 1.0], cmap="Greys", alpha=0.4)
    line = np.linspace(-2.5, 2.5, 19)
    x = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    x = x[log_density(x, abar[t]) > density.max() - 9]
    s = field(x)
    s = s / (np.linalg.norm(s, axis=1, keepdims=True) + 3)
    axis.quiver(*x.T, *s.T, color="#0072B2", angles="xy", scale_units="xy", scale=2.6, width=0.005)
    axis.set(aspect="equal", xlim=(-2.7, 2.7), ylim=(-2.7, 2.7))


def _log_parts(x, abar_t):
    """log (weight_k N_k(x)) (B, K), sqrt(abar_t) mean_k - x (B, K, 2), the variances (K,)."""
    variance = abar_t * STDS**2 + 1 - abar_t
    towards = np.sqrt(abar_t) * MEANS - np.asarray(x, np.float64)[:, None, :]
    return np.log(WEIGHTS / (2 * np.pi * variance)) - np.sum(towards**2, axis=2) / (2 * variance), towards, variance


def _mean_square(a):
    return float(np.mean(np.sum(a**2, axis=1)))


def _single(a):
    return np.asarray(a, np.float32)
