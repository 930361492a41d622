"""Hypothesis runs the same examples every time: a test that fails here fails everywhere, and none is flaky. NumPy's
matrices use one thread: they are small, and threads that wait for each other cost more than they save. `--without
torch` blocks a library from import: `pytest -m gpu --without torch` is the whole suite of the GPU on a machine that has
none."""
import gc
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
    names = config.getoption("without")
    if there := [name for name in names if name in sys.modules]:
        raise RuntimeError(f"--without: {', '.join(there)} is imported already")
    if names:
        sys.meta_path[:] = [Without(finder, names) for finder in sys.meta_path]


def pytest_collection_finish():
    """What was imported stays: the collector need not walk over it again while kernels are compiled and interpreted."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


class Without:
    """A finder that finds nothing of some libraries, as where they are not installed. finder: of `sys.meta_path`."""

    def __init__(self, finder, names):
        self.finder, self.names = finder, names

    def find_spec(self, name, *rest):
        """As of any finder."""
        return None if name.partition(".")[0] in self.names else self.finder.find_spec(name, *rest)

    def __getattr__(self, name):
        return getattr(self.finder, name)
