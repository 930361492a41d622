"""Every registered operation of the Triton backend against the truth: on the GPU where there is one, else in Triton's
interpreter on small arrays. A GPU that is there and fails is a failure.
"""
import importlib.util
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed, so its kernels are not tested", allow_module_level=True)

from kernels import registry, tolerance
from kernels.triton_gpu import arrays, device, diffusion, fused, gan, launch, optim, philox, reduce, rowwise, vae
from ref import gan as truth_gan
from ref import philox as truth_philox
from ref import schedules

pytestmark = pytest.mark.interpreter if device.INTERPRETED else pytest.mark.gpu

OPS = [op for op in registry.OPS if registry.kernel(op, "triton_gpu") and not op.orders]  # the loops are in test_triton_gpu_mlp
CASES = [pytest.param(op, dtype, id=f"{op.name}-{dtype}") for op in OPS for dtype in registry.dtypes(op, "triton_gpu")]
ELEMENTWISE = [op for op in OPS if op.rowwise]
SEND, RECEIVE = registry.carriers("triton_gpu")
ABAR = schedules.alpha_bar(schedules.linear_betas())
GUARD, BLOCK = 16, rowwise.BLOCK  # the guards keep a view's alignment
ON_GPU = [] if device.INTERPRETED else [(7, 3, 64, 64), (3, 40_000), (61, 784)]
SHAPES = st.one_of(
    st.lists(st.integers(0, 6), min_size=1, max_size=4).map(tuple),
    st.sampled_from([(BLOCK - 1,), (BLOCK,), (BLOCK + 1,), (3, BLOCK), (2, BLOCK + 7), (5, 5, 5), (7, 293), (1, 1), *ON_GPU]),
)


def kernel(op):
    return registry.kernel(op, "triton_gpu")


def make(op, shape, dtype="float32", seed=0, values="normal", **options):
    return op.make(np.random.default_rng(seed), shape, dtype, values, **options)


def run(op, arguments, dtype="float32", **extra):
    return [RECEIVE(r) for r in registry.call(op, kernel(op), registry.sent(arguments, SEND), dtype, **extra)]


def poisoned(shape, dtype, shift):
    """Memory full of NaN (of ones, for words) on the host, and the slice in it that a view of shape is."""
    size = int(np.prod(shape))
    memory = np.full(size + 2 * GUARD, 0xFFFFFFFF, np.uint32) if dtype == "uint32" else np.full(size + 2 * GUARD, np.nan, registry.like(dtype))
    return memory, slice(GUARD + shift, GUARD + shift + size)


def untouched(memory, place):
    outside = np.delete(np.asarray(memory), np.arange(place.start, place.stop))
    return np.all(outside == 0xFFFFFFFF) if outside.dtype == np.uint32 else np.all(np.isnan(outside.astype(np.float64)))


@pytest.mark.parametrize("op, dtype", CASES)
@settings(max_examples=15 if device.INTERPRETED else 25)  # the interpreter takes a thousand times as long
@given(data=st.data())
def test_kernel_equals_truth(op, dtype, data):
    shape = data.draw(SHAPES.filter(lambda s: op.empty or 0 not in s), "shape")
    options = {name: data.draw(st.sampled_from(choices), name) for name, choices in op.options.items()}
    values = data.draw(st.sampled_from(registry.VALUES), "values")
    arguments = make(op, shape, dtype, data.draw(st.integers(0, 2**32), "seed"), values, **options)
    expected = registry.expected(op, arguments, dtype)

    placed, memories, shift = registry.sent(arguments, SEND), [], data.draw(st.integers(0, 3), "elements before each array")
    for name, value in registry.arrays(arguments).items():
        if name in placed and value.size:
            memory, place = poisoned(shape, dtype, shift)
            memory[place] = value.reshape(-1)
            whole = SEND(memory)
            placed[name] = whole[place].reshape(shape)
            memories.append((whole, memory.copy()))
    results = [RECEIVE(r) for r in registry.call(op, kernel(op), placed, dtype)]
    pick = data.draw(st.integers(0, 2**16), "the element that is moved")
    for result, rule in zip(results, expected, strict=True):
        tolerance.assert_matches(result, rule, pick)

    if op.writes and op.name != "optim.clip_by_global_norm" and 0 not in shape:
        fresh = [poisoned(shape, dtype, shift) for _ in range(op.writes)]
        wholes = [SEND(memory) for memory, _ in fresh]
        views = [whole[place].reshape(shape) for whole, (_, place) in zip(wholes, fresh)]
        again = registry.call(op, kernel(op), placed, dtype, out=tuple(views) if op.writes > 1 else views[0])
        assert all(any(a is view for a in again) for view in views), "the result is out itself"
        for a, b in zip(map(RECEIVE, again), results):
            assert np.array_equal(a.astype(np.float64), np.asarray(b, np.float64), equal_nan=True), "the same bits with and without out"
        assert all(untouched(RECEIVE(whole), place) for whole, (_, place) in zip(wholes, fresh)), "memory outside out was written"
    for whole, before in memories:
        assert np.array_equal(RECEIVE(whole).astype(np.float64), before.astype(np.float64), equal_nan=True), "an input was written"


