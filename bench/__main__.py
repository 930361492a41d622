"""`python -m bench`: every kernel against the truth, then against what people would use instead. Exit status 1 on any
FAIL, 2 where it could not be done."""
from ref import command

if __name__ == "__main__":
    command.begin("bench")  # before the imports that take a second
import argparse
import importlib.util
import math
import os
import shutil
import sys

from bench import files, machine, measure, peers, plot, report, targets
from kernels import registry, timing
from kernels.check import selftest

SWEEP_OPS = {  # and their rows
    "diffusion.q_sample": "", "fused.q_sample_noise": "", "fused.guided_ddim_step": "eta = 0", "optim.adam_step": "",
}  # fmt: skip
SWEEP_BYTES = {"numba_cpu": range(10, 29, 2), "triton_gpu": range(16, 33, 2)}  # powers of 2, moved by a call
SPREAD = 15  # percent; a median row that spreads more is worth a warning


def arguments(argv):
    """The command line. argv: its words. Exits with status 2 and a line that says why where they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.replace("`", ""))
    parser.add_argument("--op", default="", help="only operations with this in their name")
    more, columns = dict(action="append"), ",".join(peers.COLUMNS)
    shape = _read(lambda text: tuple(map(int, text.split(","))), lambda s: len(s) > 1 and min(s) > 0,
                  "two or more positive integers, such as 256,3,32,32")  # fmt: skip
    names = _read(lambda text: text.split(","), set(peers.COLUMNS).issuperset, f"some of {columns}")
    whole = _read(int, lambda n: n >= 1, "int >= 1")
    time = _read(float, lambda s: 0 <= s < math.inf, "float >= 0")
    parser.add_argument("--backend", choices=measure.BACKENDS, help="may be repeated (default: all here)", **more)
    parser.add_argument("--shape", type=shape, help="as 256,3,32,32; may be repeated (default: targets.csv)", **more)
    parser.add_argument("--peers", type=names, default=columns, help=f"of {columns} (default: all installed)")
    parser.add_argument("--threads", type=whole, default=1, help="of every library (default: 1)")
    parser.add_argument("--seconds", type=time, default=1.0, help="of timing, a row (default: 1)")
    one = dict(metavar="FILE")
    parser.add_argument("--csv", type=_file, help="write the rows to it, such as bench/results/NAME.csv", **one)
    parser.add_argument("--plot", type=command.named, help="measure a sweep of sizes too, and draw it into it", **one)
    words = parser.parse_args(argv)
    timed = [op.name for op in registry.OPS if op.bench]
    if not any(words.op in name for name in timed):
        parser.error(f"--op: expected part of one of {', '.join(timed)}, got {words.op!r}")
    if words.plot and not any(words.op in name for name in SWEEP_OPS):
        parser.error(f"--plot: expected an --op that is part of one of {', '.join(SWEEP_OPS)}, got {words.op!r}")
    words.backend = words.backend or list(measure.BACKENDS)
    if lacking := missing(bool(words.plot)):
        parser.error(lacking)
    if words.plot and (reason := plot.why_not(words.plot)):
        parser.error(f"--plot: {reason}")
    if words.plot and words.csv and os.path.realpath(words.plot) == os.path.realpath(words.csv):
        parser.error(f"--plot: expected another file than --csv, got {words.plot} for both")
    return words


def _read(kind, right, expected):
    """A type of argparse: kind(text), refused unless it is right."""

    def read(text):
        try:
            value = kind(text)
            fits = right(value)
        except ValueError:
            fits = False
        if not fits:
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return read


def _file(text):
    if reason := files.why_unwritable(command.named(text)):
        raise argparse.ArgumentTypeError(reason)
    return text


def missing(plotting):
    """What has to be installed first, or "". plotting: whether a picture is wanted."""
    needed = ["rich", "tqdm", "threadpoolctl"] + ["matplotlib"] * plotting
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"the benchmark needs {', '.join(lacking)}: pip install {' '.join(lacking)}" if lacking else ""


def sweep(ops, backends):
    """The points of the picture, as `measure.rows` gives rows. ops: records. backends: names."""
    found = []
    for op, label in ((op, SWEEP_OPS[op.name]) for op in ops if op.name in SWEEP_OPS):
        one = registry.bytes_moved(op, timing.problem(op, op.bench[label], (1, 1)), measure.DTYPE)
        shapes = [(b, (4, max((1 << k) // one // 4, 1))) for b in backends for k in SWEEP_BYTES[b]]
        found += [(op, label, op.bench[label], b, shape, measure.DTYPE) for b, shape in shapes]
    return found


def run(jobs, seconds, libraries, say):
    """Measures rows. Returns the rows, and the exit status: 1 where a kernel is wrong."""
    found, float32_copy = [], {}
    for kind, (op, label, options, backend, shape, dtype) in jobs:
        if hasattr(jobs, "set_postfix_str"):
            jobs.set_postfix_str(f"{op.name} {shape} {dtype}")
        used = [c for c in libraries if kind != plot.SWEEP or c == "numpy"]
        row = measure.row(op, label, options, backend, shape, dtype, seconds, used, say)
        if dtype == measure.DTYPE:
            float32_copy[op.name, label, backend, shape] = row["copy"]
        row |= {"kind": kind, "float32_copy": float32_copy.get((op.name, label, backend, shape))}
        if kind != plot.SWEEP:
            row["target"], row["met"] = targets.judge(row, op.rows)
        found.append(row)
    return found, int(any(row["failure"] for row in found))


def _here(words):
    """The backends of words that can be timed here, and lines about the others."""
    backends, absent = selftest.available()
    if "triton_gpu" in backends and selftest.interpreted("triton_gpu"):
        absent["triton_gpu"] = "there is no GPU here, and times of its interpreter mean nothing"
    lines = [f"{backend}: not timed, {why}" for backend, why in absent.items() if backend in words.backend]
    return [backend for backend in backends if backend in words.backend and backend not in absent], lines


def _settle(words, backends, libraries):
    """The threads of everything that is timed."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(words.threads, "blas")  # its threads are older than the pin
    peers.settle(libraries, words.threads)
    if "numba_cpu" in backends:
        from kernels.numba_cpu import engine

        engine.set_num_threads(words.threads)


