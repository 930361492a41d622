"""What is special to the Numba kernels: threads, forks, streamed stores, memory that overlaps, stale compiled code."""
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from numba import config, njit

from kernels import registry, tolerance
from kernels.numba_cpu import cache, diffusion, engine, fused, gan, philox, reduce, rowwise
from kernels.numpy_cpu import fused as plain
from kernels.ops.loops import in_orders
from ref import fused as truth
from ref import philox as truth_philox
from ref.nets import mlp
from tests import ROOT
from tests.kernels.backends import ABAR, BLOCK, EDGES, make, named, near, normals, normals_of_blocks

COMPILED = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="millions of elements take minutes in plain Python")
X = np.ones((4, 6), np.float32)


@pytest.mark.parametrize("dtype", registry.FLOATS)
def test_loss_bits_wherever_its_arrays_lie(dtype):
    """Far apart, back to back in any order, the gradient over the prediction: a compiler may then take another loop."""
    rng = np.random.default_rng(0)
    for n in (4, 24, 100, BLOCK, 2 * BLOCK + 1):
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


def test_out_may_overlap_an_input_by_a_shift():
    memory = np.random.default_rng(0).standard_normal(3001).astype(np.float32)
    x0, eps, out = memory[:3000].reshape(3, 1000), np.ones((3, 1000), np.float32), memory[1:].reshape(3, 1000)
    want = diffusion.q_sample(x0.copy(), np.array([1, 500, 1000]), eps, ABAR)
    assert np.array_equal(diffusion.q_sample(x0, np.array([1, 500, 1000]), eps, ABAR, out=out), want)


def test_gradient_may_overwrite_logits_still_to_be_read():
    real, fake = np.random.default_rng(0).standard_normal((2, 3, 700)).astype(np.float32)
    over = fake.copy()
    want = gan.discriminator_loss_grad(real, fake)[2]
    assert np.array_equal(gan.discriminator_loss_grad(real, over, out=(over, None))[2], want)


@COMPILED
def test_streamed_stores_write_every_element_once():
    """Beyond the cache, from an address that is no multiple of a line, with rows that end inside a line."""
    rows, n = 3, engine.CACHE_BYTES // 4 // 3 + 4099
    x0, eps = np.random.default_rng(0).standard_normal((2, rows, n)).astype(np.float32)
    memory = np.full(rows * n + 64, np.nan, np.float32)
    out = memory[3 : 3 + rows * n].reshape(rows, n)
    arguments = dict(x0=x0, t=np.array([3, 500, 1000]), eps=eps, abar=ABAR)
    (rule,) = registry.expected(named("diffusion.q_sample"), arguments, "float32")
    tolerance.assert_matches(diffusion.q_sample(**arguments, out=out), rule)
    assert np.all(np.isnan(memory[:3])) and np.all(np.isnan(memory[3 + rows * n :]))


def test_normals_carry_into_the_second_counter_word():
    """Element 2^34 is the first of block 2^32."""

    @njit
    def far(lo, count, key):
        z = np.empty(count, np.float32)
        philox.normal_chunk(z, lo, lo + count, key, philox.scratch())
        return z

    key = np.array([0x89ABCDEF, 0x01234567, 0x76543210, 0xFEDCBA98], np.uint32)
    for block in (2**32 - 1, 2**32, 2**32 + 1):
        assert near(far(4 * block, 4, key), normals_of_blocks(np.array([block], np.uint64), key))


@COMPILED
def test_normals_keep_their_bound():
    """For every pair of edge words, and on 2^22 draws."""

    @njit
    def pairs(w0, w1):
        z = np.empty((w0.size, 2), np.float32)
        for i in range(w0.size):
            z[i] = philox._pair32(w0[i], w1[i])
        return z

    words = np.stack(np.meshgrid(EDGES, EDGES), axis=-1).reshape(-1, 2)
    assert near(pairs(*np.ascontiguousarray(words.T)), normals(words))
    assert near(philox.normal(5, 1 << 22), truth_philox.normal(5, 1 << 22))


def test_below_equals_truth():
    for n in (1, 7, 1000, 2**32):
        assert np.array_equal(philox.below(5, (3, 70), n, 2**64 - 1), truth_philox.below(5, (3, 70), n, 2**64 - 1))
    for n in (0, 2**32 + 1):
        with pytest.raises(ValueError, match=r"\bn\b"):
            philox.below(5, 3, n)


def test_out_that_is_read_only_and_no_threads_are_refused():
    out = np.zeros((4, 6), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match=r"\bout\b"):
        diffusion.q_sample(X, 5, X, ABAR, out=out)
    with pytest.raises(ValueError, match=r"\bn\b"):
        engine.set_num_threads(0)


@COMPILED
def test_a_function_that_only_kernels_call_has_no_machine_code_and_refuses_python():
    with pytest.raises(TypeError):
        reduce.total(np.ones(3))


def test_stale_compiled_code_is_forgotten_once(tmp_path):
    for left in (False, True):
        (tmp_path / "kernel.nbi").write_text("compiled", "utf-8")
        cache.forget_stale_code(tmp_path)
        assert (tmp_path / "kernel.nbi").exists() == left


@COMPILED
def test_changed_coefficients_are_seen_with_a_kept_cache(tmp_path):
    copy, call = tmp_path / "tree", "print(gan.generator_loss_grad(np.ones(1, np.float32))[0])"
    code = f"import numpy as np; from kernels.numba_cpu import gan; {call}"
    ignored = shutil.ignore_patterns("__pycache__", "triton_gpu", "check")
    shutil.copytree(ROOT / "kernels", copy / "kernels", ignore=ignored)

    def loss():
        env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        return float(subprocess.check_output([sys.executable, "-c", code], cwd=copy, env=env, text=True, timeout=300))

    right, coefficients = loss(), copy / "kernels" / "coefficients.py"
    assert right == pytest.approx(np.log1p(np.exp(-1)), rel=1e-6) and list((tmp_path / "cache").rglob("*.nbi"))
    coefficients.write_text(coefficients.read_text("utf-8").replace("0.5000000013543258", "0.6"), "utf-8")
    assert abs(loss() - right) > 1e-3 * right


