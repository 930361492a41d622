"""What a trace shows of a run: loops, calls within calls, what is folded."""
import re

import pytest

from ref import layers
from ref.reading import catalogue, page, text, trace, worked
from tests import ROOT
from tests.ref.test_reading import EQUATIONS, output


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """No line is folded."""
    monkeypatch.setenv("COLUMNS", "200")


def test_a_written_element_a_loop_and_a_second_call_are_followed():
    run, _ = worked.run(layers.embedding_backward)
    written = [step.made[0][1] for step in run.steps if step.made and step.made[0][0] == "dw"]
    assert len(written) == 2 and not written[0].any() and written[1].any()
    run, _ = worked.run(EQUATIONS["ref.samplers.ddim"])
    assert [dict(step.made)["t"] for step in run.steps if step.source.startswith("for")] == [1000, 667, 333]
    lines = text.traced(EQUATIONS["ref.samplers.ddim"], run, [])
    assert [line.split("  ")[0] for line in map(str.strip, lines)
            if line.startswith("ddim_step")] == ["ddim_step", "ddim_step, as above"]
    # the second round goes through the lines of the first; the last, without noise, does not
    assert sum(line.strip().startswith("1 more time the same lines") for line in lines) == 1


def test_of_rounds_of_a_loop_through_the_same_lines_one_is_shown_and_what_the_others_leave(capsys):
    """Of Philox's ten rounds the first is another one, for it bumps no key; the second, and eight counted."""
    lines = output(capsys, "trace", "philox4x32").split("\n")
    rounds = [n for n, line in enumerate(lines) if "for r in range(rounds)" in line]
    assert [lines[n].split()[-1] for n in rounds] == ["0", "1"]
    again = next(n for n, line in enumerate(lines) if "8 more times the same lines" in line)
    left = dict(re.findall(r"(\w+) +(?:\(1,\) uint64 +)?(\d+)$", "\n".join(lines[again:again + 9]), flags=re.M))
    words = dict(zip(("c0", "c1", "c2", "c3"), (0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8)))
    assert left["r"] == "9" and {name: int(left[name]) for name in words} == words
    assert "1 more time the same lines" in output(capsys, "trace", "philox4x32", "--set", "rounds=3")
    assert "more time" not in output(capsys, "trace", "philox4x32", "--set", "rounds=2")
    said = output(capsys, "trace", "samplers.ddim", "--set", "times=[1000,800,600,400,200,0]", "--set", "eta=0",
                  "--set", "noise=None")
    assert re.findall(r"for i, \(t, s\) in enumerate\(pairwise\(times\)\): +i +(\d)", said) == ["0", "4"]
    assert re.search(r"3 more times the same lines +i +3\n", said)  # the last one has a call less


def test_every_round_of_an_outer_loop_counts_its_inner_one_anew():
    """Outer rounds of four, four and three inner ones: of alike ones the first is shown."""
    def step(line, end=0):
        return trace.Step(line, "", end, None)

    def outer(rounds):
        return [step(1, end=3)] + [step(2, end=3), step(3)] * rounds

    run = trace.Run("nested", ("", 0), {}, [], outer(4) + outer(4) + outer(3) + outer(1) + [step(4), *outer(2)])
    assert [line or source for _, line, source, _, _ in trace.rows(run)] == [
        1, 2, 3, "3 more times the same lines", "1 more time the same lines",
        1, 2, 3, "2 more times the same lines", 1, 2, 3, 4, 1, 2, 3, "1 more time the same lines"]  # fmt: skip


def test_a_loop_that_only_checks_is_left_out():
    run, _ = worked.run(EQUATIONS["ref.philox.philox4x32"])
    assert [step.source for step in run.steps if step.end] == ["for r in range(rounds):"] * 10


def test_no_equation_shows_memory_in_which_nothing_was_written():
    """A trace shows what a line assigns, so no line assigns what np.empty finds."""
    found = [path for path in (ROOT / "ref").rglob("*.py") if re.search(r"\bempty(_like)?\(", path.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize("name", ["nets.joint_dit.joint_dit", "nets.text.text_encoder"])
def test_a_long_trace_is_folded_to_a_few_screens_and_a_page_is_not(name, capsys):
    run, _ = worked.run(EQUATIONS[f"ref.{name}"])
    said, calls = output(capsys, "trace", name), [source for _, _, source, _, _ in trace.rows(run)]
    assert len(text.steps(run)) <= text.ROOM < len(text.steps(run, trace.ALL))
    assert ", folded" in said and text.FOLDED in said and not any(", folded" in source for source in calls)
    assert page.page(EQUATIONS[f"ref.{name}"], run, []).count(", folded") == 0
    short = output(capsys, "trace", "q_sample")
    assert ", folded" not in short and text.FOLDED not in short


def test_the_training_loop_is_a_few_screens_and_shows_every_line(capsys):
    said = output(capsys, "trace", "mlp_train")
    source = (ROOT / "ref/fused.py").read_text("utf-8").split("\n")
    # without the docstring, its checks and the return
    body = catalogue.tree(EQUATIONS["ref.fused.mlp_train"]).body[3:-1]
    for n in range(body[0].lineno, body[-1].end_lineno + 1):
        line = source[n - 1].strip()
        assert line.startswith("#") or re.search(rf"^ *{n}  +{re.escape(line)}", said, flags=re.M), line
    assert said.count("\n") < 350
