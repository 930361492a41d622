"""Spoken digits: WAV files named {digit}_{speaker}_{n}.wav, or the recordings that the package captcha carries.

A recording becomes 0.54 s of sound, without silence at its ends, of root mean square 1, and a picture of 28 x 28: the
log-mel spectrum, low tones at the bottom. captcha has one voice and one recording of each digit and letter; so its
sounds are varied in pitch, speed and noise, each by (seed, index).
"""
import argparse
import importlib.util
import io
import sys
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bench.studies import results
from ref import audio, command, philox

RATE, WINDOW, HOP, BANDS = 8000, audio.hann(512), 160, 28
LENGTH = 27 * HOP  # 28 frames
FILTERS = audio.mel_filters(RATE, 512, BANDS, 60.0)
FLOOR, TOP = 1e-2, 2.2  # of a band's magnitude, in sound of root mean square 1; of its logarithm
NAMED = "{digit}_{speaker}_{n}.wav"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Folder(type(Path())):
    """A folder that is shown by its name alone: where it lies is no part of a result."""

    def __format__(self, how):
        return format(self.name, how)


def load(folder=None, count=1500, seed=0):
    """Sounds (N, LENGTH), digit (N,) ints, speaker (N,) strs, take (N,) ints, in a namespace, by name of the file.
    folder: of WAV files; None for `count` variations of captcha's ten digits, whose speaker is the voice and whose take
    is the index. Raises ValueError for a folder without such files, or a file that is no such sound."""
    if folder is None:
        digits, index = embedded("0123456789"), np.arange(count)
        sound = [placed(varied(digits[i % 10], seed, i)) for i in index]
        return SimpleNamespace(sound=np.array(sound), digit=index % 10, speaker=np.full(count, "voice"), take=index)
    names, parts = zip(*named(folder))
    digit, speaker, take = zip(*parts)
    sound = np.array([placed(read(path), path) for path in names])
    return SimpleNamespace(sound=sound, digit=np.array(digit, int), speaker=np.array(speaker), take=np.array(take, int))


def named(folder):
    """[(path, (digit, speaker, n))], strs, of a folder's files, by name. Raises ValueError where there are none."""
    found = [(path, _parts(path)) for path in sorted(Path(folder).glob("*.wav")) if _parts(path)]
    if not found:
        raise ValueError(f"{str(folder)}: expected WAV files named {NAMED}, got none")
    return found


def part(some, keep):
    """Those of the sounds that are kept. some: from `load`. keep: (N,) bools."""
    return SimpleNamespace(**{name: a[keep] for name, a in vars(some).items()})


def embedded(names):
    """captcha's recordings of these digits and letters, a list of (L,) in [-1, 1]. names: str."""
    found = importlib.util.find_spec("captcha")
    if found is None:
        raise ModuleNotFoundError('captcha is needed for its recordings: pip install -e ".[study]", or give --data DIR')
    folder = Path(found.submodule_search_locations[0]) / "data"
    return [read(folder / name / "default.wav") for name in names]


