"""Diffusion of spectrograms says digits: does a judge of other voices hear them?

    python -m bench.studies.speak                 trained on variations of captcha's ten recordings
    python -m bench.studies.speak --data DIR      on WAV files named {digit}_{speaker}_{n}.wav, split by speaker

The digit network as it is, on log-mel pictures; `bench.studies.spoken` makes sound of them. The judge is trained on
other speakers than the generator (with one voice, on other variations), and is also asked about real recordings that
neither has seen: every fifth of the generator's speakers. Next to it the same in the latents of a VAE, which is the way
of [AudioLDM], whose network is a U-Net that reads a text. With DIR a generator is trained on captcha's recordings, too,
and judged by the same judge: what the small set costs.

Papers
    [AudioLDM]  Liu et al., "AudioLDM: Text-to-Audio Generation with Latent Diffusion Models", 2023
"""
from ref import command

if __name__ == "__main__":
    command.begin("bench.studies.speak")  # before the imports that take a second
import sys
import time

import numpy as np

from bench import files
from bench.studies import classifier, denoiser, fit, metrics, pictures, spoken
from ref import philox, vae
from ref.nets import vae as nets

SETTINGS = dict(data="captcha", steps=2400, vae_steps=2000, batch=128, guidance=2.0, count=300, seed=0)
COLUMNS = {
    "of": "",
    "heard": "share of the pictures that the judge takes for the requested digit",
    "sound_heard": "the same after sound was made of each picture, and a picture of that sound",
    "of_real": "sound_heard, as a share of that of the held-out recordings",
    "nearest": "mean distance to the nearest picture that was trained on (root mean square of pixels, of 2)",
    **{name: metrics.COLUMNS[name].replace("real digits", "recordings of the generator's speakers") for name in (
        "frechet", "precision", "recall")},
    "cpu_seconds": "of the process, training and sampling",
}
REAL, SMALL, LEFT_OUT, LATENT = "held-out recordings", "captcha", 5, 32


