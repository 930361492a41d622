"""The networks of `ref` on a backend: outputs and gradients are `ref`'s, with the backend's layers and nothing else in
their place."""
import numpy as np
import pytest

from bench.studies import fit
from kernels.check import selftest
from kernels.nets import with_kernels
from kernels.numba_cpu import layers
from ref import layers as truths
from ref import tree
from ref.nets import dit, joint_dit, mlp, mmdit, t5, text, unet
from ref.nets.init import joint_dit_init, mmdit_init, text_encoder_init

UNET = dict(
    in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=2,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    attention_head_dim=8, num_class_embeds=11,
)  # fmt: skip
CROSS = UNET | dict(
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=6, num_class_embeds=None, attention_head_dim=4,
)  # fmt: skip
DIT = dict(input_size=8, patch_size=2, in_channels=1, hidden_size=24, depth=2, num_heads=3, num_classes=10)
MMDIT = dict(
    sample_size=8, patch_size=2, in_channels=2, out_channels=2, num_layers=2, num_attention_heads=2,
    attention_head_dim=12, joint_attention_dim=6, pooled_projection_dim=5, pos_embed_max_size=6, qk_norm="rms_norm",
    dual_attention_layers=(0,),
)  # fmt: skip
T5 = dict(vocab_size=20, d_model=16, d_kv=4, d_ff=20, num_layers=2, num_heads=3, relative_attention_num_buckets=8)
RNG, LABELS, T = np.random.default_rng(0), np.array([3, 10]), np.array([1, 900])
X, Z, WORDS, POOLED = (RNG.standard_normal((2, *shape)) for shape in ((1, 8, 8), (2, 8, 8), (5, 6), (5,)))
IDS = RNG.integers(0, 20, (2, 7))
NETS = {  # name: (module, parameters, forward(module, params), backward(module, dy, params, cache))
    "unet": (unet, unet.unet_init(0, UNET), lambda m, p, f: m.unet(p, f(X), T, None, UNET, LABELS),
             lambda m, dy, p, c: m.unet_backward(dy, p, c, UNET)),
    "unet with text": (unet, unet.unet_init(0, CROSS), lambda m, p, f: m.unet(p, f(X), T, f(WORDS), CROSS),
                       lambda m, dy, p, c: m.unet_backward(dy, p, c, CROSS)),
    "dit": (dit, dit.dit_init(0, **DIT), lambda m, p, f: m.dit(p, f(X), T, LABELS, DIT),
            lambda m, dy, p, c: m.dit_backward(dy, p, c, DIT)),
    "joint_dit": (joint_dit, joint_dit_init(0, 8, 2, 2, 24, 2, (5, 6)),
                  lambda m, p, f: m.joint_dit(p, f(Z), T, f(WORDS), DIT),
                  lambda m, dy, p, c: m.joint_dit_backward(dy, p, c)),
    "mmdit": (mmdit, mmdit_init(0, MMDIT), lambda m, p, f: m.mmdit(p, f(Z), T, f(WORDS), f(POOLED), MMDIT),
              lambda m, dy, p, c: m.mmdit_backward(dy, p, c, MMDIT)),
    "text": (text, text_encoder_init(0, 20, 9, 16, 2), lambda m, p, f: m.text_encoder(p, IDS, {}),
             lambda m, dy, p, c: (m.text_encoder_backward(dy, p, c, {}),)),
    "t5": (t5, t5.t5_encoder_init(0, T5), lambda m, p, f: m.t5_encoder(p, IDS, T5),
           lambda m, dy, p, c: (m.t5_encoder_backward(dy, p, c, T5),)),
    "residual": (mlp, mlp.residual_init(0, 64, 16, 2, 10, 8),
                 lambda m, p, f: m.residual(p, f(X).reshape(2, 64), T, LABELS),
                 lambda m, dy, p, c: m.residual_backward(dy, p, c)),
}  # fmt: skip