def read(path):
    """The sound of a WAV file, (L,) in [-1, 1]. Raises ValueError, which names it, for another rate, more channels,
    other bits than 8 and 16, or what is no WAV file."""
    try:
        with wave.open(str(path), "rb") as file:
            rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as reason:
        raise ValueError(f"{path}: expected a WAV file, got another: {reason}") from None
    if (rate, channels) != (RATE, 1) or width not in (1, 2):
        got = f"{channels} channels, {rate} a second, {8 * width} bits"
        raise ValueError(f"{path}: expected one channel of {RATE} samples a second, 8 or 16 bits, got {got}")
    raw = raw[: len(raw) // width * width]
    return np.frombuffer(raw, "u1") / 128 - 1 if width == 1 else np.frombuffer(raw, "<i2") / 2**15


def written(sound):
    """The bytes of a WAV file, 16 bits. sound: (L,), scaled so that its largest sample is 0.9."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.rint(sound * (0.9 * 2**15 / max(np.abs(sound).max(), 1e-9))).astype("<i2").tobytes())
    return content.getvalue()


def placed(sound, path="sound"):
    """LENGTH samples of root mean square 1: silence cut off, the loudest part of what is too long, zeros around what is
    too short. sound: (L,). path: for the message. Raises ValueError for silence."""
    energy = np.convolve(sound**2, np.full(400, 1 / 400), "same")
    if not energy.size or energy.max() < 1e-10:
        raise ValueError(f"{path}: expected sound, got {len(sound)} samples of silence")
    on = np.flatnonzero(energy > 1e-3 * energy.max())
    sound = sound[on[0] : on[-1] + 1]
    if len(sound) > LENGTH:
        total = np.concatenate([[0], np.cumsum(sound**2)])
        first = np.argmax(total[LENGTH:] - total[:-LENGTH])
        sound = sound[first : first + LENGTH]
    before = (LENGTH - len(sound)) // 2
    sound = np.pad(sound, (before, LENGTH - len(sound) - before))
    return sound / np.sqrt(np.mean(sound**2))


def varied(sound, seed, index):
    """A sound at another pitch (up to 4 semitones), speed (up to a quarter) and with noise (up to -26 dB). sound: (L,).
    seed, index: ints; the variation depends on nothing else."""
    pitch, speed, noise = philox.uniform(seed, (3,), philox.stream("augment", 2 * index))
    pitch, speed = 2 ** ((8 * pitch - 4) / 12), 1.25 ** (2 * speed - 1)
    slow = stretched(sound, speed / pitch)
    higher = np.interp(np.arange(0, len(slow) - 1, pitch), np.arange(len(slow)), slow)
    rms = np.sqrt(np.mean(higher**2))
    hiss = philox.normal(seed, higher.shape, philox.stream("augment", 2 * index + 1))
    return higher + 0.05 * noise * rms * hiss


def stretched(sound, speed, n=256, hop=64):
    """The phase vocoder: the same tones, in 1 / speed of the time. Between frames phases go on as fast as in the
    sound. sound: (L,). speed: > 0. n, hop: of the frames."""
    window = audio.hann(n)
    S = audio.stft(sound[None], window, hop)[0]
    S = S[..., 0] + 1j * S[..., 1]  # (F, N)
    place = np.arange(0, S.shape[1] - 1, speed)
    k = place.astype(int)
    size = np.abs(S)
    size = (1 - (place - k)) * size[:, k] + (place - k) * size[:, k + 1]
    turn = np.angle(S[:, k + 1] * np.conj(S[:, k]))
    phase = np.angle(S[:, :1]) + np.cumsum(np.concatenate([0 * turn[:, :1], turn[:, :-1]], axis=1), axis=1)
    parts = np.stack([size * np.cos(phase), size * np.sin(phase)], axis=-1)
    return audio.istft(parts[None], window, hop, hop * (len(place) - 1) + 1)[0]


def pictures(sound):
    """(N, 784) float32 in [-1, 1]: -1 is the floor. sound: (N, LENGTH)."""
    found = []
    for some in np.array_split(sound, -(-len(sound) // 200)):
        m = audio.log_mel(audio.magnitude(audio.stft(some, WINDOW, HOP)), FILTERS, FLOOR)  # (B, bands, frames)
        found.append((2 * (m[:, ::-1] - np.log(FLOOR)) / (TOP - np.log(FLOOR)) - 1).clip(-1, 1))
    return np.concatenate(found).reshape(len(sound), -1).astype(np.float32)


def sounds(images, seed=0, steps=60):
    """The sound of pictures, (N, LENGTH): their magnitudes by `mel_inverse`, phases by `griffin_lim` with momentum.
    images: (N, 784). seed: of the first phases. steps: int."""
    m = (images.reshape(-1, BANDS, 28)[:, ::-1].astype(np.float64) + 1) / 2 * (TOP - np.log(FLOOR)) + np.log(FLOOR)
    found = []
    for i, some in enumerate(np.array_split(m, -(-len(m) // 50))):
        loud = some > np.log(FLOOR) + 0.01
        y = audio.mel_inverse(np.where(loud, some, -30.0), FILTERS, 60)
        phase = 2 * np.pi * philox.uniform(seed, y.shape, philox.stream("sampling", 2**40 + i))
        found.append(audio.griffin_lim(y, phase, WINDOW, HOP, LENGTH, steps, 0.99))
    return np.concatenate(found)


def main(name, doc, words):
    """The command of a study of sound. name: of the study, whose files are NAME.png, .csv, .txt and .wav. doc: its
    docstring. words: of the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.studies.{name}", description=doc.split("\n\n")[0])
    said = f"WAV files named {NAMED}, 8 kHz (default: captcha's recordings)"
    parser.add_argument("--data", type=command.named, metavar="DIR", help=said)
    where = dict(default=f"out/{name}", help="(default: %(default)s)")
    parser.add_argument("--out", type=command.named, metavar="DIR", **where)
    args = parser.parse_args(words)
    try:
        import tqdm
        from threadpoolctl import threadpool_limits

        threadpool_limits(1, "blas")
        results.writable(args.out, [f"{name}.wav"])
        with tqdm.tqdm(desc=name, disable=None) as bar:

            def progress(done, total):
                bar.total = total
                bar.update(done - bar.n)

            results.run(name, args.out, progress, **({"data": Folder(args.data)} if args.data else {}))
    except (ValueError, OSError, ModuleNotFoundError) as reason:
        print(f"{name}: {command.in_words(reason)}{results.hint(reason)}", file=sys.stderr)
        return command.IMPOSSIBLE
    written = [Path(args.out) / f"{name}.{ending}" for ending in (*results.ENDINGS, "wav")]
    print(written[2].read_text("utf-8") + f"wrote {', '.join(map(str, written))}")
    return 0


def _parts(path):
    """digit, speaker and n of a file's name, or None."""
    parts = path.stem.split("_")
    fits = len(parts) == 3 and parts[0].isdecimal() and len(parts[0]) == 1 and parts[2].isdecimal()
    return parts if fits else None
