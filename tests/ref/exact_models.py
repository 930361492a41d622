"""The exact values of losses, divergences, likelihoods, activations, the optimiser, guidance and `ref.numerics`."""
import numpy as np
from hypothesis import strategies as st

from tests.ref.exact import DATA, HUGE, INSIDE, PAIRS, UNIT, Case, mp, placed, positive, rounded, signed

sqrt, exp, ln, one, zero = mp.sqrt, mp.exp, mp.ln, mp.mpf(1), mp.mpf(0)
LOGVAR = st.one_of(st.floats(-3, 3), st.floats(-40, 40), signed(1e-12, 1e-2), st.sampled_from([-720.0, 720.0, 0.0]))
LOGIT = st.one_of(st.floats(-4, 4), st.floats(-700, 700), signed(1e-12, 1e-2))
ROW, PROBABILITIES = st.lists(st.floats(-30, 30), min_size=3, max_size=3), st.floats(1e-12, 0.999)


def single(function, **arguments):
    """A call with every argument one example of one element."""
    return function(**placed(arguments))


def upstream(name):
    """A call with every argument but this one of one example and one element."""
    return lambda function, **given: function(**{name: given.pop(name)}, **placed(given))


def sigmoid(u):
    return 1 / (1 + exp(-u))


def softplus(u):
    return ln(1 + exp(u))


# --- divergences and likelihoods --------------------------------------------------------------------------------------


def kl(mean1, logvar1, mean2, logvar2):
    d = logvar1 - logvar2
    return [[(exp(d) - 1 - d) / 2, (mean1 - mean2) ** 2 * exp(-logvar2) / 2]]


def kl_backward(dkl, mean1, logvar1, mean2, logvar2):
    d, square = mean1 - mean2, (mean1 - mean2) ** 2 * exp(-logvar2)
    dlogvar1 = dkl * (exp(logvar1 - logvar2) - 1) / 2
    return [dkl * d * exp(-logvar2), dlogvar1, -dkl * d * exp(-logvar2), [-dlogvar1, -dkl * square / 2]]


def log_variances(pair):
    a, b = pair
    beta = 1 - a / b
    return ln(beta * (1 - b) / (1 - a)), ln(beta)


def upper(z):
    """1 - Phi(z); beyond 1e150 its logarithm is no float64."""
    return mp.erfc(z / sqrt(mp.mpf(2))) / 2 if z < 1e150 else zero


def density(z):
    return exp(-(z**2) / 2) / sqrt(2 * mp.pi) if abs(z) < 1e150 else zero


def ends(x, mean, log_scale):
    """The bin's ends in deviations, mirrored to the right of the mean, and on which side it was."""
    half = mp.mpf(1) / 255
    if abs(x) > 0.999:
        side = 1 if x > 0 else -1
        return (side * (x - mean) - half) * exp(-log_scale), mp.inf, side
    side = -1 if x < mean else 1
    return [(side * (x - mean) + e) * exp(-log_scale) for e in (-half, half)] + [side]


def probability(x, mean, log_scale):
    a, b, side = ends(x, mean, log_scale)
    p = 1 - upper(-a) - upper(b) if a < 0 < b else upper(a) - (0 if mp.isinf(b) else upper(b))
    slopes = [z * density(z) / p for z in (a, b) if not mp.isinf(z)] if p else []
    return p, slopes, (a, b, side)


def discretized(x, mean, log_scale):
    """log P; e^-log_scale is rounded, and that moves the ends."""
    p, slopes, _ = probability(x, mean, log_scale)
    return [-mp.inf] if p == 0 else [[ln(p), *rounded(sum(map(abs, slopes)) / 2)]]


