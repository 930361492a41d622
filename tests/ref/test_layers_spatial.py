"""Convolutions, normalisations, attention and patches against PyTorch's float64 autograd, and what each has to hold.

Gradients against the forward's own derivative: tests/ref/test_gradients.py.
"""
import importlib
import tracemalloc

import numpy as np
import pytest

from ref import layers
from tests import assert_close, golden

TORCH, NETS = golden("torch_ops"), golden("nets")
RNG = np.random.default_rng(3)
PAIR, CORNER = ((1, 1), (1, 1)), ((0, 1), (0, 1))
# PyTorch's case, our arguments in the order of its inputs, and what no array says
OPS = {
    "conv2d_s1p1": ("conv2d", "xwb", {}), "conv2d_s2p1": ("conv2d", "xwb", dict(stride=2)),
    "conv2d_k1": ("conv2d", "xwb", dict(padding=((0, 0), (0, 0)))), "conv2d_k4s2p1": ("conv2d", "xwb", dict(stride=2)),
    "conv3d_s1p1": ("conv3d", "xwb", {}), "conv3d_s2": ("conv3d", "xwb", dict(stride=(1, 2, 2))),
    "group_norm_g2": ("group_norm", "xwb", dict(groups=2, eps=1e-5)),
    "group_norm_gC": ("group_norm", "xwb", dict(groups=4, eps=1e-6)),
    "layer_norm": ("layer_norm", "xwb", dict(eps=1e-5)), "rms_norm": ("rms_norm", "xw", dict(eps=1e-6)),
    "layer_norm_noaffine": ("layer_norm", "x", dict(eps=1e-6, w=None, b=None)),
    "sdpa": ("attention", "qkv", {}), "sdpa_causal": ("attention", "qkv", dict(causal=True)),
    "upsample_nearest2": ("upsample_nearest", "x", dict(factor=2)),
    "gelu": ("gelu", "x", {}), "gelu_tanh": ("gelu_tanh", "x", {}),
}  # fmt: skip
OURS = {
    "conv1d_dilated_causal": ("conv1d", "xwb", dict(padding=(6, 0), dilation=3)),
    "conv1d_stride": ("conv1d", "xwb", dict(padding=(1, 2), stride=2)),
    "conv2d_corner": ("conv2d", "xwb", dict(padding=CORNER, stride=2)), "conv2d_wide": ("conv2d", "xwb", {}),
    "conv3d_uneven": ("conv3d", "xwb", dict(padding=((2, 0), (0, 2), (1, 0)), stride=(1, 2, 1))),
    "attention_causal": ("attention", "qkv", dict(causal=True)),
    "attention_mask": ("attention", "qkv", dict(mask=NETS["layers/attention_mask/mask"])),
    "layer_norm": ("layer_norm", "xwb", dict(eps=1e-6)), "rms_norm": ("rms_norm", "xw", dict(eps=1e-6)),
    "quick_gelu": ("quick_gelu", "x", {}), "geglu": ("geglu", "x", {}),
    "upsample_nearest": ("upsample_nearest", "x", dict(factor=3)), "patchify": ("patchify", "x", dict(patch=2)),
}  # fmt: skip


def compared(name, arrays, settings, out, dout, grads, rel=1e-11):
    """Our layer on these arrays, and its gradients, against theirs."""
    f, f_backward = getattr(layers, name), getattr(layers, f"{name}_backward")
    assert_close(f(**arrays, **settings), out, rel, np.abs(out).max())
    given = arrays | settings
    taken = f_backward.__code__.co_varnames[1:f_backward.__code__.co_argcount]
    found = f_backward(dout, **{key: given[key] for key in taken if key in given})
    for ours, theirs in zip(found if isinstance(found, tuple) else [found], grads):
        assert_close(ours, theirs, rel, np.abs(theirs).max())


@pytest.mark.parametrize("case", OPS)
def test_a_layer_is_pytorchs(case):
    name, keys, settings = OPS[case]
    arrays, grads = ({key: TORCH[f"{case}/{kind}/{key}"] for key in keys} for kind in ("in", "grad"))
    compared(name, arrays, settings, TORCH[f"{case}/out"], TORCH[f"{case}/gout"], grads.values())


@pytest.mark.parametrize("case", OURS)
def test_a_layer_with_uneven_settings_is_pytorchs(case):
    name, keys, settings = OURS[case]
    at = f"layers/{case}"
    arrays, grads = ({key: NETS[f"{at}/{kind}/{i}"] for i, key in enumerate(keys)} for kind in ("in", "grad"))
    compared(name, arrays, settings, NETS[f"{at}/out"], NETS[f"{at}/gout"], grads.values())


def test_a_group_norm_far_from_0_is_pytorchs():
    at = "layers/group_norm_far"
    x, w, b = (NETS[f"{at}/in/{i}"] for i in range(3))
    compared("group_norm", dict(x=x + 50, w=w, b=b), dict(groups=2, eps=1e-6), NETS[f"{at}/out"], NETS[f"{at}/gout"],
             [NETS[f"{at}/grad/{i}"] for i in range(3)])