def main(argv=None):
    """Check, time, print, write. argv: the command line's words. Returns the exit status."""
    words = arguments(argv)
    try:
        if words.backend != ["triton_gpu"]:
            machine.pin(words.threads)
    except ValueError as reason:
        print(f"python -m bench: {reason}", file=sys.stderr)
        return 2
    from tqdm import tqdm

    libraries, lines = peers.available(words.peers)
    backends, more = _here(words)
    print(*filter(None, [*lines, *more, machine.busy()]), sep="\n", file=sys.stderr)
    ops = [op for op in registry.OPS if words.op in op.name and op.bench]
    jobs = [("row", job) for job in measure.rows(ops, backends, words.shape)]
    jobs += [(plot.SWEEP, job) for job in sweep(ops, backends)] if words.plot else []
    if not jobs:
        print(f"python -m bench: nothing to time: no backend here has {words.op!r}", file=sys.stderr)
        return 2
    _settle(words, backends, libraries)
    bar = tqdm(jobs, file=sys.stderr, unit="row", disable=None)
    rows, status = run(bar, words.seconds, libraries, lambda line: bar.write(line, file=sys.stderr))
    here = machine.describe(words.threads, on_gpu=backends == ["triton_gpu"])
    results = [lambda: report.print_tables(rows, here, shutil.get_terminal_size((10**4, 24)).columns)]
    results += [lambda: report.write_csv(words.csv, rows, here)] * bool(words.csv)
    results += [lambda: plot.draw(rows, here, words.plot)] * bool(words.plot)
    for deliver in results:
        try:
            deliver()
        except (OSError, ValueError) as reason:  # the others are delivered nevertheless
            print(f"python -m bench: {reason}", file=sys.stderr)
            status = status or command.IMPOSSIBLE
    spread = sorted(row["spread"] for row in rows if row["spread"] is not None)
    if spread and spread[len(spread) // 2] > SPREAD:
        percent = f"half of the rows spread by more than {spread[len(spread) // 2]:.0f} %"
        print(f"{percent}: another program is running, or --seconds is too short", file=sys.stderr)
    return status


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command.end(main())
