"""Writes stable_diffusion.npz and stable_diffusion.json: what the pipelines of diffusers give for small random models,
in float64, and the files of these models but for their weights, which `tests.redrawn` draws by their names.

    pip install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0
    PYTHONPATH=. python tests/goldens/make_stable_diffusion.py

"sd1" is a folder as the first ones on the hub are, with old names and short configs; the others are as
`save_pretrained` writes them. The schedulers and the sinusoids of the time, which diffusers computes in float32
whatever the model's dtype, are in float64 here.
"""
import functools
import itertools
import json
import random
import tempfile
from collections import Counter
from pathlib import Path

import diffusers
import numpy as np
import safetensors.numpy
import torch
import transformers
from diffusers.models import embeddings
from diffusers.schedulers import (
    scheduling_ddim, scheduling_dpmsolver_multistep, scheduling_euler_discrete, scheduling_lcm,
)  # fmt: skip

from ref.philox import normal, stream
from ref.pipelines.tokenizer import LETTERS
from tests import redrawn
from tests.goldens.make_nets import keep, sinusoids

START, END = "<|startoftext|>", "<|endoftext|>"
CORPUS = """a photograph of an astronaut riding a horse in space, highly detailed, 4k. an oil painting of a fox by the
sea; the cat's hat isn't here, they're red and we've seen it. i'm sure you'll like it, he'd say! black and white photo
of the old town at night with people in the street""".split()
ODD = ["", " ", "!", "hello!", "wow!!! great", "it's 1234 o'clock", "'sup 'tis ''s", "CAFÉ Cafe\u0301", "naïve façade",
       "日本の 風景", "emoji 😀👍🏽 test", "a\tb\n c\u00a0d\u2003e", "x" * 200, "word " * 90, "½ ² Ⅳ ٣ 7th", "ΑΣ ΣΑΣ İstanbul",
       f"{END} after", f"before{START}after", "<|ENDOFTEXT|>!", "<| |> <|", "_under_score--dash", "a,b.c;d:e",
       "\u200bzero", "ﬁ ligature ﬀ", "\x1cfile\x1d", "tab\x0bvertical", "ÅÅ Å", "don't DON'T", "1,000.50$",
       "क्षि हिन्दी"]
