"""Files and functions keep their budget (`budget.MOST`), and `exceptions.txt` may only shrink."""
import pytest

from tests.house import budget, python_files


def test_files_and_functions_keep_the_budget():
    assert budget.differences(budget.too_large(python_files(*budget.FOLDERS)), budget.listed()) == []


@pytest.mark.parametrize("source, key", [
    ("\n" * 301, ("a.py", "lines")),
    ("x = '" + "x" * 120 + "'", ("a.py", "wide")),
    ("def f(" + ", ".join(f"a{i}" for i in range(16)) + "): pass", ("a.py:f", "arguments")),
    ("class C:\n    def f(self, *a, " + ", ".join(f"b{i}" for i in range(14)) + "): pass", ("a.py:C.f", "arguments")),
    ("def f():\n    def g():\n        x = 0\n" + "        x += 1\n" * 40, ("a.py:f.g", "body")),
    ("def f():\n" + "    # a comment\n    x = 1\n" * 21, ("a.py:f", "body")),
])
def test_what_is_too_large_is_found(source, key):
    assert key in budget.too_large({"a.py": source})


def test_a_docstring_does_not_count():
    source = 'def f():\n    """' + "\n" * 50 + '"""\n' + "    x = 1\n" * 40
    assert budget.too_large({"a.py": source}) == {}


@pytest.mark.parametrize("real, allowed", [
    ({("a.py", "lines"): 301}, {}), ({("a.py", "lines"): 311}, {("a.py", "lines"): 310}),
    ({("a.py", "lines"): 309}, {("a.py", "lines"): 310}), ({}, {("a.py", "lines"): 310}),
])
def test_the_list_of_exceptions_is_exact(real, allowed):
    assert len(budget.differences(real, allowed)) == 1
    assert budget.differences(real, real) == []
