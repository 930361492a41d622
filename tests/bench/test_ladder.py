"""Every rung of every ladder is right and says what it changes and what that should buy."""
import pytest

from bench import ladder
from bench.ladder.__main__ import climb


@pytest.mark.parametrize("name", ladder.LADDERS)
def test_every_rung_is_right_and_says_what_it_is_about(name, capsys):
    steps = ladder.ladder(name)
    ladder.checked(steps, steps.SMALL)
    assert len(steps.RUNGS) >= 5 and all(all(ladder.said(rung)) for rung in steps.RUNGS)
    assert steps.RUNGS[-1].__name__ == "kernel"
    climb(name, 0, small=True)
    shown = capsys.readouterr().out
    assert all(f"{rung.__name__}: " in shown for rung in steps.RUNGS) and shown.count("bought") == len(steps.RUNGS) - 1


def test_a_wrong_rung_is_named(monkeypatch):
    steps = ladder.ladder("linear")

    def negated(x, w, b):
        return -steps.kernel(x, w, b)

    monkeypatch.setattr(steps, "RUNGS", (steps.kernel, negated))
    with pytest.raises(ValueError, match="negated"):
        ladder.checked(steps, steps.SMALL)
