"""Fresh parameters for the networks with published names. Each network's file has its own under the name that it has
here.

Papers
    [LeCun]  LeCun, Bottou, Orr, Mueller, "Efficient BackProp", 1998
    [Fixup]  Zhang, Dauphin, Ma, "Fixup Initialization: Residual Learning Without Normalization", 2019
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
"""
import math

import numpy as np

from ref import tree
from ref.layers import sincos_2d
from ref.philox import normal, stream
from ref.shapes import integer, integers, number

UNET_BLOCKS = {  # published types, by the attention that they have
    "": ("DownBlock2D", "UpBlock2D"), "Attn": ("AttnDownBlock2D", "UNetMidBlock2D", "AttnUpBlock2D"),
    "CrossAttn": ("CrossAttnDownBlock2D", "UNetMidBlock2DCrossAttn", "CrossAttnUpBlock2D"),
}  # fmt: skip


def drawn(seed, layers, zero=(), dtype=np.float32):
    """Weights normal with variance 1 / inputs ([LeCun] section 4.6), those of a norm 1, biases 0. What ends a residual
    branch may start at 0, as [Fixup] section 2 has it: the block is then the identity.

    seed: int, or None for the tree of shapes itself, in every function here. layers: a tree of shapes, those of weights
    (out, in, ...) under "weight", of biases under "bias". zero: dotted endings of layers' paths, such as "conv2".
    dtype: float32 or float64.
    Returns the tree of arrays.
    Raises ValueError for a layer without inputs.
    """
    if seed is None:
        return tree.map(lambda shape: shape, layers)  # no dict or list in two places
    params = {}
    for i, (path, shape) in enumerate(tree.named(layers).items()):
        if 0 in shape[1:]:
            raise ValueError(f"{path}: expected sizes of at least 1, got shape {shape}")
        owner, _, kind = path.rpartition(".")
        if kind == "bias" or owner.endswith(tuple(zero)):
            params[path] = np.zeros(shape, dtype)
        elif len(shape) == 1:
            params[path] = np.ones(shape, dtype)
        else:
            params[path] = (math.prod(shape[1:]) ** -0.5 * normal(seed, shape, stream("init", i))).astype(dtype)
    return tree.from_named(params)


def _shapes(*weight, bias=True):
    """The shapes of a layer: of a linear one (out, in), of a convolution (out, in, 3, 3), of a norm (n,), of a table
    (rows, n)."""
    return {"weight": weight, "bias": weight[:1]} if bias else {"weight": weight}


def text_encoder_init(seed, vocabulary=49408, places=77, width=512, layers=12, hidden=None, dtype=np.float32):
    """Fresh parameters, by `drawn`. seed, vocabulary, places, width, layers: ints. hidden: int, or None for 4 width.
    dtype: float32 or float64. Returns a dict."""
    vocabulary, places, width, layers = integers(vocabulary=vocabulary, places=places, width=width, layers=layers)
    block = {"self_attn": {name: _shapes(width, width) for name in ("k_proj", "v_proj", "q_proj", "out_proj")},
             "layer_norm1": _shapes(width), "layer_norm2": _shapes(width),
             "mlp": {"fc1": _shapes(hidden or 4 * width, width), "fc2": _shapes(width, hidden or 4 * width)}}
    embeddings = {"token_embedding": _shapes(vocabulary, width, bias=False),
                  "position_embedding": _shapes(places, width, bias=False)}
    return drawn(seed, {"embeddings": embeddings, "encoder": {"layers": [block] * layers},
                        "final_layer_norm": _shapes(width)}, dtype=dtype)


