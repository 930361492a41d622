"""What a kernel needs of the compiler beyond loops: fused multiply-add, wide vectors, stores around the cache.

Each has a plain Python body, which runs under NUMBA_DISABLE_JIT=1, so that a debugger and coverage reach inside a
kernel."""
from fractions import Fraction

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from kernels.numba_cpu.engine import AROUND, INLINE, inner

LINE = 64  # bytes of a cache line, and of one store


def fma(a, b, c):
    """a b + c, rounded once. a, b, c: numbers of one float dtype.

    A sum of two products has to say which of them is fused: a compiler chooses one way for the vectors of a loop and
    another for the remainder, and the bits would depend on where an element lies."""
    if type(a) is np.float32:
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))
    if not np.isfinite(a * b + c):
        return a * b + c
    return np.float64(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))


@intrinsic
def _fma(typingctx, a, b, c):
    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return (a(a, b, c), codegen) if a == b == c else None


@overload(fma, jit_options=INLINE)
def _(a, b, c):
    return lambda a, b, c: _fma(a, b, c)


def load(a, i):
    """a[i], of memory to which no `store` writes. a: array. i: uint64."""
    return a[i]


def store(a, i, value):
    """a[i] = value, in memory of which no `load` reads: the compiler need not compare addresses before a loop, and has
    one order of a sum in it. a: array. i: uint64. value: number of its dtype."""
    a[i] = value


def _scopes(module):
    """LLVM's name of all that `store` writes."""
    return module.add_metadata([module.add_metadata(["stored", module.add_metadata(["kernels"])])])


def _place(context, builder, signature, args):
    data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]]), signature.args[0].dtype.bitwidth // 8


@intrinsic
def _load(typingctx, a, i):
    def codegen(context, builder, signature, args):
        place, size = _place(context, builder, signature, args)
        value = builder.load(place, align=size)
        value.set_metadata("noalias", _scopes(builder.module))
        return value

    return a.dtype(a, types.uint64), codegen


@intrinsic
def _store(typingctx, a, i, value):
    def codegen(context, builder, signature, args):
        place, size = _place(context, builder, signature, args)
        builder.store(args[2], place, align=size).set_metadata("alias.scope", _scopes(builder.module))
        return context.get_dummy_value()

    return types.none(a, types.uint64, a.dtype), codegen


@overload(load, jit_options=INLINE)
def _(a, i):
    return lambda a, i: _load(a, i)


@overload(store, jit_options=INLINE)
def _(a, i, value):
    return lambda a, i, value: _store(a, i, value)


def choose(condition, a, b):
    """a where condition is true, else b, both computed: a loop with `a if condition else b` may become one with
    branches, whose stores a vectorised loop scatters. condition: bool. a, b: numbers of one dtype."""
    return a if condition else b


@intrinsic
def _choose(typingctx, condition, a, b):
    def codegen(context, builder, signature, args):
        return builder.select(args[0], args[1], args[2])

    return (a(types.boolean, a, b), codegen) if a == b else None


@overload(choose, jit_options=INLINE)
def _(condition, a, b):
    return lambda condition, a, b: _choose(condition, a, b)


@intrinsic
def wide(typingctx):
    """In the compiled function that calls it, loops may use 512-bit vectors where the machine has them. LLVM keeps to
    256 bits on processors whose clock fell when they were new; noise, which is all arithmetic, is 1.35 times as fast
    with 512. A function that is inlined asks for itself, since its loops may be vectorised before. Called without
    typingctx."""

    def codegen(context, builder, signature, args):
        # llvmlite has no attributes with a value
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), codegen


if config.DISABLE_JIT:  # an overload would set the attribute on itself, so this one is replaced

    def wide():
        """Nothing: there are no vectors in plain Python."""


def stream_line(out, i, source, j):
    """out[i .. i + 64 bytes) = source[j .. j + 64 bytes), past the cache. &out[i] is a multiple of 64 bytes. out,
    source: arrays of one dtype. i, j: ints."""
    lane = LINE // out.itemsize
    out[i : i + lane] = source[j : j + lane]


def copy_line(out, i, source, j):
    """out[i .. i + 64 bytes) = source[j .. j + 64 bytes), in one vector. Arguments as in `stream_line`; any address
    will do."""
    lane = LINE // out.itemsize
    out[i : i + lane] = source[j : j + lane]


def copy_half(out, i, source, j):
    """`copy_line` of half a line. out, i, source, j: as there."""
    lane = LINE // out.itemsize // 2
    out[i : i + lane] = source[j : j + lane]


