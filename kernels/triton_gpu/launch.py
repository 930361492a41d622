"""What every kernel here shares: the device, pointers, streams, the interpreter, argument checks. No mathematics.

Arrays: a torch CUDA tensor, or anything with `__cuda_array_interface__` (CuPy, numba-cuda, JAX), taken without a copy; what
comes back is of the kind that went in. Without a GPU (or with TRITON_INTERPRET=1) Triton's interpreter runs the same
kernels on NumPy arrays, slowly, to show that they are right.
"""
import ctypes
import importlib
import os
import sys
import warnings
from collections import namedtuple

import numpy as np

BLOCK = 1024  # elements of a program, 256 Philox blocks; with 4 warps a thread's stores are 16 bytes wide
NOISE_BLOCK = 2048  # where noise is most of the work: the round keys are made once for 4 Philox blocks of a thread
TILES = 8  # blocks of a program that sums, so that few partial sums are left
REDUCE = 4096  # partial sums taken at a time by the one program that adds them in order
HALVES = ("float16", "bfloat16")  # stored so; arithmetic is float32


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
        raise ImportError("there is no GPU, and Triton was imported for one: set TRITON_INTERPRET=1 before it is imported")
    triton.knobs.runtime.interpret = chosen
    return triton, chosen


_cuda, GPUS = _devices()
triton, INTERPRETED = _import_triton(GPUS == 0)

# One kind of array: shape, dtype (a name), device pointer, whether C-contiguous, and memory of the same kind
Kind = namedtuple("Kind", "name describe empty send receive")


class Pointer:
    """What a Triton launch wants to know of an array: where it begins and what it holds. Its owner lives as long."""

    __slots__ = ("address", "dtype", "owner")

    def __init__(self, address, dtype, owner):
        self.address, self.dtype, self.owner = address, dtype, owner

    def data_ptr(self):
        """The address, an int."""
        return self.address


class HostPointer(Pointer):
    """The same for the interpreter, which works on host memory as torch tensors would be handled; nothing is copied."""

    __slots__ = ()

    def untyped_storage(self):
        """Itself: the memory behind the array."""
        return self

    def cpu(self):
        """Itself: it is on the host."""
        return self

    def new_empty(self, *_, **__):
        """Itself, since `set_` will not move it."""
        return self

    def set_(self, *_):
        """Nothing to move."""

    def copy_(self, *_):
        """Nothing to copy back."""

    def storage_offset(self):
        """0."""
        return 0

    def size(self):
        """Not looked at."""
        return ()

    def stride(self):
        """Not looked at."""
        return ()


class _Location(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]


class _PoolProps(ctypes.Structure):
    _fields_ = [("alloc", ctypes.c_int), ("handles", ctypes.c_int), ("location", _Location), ("security", ctypes.c_void_p),
                ("most", ctypes.c_size_t), ("usage", ctypes.c_ushort), ("reserved", ctypes.c_ubyte * 54)]  # fmt: skip


_pools = {}


def _pool(device):
    """The pool of scratch memory of a device: the driver's own gives its memory back at every synchronisation, and to get it again takes half a millisecond."""
    if device not in _pools:
        pool, props, keep = ctypes.c_void_p(0), _PoolProps(alloc=1, location=_Location(1, device)), ctypes.c_uint64(2**64 - 1)  # pinned; on a device
        _check(_cuda.cuMemPoolCreate(ctypes.byref(pool), ctypes.byref(props)))
        _check(_cuda.cuMemPoolSetAttribute(pool, 4, ctypes.byref(keep)))  # 4: the release threshold
        _pools[device] = pool
    return _pools[device]


