"""The exact values of steps, and of the coefficients that kernels fold."""
from hypothesis import strategies as st

from tests.ref.exact import DATA, INSIDE, PAIRS, SIGMA, TRIPLES, UNIT, Case, mp, placed, rounded

sqrt, exp, ln, one = mp.sqrt, mp.exp, mp.ln, mp.mpf(1)


def at_time(function, a, **data):
    return function(**placed(data), t=1, abar=[1, a])


def of_step(function, pair, **given):
    setting = {n: given.pop(n) for n in ("variance", "eta") if n in given}
    return function(**placed(given), **setting, t=2, s=1, abar=[1, *pair[::-1]])


def folded(function, a):
    return function(1, [1, a], (1, 1))


def folded_step(function, pair, **more):
    return function(t=2, s=1, abar=[1, *pair[::-1]], shape=(1, 1), **more)


# --- at one time ------------------------------------------------------------------------------------------------------

ROOTS = {  # the coefficients of the data, in the order of the arguments
    "q_sample": (("x0", "eps"), UNIT, lambda a: (sqrt(a), sqrt(1 - a))),
    "v_target": (("x0", "eps"), UNIT, lambda a: (-sqrt(1 - a), sqrt(a))),
    "x0_from_eps": (("xt", "eps"), INSIDE, lambda a: (1 / sqrt(a), -sqrt(1 - a) / sqrt(a))),
    "eps_from_x0": (("xt", "x0"), INSIDE, lambda a: (1 / sqrt(1 - a), -sqrt(a) / sqrt(1 - a))),
    "x0_from_v": (("xt", "v"), UNIT, lambda a: (sqrt(a), -sqrt(1 - a))),
    "eps_from_v": (("xt", "v"), UNIT, lambda a: (sqrt(1 - a), sqrt(a))),
    "score_from_eps": (("eps",), INSIDE, lambda a: (-1 / sqrt(1 - a),)),
    "eps_from_score": (("score",), UNIT, lambda a: (-sqrt(1 - a),)),
}


def conversion(names, a, roots):
    return Case({"a": a} | dict.fromkeys(names, DATA), lambda a, **data: [
        [c * data[n] for c, n in zip(roots(a), names)]], at_time)


TIMES = {f"diffusion.{name}": conversion(*row) for name, row in ROOTS.items()} | {
    f"coefficients.{name}": Case({"a": a}, lambda a, roots=roots: list(roots(a)), folded)
    for name, (_, a, roots) in ROOTS.items() if name != "eps_from_score"
} | {"diffusion.q_sample_backward": Case(
    {"a": UNIT, "dxt": DATA}, lambda a, dxt: [sqrt(a) * dxt, sqrt(1 - a) * dxt], at_time),
    "diffusion.eps_loss": Case({"x": DATA, "y": DATA}, lambda x, y: (x - y) ** 2, lambda f, x, y: f([x], [y])),
    "diffusion.eps_loss_backward": Case({"dloss": DATA, "x": DATA, "y": DATA}, lambda dloss, x, y: [
        2 * dloss * (x - y), -2 * dloss * (x - y)], lambda f, dloss, x, y: f(dloss, [x], [y]))}


# --- steps ------------------------------------------------------------------------------------------------------------


def posterior(pair):
    """The coefficients of x0 and x_t in the mean, and the variance."""
    a, b = pair
    beta = 1 - a / b
    return sqrt(b) * beta / (1 - a), sqrt(a / b) * (1 - b) / (1 - a), (1 - b) / (1 - a) * beta


def ddpm(pair, variance):
    a, b = pair
    of_x0, of_xt, beta_tilde = posterior(pair)
    sigma = sqrt(beta_tilde if variance == "small" else 1 - a / b) if b < 1 else mp.mpf(0)
    return [1 / sqrt(a), -sqrt(1 - a) / sqrt(a), of_x0, of_xt, sigma]


def ddim(pair, eta):
    a, b = pair
    sigma = eta * sqrt((1 - b) / (1 - a)) * sqrt(1 - a / b)
    return [1 / sqrt(a), -sqrt(1 - a) / sqrt(a), 1 / sqrt(1 - a), -sqrt(a / (1 - a)), sqrt(b), sqrt(1 - b - sigma**2),
            sigma]


def dpmpp(triple, first=False):
    """[DPM-Solver++] with lambda as it is defined."""
    u, a, b = triple
    h, half = log_snr(a, b), mp.mpf(0)
    if b < 1 and not first:
        half = h / (2 * log_snr(u, a))
    gain = sqrt(b) * (1 - exp(-h)) if b < 1 else one
    return [1 / sqrt(a), -sqrt(1 - a) / sqrt(a), sqrt((1 - b) / (1 - a)), gain * (1 + half), -gain * half]


def dpmpp_sde(triple, xt, x0_hat, x0_last, z):
    u, a, b = triple
    h = log_snr(a, b)
    half = h / (2 * log_snr(u, a)) if b < 1 else mp.mpf(0)
    gain, left = sqrt(b) * (1 - exp(-2 * h)) if b < 1 else one, exp(-h) if b < 1 else mp.mpf(0)
    return [[sqrt((1 - b) / (1 - a)) * left * xt, gain * (1 + half) * x0_hat, -gain * half * x0_last,
             sqrt((1 - b) * (1 - left**2)) * z]]


