"""The U-Net: its laws, its fresh parameters, and the mistakes that the goldens of test_nets_published.py would catch.

Gradients: test_gradients.py.
"""
import tracemalloc

import numpy as np
import pytest

from ref import layers, tree
from ref.examples import example
from ref.nets import init, unet
from tests import assert_close
from tests.ref import assert_keeps_float32
from tests.ref.test_nets_published import CASES, off

EXAMPLE = example(unet.unet)


def run(**given):
    """The output of the worked example, with some arguments in place of its own."""
    return unet.unet(**EXAMPLE | given)[0]


def changed(params, values):
    """params with some leaves replaced, or left out where the value is None. values: {end of a dotted path: function of
    the leaf, or None}."""
    made = {}
    for path, leaf in tree.named(params).items():
        how = next((how for end, how in values.items() if end in path), lambda a: a)
        if how is not None:
            made[path] = how(leaf)
    return tree.from_named(made)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("unet")])
def test_fresh_parameters_have_the_published_names_and_shapes(name):
    shapes = {path: list(a.shape) for path, a in tree.named(unet.unet_init(0, CASES[name]["config"])).items()}
    assert shapes == CASES[name]["shapes"]


def test_a_fresh_net_is_quiet_and_only_its_last_layer_learns():
    params = unet.unet_init(0, EXAMPLE["config"], np.float64)
    y, cache = unet.unet(**EXAMPLE | {"params": params})
    dx, dcontext, dparams = unet.unet_backward(np.ones_like(y), params, cache, EXAMPLE["config"])
    assert not y.any() and not dx.any() and not dcontext.any()
    assert {path for path, d in tree.named(dparams).items() if d.any()} == {"conv_out.weight", "conv_out.bias"}


def test_a_fresh_block_is_the_identity():
    block = unet.unet_init(0, EXAMPLE["config"], np.float64)["mid_block"]
    x = np.random.default_rng(0).standard_normal((2, 4, 3, 5))
    assert np.array_equal(layers.resblock(block["resnets"][0], x, np.ones((2, 8)), 2, 1e-5)[0], x)
    assert np.array_equal(unet.transformer(block["attentions"][0], x, EXAMPLE["context"], 2, 2)[0], x)


def test_zeroed_cross_attention_gives_the_net_without_text():
    silent = changed(EXAMPLE["params"], {"attn2.to_out.0": np.zeros_like})
    without = changed(EXAMPLE["params"], {"attn2": None, "transformer_blocks.0.norm2": None})
    y, cache = unet.unet(**EXAMPLE | {"params": silent})
    assert np.array_equal(y, run(params=without, context=None))
    assert not unet.unet_backward(np.ones_like(y), silent, cache, EXAMPLE["config"])[1].any()
    assert not np.array_equal(y, run())


def test_a_class_of_zeros_gives_the_net_without_classes():
    silent = changed(EXAMPLE["params"], {"class_embedding": np.zeros_like})
    without = changed(EXAMPLE["params"], {"class_embedding": None})
    assert np.array_equal(run(params=silent), run(params=without, labels=None))
    assert np.any(run(labels=np.array([1, 1])) != run(), axis=(1, 2, 3)).tolist() == [True, False]


def test_classes_may_stand_in_the_place_of_the_text():
    params = changed(EXAMPLE["params"], {"transformer_blocks.0.norm2": None, "attn2": None})
    by_name, in_place = (unet.unet(**EXAMPLE | {"params": params} | given)
                         for given in (dict(context=None), dict(context=EXAMPLE["labels"], labels=None)))
    assert np.array_equal(by_name[0], in_place[0])
    assert unet.unet_backward(np.ones_like(by_name[0]), params, in_place[1], EXAMPLE["config"])[1] is None


def test_the_order_of_the_words_does_not_count():
    """Positions are the text encoder's."""
    assert_close(run(context=EXAMPLE["context"][:, ::-1]), run(), 1e-12, 1)


def test_one_time_is_that_time_for_all():
    assert np.array_equal(run(t=300), run(t=np.array([300, 300])))


