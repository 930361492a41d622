"""The GPU and its driver: whether there is one, devices, streams, memory. Without a GPU (or with TRITON_INTERPRET=1)
Triton's interpreter runs the same kernels on NumPy arrays, slowly, to show that they are right.
"""
import ctypes
import importlib
import os
import sys

import numpy as np

RELEASE_THRESHOLD, DEVICE_ORDINAL = 4, 9  # the driver's numbers of a pool's and of a pointer's attribute


def _devices():
    """(driver library, number of GPUs). No driver or no device is no GPU; a driver that fails is an error."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, 0
    count = ctypes.c_int(0)
    status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status in (34, 100):  # a stub of the driver; no device
        return None, 0
    if status:
        raise RuntimeError(f"an NVIDIA driver is installed but does not start: CUDA error {status}")
    return cuda, count.value


def _import_triton(interpreted):
    """Triton decides between the GPU and its interpreter when it is imported, for its own functions too."""
    before = os.environ.get("TRITON_INTERPRET")
    if interpreted and "triton" not in sys.modules:
        os.environ["TRITON_INTERPRET"] = "1"
    triton = importlib.import_module("triton")
    importlib.import_module("triton.language")
    chosen = triton.knobs.runtime.interpret
    if before is None:
        os.environ.pop("TRITON_INTERPRET", None)  # not for the processes that this one starts
    if interpreted and not chosen:
        raise ImportError("there is no GPU, and Triton was imported for one: set TRITON_INTERPRET=1 before the import")
    triton.knobs.runtime.interpret = chosen
    return triton, chosen


_cuda, GPUS = _devices()
triton, INTERPRETED = _import_triton(GPUS == 0)


def _call(function, *args):
    """A function of the driver, whose integers are 64 bits wide. Raises RuntimeError where its status is not 0."""
    status = function(*(ctypes.c_uint64(a) if isinstance(a, int) else a for a in args))
    if status:
        raise RuntimeError(f"CUDA error {status}")


def _current():
    return triton.runtime.driver.active.get_current_device()


def _stream():
    """The stream on which Triton launches."""
    return triton.runtime.driver.active.get_current_stream(_current())


def of_pointer(address):
    """The number of the device that an address lies on. address: int."""
    ordinal = ctypes.c_int(0)
    _call(_cuda.cuPointerGetAttribute, ctypes.byref(ordinal), DEVICE_ORDINAL, address)
    return ordinal.value


def at(address, work):
    """work(), with the device of an address as the current one. address: int. work: takes nothing."""
    if GPUS <= 1:
        return work()
    driver, before = triton.runtime.driver.active, _current()
    driver.set_current_device(of_pointer(address))
    try:
        return work()
    finally:
        driver.set_current_device(before)


_processors, _pools = {}, {}


def processors(address):
    """How many multiprocessors the device of an address has. address: int."""
    number = of_pointer(address) if GPUS > 1 else _current()
    if number not in _processors:
        _processors[number] = triton.runtime.driver.active.utils.get_device_properties(number)["multiprocessor_count"]
    return _processors[number]


def _pool(number):
    """The memory pool of a device. The driver's own releases its memory at every synchronisation, and another half
    millisecond goes by until it has it again."""
    if number not in _pools:
        pool, keep = ctypes.c_void_p(0), ctypes.c_uint64(2**64 - 1)
        # CUmemPoolProps, 88 bytes: pinned memory, no handles, of a device, its number; the rest is zero
        properties = np.array([1, 0, 1, number] + [0] * 18, np.int32)
        _call(_cuda.cuMemPoolCreate, ctypes.byref(pool), properties.ctypes.data)
        _call(_cuda.cuMemPoolSetAttribute, pool, RELEASE_THRESHOLD, ctypes.byref(keep))
        _pools[number] = pool
    return _pools[number]


class Memory:
    """Device memory of the stream that kernels run on, freed in that stream's order."""

    __slots__ = ("address", "stream")

    def __init__(self, nbytes, host=None):
        """nbytes: to allocate. host: a NumPy array that is copied to its beginning, or None."""
        self.stream, place, self.address = _stream(), ctypes.c_uint64(0), 0
        _call(_cuda.cuMemAllocFromPoolAsync, ctypes.byref(place), nbytes, _pool(_current()), self.stream)
        self.address = place.value
        if host is not None:  # from pageable memory, so read before this returns
            _call(_cuda.cuMemcpyHtoDAsync_v2, place, host.ctypes.data, host.nbytes, self.stream)

    def __del__(self):
        if self.address and ctypes and _cuda:  # at exit Python may have removed the names, and the driver frees all
            _cuda.cuMemFreeAsync(ctypes.c_uint64(self.address), ctypes.c_void_p(self.stream))


def fill(to, of, words):
    """Copies 32-bit words by the driver, or writes zeros where of is None. to, of: addresses. words: how many."""
    if of is None:
        _call(_cuda.cuMemsetD32Async, to, 0, words, _stream())
    else:
        _call(_cuda.cuMemcpyDtoDAsync_v2, to, of, 4 * words, _stream())


def read_int(address):
    """An int32 of the device, after all that was launched before. address: int."""
    found = ctypes.c_int32(0)
    _call(_cuda.cuMemcpyDtoH_v2, ctypes.byref(found), address, 4)
    return found.value


def synchronize(stream=None):
    """Waits for a stream, or for all of them. stream: int, or None."""
    _call(*(_cuda.cuCtxSynchronize,) if stream is None else (_cuda.cuStreamSynchronize, stream))


def resident(compiled):
    """How many programs of a compiled kernel one multiprocessor can run at the same time. compiled: of Triton."""
    compiled._init_handles()
    each, threads = ctypes.c_int(0), 32 * compiled.metadata.num_warps
    shared, function = compiled.metadata.shared, compiled.function
    _call(_cuda.cuOccupancyMaxActiveBlocksPerMultiprocessor, ctypes.byref(each), function, threads, shared)
    return each.value
