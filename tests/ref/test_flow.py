"""Flow matching: by hand, conversions as inverses, times, straightness, and what is refused."""
import numpy as np
from hypothesis import given, strategies as st

from ref import diffusion, flow
from tests import assert_close

UNIT = st.floats(0, 1)
SEEDS = st.integers(0, 2**32 - 1)
X0, EPS = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([[3.0, -2.0], [-1.0, 1.0]])
T = np.array([0.25, 0.5])
XT, V = np.array([[1.5, 1.0], [1.0, 0.0]]), np.array([[2.0, -4.0], [-4.0, 2.0]])


def test_by_hand():
    assert_close(flow.interpolate(X0, EPS, T), XT)
    assert_close(flow.velocity_target(X0, EPS), V)
    assert_close(flow.x0_from_velocity(XT, V, T), X0)
    assert_close(flow.eps_from_velocity(XT, V, T), EPS)
    assert_close(flow.velocity_from_x0(XT, X0, T), V)
    assert_close(flow.velocity_from_eps(XT, EPS, T), V)
    assert_close(flow.interpolate(X0, EPS, 0.25), np.array([[1.5, 1.0], [2.0, -0.5]]))
    np.testing.assert_array_equal(flow.interpolate(X0, EPS, 0), X0)  # t = 0 is data
    np.testing.assert_array_equal(flow.interpolate(X0, EPS, 1), EPS)  # t = 1 is noise


def test_the_velocity_is_the_slope_of_the_path():
    slope = (flow.interpolate(X0, EPS, 0.75) - flow.interpolate(X0, EPS, 0.25)) / 0.5
    assert_close(slope, flow.velocity_target(X0, EPS))


def test_flow_loss_by_hand():
    """v = 0 errs by V: (4 + 16 + 16 + 4) / 4."""
    assert_close(flow.flow_loss(np.zeros((2, 2)), X0, EPS), np.float64(10))
    assert flow.flow_loss(V, X0, EPS) == 0


@given(seed=SEEDS, one_t=st.booleans())
def test_conversions_are_inverses(seed, one_t):
    """B equals the last axis, so that a t along the wrong one would not raise. Division by t and by 1 - t magnifies
    rounding."""
    rng = np.random.default_rng(seed)
    x0, eps = rng.standard_normal((2, 4, 3, 4))
    t = rng.uniform(0.01, 0.99) if one_t else rng.uniform(0.01, 0.99, 4)
    xt, v = flow.interpolate(x0, eps, t), flow.velocity_target(x0, eps)
    for ours, truth in [(flow.x0_from_velocity(xt, v, t), x0), (flow.eps_from_velocity(xt, v, t), eps),
                        (flow.velocity_from_x0(xt, x0, t), v), (flow.velocity_from_eps(xt, eps, t), v),
                        (flow.flow_from_vp(flow.vp_from_flow(xt, t), t), xt)]:
        assert np.abs(ours - truth).max() < 1e-12
    assert np.abs(flow.x0_from_velocity(xt, flow.velocity_from_x0(xt, x0, t), t) - x0).max() < 1e-12
    assert np.abs(flow.eps_from_velocity(xt, flow.velocity_from_eps(xt, eps, t), t) - eps).max() < 1e-12
    # the same x0 and eps in the diffusion whose signal-to-noise ratio is the same; abar as a table of one t for each
    # example
    abar = np.append(1.0, flow.abar_from_flow_time(np.broadcast_to(t, 4)))
    assert np.abs(flow.vp_from_flow(xt, t) - diffusion.q_sample(x0, np.arange(1, 5), eps, abar)).max() < 1e-12


def test_flow_and_abar_by_hand():
    """t = 3/7: data 4/7, noise 3/7, so the roots of abar and 1 - abar are 4/5 and 3/5, and the state is scaled by
    7/5."""
    assert_close(flow.abar_from_flow_time([3 / 7, 0.5, 4 / 7]), np.array([0.64, 0.5, 0.36]))
    assert_close(flow.flow_time_from_abar([0.64, 0.5, 0.36]), np.array([3 / 7, 0.5, 4 / 7]))
    assert flow.abar_from_flow_time([0, 1]).tolist() == [1, 0] and flow.flow_time_from_abar([1, 0]).tolist() == [0, 1]
    assert_close(flow.vp_from_flow(np.array([[5.0], [10.0]]), np.array([3 / 7, 4 / 7])), np.array([[7.0], [14.0]]))
    assert_close(flow.flow_from_vp(np.array([[7.0], [14.0]]), 3 / 7), np.array([[5.0], [10.0]]))