def discretized_backward(x, mean, log_scale):
    p, slopes, (a, b, side) = probability(x, mean, log_scale)
    phi = [density(z) / p if not mp.isinf(z) else zero for z in (a, b)]
    moved = sum(abs(z * s) * abs(z) for z, s in zip((a, b), phi) if not mp.isinf(z)) / 2
    shift = abs(phi[0] - phi[1]) * sum(map(abs, slopes)) + moved
    return [[side * (phi[0] - phi[1]) * exp(-log_scale), *rounded(shift * exp(-log_scale))],
            [*(s if i == 0 else -s for i, s in enumerate(slopes)), *rounded(sum(map(abs, slopes)) ** 2 + moved)]]


LEVEL = st.integers(0, 255).map(lambda k: 2 * k / 255 - 1)
BIN = {"x": LEVEL, "mean": st.floats(-1.2, 1.2), "log_scale": st.floats(-9, 3)}
FAR = st.one_of(st.floats(-9, 3), st.sampled_from([-720.0, 746.0]))
OBJECTIVES = {
    "objectives.min_snr_weight": Case(
        {"snr": st.one_of(st.just(0.0), positive(1e-100, 1e100)), "gamma": positive(1e-3, 1e3),
         "prediction": st.sampled_from(["x0", "eps", "v"])}, lambda snr, gamma, prediction: {
            "x0": min(snr, gamma), "eps": min(snr, gamma) / snr if snr else one, "v": min(snr, gamma) / (snr + 1),
        }[prediction]),
    "objectives.normal_kl": Case(
        {"mean1": DATA, "logvar1": LOGVAR, "mean2": DATA, "logvar2": LOGVAR}, kl, single),
    "objectives.normal_kl_backward": Case(
        {"dkl": DATA, "mean1": DATA, "logvar1": LOGVAR, "mean2": DATA, "logvar2": LOGVAR}, kl_backward, single),
    "objectives.learned_logvar": Case(
        {"pair": PAIRS.filter(lambda pair: pair[1] < 1), "v": UNIT}, lambda pair, v: [
            [(1 - v) * log_variances(pair)[0], v * log_variances(pair)[1]]],
        lambda f, pair, v: f([[v]], 2, 1, [1, *pair[::-1]])),
    "objectives.learned_logvar_backward": Case(
        {"pair": PAIRS.filter(lambda pair: pair[1] < 1), "dlogvar": DATA}, lambda pair, dlogvar: [
            [dlogvar * log_variances(pair)[1], -dlogvar * log_variances(pair)[0]]],
        lambda f, pair, dlogvar: f([[dlogvar]], 2, 1, [1, *pair[::-1]])),
    "objectives.vlb_prior": Case(
        {"x0": DATA, "a": st.one_of(st.just(0.0), INSIDE)}, lambda x0, a: [
            [(-a - ln(1 - a)) / 2 / ln(2), a * x0**2 / 2 / ln(2)]], lambda f, x0, a: f([[x0]], [1, a])),
    "objectives.vlb_prior_backward": Case(
        {"x0": DATA, "a": INSIDE, "dbits": DATA}, lambda x0, a, dbits: a * x0 / ln(2) * dbits,
        lambda f, x0, a, dbits: f([dbits], [[x0]], [1, a])),
    "discretized.discretized_gaussian_log_likelihood": Case(
        BIN | {"log_scale": FAR}, discretized, lambda f, x, mean, log_scale: f([[x]], [[mean]], [[log_scale]])),
    "discretized.discretized_gaussian_log_likelihood_backward": Case(
        BIN, discretized_backward, lambda f, x, mean, log_scale: f([[1.0]], [[x]], [[mean]], [[log_scale]])),
}


def shannon(weights):
    """The divergence of the first half and the second, each scaled to add to 1 in float64 beforehand."""
    p, q = weights[:3], weights[3:]
    return sum(x * ln(2 * x / (x + y)) if x else zero for x, y in [*zip(p, q), *zip(q, p)]) / 2


def scaled(weights):
    halves = [np.array(half) / np.sum(half) for half in (weights[:3], weights[3:])]
    return np.concatenate(halves).tolist()


