"""Numba on the CPU: the names of `ref`, float32 and float64, same bits for any number of threads."""
