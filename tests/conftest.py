"""Hypothesis runs the same examples every time: a test that fails here fails everywhere, and none is flaky. NumPy's
matrices use one thread: they are small, and threads that wait for each other cost more than they save. `--without
torch` blocks a library from import: `pytest -m gpu --without torch` is the whole suite of the GPU on a machine that has
none."""
import os
import sys

for library in ("OPENBLAS", "MKL", "OMP"):  # before NumPy is imported
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from hypothesis import settings  # noqa: E402

settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci")


def pytest_addoption(parser):
    parser.addoption("--without", action="append", default=[], metavar="LIBRARY", help="block it; may be repeated")


def pytest_configure(config):
    for library in config.getoption("without"):
        if library in sys.modules:
            raise RuntimeError(f"--without {library}: it is imported already")
        sys.modules[library] = None  # an import of it fails as where it is not installed
