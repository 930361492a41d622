"""Pipelines: published models run from their folders, by compositions of `ref.nets` and `ref.samplers`."""
