"""Stable Diffusion from a folder of published weights: a prompt becomes an image in five steps.

    tokenize         words to numbers                     ref/pipelines/tokenizer.py
    encode_text      numbers to states of the text        ref/nets/text.py
    latents          the noise to start from              ref/philox.py
    denoise          the U-Net, which a sampler calls     ref/nets/unet.py, ref/samplers/
    decode_image     latents to pixels                    ref/nets/autoencoder.py

`load` reads a folder. Samplers compute in float64, networks in the dtype of their parameters, or in float32 where these
are stored in float16. Latents are scaled to a deviation of about 1: the autoencoder's factor stands in `encode_image`
and `decode_image` alone.

Papers
    [LDM]     Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022
    [CFG]     Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [LCM]     Luo et al., "Latent Consistency Models", 2023
    [SDEdit]  Meng et al., "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations", 2022
"""
import math
import warnings
from itertools import pairwise

import numpy as np

from ref import samplers
from ref.diffusion import q_sample, v_target, x0_from_eps, x0_from_v
from ref.edm import sigma_from_abar, vp_from_ve
from ref.guidance import guide
from ref.layers import time_embedding
from ref.nets.autoencoder import decode, encode, tiny_decode
from ref.nets.text import text_encoder
from ref.nets.unet import unet
from ref.philox import normal, stream
from ref.pipelines.folder import load  # noqa: F401
from ref.pipelines.schedule import PREDICTS, alphas, times
from ref.pipelines.tokenizer import encoded
from ref.pipelines.unigram import piece_ids
from ref.shapes import integers, number, shaped

SAMPLERS = "ddim", "dpmpp_2m", "euler", "lcm"
LOGVAR = -30, 20  # limits of the encoder's log-variance, as published


def tokenize(model, prompts):
    """The tokens of each prompt between start, where the encoder has one, and end, filled up to its length.

    model: from `load`. prompts: str, or a list of them.
    Returns (B, L) int64, L = 77 for published models, of T5 256. Warns of a prompt that is longer, and is cut.
    Raises TypeError for what is no text.
    """
    tokenizer, rows = model["tokenizer"], []
    start = [tokenizer["start"]] if "start" in tokenizer else []
    for prompt in [prompts] if isinstance(prompts, str) or not np.iterable(prompts) else prompts:
        if not isinstance(prompt, str) or not prompt.isascii() and any("\ud800" <= c <= "\udfff" for c in prompt):
            raise TypeError(f"prompts: expected texts of Unicode characters, got {prompt!r}")
        ids = (encoded if start else piece_ids)(prompt, tokenizer)
        room = tokenizer["length"] - len(start) - 1
        if len(ids) > room:
            warnings.warn(f"the prompt has {len(ids)} tokens and is cut to {room}: {prompt!r}", stacklevel=2)
        row = [*start, *ids[:room], tokenizer["end"]]
        rows.append(row + [tokenizer["pad"]] * (tokenizer["length"] - len(row)))
    return np.array(rows, np.int64).reshape(-1, tokenizer["length"])


def encode_text(model, ids):
    """The states of the text that the U-Net reads, [LDM] section 3.3. model: from `load`. ids: (B, L) ints, as from
    `tokenize`. Returns (B, L, C)."""
    shaped(ids, "ids", "B", "L")
    return text_encoder(model["text"]["params"], np.asarray(ids), model["text"]["config"])[0]


def denoise(model, x, t, context, guidance=None):
    """What the U-Net predicts: eps, v or x0, as the scheduler's config says.

    model: from `load`. x: (B, C, h, w) latents. t: int, or (B,), from 0 to 999, as the folder counts. context:
    (B, L, D) of `encode_text`. guidance: its strength, for a distilled model that takes it as an input, [LCM]
    section 4.3; others ignore it.
    Returns (B, C, h, w) in the dtype that the network computes in.
    """
    params, config = model["unet"]["params"], model["unet"]["config"]
    dtype, strength, width = _dtype(params["conv_in"]), None, config["cross_attention_dim"]
    x = shaped(x, "x", "B", config["in_channels"], "h", "w").astype(dtype)
    context = shaped(context, "context", len(x), "L", width if isinstance(width, int) else "D").astype(dtype)
    if guidance is not None and "cond_proj" in params["time_embedding"]:
        width = params["time_embedding"]["cond_proj"]["weight"].shape[1]
        w = np.full(len(x), 1000 * (number(guidance, "guidance") - 1))
        strength = time_embedding(w, width, freq_shift=1, flip_sin_to_cos=False).astype(dtype)  # (B, width)
    y, _ = unet(params, x, t, context, config, None, strength, keep=False)
    return y


