"""Every kernel of every backend equals its truth, wherever its arrays lie, and writes nothing but its results."""
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import registry, tolerance
from kernels.check import selftest
from ref import gan as truth_gan
from tests.kernels.backends import ABAR, BACKENDS, BLOCK, LOOPS, cases, last, make, named, on_each, run, same

SHAPES = [(BLOCK - 1,), (BLOCK,), (BLOCK + 1,), (3, BLOCK), (2, BLOCK + 7)]
SHAPES += [(5, 5, 5), (7, 293), (2, 3, 31, 31), (1, 1), (2053,)]
LONG = (  # in the interpreter
    "scene.splat", "scene.splat_backward", "scene.trilinear", "scene.trilinear_backward", "audio.wavenet_generate",
)  # fmt: skip
X = np.ones((4, 6), np.float32)


@cases()
def test_kernel_equals_truth(b, op, dtype):
    long = op.name in LONG or op.flops and (op.sums or dtype in registry.HALVES)  # calls, or loaded otherwise, no more
    few = b.slow and long

    @settings(max_examples=min(b.examples // 3 if few else b.examples, op.cases))
    @given(data=st.data())
    def holds(data):
        example(b, op, dtype, data.draw)

    holds()


def example(b, op, dtype, draw):
    """One drawn example: results, then the same bits in `out`, and no other byte written."""
    small = st.lists(st.integers(0, 6), min_size=1, max_size=5).map(tuple)
    shapes = st.sampled_from(op.shapes) if op.shapes else st.one_of(small, st.sampled_from([*SHAPES, *b.shapes]))
    shape = draw(shapes.filter(lambda s: op.empty or 0 not in s), "shape")
    options = {name: draw(st.sampled_from(choices), name) for name, choices in op.options.items()}
    values, seed = draw(st.sampled_from(registry.VALUES), "values"), draw(st.integers(0, 2**32), "seed")
    arguments = make(op, shape, dtype, seed, values, **options)
    # on a GPU the arrays lie alike, for a kernel is compiled for each alignment of each array
    layouts = b.layouts if "C" in b.layouts else (draw(st.sampled_from(b.layouts), "layout"),)
    inputs = []

    def put(array):
        if not array.size and "C" not in b.layouts:
            return b.send(array)
        whole, view = b.put(array, draw(st.sampled_from(layouts), "layout of an input"))
        inputs.append((whole, np.array(b.receive(whole))))
        return view

    placed, function = registry.sent(arguments, put, op), registry.kernel(op, b.name)
    results = [b.receive(r) for r in registry.call(op, function, placed, dtype)]
    pick = draw(st.integers(0, 2**16), "the element that is moved")
    for result, rule in zip(results, registry.expected(op, arguments, dtype), strict=True):
        tolerance.assert_matches(result, rule, pick)
    if dtype != "bfloat16":  # sums of an example may be float64 and bfloat16 returns as float32; data keeps its dtype
        assert sum(r.dtype == dtype for r in results if isinstance(r, np.ndarray)) >= op.writes

    if op.writes and op.name != "optim.clip_by_global_norm" and ("C" in b.layouts or 0 not in shape):
        layout = draw(st.sampled_from([x for x in layouts if x != "read-only"]), "layout of out")
        like = [np.shape(r) for r in results] if op.shapes else [shape] * op.writes
        places = [b.place(own, dtype, layout) for own in like[: op.writes]]
        views = [view for _, view in places]
        again = registry.call(op, function, placed, dtype, out=tuple(views) if op.writes > 1 else views[0])
        assert all(any(a is view for a in again) for view in views), "the result is out itself"
        assert all(same(b.receive(a), r) for a, r in zip(again, results)), "the same bits with and without out"
        assert all(b.intact(*place, layout) for place in places), "memory outside out was written"
    assert all(same(b.receive(whole), before) for whole, before in inputs), "an input was written"


@cases()
def test_kernel_equals_truth_on_large_arrays(b, op, dtype):
    for shape in op.shapes[-1:] or b.large:
        arguments = make(op, shape, dtype, **last(op))
        for result, rule in zip(run(b, op, arguments, dtype), registry.expected(op, arguments, dtype), strict=True):
            tolerance.assert_matches(result, rule)


@cases(lambda op: op.rowwise, dtypes=False)
def test_nan_changes_only_its_example(b, op):
    arguments = make(op, (5, 40), **last(op, "schedule"))
    if "s" in arguments and "abar" in arguments:  # where s = 0, z would be ignored
        arguments |= dict(t=np.arange(10, 15), s=np.arange(5, 10))
        arguments |= dict(u=np.arange(15, 20)) if "u" in arguments else {}
    clean, others = run(b, op, arguments), np.arange(5) != 2
    for name in registry.arrays(arguments):
        poisoned = arguments | {name: arguments[name].copy()}
        poisoned[name][2] = np.nan
        pairs = [(p, c) for p, c in zip(run(b, op, poisoned), clean) if np.ndim(c) == 2]
        assert all(np.array_equal(p[others], c[others]) for p, c in pairs)
        assert any(np.all(np.isnan(p[2])) for p, _ in pairs), f"NaN in {name} was turned into a number"


@on_each(lambda b: [("fused.adam_ema_step",), ("diffusion.q_sample",)], ["name"])
def test_out_may_be_an_input(b, name):
    op = named(name)
    arguments, over = make(op, (3, 1000)), op.in_place or ("x0",)
    fresh, mine = run(b, op, arguments), registry.sent(arguments, lambda a: b.send(a.copy()))
    out = tuple(mine[n] for n in over)
    results = registry.call(op, registry.kernel(op, b.name), mine, "float32", out=out if len(out) > 1 else out[0])
    assert all(r is o for r, o in zip(results, out, strict=True))
    assert all(np.array_equal(b.receive(o), want) for o, want in zip(out, fresh, strict=True))


@on_each()
def test_last_step_ignores_its_noise(b):
    x, nan, k = b.send(X), b.send(X * np.float32(np.nan)), b.modules.diffusion
    assert not np.any(np.isnan(b.receive(k.ddpm_step(x, x, 5, 0, nan, ABAR, variance="large"))))
    assert not np.any(np.isnan(b.receive(k.ddim_step(x, x, np.arange(5, 9), np.zeros(4, int), nan, 1.0, ABAR))))
    without, ignored = (b.receive(k.ddim_step(x, x, 5, 4, z, 0.0, ABAR)) for z in (None, nan))
    assert np.array_equal(without, ignored) and not np.any(np.isnan(without))
    with pytest.raises(TypeError, match=r"\bz\b"):
        k.ddim_step(x, x, 5, 4, None, 0.5, ABAR)


@on_each()
def test_discriminator_loss_takes_unequal_numbers_of_logits(b):
    rng = np.random.default_rng(0)
    real, fake = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 700), 9 * BLOCK + 1))
    loss, *gradients = map(b.receive, b.modules.gan.discriminator_loss_grad(b.send(real), b.send(fake)))
    want, *truths = truth_gan.discriminator_loss_grad(real, fake)
    assert float(loss) == pytest.approx(want, rel=1e-6)
    for gradient, g in zip(gradients, truths, strict=True):
        tolerance.assert_matches(gradient, tolerance.rule(g, np.abs(g), 4, "float32"))


