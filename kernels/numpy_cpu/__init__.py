"""Tuned NumPy, a stand-in until the registry branch has moved kernels.plain here."""
