"""Stable Diffusion 3's transformer: its laws, its fresh parameters, and the mistakes that the goldens of
test_nets_published.py would catch.

Gradients: test_gradients.py.
"""
import sys

import numpy as np
import pytest

from ref import layers, tree
from ref.examples import example
from ref.nets import mmdit
from tests import assert_close, redrawn
from tests.ref import assert_keeps_float32
from tests.ref.test_nets_published import CASES, off

EXAMPLE, BLOCK = example(mmdit.mmdit), example(mmdit.mmdit_block)
NAMES = [name for name in CASES if name.startswith("mmdit")]


def run(**given):
    """The output of the worked example, with some arguments in place of its own."""
    return mmdit.mmdit(**EXAMPLE | given)[0]


@pytest.mark.parametrize("name", NAMES)
def test_fresh_parameters_have_the_published_names_and_shapes(name):
    shapes = {path: list(a.shape) for path, a in tree.named(mmdit.mmdit_init(0, CASES[name]["config"])).items()}
    assert shapes == CASES[name]["shapes"]


def test_a_block_with_its_first_gates_is_the_identity_and_only_they_learn():
    params = tree.map(np.copy, BLOCK["params"])
    for norm in ("norm1", "norm1_context"):
        params[norm] = tree.zeros_like(params[norm])
    x_next, context_next, cache = mmdit.mmdit_block(**BLOCK | {"params": params})
    assert np.array_equal(x_next, BLOCK["x"]) and np.array_equal(context_next, BLOCK["context"])
    draw = np.random.default_rng(0).standard_normal
    dx, dcontext = draw(x_next.shape), draw(context_next.shape)
    *inputs, da, dparams = mmdit.mmdit_block_backward(dx, dcontext, params, cache)
    assert np.array_equal(inputs[0], dx) and np.array_equal(inputs[1], dcontext) and not da.any()
    learning = {path: np.unique(np.nonzero(d)[0] // 4).tolist() for path, d in tree.named(dparams).items() if d.any()}
    # of shift, scale, gate, shift, scale, gate, and shift, scale, gate of the second attention
    gates = {"norm1": [2, 5, 8], "norm1_context": [2, 5]}
    assert learning == {f"{norm}.linear.{kind}": rows for norm, rows in gates.items() for kind in ("weight", "bias")}


def test_a_fresh_net_gives_0_and_only_its_last_layer_learns():
    params = mmdit.mmdit_init(0, EXAMPLE["config"], np.float64)
    y, cache = mmdit.mmdit(**EXAMPLE | {"params": params})
    *_, dparams = mmdit.mmdit_backward(np.ones_like(y), params, cache, EXAMPLE["config"])
    assert not y.any()
    assert {path for path, d in tree.named(dparams).items() if d.any()} == {"proj_out.weight", "proj_out.bias"}


def test_the_order_of_the_words_does_not_count():
    """Positions are the text encoders'."""
    assert_close(run(context=EXAMPLE["context"][:, ::-1]), run(), 1e-12, 1)


def test_without_places_shuffled_patches_come_out_shuffled():
    params = EXAMPLE["params"] | {"pos_embed": EXAMPLE["params"]["pos_embed"] | {"pos_embed": np.zeros((1, 25, 4))}}
    order, x = np.random.default_rng(0).permutation(16), EXAMPLE["x"]

    def shuffled(a):
        return layers.unpatchify(layers.patchify(a, 2)[:, order], 2, a.shape)

    assert_close(run(params=params, x=shuffled(x)), shuffled(run(params=params)), 1e-12, 1)
    assert np.abs(run(x=shuffled(x)) - shuffled(run())).max() > 1e-3  # with places they do not


def test_a_place_by_hand():
    """Of 5 x 5 places for a picture of 4 x 4 patches, with width 4: a column c is at 4/5 c, and so is a row."""
    table = mmdit.mmdit_init(0, EXAMPLE["config"], np.float64)["pos_embed"]["pos_embed"]
    assert table.shape == (1, 25, 4)
    row, column = 3, 1
    s = 4 / 5
    assert_close(table[0, 5 * row + column], np.array([np.sin(s), np.cos(s), np.sin(3 * s), np.cos(3 * s)]))


def test_the_middle_of_the_table_is_taken_and_gets_no_gradient():
    """2 x 5 patches of 5 x 5 places: the rows 1 and 2. Where params has no table, it is the fresh one."""
    with_table = EXAMPLE["params"] | {"pos_embed": EXAMPLE["params"]["pos_embed"] | {
        "pos_embed": mmdit.mmdit_init(0, EXAMPLE["config"], np.float64)["pos_embed"]["pos_embed"]}}
    x = np.random.default_rng(0).standard_normal((2, 1, 4, 10))
    y, cache = mmdit.mmdit(**EXAMPLE | {"params": with_table, "x": x})
    without = EXAMPLE["params"] | {"pos_embed": {"proj": EXAMPLE["params"]["pos_embed"]["proj"]}}
    assert np.array_equal(y, run(x=x, params=without))
    dtable = mmdit.mmdit_backward(np.ones_like(y), with_table, cache, EXAMPLE["config"])[3]["pos_embed"]["pos_embed"]
    assert dtable.shape == (1, 25, 4) and not dtable.any()
    for row, counts in enumerate((False, True, True, False, False)):
        other = with_table["pos_embed"]["pos_embed"].copy()
        other[:, 5 * row:5 * row + 5] += 1 + np.arange(4)
        moved = run(x=x, params=with_table | {"pos_embed": with_table["pos_embed"] | {"pos_embed": other}})
        assert np.any(moved != y) == counts


def test_what_makes_no_patch_is_left_out():
    x = np.random.default_rng(0).standard_normal((2, 1, 5, 7))
    assert np.array_equal(run(x=x), run(x=x[:, :, :4, :6]))


def test_float32_runs_the_same_code():
    assert_keeps_float32(mmdit.mmdit, mmdit.mmdit_backward, EXAMPLE)


# --- mistakes that public projects really have ------------------------------------------------------------------------


def golden_params(name):
    return tree.from_named(redrawn(CASES[name]["shapes"], CASES[name]["seed"]))


def original_order(name):
    """The scale and the shift of the last norm as the original files have them."""
    params = golden_params(name)
    params["norm_out"] = tree.map(lambda a: np.roll(a, len(a) // 2, axis=0), params["norm_out"])
    return params


def without_norms(name):
    return tree.from_named({path: a for path, a in tree.named(golden_params(name)).items()
                            if "norm_q" not in path and "norm_k" not in path})


def corner(name):
    """The corner of the table of places instead of its middle, for one patch less in each direction."""
    params = golden_params(name)
    table = params["pos_embed"]["pos_embed"]
    side = round(table.shape[1] ** 0.5)
    params["pos_embed"]["pos_embed"] = np.roll(table.reshape(side, side, -1), 1, axis=(0, 1)).reshape(table.shape)
    return params


def swapped(x, shift, scale, eps):
    return layers.layer_norm_modulate(x, scale, shift, eps)


CODE = {
    "scale and shift swapped": ("ref.nets.mmdit.layer_norm_modulate", swapped),
    "one eps for all norms": ("ref.nets.mmdit.EPS", 1e-5),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_goldens_accept_the_right_net(name):
    assert off(name) < 1e-9


@pytest.mark.parametrize("wrong", [original_order, without_norms, corner])
def test_the_goldens_reject_wrong_parameters(wrong):
    assert off("mmdit_sd35_large", params=wrong("mmdit_sd35_large")) > 1e-4


def test_the_goldens_reject_heads_for_the_size_of_a_head():
    assert off("mmdit_sd3", {"num_attention_heads": 4}) > 1e-4


@pytest.mark.parametrize("how", CODE)
def test_the_goldens_reject_a_wrong_net(how, monkeypatch):
    monkeypatch.setattr(*CODE[how])
    assert off("mmdit_sd35_medium") > 1e-7


def test_the_goldens_reject_erf_for_tanh(monkeypatch):
    activations = sys.modules["ref.layers.feed_forward"].ACTIVATIONS
    monkeypatch.setitem(activations, "gelu_tanh", activations["gelu"])
    assert off("mmdit_sd3") > 1e-7
