"""Scenes: pictures of one or two coloured digits, each with a caption in plain English. A scene is a function of (seed,
set, index) alone.

    a large green two on the left            a cyan five left of a small red zero

Ten pairs of a digit and a colour and ten ordered pairs of digits never occur in training: HELD_COLOUR and HELD_DIGIT.
A picture is (3, 32, 32) in [-1, 1], black where there is no ink. An object's centre is given in pixels, (row, column).
"""
import functools

import numpy as np

from ref import philox

SIZE = 32  # pixels of a picture's side
LENGTH = 10  # words of a caption, at most
DIGITS = "zero one two three four five six seven eight nine".split()
COLOURS = {
    "red": (1, 0, 0), "orange": (1, 0.5, 0), "yellow": (1, 1, 0), "green": (0, 1, 0), "cyan": (0, 1, 1),
    "blue": (0.15, 0.3, 1), "magenta": (1, 0, 1), "white": (1, 1, 1),
}  # fmt: skip
SIZES = {"small": 10, "large": 16}  # pixels of the longer side of a digit's box
PLACES = "on the left", "on the right", "at the top", "at the bottom", "in the middle"
RELATIONS = "left of", "right of", "above", "below"
RGB = np.array(list(COLOURS.values()))
SIDES = np.array(list(SIZES.values()))
FRAME = max(SIZES.values())  # pixels of the side of the frame around a digit's box
MARGIN = FRAME // 2  # around a picture while it is painted
WORDS = tuple(dict.fromkeys(" ".join(["a", *SIZES, *COLOURS, *DIGITS, *PLACES, *RELATIONS]).split()))
NUMBER = {word: 1 + i for i, word in enumerate(WORDS)}
HELD_COLOUR = (3 * np.arange(10) + 1) % len(COLOURS)  # of each digit, the colour that it never has in training
HELD_DIGIT = (7 * np.arange(10) + 3) % 10  # of each digit, the second one that never follows it in training
# each set: (objects, 0 for one or two; whether a colour is new, whether the pair of digits is)
SETS = {
    "training": (0, False, False), "one seen": (1, False, False), "two seen": (2, False, False),
    "one new colour": (1, True, False), "two new colour": (2, True, False), "two new pair": (2, False, True),
}  # fmt: skip
DRAWS = 20  # words of noise for a scene


