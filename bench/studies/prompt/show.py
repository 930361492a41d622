"""Pictures of the model: prompts with their answers, the way from noise to picture, where each word is read."""
import io
import subprocess
import textwrap
from pathlib import Path

import numpy as np

from bench import machine as here
from bench.studies import fit, results
from bench.studies.pictures import pyplot
from bench.studies.prompt import model, scenes

EIGHT = [
    "a red seven above a small blue three", "a large green two on the left", "a cyan five left of a small red zero",
    "a small white four at the bottom", "a yellow nine below a magenta nine", "a large orange eight",
    "a small green one right of a large cyan six", "a blue zero in the middle",
]  # fmt: skip
STAGES = 10  # pictures of a strip


class Strip:
    """The predictions of a sampler, step by step: a `watch` of `model.sample`."""

    def __init__(self):
        self.steps = []

    def __call__(self, t, x0_hat, cache):
        self.steps.append((t, x0_hat))


class Attention:
    """Where each word is read: the weights of the image's tokens on the words', a mean over blocks, heads and steps,
    maps (B, rows, columns, LENGTH). A `watch` of `model.sample`."""

    def __init__(self, sizes):
        self.side, self.calls, self.maps = model.shape_of(sizes)[1] // sizes["patch"], 0, 0.0

    def __call__(self, t, x0_hat, cache):
        for block in cache["net"]["blocks"]:
            q, k, _ = block["qkv"]  # (B, heads, L, d)
            scores = q[: len(x0_hat), :, scenes.LENGTH :] @ k[: len(x0_hat)].swapaxes(2, 3) * q.shape[3] ** -0.5
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)  # (B, heads, patches, L)
            self.calls += 1
            self.maps = self.maps + weights[..., : scenes.LENGTH].mean(axis=1)

    def of(self, i):
        """The map of each word of picture i, (LENGTH, rows, columns)."""
        return fit.host(self.maps[i] / self.calls).T.reshape(scenes.LENGTH, self.side, self.side)


def rgb(pictures):
    """(..., 3, H, W) in [-1, 1] as (..., H, W, 3) in [0, 1]."""
    return np.moveaxis(np.clip((np.asarray(pictures) + 1) / 2, 0, 1), -3, -1)


def side_by_side(pictures, gap=2):
    """Pictures (N, 3, H, W) in one row, white between them: (H, N W + gaps, 3)."""
    padded = np.pad(rgb(pictures), ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=1)
    return np.concatenate(list(padded), axis=1)[:, :-gap]


def grid(pictures, prompts):
    """The bytes of a PNG: a row of pictures under each prompt, two prompts side by side. pictures: (P, N, 3, H, W)."""
    columns = min(2, len(prompts))
    rows = -(-len(prompts) // columns)
    width = min(4.5, 0.8 + 0.55 * pictures.shape[1])
    figure, axes = pyplot().subplots(
        rows, columns, figsize=(width * columns, (0.28 + width / pictures.shape[1]) * rows), squeeze=False,
        layout="constrained")  # fmt: skip
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, prompt, drawn in zip(axes.flat, prompts, pictures):
        axis.imshow(side_by_side(drawn))
        axis.set_title("\n".join(textwrap.wrap(prompt, round(16 * width))))
    return results.png(figure)


def strip(watched, pictures, args):
    """The bytes of a PNG: for the first picture of each prompt, x0_hat at some times from t = 1 on, and the picture."""
    chosen = np.unique(np.linspace(0, len(watched.steps) - 1, STAGES).round().astype(int))
    figure, axes = pyplot().subplots(len(args.prompts), 1, figsize=(7.5, 1.05 * len(args.prompts)), squeeze=False,
                                     layout="constrained")  # fmt: skip
    for i, (axis, prompt) in enumerate(zip(axes[:, 0], args.prompts)):
        axis.set_axis_off()
        row = [watched.steps[k][1][i * args.samples] for k in chosen] + [pictures[i * args.samples]]
        axis.imshow(side_by_side(np.array(row)))
        axis.set_title(prompt + f": x0_hat from t = 1 to {watched.steps[chosen[-1]][0]:.2g}, and the picture")
    return results.png(figure)


def attention(watched, pictures, args):
    """The bytes of a PNG: the first picture of each prompt, and how much each place reads each word."""
    figure, axes = pyplot().subplots(len(args.prompts), 1 + scenes.LENGTH, squeeze=False, layout="constrained",
                                     figsize=(9, 1.1 * len(args.prompts)))  # fmt: skip
    for i, (row, prompt) in enumerate(zip(axes, args.prompts)):
        for axis in row:
            axis.set_axis_off()
        row[0].imshow(rgb(pictures[i * args.samples]))
        maps, words = watched.of(i * args.samples), scenes.words_of(prompt)
        for axis, word, weights in zip(row[1:], words, maps):
            axis.imshow(weights, vmin=0, vmax=maps[: len(words)].max(), cmap="viridis")
            axis.set_title(word, loc="center")
    return results.png(figure)


def attention_rows(watched, args):
    """What `attention` draws, as rows of a CSV: the weight of each word of each prompt at each patch of the picture."""
    return [{"prompt": prompt, "place": n, "word": word, "row": y, "column": x, "weight": float(weights[y, x])}
            for i, prompt in enumerate(args.prompts)
            for n, (word, weights) in enumerate(zip(scenes.words_of(prompt), watched.of(i * args.samples)))
            for y, x in np.ndindex(weights.shape)]  # fmt: skip


def png_of(picture):
    """The bytes of a PNG of one picture, (3, H, W) in [-1, 1], pixel for pixel."""
    content = io.BytesIO()
    pyplot().imsave(content, rgb(picture), format="png")
    return content.getvalue()


def machine(backend):
    """The processor, or the card, in words."""
    return here.gpu() if backend == "triton_gpu" else here.processor()


def commit():
    """The commit of the code, or "unknown"."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False) if Path(asked[2]).exists() else None
    return found.stdout.strip() or "unknown"
