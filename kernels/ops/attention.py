"""`ref.layers.attention` and its gradient. A score is off by the rounding of all that it adds, and its weight by as
many units; halves are rounded where they are stored, and their weights as operands of a product."""
import functools
import math

import numpy as np

from kernels.ops.inputs import VALUES, data
from kernels.ops.record import Op
from ref import layers

SHAPES = (  # batch, heads, queries, head size
    (2, 2, 33, 8), (1, 3, 17, 40), (3, 3, 3, 3), (4, 4, 4, 4), (1, 1, 70, 72), (1, 2, 20, 80), (1, 1, 9, 160),
    (1, 1, 5, 256), (1, 1, 130, 16),
)  # fmt: skip
FEW = (1, 2, 33, 8), (1, 1, 17, 40), (2, 2, 4, 4), (1, 1, 40, 72), (1, 1, 9, 160), (1, 1, 5, 256), (1, 1, 20, 80)
OPTIONS = {
    "keys": (0, -5, 7), "causal": (False, True), "masked": (None, "keys", "rows"), "wide": (None, 24),
}  # fmt: skip
LARGE = {"q": 1e4, "dy": 16.0}  # scores; for a gradient smaller, or none is left
FLUSHED = 2.0**-102  # in units of float32: a weight below 2^-126 may be 0


def make(names, rng, shape, dtype, values, keys=0, causal=False, masked=None, wide=None):
    """An input maker. names: of the arrays before the mask. shape: (B, heads, Lq, d); of another rank, what is made of
    it. keys: more of them than queries. masked: "keys" for one that no query sees, "rows" for any, and a query that
    sees none. wide: the head size of v, None for d. rng, dtype, values: as in `kernels.ops.inputs.data`. causal: as
    there. In what is not finite, such a key is NaN, or if there is none one that is seen, without a gradient."""
    if len(shape) != 4:
        shape = tuple(1 + (n - 1) % most for n, most in zip(((1,) * 4 + tuple(shape))[-4:], (3, 3, 200, 64)))
    b, heads, lq, d = shape
    lk = max(lq + keys, 1)
    sizes = {"dy": (lq, wide or d), "q": (lq, d), "k": (lk, d), "v": (lk, wide or d)}
    plain = "normal" if values in ("large", "not finite") else values
    own = plain if names[0] == "dy" else values
    arrays = {n: data(rng, (b, heads, *sizes[n]), dtype, plain if n in "qk" else own) for n in names}
    for name, x in arrays.items():
        if values == "large" and name in ("q", "k"):
            arrays[name] = (x.astype(np.float64) * (LARGE[names[0]] / math.sqrt(max(d, 1))) ** 0.5).astype(x.dtype)
        x[~np.isfinite(x.astype(np.float64))] = 1
    mask, unseen = None, int(rng.integers(lk))
    if masked:
        mask = np.ones((b, 1, 1, lk), bool) if masked == "keys" else rng.random((b, heads, lq, lk)) < 0.7
        mask[..., unseen] = False
        if masked == "rows":
            mask[:, :, :1] = False
    if values == "not finite" and (masked or "dy" not in names):
        arrays["v"][:, :, unseen] = np.nan
        if masked:
            arrays["k"][:, :, unseen] = np.nan
    return arrays | {"mask": mask, "causal": causal}


def _weights(q, k, v, mask, causal):
    """p, the sizes of its error in units of rounding, k and v without NaN, and what is seen."""
    shape = *q.shape[:3], k.shape[2]
    seen = np.ones(shape, bool) if mask is None else np.broadcast_to(mask, shape)
    if causal:
        seen = seen & (np.arange(k.shape[2]) <= np.arange(q.shape[2])[:, None] + k.shape[2] - q.shape[2])
    q, k, v = (np.nan_to_num(a) for a in (q, k, v))  # where NaN counts, so is the truth
    s = np.where(seen, q @ k.swapaxes(2, 3) / math.sqrt(q.shape[3]), -np.inf)
    top = s.max(axis=-1, keepdims=True, initial=-np.inf)
    p = np.exp(s - np.where(np.isfinite(top), top, 0))
    p /= np.maximum(p.sum(axis=-1, keepdims=True), 1e-300)
    size = np.abs(q) @ np.abs(k).swapaxes(2, 3) / math.sqrt(q.shape[3])
    return p, p * (1 + size + (p * size).sum(axis=-1, keepdims=True)) + FLUSHED * seen, k, v, seen


