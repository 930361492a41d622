"""`ref.scene` on the GPU, a file for each subject."""
from kernels.triton_gpu.fields import trilinear, trilinear_backward
from kernels.triton_gpu.splat import splat
from kernels.triton_gpu.splat_backward import splat_backward
from kernels.triton_gpu.volume import composite, composite_backward

__all__ = ["composite", "composite_backward", "splat", "splat_backward", "trilinear", "trilinear_backward"]