class Scratch:
    """Device memory of the stream that kernels run on; given back in that stream's order."""

    __slots__ = ("address", "stream")

    def __init__(self, nbytes, host=None):
        """nbytes: to allocate. host: what the first of them are filled with, or None."""
        driver = triton.runtime.driver.active
        device = driver.get_current_device()
        self.stream = ctypes.c_void_p(driver.get_current_stream(device))
        place, self.address = ctypes.c_uint64(0), 0
        _check(_cuda.cuMemAllocFromPoolAsync(ctypes.byref(place), ctypes.c_size_t(nbytes), _pool(device), self.stream))
        self.address = place.value
        if host is not None:  # from pageable memory, so read before this returns
            _check(_cuda.cuMemcpyHtoDAsync_v2(place, ctypes.c_void_p(host.ctypes.data), ctypes.c_size_t(host.nbytes), self.stream))

    def __del__(self):
        if self.address and ctypes and _cuda:  # at exit Python may have taken the names away, and the driver frees all
            _cuda.cuMemFreeAsync(ctypes.c_uint64(self.address), self.stream)


def scratch(host, near, filled=True):
    """A pointer to memory like the array host, with its values if filled, on the device of near. host: NumPy. near: `Arrays`."""
    dtype = _name(host.dtype)
    if INTERPRETED:
        return HostPointer(host.ctypes.data, dtype, host)
    if GPUS > 1:
        memory = _on_device(near.pointers[0], lambda: Scratch(host.nbytes, host if filled else None))
    else:
        memory = Scratch(host.nbytes, host if filled else None)
    return Pointer(memory.address, dtype, memory)


