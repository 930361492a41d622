"""Every scalar function and every step coefficient of `ref`, and every coefficient that kernels fold, against 60-digit
arithmetic: at most 8 ulps off, wherever hypothesis looks."""
import inspect
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import coefficients, trajectory
from ref.numerics import exp_above_tangent, expm1_weighted, two_sum
from tests.ref import EQUATIONS
from tests.ref.exact import ULPS, ulps
from tests.ref.exact_levels import LEVEL_CASES
from tests.ref.exact_models import MODEL_CASES
from tests.ref.exact_nets import NET_CASES
from tests.ref.exact_process import PROCESS_CASES

CASES = PROCESS_CASES | LEVEL_CASES | MODEL_CASES | NET_CASES
FOLDED = {"coefficients": coefficients, "trajectory": trajectory}
NOT_SCALAR = {  # the rest of `ref`, and why
    r"nets\.|layers\.(linear|gate|embedding|geglu|feed_forward|patchify|unpatchify|upsample|rope|sincos|text_end"
    r"|\w*conv|\w*norm|\w*attention|\w*head|resblock)": "sums and picks over whole layers",
    r"samplers\.|sde\.(drift_and_jvp|log_likelihood)|consistency\.(distil|training_step)": "of a model, a callable",
    r"scene\.": "sums over rays, pictures and corners; closed forms in tests/laws/test_scene.py",
    r"optim\.(muon_step|orthogonalize)": "sums over matrices; their singular values are exact in test_optim.py",
    r"audio\.(?!hz|mel_to|mulaw_(compress|expand))": "sums over frames, bands and stages, and codes",
    r"fused\.|objectives\.vlb_terms|pipelines\.": "compositions of the others",
    r"numerics\.blockwise": "of a function",
    r"philox\.|schedules\.(spaced_times|time_from|index_from)|consistency\.discretization": "whole numbers, and bits",
}
CHECKS = "at", "step", "examples", "guided", "numbers", "noise_key"  # of coefficients: no numbers of their own


def function_of(name):
    module, _, last = name.partition(".")
    return getattr(FOLDED[module], last) if module in FOLDED else EQUATIONS[f"ref.{name}"]


@pytest.mark.parametrize("name", CASES)
def test_within_8_ulps(name):
    case, function = CASES[name], function_of(name)

    @settings(max_examples=100)
    @given(arguments=st.fixed_dictionaries(case.draws))
    def holds(arguments):
        assert ulps(case, function, arguments) <= ULPS

    holds()


def test_the_table_is_whole():
    left = {name.removeprefix("ref.") for name in EQUATIONS} - set(CASES)
    assert {name for name in left if not any(re.match(pattern, name) for pattern in NOT_SCALAR)} == set()
    assert all(any(re.match(pattern, name) for name in left) for pattern in NOT_SCALAR)
    folded = {f"{module}.{name}" for module, where in FOLDED.items() for name, f in inspect.getmembers(
        where, inspect.isfunction) if f.__module__ == where.__name__ and name[0] != "_" and name not in CHECKS}
    assert folded - set(CASES) == set()


def beta_as_one_less_a_ratio(t, s, abar, shape):
    alpha, scale = abar[t] / abar[s], (1 - abar[s]) / (1 - abar[t])
    return np.sqrt(abar[s]) * (1 - alpha) / (1 - abar[t]), np.sqrt(alpha) * scale, scale * (1 - alpha)


def direction_as_a_difference(t, s, eta, abar, shape):
    signal, noise = math.sqrt(abar[t]), math.sqrt(1 - abar[t])
    sigma = eta * math.sqrt((1 - abar[s]) / (1 - abar[t])) * math.sqrt(1 - abar[t] / abar[s])
    left = math.sqrt(max(1 - abar[s] - sigma**2, 0))
    return 1 / signal, -noise / signal, 1 / noise, -signal / noise, math.sqrt(abar[s]), left, sigma


def plain_kl(mean1, logvar1, mean2, logvar2):
    mean1, logvar1, mean2, logvar2 = map(np.float64, (mean1, logvar1, mean2, logvar2))
    d = logvar1 - logvar2
    return 0.5 * (np.expm1(d) - d + (mean1 - mean2) ** 2 * np.exp(-logvar2))


def kl_of_two_infinities(mean1, logvar1, mean2, logvar2):
    d, rest = two_sum(np.array(logvar1), -np.array(logvar2))
    return (exp_above_tangent(d) + expm1_weighted(rest, d)) / 2


def plain_shannon(p, q):
    p, q = np.array(p), np.array(q)
    return np.sum(p * np.log1p((p - q) / (p + q)) + q * np.log1p((q - p) / (p + q))) / 2


