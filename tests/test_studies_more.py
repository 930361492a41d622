"""The helpers of the studies score, likelihood, flow and consistency: closed forms against differences, tiny trainings, what is written."""
import csv

import numpy as np
import pytest

from bench.studies import digits, results, score
from ref import philox

ABAR = digits.alpha_bar("cosine")


def test_the_exact_score_is_the_gradient_of_the_log_density():
    x, h = 1.5 * philox.normal(0, (50, 2)), 1e-5
    for t in (20, 400, 980):
        for axis, step in enumerate(h * np.eye(2)):
            slope = (score.log_density(x + step, ABAR[t]) - score.log_density(x - step, ABAR[t])) / (2 * h)
            np.testing.assert_allclose(score.exact_score(x, ABAR[t])[:, axis], slope, rtol=1e-5, atol=1e-6)


def test_the_mixture_has_the_moments_of_its_parts():
    x = score.mixture(100_000, 3, 0)
    mean = score.WEIGHTS @ score.MEANS
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.015)
    np.testing.assert_allclose((x**2).sum(axis=1).mean(), score.WEIGHTS @ (np.sum(score.MEANS**2, axis=1) + 2 * score.STDS**2), rtol=0.01)


def test_a_short_training_brings_the_field_nearer_and_the_losses_keep_their_factor():
    start = score.measure(score.train(1, 16, ABAR, 0, lambda *_: None), 500, ABAR, 2000, 0)
    later = score.measure(score.train(150, 128, ABAR, 0, lambda *_: None), 500, ABAR, 2000, 0)
    assert later["relative_error"] < 0.6 * start["relative_error"]
    assert later["eps_loss"] > later["least_eps_loss"] and max(start["factor_off"], later["factor_off"]) < 1e-13
    assert len(score.sentences([start, later])) == 3


class Figure:
    """Stands in for matplotlib's, which the tests do not need."""

    def savefig(self, file, **_):
        file.write(b"picture")


def test_a_study_is_written_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "pyplot", lambda: Plot)
    results.write(tmp_path / "new", "study", Figure(), [{"a": 1, "b": 0.123456789}], ["One.", "Two."])
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["study.csv", "study.png", "study.txt"]
    assert (tmp_path / "new" / "study.txt").read_text() == "One.\nTwo.\n"
    with open(tmp_path / "new" / "study.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": "0.123457"}]


def test_a_study_that_cannot_be_drawn_leaves_the_old_one(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "pyplot", lambda: Plot)
    results.write(tmp_path, "study", Figure(), [{"a": 1}], ["Old."])
    with pytest.raises(AttributeError):
        results.write(tmp_path, "study", None, [{"a": 2}], ["New."])
    assert (tmp_path / "study.txt").read_text() == "Old.\n" and len(list(tmp_path.iterdir())) == 3


class Plot:
    """matplotlib.pyplot as far as `results.write` needs it."""

    close = staticmethod(lambda figure: None)
