"""One row of the benchmark: the kernel is held to the truth on the arguments that will be timed, each peer is looked at
too, and only then are they timed, in turn, together with this machine's copy and triad of as many bytes."""
from dataclasses import dataclass
from collections.abc import Callable
from functools import partial

import numpy as np

from bench import limits, peers, timing
from kernels import compare, registry

DTYPE = "float32"
TIMES = {"t": 500, "s": 480}  # of a step: an ordinary one; a drawn s could be 0, where no noise is added
# Updated where it stands, as a training loop does: operation -> the arguments that the results go to
IN_PLACE = {
    "optim.adam_step": ("p", "m", "v"),
    "fused.adam_ema_step": ("p", "m", "v", "avg"),
    "optim.ema_step": ("avg",),
}


@dataclass(frozen=True)
class Device:
    """How one backend is timed. place: NumPy arguments -> the backend's. home: a result -> NumPy. clock: see `timing`.
    peers: makers by column. copy, triad: bytes -> a call that moves them."""

    place: Callable
    home: Callable
    clock: Callable
    peers: dict
    copy: Callable
    triad: Callable


DEVICES = {"numba_cpu": Device(dict, np.asarray, timing.wall, peers.HOST, limits.copy, limits.triad)}


def rows(ops, backends, shapes):
    """Every row there is to measure: (op, row, options, backend, shape). ops: records. backends: names. shapes: tuples."""
    return [
        (op, row, options, backend, shape)
        for shape in shapes
        for op in ops
        for row, options in op.bench.items()
        for backend in backends
        if registry.kernel(op, backend) is not None
    ]


def problem(op, options, shape, seed=0):
    """The arguments that are timed. op: `registry.Op`. options: of its row. shape: of the data. Returns {name: value}."""
    arguments = op.make(np.random.default_rng(seed), shape, DTYPE, "normal", **options)
    return arguments | {name: time for name, time in TIMES.items() if name in arguments and "s" in arguments}


def prepared(op, function, arguments, shape, device):
    """A call of nothing that runs the kernel on its own copies of the arguments, into memory that is already there.

    op, function, arguments, shape, device: as in `row`. Returns the function.
    """
    own = device.place({k: np.array(v) if k in registry.arrays(arguments) else v for k, v in arguments.items()})
    extra = {"dtype": DTYPE} if op.name == "philox.normal" else {}
    if op.name in IN_PLACE:
        out = tuple(own[name] for name in IN_PLACE[op.name])
        extra["out"] = out if len(out) > 1 else out[0]
    elif op.writes:
        extra["out"] = device.place({"out": np.empty(shape, DTYPE)})["out"]
    return partial(function, **own, **extra)


def row(op, label, options, backend, shape, seconds, libraries, say):
    """Checks and times one row.

    op: `registry.Op`. label, options: its row. backend: name. shape: tuple. seconds: of timing. libraries: columns of
    peers that can be used here. say: takes a line about a peer that was left out.
    Returns {column: value}; where the kernel is wrong, `failure` says how and nothing was timed.
    """
    device = DEVICES[backend]
    arguments = problem(op, options, shape)
    moved = registry.bytes_moved(op, arguments, DTYPE)
    result = dict(
        op=op.name, row=label, backend=backend, shape=shape, dtype=DTYPE, bytes=moved, failure="", median_us=None, gbs=None,
        copy_gbs=None, triad_gbs=None, copy=None, triad=None,
    ) | {k: v for c in peers.COLUMNS for k, v in ((c, None), (f"{c}_how", ""))}  # fmt: skip
    expected = registry.expected(op, arguments, DTYPE)
    run = prepared(op, registry.kernel(op, backend), arguments, shape, device)
    try:
        for out, rule in zip(registry.outputs(run()), expected, strict=True):
            compare.assert_matches(device.home(out), rule)
    except Exception as reason:  # whatever it is, it is the verdict, and nothing is timed
        return result | {"failure": f"{type(reason).__name__}: {reason}"}
    contestants = {("kernel", ""): run, ("copy", ""): device.copy(moved), ("triad", ""): device.triad(moved)}
    for column in libraries:
        for how, peer in sound_peers(op, arguments, shape, column, device, expected, say):
            contestants[column, how] = peer
    return result | compared(timing.interleave(contestants, seconds, clock=device.clock), moved)


def sound_peers(op, arguments, shape, column, device, expected, say):
    """The variants of one library that agree with the truth, as (how, call).

    op, arguments, shape, device, say: as in `row`. column: the library's. expected: the rules of the outputs.
    """
    found = []
    try:
        made = device.peers[column](op.name, arguments, shape)
    except Exception as reason:
        say(f"{column} left out at {op.name} {shape}: {type(reason).__name__}: {_first_line(reason)}")
        return found
    for how, call in made.items():
        try:
            peers.check(op.name, arguments, shape, peers.home(call(), shape), expected)
            found.append((how, call))
        except Exception as reason:
            say(f"{column} ({how}) left out at {op.name} {shape}: {type(reason).__name__}: {_first_line(reason)}")
    return found


def compared(times, moved):
    """The numbers of a row from its times: of a library's variants, the fastest counts.

    times: {(column, how): (rounds,) nanoseconds}, with kernel, copy and triad among them. moved: bytes. Returns {column: value}.
    """
    ours = times["kernel", ""]
    found = {"median_us": float(np.median(ours)) / 1e3, "gbs": moved / float(np.median(ours))}
    for limit in ("copy", "triad"):
        found[limit] = 100 * timing.times_faster(ours, times[limit, ""])
        found[f"{limit}_gbs"] = moved / float(np.median(times[limit, ""]))
    for column in {c for c, _ in times} - {"kernel", "copy", "triad"}:
        how = min((h for c, h in times if c == column), key=lambda h: np.median(times[column, h]))
        found |= {column: timing.times_faster(ours, times[column, how]), f"{column}_how": how}
    return found


def _first_line(reason):
    return (str(reason).strip().splitlines() or ["no reason given"])[0][:200]
