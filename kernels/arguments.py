"""Checks of arguments that every backend makes and that fold no schedule: of the loops, and of clip."""
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


def branches(guidance, examples, classes):
    """The labels of each branch, (1 or 2, B) ints, and w: first no label, then those of guidance. guidance: None, or
    labels (B,) and w. examples: B. classes: how many there are; that number itself is no label."""
    labels = np.full((1, examples), classes)
    if guidance is None:
        return labels, 0.0
    wanted, w = np.asarray(guidance[0]), float(guidance[1])
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
