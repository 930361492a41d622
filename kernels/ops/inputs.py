"""What operations are tested and timed on: data, times of a schedule, keys of noise. Drawn by `make` of a record."""
import functools
import importlib

import numpy as np

from ref import schedules

FLOATS, HALVES = ("float32", "float64"), ("float16", "bfloat16")
VALUES = ("normal", "large", "tiny", "zeros", "not finite")  # what data arrays hold
HARD = (  # and in the checker: arrays that nearly agree, numbers whose squares are still normal, and numbers next to
    "near", "minute", "wide",  # which a function of e^x is cut off
)  # fmt: skip
PER_EXAMPLE = ("u", "t", "s", "sigma", "sigma_next", "dkl", "dnll")  # may be one for each example, and no data
SCHEDULES = {  # betas; besides, "long" has LONG times, beyond 16 bits
    "linear": lambda: schedules.linear_betas(), "cosine": lambda: schedules.cosine_betas(),
    "short": lambda: schedules.linear_betas(4, 0.1, 0.5),
}
LONG = 70_000
TIMES = {"schedule": (*SCHEDULES, "long"), "times": ("int", "rows")}
TO_ZERO = TIMES | {"schedule": (*TIMES["schedule"], "zero")}  # for what is defined where abar_t = 0, zero terminal SNR
SETTINGS = {  # numbers that are arguments, drawn by the checker so that no kernel may hold one constant
    "clip": lambda rng: _bound(rng),
    "eta": lambda rng: rng.uniform() if rng.integers(3) else 10 ** rng.uniform(-5, 0), "w": lambda rng: _weight(rng),
    "max_norm": lambda rng: 10 ** rng.uniform(-3, 3), "lr": lambda rng: 10 ** rng.uniform(-5, 0),
    "step": lambda rng: int(2 ** rng.integers(rng.choice([20, 62])) + rng.integers(1, 5)),
    **{name: lambda rng: _near_one(rng) for name in ("beta1", "beta2", "decay")},
    "eps": lambda rng: 10 ** rng.uniform(-10, -1), "weight_decay": lambda rng: rng.uniform(0, 0.5),
    **{name: lambda rng: 3 * rng.standard_normal() for name in ("dloss", "dkl", "dnll")},
}  # fmt: skip
ENDS = {"lr": 0.0, "beta1": 0.0, "beta2": 0.0, "eps": 0.0, "weight_decay": 0.0, "decay": 1.0, "dloss": 0.0}


# Seeds whose first two normals of stream 0 are 5.67, -5.21, 0.0002 and -6.66, of a uniform below 1e-9, where a tail is
# cut off or a logarithm rough; and 0, which is not unset
TAILS = 1953073, 117390, 7624765, 293046734, 0


def _word(rng):
    """A word of 64 bits; one in four is short. rng: generator."""
    return int(rng.integers(2**64, dtype=np.uint64)) >> (int(rng.integers(64)) if rng.integers(4) == 0 else 0)


def _near_one(rng):
    """A weight of what is kept, whose distance from 1 is of any size, so that thousands of steps count. rng: generator.
    """
    return 1 - 10 ** rng.uniform(-6, 0)


def _bound(rng):
    """Of a clip; half of them as is usual, the others of any size, more of them large: where data are small those do
    nothing. rng: generator."""
    if rng.integers(2):
        return rng.uniform(0.05, 3)
    return 10 ** (rng.uniform(0, 4) if rng.integers(4) else rng.uniform(-3, 0))


def _weight(rng):
    """Of guidance; some lie next to 1, where little of it is left. rng: generator."""
    return 1 + 10 ** rng.uniform(-4, -1) if rng.integers(4) == 0 else rng.uniform(-4, 10)


def like(dtype):
    """The NumPy dtype of that name; bfloat16 is that of ml_dtypes. dtype: name."""
    return np.dtype(importlib.import_module("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)


def data(rng, shape, dtype, values):
    """A data array. rng: generator. shape: tuple. dtype: name. values: of VALUES or HARD; arrays of one shape that are
    "near" differ by a thousandth."""
    most, least = (1e2, 1e-3) if dtype in HALVES else (1e4, 1e-12)
    size = {"zeros": 0, "large": most, "tiny": 1 / most, "minute": least, "near": 1e-3, "wide": 15}.get(values, 1)
    x = rng.standard_normal(shape) * size + 0.0
    if values == "near":
        x = np.random.default_rng(0).standard_normal(shape) * (1 + x)
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
        tail = {"seed": int(rng.choice(TAILS)), "stream": 0}
        given |= {name: _word(rng) for name in tail} if rng.integers(8) else tail
    return given | op.fixed | options


def varied(rng, arguments):
    """The arguments with other settings: three in four of the numbers that SETTINGS has, but 0 and 1, which are cases
    of their own; in one case in three one of them is at an end of its range. rng: generator. arguments: dict."""
    numbers = {n: x for n, x in arguments.items() if n in SETTINGS and isinstance(x, (int, float)) and x not in (0, 1)}
    other = {n: SETTINGS[n](rng) for n in numbers if rng.integers(4)}
    ends = [n for n in other if n in ENDS]
    if ends and rng.integers(3) == 0:
        other |= {(end := ends[rng.integers(len(ends))]): ENDS[end]}
    return arguments | other


@functools.cache
def _table(schedule):
    """abar of a schedule."""
    if schedule == "zero":
        return schedules.zero_terminal_snr(_table("linear"))
    if schedule == "long":  # what is given need not be exact, and in Decimals it takes long
        return np.append(1.0, np.cumprod(1 - np.linspace(1e-6, 3e-4, LONG)))
    return schedules.alpha_bar(SCHEDULES[schedule]())


def _process(rng, shape, schedule, times, takes, least):
    """abar, t and, where they are taken, an earlier s and a later u. In a quarter of the cases each t is an end, each s
    is 0, and each s is the time before t."""
    abar = _table(schedule).copy()
    least, last = max(least, int("s" in takes)), abar.size - 1 - int("u" in takes)
    t, end = rng.integers(least, last + 1, size=shape[0]), rng.integers(8, size=shape[0])
    t = np.where(end == 0, least, np.where(end == 1, last, t))
    found = {"t": t if times == "rows" else int(t[0]) if t.size else last, "abar": abar}
    if "s" in takes:
        near = rng.integers(4, size=np.shape(found["t"]))
        s = np.where(near == 0, 0, np.where(near == 1, found["t"] - 1, rng.integers(found["t"])))
        found["s"] = s if times == "rows" else int(s)
    if "u" in takes:
        u = found["t"] + rng.integers(1, abar.size - found["t"])
        found["u"] = u if times == "rows" else int(u)
    return found