@on_each()
def test_losses_are_finite_for_any_logits(b):
    logits, gan = b.send(np.array([-1e4, -104, -88, -20, 0, 20, 88, 104, 1e4], np.float32)), b.modules.gan
    nll = b.modules.vae.bernoulli_nll_grad(logits, b.send(np.ones(9, np.float32)))
    for results in (gan.generator_loss_grad(logits), gan.generator_loss_saturating_grad(logits), nll):
        assert all(np.all(np.isfinite(b.receive(r))) for r in results)
    sure = b.send(np.array([-20], np.float32))  # of D: nothing is left of the minimax loss
    assert b.receive(gan.generator_loss_grad(sure)[1]) == pytest.approx(-1)
    assert b.receive(gan.generator_loss_saturating_grad(sure)[1]) == pytest.approx(-2.06e-9, rel=1e-3)


@on_each()
def test_kl_near_the_prior_loses_no_digits(b):
    """exp(logvar) - 1 - logvar is logvar^2 / 2 there, and nothing is left of it where it is computed as written."""
    logvar, zero = np.geomspace(1e-6, 1, 400, dtype=np.float32)[:, None], b.send(np.zeros((400, 1), np.float32))
    x = logvar.astype(np.float64)
    for sign in (1, -1):
        series = x**2 / 2 + sign * x**3 / 6 + x**4 / 24
        want = np.where(x < 0.01, series, np.expm1(sign * x) - sign * x)[:, 0] / 2
        kl = b.receive(b.modules.vae.reparameterize_kl(zero, b.send(sign * logvar), zero)[1])
        assert np.all(np.abs(kl - want) <= 12 * 2.0**-23 * want)


