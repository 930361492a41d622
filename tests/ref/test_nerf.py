"""NeRF's network: its published names and sizes, its skip, and what depends on what."""
import numpy as np
import pytest

from ref import tree
from ref.nets.nerf import nerf, nerf_backward, nerf_init
from ref.scene import positional_encoding
from tests import assert_close

RNG = np.random.default_rng(2)
X = RNG.uniform(-1, 1, (5, 3))
DIRECTION = RNG.standard_normal((5, 3))
DIRECTION /= np.linalg.norm(DIRECTION, axis=1, keepdims=True)


def params():
    """Small, with every number drawn, biases too."""
    fresh = nerf_init(0, 3, 2, 8, 5, 2, np.float64)
    return tree.map(lambda a: a + 0.3 * RNG.standard_normal(a.shape), fresh)


def test_the_published_names_and_sizes():
    """Those of the state dict of nerf-pytorch's NeRF(D=8, W=256, input_ch=63, input_ch_views=27, skips=[4],
    use_viewdirs=True): 595,844 numbers."""
    shapes = {name: a.shape for name, a in tree.named(nerf_init(0)).items()}
    assert sum(map(np.prod, shapes.values())) == 595_844
    weights = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith("weight")}
    inputs = [63, 256, 256, 256, 256, 319, 256, 256]
    assert weights == {f"pts_linears.{i}": (256, n) for i, n in enumerate(inputs)} | {
        "alpha_linear": (1, 256), "feature_linear": (256, 256), "views_linears.0": (128, 283), "rgb_linear": (3, 128)}


def test_the_published_size_runs():
    p = nerf_init(0, dtype=np.float64)
    sigma, color, cache = nerf(p, X, DIRECTION)
    assert sigma.shape == (5,) and color.shape == (5, 3) and cache["a"].shape == (5, 283)
    assert_close(cache["layers"][0]["h"][:, -3:], np.cos(2**9 * X), scale=1)
    dx, ddirection, dparams = nerf_backward(np.ones(5), np.ones((5, 3)), p, cache)
    assert dx.shape == ddirection.shape == (5, 3) and {*tree.named(dparams)} == {*tree.named(p)}


@pytest.mark.parametrize("density", ["relu", "softplus"])
def test_by_hand(density):
    """Figure 7 of the paper, in the order of the port: the point in front of the hidden units, the feature in front of
    the direction."""
    p = params()
    e, v = (positional_encoding(a, n, pi=False, identity=True) for a, n in ((X, 3), (DIRECTION, 2)))

    def layer(name, h):
        owner = p
        for part in name.split("."):
            owner = owner[int(part)] if part.isdecimal() else owner[part]
        return h @ owner["weight"].T + owner["bias"]

    h = e
    for i in range(5):
        h = np.maximum(layer(f"pts_linears.{i}", h), 0)
        if i == 2:
            h = np.concatenate([e, h], axis=1)
    raw = layer("alpha_linear", h)[:, 0]
    b = np.maximum(layer("views_linears.0", np.concatenate([layer("feature_linear", h), v], axis=1)), 0)
    sigma, color, _ = nerf(p, X, DIRECTION, density)
    assert_close(sigma, np.maximum(raw, 0) if density == "relu" else np.log1p(np.exp(raw)), scale=1)
    assert_close(color, 1 / (1 + np.exp(-layer("rgb_linear", b))))


def test_the_density_does_not_see_the_direction():
    p = params()
    sigma, color, cache = nerf(p, X, DIRECTION, "softplus")
    other, changed, _ = nerf(p, X, -DIRECTION, "softplus")
    np.testing.assert_array_equal(sigma, other)
    assert np.abs(color - changed).max() > 1e-3
    dx, ddirection, _ = nerf_backward(np.ones(5), np.zeros((5, 3)), p, cache, "softplus")
    assert not ddirection.any() and np.abs(dx).max() > 1e-3


def test_a_density_of_relu_has_no_gradient_where_it_is_0():
    p = params()
    p["alpha_linear"]["bias"] = np.full(1, -1e3)
    sigma, _, cache = nerf(p, X, DIRECTION)
    dx, _, dparams = nerf_backward(np.ones(5), np.zeros((5, 3)), p, cache)
    assert not sigma.any() and not dx.any() and not any(a.any() for a in tree.leaves(dparams))


def test_float32_stays():
    p = tree.map(np.float32, params())
    sigma, color, cache = nerf(p, X.astype(np.float32), DIRECTION.astype(np.float32))
    gradients = nerf_backward(np.ones_like(sigma), np.ones_like(color), p, cache)
    assert {a.dtype for a in tree.leaves([sigma, color, *gradients])} == {np.dtype(np.float32)}
    exact = nerf(tree.map(np.float64, p), X, DIRECTION)[1]
    assert_close(color.astype(np.float64), exact, 1e-5)