@given(t=UNIT)
def test_flow_time_and_abar_are_inverses(t):
    assert abs(flow.flow_time_from_abar(flow.abar_from_flow_time(t)) - t) < 1e-7  # a t below 1e-8 leaves abar at 1
    assert abs(flow.abar_from_flow_time(flow.flow_time_from_abar(t)) - t) < 1e-14
    if 0.01 < t:
        assert abs(flow.flow_time_from_abar(flow.abar_from_flow_time(t)) - t) < 1e-12
    if 0 < t < 1:
        abar = flow.abar_from_flow_time(max(t, 1e-6))
        assert abs((1 - abar) / abar * (1 - max(t, 1e-6)) ** 2 / max(t, 1e-6) ** 2 - 1) < 1e-3


def test_shift_times_by_hand():
    assert_close(flow.shift_times([0, 0.25, 0.5, 1], 3.0), np.array([0, 0.5, 0.75, 1]))
    np.testing.assert_array_equal(flow.shift_times([0, 0.3, 1], 1), [0, 0.3, 1])


@given(t=UNIT, a=st.floats(0.1, 10), b=st.floats(0.1, 10))
def test_shifts_compose_and_one_over_shift_undoes_it(t, a, b):
    """Shifting by a is multiplying the odds t / (1 - t) by a."""
    assert abs(flow.shift_times(flow.shift_times(t, a), 1 / a) - t) < 1e-14
    assert abs(flow.shift_times(flow.shift_times(t, a), b) - flow.shift_times(t, a * b)) < 1e-14
    assert 0 <= flow.shift_times(t, a) <= 1 and flow.shift_times(1.0, a) == 1 and flow.shift_times(t, 1) == t


@given(t=UNIT)
def test_reverse_time_is_its_own_inverse(t):
    assert flow.reverse_time(t) == 1 - t and abs(flow.reverse_time(flow.reverse_time(t)) - t) < 1e-16
    assert np.abs(flow.interpolate(X0, EPS, flow.reverse_time(t)) - flow.interpolate(EPS, X0, t)).max() < 1e-14


def test_logit_normal_times_by_hand():
    """The odds are e^(mean + std z); and no z is too large for it."""
    assert_close(flow.logit_normal_times([0.0, np.log(3), -np.log(3)]), np.array([0.5, 0.75, 0.25]))
    assert_close(flow.logit_normal_times(2.0, mean=np.log(3) - 1, std=0.5), np.array(0.75))
    assert flow.logit_normal_times([-1e4, 1e4]).tolist() == [0, 1]


@given(z=st.floats(-8, 8))
def test_logit_normal_times_invert_and_mirror(z):
    t = flow.logit_normal_times(z)
    assert abs(np.log(t / (1 - t)) - z) < 1e-11
    assert abs(t + flow.logit_normal_times(-z) - 1) < 1e-15


def test_straightness_by_hand():
    """One of two examples goes 0, 1, 4 in its first element: 4 - 2 * 1 and 4 - 2 * 3 are +-2, so (4 + 4) / (2 steps * 2
    examples)."""
    xs = np.zeros((3, 2, 2))
    xs[:, 0, 0] = 0, 1, 4
    xs[:, 1, 1] = 5, 3, 1
    assert_close(flow.straightness(xs), np.float64(2))
    assert_close(flow.straightness(xs[::-1]), np.float64(2))
    assert flow.straightness(xs[:, 1:]) == 0 and flow.straightness(xs[[0, 2]]) == 0


@given(seed=SEEDS, n=st.integers(1, 6))
def test_straight_lines_are_straight_and_quarter_circles_are_not(seed, n):
    x0, eps = np.random.default_rng(seed).standard_normal((2, 3, 2))
    times = np.linspace(0, 1, n + 1)
    assert flow.straightness([flow.interpolate(x0, eps, t) for t in times]) < 1e-25
    bent = [np.cos(t * np.pi / 2) * x0 + np.sin(t * np.pi / 2) * eps for t in times]
    assert n == 1 or flow.straightness(bent) > 1e-3
