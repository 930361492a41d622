"""Digits said by a language model of a codec's codes; what the judge hears.

    python -m bench.studies.codec_lm                 captcha's ten recordings, varied
    python -m bench.studies.codec_lm --data DIR      WAV files named {digit}_{speaker}_{n}.wav

The text is the digit and the speaker. The first stage's codes are drawn one after another, the others are the likeliest
ones, each stage at once, as in [VALL-E] section 4; codec and judge are those of `bench.studies.codec`.

Papers
    [VALL-E]  Wang et al., "Neural Codec Language Models are Zero-Shot Text to Speech Synthesizers", 2023
"""
from ref import command

if __name__ == "__main__":
    command.begin("bench.studies.codec_lm")  # before the imports that take a second
import math
import sys
import time
from types import SimpleNamespace

import numpy as np

from bench import files
from bench.studies import classifier, codec, fit, pictures, speak, spoken
from ref import audio, philox
from ref.layers import cross_entropy, cross_entropy_backward
from ref.nets import codec as nets
from ref.nets import codec_lm

SETTINGS = dict(data="captcha", steps=2500, batch=12, width=64, layers=3, stages=4, count=100, lr=2e-3,
                seed=0)
COLUMNS = {
    "of": "",
    "heard": "share of the sounds that the judge takes for the requested digit",
    "first_bits": "bits a code of the first stage, held-out recordings",
    "rest_bits": "the same of the other stages, on average",
    "cpu_seconds": "of the process, training without the codec",
}
CONFIG, FRAMES = {"num_attention_heads": 4, "hidden_act": "gelu"}, spoken.LENGTH // math.prod(codec.STRIDES)


