"""The study sds: its measures on points where they are known, and that it moves what it says."""
from types import SimpleNamespace

import numpy as np

from bench.studies import denoiser, score, sds
from ref import philox, scene

ABAR = denoiser.alpha_bar("cosine")


def test_measures_of_points_that_are_known():
    """At the means: nothing away, no spread; one deviation to the left of each: 1 away, and still no spread within a
    component; all at one mean: the other shares are off."""
    data = score.mixture(4000, 0, philox.stream("label"), philox.stream("batch"))
    at = np.repeat(score.MEANS, (score.WEIGHTS * 400).astype(int), axis=0)
    row = sds.measured(at, data, sds.spread(data))
    assert row["nearest"] < 1e-12 and row["spread"] < 1e-12 and row["shares_off"] < 0.05
    left = at - np.repeat(score.STDS, (score.WEIGHTS * 400).astype(int))[:, None] * [1, 0]
    row = sds.measured(left, data, 1.0)
    assert abs(row["nearest"] - 1) < 1e-12 and row["spread"] < 1e-12
    assert sds.measured(at[:1], data, 1.0)["shares_off"] > 0.8
    row = sds.measured(data, data, sds.spread(data))
    assert row["spread"] == 1 and row["shares_off"] == 0 and abs(row["nearest"] - np.sqrt(2)) < 0.1


def test_distillation_of_a_gaussian_ends_at_its_mean_and_ddim_keeps_its_deviation():
    this = SimpleNamespace(steps=300, count=200, rate=0.2, sampler_steps=100, seed=0)
    mean, cov = np.array([0.5, -0.25]), 0.09 * np.eye(2)

    def model(x, t):
        return scene.gaussian_eps(x, t, mean, cov, ABAR)

    for plan in sds.PLANS:
        for weighting in sds.WEIGHTINGS:
            x = sds.distilled(model, this, ABAR, weighting, plan)
            assert np.abs(x.mean(axis=0) - mean).max() < 0.05 and x.std() < 0.45
    x = sds.sampled(model, this, ABAR)
    assert np.abs(x.std(axis=0) / 0.3 - 1).max() < 0.15
