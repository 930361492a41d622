"""The GPU and its driver: whether there is one, devices, streams, memory. Without a GPU (or with TRITON_INTERPRET=1)
Triton's interpreter runs the same kernels on NumPy arrays, slowly, to show that they are right.
"""
import contextlib
import ctypes
import functools
import importlib
import logging
import os
import sys
import tempfile

import numpy as np

RELEASE_THRESHOLD, DEVICE_ORDINAL = 4, 9  # the driver's numbers of a pool's and of a pointer's attribute
SOUND = 12, 9  # of ptxas: 12.8 makes wrong code of attention's many `wgmma`, at every level of optimisation but 0


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


def _kept(triton):
    """None, or a temporary folder for compiled code, where Triton's own is full or read-only: it cannot do without."""
    try:
        os.makedirs(triton.knobs.cache.dir, exist_ok=True)
        with tempfile.TemporaryFile(dir=triton.knobs.cache.dir) as file:
            file.write(bytes(1 << 20))
    except OSError as reason:
        said = "compiled code is not kept, so each process compiles its own: %s. TRITON_CACHE_DIR names another folder"
        logging.getLogger(__name__).warning(said, reason)
        folder = tempfile.TemporaryDirectory(prefix="triton-")
        triton.knobs.cache.dir = folder.name
        return folder
    return None


def _patch_once(interpreter):
    """At every call of a device function the interpreter searches the whole language for what it has to replace, finds
    it replaced by the launch, and has lost a third of its time. Here it searches once a launch for each file. And it
    makes its table of dtypes for every look-up, a tenth of its time; here it looks up each dtype once.
    interpreter: Triton's module, whose `_patch_lang(fn)` returns what takes it back."""
    patch, files, dtype_of = interpreter._patch_lang, set(), interpreter._get_np_dtype
    known, scalar = functools.cache(dtype_of), interpreter.tl.dtype

    def once(fn):
        if id(fn.__globals__) in files:
            return None
        scope = patch(fn)
        if not files:  # the launch, which alone takes it back
            restore = scope.restore
            scope.restore = lambda: files.clear() or restore()
        files.add(id(fn.__globals__))
        return scope

    interpreter._patch_lang = once
    # of a block its elements' dtype; pointers, which cannot be hashed, as they were
    interpreter._get_np_dtype = lambda kind: (known if type(kind.scalar) is scalar else dtype_of)(kind.scalar)


OWN = {None, 0, 1}  # streams whose order is that of the kernels; 1 is the legacy default stream, as 0
_allocate = None  # where memory comes from, within `recording_on`
cuda, GPUS = _devices()
triton, INTERPRETED = _import_triton(GPUS == 0)
_folder = None if INTERPRETED else _kept(triton)  # removed at exit
if INTERPRETED and hasattr(triton.runtime.interpreter, "_LangPatchScope"):
    _patch_once(triton.runtime.interpreter)


def check(status):
    """Raises RuntimeError for a status of the driver that is not 0. status: int."""
    if status:
        raise RuntimeError(f"CUDA error {status}")


def current():
    """The number of the device on which Triton launches."""
    return triton.runtime.driver.active.get_current_device()


def stream():
    """The stream on which Triton launches, as the driver takes it."""
    return ctypes.c_void_p(triton.runtime.driver.active.get_current_stream(current()))


@contextlib.contextmanager
def recording_on(number, allocate):
    """Within it Triton launches on another stream, and memory comes from elsewhere. number: of the stream, an int.
    allocate: of bytes, its result has a ptr."""
    global _allocate
    driver, _allocate = triton.runtime.driver.active, allocate
    before, driver.get_current_stream = driver.get_current_stream, lambda _: number
    OWN.add(number)
    try:
        yield
    finally:
        driver.get_current_stream, _allocate = before, None
        OWN.discard(number)


def of_pointer(address):
    """The number of the device that an address lies on. address: int."""
    ordinal = ctypes.c_int(0)
    check(cuda.cuPointerGetAttribute(ctypes.byref(ordinal), DEVICE_ORDINAL, ctypes.c_uint64(address)))
    return ordinal.value


def at(address, work):
    """work(), with the device of an address as the current one. address: int. work: takes nothing."""
    if GPUS <= 1:
        return work()
    driver, before = triton.runtime.driver.active, current()
    driver.set_current_device(of_pointer(address))
    try:
        return work()
    finally:
        driver.set_current_device(before)


@functools.cache
def sound():
    """Whether the assembler makes right code of many of Hopper's own products in one kernel."""
    if INTERPRETED or triton.runtime.driver.active.get_current_target().arch // 10 != 9:
        return True
    version = triton.knobs.nvidia.ptxas.version
    if tuple(map(int, version.split("."))) >= SOUND:
        return True
    said = "attention does without wgmma, of which ptxas %s makes wrong code. TRITON_PTXAS_PATH names a newer one"
    logging.getLogger(__name__).warning(said, version)
    return False


