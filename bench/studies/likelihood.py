"""Bits of a held-out digit: the probability-flow ODE and the variational bound.

The net has the shape and the budget of `digits`, and predicts v: one that predicts x0 is off by a share of the signal
where there is hardly noise. Its x0_hat is clipped to [-1, 1] in both. The ODE needs every noise level: the net is
called at the time between two whole ones where sigma stands (`ref.edm.time_at`), and the ODE is solved in u = ln sigma,
in which dx/du = x - x0_hat, from the noise of t = 1 to that of T. Both figures are bits of the 256 levels. A level is a
bin of width 2/255, but the first and the last reach to infinity, as in [DDPM] eq. 13. The ODE's density becomes one of
levels by noise within the bin, drawn once: evenly ("uniform", every bin closed), or as a Gaussian of the noise of t = 1
truncated to the bin ("truncated", [ODE]), which is what the net was trained on. Either bounds the ODE model's bits from
above: E log P(level) >= E[log p(u) - log q(u | level)].

No theorem says that the ODE's bits are the fewer once the score is not exact. So both are also measured from each of
several t up: what the model spends on q(x_t | x0), by the ODE from there and by the terms of the bound from there.
Below t both may use the same.

The bound's steps have one variance for each t, the one under which training digits cost least: beta_tilde plus the mean
square between the posterior's mean and the model's, [Analytic] theorem 1 but for the model's own mean, where the
theorem has the best one. That of [DDPM], beta_tilde alone, is measured too.
"""
from statistics import NormalDist

import numpy as np

from bench.studies import data, denoiser, pictures
from ref import diffusion, edm, objectives, philox, sde
from ref.nets import mlp

# count: held-out digits judged, and as many training digits that variances are fitted to
SETTINGS = dict(count=100, steps=2400, solver_steps=60, seed=0)
HALF_BIN = 1 / 255
FROM = (1, 10, 20, 50, 100, 200, 300, 400, 600)  # the times that the two are compared from
COLUMNS = {
    "by": "", "from_t": "0 for the whole model, else counted from this time up",
    "bits": "per dimension, mean over digits", "error": "its standard error",
    "above_bound": "bits less those of the bound with the fitted variance", "above_bound_error": "its standard error",
}  # fmt: skip


def rows(this):
    """Train, measure; abar to draw."""
    (images, labels), held_out = data.load()
    abar, seed, n = denoiser.alpha_bar("cosine"), this.seed, this.solver_steps
    this.total = this.steps + len(abar) - 1 + 4 * n * (2 + len(FROM))
    settings = denoiser.settings_of(predict="v", steps=this.steps, seed=seed)
    params = denoiser.trained(settings, (images, labels), this.tick)
    x, wanted = _evenly(*held_out, this.count)
    small, fitted = bound_bits(params, x, wanted, *_evenly(images, labels, this.count), abar, seed, this.tick)
    found = [_row("bound, beta_tilde", 0, small.sum(axis=0)), _row("bound", 0, fitted.sum(axis=0))]
    share, std = philox.uniform(seed, x.shape, philox.stream("bins")), float(edm.sigma_at(1, abar))
    spreads = {"ODE, uniform": spread_evenly(x, share), "ODE, truncated": spread_truncated(x, share, std)}
    for name, spread in spreads.items():
        bits = ode_bits(params, *spread, wanted, 1, n, abar, seed, this.tick)
        found.append(_row(name, 0, bits, fitted.sum(axis=0)))
    for t in FROM:
        above = fitted[t:].sum(axis=0)
        bits = ode_bits(params, *noised(x, t, abar, seed), wanted, t, n, abar, seed, this.tick)
        found += [_row("bound", t, above), _row("ODE", t, bits, above)]
    return found, abar


