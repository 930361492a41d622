"""Medians of interleaved calls: what is compared is timed in turn, in one process, so that a slow moment hits all alike."""
import functools
import time

import numpy as np

SLICE_NS = 2_000_000  # how long one contestant is called in a round, unless one call is longer
CALLS = 64  # at most so many calls in a round
LONG_NS = 5_000_000  # a call this long needs no warm-up in each round


def wall(run):
    """Nanoseconds of one call, by the host's clock. run: takes nothing and returns when the work is done."""
    start = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - start


@functools.cache
def _half_a_millisecond():
    from bench import limits

    return limits.gpu_copy(1 << 31)


def events(run):
    """Nanoseconds of one call on the GPU, between two events of the stream. A copy goes before it, so that the host is ahead when the
    first event comes (else its own time would be counted) and nothing is left in the cache. run: takes nothing, may return before
    the work is done."""
    from numba import cuda

    start, end = cuda.event(), cuda.event()
    _half_a_millisecond()()
    start.record()
    run()
    end.record()
    end.synchronize()
    return cuda.event_elapsed_time(start, end) * 1e6


def calls(run, count=50):
    """Nanoseconds a call, of count calls that follow each other, by the host's clock: what a short launch costs. run: as in `events`."""
    from numba import cuda

    cuda.synchronize()
    start = time.perf_counter_ns()
    for _ in range(count):
        run()
    cuda.synchronize()
    return (time.perf_counter_ns() - start) / count


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
    """How many times faster than theirs ours is: the median over rounds of the ratio. ours, theirs: (rounds,) nanoseconds."""
    return float(np.median(np.asarray(theirs) / np.asarray(ours)))