def _line_code(context, builder, signature, args, width=LINE):
    """The LLVM code of `_copy_line`, of that many bytes; its store."""
    out_array = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0])
    in_array = cgutils.create_struct_proxy(signature.args[2])(context, builder, args[2])
    scalar, bits = context.get_data_type(signature.args[0].dtype), signature.args[0].dtype.bitwidth
    line = ir.VectorType(scalar, width * 8 // bits)
    source_line = builder.bitcast(builder.gep(in_array.data, [args[3]]), line.as_pointer())
    out_line = builder.bitcast(builder.gep(out_array.data, [args[1]]), line.as_pointer())
    return builder.store(builder.load(source_line, align=bits // 8), out_line, align=bits // 8)


@intrinsic
def _stream_line(typingctx, out, i, source, j):
    def codegen(context, builder, signature, args):
        store = _line_code(context, builder, signature, args)
        store.align = LINE
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.none(out, types.int64, source, types.int64), codegen


@intrinsic
def _copy_line(typingctx, out, i, source, j):
    def codegen(context, builder, signature, args):
        _line_code(context, builder, signature, args)
        return context.get_dummy_value()

    return types.none(out, types.int64, source, types.int64), codegen


@intrinsic
def _copy_half(typingctx, out, i, source, j):
    def codegen(context, builder, signature, args):
        _line_code(context, builder, signature, args, LINE // 2)
        return context.get_dummy_value()

    return types.none(out, types.int64, source, types.int64), codegen


@overload(copy_half, jit_options=INLINE)
def _(out, i, source, j):
    return lambda out, i, source, j: _copy_half(out, i, source, j)


@overload(copy_line, jit_options=INLINE)
def _(out, i, source, j):
    return lambda out, i, source, j: _copy_line(out, i, source, j)


@overload(stream_line, jit_options=INLINE)
def _(out, i, source, j):
    return lambda out, i, source, j: _stream_line(out, i, source, j)


def turn(out, to, along, x, at, stride):
    """out[to + j along + i] = x[at + i stride + j] for i, j below the numbers of a line: a square block of a matrix,
    transposed. out, x: flat arrays of one dtype. to, along, at, stride: ints."""
    i = np.arange(LINE // x.itemsize)
    out[to + i[:, None] * along + i] = x[at + i * stride + i[:, None]]


@intrinsic
def _turn(typingctx, out, to, along, x, at, stride):
    n = types.int64
    return types.none(out, n, n, x, n, n), _turn_code


def _turn_code(context, builder, signature, args):
    """The LLVM code of `_turn`: the halves of each two rows change places, of rows 1 apart, then 2, 4, ..."""
    bits = signature.args[0].dtype.bitwidth
    size, scalar = LINE * 8 // bits, context.get_data_type(signature.args[0].dtype)
    vector, i64 = ir.VectorType(scalar, size), ir.IntType(64)

    def place(n, first, apart, i):
        data = cgutils.create_struct_proxy(signature.args[n])(context, builder, args[n]).data
        index = builder.add(first, builder.mul(apart, i64(i)))
        return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

    rows = [builder.load(place(3, args[4], args[5], i), align=bits // 8) for i in range(size)]
    step = 1
    while step < size:
        for i in (i for i in range(size) if not i & step):
            a, b = rows[i], rows[i + step]
            masks = [[k + (size - step if k & step else 0) for k in range(size)]]
            masks += [[k + (size if k & step else step) for k in range(size)]]
            masks = [ir.Constant(ir.VectorType(ir.IntType(32), size), mask) for mask in masks]
            rows[i], rows[i + step] = (builder.shuffle_vector(a, b, mask) for mask in masks)
        step *= 2
    for i, row in enumerate(rows):
        builder.store(row, place(0, args[1], args[2], i), align=bits // 8)
    return context.get_dummy_value()


@overload(turn, jit_options=INLINE)
def _(out, to, along, x, at, stride):
    return lambda out, to, along, x, at, stride: _turn(out, to, along, x, at, stride)


@inner
def deliver(out, chunk, first, last, how):
    """out[first .. last - 1] = chunk[0 ..]. out, chunk: of one dtype. first, last: ints. how: AROUND or OVER."""
    o, x = out[first:last], chunk[: last - first]
    if how != AROUND:
        for j in range(o.size):
            o[j] = x[j]
    else:
        lane = LINE // o.itemsize
        head = min(-(o.ctypes.data // o.itemsize) % lane, o.size)  # elements before the first 64-byte boundary
        tail = head + (o.size - head) // lane * lane
        for j in range(head):
            o[j] = x[j]
        for j in range(head, tail, lane):
            stream_line(o, j, x, j)
        for j in range(tail, o.size):
            o[j] = x[j]