def workspace(near, *parts):
    """Pointers into one piece of new device memory, each at a multiple of 16 bytes. near: `Arrays`. parts: arrays, whose values it gets, and after
    them (elements, dtype) of what is not filled."""
    filled = [np.ascontiguousarray(part) for part in parts if isinstance(part, np.ndarray)]
    empty = parts[len(filled) :]
    dtypes = [_name(a.dtype) for a in filled] + [dtype for _, dtype in empty]
    sizes = [a.nbytes for a in filled] + [n * _itemsize(dtype) for n, dtype in empty]
    begins = np.cumsum([0, *(-(-max(size, 1) // 16) * 16 for size in sizes)]).tolist()
    head = np.zeros(begins[len(filled)], np.uint8)
    for begin, a in zip(begins, filled):
        head[begin : begin + a.nbytes] = a.reshape(-1).view(np.uint8)
    if INTERPRETED:
        memory = np.full(begins[-1] // 8, np.nan).view(np.uint8)  # what was not written shows
        memory[: head.size] = head
        return [HostPointer(memory.ctypes.data + begin, dtype, memory) for begin, dtype in zip(begins, dtypes)]
    memory = _on_device(near.pointers[0], lambda: Scratch(begins[-1], head)) if GPUS > 1 else Scratch(begins[-1], head)
    return [Pointer(memory.address + begin, dtype, memory) for begin, dtype in zip(begins, dtypes)]


def processors(near):
    """How many programs surely run at the same time: the multiprocessors of the device of near, or a few in the interpreter. near: `Arrays`."""
    if INTERPRETED:
        return 3
    device = _device(near.pointers[0]) if GPUS > 1 else triton.runtime.driver.active.get_current_device()
    if device not in _processors:
        _processors[device] = triton.runtime.driver.active.utils.get_device_properties(device)["multiprocessor_count"]
    return _processors[device]


_processors = {}
_names = {}


def _name(dtype):
    """The name of a NumPy or torch dtype; each is asked once, since that takes longer than a launch should."""
    if dtype not in _names:
        _names[dtype] = str(dtype).removeprefix("torch.")
    return _names[dtype]


def _of_torch(x):
    if not x.is_cuda:
        raise TypeError("expected a torch tensor on a GPU, got one on the host")
    return tuple(x.shape), _name(x.dtype), x.data_ptr(), x.is_contiguous(), None


def _of_numba(x):
    address = int(x.gpu_data.device_pointer) if x.size else 0
    return x.shape, _name(x.dtype), address, x.is_c_contiguous(), int(x.stream) if x.stream else None


def _of_interface(x):
    told = x.__cuda_array_interface__
    shape, itemsize = tuple(told["shape"]), int(told["typestr"][2:])
    strides, expected = told.get("strides"), []
    for n in reversed(shape):
        expected.insert(0, itemsize)
        itemsize *= max(n, 1)
    contiguous = strides is None or 0 in shape or all(s == e or n == 1 for s, e, n in zip(strides, expected, shape))
    return shape, _name(x.dtype), told["data"][0] or 0, contiguous, told.get("stream")


def _of_numpy(x):
    return x.shape, _name(x.dtype), x.ctypes.data, x.flags.c_contiguous and x.dtype.isnative, None


def _torch():
    torch = sys.modules["torch"]

    def send(a):
        if a.dtype.name == "bfloat16":  # torch does not know NumPy's
            return torch.from_numpy(a.view(np.int16)).cuda().view(torch.bfloat16)
        return torch.from_numpy(np.ascontiguousarray(a)).cuda()

    def receive(x):
        return (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()

    return Kind("torch", _of_torch, lambda shape, dtype: torch.empty(shape, dtype=getattr(torch, dtype), device="cuda"), send, receive)


def _cupy():
    cupy = sys.modules["cupy"]
    return Kind("cupy", _of_interface, cupy.empty, cupy.asarray, cupy.asnumpy)


def _numba():
    with warnings.catch_warnings():  # beside NumPy 2.5 its import warns
        warnings.simplefilter("ignore")
        from numba import cuda

    def empty(shape, dtype):  # half the time of numba's own, and it does not wait for the device
        dtype = np.dtype(dtype)
        memory = Scratch(max(int(np.prod(shape)) * dtype.itemsize, 1))
        described = dict(shape=shape, typestr=dtype.str, data=(memory.address, False), strides=None, version=3)
        return cuda.from_cuda_array_interface(described, owner=memory)

    return Kind("numba", _of_numba, empty, cuda.to_device, lambda x: x.copy_to_host())


def _jax():
    jax = sys.modules["jax"]
    return Kind("jax", _of_interface, lambda shape, dtype: jax.numpy.empty(shape, dtype).block_until_ready(), jax.device_put, np.asarray)


NUMPY = Kind("numpy", _of_numpy, np.empty, np.asarray, np.asarray)
MAKERS = {"torch": _torch, "cupy": _cupy, "numba": _numba, "numba_cuda": _numba, "jaxlib": _jax, "jax": _jax}
_kinds = {np.ndarray: NUMPY}


def kind_of(name, x):
    """The kind of array x is. name: for the message. Raises TypeError for none that is known."""
    kind = _kinds.get(type(x))
    if kind is None:
        root = type(x).__module__.partition(".")[0]
        if root not in MAKERS or not (hasattr(x, "__cuda_array_interface__") or root == "torch"):
            wanted = "a NumPy array" if INTERPRETED else "an array on a GPU (torch, CuPy, numba-cuda, JAX)"
            raise TypeError(f"{name}: expected {wanted}, got {type(x).__name__}")
        kind = _kinds[type(x)] = MAKERS[root]()
    if (kind is NUMPY) != INTERPRETED:
        wanted = "a NumPy array, since Triton's interpreter runs on the host" if INTERPRETED else "an array on a GPU"
        raise TypeError(f"{name}: expected {wanted}, got {type(x).__module__}.{type(x).__name__}")
    return kind


Arrays = namedtuple("Arrays", "kind shape dtype size pointers streams")


def read(dtypes, **arrays):
    """What the arguments of a kernel have in common, after the checks.

    dtypes: names that the kernel takes. arrays: name=array, all of one kind, shape, dtype and device, C-contiguous.
    Returns `Arrays`: kind, shape, dtype (a name), size, pointers in order, the streams that they name.
    Raises TypeError for another kind or dtype, ValueError for unequal shapes, strides, or devices.
    """
    first, pointers, streams = None, [], set()
    for name, x in arrays.items():
        kind = kind_of(name, x)
        shape, dtype, address, contiguous, its_stream = kind.describe(x)
        if first is None:
            first, first_name = (kind, shape, dtype), name
            if dtype not in dtypes:
                raise TypeError(f"{name}: expected {' or '.join(dtypes)}, got {dtype}")
        if kind is not first[0] or dtype != first[2]:
            raise TypeError(f"{name}: expected {first[0].name} {first[2]} like {first_name}, got {kind.name} {dtype}")
        if shape != first[1]:
            raise ValueError("expected equal shapes, got " + ", ".join(f"{n} {kind_of(n, a).describe(a)[0]}" for n, a in arrays.items()))
        _laid_out(name, dtype, address, contiguous)
        pointers.append(_pointer(address, dtype, x))
        streams.add(its_stream)
    _one_device(pointers)
    size = 1
    for n in first[1]:
        size *= n
    return Arrays(*first, size, pointers, streams)


def fresh(shape, dtype, out):
    """`Arrays` for a kernel that reads nothing: of out's kind, or where there is no out of the kind that `send` makes.

    shape: tuple of ints. dtype: name. out: an array or None.
    """
    size = 1
    for n in shape:
        size *= n
    kind = kind_of("out", out) if out is not None else NUMPY if INTERPRETED else _own()
    return Arrays(kind, shape, dtype, size, [], set())


def output(name, out, like):
    """The array that a kernel writes, and its pointer. name: for the message. out: None for a new one. like: `Arrays` that it resembles.

    Raises TypeError or ValueError where out is of another kind, dtype or shape, not contiguous or writable, or overlaps an
    input without being exactly that input's memory.
    """
    if out is None:
        out = like.kind.empty(like.shape, like.dtype)
        return out, _pointer(like.kind.describe(out)[2], like.dtype, out)
    kind = kind_of(name, out)
    if kind.name == "jax":
        raise TypeError(f"{name}: expected an array that may be written, got a JAX array, which may not")
    shape, dtype, address, contiguous, stream = kind.describe(out)
    if kind is not like.kind or dtype != like.dtype:
        raise TypeError(f"{name}: expected {like.kind.name} {like.dtype}, got {kind.name} {dtype}")
    if shape != like.shape:
        raise ValueError(f"{name}: expected shape {like.shape}, got {shape}")
    _laid_out(name, dtype, address, contiguous)
    if kind is NUMPY and not out.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    length = like.size * _itemsize(dtype)
    for x in like.pointers:
        if x.address != address and x.address < address + length and address < x.address + length:
            raise ValueError(f"{name}: expected memory apart from the inputs or exactly one of them, got an overlap")
    like.streams.add(stream)
    pointer = _pointer(address, dtype, out)
    if GPUS > 1:
        _one_device([*like.pointers, pointer])
    return out, pointer


def outputs(out, count, like):
    """`output` for an operation with count results: their arrays, and their pointers. out: None, or that many arrays. like: as there.

    Raises as `output` does, and ValueError where two of the results share memory.
    """
    made = [output(f"out[{i}]", None if out is None else out[i], like) for i in range(count)]
    arrays, pointers = [a for a, _ in made], [p for _, p in made]
    if out is not None:
        apart(*((p, like.size) for p in pointers))
    return arrays, pointers


def apart(*places):
    """Raises ValueError where two places share memory. places: (pointer, elements)."""
    spans = sorted((p.address, p.address + size * _itemsize(p.dtype)) for p, size in places)
    if any(end > begin for (_, end), (begin, _) in zip(spans, spans[1:])):
        raise ValueError("out: expected arrays that share no memory with each other, got an overlap")


Table = namedtuple("Table", "scalars pointer rows row_size how block")


def table(coefficients, like, block=BLOCK):
    """How a kernel finds its coefficients: a `Table` of scalars, pointer, rows, elements a row, how, elements a program.

    coefficients: (K, R) float64. like: `Arrays` of the data. block: elements a program. With R = 1 the scalars are the coefficients
    and nothing is sent; else a float32 table goes to the device. how: 0 scalars; 1 each program lies in one row; 2 in at most two;
    3 in several.
    """
    k, rows = coefficients.shape
    if rows == 1:
        return Table(coefficients[:, 0].tolist(), None, 1, 1, 0, block)
    if not like.size:
        return Table([0.0] * k, None, 1, 1, 0, block)
    n = like.size // rows
    how = 1 if n % block == 0 else 2 if n >= block else 3
    return Table([0.0] * k, scratch(coefficients.astype(np.float32), like), rows, n, how, block)


Partial = namedtuple("Partial", "pointer count")


def partial_sums(*arrays):
    """Memory for one float64 for each program that sums, over all of arrays: a `Partial`. Raises ValueError where an array is empty."""
    for a in arrays:
        some(a)
    count = sum(programs(a.size, BLOCK * TILES) for a in arrays)
    return Partial(scratch(np.empty(count), arrays[0], filled=False), count)


def some(arrays):
    """Raises ValueError where there is no element. arrays: `Arrays` of a loss."""
    if arrays.size == 0:
        raise ValueError(f"a loss: expected at least one element, got shape {arrays.shape}")


def pointer_to(x, kind):
    """Where x begins. x: an array. kind: its `Kind`."""
    _, dtype, address, _, _ = kind.describe(x)
    return _pointer(address, dtype, x)


def scalar(x):
    """x, which has no axes, as the caller gets it: a NumPy array becomes a number. x: an array."""
    return x[()] if isinstance(x, np.ndarray) else x


def words(key):
    """A noise key, (4,) uint32, as ints that Triton passes in 32 bits whatever they are."""
    return key.view(np.int32).tolist()


def run(kernel, grid, arrays, *args, warps=4, together=False, **constants):
    """kernel[(grid,)](*args, **constants) on the device and stream of its arrays. Nothing is done where grid is 0.

    kernel: from `triton.jit`. grid: programs. arrays: `Arrays`. args: pointers and numbers. warps: of a program. together: whether all
    programs have to run at the same time, since they wait for each other. constants: by name.
    """
    if grid == 0:
        return
    options = dict(num_warps=warps, enable_fp_fusion=False)  # a fused multiply-add is one that the kernel names: no choice, the same bits
    options |= dict(launch_cooperative_grid=True) if together else {}
    if INTERPRETED:
        with np.errstate(all="ignore"):
            kernel[(grid,)](*args, **constants)
        return
    foreign = arrays.streams - {None, 0, 1}  # 1 is the legacy default stream, which orders itself with the others
    for stream in foreign:
        _check(_cuda.cuStreamSynchronize(ctypes.c_void_p(stream)))
    try:
        if GPUS > 1:
            _on_device((arrays.pointers or args)[0], lambda: kernel[(grid,)](*args, **options, **constants))
        else:
            kernel[(grid,)](*args, **options, **constants)
    except RuntimeError as reason:
        if not together or "cooperative" not in str(reason):
            raise
        compiled = kernel.warmup(*args, grid=(grid,), **options, **constants)
        raise RuntimeError(f"{kernel.__name__}: needs {grid} programs at the same time, and {_fit(compiled, arrays)} fit on this device") from reason
    if foreign:
        _check(_cuda.cuCtxSynchronize())


def copy(to, of, size):
    """The driver's copy from device to device, a measure of the memory. to, of: pointers. size: bytes."""
    _check(_cuda.cuMemcpyDtoDAsync_v2(ctypes.c_uint64(to.address), ctypes.c_uint64(of.address), ctypes.c_size_t(size), None))


def _fit(compiled, near):
    """How many programs of a compiled kernel can run at the same time."""
    compiled._init_handles()
    each, threads = ctypes.c_int(0), 32 * compiled.metadata.num_warps
    _check(_cuda.cuOccupancyMaxActiveBlocksPerMultiprocessor(ctypes.byref(each), ctypes.c_void_p(compiled.function), threads, ctypes.c_size_t(compiled.metadata.shared)))
    return each.value * processors(near)


def fill(to, of, shape, near):
    """What of holds, or zeros where it is None, in new memory. to, of: pointers of float32. shape: of both. near: `Arrays`, on whose stream."""
    size = int(np.prod(shape))
    if INTERPRETED:
        there = to.owner.reshape(-1)
        there[:] = 0 if of is None else of.owner.reshape(-1)
        return
    driver = triton.runtime.driver.active

    def filled():
        stream = ctypes.c_void_p(driver.get_current_stream(driver.get_current_device()))
        if of is None:
            _check(_cuda.cuMemsetD32Async(ctypes.c_uint64(to.address), 0, ctypes.c_size_t(size), stream))
        else:
            _check(_cuda.cuMemcpyDtoDAsync_v2(ctypes.c_uint64(to.address), ctypes.c_uint64(of.address), ctypes.c_size_t(4 * size), stream))

    _on_device(near.pointers[0], filled) if GPUS > 1 else filled()


def word(pointer, i):
    """The i-th of pointer's int32, when the device has come so far. pointer: on the GPU. i: int."""
    found = ctypes.c_int32(0)
    _check(_cuda.cuMemcpyDtoH_v2(ctypes.byref(found), ctypes.c_uint64(pointer.address + 4 * i), ctypes.c_size_t(4)))
    return found.value


def programs(size, block):
    """How many programs cover size elements, block each. size, block: ints."""
    return -(-size // block)


def send(array):
    """A NumPy array as one that the kernels take: on the GPU by numba-cuda, by torch where that is not there or for bfloat16; as it is
    in the interpreter. array: NumPy."""
    if INTERPRETED:
        return array
    if array.dtype.name == "bfloat16":
        importlib.import_module("torch")
        return _torch().send(array)
    return _own().send(array)


def receive(x):
    """The other way: what a kernel returned, as a NumPy array (bfloat16 as float32). x: an array of a known kind, or what is on the host."""
    return x if isinstance(x, (float, np.ndarray)) else kind_of("x", x).receive(x)


def _itemsize(dtype):
    return 2 if dtype in HALVES else np.dtype(dtype).itemsize


def _laid_out(name, dtype, address, contiguous):
    if not contiguous:
        raise ValueError(f"{name}: expected a C-contiguous array, got strides; copy it first")
    if address % _itemsize(dtype):
        raise ValueError(f"{name}: expected memory that begins at a multiple of the {dtype} size, got address {address:#x}")


def _own():
    """The kind of array for somebody who has none: the `gpu` extra's, or that of a torch which is there anyway."""
    try:
        return _numba()
    except ImportError:
        importlib.import_module("torch")
        return _torch()


def _pointer(address, dtype, owner):
    return (HostPointer if INTERPRETED else Pointer)(address, dtype, owner)


def _one_device(pointers):
    if GPUS > 1 and not INTERPRETED:
        places = {_device(p) for p in pointers if p.address}
        if len(places) > 1:
            raise ValueError(f"expected arrays on one device, got devices {sorted(places)}")


def _device(pointer):
    ordinal = ctypes.c_int(0)
    _check(_cuda.cuPointerGetAttribute(ctypes.byref(ordinal), 9, ctypes.c_uint64(pointer.address)))  # 9: device ordinal
    return ordinal.value


def _on_device(pointer, launch):
    driver = triton.runtime.driver.active
    before, wanted = driver.get_current_device(), _device(pointer)
    driver.set_current_device(wanted)
    try:
        return launch()
    finally:
        driver.set_current_device(before)


def _check(status):
    if status:
        raise RuntimeError(f"CUDA error {status}")