CALL = """
import sys, numpy as np
from kernels.numba_cpu import diffusion
x = np.ones((2, 3), np.float32)
sys.stdout.write(str(diffusion.v_target(x, 2 * x, 1, np.array([1, 0.36]))[0, 0]))
"""
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"


@COMPILED
def test_a_cache_that_cannot_be_kept_is_no_error(tmp_path):
    """v = 0.6 eps - 0.8 x0 = 0.4, in every process; a line says why it compiles again."""
    def said(code=CALL, **environment):
        words, environment = [sys.executable, "-c", code], os.environ | environment
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and abs(float(done.stdout) - 0.4) < 1e-6, done.stderr
        return done.stderr

    there = {"NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    nowhere = {"NUMBA_CACHE_DIR": "/dev/null", "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    assert said(**there) == "" and len(lines := said(**nowhere).splitlines()) == 1 and "NUMBA_CACHE_DIR" in lines[0]
    # files that were cut off are written anew
    kept = list((tmp_path / "kept").rglob("*.nb?"))
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
    assert kept and len(said(**there).splitlines()) == 1 and said(**there) == ""
    # a full disk: before the first file, and when the code is to be saved
    if sys.platform == "linux":
        for code in (FULL + CALL, CALL.replace("x =", FULL + "\nx =")):
            full = {"NUMBA_CACHE_DIR": str(tmp_path / f"full {len(code)} {code.index(FULL)}")}
            assert len(said(code, **full).splitlines()) == 1


@COMPILED
def test_first_step_of_mlp_train_errs_where_adam_says():
    """Weights are p - lr g / (|g| + eps): a gradient errs by at most twice NumPy, a weight by what that makes of it."""
    params = mlp.simple_mlp_init(0, 784, 256, np.float32)
    settings = dict(batch=128, steps=1, seed=4, eps=1e-8, weight_decay=0.0, params=params)
    arguments = make(named("fused.mlp_train"), (300, 784)) | settings
    want_params, want, want_losses = truth.mlp_train(**registry.exact(arguments))
    got_params, got, losses = fused.mlp_train(**arguments)
    results = in_orders(plain.mlp_train, arguments)
    for out, exact, rough in [(losses, want_losses, [r[2] for r in results])] + [
        (got[part][name], want[part][name], [r[1][part][name] for r in results]) for part in "mv" for name in params
    ]:
        tolerance.assert_matches(out, tolerance.whole(exact, rough, out.dtype))
    for name, p in params.items():
        g = want["m"][name] / 0.1
        worst = np.max([np.abs(r[1]["m"][name] / 0.1 - g) for r in results], axis=0)
        off = np.full(g.shape, 2 * worst[..., :-1].max())
        off[..., -1] = 2 * worst[..., -1].max()  # of w1 it belongs to t, a thousand times a pixel
        allowed = 1e-3 * 1e-8 * off / (np.maximum(np.abs(g) - off, 0) + 1e-8) ** 2 + 2.0**-22 * (np.abs(p) + 1e-3)
        for out, exact, share in ((got_params, want_params, 1), (got["average"], want["average"], 0.1)):
            assert np.all(np.abs(out[name] - exact[name]) <= np.minimum(share * allowed + 2.0**-22 * np.abs(p), 2e-3))
        assert np.median(allowed) < 1e-7 and np.mean(np.abs(want_params[name] - p) > 1e-4) > 0.5


@pytest.mark.parametrize("dtype", registry.FLOATS)
def test_moments_of_a_dead_unit_end_at_0(dtype):
    """And not among the smallest numbers."""
    arguments, least = make(named("fused.mlp_train"), (8, 21), dtype, width=9), np.finfo(dtype).smallest_normal
    params = arguments["params"]
    params["b1"][:] = -(10.0**6)
    small = {name: np.full_like(p, least / 100) for name, p in params.items()}
    change = dict(steps=3, batch=5, lr=1e-2, state={"step": 9, "m": small, "v": small, "average": params})
    _, state, _ = fused.mlp_train(**arguments | change)
    assert all(np.all(state[part][name] == 0) for part in ("m", "v") for name in ("w1", "b1", "w2"))
    assert np.all(np.abs(state["m"]["b2"]) > least) and np.all(small["w1"] == least / 100)


@pytest.mark.parametrize("make_kernel, takes", [
    (lambda f: rowwise.rowwise(f, 2, coefficients=1), 2), (lambda f: rowwise.noisy(f, 1, coefficients=1), 2),
    (lambda f: reduce.reduction(f, 3, coefficients=0), 3), (reduce.noisy_reduction, 2),
], ids=["rowwise", "noisy", "reduction", "noisy_reduction"])  # fmt: skip
def test_an_equation_of_other_arguments_is_refused_when_it_is_registered(make_kernel, takes):
    """One without the scalars u would else fail in the compiler, at its first call."""
    def without_u(c, x, y):
        return c[0] * x + y

    def with_one_too_many(c, u, x, y, z, more):
        return x

    for equation, given in ((without_u, "c, x, y"), (with_one_too_many, "c, u, x, y, z, more")):
        with pytest.raises(TypeError, match=rf"\b{equation.__name__}\b.*\bu\b.*\b{takes}\b.*\({given}\)"):
            make_kernel(engine.element(equation))
