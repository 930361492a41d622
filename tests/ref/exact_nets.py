"""The exact values of adversarial losses, activations, the optimiser, guidance, noise and `ref.numerics`."""
import numpy as np
from hypothesis import strategies as st

from ref import philox
from tests.ref.exact import DATA, HUGE, UNIT, Case, mp, placed, positive, rounded, signed
from tests.ref.exact_models import LOGIT, ROW, sigmoid, single, softplus, upstream

exp, ln, sqrt, zero, one = mp.exp, mp.ln, mp.sqrt, mp.mpf(0), mp.mpf(1)


# --- adversarial losses -----------------------------------------------------------------------------------------------


def hinge(u):
    return max(u, zero)


def step(u):
    return one if u > 0 else zero


LOSSES = {  # the terms of the loss, and the gradients, of a real and a fake logit, or of a fake one alone
    "discriminator_loss": lambda r, f: ([softplus(-r), softplus(f)], [-sigmoid(-r), sigmoid(f)]),
    "hinge_discriminator_loss": lambda r, f: ([hinge(1 - r), hinge(1 + f)], [-step(1 - r), step(1 + f)]),
    "least_squares_discriminator_loss": lambda r, f: ([(r - 1) ** 2 / 2, f**2 / 2], [r - 1, f]),
    "wasserstein_discriminator_loss": lambda r, f: ([-r, f], [-one, one]),
    "generator_loss": lambda f: ([softplus(-f)], [-sigmoid(-f)]),
    "generator_loss_saturating": lambda f: ([-softplus(f)], [-sigmoid(f)]),
    "hinge_generator_loss": lambda f: ([-f], [-one]),
    "least_squares_generator_loss": lambda f: ([(f - 1) ** 2 / 2], [f - 1]),
    "wasserstein_generator_loss": lambda f: ([-f], [-one]),
}


def of_loss(name, terms):
    """The loss, its backward and both in one, as cases."""
    logits = {n: LOGIT for n in (("real_logits", "fake_logits") if "discriminator" in name else ("fake_logits",))}

    def parts(given):
        return terms(*(given[n] for n in logits))

    return {
        f"gan.{name}": Case(logits, lambda **given: [parts(given)[0]], single),
        f"gan.{name}_backward": Case({"dloss": DATA} | logits, lambda dloss, **given: [
            dloss * g for g in parts(given)[1]], upstream("dloss")),
        f"gan.{name}_grad": Case(logits, lambda **given: [parts(given)[0], *parts(given)[1]], single),
    }


def length(x):
    return sqrt(sum(v**2 for v in x))


ITSELF = lambda params, x: (np.array(x), None), lambda ddx, params, cache: (None, ddx)  # its gradient is its input
VECTOR = st.lists(st.one_of(st.floats(-2, 2), signed(1e-100, 1e100)), min_size=2, max_size=2)
GAN = {key: case for name, terms in LOSSES.items() for key, case in of_loss(name, terms).items()} | {
    "gan.interpolate": Case({"real": DATA, "fake": DATA, "alpha": UNIT}, lambda real, fake, alpha: [
        [alpha * real, (1 - alpha) * fake]], lambda f, real, fake, alpha: f([[real]], [[fake]], [alpha])),
    "gan.gradient_penalty": Case({"x": VECTOR}, lambda x: [[
        (length(x) - 1) ** 2, *rounded(abs(length(x) - 1) * (length(x) + 1))]], lambda f, x: f(ITSELF, None, [x])[0]),
    "gan.gradient_penalty_backward": Case(
        {"x": st.lists(signed(1e-200, 1e200), min_size=2, max_size=2)},
        lambda x: [[2 * v, -2 * v / length(x)] for v in x],
        lambda f, x: f(1.0, ITSELF, None, {"dx": np.array([x]), "network": None})),
    "gan.r1_penalty": Case({"x": VECTOR}, lambda x: sum(v**2 for v in x) / 2, lambda f, x: f(ITSELF, None, [x])[0]),
    "gan.r1_penalty_backward": Case({"x": VECTOR, "dloss": DATA}, lambda x, dloss: [dloss * v for v in x],
                                    lambda f, x, dloss: f(dloss, ITSELF, None, {"dx": np.array([x]), "network": None})),
}


# --- layers -----------------------------------------------------------------------------------------------------------


def entropy(logits, label):
    """The logarithm of the sum of e^(logit - the label's)."""
    return ln(sum(exp(x - logits[label]) for x in logits))


