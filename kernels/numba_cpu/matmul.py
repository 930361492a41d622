"""Matrix products, a tile of ROWS rows by two cache lines of columns at a time. What follows a product (bias,
activation) is applied to the tile at once, while it is in the first-level cache.

The tile's sums stay in registers over the whole depth, enough of them to keep two multiply-adds a cycle going. The tile
is written as LLVM code because Numba's loops are slower: a loop over columns that keeps four rows of a in registers
spills them, and the best one that does not, three rows by four terms, loads and stores its sums and reaches two thirds
of the speed. Every sum is one chain of multiply-adds in the order of the depth, whatever the tile."""
import functools
from collections import namedtuple

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, overload, register_jitable

from kernels.numba_cpu.engine import INLINE
from kernels.numba_cpu.intrinsics import LINE, wide

ROWS, VECTORS = 8, 2
I32, I64 = ir.IntType(32), ir.IntType(64)


# Matrices in flat arrays. Left: element (i, k) is at first + i row + k step. Right, whose rows are contiguous: element
# (k, j) is at first + k stride + j, or at first + stride[k] + j where stride is an array.
Left = namedtuple("Left", "array first row step")
Right = namedtuple("Right", "array first stride")
Apart = namedtuple("Apart", "array first stride gap")  # and each vector of a tile `gap` after the one before


def lanes(array):
    """How many columns a tile has: VECTORS vectors of array's dtype. array: any. A constant to the compiler."""
    return VECTORS * LINE // array.itemsize


@overload(lanes, jit_options=INLINE)
def _(array):
    width = VECTORS * LINE * 8 // array.dtype.bitwidth
    return lambda array: width


