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
from ref.numerics import erfcx
from ref.shapes import at, example_sum, float64, same_shape, step

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


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
    snr = np.asarray(snr, np.float64)
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
    d = logvar1 - logvar2
    return 0.5 * (np.expm1(d) - d + (mean1 - mean2) ** 2 * np.exp(-logvar2))


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
    d, precision = mean1 - mean2, np.exp(-logvar2)
    dmean1 = dkl * d * precision
    dlogvar1 = dkl * np.expm1(logvar1 - logvar2) / 2
    gradients = dmean1, dlogvar1, -dmean1, -dlogvar1 - dkl * d**2 * precision / 2
    return tuple(g if np.ndim(a) else np.sum(g) for a, g in zip(arguments, gradients))


def discretized_gaussian_log_likelihood(x, means, log_scales):
    """The logarithm of the probability that a Gaussian gives to the bin of x, [DDPM] eq. 13, for 256 levels in [-1, 1]:

        log P(x) = log integral from x - 1/255 to x + 1/255 of N(u; mean, e^(2 log_scale)) du

    where the bins of -1 and 1 reach to -inf and inf, so that the 256 probabilities add to 1. Nothing is approximated:
    the error is what rounding its arguments does, for any deviation, in the bins at the centre and 1e6 deviations away.
    x within 0.001 of an end counts as the end, for levels in half precision.

    x: (B, ...) in [-1, 1]; the levels are 2 k / 255 - 1. means: (B, ...). log_scales: (B, ...), of deviations.
    Returns log P (B, ...) float64, in nats.
    Raises ValueError where shapes differ or an x is outside [-1, 1].
    """
    m, h, end, _ = _bin(x, means, log_scales)
    peak, mass, _ = _mass(m, h, end)
    return peak + np.log(mass)


def discretized_gaussian_log_likelihood_backward(dout, x, means, log_scales):
    """Gradients of `discretized_gaussian_log_likelihood` in the mean and the log_scale, from the density phi at the
    ends a < b of the bin, in deviations from the mean:

        dmean = (phi(a) - phi(b)) / (P e^log_scale) dout,    dlog_scale = (a phi(a) - b phi(b)) / P dout

    dout: (B, ...). x, means, log_scales: as in `discretized_gaussian_log_likelihood`.
    Returns dmeans, dlog_scales, each (B, ...) float64.
    Raises as `discretized_gaussian_log_likelihood` does.
    """
    dout, x, means, log_scales = same_shape(dout=dout, x=x, means=means, log_scales=log_scales)
    m, h, end, side = _bin(x, means, log_scales)
    _, mass, at_a = _mass(m, h, end)
    at_a = dout * at_a / mass
    step = np.where(end, 0.0, -2 * m * h)  # phi(b) = e^step phi(a), but for the open bins, whose b is infinite
    dm = at_a * np.where(end, -1.0, np.expm1(step))
    dh = at_a * np.where(end, 1.0, 1 + np.exp(step))
    return -side * dm * np.exp(-log_scales), -m * dm - h * dh


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
    return _bits(normal_kl(np.sqrt(abar_T) * x0, np.log(1 - abar_T), 0.0, 0.0))


def vlb_prior_backward(dbits, x0, abar):
    """Gradient of `vlb_prior`:  dx0 = abar_T x0 / (D ln 2) dbits.

    dbits: (B,). x0, abar: as in `vlb_prior`.
    Returns dx0 (B, ...) float64.
    Raises as `vlb_prior` does.
    """
    x0 = np.asarray(x0, np.float64)
    return _share(dbits, x0.shape) * _last_of(abar, x0) * x0


