"""`ref.nets.wavenet.wavenet_generate` on the GPU: one launch for all places of a sound, a program for each example.
Before it a short launch packs the weights.

A place is a chain of two products a layer, each waiting for the one before. The vector of a product stands in a column
and its result in a row, or the other way round, so that none changes its layout between two products. The queues lie in
global memory; one has a slot more than its layer's dilation, so that no place writes the slot that it reads.

Each place reads each weight once: of 30 layers of 32 channels and 64 skips 0.24 M numbers, 0.96 MB in float32. One
multiprocessor has 228 KB of shared memory and 256 KB of registers, so they cannot stay there. They come from the L2
cache, at 64 bytes a cycle at most: 15,000 cycles a place, or 9 us at 1.7 GHz, while a sample of 16 kHz lasts 62 us. So
the weights of the next layer, and what it takes from its queue, are loaded while this layer computes. To keep them
in registers or shared memory the layers would have to be spread over several multiprocessors, which wait for each
other at each place; programs of examples wait for nobody.

Papers
    [Fast]  Le Paine et al., "Fast Wavenet Generation Algorithm", 2016
"""
from collections import namedtuple

import numpy as np
import triton
import triton.language as tl

from kernels import arguments
from kernels.prepare import RECORDED
from kernels.triton_gpu import launch, mlp
from kernels.triton_gpu.arrays import SINGLE, read
from kernels.triton_gpu.layers.vectors import fresh

PER_WARP, MOST_WARPS = 4096, 16  # weights of a product in the registers of a warp
BAD_U, BAD_LOGITS = tl.constexpr(1), tl.constexpr(2)  # what a program can find

# Of a layer: both taps of the filter and of the gate (in, out), residual (out, in), skip (out, in), and their biases
Layer = namedtuple("Layer", "f_old f_new g_old g_new residual skip f_bias g_bias residual_bias skip_bias")
# memory: (B, slots, CP). table: (2, layers), the first slot of each layer's queue, and its dilation. slots: in all
Queues = namedtuple("Queues", "memory table slots")