def near(weights, distance):
    """The second half as the first, but for a little."""
    return scaled([*weights, *(w * (1 + d * distance) for w, d in zip(weights, (1, -1, 0.5)))])


WEIGHTS = st.one_of(
    st.lists(PROBABILITIES, min_size=6, max_size=6).map(scaled),
    st.tuples(st.lists(PROBABILITIES, min_size=3, max_size=3), positive(1e-15, 0.9)).map(lambda drawn: near(*drawn)))
DIVERGENCE = {
    "divergence.optimal_discriminator": Case(
        {"p_data": st.one_of(st.just(0.0), positive(1e-250, 1e250)), "p_g": positive(1e-250, 1e250)},
        lambda p_data, p_g: p_data / (p_data + p_g)),
    "divergence.jensen_shannon": Case({"weights": WEIGHTS}, shannon, lambda f, weights: f(weights[:3], weights[3:])),
}


# --- VAEs and GANs ----------------------------------------------------------------------------------------------------


def bernoulli_backward(dnll, logits, x):
    return [[dnll * (1 - x) * sigmoid(logits), -dnll * x * sigmoid(-logits)], -dnll * logits]


def gaussian_backward(dnll, x, mean, logvar):
    square = (x - mean) ** 2 * exp(-logvar)
    dx = dnll * (x - mean) * exp(-logvar)
    return [dx, -dx, [dnll / 2, -dnll * square / 2]]


def weights_of(log_w):
    largest = max(log_w)
    return [[largest, ln(sum(exp(x - largest) for x in log_w) / len(log_w))]]


def shares(log_w):
    return [exp(x) / sum(map(exp, log_w)) for x in log_w]


def reparameterized_backward(dz, dkl, mu, logvar, eps):
    std = exp(logvar / 2)
    return [[dz, dkl * mu], [dz * eps * std / 2, dkl * (exp(logvar) - 1) / 2], std * dz]


GAUSSIAN = {"mu": DATA, "logvar": LOGVAR}
VAE = {
    "vae.reparameterize": Case(GAUSSIAN | {"eps": DATA}, lambda mu, logvar, eps: [[mu, exp(logvar / 2) * eps]], single),
    "vae.reparameterize_backward": Case(
        {"dz": DATA, "logvar": LOGVAR, "eps": DATA},
        lambda dz, logvar, eps: [dz, dz * eps * exp(logvar / 2) / 2, exp(logvar / 2) * dz], single),
    "vae.gaussian_kl": Case(GAUSSIAN, lambda mu, logvar: [[mu**2 / 2, (exp(logvar) - 1 - logvar) / 2]], single),
    "vae.gaussian_kl_backward": Case({"dkl": DATA} | GAUSSIAN, lambda dkl, mu, logvar: [
        dkl * mu, dkl * (exp(logvar) - 1) / 2], upstream("dkl")),
    "vae.bernoulli_nll": Case({"logits": LOGIT, "x": UNIT}, lambda logits, x: [
        [x * softplus(-logits), (1 - x) * softplus(logits)]], single),
    "vae.bernoulli_nll_backward": Case({"dnll": DATA, "logits": LOGIT, "x": UNIT}, bernoulli_backward,
                                       upstream("dnll")),
    "vae.bernoulli_nll_grad": Case(
        {"logits": LOGIT, "x": UNIT, "dnll": DATA}, lambda logits, x, dnll: [
            [x * softplus(-logits), (1 - x) * softplus(logits)], bernoulli_backward(dnll, logits, x)[0]],
        upstream("dnll")),
    "vae.gaussian_nll": Case({"x": DATA, "mean": DATA, "logvar": LOGVAR}, lambda x, mean, logvar: [
        [ln(2 * mp.pi) / 2, logvar / 2, (x - mean) ** 2 * exp(-logvar) / 2]], single),
    "vae.gaussian_nll_backward": Case({"dnll": DATA, "x": DATA, "mean": DATA, "logvar": LOGVAR}, gaussian_backward,
                                      upstream("dnll")),
    "vae.reparameterize_kl": Case(GAUSSIAN | {"eps": DATA}, lambda mu, logvar, eps: [
        [mu, exp(logvar / 2) * eps], [mu**2 / 2, (exp(logvar) - 1 - logvar) / 2]], single),
    "vae.reparameterize_kl_backward": Case(
        {"dz": DATA, "dkl": DATA, "eps": DATA} | GAUSSIAN, reparameterized_backward,
        upstream("dkl")),
    "vae.elbo": Case({"nll": DATA, "kl": DATA, "beta": positive(1e-3, 1e3)}, lambda nll, kl, beta: [[-nll, -beta * kl]],
                     lambda f, nll, kl, beta: f([nll], [kl], beta)),
    "vae.elbo_backward": Case({"delbo": DATA, "beta": positive(1e-3, 1e3)}, lambda delbo, beta: [-delbo, -beta * delbo],
                              lambda f, delbo, beta: f(delbo, [0.0], [0.0], beta)),
    "vae.clamp_logvar": Case({"logvar": DATA}, lambda logvar: min(max(logvar, -30), 20)),
    "vae.clamp_logvar_backward": Case({"dclamped": DATA, "logvar": DATA}, lambda dclamped, logvar: (
        dclamped if -30 <= logvar <= 20 else zero)),
    "vae.importance_weighted_bound": Case({"log_w": ROW}, weights_of, lambda f, log_w: f([log_w])),
    "vae.importance_weighted_bound_backward": Case({"log_w": ROW}, shares, lambda f, log_w: f(1.0, [log_w])),
}