def _bin(x, means, log_scales):
    """The bin of x in deviations from the mean: its centre m and half width h, mirrored where side = -1, so that m >= 0
    for a bin with two ends; where `end`, the bin has one end, m - h, and reaches from it to infinity."""
    x, means, log_scales = same_shape(x=x, means=means, log_scales=log_scales)
    if np.any(np.abs(x) > 1):
        raise ValueError(f"x: expected values in [-1, 1], got {x.min()} to {x.max()}")
    end = np.abs(x) > 0.999
    precision = np.exp(-log_scales)
    m = (x - means) * precision
    side = np.where(np.where(end, x, np.real(m)) < 0, -1.0, 1.0)
    return side * m, precision / 255, end, side


def _mass(m, h, end):
    """Phi(b) - Phi(a) for a = m - h, b = m + h (infinity where `end`), as e^peak mass; and phi(a) / e^peak.

    A narrow bin is a sum of positive terms, Gauss and Legendre's, about phi(m). One that lies wholly on the right is
    the difference of two tails, of which the further is at most a tenth. What is left is 1 less both tails.
    """
    a, b = m - h, m + h
    narrow = ~end & (np.real(h) <= 1) & (np.real(m * h) <= 4)
    right = ~narrow & (np.real(a) >= 0)
    mn, hn = np.where(narrow, m, 0), np.where(narrow, h, 0)
    inside = hn * sum(w * np.exp(-hn * u * (mn + hn * u / 2)) for u, w in zip(NODES, WEIGHTS)) / np.sqrt(2 * np.pi)
    tail_a, tail_b = (erfcx(np.where(np.real(e) < 0, -e, e) / np.sqrt(2)) / 2 for e in (a, b))  # over e^(-e^2 / 2)
    tail_b = np.where(end, 0, tail_b)
    outside = tail_a - np.exp(np.where(right & ~end, -2 * m * h, 0)) * tail_b
    astride = 1 - np.exp(-(a**2) / 2) * tail_a - np.exp(-(b**2) / 2) * tail_b
    peak = np.where(narrow, -(m**2) / 2, np.where(right, -(a**2) / 2, 0))
    mass = np.where(narrow, inside, np.where(right, outside, astride))
    at_a = np.exp(np.where(narrow, hn * (mn - hn / 2), np.where(right, 0, -(a**2) / 2))) / np.sqrt(2 * np.pi)
    return peak, mass, at_a


def _alike(**arrays):
    """The arguments as arrays of one shape, a single number repeated, after a check that no other shapes differ."""
    shape = next((np.shape(a) for a in arrays.values() if np.ndim(a)), ())
    return same_shape(**{name: a if np.ndim(a) else np.broadcast_to(a, shape) for name, a in arrays.items()})


def _log_variances(t, s, abar, x):
    """log beta tilde and log beta of the step from t to s, shaped to multiply x."""
    abar_t, abar_s = step(abar, t, s, x)
    beta = 1 - abar_t / abar_s
    if np.any(np.asarray(s) == 0):  # the smallest step's beta tilde, for its own is 0
        if np.size(abar) < 3:
            raise ValueError(f"abar: expected T >= 2 for a step to s = 0, got T = {np.size(abar) - 1}")
        t, s = np.where(np.asarray(s) == 0, np.maximum(t, 2), t), np.maximum(s, 1)
        abar_t, abar_s = step(abar, t, s, x)
    beta_tilde = (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)
    if not np.all((beta > 0) & (beta_tilde > 0)):
        raise ValueError("abar: expected abar[t] < abar[s] < 1, for a variance of 0 has no logarithm")
    return np.log(beta_tilde), np.log(beta)


def _true_step(x0, xt, t, s, abar):
    """Which examples step to 0, and the mean and log-variance of q(x_s | x_t, x0), the latter 0 for those."""
    mean, variance = posterior(x0, xt, t, s, abar)
    last = np.broadcast_to(np.asarray(s) == 0, x0.shape[:1])
    variance = np.where(last, 1.0, variance)
    if not np.all(variance > 0):
        raise ValueError("abar: expected abar[t] < abar[s] < 1 where s >= 1, for a variance of 0 has no logarithm")
    return last, mean, np.broadcast_to(np.log(variance).reshape((-1,) + (1,) * (x0.ndim - 1)), x0.shape)


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
