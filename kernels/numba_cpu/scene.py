"""`ref.scene` on the CPU, a file for each subject. `from kernels.numba_cpu.scene import composite` finds all of them.
"""
from kernels.numba_cpu.fields import trilinear, trilinear_backward
from kernels.numba_cpu.splat import splat
from kernels.numba_cpu.splat_backward import splat_backward
from kernels.numba_cpu.volume import composite, composite_backward

__all__ = ["composite", "composite_backward", "splat", "splat_backward", "trilinear", "trilinear_backward"]