@contextlib.contextmanager
def products():
    """Within it Triton compiles no `wgmma` unless the assembler is `sound` (then `mma`, as for an older GPU)."""
    name = "DISABLE_MMA_V3"
    before = os.environ.get(name)
    if not sound():
        os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name, None)
        os.environ |= {} if before is None else {name: before}


_processors = {}


def processors(address):
    """How many multiprocessors the device of an address has. address: int."""
    number = of_pointer(address) if GPUS > 1 else current()
    if number not in _processors:
        _processors[number] = triton.runtime.driver.active.utils.get_device_properties(number)["multiprocessor_count"]
    return _processors[number]


class _Location(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]


class _PoolProperties(ctypes.Structure):
    _fields_ = [("alloc", ctypes.c_int), ("handles", ctypes.c_int), ("location", _Location),
                ("security", ctypes.c_void_p), ("most", ctypes.c_size_t), ("usage", ctypes.c_ushort),
                ("reserved", ctypes.c_ubyte * 54)]  # fmt: skip


_pools = {}


def _pool(number):
    """The memory pool of a device. The driver's own releases its memory at every synchronisation, and another half
    millisecond goes by until it has it again."""
    if number not in _pools:
        pool, keep = ctypes.c_void_p(0), ctypes.c_uint64(2**64 - 1)
        properties = _PoolProperties(alloc=1, location=_Location(1, number))  # pinned memory of a device
        check(cuda.cuMemPoolCreate(ctypes.byref(pool), ctypes.byref(properties)))
        check(cuda.cuMemPoolSetAttribute(pool, RELEASE_THRESHOLD, ctypes.byref(keep)))
        _pools[number] = pool
    return _pools[number]


class Memory:
    """Device memory of the stream that kernels run on, freed in that stream's order."""

    __slots__ = ("address", "stream", "owner")

    def __init__(self, nbytes, host=None):
        """nbytes: to allocate. host: a NumPy array that is copied to its beginning, or None."""
        self.stream, place, self.address, self.owner = stream(), ctypes.c_uint64(0), 0, None
        if _allocate is not None:
            if host is not None and host.nbytes:
                raise RuntimeError("a copy from the host cannot be recorded")
            self.owner = _allocate(nbytes)
            self.address = self.owner.ptr
            return
        check(cuda.cuMemAllocFromPoolAsync(ctypes.byref(place), ctypes.c_size_t(nbytes), _pool(current()), self.stream))
        self.address = place.value
        if host is not None:  # from pageable memory, so read before this returns
            source, size = ctypes.c_void_p(host.ctypes.data), ctypes.c_size_t(host.nbytes)
            check(cuda.cuMemcpyHtoDAsync_v2(place, source, size, self.stream))

    def __del__(self):
        ours = self.address and self.owner is None
        if ours and ctypes and cuda:  # at exit Python may have removed the names, and the driver frees all
            cuda.cuMemFreeAsync(ctypes.c_uint64(self.address), self.stream)


def copy(to, of, nbytes):
    """The driver's copy within a device, on the default stream: a measure of the memory. to, of: addresses.
    nbytes: int."""
    check(cuda.cuMemcpyDtoDAsync_v2(ctypes.c_uint64(to), ctypes.c_uint64(of), ctypes.c_size_t(nbytes), None))


def fill(to, of, words):
    """Copies 32-bit words, or writes zeros, on the stream of the kernels. to: address. of: address, or None for zeros.
    words: how many."""
    place = ctypes.c_uint64(to)
    if of is None:
        check(cuda.cuMemsetD32Async(place, 0, ctypes.c_size_t(words), stream()))
    else:
        check(cuda.cuMemcpyDtoDAsync_v2(place, ctypes.c_uint64(of), ctypes.c_size_t(4 * words), stream()))


def read_back(address, dtype, count):
    """A NumPy array of what the device holds, after all that was launched before. address: int. dtype: name. count: of
    elements."""
    found = np.empty(count, dtype)
    place = ctypes.c_void_p(found.ctypes.data)
    check(cuda.cuMemcpyDtoHAsync_v2(place, ctypes.c_uint64(address), ctypes.c_size_t(found.nbytes), stream()))
    check(cuda.cuStreamSynchronize(stream()))
    return found


def synchronize(stream_number=None):
    """Waits for a stream, or for all of them. stream_number: int, or None."""
    everything = stream_number is None
    check(cuda.cuCtxSynchronize() if everything else cuda.cuStreamSynchronize(ctypes.c_void_p(stream_number)))


def resident(compiled):
    """How many programs of a compiled kernel one multiprocessor can run at the same time. compiled: of Triton."""
    compiled._init_handles()
    each, function = ctypes.c_int(0), ctypes.c_void_p(compiled.function)
    threads, shared = 32 * compiled.metadata.num_warps, ctypes.c_size_t(compiled.metadata.shared)
    check(cuda.cuOccupancyMaxActiveBlocksPerMultiprocessor(ctypes.byref(each), function, threads, shared))
    return each.value
