"""Attention: rows that see nothing, keys that are NaN, large scores, the causal corner; and wrong variants, each of
which one of these checks has to find.
"""
import numpy as np
import pytest

from ref import layers
from tests import assert_close

RNG = np.random.default_rng(4)
Q, K, V = RNG.standard_normal((2, 3, 5, 4)), RNG.standard_normal((2, 3, 7, 4)), RNG.standard_normal((2, 3, 7, 6))
MASK = RNG.random((2, 1, 5, 7)) < 0.6
MASK[:, :, 1], MASK[:, :, 2:, 4] = False, True  # query 1 sees nothing


def literal(q, k, v, mask=None, causal=False):
    """Row by row, from the definition: only the keys that are seen take part."""
    y = np.zeros((*q.shape[:3], v.shape[3]))
    for b, h, i in np.ndindex(q.shape[:3]):
        seen = [j for j in range(k.shape[2]) if (not causal or j <= i + k.shape[2] - q.shape[2])
                and (mask is None or np.broadcast_to(mask, (*q.shape[:3], k.shape[2]))[b, h, i, j])]
        if seen:
            s = k[b, h, seen] @ q[b, h, i] / np.sqrt(q.shape[3])
            e = np.exp(s - s.max())
            y[b, h, i] = e @ v[b, h, seen] / e.sum()
    return y


def follows_the_definition(attention):
    for mask in (None, MASK, MASK[0, 0], MASK[:1]):
        for causal in (False, True):
            expected = literal(Q, K, V, mask, causal)
            assert_close(attention(Q, K, V, mask, causal), expected, 1e-13, np.abs(V).max())


def keeps_nan_out(attention):
    """In keys that nobody sees, and for the rows that do not see them."""
    mask = np.broadcast_to(MASK, (2, 3, 5, 7)).copy()
    mask[:, :, :, 6], mask[:, :, 0, 3], mask[:, :, 4, 3] = False, False, True
    k, v = K.copy(), V.copy()
    k[:, :, 6], v[:, :, 6, ::2], v[:, :, 3, 1] = np.nan, np.inf, np.nan
    got, clean = attention(k=k, q=Q, v=v, mask=mask), literal(Q, K, V, mask)
    sees = np.broadcast_to(mask[..., 3:4], clean.shape) & (np.arange(6) == 1)
    assert np.array_equal(np.isnan(got), sees)
    assert_close(np.where(sees, 0, got), np.where(sees, 0, clean), 1e-13, np.abs(V).max())


def survives_large_scores(attention):
    """Scores of 1e4 and of -1e4 in all of a row."""
    for q in (np.full((1, 1, 2, 1), 1e4), np.full((1, 1, 2, 1), -1e4)):
        k, v = np.array([1.0, 1.0, 0.9]).reshape(1, 1, 3, 1), np.array([1.0, 3.0, 7.0]).reshape(1, 1, 3, 1)
        assert_close(attention(q, k, v), np.full((1, 1, 2, 1), 2.0 if q[0, 0, 0, 0] > 0 else 7.0))


CHECKS = follows_the_definition, keeps_nan_out, survives_large_scores


@pytest.mark.parametrize("check", CHECKS)
def test_attention_holds(check):
    check(layers.attention)


def scores(q, k):
    return q @ k.swapaxes(2, 3) / np.sqrt(q.shape[3])


def softmax(s):
    with np.errstate(invalid="ignore"):
        e = np.exp(s - s.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)


def all_seen(q, k, mask, causal):
    seen = np.ones((*q.shape[:3], k.shape[2]), bool) if mask is None else np.broadcast_to(mask, (*q.shape[:3],
                                                                                              k.shape[2]))
    return seen & np.tri(q.shape[2], k.shape[2], k.shape[2] - q.shape[2], bool) if causal else seen