def layouts(seed, which, indices):
    """What is in the scenes: a dict of int arrays, (N, 2) of both objects (one object leaves the second unused): digit,
    colour, size, said (whether the size is in the caption), pick (32 bits that choose the handwriting); (N, 2, 2)
    centre; and (N,): two, place (into PLACES, -1 unsaid), relation (into RELATIONS).

    seed: int. which: of SETS. indices: (N,) ints.
    """
    objects, new_colour, new_pair = SETS[which]
    words = _words(seed, list(SETS).index(which), np.asarray(indices))

    def below(n, *columns):
        return _below(words[:, columns], n)

    two = below(3, 0)[:, 0] > 0 if objects == 0 else np.full(len(words), objects == 2)
    # Digits: the second is any but the one that is held out, or that one
    digit = below(10, 1, 2)
    held = HELD_DIGIT[digit[:, 0]]
    digit[:, 1] = held if new_pair else _any_but(held, words[:, 2], 10)
    # Colours: any but the held-out one; where a colour is new, one of the two objects has it
    colour = np.stack([_any_but(HELD_COLOUR[digit[:, i]], words[:, 3 + i], len(COLOURS)) for i in range(2)], axis=1)
    if new_colour:
        which_one = np.where(two, below(2, 15)[:, 0], 0)[:, None] == np.arange(2)
        colour = np.where(which_one, HELD_COLOUR[digit], colour)
    size, said = below(2, 5, 6), below(4, 7, 8) > 0
    place = np.where(below(4, 10)[:, 0] > 0, below(len(PLACES), 9)[:, 0], -1)
    relation = below(len(RELATIONS), 9)[:, 0]
    free = words[:, 11:15].reshape(-1, 2, 2)
    centre = np.where(two[:, None, None], _side_by_side(SIDES[size] // 2, relation, free), _alone(place, free))
    return {"digit": digit, "colour": colour, "size": size, "said": said, "pick": words[:, 16:18], "centre": centre,
            "two": two, "place": place, "relation": relation}


def captions(layout):
    """The captions, a list of str. layout: from `layouts`."""
    found, sizes, colours = [], list(SIZES), list(COLOURS)
    for i, two in enumerate(layout["two"]):
        objects = []
        for k in range(1 + two):
            size = f"{sizes[layout['size'][i, k]]} " if layout["said"][i, k] else ""
            objects.append(f"a {size}{colours[layout['colour'][i, k]]} {DIGITS[layout['digit'][i, k]]}")
        between = f" {RELATIONS[layout['relation'][i]]} " if two else ""
        place = f" {PLACES[layout['place'][i]]}" if not two and layout["place"][i] >= 0 else ""
        found.append(between.join(objects) + place)
    return found


def words_of(text):
    """The words of a prompt, a list of str."""
    return text.lower().replace(",", " ").split()


def ids(texts):
    """The numbers of the words, (N, LENGTH) ints: 0 where a text has no more. texts: list of str.

    Raises ValueError for a word that is not in WORDS and for a text that is too long."""
    found = np.zeros((len(texts), LENGTH), np.int64)
    for row, text in zip(found, texts):
        words = words_of(text)
        if unknown := [word for word in words if word not in NUMBER]:
            raise ValueError(f"prompt: expected words of {', '.join(sorted(WORDS))}; got {', '.join(unknown)}")
        if len(words) > LENGTH:
            raise ValueError(f"prompt: expected at most {LENGTH} words, got {len(words)}: {text!r}")
        row[: len(words)] = [NUMBER[word] for word in words]
    return found


def pictures(layout, sprites):
    """The pictures, (N, 3, 32, 32) float32 in [-1, 1]. layout: from `layouts`. sprites: from `handwriting`."""
    return painted(sprites[0], *placed(layout, *sprites[1:]))


def placed(layout, begin, count):
    """What `painted` takes of both objects: size and number of the ink (N, 2) ints, the frame's corner (N, 2, 2) ints,
    and colour (N, 2, 3) float32, 0 where there is no second one. layout: from `layouts`. begin, count: of
    `handwriting`."""
    number = begin[layout["digit"]] + _below(layout["pick"], count[layout["digit"]])
    there = np.stack([np.ones_like(layout["two"]), layout["two"]], axis=1)
    rgb = (RGB[layout["colour"]] * there[..., None]).astype(np.float32)
    return layout["size"], number, layout["centre"], rgb


def painted(ink, size, number, corner, rgb):
    """The pictures, on the device where the arrays are. ink: of `handwriting`. size, number, corner, rgb: of
    `placed`."""
    y = np.zeros((len(size), SIZE + 2 * MARGIN, SIZE + 2 * MARGIN, 3), np.float32, like=ink)
    rows, along = (np.arange(n, like=ink) for n in (len(size), FRAME))
    for k in range(2):
        down, right = (corner[:, k, axis, None] + along for axis in range(2))
        coloured = ink[size[:, k], number[:, k]][..., None] * rgb[:, k, None, None]
        y[rows[:, None, None], down[:, :, None], right[:, None, :]] += coloured  # (N, FRAME, FRAME, 3)
    inside = slice(MARGIN, -MARGIN)
    return (2 * y[:, inside, inside].transpose(0, 3, 1, 2) - 1).copy()


def handwriting(images, labels):
    """The digits that scenes are made of, in both sizes, in the order of their classes.

    images: (N, 784) in [-1, 1]. labels: (N,). Returns ink (2, N, 16, 16) float32 in [0, 1], and of each class the first
    and the number of its digits, (10,) each."""
    order = np.argsort(labels, kind="stable")
    count = np.bincount(labels, minlength=10)
    boxes = [boxed((x.reshape(28, 28) + 1) / 2) for x in images[order]]
    ink = [[framed(box, side, FRAME) for box in boxes] for side in SIDES]
    return np.array(ink, np.float32), np.cumsum(count) - count, count


def boxed(ink, least=0.3):
    """The part of a picture of ink within the box around all of it that is above `least`. ink: (H, W) in [0, 1]. Empty
    where there is none."""
    rows, columns = (np.flatnonzero((ink > least).any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if rows.size else ink[:0, :0]


def framed(box, side, frame):
    """A box of ink resized to a longer side of `side` pixels, in the middle of a frame: (frame, frame)."""
    height, width = (max(1, round(n * side / max(box.shape))) for n in box.shape)
    y, (top, left) = np.zeros((frame, frame)), ((frame - n) // 2 for n in (height, width))
    y[top : top + height, left : left + width] = _resizing(height, len(box)) @ box @ _resizing(width, box.shape[1]).T
    return y


@functools.cache
def _resizing(n, m):
    """The weights (n, m) of m pixels in n: each new pixel is a mean by a triangle, wide enough to leave out none."""
    scale = max(m / n, 1)
    at = (np.arange(n) + 0.5) * m / n - 0.5
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(m)) / scale)
    return weights / weights.sum(axis=1, keepdims=True)


def _words(seed, stream, indices):
    """Words of noise of each scene, (N, DRAWS) uint32: element (index, i) of `ref.philox.bits` of shape (.., DRAWS)."""
    block = indices.astype(np.uint64)[:, None] * np.uint64(DRAWS // 4) + np.arange(DRAWS // 4, dtype=np.uint64)
    stream = philox.stream("scene", stream)
    parts = block & np.uint64(0xFFFFFFFF), block >> np.uint64(32), stream & 0xFFFFFFFF, stream >> 32
    counter = np.stack(np.broadcast_arrays(*parts), axis=-1).astype(np.uint32)
    return philox.philox4x32(counter, np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)).reshape(len(indices), DRAWS)


def _below(words, n):
    return (words.astype(np.uint64) * np.asarray(n, np.uint64) >> np.uint64(32)).astype(np.int64)


def _any_but(held, words, n):
    """One of n things, but not the held-out one. held, words: (N,)."""
    some = _below(words, n - 1)
    return some + (some >= held)


def _alone(place, free):
    """The centre of one object, (N, 2, 2): where the place says, else anywhere."""
    first, last = MARGIN, SIZE - MARGIN
    low, high = np.full((len(place), 2), first), np.full((len(place), 2), last)
    for which, (axis, begin, end) in enumerate([(1, 8, 11), (1, 21, 24), (0, 8, 11), (0, 21, 24)]):
        low[place == which, axis], high[place == which, axis] = begin, end
    low[place == 4], high[place == 4] = 14, 18
    centre = low + _below(free[:, 0], 1 << 20) * (high - low + 1) // (1 << 20)
    return np.stack([centre, centre], axis=1)


def _side_by_side(radius, relation, free):
    """The centres of two objects, (N, 2, 2), each within its half of the picture. radius: (N, 2)."""
    half = SIZE // 2
    axis = np.where(relation < 2, 1, 0)  # left and right lie along the columns
    second = (relation % 2)[:, None] ^ np.arange(2)  # (N, 2): whether an object is in the half that comes second
    along = half * second + radius + _below(free[..., 0], 1 << 20) * (half - 2 * radius + 1) // (1 << 20)
    across = radius + _below(free[..., 1], 1 << 20) * (SIZE - 2 * radius + 1) // (1 << 20)
    return np.where(axis[:, None, None] == np.arange(2), along[..., None], across[..., None])
