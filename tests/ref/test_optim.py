"""Adam, AdamW, EMA and clipping: two steps worked by hand, properties, dtypes, and what is refused."""
import numpy as np
import pytest
from hypothesis import given, strategies as st

from ref import optim
from tests import assert_close

SETTINGS = dict(lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0)
ARRAYS = st.tuples(st.lists(st.integers(1, 4), max_size=3), st.integers(0, 2**32 - 1))


def arrays(case, how_many):
    return np.random.default_rng(case[1]).standard_normal((how_many, *case[0]))


def test_two_steps_by_hand():
    """p = 1, g = 0.5 then -0.25, beta1 = 0.5, beta2 = 0.75, lr = 0.1, eps = 0.5, decay 0.2, in fractions:

        m1 = 1/4, v1 = 1/16;  mhat1 = 1/2, vhat1 = 1/4;     p1 = 1 - 0.1 ((1/2) / (1/2 + 1/2) + 0.2) = 0.93
        m2 = 0,   v2 = 3/64 + 1/64 = 1/16;  mhat2 = 0;      p2 = 0.93 - 0.1 (0.2 * 0.93) = 0.9114
    """
    p, m, v = np.ones(1), np.zeros(1), np.zeros(1)
    p3 = 0.9114 - 0.1 * ((1 / 7) / ((4 / 37) ** 0.5 + 0.5) + 0.2 * 0.9114)  # m3 = 1/8, v3 = 3/64 + 1/64: 1/7 and 4/37
    for step, (g, *expected) in enumerate([(0.5, 0.93, 0.25, 0.0625), (-0.25, 0.9114, 0.0, 0.0625),
                                           (0.25, p3, 0.125, 0.0625)], 1):
        p, m, v = optim.adam_step(p, np.array([g]), m, v, step, 0.1, 0.5, 0.75, 0.5, 0.2)
        assert_close(np.concatenate([p, m, v]), np.array(expected))


@given(case=ARRAYS, size=st.sampled_from([1e-6, 1.0, 1e6]))
def test_the_first_step_is_lr_times_the_sign_of_any_gradient(case, size):
    """mhat = g and vhat = g^2 at step 1, so the move is lr g / (|g| + eps), whatever the betas."""
    p, g = arrays(case, 2)
    g = size * g
    zero = np.zeros_like(p)
    for beta1, beta2 in ((0.9, 0.999), (0.0, 0.5)):
        moved = optim.adam_step(p, g, zero, zero, 1, 0.1, beta1, beta2, 1e-8, 0.0)[0] - p
        assert np.all(np.abs(moved + 0.1 * g / (np.abs(g) + 1e-8)) <= 1e-12 + 1e-15 * np.abs(p))


@given(case=ARRAYS, steps=st.integers(1, 30))
def test_a_constant_gradient_moves_lr_every_step(case, steps):
    """Then mhat = g and vhat = g^2 at every step: the bias corrections undo the zeros that m and v began with."""
    p0, g = arrays(case, 2)
    p, m, v = p0, np.zeros_like(p0), np.zeros_like(p0)
    for step in range(1, steps + 1):
        p, m, v = optim.adam_step(p, g, m, v, step, 0.01, 0.9, 0.99, 0.0, 0.0)
        assert np.all(np.abs(m / (1 - 0.9**step) - g) <= 1e-13 * np.abs(g))
        assert np.all(np.abs(v / (1 - 0.99**step) - g**2) <= 1e-12 * g**2)
    assert np.all(np.abs(p0 - p - 0.01 * steps * np.sign(g)) <= 1e-12 * (1 + np.abs(p0)))


@given(case=ARRAYS, decay=st.floats(0, 1))
def test_weight_decay_is_decoupled(case, decay):
    """It shrinks p by lr decay, on top of Adam's own move, and neither m nor v sees it."""
    p, g, m, v = arrays(case, 4)
    v = v**2
    plain = optim.adam_step(p, g, m, v, 7, **SETTINGS)
    decayed = optim.adam_step(p, g, m, v, 7, **{**SETTINGS, "weight_decay": decay})
    np.testing.assert_array_equal(decayed[1], plain[1])
    np.testing.assert_array_equal(decayed[2], plain[2])
    assert np.all(np.abs(plain[0] - decayed[0] - 0.1 * decay * p) <= 1e-14 * (np.abs(p) + np.abs(plain[0])))


