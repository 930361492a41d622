"""Arrays of torch (CUDA), CuPy, numba-cuda, JAX and, in the interpreter, NumPy: their pointers without a copy, the
checks of a kernel's arguments, and new arrays of the kind that was given. `Bfloat16` holds what a library has not.
"""
import functools
import importlib
import math
import sys
import warnings
from collections import namedtuple

import numpy as np

from kernels.triton_gpu import device
from kernels.triton_gpu.bfloat16 import Bfloat16, kind_of_bits

HALVES = ("float16", "bfloat16")  # stored so; arithmetic is float32
SINGLE = ("float32",)
STORED = ("float32", *HALVES)

# One kind of array. describe(x) -> shape, dtype (a name), address, whether C-contiguous, its stream or None.
# empty(shape, dtype) makes one; send and receive are `send` and `receive` of this kind.
Kind = namedtuple("Kind", "name describe empty send receive")
# What the arguments of a kernel have in common. dtype: a name. streams: those that the arrays name.
Arrays = namedtuple("Arrays", "kind shape dtype size pointers streams")


class Pointer:
    """An array as a Triton launch takes it: where it begins and what it holds.
    It keeps the owner of the memory alive."""

    __slots__ = ("address", "dtype", "owner")

    def __init__(self, address, dtype, owner):
        self.address, self.dtype, self.owner = address, dtype, owner

    def data_ptr(self):
        """The address, an int."""
        return self.address


class HostPointer(Pointer):
    """The same for the interpreter, which treats it as a torch tensor that it moves to the host and back; nothing moves
    ."""

    __slots__ = ()

    def _itself(self, *_, **__):
        return self

    def _nothing(self, *_):
        return ()

    untyped_storage = cpu = new_empty = _itself
    set_ = copy_ = storage_offset = size = stride = _nothing


_names = {}


def dtype_name(dtype):
    """The name of a NumPy or torch dtype, remembered, since str takes longer than a launch should.
    dtype: of an array."""
    if dtype not in _names:
        _names[dtype] = str(dtype).removeprefix("torch.")
    return _names[dtype]


def itemsize(dtype):
    """Bytes of an element. dtype: name."""
    return 2 if dtype in HALVES else np.dtype(dtype).itemsize


def _of_torch(x):
    if not x.is_cuda:
        raise TypeError("expected a torch tensor on a GPU, got one on the host")
    return tuple(x.shape), dtype_name(x.dtype), x.data_ptr(), x.is_contiguous(), None


def _of_numba(x):
    address = int(x.gpu_data.device_pointer) if x.size else 0
    return x.shape, dtype_name(x.dtype), address, x.is_c_contiguous(), int(x.stream) if x.stream else None


def _of_interface(x):
    described = x.__cuda_array_interface__
    shape, step = tuple(described["shape"]), int(described["typestr"][2:])
    strides, expected = described.get("strides"), []
    for n in reversed(shape):
        expected.insert(0, step)
        step *= max(n, 1)
    contiguous = strides is None or 0 in shape or all(s == e or n == 1 for s, e, n in zip(strides, expected, shape))
    return shape, dtype_name(x.dtype), described["data"][0] or 0, contiguous, described.get("stream")


def _of_numpy(x):
    return x.shape, dtype_name(x.dtype), x.ctypes.data, x.flags.c_contiguous and x.dtype.isnative, None


