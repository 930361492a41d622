"""The house itself: which way imports run, what importing costs, docstrings against signatures, packaging, CI.

Files are found by walking the folders, so a new one is under these rules from its first line.
"""
import ast
import configparser
import fnmatch
import re
import subprocess
import sys
import tomllib

import pytest

from tests import ROOT

STDLIB = set(sys.stdlib_module_names)
NUMBA = {"numpy", "numba", "llvmlite"}
TRITON = {"numpy", "triton"}
# Where a file stands decides what it may import beside the standard library; the first line that fits holds. A folder
# allows all that is inside it.
MAY_IMPORT = {
    "ref/reading/": {"numpy", "ref", "pygments"},  # the reader behind `python -m ref`: no math; colours where they are installed
    "ref/": {"numpy", "ref"},
    "kernels/coefficients.py": {"numpy"},  # both backends stand on it, so it may not lead them to the truth
    "kernels/numba_cpu/": NUMBA | {"kernels.coefficients", "kernels.numba_cpu"},
    "kernels/triton_gpu/arrays.py": TRITON | {"numba", "kernels.coefficients", "kernels.triton_gpu"},  # device arrays
    "kernels/triton_gpu/": TRITON | {"kernels.coefficients", "kernels.triton_gpu"},
    "kernels/": {"numpy", "ref", "hypothesis", *(f"kernels.{name}" for name in (
        "check", "coefficients", "loops", "plain", "registry", "timing", "tolerance"))},
}
# bench and tests may use everything else; the math does not know its reader
NEVER_IMPORTED_FROM = {"bench/": {"tests"}, "ref/reading/": set(), "ref/__main__.py": set(), "ref/": {"ref.reading"}, "kernels/": {"ref.reading"}}


def python_files(*folders):
    """{path from the root: source} of every Python file in these folders."""
    return {path.relative_to(ROOT).as_posix(): path.read_text()
            for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if "__pycache__" not in path.parts}


def imports(source):
    """Every module that the source imports, anywhere in it; `from a import b` counts as a.b, since b may be a module."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return found


def within(module, names):
    return any(module == name or module.startswith(name + ".") for name in names)


def wrong_imports(files):
    """["file imports module"] for each import that runs the wrong way."""
    wrong = []
    for path, source in files.items():
        allowed = next((names for place, names in MAY_IMPORT.items() if path.startswith(place)), None)
        forbidden = next((names for place, names in NEVER_IMPORTED_FROM.items() if path.startswith(place)), set())
        for module in imports(source):
            fine = within(module, STDLIB) or (allowed is None and not module.startswith(".")) or within(module, allowed or ())
            if not fine or within(module, forbidden):
                wrong.append(f"{path} imports {module}")
    return wrong


def test_imports_run_one_way():
    files = python_files("ref", "kernels", "bench")
    assert {"ref/__init__.py", "ref/diffusion.py", "kernels/__init__.py"} <= set(files)
    assert wrong_imports(files) == []


@pytest.mark.parametrize("path, line", [
    ("ref/new.py", "import torch"), ("ref/new.py", "import numba"), ("ref/nets/new.py", "from kernels import registry"),
    ("ref/new.py", "def f():\n    import scipy.special"), ("ref/new.py", "from . import philox"), ("ref/new.py", "import reference"),
    ("ref/new.py", "from ref.reading import trace"), ("ref/new.py", "import pygments"), ("ref/__main__.py", "import pygments"),
    ("ref/reading/new.py", "import rich"), ("ref/reading/new.py", "from kernels import registry"), ("kernels/registry.py", "import ref.reading.examples"),
    ("kernels/coefficients.py", "from ref import schedules"), ("kernels/numba_cpu/new.py", "from ref.diffusion import q_sample"),
    ("kernels/numba_cpu/new.py", "import ref.diffusion as truth"), ("kernels/numba_cpu/new.py", "import triton"),
    ("kernels/numba_cpu/new.py", "from kernels.triton_gpu import diffusion"), ("kernels/numba_cpu/new.py", "from kernels import triton_gpu"),
    ("kernels/numba_cpu/new.py", "from kernels import registry"), ("kernels/triton_gpu/new.py", "from kernels.numba_cpu import fused"),
    ("kernels/triton_gpu/new.py", "import torch"), ("kernels/triton_gpu/new.py", "import numba"), ("kernels/registry.py", "import torch"),
    ("kernels/registry.py", "from kernels.numba_cpu import fused"), ("kernels/tolerance.py", "import tests"), ("bench/new.py", "from tests import ROOT"),
])
def test_a_wrong_import_is_found(path, line):
    assert wrong_imports({path: line}) != []


@pytest.mark.parametrize("path, line", [
    ("ref/new.py", "import math\nimport numpy as np\nfrom ref.diffusion import q_sample"), ("kernels/numba_cpu/new.py", "from kernels import coefficients"),
    ("kernels/registry.py", "from ref import diffusion\nimport importlib.util"), ("bench/new.py", "import torch\nfrom kernels.numba_cpu import fused"),
    ("ref/__main__.py", "from ref.reading import page"), ("ref/reading/new.py", "from ref.diffusion import q_sample\ndef f():\n    import pygments"),
])
def test_a_right_import_is_not(path, line):
    assert wrong_imports({path: line}) == []


# --- what importing costs, in another process -----------------------------------------------------------------------


def python(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


IMPORT_ALL = """
import importlib, pkgutil, sys
before = set(sys.modules)
package = importlib.import_module({package!r})
modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(package.__path__, {package!r} + ".")
           if not found.name.endswith("__main__")]