def plain_scalings(sigma, sigma_data):
    total = np.float64(sigma) ** 2 + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data / np.sqrt(total), 1 / np.sqrt(total), np.log(sigma) / 4


def plain_adam(step, lr, beta1, beta2, eps, weight_decay):
    rate, unbias = lr / (1 - beta1**step), (1 - beta2**step) ** -0.5
    return beta1, 1 - beta1, beta2, 1 - beta2, rate, unbias, eps, lr * weight_decay


def plain_sines(t, width):
    angle = np.array(t)[:, None] * 10000.0 ** (-np.arange(width // 2) / (width // 2))
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def heun_by_slopes(x, denoised, denoised_next, sigma, sigma_next):
    x, denoised, denoised_next = x[0][0], denoised[0][0], denoised_next[0][0]
    d_cur = (x - denoised) / sigma
    d_prime = (x + (sigma_next - sigma) * d_cur - denoised_next) / sigma_next
    return x + (sigma_next - sigma) * (d_cur + d_prime) / 2


REAL = (0.9997800092, 0.9999)  # abar at t = 2 and s = 1 of the linear schedule
NEAR = [0.3, 0.3, 0.4, 0.3 + 1e-9, 0.3 - 1e-9, 0.4]
LOSING = [  # formulas that lose digits, and where
    ("coefficients.posterior", beta_as_one_less_a_ratio, {"pair": REAL}),
    ("coefficients.ddim_step", direction_as_a_difference, {"pair": (1e-9, 0.9), "eta": 1.0}),
    ("schedules.alpha_bar", lambda betas: np.append(1, np.cumprod(1 - np.array(betas))), {"betas": [0.013] * 900}),
    ("schedules.karras_sigmas", lambda steps, low, high, rho: np.append(
        np.linspace(high ** (1 / rho), low ** (1 / rho), steps) ** rho, 0),
     {"steps": 19, "low": 0.002, "ratio": 4e4, "rho": 7.0}),
    ("edm.scalings", plain_scalings, {"sigma": math.inf, "sigma_data": 0.5}),
    ("edm.scalings", plain_scalings, {"sigma": 1e160, "sigma_data": 0.5}),
    ("edm.heun_step", heun_by_slopes, {"sigma": 80.0, "ratio": 0.02, "x": 1.0, "denoised": 0.0, "denoised_next": 0.0}),
    ("objectives.normal_kl", plain_kl, {"mean1": 0.0, "logvar1": 1e-5, "mean2": 0.0, "logvar2": 0.0}),
    ("objectives.normal_kl", plain_kl, {"mean1": 0.0, "logvar1": -720.0, "mean2": 0.0, "logvar2": -720.0}),
    ("objectives.normal_kl", kl_of_two_infinities, {"mean1": 0.0, "logvar1": 720.0, "mean2": 0.0, "logvar2": -39.7}),
    ("divergence.jensen_shannon", plain_shannon, {"weights": NEAR}),
    ("consistency.pseudo_huber_loss", lambda a, b, c: np.sqrt(np.sum((np.array(a) - b) ** 2) + c**2) - c,
     {"a": [1e200, 0.0], "b": [0.0, 0.0], "c": 0.03}),
    ("layers.silu_backward", lambda dy, x: dy * (s := 1 / (1 + np.exp(-x))) * (1 + x * (1 - s)),
     {"dy": 1.2956146727815971, "x": 21.263714882683303}),
    ("layers.silu", lambda x: x / (1 + np.exp(-x)), {"x": -726.3}),
    ("divergence.optimal_discriminator", lambda p_data, p_g: 1 / (1 + np.divide(p_g, p_data)),
     {"p_data": 1e-162, "p_g": 2e146}),
    ("layers.cross_entropy", lambda logits, label: np.log(np.sum(np.exp(logits - logits.max()))) + 0.0,
     {"logits": [0.0, -30.0, -31.0], "label": 0}),
    ("layers.time_embedding", plain_sines, {"t": 999.0, "width": 32}),
    ("coefficients.adam_step", plain_adam, {"step": 2, "rates": (1e-3, 0.9, 0.999, 1e-8, 0.01)}),
    ("optim.clip_by_global_norm", lambda g, limit: (
        [x * limit / np.sqrt(sum(np.sum(y * y) for y in g)) for x in g], np.sqrt(sum(np.sum(y * y) for y in g))),
     {"g": [3e200, 1.0, 4e200], "max_norm": 1.0}),
]


@pytest.mark.parametrize("name, losing, arguments", LOSING)
def test_a_formula_that_loses_digits_is_found(name, losing, arguments):
    assert ulps(CASES[name], losing, arguments) > ULPS
    assert ulps(CASES[name], function_of(name), arguments) <= ULPS
