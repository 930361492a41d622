"""Fresh parameters for the networks with published names. Each network's file has its own under the name that it has
here.

Papers
    [Init]   LeCun, Bottou, Orr, Mueller, "Efficient BackProp", 1998, section 4.6
    [Fixup]  Zhang, Dauphin, Ma, "Fixup Initialization: Residual Learning Without Normalization", 2019
"""
import math

import numpy as np

from ref import tree
from ref.layers import sincos_2d
from ref.philox import normal, stream


def drawn(seed, layers, zero=(), dtype=np.float32):
    """Weights normal with variance 1 / inputs ([Init]), those of a norm 1, biases 0. What ends a residual branch may
    start at 0, as [Fixup] section 2 has it: the block is then the identity.

    seed: int. layers: a tree of shapes, those of weights (out, in, ...) under "weight", of biases under "bias". zero:
    dotted endings of layers' paths, such as "conv2". dtype: float32 or float64.
    Returns the tree of arrays.
    """
    params = {}
    for i, (path, shape) in enumerate(tree.named(layers).items()):
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


def text_encoder_init(seed, vocabulary=49408, places=77, width=512, layers=12, dtype=np.float32):
    """Fresh parameters, by `drawn`. seed, vocabulary, places, width, layers: ints. dtype: float32 or float64. Returns a
    dict."""
    block = {"self_attn": {name: _shapes(width, width) for name in ("k_proj", "v_proj", "q_proj", "out_proj")},
             "layer_norm1": _shapes(width), "layer_norm2": _shapes(width),
             "mlp": {"fc1": _shapes(4 * width, width), "fc2": _shapes(width, 4 * width)}}
    embeddings = {"token_embedding": _shapes(vocabulary, width, bias=False),
                  "position_embedding": _shapes(places, width, bias=False)}
    return drawn(seed, {"embeddings": embeddings, "encoder": {"layers": [block] * layers},
                        "final_layer_norm": _shapes(width)}, dtype=dtype)


def unet_init(seed, channels=1, widths=(32, 64, 64), layers=1, attention=(1, 2), text=None, classes=None,
              dtype=np.float32):
    """Fresh parameters, by `drawn`; each branch, and the net itself, ends in 0.

    seed, channels, layers: ints; that many layers in each level. widths: the channels of each level. attention: the
    levels that have it. text: width of the context, or None. classes: their number, or None. dtype: float32 or float64.
    Returns a dict.
    """
    def resnet(inputs, c):
        block = {"norm1": _shapes(inputs), "conv1": _shapes(c, inputs, 3, 3),
                 "time_emb_proj": _shapes(c, 4 * widths[0]), "norm2": _shapes(c), "conv2": _shapes(c, c, 3, 3)}
        return block if inputs == c else block | {"conv_shortcut": _shapes(c, inputs, 1, 1)}

    def heads(c, inputs, bias):
        return {"to_q": _shapes(c, c, bias=bias), "to_k": _shapes(c, inputs, bias=bias),
                "to_v": _shapes(c, inputs, bias=bias), "to_out": [_shapes(c, c)]}

    def attend(c):
        if text is None:
            return {"group_norm": _shapes(c)} | heads(c, c, True)
        block = {"norm1": _shapes(c), "attn1": heads(c, c, False), "norm2": _shapes(c), "attn2": heads(c, text, False),
                 "norm3": _shapes(c), "ff": {"net": [{"proj": _shapes(8 * c, c)}, {}, _shapes(c, 4 * c)]}}
        return {"norm": _shapes(c), "proj_in": _shapes(c, c, 1, 1), "transformer_blocks": [block],
                "proj_out": _shapes(c, c, 1, 1)}

    def level(i, inputs, way):
        block = {"resnets": [resnet(n, widths[i]) for n in inputs]}
        block |= {"attentions": [attend(widths[i]) for _ in inputs]} if i in attention else {}
        return block | ({way: [{"conv": _shapes(widths[i], widths[i], 3, 3)}]} if way else {})

    c, four, last, down, up = widths[0], 4 * widths[0], len(widths) - 1, [], []
    params = {"conv_in": _shapes(c, channels, 3, 3),
              "time_embedding": {"linear_1": _shapes(four, c), "linear_2": _shapes(four, four)}}
    params |= {"class_embedding": _shapes(classes, four, bias=False)} if classes else {}
    aside = [c]  # the channels of what the way down puts aside
    for i, width in enumerate(widths):
        down.append(level(i, [c] + [width] * (layers - 1), "downsamplers" if i < last else None))
        aside += [width] * (layers + (i < last))
        c = width
    for i, width in reversed([*enumerate(widths)]):
        inputs = [n + aside.pop() for n in [c] + [width] * layers]
        up.append(level(i, inputs, "upsamplers" if i > 0 else None))
        c = width
    middle = {"resnets": [resnet(widths[-1], widths[-1])] * 2, "attentions": [attend(widths[-1])]}
    params |= {"down_blocks": down, "mid_block": middle, "up_blocks": up, "conv_norm_out": _shapes(c),
               "conv_out": _shapes(channels, c, 3, 3)}
    return drawn(seed, params, ("conv2", "conv_out", "to_out.0" if text is None else "proj_out"), dtype)


