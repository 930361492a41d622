"""Worked examples of `ref.diffusion`: those of all functions suffice, but for a step to a later time."""

FUNCTIONS = {
    "ddim_inverse_step": dict(s=500),
}
