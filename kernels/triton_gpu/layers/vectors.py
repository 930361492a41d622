"""What the kernels of layers share: arrays that are not shaped like the data, and sums over examples in one order."""
import math

import triton
import triton.language as tl

from kernels.triton_gpu import arrays as memory
from kernels.triton_gpu import device, launch
from kernels.triton_gpu.matmul import rounded
from kernels.triton_gpu.philox import stored

INTERPRETED = tl.constexpr(device.INTERPRETED)
ROWS, COLUMNS = 32, 32  # of a program that adds partial sums


def given(arrays, shape, **vectors):
    """Pointers of further arrays of a kernel, of the kind and dtype of arrays; None stays. arrays: `Arrays`. shape: of
    each. vectors: by name. Raises as `arrays.read` does, and ValueError for another shape."""
    there = {name: x for name, x in vectors.items() if x is not None}
    if not there:
        return [None] * len(vectors)
    found = memory.read((arrays.dtype,), **there)
    if found.kind is not arrays.kind or found.shape != tuple(shape):
        raise ValueError(f"{' and '.join(there)}: expected {arrays.kind.name} {tuple(shape)}, got {found.kind.name} "
                         f"{found.shape}")  # fmt: skip
    arrays.streams.update(found.streams)
    pointers = dict(zip(there, found.pointers))
    return [pointers.get(name) for name in vectors]


def fresh(arrays, shape, dtype=None):
    """A new array and its pointer. arrays: `Arrays` whose kind it is of. shape: of it. dtype: name, or None for
    theirs."""
    made = arrays.kind.empty(tuple(shape), dtype or arrays.dtype)
    return made, memory.pointer_to(made, arrays.kind)


def written(name, out, arrays, shape):
    """The array of some shape that a kernel writes, and its pointer: `arrays.output` for another shape than theirs, so
    that the caller has to keep it apart. name: for the message. out: array or None. arrays: `Arrays`. shape: of it."""
    return memory.output(name, out, arrays._replace(shape=tuple(shape), size=math.prod(shape), pointers=[]))


def pairs(length, *pointers):
    """bfloat16 as int32 that hold two each, which stay two in a register: pointers, or None where they are of another
    dtype or do not lie so. length: of a row. pointers: to arrays."""
    if length % 2 or any(p.dtype != "bfloat16" or p.address % 4 for p in pointers):
        return None
    return tuple(memory.host_or_device(p.address, "int32", p.owner) for p in pointers)


@triton.jit
def loaded(x, PLACE: tl.constexpr, where, TILES: tl.constexpr):
    """Tiles of a group or of rows in registers, a tuple. x: pointer. PLACE: (tile's number, *where) -> its rows or
    columns, where its elements are, and which there are. TILES: in all."""
    kept = ()
    for t in tl.static_range(TILES):
        _, at, inside = PLACE(t, *where)
        kept = kept + (tl.load(x + at, mask=inside, other=0),)
    return kept


@triton.jit
def halves(v):
    """Elements as float32, a tuple: of int32 the lower and the upper bfloat16. v: block."""
    if v.dtype != tl.int32:
        return (v.to(tl.float32),)
    elif INTERPRETED:
        return (v << 16).to(tl.float32, bitcast=True), (v & -0x10000).to(tl.float32, bitcast=True)
    else:  # not pure, or the compiler keeps what it has taken apart, in twice the registers
        return tl.inline_asm_elementwise(
            "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;", "=f,=f,r", [v], dtype=(tl.float32, tl.float32),
            is_pure=False, pack=1)


@triton.jit
def joined(x, to):
    """The inverse of `halves`, as it is stored. x: tuple of float32 blocks. to: pointer."""
    if len(x) == 1:
        return stored(x[0], to)
    elif INTERPRETED:
        lower, upper = rounded(x[0]).to(tl.int32, bitcast=True), rounded(x[1]).to(tl.int32, bitcast=True)
        return ((lower >> 16) & 0xFFFF) | (upper & -0x10000)
    else:
        return tl.inline_asm_elementwise(
            "cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", [x[0], x[1]], dtype=tl.int32, is_pure=True, pack=1)


def added(arrays, sums, kinds, shape, terms):
    """The sums over terms of a (kinds, examples, terms, columns) float32 scratch, in one order: kinds new arrays of the
    kind and dtype of arrays. arrays: `Arrays`. sums: pointer. shape: (examples, columns), or (columns,) of one."""
    made, pointers = zip(*(fresh(arrays, shape) for _ in range(kinds)))
    columns, examples = shape[-1], shape[0] if len(shape) > 1 else 1
    blocks = launch.programs(columns, COLUMNS)
    launch.run(
        _added, blocks * examples, arrays, pointers, sums, terms, columns, blocks, ROWS=ROWS, COLUMNS=COLUMNS
    )
    return made


@triton.jit(do_not_specialize=["terms", "blocks"])
def _added(outs, sums, terms, columns, blocks, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    example, i = tl.program_id(0) // blocks, tl.arange(0, ROWS)
    column = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    step = tl.num_programs(0) // blocks * tl.cast(terms, tl.int64) * columns  # of a kind
    sums += example * tl.cast(terms, tl.int64) * columns
    for k in tl.static_range(len(outs)):
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for first in range(0, terms, ROWS):
            inside = (first + i < terms)[:, None] & (column < columns)[None, :]
            total += tl.load(sums + k * step + (first + i)[:, None] * columns + column[None, :], mask=inside, other=0)
        tl.store(outs[k] + example * columns + column, stored(tl.sum(total, 0), outs[k]), mask=column < columns)
