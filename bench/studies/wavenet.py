"""WaveNet on one voice: bits a sample, next to a linear predictor; generation.

    python -m bench.studies.wavenet                 captcha's voice, 36 recordings of digits and letters
    python -m bench.studies.wavenet --data DIR      the speaker with most sound out of {digit}_{speaker}_{n}.wav

Every fifth recording is held out. Sound is mu-law coded, 8 bits, torchaudio's convention. Bits are those of the same
codes for every model: where a model is a density, a code has the probability of its cell. The linear predictor has the
coefficients of least squares on the training sound, and a Laplace error whose scale follows the last errors.

Papers
    [WaveNet]  van den Oord et al., "WaveNet: A Generative Model for Raw Audio", 2016
    [LPC]      Atal, Schroeder, "Adaptive Predictive Coding of Speech Signals", 1970
"""
from ref import command

if __name__ == "__main__":
    command.begin("bench.studies.wavenet")  # before the imports that take a second
import sys
import time

import numpy as np

from bench import files
from bench.studies import fit, pictures, spoken
from kernels.numba_cpu import audio as kernels
from ref import audio, philox
from ref.layers import cross_entropy, cross_entropy_backward
from ref.nets import wavenet
from ref.numerics import normal_cdf

SETTINGS = dict(data="captcha", steps=1800, batch=4, length=2048, layers=10, cycle=10, channels=32, skip=64, lr=2e-3,
                seed=0)
COLUMNS = {
    "of": "",
    "bits": "bits a sample, held-out recordings",
    "bits_training": "the same, of recordings that it was fitted to",
    "real_time": "seconds of one core for a second of generated sound",
    "cpu_seconds": "of the process, fitting",
}
ORDER, DECAY, FLOOR, LEFT_OUT = 16, 0.97, 1e-4, 5  # of the predictor; the share of every code in each mixture
LARGE = dict(layers=30, channels=32)  # of the speed that is reported for every net, [WaveNet]'s sizes
PIECE = 8000


def rows(this):
    """The bits of each model, the seconds of generation; and what is drawn. this.data: "captcha" or a folder."""
    this.total = this.steps
    takes = recordings(None if this.data == "captcha" else this.data)
    held = np.arange(len(takes)) % LEFT_OUT == LEFT_OUT - 1
    trained_on, kept = (np.concatenate([x for x, h in zip(takes, held) if h == which]) for which in (False, True))
    table, models = [], {"quantised Gaussian": gaussian, "linear predictor": linear_predictor, "WaveNet": trained}
    for name, fitted in models.items():
        began = time.process_time()
        bits = fitted(this, trained_on)
        seconds = time.process_time() - began
        table.append({"of": name, "bits": bits(kept), "bits_training": bits(trained_on[: len(kept)]),
                      "real_time": "", "cpu_seconds": seconds})
    table[-1]["real_time"], codes = generated(this.params, this.cycle, this.seed)
    untrained = wavenet.wavenet_init(this.seed, skip=this.skip, **LARGE)
    of = f"{LARGE['layers']} layers of {LARGE['channels']} channels, untrained"
    table.append({"of": of, "bits": "", "bits_training": "", "real_time": generated(untrained, 10, this.seed)[0],
                  "cpu_seconds": ""})
    made = audio.mulaw_decode(codes)
    files.write_atomic(this.out / "wavenet.wav", spoken.written(made))
    return table, this.losses, kept[: spoken.RATE], made


def recordings(folder):
    """The codes of each recording of one voice, a list of (L,) ints, each with its largest sample at 0.9. folder: of
    WAV files, or None."""
    if folder is None:
        sounds = spoken.embedded("0123456789" + spoken.LETTERS)
    else:
        of = {}
        for path, (_, speaker, take) in spoken.named(folder):
            of.setdefault(speaker, []).append((int(take), spoken.read(path)))
        most = max(sorted(of), key=lambda speaker: sum(len(x) for _, x in of[speaker]))
        sounds = [x for _, x in sorted(of[most], key=lambda take: take[0])]
    return [audio.mulaw_encode(0.9 * x / np.abs(x).max()) for x in sounds]


def cells():
    """Where the codes' cells begin and end, (257,): halfway between companded levels, open at the ends."""
    inner = audio.mulaw_expand((2 * np.arange(1, 256) - 1) / 255 - 1)
    return np.concatenate([[-np.inf], inner, [np.inf]])


def bits_of(p):
    """The mean of -log2 of probabilities, each mixed with a small share of every code."""
    return float(-np.log2((1 - FLOOR) * p + FLOOR / 256).mean())


def gaussian(this, codes):
    """One Gaussian for every sample. Returns the bits of other codes, a function."""
    std, edges = audio.mulaw_decode(codes).std(), cells()
    p = np.diff(normal_cdf(edges / std))
    return lambda other: bits_of(p[other])


