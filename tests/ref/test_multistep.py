"""DPM-Solver++ and UniPC by the papers' equations in another form."""
import math
from itertools import pairwise

import numpy as np
import pytest

from ref import dpm_solver, samplers
from tests import assert_close
from tests.ref import ABAR, BY_TIME
from tests.ref.test_samplers import TIMES, X, model


def alpha_sigma_lambda(t):
    alpha, sigma = math.sqrt(ABAR[t]), math.sqrt(1 - ABAR[t])
    return alpha, sigma, math.log(alpha / sigma) if sigma else math.inf


def x0_by_hand(x, t):
    alpha, sigma, _ = alpha_sigma_lambda(t)
    return (x - sigma * math.tanh(0.7 * x - 0.1) * (1 + 0.03 * t)) / alpha


def towards(x, t, s, x0, slope=0.0):
    """Both ends of a step as [DPM-Solver++] section 4.1 has them: with x0 + slope (lambda - lambda_t) / 2 a constant of
    the step."""
    (_, sigma_t, lambda_t), (alpha_s, sigma_s, lambda_s) = alpha_sigma_lambda(t), alpha_sigma_lambda(s)
    h = lambda_s - lambda_t
    return sigma_s / sigma_t * x + alpha_s * (1 - math.exp(-h)) * (x0 + (h / 2 * slope if slope else 0.0))


def dpmpp_2m_by_hand(x, times):
    past = None
    for i, (t, s) in enumerate(pairwise(times)):
        x0, lambda_t = x0_by_hand(x, t), alpha_sigma_lambda(t)[2]
        inner = 0 < i < len(times) - 2
        x = towards(x, t, s, x0, (x0 - past[0]) / (lambda_t - past[1]) if inner else 0.0)
        past = x0, lambda_t
    return x


def exactly(x, t, s, knots):
    """x_s by the exact integral of the polynomial through the knots (lambda - lambda_t, x0_hat):  with I_k the integral
    of e^-(h - u) u^k from 0 to h, I_0 = 1 - e^-h and I_k = h^k - k I_{k-1}."""
    (_, sigma_t, lambda_t), (alpha_s, sigma_s, lambda_s) = alpha_sigma_lambda(t), alpha_sigma_lambda(s)
    h = lambda_s - lambda_t
    polynomial = np.linalg.solve([[u**k for k in range(len(knots))] for u, _ in knots], [x0 for _, x0 in knots])
    I, total = 1 - math.exp(-h), 0.0
    for k, c in enumerate(polynomial):
        I = h**k - k * I if k else I
        total += c * I
    return sigma_s / sigma_t * x + alpha_s * total


def unipc_by_hand(x, times, order):
    """UniP of order 2 takes 1/2 for its one coefficient, as UniC of order 1 does; all others integrate a polynomial
    exactly."""
    seen, before = [], None
    for i, (t, s) in enumerate(pairwise(times)):
        here, now = alpha_sigma_lambda(t)[2], x0_by_hand(x, t)
        if seen:
            start, (last, x0) = times[i - 1], seen[-1]
            if used == 1:
                x = towards(before, start, t, (x0 + now) / 2)
            else:
                x = exactly(before, start, t, [(l - last, p) for l, p in [*seen[-used:], (here, now)]])
        before, seen = x, [*seen, (here, now)]
        used = min(order, i + 1, len(times) - 1 - i)
        if used == 1:
            x = towards(x, t, s, now)
        elif used == 2:
            x = towards(x, t, s, now, (now - seen[-2][1]) / (here - seen[-2][0]))
        else:
            x = exactly(x, t, s, [(l - here, p) for l, p in seen[-used:]])
    return x


@pytest.mark.parametrize("n", range(1, 6))
def test_dpmpp_2m_by_hand(n):
    for times in (TIMES[-n - 1:], TIMES[:n + 1]):  # ends at 0, and at 15, 11, 6, 2
        expected = np.array([[dpmpp_2m_by_hand(x, times) for x in row] for row in X.tolist()])
        assert_close(samplers.dpmpp_2m(model, X, times, ABAR), expected, scale=1.0)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("n", range(1, 6))
def test_unipc_by_hand(n, order):
    for times in (TIMES[-n - 1:], TIMES[:n + 1]):
        expected = np.array([[unipc_by_hand(x, times, order) for x in row] for row in X.tolist()])
        assert_close(samplers.unipc(model, X, times, ABAR, order), expected, scale=1.0)


def test_one_step_of_dpmpp_2m_by_hand():
    """alpha and sigma are 3/5, 4/5 at u, 4/5, 3/5 at t and 12/13, 5/13 at s; so e^lambda is 3/4, 4/3, 12/5, and the
    step's e^-h 5/9."""
    abar = np.array([1, 144 / 169, 16 / 25, 9 / 25])
    r = math.log(16 / 9) / math.log(9 / 5)
    D = (1 + 1 / (2 * r)) * 2.0 - 1 / (2 * r) * 0.5
    one = np.ones((1, 1))
    assert_close(dpm_solver.dpmpp_2m_step(3 * one, 2 * one, 0.5 * one, 3, 2, 1, abar),
                 (25 / 39 * 3 + 12 / 13 * 4 / 9 * D) * one)
    assert_close(dpm_solver.dpmpp_2m_step(3 * one, 2 * one, None, None, 2, 1, abar),
                 (25 / 39 * 3 + 12 / 13 * 4 / 9 * 2) * one)
    assert_close(dpm_solver.dpmpp_2m_step(3 * one, 2 * one, 0.5 * one, 3, 2, 0, abar), 2 * one)


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc 1", "unipc 2", "unipc 3"])
def test_first_order_is_ddim(name):
    """So one step is one of DDIM; and of two, each of the first order, DPM-Solver++ has made DDIM's."""
    assert_close(BY_TIME[name](model, X, [9, 4], None, ABAR), samplers.ddim(model, X, [9, 4], None, 0, ABAR), scale=1.0)
    if name == "dpmpp_2m":
        assert_close(BY_TIME[name](model, X, [9, 4, 0], None, ABAR), samplers.ddim(model, X, [9, 4, 0], None, 0, ABAR),
                     scale=1.0)
    three = BY_TIME[name](model, X, [9, 4, 2, 1], None, ABAR)
    assert np.abs(three - samplers.ddim(model, X, [9, 4, 2, 1], None, 0, ABAR)).max() > 1e-3
