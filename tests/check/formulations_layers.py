"""Right orders of operations in which people write the layers of networks, in the data's dtype."""
import numpy as np

from kernels.numpy_cpu import layers, scene
from ref.nets import wavenet

mean = lambda x: x.mean(axis=-1, keepdims=True)  # noqa: E731


def rounded(x):
    """A function of float64 arrays, whose results are cast to the dtype of the argument x. x: its name."""

    def of(f):
        def function(**a):
            wide = {n: np.float64(v) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v for n, v in a.items()}
            results = f(**wide)
            cast = [np.asarray(r, a[x].dtype) for r in (results if isinstance(results, tuple) else (results,))]
            return tuple(cast) if isinstance(results, tuple) else cast[0]

        return function

    return of


def without_queues(params, u, cycle):
    """The whole net again for each code, and probabilities in place of their sums."""
    codes = np.zeros(u.shape, np.int32)
    for t in range(u.shape[1]):
        logits = wavenet.wavenet(params, codes[:, : t + 1], cycle)[0][:, :, t]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        codes[:, t] = (np.cumsum(p, axis=1) < u[:, t, None]).sum(axis=1)
    return codes


def standard(x, eps):
    c = x - mean(x)
    return c / np.sqrt(mean(c * c) + x.dtype.type(eps))


def group_norm_silu(x, groups, w, b, eps, gate=lambda z: 1 / (1 + np.exp(-z))):
    z = standard(x.reshape(len(x), groups, -1), eps).reshape(x.shape)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    z = z if w is None else z * w.reshape(shape) + b.reshape(shape)
    return z * gate(z)


def tanh_gate(z):
    return z.dtype.type(0.5) * (1 + np.tanh(z * z.dtype.type(0.5)))


def gelu_tanh(x):
    t = x.dtype.type
    return t(0.5) * x * (1 + np.tanh(t(np.sqrt(2 / np.pi)) * (x + t(0.044715) * x * x * x)))


def linear_act(x, w, b, r, act):
    h = x @ w.T + b
    if act == "gelu_tanh":
        return gelu_tanh(h) + r
    return r + getattr(layers, act)(h)


