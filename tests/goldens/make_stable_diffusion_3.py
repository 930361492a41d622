"""Writes stable_diffusion_3.npz and stable_diffusion_3.json: as make_stable_diffusion.py does, for small random models
of Stable Diffusion 3 without the third text encoder. The mean squares of `RMSNorm` are in float64, too.

    pip install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0
    PYTHONPATH=. python tests/goldens/make_stable_diffusion_3.py
"""
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from diffusers.models import embeddings, normalization
from diffusers.schedulers import scheduling_flow_match_euler_discrete

from tests.goldens.make_nets import keep, rms_norm, sinusoids
from tests.goldens.make_stable_diffusion import END, NEGATIVE, PROMPT, SIZE, START, VAE, Exact, vocabulary, weights

NET = dict(sample_size=16, patch_size=2, in_channels=6, out_channels=6, num_layers=2, attention_head_dim=4,
           num_attention_heads=3, joint_attention_dim=24, caption_projection_dim=12, pooled_projection_dim=12,
           pos_embed_max_size=8)
CASES = {  # configs in place of these, the scheduler's shift, the end token of the encoders' configs, and the runs
    "sd3": dict(shift=3.0, end=2, runs=[(4, 5.0), (1, 1.0)]),
    "sd35": dict(net=dict(qk_norm="rms_norm", dual_attention_layers=(0,)), shift=1.5, end=None, runs=[(3, 2.0)]),
}


def models(case, folder):
    """The parts of a pipeline, {place in the folder: part}, saved."""
    vocab, merges = vocabulary()
    parts = {"transformer": diffusers.SD3Transformer2DModel(**NET | case.get("net", {})),
             "vae": diffusers.AutoencoderKL(**VAE | dict(latent_channels=6, use_quant_conv=False, scaling_factor=1.5305,
                                                         use_post_quant_conv=False, shift_factor=0.0609))}
    for end, width, heads, act, pad in (("", 12, 3, "quick_gelu", END), ("_2", 8, 2, "gelu", "!")):
        parts[f"text_encoder{end}"] = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(
            vocab_size=len(vocab), hidden_size=width, intermediate_size=20, num_hidden_layers=3,
            num_attention_heads=heads, hidden_act=act, projection_dim=width - 3 if end else 7,
            bos_token_id=vocab[START], eos_token_id=case["end"] or vocab[END], pad_token_id=vocab[pad]))
        parts[f"tokenizer{end}"] = transformers.CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad,
                                                              model_max_length=77)
    parts["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler(shift=case["shift"])
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return parts


def replayed(pipe, runs):
    """What the pipeline and its parts give. Returns {name: array}."""
    draw, arrays = np.random.default_rng(7), {}
    x, z = torch.tensor(draw.standard_normal((2, 6, 8, 10))), torch.tensor(draw.standard_normal((2, 6, 3, 4)))
    image, settings = torch.tensor(draw.uniform(-1, 1, (2, 3, 8, 6))), pipe.vae.config
    with torch.no_grad():
        context, _, pooled, _ = pipe.encode_prompt([PROMPT, NEGATIVE], None, None, do_classifier_free_guidance=False)
        v = pipe.transformer(x, context, pooled, torch.tensor([731.0, 731.0])).sample
        decoded = pipe.vae.decode(z / settings.scaling_factor + settings.shift_factor).sample
        mean = (pipe.vae.encode(image).latent_dist.mean - settings.shift_factor) * settings.scaling_factor
    arrays |= dict(x=x, z_given=z, image_given=image, context=context, pooled=pooled, v=v, decoded=decoded, mean=mean)
    for i, (steps, guidance) in enumerate(runs):
        latents = torch.tensor(np.random.default_rng(steps).standard_normal((1, 6, SIZE[0] // 2, SIZE[1] // 2)))
        out = pipe(PROMPT, negative_prompt=NEGATIVE, num_inference_steps=steps, guidance_scale=guidance,
                   latents=latents, height=SIZE[0], width=SIZE[1], output_type="latent").images
        with torch.no_grad():
            shown = pipe.vae.decode(out / settings.scaling_factor + settings.shift_factor).sample
        arrays |= {f"run{i}/latents": latents, f"run{i}/z": out, f"run{i}/image": (shown / 2 + 0.5).clamp(0, 1),
                   f"run{i}/times": pipe.scheduler.sigmas}
    assert all(a.dtype == torch.float64 for a in arrays.values())
    return {name: a.numpy() for name, a in arrays.items()}


def one(name, seed):
    """The arrays of one model and its line of the sidecar."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        parts = models(case, folder)
        shapes = weights({key: part for key, part in parts.items() if isinstance(part, torch.nn.Module)}, folder, seed,
                         False)
        files = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in sorted(folder.rglob("*.*"))
                 if path.suffix in (".json", ".txt")}
    pipe = diffusers.StableDiffusion3Pipeline(**parts, text_encoder_3=None, tokenizer_3=None)
    pipe.set_progress_bar_config(disable=True)
    arrays = replayed(pipe, case["runs"])
    return {f"{name}/{key}": a for key, a in arrays.items()}, {"seed": seed, "files": files, "shapes": shapes,
                                                               "runs": case["runs"]}


def exactly():
    """What diffusers computes in float32 whatever the model's dtype, in float64."""
    embeddings.get_timestep_embedding, normalization.RMSNorm.forward = sinusoids, rms_norm
    scheduling_flow_match_euler_discrete.torch, scheduling_flow_match_euler_discrete.np = Exact(torch), Exact(np)
    torch.set_default_dtype(torch.float64)


def main():
    exactly()
    arrays, cases = {}, {}
    for i, name in enumerate(CASES):
        found, cases[name] = one(name, 10_000 * (i + 1))
        arrays |= found
    keep("stable_diffusion_3", arrays, "diffusers and transformers, float64", cases=cases)


if __name__ == "__main__":
    main()
