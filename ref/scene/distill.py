"""Score distillation: the gradient that a diffusion model gives to a picture, its weightings, and what it is on average
where the data are Gaussian.

Everything here is float64. B examples first. `abar` is (T + 1,), as in `ref.diffusion`; [DreamFusion] has alpha_t =
sqrt(abar_t) and sigma_t = sqrt(1 - abar_t).

Papers
    [DreamFusion]  Poole et al., "DreamFusion: Text-to-3D using 2D Diffusion", 2023
    [Fantasia3D]   Chen et al., "Fantasia3D: Disentangling Geometry and Appearance for High-quality Text-to-3D Content
                   Creation", 2023
    [DreamTime]    Huang et al., "DreamTime: An Improved Optimization Strategy for Diffusion-Guided 3D Generation", 2024
"""
import numpy as np

from ref.shapes import at, integers, same_shape, shaped

WEIGHTINGS = {  # of abar_t, under threestudio's names
    "sds": lambda a: 1 - a, "fantasia3d": lambda a: np.sqrt(a) * (1 - a), "uniform": lambda a: 1 + 0 * a,
}  # fmt: skip


def distillation_weight(t, abar, weighting="sds"):
    """w(t) of `score_distillation`, one of three in use:

        "sds"         w = 1 - abar_t,   sigma_t^2 of [DreamFusion] section 3.2
        "fantasia3d"  w = sqrt(abar_t) (1 - abar_t),   the strategy of [Fantasia3D] in public code
        "uniform"     w = 1

    t: int or (B,) ints in [0, T]. abar: (T + 1,). weighting: str.
    Returns w, a number or (B,), float64.
    Raises ValueError for another weighting or a t out of range, TypeError where t is not an int.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting: expected one out of {', '.join(WEIGHTINGS)}, got {weighting!r}")
    return WEIGHTINGS[weighting](at(abar, t, np.zeros(np.shape(t)), "t"))[()]


def score_distillation(eps_hat, eps, t, abar, weighting="sds"):
    """The gradient of score distillation in a picture x, [DreamFusion] eq. 3:  dx = w(t) (eps_hat - eps),  where
    eps_hat is the model's prediction at x_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps, guided or not.

    It goes on into the backward of what made x: dtheta = dx dx/dtheta. It is no gradient of a loss of this picture:
    the model's own Jacobian is left out, and the factor sqrt(abar_t) of dx_t/dx is in w. So it has no backward here.

    eps_hat, eps: (B, ...). t: int or (B,) ints in [0, T]. abar: (T + 1,). weighting: as in `distillation_weight`.
    Returns dx (B, ...) float64.
    Raises ValueError where shapes differ, t is out of range or the weighting is none, TypeError where t is not an int.
    """
    eps_hat, eps = same_shape(eps_hat=eps_hat, eps=eps)
    at(abar, t, eps, "t")
    w = distillation_weight(t, abar, weighting)
    return np.reshape(w, np.shape(w) + (1,) * (eps.ndim - 1 if np.ndim(w) else 0)) * (eps_hat - eps)


def annealed_time(step, steps, first=980, last=300):
    """The time of a step of an optimisation that descends evenly, as [DreamTime] argues for: coarse shapes at much
    noise first, details last.  t = first + (last - first) step / (steps - 1), rounded.

    step: int in [0, steps). steps: int. first, last: ints, the times of the first and of the last step, first >= last.
    Returns t, an int.
    Raises ValueError for a step out of range or first < last, TypeError for what are no ints.
    """
    step, steps, first, last = integers(step=step, steps=steps, first=first, last=last)
    if not 0 <= step < steps:
        raise ValueError(f"step: expected 0 <= step < steps = {steps}, got {step}")
    if not first >= last >= 0:
        raise ValueError(f"first: expected first >= last >= 0, got {first} and {last}")
    return round(first + (last - first) * step / max(steps - 1, 1))


def gaussian_eps(xt, t, mu, cov, abar):
    """The perfect prediction of the noise, E[eps | x_t], where the data are N(mu, cov): -sqrt(1 - abar_t) times the
    score of p(x_t) = N(sqrt(abar_t) mu, V), [DreamFusion] section 2.

        eps_hat = sqrt(1 - abar_t) V^-1 (x_t - sqrt(abar_t) mu),   V = abar_t cov + (1 - abar_t) I

    xt: (B, D). t: int or (B,) ints. mu: (D,). cov: (D, D), symmetric. abar: (T + 1,).
    Returns eps_hat (B, D) float64.
    Raises ValueError where shapes do not fit, t is out of range, or V has no inverse; TypeError where t is not an int.
    """
    xt, mu, cov, a = _data("xt", xt, t, mu, cov, abar)
    return np.sqrt(1 - a) * _solved(cov, a, xt - np.sqrt(a) * mu)


def gaussian_eps_backward(deps_hat, xt, t, mu, cov, abar):
    """Gradients of `gaussian_eps`, with g = V^-1 sqrt(1 - abar_t) deps_hat and y = V^-1 (x_t - sqrt(abar_t) mu):

        dxt = g,   dmu = -sum sqrt(abar_t) g,   dcov = -sum abar_t g y^T

    deps_hat: (B, D). xt, t, mu, cov, abar: as there.
    Returns dxt, dmu, dcov, float64.
    Raises as it does.
    """
    xt, mu, cov, a = _data("xt", xt, t, mu, cov, abar)
    g = _solved(cov.T, a, np.sqrt(1 - a) * shaped(deps_hat, "deps_hat", *xt.shape))
    y = _solved(cov, a, xt - np.sqrt(a) * mu)
    return g, -(np.sqrt(a) * g).sum(axis=0), -(a * g).T @ y


def gaussian_distillation(x, t, mu, cov, abar):
    """What score distillation is on average, over eps, where the data are N(mu, cov) and the model is perfect:

        E[eps_hat - eps] = sqrt(abar_t (1 - abar_t)) V^-1 (x - mu),   V = abar_t cov + (1 - abar_t) I

    That is sqrt((1 - abar_t) / abar_t) times the gradient in x of KL(q(x_t | x) || p(x_t)), [DreamFusion] appendix A.4.
    It is 0 at mu alone, the mode, whatever cov is: it seeks the most likely picture and draws no sample.

    x: (B, D). t: int or (B,) ints. mu: (D,). cov: (D, D), symmetric. abar: (T + 1,).
    Returns dx (B, D) float64, to be weighted by `distillation_weight`.
    Raises as `gaussian_eps` does.
    """
    x, mu, cov, a = _data("x", x, t, mu, cov, abar)
    return np.sqrt(a * (1 - a)) * _solved(cov, a, x - mu)


def gaussian_distillation_backward(dout, x, t, mu, cov, abar):
    """Gradients of `gaussian_distillation`, with g = V^-1 sqrt(abar_t (1 - abar_t)) dout:  dx = g,  dmu = -sum g,  dcov
    = -sum abar_t g (V^-1 (x - mu))^T.

    dout: (B, D). x, t, mu, cov, abar: as there.
    Returns dx, dmu, dcov, float64.
    Raises as it does.
    """
    x, mu, cov, a = _data("x", x, t, mu, cov, abar)
    g = _solved(cov.T, a, np.sqrt(a * (1 - a)) * shaped(dout, "dout", *x.shape))
    return g, -g.sum(axis=0), -(a * g).T @ _solved(cov, a, x - mu)


def _data(name, x, t, mu, cov, abar):
    """x, mu, cov, and abar[t] as a number or (B, 1)."""
    x = shaped(x, name, "B", "D")
    D = x.shape[1]
    return x, shaped(mu, "mu", D), shaped(cov, "cov", D, D), at(abar, t, x, "t")


def _solved(cov, a, b):
    """V^-1 b, of each row of b (B, D)."""
    eye = np.eye(len(cov))
    V = np.reshape(a, (-1, 1, 1)) * cov + np.reshape(1 - a, (-1, 1, 1)) * eye  # (1 or B, D, D)
    return np.linalg.solve(V, b[:, :, None])[:, :, 0]