def encode_image(model, image):
    """The latents of an image, N(mean, e^logvar), times the autoencoder's factor, [LDM] section 3.1 and appendix G.

    model: from `load`. image: (B, 3, H, W) in [-1, 1].
    Returns mean, logvar, each (B, C, h, w).
    Raises ValueError for the tiny autoencoder, which only decodes here.
    """
    params, config = model["vae"]["params"], model["vae"]["config"]
    if "encoder" not in params:
        raise ValueError("vae: expected an autoencoder with an encoder, got the tiny one")
    image = shaped(image, "image", "B", config["in_channels"], "H", "W")
    y, _ = encode(params, image.astype(_dtype(params["encoder"]["conv_in"])), config, keep=False)
    mean, logvar = np.split(y, 2, axis=1)
    factor, shift = config["scaling_factor"], config["shift_factor"] or 0
    return (mean - shift) * factor, np.clip(logvar, *LOGVAR) + 2 * math.log(factor)


def decode_image(model, z):
    """The image of latents, [LDM] section 3.1. model: from `load`. z: (B, C, h, w). Returns (B, 3, H, W), about
    [-1, 1], not clipped."""
    params, config = model["vae"]["params"], model["vae"]["config"]
    tiny = "mid_block" not in params["decoder"]
    first = params["decoder"]["layers"][0] if tiny else params["decoder"]["conv_in"]
    z = shaped(z, "z", "B", config["latent_channels"], "h", "w")
    scaled = z / config["scaling_factor"] + (config["shift_factor"] or 0)
    x, _ = (tiny_decode if tiny else decode)(params, scaled.astype(_dtype(first)), config, keep=False)
    return x


def text_to_image(model, prompts, negative="", steps=20, guidance=7.5, seed=0, size=(512, 512), sampler="dpmpp_2m",
                  latents=None, spacing=None, tick=None):
    """Images of prompts, [LDM]: noise, which `sample` makes latents of, decoded.

    model: from `load`. prompts: str or list of B. negative: str, what guidance leads away from. steps: int. guidance:
    w of [CFG]; 1 is the plain conditional model. seed: int. size: (H, W). sampler: "ddim", "dpmpp_2m", "euler" or
    "lcm". latents: (B, C, h, w) standard normal numbers in place of the seed's, which also decide the size; or None.
    spacing: as in `times`. tick: called with (step, steps) after each call of the U-Net, or None.
    Returns (B, 3, H, W) in [0, 1].
    Raises ValueError for no prompt, a size that the autoencoder cannot make, another sampler, and as `times` does.
    """
    cond, uncond = _contexts(model, prompts, negative, guidance)
    x = noise(model, len(cond), size, seed, latents)
    visited = times(model["scheduler"], steps, spacing, sampler)
    return shown(decode_image(model, sample(model, x, visited, cond, uncond, guidance, sampler, seed, tick=tick)))


