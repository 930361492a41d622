"""Which way imports run, what stays private to a module, and what importing costs."""
import ast
import subprocess
import sys

import pytest

from tests import ROOT
from tests.house import imports, python_files

STDLIB = set(sys.stdlib_module_names)


def kernels(*names):
    return {f"kernels.{name}" for name in names}


FOLDED = kernels("arguments", "coefficients", "gaussians", "prepare", "trajectory")
NUMBA = {"numpy", "numba", "llvmlite"} | FOLDED | kernels("numba_cpu")
TRITON = {"numpy", "triton"} | FOLDED | kernels("triton_gpu")
RECORDS = {"numpy", "ref"} | kernels("registry", "ops", "numpy_cpu", "coefficients", "tolerance", "timing")
# Where a file stands decides what it may import next to the standard library; the first line that fits holds. A folder
# allows all that is inside it.
MAY_IMPORT = {
    "ref/reading/": {"numpy", "ref", "pygments"},  # the reader: no math; colours where they are installed
    "ref/": {"numpy", "ref"},
    "kernels/arguments.py": {"numpy"},
    "kernels/gaussians.py": {"numpy"},
    "kernels/prepare.py": {"numpy"},
    "kernels/trajectory.py": {"numpy"} | kernels("coefficients"),
    "kernels/coefficients.py": {"numpy"},  # every backend uses it, so it may not lead them to the truth
    "kernels/numpy_cpu/": {"numpy"} | FOLDED | kernels("numpy_cpu"),
    "kernels/numba_cpu/": NUMBA,
    "kernels/triton_gpu/arrays.py": TRITON | {"numba"},  # arrays on the device
    "kernels/triton_gpu/": TRITON,
    "kernels/check/": RECORDS | {"hypothesis"} | kernels("check"),
    "kernels/__main__.py": RECORDS | kernels("check"),
    "kernels/": RECORDS,
}
# bench and tests may use everything else; the math does not know its reader
NEVER_IMPORTED_FROM = {
    "bench/": {"tests"}, "ref/reading/": set(), "ref/__main__.py": set(), "ref/examples/": {"ref.reading"},
    "ref/": {"ref.reading", "ref.examples"}, "kernels/": {"ref.reading"},
}  # fmt: skip


def within(module, names):
    return any(module == name or module.startswith(name + ".") for name in names)


def wrong_imports(files):
    """["file imports module"] for each import that runs the wrong way."""
    wrong = []
    for path, source in files.items():
        allowed = next((names for place, names in MAY_IMPORT.items() if path.startswith(place)), None)
        forbidden = next((names for place, names in NEVER_IMPORTED_FROM.items() if path.startswith(place)), set())
        for module in imports(source):
            anything = allowed is None and not module.startswith(".")
            fine = anything or within(module, STDLIB) or within(module, allowed or ())
            if not fine or within(module, forbidden):
                wrong.append(f"{path} imports {module}")
    return wrong


def test_imports_run_one_way():
    files = python_files("ref", "kernels", "bench")
    assert {"ref/__init__.py", "ref/diffusion.py", "kernels/__init__.py"} <= set(files)
    assert wrong_imports(files) == []