def log_snr(a, b):
    return mp.inf if b == 1 else (ln(b / (1 - b)) - ln(a / (1 - a))) / 2


def unipc(triple, xt, x0_hat, x0_last, end):
    """Order 2 of the corrector, a of R a = b by hand."""
    u, a, b = triple
    h, r = log_snr(a, b), -log_snr(u, a) / log_snr(a, b)
    phi = [mp.hyp1f1(1, k + 1, -h) / mp.factorial(k) for k in (1, 2, 3)]
    b1, b2 = phi[1] / phi[0], 2 * phi[2] / phi[0]
    a1, a2 = (b1 - b2) / (1 - r), (b2 - r * b1) / (1 - r)
    gain = sqrt(b) * (1 - exp(-h))
    sizes = abs(gain) * (abs(b1) + abs(b2)) / (1 - r)  # of the sums that make a1 and a2
    return [[sqrt((1 - b) / (1 - a)) * xt, gain * x0_hat, gain * a1 / r * x0_last, -gain * a1 / r * x0_hat,
             gain * a2 * end, -gain * a2 * x0_hat, *rounded(sizes * (abs(x0_last) + abs(x0_hat)) / abs(r)),
             *rounded(sizes * (abs(end) + abs(x0_hat)))]]


def heun(sigma, ratio):
    s = sigma * ratio
    return [s / sigma, (sigma - s) / (2 * sigma) * (1 + (s - sigma) / s), (sigma - s) / (2 * s)]


def ancestral(sigma, ratio, eta, x, denoised, z):
    s = mp.mpf(float(sigma) * float(ratio))
    up = eta * s * sqrt(sigma**2 - s**2) / sigma
    down = sqrt(s**2 - up**2) / sigma
    return [[(1 - down) * denoised, down * x, up * z]]


def lines(pair, predict):
    """a and b of x_s = a x_t + b output by DDIM with eta = 0."""
    a, b = pair
    c0, c1, c2, c3, c4, c5, _ = ddim(pair, 0)
    if predict == "eps":
        return [c4 * c0, c4 * c1 + c5]
    c0, c1 = (0, 1) if predict == "x0" else (sqrt(a), -sqrt(1 - a))
    return [c4 * c0 + c5 * (c2 + c3 * c0), (c4 + c5 * c3) * c1]