def image_to_image(model, image, prompts, strength=0.8, negative="", steps=20, guidance=7.5, seed=0,
                   sampler="dpmpp_2m", spacing=None, mask=None, tick=None):
    """Another image from a noised one, [SDEdit] algorithm 1: the last part of the steps of `text_to_image`, from the
    image's latents with the noise of the first time visited.

    model, prompts, negative, steps, guidance, seed, sampler, spacing, tick: as in `text_to_image`. image: (B, 3, H, W)
    in [0, 1]. strength: in [0, 1], the part of the steps; 0 returns the decoded image. mask: (H, W) or (B, 1, H, W), 1
    where the image is to be made anew, 0 where its latents are kept; or None for everywhere.
    Returns (B, 3, H, W) in [0, 1].
    Raises ValueError for another strength, another number of images than prompts or a mask of another size.
    """
    strength, image = number(strength, "strength"), np.asarray(image)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength: expected 0 <= strength <= 1, got {strength}")
    cond, uncond = _contexts(model, prompts, negative, guidance)
    if image.ndim != 4 or image.shape[:2] != (len(cond), 3):
        raise ValueError(f"image: expected ({len(cond)}, 3, H, W) for {len(cond)} prompts, got {image.shape}")
    eps = noise(model, len(image), image.shape[2:], seed)  # refuses a size first
    mean, _ = encode_image(model, 2 * image - 1)
    known = mean.astype(np.float64)
    visited = times(model["scheduler"], steps, spacing, sampler)[-1 - int(steps * strength):]
    kept = None if mask is None else (known, _coarse(mask, image, known))
    x = _started(model, known, eps, visited, sampler)
    z = sample(model, x, visited, cond, uncond, guidance, sampler, seed, kept, eps, tick)
    return shown(decode_image(model, z))


def _contexts(model, prompts, negative, guidance):
    """The states of the prompts (B, L, C), and of the negative one as often, or None where guidance needs none."""
    if not math.isfinite(number(guidance, "guidance")) or not isinstance(negative, str):
        raise ValueError(f"guidance, negative: expected a finite number and a str, got {guidance} and {negative!r}")
    if not len(ids := tokenize(model, prompts)):
        raise ValueError("prompts: expected at least one, got none")
    cond = encode_text(model, ids)
    if number(guidance, "guidance") == 1 or "cond_proj" in model["unet"]["params"]["time_embedding"]:
        return cond, None
    return cond, np.repeat(encode_text(model, tokenize(model, negative)), len(cond), axis=0)