def test_a_zero_gradient_at_rest_moves_nothing():
    p, zero = np.array([1.0, -2.0]), np.zeros(2)
    for got, expected in zip(optim.adam_step(p, zero, zero, zero, 1, **SETTINGS), (p, zero, zero)):
        np.testing.assert_array_equal(got, expected)


def test_adam_walks_into_a_bowl():
    """200 steps on f(p) = sum(c (p - 3)^2) / 2, with c from 0.01 to 100: the scale of the gradient does not matter."""
    c = np.array([0.01, 1.0, 100.0])
    p, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    for step in range(1, 201):
        p, m, v = optim.adam_step(p, c * (p - 3), m, v, step, **SETTINGS)
    assert np.all(np.abs(p - 3) < 0.05) and np.ptp(p) < 1e-4


def test_ema_by_hand():
    assert_close(optim.ema_step(np.array([1.0, -4.0]), np.array([3.0, 8.0]), 0.75), np.array([1.5, -1.0]))


@given(case=ARRAYS, decay=st.floats(0, 1), steps=st.integers(1, 20))
def test_ema_of_a_constant_approaches_it_by_decay_every_step(case, decay, steps):
    avg, p = arrays(case, 2)
    now = avg
    for _ in range(steps):
        now = optim.ema_step(now, p, decay)
    assert np.all(np.abs(now - (p + decay**steps * (avg - p))) <= 1e-14 * steps * (np.abs(p) + np.abs(avg)))


def test_ema_at_both_ends():
    avg, p = np.array([1.0, 2.0]), np.array([-5.0, 7.0])
    np.testing.assert_array_equal(optim.ema_step(avg, p, 1), avg)
    np.testing.assert_array_equal(optim.ema_step(avg, p, 0), p)


def test_clip_by_hand():
    """The norm over both arrays is sqrt(9 + 16 + 144) = 13."""
    grads = {"w": np.array([[3.0, 4.0]]), "b": np.array([-12.0])}
    clipped, n = optim.clip_by_global_norm(grads, 6.5)
    assert list(clipped) == ["w", "b"] and type(n) is float and n == 13
    assert_close(clipped["w"], np.array([[1.5, 2.0]]))
    assert_close(clipped["b"], np.array([-6.0]))
    for limit in (13.0, 14.0, np.inf):
        unclipped, n = optim.clip_by_global_norm(grads, limit)
        assert n == 13
        for name, same in unclipped.items():
            np.testing.assert_array_equal(same, grads[name])
            assert same is not grads[name]


@given(case=st.lists(ARRAYS, min_size=1, max_size=4), limit=st.floats(1e-3, 1e3))
def test_clipping_bounds_the_norm_and_keeps_the_direction(case, limit):
    grads = [arrays(c, 1)[0] for c in case]
    clipped, n = optim.clip_by_global_norm(grads, limit)
    norm, clipped_norm = (np.sqrt(sum((np.asarray(g) ** 2).sum() for g in gs)) for gs in (grads, clipped))
    assert abs(clipped_norm - min(norm, limit)) <= 1e-13 * clipped_norm and abs(n - norm) <= 1e-13 * norm
    for g, c in zip(grads, clipped):
        np.testing.assert_allclose(c * norm, g * clipped_norm, rtol=1e-12)


def test_nothing_to_clip():
    assert optim.clip_by_global_norm([], 1.0) == ([], 0) and optim.clip_by_global_norm({}, 1.0) == ({}, 0)
    (zeros,), n = optim.clip_by_global_norm([np.zeros(3)], 1.0)
    assert n == 0 and not zeros.any()


def test_float32_clipping_sums_in_float64():
    """1e30 squared does not fit a float32."""
    (clipped,), n = optim.clip_by_global_norm([np.full(4, 1e30, np.float32)], 2.0)
    assert_close(clipped.astype(np.float64), np.ones(4), rel=1e-6)
    assert_close(n, 2e30, rel=1e-6)


