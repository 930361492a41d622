"""What a diffusion model is trained and judged by, next to the simple loss: weights, divergences, the bound.

float64. B examples first, then any data axes; `abar`, t and s as in `ref.diffusion`. A mean is a mean,
a logvar the logarithm of a variance, a log_scale the logarithm of a deviation. Nats, unless the name says bits.

Papers
    [DDPM]    Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [iDDPM]   Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021
    [MinSNR]  Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023
    [VAE]     Kingma, Welling, "Auto-Encoding Variational Bayes", 2014
"""
import numpy as np

from ref.diffusion import posterior
from ref.discretized import discretized_gaussian_log_likelihood, discretized_gaussian_log_likelihood_backward
from ref.numerics import exp_above_tangent, exp_weighted, expm1_weighted, two_sum
from ref.shapes import at, example_sum, float64, number, same_shape, step


def min_snr_weight(snr, gamma, prediction):
    """The weight of the squared error of a prediction, [MinSNR] sections 3.4 and 4.2, SNR = abar_t / (1 - abar_t):

        "x0"   min(SNR, gamma)
        "eps"  min(SNR, gamma) / SNR
        "v"    min(SNR, gamma) / (SNR + 1)

    All three are one loss, |x0_hat - x0|^2 min(SNR, gamma), each in terms of the error of its prediction.
    snr: any shape, values in [0, inf]. gamma: > 0; 5 in the paper. prediction: one of the three names.
    Returns weights of the shape of snr, float64. At SNR = 0 the weight of eps is 1, its limit.
    Raises ValueError for an SNR below 0 or NaN, gamma <= 0, or another prediction.
    """
    snr, gamma = np.asarray(snr, np.float64), number(gamma, "gamma")
    if not np.all(snr >= 0) or not gamma > 0:
        raise ValueError(f"snr and gamma: expected snr in [0, inf] and gamma > 0, got {snr} and {gamma}")
    if prediction == "x0":
        return np.minimum(snr, gamma)
    if prediction == "eps":
        with np.errstate(divide="ignore", over="ignore"):
            return np.minimum(1, gamma / snr)
    if prediction == "v":
        return np.minimum(snr, gamma) / (snr + 1)
    raise ValueError(f'prediction: expected "eps", "x0" or "v", got {prediction!r}')


def normal_kl(mean1, logvar1, mean2, logvar2):
    """KL(N(mean1, e^logvar1) || N(mean2, e^logvar2)) of each element, [VAE] appendix B for any second Gaussian:

        kl = (logvar2 - logvar1 + e^(logvar1 - logvar2) - 1 + (mean1 - mean2)^2 e^-logvar2) / 2

    mean1, logvar1, mean2, logvar2: one shape; a single number stands for an array of it.
    Returns kl of that shape, float64, in nats.
    Raises ValueError where shapes differ.
    """
    mean1, logvar1, mean2, logvar2 = _alike(mean1=mean1, logvar1=logvar1, mean2=mean2, logvar2=logvar2)
    d, rest = two_sum(logvar1, -logvar2)  # what rounding d loses counts e^d times
    whole = exp_above_tangent(d)
    ratio = whole + np.where(np.isfinite(whole), expm1_weighted(rest, d), 0.0)  # inf - inf is no number
    deviations = exp_weighted(mean1 - mean2, -logvar2 / 2)
    return ratio / 2 + deviations / 2 * deviations  # halved before it can overflow


def normal_kl_backward(dkl, mean1, logvar1, mean2, logvar2):
    """Gradients of `normal_kl`, with d = mean1 - mean2:

        dmean1 = d e^-logvar2 dkl,    dlogvar1 = (e^(logvar1 - logvar2) - 1) / 2 dkl
        dmean2 = -dmean1,             dlogvar2 = -dlogvar1 - d^2 e^-logvar2 / 2 dkl

    dkl: of the shape of kl. mean1, logvar1, mean2, logvar2: as in `normal_kl`.
    Returns dmean1, dlogvar1, dmean2, dlogvar2, each of its argument's shape: a number has the sum of all gradients.
    Raises ValueError where shapes differ.
    """
    arguments = mean1, logvar1, mean2, logvar2
    dkl, mean1, logvar1, mean2, logvar2 = _alike(dkl=dkl, mean1=mean1, logvar1=logvar1, mean2=mean2, logvar2=logvar2)
    d, half = mean1 - mean2, -logvar2 / 2
    dmean1 = exp_weighted(dkl * d, -logvar2)
    log_ratio, rest = two_sum(logvar1, -logvar2)
    whole = expm1_weighted(dkl / 2, log_ratio)
    dlogvar1 = whole + np.where(np.isfinite(whole), exp_weighted(dkl / 2 * rest, log_ratio), 0.0)
    gradients = dmean1, dlogvar1, -dmean1, -dlogvar1 - exp_weighted(dkl * d / 2, half) * exp_weighted(d, half)
    return tuple(g if np.ndim(a) else np.sum(g) for a, g in zip(arguments, gradients))


