"""`python -m ref` keeps to the width of the terminal, and to the equation that was asked for."""
import re
import sys

import pytest

from ref.__main__ import main

COLOUR = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture
def printed(capsys, monkeypatch):
    """A function of words and columns: what `python -m ref` prints on a terminal of that width, or into a pipe."""
    def run(words, columns, terminal=False):
        monkeypatch.setenv("COLUMNS", str(columns))
        with monkeypatch.context() as patch:
            patch.setattr(sys.stdout, "isatty", lambda: terminal)
            assert main(words) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("words", [[], ["show", "ddim_step"], ["trace", "ddim_step"]], ids=str)
@pytest.mark.parametrize("columns", [50, 80, 130])
def test_lines_are_folded_where_the_terminal_ends_and_no_word_is_lost(words, columns, printed):
    said = printed(words, columns)
    assert sorted(said.split()) == sorted(printed(words, 10**4).split())
    # a word that is longer than a line stands alone
    assert all(len(line) <= columns or " " not in line.strip() for line in said.split("\n"))
    assert columns < 80 or max(map(len, said.split("\n"))) <= columns
    assert COLOUR.sub("", printed(words, columns, terminal=True)) == said  # colours take no room


def test_places_of_one_equation_are_not_those_of_another_of_its_name(printed):
    """`interpolate` of flow and of gan, by what a test imports under which name."""
    flow, gan = (printed(["show", f"{module}.interpolate"], 200) for module in ("flow", "gan"))
    assert "tests/ref/test_flow.py" in flow and "tests/ref/test_gan.py" not in flow
    assert "tests/ref/test_gan.py" in gan and "tests/ref/test_flow.py" not in gan
    assert "tests/bench/test_studies_vae_gan.py" in gan  # where it is called losses.interpolate


def test_a_page_is_reported_where_it_was_written(printed, tmp_path):
    path = tmp_path / "page.html"
    assert printed(["trace", "q_sample", "--html", str(path)], 80) == f"wrote {path}\n" and path.exists()
