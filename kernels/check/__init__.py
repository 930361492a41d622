"""The checker: is a function right? `from kernels.check import assert_right; assert_right(my_step, "ddim_step")`."""
from kernels.check.search import Verdict, assert_right, check  # noqa: F401
