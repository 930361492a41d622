"""Writes nets.npz and nets.json: what published classes give, in float64, for small configurations.

    pip install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0
    PYTHONPATH=. python tests/goldens/make_nets.py

Every parameter is drawn anew (`tests.redrawn`), so that no gate at 0 and no norm at 1 hides anything. The sinusoids of
the time and the mean squares of `RMSNorm`, which diffusers computes in float32 whatever the model's dtype, are in
float64 here. Of the parameters' gradients the file has the product with one random direction each, and a few in full.
"""
import hashlib
import json
import math
import pathlib
import platform

import diffusers
import numpy as np
import torch
import transformers
from diffusers.models import embeddings, normalization

from tests import redrawn

HERE = pathlib.Path(__file__).parent
FULL, SMALL = 3, 300  # gradients of parameters in full, for each network, and their largest size
FIXED = "timestep_cond",  # inputs without a gradient


def sinusoids(timesteps, embedding_dim, flip_sin_to_cos=False, downscale_freq_shift=1, scale=1, max_period=10000):
    """diffusers' `get_timestep_embedding` in float64."""
    half = embedding_dim // 2
    exponent = -math.log(max_period) * torch.arange(half, dtype=torch.float64) / (half - downscale_freq_shift)
    angle = scale * timesteps[:, None].double() * torch.exp(exponent)[None, :]
    parts = [torch.sin(angle), torch.cos(angle)]
    return torch.cat(parts[::-1] if flip_sin_to_cos else parts, dim=-1)