def unet_init(seed, config, dtype=np.float32):
    """Fresh parameters of `ref.nets.unet`, by `drawn`. Each of its blocks, and the net itself, ends in 0, as in
    [DDPM]'s code.

    seed: int. config: the published keys in_channels, out_channels, block_out_channels, down_block_types,
    mid_block_type (None for none), up_block_types, layers_per_block, num_class_embeds, time_cond_proj_dim; for a net
    with text cross_attention_dim, transformer_layers_per_block, use_linear_projection. dtype: float32 or float64.
    Returns a dict.
    Raises ValueError for the type of a block that is unknown.
    """
    widths, last = config["block_out_channels"], len(config["block_out_channels"]) - 1
    layers, time = _of_levels(config, "layers_per_block", 2), 4 * widths[0]
    net = {"conv_in": _shapes(widths[0], config["in_channels"], 3, 3),
           "time_embedding": {"linear_1": _shapes(time, widths[0]), "linear_2": _shapes(time, time)},
           "conv_norm_out": _shapes(widths[0]), "conv_out": _shapes(config["out_channels"], widths[0], 3, 3),
           "down_blocks": [], "up_blocks": []}
    if config.get("num_class_embeds"):
        net["class_embedding"] = _shapes(config["num_class_embeds"], time, bias=False)
    if config.get("time_cond_proj_dim"):
        net["time_embedding"]["cond_proj"] = _shapes(widths[0], config["time_cond_proj_dim"], bias=False)
    # Down
    kept = [widths[0]]  # the channels of each state that the way down keeps
    for i, kind in enumerate(config["down_block_types"]):
        level = _unet_level(config, kind, i, [kept[-1]] + [widths[i]] * (layers[i] - 1))
        kept += [widths[i]] * layers[i]
        if i < last:
            level["downsamplers"] = [{"conv": _shapes(widths[i], widths[i], 3, 3)}]
            kept.append(widths[i])
        net["down_blocks"].append(level)
    # Middle
    middle = config.get("mid_block_type", "UNetMidBlock2D" + "CrossAttn" * bool(config.get("cross_attention_dim")))
    if middle:
        net["mid_block"] = _unet_level(config, middle, last, [widths[last]] * 2)
    # Up
    for i, kind in zip(range(last, -1, -1), config["up_block_types"]):
        below = widths[min(i + 1, last)]
        level = _unet_level(config, kind, i, [n + kept.pop() for n in [below] + [widths[i]] * layers[i]])
        if i > 0:
            level["upsamplers"] = [{"conv": _shapes(widths[i], widths[i], 3, 3)}]
        net["up_blocks"].append(level)
    return drawn(seed, net, ("conv2", "proj_out", "conv_out"), dtype)


def _unet_level(config, kind, i, inputs):
    """The blocks of one level, with the attention that their kind has. inputs: the channels that each block gets."""
    attention = next((name for name, kinds in UNET_BLOCKS.items() if kind in kinds), None)
    if attention is None:
        raise ValueError(f"config: expected a block out of {', '.join(sum(UNET_BLOCKS.values(), ()))}, got {kind!r}")
    width, time = config["block_out_channels"][i], 4 * config["block_out_channels"][0]
    level = {"resnets": [_resblock(n, width, time) for n in inputs]}
    middle = "Mid" in kind
    how_many = len(inputs) - middle
    if attention == "CrossAttn":
        text, depth = (_of_levels(config, key, n)[i] for key, n in (("cross_attention_dim", None),
                                                                    ("transformer_layers_per_block", 1)))
        point = () if config.get("use_linear_projection") else (1, 1)
        transformer = {"norm": _shapes(width), "proj_in": _shapes(width, width, *point),
                       "transformer_blocks": [_transformer_block(width, text)] * depth,
                       "proj_out": _shapes(width, width, *point)}
        return level | {"attentions": [transformer] * how_many}
    if attention == "Attn" and not (middle and config.get("add_attention") is False):
        return level | {"attentions": [{"group_norm": _shapes(width)} | _multi_head(width, width, True)] * how_many}
    return level


def _resblock(inputs, outputs, time):
    block = {"norm1": _shapes(inputs), "conv1": _shapes(outputs, inputs, 3, 3), "time_emb_proj": _shapes(outputs, time),
             "norm2": _shapes(outputs), "conv2": _shapes(outputs, outputs, 3, 3)}
    return block if inputs == outputs else block | {"conv_shortcut": _shapes(outputs, inputs, 1, 1)}


def _transformer_block(width, text):
    block = {"norm1": _shapes(width), "attn1": _multi_head(width, width, False), "norm3": _shapes(width),
             "ff": {"net": [{"proj": _shapes(8 * width, width)}, {}, _shapes(width, 4 * width)]}}
    return block | ({"norm2": _shapes(width), "attn2": _multi_head(width, text, False)} if text else {})


def _multi_head(width, context, bias):
    return {"to_q": _shapes(width, width, bias=bias), "to_k": _shapes(width, context, bias=bias),
            "to_v": _shapes(width, context, bias=bias), "to_out": [_shapes(width, width)]}


def _of_levels(config, key, default):
    """A setting for each level: a list as it is, one value for all."""
    value = config.get(key, default)
    return value if isinstance(value, (list, tuple)) else [value] * len(config["block_out_channels"])


