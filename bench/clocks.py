"""The clocks of the GPU, in nanoseconds of a call: for `kernels.timing.interleave`."""
import functools
import time

from kernels import timing


@functools.cache
def _half_a_millisecond():
    return timing.gpu_copy(1 << 31)


def events(run):
    """Nanoseconds of one call on the GPU, between two events of the stream."""
    from numba import cuda

    start, end = cuda.event(), cuda.event()
    _half_a_millisecond()()
    start.record()
    run()
    end.record()
    end.synchronize()
    return cuda.event_elapsed_time(start, end) * 1e6


def calls(run, count=50):
    """Nanoseconds a call, of count calls that follow each other, by the host's clock: what a short launch costs."""
    from numba import cuda

    cuda.synchronize()
    start = time.perf_counter_ns()
    for _ in range(count):
        run()
    cuda.synchronize()
    return (time.perf_counter_ns() - start) / count
