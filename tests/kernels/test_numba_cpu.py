"""Every registered operation of the Numba backend against the truth, and the promises that all of them make."""
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from kernels import registry, tolerance
from kernels.check import memory, selftest
from kernels.numba_cpu import diffusion, fused, gan, engine, optim, philox, vae
from ref import gan as truth_gan
from ref import philox as truth_philox
from ref import schedules

CASES = [pytest.param(op, dtype, id=f"{op.name}-{dtype}") for op in registry.OPS for dtype in op.dtypes]
ELEMENTWISE = [
    op for op in registry.OPS
    if op.name.split(".")[0] != "philox" and "loss" not in op.name and "norm" not in op.name
]  # fmt: skip
ABAR = schedules.alpha_bar(schedules.linear_betas())
CHUNK = engine.CHUNK

SHAPES = st.one_of(
    st.lists(st.integers(0, 6), min_size=1, max_size=5).map(tuple),
    st.sampled_from([(CHUNK - 1,), (CHUNK,), (CHUNK + 1,), (3, CHUNK), (5, 5, 5), (7, 293), (2, 3, 31, 31), (1, 1), (2053,)]),
)


def numba_kernel(op):
    return registry.kernel(op, "numba_cpu")


def make(op, shape, dtype="float32", seed=0, values="normal", **options):
    return op.make(np.random.default_rng(seed), shape, dtype, values, **options)


def test_every_operation_has_a_numba_kernel():
    assert [op.name for op in registry.OPS if numba_kernel(op) is None] == []


@pytest.mark.parametrize("op, dtype", CASES)
@given(data=st.data())
def test_kernel_equals_truth(op, dtype, data):
    shape = data.draw(SHAPES.filter(lambda s: op.empty or 0 not in s), "shape")
    options = {name: data.draw(st.sampled_from(choices), name) for name, choices in op.options.items()}
    values = data.draw(st.sampled_from(registry.VALUES), "values")
    arguments = make(op, shape, dtype, data.draw(st.integers(0, 2**32), "seed"), values, **options)
    expected = registry.expected(op, arguments, dtype)

    placed, arenas = dict(arguments), []
    for name, value in arguments.items():
        if name in registry.arrays(arguments):
            arena, placed[name] = memory.put(value, data.draw(st.sampled_from(memory.LAYOUTS), f"layout of {name}"))
            arenas.append((arena, arena.copy()))
    function = numba_kernel(op)
    results = registry.call(op, function, placed, dtype)
    pick = data.draw(st.integers(0, 2**16), "the element that is moved")
    assert sum(r.dtype == dtype for r in results if isinstance(r, np.ndarray)) >= op.writes, "sums of an example may be float64, data not"
    for result, rule in zip(results, expected, strict=True):
        tolerance.assert_matches(result, rule, pick)

    written = op.writes and op.name != "optim.clip_by_global_norm"
    if written:
        layout = data.draw(st.sampled_from([x for x in memory.LAYOUTS if x != "read-only"]), "layout of out")
        places = [memory.place(shape, dtype, layout) for _ in range(op.writes)]
        views = [view for _, view in places]
        again = registry.call(op, function, placed, dtype, out=tuple(views) if op.writes > 1 else views[0])
        assert all(any(a is view for a in again) for view in views), "the result is out itself"
        for a, b in zip(again, results):
            assert np.array_equal(a, b, equal_nan=True), "the same bits with and without out"
        assert all(memory.guards_intact(*place) for place in places), "bytes outside out were written"
    assert all(np.array_equal(now, before) for now, before in arenas), "an input was written"


