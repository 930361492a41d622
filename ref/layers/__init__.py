"""The layers of a network, each next to its gradient. `from ref.layers import linear` finds all of them."""
from ref.layers.activations import (
    geglu, geglu_backward, gelu, gelu_backward, gelu_tanh, gelu_tanh_backward, leaky_relu, leaky_relu_backward,
    quick_gelu, quick_gelu_backward, relu, relu_backward, sigmoid, sigmoid_backward, silu, silu_backward,
    softplus, softplus_backward, tanh, tanh_backward,
)  # fmt: skip
from ref.layers.attention import (
    attention, attention_backward, joint_attention, joint_attention_backward, merge_heads, multi_head,
    multi_head_backward, split_heads,
)  # fmt: skip
from ref.layers.blocks import pixel_attention, pixel_attention_backward, resblock, resblock_backward
from ref.layers.conv import conv1d, conv1d_backward, conv2d, conv2d_backward, conv3d, conv3d_backward
from ref.layers.embed import (
    embedding, embedding_backward, rope, rope_backward, sincos_2d, text_end, text_end_backward, time_embedding,
)  # fmt: skip
from ref.layers.feed_forward import feed_forward, feed_forward_backward
from ref.layers.fused import (
    gate_residual, gate_residual_backward, group_norm_silu, group_norm_silu_backward, layer_norm_modulate,
    layer_norm_modulate_backward, linear_act, linear_act_backward, norm_conv, norm_conv_backward,
)  # fmt: skip
from ref.layers.linear import linear, linear_backward
from ref.layers.loss import cross_entropy, cross_entropy_backward
from ref.layers.norm import (
    adaptive_norm, adaptive_norm_backward, group_norm, group_norm_backward, layer_norm, layer_norm_backward, rms_norm,
    rms_norm_backward,
)  # fmt: skip
from ref.layers.resample import (
    patchify, patchify_backward, unpatchify, unpatchify_backward, upsample_nearest, upsample_nearest_backward,
)  # fmt: skip
