"""What is special to the Triton kernels: arrays of a device, parts of sums, programs that wait for each other.

They run on the GPU where there is one, else in Triton's interpreter. A GPU that is there and fails is a failure.
"""
import importlib
import os
import sys

import numpy as np
import pytest

from tests.kernels.backends import (
    ABAR, BACKENDS, BLOCK, EDGES, TRITON, make, named, near, normals, normals_of_blocks, run,
)  # fmt: skip

if not TRITON:
    pytest.skip("triton is not installed, so its kernels are not tested", allow_module_level=True)

import triton
import triton.language as tl

from kernels import registry, tolerance
from kernels.triton_gpu import arrays, barrier, device, diffusion, fused, gan, launch, philox, reduce, sort
from kernels.triton_gpu import layers as gpu_layers
from kernels.triton_gpu.bfloat16 import Bfloat16
from ref import layers
from ref import philox as truth_philox

pytestmark = pytest.mark.interpreter if device.INTERPRETED else pytest.mark.gpu
GPU_ONLY = pytest.mark.skipif(device.INTERPRETED, reason="needs a GPU")
SEND, RECEIVE = registry.carriers("triton_gpu")
X = np.ones((4, 6), np.float32)


def results(name, shape, **options):
    """Of a kernel on the data of its record."""
    return run(BACKENDS[1], named(name), make(named(name), shape, **options))


@pytest.mark.parametrize("name", ["vae.reparameterize_kl", "vae.bernoulli_nll_grad"])
def test_long_example_is_summed_in_parts(name):
    op, shape = named(name), (2, reduce.EXAMPLE_BLOCK * (reduce.TILES + 1) + 5)
    for result, rule in zip(results(name, shape), registry.expected(op, make(op, shape), "float32"), strict=True):
        tolerance.assert_matches(result, rule)


def test_normals_keep_their_bound():
    """For every pair of edge words, and on many draws."""

    @triton.jit
    def pairs(out, w0, w1, N: tl.constexpr):
        i = tl.arange(0, N)
        z0, z1 = philox.pair32(tl.load(w0 + i), tl.load(w1 + i))
        tl.store(out + i, z0)
        tl.store(out + N + i, z1)

    words = np.stack(np.meshgrid(EDGES, EDGES), axis=-1).reshape(-1, 2)
    w0, w1 = map(SEND, np.ascontiguousarray(words.T))
    out, like = SEND(np.zeros((2, 256), np.float32)), arrays.read(("uint32",), w0=w0, w1=w1)
    launch.run(pairs, 1, like, arrays.read(("float32",), out=out).pointers[0], *like.pointers, N=256)
    assert near(RECEIVE(out).T, normals(words))
    size = 1 << (16 if device.INTERPRETED else 24)
    assert near(RECEIVE(philox.normal(5, size)), truth_philox.normal(5, size))


