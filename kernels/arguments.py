"""Checks of arguments that every backend makes and that fold no schedule: of the loops, of clip, of a WaveNet."""
import numpy as np


def descending(times, abar):
    """The times of a trajectory as Python ints, after the check. times: (n + 1,) ints, n >= 1, descending. abar: (T +
    1,)."""
    times, T = np.asarray(times), np.size(abar) - 1
    if times.ndim != 1 or times.size < 2 or times.dtype.kind not in "iu":
        raise ValueError(f"times: expected shape (n + 1,) of ints, n >= 1, got shape {times.shape} of {times.dtype}")
    times = times.tolist()
    if not (all(s < t for t, s in zip(times, times[1:])) and 0 <= times[-1] and times[0] <= T):
        raise ValueError(f"times: expected to descend within 0 to T = {T}, got {times}")
    return times


def branches(guidance, examples, classes, times):
    """The labels of each branch, (1 or 2, B) ints, first no label, then those of guidance; and w of each step and
    example, (n, B). guidance: None, or labels (B,), w, a number or (B,), and perhaps low and high: but where low < t <=
    high w is 1. examples: B. classes: how many there are; that number itself is no label. times: (n + 1,)."""
    labels, steps = np.full((1, examples), classes), len(times) - 1
    if guidance is None:
        return labels, np.zeros((steps, examples))
    if len(guidance) not in (2, 3) or guidance[1] is None:
        got = f"{len(guidance)} parts" if len(guidance) not in (2, 3) else "w = None"
        raise ValueError(f"guidance: expected labels, w and perhaps an interval, got {got}")
    wanted, w = np.asarray(guidance[0]), np.asarray(guidance[1], np.float64)
    if w.ndim and w.shape != (examples,):
        raise ValueError(f"guidance: expected one w or {examples}, got shape {w.shape}")
    low, high = guidance[2] if len(guidance) == 3 else (-np.inf, np.inf)
    if not low <= high:
        raise ValueError(f"guidance: expected an interval low <= high, got {low} and {high}")
    t = np.asarray(times[:-1])[:, None]
    w = np.where((t > low) & (t <= high), w, 1.0) * np.ones((1, examples))
    if wanted.dtype.kind not in "iu" or wanted.shape != (examples,) or not np.all((0 <= wanted) & (wanted <= classes)):
        raise ValueError(f"guidance: expected {examples} labels from 0 to {classes} and w, got {wanted}")
    return np.stack([labels[0], wanted.astype(labels.dtype)]), w


def steps_done(steps, batch, state):
    """How many steps a training loop has done before, after the check of its counts and its state. steps, batch: ints
    >= 1. state: None, or a dict."""
    for name, n in (("steps", steps), ("batch", batch)):
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
            raise TypeError(f"{name}: expected an int, got {type(n).__name__}")
    if steps < 1 or batch < 1:
        raise ValueError(f"steps and batch: expected at least 1, got {steps} and {batch}")
    if state is not None and not {"step", "m", "v", "average"} <= set(state):
        raise ValueError(f"state: expected step, m, v and average, got {list(state)}")
    return 0 if state is None else state["step"]


def clip_limit(clip):
    """clip as a float, inf for None. Raises ValueError for clip <= 0."""
    if clip is None:
        return np.inf
    if not clip > 0:
        raise ValueError(f"clip: expected a positive number or None, got {clip}")
    return float(clip)


def dilations(layers, cycle, places):
    """The dilation of each layer of a WaveNet, 2^(i mod cycle), after the check. layers: how many. cycle: int >= 1.
    places: of the sound; a larger dilation reads nothing, and counts as this."""
    if isinstance(cycle, bool) or not isinstance(cycle, (int, np.integer)):
        raise TypeError(f"cycle: expected an int, got {type(cycle).__name__}")
    if cycle < 1:
        raise ValueError(f"cycle: expected at least 1, got {cycle}")
    return [min(1 << i % int(cycle), max(places, 1)) for i in range(layers)]


def wavenet_shapes(params):
    """(classes, channels, skip) of a WaveNet, and {dotted path: shape} that its arrays must have. params:
    as in `ref.nets.wavenet`. Raises ValueError for another tree."""
    try:
        layers, (_, _) = params["layers"], params["end"]
        (classes, channels), (skip, *_) = params["embed"]["weight"].shape, layers[0]["skip"]["weight"].shape
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise ValueError("params: expected those of a WaveNet, embed, layers and end, got another tree") from None
    shapes = {"dilated": (2 * channels, channels, 2), "residual": (channels, channels, 1), "skip": (skip, channels, 1)}
    shapes = {f"layers.{i}.{part}": shape for i, layer in enumerate(layers) for part, shape in shapes.items()
              if part in layer or part != "residual"}  # fmt: skip
    shapes |= {"end.0": (skip, skip, 1), "end.1": (classes, skip, 1)}
    found = {"embed.weight": (classes, channels)} | {f"{path}.weight": shape for path, shape in shapes.items()}
    return (classes, channels, skip), found | {f"{path}.bias": shape[:1] for path, shape in shapes.items()}