def wavenet_generate(params, u, cycle):
    """[Fast] section 2.2 on the GPU, arguments as in `ref.nets.wavenet.wavenet_generate`: arrays of float32. Returns
    codes (B, N) int64. It waits for the device, to raise ValueError as there."""
    if RECORDED.get() is not None:
        raise TypeError("wavenet_generate cannot be prepared: the host waits for it, to see whether a logit is NaN")
    arrays = read(SINGLE, u=u)
    if len(arrays.shape) != 2:
        raise ValueError(f"u: expected shape (B, N), got {arrays.shape}")
    embed, addresses, sizes = _weights(params, arrays)
    (B, N), depth = arrays.shape, len(params["layers"])
    dilation = np.array(arguments.dilations(depth, cycle, N))
    codes, to = fresh(arrays, arrays.shape, "int64")
    if not arrays.size:
        return codes
    first, slots = np.cumsum(dilation + 1) - dilation - 1, int(np.sum(dilation + 1))
    table, addresses, status, packed, memory = launch.workspace(
        arrays, [np.stack([first, dilation]).astype(np.int32), addresses, np.zeros(B, np.int32)],
        [(depth * sizes["LAYER"] + sizes["END"], "float32"), (B * slots * sizes["CP"], "float32")],
    )  # fmt: skip
    largest, size = max(sizes["LAYER"], sizes["VP"] * sizes["SP"]), mlp.constants("Size", **sizes)
    warps = min(max(triton.next_power_of_2(largest // PER_WARP), 4), MOST_WARPS)
    launch.run(_pack, depth + 1, arrays, packed, addresses, depth, size, warps=warps)
    launch.run(_generate, B, arrays, to, status, arrays.pointers[0], embed, packed, Queues(memory, table, slots), N,
               depth, size, warps=warps)  # fmt: skip
    found = launch.read_back(status, arrays, B).max()
    if found == BAD_U.value:
        raise ValueError("u: expected values in [0, 1], got others")
    if found:
        raise ValueError("params: expected finite logits, got NaN")
    return codes


def _weights(params, like):
    """A pointer to the table of codes; the addresses of weight and bias of "dilated", "residual" (0 for none) and
    "skip" of each layer, then of both convolutions of the end, (layers + 1, 6); and the sizes, padded to powers of 2
    too. params: as in `ref.nets.wavenet`. like: `Arrays`."""
    (classes, channels, skip), shapes = arguments.wavenet_shapes(params)
    named = mlp.named(params)
    pointers = {path: mlp.weight(named, path, like, shape)[0] for path, shape in shapes.items()}
    rows = [[f"layers.{i}.{part}" for part in ("dilated", "residual", "skip")] for i in range(len(params["layers"]))]
    rows = [*rows, ["end.0", "end.1", ""]]
    names = [[f"{path}.{kind}" for path in row for kind in ("weight", "bias")] for row in rows]
    table = [[pointers[name].address if name in pointers else 0 for name in row] for row in names]
    V, C, S = (triton.next_power_of_2(n) for n in (classes, channels, skip))
    sizes = dict(V=classes, C=channels, S=skip, VP=V, CP=C, SP=S)
    sizes |= {"LAYER": 5 * C * C + S * C + 3 * C + S, "END": S * S + V * S + S + V}
    return pointers["embed.weight"], np.array(table, np.int64), sizes


@triton.jit
def _place(to, of, down, across, rows, columns, rest, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """to[r, c] = of[r down + c across] where r < rows and c < columns, else rest. to: (ROWS, COLUMNS). of: address.
    Returns where the next matrix begins."""
    r, c = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    x = tl.load(of.to(to.dtype) + r * down + c * across, mask=(r < rows) & (c < columns), other=rest)
    tl.store(to + r * COLUMNS + c, x)
    return to + ROWS * COLUMNS


@triton.jit(do_not_specialize=["depth"])
def _pack(packed, addresses, depth, size: tl.constexpr):
    """The weights of a layer, or of the end, one after the other and padded with zeros; a code that there is not has
    the logit -inf. Arguments as in `_generate`."""
    i, C, S, V = tl.program_id(0), size.C, size.S, size.V
    to, of = packed + i * size.LAYER, addresses + 6 * i
    w0, b0, w1, b1 = tl.load(of), tl.load(of + 1), tl.load(of + 2), tl.load(of + 3)
    if i < depth:
        w2, b2, there = tl.load(of + 4), tl.load(of + 5), tl.where(w1 == 0, 0, C)
        for part in tl.static_range(4):  # 4 bytes a number
            to = _place(to, w0 + 4 * (part // 2 * 2 * C * C + part % 2), 2, 2 * C, C, C, 0.0, size.CP, size.CP)
        to = _place(to, w1, C, 1, there, C, 0.0, size.CP, size.CP)
        to = _place(to, w2, C, 1, S, C, 0.0, size.SP, size.CP)
        to = _place(to, b0, 0, 1, 1, C, 0.0, 1, size.CP)
        to = _place(to, b0 + 4 * C, 0, 1, 1, C, 0.0, 1, size.CP)
        to = _place(to, b1, 0, 1, 1, there, 0.0, 1, size.CP)
        _place(to, b2, 0, 1, 1, S, 0.0, 1, size.SP)
    else:
        to = _place(to, w0, 1, S, S, S, 0.0, size.SP, size.SP)  # (in, out)
        to = _place(to, w1, S, 1, V, S, 0.0, size.VP, size.SP)
        to = _place(to, b0, 0, 1, 1, S, 0.0, 1, size.SP)
        _place(to, b1, 0, 1, 1, V, float("-inf"), 1, size.VP)


@triton.jit
def _matrix(at, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    return tl.load(at + tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :])


@triton.jit
def _layer(packed, size):
    """Where the parts of the first layer are, a `Layer` of pointers. Arguments as in `_generate`."""
    C: tl.constexpr = size.CP
    M: tl.constexpr = C * C
    END: tl.constexpr = 5 * M + size.SP * C
    row, column = tl.arange(0, C)[None, :], tl.arange(0, C)[:, None]
    f, s = packed + column * C + row, tl.arange(0, size.SP)[:, None]
    return Layer(f, f + M, f + 2 * M, f + 3 * M, f + 4 * M, packed + 5 * M + s * C + row, packed + END + row,
                 packed + END + C + row, packed + END + 2 * C + column, packed + END + 3 * C + s)  # fmt: skip


@triton.jit
def _load(w, step):
    """The `Layer` that is `step` numbers further. w: of `_layer`."""
    return Layer(
        tl.load(w.f_old + step), tl.load(w.f_new + step), tl.load(w.g_old + step), tl.load(w.g_new + step),
        tl.load(w.residual + step), tl.load(w.skip + step), tl.load(w.f_bias + step), tl.load(w.g_bias + step),
        tl.load(w.residual_bias + step), tl.load(w.skip_bias + step),
    )  # fmt: skip


@triton.jit
def old_of(queues, i, t, depth, size):
    """What layer i put into its queue `dilation` places before t, 0 before the first place, (CP, 1); nothing is read
    where i = depth. queues: `Queues`, its memory the example's. i, t, depth, size: as in `_generate`."""
    k, there = tl.arange(0, size.CP)[:, None], i < depth
    first = tl.load(queues.table + i, mask=there, other=0)
    dilation = tl.load(queues.table + depth + i, mask=there, other=1)
    at = queues.memory + (first + (t + 1) % (dilation + 1)) * size.CP
    return tl.load(at + k, mask=k < tl.where(there & (t >= dilation), size.C, 0), other=0)


@triton.jit
def gate(f, g):
    """tanh(f) sigmoid(g). f, g: blocks."""
    return (2.0 / (1.0 + tl.exp(-2.0 * f)) - 1.0) / (1.0 + tl.exp(-g))


@triton.jit
def drawn(logits, u, V: tl.constexpr):
    """The first v with sum_{w <= v} p(w) > u, and whether there is one. logits: (VP,). u: number. V: of codes."""
    e = tl.exp(logits - tl.max(logits, 0))
    upto, total = tl.cumsum(e, 0), tl.sum(e, 0)
    return tl.minimum(tl.sum((upto <= u * total).to(tl.int32), 0), V - 1), total > 0


@triton.jit(do_not_specialize=["N", "depth"])
def _generate(codes, status, u, embed, packed, queues, N, depth, size: tl.constexpr):
    """The codes of an example. codes: (B, N) int64. status: (B,), 0 before. u: (B, N). embed: (V, C). packed: of
    `_pack`. queues: `Queues`. N: places. depth: layers. size: V, C, S, each padded, LAYER and END."""
    example, k = tl.program_id(0).to(tl.int64), tl.arange(0, size.CP)[:, None]
    queues = Queues(queues.memory + example * queues.slots * size.CP, queues.table, queues.slots)
    end, line = packed + depth * size.LAYER, tl.arange(0, size.VP)
    code, bad = tl.program_id(0) * 0, tl.program_id(0) * 0
    where = _layer(packed, size)
    w = _load(where, 0)
    for t in range(N):
        tl.debug_barrier()  # what the place before has put into the queues is there
        h = tl.load(embed + code * size.C + k, mask=k < tl.where(t > 0, size.C, 0), other=0)  # (CP, 1)
        old, skips = old_of(queues, 0, t, depth, size), tl.zeros((size.SP, 1), tl.float32)
        for i in range(depth):
            # For the next layer
            next_w = _load(where, (i + 1) % depth * size.LAYER)
            next_old = old_of(queues, i + 1, t, depth, size)
            # The input that is `dilation` places old, and this one
            first, dilation = tl.load(queues.table + i), tl.load(queues.table + depth + i)
            tl.store(queues.memory + (first + t % (dilation + 1)) * size.CP + k, h)
            f = tl.sum(tl.fma(old, w.f_old, h * w.f_new), 0)[None, :] + w.f_bias  # (1, CP)
            g = tl.sum(tl.fma(old, w.g_old, h * w.g_new), 0)[None, :] + w.g_bias
            z = gate(f, g)
            h += tl.sum(w.residual * z, 1)[:, None] + w.residual_bias
            skips += tl.sum(w.skip * z, 1)[:, None] + w.skip_bias
            w, old = next_w, next_old
        # Logits
        bias = end + size.SP * size.SP + size.VP * size.SP
        a = tl.sum(_matrix(end, size.SP, size.SP) * mlp.relu(skips), 0)[None, :] + _matrix(bias, 1, size.SP)
        last = _matrix(end + size.SP * size.SP, size.VP, size.SP)
        logits = tl.sum(last * mlp.relu(a), 1) + tl.load(bias + size.SP + line)
        # The code
        uniform = tl.load(u + example * N + t)
        code, finite = drawn(logits, uniform, size.V)
        tl.store(codes + example * N + t, code.to(tl.int64))
        bad = tl.maximum(bad, tl.where((uniform >= 0) & (uniform <= 1), tl.where(finite, 0, BAD_LOGITS), BAD_U))
    tl.store(status + example, bad)