def _sizes(q, k, v, mask, causal):
    _, size, _, v, _ = _weights(q, k, v, mask, causal)
    return size @ np.abs(v)


def _stored(q, k, v, mask, causal):
    p, _, _, v, _ = _weights(q, k, v, mask, causal)
    return np.abs(p @ v) + p @ np.abs(v)


def _slopes(dy, q, k, v, mask, causal):
    """p, the sizes of its error, ds and the sizes of its error, and q and k, both over sqrt(d)."""
    p, p_size, k, v, seen = _weights(q, k, v, mask, causal)
    q, dy = np.nan_to_num(q), np.nan_to_num(dy)
    dp, dp_size = np.where(seen, dy @ v.swapaxes(2, 3), 0), np.abs(dy) @ np.abs(v).swapaxes(2, 3)
    ds = dp - (p * dp).sum(axis=-1, keepdims=True)
    ds_size = p_size * np.abs(ds) + p * (dp_size + (p_size * dp_size).sum(axis=-1, keepdims=True))
    root = math.sqrt(q.shape[3])
    return p, p_size, p * ds, ds_size, q / root, k / root


def _backward_sizes(dy, q, k, v, mask, causal):
    _, p, _, ds, q, k = _slopes(dy, q, k, v, mask, causal)
    return ds @ np.abs(k), ds.swapaxes(2, 3) @ np.abs(q), p.swapaxes(2, 3) @ np.abs(np.nan_to_num(dy))


def _backward_stored(dy, q, k, v, mask, causal):
    p, _, ds, _, q, k = _slopes(dy, q, k, v, mask, causal)
    pairs = (ds, k), (ds.swapaxes(2, 3), q), (p.swapaxes(2, 3), np.nan_to_num(dy))
    return [np.abs(a @ b) + np.abs(a) @ np.abs(b) for a, b in pairs]


def _flops(q, k, v, **rest):
    return 2 * k.shape[2] * math.prod(q.shape[:3]) * (q.shape[3] + v.shape[3])


def _backward_flops(q, k, v, **rest):
    return 2 * k.shape[2] * math.prod(q.shape[:3]) * (3 * q.shape[3] + 2 * v.shape[3])


ON_CPU, ON_GPU = ((1, 8, 4096, 40), (1, 24, 1178, 64), (64, 4, 64, 32)), (
    (4, 16, 4096, 64), (4, 16, 4096, 128), (2, 24, 4250, 64), (2, 8, 4096, 40))  # fmt: skip
BENCH = {f"{n} x {d}": {"shape": (b, heads, n, d), "on": "numba_cpu"} for b, heads, n, d in ON_CPU}
BENCH |= {f"{b} x {heads} x {n} x {d}": {"shape": (b, heads, n, d), "on": "triton_gpu"} for b, heads, n, d in ON_GPU}
ATTENTION = {
    "options": OPTIONS, "half": True, "empty": False, "bench": BENCH, "values": (*VALUES, "near", "minute"),
}  # fmt: skip
OPS = [
    Op(
        layers.attention, ulps=3, make=functools.partial(make, ("q", "k", "v")), scale=_sizes, stored=_stored,
        flops=_flops, examples=("q", "k", "v", "mask"), shapes=SHAPES, **ATTENTION,
    ),
    Op(
        layers.attention_backward, ulps=4, make=functools.partial(make, ("dy", "q", "k", "v")), scale=_backward_sizes,
        stored=_backward_stored, flops=_backward_flops, examples=("dy", "q", "k", "v", "mask"), shapes=FEW, writes=3,
        **ATTENTION,
    ),
]  # fmt: skip
