"""The exact values of schedules, noise levels, flows, continuous time and consistency models."""
from hypothesis import strategies as st

from ref import schedules
from tests.ref.exact import (
    DATA, INSIDE, PAIRS, SIGMA, UNIT, Case, mp, placed, positive, rounded,
)  # fmt: skip

sqrt, exp, ln, one = mp.sqrt, mp.exp, mp.ln, mp.mpf(1)
LEVELS = st.one_of(SIGMA, st.just(float("inf")))
HALF = st.one_of(st.just(0.5), positive(1e-3, 1e3))  # sigma_data
COUNTS = st.one_of(st.integers(1, 12), st.integers(13, 120))
VARIANCES = st.tuples(positive(1e-12, 0.999), positive(1e-12, 0.999))


def mixed(*names):
    """A call with the data of these names as one example and one element, the rest as it is."""
    return lambda f, **given: f(**placed({n: given[n] for n in names}), **{n: x for n, x in given.items()
                                                                          if n not in names})


def spaced(start, end, n):
    return [start + (end - start) * i / max(n - 1, 1) for i in range(n)]


# --- schedules --------------------------------------------------------------------------------------------------------


MEANT = {"T": COUNTS, "ends": VARIANCES, "meant_for": st.one_of(st.none(), st.integers(1, 1000))}


def meant(T, ends, meant_for):
    return [end * min(meant_for or T, T) / T for end in ends]


def as_meant(f, T, ends, meant_for):
    return f(T, *ends, meant_for and min(meant_for, T))


def cosine(T, offset, max_beta):
    def f(t):
        return mp.cos((mp.mpf(t) / T + offset) / (1 + offset) * mp.pi / 2) ** 2

    return [min(1 - (f(t) if t < T else 0) / f(t - 1), max_beta) for t in range(1, T + 1)]


def products(betas):
    found = [one]
    for beta in betas:
        found.append(found[-1] * (1 - beta))
    return found


def zero_snr(abar):
    root = [sqrt(a) for a in abar[1:]]
    return [one] + [((r - root[-1]) * root[0] / (root[0] - root[-1])) ** 2 for r in root]


def karras(steps, low, ratio, rho):
    high = mp.mpf(float(low) * float(ratio))
    return [x**rho for x in spaced(high ** (1 / rho), low ** (1 / rho), steps)] + [mp.mpf(0)]


SCHEDULES = {
    "schedules.linear_betas": Case(
        MEANT, lambda T, ends, meant_for: spaced(*meant(T, ends, meant_for), T), as_meant),
    "schedules.scaled_linear_betas": Case(
        MEANT, lambda T, ends, meant_for: [x**2 for x in spaced(*map(sqrt, meant(T, ends, meant_for)), T)], as_meant),
    "schedules.cosine_betas": Case(
        {"T": COUNTS, "offset": st.sampled_from([0.0, 0.008, 0.3]), "max_beta": st.sampled_from([0.999, 1.0])}, cosine),
    "schedules.alpha_bar": Case({"betas": st.lists(positive(1e-9, 0.999), min_size=1, max_size=60)}, products),
    "schedules.snr": Case({"abar": UNIT}, lambda abar: abar / (1 - abar) if abar < 1 else mp.inf),
    "schedules.zero_terminal_snr": Case(
        {"abar": st.lists(INSIDE, min_size=2, max_size=9, unique=True).map(
            lambda abar: [1.0, *sorted(abar, reverse=True)])}, zero_snr),
    "schedules.karras_sigmas": Case(
        {"steps": st.integers(1, 20), "low": positive(1e-5, 10), "ratio": positive(1.001, 1e6),
         "rho": st.one_of(st.just(7.0), st.floats(0.5, 60))}, karras,
        lambda f, steps, low, ratio, rho: f(steps, low, low * ratio, rho)),
    "schedules.flow_times": Case(
        {"steps": COUNTS, "shift": positive(1e-3, 1e3)},
        lambda steps, shift: [shift * u / (1 + (shift - 1) * u) for u in (mp.mpf(i) / steps
                                                                         for i in range(steps, -1, -1))]),
}


