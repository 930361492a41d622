"""Noise prediction is score matching: a learned field against the exact score.

A small net learns to predict the noise in points of a 2-D mixture of Gaussians, whose score at every noise level is
known in closed form; the score it has learned is -eps_hat / sqrt(1 - abar_t). Both losses are computed, each from its
own definition, and each next to the least that any predictor could reach, which is that of the exact score.
"""
import numpy as np

from bench.studies import data, denoiser, fit, pictures
from ref import diffusion, philox
from ref.nets import mlp

SETTINGS = dict(steps=6000, batch=512, count=40000, seed=0)  # count: points measured on, a level
MEANS = 1.5 * np.array([[0.0, 1.0], [0.95, 0.31], [0.59, -0.81], [-0.59, -0.81], [-0.95, 0.31]])
STDS = np.array([0.12, 0.25, 0.12, 0.35, 0.2])
WEIGHTS = np.array([0.15, 0.25, 0.2, 0.25, 0.15])
LEVELS = (20, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 980)
DRAWN = (50, 200, 400, 700)  # the levels whose fields are drawn
COLUMNS = {
    "t": "", "relative_error": "sqrt(E|s_hat - s|^2 / E|s|^2) over points of the noised mixture",
    "eps_loss": "of noise prediction, [DDPM] eq. 14", "least_eps_loss": "the same loss of the exact score",
    "denoising_loss": "of denoising score matching, [DSM]",
    "factor_off": "relative difference of eps_loss and (1 - abar_t) denoising_loss",
    "field_error": "(1 - abar_t) E|s_hat - s|^2",
}  # fmt: skip


def rows(this):
    """Train, measure; the parameters and abar to draw."""
    this.total, abar = this.steps, denoiser.alpha_bar("cosine")
    params = train(this.steps, this.batch, abar, this.seed, this.tick)
    return [measure(params, t, abar, this.count, this.seed) for t in LEVELS], params, abar


def mixture(count, seed, which, where):
    """Points of the mixture, (count, 2) float64, as `data.mixture`."""
    return data.mixture(MEANS, STDS, WEIGHTS, count, seed, which, where)


def log_density(x, abar_t):
    """log q(x_t) of the noised mixture: component k is N(sqrt(abar_t) mean_k, (abar_t std_k^2 + 1 - abar_t) I)."""
    logs = _log_parts(x, abar_t)[0]
    top = logs.max(axis=1)
    return top + np.log(np.exp(logs - top[:, None]).sum(axis=1))


def exact_score(x, abar_t):
    """grad log q(x_t) = sum_k r_k (sqrt(abar_t) mean_k - x) / var_k, r_k the chance of component k, (B, 2) float64."""
    logs, towards, variance = _log_parts(x, abar_t)
    r = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.einsum("bk,bkd->bd", r / r.sum(axis=1, keepdims=True) / variance, towards)


def train(steps, batch, abar, seed, tick):
    """A residual MLP (2 -> 2, one class) trained by [DDPM] algorithm 1 to predict the noise: its average parameters."""
    kernels = fit.backend("numba_cpu")

    def gradients(params, step):
        label, batch_stream, time, noise = (philox.stream(what, step) for what in ("label", "batch", "time", "noise"))
        x0, t = _single(mixture(batch, seed, label, batch_stream)), 1 + philox.below(seed, batch, denoiser.T, time)
        xt = _single(kernels.fused.q_sample_noise(x0, t, seed, abar, noise))
        eps_hat, cache = mlp.residual(params, xt, t, np.zeros(batch, int))
        _, deps_hat = kernels.fused.eps_loss_noise(eps_hat, seed, noise)
        return mlp.residual_backward(_single(deps_hat), params, cache)[1]

    return fit.adam(mlp.residual_init(seed, pixels=2, width=128, depth=3, classes=1), gradients, steps, tick, lr=2e-3)


