"""Measurements: `python -m bench` times the kernels, `bench.studies` runs experiments on real data."""
