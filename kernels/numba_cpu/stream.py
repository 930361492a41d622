"""Non-temporal stores: memory that will not be read soon is written around the cache, which saves reading it first."""
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE = 64  # bytes of a cache line, and of one store


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
