"""The networks against the published classes, replayed from tests/goldens/nets.npz and unet.npz (`make_nets.py` says
how they were made): outputs and gradients in float64, every parameter redrawn.
"""
import json

import numpy as np
import pytest

from ref import layers, tree
from ref.nets import autoencoder, dit, mmdit, text, unet
from tests import GOLDENS, assert_close, golden, redrawn

ARRAYS = golden("nets") | golden("unet")
CASES = {name: case for file in ("nets", "unet")
         for name, case in json.loads((GOLDENS / f"{file}.json").read_text())["cases"].items()}


def part(name, key):
    """{the rest of its name: array} of one network's arrays whose name begins with the key."""
    start = f"{name}/{key}/"
    return {path.removeprefix(start): a for path, a in ARRAYS.items() if path.startswith(start)}


def text_encoder(params, inputs, config):
    ids = inputs["ids"]
    y, cache = text.text_encoder(params, ids, config)
    projection = params.get("text_projection")
    if projection is None:
        return [y], lambda dy: ({}, text.text_encoder_backward(dy, params, cache, config))
    end = ids, config["eos_token_id"]
    state = layers.text_end(y, *end)

    def backward(dy, dembedding):
        dstate, own = tree.gradient(layers.linear_backward, dembedding, projection, state)
        dparams = text.text_encoder_backward(dy + layers.text_end_backward(dstate, y, *end), params, cache, config)
        return {}, dparams | {"text_projection": own}

    return [y, tree.apply(layers.linear, projection, state)], backward


def u_net(params, inputs, config):
    given = {"context": None} | inputs
    y, cache = unet.unet(params, config=config, **given)

    def backward(dy):
        dx, dcontext, dparams = unet.unet_backward(dy, params, cache, config)
        return {"x": dx, "context": dcontext}, dparams

    return [y], backward


def diffusion_transformer(params, inputs, config):
    y, cache = dit.dit(params, config=config, **inputs)

    def backward(dy):
        dx, dparams = dit.dit_backward(dy, params, cache, config)
        return {"x": dx}, dparams

    return [y], backward


def two_streams(params, inputs, config):
    y, cache = mmdit.mmdit(params, config=config, **inputs)

    def backward(dy):
        *dinputs, dparams = mmdit.mmdit_backward(dy, params, cache, config)
        return dict(zip(("x", "context", "pooled"), dinputs)), dparams

    return [y], backward


def coder(params, inputs, config):
    """encode, decode or tiny_decode, by what is given and what is there."""
    (key, a), = inputs.items()
    name = "encode" if key == "x" else "decode" if "mid_block" in params["decoder"] else "tiny_decode"
    y, cache = getattr(autoencoder, name)(params, a, config)

    def backward(dy):
        da, dparams = getattr(autoencoder, f"{name}_backward")(dy, params, cache, config)
        return {key: da}, dparams

    return [y], backward


RUN = {"text": text_encoder, "unet": u_net, "dit": diffusion_transformer, "mmdit": two_streams, "autoencoder": coder,
       "tiny": coder}


def off(name, settings=None, params=None):
    """How far the outputs of one network are off, of their largest element. settings: in place of some of its config.
    params: in place of its own."""
    case = CASES[name]
    params = tree.from_named(redrawn(case["shapes"], case["seed"])) if params is None else params
    outs, _ = RUN[name.partition("_")[0]](params, part(name, "in"), case["config"] | (settings or {}))
    return max(np.abs(out - theirs).max() / np.abs(theirs).max()
               for out, theirs in zip(outs, part(name, "out").values(), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_network_is_the_published_one(name):
    """Outputs to 1e-9, gradients to 1e-9 of the largest."""
    case = CASES[name]
    params = tree.from_named(redrawn(case["shapes"], case["seed"]))
    outs, backward = RUN[name.partition("_")[0]](params, part(name, "in"), case["config"])
    expected = part(name, "out")
    assert len(outs) == len(expected)
    for out, theirs in zip(outs, expected.values()):
        assert_close(out, theirs, 1e-9, np.abs(theirs).max())
    inputs, dparams = backward(*part(name, "gout").values())
    dparams = tree.named(dparams)
    assert list(dparams) == list(tree.named(params))
    for key, theirs in part(name, "grad").items():
        mine = dparams[key.removeprefix("params/")] if key.startswith("params/") else inputs[key]
        assert_close(mine, theirs, 1e-9, np.abs(theirs).max())
    draw = np.random.default_rng(case["seed"] + 1)
    for out in outs:
        draw.standard_normal(out.shape)
    directions = [draw.standard_normal(dparams[path].shape) for path in case["grads"]]
    products = np.array([np.sum(dparams[path] * u) for path, u in zip(case["grads"], directions)])
    sizes = np.array([np.sum(np.abs(dparams[path] * u)) for path, u in zip(case["grads"], directions)])
    # the bias of the keys has no gradient: a softmax does not see what is the same for all keys
    assert_close(products, ARRAYS[f"{name}/products"], 1e-9, np.maximum(sizes, 1e-4 * sizes.max()))
    for path in set(dparams) - set(case["grads"]):  # fixed tables
        assert not dparams[path].any(), path
