"""The networks against the published classes, replayed from tests/goldens/nets.npz, unet.npz and t5.npz (`make_nets.py`
says how they were made): outputs and gradients in float64, every parameter redrawn.
"""
import importlib
import json

import numpy as np
import pytest

from ref import layers, tree
from ref.nets import autoencoder, dit, mmdit, t5, text, unet
from ref.nets.t5 import biased_attention, relative_buckets, t5_block
from tests import GOLDENS, assert_close, golden, redrawn

FILES = "nets", "unet", "t5"
ARRAYS = {name: a for file in FILES for name, a in golden(file).items()}
CASES = {name: case for file in FILES
         for name, case in json.loads((GOLDENS / f"{file}.json").read_text("utf-8"))["cases"].items()}


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


def third_encoder(params, inputs, config):
    y, cache = t5.t5_encoder(params, config=config, **inputs)
    return [y], lambda dy: ({}, t5.t5_encoder_backward(dy, params, cache, config, inputs.get("mask")))


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
       "tiny": coder, "t5": third_encoder}


def off(name, settings=None, params=None):
    """How far the outputs of one network are off, of their largest element. settings: in place of some of its config.
    params: in place of its own."""
    case = CASES[name]
    params = tree.from_named(redrawn(case["shapes"], case["seed"])) if params is None else params
    outs, _ = RUN[name.partition("_")[0]](params, part(name, "in"), case["config"] | (settings or {}))
    return max(np.abs(out - theirs).max() / np.abs(theirs).max()
               for out, theirs in zip(outs, part(name, "out").values(), strict=True))


def compared(name, **changed):
    """A network with its gradients against the file, to 1e-9 of the largest number of each. changed: in its config."""
    case = CASES[name]
    params = tree.from_named(redrawn(case["shapes"], case["seed"]))
    outs, backward = RUN[name.partition("_")[0]](params, part(name, "in"), case["config"] | changed)
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


@pytest.mark.parametrize("name", CASES)
def test_a_network_is_the_published_one(name):
    compared(name)


# --- wrong variants that public projects have had, each of which the comparison has to find --------------------------


def swapped(x, shift, scale, eps):
    return layers.layer_norm_modulate(x, scale, shift, eps)


def tanh_for_erf(x):
    a, g = np.split(x, 2, axis=-1)
    return a * layers.gelu_tanh(g)


def top_left(q, k, v, mask=None, causal=False):
    return layers.attention(q[..., ::-1, :], k[..., ::-1, :], v[..., ::-1, :], mask, causal)[..., ::-1, :]


def upsampled_before(h, factor):
    return np.roll(layers.upsample_nearest(h, factor), 1, axis=3)


def of_its_own(params, x, bias, *more):
    return t5_block(params, x, bias * ("relative_attention_bias" in params["layer"][0]["SelfAttention"]), *more)


def one_more(*sizes):
    return np.minimum(relative_buckets(*sizes) + 1, sizes[1] - 1)


def scaled(q, *more):
    return biased_attention(q / q.shape[3]**0.5, *more)


def unmasked(*given):
    return biased_attention(*given[:4])


GEGLU = {"geglu": (tanh_for_erf, layers.geglu_backward)}
PATCHED = [  # the network, where the fault is put, and what stands there then
    ("one eps for all norms, 1e-5", "unet_sd1", "ref.nets.unet", "EPS", 1e-5),
    ("one eps for all norms, 1e-5", "autoencoder_decode", "ref.nets.autoencoder", "EPS", 1e-5),
    ("one eps for all norms, 1e-5", "mmdit_sd35", "ref.nets.mmdit", "EPS", 1e-5),
    ("one eps for all norms, 1e-5", "dit_2", "ref.nets.dit", "EPS", 1e-5),
    ("symmetric padding in the encoder", "autoencoder_encode", "ref.nets.autoencoder", "CORNER", ((1, 1), (1, 1))),
    ("tanh for erf", "unet_sd2", "ref.layers.feed_forward", "ACTIVATIONS", GEGLU | {"silu": (layers.silu, None)}),
    ("scale and shift swapped", "dit_2", "ref.nets.dit", "layer_norm_modulate", swapped),
    ("scale and shift swapped", "mmdit_sd3", "ref.nets.mmdit", "layer_norm_modulate", swapped),
    ("a causal mask the other way", "text_quick_gelu", "ref.layers.attention", "attention", top_left),
    ("logits over sqrt(d)", "t5", "ref.nets.t5", "biased_attention", scaled),
    ("a bias in the first block alone", "t5", "ref.nets.t5", "t5_block", of_its_own),
    ("a bucket further on", "t5", "ref.nets.t5", "relative_buckets", one_more),
    ("keys for queries", "t5", "ref.nets.t5", "relative_buckets", lambda *sizes: relative_buckets(*sizes).T),
    ("erf for tanh", "t5", "ref.nets.t5", "gelu_tanh", layers.gelu),
    ("the mask forgotten", "t5_masked", "ref.nets.t5", "biased_attention", unmasked),
    ("pixels moved by one", "unet_pixels", "ref.nets.unet", "upsample_nearest", upsampled_before),
]  # fmt: skip


@pytest.mark.parametrize("fault, name, module, key, wrong", PATCHED, ids=[f"{n}: {f}" for f, n, *_ in PATCHED])
def test_a_wrong_network_is_found(fault, name, module, key, wrong, monkeypatch):
    monkeypatch.setattr(importlib.import_module(module), key, wrong)
    with pytest.raises(AssertionError):
        compared(name)


@pytest.mark.parametrize("name, changed", [
    ("text_quick_gelu", dict(hidden_act="gelu")), ("text_gelu_projected", dict(hidden_act="quick_gelu")),
    ("text_gelu_projected", dict(hidden_act="gelu_tanh")), ("text_quick_gelu", dict(layer_norm_eps=1e-6)),
    ("text_quick_gelu", dict(num_attention_heads=4)), ("unet_sd1", dict(attention_head_dim=4)),
    ("unet_sd1", dict(norm_eps=1e-6)), ("unet_sd1", dict(flip_sin_to_cos=False)), ("unet_sd1", dict(freq_shift=1)),
    ("unet_sd2", dict(attention_head_dim=[2, 1, 3])), ("unet_ddpm", dict(attention_head_dim=8)),
    ("unet_ddpm", dict(norm_eps=1e-5)), ("unet_ddpm", dict(downsample_padding=1)),
    ("unet_pixels", dict(norm_num_groups=8)), ("dit_2", dict(num_heads=4)),
    ("t5", dict(relative_attention_max_distance=20)), ("t5_masked", dict(layer_norm_epsilon=1e-6)),
    ("mmdit_sd3", dict(num_attention_heads=4)), ("autoencoder_encode", dict(norm_num_groups=2)),
])  # fmt: skip
def test_a_wrong_setting_is_found(name, changed):
    with pytest.raises(AssertionError):
        compared(name, **changed)