def _torch():
    torch = sys.modules["torch"]

    def empty(shape, dtype):
        return torch.empty(shape, dtype=getattr(torch, dtype), device="cuda")

    def send(a):
        if a.dtype.name == "bfloat16":  # torch does not know NumPy's
            return torch.from_numpy(a.view(np.int16)).cuda().view(torch.bfloat16)
        return torch.from_numpy(np.ascontiguousarray(a)).cuda()

    def receive(x):
        return (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()

    return Kind("torch", _of_torch, empty, send, receive)


def _cupy():
    cupy = sys.modules["cupy"]
    return Kind("cupy", _of_interface, cupy.empty, cupy.asarray, cupy.asnumpy)


@functools.cache
def _numba():
    with warnings.catch_warnings():  # with NumPy 2.5 its import warns
        warnings.simplefilter("ignore")
        from numba import cuda

    def empty(shape, dtype):  # half the time of numba's own, and it does not wait for the device
        dtype = np.dtype(dtype)
        memory = device.Memory(max(int(np.prod(shape)) * dtype.itemsize, 1))
        described = dict(shape=shape, typestr=dtype.str, data=(memory.address, False), strides=None, version=3)
        return cuda.from_cuda_array_interface(described, owner=memory)

    return Kind("numba", _of_numba, empty, cuda.to_device, lambda x: x.copy_to_host())


def _jax():
    jax = sys.modules["jax"]

    def empty(shape, dtype):
        return jax.numpy.empty(shape, dtype).block_until_ready()

    return Kind("jax", _of_interface, empty, jax.device_put, np.asarray)


NUMPY = Kind("numpy", _of_numpy, np.empty, np.asarray, np.asarray)
MAKERS = {"torch": _torch, "cupy": _cupy, "numba": _numba, "numba_cuda": _numba, "jaxlib": _jax, "jax": _jax}
_kinds = {np.ndarray: NUMPY}


def kind_of(name, x):
    """The `Kind` of x. name: for the message. x: an array.
    Raises TypeError for an unknown one, or one on the other side."""
    if type(x) is Bfloat16:
        return kind_of_bits(kind_of(name, x.bits))
    kind = _kinds.get(type(x))
    if kind is None:
        root = type(x).__module__.partition(".")[0]
        if root not in MAKERS or not (hasattr(x, "__cuda_array_interface__") or root == "torch"):
            wanted = "a NumPy array" if device.INTERPRETED else "an array on a GPU (torch, CuPy, numba-cuda, JAX)"
            raise TypeError(f"{name}: expected {wanted}, got {type(x).__name__}")
        kind = _kinds[type(x)] = MAKERS[root]()
    if (kind is NUMPY) != device.INTERPRETED:
        host = "a NumPy array, since Triton's interpreter runs on the host"
        wanted = host if device.INTERPRETED else "an array on a GPU"
        raise TypeError(f"{name}: expected {wanted}, got {type(x).__module__}.{type(x).__name__}")
    return kind


def _default(dtype="float32"):
    """The kind for a caller who has no array yet: numba-cuda's, or torch's where numba-cuda is not installed. dtype: a
    name, of what is to be held."""
    if device.INTERPRETED:
        return NUMPY
    try:
        return kind_of_bits(_numba()) if dtype == "bfloat16" else _numba()
    except ImportError:
        importlib.import_module("torch")
        return _torch()


def send(array):
    """A NumPy array as one that the kernels take: on the GPU by numba-cuda, by torch without numba-cuda; in the
    interpreter itself. array: NumPy."""
    return array if device.INTERPRETED else _default(array.dtype.name).send(array)


def receive(x):
    """The result of a kernel as a NumPy array (bfloat16 as float32). x: an array of a known kind, or of the host."""
    return x if isinstance(x, (float, np.ndarray)) else kind_of("x", x).receive(x)


def host_or_device(address, dtype, owner):
    """A `Pointer` for where the kernels run. address: int. dtype: name. owner: of the memory."""
    return (HostPointer if device.INTERPRETED else Pointer)(address, dtype, owner)


def pointer_to(x, kind):
    """A `Pointer` to the beginning of x. x: an array. kind: its `Kind`."""
    _, dtype, address, _, _ = kind.describe(x)
    return host_or_device(address, dtype, x)


def read(dtypes, **arrays):
    """`Arrays`: what the arguments of a kernel have in common, after the checks.

    dtypes: names that the kernel takes. arrays: name=array, all of one kind, shape, dtype and device, C-contiguous.
    Raises TypeError for another kind or dtype, ValueError for unequal shapes, strides, or devices.
    """
    first, pointers, streams = None, [], set()
    for name, x in arrays.items():
        kind = kind_of(name, x)
        shape, dtype, address, contiguous, stream = kind.describe(x)
        if first is None:
            first, first_name = (kind, shape, dtype), name
            if dtype not in dtypes:
                raise TypeError(f"{name}: expected {' or '.join(dtypes)}, got {dtype}")
        if kind is not first[0] or dtype != first[2]:
            raise TypeError(f"{name}: expected {first[0].name} {first[2]} like {first_name}, got {kind.name} {dtype}")
        if shape != first[1]:
            shapes = (f"{n} {kind_of(n, a).describe(a)[0]}" for n, a in arrays.items())
            raise ValueError(f"expected equal shapes, got {', '.join(shapes)}")
        _laid_out(name, dtype, address, contiguous)
        pointers.append(host_or_device(address, dtype, x))
        streams.add(stream)
    _one_device(pointers)
    return Arrays(*first, math.prod(first[1]), pointers, streams)


def fresh(shape, dtype, out):
    """`Arrays` for a kernel that reads nothing, of out's kind or of the default one. shape: tuple. dtype: name.
    out: array or None."""
    return Arrays(_default(dtype) if out is None else kind_of("out", out), shape, dtype, math.prod(shape), [], set())


def output(name, out, like):
    """The array that a kernel writes, and its `Pointer`. name: for the message. out: None for a new one. like:
    `Arrays` that it resembles.

    Raises TypeError or ValueError where out is of another kind, dtype or shape, not contiguous or writable, or
    overlaps an input without being exactly that input's memory.
    """
    if out is None:
        out = like.kind.empty(like.shape, like.dtype)
        return out, pointer_to(out, like.kind)
    kind = kind_of(name, out)
    if kind.name == "jax":
        raise TypeError(f"{name}: expected an array that may be written, got a JAX array, which may not")
    shape, dtype, address, contiguous, stream = kind.describe(out)
    if kind is not like.kind or dtype != like.dtype:
        raise TypeError(f"{name}: expected {like.kind.name} {like.dtype}, got {kind.name} {dtype}")
    if shape != like.shape:
        raise ValueError(f"{name}: expected shape {like.shape}, got {shape}")
    _laid_out(name, dtype, address, contiguous)
    if kind.name == "numpy" and not out.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    length = like.size * itemsize(dtype)
    for x in like.pointers:
        if x.address != address and x.address < address + length and address < x.address + length:
            raise ValueError(f"{name}: expected memory apart from the inputs or exactly one of them, got an overlap")
    like.streams.add(stream)
    pointer = host_or_device(address, dtype, out)
    _one_device([*like.pointers, pointer])
    return out, pointer


def outputs(out, count, like):
    """`output` for count results: their arrays, and their pointers. out: None, or that many arrays. like:
    as in `output`.

    Raises as `output` does, and ValueError where two of the results share memory.
    """
    made = [output(f"out[{i}]", None if out is None else out[i], like) for i in range(count)]
    if out is not None:
        apart(*((pointer, like.size) for _, pointer in made))
    return tuple(array for array, _ in made), tuple(pointer for _, pointer in made)


def apart(*places):
    """Raises ValueError where two places share memory. places: (pointer, elements)."""
    spans = sorted((p.address, p.address + size * itemsize(p.dtype)) for p, size in places)
    if any(end > begin for (_, end), (begin, _) in zip(spans, spans[1:])):
        raise ValueError("out: expected arrays that share no memory with each other, got an overlap")


def _laid_out(name, dtype, address, contiguous):
    if not contiguous:
        raise ValueError(f"{name}: expected a C-contiguous array, got strides; copy it first")
    if address % itemsize(dtype):
        raise ValueError(f"{name}: expected memory at a multiple of the {dtype} size, got address {address:#x}")


def _one_device(pointers):
    if device.GPUS > 1 and not device.INTERPRETED:
        places = {device.of_pointer(p.address) for p in pointers if p.address}
        if len(places) > 1:
            raise ValueError(f"expected arrays on one device, got devices {sorted(places)}")
