"""Worked examples of `ref.diffusion`: those of all functions suffice."""