def dit_init(seed, input_size=32, patch_size=2, in_channels=4, hidden_size=1152, depth=28, num_heads=16, mlp_ratio=4,
             num_classes=1000, learn_sigma=True, dtype=np.float32):
    """Fresh parameters, by `drawn`; the modulations and the last layer are 0, adaLN-Zero.

    seed: int. input_size, patch_size, in_channels, hidden_size, depth, num_heads, mlp_ratio, num_classes, learn_sigma:
    of the authors' constructor. dtype: float32 or float64.
    Returns a dict.
    """
    input_size, patch_size, in_channels, d, depth, num_classes = integers(
        input_size=input_size, patch_size=patch_size, in_channels=in_channels, hidden_size=hidden_size, depth=depth,
        num_classes=num_classes)
    hidden, grid = int(d * number(mlp_ratio, "mlp_ratio")), input_size // patch_size
    block = {"attn": {"qkv": _shapes(3 * d, d), "proj": _shapes(d, d)}, "mlp": {"fc1": _shapes(hidden, d),
             "fc2": _shapes(d, hidden)}, "adaLN_modulation": [{}, _shapes(6 * d, d)]}
    last = {"linear": _shapes(patch_size**2 * in_channels * (1 + learn_sigma), d),
            "adaLN_modulation": [{}, _shapes(2 * d, d)]}
    params = drawn(seed, {
        "x_embedder": {"proj": _shapes(d, in_channels, patch_size, patch_size)},
        "t_embedder": {"mlp": [_shapes(d, 256), {}, _shapes(d, d)]},
        "y_embedder": {"embedding_table": _shapes(num_classes + 1, d, bias=False)}, "blocks": [block] * depth,
        "final_layer": last}, ("adaLN_modulation.1", "final_layer.linear"), dtype)
    places = sincos_2d(d, (grid, grid))[None].astype(dtype)
    return {"pos_embed": places.shape if seed is None else places} | params


def joint_dit_init(seed, input_size=32, patch_size=8, in_channels=3, hidden_size=192, depth=6, context=(10, 128),
                   mlp_ratio=4, dtype=np.float32):
    """Fresh parameters, by `drawn`; the modulations and the last layer are 0, adaLN-Zero. The places are learned.

    seed: int. input_size, patch_size, in_channels, hidden_size, depth, mlp_ratio: as in `dit_init`. context: (words,
    width) of the text. dtype: float32 or float64.
    Returns a dict.
    """
    patch, channels, d = integers(patch_size=patch_size, in_channels=in_channels, hidden_size=hidden_size)
    other = None if seed is None else integer(seed, "seed") + 1
    fresh = dit_init(seed, input_size, patch, channels, d, depth, 1, mlp_ratio, 1, False, dtype)
    own = drawn(other, {"x_embedder": _shapes(d, channels * patch**2), "context_embedder": _shapes(d, context[1]),
                        "pooled_embedder": _shapes(d, context[0] * context[1])}, dtype=dtype)
    kept = {name: fresh[name] for name in ("t_embedder", "blocks", "final_layer")}
    places = fresh["pos_embed"]  # (1, N, D), or that shape
    return {"pos_embed": places[1:] if seed is None else places[0]} | own | kept


def autoencoder_init(seed, channels=3, latent=4, widths=(128, 256, 512, 512), layers=2, dtype=np.float32):
    """Fresh parameters of encoder and decoder, by `drawn`; each branch ends in 0.

    seed, channels, latent, layers: ints; that many layers in a level of the encoder, one more in one of the decoder.
    widths: the channels of each level. dtype: float32 or float64.
    Returns a dict.
    """
    channels, latent, layers = integers(channels=channels, latent=latent, layers=layers)
    widths = tuple(integer(width, "widths") for width in widths)

    def resnet(inputs, c):
        block = {"norm1": _shapes(inputs), "conv1": _shapes(c, inputs, 3, 3), "norm2": _shapes(c),
                 "conv2": _shapes(c, c, 3, 3)}
        return block if inputs == c else block | {"conv_shortcut": _shapes(c, inputs, 1, 1)}

    def level(inputs, c, count, way):
        block = {"resnets": [resnet(n, c) for n in [inputs] + [c] * (count - 1)]}
        return block | ({way: [{"conv": _shapes(c, c, 3, 3)}]} if way else {})

    def half(place, order, count, way, inputs, outputs):
        first, last = order[0], order[-1]
        c = widths[-1]
        middle = {"resnets": [resnet(c, c)] * 2, "attentions": [
            {"group_norm": _shapes(c), "to_q": _shapes(c, c), "to_k": _shapes(c, c), "to_v": _shapes(c, c),
             "to_out": [_shapes(c, c)]}]}
        levels = [level(order[max(i - 1, 0)], width, count, way if i < len(order) - 1 else None)
                  for i, width in enumerate(order)]
        return {"conv_in": _shapes(first, inputs, 3, 3), place: levels, "mid_block": middle,
                "conv_norm_out": _shapes(last), "conv_out": _shapes(outputs, last, 3, 3)}

    return drawn(seed, {
        "encoder": half("down_blocks", widths, layers, "downsamplers", channels, 2 * latent),
        "decoder": half("up_blocks", widths[::-1], layers + 1, "upsamplers", latent, channels),
        "quant_conv": _shapes(2 * latent, 2 * latent, 1, 1), "post_quant_conv": _shapes(latent, latent, 1, 1),
    }, ("conv2", "to_out.0"), dtype)


