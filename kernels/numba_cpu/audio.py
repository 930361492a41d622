"""`ref.nets.wavenet.wavenet_generate` on the CPU: one call for all places of a sound. A thread has whole examples.

A place is a chain of small products, each waiting for the one before. So the weights stand with the inputs as rows: a
product adds rows to its outputs, four at a time, and no sum runs across a vector. They stay in the second-level cache.

Papers
    [Fast]  Le Paine et al., "Fast Wavenet Generation Algorithm", 2016
"""
import math
from collections import namedtuple

import numpy as np
from numba import float32
from numba.extending import overload

from kernels.arguments import dilations, wavenet_shapes
from kernels.numba_cpu import engine
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, INLINE, element
from kernels.numba_cpu.intrinsics import wide
from kernels.numba_cpu.math import MOST_NORMAL, exp_of
from kernels.numba_cpu.mlp import weight

# Of all layers: both taps (n, 2 C, 2 C), the last input's rows second; residual and skip (n, C, C + S); their biases;
# and of the end (S, S), (S, classes)
Net = namedtuple("Net", "embed taps taps_b out out_b end1 end1_b end2 end2_b")


def wavenet_generate(params, u, cycle):
    """[Fast] section 2.2 on the CPU, arguments as in `ref.nets.wavenet.wavenet_generate`; computes in the dtype of the
    parameters. params, u, cycle: as there. Returns codes (B, N) int64."""
    u = np.array(u, np.float64, order="C")  # a copy: for another layout the loop would be compiled again
    if u.ndim != 2 or not np.all((u >= 0) & (u <= 1)):
        raise ValueError(f"u: expected values in [0, 1] of shape (B, N), got shape {u.shape} of {u}")
    net = _packed(params)
    dilation = np.array(dilations(len(net.taps), cycle, u.shape[1]))
    codes = np.zeros(u.shape, np.int64)
    engine.run(generate, u.size * sum(w.size for w in net), codes, u, net, dilation, parts=len(u))
    if codes.size and codes.min() < 0:
        raise ValueError("params: expected finite logits, got NaN")
    return codes


def _packed(params):
    """The parameters as `Net`, after the check."""
    (_, channels, _), shapes = wavenet_shapes(params)
    dtype = engine.same(**{"params['embed']['weight']": params["embed"]["weight"]})[1]
    keys = {path: [int(key) if key.isdecimal() else key for key in path.split(".")] for path in shapes}
    found = {path: weight(params, keys[path], dtype, shape) for path, shape in shapes.items()}
    none = {"weight": np.zeros((channels, channels, 1)), "bias": np.zeros(channels)}

    def of_layers(kind, *parts):
        names = [[f"layers.{i}.{part}.{kind}" for part in parts] for i in range(len(params["layers"]))]
        return [np.concatenate([found.get(name, none[kind]) for name in some]) for some in names]

    made = (
        found["embed.weight"], np.array([w.transpose(2, 1, 0).reshape(2 * channels, -1)
                                         for w in of_layers("weight", "dilated")]),
        np.array(of_layers("bias", "dilated")),
        np.array([w[:, :, 0].T for w in of_layers("weight", "residual", "skip")]),
        np.array(of_layers("bias", "residual", "skip")),
        found["end.0.weight"][:, :, 0].T, found["end.0.bias"], found["end.1.weight"][:, :, 0].T, found["end.1.bias"],
    )  # fmt: skip
    return Net(*(np.array(a, dtype, order="C") for a in made))


@element
def _exp32(h):
    return exp_of(min(max(h, -MOST_NORMAL), MOST_NORMAL)) if h == h else h


@element
def _exp64(h):
    return math.exp(h)


def exp(h):
    """e^h. h: a number of the kernel's dtype; float32 within 87 of 0."""
    return _exp32(h) if type(h) is np.float32 else _exp64(h)


@overload(exp, jit_options=INLINE)
def _(h):
    return _exp32 if h == float32 else _exp64


@njit(**INLINE)
def add_rows(y, w, x):
    """y += x w. y: (m,). w: (n, m). x: (n,)."""
    whole = x.size // 4 * 4
    for k in range(0, whole, 4):
        x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
        w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
        for i in range(y.size):
            y[i] += (x0 * w0[i] + x1 * w1[i]) + (x2 * w2[i] + x3 * w3[i])
    for k in range(whole, x.size):
        for i in range(y.size):
            y[i] += x[k] * w[k, i]


@njit(**COMPILE)
def generate(lo, hi, codes, u, net, dilation):
    """The codes of the examples lo .. hi - 1; -1 where the logits are NaN. codes: (B, N), written. u: (B, N). net:
    `Net`. dilation: (n,) ints."""
    wide()
    zero, one, two = net.embed.dtype.type(0), net.embed.dtype.type(1), net.embed.dtype.type(2)
    n, channels, classes, skip = dilation.size, net.embed.shape[1], net.embed.shape[0], net.end1_b.size
    taps, gates = np.empty(2 * channels, net.embed.dtype), np.empty(2 * channels, net.embed.dtype)
    z, out = np.empty(channels, net.embed.dtype), np.empty(channels + skip, net.embed.dtype)
    skips, a, logits = np.empty(skip, z.dtype), np.empty(skip, z.dtype), np.empty(classes, z.dtype)
    queues, first = np.empty((dilation.sum(), channels), z.dtype), np.cumsum(dilation) - dilation
    for b in range(lo, hi):
        queues[:] = zero
        for t in range(u.shape[1]):
            # The last code
            for k in range(channels):
                taps[channels + k] = zero if t == 0 else net.embed[codes[b, t - 1], k]
            skips[:] = zero
            for i in range(n):
                # The input that is `dilation` places old, and this one in its place
                old = queues[first[i] + t % dilation[i]]
                for k in range(channels):
                    taps[k] = old[k]
                    old[k] = taps[channels + k]
                gates[:] = net.taps_b[i]
                add_rows(gates, net.taps[i], taps)
                for k in range(channels):
                    z[k] = two / (one + exp(-two * gates[k])) - one  # tanh
                for k in range(channels):
                    z[k] = z[k] / (one + exp(-gates[channels + k]))
                out[:] = net.out_b[i]
                add_rows(out, net.out[i], z)
                for k in range(channels):
                    taps[channels + k] += out[k]
                for k in range(skip):
                    skips[k] += out[channels + k]
            # Logits
            a[:] = net.end1_b
            add_rows(a, net.end1, np.maximum(skips, zero))
            logits[:] = net.end2_b
            add_rows(logits, net.end2, np.maximum(a, zero))
            codes[b, t] = drawn(logits, u[b, t])
            if codes[b, t] < 0:
                break


@njit(**INLINE)
def drawn(logits, u):
    """The first v with sum_{w <= v} p(w) > u, -1 for NaN. logits: (classes,), overwritten. u: float."""
    largest, total = logits.max(), 0.0
    for v in range(logits.size):
        logits[v] = exp(logits[v] - largest)
    for v in range(logits.size):
        total += logits[v]
    if not total > 0:
        return -1
    below = 0.0
    for v in range(logits.size):
        below += logits[v]
        if below > u * total:
            return v
    return logits.size - 1
