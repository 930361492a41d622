"""Docstrings against signatures, and the signatures of each backend against those of `ref`."""
import ast
import re

import pytest

from tests import ROOT
from tests.house import python_files


def public_functions(source):
    """{name: node} of the functions at the top level that do not begin with an underscore; of overloads, the last."""
    return {node.name: node for node in ast.parse(source).body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}


def parameters(node):
    a = node.args
    return [p.arg for p in [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg] if p]


def documentation_gaps(files):
    """What is not documented, and what is documented but not there.

    A parameter is documented by its name in the docstring or in that of a function it refers to ("the rest as in `f`
    and `g`"); `out`, which is the same for a whole file, also by the file's. A line that begins "a, b: ..." documents
    a and b, which then have to be parameters.
    """
    gaps = []
    exact = {f"{path[:-3].replace('/', '.')}.{name}": ast.get_docstring(node) or "" for path, source in files.items()
             for name, node in public_functions(source).items()}
    anywhere = {name: ast.get_docstring(node) or "" for path in sorted(files, reverse=True)
                for name, node in public_functions(files[path]).items()}
    for path, source in files.items():
        own = public_functions(source)
        about_file = ast.get_docstring(ast.parse(source)) or ""
        if not about_file:
            gaps.append(f"{path} has no docstring")
        for name, node in own.items():
            text, has = ast.get_docstring(node), parameters(node)
            if not text:
                gaps.append(f"{path}: {name} has no docstring")
                continue
            wider = text
            for names in re.findall(r"as in ((?:`[\w.]+`(?:, | and )?)+)", text):
                for full in re.findall(r"`([\w.]+)`", names):
                    other = full.rpartition(".")[2]
                    beside = f"{path.rpartition('/')[0].replace('/', '.')}."  # in this file, in this folder, anywhere
                    there = (text for at, text in exact.items() if at.startswith(beside) and at.endswith(f".{other}"))
                    near = next(there, "")
                    own_text = ast.get_docstring(own[other]) if other in own else ""
                    wider += exact.get(full) or own_text or near or anywhere.get(other, "")
            for p in has:
                of_the_file = p == "out" and re.search(r"`out=?`", about_file)
                if not re.search(rf"(?<![\w.]){p}(?!\w)", wider) and not of_the_file:
                    gaps.append(f"{path}: {name} does not say what {p} is")
            for line in re.findall(r"^ *((?:\w+, )*\w+): ", text, flags=re.M):
                gaps += [f"{path}: {name} documents {p}, which is no parameter" for p in line.split(", ")
                         if has and p not in has and line != "Returns"]
    return gaps


def test_every_public_function_documents_its_parameters():
    assert documentation_gaps(python_files("ref", "kernels")) == []


@pytest.mark.parametrize("source", [
    '"""M."""\ndef f(x, y):\n    """Adds x. x: float."""',
    '"""M."""\ndef f(x):\n    pass',
    'def f():\n    """Nothing."""',
    '"""M."""\ndef f(xt):\n    """x: the data; xt_hat is another word."""',
    '"""M."""\ndef f(x, *, out=None):\n    """x: a float."""',
    '"""M."""\ndef f(x):\n    """Doubles.\n\n    x, scale: floats.\n    """',
    '"""M."""\ndef g(x, lr):\n    """x, lr: floats."""\ndef f(x, lr, decay):\n    """The rest as in `g`. x: float."""',
])
def test_a_gap_in_the_documentation_is_found(source):
    assert documentation_gaps({"ref/new.py": source}) != []


def test_backends_have_the_names_and_arguments_of_ref():
    """In the same order with the same defaults; a kernel may add `dtype`, `precision` and `out` at the end."""
    compared = 0
    for path, source in python_files("kernels").items():
        backend, module = path.split("/")[1:] if path.count("/") == 2 else (None, None)
        if not backend or not (ROOT / "ref" / module).exists():
            continue
        truth = public_functions((ROOT / "ref" / module).read_text("utf-8"))
        for name, node in public_functions(source).items():
            if name in truth:
                theirs, ours = parameters(truth[name]), parameters(node)
                added = ours[len(theirs):]
                assert ours[:len(theirs)] == theirs, f"{path}: {name}{tuple(ours)}"
                assert set(added) <= {"dtype", "out", "precision", "scratch"}, f"{path}: {name}{tuple(ours)}"
                defaults = [ast.dump(d) for d in truth[name].args.defaults]
                mine = [ast.dump(d) for d in node.args.defaults]
                assert mine[:len(mine) - len(added)] == defaults, f"{path}: {name} has other defaults"
                compared += 1
    assert compared > 10


def citations(files):
    """{[NAME]: {its text: the files that list it so}} of the papers in the files' docstrings."""
    found = {}
    for path, source in files.items():
        about = ast.get_docstring(ast.parse(source)) or ""
        for name, text in re.findall(r"^ +(\[[^\]]+\]) +(.+(?:\n {8,}\S.*)*)", about, flags=re.M):
            found.setdefault(name, {}).setdefault(" ".join(text.split()), []).append(path)
    return found


def test_a_papers_name_means_one_paper_and_a_paper_is_cited_in_one_way():
    found = citations(python_files("ref", "kernels", "bench", "tests"))
    assert len(found) > 40 and {name: texts for name, texts in found.items() if len(texts) > 1} == {}
    names = {}
    for name, (text,) in ((name, list(texts)) for name, texts in found.items()):
        names.setdefault(re.search('"(.+)"', text)[1], []).append(name)
    assert {title: of for title, of in names.items() if len(of) > 1} == {}
