"""Products of matrices, a tile of ROWS rows by two vectors at a time, and at once what comes after the sum, while it is in the
first-level cache.

The tile's sums live in registers over the whole depth: 16 of them, enough to keep two multiply-adds a cycle going, against three
loads a row of b and its eight numbers of a. It is written in LLVM's own language because compiled loops do not get there: a loop
over columns that keeps four rows' numbers in registers spills them, and the best that does not, three rows by four terms, loads and
stores its sums and reaches two thirds of it. Every sum is one chain of multiply-adds in the order of the depth, whatever the tile.
"""
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable

from kernels.numba_cpu.engine import INLINE
from kernels.numba_cpu.intrinsics import LINE

ROWS, VECTORS = 8, 2


def lanes(array):
    """How many columns a tile has: VECTORS vectors of array's dtype. array: any. A constant to the compiler."""
    return VECTORS * LINE // array.itemsize


@overload(lanes, jit_options=INLINE)
def _(array):
    width = VECTORS * LINE * 8 // array.dtype.bitwidth
    return lambda array: width


@register_jitable
def lines(size, like):
    """size zeros of like's dtype from the beginning of a cache line. size: int. like: array. Returns (size,)."""
    lane = LINE // like.itemsize
    memory = np.zeros(size + lane, like.dtype)
    skip = -(memory.ctypes.data // like.itemsize) % lane
    return memory[skip : skip + size]


@intrinsic
def tile(typingctx, out, to, apart, a, first, row, step, rows, b, at, stride, depth):
    """out[to + i apart + j] = sum_k a[first + i row + k step] b[at + k stride + j] for ROWS rows i and lanes j, k = 0 .. depth - 1 in this order.

    Called from compiled code without typingctx. out, a, b: flat arrays of one dtype, out with room for all ROWS. to, apart, first, row, step, at,
    stride: ints, where numbers stand. rows: a row from here on is the last one again, so that a may end. depth: int >= 1.
    """

    def codegen(context, builder, signature, args):
        scalar, bits = context.get_data_type(signature.args[0].dtype), signature.args[0].dtype.bitwidth
        width, i64 = LINE * 8 // bits, ir.IntType(64)
        vector = ir.VectorType(scalar, width)
        out, a, b = (cgutils.create_struct_proxy(signature.args[n])(context, builder, args[n]).data for n in (0, 3, 8))
        to, apart, first, row, step, rows, at, stride, depth = args[1], args[2], args[4], args[5], args[6], args[7], args[9], args[10], args[11]
        last = builder.sub(rows, i64(1))

        def place(data, index):
            return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

        starts = []
        for i in range(ROWS):
            inside = builder.select(builder.icmp_signed("<", i64(i), rows), i64(i), last)
            starts.append(builder.add(first, builder.mul(inside, row)))
        before, loop, after = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(i64)
        sums = [[builder.phi(vector) for _ in range(VECTORS)] for _ in range(ROWS)]
        line = builder.add(at, builder.mul(k, stride))
        terms = [builder.load(place(b, builder.add(line, i64(v * width))), align=bits // 8) for v in range(VECTORS)]
        none, everywhere = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
        along = builder.mul(k, step)
        for i in range(ROWS):
            number = builder.load(builder.gep(a, [builder.add(starts[i], along)]))
            number = builder.shuffle_vector(builder.insert_element(none, number, ir.IntType(32)(0)), none, everywhere)
            for v in range(VECTORS):
                more = builder.fmul(number, terms[v], flags=("contract",))
                total = builder.fadd(sums[i][v], more, flags=("contract",))
                sums[i][v].add_incoming(ir.Constant(vector, [0.0] * width), before)
                sums[i][v].add_incoming(total, loop)
                sums[i][v] = total
        following = builder.add(k, i64(1))
        k.add_incoming(i64(0), before)
        k.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
        builder.position_at_end(after)
        for i in range(ROWS):
            line = builder.add(to, builder.mul(i64(i), apart))
            for v in range(VECTORS):
                builder.store(sums[i][v], place(out, builder.add(line, i64(v * width))), align=bits // 8)
        return context.get_dummy_value()

    n = types.int64
    return types.none(out, n, n, a, n, n, n, n, b, n, n, n), codegen


@njit(**INLINE)
def product(then, out, count, a, first, row, step, b, at, stride, depth, columns, args):
    """then(sums, i, j, *args) for every row i < count of a b and every j, a multiple of a tile's lanes, below columns: sums holds the
    elements (i, j), (i, j + 1), ... of the product.

    then: compiled. out: (ROWS lanes,), where the tile goes. count, columns: ints. args: tuple. The rest as in `tile`.
    """
    width = lanes(out)
    for i in range(0, count, ROWS):
        rows = min(ROWS, count - i)
        for j in range(0, columns, width):
            tile(out, 0, width, a, first + i * row, row, step, rows, b, at + j, stride, depth)
            for r in range(rows):
                then(out[r * width : (r + 1) * width], i + r, j, *args)
