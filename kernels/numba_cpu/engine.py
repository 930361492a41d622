"""How a call runs: argument checks, layouts, outputs, threads. No mathematics.

A kernel is a serial compiled function `kernel(lo, hi, ...)` over the flat elements [lo, hi), lo a multiple of CHUNK,
that releases the GIL. Threads are Python's: each runs the kernel on its own range. So nothing is compiled twice, the
result cannot depend on the number of threads, and an idle pool burns no core (an OpenMP team spins next to a busy
neighbour)."""
import os
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numba.extending import register_jitable

from kernels.coefficients import noise_key
from kernels.numba_cpu.callee import Callee
from kernels.prepare import RECORDED, note

CHUNK = 1024  # elements of noise in the first-level cache at a time; also the unit of a sum, so sums have one order
PARALLEL = 1 << 18  # below this many elements handing work to a thread costs more than it gains
CACHE_BYTES = 32 << 20  # an output larger than this will not be in cache when it is read: write around it

# How a kernel writes: straight into the result; a large result around the cache; over one of its inputs; or each result
# onto the input that it replaces
DIRECT, AROUND, OVER, ONTO = range(4)

# Without nnan and ninf: NaN and inf go through as IEEE says. `reassoc` only where a sum may be vectorised. Nothing here
# is called from C, and an entry for it is a seventh of the time that a kernel takes to compile.
MATH = dict(error_model="numpy", fastmath={"contract"}, no_cfunc_wrapper=True)
COMPILE = MATH | dict(cache=True, nogil=True)
CALLED = MATH | dict(no_cpython_wrapper=True, pipeline_class=Callee)  # by kernels, and never from Python
SUM = CALLED | dict(fastmath={"contract", "reassoc"})
INLINE = CALLED | dict(forceinline=True)
INLINE_SUM = INLINE | dict(fastmath={"contract", "reassoc"})

# Decorates an equation of one element: a plain Python function that is compiled into its kernels. It is called as
# equation(c, u, *values): the coefficients of its row, the scalars of the call (an empty tuple where there are none),
# and the number at its place in each input
element = register_jitable(**INLINE)

# Decorates an inner loop: it neither makes nor returns arrays, so that it need not count references to them, which
# costs a chunk of 1024 elements a third of its time
inner = register_jitable(_nrt=False, **INLINE)

# The same of a long equation, which stays a function: inside another loop its constants would be fetched for each
# vector, which takes up to half as long again. As CALLED it would be inlined after all: noise takes a ninth longer
alone = register_jitable(_nrt=False, **MATH | dict(forceinline=False))

_PLAIN = numba.config.DISABLE_JIT
_threads = numba.config.NUMBA_NUM_THREADS
_pool = None


# --- threads ----------------------------------------------------------------------------------------------------------


def set_num_threads(n):
    """Use n threads from now on, 1 <= n; the default is NUMBA_NUM_THREADS, which is the cores this process may use.

    n: int. Raises ValueError for n < 1.
    """
    global _threads, _pool
    if n < 1:
        raise ValueError(f"n: expected at least 1 thread, got {n}")
    _threads, _pool = int(n), None


def get_num_threads():
    """How many threads a call may use."""
    return _threads


