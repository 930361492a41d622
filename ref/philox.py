"""Noise as a function of (seed, stream, index): counter-based bits, uniforms and normals.

Element i (C order) of a tensor depends on seed, stream and i alone: not on the batch, the tile, the
number of threads or the device. So a kernel can regenerate the noise of element i instead of storing it.

    block i // 4:   counter = (block lo, block hi, stream lo, stream hi),   key = (seed lo, seed hi)
    words (w0, w1, w2, w3) = philox4x32(counter, key)   ->   elements 4 block .. 4 block + 3

Papers
    [Philox]     Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011
    [BoxMuller]  Box, Muller, "A Note on the Generation of Random Normal Deviates", 1958
    Word for word as in the Random123 library: u01, uneg11 and boxmuller for float.
"""
import math

import numpy as np

from ref.shapes import integer

M0, M1 = 0xD2511F53, 0xCD9E8D57  # multipliers, [Philox] section 4.3
W0, W1 = 0x9E3779B9, 0xBB67AE85  # Weyl increments of the key: golden ratio, sqrt(3) - 1


# Streams: a training step has four, and every other use a block of 2^60 of its own.
TRAINING = "batch", "time", "label", "noise"
BLOCKS = {name: i << 60 for i, name in enumerate(
    "sampling classifier latent init augment pixels test pairs bins probe bound scene".split(), start=1)}  # fmt: skip


def stream(what, step=0):
    """The stream of one use of noise, the same on every backend. No two uses share one:

        stream("batch" | "time" | "label" | "noise", step) = 4 step + 0 | 1 | 2 | 3      what a training step draws
        stream(block, step)                                = the block's first + step    for the other uses, see BLOCKS

    what: one of these names. step: int >= 0.
    Returns an int in [0, 2**64).
    Raises ValueError for another name, or a step below 0 or past the end of its block.
    """
    step = integer(step, "step")
    if what not in TRAINING and what not in BLOCKS:
        raise ValueError(f"what: expected one of {', '.join([*TRAINING, *BLOCKS])}, got {what!r}")
    if not 0 <= step < 2**58:
        raise ValueError(f"step: expected 0 <= step < 2**58, got {step}")
    return 4 * step + TRAINING.index(what) if what in TRAINING else BLOCKS[what] + step


def philox4x32(counter, key, rounds=10):
    """Philox4x32-R, [Philox] section 4.3. Each round, with key k bumped by (W0, W1) before every round but the first:

        (hi0, lo0) = M0 * c0,  (hi1, lo1) = M1 * c2        `32 by 32 bits give 64`
        c <- (hi1 ^ c1 ^ k0,  lo1,  hi0 ^ c3 ^ k1,  lo0)

    counter: (..., 4) uint32. key: (..., 2) uint32, leading axes equal to the counter's or broadcast against them.
    rounds: int >= 1; 10 is the published generator.
    Returns (..., 4) uint32.
    Raises TypeError for another dtype, ValueError for another last axis or rounds < 1.
    """
    counter, key, rounds = np.asarray(counter), np.asarray(key), integer(rounds, "rounds")
    for name, array, width in (("counter", counter, 4), ("key", key, 2)):
        if array.dtype != np.uint32:
            raise TypeError(f"{name}: expected uint32, got {array.dtype}")
        if array.ndim == 0 or array.shape[-1] != width:
            raise ValueError(f"{name}: expected a last axis of {width}, got shape {array.shape}")
    if rounds < 1:
        raise ValueError(f"rounds: expected at least 1, got {rounds}")
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = (key[..., i].astype(np.uint64) for i in range(2))
    low = np.uint64(0xFFFFFFFF)
    for r in range(rounds):
        if r > 0:
            k0, k1 = k0 + np.uint64(W0) & low, k1 + np.uint64(W1) & low
        p0, p1 = np.uint64(M0) * c0, np.uint64(M1) * c2
        c0, c1, c2, c3 = p1 >> np.uint64(32) ^ c1 ^ k0, p1 & low, p0 >> np.uint64(32) ^ c3 ^ k1, p0 & low
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1).astype(np.uint32)