def dit_init(seed, input_size=32, patch_size=2, in_channels=4, hidden_size=1152, depth=28, num_heads=16, mlp_ratio=4,
             num_classes=1000, learn_sigma=True, dtype=np.float32):
    """Fresh parameters, by `drawn`; the modulations and the last layer are 0, adaLN-Zero.

    seed: int. input_size, patch_size, in_channels, hidden_size, depth, num_heads, mlp_ratio, num_classes, learn_sigma:
    of the authors' constructor. dtype: float32 or float64.
    Returns a dict.
    """
    d, hidden, grid = hidden_size, int(hidden_size * mlp_ratio), input_size // patch_size
    block = {"attn": {"qkv": _shapes(3 * d, d), "proj": _shapes(d, d)}, "mlp": {"fc1": _shapes(hidden, d),
             "fc2": _shapes(d, hidden)}, "adaLN_modulation": [{}, _shapes(6 * d, d)]}
    last = {"linear": _shapes(patch_size**2 * in_channels * (1 + learn_sigma), d),
            "adaLN_modulation": [{}, _shapes(2 * d, d)]}
    params = drawn(seed, {
        "x_embedder": {"proj": _shapes(d, in_channels, patch_size, patch_size)},
        "t_embedder": {"mlp": [_shapes(d, 256), {}, _shapes(d, d)]},
        "y_embedder": {"embedding_table": _shapes(num_classes + 1, d, bias=False)}, "blocks": [block] * depth,
        "final_layer": last}, ("adaLN_modulation.1", "final_layer.linear"), dtype)
    return {"pos_embed": sincos_2d(d, (grid, grid))[None].astype(dtype)} | params


def autoencoder_init(seed, channels=3, latent=4, widths=(128, 256, 512, 512), layers=2, dtype=np.float32):
    """Fresh parameters of encoder and decoder, by `drawn`; each branch ends in 0.

    seed, channels, latent, layers: ints; that many layers in a level of the encoder, one more in one of the decoder.
    widths: the channels of each level. dtype: float32 or float64.
    Returns a dict.
    """
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
    block = {"conv": [_shapes(width, width, 3, 3), {}, _shapes(width, width, 3, 3), {}, _shapes(width, width, 3, 3)]}
    layers = [_shapes(width, latent, 3, 3), {}]
    for count in blocks[:-1]:
        layers += [block] * count + [{}, _shapes(width, width, 3, 3, bias=False)]
    layers += [block] * blocks[-1] + [_shapes(channels, width, 3, 3)]
    return drawn(seed, {"decoder": {"layers": layers}}, dtype=dtype)


def mmdit_init(seed, sample_size=64, patch_size=2, in_channels=16, num_layers=24, num_attention_heads=24,
               attention_head_dim=64, joint_attention_dim=4096, pooled_projection_dim=2048, pos_embed_max_size=192,
               dual_attention_layers=(), qk_norm=None, dtype=np.float32):
    """Fresh parameters, by `drawn`; shifts, scales, gates and the last layer are 0.

    seed: int. sample_size, patch_size, in_channels, num_layers, num_attention_heads, attention_head_dim,
    joint_attention_dim, pooled_projection_dim, pos_embed_max_size, dual_attention_layers, qk_norm: the published keys.
    dtype: float32 or float64.
    Returns a dict.
    """
    d, side = num_attention_heads * attention_head_dim, pos_embed_max_size
    rms = _shapes(attention_head_dim, bias=False)

    def heads(names, norms):
        return {name: _shapes(d, d) for name in names} | ({name: rms for name in norms} if qk_norm else {})

    def block(i):
        last, net = i == num_layers - 1, {"net": [{"proj": _shapes(4 * d, d)}, {}, _shapes(d, 4 * d)]}
        own = heads(("to_q", "to_k", "to_v"), ("norm_q", "norm_k")) | {"to_out": [_shapes(d, d)]}
        added = heads(("add_q_proj", "add_k_proj", "add_v_proj"), ("norm_added_q", "norm_added_k"))
        made = {"norm1": {"linear": _shapes((9 if i in dual_attention_layers else 6) * d, d)},
                "norm1_context": {"linear": _shapes((2 if last else 6) * d, d)},
                "attn": own | added | ({} if last else {"to_add_out": _shapes(d, d)})}
        made |= {"attn2": own} if i in dual_attention_layers else {}
        return made | {"ff": net} | ({} if last else {"ff_context": net})

    def embedder(inputs):
        return {"linear_1": _shapes(d, inputs), "linear_2": _shapes(d, d)}

    params = drawn(seed, {
        "pos_embed": {"proj": _shapes(d, in_channels, patch_size, patch_size)},
        "time_text_embed": {"timestep_embedder": embedder(256), "text_embedder": embedder(pooled_projection_dim)},
        "context_embedder": _shapes(d, joint_attention_dim), "norm_out": {"linear": _shapes(2 * d, d)},
        "transformer_blocks": [block(i) for i in range(num_layers)],
        "proj_out": _shapes(patch_size**2 * in_channels, d),
    }, ("norm1.linear", "norm1_context.linear", "norm_out.linear", "proj_out"), dtype)
    table = sincos_2d(d, (side, side), sample_size // patch_size / side)[None].astype(dtype)
    return params | {"pos_embed": params["pos_embed"] | {"pos_embed": table}}
