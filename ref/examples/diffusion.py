"""Worked examples of `ref.diffusion`: those of all functions suffice, but for a step to a later time."""
from ref.diffusion import q_sample

FUNCTIONS = {
    "transition": dict(xs=lambda x0, s, eps, abar: q_sample(x0, s, eps, abar)),
    "ddim_inverse_step": dict(s=500),
}