def denoise(params, x, sigma, labels, abar):
    """x0_hat of the net that predicts v, at any noise level: c_skip x - c_out v(c_in x) clipped to [-1, 1], at the time
    where abar has that level. Returns x0_hat (B, pixels) float64; where it was not clipped; the net's cache."""
    t = edm.time_at(min(sigma, edm.sigma_at(len(abar) - 1, abar)), abar)
    c_skip, c_out, c_in = _scalings(sigma)
    v, cache = mlp.residual(params, (c_in * x).astype(params["in"]["w"].dtype), np.full(len(x), t), labels)
    x0_hat = c_skip * x - c_out * v
    return np.clip(x0_hat, -1, 1), np.abs(x0_hat) < 1, cache


def drift_and_vjp(params, x, u, probe, labels, abar):
    """The probability-flow ODE in u = ln sigma, [SDE] eq. 13 for x = x0 + sigma eps: dx/du = x - x0_hat, and probe^T of
    its Jacobian, each (B, pixels) float64."""
    sigma = np.exp(u)
    x0_hat, free, cache = denoise(params, x, sigma, labels, abar)
    c_skip, c_out, c_in = _scalings(sigma)
    moved = probe * free
    through, _ = mlp.residual_backward(moved.astype(params["in"]["w"].dtype), params, cache)
    return x - x0_hat, probe - c_skip * moved + c_out * c_in * through


def spread_evenly(x, share):
    """Levels spread over their bins, all closed: points (B, D), and log q(points | x) (B,). share: (B, D) in (0, 1)."""
    return x + (2 * share - 1) * HALF_BIN, np.full(len(x), -x.shape[1] * np.log(2 * HALF_BIN))


def spread_truncated(x, share, std):
    """The same by N(x, std^2) truncated to the bin; those of -1 and 1 reach to infinity. share: of the bin's mass."""
    normal = NormalDist()
    inside = normal.cdf(HALF_BIN / std)
    low, high = np.where(x < -0.999, 0, 1 - inside), np.where(x > 0.999, 1, inside)
    z = np.vectorize(normal.inv_cdf, otypes=[float])(low + share * (high - low))
    return x + std * z, _log_normal(z, std) - np.sum(np.log(high - low), axis=1)


def noised(x, t, abar, seed):
    """Digits at t, x + sigma_t eps (B, D), and log q(x_t | x) (B,)."""
    sigma, eps = float(edm.sigma_from_abar(abar[t])), philox.normal(seed, x.shape, philox.stream("sampling", t))
    return x + sigma * eps, _log_normal(eps, sigma)


def ode_bits(params, points, log_q, labels, t, steps, abar, seed, tick):
    """Bits per dimension (B,) by the ODE from the noise of t up, [SDE] eqs. 39 and 40 with one probe of +-1 for the
    whole solve: -(log p(points) - log q(points)) in bits. steps: of Runge and Kutta, each four calls of the net."""
    ends = edm.sigma_at(np.array([t, len(abar) - 1]), abar)
    probe = np.where(philox.uniform(seed, points.shape, philox.stream("probe")) < 0.5, -1.0, 1.0)

    def slopes(x, u, probe):
        tick()
        return drift_and_vjp(params, x, u, probe, labels, abar)

    nats = sde.log_likelihood(slopes, points, np.linspace(*np.log(ends), steps + 1), probe, prior_std=float(ends[1]))
    return sde.bits_per_dimension(nats - log_q, points.shape[1])


def bound_bits(params, x, labels, fit, fit_labels, abar, seed, tick):
    """The variational bound over all T steps, [DDPM] eq. 5, with the small variance and with the one that fits the
    digits fit: bits per dimension of t = 1 .. T and of the prior, (T + 1, B) each."""
    small, fitted = [], []
    for t in range(1, len(abar)):
        _, posterior, mean_hat, variance = _step(params, fit, fit_labels, t, abar, seed, 2 * t)
        least = variance + np.mean((posterior - mean_hat) ** 2)
        xt, _, mean_hat, _ = _step(params, x, labels, t, abar, seed, 2 * t + 1)
        beta_tilde = objectives.learned_logvar(np.zeros_like(x), t, t - 1, abar)
        for terms, logvar in ((small, beta_tilde), (fitted, np.full_like(x, np.log(least)))):
            terms.append(objectives.vlb_terms(x, xt, t, t - 1, mean_hat, logvar, abar))
        tick()
    prior = objectives.vlb_prior(x, abar)
    return np.array([*small, prior]), np.array([*fitted, prior])