@on_each()
def test_clip_by_global_norm_takes_a_dict_and_empty_arrays(b):
    grads = {name: b.send(g) for name, g in {"w": X, "b": 2 * X, "none": X[:0].copy()}.items()}
    clipped, norm = b.modules.optim.clip_by_global_norm(grads, 1.0)
    clipped = {name: b.receive(g) for name, g in clipped.items()}
    assert float(b.receive(norm)) == pytest.approx(5**0.5 * np.linalg.norm(X))
    for nothing in ([], {}, [b.send(X[:0].copy())]):
        got, norm = b.modules.optim.clip_by_global_norm(nothing, 1.0)
        assert type(got) is type(nothing) and len(got) == len(nothing) and float(b.receive(norm)) == 0
    assert list(clipped) == [*grads] and np.sum(clipped["w"] ** 2 + clipped["b"] ** 2) == pytest.approx(1)


@pytest.mark.parametrize("op", [op for op in registry.OPS if op.ulps and not op.orders], ids=lambda op: op.name)
def test_expected_is_float64(op):
    """`ref` keeps the dtype it is given in some places, and a truth rounded to float32 would hide half the error."""
    expected = registry.expected(op, make(op, (5, 40), **last(op)), "float32")
    assert any(np.any(rule.truth != rule.truth.astype(np.float32)) for rule in expected)


def test_selftest_passes_a_right_kernel_and_fails_a_wrong_one(monkeypatch):
    op, backend = named("diffusion.v_target"), BACKENDS[0].modules.diffusion
    right, other = (getattr(backend, name) for name in ("v_target", "x0_from_eps"))
    monkeypatch.setattr(selftest, "SHAPES", [(1,), (5, 5, 5)])
    assert selftest.check(op, "numba_cpu", "float32").ok
    monkeypatch.setattr(registry, "kernel", lambda op, backend: other)
    verdict = selftest.check(op, "numba_cpu", "float32")
    assert not verdict.ok and "TypeError" in verdict.failure
    monkeypatch.setattr(registry, "kernel", lambda op, backend: lambda **arguments: -right(**arguments))
    assert "times that" in selftest.check(op, "numba_cpu", "float32").failure


@on_each(lambda b: [(name, d) for name in LOOPS for d in registry.dtypes(named(name), b.name)], ["name", "dtype"])
def test_selftest_passes_the_loops_and_fails_wrong_ones(b, name, dtype, monkeypatch):
    op, short = named(name), name.split(".")[1]
    op = replace(op, shapes=(min(op.shapes, key=np.prod),)) if b.slow else op
    row = selftest.check(op, b.name, dtype)
    assert row.ok and row.cases
    right, fused = registry.kernel(op, b.name), b.modules.fused

    def wrong(**arguments):
        """The last time, or the rate, slightly off."""
        times = arguments.get("times", ())
        return right(**arguments | ({"times": [*times[:-2], 30, 0]} if times else {"lr": arguments["lr"] * 1.01}))

    monkeypatch.setattr(fused, short, wrong)
    row = selftest.check(op, b.name, dtype)
    assert not row.ok and "allowed error" in row.failure