def top_left(q, k, v, mask=None, causal=False):
    corner = np.tri(q.shape[2], k.shape[2], 0, bool)[None, None]
    return literal(q, k, v, corner if mask is None else mask & corner) if causal else literal(q, k, v, mask)


def averages_everything(q, k, v, mask=None, causal=False):
    with np.errstate(invalid="ignore"):
        return softmax(np.where(all_seen(q, k, mask, causal), scores(q, k), -1e30)) @ v


def tail_not_masked(q, k, v, mask=None, causal=False):
    seen = all_seen(q, k, mask, causal).copy()
    seen[..., 4:] = True
    return literal(q, k, v, seen)


def no_maximum_taken_off(q, k, v, mask=None, causal=False):
    with np.errstate(all="ignore"):
        e = np.where(all_seen(q, k, mask, causal), np.exp(scores(q, k)), 0)
        total = e.sum(axis=-1, keepdims=True)
        return e @ np.nan_to_num(v) / np.where(total == 0, 1, total)


def no_scale(q, k, v, mask=None, causal=False):
    return literal(q * np.sqrt(q.shape[3]), k, v, mask, causal)


def nan_in_the_product(q, k, v, mask=None, causal=False):
    seen = all_seen(q, k, mask, causal)
    p = np.where(seen, softmax(np.where(seen, scores(q, k), -1e300)), 0)
    with np.errstate(invalid="ignore"):
        return p @ v


WRONG = top_left, averages_everything, tail_not_masked, no_maximum_taken_off, no_scale, nan_in_the_product


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_attention_is_found(wrong):
    found = []
    for check in CHECKS:
        try:
            check(wrong)
        except AssertionError:
            found.append(check)
    assert found


def test_a_row_that_sees_nothing_gives_0_and_gets_no_gradient():
    dy = RNG.standard_normal((2, 3, 5, 6))
    y, (dq, dk, dv) = layers.attention(Q, K, V, MASK), layers.attention_backward(dy, Q, K, V, MASK)
    assert not y[:, :, 1].any() and not dq[:, :, 1].any() and y[:, :, 2].all()
    changed = dy.copy()
    changed[:, :, 1] = 1e6
    for a, b in zip(layers.attention_backward(changed, Q, K, V, MASK), (dq, dk, dv)):
        assert np.array_equal(a, b)
    blind = np.zeros((1, 1, 1, 7), bool)
    assert not any(a.any() for a in (layers.attention(Q, K, V, blind), *layers.attention_backward(dy, Q, K, V, blind)))


def test_the_gradient_keeps_nan_out_too():
    mask = np.ones((1, 1, 5, 7), bool)
    mask[..., 5:] = False
    k, v, dy = K.copy(), V.copy(), RNG.standard_normal((2, 3, 5, 6))
    k[:, :, 5], v[:, :, 6] = np.nan, np.inf
    dq, dk, dv = layers.attention_backward(dy, Q, k, v, mask)
    for got, expected in zip((dq, dk[:, :, :5], dv[:, :, :5]),
                             layers.attention_backward(dy, Q, K[:, :, :5], V[:, :, :5])):
        assert_close(got, expected, 1e-13, np.abs(expected).max())
    assert not dk[:, :, 5:].any() and not dv[:, :, 5:].any()


def test_one_key_returns_its_value_and_no_key_gives_0():
    assert_close(layers.attention(Q, K[:, :, :1], V[:, :, :1]), np.repeat(V[:, :, :1], 5, axis=2))
    assert not layers.attention(Q, K[:, :, :0], V[:, :, :0]).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_attention_keeps_its_dtype(dtype):
    arrays = [a.astype(dtype) for a in (Q, K, V)]
    y = layers.attention(*arrays, MASK, True)
    assert y.dtype == dtype and all(d.dtype == dtype for d in layers.attention_backward(y, *arrays, MASK, True))
    np.testing.assert_allclose(y, literal(Q, K, V, MASK, True), atol=1e-6)
