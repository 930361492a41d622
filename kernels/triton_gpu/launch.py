"""How a kernel is launched, on the device and stream of its arrays, and the scratch memory that it works in."""
import functools
import itertools
import math

import numpy as np

from kernels import coefficients
from kernels.prepare import RECORDED, note
from kernels.triton_gpu import device
from kernels.triton_gpu.arrays import HostPointer, Pointer, dtype_name, itemsize

ALIGNED = 256  # bytes: a part of a workspace shares no cache line with another, such as a counter that programs poll


def programs(size, block):
    """How many programs cover size elements, block each. size, block: ints."""
    return -(-size // block)


def run(kernel, grid, arrays, *args, warps=4, together=False, registers=None, **constants):
    """kernel[(grid,)](*args, **constants) on the device and stream of its arrays. Nothing is done where grid is 0.

    kernel: from `triton.jit`. grid: programs. arrays: `Arrays`. args: pointers and numbers. warps: of a program.
    together: whether all programs have to run at the same time, since they wait for each other. registers: the most of
    a thread, so that more programs run next to each other, or None. constants: by name.
    """
    if grid == 0:
        return
    options = warps, together, registers
    if RECORDED.get() is not None:
        _note(kernel, grid, arrays, args, options, constants)
    if device.INTERPRETED:
        with np.errstate(all="ignore"):
            kernel[(grid,)](*args, **constants)
        return
    foreign = arrays.streams - device.OWN
    for stream in foreign:
        device.synchronize(stream)
    try:
        if device.GPUS > 1:
            device.at(_anywhere(arrays, args), lambda: _start(kernel, grid, args, options, constants))
        else:
            _start(kernel, grid, args, options, constants)
    except RuntimeError as reason:
        if not together or "cooperative" not in str(reason):
            raise
        compiled = kernel.warmup(*args, grid=(grid,), **_options(warps, together), **constants)
        fit = device.resident(compiled) * processors(arrays)
        message = f"{kernel.__name__}: needs {grid} programs at the same time, and {fit} fit on this device"
        raise RuntimeError(message) from reason
    if foreign:
        device.synchronize()


def _note(kernel, grid, arrays, args, options, constants):
    """Notes the launch for `kernels.prepare`, with fresh words of its noise. Arguments as in `run`."""
    warps, together, registers = options
    if together:
        raise TypeError("a loop whose programs wait for each other cannot be prepared")
    names, start = kernel.arg_names, None
    key = names.index("k0") if "k0" in names else None
    alone = not device.INTERPRETED and device.GPUS == 1 and not arrays.streams - device.OWN

    def again(seed, stream):
        nonlocal start
        now = args if key is None else (*args[:key], *key_words(seed, stream), *args[key + 4 :])
        if not alone:
            run(kernel, grid, arrays, *now, warps=warps, registers=registers, **constants)
            return
        if start is None:
            start = _compiled[_traits_of(kernel, args, options, constants)][grid, 1, 1]
        start(*now, *constants.values())

    bare = functools.partial(kernel[(grid,)], *args, **_options(*options), **constants)
    note(again, key is not None, bare)


def key_words(seed, stream):
    """The four words of a key as ints that Triton passes in 32 bits. seed, stream: ints in [0, 2**64)."""
    return coefficients.noise_key(seed, stream).view(np.int32).tolist()


def _options(warps, together, registers=None):
    # a fused multiply-add is one that the kernel names, so that the bits do not depend on a compiler's choice
    options = dict(num_warps=warps, enable_fp_fusion=False)
    options |= {"maxnreg": registers} if registers else {}
    return options | {"launch_cooperative_grid": True} if together else options


_compiled = {}  # what Triton made, by all that it depends on


def _start(kernel, grid, args, options, constants):
    """A launch of what Triton has compiled before: its own binding of many arguments takes 10 to 40 us. Constants stand
    last, in the kernel's order."""
    key = _traits_of(kernel, args, options, constants)
    compiled = _compiled.get(key)
    if compiled is None:
        _compiled[key] = kernel[(grid,)](*args, **_options(*options), **constants)
    else:
        compiled[(grid, 1, 1)](*args, *constants.values())


def _traits_of(kernel, args, options, constants):
    """All that the code of a launch depends on, as a key."""
    split = kernel.constexprs[0]
    number = device.current() if device.GPUS > 1 else 0
    return kernel.fn, number, *options, _traits(args[:split]), args[split:], *constants.values()


def _traits(args):
    """What compiled code depends on of arguments: types, and all that Triton may assume of a pointer or an integer."""
    traits = []
    for x in args:
        kind = type(x)
        if kind is Pointer:
            traits.append((x.dtype, x.address & 15))
        elif kind is int:
            traits.append((x & 15, x == 1, x.bit_length() > 31, x.bit_length() > 63))
        elif kind is float:
            traits.append(float)
        else:
            traits.append(_traits(x) if isinstance(x, tuple) else x)
    return tuple(traits)


def _anywhere(arrays, args):
    """An address on the device of a launch: of its arrays, or of the first result where it has no other."""
    first = arrays.pointers[0] if arrays.pointers else args[0]
    return (first[0] if isinstance(first, tuple) else first).address


def processors(near):
    """How many programs surely run at the same time: the multiprocessors of the device, or a few in the interpreter.
    near: `Arrays`."""
    return 3 if device.INTERPRETED else device.processors(near.pointers[0].address)


def _memory(near, nbytes, host):
    """New device memory near arrays, whose beginning is a copy of host."""
    if device.GPUS > 1:
        return device.at(near.pointers[0].address, lambda: device.Memory(nbytes, host))
    return device.Memory(nbytes, host)


def scratch(host, near, filled=True):
    """A pointer to memory like the array host, with its values if filled, on the device of near. host: NumPy.
    near: `Arrays`."""
    dtype = dtype_name(host.dtype)
    if device.INTERPRETED:
        return HostPointer(host.ctypes.data, dtype, host)
    memory = _memory(near, host.nbytes, host if filled else None)
    return Pointer(memory.address, dtype, memory)


def workspace(near, filled=(), empty=()):
    """Pointers into one new piece of device memory. near: `Arrays`. filled: arrays whose values it gets. empty:
    (elements, dtype) of further parts. Returns a list of pointers, first those of filled."""
    filled = [np.ascontiguousarray(part) for part in filled]
    dtypes = [dtype_name(a.dtype) for a in filled] + [dtype for _, dtype in empty]
    sizes = [a.nbytes for a in filled] + [n * itemsize(dtype) for n, dtype in empty]
    begins = list(itertools.accumulate((programs(max(size, 1), ALIGNED) * ALIGNED for size in sizes), initial=0))
    head = np.zeros(begins[len(filled)], np.uint8) if filled else None
    for begin, a in zip(begins, filled):
        head[begin : begin + a.nbytes] = a.reshape(-1).view(np.uint8)
    if device.INTERPRETED:
        memory = np.full(begins[-1] // 8, np.nan).view(np.uint8)  # a read of what was never written shows
        memory[: begins[len(filled)]] = 0 if head is None else head
        return [HostPointer(memory.ctypes.data + begin, dtype, memory) for begin, dtype in zip(begins, dtypes)]
    memory = _memory(near, begins[-1], head)
    return [Pointer(memory.address + begin, dtype, memory) for begin, dtype in zip(begins, dtypes)]


def fill(to, of, shape, near):
    """Copies float32 memory, or writes zeros. to: pointer. of: pointer, or None for zeros. shape: of both.
    near: `Arrays`."""
    size = math.prod(shape)
    if device.INTERPRETED:
        to.owner.reshape(-1)[:] = 0 if of is None else of.owner.reshape(-1)
    else:
        device.at(near.pointers[0].address, lambda: device.fill(to.address, of and of.address, size))


def read_back(of, near, count):
    """The first elements of a part of a workspace as a NumPy array, after all that was launched before. of: pointer.
    near: `Arrays`. count: int."""
    if device.INTERPRETED:
        begin = of.address - of.owner.ctypes.data
        return of.owner[begin : begin + count * itemsize(of.dtype)].view(of.dtype)
    return device.at(near.pointers[0].address, lambda: device.read_back(of.address, of.dtype, count))
