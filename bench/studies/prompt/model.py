"""The model that draws prompts: a text encoder and a `joint_dit`, which predict the picture from a noised one. Its
samples, and the file of its weights.

The path is `ref.flow`'s: x_t = (1 - t) x0 + t eps, t = 0 the picture, t = 1 noise, velocity v = (x_t - x0_hat) / t.
"""
import io
import json
import re
from pathlib import Path

import numpy as np

from bench import files
from bench.studies import fit
from bench.studies.prompt import autoencoder, scenes
from kernels.nets import with_kernels
from ref import flow, guidance, philox, samplers, tree
from ref.nets import joint_dit, mmdit, text
from ref.nets.init import joint_dit_init, mmdit_init, text_encoder_init

WEIGHTS = Path(__file__).parents[1] / "weights" / "prompt.npz"
SHAPE = (3, scenes.SIZE, scenes.SIZE)
NOTHING = np.zeros((1, scenes.LENGTH), np.int64)  # the words of no prompt at all
SIZES = dict(text_width=128, text_layers=2, text_heads=4, patch=8, width=192, depth=6, heads=6)
SAMPLERS = {"euler": samplers.flow_euler, "heun": samplers.flow_heun}


def start(seed, sizes):
    """Fresh parameters: {"text": of `text_encoder`, "net": of `joint_dit`}; for the seed None their shapes. sizes: as
    SIZES; perhaps shape, of what is drawn in place of pictures, and widths, of the autoencoder that turns it into
    pictures; perhaps streams, 2 for `mmdit`."""
    text = text_encoder_init(seed, 1 + len(scenes.WORDS), scenes.LENGTH, sizes["text_width"], sizes["text_layers"])
    if seed is not None:  # words and places of size 1, or they drown in what the blocks add, and digits come late
        text["embeddings"] = tree.map(lambda w: w * np.float32(sizes["text_width"] ** 0.5), text["embeddings"])
    context = scenes.LENGTH, sizes["text_width"]
    other = None if seed is None else seed + 1
    if sizes.get("streams") == 2:
        return {"text": text, "net": mmdit_init(other, two_streams(sizes))}
    channels, side, _ = shape_of(sizes)
    net = joint_dit_init(other, side, sizes["patch"], channels, sizes["width"], sizes["depth"], context)
    return {"text": text, "net": net}


def matrices(name, shape):
    """The matrices of a parameter that Muon moves, those of the blocks but for what shifts, scales and gates: (count,
    rows, columns), or None. Queries, keys and values in one are three. name: dotted path. shape: tuple."""
    if len(shape) != 2 or not re.search(r"(blocks|layers)\.\d+\.(?!adaLN|norm)", name):
        return None
    count = 3 if name.endswith("qkv.weight") else 1
    return count, shape[0] // count, shape[1]


def shapes(sizes):
    """The shapes of all parameters that draw, the autoencoder's among them. sizes: as in `start`."""
    more = {"autoencoder": autoencoder.start(None, sizes["widths"])} if "widths" in sizes else {}
    return start(None, sizes) | more


def shape_of(sizes):
    """The shape of what is drawn, (C, H, W). sizes: as in `start`."""
    return tuple(sizes.get("shape", SHAPE))


def two_streams(sizes):
    """The configuration of `mmdit`, whose text as a whole is all words after another. sizes: as in `start`."""
    channels, side, _ = shape_of(sizes)
    return {
        "sample_size": side, "patch_size": sizes["patch"], "in_channels": channels, "num_layers": sizes["depth"],
        "num_attention_heads": sizes["heads"], "attention_head_dim": sizes["width"] // sizes["heads"],
        "joint_attention_dim": sizes["text_width"], "pooled_projection_dim": scenes.LENGTH * sizes["text_width"],
        "pos_embed_max_size": side // sizes["patch"],
    }  # fmt: skip


def predict(params, xt, t, ids, sizes, backend):
    """x0_hat of noised pictures. xt: (B, 3, 32, 32). t: (B,) or one number in [0, 1]. ids: (B, LENGTH). backend: whose
    layers the networks call. Returns x0_hat, cache."""
    config, given = {"num_attention_heads": sizes["text_heads"]}, (params["net"], xt, 1000 * t)
    context, words = with_kernels(text, backend).text_encoder(params["text"], ids, config)
    if sizes.get("streams") == 2:
        whole = context.reshape(len(context), -1)
        x0_hat, net = with_kernels(mmdit, backend).mmdit(*given, context, whole, two_streams(sizes))
    else:
        x0_hat, net = with_kernels(joint_dit, backend).joint_dit(*given, context, {"num_heads": sizes["heads"]})
    return x0_hat, {"text": words, "net": net}


