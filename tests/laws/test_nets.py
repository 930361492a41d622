"""Laws of the layers and the networks that hold exactly, with any numbers in the parameters."""
import numpy as np
import pytest

from ref import layers, tree
from ref.examples.nets import CONFIG, IMAGE, net
from ref.nets import autoencoder, dit, init, text, unet
from tests import assert_close, redrawn

RNG = np.random.default_rng(6)
X, W = RNG.standard_normal((2, 3, 6, 5)), RNG.standard_normal((4, 3, 3, 3))
T = np.array([100, 500])


def drawn_like(params, seed=0):
    """The same names and shapes, every number redrawn."""
    return tree.from_named(redrawn({path: a.shape for path, a in tree.named(params).items()}, seed))


def test_convolution_is_linear_and_commutes_with_a_shift_inside():
    y = RNG.standard_normal(X.shape)
    assert_close(layers.conv2d(2 * X - y, W), 2 * layers.conv2d(X, W) - layers.conv2d(y, W), 1e-13, 30)
    shifted = np.roll(X, (1, 1), axis=(2, 3))
    assert_close(layers.conv2d(shifted, W)[:, :, 2:-1, 2:-1], layers.conv2d(X, W)[:, :, 1:-2, 1:-2], 1e-13, 30)


@pytest.mark.parametrize("f, x, w, settings", [
    ("conv1d", X[:, :, 0], W[:, :, 0], dict(stride=2, padding=(1, 3), dilation=2)),
    ("conv2d", X, W, dict(stride=(2, 1), padding=((0, 1), (2, 0)))),
    ("conv3d", X[:, :, None].repeat(3, 2), W[:, :, None].repeat(2, 2), dict(stride=(2, 1, 3))),
])  # fmt: skip
def test_the_backward_of_a_convolution_is_its_adjoint(f, x, w, settings):
    y = getattr(layers, f)(x, w, **settings)
    u = RNG.standard_normal(y.shape)
    dx, dw, db = getattr(layers, f"{f}_backward")(u, x, w, **settings)
    product = np.sum(u * y)
    assert np.sum(dx * x) == pytest.approx(product, rel=1e-12) and np.sum(dw * w) == pytest.approx(product, rel=1e-12)
    assert_close(db, u.sum(axis=(0, *range(2, u.ndim))), 1e-13, 10)


def test_a_convolution_of_one_frame_is_one_of_an_image():
    y = layers.conv3d(X[:, :, None], W[:, :, None], None, 1, ((0, 0), (1, 1), (1, 1)))
    assert np.array_equal(y[:, :, 0], layers.conv2d(X, W))
    centre = np.stack([0 * W, W, 0 * W], axis=2)
    assert_close(layers.conv3d(X[:, :, None], centre)[:, :, 0], layers.conv2d(X, W), 1e-13, 30)


def test_attention_without_places_follows_a_permutation():
    q, k, v = RNG.standard_normal((3, 2, 2, 6, 4))
    order = RNG.permutation(6)
    y = layers.attention(q, k, v)
    assert_close(layers.attention(q[:, :, order], k, v), y[:, :, order])
    assert_close(layers.attention(q, k[:, :, order], v[:, :, order]), y, 1e-13, np.abs(v).max())


def jacobian_of_tokens(f, x):
    """Which of the tokens of f(x) each token of x moves, (L, L): output, input."""
    moved = np.zeros((x.shape[1], x.shape[1]))
    for j in range(x.shape[1]):
        step = np.zeros(x.shape, complex)
        step[:, j] = 1e-30j * RNG.standard_normal(x[:, j].shape)
        moved[:, j] = np.abs(f(x + step).imag).max(axis=(0, 2))
    return moved != 0


def test_the_text_encoder_sees_no_later_token():
    params = drawn_like(net("text")["encoder"]["layers"][0])
    seen = jacobian_of_tokens(lambda x: text.text_block(params, x, CONFIG)[0], RNG.standard_normal((1, 5, 4)))
    assert np.array_equal(seen, np.tri(5, dtype=bool))
    params, ids = drawn_like(net("text")), np.array([[7, 1, 4, 8, 2]])
    early, changed = (text.text_encoder(params, i, CONFIG)[0] for i in (ids, np.array([[7, 1, 4, 0, 3]])))
    assert np.array_equal(early[:, :3], changed[:, :3]) and np.all(early[:, 3:] != changed[:, 3:])


def test_a_causal_mask_moves_only_later_rows_when_there_are_more_keys():
    """Strictly: the gradient of query i in key j is 0 where j > i + Lk - Lq, and nowhere else."""
    q, k, v = RNG.standard_normal((1, 1, 3, 4)), *RNG.standard_normal((2, 1, 1, 5, 4))
    for i in range(3):
        dy = np.zeros((1, 1, 3, 4))
        dy[:, :, i] = 1
        _, dk, dv = layers.attention_backward(dy, q, k, v, causal=True)
        for d in (dk, dv):
            assert np.array_equal(np.any(d[0, 0] != 0, axis=1), np.arange(5) <= i + 2)


