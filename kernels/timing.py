"""Medians of interleaved calls: contestants are timed in turn, in one process, so that a slow moment hits all alike."""
import importlib
import time

import numpy as np

SLICE_NS = 2_000_000  # how long one contestant is called in a round, unless one call is longer
CALLS = 64  # at most so many calls in a round
LONG_NS = 5_000_000  # a call this long needs no warm-up in each round
TIMES = {"u": 520, "t": 500, "s": 480}  # of a step: an ordinary one; a drawn s could be 0, where no noise is added


def wall(run):
    """Nanoseconds of one call, by the host's clock. run: takes nothing and returns when the work is done."""
    start = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - start


def copy(nbytes):
    """A call that moves nbytes by NumPy's copy, half of them read and half written (libc's memcpy, which knows how to
    write around the cache). nbytes: int >= 2. Returns the function."""
    source = np.ones(max(nbytes // 8, 1), np.float32)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def gpu_copy(nbytes):
    """A call that moves nbytes by the driver's copy from device to device, half of them read and half written. nbytes:
    int >= 2. Returns the function."""
    names = ("arrays", "device", "philox")
    arrays, device, philox = (importlib.import_module(f"kernels.triton_gpu.{name}") for name in names)
    to, of = (arrays.read(("float32",), x=philox.normal(i, max(nbytes // 8, 1))).pointers[0] for i in range(2))
    return lambda: device.copy(to.address, of.address, max(nbytes // 8, 1) * 4)


def problem(op, options, shape, seed=0, dtype="float32"):
    """The arguments that are timed. op: `registry.Op`. options: of its row; a "shape" among them is the data's. shape,
    seed: of the data. dtype: name. Returns {name: value}."""
    shape = options.get("shape", shape)
    options = {name: value for name, value in options.items() if name not in ("shape", "on")}
    arguments = op.make(np.random.default_rng(seed), shape, dtype, "normal", **options)
    usual = "s" in arguments and "abar" in arguments and arguments["abar"].size > TIMES["u"]
    return arguments | {name: time for name, time in TIMES.items() if usual and isinstance(arguments.get(name), int)}


def interleave(runs, seconds, least=7, most=200, clock=wall):
    """Times the contestants in rounds, each starting with the next one.

    runs: {name: function of nothing}. seconds: go on for so long. least, most: rounds. clock: run -> nanoseconds.
    In a round each contestant has one call that is not timed (it brings its own data into the cache again), then calls
    for SLICE_NS. Returns {name: (rounds,) nanoseconds}, the median call of each round.
    """
    for run in runs.values():
        run()
    typical = {name: clock(run) for name, run in runs.items()}
    names, rounds = list(runs), []
    end = time.perf_counter() + seconds
    while len(rounds) < least or (time.perf_counter() < end and len(rounds) < most):
        turn = len(rounds) % len(names)
        rounds.append({name: _round(runs[name], typical[name], clock) for name in names[turn:] + names[:turn]})
    return {name: np.array([r[name] for r in rounds]) for name in names}


def _round(run, typical, clock):
    if typical > LONG_NS:
        return clock(run)
    run()
    return float(np.median([clock(run) for _ in range(int(np.clip(SLICE_NS // max(typical, 1), 1, CALLS)))]))


def times_faster(ours, theirs):
    """How many times faster ours is: the median over rounds of the ratio. ours, theirs: (rounds,) nanoseconds."""
    return float(np.median(np.asarray(theirs) / np.asarray(ours)))
