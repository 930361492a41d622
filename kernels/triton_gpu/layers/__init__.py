"""`ref.layers` on the GPU, a file for each subject. `from kernels.triton_gpu.layers import attention` finds all of
them."""
from kernels.triton_gpu.layers.activations import geglu, geglu_backward
from kernels.triton_gpu.layers.attention import attention
from kernels.triton_gpu.layers.attention_backward import attention_backward
from kernels.triton_gpu.layers.conv import conv2d, norm_conv
from kernels.triton_gpu.layers.conv_backward import conv2d_backward, norm_conv_backward
from kernels.triton_gpu.layers.embed import embedding, embedding_backward, time_embedding
from kernels.triton_gpu.layers.gates import (
    gelu, gelu_backward, gelu_tanh, gelu_tanh_backward, quick_gelu, quick_gelu_backward, silu, silu_backward,
)  # fmt: skip
from kernels.triton_gpu.layers.group import group_norm_silu
from kernels.triton_gpu.layers.group_backward import group_norm_silu_backward
from kernels.triton_gpu.layers.linear import linear, linear_backward
from kernels.triton_gpu.layers.rows import (
    gate_residual, gate_residual_backward, layer_norm, layer_norm_backward, layer_norm_modulate,
    layer_norm_modulate_backward, rms_norm, rms_norm_backward,
)  # fmt: skip
