"""What this machine is and how fast its memory is: the STREAM triad at the sizes that the kernels are timed at."""
import datetime
import functools
import importlib.metadata
import os
import platform
from pathlib import Path

import numba
import numpy as np

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"K": 1 << 10, "M": 1 << 20}


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _triad(a, b, c, scalar):
    for i in range(a.size):
        a[i] = b[i] + scalar * c[i]


def triad(nbytes):
    """A call that moves nbytes by McCalpin's STREAM triad a = b + scalar c in compiled code with plain stores; as in
    STREAM, what a store reads first is not counted."""
    b = np.ones(max(nbytes // 12, 1), np.float32)
    a, c, scalar = np.empty_like(b), np.full_like(b, 2), np.float32(3)
    return lambda: _triad(a, b, c, scalar)


@functools.cache
def peak():
    """A call of multiply-adds on registers, whose loads are always the same lines, and its floating-point
    operations."""
    from kernels.numba_cpu.engine import COMPILE
    from kernels.numba_cpu.matmul import ROWS, Left, Right, lanes, lines, tile

    @numba.njit(**COMPILE | {"cache": False})
    def chains(out, a, b, depth):
        tile(out, 0, lanes(out), Left(a, 0, 0, 0), ROWS, Right(b, 0, 0), depth)

    like, depth = np.zeros(1, np.float32), 100_000
    out, a, b = lines(ROWS * lanes(like), like), lines(16, like), lines(64, like)
    return lambda: chains(out, a, b, depth), 2 * ROWS * lanes(like) * depth


def busy():
    """A line that says that other programs use this machine, or "" where nothing is known to."""
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count()
    line = f"this machine is busy: load average {load:.1f} on {cores} cores, so times will spread"
    return line if load > max(0.5, cores / 4) else ""


def gpu():
    """The name of the GPU that is used."""
    from numba import cuda

    name = cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else name


def processor():
    """The processor's name; family and model too where the name alone does not tell (virtual machines shorten it)."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8", "replace").split("\n\n")[0].splitlines() if path.exists() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in said:
        return platform.processor() or platform.machine()
    return f"{said['model name']} (family {said.get('cpu family', '?')}, model {said.get('model', '?')})"


def caches():
    """{"L1": bytes, "L2": bytes, ...} of the data caches that core 0 uses; empty where the system does not say."""
    found = {}
    for entry in sorted(CACHES.glob("index*")):
        size, kind, level = ((entry / name).read_text("utf-8").strip() for name in ("size", "type", "level"))
        if kind != "Instruction":
            found[f"L{level}"] = int(size[:-1]) * UNITS[size[-1]]
    return found


def describe(threads, on_gpu=False):
    """What every row of a result says about where it comes from. threads: int. Returns {column: text}."""
    always = {"date": datetime.date.today().isoformat(), "versions": versions()}
    if on_gpu:
        return {"machine": gpu(), "caches": "", "threads": "", **always}
    sizes = " ".join(f"{level} {size >> 10}K" for level, size in caches().items())
    return {"machine": f"{processor()}, {os.cpu_count()} cores", "caches": sizes, "threads": str(threads), **always}


def versions():
    """Python and the libraries that take part, with their versions, in one line."""
    found = [f"python {platform.python_version()}"]
    for name in ("numpy", "numba", "triton", "torch", "jax", "numexpr"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    return ", ".join(found)


def pin(threads):
    """This process, and every thread that it starts from now on, on so many cores; before torch or JAX is imported."""
    if not hasattr(os, "sched_setaffinity"):
        return []  # only Linux can
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        raise ValueError(f"--threads: expected 1 to {len(cores)}, the cores that this process may use, got {threads}")
    os.sched_setaffinity(0, cores[-threads:])
    return cores[-threads:]