@register_jitable
def room(size, like):
    """Memory for size numbers of like's dtype from the beginning of a cache line. size: int. like: array. Returns
    (size,)."""
    lane = LINE // like.itemsize
    memory = np.empty(size + lane, like.dtype)
    skip = -(memory.ctypes.data // like.itemsize) % lane
    return memory[skip : skip + size]


@register_jitable
def lines(size, like):
    """`room` filled with zeros. size, like: as there."""
    memory = room(size, like)
    memory[:] = 0
    return memory


@register_jitable(**INLINE)
def _as_given(right, like):
    return right


@register_jitable(**INLINE)
def _side_by_side(right, like):
    return Apart(right.array, right.first, right.stride, lanes(like) // VECTORS)


def spaced(right, like):
    """right as an `Apart`. right: `Apart` or `Right`. like: array of the tile's dtype."""
    return right if isinstance(right, Apart) else _side_by_side(right, like)


@overload(spaced, jit_options=INLINE)
def _(right, like):
    return _as_given if right.instance_class is Apart else _side_by_side


def tile(out, to, apart, left, rows, right, depth):
    """out[to + i apart + j] = sum_k left(i, k) right(k, j) for ROWS rows i and lanes j, k = 0 .. depth - 1 in this
    order.

    out: flat, with room for all ROWS. to, apart: ints, where a row of the tile begins. left: `Left`. rows: of left;
    the tile's rows after these repeat the last one. right: `Right` or `Apart`. depth: int >= 1."""
    k, j = np.arange(depth), np.arange(lanes(out))
    lines = right.stride[:depth] if isinstance(right.stride, np.ndarray) else k * right.stride
    lane = lanes(out) // VECTORS
    columns = j if isinstance(right, Right) else j % lane + j // lane * right.gap
    terms = right.array[right.first + lines[:, None] + columns]  # (depth, lanes)
    for i in range(ROWS):
        numbers = left.array[left.first + min(i, rows - 1) * left.row + k * left.step]  # (depth,)
        out[to + i * apart : to + i * apart + lanes(out)] = numbers @ terms


@overload(tile, jit_options=INLINE)
def _(out, to, apart, left, rows, right, depth):
    def code(out, to, apart, left, rows, right, depth):
        b, at, stride, gap = spaced(right, out)
        _tile(out, to, apart, left.array, left.first, left.row, left.step, rows, b, at, stride, gap, depth)

    return code


def tile_onto(out, to, apart, left, rows, right, depth):
    """`tile`, but each sum is added to the element of out. out, to, apart, left, rows, right, depth: as in `tile`."""
    at = to + apart * np.arange(ROWS)[:, None] + np.arange(lanes(out))
    before = out[at]
    tile(out, to, apart, left, rows, right, depth)
    out[at] += before


@overload(tile_onto, jit_options=INLINE)
def _(out, to, apart, left, rows, right, depth):
    def code(out, to, apart, left, rows, right, depth):
        b, at, stride, gap = spaced(right, out)
        _tile_onto(out, to, apart, left.array, left.first, left.row, left.step, rows, b, at, stride, gap, depth)

    return code


@intrinsic
def _tile(typingctx, out, to, apart, a, first, row, step, rows, b, at, stride, gap, depth):
    return _signature(out, a, b, stride), functools.partial(_tile_code, False)


@intrinsic
def _tile_onto(typingctx, out, to, apart, a, first, row, step, rows, b, at, stride, gap, depth):
    return _signature(out, a, b, stride), functools.partial(_tile_code, True)


def _signature(out, a, b, stride):
    n = types.int64
    return types.none(out, n, n, a, n, n, n, n, b, n, stride if isinstance(stride, types.Array) else n, n, n)


def _tile_code(onto, context, builder, signature, args):
    """The LLVM code of `_tile`, a loop over the depth for each of `_blocks`; onto: of `_tile_onto`."""
    scalar, bits = context.get_data_type(signature.args[0].dtype), signature.args[0].dtype.bitwidth
    out, a, b = (_data(context, builder, signature, args, n) for n in (0, 3, 8))
    to, apart, (first, row, step, rows), (at, stride, gap, depth) = args[1], args[2], args[4:8], args[9:]
    table = _data(context, builder, signature, args, 10) if isinstance(signature.args[10], types.Array) else None
    size, blocks = _blocks()
    vector, parts, align = ir.VectorType(scalar, size * 8 // bits), LINE // size, bits // 8

    def place(data, index, v, gap=I64(LINE * 8 // bits)):
        at = builder.add(builder.add(index, builder.mul(gap, I64(v // parts))), I64(v % parts * size * 8 // bits))
        return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())

    for those, across in blocks:  # ranges of rows and of vectors
        # where each row of a begins
        starts = []
        for i in those:
            inside = builder.select(builder.icmp_signed("<", I64(i), rows), I64(i), builder.sub(rows, I64(1)))
            starts.append(builder.add(first, builder.mul(inside, row)))
        # for k in range(depth): sums[i][v] += a[i, k] b[k, v]
        before, loop, after = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(I64)
        sums = [[builder.phi(vector) for _ in across] for _ in those]
        line = builder.add(at, builder.load(builder.gep(table, [k])) if table else builder.mul(k, stride))
        terms = [builder.load(place(b, line, v, gap), align=align) for v in across]
        for mine, start in zip(sums, starts):
            at_k = builder.gep(a, [builder.add(start, builder.mul(k, step))])
            number = _everywhere(builder, builder.load(at_k), vector)
            for j, term in enumerate(terms):
                mine[j] = _multiply_add(builder, mine[j], number, term, before, loop)
        _next(builder, k, depth, before, loop, after)
        builder.position_at_end(after)
        for i, mine in zip(those, sums):
            line = builder.add(to, builder.mul(I64(i), apart))
            _put(builder, mine, [place(out, line, v) for v in across], align, onto)
    return context.get_dummy_value()


def _put(builder, sums, places, align, onto):
    """Stores the sums of a row at their places, added to the values there if onto."""
    for total, there in zip(sums, places):
        if onto:
            total = builder.fadd(builder.load(there, align=align), total)
        builder.store(total, there, align=align)


def _blocks():
    """The bytes of a vector, and the blocks of a tile, (rows, vectors), whose sums fit into the registers: one block of
    16 sums for 32 registers of 64 bytes; for 16 of 32 bytes two blocks of 12 sums and one of 8."""
    if "+avx512f" in (config.CPU_FEATURES or get_host_cpu_features()):
        return LINE, [(range(ROWS), range(VECTORS))]
    return LINE // 2, [(range(6), range(2)), (range(6), range(2, 4)), (range(6, 8), range(4))]


def _next(builder, k, depth, before, loop, after):
    """Ends the loop over k = 0 .. depth - 1."""
    following = builder.add(k, I64(1))
    k.add_incoming(I64(0), before)
    k.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)


def _data(context, builder, signature, args, n):
    """A pointer to the data of the n-th argument, an array."""
    return cgutils.create_struct_proxy(signature.args[n])(context, builder, args[n]).data


def _everywhere(builder, number, vector):
    """A vector that holds number in each lane."""
    none, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(builder.insert_element(none, number, I32(0)), none, zeros)


def _multiply_add(builder, phi, x, y, before, loop):
    """phi + x y, where phi is 0 before the loop and this sum from then on."""
    more = builder.fmul(x, y, flags=("contract",))
    total = builder.fadd(phi, more, flags=("contract",))
    phi.add_incoming(ir.Constant(phi.type, [0.0] * phi.type.count), before)
    phi.add_incoming(total, loop)
    return total


@njit(**INLINE)
def product(then, element, sums, count, left, right, depth, columns, args):
    """then(element, row of sums, i, j, *args) for every row i < count of left right and every j, a multiple of a tile's
    lanes, below columns: the row holds the elements (i, j), (i, j + 1), ... of the product.

    then: compiled. element: for then. sums: (ROWS lanes,), memory for a tile. left: `Left`. right: `Right`. depth,
    count, columns: ints. args: tuple."""
    width = lanes(sums)
    array, first, row, step = left
    for i in range(0, count, ROWS):
        rows = min(ROWS, count - i)
        for j in range(0, columns, width):
            from_i = Left(array, first + i * row, row, step)
            tile(sums, 0, width, from_i, rows, Right(right.array, right.first + j, right.stride), depth)
            for r in range(rows):
                then(element, sums[r * width : (r + 1) * width], i + r, j, *args)


@njit(**INLINE)
def layer(element, row, i, j, into, bias, other, u):
    """into(i, j + k) = element(bias_i, u, row_k, into(i, j + k), other(i, j + k)) for the lanes k, after `product`.

    element: `element(c, u, s, r, y)` of the bias, the scalars, the sum, the element of into and that of other.
    row, i, j: as `product` gives them. into, other: `Right`. bias: array. u: tuple.
    """
    wide()
    to, at = into.first + i * into.stride + j, other.first + i * other.stride + j
    r, y, c = into.array[to : to + lanes(row)], other.array[at : at + lanes(row)], bias[i]
    for k in range(lanes(row)):
        r[k] = element(c, u, row[k], r[k], y[k])
