"""Worked examples of `ref.edm`."""
import numpy as np

from ref import edm
from ref.examples.base import ABAR, expected

ARGUMENTS = dict(
    sigma=np.array([0.1, 1.0, 10.0]),
)

FUNCTIONS = {
    "sigma_at": dict(t=np.array([0.0, 250.5, 1000.0])),
    "vp_from_ve": dict(sigma=2.0),
    "heun_step": dict(
        sigma=2.0, denoised=lambda x, x0, sigma: expected(x, x0, 1, sigma), sigma_next=1.0,
        denoised_next=lambda x, x0, denoised, sigma, sigma_next: expected(
            x + (sigma_next - sigma) / sigma * (x - denoised), x0, 1, sigma_next),
    ),
    "ancestral_step": dict(
        sigma=2.0, denoised=lambda x, x0, sigma: expected(x, x0, 1, sigma), sigma_next=1.0, eta=1.0,
    ),
    "ve_from_vp": dict(sigma=edm.sigma_from_abar(ABAR[500])),
}