def predict(params, x, t):
    """eps_hat (B, 2) float64 of the trained net. t: int."""
    return mlp.residual(params, _single(x), np.full(len(x), t), np.zeros(len(x), int))[0].astype(np.float64)


def losses(eps_hat, x0, xt, eps, t, abar):
    """Both losses of one prediction, each from its own definition, as a mean over examples of squared norms:

        [DDPM] eq. 14, simple      |eps_hat - eps|^2
        [DSM], denoising           |s_hat - grad log q(x_t | x0)|^2
        with grad log q(x_t | x0) = (sqrt(abar_t) x0 - x_t) / (1 - abar_t)

    eps_hat, x0, xt, eps: (B, D). t: int. Returns the two, floats; the first is (1 - abar_t) times the second.
    """
    toward = (np.sqrt(abar[t]) * x0 - xt) / (1 - abar[t])
    s_hat = diffusion.score_from_eps(eps_hat, t, abar)
    return _mean_square(eps_hat - eps), _mean_square(s_hat - toward)


def measure(params, t, abar, count, seed):
    """The row of a level, as COLUMNS says: the learned field against the exact score over points of the noised mixture.
    field_error is what eps_loss is above that of the exact score."""
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


def draw(rows, params, abar):
    """Exact and learned fields at four levels over the density, and the errors and losses at all."""
    figure, fields, curves = pictures.parts((8.6, 7.6), 4.4, 2.6)
    axes, errors = fields.subplots(2, len(DRAWN), sharex=True, sharey=True), {r["t"]: r["relative_error"] for r in rows}
    for t, (exact, learned) in zip(DRAWN, axes.T):
        _field(exact, abar[t], lambda x: exact_score(x, abar[t]))
        _field(learned, abar[t], lambda x: diffusion.score_from_eps(predict(params, x, t), t, abar))
        exact.set_title(f"t = {t}, noise deviation {np.sqrt(1 - abar[t]):.2f}")
        learned.set(title=f"relative error {errors[t]:.1%}", xlabel="$x_1$")
    axes[0, 0].set_ylabel("exact score\n$x_2$")
    axes[1, 0].set_ylabel("learned: $-\\hat\\epsilon/\\sqrt{1-\\bar\\alpha_t}$\n$x_2$")
    left, right = curves.subplots(1, 2)
    keys = ("t", "relative_error", "eps_loss", "least_eps_loss")
    times, relative, simple, least = ([row[key] for row in rows] for key in keys)
    scaled = [(1 - row["abar"]) * row["denoising_loss"] for row in rows]
    left.plot(times, 100 * np.array(relative), "-o", color="#0072B2")
    left.set(ylabel="relative error of the field (%)", title="error under the density of $x_t$")
    right.plot(times, simple, "-", lw=4, color="#9ecae1", label="noise prediction  $|\\hat\\epsilon-\\epsilon|^2$")
    right.plot(times, scaled, "o", color="#D55E00", label="denoising score matching, times $1-\\bar\\alpha_t$")
    right.plot(times, least, "--", lw=1, color="black", label="the exact score's")
    right.set(ylabel="loss, mean squared norm", title="both losses, and the least loss")
    right.legend()
    for axis in (left, right):
        axis.set(xlabel=pictures.TIME, ylim=(0, None))
    return figure


def _field(axis, abar_t, field):
    """Arrows of a field where there is density, of length |s| / (|s| + 3), so that all are seen."""
    grid = lambda line: np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    line, x = np.linspace(-2.6, 2.6, 121), grid(np.linspace(-2.5, 2.5, 19))
    density = log_density(grid(line), abar_t)
    levels, top = [0.01, 0.05, 0.2, 0.5, 1.0], density.max()
    axis.contourf(line, line, np.exp(density - top).reshape(121, 121), levels=levels, cmap="Greys", alpha=0.4)
    x = x[log_density(x, abar_t) > top - 9]
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
