"""The truth: generative models in NumPy, one numbered equation a function. Imports nothing but NumPy and itself."""