@pytest.mark.parametrize("grads", [[[np.inf], [np.nan]], [[np.nan], [np.inf]], [[np.nan, np.inf], [1.0]]])
def test_a_norm_of_infinity_and_nan_is_nan(grads):
    """math.hypot(inf, nan) is inf."""
    grads = [np.array(g) for g in grads]
    with np.errstate(invalid="ignore"):
        same, n = optim.clip_by_global_norm(grads, 1.0)
    assert np.isnan(n)
    for one, other in zip(same, grads):
        np.testing.assert_array_equal(one, other)


MATRICES = st.tuples(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 12), st.integers(1, 12),
                     st.integers(0, 2**32 - 1))  # fmt: skip


def matrices(case, how_many):
    *shape, seed = case
    return np.random.default_rng(seed).standard_normal((how_many, *shape[0], *shape[1:]))


@given(case=MATRICES)
def test_newton_schulz_changes_singular_values_alone(case):
    """U and V stay, and each s becomes the fifth image of itself under a s + b s^3 + c s^5."""
    (g,) = matrices(case, 1)
    U, s, V = np.linalg.svd(g, full_matrices=False)
    s /= np.sqrt(np.sum(s**2, axis=-1, keepdims=True)) + 1e-7
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    assert_close(optim.orthogonalize(g), (U * s[..., None, :]) @ V, rel=1e-10, scale=10)


@given(share=st.floats(0.002, 0.9))
def test_newton_schulz_brings_singular_values_near_1(share):
    """Of a matrix with two of them, the smaller one `share` of the norm: between 0.68 and 1.21."""
    s = np.linalg.svd(optim.orthogonalize(np.diag([np.sqrt(1 - share**2), share])))[1]
    assert np.all((s > 0.68) & (s < 1.21))


@given(case=MATRICES)
def test_a_step_of_muon_turns_with_its_matrix(case):
    """Orthogonal factors on either side of p, g and m stand outside of the step: no direction is special."""
    p, g, m = matrices(case, 3)
    left, right = (np.linalg.qr(matrices((*case[:1], n, n, case[-1]), 1)[0])[0] for n in p.shape[-2:])
    turned = optim.muon_step(*(left @ a @ right for a in (p, g, m)), 0.02, 0.95, 0.1)
    for a, b in zip(turned, optim.muon_step(p, g, m, 0.02, 0.95, 0.1)):
        assert_close(a, left @ b @ right, rel=1e-10, scale=10)


def test_a_step_of_muon_by_hand():
    """A diagonal matrix, for which each step is one of numbers; sqrt(max(2, 2)) 0.2 lr = 0.2 lr sqrt(2)."""
    p, g, m = np.diag([1.0, 2.0]), np.diag([3.0, -4.0]), np.zeros((2, 2))
    s = np.array([0.6, -0.8])  # g + 0.95 g has these shares of its norm
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    p_next, m_next = optim.muon_step(p, g, m, 0.1, 0.95, 0.5)
    assert_close(p_next, np.diag([1.0, 2.0] - 0.1 * (0.2 * 2**0.5 * s + 0.5 * np.array([1.0, 2.0]))), rel=1e-6, scale=2)
    assert np.array_equal(m_next, g)


@pytest.mark.parametrize("name, bad", [("momentum", 1.0), ("lr", -1.0), ("weight_decay", np.inf)])
def test_muon_refuses_numbers_out_of_range(name, bad):
    settings = {"lr": 0.1, "momentum": 0.95, "weight_decay": 0.0} | {name: bad}
    with pytest.raises(ValueError, match=name):
        optim.muon_step(*np.ones((3, 2, 2)), **settings)


def test_muon_refuses_a_vector():
    for call in (lambda: optim.orthogonalize(np.ones(3)), lambda: optim.muon_step(*np.ones((3, 4)), 0.1, 0.9, 0.0)):
        with pytest.raises(ValueError, match="matrices"):
            call()