new = set(sys.modules) - before
"""


def test_importing_ref_loads_numpy_and_nothing_else():
    """So it costs what its own few files cost. Every module of `ref` is imported."""
    loaded = python(IMPORT_ALL.format(package="ref") + "print(*sorted({name.split('.')[0] for name in new}))")
    assert set(loaded) - STDLIB == {"numpy", "ref"}


def test_importing_kernels_loads_no_backend():
    loaded = python("import sys; before = set(sys.modules); import kernels; print(*{n.split('.')[0] for n in set(sys.modules) - before})")
    assert set(loaded) - STDLIB == {"kernels"}


def test_importing_the_numba_kernels_compiles_nothing_and_never_meets_the_truth():
    loaded = python(IMPORT_ALL.format(package="kernels.numba_cpu") + """
from numba.core.dispatcher import Dispatcher
dispatchers = {id(d): d for module in modules for d in vars(module).values() if isinstance(d, Dispatcher)}
compiled = [d.__name__ for d in dispatchers.values() if d.signatures]
print("dispatchers:", len(dispatchers), "compiled:", compiled or "none", "ref:", "ref" in new)
""")
    assert loaded[0] == "dispatchers:" and int(loaded[1]) > 0
    assert loaded[2:] == ["compiled:", "none", "ref:", "False"]


# --- docstrings and signatures ---------------------------------------------------------------------------------------


def public_functions(source):
    """{name: node} of the functions at the top level that do not begin with an underscore; of overloads, the last."""
    return {node.name: node for node in ast.parse(source).body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}


def parameters(node):
    return [a.arg for a in node.args.posonlyargs + node.args.args + [node.args.vararg] + node.args.kwonlyargs + [node.args.kwarg] if a]


def documentation_gaps(files):
    """What is not documented, and what is documented but not there. A parameter is documented by its name in the docstring
    or in that of a function it refers to ("the rest as in `f` and `g`"); `out`, which is the same for a whole file, also
    by the file's. A line that begins "a, b: ..." documents a and b, which then have to be parameters."""
    gaps = []
    anywhere = {name: ast.get_docstring(node) or "" for path in sorted(files, reverse=True)
                for name, node in public_functions(files[path]).items()}
    exact = {f"{path[:-3].replace('/', '.')}.{name}": ast.get_docstring(node) for path, source in files.items()
             for name, node in public_functions(source).items()}
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
                    wider += exact.get(full) or ((ast.get_docstring(own[other]) or "") if other in own else anywhere.get(other, ""))
            for p in has:
                if not re.search(rf"(?<![\w.]){p}(?!\w)", wider) and not (p == "out" and re.search(r"`out=?`", about_file)):
                    gaps.append(f"{path}: {name} does not say what {p} is")
            for line in re.findall(r"^ *((?:\w+, )*\w+): ", text, flags=re.M):
                gaps += [f"{path}: {name} documents {p}, which is no parameter" for p in line.split(", ")
                         if has and p not in has and line != "Returns"]
    return gaps


