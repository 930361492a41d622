"""`python -m bench.ladder NAME`: the rungs of a kernel, checked, with their times on this machine, on one thread or
on its GPU."""
from ref import command

if __name__ == "__main__":
    command.begin("bench.ladder")  # before the imports that take a second
import argparse
import functools
import shutil
import textwrap

import numpy as np
from threadpoolctl import threadpool_limits

from bench import clocks, ladder, machine
from kernels import registry, timing
from kernels.check import selftest
from kernels.numba_cpu import engine


def main(argv=None):
    """Print a ladder. argv: list of words, or None for the command line's. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.ladder", description=__doc__.replace("`", ""))
    parser.add_argument("name", choices=ladder.LADDERS)
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing (default: 5)")
    args = parser.parse_args(argv)
    engine.set_num_threads(1)
    with threadpool_limits(1, "blas"):
        climb(args.name, args.seconds)
    return 0


def climb(name, seconds, small=False):
    """Check the rungs, time them in turn, print each. name: of LADDERS. seconds: of timing. small: whether on SMALL."""
    steps = ladder.ladder(name)
    gpu = hasattr(steps, "BACKEND")
    alone = gpu and selftest.interpreted(steps.BACKEND)
    shape = steps.SMALL if small or alone else steps.SHAPE
    op, arguments = ladder.checked(steps, shape)
    contestants = {rung.__name__: functools.partial(rung, **arguments) for rung in steps.RUNGS}
    flops = op.flops and op.flops(**arguments)
    moved = None if gpu else registry.bytes_moved(op, arguments, "float32")
    limit, of_limit = _limit(steps, arguments, flops, moved)
    clock = clocks.events if gpu and not alone else timing.wall
    times = timing.interleave(contestants | {"": limit}, seconds, clock=clock)
    ns = {name: float(np.median(t)) for name, t in times.items()}
    rate, unit = (flops, "GFLOP/s") if flops else (moved, "GB/s")
    width, before = min(113, shutil.get_terminal_size((113, 24)).columns), None
    where = "one thread" if not gpu else "in Triton's interpreter, whose times mean nothing" if alone else "one GPU"
    dtype = getattr(steps, "DTYPE", "float32")
    print(textwrap.fill(f"{steps.OP} {shape}, {dtype}, {where}. {machine.busy()}", width) + "\n")
    for number, rung in enumerate(steps.RUNGS, 1):
        changed, predicted = ladder.said(rung)
        own = ns[rung.__name__]
        bought = f"bought {before / own:.2f} times, " if before else ""
        part = f"{100 * (rate / own) / (of_limit / ns['']):.0f} % of the limit"
        print(f"{number}. {rung.__name__}: {own / 1e6:.2f} ms, {rate / own:.1f} {unit}, {bought}{part}")
        for line in (changed, f"Predicted: {predicted}"):
            print(textwrap.indent(textwrap.fill(line, width - 3), "   "))
        before = own
    kind = "products that load nothing" if gpu else "multiply-adds on registers" if flops else "a copy of as many bytes"
    print(f"\nlimit: {of_limit / ns['']:.1f} {unit}, {kind}")


def _limit(steps, arguments, flops, moved):
    """A call of what the machine can do, and its operations or bytes. steps, arguments: of the ladder. flops, moved: of
    a call, or None."""
    if hasattr(steps, "limit"):
        return steps.limit(next(a for a in arguments.values() if a is not None))
    return machine.peak() if flops else (timing.copy(moved), moved)


if __name__ == "__main__":
    command.end(main())
