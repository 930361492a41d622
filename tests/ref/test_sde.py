"""SDEs in continuous time: by hand, against the discrete chain, per example, a likelihood without a hand-written
derivative, and what is refused. That they carry the variance and find the density of Gaussian data is in
test_laws_likelihood.py."""
import numpy as np

from ref import schedules, sde
from tests import assert_close

X = np.array([[1.0, -2.0], [0.5, 3.0]])
T = np.array([0.25, 1.0])


def test_vp_by_hand():
    """beta from 1 to 5: beta(1/4) = 2, its integral from 0 to 1/4 is 0.375; beta(1) = 5, the integral 3."""
    assert_close(sde.vp_drift(X, T, 1.0, 5.0), np.array([[-1.0, 2.0], [-1.25, -7.5]]))
    assert_close(sde.vp_diffusion(T, 1.0, 5.0), np.sqrt([2.0, 5.0]))
    mean, std = sde.vp_marginal(T, 1.0, 5.0)
    assert_close(mean, np.exp([-0.1875, -1.5]))
    assert_close(std, np.sqrt(1 - np.exp([-0.375, -3.0])))
    assert_close(sde.vp_diffusion(np.array([0.0, 1.0])), np.sqrt([0.1, 20.0]))  # the paper's rates are the defaults
    assert_close(sde.vp_marginal(1.0)[0], np.float64(np.exp(-5.025)))


def test_ve_by_hand():
    """sigma from 0.5 to 8 is 2^(4 t - 1): 1 at t = 1/4."""
    np.testing.assert_array_equal(sde.ve_drift(X, T), 0)
    assert_close(sde.ve_diffusion(T, 0.5, 8.0), np.array([1.0, 8.0]) * np.sqrt(2 * np.log(16)))
    mean, std = sde.ve_marginal(T, 0.5, 8.0)
    assert np.all(mean == 1)
    assert_close(std, np.sqrt([1 - 0.25, 64 - 0.25]))
    assert_close(sde.ve_diffusion(np.array([0.0, 1.0])), np.array([0.01, 50]) * np.sqrt(2 * np.log(5000)))
    assert_close(sde.ve_marginal(1.0)[1], np.float64(np.sqrt(2500 - 1e-4)))


def test_the_ways_back_by_hand():
    f, g, score = X, np.array([2.0, 3.0]), np.array([[0.5, 1.0], [-1.0, 0.0]])
    assert_close(sde.reverse_drift(f, g, score), np.array([[-1.0, -6.0], [9.5, 3.0]]))
    assert_close(sde.probability_flow_drift(f, g, score), np.array([[0.0, -4.0], [5.0, 3.0]]))


def test_vp_is_the_limit_of_the_discrete_chain():
    """[SDE] appendix B: beta_i = beta(i / N) / N. mean^2 goes to abar as N grows, an order a power of N; at N = 1000 it
    is the linear schedule of [DDPM], 1e-4 to 0.02."""
    assert_close(schedules.linear_betas() * 1000, sde.vp_diffusion(np.linspace(0, 1, 1000)) ** 2)
    times, off = np.array([0.25, 0.5, 1.0]), []
    for N in (1000, 2000, 4000):
        abar = schedules.alpha_bar(sde.vp_diffusion(np.arange(1, N + 1) / N) ** 2 / N)
        off.append(np.abs(np.log(abar[(times * N).astype(int)]) - 2 * np.log(sde.vp_marginal(times)[0])))
    assert np.all(np.abs(np.diff(np.log2(off), axis=0) + 1) < 0.05) and np.all(off[0] < 0.1)


def swirl(x, t):
    """A drift that is no gradient and not linear, with its Jacobian."""
    f = np.stack([np.sin(x[:, 1]) - t * x[:, 0] ** 3, np.cos(x[:, 0]) + x[:, 1]], axis=1)
    zero = 0 * x[:, 0]
    J = np.stack([np.stack([-3 * t * x[:, 0] ** 2, np.cos(x[:, 1])], axis=1),
                  np.stack([-np.sin(x[:, 0]), 1 + zero], axis=1)], axis=1)
    return f, J


def jvp(x, t, probe):
    f, J = swirl(x, t)
    return f, np.einsum("bij,bj->bi", J, probe)


def vjp(x, t, probe):
    f, J = swirl(x, t)
    return f, np.einsum("bij,bi->bj", J, probe)


BASES = np.sqrt(2) * np.tile(np.eye(2), (2, 1))


def test_the_density_is_that_of_the_map():
    """exp(log p) = N(x_1) |det dx_1 / dx_0| for the map of the same solver, the determinant by five points."""
    times, h = np.linspace(0.0, 0.6, 201), 1e-3
    twice = np.repeat(X / 3, 2, axis=0)
    got = sde.log_likelihood(jvp, twice, times, BASES, 1.5).reshape(2, 2).mean(axis=1)

    def end(x0):
        """Where the classical Runge-Kutta steps take x0."""
        for t, u in zip(times, times[1:]):
            k1 = swirl(x0, t)[0]
            k2 = swirl(x0 + (u - t) / 2 * k1, (t + u) / 2)[0]
            k3 = swirl(x0 + (u - t) / 2 * k2, (t + u) / 2)[0]
            k4 = swirl(x0 + (u - t) * k3, u)[0]
            x0 = x0 + (u - t) / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x0

    columns = [(8 * (end(X / 3 + e) - end(X / 3 - e)) - end(X / 3 + 2 * e) + end(X / 3 - 2 * e)) / (12 * h)
               for e in h * np.eye(2)]
    x1 = end(X / 3)
    expected = np.sum(-0.5 * (x1 / 1.5) ** 2 - 0.5 * np.log(2 * np.pi * 1.5**2),
                      axis=1) + np.linalg.slogdet(np.stack(columns, axis=2))[1]
    assert_close(got, expected, rel=1e-8)


def test_jvp_and_vjp_serve_alike_and_so_does_a_central_difference():
    times, twice = np.linspace(0.0, 0.6, 41), np.repeat(X / 3, 2, axis=0)
    exact = sde.log_likelihood(jvp, twice, times, BASES)
    assert_close(sde.log_likelihood(vjp, twice, times, BASES), exact, rel=1e-13)
    by_difference = sde.log_likelihood(lambda x, t, probe: sde.drift_and_jvp(lambda x, t: swirl(x, t)[0], x, t, probe),
                                       twice, times, BASES)
    assert_close(by_difference, exact, rel=1e-7)
    f, J_probe = sde.drift_and_jvp(lambda x, t: swirl(x, t)[0], X, 0.5, BASES[:2], h=1e-3)
    assert_close(f, jvp(X, 0.5, BASES[:2])[0])
    assert_close(J_probe, jvp(X, 0.5, BASES[:2])[1], rel=1e-5, scale=20.0)


def test_bits_per_dimension_by_hand():
    """ln p = -3 ln 2 in 2 dimensions is 1.5 bits each; bins of 1/4 are 2 bits more."""
    assert_close(sde.bits_per_dimension(np.array([-3, 6]) * np.log(2), 2), np.array([1.5, -3.0]))
    assert_close(sde.bits_per_dimension(np.array([-3, 6]) * np.log(2), 2, 0.25), np.array([3.5, -1.0]))
    uniform = np.full(3, -10 * np.log(2 + 2 / 255))  # over [-1 - 1/255, 1 + 1/255]: 256 levels of 2/255, 8 bits
    assert_close(sde.bits_per_dimension(uniform, 10, 2 / 255), np.full(3, 8.0))