def rms_norm(self, hidden_states):
    """diffusers' `RMSNorm.forward` in float64."""
    return hidden_states * torch.rsqrt(hidden_states.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def text(act, projected=False, **changed):
    settings = dict(vocab_size=23, hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=3,
                    max_position_embeddings=9, hidden_act=act, projection_dim=5, bos_token_id=20, eos_token_id=22,
                    pad_token_id=22) | changed
    cls = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    model = cls(transformers.CLIPTextConfig(**settings))
    ids = np.array([[20, 3, 7, 3, 22, 22, 22], [20, 1, 1, 19, 5, 22, 0]])

    def call(ids):
        out = model(ids)
        return (out.last_hidden_state, out.text_embeds) if projected else out.last_hidden_state

    return model, call, dict(ids=ids), {k: settings[k] for k in ("num_attention_heads", "hidden_act", "eos_token_id")}


def unet_with_text(size, inputs=4, **changed):
    settings = dict(in_channels=inputs, out_channels=4, layers_per_block=2, block_out_channels=(8, 16),
                    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=4, cross_attention_dim=6,
                    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=2) | changed
    model = diffusers.UNet2DConditionModel(**settings)
    draw = np.random.default_rng(1)
    inputs = dict(x=draw.standard_normal((3, inputs, *size)), t=np.array([1, 500, 999]),
                  context=draw.standard_normal((3, 5, 6)))
    if settings.get("num_class_embeds"):
        inputs["labels"] = np.array([2, 0, 2])
    if settings.get("time_cond_proj_dim"):
        inputs["timestep_cond"] = draw.standard_normal((3, settings["time_cond_proj_dim"]))

    def call(x, t, context, labels=None, timestep_cond=None):
        return model(x, t, context, class_labels=labels, timestep_cond=timestep_cond).sample

    return model, call, inputs, published(model)


def unet_of_pixels(size, **changed):
    settings = dict(in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=(8, 16), norm_num_groups=4,
                    down_block_types=("DownBlock2D", "AttnDownBlock2D"), attention_head_dim=4,
                    up_block_types=("AttnUpBlock2D", "UpBlock2D")) | changed
    model = diffusers.UNet2DModel(**settings)
    inputs = dict(x=np.random.default_rng(1).standard_normal((3, 3, *size)), t=np.array([1, 500, 999]))
    if settings.get("num_class_embeds"):
        inputs["labels"] = np.array([2, 0, 2])
    return model, lambda x, t, labels=None: model(x, t, class_labels=labels).sample, inputs, published(model)


def authors_names(depth):
    """{the name of a layer in DiT's own files: its names in diffusers' class}; qkv is three there."""
    once = {"x_embedder.proj": "pos_embed.proj", "final_layer.linear": "proj_out_2",
            "final_layer.adaLN_modulation.1": "proj_out_1"}
    everywhere = {"t_embedder.mlp.0": "timestep_embedder.linear_1", "t_embedder.mlp.2": "timestep_embedder.linear_2",
                  "y_embedder.embedding_table": "class_embedder.embedding_table"}
    each = {"attn.proj": ["attn1.to_out.0"], "mlp.fc1": ["ff.net.0.proj"], "mlp.fc2": ["ff.net.2"],
            "adaLN_modulation.1": ["norm1.linear"], "attn.qkv": ["attn1.to_q", "attn1.to_k", "attn1.to_v"]}
    names = {mine: [other] for mine, other in once.items()}
    names |= {mine: [f"transformer_blocks.{i}.norm1.emb.{other}" for i in range(depth)]
              for mine, other in everywhere.items()}
    return names | {f"blocks.{i}.{mine}": [f"transformer_blocks.{i}.{other}" for other in others]
                    for i in range(depth) for mine, others in each.items()}


def dit(patch, size, labels, **changed):
    """diffusers' class with the authors' freq_shift, eps and names."""
    settings = dict(num_attention_heads=3, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=2,
                    sample_size=size, patch_size=patch, num_embeds_ada_norm=5, norm_eps=1e-6) | changed
    model = diffusers.DiTTransformer2DModel(**settings)
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    d, theirs = settings["num_attention_heads"] * settings["attention_head_dim"], model.state_dict()
    names, shapes = authors_names(settings["num_layers"]), {"pos_embed": [1, (size // patch) ** 2, d]}
    for mine, others in names.items():
        for kind in ("weight", "bias"):
            if f"{others[0]}.{kind}" in theirs:
                rows, *inputs = theirs[f"{others[0]}.{kind}"].shape
                shapes[f"{mine}.{kind}"] = [3 * rows if mine.endswith("qkv") else rows, *inputs]

    def renamed(params):
        out = {"pos_embed.pos_embed": params["pos_embed"]}
        for path in list(shapes)[1:]:
            mine, _, kind = path.rpartition(".")
            parts = params[path].chunk(3) if mine.endswith("qkv") else [params[path]] * len(names[mine])
            out |= {f"{other}.{kind}": part for other, part in zip(names[mine], parts)}
        return out

    draw = np.random.default_rng(1)
    inputs = dict(x=draw.standard_normal((3, 4, size, size)), t=np.array([1, 500, 999]), labels=np.array(labels))
    config = dict(input_size=size, patch_size=patch, in_channels=4, hidden_size=d, depth=settings["num_layers"],
                  num_heads=settings["num_attention_heads"], num_classes=5, learn_sigma=True)
    return model, lambda x, t, labels: model(x, t, labels).sample, inputs, config, shapes, ["pos_embed"], renamed


def mmdit(size, **changed):
    settings = dict(sample_size=8, patch_size=2, in_channels=3, out_channels=3, num_layers=3, attention_head_dim=4,
                    num_attention_heads=3, joint_attention_dim=7, caption_projection_dim=12, pooled_projection_dim=5,
                    pos_embed_max_size=6) | changed
    model, draw = diffusers.SD3Transformer2DModel(**settings), np.random.default_rng(1)
    inputs = dict(x=draw.standard_normal((3, 3, *size)), t=np.array([1, 500, 999]),
                  context=draw.standard_normal((3, 4, 7)), pooled=draw.standard_normal((3, 5)))
    return model, lambda x, t, context, pooled: model(x, context, pooled, t).sample, inputs, published(model)


def autoencoder(way, size, **changed):
    settings = dict(block_out_channels=(8, 8, 12), layers_per_block=2, norm_num_groups=4, latent_channels=3,
                    down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3) | changed
    model = diffusers.AutoencoderKL(**settings)
    draw = np.random.default_rng(1)
    if way == "encode":
        return (model, lambda x: model.encode(x).latent_dist.parameters, dict(x=draw.standard_normal((2, 3, *size))),
                published(model))
    return (model, lambda z: model.decode(z).sample, dict(z=draw.standard_normal((2, 3, *size))), published(model))


def tiny(size, **changed):
    settings = dict(encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8), latent_channels=3,
                    num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(2, 1, 1)) | changed
    model = diffusers.AutoencoderTiny(**settings)
    z = 3 * np.random.default_rng(1).standard_normal((2, 3, *size))
    return model, lambda z: model.decode(z).sample, dict(z=z), published(model)


def own_names(model):
    """The shapes of a model's parameters, those that are fixed, and the names that the model has for them."""
    shapes = {path: list(tensor.shape) for path, tensor in model.state_dict().items()}
    return shapes, set(shapes) - set(dict(model.named_parameters())), lambda params: params


def published(model):
    """A model's config without its private entries."""
    return {key: value for key, value in dict(model.config).items() if not key.startswith("_")}


F, SEEN = torch.nn.functional, torch.ones(5, 7).tril(2).bool()  # bottom right: the last query sees all keys
SOME = torch.tensor(np.random.default_rng(5).random((2, 1, 5, 7)) < 0.6) | (torch.arange(7) == 2)
LAYERS = {  # a function of float64 tensors, and the shapes of these
    "conv1d_dilated_causal": (lambda x, w, b: F.conv1d(F.pad(x, (6, 0)), w, b, dilation=3), (2, 3, 9), (4, 3, 3), (4,)),
    "conv1d_stride": (lambda x, w, b: F.conv1d(F.pad(x, (1, 2)), w, b, stride=2), (2, 3, 8), (2, 3, 4), (2,)),
    "conv2d_corner": (lambda x, w, b: F.conv2d(F.pad(x, (0, 1, 0, 1)), w, b, stride=2), (2, 3, 7, 6), (4, 3, 3, 3),
                      (4,)),
    "conv2d_wide": (lambda x, w, b: F.conv2d(x, w, b, padding=1), (1, 2, 3, 3), (11, 2, 3, 3), (11,)),
    "conv3d_uneven": (lambda x, w, b: F.conv3d(F.pad(x, (1, 0, 0, 2, 2, 0)), w, b, stride=(1, 2, 1)), (1, 2, 3, 5, 4),
                      (3, 2, 3, 2, 2), (3,)),
    "attention_causal": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=SEEN), (2, 3, 5, 4),
                         (2, 3, 7, 4), (2, 3, 7, 6)),
    "attention_mask": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=SOME), (2, 3, 5, 4),
                       (2, 3, 7, 4), (2, 3, 7, 6)),
    "group_norm_far": (lambda x, w, b: F.group_norm(x + 50, 2, w, b, 1e-6), (2, 4, 3, 5), (4,), (4,)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (6,), w, b, 1e-6), (2, 3, 6), (6,), (6,)),
    "rms_norm": (lambda x, w: F.rms_norm(x, (6,), w, 1e-6), (2, 3, 6), (6,)),
    "quick_gelu": (lambda x: x * torch.sigmoid(1.702 * x), (3, 8)),
    "geglu": (lambda x: x.chunk(2, -1)[0] * F.gelu(x.chunk(2, -1)[1]), (3, 8)),
    "upsample_nearest": (lambda x: F.interpolate(x, scale_factor=3, mode="nearest"), (2, 3, 2, 4)),
    "patchify": (lambda x: torch.einsum("nchpwq->nhwpqc", x.reshape(2, 3, 2, 2, 3, 2)).reshape(2, 6, 12), (2, 3, 4, 6)),
}
NETWORKS = {
    "text_quick_gelu": lambda: text("quick_gelu"),
    "text_gelu_projected": lambda: text("gelu", projected=True, num_attention_heads=2, eos_token_id=2),
    "unet_sd1": lambda: unet_with_text((7, 10)),
    "unet_sd2": lambda: unet_with_text(
        (9, 6), block_out_channels=(8, 8, 12), use_linear_projection=True, attention_head_dim=[1, 2, 3],
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), num_class_embeds=3,
        layers_per_block=1, transformer_layers_per_block=2),
    "unet_distilled": lambda: unet_with_text((8, 6), inputs=9, mid_block_type=None, time_cond_proj_dim=5),
    "unet_ddpm": lambda: unet_of_pixels((6, 10), num_class_embeds=3, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6,
                                        downsample_padding=0),
    "dit_2": lambda: dit(2, 6, [4, 0, 5]),
    "dit_3": lambda: dit(3, 6, [5, 2, 2], num_attention_heads=1, attention_head_dim=8, num_layers=3),
    "mmdit_sd3": lambda: mmdit((6, 10)),
    "mmdit_sd35": lambda: mmdit((8, 4), qk_norm="rms_norm", dual_attention_layers=(0,), num_layers=2),
    "autoencoder_encode": lambda: autoencoder("encode", (12, 10)),
    "autoencoder_decode": lambda: autoencoder("decode", (5, 4)),
    "autoencoder_encode_bare": lambda: autoencoder("encode", (11, 9), use_quant_conv=False, use_post_quant_conv=False,
                                                   mid_block_add_attention=False),
    "tiny": lambda: tiny((3, 4)),
    "unet_pixels": lambda: unet_of_pixels((8, 4), attention_head_dim=None, add_attention=False),
}