def rows(this):
    """Held-out recordings and each generator's sounds, and what is drawn. this.data: "captcha" or a folder."""
    some, judged_by, held = split(None if this.data == SMALL else this.data, this.seed)
    makers = {"diffusion": (some, generated), "latent diffusion": (some, generated_by_latents)}
    if this.data != SMALL:
        makers["diffusion, trained on captcha"] = spoken.load(seed=this.seed), generated
    this.total = this.steps * len(makers) + this.vae_steps
    judge = classifier.train(spoken.pictures(judged_by.sound), judged_by.digit, seed=this.seed)
    reference = reference_of(judge, some, len(held.digit))
    labels, table, sound = np.repeat(np.arange(10), this.count // 10), [], {}
    shown = {REAL: (spoken.pictures(held.sound), held.digit)}
    for name, (trained_on, make) in {REAL: (some, None), **makers}.items():
        taken, seconds = spoken.pictures(trained_on.sound), ""
        if make:
            began = time.process_time()
            shown[name] = make(this, taken, trained_on.digit, labels), labels
            seconds = time.process_time() - began
        images, digits = shown[name]
        sound[name] = spoken.sounds(images, this.seed)
        found = figures(judge, reference, images, sound[name], digits, taken)
        table.append({"of": name, "cpu_seconds": seconds} | found)
    for row in table:
        row["of_real"] = row["sound_heard"] / table[0]["sound_heard"]
    ten = [said(sound["diffusion"][np.flatnonzero(labels == k)[0]]) for k in range(10)]
    files.write_atomic(this.out / "speak.wav", spoken.written(np.concatenate(ten)))
    return table, shown, sound


def split(folder, seed):
    """What the generator is trained on, what the judge is, and what neither has seen. With one voice these are three
    sets of variations. folder: of WAV files, or None."""
    if folder is None:
        return (spoken.load(seed=seed + i, count=n) for i, n in enumerate((1500, 1500, 300)))
    every = spoken.load(folder)
    speakers = np.unique(every.speaker)
    if len(speakers) < 2:
        raise ValueError(f"{str(folder)}: expected at least two speakers, got {', '.join(speakers)}")
    ears = np.isin(every.speaker, speakers[: len(speakers) // 2])
    held = ~ears & (every.take % LEFT_OUT == 0)
    return spoken.part(every, ~ears & ~held), spoken.part(every, ears), spoken.part(every, held)


def generated(this, images, digits, labels, **other):
    """Pictures of these labels by a network trained on others. other: settings of the denoiser."""
    settings = denoiser.settings_of(steps=this.steps, batch=this.batch, guidance=this.guidance, seed=this.seed, **other)
    state = denoiser.start(settings)
    denoiser.train(state, settings, (images, digits), this.tick)
    return denoiser.sample(state, settings, labels)[0].clip(*((-1, 1) if "pixels" not in other else (None, None)))


def generated_by_latents(this, images, digits, labels):
    """The same in the latents of a VAE of the pictures, as in [AudioLDM] section 2.2, and decoded."""
    params = fit.adam(vae_init(this.seed), lambda params, step: vae_gradients(params, *drawn(this, images, step)),
                      this.vae_steps, this.tick)
    mu = nets.encoder(params["encoder"], images)[0]
    middle, scale = mu.mean(axis=0), 2 * mu.std(axis=0)  # of deviation 1 / 2, as pictures are
    z = generated(this, (mu - middle) / scale, digits, labels, pixels=LATENT, clip=None)
    return nets.decoder(params["decoder"], (z * scale + middle).astype(np.float32))[0].clip(-1, 1)


def vae_init(seed):
    """The two networks of `ref.nets.vae`, with LATENT latents."""
    return {"encoder": nets.encoder_init(seed, latent=LATENT), "decoder": nets.decoder_init(seed, latent=LATENT)}


def drawn(this, images, step):
    """A batch of pictures, and the noise of its latents."""
    pick = fit.picked(len(images), this.seed, this.batch, step)
    return images[pick], philox.normal(this.seed, (this.batch, LATENT), philox.stream("noise", step))


def vae_gradients(params, x, eps, variance=0.02):
    """Gradients of the negative ELBO, a tree, with a Gaussian of this variance about the decoded picture. x: (B, 784).
    eps: (B, LATENT)."""
    mu, logvar, up = nets.encoder(params["encoder"], x)
    y, down = nets.decoder(params["decoder"], vae.reparameterize(mu, logvar, eps).astype(x.dtype))
    dz, decoder = nets.decoder_backward((y - x) / (variance * len(x)), params["decoder"], down)
    through_z = vae.reparameterize_backward(dz, logvar, eps)[:2]
    of_kl = vae.gaussian_kl_backward(np.full(len(x), 1 / len(x)), mu, logvar)
    _, encoder = nets.encoder_backward(*((a + b).astype(x.dtype) for a, b in zip(through_z, of_kl)), params["encoder"],
                                       up)
    return {"encoder": encoder, "decoder": decoder}


def reference_of(judge, some, count):
    """The judge's features of as many recordings that were trained on, evenly over the digits."""
    order = np.argsort(some.digit, kind="stable")
    pick = order[np.arange(count) * len(order) // count]
    return metrics.features(judge, spoken.pictures(some.sound[pick]))


def figures(judge, reference, images, sound, labels, trained_on):
    """The figures of pictures and their sounds, as COLUMNS says."""
    again = spoken.pictures(sound / np.sqrt(np.mean(sound**2, axis=1, keepdims=True)))
    near = [np.sqrt(((trained_on - image) ** 2).mean(axis=1).min()) for image in images]
    there, here = reference, metrics.features(judge, images)
    return {"heard": classifier.accuracy(judge, images, labels), "nearest": np.mean(near),
            "sound_heard": classifier.accuracy(judge, again, labels), "frechet": metrics.frechet(there, here),
            **dict(zip(("precision", "recall"), metrics.precision_recall(there, here)))}


def said(sound):
    """A digit with silence after it, (L,), its ends faded."""
    ramp = np.minimum(1, np.minimum(np.arange(len(sound)), np.arange(len(sound))[::-1]) / 80)
    return np.concatenate([sound * ramp, np.zeros(spoken.RATE // 5)])


def draw(table, shown, sound):
    """Pictures of each digit, and a sound as it is heard, of every set."""
    figure, *parts = pictures.parts((8.6, 1.75 * len(shown)), *(1,) * len(shown))
    for place, (name, (images, labels)) in zip(parts, shown.items()):
        left, right = place.subplots(1, 2, width_ratios=[3.2, 1])
        two = pictures.of_each_class(images, labels, 2)
        pictures.gallery(left, two, 10, f"{name}: 0 to 9, two of each, low tones at the bottom")
        one = np.flatnonzero(labels == 7)[0]
        right.plot(np.arange(spoken.LENGTH) / spoken.RATE, sound[name][one], lw=0.3, color="#0072B2")
        right.set(xlabel="seconds", title="sound of a seven", yticks=[])
    return figure


if __name__ == "__main__":
    command.end(spoken.main("speak", __doc__, sys.argv[1:]))
