"""Hypothesis runs the same examples every time: a test that fails here fails everywhere, and none is flaky."""
from hypothesis import settings

settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci")