def bits(seed, shape, stream=0):
    """The first prod(shape) words of (seed, stream) in C order: element i is word i % 4 of block i // 4.

    seed, stream: ints in [0, 2**64). shape: int or tuple of ints.
    Returns `shape` uint32.
    Raises ValueError for a seed or a stream out of range or a negative length, TypeError for one that is not an int.
    """
    seed, stream, shape = _word64("seed", seed), _word64("stream", stream), _lengths(shape)
    size = math.prod(shape)
    block = np.arange((size + 3) // 4, dtype=np.uint64)
    counter = np.zeros((block.size, 4), np.uint32)
    counter[:, 0] = block & np.uint64(0xFFFFFFFF)
    counter[:, 1] = block >> np.uint64(32)
    counter[:, 2:] = stream & 0xFFFFFFFF, stream >> 32
    key = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)
    return philox4x32(counter, key).reshape(-1)[:size].reshape(shape)


def uniform(seed, shape, stream=0):
    """u = float32(word) 2^-32 + 2^-33, rounded in float32: Random123's u01 for float. 0 < u <= 1.

    seed, shape, stream: as in `bits`.
    Returns `shape` float64 holding float32 values, so every backend's float32 uniforms equal them to the bit.
    Raises as `bits` does.
    """
    return _u01(bits(seed, shape, stream))


def below(seed, shape, n, stream=0):
    """Integers in [0, n):  floor(word n / 2^32). None is likelier than another by more than n / 2^32.

    seed, shape, stream: as in `bits`. n: int, 1 <= n <= 2**32.
    Returns `shape` int64.
    Raises as `bits` does; ValueError for another n.
    """
    n = integer(n, "n")
    if not 1 <= n <= 2**32:
        raise ValueError(f"n: expected 1 <= n <= 2**32, got {n}")
    return (bits(seed, shape, stream).astype(np.uint64) * np.uint64(n) >> np.uint64(32)).astype(np.int64)


def normal(seed, shape, stream=0):
    """Standard normals, [BoxMuller] eq. 1 in Random123's form. Words (w0, w1) of a block make its elements 0 and 1,
    words (w2, w3) its elements 2 and 3:

        u = float32(w1) 2^-32 + 2^-33,   a = float32(int32(w0)) 2^-31 + 2^-32     both rounded in float32
        r = sqrt(-2 ln u)
        (z0, z1) = (r sin(pi a), r cos(pi a))                                    float64 from u and a on

    seed, shape, stream: as in `bits`.
    Returns `shape` float64, |z| <= sqrt(66 ln 2) = 6.764.
    Raises as `bits` does.
    """
    shape = _lengths(shape)
    size = math.prod(shape)
    words = bits(seed, (size + 1) // 2 * 2, stream)  # an odd size still needs the whole last pair
    u, a = _u01(words[1::2]), _uneg11(words[0::2])
    r = np.sqrt(-2.0 * np.log(u))
    sin, cos = _sincospi(a)
    return np.stack([r * sin, r * cos], axis=-1).reshape(-1)[:size].reshape(shape)


def _word64(name, value):
    value = integer(value, name)
    if not 0 <= value < 2**64:
        raise ValueError(f"{name}: expected 0 <= {name} < 2**64, got {value}")
    return value


def _lengths(shape):
    """shape as a tuple of ints."""
    lengths = tuple(integer(n, "shape") for n in (shape if np.ndim(shape) else (shape,)))
    if any(n < 0 for n in lengths):
        raise ValueError(f"shape: expected lengths of at least 0, got {shape}")
    return lengths


def _u01(word):
    return (word.astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)).astype(np.float64)


def _uneg11(word):
    return (word.view(np.int32).astype(np.float32) * np.float32(2.0**-31) + np.float32(2.0**-32)).astype(np.float64)


def _sincospi(a):
    """(sin(pi a), cos(pi a)) with the quarter turns taken off exactly first: sin(pi) is then 0, not 1.2e-16."""
    quarter = np.rint(2.0 * a)
    turn = quarter % 4
    sin, cos = np.sin(np.pi * (a - quarter / 2)), np.cos(np.pi * (a - quarter / 2))
    odd = turn % 2 == 1
    s, c = np.where(odd, cos, sin), np.where(odd, sin, cos)
    return np.where(turn >= 2, -s, s), np.where((turn == 1) | (turn == 2), -c, c)