WRONG = {
    "ref/new.py": (
        "import torch", "import numba", "import pygments", "import reference", "from . import philox",
        "def f():\n    import scipy.special", "from ref.reading import trace", "import ref.examples.flow",
    ),
    "ref/nets/new.py": ("from kernels import registry",),
    "ref/__main__.py": ("import pygments",),
    "ref/reading/new.py": ("import rich", "from kernels import registry"),
    "kernels/registry.py": (
        "import ref.reading.trace", "import torch", "from kernels import check", "from kernels.numba_cpu import fused",
    ),
    "kernels/ops/new.py": ("from kernels.check import search", "from kernels.triton_gpu import fused"),
    "kernels/check/new.py": ("from kernels.numba_cpu import fused",),
    "kernels/tolerance.py": ("import tests",),
    "kernels/coefficients.py": ("from ref import schedules",),
    "kernels/numpy_cpu/new.py": ("from ref import diffusion", "import numba", "from kernels import registry"),
    "kernels/numba_cpu/new.py": (
        "from ref.diffusion import q_sample", "import ref.diffusion as truth", "import triton",
        "from kernels import registry", "from kernels import triton_gpu", "from kernels.numpy_cpu import diffusion",
    ),
    "kernels/triton_gpu/new.py": ("from kernels.numba_cpu import fused", "import torch", "import numba"),
    "bench/new.py": ("from tests import ROOT",),
}  # fmt: skip
RIGHT = {
    "ref/new.py": ("import math\nimport numpy as np\nfrom ref.diffusion import q_sample",),
    "ref/__main__.py": ("from ref.reading import page",),
    "ref/reading/new.py": ("from ref.examples import flow\ndef f():\n    import pygments",),
    "kernels/registry.py": ("from ref import diffusion\nimport importlib.util",),
    "kernels/check/new.py": ("from kernels import registry\nfrom kernels.check import laws",),
    "kernels/numpy_cpu/new.py": ("import numpy as np\nfrom kernels import coefficients",),
    "kernels/numba_cpu/new.py": ("from kernels import coefficients",),
    "bench/new.py": ("import torch\nfrom kernels.numba_cpu import fused",),
}


@pytest.mark.parametrize("path, line", [(path, line) for path, lines in WRONG.items() for line in lines])
def test_a_wrong_import_is_found(path, line):
    assert wrong_imports({path: line}) != []


@pytest.mark.parametrize("path, line", [(path, line) for path, lines in RIGHT.items() for line in lines])
def test_a_right_import_is_not(path, line):
    assert wrong_imports({path: line}) == []


# --- private names ---------------------------------------------------------------------------------------------------


OURS = {"ref", "kernels", "bench"}


def private(name):
    return name.startswith("_") and not name.startswith("__") and name not in ("_fields", "_asdict", "_replace")


def private_uses(files):
    """["file uses module._name"] for each private name of another module of the project."""
    found = []
    for path, source in files.items():
        tree, modules = ast.parse(source), set()
        for node in ast.walk(tree):
            ours = isinstance(node, ast.ImportFrom) and within(node.module or "", OURS)
            if ours or isinstance(node, ast.Import):
                modules |= {a.asname or a.name for a in node.names if ours or within(a.name, OURS)}
            if ours:
                found += [f"{path} uses {node.module}.{a.name}" for a in node.names if private(a.name)]
        found += [f"{path} uses {ast.unparse(node)}" for node in ast.walk(tree)
                  if isinstance(node, ast.Attribute) and private(node.attr) and ast.unparse(node.value) in modules]
    return found


def test_nothing_private_is_used_across_modules():
    assert private_uses(python_files("ref", "kernels", "bench")) == []


@pytest.mark.parametrize("source, count", [
    ("from ref.diffusion import _at", 1),
    ("from ref import diffusion\ndiffusion._at(1)", 1),
    ("import ref.diffusion as d\nd._at", 1),
    ("import ref.diffusion\nref.diffusion._at", 1),
    ("from ref.diffusion import at\nat.__name__", 0),
    ("import numpy as np\nnp._core", 0),
    ("def _at():\n    pass\n_at()", 0),
])
def test_a_private_name_of_another_module_is_found(source, count):
    assert len(private_uses({"ref/new.py": source})) == count


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
    """Every module of `ref` is imported."""
    loaded = python(IMPORT_ALL.format(package="ref") + "print(*sorted({name.split('.')[0] for name in new}))")
    assert set(loaded) - STDLIB == {"numpy", "ref"}


def test_importing_kernels_loads_no_backend():
    new = "{name.split('.')[0] for name in set(sys.modules) - before}"
    loaded = python(f"import sys; before = set(sys.modules); import kernels; print(*{new})")
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