def learned_logvar(v, t, s, abar):
    """The learned variance, [iDDPM] eq. 15, of a step from t to any s < t:

        logvar = v log beta + (1 - v) log beta_tilde,   beta = 1 - abar_t / abar_s,   beta_tilde as in `posterior`

    v = 0 is the small variance of `ddpm_step`, v = 1 the large one; v is not held to [0, 1]. A network whose output o
    is meant for [-1, 1], as in the paper's code and most others, has v = (o + 1) / 2. Where s = 0, beta_tilde is 0 and
    has no logarithm. There, as in that code, the smallest step's stands for it: beta_tilde from max(t, 2) to 1.

    v: (B, ...). t, s: ints or (B,) ints, 0 <= s < t <= T. abar: (T + 1,), T >= 2 where an s is 0.
    Returns logvar (B, ...) float64, the logarithm of a variance.
    Raises ValueError where not 0 <= s < t <= T, or where a variance on the way is 0 (abar[t] = abar[s], abar[1] = 1).
    """
    v = float64(v)
    small, large = _log_variances(t, s, abar, v)
    return v * large + (1 - v) * small


def learned_logvar_backward(dlogvar, t, s, abar):
    """Gradient of `learned_logvar`:  dv = (log beta - log beta_tilde) dlogvar.

    dlogvar: (B, ...). t, s, abar: as in `learned_logvar`.
    Returns dv (B, ...) float64.
    Raises as `learned_logvar` does.
    """
    dlogvar = np.asarray(dlogvar, np.float64)
    small, large = _log_variances(t, s, abar, dlogvar)
    return dlogvar * (large - small)


def vlb_terms(x0, xt, t, s, mean_hat, logvar_hat, abar):
    """The terms L_{t-1} and L_0 of the variational bound, [DDPM] eq. 5, [iDDPM] section 2.1, with s for t - 1:

        s >= 1    KL(q(x_s | x_t, x0) || N(mean_hat, e^logvar_hat))          `posterior`, `normal_kl`
        s = 0     -log P(x0)  under N(mean_hat, e^logvar_hat)                `discretized_gaussian_log_likelihood`

    summed over an example's D elements and divided by D ln 2. The bound on its bits per dimension is `vlb_prior` plus
    these terms for every step of the chain, each with an x_t drawn from q(x_t | x0).

    x0: (B, ...), in [-1, 1] where s = 0. xt: (B, ...). t, s: ints or (B,) ints, 0 <= s < t <= T. mean_hat, logvar_hat:
    (B, ...), the model's p(x_s | x_t). abar: (T + 1,).
    Returns bits per dimension (B,) float64.
    Raises ValueError where shapes differ, an example has no elements, not 0 <= s < t <= T, x0 is outside [-1, 1] where
    s = 0, or beta_tilde is 0 where s >= 1 (abar[s] = 1 or abar[t] = abar[s]).
    """
    x0, xt, mean_hat, logvar_hat = same_shape(x0=x0, xt=xt, mean_hat=mean_hat, logvar_hat=logvar_hat)
    last, mean, logvar = _true_step(x0, xt, t, s, abar)
    nats = np.zeros(x0.shape, np.result_type(mean_hat, logvar_hat))
    nats[last] = -discretized_gaussian_log_likelihood(x0[last], mean_hat[last], logvar_hat[last] / 2)
    nats[~last] = normal_kl(mean[~last], logvar[~last], mean_hat[~last], logvar_hat[~last])
    return _bits(nats)


def vlb_terms_backward(dbits, x0, xt, t, s, mean_hat, logvar_hat, abar):
    """Gradients of `vlb_terms` in the model's mean and log-variance. [iDDPM] section 3.1 trains the variance by it.

    dbits: (B,). x0, xt, t, s, mean_hat, logvar_hat, abar: as in `vlb_terms`.
    Returns dmean_hat, dlogvar_hat, each (B, ...) float64.
    Raises as `vlb_terms` does.
    """
    x0, xt, mean_hat, logvar_hat = same_shape(x0=x0, xt=xt, mean_hat=mean_hat, logvar_hat=logvar_hat)
    last, mean, logvar = _true_step(x0, xt, t, s, abar)
    dnats = _share(dbits, x0.shape)
    dmean_hat, dlogvar_hat = np.zeros(x0.shape), np.zeros(x0.shape)
    dmean_hat[last], dlog_scale = discretized_gaussian_log_likelihood_backward(-dnats[last], x0[last], mean_hat[last],
                                                                               logvar_hat[last] / 2)
    dlogvar_hat[last] = dlog_scale / 2
    _, _, dmean_hat[~last], dlogvar_hat[~last] = normal_kl_backward(
        dnats[~last], mean[~last], logvar[~last], mean_hat[~last], logvar_hat[~last])
    return dmean_hat, dlogvar_hat