def test_attention_of_pixels_moves_with_the_pixels():
    """What attends has no positions: shuffled pixels come out shuffled."""
    block, rng = EXAMPLE["params"]["mid_block"]["attentions"][0], np.random.default_rng(0)
    x, order = rng.standard_normal((2, 4, 3, 5)), rng.permutation(15)

    def shuffled(a):
        return a.reshape(2, 4, 15)[:, :, order].reshape(a.shape)

    y, shuffled_y = (unet.transformer(block, a, EXAMPLE["context"], 2, 2)[0] for a in (x, shuffled(x)))
    assert_close(shuffled_y, shuffled(y), 1e-12, 1)


def test_float32_runs_the_same_code():
    assert_keeps_float32(unet.unet, unet.unet_backward, EXAMPLE)


def test_attention_of_many_pixels_keeps_no_square_of_them():
    """48 x 48 pixels and 8 heads: the weights of all on all are 324 MiB in float64."""
    config = EXAMPLE["config"] | dict(block_out_channels=(8, 8), attention_head_dim=8)
    block = init.unet_init(0, config, np.float32)["mid_block"]["attentions"][0]
    x = np.random.default_rng(0).standard_normal((1, 8, 48, 48)).astype(np.float32)
    tracemalloc.start()
    try:
        unet.transformer(block, x, EXAMPLE["context"][:1].astype(np.float32), 8, 2)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


def test_an_odd_size_comes_back_as_it_was():
    for size in ((1, 1), (5, 8), (7, 3)):
        x = np.random.default_rng(0).standard_normal((2, 1, *size))
        assert run(x=x).shape == x.shape


# --- mistakes that public projects really have ------------------------------------------------------------------------


def other_halves(x):
    return np.split(x, 2, axis=-1)[::-1]


def skip_first(arrays, axis):
    return np.concatenate(list(arrays)[::-1], axis=axis)


class OtherNumPy:
    """NumPy, but for one function."""

    def __init__(self, **functions):
        self.__dict__ |= functions

    def __getattr__(self, name):
        return getattr(np, name)


SETTINGS = {
    "one eps for all norms": ("unet_sd1", dict(norm_eps=1e-6)),
    "heads for the size of a head": ("unet_ddpm", dict(attention_head_dim=2)),
    "the size of a head for heads": ("unet_uneven", dict(attention_head_dim=[2, 16])),
    "heads of the levels in the other order": ("unet_uneven", dict(attention_head_dim=[1, 4])),
    "heads of pixels in the other order": ("unet_heads_of_pixels", dict(attention_head_dim=[1, 4])),
    "heads of pixels of one size": ("unet_heads_of_pixels", dict(attention_head_dim=4)),
    "padding on all sides": ("unet_ddpm", dict(downsample_padding=1)),
    "sines first": ("unet_sd1", dict(flip_sin_to_cos=False)),
    "another shift of the frequencies": ("unet_ddpm", dict(freq_shift=0)),
}
CODE = {
    "one eps for all norms, the other one": ("unet_sd1", "ref.nets.unet.EPS", 1e-5),
    "the tokens' eps": ("unet_sd1", "ref.nets.unet.TOKEN_EPS", 1e-6),
    "tanh for erf": ("unet_sd2", "ref.layers.activations.gelu", layers.gelu_tanh),
    "the halves of geglu swapped": ("unet_sd1", "ref.layers.activations._halves", other_halves),
    "the kept state first": ("unet_sd1", "ref.nets.unet.np", OtherNumPy(concatenate=skip_first)),
    "relu for silu at the end": ("unet_ddpm", "ref.nets.unet.silu", layers.relu),
}


@pytest.mark.parametrize("case", dict.fromkeys(case for case, *_ in [*SETTINGS.values(), *CODE.values()]))
def test_the_goldens_accept_the_right_net(case):
    assert off(case) < 1e-9


@pytest.mark.parametrize("how", SETTINGS)
def test_the_goldens_reject_a_wrong_setting(how):
    case, settings = SETTINGS[how]
    assert off(case, settings) > 1e-7


@pytest.mark.parametrize("how", CODE)
def test_the_goldens_reject_a_wrong_net(how, monkeypatch):
    case, place, wrong = CODE[how]
    monkeypatch.setattr(place, wrong)
    assert off(case) > 1e-7
