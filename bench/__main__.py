"""`python -m bench`: every kernel against the truth, then against what people would use instead. Exit status 1 on any FAIL."""
import argparse
import importlib.util
import os
import sys
from pathlib import Path

from bench import machine, measure, peers, report, targets
from kernels import registry, timing
from kernels.check import selftest

SWEEP_OPS = (("diffusion.q_sample", ""), ("fused.q_sample_noise", ""), ("fused.guided_ddim_step", "eta = 0"), ("optim.adam_step", ""))
SWEEP_BYTES = {"numba_cpu": [1 << k for k in range(10, 29, 2)], "triton_gpu": [1 << k for k in range(16, 33, 2)]}  # moved by a call


def arguments(argv):
    """The command line. argv: its words. Exits with status 2 and a line that says why where they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--op", default="", help="only operations with this in their name")
    parser.add_argument("--backend", choices=list(measure.PEERS), action="append", help="only this one; may be given again (default: all that are here)")
    parser.add_argument("--shape", type=_shape, action="append", help="such as 256,3,32,32; may be given again (default: those of bench.targets)")
    parser.add_argument("--peers", type=_columns, default=list(peers.COLUMNS), help=f"of {','.join(peers.COLUMNS)} (default: all that are installed)")
    parser.add_argument("--threads", type=int, default=1, help="of every library (default 1)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing, a row (default 1)")
    parser.add_argument("--csv", type=_file, help="write the rows to this file, such as bench/results/NAME.csv")
    parser.add_argument("--plot", type=_file, help="measure a sweep of sizes too, and draw it into this file")
    words = parser.parse_args(argv)
    if not any(words.op in op.name and op.bench for op in registry.OPS):
        parser.error(f"--op: no timed operation has {words.op!r} in its name; there are {', '.join(op.name for op in registry.OPS if op.bench)}")
    if not words.seconds >= 0:
        parser.error(f"--seconds: expected at least 0, got {words.seconds}")
    words.backend = words.backend or list(measure.PEERS)
    return words


def _shape(text):
    try:
        shape = tuple(int(n) for n in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"expected positive integers with commas between, such as 256,3,32,32, got {text!r}")
    return shape


def _columns(text):
    names = text.split(",")
    if not set(names) <= set(peers.COLUMNS):
        raise argparse.ArgumentTypeError(f"expected names of {', '.join(peers.COLUMNS)} with commas between, got {text!r}")
    return names


def _file(text):
    if not Path(text).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {Path(text).absolute().parent}")
    return text


def missing(plotting):
    """What has to be installed to show the results, or "". plotting: whether a picture is asked for."""
    lacking = [name for name in ["rich", "tqdm"] + ["matplotlib"] * plotting if importlib.util.find_spec(name) is None]
    return f"python -m bench needs {', '.join(lacking)}: pip install {' '.join(lacking)}" if lacking else ""


def sweep(ops, backends):
    """The points of the picture, as `measure.rows` gives rows. ops: records. backends: names."""
    found = []
    for op in ops:
        for label, options in op.bench.items():
            if (op.name, label) in SWEEP_OPS:
                one = registry.bytes_moved(op, timing.problem(op, options, (1, 1)), measure.DTYPE)
                found += [(op, label, options, b, (4, max(n // one // 4, 1)), measure.DTYPE) for b in backends for n in SWEEP_BYTES[b]]
    return found


def run(jobs, seconds, libraries, say, progress=list):
    """Measures rows. jobs: (kind, row of `measure.rows`). seconds, libraries, say: as in `measure.row`. progress: wraps the
    list of jobs. Returns the rows, and the exit status: 1 where a kernel is wrong."""
    found, float32_copy = [], {}
    for kind, (op, label, options, backend, shape, dtype) in progress(jobs):
        used = [c for c in libraries if c in measure.PEERS[backend] and (kind != report.SWEEP or c == "numpy")]
        if backend == "triton_gpu":
            row = measure.gpu_row(op, label, options, backend, shape, dtype, seconds, used, say)
        else:
            row = measure.row(op, label, options, backend, shape, seconds, used, say)
        if dtype == measure.DTYPE:
            float32_copy[op.name, label, backend, shape] = row["copy"]
        found.append({"kind": kind} | row | {"float32_copy": float32_copy.get((op.name, label, backend, shape))})
    return found, int(any(row["failure"] for row in found))


def main(argv=None):
    """Check, time, print, write. argv: the command line's words. Returns the exit status."""
    words = arguments(argv)
    if lacking := missing(bool(words.plot)):
        print(lacking, file=sys.stderr)
        return 2
    try:
        if words.backend != ["triton_gpu"]:
            machine.pin(words.threads)
    except ValueError as reason:
        print(f"python -m bench: {reason}", file=sys.stderr)
        return 2
    from tqdm import tqdm

    libraries, lines = peers.available(words.peers)
    backends, absent = selftest.available()
    lines += [f"{backend}: not timed, {why}" for backend, why in absent.items()]
    if "triton_gpu" in backends:
        from kernels.triton_gpu import device as gpu

        if gpu.INTERPRETED:
            backends.remove("triton_gpu")
            lines.append("triton_gpu: not timed, there is no GPU here")
    for line in lines:
        print(line, file=sys.stderr)
    backends = [backend for backend in backends if backend in words.backend]
    peers.settle(libraries, words.threads)
    if "numba_cpu" in backends:
        from kernels.numba_cpu import engine

        engine.set_num_threads(words.threads)
    ops = [op for op in registry.OPS if words.op in op.name and op.bench]
    jobs = [("row", job) for job in measure.rows(ops, backends, (lambda *_: words.shape) if words.shape else targets.shapes)]
    jobs += [(report.SWEEP, job) for job in sweep(ops, backends)] if words.plot else []
    bar = tqdm(jobs, file=sys.stderr, unit="row", disable=None)

    def progress(_):
        for job in bar:
            bar.set_postfix_str(f"{job[1][0].name} {job[1][4]} {job[1][5]}")
            yield job

    rows, status = run(jobs, words.seconds, libraries, lambda line: bar.write(line, file=sys.stderr), progress)
    here = machine.describe(words.threads, on_gpu=backends == ["triton_gpu"])
    if words.csv:
        report.write_csv(words.csv, rows, here)
    report.print_table(rows, here)
    if words.plot and any(row["kind"] == report.SWEEP and not row["failure"] for row in rows):
        report.plot(rows, here, words.plot)
    return status


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
