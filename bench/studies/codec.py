"""A codec of speech: rate against distortion for 1 to 8 stages of codes.

    python -m bench.studies.codec                 trained on variations of captcha's ten recordings
    python -m bench.studies.codec --data DIR      on WAV files named {digit}_{speaker}_{n}.wav

Each step trains with another number of stages, [SoundStream] section III-C. Codebooks are moving averages, the zero
vector in each; codes that are hardly used are replaced. The judge is that of `bench.studies.speak`.

Papers
    [SoundStream]  Zeghidour et al., "SoundStream: An End-to-End Neural Audio Codec", 2021
"""
from ref import command

if __name__ == "__main__":
    command.begin("bench.studies.codec")  # before the imports that take a second
import hashlib
import io
import json
import math
import sys
import time

import numpy as np

from bench import files
from bench.studies import classifier, fit, pictures, speak, spoken
from ref import audio, philox, tree
from ref.nets import codec

SETTINGS = dict(data="captcha", steps=2000, batch=12, length=1600, channels=32, latent=16, entries=64, stages=8,
                lr=2e-3, seed=0)
COLUMNS = {
    "stages": "0 is the recording itself",
    "kbit": "a second",
    "snr": "signal to noise, dB, over all held-out recordings",
    "mel": "mean distance of log-mel spectra",
    "heard": "share of the sounds that the judge takes for what was said",
    "used": "share of the last stage's codes that are used",
    "shrunk": "share of the vectors that the last stage brought nearer, or left as near",
    "cpu_seconds": "of the process, training",
}
NET = "codec.npz"  # trained by this study, read by codec_lm
STRIDES, COMMITMENT, WAVE, DECAY, DEAD = (2, 4, 5), 0.25, 1.0, 0.98, 0.05
MEL = dict(window=audio.hann(256), hop=64, filters=audio.mel_filters(spoken.RATE, 256, 20, 60.0), floor=1e-2)


def rows(this):
    """The figures of each number of stages, and what is drawn. this.data: "captcha" or a folder."""
    this.total = this.steps
    some, ears, held = speak.split(None if this.data == "captcha" else this.data, this.seed)
    judge = classifier.train(spoken.pictures(ears.sound), ears.digit, seed=this.seed)
    began = time.process_time()
    params, codebooks = coder(this, some.sound)
    seconds = time.process_time() - began
    z = codec.codec_encode(params["encoder"], held.sound.astype(np.float32))[0]
    codes, quantised = audio.residual_quantise(as_rows(z), codebooks)
    left = np.linalg.norm(as_rows(z) - np.cumsum(np.concatenate([0 * quantised[:1], quantised]), axis=0), axis=2)
    heard = classifier.accuracy(judge, spoken.pictures(held.sound), held.digit)
    table, sounds = [{"stages": 0, "heard": heard, "cpu_seconds": seconds}], [held.sound]
    for k in range(1, this.stages + 1):
        q = from_rows(quantised[:k].sum(axis=0), z.shape)
        y = codec.codec_decode(params["decoder"], q.astype(np.float32))[0].astype(np.float64)
        sounds.append(y)
        table.append({
            "stages": k, "kbit": k * math.log2(this.entries) * spoken.RATE / math.prod(STRIDES) / 1000,
            "snr": 10 * np.log10(np.sum(held.sound**2) / np.sum((y - held.sound) ** 2)),
            "mel": np.abs(log_mel(y) - log_mel(held.sound)).mean(),
            "heard": classifier.accuracy(judge, spoken.pictures(y), held.digit),
            "used": len(np.unique(codes[k - 1])) / this.entries, "shrunk": np.mean(left[k] <= left[k - 1] + 1e-9)})
    said = [np.concatenate([speak.said(sounds[k][np.flatnonzero(held.digit == d)[0]]) for d in range(10)])
            for k in (0, 1, this.stages)]
    files.write_atomic(this.out / "codec.wav", spoken.written(np.concatenate(said)))
    return table, sounds, codes, z.shape


def coder(this, sound):
    """The parameters and the codebooks of `trained`, kept in NET, which another study of the same sounds and settings
    reads. this: with out."""
    path, own = this.out / NET, {k: vars(this)[k] for k in SETTINGS if k != "data"}
    about = json.dumps(own | {"sounds": hashlib.sha256(sound.tobytes()).hexdigest()})
    if path.exists():
        with files.arrays(path, "a codec") as found:
            same, books = str(found.pop("about")) == about, found.pop("codebooks")
        if same:
            return tree.from_named(found), books
    params, books = trained(this, sound)
    content = io.BytesIO()
    np.savez(content, about=about, codebooks=books, **tree.named(params))
    files.write_atomic(path, content.getvalue())
    return params, books


def trained(this, sound):
    """The parameters and the codebooks (stages, entries, latent)."""
    params = codec.codec_init(this.seed, this.channels, this.latent, STRIDES)
    state, books = fit.begin(params), None
    for step in range(1, this.steps + 1):
        x = batch(this, sound, step)
        if books is None:
            z = codec.codec_encode(params["encoder"], x)[0]
            books = first_books(this, as_rows(z))
        k = 1 + int(philox.below(this.seed, (1,), this.stages, philox.stream("time", step))[0])
        grads, vectors, codes = gradients(state["params"], x, books[0][:k])
        fit.descend(fit.backend("numba_cpu"), state, grads, step, fit.annealed(this.lr, step, this.steps), 0.99)
        update(this, books, vectors, codes, step)
        this.tick()
    return state["average"], books[0]


