"""`ref.layers` on the CPU, a file for each subject. `from kernels.numba_cpu.layers import attention` finds all of
them."""
from kernels.numba_cpu.activations import geglu, geglu_backward
from kernels.numba_cpu.attention import attention
from kernels.numba_cpu.attention_backward import attention_backward
from kernels.numba_cpu.conv import conv2d
from kernels.numba_cpu.conv_backward import conv2d_backward
from kernels.numba_cpu.group_norm import group_norm_silu, group_norm_silu_backward
from kernels.numba_cpu.linear import linear_act
from kernels.numba_cpu.norm import (
    gate_residual, gate_residual_backward, layer_norm_modulate, layer_norm_modulate_backward, rms_norm,
    rms_norm_backward,
)  # fmt: skip

__all__ = [
    "attention", "attention_backward", "conv2d", "conv2d_backward", "gate_residual", "gate_residual_backward", "geglu",
    "geglu_backward", "group_norm_silu", "group_norm_silu_backward", "layer_norm_modulate",
    "layer_norm_modulate_backward", "linear_act", "rms_norm", "rms_norm_backward",
]  # fmt: skip
