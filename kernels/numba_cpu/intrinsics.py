"""How results leave a kernel: straight into their place, or by way of a chunk in the first-level cache.

A loop that stores over its own inputs is not taken in lanes (only equal indices meet, but the compiler cannot know) and
runs three times as long; into a chunk of its own it is. And memory that will not be read soon can be written around the
cache, by non-temporal stores, which saves reading it first. Everywhere else the way by a chunk costs, up to half as much again.

`wide` and `fma` are the other things that a kernel may ask of the compiler.
"""
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_cpu.engine import AROUND, CHUNK, DIRECT, INLINE

LINE = 64  # bytes of a cache line, and of one store


@intrinsic
def wide(typingctx):
    """In the compiled function that calls it, loops may use 512-bit vectors where the machine has them. LLVM keeps to 256 bits
    on processors whose clock fell when they were new; noise, all arithmetic, is made 1.35 times as fast. Called without typingctx."""

    def codegen(context, builder, signature, args):
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # llvmlite knows no attributes with a value
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a b + c, rounded once. A sum of two products has to say which of them is fused: a compiler chooses one way for the lanes of a loop
    and another for what is left over, and the bits would depend on where an element lies. Called without typingctx. a, b, c: one float type."""

    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return (a(a, b, c), codegen) if a == b == c else None


@intrinsic
def stream_line(typingctx, out, i, source, j):
    """out[i .. i + 64 bytes) = source[j .. j + 64 bytes), past the cache. &out[i] is a multiple of 64 bytes.

    Called from compiled code without typingctx. out, source: arrays of one dtype. i, j: ints.
    """

    def codegen(context, builder, signature, args):
        out_array = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0])
        in_array = cgutils.create_struct_proxy(signature.args[2])(context, builder, args[2])
        scalar = context.get_data_type(signature.args[0].dtype)
        line = ir.VectorType(scalar, LINE * 8 // signature.args[0].dtype.bitwidth)
        source_line = builder.bitcast(builder.gep(in_array.data, [args[3]]), line.as_pointer())
        out_line = builder.bitcast(builder.gep(out_array.data, [args[1]]), line.as_pointer())
        value = builder.load(source_line, align=signature.args[0].dtype.bitwidth // 8)
        store = builder.store(value, out_line, align=LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.none(out, types.int64, source, types.int64), codegen


@njit(**INLINE)
def deliver(out, first, last, chunk, how):
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


@njit(**INLINE)
def write(rows, lo, hi, out, how, args):
    """rows(o, lo, hi, *args) for elements lo .. hi - 1 of out, where o[0] is element lo. rows: compiled. how: DIRECT, AROUND, OVER. args: tuple."""
    if how == DIRECT:
        rows(out[lo:hi], lo, hi, *args)
    else:
        chunk = np.empty(CHUNK, out.dtype)
        for first in range(lo, hi, CHUNK):
            last = min(first + CHUNK, hi)
            rows(chunk, first, last, *args)
            deliver(out, first, last, chunk, how)


@njit(**INLINE)
def write_noisy(rows, noise, lo, hi, out, how, key, args):
    """The same with rows(o, lo, hi, z, *args), z[0] the normal of element lo. noise(z, lo, hi, key) makes them a chunk at a time. The rest as in `write`."""
    chunk, z = np.empty(CHUNK, out.dtype), np.empty(CHUNK, out.dtype)
    for first in range(lo, hi, CHUNK):
        last = min(first + CHUNK, hi)
        noise(z, first, last, key)
        if how == DIRECT:
            rows(out[first:last], first, last, z, *args)
        else:
            rows(chunk, first, last, z, *args)
            deliver(out, first, last, chunk, how)
