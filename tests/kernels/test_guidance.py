"""Guidance for each example and in an interval of times, and trajectories from zero terminal SNR, on every backend."""
import numpy as np
import pytest

from kernels import registry
from kernels.ops.loops import residual, simple_mlp
from ref import fused, schedules, tree
from tests.kernels.backends import ABAR, last, make, named, on_each, run, same

STEPS = "guided_ddpm_step", "guided_ddim_step", "guided_dpmpp_2m_step", "guided_flow_step"
ZERO, TIMES = schedules.zero_terminal_snr(ABAR), [1000, 700, 300, 0]
X = np.random.default_rng(3).standard_normal((5, 24)).astype(np.float32)
LABELS, W = np.array([0, 3, 4, 1, 2]), np.array([0.0, 1.0, 2.0, 7.5, -1.0])
SIMPLE, RESIDUAL = simple_mlp(24, 16), residual(24, 16)


def numpy_of(op, arguments, **more):
    return registry.call(op, registry.kernel(op, "numpy_cpu"), arguments, "float32", **more)


def sampled(b, params=RESIDUAL, **options):
    kernel = registry.kernel(named("fused.mlp_sample"), b.name)
    return b.receive(kernel(tree.map(b.send, params), b.send(X), TIMES, **{"abar": ABAR} | options))


def tuned(params=RESIDUAL, **options):
    kernel = registry.kernel(named("fused.mlp_sample"), "numpy_cpu")
    return kernel(params, X, TIMES, **{"abar": ABAR} | options)


def truth(params=RESIDUAL, **options):
    return fused.mlp_sample(tree.map(np.float64, params), X.astype(np.float64), TIMES, **{"abar": ABAR} | options)


@on_each(lambda b: [(name,) for name in STEPS], ["name"])
def test_a_weight_for_each_example_is_its_own(b, name):
    """The bits of each example are those that it has where its weight holds for the whole batch."""
    op = named(f"fused.{name}")
    for times in ("int", "rows"):
        arguments = make(op, (5, 300), **last(op, "times", "w", "schedule"), times=times)
        whole = run(b, op, arguments, w=W)
        tuned = numpy_of(op, arguments, w=W)
        for i, w in enumerate(W):
            for together, one in ((whole, run(b, op, arguments, w=float(w))), (tuned, numpy_of(op, arguments, w=w))):
                assert all(same(a[i], o[i]) for a, o in zip(together, one, strict=True))
    for wrong in (np.ones(4), np.ones((5, 1)), None):
        for call in (lambda: run(b, op, arguments, w=wrong), lambda: numpy_of(op, arguments, w=wrong)):
            with pytest.raises((ValueError, TypeError), match=r"\bw\b"):
                call()


@on_each(lambda b: [()], [])
def test_a_trajectory_with_a_weight_for_each_example(b):
    given = dict(guidance=(LABELS, W), predict="x0", clip=1.0)
    together = sampled(b, **given)
    for got in (together, tuned(**given)):
        assert np.abs(got - truth(**given)).max() < 2e-5
    for i, w in enumerate(W):
        assert same(together[i], sampled(b, guidance=(LABELS, float(w)), predict="x0", clip=1.0)[i])


@on_each(lambda b: [()], [])
def test_guidance_in_an_interval_of_times(b):
    """Outside of it the weight is 1: all of it inside is plain guidance, none the conditional model, to the bit."""
    plain, conditional = (sampled(b, guidance=(LABELS, w), predict="v") for w in (3.0, 1.0))
    assert same(sampled(b, guidance=(LABELS, 3.0, (0, 1000)), predict="v"), plain)
    assert same(sampled(b, guidance=(LABELS, 3.0, (300, 300)), predict="v"), conditional)
    assert same(sampled(b, guidance=(LABELS, 3.0, (0, 299)), predict="v"), conditional)
    given = dict(guidance=(LABELS, W + 1, (299, 700)), predict="v")
    middle = sampled(b, **given)
    for got in (middle, tuned(**given)):
        assert np.abs(got - truth(**given)).max() < 1e-4
    assert not same(middle, plain) and not same(middle, conditional)
    for wrong in ((LABELS, np.ones(4)), (LABELS, 2.0, (5, 3)), (LABELS,), (LABELS, None)):
        for call in (sampled, lambda b, **given: tuned(**given)):
            with pytest.raises(ValueError, match=r"\bguidance\b"):
                call(b, guidance=wrong)


@on_each(lambda b: [(net, predict) for net in ("simple", "residual") for predict in ("x0", "v")], ["net", "predict"])
def test_a_trajectory_from_zero_terminal_snr(b, net, predict):
    params = SIMPLE if net == "simple" else RESIDUAL
    for options in ({}, {"clip": 0.8}, {"eta": 0.5, "seed": 3}):
        want = truth(params, abar=ZERO, predict=predict, **options)
        for got in (sampled(b, params, abar=ZERO, predict=predict, **options),
                    tuned(params, abar=ZERO, predict=predict, **options)):  # fmt: skip
            assert np.all(np.isfinite(got)) and np.abs(got - want).max() < 2e-5 * np.abs(want).max() + 2e-5
    with pytest.raises(ValueError, match=r"\babar\b"):
        sampled(b, params, abar=ZERO)