def vlb_prior(x0, abar):
    """The term L_T of the variational bound, [DDPM] eq. 5, [iDDPM] section 2.1:  KL(q(x_T | x0) || N(0, I)) / (D ln 2).

    x0: (B, ...). abar: (T + 1,).
    Returns bits per dimension (B,) float64: 0 where abar[T] = 0.
    Raises ValueError where an example has no elements or abar[T] = 1.
    """
    x0 = float64(x0)
    abar_T = _last_of(abar, x0)
    return _bits(normal_kl(np.sqrt(abar_T) * x0, np.log1p(-abar_T), 0.0, 0.0))


def vlb_prior_backward(dbits, x0, abar):
    """Gradient of `vlb_prior`:  dx0 = abar_T x0 / (D ln 2) dbits.

    dbits: (B,). x0, abar: as in `vlb_prior`.
    Returns dx0 (B, ...) float64.
    Raises as `vlb_prior` does.
    """
    x0 = np.asarray(x0, np.float64)
    return _share(dbits, x0.shape) * _last_of(abar, x0) * x0


def _alike(**arrays):
    """The arguments as arrays of one shape, a single number repeated, after a check that no other shapes differ."""
    shape = next((np.shape(a) for a in arrays.values() if np.ndim(a)), ())
    return same_shape(**{name: a if np.ndim(a) else np.broadcast_to(a, shape) for name, a in arrays.items()})


def _log_variances(t, s, abar, x):
    """log beta tilde and log beta of the step from t to s, shaped to multiply x."""
    abar_t, abar_s = step(abar, t, s, x)
    large = _log_beta(abar_t, abar_s)
    if np.any(np.asarray(s) == 0):  # the smallest step's beta tilde, for its own is 0
        if np.size(abar) < 3:
            raise ValueError(f"abar: expected T >= 2 for a step to s = 0, got T = {np.size(abar) - 1}")
        t, s = np.where(np.asarray(s) == 0, np.maximum(t, 2), t), np.maximum(s, 1)
        abar_t, abar_s = step(abar, t, s, x)
    small = _log_beta(abar_t, abar_s, tilde=True)
    if not np.all((large > -np.inf) & (small > -np.inf)):
        raise ValueError("abar: expected abar[t] < abar[s] < 1, for a variance of 0 has no logarithm")
    return small, large


def _log_beta(abar_t, abar_s, tilde=False):
    """log beta = log((abar_s - abar_t) / abar_s), or log beta tilde: beta (1 - abar_s) / (1 - abar_t)."""
    log_beta = _log_ratio(abar_s - abar_t, abar_s, abar_t)
    return log_beta + _log_ratio(1 - abar_s, 1 - abar_t, abar_s - abar_t) if tilde else log_beta


def _log_ratio(part, whole, rest):
    """log(part / whole), where the whole is part + rest, from the smaller of the two; -inf where part = 0."""
    with np.errstate(divide="ignore"):
        return np.where(rest < part, np.log1p(-rest / whole), np.log(part / whole))


def _true_step(x0, xt, t, s, abar):
    """Which examples step to 0, and the mean and log-variance of q(x_s | x_t, x0), the latter 0 for those."""
    mean, variance = posterior(x0, xt, t, s, abar)
    last = np.broadcast_to(np.asarray(s) == 0, x0.shape[:1])
    if not np.all(last | (variance > 0)):
        raise ValueError("abar: expected abar[t] < abar[s] < 1 where s >= 1, for a variance of 0 has no logarithm")
    logvar = _log_beta(*step(abar, t, s, x0), tilde=True)
    return last, mean, np.where(last.reshape((-1,) + (1,) * (x0.ndim - 1)), 0.0, np.broadcast_to(logvar, x0.shape))


def _last_of(abar, x0):
    if (abar_T := at(abar, np.size(abar) - 1, x0, "T")) == 1:
        raise ValueError("abar: expected abar[T] < 1, got 1: no noise at all")
    return abar_T


def _dims(shape):
    dims = int(np.prod(shape[1:]))
    if not shape or dims == 0:
        raise ValueError(f"expected shape (B, ...) with at least one element an example, got {shape}")
    return dims


def _bits(nats):
    """The sum over each example in bits per dimension."""
    return example_sum(nats) / (_dims(nats.shape) * np.log(2.0))


def _share(dbits, shape):
    """The gradient of each element in an array of the given shape, the same for all of an example."""
    dims, dbits = _dims(shape), np.asarray(dbits, np.float64)
    if dbits.shape != shape[:1]:
        raise ValueError(f"dbits: expected shape {shape[:1]}, got {dbits.shape}")
    return np.broadcast_to((dbits / (dims * np.log(2.0))).reshape((-1,) + (1,) * (len(shape) - 1)), shape)
