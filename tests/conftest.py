"""Hypothesis runs the same examples every time: a test that fails here fails everywhere, and none is flaky. NumPy's
matrices use one thread: they are small, and threads that wait for each other cost more than they save."""
import os

for library in ("OPENBLAS", "MKL", "OMP"):  # before NumPy is imported
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from hypothesis import settings  # noqa: E402

settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci")