VAE = dict(block_out_channels=(8, 12), layers_per_block=1, norm_num_groups=4, latent_channels=4,
           down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
UNET = dict(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=12,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=2,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
BETAS = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
CASES = {  # configs in place of these, the scheduler's class, and the runs: sampler, steps, guidance, spacing
    "sd1": dict(scheduler=("PNDMScheduler", dict(steps_offset=1)), runs=[
        ("ddim", 5, 7.5, None), ("dpmpp_2m", 4, 3.0, None), ("dpmpp_2m", 4, 1.0, "trailing")]),
    "sd2": dict(unet=dict(use_linear_projection=True, attention_head_dim=[2, 4]), text=dict(hidden_act="gelu"), pad="!",
                scheduler=("DDIMScheduler", dict(prediction_type="v_prediction", timestep_spacing="trailing",
                                                 rescale_betas_zero_snr=True, clip_sample=False, steps_offset=1,
                                                 set_alpha_to_one=False)),
                runs=[("ddim", 4, 5.0, None), ("dpmpp_2m", 5, 7.5, None), ("euler", 4, 2.0, None)]),
    "turbo": dict(unet=dict(mid_block_type=None), tiny=True,
                  scheduler=("EulerDiscreteScheduler", dict(timestep_spacing="trailing", steps_offset=1)),
                  runs=[("euler", 1, 1.0, None), ("euler", 4, 3.0, None)]),
    "lcm": dict(unet=dict(time_cond_proj_dim=6), vae=dict(use_quant_conv=False, use_post_quant_conv=False,
                mid_block_add_attention=False, scaling_factor=0.7, layers_per_block=2),
                scheduler=("DDIMScheduler", dict(clip_sample=False, steps_offset=1)), runs=[
                    ("ddim", 4, 4.0, None), ("lcm", 3, 2.0, None), ("lcm", 15, 4.0, None)]),
}
SCHEDULERS = {"ddim": diffusers.DDIMScheduler, "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
              "euler": diffusers.EulerDiscreteScheduler, "lcm": diffusers.LCMScheduler}
PROMPT, NEGATIVE, SIZE = "A photograph of an astronaut riding a horse in space!", "blurry, old", (16, 24)


class Exact:
    """A module whose float32 is float64."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        return getattr(self.module, "float64" if name == "float32" else name)


def vocabulary():
    """A vocabulary and the merges that a small corpus asks for."""
    words = Counter(tuple([*word[:-1], f"{word[-1]}</w>"]) for word in CORPUS)
    merges = []
    for _ in range(90):
        pairs = Counter()
        for word, count in words.items():
            pairs.update({pair: count for pair in zip(word, word[1:])})
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        words = Counter({joined(word, best): count for word, count in words.items()})
    singles = sorted(LETTERS)
    pieces = [*singles, *(f"{letter}</w>" for letter in singles), *("".join(pair) for pair in merges), START, END]
    return {piece: i for i, piece in enumerate(pieces)}, merges


def joined(word, pair):
    out = []
    for piece in word:
        out = [*out[:-1], out[-1] + piece] if out and (out[-1], piece) == pair else [*out, piece]
    return tuple(out)


def prompts():
    """300 of them: the odd ones, and words of the corpus and of others in any order."""
    draw, words = random.Random(0), [*CORPUS, *" ".join(ODD[:12]).split(), "Zebra", "QUICK", "x264", "42", "?!", "'s"]
    return ODD + ["".join(draw.choice(words) + draw.choice((" ", " ", "  ", "")) for _ in range(draw.randint(1, 30)))
                  for _ in range(300 - len(ODD))]


def models(case, folder):
    """The parts of a pipeline, and the folder that it is saved in. Returns unet, vae, text, tokenizer, scheduler."""
    vocab, merges = vocabulary()
    unet = diffusers.UNet2DConditionModel(**UNET | case.get("unet", {}))
    if case.get("tiny"):
        vae = diffusers.AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
                                        num_encoder_blocks=(1, 1), num_decoder_blocks=(2, 1))
    else:
        vae = diffusers.AutoencoderKL(**VAE | case.get("vae", {}))
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**dict(
        vocab_size=len(vocab), hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3,
        bos_token_id=vocab[START], eos_token_id=vocab[END], pad_token_id=vocab[case.get("pad", END)])
        | case.get("text", {})))
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=merges, pad_token=case.get("pad", END),
                                           model_max_length=77)
    kind, settings = case["scheduler"]
    scheduler = getattr(diffusers, kind)(**BETAS | settings)
    for part, name in ((unet, "unet"), (vae, "vae"), (text, "text_encoder"), (tokenizer, "tokenizer"),
                       (scheduler, "scheduler")):
        part.save_pretrained(folder / name)
    return unet, vae, text, tokenizer, scheduler


def aged(folder):
    """A saved folder in the old style: files of the vocabulary, and configs without what later versions added."""
    vocab, merges = vocabulary()
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(lines), "utf-8")
    (folder / "tokenizer" / "special_tokens_map.json").write_text(json.dumps(
        {"bos_token": {"content": START, "lstrip": False, "normalized": True}, "eos_token": END, "pad_token": END,
         "unk_token": {"content": END}}), "utf-8")
    keys = {"unet": [*UNET, "act_fn", "center_input_sample", "flip_sin_to_cos", "freq_shift", "in_channels"],
            "vae": [*VAE, "act_fn", "sample_size"]}
    for name, kept in keys.items():
        path = folder / name / "config.json"
        config = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps({key: config[key] for key in ("_class_name", *kept)}), "utf-8")


OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def renamed(name, path):
    """The old name of a tensor. name: of the network."""
    if name == "text_encoder":
        return path if path.startswith("text_model.") else f"text_model.{path}"
    if name == "vae" and ".attentions." in path:
        for new, old in OLD.items():
            path = path.replace(new, old)
    return path


def weights(parts, folder, seed, old):
    """Every parameter redrawn. Returns {"unet/...safetensors": {name: shape}} in the order of the drawing."""
    shapes = {}
    for i, (name, model) in enumerate(parts.items()):
        file = next((folder / name).glob("*.safetensors"))
        names = {key: renamed(name, key) if old else key for key in safetensors.numpy.load_file(file)}
        own = {names[key]: list(tensor.shape) for key, tensor in model.state_dict().items() if key in names}
        drawn = redrawn(own, seed + i)
        if old and name == "text_encoder":
            own["text_model.embeddings.position_ids"] = [1, 77]
        model.double().eval()
        missing = model.load_state_dict({key: torch.tensor(drawn[names[key]]) for key in names}, strict=False)
        assert not missing.unexpected_keys and all("position_ids" in key for key in missing.missing_keys)
        shapes[file.relative_to(folder).as_posix()] = own
    return shapes


def given_config(scheduler):
    """All that a scheduler was built with, its class's defaults too, which `from_config` would replace."""
    return {key: value for key, value in scheduler.config.items() if key[0] != "_"} | {"clip_sample": False}


def trajectory(parts, tokenizer, scheduler, run):
    """The latents that diffusers' pipeline ends at, and the picture. Returns {name: array}."""
    sampler, steps, guidance, spacing = run
    changed = {} if spacing is None else {"timestep_spacing": spacing, "steps_offset": 0}
    solver = SCHEDULERS[sampler].from_config(given_config(scheduler) | changed)
    draws = itertools.count(1)  # of the noise between steps, which is ours
    scheduling_lcm.randn_tensor = lambda shape, **_: torch.tensor(
        normal(0, tuple(shape), stream("sampling", next(draws))))
    pipe = diffusers.StableDiffusionPipeline(parts["vae"], parts["text_encoder"], tokenizer, parts["unet"], solver,
                                             None, None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    latents = np.random.default_rng(steps).standard_normal((1, 4, SIZE[0] // 2, SIZE[1] // 2))
    given = {"num_inference_steps": steps}
    if sampler == "dpmpp_2m" and (spacing or scheduler.config.timestep_spacing) == "leading":  # as the others have it
        given = {"timesteps": (np.arange(steps) * (1000 // steps))[::-1] + scheduler.config.steps_offset}
    out = pipe(PROMPT, negative_prompt=NEGATIVE, guidance_scale=guidance, latents=torch.tensor(latents), height=SIZE[0],
               width=SIZE[1], output_type="latent", **given).images
    with torch.no_grad():
        image = parts["vae"].decode(out / parts["vae"].config.scaling_factor).sample
    assert out.dtype == image.dtype == torch.float64
    return {"latents": latents, "z": out.numpy(), "image": (image / 2 + 0.5).clamp(0, 1).numpy()}


def single(parts, ids):
    """One call of each network. Returns {name: array}."""
    draw = np.random.default_rng(7)
    x, t, z = draw.standard_normal((2, 4, 6, 5)), np.array([3, 981]), draw.standard_normal((2, 4, 3, 4))
    image, vae = draw.uniform(-1, 1, (2, 3, 8, 6)), parts["vae"]
    with torch.no_grad():
        text = parts["text_encoder"](torch.tensor(ids)).last_hidden_state
        out = {"states": text, "eps": parts["unet"](torch.tensor(x), torch.tensor(t), text).sample,
               "decoded": vae.decode(torch.tensor(z) / vae.config.scaling_factor).sample}
        if isinstance(vae, diffusers.AutoencoderKL):
            found = vae.encode(torch.tensor(image)).latent_dist
            out |= {"mean": found.mean * vae.config.scaling_factor, "std": found.std * vae.config.scaling_factor}
    return {"x": x, "t": t, "z_given": z, "image_given": image} | {key: a.numpy() for key, a in out.items()}


def one(name, seed):
    """The arrays of one model and its line of the sidecar."""
    case, arrays = CASES[name], {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        unet, vae, text, tokenizer, scheduler = models(case, folder)
        if name == "sd1":
            aged(folder)
        parts = {"unet": unet, "vae": vae, "text_encoder": text}
        shapes = weights(parts, folder, seed, name == "sd1")
        files = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in sorted(folder.rglob("*.*"))
                 if path.suffix in (".json", ".txt")}
    texts = prompts() if name in ("sd1", "sd2") else [PROMPT, NEGATIVE]
    ids = np.array(tokenizer(texts, padding="max_length", max_length=77, truncation=True).input_ids)
    arrays["ids"] = ids.astype(np.int16)
    few = np.array(tokenizer([PROMPT, NEGATIVE], padding="max_length", max_length=77, truncation=True).input_ids)
    arrays |= single(parts, few)
    for i, run in enumerate(case["runs"]):
        arrays |= {f"run{i}/{key}": a for key, a in trajectory(parts, tokenizer, scheduler, run).items()}
    line = {"seed": seed, "files": files, "shapes": shapes, "runs": case["runs"]}
    return {f"{name}/{key}": a for key, a in arrays.items()}, line


def main():
    embeddings.get_timestep_embedding = sinusoids
    for module in (scheduling_ddim, scheduling_dpmsolver_multistep, scheduling_euler_discrete, scheduling_lcm):
        module.torch, module.np = Exact(torch), Exact(np)
    pipeline = diffusers.StableDiffusionPipeline
    pipeline.get_guidance_scale_embedding = functools.partialmethod(pipeline.get_guidance_scale_embedding,
                                                                    dtype=torch.float64)
    torch.set_default_dtype(torch.float64)
    arrays, cases = {}, {}
    for i, name in enumerate(CASES):
        found, cases[name] = one(name, 1000 * (i + 1))
        arrays |= found
    keep("stable_diffusion", arrays, "diffusers and transformers, float64", prompts=prompts(), prompt=PROMPT,
         negative=NEGATIVE, cases=cases)


if __name__ == "__main__":
    main()