def rows(this):
    """What is heard of recordings, coded ones and the model's; and what is drawn. this.data: "captcha" or a folder."""
    this.total = codec.SETTINGS["steps"] + 2 * this.steps
    some, ears, held = speak.split(None if this.data == "captcha" else this.data, this.seed)
    judge = classifier.train(spoken.pictures(ears.sound), ears.digit, seed=this.seed)
    own = codec.SETTINGS | dict(seed=this.seed, out=this.out, tick=this.tick)
    coder = codec.coder(SimpleNamespace(**own), some.sound)
    codes = {name: coded(coder, part.sound, this.stages) for name, part in (("train", some), ("held", held))}
    names = np.unique(some.speaker)
    texts = {name: text_of(part.digit, part.speaker, names) for name, part in (("train", some), ("held", held))}
    began = time.process_time()
    params = trained(this, texts["train"], codes["train"], 10 + len(names), coder[1].shape[1])
    ended = time.process_time()
    digits = np.repeat(np.arange(10), this.count // 10)
    text = text_of(digits, names[np.arange(len(digits)) % len(names)], names)
    sounds = {"held-out recordings": held.sound, "the same, coded": decoded(coder, codes["held"]),
              "codec language model": decoded(coder, sample(this, params, text))}
    table = []
    for (name, sound), labels in zip(sounds.items(), (held.digit, held.digit, digits)):
        table.append({"of": name, "heard": classifier.accuracy(judge, spoken.pictures(sound), labels)})
    table[2] |= {"cpu_seconds": ended - began} | bits(params, texts["held"], codes["held"])
    ten = [speak.said(sounds["codec language model"][np.flatnonzero(digits == k)[0]]) for k in range(10)]
    files.write_atomic(this.out / "codec_lm.wav", spoken.written(np.concatenate(ten)))
    return table, {name: (spoken.pictures(sound), labels) for (name, sound), labels in zip(sounds.items(), (
        held.digit, held.digit, digits))}


def text_of(digit, speaker, names):
    """(B, 2) ints: the digit, and 10 + the place of the speaker among names."""
    return np.stack([digit, 10 + np.searchsorted(names, speaker)], axis=1)


def coded(coder, sound, stages):
    """The codes of sounds, (N, stages, FRAMES). coder: parameters and codebooks."""
    z = nets.codec_encode(coder[0]["encoder"], sound.astype(np.float32))[0]
    codes, _ = audio.residual_quantise(codec.as_rows(z), coder[1][:stages])  # (stages, N FRAMES)
    return codes.reshape(stages, len(sound), -1).swapaxes(0, 1)


def decoded(coder, codes):
    """The sound of codes, (N, LENGTH), scaled to root mean square 1."""
    rows = audio.residual_decode(codes.swapaxes(0, 1).reshape(codes.shape[1], -1), coder[1])
    z = codec.from_rows(rows, (len(codes), rows.shape[1], codes.shape[2]))
    y = nets.codec_decode(coder[0]["decoder"], z.astype(np.float32))[0].astype(np.float64)
    return y / np.sqrt(np.mean(y**2, axis=1, keepdims=True) + 1e-9)


def trained(this, text, codes, texts, classes):
    """The parameters of both networks, each trained alone; a step of the second is of one stage."""
    fresh = codec_lm.codec_lm_init(this.seed, texts, classes, this.stages, (text.shape[1], codes.shape[2]), this.width,
                                   this.layers)
    net = fit.backend("numba_cpu").net(codec_lm)

    def first(params, step):
        pick = fit.picked(len(text), this.seed, this.batch, step)
        logits, cache = net.first_codes(params, text[pick], codes[pick, 0], CONFIG)
        return net.first_codes_backward(slope(logits, codes[pick, 0]), params, cache, CONFIG)

    def rest(params, step):
        pick = fit.picked(len(text), this.seed + 1, this.batch, step)
        k = 1 + step % (this.stages - 1)
        logits, cache = net.rest_codes(params, text[pick], codes[pick, :k], CONFIG)
        return net.rest_codes_backward(slope(logits, codes[pick, k]), params, cache, CONFIG)

    return {name: fit.adam(fresh[name], gradients, this.steps, this.tick, lr=this.lr, ema=0.98)
            for name, gradients in (("first", first), ("rest", rest))}


def slope(logits, labels):
    """The gradient of the mean cross entropy, (B, N, classes)."""
    flat = logits.reshape(-1, logits.shape[2])
    return cross_entropy_backward(1.0, flat, labels.reshape(-1)).reshape(logits.shape)


def bits(params, text, codes):
    """The bits a code of the first stage, and of the others."""
    each = []
    for k in range(codes.shape[1]):
        logits = codec_lm.rest_codes(params["rest"], text, codes[:, :k], CONFIG)[0] if k else codec_lm.first_codes(
            params["first"], text, codes[:, 0], CONFIG)[0]
        each.append(cross_entropy(logits.reshape(-1, logits.shape[2]), codes[:, k].reshape(-1)) / np.log(2))
    return {"first_bits": each[0], "rest_bits": np.mean(each[1:])}


def sample(this, params, text):
    """Codes (B, stages, FRAMES): the first stage drawn, the others the likeliest."""
    codes = np.zeros((len(text), 1, FRAMES), int)
    net, u = fit.backend("numba_cpu").net(codec_lm), philox.uniform(this.seed, (FRAMES, len(text), 1), philox.stream(
        "sampling"))
    for t in range(FRAMES):
        logits = net.first_codes(params["first"], text, codes[:, 0, : t + 1], CONFIG)[0][:, t].astype(np.float64)
        total = np.cumsum(np.exp(logits - logits.max(axis=1, keepdims=True)), axis=1)
        codes[:, 0, t] = np.minimum((total <= u[t] * total[:, -1:]).sum(axis=1), logits.shape[1] - 1)
    for _ in range(this.stages - 1):
        logits, _ = net.rest_codes(params["rest"], text, codes, CONFIG)
        codes = np.concatenate([codes, logits.argmax(axis=2)[:, None]], axis=1)
    return codes


def draw(table, shown):
    """Pictures of the sounds of each digit."""
    figure, *parts = pictures.parts((6.5, 1.75 * len(shown)), *(1,) * len(shown))
    for place, (name, (images, labels)) in zip(parts, shown.items()):
        two = pictures.of_each_class(images, labels, 2)
        pictures.gallery(place.subplots(), two, 10, f"{name}: 0 to 9, two of each, low tones at the bottom")
    return figure


if __name__ == "__main__":
    command.end(spoken.main("codec_lm", __doc__, sys.argv[1:]))