VARIANCE, ETA = st.sampled_from(["small", "large"]), UNIT
PREDICT = st.sampled_from(["eps", "x0", "v"])
STEPS = {
    "diffusion.posterior": Case({"pair": PAIRS, "x0": DATA, "xt": DATA}, lambda pair, x0, xt: [
        [posterior(pair)[0] * x0, posterior(pair)[1] * xt], posterior(pair)[2]], of_step),
    "schedules.transition": Case(
        {"pair": PAIRS, "xs": DATA}, lambda pair, xs: [[sqrt(pair[0] / pair[1]) * xs], 1 - pair[0] / pair[1]], of_step),
    "coefficients.posterior": Case({"pair": PAIRS}, lambda pair: list(posterior(pair)), folded_step),
    "diffusion.ddpm_step": Case(
        {"pair": PAIRS, "variance": VARIANCE, "xt": DATA, "eps_hat": DATA, "z": DATA},
        lambda pair, variance, xt, eps_hat, z: [(lambda c: [
            c[2] * c[0] * xt, c[2] * c[1] * eps_hat, c[3] * xt, c[4] * z])(ddpm(pair, variance))], of_step),
    "coefficients.ddpm_step": Case({"pair": PAIRS, "variance": VARIANCE}, ddpm, folded_step),
    "diffusion.ddim_step": Case(
        {"pair": PAIRS, "eta": ETA, "xt": DATA, "eps_hat": DATA, "z": DATA},
        lambda pair, eta, xt, eps_hat, z: [(lambda c: [
            c[4] * c[0] * xt, c[4] * c[1] * eps_hat, c[5] * eps_hat, c[6] * z])(ddim(pair, eta))], of_step),
    "diffusion.ddpm_step_x0": Case(
        {"pair": PAIRS, "variance": VARIANCE, "xt": DATA, "x0_hat": DATA, "z": DATA},
        lambda pair, variance, xt, x0_hat, z: [(lambda c: [c[2] * x0_hat, c[3] * xt, c[4] * z])(ddpm(pair, variance))],
        of_step),
    "diffusion.ddim_step_x0": Case(
        {"pair": PAIRS, "eta": ETA, "xt": DATA, "x0_hat": DATA, "z": DATA},
        lambda pair, eta, xt, x0_hat, z: [(lambda c: [
            c[4] * x0_hat, c[5] * c[2] * xt, c[5] * c[3] * x0_hat, c[6] * z])(ddim(pair, eta))], of_step),
    "diffusion.ddim_inverse_step": Case(
        {"pair": PAIRS, "xt": DATA, "eps_hat": DATA}, lambda pair, xt, eps_hat: [(lambda a, b: [
            sqrt(a / b) * xt, -sqrt(a / b) * sqrt(1 - b) * eps_hat, sqrt(1 - a) * eps_hat])(*pair)],
        lambda f, pair, **data: f(**placed(data), t=1, s=2, abar=[1, *pair[::-1]])),
    "coefficients.ddim_step": Case({"pair": PAIRS, "eta": ETA}, ddim, folded_step),
    "coefficients.ddim_from_x0": Case({"pair": PAIRS, "eta": ETA}, lambda **given: ddim(**given)[2:],
                                      lambda f, pair, eta: f(*pair, eta)),
    "trajectory.ddim_trajectory": Case(
        {"pair": PAIRS, "eta": ETA, "predict": PREDICT}, lambda pair, eta, predict: (
            ddim(pair, eta)[:2] if predict == "eps" else [mp.mpf(0), one] if predict == "x0" else
            [sqrt(pair[0]), -sqrt(1 - pair[0])]) + ddim(pair, eta)[2:],
        lambda f, pair, eta, predict: f([2, 1], eta, [1, *pair[::-1]], predict)),
    "trajectory.ddim_chain": Case(
        {"pair": PAIRS, "predict": PREDICT}, lambda pair, predict: 2 * lines(pair, predict),
        lambda f, pair, predict: f([2, 1], [1, *pair[::-1]], predict)),
    "dpm_solver.log_snr_step": Case({"pair": PAIRS}, lambda pair: log_snr(*pair), lambda f, pair: f(*pair)),
    "dpm_solver.dpmpp_2m_step": Case(
        {"triple": TRIPLES, "xt": DATA, "x0_hat": DATA, "x0_last": DATA},
        lambda triple, xt, x0_hat, x0_last: [(lambda c: [c[2] * xt, c[3] * x0_hat, c[4] * x0_last])(dpmpp(triple))],
        lambda f, triple, **data: f(**placed(data), u=3, t=2, s=1, abar=[1, *triple[::-1]])),
    "dpm_solver.dpmpp_2m_sde_step": Case(
        {"triple": TRIPLES, "xt": DATA, "x0_hat": DATA, "x0_last": DATA, "z": DATA}, dpmpp_sde,
        lambda f, triple, **data: f(**placed(data), u=3, t=2, s=1, abar=[1, *triple[::-1]])),
    "coefficients.dpmpp_2m_step": Case(
        {"triple": TRIPLES, "first": st.booleans()}, dpmpp,
        lambda f, triple, first: f(None if first else 3, 2, 1, [1, *triple[::-1]], (1, 1))),
    "dpm_solver.unipc_step": Case(
        {"triple": TRIPLES.filter(lambda triple: triple[2] < 1), "xt": DATA, "x0_hat": DATA, "x0_last": DATA,
         "end": DATA}, unipc, lambda f, triple, xt, x0_hat, x0_last, end: f(
             [[xt]], [[[x0_hat]], [[x0_last]]], [2, 3], 1, [1, *triple[::-1]], [[end]])),
    "edm.heun_step": Case(
        {"sigma": SIGMA, "ratio": st.floats(0.01, 0.999), "x": DATA, "denoised": DATA, "denoised_next": DATA},
        lambda sigma, ratio, **data: [[c * data[n] for c, n in zip(heun(sigma, ratio),
                                                                   ("x", "denoised", "denoised_next"))]],
        lambda f, sigma, ratio, **data: f(**placed(data), sigma=sigma, sigma_next=sigma * ratio)),
    "edm.ancestral_step": Case(
        {"sigma": SIGMA, "ratio": st.one_of(st.just(0.0), st.floats(0.01, 0.9999)), "x": DATA, "denoised": DATA,
         "z": DATA, "eta": ETA}, ancestral,
        lambda f, sigma, ratio, eta, **data: f(**placed(data), sigma=sigma, sigma_next=sigma * ratio, eta=eta)),
    "coefficients.heun_step": Case(
        {"sigma": SIGMA, "ratio": st.floats(0.01, 0.999)}, heun, lambda f, sigma, ratio: f(sigma, sigma * ratio, (1,))),
    "coefficients.flow_step": Case(
        {"t": UNIT, "share": st.floats(0, 0.99)}, lambda t, share: share - t if share < t else mp.mpf(-1),
        lambda f, t, share: f(t, share, (1,)) if share < t else f(1.0, 0.0, (1,))),
}
STEPS["edm.heun_step"], STEPS["coefficients.heun_step"] = (  # sigma_next is a float64, and so is what is exact
    Case(case.draws, lambda sigma, ratio, exact=case.exact, **data: exact(
        sigma=sigma, ratio=mp.mpf(float(sigma) * float(ratio)) / sigma, **data), case.call)
    for case in (STEPS["edm.heun_step"], STEPS["coefficients.heun_step"]))
PROCESS_CASES = TIMES | STEPS