def run(kernel, size, *args, parts=None):
    """kernel(lo, hi, *args) over [0, size), in ranges that begin at multiples of CHUNK, one a thread.

    kernel: a compiled function of this backend. size: elements, or multiply-adds, in all. args: passed through. parts:
    None, or how many segments of rows or tiles of a product to number and share out in place of elements.
    """
    global _pool
    if RECORDED.get() is not None:
        _note(kernel, size, args, parts)
    end, unit = (size, CHUNK) if parts is None else (parts, 1)
    if _PLAIN:  # NumPy's scalars warn where machine arithmetic does not
        kernel = np.errstate(all="ignore")(kernel)
    if size < PARALLEL or _threads == 1:
        if size:
            kernel(0, end, *args)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(_threads - 1, thread_name_prefix="kernels")
    units = -(-end // unit)
    edges = [min(units * i // _threads * unit, end) for i in range(_threads + 1)]
    jobs = [_pool.submit(kernel, lo, hi, *args) for lo, hi in zip(edges[1:-1], edges[2:])]
    kernel(edges[0], edges[1], *args)
    for job in jobs:
        job.result()


def _note(kernel, size, args, parts):
    """Notes the run for `kernels.prepare`, with a fresh key of its noise. Arguments as in `run`."""
    if parts is not None:
        raise TypeError("a sum or a loop is finished in Python, and cannot be prepared on the CPU")
    keyed, before = type(args[-1]) is np.ndarray and args[-1].dtype == np.uint32, args[:-1]

    def again(seed, stream):
        run(kernel, size, *args)

    def again_with_noise(seed, stream):
        run(kernel, size, *before, noise_key(seed, stream))

    note(again_with_noise if keyed and args[-1].size else again, keyed)


def _forget_pool():
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # a forked child has none of the pool's threads
    os.register_at_fork(after_in_child=_forget_pool)


# --- arguments --------------------------------------------------------------------------------------------------------


def same(**arrays):
    """The shape and the dtype that all arguments have.

    arrays: name=array, NumPy, float32 or float64.
    Returns shape, dtype. Raises TypeError for anything else, ValueError where shapes differ.
    """
    (name, first), *rest = arrays.items()
    if type(first) is not np.ndarray or first.dtype.char not in "fd" or not first.dtype.isnative:
        raise TypeError(f"{name}: expected a NumPy array of float32 or float64, got {_describe(first)}")
    for other, array in rest:
        if type(array) is not np.ndarray or array.dtype != first.dtype:
            raise TypeError(f"{other}: expected a NumPy array of {first.dtype} like {name}, got {_describe(array)}")
        if array.shape != first.shape:
            raise ValueError("expected equal shapes, got " + ", ".join(f"{n} {np.shape(a)}" for n, a in arrays.items()))
    return first.shape, first.dtype


def some(**arrays):
    """Raises ValueError where one of the arrays has no element. arrays: name=array, of a loss."""
    for name, array in arrays.items():
        if array.size == 0:
            raise ValueError(f"{name}: expected at least one element, got shape {array.shape}")


def like(name, array, dtype, shape):
    """The elements of array, flat, after the check; none of them for None. name: for the message. array: NumPy, or
    None. dtype, shape: which it must have."""
    if array is None:
        return np.empty(0, dtype)
    found, own = same(**{name: array})
    if own != dtype:
        raise TypeError(f"{name}: expected a NumPy array of {dtype} like the data, got {own}")
    if found != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {found}")
    return flat(array)


def flat(array):
    """The elements of array in C order as one axis: a view where the memory allows, else a copy. array: any."""
    return array.reshape(-1) if array.flags.carray else np.array(array, order="C").reshape(-1)


# --- results ----------------------------------------------------------------------------------------------------------


def output(out, shape, dtype, *inputs):
    """Where a kernel writes, and how: flat memory that overlaps no input, unless it is exactly that input's.

    out: None, or an array of that shape and dtype. inputs: the flat arrays that the kernel reads.
    Returns the flat memory, and DIRECT, AROUND or OVER; `finish` then makes the result of it.
    Raises TypeError or ValueError where out does not fit or cannot be written.
    """
    if out is None:
        memory = np.empty(shape, dtype).reshape(-1)
        return memory, AROUND if memory.nbytes > CACHE_BYTES else DIRECT
    if type(out) is not np.ndarray or out.dtype != dtype:
        raise TypeError(f"out: expected a NumPy array of {dtype}, got {_describe(out)}")
    if out.shape != shape:
        raise ValueError(f"out: expected shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out: expected a writable array, got a read-only one")
    if not out.flags.carray:
        return np.empty(out.size, dtype), DIRECT
    memory = out.reshape(-1)
    how = AROUND if memory.nbytes > CACHE_BYTES else DIRECT
    for x in inputs:
        if np.may_share_memory(memory, x):
            if not (memory.size == x.size and np.may_share_memory(memory[:1], x[:1])):
                if RECORDED.get() is not None:
                    raise ValueError("out: expected memory apart from the inputs or exactly one of them")
                return np.empty(out.size, dtype), DIRECT
            how = OVER
    return memory, how


def apart(outs):
    """Raises ValueError where two of several results share memory. outs: what a caller gave as `out`."""
    outs = [out for out in outs if type(out) is np.ndarray]
    for i, a in enumerate(outs):
        for b in outs[:i]:
            if np.may_share_memory(a, b) and np.shares_memory(a, b):
                raise ValueError("out: expected arrays that share no memory with each other, got an overlap")


def finish(memory, out, shape):
    """The result as the caller wants it: `out`, filled, or a new array.

    memory: from `output`. out: as given there. shape: the result's.
    """
    if out is None:
        return memory.reshape(shape)
    if memory.base is None:  # not a view of out
        out[...] = memory.reshape(shape)
    return out


def _describe(value):
    return f"{type(value).__name__} of {value.dtype}" if hasattr(value, "dtype") else type(value).__name__