def test_every_public_function_documents_its_parameters():
    assert documentation_gaps(python_files("ref", "kernels")) == []


@pytest.mark.parametrize("source", [
    '"""M."""\ndef f(x, y):\n    """Adds x. x: float."""', '"""M."""\ndef f(x):\n    pass', 'def f():\n    """Nothing."""',
    '"""M."""\ndef f(xt):\n    """x: the data; xt_hat is another word."""', '"""M."""\ndef f(x, *, out=None):\n    """x: a float."""',
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
        truth = public_functions((ROOT / "ref" / module).read_text())
        for name, node in public_functions(source).items():
            if name in truth:
                theirs, ours = parameters(truth[name]), parameters(node)
                assert ours[:len(theirs)] == theirs and set(ours[len(theirs):]) <= {"dtype", "out", "precision"}, f"{path}: {name}{tuple(ours)}"
                defaults = [ast.dump(d) for d in truth[name].args.defaults]
                added = len(ours) - len(theirs)
                mine = [ast.dump(d) for d in node.args.defaults]
                assert mine[:len(mine) - added] == defaults, f"{path}: {name} has other defaults"
                compared += 1
    assert compared > 10


# --- packaging, the top level, CI ------------------------------------------------------------------------------------


def test_the_top_level_holds_only_what_belongs_there():
    house = {".ci", ".git", ".gitignore", "LICENSE", "README.md", "bench", "kernels", "pyproject.toml", "ref", "setup.cfg", "tests"}
    ignored = [line.strip().rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line.strip()]
    extra = {entry.name for entry in ROOT.iterdir() if entry.is_file() or any(entry.iterdir())} - house
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
    """So that `pip install -e ".[test]"` on a bare machine is enough."""
    installed = {re.split(r"[^\w-]", line.strip())[0] for name in ("install_requires",) for line in setup_cfg()["options"][name].split("\n")}
    installed |= {re.split(r"[^\w-]", line.strip())[0] for line in setup_cfg()["options.extras_require"]["test"].split("\n")}
    for path, source in python_files("tests").items():
        for module in imports(source):
            top = module.split(".")[0]
            assert top in STDLIB | installed | {"ref", "kernels", "bench", "tests", "_pytest"}, f"{path} imports {module}"


def test_nothing_softens_the_tests():
    assert setup_cfg()["tool:pytest"]["filterwarnings"].split() == ["error"]
    for path, source in python_files("tests").items():
        assert "import" + "orskip" not in source, f"{path}: a test that skips because an import broke"
        assert "x" + "fail" not in source, f"{path}: a test that may fail"


def test_pyproject_holds_the_build_system_only():
    assert list(tomllib.loads((ROOT / "pyproject.toml").read_text())) == ["build-system"]


@pytest.mark.parametrize("command", ['pip install -e ".[test]" && pytest', 'pip install -e ".[study]" && python -m bench.studies.digits'])
def test_ci_runs_the_commands_of_the_readme(command):
    for path in ("README.md", ".ci/run"):
        assert command in (ROOT / path).read_text(), f"{path} does not have: {command}"