@pytest.mark.parametrize("block", [2**32 - 256, 2**32])
def test_normals_carry_into_the_second_counter_word(block):
    """Element 2^34 is the first of block 2^32. A program makes 256 blocks."""

    @triton.jit(do_not_specialize=["program", "k0", "k1", "s0", "s1"])
    def far(out, program, k0, k1, s0, s1, BLOCK: tl.constexpr):
        tl.store(out + tl.arange(0, BLOCK), philox.normals_of(out, program, (k0, k1, s0, s1), BLOCK))

    key, out = np.array([1, 2, 3, 4], np.uint32), SEND(np.zeros(BLOCK, np.float32))
    like = arrays.read(("float32",), out=out)
    launch.run(far, 1, like, *like.pointers, block // (BLOCK // 4), *key.view(np.int32).tolist(), BLOCK=BLOCK)
    assert near(RECEIVE(out), normals_of_blocks(block + np.arange(BLOCK // 4, dtype=np.uint64), key))


def test_array_of_the_other_machine_is_refused(monkeypatch):
    class OnGpu:
        __cuda_array_interface__ = dict(shape=(4, 6), typestr="<f4", data=(0, False), version=3)

    x0 = X
    if device.INTERPRETED:
        OnGpu.__module__, x0, cupy = "cupy", OnGpu(), type(sys)("cupy")
        cupy.empty = cupy.asarray = cupy.asnumpy = None
        monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(TypeError, match=r"\bx0\b"):
        diffusion.q_sample(x0, 5, X, ABAR)
    wanted = "a NumPy array" if device.INTERPRETED else "an array on a GPU"
    with pytest.raises(TypeError, match=rf"\bx0\b.*{wanted}.*\blist\b"):
        diffusion.q_sample([1.0], 5, X, ABAR)


def test_strides_and_overlaps_are_refused():
    strided, memory, x = SEND(np.ones((8, 6), np.float32))[::2], SEND(np.zeros(200, np.float32)), SEND(X)
    with pytest.raises(ValueError, match=r"\bx0\b"):
        diffusion.q_sample(strided, 5, strided, ABAR)
    with pytest.raises(ValueError, match=r"\bout\b"):
        diffusion.q_sample(memory[:24].reshape(4, 6), 5, x, ABAR, out=memory[8:32].reshape(4, 6))
    with pytest.raises(ValueError, match=r"\bout\b"):  # over logits that are still to be read
        gan.discriminator_loss_grad(SEND(X.copy()), x, out=(x, SEND(X.copy())))


@pytest.mark.parametrize("name", ["diffusion.q_sample", "layers.group_norm_silu", "layers.attention_backward"])
def test_bfloat16_in_memory_of_integers_is_bfloat16(name):
    """Without a library that has the dtype: the same bits as with one, in `out` too."""
    op = named(name)
    arguments = make(op, (2, 4, 5, 8), "bfloat16", **{n: c[0] for n, c in op.options.items()})
    integers = registry.sent(arguments, lambda a: a if a.dtype == bool else whole(a))
    results = registry.call(op, registry.kernel(op, "triton_gpu"), integers, "bfloat16")
    assert all(isinstance(r, Bfloat16) for r in results)
    for result, want in zip(results, run(BACKENDS[1], op, arguments, "bfloat16"), strict=True):
        assert np.array_equal(RECEIVE(result), np.float32(want)) and result.reshape(-1)[:3].shape == (3,)
    out = tuple(whole(np.zeros(r.shape, np.int16)) for r in results)
    again = registry.kernel(op, "triton_gpu")(**integers, out=out if len(out) > 1 else out[0])
    assert all(a is o for a, o in zip(registry.outputs(again), out))


def whole(a):
    """bfloat16 of NumPy as integers where the kernels are."""
    return Bfloat16(SEND(a.view(np.int16)))


def test_bfloat16_of_other_memory_is_refused():
    with pytest.raises(TypeError, match=r"\bbits\b.*float32"):
        Bfloat16(SEND(X))
    memory = whole(np.zeros(24, registry.like("bfloat16")))
    with pytest.raises(TypeError, match=r"\bdtype\b|float32"):
        diffusion.q_sample(SEND(X), 5, SEND(X), ABAR, out=memory.reshape(4, 6))
    with pytest.raises(TypeError, match=r"\beps\b.*bfloat16"):
        diffusion.q_sample(memory.reshape(4, 6), 5, SEND(X), ABAR)
    z = philox.normal(3, (4, 6), dtype="bfloat16", out=memory.reshape(4, 6))
    assert np.array_equal(RECEIVE(z), np.float32(truth_philox.normal(3, (4, 6)).astype(registry.like("bfloat16"))))


def test_float64_normals_are_refused():
    with pytest.raises(TypeError, match=r"\bdtype\b"):
        philox.normal(0, 4, dtype=np.float64)


@pytest.mark.parametrize("sound", [True, False])
@pytest.mark.parametrize("before", [None, "0"])
def test_an_unsound_assembler_is_given_no_wgmma(sound, before, monkeypatch):
    name = "DISABLE_MMA_V3"
    monkeypatch.setattr(device, "sound", lambda: sound)
    monkeypatch.setenv(name, before) if before else monkeypatch.delenv(name, raising=False)
    with device.products():
        assert os.environ.get(name) == (before if sound else "1")
    assert os.environ.get(name) == before


@GPU_ONLY
@pytest.mark.parametrize("library", ["cupy", "torch", "jax"])
def test_result_is_of_the_kind_of_the_input(library, request):
    if library in request.config.getoption("without"):
        pytest.skip(f"asked for without {library}")
    module = importlib.import_module(library)
    send = {"cupy": "asarray", "torch": "from_numpy", "jax": "device_put"}
    x = getattr(module, send[library])(X)
    x = x.cuda() if library == "torch" else x
    arguments = dict(t=np.arange(1, 5), seed=3, abar=ABAR, stream=0)
    got = fused.q_sample_noise(x, **arguments)
    assert type(got) is type(x)
    (rule,) = registry.expected(named("fused.q_sample_noise"), dict(x0=X, **arguments), "float32")
    tolerance.assert_matches(np.asarray(arrays.receive(got)), rule)


@GPU_ONLY
def test_more_elements_than_32_bits_count():
    """2^31 + 3 in float16: the elements around 2^31 and the last ones, whose noise is of the blocks past 2^29."""
    size, first = 2**31 + 3, 2**31 - 1024
    x0 = philox.normal(1, size, dtype=np.float16)
    out = fused.q_sample_noise(x0, 500, 7, ABAR, out=x0)
    blocks, c0, c1 = np.arange(first // 4, -(-size // 4), dtype=np.uint64), np.sqrt(ABAR[500]), np.sqrt(1 - ABAR[500])
    data, noise = (normals_of_blocks(blocks, np.array([n, 0, 0, 0], np.uint32))[: size - first] for n in (1, 7))
    data = data.astype(np.float16).astype(np.float64)
    size = c0 * np.abs(data) + c1 * np.abs(noise)
    rule = tolerance.rule(c0 * data + c1 * noise, size, 1.6, "float16")  # data is rounded twice
    tolerance.assert_matches(RECEIVE(out[first:]), rule)


@pytest.mark.skipif(not device.INTERPRETED, reason="its keys are in memory of the host")
def test_a_search_among_more_keys_than_half_of_int32():
    keys = np.zeros(2**30 + 5, np.int32)  # 4 GiB of which only the pages that the search reads are ever real
    pointer = arrays.HostPointer(keys.ctypes.data, "int32", keys)
    begin = sort.segment_begins(pointer, keys.size, 1, arrays.read(arrays.SINGLE, x=SEND(X)))
    assert begin.owner.view(np.int32)[:2].tolist() == [0, keys.size]


@GPU_ONLY
@pytest.mark.parametrize("told", [{}, {"clip": 1.0}], ids=str)
def test_launch_that_waits_in_vain_says_so(told, monkeypatch):
    sample = dict(width=256, steps=50, **told)
    monkeypatch.setattr(barrier, "PATIENCE", 0)
    assert np.isnan(results("fused.mlp_sample", (64, 784), **sample)).all()
    with pytest.raises(RuntimeError, match=r"\bmlp_train\b"):
        results("fused.mlp_train", (50, 784), steps=3, batch=128, width=256)
    monkeypatch.undo()
    assert np.isfinite(results("fused.mlp_sample", (64, 784), **sample)).all()


@GPU_ONLY
def test_more_programs_than_fit_are_refused_with_their_number(monkeypatch):
    monkeypatch.setattr(launch, "processors", lambda near: 10**5)
    with pytest.raises(RuntimeError, match=r"\d+ programs.* \d+ "):
        results("fused.mlp_sample", (40_000, 784), width=256, clip=1.0)
    monkeypatch.undo()
    assert np.isfinite(results("fused.mlp_sample", (64, 784), width=256, clip=1.0)).all()


def test_no_torch_was_needed():
    """The last test of this file: everything above ran in the interpreter without it."""
    assert not device.INTERPRETED or "torch" not in sys.modules


@pytest.mark.parametrize("settings", [{}, dict(max_period=100.0, freq_shift=1, flip_sin_to_cos=True)])
def test_time_embedding_is_the_truth_rounded_to_float32(settings):
    t = np.array([0.0, 0.3, 1.0, 17.0, 999.7])
    for given in (t, SEND(t), SEND(t.astype(np.int64))):
        found, wanted = gpu_layers.time_embedding(given, 32, **settings), RECEIVE(given)
        np.testing.assert_allclose(RECEIVE(found), layers.time_embedding(wanted, 32, **settings), atol=2.0**-24)
    with pytest.raises(ValueError, match="width"):
        gpu_layers.time_embedding(t, 5)


def test_an_index_that_is_no_class_is_refused_on_the_host_and_nan_on_the_gpu():
    w, index = np.ones((3, 5), np.float32), np.array([[2, 3], [-1, 0]])
    if device.INTERPRETED:
        with pytest.raises(ValueError, match="index"):
            gpu_layers.embedding(w, index)
    else:
        found = RECEIVE(gpu_layers.embedding(SEND(w), SEND(index)))
        assert np.isnan(found[[0, 1], [1, 0]]).all() and (found[[0, 1], [0, 1]] == 1).all()
