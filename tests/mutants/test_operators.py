"""The mutation operators, on a small function."""
import ast

import pytest

from tests.mutants.sites import Replace, changes

BODY = '''
def f(x, y, t, s):
    """x, y: arrays. t, s: ints."""
    if t < 0:
        raise ValueError("t")
    check(x=x)
    y = load(x, 0.5)
    z = np.sqrt(x) + np.where(t > s, x, -y) if t else x
    return z - y, z * 2
'''


def results(operator=None):
    """{the function with one change, as text} for an operator, or for all."""
    count, found = len(changes(ast.parse(BODY).body[0], operator)), []
    for i in range(count):
        tree = ast.parse(BODY)
        _, old, new = changes(tree.body[0], operator)[i]
        found.append(ast.unparse(ast.fix_missing_locations(Replace(old, new).visit(tree))))
    return found


@pytest.mark.parametrize("operator, text", [
    ("drop guard", '"""\n    pass\n    check'), ("drop sqrt", "z = x + np"), ("swap +", "sqrt(x) - np"),
    ("swap <", "if t <= 0"),
    ("first of where", "+ x if"), ("second of where", "+ -y if"), ("drop -", "x, y)"), ("never if", "z = x\n"),
    ("delete statement", "pass\n    y ="), ("delete load", "check(x=x)\n    pass"),
    ("swap arguments of load", "load(0.5, x)"),
    ("change 0.5", "load(x, 1.0)"), ("constant 0.5 -> 0.25", "load(x, 0.25)"), ("call sqrt -> exp", "np.exp(x)"),
    ("name t -> s", "if s < 0"), ("swap returned", "(z * 2, z - y)"), ("return the first twice", "(z - y, z - y)"),
])  # fmt: skip
def test_an_operator_changes_what_it_says(operator, text):
    assert text in results(operator)[0]


def test_every_change_is_a_change():
    assert ast.unparse(ast.parse(BODY)) not in results() and len(results()) > 25


def test_names_of_locals_play_no_part():
    labels = [[label for label, _, _ in changes(ast.parse(body).body[0])] for body in (BODY, BODY.replace("z", "w"))]
    assert labels[0] == labels[1]