def layer(name, seed):
    """The arrays of one layer."""
    f, *shapes = LAYERS[name]
    draw = np.random.default_rng(seed)
    given = [torch.tensor(3 * draw.standard_normal(shape), requires_grad=True) for shape in shapes]
    out = f(*given)
    upstream = draw.standard_normal(tuple(out.shape))
    out.backward(torch.tensor(upstream))
    arrays = {"out": out.detach().numpy(), "gout": upstream}
    for i, a in enumerate(given):
        arrays |= {f"in/{i}": a.detach().numpy(), f"grad/{i}": a.grad.numpy()}
    return {f"layers/{name}/{key}": a for key, a in arrays.items()}


def network(name, seed):
    """The arrays of one network and its line of the sidecar."""
    model, call, inputs, config, *names = NETWORKS[name]()
    shapes, fixed, renamed = names or own_names(model)
    params = {path: torch.tensor(a, requires_grad=path not in fixed) for path, a in redrawn(shapes, seed).items()}
    free = {key for key, a in inputs.items() if a.dtype.kind == "f" and key not in FIXED}
    given = {key: torch.tensor(a, requires_grad=key in free) for key, a in inputs.items()}
    holder = torch.nn.Module()
    holder.model, holder.forward = model.double().eval(), call
    outs = torch.func.functional_call(holder, {f"model.{path}": a for path, a in renamed(params).items()}, (), given)
    outs = outs if isinstance(outs, tuple) else (outs,)
    draw = np.random.default_rng(seed + 1)
    upstream = [draw.standard_normal(tuple(out.shape)) for out in outs]
    torch.autograd.backward(outs, [torch.tensor(d) for d in upstream])
    arrays = {f"in/{key}": a for key, a in inputs.items()}
    arrays |= {f"out/{i}": out.detach().numpy() for i, out in enumerate(outs)}
    arrays |= {f"gout/{i}": d for i, d in enumerate(upstream)}
    arrays |= {f"grad/{key}": a.grad.numpy() for key, a in given.items() if a.grad is not None}
    grads = {path: p.grad.numpy() for path, p in params.items() if p.grad is not None}
    arrays["products"] = np.array([np.sum(g * draw.standard_normal(g.shape)) for g in grads.values()])
    small = [path for path, g in grads.items() if g.size <= SMALL]
    arrays |= {f"grad/params/{path}": grads[path] for path in small[::len(small) // FULL][:FULL]}
    line = {"class": type(model).__name__, "config": config, "seed": seed, "shapes": shapes, "grads": list(grads)}
    return {f"{name}/{key}": a for key, a in arrays.items()}, line


def main(file="nets", names=tuple(NETWORKS), layers=tuple(LAYERS)):
    """Writes <file>.npz and <file>.json. names: of NETWORKS. layers: of LAYERS."""
    embeddings.get_timestep_embedding, normalization.RMSNorm.forward = sinusoids, rms_norm
    arrays, cases = {}, {}
    for seed, name in enumerate(names):
        found, cases[name] = network(name, 100 * seed)
        arrays |= found
    for seed, name in enumerate(layers):
        arrays |= layer(name, seed)
    arrays |= {"layers/attention_mask/mask": SOME.numpy()} if layers else {}
    keep(file, arrays, "diffusers and transformers, float64, autograd", cases=cases)


def keep(file, arrays, authority, **more):
    """Writes <file>.npz and its sidecar <file>.json. authority: what the numbers are of. more: of the sidecar."""
    np.savez_compressed(HERE / f"{file}.npz", **arrays)
    content = (HERE / f"{file}.npz").read_bytes()
    sidecar = {
        "file": f"{file}.npz", "authority": authority, "generator": f"make_{file}.py",
        "licence_of_authority": "Apache-2.0", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__, "numpy": np.__version__,
                     "transformers": transformers.__version__, "python": platform.python_version()},
    } | more
    (HERE / f"{file}.json").write_text(json.dumps(sidecar, separators=(",", ":")) + "\n", "utf-8")
    print(len(content), "bytes", len(arrays), "arrays")


if __name__ == "__main__":
    main()
