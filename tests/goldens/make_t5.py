"""Writes t5.npz and t5.json: T5's encoder as make_nets.py makes the networks', its tokenizer, and the "sd3" of
make_stable_diffusion_3.py with both of them in it.

    pip install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 sentencepiece==0.2.3 protobuf
    PYTHONPATH=. python tests/goldens/make_t5.py

The tokenizer, its table of replacements too, is trained by SentencePiece on a few words. `styles` has what stands in
tokenizer.json for what transformers 5 writes there: as of 4.41, in the published folder of Stable Diffusion 3, and one
more. The mean squares of the norms are in float64.
"""
import itertools
import json
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from sentencepiece import sentencepiece_model_pb2
from transformers.models.t5 import modeling_t5

from tests import redrawn
from tests.goldens import make_nets, make_stable_diffusion_3
from tests.goldens.make_stable_diffusion import CORPUS, NEGATIVE, PROMPT, SIZE, prompts

RULES = {  # what becomes of what, in the table of replacements
    "\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u2003": " ", "\u3000": " ", "\u200b": "", "\ufb01": "fi",
    "e\u0301": "\u00e9", "\u00c5": "A\u030a", "\u00bd": "1/2", "\uff21": "A", "\u2163": "IV", "\u00ad": "",
    "\u98a8": "wind",
}  # fmt: skip
ODD = ["  lead  and trail  ", "\u2581under\u2581\u2581marks", "</s> in <pad>the <unk> middle</s>",
       "<extra_id_0>a <extra_id_1> b", "\ufb01\u0301n \ufb01n e\u0301e\u0301 e\u0301\u0300\u0302 \u00c5\u0301",
       "a\r\nb\n\nc \r", "\uff21\u200d\uff21 \u00ad\u0301x", "word " * 300, "q" * 300, "\x00\x1c a\u200d",
       "horsehorses inspace", "zzz~~~zzz", "\U0001f600\U0001f600 \U0001f44d\U0001f3fd"]
