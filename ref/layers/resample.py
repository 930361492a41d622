"""Images made larger, or cut into patches, each next to its gradient. Arrays keep their dtype.

Papers
    [Deconv]  Odena, Dumoulin, Olah, "Deconvolution and Checkerboard Artifacts", 2016
    [ViT]     Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", 2021
    [DiT]     Peebles, Xie, "Scalable Diffusion Models with Transformers", 2023
"""
import numpy as np


def upsample_nearest(x, factor):
    """y[i, j] = x[i // factor, j // factor], [Deconv]: each pixel becomes a square.

    x: (B, C, ...). factor: int.
    Returns y (B, C, ...), each axis after the channels `factor` times as long.
    Raises ValueError for a factor below 1.
    """
    if factor < 1:
        raise ValueError(f"factor: expected at least 1, got {factor}")
    for axis in range(2, x.ndim):
        x = np.repeat(x, factor, axis=axis)
    return x


def upsample_nearest_backward(dy, factor):
    """Gradient of `upsample_nearest`: the sum over each square. dy: as y there. factor: as there. Returns dx."""
    for axis in range(2, dy.ndim):
        dy = dy.reshape(*dy.shape[:axis], -1, factor, *dy.shape[axis + 1:]).sum(axis=axis + 1)
    return dy


def patchify(x, patch):
    """y[n, (I, J), (i, j, c)] = x[n, c, patch I + i, patch J + j], [ViT] section 3.1: the image as a sequence of
    patches, row by row; in a patch the channels run fastest, as [DiT] has it.

    x: (B, C, H, W). patch: int that divides H and W.
    Returns y (B, H / patch W / patch, patch patch C).
    Raises ValueError where it does not divide.
    """
    B, C, H, W = x.shape
    if patch < 1 or H % patch or W % patch:
        raise ValueError(f"patch: expected a divisor of {H} and {W}, got {patch}")
    y = x.reshape(B, C, H // patch, patch, W // patch, patch)
    y = y.transpose(0, 2, 4, 3, 5, 1)  # (B, I, J, i, j, C)
    return y.reshape(B, (H // patch) * (W // patch), patch * patch * C)


def patchify_backward(dy, x, patch):
    """Gradient of `patchify`, which only moves numbers. dy: as y there. x, patch: as there. Returns dx."""
    return unpatchify(dy, patch, x.shape[2:])


def unpatchify(y, patch, size):
    """x, the inverse of `patchify`.

    y: (B, L, patch patch C). patch: int. size: (H, W) of the image.
    Returns x (B, C, H, W).
    Raises ValueError where the size does not fit.
    """
    H, W = size[-2:]
    channels = y.shape[2] // patch**2
    if y.shape != (len(y), (H // patch) * (W // patch), patch**2 * channels) or H % patch or W % patch:
        raise ValueError(f"size: expected (H, W) in patches of {patch}, as many as in y {y.shape}, got {tuple(size)}")
    x = y.reshape(len(y), H // patch, W // patch, patch, patch, channels)
    x = x.transpose(0, 5, 1, 3, 2, 4)  # (B, C, I, i, J, j)
    return x.reshape(len(y), channels, H, W)


def unpatchify_backward(dx, patch):
    """Gradient of `unpatchify`. dx: as x there. patch: as there. Returns dy."""
    return patchify(dx, patch)