# --- sound ------------------------------------------------------------------------------------------------------------

def not_subnormal(x):
    return x == 0 or abs(x) > 1e-100


COMPANDED = st.one_of(st.floats(-1, 1), signed(1e-12, 1)).filter(not_subnormal)
MEL = "slaney", "htk"
FREQUENCY = st.one_of(st.floats(0, 3e4), positive(1e-12, 1e4)).filter(not_subnormal)
MELS = st.one_of(st.floats(0, 60), positive(1e-12, 4e3)).filter(not_subnormal)


def of_size(f):
    """An odd function, from its values where x >= 0."""
    return lambda **given: mp.sign(given["x"]) * f(abs(given["x"]))


def slaney(f):
    return 3 * f / 200 if f < 1000 else [mp.mpf(15), 27 * ln(f / 1000) / ln(mp.mpf(32) / 5)]


AUDIO = {
    "audio.mulaw_compress": Case({"x": COMPANDED}, of_size(lambda x: ln(1 + 255 * x) / ln(mp.mpf(256)))),
    "audio.mulaw_expand": Case({"x": COMPANDED}, of_size(lambda x: (mp.mpf(256) ** x - 1) / 255), lambda f, x: f(x)),
    "audio.mulaw_compress_backward": Case({"dy": DATA, "x": COMPANDED}, lambda dy, x: (
        dy * 255 / ((1 + 255 * abs(x)) * ln(mp.mpf(256))))),
    "audio.mulaw_expand_backward": Case({"dx": DATA, "y": COMPANDED}, lambda dx, y: (
        dx * mp.mpf(256) ** abs(y) * ln(mp.mpf(256)) / 255)),
    "audio.hz_to_mel": Case({"f": FREQUENCY, "scale": st.sampled_from(MEL)},
                            lambda f, scale: [slaney(f)] if scale == "slaney" else (
                                2595 * ln(1 + f / 700) / ln(mp.mpf(10)))),
    "audio.mel_to_hz": Case({"m": MELS, "scale": st.just("htk")},
                            lambda m, scale: 700 * (mp.mpf(10) ** (m / 2595) - 1)),
}
MODEL_CASES = OBJECTIVES | DIVERGENCE | VAE | AUDIO
