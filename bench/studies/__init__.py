"""Experiments on real data, each a command: `python -m bench.studies.digits`."""
