"""`ref.layers` on the CPU, a file for each subject. `from kernels.numba_cpu.layers import attention` finds all of
them."""
from kernels.numba_cpu.activations import geglu, geglu_backward
from kernels.numba_cpu.attention import attention
from kernels.numba_cpu.attention_backward import attention_backward
from kernels.numba_cpu.conv import conv2d, norm_conv
from kernels.numba_cpu.conv_backward import conv2d_backward, norm_conv_backward
from kernels.numba_cpu.gates import (
    gelu, gelu_backward, gelu_tanh, gelu_tanh_backward, quick_gelu, quick_gelu_backward, silu, silu_backward,
)  # fmt: skip
from kernels.numba_cpu.group_norm import group_norm_silu, group_norm_silu_backward
from kernels.numba_cpu.linear import linear, linear_act
from kernels.numba_cpu.linear_backward import linear_act_backward, linear_backward
from kernels.numba_cpu.norm import (
    gate_residual, gate_residual_backward, layer_norm, layer_norm_backward, layer_norm_modulate,
    layer_norm_modulate_backward, rms_norm, rms_norm_backward,
)  # fmt: skip

__all__ = [
    "attention", "attention_backward", "conv2d", "conv2d_backward", "gate_residual", "gate_residual_backward", "geglu",
    "geglu_backward", "gelu", "gelu_backward", "gelu_tanh", "gelu_tanh_backward", "group_norm_silu",
    "group_norm_silu_backward", "layer_norm", "layer_norm_backward", "layer_norm_modulate",
    "layer_norm_modulate_backward", "linear", "linear_act", "linear_act_backward", "linear_backward", "norm_conv",
    "norm_conv_backward", "quick_gelu", "quick_gelu_backward", "rms_norm", "rms_norm_backward", "silu", "silu_backward",
]  # fmt: skip