def noise(model, count, size, seed, latents=None):
    """Standard normal latents for images of a size, [LDM] section 3.3.

    model: from `load`. count: B. size: (H, W). seed: int. latents: (B, C, h, w) in place of the seed's, or None.
    Returns (B, C, h, w) float64.
    Raises ValueError for a size that the autoencoder's factor does not divide, and for latents of another shape.
    """
    config = model["vae"]["config"]
    if latents is not None:
        x = np.asarray(latents, np.float64)
        if x.ndim != 4 or x.shape[:2] != (count, config["latent_channels"]):
            raise ValueError(f"latents: expected ({count}, {config['latent_channels']}, h, w) for {count} prompts, got "
                             f"{x.shape}")
        return x
    levels = len(config.get("decoder_block_out_channels", config.get("block_out_channels")))
    if np.ndim(size) != 1 or len(size) != 2:
        raise ValueError(f"size: expected (H, W), got {size!r}")
    (rows, columns), factor = integers(height=size[0], width=size[1]), 2 ** (levels - 1)
    if rows < 1 or columns < 1 or rows % factor or columns % factor:
        raise ValueError(f"size: expected multiples of {factor}, got {rows} x {columns}")
    shape = (count, config["latent_channels"], rows // factor, columns // factor)
    return normal(seed, shape, stream("sampling"))


def sample(model, x, visited, cond, uncond, guidance, sampler, seed=0, kept=None, eps=None, tick=None):
    """Latents of noise, by one of `ref.samplers` from each time to the next, with guidance by [CFG] eq. 6.

    Where latents are kept, the prediction is the truth, and a sampler without noise of its own stays on the path
    q_sample(known, t, eps) there.

    model: from `load`. x: (B, C, h, w), noise, for "euler" before it is multiplied by the first sigma. visited: times,
    as from `times`. cond: (B, L, D), the states of the prompts. uncond: those of the negative one, or None.
    guidance, sampler, seed, tick: as in `text_to_image`; of the seed is the noise of "lcm". kept: None, or (known,
    mask), both (B, C, h, w), the mask 0 where the latents are kept. eps: the noise of the kept, as x.
    Returns (B, C, h, w) in the dtype that the network computes in.
    Raises ValueError for another sampler.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler: expected one of {', '.join(SAMPLERS)}, got {sampler!r}")
    abar, predict = alphas(model["scheduler"], sampler), PREDICTS[model["scheduler"]["prediction_type"]]
    calls, dtype = [], _dtype(model["unet"]["params"]["conv_in"])

    def predicted(xt, t):
        if kept:
            xt = np.where(kept[1], xt, q_sample(kept[0], t, eps, abar))
        out = denoise(model, xt, t - 1, cond, guidance).astype(np.float64)
        if uncond is not None:
            out = guide(denoise(model, xt, t - 1, uncond).astype(np.float64), out, guidance)
        if kept:
            truth = {"eps": eps, "x0": kept[0], "v": v_target(kept[0], eps, t, abar)}[predict]
            out = np.where(kept[1], out, truth)
        calls.append(t)
        if tick:
            tick(len(calls), len(visited) - 1)
        return out

    if len(visited) == 1:  # no step is left
        z = x
    elif sampler == "ddim":
        z = samplers.ddim(predicted, x, visited, None, 0.0, abar, predict=predict)
    elif sampler == "dpmpp_2m":
        z = samplers.dpmpp_2m(predicted, x, visited, abar, predict=predict)
    elif sampler == "euler":
        z = _euler(predicted, x, visited, abar, predict)
    else:
        z = _lcm(predicted, x, visited, abar, predict, model["scheduler"]["timestep_scaling"], seed)
    return (np.where(kept[1], z, kept[0]) if kept else z).astype(dtype)


def _euler(predicted, x, visited, abar, predict):
    """`ref.samplers.euler` of a model of discrete time: at each level it sees x / sqrt(1 + sigma^2)."""
    sigmas = sigma_from_abar(abar[visited])
    time = dict(zip(sigmas.tolist(), visited.tolist()))

    def x0_hat(x, sigma):
        t, xt = time[sigma], vp_from_ve(x, sigma)
        return _x0_hat(predict, xt, predicted(xt, t), t, abar)

    return samplers.euler(x0_hat, sigmas[0] * x, sigmas)


def _lcm(predicted, x, visited, abar, predict, scaling, seed):
    """[LCM] algorithm 3: from each time to the data, by its eq. 9, and back to the next time with fresh noise."""
    for i, (t, s) in enumerate(pairwise(visited.tolist())):
        u = scaling * (t - 1)
        x0_hat = _x0_hat(predict, x, predicted(x, t), t, abar)
        z = 0.25 / (u**2 + 0.25) * x + u / math.sqrt(u**2 + 0.25) * x0_hat
        x = q_sample(z, s, normal(seed, x.shape, stream("sampling", i + 1)), abar)
    return x


def _x0_hat(predict, xt, out, t, abar):
    return {"eps": x0_from_eps, "v": x0_from_v}[predict](xt, out, t, abar) if predict != "x0" else out


def _started(model, known, eps, visited, sampler):
    """The latents with the noise of the first time, in the scale that `sample` takes."""
    abar = alphas(model["scheduler"], sampler)
    if len(visited) == 1:
        return known
    if sampler == "euler":  # sample multiplies by sigma
        return known / sigma_from_abar(abar[visited[0]]) + eps
    return q_sample(known, int(visited[0]), eps, abar)


def _coarse(mask, image, known):
    """A mask of pixels as one of latents, 1 where one of its pixels is. Returns a bool array of the shape of known."""
    mask, shape = np.asarray(mask), (len(image), 1, *image.shape[2:])
    if mask.shape not in (shape[2:], shape, (1, *shape[1:])):
        raise ValueError(f"mask: expected shape {shape[2:]} or {shape}, got {mask.shape}")
    mask = np.broadcast_to(mask != 0, shape)
    rows, columns = known.shape[2:]
    blocks = mask.reshape(len(image), 1, rows, image.shape[2] // rows, columns, image.shape[3] // columns)
    return np.broadcast_to(blocks.any(axis=(3, 5)), known.shape)


def _dtype(layer):
    """What a network computes in, of its first layer: the dtype of the parameters, or float32 for float16."""
    return np.result_type(layer["weight"], np.float32)


def shown(image):
    """[-1, 1] to [0, 1], where an image is shown: what lies beyond is clipped. image: any shape. Returns it."""
    return np.clip(image / 2 + 0.5, 0, 1)
