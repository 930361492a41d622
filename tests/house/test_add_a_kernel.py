"""Two files add a kernel: the README's recipe, word for word, in a copy of the tree."""
import ast
import csv
import re
import shutil
import subprocess
import sys

import pytest

from bench.__main__ import missing
from kernels import registry
from tests import ROOT

PATH, BLOCK = r"`(kernels/\w+/\w+\.py)`", r"```python\n(.+?)```"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree with the two files of the recipe, which were not there before."""
    folder = tmp_path_factory.mktemp("tree")
    left = shutil.ignore_patterns(".git", "__pycache__", ".pytest_cache", ".hypothesis", "*.png")
    shutil.copytree(ROOT, folder, dirs_exist_ok=True, ignore=left)
    text = (ROOT / "README.md").read_text("utf-8")
    recipe = re.search(r"(?s)^## Add an equation, add a kernel\n(.+?)^## ", text, flags=re.M)[1]
    files = re.findall(rf"(?s){PATH}.+?{BLOCK}", recipe)
    assert [path.split("/")[1] for path, _ in files] == ["numba_cpu", "ops"]
    for path, text in files:
        assert not (folder / path).exists()
        (folder / path).write_text(text, "utf-8")
    return folder


def run(tree, *words):
    """What a command of the copy printed."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=tree, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_command_checks_it(tree):
    said = run(tree, "kernels", "--op", "guidance").splitlines()
    rows = [line.split() for line in said if line.startswith("guidance.guide")]
    assert [row[1:3] + row[-1:] for row in rows] == [["numba_cpu", dtype, "ok"] for dtype in registry.FLOATS]


def test_the_kernels_tests_find_it_and_pass(tree):
    said = run(tree, "pytest", "tests/kernels", "-k", "guidance.guide", "-p", "no:cacheprovider", "-p", "no:xdist")
    assert int(re.search(r"(\d+) passed", said)[1]) >= 6 and "failed" not in said and "skipped" not in said


@pytest.mark.skipif(bool(missing(False)), reason="the benchmark's own libraries are not installed")
def test_the_benchmark_times_it(tree):
    run(tree, "bench", "--op", "guidance", "--shape", "8,784", "--seconds", "0", "--csv", "rows.csv")
    (found,) = csv.DictReader((tree / "rows.csv").read_text("utf-8").splitlines())
    assert found["op"] == "guidance.guide" and found["failure"] == "" and float(found["median_us"]) > 0


def test_every_record_has_a_kernel_and_every_kernel_a_record():
    """A function of a backend under the name of a truth is checked by everything that reads the records."""
    names = {op.name for op in registry.OPS}
    assert len(names) == len(registry.OPS) > 40
    kernels = {b: {op.name for op in registry.OPS if registry.kernel(op, b)} for b in registry.BACKENDS}
    assert set.union(*kernels.values()) == names and all(len(found) >= 42 for found in kernels.values())
    for backend in registry.BACKENDS:
        for path in (ROOT / "kernels" / backend).glob("*.py"):
            truth = ROOT / "ref" / path.name
            theirs, ours = functions(truth) if truth.exists() else set(), functions(path)
            unlisted = {f"{path.stem}.{name}" for name in ours & theirs} - names
            assert unlisted <= {"philox.below"}  # exact integers, tested by name


def functions(path):
    nodes = ast.parse(path.read_text("utf-8")).body
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name[0] != "_"}
