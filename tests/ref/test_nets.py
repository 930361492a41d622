"""The two denoisers, the VAE's encoder and decoder, the GAN's generator: worked by hand where that is short, and what
each input may and may not change.

Gradients: tests/test_gradients.py.
"""
import numpy as np
import pytest

from ref import layers, tree
from ref.nets import gan, mlp, vae
from tests import assert_close

X = np.random.default_rng(0).standard_normal((3, 6))
T = np.array([1, 500, 1000])


def some(params):
    """The same names and shapes with numbers everywhere: a fresh residual block is the identity and hides what is in
    it."""
    rng = np.random.default_rng(1)
    return tree.map(lambda p: 0.3 * rng.standard_normal(p.shape), params)


def test_simple_mlp_by_hand():
    params = {"w1": np.array([[1.0, 0, 0.5], [0, -1.0, 0]]), "b1": np.array([0.0, 1.0]),
              "w2": np.array([[1.0, 2.0], [0, 3.0]]), "b2": np.array([0.5, 0])}
    out, _ = mlp.simple_mlp(params, np.array([[1.0, -2.0], [-9.0, 4.0]]), np.array([4, 2]))
    # first: h = (1 + 0.5 * 4, 2 + 1) = (3, 3); second: h = (-9 + 1, -4 + 1), both cut by the relu
    assert_close(out, np.array([[3 + 6 + 0.5, 9.0], [0.5, 0.0]]))


def test_simple_mlp_has_its_shapes_and_its_init():
    params = mlp.simple_mlp_init(0)
    assert {n: p.shape for n, p in params.items()} == {"w1": (256, 785), "b1": (256,), "w2": (784, 256), "b2": (784,)}
    assert all(p.dtype == np.float32 for p in params.values())
    assert np.abs(params["w1"]).max() <= 785**-0.5
    assert np.std(params["w1"]) == pytest.approx(785**-0.5 / 3**0.5, rel=0.01)
    assert not np.array_equal(params["w1"], mlp.simple_mlp_init(1)["w1"])


def test_t_reaches_simple_mlp_unscaled():
    params = some(mlp.simple_mlp_init(0, 6, 5, np.float64))
    params["b1"] += 1e4  # every unit on, so the net is linear in t
    one, two, three = (mlp.simple_mlp(params, X, np.full(3, t))[0] for t in (1, 2, 3))
    assert_close(two - one, three - two, rel=1e-9)
    assert_close(two - one, np.tile(params["w2"] @ params["w1"][:, 6], (3, 1)), rel=1e-9)


def test_a_fresh_residual_net_is_the_identity_in_its_blocks():
    params = mlp.residual_init(0, 6, 8, 3, 4, 6, np.float64)
    silu = lambda x: x / (1 + np.exp(-x))
    out, _ = mlp.residual(params, X, T, np.array([0, 1, 4]))
    assert_close(out, silu(X @ params["in"]["w"].T) @ params["out"]["w"].T)


def test_the_residual_net_hears_time_and_class_and_a_dropped_label():
    params = some(mlp.residual_init(0, 6, 8, 2, 4, 6, np.float64))
    base, _ = mlp.residual(params, X, T, np.array([0, 1, 2]))
    later, _ = mlp.residual(params, X, T - 1, np.array([0, 1, 2]))
    dropped, _ = mlp.residual(params, X, T, np.array([0, 4, 2]))
    assert np.all(np.any(base != later, axis=1))
    assert np.array_equal(base[[0, 2]], dropped[[0, 2]]) and np.any(base[1] != dropped[1])
    with pytest.raises(ValueError, match=r"\bindex\b"):
        mlp.residual(params, X, T, np.array([0, 5, 2]))


def test_the_encoder_by_hand():
    """Hidden units so far up that silu is the identity, or so far down that it is 0."""
    params = {"w1": np.array([[1.0, 2.0], [0, 1.0]]), "b1": np.array([100.0, -1e4]), "w2": np.array([[1.0, 5.0]]),
              "b2": np.array([50.0]),
              "w3": np.array([[1.0], [-1.0], [0.5], [2.0]]), "b3": np.array([1.0, 0, 0, -300.0])}  # fmt: skip
    mu, logvar, _ = vae.encoder(params, np.array([[3.0, 4.0]]))
    a2 = 100.0 + 3 + 8 + 50
    assert_close(mu, np.array([[a2 + 1, -a2]]))
    assert_close(logvar, np.array([[a2 / 2, 2 * a2 - 300]]))


def test_the_decoder_and_the_generator_are_their_layers():
    z = X[:, :2]
    for module, names, act, end in ((vae, "decoder", layers.silu, lambda x: x),
                                    (gan, "generator", layers.leaky_relu, np.tanh)):
        params = some(getattr(module, f"{names}_init")(0, latent=2, width=5, pixels=4))
        h = act(act(z @ params["w1"].T + params["b1"]) @ params["w2"].T + params["b2"])
        assert_close(getattr(module, names)(params, z)[0], end(h @ params["w3"].T + params["b3"]))


@pytest.mark.parametrize("name, inputs, outputs, variance", [
    ("vae.encoder", 6, 4, 1), ("vae.decoder", 2, 6, 1), ("gan.generator", 2, 6, 2), ("gan.discriminator", 6, 1, 2),
])  # fmt: skip
def test_a_net_of_three_layers_has_its_shapes_and_its_init(name, inputs, outputs, variance):
    module, net = name.split(".")
    init = getattr({"vae": vae, "gan": gan}[module], f"{net}_init")
    sizes = dict(pixels=6, width=300) | ({} if net == "discriminator" else dict(latent=2))
    params, double = init(0, **sizes), init(0, **sizes, dtype=np.float64)
    widths = [inputs, 300, 300, outputs]
    for i, (n, m) in enumerate(zip(widths, widths[1:]), 1):
        assert params[f"w{i}"].shape == (m, n) and params[f"b{i}"].shape == (m,) and not params[f"b{i}"].any()
    assert len(params) == 6 and all(p.dtype == np.float32 for p in params.values()) and double["w1"].dtype == np.float64
    assert np.std(params["w2"]) == pytest.approx((variance / 300) ** 0.5, rel=0.02)
    assert np.std(params["w3"]) == pytest.approx((0.1 if net == "generator" else 1) * 300**-0.5, rel=0.15)


@pytest.mark.parametrize("module, one, other", [(vae, "encoder", "decoder"), (gan, "generator", "discriminator")])
def test_the_two_nets_of_a_model_are_drawn_apart(module, one, other):
    w2 = [getattr(module, f"{name}_init")(seed)["w2"] for name, seed in ((one, 0), (other, 0), (one, 1))]
    assert not any(np.array_equal(w2[i], w2[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