def batch(this, sound, step):
    """Pieces of `length` samples from some of the sounds, (batch, length) float32."""
    draw = philox.uniform(this.seed, (this.batch, 1), philox.stream("augment", step))
    first = (draw * (sound.shape[1] - this.length)).astype(int)
    pick = fit.picked(len(sound), this.seed, this.batch, step)
    return sound[pick[:, None], first + np.arange(this.length)].astype(np.float32)


def gradients(params, x, codebooks):
    """Of WAVE times the mean squared error, the mean distance of log-mel spectra, and the commitment loss. Returns a
    tree, the vectors (B N, latent) and their codes (K, B N)."""
    nets = fit.backend("numba_cpu").net(codec)
    z, up = nets.codec_encode(params["encoder"], x)
    vectors = as_rows(z)
    codes, quantised = audio.residual_quantise(vectors, codebooks)
    q = audio.straight_through(vectors, quantised.sum(axis=0), vectors)
    y, down = nets.codec_decode(params["decoder"], from_rows(q, z.shape).astype(x.dtype))
    dy = (2 * WAVE * (y - x) / x.size + mel_gradient(y, x)).astype(x.dtype)
    dq, decoder = nets.codec_decode_backward(dy, params["decoder"], down)
    dvectors = audio.straight_through_backward(as_rows(dq))
    dvectors = dvectors + audio.commitment_loss_backward(COMMITMENT, vectors, quantised)
    _, encoder = nets.codec_encode_backward(from_rows(dvectors, z.shape).astype(x.dtype), params["encoder"], up)
    return {"encoder": encoder, "decoder": decoder}, vectors, codes


def log_mel(x):
    """(B, bands, frames). x: (B, L)."""
    return audio.log_mel(audio.magnitude(audio.stft(x, MEL["window"], MEL["hop"])), MEL["filters"], MEL["floor"])


def mel_gradient(y, x):
    """Of the mean distance of the log-mel spectra, in y."""
    S = audio.stft(y, MEL["window"], MEL["hop"])
    size = audio.magnitude(S)
    off = audio.log_mel(size, MEL["filters"], MEL["floor"]) - log_mel(x)
    dsize = audio.log_mel_backward(np.sign(off) / off.size, size, MEL["filters"], MEL["floor"])
    return audio.stft_backward(audio.magnitude_backward(dsize, S), y, MEL["window"], MEL["hop"])


def first_books(this, vectors):
    """Codebooks from a few steps of k-means on what each stage gets, entry 0 the zero vector; with the moving counts
    and sums of each, [books (K, V, D), counts (K, V), sums (K, V, D)]."""
    books, r = [], vectors
    for k in range(this.stages):
        draw = philox.below(this.seed, (this.entries,), len(r), philox.stream("init", 1000 + k))
        book = r[draw] * (np.arange(this.entries) > 0)[:, None]
        for _ in range(5):
            book = audio.kmeans_step(r, book, 1)
        books.append(book)
        r = r - book[audio.nearest_code(r, book)]
    books = np.array(books)
    return [books, np.ones(books.shape[:2]), books.copy()]


def update(this, books, vectors, codes, step):
    """The moving averages of the stages in use, and other vectors for dead codes, in place."""
    r = vectors
    for k, code in enumerate(codes):
        picked = books[0][k][code]
        books[1][k], books[2][k] = audio.moving_average_codebook(books[1][k], books[2][k], r, code, DECAY)
        means = books[2][k] / np.maximum(books[1][k], 1e-9)[:, None]
        draw = philox.below(this.seed, (this.entries,), len(r), philox.stream("latent", step * this.stages + k))
        dead = (books[1][k] < DEAD) & (np.arange(this.entries) > 0)
        fresh = audio.replace_dead(means, books[1][k], r, draw, DEAD, 1)
        fresh[0] = 0
        books[1][k] = np.where(dead, 1.0, books[1][k])
        books[2][k] = fresh * books[1][k][:, None]
        books[0][k] = fresh
        r = r - picked


def as_rows(z):
    """(B, D, N) as (B N, D) float64."""
    return z.swapaxes(1, 2).reshape(-1, z.shape[1]).astype(np.float64)


def from_rows(rows, shape):
    """The inverse of `as_rows`. shape: (B, D, N)."""
    return rows.reshape(shape[0], shape[2], shape[1]).swapaxes(1, 2)


def draw(table, sounds, codes, shape):
    """Distortion and what is heard against rate, the codes of one sound, and its spectrum after 1 to all stages."""
    figure, top, bottom = pictures.parts((8.6, 4.6), 1, 1)
    left, middle, right = top.subplots(1, 3)
    kept = table[1:]
    left.plot([row["kbit"] for row in kept], [row["snr"] for row in kept], "o-", color="#0072B2")
    left.set(xlabel="kbit a second", ylabel="signal to noise, dB")
    middle.plot([row["kbit"] for row in kept], [row["heard"] for row in kept], "o-", color="#0072B2")
    middle.axhline(table[0]["heard"], color="black", ls="--", label="the recordings themselves")
    middle.set(xlabel="kbit a second", ylabel="heard (share)", ylim=(0, 1))
    middle.legend(loc="lower right")
    right.imshow(codes.reshape(len(codes), shape[0], -1)[:, 0], aspect="auto", cmap="viridis", interpolation="nearest")
    right.set(title="codes of one recording", xlabel="frame", ylabel="stage")
    shown = [0, 1, 2, 4, len(sounds) - 1]
    for axis, k in zip(bottom.subplots(1, len(shown)), shown):
        axis.imshow(spoken.pictures(sounds[k][:1]).reshape(28, 28), cmap="gray", vmin=-1, vmax=1)
        axis.set(title=f"{k} stages" if k else "recording", xticks=[], yticks=[])
    return figure


if __name__ == "__main__":
    command.end(spoken.main("codec", __doc__, sys.argv[1:]))
