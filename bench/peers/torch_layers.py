"""Layers of networks in torch, eager and compiled. A gradient is what `torch.autograd.grad` takes from a graph that was
made before the clock runs, with all that torch kept of the forward."""
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F


def _group_norm_silu(a):
    return F.silu(F.group_norm(a.x, a.groups, a.w, a.b, a.eps))


def _geglu(x):
    a, g = x.chunk(2, dim=-1)
    return a * F.gelu(g)


def _conv2d(x, a):
    (top, bottom), (left, right) = getattr(a, "padding", ((1, 1), (1, 1)))
    even = top == bottom and left == right
    x = x if even else F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, a.w, a.b, getattr(a, "stride", 1), (top, left) if even else 0)


def _norm_conv(a):
    return _conv2d(F.silu(F.group_norm(a.x, a.groups, a.scale, a.shift, a.eps)), a)


ACTS = {
    "silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x), "geglu": _geglu,
}  # fmt: skip
FORWARD = {  # of the arguments by name; and which of them have gradients, in their order
    "attention": (lambda a: F.scaled_dot_product_attention(a.q, a.k, a.v, a.mask, 0.0, a.causal), "q k v"),
    "group_norm_silu": (_group_norm_silu, "x w b"),
    "layer_norm_modulate": (
        lambda a: F.layer_norm(a.x, a.x.shape[-1:], eps=a.eps) * (1 + a.scale[:, None]) + a.shift[:, None],
        "x shift scale"),
    "gate_residual": (lambda a: torch.addcmul(a.x, a.gate[:, None], a.r), "x r gate"),
    "rms_norm": (lambda a: F.rms_norm(a.x, a.x.shape[-1:], a.w, a.eps), "x w"),
    "conv2d": (lambda a: _conv2d(a.x, a), "x w b"),
    "norm_conv": (_norm_conv, "x scale shift w b"),
    "linear": (lambda a: F.linear(a.x, a.w, a.b), "x w b"),
    "linear_act": (lambda a: ACTS[a.act](F.linear(a.x, a.w, a.b)) + a.r, "x w b r"),
} | {act: (lambda a, f=f: f(a.x), "x") for act, f in ACTS.items()}  # fmt: skip


def make(column, op, arguments):
    """See `bench.peers`. column: "torch" or "compile"; there is no graph of them."""
    if column == "graph":
        return {}
    name = op.name.removeprefix("layers.")
    forward, leaves = FORWARD[name.removesuffix("_backward")]
    a, how = _tensors(arguments), "compiled" if column == "compile" else "eager"
    if column == "compile":
        torch.compiler.reset()
        torch._functorch.config.donated_buffer = False  # a graph is gone through many times
        forward = torch.compile(forward, dynamic=False)
    if not name.endswith("_backward"):
        return {how: lambda: forward(a)}
    # what the gradient does not take: the vectors that are only added
    for missing, like in (("shift", lambda: a.scale), ("b", lambda: a.w.flatten(1)[:, 0]), ("r", lambda: a.dy)):
        if missing in leaves.split() and not hasattr(a, missing):
            setattr(a, missing, torch.zeros_like(like()))
    inputs = [getattr(a, leaf).requires_grad_() for leaf in leaves.split()]
    with torch.enable_grad():
        y = forward(a)
    return {how: lambda: torch.autograd.grad(y, inputs, a.dy, retain_graph=True)}


def _tensors(arguments):
    """The arguments with copies of the arrays as tensors, on the host or on the GPU."""
    on_gpu = arguments.get("on_gpu") or any(hasattr(v, "__cuda_array_interface__") for v in arguments.values())

    def there(value):
        if hasattr(value, "bits"):  # bfloat16, which numba-cuda holds as integers
            return torch.as_tensor(value.bits, device="cuda").view(torch.bfloat16).clone()
        if hasattr(value, "__cuda_array_interface__"):
            return torch.as_tensor(value, device="cuda").clone()
        if isinstance(value, np.ndarray):
            tensor = torch.from_numpy(np.array(value))
            return tensor.cuda() if on_gpu else tensor
        return value

    return SimpleNamespace(**{name: there(value) for name, value in arguments.items()})
