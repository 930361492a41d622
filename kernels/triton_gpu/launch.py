"""How a kernel is launched, on the device and stream of its arrays, and the scratch memory that it works in."""
from collections import namedtuple

import numpy as np
import triton

from kernels.triton_gpu import device
from kernels.triton_gpu.arrays import Pointer, dtype_name, itemsize

ALIGNED = 256  # bytes: a part of a workspace shares no cache line with another, such as a counter that programs poll
_groups = {}


def group(**values):
    """A named tuple, for many arguments of a kernel in one. values: by name."""
    names = tuple(values)
    if names not in _groups:
        _groups[names] = namedtuple("Group", names)
    return _groups[names](**values)


def run(kernel, grid, arrays, *args, warps=4, together=False, **constants):
    """kernel[(grid,)](*args, **constants) on the device and stream of its arrays. Nothing is done where grid is 0.

    kernel: from `triton.jit`. grid: programs. arrays: `Arrays`. args: pointers and numbers. warps: of a program.
    together: whether all programs have to run at the same time, since they wait for each other. constants: by name.
    """
    if grid == 0:
        return
    if device.INTERPRETED:
        with np.errstate(all="ignore"):
            kernel[(grid,)](*args, **constants)
        return
    # a fused multiply-add is one that the kernel names, so that the bits do not depend on a compiler's choice
    options = dict(num_warps=warps, enable_fp_fusion=False, launch_cooperative_grid=together) | constants
    foreign = arrays.streams - {None, 0, 1}  # 1 is the legacy default stream, which orders itself with the others
    for stream in foreign:
        device.synchronize(stream)
    try:
        if device.GPUS > 1:
            first = (*arrays.pointers, args[0])[0]  # of a kernel that reads nothing, its result
            device.at(first.address, lambda: kernel[(grid,)](*args, **options))
        else:
            kernel[(grid,)](*args, **options)
    except RuntimeError as reason:
        if not together or "cooperative" not in str(reason):
            raise
        fit = device.resident(kernel.warmup(*args, grid=(grid,), **options)) * processors(arrays)
        message = f"{kernel.__name__}: needs {grid} programs at the same time, and {fit} fit on this device"
        raise RuntimeError(message) from reason
    if foreign:
        device.synchronize()


def processors(near):
    """How many programs surely run at the same time: the multiprocessors of the device, or a few in the interpreter.
    near: `Arrays`."""
    return 3 if device.INTERPRETED else device.processors(near.pointers[0].address)


def _memory(near, nbytes, host):
    """New device memory near arrays, whose beginning is a copy of host."""
    return device.at(near.pointers[0].address, lambda: device.Memory(nbytes, host))


def scratch(host, near, filled=True):
    """A pointer to memory like the array host, with its values if filled, near `Arrays`."""
    owner = host if device.INTERPRETED else _memory(near, host.nbytes, host if filled else None)
    return Pointer(host.ctypes.data if device.INTERPRETED else owner.address, dtype_name(host.dtype), owner)


def workspace(near, **parts):
    """A `group` of pointers into one new piece of device memory. near: `Arrays`. parts: arrays whose values it gets,
    (elements, dtype) of memory that stays unset, or what is passed on as it is."""
    filled = {name: np.ascontiguousarray(a) for name, a in parts.items() if isinstance(a, np.ndarray)}
    sizes = {name: (a.nbytes, dtype_name(a.dtype)) for name, a in filled.items()}
    sizes |= {name: (part[0] * itemsize(part[1]), part[1]) for name, part in parts.items() if type(part) is tuple}
    begins = np.cumsum([0, *(triton.cdiv(max(size, 1), ALIGNED) * ALIGNED for size, _ in sizes.values())]).tolist()
    head = np.zeros(begins[len(filled)], np.uint8)
    for begin, a in zip(begins, filled.values()):
        head[begin : begin + a.nbytes] = a.reshape(-1).view(np.uint8)
    if device.INTERPRETED:
        owner = np.full(begins[-1] // 8, np.nan).view(np.uint8)  # a read of what was never written shows
        owner[: head.size] = head
    else:
        owner = _memory(near, begins[-1], head)
    first = owner.ctypes.data if device.INTERPRETED else owner.address
    pointers = {n: Pointer(first + begin, dtype, owner) for begin, (n, (_, dtype)) in zip(begins, sizes.items())}
    return group(**parts | pointers)


def fill(to, of, size, near):
    """Copies size float32 numbers, or writes zeros. to: pointer. of: pointer, or None for zeros. near: `Arrays`."""
    if device.INTERPRETED:
        to.owner.reshape(-1)[:] = 0 if of is None else of.owner.reshape(-1)
    else:
        device.at(near.pointers[0].address, lambda: device.fill(to.address, of and of.address, size))