def run(module, params, forward, backward, dtype, send=np.asarray):
    """Output and gradients as one list of NumPy arrays, from a dy that is the output. send: to where the layers are."""
    params = tree.map(lambda a: send(a.astype(dtype)), params)
    y, cache = forward(module, params, lambda a: send(a.astype(dtype)))
    found = [leaf for part in backward(module, y, params, cache) if part is not None for leaf in tree.leaves(part)]
    return [fit.host(a) for a in (y, *found)]


def sender(backend):
    """NumPy's arrays, or on a card CuPy's."""
    if backend == "numba_cpu" or selftest.interpreted(backend):
        return np.asarray
    return fit.array_module(backend).asarray


@pytest.mark.parametrize("backend", ["numba_cpu", "triton_gpu"])
@pytest.mark.parametrize("name", NETS)
def test_a_network_on_kernels_is_that_network(name, backend):
    module, params, forward, backward = NETS[name]
    rng = np.random.default_rng(1)
    params = tree.map(lambda a: a + 0.3 * rng.standard_normal(a.shape), params)  # what starts at 0 hides what it gets
    truth = run(module, params, forward, backward, np.float64)
    plain = run(module, params, forward, backward, np.float32)
    ours = run(with_kernels(module, backend), params, forward, backward, np.float32, sender(backend))
    largest = max(np.abs(want).max() for want in truth)

    def worst(results):  # in units of each array; what is 0 but for rounding, in those of the largest
        errors = [np.abs(a - want).max() / (np.abs(want).max() + 0.01 * largest) for a, want in zip(results, truth)]
        return max(errors)

    assert all(a.dtype == np.float32 and a.shape == want.shape for a, want in zip(ours, truth, strict=True))
    # A product of three tf32 leaves out 2^-22 of each of its terms
    dropped = 2.0**-20 if backend == "triton_gpu" else 0
    assert worst(ours) <= 3 * worst(plain) + dropped < 1e-3


def test_the_functions_are_made_again_and_the_kernels_stand_in_them():
    net = with_kernels(unet, "numba_cpu")
    assert with_kernels(unet, "numba_cpu") is net and with_kernels(unet, "ref") is unet
    assert net.unet is not unet.unet and net.unet.__code__ is unet.unet.__code__
    assert net.conv2d is layers.conv2d and net.group_norm_silu_backward is layers.group_norm_silu_backward
    assert net.resblock.__globals__["conv2d"] is layers.conv2d  # in the functions of other modules, too
    assert net.multi_head.__globals__["attention"] is layers.attention
    assert net.feed_forward.__globals__["ACTIVATIONS"]["gelu_tanh"][1] is layers.gelu_tanh_backward  # and in tables
    assert unet.conv2d is truths.conv2d and unet.multi_head.__globals__["attention"] is truths.attention


@pytest.mark.skipif(selftest.interpreted("triton_gpu"), reason="a graph is the GPU's own")
def test_a_recorded_network_has_the_bits_of_the_plain_one_and_reads_its_parameters_anew():
    from kernels.triton_gpu import graph

    send = fit.array_module("triton_gpu").asarray
    fresh, rng = joint_dit_init(0, 8, 2, 2, 24, 2, (5, 6)), np.random.default_rng(2)
    params = tree.map(lambda a: send((a + 0.3 * rng.standard_normal(a.shape)).astype(np.float32)), fresh)
    net = with_kernels(joint_dit, "triton_gpu").joint_dit

    def y_of(x, t, words):
        return net(params, x, t, words, DIT)[0]

    recorded = graph.recorded(y_of)
    for _ in range(3):
        given = [send(rng.standard_normal(a.shape).astype(np.float32)) for a in (Z, T, WORDS)]
        assert np.array_equal(recorded(*given).get(), y_of(*given).get()) and y_of(*given).get().any()
        for leaf in tree.leaves(params):
            leaf += 0.1
