"""Packaging, the top level of the tree, CI and the README."""
import ast
import configparser
import fnmatch
import re
import sys
import tomllib

import pytest

from tests import ROOT
from tests.house import imports, python_files

STDLIB = set(sys.stdlib_module_names)


def test_the_top_level_holds_only_what_belongs_there():
    expected = set(".ci .git .gitignore LICENSE README.md bench kernels pyproject.toml ref setup.cfg tests".split())
    lines = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    ignored = [line.strip().rstrip("/") for line in lines if line.strip()]
    extra = {entry.name for entry in ROOT.iterdir() if entry.is_file() or any(entry.iterdir())} - expected
    assert {name for name in extra if not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)} == set()


def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements(parser):
    lines = parser["options"]["install_requires"].splitlines()
    for extra in parser["options.extras_require"].values():
        lines += extra.splitlines()
    return [line.split(";")[0].strip() for line in lines if line.strip()]


def test_versions_have_lower_bounds_and_no_upper_ones():
    found = requirements(setup_cfg())
    assert {"numpy", "numba", "pytest", "hypothesis"} <= {re.split(r"\W", line)[0] for line in found}
    for line in found:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+(\[\w+\])?>=[0-9.]+", line), f"{line!r}: a lower bound and nothing else"


def test_everything_a_test_imports_is_in_the_test_extra():
    """So that `pip install -e ".[test]"` on a bare machine is enough. What makes the goldens is no test."""
    wanted = setup_cfg()["options"]["install_requires"] + setup_cfg()["options.extras_require"]["test"]
    installed = {re.split(r"[^\w-]", line.strip())[0] for line in wanted.split("\n")}
    files = python_files("tests")
    for path in files.keys() - {path for path in files if path.startswith("tests/goldens/")}:
        for module in imports(files[path]):
            top = module.split(".")[0]
            ours = {"ref", "kernels", "bench", "tests", "_pytest"}
            assert top in STDLIB | installed | ours, f"{path} imports {module}"


def test_nothing_softens_the_tests():
    """Warnings are errors, but for what pytest-benchmark says about its own presence under xdist."""
    lines = setup_cfg()["tool:pytest"]["filterwarnings"].split("\n")
    assert [line for line in lines if line] == ["error", "ignore:Benchmarks are automatically disabled"]
    for path, source in python_files("tests").items():
        assert "import" + "orskip" not in source, f"{path}: a test that skips because an import broke"
        assert "x" + "fail" not in source, f"{path}: a test that may fail"


def texts_in_any_encoding(source):
    """The lines at which text is read or written in the encoding of the system, which may be ASCII."""
    lines, least = [], {"read_text": 0, "write_text": 1, "open": 9, "fdopen": 9}  # arguments before the encoding
    for node in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name, words = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
        mode = "".join(str(getattr(value, "value", "")) for value in (*node.args[1:2], words.get("mode")))
        known = name != "os.open" and len(node.args) <= least.get(name.rpartition(".")[2], -1)
        if known and "b" not in mode and "encoding" not in words:
            lines.append(node.lineno)
    return lines


def test_every_text_is_in_utf_8():
    files = python_files("ref", "kernels", "bench", "tests")
    found = {path: texts_in_any_encoding(source) for path, source in files.items()}
    assert {path: lines for path, lines in found.items() if lines} == {}
    wrong = ("open(p)", "open(p, 'w')", "p.read_text()", "p.write_text(x)", "p.open()", "os.fdopen(1, 'w')")
    right = ("open(p, 'rb')", "open(p, mode='wb')", "open(p, encoding='utf-8')", "p.read_text('utf-8')",
             "p.write_text(x, 'utf-8')", "p.write_text(x, encoding='utf-8')", "os.open(p, os.O_RDONLY)")  # fmt: skip
    assert all(map(texts_in_any_encoding, wrong)) and not any(map(texts_in_any_encoding, right))


def test_pyproject_holds_the_build_system_only():
    assert list(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))) == ["build-system"]


@pytest.mark.parametrize("command", [
    'pip install -e ".[test]" && pytest', 'pip install -e ".[study]" && python -m bench.studies.digits',
])
def test_ci_runs_the_commands_of_the_readme(command):
    for path in ("README.md", ".ci/run"):
        assert command in (ROOT / path).read_text("utf-8"), f"{path} does not have: {command}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 160
