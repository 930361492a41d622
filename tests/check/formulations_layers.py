"""Right orders of operations in which people write the layers of networks, in the data's dtype."""
import numpy as np

from kernels.numpy_cpu import layers

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


TABLES = {
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
    "layers.layer_norm_modulate": {
        "x_hat + scale x_hat + shift": lambda x, shift, scale, eps: (
            h := standard(x, eps)) + h * scale[:, None] + shift[:, None],
    },
    "layers.gate_residual": {
        "as printed": lambda x, r, gate: x + gate[:, None] * r, "repeated": lambda x, r, gate: r * np.repeat(
            gate[:, None], r.shape[1], axis=1) + x,
    },
    "layers.gate_residual_backward": {
        "einsum": lambda dy, r, gate: (dy.copy(), dy * gate[:, None], np.einsum("bln,bln->bn", dy, r)),
    },
}  # fmt: skip
WIDE = {  # in float64, and cast: of the gradients, and of sums that lose more
    "layers.group_norm_silu_backward": "dy", "layers.layer_norm_modulate_backward": "dy",
    "layers.rms_norm_backward": "dy", "layers.geglu": "x", "layers.geglu_backward": "dy", "layers.attention": "q",
    "layers.attention_backward": "q",
}  # fmt: skip
FORMULATIONS = [(op, name, how, {}) for op, table in TABLES.items() for name, how in table.items()]
FORMULATIONS += [(op, "in float64", rounded(x)(getattr(layers, op.split(".")[1])), {}) for op, x in WIDE.items()]
