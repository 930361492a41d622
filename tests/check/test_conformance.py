"""The study of other libraries: every difference that the checker found is explained."""
import csv

import numpy as np
import pytest

from bench.studies import conformance
from ref import schedules
from tests import ROOT


def test_every_difference_is_explained():
    """By the checker's cause, or by the truth with one convention changed, which then has to reproduce it."""
    with open(ROOT / "bench" / "results" / "studies" / "conformance.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    apart = [r for r in rows if r["verdict"] == "differs"]
    assert len(rows) > 60 and {"agrees", "differs"} == {r["verdict"] for r in rows}
    for r in apart:
        assert r["example"] and r["convention"] and float(r["ulps_explained"] or 0) <= conformance.AGREES, r
    table = conformance.markdown(rows)
    assert table.count("\n| ") == 1 + len(apart) and "diffusers" in rows[0]["versions"]
    numbers = [r | {n: float(r[n]) for n in ("ulps", "ulps_explained") if r[n]} for r in rows]
    assert str(len(rows)) in conformance.sentences(numbers)[0]


def test_the_models_of_the_study_are_exact():
    """For data of N(0, DATA_STD^2) each prediction is the regression of its target on the state: cov / var."""
    var, x = conformance.DATA_STD**2, np.ones((1, 1))
    for t in (1, 500, 1000):
        a = conformance.ABAR[t]
        assert conformance.eps_model(x, t)[0, 0] == pytest.approx(np.sqrt(1 - a) / (a * var + 1 - a), rel=1e-12)
    assert conformance.denoise(x, 2.0)[0, 0] == pytest.approx(var / (var + 4), rel=1e-12)
    velocity = (0.25 - 0.75 * var) / (0.75**2 * var + 0.25**2)
    assert conformance.velocity(x, 0.25)[0, 0] == pytest.approx(velocity, rel=1e-12)
    in_float32 = conformance.in_float32(schedules.linear_betas())
    assert np.max(np.abs(in_float32 / conformance.ABAR[1:] - 1)) < 1e-6
