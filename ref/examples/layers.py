"""Worked examples of `ref.layers`."""
import numpy as np

from ref.examples.base import digits, sines
from ref.examples.nets import net

ARGUMENTS = dict(
    x=sines((2, 3)), w=sines((4, 3), 1), b=sines((4,), 2), index=np.array([2, 0, 2]),
    t=np.array([1.0, 500.0, 1000.0]), width=8, logits=3 * sines((2, 4)), labels=np.array([3, 0]), eps=1e-5, groups=2,
    patch=2, factor=2,
)

IMAGE = dict(x=sines((2, 2, 3, 4)))
NORM = dict(x=sines((2, 4)), w=1 + sines((4,), 1) / 2, b=sines((4,), 2))


def linears(*names, norms=()):
    """Layers from 4 to 4 with these names, and norms of 2. names, norms: strs."""
    made = {name: {"weight": sines((4, 4), k), "bias": sines((4,), k + 9)} for k, name in enumerate(names)}
    return made | {name: {"weight": 1 + sines((2,), k) / 2} for k, name in enumerate(norms)}


FUNCTIONS = {
    "resblock": dict(params=lambda: net("unet")["up_blocks"][1]["resnets"][0], x=sines((2, 6, 3, 4)),
                     c=sines((2, 8), 1)),
    "pixel_attention": dict(
        params={"group_norm": {"weight": 1 + sines((4,), 1) / 2, "bias": sines((4,), 2)}}
        | linears("to_q", "to_k", "to_v") | {"to_out": [linears("x")["x"], {}]},
        x=sines((2, 4, 2, 3)), heads=2,
    ),
    "conv1d": dict(x=sines((2, 2, 6)), w=sines((3, 2, 2), 1), b=sines((3,), 2), padding=(2, 0), dilation=2),  # causal
    "conv2d": IMAGE | dict(w=sines((3, 2, 3, 3), 1), b=sines((3,), 2)),
    "conv3d": dict(x=sines((1, 2, 2, 3, 2)), w=sines((2, 2, 3, 3, 3), 1), b=sines((2,), 2)),
    "group_norm": dict(x=sines((2, 4, 2, 3)), w=1 + sines((4,), 1) / 2, b=sines((4,), 2)),
    "group_norm_silu": dict(x=sines((2, 4, 2, 3)), w=1 + sines((4,), 1) / 2, b=sines((4,), 2)),
    "norm_conv": dict(x=sines((2, 4, 3, 3)), scale=1 + sines((4,), 1) / 2, shift=sines((4,), 2),
                      w=sines((3, 4, 3, 3), 3), b=sines((3,), 4)),
    "layer_norm": NORM,
    "rms_norm": NORM,
    "adaptive_norm": dict(x=sines((2, 3, 4)), shift=sines((2, 4), 1), scale=sines((2, 4), 2)),
    "layer_norm_modulate": dict(x=sines((2, 3, 4)), shift=sines((2, 4), 1), scale=sines((2, 4), 2)),
    "gate_residual": dict(x=sines((2, 3, 4)), r=sines((2, 3, 4), 1), gate=sines((2, 4), 2)),
    "linear_act": dict(x=sines((2, 3)), r=sines((2, 4), 3), act="gelu"),
    "split_heads": dict(x=sines((2, 3, 4)), heads=2),
    "merge_heads": dict(y=sines((2, 2, 3, 2))),
    "multi_head": dict(params=linears("to_q", "to_k", "to_v", norms=("norm_q",)) | {"to_out": [linears("x")["x"], {}]},
                       x=sines((2, 3, 4)), context=sines((2, 2, 4), 8), heads=2),
    "joint_attention": dict(
        params=linears("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
                       norms=("norm_q", "norm_k", "norm_added_q", "norm_added_k"))
        | {"to_out": [linears("x")["x"], {}]},
        x=sines((2, 3, 4), 7), context=sines((2, 2, 4), 8), heads=2,
    ),
    "feed_forward": dict(
        params=[{"proj": {"weight": sines((6, 3)), "bias": sines((6,), 1)}}, {}, {"weight": sines((2, 3), 2)}],
        x=sines((2, 2, 3), 3), act="geglu",
    ),
    "text_end": dict(y=sines((2, 3, 4)), ids=np.array([[5, 7, 7], [5, 1, 7]]), end=7),
    "attention": dict(
        q=2 * sines((1, 2, 3, 4)), k=2 * sines((1, 2, 4, 4), 1), v=sines((1, 2, 4, 2), 2),
        mask=np.array([[True, True, False, True], [False] * 4, [True] * 4]), causal=True,
    ),
    "geglu": dict(x=sines((2, 6))),
    "upsample_nearest": IMAGE,
    "patchify": dict(x=digits()[:, None, :4, :6]),
    "unpatchify": dict(y=sines((2, 6, 4)), size=(4, 6)),
    "sincos_2d": dict(grid=(2, 3)),
    "rope": dict(x=sines((2, 3, 4)), t=np.arange(3)),
}