@pytest.mark.parametrize("op, dtype", CASES)
def test_same_bits_for_every_thread_count_and_every_run(op, dtype):
    shape = (3, engine.PARALLEL // 3 + 1001)  # above the threshold of threads, no multiple of anything
    options = {name: choices[-1] for name, choices in op.options.items()}
    arguments = make(op, shape, dtype, **options)
    before = engine._threads
    try:
        runs = []
        for threads in [1, 2, 3, 5] + [2] * 16:
            engine.set_num_threads(threads)
            runs.append(registry.call(op, numba_kernel(op), arguments, dtype))
    finally:
        engine.set_num_threads(before)
    for run in runs[1:]:
        for a, b in zip(run, runs[0]):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", registry.FLOATS)
def test_a_row_alone_is_a_row_of_the_batch(op, dtype):
    """With every option, and rows whose ends lie inside a vector of the machine, in another place each time."""
    for choice in itertools.product(*(c[:1] if n == "schedule" else c for n, c in op.options.items())):
        for n in (21, 293, CHUNK + 1):
            arguments = make(op, (3, n), dtype, **dict(zip(op.options, choice)))
            batch = registry.call(op, numba_kernel(op), arguments, dtype)
            for i in range(3):
                alone = dict(arguments) | {n: np.ascontiguousarray(a[i : i + 1]) for n, a in registry.arrays(arguments).items()}
                alone |= {n: arguments[n][i : i + 1] for n in registry.PER_EXAMPLE if isinstance(arguments.get(n), np.ndarray)}
                for a, b in zip(batch, registry.call(op, numba_kernel(op), alone, dtype)):
                    if isinstance(a, np.ndarray) and ("seed" not in arguments or i == 0):  # a row's noise is that of its place
                        assert np.array_equal(a[i : i + 1], b), (choice, n, i)


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_nan_in_one_example_changes_only_that_example(op):
    options = {n: c[-1] for n, c in op.options.items() if n != "schedule"}
    arguments = make(op, (5, 40), **options)
    if "s" in arguments and "abar" in arguments:
        arguments |= dict(t=np.arange(10, 15), s=np.arange(5, 10)) | (dict(u=np.arange(15, 20)) if "u" in arguments else {})  # where s = 0, z would not be looked at
    clean = registry.call(op, numba_kernel(op), arguments, "float32")
    for name in registry.arrays(arguments):
        poisoned = dict(arguments)
        poisoned[name] = arguments[name].copy()
        poisoned[name][2] = np.nan
        touched = False
        for a, b in zip(registry.call(op, numba_kernel(op), poisoned, "float32"), clean):
            if isinstance(a, np.ndarray) and a.ndim == 2:
                others = np.arange(5) != 2
                assert np.array_equal(a[others], b[others])
                touched |= bool(np.all(np.isnan(a[2])))
        assert touched, f"NaN in {name} was turned into a number"


def test_a_kernel_may_write_over_its_inputs_where_it_is_told_to():
    op = next(op for op in registry.OPS if op.name == "fused.adam_ema_step")
    arguments = make(op, (3, 1000))
    fresh = fused.adam_ema_step(**arguments)
    mine = {n: a.copy() for n, a in registry.arrays(arguments).items()}
    fused.adam_ema_step(**(arguments | mine), out=tuple(mine[n] for n in ("p", "m", "v", "avg")))
    for name, want in zip(("p", "m", "v", "avg"), fresh):
        assert np.array_equal(mine[name], want)
    x = make(registry.OPS[3], (4, 500))
    want, x0 = diffusion.q_sample(**x), x["x0"]
    assert diffusion.q_sample(**x, out=x0) is x0
    assert np.array_equal(x0, want)


@pytest.mark.parametrize("dtype", registry.FLOATS)
def test_a_loss_has_the_same_bits_wherever_its_arrays_lie(dtype):
    """Far apart, back to back in any order, and the gradient over the prediction: a compiler may then take another loop."""
    rng = np.random.default_rng(0)
    for n in (4, 24, 100, CHUNK, 2 * CHUNK + 1):
        eps_hat, eps = rng.standard_normal((2, n)).astype(dtype)
        want = fused.eps_loss_grad(eps_hat, eps)[0], fused.eps_loss_noise(eps_hat, 3)[0]
        for gap in (0, 1, 8):
            for places in ((0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0), (0, 1, 0), (1, 0, 1)):
                memory = np.zeros(3 * (n + gap), dtype)
                x, y, out = (memory[i * (n + gap) : i * (n + gap) + n] for i in places)
                x[...], y[...] = eps_hat, eps
                assert fused.eps_loss_grad(x, y, out=out)[0] == want[0]
                x[...] = eps_hat
                assert fused.eps_loss_noise(x, 3, out=out)[0] == want[1]


def test_out_that_overlaps_an_input_by_a_shift_is_right():
    memory = np.random.default_rng(0).standard_normal(3001).astype(np.float32)
    x0, eps, out = memory[:3000].reshape(3, 1000), np.ones((3, 1000), np.float32), memory[1:].reshape(3, 1000)
    want = diffusion.q_sample(x0.copy(), np.array([1, 500, 1000]), eps, ABAR)
    assert np.array_equal(diffusion.q_sample(x0, np.array([1, 500, 1000]), eps, ABAR, out=out), want)


def test_beyond_the_cache_the_streamed_stores_write_every_element_once():
    """Around the cache, from an address that is no multiple of a line, with rows that end inside a line."""
    rows, n = 3, engine.CACHE_BYTES // 4 // 3 + 4099
    rng = np.random.default_rng(0)
    x0, eps = rng.standard_normal((rows, n)).astype(np.float32), rng.standard_normal((rows, n)).astype(np.float32)
    memory = np.full(rows * n + 64, np.nan, np.float32)
    out = memory[3 : 3 + rows * n].reshape(rows, n)
    arguments = dict(x0=x0, t=np.array([3, 500, 1000]), eps=eps, abar=ABAR)
    op = next(op for op in registry.OPS if op.name == "diffusion.q_sample")
    tolerance.assert_matches(diffusion.q_sample(**arguments, out=out), registry.expected(op, arguments, "float32")[0])
    assert np.all(np.isnan(memory[:3])) and np.all(np.isnan(memory[3 + rows * n :]))


def test_bits_and_uniforms_are_the_reference_to_the_bit_past_the_carry():
    """Blocks beyond 2^32: the counter's second word takes the carry. Element 2^34 is the first of block 2^32."""

    @njit
    def far(lo, count, key):
        z = np.empty(count, np.float32)
        philox.normal_chunk(z, lo, lo + count, key)
        return z

    for block in (2**32 - 1, 2**32, 2**32 + 1):
        seed, stream = 0x0123456789ABCDEF, 0xFEDCBA9876543210
        key = np.array([seed & 0xFFFFFFFF, seed >> 32, stream & 0xFFFFFFFF, stream >> 32], np.uint32)
        counter = np.array([block & 0xFFFFFFFF, block >> 32, key[2], key[3]], np.uint32)
        w = truth_philox.philox4x32(counter, key[:2])
        u, a = truth_philox._u01(w[1::2]), truth_philox._uneg11(w[0::2])
        r, (sin, cos) = np.sqrt(-2 * np.log(u)), truth_philox._sincospi(a)
        want = np.stack([r * sin, r * cos], axis=-1).reshape(-1)
        assert np.all(np.abs(far(4 * block, 4, key) - want) <= 3 * 2.0**-23 * np.abs(want))


WORDS = np.array([0, 1, 2, 0x7F, 0x100, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xBFFFFFFF, 0xC0000000, 0x3FFFFFFF, 0x40000000,
                  0xFFFFFF7F, 0xFFFFFF80, 0xFFFFFE80, 0xFFFFFFFF], np.uint32)  # fmt: skip


def test_float32_normals_keep_their_bound_on_the_edge_words_and_on_millions():
    """|error| <= 3 eps |z| for every pair of edge words (u next to 0 and 1, a at quarter turns), and on 2^22 draws."""

    @njit
    def pairs(w0, w1):
        z = np.empty((w0.size, 2), np.float32)
        for i in range(w0.size):
            z[i] = philox._pair32(w0[i], w1[i])
        return z

    w0, w1 = (w.reshape(-1) for w in np.meshgrid(WORDS, WORDS))
    u, a = truth_philox._u01(w1), truth_philox._uneg11(w0)
    r, (sin, cos) = np.sqrt(-2 * np.log(u)), truth_philox._sincospi(a)
    want = np.stack([r * sin, r * cos], axis=-1)
    assert np.all(np.abs(pairs(w0, w1) - want) <= 3 * 2.0**-23 * np.abs(want))
    want = truth_philox.normal(5, 1 << 22)
    assert np.all(np.abs(philox.normal(5, 1 << 22) - want) <= 3 * 2.0**-23 * np.abs(want))


def test_losses_and_their_gradients_are_finite_at_any_logit_a_network_makes():
    logits = np.array([-1e4, -104, -88, -20, 0, 20, 88, 104, 1e4], np.float32)
    for loss, gradient in (gan.generator_loss_grad(logits), gan.generator_loss_saturating_grad(logits), vae.bernoulli_nll_grad(logits, np.ones_like(logits))):
        assert np.all(np.isfinite(loss)) and np.all(np.isfinite(gradient))
    one = np.array([-20], np.float32)  # D is sure: the minimax loss has nothing left to say
    assert gan.generator_loss_grad(one)[1] == pytest.approx(-1) and gan.generator_loss_saturating_grad(one)[1] == pytest.approx(-2.06e-9, rel=1e-3)


def test_the_kl_of_a_posterior_near_its_prior_loses_no_digits():
    """exp(logvar) - 1 - logvar is logvar^2 / 2 there, and nothing is left of it where it is computed as written."""
    logvar, zero = np.geomspace(1e-6, 1, 400, dtype=np.float32)[:, None], np.zeros((400, 1), np.float32)
    exact = logvar.astype(np.float64)
    for sign in (1, -1):
        want = np.where(exact < 0.01, exact**2 / 2 + sign * exact**3 / 6 + exact**4 / 24, np.expm1(sign * exact) - sign * exact)[:, 0] / 2
        assert np.all(np.abs(vae.reparameterize_kl(zero, sign * logvar, zero)[1] - want) <= 12 * 2.0**-23 * want)


def test_real_and_fake_logits_may_differ_in_number():
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((3, 700)).astype(np.float32), rng.standard_normal(5000).astype(np.float32)
    loss, dreal, dfake = gan.discriminator_loss_grad(real, fake)
    want = truth_gan.discriminator_loss_grad(real, fake)
    assert loss == pytest.approx(want[0], rel=1e-6)
    for got, g in ((dreal, want[1]), (dfake, want[2])):
        tolerance.assert_matches(got, tolerance.rule(g, np.abs(g), 4, "float32"))
    over = fake.copy()  # a gradient over the logits that are still to be read
    assert np.array_equal(gan.discriminator_loss_grad(real, over[:2100].reshape(3, 700), out=(over[:2100].reshape(3, 700), None))[2],
                          gan.discriminator_loss_grad(real, fake[:2100].reshape(3, 700))[2])  # fmt: skip


def test_an_example_sums_to_the_same_bits_alone_and_in_its_batch():
    rng = np.random.default_rng(0)
    for n in (1, 7, CHUNK, CHUNK + 1, 3 * CHUNK + 5):
        mu, logvar, eps = rng.standard_normal((3, 5, n)).astype(np.float32)
        kl, nll = vae.reparameterize_kl(mu, logvar, eps)[1], vae.bernoulli_nll_grad(mu, (eps > 0).astype(np.float32))[0]
        for i in range(5):
            row = slice(i, i + 1)
            assert vae.reparameterize_kl(mu[row], logvar[row], eps[row])[1] == kl[i]
            assert vae.bernoulli_nll_grad(mu[row], (eps[row] > 0).astype(np.float32))[0] == nll[i]


X = np.ones((4, 6), np.float32)
BAD = {
    "a list": (dict(x0=X.tolist()), TypeError, "x0: expected a NumPy array of float32 or float64, got list"),
    "integers": (dict(x0=X.astype(int)), TypeError, "x0: expected a NumPy array of float32 or float64, got ndarray of int64"),
    "the other byte order": (dict(x0=X.astype(">f4")), TypeError, "x0: expected a NumPy array of float32"),
    "half": (dict(x0=X.astype(np.float16)), TypeError, "got ndarray of float16"),
    "mixed dtypes": (dict(eps=X.astype(np.float64)), TypeError, "eps: expected a NumPy array of float32 like x0, got ndarray of float64"),
    "unequal shapes": (dict(eps=X[:3]), ValueError, r"expected equal shapes, got x0 \(4, 6\), eps \(3, 6\)"),
    "a shape that would broadcast": (dict(eps=X[:, :1].copy()), ValueError, "expected equal shapes"),
    "t too large": (dict(t=1001), ValueError, "t: expected 0 <= t <= T = 1000, got 1001 to 1001"),
    "t negative": (dict(t=np.array([0, 1, -1, 2])), ValueError, "t: expected 0 <= t <= T = 1000, got -1 to 2"),
    "t a float": (dict(t=1.5), TypeError, "t: expected ints, got float64"),
    "t of another length": (dict(t=np.array([1, 2, 3])), ValueError, r"t: expected one int or shape \(4,\) .* got \(3,\)"),
    "t along the last axis": (dict(t=np.arange(6)), ValueError, r"t: expected one int or shape \(4,\)"),
    "NaN in abar": (dict(abar=np.where(np.arange(1001) == 2, np.nan, ABAR)), ValueError, r"abar: expected real values in \[0, 1\], got nan"),
    "complex abar": (dict(abar=ABAR + 0j), ValueError, "abar: expected .* real values in .* complex128"),
    "out of another shape": (dict(out=X[:2].copy()), ValueError, r"out: expected shape \(4, 6\), got \(2, 6\)"),
    "out of another dtype": (dict(out=X.astype(float)), TypeError, "out: expected a NumPy array of float32, got ndarray of float64"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_rejected_before_anything_is_written(name):
    change, error, message = BAD[name]
    out = np.full((4, 6), 7, np.float32)
    with pytest.raises(error, match=message):
        diffusion.q_sample(**(dict(x0=X, t=np.arange(4), eps=X, abar=ABAR, out=out) | change))
    assert np.all(out == 7)


def test_out_that_cannot_be_written_is_rejected():
    out = np.zeros((4, 6), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out: expected a writable array"):
        diffusion.q_sample(X, 5, X, ABAR, out=out)


ZERO_SNR = schedules.zero_terminal_snr(ABAR)
ONE, MEMORY = np.array([1.0, 1.0, 0.5]), np.zeros((9, 9), np.float32)
REFUSED = {
    "abar above 1": (lambda: diffusion.q_sample(X, 1, X, np.array([1.0, 1.5, 0.5])), r"abar: expected real values in \[0, 1\], got 1.5"),
    "a DDPM step without noise": (lambda: diffusion.ddpm_step(X, X, 1, 0, X, ONE), "there is no noise to find"),
    "a posterior without noise": (lambda: diffusion.posterior(X, X, np.array([1, 2, 2, 2]), 0, ONE), "there is no noise to find"),
    "two results in one array": (lambda: diffusion.q_sample_backward(X, 5, ABAR, out=(MEMORY[:4, :6], MEMORY[:4, :6])), "share no memory with each other"),
    "two results that overlap": (lambda: optim.adam_step(X, X, X, X, 1, 1e-3, 0.9, 0.999, 1e-8, 0.0, out=(MEMORY[0:4, :6], MEMORY[3:7, :6], X.copy())), "share no memory"),
    "s = t": (lambda: diffusion.ddpm_step(X, X, 5, 5, X, ABAR), "from t to s < t, got t = 5 and s = 5"),
    "s > t in one row": (lambda: diffusion.ddim_step(X, X, np.array([5, 5, 5, 5]), np.array([1, 6, 1, 1]), X, 0, ABAR), "s < t"),
    "history without its time": (lambda: fused.guided_dpmpp_2m_step(X, X, X, 1.0, X, None, 5, 4, ABAR), "x0_last and u: expected both or neither"),
    "u not before t": (lambda: fused.guided_dpmpp_2m_step(X, X, X, 1.0, X, 5, 5, 4, ABAR), "from t to s < t, got t = 5 and s = 5"),
    "flow past the noise": (lambda: fused.guided_flow_step(X, X, X, 1.0, 1.5, 0.5), "from t <= 1 to 0 <= s < t, got t = 1.5 and s = 0.5"),
    "sigma_next = 0": (lambda: fused.heun_step(X, X, X, 1.0, 0.0), "expected 0 < sigma_next < sigma, got sigma = 1.0 and sigma_next = 0.0"),
    "eta above 1": (lambda: fused.guided_ddim_step(X, X, X, 1.0, 5, 4, 0, 1.1, ABAR), "eta: expected 0 <= eta <= 1, got 1.1"),
    "clip = 0": (lambda: diffusion.ddpm_step(X, X, 5, 4, X, ABAR, clip=0), "clip: expected a positive number or None, got 0"),
    "an unknown variance": (lambda: diffusion.ddpm_step(X, X, 5, 4, X, ABAR, variance="learned"), "variance: expected .* got 'learned'"),
    "x0 from eps without signal": (lambda: diffusion.x0_from_eps(X, X, 1000, ZERO_SNR), r"abar\[t\] = 0"),
    "eps from x0 at t = 0": (lambda: diffusion.eps_from_x0(X, X, 0, ABAR), "no noise to find"),
    "score at t = 0": (lambda: diffusion.score_from_eps(X, np.array([3, 0, 1, 1]), ABAR), "no noise to find"),
    "a seed below 0": (lambda: philox.normal(-1, 4), "seed: expected 0 <= seed"),
    "a stream of 65 bits": (lambda: fused.q_sample_noise(X, 5, 0, ABAR, stream=2**64), "stream: expected 0 <= stream"),
    "nothing to average": (lambda: fused.eps_loss_noise(X[:0], 0), "at least one element"),
    "step 0 of Adam": (lambda: optim.adam_step(X, X, X, X, 0, 1e-3, 0.9, 0.999, 1e-8, 0.0), "step: expected at least 1, got 0"),
    "a decay above 1": (lambda: optim.ema_step(X, X, 1.5), "decay: expected 0 <= decay <= 1, got 1.5"),
    "max_norm = 0": (lambda: optim.clip_by_global_norm([X], 0.0), "max_norm: expected a positive number, got 0"),
    "no batch axis": (lambda: vae.reparameterize_kl(X[0, 0:1].reshape(()), X[0, 0:1].reshape(()), X[0, 0:1].reshape(())), r"expected shape \(B, ...\), got \(\)"),
    "dkl of another length": (lambda: vae.reparameterize_kl_backward(X, np.ones(3), X, X, X), r"dkl: expected one number or shape \(4,\)"),
    "no fake logits": (lambda: gan.discriminator_loss_grad(X, X[:0]), r"fake_logits: expected at least one element, got shape \(0, 6\)"),
    "both gradients in one array": (lambda: gan.discriminator_loss_grad(X, X, out=(MEMORY[:4, :6], MEMORY[:4, :6])), "share no memory with each other"),
    "no threads": (lambda: engine.set_num_threads(0), "n: expected at least 1 thread, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_exist_is_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_z_is_not_needed_where_eta_is_0_and_needed_elsewhere():
    assert np.array_equal(diffusion.ddim_step(X, X, 5, 4, None, 0.0, ABAR), diffusion.ddim_step(X, X, 5, 4, X * np.nan, 0.0, ABAR))
    with pytest.raises(TypeError, match="z: expected a NumPy array of float32 like xt, got NoneType"):
        diffusion.ddim_step(X, X, 5, 4, None, 0.5, ABAR)


def test_the_last_step_does_not_look_at_its_noise():
    assert not np.any(np.isnan(diffusion.ddpm_step(X, X, 5, 0, X * np.nan, ABAR, variance="large")))


def test_grads_may_be_a_dict():
    grads = {"w": X, "b": 2 * X}
    clipped = optim.clip_by_global_norm(grads, 1.0)
    assert list(clipped) == ["w", "b"] and np.sum(clipped["w"] ** 2 + clipped["b"] ** 2) == pytest.approx(1)


def test_stale_compiled_code_is_forgotten(tmp_path):
    (tmp_path / "kernel.nbi").write_text("compiled")
    engine.forget_stale_code(tmp_path)
    assert not (tmp_path / "kernel.nbi").exists()
    (tmp_path / "kernel.nbi").write_text("compiled again")
    engine.forget_stale_code(tmp_path)
    assert (tmp_path / "kernel.nbi").exists()


@pytest.mark.parametrize("op", [op for op in registry.OPS if "float32" in op.dtypes and op.ulps], ids=lambda op: op.name)
def test_the_truth_about_a_float32_kernel_is_float64(op):
    """What `ref` returns keeps the dtype it is given in some places, and a truth rounded to float32 would hide half the error."""
    expected = registry.expected(op, make(op, (5, 40), **{name: choices[-1] for name, choices in op.options.items()}), "float32")
    assert any(np.any(rule.truth != rule.truth.astype(np.float32)) for rule in expected)


def test_our_own_check_passes_a_right_kernel_and_fails_a_wrong_one(monkeypatch):
    op = next(op for op in registry.OPS if op.name == "diffusion.v_target")
    monkeypatch.setattr(selftest, "SHAPES", [(1,), (5, 5, 5)])
    assert selftest.check(op, "numba_cpu", "float32").ok
    monkeypatch.setattr(registry, "kernel", lambda op, backend: diffusion.x0_from_eps)
    verdict = selftest.check(op, "numba_cpu", "float32")
    assert not verdict.ok and "TypeError" in verdict.failure
    monkeypatch.setattr(registry, "kernel", lambda op, backend: lambda x0, eps, t, abar: -diffusion.v_target(x0, t=t, eps=eps, abar=abar))
    assert "times that" in selftest.check(op, "numba_cpu", "float32").failure
