"""The kernels of `ref` in Triton, for an NVIDIA GPU; without one they run in Triton's interpreter, on NumPy arrays."""
from kernels.triton_gpu import device  # noqa: F401  before anything else imports Triton: it decides between the two
