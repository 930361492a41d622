"""Special functions that NumPy lacks.

Papers
    [erfc]  Hunter, Regan, "A Note on the Evaluation of the Complementary Error Function", 1972
"""
import numpy as np


def erfcx(z):
    """The scaled complementary error function e^(z^2) erfc(z), [erfc]: the midpoint sum, with step 1/2, of

        erfcx(z) = z / pi integral from -inf to inf of e^(-t^2) / (z^2 + t^2) dt

    and the residue of the pole at t = i z as long as that counts. All terms are positive.
    z: any shape, real part >= 0, complex for a complex step.
    Returns erfcx of that shape, for real z within a few 1e-16 of the value.
    """
    step = 0.5
    near = np.where(np.real(z) < np.pi / step, z, 0)
    pole = np.where(np.real(z) < np.pi / step, 2 * np.exp(near**2) / (1 + np.exp(2 * np.pi * near / step)), 0)
    return pole + z * sum(2 * step / np.pi * np.exp(-(t**2)) / (z**2 + t**2) for t in (np.arange(13) + 0.5) * step)