def predict_backward(dx0_hat, params, cache, sizes, backend):
    """Gradients of `predict` in the parameters. dx0_hat: as x0_hat there. cache: of the forward. Returns dparams."""
    if sizes.get("streams") == 2:
        _, dcontext, dwhole, net = with_kernels(mmdit, backend).mmdit_backward(
            dx0_hat, params["net"], cache["net"], two_streams(sizes))
        dcontext = dcontext + dwhole.reshape(dcontext.shape)
    else:
        _, dcontext, net = with_kernels(joint_dit, backend).joint_dit_backward(dx0_hat, params["net"], cache["net"])
    config = {"num_attention_heads": sizes["text_heads"]}
    words = with_kernels(text, backend).text_encoder_backward(dcontext, params["text"], cache["text"], config)
    return {"text": words, "net": net}


def guided(params, ids, w, sizes, backend, without=None, watch=None):
    """velocity(x_t, t) for the prompts, guided away from the prompts `without`: from none, if None.

    ids: (B, LENGTH). w: weight, 1 for none. without: (B, LENGTH), or None. watch: called with (t, x0_hat as a picture,
    cache) of each step; the prompts come first in the cache. Returns a function for `ref.samplers`."""
    without = np.broadcast_to(NOTHING, ids.shape) if without is None else without
    arrays = fit.array_module(backend)
    params, rows = tree.map(arrays.asarray, params), arrays.asarray(ids if w == 1 else np.concatenate([ids, without]))

    def predicted(x, times):
        return predict(params, x, times, rows, sizes, backend)

    at_once = predicted if watch else fit.recorded(predicted, backend)

    def velocity(xt, t):
        x = arrays.asarray(np.float32(xt if w == 1 else np.concatenate([xt, xt])))
        x0_hat, cache = at_once(x, arrays.asarray(np.full(len(x), float(t))))
        x0_hat = fit.host(x0_hat).astype(np.float64)
        if w != 1:
            cond, uncond = np.split(x0_hat, 2)
            x0_hat = guidance.guide(uncond, cond, w)
        if watch is not None:
            watch(t, pictures_of(params, x0_hat, backend), cache)
        return flow.velocity_from_x0(xt, x0_hat, t)

    return velocity


def pictures_of(params, z, backend):
    """The pictures of what was drawn, on the host: itself, or decoded, if the parameters have an autoencoder."""
    if "autoencoder" not in params:
        return z
    arrays = fit.array_module(backend)
    net = tree.map(arrays.asarray, params["autoencoder"])
    return fit.host(autoencoder.decoded(net, arrays.asarray(z, np.float32), backend))


def sample(
    params, ids, sizes, w=2.5, steps=30, seed=0, sampler="euler", backend="numba_cpu", without=None, watch=None,
):  # fmt: skip
    """Pictures for the prompts, (B, 3, 32, 32), or what stands in their place, if no autoencoder is there. ids, w,
    without, watch: as in `guided`. sampler: of SAMPLERS."""
    noise = philox.normal(seed, (len(ids), *shape_of(sizes)), philox.stream("sampling"))
    velocity = guided(params, ids, w, sizes, backend, without, watch)
    return pictures_of(params, SAMPLERS[sampler](velocity, noise, np.linspace(1, 0, steps + 1)), backend)


def save(path, params, about):
    """Write the weights as float16, atomically. params: a tree. about: dict that JSON can hold, with `sizes`."""
    content = io.BytesIO()
    arrays = {name: a.astype(np.float16) for name, a in tree.named(params).items()}
    np.savez_compressed(content, about=json.dumps(about, sort_keys=True), **arrays)
    files.write_atomic(path, content.getvalue())


def load(path=WEIGHTS):
    """The weights that `save` wrote, as float32, and what it wrote about them. Raises ValueError, which names the file,
    for another kind of file or one with other arrays."""
    with files.arrays(path, "weights that `python -m bench.studies.prompt train` made") as found:
        about = json.loads(str(found.pop("about")))
        wanted = tree.named(shapes(about["sizes"]))
    if {name: a.shape for name, a in found.items()} != wanted:
        raise ValueError(f"{path}: expected {len(wanted)} arrays of its sizes {about['sizes']}, got others")
    return tree.from_named({name: found[name].astype(np.float32) for name in wanted}), about
