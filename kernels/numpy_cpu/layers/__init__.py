"""`ref.layers` in tuned NumPy. `from kernels.numpy_cpu.layers import attention` finds all of them."""
from kernels.numpy_cpu.layers.activations import (
    geglu, geglu_backward, gelu, gelu_backward, gelu_tanh, gelu_tanh_backward, quick_gelu, quick_gelu_backward, silu,
    silu_backward,
)  # fmt: skip
from kernels.numpy_cpu.layers.attention import attention, attention_backward
from kernels.numpy_cpu.layers.conv import conv2d, conv2d_backward, norm_conv, norm_conv_backward
from kernels.numpy_cpu.layers.linear import linear, linear_act, linear_act_backward, linear_backward
from kernels.numpy_cpu.layers.norm import (
    gate_residual, gate_residual_backward, group_norm_silu, group_norm_silu_backward, layer_norm, layer_norm_backward,
    layer_norm_modulate, layer_norm_modulate_backward, rms_norm, rms_norm_backward,
)  # fmt: skip
