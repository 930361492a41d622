"""Layers against PyTorch's float64 autograd, at their kinks, at the ends of the floats, and what they refuse.

Gradients against the forward's own derivative: tests/test_gradients.py.
"""
import numpy as np
import pytest

from ref import layers
from tests import assert_close, golden

TORCH = golden("torch_ops")


def test_linear_is_pytorchs():
    x, w, b, dy = (TORCH[f"linear/{name}"] for name in ("in/x", "in/w", "in/b", "gout"))
    assert_close(layers.linear(x, w, b), TORCH["linear/out"])
    for ours, name in zip(layers.linear_backward(dy, x, w), "xwb"):
        assert_close(ours, TORCH[f"linear/grad/{name}"])


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "sigmoid", "silu", "softplus"])
def test_activation_is_pytorchs_also_at_700(name):
    """The inputs hold 0, -0, +-30 and +-700. PyTorch's softplus leaves e^-x out above 20, 9e-14 at the 30 here."""
    theirs = {key: TORCH[f"{'leaky_relu02' if name == 'leaky_relu' else name}/{key}"]
              for key in ("in/x", "out", "gout", "grad/x")}
    x, dy = theirs["in/x"], theirs["gout"]
    y = getattr(layers, name)(x)
    assert_close(y, theirs["out"], scale=np.abs(theirs["out"]) + 1e-250)  # 1e-304 is as good as 0
    dx = getattr(layers, f"{name}_backward")(dy, y if name in ("sigmoid", "tanh") else x)
    assert_close(dx, theirs["grad/x"], scale=np.abs(dy))


def test_embedding_accumulates_repeated_rows_and_leaves_unused_ones_at_0():
    w, index, dy = TORCH["embedding/in/w"], TORCH["embedding/int/idx"], TORCH["embedding/gout"]
    assert_close(layers.embedding(w, index), TORCH["embedding/out"])
    assert_close(layers.embedding_backward(dy, w, index), TORCH["embedding/grad/w"])
    assert np.all(layers.embedding_backward(np.ones((3, 2)), np.ones((5, 2)), np.array([4, 1, 4])) == [[0, 0], [1, 1],
                                                                                                       [0, 0], [0, 0],
                                                                                                       [2, 2]])


def test_relu_has_no_gradient_at_its_kink():
    x = np.array([-1.0, -0.0, 0.0, 1e-300, 1.0])
    assert np.array_equal(layers.relu_backward(np.ones(5), x), [0, 0, 0, 1, 1])


def test_leaky_relu_by_hand_and_at_its_kink():
    x = np.array([-10.0, -0.0, 0.0, 1e-300, 3.0])
    assert np.array_equal(layers.leaky_relu(x, 0.5), [-5, 0, 0, 1e-300, 3]) and layers.leaky_relu(x)[0] == -2
    assert np.array_equal(layers.leaky_relu_backward(np.full(5, 2.0), x, 0.5), [1, 1, 1, 2, 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_at_the_ends_keep_their_dtype_and_their_limits(dtype):
    x = np.array([-1e4, -800, -90, 0, 90, 800, 1e4], dtype)
    assert np.array_equal(layers.sigmoid(x)[[0, 3, 6]], np.array([0, 0.5, 1], dtype))
    assert np.array_equal(layers.softplus(x)[[0, 6]], np.array([0, 1e4], dtype))
    assert np.array_equal(layers.silu(x)[[0, 3, 6]], np.array([0, 0, 1e4], dtype))
    assert np.array_equal(layers.tanh(x)[[0, 3, 6]], np.array([-1, 0, 1], dtype))
    assert np.array_equal(layers.leaky_relu(x)[[0, 3, 6]], np.array([-2e3, 0, 1e4], dtype))
    for f in (layers.relu, layers.leaky_relu, layers.tanh, layers.sigmoid, layers.silu, layers.softplus):
        assert f(x).dtype == dtype and np.all(np.isfinite(f(x)))
    for df in (layers.relu_backward, layers.leaky_relu_backward, layers.silu_backward, layers.softplus_backward):
        assert df(np.ones_like(x), x).dtype == dtype and np.all(np.isfinite(df(np.ones_like(x), x)))


def test_sigmoid_keeps_its_relative_precision_far_below_0():
    x = np.array([-30.0, -100.0, -700.0])
    assert_close(layers.sigmoid(x), np.exp(x) / (1 + np.exp(x)), rel=1e-15)


def test_time_embedding_by_hand():
    y = layers.time_embedding(np.array([0, 3]), 4, max_period=100.0)
    assert_close(y, np.array([[0, 0, 1, 1], [np.sin(3), np.sin(0.3), np.cos(3), np.cos(0.3)]]))


def test_cross_entropy_by_hand_and_without_overflow():
    logits = np.log(np.array([[1.0, 2.0, 5.0], [2.0, 2.0, 4.0]]))
    assert layers.cross_entropy(logits, np.array([2, 0])) == pytest.approx(-(np.log(5 / 8) + np.log(2 / 8)) / 2,
                                                                           rel=1e-14)
    d = layers.cross_entropy_backward(1.0, logits, np.array([2, 0]))
    assert_close(d, np.array([[1 / 8, 2 / 8, 5 / 8 - 1], [2 / 8 - 1, 2 / 8, 4 / 8]]) / 2)
    assert layers.cross_entropy(np.array([[1e4, 0.0]]), np.array([1])) == 1e4