@pytest.mark.parametrize("op, dtype", CASES)
@pytest.mark.parametrize("shape", [(2, 2 * BLOCK)] if device.INTERPRETED else [(2, 3, 256, 256), (5, 99_991), (257, 784)], ids=str)
def test_a_large_array_equals_truth(op, dtype, shape):
    arguments = make(op, shape, dtype, **{n: c[-1] for n, c in op.options.items()})
    for result, rule in zip(run(op, arguments, dtype), registry.expected(op, arguments, dtype), strict=True):
        tolerance.assert_matches(result, rule)


@pytest.mark.parametrize("op, dtype", CASES)
def test_same_bits_on_every_run(op, dtype):
    arguments = make(op, (3, 3 * BLOCK + 5) if device.INTERPRETED else (3, 1_000_003), dtype, **{n: c[-1] for n, c in op.options.items()})
    first = run(op, arguments, dtype)
    for _ in range(2 if device.INTERPRETED else 20):
        for a, b in zip(run(op, arguments, dtype), first):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
@pytest.mark.parametrize("n", [21, BLOCK, BLOCK + 3], ids="n={}".format)
def test_a_row_alone_is_a_row_of_the_batch(op, n):
    """And of a table of coefficients, whichever way the rows lie in the programs."""
    arguments = make(op, (5, n), **{name: c[-1] for name, c in op.options.items() if name != "times"})
    alone = dict(arguments) | {name: np.ascontiguousarray(a[:1]) for name, a in registry.arrays(arguments).items()}
    alone |= {name: arguments[name][:1] for name in registry.PER_EXAMPLE if isinstance(arguments.get(name), np.ndarray)}
    for a, b in zip(run(op, arguments), run(op, alone)):
        if isinstance(a, np.ndarray) and a.ndim:
            assert np.array_equal(a[:1], b)


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_nan_in_one_example_changes_only_that_example(op):
    arguments = make(op, (5, 40), **{n: c[-1] for n, c in op.options.items() if n != "schedule"})
    if "s" in arguments and "abar" in arguments:
        arguments |= dict(t=np.arange(10, 15), s=np.arange(5, 10)) | (dict(u=np.arange(15, 20)) if "u" in arguments else {})  # where s = 0, z would not be looked at
    clean = run(op, arguments)
    for name in registry.arrays(arguments):
        spoiled = dict(arguments) | {name: arguments[name].copy()}
        spoiled[name][2] = np.nan
        touched = False
        for a, b in zip(run(op, spoiled), clean):
            if isinstance(a, np.ndarray) and a.ndim == 2:
                others = np.arange(5) != 2
                assert np.array_equal(a[others], b[others])
                touched |= bool(np.all(np.isnan(a[2])))
        assert touched, f"NaN in {name} was turned into a number"


def test_a_kernel_may_write_over_its_inputs_where_it_is_told_to():
    op = next(op for op in registry.OPS if op.name == "fused.adam_ema_step")
    arguments = make(op, (3, 1000))
    fresh = run(op, arguments)
    mine = registry.sent(arguments, SEND)
    op_names = ("p", "m", "v", "avg")
    fused.adam_ema_step(**mine, out=tuple(mine[n] for n in op_names))
    for name, want in zip(op_names, fresh):
        assert np.array_equal(RECEIVE(mine[name]), want)


def test_the_last_step_does_not_look_at_its_noise():
    x, spoiled = SEND(np.ones((4, 6), np.float32)), SEND(np.full((4, 6), np.nan, np.float32))
    assert not np.any(np.isnan(RECEIVE(diffusion.ddpm_step(x, x, 5, 0, spoiled, ABAR, variance="large"))))
    assert not np.any(np.isnan(RECEIVE(diffusion.ddim_step(x, x, np.arange(5, 9), np.zeros(4, int), spoiled, 1.0, ABAR))))
    assert not np.any(np.isnan(RECEIVE(diffusion.ddim_step(x, x, 5, 4, None, 0.0, ABAR))))


