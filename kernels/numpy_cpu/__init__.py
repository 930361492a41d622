"""The operations in tuned NumPy, in the inputs' dtype, with few temporaries: the yardstick of rounding and of speed.

Names and arguments are those of `ref`, where the equations stand; `out` takes the array results. Coefficients are
folded in float64, as for every kernel.
"""