STYLES = [
    {"normalizer": [None, {"type": "Strip", "strip_left": False, "strip_right": True},
                    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}],
     "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}},
    {"normalizer": [{"type": "NFKC"}, {"type": "Strip", "strip_left": True, "strip_right": True},
                    {"type": "Replace", "pattern": {"String": "."}, "content": "\\1"}],
     "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}},
]
SIZES = dict(d_kv=4, d_ff=20, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu")


def rms_norm(self, hidden_states):
    """transformers' `T5LayerNorm.forward` in float64."""
    mean = hidden_states.pow(2).mean(-1, keepdim=True)
    return hidden_states * torch.rsqrt(mean + self.variance_epsilon) * self.weight


def t5(length, masked=False, **changed):
    settings = SIZES | dict(vocab_size=23, d_model=10, relative_attention_num_buckets=8,
                            relative_attention_max_distance=9) | changed
    model = transformers.T5EncoderModel(transformers.T5Config(**settings))
    draw = np.random.default_rng(1)
    inputs = dict(ids=draw.integers(0, 23, (2, length)))
    if masked:
        inputs["mask"] = np.arange(length) < np.array([[length], [length - 3]])

    def call(ids, mask=None):
        return model(ids, attention_mask=mask).last_hidden_state

    shapes = {path: list(p.shape) for path, p in model.named_parameters()}  # once what has two names
    return model, call, inputs, settings, shapes, [], lambda params: params


NETWORKS = {"t5": lambda: t5(13), "t5_masked": lambda: t5(7, True, num_heads=2, layer_norm_epsilon=1e-5, num_layers=3)}


def tokenizer(folder):
    """A small tokenizer, saved. Returns transformers' own."""
    def numbers(text):
        return " ".join(f"{ord(c):X}" for c in text)

    (folder / "rules.tsv").write_text("".join(f"{numbers(a)}\t{numbers(b)}\n" for a, b in RULES.items()), "utf-8")
    lines = [" ".join(CORPUS[i:i + 6]) for i in range(len(CORPUS))]
    (folder / "lines.txt").write_text("\n".join(lines + prompts()[200:]), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines.txt"), model_prefix=str(folder / "spiece"), vocab_size=200, pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, normalization_rule_tsv=str(folder / "rules.tsv"), hard_vocab_limit=False, minloglevel=2)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((folder / "spiece.model").read_bytes())
    vocab = [(piece.piece, piece.score) for piece in proto.pieces] + [("<extra_id_1>", 0.0), ("<extra_id_0>", 0.0)]
    made = transformers.T5Tokenizer(vocab, extra_ids=2, model_max_length=512,
                                    _spm_precompiled_charsmap=proto.normalizer_spec.precompiled_charsmap)
    made.save_pretrained(folder / "tokenizer_3")
    return made


def styled(whole):
    """tokenizer.json in the other styles. whole: as transformers wrote it. Returns the changes."""
    return [{"normalizer": {"type": "Sequence", "normalizers": [step or whole["normalizer"]
                                                                for step in style["normalizer"]]},
             "pre_tokenizer": style["pre_tokenizer"]} for style in STYLES]


def ids_of(texts, made, folder):
    """{name: (B, 256)} of each style, and the styles."""
    path = folder / "tokenizer_3" / "tokenizer.json"
    whole, found = json.loads(path.read_text("utf-8")), {}
    given = dict(padding="max_length", max_length=256, truncation=True)
    found["ids"] = np.array(made(texts, **given).input_ids, np.int16)
    for i, style in enumerate(styled(whole)):
        other = tokenizers.Tokenizer.from_str(json.dumps(whole | style))
        other.enable_truncation(256)
        other.enable_padding(length=256)
        found[f"ids{i}"] = np.array([row.ids for row in other.encode_batch(texts)], np.int16)
    return found, styled(whole)


def pipeline(folder, made):
    """{name: array} of "sd3" with T5, and T5's seed and shapes."""
    parts = make_stable_diffusion_3.models(make_stable_diffusion_3.CASES["sd3"], folder)
    make_stable_diffusion_3.weights({key: part for key, part in parts.items() if isinstance(part, torch.nn.Module)},
                                    folder, 10_000, False)
    config = transformers.T5Config(vocab_size=len(made), d_model=24, **SIZES)
    model = transformers.T5EncoderModel(config).double().eval()
    model.save_pretrained(folder / "text_encoder_3")
    shapes, seed = {path: list(p.shape) for path, p in model.named_parameters()}, 50_000
    with torch.no_grad():
        for (_, p), a in zip(model.named_parameters(), redrawn(shapes, seed).values()):
            p.copy_(torch.tensor(a))
    pipe = diffusers.StableDiffusion3Pipeline(**parts, text_encoder_3=model, tokenizer_3=made)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        context, *_ = pipe.encode_prompt([PROMPT, NEGATIVE], None, None, do_classifier_free_guidance=False)
        latents = torch.tensor(np.random.default_rng(3).standard_normal((1, 6, SIZE[0] // 2, SIZE[1] // 2)))
        out = pipe(PROMPT, negative_prompt=NEGATIVE, num_inference_steps=3, guidance_scale=4.0, latents=latents,
                   height=SIZE[0], width=SIZE[1], output_type="latent").images
        image = pipe.vae.decode(out / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor).sample
    assert context.dtype == image.dtype == torch.float64
    found = {"states": context[:, 77::10], "mean": context.mean(axis=1), "latents": latents,
             "image": (image / 2 + 0.5).clamp(0, 1)}
    return {name: a.numpy() for name, a in found.items()}, {"seed": seed, "shapes": shapes}


def main():
    make_nets.NETWORKS |= NETWORKS
    make_stable_diffusion_3.exactly()
    modeling_t5.T5LayerNorm.forward = rms_norm
    arrays, cases = {}, {}
    for seed, name in enumerate(NETWORKS):
        found, cases[name] = make_nets.network(name, 100 * seed)
        arrays |= found
    offset = torch.arange(-300, 301)
    for buckets, distance in itertools.product((8, 32), (20, 128)):
        found = modeling_t5.T5Attention._relative_position_bucket(offset, True, buckets, distance)
        arrays[f"buckets/{buckets} {distance}"] = found.numpy().astype(np.int8)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = tokenizer(folder)
        ids, styles = ids_of(prompts()[:100] + ODD, made, folder)
        found, line = pipeline(folder, made)
        files = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for name in (
            "text_encoder_3", "tokenizer_3") for path in sorted((folder / name).glob("*.json"))}
    arrays |= {f"tokenizer/{key}": a for key, a in ids.items()} | {f"sd3/{key}": a for key, a in found.items()}
    make_nets.keep("t5", arrays, "diffusers, transformers and tokenizers, float64, autograd", cases=cases, odd=ODD,
                   styles=styles, pipeline=line | {"files": files})


if __name__ == "__main__":
    main()