@pytest.mark.parametrize("name", ["vae.reparameterize_kl", "vae.bernoulli_nll_grad"])
def test_a_long_example_is_summed_in_parts(name):
    op = next(op for op in registry.OPS if op.name == name)
    arguments = make(op, (2, reduce.EXAMPLE_BLOCK * (reduce.TILES + 1) + 5))
    for result, rule in zip(run(op, arguments), registry.expected(op, arguments, "float32"), strict=True):
        tolerance.assert_matches(result, rule)


def test_real_and_fake_logits_may_differ_in_number():
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((3, 700)).astype(np.float32), rng.standard_normal(9 * BLOCK + 1).astype(np.float32)
    loss, dreal, dfake = map(RECEIVE, gan.discriminator_loss_grad(SEND(real), SEND(fake)))
    want = truth_gan.discriminator_loss_grad(real, fake)
    assert float(loss) == pytest.approx(want[0], rel=1e-6)
    for got, g in ((dreal, want[1]), (dfake, want[2])):
        tolerance.assert_matches(got, tolerance.rule(g, np.abs(g), 4, "float32"))


WORDS = np.array([0, 1, 2, 0x7F, 0x100, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xBFFFFFFF, 0xC0000000, 0x3FFFFFFF, 0x40000000,
                  0xFFFFFF7F, 0xFFFFFF80, 0xFFFFFE80, 0xFFFFFFFF], np.uint32)  # fmt: skip


def test_normals_keep_their_bound_on_the_edge_words_and_on_many():
    """|error| <= 3 eps |z| for every pair of edge words (u next to 0 and 1, a at quarter turns), and on many draws."""
    import triton
    import triton.language as tl

    @triton.jit
    def pairs(out, w0, w1, N: tl.constexpr):
        i = tl.arange(0, N)
        z0, z1 = philox.pair32(tl.load(w0 + i), tl.load(w1 + i))
        tl.store(out + i, z0)
        tl.store(out + N + i, z1)

    w0, w1 = (w.reshape(-1).copy() for w in np.meshgrid(WORDS, WORDS))
    u, a = truth_philox._u01(w1), truth_philox._uneg11(w0)
    r, (sin, cos) = np.sqrt(-2 * np.log(u)), truth_philox._sincospi(a)
    out, like_w = SEND(np.zeros((2, 256), np.float32)), arrays.read(("uint32",), w0=SEND(w0), w1=SEND(w1))
    launch.run(pairs, 1, like_w, arrays.read(("float32",), out=out).pointers[0], *like_w.pointers, N=256)
    want = np.stack([r * sin, r * cos])
    assert np.all(np.abs(RECEIVE(out) - want) <= 3 * 2.0**-23 * np.abs(want))
    size = 1 << 16 if device.INTERPRETED else 1 << 24
    want = truth_philox.normal(5, size)
    assert np.all(np.abs(RECEIVE(philox.normal(5, size)) - want) <= 3 * 2.0**-23 * np.abs(want))