def linear_predictor(this, codes):
    """[LPC]: each sample from the ORDER before it, with a Laplace error. Returns the bits of other codes, a
    function."""
    before, x = windows(audio.mulaw_decode(codes))
    weights, edges = np.linalg.lstsq(before, x, rcond=None)[0], cells()

    def bits(other):
        before, x = windows(audio.mulaw_decode(other))
        predicted = before @ weights
        scale = running(np.abs(x - predicted))
        low, high = ((edges[other[ORDER:] + i] - predicted) / scale for i in (0, 1))
        return bits_of(laplace_cdf(high) - laplace_cdf(low))

    return bits


def windows(x):
    """The ORDER samples before each, (L - ORDER, ORDER), and each, (L - ORDER,)."""
    return np.lib.stride_tricks.sliding_window_view(x, ORDER)[:-1], x[ORDER:]


def running(errors):
    """For each error the mean of those before it, weighted by DECAY; never 0."""
    scale, last = np.empty(len(errors)), np.mean(errors)
    for i, error in enumerate(errors.tolist()):
        scale[i] = last
        last = DECAY * last + (1 - DECAY) * error
    return scale + 1e-4


def laplace_cdf(x):
    """The cumulative distribution of the Laplace density of scale 1."""
    return np.where(x < 0, np.exp(np.minimum(x, 0)) / 2, 1 - np.exp(-np.maximum(x, 0)) / 2)


def trained(this, codes):
    """A WaveNet, left in this.params, its losses in bits in this.losses. Returns the bits of other codes, a
    function."""
    params = wavenet.wavenet_init(this.seed, 256, this.channels, this.skip, this.layers)
    this.losses = []

    def gradients(params, step):
        first = philox.below(this.seed, (this.batch, 1), len(codes) - this.length, philox.stream("batch", step))
        some = codes[first + np.arange(this.length)]
        logits, cache = wavenet.wavenet(params, some, this.cycle)
        flat, labels = logits.swapaxes(1, 2).reshape(-1, 256), some.reshape(-1)
        this.losses.append(float(cross_entropy(flat, labels)) / np.log(2))
        dflat = cross_entropy_backward(1.0, flat, labels).reshape(*some.shape, 256)
        return wavenet.wavenet_backward(np.ascontiguousarray(dflat.swapaxes(1, 2)), params, cache)

    this.params = fit.adam(params, gradients, this.steps, this.tick, lr=this.lr, ema=0.99)
    field = 1 + this.layers // this.cycle * (2**this.cycle - 1)

    def bits(other):
        each, lengths = zip(*pieces(this.params, this.cycle, other, field))
        return float(np.average(each, weights=lengths))

    return bits


def pieces(params, cycle, codes, field):
    """The bits of each piece of codes, read with the `field` codes before it, and its length."""
    for first in range(0, len(codes), PIECE):
        start = max(0, first - field)
        some = codes[start : first + PIECE]
        logits, new = wavenet.wavenet(params, some[None], cycle)[0][0].T, slice(first - start, None)
        yield float(cross_entropy(logits[new], some[new])) / np.log(2), len(some) - first + start


def generated(params, cycle, seed):
    """The seconds of one core for a second of sound, the least of three runs, and its codes."""
    u = philox.uniform(seed, (1, spoken.RATE), philox.stream("sampling"))
    kernels.wavenet_generate(params, u[:, :9], cycle)  # compiled before
    taken = []
    for _ in range(3):
        began = time.process_time()
        codes = kernels.wavenet_generate(params, u, cycle)
        taken.append(time.process_time() - began)
    return min(taken), codes[0]


def draw(table, losses, real, made):
    """The bits while training next to the other models', and a second of held-out and of generated sound."""
    figure, top, bottom = pictures.parts((8.6, 5.6), 2, 3)
    axis = top.subplots()
    smooth = np.convolve(losses, np.ones(20) / 20, "valid") if len(losses) > 20 else np.array(losses)
    axis.plot(np.arange(len(smooth)) + len(losses) - len(smooth) + 1, smooth, color="#0072B2",
              label="WaveNet, training batches, mean of 20")
    for row, colour in zip(table[:3], ("0.6", "#E69F00", "#0072B2")):
        axis.axhline(row["bits"], color=colour, ls="--", label=f"{row['of']}, held-out")
    axis.set(xlabel="training step", ylabel="bits a sample", ylim=(4, 10), xlim=(0, len(losses)))
    axis.legend(loc="center right", ncols=2)
    sounds = ("held-out recordings", audio.mulaw_decode(real)), ("generated, uncurated", made)
    for column, (name, sound) in zip(bottom.subplots(2, 2).T, sounds):
        column[0].plot(np.arange(len(sound)) / spoken.RATE, sound, lw=0.3, color="#0072B2")
        column[0].set(title=f"a second of sound, {name}", ylabel="amplitude", ylim=(-1, 1), xlim=(0, 1))
        size = audio.magnitude(audio.stft(sound[None], audio.hann(256), 64))[0]
        column[1].imshow(20 * np.log10(size + 1e-2), origin="lower", aspect="auto", cmap="gray", vmin=-30, vmax=30,
                         extent=(0, 1, 0, spoken.RATE / 2000))
        column[1].set(xlabel="seconds", ylabel="kHz")
    return figure


if __name__ == "__main__":
    command.end(spoken.main("wavenet", __doc__, sys.argv[1:]))
