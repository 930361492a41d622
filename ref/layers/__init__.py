"""The layers of a network, each next to its gradient. `from ref.layers import linear` finds all of them."""
from ref.layers.activations import (
    leaky_relu, leaky_relu_backward, relu, relu_backward, sigmoid, sigmoid_backward, silu, silu_backward,
    softplus, softplus_backward, tanh, tanh_backward,
)  # fmt: skip
from ref.layers.embed import embedding, embedding_backward, time_embedding
from ref.layers.linear import linear, linear_backward
from ref.layers.loss import cross_entropy, cross_entropy_backward

