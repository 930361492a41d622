"""Mutants that cannot change a result, with the reason. Each must still apply, so that a line that no longer means anything is found."""
from tests.mutants.sites import Site

EQUIVALENT = {}