def test_a_fresh_dit_block_is_the_identity_and_only_its_gates_learn():
    fresh = init.dit_init(0, 4, 2, 1, 8, 1, 2, 1, 3, False, np.float64)["blocks"][0]
    x, a, dy = RNG.standard_normal((2, 3, 8)), RNG.standard_normal((2, 8)), RNG.standard_normal((2, 3, 8))
    y, cache = dit.dit_block(fresh, x, a, 2)
    dx, da, dparams = dit.dit_block_backward(dy, fresh, cache)
    assert np.array_equal(y, x) and np.array_equal(dx, dy) and not da.any()
    gates = dparams["adaLN_modulation"][1]["weight"].reshape(6, 8, 8)
    moves = [bool(part.any()) for part in gates]
    assert moves == [False, False, True, False, False, True]
    learn = {path for path, d in tree.named(dparams).items() if d.any()}
    assert learn == {"adaLN_modulation.1.weight", "adaLN_modulation.1.bias"}


def test_fresh_networks_end_in_0_and_their_blocks_are_the_identity():
    params = init.unet_init(0, 1, (4, 6), 1, (1,), classes=3, dtype=np.float64)
    y, _ = unet.unet(params, IMAGE, T, np.array([0, 2]), CONFIG)
    assert y.shape == IMAGE.shape and not y.any()
    block = params["down_blocks"][0]["resnets"][0]
    x = RNG.standard_normal((2, 4, 3, 3))
    assert np.array_equal(unet.residual_block(block, x, np.ones((2, 16)), 2, 1e-5)[0], x)
    y, _ = dit.dit(init.dit_init(0, 4, 2, 1, 8, 2, 2, 1, 3, True, np.float64), IMAGE, T, np.array([0, 3]), CONFIG)
    assert y.shape == (2, 2, 4, 4) and not y.any()


def without(params, ending):
    """The same tree with 0 in the leaves whose path has this in it."""
    return tree.from_named({path: 0 * a if ending in path else a for path, a in tree.named(params).items()})


def test_a_text_that_reaches_nothing_gives_the_unconditional_net():
    params = without(drawn_like(net("unet")), "attn2.to_out")
    y, cache = unet.unet(params, IMAGE, T, RNG.standard_normal((2, 3, 3)), CONFIG)
    other, _ = unet.unet(params, IMAGE, T, RNG.standard_normal((2, 5, 3)), CONFIG)
    assert np.array_equal(y, other) and not unet.unet_backward(np.ones_like(y), params, cache, CONFIG)[1].any()
    heard, _ = unet.unet(drawn_like(net("unet")), IMAGE, T, RNG.standard_normal((2, 3, 3)), CONFIG)
    assert np.abs(heard - y).max() > 1e-3


def test_a_class_of_0_gives_the_unconditional_net_and_both_ways_to_say_it_agree():
    params = drawn_like(init.unet_init(0, 1, (4, 6), 1, (1,), classes=3))
    labels = np.array([2, 0])
    y, _ = unet.unet(params, IMAGE, T, None, CONFIG, labels)
    assert np.array_equal(unet.unet(params, IMAGE, T, labels, CONFIG)[0], y)
    zero = without(params, "class_embedding")
    bare = {key: part for key, part in zero.items() if key != "class_embedding"}
    silent, _ = unet.unet(zero, IMAGE, T, None, CONFIG, labels)
    assert np.array_equal(silent, unet.unet(bare, IMAGE, T, None, CONFIG)[0]) and np.abs(silent - y).max() > 1e-3


@pytest.mark.parametrize("name", ["unet", "dit", "mmdit", "autoencoder"])
def test_a_network_keeps_float32_and_is_near_its_truth(name):
    """The same code in both; every gradient in the dtype of its parameters."""
    import ref.nets.mmdit as mmdit

    params = drawn_like(net(name))
    context, pooled = RNG.standard_normal((2, 3, 3)), RNG.standard_normal((2, 5))
    run = {
        "unet": (unet.unet, unet.unet_backward, (IMAGE, T, context)),
        "dit": (dit.dit, dit.dit_backward, (IMAGE, T, np.array([0, 1]))),
        "mmdit": (mmdit.mmdit, mmdit.mmdit_backward, (IMAGE, T, context, pooled)),
        "autoencoder": (autoencoder.encode, autoencoder.encode_backward, (IMAGE,)),
    }
    f, f_backward, given = run[name]
    exact, _ = f(params, *given, CONFIG)
    single = tree.map(np.float32, params)
    y, cache = f(single, *(a.astype(np.float32) if a.dtype == np.float64 else a for a in given), CONFIG)
    *dinputs, dparams = f_backward(y, single, cache, CONFIG)
    assert all(a.dtype == np.float32 for a in [y, *dinputs, *tree.leaves(dparams)])
    np.testing.assert_allclose(y, exact, atol=2e-5 * np.abs(exact).max())
