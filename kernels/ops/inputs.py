"""What operations are tested and timed on: data, times of a schedule, keys of noise. Drawn by `make` of a record."""
import importlib

import numpy as np

from ref import schedules

FLOATS, HALVES = ("float32", "float64"), ("float16", "bfloat16")
VALUES = ("normal", "large", "tiny", "zeros", "not finite")  # what data arrays hold
PER_EXAMPLE = ("u", "t", "s", "sigma", "sigma_next", "dkl", "dnll")  # may be one for each example, and no data
TIMES = {"schedule": ("linear", "cosine", "short"), "times": ("int", "rows")}


def like(dtype):
    """The NumPy dtype of that name; bfloat16 is that of ml_dtypes. dtype: name."""
    return np.dtype(importlib.import_module("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)


def data(rng, shape, dtype, values):
    """A data array. rng: generator. shape: tuple. dtype: name. values: of VALUES."""
    most = 1e2 if dtype in HALVES else 1e4
    x = rng.standard_normal(shape) * {"zeros": 0, "large": most, "tiny": 1 / most}.get(values, 1) + 0.0
    if values == "not finite" and x.size:
        x.flat[rng.integers(x.size, size=3)] = np.nan, np.inf, -np.inf
    return x.astype(like(dtype))


def usual(op, rng, shape, dtype, values, schedule="linear", times=None, **options):
    """The arguments of an operation, by their names: t, s, u and abar of a schedule, seed and stream of noise, what is
    fixed or an option; the rest is data.

    op: `Op`. rng, shape, dtype, values: as in `data`. schedule: of TIMES. times: "int", "rows" for one an example, or
    None for what is usual: a step has one time. options: further arguments. Returns {name: value}.
    """
    takes = op.takes
    given = {name: data(rng, shape, dtype, values) for name in op.data}
    if "abar" in takes:
        given |= _process(rng, shape, schedule, times or ("int" if "s" in takes else "rows"), takes, op.least_t)
    if "shape" in takes:
        given |= {"shape": shape}
    if "seed" in takes:
        given |= {name: int(rng.integers(2**63)) for name in ("seed", "stream")}
    return given | op.fixed | options


def _process(rng, shape, schedule, times, takes, least):
    """abar, t and, where they are taken, an earlier s and a later u. Each end is drawn in one of four cases."""
    abar = {
        "linear": lambda: schedules.linear_betas(), "cosine": lambda: schedules.cosine_betas(),
        "short": lambda: schedules.linear_betas(4, 0.1, 0.5),
    }[schedule]()  # fmt: skip
    abar = schedules.alpha_bar(abar)
    least, last = max(least, int("s" in takes)), abar.size - 1 - int("u" in takes)
    t, end = rng.integers(least, last + 1, size=shape[0]), rng.integers(8, size=shape[0])
    t = np.where(end == 0, least, np.where(end == 1, last, t))
    found = {"t": t if times == "rows" else int(t[0]) if t.size else last, "abar": abar}
    if "s" in takes:
        s = np.where(rng.integers(4, size=np.shape(found["t"])) == 0, 0, rng.integers(found["t"]))
        found["s"] = s if times == "rows" else int(s)
    if "u" in takes:
        u = found["t"] + rng.integers(1, abar.size - found["t"])
        found["u"] = u if times == "rows" else int(u)
    return found
