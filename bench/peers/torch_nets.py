"""A training step of the studies' DiT and U-Net in torch: the DiT written as people write it, the U-Net as diffusers
has it, each from the parameters of `ref.nets` under their own names.

Papers
    [DiT]  Peebles, Xie, "Scalable Diffusion Models with Transformers", 2023
"""
import math

import numpy as np
import torch
import torch.nn.functional as F

from bench.peers.torch_loops import compiled, step_of
from bench.studies import nets
from ref import tree


def trainers(name, params, batch, hyper, on_gpu):
    """{column: (a call of one step, its weights by name)}, where the weights' gradients stay. name: of
    `nets.networks`. params: a tree. batch: x0, xt, t and labels. hyper: lr and decay of the average."""
    columns = ("torch", "compile", *(["graph"] if on_gpu else []))
    return {column: _trainer(name, params, batch, hyper, column, on_gpu) for column in columns}


def _trainer(name, params, batch, hyper, column, on_gpu):
    place = "cuda" if on_gpu else "cpu"
    x0, xt, t, labels = (torch.from_numpy(np.array(a)).to(place) for a in batch)
    weights = {key: torch.from_numpy(np.array(p)).to(place) for key, p in tree.named(params).items()}
    if name == "DiT":
        places = weights.pop("pos_embed")
        weights = {key: w.requires_grad_() for key, w in weights.items()}
        network = lambda x: dit(weights, places, x, t, labels)  # noqa: E731
    else:
        from diffusers import UNet2DModel

        model = UNet2DModel(sample_size=28, **nets.UNET).to(place)
        model.load_state_dict(weights)
        weights = dict(model.named_parameters())
        network = lambda x: model(x, t, labels).sample  # noqa: E731
    optimizer = torch.optim.Adam(weights.values(), lr=hyper["lr"], fused=True, capturable=on_gpu)
    loss_of = lambda x, y: F.mse_loss(network(x.view(-1, 1, 28, 28)).reshape(x.shape), y)  # noqa: E731
    run = compiled(loss_of) if column == "compile" else loss_of
    return step_of(lambda: run(xt, x0), list(weights.values()), optimizer, hyper["decay"], column), weights


def dit(p, places, x, t, labels):
    """[DiT] section 3.2. p: weights by name. places: the table. x: (B, 1, 28, 28). t, labels: (B,). Returns as x."""
    heads, patch = nets.DIT["num_heads"], nets.DIT["patch_size"]

    def linear(name, x):
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def norm(x, shift, scale):
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    h = F.conv2d(x, p["x_embedder.proj.weight"], p["x_embedder.proj.bias"], patch).flatten(2).transpose(1, 2) + places
    # Time and class
    rates = torch.exp(-math.log(10000) / 128 * torch.arange(128, device=x.device))
    angles = t[:, None].float() * rates
    c = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], 1))))
    a = F.silu(c + p["y_embedder.embedding_table.weight"][labels])
    # Blocks
    for i in range(nets.DIT["depth"]):
        name = f"blocks.{i}"
        shift1, scale1, gate1, shift2, scale2, gate2 = linear(f"{name}.adaLN_modulation.1", a).chunk(6, 1)
        qkv = linear(f"{name}.attn.qkv", norm(h, shift1, scale1))
        q, k, v = qkv.view(*h.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        m = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(h.shape)
        h = h + gate1[:, None] * linear(f"{name}.attn.proj", m)
        f = F.gelu(linear(f"{name}.mlp.fc1", norm(h, shift2, scale2)), approximate="tanh")
        h = h + gate2[:, None] * linear(f"{name}.mlp.fc2", f)
    # Back to an image
    tokens = linear("final_layer.linear", norm(h, *linear("final_layer.adaLN_modulation.1", a).chunk(2, 1)))
    n = x.shape[2] // patch
    return tokens.view(-1, n, n, patch, patch).transpose(2, 3).reshape(x.shape)