# --- noise levels -----------------------------------------------------------------------------------------------------


def limit(sigma, at_inf, otherwise):
    return at_inf if mp.isinf(sigma) else otherwise()


def level(a):
    return sqrt((1 - a) / a)


def interpolated(t, abar):
    i = min(int(mp.floor(t)), len(abar) - 2)
    return level(abar[i]) + (t - i) * (level(abar[i + 1]) - level(abar[i]))


def time_of(sigma, abar):
    levels = [level(a) for a in abar]
    i = max(k for k in range(len(levels) - 1) if levels[k] <= sigma)
    width = levels[i + 1] - levels[i]
    return [[mp.mpf(i), (sigma - levels[i]) / width, *rounded(levels[i + 1] / width)]]  # levels are rounded first


GRID = [float(a) for a in schedules.alpha_bar(schedules.linear_betas(20, 0.01, 0.3))]
EDM = {
    "edm.scalings": Case({"sigma": LEVELS, "sigma_data": HALF}, lambda sigma, sigma_data: limit(
        sigma, [mp.mpf(0), sigma_data, mp.mpf(0), mp.inf], lambda: [
            sigma_data**2 / (sigma**2 + sigma_data**2), sigma * sigma_data / sqrt(sigma**2 + sigma_data**2),
            1 / sqrt(sigma**2 + sigma_data**2), ln(sigma) / 4])),
    "edm.loss_weight": Case({"sigma": LEVELS, "sigma_data": HALF}, lambda sigma, sigma_data: limit(
        sigma, 1 / sigma_data**2, lambda: (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2)),
    "edm.sigma_from_abar": Case({"abar": UNIT}, lambda abar: level(abar) if abar > 0 else mp.inf),
    "edm.abar_from_sigma": Case({"sigma": LEVELS}, lambda sigma: limit(sigma, mp.mpf(0), lambda: 1 / (1 + sigma**2))),
    "edm.sigma_at": Case({"t": st.floats(0, 20)}, lambda t: interpolated(t, [mp.mpf(a) for a in GRID]),
                         lambda f, t: f(t, GRID)),
    "edm.time_at": Case({"sigma": st.floats(0, 3.5)}, lambda sigma: time_of(sigma, [mp.mpf(a) for a in GRID]),
                        lambda f, sigma: f(sigma, GRID)),
    "edm.vp_from_ve": Case({"x": DATA, "sigma": SIGMA}, lambda x, sigma: x / sqrt(1 + sigma**2), mixed("x")),
    "edm.ve_from_vp": Case({"xt": DATA, "sigma": SIGMA}, lambda xt, sigma: xt * sqrt(1 + sigma**2),
                           mixed("xt")),
}


# --- flows ------------------------------------------------------------------------------------------------------------


def sigmoid(u):
    return 1 / (1 + exp(-u))


def dv(dloss, v, x0, eps):
    terms = [2 * dloss * v, 2 * dloss * x0, -2 * dloss * eps]
    return [terms, terms, [-term for term in terms]]


FLOW = {
    "flow.interpolate": Case({"x0": DATA, "eps": DATA, "t": UNIT}, lambda x0, eps, t: [[(1 - t) * x0, t * eps]],
                             mixed("x0", "eps")),
    "flow.velocity_target": Case({"x0": DATA, "eps": DATA}, lambda x0, eps: eps - x0,
                                 mixed("x0", "eps")),
    "flow.flow_loss": Case(
        {"v": DATA, "x0": DATA, "eps": DATA}, lambda v, x0, eps: [[
            (v - eps + x0) ** 2, *rounded(abs(v - eps + x0) * (abs(eps - x0) + abs(v)))]],
        mixed("v", "x0", "eps")),
    "flow.flow_loss_backward": Case({"dloss": DATA, "v": DATA, "x0": DATA, "eps": DATA}, dv,
                                    mixed("v", "x0", "eps")),
    "flow.logit_normal_times": Case(
        {"z": st.floats(-40, 40), "mean": st.floats(-5, 5), "std": st.floats(0.1, 5)},
        lambda z, mean, std: sigmoid(mean + std * z)),
    "flow.shift_times": Case({"t": UNIT, "shift": positive(1e-100, 1e100)},
                             lambda t, shift: shift * t / (1 + (shift - 1) * t)),
    "flow.straightness": Case(
        {"x": DATA, "y": DATA, "z": DATA}, lambda x, y, z: [[((z - x) - 2 * (y - x)) ** 2, *rounded(
            abs(x - 2 * y + z) * (abs(z - x) + 2 * abs(y - x)) * 4)]], lambda f, x, y, z: f([[[x]], [[y]], [[z]]])),
    "flow.x0_from_velocity": Case({"xt": DATA, "v": DATA, "t": UNIT}, lambda xt, v, t: [[xt, -t * v]],
                                  mixed("xt", "v")),
    "flow.eps_from_velocity": Case({"xt": DATA, "v": DATA, "t": UNIT}, lambda xt, v, t: [[xt, (1 - t) * v]],
                                   mixed("xt", "v")),
    "flow.velocity_from_x0": Case({"xt": DATA, "x0": DATA, "t": INSIDE}, lambda xt, x0, t: (xt - x0) / t,
                                  mixed("xt", "x0")),
    "flow.velocity_from_eps": Case({"xt": DATA, "eps": DATA, "t": INSIDE}, lambda xt, eps, t: (eps - xt) / (1 - t),
                                   mixed("xt", "eps")),
    "flow.abar_from_flow_time": Case({"t": UNIT}, lambda t: (1 - t) ** 2 / ((1 - t) ** 2 + t**2)),
    "flow.flow_time_from_abar": Case({"abar": UNIT}, lambda abar: sqrt(1 - abar) / (sqrt(abar) + sqrt(1 - abar))),
    "flow.vp_from_flow": Case({"xt": DATA, "t": UNIT}, lambda xt, t: xt / sqrt((1 - t) ** 2 + t**2),
                              mixed("xt")),
    "flow.flow_from_vp": Case({"xt": DATA, "t": UNIT}, lambda xt, t: xt * sqrt((1 - t) ** 2 + t**2),
                              mixed("xt")),
    "flow.reverse_time": Case({"t": UNIT}, lambda t: 1 - t),
}


# --- continuous time --------------------------------------------------------------------------------------------------

RATES = {"t": UNIT, "ends": st.tuples(positive(1e-6, 1), positive(1, 60))}
ENDS = {"t": UNIT, "ends": st.one_of(
    st.tuples(positive(1e-4, 1), positive(1.5, 1e3)), positive(1e-12, 0.1).map(lambda d: (1.0, 1.0 + d)))}


def vp(t, ends):
    total = t * ends[0] + t**2 * (ends[1] - ends[0]) / 2
    return [exp(-total / 2), sqrt(1 - exp(-total))]


SDE = {
    "sde.vp_drift": Case({"x": DATA} | RATES, lambda x, t, ends: -(ends[0] + t * (ends[1] - ends[0])) * x / 2,
                         lambda f, x, t, ends: f([[x]], t, *ends)),
    "sde.vp_diffusion": Case(RATES, lambda t, ends: sqrt(ends[0] + t * (ends[1] - ends[0])),
                             lambda f, t, ends: f(t, *ends)),
    "sde.vp_marginal": Case(RATES, vp, lambda f, t, ends: f(t, *ends)),
    "sde.ve_drift": Case({"x": DATA, "t": UNIT}, lambda x, t: mp.mpf(0), mixed("x")),
    "sde.ve_diffusion": Case(
        ENDS, lambda t, ends: ends[0] * (ends[1] / ends[0]) ** t * sqrt(2 * ln(ends[1] / ends[0])),
        lambda f, t, ends: f(t, *ends)),
    "sde.ve_marginal": Case(
        ENDS, lambda t, ends: [one, ends[0] * sqrt((ends[1] / ends[0]) ** (2 * t) - 1)],
        lambda f, t, ends: f(t, *ends)),
    "sde.reverse_drift": Case({"f": DATA, "g": DATA, "score": DATA}, lambda f, g, score: [[f, -(g**2) * score]],
                              lambda function, f, g, score: function([[f]], g, [[score]])),
    "sde.probability_flow_drift": Case(
        {"f": DATA, "g": DATA, "score": DATA}, lambda f, g, score: [[f, -(g**2) * score / 2]],
        lambda function, f, g, score: function([[f]], g, [[score]])),
    "sde.bits_per_dimension": Case(
        {"nats": DATA, "dims": st.integers(1, 5000), "bin_width": positive(1e-9, 10)},
        lambda nats, dims, bin_width: [[-nats / (dims * ln(2)), -mp.log(bin_width, 2)]]),
}


# --- consistency models -----------------------------------------------------------------------------------------------


def boundary(sigma, sigma_min, sigma_data):
    above = sigma - sigma_min
    return limit(sigma, [mp.mpf(0), sigma_data], lambda: [
        sigma_data**2 / (above**2 + sigma_data**2), sigma_data * above / sqrt(sigma_data**2 + sigma**2)])


def huber(a, b, c):
    """The loss of one example of two elements, and its gradients."""
    root = sqrt(sum((x - y) ** 2 for x, y in zip(a, b)) + c**2)
    return root - c, [(x - y) / root for x, y in zip(a, b)]


def draws(sigmas, mean, std):
    u = [(ln(s) - mean) / (sqrt(2) * std) for s in sigmas]
    p = [mp.erf(x) - mp.erf(y) for x, y in zip(u, u[1:])]
    return [x / sum(p) for x in p]


TWO, CUT = st.tuples(DATA, DATA).map(list), st.one_of(positive(1e-3, 10), positive(1e-150, 1e100))
CONSISTENCY = {
    "consistency.boundary_scalings": Case({"sigma": LEVELS, "sigma_min": st.sampled_from([0.0, 0.002, 0.3]),
                                           "sigma_data": HALF}, boundary),
    "consistency.pseudo_huber_loss": Case({"a": TWO, "b": TWO, "c": CUT}, lambda a, b, c: huber(a, b, c)[0],
                                          lambda f, a, b, c: f([a], [b], c)),
    "consistency.pseudo_huber_loss_backward": Case(
        {"a": TWO, "b": TWO, "c": CUT}, lambda a, b, c: huber(a, b, c)[1] + [-x for x in huber(a, b, c)[1]],
        lambda f, a, b, c: f(1.0, [a], [b], c)),
    "consistency.consistency_loss": Case(
        {"a": TWO, "b": TWO, "c": CUT, "pair": PAIRS}, lambda a, b, c, pair: huber(a, b, c)[0] / (pair[1] - pair[0]),
        lambda f, a, b, c, pair: f([a], [b], pair[1], pair[0], c)),
    "consistency.consistency_loss_backward": Case(
        {"a": TWO, "b": TWO, "c": CUT, "pair": PAIRS},
        lambda a, b, c, pair: [x / (pair[1] - pair[0]) for x in huber(a, b, c)[1]],
        lambda f, a, b, c, pair: f(1.0, [a], [b], pair[1], pair[0], c)),
    "consistency.training_pair": Case(
        {"x0": DATA, "eps": DATA, "pair": PAIRS}, lambda x0, eps, pair: [[x0, pair[1] * eps], [x0, pair[0] * eps]],
        lambda f, x0, eps, pair: f([[x0]], [[eps]], pair[1], pair[0])),
    "consistency.lognormal_sigma_weights": Case(
        {"sigmas": st.lists(positive(0.02, 20), min_size=2, max_size=6, unique=True).map(
            lambda sigmas: sorted(sigmas, reverse=True)), "mean": st.floats(-2, 1), "std": st.floats(0.7, 3)}, draws),
}
LEVEL_CASES = SCHEDULES | EDM | FLOW | SDE | CONSISTENCY