def tiny_init(seed, channels=3, latent=4, width=64, blocks=(3, 3, 3, 1), dtype=np.float32):
    """Fresh parameters of the tiny decoder, by `drawn`. seed, channels, latent, width: ints. blocks: their number in
    each level, the smallest image first. dtype: float32 or float64. Returns a dict."""
    channels, latent, width = integers(channels=channels, latent=latent, width=width)
    blocks = tuple(integer(count, "blocks") for count in blocks)
    block = {"conv": [_shapes(width, width, 3, 3), {}, _shapes(width, width, 3, 3), {}, _shapes(width, width, 3, 3)]}
    layers = [_shapes(width, latent, 3, 3), {}]
    for count in blocks[:-1]:
        layers += [block] * count + [{}, _shapes(width, width, 3, 3, bias=False)]
    layers += [block] * blocks[-1] + [_shapes(channels, width, 3, 3)]
    return drawn(seed, {"decoder": {"layers": layers}}, dtype=dtype)


def mmdit_init(seed, config, dtype=np.float32):
    """Fresh parameters of `ref.nets.mmdit`, by `drawn`; the modulations and the last layer are 0, adaLN-Zero.

    seed: int. config: the published keys sample_size, patch_size, in_channels, out_channels, num_layers,
    num_attention_heads, attention_head_dim, joint_attention_dim, pooled_projection_dim, pos_embed_max_size,
    dual_attention_layers, qk_norm. dtype: float32 or float64.
    Returns a dict.
    """
    d, patch, channels = (config["num_attention_heads"] * config["attention_head_dim"], config["patch_size"],
                          config["in_channels"])
    places, last = config["pos_embed_max_size"], config["num_layers"] - 1
    norm = _shapes(config["attention_head_dim"], bias=False)
    feed_forward = {"net": [{"proj": _shapes(4 * d, d)}, {}, _shapes(d, 4 * d)]}

    def attention(*names):
        heads = {name: _shapes(d, d) for name in names}
        norms = [f"norm_{'added_' * name.startswith('add')}{kind}" for kind in "qk" for name in names
                 if name in (f"to_{kind}", f"add_{kind}_proj")]
        return heads | {"to_out": [_shapes(d, d)]} | (dict.fromkeys(norms, norm) if config.get("qk_norm") else {})

    def block(i):
        dual, texts = i in config.get("dual_attention_layers", ()), ["add_q_proj", "add_k_proj", "add_v_proj"]
        parts = {"norm1": {"linear": _shapes((9 if dual else 6) * d, d)},
                 "norm1_context": {"linear": _shapes((2 if i == last else 6) * d, d)}, "ff": feed_forward,
                 "attn": attention("to_q", "to_k", "to_v", *texts, *["to_add_out"] * (i < last))}
        parts |= {"attn2": attention("to_q", "to_k", "to_v")} if dual else {}
        return parts | ({"ff_context": feed_forward} if i < last else {})

    net = {"pos_embed": {"proj": _shapes(d, channels, patch, patch)},
           "time_text_embed": {name: {"linear_1": _shapes(d, n), "linear_2": _shapes(d, d)} for name, n in (
               ("timestep_embedder", 256), ("text_embedder", config["pooled_projection_dim"]))},
           "context_embedder": _shapes(d, config["joint_attention_dim"]),
           "transformer_blocks": [block(i) for i in range(last + 1)], "norm_out": {"linear": _shapes(2 * d, d)},
           "proj_out": _shapes(patch**2 * (config.get("out_channels") or channels), d)}
    params = drawn(seed, net, ("norm1.linear", "norm1_context.linear", "norm_out.linear", "proj_out"), dtype)
    params["pos_embed"]["pos_embed"] = (1, places**2, d) if seed is None else sincos_2d(
        d, (places, places), config["sample_size"] // patch / places)[None].astype(dtype)
    return params