def entropy_backward(logits, label):
    total = sum(map(exp, logits))
    return [-sum(exp(x) for j, x in enumerate(logits) if j != label) / total if i == label else exp(v) / total
            for i, v in enumerate(logits)]


def times(t, width):
    f = [mp.mpf(10000) ** (-mp.mpf(2 * i) / width) for i in range(width // 2)]
    return [mp.sin(t * v) for v in f] + [mp.cos(t * v) for v in f]


def gelu_tanh(x):
    """x sigmoid(2 u), where u is rounded first; and its slope."""
    u = 2 * sqrt(2 / mp.pi) * x * (1 + mp.mpf("0.044715") * x**2)
    return of_sigmoid(x, u, 2 * sqrt(2 / mp.pi) * (1 + 3 * mp.mpf("0.044715") * x**2))


def quick_gelu(x):
    return of_sigmoid(x, mp.mpf("1.702") * x, mp.mpf("1.702"))


def of_sigmoid(x, u, slope):
    """The terms of x sigmoid(u) and of its derivative, u rounded first: that counts |u| times."""
    s, rest = sigmoid(u), sigmoid(-u)
    lost = abs(u) * rest
    return [x * s, *rounded(abs(x) * s * lost)], [s, s * rest * x * slope, *rounded(s * (1 + rest * abs(x * slope))
                                                                                   * (lost + abs(u)))]


def cdf(x):
    return mp.erfc(-x / sqrt(mp.mpf(2))) / 2


def pdf(x):
    return exp(-(x**2) / 2) / sqrt(2 * mp.pi)


def times_dy(terms):
    return Case({"dy": DATA, "x": GATE}, lambda dy, x: [[dy * term for term in terms(x)]])


GATE = st.one_of(st.floats(-4, 4), st.floats(-37, 37))
TAIL = st.one_of(st.floats(-745, 745), LOGIT)  # to where a sigmoid is subnormal, and 0
LABEL = {"logits": ROW, "label": st.integers(0, 2)}
PLAIN = {"relu": hinge, "sigmoid": sigmoid, "softplus": softplus, "tanh": mp.tanh}
LAYERS = {f"layers.{name}": Case({"x": LOGIT}, lambda x, f=f: f(x)) for name, f in PLAIN.items()} | {
    "layers.leaky_relu": Case({"x": DATA}, lambda x: x if x > 0 else mp.mpf(0.2) * x),
    "layers.relu_backward": Case({"dy": DATA, "x": DATA}, lambda dy, x: dy * step(x)),
    "layers.leaky_relu_backward": Case({"dy": DATA, "x": DATA}, lambda dy, x: dy if x > 0 else mp.mpf(0.2) * dy),
    "layers.tanh_backward": Case({"dy": DATA, "y": st.floats(-1, 1)}, lambda dy, y: dy * (1 - y**2)),
    "layers.sigmoid_backward": Case({"dy": DATA, "y": UNIT}, lambda dy, y: dy * y * (1 - y)),
    "layers.softplus_backward": Case({"dy": DATA, "x": LOGIT}, lambda dy, x: dy * sigmoid(x)),
    "layers.silu": Case({"x": TAIL}, lambda x: x * sigmoid(x)),
    "layers.silu_backward": Case({"dy": DATA, "x": TAIL}, lambda dy, x: [
        [dy * sigmoid(x), dy * sigmoid(x) * x * sigmoid(-x)]]),
    "layers.gelu": Case({"x": GATE}, lambda x: x * cdf(x)),
    "layers.gelu_backward": times_dy(lambda x: [cdf(x), x * pdf(x)]),
    "layers.gelu_tanh": Case({"x": GATE}, lambda x: [gelu_tanh(x)[0]]),
    "layers.gelu_tanh_backward": times_dy(lambda x: gelu_tanh(x)[1]),
    "layers.quick_gelu": Case({"x": GATE}, lambda x: [quick_gelu(x)[0]]),
    "layers.quick_gelu_backward": times_dy(lambda x: quick_gelu(x)[1]),
    "layers.cross_entropy": Case(LABEL, entropy, lambda f, logits, label: f(np.array([logits]), np.array([label]))),
    "layers.cross_entropy_backward": Case(
        LABEL, entropy_backward, lambda f, logits, label: f(1.0, np.array([logits]), np.array([label]))),
    "layers.time_embedding": Case({"t": st.one_of(st.floats(0, 1000), st.integers(0, 4000).map(float)),
                                   "width": st.sampled_from([2, 6, 32])}, times, lambda f, t, width: f([t], width)),
    "trajectory.time_embedding": Case({"t": st.floats(0, 1000), "width": st.sampled_from([2, 6, 32])}, times,
                                      lambda f, t, width: f([t], width)),
}


# --- the optimiser and guidance ---------------------------------------------------------------------------------------


def adam(p, g, m, v, step, rates):
    lr, beta1, beta2, eps, weight_decay = rates
    new_m, new_v = [beta1 * m, (1 - beta1) * g], beta2 * v + (1 - beta2) * g**2
    slope = lr / (1 - beta1**step) / (sqrt(new_v / (1 - beta2**step)) + eps)
    return [[p, -lr * weight_decay * p, *(-slope * part for part in new_m)], new_m, new_v]


def adam_rows(step, rates):
    lr, beta1, beta2, eps, weight_decay = rates
    return [beta1, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1**step), 1 / sqrt(1 - beta2**step), eps,
            lr * weight_decay]


BETAS = st.one_of(st.sampled_from([0.9, 0.999, 0.99999, 0.5, 0.0]), positive(1e-12, 0.5).map(lambda u: 1 - u))
RATES = {"step": st.one_of(st.integers(1, 3), st.integers(1, 10**6)), "rates": st.tuples(
    positive(1e-9, 1), BETAS, BETAS, positive(1e-12, 1e-2), positive(1e-6, 1))}
SPREAD = ROW.filter(lambda row: max(row) - min(row) > 1e-3)
SIZE = st.one_of(st.floats(-3, 3), signed(1e-60, 1e60))


def rescaled(uncond, cond, w, phi):
    """Both deviations are of differences that are rounded first."""
    g = [[u, w * c, -w * u] for u, c in zip(uncond, cond)]
    spread, spread_g = (sqrt(sum((x - sum(a) / 3) ** 2 for x in a)) for a in (cond, [sum(x) for x in g]))
    size = max(sum(map(abs, x)) for x in g)
    lost = 1 + 3 * size / spread_g + 3 * max(map(abs, cond)) / spread
    return [[(phi * spread / spread_g + 1 - phi) * sum(x), *rounded(phi * spread / spread_g * size * lost),
             *rounded((1 - phi) * size)] for x in g]


def thresholded(x0, ratio, max_value):
    """By the straight line between the two order statistics."""
    sizes, place = sorted(map(abs, x0)), ratio * (len(x0) - 1)
    i = min(int(place), len(x0) - 2)
    s = min(max(sizes[i] + (place - i) * (sizes[i + 1] - sizes[i]), 1), max_value)
    return [[max(min(x, s), -s) / s, *rounded((place - i + 1) * sizes[i + 1] / s)] for x in x0]


OPTIM = {
    "optim.adam_step": Case(
        {"p": SIZE, "g": SIZE, "m": SIZE, "v": positive(1e-60, 1e60)} | RATES, adam,
        lambda f, p, g, m, v, step, rates: f(*map(np.float64, (p, g, m, v)), step, *rates)),
    "coefficients.adam_step": Case(RATES, adam_rows, lambda f, step, rates: f(step, *rates)),
    "coefficients.muon_step": Case(
        {"lr": positive(1e-9, 1), "momentum": BETAS, "weight_decay": positive(1e-6, 1), "rows": st.integers(1, 10**4),
         "columns": st.integers(1, 10**4)}, lambda lr, momentum, weight_decay, rows, columns: [
             lr / 5 * sqrt(mp.mpf(max(rows, columns))), momentum, lr * weight_decay]),
    "optim.ema_step": Case({"avg": DATA, "p": DATA, "decay": UNIT}, lambda avg, p, decay: [
        [decay * avg, (1 - decay) * p]], lambda f, avg, p, decay: f(np.float64(avg), np.float64(p), decay)),
    "coefficients.ema_step": Case({"decay": UNIT}, lambda decay: [decay, 1 - decay]),
    "optim.clip_by_global_norm": Case(
        {"g": st.lists(st.one_of(st.just(0.0), signed(1e-200, 1e200)), min_size=3, max_size=3),
         "max_norm": positive(1e-60, 1e60)},
        lambda g, max_norm: [*(v * min(1, max_norm / length(g)) if length(g) else zero for v in g), length(g)],
        lambda f, g, max_norm: f([np.array(g[:2]), np.array(g[2:])], max_norm)),
    "guidance.guide": Case({"uncond": DATA, "cond": DATA, "w": st.floats(-2, 20)}, lambda uncond, cond, w: [
        [uncond, w * cond, -w * uncond]], lambda f, uncond, cond, w: f([[uncond]], [[cond]], w)),
    "guidance.interval_weight": Case(
        {"w": DATA, "t": UNIT, "a": UNIT, "b": UNIT}, lambda w, t, a, b: w if min(a, b) < t <= max(a, b) else one,
        lambda f, w, t, a, b: f(w, t, min(a, b), max(a, b))),
    "guidance.guide_rescaled": Case(
        {"uncond": SPREAD, "cond": SPREAD, "w": st.floats(0, 20), "phi": UNIT}, rescaled,
        lambda f, uncond, cond, w, phi: f([uncond], [cond], w, phi)),
    "guidance.dynamic_threshold": Case(
        {"x0": ROW, "ratio": st.floats(0, 1), "max_value": st.floats(1, 40)}, thresholded,
        lambda f, x0, ratio, max_value: f([x0], ratio, max_value)),
    "guidance.w_from_paper": Case({"w_paper": DATA}, lambda w_paper: 1 + w_paper),
    "guidance.w_to_paper": Case({"w": DATA}, lambda w: w - 1),
}


# --- noise and numerics -----------------------------------------------------------------------------------------------


def box_muller(seed):
    """Four normals, from the words as [BoxMuller] takes them."""
    found, words = [], philox.bits(seed, 4)
    for w0, w1 in (words[:2], words[2:]):
        u = mp.mpf(float(np.float32(w1) * np.float32(2.0**-32) + np.float32(2.0**-33)))
        a = mp.mpf(float(np.float32(w0.view(np.int32)) * np.float32(2.0**-31) + np.float32(2.0**-32)))
        found += [sqrt(-2 * ln(u)) * turn(mp.pi * a) for turn in (mp.sin, mp.cos)]
    return found


def scaled_erfc(z):
    return exp(z**2) * mp.erfc(z)


NUMERICS = {
    "philox.normal": Case({"seed": st.integers(0, 2**64 - 1)}, box_muller, lambda f, seed: f(seed, 4)),
    "numerics.erfcx": Case({"z": st.one_of(st.just(0.0), st.floats(0, 9), positive(1e-100, 30))}, scaled_erfc),
    "numerics.erf": Case({"x": GATE}, lambda x: mp.erf(x)),
    "numerics.normal_cdf": Case({"x": GATE}, cdf),
    "numerics.normal_pdf": Case({"x": GATE}, pdf),
    "numerics.exp_above_tangent": Case({"x": LOGIT}, lambda x: exp(x) - 1 - x),
    "numerics.phi": Case({"k": st.integers(0, 4), "z": st.one_of(st.just(0.0), positive(1e-15, 500).map(lambda u: -u))},
                         lambda k, z: mp.hyp1f1(1, k + 1, z) / mp.factorial(k)),
    "numerics.two_sum": Case({"a": DATA, "b": DATA}, lambda a, b: (lambda s: [mp.mpf(float(s)), s - mp.mpf(float(s))])(
        mp.mpf(a) + b)),
    "numerics.two_product": Case(
        {"a": SIZE, "b": SIZE}, lambda a, b: (lambda x: [mp.mpf(float(x)), x - mp.mpf(float(x))])(a * b)),
    "numerics.norm": Case({"x": st.lists(HUGE, min_size=3, max_size=3)}, length, lambda f, x: f([x])),
    "numerics.weighted": Case({"weight": DATA, "value": DATA}, lambda weight, value: weight * value),
    "numerics.exp_difference": Case({"a": LOGIT, "b": LOGIT}, lambda a, b: exp(a - b)),
    "numerics.expm1_weighted": Case({"x": HUGE, "exponent": st.one_of(LOGIT, st.floats(-1400, 1400))},
                                    lambda x, exponent: x * (exp(exponent) - 1)),
    "numerics.exp_weighted": Case({"x": HUGE, "exponent": st.one_of(LOGIT, st.floats(-1400, 1400))},
                                  lambda x, exponent: x * exp(exponent)),
}
NET_CASES = GAN | LAYERS | OPTIM | NUMERICS