def conv2d(x, w, b=None, stride=1, padding=((1, 1), (1, 1))):
    """A sum over the kernel's rows and columns."""
    x, (kh, kw) = np.pad(x, ((0, 0), (0, 0), *padding)), w.shape[2:]
    rows, columns = ((n - k) // stride + 1 for n, k in zip(x.shape[2:], (kh, kw)))
    y = sum(np.einsum("bchw,oc->bohw", x[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride][
        :, :, :rows, :columns], w[:, :, i, j]) for i in range(kh) for j in range(kw))
    return y if b is None else y + b[:, None, None]


def add_at(total, index, rows):
    np.add.at(total, index, rows)
    return total


def composite(sigma, color, delta, t, background):
    alpha = 1 - np.exp(-sigma * delta)
    T = np.cumprod(1 - alpha, axis=1)
    w = alpha * np.concatenate([np.ones_like(T[:, :1]), T[:, :-1]], axis=1)
    return (w[..., None] * color).sum(axis=1) + T[:, -1:] * background, (w * t).sum(axis=1), w.sum(axis=1)


def trilinear(grid, x):
    sizes = np.array(grid.shape[1:])
    p = (x + 1) / 2 * (sizes - 1).astype(x.dtype)
    low = np.where(np.isnan(p), 0, np.floor(p)).astype(int)
    y = np.zeros((len(x), len(grid)), grid.dtype)
    for corner in np.ndindex(2, 2, 2):
        at = low + corner
        inside = ((at >= 0) & (at < sizes)).all(axis=1)
        weight = np.prod(1 - np.abs(p - at.astype(p.dtype)), axis=1).astype(grid.dtype)
        i, j, k = np.clip(at, 0, sizes - 1).T
        y += (np.where(inside, grid[:, i, j, k], 0) * weight).T
    return y


TABLES = {
    "layers.silu": {
        "as printed": lambda x: x / (1 + np.exp(-x)), "by tanh": lambda x: x * tanh_gate(x),
    },
    "layers.gelu_tanh": {"as printed": gelu_tanh},
    "layers.quick_gelu": {"as printed": lambda x: x / (1 + np.exp(-x.dtype.type(1.702) * x))},
    "layers.linear": {
        "as printed": lambda x, w, b: x @ w.T + (0 if b is None else b),
        "einsum": lambda x, w, b: np.einsum("...n,mn->...m", x, w) + (0 if b is None else b),
    },
    "layers.linear_act": {"as printed": linear_act},
    "layers.conv2d": {"by shifts": conv2d},
    "layers.embedding": {
        "take": lambda w, index: np.take(w, index, axis=0),
        "a row at a time": lambda w, index: np.array([w[i] for i in index.ravel()]).reshape(*index.shape, w.shape[1]),
    },
    "layers.embedding_backward": {
        "add.at": lambda dy, w, index: add_at(np.zeros_like(w), index, dy),
        "sums of the rows of a class": lambda dy, w, index: np.stack(
            [dy[index == i].sum(axis=0, dtype=dy.dtype) for i in range(len(w))]),
    },
    "layers.group_norm_silu": {
        "as printed": group_norm_silu,
        "silu by tanh": lambda **a: group_norm_silu(**a, gate=tanh_gate),
    },
    "layers.rms_norm": {
        "times the reciprocal": lambda x, w, eps: x * (1 / np.sqrt(mean(x * x) + x.dtype.type(eps))) * (
            1 if w is None else w),
        "by the length": lambda x, w, eps: x / np.sqrt(
            np.square(np.linalg.norm(x, axis=-1, keepdims=True)) / x.dtype.type(x.shape[-1]) + x.dtype.type(eps)) * (
            1 if w is None else w),
    },
    "layers.layer_norm": {
        "as printed": lambda x, w, b, eps: standard(x, eps) * (1 if w is None else w) + (0 if b is None else b),
    },
    "layers.layer_norm_modulate": {
        "x_hat + scale x_hat + shift": lambda x, shift, scale, eps: (
            h := standard(x, eps)) + h * scale[:, None] + shift[:, None],
    },
    "layers.gate_residual": {
        "as printed": lambda x, r, gate: x + gate[:, None] * r, "repeated": lambda x, r, gate: r * np.repeat(
            gate[:, None], r.shape[1], axis=1) + x,
    },
    "audio.wavenet_generate": {"without queues": without_queues},
    "scene.composite": {"by alphas": composite}, "scene.trilinear": {"a corner at a time": trilinear},
    "layers.gate_residual_backward": {
        "einsum": lambda dy, r, gate: (dy.copy(), dy * gate[:, None], np.einsum("bln,bln->bn", dy, r)),
    },
}  # fmt: skip
WIDE = {  # in float64, and cast: of the gradients, and of sums that lose more
    "layers.group_norm_silu_backward": "dy", "layers.layer_norm_modulate_backward": "dy",
    "layers.layer_norm_backward": "dy", "layers.rms_norm_backward": "dy", "layers.geglu": "x",
    "layers.geglu_backward": "dy", "layers.attention": "q",
    "layers.attention_backward": "q", "layers.conv2d": "x", "layers.conv2d_backward": "dy", "layers.norm_conv": "x",
    "layers.norm_conv_backward": "dy", "layers.linear_backward": "dy", "layers.linear_act_backward": "dy",
    "layers.gelu": "x", **{f"layers.{act}_backward": "dy" for act in ("silu", "gelu", "gelu_tanh", "quick_gelu")},
}  # fmt: skip
FORMULATIONS = [(op, name, how, {}) for op, table in TABLES.items() for name, how in table.items()]
FORMULATIONS += [(op, "in float64", rounded(x)(getattr(layers, op.split(".")[1])), {}) for op, x in WIDE.items()]
SCENE = {"composite": "sigma", "composite_backward": "dy", "trilinear": "grid", "trilinear_backward": "dy",
         "splat": "uv", "splat_backward": "dy"}  # fmt: skip
FORMULATIONS += [(f"scene.{op}", "in float64", rounded(x)(getattr(scene, op)), {}) for op, x in SCENE.items()]