@pytest.mark.parametrize("slices", [1, 40, 1000])
def test_slices_change_nothing(slices, monkeypatch):
    """Bands of one row, of some, and one for all; queries and heads likewise."""
    x, w, dy = RNG.standard_normal((2, 3, 7, 5)), RNG.standard_normal((4, 3, 3, 3)), RNG.standard_normal((2, 4, 4, 3))
    q, k, v = (RNG.standard_normal((2, 3, n, 4)) for n in (6, 5, 5))
    mask = RNG.random((2, 1, 6, 5)) < 0.7

    def results():
        y, da = layers.attention(q, k, v, mask, True), layers.attention_backward(q, q, k, v, mask, True)
        return [layers.conv2d(x, w, None, 2), *layers.conv2d_backward(dy, x, w, 2), y, *da]

    whole = results()
    for module in ("conv", "attention"):
        monkeypatch.setattr(importlib.import_module(f"ref.layers.{module}"), "SLICE", slices)
    for a, b in zip(results(), whole, strict=True):
        assert_close(a, b, 1e-13, np.abs(b).max())


def peak(f, *args):
    """MiB that a call holds at its peak, its results included."""
    tracemalloc.start()
    try:
        f(*args)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_large_inputs_need_no_more_memory_than_their_activations():
    """4096 queries and keys: 64 MiB of weights a head. 256 x 256 pixels of 32 channels: columns of 72 MiB."""
    q = np.zeros((1, 8, 4096, 8), np.float32)
    assert peak(layers.attention, q, q, q) < 30
    assert peak(layers.attention_backward, q[:, :1], q[:, :1], q[:, :1], q[:, :1]) < 40
    x, w = np.zeros((1, 32, 256, 256), np.float32), np.zeros((32, 32, 3, 3), np.float32)
    assert peak(layers.conv2d, x, w) < 36
    assert peak(layers.conv2d_backward, x, x, w) < 50


def two_pass_holds(group_norm, layer_norm, offset, dtype):
    """mean / std = offset costs no digits: the numbers stand exactly in their dtype with and without it."""
    x = RNG.integers(-64, 64, (2, 4, 4, 8)).astype(dtype) / 64
    far, rel = x + dtype(offset), 40 * np.finfo(dtype).eps
    for f in (lambda a: group_norm(a, 2, None, None, 1e-6), lambda a: layer_norm(a, None, None, 1e-6)):
        np.testing.assert_allclose(f(far), f(x), rtol=0, atol=rel)
        np.testing.assert_allclose(f(far * 4), f(far), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype, offset", [(np.float32, 1e4), (np.float64, 1e10), (np.float64, -1e4)])
def test_a_norm_of_a_large_mean_costs_no_digits(dtype, offset):
    two_pass_holds(layers.group_norm, layers.layer_norm, offset, dtype)


def test_a_one_pass_variance_would_be_seen():
    def one_pass(a, axes):
        mean = a.mean(axis=axes, keepdims=True)
        return (a - mean) / np.sqrt(np.maximum((a * a).mean(axis=axes, keepdims=True) - mean * mean, 0) + 1e-6)

    def group_norm(a, groups, w, b, eps):
        return one_pass(a.reshape(len(a), groups, -1), 2).reshape(a.shape)

    for dtype in (np.float32, np.float64):
        with pytest.raises(AssertionError):
            two_pass_holds(group_norm, lambda a, w, b, eps: one_pass(a, 3), 1e4 if dtype == np.float32 else 1e10, dtype)


def test_a_norm_forgets_the_scale_but_for_eps():
    x = RNG.standard_normal((2, 4, 3, 5))
    for f in (lambda a, eps: layers.group_norm(a, 2, None, None, eps), lambda a, eps: layers.rms_norm(a, None, eps),
              lambda a, eps: layers.layer_norm(a, None, None, eps)):
        assert_close(f(8 * x, 64e-5), f(x, 1e-5), 1e-13, np.abs(x).max())
    constant = np.full((1, 4, 2, 2), 3.7)
    assert not layers.group_norm(constant, 2, None, None, 1e-6).any()


def test_patches_come_back_and_hold_their_pixels():
    x = RNG.standard_normal((2, 3, 4, 6))
    y = layers.patchify(x, 2)
    assert y.shape == (2, 6, 12)
    assert np.array_equal(y[1, 4].reshape(2, 2, 3), x[1, :, 2:4, 2:4].transpose(1, 2, 0))
    assert np.array_equal(layers.unpatchify(y, 2, (4, 6)), x) and np.array_equal(layers.unpatchify(y, 2, x.shape), x)


def test_places_by_hand():
    y = layers.sincos_2d(8, (2, 3))
    assert y.shape == (6, 8)
    row, column = 1, 2
    angle = np.array([column, column / 100, row, row / 100])
    expected = np.concatenate([np.sin(angle[:2]), np.cos(angle[:2]), np.sin(angle[2:]), np.cos(angle[2:])])
    assert_close(y[5], expected)


def test_rope_turns_and_knows_only_how_far_apart_two_rows_are():
    q, k = RNG.standard_normal((2, 1, 6))
    product = [layers.rope(q, np.array([t])) @ layers.rope(k, np.array([t + 3])).T for t in (0, 1, 50)]
    assert_close(np.array(product), np.full((3, 1, 1), product[0][0, 0]))
    assert_close(layers.rope(np.array([[1.0, 0, 1.0, 0]]), np.array([2])),
                 np.array([[np.cos(2), np.sin(2), np.cos(0.02), np.sin(0.02)]]))


@pytest.mark.parametrize("shift, flip", [(0, True), (1, False)])
def test_sinusoids_of_published_networks(shift, flip):
    y = layers.time_embedding(np.array([999]), 4, freq_shift=shift, flip_sin_to_cos=flip)
    angle = np.array([999, 999 * 10000.0 ** (-1 / (2 - shift))])
    assert_close(y[0], np.concatenate([np.cos(angle), np.sin(angle)] if flip else [np.sin(angle), np.cos(angle)]))