def draw(rows, abar):
    """Bits of the levels, bits from each time up by both, and their difference with two standard errors."""
    figure, (bars, left, right) = pictures.pyplot().subplots(
        1, 3, figsize=(11, 3.4), width_ratios=[1.1, 1, 1], layout="constrained")  # fmt: skip
    whole, ode = [row for row in rows if row["from_t"] == 0], [row for row in rows if row["by"] == "ODE"]
    colours, errors = ["#0072B2" if r["by"][0] == "O" else "#D55E00" for r in whole], [2 * r["error"] for r in whole]
    names, bits = [row["by"] for row in whole], [row["bits"] for row in whole]
    drawn = bars.barh(names, bits, xerr=errors, height=0.6, color=colours, capsize=3)
    bars.bar_label(drawn, [f"{b:.2f}" for b in bits], label_type="center", color="white")
    bars.set(xlabel="bits per dimension, two standard errors", title="the 256 levels of held-out digits")
    keys = ("from_t", "bits", "above_bound", "above_bound_error")
    t, bits, above, error = (np.array([row[key] for row in ode]) for key in keys)
    sigma = edm.sigma_at(t, abar)
    left.plot(sigma, bits - above, "-s", color="#D55E00", label="variational bound")
    left.plot(sigma, bits, "-o", color="#0072B2", label="probability-flow ODE")
    left.set(ylabel="bits per dimension from there up", yscale="log", title="counted from a noise level up")
    left.legend()
    right.axhline(0, color="0.6", lw=0.8)
    percent = 100 / (bits - above)
    right.errorbar(sigma, percent * above, 2 * percent * error, fmt="-o", capsize=2, color="#0072B2")
    right.set(ylabel="ODE less bound (% of the bound)", title="above 0 the ODE costs more; two standard errors")
    for axis in (left, right):
        axis.set(xlabel="noise $\\sigma_t$ relative to a signal of 1", xscale="log")
    return figure


def _step(params, x, labels, t, abar, seed, which):
    """x_t, the posterior's mean of the step to t - 1, the model's, and the posterior's variance."""
    xt = diffusion.q_sample(x, np.full(len(x), t), philox.normal(seed, x.shape, philox.stream("bound", which)), abar)
    sigma = float(edm.sigma_from_abar(abar[t]))
    x0_hat = denoise(params, edm.ve_from_vp(xt, sigma), sigma, labels, abar)[0]
    posterior, variance = diffusion.posterior(x, xt, t, t - 1, abar)
    return xt, posterior, diffusion.posterior(x0_hat, xt, t, t - 1, abar)[0], float(np.ravel(variance)[0])


def _log_normal(z, std):
    """log N(std z; 0, std^2), summed over dimensions, (B,)."""
    return np.sum(-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi), axis=1)


def _scalings(sigma):
    """c_skip, c_out, c_in of the variance-preserving state's v: x_t = c_in x, x0 = c_skip x - c_out v."""
    abar = edm.abar_from_sigma(sigma)
    return abar, np.sqrt(1 - abar), np.sqrt(abar)


def _evenly(images, labels, count):
    """count digits, evenly over the set, as float64, and their labels."""
    pick = np.linspace(0, len(images) - 1, count).astype(int)
    return images[pick].astype(np.float64), labels[pick]


def _row(by, t, bits, bound=None):
    """A row: the mean over digits and its standard error, and of the difference to the bound where there is one."""
    above = bits * np.nan if bound is None else bits - bound
    figures = [float(f) for a in (bits, above) for f in (a.mean(), a.std(ddof=1) / np.sqrt(a.size))]
    return dict(zip(COLUMNS, (by, t, *figures)))