@pytest.mark.parametrize("block", [2**32 - 256, 2**32])
def test_normals_past_the_carry_into_the_second_counter_word(block):
    """Element 2^34 is the first of block 2^32. A program makes 256 blocks."""
    import triton
    import triton.language as tl

    @triton.jit(do_not_specialize=["program", "k0", "k1", "s0", "s1"])
    def far(out, program, k0, k1, s0, s1, BLOCK: tl.constexpr):
        tl.store(out + tl.arange(0, BLOCK), philox.normals_of(out, program, (k0, k1, s0, s1), BLOCK))

    key = np.array([1, 2, 3, 4], np.uint32)
    counter = np.empty((BLOCK // 4, 4), np.uint32)
    numbers = block + np.arange(BLOCK // 4, dtype=np.uint64)
    counter[:, 0], counter[:, 1], counter[:, 2:] = numbers & np.uint64(0xFFFFFFFF), numbers >> np.uint64(32), key[2:]
    w = truth_philox.philox4x32(counter, key[:2]).reshape(-1)
    u, a = truth_philox._u01(w[1::2]), truth_philox._uneg11(w[0::2])
    r, (sin, cos) = np.sqrt(-2 * np.log(u)), truth_philox._sincospi(a)
    want = np.stack([r * sin, r * cos], axis=-1).reshape(-1)
    out = SEND(np.zeros(BLOCK, np.float32))
    like = arrays.read(("float32",), out=out)
    launch.run(far, 1, like, *like.pointers, block // (BLOCK // 4), *key.view(np.int32).tolist(), BLOCK=BLOCK)
    assert np.all(np.abs(RECEIVE(out) - want) <= 3 * 2.0**-23 * np.abs(want))


X = np.ones((4, 6), np.float32)
BAD = {
    "a list": (dict(x0=X.tolist()), TypeError, "x0: expected a NumPy array, got list" if device.INTERPRETED else "x0: expected an array on a GPU .* got list"),
    "NaN in abar": (dict(abar=np.where(np.arange(1001) == 2, np.nan, ABAR)), ValueError, "abar"),
    "integers": (dict(x0=X.astype(np.int32)), TypeError, "x0"),
    "double": (dict(x0=X.astype(np.float64)), TypeError, "x0"),
    "mixed dtypes": (dict(eps=X.astype(np.float16)), TypeError, "eps"),
    "unequal shapes": (dict(eps=X[:3]), ValueError, "x0.*eps"),
    "a shape that would broadcast": (dict(eps=X[:, :1].copy()), ValueError, "x0.*eps"),
    "t too large": (dict(t=1001), ValueError, "t"),
    "t negative": (dict(t=np.array([0, 1, -1, 2])), ValueError, "t"),
    "t a float": (dict(t=1.5), TypeError, "t"),
    "t of another length": (dict(t=np.array([1, 2, 3])), ValueError, "t"),
    "out of another shape": (dict(out=X[:2].copy()), ValueError, "out"),
    "out of another dtype": (dict(out=X.astype(np.float16)), TypeError, "out"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_rejected_before_anything_is_written(name):
    change, error, argument = BAD[name]
    out = SEND(np.full((4, 6), 7, np.float32))
    change = {k: SEND(v) if isinstance(v, np.ndarray) and k != "t" else v for k, v in change.items()}
    with pytest.raises(error, match=rf"\b{argument}\b"):
        diffusion.q_sample(**(dict(x0=SEND(X), t=np.arange(4), eps=SEND(X), abar=ABAR, out=out) | change))
    assert np.all(RECEIVE(out) == 7)


def test_an_array_of_the_other_machine_is_rejected():
    if device.INTERPRETED:
        class OnGpu:
            __cuda_array_interface__ = dict(shape=(4, 6), typestr="<f4", data=(0, False), version=3)

        OnGpu.__module__ = "cupy"
        sys.modules.setdefault("cupy", type(sys)("cupy"))
        sys.modules["cupy"].empty = sys.modules["cupy"].asarray = sys.modules["cupy"].asnumpy = None
        try:
            with pytest.raises(TypeError, match=r"\bx0\b"):
                diffusion.q_sample(OnGpu(), 5, X, ABAR)
        finally:
            del sys.modules["cupy"]
    else:
        with pytest.raises(TypeError, match=r"\bx0\b"):
            diffusion.q_sample(X, 5, X, ABAR)


def test_strides_and_overlaps_are_refused():
    strided, other = SEND(np.ones((8, 6), np.float32))[::2], SEND(X)
    with pytest.raises(ValueError, match=r"\bx0\b"):
        diffusion.q_sample(strided, 5, strided, ABAR)
    memory = SEND(np.zeros(200, np.float32))
    with pytest.raises(ValueError, match=r"\bout\b"):
        diffusion.q_sample(memory[:24].reshape(4, 6), 5, other, ABAR, out=memory[8:32].reshape(4, 6))


REFUSED = {
    "two results in one array": (lambda x: diffusion.q_sample_backward(x, 5, ABAR, out=(x, x)), "out"),
    "s = t": (lambda x: diffusion.ddpm_step(x, x, 5, 5, x, ABAR), "s"),
    "history without its time": (lambda x: fused.guided_dpmpp_2m_step(x, x, x, 1.0, x, None, 5, 4, ABAR), "x0_last.*u"),
    "flow past the noise": (lambda x: fused.guided_flow_step(x, x, x, 1.0, 1.5, 0.5), "s"),
    "sigma_next = 0": (lambda x: fused.heun_step(x, x, x, 1.0, 0.0), "sigma_next"),
    "two halves in one array": (lambda x: fused.guided_dpmpp_2m_step(x, x, x, 1.0, None, None, 5, 4, ABAR, out=(x, x)), "out"),
    "eta above 1": (lambda x: fused.guided_ddim_step(x, x, x, 1.0, 5, 4, 0, 1.1, ABAR), "eta"),
    "clip = 0": (lambda x: diffusion.ddpm_step(x, x, 5, 4, x, ABAR, clip=0), "clip"),
    "a seed below 0": (lambda x: philox.normal(-1, 4), "seed"),
    "nothing to average": (lambda x: fused.eps_loss_noise(SEND(X[:0].copy()), 0), "0, 6"),
    "dkl of another length": (lambda x: vae.reparameterize_kl_backward(x, np.ones(3), x, x, x), "dkl"),
    "both gradients in one array": (lambda x: gan.discriminator_loss_grad(x, SEND(X.copy()), out=(x, x)), "out"),
    "a gradient over logits still to be read": (lambda x: gan.discriminator_loss_grad(SEND(X.copy()), x, out=(x, SEND(X.copy()))), "out"),
    "step 0 of Adam": (lambda x: optim.adam_step(x, x, x, x, 0, 1e-3, 0.9, 0.999, 1e-8, 0.0), "step"),
    "max_norm = 0": (lambda x: optim.clip_by_global_norm([x], 0.0), "max_norm"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_exist_is_refused(name):
    call, argument = REFUSED[name]
    with pytest.raises(ValueError, match=rf"\b{argument}\b"):
        call(SEND(X))


def test_float64_normals_are_refused():
    with pytest.raises(TypeError, match=r"\bdtype\b"):
        philox.normal(0, 4, dtype=np.float64)


def test_grads_may_be_a_dict_and_an_empty_one_among_them():
    grads = {"w": SEND(X), "b": SEND(2 * X), "none": SEND(X[:0].copy())}
    clipped = {name: RECEIVE(g) for name, g in optim.clip_by_global_norm(grads, 1.0).items()}
    assert list(clipped) == ["w", "b", "none"] and np.sum(clipped["w"] ** 2 + clipped["b"] ** 2) == pytest.approx(1)


if not device.INTERPRETED:

    @pytest.mark.parametrize("library", ["cupy", "torch", "jax"])
    def test_what_comes_back_is_of_the_kind_that_went_in(library):
        module = importlib.import_module(library)
        x = {"cupy": lambda: module.asarray(X), "torch": lambda: module.from_numpy(X).cuda(), "jax": lambda: module.device_put(X)}[library]()
        got = fused.q_sample_noise(x, np.arange(1, 5), 3, ABAR)
        assert type(got) is type(x)
        want = registry.expected(next(op for op in registry.OPS if op.name == "fused.q_sample_noise"),
                                 dict(x0=X, t=np.arange(1, 5), seed=3, abar=ABAR, stream=0), "float32")[0]
        tolerance.assert_matches(np.asarray(arrays.receive(got)), want)

    def test_more_elements_than_32_bits_count():
        """2^31 + 3 in float16: the elements around 2^31 and the last ones, whose noise is of the blocks past 2^29."""
        size = 2**31 + 3
        from numba import cuda

        x0 = cuda.device_array(size, np.float16)
        philox.normal(1, size, dtype=np.float16, out=x0)
        out = fused.q_sample_noise(x0, 500, 7, ABAR, out=x0)
        first = 2**31 - 1024
        blocks = np.arange(first // 4, -(-size // 4), dtype=np.uint64)

        def normals(seed):
            counter = np.zeros((blocks.size, 4), np.uint32)
            counter[:, 0] = blocks
            w = truth_philox.philox4x32(counter, np.array([seed, 0], np.uint32)).reshape(-1)
            u, a = truth_philox._u01(w[1::2]), truth_philox._uneg11(w[0::2])
            r, (sin, cos) = np.sqrt(-2 * np.log(u)), truth_philox._sincospi(a)
            return np.stack([r * sin, r * cos], axis=-1).reshape(-1)[: size - first]

        c0, c1 = np.sqrt(ABAR[500]), np.sqrt(1 - ABAR[500])
        data, noise = normals(1).astype(np.float16).astype(np.float64), normals(7)
        rule = tolerance.rule(c0 * data + c1 * noise, c0 * np.abs(data) + c1 * np.abs(noise), 1.6, "float16")  # data rounded twice
        tolerance.assert_matches(out[first:].copy_to_host(), rule)


def test_no_torch_was_needed():
    """The last test of this file: everything above ran in the interpreter without it."""
    assert not device.INTERPRETED or "torch" not in sys.modules
